/*
 * The PS/2 keyboard (IBM PS/2 hardware technical reference, keyboard): commands, scan code sets 1
 * and 2.
 *
 * Set 2 is the keyboard's own; set 1 is what it looks like behind the controller's translation, so
 * one table serves both.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/input/ps2_keyboard.h"
#include "display/keys.h"

#define BREAK 0xf0
#define LEDS_STANDARD 0
#define TYPEMATIC_STANDARD 0x2b

/* Set 2 to set 1. */
static const uint8_t translation[0x80] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54};

#define SET_2_F7 0x83
#define SET_2_SYSRQ 0x84

uint8_t ps2_translate(uint8_t byte)
{
    if (byte == SET_2_F7)
        return 0x41;
    if (byte == SET_2_SYSRQ)
        return 0x54;
    return byte < sizeof(translation) ? translation[byte] : byte;
}

static uint8_t to_set_2(uint8_t code)
{
    if (code == 0x41)
        return SET_2_F7;
    if (code == 0x54)
        return SET_2_SYSRQ;
    for (unsigned i = 0; i < sizeof(translation); i++) {
        if (translation[i] == code)
            return (uint8_t)i;
    }
    return 0;
}

/* Appends one code; `code` is of set 1, with KEY_EXTENDED. */
static unsigned encode(const struct ps2_keyboard *keyboard, uint8_t code, bool down, uint8_t *bytes)
{
    unsigned n = 0;

    if (code & KEY_EXTENDED)
        bytes[n++] = 0xe0;
    code &= (uint8_t)~KEY_EXTENDED;
    if (keyboard->set == 1) {
        bytes[n++] = down ? code : code | 0x80;
        return n;
    }
    if (!down)
        bytes[n++] = BREAK;
    bytes[n++] = to_set_2(code);
    return n;
}

/* Pause has no release, and is a sequence of its own. */
static void send_pause(struct ps2_keyboard *keyboard)
{
    static const uint8_t set_1[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    static const uint8_t set_2[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};

    if (keyboard->set == 1)
        ps2_queue_put(&keyboard->out, set_1, sizeof(set_1));
    else
        ps2_queue_put(&keyboard->out, set_2, sizeof(set_2));
}

void ps2_keyboard_key(struct ps2_keyboard *keyboard, uint8_t key, bool down)
{
    uint8_t bytes[6];
    unsigned n = 0;

    if (!keyboard->scanning || !(key & ~KEY_EXTENDED))
        return;
    if (key == KEY_PAUSE) {
        if (down)
            send_pause(keyboard);
        return;
    }
    if (key == KEY_PRINT && down)
        n += encode(keyboard, KEY_SHIFT | KEY_EXTENDED, true, bytes);
    n += encode(keyboard, key, down, bytes + n);
    if (key == KEY_PRINT && !down)
        n += encode(keyboard, KEY_SHIFT | KEY_EXTENDED, false, bytes + n);
    ps2_queue_put(&keyboard->out, bytes, n);
}

static void standard(struct ps2_keyboard *keyboard)
{
    keyboard->set = 2;
    keyboard->command = 0;
    keyboard->typematic = TYPEMATIC_STANDARD;
    keyboard->scanning = true;
}

void ps2_keyboard_reset(struct ps2_keyboard *keyboard)
{
    memset(keyboard, 0, sizeof(*keyboard));
    standard(keyboard);
}

static void parameter(struct ps2_keyboard *keyboard, uint8_t byte)
{
    uint8_t set[2] = {PS2_ACK, keyboard->set};
    uint8_t command = keyboard->command;

    keyboard->command = 0;
    if (command == 0xf0 && !byte) {
        ps2_queue_answer(&keyboard->out, set, 2);
        return;
    }
    if (command == 0xed)
        keyboard->leds = byte & 7;
    else if (command == 0xf3)
        keyboard->typematic = byte & 0x7f;
    else if (byte == 1 || byte == 2)
        keyboard->set = byte;
    else /* set 3 is none of ours */
        set[0] = PS2_RESEND;
    ps2_queue_answer(&keyboard->out, set, 1);
}

void ps2_keyboard_write(struct ps2_keyboard *keyboard, uint8_t byte)
{
    static const uint8_t ack[] = {PS2_ACK, PS2_SELF_TEST_OK}, id[] = {PS2_ACK, 0xab, 0x83};
    const uint8_t again = keyboard->out.last;

    if (keyboard->command && byte < 0xe0) {
        parameter(keyboard, byte);
        return;
    }
    keyboard->command = 0;
    switch (byte) {
    case 0xee: /* echo */
        ps2_queue_answer(&keyboard->out, &byte, 1);
        return;
    case 0xf2:
        ps2_queue_answer(&keyboard->out, id, sizeof(id));
        return;
    case 0xfe:
        ps2_queue_answer(&keyboard->out, &again, 1);
        return;
    case 0xff:
        ps2_keyboard_reset(keyboard);
        ps2_queue_answer(&keyboard->out, ack, 2);
        return;
    case 0xed: /* LEDs */
    case 0xf0: /* scan code set */
    case 0xf3: /* typematic rate */
        keyboard->command = byte;
        break;
    case 0xf4:
        keyboard->scanning = true;
        break;
    case 0xf5:
        standard(keyboard);
        keyboard->scanning = false;
        break;
    case 0xf6:
        standard(keyboard);
        break;
    case 0xf7: /* typematic, make and break for all keys: of set 3 */
    case 0xf8:
    case 0xf9:
    case 0xfa:
        break;
    default:
        ps2_queue_answer(&keyboard->out, (const uint8_t[]){PS2_RESEND}, 1);
        return;
    }
    ps2_queue_answer(&keyboard->out, ack, 1);
}

static struct err *queue_check(const void *staged)
{
    const struct ps2_queue *queue = staged;

    return queue->count > sizeof(queue->bytes) ? err_new("too many bytes wait") : NULL;
}

static const struct state_field queue_fields[] = {
    STATE_BYTES(1, ps2_queue, bytes),
    STATE_U8(2, ps2_queue, count),
    STATE_U8(3, ps2_queue, last),
};

const struct state_table ps2_queue_state = {
    DEVICE_STATE_TABLE("ps2-queue", ps2_queue, queue_fields),
    .check = queue_check,
};

static struct err *check(const void *staged)
{
    const struct ps2_keyboard *keyboard = staged;

    return keyboard->set != 1 && keyboard->set != 2 ? err_new("scan code set %u", keyboard->set)
                                                    : NULL;
}

static const struct state_field fields[] = {
    STATE_STRUCT(1, ps2_keyboard, out, &ps2_queue_state),
    STATE_U8(2, ps2_keyboard, set),
    STATE_U8(3, ps2_keyboard, command),
    STATE_U8(4, ps2_keyboard, leds),
    STATE_U8(5, ps2_keyboard, typematic),
    STATE_BOOL(6, ps2_keyboard, scanning),
};

const struct state_table ps2_keyboard_state = {
    DEVICE_STATE_TABLE("ps2-keyboard", ps2_keyboard, fields),
    .check = check,
};
