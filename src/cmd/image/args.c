/*
 * tenon image: the words of a call. One table says which option belongs to which verb and where its
 * value goes; letters are qemu-img's, so the same letter may mean different things.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cmd/image/image.h"

/* How an option is stored. */
enum kind { FLAG, TEXT, SIZE, IGNORED_FLAG, IGNORED, CALL, CALL_OPTIONAL };

struct row {
    const char *verbs; /* " a b "; "" is all */
    char letter;       /* 0: none */
    const char *name;
    enum kind kind;
    size_t offset;                                                   /* FLAG, TEXT, SIZE */
    struct err *(*call)(struct image_args *args, const char *value); /* CALL */
};

struct err *image_parse_size(const char *text, uint64_t *size)
{
    static const char units[] = "kKmMgGtTpP";
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    uint64_t factor = unit ? 1ull << ((unsigned)(unit - units) / 2 * 10 + 10) : 1;
    if (unit)
        end++;
    else if (*end == 'b' || *end == 'B')
        end++;
    if (text[0] < '0' || text[0] > '9' || *end || errno)
        return err_of(ERR_USAGE, "'%s' is not a size: write bytes, or 10G, 512M", text);
    if (!checked_mul(value, factor, size) || *size > INT64_MAX)
        return err_of(ERR_USAGE, "'%s' is beyond what a file can be", text);
    return NULL;
}

char *image_args_keep(struct image_args *args, char *take_text)
{
    if (args->text_count == IMAGE_OPTIONS_MAX) {
        free(take_text);
        return NULL;
    }
    return args->text[args->text_count++] = take_text;
}

/* -o a=b,c=d; two commas are one that belongs to the value. */
static struct err *take_options(struct image_args *args, const char *text)
{
    char *copy = image_args_keep(args, xstrdup(text)), *in = copy, *out = copy, *start = copy;
    if (!copy)
        return err_of(ERR_USAGE, "too many options");
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
        if (args->option_count == IMAGE_OPTIONS_MAX)
            return err_of(ERR_USAGE, "too many options");
        if (equals == start || !*start)
            return err_of(ERR_USAGE, "option '%s': write NAME=VALUE", start);
        if (equals)
            *equals = 0;
        args->option[args->option_count++] =
            (struct image_option){.name = start, .value = equals ? equals + 1 : "on"};
        start = out;
    }
    return NULL;
}

void image_backing_options(struct image_args *args)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < args->option_count; i++) {
        const struct image_option *option = &args->option[i];
        if (!strcmp(option->name, "backing_file"))
            args->backing = option->value;
        else if (!strcmp(option->name, "backing_fmt"))
            args->backing_format = option->value;
        else
            args->option[kept++] = *option;
    }
    args->option_count = kept;
}

/* Only qemu-img does not write through unless asked. */
bool image_args_unsafe(const struct image_args *args)
{
    return args->cache ? !strcmp(args->cache, "unsafe") : args->qemu;
}

static struct err *take_output(struct image_args *args, const char *value)
{
    args->json = !strcmp(value, "json");
    if (!args->json && strcmp(value, "human"))
        return err_of(ERR_USAGE, "output is json or human, not '%s'", value);
    return NULL;
}

static struct err *take_repair(struct image_args *args, const char *value)
{
    args->repair = value && !strcmp(value, "all") ? REPAIR_ALL : REPAIR_LEAKS;
    if (value && strcmp(value, "all") && strcmp(value, "leaks"))
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

static struct err *take_snapshot_list(struct image_args *args, const char *value)
{
    return take_snapshot(args, 'l', value);
}

/* convert -l: a name, or snapshot.name=NAME, snapshot.id=ID. */
static struct err *take_snapshot_source(struct image_args *args, const char *value)
{
    if (!strncmp(value, "snapshot.name=", 14))
        value += 14;
    else if (!strncmp(value, "snapshot.id=", 12))
        value += 12;
    args->snapshot = value;
    return NULL;
}

static struct err *take_snapshot_create(struct image_args *args, const char *value)
{
    return take_snapshot(args, 'c', value);
}

static struct err *take_snapshot_apply(struct image_args *args, const char *value)
{
    return take_snapshot(args, 'a', value);
}

static struct err *take_snapshot_delete(struct image_args *args, const char *value)
{
    return take_snapshot(args, 'd', value);
}

static struct err *take_workers(struct image_args *args, const char *value)
{
    char *end;
    unsigned long count = strtoul(value, &end, 10);
    if (*end || !count || count > 16)
        return err_of(ERR_USAGE, "-m is a number from 1 to 16, not '%s'", value);
    args->workers = (unsigned)count;
    return NULL;
}

static struct err *take_sparse(struct image_args *args, const char *value)
{
    uint64_t size;
    TRY(image_parse_size(value, &size));
    if (size && (!is_power_of_2(size) || size < 512 || size > MIB(1)))
        return err_of(ERR_USAGE, "-S is 0 or a power of two from 512 to 1M, not '%s'", value);
    args->write_zeros = !size;
    args->sparse_size = (uint32_t)size;
    return NULL;
}

static struct err *take_cache(struct image_args *args, const char *value)
{
    static const char *const modes[] = {"none",         "writeback",  "unsafe",
                                        "writethrough", "directsync", NULL};
    for (unsigned i = 0; modes[i]; i++)
        if (!strcmp(modes[i], value)) {
            args->cache = modes[i];
            return NULL;
        }
    return err_of(ERR_USAGE,
                  "the cache is none, writeback, unsafe, writethrough or directsync, not '%s'",
                  value);
}

static struct err *take_source_cache(struct image_args *args, const char *value)
{
    const char *kept = args->cache;
    struct err *err = take_cache(args, value);
    args->cache = kept;
    return err;
}

static struct err *take_bitmaps(struct image_args *args, const char *value)
{
    (void)args;
    (void)value;
    return err_of(ERR_USAGE, "dirty bitmaps are not copied");
}

static struct err *take_target_opts(struct image_args *args, const char *value)
{
    (void)args;
    (void)value;
    return err_of(ERR_USAGE, "--target-image-opts is not supported: use -O and -o");
}

#define AT(field) offsetof(struct image_args, field)

/* The first row that fits counts. */
static const struct row rows[] = {
    {" bench ", 'c', "count", SIZE, AT(count)},
    {" bench ", 'd', "depth", SIZE, AT(depth)},
    {" bench ", 'o', "offset", SIZE, AT(start)},
    {" bench ", 's', "buffer-size", SIZE, AT(buffer)},
    {" bench ", 'S', "step-size", SIZE, AT(step)},
    {" bench ", 'w', "write", FLAG, AT(write)},
    {" bench ", 0, "pattern", SIZE, AT(pattern)},
    {" bench ", 0, "flush-interval", SIZE, AT(flush_interval)},
    {" bench ", 0, "no-drain", IGNORED_FLAG},
    {" bench ", 'n', "native", IGNORED_FLAG},
    {" bench ", 'i', "aio", IGNORED},
    {"", 'f', "format", TEXT, AT(format)},
    {"", 'q', "quiet", FLAG, AT(quiet)},
    {"", 'U', "force-share", FLAG, AT(unlocked)},
    {"", 'T', "cache", CALL, .call = take_source_cache},
    {" info check compare snapshot map measure ", 't', "target-cache", CALL,
     .call = take_source_cache},
    {"", 't', "target-cache", CALL, .call = take_cache},
    {"", 0, "output", CALL, .call = take_output},
    {"", 0, "json", FLAG, AT(json)},
    {"", 0, "image-opts", FLAG, AT(opts)},
    {"", 0, "object", CALL, .call = image_secret_object},
    {"", 0, "key-file", TEXT, AT(key_file)},
    {" snapshot ", 'l', "list", CALL_OPTIONAL, .call = take_snapshot_list},
    {" snapshot ", 'c', "create", CALL, .call = take_snapshot_create},
    {" snapshot ", 'a', "apply", CALL, .call = take_snapshot_apply},
    {" snapshot ", 'd', "delete", CALL, .call = take_snapshot_delete},
    {" convert measure ", 'l', "snapshot", CALL, .call = take_snapshot_source},
    {" convert ", 'c', "compress", FLAG, AT(compress)},
    {" convert dd measure ", 'O', "output-format", TEXT, AT(out_format)},
    {" convert create measure amend ", 'o', "options", CALL, .call = take_options},
    {" convert compare commit rebase amend dd ", 'p', "progress", FLAG, AT(progress)},
    {" convert create dd amend ", 0, "force", FLAG, AT(force)},
    {" convert dd ", 'n', "no-create", FLAG, AT(no_create)},
    {" convert dd ", 0, "verify", FLAG, AT(verify)},
    {" convert compare commit rebase dd ", 'm', "workers", CALL, .call = take_workers},
    {" convert ", 'W', "out-of-order", IGNORED_FLAG},
    {" convert ", 'C', "copy-offloading", FLAG, AT(offload)},
    {" convert ", 'S', "sparse", CALL, .call = take_sparse},
    {" convert ", 'B', "backing-file", TEXT, AT(backing)},
    {" convert ", 0, "salvage", FLAG, AT(salvage)},
    {" convert ", 0, "target-is-zero", FLAG, AT(target_is_zero)},
    {" convert ", 0, "bitmaps", CALL_OPTIONAL, .call = take_bitmaps},
    {"", 0, "target-image-opts", CALL_OPTIONAL, .call = take_target_opts},
    {" convert commit ", 'r', "rate-limit", SIZE, AT(rate)},
    {" create commit rebase ", 'b', "backing-file", TEXT, AT(backing)},
    {" convert create compare rebase ", 'F', "backing-format", TEXT, AT(backing_format)},
    {" commit ", 'd', "drop", FLAG, AT(drop)},
    {" create rebase ", 'u', "unchecked", FLAG, AT(unchecked)},
    {" compare ", 's', "strict", FLAG, AT(strict)},
    {" check ", 'r', "repair-mode", CALL, .call = take_repair},
    {" check ", 0, "repair", CALL_OPTIONAL, .call = take_repair},
    {" resize ", 0, "shrink", FLAG, AT(shrink)},
    {" measure ", 0, "size", SIZE, AT(size)},
    {" map ", 's', "start-offset", SIZE, AT(start)},
    {" map ", 'l', "max-length", SIZE, AT(length)},
    {" info ", 0, "backing-chain", FLAG, AT(backing_chain)},
};

static bool belongs(const struct row *row, const struct image_verb *verb)
{
    if (!row->verbs[0])
        return true;
    size_t length = strlen(verb->name);
    for (const char *at = row->verbs; (at = strstr(at, verb->name)); at += length)
        if (at[-1] == ' ' && at[length] == ' ')
            return true;
    return false;
}

static const struct row *find(const struct image_verb *verb, const char *name, size_t length,
                              char letter)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (belongs(&rows[i], verb) &&
            (name ? strlen(rows[i].name) == length && !strncmp(rows[i].name, name, length)
                  : rows[i].letter == letter))
            return &rows[i];
    return NULL;
}

static bool wants_value(const struct row *row)
{
    return row->kind == TEXT || row->kind == SIZE || row->kind == IGNORED || row->kind == CALL;
}

static struct err *take(struct image_args *args, const struct row *row, const char *value)
{
    void *field = (char *)args + row->offset;
    switch (row->kind) {
    case FLAG:
        *(bool *)field = true;
        break;
    case TEXT:
        *(const char **)field = value;
        break;
    case SIZE:
        return image_parse_size(value, field);
    case CALL:
    case CALL_OPTIONAL:
        return row->call(args, value);
    default: /* accepted for scripts, without meaning here */
        break;
    }
    return NULL;
}

static struct err *unknown_option(const struct image_verb *verb, const char *word)
{
    const char *names[ARRAY_SIZE(rows) + 1], *near = NULL;
    size_t count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (belongs(&rows[i], verb))
            names[count++] = rows[i].name;
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
    const struct row *row = find(verb, word + 2, length, 0);
    const char *value = equals ? equals + 1 : NULL;
    if (!row)
        return unknown_option(verb, word);
    if (value && (row->kind == FLAG || row->kind == IGNORED_FLAG))
        return err_of(ERR_USAGE, "option '--%s' takes no value", row->name);
    if (wants_value(row) && !value) {
        if (*i == argc)
            return err_of(ERR_USAGE, "option '--%s' needs a value", row->name);
        value = argv[(*i)++];
    }
    return take(args, row, value);
}

/* -pc, -fraw, -f raw. */
static struct err *parse_letters(struct image_args *args, const struct image_verb *verb,
                                 char **argv, int argc, int *i)
{
    const char *word = argv[(*i)++];
    for (const char *at = word + 1; *at; at++) {
        const struct row *row = find(verb, NULL, 0, *at);
        if (!row)
            return unknown_option(verb, word);
        if (!wants_value(row)) {
            TRY(take(args, row, NULL));
            continue;
        }
        if (!at[1] && *i == argc)
            return err_of(ERR_USAGE, "option '-%c' needs a value", *at);
        return take(args, row, at[1] ? at + 1 : argv[(*i)++]);
    }
    return NULL;
}

/* resize x.img -10G */
static bool is_less(const struct image_verb *verb, const char *word, int i, int argc)
{
    return i + 1 == argc && !strcmp(verb->name, "resize") && word[1] >= '0' && word[1] <= '9';
}

struct err *image_args_parse(struct image_args *args, const struct image_verb *verb, int argc,
                             char **argv)
{
    bool options = true;
    bool qemu = args->qemu;
    *args = (struct image_args){.verb = verb->name, .qemu = qemu, .force = qemu};
    args->word = xcalloc((size_t)argc + 1, sizeof(*args->word));
    for (int i = 0; i < argc;) {
        if (options && !strcmp(argv[i], "--")) {
            options = false;
            i++;
        } else if (options && !strncmp(argv[i], "--", 2)) {
            TRY(parse_long(args, verb, argv, argc, &i));
        } else if (options && argv[i][0] == '-' && argv[i][1] && !is_less(verb, argv[i], i, argc)) {
            TRY(parse_letters(args, verb, argv, argc, &i));
        } else {
            args->word[args->word_count++] = argv[i++];
        }
    }
    int most = verb->several && !args->qemu ? argc : verb->words_max;
    if (args->word_count < verb->words_min || args->word_count > most)
        return err_of(ERR_USAGE, "usage: tenon image %s", verb->usage);
    if (args->opts) {
        TRY(image_opts_parse(args, &args->word[0], &args->format));
        if (!strcmp(verb->name, "compare"))
            TRY(image_opts_parse(args, &args->word[1], &args->backing_format));
    }
    return NULL;
}

void image_args_fini(struct image_args *args)
{
    for (unsigned i = 0; i < args->text_count; i++)
        free(args->text[i]);
    for (unsigned i = 0; i < args->secret_count; i++) {
        explicit_bzero(args->secret[i].bytes, args->secret[i].length);
        free(args->secret[i].bytes);
    }
    free(args->word);
}
