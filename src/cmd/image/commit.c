/*
 * tenon image commit: what an overlay holds goes into the image below it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/job/copy.h"
#include "cmd/image/image.h"

struct commit {
    const struct image_args *args;
    struct image_readers top;
    char *base_path;
    unsigned depth; /* of the base */
};

/* The base: the next image below, or the one that -b names as the chain names it. */
static struct err *find_base(struct commit *c, const char **format)
{
    const struct image_args *args = c->args;
    struct image *at = c->top.image[0];
    c->base_path = xstrdup(args->word[0]);
    for (c->depth = 0; image_backing(at);) {
        char *next = NULL;
        const char *name = image_backing_name(at);
        TRY(image_backing_path(c->base_path, name, &next));
        bool guessed = !image_backing_format(at);
        free(c->base_path);
        c->base_path = next;
        at = image_backing(at);
        *format = image_driver_name(image_driver(at));
        c->depth++;
        if (args->backing && strcmp(args->backing, name) && strcmp(args->backing, next))
            continue;
        /* What a guest wrote into the overlay must not become another format by being copied. */
        if (guessed && !strcmp(*format, "raw"))
            return err_new(
                "it does not say what format '%s' has, and 'raw' was only guessed: say it "
                "with rebase -u -b '%s' -F raw",
                name, name);
        return NULL;
    }
    if (args->backing)
        return err_new("'%s' is not in its chain of backing files", args->backing);
    return err_new("it has no backing file to commit into");
}

static struct err *copy_down(struct commit *c, struct image *base)
{
    const struct image_args *args = c->args;
    struct image *top = c->top.image[0];
    if (image_size(base) < image_size(top))
        TRY(image_resize(base, image_size(top)));
    struct copy_job job;
    copy_job_init(&job, top, base);
    job.workers = c->top.count;
    memcpy(job.source, c->top.image, sizeof(job.source));
    job.depth_max = c->depth - 1;
    job.unit = IMAGE_SECTOR; /* a layer may decide as little as that */
    job.find_zeros = false;
    job.rate = args->rate;
    job.source_name = args->word[0];
    job.target_name = c->base_path;
    struct image_progress progress;
    image_progress_begin(&progress, args, job.length);
    job.progress = image_progress_at;
    job.opaque = &progress;
    TRY(copy_job_run(&job));
    image_progress_end(&progress);
    return NULL;
}

/* `top` has the lock that keeps others away from the layers; the readers ask for none. */
static struct err *commit(struct commit *c, struct image *top)
{
    const struct image_args *args = c->args;
    struct image_args own = *args;
    unsigned workers = args->workers ? args->workers : job_default_workers();
    const char *format = NULL;
    struct image *base;
    own.unlocked = true;
    if (!args->drop && !args->backing && !image_can_be_emptied(top))
        return err_of(ERR_USAGE,
                      "'%s': a %s image cannot be emptied: add -d, which leaves it as it is",
                      args->word[0], image_driver_name(image_driver(top)));
    TRY(image_readers_open(&c->top, &own, args->word, 1, args->format, NULL, workers));
    TRY(err_wrap(find_base(c, &format), "'%s'", args->word[0]));
    TRY(image_open_chain(args, c->base_path, format, IMAGE_OPEN_WRITABLE, &base));
    TRY(image_finish(base, copy_down(c, base), c->base_path));
    /* With -b the images between would show what is no longer theirs: the top stays as it is. */
    return args->drop || args->backing ? NULL : image_empty(top);
}

struct err *image_commit_run(const struct image_args *args, int *status)
{
    struct commit c = {.args = args};
    struct image *top;
    (void)status;
    TRY(image_open_one(args, args->word[0], args->format, IMAGE_OPEN_WRITABLE, &top));
    struct err *err = commit(&c, top);
    image_readers_close(&c.top);
    free(c.base_path);
    TRY(image_finish(top, err, args->word[0]));
    if (!args->quiet)
        printf("Image committed.\n");
    return NULL;
}
