/*
 * Guest-physical accesses that the TLBs do not serve: the RAM table, writes to pages with code,
 * ROM, the LAPIC page, doorbells, devices.
 *
 * Runs on the vCPU's thread. The RAM table changes only while all vCPUs are stopped, but for what
 * its switched and movable regions show: an access uses what it has found, and all of it stays
 * mapped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "accel/soft/check/lockstep.h"
#include "accel/soft/mem/tlb.h"
#include "base/bitmap.h"

static void *map_table(uint64_t bytes)
{
    void *table = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return table == MAP_FAILED ? NULL : table;
}

static void unmap_table(void *table, uint64_t bytes)
{
    if (table)
        munmap(table, bytes ? bytes : 1);
}

static void show(struct soft_ram *ram, const struct gmem_region *region)
{
    uint64_t size = region->view == GMEM_VIEW_NONE ? 0 : region->size;

    /* A place changes only while all vCPUs are stopped. */
    if (ram->gpa != region->gpa)
        ram->gpa = region->gpa;
    __atomic_store_n(&ram->host, region->host, __ATOMIC_RELAXED);
    __atomic_store_n(&ram->readonly, region->readonly, __ATOMIC_RELAXED);
    __atomic_store_n(&ram->size, size, __ATOMIC_RELEASE);
}

struct err *soft_mem_build(struct soft_vm *vm)
{
    size_t count = gmem_region_count(vm->gmem);
    struct soft_mem *mem = xcalloc(1, sizeof(*mem));
    if (count > ARRAY_SIZE(mem->ram)) {
        free(mem);
        return err_new("soft: more than %zu memory regions", ARRAY_SIZE(mem->ram));
    }
    for (size_t i = 0; i < count; i++) {
        const struct gmem_region *region = gmem_region(vm->gmem, i);
        mem->ram[i] =
            (struct soft_ram){.gpa = region->gpa, .order = region->order, .first_page = mem->pages};
        show(&mem->ram[i], region);
        mem->pages += region->size >> GUEST_PAGE_SHIFT;
    }
    mem->ram_count = count;
    mem->lines = map_table(mem->pages * sizeof(uint64_t));
    mem->writable = map_table(BITMAP_WORDS(mem->pages) * sizeof(uint64_t));
    mem->drops = map_table(mem->pages);
    mem->exact = map_table(SOFT_EXACT_PAGES * sizeof(*mem->exact));
    soft_mem_free(vm);
    vm->mem = mem;
    if (!mem->lines || !mem->writable || !mem->drops || !mem->exact)
        return err_errno(ENOMEM, "soft: page tables of %llu pages", (unsigned long long)mem->pages);
    return NULL;
}

void soft_mem_free(struct soft_vm *vm)
{
    struct soft_mem *mem = vm->mem;
    if (!mem)
        return;
    unmap_table(mem->lines, mem->pages * sizeof(uint64_t));
    unmap_table(mem->writable, BITMAP_WORDS(mem->pages) * sizeof(uint64_t));
    unmap_table(mem->drops, mem->pages);
    unmap_table(mem->exact, SOFT_EXACT_PAGES * sizeof(*mem->exact));
    free(mem);
    vm->mem = NULL;
}

/* The vCPU whose thread this is, in the middle of an access; NULL on others. */
static struct soft_vcpu *this_vcpu(struct soft_vm *vm)
{
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct soft_vcpu *v = vm->vcpu[i];
        if (v && atomic_load(&v->running) && pthread_equal(v->thread, pthread_self()))
            return v;
    }
    return NULL;
}

/* Drops what any vCPU decoded of the region; the block that runs leaves after its instruction. */
static void drop_code(struct soft_vm *vm, struct soft_vcpu *self, const struct soft_ram *ram)
{
    for (uint64_t at = 0; at < ram->size; at += GUEST_PAGE_SIZE)
        soft_code_written(vm, self, ram->gpa + at, GUEST_PAGE_SIZE);
}

void soft_mem_switch(struct soft_vm *vm)
{
    struct soft_vcpu *self = this_vcpu(vm);

    for (unsigned i = 0; i < vm->mem->ram_count; i++) {
        struct soft_ram *ram = &vm->mem->ram[i];
        const struct gmem_region *region = gmem_region(vm->gmem, i);
        bool hidden = region->view == GMEM_VIEW_NONE;
        if (ram->host == region->host && ram->readonly == region->readonly &&
            !ram->size == hidden && (hidden || ram->gpa == region->gpa))
            continue;
        /* Twice: another vCPU may decode between. */
        drop_code(vm, self, ram);
        show(ram, region);
        drop_code(vm, self, ram);
    }
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        if (vm->vcpu[i] && vm->vcpu[i] != self)
            soft_post(vm->vcpu[i], EV_TLB_ALL);
    }
    if (self)
        soft_tlb_flush(self);
}

const struct soft_ram *soft_ram_find(const struct soft_mem *mem, uint64_t gpa)
{
    for (unsigned i = 0; i < mem->ram_count; i++)
        if (gpa - mem->ram[i].gpa < mem->ram[i].size)
            return &mem->ram[i];
    return NULL;
}

/* The LAPIC's registers are 32 bits wide at 16-byte steps; narrow reads see their bytes. */
static uint64_t apic_load(struct soft_vcpu *v, uint32_t offset, unsigned size)
{
    uint32_t value = (offset & 15) < 4 ? lapic_read(v->lapic, offset & ~15u) : 0;
    value >>= (offset & 3) * 8;
    return size >= 4 ? value : value & ((1u << (size * 8)) - 1);
}

uint64_t soft_phys_load(struct soft_vcpu *v, uint64_t gpa, unsigned size)
{
    if (unlikely(v->lockstep))
        lockstep_device(v);
    const struct soft_ram *ram = soft_ram_find(v->vm->mem, gpa);
    if (ram && gpa - ram->gpa + size <= ram->size)
        return host_load((uintptr_t)soft_ram_host(ram, gpa), size);
    if (v->lapic && (gpa & ~0xfffull) == lapic_base(v->lapic))
        return apic_load(v, gpa & 0xfff, size);
    v->stats.mmio++;
    soft_mxcsr_leave(v);
    uint64_t value = v->vm->io->mmio_read(v->vm->opaque, gpa, size);
    return zero_extend(value, size);
}

void soft_phys_store(struct soft_vcpu *v, uint64_t gpa, unsigned size, uint64_t value)
{
    struct soft_vm *vm = v->vm;
    if (unlikely(v->lockstep))
        lockstep_device(v);
    value = zero_extend(value, size);
    const struct soft_ram *ram = soft_ram_find(vm->mem, gpa);
    if (ram && gpa - ram->gpa + size <= ram->size && !ram->readonly) {
        soft_code_written(vm, v, gpa, size);
        host_store((uintptr_t)soft_ram_host(ram, gpa), size, value);
        soft_ram_written(v, gpa, size);
        return;
    }
    if (v->lapic && (gpa & ~0xfffull) == lapic_base(v->lapic)) {
        if ((gpa & 15) == 0)
            lapic_write(v->lapic, gpa & 0xfff, value);
        return;
    }
    v->stats.mmio++;
    soft_mxcsr_leave(v);
    if (vm->doorbells && soft_doorbell(vm, gpa, size, value))
        return;
    vm->io->mmio_write(vm->opaque, gpa, size, value);
}
