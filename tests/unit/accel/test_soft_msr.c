/*
 * MSRs, CPUID, clocks and the LAPIC timer thread of the software engine, without its interpreter.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "accel/cpuid_features.h"
#include "accel/host_tsc.h"
#include "accel/soft/apic/lapic.h"
#include "accel/soft/apic/tsc.h"
#include "base/clock.h"

#define CPUS 2

struct world {
    struct soft_vm vm;
    struct soft_vcpu cpu[CPUS];
    uint8_t eoi;
};

/* ---- the engine's services that these files call ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t posted = PTHREAD_COND_INITIALIZER;
static unsigned flushes, mode_changes;

void soft_post(struct soft_vcpu *v, uint32_t events)
{
    atomic_fetch_or(&v->events, events);
    pthread_mutex_lock(&mutex);
    pthread_cond_broadcast(&posted);
    pthread_mutex_unlock(&mutex);
}

void soft_post_nmi(struct soft_vcpu *v)
{
    soft_post(v, EV_NMI);
}

void soft_tlb_flush(struct soft_vcpu *v)
{
    flushes++;
}

void soft_mode_changed(struct soft_vcpu *v)
{
    mode_changes++;
}

void soft_seg_base(struct soft_vcpu *v, unsigned seg, uint64_t base)
{
    v->seg[seg].base = base;
}

static void io_eoi(void *opaque, uint8_t vector)
{
    ((struct world *)opaque)->eoi = vector;
}

static const struct accel_io io = {.ioapic_eoi = io_eoi};

static int setup(void **state)
{
    struct world *w = NULL;
    if (posix_memalign((void **)&w, 64, sizeof(*w)))
        return -1;
    memset(w, 0, sizeof(*w));
    w->vm.gmem = gmem_new();
    w->vm.io = &io;
    w->vm.opaque = w;
    w->vm.vcpu_count = CPUS;
    assert_null(gmem_add_ram(w->vm.gmem, "ram", 0, MIB(1)));
    assert_null(soft_clock_new(&w->vm));
    struct cpuid_table supported;
    assert_null(soft_cpuid_supported(NULL, &supported));
    for (unsigned i = 0; i < CPUS; i++) {
        struct soft_vcpu *v = &w->cpu[i];
        struct cpu_model model = {0};
        v->vm = &w->vm;
        v->index = i;
        w->vm.vcpu[i] = v;
        v->lapic = lapic_new(v);
        assert_null(cpuid_build(&supported, &model, i, CPUS, w->vm.tsc_khz, &v->cpuid));
        soft_cpuid_apply(v);
        v->msr.apic_base = lapic_apic_base(v->lapic);
        v->msr.misc_enable = 0x1801;
        soft_tsc_set(v, 0);
    }
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < CPUS; i++)
        lapic_free(w->cpu[i].lapic);
    soft_clock_free(&w->vm);
    gmem_free(w->vm.gmem);
    free(w);
    return 0;
}

static uint64_t rd(struct soft_vcpu *v, uint32_t index)
{
    uint64_t value = 0xdead;
    if (!soft_rdmsr(v, index, &value))
        fail_msg("RDMSR %#x", index);
    return value;
}

static bool faults(struct soft_vcpu *v, uint32_t index)
{
    uint64_t value;
    return !soft_rdmsr(v, index, &value);
}

static void test_plain_registers(void **state)
{
    struct soft_vcpu *v = &((struct world *)*state)->cpu[0];
    static const uint32_t any[] = {0xc0000081, 0xc0000084, 0x174};
    static const uint32_t canonical[] = {0xc0000082, 0xc0000083, 0xc0000102, 0x175,
                                         0x176,      0xc0000100, 0xc0000101};
    for (size_t i = 0; i < ARRAY_SIZE(any); i++) {
        assert_true(soft_wrmsr(v, any[i], 0x123456789abcdef0ull + i));
        assert_int_equal(rd(v, any[i]), 0x123456789abcdef0ull + i);
    }
    for (size_t i = 0; i < ARRAY_SIZE(canonical); i++) {
        assert_true(soft_wrmsr(v, canonical[i], 0xffff800000001000ull + i));
        assert_false(soft_wrmsr(v, canonical[i], 0x0000800000000000ull));
        assert_int_equal(rd(v, canonical[i]), 0xffff800000001000ull + i);
    }
    assert_int_equal(v->seg[X86_GS].base, 0xffff800000001006ull);
    assert_true(soft_wrmsr(v, 0xc0000103, 0xffffffff));
    assert_false(soft_wrmsr(v, 0xc0000103, 1ull << 32));
    assert_true(soft_wrmsr(v, 0x1a0, 0x400c50809ull));
    assert_int_equal(rd(v, 0x1a0), 0x400c50809ull);
}

static void test_unknown_registers(void **state)
{
    struct soft_vcpu *v = &((struct world *)*state)->cpu[0];
    static const uint32_t unknown[] = {0x12345,    0xc1,       0x186,      0xda0,
                                       0x40000000, 0xc0000104, 0x4b564d02, 0x4b564d03,
                                       0x4b564d04, 0x122,      0x802};
    for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
        assert_true(faults(v, unknown[i]));
        assert_false(soft_wrmsr(v, unknown[i], 0));
    }
}

static void test_efer(void **state)
{
    struct soft_vcpu *v = &((struct world *)*state)->cpu[0];
    unsigned before = flushes;
    assert_true(soft_wrmsr(v, 0xc0000080, EFER_SCE | EFER_LME | EFER_NXE));
    assert_true(flushes > before); /* NXE changes what a page table means */
    assert_int_equal(v->efer, EFER_SCE | EFER_LME | EFER_NXE);
    assert_false(soft_wrmsr(v, 0xc0000080, 1ull << 12));         /* no SVM */
    assert_true(soft_wrmsr(v, 0xc0000080, EFER_LME | EFER_LMA)); /* LMA is the CPU's */
    assert_int_equal(v->efer, EFER_LME);
    v->cr0 = CR0_PG | CR0_PE;
    v->efer |= EFER_LMA;
    assert_false(soft_wrmsr(v, 0xc0000080, 0)); /* not while paging */
    assert_true(soft_wrmsr(v, 0xc0000080, EFER_LME | EFER_SCE));
    assert_int_equal(v->efer, EFER_LME | EFER_LMA | EFER_SCE);
}

static void test_memory_types(void **state)
{
    struct soft_vcpu *v = &((struct world *)*state)->cpu[0];
    assert_true(soft_wrmsr(v, 0x277, 0x0407050600070106ull));
    assert_false(soft_wrmsr(v, 0x277, 2));
    assert_int_equal(rd(v, 0x277), 0x0407050600070106ull);
    assert_int_equal(rd(v, 0xfe), 0x508);
    assert_false(soft_wrmsr(v, 0xfe, 0));
    assert_true(soft_wrmsr(v, 0x2ff, 0xc06));
    assert_false(soft_wrmsr(v, 0x2ff, 0xc07));
    assert_false(soft_wrmsr(v, 0x2ff, 0x1000));
    assert_true(soft_wrmsr(v, 0x26f, 0x0606060606060606ull));
    assert_false(soft_wrmsr(v, 0x26f, 0x0706060606060606ull));
    assert_int_equal(v->msr.mtrr_fixed[10], 0x0606060606060606ull);
    assert_true(soft_wrmsr(v, 0x200, 0xc0000000));
    assert_true(soft_wrmsr(v, 0x201, 0xc0000800));
    assert_false(soft_wrmsr(v, 0x201, ~0ull));
    assert_int_equal(rd(v, 0x201), 0xc0000800);
    assert_true(faults(v, 0x210));
}

static void test_speculation(void **state)
{
    struct soft_vcpu *v = &((struct world *)*state)->cpu[0];
    uint64_t arch = rd(v, 0x10a);
    static const unsigned bits[] = {0, 1, 4, 5, 6, 8, 13, 14, 15, 20, 24, 26, 27};
    for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
        assert_true(arch >> bits[i] & 1);
    assert_false(soft_wrmsr(v, 0x10a, 0));
    assert_true(soft_wrmsr(v, 0x48, 1));
    assert_int_equal(rd(v, 0x48), 1);
    assert_true(soft_wrmsr(v, 0x48, 0x401));
    assert_false(soft_wrmsr(v, 0x48, 0x100));
    assert_true(soft_wrmsr(v, 0x49, 1));
    assert_true(faults(v, 0x49));
    cpuid_set(&v->cpuid, cpuid_feature_find("spec_ctrl"), false);
    assert_true(faults(v, 0x48));
    assert_false(soft_wrmsr(v, 0x49, 1));
}

static void test_apic_base(void **state)
{
    struct soft_vcpu *v = &((struct world *)*state)->cpu[0];
    assert_int_equal(rd(v, 0x1b), 0xfee00900);
    struct cpuid_entry one;
    soft_cpuid(v, 1, 0, &one);
    assert_true(one.edx & 1u << 9);
    assert_true(soft_wrmsr(v, 0x1b, 0xfee00000));
    soft_cpuid(v, 1, 0, &one);
    assert_false(one.edx & 1u << 9);
    assert_true(soft_wrmsr(v, 0x1b, 0xfee00800));
    assert_true(soft_wrmsr(v, 0x1b, 0xfee00c00));
    assert_int_equal(v->msr.apic_base, 0xfee00d00);
    assert_int_equal(rd(v, 0x802), 0);
    assert_false(soft_wrmsr(v, 0x1b, 0xfee00800));
}

static void test_cpuid_follows_state(void **state)
{
    struct soft_vcpu *v = &((struct world *)*state)->cpu[1];
    struct cpuid_entry e;
    soft_cpuid(v, 1, 0, &e);
    assert_false(e.ecx & 1u << 27);
    v->cr4 |= CR4_OSXSAVE;
    soft_cpuid(v, 1, 0, &e);
    assert_true(e.ecx & 1u << 27);
    assert_int_equal(e.ebx >> 24, 1);
    v->xcr0 = 1;
    soft_cpuid(v, 0xd, 0, &e);
    if (e.eax & 4) {
        assert_int_equal(e.ebx, 576);
        v->xcr0 = 7;
        soft_cpuid(v, 0xd, 0, &e);
        assert_int_equal(e.ebx, 832);
        assert_int_equal(e.ecx, 832);
    }
    soft_cpuid(v, 0xb, 5, &e);
    assert_int_equal(e.ecx, 5);
    assert_int_equal(e.edx, 1);
    /* What must not be there. */
    static const char *const absent[] = {"smap", "umip",   "pku",     "la57",     "monitor",
                                         "rtm",  "hle",    "avx512f", "amx_tile", "vmx",
                                         "svm",  "xsaves", "shstk"};
    for (size_t i = 0; i < ARRAY_SIZE(absent); i++)
        assert_false(cpuid_has(&v->cpuid, cpuid_feature_find(absent[i])));
    static const char *const present[] = {"pcid",      "x2apic",   "tsc_deadline_timer", "nx",
                                          "smep",      "kvmclock", "kvmclock_stable",    "arat",
                                          "hypervisor"};
    for (size_t i = 0; i < ARRAY_SIZE(present); i++)
        assert_true(cpuid_has(&v->cpuid, cpuid_feature_find(present[i])));
    soft_cpuid(v, 0x80000008, 0, &e);
    assert_int_equal(v->phys_mask, (1ull << (e.eax & 0xff)) - 1);
}

static void test_tsc(void **state)
{
    struct world *w = *state;
    struct soft_vcpu *a = &w->cpu[0], *b = &w->cpu[1];
    uint64_t second = (uint64_t)w->vm.tsc_khz * 1000;
    /* One clock, although it was set twice. */
    assert_int_equal(a->tsc_offset, b->tsc_offset);
    assert_true(soft_tsc(a) < second * 10);
    uint64_t before = rd(a, 0x10);
    assert_true(rd(a, 0x10) > before);
    /* The guest's own writes are exact and show in TSC_ADJUST. */
    assert_true(soft_wrmsr(a, 0x3b, 1000 * second));
    assert_true(rd(a, 0x10) > 1000 * second);
    assert_true(rd(b, 0x10) < 20 * second);
    assert_true(soft_wrmsr(a, 0x10, 5));
    assert_true(rd(a, 0x10) < second);
    assert_true(rd(a, 0x3b) >> 63); /* it went back */
    assert_int_equal(a->tsc_offset - b->tsc_offset, a->msr.tsc_adjust);
    /* The VMM's restore: far away is a new clock, the second vCPU joins it. */
    a->msr.tsc_adjust = b->msr.tsc_adjust = 0;
    soft_tsc_set(a, 5000 * second);
    soft_tsc_set(b, 5000 * second);
    assert_int_equal(a->tsc_offset, b->tsc_offset);
    assert_true(soft_tsc(b) >= 5000 * second);
}

/* How far the guest's TSC is from its stated frequency, in ppm, over 20 ms of the host's clock. */
static double measured_ppm(struct world *w)
{
    struct timespec start, end, pause = {.tv_nsec = 20000000};
    clock_gettime(CLOCK_MONOTONIC_RAW, &start);
    uint64_t tsc = soft_tsc(&w->cpu[0]);
    nanosleep(&pause, NULL);
    uint64_t ticks = soft_tsc(&w->cpu[0]) - tsc;
    clock_gettime(CLOCK_MONOTONIC_RAW, &end);
    double ns = (double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec);
    return ((double)ticks * 1e6 / ns - w->vm.tsc_khz) / w->vm.tsc_khz * 1e6;
}

static void test_host_frequency(void **state)
{
    struct world *w = *state;
    /* A preemption between the two clocks spoils a measurement, so the best of many counts. */
    double best = measured_ppm(w);
    for (unsigned i = 0; i < 100 && fabs(best) >= 1000; i++) {
        double ppm = measured_ppm(w);
        best = fabs(ppm) < fabs(best) ? ppm : best;
    }
    print_message("TSC %u kHz, %.1f ppm apart\n", w->vm.tsc_khz, best);
    assert_true(fabs(best) < 1000);
    uint64_t before = clock_now_ns();
    host_tsc_khz();
    print_message("found in %.1f us\n", (double)(clock_now_ns() - before) / 1000);
}

/* What a Linux guest computes from its time page. */
static uint64_t pvclock_ns(struct soft_vcpu *v, uint64_t gpa)
{
    uint8_t page[32];
    assert_int_equal(gmem_read(v->vm->gmem, gpa, page, sizeof(page)), 0);
    assert_int_equal(get_le32(page) & 1, 0);
    assert_int_equal(page[29] & 1, 1);
    uint64_t delta = soft_tsc(v) - get_le64(page + 8);
    int8_t shift = (int8_t)page[28];
    delta = shift < 0 ? delta >> -shift : delta << shift;
    return get_le64(page + 16) + (uint64_t)((unsigned __int128)delta * get_le32(page + 24) >> 32);
}

static void test_kvmclock(void **state)
{
    struct world *w = *state;
    struct soft_vcpu *a = &w->cpu[0], *b = &w->cpu[1];
    assert_true(soft_wrmsr(a, 0x4b564d01, 0x1000 | 1));
    assert_true(soft_wrmsr(b, 0x12, 0x1040 | 1));
    assert_int_equal(rd(a, 0x4b564d01), 0x1001);
    uint64_t before = soft_clock_system_ns(&w->vm);
    uint64_t first = pvclock_ns(a, 0x1000), second = pvclock_ns(b, 0x1040);
    uint64_t after = soft_clock_system_ns(&w->vm);
    assert_in_range(first, before - 2000, after + 2000);
    assert_in_range(second, before - 2000, after + 2000);
    assert_true(second + 2 >= first);
    /* The guest moves one TSC: its clock does not jump. */
    assert_true(soft_wrmsr(b, 0x10, 77));
    second = pvclock_ns(b, 0x1040);
    assert_true(second + 2 >= first && second - first < 100000000);
    uint8_t version[4];
    gmem_read(w->vm.gmem, 0x1040, version, 4);
    assert_int_equal(get_le32(version), 4);
    /* Switched off, the page stays as it is; outside RAM nothing happens. */
    assert_true(soft_wrmsr(b, 0x12, 0));
    assert_true(soft_wrmsr(b, 0x10, 99));
    gmem_read(w->vm.gmem, 0x1040, version, 4);
    assert_int_equal(get_le32(version), 4);
    assert_true(soft_wrmsr(b, 0x12, 0xffff00000001ull));

    assert_true(soft_wrmsr(a, 0x4b564d00, 0x2000));
    uint8_t wall[12];
    gmem_read(w->vm.gmem, 0x2000, wall, 12);
    assert_int_equal(get_le32(wall) & 1, 0);
    uint64_t now = (uint64_t)get_le32(wall + 4) * NSEC_PER_SEC + get_le32(wall + 8) +
                   soft_clock_system_ns(&w->vm);
    uint64_t real = clock_wall_ns();
    assert_in_range(now, real - 100000000, real + 100000000);
}

static bool wait_for_interrupt(struct soft_vcpu *v, unsigned ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    int late = 0;
    pthread_mutex_lock(&mutex);
    while (!(atomic_load(&v->events) & EV_INTR) && !late)
        late = pthread_cond_timedwait(&posted, &mutex, &until);
    pthread_mutex_unlock(&mutex);
    return !late;
}

static void test_deadline_timer_in_real_time(void **state)
{
    struct world *w = *state;
    struct soft_vcpu *v = &w->cpu[1];
    assert_true(soft_wrmsr(v, 0x1b, 0xfee00c00));
    assert_true(soft_wrmsr(v, 0x80f, 0x1ff));
    assert_true(soft_wrmsr(v, 0x832, 0x400ec));
    uint64_t best = UINT64_MAX;
    for (unsigned i = 0; i < 20; i++) {
        atomic_store(&v->events, 0);
        uint64_t deadline = soft_tsc(v) + w->vm.tsc_khz; /* 1 ms */
        assert_true(soft_wrmsr(v, 0x6e0, deadline));
        assert_int_equal(rd(v, 0x6e0), deadline);
        assert_true(wait_for_interrupt(v, 2000));
        uint64_t now = soft_tsc(v);
        assert_true(now >= deadline); /* never early */
        best = MIN(best, now - deadline);
        assert_int_equal(lapic_pending(v->lapic), 0xec);
        assert_int_equal(rd(v, 0x6e0), 0);
        lapic_ack(v->lapic, 0xec);
        assert_true(soft_wrmsr(v, 0x80b, 0));
    }
    print_message("LAPIC timer latency, best of 20: %llu us\n",
                  (unsigned long long)(best * 1000 / w->vm.tsc_khz));
    /* Moving the TSC over the deadline fires it. */
    atomic_store(&v->events, 0);
    assert_true(soft_wrmsr(v, 0x6e0, soft_tsc(v) + 3600ull * 1000 * w->vm.tsc_khz));
    assert_int_equal(lapic_pending(v->lapic), -1);
    assert_true(soft_wrmsr(v, 0x3b, 7200ull * 1000 * w->vm.tsc_khz));
    assert_int_equal(lapic_pending(v->lapic), 0xec);
}

static void test_interrupts_between_vcpus(void **state)
{
    struct world *w = *state;
    struct soft_vcpu *a = &w->cpu[0], *b = &w->cpu[1];
    for (unsigned i = 0; i < CPUS; i++)
        lapic_write(w->cpu[i].lapic, LAPIC_SVR, 0x1ff);
    lapic_write(a->lapic, LAPIC_ICR_HIGH, 1u << 24);
    lapic_write(a->lapic, LAPIC_ICR, 0x4500);
    assert_true(atomic_load(&b->events) & EV_INIT);
    lapic_write(a->lapic, LAPIC_ICR, 0x4608);
    assert_true(atomic_load(&b->events) & EV_SIPI);
    assert_int_equal(atomic_load(&b->sipi_vector), 8);
    lapic_write(a->lapic, LAPIC_ICR, 0x4400);
    assert_true(atomic_load(&b->events) & EV_NMI);
    atomic_store(&b->events, 0);
    soft_msi(&w->vm, 0xfee01000, 0x61);
    assert_int_equal(atomic_load(&b->events), EV_INTR);
    /* An edge message of a vector that the IOAPIC has as level: its EOI is wanted all the same. */
    w->vm.ioapic_level[1] = 1ull << (0x61 - 64);
    lapic_ack(b->lapic, lapic_pending(b->lapic));
    lapic_write(b->lapic, LAPIC_EOI, 0);
    assert_int_equal(w->eoi, 0x61);
}

static void test_state_goes_round(void **state)
{
    struct world *w = *state;
    struct soft_vcpu *v = &w->cpu[1];
    uint8_t page[1024], again[1024];
    assert_true(soft_wrmsr(v, 0x1b, 0xfee00c00));
    assert_true(soft_wrmsr(v, 0x80f, 0x1ff));
    assert_true(soft_wrmsr(v, 0x832, 0x400ec));
    uint64_t deadline = soft_tsc(v) + 3600ull * 1000 * w->vm.tsc_khz;
    assert_true(soft_wrmsr(v, 0x6e0, deadline));
    lapic_get(v->lapic, page);
    assert_int_equal(v->msr.tsc_deadline, deadline);
    struct x86_msrs saved = v->msr;
    saved.tsc = soft_tsc(v);
    lapic_reset(v->lapic, false);
    assert_int_equal(lapic_tsc_deadline(v->lapic), 0);
    v->msr = saved;
    soft_tsc_set(v, saved.tsc);
    lapic_set(v->lapic, page);
    assert_int_equal(rd(v, 0x6e0), deadline);
    assert_int_equal(rd(v, 0x802), 1);
    lapic_get(v->lapic, again);
    assert_memory_equal(page, again, sizeof(page));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_plain_registers),
        T(test_unknown_registers),
        T(test_efer),
        T(test_memory_types),
        T(test_speculation),
        T(test_apic_base),
        T(test_cpuid_follows_state),
        T(test_tsc),
        T(test_host_frequency),
        T(test_kvmclock),
        T(test_deadline_timer_in_real_time),
        T(test_interrupts_between_vcpus),
        T(test_state_goes_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
