/*
 * ISA lines to both interrupt controllers. See isa_irq.h. No lock of its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/isa_irq.h"
#include "hw/chipset/layout.h"

static void line_set(void *opaque, unsigned irq, bool level)
{
    struct isa_irqs *irqs = opaque;
    if (irqs->pic) {
        struct irq_line line = pic_line(irqs->pic, irq);
        irq_set(&line, level);
    }
    if (irqs->ioapic) {
        struct irq_line line =
            ioapic_line(irqs->ioapic, irq == LAYOUT_IRQ_PIT ? LAYOUT_GSI_PIT : irq);
        irq_set(&line, level);
    }
}

struct irq_line isa_irq_line(struct isa_irqs *irqs, unsigned irq)
{
    return irq < 16 ? (struct irq_line){line_set, irqs, irq} : (struct irq_line){0};
}
