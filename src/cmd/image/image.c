/*
 * tenon image: disk images: look, create, convert, check, compare, grow.
 *
 * The verbs and option letters are those of qemu-img, so that scripts work; unlike it, nothing that
 * exists is overwritten without --force.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "cmd/image/image.h"

static const struct image_verb verbs[] = {
    {"check", "check [-f FORMAT] [--repair[=leaks|all]] [--json] FILE",
     "Look for damage and leaked clusters", 1, 1, image_check_run},
    {"compare", "compare [-f FORMAT] [-F FORMAT] [-s] FILE FILE", "Compare what two images hold", 2,
     2, image_compare_run},
    {"convert", "convert [-f FORMAT] [-O FORMAT] [-c] [-o OPTIONS] [--force] FILE TARGET",
     "Copy an image into another format", 2, 2, image_convert_run},
    {"create", "create [-f FORMAT] [-o OPTIONS] [-b BACKING [-F FORMAT]] [--force] FILE [SIZE]",
     "Make an empty image", 1, 2, image_create_run},
    {"info", "info [-f FORMAT] [--json] FILE", "Say what an image is", 1, 1, image_info_run},
    {"map", "map [-f FORMAT] [--json] FILE", "List what is where", 1, 1, image_map_run},
    {"resize", "resize [-f FORMAT] [--shrink] FILE [+]SIZE", "Make an image larger", 2, 2,
     image_resize_run},
    {"snapshot", "snapshot [-f FORMAT] [-l | -c NAME | -a NAME | -d NAME] FILE",
     "List, create, apply or delete internal snapshots", 1, 1, image_snapshot_run},
};

static struct err *find_verb(const char *name, const struct image_verb **verb)
{
    const char *names[ARRAY_SIZE(verbs) + 1] = {0}, *near;
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
        names[i] = verbs[i].name;
        if (!strcmp(verbs[i].name, name)) {
            *verb = &verbs[i];
            return NULL;
        }
    }
    near = nearest_name(name, names);
    if (near)
        return err_of(ERR_USAGE, "image: unknown verb '%s': did you mean '%s'?", name, near);
    return err_of(ERR_USAGE, "image: unknown verb '%s': see `tenon help image`", name);
}

static struct err *image(int argc, char **argv, uint64_t started_ns, int *status)
{
    const struct image_verb *verb = NULL;
    (void)started_ns;
    if (argc < 2)
        return err_of(ERR_USAGE, "image: no verb: see `tenon help image`");
    TRY(find_verb(argv[1], &verb));
    struct image_args args;
    struct err *err = image_args_parse(&args, verb, argc - 2, argv + 2);
    if (!err)
        err = verb->run(&args, status);
    image_args_fini(&args);
    return err;
}

static const struct option_spec options[] = {
    {"format", "FORMAT", "-f: what the image is; without it, its first bytes tell."},
    {"output-format", "FORMAT", "-O: what a converted image becomes; raw if not given."},
    {"options", "NAME=VALUE,...", "-o: options of the new image's format, as qemu-img names them."},
    {"compress", NULL, "-c: compress (convert)."},
    {"backing-file", "FILE", "-b: the image below a new one; its format with -F."},
    {"no-create", NULL, "-n: convert into an image that exists."},
    {"force", NULL, "Overwrite what exists."},
    {"repair", NULL,
     "Free leaked clusters (check); --repair=all also sets counts that are too low."},
    {"json", NULL, "Print JSON, as does --output=json."},
    {"progress", NULL, "-p: show progress; on a terminal it is shown anyhow, unless -q."},
    {"force-share", NULL, "-U: read an image although a VM writes to it."},
    {"workers", "N", "-m: threads that read and compress."},
    {"strict", NULL, "-s: images of different size differ (compare)."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

static void help_more(struct buf *out)
{
    buf_text(out, "\nVerbs:\n");
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        buf_printf(out, "  %s\n      %s.\n", verbs[i].usage, verbs[i].summary);
    buf_text(out, "\nFormats:");
    for (unsigned i = 0; image_driver_at(i); i++)
        buf_printf(out, " %s", image_driver_name(image_driver_at(i)));
    buf_text(out, "\n");
}

const struct command command_image = {
    .name = "image",
    .usage = "image VERB [OPTIONS] FILE ...",
    .summary = "Look at, create, convert, check and grow disk images",
    .run = image,
    .options = options,
    .help_more = help_more,
};
