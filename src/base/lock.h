/*
 * Mutexes with a rank. A thread takes locks in rising rank only; builds with TENON_DEBUG check it,
 * so that an order that could deadlock is found the first time it runs, not the first time it
 * hangs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_LOCK_H
#define TENON_BASE_LOCK_H

#include <pthread.h>

#include "base/base.h"

/* The only list of lock ranks. Of two locks that one thread may hold, the outer has the lower rank.
 */
enum lock_rank {
    LOCK_VM = 10,      /* life cycle of a VM: state machine, vCPU list */
    LOCK_DEVICE = 20,  /* one a device: registers, queues */
    LOCK_PCI_BUS = 30, /* configuration space and BAR mapping */
    LOCK_IRQCHIP = 40, /* IOAPIC, PIC */
    LOCK_BUS = 50,     /* port and memory dispatch tables */
    LOCK_ACCEL = 60,   /* accelerator tables: routes, memory slots */
    LOCK_LAPIC = 70,   /* one a local APIC of the software engine */
    LOCK_GMEM = 80,    /* region list, dirty-log switch */
    LOCK_BLOCK = 90,   /* request queues */
    LOCK_NODE = 95,    /* one a block node: its tables; never held into another that has one */
    LOCK_NET = 100,    /* network ports */
    LOCK_STREAM = 110, /* character streams */
    LOCK_LOOP = 120,   /* loop timers and posts; anybody may post */
    LOCK_LEAF = 200,   /* held for a few instructions, calls nothing */
};

struct lock {
    pthread_mutex_t mutex;
    enum lock_rank rank;
};

void lock_init(struct lock *lock, enum lock_rank rank);
void lock_fini(struct lock *lock);
/* Two locks of the same rank must not be held together. */
void lock_take(struct lock *lock);
void lock_drop(struct lock *lock);
/* Does this thread hold the lock? Exact with TENON_DEBUG, always true without: for assertions. */
bool lock_held(const struct lock *lock);

#endif
