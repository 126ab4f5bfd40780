/*
 * NBD server: the listener, connections and their threads.
 *
 * A connection begins with one thread. Whoever has received a request lets the next thread wait for
 * the following one while it works; a thread is added, up to WORKERS_MAX, when none was waiting.
 * So requests of one connection run side by side, and answers may come in another order.
 *
 * Lock: `lock` of the server covers the list of clients and their counts of threads.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "block/export/nbd_internal.h"

#define WORKERS_MAX 4
#define NEGOTIATION_S 20
#define WORKER_STACK KIB(512)

struct nbd_server {
    const struct nbd_server_config *config;
    struct lock lock;
    pthread_cond_t left; /* a client is gone */
    struct list clients;
    unsigned client_count;
    pthread_attr_t thread;
};

static void *worker(void *opaque);

/* Frees the client with its last thread. */
static void leave(struct nbd_client *client)
{
    struct nbd_server *server = client->server;
    lock_take(&server->lock);
    bool last = !--client->workers;
    if (last)
        list_remove(&client->link);
    lock_drop(&server->lock);
    if (!last)
        return;
    nbd_tls_end(&client->channel);
    close(client->channel.fd);
    lock_fini(&client->receive);
    lock_fini(&client->send);
    free(client);
    lock_take(&server->lock);
    server->client_count--;
    pthread_cond_signal(&server->left);
    lock_drop(&server->lock);
}

/* Starts a thread for the client; false: there is none. */
static bool add_worker(struct nbd_client *client)
{
    struct nbd_server *server = client->server;
    pthread_t thread;
    lock_take(&server->lock);
    bool wanted = client->workers < WORKERS_MAX;
    client->workers += wanted;
    lock_drop(&server->lock);
    if (!wanted)
        return false;
    if (pthread_create(&thread, &server->thread, worker, client) == 0)
        return true;
    lock_take(&server->lock);
    client->workers--;
    lock_drop(&server->lock);
    return false;
}

/* One request, received while no other thread of the client receives. */
static bool take_request(struct nbd_client *client, struct nbd_request *request, uint8_t *piece)
{
    __atomic_fetch_add(&client->idle, 1, __ATOMIC_RELAXED);
    lock_take(&client->receive);
    bool good = !client->closing && nbd_request_receive(client, request, piece);
    client->closing |= !good;
    bool alone = __atomic_sub_fetch(&client->idle, 1, __ATOMIC_RELAXED) == 0;
    lock_drop(&client->receive);
    if (good && alone)
        add_worker(client);
    return good;
}

/* The time of a negotiation is limited, that of what follows is not. */
static void set_timeouts(int fd, unsigned seconds)
{
    struct timeval time = {.tv_sec = seconds};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time));
}

static bool negotiate(struct nbd_client *client)
{
    if (client->negotiated)
        return true;
    client->negotiated = nbd_negotiate(client);
    set_timeouts(client->channel.fd, 0);
    return client->negotiated;
}

static void *worker(void *opaque)
{
    struct nbd_client *client = opaque;
    struct nbd_request request;
    uint8_t *piece =
        mmap(NULL, NBD_PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (piece != MAP_FAILED && negotiate(client)) {
        while (take_request(client, &request, piece)) {
            if (nbd_request_answer(client, &request, piece))
                continue;
            /* Whoever waits for a request, or for room to answer one, is to leave too. */
            shutdown(client->channel.fd, SHUT_RDWR);
            break;
        }
    }
    if (piece != MAP_FAILED)
        munmap(piece, NBD_PIECE);
    leave(client);
    return NULL;
}

static void add_client(struct nbd_server *server, int fd)
{
    struct nbd_client *client = calloc(1, sizeof(*client));
    int on = 1;
    if (!client) {
        close(fd);
        return;
    }
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    set_timeouts(fd, NEGOTIATION_S);
    client->config = server->config;
    client->server = server;
    client->channel.fd = fd;
    lock_init(&client->receive, LOCK_BLOCK);
    lock_init(&client->send, LOCK_BLOCK);
    client->workers = 1;
    lock_take(&server->lock);
    list_append(&server->clients, &client->link);
    server->client_count++;
    lock_drop(&server->lock);
    pthread_t thread;
    if (pthread_create(&thread, &server->thread, worker, client) != 0) {
        log_warn("nbd: no thread for a client: it is turned away");
        leave(client);
    }
}

static bool full(struct nbd_server *server)
{
    lock_take(&server->lock);
    bool yes = server->client_count >= server->config->clients_max;
    lock_drop(&server->lock);
    return yes;
}

/* Until the server is to stop. */
static void accept_clients(struct nbd_server *server)
{
    for (;;) {
        bool wait = full(server);
        struct pollfd fds[2] = {{.fd = server->config->stop_fd, .events = POLLIN},
                                {.fd = wait ? -1 : server->config->listen_fd, .events = POLLIN}};
        if (poll(fds, 2, wait ? 100 : -1) < 0 && errno != EINTR)
            return;
        if (fds[0].revents)
            return;
        if (!(fds[1].revents & POLLIN))
            continue;
        int fd = accept4(server->config->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            add_client(server, fd);
        else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
            poll(fds, 1, 100); /* it stays in the listener's queue */
    }
}

static void close_clients(struct nbd_server *server)
{
    struct nbd_client *client;
    lock_take(&server->lock);
    list_for_each (client, &server->clients, link)
        shutdown(client->channel.fd, SHUT_RDWR);
    while (server->client_count)
        pthread_cond_wait(&server->left, &server->lock.mutex);
    lock_drop(&server->lock);
}

struct err *nbd_serve(const struct nbd_server_config *config)
{
    struct nbd_server server = {.config = config};
    lock_init(&server.lock, LOCK_LEAF);
    pthread_cond_init(&server.left, NULL);
    list_init(&server.clients);
    pthread_attr_init(&server.thread);
    pthread_attr_setdetachstate(&server.thread, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&server.thread, WORKER_STACK);
    if (config->client_fd > 0)
        add_client(&server, config->client_fd);
    accept_clients(&server);
    close_clients(&server);
    pthread_attr_destroy(&server.thread);
    pthread_cond_destroy(&server.left);
    lock_fini(&server.lock);
    return NULL;
}
