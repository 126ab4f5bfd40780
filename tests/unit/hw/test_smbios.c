/*
 * SMBIOS: the entry point, and a walk over the structures.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "board_env.h"
#include "hw/chipset/layout.h"
#include "hw/firmware/smbios.h"

static const struct smbios_config config = {
    .name = "web1",
    .board = "q35",
    .uuid = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
             0xee, 0xff},
    .cpus = 4,
    .low_ram = GIB(2),
    .high_ram = GIB(6),
};

static const char *string_of(const uint8_t *structure, unsigned number)
{
    const char *text = (const char *)structure + structure[1];
    while (--number)
        text += strlen(text) + 1;
    return text;
}

static void structures_are_whole(void **state)
{
    struct buf block = BUF_INIT;
    unsigned count[128] = {0}, ranges = 0;
    board_ok(smbios_build(&config, LAYOUT_SMBIOS_GPA, LAYOUT_SMBIOS_SIZE, &block));
    uint8_t sum = 0;
    for (unsigned i = 0; i < 24; i++)
        sum = (uint8_t)(sum + block.data[i]);
    assert_memory_equal(block.data, "_SM3_", 5);
    assert_int_equal(sum, 0);
    const uint8_t *at = block.data + (get_le64(block.data + 16) - LAYOUT_SMBIOS_GPA);
    const uint8_t *end = at + get_le32(block.data + 12);
    assert_ptr_equal(end, block.data + block.len);
    while (at < end) {
        const uint8_t *structure = at;
        assert_true(at + at[1] + 2 <= end);
        count[at[0]]++;
        ranges += at[0] == 19;
        if (at[0] == 1) {
            static const uint8_t wire[16] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
                                             0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
            assert_string_equal(string_of(at, at[7]), "web1");
            assert_string_equal(string_of(at, at[5]), "q35");
            assert_memory_equal(at + 8, wire, 16);
        }
        if (at[0] == 17)
            assert_int_equal(get_le16(at + 12), 8192);
        for (at += at[1]; at + 2 <= end && (at[0] || at[1]); at++)
            continue;
        at += 2;
        if (structure[0] == 127)
            assert_ptr_equal(at, end);
    }
    static const uint8_t wanted[] = {0, 1, 3, 4, 16, 17, 32, 127};
    for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++)
        assert_int_equal(count[wanted[i]], 1);
    assert_int_equal(ranges, 2);
    buf_fini(&block);
}

static void too_small_a_place_is_refused(void **state)
{
    struct buf block = BUF_INIT;
    struct smbios_config nameless = config;
    struct err *err = smbios_build(&config, LAYOUT_SMBIOS_GPA, 100, &block);
    assert_non_null(err);
    err_free(err);
    buf_fini(&block);
    nameless.name = NULL;
    board_ok(smbios_build(&nameless, LAYOUT_SMBIOS_GPA, LAYOUT_SMBIOS_SIZE, &block));
    buf_fini(&block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(structures_are_whole),
        cmocka_unit_test(too_small_a_place_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
