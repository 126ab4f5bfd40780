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
        err = err_wrap(image_create_locked(args, path, image, driver, create), "'%s'", path);
    int result = image_close(image);
    if (!err && result)
        err = err_errno(-result, "cannot write '%s'", path);
    if (!err)
        err = image_new_keep(&file);
    image_new_fini(&file);
    image_files_fini(&files);
    return err;
}

/* The words by which scripts of qemu-img know it. */
static void say_formatting(const struct image_args *args, const char *path, const char *format,
                           const struct image_create *create)
{
    printf("Formatting '%s', fmt=%s", path, format);
    printf(" size=%llu", (unsigned long long)create->size);
    if (create->backing_name)
        printf(" backing_file=%s", create->backing_name);
    if (create->backing_format)
        printf(" backing_fmt=%s", create->backing_format);
    for (unsigned i = 0; i < args->option_count; i++)
        printf(" %s=%s", args->option[i].name, args->option[i].value);
    printf("\n");
}

static void say_created(const struct image_args *args, const char *format,
                        const struct image_create *create)
{
    char text[24];
    if (args->qemu) {
        say_formatting(args, args->word[0], format, create);
        return;
    }
    image_size_text(text, sizeof(text), create->size);
    printf("Created '%s': %s, %s\n", args->word[0], format, text);
}

static struct err *option_size(struct image_args *args, uint64_t *size, bool *has)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < args->option_count; i++) {
        if (!strcmp(args->option[i].name, "size")) {
            TRY(image_parse_size(args->option[i].value, size));
            *has = true;
        } else {
            args->option[kept++] = args->option[i];
        }
    }
    args->option_count = kept;
    return NULL;
}

struct err *image_create_run(const struct image_args *given, int *status)
{
    struct image_args args = *given;
    const char *path = args.word[0];
    struct image_create create = {0};
    bool sized = args.word_count > 1;
    struct err *err = NULL;
    const struct block_driver *driver = image_format(args.format ? args.format : "raw", &err);
    (void)status;
    TRY(err);
    image_backing_options(&args);
    TRY(option_size(&args, &create.size, &sized));
    if (args.word_count > 1)
        TRY(image_parse_size(args.word[1], &create.size));
    else if (!args.backing && !sized)
        return err_of(ERR_USAGE, "a size is needed: tenon image create %s 10G", path);
    if (args.backing && !args.backing[0])
        args.backing = NULL;
    if (args.backing && !(args.unchecked && sized)) {
        uint64_t size = 0;
        TRY(backing_size(&args, path, args.backing, args.backing_format, &size));
        if (!sized)
            create.size = size;
    }
    create.option = args.option;
    create.option_count = args.option_count;
    create.backing_name = args.backing;
    create.backing_format = args.backing_format;
    if (!args.qemu)
        image_overlay_layout(driver, &create);
    TRY(create_at(&args, driver, &create));
    if (!args.quiet)
        say_created(&args, image_driver_name(driver), &create);
    return NULL;
}
