/*
 * A hostile qcow2 image: opened, described, checked, read, written, repaired.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/core/driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STEP 40000u
#define READS 40

static struct image *open_image(const uint8_t *data, size_t size, unsigned flags)
{
    struct image *file, *image = NULL;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    err_free(image_open_fd(fd, flags | IMAGE_OPEN_UNSAFE, &file));
    err_free(image_open(file, &image_qcow2, flags | IMAGE_OPEN_UNSAFE, NULL, &image));
    return image;
}

static void use(struct image *image, bool writes)
{
    static uint8_t buffer[STEP];
    struct image_info info;
    struct image_extent extent;
    uint64_t size = image_size(image), step = MAX(size / READS, (uint64_t)STEP);
    image_get_info(image, &info);
    for (unsigned i = 0; i < image_snapshot_count(image) && i < 4; i++) {
        struct image_snapshot snapshot;
        image_snapshot_get(image, i, &snapshot);
    }
    for (uint64_t at = 0; at < size && at / step < READS; at += step) {
        uint64_t length = MIN(size - at, (uint64_t)STEP);
        image_extent(image, at, MIN(size - at, MIB(1)), &extent);
        image_read(image, buffer, at, length);
        if (!writes)
            continue;
        image_write(image, buffer, at, MIN(length, (uint64_t)5000));
        image_zero(image, at, MIN(length, (uint64_t)3000), true);
        image_discard(image, at, length);
    }
    if (writes) {
        err_free(image_snapshot_create(image, "fuzz"));
        err_free(image_snapshot_apply(image, "fuzz"));
        err_free(image_snapshot_delete(image, "1"));
        image_flush(image);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 131072)
        return 0;
    for (unsigned turn = 0; turn < 3; turn++) {
        static const unsigned flags[] = {IMAGE_OPEN_CHECK, IMAGE_OPEN_WRITABLE,
                                         IMAGE_OPEN_WRITABLE | IMAGE_OPEN_CHECK};
        struct image *image = open_image(data, size, flags[turn]);
        struct image_check check = {0};
        if (!image)
            continue;
        if (turn < 2)
            use(image, turn == 1);
        if (turn != 1)
            err_free(image_check(image, turn == 2, &check));
        image_close(image);
    }
    return 0;
}
