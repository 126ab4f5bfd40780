/*
 * The software TLBs' upkeep: address spaces, flushes, switches of CR3, privilege and mode.
 *
 * Each PCID that was used lately has a slot with private TLBs for user accesses. Supervisor
 * accesses have one space for all, from which a switch of CR3 takes what is not global: a kernel's
 * own pages are, so its translations outlive the process. What the architecture asks to flush is
 * flushed, sometimes more, never less (Intel SDM vol. 3, 4.10.4).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/mem/tlb.h"

#include <stdlib.h>

#include "accel/soft/interp/block.h"
#include "accel/soft/mem/mirror.h"
#include "accel/soft/mem/site.h"

static void reset_table(struct soft_tlbe *table, unsigned size, const uint16_t *log, uint32_t *n)
{
    if (*n <= TLB_LOG) {
        for (unsigned i = 0; i < *n; i++)
            table[log[i]].tag = tlb_empty_tag(log[i]);
    } else {
        for (unsigned i = 0; i < size; i++)
            table[i].tag = tlb_empty_tag(i);
    }
    *n = 0;
}

static void reset_jc(struct soft_space *space, struct block *miss)
{
    if (space->n_jc <= JC_LOG) {
        for (unsigned i = 0; i < space->n_jc; i++)
            space->jc[space->log_jc[i]] = (struct soft_jc){.key = 0, .block = miss};
    } else {
        for (unsigned i = 0; i < JC_SIZE; i++)
            space->jc[i] = (struct soft_jc){.key = 0, .block = miss};
    }
    space->n_jc = 0;
}

uint64_t soft_host_gpa(const struct soft_mem *mem, const uint8_t *host)
{
    for (unsigned i = 0; i < mem->ram_count; i++) {
        const struct soft_ram *ram = &mem->ram[i];
        if (host >= ram->host && host < ram->host + ram->size)
            return ram->gpa + gmem_offset(&ram->order, (uint64_t)(host - ram->host));
    }
    return UINT64_MAX;
}

void tlb_write_dropped(struct soft_vcpu *v, unsigned index, const struct soft_tlbe *e)
{
    if (likely(!v->vm->dirty_log) || e->tag == tlb_empty_tag(index))
        return;
    uint64_t gpa = soft_host_gpa(v->vm->mem, (uint8_t *)(uintptr_t)(e->tag + e->addend));
    if (gpa != UINT64_MAX)
        gmem_dirty_set(v->vm->gmem, gpa, GUEST_PAGE_SIZE);
}

/* With the write entries goes what stands for one. */
static void forget_beside(struct soft_vcpu *v)
{
    v->beside.space = NULL;
}

static void flush_writes(struct soft_vcpu *v, struct soft_space *space)
{
    forget_beside(v);
    if (unlikely(v->vm->dirty_log))
        for (unsigned i = 0; i < TLB_SIZE; i++)
            tlb_write_dropped(v, i, &space->write[i]);
    soft_sites_flush(v, space, true);
    reset_table(space->write, TLB_SIZE, space->log_write, &space->n_write);
}

static void reset_huge(struct soft_space *space, uint64_t keep)
{
    for (unsigned i = 0; i < HUGE_SIZE; i++)
        if (!(keep >> i & 1))
            space->huge[i].tag = (uint64_t)(i ^ 1) << 21; /* matches no address of the slot */
}

static void flush_sites(struct soft_vcpu *v, struct soft_space *space)
{
    reset_huge(space, 0);
    soft_sites_flush(v, space, false);
    soft_sites_flush(v, space, true);
}

/* The next flush is of everything. */
static void forget_logs(struct soft_space *space)
{
    space->n_read = space->n_write = space->n_exec = TLB_LOG + 1;
    space->n_jc = JC_LOG + 1;
}

void soft_space_flush(struct soft_vcpu *v, struct soft_space *space)
{
    if (!space)
        return;
    soft_sites_flush(v, space, false);
    reset_huge(space, space == v->supervisor ? space->huge_global : 0);
    reset_table(space->read, TLB_SIZE, space->log_read, &space->n_read);
    flush_writes(v, space);
    reset_table(space->exec, TLBX_SIZE, space->log_exec, &space->n_exec);
    reset_jc(space, soft_code_miss(v->code));
}

static void flush_space(struct soft_vcpu *v, struct soft_space *space)
{
    if (!space)
        return;
    if (space == v->supervisor)
        forget_logs(space);
    flush_sites(v, space);
    soft_space_flush(v, space);
    memset(space->exec_seen, 0, sizeof(space->exec_seen));
    space->large = space->large_near = 0;
}

struct soft_space *soft_space_new(struct soft_vcpu *v)
{
    struct soft_space *space = xcalloc(1, sizeof(*space));
    forget_logs(space);
    reset_table(space->read, TLB_SIZE, space->log_read, &space->n_read);
    reset_table(space->write, TLB_SIZE, space->log_write, &space->n_write);
    reset_table(space->exec, TLBX_SIZE, space->log_exec, &space->n_exec);
    reset_huge(space, 0);
    reset_jc(space, soft_code_miss(v->code));
    return space;
}

struct soft_space *soft_space_of(struct soft_vcpu *v, bool user)
{
    struct soft_space **slot = user ? &v->user[v->asid] : &v->supervisor;
    if (unlikely(!*slot))
        *slot = soft_space_new(v);
    return *slot;
}

void soft_space_free(struct soft_vcpu *v)
{
    free(v->supervisor);
    for (unsigned i = 0; i < SOFT_ASIDS; i++) {
        soft_mirror_free(v->user[i]);
        free(v->user[i]);
    }
}

void soft_tlb_flush(struct soft_vcpu *v)
{
    flush_space(v, v->supervisor);
    for (unsigned i = 0; i < SOFT_ASIDS; i++)
        flush_space(v, v->user[i]);
    v->low_global = false;
}

void soft_tlb_flush_writes(struct soft_vcpu *v)
{
    if (v->supervisor) {
        v->supervisor->n_write = TLB_LOG + 1;
        flush_writes(v, v->supervisor);
    }
    for (unsigned i = 0; i < SOFT_ASIDS; i++)
        if (v->user[i])
            flush_writes(v, v->user[i]);
}

static void drop_write(struct soft_vcpu *v, struct soft_space *space, unsigned i, uintptr_t page)
{
    struct soft_tlbe *e = &space->write[i];
    if (e->tag + e->addend != page || e->tag == tlb_empty_tag(i))
        return;
    tlb_write_dropped(v, i, e);
    e->tag = tlb_empty_tag(i);
}

void soft_tlb_drop_write(struct soft_vcpu *v, const uint8_t *page)
{
    forget_beside(v);
    if (v->supervisor)
        soft_sites_drop_host(v, v->supervisor, (uintptr_t)page);
    for (unsigned i = 0; i < TLB_SIZE; i++)
        if (v->supervisor)
            drop_write(v, v->supervisor, i, (uintptr_t)page);
    for (unsigned slot = 0; slot < SOFT_ASIDS; slot++) {
        struct soft_space *space = v->user[slot];
        if (!space)
            continue;
        soft_sites_drop_host(v, space, (uintptr_t)page);
        bool logged = space->n_write <= TLB_LOG;
        for (unsigned i = 0; i < (logged ? space->n_write : TLB_SIZE); i++)
            drop_write(v, space, logged ? space->log_write[i] : i, (uintptr_t)page);
    }
}

void soft_tlb_flush_pcid(struct soft_vcpu *v, uint64_t pcid)
{
    for (unsigned i = 0; i < SOFT_ASIDS; i++) {
        if (!v->asid_used[i] || v->asid_pcid[i] != pcid)
            continue;
        flush_space(v, v->user[i]);
        if (i == v->asid)
            soft_space_flush(v, v->supervisor);
    }
}

void soft_jc_flush(struct soft_vcpu *v)
{
    if (v->supervisor) {
        v->supervisor->n_jc = JC_LOG + 1;
        reset_jc(v->supervisor, soft_code_miss(v->code));
    }
    for (unsigned i = 0; i < SOFT_ASIDS; i++)
        if (v->user[i])
            reset_jc(v->user[i], soft_code_miss(v->code));
}

/* May the jump cache hold code of the pages around `linear`? */
static bool exec_seen(const struct soft_space *space, uint64_t linear, uint64_t page_size)
{
    unsigned bit = tlb_exec_hash(linear);
    if (page_size <= GUEST_PAGE_SIZE)
        return space->exec_seen[bit / 64] >> (bit % 64) & 1;
    if (page_size > MIB(2))
        return true;
    const uint64_t *words = &space->exec_seen[bit / 512 * 8]; /* 2 MiB share eight words */
    uint64_t any = 0;
    for (unsigned i = 0; i < 8; i++)
        any |= words[i];
    return any;
}

static void drop_jump(struct soft_vcpu *v, struct soft_jc *e, uint64_t linear, uint64_t mask)
{
    if (!((e->key ^ linear) & mask & ~(JC_SALT_16 | JC_SALT_32 | JC_SALT_FLAT)))
        *e = (struct soft_jc){.key = 0, .block = soft_code_miss(v->code)};
}

/* Forgets jumps into the pages whose address bits in `mask` are those of `linear`. */
static void drop_jumps(struct soft_vcpu *v, struct soft_space *space, uint64_t linear,
                       uint64_t mask)
{
    if (space != v->supervisor && space->n_jc <= JC_LOG) {
        for (unsigned i = 0; i < space->n_jc; i++)
            drop_jump(v, &space->jc[space->log_jc[i]], linear, mask);
        return;
    }
    /* The slots of one page lie together: see jc_index(). */
    unsigned slots = ~mask == GUEST_PAGE_SIZE - 1 ? GUEST_PAGE_SIZE : JC_SIZE;
    unsigned first = jc_index(linear) & ~(slots - 1);
    for (unsigned i = 0; i < slots; i++)
        drop_jump(v, &space->jc[first + i], linear, mask);
}

/* Entries of a large page lie in any slot: compare all tags within it. */
static void flush_large(struct soft_vcpu *v, struct soft_space *space, uint64_t linear)
{
    flush_sites(v, space);
    uint64_t mask = space->large >= GIB(1) ? ~(GIB(1) - 1) : ~(MIB(4) - 1);
    for (unsigned i = 0; i < TLB_SIZE; i++) {
        if (!((space->read[i].tag ^ linear) & mask))
            space->read[i].tag = tlb_empty_tag(i);
        if (!((space->write[i].tag ^ linear) & mask)) {
            tlb_write_dropped(v, i, &space->write[i]);
            space->write[i].tag = tlb_empty_tag(i);
        }
    }
    for (unsigned i = 0; i < TLBX_SIZE; i++)
        if (!((space->exec[i].tag ^ linear) & mask))
            space->exec[i].tag = tlb_empty_tag(i);
    if (exec_seen(space, linear, space->large))
        drop_jumps(v, space, linear, mask);
}

static void flush_page_in(struct soft_vcpu *v, struct soft_space *space, uint64_t linear)
{
    if (!space)
        return;
    forget_beside(v);
    if (space->large_near & tlb_near(linear)) {
        flush_large(v, space, linear);
        return;
    }
    soft_sites_drop_page(v, space, linear);
    unsigned i = tlb_index(linear), x = i & (TLBX_SIZE - 1);
    if ((space->read[i].tag ^ linear) <= 0xfff)
        space->read[i].tag = tlb_empty_tag(i);
    if ((space->write[i].tag ^ linear) <= 0xfff) {
        tlb_write_dropped(v, i, &space->write[i]);
        space->write[i].tag = tlb_empty_tag(i);
    }
    if ((space->exec[x].tag ^ linear) <= 0xfff)
        space->exec[x].tag = tlb_empty_tag(x);
    if (exec_seen(space, linear, GUEST_PAGE_SIZE))
        drop_jumps(v, space, linear, ~0xfffull);
}

void soft_tlb_flush_page(struct soft_vcpu *v, uint64_t linear)
{
    bool all = linear >> 63 || v->low_global;
    flush_page_in(v, v->supervisor, linear);
    for (unsigned i = 0; i < SOFT_ASIDS; i++)
        if (all || i == v->asid)
            flush_page_in(v, v->user[i], linear);
}

void soft_tlb_flush_pcid_page(struct soft_vcpu *v, uint64_t pcid, uint64_t linear)
{
    for (unsigned i = 0; i < SOFT_ASIDS; i++) {
        if (!v->asid_used[i] || v->asid_pcid[i] != pcid)
            continue;
        flush_page_in(v, v->user[i], linear);
        if (i == v->asid)
            flush_page_in(v, v->supervisor, linear);
    }
}

/* The slot of the current PCID, or the one that was used longest ago. */
static void pick_slot(struct soft_vcpu *v)
{
    uint64_t pcid = v->cr4 & CR4_PCIDE ? v->cr3 & 0xfff : 0;
    uint64_t root = v->cr3 & 0x000ffffffffff000ull;
    unsigned slot = v->asid;
    if (v->asid_used[slot] && v->asid_pcid[slot] == pcid && v->asid_root[slot] == root)
        return;
    for (unsigned i = slot = 0; i < SOFT_ASIDS; i++) {
        if (v->asid_used[i] && v->asid_pcid[i] == pcid) {
            slot = i;
            break;
        }
        if (v->asid_used[i] < v->asid_used[slot])
            slot = i;
    }
    if (!v->asid_used[slot] || v->asid_pcid[slot] != pcid || v->asid_root[slot] != root)
        flush_space(v, v->user[slot]);
    soft_space_flush(v, v->supervisor);
    v->asid_pcid[slot] = pcid;
    v->asid_root[slot] = root;
    v->asid_used[slot] = ++v->asid_clock;
    v->asid = slot;
}

void soft_cpl_changed(struct soft_vcpu *v)
{
    v->space = soft_space_of(v, v->cpl == 3);
}

void soft_mode_changed(struct soft_vcpu *v)
{
    static const uint64_t salts[] = {[INSN_16] = JC_SALT_16, [INSN_32] = JC_SALT_32, [INSN_64] = 0};
    v->long_mode = v->efer & EFER_LMA;
    uint32_t cs = v->seg[X86_CS].attr;
    bool protected_mode = v->cr0 & CR0_PE && !(v->rflags & FL_VM);
    if (v->long_mode && cs & X86_ATTR_L)
        v->mode = INSN_64;
    else
        v->mode = protected_mode && cs & X86_ATTR_DB ? INSN_32 : INSN_16;
    if (!(v->cr0 & CR0_PE) && cs & X86_ATTR_DB)
        v->mode = INSN_32; /* "unreal" code segment, kept from protected mode */
    v->salt = salts[v->mode];
    soft_flat_update(v);
    pick_slot(v);
    soft_cpl_changed(v);
    for (unsigned i = 0; i < X86_SEGS; i++)
        v->r[R_SEG + i] = v->mode == INSN_64 && i < X86_FS ? 0 : v->seg[i].base;
}
