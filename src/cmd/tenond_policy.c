/*
 * The sandbox policy of tenond: what a REST server and a supervisor of processes need. It works in
 * its state folder, reads /proc, connects to unix sockets and ends processes of its user; it starts
 * no program (cmd/launcher.h does), opens no other socket, and has no capability. Without Landlock
 * it opens what its user may.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/tenond_policy.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "sandbox/sandbox.h"

static const struct sandbox_rule tenond_rules[] = {
    /* clients and VMs */
    SANDBOX_ALLOW_IF(socket, {0, UINT32_MAX, AF_UNIX}),
    SANDBOX_ALLOW_IF(socketpair, {0, UINT32_MAX, AF_UNIX}),
    SANDBOX_ALLOW(connect),
    SANDBOX_ALLOW(accept4),
    SANDBOX_ALLOW(recvfrom),
    SANDBOX_ALLOW(recvmsg),
    SANDBOX_ALLOW(sendto),
    SANDBOX_ALLOW(sendmsg),
    SANDBOX_ALLOW(sendfile),
    SANDBOX_ALLOW(getsockopt),
    SANDBOX_ALLOW(setsockopt),
    SANDBOX_ALLOW(getsockname),
    SANDBOX_ALLOW(getpeername),
    SANDBOX_ALLOW(memfd_create), /* screenshots */
    /* the state folder: database, audit log, images, folders of VMs */
    SANDBOX_ALLOW(open),
    SANDBOX_ALLOW(openat),
    SANDBOX_ALLOW(access),
    SANDBOX_ALLOW(faccessat),
    SANDBOX_ALLOW(faccessat2),
    SANDBOX_ALLOW(newfstatat),
    SANDBOX_ALLOW(lstat),
    SANDBOX_ALLOW(stat),
    SANDBOX_ALLOW(statx),
    SANDBOX_ALLOW(fstatfs),
    SANDBOX_ALLOW(readlink),
    SANDBOX_ALLOW(getdents64),
    SANDBOX_ALLOW(mkdir),
    SANDBOX_ALLOW(rmdir),
    SANDBOX_ALLOW(unlink),
    SANDBOX_ALLOW(unlinkat),
    SANDBOX_ALLOW(renameat),
    SANDBOX_ALLOW(ftruncate),
    SANDBOX_ALLOW(fallocate),
    SANDBOX_ALLOW(fsync),
    SANDBOX_ALLOW(fdatasync),
    SANDBOX_ALLOW(fchmod),
    SANDBOX_ALLOW_IF(fcntl, {1, UINT32_MAX, F_GETLK}),
    SANDBOX_ALLOW_IF(fcntl, {1, UINT32_MAX, F_SETLK}),
    SANDBOX_ALLOW_IF(fcntl, {1, UINT32_MAX, F_OFD_GETLK}),
    SANDBOX_ALLOW_IF(fcntl, {1, UINT32_MAX, F_OFD_SETLK}),
    SANDBOX_ALLOW(getcwd),
    SANDBOX_ALLOW(geteuid),
    /* processes: to see and to force their end */
    SANDBOX_ALLOW(pidfd_open),
    SANDBOX_ALLOW(pidfd_send_signal),
    SANDBOX_ALLOW(wait4),
};

struct err *tenond_policy_enter(const char *state)
{
    const struct sandbox_path paths[] = {{.path = state, .write = true}, {.path = "/proc"}};
    const struct sandbox_policy policy = {
        .name = "tenond",
        .base = true,
        .threads = true,
        .rules = tenond_rules,
        .rule_count = ARRAY_SIZE(tenond_rules),
        .paths = paths,
        .path_count = ARRAY_SIZE(paths),
        .signals = true,
    };

    return sandbox_enter(&policy);
}
