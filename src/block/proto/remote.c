/*
 * Remote images: which protocol a name means, and what their nodes share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "block/proto/remote.h"

static const struct {
    const char *prefix;
    struct err *(*open)(const char *name, unsigned flags, struct image **image);
} kinds[] = {
    {"nbd:", remote_open_nbd},       {"nbds:", remote_open_nbd},
    {"nbd+unix:", remote_open_nbd},  {"http://", remote_open_http},
    {"https://", remote_open_http},  {"rbd:", remote_open_rbd},
    {"iscsi://", remote_open_iscsi}, {"vhost-user:", remote_open_vhost_user},
};

bool image_is_remote(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (!strncmp(name, kinds[i].prefix, strlen(kinds[i].prefix)))
            return true;
    return false;
}

struct err *image_open_remote(const char *name, unsigned flags, struct image **image)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (!strncmp(name, kinds[i].prefix, strlen(kinds[i].prefix)))
            return kinds[i].open(name, flags, image);
    return err_of(ERR_USAGE, "it is no name of a remote image");
}

struct image *remote_node(const struct block_driver *driver, void *state, unsigned flags,
                          uint64_t size)
{
    struct image *image = image_new(driver, flags);
    image->state = state;
    image->size = size;
    image->grows = true; /* readers may look beyond the end, as they may of a file */
    return image;
}

void remote_clip_read(const struct image *image, void *buffer, uint64_t offset, uint64_t *length)
{
    uint64_t have = offset < image->size ? MIN(*length, image->size - offset) : 0;
    memset((uint8_t *)buffer + have, 0, *length - have);
    *length = have;
}

int remote_clip_write(const struct image *image, uint64_t offset, uint64_t length)
{
    return range_within(offset, length, image->size) ? 0 : -ENOSPC;
}
