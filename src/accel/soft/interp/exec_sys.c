/*
 * General executors of system instructions: control and debug registers, MSRs, CPUID, ports,
 * descriptor-table registers, TLB and cache control (Intel SDM vol. 2 and vol. 3, chapter 2).
 * Privilege (INSN_F_PRIV) is checked before any of these runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/exec_all.h"

#include <sched.h>

#include "accel/soft/interp/operand.h"
#include "accel/soft/mem/tlb.h"
#include "accel/soft/system/segment.h"

static unsigned iopl(const struct soft_vcpu *v)
{
    return v->rflags >> FL_IOPL_SHIFT & 3;
}

/* ---- ports ---- */

bool soft_io_allowed(struct soft_vcpu *v, uint16_t port, unsigned size)
{
    if (unlikely(v->dr[7] & 0xff))
        soft_watch_port(v, port, size);
    bool vm86 = v->rflags & FL_VM;
    if (!(v->cr0 & CR0_PE) || (!vm86 && v->cpl <= iopl(v)))
        return true;
    /* The permission bitmap of a 32- or 64-bit TSS. */
    if (!(v->tr.attr & 8) || v->tr.attr & X86_ATTR_UNUSABLE || v->tr.limit < 103)
        soft_gp(v, 0);
    uint32_t map = soft_load_sys(v, soft_lin(v, v->tr.base + 102), 2);
    uint32_t at = map + port / 8;
    if (at + 1 > v->tr.limit)
        soft_gp(v, 0);
    uint32_t bits = soft_load_sys(v, soft_lin(v, v->tr.base + at), 2) >> (port & 7);
    if (bits & ((1u << size) - 1))
        soft_gp(v, 0);
    return true;
}

static uint16_t port_operand(struct soft_vcpu *v, const struct insn *insn, unsigned i)
{
    return insn->op[i] == O_DX ? v->r[X86_RDX] : (uint8_t)insn->imm;
}

void exec_in(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize > 4 ? 4 : insn->opsize;
    uint16_t port = port_operand(v, insn, 1);
    soft_io_allowed(v, port, n);
    v->stats.pio++;
    soft_mxcsr_leave(v);
    uint32_t value = v->vm->io->pio_read(v->vm->opaque, port, n);
    put_reg(v, insn, X86_RAX, n, value);
}

void exec_out(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize > 4 ? 4 : insn->opsize;
    uint16_t port = port_operand(v, insn, 0);
    soft_io_allowed(v, port, n);
    v->stats.pio++;
    soft_mxcsr_leave(v);
    v->vm->io->pio_write(v->vm->opaque, port, n, zero_extend(v->r[X86_RAX], n));
}

/* ---- flags, halting ---- */

void exec_cli(struct soft_vcpu *v, const struct insn *insn)
{
    if (v->cr0 & CR0_PE && v->cpl > iopl(v))
        soft_gp(v, 0);
    v->rflags &= ~FL_IF;
}

void exec_sti(struct soft_vcpu *v, const struct insn *insn)
{
    if (v->cr0 & CR0_PE && v->cpl > iopl(v))
        soft_gp(v, 0);
    if (!(v->rflags & FL_IF))
        v->shadow = SHADOW_STI;
    v->rflags |= FL_IF;
}

void exec_hlt(struct soft_vcpu *v, const struct insn *insn)
{
    v->activity = X86_HALTED;
    v->stats.halts++;
}

void exec_pause(struct soft_vcpu *v, const struct insn *insn)
{
    /* A spinning vCPU gives its host CPU away, in case the lock's holder waits for it. */
    if (v->vm->vcpu_count > 1 && (++v->pauses & 63) == 0)
        sched_yield();
}

/* ---- segment registers, descriptor tables ---- */

static const uint8_t segs[8] = {X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_SEGS, X86_SEGS};

void exec_movseg_r(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned seg = segs[insn->reg & 7];
    if (seg == X86_SEGS)
        soft_ud(v);
    if (insn->is_mem)
        soft_store(v, soft_linear(v, insn, 2, ACC_WRITE), 2, v->seg[seg].selector);
    else
        put_operand(v, insn, 0, v->seg[seg].selector);
}

void exec_movseg_w(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned seg = segs[insn->reg & 7];
    if (seg == X86_SEGS || seg == X86_CS)
        soft_ud(v);
    soft_load_seg(v, seg, get_operand(v, insn, 1));
    if (seg == X86_SS)
        v->shadow = SHADOW_SS;
}

void exec_sgdt(struct soft_vcpu *v, const struct insn *insn)
{
    const struct x86_table_register *t = insn->id == I_SGDT ? &v->gdt : &v->idt;
    unsigned n = insn->mode == INSN_64 ? 8 : 4;
    uint8_t bytes[10];
    put_le16(bytes, t->limit);
    put_le64(bytes + 2, t->base);
    soft_write(v, soft_linear(v, insn, 2 + n, ACC_WRITE), bytes, 2 + n);
}

void exec_lgdt(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->mode == INSN_64 ? 8 : 4;
    uint8_t bytes[10] = {0};
    soft_read(v, soft_linear(v, insn, 2 + n, ACC_READ), bytes, 2 + n);
    struct x86_table_register t = {.base = get_le64(bytes + 2), .limit = get_le16(bytes)};
    if (insn->opsize == 2)
        t.base &= 0xffffff;
    if (n == 8 && !soft_canonical(t.base))
        soft_gp(v, 0);
    *(insn->id == I_LGDT ? &v->gdt : &v->idt) = t;
}

/* ---- control registers ---- */

static void write_cr0(struct soft_vcpu *v, uint64_t value)
{
    uint64_t known =
        CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
    if (value >> 32 || (value & CR0_PG && !(value & CR0_PE)) ||
        (value & CR0_NW && !(value & CR0_CD)))
        soft_gp(v, 0);
    value = (value & known) | CR0_ET;
    uint64_t changed = value ^ v->cr0;
    if (changed & CR0_PG) {
        if (value & CR0_PG && v->efer & EFER_LME) {
            if (!(v->cr4 & CR4_PAE) || v->seg[X86_CS].attr & X86_ATTR_L)
                soft_gp(v, 0);
            v->efer |= EFER_LMA;
        } else if (!(value & CR0_PG) && v->efer & EFER_LMA) {
            if (v->mode == INSN_64 || v->cr4 & CR4_PCIDE)
                soft_gp(v, 0);
            v->efer &= ~(uint64_t)EFER_LMA;
        }
    }
    v->cr0 = value;
    /* PE changes without PG translate nothing: boot loaders turn it with each call of the BIOS. */
    if (changed & (CR0_PG | CR0_WP))
        soft_tlb_flush(v);
    soft_mode_changed(v);
}

static void write_cr3(struct soft_vcpu *v, uint64_t value)
{
    bool keep = false;
    if (v->cr4 & CR4_PCIDE) {
        keep = value >> 63;
        value &= ~(1ull << 63);
    }
    if (v->long_mode && value & ~v->phys_mask)
        soft_gp(v, 0);
    if (!v->long_mode)
        value = (uint32_t)value;
    v->cr3 = value;
    if (!keep)
        soft_tlb_flush_pcid(v, v->cr4 & CR4_PCIDE ? value & 0xfff : 0);
    soft_mode_changed(v);
}

static void write_cr4(struct soft_vcpu *v, uint64_t value)
{
    uint64_t known = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE |
                     CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    known &= ~(uint64_t)(CR4_VME | CR4_PVI);
    if (v->features >> FEAT_FSGSBASE & 1)
        known |= CR4_FSGSBASE;
    if (v->features >> FEAT_XSAVE & 1)
        known |= CR4_OSXSAVE;
    struct cpuid_entry leaf1, leaf7;
    cpuid_query(&v->cpuid, 1, 0, &leaf1);
    cpuid_query(&v->cpuid, 7, 0, &leaf7);
    if (leaf1.ecx >> 17 & 1)
        known |= CR4_PCIDE;
    if (leaf7.ebx >> 7 & 1)
        known |= CR4_SMEP;
    if (value & ~known)
        soft_gp(v, 0);
    if (v->long_mode && !(value & CR4_PAE))
        soft_gp(v, 0);
    if (value & ~v->cr4 & CR4_PCIDE && (!v->long_mode || v->cr3 & 0xfff))
        soft_gp(v, 0);
    uint64_t changed = value ^ v->cr4;
    v->cr4 = value;
    if (changed & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP))
        soft_tlb_flush(v);
    soft_mode_changed(v);
}

void exec_movcr_r(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t value;
    switch (insn->reg) {
    case 0:
        value = v->cr0;
        break;
    case 2:
        value = v->cr2;
        break;
    case 3:
        value = v->cr3;
        break;
    case 4:
        value = v->cr4;
        break;
    case 8:
        value = lapic_cr8(v->lapic);
        break;
    default:
        soft_ud(v);
    }
    put_operand(v, insn, 0, value);
}

void exec_movcr_w(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t value = get_operand(v, insn, 1);
    switch (insn->reg) {
    case 0:
        write_cr0(v, value);
        break;
    case 2:
        v->cr2 = value;
        break;
    case 3:
        write_cr3(v, value);
        break;
    case 4:
        write_cr4(v, value);
        break;
    case 8:
        if (value >> 4)
            soft_gp(v, 0);
        lapic_set_cr8(v->lapic, value);
        v->intr_maybe = true;
        break;
    default:
        soft_ud(v);
    }
}

void exec_clts(struct soft_vcpu *v, const struct insn *insn)
{
    v->cr0 &= ~(uint64_t)CR0_TS;
}

void exec_smsw(struct soft_vcpu *v, const struct insn *insn)
{
    if (insn->is_mem)
        soft_store(v, soft_linear(v, insn, 2, ACC_WRITE), 2, v->cr0);
    else
        put_operand(v, insn, 0, v->cr0);
}

void exec_lmsw(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t value = get_operand(v, insn, 0);
    uint64_t low = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    write_cr0(v, (v->cr0 & ~(low & ~(uint64_t)CR0_PE)) | (value & low));
}

/* ---- debug registers ---- */

static unsigned debug_number(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->reg;
    if (n > 7 || ((n == 4 || n == 5) && v->cr4 & CR4_DE))
        soft_ud(v);
    if (v->dr[7] & 0x2000) { /* general detect */
        v->dr[6] |= 0x2000;
        soft_raise(v, VEC_DB, 0);
    }
    return n == 4 || n == 5 ? n + 2 : n;
}

void exec_movdr_r(struct soft_vcpu *v, const struct insn *insn)
{
    put_operand(v, insn, 0, v->dr[debug_number(v, insn)]);
}

void exec_movdr_w(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = debug_number(v, insn);
    uint64_t value = get_operand(v, insn, 1);
    if (n >= 6 && value >> 32)
        soft_gp(v, 0);
    if (n == 6)
        value = (value & 0xe00f) | 0xffff0ff0;
    else if (n == 7)
        value = (value & 0xffff2fff) | 0x400;
    v->dr[n] = value;
    soft_debug_changed(v);
}

/* ---- MSRs, CPUID, counters ---- */

void exec_rdmsr(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t value = 0;
    if (!soft_rdmsr(v, v->r[X86_RCX], &value))
        soft_gp(v, 0);
    v->r[X86_RAX] = (uint32_t)value;
    v->r[X86_RDX] = value >> 32;
}

void exec_wrmsr(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t value = (uint32_t)v->r[X86_RAX] | v->r[X86_RDX] << 32;
    if (!soft_wrmsr(v, v->r[X86_RCX], value))
        soft_gp(v, 0);
    v->intr_maybe = true;
}

void exec_cpuid(struct soft_vcpu *v, const struct insn *insn)
{
    struct cpuid_entry e = {0};
    soft_cpuid(v, v->r[X86_RAX], v->r[X86_RCX], &e);
    v->r[X86_RAX] = e.eax;
    v->r[X86_RBX] = e.ebx;
    v->r[X86_RCX] = e.ecx;
    v->r[X86_RDX] = e.edx;
}

/* RDTSC, RDTSCP. */
void exec_rdtsc(struct soft_vcpu *v, const struct insn *insn)
{
    if (v->cr4 & CR4_TSD && v->cpl > 0 && v->cr0 & CR0_PE)
        soft_gp(v, 0);
    uint64_t tsc = soft_tsc(v);
    v->r[X86_RAX] = (uint32_t)tsc;
    v->r[X86_RDX] = tsc >> 32;
    if (insn->id == I_RDTSCP)
        v->r[X86_RCX] = (uint32_t)v->msr.tsc_aux;
}

void exec_rdpid(struct soft_vcpu *v, const struct insn *insn)
{
    put_operand(v, insn, 0, v->msr.tsc_aux);
}

void exec_rdpmc(struct soft_vcpu *v, const struct insn *insn)
{
    soft_gp(v, 0); /* no counters are advertised */
}

void exec_swapgs(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t base = v->seg[X86_GS].base;
    soft_seg_base(v, X86_GS, v->msr.kernel_gs_base);
    v->msr.kernel_gs_base = base;
}

void exec_fsgsbase(struct soft_vcpu *v, const struct insn *insn)
{
    if (!(v->cr4 & CR4_FSGSBASE))
        soft_ud(v);
    unsigned seg = insn->id == I_RDFSBASE || insn->id == I_WRFSBASE ? X86_FS : X86_GS;
    if (insn->id == I_RDFSBASE || insn->id == I_RDGSBASE) {
        put_operand(v, insn, 0, v->seg[seg].base);
        return;
    }
    uint64_t base = get_operand(v, insn, 0);
    if (!soft_canonical(base))
        soft_gp(v, 0);
    soft_seg_base(v, seg, base);
}

/* ---- TLB and caches ---- */

void exec_invlpg(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t linear = soft_ea(v, insn) + v->r[R_SEG + insn->seg];
    soft_tlb_flush_page(v, soft_lin(v, linear));
}

void exec_invpcid(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t type = v->r[insn->reg];
    uint64_t at = soft_linear(v, insn, 16, ACC_READ);
    uint64_t pcid = soft_load(v, at, 8), linear = soft_load(v, soft_lin(v, at + 8), 8);
    if (insn->mode != INSN_64)
        type = (uint32_t)type;
    if (type > 3 || (type < 2 && (pcid >> 12 || (pcid && !(v->cr4 & CR4_PCIDE)))) ||
        (type == 0 && !soft_canonical(linear)))
        soft_gp(v, 0);
    if (type == 0)
        soft_tlb_flush_pcid_page(v, pcid, linear);
    else if (type == 1)
        soft_tlb_flush_pcid(v, pcid);
    else
        soft_tlb_flush(v); /* without global pages (3) as well: more is allowed */
    soft_mode_changed(v);
}

void exec_wbinvd(struct soft_vcpu *v, const struct insn *insn)
{
}

void exec_clflush(struct soft_vcpu *v, const struct insn *insn)
{
    soft_load(v, soft_linear(v, insn, 1, ACC_READ), 1); /* faults as a load does */
}

void exec_fence(struct soft_vcpu *v, const struct insn *insn)
{
    atomic_thread_fence(memory_order_seq_cst);
}

void exec_serialize(struct soft_vcpu *v, const struct insn *insn)
{
    atomic_thread_fence(memory_order_seq_cst);
}
