/*
 * The sandbox of tenon-slirp from inside: a child enters it and tries.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/slirp/policy.h"
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
#define DENIED(call)                                                                               \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long denied_ = (long)(call);                                                               \
        if (denied_ != -1 || (errno != EPERM && errno != EACCES))                                  \
            child_fail(__LINE__, #call);                                                           \
    } while (0)

static void try_all(const struct slirp_policy *policy)
{
    bool files = slirp_policy_has_files(policy), conf = access("/etc/resolv.conf", R_OK) == 0;
    struct err *err = slirp_policy_enter(policy);
    if (err)
        child_fail(__LINE__, err_text(err));
    struct stat status;
    char *argv[] = {(char[]){"true"}, NULL};

    if (conf && files)
        EXPECT(open("/etc/resolv.conf", O_RDONLY) >= 0);
    if (!files)
        DENIED(open("/etc/resolv.conf", O_RDONLY));
    if (conf)
        EXPECT(stat("/etc/resolv.conf", &status) == 0);
    DENIED(open("/etc/resolv.conf", O_WRONLY));
    DENIED(open("/etc/resolv.conf", O_RDWR));
    DENIED(open("/etc/passwd", O_RDONLY));
    DENIED(open("/etc", O_RDONLY | O_DIRECTORY));
    DENIED(open("/tmp/tenon-slirp-test", O_RDONLY | O_CREAT, 0600));
    DENIED(syscall(__NR_open, "/etc/resolv.conf", O_RDONLY));
    DENIED(unlink("/tmp/tenon-slirp-test"));
    DENIED(execv("/bin/true", argv));
    DENIED(fork());
    DENIED(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    DENIED(kill(getppid(), 0));

    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0 && bind(fd, (struct sockaddr *)&any, sizeof(any)) == 0);
    DENIED(listen(fd, 1));
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    any.sin_port = htons(9);
    EXPECT(fd >= 0 && connect(fd, (struct sockaddr *)&any, sizeof(any)) == 0);
    DENIED(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    DENIED(socket(AF_PACKET, SOCK_RAW, 0));
    DENIED(socket(AF_UNIX, SOCK_STREAM, 0));
    DENIED(socket(AF_NETLINK, SOCK_RAW, 0));
}

static void in_child(const struct slirp_policy *policy)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(20);
        try_all(policy);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status))
        fail_msg("the child failed at line %d", WEXITSTATUS(status));
}

static void test_with_landlock(void **state)
{
    if (sandbox_landlock_abi() == 0) {
        print_message("skipped: this kernel has no Landlock\n");
        skip();
    }
    in_child(&(struct slirp_policy){0});
}

static void test_without_landlock(void **state)
{
    in_child(&(struct slirp_policy){.without_landlock = true});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_with_landlock),
        cmocka_unit_test(test_without_landlock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
