/*
 * Encodes the integer instructions with a VEX prefix (BMI1, BMI2): up to three general registers,
 * of which one may be written beside ModRM's, in VEX.vvvv (Intel SDM vol. 2, 2.6).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/xlate/xlate_build.h"

/* Which of ModRM.reg and VEX.vvvv the instruction writes; ModRM.reg is an opcode digit of BLS*. */
static bool writes_reg(const struct insn *insn)
{
    return insn->op[0] != O_By;
}

static bool writes_vvvv(const struct insn *insn)
{
    return insn->op[0] == O_By || insn->id == I_MULX;
}

bool xlate_handles_bmi(const struct insn *insn)
{
    switch (insn->id) {
    case I_ANDN:
    case I_BEXTR:
    case I_BLSI:
    case I_BLSMSK:
    case I_BLSR:
    case I_BZHI:
    case I_PDEP:
    case I_PEXT:
    case I_RORX:
    case I_SARX:
    case I_SHLX:
    case I_SHRX:
        break;
    case I_MULX: /* two results beside an address: one scratch register is left */
        if (insn->is_mem && xlate_stolen(insn->reg) && xlate_stolen(insn->vex_v))
            return false;
        break;
    default:
        return false;
    }
    return insn->mode == INSN_64 && !insn->vex_l &&
           (!insn->is_mem || (insn->mem_access && insn->mem_size && xlate_good_address(insn)));
}

uint32_t xlate_writes_bmi(const struct insn *insn)
{
    return (writes_reg(insn) ? 1u << insn->reg : 0) | (writes_vvvv(insn) ? 1u << insn->vex_v : 0);
}

void xlate_bmi_body(struct xlate_build *b, unsigned i, struct xlate_place *place)
{
    const struct xlate_op *x = &b->ops[i];
    const struct insn *insn = &x->insn;
    struct emitter *e = &b->e;
    if (x->use.touches && x->live_out & ~x->use.writes)
        xlate_need_flags(b);
    bool digit = !writes_reg(insn), in_vvvv = insn->id != I_RORX;
    bool stolen = (!digit && xlate_stolen(insn->reg)) || (in_vvvv && xlate_stolen(insn->vex_v));
    if (insn->is_mem && stolen)
        xlate_free_t1(b, place);
    /* Sources are read before results are written, so a result may share a source's scratch. */
    unsigned rm = insn->is_mem ? place->base : xlate_reg(b, insn->rm, HOST_T0);
    unsigned vvvv = in_vvvv ? xlate_reg(b, insn->vex_v, HOST_T1) : 0;
    unsigned reg = digit ? insn->modrm >> 3 & 7u : insn->reg;
    if (!digit && xlate_stolen(reg))
        reg = insn->is_mem || reg == insn->vex_v ? HOST_T1 : HOST_T0;
    else if (!digit && reg == X86_RSP)
        reg = HOST_GUEST_RSP;
    emit_vex_full(e, insn->map, insn->pp, insn->rex & 8, false, vvvv, reg,
                  insn->is_mem ? place->index : 0, rm);
    emit1(e, insn->opcode);
    if (insn->is_mem)
        xlate_modrm(e, reg, place);
    else
        emit1(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
    if (insn->id == I_RORX)
        emit1(e, insn->imm);
    if (writes_vvvv(insn))
        xlate_reg_done(b, insn->vex_v, vvvv);
    if (writes_reg(insn)) /* last: MULX's high half wins */
        xlate_reg_done(b, insn->reg, reg);
    if (x->use.touches)
        b->host_flags = true;
}
