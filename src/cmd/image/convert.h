/*
 * `tenon image`: one disk into a new image or into one that exists; for convert and dd.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_IMAGE_CONVERT_H
#define TENON_CMD_IMAGE_CONVERT_H

#include "block/job/copy.h"
#include "cmd/image/image.h"

struct image_copy {
    const struct image_args *args;
    char *const *source_path; /* one behind the other */
    unsigned source_count;
    const char *source_name, *target_name; /* source_name: for errors */
    struct image *source, *target;         /* target: set and closed by image_copy_run() */
    uint64_t offset, length;               /* of the source, bytes */
};
struct err *image_copy_run(struct image_copy *copy);

/*
 * standard.c: a name that is "-" becomes that of what standard input has, which `input` has room
 * for; not for qemu-img, which knows no such name.
 */
#define IMAGE_INPUT_PATH 40
struct err *image_standard_sources(const struct image_args *args, char **path, unsigned count,
                                   char *input);
/* The disk of `copy`, by `copy_data`, to standard output. */
struct err *image_standard_output(struct image_copy *copy, const struct block_driver *driver,
                                  struct err *(*copy_data)(const struct image_copy *copy));

#endif
