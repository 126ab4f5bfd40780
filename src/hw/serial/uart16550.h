/*
 * The 16550A serial port (National Semiconductor PC16550D data sheet).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_SERIAL_UART16550_H
#define TENON_HW_SERIAL_UART16550_H

#include "hw/core/device.h"
#include "hw/serial/tx_batch.h"
#include "share/stream.h"

#define UART_FIFO 16

struct uart16550 {
    struct device device;

    /* Set before realize. */
    uint16_t port; /* 0x3f8 */
    struct irq_line irq;
    struct stream *stream; /* borrowed, outlives the device; NULL: nothing is connected */

    /* Own. */
    struct io_region region;
    struct tx_batch tx;
    uint16_t divisor;
    uint8_t ier, fcr, lcr, mcr, scr;
    uint8_t line_errors;    /* overrun of the line status, until read */
    uint8_t modem_delta;    /* changed modem inputs, until read */
    uint8_t modem_inputs;   /* the four modem inputs of the line, as in the high half of MSR */
    bool thr_empty_pending; /* the "transmitter empty" interrupt waits to be told */
    bool irq_level;
    bool quiesced;
    struct loop_timer rx_timer; /* brings stream_rx_ready to the loop */
    uint8_t rx[UART_FIFO];
    uint8_t rx_head, rx_len;
    bool input_waits; /* a stream byte was refused: call stream_rx_ready when there is room */
};

extern const struct device_class uart16550_class;

#endif
