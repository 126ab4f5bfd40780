/*
 * The software CPU engine: shared structures of its files.
 *
 * A vCPU is one host thread that calls vcpu_run. Guest code is decoded once into blocks of `struct
 * op` (exec.h), cached by guest-physical address (block.c); guest memory is reached through
 * software TLBs (mem.c). The LAPIC, MSRs, CPUID, clocks and the SIMD state have files of their own.
 *
 * Threads: everything in struct soft_vcpu belongs to its thread, but the fields marked "any
 * thread". Other threads speak to a vCPU through soft_post() only.
 *
 * Exceptions unwind: soft_raise() does not return, it leaves the instruction through longjmp to
 * vcpu_run, so an instruction must not change state before its last check. `rip` is the address of
 * the current instruction in every executor and every raise; `next_rip` the one after it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_SOFT_H
#define TENON_ACCEL_SOFT_SOFT_H

#include <setjmp.h>
#include <stdatomic.h>

#include "accel/accel.h"
#include "accel/soft/check/modes.h"
#include "accel/soft/decode/decode.h"
#include "accel/soft/xlate/frame.h"
#include "base/lock.h"

struct lapic;
struct soft_mirror; /* mem/mirror.c */
struct lockstep;    /* check/lockstep.c */
struct few;         /* check/few.c */
struct soft_code;   /* block cache, block.c */
struct soft_clock;  /* timer thread and TSC, timer.c */
struct soft_irqfds;

/* Arithmetic and system flags of RFLAGS. */
#define FL_CF 0x1u
#define FL_PF 0x4u
#define FL_AF 0x10u
#define FL_ZF 0x40u
#define FL_SF 0x80u
#define FL_TF 0x100u
#define FL_IF 0x200u
#define FL_DF 0x400u
#define FL_OF 0x800u
#define FL_IOPL 0x3000u
#define FL_IOPL_SHIFT 12
#define FL_NT 0x4000u
#define FL_RF 0x10000u
#define FL_VM 0x20000u
#define FL_AC 0x40000u
#define FL_VIF 0x80000u
#define FL_VIP 0x100000u
#define FL_ID 0x200000u
#define FL_ARITH (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

#define CR0_PE 0x1u
#define CR0_MP 0x2u
#define CR0_EM 0x4u
#define CR0_TS 0x8u
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_WP 0x10000u
#define CR0_AM 0x40000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u
#define CR4_VME 0x1u
#define CR4_PVI 0x2u
#define CR4_TSD 0x4u
#define CR4_DE 0x8u
#define CR4_PSE 0x10u
#define CR4_PAE 0x20u
#define CR4_MCE 0x40u
#define CR4_PGE 0x80u
#define CR4_PCE 0x100u
#define CR4_OSFXSR 0x200u
#define CR4_OSXMMEXCPT 0x400u
#define CR4_UMIP 0x800u
#define CR4_FSGSBASE 0x10000u
#define CR4_PCIDE 0x20000u
#define CR4_OSXSAVE 0x40000u
#define CR4_SMEP 0x100000u
#define EFER_SCE 0x1u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define EFER_NXE 0x800u

#define DR6_BS 0x4000u

enum soft_vector {
    VEC_DE = 0,
    VEC_DB = 1,
    VEC_NMI = 2,
    VEC_BP = 3,
    VEC_OF = 4,
    VEC_BR = 5,
    VEC_UD = 6,
    VEC_NM = 7,
    VEC_DF = 8,
    VEC_TS = 10,
    VEC_NP = 11,
    VEC_SS = 12,
    VEC_GP = 13,
    VEC_PF = 14,
    VEC_MF = 16,
    VEC_AC = 17,
    VEC_MC = 18,
    VEC_XM = 19,
};

/* Indexes of soft_vcpu.r beyond the GPRs. */
enum soft_reg {
    R_ZERO = INSN_REG_NONE,
    R_BLOCK = INSN_REG_RIP, /* rip of the running block's first byte */
    R_SEG = 18,             /* +enum x86_seg: base that address generation adds (0 in 64-bit code
                               for all but FS and GS) */
    R_COUNT = 24
};

/* Events that other threads post to a vCPU: soft_vcpu.events. */
#define EV_KICK (1u << 0) /* leave vcpu_run with VM_EXIT_KICKED */
#define EV_INTR (1u << 1) /* the LAPIC may have something to deliver: ask lapic_pending() */
#define EV_NMI (1u << 2)
#define EV_INIT (1u << 3)
#define EV_SIPI (1u << 4)       /* vector in soft_vcpu.sipi_vector */
#define EV_EXTINT (1u << 5)     /* soft_vm.extint changed */
#define EV_CODE (1u << 6)       /* code invalidations wait in the inbox */
#define EV_SYNC (1u << 7)       /* another vCPU waits for us to drop write TLB entries */
#define EV_TLB_WRITE (1u << 8)  /* drop all write TLB entries (dirty log round) */
#define EV_TLB_ALL (1u << 9)    /* drop all translations and code (RAM changed) */
#define EV_WAKE (1u << 10)      /* only ends the sleep */
#define EV_NMI_AGAIN (1u << 11) /* a second NMI, while EV_NMI was still posted */

/* Why interrupts are held for an instruction. MOV SS and POP SS hold debug exceptions as well. */
#define SHADOW_STI 1
#define SHADOW_SS 2

/*
 * Software TLB. `tag` is the guest page; the probe `va ^ tag <= 4096 - size` checks page and
 * crossing in one compare. An empty entry's tag names a page that belongs to another slot.
 */
struct soft_tlbe {
    uint64_t tag;
    uint64_t addend; /* host address - guest linear address */
};

#define TLB_BITS 10
#define TLB_SIZE (1u << TLB_BITS)
#define TLBX_BITS 8
#define TLBX_SIZE (1u << TLBX_BITS)
#define HUGE_BITS 6
#define HUGE_SIZE (1u << HUGE_BITS)
#define JC_BITS 14
#define JC_SIZE (1u << JC_BITS)
#define TLB_LOG 192
#define JC_LOG 1024

enum soft_access { ACC_READ, ACC_WRITE, ACC_EXEC };

struct block;

/* Jump cache: linear rip to block. Keys of 16- and 32-bit code carry a bit above their address. */
#define JC_SALT_16 (1ull << 56)
#define JC_SALT_32 (1ull << 57)
#define JC_SALT_FLAT (1ull << 58) /* and 32: fast_flat.c */
struct soft_jc {
    uint64_t key;
    struct block *block;
};

/* For the C that translated code calls, and for signals. */
#define SPACE_STACK KIB(64)

/*
 * Private TLBs, so that a change of CR3 or CPL is one of a pointer: a space for the supervisor, and
 * one for the user of each address space. A change of CR3 leaves the supervisor's global pages.
 */
struct soft_space {
    uint8_t stack[SPACE_STACK]; /* of translated code: below its frame */
    struct xlate_frame frame __attribute__((aligned(16)));
    struct soft_sites sites[2]; /* to read, to write */
    struct soft_mirror *mirror; /* NULL: none */
    uint8_t heat[4096]; /* how often sites were filled for a page since it was flushed, hashed */
    struct soft_tlbe read[TLB_SIZE];
    struct soft_tlbe write[TLB_SIZE];
    struct soft_tlbe exec[TLBX_SIZE];
    struct soft_tlbe huge[HUGE_SIZE]; /* to read, 2 MiB of a large page an entry */
    struct soft_jc jc[JC_SIZE];
    /* Slots that a change of CR3 empties: filled since, and not of a supervisor's global page. More
       of them than fit: all slots. */
    uint16_t log_read[TLB_LOG], log_write[TLB_LOG], log_exec[TLB_LOG], log_jc[JC_LOG];
    uint32_t n_read, n_write, n_exec, n_jc;
    uint64_t global[2][TLB_SIZE / 64]; /* the same of read and write */
    uint64_t huge_global;
    uint64_t exec_global[TLBX_SIZE / 64]; /* slots of exec that hold a supervisor's global page */
    uint64_t exec_seen[64];               /* pages that jc may hold: a bit a page, hashed */
    /* Fragments of large pages lie in slots of their own. The biggest page that has some, or 0, and
       the GiBs where they are, a bit each, hashed. */
    uint64_t large, large_near;
};

#define SOFT_ASIDS 8

struct soft_vm {
    struct gmem *gmem;
    const struct accel_io *io;
    void *opaque;
    unsigned vcpu_count;
    struct soft_vcpu *vcpu[ACCEL_VCPUS_MAX]; /* NULL until created */
    struct soft_mem *mem;                    /* RAM lookup, page flags: mem.c */
    struct soft_clock *clock;                /* timer.c */
    struct soft_irqfds *irqfds;
    struct soft_doorbells *doorbells;
    _Atomic uint32_t split_busy; /* atomics that cross a page or hit MMIO: atomic.c */
    struct lock table_lock;      /* LOCK_ACCEL: doorbells, irqfds, routes */
    struct lock code_lock;       /* marks of code pages, rendezvous */
    _Atomic uint32_t extint;     /* level of the PIC's INTR */
    uint64_t ioapic_level[4];    /* vectors that want an EOI broadcast: a bit each */
    struct {
        uint8_t vector;
        bool level, used;
    } ioapic_pin[ACCEL_IOAPIC_PINS];
    uint32_t tsc_khz;
    bool dirty_log;
    struct soft_modes modes;
    uint32_t xlate_after; /* executions before a block is translated; 0: never */
    bool started;         /* table_lock: the RAM table was checked before the first run */
};

/* State that a vCPU's run loop must not keep in registers is volatile or atomic. */
/*
 * The page with code that was written to last, in place of the write-TLB entry that it must not
 * have, and as long-lived as that would be: data beside code is written again and again.
 */
struct soft_beside {
    uint64_t page;            /* linear */
    struct soft_space *space; /* NULL: there is none */
    uint8_t *host;
    uint64_t gpa;
    uint64_t *lines; /* the page's word of soft_mem.lines */
};

struct soft_vcpu {
    /* Hot: kept together at the front. */
    uint64_t r[R_COUNT];     /* enum x86_reg, then enum soft_reg */
    uint64_t cc_dst, cc_src; /* lazy flags: flags.h */
    uint32_t cc_op;
    _Atomic uint32_t events;  /* any thread; EV_* */
    struct soft_space *space; /* of the current address space and privilege */
    uint64_t rip;             /* of the current instruction, where an executor runs */
    uint64_t next_rip;
    uint64_t icount; /* instructions finished */
    uint64_t salt;   /* mode part of a jump-cache key: 0 in 64-bit code */
    uint32_t rflags; /* without the arithmetic flags, which are lazy */
    uint8_t cpl;
    uint8_t mode;      /* enum insn_mode of CS */
    bool long_mode;    /* EFER.LMA */
    bool flat;         /* 32-bit code in segments that need no look: fast_flat.c */
    bool stack_access; /* a bad address is #SS, not #GP: set by stack instructions */
    uint8_t shadow;    /* the next instruction runs with interrupts held: SHADOW_* */
    bool mxcsr_live;   /* the host's MXCSR holds the guest's: simd.h */
    bool stop;         /* run loop: look at events, state or mode before the next block */

    struct soft_vm *vm;
    unsigned index;                            /* also the APIC ID */
    struct x86_segment seg[X86_SEGS], ldt, tr; /* change bases through soft_seg_load/base only */
    struct x86_table_register gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, efer, xcr0;
    uint64_t dr[8];              /* after a change of 0..3 or 7: soft_debug_changed() */
    uint64_t debug_pending;      /* DR6 bits that wait for the instruction's end, or past MOV SS */
    bool watching;               /* a data breakpoint is on, the guest's or the debugger's */
    struct accel_debug debugger; /* what a debugger outside the guest wants */
    int debugger_hit;            /* its point whose access has happened; -1: none */
    struct x86_msrs msr;         /* all MSRs without a field elsewhere; tsc fields by timer.c */
    int64_t tsc_offset;          /* guest TSC = host TSC + this */
    uint64_t features;           /* bits of enum insn_feature */
    bool amd;                    /* CPUID names AMD or its kin: SYSCALL works in 32-bit code too */
    uint64_t phys_mask;          /* valid bits of a physical address */
    struct cpuid_table cpuid;
    struct lapic *lapic;

    /* Guest x87, MMX, SSE, AVX state between instructions: standard XSAVE format, all there. */
    uint8_t xsave[X86_XSAVE_SIZE] __attribute__((aligned(64)));
    void *simd; /* stubs and scratch of simd.c */

    uint8_t activity; /* enum x86_activity */
    _Atomic uint8_t sipi_vector;
    bool intr_maybe;     /* lapic_pending() may answer yes */
    uint8_t nmi_pending; /* 0 to 2: one may wait while another begins */
    bool nmi_masked;
    /* An exception or interrupt that is being delivered, for double faults. */
    int delivering;      /* vector, or -1 */
    int delivering_kind; /* the same for the double-fault rules: -1 for interrupts */
    bool delivering_ext; /* not asked for by the program: EXT in error codes */
    bool external;       /* what soft_deliver gets next is an interrupt */
    int raised;          /* soft_raise's arguments, across the unwinding */
    uint32_t raised_error;
    bool exc_pending, exc_has_error; /* to be injected by vcpu_set */
    uint8_t exc_vector;
    uint32_t exc_error;
    int inject_vector; /* acknowledged interrupt to inject (vcpu_set), or -1 */

    struct soft_beside beside;
    struct soft_space *supervisor, *user[SOFT_ASIDS]; /* made when first used */
    uint64_t asid_pcid[SOFT_ASIDS];                   /* whose translations the slot holds */
    uint64_t asid_root[SOFT_ASIDS];
    uint64_t asid_used[SOFT_ASIDS];
    uint64_t asid_clock;
    unsigned asid;
    unsigned mirrored; /* mappings made for mirrors since they were last reset */
    uint32_t pauses;
    bool split_held;
    bool low_global; /* a global page was seen in the lower half */

    struct soft_code *code;
    struct lockstep *lockstep; /* NULL: not in lockstep */
    struct few *few;           /* NULL: all of the TLB may be used */
    jmp_buf unwind;
    struct vm_exit *exit;
    bool shutdown; /* triple fault */

    _Atomic uint32_t running; /* any thread: 1 inside guest code, 0 asleep or outside */
    pthread_t thread;         /* who set `running` */
    _Atomic uint32_t sync_seen;
    struct lock inbox_lock;
    uint64_t inbox[64];   /* guest-physical pages with changed code */
    unsigned inbox_count; /* > 64: everything */

    struct accel_stats stats;
};

/* ---- events (run.c) ---- */

/* Any thread: sets event bits and wakes the vCPU. */
void soft_post(struct soft_vcpu *v, uint32_t events);
void soft_post_nmi(struct soft_vcpu *v);

/* ---- exceptions (except.c) ---- */

/* Raise `vector` at v->rip (faults) and leave the instruction. `error` is ignored where none. */
void soft_raise(struct soft_vcpu *v, int vector, uint32_t error) __attribute__((noreturn, cold));
static inline void __attribute__((noreturn)) soft_ud(struct soft_vcpu *v)
{
    soft_raise(v, VEC_UD, 0);
}
static inline void __attribute__((noreturn)) soft_gp(struct soft_vcpu *v, uint32_t error)
{
    soft_raise(v, VEC_GP, error);
}
/* Ends vcpu_run with VM_EXIT_ERROR. */
void soft_fail(struct soft_vcpu *v, const char *format, ...)
    __attribute__((noreturn, cold, format(printf, 2, 3)));

/* ---- a debugger outside the guest (debugger.c) ---- */

struct err *soft_vcpu_debug(struct accel_vcpu *vcpu, const struct accel_debug *debug);
/* Ends vcpu_run with VM_EXIT_DEBUG. */
void soft_debugger_leave(struct soft_vcpu *v, enum accel_debug_event event, unsigned point)
    __attribute__((noreturn, cold));
/* Must instructions run one at a time for it? Before and behind such an instruction: leaves when
 * there is something to tell. */
static inline bool soft_debugger_steps(const struct soft_vcpu *v)
{
    return v->debugger.step || v->debugger.count;
}
void soft_debugger_before(struct soft_vcpu *v);
void soft_debugger_after(struct soft_vcpu *v);
/* As soft_watched_page() and soft_watch(), which ask them. */
bool soft_debugger_watches(const struct soft_vcpu *v);
bool soft_debugger_watched_page(const struct soft_vcpu *v, uint64_t linear);
void soft_debugger_watch(struct soft_vcpu *v, uint64_t linear, unsigned len,
                         enum soft_access access);

/* ---- debug registers (debug.c) ---- */

void soft_debug_changed(struct soft_vcpu *v);
/* Data breakpoints: may the page not have a TLB entry? An access happened; only if v->watching. */
bool soft_watched_page(const struct soft_vcpu *v, uint64_t linear);
void soft_watch(struct soft_vcpu *v, uint64_t linear, unsigned len, enum soft_access access);
void soft_watch_port(struct soft_vcpu *v, uint16_t port, unsigned len);
/* A #DB goes to its handler. */
void soft_debug_delivered(struct soft_vcpu *v);

/* ---- guest memory by linear address at the current privilege (mem.c) ---- */

/* `size` 1, 2, 4 or 8, any alignment; raise #PF and the like. RAM, ROM and MMIO alike. */
uint64_t soft_load(struct soft_vcpu *v, uint64_t linear, unsigned size);
void soft_store(struct soft_vcpu *v, uint64_t linear, unsigned size, uint64_t value);
/* Any length up to a page or two. A write checks the whole range before it changes a byte. */
void soft_read(struct soft_vcpu *v, uint64_t linear, void *bytes, unsigned len);
void soft_write(struct soft_vcpu *v, uint64_t linear, const void *bytes, unsigned len);
/* Raises what a write (or read) of the range would. */
void soft_probe(struct soft_vcpu *v, uint64_t linear, unsigned len, enum soft_access access);
/* The same with supervisor rights: descriptor tables, TSS. */
uint64_t soft_load_sys(struct soft_vcpu *v, uint64_t linear, unsigned size);
void soft_store_sys(struct soft_vcpu *v, uint64_t linear, unsigned size, uint64_t value);
/* Raises #AC, if it is on, for a misaligned access of `size` bytes. soft_load and soft_store do
   that themselves. */
void soft_check_alignment(struct soft_vcpu *v, uint64_t linear, unsigned size);

/* The linear address of the instruction's ModRM operand: segment limits and rights checked for
   `len` bytes in 16- and 32-bit code (#GP, #SS). */
uint64_t soft_linear(struct soft_vcpu *v, const struct insn *insn, unsigned len,
                     enum soft_access access);
/* Its offset in the segment (LEA). */
uint64_t soft_ea(const struct soft_vcpu *v, const struct insn *insn);
/* seg:offset to linear, with checks. */
uint64_t soft_seg_linear(struct soft_vcpu *v, unsigned seg, uint64_t offset, unsigned len,
                         enum soft_access access);

/* Physical access: RAM, the LAPIC page, doorbells, MMIO; never faults. Size 1, 2, 4, 8. */
uint64_t soft_phys_load(struct soft_vcpu *v, uint64_t gpa, unsigned size);
void soft_phys_store(struct soft_vcpu *v, uint64_t gpa, unsigned size, uint64_t value);

/* Forget translations: all; of one PCID; one page everywhere. */
void soft_tlb_flush(struct soft_vcpu *v);
void soft_tlb_flush_page(struct soft_vcpu *v, uint64_t linear);
/* CR0, CR3, CR4, EFER, CPL or CS changed: pick space, mode, salt. Ends the running block. */
void soft_mode_changed(struct soft_vcpu *v);
/* Only CPL changed, and CS, from 64-bit code to 64-bit code. */
void soft_cpl_changed(struct soft_vcpu *v);

/* ---- registers (flags.c, segment.c) ---- */

/* RFLAGS in full, and the arithmetic flags alone. */
uint32_t soft_flags(struct soft_vcpu *v);
void soft_set_flags(struct soft_vcpu *v, uint32_t flags); /* all of RFLAGS */
void soft_set_arith(struct soft_vcpu *v, uint32_t flags); /* FL_ARITH bits only */
void soft_seg_base(struct soft_vcpu *v, unsigned seg, uint64_t base);

static inline bool soft_canonical(uint64_t linear)
{
    return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

/* ---- the parts with headers' worth of their own, all called on the vCPU's thread ---- */

/* msr_*.c: false is #GP. May call soft_mode_changed (EFER) and soft_seg_base (FS_BASE...). */
bool soft_rdmsr(struct soft_vcpu *v, uint32_t index, uint64_t *value);
bool soft_wrmsr(struct soft_vcpu *v, uint32_t index, uint64_t value);

/* cpuid_soft.c */
struct err *soft_cpuid_supported(struct accel_vm *vm, struct cpuid_table *table);
/* CPUID instruction: table plus what follows the state (OSXSAVE, APIC, leaf 0xD sizes). */
void soft_cpuid(struct soft_vcpu *v, uint32_t leaf, uint32_t subleaf, struct cpuid_entry *answer);
/* v->features and v->phys_mask from v->cpuid. */
void soft_cpuid_apply(struct soft_vcpu *v);

/* timer.c: clock thread, TSC. */
struct err *soft_clock_new(struct soft_vm *vm); /* sets vm->clock and vm->tsc_khz */
void soft_clock_free(struct soft_vm *vm);
uint64_t soft_tsc(struct soft_vcpu *v); /* what RDTSC returns */
void soft_tsc_set(struct soft_vcpu *v, uint64_t value);

/* lapic.c. Locking is its own; lapic_post_* may be called by any thread. */
struct lapic *lapic_new(struct soft_vcpu *v);
void lapic_free(struct lapic *lapic);
void lapic_reset(struct lapic *lapic, bool init); /* INIT keeps the ID and the base */
/* Highest vector that priority lets through, or -1; lapic_ack moves it to in-service. */
int lapic_pending(struct lapic *lapic);
void lapic_ack(struct lapic *lapic, int vector);
/* Does LINT0 let the PIC's ExtINT through (or is the LAPIC off, as after reset)? */
bool lapic_extint_open(struct lapic *lapic);
/* Register page: 4-byte accesses at 16-byte steps; others as the SDM has it. */
uint32_t lapic_read(struct lapic *lapic, uint32_t offset);
void lapic_write(struct lapic *lapic, uint32_t offset, uint32_t value);
/* Guest-physical base when the xAPIC page is on, else UINT64_MAX. */
uint64_t lapic_base(const struct lapic *lapic);
/* CR8: bits 7:4 of TPR. */
uint8_t lapic_cr8(const struct lapic *lapic);
void lapic_set_cr8(struct lapic *lapic, uint8_t value);
/* State page of struct x86_state (msr.apic_base, msr.tsc_deadline beside it). */
void lapic_get(struct lapic *lapic, uint8_t page[1024]);
void lapic_set(struct lapic *lapic, const uint8_t page[1024]);
/* Any thread: an MSI, or an IOAPIC message in the same form. */
void soft_msi(struct soft_vm *vm, uint64_t address, uint32_t data);
/* lapic.c answers an EOI of a vector in vm->ioapic_level through vm->io->ioapic_eoi. */

/* simd*.c: MMX, SSE, AVX, x87. Checks CR0.EM/TS, CR4.OSFXSR/OSXSAVE and XCR0 itself. Executes one
   instruction on v->xsave (and v->r, flags), memory through soft_read/soft_write. */
struct err *soft_simd_new(struct soft_vcpu *v);
void soft_simd_free(struct soft_vcpu *v);
void soft_simd_exec(struct soft_vcpu *v, const struct insn *insn);
/* Brings the guest's MXCSR home to v->xsave, before C that looks at it or computes with doubles. */
void soft_mxcsr_home(struct soft_vcpu *v);
static inline void soft_mxcsr_leave(struct soft_vcpu *v)
{
    if (v->mxcsr_live)
        soft_mxcsr_home(v);
}
/* xstate*.c: FXSAVE, FXRSTOR, XSAVE*, XRSTOR*, LDMXCSR, STMXCSR, EMMS, FWAIT, XGETBV, XSETBV. */
void soft_xstate_exec(struct soft_vcpu *v, const struct insn *insn);
/* Power-on value of v->xsave and v->xcr0. */
void soft_xstate_reset(struct soft_vcpu *v);

#endif
