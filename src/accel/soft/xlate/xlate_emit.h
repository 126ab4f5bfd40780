/*
 * A small x86-64 assembler for the translator: registers are host numbers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_XLATE_EMIT_H
#define TENON_ACCEL_SOFT_XLATE_EMIT_H

#include <string.h>

#include "accel/soft/xlate/xlate.h"
#include "base/bytes.h"

#define FRAME(field) ((int32_t)offsetof(struct xlate_frame, field))

struct emitter {
    uint8_t *at;
    ptrdiff_t to_exec; /* executable address - writable address */
};

static inline void emit1(struct emitter *e, uint8_t byte)
{
    *e->at++ = byte;
}

static inline void emit4(struct emitter *e, uint32_t value)
{
    put_le32(e->at, value);
    e->at += 4;
}

static inline void emit8(struct emitter *e, uint64_t value)
{
    put_le64(e->at, value);
    e->at += 8;
}

/* REX when one is needed; opcodes above 0xff are in the 0F map. */
static inline void emit_opcode(struct emitter *e, bool wide, unsigned opcode, unsigned reg,
                               unsigned index, unsigned base)
{
    unsigned rex = wide << 3 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (base >> 3 & 1);
    if (rex)
        emit1(e, 0x40 | rex);
    if (opcode > 0xff)
        emit1(e, opcode >> 8);
    emit1(e, opcode);
}

/* ModRM, SIB and displacement of [base + disp]. */
static inline void emit_address(struct emitter *e, unsigned reg, unsigned base, int32_t disp)
{
    bool small = disp == (int8_t)disp;
    emit1(e, (small ? 0x40 : 0x80) | (reg & 7) << 3 | (base & 7));
    if ((base & 7) == 4)
        emit1(e, 0x24);
    if (small)
        emit1(e, disp);
    else
        emit4(e, disp);
}

static inline void emit_rm(struct emitter *e, bool wide, unsigned opcode, unsigned reg,
                           unsigned base, int32_t disp)
{
    emit_opcode(e, wide, opcode, reg, 0, base);
    emit_address(e, reg, base, disp);
}

static inline void emit_rr(struct emitter *e, bool wide, unsigned opcode, unsigned reg, unsigned rm)
{
    emit_opcode(e, wide, opcode, reg, 0, rm);
    emit1(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline void emit_load(struct emitter *e, unsigned reg, unsigned base, int32_t disp)
{
    emit_rm(e, true, 0x8b, reg, base, disp);
}

static inline void emit_store(struct emitter *e, unsigned base, int32_t disp, unsigned reg)
{
    emit_rm(e, true, 0x89, reg, base, disp);
}

static inline void emit_lea(struct emitter *e, unsigned reg, unsigned base, int32_t disp)
{
    emit_rm(e, true, 0x8d, reg, base, disp);
}

static inline void emit_mov(struct emitter *e, unsigned to, unsigned from)
{
    emit_rr(e, true, 0x89, from, to);
}

static inline void emit_mov_imm32(struct emitter *e, unsigned reg, uint32_t value)
{
    emit_opcode(e, false, 0xb8 | (reg & 7), 0, 0, reg);
    emit4(e, value);
}

static inline void emit_mov_imm64(struct emitter *e, unsigned reg, uint64_t value)
{
    if (value == (uint32_t)value) {
        emit_mov_imm32(e, reg, value);
        return;
    }
    emit_opcode(e, true, 0xb8 | (reg & 7), 0, 0, reg);
    emit8(e, value);
}

/* Group 1 with an immediate: `digit` picks the operation. */
static inline void emit_alu_imm(struct emitter *e, bool wide, unsigned digit, unsigned reg,
                                int32_t value)
{
    emit_rr(e, wide, 0x81, digit, reg);
    emit4(e, value);
}

static inline void emit_shift_imm(struct emitter *e, bool wide, unsigned digit, unsigned reg,
                                  uint8_t count)
{
    emit_rr(e, wide, 0xc1, digit, reg);
    emit1(e, count);
}

/* A three-byte VEX prefix; the opcode follows. */
static inline void emit_vex_full(struct emitter *e, unsigned map, unsigned pp, bool w, bool l,
                                 unsigned vvvv, unsigned reg, unsigned index, unsigned base)
{
    emit1(e, 0xc4);
    emit1(e, (reg > 7 ? 0 : 0x80) | (index > 7 ? 0 : 0x40) | (base > 7 ? 0 : 0x20) | map);
    emit1(e, w << 7 | (~vvvv & 15) << 3 | l << 2 | pp);
}

static inline void emit_vex(struct emitter *e, unsigned map, unsigned pp, bool l, unsigned vvvv,
                            unsigned reg, unsigned rm)
{
    emit_vex_full(e, map, pp, false, l, vvvv, reg, 0, rm);
}

static inline void emit_vzeroupper(struct emitter *e)
{
    emit1(e, 0xc5);
    emit1(e, 0xf8);
    emit1(e, 0x77);
}

/* Jumps whose rel32 is filled in later: its place. Condition as in Jcc. */
static inline uint8_t *emit_jcc(struct emitter *e, unsigned cc)
{
    emit1(e, 0x0f);
    emit1(e, 0x80 | cc);
    emit4(e, 0);
    return e->at - 4;
}

static inline uint8_t *emit_jmp(struct emitter *e)
{
    emit1(e, 0xe9);
    emit4(e, 0);
    return e->at - 4;
}

/* `to` is an executable address. */
static inline void emit_patch(const struct emitter *e, uint8_t *at, const uint8_t *to)
{
    put_le32(at, (uint32_t)(to - (at + 4 + e->to_exec)));
}

static inline const uint8_t *emit_here(const struct emitter *e)
{
    return e->at + e->to_exec;
}

static inline void emit_jmp_to(struct emitter *e, const uint8_t *to)
{
    uint8_t *at = emit_jmp(e);
    emit_patch(e, at, to);
}

static inline void emit_call(struct emitter *e, const uint8_t *to)
{
    emit1(e, 0xe8);
    emit4(e, 0);
    emit_patch(e, e->at - 4, to);
}

/* Host flags to the frame; T0 is lost. */
static inline void emit_flags_save(struct emitter *e)
{
    emit_mov(e, HOST_T0, HOST_RAX);
    emit1(e, 0x9f); /* lahf */
    emit1(e, 0x0f); /* seto al */
    emit1(e, 0x90);
    emit1(e, 0xc0);
    emit_rm(e, false, 0x89, HOST_RAX, HOST_STACK, FRAME(flags));
    emit_mov(e, HOST_RAX, HOST_T0);
}

/* And back; every register stays. */
static inline void emit_flags_restore(struct emitter *e)
{
    emit_store(e, HOST_STACK, FRAME(save), HOST_RAX);
    emit_rm(e, false, 0x8b, HOST_RAX, HOST_STACK, FRAME(flags));
    emit1(e, 0x04); /* add al, 0x7f: OF */
    emit1(e, 0x7f);
    emit1(e, 0x9e); /* sahf */
    emit_load(e, HOST_RAX, HOST_STACK, FRAME(save));
}

#endif
