/*
 * The few definitions that every file of Tenon relies on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_BASE_H
#define TENON_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* Each argument is evaluated once. The names are unique, so that uses may be nested. */
#define MIN(a, b) BASE_PICK_(a, <, b, __COUNTER__)
#define MAX(a, b) BASE_PICK_(a, >, b, __COUNTER__)
#define BASE_PICK_(a, order, b, n)                                                                 \
    BASE_PICK_NAMED_(a, order, b, BASE_JOIN_(a_, n), BASE_JOIN_(b_, n))
#define BASE_PICK_NAMED_(a, order, b, left, right)                                                 \
    ({                                                                                             \
        __typeof__(a) left = (a);                                                                  \
        __typeof__(b) right = (b);                                                                 \
        left order right ? left : right;                                                           \
    })
#define BASE_JOIN_(a, b) BASE_JOIN_AGAIN_(a, b)
#define BASE_JOIN_AGAIN_(a, b) a##b

/* The object that embeds `member` at the address `pointer`. */
#define container_of(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)

#define GUEST_PAGE_SIZE 4096u
#define GUEST_PAGE_SHIFT 12

/* Rounding to a power of two. */
#define ALIGN_DOWN(value, align) ((value) & ~((__typeof__(value))(align)-1))
#define ALIGN_UP(value, align) ALIGN_DOWN((value) + ((align)-1), align)

/*
 * Memory for control-path objects of a size that is ours, never the guest's: it does not fail, the
 * process ends with a sentence instead. Sizes that come from outside use calloc and an error.
 */
void *xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *pointer, size_t count, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *text) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *format, ...)
    __attribute__((malloc, returns_nonnull, format(printf, 1, 2)));

/* Scope clean-up: `scoped(free_cleanup) char *text = ...;` and `scoped(fd_cleanup) int fd = -1;` */
#define scoped(function) __attribute__((cleanup(function), unused))
void free_cleanup(void *pointer_to_pointer);
void fd_cleanup(int *fd);

#endif
