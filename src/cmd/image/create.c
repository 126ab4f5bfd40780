/*
 * tenon image create, resize, snapshot.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/clock.h"
#include "cmd/image/image.h"

static const char *backing_of(const struct image_args *args, const char **format)
{
    const char *name = args->backing;
    *format = args->backing_format;
    for (unsigned i = 0; i < args->option_count; i++) {
        if (!strcmp(args->option[i].name, "backing_file"))
            name = args->option[i].value;
        if (!strcmp(args->option[i].name, "backing_fmt"))
            *format = args->option[i].value;
    }
    return name;
}

/* The size of a new overlay is its backing image's; and that must be there. */
static struct err *backing_size(const struct image_args *args, const char *path, const char *name,
                                const char *format, uint64_t *size)
{
    scoped(free_cleanup) char *backing = NULL;
    struct image *image;
    if (!format)
        return err_of(ERR_USAGE, "-b needs -F: what format '%s' has must not be guessed later",
                      name);
    TRY(image_backing_path(path, name, &backing));
    TRY(image_open_one(args, backing, format, 0, &image));
    *size = image_size(image);
    image_close(image);
    return NULL;
}

static struct err *create_at(const struct image_args *args, const struct block_driver *driver,
                             struct image_create *create)
{
    const char *path = args->word[0];
    struct image_new file;
    struct image *image = NULL;
    struct image_files files;
    image_files_init(&files, args, path);
    create->files = &files;
    struct err *err = image_new_begin(path, args->force, &file, &image);
    if (!err)
        err = err_wrap(image_create(image, driver, create), "'%s'", path);
    int result = image_close(image);
    if (!err && result)
        err = err_errno(-result, "cannot write '%s'", path);
    if (!err)
        err = image_new_keep(&file);
    image_new_fini(&file);
    image_files_fini(&files);
    return err;
}

struct err *image_create_run(const struct image_args *args, int *status)
{
    const char *path = args->word[0], *backing_format;
    const char *backing = backing_of(args, &backing_format);
    struct image_create create = {.option = args->option, .option_count = args->option_count};
    struct err *err = NULL;
    const struct block_driver *driver = image_format(args->format ? args->format : "raw", &err);
    (void)status;
    TRY(err);
    if (args->word_count > 1)
        TRY(image_parse_size(args->word[1], &create.size));
    else if (!backing)
        return err_of(ERR_USAGE, "a size is needed: tenon image create %s 10G", path);
    if (backing && !(args->unchecked && args->word_count > 1)) {
        uint64_t size = 0;
        TRY(backing_size(args, path, backing, backing_format, &size));
        if (args->word_count == 1)
            create.size = size;
    }
    create.backing_name = backing;
    create.backing_format = backing_format;
    TRY(create_at(args, driver, &create));
    if (!args->quiet) {
        char text[24];
        image_size_text(text, sizeof(text), create.size);
        printf("Created '%s': %s, %s\n", path, image_driver_name(driver), text);
    }
    return NULL;
}
