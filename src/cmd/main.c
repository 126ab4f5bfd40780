/*
 * tenon: the command. Finds the subcommand, prints the one error sentence, and turns the error's
 * kind into the exit status: 0 success, 1 failed, 2 usage, 3 denied, 4 busy.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmd/command.h"
#include "cmd/image/image.h"
#include "vm/schema.h"

static const struct command *const commands[] = {
    &command_run,     &command_attest, &command_doctor,     &command_firmware,   &command_image,
    &command_keys,    &command_ps,     &command_screenshot, &command_stop,       &command_timeline,
    &command_create,  &command_start,  &command_show,       &command_rm,         &command_logs,
    &command_console, &command_events, &command_metrics,    &command_token,      &command_audit,
    &command_apply,   &command_diff,   &command_set,        &command_completion, &command_view,
    &command_agent,   &command_cp,     &command_exec,       &command_top,
};

const struct command *command_at(unsigned index)
{
    return index < ARRAY_SIZE(commands) ? commands[index] : NULL;
}

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (!strcmp(commands[i]->name, name))
            return commands[i];
    return NULL;
}

static struct err *unknown_command(const char *name)
{
    const char *names[ARRAY_SIZE(commands) + 2] = {"help"}, *near;

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        names[i + 1] = commands[i]->name;
    near = nearest_name(name, names);
    if (near)
        return err_of(ERR_USAGE, "unknown command '%s': did you mean '%s'?", name, near);
    return err_of(ERR_USAGE, "unknown command '%s': see `tenon help`", name);
}

static struct err *print(struct buf *text)
{
    bool good = fwrite(text->data, 1, text->len, stdout) == text->len && fflush(stdout) == 0;

    buf_fini(text);
    return good ? NULL : err_errno(errno, "cannot write to standard output");
}

static struct err *help_all(void)
{
    struct buf text = BUF_INIT;

    buf_text(&text, "Usage: tenon COMMAND [ARGUMENTS]\n\n"
                    "Tenon runs virtual machines on Linux.\n\nCommands:\n");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        buf_printf(&text, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    buf_text(&text, "  help       Explain a command: tenon help COMMAND\n\n"
                    "  tenon --version prints the version. Exit status: 0 success, 1 failed,\n"
                    "  2 usage, 3 permission denied, 4 busy.\n");
    return print(&text);
}

/* The generated parts of the manual pages: run (options), vm (keys), doctor, image,
 * timeline. */
static struct err *help_man(const char *page)
{
    struct buf text = BUF_INIT;
    const struct command *command = command_find(page);

    if (!strcmp(page, "vm"))
        schema_man_file(&text);
    else if (!command)
        return err_of(ERR_USAGE, "no manual part '%s': run, doctor, image, timeline and vm exist",
                      page);
    else
        options_man(&text, command->options);
    if (command == &command_image)
        image_serve_man(&text);
    if (command == &command_run)
        schema_man_flags(&text);
    return print(&text);
}

static struct err *help_one(const char *name)
{
    const struct command *command = command_find(name);
    struct buf text = BUF_INIT;

    if (!command)
        return unknown_command(name);
    command_help(&text, command);
    return print(&text);
}

static struct err *help(int argc, char **argv)
{
    if (argc == 1)
        return help_all();
    if (!strcmp(argv[1], "--man") && argc == 3)
        return help_man(argv[2]);
    if (argc == 2)
        return !strcmp(argv[1], "--help") ? help_all() : help_one(argv[1]);
    return err_of(ERR_USAGE, "usage: tenon help [COMMAND]");
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) /* what follows is for others */
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return true;
    return false;
}

static struct err *dispatch(int argc, char **argv, uint64_t started_ns, int *status)
{
    const struct command *command;

    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
        return help_all();
    if (!strcmp(argv[1], "help"))
        return help(argc - 1, argv + 1);
    if (!strcmp(argv[1], "--version")) {
        struct buf text = BUF_INIT;

        buf_text(&text, "tenon " TENON_VERSION "\n");
        return print(&text);
    }
    if (argv[1][0] == '-')
        return err_of(ERR_USAGE, "unknown option '%s': a command comes first, see `tenon help`",
                      argv[1]);
    command = command_find(argv[1]);
    if (!command)
        return unknown_command(argv[1]);
    if (wants_help(argc - 1, argv + 1))
        return help_one(command->name);
    return command->run(argc - 1, argv + 1, started_ns, status);
}

/* A descriptor of ours must not become 0, 1 or 2 because the caller had closed them. */
static void open_standard_fds(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
            _exit(ERR_FAILED);
}

int main(int argc, char **argv)
{
    uint64_t started_ns = clock_now_ns();
    struct err *err;
    int status = 0;

    open_standard_fds();
    if (argc > 0 && !strcmp(basename(argv[0]), "qemu-img"))
        return image_as_qemu_img(argc, argv);
    err = dispatch(argc, argv, started_ns, &status);
    if (err) {
        status = (int)err_kind(err);
        command_say_error("tenon", err);
        err_free(err);
    }
    return status;
}
