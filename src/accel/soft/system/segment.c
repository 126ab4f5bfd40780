/*
 * Segment registers and descriptors (Intel SDM vol. 3, 3.4 and 5.5-5.8): loads with their checks,
 * LDTR and TR, LAR, LSL, VERR, VERW.
 *
 * Runs on the vCPU's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/system/segment.h"
#include "accel/soft/interp/operand.h"

struct x86_segment soft_unpack(uint16_t selector, uint64_t desc)
{
    struct x86_segment s = {.selector = selector};
    s.base = (desc >> 16 & 0xffffff) | (desc >> 32 & 0xff000000);
    s.limit = (desc & 0xffff) | (desc >> 32 & 0xf0000);
    s.attr = desc >> 40 & 0xf0ff;
    if (s.attr & X86_ATTR_G)
        s.limit = s.limit << 12 | 0xfff;
    return s;
}

bool soft_descriptor(struct soft_vcpu *v, uint16_t selector, uint64_t *desc)
{
    uint32_t offset = selector & 0xfff8;
    uint64_t base = v->gdt.base;
    uint32_t limit = v->gdt.limit;
    if (selector & 4) {
        if (v->ldt.attr & X86_ATTR_UNUSABLE || !(v->ldt.attr & X86_ATTR_P))
            return false;
        base = v->ldt.base;
        limit = v->ldt.limit;
    }
    if (offset + 7 > limit)
        return false;
    *desc = soft_load_sys(v, soft_lin(v, base + offset), 8);
    return true;
}

/* Sets the descriptor's accessed bit in its table. */
static void set_accessed(struct soft_vcpu *v, uint16_t selector, uint64_t desc)
{
    if (desc >> 40 & 1)
        return;
    uint64_t base = selector & 4 ? v->ldt.base : v->gdt.base;
    soft_store_sys(v, soft_lin(v, base + (selector & 0xfff8) + 5), 1, (desc >> 40 & 0xff) | 1);
}

void soft_set_seg(struct soft_vcpu *v, unsigned seg, const struct x86_segment *value)
{
    v->seg[seg] = *value;
    v->r[R_SEG + seg] = v->mode == INSN_64 && seg < X86_FS ? 0 : value->base;
    if (v->mode == INSN_32)
        soft_flat_update(v);
}

void soft_seg_base(struct soft_vcpu *v, unsigned seg, uint64_t base)
{
    v->seg[seg].base = base;
    v->r[R_SEG + seg] = v->mode == INSN_64 && seg < X86_FS ? 0 : base;
}

void soft_set_seg_real(struct soft_vcpu *v, unsigned seg, uint16_t selector)
{
    struct x86_segment s = v->seg[seg];
    s.selector = selector;
    s.base = (uint32_t)selector << 4;
    if (v->rflags & FL_VM) {
        s.limit = 0xffff;
        s.attr = X86_ATTR_P | X86_ATTR_S | 3 | 3 << X86_ATTR_DPL_SHIFT;
    } else if (seg == X86_CS) {
        s.attr = X86_ATTR_P | X86_ATTR_S | 3;
        s.limit = 0xffff;
    }
    s.attr &= ~X86_ATTR_UNUSABLE;
    soft_set_seg(v, seg, &s);
}

static void load_null(struct soft_vcpu *v, unsigned seg, uint16_t selector)
{
    if (seg == X86_SS && (v->mode != INSN_64 || v->cpl == 3 || (selector & 3) != v->cpl))
        soft_gp(v, 0);
    struct x86_segment s = {.selector = selector, .attr = X86_ATTR_UNUSABLE};
    if (seg == X86_SS)
        s.attr |= (uint32_t)v->cpl << X86_ATTR_DPL_SHIFT;
    /* FS and GS keep no base either: the null load clears it on Intel. */
    soft_set_seg(v, seg, &s);
}

void soft_load_seg(struct soft_vcpu *v, unsigned seg, uint16_t selector)
{
    if (!(v->cr0 & CR0_PE) || v->rflags & FL_VM) {
        soft_set_seg_real(v, seg, selector);
        return;
    }
    if (!(selector & ~3)) {
        load_null(v, seg, selector);
        return;
    }
    uint64_t desc;
    uint16_t error = selector & ~3;
    if (!soft_descriptor(v, selector, &desc))
        soft_gp(v, error);
    struct x86_segment s = soft_unpack(selector, desc);
    unsigned dpl = seg_dpl(&s), rpl = selector & 3;
    if (seg == X86_SS) {
        if (rpl != v->cpl || dpl != v->cpl || !(s.attr & X86_ATTR_S) || s.attr & SEG_CODE ||
            !(s.attr & SEG_WRITE))
            soft_gp(v, error);
        if (!(s.attr & X86_ATTR_P))
            soft_raise(v, VEC_SS, error);
    } else {
        bool code = s.attr & SEG_CODE;
        if (!(s.attr & X86_ATTR_S) || (code && !(s.attr & SEG_READ)))
            soft_gp(v, error);
        if (!(code && s.attr & SEG_CONFORM) && (rpl > dpl || v->cpl > dpl))
            soft_gp(v, error);
        if (!(s.attr & X86_ATTR_P))
            soft_raise(v, VEC_NP, error);
    }
    set_accessed(v, selector, desc);
    s.attr |= 1;
    soft_set_seg(v, seg, &s);
}

void soft_set_cpl(struct soft_vcpu *v, unsigned cpl)
{
    v->cpl = cpl;
}

void soft_check_code(struct soft_vcpu *v, uint16_t selector, unsigned rpl_cpl,
                     struct x86_segment *cs, uint64_t *desc, bool outer)
{
    uint16_t error = selector & ~3;
    if (!error || !soft_descriptor(v, selector, desc))
        soft_gp(v, error);
    *cs = soft_unpack(selector, *desc);
    if (!(cs->attr & X86_ATTR_S) || !(cs->attr & SEG_CODE))
        soft_gp(v, error);
    unsigned dpl = seg_dpl(cs);
    if (cs->attr & SEG_CONFORM) {
        if (dpl > rpl_cpl)
            soft_gp(v, error);
    } else if (outer ? dpl != rpl_cpl : dpl != v->cpl || rpl_cpl > v->cpl) {
        soft_gp(v, error);
    }
    if (v->long_mode && cs->attr & X86_ATTR_L && cs->attr & X86_ATTR_DB)
        soft_gp(v, error);
    if (!(cs->attr & X86_ATTR_P))
        soft_raise(v, VEC_NP, error);
}

void soft_commit_cs(struct soft_vcpu *v, struct x86_segment *cs, uint64_t desc, unsigned cpl)
{
    set_accessed(v, cs->selector, desc);
    cs->attr |= 1;
    cs->selector = (cs->selector & ~3) | cpl;
    v->seg[X86_CS] = *cs;
    soft_set_cpl(v, cpl);
    if (v->mode == INSN_64 && cs->attr & X86_ATTR_L)
        soft_cpl_changed(v);
    else
        soft_mode_changed(v);
}

/* ---- LDTR and TR ---- */

static uint64_t system_base(struct soft_vcpu *v, uint16_t selector, uint64_t desc)
{
    uint64_t base = soft_unpack(selector, desc).base;
    if (!v->long_mode)
        return base;
    if ((selector & 0xfff8u) + 15 > v->gdt.limit)
        soft_gp(v, selector & ~3);
    uint64_t high = soft_load_sys(v, v->gdt.base + (selector & 0xfff8) + 8, 8);
    base |= high << 32;
    if (!soft_canonical(base) || high >> 40 & 0x1f)
        soft_gp(v, selector & ~3);
    return base;
}

void soft_lldt(struct soft_vcpu *v, uint16_t selector)
{
    struct x86_segment s = {.selector = selector, .attr = X86_ATTR_UNUSABLE};
    if (selector & ~3) {
        uint64_t desc;
        if (selector & 4 || !soft_descriptor(v, selector, &desc))
            soft_gp(v, selector & ~3);
        s = soft_unpack(selector, desc);
        if ((s.attr & (X86_ATTR_S | X86_ATTR_TYPE)) != 2)
            soft_gp(v, selector & ~3);
        if (!(s.attr & X86_ATTR_P))
            soft_raise(v, VEC_NP, selector & ~3);
        s.base = system_base(v, selector, desc);
    }
    v->ldt = s;
}

void soft_ltr(struct soft_vcpu *v, uint16_t selector)
{
    uint64_t desc;
    if (!(selector & ~3) || selector & 4 || !soft_descriptor(v, selector, &desc))
        soft_gp(v, selector & ~3);
    struct x86_segment s = soft_unpack(selector, desc);
    unsigned type = s.attr & (X86_ATTR_S | X86_ATTR_TYPE);
    if (type != 9 && (type != 1 || v->long_mode))
        soft_gp(v, selector & ~3);
    if (!(s.attr & X86_ATTR_P))
        soft_raise(v, VEC_NP, selector & ~3);
    s.base = system_base(v, selector, desc);
    soft_store_sys(v, soft_lin(v, v->gdt.base + (selector & 0xfff8) + 5), 1,
                   (desc >> 40 & 0xff) | 2);
    s.attr |= 2;
    v->tr = s;
}

void soft_tss_stack(struct soft_vcpu *v, unsigned cpl, uint16_t *ss, uint64_t *sp)
{
    bool tss32 = v->tr.attr & 8;
    uint32_t offset = v->long_mode ? 4 + cpl * 8 : tss32 ? 4 + cpl * 8 : 2 + cpl * 4;
    if (v->tr.attr & X86_ATTR_UNUSABLE || offset + (tss32 ? 7 : 3) > v->tr.limit)
        soft_raise(v, VEC_TS, v->tr.selector & ~3);
    uint64_t at = v->tr.base + offset;
    if (v->long_mode) {
        *sp = soft_load_sys(v, at, 8);
        *ss = cpl;
        if (!soft_canonical(*sp))
            soft_raise(v, VEC_SS, 0);
    } else if (tss32) {
        *sp = soft_load_sys(v, soft_lin(v, at), 4);
        *ss = soft_load_sys(v, soft_lin(v, at + 4), 2);
    } else {
        *sp = soft_load_sys(v, soft_lin(v, at), 2);
        *ss = soft_load_sys(v, soft_lin(v, at + 2), 2);
    }
}

/* ---- LAR, LSL, VERR, VERW: look at a descriptor, answer through ZF ---- */

static bool inspect(struct soft_vcpu *v, uint16_t selector, uint64_t *desc)
{
    if (!(selector & ~3) || !soft_descriptor(v, selector, desc))
        return false;
    struct x86_segment s = soft_unpack(selector, *desc);
    if (s.attr & X86_ATTR_S && s.attr & SEG_CODE && s.attr & SEG_CONFORM)
        return true;
    unsigned dpl = seg_dpl(&s);
    return v->cpl <= dpl && (selector & 3u) <= dpl;
}

static void set_zf(struct soft_vcpu *v, bool zf)
{
    soft_set_arith(v, (cc_compute(v) & ~FL_ZF) | (zf ? FL_ZF : 0));
}

static void need_protected(struct soft_vcpu *v)
{
    if (!(v->cr0 & CR0_PE) || v->rflags & FL_VM)
        soft_ud(v);
}

void exec_lar_lsl(struct soft_vcpu *v, const struct insn *insn)
{
    need_protected(v);
    bool lar = insn->id == I_LAR;
    uint16_t selector = get_operand(v, insn, 1);
    uint64_t desc;
    bool ok = inspect(v, selector, &desc);
    if (ok && !(desc >> 44 & 1)) { /* system descriptors: the types that each accepts */
        uint16_t types = lar ? (v->long_mode ? 0x1a04 : 0x1a3e) : (v->long_mode ? 0x0a04 : 0x0a0e);
        ok = types >> (desc >> 40 & 15) & 1;
    }
    if (ok)
        put_operand(v, insn, 0, lar ? desc >> 32 & 0x00f0ff00 : soft_unpack(selector, desc).limit);
    set_zf(v, ok);
}

void exec_verr_verw(struct soft_vcpu *v, const struct insn *insn)
{
    need_protected(v);
    uint16_t selector = get_operand(v, insn, 0);
    uint64_t desc;
    bool ok = inspect(v, selector, &desc) && desc >> 44 & 1;
    if (ok) {
        uint32_t attr = desc >> 40;
        ok = insn->id == I_VERR ? !(attr & SEG_CODE) || attr & SEG_READ
                                : !(attr & SEG_CODE) && attr & SEG_WRITE;
    }
    set_zf(v, ok);
}

void exec_lldt_ltr(struct soft_vcpu *v, const struct insn *insn)
{
    need_protected(v);
    uint16_t selector = get_operand(v, insn, 0);
    if (insn->id == I_LLDT)
        soft_lldt(v, selector);
    else
        soft_ltr(v, selector);
}

void exec_sldt_str(struct soft_vcpu *v, const struct insn *insn)
{
    need_protected(v);
    uint16_t selector = insn->id == I_SLDT ? v->ldt.selector : v->tr.selector;
    if (insn->is_mem)
        soft_store(v, soft_linear(v, insn, 2, ACC_WRITE), 2, selector);
    else
        put_operand(v, insn, 0, selector);
}

void exec_arpl(struct soft_vcpu *v, const struct insn *insn)
{
    need_protected(v);
    uint16_t dst = get_operand(v, insn, 0), src = get_operand(v, insn, 1);
    bool raise = (dst & 3) < (src & 3);
    if (raise)
        put_operand(v, insn, 0, (dst & ~3) | (src & 3));
    set_zf(v, raise);
}
