/*
 * tenon keys: types on a VM's keyboard.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "cmd/command.h"
#include "cmd/registry.h"
#include "display/keys.h"

static const struct option_spec options[] = {
    {"text", "TEXT", "Type these characters, as on a US keyboard, after the keys before it."},
    {"hold", "MS", "How long each key stays down. Default: 50."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

#define HOLD_MS_STANDARD 50
#define HOLD_MS_MAX 10000

static void help_more(struct buf *out)
{
    buf_text(out, "\nKeys have QEMU's names: a, 1, ret, esc, spc, tab, backspace, up, down, left, "
                  "right,\nhome, end, pgup, pgdn, insert, delete, f1 to f12, shift, ctrl, alt... "
                  "Keys joined by\n'-' are pressed together: ctrl-alt-delete.\n");
}

static struct err *send_stroke(struct qmp_client *client, const struct key_stroke *stroke,
                               long hold_ms)
{
    json_t *keys = json_array();

    for (unsigned i = 0; i < stroke->count; i++)
        json_array_append_new(
            keys, json_pack("{s:s, s:i}", "type", "number", "data", (int)stroke->key[i]));
    return qmp_client_run(client, "send-key",
                          json_pack("{s:o, s:I}", "keys", keys, "hold-time", (json_int_t)hold_ms),
                          -1, NULL);
}

static struct err *read_text(const char *text, struct key_stroke **strokes, size_t *count)
{
    for (; *text; text++) {
        struct key_stroke stroke = {0};
        if (!key_stroke_character(&stroke, (unsigned char)*text))
            return err_of(ERR_USAGE, "no key of a US keyboard types the byte 0x%02x",
                          (unsigned char)*text);
        *strokes = xrealloc(*strokes, *count + 1, sizeof(stroke));
        (*strokes)[(*count)++] = stroke;
    }
    return NULL;
}

/* All words are read before the first key is pressed. */
static struct err *read_arguments(int argc, char **argv, const char **vm, long *hold_ms,
                                  struct key_stroke **strokes, size_t *count)
{
    for (int i = 1; i < argc;) {
        struct option_arg arg;
        struct key_stroke stroke = {0};
        char *end = NULL;
        struct err *err = option_next(argc, argv, &i, options, NULL, NULL, &arg);
        if (!err && arg.spec && !strcmp(arg.spec->name, "text")) {
            err = read_text(arg.value, strokes, count);
        } else if (!err && arg.spec) {
            *hold_ms = strtol(arg.value, &end, 10);
            if (*end || *hold_ms < 1 || *hold_ms > HOLD_MS_MAX)
                err = err_of(ERR_USAGE, "--hold is 1 to %d milliseconds, not '%s'", HOLD_MS_MAX,
                             arg.value);
        } else if (!err && !*vm) {
            *vm = arg.value;
        } else if (!err) {
            err = key_stroke_read(&stroke, arg.value);
            *strokes = xrealloc(*strokes, *count + 1, sizeof(stroke));
            (*strokes)[(*count)++] = stroke;
        }
        option_arg_fini(&arg);
        TRY(err);
    }
    if (!*vm || !*count)
        return err_of(ERR_USAGE, "give a VM (name, PID or control socket) and keys, or --text");
    return NULL;
}

static struct err *keys(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct key_stroke *strokes = NULL;
    const char *vm = NULL;
    struct qmp_client client = {.fd = -1};
    long hold_ms = HOLD_MS_STANDARD;
    size_t count = 0;
    struct err *err = read_arguments(argc, argv, &vm, &hold_ms, &strokes, &count);

    if (!err)
        err = registry_open(vm, &client);
    for (size_t i = 0; i < count && !err; i++)
        err = send_stroke(&client, &strokes[i], hold_ms);
    qmp_client_close(&client);
    free(strokes);
    return err;
}

const struct command command_keys = {
    .name = "keys",
    .usage = "keys VM KEY... [OPTIONS]",
    .summary = "Type on a VM's keyboard",
    .run = keys,
    .options = options,
    .help_more = help_more,
};
