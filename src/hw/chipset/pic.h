/*
 * The pair of 8259A interrupt controllers: 15 ISA lines, and INTR to the processor.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_PIC_H
#define TENON_HW_CHIPSET_PIC_H

#include "hw/core/device.h"

/* One 8259A. */
struct pic_chip {
    uint8_t irr, isr, imr; /* requests, in service, masked: a bit a line */
    uint8_t levels;        /* the lines as they are */
    uint8_t elcr;          /* level-triggered lines */
    uint8_t vector_base;   /* ICW2 */
    uint8_t icw_next;      /* 0: ready; else the ICW that the next data write is (2..4) */
    uint8_t lowest;        /* line of lowest priority, 7 at first */
    bool icw4_needed, auto_eoi, rotate_auto, special_mask, special_nested, single, level_mode;
    bool read_isr, poll;
};

struct pic {
    struct device device;

    /* Set before realize: the INTR output; called with the PIC's lock held, on each change. */
    void (*intr)(void *opaque, bool level);
    void *opaque;

    /* Own. */
    struct lock irq_lock; /* LOCK_IRQCHIP: covers all below */
    struct io_region region[2], elcr_region;
    struct pic_chip chip[2]; /* master, slave on its line 2 */
    bool intr_level;
};

extern const struct device_class pic_class;

/* The wire to ISA line 0..15. Any thread; may be used before realize. */
struct irq_line pic_line(struct pic *pic, unsigned irq);
/* The processor's INTA cycle: the vector; a spurious one if the request is gone. vCPU threads. */
uint8_t pic_ack(struct pic *pic);

#endif
