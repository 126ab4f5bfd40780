/*
 * Listening sockets of the tenon command. See listen.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/socket.h"

/* A unix socket whose backlog is full refuses clients that do not wait. */
#define BACKLOG SOMAXCONN

/* Does somebody listen on a socket that exists already? */
static bool is_alive(const char *path)
{
    scoped(fd_cleanup) int fd = socket_connect(path, SOCK_STREAM | SOCK_NONBLOCK);

    return fd >= 0 || errno != ECONNREFUSED;
}

static struct err *bind_at(int fd, const char *path, const struct sockaddr_un *address)
{
    struct stat status;

    if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
        return NULL;
    if (errno == EADDRINUSE) {
        if (lstat(path, &status) != 0 || !S_ISSOCK(status.st_mode))
            return err_new("'%s' exists and is no socket: remove it or choose another path", path);
        if (is_alive(path))
            return err_of(ERR_BUSY, "somebody listens on '%s': choose another path", path);
        if (unlink(path) == 0 && bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
            return NULL;
    }
    return err_errno(errno, "cannot listen on '%s'", path);
}

struct err *listen_unix(const char *path, int *result)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    scoped(fd_cleanup) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return err_errno(errno, "cannot create a socket");
    if (strlen(path) >= sizeof(address.sun_path))
        return err_of(ERR_USAGE, "the path '%s' is longer than the %u bytes of a socket", path,
                      SOCKET_PATH_MAX);
    strcpy(address.sun_path, path);
    /* Whoever may connect is in control: the owner alone. */
    mode_t mask = umask(0177);
    struct err *err = bind_at(fd, path, &address);
    umask(mask);
    TRY(err);
    if (listen(fd, BACKLOG) != 0)
        return err_errno(errno, "cannot listen on '%s'", path);
    *result = fd;
    fd = -1;
    return NULL;
}

/* The parts of "PORT", "ADDRESS:PORT" and "[ADDRESS]:PORT"; `text` is written into. */
static bool split(char *text, const char **address, const char **port)
{
    char *colon = strrchr(text, ':');

    *address = "127.0.0.1";
    *port = text;
    if (!colon)
        return true;
    *colon = 0;
    *port = colon + 1;
    *address = text;
    if (text[0] != '[')
        return !strchr(text, ':');
    if (colon == text || colon[-1] != ']')
        return false;
    colon[-1] = 0;
    *address = text + 1;
    return true;
}

static struct err *bind_to(const struct addrinfo *info, const char *where, int *result,
                           unsigned *port)
{
    struct sockaddr_storage bound;
    socklen_t length = sizeof(bound);
    int on = 1;
    scoped(fd_cleanup) int fd =
        socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return err_errno(errno, "cannot create a socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, info->ai_addr, info->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &length) != 0)
        return err_errno(errno, "cannot listen on '%s'", where);
    /* Both families have the port in the same place. */
    *port = ntohs(((const struct sockaddr_in *)&bound)->sin_port);
    *result = fd;
    fd = -1;
    return NULL;
}

struct err *listen_tcp(const char *where, int *fd, unsigned *port)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    scoped(free_cleanup) char *text = xstrdup(where);
    const char *address, *service;
    struct addrinfo *info;

    if (!split(text, &address, &service) || !*service ||
        getaddrinfo(address, service, &hints, &info) != 0)
        return err_of(ERR_USAGE, "'%s' is no place to listen: write PORT or ADDRESS:PORT", where);
    struct err *err = bind_to(info, where, fd, port);
    freeaddrinfo(info);
    return err;
}
