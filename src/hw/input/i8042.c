/*
 * The i8042 keyboard controller (IBM PS/2 technical reference, keyboard and auxiliary device
 * controller), and port 0x92.
 *
 * One byte at a time lies in the output buffer: the controller's own answers first, then what the
 * keyboard has, then the mouse. A byte for a device that is not there is answered as the part does
 * after waiting in vain: 0xfe with the time-out bit of the status register.
 *
 * Lock: the device's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "hw/chipset/layout.h"
#include "hw/core/env.h"
#include "hw/input/i8042.h"

#define STATUS_OUTPUT_FULL 0x01
#define STATUS_SYSTEM 0x04 /* self test passed */
#define STATUS_COMMAND 0x08
#define STATUS_UNLOCKED 0x10
#define STATUS_MOUSE 0x20
#define STATUS_TIMEOUT 0x40
#define STATUS_OF_BYTE (STATUS_OUTPUT_FULL | STATUS_MOUSE | STATUS_TIMEOUT)

#define CONTROL_KEYBOARD_IRQ 0x01
#define CONTROL_MOUSE_IRQ 0x02
#define CONTROL_SYSTEM 0x04
#define CONTROL_KEYBOARD_OFF 0x10
#define CONTROL_MOUSE_OFF 0x20
#define CONTROL_TRANSLATE 0x40
#define RELEASE_PREFIX 0xf0 /* of scan code set 2 */

#define OUTPUT_NO_RESET 0x01
#define OUTPUT_A20 0x02

#define NO_DEVICE 0xfe

static void irq_update(struct i8042 *kbc)
{
    bool full = kbc->status & STATUS_OUTPUT_FULL, mouse = kbc->status & STATUS_MOUSE;
    irq_set(&kbc->keyboard_irq, full && !mouse && kbc->ram[0] & CONTROL_KEYBOARD_IRQ);
    irq_set(&kbc->mouse_irq, full && mouse && kbc->ram[0] & CONTROL_MOUSE_IRQ);
}

static void output(struct i8042 *kbc, uint8_t byte, uint8_t status)
{
    kbc->data = byte;
    kbc->status |= STATUS_OUTPUT_FULL | status;
    irq_update(kbc);
}

/* In scan code set 1 a release is a bit of the code, in set 2 a byte before it. */
static bool keyboard_byte(struct i8042 *kbc, uint8_t *byte)
{
    while (kbc->keyboard.out.count) {
        *byte = ps2_queue_take(&kbc->keyboard.out);
        if (!(kbc->ram[0] & CONTROL_TRANSLATE))
            return true;
        if (*byte == RELEASE_PREFIX) {
            kbc->released = true;
            continue;
        }
        *byte = ps2_translate(*byte);
        if (kbc->released)
            *byte |= 0x80;
        kbc->released = false;
        return true;
    }
    return false;
}

/* The next byte into the output buffer, when that is free. */
static void fill(struct i8042 *kbc)
{
    uint8_t byte;

    if (kbc->status & STATUS_OUTPUT_FULL)
        return;
    if (kbc->queue_len) {
        uint8_t next = kbc->queue[0], status = kbc->queue_status[0];
        kbc->queue_len--;
        memmove(kbc->queue, kbc->queue + 1, kbc->queue_len);
        memmove(kbc->queue_status, kbc->queue_status + 1, kbc->queue_len);
        output(kbc, next, status);
    } else if (!(kbc->ram[0] & CONTROL_KEYBOARD_OFF) && keyboard_byte(kbc, &byte)) {
        output(kbc, byte, 0);
    } else if (!(kbc->ram[0] & CONTROL_MOUSE_OFF)) {
        ps2_mouse_report(&kbc->mouse);
        if (kbc->mouse.out.count)
            output(kbc, ps2_queue_take(&kbc->mouse.out), STATUS_MOUSE);
    }
}

static void answer(struct i8042 *kbc, uint8_t byte, uint8_t status)
{
    if (kbc->queue_len < sizeof(kbc->queue)) {
        kbc->queue[kbc->queue_len] = byte;
        kbc->queue_status[kbc->queue_len++] = status;
    }
    fill(kbc);
}

static uint8_t data_take(struct i8042 *kbc)
{
    uint8_t byte = kbc->data;
    kbc->status &= (uint8_t)~STATUS_OF_BYTE;
    irq_update(kbc);
    fill(kbc);
    return byte;
}

static void machine_reset(struct i8042 *kbc)
{
    struct hw_env *env = kbc->device.env;
    env->ops->power(env->opaque, HW_POWER_RESET, 0);
}

static void output_port_write(struct i8042 *kbc, uint8_t value)
{
    kbc->output_port = value | OUTPUT_NO_RESET;
    if (!(value & OUTPUT_NO_RESET))
        machine_reset(kbc);
}

static void command(struct i8042 *kbc, uint8_t value)
{
    kbc->command = 0;
    if (value >= 0x20 && value < 0x40) {
        answer(kbc, kbc->ram[value & 31], 0);
        return;
    }
    if (value >= 0xf0) { /* pulses the output lines whose bits are clear */
        if (!(value & OUTPUT_NO_RESET))
            machine_reset(kbc);
        return;
    }
    if (value >= 0x60 && value < 0x80) {
        kbc->command = value;
        return;
    }
    switch (value) {
    case 0xa7:
        kbc->ram[0] |= CONTROL_MOUSE_OFF;
        break;
    case 0xa8:
        kbc->ram[0] &= (uint8_t)~CONTROL_MOUSE_OFF;
        break;
    case 0xa9: /* tests of the two ports' wires */
    case 0xab:
        answer(kbc, 0x00, 0);
        break;
    case 0xaa: /* self test */
        kbc->status |= STATUS_SYSTEM;
        answer(kbc, 0x55, 0);
        break;
    case 0xad:
        kbc->ram[0] |= CONTROL_KEYBOARD_OFF;
        break;
    case 0xae:
        kbc->ram[0] &= (uint8_t)~CONTROL_KEYBOARD_OFF;
        break;
    case 0xc0: /* input port: keyboard not locked */
        answer(kbc, 0x80, 0);
        break;
    case 0xd0:
        answer(kbc, kbc->output_port, 0);
        break;
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xd4:
        kbc->command = value;
        break;
    case 0xe0: /* test inputs */
        answer(kbc, 0x00, 0);
        break;
    }
}

static void data_write(struct i8042 *kbc, uint8_t value)
{
    uint8_t waiting = kbc->command;
    kbc->command = 0;
    if (waiting >= 0x60 && waiting < 0x80) {
        kbc->ram[waiting & 31] = value;
        if (waiting == 0x60) {
            kbc->status = (uint8_t)((kbc->status & ~STATUS_SYSTEM) |
                                    (value & CONTROL_SYSTEM ? STATUS_SYSTEM : 0));
            irq_update(kbc);
        }
        return;
    }
    switch (waiting) {
    case 0xd1:
        output_port_write(kbc, value);
        break;
    case 0xd2: /* as if the keyboard had sent it */
        answer(kbc, value, 0);
        break;
    case 0xd3:
        answer(kbc, value, STATUS_MOUSE);
        break;
    case 0xd4:
        if (kbc->plugged)
            ps2_mouse_write(&kbc->mouse, value);
        else
            answer(kbc, NO_DEVICE, STATUS_MOUSE | STATUS_TIMEOUT);
        break;
    default: /* for the keyboard; sending also switches its port on */
        kbc->ram[0] &= (uint8_t)~CONTROL_KEYBOARD_OFF;
        if (kbc->plugged)
            ps2_keyboard_write(&kbc->keyboard, value);
        else
            answer(kbc, NO_DEVICE, STATUS_TIMEOUT);
    }
}

static uint64_t data_port_read(void *opaque, uint64_t offset, unsigned size)
{
    return data_take(opaque);
}

static void data_port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *kbc = opaque;
    kbc->status &= (uint8_t)~STATUS_COMMAND;
    data_write(kbc, (uint8_t)value);
    fill(kbc); /* a device has answered, or its port is on again */
}

static uint64_t command_port_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct i8042 *kbc = opaque;
    return kbc->status | STATUS_UNLOCKED;
}

static void command_port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *kbc = opaque;
    kbc->status |= STATUS_COMMAND;
    command(kbc, (uint8_t)value);
    fill(kbc);
}

static uint64_t port92_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct i8042 *kbc = opaque;
    return kbc->output_port & OUTPUT_A20;
}

static void port92_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *kbc = opaque;
    kbc->output_port = (uint8_t)((kbc->output_port & ~OUTPUT_A20) | (value & OUTPUT_A20));
    if (value & 1)
        machine_reset(kbc);
}

void i8042_key(struct i8042 *kbc, uint8_t key, bool down)
{
    lock_take(&kbc->device.lock);
    if (kbc->plugged)
        ps2_keyboard_key(&kbc->keyboard, key, down);
    fill(kbc);
    lock_drop(&kbc->device.lock);
}

void i8042_mouse(struct i8042 *kbc, int x, int y, int wheel, uint8_t buttons)
{
    lock_take(&kbc->device.lock);
    if (kbc->plugged)
        ps2_mouse_event(&kbc->mouse, x, y, wheel, buttons);
    fill(kbc);
    lock_drop(&kbc->device.lock);
}

static const struct io_ops data_ops = {data_port_read, data_port_write};
static const struct io_ops command_ops = {command_port_read, command_port_write};
static const struct io_ops port92_ops = {port92_read, port92_write};

static void map(struct i8042 *kbc, struct io_region *region, const struct io_ops *ops,
                uint16_t port)
{
    *region = (struct io_region){
        .name = "i8042", .size = 1, .ops = ops, .opaque = kbc, .lock = &kbc->device.lock};
    io_bus_add(kbc->device.env->pio, region, port);
}

static struct err *realize(struct device *device)
{
    struct i8042 *kbc = (struct i8042 *)device;
    map(kbc, &kbc->data_region, &data_ops, LAYOUT_PORT_I8042_DATA);
    map(kbc, &kbc->command_region, &command_ops, LAYOUT_PORT_I8042_COMMAND);
    map(kbc, &kbc->port92_region, &port92_ops, LAYOUT_PORT_PORT92);
    return NULL;
}

static void reset(struct device *device)
{
    struct i8042 *kbc = (struct i8042 *)device;
    lock_take(&device->lock);
    memset(kbc->ram, 0, sizeof(kbc->ram));
    kbc->ram[0] = CONTROL_KEYBOARD_IRQ | CONTROL_SYSTEM | CONTROL_MOUSE_OFF;
    kbc->status = STATUS_SYSTEM;
    kbc->data = kbc->command = kbc->queue_len = 0;
    kbc->output_port = OUTPUT_NO_RESET | OUTPUT_A20;
    kbc->released = false;
    ps2_keyboard_reset(&kbc->keyboard);
    ps2_mouse_reset(&kbc->mouse);
    if (kbc->plugged) /* as a BIOS leaves it, for kernels that are started without one */
        kbc->ram[0] |= CONTROL_TRANSLATE;
    irq_update(kbc);
    lock_drop(&device->lock);
}

static void fini(struct device *device)
{
    struct i8042 *kbc = (struct i8042 *)device;
    io_bus_remove(&kbc->data_region);
    io_bus_remove(&kbc->command_region);
    io_bus_remove(&kbc->port92_region);
}

static struct err *check(const void *staged)
{
    const struct i8042 *kbc = staged;
    return kbc->queue_len > sizeof(kbc->queue) ? err_new("too many bytes wait") : NULL;
}

static const struct state_field fields[] = {
    STATE_BYTES(1, i8042, ram),
    STATE_U8(2, i8042, status),
    STATE_U8(3, i8042, data),
    STATE_U8(4, i8042, command),
    STATE_U8(5, i8042, output_port),
    STATE_BYTES(6, i8042, queue),
    STATE_BYTES(7, i8042, queue_status),
    STATE_U8(8, i8042, queue_len),
    STATE_BOOL(9, i8042, released),
    STATE_STRUCT(10, i8042, keyboard, &ps2_keyboard_state),
    STATE_STRUCT(11, i8042, mouse, &ps2_mouse_state),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("i8042", i8042, fields),
    .check = check,
};

const struct device_class i8042_class = {
    .name = "i8042",
    .description = "keyboard controller with keyboard and mouse",
    .size = sizeof(struct i8042),
    .state = &state,
    .realize = realize,
    .reset = reset,
    .fini = fini,
};
DEVICE_CLASS(i8042_class);
