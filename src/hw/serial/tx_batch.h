/*
 * Output bytes on their way to a stream. A guest hands over one byte an exit, a host write costs a
 * system call: bytes wait here until a line ends, the batch is full, or two milliseconds passed.
 *
 * Under the owner's device lock; the timer runs on the loop and takes that lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_SERIAL_TX_BATCH_H
#define TENON_HW_SERIAL_TX_BATCH_H

#include "base/lock.h"
#include "loop/loop.h"
#include "share/stream.h"

struct tx_batch {
    struct stream *stream; /* borrowed; NULL drops the bytes */
    struct lock *lock;     /* the owner's */
    struct loop_timer timer;
    bool armed;
    unsigned len;
    uint8_t bytes[512];
};

void tx_batch_init(struct tx_batch *batch, struct loop *loop, struct stream *stream,
                   struct lock *lock);
/* On the loop, or when it does not run. Bytes must have been flushed. */
void tx_batch_fini(struct tx_batch *batch);
void tx_batch_put(struct tx_batch *batch, uint8_t byte);
void tx_batch_flush(struct tx_batch *batch);

#endif
