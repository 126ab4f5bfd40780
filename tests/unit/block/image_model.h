/*
 * A format against a model in memory: random writes, zeros and reads at any offset, over a backing
 * image or none; reopened, checked, its extents compared with its bytes; and damaged in every way
 * that a seed gives, which must end in an error or in bytes, never in a crash.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TESTS_IMAGE_MODEL_H
#define TENON_TESTS_IMAGE_MODEL_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "block/core/driver.h"

/* Files by name, for parents and extents. */
struct model_file {
    char name[64];
    int fd;
};
struct model_dir {
    struct model_file file[8];
    unsigned count;
};

static inline int model_fd(struct model_dir *dir, const char *name)
{
    for (unsigned i = 0; i < dir->count; i++)
        if (!strcmp(dir->file[i].name, name))
            return dir->file[i].fd;
    assert_true(dir->count < ARRAY_SIZE(dir->file));
    struct model_file *file = &dir->file[dir->count++];
    snprintf(file->name, sizeof(file->name), "%s", name);
    file->fd = memfd_create(name, MFD_CLOEXEC);
    assert_true(file->fd >= 0);
    return file->fd;
}

static inline struct err *model_open_file(void *opaque, const char *name, bool writable,
                                          struct image **file)
{
    struct model_dir *dir = opaque;
    for (unsigned i = 0; i < dir->count; i++)
        if (!strcmp(dir->file[i].name, name))
            return image_open_fd(dup(dir->file[i].fd), writable ? IMAGE_OPEN_WRITABLE : 0, file);
    return err_new("no file '%s'", name);
}

static inline struct err *model_create_file(void *opaque, const char *name, struct image **file)
{
    return image_open_fd(dup(model_fd(opaque, name)), IMAGE_OPEN_WRITABLE, file);
}

static inline void model_dir_fini(struct model_dir *dir)
{
    for (unsigned i = 0; i < dir->count; i++)
        close(dir->file[i].fd);
    dir->count = 0;
}

static inline struct image_files model_files(struct model_dir *dir, const char *name)
{
    return (struct image_files){
        .open = model_open_file, .create = model_create_file, .opaque = dir, .name = name};
}

static inline void model_ok(struct err *err)
{
    if (err)
        fail_msg("%s", err_text(err));
}

static inline void model_create(struct model_dir *dir, const char *name, const char *format,
                                uint64_t size, const char *option, const char *value,
                                const char *backing)
{
    struct image_files files = model_files(dir, name);
    struct image_option options[] = {{option, value}};
    struct image_create create = {.size = size,
                                  .option = options,
                                  .option_count = option ? 1 : 0,
                                  .backing_name = backing,
                                  .backing_format = backing ? format : NULL,
                                  .files = &files};
    struct image *file;
    int fd = model_fd(dir, name);
    assert_int_equal(ftruncate(fd, 0), 0);
    model_ok(image_open_fd(dup(fd), IMAGE_OPEN_WRITABLE, &file));
    model_ok(image_create(file, image_driver_find(format), &create));
    assert_int_equal(image_close(file), 0);
}

static inline struct err *model_try(struct model_dir *dir, const char *name, const char *format,
                                    unsigned flags, struct image **image)
{
    struct image_files files = model_files(dir, name);
    struct image *file;
    model_ok(image_open_fd(dup(model_fd(dir, name)), flags, &file));
    return image_open(file, format ? image_driver_find(format) : NULL, flags, &files, image);
}

static inline struct image *model_open(struct model_dir *dir, const char *name, const char *format,
                                       unsigned flags)
{
    struct image *image, *backing;
    model_ok(model_try(dir, name, format, flags, &image));
    if (image_backing_name(image)) {
        backing = model_open(dir, image_backing_name(image), image_backing_format(image), 0);
        image_set_backing(image, backing);
    }
    return image;
}

static inline void model_compare(struct image *image, const uint8_t *model, uint64_t size)
{
    uint8_t *bytes = malloc(size);
    assert_int_equal(image_size(image), size);
    assert_int_equal(image_read(image, bytes, 0, size), 0);
    for (uint64_t i = 0; i < size; i++)
        if (bytes[i] != model[i])
            fail_msg("byte %llu is %#x, not %#x", (unsigned long long)i, bytes[i], model[i]);
    free(bytes);
    for (uint64_t at = 0; at < size;) {
        struct image_extent extent;
        assert_int_equal(image_extent(image, at, size - at, &extent), 0);
        assert_true(extent.length >= 1 && extent.length <= size - at);
        if (extent.flags & IMAGE_EXTENT_ZERO)
            assert_true(image_is_zero(model + at, extent.length));
        at += extent.length;
    }
}

static inline void model_check(struct model_dir *dir, const char *name, const char *format)
{
    struct image_check check = {0};
    struct image *image;
    model_ok(model_try(dir, name, format, IMAGE_OPEN_CHECK, &image));
    model_ok(image_check(image, false, &check));
    assert_int_equal(check.corruptions, 0);
    assert_int_equal(check.leaks, 0);
    image_close(image);
}

/* `count` random operations on the image and the model. */
static inline void model_play(struct image *image, uint8_t *model, uint64_t size, unsigned seed,
                              unsigned count)
{
    const uint64_t most = 200000;
    uint8_t *bytes = malloc(most);
    for (unsigned i = 0; i < count; i++) {
        uint64_t offset = ((uint64_t)rand_r(&seed) << 16 ^ (uint64_t)rand_r(&seed)) % size;
        uint64_t length = 1 + (uint64_t)rand_r(&seed) % (i % 4 ? 3000 : most);
        if (i % 3 == 0)
            offset &= ~(uint64_t)511;
        length = MIN(length, size - offset);
        switch (rand_r(&seed) % 8) {
        case 0:
            assert_int_equal(image_zero(image, offset, length, i & 1), 0);
            memset(model + offset, 0, length);
            break;
        case 1:
            assert_int_equal(image_flush(image), 0);
            break;
        case 2:
            assert_int_equal(image_read(image, bytes, offset, length), 0);
            assert_memory_equal(bytes, model + offset, length);
            break;
        default:
            memset(bytes, 1 + rand_r(&seed) % 255, length);
            assert_int_equal(image_write(image, bytes, offset, length), 0);
            memcpy(model + offset, bytes, length);
        }
    }
    free(bytes);
}

/* An image alone. */
static inline void model_run(const char *format, uint64_t size, const char *option,
                             const char *value)
{
    struct model_dir dir = {0};
    uint8_t *model = calloc(1, size);
    model_create(&dir, "disk", format, size, option, value, NULL);
    for (unsigned round = 0; round < 3; round++) {
        struct image *image = model_open(&dir, "disk", format, IMAGE_OPEN_WRITABLE);
        model_compare(image, model, size);
        model_play(image, model, size, 7 + round, 120);
        model_compare(image, model, size);
        assert_int_equal(image_close(image), 0);
        model_check(&dir, "disk", format);
    }
    struct image *image = model_open(&dir, "disk", format, 0);
    model_compare(image, model, size);
    assert_int_equal(image_write(image, model, 0, 1), -EROFS);
    image_close(image);
    model_dir_fini(&dir);
    free(model);
}

/* An image over another of its kind, which stays as it was. */
static inline void model_run_backing(const char *format, uint64_t size)
{
    struct model_dir dir = {0};
    uint8_t *model = calloc(1, size), *below = malloc(size);
    model_create(&dir, "base", format, size, NULL, NULL, NULL);
    struct image *image = model_open(&dir, "base", format, IMAGE_OPEN_WRITABLE);
    model_play(image, model, size, 3, 150);
    assert_int_equal(image_close(image), 0);
    memcpy(below, model, size);
    model_create(&dir, "over", format, size, NULL, NULL, "base");
    for (unsigned round = 0; round < 3; round++) {
        image = model_open(&dir, "over", format, IMAGE_OPEN_WRITABLE);
        assert_non_null(image_backing(image));
        model_compare(image, model, size);
        model_play(image, model, size, 11 + round, 100);
        assert_int_equal(image_close(image), 0);
        model_check(&dir, "over", format);
    }
    image = model_open(&dir, "over", format, 0);
    model_compare(image, model, size);
    image_close(image);
    image = model_open(&dir, "base", format, 0);
    model_compare(image, below, size);
    image_close(image);
    model_dir_fini(&dir);
    free(model);
    free(below);
}

/* Opens what may be damaged, reads some of it, checks it, writes to it: no crash, no endless loop.
 */
static inline void model_poke(struct model_dir *dir, const char *name, const char *format,
                              bool write)
{
    struct image *image;
    uint8_t bytes[4096];
    struct err *err =
        model_try(dir, name, format, write ? IMAGE_OPEN_WRITABLE : IMAGE_OPEN_CHECK, &image);
    if (err) {
        assert_true(strlen(err_text(err)) > 5);
        err_free(err);
        return;
    }
    uint64_t size = image_size(image);
    for (unsigned i = 0; i < 32 && size > sizeof(bytes); i++) {
        uint64_t at = (size - sizeof(bytes)) / 31 * i;
        (void)image_read(image, bytes, at, sizeof(bytes));
        if (write && image_writable(image) && i % 4 == 0)
            (void)image_write(image, bytes, at, sizeof(bytes));
    }
    struct image_check check = {0};
    if (!write)
        err_free(image_check(image, false, &check));
    (void)image_close(image);
}

/*
 * A good image of which bytes in the first `span` (metadata) and, `tail` bytes from the end, become
 * others; and which is cut.
 */
static inline void model_damage(const char *format, const char *option, const char *value,
                                uint64_t span, uint64_t tail)
{
    const uint64_t size = MIB(8);
    struct model_dir dir = {0};
    uint8_t *model = calloc(1, size);
    model_create(&dir, "disk", format, size, option, value, NULL);
    struct image *image = model_open(&dir, "disk", format, IMAGE_OPEN_WRITABLE);
    model_play(image, model, size, 5, 20);
    assert_int_equal(image_close(image), 0);
    int fd = model_fd(&dir, "disk"), copy = model_fd(&dir, "copy");
    off_t length = lseek(fd, 0, SEEK_END);
    uint8_t *bytes = malloc((size_t)length);
    assert_int_equal(pread(fd, bytes, (size_t)length, 0), length);
    unsigned seed = 1;
    static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff, 0xfe, 0x40, 2};
    for (unsigned i = 0; i < 250; i++) {
        assert_int_equal(ftruncate(copy, 0), 0);
        assert_int_equal(pwrite(copy, bytes, (size_t)length, 0), length);
        for (unsigned k = 0; k < 1 + i % 5; k++) {
            off_t at = (off_t)(((uint64_t)rand_r(&seed) * 31 + (uint64_t)rand_r(&seed)) % span);
            if (tail && k % 2)
                at = length - 1 - (off_t)((uint64_t)rand_r(&seed) % tail);
            assert_int_equal(pwrite(copy, &values[rand_r(&seed) % 8], 1, at % length), 1);
        }
        if (i % 10 == 9)
            assert_int_equal(ftruncate(copy, length / 25 * (i / 10) + i), 0);
        model_poke(&dir, "copy", format, i & 1);
    }
    free(bytes);
    free(model);
    model_dir_fini(&dir);
}

#endif
