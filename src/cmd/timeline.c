/*
 * tenon timeline: the boot timeline out of a JSON report.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/command.h"
#include "cmd/run.h"

static const struct option_spec options[] = {
    {"json", NULL, "Print the stages as JSON."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

static struct err *load(const char *path, json_t **report)
{
    scoped(fd_cleanup) int fd = -1;
    json_error_t where;

    TRY(run_open_file("report", path, 0, &fd));
    *report = json_loadfd(fd, 0, &where);
    if (!*report)
        return err_new("report: %s:%d:%d: %s", path, where.line, where.column, where.text);
    if (json_array_size(json_object_get(*report, "timeline")) == 0) {
        json_decref(*report);
        return err_new("report: '%s' has no timeline: give a file that `tenon run --report` wrote",
                       path);
    }
    return NULL;
}

static struct err *timeline(int argc, char **argv, uint64_t started_ns, int *status)
{
    const char *path = NULL;
    struct buf text = BUF_INIT;
    struct err *err = NULL;
    json_t *report;
    bool json = false, good;

    for (int i = 1; i < argc && !err;) {
        struct option_arg arg;

        err = option_next(argc, argv, &i, options, NULL, NULL, &arg);
        if (!err && arg.spec)
            json = true; /* --help does not come here */
        else if (!err && path)
            err = err_of(ERR_USAGE, "two reports, '%s' and '%s': give one", path, arg.value);
        else if (!err)
            path = arg.value;
        option_arg_fini(&arg);
    }
    TRY(err);
    if (!path)
        return err_of(ERR_USAGE, "no report: give a file that `tenon run --report` wrote");
    TRY(load(path, &report));
    if (json) {
        char *dump = json_dumps(json_object_get(report, "timeline"),
                                JSON_INDENT(2) | JSON_REAL_PRECISION(9));

        buf_printf(&text, "%s\n", dump);
        free(dump);
    } else {
        run_print_timeline(report, &text);
    }
    json_decref(report);
    good = fwrite(text.data, 1, text.len, stdout) == text.len && fflush(stdout) == 0;
    buf_fini(&text);
    return good ? NULL : err_errno(errno, "cannot write to standard output");
}

const struct command command_timeline = {
    .name = "timeline",
    .usage = "timeline FILE [OPTIONS]",
    .summary = "Show the boot timeline of a report",
    .run = timeline,
    .options = options,
};
