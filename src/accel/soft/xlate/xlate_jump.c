/*
 * Translates jumps, calls and returns, and what stands behind a block: the ways out of it.
 *
 * A jump within the page is a host jump, which xlate.c binds to its target once that is translated.
 * Any other looks its target up in the jump cache; when the cache does not have it the interpreter
 * does the jump, so the look-up comes before any effect.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/mem/tlb.h"
#include "accel/soft/xlate/xlate_build.h"

void xlate_leave(struct xlate_build *b, unsigned i)
{
    emit_mov_imm64(&b->e, HOST_T0, (uintptr_t)&b->block->ops[i]);
    emit_mov_imm32(&b->e, HOST_T1, b->in_page);
    emit_jmp_to(&b->e, b->xlate->leave);
}

/* T0 is lost; flags stay. */
static void count(struct xlate_build *b, unsigned i)
{
    if (!b->host_flags) {                                         /* nothing in them */
        emit_rm(&b->e, true, 0x83, 0, HOST_STACK, FRAME(icount)); /* add, imm8 */
        emit1(&b->e, b->block->ops[i].n);
        return;
    }
    emit_load(&b->e, HOST_T0, HOST_STACK, FRAME(icount));
    emit_lea(&b->e, HOST_T0, HOST_T0, b->block->ops[i].n);
    emit_store(&b->e, HOST_STACK, FRAME(icount), HOST_T0);
}

_Static_assert(sizeof(struct soft_jc) == 16, "index arithmetic below");
#define JC_AT ((int32_t)offsetof(struct soft_space, jc) - XLATE_FRAME_AT)

/* T1 = jump-cache slot of the address in T0, moved by -JC_AT; a miss leaves at op i. */
static void look_up(struct xlate_build *b, unsigned i)
{
    struct emitter *e = &b->e;
    emit_mov(e, HOST_T1, HOST_T0);
    emit_shift_imm(e, true, 5, HOST_T1, 12);
    emit_rr(e, true, 0x31, HOST_T0, HOST_T1); /* xor */
    emit_alu_imm(e, false, 4, HOST_T1, JC_SIZE - 1);
    emit_shift_imm(e, false, 4, HOST_T1, 4);
    emit_rr(e, true, 0x01, HOST_STACK, HOST_T1);     /* add T1, rsp */
    emit_rm(e, true, 0x3b, HOST_T0, HOST_T1, JC_AT); /* cmp */
    xlate_stub(b, emit_jcc(e, 5), i, STUB_LEAVE);
}

static void load_block(struct xlate_build *b)
{
    emit_load(&b->e, HOST_T1, HOST_T1, JC_AT + (int32_t)offsetof(struct soft_jc, block));
}

/* T0 = linear address of the jump's target, T1 = its block. The slot is known if the code stays
   where it is; where another process has it elsewhere, it is looked up. */
static void look_up_direct(struct xlate_build *b, unsigned i, int64_t target)
{
    struct emitter *e = &b->e;
    uint64_t linear = (b->v->r[R_BLOCK] & ~0xfffull) + (uint64_t)target;
    int32_t slot = JC_AT + (int32_t)(jc_index(linear) * sizeof(struct soft_jc));
    emit_load(e, HOST_T0, HOST_STACK, FRAME(page));
    emit_lea(e, HOST_T0, HOST_T0, target);
    emit_rm(e, true, 0x3b, HOST_T0, HOST_STACK, slot); /* cmp */
    uint8_t *other = emit_jcc(e, 5);
    emit_load(e, HOST_T1, HOST_STACK, slot + (int32_t)offsetof(struct soft_jc, block));
    xlate_stub(b, other, i, STUB_LOOK_UP);
    b->stubs[b->stub_count - 1].retry = emit_here(e);
}

/* Enters block T1 at linear address T0. */
static void enter_block(struct xlate_build *b, unsigned i)
{
    struct emitter *e = &b->e;
    emit_alu_imm(e, true, 4, HOST_T0, -(int32_t)GUEST_PAGE_SIZE);
    emit_store(e, HOST_STACK, FRAME(page), HOST_T0);
    count(b, i);
    emit_rm(e, false, 0xff, 4, HOST_T1, offsetof(struct block, code)); /* jmp [T1 + code] */
}

static void site(struct xlate_build *b, unsigned i, int64_t target)
{
    struct xlate_site *site = &b->xlate->sites[b->xlate->site_count++];
    uint8_t *at = emit_jmp(&b->e);
    *site = (struct xlate_site){.op = &b->block->ops[i],
                                .at = at,
                                .flags_live = b->host_flags,
                                .call = b->ops[i].kind == XLATE_INSN && b->ops[i].insn.id == I_CALL,
                                .ahead = target > b->in_page + b->block->ops[i].off};
    b->stubs[b->stub_count++] =
        (struct xlate_stub){.at = at, .op = i, .kind = STUB_SITE, .site = site};
}

void xlate_goto(struct xlate_build *b, unsigned i, int64_t target, bool near)
{
    if (near) {
        b->host_flags = b->host_flags && b->ops[i].live_taken;
        count(b, i);
        site(b, i, target);
        return;
    }
    xlate_spill_flags(b, FL_ARITH);
    look_up_direct(b, i, target);
    enter_block(b, i);
}

/* The target of JMPI and CALLI to T0; flags are clobbered. */
static void load_target(struct xlate_build *b, unsigned i)
{
    const struct insn *insn = &b->ops[i].insn;
    xlate_spill_flags(b, FL_ARITH);
    if (insn->is_mem) {
        struct xlate_place place = xlate_access_operand(b, i);
        xlate_place_op(b, 0x8b, HOST_T0, &place);
    } else {
        unsigned host = xlate_reg(b, insn->rm, HOST_T0);
        if (host != HOST_T0)
            emit_mov(&b->e, HOST_T0, host);
    }
}

/* Stores the return address. */
static void push_return(struct xlate_build *b, unsigned i)
{
    struct emitter *e = &b->e;
    const struct op *op = &b->block->ops[i];
    struct xlate_place place = xlate_access(b, i);
    xlate_free_t1(b, &place);
    emit_load(e, HOST_T1, HOST_STACK, FRAME(page));
    emit_lea(e, HOST_T1, HOST_T1, b->in_page + op->off + op->len);
    xlate_place_op(b, 0x89, HOST_T1, &place);
    emit_lea(e, HOST_GUEST_RSP, HOST_GUEST_RSP, -8);
}

/* Target in T0, block in T1: looked up before the push. */
static void call_block(struct xlate_build *b, unsigned i)
{
    struct emitter *e = &b->e;
    emit_store(e, HOST_STACK, FRAME(target), HOST_T0);
    emit_store(e, HOST_STACK, FRAME(block), HOST_T1);
    push_return(b, i);
    emit_load(e, HOST_T0, HOST_STACK, FRAME(target));
    emit_load(e, HOST_T1, HOST_STACK, FRAME(block));
    enter_block(b, i);
}

static void call(struct xlate_build *b, unsigned i)
{
    int64_t target = xlate_target(b, i);
    if (xlate_near(target)) {
        push_return(b, i);
        b->host_flags = b->host_flags && b->ops[i].live_taken;
        count(b, i);
        site(b, i, target);
        return;
    }
    xlate_spill_flags(b, FL_ARITH);
    look_up_direct(b, i, target);
    call_block(b, i);
}

static void ret(struct xlate_build *b, unsigned i)
{
    struct emitter *e = &b->e;
    xlate_spill_flags(b, FL_ARITH);
    struct xlate_place place = xlate_access(b, i);
    xlate_place_op(b, 0x8b, HOST_T0, &place);
    look_up(b, i);
    load_block(b);
    emit_lea(e, HOST_GUEST_RSP, HOST_GUEST_RSP, 8 + (uint16_t)b->ops[i].insn.imm);
    enter_block(b, i);
}

/* A jump back is taken, mostly: it stands in line. */
static void jcc(struct xlate_build *b, unsigned i)
{
    unsigned cc = b->ops[i].insn.opcode & 15;
    int64_t target = xlate_target(b, i);
    xlate_need_flags(b);
    if (!xlate_near(target) || target > b->in_page + b->block->ops[i].off) {
        xlate_stub(b, emit_jcc(&b->e, cc), i, STUB_JCC);
        return;
    }
    uint8_t *skip = emit_jcc(&b->e, cc ^ 1);
    xlate_goto(b, i, target, true);
    emit_patch(&b->e, skip, emit_here(&b->e));
    b->host_flags = true;
}

void xlate_jump(struct xlate_build *b, unsigned i)
{
    const struct insn *insn = &b->ops[i].insn;
    switch (insn->id) {
    case I_JCC:
        jcc(b, i);
        break;
    case I_JMP:
        xlate_goto(b, i, xlate_target(b, i), xlate_near(xlate_target(b, i)));
        break;
    case I_CALL:
        call(b, i);
        break;
    case I_RET:
        ret(b, i);
        break;
    case I_JMPI:
        load_target(b, i);
        look_up(b, i);
        load_block(b);
        enter_block(b, i);
        break;
    default:
        load_target(b, i);
        look_up(b, i);
        load_block(b);
        call_block(b, i);
        break;
    }
}

/* The way out of a jump that is not bound. */
static void site_stub(struct xlate_build *b, const struct xlate_stub *stub)
{
    struct emitter *e = &b->e;
    stub->site->to = emit_here(e);
    if (stub->site->flags_live)
        emit_flags_save(e);
    if (stub->site->call)
        emit_lea(e, HOST_GUEST_RSP, HOST_GUEST_RSP, 8); /* it will push again */
    emit_mov_imm64(e, HOST_T0, (uintptr_t)stub->site | 1);
    emit_mov_imm32(e, HOST_T1, b->in_page);
    emit_jmp_to(e, b->xlate->leave);
}

/* A block needs the guest's vector registers: loads them, or leaves. */
static void simd_stub(struct xlate_build *b, const struct xlate_stub *stub)
{
    struct emitter *e = &b->e;
    emit_mov_imm32(e, HOST_T1, stub->simd);
    emit_call(e, b->xlate->simd_in);
    emit_patch(e, emit_jcc(e, 5), stub->retry);
    xlate_leave(b, stub->op);
}

void xlate_stubs(struct xlate_build *b)
{
    struct emitter *e = &b->e;
    for (unsigned k = 0; k < b->stub_count; k++) {
        const struct xlate_stub stub = b->stubs[k];
        emit_patch(e, stub.at, emit_here(e));
        switch (stub.kind) {
        case STUB_LEAVE:
            /* Several in a row of one op share the code. */
            while (k + 1 < b->stub_count && b->stubs[k + 1].kind == STUB_LEAVE &&
                   b->stubs[k + 1].op == stub.op)
                emit_patch(e, b->stubs[++k].at, emit_here(e));
            xlate_leave(b, stub.op);
            break;
        case STUB_MISS:
            xlate_miss_stub(b, &stub);
            break;
        case STUB_LOOK_UP:
            look_up(b, stub.op);
            load_block(b);
            emit_jmp_to(e, stub.retry);
            break;
        case STUB_SIMD:
            simd_stub(b, &stub);
            break;
        case STUB_POLL:
            emit_rr(e, false, 0x31, HOST_T0, HOST_T0);
            emit_mov_imm32(e, HOST_T1, b->in_page);
            emit_jmp_to(e, b->xlate->leave);
            break;
        case STUB_JCC: {
            int64_t target = xlate_target(b, stub.op);
            b->host_flags = true;
            xlate_goto(b, stub.op, target, xlate_near(target));
            break;
        }
        default:
            site_stub(b, &stub);
            break;
        }
    }
}
