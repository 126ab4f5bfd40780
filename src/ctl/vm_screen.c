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
