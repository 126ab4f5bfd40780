/*
 * The pool of disk images. See pool.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/pool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "block/block.h"
#include "block/image.h"
#include "daemon/events.h"
#include "daemon/json_check.h"

struct err *pool_open(const char *state, struct pool *pool)
{
    pool->folder = xasprintf("%s/images", state);
    if (mkdir(pool->folder, 0700) == 0 || errno == EEXIST)
        pool->dir_fd = open(pool->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (pool->dir_fd >= 0)
        return NULL;
    return err_errno(errno, "cannot use the folder '%s'", pool->folder);
}

void pool_close(struct pool *pool)
{
    fd_cleanup(&pool->dir_fd);
    free(pool->folder);
    pool->folder = NULL;
}

static bool is_name(const char *name)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

    return *name && *name != '.' && *name != '-' && strlen(name) <= POOL_NAME_MAX &&
           !name[strspn(name, plain)];
}

bool pool_has(const struct pool *pool, const char *name, struct stat *status)
{
    return is_name(name) && fstatat(pool->dir_fd, name, status, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISREG(status->st_mode);
}

void pool_each(const struct pool *pool, void (*each)(void *opaque, const char *name), void *opaque)
{
    struct dirent **entries;
    struct stat status;
    int count = scandir(pool->folder, &entries, NULL, alphasort);

    for (int i = 0; i < count; i++) {
        if (pool_has(pool, entries[i]->d_name, &status))
            each(opaque, entries[i]->d_name);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

/* The file of an image; the name was looked at before, and what it is may have changed since. */
static struct err *open_file(const struct pool *pool, const char *name, int flags, int *fd)
{
    struct stat status;

    *fd = openat(pool->dir_fd, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd >= 0 && fstat(*fd, &status) == 0 && S_ISREG(status.st_mode))
        return NULL;
    struct err *err = err_errno(*fd < 0 ? errno : ENOENT, "image '%s'", name);
    fd_cleanup(fd);
    return err;
}

/* The image alone, without what is below it. */
static struct err *open_image(const struct pool *pool, const char *name, struct image **image)
{
    struct image *file;
    int fd;

    TRY(open_file(pool, name, O_RDONLY, &fd));
    TRY(image_open_fd(fd, 0, &file));
    return image_open(file, NULL, 0, NULL, image);
}

static void describe_image(json_t *json, struct image *image)
{
    struct image_info info = {0};

    image_get_info(image, &info);
    json_object_set_new(json, "format", json_string(image_driver_name(image_driver(image))));
    json_object_set_new(json, "size", json_integer((json_int_t)image_size(image)));
    json_object_set_new(json, "encrypted", json_boolean(info.encrypted));
    if (image_backing_name(image))
        json_object_set_new(json, "backing", json_text(image_backing_name(image)));
}

json_t *pool_describe(const struct pool *pool, const char *name)
{
    struct image *image = NULL;
    struct stat status;

    if (!pool_has(pool, name, &status))
        return NULL;
    json_t *json = json_pack("{s:s, s:o, s:I, s:o}", "name", name, "path",
                             json_sprintf("%s/%s", pool->folder, name), "allocated",
                             (json_int_t)status.st_blocks * 512, "modified_at",
                             events_time((uint64_t)status.st_mtim.tv_sec * NSEC_PER_SEC +
                                         (uint64_t)status.st_mtim.tv_nsec));
    struct err *err = open_image(pool, name, &image);
    if (err)
        json_object_set_new(json, "problem", json_text(err_text(err)));
    else
        describe_image(json, image);
    image_close(image);
    err_free(err);
    return json;
}

/* ---- create ---- */

/* The size and format of what is to be below a new image. */
static struct err *look_at_backing(const struct pool *pool, const char *name,
                                   struct image_create *create)
{
    struct image *image;
    struct stat status;

    if (!pool_has(pool, name, &status))
        return err_of(ERR_USAGE, "backing: there is no image '%.64s'", name);
    TRY(err_wrap(open_image(pool, name, &image), "backing"));
    create->backing_name = name;
    create->backing_format = image_driver_name(image_driver(image));
    create->size = create->size ? create->size : image_size(image);
    image_close(image);
    return NULL;
}

static struct err *write_image(const struct pool *pool, const char *name,
                               const struct block_driver *driver, const struct image_create *create)
{
    struct image *file;
    int fd = openat(pool->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0 && errno == EEXIST)
        return err_of(ERR_BUSY, "there is an image '%s' already", name);
    if (fd < 0)
        return err_errno(errno, "cannot create '%s/%s'", pool->folder, name);
    struct err *err = image_open_fd(fd, IMAGE_OPEN_WRITABLE | IMAGE_OPEN_SCRATCH, &file);
    if (!err) {
        err = image_create(file, driver, create);
        int result = image_close(file);
        if (!err && result)
            err = err_errno(-result, "cannot write '%s/%s'", pool->folder, name);
    }
    if (err)
        unlinkat(pool->dir_fd, name, 0);
    return err_wrap(err, "image '%s'", name);
}

struct err *pool_create(const struct pool *pool, const struct pool_image *image)
{
    struct image_create create = {.size = image->size};
    const char *format = image->format ? image->format : "raw";
    const struct block_driver *driver = image_driver_find(format);

    if (!is_name(image->name))
        return err_of(ERR_USAGE,
                      "'%.64s' is no name of an image: it has letters, digits, '.', '_' and '-', "
                      "and begins with a letter or a digit",
                      image->name);
    if (!driver)
        return err_of(ERR_USAGE, "format: '%.16s' is unknown: raw and qcow2 are the usual ones",
                      format);
    if (image->backing)
        TRY(look_at_backing(pool, image->backing, &create));
    image_overlay_layout(driver, &create);
    if (!create.size)
        return err_of(ERR_USAGE, "size: an image needs one");
    return write_image(pool, image->name, driver, &create);
}

/* ---- delete ---- */

struct search {
    const struct pool *pool;
    const char *below;
    char *over; /* found */
};

static void look_above(void *opaque, const char *name)
{
    struct search *search = opaque;
    scoped(free_cleanup) char *whole = xasprintf("%s/%s", search->pool->folder, search->below);
    struct image *image = NULL;

    if (search->over || !strcmp(name, search->below))
        return;
    err_free(open_image(search->pool, name, &image));
    const char *backing = image ? image_backing_name(image) : NULL;
    if (backing && (!strcmp(backing, search->below) || !strcmp(backing, whole)))
        search->over = xstrdup(name);
    image_close(image);
}

struct err *pool_delete(const struct pool *pool, const char *name)
{
    struct search search = {.pool = pool, .below = name};
    scoped(fd_cleanup) int fd = -1;

    TRY(open_file(pool, name, O_RDWR, &fd));
    TRY(block_lock_file(fd, name, false));
    pool_each(pool, look_above, &search);
    if (search.over) {
        struct err *err = err_of(ERR_BUSY, "image '%s' is below '%s'", name, search.over);
        free(search.over);
        return err;
    }
    if (unlinkat(pool->dir_fd, name, 0) != 0)
        return err_errno(errno, "cannot remove '%s/%s'", pool->folder, name);
    return NULL;
}
