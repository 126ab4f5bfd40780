/*
 * Executable form of decoded code, and what the executors share.
 *
 * A block is a run of `struct op`, one a guest instruction, which lies in one guest page (or starts
 * in one and ends with an instruction that crosses into the next). It follows a conditional branch
 * that is not taken, so it has one entry and several exits. Each op's function executes it and goes
 * on to the next by a tail call; at an exit it finds the next block, or returns NULL to the run
 * loop.
 *
 * 64-bit code and flat 32-bit code use specialised functions where select.c and fast_flat.c have
 * one; all else goes through op_generic, which calls the instruction's executor in soft_exec[].
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_EXEC_H
#define TENON_ACCEL_SOFT_EXEC_H

#include "accel/soft/decode/optable.h"
#include "accel/soft/interp/flags.h"
#include "accel/soft/soft.h"

struct op;
struct xlate_site;
typedef const struct op *op_fn(struct soft_vcpu *v, const struct op *op);

struct op {
    op_fn *fn;
    union {
        int64_t imm;
        struct block *link;      /* exits: the block at the target, once known, in the same page */
        const struct insn *insn; /* op_generic */
    };
    int32_t disp; /* displacement; exits: target relative to the block */
    uint16_t off; /* of the instruction in the block */
    uint8_t len;
    uint8_t n;    /* instructions of the block up to and with this one */
    uint8_t a, b; /* registers, or byte offsets of byte registers in soft_vcpu.r */
    uint8_t base, index, scale, seg; /* memory operand: indexes of soft_vcpu.r */
    uint8_t c, d;                    /* as the function needs */
};

_Static_assert(sizeof(struct op) == 32, "two ops a cache line");

/* What a block's next translation should know, xlate_miss.c: ops that look into the hashed TLB, of
   them into that of large pages, ops that have a site however many places do, a bit each; no
   groups. */
struct block_hints {
    uint64_t hashed[2], huge[2], sited[2];
    bool lone;
};

struct block {
    uint64_t gpa; /* of the first byte */
    struct block *hash_next, *page_next;
    union {
        struct block *page2_next;  /* of one that crosses */
        struct block_hints *hints; /* of any other; NULL: none */
    };
    /* xlate.h: where translated code enters with flags in the frame; from there on to the way in
       with flags in the host's register, and the same without a look for events, for jumps forward;
       jumps that are bound to it. */
    const uint8_t *code;
    struct xlate_site *bound;
    int16_t code_flags, ahead, ahead_flags;
    uint16_t op_count;
    uint16_t bytes; /* of this page that decided about it; see block_depends() */
    uint8_t mode;   /* enum insn_mode */
    bool flat;      /* for v->flat alone */
    bool dead;
    bool crosses; /* one instruction, from this page into the next: ops[0].imm is that one's gpa */
    struct op ops[];
};

_Static_assert(sizeof(struct block) == 64, "a cache line, then ops");

/*
 * Tail calls make each op's dispatch a jump of its own. A sanitizer's or an unoptimised build does
 * not promise them, so there the run loop calls op after op.
 */
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define SOFT_TAIL 1
#define GOTO_OP(v, next)                                                                           \
    do {                                                                                           \
        const struct op *next_ = (next);                                                           \
        return next_->fn((v), next_);                                                              \
    } while (0)
#else
#define SOFT_TAIL 0
#define GOTO_OP(v, next) return (next)
#endif
#define NEXT_OP(v, op) GOTO_OP(v, (op) + 1)

/* Executor of one instruction, by insn->id: all operands and modes. v->rip and v->next_rip are set;
   a branch changes next_rip. */
typedef void exec_fn(struct soft_vcpu *v, const struct insn *insn);
extern exec_fn *const soft_exec[I_COUNT];

/* select.c: gives `op` (offsets and counts are set) the specialised function of a 64-bit
   instruction and its operands; false when there is none. op->c * 64 + op->d is the block's offset
   in its page. */
bool soft_select(struct op *op, const struct insn *insn);
/* The same for 32-bit code while v->flat. fast_flat.c. */
bool soft_select_flat(struct op *op, const struct insn *insn);
/* A segment or the mode changed: renews v->flat and the salt of 32-bit code. */
void soft_flat_update(struct soft_vcpu *v);
/* Does the specialised op fall back to op_generic, so that op->insn must be there? */
bool soft_select_keeps(const struct insn *insn);

/* ops.c */
op_fn op_generic, op_generic_end, op_fallthrough, op_dead, op_crossing, op_lookup;

/* block.c */
struct soft_code *soft_code_new(struct soft_vcpu *v);
void soft_code_free(struct soft_code *code);
/* The block at v->rip in the present mode, built if need be; raises fetch faults. */
struct block *soft_block_find(struct soft_vcpu *v);
/* Drops every block. Not from inside a block. */
void soft_code_flush(struct soft_vcpu *v);
/* Drops the blocks of one page of this vCPU; the running block leaves after its current op. */
void soft_code_drop(struct soft_vcpu *v, uint64_t gpa);
/* The same for those that depend on bytes of [gpa, gpa + len), which lie in one page. */
void soft_code_drop_bytes(struct soft_vcpu *v, uint64_t gpa, unsigned len);
/* Decodes at v->rip for one step; raises. */
void soft_fetch_insn(struct soft_vcpu *v, struct insn *insn);

/* mem.c and walk.c */
struct soft_ram {
    uint64_t gpa, size; /* size 0: hidden, a device answers */
    uint8_t *host;
    struct gmem_order order;
    uint64_t first_page; /* index into soft_mem's per-page tables */
    bool readonly;
};
/* Where the byte at `gpa` is; bytes of another page may lie anywhere. */
static inline uint8_t *soft_ram_host(const struct soft_ram *ram, uint64_t gpa)
{
    return ram->host + gmem_place(&ram->order, gpa - ram->gpa);
}
#define SOFT_EXACT_PAGES 1024u
struct soft_exact {
    uint64_t page; /* index + 1; 0: free */
    uint64_t hits; /* writes to bytes that are code */
    uint64_t bytes[GUEST_PAGE_SIZE / 64];
};

struct soft_mem {
    struct soft_ram ram[32];
    unsigned ram_count;
    uint64_t pages;
    uint64_t *lines;    /* a word a page: the 64-byte lines that hold decoded code on any vCPU */
    uint64_t *writable; /* a bit a page: some vCPU may have it in a write TLB */
    uint64_t marking;   /* index + 1 of the page that gets its first mark; 0: none */
    uint8_t *drops;     /* a page: how often a write has dropped its blocks; stops at 255 */
    struct soft_exact *exact; /* see code.c */
};
struct err *soft_mem_build(struct soft_vm *vm);
void soft_mem_free(struct soft_vm *vm);
/* Switched regions show something else: see accel.h's ram_changed. */
void soft_mem_switch(struct soft_vm *vm);
/* The region of `gpa`, or NULL. */
const struct soft_ram *soft_ram_find(const struct soft_mem *mem, uint64_t gpa);

/* Must accesses be aligned? Then instructions run one at a time (debug.c), each access through
   mem.c. */
static inline bool soft_aligned_only(const struct soft_vcpu *v)
{
    return unlikely(v->rflags & FL_AC) && v->cpl == 3 && v->cr0 & CR0_AM;
}

struct walk {
    uint64_t gpa;
    uint64_t page_size;
    bool writable; /* a write would be allowed, and D is set already */
    bool global;
};
/* Translates for `access` with user rights or not; sets A and D; raises #PF. */
void soft_walk(struct soft_vcpu *v, uint64_t linear, enum soft_access access, bool user,
               struct walk *walk);
/* The same without #PF: false where it would be one. Paging is on. */
bool soft_walk_try(struct soft_vcpu *v, uint64_t linear, enum soft_access access, bool user,
                   struct walk *walk);
/* Host address of the instruction bytes at `linear` and their gpa; NULL outside RAM; raises. */
const uint8_t *soft_fetch_ptr(struct soft_vcpu *v, uint64_t linear, uint64_t *gpa);
/* A host address that may be written, or NULL (MMIO, ROM, code page, crossing) after the rights
   were checked. */
void *soft_write_ptr(struct soft_vcpu *v, uint64_t linear, unsigned size);
/* The same for atomics, also in a page with code: *code is the operand's gpa there, about which
   soft_code_written() is called before each write and soft_ram_written() after it, and otherwise
   UINT64_MAX. */
void *soft_atomic_ptr(struct soft_vcpu *v, uint64_t linear, unsigned size, uint64_t *code);
/* Brings the page of `linear` into the TLB, if it may be there, without raising. 64-bit code. */
bool soft_tlb_fill(struct soft_vcpu *v, uint64_t linear, bool write);
/* The same for one access; NULL where it would raise or is not of RAM that may be used so. */
uint8_t *soft_host_try(struct soft_vcpu *v, uint64_t linear, bool write);
/* Test mode crossings: is the access in a page to be done as if it were in two? */
bool soft_crossing_forced(const struct soft_vcpu *v, uint64_t linear, unsigned size);
void soft_space_free(struct soft_vcpu *v);
void soft_tlb_flush_writes(struct soft_vcpu *v);
void soft_tlb_flush_pcid(struct soft_vcpu *v, uint64_t pcid);
void soft_tlb_flush_pcid_page(struct soft_vcpu *v, uint64_t pcid, uint64_t linear);
void soft_jc_flush(struct soft_vcpu *v);
/* Drops the write entries of one host page. */
void soft_tlb_drop_write(struct soft_vcpu *v, const uint8_t *page);

/* code.c: pages that hold code, across vCPUs. */
/* These bytes of a page are code now, or about to be read as code. True: some were not marked yet,
 * and what was read of them before may be out of date. */
bool soft_code_mark(struct soft_vcpu *v, uint64_t gpa, unsigned bytes);
/* The same for bytes that may turn out not to be code: their lines alone. */
void soft_code_mark_lines(struct soft_vcpu *v, uint64_t gpa, unsigned bytes);
/* The bits of soft_mem.lines for `len` bytes from `at` of a page on, up to its end. */
static inline uint64_t soft_line_mask(unsigned at, unsigned len)
{
    unsigned first = at / 64, last = MIN((at + len - 1) / 64, 63u);
    return (last == 63 ? ~0ull : (1ull << (last + 1)) - 1) & ~((1ull << first) - 1);
}
/* A write of [gpa, gpa+len) to RAM by this vCPU or (v NULL) by a device: before and after it. */
void soft_code_written(struct soft_vm *vm, struct soft_vcpu *v, uint64_t gpa, unsigned len);
/* After a store of this vCPU that went past its TLBs: that, and the page is dirty. */
void soft_ram_written(struct soft_vcpu *v, uint64_t gpa, unsigned size);
void soft_code_listener(void *vm, uint64_t gpa, uint64_t len);
void soft_inbox(struct soft_vcpu *v);
void soft_sync_answer(struct soft_vcpu *v);

/* segment.c */
void soft_load_seg(struct soft_vcpu *v, unsigned seg, uint16_t selector);
/* Sets the hidden part as real mode and virtual 8086 mode do. */
void soft_set_seg_real(struct soft_vcpu *v, unsigned seg, uint16_t selector);
void soft_set_seg(struct soft_vcpu *v, unsigned seg, const struct x86_segment *value);
/* Reads the 8 bytes of a descriptor; false when outside its table. */
bool soft_descriptor(struct soft_vcpu *v, uint16_t selector, uint64_t *desc);
struct x86_segment soft_unpack(uint16_t selector, uint64_t desc);
void soft_set_cpl(struct soft_vcpu *v, unsigned cpl);
/* Stack of `cpl` from the TSS. */
void soft_tss_stack(struct soft_vcpu *v, unsigned cpl, uint16_t *ss, uint64_t *sp);

/* except.c */
/* Delivers an interrupt or exception through the IDT. `soft`: INT n, INT3, INTO (DPL is checked).
 */
void soft_deliver(struct soft_vcpu *v, int vector, bool soft, bool has_error, uint32_t error,
                  uint64_t return_rip);
bool soft_vector_has_error(int vector);

/* stack.h-like helpers in exec_stack.c */
void soft_push(struct soft_vcpu *v, unsigned size, uint64_t value);
uint64_t soft_pop(struct soft_vcpu *v, unsigned size);
/* Jump within CS: limit or canonical check, then next_rip. */
void soft_jump(struct soft_vcpu *v, uint64_t rip, unsigned opsize);
/* Flags that IRET and POPF may change at this privilege and operand size. */
uint32_t soft_popf_mask(const struct soft_vcpu *v, unsigned size);
/* 64 random bits of the host; false when it has none to give. */
bool soft_random(uint64_t *value);
/* Ends an exception's unwinding: delivers what soft_raise left; false is a triple fault. */
bool soft_deliver_raised(struct soft_vcpu *v);
/* Raises #GP unless the port may be used. */
bool soft_io_allowed(struct soft_vcpu *v, uint16_t port, unsigned size);

/* doorbell.c */
bool soft_doorbell(struct soft_vm *vm, uint64_t gpa, unsigned size, uint64_t value);

#endif
