/*
 * The client of a guest's agent against one that a test plays: answers, strange answers, none.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/agent.h"

struct bed {
    struct agent agent;
    int guest;
};

static int setup(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    bed->agent = (struct agent){.fd = pair[0], .timeout_ms = 60000};
    bed->guest = pair[1];
    *state = bed;
    return 0;
}

static int teardown(void **state)
{
    struct bed *bed = *state;

    agent_fini(&bed->agent);
    close(bed->agent.fd);
    close(bed->guest);
    free(bed);
    return 0;
}

/* What the guest says; it may come before the question, which the socket keeps. */
static void guest_says(struct bed *bed, const char *text, size_t len)
{
    assert_int_equal(write(bed->guest, text, len), len);
}

#define SAYS(bed, text) guest_says(bed, text, strlen(text))

static void expect_error(struct err *err, enum err_kind kind, const char *part)
{
    assert_non_null(err);
    assert_int_equal(err_kind(err), kind);
    assert_non_null(strstr(err_text(err), part));
    err_free(err);
}

static void expect_request(struct bed *bed, const char *text)
{
    char bytes[4096];
    ssize_t n = recv(bed->guest, bytes, sizeof(bytes) - 1, MSG_DONTWAIT);

    assert_true(n > 0);
    bytes[n] = 0;
    assert_string_equal(bytes, text);
}

static void test_call(void **state)
{
    struct bed *bed = *state;
    json_t *result;

    SAYS(bed, "{\"return\": {\"a\": 1}}\r\n{\"return\": 2}\n");
    assert_null(agent_call(&bed->agent, "guest-x", json_pack("{s:i}", "k", 1), &result));
    expect_request(bed, "{\"execute\":\"guest-x\",\"arguments\":{\"k\":1}}\n");
    assert_int_equal(json_integer_value(json_object_get(result, "a")), 1);
    json_decref(result);
    assert_null(agent_call(&bed->agent, "guest-y", NULL, &result));
    assert_int_equal(json_integer_value(result), 2);
    json_decref(result);
}

static void test_strange_answers(void **state)
{
    static const char *const answers[][2] = {
        {"{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such\"}}\n", "no such"},
        {"{\"error\": 5}\n", "error"},
        {"{\"error\": {\"desc\": \"both\"}, \"return\": {}}\n", "both"},
        {"[]\n", "no answer"},
        {"\n", "no answer"},
        {"{\"return\"\n", "no answer"},
        {"\xff\xfe\n", "no answer"},
    };
    struct bed *bed = *state;

    for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
        json_t *result;
        SAYS(bed, answers[i][0]);
        expect_error(agent_call(&bed->agent, "guest-x", NULL, &result), ERR_FAILED, answers[i][1]);
        assert_null(result);
    }
}

static void test_silence(void **state)
{
    struct bed *bed = *state;

    bed->agent.timeout_ms = 20;
    expect_error(agent_call(&bed->agent, "guest-x", NULL, NULL), ERR_BUSY, "does not answer");
    SAYS(bed, "{\"return\": ");
    expect_error(agent_call(&bed->agent, "guest-x", NULL, NULL), ERR_BUSY, "does not answer");
    expect_error(agent_sync(&bed->agent), ERR_BUSY, "does not answer");
    bed->agent.timeout_ms = 60000;
    shutdown(bed->guest, SHUT_RDWR);
    expect_error(agent_sync(&bed->agent), ERR_FAILED, "has ended");
}

/*
 * A guest that answers by itself. It lacks our end of the socket, so that it ends with us: what
 * lives on would keep the output of the test open.
 */
static pid_t guest_process(struct bed *bed)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        close(bed->agent.fd);
    return pid;
}

static void expect_end(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The guest's part of a sync: answers to others, then ours. */
static void test_sync(void **state)
{
    static const char before[] = "{\"return\": {}}\nhalf an ans\xff{\"return\": 3}\n\xff{\"ret\xff"
                                 "{\"return\": ";
    struct bed *bed = *state;
    char request[128] = "", *id;

    pid_t pid = guest_process(bed);
    if (pid == 0) {
        while (!strchr(request, '\n'))
            if (read(bed->guest, request + strlen(request), 1) != 1)
                _exit(1);
        id = strstr(request, "\"id\":");
        if ((unsigned char)request[0] != 0xff || !id ||
            write(bed->guest, before, sizeof(before) - 1) < 0 ||
            dprintf(bed->guest, "%.*s}\n{\"return\": 9}\n", (int)strcspn(id + 5, "}"), id + 5) < 0)
            _exit(1);
        _exit(0);
    }
    json_t *result;
    assert_null(agent_sync(&bed->agent));
    assert_null(agent_call(&bed->agent, "guest-x", NULL, &result));
    assert_int_equal(json_integer_value(result), 9);
    json_decref(result);
    expect_end(pid);
}

static void test_too_long(void **state)
{
    struct bed *bed = *state;

    pid_t pid = guest_process(bed);
    if (pid == 0) {
        static char zeros[MIB(1)];
        while (send(bed->guest, zeros, sizeof(zeros), MSG_NOSIGNAL) > 0) {
        }
        _exit(0);
    }
    close(bed->guest);
    bed->guest = -1;
    expect_error(agent_call(&bed->agent, "guest-x", NULL, NULL), ERR_FAILED, "longer than 64 MiB");
    close(bed->agent.fd);
    bed->agent.fd = -1;
    expect_end(pid);
}

static void test_exec(void **state)
{
    struct bed *bed = *state;
    struct agent_exec exec = {0};
    struct buf input = BUF_INIT;
    char *const command[] = {"cat", "-n", NULL};
    json_int_t pid;

    buf_text(&input, "hello");
    SAYS(bed, "{\"return\": {\"pid\": 77}}\n");
    assert_null(agent_exec_start(&bed->agent, command, &input, &pid));
    expect_request(bed, "{\"execute\":\"guest-exec\",\"arguments\":{\"path\":\"cat\",\"arg\":"
                        "[\"-n\"],\"capture-output\":true,\"input-data\":\"aGVsbG8=\"}}\n");
    assert_int_equal(pid, 77);
    buf_fini(&input);
    SAYS(bed, "{\"return\": {\"exited\": false}}\n");
    assert_null(agent_exec_look(&bed->agent, pid, &exec));
    assert_false(exec.ended);
    SAYS(bed, "{\"return\": {\"exited\": true, \"exitcode\": 3, \"out-data\": \"aGVsbG8=\"}}\n");
    assert_null(agent_exec_look(&bed->agent, pid, &exec));
    assert_true(exec.ended && exec.status == 3 && !exec.truncated && !exec.err.len);
    assert_int_equal(exec.out.len, 5);
    assert_memory_equal(exec.out.data, "hello", 5);
    SAYS(bed, "{\"return\": {\"exited\": true, \"signal\": 9, \"out-truncated\": true}}\n");
    assert_null(agent_exec_look(&bed->agent, pid, &exec));
    assert_true(exec.status == 137 && exec.truncated);
    SAYS(bed, "{\"return\": {\"exited\": true}}\n{\"return\": 1}\n"
              "{\"return\": {\"exited\": true, \"exitcode\": 0, \"out-data\": \"?\"}}\n");
    for (int i = 0; i < 3; i++)
        expect_error(agent_exec_look(&bed->agent, pid, &exec), ERR_FAILED, "makes no sense");
    agent_exec_fini(&exec);
}

static void test_files(void **state)
{
    struct bed *bed = *state;
    struct buf bytes = BUF_INIT;
    json_int_t handle;

    SAYS(bed, "{\"return\": -1}\n{\"return\": \"x\"}\n{\"return\": 1000}\n");
    for (int i = 0; i < 2; i++)
        expect_error(agent_file_open(&bed->agent, "/x", "r", &handle), ERR_FAILED, "no sense");
    assert_null(agent_file_open(&bed->agent, "/x", "r", &handle));
    assert_int_equal(handle, 1000);
    SAYS(bed, "{\"return\": {\"count\": 5, \"buf-b64\": \"aGVsbG8=\"}}\n");
    assert_null(agent_file_read(&bed->agent, handle, &bytes));
    assert_memory_equal(bytes.data, "hello", 5);
    /* A write may be done in parts; one that did more than it was given was not. */
    SAYS(bed, "{\"return\": {\"count\": 2}}\n{\"return\": {\"count\": 3}}\n");
    assert_null(agent_file_write(&bed->agent, handle, "hello", 5));
    SAYS(bed, "{\"return\": {\"count\": 6}}\n{\"return\": {\"count\": 0}}\n");
    for (int i = 0; i < 2; i++)
        expect_error(agent_file_write(&bed->agent, handle, "hello", 5), ERR_FAILED, "no sense");
    buf_fini(&bytes);
}

static void test_addresses(void **state)
{
    struct bed *bed = *state;
    json_t *list;

    SAYS(bed,
         "{\"return\": [{\"name\": \"lo\", \"ip-addresses\": [{\"ip-address\": \"127.0.0.1\"}]},"
         "{\"name\": \"eth0\", \"ip-addresses\": [{\"ip-address\": \"10.0.2.15\"},"
         "{\"ip-address\": \"\\u001b[2J\"}, {\"ip-address\": 4}, 5,"
         "{\"ip-address\": \"fe80::1\"}]}, {}, 7]}\n");
    assert_null(agent_addresses(&bed->agent, &list));
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(json_string_value(json_array_get(list, 0)), "10.0.2.15");
    assert_string_equal(json_string_value(json_array_get(list, 1)), "fe80::1");
    json_decref(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_call, setup, teardown),
        cmocka_unit_test_setup_teardown(test_strange_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sync, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exec, setup, teardown),
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_addresses, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
