/*
 * What the first serial port says about a boot. See boot_watch.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/boot_watch.h"

#include "hw/chipset/layout.h"

#define UART_LCR 3
#define UART_LCR_DLAB 0x80

/* What the packaged firmware prints; '?' is any character. */
static const struct phrase {
    const char *text;
    bool nothing; /* the end of its search: else it starts a boot loader */
} phrases[BOOT_WATCH_PHRASES] = {
    {"Booting from ", false},
    {"BdsDxe: starting Boot", false},
    {"No bootable device.", true},
    {"BdsDxe: starting Boot???? \"EFI Internal Shell\"", true},
    {"BdsDxe: No bootable option", true},
};

static bool load_flag(const bool *flag)
{
    return __atomic_load_n(flag, __ATOMIC_RELAXED);
}

static void store_flag(bool *flag, bool value)
{
    __atomic_store_n(flag, value, __ATOMIC_RELAXED);
}

static bool reached(const struct boot_watch *watch, enum timeline_mark mark)
{
    return __atomic_load_n(&watch->timeline->at_ns[mark], __ATOMIC_RELAXED);
}

/* The start of one boot loader may fail, and the next one's follows: the last is the one. */
static void watch_firmware(struct boot_watch *watch, char byte)
{
    for (unsigned i = 0; i < BOOT_WATCH_PHRASES; i++) {
        const struct phrase *phrase = &phrases[i];
        unsigned n = __atomic_load_n(&watch->matched[i], __ATOMIC_RELAXED);

        if (phrase->text[n] != byte && phrase->text[n] != '?')
            n = 0;
        if (phrase->text[n] == byte || phrase->text[n] == '?')
            n++;
        if (!phrase->text[n]) {
            n = 0;
            if (!phrase->nothing)
                timeline_move(watch->timeline, TIMELINE_BOOT_LOADER);
            else if (watch->nothing_to_boot)
                watch->nothing_to_boot(watch->opaque);
        }
        __atomic_store_n(&watch->matched[i], (uint8_t)n, __ATOMIC_RELAXED);
    }
}

/*
 * Init's first line: the kernel's own begin with the time in brackets. Lines of the kernel's
 * decompressor (with an early console) come before the kernel's first.
 */
static void watch_kernel(struct boot_watch *watch, char byte)
{
    bool in_line = load_flag(&watch->in_line);

    store_flag(&watch->in_line, byte != '\n' && (in_line || byte != '\r'));
    if (in_line || byte == '\r' || byte == '\n')
        return;
    if (byte == '[')
        store_flag(&watch->kernel_spoke, true);
    else if (load_flag(&watch->kernel_spoke))
        timeline_mark(watch->timeline, TIMELINE_INIT);
}

void boot_watch_pio(struct boot_watch *watch, uint16_t port, uint32_t value)
{
    if (!watch->timeline)
        return;
    if (port == LAYOUT_PORT_COM1) {
        if (load_flag(&watch->divisor))
            return;
        timeline_mark(watch->timeline, TIMELINE_FIRST_OUTPUT);
        if (reached(watch, TIMELINE_INIT))
            return;
        if (reached(watch, TIMELINE_KERNEL_ENTRY))
            watch_kernel(watch, (char)value);
        else if (watch->firmware)
            watch_firmware(watch, (char)value);
    } else if (port == LAYOUT_PORT_COM1 + UART_LCR) {
        store_flag(&watch->divisor, value & UART_LCR_DLAB);
    } else if (port == LAYOUT_PORT_DEBUG_CONSOLE) {
        timeline_mark(watch->timeline, TIMELINE_INIT);
    }
}
