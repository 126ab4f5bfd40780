/*
 * The KVM engine: guest memory. Every gmem region is one memory slot; a ROM is a read-only slot,
 * whose guest writes come to us as MMIO. Dirty pages are reported in a ring for each vCPU, or,
 * where KVM has none, in a bitmap for each slot (api.rst 4.8, 4.117, 8.29).
 *
 * All under memory_lock; a vCPU thread comes here when its ring is full, and when its guest
 * switches a region between RAM and ROM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>

#include "accel/kvm/kvm.h"
#include "base/bitmap.h"
#include "base/log.h"

/* Tells KVM what slot `index` is now; size 0 takes it away. */
static struct err *install(struct accel_vm *vm, unsigned index)
{
    const struct kvm_slot *slot = &vm->slots[index];
    struct kvm_userspace_memory_region region = {
        .slot = index,
        .flags = (slot->readonly ? KVM_MEM_READONLY : 0u) |
                 (slot->logged ? KVM_MEM_LOG_DIRTY_PAGES : 0u),
        .guest_phys_addr = slot->gpa,
        .memory_size = slot->size,
        .userspace_addr = (uintptr_t)slot->host,
    };
    int rc = kvm_call(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
    if (rc < 0)
        return err_errno(rc, "kvm: memory slot of %llu KiB at 0x%llx",
                         (unsigned long long)slot->size >> 10, (unsigned long long)slot->gpa);
    return NULL;
}

static bool describes(const struct kvm_slot *slot, const struct gmem_region *region)
{
    return region->view != GMEM_VIEW_NONE && slot->size == region->size &&
           slot->gpa == region->gpa && slot->host == region->host &&
           slot->readonly == region->readonly;
}

static bool region_exists(struct accel_vm *vm, const struct kvm_slot *slot)
{
    for (size_t i = 0; i < gmem_region_count(vm->gmem); i++)
        if (describes(slot, gmem_region(vm->gmem, i)))
            return true;
    return false;
}

static struct kvm_slot *slot_of(struct accel_vm *vm, const struct gmem_region *region)
{
    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++)
        if (describes(&vm->slots[i], region))
            return &vm->slots[i];
    return NULL;
}

static struct err *add_slot(struct accel_vm *vm, const struct gmem_region *region)
{
    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
        struct kvm_slot *slot = &vm->slots[i];
        if (slot->size)
            continue;
        *slot = (struct kvm_slot){region->gpa, region->size, region->host, region->readonly,
                                  vm->logging && !region->readonly};
        struct err *err = install(vm, i);
        if (err)
            slot->size = 0;
        return err;
    }
    return err_new("kvm: more than %d memory regions", KVM_SLOTS_MAX);
}

static struct err *update_locked(struct accel_vm *vm)
{
    /* First take away, so that a changed region does not overlap its old self. */
    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
        struct kvm_slot *slot = &vm->slots[i];
        if (slot->size && !region_exists(vm, slot)) {
            slot->size = 0;
            TRY(install(vm, i));
        }
    }
    for (size_t i = 0; i < gmem_region_count(vm->gmem); i++) {
        const struct gmem_region *region = gmem_region(vm->gmem, i);
        if (region->view != GMEM_VIEW_NONE && !slot_of(vm, region))
            TRY(add_slot(vm, region));
    }
    return NULL;
}

struct err *kvm_memory_update(struct accel_vm *vm)
{
    lock_take(&vm->memory_lock);
    struct err *err = update_locked(vm);
    lock_drop(&vm->memory_lock);
    return err;
}

/* Hands the pages of `slot` that `bits` names (64 pages from page `first`) to gmem. */
static void report_word(struct accel_vm *vm, const struct kvm_slot *slot, uint64_t first,
                        uint64_t bits)
{
    while (bits) {
        unsigned start = __builtin_ctzll(bits);
        uint64_t rest = ~(bits >> start);
        unsigned run = rest ? (unsigned)__builtin_ctzll(rest) : 64;
        gmem_dirty_set(vm->gmem, slot->gpa + ((first + start) << GUEST_PAGE_SHIFT),
                       (uint64_t)run << GUEST_PAGE_SHIFT);
        if (start + run >= 64)
            return;
        bits &= ~0ull << (start + run);
    }
}

static struct err *fetch_bitmap(struct accel_vm *vm, unsigned index)
{
    const struct kvm_slot *slot = &vm->slots[index];
    uint64_t pages = slot->size >> GUEST_PAGE_SHIFT;
    scoped(free_cleanup) uint64_t *bits = calloc(BITMAP_WORDS(pages), sizeof(*bits));
    if (!bits)
        return err_errno(ENOMEM, "kvm: dirty log");

    struct kvm_dirty_log log = {.slot = index, .dirty_bitmap = bits};
    int rc = kvm_call(vm->fd, KVM_GET_DIRTY_LOG, &log);
    if (rc < 0)
        return err_errno(rc, "kvm: KVM_GET_DIRTY_LOG");
    if (vm->manual_protect) {
        /* Before anybody reads the pages: a later write must be seen by the next fetch. */
        struct kvm_clear_dirty_log clear = {
            .slot = index, .num_pages = pages, .dirty_bitmap = bits};
        rc = kvm_call(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear);
        if (rc < 0)
            return err_errno(rc, "kvm: KVM_CLEAR_DIRTY_LOG");
    }
    for (uint64_t word = 0; word < BITMAP_WORDS(pages); word++)
        report_word(vm, slot, word * 64, bits[word]);
    return NULL;
}

/* Takes what is in one vCPU's ring, and returns how many entries it gave back. */
static unsigned harvest_ring(struct accel_vm *vm, struct accel_vcpu *vcpu)
{
    unsigned count = 0;
    for (;; count++) {
        struct kvm_dirty_gfn *entry = &vcpu->ring[vcpu->ring_next % KVM_RING_ENTRIES];
        /* The flag is KVM's publication of the entry, and ours of its return. */
        if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
            return count;
        unsigned index = entry->slot & 0xffff;
        if (index < KVM_SLOTS_MAX) {
            const struct kvm_slot *slot = &vm->slots[index];
            if (vm->logging && entry->offset < slot->size >> GUEST_PAGE_SHIFT)
                gmem_dirty_set(vm->gmem, slot->gpa + (entry->offset << GUEST_PAGE_SHIFT),
                               GUEST_PAGE_SIZE);
        }
        __atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
        vcpu->ring_next++;
    }
}

static struct err *fetch_rings(struct accel_vm *vm)
{
    unsigned count = 0;
    for (unsigned i = 0; i < vm->vcpu_limit; i++) {
        struct accel_vcpu *vcpu = __atomic_load_n(&vm->vcpus[i], __ATOMIC_ACQUIRE);
        if (vcpu && vcpu->ring)
            count += harvest_ring(vm, vcpu);
    }
    if (!count)
        return NULL;
    int rc = kvm_call_number(vm->fd, KVM_RESET_DIRTY_RINGS, 0);
    return rc < 0 ? err_errno(rc, "kvm: KVM_RESET_DIRTY_RINGS") : NULL;
}

static struct err *fetch_locked(struct accel_vm *vm)
{
    if (vm->ring)
        return fetch_rings(vm);
    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++)
        if (vm->slots[i].size && vm->slots[i].logged)
            TRY(fetch_bitmap(vm, i));
    return NULL;
}

struct err *kvm_dirty_fetch(struct accel_vm *vm)
{
    lock_take(&vm->memory_lock);
    struct err *err = fetch_locked(vm);
    lock_drop(&vm->memory_lock);
    return err;
}

static struct err *enable_locked(struct accel_vm *vm, bool on)
{
    if (vm->logging == on)
        return NULL;
    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
        struct kvm_slot *slot = &vm->slots[i];
        if (!slot->size || slot->readonly || slot->logged == on)
            continue;
        slot->logged = on;
        TRY(install(vm, i));
    }
    vm->logging = on;
    /* What the rings still hold belongs to the round that ends here. */
    return !on && vm->ring ? fetch_rings(vm) : NULL;
}

struct err *kvm_dirty_enable(struct accel_vm *vm, bool on)
{
    lock_take(&vm->memory_lock);
    struct err *err = enable_locked(vm, on);
    lock_drop(&vm->memory_lock);
    return err;
}
