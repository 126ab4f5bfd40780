/*
 * Picks the specialised op of a decoded 64-bit instruction and lays out its operands.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/fast.h"

static unsigned size_index(unsigned size)
{
    return size == 1 ? SIZE_1 : size == 2 ? SIZE_2 : size == 4 ? SIZE_4 : SIZE_8;
}

/* A byte register is named by its offset in the register file, so that AH is no special case. */
static uint8_t reg_at(const struct insn *insn, unsigned reg, unsigned size)
{
    if (size != 1)
        return reg;
    return reg >= 4 && reg < 8 && !insn->rex ? (reg - 4) * 8 + 1 : reg * 8;
}

static bool is_imm(uint8_t kind)
{
    return kind >= O_Ib && kind <= O_Iv;
}

static bool is_e(uint8_t kind)
{
    return (kind >= O_Eb && kind <= O_Ev) || kind == O_Ey || kind == O_Ob || kind == O_Ov;
}

/* Lays out a two-operand instruction; the form indexes tables of enum alu_form and mov_form. */
static int two_operands(struct op *op, const struct insn *insn, unsigned size)
{
    uint8_t first = insn->op[0], second = insn->op[1];
    bool memory_first = insn->is_mem && is_e(first), memory_second = insn->is_mem && is_e(second);
    if (insn->is_mem && !fast_set_address(op, insn))
        return -1;
    unsigned left = first == O_AL || first == O_rAX                 ? X86_RAX
                    : is_e(first) || first == O_Zb || first == O_Zv ? insn->rm
                                                                    : insn->reg;
    unsigned right = second == O_AL || second == O_rAX ? X86_RAX
                     : is_e(second)                    ? insn->rm
                                                       : insn->reg;
    if (memory_first) {
        if (is_imm(second)) {
            op->imm = insn->imm;
            return ALU_MI + op->d;
        }
        op->a = reg_at(insn, right, size);
        return ALU_MR + op->d;
    }
    op->a = reg_at(insn, left, size);
    if (memory_second)
        return ALU_RM + op->d;
    if (is_imm(second)) {
        op->imm = insn->imm;
        return ALU_RI;
    }
    op->b = reg_at(insn, right, size);
    return ALU_RR;
}

static bool pick(struct op *op, op_fn *fn)
{
    op->fn = fn;
    return fn != NULL;
}

/* One operand in a register or memory: index into tables [register, base, full]. */
static int one_operand(struct op *op, const struct insn *insn, unsigned size)
{
    if (insn->is_mem)
        return fast_set_address(op, insn) ? 1 + op->d : -1;
    op->a = reg_at(insn, insn->rm, size);
    return 0;
}

static bool select_locked(struct op *op, const struct insn *insn)
{
    if ((insn->opsize != 4 && insn->opsize != 8) || !fast_set_address(op, insn))
        return false;
    bool wide = insn->opsize == 8;
    op->a = insn->reg;
    switch (insn->id) {
    case I_CMPXCHG:
        return pick(op, fast_lock_cmpxchg[wide]);
    case I_XADD:
        return pick(op, fast_lock_xadd[wide]);
    case I_XCHG:
        return pick(op, fast_xchg_m[wide]);
    case I_INC:
        return pick(op, fast_lock_inc[0][wide]);
    case I_DEC:
        return pick(op, fast_lock_inc[1][wide]);
    case I_ADD:
    case I_OR:
    case I_AND:
    case I_SUB:
    case I_XOR:
        return pick(op, fast_lock_alu[insn->id - I_ADD][wide][is_imm(insn->op[1])]);
    default:
        return false;
    }
}

static bool select_shift(struct op *op, const struct insn *insn)
{
    if (insn->is_mem)
        return false;
    unsigned size = size_index(insn->opsize);
    op->a = reg_at(insn, insn->rm, insn->opsize);
    bool rotate = insn->id == I_ROL || insn->id == I_ROR;
    if (insn->op[1] == O_CL)
        return !rotate && pick(op, fast_shift[insn->id - I_SHL][size][SHIFT_CL]);
    op->imm = insn->op[1] == O_ONE ? 1 : insn->imm & (insn->opsize == 8 ? 63 : 31);
    if (!op->imm)
        return false;
    if (rotate)
        return pick(op, fast_rotate[insn->id == I_ROR][size]);
    return pick(op, fast_shift[insn->id - I_SHL][size][SHIFT_I]);
}

/* Extensions: from the second operand's size to the operation's. */
static bool select_extend(struct op *op, const struct insn *insn)
{
    unsigned from = insn->op[1] == O_Eb ? 1 : insn->op[1] == O_Ew ? 2 : 4;
    if (insn->opsize < 4)
        return false;
    if (insn->is_mem && !fast_set_address(op, insn))
        return false;
    op->a = insn->reg;
    op->b = reg_at(insn, insn->rm, from);
    unsigned form = insn->is_mem ? 1u + op->d : 0;
    if (insn->id == I_MOVZX)
        return pick(op, fast_movzx[from - 1][form]);
    return pick(op, fast_movsx[insn->opsize == 8][from == 4 ? 2 : from - 1][form]);
}

static bool select_imul(struct op *op, const struct insn *insn)
{
    if (insn->opsize < 4 || (insn->is_mem && !fast_set_address(op, insn)))
        return false;
    op->a = insn->reg;
    op->b = insn->rm;
    op->imm = insn->imm;
    return pick(
        op, fast_imul[insn->id == I_IMUL3][size_index(insn->opsize)][insn->is_mem ? 1 + op->d : 0]);
}

/* Direct jumps: the target relative to the block; in the block's own page it may be linked. */
static bool select_direct(struct op *op, const struct insn *insn, op_fn *const table[2])
{
    int64_t target = (int64_t)op->off + insn->len + insn->imm;
    if (target != (int32_t)target)
        return false;
    op->disp = target;
    op->base = X86_RSP;
    op->seg = R_ZERO;
    op->link = NULL;
    int64_t in_page = target + op->c * 64 + op->d; /* block.c: offset of the block in its page */
    return pick(op, table[!(in_page >= 0 && in_page < GUEST_PAGE_SIZE)]);
}

static bool select_jump(struct op *op, const struct insn *insn)
{
    switch (insn->id) {
    case I_JCC:
        return select_direct(op, insn, fast_jcc[insn->opcode & 15]);
    case I_JMP:
        return select_direct(op, insn, fast_jmp);
    case I_CALL:
        return select_direct(op, insn, fast_call);
    case I_RET:
        op->imm = insn->imm;
        op->base = X86_RSP;
        op->seg = R_ZERO;
        return pick(op, fast_ret);
    default:
        if (insn->is_mem && !fast_set_address(op, insn))
            return false;
        op->a = insn->rm;
        if (insn->id == I_JMPI)
            return pick(op, insn->is_mem ? fast_jmp_m : fast_jmp_r);
        return pick(op, insn->is_mem ? fast_call_m : fast_call_r);
    }
}

static bool select_stack(struct op *op, const struct insn *insn)
{
    if (insn->opsize != 8)
        return false;
    op->base = X86_RSP;
    op->seg = R_ZERO;
    op->a = insn->rm;
    op->imm = insn->imm;
    switch (insn->id) {
    case I_PUSH:
        if (is_imm(insn->op[0]))
            return pick(op, fast_push_i);
        if (insn->is_mem)
            return fast_set_address(op, insn) && pick(op, fast_push_m);
        return pick(op, fast_push_r);
    case I_POP:
        return !insn->is_mem && pick(op, fast_pop_r);
    case I_PUSHF:
        return pick(op, fast_pushf);
    default:
        return pick(op, fast_leave);
    }
}

static bool select_misc(struct op *op, const struct insn *insn)
{
    bool wide = insn->opsize == 8;
    if (insn->opsize < 4 && insn->id != I_SETCC && insn->id != I_NOP && insn->id != I_CLD)
        return false;
    switch (insn->id) {
    case I_NOP:
        return pick(op, fast_nop);
    case I_CLD:
        return pick(op, fast_cld);
    case I_CBW:
        return pick(op, wide ? fast_cdqe : fast_cwde);
    case I_CWD:
        return pick(op, wide ? fast_cqo : fast_cdq);
    case I_BSWAP:
        op->a = insn->rm;
        return pick(op, wide ? fast_bswap8 : fast_bswap4);
    case I_XCHG:
        if (insn->is_mem)
            return false;
        op->a = insn->rm;
        op->b = insn->op[1] == O_rAX ? X86_RAX : insn->reg;
        return pick(op, wide ? fast_xchg8 : fast_xchg4);
    case I_SETCC:
        if (insn->is_mem)
            return false;
        op->a = reg_at(insn, insn->rm, 1);
        return pick(op, fast_set[insn->opcode & 15]);
    case I_CMOVCC:
        if (insn->is_mem && !fast_set_address(op, insn))
            return false;
        op->a = insn->reg;
        op->b = insn->rm;
        return pick(op, fast_cmov[insn->opcode & 15][wide][insn->is_mem]);
    case I_LEA:
        op->a = insn->reg;
        if (insn->addrsize != 8 || !fast_set_address(op, insn))
            return false;
        op->seg = R_ZERO; /* no segment base in LEA */
        return pick(op, fast_lea[wide][op->d]);
    case I_BT:
        if (insn->is_mem)
            return false;
        op->a = insn->rm;
        op->b = insn->reg;
        op->imm = insn->imm;
        if (is_imm(insn->op[1]))
            return pick(op, wide ? fast_bt_ri8 : fast_bt_ri4);
        return pick(op, wide ? fast_bt_rr8 : fast_bt_rr4);
    default:
        return false;
    }
}

static bool is_simd(const struct insn *insn)
{
    return insn->id == I_SIMD || insn->id == I_X87;
}

bool soft_select_keeps(const struct insn *insn)
{
    return insn->prefix & INSN_LOCK || (insn->id == I_XCHG && insn->is_mem) || insn->id == I_CLI ||
           insn->id == I_STI || is_simd(insn);
}

bool soft_select(struct op *op, const struct insn *insn)
{
    unsigned size = size_index(insn->opsize);
    int form;
    if (insn->id == I_CLI)
        return pick(op, fast_cli);
    if (insn->id == I_STI)
        return pick(op, fast_sti);
    if (is_simd(insn)) {
        if (!soft_select_simd(op, insn)) {
            op->disp = 0;
            op->fn = fast_simd;
        }
        return true;
    }
    if (soft_select_keeps(insn))
        return select_locked(op, insn);
    switch (insn->id) {
    case I_ADD:
    case I_OR:
    case I_ADC:
    case I_SBB:
    case I_AND:
    case I_SUB:
    case I_XOR:
    case I_CMP:
        form = two_operands(op, insn, insn->opsize);
        return form >= 0 && pick(op, fast_alu[insn->id - I_ADD][size][form]);
    case I_TEST:
        form = two_operands(op, insn, insn->opsize);
        return form >= 0 && pick(op, fast_test[size][form]);
    case I_MOV:
        form = two_operands(op, insn, insn->opsize);
        return form >= 0 && pick(op, fast_mov[size][form]);
    case I_INC:
    case I_DEC:
    case I_NOT:
    case I_NEG:
        form = one_operand(op, insn, insn->opsize);
        return form >= 0 && pick(op, fast_unary[insn->id - I_INC][size][form]);
    case I_SHL:
    case I_SHR:
    case I_SAR:
    case I_ROL:
    case I_ROR:
        return select_shift(op, insn);
    case I_MOVZX:
    case I_MOVSX:
    case I_MOVSXD:
        return select_extend(op, insn);
    case I_IMUL2:
    case I_IMUL3:
        return select_imul(op, insn);
    case I_JCC:
    case I_JMP:
    case I_JMPI:
    case I_CALL:
    case I_CALLI:
    case I_RET:
        return select_jump(op, insn);
    case I_PUSH:
    case I_POP:
    case I_PUSHF:
    case I_LEAVE:
        return select_stack(op, insn);
    default:
        return select_misc(op, insn);
    }
}
