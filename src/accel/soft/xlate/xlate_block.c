/*
 * Translates one block: decodes it again, finds which flags are live where, emits it.
 *
 * The code has an entry for jumps with the flags in the host's register, one with the flags in the
 * frame (both look for events), and one for the interpreter, which looked already. Wherever an
 * instruction is left to the interpreter the code ends, and it begins again after it, at the op
 * that block.c put there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/fast.h"
#include "accel/soft/xlate/xlate_build.h"
#include "base/bitmap.h"

/* Instructions in a row that make entering translated code worth it, unless it ends in a jump. */
#define RUN_MIN 4

/* False when the bytes are no longer what the block was built from. */
static bool decode_ops(struct xlate_build *b, const uint8_t *page)
{
    const struct block *block = b->block;
    for (unsigned i = 0; i < block->op_count; i++) {
        const struct op *op = &block->ops[i];
        struct xlate_op *x = &b->ops[i];
        if (op->fn == op_fallthrough) {
            x->kind = XLATE_FALL;
            continue;
        }
        if (!op->len) {
            x->kind = XLATE_ENTRY;
            continue;
        }
        unsigned at = b->in_page + op->off;
        x->kind = XLATE_OTHER;
        x->use = (struct flag_use){FL_ARITH, 0, true};
        if (op->fn == op_generic_end) /* what does not decode is one of these */
            continue;
        if (at >= GUEST_PAGE_SIZE ||
            decode(page + at, GUEST_PAGE_SIZE - at, INSN_64, b->v->features, &x->insn) !=
                DECODE_OK ||
            x->insn.len != op->len)
            return false;
        if (!xlate_handles(&x->insn))
            continue;
        if (b->v->lockstep && !xlate_repeats(&x->insn))
            continue;
        if (x->insn.id == I_SIMD && !simd_native(b->v, &x->insn, &x->simd))
            continue;
        x->kind = XLATE_INSN;
        x->use = xlate_flag_use(&x->insn);
    }
    return true;
}

static uint32_t live_at(struct xlate_build *b, const uint8_t *page, int64_t target)
{
    return xlate_live_at(b->v, page, b->block->gpa, target);
}

/* Flags that are live on the way out of a direct jump. */
static uint32_t live_after_jump(struct xlate_build *b, const uint8_t *page, unsigned i)
{
    switch (b->ops[i].insn.id) {
    case I_JCC:
    case I_JMP:
    case I_CALL:
        return live_at(b, page, xlate_target(b, i));
    default:
        return FL_ARITH;
    }
}

static void liveness(struct xlate_build *b, const uint8_t *page)
{
    uint32_t live = FL_ARITH;
    for (unsigned i = b->block->op_count; i-- > 0;) {
        struct xlate_op *x = &b->ops[i];
        const struct op *op = &b->block->ops[i];
        if (x->kind == XLATE_INSN && (x->insn.id == I_JCC || x->insn.flags & INSN_F_END)) {
            x->live_taken = live_after_jump(b, page, i);
            live = x->live_taken | (x->insn.id == I_JCC ? live : 0);
        } else if (x->kind == XLATE_FALL) {
            live = op->a ? live_at(b, page, (int64_t)b->in_page + op->disp) : FL_ARITH;
            x->live_taken = live;
        }
        x->live_out = live;
        live = x->use.reads | (live & ~x->use.writes);
        if (x->kind == XLATE_OTHER)
            live = FL_ARITH;
        x->live_in = live;
    }
}

/* Is it worth to enter the code after op i? */
static bool worth(const struct xlate_build *b, unsigned i)
{
    unsigned run = 0;
    for (i++; i < b->block->op_count; i++) {
        const struct xlate_op *x = &b->ops[i];
        if (x->kind == XLATE_OTHER)
            return run >= RUN_MIN;
        if (x->kind == XLATE_FALL || x->insn.flags & INSN_F_END)
            return true;
        run += x->kind == XLATE_INSN;
    }
    return run >= RUN_MIN;
}

/* Do ops behind i use the flags that arrive? Else those may stay in the frame. */
static bool uses_flags(const struct xlate_build *b, unsigned i)
{
    uint32_t open = FL_ARITH;
    for (i++; i < b->block->op_count && b->ops[i].kind == XLATE_INSN; i++) {
        const struct xlate_op *x = &b->ops[i];
        uint32_t kept = x->use.touches ? x->live_out & ~x->use.writes : 0;
        if ((x->use.reads | kept) & open)
            return true;
        open &= ~x->use.writes;
    }
    return false;
}

/* Flags arrive in the frame; op i becomes the way in. */
static void entry(struct xlate_build *b, unsigned i)
{
    struct op *op = &b->block->ops[i];
    uint32_t live = b->ops[i].live_in;
    if (worth(b, i)) {
        op->imm = (intptr_t)emit_here(&b->e);
        op->a = live != 0;
        op->fn = xlate_op_native;
    } else {
        op->fn = fast_nop;
    }
    b->host_flags = false;
    b->simd = 0;
    if (live && uses_flags(b, i))
        xlate_need_flags(b);
}

static void first_entry(struct xlate_build *b)
{
    struct emitter *e = &b->e;
    struct block *block = b->block;
    const uint8_t *with_flags = emit_here(e);
    if (b->ops[0].live_in)
        emit_flags_save(e);
    block->code = emit_here(e);
    block->code_flags = with_flags - block->code;
    emit_load(e, HOST_T0, HOST_STACK, FRAME(vcpu));
    emit_rm(e, false, 0x83, 7, HOST_T0, offsetof(struct soft_vcpu, events)); /* cmp, 0 */
    emit1(e, 0);
    xlate_stub(b, emit_jcc(e, 5), 0, STUB_POLL);
    block->ahead = emit_here(e) - block->code;
    entry(b, 0);
    bool saves = b->ops[0].live_in && !b->host_flags;
    block->ahead_flags = saves ? block->code_flags : emit_here(e) - block->code;
}

static void emit_block(struct xlate_build *b)
{
    first_entry(b);
    for (unsigned i = 1; i < b->block->op_count; i++) {
        const struct xlate_op *x = &b->ops[i];
        const struct op *op = &b->block->ops[i];
        switch (x->kind) {
        case XLATE_ENTRY:
            entry(b, i);
            break;
        case XLATE_INSN:
            xlate_insn(b, i);
            break;
        case XLATE_FALL:
            xlate_goto(b, i, (int64_t)b->in_page + op->disp, op->a);
            break;
        case XLATE_OTHER:
            xlate_spill_flags(b, FL_ARITH);
            /* One after another in the interpreter, until the next entry. */
            if (b->ops[i - 1].kind != XLATE_OTHER)
                xlate_leave(b, i);
            break;
        }
    }
    xlate_stubs(b);
}

/* The stack's sites serve all code. */
static void only_stack_sites(struct xlate_build *b)
{
    for (unsigned i = 0; i < b->block->op_count; i++)
        if (b->ops[i].want.base != X86_RSP && !bitmap_test(b->hints.sited, i))
            bitmap_set(b->hints.hashed, i);
}

bool xlate_block(struct soft_vcpu *v, struct block *block)
{
    struct xlate *xlate = v->code->xlate;
    uint64_t gpa;
    v->rip = v->r[R_BLOCK];
    const uint8_t *host = soft_fetch_ptr(v, v->rip, &gpa);
    if (!host || gpa != block->gpa || block->op_count < 2 || block->ops[0].fn != xlate_op_hot)
        return false;
    struct xlate_build b;
    b.v = v;
    b.xlate = xlate;
    b.block = block;
    b.in_page = gpa & 0xfff;
    b.stub_count = b.site_count = b.local_count = 0;
    b.hints = block->hints ? *block->hints : (struct block_hints){0};
    memset(b.groups, 0, sizeof(b.groups));
    memset(b.ops, 0, block->op_count * sizeof(b.ops[0]));
    const uint8_t *page = host - b.in_page;
    if (!decode_ops(&b, page))
        return false;
    liveness(&b, page);
    xlate_plan_memory(&b);
    if (block->dead)
        return false;
    /* A kernel is more places than there are sites, each run seldom; so is a large program. */
    bool few = v->cpl == 3 && xlate->sited < SITE_COUNT / 4;
    if (!few)
        only_stack_sites(&b);
    b.e.at = xlate->write + xlate->used;
    b.e.to_exec = xlate->exec - xlate->write;
    emit_block(&b);
    xlate->used = ALIGN_UP((size_t)(b.e.at - xlate->write), 16);
    if (few)
        xlate->sited += b.site_count;
    return true;
}
