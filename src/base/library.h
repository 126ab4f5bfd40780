/*
 * Shared libraries that few need: loaded when somebody does, so that the others start fast and the
 * program runs where they are not installed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_LIBRARY_H
#define TENON_BASE_LIBRARY_H

#include <stddef.h>

#include "base/err.h"

/* A function of the library, and the member of a table of pointers that gets it. */
struct library_symbol {
    const char *name;
    size_t offset;
};
/* The member of `struct table` is named as the function; its type comes from the header. */
#define LIBRARY_SYMBOL(table, function)                                                            \
    {                                                                                              \
#function, offsetof(struct table, function)                                                \
    }
#define LIBRARY_MEMBER(function) __typeof__(&function) function

/* Fills `table`; the error says which package has the library. *handle: library_unload(). */
struct err *library_load(const char *file, const char *package, const struct library_symbol *symbol,
                         size_t count, void *table, void **handle);
void library_unload(void *handle); /* NULL is fine */

#endif
