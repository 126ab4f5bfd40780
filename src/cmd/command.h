/*
 * Subcommands of `tenon`: one file a command, one table in main.c, and option tables from which the
 * parser, --help and the manual pages come.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_COMMAND_H
#define TENON_CMD_COMMAND_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

/* One option of a command. */
struct option_spec {
    const char *name;  /* without dashes */
    const char *value; /* what the value is, for help; NULL: a switch */
    const char *help;
};

struct command {
    const char *name, *usage, *summary;
    /*
     * argv[0] is the command's name; main() began at `started_ns` (CLOCK_MONOTONIC); *status is the
     * exit status when no error is returned.
     */
    struct err *(*run)(int argc, char **argv, uint64_t started_ns, int *status);
    const struct option_spec *options;  /* ends with a NULL name */
    void (*help_more)(struct buf *out); /* text below the options; may be NULL */
    bool vm_flags;                      /* takes the flags of the VM schema as well */
};

/* The table of commands; NULL: behind its end. */
const struct command *command_at(unsigned index);

extern const struct command command_agent;
extern const struct command command_apply;
extern const struct command command_attest;
extern const struct command command_audit;
extern const struct command command_completion;
extern const struct command command_console;
extern const struct command command_cp;
extern const struct command command_create;
extern const struct command command_diff;
extern const struct command command_events;
extern const struct command command_exec;
extern const struct command command_logs;
extern const struct command command_metrics;
extern const struct command command_rm;
extern const struct command command_run;
extern const struct command command_set;
extern const struct command command_show;
extern const struct command command_start;
extern const struct command command_token;
extern const struct command command_doctor;
extern const struct command command_firmware;
extern const struct command command_image;
extern const struct command command_keys;
extern const struct command command_ps;
extern const struct command command_screenshot;
extern const struct command command_stop;
extern const struct command command_timeline;
extern const struct command command_top;
extern const struct command command_view;

/* "program: sentence" on standard error; what an image names may have been in the sentence. */
void command_say_error(const char *program, const struct err *err);

/* main() of a `tenon` that is called qemu-img: its words, its exit status. */
int image_as_qemu_img(int argc, char **argv);

/*
 * Reads one argument of `argv` at *index. An option sets *spec, *value (NULL for a switch) and
 * moves *index past what it used; anything else sets *spec to NULL and *value to the argument. For
 * an option that the table lacks, `other` (may be NULL) says whether it is known elsewhere and
 * wants a value; *spec is then NULL and *name its name without dashes. *name is NULL for a plain
 * argument.
 */
enum option_use { OPTION_UNKNOWN, OPTION_SWITCH, OPTION_VALUE };
struct option_arg {
    const struct option_spec *spec;
    char *name; /* owned: option_arg_fini */
    const char *value;
};
struct err *option_next(int argc, char **argv, int *index, const struct option_spec *specs,
                        enum option_use (*other)(const char *name),
                        const char *(*other_nearest)(const char *name), struct option_arg *arg);
void option_arg_fini(struct option_arg *arg);

/* The option table as lines of --help, and as man(7) paragraphs. */
void options_help(struct buf *out, const struct option_spec *specs);
void options_man(struct buf *out, const struct option_spec *specs);

/* The nearest of names[] (NULL-terminated) to a mistyped one, or NULL when none is near. */
const char *nearest_name(const char *typed, const char *const *names);

/* A whole `--help` text. */
void command_help(struct buf *out, const struct command *command);

#endif
