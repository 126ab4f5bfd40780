/*
 * SIMD of the software engine: plans, checks, memory operands and exceptions around the native
 * stubs. See simd.h. Intel SDM vol. 1: 10 to 14; vol. 2: 2.4 (exception classes), vol. 3: 13.
 *
 * Everything runs on the vCPU's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/simd/simd.h"

#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <x86intrin.h>

#include "accel/soft/interp/fast.h"

#define REGION_SIZE (1u << 20)

/* The stubs of this thread's vCPU, for the signal handler. */
static __thread struct simd *current_simd;

/* SIGILL: the host has no such instruction. SIGFPE: an unmasked SSE exception. */
static void on_fault(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    struct simd *simd = current_simd;
    uintptr_t at = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
    if (simd && at - (uintptr_t)simd->exec < REGION_SIZE) {
        simd->io.fault = 1;
        simd->io.mxcsr_out = uc->uc_mcontext.fpregs->mxcsr;
        uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)(simd->exec + SIMD_RECOVER);
        return;
    }
    /* Not ours: the instruction faults again and ends the process, as it should. */
    signal(number, SIG_DFL);
}

static struct err *map_region(struct simd *simd)
{
    scoped(fd_cleanup) int fd = memfd_create("tenon-simd", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, REGION_SIZE) < 0)
        return err_errno(errno, "cannot create the memory for SIMD stubs");
    void *write = mmap(NULL, REGION_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (write == MAP_FAILED)
        return err_errno(errno, "cannot map the SIMD stubs");
    void *exec = mmap(NULL, REGION_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    if (exec == MAP_FAILED) {
        int error = errno;
        munmap(write, REGION_SIZE);
        return err_errno(error, "cannot map the SIMD stubs executable");
    }
    simd->write = write;
    simd->exec = exec;
    return NULL;
}

struct err *soft_simd_new(struct soft_vcpu *v)
{
    struct simd *simd = NULL;
    if (posix_memalign((void **)&simd, 64, sizeof(*simd)))
        return err_new("no memory for the SIMD unit");
    memset(simd, 0, sizeof(*simd));
    struct err *err = map_region(simd);
    if (err) {
        free(simd);
        return err;
    }
    simd->io.mxcsr_host = _mm_getcsr();
    simd->host_avx = __builtin_cpu_supports("avx");
    simd_emit_init(simd);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
    v->simd = simd;
    return NULL;
}

void soft_simd_free(struct soft_vcpu *v)
{
    struct simd *simd = v->simd;
    if (!simd)
        return;
    munmap(simd->write, REGION_SIZE);
    munmap((void *)simd->exec, REGION_SIZE);
    free(simd);
    v->simd = NULL;
}

/* ---- checks ---- */

void simd_check_sse(struct soft_vcpu *v)
{
    if (unlikely((v->cr0 & (CR0_EM | CR0_TS)) || !(v->cr4 & CR4_OSFXSR))) {
        if (v->cr0 & CR0_EM || !(v->cr4 & CR4_OSFXSR))
            soft_ud(v);
        soft_raise(v, VEC_NM, 0);
    }
}

void simd_check_avx(struct soft_vcpu *v)
{
    if (unlikely(!(v->cr4 & CR4_OSXSAVE) || (v->xcr0 & 6) != 6 || !(v->cr0 & CR0_PE) ||
                 v->rflags & FL_VM))
        soft_ud(v);
    if (unlikely(v->cr0 & CR0_TS))
        soft_raise(v, VEC_NM, 0);
}

void simd_check_mmx(struct soft_vcpu *v)
{
    if (v->cr0 & CR0_EM)
        soft_ud(v);
    if (v->cr0 & CR0_TS)
        soft_raise(v, VEC_NM, 0);
    if (simd_x87_pending(v))
        soft_raise(v, VEC_MF, 0);
}

/* VCVTPH2PS and VCVTPS2PH may be misaligned under AC too (SDM vol. 2, 2.4.11). */
static bool is_half(const struct insn *insn)
{
    return (insn->map == INSN_MAP_0F38 && insn->opcode == 0x13) ||
           (insn->map == INSN_MAP_0F3A && insn->opcode == 0x1d);
}

uint64_t simd_address(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan,
                      enum soft_access access)
{
    uint64_t linear = soft_linear(v, insn, plan->mem_len, access);
    if (unlikely(linear & plan->align))
        soft_gp(v, 0);
    if (!is_half(insn))
        soft_check_alignment(v, linear, plan->mem_len);
    return linear;
}

/* ---- the stub path ---- */

void soft_mxcsr_home(struct soft_vcpu *v)
{
    put_le32(v->xsave + XS_MXCSR, _mm_getcsr());
    _mm_setcsr(((struct simd *)v->simd)->io.mxcsr_host);
    v->mxcsr_live = false;
}

/* Puts the guest's MXCSR into the host's register, unless an instruction could trap then. */
static bool make_live(struct soft_vcpu *v)
{
    uint32_t mxcsr = get_le32(v->xsave + XS_MXCSR);
    if ((mxcsr & MXCSR_MASKS) != MXCSR_MASKS)
        return false;
    _mm_setcsr(mxcsr);
    v->mxcsr_live = true;
    return true;
}

uint64_t soft_simd_enter(struct soft_vcpu *v)
{
    bool sse = !(v->cr0 & (CR0_EM | CR0_TS)) && v->cr4 & CR4_OSFXSR;
    bool avx = !(v->cr0 & CR0_TS) && v->cr4 & CR4_OSXSAVE && (v->xcr0 & 6) == 6;
    if ((!sse && !avx) || !(v->mxcsr_live || make_live(v)))
        return 0;
    return (sse ? SIMD_SSE : 0) | (avx ? SIMD_AVX : 0);
}

void simd_run(struct soft_vcpu *v, const struct simd_plan *plan, void *operand)
{
    struct simd *simd = v->simd;
    struct simd_io *io = &simd->io;
    if (plan->gpr_in != SIMD_NO_GPR)
        io->gpr = v->r[plan->gpr_in];
    simd_stub_fn *stub = plan->stub;
    bool careful = plan->fp && (plan->mmx || !(v->mxcsr_live || make_live(v)));
    if (careful || plan->legacy)
        soft_mxcsr_leave(v); /* a legacy stub loads it from the image */
    if (careful) {
        stub = plan->careful;
        io->mxcsr_in = get_le32(v->xsave + XS_MXCSR);
        io->fault = 0;
        current_simd = simd;
    }
    stub(v->xsave, operand, v->r[X86_RDX], 0, io);
    if (careful) {
        /* After a fault only the flags are new: the stub had not stored its registers yet. */
        if (!plan->mmx || io->fault)
            put_le32(v->xsave + XS_MXCSR, io->mxcsr_out);
        if (unlikely(io->fault))
            soft_raise(v, v->cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD, 0);
    }
    if (plan->gpr_out != SIMD_NO_GPR)
        v->r[plan->gpr_out] = io->gpr;
    if (plan->flags_out)
        soft_set_arith(v, (uint32_t)io->flags & FL_ARITH);
}

static void exec_stub(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    struct simd *simd = v->simd;
    void *operand = simd->bounce;
    uint64_t linear = 0;
    if (plan->mmx)
        simd_check_mmx(v);
    if (plan->vex)
        simd_check_avx(v);
    else if (!plan->mmx || plan->fp || insn->opcode == 0xd6)
        simd_check_sse(v);
    if (plan->mem_len) {
        linear = simd_address(v, insn, plan, plan->writes ? ACC_WRITE : ACC_READ);
        if (plan->writes)
            soft_probe(v, linear, plan->mem_len, ACC_WRITE);
        else if (!(operand = simd_direct(v, linear, plan->mem_len)))
            soft_read(v, linear, operand = simd->bounce, plan->mem_len);
    }
    simd_run(v, plan, operand);
    if (plan->writes)
        simd_store(v, linear, simd->bounce, plan->mem_len);
}

static void exec_undefined(struct soft_vcpu *v, const struct insn *insn,
                           const struct simd_plan *plan)
{
    soft_ud(v);
}

bool simd_try(struct simd *simd, const struct simd_plan *plan)
{
    struct simd_io *io = &simd->io;
    memset(simd->trial, 0, sizeof(simd->trial));
    memset(simd->bounce, 0, sizeof(simd->bounce));
    put_le16(simd->trial + XS_FCW, 0x37f);
    put_le32(simd->trial + XS_MXCSR, MXCSR_RESET);
    io->mxcsr_in = MXCSR_RESET;
    io->flags = 2;
    io->gpr = 0;
    io->fault = 0;
    current_simd = simd;
    plan->careful(simd->trial, simd->bounce, 0, 0, io);
    return !io->fault;
}

/* ---- plans ---- */

/* Does it round, compare or convert, so that MXCSR matters? */
static bool uses_mxcsr(const struct insn *insn)
{
    uint8_t op = insn->opcode;
    if (insn->map == INSN_MAP_0F)
        return (op >= 0x2a && op <= 0x2f && op != 0x2b) || op == 0x51 ||
               (op >= 0x58 && op <= 0x5f) || op == 0x7c || op == 0x7d || op == 0xc2 || op == 0xd0 ||
               op == 0xe6;
    if (insn->map == INSN_MAP_0F38)
        return op == 0x13 || (op >= 0x96 && op <= 0xbf);
    return (op >= 0x08 && op <= 0x0b) || op == 0x1d || op == 0x40 || op == 0x41;
}

bool simd_sets_flags(const struct insn *insn)
{
    uint8_t op = insn->opcode;
    if (insn->map == INSN_MAP_0F)
        return op == 0x2e || op == 0x2f;
    if (insn->map == INSN_MAP_0F38)
        return op == 0x17 || op == 0x0e || op == 0x0f;
    return op >= 0x60 && op <= 0x63;
}

/* Which ModRM field is a general register, and which way it goes. */
static void plan_gpr(const struct insn *insn, struct simd_plan *plan)
{
    uint8_t op = insn->opcode, *in = &plan->gpr_in, *out = &plan->gpr_out;
    uint8_t rm = insn->is_mem ? SIMD_NO_GPR : insn->rm;
    *in = *out = SIMD_NO_GPR;
    if (insn->map == INSN_MAP_0F) {
        if ((op == 0x2a && insn->pp >= 2) || op == 0x6e || op == 0xc4)
            *in = rm;
        else if (op == 0x7e && insn->pp < 2)
            *out = rm;
        else if (((op == 0x2c || op == 0x2d) && insn->pp >= 2) || op == 0x50 || op == 0xc5 ||
                 op == 0xd7)
            *out = insn->reg;
    } else if (insn->map == INSN_MAP_0F3A) {
        if (op >= 0x14 && op <= 0x17)
            *out = rm;
        else if (op == 0x20 || op == 0x22)
            *in = rm;
        else if (op == 0x60 || op == 0x61)
            *in = X86_RAX;
        if (op == 0x61 || op == 0x63)
            *out = X86_RCX;
    }
}

/* Legacy encodings fault on misaligned 16-byte operands, VEX ones only where they say "aligned". */
static uint8_t alignment(const struct insn *insn)
{
    uint8_t op = insn->opcode;
    if (insn->mem_size < 16)
        return 0;
    if (insn->map == INSN_MAP_0F && (op == 0x28 || op == 0x29 || op == 0x2b || op == 0xe7 ||
                                     ((op == 0x6f || op == 0x7f) && insn->pp == 1)))
        return insn->mem_size - 1;
    if (insn->map == INSN_MAP_0F38 && op == 0x2a)
        return insn->mem_size - 1;
    if (insn->prefix & INSN_VEX)
        return 0;
    if (insn->map == INSN_MAP_0F &&
        (((op == 0x10 || op == 0x11) && insn->pp < 2) || op == 0x6f || op == 0x7f || op == 0xf0))
        return 0;
    if (insn->map == INSN_MAP_0F3A && op >= 0x60 && op <= 0x63)
        return 0;
    return 15;
}

static void add_reg(struct simd_plan *plan, uint8_t reg)
{
    for (unsigned i = 0; i < plan->reg_count; i++) {
        if (plan->regs[i] == reg)
            return;
    }
    plan->regs[plan->reg_count++] = reg;
}

/* Vector registers that the instruction may read or write. */
static void plan_registers(const struct insn *insn, struct simd_plan *plan)
{
    uint8_t op = insn->opcode;
    bool map0f = insn->map == INSN_MAP_0F, map3a = insn->map == INSN_MAP_0F3A;
    bool reg_is_gpr = plan->gpr_out == insn->reg && map0f &&
                      (op == 0x2c || op == 0x2d || op == 0x50 || op == 0xc5 || op == 0xd7);
    bool rm_is_gpr = (map0f && (op == 0x6e || op == 0xc4 || (op == 0x7e && insn->pp < 2) ||
                                (op == 0x2a && insn->pp >= 2))) ||
                     (map3a && ((op >= 0x14 && op <= 0x17) || op == 0x20 || op == 0x22));
    bool extension = map0f && op >= 0x71 && op <= 0x73;
    if (!reg_is_gpr && !extension)
        add_reg(plan, insn->reg);
    if (!insn->is_mem && !rm_is_gpr)
        add_reg(plan, insn->rm);
    if (insn->prefix & INSN_VEX)
        add_reg(plan, insn->vex_v);
    if (map3a && op >= 0x4a && op <= 0x4c && insn->prefix & INSN_VEX)
        add_reg(plan, (insn->imm >> 4 & (insn->mode == INSN_64 ? 15 : 7)));
    bool implicit0 = (insn->map == INSN_MAP_0F38 && !(insn->prefix & INSN_VEX) &&
                      (op == 0x10 || op == 0x14 || op == 0x15 || op == 0xcb)) ||
                     (map3a && (op == 0x60 || op == 0x62));
    if (implicit0)
        add_reg(plan, 0);
}

static void plan_operands(const struct insn *insn, struct simd_plan *plan)
{
    plan->vex = insn->prefix & INSN_VEX;
    plan->mem_len = insn->is_mem ? insn->mem_size : 0;
    plan->reads = insn->is_mem && insn->mem_access & INSN_MEM_READ;
    plan->writes = insn->is_mem && insn->mem_access & INSN_MEM_WRITE;
    plan->mmx = simd_is_mmx(insn);
}

static void plan_stub(const struct insn *insn, struct simd_plan *plan)
{
    plan->fp = uses_mxcsr(insn);
    plan->flags_out = simd_sets_flags(insn);
    plan_gpr(insn, plan);
    if (!plan->mmx)
        plan_registers(insn, plan);
}

static void make_plan(struct simd *simd, const struct insn *insn, struct simd_plan *plan)
{
    memset(plan, 0, sizeof(*plan));
    plan->gpr_in = plan->gpr_out = SIMD_NO_GPR;
    if (insn->cls == INSN_CLASS_X87) {
        plan->exec = simd_exec_x87;
        simd_plan_x87(insn, plan);
        if ((insn->is_mem && !plan->mem_len) || !simd_emit(simd, insn, plan))
            plan->exec = exec_undefined;
        return;
    }
    plan_operands(insn, plan);
    if (!plan->mmx) {
        plan->align = alignment(insn);
        plan->exec = simd_move_plan(insn);
        if (!plan->exec)
            plan->exec = simd_mask_plan(insn);
        if (plan->exec)
            return;
    } else if (insn->map == INSN_MAP_0F && insn->opcode == 0xf7) {
        plan->exec = simd_exec_maskmovq;
        return;
    } else if (plan->mem_len == 16) {
        plan->align = 15;
    }
    plan_stub(insn, plan);
    plan->exec = simd_emit(simd, insn, plan) ? exec_stub : exec_undefined;
}

bool simd_native(struct soft_vcpu *v, const struct insn *insn, struct simd_plan *plan)
{
    memset(plan, 0, sizeof(*plan));
    plan_operands(insn, plan);
    if (insn->cls != INSN_CLASS_SIMD || plan->mmx || (insn->is_mem && !plan->mem_len))
        return false;
    plan->align = alignment(insn);
    plan_stub(insn, plan);
    soft_mxcsr_leave(v); /* a trial loads its own */
    return simd_emit(v->simd, insn, plan);
}

static const struct simd_slot *find_slot(struct soft_vcpu *v, const struct insn *insn)
{
    struct simd *simd = v->simd;
    /* Two loads that overlap in one byte: bytes past the instruction's end are zero. */
    uint64_t key[2] = {get_le64(insn->raw), get_le64(insn->raw + INSN_MAX - 8) >> 8};
    key[1] |= (uint64_t)(insn->mode + 1) << 56;
    uint64_t hash = (key[0] ^ (key[1] << 7 | key[1] >> 57)) * 0x9e3779b97f4a7c15ull;
    struct simd_slot *slot = &simd->slots[hash >> 54 & (SIMD_WAYS - 1)];
    if (unlikely(slot->key[0] != key[0] || slot->key[1] != key[1])) {
        soft_mxcsr_leave(v); /* a trial loads its own */
        slot->key[1] = 0;
        slot->serial = 0;
        make_plan(simd, insn, &slot->plan);
        slot->key[0] = key[0];
        slot->key[1] = key[1];
        slot->serial = ++simd->serial ? simd->serial : ++simd->serial;
    }
    return slot;
}

void soft_simd_exec(struct soft_vcpu *v, const struct insn *insn)
{
    const struct simd_slot *slot = find_slot(v, insn);
    slot->plan.exec(v, insn, &slot->plan);
}

/* The op keeps its slot (c, d) and the plan's serial number (disp): good until the plan goes. */
const struct op *fast_simd(struct soft_vcpu *v, const struct op *op)
{
    struct simd *simd = v->simd;
    const struct insn *insn = op->insn;
    v->rip = v->r[R_BLOCK] + op->off;
    v->next_rip = v->rip + op->len;
    v->stack_access = false;
    /* Without a plan yet, c and d are whatever the selection left there. */
    const struct simd_slot *slot = op->disp ? &simd->slots[op->c << 8 | op->d] : NULL;
    if (unlikely(!slot || slot->serial != (uint32_t)op->disp)) {
        slot = find_slot(v, insn);
        struct op *own = (struct op *)(uintptr_t)op;
        unsigned index = (unsigned)(slot - simd->slots);
        own->c = index >> 8;
        own->d = index & 0xff;
        own->disp = (int32_t)slot->serial;
    }
    slot->plan.exec(v, insn, &slot->plan);
    NEXT_OP(v, op);
}
