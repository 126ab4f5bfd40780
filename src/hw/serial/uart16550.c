/*
 * The 16550A UART (PC16550D data sheet, section 8).
 *
 * The line is infinitely fast: a transmitted byte has left at once, and a receiver time-out has
 * passed as soon as bytes lie below the trigger level. Input that does not fit stays with the
 * stream, so the line never overruns; only loop-back can.
 *
 * Lock: the device's. Registers are a vCPU's, input and timers come on the control loop and take
 * the lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/serial/uart16550.h"
#include "hw/core/env.h"

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_RX 0x01
#define IER_TX 0x02
#define IER_LINE 0x04
#define IER_MODEM 0x08
#define IIR_NONE 0x01
#define IIR_TX 0x02
#define IIR_RX 0x04
#define IIR_LINE 0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO 0xc0
#define FCR_ENABLE 0x01
#define FCR_CLEAR_RX 0x02
#define LCR_DLAB 0x80
#define MCR_DTR 0x01
#define MCR_RTS 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08 /* on a PC, connects the interrupt output to the line */
#define MCR_LOOP 0x10
#define LSR_DATA 0x01
#define LSR_OVERRUN 0x02
#define LSR_TX_EMPTY 0x60 /* holding register and shift register */
#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI 0x40
#define MSR_DCD 0x80

static unsigned capacity(const struct uart16550 *uart)
{
    return uart->fcr & FCR_ENABLE ? UART_FIFO : 1;
}

static unsigned trigger(const struct uart16550 *uart)
{
    static const uint8_t levels[] = {1, 4, 8, 14};
    return uart->fcr & FCR_ENABLE ? levels[uart->fcr >> 6] : 1;
}

/* The interrupt of highest priority, as the low bits of IIR. */
static uint8_t pending(const struct uart16550 *uart)
{
    if (uart->ier & IER_LINE && uart->line_errors)
        return IIR_LINE;
    if (uart->ier & IER_RX && uart->rx_len)
        return uart->rx_len >= trigger(uart) ? IIR_RX : IIR_TIMEOUT;
    if (uart->ier & IER_TX && uart->thr_empty_pending)
        return IIR_TX;
    if (uart->ier & IER_MODEM && uart->modem_delta)
        return 0x00;
    return IIR_NONE;
}

static void irq_update(struct uart16550 *uart)
{
    bool level = pending(uart) != IIR_NONE && uart->mcr & MCR_OUT2 && !(uart->mcr & MCR_LOOP);
    if (level != uart->irq_level) {
        uart->irq_level = level;
        irq_set(&uart->irq, level);
    }
}

/* The modem inputs as the guest sees them: in loop-back, its own outputs. */
static uint8_t modem_inputs(const struct uart16550 *uart)
{
    if (!(uart->mcr & MCR_LOOP))
        return uart->modem_inputs;
    return (uint8_t)((uart->mcr & MCR_RTS ? MSR_CTS : 0) | (uart->mcr & MCR_DTR ? MSR_DSR : 0) |
                     (uart->mcr & MCR_OUT1 ? MSR_RI : 0) | (uart->mcr & MCR_OUT2 ? MSR_DCD : 0));
}

/* Notes what changed since `before`; of the ring indicator only the falling edge counts. */
static void modem_changed(struct uart16550 *uart, uint8_t before)
{
    uint8_t after = modem_inputs(uart), changed = before ^ after;
    if (changed & MSR_RI && after & MSR_RI)
        changed &= (uint8_t)~MSR_RI;
    uart->modem_delta |= changed >> 4;
}

static void rx_push(struct uart16550 *uart, uint8_t byte)
{
    if (uart->rx_len >= capacity(uart)) {
        uart->line_errors |= LSR_OVERRUN;
        return;
    }
    uart->rx[(uart->rx_head + uart->rx_len++) % UART_FIFO] = byte;
}

static void input_wake(struct uart16550 *uart)
{
    if (!uart->input_waits || uart->quiesced || uart->mcr & MCR_LOOP)
        return;
    uart->input_waits = false;
    loop_timer_arm(&uart->rx_timer, 0);
}

static uint8_t rx_pop(struct uart16550 *uart)
{
    if (!uart->rx_len)
        return 0;
    uint8_t byte = uart->rx[uart->rx_head];
    uart->rx_head = (uint8_t)((uart->rx_head + 1) % UART_FIFO);
    /* The loop is woken for a whole FIFO, not for each byte. */
    if (!--uart->rx_len)
        input_wake(uart);
    return byte;
}

static void transmit(struct uart16550 *uart, uint8_t byte)
{
    if (uart->mcr & MCR_LOOP)
        rx_push(uart, byte);
    else
        tx_batch_put(&uart->tx, byte);
    /* Full, and empty again: the line falls and rises, which an edge-triggered input needs. */
    uart->thr_empty_pending = false;
    irq_update(uart);
    uart->thr_empty_pending = true;
    irq_update(uart);
}

static void fcr_write(struct uart16550 *uart, uint8_t value)
{
    bool toggled = (uart->fcr ^ value) & FCR_ENABLE;
    uart->fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
    if (toggled || value & FCR_CLEAR_RX) {
        uart->rx_head = uart->rx_len = 0;
        input_wake(uart);
    }
    irq_update(uart);
}

static uint8_t iir_read(struct uart16550 *uart)
{
    uint8_t value = pending(uart);
    if (value == IIR_TX) {
        uart->thr_empty_pending = false;
        irq_update(uart);
    }
    return uart->fcr & FCR_ENABLE ? value | IIR_FIFO : value;
}

static uint8_t lsr_read(struct uart16550 *uart)
{
    uint8_t value = LSR_TX_EMPTY | uart->line_errors | (uart->rx_len ? LSR_DATA : 0);
    if (uart->line_errors) {
        uart->line_errors = 0;
        irq_update(uart);
    }
    return value;
}

static uint64_t uart_read(void *opaque, uint64_t offset, unsigned size)
{
    struct uart16550 *uart = opaque;
    bool dlab = uart->lcr & LCR_DLAB;
    uint8_t value;
    if (size != 1)
        return UINT64_MAX;
    switch (offset) {
    case REG_DATA:
        if (dlab)
            return uart->divisor & 0xff;
        value = rx_pop(uart);
        irq_update(uart);
        return value;
    case REG_IER:
        return dlab ? uart->divisor >> 8 : uart->ier;
    case REG_IIR_FCR:
        return iir_read(uart);
    case REG_LCR:
        return uart->lcr;
    case REG_MCR:
        return uart->mcr;
    case REG_LSR:
        return lsr_read(uart);
    case REG_MSR:
        value = modem_inputs(uart) | uart->modem_delta;
        uart->modem_delta = 0;
        irq_update(uart);
        return value;
    default:
        return uart->scr;
    }
}

static void ier_write(struct uart16550 *uart, uint8_t value)
{
    bool tx_enabled = ~uart->ier & value & IER_TX;
    uart->ier = value & 0x0f;
    /* The holding register is empty all the time: enabling the interrupt raises it. */
    if (tx_enabled)
        uart->thr_empty_pending = true;
    irq_update(uart);
}

static void mcr_write(struct uart16550 *uart, uint8_t value)
{
    uint8_t before = modem_inputs(uart);
    uart->mcr = value & 0x1f;
    modem_changed(uart, before);
    input_wake(uart);
    irq_update(uart);
}

static void uart_write(void *opaque, uint64_t offset, unsigned size, uint64_t data)
{
    struct uart16550 *uart = opaque;
    uint8_t value = (uint8_t)data;
    bool dlab = uart->lcr & LCR_DLAB;
    if (size != 1)
        return;
    switch (offset) {
    case REG_DATA:
        if (dlab)
            uart->divisor = (uint16_t)((uart->divisor & 0xff00) | value);
        else
            transmit(uart, value);
        break;
    case REG_IER:
        if (dlab)
            uart->divisor = (uint16_t)((uart->divisor & 0xff) | value << 8);
        else
            ier_write(uart, value);
        break;
    case REG_IIR_FCR:
        fcr_write(uart, value);
        break;
    case REG_LCR:
        uart->lcr = value;
        break;
    case REG_MCR:
        mcr_write(uart, value);
        break;
    case REG_SCR:
        uart->scr = value;
        break;
    }
}

static const struct io_ops ops = {uart_read, uart_write};

static size_t input(void *opaque, const uint8_t *bytes, size_t len)
{
    struct uart16550 *uart = opaque;
    size_t taken = 0;
    lock_take(&uart->device.lock);
    if (!uart->quiesced && !(uart->mcr & MCR_LOOP)) {
        while (taken < len && uart->rx_len < capacity(uart))
            rx_push(uart, bytes[taken++]);
    }
    if (taken < len)
        uart->input_waits = true;
    irq_update(uart);
    lock_drop(&uart->device.lock);
    return taken;
}

/* Clear to send stays: a guest with flow control must not stop because nobody listens. */
static void connected(void *opaque, bool on)
{
    struct uart16550 *uart = opaque;
    lock_take(&uart->device.lock);
    uint8_t before = modem_inputs(uart);
    uart->modem_inputs = on ? MSR_CTS | MSR_DSR | MSR_DCD : MSR_CTS;
    modem_changed(uart, before);
    irq_update(uart);
    lock_drop(&uart->device.lock);
}

static const struct stream_events events = {.input = input, .connected = connected};

static void rx_ready(void *opaque)
{
    struct uart16550 *uart = opaque;
    if (uart->stream)
        stream_rx_ready(uart->stream);
}

static struct err *realize(struct device *device)
{
    struct uart16550 *uart = (struct uart16550 *)device;
    tx_batch_init(&uart->tx, device->env->loop, uart->stream, &device->lock);
    loop_timer_init(device->env->loop, &uart->rx_timer, rx_ready, uart);
    uart->modem_inputs = MSR_CTS | MSR_DSR | MSR_DCD;
    uart->region = (struct io_region){
        .name = "uart16550", .size = 8, .ops = &ops, .opaque = uart, .lock = &device->lock};
    io_bus_add(device->env->pio, &uart->region, uart->port);
    if (uart->stream)
        stream_attach(uart->stream, &events, uart);
    return NULL;
}

static void reset(struct device *device)
{
    struct uart16550 *uart = (struct uart16550 *)device;
    lock_take(&device->lock);
    tx_batch_flush(&uart->tx);
    uart->divisor = 12; /* 9600 baud */
    uart->ier = uart->fcr = uart->lcr = uart->mcr = uart->scr = 0;
    uart->line_errors = uart->modem_delta = 0;
    uart->thr_empty_pending = false;
    uart->rx_head = uart->rx_len = 0;
    input_wake(uart);
    irq_update(uart);
    lock_drop(&device->lock);
}

static void quiesce(struct device *device)
{
    struct uart16550 *uart = (struct uart16550 *)device;
    lock_take(&device->lock);
    tx_batch_flush(&uart->tx);
    uart->quiesced = true;
    lock_drop(&device->lock);
}

static void resume(struct device *device)
{
    struct uart16550 *uart = (struct uart16550 *)device;
    lock_take(&device->lock);
    uart->quiesced = false;
    if (uart->rx_len < capacity(uart))
        input_wake(uart);
    lock_drop(&device->lock);
}

static void fini(struct device *device)
{
    struct uart16550 *uart = (struct uart16550 *)device;
    io_bus_remove(&uart->region);
    if (uart->stream && device->realized)
        stream_attach(uart->stream, NULL, NULL);
    tx_batch_fini(&uart->tx);
    if (uart->rx_timer.loop)
        loop_timer_cancel(&uart->rx_timer);
}

static struct err *check(const void *staged)
{
    const struct uart16550 *uart = staged;
    if (uart->rx_len > UART_FIFO || uart->rx_head >= UART_FIFO)
        return err_new("the receive FIFO's indexes are out of range");
    if (uart->ier & ~0x0f || uart->mcr & ~0x1f || uart->modem_delta & ~0x0f)
        return err_new("a register has unknown bits");
    return NULL;
}

static const struct state_field fields[] = {
    STATE_U16(1, uart16550, divisor),
    STATE_U8(2, uart16550, ier),
    STATE_U8(3, uart16550, fcr),
    STATE_U8(4, uart16550, lcr),
    STATE_U8(5, uart16550, mcr),
    STATE_U8(6, uart16550, scr),
    STATE_U8(7, uart16550, line_errors),
    STATE_U8(8, uart16550, modem_delta),
    STATE_BOOL(9, uart16550, thr_empty_pending),
    STATE_BOOL(10, uart16550, irq_level),
    STATE_BYTES(11, uart16550, rx),
    STATE_U8(12, uart16550, rx_head),
    STATE_U8(13, uart16550, rx_len),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("uart16550", uart16550, fields),
    .check = check,
};

const struct device_class uart16550_class = {
    .name = "uart16550",
    .description = "16550A serial port",
    .size = sizeof(struct uart16550),
    .state = &state,
    .realize = realize,
    .reset = reset,
    .quiesce = quiesce,
    .resume = resume,
    .fini = fini,
};
DEVICE_CLASS(uart16550_class);
