/*
 * The PS/2 mouse (IBM PS/2 hardware technical reference, mouse), with the wheel and the two further
 * buttons of the IntelliMouse and its Explorer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/input/ps2_mouse.h"

#define RATE_STANDARD 100
#define RESOLUTION_STANDARD 2
#define MOVE_MAX 255
#define WHEEL_MAX 7
#define PENDING_MAX 4096 /* movement beyond is lost */
#define PENDING_WHEEL_MAX 32
#define TYPE_WHEEL 3
#define TYPE_EXPLORER 4
#define BUTTONS_3 (MOUSE_LEFT | MOUSE_RIGHT | MOUSE_MIDDLE)

static void standard(struct ps2_mouse *mouse)
{
    mouse->rates[0] = RATE_STANDARD;
    mouse->resolution = RESOLUTION_STANDARD;
    mouse->remote = mouse->wrap = mouse->reporting = mouse->scaling = false;
    mouse->x = mouse->y = mouse->wheel = 0;
    mouse->command = 0;
}

void ps2_mouse_reset(struct ps2_mouse *mouse)
{
    memset(mouse, 0, sizeof(*mouse));
    standard(mouse);
}

static int32_t clamp(int32_t value, int32_t limit)
{
    return value > limit ? limit : value < -limit ? -limit : value;
}

/* As much movement as one packet holds; the rest stays. */
static void put_packet(struct ps2_mouse *mouse)
{
    int32_t x = clamp(mouse->x, MOVE_MAX), y = clamp(mouse->y, MOVE_MAX);
    int32_t wheel = clamp(mouse->wheel, WHEEL_MAX);
    uint8_t bytes[4] = {0x08, (uint8_t)x, (uint8_t)y, (uint8_t)wheel};

    bytes[0] |= (uint8_t)((mouse->buttons & BUTTONS_3) | (x < 0) << 4 | (y < 0) << 5);
    if (mouse->type == TYPE_EXPLORER)
        bytes[3] = (uint8_t)((wheel & 0x0f) | (mouse->buttons & (MOUSE_SIDE | MOUSE_EXTRA)) << 1);
    mouse->x -= x;
    mouse->y -= y;
    mouse->wheel = mouse->type ? mouse->wheel - wheel : 0;
    mouse->reported = mouse->buttons;
    ps2_queue_put(&mouse->out, bytes, mouse->type ? 4 : 3);
}

void ps2_mouse_report(struct ps2_mouse *mouse)
{
    bool news = mouse->x || mouse->y || mouse->wheel || mouse->buttons != mouse->reported;

    if (news && mouse->reporting && !mouse->remote && !mouse->out.count)
        put_packet(mouse);
}

void ps2_mouse_event(struct ps2_mouse *mouse, int x, int y, int wheel, uint8_t buttons)
{
    if (!mouse->reporting && !mouse->remote)
        return;
    mouse->x = clamp(mouse->x + clamp(x, PENDING_MAX), PENDING_MAX);
    mouse->y = clamp(mouse->y - clamp(y, PENDING_MAX), PENDING_MAX);
    mouse->wheel = clamp(mouse->wheel + clamp(wheel, PENDING_WHEEL_MAX), PENDING_WHEEL_MAX);
    mouse->buttons = buttons & 0x1f;
}

static void set_rate(struct ps2_mouse *mouse, uint8_t rate)
{
    memmove(mouse->rates + 1, mouse->rates, 2);
    mouse->rates[0] = rate;
    if (mouse->rates[2] == 200 && mouse->rates[1] == 100 && rate == 80 && !mouse->type)
        mouse->type = TYPE_WHEEL;
    else if (mouse->rates[2] == 200 && mouse->rates[1] == 200 && rate == 80 &&
             mouse->type == TYPE_WHEEL)
        mouse->type = TYPE_EXPLORER;
}

static void answer_status(struct ps2_mouse *mouse)
{
    uint8_t bytes[4] = {PS2_ACK, 0, mouse->resolution, mouse->rates[0]};

    bytes[1] = (uint8_t)(mouse->remote << 6 | mouse->reporting << 5 | mouse->scaling << 4 |
                         (mouse->buttons & MOUSE_LEFT) << 2 | (mouse->buttons & MOUSE_MIDDLE) >> 1 |
                         (mouse->buttons & MOUSE_RIGHT) >> 1);
    ps2_queue_answer(&mouse->out, bytes, sizeof(bytes));
}

/* A command without an answer of its own; false: there is no such. */
static bool simple_command(struct ps2_mouse *mouse, uint8_t byte)
{
    switch (byte) {
    case 0xe6:
    case 0xe7:
        mouse->scaling = byte & 1;
        return true;
    case 0xe8: /* resolution */
    case 0xf3: /* rate */
        mouse->command = byte;
        return true;
    case 0xea: /* stream */
        mouse->remote = false;
        return true;
    case 0xec: /* out of wrap mode, where all else is sent back */
    case 0xee:
        mouse->wrap = byte == 0xee;
        return true;
    case 0xf0:
        mouse->remote = true;
        return true;
    case 0xf4:
    case 0xf5:
        mouse->reporting = byte == 0xf4;
        return true;
    case 0xf6:
        standard(mouse);
        return true;
    }
    return false;
}

static void parameter(struct ps2_mouse *mouse, uint8_t byte)
{
    if (mouse->command == 0xe8)
        mouse->resolution = byte & 3;
    else
        set_rate(mouse, byte);
    mouse->command = 0;
}

void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t byte)
{
    uint8_t bytes[3] = {PS2_ACK, mouse->type, 0};
    const uint8_t again = mouse->out.last;

    if (mouse->wrap && byte != 0xff && byte != 0xec) {
        ps2_queue_answer(&mouse->out, &byte, 1);
        return;
    }
    if (mouse->command) {
        parameter(mouse, byte);
        ps2_queue_answer(&mouse->out, bytes, 1);
        return;
    }
    switch (byte) {
    case 0xe9:
        answer_status(mouse);
        return;
    case 0xeb: /* a packet, now */
        ps2_queue_answer(&mouse->out, bytes, 1);
        put_packet(mouse);
        return;
    case 0xf2:
        ps2_queue_answer(&mouse->out, bytes, 2);
        return;
    case 0xfe:
        ps2_queue_answer(&mouse->out, &again, 1);
        return;
    case 0xff:
        ps2_mouse_reset(mouse);
        ps2_queue_answer(&mouse->out, (const uint8_t[]){PS2_ACK, PS2_SELF_TEST_OK, 0}, 3);
        return;
    }
    if (!simple_command(mouse, byte))
        bytes[0] = PS2_RESEND;
    ps2_queue_answer(&mouse->out, bytes, 1);
}

static struct err *check(const void *staged)
{
    const struct ps2_mouse *mouse = staged;

    if (mouse->type && mouse->type != TYPE_WHEEL && mouse->type != TYPE_EXPLORER)
        return err_new("a mouse of type %u", mouse->type);
    if (clamp(mouse->x, PENDING_MAX) != mouse->x || clamp(mouse->y, PENDING_MAX) != mouse->y ||
        clamp(mouse->wheel, PENDING_WHEEL_MAX) != mouse->wheel)
        return err_new("a movement is out of range");
    return NULL;
}

static const struct state_field fields[] = {
    STATE_STRUCT(1, ps2_mouse, out, &ps2_queue_state),
    STATE_U8(2, ps2_mouse, type),
    STATE_U8(3, ps2_mouse, command),
    STATE_BYTES(4, ps2_mouse, rates),
    STATE_U8(5, ps2_mouse, resolution),
    STATE_BOOL(6, ps2_mouse, remote),
    STATE_BOOL(7, ps2_mouse, wrap),
    STATE_BOOL(8, ps2_mouse, reporting),
    STATE_BOOL(9, ps2_mouse, scaling),
    STATE_U8(10, ps2_mouse, buttons),
    STATE_U8(11, ps2_mouse, reported),
    STATE_U32(12, ps2_mouse, x),
    STATE_U32(13, ps2_mouse, y),
    STATE_U32(14, ps2_mouse, wheel),
};

const struct state_table ps2_mouse_state = {
    DEVICE_STATE_TABLE("ps2-mouse", ps2_mouse, fields),
    .check = check,
};
