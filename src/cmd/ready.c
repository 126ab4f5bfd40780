/*
 * What a program says before it serves. See ready.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/ready.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#define READY_TIMEOUT_MS 10000

int ready_report(int status_fd, struct err *take_err)
{
    int status = take_err ? (int)err_kind(take_err) : 0;
    if (status_fd >= 0) {
        scoped(free_cleanup) char *line =
            take_err ? xasprintf("error %d %s\n", status, err_text(take_err)) : xstrdup("ready\n");
        if (write(status_fd, line, strlen(line)) < 0)
            log_warn("cannot report to --status-fd: %s", strerror(errno));
        close(status_fd);
    } else if (take_err) {
        log_error("%s", err_text(take_err));
    }
    err_free(take_err);
    return status;
}

struct err *ready_await(int status_fd, const char *program)
{
    struct pollfd poll_fd = {.fd = status_fd, .events = POLLIN};
    char text[512];
    size_t len = 0;
    ssize_t n = 0;
    int kind = 0, skip = 0;

    while (len < sizeof(text) - 1 && !memchr(text, '\n', len)) {
        if (poll(&poll_fd, 1, READY_TIMEOUT_MS) <= 0)
            return err_new("%s does not get ready", program);
        n = read(status_fd, text + len, sizeof(text) - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    text[len] = 0;
    text[strcspn(text, "\n")] = 0;
    if (!strcmp(text, "ready"))
        return NULL;
    if (sscanf(text, "error %d %n", &kind, &skip) == 1 && skip && kind >= ERR_FAILED &&
        kind <= ERR_BUSY)
        return err_of((enum err_kind)kind, "%s", text + skip);
    return err_new("%s ended before it was ready", program);
}

struct err *ready_parse_number(const char *text, const char *what, unsigned long max,
                               unsigned long *value)
{
    char *end;
    errno = 0;
    *value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || *value > max)
        return err_of(ERR_USAGE, "%s: '%s' is not a number from 0 to %lu", what, text, max);
    return NULL;
}

struct err *ready_parse_fd(const char *text, const char *what, int *fd)
{
    unsigned long value;
    TRY(ready_parse_number(text, what, 1 << 20, &value));
    *fd = (int)value;
    return NULL;
}
