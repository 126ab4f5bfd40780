/*
 * The translator of hot 64-bit code: blocks of the interpreter become host code.
 *
 * The host is of the guest's own kind, so an instruction is encoded again nearly as it was. While
 * translated code runs, guest registers live in the host registers of the same name, but RSP lives
 * in R11, and R9, R10, R11 in the frame; R9 and R10 are scratch. The host's RSP points to the
 * frame, which lies in the current soft_space with a stack below it (frame.h). Arithmetic flags
 * live in the host's RFLAGS, or in the frame where something clobbers them before they are used
 * (xlate_flags.c). Memory goes through sites, copies of the software TLBs' entries (xlate_mem.c).
 *
 * The first vector instruction loads all the guest's vector registers into the host's of the same
 * number; they go back to v->xsave on the way out (xlate_common.c). That happens only while SSE or
 * AVX is on and the guest masks all SIMD exceptions, which nothing but the interpreter changes.
 *
 * Translated code raises nothing, and calls C only for an access that misses (xlate_miss.c).
 * Whatever it cannot do (an instruction it does not know, a page fault, a device, a jump-cache
 * miss) makes it leave: all registers go back to struct soft_vcpu, and the interpreter executes
 * that very instruction from its start, with exceptions as precise as ever, and goes on until it
 * meets translated code again. So no frame of translated code is ever live while blocks are built
 * or flushed, or TLBs emptied; a block may lose its code while that runs (xlate_again), which stays
 * where it is until the next flush.
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

/* Offset of the frame, which is at the host's RSP, in the space. */
#define XLATE_FRAME_AT ((int32_t)offsetof(struct soft_space, frame))

/* An access to memory, for what happens when it misses. */
struct xlate_access {
    struct block *block;
    uint64_t last; /* instruction count at the last miss */
    uint16_t site;
    uint8_t op, size;
    uint16_t score;
    bool again; /* the block is to be translated once more */
    bool write;
    bool hashed;   /* has no site */
    bool huge;     /* looks for large pages only */
    bool group;    /* the site covers more than this access */
    bool bounce;   /* crossing a page boundary, it may be done on a copy */
    uint32_t page; /* number of the page at the last miss of a hashed access */
};

/* A direct jump within a page: bound to its target's code once both are translated. */
struct xlate_site {
    const struct op *op;
    uint8_t *at;       /* writable address of the jump's rel32 */
    const uint8_t *to; /* its stub, executable address */
    struct xlate_site *next;
    bool flags_live; /* flags are in the host's register */
    bool call;
    bool ahead; /* goes forward: any loop has a jump that does not, and looks for events */
};

struct xlate {
    uint8_t *write;
    const uint8_t *exec;
    size_t used, fixed; /* bytes in use; of them the common parts, which a flush keeps */
    struct xlate_site *sites;
    size_t site_count;
    struct xlate_access *accesses;
    size_t access_count;
    size_t sited; /* places of user code that were given a site */
    uint64_t (*enter)(struct soft_vcpu *v, const void *code, uint32_t flags);
    const uint8_t *leave, *leave_block;
    const uint8_t *miss;       /* xlate_miss(v, T0, T1): compares the result with MISS_RETRY */
    const uint8_t *cross_back; /* after MISS_CROSS, when the copy was written */
    const uint8_t *simd_in; /* vector registers in; T1 is a bit of soft_simd_enter: Z without it */
};

/* An instruction's arithmetic flags. */
struct flag_use {
    uint32_t reads;
    uint32_t writes; /* in every case */
    bool touches;    /* may change the host's flags */
};

/* An access to memory: registers of the guest, INSN_REG_NONE and INSN_REG_RIP (then `disp` is from
   the block's page on). */
struct xlate_want {
    int64_t disp;
    uint8_t base, index, scale, seg;
    uint8_t size;
    uint8_t align; /* less one */
    bool write, bounce;
};

/* One op of a block being translated. */
enum xlate_kind { XLATE_ENTRY, XLATE_INSN, XLATE_OTHER, XLATE_FALL };
struct xlate_op {
    enum xlate_kind kind; /* XLATE_OTHER: left to the interpreter */
    struct insn insn;
    struct flag_use use;
    uint32_t live_in, live_out;
    uint32_t live_taken;   /* at the target of a jump */
    struct simd_plan simd; /* of a SIMD instruction */
    /* Its memory access: size 0 is none. Grouped ones: `offset` from the value that the base had
       when it was last changed in another way than by a constant, which `version` counts. */
    struct xlate_want want;
    bool grouped;
    uint16_t version;
    int64_t offset;
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

/* A block's hints, to be changed; not of one that crosses. */
struct block_hints *xlate_hints(struct soft_vcpu *v, struct block *block);
/* Drops a block's code and lets it be translated again, as its hints say. */
void xlate_again(struct soft_vcpu *v, struct block *block);

/* xlate_miss.c */
enum { MISS_LEAVE, MISS_RETRY, MISS_CROSS, MISS_WALK };
/* Makes the access hit; MISS_CROSS: its bytes are in the frame. */
uint64_t xlate_miss(struct soft_vcpu *v, uint64_t linear, struct xlate_access *a);
/* What it left over (MISS_WALK); it may use vector registers. */
uint64_t xlate_walk(struct soft_vcpu *v, uint64_t linear, struct xlate_access *a);
void xlate_cross_back(struct soft_vcpu *v);

/* xlate_common.c: writes the common parts. */
void xlate_common(struct xlate *xlate);

/* xlate_block.c: translates; false when it cannot. The buffer has room. */
bool xlate_block(struct soft_vcpu *v, struct block *block);
#define XLATE_BLOCK_MAX KIB(48) /* code of one block at most */

/* xlate_flags.c */
struct flag_use xlate_flag_use(const struct insn *insn);
/* Flags that the code at `offset` of the page reads before it writes them. */
uint32_t xlate_live_at(struct soft_vcpu *v, const uint8_t *page, uint64_t gpa, int64_t offset);

/* xlate_insn.c: can the translator encode it, if the host has it? */
bool xlate_handles(const struct insn *insn);
/* xlate_system.c: the same of system instructions. */
bool xlate_handles_system(const struct insn *insn);
/* Does it the same when it is done once more? Lockstep leaves the others to the interpreter. */
bool xlate_repeats(const struct insn *insn);
/* xlate_simd.c: the same of what is no integer instruction. */
bool xlate_handles_simd(const struct insn *insn);
/* xlate_bmi.c: integer instructions with VEX */
bool xlate_handles_bmi(const struct insn *insn);

#endif
