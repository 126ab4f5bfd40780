/*
 * Encodes SSE and AVX instructions: all the guest's vector registers are in the host's of the same
 * number, so only general registers and the memory operand are renamed (Intel SDM vol. 2, chapter
 * 2). While the guest masks all SIMD exceptions, none of these instructions faults once its memory
 * operand is found; otherwise soft_simd_enter refuses and the interpreter has them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/xlate/xlate_build.h"

bool xlate_handles_simd(const struct insn *insn)
{
    if (insn->mode != INSN_64)
        return false;
    if (insn->id == I_EMMS) /* VZEROUPPER, VZEROALL */
        return insn->prefix & INSN_VEX && !insn->vex_v;
    if (insn->cls != INSN_CLASS_SIMD || simd_is_mmx(insn))
        return false;
    if (insn->map == INSN_MAP_0F && insn->opcode == 0xf7) /* MASKMOVDQU stores at RDI */
        return false;
    return !insn->is_mem || (insn->mem_size && xlate_good_address(insn));
}

/* The block needs the vector registers and what the guest's control registers allow. */
static void need(struct xlate_build *b, unsigned i, uint8_t bit)
{
    struct emitter *e = &b->e;
    if (b->simd & bit)
        return;
    xlate_spill_flags(b, b->ops[i].live_in);
    emit_rm(e, false, 0xf6, 0, HOST_STACK, FRAME(simd)); /* test byte, imm8 */
    emit1(e, bit);
    struct xlate_stub stub = {.at = emit_jcc(e, 4), .op = i, .kind = STUB_SIMD, .simd = bit};
    stub.retry = emit_here(e);
    b->stubs[b->stub_count++] = stub;
    b->simd |= bit;
}

/* What string comparisons read and write beside ModRM is where it must be. */
static bool implicit_gprs(const struct insn *insn)
{
    return insn->map == INSN_MAP_0F3A && insn->opcode >= 0x60 && insn->opcode <= 0x63;
}

/* Is the general register that it writes in ModRM.rm? */
static bool writes_rm(const struct insn *insn)
{
    return insn->map == INSN_MAP_0F3A || insn->opcode == 0x7e;
}

static void encode(struct xlate_build *b, const struct insn *insn, unsigned reg, unsigned rm,
                   const struct xlate_place *place)
{
    struct emitter *e = &b->e;
    bool w = insn->rex & 8;
    unsigned base = place ? place->base : rm, index = place ? place->index : 0;
    if (insn->prefix & INSN_VEX) {
        emit_vex_full(e, insn->map, insn->pp, w, insn->vex_l, insn->vex_v, reg, index, base);
    } else {
        static const uint8_t mandatory[] = {0, 0x66, 0xf3, 0xf2};
        if (insn->pp)
            emit1(e, mandatory[insn->pp]);
        unsigned rex = w << 3 | reg >> 3 << 2 | index >> 3 << 1 | base >> 3;
        if (rex)
            emit1(e, 0x40 | rex);
        emit1(e, 0x0f);
        if (insn->map != INSN_MAP_0F)
            emit1(e, insn->map == INSN_MAP_0F38 ? 0x38 : 0x3a);
    }
    emit1(e, insn->opcode);
    if (place)
        xlate_modrm(e, reg, place);
    else
        emit1(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
    if (simd_has_immediate(insn))
        emit1(e, insn->imm);
}

void xlate_simd_body(struct xlate_build *b, unsigned i, struct xlate_place *place)
{
    const struct xlate_op *x = &b->ops[i];
    const struct insn *insn = &x->insn;
    const struct simd_plan *plan = &x->simd;
    unsigned reg = insn->reg, rm = insn->rm;
    bool in = plan->gpr_in != SIMD_NO_GPR && !implicit_gprs(insn);
    bool out = plan->gpr_out != SIMD_NO_GPR && !implicit_gprs(insn);
    if (in || (out && writes_rm(insn))) {
        rm = xlate_reg(b, insn->rm, HOST_T0);
    } else if (out) {
        if (insn->is_mem)
            xlate_free_t1(b, place);
        reg = xlate_reg(b, insn->reg, HOST_T1);
    }
    encode(b, insn, reg, rm, insn->is_mem ? place : NULL);
    if (out)
        xlate_reg_done(b, plan->gpr_out, writes_rm(insn) ? rm : reg);
    if (x->use.touches)
        b->host_flags = true;
}

void xlate_simd(struct xlate_build *b, unsigned i)
{
    const struct insn *insn = &b->ops[i].insn;
    need(b, i, insn->prefix & INSN_VEX ? SIMD_AVX : SIMD_SSE);
    if (insn->id == I_EMMS) {
        emit1(&b->e, 0xc5);
        emit1(&b->e, insn->vex_l ? 0xfc : 0xf8);
        emit1(&b->e, 0x77);
        return;
    }
    xlate_with_operand(b, i);
}
