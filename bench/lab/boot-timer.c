/*
 * Runs in the lab host: starts a VMM, waits for a line on the guest's console, ends everything, and
 * prints two times, in microseconds:
 *
 *   boot-timer LINE COMMAND ARGUMENT ...
 *   exec-to-line ENTRY-TO-LINE exits
 *
 * ENTRY is the first VM exit whose guest instruction lies in the kernel, as KVM's own tracepoint
 * saw it: the instruction at the kernel's entry is the first that touches the kernel's memory, and
 * with nested paging the first touch is an exit. One definition for every VMM, with and without
 * firmware: a filter on kvm:kvm_exit, and a trigger that stops the trace after the first hit. The
 * clock of the trace is the one of clock_gettime(CLOCK_MONOTONIC).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TRACE "/sys/kernel/tracing/"
#define EXIT TRACE "events/kvm/kvm_exit/"
#define LIMIT_SECONDS 45

/* Where Linux runs: at its physical address, 16 MiB and on, until it has page tables of its own.
 * Firmware lies below 1 MiB or at the end of the guest's memory. */
#define IN_KERNEL                                                                                  \
    "(guest_rip >= 0x1000000 && guest_rip < 0x4000000) || guest_rip >= 0xffffffff80000000"

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* `flags`: O_TRUNC empties the trace buffer, but would remove every trigger. */
static void put(const char *path, const char *text, int flags)
{
    int fd = open(path, O_WRONLY | flags | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        die(path);
    close(fd);
}

static void arm_trace(void)
{
    put(TRACE "trace_clock", "mono", 0);
    put(EXIT "filter", IN_KERNEL, 0);
    put(EXIT "trigger", "!traceoff", 0);
    put(EXIT "trigger", "traceoff:1 if " IN_KERNEL, 0);
    put(TRACE "trace", "", O_TRUNC);
    put(EXIT "enable", "1", 0);
    put(TRACE "tracing_on", "1", 0);
}

/* The time stamp of the first line of the trace that is no comment:
 * "  task-pid [cpu] flags seconds.micros: kvm_exit: ..." */
static uint64_t traced_us(void)
{
    char line[512];
    FILE *trace = fopen(TRACE "trace", "re");
    uint64_t at = 0;

    if (!trace)
        die(TRACE "trace");
    while (!at && fgets(line, sizeof(line), trace)) {
        char *event = strstr(line, ": kvm_exit:");
        unsigned long seconds, micros;

        if (line[0] == '#' || !event)
            continue;
        while (event > line && event[-1] != ' ')
            event--;
        if (sscanf(event, "%lu.%lu:", &seconds, &micros) == 2)
            at = (uint64_t)seconds * 1000000 + micros;
    }
    fclose(trace);
    put(EXIT "enable", "0", 0);
    return at;
}

/* Reads the console until `wanted` comes; its time, or 0. The console goes to `copy` as well. */
static uint64_t await_line(int console, const char *wanted, FILE *copy)
{
    char text[65536];
    size_t len = 0;

    for (;;) {
        ssize_t got = read(console, text + len, sizeof(text) - 1 - len);
        uint64_t at = now_us();

        if (got <= 0)
            return 0;
        fwrite(text + len, 1, (size_t)got, copy);
        len += (size_t)got;
        text[len] = 0;
        if (strstr(text, wanted))
            return at;
        if (len > sizeof(text) / 2) {
            memmove(text, text + len - 256, 256);
            len = 256;
        }
    }
}

static void ignore(int signal)
{
    (void)signal;
}

int main(int argc, char **argv)
{
    int console[2];

    if (argc < 3) {
        fprintf(stderr, "usage: boot-timer LINE COMMAND [ARGUMENT ...]\n");
        return 2;
    }
    /* An alarm ends read() with an error: without SA_RESTART. */
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = ignore}, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (pipe2(console, O_CLOEXEC))
        die("pipe");
    arm_trace();

    uint64_t start = now_us();
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (!child) {
        dup2(open("/dev/null", O_RDWR), 0);
        dup2(console[1], 1);
        execvp(argv[2], argv + 2);
        die(argv[2]);
    }
    close(console[1]);
    alarm(LIMIT_SECONDS);
    FILE *copy = fopen("/tmp/console", "w");
    if (!copy)
        die("/tmp/console");
    uint64_t reached = await_line(console[0], argv[1], copy);
    fclose(copy);
    kill(child, SIGKILL);
    /* All of them: a VMM is done when its last process is. */
    while (wait(NULL) > 0)
        ;
    uint64_t entry = traced_us();
    if (!reached || !entry || entry > reached) {
        fprintf(stderr, "boot-timer: %s\n", reached ? "no kernel entry" : "the line did not come");
        return 1;
    }
    printf("%llu %llu\n", (unsigned long long)(reached - start),
           (unsigned long long)(reached - entry));
    return 0;
}
