/*
 * iSCSI as a source or sink: iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN. Through libiscsi.
 *
 * One session a node, one call at a time. A disk moves whole blocks: what is asked for is widened
 * in a buffer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/library.h"
#include "block/proto/remote.h"

#define CHUNK KIB(256) /* what targets take in one command */
#define BLOCK_MAX KIB(4)
#define INITIATOR "iqn.2008-11.org.linux-kvm:tenon"

struct iscsi {
    void *library;
    struct iscsi_context *context;
    int lun;
    uint32_t block;
    LIBRARY_MEMBER(iscsi_create_context);
    LIBRARY_MEMBER(iscsi_destroy_context);
    LIBRARY_MEMBER(iscsi_parse_full_url);
    LIBRARY_MEMBER(iscsi_destroy_url);
    LIBRARY_MEMBER(iscsi_set_targetname);
    LIBRARY_MEMBER(iscsi_set_session_type);
    LIBRARY_MEMBER(iscsi_set_header_digest);
    LIBRARY_MEMBER(iscsi_set_initiator_username_pwd);
    LIBRARY_MEMBER(iscsi_full_connect_sync);
    LIBRARY_MEMBER(iscsi_logout_sync);
    LIBRARY_MEMBER(iscsi_get_error);
    LIBRARY_MEMBER(iscsi_readcapacity16_sync);
    LIBRARY_MEMBER(iscsi_read16_sync);
    LIBRARY_MEMBER(iscsi_write16_sync);
    LIBRARY_MEMBER(iscsi_synchronizecache10_sync);
    LIBRARY_MEMBER(scsi_datain_unmarshall);
    LIBRARY_MEMBER(scsi_free_scsi_task);
};

static const struct library_symbol symbols[] = {
    LIBRARY_SYMBOL(iscsi, iscsi_create_context),
    LIBRARY_SYMBOL(iscsi, iscsi_destroy_context),
    LIBRARY_SYMBOL(iscsi, iscsi_parse_full_url),
    LIBRARY_SYMBOL(iscsi, iscsi_destroy_url),
    LIBRARY_SYMBOL(iscsi, iscsi_set_targetname),
    LIBRARY_SYMBOL(iscsi, iscsi_set_session_type),
    LIBRARY_SYMBOL(iscsi, iscsi_set_header_digest),
    LIBRARY_SYMBOL(iscsi, iscsi_set_initiator_username_pwd),
    LIBRARY_SYMBOL(iscsi, iscsi_full_connect_sync),
    LIBRARY_SYMBOL(iscsi, iscsi_logout_sync),
    LIBRARY_SYMBOL(iscsi, iscsi_get_error),
    LIBRARY_SYMBOL(iscsi, iscsi_readcapacity16_sync),
    LIBRARY_SYMBOL(iscsi, iscsi_read16_sync),
    LIBRARY_SYMBOL(iscsi, iscsi_write16_sync),
    LIBRARY_SYMBOL(iscsi, iscsi_synchronizecache10_sync),
    LIBRARY_SYMBOL(iscsi, scsi_datain_unmarshall),
    LIBRARY_SYMBOL(iscsi, scsi_free_scsi_task),
};

static void iscsi_free(struct iscsi *iscsi)
{
    if (iscsi->context)
        iscsi->iscsi_destroy_context(iscsi->context);
    library_unload(iscsi->library);
    free(iscsi);
}

/* Whole blocks, at most CHUNK. */
static int read_blocks(struct iscsi *iscsi, uint8_t *out, uint64_t offset, uint32_t length)
{
    struct scsi_task *task =
        iscsi->iscsi_read16_sync(iscsi->context, iscsi->lun, offset / iscsi->block, length,
                                 (int)iscsi->block, 0, 0, 0, 0, 0);
    bool good = task && task->status == SCSI_STATUS_GOOD && task->datain.size >= (int)length;
    if (good)
        memcpy(out, task->datain.data, length);
    if (task)
        iscsi->scsi_free_scsi_task(task);
    return good ? 0 : -EIO;
}

static int write_blocks(struct iscsi *iscsi, const uint8_t *data, uint64_t offset, uint32_t length)
{
    struct scsi_task *task = iscsi->iscsi_write16_sync(
        iscsi->context, iscsi->lun, offset / iscsi->block, (unsigned char *)(uintptr_t)data, length,
        (int)iscsi->block, 0, 0, 0, 0, 0);
    bool good = task && task->status == SCSI_STATUS_GOOD;
    if (task)
        iscsi->scsi_free_scsi_task(task);
    return good ? 0 : -EIO;
}

/* How much of [offset, offset + length) goes in one command; *whole: without a buffer. */
static uint32_t step(const struct iscsi *iscsi, uint64_t offset, uint64_t length, bool *whole)
{
    uint64_t inside = offset % iscsi->block, block = iscsi->block;
    *whole = !inside && length >= block;
    return (uint32_t)(*whole ? MIN(ALIGN_DOWN(length, block), CHUNK) : MIN(block - inside, length));
}

static int iscsi_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    struct iscsi *iscsi = image->state;
    uint8_t *out = buffer, block[BLOCK_MAX];
    int result = 0;
    remote_clip_read(image, buffer, offset, &length);
    for (uint32_t here; length && !result; out += here, offset += here, length -= here) {
        bool whole;
        here = step(iscsi, offset, length, &whole);
        if (whole) {
            result = read_blocks(iscsi, out, offset, here);
            continue;
        }
        uint64_t inside = offset % iscsi->block;
        result = read_blocks(iscsi, block, offset - inside, iscsi->block);
        memcpy(out, block + inside, here);
    }
    return result;
}

static int iscsi_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    struct iscsi *iscsi = image->state;
    const uint8_t *data = buffer;
    uint8_t block[BLOCK_MAX];
    int result = remote_clip_write(image, offset, length);
    for (uint32_t here; length && !result; data += here, offset += here, length -= here) {
        bool whole;
        here = step(iscsi, offset, length, &whole);
        if (whole) {
            result = write_blocks(iscsi, data, offset, here);
            continue;
        }
        uint64_t inside = offset % iscsi->block;
        result = read_blocks(iscsi, block, offset - inside, iscsi->block);
        memcpy(block + inside, data, here);
        if (!result)
            result = write_blocks(iscsi, block, offset - inside, iscsi->block);
    }
    return result;
}

static int iscsi_flush(struct image *image)
{
    struct iscsi *iscsi = image->state;
    struct scsi_task *task =
        iscsi->iscsi_synchronizecache10_sync(iscsi->context, iscsi->lun, 0, 0, 0, 0);
    bool good = task && task->status == SCSI_STATUS_GOOD;
    if (task)
        iscsi->scsi_free_scsi_task(task);
    return good ? 0 : -EIO;
}

static int iscsi_close(struct image *image)
{
    struct iscsi *iscsi = image->state;
    iscsi->iscsi_logout_sync(iscsi->context); /* politeness: the target may be gone */
    iscsi_free(iscsi);
    image->state = NULL;
    return 0;
}

static const struct block_driver driver = {
    .name = "iscsi",
    .pread = iscsi_pread,
    .pwrite = iscsi_pwrite,
    .flush = iscsi_flush,
    .close = iscsi_close,
};

/* What libiscsi says went wrong, without the end of its line. */
static struct err *failed(const struct iscsi *iscsi, const char *what)
{
    const char *said = iscsi->iscsi_get_error(iscsi->context);
    return err_new("%s: %.*s", what, (int)strcspn(said, "\n"), said);
}

static struct err *log_in(struct iscsi *iscsi, const char *name)
{
    iscsi->context = iscsi->iscsi_create_context(INITIATOR);
    if (!iscsi->context)
        return err_new("libiscsi does not start");
    struct iscsi_url *url = iscsi->iscsi_parse_full_url(iscsi->context, name);
    if (!url)
        return err_of(ERR_USAGE, "write iscsi://HOST/TARGET/LUN");
    iscsi->lun = url->lun;
    bool good =
        iscsi->iscsi_set_targetname(iscsi->context, url->target) == 0 &&
        iscsi->iscsi_set_session_type(iscsi->context, ISCSI_SESSION_NORMAL) == 0 &&
        iscsi->iscsi_set_header_digest(iscsi->context, ISCSI_HEADER_DIGEST_NONE_CRC32C) == 0 &&
        (!url->user[0] ||
         iscsi->iscsi_set_initiator_username_pwd(iscsi->context, url->user, url->passwd) == 0) &&
        iscsi->iscsi_full_connect_sync(iscsi->context, url->portal, url->lun) == 0;
    iscsi->iscsi_destroy_url(url);
    return good ? NULL : failed(iscsi, "cannot log in");
}

static struct err *learn_size(struct iscsi *iscsi, uint64_t *size)
{
    struct scsi_task *task = iscsi->iscsi_readcapacity16_sync(iscsi->context, iscsi->lun);
    struct err *err = NULL;
    struct scsi_readcapacity16 *capacity = NULL;
    if (task && task->status == SCSI_STATUS_GOOD)
        capacity = iscsi->scsi_datain_unmarshall(task);
    if (!capacity)
        err = failed(iscsi, "it does not tell its size");
    else if (!is_power_of_2(capacity->block_length) || capacity->block_length < IMAGE_SECTOR ||
             capacity->block_length > BLOCK_MAX ||
             !checked_mul(capacity->returned_lba + 1, capacity->block_length, size) ||
             *size > INT64_MAX)
        err = err_new("blocks of %u bytes, of which it has some, are not supported",
                      capacity->block_length);
    else
        iscsi->block = capacity->block_length;
    if (task)
        iscsi->scsi_free_scsi_task(task);
    return err;
}

struct err *remote_open_iscsi(const char *name, unsigned flags, struct image **image)
{
    struct iscsi *iscsi = xcalloc(1, sizeof(*iscsi));
    uint64_t size = 0;
    struct err *err = library_load("libiscsi.so.7", "libiscsi7", symbols, ARRAY_SIZE(symbols),
                                   iscsi, &iscsi->library);
    if (!err)
        err = log_in(iscsi, name);
    if (!err)
        err = learn_size(iscsi, &size);
    if (err) {
        iscsi_free(iscsi);
        return err;
    }
    *image = remote_node(&driver, iscsi, flags, size);
    return NULL;
}
