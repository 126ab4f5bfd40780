/*
 * The audit log: every changed byte and every missing line is found, and a crash costs nothing
 * else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/audit.h"

#define LINES 5

struct fixture {
    struct loop *loop;
    struct audit *audit;
    char folder[64], log[96], head[96];
};

static void write_lines(struct fixture *fixture, unsigned count, const char *who)
{
    for (unsigned i = 0; i < count; i++) {
        const struct audit_entry entry = {
            .who = who, .from = "unix", .action = "createVm", .target = "web\xff", .status = 201};
        audit_write(fixture->audit, &entry);
    }
}

static void begin(struct fixture *fixture)
{
    assert_ok(audit_open(fixture->loop, fixture->folder, &fixture->audit));
}

static void end(struct fixture *fixture)
{
    audit_close(fixture->audit);
    fixture->audit = NULL;
}

static int setup(void **state)
{
    struct fixture *fixture = xcalloc(1, sizeof(*fixture));

    strcpy(fixture->folder, "/tmp/tenon-audit-XXXXXX");
    assert_non_null(mkdtemp(fixture->folder));
    snprintf(fixture->log, sizeof(fixture->log), "%s/" AUDIT_FILE, fixture->folder);
    snprintf(fixture->head, sizeof(fixture->head), "%s/" AUDIT_HEAD, fixture->folder);
    assert_ok(loop_new("test", &fixture->loop));
    begin(fixture);
    write_lines(fixture, LINES, "uid:0");
    end(fixture);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    audit_close(fixture->audit);
    loop_free(fixture->loop);
    unlink(fixture->log);
    unlink(fixture->head);
    rmdir(fixture->folder);
    free(fixture);
    return 0;
}

static off_t size_of(const char *path)
{
    struct stat status;

    assert_int_equal(stat(path, &status), 0);
    return status.st_size;
}

/* The number of lines that are good before the first that is not. */
static uint64_t find_damage(struct fixture *fixture)
{
    uint64_t good;
    struct err *err = audit_verify(fixture->folder, &good);

    if (!err)
        fail_msg("nothing found");
    err_free(err);
    return good;
}

static void expect_intact(struct fixture *fixture, unsigned lines)
{
    uint64_t good;

    assert_ok(audit_verify(fixture->folder, &good));
    assert_int_equal(good, lines);
}

static void test_goes_on(void **state)
{
    struct fixture *fixture = *state;
    json_t *list;

    expect_intact(fixture, LINES);
    begin(fixture);
    write_lines(fixture, 2, "token:ci");
    end(fixture);
    expect_intact(fixture, LINES + 2);
    assert_ok(audit_read(fixture->folder, LINES, 10, &list));
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "who")),
                        "token:ci");
    json_decref(list);
}

static void test_each_byte(void **state)
{
    struct fixture *fixture = *state;
    off_t size = size_of(fixture->log);
    int fd = open(fixture->log, O_RDWR | O_CLOEXEC);

    for (off_t at = 0; at < size; at++) {
        uint8_t byte, changed;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        changed = byte ^ 1;
        assert_int_equal(pwrite(fd, &changed, 1, at), 1);
        assert_true(find_damage(fixture) < LINES);
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    close(fd);
    expect_intact(fixture, LINES);
}

static void test_missing_last_line(void **state)
{
    struct fixture *fixture = *state;
    off_t line = size_of(fixture->log) / LINES;

    assert_int_equal(truncate(fixture->log, line * (LINES - 1)), 0);
    assert_int_equal(find_damage(fixture), LINES - 1);
}

static void test_half_a_line(void **state)
{
    struct fixture *fixture = *state;
    off_t size = size_of(fixture->log);
    int fd = open(fixture->log, O_WRONLY | O_APPEND | O_CLOEXEC);

    assert_int_equal(write(fd, "{\"seq\":6,", 9), 9);
    close(fd);
    begin(fixture);
    assert_int_equal(size_of(fixture->log), size);
    write_lines(fixture, 1, "uid:0");
    end(fixture);
    expect_intact(fixture, LINES + 1);
}

/* A crash between the two files: the log is a line ahead. */
static void test_head_is_behind(void **state)
{
    struct fixture *fixture = *state;
    char head[128];
    int fd = open(fixture->head, O_RDWR | O_CLOEXEC);
    ssize_t len = pread(fd, head, sizeof(head), 0);

    begin(fixture);
    write_lines(fixture, 1, "uid:0");
    end(fixture);
    assert_int_equal(pwrite(fd, head, (size_t)len, 0), len);
    close(fd);
    expect_intact(fixture, LINES + 1);
}

/* Who has no name cannot fill the disk; how many lines are missing is told. */
static void test_nobody_is_limited(void **state)
{
    struct fixture *fixture = *state;
    json_t *list;

    begin(fixture);
    write_lines(fixture, 1000, "nobody");
    write_lines(fixture, 1, "uid:0");
    end(fixture);
    assert_ok(audit_read(fixture->folder, 0, 10000, &list));
    size_t count = json_array_size(list);
    assert_in_range(count, LINES + 2, LINES + 100);
    assert_int_equal(
        json_integer_value(json_object_get(json_array_get(list, count - 1), "left_out")),
        1000 - (count - LINES - 1));
    json_decref(list);
    expect_intact(fixture, (unsigned)count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_last_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_half_a_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_head_is_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_is_limited, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
