/*
 * The NBD client behind a socket, with our own server at the other end, and with one that lies.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "block/export/nbd_internal.h"

#define SIZE MIB(40) /* more than one request may carry */

struct server {
    struct nbd_export export;
    struct nbd_server_config config;
    pthread_t thread;
    int stop_fd;
    struct image *client;
};

static void *serve(void *opaque)
{
    struct server *server = opaque;

    assert_null(nbd_serve(&server->config));
    return NULL;
}

/* A memory file behind our server, and a client's node. */
static struct image *start(struct server *server, bool writable)
{
    int pair[2], stop[2], fd = memfd_create("disk", MFD_CLOEXEC);
    unsigned flags = writable ? IMAGE_OPEN_WRITABLE | IMAGE_OPEN_DISCARD : 0;

    assert_int_equal(ftruncate(fd, SIZE), 0);
    memset(server, 0, sizeof(*server));
    server->export.name = "";
    assert_null(image_open_fd(fd, flags, &server->export.image));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stop), 0);
    server->config = (struct nbd_server_config){.export = &server->export,
                                                .export_count = 1,
                                                .listen_fd = -1,
                                                .client_fd = pair[1],
                                                .stop_fd = stop[1],
                                                .clients_max = 1};
    server->stop_fd = stop[0];
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
    assert_true(image_fd_is_socket(pair[0]));
    struct err *err = image_open_fd(pair[0], writable ? IMAGE_OPEN_WRITABLE : 0, &server->client);
    assert_null(err);
    return server->client;
}

static void stop(struct server *server)
{
    close(server->stop_fd);
    pthread_join(server->thread, NULL);
    close(server->config.stop_fd);
    image_close(server->client);
    image_close(server->export.image);
}

static void test_what_is_written_is_read(void **state)
{
    struct server server;
    struct image *image = start(&server, true);
    uint8_t *out = malloc(SIZE), *in = malloc(SIZE);

    for (size_t i = 0; i < SIZE; i++)
        out[i] = (uint8_t)(i * 7 + i / 4096);
    assert_int_equal(image_size(image), SIZE);
    assert_int_equal(image_write(image, out, 0, SIZE), 0);
    assert_int_equal(image_flush(image), 0);
    assert_int_equal(image_read(server.export.image, in, 0, SIZE), 0);
    assert_memory_equal(in, out, SIZE);
    memset(in, 0xee, SIZE);
    assert_int_equal(image_read(image, in, 0, SIZE), 0);
    assert_memory_equal(in, out, SIZE);

    assert_int_equal(image_zero(image, 512, 4096, true), 0);
    assert_int_equal(image_discard(image, MIB(1), MIB(1)), 0);
    assert_int_equal(image_read(image, in, 0, 8192), 0);
    assert_true(image_is_zero(in + 512, 4096));
    assert_memory_equal(in, out, 512);
    assert_memory_equal(in + 4608, out + 4608, 8192 - 4608);
    free(out);
    free(in);
    stop(&server);
}

static void test_the_ends(void **state)
{
    struct server server;
    struct image *image = start(&server, true);
    uint8_t bytes[1024];

    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(image_write(image, bytes, SIZE - 512, 512), 0);
    assert_int_equal(image_write(image, bytes, SIZE - 512, 1024), -ENOSPC);
    assert_int_equal(image_read(image, bytes, SIZE - 512, 1024), 0); /* zeros behind the end */
    assert_int_equal(bytes[511], 0xff);
    assert_true(image_is_zero(bytes + 512, 512));
    stop(&server);

    image = start(&server, false);
    assert_int_equal(image_read(image, bytes, 0, 512), 0);
    assert_int_equal(image_write(image, bytes, 0, 512), -EROFS);
    stop(&server);
}

static void test_the_server_goes(void **state)
{
    struct server server;
    struct image *image = start(&server, true);
    uint8_t bytes[512];

    assert_int_equal(image_read(image, bytes, 0, 512), 0);
    close(server.stop_fd);
    pthread_join(server.thread, NULL);
    assert_int_equal(image_read(image, bytes, 0, 512), -EIO);
    assert_int_equal(image_flush(image), -EIO);
    server.stop_fd = -1;
    close(server.config.stop_fd);
    image_close(image);
    image_close(server.export.image);
}

/* A greeting as it should be, 28 bytes with size and flags of the export. */
static void greet(uint8_t *bytes)
{
    put_be64(bytes, NBD_MAGIC);
    put_be64(bytes + 8, NBD_OPTION_MAGIC);
    put_be16(bytes + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    put_be64(bytes + 18, SIZE);
    put_be16(bytes + 26, NBD_FLAG_HAS_FLAGS);
}

/* What a client makes of these bytes; the other end is closed behind them. */
static struct err *open_lies(const uint8_t *bytes, size_t len, unsigned flags, struct image **image)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(write(pair[1], bytes, len), len);
    shutdown(pair[1], SHUT_WR);
    struct err *err = image_open_fd(pair[0], flags, image);
    close(pair[1]);
    return err;
}

static void test_a_greeting_that_lies(void **state)
{
    struct image *image;
    uint8_t bytes[28];

    for (unsigned at = 0; at < 18; at++) {
        greet(bytes);
        bytes[at] ^= 0xff;
        struct err *err = open_lies(bytes, sizeof(bytes), 0, &image);
        if (at == 16 && !err) { /* bits that nobody knows yet */
            image_close(image);
            continue;
        }
        assert_non_null(err);
        err_free(err);
    }
    for (size_t len = 0; len < sizeof(bytes); len++) {
        greet(bytes);
        struct err *err = open_lies(bytes, len, 0, &image);
        assert_non_null(err);
        err_free(err);
    }
    greet(bytes);
    bytes[18] = 0x80; /* the size */
    struct err *err = open_lies(bytes, sizeof(bytes), 0, &image);
    assert_non_null(err);
    err_free(err);
    greet(bytes);
    bytes[27] |= NBD_FLAG_READ_ONLY;
    err = open_lies(bytes, sizeof(bytes), IMAGE_OPEN_WRITABLE, &image);
    assert_int_equal(err_kind(err), ERR_DENIED);
    err_free(err);
}

/* Replies are there before the requests: the client numbers them from 1. */
static void test_replies_that_lie(void **state)
{
    static const struct {
        uint32_t magic, error;
        uint64_t cookie;
        int result, then;
    } replies[] = {
        {NBD_SIMPLE_REPLY_MAGIC, 0, 1, 0, -EIO},     {NBD_SIMPLE_REPLY_MAGIC, 0, 2, -EIO, -EIO},
        {NBD_CHUNK_MAGIC, 0, 1, -EIO, -EIO},         {NBD_SIMPLE_REPLY_MAGIC, 28, 1, -ENOSPC, -EIO},
        {NBD_SIMPLE_REPLY_MAGIC, 77, 1, -EIO, -EIO},
    };

    for (size_t i = 0; i < ARRAY_SIZE(replies); i++) {
        uint8_t bytes[28 + 16 + 512] = {0}, in[512];
        struct image *image;

        greet(bytes);
        put_be32(bytes + 28, replies[i].magic);
        put_be32(bytes + 32, replies[i].error);
        put_be64(bytes + 36, replies[i].cookie);
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(write(pair[1], bytes, sizeof(bytes)), sizeof(bytes));
        shutdown(pair[1], SHUT_WR);
        assert_null(image_open_fd(pair[0], 0, &image));
        assert_int_equal(image_read(image, in, 0, 512), replies[i].result);
        assert_int_equal(image_read(image, in, 0, 512), replies[i].then);
        image_close(image);
        close(pair[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read), cmocka_unit_test(test_the_ends),
        cmocka_unit_test(test_the_server_goes),         cmocka_unit_test(test_a_greeting_that_lies),
        cmocka_unit_test(test_replies_that_lie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
