/*
 * Operands of the general executors, and the addresses of memory operands in all modes (Intel SDM
 * vol. 1, 3.7; vol. 3, 5.3).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/operand.h"

#include "accel/soft/system/segment.h"

unsigned operand_size(const struct insn *insn, unsigned i)
{
    switch (insn->op[i]) {
    case O_Eb:
    case O_Gb:
    case O_Zb:
    case O_AL:
    case O_CL:
    case O_Ob:
        return 1;
    case O_Ew:
    case O_Gw:
    case O_AX:
    case O_DX:
    case O_Sw:
        return 2;
    case O_Ed:
    case O_Gd:
        return 4;
    case O_Ey:
    case O_Gy:
    case O_By:
        return insn->rex & 8 ? 8 : 4;
    case O_Eq:
        return 8;
    case O_Rq:
    case O_Cq:
    case O_Dq:
        return insn->mode == INSN_64 ? 8 : 4;
    default:
        return insn->opsize;
    }
}

uint64_t soft_ea(const struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t base = insn->base == INSN_REG_RIP ? v->next_rip : v->r[insn->base];
    uint64_t ea = base + (v->r[insn->index] << insn->scale) + insn->disp;
    return zero_extend(ea, insn->addrsize);
}

/* Rights and limit of a segment in 16- and 32-bit code. */
static void check_segment(struct soft_vcpu *v, unsigned seg, uint64_t offset, unsigned len,
                          enum soft_access access)
{
    const struct x86_segment *s = &v->seg[seg];
    int vector = seg == X86_SS ? VEC_SS : VEC_GP;
    if (s->attr & X86_ATTR_UNUSABLE)
        soft_raise(v, vector, 0);
    bool protected_mode = v->cr0 & CR0_PE && !(v->rflags & FL_VM);
    bool code = s->attr & SEG_CODE;
    if (protected_mode) {
        if (access == ACC_WRITE ? code || !(s->attr & SEG_WRITE) : code && !(s->attr & SEG_READ))
            soft_raise(v, vector, 0);
    }
    uint64_t last = offset + len - 1;
    if (!code && s->attr & SEG_DOWN && protected_mode) {
        uint64_t top = s->attr & X86_ATTR_DB ? 0xffffffff : 0xffff;
        if (offset <= s->limit || last > top)
            soft_raise(v, vector, 0);
    } else if (last > s->limit && !(s->limit == 0xffffffff)) {
        soft_raise(v, vector, 0);
    }
}

uint64_t soft_seg_linear(struct soft_vcpu *v, unsigned seg, uint64_t offset, unsigned len,
                         enum soft_access access)
{
    v->stack_access = seg == X86_SS;
    uint64_t linear = v->r[R_SEG + seg] + offset;
    if (likely(v->mode == INSN_64))
        return linear;
    check_segment(v, seg, offset, len ? len : 1, access);
    return (uint32_t)linear;
}

uint64_t soft_linear(struct soft_vcpu *v, const struct insn *insn, unsigned len,
                     enum soft_access access)
{
    return soft_seg_linear(v, insn->seg, soft_ea(v, insn), len, access);
}

static uint64_t load_operand(struct soft_vcpu *v, const struct insn *insn, unsigned size,
                             enum soft_access access)
{
    uint64_t linear = soft_linear(v, insn, size, access);
    if (access == ACC_WRITE) {
        soft_check_alignment(v, linear, size);
        soft_probe(v, linear, size, ACC_WRITE);
    }
    return soft_load(v, linear, size);
}

/* The register that an operand is, or INSN_REG_NONE: memory, or a constant. */
static unsigned register_of(const struct insn *insn, uint8_t kind)
{
    if (is_mem_kind(kind))
        return insn->is_mem ? INSN_REG_NONE : insn->rm;
    switch (kind) {
    case O_Gb:
    case O_Gw:
    case O_Gv:
    case O_Gd:
    case O_Gy:
        return insn->reg;
    case O_Rv:
    case O_Rq:
    case O_Zb:
    case O_Zv:
        return insn->rm;
    case O_By:
        return insn->vex_v;
    case O_AL:
    case O_AX:
    case O_rAX:
        return X86_RAX;
    case O_CL:
        return X86_RCX;
    case O_DX:
        return X86_RDX;
    default:
        return INSN_REG_NONE;
    }
}

static uint64_t get(struct soft_vcpu *v, const struct insn *insn, unsigned i,
                    enum soft_access access)
{
    uint8_t kind = insn->op[i];
    unsigned size = operand_size(insn, i), reg = register_of(insn, kind);
    if (reg != INSN_REG_NONE)
        return get_reg(v, insn, reg, size);
    if (is_mem_kind(kind) || kind == O_Ob || kind == O_Ov)
        return load_operand(v, insn, size, access);
    return kind == O_ONE ? 1 : insn->imm;
}

uint64_t get_operand(struct soft_vcpu *v, const struct insn *insn, unsigned i)
{
    return get(v, insn, i, ACC_READ);
}

uint64_t get_operand_rw(struct soft_vcpu *v, const struct insn *insn, unsigned i)
{
    return get(v, insn, i, ACC_WRITE);
}

void put_operand(struct soft_vcpu *v, const struct insn *insn, unsigned i, uint64_t value)
{
    unsigned size = operand_size(insn, i), reg = register_of(insn, insn->op[i]);
    if (reg != INSN_REG_NONE)
        put_reg(v, insn, reg, size, value);
    else
        soft_store(v, soft_linear(v, insn, size, ACC_WRITE), size, value);
}
