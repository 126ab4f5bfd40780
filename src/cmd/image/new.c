/*
 * tenon image: new files, which get their name when they are whole.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "cmd/image/image.h"

/* Anonymous where the file system can, otherwise under a name of its own beside the target. */
struct err *image_new_begin(const char *path, bool force, struct image_new *file,
                            struct image **image)
{
    struct stat status;
    *file = (struct image_new){.path = xstrdup(path), .force = force, .fd = -1};
    bool exists = stat(path, &status) == 0;
    if (exists && !force)
        return err_new("'%s' exists: add --force to overwrite it", path);
    if (exists && !S_ISREG(status.st_mode))
        return err_new("'%s' is not a regular file: use -n to write into a device", path);
    if (exists) { /* not while a VM uses it */
        int old = open(path, O_RDWR | O_CLOEXEC);
        struct err *err =
            old < 0 ? image_open_error(path, errno) : block_lock_file(old, path, false);
        if (old >= 0)
            close(old);
        TRY(err);
    }
    scoped(free_cleanup) char *copy = xstrdup(path);
    const char *folder = dirname(copy);
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        file->temporary = xasprintf("%s.tenon-%d", path, (int)getpid());
        fd = open(file->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    }
    if (fd < 0)
        return image_open_error(folder, errno);
    file->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return image_open_fd(fd, IMAGE_OPEN_WRITABLE | IMAGE_OPEN_SCRATCH, image);
}

struct err *image_new_keep(struct image_new *file)
{
    char self[40];
    snprintf(self, sizeof(self), "/proc/self/fd/%d", file->fd);
    if (!file->temporary && !file->force) {
        if (linkat(AT_FDCWD, self, AT_FDCWD, file->path, AT_SYMLINK_FOLLOW) < 0)
            return err_errno(errno, "cannot name '%s'", file->path);
        return NULL;
    }
    if (!file->temporary) {
        file->temporary = xasprintf("%s.tenon-%d", file->path, (int)getpid());
        if (linkat(AT_FDCWD, self, AT_FDCWD, file->temporary, AT_SYMLINK_FOLLOW) < 0) {
            free(file->temporary);
            file->temporary = NULL;
            return err_errno(errno, "cannot name '%s'", file->path);
        }
    }
    if (renameat2(AT_FDCWD, file->temporary, AT_FDCWD, file->path,
                  file->force ? 0 : RENAME_NOREPLACE) < 0)
        return err_errno(errno, "cannot name '%s'", file->path);
    free(file->temporary);
    file->temporary = NULL;
    return NULL;
}

void image_new_fini(struct image_new *file)
{
    if (file->temporary)
        unlink(file->temporary);
    if (file->fd >= 0)
        close(file->fd);
    free(file->temporary);
    free(file->path);
}
