/*
 * Help texts out of the schema's table: for a terminal and for the manual.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "vm/schema.h"
#include "vm/schema_table.h"

#define WIDTH 79

static bool is_hidden(const struct schema_field *field)
{
    return field->kind == SCHEMA_FD || field->kind == SCHEMA_FDS;
}

/* Words wrapped at WIDTH, every line indented. */
static void wrap(struct buf *out, const char *text, unsigned indent)
{
    unsigned column = 0;

    while (*text) {
        size_t len = strcspn(text, " ");
        if (column && column + 1 + len > WIDTH) {
            buf_u8(out, '\n');
            column = 0;
        }
        if (!column)
            buf_printf(out, "%*s", (int)indent, "");
        else
            buf_u8(out, ' ');
        column = (column ? column + 1 : indent) + (unsigned)len;
        buf_append(out, text, len);
        text += len + (text[len] == ' ');
    }
    buf_u8(out, '\n');
}

/* "auto|kvm|soft", "SIZE"; owned by the caller. */
static char *value_shape(const struct schema_field *field)
{
    struct buf shape = BUF_INIT;

    if (field->kind == SCHEMA_CHOICE) {
        for (unsigned i = 0; field->choices[i]; i++)
            buf_printf(&shape, "%s%s", i ? "|" : "", field->choices[i]);
    } else if (field->kind == SCHEMA_SWITCH) {
        buf_text(&shape, "true|false");
    } else {
        buf_text(&shape, field->metavar ? field->metavar : "VALUE");
    }
    buf_u8(&shape, 0);
    return (char *)shape.data;
}

static char *full_help(const struct schema_field *field)
{
    const char *standard = field->standard;

    if (!standard || field->object)
        return xstrdup(field->help);
    if (field->kind == SCHEMA_SWITCH)
        return xasprintf("%s Default: %s.", field->help, strcmp(standard, "true") ? "off" : "on");
    return xasprintf("%s Default: %s.", field->help, standard);
}

static const struct schema_field *forwards(void)
{
    for (size_t i = 0; i < schema_net.count; i++) {
        if (schema_net.fields[i].object == &schema_forward)
            return &schema_net.fields[i];
    }
    return NULL;
}

static void flag_line(struct buf *out, const struct schema_field *field)
{
    scoped(free_cleanup) char *shape = value_shape(field);
    scoped(free_cleanup) char *help = full_help(field);

    if (field->kind == SCHEMA_SWITCH)
        buf_printf(out, "  --%s, --no-%s\n", field->flag, field->flag);
    else
        buf_printf(out, "  --%s %s\n", field->flag, shape);
    wrap(out, help, 6);
}

static void one_flag(const struct schema_field *field,
                     void (*each)(void *opaque, const char *flag, const char *shape,
                                  const char *help),
                     void *opaque)
{
    bool stands_alone = field->kind == SCHEMA_SWITCH;
    scoped(free_cleanup) char *shape = value_shape(field);
    scoped(free_cleanup) char *help = full_help(field);
    scoped(free_cleanup) char *negated = xasprintf("no-%s", field->flag);

    each(opaque, field->flag, stands_alone ? NULL : shape, help);
    if (stands_alone)
        each(opaque, negated, NULL, help);
}

void schema_each_flag(void (*each)(void *opaque, const char *flag, const char *shape,
                                   const char *help),
                      void *opaque)
{
    for (size_t i = 0; i < schema_vm.count; i++) {
        if (schema_vm.fields[i].flag)
            one_flag(&schema_vm.fields[i], each, opaque);
        if (schema_vm.fields[i].object == &schema_net)
            one_flag(forwards(), each, opaque);
    }
}

void schema_help(struct buf *out)
{
    for (size_t i = 0; i < schema_vm.count; i++) {
        if (schema_vm.fields[i].flag)
            flag_line(out, &schema_vm.fields[i]);
        if (schema_vm.fields[i].object == &schema_net)
            flag_line(out, forwards());
    }
}

static void file_keys(struct buf *out, const struct schema_object *object, unsigned indent)
{
    for (size_t i = 0; i < object->count; i++) {
        const struct schema_field *field = &object->fields[i];
        if (is_hidden(field))
            continue;
        scoped(free_cleanup) char *shape = value_shape(field);
        scoped(free_cleanup) char *help = full_help(field);
        if (field->object)
            buf_printf(out, "%*s%s: (list)\n", (int)indent, "", field->key);
        else
            buf_printf(out, "%*s%s: %s\n", (int)indent, "", field->key, shape);
        wrap(out, help, indent + 4);
        if (field->object)
            file_keys(out, field->object, indent + 2);
    }
}

void schema_help_file(struct buf *out)
{
    file_keys(out, &schema_vm, 2);
}

/* --- man(7) --- */

/* A leading dot or quote would be a request; a dash becomes a minus, which can be copied. */
static void roff(struct buf *out, const char *text)
{
    if (*text == '.' || *text == '\'')
        buf_text(out, "\\&");
    for (; *text; text++) {
        if (*text == '\\')
            buf_text(out, "\\e");
        else if (*text == '-')
            buf_text(out, "\\-");
        else
            buf_u8(out, (uint8_t)*text);
    }
}

static void man_item(struct buf *out, const char *name, const char *shape, const char *help)
{
    buf_text(out, ".TP\n\\fB");
    roff(out, name);
    buf_text(out, "\\fR");
    if (shape) {
        buf_text(out, " \\fI");
        roff(out, shape);
        buf_text(out, "\\fR");
    }
    buf_u8(out, '\n');
    roff(out, help);
    buf_u8(out, '\n');
}

static void man_flag(struct buf *out, const struct schema_field *field)
{
    bool stands_alone = field->kind == SCHEMA_SWITCH;
    scoped(free_cleanup) char *shape = value_shape(field);
    scoped(free_cleanup) char *help = full_help(field);
    scoped(free_cleanup) char *name = stands_alone
                                          ? xasprintf("--%s, --no-%s", field->flag, field->flag)
                                          : xasprintf("--%s", field->flag);

    man_item(out, name, stands_alone ? NULL : shape, help);
}

void schema_man_flags(struct buf *out)
{
    for (size_t i = 0; i < schema_vm.count; i++) {
        if (schema_vm.fields[i].flag)
            man_flag(out, &schema_vm.fields[i]);
        if (schema_vm.fields[i].object == &schema_net)
            man_flag(out, forwards());
    }
}

static void man_keys(struct buf *out, const struct schema_object *object)
{
    for (size_t i = 0; i < object->count; i++) {
        const struct schema_field *field = &object->fields[i];
        if (is_hidden(field))
            continue;
        scoped(free_cleanup) char *shape = value_shape(field);
        scoped(free_cleanup) char *help = full_help(field);
        scoped(free_cleanup) char *name = xasprintf("%s:", field->key);
        man_item(out, name, field->object ? "list" : shape, help);
        if (field->object) {
            buf_text(out, ".RS\n");
            man_keys(out, field->object);
            buf_text(out, ".RE\n");
        }
    }
}

void schema_man_file(struct buf *out)
{
    man_keys(out, &schema_vm);
}
