/*
 * Processes by PID and start time. See process.h; proc(5), pidfd_open(2).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

/* The part of /proc/PID/stat that matters. */
struct stat_line {
    char state;
    uint64_t cpu_ticks, started, resident_pages;
};

static bool read_stat(pid_t pid, struct stat_line *line)
{
    char path[40], text[1024];
    unsigned long user, kernel, resident;
    unsigned long long started;

    snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    scoped(fd_cleanup) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return false;
    text[n] = 0;
    /* The name, field 2, may hold anything, also ')'. */
    const char *rest = strrchr(text, ')');
    if (!rest || sscanf(rest + 1,
                        " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d "
                        "%*d %llu %*u %lu",
                        &line->state, &user, &kernel, &started, &resident) != 5)
        return false;
    line->cpu_ticks = user + kernel;
    line->started = started;
    line->resident_pages = resident;
    return line->state != 'Z' && line->state != 'X';
}

static uint64_t ticks_per_second(void)
{
    return (uint64_t)sysconf(_SC_CLK_TCK);
}

bool process_watch(struct process *process, struct loop *loop, pid_t pid, uint64_t started,
                   void (*ended)(void *opaque, uint32_t events), void *opaque)
{
    struct stat_line line;
    scoped(fd_cleanup) int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

    /* The descriptor first: while it is open the number is not given to another process. */
    if (fd < 0 || !read_stat(pid, &line) || (started && line.started != started))
        return false;
    struct err *err = loop_fd_add(loop, &process->watch, fd, EPOLLIN, ended, opaque);
    if (err) {
        err_free(err);
        return false;
    }
    process->pid = pid;
    process->started = line.started;
    process->fd = fd;
    fd = -1;
    return true;
}

void process_forget(struct process *process)
{
    if (!process->pid)
        return;
    loop_fd_remove(&process->watch);
    close(process->fd);
    process->pid = 0;
}

void process_kill(const struct process *process)
{
    if (process->pid)
        syscall(SYS_pidfd_send_signal, process->fd, SIGKILL, NULL, 0);
}

uint64_t process_start_wall_ns(const struct process *process)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    uint64_t up_ns = (uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec;
    return clock_wall_ns() - up_ns + process->started * (NSEC_PER_SEC / ticks_per_second());
}

bool process_usage(pid_t pid, uint64_t *resident, uint64_t *cpu_ns)
{
    struct stat_line line;

    if (pid <= 0 || !read_stat(pid, &line))
        return false;
    *resident = line.resident_pages * (uint64_t)sysconf(_SC_PAGESIZE);
    *cpu_ns = line.cpu_ticks * (NSEC_PER_SEC / ticks_per_second());
    return true;
}

bool process_tree_usage(pid_t pid, uint64_t *resident, uint64_t *cpu_ns)
{
    char path[64], text[1024], *at = text;

    if (!process_usage(pid, resident, cpu_ns))
        return false;
    snprintf(path, sizeof(path), "/proc/%ld/task/%ld/children", (long)pid, (long)pid);
    scoped(fd_cleanup) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    text[MAX(n, (ssize_t)0)] = 0;
    for (long child; (child = strtol(at, &at, 10)) > 0;) {
        uint64_t more, more_ns;
        if (!process_usage((pid_t)child, &more, &more_ns))
            continue;
        *resident += more;
        *cpu_ns += more_ns;
    }
    return true;
}
