/*
 * The core's entries to what changes an image that exists, beyond its bytes, and to what a new one
 * would take. Nobody else is inside of the node meanwhile.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "block/core/driver.h"

/* Is the change possible? `what` ends the sentence that says it is not. */
static struct err *allowed(const struct image *image, bool has, const char *what)
{
    if (!has)
        return err_of(ERR_USAGE, "%s images %s", image->driver->name, what);
    if (!image->writable)
        return err_of(ERR_DENIED, "it is not writable");
    return NULL;
}

static struct err *done(struct image *image, struct err *err)
{
    pthread_rwlock_unlock(&image->gate);
    return err_wrap(err, "%s", image->driver->name);
}

struct err *image_snapshot_load(struct image *image, const char *name_or_id)
{
    if (!image->driver->snapshot_load)
        return err_of(ERR_USAGE, "a %s image has no snapshots", image->driver->name);
    if (image->writable)
        return err_of(ERR_USAGE, "a snapshot is shown only for reading");
    pthread_rwlock_wrlock(&image->gate);
    return done(image, image->driver->snapshot_load(image, name_or_id));
}

struct err *image_set_backing_name(struct image *image, const char *name, const char *format)
{
    TRY(allowed(image, image->driver->set_backing_name, "cannot change their backing file"));
    pthread_rwlock_wrlock(&image->gate);
    struct err *err = image->driver->set_backing_name(image, name, format);
    if (!err) {
        free(image->backing_name);
        free(image->backing_format);
        image->backing_name = name ? xstrdup(name) : NULL;
        image->backing_format = name && format ? xstrdup(format) : NULL;
    }
    return done(image, err);
}

struct err *image_amend(struct image *image, const struct image_option *option, unsigned count)
{
    TRY(allowed(image, image->driver->amend, "have no options that can be amended"));
    pthread_rwlock_wrlock(&image->gate);
    return done(image, image->driver->amend(image, option, count));
}

bool image_can_be_emptied(const struct image *image)
{
    return image->driver->empty;
}

struct err *image_empty(struct image *image)
{
    TRY(allowed(image, image->driver->empty, "cannot be emptied"));
    pthread_rwlock_wrlock(&image->gate);
    return done(image, image->driver->empty(image));
}

struct err *image_measure(const struct block_driver *driver, const struct image_create *create,
                          struct image_measure *measure)
{
    *measure = (struct image_measure){0};
    if (!driver->measure)
        return err_of(ERR_USAGE, "the size of %s images cannot be measured", driver->name);
    return err_wrap(driver->measure(create, measure), "%s", driver->name);
}

bool image_locked(const struct image *image)
{
    return image->driver->locked && image->driver->locked(image);
}

struct err *image_unlock(struct image *image, const void *key, size_t length)
{
    if (!image_locked(image))
        return NULL;
    pthread_rwlock_wrlock(&image->gate);
    return done(image, image->driver->unlock(image, key, length));
}

bool image_wants_key(const struct block_driver *driver, const struct image_create *create)
{
    return driver->wants_key && driver->wants_key(create);
}
