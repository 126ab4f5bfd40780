/*
 * Errors: one allocated sentence that grows at its front as it travels outward.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

struct err {
    enum err_kind kind;
    char *text;
};

static struct err *err_make(enum err_kind kind, char *take_text)
{
    struct err *err = xcalloc(1, sizeof(*err));
    err->kind = kind;
    err->text = take_text;
    return err;
}

static char *format_text(const char *format, va_list args)
{
    char *text;
    if (vasprintf(&text, format, args) < 0)
        return xstrdup("out of memory while describing an error");
    return text;
}

struct err *err_new(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct err *err = err_make(ERR_FAILED, format_text(format, args));
    va_end(args);
    return err;
}

struct err *err_of(enum err_kind kind, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct err *err = err_make(kind, format_text(format, args));
    va_end(args);
    return err;
}

static enum err_kind kind_of_errno(int number)
{
    switch (number) {
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_DENIED;
    case EBUSY:
    case EAGAIN:
    case EADDRINUSE:
        return ERR_BUSY;
    default:
        return ERR_FAILED;
    }
}

struct err *err_errno(int number, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    scoped(free_cleanup) char *what = format_text(format, args);
    va_end(args);
    number = number < 0 ? -number : number;
    char reason[128];
    return err_make(kind_of_errno(number),
                    xasprintf("%s: %s", what, strerror_r(number, reason, sizeof(reason))));
}

struct err *err_wrap(struct err *take_cause, const char *format, ...)
{
    if (!take_cause)
        return NULL;
    va_list args;
    va_start(args, format);
    scoped(free_cleanup) char *what = format_text(format, args);
    va_end(args);
    struct err *err = err_make(take_cause->kind, xasprintf("%s: %s", what, take_cause->text));
    err_free(take_cause);
    return err;
}

const char *err_text(const struct err *err)
{
    return err->text;
}

enum err_kind err_kind(const struct err *err)
{
    return err->kind;
}

void err_free(struct err *err)
{
    if (!err)
        return;
    free(err->text);
    free(err);
}

void err_cleanup(struct err **err)
{
    err_free(*err);
}
