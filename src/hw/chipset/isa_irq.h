/*
 * ISA interrupt lines reach two controllers at once: the PIC, and the IOAPIC, where line 0 is on
 * pin 2. Embedded by the board; either controller may be absent (NULL).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_ISA_IRQ_H
#define TENON_HW_CHIPSET_ISA_IRQ_H

#include "hw/chipset/ioapic.h"
#include "hw/chipset/pic.h"

struct isa_irqs {
    struct pic *pic;
    struct ioapic *ioapic;
};

/* The wire of ISA line 0..15; `irqs` outlives it. */
struct irq_line isa_irq_line(struct isa_irqs *irqs, unsigned irq);

#endif
