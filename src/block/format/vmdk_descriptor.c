/*
 * The text that describes a VMDK: key=value lines and one line an extent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/vmdk.h"

static const char *skip_blanks(const char *at)
{
    while (*at == ' ' || *at == '\t')
        at++;
    return at;
}

/* The next word, at most `room` with its zero; what follows it, or NULL if it is too long. */
static const char *word(const char *at, char *out, size_t room)
{
    size_t length = 0;
    at = skip_blanks(at);
    while (*at && !isspace((unsigned char)*at)) {
        if (length + 1 >= room)
            return NULL;
        out[length++] = *at++;
    }
    out[length] = 0;
    return at;
}

/* A value, in quotes or not, to the end of the line. */
static bool value(const char *at, char *out, size_t room)
{
    at = skip_blanks(at);
    bool quoted = *at == '"';
    size_t length = strcspn(at + quoted, quoted ? "\"\r\n" : "\r\n");
    if (length >= room)
        return false;
    memcpy(out, at + quoted, length);
    out[length] = 0;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)out[i] < ' ')
            return false;
    return true;
}

static bool number(const char *text, uint64_t *result)
{
    char *end;
    errno = 0;
    *result = strtoull(text, &end, 10);
    return isdigit((unsigned char)*text) && !*end && !errno;
}

static struct err *parse_extent(const char *at, struct vmdk_descriptor *descriptor)
{
    static const char *const sparse[] = {"SPARSE", "VMFSSPARSE"}, *const flat[] = {"FLAT", "VMFS"};
    char access[16], size[24], kind[24], offset[24] = "";
    at = word(at, access, sizeof(access));
    at = at ? word(at, size, sizeof(size)) : NULL;
    at = at ? word(at, kind, sizeof(kind)) : NULL;
    if (descriptor->lines == VMDK_EXTENTS_MAX)
        return err_new("vmdk: more than %u extents", VMDK_EXTENTS_MAX);
    descriptor->line = xrealloc(descriptor->line, descriptor->lines + 1, sizeof(*descriptor->line));
    struct vmdk_line *line = &descriptor->line[descriptor->lines++];
    memset(line, 0, sizeof(*line));
    if (!at || !number(size, &line->sectors) || !line->sectors ||
        line->sectors > VMDK_DISK_MAX / IMAGE_SECTOR)
        return err_new("vmdk: extent %u of the descriptor makes no sense", descriptor->lines);
    line->readonly = strcmp(access, "RW") != 0;
    if (!strcmp(access, "NOACCESS"))
        return err_new("vmdk: extent %u may not be accessed", descriptor->lines);
    if (!strcmp(kind, "ZERO")) {
        line->kind = VMDK_ZERO;
        return NULL;
    }
    bool is_sparse = !strcmp(kind, sparse[0]) || !strcmp(kind, sparse[1]);
    line->kind = is_sparse ? VMDK_SPARSE : VMDK_FLAT;
    if (line->kind == VMDK_FLAT && strcmp(kind, flat[0]) && strcmp(kind, flat[1]))
        return err_new("vmdk: extents of type %s are not supported", kind);
    at = skip_blanks(at);
    size_t length = *at == '"' ? strcspn(at + 1, "\"\r\n") : 0;
    if (!length || length >= sizeof(line->name) || at[1 + length] != '"')
        return err_new("vmdk: extent %u has no name", descriptor->lines);
    memcpy(line->name, at + 1, length);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)line->name[i] < ' ')
            return err_new("vmdk: extent %u has a bad name", descriptor->lines);
    at = word(at + 2 + length, offset, sizeof(offset));
    if (!at || (*offset && !number(offset, &line->offset)) ||
        !checked_mul(line->offset, IMAGE_SECTOR, &line->offset) || line->offset > INT64_MAX / 2)
        return err_new("vmdk: extent %u has a bad offset", descriptor->lines);
    return NULL;
}

static bool key(const char *line, const char *name, const char **rest)
{
    size_t length = strlen(name);
    if (strncasecmp(line, name, length))
        return false;
    line = skip_blanks(line + length);
    *rest = line + 1;
    return *line == '=';
}

static struct err *parse_line(const char *text, const char *line,
                              struct vmdk_descriptor *descriptor)
{
    const char *rest;
    char hex[16];
    line = skip_blanks(line);
    if (!strncmp(line, "RW ", 3) || !strncmp(line, "RDONLY ", 7) || !strncmp(line, "NOACCESS ", 9))
        return parse_extent(line, descriptor);
    if (key(line, "CID", &rest) && value(rest, hex, sizeof(hex))) {
        descriptor->cid = (uint32_t)strtoul(hex, NULL, 16);
        rest = skip_blanks(rest);
        if (strspn(rest, "0123456789abcdefABCDEF") == 8)
            descriptor->cid_offset = (size_t)(rest - text);
    } else if (key(line, "parentCID", &rest) && value(rest, hex, sizeof(hex))) {
        descriptor->parent_cid = (uint32_t)strtoul(hex, NULL, 16);
    } else if (key(line, "createType", &rest)) {
        if (!value(rest, descriptor->create_type, sizeof(descriptor->create_type)))
            return err_new("vmdk: the descriptor's createType is bad");
    } else if (key(line, "parentFileNameHint", &rest)) {
        if (!value(rest, descriptor->parent, sizeof(descriptor->parent)))
            return err_new("vmdk: the descriptor's parentFileNameHint is bad");
    }
    return NULL;
}

struct err *vmdk_parse(const char *text, struct vmdk_descriptor *descriptor)
{
    memset(descriptor, 0, sizeof(*descriptor));
    descriptor->parent_cid = UINT32_MAX;
    for (const char *line = text; *line;) {
        struct err *err = parse_line(text, line, descriptor);
        if (err) {
            free(descriptor->line);
            descriptor->line = NULL;
            return err;
        }
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return NULL;
}

struct err *vmdk_read_descriptor(struct image *file, char **text, uint64_t *at)
{
    uint8_t header[VMDK_HEADER];
    uint64_t length = image_size(file), offset = 0;
    *text = NULL;
    int status = image_read(file, header, 0, MIN(length, (uint64_t)sizeof(header)));
    if (status || length < 4)
        return status ? err_errno(-status, "vmdk: cannot read its beginning")
                      : err_new("vmdk: the file is too short");
    if (get_le32(header) == VMDK_MAGIC_ESX)
        return NULL;
    if (get_le32(header) == VMDK_MAGIC) {
        if (length < VMDK_HEADER)
            return err_new("vmdk: the file ends within its header");
        if (!checked_mul(get_le64(header + S_DESCRIPTOR), IMAGE_SECTOR, &offset) ||
            !checked_mul(get_le64(header + S_DESCRIPTOR_SIZE), IMAGE_SECTOR, &length))
            return err_new("vmdk: the descriptor lies outside of the file");
        if (!offset || !length)
            return NULL;
    }
    if (length > VMDK_DESCRIPTOR_MAX || !range_within(offset, length, image_size(file)))
        return err_new("vmdk: the descriptor lies outside of the file or is longer than any");
    *text = xcalloc(length + 1, 1);
    *at = offset;
    status = image_read(file, *text, offset, length);
    if (!status)
        return NULL;
    free(*text);
    *text = NULL;
    return err_errno(-status, "vmdk: cannot read the descriptor");
}
