/*
 * tenon image amend: options of an image that exists.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "cmd/image/image.h"

static struct err *amend(struct image_args *args, struct image *image)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < args->option_count; i++) {
        const struct image_option *option = &args->option[i];
        uint64_t size;
        if (strcmp(option->name, "size")) {
            args->option[kept++] = *option;
            continue;
        }
        TRY(image_parse_size(option->value, &size));
        if (size < image_size(image) && !args->force)
            return err_of(ERR_USAGE, "it would lose its end: use resize --shrink");
        TRY(image_resize(image, size));
    }
    if (args->backing)
        TRY(image_set_backing_name(image, args->backing[0] ? args->backing : NULL,
                                   args->backing_format));
    return kept ? image_amend(image, args->option, kept) : NULL;
}

struct err *image_amend_run(const struct image_args *given, int *status)
{
    struct image_args args = *given;
    struct image *image;
    (void)status;
    if (!args.option_count)
        return err_of(ERR_USAGE, "amend: -o is needed: tenon image amend -o compat=1.1 %s",
                      args.word[0]);
    image_backing_options(&args);
    /* Growing must know what lies below. */
    TRY(image_open_chain(&args, args.word[0], args.format, IMAGE_OPEN_WRITABLE, &image));
    return image_finish(image, amend(&args, image), args.word[0]);
}
