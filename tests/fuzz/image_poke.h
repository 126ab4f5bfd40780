/*
 * What the fuzz targets of image formats have in common: the input is a file, zeros may follow,
 * which is opened, described, checked, read, repaired and written. Checksums are made right before.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TESTS_FUZZ_IMAGE_POKE_H
#define TENON_TESTS_FUZZ_IMAGE_POKE_H

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/core/driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define POKE_FILE_MAX MIB(16)
#define POKE_PAGE 4096u

static struct err *poke_refuse(void *opaque, const char *name, bool writable, struct image **file)
{
    (void)opaque;
    (void)writable;
    (void)file;
    return err_new("no file '%s'", name);
}

static void poke_data(struct image *image, bool write)
{
    static uint8_t bytes[8192];
    uint64_t size = image_size(image);
    for (unsigned i = 0; i < 16 && size >= sizeof(bytes); i++) {
        uint64_t at = (size - sizeof(bytes)) / 15 * i;
        struct image_extent extent;
        (void)image_read(image, bytes, at, sizeof(bytes));
        (void)image_extent(image, at, size - at, &extent);
        if (write && i % 3 == 0)
            (void)image_write(image, bytes + 1, at, 4001);
        if (write && i % 5 == 0)
            (void)image_zero(image, at, 3000, true);
    }
    if (write)
        (void)image_flush(image);
}

/* `bytes` become a file of `length`, opened by `format`, once for reading and once for writing. */
static void poke(const char *format, const uint8_t *bytes, size_t size, uint64_t length)
{
    const struct image_files files = {.open = poke_refuse};
    for (unsigned round = 0; round < 2; round++) {
        unsigned flags = round ? IMAGE_OPEN_WRITABLE : IMAGE_OPEN_CHECK;
        struct image *file, *image;
        int fd = memfd_create("image", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, (off_t)length) < 0)
            abort();
        for (size_t at = 0; at < size; at += POKE_PAGE) { /* sparse: most of a file is holes */
            size_t n = MIN(size - at, (size_t)POKE_PAGE);
            if (!image_is_zero(bytes + at, n) && pwrite(fd, bytes + at, n, (off_t)at) != (ssize_t)n)
                abort();
        }
        struct err *err = image_open_fd(fd, flags, &file);
        if (err)
            abort();
        err = image_open(file, image_driver_find(format), flags, &files, &image);
        if (err) {
            err_free(err);
            continue;
        }
        struct image_info info = {0};
        struct image_check check = {0};
        image_get_info(image, &info);
        err_free(image_check(image, round == 1, &check));
        poke_data(image, round == 1 && image_writable(image));
        (void)image_close(image);
    }
}

#endif
