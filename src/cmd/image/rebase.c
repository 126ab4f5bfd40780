/*
 * tenon image rebase: another image below an overlay. Unless -u says that both hold the same, what
 * the overlay would show differently is copied into it first.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "block/job/copy.h"
#include "cmd/image/image.h"

static struct err *copy_up(const struct image_args *args, struct image *top,
                           const struct image_readers *old, const struct image_readers *new)
{
    struct copy_job job;
    copy_job_init(&job, old->image[0], top);
    job.workers = old->count;
    memcpy(job.source, old->image, sizeof(job.source));
    memcpy(job.base, new->image, sizeof(job.base));
    job.depth_min = 1;
    job.unit = IMAGE_SECTOR; /* a layer may decide as little as that */
    job.find_zeros = false;
    job.target_zero = !new->count; /* nothing below will read as zeros */
    job.source_name = job.target_name = args->word[0];
    struct image_progress progress;
    image_progress_begin(&progress, args, job.length);
    job.progress = image_progress_at;
    job.opaque = &progress;
    TRY(copy_job_run(&job));
    image_progress_end(&progress);
    int result = image_flush(top);
    return result ? err_errno(-result, "cannot write") : NULL;
}

static struct err *keep_contents(const struct image_args *args, struct image *top)
{
    unsigned workers = args->workers ? args->workers : job_default_workers();
    struct image_args own = *args;
    struct image_readers old = {0}, new = {0};
    scoped(free_cleanup) char *path = NULL;
    own.unlocked = true;
    struct err *err = image_readers_open(&old, &own, args->word, 1, args->format, NULL, workers);
    if (!err && args->backing)
        err = image_backing_path(args->word[0], args->backing, &path);
    if (!err && args->backing)
        err = image_readers_open(&new, args, &path, 1, args->backing_format, NULL, workers);
    if (!err)
        err = copy_up(args, top, &old, &new);
    image_readers_close(&new);
    image_readers_close(&old);
    return err;
}

struct err *image_rebase_run(const struct image_args *given, int *status)
{
    struct image_args args = *given;
    const char *path = args.word[0];
    struct image *top;
    (void)status;
    if (!args.backing)
        return err_of(ERR_USAGE, "rebase: -b is needed: the new backing file, or '' for none");
    if (!args.backing[0])
        args.backing = args.backing_format = NULL;
    if (args.backing && !args.backing_format)
        return err_of(ERR_USAGE, "-b needs -F: what format '%s' has must not be guessed later",
                      args.backing);
    struct err *err = NULL;
    if (args.backing_format && !image_format(args.backing_format, &err))
        return err;
    if (args.unchecked) {
        TRY(image_open_one(&args, path, args.format, IMAGE_OPEN_WRITABLE, &top));
    } else {
        TRY(image_open_chain(&args, path, args.format, IMAGE_OPEN_WRITABLE, &top));
        err = keep_contents(&args, top);
    }
    if (!err)
        err = image_set_backing_name(top, args.backing, args.backing_format);
    return image_finish(top, err, path);
}
