/*
 * tenon doctor: what this host can do, why not, and what to do about it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/doctor.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/command.h"

static const struct option_spec options[] = {
    {"json", NULL, "Print the findings as JSON."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

static const char *mark_name(enum finding_mark mark)
{
    static const char *const names[] = {"ok", "info", "limited", "broken"};

    return names[mark];
}

static void print_text(struct buf *out, const struct doctor_check *check,
                       const struct finding *finding)
{
    buf_printf(out, "%-8s %-12s %s\n", mark_name(finding->mark), check->title, finding->text);
    if (finding->advice[0])
        buf_printf(out, "%-21s -> %s\n", "", finding->advice);
}

static json_t *finding_json(const struct doctor_check *check, const struct finding *finding)
{
    json_t *object =
        json_pack("{s:s, s:s, s:s, s:s}", "id", check->id, "mark", mark_name(finding->mark), "text",
                  finding->text, "advice", finding->advice);

    /* The host's own files may hold bytes that are no UTF-8. */
    return object ? object
                  : json_pack("{s:s, s:s, s:s, s:s}", "id", check->id, "mark",
                              mark_name(finding->mark), "text", "(not printable)", "advice", "");
}

static struct err *parse(int argc, char **argv, bool *json)
{
    struct err *err = NULL;

    for (int i = 1; i < argc && !err;) {
        struct option_arg arg;

        err = option_next(argc, argv, &i, options, NULL, NULL, &arg);
        if (!err && arg.spec)
            *json = true; /* --help does not come here */
        else if (!err)
            err = err_of(ERR_USAGE, "doctor takes no argument '%s'", arg.value);
        option_arg_fini(&arg);
    }
    return err;
}

static struct err *doctor(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct buf out = BUF_INIT;
    json_t *list;
    bool json = false, broken = false, good;

    TRY(parse(argc, argv, &json));
    list = json_array();
    for (const struct doctor_check *check = doctor_checks; check->id; check++) {
        struct finding finding = {0};

        check->run(&finding);
        broken |= finding.mark == FINDING_BROKEN;
        if (json)
            json_array_append_new(list, finding_json(check, &finding));
        else
            print_text(&out, check, &finding);
    }
    if (json) {
        json_t *root = json_pack("{s:s, s:b, s:O}", "version", TENON_VERSION, "can_run", !broken,
                                 "findings", list);
        char *text = json_dumps(root, JSON_INDENT(2));

        buf_printf(&out, "%s\n", text);
        free(text);
        json_decref(root);
    } else {
        buf_text(&out, broken ? "\nThis host cannot run a VM yet: see what is marked broken.\n"
                              : "\nThis host can run VMs.\n");
    }
    json_decref(list);
    good = fwrite(out.data, 1, out.len, stdout) == out.len && fflush(stdout) == 0;
    buf_fini(&out);
    if (!good)
        return err_errno(errno, "cannot write to standard output");
    *status = broken ? ERR_FAILED : 0;
    return NULL;
}

const struct command command_doctor = {
    .name = "doctor",
    .usage = "doctor [OPTIONS]",
    .summary = "Say what this host can do, why not, and what to do about it",
    .run = doctor,
    .options = options,
};
