/*
 * The relay of the console: bytes both ways, the escape key, the end of either side, a reader that
 * is slow. Standard input and output are pipes of the test.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/relay.h"

struct fixture {
    struct relay relay;
    struct terminal terminal;
    int in[2], out[2], guest; /* ends of the user and of the guest */
    int saved_stdin;
    char commands[16];
};

static void on_command(void *opaque, int letter)
{
    struct fixture *fixture = opaque;
    size_t len = strlen(fixture->commands);

    assert_true(len + 1 < sizeof(fixture->commands));
    fixture->commands[len] = (char)letter;
}

static int setup(void **state)
{
    struct fixture *fixture = xcalloc(1, sizeof(*fixture));
    int pair[2];

    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(pipe2(fixture->in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(fixture->out, O_CLOEXEC), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    fixture->saved_stdin = dup(STDIN_FILENO);
    assert_int_equal(dup2(fixture->in[0], STDIN_FILENO), STDIN_FILENO);
    fixture->guest = pair[1];
    fixture->terminal = (struct terminal){.fd = -1};
    relay_init(&fixture->relay, &fixture->terminal, pair[0], fixture->out[1], on_command, fixture);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    relay_fini(&fixture->relay);
    dup2(fixture->saved_stdin, STDIN_FILENO);
    close(fixture->saved_stdin);
    for (int i = 0; i < 2; i++) {
        close(fixture->in[i]);
        close(fixture->out[i]);
    }
    close(fixture->guest);
    free(fixture);
    return 0;
}

/* Serves until nothing is ready; returns how many rounds did something. */
static unsigned serve(struct fixture *fixture)
{
    struct pollfd fds[RELAY_POLL_FDS];
    unsigned rounds = 0;

    for (; rounds < 1000; rounds++) {
        relay_want(&fixture->relay, fds);
        if (poll(fds, RELAY_POLL_FDS, 0) <= 0)
            break;
        relay_serve(&fixture->relay, fds);
    }
    return rounds;
}

static void expect_guest(struct fixture *fixture, const char *expected)
{
    char bytes[200] = {0};
    ssize_t n;

    serve(fixture);
    n = recv(fixture->guest, bytes, sizeof(bytes) - 1, MSG_DONTWAIT);
    assert_string_equal(n > 0 ? bytes : "", expected);
}

static void type(struct fixture *fixture, const char *text)
{
    assert_int_equal(write(fixture->in[1], text, strlen(text)), strlen(text));
}

static void test_both_ways(void **state)
{
    struct fixture *fixture = *state;
    char bytes[20] = {0};

    type(fixture, "hello\x1dq");
    expect_guest(fixture, "hello\x1dq"); /* no terminal, no escape key */
    assert_int_equal(send(fixture->guest, "login:", 6, 0), 6);
    serve(fixture);
    assert_int_equal(read(fixture->out[0], bytes, sizeof(bytes)), 6);
    assert_string_equal(bytes, "login:");
    assert_string_equal(fixture->commands, "");
}

static void test_escape(void **state)
{
    struct fixture *fixture = *state;

    /* As if standard input were a terminal in raw mode. */
    fixture->terminal.fd = STDIN_FILENO;
    fixture->terminal.raw = true;
    type(fixture, "a\x1dpb\x1d\x1d"
                  "c\x1d");
    expect_guest(fixture, "ab\x1d"
                          "c");
    type(fixture, "?d");
    expect_guest(fixture, "d");
    type(fixture, "\x1dq");
    expect_guest(fixture, "");
    assert_string_equal(fixture->commands, "p?q");
    /* Somebody else has the terminal: nothing is read. */
    fixture->terminal.raw = false;
    type(fixture, "x");
    expect_guest(fixture, "");
    fixture->terminal.raw = true;
    expect_guest(fixture, "x");
    fixture->terminal.fd = -1;
}

static void test_end_of_input(void **state)
{
    struct fixture *fixture = *state;
    char bytes[20] = {0};

    type(fixture, "last");
    close(fixture->in[1]);
    expect_guest(fixture, "last");
    assert_true(serve(fixture) <= 1);
    assert_int_equal(serve(fixture), 0); /* it does not spin */
    /* And the other direction goes on. */
    assert_int_equal(send(fixture->guest, "on", 2, 0), 2);
    serve(fixture);
    assert_int_equal(read(fixture->out[0], bytes, sizeof(bytes)), 2);
    fixture->in[1] = -1;
}

static void test_end_of_output(void **state)
{
    struct fixture *fixture = *state;

    close(fixture->out[0]);
    fixture->out[0] = -1;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(send(fixture->guest, "lost", 4, 0), 4);
        serve(fixture);
    }
    assert_int_equal(serve(fixture), 0);
    type(fixture, "still");
    expect_guest(fixture, "still");
}

static void test_slow_reader(void **state)
{
    struct fixture *fixture = *state;
    static char block[8192];
    size_t sent = 0, got = 0;
    ssize_t n;

    /* Nobody reads: pipe, relay and socket fill up, and nothing blocks. */
    while ((n = send(fixture->guest, block, sizeof(block), MSG_DONTWAIT)) > 0) {
        sent += (size_t)n;
        serve(fixture);
        assert_true(sent < MIB(8));
    }
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(serve(fixture), 0);
    /* Input still passes. */
    type(fixture, "x");
    expect_guest(fixture, "x");
    /* Everything arrives when somebody reads. */
    close(fixture->guest);
    fcntl(fixture->out[0], F_SETFL, O_NONBLOCK);
    for (int idle = 0; idle < 3 && got < sent;) {
        serve(fixture);
        n = read(fixture->out[0], block, sizeof(block));
        got += n > 0 ? (size_t)n : 0;
        idle = n > 0 ? 0 : idle + 1;
    }
    assert_int_equal(got, sent);
    fixture->guest = -1;
}

static void test_drain(void **state)
{
    struct fixture *fixture = *state;
    char bytes[20] = {0};

    assert_int_equal(send(fixture->guest, "bye", 3, 0), 3);
    close(fixture->guest);
    fixture->guest = -1;
    relay_drain(&fixture->relay, 1000);
    assert_int_equal(read(fixture->out[0], bytes, sizeof(bytes)), 3);
    assert_int_equal(fixture->relay.socket, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(test_escape, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_of_input, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_of_output, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain, setup, teardown),
    };

    return cmocka_run_group_tests_name("cmd/relay", tests, NULL, NULL);
}
