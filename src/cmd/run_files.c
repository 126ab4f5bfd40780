/*
 * Opening what a VM reads and writes: kernel, initrd and disks. Each failure is one sentence that
 * names the file and says what to do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "cmd/image/image.h"
#include "cmd/run.h"

static struct err *open_error(const char *what, const char *path, int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return err_new("%s: '%s' does not exist: check the path", what, path);
    case EACCES:
    case EPERM:
        return err_of(ERR_DENIED, "%s: no permission to read '%s': change its mode or owner", what,
                      path);
    default:
        return err_errno(error, "%s: cannot open '%s'", what, path);
    }
}

/* Not a folder, and for a kernel not a device either: a read of it would not end. */
static struct err *check_type(const char *what, const char *path, int fd, bool device_allowed)
{
    struct stat status;

    if (fstat(fd, &status) != 0)
        return err_errno(errno, "%s: cannot look at '%s'", what, path);
    if (S_ISDIR(status.st_mode))
        return err_new("%s: '%s' is a directory: give a file", what, path);
    if (S_ISREG(status.st_mode) || (device_allowed && S_ISBLK(status.st_mode)))
        return NULL;
    return err_new("%s: '%s' is not a regular file%s", what, path,
                   device_allowed ? " or block device" : "");
}

/*
 * The open was non-blocking: that of a FIFO would wait for a writer, to be refused afterwards. But
 * io_uring takes the flag for a wish to fail with EAGAIN rather than to wait for a disk.
 */
static struct err *make_blocking(const char *path, int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0)
        return err_errno(errno, "cannot set up '%s'", path);
    return NULL;
}

struct err *run_open_file(const char *what, const char *path, int flags, int *fd)
{
    struct err *err;
    int opened = open(path, flags | O_CLOEXEC | O_NONBLOCK);

    if (opened < 0)
        return open_error(what, path, errno);
    err = check_type(what, path, opened, false);
    if (!err)
        err = make_blocking(path, opened);
    if (err) {
        close(opened);
        return err;
    }
    *fd = opened;
    return NULL;
}

/* Makes the folders above `path`. */
static struct err *make_folders(const char *path)
{
    scoped(free_cleanup) char *folder = xstrdup(path);

    for (char *at = strchr(folder + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = 0;
        if (mkdir(folder, 0700) != 0 && errno != EEXIST)
            return err_errno(errno, "cannot make the folder '%s'", folder);
        *at = '/';
    }
    return NULL;
}

struct err *run_user_path(const char *variable, const char *standard, const char *file, char **path)
{
    const char *folder = getenv(variable), *home = getenv("HOME");

    if (folder && *folder == '/')
        *path = xasprintf("%s/tenon/%s", folder, file);
    else if (home && *home == '/')
        *path = xasprintf("%s/%s/tenon/%s", home, standard, file);
    else
        return err_new("there is no HOME to keep '%s' in: set HOME or %s", file, variable);
    return make_folders(*path);
}

static struct err *disk_error(const struct vm_disk *disk, int error)
{
    struct stat status;

    if (error == EISDIR)
        return err_new("'%s' is a directory: give an image file or a block device", disk->path);
    if (error == ENOENT || error == ENOTDIR)
        return err_new("'%s' does not exist: check the path, or create it with `truncate -s 8G %s`",
                       disk->path, disk->path);
    if (error == EINVAL && disk->cache == BLOCK_CACHE_NONE)
        return err_new("the file system of '%s' has no direct I/O: use cache=writeback",
                       disk->path);
    if (error == ETXTBSY)
        return err_of(ERR_BUSY, "'%s' is a program that runs: give a disk image", disk->path);
    if (error == EROFS)
        return err_of(ERR_DENIED, "'%s' is on a read-only file system: add readonly, or copy it",
                      disk->path);
    if ((error == EACCES || error == EPERM) && !disk->readonly && stat(disk->path, &status) == 0 &&
        access(disk->path, R_OK) == 0)
        return err_of(ERR_DENIED, "'%s' is read-only: add readonly, or make it writable",
                      disk->path);
    if (error == EACCES || error == EPERM)
        return err_of(ERR_DENIED, "no permission on '%s': change its mode or owner", disk->path);
    return err_errno(error, "cannot open '%s'", disk->path);
}

struct err *run_open_disk(struct vm_disk *disk)
{
    int flags = (disk->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK;

    if (!disk->path) /* an empty drive */
        return NULL;
    disk->fd = open(disk->path, flags);
    if (disk->fd < 0)
        return disk_error(disk, errno);
    TRY(check_type("image", disk->path, disk->fd, true));
    TRY(make_blocking(disk->path, disk->fd));
    TRY(block_lock_file(disk->fd, disk->path, disk->readonly));
    TRY(image_resolve_disk(disk));
    if (disk->media == VM_MEDIA_CDROM && !strcmp(disk->format, "raw"))
        TRY(run_check_disc(disk->path, disk->fd));
    if (disk->cache != BLOCK_CACHE_NONE || strcmp(disk->format, "raw"))
        return NULL;
    if (fcntl(disk->fd, F_SETFL, (flags & ~O_NONBLOCK) | O_DIRECT) < 0)
        return disk_error(disk, errno);
    return NULL;
}

/* The only thing to boot from, and a disc: its architecture is looked at. */
static struct err *check_boot_disc(const struct vm_config *config)
{
    const struct vm_disk *disk = &config->disk[0];

    if (!config->firmware || config->disk_count != 1 || disk->media != VM_MEDIA_CDROM ||
        !disk->path || run_disk_is_remote(disk) || strcmp(disk->format, "raw"))
        return NULL;
    return err_wrap(run_check_boot_disc(disk), "disk '%s'", disk->id);
}

struct err *run_open_files(struct run *run)
{
    struct vm_config *config = &run->launch.config;

    if (config->kernel)
        TRY(run_open_file("kernel", config->kernel, O_RDONLY, &config->kernel_fd));
    if (config->initrd)
        TRY(run_open_file("initrd", config->initrd, O_RDONLY, &config->initrd_fd));
    TRY(run_open_firmware(run));
    for (unsigned i = 0; i < config->disk_count; i++) {
        struct vm_disk *disk = &config->disk[i];
        struct err *err = run_disk_is_remote(disk) ? run_open_remote(run, i) : run_open_disk(disk);
        TRY(err_wrap(err, "disk '%s'", disk->id));
    }
    return check_boot_disc(config);
}
