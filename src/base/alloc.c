/*
 * Allocation of control-path objects, and scope clean-up.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"

/* Sizes here are ours and small: if they do not fit, nothing will, and going on would lose data. */
static void *must(void *pointer)
{
    if (!pointer) {
        static const char text[] = "tenon: out of memory\n";
        (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
        _exit(1);
    }
    return pointer;
}

void *xcalloc(size_t count, size_t size)
{
    return must(calloc(count ? count : 1, size ? size : 1));
}

void *xrealloc(void *pointer, size_t count, size_t size)
{
    return must(reallocarray(pointer, count ? count : 1, size ? size : 1));
}

char *xstrdup(const char *text)
{
    return must(strdup(text));
}

char *xasprintf(const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    return must(length < 0 ? NULL : text);
}

void free_cleanup(void *pointer_to_pointer)
{
    free(*(void **)pointer_to_pointer);
}

void fd_cleanup(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
