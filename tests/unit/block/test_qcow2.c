/*
 * qcow2 against a model in memory: random reads, writes, zeroes, discards, flushes and reopenings
 * on several layouts, with and without a backing image; afterwards no leak and no corruption.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/core/driver.h"
#include "block/filter/filter.h"

#define SIZE (MIB(2) + 1536)
#define ROUNDS 1500

struct layout {
    struct image_option option[2];
    bool backing;
};

static const struct layout layouts[] = {
    {{{"compat", "1.1"}, {"cluster_size", "65536"}}, false},
    {{{"compat", "1.1"}, {"cluster_size", "4096"}}, true},
    {{{"compat", "0.10"}, {"cluster_size", "4096"}}, false},
    {{{"compat", "0.10"}, {"cluster_size", "65536"}}, true},
    {{{"refcount_bits", "1"}, {"cluster_size", "512"}}, true},
    {{{"refcount_bits", "64"}, {"cluster_size", "512"}}, false},
};

struct bed {
    const struct layout *layout;
    int fd, backing_fd;
    struct image *image;
    uint8_t *model, *buffer;
    unsigned seed;
};

static void good(struct err *err)
{
    if (err)
        fail_msg("%s", err_text(err));
}

static void bed_open(struct bed *bed)
{
    struct image *file, *backing;
    unsigned flags = IMAGE_OPEN_WRITABLE | IMAGE_OPEN_DISCARD | IMAGE_OPEN_UNSAFE;
    good(image_open_fd(dup(bed->fd), flags, &file));
    good(image_open(file, NULL, flags, NULL, &bed->image));
    assert_ptr_equal(image_driver(bed->image), &image_qcow2);
    if (!bed->layout->backing)
        return;
    assert_string_equal(image_backing_name(bed->image), "below");
    assert_int_equal(image_read(bed->image, bed->buffer, 0, 512), -ENOMEDIUM);
    good(image_open_fd(dup(bed->backing_fd), 0, &file));
    good(image_open(file, &image_raw, 0, NULL, &backing));
    image_set_backing(bed->image, backing);
}

/* The backing image ends before the disk does. */
static void fill_backing(struct bed *bed)
{
    uint64_t length = SIZE * 3 / 4;
    for (uint64_t i = 0; i < length; i++)
        bed->model[i] = (uint8_t)(i / 700 * 37);
    assert_int_equal(pwrite(bed->backing_fd, bed->model, length, 0), (ssize_t)length);
}

static void bed_init(struct bed *bed, const struct layout *layout)
{
    struct image *file;
    *bed = (struct bed){.layout = layout, .seed = 3};
    bed->fd = memfd_create("qcow2", MFD_CLOEXEC);
    bed->backing_fd = memfd_create("backing", MFD_CLOEXEC);
    assert_true(bed->fd >= 0 && bed->backing_fd >= 0);
    bed->model = calloc(1, SIZE);
    bed->buffer = calloc(1, SIZE);
    if (layout->backing)
        fill_backing(bed);
    const struct image_create create = {.size = SIZE,
                                        .option = layout->option,
                                        .option_count = 2,
                                        .backing_name = layout->backing ? "below" : NULL,
                                        .backing_format = layout->backing ? "raw" : NULL};
    good(image_open_fd(dup(bed->fd), IMAGE_OPEN_WRITABLE, &file));
    good(image_create(file, &image_qcow2, &create));
    assert_int_equal(image_close(file), 0);
    bed_open(bed);
}

static void bed_fini(struct bed *bed)
{
    struct image_check check = {0};
    assert_int_equal(image_close(bed->image), 0);
    bed_open(bed);
    assert_int_equal(image_read(bed->image, bed->buffer, 0, SIZE), 0);
    assert_memory_equal(bed->buffer, bed->model, SIZE);
    good(image_check(bed->image, false, &check));
    assert_int_equal(check.corruptions, 0);
    assert_int_equal(check.leaks, 0);
    assert_int_equal(check.errors, 0);
    assert_int_equal(image_close(bed->image), 0);
    close(bed->fd);
    close(bed->backing_fd);
    free(bed->model);
    free(bed->buffer);
}

static uint64_t draw(struct bed *bed, uint64_t below)
{
    return (uint64_t)rand_r(&bed->seed) % below;
}

static void compare(struct bed *bed, uint64_t at, uint64_t length)
{
    assert_int_equal(image_read(bed->image, bed->buffer, at, length), 0);
    assert_memory_equal(bed->buffer, bed->model + at, length);
}

/* A discard may leave what was there or zeros; the model takes over what it finds. */
static void discard(struct bed *bed, uint64_t at, uint64_t length)
{
    assert_int_equal(image_discard(bed->image, at, length), 0);
    assert_int_equal(image_read(bed->image, bed->buffer, at, length), 0);
    for (uint64_t i = 0; i < length; i++)
        assert_true(bed->buffer[i] == 0 || bed->buffer[i] == bed->model[at + i]);
    memcpy(bed->model + at, bed->buffer, length);
}

static void one_round(struct bed *bed)
{
    static const uint64_t lengths[] = {1, 512, 4096, 4097, 66000, 300000};
    uint64_t at = draw(bed, SIZE);
    if (draw(bed, 2))
        at &= ~4095ull;
    uint64_t length = MIN(SIZE - at, 1 + draw(bed, lengths[draw(bed, ARRAY_SIZE(lengths))]));
    switch (draw(bed, 8)) {
    case 0:
    case 1:
    case 2:
        memset(bed->model + at, (int)draw(bed, 256), length);
        assert_int_equal(image_write(bed->image, bed->model + at, at, length), 0);
        break;
    case 3:
        memset(bed->model + at, 0, length);
        assert_int_equal(image_zero(bed->image, at, length, draw(bed, 2)), 0);
        break;
    case 4:
        discard(bed, at, length);
        break;
    case 5:
        assert_int_equal(draw(bed, 4) ? 0 : image_flush(bed->image), 0);
        break;
    default:
        compare(bed, at, length);
    }
    if (!draw(bed, 200)) {
        assert_int_equal(image_close(bed->image), 0);
        bed_open(bed);
    }
}

static void test_model(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
        struct bed bed;
        bed_init(&bed, &layouts[i]);
        for (unsigned round = 0; round < ROUNDS; round++)
            one_round(&bed);
        compare(&bed, 0, SIZE);
        bed_fini(&bed);
    }
}

static void test_bounds(void **state)
{
    struct bed bed;
    (void)state;
    bed_init(&bed, &layouts[0]);
    assert_int_equal(image_read(bed.image, bed.buffer, SIZE - 1, 2), -EINVAL);
    assert_int_equal(image_write(bed.image, bed.buffer, SIZE, 1), -ENOSPC);
    assert_int_equal(image_write(bed.image, bed.buffer, UINT64_MAX, 2), -ENOSPC);
    bed_fini(&bed);
}

static void count_flush(void *opaque, const struct filter_log_entry *entry)
{
    *(unsigned *)opaque += entry->call == FILTER_FLUSH;
}

/* The disk may take its time for one flush; a disk that fills up must not wait for many. */
static void test_new_tables_wait_for_the_flush(void **state)
{
    static const struct layout layout = {{{"refcount_bits", "1"}, {"cluster_size", "512"}}, false};
    const uint64_t covers = 512 / 8 * 512; /* by one L2 table */
    struct bed bed;
    struct image *file;
    unsigned flushes = 0;
    (void)state;
    bed_init(&bed, &layout);
    assert_int_equal(image_close(bed.image), 0);
    good(image_open_fd(dup(bed.fd), IMAGE_OPEN_WRITABLE, &file));
    file = filter_log_open(file, count_flush, &flushes);
    good(image_open(file, NULL, IMAGE_OPEN_WRITABLE, NULL, &bed.image));
    for (uint64_t at = 0; at < MIB(2); at += covers) {
        memset(bed.model + at, 7, 512);
        assert_int_equal(image_write(bed.image, bed.model + at, at, 512), 0);
    }
    assert_int_equal(flushes, 0);
    assert_int_equal(image_flush(bed.image), 0);
    assert_in_range(flushes, 1, 2);
    bed_fini(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_new_tables_wait_for_the_flush),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
