/*
 * Sandbox: what a process gives up before it looks at the first byte that a guest or a network
 * sent.
 *
 * sandbox_enter() sets no_new_privs, drops every capability, takes away the file system and the
 * network (Landlock, when the kernel has it), and installs a seccomp filter: calls on the policy's
 * list pass, all others fail with EPERM. seccomp is put on all threads (TSYNC), but capabilities
 * and Landlock cover the calling thread and those that it starts later: enter while
 * single-threaded.
 *
 * io_uring runs file and socket operations that seccomp does not see. A process that keeps a ring
 * sets it up before, restricts it (IORING_REGISTER_RESTRICTIONS) and allows io_uring_enter only.
 *
 * The filter is inherited and final. A second, stricter policy may be entered on top if the first
 * one allows SANDBOX_ALLOW(seccomp); nobody here does.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_SANDBOX_SANDBOX_H
#define TENON_SANDBOX_SANDBOX_H

#include <sys/syscall.h>

#include "base/base.h"
#include "base/err.h"

/* Holds when (argument & mask) == value. */
struct sandbox_check {
    unsigned arg; /* 0..5 */
    uint64_t mask, value;
};

#define SANDBOX_CHECKS_MAX 3

/* One way in which a call is allowed. Several rules for one call: any of them. */
struct sandbox_rule {
    int call;        /* __NR_* */
    unsigned checks; /* how many of check[] must hold; 0: whatever the arguments. Of rules for one
                        call, one without checks makes the others useless. */
    struct sandbox_check check[SANDBOX_CHECKS_MAX]; /* each of another argument */
};

/* `SANDBOX_ALLOW(sendmsg)` */
#define SANDBOX_ALLOW(name)                                                                        \
    {                                                                                              \
        .call = __NR_##name                                                                        \
    }
/* `SANDBOX_ALLOW_IF(ioctl, {1, UINT32_MAX, KVM_RUN})`: an int argument is compared in 32 bits. */
#define SANDBOX_ALLOW_IF(name, ...)                                                                \
    {                                                                                              \
        .call = __NR_##name,                                                                       \
        .checks = sizeof((struct sandbox_check[]){__VA_ARGS__}) / sizeof(struct sandbox_check),    \
        .check = {                                                                                 \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define SANDBOX_ALLOW_IOCTL(request) SANDBOX_ALLOW_IF(ioctl, {1, UINT32_MAX, (uint32_t)(request)})

/* A file or a folder whose files stay readable. seccomp must let openat through as well. */
struct sandbox_path {
    const char *path; /* missing on this host: skipped */
    bool write;       /* a folder: to list, and to make, change and remove files and folders in */
};

struct sandbox_policy {
    const char *name; /* for errors: "tenon-vmm" */
    /*
     * With `base`: read and write on open descriptors, memory that is not executable, epoll, poll,
     * timers, eventfd, futex, time, signals of its own, exit. Nothing that opens or creates
     * anything outside the process. With `threads`: starting threads (never processes).
     */
    bool base, threads;
    /* With `exec_memory`: mmap and mprotect with PROT_EXEC, for an engine that translates. */
    bool exec_memory;
    const struct sandbox_rule *rules;
    size_t rule_count;
    const struct sandbox_path *paths;
    size_t path_count;
    /* Leaves TCP bind and connect to seccomp's judgement instead of denying them by Landlock. */
    bool network;
    /* Leaves signals to seccomp's judgement instead of keeping them inside by Landlock. */
    bool signals;
    /* Does as on a kernel without Landlock, so that what follows from it can be tested. */
    bool without_landlock;
    /* The kernel logs each denied call (audit or dmesg): for finding what a policy lacks. */
    bool log_denied;
};

/*
 * Enters the sandbox. An error means that the process is not confined as asked and must not go on;
 * parts may be in force already. A kernel without Landlock is no error: seccomp alone must hold
 * then, so see sandbox_landlock_abi() before allowing openat.
 */
struct err *sandbox_enter(const struct sandbox_policy *policy);

/*
 * The same in two steps, for a process that starts threads before it is ready for the filter: first
 * no_new_privs, capabilities and Landlock, while there is one thread, which the others inherit
 * from; then seccomp on all of them.
 */
struct err *sandbox_renounce(const struct sandbox_policy *policy);
struct err *sandbox_filter(const struct sandbox_policy *policy);

/* The kernel's Landlock version, 0 when it has none or it is switched off. */
int sandbox_landlock_abi(void);

/*
 * Closes every descriptor that is not in `keep` (any order, any values); 0, 1 and 2 are kept as
 * well. A process calls it first, so that it holds nothing that it was not handed.
 */
struct err *sandbox_close_others(const int *keep, size_t count);

#endif
