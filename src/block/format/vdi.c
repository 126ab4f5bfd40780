/*
 * VDI, the disk format of VirtualBox, version 1.1: a header, a table with one 32-bit word a block
 * (its number among the stored blocks, or "free" or "zero"), the blocks. Dynamic and static images;
 * differencing images name their parent by UUID alone and are refused.
 *
 * The table and the header's count are changed in memory and written behind the data
 * (metacache.h). Stored blocks are dense: a new one goes behind the highest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bitmap.h"
#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/blockmap.h"
#include "block/format/metacache.h"

#define SIGNATURE 0xbeda107fu
#define VERSION_1_1 0x00010001u
#define HEADER_BYTES 512u

/* Offsets of header fields; all are little-endian. */
enum {
    H_TEXT = 0x00,
    H_SIGNATURE = 0x40,
    H_VERSION = 0x44,
    H_HEADER_SIZE = 0x48, /* from here to the end of the header */
    H_TYPE = 0x4c,
    H_TABLE = 0x154, /* file offset of the block table */
    H_DATA = 0x158,  /* file offset of stored block 0 */
    H_SECTOR_SIZE = 0x168,
    H_DISK_SIZE = 0x170, /* 64 bits */
    H_BLOCK_SIZE = 0x178,
    H_BLOCK_EXTRA = 0x17c,
    H_BLOCKS = 0x180,
    H_ALLOCATED = 0x184,
    H_UUID = 0x188,
    H_UUID_SNAPSHOT = 0x198,
    H_UUID_LINK = 0x1a8,
    H_UUID_PARENT = 0x1b8,
};

enum { TYPE_DYNAMIC = 1, TYPE_STATIC = 2 };

#define ENTRY_FREE 0xffffffffu
#define ENTRY_ZERO 0xfffffffeu
#define BLOCKS_MAX 0x1fffff80u /* the data offset has 32 bits */
#define BLOCK_SIZE_DEFAULT ((uint32_t)MIB(1))

struct vdi {
    struct metacache meta;
    uint32_t type, block_size, blocks, allocated;
    uint64_t table, data;
    uint32_t next; /* the stored block that is handed out next, once `scanned` */
    uint32_t placed;
    bool scanned;
};

static int vdi_probe(const uint8_t *head, size_t length, uint64_t file_size)
{
    (void)file_size;
    return length >= HEADER_BYTES && get_le32(head + H_SIGNATURE) == SIGNATURE ? 100 : 0;
}

static struct err *parse_header(struct vdi *vdi, const uint8_t *head, uint64_t *size)
{
    static const uint8_t nil[16];
    uint32_t version = get_le32(head + H_VERSION);
    if (get_le32(head + H_SIGNATURE) != SIGNATURE)
        return err_new("vdi: no VDI signature");
    if (version != VERSION_1_1)
        return err_new("vdi: version %u.%u is not supported, only 1.1", version >> 16,
                       version & 0xffff);
    vdi->type = get_le32(head + H_TYPE);
    if (vdi->type != TYPE_DYNAMIC && vdi->type != TYPE_STATIC)
        return err_new("vdi: image type %u is not supported, only dynamic and static images",
                       vdi->type);
    if (memcmp(head + H_UUID_LINK, nil, 16) || memcmp(head + H_UUID_PARENT, nil, 16))
        return err_new("vdi: differencing images are not supported");
    if (get_le32(head + H_SECTOR_SIZE) != IMAGE_SECTOR)
        return err_new("vdi: sector size %u is not supported", get_le32(head + H_SECTOR_SIZE));
    vdi->block_size = get_le32(head + H_BLOCK_SIZE);
    if (!is_power_of_2(vdi->block_size) || vdi->block_size < KIB(4) || vdi->block_size > MIB(256))
        return err_new("vdi: bad block size %u", vdi->block_size);
    if (get_le32(head + H_BLOCK_EXTRA))
        return err_new("vdi: blocks with extra data are not supported");
    vdi->blocks = get_le32(head + H_BLOCKS);
    vdi->allocated = get_le32(head + H_ALLOCATED);
    vdi->table = get_le32(head + H_TABLE);
    vdi->data = get_le32(head + H_DATA);
    uint64_t disk = get_le64(head + H_DISK_SIZE);
    if (vdi->blocks > BLOCKS_MAX)
        return err_new("vdi: the block table has %u entries, more than any image needs",
                       vdi->blocks);
    if (disk > (uint64_t)vdi->blocks * vdi->block_size)
        return err_new("vdi: the disk of %llu bytes does not fit %u blocks",
                       (unsigned long long)disk, vdi->blocks);
    if (vdi->table % IMAGE_SECTOR || vdi->table < HEADER_BYTES)
        return err_new("vdi: bad offset of the block table, %#llx", (unsigned long long)vdi->table);
    if (vdi->data % IMAGE_SECTOR || vdi->data < vdi->table + 4ull * vdi->blocks)
        return err_new("vdi: bad offset of the data, %#llx", (unsigned long long)vdi->data);
    *size = ALIGN_UP(disk, IMAGE_SECTOR);
    return NULL;
}

static int vdi_flush(struct image *image)
{
    struct vdi *vdi = image->state;
    int status = metacache_commit(&vdi->meta);
    return status ? status : image_flush(image->file);
}

static int vdi_close(struct image *image)
{
    struct vdi *vdi = image->state;
    int status = metacache_commit(&vdi->meta);
    metacache_fini(&vdi->meta);
    free(vdi);
    return status;
}

static int read_entry(struct vdi *vdi, uint32_t block, uint32_t *entry)
{
    const uint8_t *bytes;
    int status = metacache_read(&vdi->meta, vdi->table + 4ull * block, 4, &bytes);
    if (!status)
        *entry = get_le32(bytes);
    return status;
}

static uint64_t host_of(const struct vdi *vdi, uint32_t entry)
{
    return vdi->data + (uint64_t)entry * vdi->block_size;
}

/* Does a table entry name a stored block that can be there? */
static bool entry_sane(const struct image *image, uint32_t entry)
{
    const struct vdi *vdi = image->state;
    return entry < vdi->blocks && host_of(vdi, entry) < image_size(image->file);
}

static int vdi_map(struct image *image, uint64_t offset, uint64_t length,
                   struct blockmap_span *span)
{
    struct vdi *vdi = image->state;
    uint32_t within = (uint32_t)(offset % vdi->block_size), entry;
    int status = read_entry(vdi, (uint32_t)(offset / vdi->block_size), &entry);
    if (status)
        return status;
    span->length = MIN(length, (uint64_t)(vdi->block_size - within));
    if (entry == ENTRY_FREE) {
        span->kind = BLOCKMAP_BACKING;
    } else if (entry == ENTRY_ZERO) {
        span->kind = BLOCKMAP_ZERO;
    } else {
        if (!entry_sane(image, entry))
            return -EIO;
        span->kind = BLOCKMAP_DATA;
        span->host = host_of(vdi, entry) + within;
    }
    return 0;
}

/* Finds the highest stored block; the header's count may be stale after a crash. */
static int scan(struct vdi *vdi)
{
    uint32_t next = 0, count = 0;
    for (uint32_t block = 0; block < vdi->blocks; block++) {
        uint32_t entry;
        int status = read_entry(vdi, block, &entry);
        if (status)
            return status;
        if (entry >= ENTRY_ZERO)
            continue;
        if (entry >= vdi->blocks)
            return -EIO;
        count++;
        next = MAX(next, entry + 1);
    }
    vdi->next = next;
    vdi->allocated = count;
    vdi->scanned = true;
    return 0;
}

static int vdi_place(struct image *image, uint64_t offset, uint64_t length, uint64_t *host)
{
    struct vdi *vdi = image->state;
    (void)length;
    int status = vdi->scanned ? 0 : scan(vdi);
    if (status)
        return status;
    if (vdi->next >= vdi->blocks)
        return -ENOSPC; /* holes among the stored blocks: somebody removed some */
    status = blockmap_clear(image->file, host_of(vdi, vdi->next), vdi->block_size);
    if (status)
        return status;
    vdi->placed = vdi->next++;
    *host = host_of(vdi, vdi->placed) + offset % vdi->block_size;
    return 0;
}

/*
 * A power cut may come between the table and the header's count of stored blocks. Others append
 * where that says: put it right before anything is written.
 */
static struct err *restore_count(struct vdi *vdi)
{
    uint32_t before = vdi->allocated;
    uint8_t *bytes;
    int status = scan(vdi);
    if (status == -EIO) /* a damaged table: writes to what it has may go on */
        return NULL;
    if (!status && vdi->allocated != before) {
        status = metacache_write(&vdi->meta, H_ALLOCATED, 4, &bytes);
        if (!status) {
            put_le32(bytes, vdi->allocated);
            status = metacache_commit(&vdi->meta);
        }
    }
    return status ? err_errno(-status, "vdi: cannot put its count of blocks right") : NULL;
}

static struct err *vdi_open(struct image *image, const struct image_files *files)
{
    uint8_t head[HEADER_BYTES];
    (void)files;
    int status = image_size(image->file) < sizeof(head)
                     ? -ENODATA
                     : image_read(image->file, head, 0, sizeof(head));
    if (status)
        return err_errno(-status, "vdi: cannot read the header");
    struct vdi *vdi = xcalloc(1, sizeof(*vdi));
    struct err *err = parse_header(vdi, head, &image->size);
    if (!err && vdi->table + 4ull * vdi->blocks > image_size(image->file))
        err = err_new("vdi: the file ends within the block table");
    if (err) {
        free(vdi);
        return err;
    }
    metacache_init(&vdi->meta, image->file);
    vdi->meta.unordered = image->flags & IMAGE_OPEN_SCRATCH;
    image->state = vdi;
    const unsigned untouched = IMAGE_OPEN_CHECK | IMAGE_OPEN_SCRATCH;
    if (image->writable && !(image->flags & untouched))
        return restore_count(vdi);
    return NULL;
}

/*
 * Sets a table entry and the header's count. While both are in the first page of the file they are
 * written as one piece, so that a killed process leaves them equal.
 */
static int set_entry(struct vdi *vdi, uint32_t block, uint32_t entry)
{
    uint8_t *bytes;
    uint64_t at = vdi->table + 4ull * block;
    int status = metacache_write(&vdi->meta, at, 4, &bytes);
    if (status)
        return status;
    put_le32(bytes, entry);
    if (at < META_PAGE) {
        uint8_t *between;
        for (uint64_t sector = 0; sector < at && !status; sector += META_SECTOR)
            status = metacache_write(&vdi->meta, sector, META_SECTOR, &between);
    }
    if (!status)
        status = metacache_write(&vdi->meta, H_ALLOCATED, 4, &bytes);
    if (!status)
        put_le32(bytes, vdi->allocated);
    return status;
}

static int vdi_placed(struct image *image, uint64_t offset, uint64_t length)
{
    struct vdi *vdi = image->state;
    (void)length;
    vdi->allocated++;
    return set_entry(vdi, (uint32_t)(offset / vdi->block_size), vdi->placed);
}

static const struct blockmap_ops ops = {
    .map = vdi_map,
    .place = vdi_place,
    .placed = vdi_placed,
};

static uint32_t block_size(const struct image *image)
{
    return ((const struct vdi *)image->state)->block_size;
}

static int vdi_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    return blockmap_read(image, &ops, block_size(image), buffer, offset, length);
}

static int vdi_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    return blockmap_write(image, &ops, block_size(image), buffer, offset, length);
}

static int vdi_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    (void)unmap;
    return blockmap_zero(image, &ops, block_size(image), offset, length);
}

static int vdi_extent(struct image *image, uint64_t offset, uint64_t length,
                      struct image_extent *out)
{
    return blockmap_extent(image, &ops, offset, length, out);
}

static void vdi_info(struct image *image, struct image_info *info)
{
    const struct vdi *vdi = image->state;
    info->cluster_size = vdi->block_size;
}

/* One table entry: outside, beyond the file, or of a block that another entry has. */
static bool check_entry(struct image *image, struct image_check *check, uint64_t *seen,
                        uint32_t block, uint32_t entry)
{
    struct vdi *vdi = image->state;
    if (entry >= vdi->blocks) {
        image_check_say(check, "block %u: entry %#x lies outside of the image", block, entry);
    } else if (host_of(vdi, entry) >= image_size(image->file)) {
        image_check_say(check, "block %u: stored block %u lies beyond the end of the file", block,
                        entry);
    } else if (bitmap_test(seen, entry)) {
        image_check_say(check, "block %u: stored block %u belongs to another block too", block,
                        entry);
    } else {
        bitmap_set(seen, entry);
        return true;
    }
    return false;
}

static struct err *vdi_check(struct image *image, bool repair, struct image_check *check)
{
    struct vdi *vdi = image->state;
    uint64_t *seen = calloc(BITMAP_WORDS(vdi->blocks) + 1, sizeof(*seen));
    if (!seen)
        return err_errno(ENOMEM, "vdi: no memory for the check");
    uint32_t count = 0, next = 0;
    int status = 0;
    for (uint32_t block = 0; !status && block < vdi->blocks; block++) {
        uint32_t entry;
        status = read_entry(vdi, block, &entry);
        if (status || entry >= ENTRY_ZERO)
            continue;
        count++;
        if (entry < vdi->blocks)
            next = MAX(next, entry + 1);
        if (!check_entry(image, check, seen, block, entry))
            check->corruptions++;
    }
    free(seen);
    if (status)
        return err_errno(-status, "vdi: cannot read the block table");
    check->total_clusters = vdi->blocks;
    check->allocated_clusters = count;
    check->end_offset = host_of(vdi, next);
    if (count == vdi->allocated)
        return NULL;
    image_check_say(check, "the header counts %u stored blocks, the table has %u", vdi->allocated,
                    count);
    if (!repair) {
        check->corruptions++;
        return NULL;
    }
    uint8_t *bytes;
    vdi->allocated = count;
    status = metacache_write(&vdi->meta, H_ALLOCATED, 4, &bytes);
    if (!status)
        put_le32(bytes, count);
    if (!status)
        status = metacache_commit(&vdi->meta);
    check->corruptions_fixed++;
    return status ? err_errno(-status, "vdi: cannot repair the header") : NULL;
}

static struct err *write_header_size(struct vdi *vdi, uint64_t size, uint32_t blocks)
{
    uint8_t *bytes;
    int status = metacache_write(&vdi->meta, 0, HEADER_BYTES, &bytes);
    if (!status) {
        put_le64(bytes + H_DISK_SIZE, size);
        put_le32(bytes + H_BLOCKS, blocks);
        status = metacache_commit(&vdi->meta);
    }
    return status ? err_errno(-status, "vdi: cannot write the header") : NULL;
}

/* Grows into the room between the table and the data, which is what the writer of the image left.
 */
static struct err *vdi_resize(struct image *image, uint64_t size)
{
    struct vdi *vdi = image->state;
    uint64_t blocks = size / vdi->block_size + (size % vdi->block_size != 0);
    if (size < image->size)
        return err_new("vdi: an image cannot be made smaller");
    if (vdi->type == TYPE_STATIC)
        return err_new("vdi: a static image cannot be resized");
    if (blocks > BLOCKS_MAX || vdi->table + 4 * blocks > vdi->data)
        return err_new("vdi: the block table has no room for a disk of %llu bytes; convert to a "
                       "new image instead",
                       (unsigned long long)size);
    uint8_t *bytes;
    for (uint64_t block = vdi->blocks; block < blocks; block++) {
        int status = metacache_write(&vdi->meta, vdi->table + 4 * block, 4, &bytes);
        if (status)
            return err_errno(-status, "vdi: cannot write the block table");
        put_le32(bytes, ENTRY_FREE);
    }
    TRY(write_header_size(vdi, size, (uint32_t)blocks));
    /* The last block, once partly outside of the disk, may hold what was never the disk's. */
    vdi->blocks = (uint32_t)blocks;
    image->size = size;
    return NULL;
}

/* A random UUID of version 4 as the format stores it. */
static void new_uuid(uint8_t *uuid)
{
    if (getrandom(uuid, 16, 0) != 16)
        memset(uuid, 0x5a, 16);
    uuid[7] = (uint8_t)(0x40 | (uuid[7] & 0x0f));
    uuid[8] = (uint8_t)(0x80 | (uuid[8] & 0x3f));
}

static int write_table(struct image *file, uint64_t table, uint32_t blocks, bool is_static)
{
    uint8_t sector[KIB(4)];
    for (uint32_t first = 0; first < blocks; first += sizeof(sector) / 4) {
        uint32_t n = MIN(blocks - first, (uint32_t)(sizeof(sector) / 4));
        for (uint32_t i = 0; i < n; i++)
            put_le32(sector + 4 * (size_t)i, is_static ? first + i : ENTRY_FREE);
        int status = image_write(file, sector, table + 4ull * first, 4ull * n);
        if (status)
            return status;
    }
    return 0;
}

static struct err *vdi_create(struct image *file, const struct image_create *create)
{
    uint8_t head[HEADER_BYTES] = "<<< Tenon Virtual Disk Image >>>\n";
    const char *option = image_create_value(create, "static");
    bool is_static = option && !strcmp(option, "on");
    if (option && strcmp(option, "on") && strcmp(option, "off"))
        return err_of(ERR_USAGE, "vdi: static is on or off, not '%s'", option);
    if (create->backing_name)
        return err_of(ERR_USAGE, "vdi: images with a backing file are not supported");
    uint64_t size = ALIGN_UP(create->size, IMAGE_SECTOR);
    uint64_t blocks = size / BLOCK_SIZE_DEFAULT + (size % BLOCK_SIZE_DEFAULT != 0);
    if (create->size > UINT64_MAX - IMAGE_SECTOR || blocks > BLOCKS_MAX)
        return err_of(ERR_USAGE, "vdi: the format ends at %llu TiB",
                      (unsigned long long)((uint64_t)BLOCKS_MAX * BLOCK_SIZE_DEFAULT >> 40));
    uint64_t data = ALIGN_UP(HEADER_BYTES + 4 * blocks, IMAGE_SECTOR);
    put_le32(head + H_SIGNATURE, SIGNATURE);
    put_le32(head + H_VERSION, VERSION_1_1);
    put_le32(head + H_HEADER_SIZE, 0x180);
    put_le32(head + H_TYPE, is_static ? TYPE_STATIC : TYPE_DYNAMIC);
    put_le32(head + H_TABLE, HEADER_BYTES);
    put_le32(head + H_DATA, (uint32_t)data);
    put_le32(head + H_SECTOR_SIZE, IMAGE_SECTOR);
    put_le64(head + H_DISK_SIZE, size);
    put_le32(head + H_BLOCK_SIZE, BLOCK_SIZE_DEFAULT);
    put_le32(head + H_BLOCKS, (uint32_t)blocks);
    put_le32(head + H_ALLOCATED, is_static ? (uint32_t)blocks : 0);
    new_uuid(head + H_UUID);
    new_uuid(head + H_UUID_SNAPSHOT);
    int status = image_write(file, head, 0, sizeof(head));
    if (!status)
        status = write_table(file, HEADER_BYTES, (uint32_t)blocks, is_static);
    if (!status)
        status = image_truncate(file, data + (is_static ? blocks * BLOCK_SIZE_DEFAULT : 0));
    return status ? err_errno(-status, "vdi: cannot write the image") : NULL;
}

static const char *const create_options[] = {"static", NULL};

const struct block_driver image_vdi = {
    .name = "vdi",
    .create_options = create_options,
    .probe = vdi_probe,
    .open = vdi_open,
    .create = vdi_create,
    .close = vdi_close,
    .pread = vdi_pread,
    .pwrite = vdi_pwrite,
    .flush = vdi_flush,
    .zero = vdi_zero,
    .extent = vdi_extent,
    .info = vdi_info,
    .check = vdi_check,
    .resize = vdi_resize,
};
