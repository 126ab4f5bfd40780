/*
 * The parts that all translated code shares: the way in, the way out, calls of C.
 *
 * The guest's vector registers are loaded when a block first needs them and go back to v->xsave on
 * the way out, so the C code of the engine may use the host's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/mem/tlb.h"
#include "accel/soft/simd/simd.h"
#include "accel/soft/xlate/xlate_emit.h"

#define V_REG(n) ((int32_t)(offsetof(struct soft_vcpu, r) + 8 * (n)))

static const uint8_t kept_registers[] = {3, 5, 12, 13, 14, 15}; /* rbx rbp r12-r15 */

static bool is_moved(unsigned reg)
{
    return reg == X86_RSP || (reg >= 9 && reg <= 11);
}

/* enter(v, code, flags): a C function that runs code and returns what `leave` gets in T0. */
static void emit_enter(struct emitter *e)
{
    const unsigned rdi = 7, rsi = 6, rdx = 2, rax = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(kept_registers); i++) {
        unsigned reg = kept_registers[i];
        emit_opcode(e, false, 0x50 | (reg & 7), 0, 0, reg);
    }
    emit_load(e, rax, rdi, offsetof(struct soft_vcpu, space));
    emit_store(e, rax, XLATE_FRAME_AT + FRAME(host), HOST_STACK);
    emit_lea(e, HOST_STACK, rax, XLATE_FRAME_AT);
    emit_store(e, HOST_STACK, FRAME(vcpu), rdi);
    emit_rr(e, false, 0x89, rdx, rdx); /* clears the upper half */
    emit_store(e, HOST_STACK, FRAME(flags), rdx);
    emit_rr(e, false, 0x31, rax, rax);
    emit_store(e, HOST_STACK, FRAME(simd), rax);
    emit_mov(e, HOST_T0, rsi);
    for (unsigned i = 0; i < 2; i++) {
        emit_load(e, rax, rdi, V_REG(R_SEG + X86_FS + i));
        emit_store(e, HOST_STACK, FRAME(seg) + 8 * (int32_t)i, rax);
    }
    emit_load(e, rax, rdi, V_REG(R_BLOCK));
    emit_alu_imm(e, true, 4, rax, -(int32_t)GUEST_PAGE_SIZE);
    emit_store(e, HOST_STACK, FRAME(page), rax);
    emit_load(e, rax, rdi, offsetof(struct soft_vcpu, icount));
    emit_store(e, HOST_STACK, FRAME(icount), rax);
    for (unsigned i = 0; i < 3; i++) {
        emit_load(e, rax, rdi, V_REG(9 + i));
        emit_store(e, HOST_STACK, FRAME(stolen) + 8 * (int32_t)i, rax);
    }
    emit_load(e, HOST_GUEST_RSP, rdi, V_REG(X86_RSP));
    for (unsigned reg = 0; reg < 16; reg++)
        if (!is_moved(reg) && reg != rdi)
            emit_load(e, reg, rdi, V_REG(reg));
    emit_load(e, rdi, rdi, V_REG(rdi));
    emit_rr(e, false, 0xff, 4, HOST_T0);
}

/* The frame's flags to v's lazy flags, unless those are right; rdi is v. */
static void emit_flags_out(struct emitter *e)
{
    const unsigned rax = 0, rcx = 1, rdi = 7;
    emit_rm(e, false, 0x8b, rax, HOST_STACK, FRAME(flags));
    emit_alu_imm(e, false, 7, rax, (int32_t)XLATE_FLAGS_NONE);
    uint8_t *skip = emit_jcc(e, 4);
    emit_rr(e, false, 0x0fb6, rcx, rax); /* movzx ecx, al */
    emit_shift_imm(e, false, 5, rax, 8);
    emit_alu_imm(e, false, 4, rax, FL_ARITH & 0xff);
    emit_shift_imm(e, false, 4, rcx, 11);
    emit_rr(e, false, 0x09, rcx, rax); /* or */
    emit_store(e, rdi, offsetof(struct soft_vcpu, cc_src), rax);
    emit_rr(e, false, 0x31, rax, rax);
    emit_store(e, rdi, offsetof(struct soft_vcpu, cc_dst), rax);
    emit_mov_imm32(e, rax, CC(CC_FLAGS, 8));
    emit_rm(e, false, 0x89, rax, rdi, offsetof(struct soft_vcpu, cc_op));
    emit_patch(e, skip, emit_here(e));
}

/* ---- vector registers; rdi is v ---- */

static void move_half(struct emitter *e, bool avx, unsigned reg, bool store)
{
    int32_t at = offsetof(struct soft_vcpu, xsave) + XS_XMM + 16 * (int32_t)reg;
    if (avx)
        emit_vex(e, INSN_MAP_0F, 0, false, 0, reg, 7);
    else if (reg > 7)
        emit1(e, 0x44);
    if (!avx)
        emit1(e, 0x0f);
    emit1(e, store ? 0x11 : 0x10); /* movups */
    emit_address(e, reg, 7, at);
}

static void move_high_half(struct emitter *e, unsigned reg, bool store)
{
    int32_t at = offsetof(struct soft_vcpu, xsave) + XS_YMM + 16 * (int32_t)reg;
    emit_vex(e, INSN_MAP_0F3A, 1, true, store ? 0 : reg, reg, 7);
    emit1(e, store ? 0x19 : 0x18); /* vextractf128, vinsertf128 */
    emit_address(e, reg, 7, at);
    emit1(e, 1);
}

static void emit_vectors_out(struct emitter *e, bool avx)
{
    for (unsigned reg = 0; reg < 16; reg++)
        move_half(e, avx, reg, true);
    if (!avx)
        return;
    for (unsigned reg = 0; reg < 16; reg++)
        move_high_half(e, reg, true);
    emit_vzeroupper(e);
}

/* Upper halves that are all zero stay out of use: else SSE code would wait for them. */
static void emit_vectors_in(struct emitter *e, bool avx)
{
    uint8_t *skip = NULL;
    if (avx) {
        for (unsigned reg = 0; reg < 16; reg++) { /* vorps xmm0, xmm0, [upper half] */
            emit_vex(e, INSN_MAP_0F, 0, false, 0, 0, 7);
            emit1(e, reg ? 0x56 : 0x10);
            emit_address(e, 0, 7, offsetof(struct soft_vcpu, xsave) + XS_YMM + 16 * (int32_t)reg);
        }
        emit_vex(e, INSN_MAP_0F38, 1, false, 0, 0, 0); /* vptest xmm0, xmm0 */
        emit1(e, 0x17);
        emit1(e, 0xc0);
    }
    for (unsigned reg = 0; reg < 16; reg++)
        move_half(e, avx, reg, false);
    if (!avx)
        return;
    skip = emit_jcc(e, 4);
    for (unsigned reg = 0; reg < 16; reg++)
        move_high_half(e, reg, false);
    emit_patch(e, skip, emit_here(e));
}

/* ---- the way out ---- */

/* T0 is what enter returns, T1 the running block's offset in its page; flags are in the frame. */
static void emit_leave(struct emitter *e, bool avx)
{
    const unsigned rdi = 7, rax = 0;
    emit_store(e, HOST_STACK, FRAME(save), rdi);
    emit_load(e, rdi, HOST_STACK, FRAME(vcpu));
    for (unsigned reg = 0; reg < 16; reg++)
        if (!is_moved(reg) && reg != rdi)
            emit_store(e, rdi, V_REG(reg), reg);
    emit_store(e, rdi, V_REG(X86_RSP), HOST_GUEST_RSP);
    emit_load(e, rax, HOST_STACK, FRAME(save));
    emit_store(e, rdi, V_REG(rdi), rax);
    for (unsigned i = 0; i < 3; i++) {
        emit_load(e, rax, HOST_STACK, FRAME(stolen) + 8 * (int32_t)i);
        emit_store(e, rdi, V_REG(9 + i), rax);
    }
    emit_load(e, rax, HOST_STACK, FRAME(icount));
    emit_store(e, rdi, offsetof(struct soft_vcpu, icount), rax);
    emit_rm(e, true, 0x03, HOST_T1, HOST_STACK, FRAME(page));
    emit_store(e, rdi, V_REG(R_BLOCK), HOST_T1);
    emit_store(e, rdi, offsetof(struct soft_vcpu, rip), HOST_T1);
    emit_flags_out(e);
    emit_rm(e, false, 0x83, 7, HOST_STACK, FRAME(simd)); /* cmp, 0 */
    emit1(e, 0);
    uint8_t *skip = emit_jcc(e, 4);
    emit_vectors_out(e, avx);
    emit_patch(e, skip, emit_here(e));
    emit_mov(e, rax, HOST_T0);
    emit_load(e, HOST_STACK, HOST_STACK, FRAME(host));
    for (unsigned i = ARRAY_SIZE(kept_registers); i-- > 0;) {
        unsigned reg = kept_registers[i];
        emit_opcode(e, false, 0x58 | (reg & 7), 0, 0, reg);
    }
    emit1(e, 0xc3);
}

/* A jump to block T1, which has no code: the interpreter takes it. */
static void emit_leave_block(struct emitter *e, const uint8_t *leave)
{
    emit_lea(e, HOST_T0, HOST_T1, offsetof(struct block, ops));
    emit_load(e, HOST_T1, HOST_T1, offsetof(struct block, gpa));
    emit_alu_imm(e, false, 4, HOST_T1, GUEST_PAGE_SIZE - 1);
    emit_jmp_to(e, leave);
}

/* ---- calls of C ---- */

/* An odd number: with the return address of a called routine, the stack is aligned for C. */
static const uint8_t c_registers[] = {0, 1, 2, 6, 7, 8, HOST_T0, HOST_T1, HOST_GUEST_RSP};

/* Offset of the frame from RSP once the registers that C clobbers are on the stack. */
#define C_FRAME (8 + 8 * (int32_t)ARRAY_SIZE(c_registers))

static void emit_save_for_c(struct emitter *e)
{
    for (unsigned i = 0; i < ARRAY_SIZE(c_registers); i++)
        emit_opcode(e, false, 0x50 | (c_registers[i] & 7), 0, 0, c_registers[i]);
}

static void emit_restore_after_c(struct emitter *e)
{
    for (unsigned i = ARRAY_SIZE(c_registers); i-- > 0;)
        emit_opcode(e, false, 0x58 | (c_registers[i] & 7), 0, 0, c_registers[i]);
}

static void emit_call_c(struct emitter *e, uintptr_t function)
{
    const unsigned rax = 0;
    emit_mov_imm64(e, rax, function);
    emit_rr(e, false, 0xff, 2, rax);
}

/* Vector registers out, or in again, if they are the guest's; rdi becomes v. */
static void emit_vectors_if_live(struct emitter *e, bool avx, bool out)
{
    const unsigned rdi = 7;
    emit_load(e, rdi, HOST_STACK, C_FRAME + FRAME(vcpu));
    emit_rm(e, false, 0x83, 7, HOST_STACK, C_FRAME + FRAME(simd)); /* cmp, 0 */
    emit1(e, 0);
    uint8_t *skip = emit_jcc(e, 4);
    if (out)
        emit_vectors_out(e, avx);
    else
        emit_vectors_in(e, avx);
    emit_patch(e, skip, emit_here(e));
}

/* rdi, rsi, rdx = v, and T0 and T1 as they were when the registers were saved. */
static void emit_miss_arguments(struct emitter *e)
{
    const unsigned rdx = 2, rsi = 6, rdi = 7;
    emit_load(e, rdi, HOST_STACK, C_FRAME + FRAME(vcpu));
    emit_load(e, rsi, HOST_STACK, 16); /* as c_registers has them */
    emit_load(e, rdx, HOST_STACK, 8);
}

/* Called: keeps all guest registers. The flags are in the frame or dead. */
static void emit_miss(struct emitter *e, bool avx)
{
    const unsigned rax = 0;
    emit_save_for_c(e);
    emit_miss_arguments(e);
    emit_call_c(e, (uintptr_t)xlate_miss);
    emit_alu_imm(e, false, 7, rax, MISS_WALK);
    uint8_t *done = emit_jcc(e, 5);
    emit_vectors_if_live(e, avx, true);
    emit_miss_arguments(e);
    emit_call_c(e, (uintptr_t)xlate_walk);
    emit_vectors_if_live(e, avx, false);
    emit_patch(e, done, emit_here(e));
    emit_alu_imm(e, false, 7, rax, MISS_RETRY);
    emit_restore_after_c(e);
    emit1(e, 0xc3);
}

/* Called: keeps all registers. */
static void emit_cross_back(struct emitter *e)
{
    const unsigned rdi = 7;
    emit_save_for_c(e);
    emit_load(e, rdi, HOST_STACK, C_FRAME + FRAME(vcpu));
    emit_call_c(e, (uintptr_t)xlate_cross_back);
    emit_restore_after_c(e);
    emit1(e, 0xc3);
}

/* Called with the wanted bit of soft_simd_enter in T1: loads the vector registers, unless they are
   there already. Z when the bit is not to be had. */
static void emit_simd_in(struct emitter *e, bool avx)
{
    const unsigned rax = 0, rbx = 3, rdi = 7;
    emit_save_for_c(e);
    emit_opcode(e, false, 0x50 | rbx, 0, 0, rbx);
    emit_opcode(e, false, 0x50 | rbx, 0, 0, rbx);
    const int32_t frame = C_FRAME + 16;
    emit_mov(e, rbx, HOST_T1);
    emit_load(e, rdi, HOST_STACK, frame + FRAME(vcpu));
    emit_rm(e, false, 0x83, 7, HOST_STACK, frame + FRAME(simd)); /* cmp, 0 */
    emit1(e, 0);
    uint8_t *live = emit_jcc(e, 5);
    emit_call_c(e, (uintptr_t)soft_simd_enter);
    emit_rr(e, false, 0x21, rax, rbx); /* and */
    uint8_t *refused = emit_jcc(e, 4);
    emit_store(e, HOST_STACK, frame + FRAME(simd), rax);
    emit_load(e, rdi, HOST_STACK, frame + FRAME(vcpu));
    emit_vectors_in(e, avx);
    uint8_t *done = emit_jmp(e);
    emit_patch(e, live, emit_here(e));
    emit_rr(e, false, 0x31, rbx, rbx);
    emit_patch(e, refused, emit_here(e));
    emit_patch(e, done, emit_here(e));
    emit_rr(e, false, 0x85, rbx, rbx);
    emit_opcode(e, false, 0x58 | rbx, 0, 0, rbx);
    emit_opcode(e, false, 0x58 | rbx, 0, 0, rbx);
    emit_restore_after_c(e);
    emit1(e, 0xc3);
}

void xlate_common(struct xlate *xlate)
{
    struct emitter e = {.at = xlate->write, .to_exec = xlate->exec - xlate->write};
    bool avx = __builtin_cpu_supports("avx");
    xlate->enter = (uint64_t(*)(struct soft_vcpu *, const void *, uint32_t))(uintptr_t)xlate->exec;
    emit_enter(&e);
    xlate->leave = emit_here(&e);
    emit_leave(&e, avx);
    xlate->leave_block = emit_here(&e);
    emit_leave_block(&e, xlate->leave);
    xlate->miss = emit_here(&e);
    emit_miss(&e, avx);
    xlate->cross_back = emit_here(&e);
    emit_cross_back(&e);
    xlate->simd_in = emit_here(&e);
    emit_simd_in(&e, avx);
    xlate->fixed = xlate->used = ALIGN_UP((size_t)(e.at - xlate->write), 64);
}
