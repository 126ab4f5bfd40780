/*
 * The QMP server: greeting, negotiation, commands, events, several clients, and clients that are
 * hostile or deaf.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl/qmp.h"

struct fixture {
    struct loop *loop;
    struct qmp_server *server;
    unsigned ran, closed;
    int fd;            /* the client's end */
    char buf[1 << 20]; /* received and not yet taken as lines */
    size_t len;
};

static struct err *run_echo(void *opaque, const json_t *arguments, json_t **result)
{
    struct fixture *fixture = opaque;

    fixture->ran++;
    *result = arguments ? json_deep_copy(arguments) : NULL;
    return NULL;
}

static struct err *run_fail(void *opaque, const json_t *arguments, json_t **result)
{
    return err_wrap(err_new("it broke"), "thing");
}

static struct err *run_shout(void *opaque, const json_t *arguments, json_t **result)
{
    struct fixture *fixture = opaque;

    qmp_server_event(fixture->server, "SHOUT", json_pack("{s:i}", "n", 7));
    return NULL;
}

static const struct qmp_command commands[] = {
    {"echo", run_echo},
    {"fail", run_fail},
    {"shout", run_shout},
    {NULL, NULL},
};

static void on_closed(void *opaque)
{
    ((struct fixture *)opaque)->closed++;
}

static void rounds(struct fixture *fixture)
{
    for (int i = 0; i < 4; i++)
        loop_once(fixture->loop, 0);
}

static int connect_client(struct fixture *fixture, bool owner)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_ok(qmp_server_add(fixture->server, pair[0], owner, on_closed, fixture));
    return pair[1];
}

static int setup(void **state)
{
    struct fixture *fixture = xcalloc(1, sizeof(*fixture));

    assert_ok(loop_new("test", &fixture->loop));
    fixture->server = qmp_server_new(fixture->loop, commands, fixture);
    fixture->fd = connect_client(fixture, false);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    qmp_server_free(fixture->server);
    loop_free(fixture->loop);
    if (fixture->fd >= 0)
        close(fixture->fd);
    free(fixture);
    return 0;
}

/* The next message from the server, or NULL when there is none. The caller owns it. */
static json_t *next(struct fixture *fixture)
{
    char *end;
    json_t *message;

    rounds(fixture);
    for (;;) {
        ssize_t n = recv(fixture->fd, fixture->buf + fixture->len,
                         sizeof(fixture->buf) - fixture->len, MSG_DONTWAIT);
        if (n <= 0)
            break;
        fixture->len += (size_t)n;
    }
    end = memchr(fixture->buf, '\n', fixture->len);
    if (!end)
        return NULL;
    message = json_loadb(fixture->buf, (size_t)(end - fixture->buf), 0, NULL);
    assert_non_null(message);
    fixture->len -= (size_t)(end + 1 - fixture->buf);
    memmove(fixture->buf, end + 1, fixture->len);
    return message;
}

static void say(struct fixture *fixture, const char *text)
{
    assert_int_equal(send(fixture->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* The next message has this text (keys sorted). */
static void expect(struct fixture *fixture, const char *expected)
{
    json_t *message = next(fixture);
    char *text = json_dumps(message, JSON_COMPACT | JSON_SORT_KEYS);

    assert_non_null(message);
    assert_string_equal(text, expected);
    free(text);
    json_decref(message);
}

/* The next message is an error whose description contains `part`. */
static void expect_error(struct fixture *fixture, const char *class, const char *part)
{
    json_t *message = next(fixture), *error = json_object_get(message, "error");

    assert_non_null(error);
    assert_string_equal(json_string_value(json_object_get(error, "class")), class);
    if (!strstr(json_string_value(json_object_get(error, "desc")), part))
        fail_msg("'%s' lacks '%s'", json_string_value(json_object_get(error, "desc")), part);
    json_decref(message);
}

static void negotiate(struct fixture *fixture)
{
    json_t *greeting = next(fixture);

    assert_non_null(json_object_get(json_object_get(greeting, "QMP"), "version"));
    assert_int_equal(
        json_array_size(json_object_get(json_object_get(greeting, "QMP"), "capabilities")), 0);
    json_decref(greeting);
    say(fixture, "{\"execute\":\"qmp_capabilities\"}");
    expect(fixture, "{\"return\":{}}");
}

static void test_negotiation(void **state)
{
    struct fixture *fixture = *state;

    json_decref(next(fixture));
    say(fixture, "{\"execute\":\"echo\"}");
    expect_error(fixture, "CommandNotFound", "qmp_capabilities");
    assert_int_equal(fixture->ran, 0);
    say(fixture, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}");
    expect_error(fixture, "GenericError", "no capability");
    say(fixture, "{\"execute\":\"qmp_capabilities\",\"id\":5}");
    expect(fixture, "{\"id\":5,\"return\":{}}");
    say(fixture, "{\"execute\":\"qmp_capabilities\"}");
    expect_error(fixture, "CommandNotFound", "already complete");
}

static void test_commands(void **state)
{
    struct fixture *fixture = *state;
    json_t *message;

    negotiate(fixture);
    say(fixture, "{\"execute\":\"echo\",\"arguments\":{\"a\":[1,\"}\"]},\"id\":{\"x\":null}}");
    expect(fixture, "{\"id\":{\"x\":null},\"return\":{\"a\":[1,\"}\"]}}");
    /* Several in one piece, without a newline between. */
    say(fixture, "{\"execute\":\"echo\",\"id\":1}{\"execute\":\"fail\",\"id\":2}");
    expect(fixture, "{\"id\":1,\"return\":{}}");
    expect(fixture,
           "{\"error\":{\"class\":\"GenericError\",\"desc\":\"thing: it broke\"},\"id\":2}");
    /* One in many pieces. */
    for (const char *c = "{\"execute\":\"echo\"}"; *c; c++) {
        say(fixture, (char[]){*c, 0});
        rounds(fixture);
    }
    expect(fixture, "{\"return\":{}}");
    say(fixture, "{\"execute\":\"nonesuch\"}");
    expect_error(fixture, "CommandNotFound", "nonesuch");
    say(fixture, "{\"execute\":\"query-commands\"}");
    message = next(fixture);
    assert_int_equal(json_array_size(json_object_get(message, "return")), 6);
    json_decref(message);
    say(fixture, "{\"execute\":\"query-version\"}");
    message = next(fixture);
    assert_non_null(json_object_get(json_object_get(message, "return"), "qemu"));
    json_decref(message);
}

static void test_malformed(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"{}", "lacks member 'execute'"},
        {"{\"execute\":1}", "must be a string"},
        {"{\"execute\":\"echo\",\"arguments\":[]}", "'arguments' must be an object"},
        {"{\"execute\":\"echo\",\"extra\":1}", "'extra' is unexpected"},
        {"{\"execute\":\"echo\",\"execute\":\"echo\"}", "parse error"},
        {"{\"execute\":}", "parse error"},
        {"{\"a\":\"\xff\xfe\"}", "parse error"},
        {"hello\n", "parse error"},
        {"]\n", "parse error"},
        {"{\"execute\":\"\xc3\xa9\"}", "not been found"},
    };

    negotiate(fixture);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        say(fixture, cases[i].text);
        expect_error(fixture, strstr(cases[i].part, "found") ? "CommandNotFound" : "GenericError",
                     cases[i].part);
    }
    /* A name that is cut in the middle of a character still gets an answer. */
    char name[400] = "{\"execute\":\"y";
    for (int i = 0; i < 120; i++)
        strcat(name, "\xc3\xa9");
    strcat(name, "\"}");
    say(fixture, name);
    expect_error(fixture, "CommandNotFound", "not been found");
    say(fixture, "{\"execute\":\"echo\"}");
    expect(fixture, "{\"return\":{}}");
    assert_int_equal(fixture->closed, 0);
}

/* Deeper than the parser goes: an error, and no stack of ours is used up. */
static void test_deep_nesting(void **state)
{
    struct fixture *fixture = *state;
    enum { DEPTH = 20000 };
    static char text[2 * DEPTH + 7];

    negotiate(fixture);
    memcpy(text, "{\"a\":", 5);
    memset(text + 5, '[', DEPTH);
    memset(text + 5 + DEPTH, ']', DEPTH);
    text[5 + 2 * DEPTH] = '}';
    say(fixture, text);
    for (int i = 0; i < 20; i++)
        rounds(fixture);
    expect_error(fixture, "GenericError", "parse error");
    assert_int_equal(fixture->closed, 0);
}

static void test_oversized(void **state)
{
    struct fixture *fixture = *state;
    char piece[8192];

    negotiate(fixture);
    memset(piece, 'a', sizeof(piece));
    say(fixture, "{\"execute\":\"");
    for (int i = 0; i < 12 && !fixture->closed; i++) {
        if (send(fixture->fd, piece, sizeof(piece), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
        rounds(fixture);
    }
    expect_error(fixture, "GenericError", "too long");
    assert_int_equal(fixture->closed, 1);
    assert_int_equal(fixture->ran, 0);
}

static void test_events(void **state)
{
    struct fixture *fixture = *state;
    json_t *message;

    json_decref(next(fixture));
    qmp_server_event(fixture->server, "EARLY", NULL);
    assert_null(next(fixture)); /* not negotiated: no events */
    say(fixture, "{\"execute\":\"qmp_capabilities\"}");
    expect(fixture, "{\"return\":{}}");
    say(fixture, "{\"execute\":\"shout\"}");
    message = next(fixture);
    assert_string_equal(json_string_value(json_object_get(message, "event")), "SHOUT");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(message, "data"), "n")), 7);
    assert_true(json_integer_value(json_object_get(json_object_get(message, "timestamp"),
                                                   "seconds")) > 1500000000);
    json_decref(message);
    expect(fixture, "{\"return\":{}}");
}

static void test_owner_needs_no_negotiation(void **state)
{
    struct fixture *fixture = *state;

    close(fixture->fd);
    fixture->fd = connect_client(fixture, true);
    fixture->len = 0;
    qmp_server_event(fixture->server, "EARLY", NULL);
    json_decref(next(fixture)); /* greeting */
    json_t *message = next(fixture);
    assert_string_equal(json_string_value(json_object_get(message, "event")), "EARLY");
    json_decref(message);
    say(fixture, "{\"execute\":\"echo\"}");
    expect(fixture, "{\"return\":{}}");
}

/* A client that never reads is dropped in time, and the others do not notice. */
static void test_deaf_client(void **state)
{
    struct fixture *fixture = *state;
    int deaf = connect_client(fixture, true);
    char payload[4001];

    negotiate(fixture);
    memset(payload, 'p', 4000);
    payload[4000] = 0;
    for (int i = 0; i < 400; i++) {
        qmp_server_event(fixture->server, "NOISE", json_pack("{s:s}", "p", payload));
        json_decref(next(fixture));
    }
    assert_int_equal(fixture->closed, 1);
    say(fixture, "{\"execute\":\"echo\"}");
    expect(fixture, "{\"return\":{}}");
    close(deaf);
}

static void test_hangup(void **state)
{
    struct fixture *fixture = *state;

    negotiate(fixture);
    say(fixture, "{\"execute\":\"echo\""); /* and no end */
    close(fixture->fd);
    fixture->fd = -1;
    rounds(fixture);
    assert_int_equal(fixture->closed, 1);
    qmp_server_event(fixture->server, "LATE", NULL);
}

static void test_listener(void **state)
{
    struct fixture *fixture = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int clients[QMP_CLIENTS_MAX + 2];
    char text[512];

    /* An abstract name: nothing to remove. */
    snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "tenon-test-%d", getpid());
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 16), 0);
    assert_ok(qmp_server_listen(fixture->server, listener));
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        clients[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(clients[i], (struct sockaddr *)&address, sizeof(address)), 0);
    }
    for (int i = 0; i < 20; i++)
        rounds(fixture);
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        ssize_t n = recv(clients[i], text, sizeof(text), MSG_DONTWAIT);

        assert_true(i < QMP_CLIENTS_MAX ? n > 0 : n < 0 && errno == EAGAIN);
    }
    /* One goes, the next in the queue is served. */
    close(clients[0]);
    for (int i = 0; i < 4; i++)
        rounds(fixture);
    assert_true(recv(clients[QMP_CLIENTS_MAX], text, sizeof(text), MSG_DONTWAIT) > 0);
    for (size_t i = 1; i < ARRAY_SIZE(clients); i++)
        close(clients[i]);
    rounds(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_negotiation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deep_nesting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_oversized, setup, teardown),
        cmocka_unit_test_setup_teardown(test_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_owner_needs_no_negotiation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deaf_client, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hangup, setup, teardown),
        cmocka_unit_test_setup_teardown(test_listener, setup, teardown),
    };

    return cmocka_run_group_tests_name("ctl/qmp", tests, NULL, NULL);
}
