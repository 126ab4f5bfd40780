/*
 * Saving and restoring the x87, SSE and AVX state: FXSAVE, XSAVE and their kin, control registers
 * of the FPU, XCR0 (Intel SDM vol. 1: 10.5, 13; vol. 2: the instructions' pages).
 *
 * The guest's image is struct soft_vcpu.xsave, always complete; a component is "in use" when it
 * differs from its initial state, found out when somebody asks. The vCPU's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/decode/optable.h"
#include "accel/soft/simd/simd.h"

#define C_X87 1u
#define C_SSE 2u
#define C_AVX 4u
#define COMPACTED (1ull << 63)

static bool all_zero(const uint8_t *bytes, unsigned len)
{
    uint64_t any = 0;
    for (unsigned i = 0; i < len; i += 8)
        any |= get_le64(bytes + i);
    return !any;
}

static uint32_t in_use(const uint8_t *x)
{
    uint32_t used = 0;
    if (get_le64(x) != 0x37f || !all_zero(x + 8, 16) || !all_zero(x + XS_ST, 128))
        used |= C_X87;
    if (!all_zero(x + XS_XMM, 256))
        used |= C_SSE;
    if (!all_zero(x + XS_YMM, 256))
        used |= C_AVX;
    return used;
}

static void init_components(uint8_t *x, uint32_t which)
{
    if (which & C_X87) {
        memset(x, 0, XS_MXCSR);
        memset(x + XS_ST, 0, 128);
        put_le16(x + XS_FCW, 0x37f);
    }
    if (which & C_SSE)
        memset(x + XS_XMM, 0, 256);
    if (which & C_AVX)
        memset(x + XS_YMM, 0, 256);
}

/* What the hardware does to x87 fields that software wrote: fixed bits, and the error summary. */
static void normalise_x87(uint8_t *x)
{
    uint16_t fcw = (get_le16(x + XS_FCW) & 0x1f3f) | 0x40, fsw = get_le16(x + XS_FSW);
    fsw &= (uint16_t) ~(FSW_ES | FSW_B);
    if (fsw & ~fcw & 0x3f)
        fsw |= FSW_ES | FSW_B;
    put_le16(x + XS_FCW, fcw);
    put_le16(x + XS_FSW, fsw);
    x[5] = 0;
    put_le16(x + XS_FOP, get_le16(x + XS_FOP) & 0x7ff);
    for (unsigned i = 0; i < 8; i++)
        memset(x + XS_ST + 16 * i + 10, 0, 6);
}

void soft_xstate_reset(struct soft_vcpu *v)
{
    soft_mxcsr_leave(v);
    memset(v->xsave, 0, sizeof(v->xsave));
    put_le16(v->xsave + XS_FCW, 0x40);
    v->xsave[XS_FTW] = 0xff;
    put_le32(v->xsave + XS_MXCSR, MXCSR_RESET);
    put_le32(v->xsave + XS_MXCSR_MASK, MXCSR_VALID);
    put_le64(v->xsave + XS_HEADER, C_X87 | C_SSE | C_AVX);
    v->xcr0 = 1;
}

void soft_xstate_set(struct soft_vcpu *v, const uint8_t image[X86_XSAVE_SIZE])
{
    soft_mxcsr_leave(v);
    uint64_t present = get_le64(image + XS_HEADER);
    memcpy(v->xsave, image, XS_HEADER);
    memset(v->xsave + XS_HEADER, 0, sizeof(v->xsave) - XS_HEADER);
    memcpy(v->xsave + XS_YMM, image + XS_YMM, 256);
    init_components(v->xsave, ~(uint32_t)present & (C_X87 | C_SSE | C_AVX));
    normalise_x87(v->xsave);
    put_le32(v->xsave + XS_MXCSR, get_le32(v->xsave + XS_MXCSR) & MXCSR_VALID);
    put_le32(v->xsave + XS_MXCSR_MASK, MXCSR_VALID);
    put_le64(v->xsave + XS_HEADER, C_X87 | C_SSE | C_AVX);
}

void soft_xstate_get(struct soft_vcpu *v, uint8_t image[X86_XSAVE_SIZE])
{
    soft_mxcsr_leave(v);
    memcpy(image, v->xsave, X86_XSAVE_SIZE);
    uint64_t present = C_X87 | C_SSE;
    if (v->features >> FEAT_AVX & 1)
        present |= C_AVX;
    else
        memset(image + XS_YMM, 0, 256);
    put_le64(image + XS_HEADER, present);
}

/* ---- pieces of the memory image ---- */

static unsigned registers(const struct insn *insn)
{
    return insn->mode == INSN_64 ? 16 : 8;
}

/* The first 24 bytes: with W, pointers have 64 bits; without, 32 and selectors, which read as zero.
 */
static void pack_x87(const struct soft_vcpu *v, const struct insn *insn, uint8_t out[24])
{
    memcpy(out, v->xsave, 24);
    if (!(insn->rex & 8)) {
        put_le32(out + 12, 0);
        put_le32(out + 20, 0);
    }
}

static void unpack_x87(struct soft_vcpu *v, const struct insn *insn, const uint8_t *image)
{
    memcpy(v->xsave, image, 24);
    if (!(insn->rex & 8)) {
        put_le32(v->xsave + 12, 0);
        put_le32(v->xsave + 20, 0);
    }
    memcpy(v->xsave + XS_ST, image + XS_ST, 128);
    normalise_x87(v->xsave);
}

static void store_x87(struct soft_vcpu *v, const struct insn *insn, uint64_t at)
{
    uint8_t head[24];
    pack_x87(v, insn, head);
    soft_write(v, at, head, sizeof(head));
    soft_write(v, at + XS_ST, v->xsave + XS_ST, 128);
}

static void store_mxcsr(struct soft_vcpu *v, uint64_t at)
{
    soft_write(v, at + XS_MXCSR, v->xsave + XS_MXCSR, 8);
}

/* ---- FXSAVE ---- */

static uint64_t fx_address(struct soft_vcpu *v, const struct insn *insn, enum soft_access access)
{
    if (v->cr0 & (CR0_EM | CR0_TS))
        soft_raise(v, VEC_NM, 0);
    uint64_t at = soft_linear(v, insn, 512, access);
    soft_check_alignment(v, at, 4);
    if (at & 15) /* an address that does not exist comes first here, unlike with SSE */
        soft_raise(v, v->stack_access && !soft_canonical(at) ? VEC_SS : VEC_GP, 0);
    soft_probe(v, at, 512, access);
    return at;
}

static void exec_fxsave(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t at = fx_address(v, insn, ACC_WRITE);
    store_x87(v, insn, at);
    store_mxcsr(v, at);
    if (v->cr4 & CR4_OSFXSR)
        soft_write(v, at + XS_XMM, v->xsave + XS_XMM, 16 * registers(insn));
}

static void exec_fxrstor(struct soft_vcpu *v, const struct insn *insn)
{
    uint8_t image[512];
    uint64_t at = fx_address(v, insn, ACC_READ);
    soft_read(v, at, image, sizeof(image));
    bool sse = v->cr4 & CR4_OSFXSR;
    if (sse && get_le32(image + XS_MXCSR) & ~MXCSR_VALID)
        soft_gp(v, 0);
    unpack_x87(v, insn, image);
    if (!sse)
        return;
    put_le32(v->xsave + XS_MXCSR, get_le32(image + XS_MXCSR));
    memcpy(v->xsave + XS_XMM, image + XS_XMM, 16 * registers(insn));
}

/* ---- XSAVE ---- */

static void check_xsave(struct soft_vcpu *v)
{
    if (!(v->cr4 & CR4_OSXSAVE))
        soft_ud(v);
    if (v->cr0 & CR0_TS)
        soft_raise(v, VEC_NM, 0);
}

static uint64_t xsave_address(struct soft_vcpu *v, const struct insn *insn, uint32_t components,
                              enum soft_access access)
{
    unsigned len = components & C_AVX ? XS_YMM + 256 : XS_YMM;
    uint64_t at = soft_linear(v, insn, len, access);
    if (at & 63)
        soft_gp(v, 0);
    soft_probe(v, at, len, access);
    return at;
}

static uint32_t requested(const struct soft_vcpu *v)
{
    return (uint32_t)v->r[X86_RAX] & (uint32_t)v->xcr0;
}

static void store_components(struct soft_vcpu *v, const struct insn *insn, uint64_t at,
                             uint32_t which)
{
    if (which & C_X87)
        store_x87(v, insn, at);
    if (which & C_SSE)
        soft_write(v, at + XS_XMM, v->xsave + XS_XMM, 16 * registers(insn));
    if (which & C_AVX)
        soft_write(v, at + XS_YMM, v->xsave + XS_YMM, 16 * registers(insn));
}

/* XSAVE writes all that was asked for, XSAVEOPT only what is in use. */
static void exec_xsave(struct soft_vcpu *v, const struct insn *insn, bool optimise)
{
    check_xsave(v);
    uint32_t asked = requested(v), used = in_use(v->xsave) & asked;
    uint64_t at = xsave_address(v, insn, asked, ACC_WRITE);
    uint64_t old = soft_load(v, at + XS_HEADER, 8);
    store_components(v, insn, at, optimise ? used : asked);
    if (asked & (C_SSE | C_AVX))
        store_mxcsr(v, at);
    soft_store(v, at + XS_HEADER, 8, (old & ~(uint64_t)asked) | used);
}

/* The compacted layout of x87, SSE and AVX has AVX at the same place as the standard one. */
static void exec_xsavec(struct soft_vcpu *v, const struct insn *insn)
{
    check_xsave(v);
    uint32_t asked = requested(v), used = in_use(v->xsave);
    if (get_le32(v->xsave + XS_MXCSR) != MXCSR_RESET)
        used |= C_SSE;
    used &= asked;
    uint64_t at = xsave_address(v, insn, asked, ACC_WRITE);
    store_components(v, insn, at, used);
    if (used & C_SSE)
        store_mxcsr(v, at);
    soft_store(v, at + XS_HEADER, 8, used);
    soft_store(v, at + XS_HEADER + 8, 8, COMPACTED | asked);
}

static void check_header(struct soft_vcpu *v, const uint8_t *header, bool *compacted)
{
    uint64_t present = get_le64(header), layout = get_le64(header + 8);
    *compacted = layout & COMPACTED && v->features >> FEAT_XSAVEC & 1;
    bool good;
    if (*compacted)
        good = !((layout & ~COMPACTED) & ~v->xcr0) && !(present & ~layout) &&
               all_zero(header + 16, 48);
    else
        good = !layout && !get_le64(header + 16) && !(present & ~v->xcr0);
    if (!good)
        soft_gp(v, 0);
}

static void exec_xrstor(struct soft_vcpu *v, const struct insn *insn)
{
    uint8_t image[XS_YMM + 256];
    bool compacted;
    check_xsave(v);
    uint32_t asked = requested(v);
    uint64_t at = xsave_address(v, insn, asked, ACC_READ);
    soft_read(v, at, image, asked & C_AVX ? sizeof(image) : XS_YMM);
    check_header(v, image + XS_HEADER, &compacted);
    uint32_t present = (uint32_t)get_le64(image + XS_HEADER), load = asked & present;
    bool mxcsr = compacted ? load & C_SSE : asked & (C_SSE | C_AVX);
    if (mxcsr && get_le32(image + XS_MXCSR) & ~MXCSR_VALID)
        soft_gp(v, 0);
    if (mxcsr)
        put_le32(v->xsave + XS_MXCSR, get_le32(image + XS_MXCSR));
    else if (compacted && asked & C_SSE)
        put_le32(v->xsave + XS_MXCSR, MXCSR_RESET);
    if (load & C_X87)
        unpack_x87(v, insn, image);
    unsigned len = 16 * registers(insn);
    if (asked & C_SSE && load & C_SSE)
        memcpy(v->xsave + XS_XMM, image + XS_XMM, len);
    else if (asked & C_SSE)
        memset(v->xsave + XS_XMM, 0, len);
    if (asked & C_AVX && load & C_AVX)
        memcpy(v->xsave + XS_YMM, image + XS_YMM, len);
    else if (asked & C_AVX)
        memset(v->xsave + XS_YMM, 0, len);
    init_components(v->xsave, asked & ~load & C_X87);
}

/* ---- control registers ---- */

static void exec_xgetbv(struct soft_vcpu *v)
{
    uint64_t value = v->xcr0;
    if (!(v->cr4 & CR4_OSXSAVE))
        soft_ud(v);
    uint32_t index = (uint32_t)v->r[X86_RCX];
    struct cpuid_entry entry;
    cpuid_query(&v->cpuid, 0xd, 1, &entry);
    if (index == 1 && entry.eax & 4)
        value &= in_use(v->xsave);
    else if (index)
        soft_gp(v, 0);
    v->r[X86_RAX] = (uint32_t)value;
    v->r[X86_RDX] = value >> 32;
}

static void exec_xsetbv(struct soft_vcpu *v)
{
    if (!(v->cr4 & CR4_OSXSAVE))
        soft_ud(v);
    struct cpuid_entry entry;
    cpuid_query(&v->cpuid, 0xd, 0, &entry);
    uint64_t value = (uint64_t)(uint32_t)v->r[X86_RDX] << 32 | (uint32_t)v->r[X86_RAX];
    if (v->cpl || (uint32_t)v->r[X86_RCX] || !(value & C_X87) || value & ~(uint64_t)entry.eax ||
        (value & C_AVX && !(value & C_SSE)))
        soft_gp(v, 0);
    v->xcr0 = value;
}

static void exec_mxcsr(struct soft_vcpu *v, const struct insn *insn, bool load)
{
    if (insn->prefix & INSN_VEX) {
        simd_check_avx(v);
        if (insn->vex_l || insn->vex_v)
            soft_ud(v);
    } else {
        simd_check_sse(v);
    }
    uint64_t at = soft_linear(v, insn, 4, load ? ACC_READ : ACC_WRITE);
    if (!load) {
        soft_store(v, at, 4, get_le32(v->xsave + XS_MXCSR));
        return;
    }
    uint32_t value = (uint32_t)soft_load(v, at, 4);
    if (value & ~MXCSR_VALID)
        soft_gp(v, 0);
    put_le32(v->xsave + XS_MXCSR, value);
}

/* EMMS; its VEX forms are VZEROUPPER and VZEROALL. */
static void exec_emms(struct soft_vcpu *v, const struct insn *insn)
{
    if (!(insn->prefix & INSN_VEX)) {
        simd_check_mmx(v);
        simd_x87_zero_top(v->xsave);
        v->xsave[XS_FTW] = 0;
        return;
    }
    simd_check_avx(v);
    if (insn->vex_v)
        soft_ud(v);
    memset(v->xsave + XS_YMM, 0, 16 * registers(insn));
    if (insn->vex_l)
        memset(v->xsave + XS_XMM, 0, 16 * registers(insn));
}

static void exec_fwait(struct soft_vcpu *v)
{
    if ((v->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
        soft_raise(v, VEC_NM, 0);
    if (simd_x87_pending(v))
        soft_raise(v, VEC_MF, 0);
}

void soft_xstate_exec(struct soft_vcpu *v, const struct insn *insn)
{
    /* VZEROUPPER and its kin leave MXCSR alone, and stand between floating-point code. */
    if (insn->id != I_EMMS && insn->id != I_FWAIT && insn->id != I_XGETBV)
        soft_mxcsr_leave(v);
    switch (insn->id) {
    case I_FXSAVE:
        exec_fxsave(v, insn);
        break;
    case I_FXRSTOR:
        exec_fxrstor(v, insn);
        break;
    case I_XSAVE:
        exec_xsave(v, insn, false);
        break;
    case I_XSAVEOPT:
        exec_xsave(v, insn, true);
        break;
    case I_XSAVEC:
        exec_xsavec(v, insn);
        break;
    case I_XRSTOR:
        exec_xrstor(v, insn);
        break;
    case I_XGETBV:
        exec_xgetbv(v);
        break;
    case I_XSETBV:
        exec_xsetbv(v);
        break;
    case I_LDMXCSR:
        exec_mxcsr(v, insn, true);
        break;
    case I_STMXCSR:
        exec_mxcsr(v, insn, false);
        break;
    case I_EMMS:
        exec_emms(v, insn);
        break;
    case I_FWAIT:
        exec_fwait(v);
        break;
    default: /* XSAVES and XRSTORS are not offered */
        soft_ud(v);
    }
}
