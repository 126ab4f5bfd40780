/*
 * System rows: what a kernel does for programs. The checksum counts what succeeded.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "rows.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t get_ppid(void)
{
    uint64_t zero = 0;

    for (int i = 0; i < 1000; i++)
        zero += syscall(SYS_getppid) == 0;
    return getpid() == 1 ? zero : 1000;
}

/* ---- memory ---- */

#define FAULT_PAGES 256

static uint8_t *fault_area;

static void fault_setup(void)
{
    fault_area =
        mmap(NULL, FAULT_PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fault_area == MAP_FAILED)
        die("memory for page faults");
    madvise(fault_area, FAULT_PAGES << 12, MADV_NOHUGEPAGE);
}

static uint64_t page_fault(void)
{
    uint64_t sum = 0;

    if (madvise(fault_area, FAULT_PAGES << 12, MADV_DONTNEED))
        return 0;
    for (unsigned i = 0; i < FAULT_PAGES; i++) {
        sum += fault_area[(i << 12) + 100];
        fault_area[(i << 12) + 200] = 1;
        sum += fault_area[(i << 12) + 200];
    }
    return sum;
}

static uint64_t map_unmap(void)
{
    uint64_t good = 0;

    for (int i = 0; i < 100; i++) {
        void *area =
            mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        good += area != MAP_FAILED && munmap(area, 64 << 10) == 0;
    }
    return good;
}

/* ---- processes ---- */

static uint64_t fork_exit(void)
{
    uint64_t good = 0;

    for (int i = 0; i < 10; i++) {
        int status = -1;
        pid_t child = fork();

        if (!child)
            _exit(7);
        good += child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
                WEXITSTATUS(status) == 7;
    }
    return good;
}

static __attribute__((noinline)) pid_t vfork_one(void)
{
    pid_t child = vfork();

    if (!child) {
        execl(self_path, self_path, "exit", (char *)NULL);
        _exit(1);
    }
    return child;
}

static uint64_t vfork_exec(void)
{
    uint64_t good = 0;

    for (int i = 0; i < 10; i++) {
        int status = -1;
        pid_t child = vfork_one();

        good += child > 0 && waitpid(child, &status, 0) == child && status == 0;
    }
    return good;
}

/* A child that hands each byte of `from` on to `to`, for as long as its parent lives. */
static void start_relay(int from, int to)
{
    pid_t child = fork();
    char byte;

    if (child < 0)
        die("fork");
    if (child)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(from, &byte, 1) == 1)
        if (write(to, &byte, 1) != 1)
            break;
    _exit(0);
}

static void make_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC))
        die("pipe");
}

static uint64_t round_trips(int to, int from, unsigned count)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < count; i++) {
        char byte = (char)i;

        if (write(to, &byte, 1) == 1 && read(from, &byte, 1) == 1)
            sum = mix(sum, (uint8_t)byte);
    }
    return sum;
}

static int ping[2];
static int pong[2];

static void ping_setup(void)
{
    make_pipe(ping);
    make_pipe(pong);
    start_relay(ping[0], pong[1]);
}

static uint64_t ping_pong(void)
{
    return round_trips(ping[1], pong[0], 100);
}

#define RING 8

static int ring[RING][2];

/* This process and seven relays, each with a pipe to the next. */
static void ring_setup(void)
{
    for (int i = 0; i < RING; i++)
        make_pipe(ring[i]);
    for (int i = 1; i < RING; i++)
        start_relay(ring[i - 1][0], ring[i][1]);
}

static uint64_t ring_trips(void)
{
    return round_trips(ring[0][1], ring[RING - 1][0], 20);
}

/* ---- files ---- */

static int zero_file;
static char file_text[4096];

static void zero_setup(void)
{
    zero_file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    if (zero_file < 0)
        die("/dev/zero");
}

static uint64_t read_zero(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < 100; i++) {
        file_text[i] = 1;
        sum += (uint64_t)read(zero_file, file_text, sizeof(file_text)) + (uint64_t)file_text[i];
    }
    return sum;
}

static uint64_t proc_read(void)
{
    uint64_t good = 0;

    for (int i = 0; i < 20; i++) {
        int file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);

        good += read(file, file_text, sizeof(file_text)) > 50 && memchr(file_text, '(', 30);
        close(file);
    }
    return good;
}

const struct row system_rows[] = {
    {"getppid", "system", 1000, NULL, get_ppid, false},
    {"page-fault", "system", FAULT_PAGES, fault_setup, page_fault, false},
    {"mmap-munmap", "system", 100, NULL, map_unmap, false},
    {"fork-exit", "system", 10, NULL, fork_exit, false},
    {"vfork-exec", "system", 10, NULL, vfork_exec, false},
    {"pipe-ping-pong", "system", 100, ping_setup, ping_pong, false},
    {"switch-among-8", "system", 20 * RING, ring_setup, ring_trips, false},
    {"read-zero-4k", "system", 100, zero_setup, read_zero, false},
    {"proc-read", "system", 20, NULL, proc_read, false},
    {0},
};
