/*
 * The format of a VM's disk, and its backing chain opened for tenon-vmm.
 *
 * A guest writes what it likes into a raw disk, the first bytes of a qcow2 image too. So these
 * bytes alone never decide: without `format`, they and the end of the file's name have to agree.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/block.h"
#include "cmd/image/image.h"
#include "vm/config.h"

static bool name_agrees(const char *path, const char *format)
{
    const char *end = strrchr(path, '.');
    if (!end || strchr(end, '/'))
        return false;
    end++;
    return !strcmp(end, format) || (!strcmp(format, "vpc") && !strcmp(end, "vhd")) ||
           (!strcmp(format, "qcow2") && !strcmp(end, "qcow"));
}

struct err *image_guess(struct image *file, const char *path, char **format)
{
    const struct block_driver *driver;
    TRY(image_probe(file, &driver));
    const char *name = image_driver_name(driver);
    if (strcmp(name, "raw") && !name_agrees(path, name))
        return err_of(ERR_USAGE,
                      "'%s' begins like a %s image, but is not named like one: add format=%s, or "
                      "format=raw if a guest wrote that",
                      path, name, name);
    *format = xstrdup(name);
    return NULL;
}

struct err *image_guess_format(int take_fd, const char *path, char **format)
{
    struct image *file;
    TRY(image_open_fd(take_fd, 0, &file));
    struct err *err = image_guess(file, path, format);
    image_close(file);
    return err;
}

static struct err *guess(struct vm_disk *disk)
{
    int fd = fcntl(disk->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return err_errno(errno, "cannot look at '%s'", disk->path);
    return image_guess_format(fd, disk->path, &disk->format);
}

/* Descriptors and names of the layers below the first. */
static struct err *keep_chain(struct vm_disk *disk, struct image *top)
{
    unsigned count = 0;
    for (struct image *over = top; image_backing(over); over = image_backing(over)) {
        struct image *under = image_backing(over);
        const char *format = image_driver_name(image_driver(under));
        if (count == VM_QUEUES_MAX)
            return err_new("'%s' has more than %d images below it", disk->path, VM_QUEUES_MAX);
        int fd = fcntl(image_fd(image_file(under)), F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
            return err_errno(errno, "cannot keep the backing file of '%s'", disk->path);
        disk->backing_fd[count++] = fd;
        TRY(block_lock_file(fd, image_backing_name(over), true));
        char *formats = xasprintf("%s.%s", disk->format, format);
        free(disk->format);
        disk->format = formats;
    }
    return NULL;
}

struct err *image_resolve_disk(struct vm_disk *disk)
{
    struct err *err = NULL;
    struct image *image;
    if (!disk->format)
        TRY(guess(disk));
    if (!strcmp(disk->format, "raw"))
        return NULL;
    if (!image_format(disk->format, &err))
        return err;
    const char *format = image_driver_name(image_driver_find(disk->format));
    /* The file is locked by our own descriptor; the layers below are locked when they are kept. */
    struct image_args args = {.verb = "run", .unlocked = true};
    TRY(image_open_chain(&args, disk->path, format, IMAGE_OPEN_CHECK, &image));
    err = image_locked(image) ? err_new("'%s' is encrypted: convert it first", disk->path)
                              : keep_chain(disk, image);
    image_close(image);
    return err;
}
