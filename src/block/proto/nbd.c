/*
 * NBD as a source or sink: nbd://host/export, nbd+unix:///export?socket=PATH, and QEMU's
 * nbd:host:port and nbd:unix:PATH. Through libnbd.
 *
 * One connection a node, one call at a time: the core lets no second thread in.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <libnbd.h>
#include <stdlib.h>
#include <string.h>

#include "base/library.h"
#include "block/proto/remote.h"

#define CHUNK MIB(32) /* what every server must take */
#define ZERO_CHUNK GIB(1)

struct nbd {
    void *library;
    struct nbd_handle *handle;
    bool zero, trim, flush, extents;
    LIBRARY_MEMBER(nbd_create);
    LIBRARY_MEMBER(nbd_close);
    LIBRARY_MEMBER(nbd_shutdown);
    LIBRARY_MEMBER(nbd_get_error);
    LIBRARY_MEMBER(nbd_get_errno);
    LIBRARY_MEMBER(nbd_connect_uri);
    LIBRARY_MEMBER(nbd_add_meta_context);
    LIBRARY_MEMBER(nbd_can_meta_context);
    LIBRARY_MEMBER(nbd_get_size);
    LIBRARY_MEMBER(nbd_is_read_only);
    LIBRARY_MEMBER(nbd_can_zero);
    LIBRARY_MEMBER(nbd_can_trim);
    LIBRARY_MEMBER(nbd_can_flush);
    LIBRARY_MEMBER(nbd_pread);
    LIBRARY_MEMBER(nbd_pwrite);
    LIBRARY_MEMBER(nbd_zero);
    LIBRARY_MEMBER(nbd_trim);
    LIBRARY_MEMBER(nbd_flush);
    LIBRARY_MEMBER(nbd_block_status);
};

static const struct library_symbol symbols[] = {
    LIBRARY_SYMBOL(nbd, nbd_create),
    LIBRARY_SYMBOL(nbd, nbd_close),
    LIBRARY_SYMBOL(nbd, nbd_shutdown),
    LIBRARY_SYMBOL(nbd, nbd_get_error),
    LIBRARY_SYMBOL(nbd, nbd_get_errno),
    LIBRARY_SYMBOL(nbd, nbd_connect_uri),
    LIBRARY_SYMBOL(nbd, nbd_add_meta_context),
    LIBRARY_SYMBOL(nbd, nbd_can_meta_context),
    LIBRARY_SYMBOL(nbd, nbd_get_size),
    LIBRARY_SYMBOL(nbd, nbd_is_read_only),
    LIBRARY_SYMBOL(nbd, nbd_can_zero),
    LIBRARY_SYMBOL(nbd, nbd_can_trim),
    LIBRARY_SYMBOL(nbd, nbd_can_flush),
    LIBRARY_SYMBOL(nbd, nbd_pread),
    LIBRARY_SYMBOL(nbd, nbd_pwrite),
    LIBRARY_SYMBOL(nbd, nbd_zero),
    LIBRARY_SYMBOL(nbd, nbd_trim),
    LIBRARY_SYMBOL(nbd, nbd_flush),
    LIBRARY_SYMBOL(nbd, nbd_block_status),
};

static void nbd_free(struct nbd *nbd)
{
    if (nbd->handle)
        nbd->nbd_close(nbd->handle);
    library_unload(nbd->library);
    free(nbd);
}

/* What libnbd says went wrong, as -errno. */
static int failed(const struct nbd *nbd, int result)
{
    if (result >= 0)
        return 0;
    int error = nbd->nbd_get_errno();
    return error ? -error : -EIO;
}

static int nbd_node_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    struct nbd *nbd = image->state;
    uint8_t *out = buffer;
    int result = 0;
    remote_clip_read(image, buffer, offset, &length);
    for (uint64_t here; length && !result; out += here, offset += here, length -= here) {
        here = MIN(length, CHUNK);
        result = failed(nbd, nbd->nbd_pread(nbd->handle, out, here, offset, 0));
    }
    return result;
}

static int nbd_node_pwrite(struct image *image, const void *buffer, uint64_t offset,
                           uint64_t length)
{
    struct nbd *nbd = image->state;
    const uint8_t *data = buffer;
    int result = remote_clip_write(image, offset, length);
    for (uint64_t here; length && !result; data += here, offset += here, length -= here) {
        here = MIN(length, CHUNK);
        result = failed(nbd, nbd->nbd_pwrite(nbd->handle, data, here, offset, 0));
    }
    return result;
}

static int nbd_node_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    struct nbd *nbd = image->state;
    int result = nbd->zero ? remote_clip_write(image, offset, length) : -ENOTSUP;
    for (uint64_t here; length && !result; offset += here, length -= here) {
        here = MIN(length, ZERO_CHUNK);
        result = failed(
            nbd, nbd->nbd_zero(nbd->handle, here, offset, unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE));
    }
    return result;
}

static int nbd_node_discard(struct image *image, uint64_t offset, uint64_t length)
{
    struct nbd *nbd = image->state;
    int result = nbd->trim ? remote_clip_write(image, offset, length) : -ENOTSUP;
    for (uint64_t here; length && !result; offset += here, length -= here) {
        here = MIN(length, ZERO_CHUNK);
        result = failed(nbd, nbd->nbd_trim(nbd->handle, here, offset, 0));
    }
    return result;
}

static int nbd_node_flush(struct image *image)
{
    struct nbd *nbd = image->state;
    return nbd->flush ? failed(nbd, nbd->nbd_flush(nbd->handle, 0)) : 0;
}

struct status {
    bool known;
    uint64_t length;
    uint32_t flags;
};

/* The first run of one kind. */
static int take_status(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
                       size_t count, int *error)
{
    struct status *status = opaque;
    (void)offset;
    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION))
        return 0;
    for (size_t i = 0; i + 1 < count; i += 2) {
        if (status->known && entries[i + 1] != status->flags)
            break;
        status->known = true;
        status->flags = entries[i + 1];
        status->length += entries[i];
    }
    return 0;
}

static int nbd_node_extent(struct image *image, uint64_t offset, uint64_t length,
                           struct image_extent *out)
{
    struct nbd *nbd = image->state;
    struct status status = {0};
    out->flags = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_DATA | IMAGE_EXTENT_HOST;
    out->host = offset;
    out->length = length;
    if (!nbd->extents)
        return 0;
    int result =
        failed(nbd, nbd->nbd_block_status(
                        nbd->handle, MIN(length, ZERO_CHUNK), offset,
                        (nbd_extent_callback){.callback = take_status, .user_data = &status}, 0));
    if (result)
        return result;
    if (!status.known || !status.length)
        return 0;
    out->length = MIN(length, status.length);
    if (status.flags & LIBNBD_STATE_ZERO)
        out->flags = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_ZERO | IMAGE_EXTENT_HOST;
    return 0;
}

static int nbd_node_close(struct image *image)
{
    struct nbd *nbd = image->state;
    nbd->nbd_shutdown(nbd->handle, 0); /* the server may be gone: nothing is lost by that */
    nbd_free(nbd);
    image->state = NULL;
    return 0;
}

static const struct block_driver driver = {
    .name = "nbd",
    .pread = nbd_node_pread,
    .pwrite = nbd_node_pwrite,
    .zero = nbd_node_zero,
    .discard = nbd_node_discard,
    .flush = nbd_node_flush,
    .extent = nbd_node_extent,
    .close = nbd_node_close,
};

/* QEMU's older way to write it, as a URI; the caller frees it. */
static char *as_uri(const char *name)
{
    scoped(free_cleanup) char *copy = xstrdup(name + strlen("nbd:"));
    char *export = strstr(copy, ":exportname=");
    if (!strncmp(name, "nbd://", 6) || strncmp(name, "nbd:", 4))
        return xstrdup(name);
    if (export) {
        *export = 0;
        export += strlen(":exportname=");
    }
    if (!strncmp(copy, "unix:", 5))
        return xasprintf("nbd+unix:///%s?socket=%s", export ? export : "", copy + 5);
    return xasprintf("nbd://%s/%s", copy, export ? export : "");
}

static struct err *connect_to(struct nbd *nbd, const char *uri)
{
    nbd->handle = nbd->nbd_create();
    if (!nbd->handle || nbd->nbd_add_meta_context(nbd->handle, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0)
        return err_new("libnbd: %s", nbd->nbd_get_error());
    if (nbd->nbd_connect_uri(nbd->handle, uri) < 0)
        return err_new("cannot connect: %s", nbd->nbd_get_error());
    return NULL;
}

struct err *remote_open_nbd(const char *name, unsigned flags, struct image **image)
{
    struct nbd *nbd = xcalloc(1, sizeof(*nbd));
    scoped(free_cleanup) char *uri = as_uri(name);
    struct err *err =
        library_load("libnbd.so.0", "libnbd0", symbols, ARRAY_SIZE(symbols), nbd, &nbd->library);
    if (!err)
        err = connect_to(nbd, uri);
    int64_t size = err ? 0 : nbd->nbd_get_size(nbd->handle);
    if (!err && size < 0)
        err = err_new("the server does not tell a size: %s", nbd->nbd_get_error());
    if (!err && (flags & IMAGE_OPEN_WRITABLE) && nbd->nbd_is_read_only(nbd->handle) != 0)
        err = err_of(ERR_DENIED, "the server lets nobody write");
    if (err) {
        nbd_free(nbd);
        return err;
    }
    nbd->zero = nbd->nbd_can_zero(nbd->handle) > 0;
    nbd->trim = nbd->nbd_can_trim(nbd->handle) > 0;
    nbd->flush = nbd->nbd_can_flush(nbd->handle) > 0;
    nbd->extents = nbd->nbd_can_meta_context(nbd->handle, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
    *image = remote_node(&driver, nbd, flags, (uint64_t)size);
    return NULL;
}
