/*
 * Operands of an instruction for the general executors: registers, memory, immediates by kind.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_OPERAND_H
#define TENON_ACCEL_SOFT_OPERAND_H

#include "accel/soft/interp/exec.h"

/* Byte registers: without REX, numbers 4 to 7 are AH, CH, DH, BH. */
static inline uint8_t *reg8(struct soft_vcpu *v, const struct insn *insn, unsigned reg)
{
    if (reg >= 4 && reg < 8 && !insn->rex)
        return (uint8_t *)&v->r[reg - 4] + 1;
    return (uint8_t *)&v->r[reg];
}

static inline uint64_t get_reg(struct soft_vcpu *v, const struct insn *insn, unsigned reg,
                               unsigned size)
{
    return size == 1 ? *reg8(v, insn, reg) : zero_extend(v->r[reg], size);
}

/* A 32-bit write clears the upper half, narrower ones keep the rest. */
static inline void put_reg(struct soft_vcpu *v, const struct insn *insn, unsigned reg,
                           unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        *reg8(v, insn, reg) = value;
        break;
    case 2:
        v->r[reg] = (v->r[reg] & ~0xffffull) | (uint16_t)value;
        break;
    case 4:
        v->r[reg] = (uint32_t)value;
        break;
    default:
        v->r[reg] = value;
        break;
    }
}

/* Size in bytes of operand `i`. */
unsigned operand_size(const struct insn *insn, unsigned i);
/* Reads or writes operand `i`. A memory operand that is read and then written is read through
   get_operand_rw first, which checks the write. */
uint64_t get_operand(struct soft_vcpu *v, const struct insn *insn, unsigned i);
uint64_t get_operand_rw(struct soft_vcpu *v, const struct insn *insn, unsigned i);
void put_operand(struct soft_vcpu *v, const struct insn *insn, unsigned i, uint64_t value);

static inline bool is_mem_kind(uint8_t kind)
{
    return kind >= O_Eb && kind <= O_Eq;
}

#endif
