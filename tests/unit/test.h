/*
 * What every unit test includes: cmocka needs these headers before its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TESTS_UNIT_TEST_H
#define TENON_TESTS_UNIT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

/* The call succeeds; on failure its sentence is shown. */
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        struct err *assert_err_ = (call);                                                          \
        if (assert_err_)                                                                           \
            fail_msg("%s: %s", #call, err_text(assert_err_));                                      \
    } while (0)

/* The call fails, and its sentence contains `part`. */
#define assert_err(call, part)                                                                     \
    do {                                                                                           \
        struct err *assert_err_ = (call);                                                          \
        if (!assert_err_)                                                                          \
            fail_msg("%s succeeded", #call);                                                       \
        if (!strstr(err_text(assert_err_), part))                                                  \
            fail_msg("%s: '%s' lacks '%s'", #call, err_text(assert_err_), part);                   \
        err_free(assert_err_);                                                                     \
    } while (0)

/* The call fails: a mistake of the user's, and its sentence is `text`. */
#define assert_usage_err(call, text)                                                               \
    do {                                                                                           \
        struct err *assert_err_ = (call);                                                          \
        if (!assert_err_)                                                                          \
            fail_msg("%s succeeded; expected: %s", #call, text);                                   \
        assert_string_equal(err_text(assert_err_), text);                                          \
        assert_int_equal(err_kind(assert_err_), ERR_USAGE);                                        \
        err_free(assert_err_);                                                                     \
    } while (0)

#endif
