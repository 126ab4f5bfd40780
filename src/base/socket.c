/*
 * Unix sockets: unix(7), SCM_RIGHTS.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

union control {
    struct cmsghdr header;
    char space[CMSG_SPACE(SOCKET_FDS_MAX * sizeof(int))];
};

int socket_connect(const char *path, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);

    if (length >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, length);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        int number = errno;
        close(fd);
        errno = number;
        return -1;
    }
    return fd;
}

bool socket_send_fds(int socket, const void *bytes, size_t length, const int *fds, size_t count,
                     int flags)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
    union control control = {0};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

    count = MIN(count, (size_t)SOCKET_FDS_MAX);
    if (count) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL | flags) == (ssize_t)iov.iov_len;
}

bool socket_send_fd(int socket, const void *bytes, size_t length, int fd, int flags)
{
    return socket_send_fds(socket, bytes, length, &fd, fd >= 0, flags);
}

ssize_t socket_receive_fds(int socket, void *bytes, size_t length, int *fds, size_t max, int flags)
{
    struct iovec iov = {.iov_base = bytes, .iov_len = length};
    union control control;
    /* The kernel closes what has no room: not CMSG_SPACE, whose padding is room for one more. */
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen =
                                 CMSG_LEN(MIN(max, (size_t)SOCKET_FDS_MAX) * sizeof(int))};
    ssize_t n = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    struct cmsghdr *header = n < 0 ? NULL : CMSG_FIRSTHDR(&message);

    for (size_t i = 0; i < max; i++)
        fds[i] = -1;
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(fds, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
    return n;
}

ssize_t socket_receive_fd(int socket, void *bytes, size_t length, int *fd)
{
    return socket_receive_fds(socket, bytes, length, fd, 1, MSG_DONTWAIT);
}
