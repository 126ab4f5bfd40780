/*
 * x87 and MMX: one native instruction between FXRSTOR and FXSAVE of the guest's image. Slow, and as
 * exact as the host. (Intel SDM vol. 1: 8 and 9; exceptions 8.5, 8.6.)
 *
 * Exceptions stay pending in the image: only a waiting instruction delivers them, and that is
 * decided here before the host sees it, so the host itself never traps. CR0.NE is taken as set: the
 * old way through IRQ 13 ends in #MF as well.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/simd/simd.h"

void simd_x87_zero_top(uint8_t *image)
{
    uint8_t st[8 * 16];
    uint16_t fsw = get_le16(image + XS_FSW);
    unsigned top = fsw >> 11 & 7;
    memcpy(st, image + XS_ST, sizeof(st));
    for (unsigned i = 0; i < 8; i++)
        memcpy(image + XS_ST + 16 * ((i + top) & 7), st + 16 * i, 16);
    put_le16(image + XS_FSW, fsw & ~0x3800);
}

bool simd_is_mmx(const struct insn *insn)
{
    uint8_t op = insn->opcode, pp = insn->pp;
    if (insn->prefix & INSN_VEX)
        return false;
    switch (insn->map) {
    case INSN_MAP_0F:
        if (op == 0x2a) /* from memory it leaves the MMX state alone */
            return pp < 2 && !insn->is_mem;
        if (op == 0x2c || op == 0x2d)
            return pp < 2;
        if (op == 0xd6)
            return pp >= 2;
        return pp == 0 && ((op >= 0x60 && op <= 0x7f && op != 0x7c && op != 0x7d) || op == 0xc4 ||
                           op == 0xc5 || op >= 0xd1);
    case INSN_MAP_0F38:
        return pp == 0 && op < 0x20;
    case INSN_MAP_0F3A:
        return pp == 0 && op == 0x0f;
    default:
        return false;
    }
}

/*
 * MASKMOVQ: bytes of one MMX register to DS:rDI where another has its top bits set. An MMX
 * instruction makes the register stack start at 0 with all registers valid.
 */
void simd_exec_maskmovq(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    uint8_t *x = v->xsave, physical[8][16];
    simd_check_mmx(v);
    uint16_t fsw = get_le16(x + XS_FSW);
    unsigned top = fsw >> 11 & 7;
    for (unsigned i = 0; i < 8; i++)
        memcpy(physical[(i + top) & 7], x + XS_ST + 16 * i, 16);
    const uint8_t *from = physical[insn->reg & 7], *mask = physical[insn->rm & 7];
    uint64_t offset = v->r[X86_RDI];
    if (insn->addrsize < 8)
        offset &= (1ull << (8 * insn->addrsize)) - 1;
    uint64_t linear = soft_seg_linear(v, insn->seg, offset, 8, ACC_WRITE);
    soft_check_alignment(v, linear, 8);
    for (unsigned i = 0; i < 8; i++) {
        if (mask[i] & 0x80)
            soft_probe(v, linear + i, 1, ACC_WRITE);
    }
    for (unsigned i = 0; i < 8; i++) {
        if (mask[i] & 0x80)
            soft_store(v, linear + i, 1, from[i]);
    }
    memcpy(x + XS_ST, physical, sizeof(physical));
    put_le16(x + XS_FSW, fsw & (uint16_t)~0x3800);
    x[XS_FTW] = 0xff;
}

/* Bytes of the memory operand; `*writes` for a store. 0: no such instruction. */
static unsigned memory_bytes(const struct insn *insn, bool *writes)
{
    static const uint8_t sizes[8][8] = {
        {4, 4, 4, 4, 4, 4, 4, 4},     /* D8 m32fp */
        {4, 0, 4, 4, 28, 2, 28, 2},   /* D9 */
        {4, 4, 4, 4, 4, 4, 4, 4},     /* DA m32int */
        {4, 4, 4, 4, 0, 10, 0, 10},   /* DB */
        {8, 8, 8, 8, 8, 8, 8, 8},     /* DC m64fp */
        {8, 8, 8, 8, 108, 0, 108, 2}, /* DD */
        {2, 2, 2, 2, 2, 2, 2, 2},     /* DE m16int */
        {2, 2, 2, 2, 10, 8, 10, 8},   /* DF */
    };
    static const uint8_t stores[8] = {0, 0xcc, 0, 0x8e, 0, 0xce, 0, 0xce};
    unsigned row = insn->opcode & 7, reg = insn->modrm >> 3 & 7;
    unsigned size = sizes[row][reg];
    *writes = stores[row] >> reg & 1;
    if (insn->opsize == 2 && size >= 28)
        size -= 14;
    return size;
}

static bool is_no_wait(const struct insn *insn)
{
    unsigned reg = insn->modrm >> 3 & 7;
    if (insn->is_mem)
        return (insn->opcode == 0xd9 && reg >= 6) || (insn->opcode == 0xdd && reg >= 6);
    return (insn->opcode == 0xdb && insn->modrm >= 0xe0 && insn->modrm <= 0xe4) ||
           (insn->opcode == 0xdf && insn->modrm == 0xe0);
}

void simd_plan_x87(const struct insn *insn, struct simd_plan *plan)
{
    uint8_t op = insn->opcode, modrm = insn->modrm;
    plan->x87_wait = !is_no_wait(insn);
    if (insn->is_mem) {
        plan->mem_len = (uint8_t)memory_bytes(insn, &plan->writes);
        plan->reads = !plan->writes;
        return;
    }
    /* FCMOVcc read RFLAGS; FCOMI and its kin write them. */
    plan->flags_in = (op == 0xda || op == 0xdb) && modrm < 0xe0;
    plan->flags_out = (op == 0xdb || op == 0xdf) && modrm >= 0xe8 && modrm < 0xf8;
}

/* Control instructions that need no host: they are frequent in context switches and libm. */
static bool exec_control(struct soft_vcpu *v, const struct insn *insn, uint64_t linear)
{
    uint8_t *x = v->xsave, *bounce = ((struct simd *)v->simd)->bounce;
    unsigned reg = insn->modrm >> 3 & 7;
    if (insn->is_mem && insn->opcode == 0xd9 && reg == 7) { /* FNSTCW */
        memcpy(bounce, x + XS_FCW, 2);
    } else if (insn->is_mem && insn->opcode == 0xdd && reg == 7) { /* FNSTSW */
        memcpy(bounce, x + XS_FSW, 2);
    } else if (insn->is_mem) {
        return false;
    } else if (insn->opcode == 0xdf && insn->modrm == 0xe0) { /* FNSTSW AX */
        v->r[X86_RAX] = (v->r[X86_RAX] & ~0xffffull) | get_le16(x + XS_FSW);
        return true;
    } else if (insn->opcode == 0xdb && insn->modrm == 0xe2) { /* FNCLEX */
        put_le16(x + XS_FSW, get_le16(x + XS_FSW) & 0x7f00);
        return true;
    } else if (insn->opcode == 0xdb && insn->modrm == 0xe3) { /* FNINIT */
        simd_x87_zero_top(x);
        memset(x, 0, XS_MXCSR);
        put_le16(x + XS_FCW, 0x37f);
        return true;
    } else {
        return false;
    }
    soft_write(v, linear, bounce, 2);
    return true;
}

/*
 * The host noted its own instruction and operand; the guest wants to see its own. (CPUs differ in
 * when they note which, so only what names the stub is replaced.)
 */
static void translate_pointers(struct soft_vcpu *v, const struct insn *insn,
                               const struct simd_plan *plan)
{
    struct simd *simd = v->simd;
    uint8_t *x = v->xsave;
    if (plan->reads && plan->mem_len >= 14)
        return; /* FLDENV, FRSTOR: what they load is the guest's */
    if (get_le64(x + XS_FIP) == (uintptr_t)plan->insn_at)
        put_le64(x + XS_FIP, v->rip);
    if (get_le64(x + XS_FDP) == (uintptr_t)simd->bounce)
        put_le64(x + XS_FDP, insn->is_mem ? soft_ea(v, insn) : 0);
    unsigned base = (insn->opcode & 7u) << 8;
    unsigned of_stub = base | (insn->modrm & 0x38) | X86_RSI;
    if (insn->is_mem && get_le16(x + XS_FOP) == of_stub)
        put_le16(x + XS_FOP, (uint16_t)(base | insn->modrm));
}

/* Does an unmasked exception keep the store from happening (SDM vol. 1, 8.5)? Then its address is
   not looked at either. All but the inexact result do. */
static bool store_suppressed(struct soft_vcpu *v, const struct simd_plan *plan)
{
    const unsigned all = 0x1f;
    uint8_t x87[XS_MXCSR], registers[XS_XMM - XS_ST]; /* what lies between is not the x87's */
    unsigned unmasked = ~get_le16(v->xsave + XS_FCW) & all;
    if (!plan->writes || !plan->x87_wait || likely(!unmasked))
        return false;
    memcpy(x87, v->xsave, sizeof(x87));
    memcpy(registers, v->xsave + XS_ST, sizeof(registers));
    simd_run(v, plan, ((struct simd *)v->simd)->bounce);
    if (get_le16(v->xsave + XS_FSW) & unmasked)
        return true;
    memcpy(v->xsave, x87, sizeof(x87));
    memcpy(v->xsave + XS_ST, registers, sizeof(registers));
    return false;
}

void simd_exec_x87(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    struct simd *simd = v->simd;
    uint64_t linear = 0;
    if (v->cr0 & (CR0_EM | CR0_TS))
        soft_raise(v, VEC_NM, 0);
    if (plan->x87_wait && simd_x87_pending(v))
        soft_raise(v, VEC_MF, 0);
    if (store_suppressed(v, plan)) {
        translate_pointers(v, insn, plan);
        return;
    }
    if (plan->mem_len) {
        linear = soft_linear(v, insn, plan->mem_len, plan->writes ? ACC_WRITE : ACC_READ);
        soft_check_alignment(v, linear, plan->mem_len);
        if (plan->writes)
            soft_probe(v, linear, plan->mem_len, ACC_WRITE);
    }
    if (exec_control(v, insn, linear))
        return;
    if (plan->reads)
        soft_read(v, linear, simd->bounce, plan->mem_len);
    if (plan->flags_in)
        simd->io.flags = (soft_flags(v) & FL_ARITH) | 2;
    simd_run(v, plan, simd->bounce);
    if (plan->writes)
        soft_write(v, linear, simd->bounce, plan->mem_len);
    translate_pointers(v, insn, plan);
}
