/*
 * An interrupt line: a wire from a device's pin to an input of an interrupt controller.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CORE_IRQ_H
#define TENON_HW_CORE_IRQ_H

#include "base/base.h"

/* By value: a device keeps its copy. A zero line is connected to nothing. */
struct irq_line {
    void (*set)(void *opaque, unsigned pin, bool level);
    void *opaque;
    unsigned pin;
};

/* Any thread. The controller takes its own lock (LOCK_IRQCHIP), so a device lock may be held. */
static inline void irq_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->opaque, line->pin, level);
}

#endif
