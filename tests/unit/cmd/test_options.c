/*
 * Option parsing, suggestions for mistyped names, and help out of the same table.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <string.h>

#include "cmd/command.h"

static const struct option_spec specs[] = {
    {"json", NULL, "Print JSON."},
    {"report", "FILE",
     "A file with a long explanation that has to be broken into more than one "
     "line, because a terminal is seldom wider than that."},
    {NULL, NULL, NULL},
};

static enum option_use other(const char *name)
{
    return !strcmp(name, "memory") ? OPTION_VALUE
           : !strcmp(name, "rng")  ? OPTION_SWITCH
                                   : OPTION_UNKNOWN;
}

static const char *other_nearest(const char *name)
{
    return nearest_name(name, (const char *const[]){"memory", "rng", NULL});
}

static struct err *first(char **argv, struct option_arg *arg, int *index)
{
    int argc = 0;

    while (argv[argc])
        argc++;
    *index = 0;
    return option_next(argc, argv, index, specs, other, other_nearest, arg);
}

static void expect(char **argv, const char *name, const char *value, bool own, int used)
{
    struct option_arg arg;
    int index;

    assert_ok(first(argv, &arg, &index));
    if (name)
        assert_string_equal(arg.name, name);
    else
        assert_null(arg.name);
    if (value)
        assert_string_equal(arg.value, value);
    else
        assert_null(arg.value);
    assert_int_equal(!!arg.spec, own);
    assert_int_equal(index, used);
    option_arg_fini(&arg);
}

static void expect_error(char **argv, const char *part)
{
    struct option_arg arg;
    int index;
    struct err *err = first(argv, &arg, &index);

    assert_non_null(err);
    assert_int_equal(err_kind(err), ERR_USAGE);
    if (!strstr(err_text(err), part))
        fail_msg("'%s' lacks '%s'", err_text(err), part);
    err_free(err);
    option_arg_fini(&arg);
}

#define ARGV(...) ((char *[]){__VA_ARGS__, NULL})

static void test_parse(void **state)
{
    expect(ARGV("--json", "x"), "json", NULL, true, 1);
    expect(ARGV("--report", "x"), "report", "x", true, 2);
    expect(ARGV("--report=x=y", "z"), "report", "x=y", true, 1);
    expect(ARGV("--report="), "report", "", true, 1);
    expect(ARGV("--report", "--json"), "report", "--json", true, 2);
    expect(ARGV("--memory", "1G"), "memory", "1G", false, 2);
    expect(ARGV("--rng"), "rng", NULL, false, 1);
    expect(ARGV("--rng=off"), "rng", "off", false, 1);
    expect(ARGV("file.yaml"), NULL, "file.yaml", false, 1);
    expect(ARGV("-"), NULL, "-", false, 1);
}

static void test_errors(void **state)
{
    expect_error(ARGV("--reprot", "x"), "did you mean '--report'");
    expect_error(ARGV("--memry=1G"), "did you mean '--memory'");
    expect_error(ARGV("--xyzzy"), "unknown option '--xyzzy'");
    expect_error(ARGV("--json=1"), "takes no value");
    expect_error(ARGV("--report"), "needs a value");
    expect_error(ARGV("--memory"), "needs a value");
    expect_error(ARGV("-x"), "two dashes");
    expect_error(ARGV("--"), "unknown option");
}

static void test_nearest(void **state)
{
    static const char *const names[] = {"run", "doctor", "timeline", NULL};

    assert_string_equal(nearest_name("rnu", names), "run");
    assert_string_equal(nearest_name("docter", names), "doctor");
    assert_string_equal(nearest_name("time", names), "timeline");
    assert_null(nearest_name("frobnicate", names));
    assert_null(nearest_name("", names));
    assert_null(nearest_name(
        "0123456789012345678901234567890123456789012345678901234567890123456789", names));
}

static void test_help(void **state)
{
    struct buf text = BUF_INIT;
    size_t column = 0;

    options_help(&text, specs);
    buf_u8(&text, 0);
    assert_non_null(strstr((char *)text.data, "--report FILE"));
    for (size_t i = 0; i + 1 < text.len; i++) {
        column = text.data[i] == '\n' ? 0 : column + 1;
        assert_true(column <= 79);
    }
    text.len = 0;
    options_man(&text, specs);
    buf_u8(&text, 0);
    assert_non_null(strstr((char *)text.data, ".B \\-\\-report \\fIFILE\\fR"));
    buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_help),
    };

    return cmocka_run_group_tests_name("cmd/options", tests, NULL, NULL);
}
