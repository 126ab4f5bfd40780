/*
 * Options of the commands: parsing and their help, both from one table a command.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "cmd/command.h"

#define NAMES_MAX 64
#define NAME_LENGTH_MAX 40
#define HELP_INDENT 6
#define HELP_WIDTH 79

/* Edits (insert, delete, change, swap of neighbours) between two short names. */
static unsigned distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned row[3][NAME_LENGTH_MAX + 1];

    if (n > NAME_LENGTH_MAX || m > NAME_LENGTH_MAX)
        return NAME_LENGTH_MAX;
    for (unsigned j = 0; j <= m; j++)
        row[0][j] = j;
    for (unsigned i = 1; i <= n; i++) {
        unsigned *now = row[i % 3], *last = row[(i - 1) % 3], *before = row[(i + 1) % 3];

        now[0] = i;
        for (unsigned j = 1; j <= m; j++) {
            unsigned change = last[j - 1] + (a[i - 1] != b[j - 1]);

            now[j] = MIN(change, MIN(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = MIN(now[j], before[j - 2] + 1);
        }
    }
    return row[n % 3][m];
}

const char *nearest_name(const char *typed, const char *const *names)
{
    const char *best = NULL;
    unsigned best_distance = 1 + (unsigned)strlen(typed) / 3;

    for (; *names; names++) {
        unsigned d = distance(typed, *names);

        /* What was typed may also be a beginning: "time" for "timeline". */
        if (strlen(typed) >= 3 && !strncmp(typed, *names, strlen(typed)))
            d = 1;
        if (d <= best_distance && (!best || d < best_distance)) {
            best = *names;
            best_distance = d;
        }
    }
    return best;
}

static const struct option_spec *find(const struct option_spec *specs, const char *name)
{
    for (; specs->name; specs++)
        if (!strcmp(specs->name, name))
            return specs;
    return NULL;
}

static struct err *unknown(const char *name, const struct option_spec *specs,
                           const char *(*other_nearest)(const char *name))
{
    const char *names[NAMES_MAX + 1], *near;
    size_t count = 0;

    for (; specs->name && count < NAMES_MAX; specs++)
        names[count++] = specs->name;
    names[count] = NULL;
    near = nearest_name(name, names);
    if (!near && other_nearest)
        near = other_nearest(name);
    if (near)
        return err_of(ERR_USAGE, "unknown option '--%s': did you mean '--%s'?", name, near);
    return err_of(ERR_USAGE, "unknown option '--%s': see --help", name);
}

struct err *option_next(int argc, char **argv, int *index, const struct option_spec *specs,
                        enum option_use (*other)(const char *name),
                        const char *(*other_nearest)(const char *name), struct option_arg *arg)
{
    char *word = argv[(*index)++], *equals;
    enum option_use use = OPTION_UNKNOWN;

    *arg = (struct option_arg){0};
    if (word[0] != '-' || !word[1]) {
        arg->value = word;
        return NULL;
    }
    if (strncmp(word, "--", 2) || !word[2])
        return err_of(ERR_USAGE, "unknown option '%s': options begin with two dashes, see --help",
                      word);
    equals = strchr(word, '=');
    arg->name = equals ? xasprintf("%.*s", (int)(equals - word - 2), word + 2) : xstrdup(word + 2);
    arg->value = equals ? equals + 1 : NULL;
    arg->spec = find(specs, arg->name);
    if (arg->spec)
        use = arg->spec->value ? OPTION_VALUE : OPTION_SWITCH;
    else if (other)
        use = other(arg->name);
    if (use == OPTION_UNKNOWN)
        return unknown(arg->name, specs, other_nearest);
    if (use == OPTION_SWITCH && arg->spec && arg->value)
        return err_of(ERR_USAGE, "option '--%s' takes no value", arg->name);
    if (use == OPTION_VALUE && !arg->value) {
        if (*index == argc)
            return err_of(ERR_USAGE, "option '--%s' needs a value", arg->name);
        arg->value = argv[(*index)++];
    }
    return NULL;
}

void option_arg_fini(struct option_arg *arg)
{
    free(arg->name);
    arg->name = NULL;
}

/* `text` broken into lines of HELP_WIDTH, all indented. */
static void wrapped(struct buf *out, const char *text)
{
    size_t column = 0;

    while (*text) {
        size_t word = strcspn(text, " ");

        if (column && column + 1 + word > HELP_WIDTH) {
            buf_text(out, "\n");
            column = 0;
        }
        buf_printf(out, "%*s", column ? 1 : HELP_INDENT, "");
        column += (column ? 1 : HELP_INDENT) + word;
        buf_append(out, text, word);
        text += word;
        text += strspn(text, " ");
    }
    buf_text(out, "\n");
}

void options_help(struct buf *out, const struct option_spec *specs)
{
    for (; specs->name; specs++) {
        buf_printf(out, "  --%s%s%s\n", specs->name, specs->value ? " " : "",
                   specs->value ? specs->value : "");
        wrapped(out, specs->help);
    }
}

/* Text of a man page: a hyphen that the user types stays one. */
static void man_text(struct buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '-' || *text == '\\')
            buf_text(out, "\\");
        buf_append(out, text, 1);
    }
}

void options_man(struct buf *out, const struct option_spec *specs)
{
    for (; specs->name; specs++) {
        buf_text(out, ".TP\n.B \\-\\-");
        man_text(out, specs->name);
        if (specs->value)
            buf_printf(out, " \\fI%s\\fR", specs->value);
        buf_text(out, "\n");
        man_text(out, specs->help);
        buf_text(out, "\n");
    }
}

void command_help(struct buf *out, const struct command *command)
{
    buf_printf(out, "Usage: tenon %s\n\n%s.\n\nOptions:\n", command->usage, command->summary);
    options_help(out, command->options);
    if (command->help_more)
        command->help_more(out);
}
