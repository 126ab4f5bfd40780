/*
 * Fuzz target: the NBD server's negotiation and requests. The input is what a client sends; its
 * first byte says which part: 0: all of it, else transmission alone, with or without structured
 * replies.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/export/nbd_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define IMAGE_SIZE MIB(1)
#define INPUT_MAX KIB(64)

static struct image *open_image(unsigned flags)
{
    struct image *file, *image;
    int fd = memfd_create("export", 0);
    if (fd < 0 || ftruncate(fd, IMAGE_SIZE) != 0 || image_open_fd(fd, flags, &file) ||
        image_open(file, image_driver_find("raw"), flags, NULL, &image) ||
        image_bitmap_add(image, "b", 4096, false))
        abort();
    return image;
}

/* The client reads all answers. */
static void *drain(void *opaque)
{
    static char nowhere[65536];
    int fd = *(int *)opaque;
    while (read(fd, nowhere, sizeof(nowhere)) > 0)
        ;
    return NULL;
}

static void serve(struct nbd_client *client, uint8_t mode)
{
    static uint8_t piece[NBD_PIECE];
    struct nbd_request request;
    if (mode == 0) {
        if (!nbd_negotiate(client))
            return;
    } else {
        client->export = &client->config->export[mode & 1];
        client->structured = mode & 2;
        client->contexts = mode & 2 ? 3 : 0; /* the allocation, and a bitmap */
    }
    while (nbd_request_receive(client, &request, piece) &&
           nbd_request_answer(client, &request, piece))
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct nbd_export exports[2];
    static struct nbd_client client;
    const struct nbd_server_config config = {.export = exports, .export_count = 2};
    pthread_t reader;
    int pair[2];
    if (!size || size > INPUT_MAX)
        return 0;
    if (!exports[0].image) {
        exports[0] = (struct nbd_export){"", "an export", open_image(IMAGE_OPEN_WRITABLE)};
        exports[1] = (struct nbd_export){"other", NULL, open_image(0)};
    }
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        abort();
    memset(&client, 0, sizeof(client));
    client.config = &config;
    client.channel.fd = pair[0];
    lock_init(&client.receive, LOCK_BLOCK);
    lock_init(&client.send, LOCK_BLOCK);
    if (write(pair[1], data + 1, size - 1) != (ssize_t)size - 1)
        abort();
    shutdown(pair[1], SHUT_WR);
    pthread_create(&reader, NULL, drain, &pair[1]);
    serve(&client, data[0] % 4);
    shutdown(pair[0], SHUT_RDWR);
    pthread_join(reader, NULL);
    close(pair[0]);
    close(pair[1]);
    return 0;
}
