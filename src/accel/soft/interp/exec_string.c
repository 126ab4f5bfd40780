/*
 * String instructions (Intel SDM vol. 2). A repeated MOVS, and a STOS that moves upward, run in
 * pieces of a page through host memory; everything else goes element by element. A repetition gives
 * way to events between pieces: it leaves with next_rip on itself and its registers advanced.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/exec_all.h"

#include "accel/soft/interp/alu.h"
#include "accel/soft/interp/operand.h"
#include "accel/soft/mem/tlb.h"
#include "accel/soft/run.h"
#include "accel/soft/system/segment.h"

/* Elements that one visit may take before it lets events in. */
#define VISIT 65536
#define VISIT_SLOW 4096

/* Single steps and breakpoints trap behind each element (SDM vol. 3, 17.3.1.4). */
static uint64_t visit_of(const struct soft_vcpu *v, uint64_t most)
{
    return soft_wants_step(v) ? 1 : most;
}

static uint64_t count_of(const struct soft_vcpu *v, const struct insn *insn)
{
    return insn->rep ? zero_extend(v->r[X86_RCX], insn->addrsize) : 1;
}

static void set_count(struct soft_vcpu *v, const struct insn *insn, uint64_t count)
{
    if (insn->rep)
        put_reg(v, insn, X86_RCX, insn->addrsize, count);
}

static int64_t step_of(const struct soft_vcpu *v, const struct insn *insn)
{
    return v->rflags & FL_DF ? -(int64_t)insn->opsize : insn->opsize;
}

static void advance(struct soft_vcpu *v, const struct insn *insn, unsigned reg, int64_t by)
{
    put_reg(v, insn, reg, insn->addrsize, v->r[reg] + by);
}

static uint64_t source(struct soft_vcpu *v, const struct insn *insn)
{
    return soft_seg_linear(v, insn->seg, zero_extend(v->r[X86_RSI], insn->addrsize), insn->opsize,
                           ACC_READ);
}

static uint64_t target(struct soft_vcpu *v, const struct insn *insn, enum soft_access access)
{
    return soft_seg_linear(v, X86_ES, zero_extend(v->r[X86_RDI], insn->addrsize), insn->opsize,
                           access);
}

/* Not finished: come back to this instruction after events. */
static void again(struct soft_vcpu *v, const struct insn *insn, uint64_t left)
{
    if (insn->rep && left)
        v->next_rip = v->rip;
}

/* Elements from `linear` on that lie in its page whole; 0 when the first does not. */
static uint64_t in_page(uint64_t linear, unsigned n, bool down)
{
    uint64_t up = (GUEST_PAGE_SIZE - (linear & 0xfff)) / n;
    return !up || !down ? up : (linear & 0xfff) / n + 1;
}

/* The same for those whose offsets, from `reg` on, neither wrap nor leave the segment. */
static uint64_t in_segment(const struct soft_vcpu *v, const struct insn *insn, unsigned seg,
                           unsigned reg, bool down)
{
    unsigned n = insn->opsize;
    uint64_t offset = zero_extend(v->r[reg], insn->addrsize);
    const struct x86_segment *s = &v->seg[seg];
    uint64_t top = insn->addrsize == 2 ? 0xffff : 0xffffffff;
    if (insn->addrsize == 8)
        return down ? offset / n + 1 : UINT64_MAX;
    if (v->mode != INSN_64) {
        if (!(s->attr & SEG_CODE) && s->attr & SEG_DOWN)
            return 0; /* as seldom as that, nobody waits for it */
        top = MIN(top, s->limit);
    }
    if (offset > top)
        return 0;
    return down ? offset / n + 1 : (top - offset + 1) / n;
}

static uint8_t *read_host(struct soft_vcpu *v, uint64_t linear)
{
    struct soft_tlbe *e = &v->space->read[tlb_index(linear)];
    if (unlikely((linear ^ e->tag) > 0xfff)) {
        soft_probe(v, linear, 1, ACC_READ);
        if ((linear ^ e->tag) > 0xfff)
            return NULL;
    }
    return (uint8_t *)(uintptr_t)(linear + e->addend);
}

/* One piece of REP MOVS within a source and a target page; elements done. */
static uint64_t movs_piece(struct soft_vcpu *v, const struct insn *insn, uint64_t count)
{
    unsigned n = insn->opsize;
    bool down = v->rflags & FL_DF;
    uint64_t from = source(v, insn), to = target(v, insn, ACC_WRITE);
    uint64_t pages = MIN(in_page(from, n, down), in_page(to, n, down));
    uint64_t segments = MIN(in_segment(v, insn, insn->seg, X86_RSI, down),
                            in_segment(v, insn, X86_ES, X86_RDI, down));
    uint64_t piece = MIN(count, MIN(pages, segments));
    if (!piece)
        return 0;
    uint8_t *src = read_host(v, from);
    uint8_t *dst = soft_write_ptr(v, to, 1);
    if (!src || !dst)
        return 0;
    size_t bytes = piece * n;
    if (down) {
        src -= bytes - n;
        dst -= bytes - n;
    }
    /* Where the target is ahead of the source, what was copied is copied again: by elements. */
    bool chases = down ? dst < src && src < dst + bytes : dst > src && dst < src + bytes;
    for (uint64_t i = 0; chases && i < piece; i++) {
        size_t at = (down ? piece - 1 - i : i) * n;
        host_store((uintptr_t)dst + at, n, host_load((uintptr_t)src + at, n));
    }
    if (!chases)
        memmove(dst, src, bytes);
    advance(v, insn, X86_RSI, down ? -(int64_t)bytes : (int64_t)bytes);
    advance(v, insn, X86_RDI, down ? -(int64_t)bytes : (int64_t)bytes);
    return piece;
}

static uint64_t stos_piece(struct soft_vcpu *v, const struct insn *insn, uint64_t count)
{
    unsigned n = insn->opsize;
    if (v->rflags & FL_DF)
        return 0;
    uint64_t to = target(v, insn, ACC_WRITE);
    uint64_t room = in_segment(v, insn, X86_ES, X86_RDI, false);
    uint64_t piece = MIN(count, MIN(in_page(to, n, false), room));
    uint8_t *dst = piece ? soft_write_ptr(v, to, 1) : NULL;
    if (!dst)
        return 0;
    uint64_t value = v->r[X86_RAX];
    if (n == 1 || !zero_extend(value, n)) {
        memset(dst, (uint8_t)value, piece * n);
    } else {
        for (uint64_t i = 0; i < piece; i++)
            host_store((uintptr_t)dst + i * n, n, value);
    }
    advance(v, insn, X86_RDI, (int64_t)(piece * n));
    return piece;
}

/* A visit of MOVS or STOS: pieces where they can be had, else elements. */
static void visit_elements(struct soft_vcpu *v, const struct insn *insn,
                           uint64_t (*piece_of)(struct soft_vcpu *v, const struct insn *insn,
                                                uint64_t count),
                           void (*element)(struct soft_vcpu *v, const struct insn *insn))
{
    uint64_t count = count_of(v, insn), visit = 0, most = visit_of(v, VISIT);
    bool fast = most > 1 && insn->rep;
    while (count && visit < most) {
        uint64_t piece = fast ? piece_of(v, insn, count) : 0;
        if (!piece) {
            element(v, insn);
            piece = 1;
        }
        count -= piece;
        visit += piece;
        set_count(v, insn, count);
        if (unlikely(atomic_load_explicit(&v->events, memory_order_relaxed)))
            break;
    }
    again(v, insn, count);
}

static void movs_element(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t value = soft_load(v, source(v, insn), insn->opsize);
    soft_store(v, target(v, insn, ACC_WRITE), insn->opsize, value);
    advance(v, insn, X86_RSI, step_of(v, insn));
    advance(v, insn, X86_RDI, step_of(v, insn));
}

void exec_movs(struct soft_vcpu *v, const struct insn *insn)
{
    visit_elements(v, insn, movs_piece, movs_element);
}

static void stos_element(struct soft_vcpu *v, const struct insn *insn)
{
    soft_store(v, target(v, insn, ACC_WRITE), insn->opsize, v->r[X86_RAX]);
    advance(v, insn, X86_RDI, step_of(v, insn));
}

void exec_stos(struct soft_vcpu *v, const struct insn *insn)
{
    visit_elements(v, insn, stos_piece, stos_element);
}

void exec_lods(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t count = count_of(v, insn), most = visit_of(v, VISIT_SLOW);
    int64_t step = step_of(v, insn);
    for (uint64_t visit = 0; count && visit < most; visit++) {
        put_reg(v, insn, X86_RAX, insn->opsize, soft_load(v, source(v, insn), insn->opsize));
        advance(v, insn, X86_RSI, step);
        set_count(v, insn, --count);
    }
    again(v, insn, count);
}

/* REPE goes on while equal, REPNE while not. Flags change with the last comparison only: after a
   fault before that the program sees those from before the instruction (SDM vol. 2, REP). */
static bool goes_on(const struct insn *insn, bool equal)
{
    return insn->rep == INSN_REP ? equal : !equal;
}

void exec_scas(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    uint64_t count = count_of(v, insn), most = visit_of(v, VISIT_SLOW),
             a = zero_extend(v->r[X86_RAX], n);
    uint64_t b = 0;
    int64_t step = step_of(v, insn);
    bool last = !count;
    for (uint64_t visit = 0; !last && visit < most; visit++) {
        b = soft_load(v, target(v, insn, ACC_READ), n);
        advance(v, insn, X86_RDI, step);
        set_count(v, insn, --count);
        last = !count || !goes_on(insn, a == b);
        if (last)
            alu_sub(v, a, b, n);
    }
    if (!last)
        again(v, insn, count);
}

void exec_cmps(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    uint64_t count = count_of(v, insn), most = visit_of(v, VISIT_SLOW);
    int64_t step = step_of(v, insn);
    bool last = !count;
    for (uint64_t visit = 0; !last && visit < most; visit++) {
        uint64_t a = soft_load(v, source(v, insn), n);
        uint64_t b = soft_load(v, target(v, insn, ACC_READ), n);
        advance(v, insn, X86_RSI, step);
        advance(v, insn, X86_RDI, step);
        set_count(v, insn, --count);
        last = !count || !goes_on(insn, a == b);
        if (last)
            alu_sub(v, a, b, n);
    }
    if (!last)
        again(v, insn, count);
}

void exec_ins(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize > 4 ? 4 : insn->opsize;
    uint16_t port = v->r[X86_RDX];
    uint64_t count = count_of(v, insn), most = visit_of(v, VISIT_SLOW);
    int64_t step = v->rflags & FL_DF ? -(int64_t)n : n;
    soft_io_allowed(v, port, n);
    for (uint64_t visit = 0; count && visit < most; visit++) {
        uint64_t to = target(v, insn, ACC_WRITE);
        soft_probe(v, to, n, ACC_WRITE); /* a fault after the read would lose what the port gave */
        v->stats.pio++;
        soft_mxcsr_leave(v);
        soft_store(v, to, n, v->vm->io->pio_read(v->vm->opaque, port, n));
        advance(v, insn, X86_RDI, step);
        set_count(v, insn, --count);
    }
    again(v, insn, count);
}

void exec_outs(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize > 4 ? 4 : insn->opsize;
    uint16_t port = v->r[X86_RDX];
    uint64_t count = count_of(v, insn), most = visit_of(v, VISIT_SLOW);
    int64_t step = v->rflags & FL_DF ? -(int64_t)n : n;
    soft_io_allowed(v, port, n);
    for (uint64_t visit = 0; count && visit < most; visit++) {
        uint32_t value = soft_load(v, source(v, insn), n);
        v->stats.pio++;
        soft_mxcsr_leave(v);
        v->vm->io->pio_write(v->vm->opaque, port, n, value);
        advance(v, insn, X86_RSI, step);
        set_count(v, insn, --count);
    }
    again(v, insn, count);
}
