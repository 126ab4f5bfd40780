/*
 * What every confined program may do: work on what it holds, and nothing that gets it more.
 *
 * Each rule names why it is there. Calls that take a path, a process or a new socket do not belong
 * here; a policy that needs one adds it for itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "sandbox/rules.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>

static const struct sandbox_rule base_rules[] = {
    /* open descriptors */
    SANDBOX_ALLOW(read),
    SANDBOX_ALLOW(readv),
    SANDBOX_ALLOW(pread64),
    SANDBOX_ALLOW(preadv),
    SANDBOX_ALLOW(preadv2),
    SANDBOX_ALLOW(write),
    SANDBOX_ALLOW(writev),
    SANDBOX_ALLOW(pwrite64),
    SANDBOX_ALLOW(pwritev),
    SANDBOX_ALLOW(pwritev2),
    SANDBOX_ALLOW(lseek),
    SANDBOX_ALLOW(close),
    SANDBOX_ALLOW(fstat),
    /* fstat() of the C library; with an empty path only the descriptor counts, and a path that is
     * not empty tells no more than that a file exists */
    SANDBOX_ALLOW_IF(newfstatat, {3, AT_EMPTY_PATH, AT_EMPTY_PATH}),
    SANDBOX_ALLOW_IF(fcntl, {1, UINT32_MAX, F_GETFL}),
    SANDBOX_ALLOW_IF(fcntl, {1, UINT32_MAX, F_SETFL}),
    SANDBOX_ALLOW_IF(fcntl, {1, UINT32_MAX, F_GETFD}),
    SANDBOX_ALLOW_IF(fcntl, {1, UINT32_MAX, F_SETFD}),
    SANDBOX_ALLOW_IF(fcntl, {1, UINT32_MAX, F_DUPFD_CLOEXEC}),
    SANDBOX_ALLOW(shutdown),
    /* waiting */
    SANDBOX_ALLOW(poll),
    SANDBOX_ALLOW(ppoll),
    SANDBOX_ALLOW(epoll_create1),
    SANDBOX_ALLOW(epoll_ctl),
    SANDBOX_ALLOW(epoll_wait),
    SANDBOX_ALLOW(epoll_pwait),
    SANDBOX_ALLOW(epoll_pwait2),
    SANDBOX_ALLOW(eventfd2),
    SANDBOX_ALLOW(timerfd_create),
    SANDBOX_ALLOW(timerfd_settime),
    SANDBOX_ALLOW(timerfd_gettime),
    SANDBOX_ALLOW(futex),
    SANDBOX_ALLOW(nanosleep),
    SANDBOX_ALLOW(clock_nanosleep),
    SANDBOX_ALLOW(sched_yield),
    SANDBOX_ALLOW(restart_syscall),
    /* time and the few facts the C library asks for */
    SANDBOX_ALLOW(clock_gettime),
    SANDBOX_ALLOW(clock_getres),
    SANDBOX_ALLOW(gettimeofday),
    SANDBOX_ALLOW(time),
    SANDBOX_ALLOW(getrandom),
    SANDBOX_ALLOW(getpid),
    SANDBOX_ALLOW(gettid),
    SANDBOX_ALLOW(getcpu),
    SANDBOX_ALLOW(sched_getaffinity),
    SANDBOX_ALLOW(getrusage),
    SANDBOX_ALLOW(sysinfo),
    SANDBOX_ALLOW(uname),
    /* signals; tgkill for raise(), abort() and pthread_kill() is added for the own pid only */
    SANDBOX_ALLOW(rt_sigaction),
    SANDBOX_ALLOW(rt_sigprocmask),
    SANDBOX_ALLOW(rt_sigreturn),
    SANDBOX_ALLOW(rt_sigtimedwait),
    SANDBOX_ALLOW(sigaltstack),
    SANDBOX_ALLOW(exit),
    SANDBOX_ALLOW(exit_group),
    /* memory that grants nothing */
    SANDBOX_ALLOW(brk),
    SANDBOX_ALLOW(munmap),
    SANDBOX_ALLOW(mremap),
    SANDBOX_ALLOW(madvise),
    SANDBOX_ALLOW(mincore),
    SANDBOX_ALLOW(membarrier),
};

/* CLONE_THREAD is only valid with CLONE_VM and CLONE_SIGHAND; no namespace may come with it. */
#define CLONE_NAMESPACES                                                                           \
    (CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET |     \
     CLONE_NEWCGROUP)

static const struct sandbox_rule thread_rules[] = {
    SANDBOX_ALLOW_IF(clone, {0, CLONE_THREAD | CLONE_NAMESPACES, CLONE_THREAD}),
    SANDBOX_ALLOW(set_robust_list),
    SANDBOX_ALLOW(rseq),
    SANDBOX_ALLOW_IF(prctl, {0, UINT32_MAX, PR_SET_NAME}),
};

static const struct sandbox_rule memory_rules[] = {
    SANDBOX_ALLOW_IF(mmap, {2, PROT_EXEC, 0}),
    SANDBOX_ALLOW_IF(mprotect, {2, PROT_EXEC, 0}),
};

static const struct sandbox_rule exec_memory_rules[] = {
    SANDBOX_ALLOW(mmap),
    SANDBOX_ALLOW(mprotect),
};

const struct sandbox_rule_set sandbox_rules_base = {base_rules, ARRAY_SIZE(base_rules)};
const struct sandbox_rule_set sandbox_rules_threads = {thread_rules, ARRAY_SIZE(thread_rules)};
const struct sandbox_rule_set sandbox_rules_memory = {memory_rules, ARRAY_SIZE(memory_rules)};
const struct sandbox_rule_set sandbox_rules_exec_memory = {exec_memory_rules,
                                                           ARRAY_SIZE(exec_memory_rules)};
