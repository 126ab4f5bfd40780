/*
 * VHDX against a model: dynamic, fixed, differencing; damaged; and its log, replayed in memory and
 * into the file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image_model.h"

#include "block/format/crc32c.h"

static void dynamic(void **state)
{
    model_run("vhdx", MIB(9) + 512, "block_size", "1M");
}

static void fixed(void **state)
{
    model_run("vhdx", MIB(9), "subformat", "fixed");
}

static void differencing(void **state)
{
    model_run_backing("vhdx", MIB(20));
}

static void damaged(void **state)
{
    model_damage("vhdx", NULL, NULL, MIB(4), 0);
}

static void checksum(void **state)
{
    assert_int_equal(crc32c_update(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c_update(crc32c_update(0, "1234", 4), "56789", 5), 0xe3069283);
}

/*
 * The file as a power cut leaves it: the log has an entry, and the block table, which the entry
 * describes, never reached the disk.
 */
static void replay(void **state)
{
    struct model_dir dir = {0};
    const uint64_t size = MIB(9), table = MIB(3);
    uint8_t *model = calloc(1, size), zeros[4096] = {0};
    model_create(&dir, "disk", "vhdx", size, "block_size", "1M", NULL);
    struct image *image = model_open(&dir, "disk", "vhdx", IMAGE_OPEN_WRITABLE);
    memset(model + 5000, 0x77, MIB(4));
    assert_int_equal(image_write(image, model, 0, size), 0);
    assert_int_equal(image_flush(image), 0);
    int fd = model_fd(&dir, "disk"), cut = model_fd(&dir, "cut");
    off_t length = lseek(fd, 0, SEEK_END);
    uint8_t *bytes = malloc((size_t)length);
    assert_int_equal(pread(fd, bytes, (size_t)length, 0), length);
    assert_int_equal(image_close(image), 0);
    assert_int_equal(pwrite(cut, bytes, (size_t)length, 0), length);
    assert_int_equal(pwrite(cut, zeros, sizeof(zeros), table), sizeof(zeros));

    struct image_info info = {0};
    image = model_open(&dir, "cut", "vhdx", 0);
    model_compare(image, model, size);
    image_get_info(image, &info);
    assert_true(info.dirty);
    image_close(image);
    image = model_open(&dir, "cut", "vhdx", IMAGE_OPEN_WRITABLE);
    assert_int_equal(image_close(image), 0);
    model_check(&dir, "cut", "vhdx");
    image = model_open(&dir, "cut", "vhdx", 0);
    model_compare(image, model, size);
    image_close(image);

    /* A torn entry does not count; the table is what it was before. */
    memset(bytes + table, 0, sizeof(zeros));
    bytes[MIB(1) + 5000] ^= 1;
    assert_int_equal(pwrite(cut, bytes, (size_t)length, 0), length);
    memset(model, 0, size);
    image = model_open(&dir, "cut", "vhdx", 0);
    model_compare(image, model, size);
    image_close(image);
    /* A file shorter than its log says was cut, and is refused. */
    bytes[MIB(1) + 5000] ^= 1;
    assert_int_equal(pwrite(cut, bytes, (size_t)length, 0), length);
    assert_int_equal(ftruncate(cut, length - 4096), 0);
    struct err *err = model_try(&dir, "cut", "vhdx", 0, &image);
    assert_non_null(err);
    assert_non_null(strstr(err_text(err), "shorter"));
    err_free(err);
    free(bytes);
    free(model);
    model_dir_fini(&dir);
}

static void grown(void **state)
{
    struct model_dir dir = {0};
    uint8_t *model = calloc(1, MIB(40));
    model_create(&dir, "disk", "vhdx", MIB(9), NULL, NULL, NULL);
    struct image *image = model_open(&dir, "disk", "vhdx", IMAGE_OPEN_WRITABLE);
    model_play(image, model, MIB(9), 9, 40);
    model_ok(image_resize(image, MIB(40)));
    model_play(image, model, MIB(40), 10, 40);
    assert_int_equal(image_close(image), 0);
    image = model_open(&dir, "disk", "vhdx", 0);
    model_compare(image, model, MIB(40));
    image_close(image);
    model_check(&dir, "disk", "vhdx");
    free(model);
    model_dir_fini(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dynamic), cmocka_unit_test(fixed),    cmocka_unit_test(differencing),
        cmocka_unit_test(damaged), cmocka_unit_test(checksum), cmocka_unit_test(replay),
        cmocka_unit_test(grown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
