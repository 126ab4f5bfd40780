/*
 * Ceph RBD as a source or sink: rbd:POOL/IMAGE[@SNAPSHOT][:OPTION=VALUE...]; id= and conf= are
 * ours, every other option goes to Ceph. Through librados and librbd, whose functions are declared
 * here: their headers bring a cluster's worth of packages.
 *
 * One call at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/library.h"
#include "block/proto/remote.h"

#define CHUNK MIB(16)

struct rbd {
    void *rados_library, *library;
    void *cluster, *pool, *image;
    int (*rados_create)(void **cluster, const char *id);
    int (*rados_conf_read_file)(void *cluster, const char *path);
    int (*rados_conf_set)(void *cluster, const char *option, const char *value);
    int (*rados_connect)(void *cluster);
    void (*rados_shutdown)(void *cluster);
    int (*rados_ioctx_create)(void *cluster, const char *pool, void **ioctx);
    void (*rados_ioctx_destroy)(void *ioctx);
    int (*rbd_open)(void *ioctx, const char *name, void **image, const char *snapshot);
    int (*rbd_open_read_only)(void *ioctx, const char *name, void **image, const char *snapshot);
    int (*rbd_close)(void *image);
    int (*rbd_get_size)(void *image, uint64_t *size);
    ssize_t (*rbd_read)(void *image, uint64_t offset, size_t length, char *buffer);
    ssize_t (*rbd_write)(void *image, uint64_t offset, size_t length, const char *buffer);
    int (*rbd_discard)(void *image, uint64_t offset, uint64_t length);
    int (*rbd_flush)(void *image);
    int (*rbd_diff_iterate2)(void *image, const char *from, uint64_t offset, uint64_t length,
                             uint8_t include_parent, uint8_t whole_object,
                             int (*call)(uint64_t offset, size_t length, int exists, void *opaque),
                             void *opaque);
};

static const struct library_symbol rados_symbols[] = {
    LIBRARY_SYMBOL(rbd, rados_create),        LIBRARY_SYMBOL(rbd, rados_conf_read_file),
    LIBRARY_SYMBOL(rbd, rados_conf_set),      LIBRARY_SYMBOL(rbd, rados_connect),
    LIBRARY_SYMBOL(rbd, rados_shutdown),      LIBRARY_SYMBOL(rbd, rados_ioctx_create),
    LIBRARY_SYMBOL(rbd, rados_ioctx_destroy),
};
static const struct library_symbol symbols[] = {
    LIBRARY_SYMBOL(rbd, rbd_open),          LIBRARY_SYMBOL(rbd, rbd_open_read_only),
    LIBRARY_SYMBOL(rbd, rbd_close),         LIBRARY_SYMBOL(rbd, rbd_get_size),
    LIBRARY_SYMBOL(rbd, rbd_read),          LIBRARY_SYMBOL(rbd, rbd_write),
    LIBRARY_SYMBOL(rbd, rbd_discard),       LIBRARY_SYMBOL(rbd, rbd_flush),
    LIBRARY_SYMBOL(rbd, rbd_diff_iterate2),
};

static void rbd_free(struct rbd *rbd)
{
    if (rbd->image)
        rbd->rbd_close(rbd->image);
    if (rbd->pool)
        rbd->rados_ioctx_destroy(rbd->pool);
    if (rbd->cluster)
        rbd->rados_shutdown(rbd->cluster);
    library_unload(rbd->library);
    library_unload(rbd->rados_library);
    free(rbd);
}

static int rbd_node_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    struct rbd *rbd = image->state;
    char *out = buffer;
    remote_clip_read(image, buffer, offset, &length);
    while (length) {
        ssize_t got = rbd->rbd_read(rbd->image, offset, MIN(length, CHUNK), out);
        if (got <= 0)
            return got ? (int)got : -EIO;
        out += got;
        offset += (uint64_t)got;
        length -= (uint64_t)got;
    }
    return 0;
}

static int rbd_node_pwrite(struct image *image, const void *buffer, uint64_t offset,
                           uint64_t length)
{
    struct rbd *rbd = image->state;
    const char *data = buffer;
    int result = remote_clip_write(image, offset, length);
    while (length && !result) {
        ssize_t put = rbd->rbd_write(rbd->image, offset, MIN(length, CHUNK), data);
        if (put <= 0)
            return put ? (int)put : -EIO;
        data += put;
        offset += (uint64_t)put;
        length -= (uint64_t)put;
    }
    return result;
}

/* What RBD discards reads as zeros. */
static int rbd_node_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    struct rbd *rbd = image->state;
    int result = unmap ? remote_clip_write(image, offset, length) : -ENOTSUP;
    for (uint64_t here; length && !result; offset += here, length -= here) {
        here = MIN(length, GIB(1));
        result = MIN(rbd->rbd_discard(rbd->image, offset, here), 0);
    }
    return result;
}

static int rbd_node_flush(struct image *image)
{
    struct rbd *rbd = image->state;
    return MIN(rbd->rbd_flush(rbd->image), 0);
}

struct run {
    uint64_t offset, length; /* asked for; then of the run */
    bool data, known;
};

static int take_extent(uint64_t offset, size_t length, int exists, void *opaque)
{
    struct run *run = opaque;
    if (!exists)
        return 0;
    if (!run->known && offset > run->offset) { /* a hole comes first */
        run->known = true;
        run->length = offset - run->offset;
        return -ECANCELED;
    }
    if (run->known && offset > run->offset + run->length)
        return -ECANCELED;
    run->length = offset + length - run->offset;
    run->known = run->data = true;
    return 0;
}

static int rbd_node_extent(struct image *image, uint64_t offset, uint64_t length,
                           struct image_extent *out)
{
    struct rbd *rbd = image->state;
    struct run run = {.offset = offset};
    length = MIN(length, GIB(1));
    int result = rbd->rbd_diff_iterate2(rbd->image, NULL, offset, length, 1, 0, take_extent, &run);
    if (result < 0 && result != -ECANCELED)
        return result;
    out->length = run.known ? MIN(run.length, length) : length;
    out->host = offset;
    out->flags = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_HOST |
                 (run.data ? IMAGE_EXTENT_DATA : IMAGE_EXTENT_ZERO);
    return 0;
}

static int rbd_node_close(struct image *image)
{
    rbd_free(image->state);
    image->state = NULL;
    return 0;
}

static const struct block_driver driver = {
    .name = "rbd",
    .pread = rbd_node_pread,
    .pwrite = rbd_node_pwrite,
    .zero = rbd_node_zero,
    .flush = rbd_node_flush,
    .extent = rbd_node_extent,
    .close = rbd_node_close,
};

struct place {
    char *pool, *image, *snapshot, *options;
};

/* Cuts a copy of the name, without "rbd:", into its parts. */
static struct err *parse(char *text, struct place *place)
{
    *place = (struct place){.pool = text};
    place->options = strchr(text, ':');
    if (place->options)
        *place->options++ = 0;
    place->image = strchr(text, '/');
    if (!place->image || place->image == text || !place->image[1])
        return err_of(ERR_USAGE, "write rbd:POOL/IMAGE");
    *place->image++ = 0;
    place->snapshot = strchr(place->image, '@');
    if (place->snapshot)
        *place->snapshot++ = 0;
    return NULL;
}

/* The next NAME=VALUE of the options; NULL: there is none. */
static char *next_option(char **options, char **value)
{
    char *name = *options ? strsep(options, ":") : NULL, *equals = name ? strchr(name, '=') : NULL;
    if (equals)
        *equals = 0;
    *value = equals ? equals + 1 : NULL;
    return name;
}

static struct err *log_in(struct rbd *rbd, const struct place *place)
{
    char *first = place->options ? xstrdup(place->options) : NULL, *rest = first, *name, *value;
    const char *id = NULL, *conf = NULL;
    while ((name = next_option(&rest, &value))) {
        if (value && !strcmp(name, "id"))
            id = value;
        else if (value && !strcmp(name, "conf"))
            conf = value;
    }
    int result = rbd->rados_create(&rbd->cluster, id);
    if (!result)
        result = rbd->rados_conf_read_file(rbd->cluster, conf);
    if (result == -ENOENT && !conf)
        result = 0; /* everything may be in the name */
    free(first);
    if (result)
        return err_errno(-result, "cannot read Ceph's configuration");
    char *options = place->options;
    while ((name = next_option(&options, &value))) {
        if (!strcmp(name, "id") || !strcmp(name, "conf"))
            continue;
        if (!value || rbd->rados_conf_set(rbd->cluster, name, value))
            return err_of(ERR_USAGE, "Ceph has no option '%s', or not with that value", name);
    }
    result = rbd->rados_connect(rbd->cluster);
    return result ? err_errno(-result, "cannot connect to the cluster") : NULL;
}

static struct err *open_place(struct rbd *rbd, const struct place *place, bool writable,
                              uint64_t *size)
{
    TRY(log_in(rbd, place));
    int result = rbd->rados_ioctx_create(rbd->cluster, place->pool, &rbd->pool);
    if (result)
        return err_errno(-result, "cannot open the pool '%s'", place->pool);
    result = writable
                 ? rbd->rbd_open(rbd->pool, place->image, &rbd->image, place->snapshot)
                 : rbd->rbd_open_read_only(rbd->pool, place->image, &rbd->image, place->snapshot);
    if (!result)
        result = rbd->rbd_get_size(rbd->image, size);
    return result ? err_errno(-result, "cannot open the image '%s'", place->image) : NULL;
}

struct err *remote_open_rbd(const char *name, unsigned flags, struct image **image)
{
    scoped(free_cleanup) char *text = xstrdup(name + strlen("rbd:"));
    struct place place;
    uint64_t size = 0;
    TRY(parse(text, &place));
    struct rbd *rbd = xcalloc(1, sizeof(*rbd));
    struct err *err = library_load("librados.so.2", "librados2", rados_symbols,
                                   ARRAY_SIZE(rados_symbols), rbd, &rbd->rados_library);
    if (!err)
        err = library_load("librbd.so.1", "librbd1", symbols, ARRAY_SIZE(symbols), rbd,
                           &rbd->library);
    if (!err)
        err = open_place(rbd, &place, flags & IMAGE_OPEN_WRITABLE, &size);
    if (err) {
        rbd_free(rbd);
        return err;
    }
    *image = remote_node(&driver, rbd, flags, size);
    return NULL;
}
