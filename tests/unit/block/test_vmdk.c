/*
 * VMDK against a model: sparse, flat, split, over a backing file, as a stream; damaged; and
 * descriptors that are not to be believed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image_model.h"

#include "block/format/vmdk.h"

static void sparse(void **state)
{
    model_run("vmdk", MIB(9) + 512, NULL, NULL);
}

static void flat(void **state)
{
    model_run("vmdk", MIB(5), "subformat", "monolithicFlat");
}

static void split(void **state)
{
    model_run("vmdk", MIB(5), "subformat", "twoGbMaxExtentSparse");
}

static void over_backing(void **state)
{
    model_run_backing("vmdk", MIB(9) + 512);
}

static void damaged(void **state)
{
    model_damage("vmdk", NULL, NULL, KIB(64), 0);
    model_damage("vmdk", "subformat", "monolithicFlat", 400, 0);
}

/* Grains that shrink, grains that do not, a last one that is cut; then never again. */
static void stream(void **state)
{
    struct model_dir dir = {0};
    const uint64_t size = MIB(3) + 1024;
    uint8_t *model = calloc(1, ALIGN_UP(size, VMDK_GRAIN)), *out = malloc(VMDK_GRAIN);
    unsigned seed = 4;
    size_t length;
    for (uint64_t i = MIB(1); i < size; i++)
        model[i] = i % MIB(1) < KIB(200) ? (uint8_t)rand_r(&seed) : (uint8_t)(i >> 9);
    model_create(&dir, "disk", "vmdk", size, "subformat", "streamOptimized", NULL);
    model_check(&dir, "disk", "vmdk");
    struct image *image = model_open(&dir, "disk", "vmdk", IMAGE_OPEN_WRITABLE);
    assert_int_equal(image_compress_unit(image), VMDK_GRAIN);
    for (uint64_t at = MIB(1); at < size; at += VMDK_GRAIN) {
        assert_int_equal(image_compress(image, model + at, out, &length), 0);
        if (length)
            assert_int_equal(image_write_compressed(image, at, out, length), 0);
        else
            assert_int_equal(
                image_write(image, model + at, at, MIN((uint64_t)VMDK_GRAIN, size - at)), 0);
    }
    assert_int_equal(image_write(image, model, MIB(1), VMDK_GRAIN), -ENOTSUP);
    model_compare(image, model, size);
    assert_int_equal(image_close(image), 0);
    model_check(&dir, "disk", "vmdk");
    struct err *err = model_try(&dir, "disk", NULL, IMAGE_OPEN_WRITABLE, &image);
    assert_non_null(err);
    assert_non_null(strstr(err_text(err), "written once"));
    err_free(err);
    image = model_open(&dir, "disk", NULL, 0);
    model_compare(image, model, size);
    image_close(image);
    int fd = model_fd(&dir, "disk");
    off_t end = lseek(fd, 0, SEEK_END);
    for (off_t cut = 1; cut < end; cut += end / 40) { /* the footer is gone: a sentence */
        assert_int_equal(ftruncate(fd, end - cut), 0);
        model_poke(&dir, "disk", "vmdk", false);
    }
    free(model);
    free(out);
    model_dir_fini(&dir);
}

static void descriptors(void **state)
{
    static const char *const bad[] = {
        "# Disk DescriptorFile\n",
        "# Disk DescriptorFile\nRW 0 FLAT \"base\" 0\n",
        "# Disk DescriptorFile\nRW -1 FLAT \"base\" 0\n",
        "# Disk DescriptorFile\nRW 99999999999999999999 FLAT \"base\" 0\n",
        "# Disk DescriptorFile\nRW 8 FLAT \"base\" 36028797018963968\n",
        "# Disk DescriptorFile\nRW 8 FLAT \"base\" 9\n",
        "# Disk DescriptorFile\nRW 8 FLAT \"base\n",
        "# Disk DescriptorFile\nRW 8 FLAT base 0\n",
        "# Disk DescriptorFile\nRW 8 FLAT \"\" 0\n",
        "# Disk DescriptorFile\nRW 8 FLAT \"absent\" 0\n",
        "# Disk DescriptorFile\nRW 8 FLAT \"ba\033se\" 0\n",
        "# Disk DescriptorFile\nRW 8 WORMHOLE \"base\" 0\n",
        "# Disk DescriptorFile\nNOACCESS 8 FLAT \"base\" 0\n",
        "# Disk DescriptorFile\nRW 8 SPARSE \"base\"\n",
        "# Disk DescriptorFile\nRW",
    };
    static const char good[] = "# Disk DescriptorFile\ncreateType=\"custom\"\nCID=0000002a\n"
                               "RW 8 FLAT \"base\" 0\nRW 4 ZERO\nRDONLY 8 VMFS \"base\"\n";
    struct model_dir dir = {0};
    struct image *image;
    int fd = model_fd(&dir, "disk");
    assert_int_equal(ftruncate(model_fd(&dir, "base"), 4096), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, bad[i], strlen(bad[i]), 0), strlen(bad[i]));
        struct err *err = model_try(&dir, "disk", "vmdk", 0, &image);
        if (!err)
            fail_msg("accepted: %s", bad[i]);
        err_free(err);
    }
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, good, strlen(good), 0), strlen(good));
    uint8_t byte = 9;
    image = model_open(&dir, "disk", NULL, IMAGE_OPEN_WRITABLE);
    assert_int_equal(image_size(image), 20 * 512);
    assert_int_equal(image_write(image, &byte, 4095, 1), 0);
    assert_int_equal(image_write(image, &byte, 4096, 1), -EROFS);
    assert_int_equal(image_write(image, &byte, 6144, 1), -EROFS);
    assert_int_equal(image_read(image, &byte, 6144 + 4095, 1), 0);
    assert_int_equal(byte, 9);
    image_close(image);
    model_dir_fini(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sparse),      cmocka_unit_test(flat),         cmocka_unit_test(split),
        cmocka_unit_test(stream),      cmocka_unit_test(over_backing), cmocka_unit_test(damaged),
        cmocka_unit_test(descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
