/*
 * VHD against a model: dynamic, fixed, differencing; damaged; without its last footer; geometry.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image_model.h"

#include "block/format/vhd.h"

static void dynamic(void **state)
{
    model_run("vpc", MIB(9) + 512, NULL, NULL);
}

static void fixed(void **state)
{
    model_run("vpc", MIB(5), "subformat", "fixed");
}

static void differencing(void **state)
{
    model_run_backing("vpc", MIB(9) + 512);
}

static void damaged(void **state)
{
    model_damage("vpc", NULL, NULL, 2048, 512);
}

/* A cut file is read through the copy of the footer, and repair writes a new one. */
static void lost_footer(void **state)
{
    struct model_dir dir = {0};
    struct image *image;
    model_create(&dir, "disk", "vpc", MIB(8), NULL, NULL, NULL);
    int fd = model_fd(&dir, "disk");
    assert_int_equal(ftruncate(fd, lseek(fd, 0, SEEK_END) - 512), 0);
    for (unsigned repair = 0; repair < 3; repair++) {
        struct image_check check = {0};
        model_ok(model_try(&dir, "disk", "vpc", repair ? IMAGE_OPEN_WRITABLE | IMAGE_OPEN_CHECK : 0,
                           &image));
        assert_int_equal(image_size(image), MIB(8));
        model_ok(image_check(image, repair == 1, &check));
        assert_int_equal(check.corruptions, repair == 0);
        assert_int_equal(check.corruptions_fixed, repair == 1);
        assert_int_equal(image_close(image), 0);
    }
    model_dir_fini(&dir);
}

/* Sizes and geometries of the specification's algorithm. */
static void geometry(void **state)
{
    static const struct {
        uint64_t sectors;
        unsigned cylinders, heads, track;
    } want[] = {{MIB(100) / 512, 1003, 12, 17}, /* 12036 tracks of 17 */
                {GIB(1) / 512, 2080, 16, 63},
                {GIB(10) / 512, 20805, 16, 63},
                {GIB(100) / 512, 51400, 16, 255},
                {GIB(2000) / 512, 65535, 16, 255}};
    for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
        uint16_t cylinders;
        uint8_t heads, track;
        vhd_geometry(want[i].sectors, &cylinders, &heads, &track);
        assert_int_equal(cylinders, want[i].cylinders);
        assert_int_equal(heads, want[i].heads);
        assert_int_equal(track, want[i].track);
    }
}

static void grown(void **state)
{
    struct model_dir dir = {0};
    uint8_t *model = calloc(1, MIB(6));
    model_create(&dir, "disk", "vpc", MIB(4), "subformat", "fixed", NULL);
    struct image *image = model_open(&dir, "disk", "vpc", IMAGE_OPEN_WRITABLE);
    model_play(image, model, MIB(4), 9, 40);
    model_ok(image_resize(image, MIB(6)));
    model_compare(image, model, MIB(6));
    assert_int_equal(image_close(image), 0);
    image = model_open(&dir, "disk", "vpc", 0);
    model_compare(image, model, MIB(6));
    image_close(image);
    free(model);
    model_dir_fini(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dynamic), cmocka_unit_test(fixed),       cmocka_unit_test(differencing),
        cmocka_unit_test(damaged), cmocka_unit_test(lost_footer), cmocka_unit_test(geometry),
        cmocka_unit_test(grown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
