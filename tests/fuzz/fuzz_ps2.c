/*
 * libFuzzer target: keyboard controller, keyboard and mouse as a guest reaches them, while keys are
 * pressed, the mouse moves and a terminal types. The input is a run of pairs: what, value.
 *
 * A finding is a crash or a sanitizer's report; an interrupt without a byte; a controller that
 * never runs empty; a state that does not load into itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "display/terminal_input.h"
#include "fuzz_machine.h"
#include "hw/input/i8042.h"

#define PAIRS_MAX 4096
#define BYTES_MAX 256 /* more than all queues hold */

static bool level[2];

static void set_line(void *opaque, unsigned pin, bool on)
{
    level[pin] = on;
}

static void no_power(void *opaque, enum hw_power_event event, unsigned status)
{
}

static const struct hw_env_ops env_ops = {.msi_send = no_msi, .power = no_power};

static void on_stroke(void *opaque, const struct key_stroke *stroke)
{
    for (unsigned i = 0; i < stroke->count; i++)
        i8042_key(opaque, stroke->key[i], true);
    for (unsigned i = 0; i < stroke->count; i++)
        i8042_key(opaque, stroke->key[i], false);
}

static void on_size(void *opaque, unsigned rows, unsigned columns)
{
}

static void step(struct hw_env *env, struct i8042 *kbc, struct terminal_input *terminal,
                 uint8_t what, uint8_t value)
{
    switch (what & 7) {
    case 0:
        io_bus_write(env->pio, 0x60, 1, value);
        break;
    case 1:
        io_bus_write(env->pio, 0x64, 1, value);
        break;
    case 2:
        io_bus_read(env->pio, 0x60, 1);
        break;
    case 3:
        i8042_key(kbc, value, what & 8);
        break;
    case 4:
        i8042_mouse(kbc, (int8_t)value * 99, -(int8_t)value, (int8_t)value, what >> 3);
        break;
    case 5:
        terminal_input_byte(terminal, value);
        break;
    case 6:
        if (what & 8)
            terminal_input_flush(terminal);
        else
            io_bus_write(env->pio, 0x92, 1, value);
        break;
    default: /* a byte for the mouse */
        io_bus_write(env->pio, 0x64, 1, 0xd4);
        io_bus_write(env->pio, 0x60, 1, value);
    }
    if (!(io_bus_read(env->pio, 0x64, 1) & 1) && (level[0] || level[1]))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_machine machine;
    static struct i8042 *kbc;
    struct terminal_input terminal = {.stroke = on_stroke, .size = on_size};
    struct input input = {data, MIN(size, (size_t)2 * PAIRS_MAX)};
    unsigned taken = 0;

    if (!kbc) {
        fuzz_machine_open(&machine);
        machine.env.ops = &env_ops;
        kbc = (struct i8042 *)device_new(&i8042_class, &machine.env, "i8042");
        kbc->keyboard_irq = (struct irq_line){set_line, NULL, 0};
        kbc->mouse_irq = (struct irq_line){set_line, NULL, 1};
        kbc->plugged = true;
        must(device_realize(&kbc->device));
    }
    device_reset(&kbc->device);
    terminal.opaque = kbc;
    while (input.left >= 2) {
        uint8_t what = (uint8_t)take(&input, 1);
        step(&machine.env, kbc, &terminal, what, (uint8_t)take(&input, 1));
    }
    fuzz_save_and_load(&kbc->device);
    for (; io_bus_read(machine.env.pio, 0x64, 1) & 1; taken++) {
        if (taken == BYTES_MAX)
            abort();
        io_bus_read(machine.env.pio, 0x60, 1);
    }
    return 0;
}
