/*
 * SIMD moves and bitwise logic in C: what kernels and C libraries execute most needs no stub.
 * (Intel SDM vol. 2: MOVAPS, MOVDQA, MOVQ, MOVSS, PXOR and their kin.)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/simd/simd.h"

static void check(struct soft_vcpu *v, const struct simd_plan *plan)
{
    if (plan->vex)
        simd_check_avx(v);
    else
        simd_check_sse(v);
}

static void clear_high(struct soft_vcpu *v, unsigned reg)
{
    memset(simd_ymm_high(v, reg), 0, 16);
}

/* Whole vectors: memory to register. VEX.128 clears the upper half, legacy code leaves it. */
static void load_vector(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    uint8_t data[32];
    check(v, plan);
    simd_load(v, simd_address(v, insn, plan, ACC_READ), data, plan->mem_len);
    memcpy(simd_xmm(v, insn->reg), data, 16);
    if (plan->mem_len == 32)
        memcpy(simd_ymm_high(v, insn->reg), data + 16, 16);
    else if (plan->vex)
        clear_high(v, insn->reg);
}

static void store_vector(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    uint8_t data[32];
    check(v, plan);
    uint64_t linear = simd_address(v, insn, plan, ACC_WRITE);
    memcpy(data, simd_xmm(v, insn->reg), 16);
    if (plan->mem_len == 32)
        memcpy(data + 16, simd_ymm_high(v, insn->reg), 16);
    simd_store(v, linear, data, plan->mem_len);
}

static void copy_vector(struct soft_vcpu *v, unsigned to, unsigned from, bool vex, bool wide)
{
    memcpy(simd_xmm(v, to), simd_xmm(v, from), 16);
    if (wide)
        memcpy(simd_ymm_high(v, to), simd_ymm_high(v, from), 16);
    else if (vex)
        clear_high(v, to);
}

static void move_to_reg(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    check(v, plan);
    copy_vector(v, insn->reg, insn->rm, plan->vex, insn->vex_l);
}

static void move_to_rm(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    check(v, plan);
    copy_vector(v, insn->rm, insn->reg, plan->vex, insn->vex_l);
}

/* MOVD, MOVQ, MOVSS, MOVSD from memory: the rest of the register becomes zero. */
static void load_scalar(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    uint8_t data[32] = {0};
    check(v, plan);
    simd_load(v, simd_address(v, insn, plan, ACC_READ), data, plan->mem_len);
    memcpy(simd_xmm(v, insn->reg), data, 16);
    if (plan->vex)
        clear_high(v, insn->reg);
}

static void store_scalar(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    check(v, plan);
    uint64_t linear = simd_address(v, insn, plan, ACC_WRITE);
    simd_store(v, linear, simd_xmm(v, insn->reg), plan->mem_len);
}

/* MOVLPS, MOVHPS and the double forms with memory. */
static void load_half(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    uint8_t data[32];
    check(v, plan);
    simd_load(v, simd_address(v, insn, plan, ACC_READ), data, 8);
    memcpy(simd_xmm(v, insn->reg) + (insn->opcode == 0x16 ? 8 : 0), data, 8);
}

static void store_half(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    check(v, plan);
    uint64_t linear = simd_address(v, insn, plan, ACC_WRITE);
    simd_store(v, linear, simd_xmm(v, insn->reg) + (insn->opcode == 0x17 ? 8 : 0), 8);
}

/* MOVD and MOVQ between a general and a vector register. */
static void from_gpr(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    uint8_t data[16] = {0};
    check(v, plan);
    put_le64(data, insn->rex & 8 ? v->r[insn->rm] : (uint32_t)v->r[insn->rm]);
    memcpy(simd_xmm(v, insn->reg), data, 16);
    if (plan->vex)
        clear_high(v, insn->reg);
}

static void to_gpr(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    check(v, plan);
    uint64_t value = get_le64(simd_xmm(v, insn->reg));
    v->r[insn->rm] = insn->rex & 8 ? value : (uint32_t)value;
}

enum logic { LOGIC_AND, LOGIC_ANDN, LOGIC_OR, LOGIC_XOR };

static enum logic logic_of(uint8_t opcode)
{
    switch (opcode) {
    case 0x54:
    case 0xdb:
        return LOGIC_AND;
    case 0x55:
    case 0xdf:
        return LOGIC_ANDN;
    case 0x56:
    case 0xeb:
        return LOGIC_OR;
    default:
        return LOGIC_XOR;
    }
}

static void combine(enum logic logic, const uint8_t a[16], const uint8_t b[16], uint8_t out[16])
{
    for (unsigned i = 0; i < 16; i += 8) {
        uint64_t x = get_le64(a + i), y = get_le64(b + i);
        put_le64(out + i, logic == LOGIC_AND    ? (x & y)
                          : logic == LOGIC_ANDN ? (~x & y)
                          : logic == LOGIC_OR   ? (x | y)
                                                : (x ^ y));
    }
}

static void exec_logic(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    uint8_t other[32];
    check(v, plan);
    if (insn->is_mem) {
        simd_load(v, simd_address(v, insn, plan, ACC_READ), other, plan->mem_len);
    } else {
        memcpy(other, simd_xmm(v, insn->rm), 16);
        memcpy(other + 16, simd_ymm_high(v, insn->rm), 16);
    }
    enum logic logic = logic_of(insn->opcode);
    unsigned first = plan->vex ? insn->vex_v : insn->reg;
    combine(logic, simd_xmm(v, first), other, simd_xmm(v, insn->reg));
    if (!plan->vex)
        return;
    if (insn->vex_l)
        combine(logic, simd_ymm_high(v, first), other + 16, simd_ymm_high(v, insn->reg));
    else
        clear_high(v, insn->reg);
}

/* A VEX form whose vvvv must be unused goes to its stub when it is not, and there to #UD. */
simd_exec_fn *simd_move_plan(const struct insn *insn)
{
    uint8_t op = insn->opcode, pp = insn->pp;
    bool mem = insn->is_mem, vex = insn->prefix & INSN_VEX;
    if (insn->map != INSN_MAP_0F)
        return NULL;
    bool integer = pp == 1 && (op == 0xdb || op == 0xdf || op == 0xeb || op == 0xef);
    if ((op >= 0x54 && op <= 0x57) || integer)
        return exec_logic;
    if (vex && insn->vex_v)
        return NULL;
    switch (op) {
    case 0x10:
        if (pp < 2)
            return mem ? load_vector : move_to_reg;
        return mem ? load_scalar : NULL;
    case 0x11:
        if (pp < 2)
            return mem ? store_vector : move_to_rm;
        return mem ? store_scalar : NULL;
    case 0x12:
    case 0x16:
        return mem && pp < 2 && !vex ? load_half : NULL;
    case 0x13:
    case 0x17:
        return mem && pp < 2 && !vex ? store_half : NULL;
    case 0x28:
        return mem ? load_vector : move_to_reg;
    case 0x29:
        return mem ? store_vector : move_to_rm;
    case 0x2b:
        return mem ? store_vector : NULL;
    case 0x6f:
        return pp == 0 ? NULL : mem ? load_vector : move_to_reg;
    case 0x7f:
        return pp == 0 ? NULL : mem ? store_vector : move_to_rm;
    case 0xe7:
        return pp == 1 && mem ? store_vector : NULL;
    case 0xf0:
        return mem ? load_vector : NULL;
    case 0x6e:
        return pp != 1 || insn->vex_l ? NULL : mem ? load_scalar : from_gpr;
    case 0x7e:
        if (insn->vex_l || pp == 0)
            return NULL;
        if (pp == 2)
            return mem ? load_scalar : NULL;
        return mem ? store_scalar : to_gpr;
    case 0xd6:
        return pp == 1 && mem && !insn->vex_l ? store_scalar : NULL;
    default:
        return NULL;
    }
}
