/*
 * `tenon run IMAGE`: a disk image instead of a VM file. What the flags leave open is chosen from
 * what the image is: a name, the firmware that its partition table is made for, a network. The
 * image itself is only read; what the guest writes goes to an overlay that nobody finds again,
 * unless --write is given. The image may be another machine's (see run_remote.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/proto/remote.h"
#include "cmd/boot_media.h"
#include "cmd/image/image.h"
#include "cmd/run.h"
#include "vm/schema.h"

#define NAME_MAX_LENGTH 32
#define IMAGE_MEMORY GIB(1)

static bool named_as_vm_file(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml"));
}

/*
 * A VM file says so by its name, or is text. An image is not, but for the descriptors of VMDK. What
 * cannot be opened is left to who will.
 */
bool run_is_image(const char *path)
{
    static const char vmdk[] = "# Disk DescriptorFile";
    if (image_is_remote(path))
        return true;
    scoped(fd_cleanup) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat status;
    uint8_t head[IMAGE_SECTOR];

    if (fd < 0 || named_as_vm_file(path) || fstat(fd, &status) != 0)
        return false;
    if (S_ISBLK(status.st_mode))
        return true;
    ssize_t n = S_ISREG(status.st_mode) ? pread(fd, head, sizeof(head), 0) : 0;
    return n > 0 && (memchr(head, 0, (size_t)n) ||
                     (n >= (ssize_t)sizeof(vmdk) && !memcmp(head, vmdk, sizeof(vmdk) - 1)));
}

/* "debian-12" of "/images/debian-12.qcow2": what a name may contain, without the ending. Of a URL
 * what comes behind its path is no name. */
static char *name_of(const char *path)
{
    size_t end = image_is_remote(path) ? strcspn(path, "?#") : strlen(path);
    const char *slash = memrchr(path, '/', end), *base = slash ? slash + 1 : path;
    end -= (size_t)(base - path);
    const char *dot = memrchr(base, '.', end);
    size_t len = dot && dot != base ? (size_t)(dot - base) : end;
    char *name =
        len ? xasprintf("%.*s", (int)MIN(len, (size_t)NAME_MAX_LENGTH), base) : xstrdup("image");

    for (char *at = name; *at; at++) {
        if (!isalnum((unsigned char)*at) && !strchr("._-", *at))
            *at = '-';
    }
    return name;
}

struct err *run_image_begin(struct run *run, const char *path)
{
    struct vm_config *config = &run->launch.config;

    run->image_path = path;
    config->name = name_of(path);
    config->memory = IMAGE_MEMORY;
    TRY(schema_apply_flag(config, "disk", "x"));
    free(config->disk[0].path);
    config->disk[0].path = xstrdup(path);
    return NULL;
}

static struct err *open_image(const char *path, int *fd)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    return *fd < 0 ? image_open_error(path, errno) : NULL;
}

static struct err *look(struct run *run, struct boot_media *media)
{
    const struct image_args args = {.verb = "run", .unlocked = true};
    struct vm_disk *disk = &run->launch.config.disk[0];
    struct image *image;

    if (!disk->format && !run_disk_is_remote(disk)) {
        int fd;
        TRY(open_image(disk->path, &fd));
        TRY(image_guess_format(fd, disk->path, &disk->format));
    }
    if (run_disk_is_remote(disk))
        TRY(run_open_remote_image(disk, IMAGE_OPEN_CHECK, &image));
    else
        TRY(image_open_chain(&args, disk->path, disk->format, IMAGE_OPEN_CHECK, &image));
    boot_media_look(image, media);
    run->image_size = image_size(image);
    image_close(image);
    return NULL;
}

struct err *run_image_finish(struct run *run)
{
    struct vm_config *config = &run->launch.config;
    struct boot_media media;

    if (!run->image_path) {
        if (run->write_image)
            return err_of(ERR_USAGE, "--write is for `tenon run IMAGE`: remove it, disks of a VM "
                                     "file are written to");
        return NULL;
    }
    TRY(err_wrap(look(run, &media), "disk '%s'", run->image_path));
    if (!config->kernel && !config->boot && !config->boot_once)
        TRY(boot_media_check(&media, run->image_path));
    if (!config->kernel && !config->firmware)
        config->firmware = xstrdup(media.esp ? "uefi" : "bios");
    if (!config->net_count)
        TRY(schema_apply_flag(config, "net", "user"));
    return NULL;
}

struct err *run_image_overlay(struct run *run)
{
    struct vm_disk *disk = &run->launch.config.disk[0];
    scoped(free_cleanup) char *backing = NULL;
    struct image *file;

    if (!run->image_path || run->write_image || disk->readonly)
        return NULL;
    bool remote = run_disk_is_remote(disk);
    backing = remote ? xstrdup(disk->path) : realpath(disk->path, NULL);
    if (!backing)
        return err_errno(errno, "cannot find '%s'", disk->path);
    scoped(free_cleanup) char *unique =
        xasprintf("%s-%ld.qcow2", run->launch.config.name, (long)getpid());
    TRY(run_user_path("XDG_CACHE_HOME", ".cache", unique, &run->overlay_path));
    int fd = open(run->overlay_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(errno, "cannot make the overlay '%s'", run->overlay_path);
    if (remote && (run->overlay_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0) {
        close(fd);
        return err_errno(errno, "cannot keep the overlay '%s'", run->overlay_path);
    }
    TRY(image_open_fd(fd, IMAGE_OPEN_WRITABLE | IMAGE_OPEN_SCRATCH, &file));
    struct image_create create = {
        .size = run->image_size, .backing_name = backing, .backing_format = disk->format};
    const struct block_driver *driver = image_driver_find("qcow2");
    image_overlay_layout(driver, &create);
    struct err *err = image_create(file, driver, &create);
    int closed = image_close(file);
    TRY(err_wrap(err, "overlay '%s'", run->overlay_path));
    if (closed)
        return err_errno(-closed, "cannot write the overlay '%s'", run->overlay_path);
    if (remote)
        return NULL;
    free(disk->path);
    disk->path = xstrdup(run->overlay_path);
    free(disk->format);
    disk->format = xstrdup("qcow2");
    return NULL;
}

void run_image_forget(struct run *run)
{
    if (run->overlay_path)
        unlink(run->overlay_path);
    free(run->overlay_path);
    run->overlay_path = NULL;
    if (run->overlay_fd >= 0)
        close(run->overlay_fd);
    run->overlay_fd = -1;
}
