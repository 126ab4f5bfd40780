/*
 * Streams: pipes, files, sockets, a listener's clients, slow readers, refused input.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "share/stream.h"

struct owner {
    struct loop *loop;
    uint8_t got[200000];
    size_t got_len, limit;
    unsigned writable, connects, disconnects;
};

static size_t owner_input(void *opaque, const uint8_t *bytes, size_t len)
{
    struct owner *owner = opaque;
    size_t take = MIN(len, owner->limit - owner->got_len);
    memcpy(owner->got + owner->got_len, bytes, take);
    owner->got_len += take;
    return take;
}

static void owner_writable(void *opaque)
{
    ((struct owner *)opaque)->writable++;
}

static void owner_connected(void *opaque, bool on)
{
    struct owner *owner = opaque;
    if (on)
        owner->connects++;
    else
        owner->disconnects++;
}

static const struct stream_events events = {
    .input = owner_input, .writable = owner_writable, .connected = owner_connected};

static int setup(void **state)
{
    struct owner *owner = calloc(1, sizeof(*owner));
    owner->limit = sizeof(owner->got);
    assert_null(loop_new("test", &owner->loop));
    signal(SIGPIPE, SIG_IGN);
    *state = owner;
    return 0;
}

static int teardown(void **state)
{
    struct owner *owner = *state;
    loop_free(owner->loop);
    free(owner);
    return 0;
}

static void turn(struct owner *owner)
{
    for (int i = 0; i < 20; i++)
        loop_once(owner->loop, 2);
}

static void test_pipe_both_ways(void **state)
{
    struct owner *owner = *state;
    int in[2], out[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    struct stream *stream;
    assert_null(stream_new_fds(owner->loop, in[0], out[1], &stream));
    stream_attach(stream, &events, owner);
    assert_int_equal(write(in[1], "hello", 5), 5);
    turn(owner);
    assert_int_equal(owner->got_len, 5);
    assert_memory_equal(owner->got, "hello", 5);
    assert_int_equal(owner->connects, 1);
    assert_int_equal(stream_write(stream, (const uint8_t *)"world", 5), 5);
    char text[8];
    assert_int_equal(read(out[0], text, sizeof(text)), 5);
    assert_memory_equal(text, "world", 5);
    close(in[1]); /* end of input: output goes on */
    turn(owner);
    assert_int_equal(stream_write(stream, (const uint8_t *)"!", 1), 1);
    assert_int_equal(read(out[0], text, sizeof(text)), 1);
    stream_free(stream);
    close(out[0]);
}

/* The flags of the descriptor that a shell shares with us stay as they were. */
static void test_shared_flags_untouched(void **state)
{
    struct owner *owner = *state;
    int out[2];
    assert_int_equal(pipe(out), 0);
    int shared = dup(out[1]);
    struct stream *stream;
    assert_null(stream_new_fds(owner->loop, -1, out[1], &stream));
    stream_write(stream, (const uint8_t *)"x", 1);
    assert_int_equal(fcntl(shared, F_GETFL) & O_NONBLOCK, 0);
    stream_free(stream);
    assert_int_equal(fcntl(shared, F_GETFL) & O_NONBLOCK, 0);
    close(shared);
    close(out[0]);
}

static void test_slow_reader(void **state)
{
    struct owner *owner = *state;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct stream *stream;
    assert_null(stream_new_fds(owner->loop, pair[0], pair[0], &stream));
    stream_attach(stream, &events, owner);
    static uint8_t chunk[40000];
    uint64_t written = 0, read_back = 0;
    for (int i = 0; i < 1000; i++) {
        for (size_t k = 0; k < sizeof(chunk); k++)
            chunk[k] = (uint8_t)((written + k) * 7 >> 3);
        size_t took = stream_write(stream, chunk, sizeof(chunk));
        written += took;
        if (took < sizeof(chunk))
            break;
    }
    turn(owner);
    assert_int_equal(owner->writable, 0);
    static uint8_t back[30000];
    for (int rounds = 0; read_back < written && rounds < 1000; rounds++) {
        ssize_t got = recv(pair[1], back, sizeof(back), MSG_DONTWAIT);
        for (ssize_t k = 0; k < got; k++)
            assert_int_equal(back[k], (uint8_t)((read_back + (uint64_t)k) * 7 >> 3));
        read_back += got > 0 ? (uint64_t)got : 0;
        loop_once(owner->loop, 1);
    }
    assert_int_equal(read_back, written);
    assert_int_equal(owner->writable, 1);
    stream_free(stream);
    close(pair[1]);
}

static void test_refused_input(void **state)
{
    struct owner *owner = *state;
    int in[2];
    assert_int_equal(pipe(in), 0);
    struct stream *stream;
    assert_null(stream_new_fds(owner->loop, in[0], -1, &stream));
    owner->limit = 3;
    stream_attach(stream, &events, owner);
    assert_int_equal(write(in[1], "abcdefgh", 8), 8);
    turn(owner);
    assert_int_equal(owner->got_len, 3);
    owner->limit = 6;
    turn(owner);
    assert_int_equal(owner->got_len, 3);
    stream_rx_ready(stream);
    turn(owner);
    assert_int_equal(owner->got_len, 6);
    owner->limit = 100;
    stream_rx_ready(stream);
    turn(owner);
    assert_memory_equal(owner->got, "abcdefgh", 8);
    /* Detached: input waits in the pipe for the next owner. */
    stream_attach(stream, NULL, NULL);
    assert_int_equal(write(in[1], "ij", 2), 2);
    turn(owner);
    assert_int_equal(owner->got_len, 8);
    stream_attach(stream, &events, owner);
    turn(owner);
    assert_int_equal(owner->got_len, 10);
    stream_free(stream);
    close(in[1]);
}

static void test_file_and_null_device(void **state)
{
    struct owner *owner = *state;
    char path[] = "/tmp/stream-XXXXXX";
    int fd = mkstemp(path);
    struct stream *stream;
    assert_null(stream_new_fds(owner->loop, -1, dup(fd), &stream));
    static uint8_t bytes[150000];
    memset(bytes, 'z', sizeof(bytes));
    assert_int_equal(stream_write(stream, bytes, sizeof(bytes)), sizeof(bytes));
    assert_int_equal(lseek(fd, 0, SEEK_END), sizeof(bytes));
    stream_free(stream);
    /* As input: read through to its end. */
    lseek(fd, 0, SEEK_SET);
    assert_null(stream_new_fds(owner->loop, fd, open("/dev/null", O_WRONLY), &stream));
    stream_attach(stream, &events, owner);
    turn(owner);
    assert_int_equal(owner->got_len, sizeof(bytes));
    assert_int_equal(stream_write(stream, bytes, sizeof(bytes)), sizeof(bytes));
    stream_free(stream);
    unlink(path);

    stream = stream_new_null(owner->loop);
    stream_attach(stream, &events, owner);
    assert_int_equal(stream_write(stream, bytes, sizeof(bytes)), sizeof(bytes));
    stream_rx_ready(stream);
    stream_drain(stream, 10);
    stream_free(stream);
}

static int client(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)address, sizeof(*address)), 0);
    return fd;
}

static void test_listener(void **state)
{
    struct owner *owner = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/stream-sock-%d", getpid());
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 4), 0);
    struct stream *stream;
    assert_null(stream_new_listener(owner->loop, fd, &stream));
    stream_attach(stream, &events, owner);
    turn(owner);
    assert_int_equal(owner->connects, 0);
    assert_int_equal(stream_write(stream, (const uint8_t *)"lost", 4), 4);

    int first = client(&address);
    int second = client(&address);
    assert_int_equal(write(second, "2", 1), 1);
    turn(owner);
    assert_int_equal(owner->connects, 1);
    assert_int_equal(write(first, "1", 1), 1);
    assert_int_equal(stream_write(stream, (const uint8_t *)"out", 3), 3);
    turn(owner);
    char text[8];
    assert_int_equal(read(first, text, sizeof(text)), 3);
    assert_int_equal(owner->got_len, 1);
    assert_int_equal(owner->got[0], '1');
    close(first);
    turn(owner); /* the second client waited in the backlog */
    assert_int_equal(owner->disconnects, 1);
    assert_int_equal(owner->connects, 2);
    assert_int_equal(owner->got[1], '2');

    /* A client that left bytes behind which nobody takes does not lock the next one out. */
    owner->limit = owner->got_len;
    assert_int_equal(write(second, "unread", 6), 6);
    turn(owner);
    close(second);
    turn(owner);
    assert_int_equal(owner->disconnects, 1);
    int third = client(&address);
    turn(owner);
    assert_int_equal(owner->disconnects, 2);
    assert_int_equal(owner->connects, 3);
    stream_write(stream, (const uint8_t *)"hi", 2);
    assert_int_equal(read(third, text, sizeof(text)), 2);
    stream_free(stream);
    close(third);
    unlink(address.sun_path);
}

static void expect_busy(struct err *err)
{
    assert_non_null(err);
    assert_int_equal(err_kind(err), ERR_BUSY);
    err_free(err);
}

/* Visitors, whom the owner does not hear come and go. */
static void test_steady(void **state)
{
    struct owner *owner = *state;
    int first[2], second[2], file = open("/dev/null", O_RDWR);
    char text[8];
    struct stream *stream;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, first), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, second), 0);
    assert_null(stream_new_steady(owner->loop, &stream));
    stream_attach(stream, &events, owner);
    turn(owner);
    assert_int_equal(owner->connects, 1);
    assert_int_equal(stream_write(stream, (const uint8_t *)"lost", 4), 4);
    struct err *err = stream_join(stream, file);
    assert_int_equal(err_kind(err), ERR_FAILED);
    err_free(err);

    assert_null(stream_join(stream, first[1]));
    assert_int_equal(write(first[0], "1", 1), 1);
    turn(owner);
    assert_int_equal(owner->got_len, 1);
    stream_write(stream, (const uint8_t *)"hi", 2);
    assert_int_equal(read(first[0], text, sizeof(text)), 2);
    expect_busy(stream_join(stream, dup(second[1])));
    /* One who leaves bytes behind that nobody takes makes room, and they are gone with him. */
    owner->limit = owner->got_len;
    assert_int_equal(write(first[0], "unread", 6), 6);
    turn(owner);
    close(first[0]);
    turn(owner);
    owner->limit = sizeof(owner->got);
    assert_null(stream_join(stream, second[1]));
    assert_int_equal(write(second[0], "2", 1), 1);
    turn(owner);
    assert_int_equal(owner->got_len, 2);
    assert_int_equal(owner->got[1], '2');
    assert_int_equal(owner->connects, 1);
    assert_int_equal(owner->disconnects, 0);
    stream_free(stream);
    close(second[0]);
}

static void test_pty_comes_and_goes(void **state)
{
    struct owner *owner = *state;
    int master, slave;
    char name[64];
    if (openpty(&master, &slave, name, NULL, NULL) < 0)
        skip();
    struct stream *stream;
    assert_null(stream_new_fds(owner->loop, master, master, &stream));
    stream_attach(stream, &events, owner);
    assert_int_equal(write(slave, "in\n", 3), 3);
    turn(owner);
    assert_int_equal(owner->got_len, 4); /* the line discipline adds a return */
    close(slave);
    turn(owner);
    assert_int_equal(owner->disconnects, 1);
    slave = open(name, O_RDWR | O_NOCTTY);
    assert_true(slave >= 0);
    assert_int_equal(write(slave, "x", 1), 1);
    turn(owner);
    assert_int_equal(owner->got_len, 5);
    assert_int_equal(owner->connects, 2);
    stream_free(stream);
    close(slave);
}

struct writer {
    struct stream *stream;
    unsigned seed;
    size_t total;
};

static void *writer_main(void *opaque)
{
    struct writer *writer = opaque;
    uint8_t line[64];
    for (int i = 0; i < 2000; i++) {
        memset(line, 'a' + (int)writer->seed, sizeof(line));
        writer->total += stream_write(writer->stream, line, sizeof(line));
    }
    return NULL;
}

static void test_writers_of_many_threads(void **state)
{
    struct owner *owner = *state;
    int out[2];
    assert_int_equal(pipe(out), 0);
    struct stream *stream;
    assert_null(stream_new_fds(owner->loop, -1, out[1], &stream));
    struct loop_thread *thread;
    assert_null(loop_thread_start(owner->loop, &thread));
    struct writer writers[3];
    pthread_t threads[3];
    for (unsigned i = 0; i < 3; i++) {
        writers[i] = (struct writer){stream, i, 0};
        pthread_create(&threads[i], NULL, writer_main, &writers[i]);
    }
    size_t read_back = 0, sum = 0;
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    static uint8_t bytes[4096];
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        sum += writers[i].total;
        for (;;) {
            ssize_t got = read(out[0], bytes, sizeof(bytes));
            if (got <= 0)
                break;
            read_back += (size_t)got;
        }
    }
    for (int quiet = 0; read_back < sum && quiet < 1000; quiet++) {
        ssize_t got = read(out[0], bytes, sizeof(bytes));
        if (got > 0) {
            read_back += (size_t)got;
            quiet = 0;
        } else {
            usleep(1000);
        }
    }
    assert_true(sum > 0);
    assert_int_equal(read_back, sum);
    loop_thread_join(thread);
    stream_free(stream);
    close(out[0]);
}

static void test_broken_pipe(void **state)
{
    struct owner *owner = *state;
    int out[2];
    assert_int_equal(pipe(out), 0);
    struct stream *stream;
    assert_null(stream_new_fds(owner->loop, -1, out[1], &stream));
    close(out[0]);
    static uint8_t bytes[100000];
    assert_int_equal(stream_write(stream, bytes, sizeof(bytes)), sizeof(bytes));
    turn(owner);
    stream_drain(stream, 1000);
    stream_free(stream);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_pipe_both_ways),       TEST(test_shared_flags_untouched),
        TEST(test_slow_reader),          TEST(test_refused_input),
        TEST(test_file_and_null_device), TEST(test_listener),
        TEST(test_pty_comes_and_goes),   TEST(test_writers_of_many_threads),
        TEST(test_broken_pipe),          TEST(test_steady),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
