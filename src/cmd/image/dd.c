/*
 * tenon image dd: a stretch of an image into a new one, with dd's operands.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/checked.h"
#include "cmd/image/convert.h"

struct operands {
    char *from, *to;
    uint64_t block, count, skip;
    bool counted;
};

static struct err *parse(const struct image_args *args, struct operands *out)
{
    *out = (struct operands){.block = 512};
    for (int i = 0; i < args->word_count; i++) {
        char *word = args->word[i], *value = strchr(word, '=');
        size_t length = value ? (size_t)(value++ - word) : 0;
        if (length == 2 && !strncmp(word, "if", 2))
            out->from = value;
        else if (length == 2 && !strncmp(word, "of", 2))
            out->to = value;
        else if (length == 2 && !strncmp(word, "bs", 2))
            TRY(image_parse_size(value, &out->block));
        else if (length == 4 && !strncmp(word, "skip", 4))
            TRY(image_parse_size(value, &out->skip));
        else if (length == 5 && !strncmp(word, "count", 5))
            TRY(image_parse_size(value, &out->count));
        else
            return err_of(ERR_USAGE, "dd: '%s' is none of if=, of=, bs=, count=, skip=", word);
        out->counted = out->counted || !strncmp(word, "count=", 6);
    }
    if (!out->from || !out->to)
        return err_of(ERR_USAGE, "dd: if= and of= are needed");
    if (!out->block)
        return err_of(ERR_USAGE, "dd: bs= is at least 1");
    return NULL;
}

struct err *image_dd_run(const struct image_args *args, int *status)
{
    struct operands operands;
    char input[IMAGE_INPUT_PATH];
    (void)status;
    TRY(parse(args, &operands));
    struct image_copy copy = {.args = args,
                              .source_path = &operands.from,
                              .source_count = 1,
                              .source_name = operands.from,
                              .target_name = operands.to};
    if (!checked_mul(operands.block, operands.skip, &copy.offset) ||
        !checked_mul(operands.block, operands.count, &copy.length))
        return err_of(ERR_USAGE, "dd: the size is beyond what a file can be");
    TRY(image_standard_sources(args, &operands.from, 1, input));
    TRY(image_open_chain(args, operands.from, args->format, 0, &copy.source));
    uint64_t size = image_size(copy.source);
    uint64_t left = copy.offset < size ? size - copy.offset : 0;
    copy.length = operands.counted ? MIN(copy.length, left) : left;
    struct err *err = image_copy_run(&copy);
    image_close(copy.source);
    return err;
}
