/*
 * The sandbox of tenond, from inside: a child enters it and tries what a taken-over daemon would,
 * then what an honest one needs. It reports the line of the expectation that failed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/tenond_policy.h"
#include "sandbox/sandbox.h"

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_at(__LINE__, #condition);                                                         \
    } while (0)
#define DENIED(call)                                                                               \
    do {                                                                                           \
        errno = 0;                                                                                 \
        if ((long)(call) != -1 || (errno != EPERM && errno != EACCES))                             \
            fail_at(__LINE__, #call);                                                              \
    } while (0)

static void fail_at(int line, const char *what)
{
    dprintf(STDERR_FILENO, "line %d: %s (%s)\n", line, what, strerror(errno));
    _exit(1);
}

struct scene {
    char state[40], other[40]; /* folders */
    pid_t victim;              /* a process of this user that waits */
};

static void in_sandbox(const struct scene *scene, void (*body)(const struct scene *scene))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct err *err = tenond_policy_enter(scene->state);
        EXPECT(!err);
        body(scene);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int setup(void **state)
{
    static struct scene scene;

    strcpy(scene.state, "/tmp/tenon-policy-XXXXXX");
    strcpy(scene.other, "/tmp/tenon-policy-XXXXXX");
    assert_non_null(mkdtemp(scene.state));
    assert_non_null(mkdtemp(scene.other));
    scene.victim = fork();
    if (scene.victim == 0)
        for (;;)
            pause();
    *state = &scene;
    return 0;
}

static int teardown(void **state)
{
    struct scene *scene = *state;

    kill(scene->victim, SIGKILL);
    waitpid(scene->victim, NULL, 0);
    rmdir(scene->state);
    rmdir(scene->other);
    return 0;
}

static void starts_nothing(const struct scene *scene)
{
    char *const argv[] = {(char[]){"true"}, NULL};

    DENIED(execv("/bin/true", argv));
    DENIED(syscall(SYS_execveat, AT_FDCWD, "/bin/true", argv, NULL, 0));
    DENIED(fork());
    DENIED(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    EXPECT(syscall(SYS_clone3, NULL, 0) == -1 && errno == ENOSYS);
    DENIED(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    DENIED(ptrace(PTRACE_ATTACH, scene->victim, NULL, NULL));
    DENIED(syscall(SYS_process_vm_writev, scene->victim, NULL, 0, NULL, 0, 0));
    DENIED(kill(scene->victim, 0));
    DENIED(syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, 0));
    DENIED(unshare(CLONE_NEWNS));
    DENIED(chroot("/"));
    DENIED(chdir("/"));
    DENIED(setuid(0));
    DENIED(socket(AF_INET, SOCK_STREAM, 0));
    DENIED(socket(AF_NETLINK, SOCK_RAW, 0));
    DENIED(syscall(SYS_bpf, 0, NULL, 0));
    DENIED(syscall(SYS_io_uring_setup, 4, NULL));
    DENIED(syscall(SYS_init_module, NULL, 0, NULL));
    DENIED(symlink("/etc", "/tmp/tenon-policy-link"));
    DENIED(link("/etc/passwd", "/tmp/tenon-policy-link"));
    DENIED(mknod("/tmp/tenon-policy-node", S_IFIFO | 0600, 0));
}

static void test_starts_nothing(void **state)
{
    in_sandbox(*state, starts_nothing);
}

static void keeps_to_its_folder(const struct scene *scene)
{
    char path[80];
    int fd;

    DENIED(open("/etc/passwd", O_RDONLY));
    DENIED(open("/tmp", O_RDONLY | O_DIRECTORY));
    snprintf(path, sizeof(path), "%s/file", scene->other);
    DENIED(open(path, O_CREAT | O_RDWR, 0600));
    DENIED(rmdir(scene->other));
    /* What the launcher holds is as far. */
    snprintf(path, sizeof(path), "/proc/%d/mem", scene->victim);
    DENIED(open(path, O_RDWR));
    snprintf(path, sizeof(path), "/proc/%d/environ", scene->victim);
    DENIED(open(path, O_RDONLY));
    snprintf(path, sizeof(path), "/proc/%d/stat", scene->victim);
    EXPECT((fd = open(path, O_RDONLY)) >= 0);
    close(fd);

    snprintf(path, sizeof(path), "%s/vms", scene->state);
    EXPECT(mkdir(path, 0700) == 0);
    EXPECT((fd = open(path, O_RDONLY | O_DIRECTORY)) >= 0);
    int file = openat(fd, "a", O_CREAT | O_RDWR, 0600);
    EXPECT(file >= 0 && write(file, "x", 1) == 1 && ftruncate(file, 0) == 0 && fsync(file) == 0);
    EXPECT(renameat(fd, "a", fd, "b") == 0);
    DENIED(symlinkat("/etc", fd, "c"));
    DENIED(mkfifoat(fd, "c", 0600));
    EXPECT(unlinkat(fd, "b", 0) == 0);
    EXPECT(rmdir(path) == 0);
}

static void test_keeps_to_its_folder(void **state)
{
    if (sandbox_landlock_abi() < 3) {
        print_message("skipped: this kernel has no Landlock that knows truncation\n");
        skip();
    }
    in_sandbox(*state, keeps_to_its_folder);
}

static void supervises(const struct scene *scene)
{
    struct sockaddr_un nobody = {.sun_family = AF_UNIX, .sun_path = "/proc/self/fd/0/none"};
    int pair[2], fd = socket(AF_UNIX, SOCK_STREAM, 0);

    EXPECT(fd >= 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    EXPECT(connect(fd, (struct sockaddr *)&nobody, sizeof(nobody)) != 0 && errno != EPERM);
    int process = (int)syscall(SYS_pidfd_open, scene->victim, 0);
    EXPECT(process >= 0);
    EXPECT(syscall(SYS_pidfd_send_signal, process, SIGKILL, NULL, 0) == 0);
}

static void test_supervises(void **state)
{
    const struct scene *scene = *state;
    int status;

    in_sandbox(scene, supervises);
    assert_int_equal(waitpid(scene->victim, &status, 0), scene->victim);
    assert_true(WIFSIGNALED(status));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_starts_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_keeps_to_its_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_supervises, setup, teardown),
    };

    return cmocka_run_group_tests_name("cmd/tenond_policy", tests, NULL, NULL);
}
