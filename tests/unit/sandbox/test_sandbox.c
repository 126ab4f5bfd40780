/*
 * The sandbox from inside: a child enters it and tries what it must not and what it may do.
 *
 * A child reports by exit status: 0, or the line of the expectation that failed (modulo 256, never
 * 0). It leaves through _exit, so that sanitizers do not do their own work inside the sandbox.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "sandbox/sandbox.h"

static void child_fail(int line, const char *what)
{
    char text[200];
    int len = snprintf(text, sizeof(text), "line %d: %s (errno %d)\n", line, what, errno);
    if (write(2, text, (size_t)len) < 0) {
    }
    _exit(line % 256 ?: 1);
}

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition))                                                                          \
            child_fail(__LINE__, #condition);                                                      \
    } while (0)
/* The call fails, and for want of permission. */
#define DENIED(call)                                                                               \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long denied_ = (long)(call);                                                               \
        if (denied_ != -1 || (errno != EPERM && errno != EACCES))                                  \
            child_fail(__LINE__, #call);                                                           \
    } while (0)

static void in_child(void (*body)(void))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(20);
        body();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status))
        fail_msg("the child died of signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status))
        fail_msg("the child failed at line %d (modulo 256)", WEXITSTATUS(status));
}

static void enter(const struct sandbox_policy *policy)
{
    struct err *err = sandbox_enter(policy);
    if (err)
        child_fail(__LINE__, err_text(err));
}

static const struct sandbox_policy plain = {.name = "test", .base = true, .threads = true};

static void body_files(void)
{
    char name[] = "/proc/self/status";
    enter(&plain);
    DENIED(open("/etc/passwd", O_RDONLY));
    DENIED(openat(AT_FDCWD, name, O_RDONLY));
    DENIED(syscall(__NR_open, "/etc/passwd", O_RDONLY));
    DENIED(syscall(__NR_openat2, AT_FDCWD, "/etc/passwd", NULL, 0));
    DENIED(creat("/tmp/tenon-sandbox-test", 0600));
    DENIED(unlink("/tmp/tenon-sandbox-none"));
    DENIED(mkdir("/tmp/tenon-sandbox-none", 0700));
    DENIED(rename("/tmp/tenon-a", "/tmp/tenon-b"));
    DENIED(chmod("/tmp", 0777));
    DENIED(syscall(__NR_name_to_handle_at, AT_FDCWD, "/", NULL, NULL, 0));
    DENIED(syscall(__NR_memfd_create, "x", 0));
    DENIED(chdir("/"));
    DENIED(chroot("/"));
}

static void test_files_denied(void **state)
{
    in_child(body_files);
}

static void body_network(void)
{
    int before = socket(AF_INET, SOCK_STREAM, 0);
    int local = socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT(before >= 0 && local >= 0);
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_un to_local = {.sun_family = AF_UNIX, .sun_path = "/run/none"};
    enter(&plain);
    DENIED(socket(AF_INET, SOCK_STREAM, 0));
    DENIED(socket(AF_UNIX, SOCK_STREAM, 0));
    DENIED(connect(before, (struct sockaddr *)&to, sizeof(to)));
    DENIED(connect(local, (struct sockaddr *)&to_local, sizeof(to_local)));
    DENIED(bind(before, (struct sockaddr *)&to, sizeof(to)));
    DENIED(listen(before, 1));
    DENIED(sendto(before, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)));
}

static void test_network_denied(void **state)
{
    in_child(body_network);
}

static void body_processes(void)
{
    char *argv[] = {(char[]){"true"}, NULL};
    enter(&plain);
    DENIED(execv("/bin/true", argv));
    DENIED(syscall(__NR_execveat, AT_FDCWD, "/bin/true", argv, NULL, 0));
    DENIED(fork());
    DENIED(vfork());
    DENIED(syscall(__NR_clone, SIGCHLD, 0, 0, 0, 0));
    DENIED(syscall(__NR_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    EXPECT(syscall(__NR_clone3, NULL, 0) == -1 && errno == ENOSYS);
    DENIED(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    DENIED(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
    DENIED(syscall(__NR_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0));
    DENIED(syscall(__NR_pidfd_open, getpid(), 0));
    DENIED(syscall(__NR_kill, 1, 0));
    DENIED(syscall(__NR_tgkill, 1, 1, 0));
    DENIED(unshare(CLONE_NEWUSER));
    DENIED(syscall(__NR_setns, 0, 0));
    DENIED(setuid(0));
    DENIED(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    DENIED(syscall(__NR_seccomp, 0, 0, NULL));
    DENIED(syscall(__NR_bpf, 0, NULL, 0));
    DENIED(syscall(__NR_io_uring_setup, 4, NULL));
    DENIED(syscall(__NR_keyctl, 0, 0, 0, 0, 0));
    DENIED(syscall(__NR_mount, "none", "/", "tmpfs", 0, NULL));
    DENIED(syscall(__NR_userfaultfd, 0));
    DENIED(ioctl(0, TIOCSTI, "x"));
}

static void test_processes_denied(void **state)
{
    in_child(body_processes);
}

static void body_memory(void)
{
    enter(&plain);
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(page != MAP_FAILED);
    DENIED(mprotect(page, 4096, PROT_READ | PROT_EXEC));
    DENIED(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT(mprotect(page, 4096, PROT_READ) == 0);
    EXPECT(munmap(page, 4096) == 0);
}

static void body_exec_memory(void)
{
    struct sandbox_policy policy = plain;
    policy.exec_memory = true;
    enter(&policy);
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(page != MAP_FAILED);
    memcpy(page, "\xb8\x2a\x00\x00\x00\xc3", 6); /* mov $42, %eax; ret */
    EXPECT(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
    int (*code)(void);
    memcpy(&code, &page, sizeof(code));
    EXPECT(code() == 42);
}

static void test_memory(void **state)
{
    in_child(body_memory);
    in_child(body_exec_memory);
}

static void *thread_body(void *opaque)
{
    int *pipe_fds = opaque;
    errno = 0;
    EXPECT(open("/etc/passwd", O_RDONLY) == -1 && (errno == EPERM || errno == EACCES));
    EXPECT(write(pipe_fds[1], "ok", 2) == 2);
    return opaque;
}

static void body_work(void)
{
    int pipe_fds[2], futex = 0;
    EXPECT(pipe(pipe_fds) == 0);
    struct io_uring ring;
    EXPECT(io_uring_queue_init(4, &ring, 0) == 0);
    struct sandbox_policy policy = plain;
    static const struct sandbox_rule extra[] = {SANDBOX_ALLOW(io_uring_enter)};
    policy.rules = extra;
    policy.rule_count = ARRAY_SIZE(extra);
    enter(&policy);

    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, thread_body, pipe_fds) == 0);
    void *result = NULL;
    EXPECT(pthread_join(thread, &result) == 0 && result == pipe_fds);
    char text[2];
    EXPECT(read(pipe_fds[0], text, 2) == 2 && !memcmp(text, "ok", 2));

    struct timespec soon = {.tv_nsec = 1000000};
    EXPECT(syscall(__NR_futex, &futex, FUTEX_WAIT, 0, &soon) == -1 && errno == ETIMEDOUT);

    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    io_uring_prep_write(sqe, pipe_fds[1], "io", 2, 0);
    EXPECT(io_uring_submit(&ring) == 1);
    struct io_uring_cqe *cqe = NULL;
    EXPECT(io_uring_wait_cqe(&ring, &cqe) == 0 && cqe->res == 2);
    EXPECT(read(pipe_fds[0], text, 2) == 2 && !memcmp(text, "io", 2));
    EXPECT(raise(0) == 0);
}

static void test_work_goes_on(void **state)
{
    in_child(body_work);
}

/* Threads that were there before get the filter as well. */
static void *early_thread(void *opaque)
{
    int *pipe_fds = opaque;
    char byte;
    EXPECT(read(pipe_fds[0], &byte, 1) == 1);
    DENIED(open("/etc/passwd", O_RDONLY));
    return NULL;
}

static void body_tsync(void)
{
    int pipe_fds[2];
    EXPECT(pipe(pipe_fds) == 0);
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, early_thread, pipe_fds) == 0);
    enter(&plain);
    EXPECT(write(pipe_fds[1], "x", 1) == 1);
    EXPECT(pthread_join(thread, NULL) == 0);
}

static void test_all_threads(void **state)
{
    in_child(body_tsync);
}

static void body_capabilities(void)
{
    struct sandbox_policy policy = plain;
    static const struct sandbox_rule look[] = {SANDBOX_ALLOW(capget), SANDBOX_ALLOW(prctl)};
    policy.rules = look;
    policy.rule_count = ARRAY_SIZE(look);
    enter(&policy);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    EXPECT(syscall(__NR_capget, &header, data) == 0);
    for (int i = 0; i < 2; i++)
        EXPECT(!data[i].effective && !data[i].permitted && !data[i].inheritable);
    EXPECT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    EXPECT(prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2);
    if (geteuid() == 0)
        for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
            EXPECT(prctl(PR_CAPBSET_READ, cap, 0, 0, 0) <= 0);
}

static void test_capabilities(void **state)
{
    in_child(body_capabilities);
}

/* Landlock alone: seccomp lets openat through, only the listed file opens, and only to read. */
static void body_paths(void)
{
    static const struct sandbox_rule open_rules[] = {SANDBOX_ALLOW(openat)};
    static const struct sandbox_path paths[] = {{"/etc/hostname"}, {"/etc/does-not-exist"}};
    struct sandbox_policy policy = plain;
    policy.rules = open_rules;
    policy.rule_count = ARRAY_SIZE(open_rules);
    policy.paths = paths;
    policy.path_count = ARRAY_SIZE(paths);
    bool there = access("/etc/hostname", R_OK) == 0;
    enter(&policy);
    if (there)
        EXPECT(openat(AT_FDCWD, "/etc/hostname", O_RDONLY) >= 0);
    DENIED(openat(AT_FDCWD, "/etc/hostname", O_WRONLY));
    DENIED(openat(AT_FDCWD, "/etc/passwd", O_RDONLY));
    DENIED(openat(AT_FDCWD, "/etc", O_RDONLY | O_DIRECTORY));
    DENIED(openat(AT_FDCWD, "/tmp/tenon-sandbox-new", O_CREAT | O_RDWR, 0600));
}

static void test_paths(void **state)
{
    if (sandbox_landlock_abi() == 0) {
        print_message("skipped: this kernel has no Landlock\n");
        skip();
    }
    in_child(body_paths);
}

/* Landlock denies TCP where seccomp would not, unless the policy asks for the network. */
static void body_landlock_network(void)
{
    static const struct sandbox_rule net_rules[] = {SANDBOX_ALLOW(socket), SANDBOX_ALLOW(bind)};
    struct sandbox_policy policy = plain;
    policy.rules = net_rules;
    policy.rule_count = ARRAY_SIZE(net_rules);
    enter(&policy);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT(fd >= 0);
    DENIED(bind(fd, (struct sockaddr *)&any, sizeof(any)));
}

static void body_network_policy(void)
{
    static const struct sandbox_rule net_rules[] = {
        SANDBOX_ALLOW_IF(socket, {0, UINT32_MAX, AF_INET}, {1, 0xf, SOCK_STREAM}),
        SANDBOX_ALLOW(bind)};
    struct sandbox_policy policy = plain;
    policy.network = true;
    policy.rules = net_rules;
    policy.rule_count = ARRAY_SIZE(net_rules);
    enter(&policy);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0);
    EXPECT(bind(fd, (struct sockaddr *)&any, sizeof(any)) == 0);
    DENIED(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    DENIED(socket(AF_UNIX, SOCK_STREAM, 0));
    DENIED(socket(AF_NETLINK, SOCK_RAW, 0));
}

static void test_landlock_network(void **state)
{
    if (sandbox_landlock_abi() >= 4)
        in_child(body_landlock_network);
    else
        print_message("Landlock here knows no network rights: that part is left out\n");
    in_child(body_network_policy);
}

static void body_close_others(void)
{
    int fds[8];
    for (int i = 0; i < 8; i++)
        EXPECT((fds[i] = dup(0)) >= 0);
    int keep[] = {fds[5], -1, fds[1], fds[1], 1};
    struct err *err = sandbox_close_others(keep, ARRAY_SIZE(keep));
    EXPECT(!err);
    for (int i = 0; i < 8; i++)
        EXPECT((fcntl(fds[i], F_GETFD) >= 0) == (i == 5 || i == 1));
    for (int i = 0; i < 3; i++)
        EXPECT(fcntl(i, F_GETFD) >= 0);
    EXPECT(!sandbox_close_others(NULL, 0));
    EXPECT(fcntl(fds[5], F_GETFD) < 0);
}

static void test_close_others(void **state)
{
    in_child(body_close_others);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_denied),     cmocka_unit_test(test_network_denied),
        cmocka_unit_test(test_processes_denied), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_work_goes_on),     cmocka_unit_test(test_all_threads),
        cmocka_unit_test(test_capabilities),     cmocka_unit_test(test_paths),
        cmocka_unit_test(test_landlock_network), cmocka_unit_test(test_close_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
