/*
 * tenon cp: copies a file into a guest or out of it, by the guest's agent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/agent_visit.h"

static const struct option_spec options[] = {
    AGENT_OPTIONS,
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

static void help_more(struct buf *out)
{
    buf_text(out,
             "\nOne of the two is VM:PATH, a file of the guest with its whole path; the other is\n"
             "a file here, or - for standard input or output. What ends with / is a folder.\n"
             "Other commands for the same agent wait until the copy is done.\n");
}

/* One side of the copy. */
struct side {
    char *vm; /* owned; NULL: this host */
    char *path;
};

/* A word with a '/' before its first ':' is a file here. */
static void read_side(const char *word, struct side *side)
{
    const char *colon = strchr(word, ':'), *slash = strchr(word, '/');

    if (!colon || colon == word || (slash && slash < colon)) {
        side->path = xstrdup(word);
        return;
    }
    side->vm = xasprintf("%.*s", (int)(colon - word), word);
    side->path = xstrdup(colon + 1);
}

/* "etc/" becomes "etc/NAME", with the name of the source. */
static struct err *add_name(struct side *to, const char *from)
{
    size_t len = strlen(to->path);
    const char *slash = strrchr(from, '/'), *name = slash ? slash + 1 : from;

    if (len && to->path[len - 1] != '/')
        return NULL;
    if (!*name || !strcmp(name, "-"))
        return err_of(ERR_USAGE, "give the name of the file: '%s' is a folder", to->path);
    char *whole = xasprintf("%s%s", to->path, name);
    free(to->path);
    to->path = whole;
    return NULL;
}

/* ---- out of the guest ---- */

static struct err *write_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(errno, "cannot write");
        bytes += n;
        len -= (size_t)n;
    }
    return NULL;
}

static struct err *fetch_bytes(struct agent *agent, const char *path, int fd)
{
    struct buf bytes = BUF_INIT;
    json_int_t handle;
    struct err *err;

    TRY(agent_file_open(agent, path, "r", &handle));
    do {
        bytes.len = 0;
        err = agent_file_read(agent, handle, &bytes);
        if (!err)
            err = write_all(fd, bytes.data, bytes.len);
    } while (!err && bytes.len);
    buf_fini(&bytes);
    struct err *closed = agent_file_close(agent, handle);
    if (err)
        err_free(closed);
    return err ? err : closed;
}

/* The file is there whole, or as it was before; what is no file is written as it comes. */
static struct err *fetch(struct agent *agent, const char *from, const char *to)
{
    struct stat status;
    scoped(free_cleanup) char *temporary = xasprintf("%s.%ld", to, (long)getpid());
    bool direct = stat(to, &status) == 0 && !S_ISREG(status.st_mode);

    if (!strcmp(to, "-"))
        return fetch_bytes(agent, from, STDOUT_FILENO);
    scoped(fd_cleanup) int fd =
        direct ? open(to, O_WRONLY | O_CLOEXEC | O_NOCTTY)
               : open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return err_errno(errno, "cannot write '%s'", to);
    struct err *err = fetch_bytes(agent, from, fd);
    if (!err && !direct && rename(temporary, to) < 0)
        err = err_errno(errno, "cannot write '%s'", to);
    if (err && !direct)
        unlink(temporary);
    return err;
}

/* ---- into the guest ---- */

static struct err *send_bytes(struct agent *agent, int fd, const char *path)
{
    scoped(free_cleanup) uint8_t *bytes = xcalloc(1, AGENT_CHUNK);
    json_int_t handle;
    struct err *err = NULL;
    ssize_t n;

    TRY(agent_file_open(agent, path, "w", &handle));
    while (!err && (n = read(fd, bytes, AGENT_CHUNK)) != 0) {
        if (n > 0)
            err = agent_file_write(agent, handle, bytes, (size_t)n);
        else if (errno != EINTR)
            err = err_errno(errno, "cannot read");
    }
    struct err *closed = agent_file_close(agent, handle);
    if (err)
        err_free(closed);
    return err ? err : closed;
}

static struct err *bring(struct agent *agent, const char *from, const char *to)
{
    scoped(fd_cleanup) int fd =
        strcmp(from, "-") ? open(from, O_RDONLY | O_CLOEXEC | O_NOCTTY) : dup(STDIN_FILENO);

    if (fd < 0)
        return err_errno(errno, "cannot read '%s'", from);
    return send_bytes(agent, fd, to);
}

static struct err *copy(const struct side *from, struct side *to, const struct agent_limits *limits)
{
    const char *vm = from->vm ? from->vm : to->vm;
    struct agent_visit visit;

    if (!vm || (from->vm && to->vm))
        return err_of(ERR_USAGE, "one of the two is a file in a guest: VM:PATH");
    TRY(add_name(to, from->path));
    struct err *err = agent_visit_open(&visit, vm, limits);
    if (!err)
        err = err_wrap(from->vm ? fetch(&visit.agent, from->path, to->path)
                                : bring(&visit.agent, from->path, to->path),
                       "VM '%s'", vm);
    agent_visit_close(&visit);
    return err;
}

static struct err *cp(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct agent_arguments arguments;
    struct side side[2] = {{0}};

    TRY(agent_arguments_read(argc, argv, options, ARRAY_SIZE(side), "give two files", &arguments));
    if (arguments.words < ARRAY_SIZE(side) || arguments.command)
        return err_of(ERR_USAGE, "give two files: tenon cp app.conf web:/etc/");
    for (unsigned i = 0; i < ARRAY_SIZE(side); i++)
        read_side(arguments.word[i], &side[i]);
    struct err *err = copy(&side[0], &side[1], &arguments.limits);
    for (unsigned i = 0; i < ARRAY_SIZE(side); i++) {
        free(side[i].vm);
        free(side[i].path);
    }
    return err;
}

const struct command command_cp = {
    .name = "cp",
    .usage = "cp [OPTIONS] FROM TO",
    .summary = "Copy a file into a guest or out of it",
    .run = cp,
    .options = options,
    .help_more = help_more,
};
