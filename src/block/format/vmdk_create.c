/*
 * New VMDKs: monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat,
 * streamOptimized; and the end of a stream.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "block/format/vmdk.h"

#define SECTORS(bytes) ((bytes) / IMAGE_SECTOR)
#define DESCRIPTOR_SECTORS 20u
#define SPLIT GIB(2)
#define TABLE_BYTES (VMDK_GTES * 4u)

/* Types of markers in a stream. */
enum { MARKER_END = 0, MARKER_TABLE = 1, MARKER_DIRECTORY = 2, MARKER_FOOTER = 3 };

static uint64_t table_count(uint64_t size)
{
    return (size + (uint64_t)VMDK_GRAIN * VMDK_GTES - 1) / ((uint64_t)VMDK_GRAIN * VMDK_GTES);
}

static void make_header(uint8_t *header, uint64_t size, bool stream)
{
    uint64_t directory = ALIGN_UP(table_count(size) * 4, (uint64_t)IMAGE_SECTOR);
    uint64_t tables = table_count(size) * TABLE_BYTES;
    uint64_t rgd = SECTORS(VMDK_HEADER) + DESCRIPTOR_SECTORS;
    uint64_t gd = rgd + SECTORS(directory + tables);
    memset(header, 0, VMDK_HEADER);
    put_le32(header, VMDK_MAGIC);
    put_le32(header + S_VERSION, stream ? 3 : 1);
    put_le32(header + S_FLAGS, stream
                                   ? VMDK_FLAG_NEWLINES | VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS
                                   : VMDK_FLAG_NEWLINES | VMDK_FLAG_REDUNDANT);
    put_le64(header + S_CAPACITY, SECTORS(size));
    put_le64(header + S_GRAIN, SECTORS(VMDK_GRAIN));
    put_le32(header + S_GTES, VMDK_GTES);
    put_le64(header + S_RGD, stream ? 0 : rgd);
    put_le64(header + S_GD, stream ? VMDK_GD_AT_END : gd);
    uint64_t end = stream ? rgd : gd + SECTORS(directory + tables);
    put_le64(header + S_OVERHEAD, ALIGN_UP(end, SECTORS(VMDK_GRAIN)));
    memcpy(header + S_NEWLINES, "\n \r\n", 4);
    put_le16(header + S_COMPRESSION, stream ? 1 : 0);
}

/* A directory with all its tables behind it, the tables empty. */
static int put_directory(struct image *file, uint64_t at, uint64_t tables)
{
    uint8_t page[4096];
    uint64_t first = SECTORS(at + ALIGN_UP(tables * 4, (uint64_t)IMAGE_SECTOR));
    for (uint64_t i = 0; i < tables; i += sizeof(page) / 4) {
        uint64_t n = MIN(tables - i, (uint64_t)sizeof(page) / 4);
        for (uint64_t k = 0; k < n; k++)
            put_le32(page + 4 * k, (uint32_t)(first + (i + k) * SECTORS(TABLE_BYTES)));
        int status = image_write(file, page, at + 4 * i, 4 * n);
        if (status)
            return status;
    }
    return 0;
}

static int put_marker(struct image *file, uint64_t *at, uint64_t sectors, uint32_t type)
{
    uint8_t marker[IMAGE_SECTOR] = {0};
    put_le64(marker, sectors);
    put_le32(marker + 12, type);
    int status = image_write(file, marker, *at, sizeof(marker));
    *at += sizeof(marker);
    return status;
}

/* The tables that have a grain; fills `directory`. */
static int put_tables(struct image *file, const uint32_t *stream, uint64_t tables,
                      uint8_t *directory, uint64_t *at)
{
    uint8_t table[TABLE_BYTES];
    for (uint64_t i = 0; stream && i < tables; i++) {
        bool any = false;
        for (unsigned k = 0; k < VMDK_GTES; k++) {
            put_le32(table + 4 * (size_t)k, stream[i * VMDK_GTES + k]);
            any |= stream[i * VMDK_GTES + k] != 0;
        }
        if (!any)
            continue;
        int status = put_marker(file, at, SECTORS(TABLE_BYTES), MARKER_TABLE);
        put_le32(directory + 4 * i, (uint32_t)SECTORS(*at));
        if (!status)
            status = image_write(file, table, *at, sizeof(table));
        if (status)
            return status;
        *at += sizeof(table);
    }
    return 0;
}

int vmdk_end_stream(struct image *file, const uint8_t *header, const uint32_t *stream,
                    uint64_t tables, uint64_t at)
{
    uint64_t length = MAX(ALIGN_UP(tables * 4, (uint64_t)IMAGE_SECTOR), (uint64_t)IMAGE_SECTOR);
    uint8_t footer[VMDK_HEADER], *directory = calloc(1, length);
    if (!directory)
        return -ENOMEM;
    int status = put_tables(file, stream, tables, directory, &at);
    if (!status)
        status = put_marker(file, &at, SECTORS(length), MARKER_DIRECTORY);
    memcpy(footer, header, sizeof(footer));
    put_le64(footer + S_GD, SECTORS(at));
    if (!status)
        status = image_write(file, directory, at, length);
    at += length;
    if (!status)
        status = put_marker(file, &at, 1, MARKER_FOOTER);
    if (!status)
        status = image_write(file, footer, at, sizeof(footer));
    at += sizeof(footer);
    if (!status)
        status = put_marker(file, &at, 0, MARKER_END);
    if (!status)
        status = image_truncate(file, at);
    free(directory);
    return status;
}

struct plan {
    const struct image_create *create;
    const char *type, *adapter, *hwversion;
    uint64_t size;
    uint32_t parent_cid;
    bool stream, split, flat;
};

static struct err *parse_options(const struct image_create *create, struct plan *plan)
{
    static const char *const types[] = {"monolithicSparse", "monolithicFlat",
                                        "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
                                        "streamOptimized"};
    static const char *const adapters[] = {"ide", "lsilogic", "buslogic", "legacyESX"};
    const char *type = image_create_value(create, "subformat");
    const char *adapter = image_create_value(create, "adapter_type");
    const char *hwversion = image_create_value(create, "hwversion");
    plan->create = create;
    plan->type = type ? NULL : types[0];
    for (unsigned i = 0; type && i < ARRAY_SIZE(types); i++)
        plan->type = strcmp(type, types[i]) ? plan->type : types[i];
    plan->adapter = adapter ? NULL : adapters[0];
    for (unsigned i = 0; adapter && i < ARRAY_SIZE(adapters); i++)
        plan->adapter = strcmp(adapter, adapters[i]) ? plan->adapter : adapters[i];
    plan->hwversion = hwversion ? hwversion : "4";
    if (!plan->type)
        return err_of(ERR_USAGE, "vmdk: the subformat '%s' is not known", type);
    if (!plan->adapter)
        return err_of(ERR_USAGE, "vmdk: the adapter_type '%s' is not known", adapter);
    if (strspn(plan->hwversion, "0123456789") != strlen(plan->hwversion) ||
        strlen(plan->hwversion) > 9 || !*plan->hwversion)
        return err_of(ERR_USAGE, "vmdk: hwversion is a number");
    plan->stream = plan->type == types[4];
    plan->split = plan->type == types[2] || plan->type == types[3];
    plan->flat = plan->type == types[1] || plan->type == types[3];
    plan->size = ALIGN_UP(create->size, (uint64_t)IMAGE_SECTOR);
    plan->parent_cid = UINT32_MAX;
    /* Grains have 32-bit sector numbers; the metadata takes its share. */
    if (create->size > (plan->flat || plan->split ? VMDK_DISK_MAX : 2047 * GIB(1)))
        return err_of(ERR_USAGE, "vmdk: too large for %s", plan->type);
    if (!create->size)
        return err_of(ERR_USAGE, "vmdk: an image of no bytes");
    if (create->backing_name && (plan->flat || plan->stream))
        return err_of(ERR_USAGE, "vmdk: %s has no backing file", plan->type);
    if (create->backing_name && strpbrk(create->backing_name, "\"\r\n"))
        return err_of(ERR_USAGE, "vmdk: the backing file's name cannot be written down");
    return NULL;
}

static struct err *read_parent(struct plan *plan)
{
    const struct image_create *create = plan->create;
    struct vmdk_descriptor descriptor;
    struct image *file;
    char *text = NULL;
    uint64_t at;
    if (!create->files || !create->files->open)
        return err_of(ERR_USAGE, "vmdk: the backing file cannot be opened here");
    TRY(create->files->open(create->files->opaque, create->backing_name, false, &file));
    struct err *err = vmdk_read_descriptor(file, &text, &at);
    image_close(file);
    if (!err && !text)
        err = err_new("vmdk: it has no descriptor");
    if (!err)
        err = vmdk_parse(text, &descriptor);
    free(text);
    if (err)
        return err_wrap(err, "backing file '%s'", create->backing_name);
    plan->parent_cid = descriptor.cid;
    free(descriptor.line);
    return NULL;
}

static int write_sparse(struct image *file, uint64_t size, bool stream)
{
    uint8_t header[VMDK_HEADER];
    make_header(header, size, stream);
    uint64_t overhead = get_le64(header + S_OVERHEAD) * IMAGE_SECTOR;
    int status = image_truncate(file, overhead);
    if (!status && !stream)
        status = put_directory(file, get_le64(header + S_RGD) * IMAGE_SECTOR, table_count(size));
    if (!status && !stream)
        status = put_directory(file, get_le64(header + S_GD) * IMAGE_SECTOR, table_count(size));
    if (!status && stream)
        status = vmdk_end_stream(file, header, NULL, table_count(size), overhead);
    if (status)
        return status;
    return image_write(file, header, 0, sizeof(header));
}

/* An extent in a file of its own. */
static struct err *create_extent(const struct plan *plan, const char *name, uint64_t size)
{
    struct image *file;
    TRY(plan->create->files->create(plan->create->files->opaque, name, &file));
    int status = plan->flat ? image_truncate(file, size) : write_sparse(file, size, false);
    int closed = image_close(file);
    status = status ? status : closed;
    return status ? err_errno(-status, "vmdk: cannot write '%s'", name) : NULL;
}

/* "disk.vmdk" has its data in "disk-flat.vmdk", "disk-s001.vmdk"... */
static struct err *put_extents(const struct plan *plan, struct buf *text)
{
    const char *name = plan->create->files ? plan->create->files->name : NULL;
    uint64_t step = plan->split ? SPLIT : plan->size;
    if (!plan->flat && !plan->split) {
        buf_printf(text, "RW %llu SPARSE \"%s\"\n", (unsigned long long)SECTORS(plan->size),
                   name && !strpbrk(name, "\"\r\n") ? name : "disk.vmdk");
        return NULL;
    }
    if (!name || !plan->create->files->create)
        return err_of(ERR_USAGE, "vmdk: %s needs several files, which cannot be made here",
                      plan->type);
    if (strpbrk(name, "\"\r\n/"))
        return err_of(ERR_USAGE, "vmdk: the file's name cannot be written into a descriptor");
    size_t base = strlen(name);
    if (base > 5 && !strcmp(name + base - 5, ".vmdk"))
        base -= 5;
    unsigned number = 0;
    for (uint64_t at = 0; at < plan->size; at += step) {
        uint64_t size = MIN(step, plan->size - at);
        char suffix[16];
        if (++number > VMDK_EXTENTS_MAX)
            return err_of(ERR_USAGE, "vmdk: more than %u extents", VMDK_EXTENTS_MAX);
        if (plan->split)
            snprintf(suffix, sizeof(suffix), "%c%03u", plan->flat ? 'f' : 's', number);
        else
            snprintf(suffix, sizeof(suffix), "flat");
        scoped(free_cleanup) char *extent = xasprintf("%.*s-%s.vmdk", (int)base, name, suffix);
        TRY(create_extent(plan, extent, size));
        buf_printf(text, "RW %llu %s \"%s\"%s\n", (unsigned long long)SECTORS(size),
                   plan->flat ? "FLAT" : "SPARSE", extent, plan->flat ? " 0" : "");
    }
    return NULL;
}

static struct err *make_descriptor(const struct plan *plan, struct buf *text)
{
    bool ide = !strcmp(plan->adapter, "ide");
    unsigned heads = ide ? 16 : 255;
    uint64_t cylinders = SECTORS(plan->size) / ((uint64_t)heads * 63);
    uint32_t cid;
    if (getrandom(&cid, sizeof(cid), 0) != sizeof(cid) || cid == UINT32_MAX)
        cid = 1;
    buf_printf(text, "# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=%08x\n", cid,
               plan->parent_cid);
    buf_printf(text, "createType=\"%s\"\n", plan->type);
    if (plan->create->backing_name)
        buf_printf(text, "parentFileNameHint=\"%s\"\n", plan->create->backing_name);
    buf_printf(text, "\n# Extent description\n");
    TRY(put_extents(plan, text));
    buf_printf(text, "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"%s\"\n",
               plan->hwversion);
    buf_printf(text, "ddb.geometry.cylinders = \"%llu\"\n",
               (unsigned long long)(ide ? MIN(cylinders, (uint64_t)16383) : cylinders));
    buf_printf(text, "ddb.geometry.heads = \"%u\"\nddb.geometry.sectors = \"63\"\n", heads);
    buf_printf(text, "ddb.adapterType = \"%s\"\n", plan->adapter);
    return NULL;
}

static struct err *write_main(struct image *file, const struct plan *plan, const struct buf *text)
{
    uint8_t where[16];
    bool embedded = !plan->flat && !plan->split;
    if (embedded && text->len > DESCRIPTOR_SECTORS * IMAGE_SECTOR)
        return err_of(ERR_USAGE, "vmdk: the descriptor is too long");
    int status = embedded ? write_sparse(file, plan->size, plan->stream) : 0;
    put_le64(where, 1);
    put_le64(where + 8, DESCRIPTOR_SECTORS);
    if (!status && embedded)
        status = image_write(file, where, S_DESCRIPTOR, sizeof(where));
    if (!status)
        status = image_write(file, text->data, embedded ? VMDK_HEADER : 0, text->len);
    return status ? err_errno(-status, "vmdk: cannot write the image") : NULL;
}

struct err *vmdk_create(struct image *file, const struct image_create *create)
{
    struct plan plan = {0};
    struct buf text = BUF_INIT;
    TRY(parse_options(create, &plan));
    if (create->backing_name)
        TRY(read_parent(&plan));
    struct err *err = make_descriptor(&plan, &text);
    if (!err)
        err = write_main(file, &plan, &text);
    buf_fini(&text);
    return err;
}
