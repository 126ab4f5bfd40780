/*
 * Lockstep: whatever translated code did, the interpreter does again, and both must agree.
 *
 * A window is one stay in translated code, from its entry to its way out. Translated code touches
 * nothing but registers and RAM, and RAM it writes only through write-TLB entries, so a window
 * that begins with an empty write TLB shows each page here before its first byte changes. Then the
 * interpreter runs the same number of instructions from the same registers, one at a time,
 * decoded afresh. It sees the pages as they were, in copies of its own, and writes to those. At
 * the end registers, live flags, vector state and the bytes of all written pages are compared. The
 * guest goes on with what the translated code did: the interpreter is the shadow.
 *
 * A window that differs is left out when a device wrote to RAM meanwhile. Page tables are walked at
 * other times by the two, so a window that reads a table as data, in which one of them set an
 * accessed or dirty bit, is not compared. Where the guest has changed its tables and not flushed,
 * both ways on are right (stale.h): the error says that there is such a translation.
 *
 * One vCPU only; everything runs on its thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_LOCKSTEP_H
#define TENON_ACCEL_SOFT_LOCKSTEP_H

#include "accel/soft/interp/exec.h"

struct lockstep *lockstep_new(struct soft_vcpu *v);
void lockstep_free(struct lockstep *lockstep);

/* Around a stay in translated code, which begins at `op` and goes on at `next` (NULL: the run
   loop). A difference ends vcpu_run with an error. */
void lockstep_begin(struct soft_vcpu *v, const struct op *op);
void lockstep_check(struct soft_vcpu *v, const struct op *next);

/* The host page to use for a guest page: the shadow's copy while the shadow runs. */
uint8_t *lockstep_page(struct soft_vcpu *v, uint8_t *page, bool write);
/* That page is about to be used as data, not as a page table. */
void lockstep_uses(struct soft_vcpu *v, const uint8_t *page);
/* A write-TLB entry is about to be filled. */
void lockstep_filled(struct soft_vcpu *v, struct soft_tlbe *entry, unsigned index);
/* A walk sets accessed or dirty bits in the table entry at `at`. */
void lockstep_marked(struct soft_vcpu *v, const uint8_t *at);
/* A device is about to be used: the shadow must not. */
void lockstep_device(struct soft_vcpu *v);

#endif
