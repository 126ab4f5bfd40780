/*
 * tenon image convert and dd: a disk copied into a new image, or into one that exists.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "block/job/compare.h"
#include "block/proto/remote.h"
#include "cmd/image/convert.h"

/* Raw to raw on a file system that shares blocks: no byte is copied. */
static bool reflink(const struct image_copy *copy)
{
    const struct image_args *args = copy->args;
    const struct block_driver *raw = image_driver_find("raw");
    if (args->no_create || copy->offset || copy->length != image_size(copy->source) ||
        args->write_zeros || image_driver(copy->source) != raw || image_driver(copy->target) != raw)
        return false;
    int from = image_fd(image_file(copy->source)), to = image_fd(image_file(copy->target));
    return from >= 0 && to >= 0 && ioctl(to, FICLONE, from) == 0;
}

static struct err *run_job(const struct image_copy *copy, const struct image_readers *readers,
                           const struct image_readers *base)
{
    const struct image_args *args = copy->args;
    struct copy_job job;
    copy_job_init(&job, copy->source, copy->target);
    job.workers = readers->count;
    memcpy(job.source, readers->image, sizeof(job.source));
    memcpy(job.base, base->image, sizeof(job.base));
    job.source_offset = copy->offset;
    job.length = copy->length;
    job.compress = args->compress;
    job.target_zero = (!args->no_create && !args->backing) || args->target_is_zero;
    job.write_zeros = args->write_zeros;
    job.find_zeros = !args->write_zeros;
    if (args->sparse_size && JOB_PIECE % args->sparse_size == 0)
        job.unit = MAX(job.unit, args->sparse_size);
    job.salvage = args->salvage;
    job.offload = args->offload;
    job.rate = args->rate;
    job.source_name = copy->source_name;
    job.target_name = copy->target_name;
    struct image_progress progress;
    image_progress_begin(&progress, args, job.length);
    job.progress = image_progress_at;
    job.opaque = &progress;
    TRY(copy_job_run(&job));
    image_progress_end(&progress);
    if (job.unreadable)
        fprintf(stderr, "tenon: %llu bytes of '%s' could not be read and are zeros now\n",
                (unsigned long long)job.unreadable, copy->source_name);
    return NULL;
}

static struct err *copy_data(const struct image_copy *copy)
{
    const struct image_args *args = copy->args;
    unsigned workers = args->workers ? args->workers : job_default_workers();
    struct image_readers readers = {0}, base = {0};
    struct err *err = image_readers_open(&readers, args, copy->source_path, copy->source_count,
                                         args->format, copy->source, workers);
    if (!err && args->backing) {
        scoped(free_cleanup) char *path = NULL;
        err = image_backing_path(copy->target_name, args->backing, &path);
        if (!err)
            err = image_readers_open(&base, args, &path, 1, args->backing_format, NULL, workers);
    }
    if (!err)
        err = run_job(copy, &readers, &base);
    image_readers_close(&base);
    image_readers_close(&readers);
    return err;
}

/* With the secret that its options named. */
static struct err *unlock_new(const struct image_args *args, const char *path, struct image *image)
{
    const char *id = NULL;
    for (unsigned i = 0; i < args->option_count; i++)
        if (strstr(args->option[i].name, "key-secret"))
            id = args->option[i].value;
    return image_unlock_open(args, path, id, image);
}

/* Reads the new image again and compares it with its source. */
static struct err *verify(const struct image_copy *copy, int fd, const struct block_driver *driver,
                          const struct image_files *files)
{
    struct image *file, *image;
    int again = dup(fd);
    if (again < 0)
        return err_errno(errno, "cannot read it again");
    TRY(image_open_fd(again, 0, &file));
    TRY(image_open(file, driver, 0, files, &image));
    struct err *err = NULL;
    if (image_backing_name(image))
        err = image_open_backing(copy->args, copy->target_name, false, image);
    if (!err)
        err = unlock_new(copy->args, copy->target_name, image);
    struct compare_job job = {.workers = 1,
                              .image = {{copy->source}, {image}},
                              .name = {copy->source_name, copy->target_name}};
    if (!err)
        err = compare_job_run(&job);
    image_close(image);
    if (!err && job.differ)
        err = err_new("it differs from '%s' at byte %llu", copy->source_name,
                      (unsigned long long)job.offset);
    return err;
}

/* Would the copy fit? Only where that can be known: not for what is compressed. */
static struct err *check_space(const struct image_copy *copy, int fd)
{
    struct statvfs room;
    if (copy->args->compress || copy->args->force || fstatvfs(fd, &room) < 0)
        return NULL;
    uint64_t needed = 0, room_bytes = (uint64_t)room.f_bavail * room.f_frsize;
    uint64_t end = MIN(copy->offset + copy->length, image_size(copy->source));
    for (uint64_t at = copy->offset; at < end && needed <= room_bytes;) {
        struct image_extent extent;
        unsigned depth;
        if (image_extent_chain(copy->source, at, end - at, &extent, &depth))
            return NULL; /* copying will say what is wrong */
        if (!(extent.flags & IMAGE_EXTENT_ZERO))
            needed += extent.length;
        at += extent.length;
    }
    if (needed <= room_bytes)
        return NULL;
    char free_text[24], needed_text[24];
    image_size_text(free_text, sizeof(free_text), room_bytes);
    image_size_text(needed_text, sizeof(needed_text), copy->length);
    return err_new("%s are free, and it may need %s: make room, compress with -c, or add --force",
                   free_text, needed_text);
}

static struct err *fill(struct image_copy *copy, struct image *take_file,
                        const struct block_driver *driver, const struct image_files *files)
{
    TRY(image_open(take_file, driver, IMAGE_OPEN_WRITABLE | IMAGE_OPEN_SCRATCH, files,
                   &copy->target));
    TRY(unlock_new(copy->args, copy->target_name, copy->target));
    if (image_backing_name(copy->target))
        TRY(image_open_backing(copy->args, copy->target_name, false, copy->target));
    if (image_size(copy->target) < copy->length)
        return err_new("it is smaller than '%s'", copy->source_name);
    return reflink(copy) ? NULL : copy_data(copy);
}

static struct err *into_new(struct image_copy *copy, const struct block_driver *driver,
                            struct image_new *file, struct image *take_image)
{
    const struct image_args *args = copy->args;
    struct image_files files;
    image_files_init(&files, args, copy->target_name);
    struct image_create create = {.size = copy->length,
                                  .option = args->option,
                                  .option_count = args->option_count,
                                  .backing_name = args->backing,
                                  .backing_format = args->backing_format,
                                  .files = &files};
    struct err *err = image_create_locked(args, copy->target_name, take_image, driver, &create);
    if (err)
        image_close(take_image);
    else
        err = fill(copy, take_image, driver, &files);
    int result = image_close(copy->target);
    if (!err && !result && !image_args_unsafe(args) && fdatasync(file->fd) < 0)
        result = -errno;
    if (!err && result)
        err = err_errno(-result, "cannot write");
    if (!err && args->verify)
        err = verify(copy, file->fd, driver, &files);
    image_files_fini(&files);
    return err;
}

static struct err *copy_new(struct image_copy *copy, const struct block_driver *driver)
{
    struct image_new file;
    struct image *image;
    struct err *err = image_new_begin(copy->target_name, copy->args->force, &file, &image);
    if (!err) {
        err = check_space(copy, file.fd);
        if (err)
            image_close(image);
        else
            err = into_new(copy, driver, &file, image);
        err = err_wrap(err, "'%s'", copy->target_name);
    }
    if (!err)
        err = image_new_keep(&file);
    image_new_fini(&file);
    return err;
}

static struct err *copy_existing(struct image_copy *copy, const char *format)
{
    const char *path = copy->target_name;
    if (copy->args->option_count)
        return err_of(ERR_USAGE, "-o is about a new image, and -n makes none");
    TRY(image_open_chain(copy->args, path, format, IMAGE_OPEN_WRITABLE, &copy->target));
    struct err *err = NULL;
    if (image_size(copy->target) < copy->length)
        err = err_new("it is smaller than '%s'", copy->source_name);
    if (!err)
        err = copy_data(copy);
    return image_finish(copy->target, err, path);
}

struct err *image_copy_run(struct image_copy *copy)
{
    const char *format = copy->args->out_format ? copy->args->out_format : "raw";
    struct err *err = NULL;
    const struct block_driver *driver = image_format(format, &err);
    TRY(err);
    if (!copy->args->qemu && !strcmp(copy->target_name, "-"))
        return image_standard_output(copy, driver, copy_data);
    if (image_is_remote(copy->target_name) && !copy->args->no_create)
        return err_of(ERR_USAGE, "'%s' is not made here: make it there, and use -n",
                      copy->target_name);
    return copy->args->no_create ? copy_existing(copy, format) : copy_new(copy, driver);
}

static struct err *check_words(const struct image_args *args)
{
    if (args->backing && !args->backing_format)
        return err_of(ERR_USAGE, "-B needs -F: what format '%s' has must not be guessed later",
                      args->backing);
    if (args->offload && (args->compress || args->sparse_size || args->write_zeros))
        return err_of(ERR_USAGE, "-C copies as it is: not with -c or -S");
    if (args->word_count > 2 && (args->backing || args->snapshot))
        return err_of(ERR_USAGE, "-B and -l are about one image, not about several in a row");
    return NULL;
}

/* "a', 'b": the names of all, between the quotes of an error. */
static char *list_names(char *const *name, unsigned count)
{
    char *list = xstrdup(name[0]);
    for (unsigned i = 1; i < count; i++) {
        char *longer = xasprintf("%s', '%s", list, name[i]);
        free(list);
        list = longer;
    }
    return list;
}

struct err *image_convert_run(const struct image_args *given, int *status)
{
    struct image_args args = *given;
    char input[IMAGE_INPUT_PATH];
    unsigned count = (unsigned)args.word_count - 1;
    scoped(free_cleanup) char *names = list_names(args.word, count);
    struct image_copy copy = {.args = &args,
                              .source_path = args.word,
                              .source_count = count,
                              .source_name = names,
                              .target_name = args.word[count]};
    (void)status;
    image_backing_options(&args);
    TRY(check_words(&args));
    TRY(image_standard_sources(&args, args.word, count, input));
    TRY(image_open_joined(&args, args.word, count, args.format, &copy.source));
    struct err *err = NULL;
    if (args.snapshot)
        err = err_wrap(image_snapshot_load(copy.source, args.snapshot), "'%s'", copy.source_name);
    copy.length = image_size(copy.source);
    if (!err)
        err = image_copy_run(&copy);
    image_close(copy.source);
    return err;
}
