/*
 * tenon screenshot: a picture of a VM's screen.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cmd/command.h"
#include "cmd/registry.h"

static const struct option_spec options[] = {
    {"format", "png|ppm",
     "What to write. Default: what the file's name ends with, png if nothing."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

static struct err *choose_format(const char *path, const char **format)
{
    const char *dot = strrchr(path, '.');

    if (!*format)
        *format = dot && !strcmp(dot, ".ppm") ? "ppm" : "png";
    if (strcmp(*format, "png") && strcmp(*format, "ppm"))
        return err_of(ERR_USAGE, "the formats are png and ppm, not '%s'", *format);
    return NULL;
}

/* The VM opens nothing: it gets the file, and writes it. */
static struct err *dump(struct qmp_client *client, const char *format, int fd)
{
    json_t *set = NULL;

    TRY(qmp_client_run(client, "add-fd", NULL, fd, &set));
    json_int_t id = json_integer_value(json_object_get(set, "fdset-id"));
    json_decref(set);
    scoped(free_cleanup) char *name = xasprintf("/dev/fdset/%lld", (long long)id);
    struct err *err =
        qmp_client_run(client, "screendump",
                       json_pack("{s:s, s:s}", "filename", name, "format", format), -1, NULL);
    struct err *removed =
        qmp_client_run(client, "remove-fd", json_pack("{s:I}", "fdset-id", id), -1, NULL);
    if (err)
        err_free(removed);
    return err ? err : removed;
}

static struct err *take(const char *vm, const char *path, const char *format)
{
    struct qmp_client client;
    scoped(free_cleanup) char *temporary = xasprintf("%s.%ld", path, (long)getpid());
    scoped(fd_cleanup) int fd = -1;
    struct err *err = registry_open(vm, &client);

    if (!err) {
        fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        err = fd < 0 ? err_errno(errno, "cannot write '%s'", path) : dump(&client, format, fd);
    }
    qmp_client_close(&client);
    /* The file is there whole, or as it was before. */
    if (!err && rename(temporary, path) < 0)
        err = err_errno(errno, "cannot write '%s'", path);
    if (err && fd >= 0)
        unlink(temporary);
    return err;
}

static struct err *screenshot(int argc, char **argv, uint64_t started_ns, int *status)
{
    const char *word[2] = {NULL}, *format = NULL;
    unsigned words = 0;

    for (int i = 1; i < argc;) {
        struct option_arg arg;
        struct err *err = option_next(argc, argv, &i, options, NULL, NULL, &arg);
        if (!err && arg.spec)
            format = arg.value; /* --help does not come here */
        else if (!err && words == ARRAY_SIZE(word))
            err = err_of(ERR_USAGE, "'%s' is one word too many: give VM and FILE", arg.value);
        else if (!err)
            word[words++] = arg.value;
        option_arg_fini(&arg);
        TRY(err);
    }
    if (words < ARRAY_SIZE(word))
        return err_of(ERR_USAGE, "give a VM (name, PID or control socket) and a file");
    TRY(choose_format(word[1], &format));
    return take(word[0], word[1], format);
}

const struct command command_screenshot = {
    .name = "screenshot",
    .usage = "screenshot VM FILE [OPTIONS]",
    .summary = "Make a picture of a VM's screen",
    .run = screenshot,
    .options = options,
};
