/*
 * Errors of the control path: a chain of causes that reads as one sentence.
 *
 * A function that can fail for a reason the user should hear returns `struct err *`, NULL for
 * success. Each level outward wraps the cause with what it was doing, so the text reads from the
 * user's thing to the cause: "disk 'd0': qcow2: bad version 7". Report an error or return it,
 * never both. Data paths return 0 or -errno instead and do not allocate.
 *
 * Any thread; an err belongs to whoever holds the pointer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_ERR_H
#define TENON_BASE_ERR_H

#include "base/base.h"

/* What went wrong, as the exit status of a command tells it. */
enum err_kind {
    ERR_FAILED = 1, /* the operation failed */
    ERR_USAGE = 2,  /* the request was wrong: option, schema, value */
    ERR_DENIED = 3, /* a permission is missing */
    ERR_BUSY = 4,   /* somebody else holds the thing */
};

struct err;

/* A new error of kind ERR_FAILED. The caller owns the result. */
struct err *err_new(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A new error of the given kind. */
struct err *err_of(enum err_kind kind, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/*
 * "text: strerror(number)". `number` is a positive errno (a negative one is accepted). The kind
 * follows: EACCES, EPERM and EROFS are denied; EBUSY, EAGAIN and EADDRINUSE are busy.
 */
struct err *err_errno(int number, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "text: cause", of the cause's kind. Takes `cause`; NULL stays NULL, so a call can be wrapped. */
struct err *err_wrap(struct err *take_cause, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The whole sentence, without a final full stop or newline; lives as long as the error. */
const char *err_text(const struct err *err);
enum err_kind err_kind(const struct err *err);
void err_free(struct err *err);
void err_cleanup(struct err **err);

/* `TRY(call());` returns the error of `call` from the function around it. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        struct err *try_err_ = (call);                                                             \
        if (try_err_)                                                                              \
            return try_err_;                                                                       \
    } while (0)

#endif
