/*
 * Dirty bitmaps: what they record, on any node; and kept in a qcow2 image, through growth,
 * snapshots and a crash.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "crash_log.h"
#include "image_model.h"

#define SIZE (MIB(40) + 512)
#define FLAGS IMAGE_OPEN_WRITABLE

static const uint8_t data[KIB(64)] = {1};

/* Are exactly these pieces of 64 KiB dirty? */
static void is_dirty(struct image *image, const char *name, unsigned count, const unsigned *piece)
{
    uint64_t at = 0, size = image_size(image), run, dirty = 0;
    for (unsigned i = 0; at < size; at += run) {
        bool yes;
        assert_int_equal(image_bitmap_extent(image, name, at, size - at, &yes, &run), 0);
        assert_true(run >= 1 && run <= size - at);
        for (uint64_t k = at; yes && k < at + run; k += KIB(64)) {
            assert_true(i < count);
            assert_int_equal(k / KIB(64), piece[i++]);
            dirty++;
        }
    }
    assert_int_equal(dirty, count);
}

static void test_any_node(void **state)
{
    struct crash_file file = {0};
    struct image *image;
    bool dirty;
    uint64_t run;
    (void)state;
    crash_file_truncate(&file, SIZE);
    model_ok(image_open(crash_file_open(&file, FLAGS), &image_raw, FLAGS, NULL, &image));
    struct err *err = image_bitmap_add(image, "a", 0, true);
    assert_non_null(err); /* a raw image keeps nothing */
    err_free(err);
    model_ok(image_bitmap_add(image, "a", 0, false));
    is_dirty(image, "a", 0, NULL);
    assert_int_equal(image_write(image, data, KIB(64) * 3 - 1, 2), 0);
    assert_int_equal(image_zero(image, MIB(40), 512, false), 0);
    assert_int_equal(image_discard(image, MIB(8), 1), 0);
    is_dirty(image, "a", 4, (const unsigned[]){2, 3, 128, 640});
    struct image_bitmap info;
    image_bitmap_get(image, 0, &info);
    assert_int_equal(info.dirty, 3 * KIB(64) + 512);
    assert_true(info.recording && !info.persistent);
    model_ok(image_bitmap_add(image, "b", MIB(1), false));
    model_ok(image_bitmap_record(image, "a", false));
    assert_int_equal(image_write(image, data, MIB(2), 512), 0);
    is_dirty(image, "a", 4, (const unsigned[]){2, 3, 128, 640});
    model_ok(image_bitmap_merge(image, "a", "b"));
    assert_int_equal(image_bitmap_extent(image, "a", MIB(2), MIB(4), &dirty, &run), 0);
    assert_true(dirty && run == MIB(1));
    model_ok(image_bitmap_clear(image, "a", 0, SIZE));
    is_dirty(image, "a", 0, NULL);
    model_ok(image_bitmap_remove(image, "a"));
    assert_int_equal(image_bitmap_extent(image, "a", 0, 512, &dirty, &run), -ENOENT);
    assert_int_equal(image_bitmap_count(image), 1);
    assert_int_equal(image_close(image), 0);
    crash_file_fini(&file);
}

static struct image *open_qcow2(struct crash_file *file, unsigned flags)
{
    struct image *image;
    model_ok(image_open(crash_file_open(file, flags), &image_qcow2, flags, NULL, &image));
    return image;
}

static void sound(struct crash_file *file)
{
    struct image_check check = {0};
    struct image *image = open_qcow2(file, 0);
    model_ok(image_check(image, false, &check));
    assert_int_equal(check.corruptions + check.errors + check.leaks, 0);
    assert_int_equal(image_close(image), 0);
}

static void test_kept(void **state)
{
    struct crash_file file = {0}, crashed = {0};
    const struct image_option option = {"cluster_size", *state};
    const struct image_create create = {.size = SIZE, .option = &option, .option_count = 1};
    struct image *image = crash_file_open(&file, FLAGS);
    model_ok(image_create(image, &image_qcow2, &create));
    assert_int_equal(image_close(image), 0);

    image = open_qcow2(&file, FLAGS);
    model_ok(image_bitmap_add(image, "a", 0, true));
    model_ok(image_bitmap_add(image, "lost", 0, false));
    assert_int_equal(image_write(image, data, KIB(64) * 3 - 1, 2), 0);
    assert_int_equal(image_close(image), 0);
    sound(&file);

    image = open_qcow2(&file, FLAGS);
    assert_int_equal(image_bitmap_count(image), 1);
    is_dirty(image, "a", 2, (const unsigned[]){2, 3});
    model_ok(image_snapshot_create(image, "s"));
    model_ok(image_resize(image, SIZE + MIB(1)));
    assert_int_equal(image_write(image, data, SIZE + MIB(1) - 1, 1), 0);
    model_ok(image_bitmap_add(image, "b", KIB(64), true));
    crash_file_put(&crashed, 0, file.bytes, file.size); /* here the power fails */
    assert_int_equal(image_close(image), 0);
    sound(&file);

    image = open_qcow2(&file, FLAGS);
    is_dirty(image, "a", 3, (const unsigned[]){2, 3, 656});
    is_dirty(image, "b", 0, NULL);
    model_ok(image_snapshot_apply(image, "s"));
    model_ok(image_snapshot_delete(image, "s"));
    model_ok(image_bitmap_remove(image, "a"));
    assert_int_equal(image_close(image), 0);
    sound(&file);
    image = open_qcow2(&file, FLAGS);
    struct image_bitmap info;
    image_bitmap_get(image, 0, &info);
    assert_string_equal(info.name, "b");
    assert_int_equal(info.dirty, SIZE); /* after the snapshot all may be other */
    model_ok(image_bitmap_remove(image, "b"));
    assert_int_equal(image_close(image), 0);
    sound(&file);

    image = open_qcow2(&crashed, FLAGS);
    image_bitmap_get(image, 0, &info);
    assert_true(info.inconsistent);
    struct err *err = image_bitmap_merge(image, "a", "a");
    assert_non_null(err);
    err_free(err);
    assert_int_equal(image_close(image), 0); /* it stays as it was ... */
    image = open_qcow2(&crashed, FLAGS);
    image_bitmap_get(image, 0, &info);
    assert_true(info.inconsistent);
    model_ok(image_bitmap_remove(image, "a")); /* ... until it is removed */
    assert_int_equal(image_close(image), 0);
    image = open_qcow2(&crashed, FLAGS);
    assert_int_equal(image_bitmap_count(image), 0);
    assert_int_equal(image_close(image), 0);
    crash_file_fini(&file);
    crash_file_fini(&crashed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_node),
        cmocka_unit_test_prestate(test_kept, (void *)"65536"),
        cmocka_unit_test_prestate(test_kept, (void *)"512"),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
