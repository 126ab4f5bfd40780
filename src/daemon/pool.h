/*
 * The pool of disk images: plain files in the folder "images" of the state folder, meant by their
 * names alone. A name is one part of a path, and what it means is opened relative to the folder and
 * without following links, so that no name leads out of it. On the loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_POOL_H
#define TENON_DAEMON_POOL_H

#include <jansson.h>
#include <sys/stat.h>

#include "base/base.h"
#include "base/err.h"

#define POOL_NAME_MAX 100

struct pool {
    char *folder;
    int dir_fd;
};

/* Makes the folder when it is missing. */
struct err *pool_open(const char *state, struct pool *pool);
void pool_close(struct pool *pool);

/* Is there an image of this name? */
bool pool_has(const struct pool *pool, const char *name, struct stat *status);
/* Calls `each` for every image, in the order of names. */
void pool_each(const struct pool *pool, void (*each)(void *opaque, const char *name), void *opaque);
/*
 * What an image is, as "Image" of api.json without "used_by". One that cannot be read says why in
 * "problem". NULL: there is none.
 */
json_t *pool_describe(const struct pool *pool, const char *name);

/* What a new image is to be. */
struct pool_image {
    const char *name, *format; /* NULL: raw */
    uint64_t size;             /* bytes; 0 with a backing image: that one's */
    const char *backing;       /* another image of the pool; NULL: none */
};
/* ERR_BUSY: the name is taken. */
struct err *pool_create(const struct pool *pool, const struct pool_image *image);
/* ERR_BUSY while somebody has it open, or while another image of the pool is over it. */
struct err *pool_delete(const struct pool *pool, const char *name);

#endif
