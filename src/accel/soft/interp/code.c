/*
 * Pages that hold decoded code, across vCPUs and devices.
 *
 * soft_mem.lines has a word a page, a bit for each 64-byte line that some vCPU decoded. A write to
 * such a page comes through phys.c or gmem's listener; when it meets a marked line, every vCPU
 * drops the page's blocks: the writer at once, the others from their inbox when they leave their
 * block. The post comes before the write is visible, so whoever sees the new bytes sees the post
 * too.
 *
 * A page whose blocks go again and again has code and data close together, as boot loaders do. Then
 * soft_mem.exact, a table with one place for several pages, gets a bit for each byte of the page
 * that is code, and a write to other bytes drops nothing. A write to code by code that is not
 * 64-bit costs the writer the blocks that it meets alone. Such bits are only ever too many: a page
 * that has lost its place goes by its lines.
 *
 * Before a page's first line is marked, no vCPU may hold a write-TLB entry for it:
 * soft_mem.writable tells whether one might, and then the marker asks the others to drop theirs and
 * waits (rendezvous). Meanwhile the line counts as unmarked for who wants to decode it as well: a
 * write through such an entry drops nothing.
 *
 * Lock: code_lock for marks, exact bits and the rendezvous, inbox_lock for each inbox. A vCPU that
 * waits for code_lock keeps answering, so two that want it cannot block each other; whoever writes
 * never waits for it, and takes the blocks to be hit when it cannot look.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <sched.h>
#include <string.h>

#include "accel/soft/interp/block.h"
#include "accel/soft/mem/tlb.h"
#include "base/bitmap.h"

#define EXACT_AFTER 8
/* Bits of code that is long gone stay until the page begins anew, after so many hits. */
#define EXACT_HITS 256

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

static struct soft_exact *exact_of(const struct soft_mem *mem, uint64_t index)
{
    struct soft_exact *exact = &mem->exact[index % SOFT_EXACT_PAGES];
    return __atomic_load_n(&exact->page, __ATOMIC_ACQUIRE) == index + 1 ? exact : NULL;
}

/* Bits of the word that holds byte `at` of the page, from there to before `end`. */
static uint64_t word_mask(unsigned at, unsigned end)
{
    uint64_t up = ~0ull << (at % 64);
    return end >= (at / 64 + 1) * 64 ? up : up & ~(~0ull << (end % 64));
}

/* Under code_lock. True: some were not set. */
static bool exact_set(struct soft_exact *exact, unsigned at, unsigned end)
{
    bool fresh = false;
    for (; at < end; at = (at / 64 + 1) * 64) {
        uint64_t mask = word_mask(at, end), *word = &exact->bytes[at / 64];
        fresh |= (*word & mask) != mask;
        *word |= mask;
    }
    return fresh;
}

enum loss { LOSE_NOTHING, LOSE_BYTES, LOSE_PAGE };

/* What a write to marked lines costs; a vCPU or (NULL) a device is the writer. */
static enum loss loss_of(struct soft_vm *vm, const struct soft_vcpu *v, uint64_t index, unsigned at,
                         unsigned end)
{
    bool bytes = v && v->mode != INSN_64; /* 64-bit blocks depend on more than their bytes */
    enum loss loss = LOSE_NOTHING;
    struct soft_exact *exact = exact_of(vm->mem, index);
    if (likely(!exact) || pthread_mutex_trylock(&vm->code_lock.mutex))
        return LOSE_PAGE;
    if (exact_of(vm->mem, index) != exact)
        loss = LOSE_PAGE; /* another page has its place now */
    for (; at < end && !loss; at = (at / 64 + 1) * 64)
        if (exact->bytes[at / 64] & word_mask(at, end))
            loss = bytes && ++exact->hits % EXACT_HITS ? LOSE_BYTES : LOSE_PAGE;
    pthread_mutex_unlock(&vm->code_lock.mutex);
    return loss;
}

/* The page's blocks go, no byte is code any more. After many times it gets a place. */
static void exact_restart(struct soft_vm *vm, uint64_t index)
{
    struct soft_mem *mem = vm->mem;
    uint8_t drops = __atomic_load_n(&mem->drops[index], __ATOMIC_RELAXED);
    if (drops < UINT8_MAX)
        __atomic_store_n(&mem->drops[index], drops + 1, __ATOMIC_RELAXED);
    if (drops < EXACT_AFTER || pthread_mutex_trylock(&vm->code_lock.mutex))
        return;
    struct soft_exact *exact = &mem->exact[index % SOFT_EXACT_PAGES];
    __atomic_store_n(&exact->page, index + 1, __ATOMIC_RELEASE);
    exact->hits = 0;
    memset(exact->bytes, 0, sizeof(exact->bytes));
    pthread_mutex_unlock(&vm->code_lock.mutex);
}

static bool mark(struct soft_vcpu *v, uint64_t gpa, unsigned bytes, bool exactly)
{
    struct soft_mem *mem = v->vm->mem;
    uint64_t index = soft_page_index(mem, gpa);
    if (index == UINT64_MAX)
        return false;
    uint64_t mask = soft_line_mask(gpa & 0xfff, bytes);
    uint64_t old = __atomic_load_n(&mem->lines[index], __ATOMIC_ACQUIRE);
    if (old && (old & mask) == mask && !(exactly && exact_of(mem, index)) &&
        __atomic_load_n(&mem->marking, __ATOMIC_ACQUIRE) != index + 1)
        return false;
    take_code_lock(v);
    __atomic_store_n(&mem->marking, index + 1, __ATOMIC_SEQ_CST);
    old = __atomic_fetch_or(&mem->lines[index], mask, __ATOMIC_SEQ_CST);
    if (!old) {
        gmem_code_mark(v->vm->gmem, gpa & ~0xfffull, true);
        atomic_thread_fence(memory_order_seq_cst);
        /* Cleared first: who gets an entry from now on, because a write has dropped the page's code
           again, keeps its bit. */
        if (bitmap_take_atomic(mem->writable, index))
            rendezvous(v, gpa & ~0xfffull);
    }
    __atomic_store_n(&mem->marking, 0, __ATOMIC_RELEASE);
    bool fresh = (old & mask) != mask;
    struct soft_exact *exact = exactly ? exact_of(mem, index) : NULL;
    if (exact)
        fresh |= exact_set(exact, gpa & 0xfff, MIN((gpa & 0xfff) + bytes, GUEST_PAGE_SIZE));
    pthread_mutex_unlock(&v->vm->code_lock.mutex);
    return fresh;
}

bool soft_code_mark(struct soft_vcpu *v, uint64_t gpa, unsigned bytes)
{
    return mark(v, gpa, bytes, true);
}

void soft_code_mark_lines(struct soft_vcpu *v, uint64_t gpa, unsigned bytes)
{
    mark(v, gpa, bytes, false);
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
    unsigned at = gpa & 0xfff, end = MIN(at + len, GUEST_PAGE_SIZE);
    if (likely(!(lines & soft_line_mask(at, len))))
        return;
    enum loss loss = loss_of(vm, v, index, at, end);
    if (loss == LOSE_NOTHING)
        return;
    if (loss == LOSE_PAGE) {
        /* All blocks of the page go, so its lines are free again; a vCPU that decodes more of it at
           this moment loses that too and starts over. */
        gmem_code_mark(vm->gmem, page, false); /* first: who finds no lines marks it again */
        __atomic_store_n(&vm->mem->lines[index], 0, __ATOMIC_SEQ_CST);
        exact_restart(vm, index);
    }
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct soft_vcpu *other = vm->vcpu[i];
        if (!other)
            continue;
        if (other != v)
            post_drop(other, page);
        else if (loss == LOSE_PAGE)
            soft_code_drop(v, page);
        else
            soft_code_drop_bytes(v, gpa, end - at);
    }
}

void soft_ram_written(struct soft_vcpu *v, uint64_t gpa, unsigned size)
{
    atomic_thread_fence(memory_order_seq_cst);
    soft_code_written(v->vm, v, gpa, size);
    if (v->vm->dirty_log)
        gmem_dirty_set(v->vm->gmem, gpa, size);
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
