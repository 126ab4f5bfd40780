/*
 * tenon image measure: what a new image would take.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>

#include "cmd/image/image.h"

/* Bytes of the units that have data. */
static struct err *count_data(struct image *image, uint64_t unit, uint64_t *data)
{
    uint64_t size = image_size(image), counted = 0; /* everything before is */
    *data = 0;
    for (uint64_t at = 0; at < size;) {
        struct image_extent extent;
        unsigned depth;
        int result = image_extent_chain(image, at, size - at, &extent, &depth);
        if (result)
            return err_errno(-result, "cannot read its map");
        if (!(extent.flags & IMAGE_EXTENT_ZERO)) {
            uint64_t first = MAX(at / unit * unit, counted);
            counted = (at + extent.length + unit - 1) / unit * unit;
            *data += counted - MIN(first, counted);
        }
        at += extent.length;
    }
    return NULL;
}

static struct err *print(const struct image_args *args, uint64_t required, uint64_t full)
{
    if (args->json)
        return image_print_json(json_pack("{s:I,s:I}", "required", (json_int_t)required,
                                          "fully-allocated", (json_int_t)full));
    printf("required size: %llu\nfully allocated size: %llu\n", (unsigned long long)required,
           (unsigned long long)full);
    return NULL;
}

static struct err *measure(const struct image_args *args, struct image *image)
{
    struct err *err = NULL;
    const struct block_driver *driver =
        image_format(args->out_format ? args->out_format : "raw", &err);
    TRY(err);
    struct image_create create = {
        .size = ALIGN_UP(image ? image_size(image) : args->size, (uint64_t)IMAGE_SECTOR),
        .option = args->option,
        .option_count = args->option_count};
    struct image_measure need;
    TRY(image_measure(driver, &create, &need));
    uint64_t whole =
        need.unit ? (create.size + need.unit - 1) / need.unit * need.unit : create.size;
    uint64_t data = need.unit ? 0 : whole;
    if (image && need.unit)
        TRY(err_wrap(count_data(image, need.unit, &data), "'%s'", args->word[0]));
    return print(args, need.metadata + data, need.metadata + whole);
}

struct err *image_measure_run(const struct image_args *given, int *status)
{
    struct image_args args = *given;
    struct image *image = NULL;
    struct err *err = NULL;
    (void)status;
    image_backing_options(&args);
    if (!args.size == !args.word_count)
        return err_of(ERR_USAGE, "measure: either a file or --size is needed");
    if (args.word_count)
        TRY(image_open_chain(&args, args.word[0], args.format, 0, &image));
    if (image && args.snapshot)
        err = err_wrap(image_snapshot_load(image, args.snapshot), "'%s'", args.word[0]);
    if (!err)
        err = measure(&args, image);
    image_close(image);
    return err;
}
