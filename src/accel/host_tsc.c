/*
 * The frequency of this machine's TSC, found fast. (Intel SDM vol. 3, 18.17; vol. 2 CPUID 15H.)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/host_tsc.h"

#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#include "base/clock.h"

/*
 * A pair of reads is good to some 20 ns, so this gives 20 ppm. The kernel's own factors, in the
 * page of a perf event, would be exact, but the first event of a host patches its scheduler: 10 ms.
 */
#define CALIBRATE_NS 1000000u

/* Crystal and ratio, where the CPU tells both. */
static uint32_t khz_of_crystal(void)
{
    uint32_t eax, ebx, ecx, edx;
    if (__get_cpuid_max(0, NULL) < 0x15)
        return 0;
    __cpuid_count(0x15, 0, eax, ebx, ecx, edx);
    if (!eax || !ebx || !ecx)
        return 0;
    return (uint32_t)((uint64_t)ecx * ebx / eax / 1000);
}

static uint32_t khz_of_hypervisor(void)
{
    uint32_t eax, ebx, ecx, edx;
    __cpuid(1, eax, ebx, ecx, edx);
    if (!(ecx >> 31))
        return 0;
    __cpuid(0x40000000, eax, ebx, ecx, edx);
    if (eax < 0x40000010 || eax > 0x400000ff)
        return 0;
    __cpuid(0x40000010, eax, ebx, ecx, edx);
    return eax;
}

struct sample {
    uint64_t tsc, ns;
};

/* The tightest of a few pairs: a preemption between the two reads would spoil one. */
static struct sample take_sample(void)
{
    struct sample best = {0};
    uint64_t best_width = UINT64_MAX;
    for (int i = 0; i < 8; i++) {
        struct timespec at;
        uint64_t before = __rdtsc();
        clock_gettime(CLOCK_MONOTONIC_RAW, &at);
        uint64_t width = __rdtsc() - before;
        if (width < best_width) {
            best_width = width;
            best.tsc = before + width / 2;
            best.ns = (uint64_t)at.tv_sec * NSEC_PER_SEC + (uint64_t)at.tv_nsec;
        }
    }
    return best;
}

static uint32_t khz_measured(void)
{
    struct sample from = take_sample(), to;
    struct timespec pause = {.tv_nsec = CALIBRATE_NS};
    do {
        nanosleep(&pause, NULL);
        to = take_sample();
    } while (to.ns - from.ns < CALIBRATE_NS);
    return (uint32_t)((to.tsc - from.tsc) * 1000000 / (to.ns - from.ns));
}

uint32_t host_tsc_khz(void)
{
    uint32_t khz = khz_of_crystal();
    if (!khz)
        khz = khz_of_hypervisor();
    /* A value that no CPU has would only come from a confused hypervisor. */
    if (khz < 100000 || khz > 20000000)
        khz = khz_measured();
    return khz;
}
