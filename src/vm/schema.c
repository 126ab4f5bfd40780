/*
 * Reading a VM by the schema's table: out of a node tree (YAML or JSON) and out of flags.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/schema.h"

#include <stdlib.h>
#include <string.h>

#include "block/proto/remote.h"
#include "vm/node.h"
#include "vm/schema_table.h"

/* Where the reader stands, for errors and for relative paths. */
struct source {
    const char *name;      /* file, or NULL for JSON */
    const char *directory; /* for relative paths, with its final slash; NULL: leave them */
    bool descriptors;      /* hand-over: descriptor numbers are known keys */
    bool absolute;         /* paths have nothing to be relative to */
};

static struct err *read_object(const struct source *source, const struct node *node,
                               const struct schema_object *object, const char *thing,
                               void *element);

/* "FILE:LINE:COLUMN: THING: cause", or without the first part for JSON. */
static struct err *at(const struct source *source, const struct node *node, const char *thing,
                      struct err *take_cause)
{
    if (take_cause && *thing)
        take_cause = err_wrap(take_cause, "%s", thing);
    if (source->name && node->line)
        return err_wrap(take_cause, "%s:%u:%u", source->name, node->line, node->column);
    return take_cause;
}

static bool field_is_hidden(const struct schema_field *field)
{
    return field->kind == SCHEMA_FD || field->kind == SCHEMA_FDS;
}

static const struct schema_field *find_field(const struct schema_object *object, const char *key,
                                             bool descriptors)
{
    for (size_t i = 0; i < object->count; i++) {
        if (!strcmp(object->fields[i].key, key) &&
            (descriptors || !field_is_hidden(&object->fields[i])))
            return &object->fields[i];
    }
    return NULL;
}

static struct err *unknown_key(const struct schema_object *object, const char *key)
{
    const char *known[32];
    struct buf list = BUF_INIT;
    size_t count = 0;

    for (size_t i = 0; i < object->count && count < ARRAY_SIZE(known); i++) {
        if (field_is_hidden(&object->fields[i]))
            continue;
        known[count++] = object->fields[i].key;
        buf_printf(&list, "%s%s", count > 1 ? ", " : "", object->fields[i].key);
    }
    const char *nearest = schema_nearest(key, known, count);
    struct err *err =
        nearest ? err_of(ERR_USAGE, "unknown key '%.64s': did you mean '%s'?", key, nearest)
                : err_of(ERR_USAGE, "unknown key '%.64s': a %s has %.*s", key, object->what,
                         (int)list.len, (const char *)list.data);
    buf_fini(&list);
    return err;
}

/* --- the short form: "word,key=value,switch" --- */

/* Cuts the next piece at a single comma; ",," stands for a comma in a value. In place. */
static char *next_piece(char **rest)
{
    char *begin = *rest, *in = begin, *out = begin;

    if (!begin)
        return NULL;
    for (; *in; in++) {
        if (*in == ',' && in[1] != ',')
            break;
        if (*in == ',')
            in++;
        *out++ = *in;
    }
    *rest = *in ? in + 1 : NULL;
    *out = 0;
    return begin;
}

static struct err *apply_piece(const struct schema_object *object, void *element, char *piece,
                               bool first)
{
    char *value = strchr(piece, '=');
    const struct schema_field *field = NULL;

    /* A path may hold '=': the first piece is "key=value" only if the key is known. */
    if (value) {
        *value = 0;
        field = find_field(object, piece, false);
        if (!field && !(first && object->first_key))
            return unknown_key(object, piece);
        if (!field)
            *value = '=';
    }
    if (field)
        return err_wrap(schema_set(field, element, value + 1), "%s", piece);
    if (first && object->first_key) {
        field = find_field(object, object->first_key, false);
        return err_wrap(schema_set(field, element, piece), "%s", object->first_key);
    }
    field = find_field(object, piece, false);
    if (!field)
        return unknown_key(object, piece);
    if (field->kind != SCHEMA_SWITCH)
        return err_of(ERR_USAGE, "%s needs a value: %s=%s", piece, piece,
                      field->metavar ? field->metavar : "VALUE");
    return schema_set(field, element, "true");
}

static struct err *read_short(const struct schema_object *object, const char *text, void *element)
{
    if (object->read_short)
        return object->read_short(text, element);

    scoped(free_cleanup) char *copy = xstrdup(text);
    char *rest = copy, *piece;
    for (bool first = true; (piece = next_piece(&rest)); first = false)
        TRY(apply_piece(object, element, piece, first));
    return NULL;
}

/* --- trees --- */

static struct err *make_absolute(const struct source *source, const struct schema_field *field,
                                 void *element)
{
    char **member = schema_at(element, field->offset);

    if (field->kind != SCHEMA_PATH || !*member)
        return NULL;
    const char *path = image_vhost_user_path(*member); /* the socket of another process */
    if (!path && image_is_remote(*member))
        return NULL;
    if (!path)
        path = *member;
    if (*path == '/')
        return NULL;
    if (source->absolute)
        return err_of(ERR_USAGE, "expected an absolute path, found '%s'", *member);
    if (!source->directory)
        return NULL;
    char *joined = xasprintf("%.*s%s%s", (int)(path - *member), *member, source->directory, path);
    free(*member);
    *member = joined;
    return NULL;
}

static const char *kind_name(const struct node *node)
{
    return node->kind == NODE_LIST  ? "a list"
           : node->kind == NODE_MAP ? "keys with values"
                                    : "a single value";
}

static struct err *read_fds(const struct node *node, int *fds)
{
    const struct schema_field one = {.key = "fd", .kind = SCHEMA_FD};

    if (node->kind != NODE_LIST || node->count > VM_QUEUES_MAX)
        return err_of(ERR_USAGE, "expected a list of at most %d descriptors", VM_QUEUES_MAX);
    for (size_t i = 0; i < node->count; i++) {
        if (node->items[i]->kind != NODE_SCALAR)
            return err_of(ERR_USAGE, "expected a descriptor number");
        TRY(schema_set(&one, &fds[i], node->items[i]->text));
    }
    return NULL;
}

static struct err *read_entry(const struct source *source, const struct schema_field *list,
                              const struct node *item, const char *thing, void *object)
{
    void *element;

    struct err *err = at(source, item, thing, schema_append(list, object, &element));
    if (err)
        return err;
    if (item->kind == NODE_SCALAR)
        err = at(source, item, thing, read_short(list->object, item->text, element));
    else
        err = read_object(source, item, list->object, thing, element);
    if (err)
        return err;
    if (item->kind == NODE_SCALAR) {
        for (size_t i = 0; i < list->object->count; i++)
            TRY(at(source, item, thing, make_absolute(source, &list->object->fields[i], element)));
    }
    return NULL;
}

static struct err *read_list(const struct source *source, const struct node *node,
                             const struct schema_field *list, const char *thing, void *object)
{
    if (node->kind == NODE_SCALAR && !node->quoted && !*node->text)
        return NULL; /* "disks:" with nothing after it is an empty list */
    if (node->kind != NODE_LIST)
        return at(source, node, thing,
                  err_of(ERR_USAGE, "expected a list of %ss ('- ...'), found %s",
                         list->object->what, kind_name(node)));
    for (size_t i = 0; i < node->count; i++) {
        scoped(free_cleanup) char *inner = xasprintf("%s[%zu]", thing, i);
        TRY(read_entry(source, list, node->items[i], inner, object));
    }
    schema_name_entries(list, object);
    return NULL;
}

static struct err *read_field(const struct source *source, const struct node *node,
                              const struct schema_field *field, const char *thing, void *element)
{
    if (field->kind == SCHEMA_LIST)
        return read_list(source, node, field, thing, element);
    if (field->kind == SCHEMA_FDS)
        return at(source, node, thing, read_fds(node, schema_at(element, field->offset)));
    if (node->kind != NODE_SCALAR)
        return at(source, node, thing,
                  err_of(ERR_USAGE, "expected a single value, found %s", kind_name(node)));
    if (!node->quoted && !*node->text)
        return at(source, node, thing,
                  err_of(ERR_USAGE, "expected a value, found nothing: add one or remove the key"));
    TRY(at(source, node, thing, schema_set(field, element, node->text)));
    return at(source, node, thing, make_absolute(source, field, element));
}

static struct err *read_object(const struct source *source, const struct node *node,
                               const struct schema_object *object, const char *thing, void *element)
{
    if (node->kind != NODE_MAP)
        return at(source, node, thing,
                  err_of(ERR_USAGE, "expected the keys of a %s ('key: value'), found %s",
                         object->what, kind_name(node)));
    for (size_t i = 0; i < node->count; i++) {
        const struct node *child = node->items[i];
        const struct schema_field *field = find_field(object, child->name, source->descriptors);
        if (!field) {
            const struct node key = {.line = child->name_line, .column = child->name_column};
            return at(source, &key, thing, unknown_key(object, child->name));
        }
        scoped(free_cleanup) char *inner =
            *thing ? xasprintf("%s.%s", thing, child->name) : xstrdup(child->name);
        TRY(read_field(source, child, field, inner, element));
    }
    return NULL;
}

struct err *schema_parse_yaml(const char *text, size_t len, const char *name,
                              struct vm_config *config)
{
    const char *slash = strrchr(name, '/');
    scoped(free_cleanup) char *directory =
        slash ? xasprintf("%.*s", (int)(slash - name + 1), name) : NULL;
    const struct source source = {.name = name, .directory = directory};
    struct node *node;

    TRY(node_parse_yaml(text, len, name, &node));
    struct err *err = read_object(&source, node, &schema_vm, "", config);
    node_free(node);
    return err;
}

static struct err *read_json(const struct source *source, const json_t *json,
                             struct vm_config *config)
{
    struct node *node;

    TRY(node_from_json(json, &node));
    struct err *err = read_object(source, node, &schema_vm, "", config);
    node_free(node);
    return err;
}

struct err *schema_from_json(const json_t *json, struct vm_config *config)
{
    const struct source source = {.descriptors = true};

    return err_wrap(read_json(&source, json, config), "VM description");
}

struct err *schema_parse_json(const json_t *json, struct vm_config *config)
{
    const struct source source = {.absolute = true};

    return read_json(&source, json, config);
}

/* --- flags --- */

/* The field of a flag: of the VM itself, or forwards, which belong to a net. */
static const struct schema_field *find_flag(const char *flag, const struct schema_object **owner)
{
    const struct schema_object *const objects[] = {&schema_vm, &schema_net};

    for (size_t o = 0; o < ARRAY_SIZE(objects); o++) {
        for (size_t i = 0; i < objects[o]->count; i++) {
            const struct schema_field *field = &objects[o]->fields[i];
            if (field->flag && !strcmp(field->flag, flag)) {
                *owner = objects[o];
                return field;
            }
        }
    }
    return NULL;
}

/* "no-rng" is the switch "rng" turned off. */
static const struct schema_field *find_negated(const char *flag)
{
    const struct schema_object *owner;
    const struct schema_field *field = strncmp(flag, "no-", 3) ? NULL : find_flag(flag + 3, &owner);

    return field && field->kind == SCHEMA_SWITCH ? field : NULL;
}

enum schema_flag_use schema_flag_use(const char *flag)
{
    const struct schema_object *owner;
    const struct schema_field *field = find_flag(flag, &owner);

    if (find_negated(flag))
        return SCHEMA_FLAG_SWITCH;
    if (!field)
        return SCHEMA_FLAG_UNKNOWN;
    return field->kind == SCHEMA_SWITCH ? SCHEMA_FLAG_SWITCH : SCHEMA_FLAG_VALUE;
}

const char *schema_flag_nearest(const char *flag)
{
    const char *known[32];
    size_t count = 0;

    for (size_t i = 0; i < schema_vm.count && count < ARRAY_SIZE(known) - 1; i++) {
        if (schema_vm.fields[i].flag)
            known[count++] = schema_vm.fields[i].flag;
    }
    known[count++] = "forward";
    return schema_nearest(flag, known, count);
}

/* The id that a short form names, so that a flag can change an entry of the file. */
static char *short_id(const char *text)
{
    scoped(free_cleanup) char *copy = xstrdup(text);
    char *rest = copy, *piece;

    while ((piece = next_piece(&rest))) {
        if (!strncmp(piece, "id=", 3))
            return xstrdup(piece + 3);
    }
    return NULL;
}

static struct err *apply_list_flag(const struct schema_field *list, void *object, const char *value)
{
    scoped(free_cleanup) char *id = list->object->id_prefix ? short_id(value) : NULL;
    void *element = id ? schema_find_id(list, object, id) : NULL;

    if (element)
        return read_short(list->object, value, element);
    TRY(schema_append(list, object, &element));
    struct err *err = read_short(list->object, value, element);
    if (err) {
        schema_drop_last(list, object);
        return err;
    }
    schema_name_entries(list, object);
    return NULL;
}

/* The net that --forward means: the first of kind user, made when there is none. */
static struct err *forward_net(struct vm_config *config, struct vm_net **net)
{
    const struct schema_object *owner;

    for (unsigned i = 0; i < config->net_count; i++) {
        if (config->net[i].kind == VM_NET_USER) {
            *net = &config->net[i];
            return NULL;
        }
    }
    TRY(apply_list_flag(find_flag("net", &owner), config, "user"));
    *net = &config->net[config->net_count - 1];
    return NULL;
}

struct err *schema_apply_flag(struct vm_config *config, const char *flag, const char *value)
{
    const struct schema_object *owner = &schema_vm;
    const struct schema_field *field = find_flag(flag, &owner);
    void *object = config;

    if (!field && find_negated(flag)) {
        if (value)
            return err_of(ERR_USAGE, "--%s takes no value", flag);
        field = find_negated(flag);
        value = "false";
    }
    if (!field) {
        const char *nearest = schema_flag_nearest(flag);
        return nearest
                   ? err_of(ERR_USAGE, "unknown option --%.64s: did you mean --%s?", flag, nearest)
                   : err_of(ERR_USAGE, "unknown option --%.64s", flag);
    }
    if (!value && field->kind == SCHEMA_SWITCH)
        value = "true";
    if (!value)
        return err_of(ERR_USAGE, "--%s needs a value: --%s %s", flag, flag,
                      field->metavar ? field->metavar : "VALUE");
    if (owner == &schema_net) {
        struct vm_net *net = NULL;
        TRY(err_wrap(forward_net(config, &net), "--%s", flag));
        object = net;
    }
    if (field->kind == SCHEMA_LIST)
        return err_wrap(apply_list_flag(field, object, value), "--%s", flag);
    return err_wrap(schema_set(field, object, value), "--%s", flag);
}
