/*
 * A disk of another process as a node: the front end of vhost-user-blk (vhost_protocol.h; virtio
 * 1.2, sections 2.7 and 5.2). Named vhost-user:PATH, or a connected socket that somebody hands
 * over.
 *
 * The back end sees a piece of memory of ours, with one split ring and a slot for each request, and
 * nothing of a guest: data is copied in and out, so that any format, filter or controller may lie
 * above. It is not trusted: what it writes into that memory is bounded.
 *
 * Any number of threads: each takes a slot and waits for its answer; one of those that wait listens
 * for all. A back end that hangs up turns every request into -EIO.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/socket.h"
#include "block/proto/remote.h"
#include "block/proto/vhost_protocol.h"

#define PREFIX "vhost-user:"
#define ANSWER_SECONDS 30 /* that a back end may take for a message */

#define SLOTS 16u
#define SLOT_DATA KIB(256)
#define RING 64u /* entries: three a slot, and a power of two */

/* The memory: descriptors, rings, then for each slot its header, its status, and its data. */
enum {
    AT_DESC = 0,
    AT_AVAIL = 1024,
    AT_USED = 2048,
    AT_SLOT = 4096,
    SLOT_SIZE = 64,
    AT_DATA = 8192
};
enum { SLOT_HEADER = 0, SLOT_STATUS = 16 };
#define MEMORY (AT_DATA + SLOTS * (size_t)SLOT_DATA)

#define DESC_NEXT 1u
#define DESC_WRITE 2u

enum { BLK_READ = 0, BLK_WRITE = 1, BLK_FLUSH = 4, BLK_DISCARD = 11, BLK_ZERO = 13 };
enum { F_RO = 5, F_BLK_SIZE = 6, F_FLUSH = 9, F_DISCARD = 13, F_ZERO = 14, F_VERSION_1 = 32 };
#define WANTED                                                                                     \
    (1ull << F_RO | 1ull << F_BLK_SIZE | 1ull << F_FLUSH | 1ull << F_DISCARD | 1ull << F_ZERO |    \
     1ull << F_VERSION_1 | 1ull << VHOST_F_PROTOCOL_FEATURES)

/* Configuration space: 64 bits of sectors, then 32 bits each. */
enum { C_CAPACITY = 0, C_BLOCK = 20, C_DISCARD_MAX = 36, C_ZERO_MAX = 48, CONFIG = 60 };
#define PAYLOAD_MAX (VHOST_CONFIG_HEADER + CONFIG) /* of what we send */
#define RANGE_BYTES 16u                            /* of a discard: sector, sectors, flags */
#define RANGE_UNMAP 1u

struct slot {
    bool busy, done;
};

struct vhost {
    int socket, kick, call;
    uint8_t *memory; /* MEMORY bytes, shared */
    uint64_t features, protocol;
    uint32_t block, discard_max, zero_max; /* bytes; sectors; sectors */
    pthread_rwlock_t whole;                /* who writes a part of a block has it alone */
    pthread_mutex_t lock;                  /* of what follows, and the rings */
    pthread_cond_t changed;
    struct slot slot[SLOTS];
    uint16_t avail, used;
    bool listening; /* one thread does */
    bool gone;      /* the back end */
};

/* --- messages: only while the node is opened --- */

static struct err *send_message(struct vhost *v, enum vhost_request request, uint32_t flags,
                                const void *payload, uint32_t length, int fd)
{
    uint8_t message[VHOST_HEADER + PAYLOAD_MAX];
    put_le32(message, request);
    put_le32(message + 4, VHOST_VERSION | flags);
    put_le32(message + 8, length);
    memcpy(message + VHOST_HEADER, payload, length);
    return socket_send_fd(v->socket, message, VHOST_HEADER + length, fd, 0)
               ? NULL
               : err_errno(errno, "cannot speak with the back end");
}

static struct err *receive(struct vhost *v, void *bytes, size_t length)
{
    ssize_t got = recv(v->socket, bytes, length, MSG_WAITALL);
    if (got == (ssize_t)length)
        return NULL;
    return got < 0 ? err_errno(errno, "the back end does not answer")
                   : err_new("the back end hung up: another front end may have it");
}

/* The answer to `request`, which has so many bytes. */
static struct err *receive_answer(struct vhost *v, enum vhost_request request, void *reply,
                                  uint32_t length)
{
    uint8_t header[VHOST_HEADER];
    TRY(receive(v, header, sizeof(header)));
    if (get_le32(header) != request || !(get_le32(header + 4) & VHOST_REPLY) ||
        get_le32(header + 8) != length)
        return err_new("the back end answers something else than it was asked");
    return receive(v, reply, length);
}

static struct err *ask_number(struct vhost *v, enum vhost_request request, uint64_t *number)
{
    uint8_t reply[8];
    TRY(send_message(v, request, 0, "", 0, -1));
    TRY(receive_answer(v, request, reply, sizeof(reply)));
    *number = get_le64(reply);
    return NULL;
}

static struct err *tell_number(struct vhost *v, enum vhost_request request, uint64_t number, int fd)
{
    uint8_t payload[8];
    put_le64(payload, number);
    return send_message(v, request, 0, payload, sizeof(payload), fd);
}

static struct err *tell_ring(struct vhost *v, enum vhost_request request, uint32_t value)
{
    return tell_number(v, request, (uint64_t)value << 32, -1); /* ring 0 */
}

static struct err *agree(struct vhost *v)
{
    TRY(ask_number(v, VHOST_GET_FEATURES, &v->features));
    v->features &= WANTED;
    if (!(v->features >> F_VERSION_1 & 1) || !(v->features >> VHOST_F_PROTOCOL_FEATURES & 1))
        return err_new("the back end knows no virtio 1 or no protocol features");
    TRY(ask_number(v, VHOST_GET_PROTOCOL_FEATURES, &v->protocol));
    v->protocol &= 1ull << VHOST_P_CONFIG | 1ull << VHOST_P_REPLY_ACK;
    if (!(v->protocol >> VHOST_P_CONFIG & 1))
        return err_new("the back end does not tell its disk's size");
    TRY(tell_number(v, VHOST_SET_PROTOCOL_FEATURES, v->protocol, -1));
    TRY(send_message(v, VHOST_SET_OWNER, 0, "", 0, -1));
    return tell_number(v, VHOST_SET_FEATURES, v->features, -1);
}

static struct err *learn(struct vhost *v, uint64_t *size)
{
    uint8_t bytes[VHOST_CONFIG_HEADER + CONFIG] = {0}, *config = bytes + VHOST_CONFIG_HEADER;
    put_le32(bytes + 4, CONFIG);
    TRY(send_message(v, VHOST_GET_CONFIG, 0, bytes, sizeof(bytes), -1));
    TRY(receive_answer(v, VHOST_GET_CONFIG, bytes, sizeof(bytes)));
    uint64_t sectors = get_le64(config + C_CAPACITY);
    if (sectors > INT64_MAX / IMAGE_SECTOR)
        return err_new("the back end's disk is larger than any");
    *size = sectors * IMAGE_SECTOR;
    v->block = v->features >> F_BLK_SIZE & 1 ? get_le32(config + C_BLOCK) : IMAGE_SECTOR;
    if (v->block < IMAGE_SECTOR || v->block > KIB(64) || !is_power_of_2(v->block) ||
        *size % v->block)
        return err_new("the back end's disk has blocks of %u bytes", v->block);
    v->discard_max = v->features >> F_DISCARD & 1 ? get_le32(config + C_DISCARD_MAX) : 0;
    v->zero_max = v->features >> F_ZERO & 1 ? get_le32(config + C_ZERO_MAX) : 0;
    return NULL;
}

static struct err *share_memory(struct vhost *v)
{
    uint8_t payload[40] = {0}, reply[8];
    bool acknowledged = v->protocol >> VHOST_P_REPLY_ACK & 1;
    scoped(fd_cleanup) int fd = memfd_create("vhost-user", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, MEMORY) < 0)
        return err_errno(errno, "cannot make memory for requests");
    v->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (v->memory == MAP_FAILED) {
        v->memory = NULL;
        return err_errno(errno, "cannot map memory for requests");
    }
    put_le32(payload, 1); /* one region: guest address 0, size, our address, offset 0 */
    put_le64(payload + 16, MEMORY);
    put_le64(payload + 24, (uintptr_t)v->memory);
    TRY(send_message(v, VHOST_SET_MEM_TABLE, acknowledged ? VHOST_NEED_REPLY : 0, payload,
                     sizeof(payload), fd));
    if (acknowledged) {
        TRY(receive_answer(v, VHOST_SET_MEM_TABLE, reply, sizeof(reply)));
        if (get_le64(reply))
            return err_new("the back end does not take our memory");
    }
    return NULL;
}

static struct err *start_ring(struct vhost *v)
{
    uint8_t place[40] = {0};
    v->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    v->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (v->kick < 0 || v->call < 0)
        return err_errno(errno, "cannot create a doorbell");
    put_le64(place + 8, (uintptr_t)v->memory + AT_DESC);
    put_le64(place + 16, (uintptr_t)v->memory + AT_USED);
    put_le64(place + 24, (uintptr_t)v->memory + AT_AVAIL);
    TRY(tell_ring(v, VHOST_SET_VRING_NUM, RING));
    TRY(tell_ring(v, VHOST_SET_VRING_BASE, 0));
    TRY(send_message(v, VHOST_SET_VRING_ADDR, 0, place, sizeof(place), -1));
    TRY(tell_number(v, VHOST_SET_VRING_CALL, 0, v->call));
    TRY(tell_number(v, VHOST_SET_VRING_KICK, 0, v->kick));
    TRY(tell_ring(v, VHOST_SET_VRING_ENABLE, 1));
    uint64_t features; /* whoever answers this has taken what was said before */
    return ask_number(v, VHOST_GET_FEATURES, &features);
}

/* --- requests --- */

static uint8_t *slot_at(const struct vhost *v, unsigned index)
{
    return v->memory + AT_SLOT + (size_t)index * SLOT_SIZE;
}

static uint8_t *data_at(const struct vhost *v, unsigned index)
{
    return v->memory + AT_DATA + index * (size_t)SLOT_DATA;
}

static void put_desc(const struct vhost *v, unsigned index, const uint8_t *at, uint32_t length,
                     unsigned flags)
{
    uint8_t *desc = v->memory + AT_DESC + (size_t)index * 16;
    put_le64(desc, (uint64_t)(at - v->memory)); /* our memory is at guest address 0 */
    put_le32(desc + 8, length);
    put_le16(desc + 12, (uint16_t)flags);
    put_le16(desc + 14, (uint16_t)(index + 1));
}

static int take_slot(struct vhost *v, unsigned *index)
{
    pthread_mutex_lock(&v->lock);
    for (*index = 0; !v->gone && v->slot[*index].busy;)
        if (++*index == SLOTS) {
            pthread_cond_wait(&v->changed, &v->lock);
            *index = 0;
        }
    int result = v->gone ? -EIO : 0;
    if (!result)
        v->slot[*index].busy = true;
    pthread_mutex_unlock(&v->lock);
    return result;
}

static void give_slot(struct vhost *v, unsigned index)
{
    pthread_mutex_lock(&v->lock);
    v->slot[index].busy = false;
    pthread_cond_broadcast(&v->changed);
    pthread_mutex_unlock(&v->lock);
}

/* What the back end says it has done. */
static void harvest_locked(struct vhost *v)
{
    const uint8_t *ring = v->memory + AT_USED;
    uint16_t now = __atomic_load_n((const uint16_t *)(const void *)(ring + 2), __ATOMIC_ACQUIRE);
    for (; v->used != now && !v->gone; v->used++) {
        uint32_t head = get_le32(ring + 4 + (size_t)(v->used % RING) * 8);
        struct slot *slot = head % 3 || head / 3 >= SLOTS ? NULL : &v->slot[head / 3];
        if (!slot || !slot->busy || slot->done)
            v->gone = true; /* nobody asked for that */
        else
            slot->done = true;
    }
}

/* Waits outside of the lock for something to happen, for all. */
static void listen_locked(struct vhost *v)
{
    struct pollfd fds[2] = {{.fd = v->call, .events = POLLIN}, {.fd = v->socket, .events = POLLIN}};
    uint64_t count;
    v->listening = true;
    pthread_mutex_unlock(&v->lock);
    int ready = poll(fds, 2, -1);
    if (ready > 0 && fds[0].revents)
        (void)!read(v->call, &count, sizeof(count));
    pthread_mutex_lock(&v->lock);
    v->listening = false;
    harvest_locked(v);
    if (ready > 0 && fds[1].revents) /* it has nothing to say but that it goes */
        v->gone = true;
    pthread_cond_broadcast(&v->changed);
}

static int answer(const struct vhost *v, unsigned index)
{
    uint8_t status = __atomic_load_n(slot_at(v, index) + SLOT_STATUS, __ATOMIC_RELAXED);
    return status == 0 ? 0 : status == 2 ? -ENOTSUP : -EIO;
}

/* One request in a slot of the caller's, with `length` bytes of data. */
static int call(struct vhost *v, unsigned index, uint32_t type, uint64_t offset, uint32_t length)
{
    uint8_t *slot = slot_at(v, index), *ring = v->memory + AT_AVAIL;
    unsigned head = index * 3, next = head;
    uint64_t one = 1;
    put_le32(slot, type);
    put_le32(slot + 4, 0);
    put_le64(slot + 8, offset / IMAGE_SECTOR);
    slot[SLOT_STATUS] = 0xff;
    put_desc(v, next++, slot, 16, DESC_NEXT);
    if (length)
        put_desc(v, next++, data_at(v, index), length,
                 DESC_NEXT | (type == BLK_READ ? DESC_WRITE : 0));
    put_desc(v, next, slot + SLOT_STATUS, 1, DESC_WRITE);
    pthread_mutex_lock(&v->lock);
    v->slot[index].done = false;
    put_le16(ring + 4 + (size_t)(v->avail % RING) * 2, (uint16_t)head);
    __atomic_store_n((uint16_t *)(void *)(ring + 2), ++v->avail, __ATOMIC_RELEASE);
    (void)!write(v->kick, &one, sizeof(one));
    while (!v->slot[index].done && !v->gone) {
        if (v->listening)
            pthread_cond_wait(&v->changed, &v->lock);
        else
            listen_locked(v);
    }
    bool done = v->slot[index].done;
    pthread_mutex_unlock(&v->lock);
    return done ? answer(v, index) : -EIO;
}

/* Copies what the whole blocks around a piece have. */
static int read_piece(struct vhost *v, uint8_t *out, uint64_t offset, uint64_t length)
{
    unsigned index;
    uint64_t within = offset % v->block;
    uint64_t bytes = ALIGN_UP(within + length, (uint64_t)v->block);
    int result = take_slot(v, &index);
    if (result)
        return result;
    result = call(v, index, BLK_READ, offset - within, (uint32_t)bytes);
    if (!result)
        memcpy(out, data_at(v, index) + within, length);
    give_slot(v, index);
    return result;
}

static int write_piece(struct vhost *v, const uint8_t *bytes, uint64_t offset, uint64_t length)
{
    unsigned index;
    uint64_t within = offset % v->block;
    uint64_t whole = ALIGN_UP(within + length, (uint64_t)v->block);
    int result = take_slot(v, &index);
    if (result)
        return result;
    if (whole != length)
        result = call(v, index, BLK_READ, offset - within, (uint32_t)whole);
    if (!result) {
        memcpy(data_at(v, index) + within, bytes, length);
        result = call(v, index, BLK_WRITE, offset - within, (uint32_t)whole);
    }
    give_slot(v, index);
    return result;
}

/* The next piece: it ends at a block, if it does not end before one. */
static uint64_t piece(const struct vhost *v, uint64_t offset, uint64_t length)
{
    return MIN(length, SLOT_DATA - offset % v->block);
}

static int vhost_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    struct vhost *v = image->state;
    uint8_t *out = buffer;
    int result = 0;
    remote_clip_read(image, buffer, offset, &length);
    for (uint64_t here; length && !result; out += here, offset += here, length -= here) {
        here = piece(v, offset, length);
        result = read_piece(v, out, offset, here);
    }
    return result;
}

static int vhost_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    struct vhost *v = image->state;
    const uint8_t *bytes = buffer;
    int result = remote_clip_write(image, offset, length);
    if ((offset | length) % v->block)
        pthread_rwlock_wrlock(&v->whole);
    else
        pthread_rwlock_rdlock(&v->whole);
    for (uint64_t here; length && !result; bytes += here, offset += here, length -= here) {
        here = piece(v, offset, length);
        result = write_piece(v, bytes, offset, here);
    }
    pthread_rwlock_unlock(&v->whole);
    return result;
}

static int vhost_flush(struct image *image)
{
    struct vhost *v = image->state;
    if (!(v->features >> F_FLUSH & 1) || image->flags & IMAGE_OPEN_UNSAFE)
        return 0;
    unsigned index;
    int result = take_slot(v, &index);
    if (result)
        return result;
    result = call(v, index, BLK_FLUSH, 0, 0);
    give_slot(v, index);
    return result;
}

/* A range without data, in steps of at most so many sectors. */
static int change(struct vhost *v, uint32_t type, uint64_t offset, uint64_t length, uint32_t most,
                  uint32_t flags)
{
    unsigned index;
    if (!most || (offset | length) % v->block)
        return -ENOTSUP;
    uint64_t step = ALIGN_DOWN((uint64_t)most * IMAGE_SECTOR, (uint64_t)v->block);
    if (!step)
        return -ENOTSUP;
    int result = take_slot(v, &index);
    if (result)
        return result;
    for (uint64_t here; length && !result; offset += here, length -= here) {
        uint8_t *range = data_at(v, index);
        here = MIN(length, step);
        put_le64(range, offset / IMAGE_SECTOR);
        put_le32(range + 8, (uint32_t)(here / IMAGE_SECTOR));
        put_le32(range + 12, flags);
        result = call(v, index, type, 0, RANGE_BYTES);
    }
    give_slot(v, index);
    return result;
}

static int vhost_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    struct vhost *v = image->state;
    int result = remote_clip_write(image, offset, length);
    return result ? result
                  : change(v, BLK_ZERO, offset, length, v->zero_max, unmap ? RANGE_UNMAP : 0);
}

static int vhost_discard(struct image *image, uint64_t offset, uint64_t length)
{
    struct vhost *v = image->state;
    int result = remote_clip_write(image, offset, length);
    return result ? result : change(v, BLK_DISCARD, offset, length, v->discard_max, 0);
}

static void vhost_free(struct vhost *v)
{
    fd_cleanup(&v->socket);
    fd_cleanup(&v->kick);
    fd_cleanup(&v->call);
    if (v->memory)
        munmap(v->memory, MEMORY);
    pthread_rwlock_destroy(&v->whole);
    pthread_mutex_destroy(&v->lock);
    pthread_cond_destroy(&v->changed);
    free(v);
}

static int vhost_close(struct image *image)
{
    vhost_free(image->state);
    return 0;
}

static const struct block_driver image_vhost_user = {
    .name = "vhost-user",
    .parallel = true,
    .close = vhost_close,
    .pread = vhost_pread,
    .pwrite = vhost_pwrite,
    .flush = vhost_flush,
    .zero = vhost_zero,
    .discard = vhost_discard,
};

static struct err *meet(struct vhost *v, unsigned flags, uint64_t *size)
{
    struct timeval patience = {.tv_sec = ANSWER_SECONDS};
    if (setsockopt(v->socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
        setsockopt(v->socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
        return err_errno(errno, "cannot set up the socket");
    TRY(agree(v));
    TRY(learn(v, size));
    if (flags & IMAGE_OPEN_WRITABLE && v->features >> F_RO & 1)
        return err_of(ERR_DENIED, "the back end's disk is read-only");
    TRY(share_memory(v));
    return start_ring(v);
}

static struct err *open_socket(int take_socket, unsigned flags, struct image **image)
{
    struct vhost *v = xcalloc(1, sizeof(*v));
    uint64_t size = 0;
    v->socket = take_socket;
    v->kick = v->call = -1;
    pthread_rwlock_init(&v->whole, NULL);
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->changed, NULL);
    struct err *err = meet(v, flags, &size);
    if (err) {
        vhost_free(v);
        return err_wrap(err, "vhost-user");
    }
    *image = remote_node(&image_vhost_user, v, flags, size);
    return NULL;
}

static struct err *connect_to(const char *path, int *connected)
{
    if (!*path || strlen(path) > SOCKET_PATH_MAX)
        return err_of(ERR_USAGE, "after " PREFIX " comes the path of a socket, of at most %u bytes",
                      SOCKET_PATH_MAX);
    *connected = socket_connect(path, SOCK_STREAM);
    return *connected < 0 ? err_errno(errno, "cannot connect") : NULL;
}

const char *image_vhost_user_path(const char *name)
{
    return strncmp(name, PREFIX, strlen(PREFIX)) ? NULL : name + strlen(PREFIX);
}

struct err *remote_open_vhost_user(const char *name, unsigned flags, struct image **image)
{
    int fd = -1;
    TRY(connect_to(image_vhost_user_path(name), &fd));
    return open_socket(fd, flags, image);
}
