/*
 * Things that cost much to make, that a thread needs for a moment, and that the next thread can use
 * again: compressors, contexts, buffers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_SPARE_H
#define TENON_BASE_SPARE_H

#include "base/lock.h"

#define SPARE_MAX 32

struct spare {
    struct lock lock; /* LOCK_LEAF; guards those that no thread uses */
    void *thing[SPARE_MAX];
    void (*release)(void *thing);
};

void spare_init(struct spare *spare, void (*release)(void *thing));
void spare_fini(struct spare *spare);
/* One for this thread alone; NULL: make one. */
void *spare_take(struct spare *spare);
/* Back again, made by whom ever; released if enough are waiting. NULL is fine. */
void spare_give(struct spare *spare, void *take_thing);

#endif
