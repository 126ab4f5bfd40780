/*
 * GDB stub: the socket. Packets are "$data#checksum"; "}" escapes a byte; each is answered with "+"
 * until both agree to leave that out (GDB manual, E.1).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/gdb/gdb_internal.h"

#define INTERRUPT 0x03
#define BACKLOG_MAX MIB(1)

static void disconnect(struct gdb_server *gdb)
{
    if (gdb->fd < 0)
        return;
    loop_fd_remove(&gdb->watch);
    close(gdb->fd);
    gdb->fd = -1;
    gdb->in.len = gdb->out.len = gdb->sent = 0;
    gdb_detach(gdb);
}

static void flush(struct gdb_server *gdb)
{
    while (gdb->fd >= 0 && gdb->sent < gdb->out.len) {
        ssize_t n = send(gdb->fd, gdb->out.data + gdb->sent, gdb->out.len - gdb->sent,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            loop_fd_modify(&gdb->watch, EPOLLIN | EPOLLOUT);
            return;
        }
        if (n <= 0) {
            gdb->closing = true;
            return;
        }
        gdb->sent += (size_t)n;
    }
    gdb->sent = gdb->out.len = 0;
    if (gdb->fd >= 0)
        loop_fd_modify(&gdb->watch, EPOLLIN);
}

/* ---- answers ---- */

void gdb_answer(struct gdb_server *gdb, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    buf_text(&gdb->answer, text);
}

void gdb_answer_hex(struct gdb_server *gdb, const void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf_printf(&gdb->answer, "%02x", ((const uint8_t *)bytes)[i]);
}

static void send_packet(struct gdb_server *gdb, const uint8_t *data, size_t len)
{
    uint8_t sum = 0;

    if (gdb->out.len - gdb->sent > BACKLOG_MAX) {
        log_warn("gdb does not read its answers: closed");
        gdb->closing = true;
        return;
    }
    buf_u8(&gdb->out, '$');
    for (size_t i = 0; i < len; i++) {
        uint8_t byte = data[i];
        if (byte == '#' || byte == '$' || byte == '}' || byte == '*') {
            buf_u8(&gdb->out, '}');
            sum += '}';
            byte ^= 0x20;
        }
        buf_u8(&gdb->out, byte);
        sum += byte;
    }
    buf_printf(&gdb->out, "#%02x", sum);
    flush(gdb);
}

void gdb_send(struct gdb_server *gdb, const char *text)
{
    if (gdb->fd >= 0)
        send_packet(gdb, (const uint8_t *)text, strlen(text));
}

/* ---- numbers ---- */

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t gdb_parse_hex(const char *text, uint8_t *bytes, size_t max)
{
    size_t n = 0;

    for (; n < max && digit(text[0]) >= 0 && digit(text[1]) >= 0; text += 2)
        bytes[n++] = (uint8_t)(digit(text[0]) << 4 | digit(text[1]));
    return n;
}

bool gdb_parse_number(const char **text, uint64_t *number)
{
    const char *at = *text;

    for (*number = 0; digit(*at) >= 0; at++)
        *number = *number << 4 | (unsigned)digit(*at);
    bool found = at != *text;
    *text = at;
    return found;
}

/* ---- packets ---- */

/* Commands of one letter. An answer that stays empty says that the stub does not know the packet.
 */
static struct err *run_command(struct gdb_server *gdb, const char *text, size_t len)
{
    const char *rest = text + 1;

    switch (text[0]) {
    case '?':
        gdb_answer(gdb, "%s", gdb->stop);
        return NULL;
    case 'g':
        return gdb_registers_read(gdb);
    case 'G':
        return gdb_registers_write(gdb, rest);
    case 'p':
        return gdb_register_read(gdb, rest);
    case 'P':
        return gdb_register_write(gdb, rest);
    case 'm':
        return gdb_memory_read(gdb, rest);
    case 'M':
        return gdb_memory_write(gdb, rest, len - 1, false);
    case 'X':
        return gdb_memory_write(gdb, rest, len - 1, true);
    case 'Z':
        return gdb_point_change(gdb, rest, true);
    case 'z':
        return gdb_point_change(gdb, rest, false);
    case 'H':
    case 'T':
        return gdb_select(gdb, text);
    case 'c':
    case 's':
        return *rest ? err_new("going on at another address is not supported: set $rip instead")
                     : gdb_continue(gdb, text[0] == 's');
    case 'v':
        return strncmp(rest, "Cont", 4) ? NULL : gdb_vcont(gdb, rest + 4);
    case 'q':
    case 'Q':
        return gdb_query(gdb, text);
    case 'D':
        gdb_answer(gdb, "OK");
        gdb->closing = true;
        return NULL;
    case 'k':
        vm_quit(gdb->vm);
        return NULL;
    default:
        return NULL;
    }
}

static void handle_packet(struct gdb_server *gdb, const char *text, size_t len)
{
    bool no_ack = gdb->no_ack, waits;
    struct err *err;

    gdb->answer.len = 0;
    if (gdb->running) {
        log_warn("gdb: packet '%.20s' while the guest runs", text);
        err = err_new("the guest runs");
    } else {
        err = run_command(gdb, text, len);
    }
    waits = gdb->running || text[0] == 'k';
    if (err) {
        gdb->answer.len = 0;
        buf_printf(&gdb->answer, "E.%s", err_text(err));
        err_free(err);
        waits = false;
    }
    if (!no_ack)
        buf_u8(&gdb->out, '+');
    if (!waits)
        send_packet(gdb, gdb->answer.data, gdb->answer.len);
    else
        flush(gdb);
}

/* Undoes the escapes in place; the new length. */
static size_t unescape(uint8_t *data, size_t len)
{
    size_t to = 0;

    for (size_t i = 0; i < len; i++)
        data[to++] = data[i] == '}' && i + 1 < len ? data[++i] ^ 0x20 : data[i];
    return to;
}

/* A whole packet at the start of `in`, from '$' to the checksum at `hash`. */
static void take_packet(struct gdb_server *gdb, size_t hash)
{
    uint8_t sum = 0, said;

    for (size_t i = 1; i < hash; i++)
        sum += gdb->in.data[i];
    if (gdb_parse_hex((const char *)gdb->in.data + hash + 1, &said, 1) != 1 || said != sum) {
        if (!gdb->no_ack)
            buf_u8(&gdb->out, '-');
        flush(gdb);
        return;
    }
    size_t len = unescape(gdb->in.data + 1, hash - 1);
    gdb->in.data[1 + len] = 0;
    handle_packet(gdb, (const char *)gdb->in.data + 1, len);
}

/* Takes what is complete from `in`. */
static void take_input(struct gdb_server *gdb)
{
    size_t at = 0;

    while (at < gdb->in.len && !gdb->closing) {
        uint8_t first = gdb->in.data[at];
        if (first != '$') {
            at++;
            if (first == INTERRUPT)
                gdb_interrupt(gdb);
            continue;
        }
        memmove(gdb->in.data, gdb->in.data + at, gdb->in.len - at);
        gdb->in.len -= at;
        at = 0;
        const uint8_t *hash = memchr(gdb->in.data, '#', gdb->in.len);
        size_t end = hash ? (size_t)(hash - gdb->in.data) : gdb->in.len;
        if (end + 2 >= gdb->in.len)
            break;
        take_packet(gdb, end);
        at = end + 3;
    }
    gdb->in.len = at < gdb->in.len ? gdb->in.len - at : 0;
    if (gdb->in.len && at)
        memmove(gdb->in.data, gdb->in.data + at, gdb->in.len);
    if (gdb->in.len > GDB_PACKET_MAX + 4) {
        log_warn("gdb: a packet is longer than %u bytes: closed", (unsigned)GDB_PACKET_MAX);
        gdb->closing = true;
    }
}

static void on_client(void *opaque, uint32_t events)
{
    struct gdb_server *gdb = opaque;
    uint8_t bytes[4096];

    if (events & EPOLLOUT)
        flush(gdb);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        ssize_t n = recv(gdb->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        if (n > 0) {
            buf_append(&gdb->in, bytes, (size_t)n);
            take_input(gdb);
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            gdb->closing = true;
        }
    }
    if (gdb->closing)
        disconnect(gdb);
}

static void on_listen(void *opaque, uint32_t events)
{
    struct gdb_server *gdb = opaque;
    int fd = accept4(gdb->config.listen_fd, NULL, NULL, SOCK_CLOEXEC);
    struct err *err = NULL;

    if (fd < 0)
        return;
    if (gdb->fd >= 0)
        err = err_new("one debugger is attached already");
    if (!err)
        err = loop_fd_add(gdb->config.loop, &gdb->watch, fd, EPOLLIN, on_client, gdb);
    if (!err) {
        gdb->fd = fd;
        gdb->no_ack = gdb->closing = false;
        err = gdb_attach(gdb);
        fd = -1;
        if (err)
            disconnect(gdb);
    }
    if (err) {
        log_warn("gdb: %s", err_text(err));
        err_free(err);
    }
    fd_cleanup(&fd);
}

struct err *gdb_server_new(const struct gdb_config *config, struct gdb_server **result)
{
    struct gdb_server *gdb = xcalloc(1, sizeof(*gdb));

    gdb->config = *config;
    gdb->vm = config->vm;
    gdb->fd = -1;
    gdb->actions = xcalloc(vm_cpu_count(gdb->vm), sizeof(*gdb->actions));
    struct err *err =
        loop_fd_add(config->loop, &gdb->listen_watch, config->listen_fd, EPOLLIN, on_listen, gdb);
    if (err) {
        gdb_server_free(gdb);
        return err_wrap(err, "gdb socket");
    }
    *result = gdb;
    return NULL;
}

void gdb_server_ended(struct gdb_server *gdb, unsigned status)
{
    char text[8];

    if (gdb->fd < 0)
        return;
    snprintf(text, sizeof(text), "W%02x", status & 0xff);
    gdb_send(gdb, text);
    gdb->breakpoint_count = 0; /* there is no guest to put things right in */
    disconnect(gdb);
}

void gdb_server_free(struct gdb_server *gdb)
{
    if (!gdb)
        return;
    disconnect(gdb);
    loop_fd_remove(&gdb->listen_watch);
    close(gdb->config.listen_fd);
    buf_fini(&gdb->in);
    buf_fini(&gdb->out);
    buf_fini(&gdb->answer);
    free(gdb->actions);
    free(gdb);
}
