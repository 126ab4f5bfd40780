/*
 * The sandbox of tenon-slirp: IPv4 sockets, no raw ones, and the resolver's file.
 *
 * Which file is for Landlock to say. On a kernel without it no file can be opened at all, and the
 * name server is read once before (nat_prime_dns).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "net/slirp/policy.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "sandbox/sandbox.h"

static const struct sandbox_rule rules[] = {
    /* connections of the guest, and ICMP echo as an unprivileged datagram socket */
    SANDBOX_ALLOW_IF(socket, {0, UINT32_MAX, AF_INET}, {1, 0xf, SOCK_STREAM}),
    SANDBOX_ALLOW_IF(socket, {0, UINT32_MAX, AF_INET}, {1, 0xf, SOCK_DGRAM}),
    SANDBOX_ALLOW(bind),
    SANDBOX_ALLOW(connect),
    SANDBOX_ALLOW(accept),
    SANDBOX_ALLOW(accept4),
    SANDBOX_ALLOW(getsockname),
    SANDBOX_ALLOW(getpeername),
    SANDBOX_ALLOW(getsockopt),
    SANDBOX_ALLOW(setsockopt),
    SANDBOX_ALLOW(sendto),
    SANDBOX_ALLOW(recvfrom),
    SANDBOX_ALLOW(sendmsg),
    SANDBOX_ALLOW(recvmsg),
    SANDBOX_ALLOW_IOCTL(FIONREAD),
    SANDBOX_ALLOW_IOCTL(FIONBIO),
    /* has /etc/resolv.conf changed? */
    SANDBOX_ALLOW(newfstatat),
};

static const struct sandbox_rule file_rules[] = {
    SANDBOX_ALLOW_IF(openat, {2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY}),
};

static const struct sandbox_path readable[] = {{"/etc/resolv.conf"}};

bool slirp_policy_has_files(const struct slirp_policy *policy)
{
    return !policy->without_landlock && sandbox_landlock_abi() > 0;
}

struct err *slirp_policy_enter(const struct slirp_policy *policy)
{
    struct sandbox_rule all[ARRAY_SIZE(rules) + ARRAY_SIZE(file_rules)];
    memcpy(all, rules, sizeof(rules));
    memcpy(all + ARRAY_SIZE(rules), file_rules, sizeof(file_rules));
    bool files = slirp_policy_has_files(policy);
    struct sandbox_policy sandbox = {
        .name = "tenon-slirp",
        .base = true,
        .rules = all,
        .rule_count = files ? ARRAY_SIZE(all) : ARRAY_SIZE(rules),
        .paths = readable,
        .path_count = ARRAY_SIZE(readable),
        .network = true,
        .without_landlock = !files,
        .log_denied = policy->log_denied,
    };
    return sandbox_enter(&sandbox);
}
