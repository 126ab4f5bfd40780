/*
 * What the files that translate one block share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_XLATE_BUILD_H
#define TENON_ACCEL_SOFT_XLATE_BUILD_H

#include "accel/soft/xlate/xlate_emit.h"

/* A jump to code that is emitted after the block. */
struct xlate_stub {
    uint8_t *at; /* rel32 */
    uint16_t op;
    uint8_t kind;
    struct xlate_site *site; /* STUB_SITE */
    const uint8_t
        *retry;          /* STUB_MISS: the probe's start; STUB_SIMD, STUB_LOOK_UP: where to go on */
    const uint8_t *done; /* STUB_MISS: behind the instruction */
    struct xlate_access *access;
    int32_t disp; /* STUB_MISS: xlate_mem.c */
    uint8_t simd; /* STUB_SIMD: the wanted bit */
};
enum { STUB_LEAVE, STUB_POLL, STUB_JCC, STUB_SITE, STUB_MISS, STUB_SIMD, STUB_LOOK_UP };

#define XLATE_STUBS 400

/* Accesses through one register that are checked together: xlate_mem.c. */
struct xlate_group {
    bool valid;
    uint16_t version;
    int32_t addend_at; /* from the frame on */
    int64_t low, high; /* offsets that are checked */
    uint8_t align;     /* less one: known of the offset aligned_at */
    int64_t aligned_at;
};

/* Where a memory operand is: host registers; index 4 is none. */
struct xlate_place {
    uint8_t base, index;
    int32_t disp;
};

struct xlate_build {
    struct emitter e;
    struct soft_vcpu *v;
    struct xlate *xlate;
    struct block *block;
    struct block_hints hints;
    unsigned in_page; /* offset of the block in its page */
    /* Where the flags are now: the host's register, or the frame. Live flags are right there. */
    bool host_flags;
    uint8_t simd; /* bits of soft_simd_enter that are known to be in the frame */
    struct xlate_group groups[INSN_REG_RIP + 1][2]; /* to read, to write */
    uint16_t sites[BLOCK_OPS_MAX * 2 + 4];          /* in use: index * 2 + write */
    unsigned site_count, local_count;
    unsigned stub_count;
    struct xlate_stub stubs[XLATE_STUBS];
    struct xlate_op ops[BLOCK_OPS_MAX + 4];
};

/* xlate_insn.c: emits instruction ops[i], which xlate_handles. */
void xlate_insn(struct xlate_build *b, unsigned i);

/* Is there no host register for it? */
static inline bool xlate_stolen(unsigned guest)
{
    return guest >= 9 && guest <= 11;
}

/* Host register of a guest register; the stolen ones are loaded to `scratch` first. */
unsigned xlate_reg(struct xlate_build *b, unsigned guest, unsigned scratch);
/* Writes a stolen register back from `host`. */
void xlate_reg_done(struct xlate_build *b, unsigned guest, unsigned host);
void xlate_stub(struct xlate_build *b, uint8_t *at, unsigned op, unsigned kind);
/* Host flags must go to the frame if they are live, before something clobbers them. */
void xlate_spill_flags(struct xlate_build *b, uint32_t live);
void xlate_need_flags(struct xlate_build *b);
/* General registers of the guest that the op writes: a bit each. */
uint32_t xlate_writes(const struct xlate_op *x);
/* An instruction with a ModRM operand. */
void xlate_with_operand(struct xlate_build *b, unsigned i);
/* The end of an instruction with its memory operand in T0 (no other place is as good for stubs). */
void xlate_body(struct xlate_build *b, unsigned i, struct xlate_place *place);

/* xlate_mem.c */
bool xlate_good_address(const struct insn *insn);
/* Finds what each op accesses. */
void xlate_plan_memory(struct xlate_build *b);
/* The ModRM operand. */
struct xlate_want xlate_operand(const struct xlate_build *b, unsigned i);
/* LEA of the operand to host register `to`; no segment base. */
void xlate_lea(struct xlate_build *b, const struct xlate_want *want, bool wide, unsigned to);
/* Where the op's access is, by T0 and T1; flags are lost unless it is known to hit. */
struct xlate_place xlate_access(struct xlate_build *b, unsigned i);
/* The same of the ModRM operand of an indirect call or jump. */
struct xlate_place xlate_access_operand(struct xlate_build *b, unsigned i);
/* Moves the place away from T1. */
void xlate_free_t1(struct xlate_build *b, struct xlate_place *place);
/* ModRM and what follows it; REX needs the place's registers. */
void xlate_modrm(struct emitter *e, unsigned reg, const struct xlate_place *place);
/* A 64-bit instruction with the place as operand. */
void xlate_place_op(struct xlate_build *b, unsigned opcode, unsigned reg,
                    const struct xlate_place *place);
void xlate_miss_stub(struct xlate_build *b, const struct xlate_stub *stub);

/* xlate_system.c: emits system instruction ops[i]. */
void xlate_system(struct xlate_build *b, unsigned i);

/* xlate_simd.c: emits SIMD instruction ops[i]; its end. */
void xlate_simd(struct xlate_build *b, unsigned i);
void xlate_simd_body(struct xlate_build *b, unsigned i, struct xlate_place *place);

/* xlate_bmi.c: the end of an integer instruction with VEX; what it writes. */
void xlate_bmi_body(struct xlate_build *b, unsigned i, struct xlate_place *place);
uint32_t xlate_writes_bmi(const struct insn *insn);

/* xlate_jump.c */
/* Gives op i to the interpreter; live flags are in the frame. */
void xlate_leave(struct xlate_build *b, unsigned i);
void xlate_jump(struct xlate_build *b, unsigned i);
/* Goes on at the offset in the page, as op i does. */
void xlate_goto(struct xlate_build *b, unsigned i, int64_t target, bool near);
/* The stubs after the block. */
void xlate_stubs(struct xlate_build *b);

/* Where a direct jump goes, relative to the page; 4 GiB more than 32 bits is refused earlier. */
static inline int64_t xlate_target(const struct xlate_build *b, unsigned i)
{
    const struct op *op = &b->block->ops[i];
    return (int64_t)b->in_page + op->off + op->len + b->ops[i].insn.imm;
}

static inline bool xlate_near(int64_t target)
{
    return target >= 0 && target < GUEST_PAGE_SIZE;
}

#endif
