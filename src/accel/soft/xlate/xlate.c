/*
 * The translator's code buffer, its common parts, and the ops that lead into translated code.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "accel/soft/interp/ops.h"
#include "accel/soft/xlate/xlate_emit.h"

#define CODE_SIZE MIB(64)
#define SITE_COUNT (KIB(1) * 512)

/* ---- common parts ---- */

#define V_REG(n) ((int32_t)(offsetof(struct soft_vcpu, r) + 8 * (n)))

static const uint8_t kept_registers[] = {3, 5, 12, 13, 14, 15}; /* rbx rbp r12-r15 */

static bool is_moved(unsigned reg)
{
    return reg == X86_RSP || (reg >= 9 && reg <= 11);
}

/* enter(v, code, flags): a C function that runs code and returns what `leave` gets in T0. */
static void emit_enter(struct emitter *e)
{
    const unsigned rdi = 7, rsi = 6, rdx = 2, rax = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(kept_registers); i++) {
        unsigned reg = kept_registers[i];
        emit_opcode(e, false, 0x50 | (reg & 7), 0, 0, reg);
    }
    emit_alu_imm(e, true, 5, HOST_STACK, sizeof(struct xlate_frame));
    emit_store(e, HOST_STACK, FRAME(vcpu), rdi);
    emit_rr(e, false, 0x89, rdx, rdx); /* clears the upper half */
    emit_store(e, HOST_STACK, FRAME(flags), rdx);
    emit_mov(e, HOST_T0, rsi);
    emit_load(e, rax, rdi, offsetof(struct soft_vcpu, space));
    emit_store(e, HOST_STACK, FRAME(space), rax);
    emit_load(e, rax, rdi, V_REG(R_BLOCK));
    emit_alu_imm(e, true, 4, rax, -(int32_t)GUEST_PAGE_SIZE);
    emit_store(e, HOST_STACK, FRAME(page), rax);
    emit_load(e, rax, rdi, offsetof(struct soft_vcpu, icount));
    emit_store(e, HOST_STACK, FRAME(icount), rax);
    for (unsigned i = 0; i < 3; i++) {
        emit_load(e, rax, rdi, V_REG(9 + i));
        emit_store(e, HOST_STACK, FRAME(stolen) + 8 * (int32_t)i, rax);
    }
    emit_load(e, HOST_GUEST_RSP, rdi, V_REG(X86_RSP));
    for (unsigned reg = 0; reg < 16; reg++)
        if (!is_moved(reg) && reg != rdi)
            emit_load(e, reg, rdi, V_REG(reg));
    emit_load(e, rdi, rdi, V_REG(rdi));
    emit_rr(e, false, 0xff, 4, HOST_T0);
}

/* The frame's flags to v's lazy flags, unless those are right; rdi is v. */
static void emit_flags_out(struct emitter *e)
{
    const unsigned rax = 0, rcx = 1, rdi = 7;
    emit_rm(e, false, 0x8b, rax, HOST_STACK, FRAME(flags));
    emit_alu_imm(e, false, 7, rax, (int32_t)XLATE_FLAGS_NONE);
    uint8_t *skip = emit_jcc(e, 4);
    emit_rr(e, false, 0x0fb6, rcx, rax); /* movzx ecx, al */
    emit_shift_imm(e, false, 5, rax, 8);
    emit_alu_imm(e, false, 4, rax, FL_ARITH & 0xff);
    emit_shift_imm(e, false, 4, rcx, 11);
    emit_rr(e, false, 0x09, rcx, rax); /* or */
    emit_store(e, rdi, offsetof(struct soft_vcpu, cc_src), rax);
    emit_rr(e, false, 0x31, rax, rax);
    emit_store(e, rdi, offsetof(struct soft_vcpu, cc_dst), rax);
    emit_mov_imm32(e, rax, CC(CC_FLAGS, 8));
    emit_rm(e, false, 0x89, rax, rdi, offsetof(struct soft_vcpu, cc_op));
    emit_patch(e, skip, emit_here(e));
}

/* T0 is what enter returns, T1 the running block's offset in its page; flags are in the frame. */
static void emit_leave(struct emitter *e)
{
    const unsigned rdi = 7, rax = 0;
    emit_store(e, HOST_STACK, FRAME(save), rdi);
    emit_load(e, rdi, HOST_STACK, FRAME(vcpu));
    for (unsigned reg = 0; reg < 16; reg++)
        if (!is_moved(reg) && reg != rdi)
            emit_store(e, rdi, V_REG(reg), reg);
    emit_store(e, rdi, V_REG(X86_RSP), HOST_GUEST_RSP);
    emit_load(e, rax, HOST_STACK, FRAME(save));
    emit_store(e, rdi, V_REG(rdi), rax);
    for (unsigned i = 0; i < 3; i++) {
        emit_load(e, rax, HOST_STACK, FRAME(stolen) + 8 * (int32_t)i);
        emit_store(e, rdi, V_REG(9 + i), rax);
    }
    emit_load(e, rax, HOST_STACK, FRAME(icount));
    emit_store(e, rdi, offsetof(struct soft_vcpu, icount), rax);
    emit_rm(e, true, 0x03, HOST_T1, HOST_STACK, FRAME(page));
    emit_store(e, rdi, V_REG(R_BLOCK), HOST_T1);
    emit_store(e, rdi, offsetof(struct soft_vcpu, rip), HOST_T1);
    emit_flags_out(e);
    emit_mov(e, rax, HOST_T0);
    emit_alu_imm(e, true, 0, HOST_STACK, sizeof(struct xlate_frame));
    for (unsigned i = ARRAY_SIZE(kept_registers); i-- > 0;) {
        unsigned reg = kept_registers[i];
        emit_opcode(e, false, 0x58 | (reg & 7), 0, 0, reg);
    }
    emit1(e, 0xc3);
}

/* A jump to block T1, which has no code: the interpreter takes it. */
static void emit_leave_block(struct emitter *e, const uint8_t *leave)
{
    emit_lea(e, HOST_T0, HOST_T1, offsetof(struct block, ops));
    emit_load(e, HOST_T1, HOST_T1, offsetof(struct block, gpa));
    emit_alu_imm(e, false, 4, HOST_T1, GUEST_PAGE_SIZE - 1);
    emit_jmp_to(e, leave);
}

/* Called: keeps all guest registers and T0. The flags are in the frame or dead. */
static void emit_fill(struct emitter *e)
{
    /* Eight, with which the stack is aligned for C: see emit_enter. */
    static const uint8_t saved[] = {0, 1, 2, 6, 7, 8, HOST_T0, HOST_GUEST_RSP};
    const unsigned rax = 0, rdx = 2, rsi = 6, rdi = 7;
    for (unsigned i = 0; i < ARRAY_SIZE(saved); i++)
        emit_opcode(e, false, 0x50 | (saved[i] & 7), 0, 0, saved[i]);
    emit_load(e, rdi, HOST_STACK, 8 + 8 * (int32_t)ARRAY_SIZE(saved) + FRAME(vcpu));
    emit_mov(e, rsi, HOST_T0);
    emit_mov(e, rdx, HOST_T1);
    emit_mov_imm64(e, rax, (uintptr_t)soft_tlb_fill);
    emit_rr(e, false, 0xff, 2, rax); /* call rax */
    emit_rr(e, false, 0x85, rax, rax);
    for (unsigned i = ARRAY_SIZE(saved); i-- > 0;)
        emit_opcode(e, false, 0x58 | (saved[i] & 7), 0, 0, saved[i]);
    emit1(e, 0xc3);
}

static void emit_common(struct xlate *xlate)
{
    struct emitter e = {.at = xlate->write, .to_exec = xlate->exec - xlate->write};
    xlate->enter = (uint64_t(*)(struct soft_vcpu *, const void *, uint32_t))(uintptr_t)xlate->exec;
    emit_enter(&e);
    xlate->leave = emit_here(&e);
    emit_leave(&e);
    xlate->leave_block = emit_here(&e);
    emit_leave_block(&e, xlate->leave);
    xlate->fill = emit_here(&e);
    emit_fill(&e);
    xlate->fixed = xlate->used = ALIGN_UP((size_t)(e.at - xlate->write), 64);
}

/* ---- the buffer ---- */

static void *map_code(int fd, int protection)
{
    void *at = mmap(NULL, CODE_SIZE, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

struct xlate *xlate_new(void)
{
    struct xlate *xlate = xcalloc(1, sizeof(*xlate));
    scoped(fd_cleanup) int fd = memfd_create("tenon-code", MFD_CLOEXEC);
    void *sites = mmap(NULL, SITE_COUNT * sizeof(struct xlate_site), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (sites != MAP_FAILED)
        xlate->sites = sites;
    if (fd >= 0 && !ftruncate(fd, CODE_SIZE)) {
        xlate->write = map_code(fd, PROT_READ | PROT_WRITE);
        xlate->exec = map_code(fd, PROT_READ | PROT_EXEC);
    }
    if (!xlate->sites || !xlate->write || !xlate->exec) {
        xlate_free(xlate);
        return NULL;
    }
    emit_common(xlate);
    return xlate;
}

void xlate_free(struct xlate *xlate)
{
    if (!xlate)
        return;
    if (xlate->write)
        munmap(xlate->write, CODE_SIZE);
    if (xlate->exec)
        munmap((void *)(uintptr_t)xlate->exec, CODE_SIZE);
    if (xlate->sites)
        munmap(xlate->sites, SITE_COUNT * sizeof(struct xlate_site));
    free(xlate);
}

void xlate_flush(struct xlate *xlate)
{
    if (!xlate)
        return;
    xlate->used = xlate->fixed;
    xlate->site_count = 0;
}

/* ---- blocks ---- */

void xlate_block_init(struct soft_vcpu *v, struct block *block)
{
    if (v->code->xlate)
        block->code = block->code_flags = v->code->xlate->leave_block;
}

static void bind(struct xlate *xlate, struct xlate_site *site, const uint8_t *to)
{
    struct emitter e = {.to_exec = xlate->exec - xlate->write};
    emit_patch(&e, site->at, to);
}

void xlate_block_drop(struct soft_vcpu *v, struct block *block)
{
    xlate_block_init(v, block);
    for (struct xlate_site *site = block->bound; site; site = site->next)
        bind(v->code->xlate, site, site->to);
    block->bound = NULL;
}

static struct block *block_of(const struct op *first)
{
    return (struct block *)((uintptr_t)first - offsetof(struct block, ops));
}

/* Translated code came to a jump that leads nowhere yet: binds it if it can. */
static const struct op *take_site(struct soft_vcpu *v, struct xlate_site *site)
{
    const struct op *op = site->op;
    v->icount -= op->n; /* which the op will add again */
    struct xlate *xlate = v->code->xlate;
    if (op->fn == op_dead)
        return op;
    struct block *target = op->link;
    if (target && !target->dead && target->code != xlate->leave_block) {
        bind(xlate, site, site->flags_live ? target->code_flags : target->code);
        site->next = target->bound;
        target->bound = site;
    }
    return op;
}

const struct op *xlate_op_native(struct soft_vcpu *v, const struct op *op)
{
    uint32_t flags = XLATE_FLAGS_NONE;
    if (op->a) {
        uint32_t f = cc_compute(v);
        flags = (f & 0xff) << 8 | (f & FL_OF ? 1 : 0);
    }
    uint64_t next = v->code->xlate->enter(v, (const void *)(intptr_t)op->imm, flags);
    if (next & 1)
        next = (uintptr_t)take_site(v, (struct xlate_site *)(uintptr_t)(next & ~1ull));
    if (!next)
        return NULL;
    GOTO_OP(v, (const struct op *)(uintptr_t)next);
}

static bool has_room(const struct xlate *xlate)
{
    return xlate->used + XLATE_BLOCK_MAX < CODE_SIZE && xlate->site_count + 256 < SITE_COUNT;
}

const struct op *xlate_op_hot(struct soft_vcpu *v, const struct op *op)
{
    struct op *self = (struct op *)(uintptr_t)op;
    if (++self->imm >= v->vm->xlate_after) {
        if (!has_room(v->code->xlate)) {
            uint64_t rip = v->r[R_BLOCK];
            soft_code_flush(v);
            GOTO_OP(v, soft_lookup(v, rip));
        }
        if (xlate_block(v, block_of(op)))
            GOTO_OP(v, op);
        self->imm = INT32_MIN; /* tries again, much later */
    }
    NEXT_OP(v, op);
}

/* Stands where translated code will begin again. */
const struct op *xlate_op_entry(struct soft_vcpu *v, const struct op *op)
{
    NEXT_OP(v, op);
}
