/*
 * Bytes on their way from a PS/2 device to its controller.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_INPUT_PS2_QUEUE_H
#define TENON_HW_INPUT_PS2_QUEUE_H

#include <string.h>

#include "base/base.h"
#include "base/err.h"
#include "hw/core/device.h"

#define PS2_ACK 0xfa
#define PS2_RESEND 0xfe
#define PS2_SELF_TEST_OK 0xaa

struct ps2_queue {
    uint8_t bytes[64];
    uint8_t count;
    uint8_t last; /* what was sent last, for a controller that asks again */
};

extern const struct state_table ps2_queue_state;

/* All of them or none. */
static inline bool ps2_queue_put(struct ps2_queue *queue, const void *bytes, unsigned count)
{
    if (count > sizeof(queue->bytes) - queue->count)
        return false;
    memcpy(queue->bytes + queue->count, bytes, count);
    queue->count = (uint8_t)(queue->count + count);
    return true;
}

/* There is one. */
static inline uint8_t ps2_queue_take(struct ps2_queue *queue)
{
    queue->last = queue->bytes[0];
    queue->count--;
    memmove(queue->bytes, queue->bytes + 1, queue->count);
    return queue->last;
}

/* The answer to a command: what waited before is lost, as on the real thing. */
static inline void ps2_queue_answer(struct ps2_queue *queue, const void *bytes, unsigned count)
{
    queue->count = 0;
    ps2_queue_put(queue, bytes, count);
}

#endif
