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
    const char *source_name, *target_name;
    struct image *source, *target; /* target: set and closed by image_copy_run() */
    uint64_t offset, length;       /* of the source, bytes */
};
struct err *image_copy_run(struct image_copy *copy);

#endif
