/*
 * The bottom of every image: a file or a block device behind a descriptor.
 *
 * Any number of threads, which it blocks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "block/core/driver.h"
#include "block/proto/remote.h"

#define EARLY MIB(8)
/* Writes from this size on are made one at a time. */
#define ALONE_FROM KIB(256)
#define SPIN_NS (NSEC_PER_MSEC / 2)

struct file_state {
    int fd;
    bool device;
    bool no_punch, no_zero_range;
    /* Most file systems let one thread at a time write to a file, and the others burn their CPU
     * until it is their turn. That is best for short writes; behind a long one they sleep here. */
    pthread_mutex_t write_lock;
    unsigned waiting; /* for it; atomic */
    uint64_t started; /* the disk works on what is before this byte already */
    /* The data that was found last: to look for its end costs as much as it is long. If somebody
     * else makes a hole in it, the hole counts as data, which is never wrong. */
    pthread_mutex_t data_lock;
    uint64_t data_at, data_end;
};

/* There may be holes now. */
static void forget_data(struct file_state *state)
{
    pthread_mutex_lock(&state->data_lock);
    state->data_at = state->data_end = 0;
    pthread_mutex_unlock(&state->data_lock);
}

/* What a file grows by is seldom written again: a flush that the disk began early waits less. */
static void start_writing(struct image *image, uint64_t size)
{
    struct file_state *state = image->state;
    uint64_t from = __atomic_load_n(&state->started, __ATOMIC_RELAXED);
    if (size < from + EARLY || image->flags & (IMAGE_OPEN_UNSAFE | IMAGE_OPEN_SCRATCH))
        return;
    if (__atomic_compare_exchange_n(&state->started, &from, size, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED))
        sync_file_range(state->fd, (off_t)from, (off_t)(size - from), SYNC_FILE_RANGE_WRITE);
}

/* A write ended here: the file is at least so long. */
static void grown(struct image *image, uint64_t end)
{
    uint64_t size = image_size(image);
    if (end > size)
        start_writing(image, size);
    while (size < end && !__atomic_compare_exchange_n(&image->size, &size, end, true,
                                                      __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        ;
}

static int file_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    struct file_state *state = image->state;
    uint8_t *at = buffer;
    while (length) {
        ssize_t got = pread(state->fd, at, MIN(length, GIB(1)), (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (!got) {
            memset(at, 0, length);
            return 0;
        }
        at += got;
        offset += (uint64_t)got;
        length -= (uint64_t)got;
    }
    return 0;
}

/*
 * Waking up takes as long as writing half a MiB: a writer that is soon done is waited for awake, by
 * one of those that wait.
 */
static void write_lock(struct file_state *state)
{
    uint64_t end = clock_now_ns() + SPIN_NS;
    bool first = !__atomic_fetch_add(&state->waiting, 1, __ATOMIC_RELAXED);
    bool got = !pthread_mutex_trylock(&state->write_lock);
    while (!got && first && clock_now_ns() < end) {
        __builtin_ia32_pause();
        got = !pthread_mutex_trylock(&state->write_lock);
    }
    if (!got)
        pthread_mutex_lock(&state->write_lock);
    __atomic_fetch_sub(&state->waiting, 1, __ATOMIC_RELAXED);
}

static ssize_t write_once(struct file_state *state, const void *bytes, uint64_t offset,
                          uint64_t length)
{
    bool alone = !state->device && length >= ALONE_FROM;
    if (alone)
        write_lock(state);
    ssize_t put = pwrite(state->fd, bytes, length, (off_t)offset);
    int number = errno;
    if (alone)
        pthread_mutex_unlock(&state->write_lock);
    errno = number;
    return put;
}

static int file_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    struct file_state *state = image->state;
    const uint8_t *at = buffer;
    while (length) {
        ssize_t put = write_once(state, at, offset, MIN(length, GIB(1)));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return put ? -errno : -EIO;
        at += put;
        offset += (uint64_t)put;
        length -= (uint64_t)put;
        grown(image, offset);
    }
    return 0;
}

static int file_flush(struct image *image)
{
    struct file_state *state = image->state;
    if (image->flags & IMAGE_OPEN_UNSAFE)
        return 0;
    return fdatasync(state->fd) < 0 ? -errno : 0;
}

static bool refused(int error)
{
    return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == ENODEV;
}

static int change(struct file_state *state, int mode, uint64_t offset, uint64_t length, bool *no)
{
    if (__atomic_load_n(no, __ATOMIC_RELAXED))
        return -ENOTSUP;
    while (fallocate(state->fd, mode, (off_t)offset, (off_t)length) < 0) {
        if (errno == EINTR)
            continue;
        int error = errno;
        if (!refused(error))
            return -error;
        __atomic_store_n(no, true, __ATOMIC_RELAXED);
        return -ENOTSUP;
    }
    forget_data(state);
    return 0;
}

static int file_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    struct file_state *state = image->state;
    int result = -ENOTSUP;
    if (unmap && offset + length <= image_size(image))
        result = change(state, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length,
                        &state->no_punch);
    if (result == -ENOTSUP)
        result = change(state, FALLOC_FL_ZERO_RANGE, offset, length, &state->no_zero_range);
    if (!result)
        grown(image, offset + length);
    return result;
}

static int file_discard(struct image *image, uint64_t offset, uint64_t length)
{
    struct file_state *state = image->state;
    uint64_t size = image_size(image);
    if (offset >= size)
        return 0;
    length = MIN(length, size - offset);
    return change(state, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length,
                  &state->no_punch);
}

/* How long there is data from `offset` on; 0: that is not known. */
static uint64_t known_data(struct file_state *state, uint64_t offset)
{
    pthread_mutex_lock(&state->data_lock);
    bool inside = offset >= state->data_at && offset < state->data_end;
    uint64_t length = inside ? state->data_end - offset : 0;
    pthread_mutex_unlock(&state->data_lock);
    return length;
}

static int file_extent(struct image *image, uint64_t offset, uint64_t length,
                       struct image_extent *out)
{
    struct file_state *state = image->state;
    uint64_t known = known_data(state, offset);
    out->flags = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_DATA | IMAGE_EXTENT_HOST;
    out->host = offset;
    out->length = known ? MIN(length, known) : length;
    if (state->device || known)
        return 0;
    off_t data = lseek(state->fd, (off_t)offset, SEEK_DATA);
    if (data < 0 && errno != ENXIO)
        return 0; /* the file system does not tell */
    if (data < 0 || (uint64_t)data > offset) {
        out->flags = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_ZERO | IMAGE_EXTENT_HOST;
        if (data > 0)
            out->length = MIN(length, (uint64_t)data - offset);
        return 0;
    }
    off_t hole = lseek(state->fd, (off_t)offset, SEEK_HOLE);
    if (hole <= 0 || (uint64_t)hole <= offset)
        return 0;
    out->length = MIN(length, (uint64_t)hole - offset);
    pthread_mutex_lock(&state->data_lock);
    state->data_at = offset;
    state->data_end = (uint64_t)hole;
    pthread_mutex_unlock(&state->data_lock);
    return 0;
}

static int file_close(struct image *image)
{
    struct file_state *state = image->state;
    int result = close(state->fd) < 0 ? -errno : 0;
    pthread_mutex_destroy(&state->data_lock);
    pthread_mutex_destroy(&state->write_lock);
    free(state);
    image->state = NULL;
    return result == -EINTR ? 0 : result;
}

static struct err *file_resize(struct image *image, uint64_t size)
{
    struct file_state *state = image->state;
    if (state->device)
        return size == image->size ? NULL : err_new("a block device cannot be resized");
    if (ftruncate(state->fd, (off_t)size) < 0)
        return err_errno(errno, "cannot set the file's length");
    forget_data(state);
    image->size = size;
    return NULL;
}

static int file_truncate(struct image *file, uint64_t size)
{
    struct file_state *state = file->state;
    if (state->device)
        return size <= file->size ? 0 : -ENOSPC;
    if (ftruncate(state->fd, (off_t)size) < 0)
        return -errno;
    forget_data(state);
    __atomic_store_n(&file->size, size, __ATOMIC_RELEASE);
    return 0;
}

const struct block_driver image_file_driver = {
    .name = "file",
    .parallel = true,
    .close = file_close,
    .pread = file_pread,
    .pwrite = file_pwrite,
    .flush = file_flush,
    .zero = file_zero,
    .discard = file_discard,
    .extent = file_extent,
    .resize = file_resize,
    .truncate = file_truncate,
};

static struct err *learn(int fd, struct file_state *state, uint64_t *size)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return err_errno(errno, "cannot examine the file");
    if (S_ISBLK(status.st_mode)) {
        state->device = true;
        if (ioctl(fd, BLKGETSIZE64, size) < 0)
            return err_errno(errno, "cannot learn the size of the device");
    } else if (S_ISREG(status.st_mode)) {
        *size = (uint64_t)status.st_size;
    } else {
        return err_new("it is neither a file nor a block device");
    }
    return NULL;
}

struct err *image_open_fd(int take_fd, unsigned flags, struct image **out)
{
    if (image_fd_is_socket(take_fd))
        return image_open_socket(take_fd, flags, out);
    struct file_state *state = xcalloc(1, sizeof(*state));
    uint64_t size = 0;
    struct err *err = learn(take_fd, state, &size);
    if (err) {
        free(state);
        close(take_fd);
        return err;
    }
    state->fd = take_fd;
    state->started = size;
    pthread_mutex_init(&state->data_lock, NULL);
    pthread_mutex_init(&state->write_lock, NULL);
    struct image *image = image_new(&image_file_driver, flags);
    image->state = state;
    image->size = size;
    image->grows = true;
    *out = image;
    return NULL;
}

bool image_fd_is_socket(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode);
}

int image_fd(const struct image *image)
{
    return image->driver == &image_file_driver ? ((struct file_state *)image->state)->fd : -1;
}

uint64_t image_allocated(const struct image *image)
{
    struct stat status;
    while (image->file)
        image = image->file;
    int fd = image_fd(image);
    return fd >= 0 && fstat(fd, &status) == 0 ? (uint64_t)status.st_blocks * 512 : 0;
}
