/*
 * tenon image: disk images: look, create, convert, check, compare, grow.
 *
 * The verbs and option letters are those of qemu-img, so that scripts work; unlike it, nothing that
 * exists is overwritten without --force.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "cmd/image.h"

/* Letters of options that have none. */
#define FORCE '\1'
#define REPAIR '\2'
#define OUTPUT '\3'
#define SHRINK '\4'
#define JSON '\5'
#define CHAIN '\6'
#define BACKING '\7'

static const struct image_verb verbs[] = {
    {"check", "check [-f FORMAT] [--repair[=leaks|all]] [--json] FILE",
     "Look for damage and leaked clusters", "fqUrTO\2\3\5", 1, 1, image_check_run},
    {"compare", "compare [-f FORMAT] [-F FORMAT] [-s] FILE FILE", "Compare what two images hold",
     "fFpqsTU", 2, 2, image_compare_run},
    {"convert", "convert [-f FORMAT] [-O FORMAT] [-c] [-o OPTIONS] [--force] FILE TARGET",
     "Copy an image into another format", "fOcopqnmWtTUS\1\5", 2, 2, image_convert_run},
    {"create", "create [-f FORMAT] [-o OPTIONS] [-b BACKING [-F FORMAT]] [--force] FILE [SIZE]",
     "Make an empty image", "fobFqu\1\5", 1, 2, image_create_run},
    {"info", "info [-f FORMAT] [--json] FILE", "Say what an image is", "fUTt\3\5\6", 1, 1,
     image_info_run},
    {"map", "map [-f FORMAT] [--json] FILE", "List what is where", "fU\3\5", 1, 1, image_map_run},
    {"resize", "resize [-f FORMAT] [--shrink] FILE [+]SIZE", "Make an image larger", "fq\4", 2, 2,
     image_resize_run},
    {"snapshot", "snapshot [-f FORMAT] [-l | -c NAME | -a NAME | -d NAME] FILE",
     "List, create, apply or delete internal snapshots", "fqUlcad", 1, 1, image_snapshot_run},
};

struct image_option_spec {
    char letter;
    const char *name;
    bool value;
};

static const struct image_option_spec specs[] = {
    {'f', "format", true},       {'O', "output-format", true},  {'o', "options", true},
    {'c', "compress", false},    {'p', "progress", false},      {'q', "quiet", false},
    {'n', "no-create", false},   {'m', "workers", true},        {'W', "out-of-order", false},
    {'t', "target-cache", true}, {'T', "cache", true},          {'S', "sparse", true},
    {'b', "backing-file", true}, {'F', "backing-format", true}, {'U', "force-share", false},
    {'u', "unchecked", false},   {'s', "strict", false},        {'r', "repair-mode", true},
    {'l', "list", false},        {'a', "apply", true},          {'d', "delete", true},
    {FORCE, "force", false},     {REPAIR, "repair", false},     {OUTPUT, "output", true},
    {SHRINK, "shrink", false},   {JSON, "json", false},         {CHAIN, "backing-chain", false},
};

static const struct image_option_spec *find_option(const char *name, size_t length, char letter)
{
    for (size_t i = 0; i < ARRAY_SIZE(specs); i++)
        if (name ? strlen(specs[i].name) == length && !strncmp(specs[i].name, name, length)
                 : specs[i].letter == letter)
            return &specs[i];
    return NULL;
}

/* -o a=b,c=d; two commas are one that belongs to the value. */
static struct err *take_options(struct image_args *args, const char *text)
{
    char *copy = xstrdup(text), *in = copy, *out = copy, *start = copy;
    if (args->option_count == IMAGE_OPTIONS_MAX) {
        free(copy);
        return err_of(ERR_USAGE, "too many options");
    }
    args->option_text[args->option_count] = copy;
    for (bool end = false; !end;) {
        if (*in == ',' && in[1] == ',') {
            *out++ = ',';
            in += 2;
            continue;
        }
        if (*in && *in != ',') {
            *out++ = *in++;
            continue;
        }
        end = !*in++;
        *out++ = 0;
        char *equals = strchr(start, '=');
        if (!equals || equals == start || args->option_count == IMAGE_OPTIONS_MAX)
            return err_of(ERR_USAGE, "option '%s': write NAME=VALUE", start);
        *equals = 0;
        args->option[args->option_count++] =
            (struct image_option){.name = start, .value = equals + 1};
        start = out;
    }
    return NULL;
}

static struct err *set_output(struct image_args *args, const char *value)
{
    args->json = !strcmp(value, "json");
    if (!args->json && strcmp(value, "human"))
        return err_of(ERR_USAGE, "output is json or human, not '%s'", value);
    return NULL;
}

static struct err *set_repair(struct image_args *args, const char *value)
{
    args->repair = !strcmp(value, "all") ? REPAIR_ALL : REPAIR_LEAKS;
    if (strcmp(value, "all") && strcmp(value, "leaks"))
        return err_of(ERR_USAGE, "repair is leaks or all, not '%s'", value);
    return NULL;
}

static struct err *take_snapshot(struct image_args *args, char action, const char *name)
{
    if (args->snapshot_action && args->snapshot_action != 'l')
        return err_of(ERR_USAGE, "one of -l, -c, -a and -d");
    args->snapshot_action = action;
    args->snapshot = name;
    return NULL;
}

static struct err *set_workers(struct image_args *args, const char *value)
{
    char *end;
    unsigned long count = strtoul(value, &end, 10);
    if (*end || !count || count > 16)
        return err_of(ERR_USAGE, "-m is a number from 1 to 16, not '%s'", value);
    args->workers = (unsigned)count;
    return NULL;
}

static struct err *take_option(struct image_args *args, char letter, const char *value)
{
    bool snapshot = !strcmp(args->verb, "snapshot");
    switch (letter) {
    case 'f':
        args->format = value;
        break;
    case 'O':
        args->out_format = value;
        break;
    case 'o':
        return take_options(args, value);
    case 'c':
        if (snapshot)
            return take_snapshot(args, 'c', value);
        args->compress = true;
        break;
    case 'l':
        return take_snapshot(args, 'l', NULL);
    case 'a':
    case 'd':
        return take_snapshot(args, letter, value);
    case 'p':
        args->progress = true;
        break;
    case 'q':
        args->quiet = true;
        break;
    case 'n':
        args->no_create = true;
        break;
    case 'm':
        return set_workers(args, value);
    case 'b':
        args->backing = value;
        break;
    case 'F':
        args->backing_format = value;
        break;
    case 'U':
        args->unlocked = true;
        break;
    case 'u':
        args->unchecked = true;
        break;
    case 's':
        args->strict = true;
        break;
    case 'S':
        args->sparse = value;
        break;
    case 'r':
        return set_repair(args, value);
    case REPAIR:
        return set_repair(args, value ? value : "leaks");
    case FORCE:
        args->force = true;
        break;
    case OUTPUT:
        return set_output(args, value);
    case SHRINK:
        args->shrink = true;
        break;
    case JSON:
        args->json = true;
        break;
    case CHAIN:
        args->backing_chain = true;
        break;
    default:
        break; /* W, t, T: accepted, without meaning here */
    }
    return NULL;
}

static bool takes(const struct image_verb *verb, char letter)
{
    return strchr(verb->letters, letter) != NULL;
}

static bool wants_value(const struct image_verb *verb, const struct image_option_spec *spec)
{
    return spec->value || (spec->letter == 'c' && !strcmp(verb->name, "snapshot"));
}

static struct err *unknown_option(const struct image_verb *verb, const char *word)
{
    const char *names[ARRAY_SIZE(specs) + 1], *near = NULL;
    size_t count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(specs); i++)
        if (takes(verb, specs[i].letter))
            names[count++] = specs[i].name;
    names[count] = NULL;
    if (!strncmp(word, "--", 2))
        near = nearest_name(word + 2, names);
    if (near)
        return err_of(ERR_USAGE, "image %s: unknown option '%s': did you mean '--%s'?", verb->name,
                      word, near);
    return err_of(ERR_USAGE, "image %s: unknown option '%s': usage: tenon image %s", verb->name,
                  word, verb->usage);
}

static struct err *parse_long(struct image_args *args, const struct image_verb *verb, char **argv,
                              int argc, int *i)
{
    char *word = argv[(*i)++], *equals = strchr(word, '=');
    size_t length = equals ? (size_t)(equals - word - 2) : strlen(word + 2);
    const struct image_option_spec *spec = find_option(word + 2, length, 0);
    const char *value = equals ? equals + 1 : NULL;
    if (!spec || !takes(verb, spec->letter))
        return unknown_option(verb, word);
    if (!wants_value(verb, spec) && value && spec->letter != REPAIR)
        return err_of(ERR_USAGE, "option '--%s' takes no value", spec->name);
    if (wants_value(verb, spec) && !value) {
        if (*i == argc)
            return err_of(ERR_USAGE, "option '--%s' needs a value", spec->name);
        value = argv[(*i)++];
    }
    return take_option(args, spec->letter, value);
}

/* -pc, -fraw, -f raw. */
static struct err *parse_letters(struct image_args *args, const struct image_verb *verb,
                                 char **argv, int argc, int *i)
{
    const char *word = argv[(*i)++];
    for (const char *at = word + 1; *at; at++) {
        const struct image_option_spec *spec = find_option(NULL, 0, *at);
        if (!spec || *at < ' ' || !takes(verb, *at))
            return unknown_option(verb, word);
        if (!wants_value(verb, spec)) {
            TRY(take_option(args, *at, NULL));
            continue;
        }
        if (!at[1] && *i == argc)
            return err_of(ERR_USAGE, "option '-%c' needs a value", *at);
        return take_option(args, *at, at[1] ? at + 1 : argv[(*i)++]);
    }
    return NULL;
}

static struct err *parse(struct image_args *args, const struct image_verb *verb, int argc,
                         char **argv)
{
    bool options = true;
    for (int i = 2; i < argc;) {
        if (options && !strcmp(argv[i], "--")) {
            options = false;
            i++;
        } else if (options && !strncmp(argv[i], "--", 2)) {
            TRY(parse_long(args, verb, argv, argc, &i));
        } else if (options && argv[i][0] == '-' && argv[i][1]) {
            TRY(parse_letters(args, verb, argv, argc, &i));
        } else {
            args->word[args->word_count++] = argv[i++];
        }
    }
    if (args->word_count < verb->words_min || args->word_count > verb->words_max)
        return err_of(ERR_USAGE, "usage: tenon image %s", verb->usage);
    return NULL;
}

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
    struct image_args args = {.verb = verb->name};
    args.word = xcalloc((size_t)argc, sizeof(*args.word));
    struct err *err = parse(&args, verb, argc, argv);
    if (!err)
        err = verb->run(&args, status);
    for (unsigned i = 0; i < IMAGE_OPTIONS_MAX; i++)
        free(args.option_text[i]);
    free(args.word);
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
