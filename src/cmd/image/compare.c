/*
 * tenon image compare: do two images hold the same?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <string.h>

#include "block/job/compare.h"
#include "cmd/image/image.h"

static struct err *compare(const struct image_args *args, const struct image_readers readers[2],
                           int *status)
{
    struct image_progress progress;
    struct compare_job job = {.workers = MIN(readers[0].count, readers[1].count),
                              .name = {args->word[0], args->word[1]},
                              .progress = image_progress_at,
                              .opaque = &progress};
    uint64_t size[2];
    for (unsigned i = 0; i < 2; i++) {
        memcpy(job.image[i], readers[i].image, sizeof(job.image[i]));
        size[i] = image_size(readers[i].image[0]);
    }
    image_progress_begin(&progress, args, MAX(size[0], size[1]));
    TRY(compare_job_run(&job));
    *status = job.differ;
    if (!job.differ)
        image_progress_end(&progress);
    if (args->quiet || args->json)
        return NULL;
    if (job.differ) {
        printf("Content mismatch at offset %llu!\n", (unsigned long long)job.offset);
        return NULL;
    }
    if (size[0] != size[1])
        printf("Warning: Image size mismatch!\n");
    printf("Images are identical.\n");
    return NULL;
}

struct err *image_compare_run(const struct image_args *args, int *status)
{
    const char *format[2] = {args->format, args->backing_format};
    unsigned workers = args->workers ? args->workers : job_default_workers();
    struct image_readers readers[2] = {0};
    struct err *err = NULL;
    for (unsigned i = 0; i < 2 && !err; i++)
        err = image_readers_open(&readers[i], args, &args->word[i], 1, format[i], NULL, workers);
    if (!err && args->strict &&
        image_size(readers[0].image[0]) != image_size(readers[1].image[0])) {
        *status = 1;
        if (!args->quiet)
            printf("Strict mode: Image size mismatch!\n");
    } else if (!err) {
        err = compare(args, readers, status);
    }
    for (unsigned i = 0; i < 2; i++)
        image_readers_close(&readers[i]);
    return err;
}
