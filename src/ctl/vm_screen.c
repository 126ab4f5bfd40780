/*
 * QMP commands for the screen and the keyboard, with the names and shapes of QEMU's QAPI schema
 * (qapi/ui.json).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "ctl/vm_control_internal.h"
#include "vm/vm_screen.h"

#define HOLD_MS_STANDARD 100
#define HOLD_MS_MAX 10000

static struct err *write_all(int fd, const struct buf *bytes)
{
    for (size_t done = 0; done < bytes->len;) {
        ssize_t n = write(fd, bytes->data + done, bytes->len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_errno(n ? errno : EIO, "screendump: cannot write the picture");
        done += (size_t)n;
    }
    return NULL;
}

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
    TRY(vm_control_fd(control, arguments, "filename", &fd));
    TRY(vm_screen_picture(control->vm, &picture));
    if (format && !strcmp(format, "png"))
        err = picture_png(&picture, &file);
    else
        picture_ppm(&picture, &file);
    picture_fini(&picture);
    if (!err)
        err = write_all(fd, &file);
    buf_fini(&file);
    return err;
}

/* {"type": "qcode", "data": "ret"} or {"type": "number", "data": 28} */
static struct err *read_key(const json_t *value, struct key_stroke *stroke)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    const json_t *data = json_object_get(value, "data");
    uint8_t key = KEY_NONE;

    if (type && !strcmp(type, "qcode") && json_is_string(data)) {
        key = key_find(json_string_value(data));
        if (!key)
            return err_new("send-key: there is no key '%s'", json_string_value(data));
    } else if (type && !strcmp(type, "number") && json_is_integer(data)) {
        json_int_t number = json_integer_value(data);
        if (number < 1 || number > 0xff || number == KEY_EXTENDED)
            return err_new("send-key: there is no key with the number %lld", (long long)number);
        key = (uint8_t)number;
    } else {
        return err_new("send-key: a key is {\"type\": \"qcode\", \"data\": NAME} or "
                       "{\"type\": \"number\", \"data\": NUMBER}");
    }
    if (!key_stroke_add(stroke, key))
        return err_new("send-key: more than %d keys together", KEYS_TOGETHER_MAX);
    return NULL;
}

struct err *vm_screen_send_key(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    const json_t *keys = json_object_get(arguments, "keys");
    struct key_stroke stroke = {0};
    uint64_t hold_ms = 0;

    TRY(vm_control_number(arguments, "hold-time", &hold_ms));
    if (hold_ms > HOLD_MS_MAX)
        return err_new("send-key: a hold-time of more than %d ms", HOLD_MS_MAX);
    if (!json_array_size(keys))
        return err_new("send-key: 'keys' is a list of keys");
    for (size_t i = 0; i < json_array_size(keys); i++)
        TRY(read_key(json_array_get(keys, i), &stroke));
    return vm_screen_keys(control->vm, &stroke, hold_ms ? (unsigned)hold_ms : HOLD_MS_STANDARD);
}
