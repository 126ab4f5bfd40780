/*
 * The RFB server: who comes, and the screen. See server.h.
 *
 * A request of a viewer is answered when the screen has been drawn after it: nobody gets what was
 * there when the last viewer looked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/socket.h"
#include "display/rfb/server_internal.h"

/* Between two drawings: the screen moves, or has not for a while. */
#define PAUSE_MIN_NS (33 * NSEC_PER_MSEC)
#define PAUSE_MAX_NS (150 * NSEC_PER_MSEC)
#define PEM_MAX KIB(256)

/* ---- drawing ---- */

static void tell_vm(struct rfb_server *server, const struct surface_message *message, int fd)
{
    uint8_t bytes[SURFACE_MESSAGE_MAX];
    size_t len = surface_message_put(message, bytes);

    /* A VM that takes nothing more is about to end, or hangs: neither is helped by waiting. */
    if (!socket_send_fd(server->config.screen_fd, bytes, len, fd, MSG_DONTWAIT))
        log_debug("the VM does not take what a viewer did");
}

static void draw(void *opaque)
{
    struct rfb_server *server = opaque;

    server->asked = true;
    tell_vm(server, &(struct surface_message){.type = SURFACE_REFRESH}, -1);
}

void rfb_server_wanted(struct rfb_server *server)
{
    if (server->asked || loop_timer_armed(&server->refresh) || !rfb_connections_wait(server))
        return;
    loop_timer_arm(&server->refresh, server->drawn_ns + server->pause_ns);
}

/* What a person does shows on the screen: it is looked at often again. */
static void hurry(struct rfb_server *server)
{
    server->pause_ns = PAUSE_MIN_NS;
    if (loop_timer_armed(&server->refresh))
        loop_timer_arm(&server->refresh, server->drawn_ns + server->pause_ns);
}

void rfb_server_key(struct rfb_server *server, uint8_t key, bool down)
{
    tell_vm(server, &(struct surface_message){.type = SURFACE_KEY, .key = key, .down = down}, -1);
    hurry(server);
}

void rfb_server_pointer(struct rfb_server *server, uint8_t buttons, int8_t wheel, uint16_t x,
                        uint16_t y)
{
    const struct surface_message message = {
        .type = SURFACE_POINTER, .buttons = buttons, .wheel = wheel, .x = x, .y = y};

    tell_vm(server, &message, -1);
    hurry(server);
}

/* ---- who comes ---- */

static void on_listen(void *opaque, uint32_t events)
{
    struct rfb_server *server = opaque;
    int fd = accept4(server->config.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0)
        rfb_connection_new(server, fd, &server->config.access);
}

static void on_client(void *opaque, uint32_t events)
{
    struct rfb_server *server = opaque;
    uint8_t right;
    int fd;
    ssize_t n = socket_receive_fd(server->config.clients_fd, &right, sizeof(right), &fd);

    if (n == 1 && fd >= 0 && (right == RFB_LOOK || right == RFB_CONTROL)) {
        rfb_connection_new(server, fd, &(struct rfb_access){.open = (enum rfb_right)right});
        return;
    }
    if (fd >= 0)
        close(fd);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    loop_fd_remove(&server->clients_watch);
    fd_cleanup(&server->config.clients_fd);
    rfb_server_gone(server);
}

void rfb_server_gone(struct rfb_server *server)
{
    if (server->config.listen_fd < 0 && server->config.clients_fd < 0 && !server->connection_count)
        loop_stop(server->config.loop);
}

static struct err *open_doors(struct rfb_server *server)
{
    struct rfb_server_config *config = &server->config;

    if (config->listen_fd >= 0)
        TRY(loop_fd_add(config->loop, &server->listen_watch, config->listen_fd, EPOLLIN, on_listen,
                        server));
    if (config->clients_fd >= 0)
        TRY(loop_fd_add(config->loop, &server->clients_watch, config->clients_fd, EPOLLIN,
                        on_client, server));
    return NULL;
}

/* ---- the VM ---- */

static void on_frame(struct rfb_server *server, const struct surface_message *frame)
{
    bool first = !server->screen.width;
    bool resized = frame->width != server->screen.width || frame->height != server->screen.height;

    server->asked = false;
    server->drawn_ns = clock_now_ns();
    server->pause_ns = frame->count ? PAUSE_MIN_NS : MIN(server->pause_ns * 3 / 2, PAUSE_MAX_NS);
    server->screen.width = frame->width;
    server->screen.height = frame->height;
    /* A viewer is told the screen's size first: none comes in before there is one. */
    struct err *err = first ? open_doors(server) : NULL;
    if (err) {
        log_error("%s", err_text(err));
        err_free(err);
        loop_stop(server->config.loop);
    }
    rfb_connections_changed(server, frame->rects, frame->count, resized);
    rfb_server_gone(server);
    rfb_server_wanted(server);
}

static void on_screen(void *opaque, uint32_t events)
{
    struct rfb_server *server = opaque;
    uint8_t bytes[SURFACE_MESSAGE_MAX];
    struct surface_message message;
    ssize_t n = recv(server->config.screen_fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0 && surface_message_get(&message, bytes, (size_t)n) && message.type == SURFACE_FRAME) {
        on_frame(server, &message);
        return;
    }
    loop_stop(server->config.loop);
}

/* The VM writes to the memory, we read. */
static struct err *share_memory(struct rfb_server *server)
{
    scoped(fd_cleanup) int fd = memfd_create("screen", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, SURFACE_SIZE) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return err_errno(errno, "cannot make the screen's memory");
    void *memory = mmap(NULL, SURFACE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return err_errno(errno, "cannot map the screen's memory");
    server->screen.pixels = memory;
    tell_vm(server, &(struct surface_message){.type = SURFACE_SHARE}, fd);
    return NULL;
}

/* ---- certificates ---- */

static struct err *read_pem(int fd, const char *what, struct buf *bytes)
{
    ssize_t n = pread(fd, buf_extend(bytes, PEM_MAX), PEM_MAX, 0);

    if (n <= 0 || n == PEM_MAX)
        return err_of(ERR_USAGE, "the %s cannot be read, or is no PEM file", what);
    bytes->len = (size_t)n;
    return NULL;
}

static struct err *load_pair(struct rfb_server *server, struct buf *certificate, struct buf *key)
{
    TRY(read_pem(server->config.certificate_fd, "certificate", certificate));
    TRY(read_pem(server->config.key_fd, "certificate's key", key));
    gnutls_datum_t pem = {certificate->data, (unsigned)certificate->len};
    gnutls_datum_t key_pem = {key->data, (unsigned)key->len};
    int result = gnutls_certificate_set_x509_key_mem(server->certificate, &pem, &key_pem,
                                                     GNUTLS_X509_FMT_PEM);
    return result < 0 ? err_of(ERR_USAGE, "certificate: %s", gnutls_strerror(result)) : NULL;
}

static struct err *load_credentials(struct rfb_server *server)
{
    struct buf certificate = BUF_INIT, key = BUF_INIT;

    if (gnutls_anon_allocate_server_credentials(&server->anonymous) < 0 ||
        gnutls_anon_set_server_known_dh_params(server->anonymous, GNUTLS_SEC_PARAM_MEDIUM) < 0 ||
        gnutls_certificate_allocate_credentials(&server->certificate) < 0)
        return err_new("no memory for TLS");
    if (server->config.certificate_fd < 0)
        return NULL;
    server->config.access.certificate = true;
    struct err *err = load_pair(server, &certificate, &key);
    if (key.data)
        memset(key.data, 0, key.capacity);
    buf_fini(&certificate);
    buf_fini(&key);
    return err;
}

/* ---- the owner's side ---- */

struct err *rfb_server_new(const struct rfb_server_config *config, struct rfb_server **result)
{
    struct rfb_server *server = xcalloc(1, sizeof(*server));
    struct err *err;

    server->config = *config;
    server->pause_ns = PAUSE_MIN_NS;
    list_init(&server->connections);
    loop_timer_init(config->loop, &server->refresh, draw, server);
    err = load_credentials(server);
    if (!err)
        err = share_memory(server);
    if (!err)
        err = loop_fd_add(config->loop, &server->screen_watch, config->screen_fd, EPOLLIN,
                          on_screen, server);
    if (err) {
        rfb_server_free(server);
        return err;
    }
    draw(server);
    *result = server;
    return NULL;
}

void rfb_server_free(struct rfb_server *server)
{
    struct rfb_connection *connection;

    while ((connection = rfb_connection_first(server)))
        rfb_connection_free(connection);
    loop_timer_cancel(&server->refresh);
    loop_fd_remove(&server->screen_watch);
    loop_fd_remove(&server->listen_watch);
    loop_fd_remove(&server->clients_watch);
    if (server->screen.pixels)
        munmap(server->screen.pixels, SURFACE_SIZE);
    if (server->anonymous)
        gnutls_anon_free_server_credentials(server->anonymous);
    if (server->certificate)
        gnutls_certificate_free_credentials(server->certificate);
    close(server->config.screen_fd);
    fd_cleanup(&server->config.listen_fd);
    fd_cleanup(&server->config.clients_fd);
    fd_cleanup(&server->config.certificate_fd);
    fd_cleanup(&server->config.key_fd);
    free(server);
}
