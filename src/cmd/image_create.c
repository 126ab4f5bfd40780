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
#include "cmd/image.h"

struct err *image_parse_size(const char *text, uint64_t *size)
{
    static const char units[] = "kKmMgGtTpP";
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    uint64_t factor = unit ? 1ull << ((unsigned)(unit - units) / 2 * 10 + 10) : 1;
    if (unit)
        end++;
    else if (*end == 'b' || *end == 'B')
        end++;
    if (text[0] < '0' || text[0] > '9' || *end || errno)
        return err_of(ERR_USAGE, "'%s' is not a size: write bytes, or 10G, 512M", text);
    if (!checked_mul(value, factor, size) || *size > INT64_MAX)
        return err_of(ERR_USAGE, "'%s' is beyond what a file can be", text);
    return NULL;
}

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

struct err *image_resize_run(const struct image_args *args, int *status)
{
    const char *path = args->word[0], *text = args->word[1];
    bool more = text[0] == '+';
    uint64_t size;
    struct image *image;
    (void)status;
    TRY(image_parse_size(text + more, &size));
    TRY(image_open_chain(args, path, args->format, IMAGE_OPEN_WRITABLE, &image));
    struct err *err = NULL;
    if (!args->format && image_driver(image) == image_driver_find("raw") && !args->quiet)
        fprintf(stderr, "tenon: '%s' has no known format: resized as raw\n", path);
    if (more && !checked_add(size, image_size(image), &size))
        err = err_of(ERR_USAGE, "the size is beyond what a file can be");
    if (!err && size < image_size(image) && !args->shrink)
        err = err_of(ERR_USAGE, "'%s' would lose its end: add --shrink if that is what you want",
                     path);
    if (!err)
        err = err_wrap(image_resize(image, size), "'%s'", path);
    int result = err ? 0 : image_flush(image);
    int closed = image_close(image);
    if (!err && (result || closed))
        err = err_errno(result ? -result : -closed, "cannot write '%s'", path);
    if (!err && !args->quiet)
        printf("Image resized.\n");
    return err;
}

static void list_snapshots(const struct image *image)
{
    unsigned count = image_snapshot_count(image);
    if (!count)
        return;
    printf("Snapshot list:\n%-8s %-24s %10s %-20s %15s\n", "ID", "TAG", "VM SIZE", "DATE",
           "VM CLOCK");
    for (unsigned i = 0; i < count; i++) {
        struct image_snapshot snapshot;
        char size[24], date[32];
        struct tm when;
        image_snapshot_get(image, i, &snapshot);
        time_t seconds = (time_t)snapshot.date_s;
        image_size_text(size, sizeof(size), snapshot.vm_state_size);
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", localtime_r(&seconds, &when));
        uint64_t clock_s = snapshot.vm_clock_ns / NSEC_PER_SEC;
        printf("%-8s %-24s %10s %-20s   %02u:%02u:%02u.%03u\n", snapshot.id, snapshot.name, size,
               date, (unsigned)(clock_s / 3600), (unsigned)(clock_s / 60 % 60),
               (unsigned)(clock_s % 60), (unsigned)(snapshot.vm_clock_ns / NSEC_PER_MSEC % 1000));
    }
}

struct err *image_snapshot_run(const struct image_args *args, int *status)
{
    const char *path = args->word[0];
    bool list = !args->snapshot_action || args->snapshot_action == 'l';
    struct image *image;
    (void)status;
    /* Snapshots are about one layer: its backing is not asked. */
    TRY(image_open_one(args, path, args->format, list ? 0 : IMAGE_OPEN_WRITABLE, &image));
    struct err *err = NULL;
    if (list)
        list_snapshots(image);
    else if (args->snapshot_action == 'c')
        err = image_snapshot_create(image, args->snapshot);
    else if (args->snapshot_action == 'a')
        err = image_snapshot_apply(image, args->snapshot);
    else
        err = image_snapshot_delete(image, args->snapshot);
    int result = image_close(image);
    if (!err && result)
        err = err_errno(-result, "cannot write its tables");
    return err_wrap(err, "'%s'", path);
}
