/*
 * QMP commands of named nodes: blockdev-add gives the image in a file that was handed over a name,
 * by which blockdev-backup and blockdev-mirror take it as their target. A part of QEMU's
 * qapi/block-core.json. All on the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/vm_control_internal.h"

static struct vm_node *find_node(struct vm_control *control, const char *name)
{
    for (unsigned i = 0; i < control->node_count; i++)
        if (!strcmp(control->node[i].name, name))
            return &control->node[i];
    return NULL;
}

/* What lies below a node: {"driver": "file", "filename": "/dev/fdset/ID"}, or such a node's name.
 */
static struct err *open_below(struct vm_control *control, const json_t *file, int *fd)
{
    const char *driver, *name = json_string_value(file);
    struct vm_node *below = name ? find_node(control, name) : NULL;

    if (name) {
        if (!below)
            return err_new("there is no node '%s'", name);
        *fd = fcntl(below->fd, F_DUPFD_CLOEXEC, 3);
        return *fd < 0 ? err_new("too many open files") : NULL;
    }
    TRY(vm_control_text(file, "driver", &driver));
    if (!driver || (strcmp(driver, "file") && strcmp(driver, "host_device")))
        return err_new("'file' is a node of driver file or host_device");
    return vm_control_fd(control, file, "filename", fd);
}

struct err *vm_blockdev_add(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    const char *name, *driver;
    unsigned disk;
    int fd;

    TRY(vm_control_text(arguments, "node-name", &name));
    TRY(vm_control_text(arguments, "driver", &driver));
    if (!name || !*name || !driver)
        return err_new("'node-name' and 'driver' are needed");
    struct err *taken = vm_disk_find(control->vm, name, &disk);
    err_free(taken);
    if (!taken || find_node(control, name))
        return err_new("there is a node '%s' already", name);
    if (control->node_count == VM_CONTROL_NODES_MAX)
        return err_new("there are %d nodes already", VM_CONTROL_NODES_MAX);
    bool whole = !strcmp(driver, "file") || !strcmp(driver, "host_device");
    const struct block_driver *format = image_driver_find(whole ? "raw" : driver);
    if (!format)
        return err_new("driver '%s' is not known", driver);
    TRY(open_below(control, whole ? arguments : json_object_get(arguments, "file"), &fd));
    control->node[control->node_count++] =
        (struct vm_node){.name = xstrdup(name), .format = image_driver_name(format), .fd = fd};
    return NULL;
}

struct err *vm_blockdev_del(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    const char *name;

    TRY(vm_control_text(arguments, "node-name", &name));
    struct vm_node *node = name ? find_node(control, name) : NULL;
    if (!node)
        return err_new("there is no node '%s'", name ? name : "");
    close(node->fd);
    free(node->name);
    *node = control->node[--control->node_count];
    return NULL;
}

struct err *vm_control_node(struct vm_control *control, const json_t *arguments, const char *member,
                            int *fd, const char **format)
{
    const char *name;

    TRY(vm_control_text(arguments, member, &name));
    struct vm_node *node = name ? find_node(control, name) : NULL;
    if (!node)
        return err_new("'%s' is a node: hand its file over with add-fd, then blockdev-add", member);
    *fd = fcntl(node->fd, F_DUPFD_CLOEXEC, 3);
    *format = node->format;
    return *fd < 0 ? err_new("too many open files") : NULL;
}

void vm_blockdev_fini(struct vm_control *control)
{
    while (control->node_count) {
        close(control->node[--control->node_count].fd);
        free(control->node[control->node_count].name);
    }
}
