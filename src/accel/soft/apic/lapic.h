/*
 * Local APIC of the software engine (Intel SDM vol. 3, chapter 11): xAPIC page, x2APIC registers,
 * priorities, inter-processor interrupts, timer.
 *
 * This header is what the files of the LAPIC share and what its tests use; the engine calls the
 * functions that soft.h names. A LAPIC reaches the rest of the VM through `struct lapic_host` only.
 *
 * Threads: registers belong to the vCPU's thread. Other threads set bits of IRR and TMR and read
 * the fields that addressing needs: those are atomic. The timer has a lock, because the clock
 * thread fires it. No other lock is taken here, so an EOI callback may send the next interrupt at
 * once.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_LAPIC_H
#define TENON_ACCEL_SOFT_LAPIC_H

#include <stdatomic.h>

#include "base/base.h"
#include "base/lock.h"

struct lapic;

/* Register offsets in the xAPIC page; the x2APIC MSR is 0x800 + offset / 16. */
enum lapic_register {
    LAPIC_ID = 0x20,
    LAPIC_VERSION = 0x30,
    LAPIC_TPR = 0x80,
    LAPIC_APR = 0x90,
    LAPIC_PPR = 0xa0,
    LAPIC_EOI = 0xb0,
    LAPIC_LDR = 0xd0,
    LAPIC_DFR = 0xe0,
    LAPIC_SVR = 0xf0,
    LAPIC_ISR = 0x100,
    LAPIC_TMR = 0x180,
    LAPIC_IRR = 0x200,
    LAPIC_ESR = 0x280,
    LAPIC_ICR = 0x300,
    LAPIC_ICR_HIGH = 0x310,
    LAPIC_LVT_TIMER = 0x320,
    LAPIC_LVT_THERMAL = 0x330,
    LAPIC_LVT_PERF = 0x340,
    LAPIC_LVT_LINT0 = 0x350,
    LAPIC_LVT_LINT1 = 0x360,
    LAPIC_LVT_ERROR = 0x370,
    LAPIC_TIMER_INITIAL = 0x380,
    LAPIC_TIMER_CURRENT = 0x390,
    LAPIC_TIMER_DIVIDE = 0x3e0,
    LAPIC_SELF_IPI = 0x3f0,
};

enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

enum lapic_mode {
    LAPIC_FIXED,
    LAPIC_LOWEST,
    LAPIC_SMI,
    LAPIC_MODE_3,
    LAPIC_NMI,
    LAPIC_INIT,
    LAPIC_SIPI,
    LAPIC_EXTINT,
};

#define APIC_BASE_BSP 0x100ull
#define APIC_BASE_X2 0x400ull
#define APIC_BASE_ENABLE 0x800ull
#define SVR_ENABLE 0x100u
#define LVT_MASKED 0x10000u
#define LVT_TIMER_MODE 0x60000u
#define LVT_TIMER_PERIODIC 0x20000u
#define LVT_TIMER_DEADLINE 0x40000u

#define ESR_SEND_VECTOR 0x20u
#define ESR_RECEIVE_VECTOR 0x40u
#define ESR_ILLEGAL_REGISTER 0x80u

/* What a LAPIC tells its vCPU. */
enum lapic_signal {
    LAPIC_SIGNAL_INTR,
    LAPIC_SIGNAL_NMI,
    LAPIC_SIGNAL_INIT,
    LAPIC_SIGNAL_SIPI,
    LAPIC_SIGNAL_EXTINT, /* lapic_extint_open() may answer otherwise now */
};

/* The rest of the VM. `opaque` is the VM's, `index` a vCPU's. */
struct lapic_host {
    /* All LAPICs of the VM; NULL where a vCPU does not exist yet. Any thread. */
    unsigned (*count)(void *opaque);
    struct lapic *(*peer)(void *opaque, unsigned index);
    /* Any thread: wake vCPU `index`. `vector` is the start-up vector of a SIPI. */
    void (*signal)(void *opaque, unsigned index, enum lapic_signal signal, uint8_t vector);
    /* The vCPU's thread: an interrupt has ended. `level`: it came as level-triggered. */
    void (*eoi)(void *opaque, uint8_t vector, bool level);
    uint64_t (*now_ns)(void *opaque);
    /* CLOCK_MONOTONIC time at which the guest TSC of `index` reaches `tsc`; 0 when it has. */
    uint64_t (*tsc_to_ns)(void *opaque, unsigned index, uint64_t tsc);
    /* Call lapic_timer_expire() of `index` at this time; UINT64_MAX: never. */
    void (*arm)(void *opaque, unsigned index, uint64_t deadline_ns);
    /* Returns when no lapic_timer_expire() of `index` runs any more; it will not be armed again. */
    void (*detach)(void *opaque, unsigned index);
};

struct lapic_timer {
    struct lock lock;
    uint32_t initial, divide; /* registers */
    uint64_t start_ns;        /* when the count began */
    uint64_t period_ns;       /* initial count in time */
    uint64_t deadline_ns;     /* UINT64_MAX: stopped */
    uint64_t tsc_deadline;    /* 0: none */
};

struct lapic {
    const struct lapic_host *host;
    void *opaque;
    unsigned index;
    _Atomic uint64_t base;  /* IA32_APIC_BASE */
    _Atomic uint32_t id;    /* xAPIC: in bits 31:24; x2APIC: all of it */
    _Atomic bool ids_moved; /* in the first LAPIC: some ID is not its index */
    _Atomic uint32_t ldr, dfr, svr;
    _Atomic uint32_t lvt[LVT_COUNT];
    _Atomic uint32_t irr[8], tmr[8];
    _Atomic uint32_t esr_raised; /* errors since the last write of ESR */
    uint32_t isr[8];
    uint32_t tpr, esr, icr, icr_high;
    struct lapic_timer timer;
};

struct lapic *lapic_create(const struct lapic_host *host, void *opaque, unsigned index);

static inline bool lapic_x2(const struct lapic *lapic)
{
    uint64_t base = atomic_load_explicit(&lapic->base, memory_order_relaxed);
    return (base & (APIC_BASE_X2 | APIC_BASE_ENABLE)) == (APIC_BASE_X2 | APIC_BASE_ENABLE);
}

/* RDMSR and WRMSR of 0x800 to 0x8ff; false is #GP. */
bool lapic_msr_read(struct lapic *lapic, uint32_t msr, uint64_t *value);
bool lapic_msr_write(struct lapic *lapic, uint32_t msr, uint64_t value);
/* IA32_APIC_BASE; false is #GP. `phys_mask` has the valid bits of a physical address. */
uint64_t lapic_apic_base(const struct lapic *lapic);
bool lapic_set_apic_base(struct lapic *lapic, uint64_t value, uint64_t phys_mask);
/* IA32_TSC_DEADLINE. */
uint64_t lapic_tsc_deadline(struct lapic *lapic);
void lapic_set_tsc_deadline(struct lapic *lapic, uint64_t tsc);
/* The guest TSC jumped: the deadline is another time now. */
void lapic_tsc_changed(struct lapic *lapic);

/* Registers and state, with the two MSRs that do not fit the page. */
void lapic_save(struct lapic *lapic, uint8_t page[1024], uint64_t *apic_base,
                uint64_t *tsc_deadline);
void lapic_restore(struct lapic *lapic, const uint8_t page[1024], uint64_t apic_base,
                   uint64_t tsc_deadline);

/* lapic_ipi.c */
/* Any thread: an interrupt message to one LAPIC. */
void lapic_accept(struct lapic *lapic, enum lapic_mode mode, uint8_t vector, bool level);
/* Any thread: an MSI or IOAPIC message (SDM 11.11). `x2_source`: `dest` has 32 bits. */
void lapic_route(const struct lapic_host *host, void *opaque, uint32_t dest, bool logical,
                 bool x2_source, enum lapic_mode mode, uint8_t vector, bool level);
void lapic_route_msi(const struct lapic_host *host, void *opaque, uint64_t address, uint32_t data);
/* The ICR was written: sends. */
void lapic_send_icr(struct lapic *lapic);
/* An error for ESR and the error LVT. Any thread. */
void lapic_error(struct lapic *lapic, uint32_t bit);

/* lapic_timer.c */
void lapic_timer_init(struct lapic *lapic);
void lapic_timer_fini(struct lapic *lapic);
void lapic_timer_reset(struct lapic *lapic);
/* Writes the timer's LVT. */
void lapic_timer_lvt(struct lapic *lapic, uint32_t now);
void lapic_timer_set_initial(struct lapic *lapic, uint32_t value);
void lapic_timer_set_divide(struct lapic *lapic, uint32_t value);
uint32_t lapic_timer_current(struct lapic *lapic);
void lapic_timer_restore(struct lapic *lapic, uint32_t initial, uint32_t divide, uint32_t current,
                         uint64_t tsc_deadline);
/* The clock thread: the time that was armed has come (or is stale: then nothing happens). */
void lapic_timer_expire(struct lapic *lapic);

#endif
