/*
 * vhost-user: the memory in which rings write down what they have in flight, so that the back end
 * that follows a killed one goes on where it stood. The front end keeps it meanwhile.
 *
 * On the loop, while no ring runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/vhost/vhost_user_internal.h"

/* Offsets in the payload of both messages. */
enum { P_SIZE = 0, P_OFFSET = 8, P_QUEUES = 16, P_ENTRIES = 18 };

/* Bytes that the rings of the message need; 0: not such rings. */
static uint64_t bytes_needed(const struct vhost_user *vhost, const uint8_t *payload)
{
    uint16_t queues = get_le16(payload + P_QUEUES), entries = get_le16(payload + P_ENTRIES);
    if (!queues || queues > vhost->config.queues || !entries ||
        entries > virtio_queue(&vhost->blk->virtio, 0)->size_max)
        return 0;
    return queues * (uint64_t)virtq_inflight_size(entries);
}

bool vhost_user_inflight_get(struct vhost_user *vhost, const uint8_t *payload, uint32_t length,
                             uint8_t *reply)
{
    uint64_t size = bytes_needed(vhost, payload);
    if (!size)
        return false;
    vhost_user_close(&vhost->reply_fd);
    vhost->reply_fd = memfd_create("inflight", MFD_CLOEXEC);
    if (vhost->reply_fd < 0 || ftruncate(vhost->reply_fd, (off_t)size) < 0)
        return false;
    memcpy(reply, payload, length); /* QEMU wants its padding back */
    put_le64(reply + P_SIZE, size);
    put_le64(reply + P_OFFSET, 0);
    return true;
}

bool vhost_user_inflight_set(struct vhost_user *vhost, const uint8_t *payload, int take_fd)
{
    scoped(fd_cleanup) int fd = take_fd;
    uint64_t needed = bytes_needed(vhost, payload), size = get_le64(payload + P_SIZE);
    uint64_t offset = get_le64(payload + P_OFFSET);
    struct stat status;
    vhost_user_inflight_forget(vhost);
    /* A page that the file does not have would end this process when it is touched. */
    if (fd < 0 || !needed || size < needed || fstat(fd, &status) < 0 || status.st_size < 0 ||
        !range_within(offset, size, (uint64_t)status.st_size))
        return false;
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
    if (map == MAP_FAILED)
        return false;
    vhost->inflight = map;
    vhost->inflight_size = size;
    for (unsigned i = 0; i < get_le16(payload + P_QUEUES); i++)
        virtio_queue(&vhost->blk->virtio, i)->inflight.region =
            vhost->inflight + i * virtq_inflight_size(get_le16(payload + P_ENTRIES));
    return true;
}

void vhost_user_inflight_forget(struct vhost_user *vhost)
{
    for (unsigned i = 0; i < vhost->config.queues; i++)
        virtio_queue(&vhost->blk->virtio, i)->inflight.region = NULL;
    if (vhost->inflight)
        munmap(vhost->inflight, vhost->inflight_size);
    vhost->inflight = NULL;
}
