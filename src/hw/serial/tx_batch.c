/*
 * Output batches. See tx_batch.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/serial/tx_batch.h"
#include "base/clock.h"

#define DELAY_NS (2 * NSEC_PER_MSEC)

static void expired(void *opaque)
{
    struct tx_batch *batch = opaque;
    lock_take(batch->lock);
    batch->armed = false;
    tx_batch_flush(batch);
    lock_drop(batch->lock);
}

void tx_batch_init(struct tx_batch *batch, struct loop *loop, struct stream *stream,
                   struct lock *lock)
{
    batch->stream = stream;
    batch->lock = lock;
    batch->armed = false;
    batch->len = 0;
    loop_timer_init(loop, &batch->timer, expired, batch);
}

void tx_batch_fini(struct tx_batch *batch)
{
    if (batch->timer.loop)
        loop_timer_cancel(&batch->timer);
}

void tx_batch_put(struct tx_batch *batch, uint8_t byte)
{
    batch->bytes[batch->len++] = byte;
    if (byte == '\n' || batch->len == sizeof(batch->bytes)) {
        tx_batch_flush(batch);
    } else if (!batch->armed) {
        /* Stays armed over a flush: at most one wake-up of the loop in two milliseconds. */
        batch->armed = true;
        loop_timer_arm(&batch->timer, clock_now_ns() + DELAY_NS);
    }
}

void tx_batch_flush(struct tx_batch *batch)
{
    if (batch->stream && batch->len)
        stream_write(batch->stream, batch->bytes, batch->len);
    batch->len = 0;
}
