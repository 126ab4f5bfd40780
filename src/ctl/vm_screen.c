/*
 * QMP commands for the screen and the keyboard, with the names and shapes of QEMU's QAPI schema
 * (qapi/ui.json).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "ctl/screen_share.h"
#include "ctl/vm_control_internal.h"
#include "vm/vm_screen.h"

#define HOLD_MS_STANDARD 100
#define HOLD_MS_MAX 10000
#define EVENTS_MAX 64

struct err *vm_screen_dump(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    const char *format = NULL;
    scoped(fd_cleanup) int fd = -1;
    struct picture picture;
    struct buf file = BUF_INIT;
    struct err *err = NULL;

    TRY(vm_control_text(arguments, "format", &format));
    if (format && strcmp(format, "ppm") && strcmp(format, "png"))
        return err_new("screendump: the formats are ppm and png, not '%s'", format);
    TRY(vm_control_output(control, arguments, &fd));
    TRY(vm_screen_picture(control->vm, &picture));
    if (format && !strcmp(format, "png"))
        err = picture_png(&picture, &file);
    else
        picture_ppm(&picture, &file);
    picture_fini(&picture);
    if (!err)
        err = vm_control_write(fd, file.data, file.len);
    buf_fini(&file);
    return err;
}

/* {"type": "qcode", "data": "ret"} or {"type": "number", "data": 28} */
static struct err *read_key(const json_t *value, uint8_t *key)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    const json_t *data = json_object_get(value, "data");

    if (type && !strcmp(type, "qcode") && json_is_string(data)) {
        *key = key_find(json_string_value(data));
        return *key ? NULL : err_new("there is no key '%s'", json_string_value(data));
    }
    if (type && !strcmp(type, "number") && json_is_integer(data)) {
        json_int_t number = json_integer_value(data);
        *key = (uint8_t)number;
        if (number >= 1 && number <= 0xff && number != KEY_EXTENDED)
            return NULL;
        return err_new("there is no key with the number %lld", (long long)number);
    }
    return err_new("a key is {\"type\": \"qcode\", \"data\": NAME} or "
                   "{\"type\": \"number\", \"data\": NUMBER}");
}

static struct err *read_stroke(const json_t *keys, struct key_stroke *stroke)
{
    if (!json_array_size(keys))
        return err_new("'keys' is a list of keys");
    for (size_t i = 0; i < json_array_size(keys); i++) {
        uint8_t key;
        TRY(read_key(json_array_get(keys, i), &key));
        if (!key_stroke_add(stroke, key))
            return err_new("more than %d keys together", KEYS_TOGETHER_MAX);
    }
    return NULL;
}

struct err *vm_screen_send_key(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    struct key_stroke stroke = {0};
    uint64_t hold_ms = 0;

    TRY(vm_control_number(arguments, "hold-time", &hold_ms));
    if (hold_ms > HOLD_MS_MAX)
        return err_new("send-key: a hold-time of more than %d ms", HOLD_MS_MAX);
    TRY(err_wrap(read_stroke(json_object_get(arguments, "keys"), &stroke), "send-key"));
    return vm_screen_keys(control->vm, &stroke, hold_ms ? (unsigned)hold_ms : HOLD_MS_STANDARD);
}

static struct err *read_button(const json_t *data, struct vm_input *input)
{
    static const struct {
        const char *name;
        uint8_t button;
        int wheel;
    } buttons[] = {{"left", MOUSE_LEFT, 0}, {"right", MOUSE_RIGHT, 0}, {"middle", MOUSE_MIDDLE, 0},
                   {"side", MOUSE_SIDE, 0}, {"extra", MOUSE_EXTRA, 0}, {"wheel-up", 0, -1},
                   {"wheel-down", 0, 1}};
    const char *name = json_string_value(json_object_get(data, "button"));

    for (size_t i = 0; name && i < ARRAY_SIZE(buttons); i++) {
        if (strcmp(name, buttons[i].name))
            continue;
        input->buttons = buttons[i].button;
        input->wheel = input->down ? buttons[i].wheel : 0;
        return NULL;
    }
    return err_new("there is no button '%s'", name ? name : "?");
}

/* By a distance, or with `absolute` to a place from 0 to 0x7fff. */
static struct err *read_movement(const json_t *data, bool absolute, struct vm_input *input)
{
    const char *axis = json_string_value(json_object_get(data, "axis"));
    json_int_t value = json_integer_value(json_object_get(data, "value"));

    if (!axis || (strcmp(axis, "x") && strcmp(axis, "y")) || value < (absolute ? 0 : INT16_MIN) ||
        value > INT16_MAX)
        return err_new("a movement is {\"axis\": \"x\" or \"y\", \"value\": %s}",
                       absolute ? "0 to 32767" : "DOTS");
    input->absolute = absolute;
    if (absolute)
        input->x = input->y = -1;
    *(*axis == 'x' ? &input->x : &input->y) = (int)value;
    return NULL;
}

/* QAPI's InputEvent, but for touch screens, which this machine lacks. */
static struct err *read_event(const json_t *event, struct vm_input *input)
{
    const char *type = json_string_value(json_object_get(event, "type"));
    const json_t *data = json_object_get(event, "data");

    input->down = json_is_true(json_object_get(data, "down"));
    if (type && !strcmp(type, "key"))
        return read_key(json_object_get(data, "key"), &input->key);
    if (type && !strcmp(type, "btn"))
        return read_button(data, input);
    if (type && (!strcmp(type, "rel") || !strcmp(type, "abs")))
        return read_movement(data, *type == 'a', input);
    return err_new("the types of events are key, btn, rel and abs, not '%s'", type ? type : "?");
}

/* All events are read before the first happens. */
struct err *vm_screen_send_event(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    const json_t *events = json_object_get(arguments, "events");
    struct vm_input input[EVENTS_MAX] = {0};
    size_t count = json_array_size(events);

    if (!count || count > EVENTS_MAX)
        return err_new("input-send-event: 'events' is a list of 1 to %d events", EVENTS_MAX);
    for (size_t i = 0; i < count; i++)
        TRY(err_wrap(read_event(json_array_get(events, i), &input[i]), "input-send-event"));
    for (size_t i = 0; i < count; i++)
        TRY(vm_screen_input(control->vm, &input[i]));
    return NULL;
}

/* The socket to the viewer comes along with the command. */
struct err *vm_screen_share(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    int fd = qmp_server_take_fd(control->server);

    if (fd < 0)
        return err_new("no socket came along with tenon-screen-share (SCM_RIGHTS)");
    return screen_share_new(control->loop, control->vm, &control->screen_shares, fd);
}
