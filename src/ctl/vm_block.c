/*
 * QMP commands on disks: what they are, their size, a layer on top; and the descriptors that
 * clients hand over for that. Names and shapes are those of QEMU's QAPI schema (qapi/block.json,
 * qapi/block-core.json, qapi/misc.json), of which this is a part. All on the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/vm_control_internal.h"

#define FDSET_PREFIX "/dev/fdset/"

/* --- arguments --- */

struct err *vm_control_text(const json_t *arguments, const char *name, const char **text)
{
    const json_t *value = json_object_get(arguments, name);

    *text = json_string_value(value);
    return value && !*text ? err_new("'%s' is a text", name) : NULL;
}

struct err *vm_control_number(const json_t *arguments, const char *name, uint64_t *number)
{
    const json_t *value = json_object_get(arguments, name);

    *number = 0;
    if (value && (!json_is_integer(value) || json_integer_value(value) < 0))
        return err_new("'%s' is a number from 0 on", name);
    *number = (uint64_t)json_integer_value(value);
    return NULL;
}

struct err *vm_control_disk(struct vm_control *control, const json_t *arguments, unsigned *disk)
{
    const char *device;

    TRY(vm_control_text(arguments, "device", &device));
    if (!device)
        TRY(vm_control_text(arguments, "node", &device));
    if (!device)
        return err_new("'device' is missing: the id of a disk");
    return vm_disk_find(control->vm, device, disk);
}

/* The set with this number; NULL: none. */
static struct vm_fdset *find_fdset(struct vm_control *control, json_int_t id)
{
    for (unsigned i = 0; i < control->fdset_count; i++) {
        if (control->fdset[i].id == id)
            return &control->fdset[i];
    }
    return NULL;
}

struct err *vm_control_fd(struct vm_control *control, const json_t *arguments, const char *name,
                          int *fd)
{
    const char *text;
    char own[32];

    TRY(vm_control_text(arguments, name, &text));
    if (!text || strncmp(text, FDSET_PREFIX, strlen(FDSET_PREFIX)))
        return err_new("'%s' is " FDSET_PREFIX "ID: this VM opens nothing, hand the file over "
                       "with add-fd first",
                       name);
    for (unsigned i = 0; i < control->fdset_count; i++) {
        snprintf(own, sizeof(own), FDSET_PREFIX "%lld", (long long)control->fdset[i].id);
        if (strcmp(text, own))
            continue;
        *fd = fcntl(control->fdset[i].fd, F_DUPFD_CLOEXEC, 3);
        return *fd < 0 ? err_new("too many open files") : NULL;
    }
    return err_new("there is no '%s'", text);
}

/* --- output of a command --- */

struct err *vm_control_output(struct vm_control *control, const json_t *arguments, int *fd)
{
    struct stat status;

    TRY(vm_control_fd(control, arguments, "filename", fd));
    if (fstat(*fd, &status) == 0 && S_ISREG(status.st_mode))
        return NULL;
    close(*fd);
    *fd = -1;
    return err_new("'filename' is no regular file: nothing may keep this VM waiting");
}

struct err *vm_control_write(int fd, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;

    while (len) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_errno(n ? errno : EIO, "cannot write the file that was handed over");
        at += n;
        len -= (size_t)n;
    }
    return NULL;
}

/* --- descriptors --- */

struct err *vm_block_add_fd(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    const json_t *wanted = json_object_get(arguments, "fdset-id");
    json_int_t id = json_integer_value(wanted);
    int fd = qmp_server_take_fd(control->server);

    if (fd < 0)
        return err_new("no file descriptor came along with add-fd (SCM_RIGHTS)");
    if (control->fdset_count == VM_CONTROL_FDSETS_MAX || id < 0 ||
        (wanted && (!json_is_integer(wanted) || find_fdset(control, id)))) {
        close(fd);
        return err_new("fdset-id is taken or wrong, or there are %d already",
                       VM_CONTROL_FDSETS_MAX);
    }
    while (find_fdset(control, id))
        id++;
    control->fdset[control->fdset_count++] = (struct vm_fdset){id, fd};
    *result = json_pack("{s:I, s:i}", "fdset-id", id, "fd", fd);
    return NULL;
}

struct err *vm_block_remove_fd(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    const json_t *id = json_object_get(arguments, "fdset-id");
    struct vm_fdset *set = find_fdset(control, json_integer_value(id));

    if (!json_is_integer(id))
        return err_new("'fdset-id' is the number of a file descriptor set");
    if (!set)
        return err_new("there is no file descriptor set %lld", (long long)json_integer_value(id));
    close(set->fd);
    *set = control->fdset[--control->fdset_count];
    return NULL;
}

void vm_block_fini(struct vm_control *control)
{
    while (control->fdset_count)
        close(control->fdset[--control->fdset_count].fd);
    vm_blockdev_fini(control);
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        free(control->job_id[i]);
}

/* --- disks --- */

static const char *node_format(const struct image *node)
{
    return node ? image_driver_name(image_driver(node)) : "raw";
}

static json_t *describe_drive(struct vm_control *control, unsigned disk, json_t *take_inserted)
{
    const char *id = vm_disk_config(control->vm, disk)->id;
    bool removable = vm_disk_removable(control->vm, disk), locked = false, open = false;

    if (removable)
        vm_disk_tray(control->vm, disk, &locked, &open);
    json_t *drive = json_pack("{s:s, s:s, s:b, s:b, s:s}", "device", id, "qdev", id, "locked",
                              locked, "removable", removable, "type", "unknown");
    if (removable)
        json_object_set_new(drive, "tray_open", json_boolean(open));
    if (take_inserted)
        json_object_set_new(drive, "inserted", take_inserted);
    return drive;
}

static json_t *describe(struct vm_control *control, unsigned disk)
{
    const struct vm_disk *config = vm_disk_config(control->vm, disk);
    const struct block *block = vm_disk_block(control->vm, disk);
    struct image *node = block_node(block);
    struct block_info info;
    int depth = 0;

    if (!config->path) /* an empty drive */
        return describe_drive(control, disk, NULL);
    block_get_info(block, &info);
    for (struct image *at = node; at && image_backing(at); at = image_backing(at))
        depth++;
    json_t *image = json_pack("{s:s, s:s, s:I}", "filename", config->path, "format",
                              node_format(node), "virtual-size", (json_int_t)info.size);
    json_t *inserted =
        json_pack("{s:s, s:s, s:b, s:b, s:s, s:i, s:o}", "file", config->path, "node-name",
                  config->id, "ro", info.readonly, "encrypted", 0, "drv", node_format(node),
                  "backing_file_depth", depth, "image", image);
    if (node && image_bitmap_count(node))
        json_object_set_new(inserted, "dirty-bitmaps", vm_block_bitmaps(node));
    return describe_drive(control, disk, inserted);
}

struct err *vm_block_query(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;

    *result = json_array();
    for (unsigned i = 0; i < vm_disk_count(control->vm); i++)
        json_array_append_new(*result, describe(control, i));
    return NULL;
}

struct err *vm_block_resize(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    unsigned disk;
    uint64_t size;

    TRY(vm_control_disk(control, arguments, &disk));
    TRY(vm_control_number(arguments, "size", &size));
    return err_wrap(vm_disk_resize(control->vm, disk, size), "disk '%s'",
                    vm_disk_config(control->vm, disk)->id);
}

struct err *vm_block_throttle(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    struct filter_limits limits = {0};
    const struct {
        const char *name;
        uint64_t *value;
    } members[] = {
        {"iops", &limits.ops[0]},        {"iops_rd", &limits.ops[1]},
        {"iops_wr", &limits.ops[2]},     {"bps", &limits.bytes[0]},
        {"bps_rd", &limits.bytes[1]},    {"bps_wr", &limits.bytes[2]},
        {"iops_max", &limits.burst_ops}, {"bps_max", &limits.burst_bytes},
    };
    unsigned disk;

    TRY(vm_control_disk(control, arguments, &disk));
    for (size_t i = 0; i < ARRAY_SIZE(members); i++)
        TRY(vm_control_number(arguments, members[i].name, members[i].value));
    return err_wrap(vm_disk_limit(control->vm, disk, &limits), "disk '%s'",
                    vm_disk_config(control->vm, disk)->id);
}

void vm_block_failed(void *opaque, const char *disk, bool write, int error)
{
    struct vm_control *control = opaque;

    qmp_server_event(control->server, "BLOCK_IO_ERROR",
                     json_pack("{s:s, s:s, s:s, s:s, s:b, s:s}", "device", disk, "node-name", disk,
                               "operation", write ? "write" : "read", "action", "stop", "nospace",
                               error == -ENOSPC, "reason", strerror(-error)));
    if (control->status != STATUS_RUNNING)
        return;
    control->status = STATUS_IO_ERROR;
    qmp_server_event(control->server, "STOP", NULL);
}

struct err *vm_block_snapshot(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    const char *format, *mode;
    unsigned disk;
    int fd;

    TRY(vm_control_disk(control, arguments, &disk));
    TRY(vm_control_text(arguments, "format", &format));
    TRY(vm_control_text(arguments, "mode", &mode));
    if (mode && strcmp(mode, "existing"))
        return err_new("mode is existing: create the overlay first, with its backing file");
    TRY(vm_control_fd(control, arguments, "snapshot-file", &fd));
    return err_wrap(vm_disk_snapshot(control->vm, disk, fd, format ? format : "qcow2"), "disk '%s'",
                    vm_disk_config(control->vm, disk)->id);
}
