/*
 * What the serial console tells the boot timeline.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vm/boot_watch.h"

#define COM1 0x3f8

static void count(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void say(struct boot_watch *watch, const char *text)
{
    for (; *text; text++)
        boot_watch_pio(watch, COM1, (uint8_t)*text);
}

static void test_the_last_boot_loader_counts(void **state)
{
    struct timeline timeline = {0};
    struct boot_watch watch = {.timeline = &timeline, .firmware = true, .kernel_spoke = true};

    say(&watch, "SeaBIOS (version 1.16.2)\r\nBooting from Hard Dis");
    uint64_t first = timeline.at_ns[TIMELINE_BOOT_LOADER];
    assert_true(first);
    say(&watch, "k...\r\nBoot failed: not a bootable disk\r\n");
    assert_int_equal(timeline.at_ns[TIMELINE_BOOT_LOADER], first);
    say(&watch, "BBBooting from DVD/CD...\r\n");
    uint64_t second = timeline.at_ns[TIMELINE_BOOT_LOADER];
    assert_true(second > first);
    assert_int_equal(timeline.at_ns[TIMELINE_INIT], 0);
    /* A kernel may say the same. */
    timeline_mark(&timeline, TIMELINE_KERNEL_ENTRY);
    say(&watch, "[    0.0] Booting from Hard Disk\r\n");
    assert_int_equal(timeline.at_ns[TIMELINE_BOOT_LOADER], second);
    assert_int_equal(timeline.at_ns[TIMELINE_INIT], 0);
    say(&watch, "init\n");
    assert_true(timeline.at_ns[TIMELINE_INIT]);
}

static void test_a_divisor_is_no_text(void **state)
{
    struct timeline timeline = {0};
    struct boot_watch watch = {.timeline = &timeline, .firmware = true};

    boot_watch_pio(&watch, COM1 + 3, 0x83);
    say(&watch, "Booting from ");
    assert_int_equal(timeline.at_ns[TIMELINE_FIRST_OUTPUT], 0);
    assert_int_equal(timeline.at_ns[TIMELINE_BOOT_LOADER], 0);
}

static void test_nothing_to_boot(void **state)
{
    static const char *const texts[] = {
        "Booting from Hard Disk...\r\nBoot failed: not a bootable disk\r\n\r\nNo bootable device.",
        "BdsDxe: starting Boot0002 \"EFI Internal Shell\" from Fv(...)\r\n",
        "BdsDxe: No bootable option or device was found.\r\n",
    };
    static const char *const others[] = {
        "No bootable devic.", "BdsDxe: starting Boot0001 \"UEFI Misc Device\" from Pci\r\n",
        "BdsDxe: loading Boot0002 \"EFI Internal Shell\" from Fv(...)\r\n"};

    for (size_t i = 0; i < ARRAY_SIZE(texts) + ARRAY_SIZE(others); i++) {
        bool nothing = i < ARRAY_SIZE(texts);
        struct timeline timeline = {0};
        unsigned calls = 0;
        struct boot_watch watch = {
            .timeline = &timeline, .firmware = true, .nothing_to_boot = count, .opaque = &calls};

        say(&watch, nothing ? texts[i] : others[i - ARRAY_SIZE(texts)]);
        assert_int_equal(calls, nothing);
        watch.firmware = false;
        say(&watch, texts[0]);
        assert_int_equal(calls, nothing);
    }
}

static void test_nobody_watches(void **state)
{
    struct boot_watch watch = {.firmware = true};

    say(&watch, "No bootable device.");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_last_boot_loader_counts),
        cmocka_unit_test(test_a_divisor_is_no_text),
        cmocka_unit_test(test_nothing_to_boot),
        cmocka_unit_test(test_nobody_watches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
