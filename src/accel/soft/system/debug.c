/*
 * Debug registers (Intel SDM vol. 3, chapter 18): instruction and data breakpoints, single steps,
 * and what MOV SS does to them.
 *
 * While TF is set, DR7 has a breakpoint on or accesses must be aligned (#AC), instructions run one
 * at a time through soft_step(). A page with a data breakpoint gets no TLB entry, so every access
 * to it takes the slow path of mem.c, which asks soft_watch(). The vCPU's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/run.h"

#define DR6_HITS 0xfull
#define DR7_ENABLED 0xffu
#define DR7_GD (1ull << 13)

enum { BREAK_EXEC, BREAK_WRITE, BREAK_IO, BREAK_DATA };

static bool enabled(const struct soft_vcpu *v, unsigned i)
{
    return v->dr[7] >> (2 * i) & 3;
}

static unsigned kind_of(const struct soft_vcpu *v, unsigned i)
{
    return v->dr[7] >> (16 + 4 * i) & 3;
}

static unsigned length_of(const struct soft_vcpu *v, unsigned i)
{
    static const uint8_t lengths[] = {1, 2, 8, 4};
    return lengths[v->dr[7] >> (18 + 4 * i) & 3];
}

static bool overlaps(const struct soft_vcpu *v, unsigned i, uint64_t at, uint64_t len)
{
    unsigned length = length_of(v, i);
    uint64_t base = v->dr[i] & ~(uint64_t)(length - 1);
    return base - at < len || at - base < length;
}

/* Does the breakpoint look at data (of memory)? */
static bool is_data(const struct soft_vcpu *v, unsigned i)
{
    unsigned kind = kind_of(v, i);
    return enabled(v, i) && (kind == BREAK_WRITE || kind == BREAK_DATA);
}

void soft_debug_changed(struct soft_vcpu *v)
{
    bool watching = soft_debugger_watches(v);
    for (unsigned i = 0; i < 4; i++)
        watching |= is_data(v, i);
    if (watching || v->watching)
        soft_tlb_flush(v);
    v->watching = watching;
}

bool soft_watched_page(const struct soft_vcpu *v, uint64_t linear)
{
    for (unsigned i = 0; i < 4; i++)
        if (is_data(v, i) && overlaps(v, i, linear & ~0xfffull, GUEST_PAGE_SIZE))
            return true;
    return soft_debugger_watched_page(v, linear);
}

void soft_watch(struct soft_vcpu *v, uint64_t linear, unsigned len, enum soft_access access)
{
    for (unsigned i = 0; i < 4; i++)
        if (is_data(v, i) && (access == ACC_WRITE || kind_of(v, i) == BREAK_DATA) &&
            overlaps(v, i, linear, len))
            v->debug_pending |= 1u << i;
    soft_debugger_watch(v, linear, len, access);
}

void soft_watch_port(struct soft_vcpu *v, uint16_t port, unsigned len)
{
    for (unsigned i = 0; i < 4; i++)
        if (enabled(v, i) && kind_of(v, i) == BREAK_IO && v->cr4 & CR4_DE &&
            overlaps(v, i, port, len))
            v->debug_pending |= 1u << i;
}

/* Enabled instruction breakpoints at v->rip: their bits for DR6. */
static uint64_t breakpoints_here(const struct soft_vcpu *v)
{
    uint64_t hits = 0, linear = v->rip + (v->mode == INSN_64 ? 0 : v->seg[X86_CS].base);
    for (unsigned i = 0; i < 4; i++)
        if (enabled(v, i) && kind_of(v, i) == BREAK_EXEC && v->dr[i] == linear)
            hits |= 1u << i;
    return hits;
}

/* The hit bits say what matched this time; the others stay until software clears them. */
static void record(struct soft_vcpu *v, uint64_t why)
{
    v->dr[6] = (v->dr[6] & ~DR6_HITS) | why;
}

static void __attribute__((noreturn)) raise(struct soft_vcpu *v, uint64_t why)
{
    record(v, why);
    v->debug_pending = 0;
    v->activity = X86_ACTIVE; /* HLT under TF */
    soft_raise(v, VEC_DB, 0);
}

void soft_debug_delivered(struct soft_vcpu *v)
{
    /* INT1 after a MOV SS with a hit: one exception for both. */
    if (v->debug_pending)
        record(v, v->debug_pending);
    v->debug_pending = 0;
    v->dr[7] &= ~DR7_GD;
}

bool soft_wants_step(const struct soft_vcpu *v)
{
    return v->rflags & FL_TF || v->dr[7] & DR7_ENABLED || v->debug_pending ||
           soft_aligned_only(v) || soft_debugger_steps(v);
}

/* INT n and its like go to a handler with TF clear. SYSCALL and SYSRET look at TF at their end. */
static bool traps(const struct soft_vcpu *v, const struct insn *insn, bool before)
{
    switch (insn->id) {
    case I_INT:
    case I_INT1:
    case I_INT3:
    case I_INTO:
        return before && v->rip == v->r[R_BLOCK] + insn->len; /* INTO that did nothing */
    case I_SYSCALL:
    case I_SYSRET:
        return v->rflags & FL_TF;
    default:
        return before;
    }
}

void soft_step(struct soft_vcpu *v, bool after_mov_ss)
{
    struct insn insn;
    bool trap = v->rflags & FL_TF;
    if (soft_debugger_steps(v))
        soft_debugger_before(v);
    if (!after_mov_ss) {
        if (v->debug_pending)
            raise(v, v->debug_pending);
        uint64_t hits = v->rflags & FL_RF ? 0 : breakpoints_here(v);
        if (hits)
            raise(v, hits);
    }
    soft_fetch_insn(v, &insn);
    v->next_rip = v->rip + insn.len;
    v->stack_access = false;
    if (insn.flags & INSN_F_PRIV && v->cpl != 0)
        soft_gp(v, 0);
    v->rflags &= ~FL_RF;
    v->r[R_BLOCK] = v->rip;
    soft_exec[insn.id](v, &insn);
    v->icount++;
    v->rip = v->next_rip;
    if (v->shadow !=
        SHADOW_SS) { /* a hit waits for the next instruction, the single step is lost */
        uint64_t why = v->debug_pending;
        if (traps(v, &insn, trap))
            why |= DR6_BS;
        if (why)
            raise(v, why);
    }
    if (soft_debugger_steps(v))
        soft_debugger_after(v);
}
