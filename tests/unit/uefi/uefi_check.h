/*
 * Errors as the tests of variable stores expect them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_UEFI_CHECK_H
#define TENON_TEST_UEFI_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

static inline void ok(struct err *err)
{
    if (err)
        print_error("%s\n", err_text(err));
    assert_null(err);
}

static inline void refused(struct err *err, const char *because)
{
    assert_non_null(err);
    if (!strstr(err_text(err), because))
        print_error("%s\n", err_text(err));
    assert_non_null(strstr(err_text(err), because));
    err_free(err);
}

#endif
