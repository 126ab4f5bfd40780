/*
 * The sandbox policy of tenon-vmm: the shared base rules, threads, and what follows here. A system
 * call that takes a path, a process or an address to connect to is on none of the lists.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/vmm_policy.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "sandbox/sandbox.h"

static const struct sandbox_rule vmm_rules[] = {
    /* consoles, control socket, tenon-slirp: sockets that exist, and clients that come to them */
    SANDBOX_ALLOW(sendto),
    SANDBOX_ALLOW(sendmsg),
    SANDBOX_ALLOW(recvfrom),
    SANDBOX_ALLOW(recvmsg),
    SANDBOX_ALLOW(accept4),
    /* disks: rings are set up before and restricted to reads, writes and syncs of the disk */
    SANDBOX_ALLOW(io_uring_enter),
    SANDBOX_ALLOW(fdatasync),
    SANDBOX_ALLOW(sync_file_range),
    SANDBOX_ALLOW(fsync),
    SANDBOX_ALLOW(fallocate),
    SANDBOX_ALLOW(ftruncate),
    SANDBOX_ALLOW_IF(fcntl, {1, UINT32_MAX, F_OFD_SETLK}), /* to give a disk's lock back */
    SANDBOX_ALLOW_IF(fcntl, {1, UINT32_MAX, F_GET_SEALS}), /* of memory that a viewer shares */
    /* taps: the guest's driver chooses its offloads when it starts */
    SANDBOX_ALLOW_IOCTL(TUNSETOFFLOAD),
};

struct err *vmm_policy_renounce(void)
{
    const struct sandbox_policy policy = {.name = "tenon-vmm"};

    return sandbox_renounce(&policy);
}

struct err *vmm_policy_enter(const struct accel_ops *accel)
{
    size_t count = ARRAY_SIZE(vmm_rules), extra = 0;
    struct sandbox_rule *rules;
    struct err *err;

    while (accel->syscalls && accel->syscalls[extra])
        extra++;
    rules = xcalloc(count + extra, sizeof(*rules));
    memcpy(rules, vmm_rules, sizeof(vmm_rules));
    for (size_t i = 0; i < extra; i++)
        rules[count + i].call = accel->syscalls[i];
    const struct sandbox_policy policy = {
        .name = "tenon-vmm",
        .base = true,
        .threads = true,
        .rules = rules,
        .rule_count = count + extra,
    };
    err = sandbox_filter(&policy);
    free(rules);
    return err;
}
