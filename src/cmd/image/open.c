/*
 * tenon image: opening files, backing chains, and new files that get their name when they are
 * whole.
 *
 * A name that comes out of an image is a string of a stranger: only plain names of regular files
 * are opened, and for an image whose format was only guessed, only beside it or below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "block/filter/filter.h"
#include "block/proto/remote.h"
#include "cmd/image/image.h"

const struct block_driver *image_format(const char *name, struct err **err)
{
    const struct block_driver *driver = image_driver_find(name);
    if (!driver && !strcmp(name, "vhd"))
        driver = image_driver_find("vpc");
    if (driver)
        return driver;
    const char *names[32], *near;
    unsigned count = 0;
    for (; count < 31 && image_driver_at(count); count++)
        names[count] = image_driver_name(image_driver_at(count));
    names[count] = NULL;
    near = nearest_name(name, names);
    *err = near ? err_of(ERR_USAGE, "unknown format '%s': did you mean '%s'?", name, near)
                : err_of(ERR_USAGE, "unknown format '%s': see `tenon help image`", name);
    return NULL;
}

struct err *image_open_error(const char *path, int error)
{
    if (error == ENOENT || error == ENOTDIR)
        return err_new("'%s' does not exist: check the path", path);
    if (error == EACCES || error == EPERM || error == EROFS)
        return err_of(ERR_DENIED, "no permission on '%s': change its mode or owner", path);
    return err_errno(error, "cannot open '%s'", path);
}

/* `named`: the name came out of an image, so only a regular file will do. The user may name what is
 * on another machine. */
static struct err *open_file(const struct image_args *args, const char *path, bool named,
                             unsigned flags, struct image **file)
{
    bool writable = flags & IMAGE_OPEN_WRITABLE;
    struct stat status;
    if (writable && args->cache && image_args_unsafe(args))
        flags |= IMAGE_OPEN_UNSAFE;
    if (!named && image_is_remote(path))
        return err_wrap(image_open_remote(path, flags, file), "'%s'", path);
    int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return image_open_error(path, errno);
    struct err *err = NULL;
    if (fstat(fd, &status) < 0)
        err = err_errno(errno, "cannot look at '%s'", path);
    else if (S_ISDIR(status.st_mode))
        err = err_new("'%s' is a directory: give a file", path);
    else if (!S_ISREG(status.st_mode) && (named || !S_ISBLK(status.st_mode)))
        err = err_new("'%s' is not a regular file%s", path, named ? "" : " or block device");
    else if (!args->unlocked || writable)
        err = block_lock_file(fd, path, !writable);
    if (err) {
        close(fd);
        return err;
    }
    return err_wrap(image_open_fd(fd, flags, file), "'%s'", path);
}

static struct err *open_layer(const struct image_args *args, const char *path, const char *format,
                              bool named, unsigned flags, struct image **image)
{
    struct err *err = NULL;
    const struct block_driver *driver = format ? image_format(format, &err) : NULL;
    struct image *file;
    struct image_files files;
    if (err)
        return err;
    TRY(open_file(args, path, named, flags, &file));
    image_files_init(&files, args, path);
    err = err_wrap(image_open(file, driver, flags, &files, image), "'%s'", path);
    image_files_fini(&files);
    if (err || flags & IMAGE_OPEN_CHECK)
        return err;
    err = image_unlock_open(args, path, named ? NULL : args->key_secret, *image);
    if (err) {
        image_close(*image);
        *image = NULL;
    }
    return err;
}

struct err *image_open_one(const struct image_args *args, const char *path, const char *format,
                           unsigned flags, struct image **image)
{
    return open_layer(args, path, format, false, flags, image);
}

/* "nbd:...", "json:...", "http://...": a colon before any slash. */
static bool has_protocol(const char *name)
{
    size_t length = strcspn(name, ":/");
    return name[length] == ':';
}

struct err *image_backing_path(const char *overlay, const char *name, char **path)
{
    if (!strncmp(name, "file:", 5))
        name += 5;
    if (has_protocol(name))
        return err_new("its backing name '%s' is not a file's: it is not opened", name);
    if (name[0] == '/') {
        *path = xstrdup(name);
    } else {
        scoped(free_cleanup) char *copy = xstrdup(overlay);
        *path = xasprintf("%s/%s", dirname(copy), name);
    }
    if (strncmp(*path, "/dev/", 5) && strncmp(*path, "/proc/", 6) && strncmp(*path, "/sys/", 5))
        return NULL;
    free(*path);
    *path = NULL;
    return err_new("its backing name '%s' is not an ordinary file's: it is not opened", name);
}

static bool beside(const char *name)
{
    return name[0] != '/' && strcmp(name, "..") && strncmp(name, "../", 3) && !strstr(name, "/../");
}

static bool same_file(const struct image *a, const struct image *b)
{
    struct stat one, two;
    return fstat(image_fd(image_file(a)), &one) == 0 && fstat(image_fd(image_file(b)), &two) == 0 &&
           one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

struct err *image_open_backing(const struct image_args *args, const char *path, bool probed,
                               struct image *top)
{
    struct image *over = top;
    scoped(free_cleanup) char *over_path = xstrdup(path);
    for (unsigned depth = 0; image_backing_name(over); depth++) {
        const char *name = image_backing_name(over);
        struct image *under;
        char *under_path;
        if (depth == IMAGE_CHAIN_MAX)
            return err_new("'%s': more than %u images below", path, IMAGE_CHAIN_MAX);
        if (probed && !beside(name))
            return err_new(
                "'%s': it names '%s' as its backing file, and its format was only guessed: "
                "if you trust it, add -f %s",
                over_path, name, image_driver_name(image_driver(over)));
        TRY(err_wrap(image_backing_path(over_path, name, &under_path), "'%s'", over_path));
        const char *format = image_backing_format(over);
        /* Another program's word for a format that we do not know must not stop us from probing. */
        if (format && !image_driver_find(format))
            format = NULL;
        struct err *err = err_wrap(open_layer(args, under_path, format, true, 0, &under),
                                   "backing of '%s'", over_path);
        free(over_path);
        over_path = under_path;
        TRY(err);
        image_set_backing(over, under);
        for (struct image *seen = top; seen != under; seen = image_backing(seen))
            if (same_file(seen, under))
                return err_new("'%s': its chain of backing files comes back to '%s'", path,
                               under_path);
        probed = probed || !format;
        over = under;
    }
    return NULL;
}

struct err *image_open_chain(const struct image_args *args, const char *path, const char *format,
                             unsigned flags, struct image **image)
{
    TRY(image_open_one(args, path, format, flags, image));
    struct err *err = image_open_backing(args, path, !format, *image);
    if (err) {
        image_close(*image);
        *image = NULL;
    }
    return err;
}

struct err *image_open_joined(const struct image_args *args, char *const *path, unsigned paths,
                              const char *format, struct image **image)
{
    if (paths == 1)
        return image_open_chain(args, *path, format, 0, image);
    scoped(free_cleanup) struct image **part = xcalloc(paths, sizeof(struct image *));
    for (unsigned i = 0; i < paths; i++) {
        struct err *err = image_open_chain(args, path[i], format, 0, &part[i]);
        if (!err)
            continue;
        while (i--)
            image_close(part[i]);
        return err;
    }
    *image = filter_concat_open(part, paths);
    return NULL;
}

struct err *image_readers_open(struct image_readers *readers, const struct image_args *args,
                               char *const *path, unsigned paths, const char *format,
                               struct image *first, unsigned count)
{
    struct image_args own = *args;
    own.unlocked = true; /* the first has the lock */
    for (unsigned i = 0; i < paths; i++)
        if (image_vhost_user_path(path[i])) /* which serves one at a time */
            count = 1;
    *readers = (struct image_readers){.image = {first}, .count = first != NULL, .borrowed = first};
    while (readers->count < count) {
        struct image **next = &readers->image[readers->count];
        TRY(image_open_joined(readers->count ? &own : args, path, paths, format, next));
        readers->count++;
        if (args->snapshot && first)
            TRY(image_snapshot_load(*next, args->snapshot));
    }
    return NULL;
}

void image_readers_close(struct image_readers *readers)
{
    for (unsigned i = readers->borrowed; i < readers->count; i++)
        image_close(readers->image[i]);
    readers->count = 0;
}

struct err *image_finish(struct image *image, struct err *take_err, const char *path)
{
    int result = take_err ? 0 : image_flush(image);
    int closed = image_close(image);
    if (!take_err && (result || closed))
        take_err = err_errno(result ? -result : -closed, "cannot write");
    return err_wrap(take_err, "'%s'", path);
}

struct others {
    const struct image_args *args;
    char *path;
};

static struct err *other_path(const struct others *others, const char *name, char **path)
{
    if (strchr(name, '/') || !name[0] || !strcmp(name, ".") || !strcmp(name, ".."))
        return err_new("it names '%s', which is not a file beside it: it is not opened", name);
    scoped(free_cleanup) char *copy = xstrdup(others->path);
    *path = xasprintf("%s/%s", dirname(copy), name);
    return NULL;
}

static struct err *other_open(void *opaque, const char *name, bool writable, struct image **file)
{
    const struct others *others = opaque;
    scoped(free_cleanup) char *path = NULL;
    TRY(other_path(others, name, &path));
    return open_file(others->args, path, true, writable ? IMAGE_OPEN_WRITABLE : 0, file);
}

static struct err *other_create(void *opaque, const char *name, struct image **file)
{
    const struct others *others = opaque;
    scoped(free_cleanup) char *path = NULL;
    TRY(other_path(others, name, &path));
    int flags = O_RDWR | O_CREAT | O_CLOEXEC | (others->args->force ? O_TRUNC : O_EXCL);
    int fd = open(path, flags, 0666);
    if (fd < 0)
        return errno == EEXIST ? err_new("'%s' exists: add --force to overwrite it", path)
                               : image_open_error(path, errno);
    return image_open_fd(fd, IMAGE_OPEN_WRITABLE | IMAGE_OPEN_SCRATCH, file);
}

void image_files_init(struct image_files *files, const struct image_args *args, const char *path)
{
    struct others *others = xcalloc(1, sizeof(*others));
    others->args = args;
    others->path = xstrdup(path);
    const char *slash = strrchr(others->path, '/');
    *files = (struct image_files){.open = other_open,
                                  .create = other_create,
                                  .opaque = others,
                                  .name = slash ? slash + 1 : others->path};
}

void image_files_fini(struct image_files *files)
{
    struct others *others = files->opaque;
    free(others->path);
    free(others);
}
