/*
 * What the first serial port says about a boot, for the timeline and for a hint: when firmware
 * starts a boot loader or finds none, and when init speaks.
 *
 * Any thread: every field is atomic. The hottest port of a boot passes here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_BOOT_WATCH_H
#define TENON_VM_BOOT_WATCH_H

#include "base/base.h"
#include "vm/timeline.h"

#define BOOT_WATCH_PHRASES 5

struct boot_watch {
    struct timeline *timeline; /* NULL: nothing is watched */
    bool firmware;             /* it and a boot loader come before the kernel */
    bool divisor;              /* a write to the data port is a divisor, not output */
    bool in_line;              /* the current line has begun */
    bool kernel_spoke;         /* a line of the kernel has been seen, or none comes before init's */
    uint8_t matched[BOOT_WATCH_PHRASES];   /* characters of each phrase that have come */
    void (*nothing_to_boot)(void *opaque); /* any thread */
    void *opaque;
};

/* A write to an I/O port. */
void boot_watch_pio(struct boot_watch *watch, uint16_t port, uint32_t value);

#endif
