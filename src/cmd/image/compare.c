/*
 * tenon image compare: do two images hold the same?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/image/image.h"

#define PIECE MIB(2)

struct comparing {
    struct image *image[2];
    uint8_t *data[2];
};

/* The first byte that differs in this stretch, or `length`. */
static int compare_stretch(struct comparing *c, uint64_t at, uint64_t length, uint64_t *same)
{
    for (unsigned i = 0; i < 2; i++) {
        uint64_t size = image_size(c->image[i]);
        uint64_t have = at < size ? MIN(length, size - at) : 0;
        memset(c->data[i] + have, 0, length - have);
        int result = have ? image_read(c->image[i], c->data[i], at, have) : 0;
        if (result)
            return result;
    }
    *same = length;
    if (memcmp(c->data[0], c->data[1], length))
        for (*same = 0; c->data[0][*same] == c->data[1][*same];)
            ++*same;
    return 0;
}

/* Do both say that this stretch is zero? Sets how long that holds. */
static bool both_zero(struct comparing *c, uint64_t at, uint64_t *length)
{
    for (unsigned i = 0; i < 2; i++) {
        struct image_extent extent;
        unsigned depth;
        uint64_t size = image_size(c->image[i]);
        if (at >= size)
            continue;
        if (image_extent_chain(c->image[i], at, MIN(*length, size - at), &extent, &depth) ||
            !(extent.flags & IMAGE_EXTENT_ZERO))
            return false;
        *length = extent.length;
    }
    return true;
}

static struct err *compare(struct comparing *c, const struct image_args *args, int *status)
{
    uint64_t end = MAX(image_size(c->image[0]), image_size(c->image[1]));
    struct image_progress progress;
    image_progress_begin(&progress, args, end);
    for (uint64_t at = 0; at < end;) {
        uint64_t length = end - at, same;
        if (both_zero(c, at, &length)) {
            at += length;
            continue;
        }
        length = MIN(end - at, PIECE);
        int result = compare_stretch(c, at, length, &same);
        if (result)
            return err_errno(-result, "cannot read near byte %llu", (unsigned long long)at);
        if (same < length) {
            *status = 1;
            if (!args->quiet)
                printf("Content mismatch at offset %llu!\n", (unsigned long long)(at + same));
            return NULL;
        }
        at += length;
        image_progress_at(&progress, at);
    }
    image_progress_end(&progress);
    if (image_size(c->image[0]) != image_size(c->image[1]) && !args->quiet)
        printf("Warning: Image size mismatch!\n");
    if (!args->quiet)
        printf("Images are identical.\n");
    return NULL;
}

struct err *image_compare_run(const struct image_args *args, int *status)
{
    struct comparing c = {0};
    TRY(image_open_chain(args, args->word[0], args->format, 0, &c.image[0]));
    struct err *err = image_open_chain(args, args->word[1], args->backing_format, 0, &c.image[1]);
    for (unsigned i = 0; i < 2; i++)
        c.data[i] = malloc(PIECE);
    if (!err && (!c.data[0] || !c.data[1]))
        err = err_new("no memory for buffers");
    if (!err && args->strict && image_size(c.image[0]) != image_size(c.image[1])) {
        *status = 1;
        if (!args->quiet)
            printf("Strict mode: Image size mismatch!\n");
    } else if (!err) {
        err = compare(&c, args, status);
    }
    for (unsigned i = 0; i < 2; i++) {
        free(c.data[i]);
        image_close(c.image[i]);
    }
    return err;
}
