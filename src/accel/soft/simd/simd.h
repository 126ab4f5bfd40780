/*
 * MMX, SSE, AVX and x87 of the software engine: what the files simd*.c and xstate.c share.
 *
 * An instruction runs natively in a small stub: its registers are loaded from the guest's XSAVE
 * image, it executes with its memory operand redirected to a bounce buffer, and its registers go
 * back. Stubs are made once per encoding (without address bytes) and kept; one memfd is mapped
 * twice, so that no page is ever writable and executable. Plain moves and logic are done in C.
 *
 * What rounds runs with the guest's MXCSR. As long as it masks all exceptions, it stays in the
 * host's register from one instruction to the next (v->mxcsr_live; the engine's own C computes with
 * no doubles) and comes home to the image when somebody asks. Else a stub's second body brings it
 * along: an unmasked exception is a SIGFPE inside that, before it has stored a register. A new stub
 * is tried on a scratch image first, where an encoding that the host refuses is a SIGILL. The
 * handler recognises the stub of its own thread and lets it return: the guest gets #XM or #UD. x87
 * exceptions never reach the host, they stay pending in the image.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_SIMD_H
#define TENON_ACCEL_SOFT_SIMD_H

#include <string.h>

#include "accel/soft/soft.h"
#include "base/bytes.h"

/* The guest's image in struct soft_vcpu.xsave (SDM vol. 1, table 10-2 and 13.4). */
#define XS_FCW 0
#define XS_FSW 2
#define XS_FTW 4
#define XS_FOP 6
#define XS_FIP 8
#define XS_FDP 16
#define XS_MXCSR 24
#define XS_MXCSR_MASK 28
#define XS_ST 32
#define XS_XMM 160
#define XS_HEADER 512
#define XS_YMM 576

#define FSW_ES 0x80u
#define FSW_B 0x8000u
#define MXCSR_RESET 0x1f80u
#define MXCSR_VALID 0xffffu
#define MXCSR_MASKS 0x1f80u

/* What a stub reads and leaves. Offsets are below 128: one byte in the code. */
struct simd_io {
    uint64_t gpr;   /* RAX inside the stub: operand in, result out */
    uint64_t flags; /* RFLAGS in and out */
    uint32_t mxcsr_in, mxcsr_out;
    uint32_t mxcsr_host;
    uint32_t fault; /* the host refused the instruction */
};

struct simd_plan;
typedef void simd_exec_fn(struct soft_vcpu *v, const struct insn *insn,
                          const struct simd_plan *plan);
typedef void simd_stub_fn(void *image, void *bounce, uint64_t rdx, uint64_t rcx,
                          struct simd_io *io);

#define SIMD_NO_GPR 0xff

/* How to execute one instruction, found once. */
struct simd_plan {
    simd_exec_fn *exec;
    simd_stub_fn *stub;     /* NULL: done in C */
    simd_stub_fn *careful;  /* the stub that brings its MXCSR along; it may fault */
    const uint8_t *insn_at; /* x87: address of the instruction inside the stub */
    uint8_t align;          /* #GP(0) unless the memory operand is so aligned, less one */
    uint8_t mem_len;
    uint8_t gpr_in, gpr_out; /* guest register, or SIMD_NO_GPR */
    bool vex, mmx, fp, flags_in, flags_out;
    bool legacy;                /* MMX or x87: between FXRSTOR and FXSAVE */
    bool reads, writes;         /* memory */
    bool x87_wait;              /* x87: pending exceptions are delivered first */
    uint8_t regs[5], reg_count; /* vector registers that the stub stores */
};

#define SIMD_WAYS 1024u

struct simd_slot {
    uint64_t key[2]; /* raw bytes and mode; zero: empty */
    uint32_t serial; /* of the plan; ops remember it */
    struct simd_plan plan;
};

#define SIMD_STUBS 4096u

/* Stubs by what is in them, so that other displacements find them too. */
struct simd_stub_key {
    uint8_t bytes[15];
    uint8_t len; /* 0: empty */
    uint32_t entry, careful, insn_at;
    bool refused; /* the host has no such instruction */
};

struct simd {
    struct simd_io io __attribute__((aligned(64)));
    uint8_t bounce[512] __attribute__((aligned(64)));
    uint8_t trial[1024] __attribute__((aligned(64))); /* an image to try new stubs on */
    uint8_t *write;                                   /* the code region, writable */
    const uint8_t *exec;                              /* the same, executable */
    uint32_t used;
    uint32_t start; /* after the recovery code */
    unsigned stub_count;
    uint32_t serial; /* of the newest plan; never 0 */
    bool host_avx;
    struct simd_slot slots[SIMD_WAYS];
    struct simd_stub_key stubs[SIMD_STUBS];
};

static inline uint8_t *simd_xmm(struct soft_vcpu *v, unsigned reg)
{
    return v->xsave + XS_XMM + 16 * reg;
}

static inline uint8_t *simd_ymm_high(struct soft_vcpu *v, unsigned reg)
{
    return v->xsave + XS_YMM + 16 * reg;
}

/* Raise #UD or #NM as the control registers have it. */
void simd_check_sse(struct soft_vcpu *v);
void simd_check_avx(struct soft_vcpu *v);
void simd_check_mmx(struct soft_vcpu *v);

/* The ModRM memory operand, alignment checked. */
uint64_t simd_address(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan,
                      enum soft_access access);
/* Where an operand that is only read lies on the host, if the TLB has its page; else NULL. */
static inline void *simd_direct(const struct soft_vcpu *v, uint64_t linear, unsigned len)
{
    const struct soft_tlbe *e = &v->space->read[linear >> GUEST_PAGE_SHIFT & (TLB_SIZE - 1)];
    if (unlikely((linear ^ e->tag) > GUEST_PAGE_SIZE - len))
        return NULL;
    return (void *)(uintptr_t)(linear + e->addend);
}

/* 1 to 64 bytes at a linear address, the common case without a call. */
static inline void simd_load(struct soft_vcpu *v, uint64_t linear, uint8_t *bytes, unsigned len)
{
    const struct soft_tlbe *e = &v->space->read[linear >> GUEST_PAGE_SHIFT & (TLB_SIZE - 1)];
    const void *host = (const void *)(uintptr_t)(linear + e->addend);
    if (unlikely((linear ^ e->tag) > GUEST_PAGE_SIZE - len))
        soft_read(v, linear, bytes, len);
    else if (len == 16)
        memcpy(bytes, host, 16);
    else if (len == 32)
        memcpy(bytes, host, 32);
    else if (len == 8)
        memcpy(bytes, host, 8);
    else if (len == 4)
        memcpy(bytes, host, 4);
    else
        memcpy(bytes, host, len);
}

static inline void simd_store(struct soft_vcpu *v, uint64_t linear, const uint8_t *bytes,
                              unsigned len)
{
    const struct soft_tlbe *e = &v->space->write[linear >> GUEST_PAGE_SHIFT & (TLB_SIZE - 1)];
    void *host = (void *)(uintptr_t)(linear + e->addend);
    if (unlikely((linear ^ e->tag) > GUEST_PAGE_SIZE - len))
        soft_write(v, linear, bytes, len);
    else if (len == 16)
        memcpy(host, bytes, 16);
    else if (len == 32)
        memcpy(host, bytes, 32);
    else if (len == 8)
        memcpy(host, bytes, 8);
    else if (len == 4)
        memcpy(host, bytes, 4);
    else
        memcpy(host, bytes, len);
}

/* simd_move.c, simd_mask.c: a plan done in C, or NULL. */
simd_exec_fn *simd_move_plan(const struct insn *insn);
simd_exec_fn *simd_mask_plan(const struct insn *insn);

/* simd_emit.c */
/* Fills stub and insn_at; makes the stub when there is none. False: the host refuses it. */
bool simd_emit(struct simd *simd, const struct insn *insn, struct simd_plan *plan);
void simd_emit_init(struct simd *simd);
/* Bytes at the start of the region that leave a stub after a refused instruction. */
#define SIMD_RECOVER 0

/* simd_x87.c */
bool simd_is_mmx(const struct insn *insn);
/* TOP becomes 0 and the registers stay: the image counts them from TOP. */
void simd_x87_zero_top(uint8_t *image);
simd_exec_fn simd_exec_maskmovq, simd_exec_x87;
void simd_plan_x87(const struct insn *insn, struct simd_plan *plan);
/* Unmasked x87 exception pending: #MF. */
static inline bool simd_x87_pending(const struct soft_vcpu *v)
{
    return get_le16(v->xsave + XS_FSW) & ~get_le16(v->xsave + XS_FCW) & 0x3f;
}

/* simd.c: does the host execute this stub? Runs it on the scratch image. */
bool simd_try(struct simd *simd, const struct simd_plan *plan);
/* Runs the stub on the guest's registers; `operand` is where its memory operand is. */
void simd_run(struct soft_vcpu *v, const struct simd_plan *plan, void *operand);

/* simd.c, for the translator, which runs instructions with all the guest's vector registers in the
   host's. How it may run this one so; false: not at all (MMX, or the host refuses it). */
bool simd_native(struct soft_vcpu *v, const struct insn *insn, struct simd_plan *plan);
bool simd_sets_flags(const struct insn *insn);
bool simd_has_immediate(const struct insn *insn);
/* What the guest may use now, with its MXCSR in the host's register; 0: neither. */
#define SIMD_SSE 1u
#define SIMD_AVX 2u
uint64_t soft_simd_enter(struct soft_vcpu *v);

/* xstate.c: the image as x86_state has it; components that its header leaves out are initial. */
void soft_xstate_set(struct soft_vcpu *v, const uint8_t image[X86_XSAVE_SIZE]);
void soft_xstate_get(struct soft_vcpu *v, uint8_t image[X86_XSAVE_SIZE]);

#endif
