/*
 * Local APIC: interrupt messages, from the ICR, from MSIs and from the IOAPIC (Intel SDM vol. 3,
 * 11.6, 11.7, 11.11). All but lapic_send_icr() run on any thread and take no lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/apic/lapic.h"

static bool hardware_enabled(const struct lapic *lapic)
{
    return atomic_load_explicit(&lapic->base, memory_order_relaxed) & APIC_BASE_ENABLE;
}

static bool software_enabled(const struct lapic *lapic)
{
    return atomic_load_explicit(&lapic->svr, memory_order_relaxed) & SVR_ENABLE;
}

static void post_vector(struct lapic *lapic, uint8_t vector, bool level)
{
    uint32_t bit = 1u << (vector & 31);
    if (level)
        atomic_fetch_or_explicit(&lapic->tmr[vector >> 5], bit, memory_order_relaxed);
    else if (atomic_load_explicit(&lapic->tmr[vector >> 5], memory_order_relaxed) & bit)
        atomic_fetch_and_explicit(&lapic->tmr[vector >> 5], ~bit, memory_order_relaxed);
    uint32_t before = atomic_fetch_or_explicit(&lapic->irr[vector >> 5], bit, memory_order_acq_rel);
    /* Signalled already when it was set; a lost race costs nothing, the vCPU still looks at IRR. */
    if (!(before & bit))
        lapic->host->signal(lapic->opaque, lapic->index, LAPIC_SIGNAL_INTR, 0);
}

void lapic_error(struct lapic *lapic, uint32_t bit)
{
    atomic_fetch_or(&lapic->esr_raised, bit);
    uint32_t lvt = lapic->lvt[LVT_ERROR];
    if (!(lvt & LVT_MASKED) && (lvt & 0xff) >= 16 && software_enabled(lapic))
        post_vector(lapic, lvt & 0xff, false);
}

void lapic_accept(struct lapic *lapic, enum lapic_mode mode, uint8_t vector, bool level)
{
    if (!hardware_enabled(lapic))
        return;
    switch (mode) {
    case LAPIC_FIXED:
    case LAPIC_LOWEST:
        if (!software_enabled(lapic))
            break;
        if (vector < 16)
            lapic_error(lapic, ESR_RECEIVE_VECTOR);
        else
            post_vector(lapic, vector, level);
        break;
    case LAPIC_NMI:
        lapic->host->signal(lapic->opaque, lapic->index, LAPIC_SIGNAL_NMI, 0);
        break;
    case LAPIC_INIT:
        lapic->host->signal(lapic->opaque, lapic->index, LAPIC_SIGNAL_INIT, 0);
        break;
    case LAPIC_SIPI:
        lapic->host->signal(lapic->opaque, lapic->index, LAPIC_SIGNAL_SIPI, vector);
        break;
    case LAPIC_SMI:    /* there is no system management mode */
    case LAPIC_EXTINT: /* the PIC has its own wire */
    case LAPIC_MODE_3:
        break;
    }
}

static bool matches_physical(const struct lapic *lapic, uint32_t dest, bool x2_source)
{
    if (dest == (x2_source ? 0xffffffffu : 0xffu))
        return true;
    uint32_t id = atomic_load_explicit(&lapic->id, memory_order_relaxed);
    return dest == (lapic_x2(lapic) ? id : id >> 24);
}

static bool matches_logical(const struct lapic *lapic, uint32_t dest, bool x2_source)
{
    if (dest == (x2_source ? 0xffffffffu : 0xffu))
        return true;
    uint32_t ldr = atomic_load_explicit(&lapic->ldr, memory_order_relaxed);
    if (lapic_x2(lapic))
        return dest >> 16 == ldr >> 16 && dest & ldr & 0xffff;
    if (dest > 0xff)
        return false;
    ldr >>= 24;
    uint32_t dfr = atomic_load_explicit(&lapic->dfr, memory_order_relaxed);
    if (dfr >> 28 == 0xf)
        return ldr & dest;
    return ldr >> 4 == dest >> 4 && ldr & dest & 0xf;
}

static bool matches(const struct lapic *lapic, uint32_t dest, bool logical, bool x2_source)
{
    return logical ? matches_logical(lapic, dest, x2_source)
                   : matches_physical(lapic, dest, x2_source);
}

/*
 * Lowest priority: one of those that match. The vector chooses, so that different interrupts spread
 * over the vCPUs and one interrupt stays where its data is warm.
 */
static void route_lowest(const struct lapic_host *host, void *opaque, uint32_t dest, bool logical,
                         bool x2_source, uint8_t vector, bool level)
{
    unsigned total = host->count(opaque), found = 0;
    for (int pass = 0; pass < 2; pass++) {
        unsigned chosen = found ? vector % found : 0, at = 0;
        for (unsigned i = 0; i < total; i++) {
            struct lapic *lapic = host->peer(opaque, i);
            if (!lapic || !hardware_enabled(lapic) || !software_enabled(lapic) ||
                !matches(lapic, dest, logical, x2_source))
                continue;
            if (pass == 1 && at == chosen) {
                lapic_accept(lapic, LAPIC_FIXED, vector, level);
                return;
            }
            at++;
        }
        found = at;
        if (!found)
            return;
    }
}

void lapic_route(const struct lapic_host *host, void *opaque, uint32_t dest, bool logical,
                 bool x2_source, enum lapic_mode mode, uint8_t vector, bool level)
{
    if (mode == LAPIC_LOWEST) {
        route_lowest(host, opaque, dest, logical, x2_source, vector, level);
        return;
    }
    /* The common case, an MSI to one CPU, needs no walk: index is APIC ID. */
    unsigned total = host->count(opaque);
    const struct lapic *first = host->peer(opaque, 0);
    if (!logical && dest < total && first && !atomic_load(&first->ids_moved)) {
        struct lapic *lapic = host->peer(opaque, dest);
        if (lapic && matches_physical(lapic, dest, x2_source)) {
            lapic_accept(lapic, mode, vector, level);
            return;
        }
    }
    for (unsigned i = 0; i < total; i++) {
        struct lapic *lapic = host->peer(opaque, i);
        if (lapic && matches(lapic, dest, logical, x2_source))
            lapic_accept(lapic, mode, vector, level);
    }
}

void lapic_route_msi(const struct lapic_host *host, void *opaque, uint64_t address, uint32_t data)
{
    if ((address & 0xfff00000) != 0xfee00000)
        return;
    uint32_t dest = (uint32_t)(address >> 12) & 0xff;
    bool logical = address & 4;
    lapic_route(host, opaque, dest, logical, false, data >> 8 & 7, data & 0xff, data & 0x8000);
}

void lapic_send_icr(struct lapic *lapic)
{
    uint32_t icr = lapic->icr;
    enum lapic_mode mode = icr >> 8 & 7;
    uint8_t vector = icr & 0xff;
    unsigned shorthand = icr >> 18 & 3;
    bool x2 = lapic_x2(lapic);
    if (mode == LAPIC_INIT && (icr & 0xc000) == 0x8000)
        return; /* INIT level de-assert: only old buses needed it */
    if (mode == LAPIC_EXTINT || mode == LAPIC_MODE_3)
        return;
    if (vector < 16 && (mode == LAPIC_FIXED || mode == LAPIC_LOWEST)) {
        lapic_error(lapic, ESR_SEND_VECTOR);
        return;
    }
    if (shorthand == 1) {
        if (mode == LAPIC_FIXED || mode == LAPIC_NMI)
            lapic_accept(lapic, mode, vector, false);
        return;
    }
    if (shorthand) {
        unsigned total = lapic->host->count(lapic->opaque);
        for (unsigned i = 0; i < total; i++) {
            struct lapic *peer = lapic->host->peer(lapic->opaque, i);
            if (peer && (peer != lapic || shorthand == 2))
                lapic_accept(peer, mode, vector, false);
        }
        return;
    }
    lapic_route(lapic->host, lapic->opaque, x2 ? lapic->icr_high : lapic->icr_high >> 24,
                icr & 0x800, x2, mode, vector, false);
}
