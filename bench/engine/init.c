/*
 * /init of the engine benchmark: runs one row at a time, as the driver on the console asks.
 *
 * The protocol, a line each:
 *   guest   list NAME KIND        for every row of this CPU;  skip NAME WHY  for the others
 *   guest   bench ready
 *   driver  NAME COUNT            COUNT units, or 0: find a count that takes 0.15 s or more
 *   guest   begin NAME COUNT      after a warm-up; waits, so that the driver can read its clocks
 *   driver  go
 *   guest   row NAME OPS NS SUM   operations done, ns on the guest's clock, checksum of a unit
 *   driver  off                   powers off
 *
 * As a plain program, "init --native NAME..." runs rows on the bare CPU and prints their lines,
 * with CPU time in place of guest time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define WORTH_MEASURING_NS 150000000u
#define MAX_ROWS 64

struct known {
    const struct row *row;
    bool set_up;
    bool has_sum;
    uint64_t sum;
};

const char *self_path = "/init";
static clockid_t row_clock = CLOCK_MONOTONIC;
static struct known known[MAX_ROWS];
static unsigned known_count;

void die(const char *what)
{
    printf("FAILED %s\n", what);
    fflush(stdout);
    if (getpid() == 1) {
        tcdrain(STDOUT_FILENO);
        reboot(RB_POWER_OFF);
    }
    exit(1);
}

void *own_memory(uint64_t bytes)
{
    void *area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (area == MAP_FAILED || madvise(area, bytes, MADV_DONTFORK))
        die("memory");
    return area;
}

static uint64_t now_ns(void)
{
    struct timespec at;

    clock_gettime(row_clock, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static void add_rows(const struct row *rows)
{
    for (; rows->name; rows++) {
        if (rows->avx2 && !__builtin_cpu_supports("avx2")) {
            printf("skip %s no AVX2\n", rows->name);
            continue;
        }
        if (known_count == MAX_ROWS)
            die("too many rows");
        known[known_count++].row = rows;
        printf("list %s %s\n", rows->name, rows->kind);
    }
}

static struct known *find_row(const char *name)
{
    for (unsigned i = 0; i < known_count; i++)
        if (!strcmp(known[i].row->name, name))
            return &known[i];
    return NULL;
}

/* Runs units and returns their time; a unit whose checksum changes is a broken machine. */
static uint64_t run_units(struct known *one, uint64_t count)
{
    uint64_t start = now_ns();

    for (uint64_t i = 0; i < count; i++) {
        uint64_t sum = one->row->unit();

        if (one->has_sum && sum != one->sum) {
            printf("changed %s unit %llu: %016llx was %016llx\n", one->row->name,
                   (unsigned long long)i, (unsigned long long)sum, (unsigned long long)one->sum);
            die("a checksum changed");
        }
        one->sum = sum;
        one->has_sum = true;
    }
    return now_ns() - start;
}

/* A count of units that is worth measuring, with a margin for a machine that gets faster. */
static uint64_t calibrate(struct known *one)
{
    uint64_t count = 1;

    for (;;) {
        uint64_t spent = run_units(one, count);

        if (spent >= WORTH_MEASURING_NS)
            return count;
        if (spent < WORTH_MEASURING_NS / 16)
            count *= 8;
        else
            count = count * (WORTH_MEASURING_NS + WORTH_MEASURING_NS / 5) / spent + 1;
    }
}

static void prepare(struct known *one, uint64_t *count)
{
    if (!one->set_up && one->row->setup)
        one->row->setup();
    one->set_up = true;
    if (*count)
        run_units(one, (*count + 7) / 8);
    else
        *count = calibrate(one);
}

static void measure(struct known *one, uint64_t count)
{
    uint64_t spent = run_units(one, count);

    printf("row %s %llu %llu %016llx\n", one->row->name,
           (unsigned long long)(count * one->row->ops), (unsigned long long)spent,
           (unsigned long long)one->sum);
    fflush(stdout);
}

static void serve(void)
{
    char line[128];

    printf("bench ready\n");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        char name[64];
        unsigned long long units = 0;
        uint64_t count;
        struct known *one;

        if (sscanf(line, "%63s %llu", name, &units) < 1)
            continue;
        if (!strcmp(name, "off"))
            return;
        one = find_row(name);
        if (!one)
            die("no such row");
        count = units;
        prepare(one, &count);
        printf("begin %s %llu\n", name, (unsigned long long)count);
        fflush(stdout);
        if (!fgets(line, sizeof(line), stdin))
            return;
        measure(one, count);
    }
}

static void be_init(void)
{
    struct termios terminal;

    mkdir("/proc", 0755);
    mkdir("/dev", 0755);
    if (mount("proc", "/proc", "proc", 0, NULL) || mount("dev", "/dev", "devtmpfs", 0, NULL))
        die("mount");
    if (tcgetattr(STDIN_FILENO, &terminal) == 0) {
        cfmakeraw(&terminal);
        terminal.c_oflag |= OPOST | ONLCR;
        tcsetattr(STDIN_FILENO, TCSANOW, &terminal);
    }
}

int main(int argc, char **argv)
{
    bool native = argc > 1 && !strcmp(argv[1], "--native");

    if (argc > 1 && !strcmp(argv[1], "exit"))
        return 0;
    if (native) {
        self_path = "/proc/self/exe";
        row_clock = CLOCK_PROCESS_CPUTIME_ID;
    } else if (getpid() == 1) {
        be_init();
    }
    add_rows(scalar_rows);
    add_rows(memory_rows);
    add_rows(system_rows);
    if (!native) {
        serve();
        tcdrain(STDOUT_FILENO);
        if (getpid() == 1)
            reboot(RB_POWER_OFF);
        return 0;
    }
    for (int i = 2; i < argc; i++) {
        struct known *one = find_row(argv[i]);
        uint64_t count = 0;

        if (!one)
            die("no such row");
        prepare(one, &count);
        measure(one, count);
    }
    return 0;
}
