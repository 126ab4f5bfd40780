/*
 * Unix sockets: paths of every length, a socket nobody listens on, and descriptors on their way.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/socket.h"

static char directory[] = "/tmp/tenon-socket-XXXXXX";

/* A path of `length` bytes in the directory. */
static void make_path(char *path, size_t length)
{
    size_t start = (size_t)sprintf(path, "%s/", directory);

    memset(path + start, 's', length - start);
    path[length] = 0;
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    memcpy(address.sun_path, path, strlen(path));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static void test_connect(void **state)
{
    char path[SOCKET_PATH_MAX + 2], byte;

    make_path(path, SOCKET_PATH_MAX);
    assert_int_equal(socket_connect(path, SOCK_STREAM), -1);
    assert_int_equal(errno, ENOENT);
    int listener = listen_at(path), fd = socket_connect(path, SOCK_STREAM | SOCK_NONBLOCK);
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(recv(fd, &byte, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
    close(fd);
    close(listener);
    assert_int_equal(socket_connect(path, SOCK_STREAM), -1);
    assert_int_equal(errno, ECONNREFUSED);
    unlink(path);
    make_path(path, SOCKET_PATH_MAX + 1);
    assert_int_equal(socket_connect(path, SOCK_STREAM), -1);
    assert_int_equal(errno, ENAMETOOLONG);
}

static void test_descriptors(void **state)
{
    int pair[2], got[SOCKET_FDS_MAX + 1], sent[2] = {STDIN_FILENO, STDOUT_FILENO};
    char byte = 'x';

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    assert_true(socket_send_fds(pair[0], &byte, 1, sent, 2, 0));
    assert_true(socket_send_fd(pair[0], &byte, 1, STDIN_FILENO, 0));
    assert_true(socket_send_fd(pair[0], &byte, 1, -1, 0));
    assert_int_equal(socket_receive_fds(pair[1], &byte, 1, got, SOCKET_FDS_MAX + 1, 0), 1);
    assert_true(got[0] >= 0 && got[1] >= 0 && got[2] == -1);
    close(got[0]);
    close(got[1]);
    assert_int_equal(socket_receive_fd(pair[1], &byte, 1, got), 1);
    assert_true(got[0] >= 0);
    close(got[0]);
    assert_int_equal(socket_receive_fd(pair[1], &byte, 1, got), 1);
    assert_int_equal(got[0], -1);
    /* Two came where one was expected: none is left open behind our back. */
    int next = dup(STDIN_FILENO);
    close(next);
    assert_true(socket_send_fds(pair[0], &byte, 1, sent, 2, 0));
    assert_int_equal(socket_receive_fd(pair[1], &byte, 1, got), 1);
    close(got[0]);
    int again = dup(STDIN_FILENO);
    assert_int_equal(again, next);
    close(again);
    close(pair[1]);
    assert_false(socket_send_fd(pair[0], &byte, 1, -1, 0));
    close(pair[0]);
}

static int group_setup(void **state)
{
    return mkdtemp(directory) ? 0 : -1;
}

static int group_teardown(void **state)
{
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_connect),
                                       cmocka_unit_test(test_descriptors)};
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
