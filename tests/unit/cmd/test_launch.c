/*
 * The hand-over to tenon-vmm: what is written is read again, and what is no hand-over is refused.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cmd/launch.h"
#include "vm/schema.h"

static int null_fd(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static void fill(struct launch *launch)
{
    struct vm_config *config = &launch->config;

    memset(launch, 0, sizeof(*launch));
    vm_config_init(config);
    assert_ok(schema_apply_flag(config, "name", "vm-1"));
    assert_ok(schema_apply_flag(config, "kernel", "/boot/caf\xc3\xa9 \"k\" = 1"));
    assert_ok(schema_apply_flag(config, "memory", "4G"));
    assert_ok(schema_apply_flag(config, "disk", "/d,readonly"));
    assert_ok(schema_apply_flag(config, "forward", "tcp:127.0.0.1:2222-22"));
    assert_ok(schema_apply_flag(config, "accel", "soft"));
    assert_ok(schema_finish(config));
    config->kernel_fd = null_fd();
    config->control_fd = null_fd();
    config->disk[0].fd = null_fd();
    config->net[0].fd[0] = null_fd();
    config->console[0].in_fd = config->console[0].out_fd = null_fd();
    launch->listen_fd = null_fd();
    launch->gdb_fd = null_fd();
    launch->paused = true;
    launch->log_level = LOG_INFO;
    launch->log = (struct log_output){.format = LOG_JOURNALD, .journal_fd = null_fd()};
    timeline_mark_at(&launch->timeline, TIMELINE_EXEC, 123456789012345ull);
    timeline_mark_at(&launch->timeline, TIMELINE_CONFIG, 123456789999999ull);
}

static void test_round_trip(void **state)
{
    struct launch *out = xcalloc(1, sizeof(*out)), *in = xcalloc(1, sizeof(*in));
    int fds[LAUNCH_FDS_MAX], fd;
    char *before, *after;
    json_t *json;

    fill(out);
    assert_int_equal(launch_fds(out, fds, ARRAY_SIZE(fds)), 9);
    assert_int_equal(launch_fds(out, fds, 3), 3);
    assert_ok(launch_write(out, &fd));
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_ok(launch_read(fd, in));
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken */
    assert_int_equal(in->listen_fd, out->listen_fd);
    assert_int_equal(in->gdb_fd, out->gdb_fd);
    assert_true(in->paused);
    assert_int_equal(in->log_level, LOG_INFO);
    assert_int_equal(in->log.format, LOG_JOURNALD);
    assert_int_equal(in->log.journal_fd, out->log.journal_fd);
    assert_string_equal(in->log.vm, in->config.name);
    assert_memory_equal(&in->timeline, &out->timeline, sizeof(in->timeline));
    json = schema_to_json(&out->config, true);
    before = json_dumps(json, JSON_SORT_KEYS);
    json_decref(json);
    json = schema_to_json(&in->config, true);
    after = json_dumps(json, JSON_SORT_KEYS);
    json_decref(json);
    assert_string_equal(before, after);
    assert_int_equal(in->config.disk[0].fd, out->config.disk[0].fd);
    assert_int_equal(in->config.control_fd, out->config.control_fd);
    free(before);
    free(after);
    /* The descriptors are the same numbers: only one side closes them. */
    vm_config_fini(&in->config);
    out->config.kernel_fd = out->config.control_fd = out->config.disk[0].fd = -1;
    out->config.net[0].fd[0] = -1;
    out->config.console[0].in_fd = out->config.console[0].out_fd = -1;
    vm_config_fini(&out->config);
    close(out->listen_fd);
    close(out->gdb_fd);
    close(out->log.journal_fd);
    free(in);
    free(out);
}

static int memory_file(const char *text)
{
    size_t len = strlen(text);
    int fd = memfd_create("test", MFD_CLOEXEC);

    assert_int_equal(write(fd, text, len), len);
    return fd;
}

static void refuse(int fd, const char *part)
{
    struct launch *launch = xcalloc(1, sizeof(*launch));

    assert_err(launch_read(fd, launch), part);
    vm_config_fini(&launch->config);
    free(launch);
}

static void test_refused(void **state)
{
    int pipe_fds[2];

    refuse(memory_file(""), "started by `tenon run`");
    refuse(memory_file("{"), "no JSON");
    refuse(memory_file("{}"), "incomplete");
    refuse(memory_file("[1]"), "incomplete");
    refuse(memory_file("{\"vm\":7,\"marks\":{},\"listen_fd\":-1,\"gdb_fd\":-1,\"paused\":false,"
                       "\"log_level\":1,\"log_format\":0,\"journal_fd\":-1}"),
           "VM");
    refuse(null_fd(), "started by `tenon run`");
    assert_int_equal(pipe(pipe_fds), 0);
    refuse(pipe_fds[0], "started by `tenon run`");
    close(pipe_fds[1]);
    refuse(987, "hand-over");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests_name("cmd/launch", tests, NULL, NULL);
}
