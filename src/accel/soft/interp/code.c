/*
 * Pages that hold decoded code, across vCPUs and devices.
 *
 * soft_mem.lines has a word a page, a bit for each 64-byte line that some vCPU decoded. A write to
 * such a page comes through phys.c or gmem's listener; when it meets a marked line, every vCPU
 * drops the page's blocks: the writer at once, the others from their inbox when they leave their
 * block. The post comes before the write is visible, so whoever sees the new bytes sees the post
 * too.
 *
 * Before a page's first line is marked, no vCPU may hold a write-TLB entry for it:
 * soft_mem.writable tells whether one might, and then the marker asks the others to drop theirs and
 * waits (rendezvous).
 *
 * Lock: code_lock for marks and the rendezvous, inbox_lock for each inbox. A vCPU that waits for
 * code_lock keeps answering, so two that want it cannot block each other.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <sched.h>

#include "accel/soft/interp/block.h"
#include "accel/soft/mem/tlb.h"
#include "base/bitmap.h"

uint64_t soft_page_index(const struct soft_mem *mem, uint64_t gpa)
{
    const struct soft_ram *ram = soft_ram_find(mem, gpa);
    return ram ? ram->first_page + ((gpa - ram->gpa) >> GUEST_PAGE_SHIFT) : UINT64_MAX;
}

void soft_sync_answer(struct soft_vcpu *v)
{
    soft_tlb_flush_writes(v);
    atomic_store(&v->sync_seen, 1);
}

/* Makes every other vCPU drop its write TLB, and this one its entries of the page. */
static void rendezvous(struct soft_vcpu *self, uint64_t gpa)
{
    struct soft_vm *vm = self->vm;
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct soft_vcpu *other = vm->vcpu[i];
        if (!other || other == self)
            continue;
        atomic_store(&other->sync_seen, 0);
        soft_post(other, EV_SYNC);
    }
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct soft_vcpu *other = vm->vcpu[i];
        /* One that does not run answers before its next block: see run.c. */
        while (other && other != self && !atomic_load(&other->sync_seen) &&
               atomic_load(&other->running))
            sched_yield();
    }
    const struct soft_ram *ram = soft_ram_find(vm->mem, gpa);
    soft_tlb_drop_write(self, soft_ram_host(ram, gpa));
}

static void take_code_lock(struct soft_vcpu *v)
{
    while (pthread_mutex_trylock(&v->vm->code_lock.mutex)) {
        if (atomic_load(&v->events) & EV_SYNC) {
            atomic_fetch_and(&v->events, ~EV_SYNC);
            soft_sync_answer(v);
        }
        sched_yield();
    }
}

static uint64_t line_mask(uint64_t offset, unsigned len)
{
    unsigned first = offset / 64, last = (offset + len - 1) / 64;
    if (last > 63)
        last = 63;
    return (last == 63 ? ~0ull : (1ull << (last + 1)) - 1) & ~((1ull << first) - 1);
}

void soft_code_mark(struct soft_vcpu *v, uint64_t gpa, unsigned bytes)
{
    struct soft_mem *mem = v->vm->mem;
    uint64_t index = soft_page_index(mem, gpa);
    if (index == UINT64_MAX)
        return;
    uint64_t mask = line_mask(gpa & 0xfff, bytes);
    uint64_t old = __atomic_load_n(&mem->lines[index], __ATOMIC_ACQUIRE);
    if (old && (old & mask) == mask)
        return;
    take_code_lock(v);
    old = __atomic_fetch_or(&mem->lines[index], mask, __ATOMIC_SEQ_CST);
    if (!old) {
        gmem_code_mark(v->vm->gmem, gpa & ~0xfffull, true);
        atomic_thread_fence(memory_order_seq_cst);
        if (bitmap_test_atomic(mem->writable, index)) {
            rendezvous(v, gpa & ~0xfffull);
            __atomic_fetch_and(&mem->writable[index / 64], ~(1ull << (index % 64)),
                               __ATOMIC_SEQ_CST);
        }
    }
    pthread_mutex_unlock(&v->vm->code_lock.mutex);
}

static void post_drop(struct soft_vcpu *other, uint64_t gpa)
{
    lock_take(&other->inbox_lock);
    if (other->inbox_count < ARRAY_SIZE(other->inbox)) {
        bool there = false;
        for (unsigned i = 0; i < other->inbox_count; i++)
            there |= other->inbox[i] == gpa;
        if (!there)
            other->inbox[other->inbox_count++] = gpa;
    } else {
        other->inbox_count = ARRAY_SIZE(other->inbox) + 1;
    }
    lock_drop(&other->inbox_lock);
    soft_post(other, EV_CODE);
}

void soft_code_written(struct soft_vm *vm, struct soft_vcpu *v, uint64_t gpa, unsigned len)
{
    uint64_t page = gpa & ~0xfffull;
    uint64_t index = soft_page_index(vm->mem, page);
    if (index == UINT64_MAX)
        return;
    uint64_t lines = __atomic_load_n(&vm->mem->lines[index], __ATOMIC_ACQUIRE);
    if (likely(!(lines & line_mask(gpa & 0xfff, len))))
        return;
    /* All blocks of the page go, so its lines are free again; a vCPU that decodes more of it at
       this moment loses that too and starts over. */
    __atomic_store_n(&vm->mem->lines[index], 0, __ATOMIC_SEQ_CST);
    gmem_code_mark(vm->gmem, page, false);
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct soft_vcpu *other = vm->vcpu[i];
        if (!other)
            continue;
        if (other == v)
            soft_code_drop(v, page);
        else
            post_drop(other, page);
    }
}

void soft_code_listener(void *opaque, uint64_t gpa, uint64_t len)
{
    struct soft_vm *vm = opaque;
    while (len) {
        uint64_t piece = MIN(len, GUEST_PAGE_SIZE - (gpa & 0xfff));
        soft_code_written(vm, NULL, gpa, piece);
        gpa += piece;
        len -= piece;
    }
}

void soft_inbox(struct soft_vcpu *v)
{
    uint64_t pages[ARRAY_SIZE(v->inbox)];
    lock_take(&v->inbox_lock);
    unsigned count = v->inbox_count;
    memcpy(pages, v->inbox, sizeof(pages));
    v->inbox_count = 0;
    lock_drop(&v->inbox_lock);
    if (count > ARRAY_SIZE(v->inbox)) {
        soft_code_flush(v);
        return;
    }
    for (unsigned i = 0; i < count; i++)
        soft_code_drop(v, pages[i]);
}
