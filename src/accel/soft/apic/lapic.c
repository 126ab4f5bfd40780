/*
 * Local APIC: registers, priorities, modes, state. See lapic.h for threads and locks.
 * Intel SDM vol. 3: 11.4 (registers), 11.5 (LVT), 11.8 (priority, EOI), 11.12 (x2APIC).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/apic/lapic.h"

#include <stdlib.h>
#include <string.h>

#include "accel/soft/soft.h"
#include "base/bytes.h"

#define DEFAULT_BASE 0xfee00000ull
#define VERSION 0x00050014u /* version 0x14, LVT entries 0 to 5 */

/* Bits of each LVT entry that a guest can write. */
static const uint32_t lvt_mask[LVT_COUNT] = {
    [LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
    [LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

static int highest(const uint32_t word[8])
{
    for (int i = 7; i >= 0; i--) {
        if (word[i])
            return i * 32 + 31 - __builtin_clz(word[i]);
    }
    return -1;
}

static int highest_irr(const struct lapic *lapic)
{
    for (int i = 7; i >= 0; i--) {
        uint32_t word = atomic_load_explicit(&lapic->irr[i], memory_order_acquire);
        if (word)
            return i * 32 + 31 - __builtin_clz(word);
    }
    return -1;
}

static uint32_t processor_priority(const struct lapic *lapic)
{
    int served = highest(lapic->isr);
    uint32_t class = served < 0 ? 0 : (uint32_t)served & 0xf0;
    return (lapic->tpr & 0xf0) >= class ? lapic->tpr & 0xff : class;
}

/* Something changed that may let a waiting interrupt through. */
static void reconsider(struct lapic *lapic)
{
    if (highest_irr(lapic) >= 0)
        lapic->host->signal(lapic->opaque, lapic->index, LAPIC_SIGNAL_INTR, 0);
}

/* Guests may give LAPICs other IDs than their indexes, or the same to several. */
static void set_xapic_id(struct lapic *lapic, uint32_t id)
{
    struct lapic *first = lapic->host->peer(lapic->opaque, 0);
    lapic->id = id;
    if (first && id >> 24 != lapic->index)
        atomic_store_explicit(&first->ids_moved, true, memory_order_release);
}

int lapic_pending(struct lapic *lapic)
{
    if (!(atomic_load_explicit(&lapic->base, memory_order_relaxed) & APIC_BASE_ENABLE))
        return -1;
    int vector = highest_irr(lapic);
    if (vector < 0 || ((uint32_t)vector & 0xf0) <= (processor_priority(lapic) & 0xf0))
        return -1;
    return vector;
}

void lapic_ack(struct lapic *lapic, int vector)
{
    uint32_t bit = 1u << (vector & 31);
    atomic_fetch_and_explicit(&lapic->irr[vector >> 5 & 7], ~bit, memory_order_acq_rel);
    lapic->isr[vector >> 5 & 7] |= bit;
}

static void end_of_interrupt(struct lapic *lapic)
{
    int vector = highest(lapic->isr);
    if (vector < 0)
        return;
    uint32_t bit = 1u << (vector & 31);
    lapic->isr[vector >> 5] &= ~bit;
    bool level = atomic_load_explicit(&lapic->tmr[vector >> 5], memory_order_relaxed) & bit;
    lapic->host->eoi(lapic->opaque, (uint8_t)vector, level);
    reconsider(lapic);
}

bool lapic_extint_open(struct lapic *lapic)
{
    if (!(atomic_load_explicit(&lapic->base, memory_order_relaxed) & APIC_BASE_ENABLE))
        return lapic->index == 0;
    uint32_t lvt = atomic_load_explicit(&lapic->lvt[LVT_LINT0], memory_order_relaxed);
    return !(lvt & LVT_MASKED) && (lvt >> 8 & 7) == LAPIC_EXTINT;
}

uint8_t lapic_cr8(const struct lapic *lapic)
{
    return lapic->tpr >> 4 & 0xf;
}

static void set_tpr(struct lapic *lapic, uint32_t value)
{
    uint32_t before = lapic->tpr;
    lapic->tpr = value & 0xff;
    if (lapic->tpr < before)
        reconsider(lapic);
}

void lapic_set_cr8(struct lapic *lapic, uint8_t value)
{
    set_tpr(lapic, (uint32_t)(value & 0xf) << 4);
}

static uint32_t x2_ldr(unsigned index)
{
    return (index >> 4) << 16 | 1u << (index & 15);
}

/* ---- registers ---- */

uint32_t lapic_read(struct lapic *lapic, uint32_t offset)
{
    unsigned word = offset >> 4 & 7;
    switch (offset & ~0xfu) {
    case LAPIC_ID:
        return lapic->id;
    case LAPIC_VERSION:
        return VERSION;
    case LAPIC_TPR:
        return lapic->tpr;
    case LAPIC_PPR:
        return processor_priority(lapic);
    case LAPIC_LDR:
        return lapic->ldr;
    case LAPIC_DFR:
        return lapic->dfr;
    case LAPIC_SVR:
        return lapic->svr;
    case LAPIC_ISR ... LAPIC_ISR + 0x70:
        return lapic->isr[word];
    case LAPIC_TMR ... LAPIC_TMR + 0x70:
        return lapic->tmr[word];
    case LAPIC_IRR ... LAPIC_IRR + 0x70:
        return lapic->irr[word];
    case LAPIC_ESR:
        return lapic->esr;
    case LAPIC_ICR:
        return lapic->icr;
    case LAPIC_ICR_HIGH:
        return lapic->icr_high;
    case LAPIC_LVT_TIMER ... LAPIC_LVT_ERROR:
        return lapic->lvt[(offset - LAPIC_LVT_TIMER) >> 4];
    case LAPIC_TIMER_INITIAL:
        return lapic->timer.initial;
    case LAPIC_TIMER_CURRENT:
        return lapic_timer_current(lapic);
    case LAPIC_TIMER_DIVIDE:
        return lapic->timer.divide;
    case LAPIC_EOI:
    case LAPIC_APR:
        return 0;
    default:
        lapic_error(lapic, ESR_ILLEGAL_REGISTER);
        return 0;
    }
}

static void write_lvt(struct lapic *lapic, unsigned entry, uint32_t value)
{
    value &= lvt_mask[entry];
    if (!(lapic->svr & SVR_ENABLE))
        value |= LVT_MASKED;
    if (entry == LVT_TIMER) {
        lapic_timer_lvt(lapic, value);
        return;
    }
    lapic->lvt[entry] = value;
    if (entry == LVT_LINT0)
        lapic->host->signal(lapic->opaque, lapic->index, LAPIC_SIGNAL_EXTINT, 0);
}

static void write_svr(struct lapic *lapic, uint32_t value)
{
    lapic->svr = value & 0x1ff;
    if (value & SVR_ENABLE) {
        reconsider(lapic);
        return;
    }
    for (unsigned i = 0; i < LVT_COUNT; i++)
        lapic->lvt[i] |= LVT_MASKED;
}

void lapic_write(struct lapic *lapic, uint32_t offset, uint32_t value)
{
    switch (offset & ~0xfu) {
    case LAPIC_ID:
        if (!lapic_x2(lapic))
            set_xapic_id(lapic, value & 0xff000000);
        break;
    case LAPIC_TPR:
        set_tpr(lapic, value);
        break;
    case LAPIC_EOI:
        end_of_interrupt(lapic);
        break;
    case LAPIC_LDR:
        if (!lapic_x2(lapic))
            lapic->ldr = value & 0xff000000;
        break;
    case LAPIC_DFR:
        if (!lapic_x2(lapic))
            lapic->dfr = value | 0x0fffffff;
        break;
    case LAPIC_SVR:
        write_svr(lapic, value);
        break;
    case LAPIC_ESR:
        lapic->esr = atomic_exchange(&lapic->esr_raised, 0);
        break;
    case LAPIC_ICR:
        lapic->icr = value & 0xccfff; /* delivery is done at once: never pending */
        lapic_send_icr(lapic);
        break;
    case LAPIC_ICR_HIGH:
        lapic->icr_high = lapic_x2(lapic) ? value : value & 0xff000000;
        break;
    case LAPIC_LVT_TIMER ... LAPIC_LVT_ERROR:
        write_lvt(lapic, (offset - LAPIC_LVT_TIMER) >> 4, value);
        break;
    case LAPIC_TIMER_INITIAL:
        lapic_timer_set_initial(lapic, value);
        break;
    case LAPIC_TIMER_DIVIDE:
        lapic_timer_set_divide(lapic, value);
        break;
    case LAPIC_VERSION:
    case LAPIC_APR:
    case LAPIC_PPR:
    case LAPIC_ISR ... LAPIC_ISR + 0x70:
    case LAPIC_TMR ... LAPIC_TMR + 0x70:
    case LAPIC_IRR ... LAPIC_IRR + 0x70:
    case LAPIC_TIMER_CURRENT:
        break;
    default:
        lapic_error(lapic, ESR_ILLEGAL_REGISTER);
    }
}

/* ---- x2APIC ---- */

enum { X2_READ = 1, X2_WRITE = 2, X2_RW = 3 };

/* What RDMSR and WRMSR may do in x2APIC mode (SDM table 11-6), and the bits that may be written. */
static unsigned x2_rights(uint32_t offset, uint64_t *mask)
{
    *mask = 0;
    switch (offset) {
    case LAPIC_ID:
    case LAPIC_VERSION:
    case LAPIC_PPR:
    case LAPIC_LDR:
    case LAPIC_ISR ... LAPIC_ISR + 0x70:
    case LAPIC_TMR ... LAPIC_TMR + 0x70:
    case LAPIC_IRR ... LAPIC_IRR + 0x70:
    case LAPIC_TIMER_CURRENT:
        return X2_READ;
    case LAPIC_TPR:
        *mask = 0xff;
        return X2_RW;
    case LAPIC_EOI:
        return X2_WRITE; /* zero only */
    case LAPIC_SVR:
        *mask = 0x3ff; /* bit 9: focus checking, ignored */
        return X2_RW;
    case LAPIC_ESR:
        return X2_RW;
    case LAPIC_ICR:
        *mask = 0xffffffff000ccfffull | 0x1000; /* Linux may write back the old status bit */
        return X2_RW;
    case LAPIC_LVT_TIMER ... LAPIC_LVT_ERROR:
        *mask = lvt_mask[(offset - LAPIC_LVT_TIMER) >> 4] | 0x1000;
        if (offset == LAPIC_LVT_LINT0 || offset == LAPIC_LVT_LINT1)
            *mask |= 0x4000;
        return X2_RW;
    case LAPIC_TIMER_INITIAL:
        *mask = 0xffffffff;
        return X2_RW;
    case LAPIC_TIMER_DIVIDE:
        *mask = 0xb;
        return X2_RW;
    case LAPIC_SELF_IPI:
        *mask = 0xff;
        return X2_WRITE;
    default:
        return 0;
    }
}

bool lapic_msr_read(struct lapic *lapic, uint32_t msr, uint64_t *value)
{
    uint64_t mask;
    uint32_t offset = (msr - 0x800) << 4;
    if (!lapic_x2(lapic) || !(x2_rights(offset, &mask) & X2_READ))
        return false;
    *value = lapic_read(lapic, offset);
    if (offset == LAPIC_ICR)
        *value |= (uint64_t)lapic->icr_high << 32;
    return true;
}

bool lapic_msr_write(struct lapic *lapic, uint32_t msr, uint64_t value)
{
    uint64_t mask;
    uint32_t offset = (msr - 0x800) << 4;
    if (!lapic_x2(lapic) || !(x2_rights(offset, &mask) & X2_WRITE) || value & ~mask)
        return false;
    if (offset == LAPIC_SELF_IPI) {
        lapic_accept(lapic, LAPIC_FIXED, (uint8_t)value, false);
        return true;
    }
    if (offset == LAPIC_ICR)
        lapic->icr_high = (uint32_t)(value >> 32);
    lapic_write(lapic, offset, (uint32_t)value);
    return true;
}

/* ---- mode and base ---- */

uint64_t lapic_apic_base(const struct lapic *lapic)
{
    return lapic->base;
}

uint64_t lapic_base(const struct lapic *lapic)
{
    uint64_t base = atomic_load_explicit(&lapic->base, memory_order_relaxed);
    if ((base & (APIC_BASE_X2 | APIC_BASE_ENABLE)) != APIC_BASE_ENABLE)
        return UINT64_MAX;
    return base & ~0xfffull;
}

static void reset_registers(struct lapic *lapic)
{
    for (unsigned i = 0; i < 8; i++) {
        lapic->irr[i] = lapic->tmr[i] = 0;
        lapic->isr[i] = 0;
    }
    lapic->tpr = lapic->esr = lapic->icr = lapic->icr_high = 0;
    lapic->esr_raised = 0;
    lapic->dfr = 0xffffffff;
    lapic->ldr = lapic_x2(lapic) ? x2_ldr(lapic->index) : 0;
    lapic->svr = 0xff;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        lapic->lvt[i] = LVT_MASKED;
    lapic_timer_reset(lapic);
}

static void set_id(struct lapic *lapic)
{
    lapic->id = lapic_x2(lapic) ? lapic->index : lapic->index << 24;
}

bool lapic_set_apic_base(struct lapic *lapic, uint64_t value, uint64_t phys_mask)
{
    const uint64_t modes = APIC_BASE_X2 | APIC_BASE_ENABLE;
    uint64_t from = lapic->base & modes, to = value & modes;
    if (value & ~((phys_mask & ~0xfffull) | modes | APIC_BASE_BSP))
        return false;
    /* SDM figure 11-27: x2APIC is entered from xAPIC and left through "disabled" only. */
    if (to == APIC_BASE_X2 || (from == modes && to == APIC_BASE_ENABLE) || (!from && to == modes))
        return false;
    lapic->base = (value & ~APIC_BASE_BSP) | (lapic->index ? 0 : APIC_BASE_BSP);
    if (from == to)
        return true;
    set_id(lapic);
    if (!to)
        reset_registers(lapic);
    else
        lapic->ldr = to == modes ? x2_ldr(lapic->index) : 0;
    reconsider(lapic);
    return true;
}

void lapic_reset(struct lapic *lapic, bool init)
{
    if (!init) {
        lapic->base = DEFAULT_BASE | APIC_BASE_ENABLE | (lapic->index ? 0 : APIC_BASE_BSP);
        set_id(lapic);
    }
    reset_registers(lapic);
    /* As firmware leaves the BSP, see x86_state_reset(). */
    if (!init && lapic->index == 0)
        lapic->lvt[LVT_LINT0] = LAPIC_EXTINT << 8;
}

struct lapic *lapic_create(const struct lapic_host *host, void *opaque, unsigned index)
{
    struct lapic *lapic = xcalloc(1, sizeof(*lapic));
    lapic->host = host;
    lapic->opaque = opaque;
    lapic->index = index;
    lapic_timer_init(lapic);
    lapic_reset(lapic, false);
    return lapic;
}

void lapic_free(struct lapic *lapic)
{
    if (!lapic)
        return;
    lapic_timer_fini(lapic);
    free(lapic);
}

/* ---- state ---- */

void lapic_save(struct lapic *lapic, uint8_t page[1024], uint64_t *apic_base,
                uint64_t *tsc_deadline)
{
    memset(page, 0, 1024);
    for (uint32_t offset = LAPIC_ID; offset <= LAPIC_TIMER_DIVIDE; offset += 16) {
        uint64_t unused;
        if (x2_rights(offset, &unused) & X2_READ || offset == LAPIC_DFR || offset == LAPIC_ICR_HIGH)
            put_le32(page + offset, lapic_read(lapic, offset));
    }
    put_le32(page + LAPIC_ESR, lapic->esr | lapic->esr_raised);
    if (lapic_x2(lapic))
        put_le32(page + LAPIC_ID, lapic->index << 24); /* the page has one form in both modes */
    *apic_base = lapic->base;
    *tsc_deadline = lapic_tsc_deadline(lapic);
}

void lapic_restore(struct lapic *lapic, const uint8_t page[1024], uint64_t apic_base,
                   uint64_t tsc_deadline)
{
    lapic_timer_reset(lapic);
    lapic->base = (apic_base & ~APIC_BASE_BSP) | (lapic->index ? 0 : APIC_BASE_BSP);
    if (lapic_x2(lapic))
        set_id(lapic);
    else
        set_xapic_id(lapic, get_le32(page + LAPIC_ID) & 0xff000000);
    lapic->tpr = get_le32(page + LAPIC_TPR) & 0xff;
    lapic->ldr = lapic_x2(lapic) ? x2_ldr(lapic->index) : get_le32(page + LAPIC_LDR) & 0xff000000;
    lapic->dfr = get_le32(page + LAPIC_DFR) | 0x0fffffff;
    lapic->svr = get_le32(page + LAPIC_SVR) & 0x1ff;
    lapic->esr = get_le32(page + LAPIC_ESR) & 0xff;
    lapic->esr_raised = 0;
    lapic->icr = get_le32(page + LAPIC_ICR) & 0xccfff;
    lapic->icr_high = get_le32(page + LAPIC_ICR_HIGH);
    for (unsigned i = 0; i < 8; i++) {
        uint32_t usable = i ? 0xffffffff : 0xffff0000; /* vectors below 16 do not exist */
        lapic->isr[i] = get_le32(page + LAPIC_ISR + 16 * i) & usable;
        lapic->tmr[i] = get_le32(page + LAPIC_TMR + 16 * i) & usable;
        lapic->irr[i] = get_le32(page + LAPIC_IRR + 16 * i) & usable;
    }
    for (unsigned i = 0; i < LVT_COUNT; i++)
        lapic->lvt[i] = get_le32(page + LAPIC_LVT_TIMER + 16 * i) & lvt_mask[i];
    lapic_timer_restore(lapic, get_le32(page + LAPIC_TIMER_INITIAL),
                        get_le32(page + LAPIC_TIMER_DIVIDE), get_le32(page + LAPIC_TIMER_CURRENT),
                        tsc_deadline);
    reconsider(lapic);
}
