/*
 * Translates the system instructions that a kernel runs all the time and that need no C: interrupt
 * flag, SWAPGS, control registers to read, RDTSC, fences (Intel SDM vol. 2).
 *
 * Each looks at the privilege level, because one translation serves all; where it does not suffice
 * the interpreter raises.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/xlate/xlate_build.h"

#define VCPU(field) ((int32_t)offsetof(struct soft_vcpu, field))

bool xlate_handles_system(const struct insn *insn)
{
    if (insn->mode != INSN_64 || insn->is_mem || insn->prefix & INSN_LOCK)
        return false;
    switch (insn->id) {
    case I_CLI:
    case I_STI:
    case I_SWAPGS:
    case I_RDTSC:
    case I_LFENCE:
    case I_MFENCE:
    case I_SFENCE:
        return true;
    case I_MOVCR_R:
        return insn->reg == 0 || (insn->reg >= 2 && insn->reg <= 4);
    default:
        return false;
    }
}

bool xlate_repeats(const struct insn *insn)
{
    return insn->id != I_SWAPGS && insn->id != I_RDTSC;
}

/* op [T0 + at], imm8 or imm32: `opcode` and `digit` say which. */
static void emit_imm8(struct emitter *e, unsigned opcode, unsigned digit, int32_t at, uint8_t value)
{
    emit_rm(e, false, opcode, digit, HOST_T0, at);
    emit1(e, value);
}

static void emit_imm32(struct emitter *e, unsigned opcode, unsigned digit, int32_t at,
                       uint32_t value)
{
    emit_rm(e, false, opcode, digit, HOST_T0, at);
    emit4(e, value);
}

static void leave_unless(struct xlate_build *b, unsigned i, unsigned cc)
{
    xlate_stub(b, emit_jcc(&b->e, cc ^ 1), i, STUB_LEAVE);
}

#define CC_Z 4u
#define CC_NZ 5u

static void leave_unless_zero(struct xlate_build *b, unsigned i, int32_t byte)
{
    emit_imm8(&b->e, 0x80, 7, byte, 0); /* cmp */
    leave_unless(b, i, CC_Z);
}

static void cli(struct emitter *e)
{
    emit_imm32(e, 0x81, 4, VCPU(rflags), ~FL_IF);
}

/* What waits for interrupts to be on is the interpreter's, and so is the end of its shadow. */
static void sti(struct xlate_build *b, unsigned i)
{
    struct emitter *e = &b->e;
    emit_imm32(e, 0xf7, 0, VCPU(rflags), FL_IF); /* test */
    uint8_t *on = emit_jcc(e, CC_NZ);
    leave_unless_zero(b, i, VCPU(intr_maybe));
    leave_unless_zero(b, i, VCPU(nmi_pending));
    emit_imm8(e, 0x83, 7, VCPU(events), 0); /* cmp, 32 bits */
    leave_unless(b, i, CC_Z);
    emit_imm32(e, 0x81, 1, VCPU(rflags), FL_IF); /* or */
    emit_imm8(e, 0xc6, 0, VCPU(shadow), SHADOW_STI);
    emit_patch(e, on, emit_here(e));
}

static void swapgs(struct emitter *e)
{
    const int32_t base = VCPU(seg[X86_GS].base), other = VCPU(msr.kernel_gs_base);
    emit_load(e, HOST_T1, HOST_T0, base);
    emit_store(e, HOST_STACK, FRAME(target), HOST_T1);
    emit_load(e, HOST_T1, HOST_T0, other);
    emit_store(e, HOST_T0, base, HOST_T1);
    emit_store(e, HOST_T0, VCPU(r[R_SEG + X86_GS]), HOST_T1);
    emit_store(e, HOST_STACK, FRAME(seg[1]), HOST_T1);
    emit_load(e, HOST_T1, HOST_STACK, FRAME(target));
    emit_store(e, HOST_T0, other, HOST_T1);
}

static void rdtsc(struct emitter *e)
{
    emit1(e, 0x0f);
    emit1(e, 0x31);
    emit_shift_imm(e, true, 4, X86_RDX, 32);
    emit_rr(e, true, 0x09, X86_RDX, X86_RAX); /* or rax, rdx */
    emit_rm(e, true, 0x03, X86_RAX, HOST_T0, VCPU(tsc_offset));
    emit_mov(e, X86_RDX, X86_RAX);
    emit_shift_imm(e, true, 5, X86_RDX, 32);
    emit_rr(e, false, 0x89, X86_RAX, X86_RAX); /* clears the upper half */
}

static void read_control(struct xlate_build *b, const struct insn *insn)
{
    static const int32_t at[] = {
        [0] = VCPU(cr0), [2] = VCPU(cr2), [3] = VCPU(cr3), [4] = VCPU(cr4)};
    unsigned to = xlate_reg(b, insn->rm, HOST_T1);
    emit_load(&b->e, to, HOST_T0, at[insn->reg]);
    xlate_reg_done(b, insn->rm, to);
}

static void fence(struct emitter *e, const struct insn *insn)
{
    emit1(e, 0x0f);
    emit1(e, 0xae);
    emit1(e, insn->modrm);
}

void xlate_system(struct xlate_build *b, unsigned i)
{
    struct emitter *e = &b->e;
    const struct insn *insn = &b->ops[i].insn;
    if (insn->id == I_LFENCE || insn->id == I_MFENCE || insn->id == I_SFENCE) {
        fence(e, insn);
        return;
    }
    xlate_spill_flags(b, b->ops[i].live_in);
    emit_load(e, HOST_T0, HOST_STACK, FRAME(vcpu));
    if (insn->id == I_RDTSC) {
        emit_imm32(e, 0xf7, 0, VCPU(cr4), CR4_TSD); /* test */
        leave_unless(b, i, CC_Z);
        rdtsc(e);
        return;
    }
    leave_unless_zero(b, i, VCPU(cpl));
    switch (insn->id) {
    case I_CLI:
        cli(e);
        break;
    case I_STI:
        sti(b, i);
        break;
    case I_SWAPGS:
        swapgs(e);
        break;
    default:
        read_control(b, insn);
        break;
    }
}
