/*
 * Local APIC of the software engine: several LAPICs on a fake VM with a clock of its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "accel/soft/apic/lapic.h"
#include "accel/soft/soft.h"
#include "base/bytes.h"

#define CPUS 20
#define PHYS_MASK ((1ull << 46) - 1)

struct world {
    struct lapic *lapic[CPUS];
    unsigned signals[CPUS][5];
    uint8_t sipi[CPUS];
    uint64_t deadline[CPUS];
    uint64_t now;
    unsigned eois, level_eois;
    uint8_t last_eoi;
};

static unsigned count(void *opaque)
{
    return CPUS;
}

static struct lapic *peer(void *opaque, unsigned index)
{
    struct world *w = opaque;
    return w->lapic[index];
}

static void note_signal(void *opaque, unsigned index, enum lapic_signal signal, uint8_t vector)
{
    struct world *w = opaque;
    w->signals[index][signal]++;
    if (signal == LAPIC_SIGNAL_SIPI)
        w->sipi[index] = vector;
}

static void note_eoi(void *opaque, uint8_t vector, bool level)
{
    struct world *w = opaque;
    w->eois++;
    w->level_eois += level;
    w->last_eoi = vector;
}

static uint64_t now_ns(void *opaque)
{
    return ((struct world *)opaque)->now;
}

/* The fake TSC counts 3 a nanosecond. */
static uint64_t tsc_to_ns(void *opaque, unsigned index, uint64_t tsc)
{
    uint64_t now = ((struct world *)opaque)->now;
    return tsc <= now * 3 ? 0 : (tsc + 2) / 3;
}

static void arm(void *opaque, unsigned index, uint64_t deadline_ns)
{
    ((struct world *)opaque)->deadline[index] = deadline_ns;
}

static void detach(void *opaque, unsigned index)
{
}

static const struct lapic_host host = {count,  peer,      note_signal, note_eoi,
                                       now_ns, tsc_to_ns, arm,         detach};

/* Moves the clock and expires what is due, as the clock thread does. */
static void run_until(struct world *w, uint64_t ns)
{
    for (;;) {
        unsigned next = CPUS;
        for (unsigned i = 0; i < CPUS; i++) {
            if (w->deadline[i] <= ns && (next == CPUS || w->deadline[i] < w->deadline[next]))
                next = i;
        }
        if (next == CPUS)
            break;
        w->now = MAX(w->now, w->deadline[next]);
        w->deadline[next] = UINT64_MAX;
        lapic_timer_expire(w->lapic[next]);
    }
    w->now = ns;
}

static int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));
    w->now = 1000000;
    for (unsigned i = 0; i < CPUS; i++) {
        w->deadline[i] = UINT64_MAX;
        w->lapic[i] = lapic_create(&host, w, i);
        lapic_write(w->lapic[i], LAPIC_SVR, 0x1ff);
    }
    memset(w->signals, 0, sizeof(w->signals));
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < CPUS; i++)
        lapic_free(w->lapic[i]);
    free(w);
    return 0;
}

static bool has_irr(struct world *w, unsigned cpu, uint8_t vector)
{
    return lapic_read(w->lapic[cpu], LAPIC_IRR + 16 * (vector / 32)) >> (vector % 32) & 1;
}

static void all_x2(struct world *w)
{
    for (unsigned i = 0; i < CPUS; i++)
        assert_true(lapic_set_apic_base(w->lapic[i], 0xfee00c00, PHYS_MASK));
}

static void test_priority(void **state)
{
    struct world *w = *state;
    struct lapic *l = w->lapic[0];
    assert_int_equal(lapic_pending(l), -1);
    lapic_accept(l, LAPIC_FIXED, 0x31, false);
    lapic_accept(l, LAPIC_FIXED, 0x55, false);
    assert_int_equal(w->signals[0][LAPIC_SIGNAL_INTR], 2);
    lapic_accept(l, LAPIC_FIXED, 0x55, false); /* coalesced */
    assert_int_equal(w->signals[0][LAPIC_SIGNAL_INTR], 2);
    assert_int_equal(lapic_pending(l), 0x55);
    lapic_ack(l, 0x55);
    assert_false(has_irr(w, 0, 0x55));
    assert_int_equal(lapic_read(l, LAPIC_ISR + 0x20), 1u << 0x15);
    assert_int_equal(lapic_read(l, LAPIC_PPR), 0x50);
    assert_int_equal(lapic_pending(l), -1);
    lapic_accept(l, LAPIC_FIXED, 0x58, false); /* same class waits */
    assert_int_equal(lapic_pending(l), -1);
    lapic_accept(l, LAPIC_FIXED, 0x61, false); /* higher class nests */
    assert_int_equal(lapic_pending(l), 0x61);
    lapic_ack(l, 0x61);
    w->signals[0][LAPIC_SIGNAL_INTR] = 0;
    lapic_write(l, LAPIC_EOI, 0);
    assert_int_equal(w->last_eoi, 0x61);
    assert_int_equal(w->signals[0][LAPIC_SIGNAL_INTR], 1); /* others wait: look again */
    lapic_write(l, LAPIC_EOI, 0);
    assert_int_equal(lapic_pending(l), 0x58);
    lapic_set_cr8(l, 5);
    assert_int_equal(lapic_read(l, LAPIC_TPR), 0x50);
    assert_int_equal(lapic_pending(l), -1);
    lapic_set_cr8(l, 4);
    assert_int_equal(lapic_pending(l), 0x58);
    assert_int_equal(lapic_cr8(l), 4);
    lapic_write(l, LAPIC_TPR, 0x37);
    lapic_ack(l, 0x58);
    lapic_write(l, LAPIC_EOI, 0);
    assert_int_equal(lapic_read(l, LAPIC_PPR), 0x37);
    assert_int_equal(lapic_pending(l), -1); /* 0x31 is in class 3 */
    lapic_write(l, LAPIC_TPR, 0);
    assert_int_equal(lapic_pending(l), 0x31);
}

static void test_level_and_eoi(void **state)
{
    struct world *w = *state;
    struct lapic *l = w->lapic[3];
    lapic_route_msi(&host, w, 0xfee03000, 0x8000 | 0x42);
    assert_int_equal(lapic_pending(l), 0x42);
    assert_int_equal(lapic_read(l, LAPIC_TMR + 0x20), 4);
    lapic_ack(l, 0x42);
    lapic_write(l, LAPIC_EOI, 0);
    assert_int_equal(w->level_eois, 1);
    assert_int_equal(w->last_eoi, 0x42);
    lapic_route_msi(&host, w, 0xfee03000, 0x42); /* the same vector, edge now */
    assert_int_equal(lapic_read(l, LAPIC_TMR + 0x20), 0);
    lapic_ack(l, 0x42);
    lapic_write(l, LAPIC_EOI, 0);
    assert_int_equal(w->level_eois, 1);
    assert_int_equal(w->eois, 2);
    lapic_write(l, LAPIC_EOI, 0); /* nothing in service */
    assert_int_equal(w->eois, 2);
}

static void test_disabled(void **state)
{
    struct world *w = *state;
    struct lapic *l = w->lapic[0];
    lapic_write(l, LAPIC_LVT_TIMER, 0x40);
    assert_int_equal(lapic_read(l, LAPIC_LVT_TIMER), 0x40);
    lapic_write(l, LAPIC_SVR, 0xff);
    assert_int_equal(lapic_read(l, LAPIC_LVT_TIMER), 0x10040);
    lapic_write(l, LAPIC_LVT_TIMER, 0x40);
    assert_int_equal(lapic_read(l, LAPIC_LVT_TIMER), 0x10040);
    lapic_accept(l, LAPIC_FIXED, 0x50, false);
    assert_int_equal(lapic_pending(l), -1);
    lapic_accept(l, LAPIC_NMI, 0, false);
    assert_int_equal(w->signals[0][LAPIC_SIGNAL_NMI], 1);
    assert_true(lapic_set_apic_base(l, 0xfee00000, PHYS_MASK));
    assert_int_equal(lapic_base(l), UINT64_MAX);
    lapic_accept(l, LAPIC_NMI, 0, false);
    assert_int_equal(w->signals[0][LAPIC_SIGNAL_NMI], 1);
    assert_true(lapic_extint_open(l)); /* the PIC drives the BSP's pin */
    assert_false(lapic_extint_open(w->lapic[1]));
}

static void test_lint0(void **state)
{
    struct world *w = *state;
    assert_true(lapic_extint_open(w->lapic[0])); /* as after reset */
    assert_false(lapic_extint_open(w->lapic[1]));
    lapic_write(w->lapic[0], LAPIC_LVT_LINT0, 0x10700);
    assert_false(lapic_extint_open(w->lapic[0]));
    lapic_write(w->lapic[0], LAPIC_LVT_LINT0, 0x8700);
    assert_true(lapic_extint_open(w->lapic[0]));
    lapic_write(w->lapic[0], LAPIC_LVT_LINT0, 0x31);
    assert_false(lapic_extint_open(w->lapic[0]));
}

static void icr(struct world *w, unsigned cpu, uint32_t dest, uint32_t low)
{
    lapic_write(w->lapic[cpu], LAPIC_ICR_HIGH, dest << 24);
    lapic_write(w->lapic[cpu], LAPIC_ICR, low);
}

/* The LAPICs that hold `vector`, as bits. */
static uint32_t who(struct world *w, uint8_t vector)
{
    uint32_t mask = 0;
    for (unsigned i = 0; i < CPUS; i++) {
        if (has_irr(w, i, vector))
            mask |= 1u << i;
    }
    return mask;
}

static void test_ipi_physical_and_shorthands(void **state)
{
    struct world *w = *state;
    icr(w, 2, 7, 0x40);
    assert_int_equal(who(w, 0x40), 1u << 7);
    icr(w, 2, 0xff, 0x41);
    assert_int_equal(who(w, 0x41), (1u << CPUS) - 1);
    icr(w, 2, 9, 0x40042);
    assert_int_equal(who(w, 0x42), 1u << 2);
    icr(w, 2, 9, 0x80043);
    assert_int_equal(who(w, 0x43), (1u << CPUS) - 1);
    icr(w, 2, 9, 0xc0044);
    assert_int_equal(who(w, 0x44), ((1u << CPUS) - 1) & ~(1u << 2));
    icr(w, 2, 100, 0x45); /* nobody */
    assert_int_equal(who(w, 0x45), 0);
    icr(w, 0, 3, 0x4500);
    assert_int_equal(w->signals[3][LAPIC_SIGNAL_INIT], 1);
    icr(w, 0, 3, 0x8500); /* de-assert */
    assert_int_equal(w->signals[3][LAPIC_SIGNAL_INIT], 1);
    icr(w, 0, 3, 0x4699);
    assert_int_equal(w->signals[3][LAPIC_SIGNAL_SIPI], 1);
    assert_int_equal(w->sipi[3], 0x99);
    icr(w, 0, 3, 0x4400);
    assert_int_equal(w->signals[3][LAPIC_SIGNAL_NMI], 1);
    assert_int_equal(lapic_read(w->lapic[0], LAPIC_ICR) & 0x1000, 0);
}

/* Two LAPICs with one ID both get what is sent to it; the ID that nobody has any more, nobody. */
static void test_ipi_aliased(void **state)
{
    struct world *w = *state;
    lapic_write(w->lapic[1], LAPIC_ID, 0);
    lapic_route(&host, w, 0, false, false, LAPIC_FIXED, 0x55, false);
    lapic_route(&host, w, 1, false, false, LAPIC_FIXED, 0x66, false);
    assert_int_equal(lapic_pending(w->lapic[0]), 0x55);
    assert_int_equal(lapic_pending(w->lapic[1]), 0x55);
}

static void test_ipi_logical(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < 8; i++)
        lapic_write(w->lapic[i], LAPIC_LDR, 0x01000000u << i);
    icr(w, 0, 0x0a, 0x850);
    assert_int_equal(who(w, 0x50), 0x0a);
    /* Cluster model: LDR = cluster << 4 | member. */
    for (unsigned i = 0; i < CPUS; i++) {
        lapic_write(w->lapic[i], LAPIC_DFR, 0x0fffffff);
        lapic_write(w->lapic[i], LAPIC_LDR, (i / 4 << 4 | 1u << i % 4) << 24);
    }
    icr(w, 0, 0x23, 0x851);
    assert_int_equal(who(w, 0x51), 3u << 8);
    icr(w, 0, 0xff, 0x852);
    assert_int_equal(who(w, 0x52), (1u << CPUS) - 1);
    /* Lowest priority: exactly one of those that match. */
    for (uint8_t vector = 0x60; vector < 0x68; vector++) {
        icr(w, 0, 0x1f, 0x900u | vector);
        assert_int_equal(__builtin_popcount(who(w, vector)), 1);
        assert_int_equal(who(w, vector) & ~0xf0u, 0);
    }
}

static void test_x2apic(void **state)
{
    struct world *w = *state;
    uint64_t value;
    assert_false(lapic_msr_read(w->lapic[0], 0x802, &value)); /* not in this mode */
    all_x2(w);
    assert_int_equal(lapic_base(w->lapic[5]), UINT64_MAX);
    assert_true(lapic_msr_read(w->lapic[17], 0x802, &value));
    assert_int_equal(value, 17);
    assert_true(lapic_msr_read(w->lapic[17], 0x80d, &value));
    assert_int_equal(value, 0x10002);
    assert_true(lapic_msr_write(w->lapic[1], 0x830, 17ull << 32 | 0x70));
    assert_int_equal(who(w, 0x70), 1u << 17);
    assert_true(lapic_msr_read(w->lapic[1], 0x830, &value));
    assert_int_equal(value, 17ull << 32 | 0x70);
    assert_true(lapic_msr_write(w->lapic[1], 0x830, 0x1000cull << 32 | 0x871)); /* cluster 1 */
    assert_int_equal(who(w, 0x71), 3u << 18);
    assert_true(lapic_msr_write(w->lapic[1], 0x830, 0xffffffffull << 32 | 0x72));
    assert_int_equal(who(w, 0x72), (1u << CPUS) - 1);
    assert_true(lapic_msr_write(w->lapic[4], 0x83f, 0x73));
    assert_int_equal(who(w, 0x73), 1u << 4);
    /* What faults. */
    assert_false(lapic_msr_write(w->lapic[0], 0x802, 1));
    assert_false(lapic_msr_read(w->lapic[0], 0x80b, &value));
    assert_false(lapic_msr_write(w->lapic[0], 0x80b, 1));
    assert_true(lapic_msr_write(w->lapic[0], 0x80b, 0));
    assert_false(lapic_msr_read(w->lapic[0], 0x80e, &value)); /* no DFR */
    assert_false(lapic_msr_read(w->lapic[0], 0x831, &value)); /* no second half */
    assert_false(lapic_msr_write(w->lapic[0], 0x808, 0x100));
    assert_false(lapic_msr_write(w->lapic[0], 0x828, 1));
    assert_false(lapic_msr_read(w->lapic[0], 0x8ff, &value));
    /* An MSI with eight bits of destination. */
    lapic_route_msi(&host, w, 0xfee11000, 0x74);
    assert_int_equal(who(w, 0x74), 1u << 17);
    lapic_route_msi(&host, w, 0xfeeff000, 0x75);
    assert_int_equal(who(w, 0x75), (1u << CPUS) - 1);
    lapic_route_msi(&host, w, 0xfed00000, 0x76);
    assert_int_equal(who(w, 0x76), 0);
}

static void test_base_transitions(void **state)
{
    struct world *w = *state;
    struct lapic *l = w->lapic[0];
    assert_false(lapic_set_apic_base(l, 0xfee00400, PHYS_MASK)); /* x2APIC without enable */
    assert_true(lapic_set_apic_base(l, 0xfee00c00, PHYS_MASK));
    assert_int_equal(lapic_apic_base(l), 0xfee00d00);            /* the BSP stays the BSP */
    assert_false(lapic_set_apic_base(l, 0xfee00800, PHYS_MASK)); /* back to xAPIC */
    assert_true(lapic_set_apic_base(l, 0xfee00000, PHYS_MASK));
    assert_false(lapic_set_apic_base(l, 0xfee00c00, PHYS_MASK)); /* off to x2APIC */
    assert_true(lapic_set_apic_base(l, 0xfed00800, PHYS_MASK));
    assert_int_equal(lapic_base(l), 0xfed00000);
    assert_false(lapic_set_apic_base(l, 1ull << 50 | 0x800, PHYS_MASK));
    assert_false(lapic_set_apic_base(l, 0xfee00801, PHYS_MASK));
}

static void test_errors(void **state)
{
    struct world *w = *state;
    lapic_write(w->lapic[0], LAPIC_LVT_ERROR, 0xfe);
    icr(w, 0, 1, 0x05);
    assert_int_equal(who(w, 0x05), 0);
    assert_true(has_irr(w, 0, 0xfe));
    assert_int_equal(lapic_read(w->lapic[0], LAPIC_ESR), 0); /* latched by a write */
    lapic_write(w->lapic[0], LAPIC_ESR, 0);
    assert_int_equal(lapic_read(w->lapic[0], LAPIC_ESR), ESR_SEND_VECTOR);
    lapic_write(w->lapic[0], LAPIC_ESR, 0);
    assert_int_equal(lapic_read(w->lapic[0], LAPIC_ESR), 0);
    lapic_route_msi(&host, w, 0xfee01000, 0x02);
    lapic_write(w->lapic[1], LAPIC_ESR, 0);
    assert_int_equal(lapic_read(w->lapic[1], LAPIC_ESR), ESR_RECEIVE_VECTOR);
    lapic_read(w->lapic[2], 0x50);
    lapic_write(w->lapic[2], LAPIC_ESR, 0);
    assert_int_equal(lapic_read(w->lapic[2], LAPIC_ESR), ESR_ILLEGAL_REGISTER);
}

static void test_timer_one_shot(void **state)
{
    struct world *w = *state;
    struct lapic *l = w->lapic[0];
    lapic_write(l, LAPIC_LVT_TIMER, 0x80);
    lapic_write(l, LAPIC_TIMER_DIVIDE, 3); /* by 16 */
    lapic_write(l, LAPIC_TIMER_INITIAL, 1000);
    assert_int_equal(w->deadline[0], 1000000 + 16000);
    run_until(w, 1000000 + 8000);
    assert_int_equal(lapic_read(l, LAPIC_TIMER_CURRENT), 500);
    assert_int_equal(lapic_pending(l), -1);
    run_until(w, 1000000 + 16000);
    assert_int_equal(lapic_pending(l), 0x80);
    assert_int_equal(lapic_read(l, LAPIC_TIMER_CURRENT), 0);
    assert_int_equal(w->deadline[0], UINT64_MAX);
    lapic_ack(l, 0x80);
    lapic_write(l, LAPIC_EOI, 0);
    /* Masked: counts, but says nothing. */
    lapic_write(l, LAPIC_LVT_TIMER, 0x10080);
    lapic_write(l, LAPIC_TIMER_DIVIDE, 0xb); /* by 1 */
    lapic_write(l, LAPIC_TIMER_INITIAL, 5000);
    run_until(w, w->now + 1000);
    assert_int_equal(lapic_read(l, LAPIC_TIMER_CURRENT), 4000);
    run_until(w, w->now + 10000);
    assert_int_equal(lapic_pending(l), -1);
    /* A count of zero stops. */
    lapic_write(l, LAPIC_LVT_TIMER, 0x80);
    lapic_write(l, LAPIC_TIMER_INITIAL, 5000);
    lapic_write(l, LAPIC_TIMER_INITIAL, 0);
    run_until(w, w->now + 10000);
    assert_int_equal(lapic_pending(l), -1);
}

/* It ran out, and the guest changes it before the clock thread has come round: the interrupt is
   owed, and one-shot has ended. */
static void test_timer_late(void **state)
{
    struct world *w = *state;
    struct lapic *l = w->lapic[2];
    lapic_write(l, LAPIC_TIMER_DIVIDE, 0xb);
    lapic_write(l, LAPIC_LVT_TIMER, 0x80);
    lapic_write(l, LAPIC_TIMER_INITIAL, 500000);
    w->now += 600000;
    lapic_write(l, LAPIC_LVT_TIMER, 0x20091);
    assert_int_equal(lapic_pending(l), 0x80);
    assert_int_equal(lapic_read(l, LAPIC_TIMER_CURRENT), 0);
    lapic_ack(l, 0x80);
    lapic_write(l, LAPIC_EOI, 0);
    run_until(w, w->now + 5000000);
    assert_int_equal(lapic_pending(l), -1);

    lapic_write(l, LAPIC_LVT_TIMER, 0x80);
    lapic_write(l, LAPIC_TIMER_INITIAL, 500000);
    w->now += 600000;
    lapic_write(l, LAPIC_TIMER_INITIAL, 700000);
    assert_int_equal(lapic_pending(l), 0x80);
    assert_int_equal(lapic_read(l, LAPIC_TIMER_CURRENT), 700000);
}

static void test_timer_periodic(void **state)
{
    struct world *w = *state;
    struct lapic *l = w->lapic[1];
    uint64_t start = w->now;
    lapic_write(l, LAPIC_LVT_TIMER, 0x20081);
    lapic_write(l, LAPIC_TIMER_DIVIDE, 0xb);
    lapic_write(l, LAPIC_TIMER_INITIAL, 1000000);
    for (unsigned tick = 1; tick <= 5; tick++) {
        run_until(w, start + tick * 1000000ull);
        assert_int_equal(lapic_pending(l), 0x81);
        lapic_ack(l, 0x81);
        lapic_write(l, LAPIC_EOI, 0);
    }
    run_until(w, w->now + 250000);
    assert_int_equal(lapic_read(l, LAPIC_TIMER_CURRENT), 750000);
    /* A thread that comes late does not shift the grid, and does not repeat itself. */
    w->now += 3000000;
    unsigned before = w->signals[1][LAPIC_SIGNAL_INTR];
    lapic_timer_expire(l);
    assert_int_equal(w->signals[1][LAPIC_SIGNAL_INTR], before + 1);
    assert_int_equal(w->deadline[1], start + 9000000);
    /* A period that would drown the host is stretched. */
    lapic_write(l, LAPIC_TIMER_INITIAL, 10);
    assert_true(w->deadline[1] - w->now >= 50000);
    /* From one-shot with a tiny count, too. */
    lapic_write(l, LAPIC_LVT_TIMER, 0x81);
    lapic_write(l, LAPIC_TIMER_INITIAL, 10);
    lapic_write(l, LAPIC_LVT_TIMER, 0x20081);
    w->now += 100;
    lapic_timer_expire(l);
    assert_true(w->deadline[1] - w->now >= 50000);
}

static void test_timer_deadline(void **state)
{
    struct world *w = *state;
    struct lapic *l = w->lapic[2];
    lapic_set_tsc_deadline(l, 9000000); /* not in this mode */
    assert_int_equal(w->deadline[2], UINT64_MAX);
    lapic_write(l, LAPIC_LVT_TIMER, 0x40082);
    lapic_write(l, LAPIC_TIMER_INITIAL, 5); /* ignored */
    assert_int_equal(w->deadline[2], UINT64_MAX);
    lapic_set_tsc_deadline(l, 6000000);
    assert_int_equal(lapic_tsc_deadline(l), 6000000);
    assert_int_equal(w->deadline[2], 2000000);
    run_until(w, 1999999);
    assert_int_equal(lapic_pending(l), -1);
    run_until(w, 2000000);
    assert_int_equal(lapic_pending(l), 0x82);
    assert_int_equal(lapic_tsc_deadline(l), 0);
    lapic_ack(l, 0x82);
    lapic_write(l, LAPIC_EOI, 0);
    lapic_set_tsc_deadline(l, 100); /* long gone: at once */
    assert_int_equal(lapic_pending(l), 0x82);
    lapic_ack(l, 0x82);
    lapic_write(l, LAPIC_EOI, 0);
    lapic_set_tsc_deadline(l, 9000000);
    lapic_set_tsc_deadline(l, 0); /* cancelled */
    run_until(w, 5000000);
    assert_int_equal(lapic_pending(l), -1);
    lapic_set_tsc_deadline(l, 30000000);
    lapic_write(l, LAPIC_LVT_TIMER, 0x82); /* leaving the mode disarms */
    assert_int_equal(w->deadline[2], UINT64_MAX);
    assert_int_equal(lapic_tsc_deadline(l), 0);
    /* A stale wake-up does nothing. */
    lapic_write(l, LAPIC_TIMER_INITIAL, 1000000);
    lapic_timer_expire(l);
    assert_int_equal(lapic_pending(l), -1);
}

static void test_save_and_restore(void **state)
{
    struct world *w = *state;
    struct lapic *a = w->lapic[4];
    uint8_t page[1024], again[1024];
    uint64_t base, deadline, base2, deadline2;
    lapic_write(a, LAPIC_TPR, 0x20);
    lapic_write(a, LAPIC_LDR, 0x10000000);
    lapic_write(a, LAPIC_LVT_TIMER, 0x20090);
    lapic_write(a, LAPIC_TIMER_DIVIDE, 1);
    lapic_write(a, LAPIC_TIMER_INITIAL, 1000000);
    w->now += 1000000; /* 750000 counts of 4 ns left */
    lapic_accept(a, LAPIC_FIXED, 0x77, true);
    lapic_accept(a, LAPIC_FIXED, 0x99, false);
    lapic_ack(a, 0x99);
    lapic_save(a, page, &base, &deadline);
    lapic_reset(a, false);
    assert_int_equal(w->deadline[4], UINT64_MAX);
    w->now += 12345678; /* restored later, the count goes on where it was */
    lapic_restore(a, page, base, deadline);
    assert_int_equal(w->deadline[4], w->now + 3000000);
    lapic_save(a, again, &base2, &deadline2);
    assert_memory_equal(page, again, sizeof(page));
    assert_int_equal(base, base2);
    assert_int_equal(deadline, deadline2);
    lapic_write(a, LAPIC_EOI, 0);
    assert_int_equal(lapic_pending(a), 0x77);
    /* Garbage must not harm: vectors below 16 do not exist, reserved bits are dropped. */
    memset(page, 0xff, sizeof(page));
    lapic_restore(a, page, UINT64_MAX, UINT64_MAX);
    assert_int_equal(lapic_read(a, LAPIC_ISR) & 0xffff, 0);
    lapic_save(a, again, &base2, &deadline2);
}

static void test_init_keeps_identity(void **state)
{
    struct world *w = *state;
    all_x2(w);
    struct lapic *l = w->lapic[6];
    lapic_accept(l, LAPIC_FIXED, 0x50, false);
    lapic_reset(l, true);
    uint64_t value;
    assert_true(lapic_msr_read(l, 0x802, &value));
    assert_int_equal(value, 6);
    assert_int_equal(lapic_pending(l), -1);
    lapic_reset(l, false);
    assert_int_equal(lapic_read(l, LAPIC_ID), 6u << 24);
    assert_int_equal(lapic_apic_base(l), 0xfee00800);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_priority),
        T(test_level_and_eoi),
        T(test_disabled),
        T(test_lint0),
        T(test_ipi_physical_and_shorthands),
        T(test_ipi_aliased),
        T(test_ipi_logical),
        T(test_x2apic),
        T(test_base_transitions),
        T(test_errors),
        T(test_timer_one_shot),
        T(test_timer_periodic),
        T(test_timer_late),
        T(test_timer_deadline),
        T(test_save_and_restore),
        T(test_init_keeps_identity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
