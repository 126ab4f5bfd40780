/*
 * The translator of hot 64-bit code: blocks of the interpreter become host code.
 *
 * The host is of the guest's own kind, so an instruction is encoded again nearly as it was. While
 * translated code runs, guest registers live in the host registers of the same name, but RSP lives
 * in R11, and R9, R10, R11 in the frame on the host's stack; R9 and R10 are scratch. Arithmetic
 * flags live in the host's RFLAGS, or in the frame where something clobbers them before they are
 * used (xlate_flags.c). Memory goes through the software TLBs of tlb.c, inline.
 *
 * The first vector instruction loads all the guest's vector registers into the host's of the same
 * number; they go back to v->xsave on the way out (xlate_common.c). That happens only while SSE or
 * AVX is on and the guest masks all SIMD exceptions, which nothing but the interpreter changes.
 *
 * Translated code calls nothing and raises nothing. Whatever it cannot do (an instruction it does
 * not know, a TLB miss, a device, a jump-cache miss) makes it leave: all registers go back to
 * struct soft_vcpu, and the interpreter executes that very instruction from its start, with
 * exceptions as precise as ever, and goes on until it meets translated code again. So no frame of
 * translated code is ever live while blocks are built, dropped or flushed.
 *
 * Arithmetic flags that the code overwrites before it reads them may be stale in the frame of an
 * exception or interrupt in between.
 *
 * The code buffer is a memfd that is mapped twice, once to write and once to execute. One a vCPU;
 * everything here runs on the vCPU's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_XLATE_H
#define TENON_ACCEL_SOFT_XLATE_H

#include "accel/soft/interp/block.h"
#include "accel/soft/simd/simd.h"

/* Host registers with a part of their own. */
#define HOST_RAX 0
#define HOST_STACK 4 /* rsp: the frame */
#define HOST_T0 9
#define HOST_T1 10
#define HOST_GUEST_RSP 11

/* The frame of translated code, at host RSP. */
struct xlate_frame {
    uint64_t stolen[3]; /* guest R9, R10, R11 */
    uint64_t space;     /* v->space */
    uint64_t vcpu;
    uint64_t page;  /* linear address of the page that the running block lies in */
    uint64_t flags; /* LAHF in 15:8, OF in 0; or XLATE_FLAGS_NONE */
    uint64_t save;  /* RAX around flag moves */
    uint64_t target, block;
    uint64_t icount;
    uint64_t simd; /* bits of soft_simd_enter: the vector registers are the guest's; 0: not */
};
#define XLATE_FLAGS_NONE UINT32_MAX /* v's lazy flags are still right */

/* A direct jump within a page: bound to its target's code once both are translated. */
struct xlate_site {
    const struct op *op;
    uint8_t *at;       /* writable address of the jump's rel32 */
    const uint8_t *to; /* its stub, executable address */
    struct xlate_site *next;
    bool flags_live; /* flags are in the host's register */
};

struct xlate {
    uint8_t *write;
    const uint8_t *exec;
    size_t used, fixed; /* bytes in use; of them the common parts, which a flush keeps */
    struct xlate_site *sites;
    size_t site_count;
    uint64_t (*enter)(struct soft_vcpu *v, const void *code, uint32_t flags);
    const uint8_t *leave, *leave_block;
    const uint8_t *fill;    /* soft_tlb_fill(v, T0, T1): Z when it did not help */
    const uint8_t *simd_in; /* vector registers in; T1 is a bit of soft_simd_enter: Z without it */
};

/* An instruction's arithmetic flags. */
struct flag_use {
    uint32_t reads;
    uint32_t writes; /* in every case */
    bool touches;    /* may change the host's flags */
};

/* One op of a block being translated. */
enum xlate_kind { XLATE_ENTRY, XLATE_INSN, XLATE_OTHER, XLATE_FALL };
struct xlate_op {
    enum xlate_kind kind; /* XLATE_OTHER: left to the interpreter */
    struct insn insn;
    struct flag_use use;
    uint32_t live_in, live_out;
    struct simd_plan simd; /* of a SIMD instruction */
};

/* xlate.c */
struct xlate *xlate_new(void);
void xlate_free(struct xlate *xlate);
void xlate_flush(struct xlate *xlate);
/* A new block has no code yet; a dropped one has none any more: jumps to it leave. */
void xlate_block_init(struct soft_vcpu *v, struct block *block);
void xlate_block_drop(struct soft_vcpu *v, struct block *block);
/* Ops that stand before instructions: counts, then enters translated code. */
op_fn xlate_op_hot, xlate_op_entry, xlate_op_native;

/* xlate_common.c: writes the common parts. */
void xlate_common(struct xlate *xlate);

/* xlate_block.c: translates; false when it cannot. The buffer has room. */
bool xlate_block(struct soft_vcpu *v, struct block *block);
#define XLATE_BLOCK_MAX KIB(32) /* code of one block at most */

/* xlate_flags.c */
struct flag_use xlate_flag_use(const struct insn *insn);
/* Flags that the code at `offset` of the page reads before it writes them. */
uint32_t xlate_live_at(struct soft_vcpu *v, const uint8_t *page, uint64_t gpa, int64_t offset);

/* xlate_insn.c: can the translator encode it, if the host has it? */
bool xlate_handles(const struct insn *insn);
/* xlate_simd.c: the same of what is no integer instruction. */
bool xlate_handles_simd(const struct insn *insn);

#endif
