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
    const uint8_t *retry;    /* STUB_MISS: the probe's start; STUB_SIMD: behind the check */
    uint32_t how;            /* STUB_MISS: of soft_tlb_fill; STUB_SIMD: the wanted bit */
};
enum { STUB_LEAVE, STUB_POLL, STUB_JCC, STUB_SITE, STUB_MISS, STUB_SIMD };

#define XLATE_STUBS 400

struct xlate_build {
    struct emitter e;
    struct soft_vcpu *v;
    struct xlate *xlate;
    struct block *block;
    unsigned in_page; /* offset of the block in its page */
    /* Where the flags are now: the host's register, or the frame. Live flags are right there. */
    bool host_flags;
    uint8_t simd; /* bits of soft_simd_enter that are known to be in the frame */
    unsigned stub_count;
    struct xlate_stub stubs[XLATE_STUBS];
    struct xlate_op ops[BLOCK_OPS_MAX + 4];
};

/* xlate_insn.c: emits instruction ops[i], which xlate_handles. */
void xlate_insn(struct xlate_build *b, unsigned i);

/* Host register of a guest register; the stolen ones are loaded to `scratch` first. */
unsigned xlate_reg(struct xlate_build *b, unsigned guest, unsigned scratch);
/* Writes a stolen register back from `host`. */
void xlate_reg_done(struct xlate_build *b, unsigned guest, unsigned host);
void xlate_stub(struct xlate_build *b, uint8_t *at, unsigned op, unsigned kind);
/* Host flags must go to the frame if they are live, before something clobbers them. */
void xlate_spill_flags(struct xlate_build *b, uint32_t live);
void xlate_need_flags(struct xlate_build *b);
/* T0 = host address of the access at linear address T0. T1 is lost, flags too; a miss leaves. With
   `aligned` a misaligned access is a miss. */
void xlate_probe(struct xlate_build *b, unsigned i, bool write, unsigned size, bool aligned);
/* T0 = linear address of the memory operand. T1 is lost; flags too with FS or GS. */
void xlate_address(struct xlate_build *b, unsigned i);

bool xlate_good_address(const struct insn *insn);

/* xlate_simd.c: emits SIMD instruction ops[i]. */
void xlate_simd(struct xlate_build *b, unsigned i);

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
