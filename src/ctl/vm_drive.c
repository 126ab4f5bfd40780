/*
 * QMP commands on optical drives, with the names and shapes of QEMU's QAPI schema
 * (qapi/block.json): eject, blockdev-change-medium, and the event of a tray that moves. On the
 * control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <unistd.h>

#include "ctl/vm_control_internal.h"

void vm_drive_tray_moved(void *opaque, const char *disk, bool open)
{
    struct vm_control *control = opaque;

    qmp_server_event(control->server, "DEVICE_TRAY_MOVED",
                     json_pack("{s:s, s:s, s:b}", "device", disk, "id", disk, "tray-open", open));
}

/* "device" or "id" names it. */
static struct err *find_drive(struct vm_control *control, const json_t *arguments, unsigned *disk)
{
    const char *id;

    TRY(vm_control_text(arguments, "id", &id));
    if (id)
        TRY(vm_disk_find(control->vm, id, disk));
    else
        TRY(vm_control_disk(control, arguments, disk));
    if (!vm_disk_removable(control->vm, *disk))
        return err_new("device '%s' is not removable", vm_disk_config(control->vm, *disk)->id);
    return NULL;
}

/* The guest's lock holds, unless `force`; it is asked to let go. */
static struct err *unlock(struct vm_control *control, const json_t *arguments, unsigned disk)
{
    bool locked, open, force = json_is_true(json_object_get(arguments, "force"));

    vm_disk_tray(control->vm, disk, &locked, &open);
    if (!locked || open || force)
        return NULL;
    vm_disk_request_eject(control->vm, disk);
    return err_of(
        ERR_BUSY,
        "device '%s' is locked and force was not specified, wait for tray to open and try "
        "again",
        vm_disk_config(control->vm, disk)->id);
}

/* Events for what the change does to the tray: it opens, and closes over a disc. */
static void tell_tray(struct vm_control *control, unsigned disk, bool was_open, bool closes)
{
    const char *id = vm_disk_config(control->vm, disk)->id;

    if (!was_open)
        vm_drive_tray_moved(control, id, true);
    if (closes)
        vm_drive_tray_moved(control, id, false);
}

static struct err *set_medium(struct vm_control *control, unsigned disk, int take_fd,
                              const char *format, const char *name)
{
    bool locked, was_open;

    vm_disk_tray(control->vm, disk, &locked, &was_open);
    TRY(err_wrap(vm_disk_set_medium(control->vm, disk, take_fd, format, name), "disk '%s'",
                 vm_disk_config(control->vm, disk)->id));
    tell_tray(control, disk, was_open, take_fd >= 0);
    return NULL;
}

struct err *vm_drive_eject(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    unsigned disk;

    TRY(find_drive(control, arguments, &disk));
    TRY(unlock(control, arguments, disk));
    return set_medium(control, disk, -1, NULL, NULL);
}

struct err *vm_drive_change_medium(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    const char *format, *name;
    unsigned disk;
    int fd;

    TRY(find_drive(control, arguments, &disk));
    TRY(vm_control_text(arguments, "format", &format));
    TRY(vm_control_fd(control, arguments, "filename", &fd));
    struct err *err = unlock(control, arguments, disk);
    if (err) {
        close(fd);
        return err;
    }
    TRY(vm_control_text(arguments, "filename", &name));
    return set_medium(control, disk, fd, format ? format : "raw", name);
}
