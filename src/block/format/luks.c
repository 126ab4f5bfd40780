/*
 * LUKS images: header and key slots, then the disk, encrypted sector by sector.
 *
 * Any thread: sectors are independent; a write of a part of one holds a lock around its
 * read-modify-write.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/spare.h"
#include "block/core/driver.h"
#include "block/format/luks.h"

#define ITERATE_MS 2000 /* as cryptsetup does */

struct state {
    struct luks *luks;
    struct image *file; /* borrowed: the node below, or the file of a format's clusters */
    uint64_t start;     /* of the first sector in it, bytes */
    struct lock parts;  /* LOCK_BLOCK; around changes of a part of a sector */
    struct spare buffers;
};

static int luks_probe(const uint8_t *head, size_t length, uint64_t file_size)
{
    return length >= LUKS_HEADER && file_size >= LUKS_HEADER && !memcmp(head, "LUKS\xba\xbe\0\1", 8)
               ? 100
               : 0;
}

static struct state *state_new(struct image *file)
{
    struct state *state = xcalloc(1, sizeof(*state));
    state->file = file;
    lock_init(&state->parts, LOCK_BLOCK);
    spare_init(&state->buffers, free);
    return state;
}

static int luks_image_close(struct image *image)
{
    struct state *state = image->state;
    spare_fini(&state->buffers);
    luks_close(state->luks);
    lock_fini(&state->parts);
    free(state);
    image->state = NULL;
    return 0;
}

static struct err *luks_image_open(struct image *image, const struct image_files *files)
{
    struct state *state = state_new(image->file);
    uint8_t header[LUKS_HEADER] = {0};
    (void)files;
    image->state = state;
    int result = image_read(image->file, header, 0, MIN(sizeof(header), image_size(image->file)));
    struct err *err = result ? err_errno(-result, "cannot read its header")
                             : luks_open(header, sizeof(header), &state->luks);
    if (!err && luks_payload(state->luks) > image_size(image->file))
        err = err_new("it ends before its payload begins");
    if (!err)
        state->start = luks_payload(state->luks);
    if (err)
        luks_image_close(image);
    else
        image->size = image_size(image->file) - luks_payload(state->luks);
    return err;
}

static bool luks_image_locked(const struct image *image)
{
    return luks_locked(((struct state *)image->state)->luks);
}

static struct err *luks_image_unlock(struct image *image, const void *key, size_t length)
{
    struct state *state = image->state;
    size_t area_length = luks_payload(state->luks);
    uint8_t *area = malloc(area_length);
    int result = area ? image_read(image->file, area, 0, area_length) : -ENOMEM;
    struct err *err = result ? err_errno(-result, "cannot read its key slots")
                             : luks_unlock(state->luks, area, area_length, key, length);
    free(area);
    return err;
}

/* Whole sectors; the last of the disk may be short, and then nothing is behind it. */
static int read_sectors(struct image *image, uint64_t sector, uint8_t *out, uint64_t length)
{
    struct state *state = image->state;
    int result = image_read(state->file, out, state->start + sector * LUKS_SECTOR, length);
    return result ? result : luks_decrypt(state->luks, sector, out, length);
}

/* The sector that `offset` lies in, a part of it: *part bytes. */
static int read_part(struct image *image, uint8_t *out, uint64_t offset, uint64_t length,
                     uint64_t *part)
{
    uint8_t bytes[LUKS_SECTOR];
    uint64_t inside = offset % LUKS_SECTOR;
    int result = read_sectors(image, offset / LUKS_SECTOR, bytes, LUKS_SECTOR);
    *part = MIN(LUKS_SECTOR - inside, length);
    memcpy(out, bytes + inside, *part);
    explicit_bzero(bytes, sizeof(bytes));
    return result;
}

static int luks_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    uint8_t *out = buffer;
    int result = luks_image_locked(image) ? -ENOKEY : 0;
    for (uint64_t part; length && !result; out += part, offset += part, length -= part) {
        part = ALIGN_DOWN(length, (uint64_t)LUKS_SECTOR);
        if (offset % LUKS_SECTOR || !part)
            result = read_part(image, out, offset, length, &part);
        else
            result = read_sectors(image, offset / LUKS_SECTOR, out, part);
    }
    return result;
}

static int write_sectors(struct image *image, uint64_t sector, const uint8_t *data, uint8_t *buffer,
                         uint64_t length)
{
    struct state *state = image->state;
    uint64_t at = state->start + sector * LUKS_SECTOR;
    int result = luks_encrypt(state->luks, sector, data, buffer, length);
    return result ? result : image_write(state->file, buffer, at, length);
}

static int write_part(struct image *image, const uint8_t *data, uint8_t *buffer, uint64_t offset,
                      uint64_t length, uint64_t *part)
{
    struct state *state = image->state;
    uint8_t bytes[LUKS_SECTOR];
    uint64_t inside = offset % LUKS_SECTOR, sector = offset / LUKS_SECTOR;
    *part = MIN(LUKS_SECTOR - inside, length);
    lock_take(&state->parts);
    int result = read_sectors(image, sector, bytes, LUKS_SECTOR);
    memcpy(bytes + inside, data, *part);
    if (!result)
        result = write_sectors(image, sector, bytes, buffer, LUKS_SECTOR);
    lock_drop(&state->parts);
    explicit_bzero(bytes, sizeof(bytes));
    return result;
}

static int luks_pwrite(struct image *image, const void *from, uint64_t offset, uint64_t length)
{
    const uint8_t *data = from;
    int result = luks_image_locked(image) ? -ENOKEY : 0;
    struct spare *buffers = &((struct state *)image->state)->buffers;
    uint8_t *buffer = spare_take(buffers);
    if (!buffer)
        buffer = malloc(LUKS_CHUNK);
    if (!buffer)
        result = -ENOMEM;
    for (uint64_t part; length && !result; data += part, offset += part, length -= part) {
        part = MIN(ALIGN_DOWN(length, (uint64_t)LUKS_SECTOR), LUKS_CHUNK);
        if (offset % LUKS_SECTOR || !part)
            result = write_part(image, data, buffer, offset, length, &part);
        else
            result = write_sectors(image, offset / LUKS_SECTOR, data, buffer, part);
    }
    spare_give(buffers, buffer);
    return result;
}

/* The value of an option that a format may have behind a prefix. */
static const char *value_of(const struct image_create *create, const char *prefix, const char *name)
{
    char whole[64];
    snprintf(whole, sizeof(whole), "%s%s", prefix, name);
    return image_create_value(create, whole);
}

struct err *luks_options_choose(const struct image_create *create, const char *prefix,
                                struct luks_options *options)
{
    static const struct {
        const char *name, *value;
    } only[] = {{"cipher-mode", "xts"}, {"ivgen-alg", "plain64"}};
    const char *text;
    *options = (struct luks_options){.key_bits = 256, .hash = "sha256", .iterate_ms = ITERATE_MS};
    for (unsigned i = 0; i < ARRAY_SIZE(only); i++)
        if ((text = value_of(create, prefix, only[i].name)) && strcmp(text, only[i].value))
            return err_of(ERR_USAGE, "%s can only be %s", only[i].name, only[i].value);
    if ((text = value_of(create, prefix, "cipher-alg"))) {
        options->key_bits = strcmp(text, "aes-128") ? 256 : 128;
        if (options->key_bits == 256 && strcmp(text, "aes-256"))
            return err_of(ERR_USAGE, "cipher-alg is aes-128 or aes-256, not '%s'", text);
    }
    if ((text = value_of(create, prefix, "hash-alg")))
        options->hash = text;
    if ((text = value_of(create, prefix, "iter-time"))) {
        char *end;
        unsigned long time = strtoul(text, &end, 10);
        if (*end || !time || time > 60000)
            return err_of(ERR_USAGE, "iter-time is 1 to 60000 milliseconds, not '%s'", text);
        options->iterate_ms = (unsigned)time;
    }
    return NULL;
}

/* One slot is in use: the others take no room, and have nothing of what was there before. */
static int write_area(struct image *file, const uint8_t *area, size_t length)
{
    size_t used = length;
    while (used > KIB(4) && image_is_zero(area + used - KIB(4), KIB(4)))
        used -= KIB(4);
    int result = image_write(file, area, 0, used);
    return result || used == length ? result : image_zero(file, used, length - used, true);
}

static struct err *luks_image_create(struct image *file, const struct image_create *create)
{
    struct luks_options options;
    uint8_t *area;
    size_t length;
    if (create->backing_name)
        return err_of(ERR_USAGE, "a LUKS image cannot have a backing file");
    if (!create->key_length)
        return err_of(ERR_USAGE, "a passphrase is needed: give it with --key-file");
    TRY(luks_options_choose(create, "", &options));
    TRY(luks_format(&options, create->key, create->key_length, &area, &length));
    uint64_t size = ALIGN_UP(create->size, (uint64_t)LUKS_SECTOR);
    int result = image_truncate(file, length + size);
    if (!result)
        result = write_area(file, area, length);
    free(area);
    return result ? err_errno(-result, "cannot write its header") : NULL;
}

static bool luks_wants_key(const struct image_create *create)
{
    (void)create;
    return true;
}

static struct err *luks_resize(struct image *image, uint64_t size)
{
    const struct state *state = image->state;
    size = ALIGN_UP(size, (uint64_t)LUKS_SECTOR);
    int result = image_truncate(image->file, luks_payload(state->luks) + size);
    if (result)
        return err_errno(-result, "cannot set its length");
    image->size = size;
    return NULL;
}

static struct err *luks_measure(const struct image_create *create, struct image_measure *measure)
{
    (void)create;
    measure->metadata = MIB(2);
    return NULL;
}

static void luks_info(struct image *image, struct image_info *out)
{
    const struct state *state = image->state;
    struct luks_info info;
    char text[64];
    luks_get_info(state->luks, &info);
    out->encrypted = true;
    bool xts = !strncmp(info.mode, "xts", 3);
    image_info_text(out, "cipher-alg",
                    info.key_bytes == (xts ? 64 : 32)   ? "aes-256"
                    : info.key_bytes == (xts ? 32 : 16) ? "aes-128"
                                                        : "aes-192");
    memcpy(text, info.mode, sizeof(info.mode));
    text[3] = 0;
    image_info_text(out, "cipher-mode", text);
    image_info_text(out, "ivgen-alg", text + 4);
    image_info_text(out, "hash-alg", info.hash);
    image_info_text(out, "uuid", info.uuid);
    image_info_number(out, "payload-offset", luks_payload(state->luks));
    image_info_number(out, "master-key-iters", info.digest_iterations);
    image_info_number(out, "slots-used", info.slots_used);
}

static const char *const options[] = {"cipher-alg", "cipher-mode", "ivgen-alg", "hash-alg",
                                      "iter-time",  "key-secret",  NULL};

const struct block_driver image_luks = {
    .name = "luks",
    .parallel = true,
    .in_place = true,
    .noise = true,
    .create_options = options,
    .probe = luks_probe,
    .open = luks_image_open,
    .create = luks_image_create,
    .close = luks_image_close,
    .pread = luks_pread,
    .pwrite = luks_pwrite,
    .info = luks_info,
    .resize = luks_resize,
    .locked = luks_image_locked,
    .unlock = luks_image_unlock,
    .wants_key = luks_wants_key,
    .measure = luks_measure,
};

static const struct block_driver clusters_driver = {
    .name = "luks",
    .parallel = true,
    .close = luks_image_close,
    .pread = luks_pread,
    .pwrite = luks_pwrite,
};

struct image *luks_clusters(struct image *file, struct luks *take_luks)
{
    struct state *state = state_new(file);
    struct image *image = image_new(&clusters_driver, IMAGE_OPEN_WRITABLE);
    state->luks = take_luks;
    image->state = state;
    image->size = image_size(file);
    image->grows = true;
    return image;
}
