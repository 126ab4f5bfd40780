/*
 * tenon image resize.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>

#include "base/checked.h"
#include "cmd/image/image.h"

struct err *image_resize_run(const struct image_args *args, int *status)
{
    const char *path = args->word[0], *text = args->word[1];
    bool more = text[0] == '+', less = text[0] == '-';
    uint64_t size;
    struct image *image;
    (void)status;
    TRY(image_parse_size(text + (more || less), &size));
    /* What is cut off gives its room back. */
    unsigned flags = IMAGE_OPEN_WRITABLE | (args->shrink ? (unsigned)IMAGE_OPEN_DISCARD : 0);
    TRY(image_open_chain(args, path, args->format, flags, &image));
    struct err *err = NULL;
    if (!args->format && image_driver(image) == image_driver_find("raw") && !args->quiet)
        fprintf(stderr, "tenon: '%s' has no known format: resized as raw\n", path);
    if (more && !checked_add(size, image_size(image), &size))
        err = err_of(ERR_USAGE, "the size is beyond what a file can be");
    if (less && size > image_size(image))
        err = err_of(ERR_USAGE, "it has fewer bytes than that");
    else if (less)
        size = image_size(image) - size;
    if (!err && size < image_size(image) && !args->shrink)
        err = err_of(ERR_USAGE, "it would lose its end: add --shrink if that is what you want");
    if (!err)
        err = image_resize(image, size);
    TRY(image_finish(image, err, path));
    if (!args->quiet)
        printf("Image resized.\n");
    return NULL;
}
