/*
 * Unit tests of src/gmem.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "../test.h"
#include "base/bitmap.h"
#include "gmem/gmem.h"

static struct gmem *gmem;

static int set_up(void **state)
{
    gmem = gmem_new();
    assert_ok(gmem_add_ram(gmem, "high", 0x100000, 0x10000));
    assert_ok(gmem_add_ram(gmem, "low", 0, 0xa0000));
    assert_ok(gmem_add_rom(gmem, "bios", 0xf0000, 0x10000));
    return 0;
}

static int tear_down(void **state)
{
    gmem_free(gmem);
    return 0;
}

static void regions_are_sorted_and_apart(void **state)
{
    assert_int_equal(gmem_region_count(gmem), 3);
    assert_string_equal(gmem_region(gmem, 1)->name, "bios");
    assert_int_equal(gmem_ram_bytes(gmem), 0xa0000 + 0x10000);
    assert_err(gmem_add_ram(gmem, "more", 0x9f000, 0x2000), "overlaps memory 'low'");
    assert_err(gmem_add_ram(gmem, "odd", 0x200001, 0x1000), "not whole pages");
    assert_err(gmem_add_ram(gmem, "wrap", UINT64_MAX - 0xfff, 0x2000), "not whole pages");
    assert_err(gmem_add_ram(gmem, "none", 0x200000, 0), "not whole pages");
}

static void copies_stop_at_the_edge_whole(void **state)
{
    uint8_t in[16], out[16];
    memset(in, 0x5a, sizeof(in));
    assert_int_equal(gmem_write(gmem, 0x9fff0, in, 16), 0);
    assert_int_equal(gmem_read(gmem, 0x9fff0, out, 16), 0);
    assert_memory_equal(in, out, 16);
    memset(in, 0x11, sizeof(in));
    assert_int_equal(gmem_write(gmem, 0x9fff1, in, 16), -EFAULT);
    assert_int_equal(gmem_read(gmem, 0x9fff0, out, 16), 0);
    assert_int_equal(out[1], 0x5a);
    assert_int_equal(gmem_read(gmem, UINT64_MAX - 3, out, 16), -EFAULT);
    /* Adjacent regions are one range. */
    assert_int_equal(gmem_read(gmem, 0xffff8, out, 16), 0);
}

static void rom_is_for_loaders_only(void **state)
{
    size_t mapped;
    assert_int_equal(gmem_write(gmem, 0xf0000, "x", 1), -EFAULT);
    assert_int_equal(gmem_load(gmem, 0xf0000, "x", 1), 0);
    assert_null(gmem_map(gmem, 0xf0000, 1, GMEM_WRITE, &mapped));
    assert_non_null(gmem_map(gmem, 0xf0000, 1, GMEM_READ, &mapped));
    assert_int_equal(gmem_store_le16(gmem, 0xf0000, 1), -EFAULT);
}

static void a_borrow_is_cut_at_its_region(void **state)
{
    size_t mapped;
    void *host = gmem_map(gmem, 0x10ff00, 0x1000, GMEM_WRITE, &mapped);
    assert_non_null(host);
    assert_int_equal(mapped, 0x100);
    gmem_unmap(gmem, host, mapped, GMEM_WRITE, mapped);
    assert_null(gmem_map(gmem, 0xa0000, 1, GMEM_READ, &mapped));
}

/* What is together for the guest is not for us, and every way in finds it all the same. */
static void scattered_pages_lie_apart(void **state)
{
    enum { PAGES = 97, START = 0x200000 };
    uint8_t bytes[3 * 4096], back[3 * 4096];
    uint64_t dirty[BITMAP_WORDS(PAGES)];
    uint32_t value;
    size_t mapped;
    gmem_scatter(gmem);
    assert_ok(gmem_add_ram(gmem, "scattered", START, PAGES * 4096));
    const struct gmem_region *region = gmem_find(gmem, START);
    bool seen[PAGES] = {false};
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t place = gmem_place(&region->order, i * 4096ull + 5);
        uint64_t next = gmem_place(&region->order, (i + 1) % PAGES * 4096ull + 5);
        assert_true(place < region->size && !seen[place / 4096] && place + 4096 != next);
        assert_int_equal(gmem_offset(&region->order, place), i * 4096 + 5);
        seen[place / 4096] = true;
    }
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = i * 7 + i / 256;
    assert_int_equal(gmem_write(gmem, START + 0x5800, bytes, sizeof(bytes)), 0);
    assert_int_equal(gmem_read(gmem, START + 0x5800, back, sizeof(back)), 0);
    assert_memory_equal(bytes, back, sizeof(bytes));
    assert_int_equal(gmem_load_le32(gmem, START + 0x6004, &value), 0);
    assert_memory_equal(&value, bytes + 0x804, 4);
    gmem_dirty_enable(gmem, true);
    uint8_t *host = gmem_map(gmem, START + 0x6f00, 0x1000, GMEM_WRITE, &mapped);
    assert_int_equal(mapped, 0x100);
    assert_memory_equal(host, bytes + 0x1700, 0x100);
    gmem_unmap(gmem, host, mapped, GMEM_WRITE, mapped);
    gmem_dirty_take(gmem, 3, dirty);
    assert_true(dirty[0] == 1u << 6 && !dirty[1]);
}

static void fields_are_aligned_and_inside(void **state)
{
    uint32_t value;
    assert_int_equal(gmem_store_le32(gmem, 0x1000, 0x12345678), 0);
    assert_int_equal(gmem_load_le32(gmem, 0x1000, &value), 0);
    assert_int_equal(value, 0x12345678);
    assert_int_equal(gmem_load_le32(gmem, 0x1002, &value), -EINVAL);
    assert_int_equal(gmem_load_le32(gmem, 0xa0000, &value), -EFAULT);
}

static void every_write_reaches_the_dirty_log(void **state)
{
    uint64_t pages[BITMAP_WORDS(0xa0)];
    size_t mapped;
    assert_int_equal(gmem_write(gmem, 0, "x", 1), 0);
    gmem_dirty_enable(gmem, true);
    assert_int_equal(gmem_write(gmem, 0x1fff, "xy", 2), 0);
    assert_int_equal(gmem_store_le16(gmem, 0x5000, 1), 0);
    void *host = gmem_map(gmem, 0x7000, 0x3000, GMEM_WRITE, &mapped);
    gmem_unmap(gmem, host, mapped, GMEM_WRITE, 0x1001);
    gmem_dirty_take(gmem, 0, pages);
    assert_true(pages[0] == (1u << 1 | 1u << 2 | 1u << 5 | 1u << 7 | 1u << 8));
    gmem_dirty_take(gmem, 0, pages);
    assert_true(pages[0] == 0);
}

static uint64_t told_gpa, told_len;
static int told;

static void on_code(void *opaque, uint64_t gpa, uint64_t len)
{
    told++;
    told_gpa = gpa;
    told_len = len;
}

static void the_engine_hears_of_writes_to_code(void **state)
{
    told = 0;
    gmem_code_listen(gmem, on_code, NULL);
    gmem_code_mark(gmem, 0x3000, true);
    assert_int_equal(gmem_write(gmem, 0x2000, "x", 1), 0);
    assert_int_equal(told, 0);
    assert_int_equal(gmem_write(gmem, 0x2ffe, "abcd", 4), 0);
    assert_int_equal(told, 1);
    assert_true(told_gpa == 0x2ffe && told_len == 4);
    gmem_code_mark(gmem, 0x3000, false);
    assert_int_equal(gmem_write(gmem, 0x3000, "x", 1), 0);
    assert_int_equal(told, 1);
}

/* Else a huge page of the host could not be one of the guest. */
static void huge_pages_can_be_the_guests(void **state)
{
    assert_ok(gmem_add_ram(gmem, "even", MIB(64), MIB(8)));
    assert_ok(gmem_add_ram(gmem, "odd", MIB(128) + 0x3000, MIB(8)));
    for (size_t i = 0; i < gmem_region_count(gmem); i++) {
        const struct gmem_region *region = gmem_region(gmem, i);
        assert_int_equal(region->gpa % MIB(2), (uintptr_t)region->host % MIB(2));
        region->host[0] = region->host[region->size - 1] = 1;
    }
}

/* Address space is reserved, not memory. */
static void much_memory_costs_nothing_until_it_is_used(void **state)
{
    assert_err(gmem_add_ram(gmem, "all", GIB(4), UINT64_MAX - GIB(4) - 0xfff), "memory 'all'");
    assert_ok(gmem_add_ram(gmem, "much", GIB(4), GIB(64)));
    uint8_t byte = 1;
    assert_int_equal(gmem_write(gmem, GIB(68) - 1, &byte, 1), 0);
    assert_int_equal(gmem_read(gmem, GIB(36), &byte, 1), 0);
    assert_int_equal(byte, 0);
}

static void a_switched_region_shows_one_side(void **state)
{
    const uint64_t gpa = 0x200000;
    char text[4];
    size_t mapped;
    assert_ok(gmem_add_switched(gmem, "shadow", gpa, 0x2000));
    assert_int_equal(gmem_load(gmem, gpa, "rom", 4), 0);
    assert_int_equal(gmem_write(gmem, gpa, "ram", 4), -EFAULT);
    assert_true(gmem_switch(gmem, gpa, GMEM_VIEW_RAM));
    assert_false(gmem_switch(gmem, gpa, GMEM_VIEW_RAM));
    assert_int_equal(gmem_write(gmem, gpa, "ram", 4), 0);
    assert_true(gmem_switch(gmem, gpa, GMEM_VIEW_RAM_READONLY));
    assert_int_equal(gmem_write(gmem, gpa, "xxx", 4), -EFAULT);
    assert_int_equal(gmem_read(gmem, gpa, text, 4), 0);
    assert_string_equal(text, "ram");
    assert_true(gmem_switch(gmem, gpa, GMEM_VIEW_NONE));
    assert_int_equal(gmem_read(gmem, gpa, text, 4), -EFAULT);
    assert_null(gmem_map(gmem, gpa, 1, GMEM_READ, &mapped));
    assert_null(gmem_find(gmem, gpa + 0x1000));
    assert_true(gmem_switch(gmem, gpa, GMEM_VIEW_ROM));
    assert_int_equal(gmem_read(gmem, gpa, text, 4), 0);
    assert_string_equal(text, "rom");
    /* Plain memory has one side. */
    assert_false(gmem_switch(gmem, 0, GMEM_VIEW_NONE));
    assert_false(gmem_switch(gmem, gpa + 0x1000, GMEM_VIEW_NONE));
}

static void a_movable_region_is_where_its_owner_puts_it(void **state)
{
    const uint64_t gpa = 0x10000000;
    uint8_t byte;
    assert_ok(gmem_add_movable(gmem, "card", 0x4000));
    assert_ok(gmem_add_movable(gmem, "other card", 0x4000));
    assert_ok(gmem_add_ram(gmem, "late", 0x20000000, 0x1000));
    const struct gmem_region *card = gmem_movable(gmem, "card");
    assert_null(gmem_movable(gmem, "late"));
    assert_null(gmem_find(gmem, gpa));
    /* A new place is taken only when all is quiet. */
    assert_true(gmem_move(gmem, card, gpa));
    assert_true(gmem_unsettled(gmem));
    assert_null(gmem_find(gmem, gpa));
    assert_true(gmem_settle(gmem));
    assert_false(gmem_unsettled(gmem));
    assert_ptr_equal(gmem_find(gmem, gpa + 0x3fff), card);
    assert_false(gmem_move(gmem, card, gpa));
    /* Devices do not reach it by address: it might be elsewhere in a moment. */
    card->ram[0] = 0x5a;
    assert_int_equal(gmem_read(gmem, gpa, &byte, 1), -EFAULT);
    /* The old place is left at once, and may be taken again at once. */
    assert_true(gmem_move(gmem, card, 0));
    assert_null(gmem_find(gmem, gpa));
    assert_true(gmem_move(gmem, card, gpa));
    assert_false(gmem_unsettled(gmem));
    assert_ptr_equal(gmem_find(gmem, gpa), card);
    assert_int_equal(card->host[0], 0x5a);
    /* It never lies over other memory, nor half over the end of the address space. */
    assert_true(gmem_move(gmem, gmem_movable(gmem, "other card"), gpa + 0x2000));
    assert_false(gmem_settle(gmem));
    assert_true(gmem_move(gmem, card, 0x20000000 - 0x3000));
    assert_false(gmem_settle(gmem));
    assert_true(gmem_move(gmem, card, UINT64_MAX & ~0xfffull));
    assert_false(gmem_settle(gmem));
    assert_null(gmem_find(gmem, gpa));
}

static void shared_pages_show_twice(void **state)
{
    uint8_t *place = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(place, MAP_FAILED);
    assert_false(gmem_alias(gmem, gmem_find(gmem, 0x2000)->host + 0x2000, place));
    gmem_share(gmem);
    assert_ok(gmem_add_ram(gmem, "shared", 0x200000, 0x400000));
    const uint8_t *page = gmem_find(gmem, 0x200000)->host + 0x1000;
    assert_true(gmem_alias(gmem, page, place));
    memcpy(place, "seen", 4);
    assert_memory_equal(page, "seen", 4);
    assert_true(gmem_alias(gmem, page + 0x1000, place));
    assert_int_equal(place[0], 0);
    gmem_want_huge(gmem, 0x201000);
    gmem_want_huge(gmem, 0x5ff000);
    gmem_want_huge(gmem, 0x9000000); /* no RAM */
    assert_memory_equal(page, "seen", 4);
    memcpy((uint8_t *)(uintptr_t)page + 0x1000, "too", 4);
    assert_memory_equal(place, "too", 4);
    munmap(place, 4096);
}

int main(void)
{
#define GMEM_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        GMEM_TEST(regions_are_sorted_and_apart),
        GMEM_TEST(copies_stop_at_the_edge_whole),
        GMEM_TEST(rom_is_for_loaders_only),
        GMEM_TEST(a_borrow_is_cut_at_its_region),
        GMEM_TEST(scattered_pages_lie_apart),
        GMEM_TEST(fields_are_aligned_and_inside),
        GMEM_TEST(every_write_reaches_the_dirty_log),
        GMEM_TEST(the_engine_hears_of_writes_to_code),
        GMEM_TEST(a_switched_region_shows_one_side),
        GMEM_TEST(a_movable_region_is_where_its_owner_puts_it),
        GMEM_TEST(shared_pages_show_twice),
        GMEM_TEST(huge_pages_can_be_the_guests),
        GMEM_TEST(much_memory_costs_nothing_until_it_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
