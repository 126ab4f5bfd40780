/*
 * VDI against a model, damaged, and with a header count that a crash left behind.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image_model.h"

static void dynamic(void **state)
{
    model_run("vdi", MIB(9) + 512, NULL, NULL);
}

static void fixed(void **state)
{
    model_run("vdi", MIB(5), "static", "on");
}

static void damaged(void **state)
{
    model_damage("vdi", NULL, NULL, 600, 0);
}

static void stale_count(void **state)
{
    struct model_dir dir = {0};
    struct image *image;
    uint8_t count[4], bytes[512];
    model_create(&dir, "disk", "vdi", MIB(8), NULL, NULL, NULL);
    put_le32(count, 7);
    assert_int_equal(pwrite(model_fd(&dir, "disk"), count, 4, 0x184), 4);
    for (unsigned repair = 0; repair < 3; repair++) {
        struct image_check check = {0};
        model_ok(model_try(&dir, "disk", "vdi", repair ? IMAGE_OPEN_WRITABLE | IMAGE_OPEN_CHECK : 0,
                           &image));
        model_ok(image_check(image, repair == 1, &check));
        assert_int_equal(check.corruptions, repair == 0);
        assert_int_equal(check.corruptions_fixed, repair == 1);
        assert_int_equal(image_close(image), 0);
    }
    image = model_open(&dir, "disk", "vdi", IMAGE_OPEN_WRITABLE);
    memset(bytes, 5, sizeof(bytes));
    assert_int_equal(image_write(image, bytes, MIB(3), sizeof(bytes)), 0);
    assert_int_equal(image_close(image), 0);
    assert_int_equal(pread(model_fd(&dir, "disk"), count, 4, 0x184), 4);
    assert_int_equal(get_le32(count), 1);
    model_dir_fini(&dir);
}

/* A table of 2^29 entries in a file of one megabyte is refused before anything is allocated. */
static void refused(void **state)
{
    struct model_dir dir = {0};
    struct image *image;
    uint8_t field[4];
    static const struct {
        off_t at;
        uint32_t value;
    } bad[] = {{0x44, 0x00020000},  {0x4c, 4},           {0x154, 100},        {0x158, 513},
               {0x168, 4096},       {0x178, 3},          {0x178, 1u << 31},   {0x17c, 1},
               {0x180, 0x1fffff00}, {0x180, 0xffffffff}, {0x174, 0x7fffffff}, {0x1a8, 1}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        model_create(&dir, "disk", "vdi", MIB(8), NULL, NULL, NULL);
        put_le32(field, bad[i].value);
        assert_int_equal(pwrite(model_fd(&dir, "disk"), field, 4, bad[i].at), 4);
        struct err *err = model_try(&dir, "disk", "vdi", 0, &image);
        assert_non_null(err);
        err_free(err);
    }
    model_dir_fini(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dynamic),     cmocka_unit_test(fixed),   cmocka_unit_test(damaged),
        cmocka_unit_test(stale_count), cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
