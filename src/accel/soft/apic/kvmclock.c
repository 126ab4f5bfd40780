/*
 * kvmclock: the time page that Linux guests read instead of calibrating anything (Linux
 * Documentation/virt/kvm/x86/msr.rst: MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW).
 *
 * Time zero is the VM's TSC zero, so a page changes only when the guest moves its TSC, and all
 * vCPUs show one clock (the stable bit).
 *
 * Called on the vCPU's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/apic/tsc.h"
#include "base/bytes.h"
#include "base/clock.h"

#define PVCLOCK_SIZE 32
#define PVCLOCK_TSC_STABLE 1u

/* ns = (ticks << shift) * mul >> 32, with 31 significant bits in mul. */
static void factors(uint32_t khz, uint32_t *mul, int8_t *shift)
{
    uint64_t hz = (uint64_t)khz * 1000;
    unsigned __int128 scaled = ((unsigned __int128)NSEC_PER_SEC << 64) / hz; /* 64.64 */
    int bits = 0;
    while (scaled >> (bits + 1) >= ((unsigned __int128)1 << 31) && bits < 96)
        bits++;
    *mul = (uint32_t)(scaled >> bits);
    *shift = (int8_t)(bits - 32);
}

void kvmclock_update(struct soft_vcpu *v)
{
    if (!(v->msr.kvm_system_time & 1))
        return;
    uint64_t gpa = v->msr.kvm_system_time & ~1ull;
    struct gmem *gmem = v->vm->gmem;
    uint8_t page[PVCLOCK_SIZE], version[4];
    if (gmem_read(gmem, gpa, page, sizeof(page)) < 0)
        return;
    uint32_t mul, before = get_le32(page) & ~1u;
    int8_t shift;
    factors(v->vm->tsc_khz, &mul, &shift);
    put_le32(version, before + 1);
    gmem_write(gmem, gpa, version, sizeof(version));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    put_le32(page, before + 1);
    put_le32(page + 4, 0);
    put_le64(page + 8, v->msr.tsc_adjust); /* guest TSC at the VM's TSC zero */
    put_le64(page + 16, 0);                /* and the time then */
    put_le32(page + 24, mul);
    page[28] = (uint8_t)shift;
    page[29] = PVCLOCK_TSC_STABLE;
    page[30] = page[31] = 0;
    gmem_write(gmem, gpa, page, sizeof(page));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    put_le32(version, before + 2);
    gmem_write(gmem, gpa, version, sizeof(version));
}

bool kvmclock_set_system_time(struct soft_vcpu *v, uint64_t value)
{
    v->msr.kvm_system_time = value;
    kvmclock_update(v);
    return true;
}

/* The time of day at the VM's time zero; written once a request, the guest asks again if it must.
 */
bool kvmclock_set_wall_clock(struct soft_vcpu *v, uint64_t value)
{
    uint8_t wall[12];
    v->msr.kvm_wall_clock = value;
    if (!value || gmem_read(v->vm->gmem, value, wall, sizeof(wall)) < 0)
        return true;
    uint32_t version = (get_le32(wall) + 1) | 1;
    uint64_t zero = clock_wall_ns() - soft_clock_system_ns(v->vm);
    put_le32(wall, version);
    gmem_write(v->vm->gmem, value, wall, 4);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    put_le32(wall + 4, (uint32_t)(zero / NSEC_PER_SEC));
    put_le32(wall + 8, (uint32_t)(zero % NSEC_PER_SEC));
    gmem_write(v->vm->gmem, value, wall, sizeof(wall));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    put_le32(wall, version + 1);
    gmem_write(v->vm->gmem, value, wall, 4);
    return true;
}
