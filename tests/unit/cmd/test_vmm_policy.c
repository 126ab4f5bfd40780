/*
 * The sandbox of tenon-vmm, from inside: a child enters it and tries everything that a taken-over
 * VMM would; then everything that an honest one needs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/vmm_policy.h"

#define DENIED 0

/* What the child has before it is confined. */
struct scene {
    int pair[2], listener, file;
    void *page;
    pid_t parent;
};

struct attempt {
    const char *name;
    long (*run)(const struct scene *scene);
    int expected; /* DENIED: EPERM; 1: success; other: this errno */
};

#define ATTEMPT(name, expression)                                                                  \
    static long try_##name(const struct scene *scene)                                              \
    {                                                                                              \
        return (long)(expression);                                                                 \
    }

ATTEMPT(open, open("/etc/passwd", O_RDONLY))
ATTEMPT(open_self, open("/proc/self/mem", O_RDWR))
ATTEMPT(creat, open("/tmp/tenon-sandbox-test", O_CREAT | O_WRONLY, 0600))
ATTEMPT(open_old, syscall(SYS_open, "/etc/passwd", O_RDONLY))
ATTEMPT(openat2, syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", &(uint64_t[3]){0}, 24))
ATTEMPT(open_by_handle, syscall(SYS_open_by_handle_at, AT_FDCWD, "", 0))
ATTEMPT(socket_inet, socket(AF_INET, SOCK_STREAM, 0))
ATTEMPT(socket_unix, socket(AF_UNIX, SOCK_STREAM, 0))
ATTEMPT(connect,
        connect(scene->pair[1], (struct sockaddr *)&(struct sockaddr_un){.sun_family = AF_UNIX}, 2))
ATTEMPT(bind,
        bind(scene->pair[1], (struct sockaddr *)&(struct sockaddr_un){.sun_family = AF_UNIX}, 2))
ATTEMPT(execve, execve("/bin/true", (char *[]){"true", NULL}, NULL))
ATTEMPT(execveat,
        syscall(SYS_execveat, scene->file, "", (char *[]){"x", NULL}, NULL, AT_EMPTY_PATH))
ATTEMPT(fork, syscall(SYS_fork))
ATTEMPT(vfork, syscall(SYS_clone, CLONE_VM | SIGCHLD, 0, 0, 0, 0))
ATTEMPT(clone_newuser, syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0))
ATTEMPT(clone3, syscall(SYS_clone3, &(uint64_t[8]){0}, 64))
ATTEMPT(ptrace, ptrace(PTRACE_TRACEME, 0, 0, 0))
ATTEMPT(ptrace_parent, ptrace(PTRACE_ATTACH, scene->parent, 0, 0))
ATTEMPT(vm_readv, syscall(SYS_process_vm_readv, scene->parent, 0, 0, 0, 0, 0))
ATTEMPT(vm_writev, syscall(SYS_process_vm_writev, scene->parent, 0, 0, 0, 0, 0))
ATTEMPT(kill_parent, kill(scene->parent, 0))
ATTEMPT(tgkill_parent, syscall(SYS_tgkill, scene->parent, scene->parent, 0))
ATTEMPT(pidfd_open, syscall(SYS_pidfd_open, scene->parent, 0))
ATTEMPT(pidfd_getfd, syscall(SYS_pidfd_getfd, scene->file, 0, 0))
ATTEMPT(mmap_exec, mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
ATTEMPT(mprotect_exec, mprotect(scene->page, 4096, PROT_READ | PROT_EXEC))
ATTEMPT(pkey_mprotect, syscall(SYS_pkey_mprotect, scene->page, 4096, PROT_READ | PROT_EXEC, -1))
ATTEMPT(io_uring_setup, syscall(SYS_io_uring_setup, 4, &(struct io_uring_params){0}))
ATTEMPT(io_uring_register, syscall(SYS_io_uring_register, scene->file, 0, 0, 0))
ATTEMPT(setuid, syscall(SYS_setuid, 0))
ATTEMPT(setgid, syscall(SYS_setgid, 0))
ATTEMPT(capset, syscall(SYS_capset, 0, 0))
ATTEMPT(unshare, unshare(CLONE_NEWNS))
ATTEMPT(setns, setns(scene->file, 0))
ATTEMPT(mount, syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, 0))
ATTEMPT(chroot, chroot("/"))
ATTEMPT(pivot_root, syscall(SYS_pivot_root, "/", "/"))
ATTEMPT(unlink, unlink("/tmp/tenon-sandbox-test"))
ATTEMPT(rename, rename("/tmp/a-tenon", "/tmp/b-tenon"))
ATTEMPT(mkdir, mkdir("/tmp/tenon-sandbox-test", 0700))
ATTEMPT(chmod, syscall(SYS_chmod, "/tmp", 0777))
ATTEMPT(fchmod, syscall(SYS_fchmod, scene->file, 0777))
ATTEMPT(chown, syscall(SYS_fchown, scene->file, 0, 0))
ATTEMPT(readlink, readlink("/proc/self/exe", (char[8]){0}, 8))
ATTEMPT(getdents, syscall(SYS_getdents64, scene->file, 0, 0))
ATTEMPT(ioctl_tiocsti, ioctl(scene->file, 0x5412 /* TIOCSTI */, "x"))
ATTEMPT(bpf, syscall(SYS_bpf, 0, 0, 0))
ATTEMPT(perf_event_open, syscall(SYS_perf_event_open, 0, 0, 0, 0, 0))
ATTEMPT(userfaultfd, syscall(SYS_userfaultfd, 0))
ATTEMPT(keyctl, syscall(SYS_keyctl, 0, 0, 0, 0, 0))
ATTEMPT(init_module, syscall(SYS_init_module, 0, 0, 0))
ATTEMPT(reboot, syscall(SYS_reboot, 0, 0, 0, 0))
ATTEMPT(memfd, syscall(SYS_memfd_create, "x", 0))
ATTEMPT(seccomp, syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, 0))
ATTEMPT(prctl_seccomp, prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
ATTEMPT(prctl_dumpable, prctl(PR_SET_DUMPABLE, 1))
ATTEMPT(prctl_pdeathsig, prctl(PR_SET_PDEATHSIG, 0))

ATTEMPT(write, write(scene->pair[0], "x", 1))
ATTEMPT(read, read(scene->pair[1], (char[1]){0}, 1))
ATTEMPT(send, send(scene->pair[0], "x", 1, MSG_DONTWAIT))
ATTEMPT(recv, recv(scene->pair[1], (char[1]){0}, 1, MSG_DONTWAIT))
ATTEMPT(fdatasync, fdatasync(scene->file))
ATTEMPT(pwrite, pwrite(scene->file, "x", 1, 0))
ATTEMPT(punch, fallocate(scene->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096))
ATTEMPT(eventfd, eventfd(0, EFD_CLOEXEC))
ATTEMPT(epoll, epoll_create1(EPOLL_CLOEXEC))
ATTEMPT(accept, accept4(scene->listener, NULL, NULL, SOCK_CLOEXEC))
ATTEMPT(madvise, madvise(scene->page, 4096, MADV_DONTNEED))
ATTEMPT(mmap_data, mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))

static void *thread_main(void *opaque)
{
    return opaque;
}

static long try_thread(const struct scene *scene)
{
    pthread_t thread;
    void *result = NULL;
    int error = pthread_create(&thread, NULL, thread_main, (void *)scene);

    if (error) {
        errno = error;
        return -1;
    }
    pthread_join(thread, &result);
    return result == scene ? 0 : -1;
}

#define DENY(name)                                                                                 \
    {                                                                                              \
#name, try_##name, DENIED                                                                  \
    }
#define ALLOW(name)                                                                                \
    {                                                                                              \
#name, try_##name, 1                                                                       \
    }
static const struct attempt attempts[] = {
    DENY(open),
    DENY(open_self),
    DENY(creat),
    DENY(open_old),
    DENY(openat2),
    DENY(open_by_handle),
    DENY(socket_inet),
    DENY(socket_unix),
    DENY(connect),
    DENY(bind),
    DENY(execve),
    DENY(execveat),
    DENY(fork),
    DENY(vfork),
    DENY(clone_newuser),
    {"clone3", try_clone3, ENOSYS},
    DENY(ptrace),
    DENY(ptrace_parent),
    DENY(vm_readv),
    DENY(vm_writev),
    DENY(kill_parent),
    DENY(tgkill_parent),
    DENY(pidfd_open),
    DENY(pidfd_getfd),
    DENY(mmap_exec),
    DENY(mprotect_exec),
    DENY(pkey_mprotect),
    DENY(io_uring_setup),
    DENY(io_uring_register),
    DENY(setuid),
    DENY(setgid),
    DENY(capset),
    DENY(unshare),
    DENY(setns),
    DENY(mount),
    DENY(chroot),
    DENY(pivot_root),
    DENY(unlink),
    DENY(rename),
    DENY(mkdir),
    DENY(chmod),
    DENY(fchmod),
    DENY(chown),
    DENY(readlink),
    DENY(getdents),
    DENY(ioctl_tiocsti),
    DENY(bpf),
    DENY(perf_event_open),
    DENY(userfaultfd),
    DENY(keyctl),
    DENY(init_module),
    DENY(reboot),
    DENY(memfd),
    DENY(seccomp),
    DENY(prctl_seccomp),
    DENY(prctl_dumpable),
    DENY(prctl_pdeathsig),
    ALLOW(write),
    ALLOW(read),
    ALLOW(send),
    ALLOW(recv),
    ALLOW(fdatasync),
    ALLOW(pwrite),
    ALLOW(punch),
    ALLOW(eventfd),
    ALLOW(epoll),
    ALLOW(accept),
    ALLOW(madvise),
    ALLOW(mmap_data),
    ALLOW(thread),
};

/* The engine's own list: a call that the policy lacks, to see that it is taken in. */
static const int extra_calls[] = {SYS_getppid, 0};
static const struct accel_ops engine = {.name = "test", .syscalls = extra_calls};
static const struct accel_ops engine_without = {.name = "test"};

static void set_up_scene(struct scene *scene)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int client = socket(AF_UNIX, SOCK_STREAM, 0);

    socketpair(AF_UNIX, SOCK_STREAM, 0, scene->pair);
    scene->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(scene->listener, (struct sockaddr *)&address, sizeof(sa_family_t)); /* autobind */
    listen(scene->listener, 1);
    socklen_t len = sizeof(address);
    getsockname(scene->listener, (struct sockaddr *)&address, &len);
    connect(client, (struct sockaddr *)&address, len);
    scene->file = memfd_create("file", 0);
    ftruncate(scene->file, 8192);
    scene->page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    scene->parent = getppid();
}

/* In the child: confined, tries all; one byte a result: 1 as expected. Then waits to be looked at.
 */
static void __attribute__((noreturn)) child_main(const struct accel_ops *accel, int results, int go)
{
    struct scene scene = {0};
    char verdict[ARRAY_SIZE(attempts) + 1];
    struct err *err;

    set_up_scene(&scene);
    err = vmm_policy_renounce();
    if (!err)
        err = vmm_policy_enter(accel);
    if (err) {
        fprintf(stderr, "%s\n", err_text(err));
        _exit(10);
    }
    for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
        long result;

        errno = 0;
        result = attempts[i].run(&scene);
        if (attempts[i].expected == 1)
            verdict[i] = result >= 0 || result < -4095;
        else
            verdict[i] =
                result == -1 && errno == (attempts[i].expected ? attempts[i].expected : EPERM);
    }
    verdict[ARRAY_SIZE(attempts)] = syscall(SYS_getppid) > 0;
    if (write(results, verdict, sizeof(verdict)) != sizeof(verdict))
        _exit(11);
    if (read(go, verdict, 1) != 1)
        _exit(12);
    _exit(0);
}

/* The value of a field in /proc/PID/status. */
static uint64_t status_field(pid_t pid, const char *field, int base)
{
    char path[40], line[200];
    FILE *file;
    uint64_t value = UINT64_MAX;

    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file))
        if (!strncmp(line, field, strlen(field)) && line[strlen(field)] == ':')
            value = strtoull(line + strlen(field) + 1, NULL, base);
    fclose(file);
    return value;
}

static void run_child(const struct accel_ops *accel, bool getppid_works)
{
    int results[2], go[2], status;
    char verdict[ARRAY_SIZE(attempts) + 1] = {0};
    unsigned wrong = 0;
    pid_t pid;

    assert_int_equal(pipe(results), 0);
    assert_int_equal(pipe(go), 0);
    pid = fork();
    if (pid == 0)
        child_main(accel, results[1], go[0]);
    close(results[1]);
    ssize_t n = read(results[0], verdict, sizeof(verdict));
    if (n == (ssize_t)sizeof(verdict)) {
        assert_int_equal(status_field(pid, "NoNewPrivs", 10), 1);
        assert_int_equal(status_field(pid, "Seccomp", 10), 2);
        assert_int_equal(status_field(pid, "CapEff", 16), 0);
        assert_int_equal(status_field(pid, "CapPrm", 16), 0);
        assert_int_equal(status_field(pid, "CapInh", 16), 0);
        assert_int_equal(status_field(pid, "CapAmb", 16), 0);
    }
    assert_int_equal(write(go[1], "g", 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(n, sizeof(verdict));
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (size_t i = 0; i < ARRAY_SIZE(attempts); i++)
        if (!verdict[i]) {
            print_error("%s: not %s\n", attempts[i].name,
                        attempts[i].expected == 1 ? "possible" : "denied");
            wrong++;
        }
    assert_int_equal(wrong, 0);
    assert_int_equal(verdict[ARRAY_SIZE(attempts)], getppid_works);
    close(results[0]);
    close(go[0]);
    close(go[1]);
}

static void test_policy(void **state)
{
    run_child(&engine_without, false);
}

static void test_engine_calls(void **state)
{
    run_child(&engine, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policy),
        cmocka_unit_test(test_engine_calls),
    };

    return cmocka_run_group_tests_name("cmd/vmm_policy", tests, NULL, NULL);
}
