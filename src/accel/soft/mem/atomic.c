/*
 * LOCKed read-modify-write, CMPXCHG8B and CMPXCHG16B. See atomic.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/mem/atomic.h"

#include <sched.h>

#include "accel/soft/interp/exec_all.h"
#include "accel/soft/mem/tlb.h"

/*
 * Not a struct lock: a device callback runs under it, and that takes locks of any rank. An
 * exception inside gives it back (run.c).
 */
static void soft_split_take(struct soft_vcpu *v)
{
    while (atomic_exchange(&v->vm->split_busy, 1))
        sched_yield();
    v->split_held = true;
}

void soft_split_drop(struct soft_vcpu *v)
{
    if (!v->split_held)
        return;
    v->split_held = false;
    atomic_store(&v->vm->split_busy, 0);
}

void atomic_begin_at(struct soft_vcpu *v, uint64_t linear, unsigned size, struct atomic *atomic)
{
    *atomic = (struct atomic){.v = v, .linear = linear, .size = size};
    atomic->host = soft_atomic_ptr(v, linear, size, &atomic->code);
    if (unlikely(!atomic->host)) {
        soft_probe(v, linear, size, ACC_WRITE); /* the accesses under the lock do not fault */
        soft_split_take(v);
    }
}

void atomic_begin(struct soft_vcpu *v, const struct insn *insn, unsigned size,
                  struct atomic *atomic)
{
    atomic_begin_at(v, soft_linear(v, insn, size, ACC_WRITE), size, atomic);
}

uint64_t atomic_old(const struct atomic *atomic)
{
    if (likely(atomic->host != NULL))
        return host_load((uintptr_t)atomic->host, atomic->size);
    return soft_load(atomic->v, atomic->linear, atomic->size);
}

/* Plain inline assembly: __atomic builtins promise nothing for misaligned operands, LOCK does. */
#define CAS(type, suffix)                                                                          \
    ({                                                                                             \
        bool done_;                                                                                \
        type seen_ = (type)old;                                                                    \
        __asm__ volatile("lock cmpxchg" suffix " %3, %1"                                           \
                         : "=@ccz"(done_), "+m"(*(type *)atomic->host), "+a"(seen_)                \
                         : "q"((type)new_value)                                                    \
                         : "memory");                                                              \
        done_;                                                                                     \
    })

static bool replace(const struct atomic *atomic, uint64_t old, uint64_t new_value)
{
    switch (atomic->size) {
    case 1:
        return CAS(uint8_t, "b");
    case 2:
        return CAS(uint16_t, "w");
    case 4:
        return CAS(uint32_t, "l");
    default:
        return CAS(uint64_t, "q");
    }
}

bool atomic_replace(const struct atomic *atomic, uint64_t old, uint64_t new_value)
{
    struct soft_vcpu *v = atomic->v;
    if (unlikely(!atomic->host)) {
        soft_store(v, atomic->linear, atomic->size, new_value);
        return true;
    }
    if (likely(atomic->code == UINT64_MAX))
        return replace(atomic, old, new_value);
    soft_code_written(v->vm, v, atomic->code, atomic->size);
    bool done = replace(atomic, old, new_value);
    soft_ram_written(v, atomic->code, atomic->size);
    return done;
}

void atomic_end(struct soft_vcpu *v, const struct atomic *atomic)
{
    if (unlikely(!atomic->host))
        soft_split_drop(v);
}

static void cmpxchg16b(struct soft_vcpu *v, uint64_t linear)
{
    if (linear & 15)
        soft_gp(v, 0);
    uint64_t code;
    void *host = soft_atomic_ptr(v, linear, 16, &code);
    uint64_t low = v->r[X86_RAX], high = v->r[X86_RDX];
    bool same;
    if (likely(host != NULL)) {
        if (unlikely(code != UINT64_MAX))
            soft_code_written(v->vm, v, code, 16);
        __asm__ volatile("lock cmpxchg16b %1"
                         : "=@ccz"(same), "+m"(*(unsigned __int128 *)host), "+a"(low), "+d"(high)
                         : "b"(v->r[X86_RBX]), "c"(v->r[X86_RCX])
                         : "memory");
        if (unlikely(code != UINT64_MAX))
            soft_ram_written(v, code, 16);
    } else {
        soft_probe(v, linear, 16, ACC_WRITE);
        soft_split_take(v);
        uint64_t old_low = soft_load(v, linear, 8), old_high = soft_load(v, linear + 8, 8);
        same = old_low == low && old_high == high;
        soft_store(v, linear, 8, same ? v->r[X86_RBX] : old_low);
        soft_store(v, linear + 8, 8, same ? v->r[X86_RCX] : old_high);
        low = old_low;
        high = old_high;
        soft_split_drop(v);
    }
    soft_set_arith(v, (cc_compute(v) & ~FL_ZF) | (same ? FL_ZF : 0));
    if (!same) {
        v->r[X86_RAX] = low;
        v->r[X86_RDX] = high;
    }
}

void exec_cmpxchg8b(struct soft_vcpu *v, const struct insn *insn)
{
    bool wide = insn->rex & 8;
    if (wide && !(v->features >> FEAT_CX16 & 1))
        soft_ud(v);
    uint64_t linear = soft_linear(v, insn, wide ? 16 : 8, ACC_WRITE);
    if (wide) {
        cmpxchg16b(v, linear);
        return;
    }
    uint64_t expected = (uint32_t)v->r[X86_RAX] | v->r[X86_RDX] << 32;
    uint64_t value = (uint32_t)v->r[X86_RBX] | v->r[X86_RCX] << 32;
    struct atomic atomic;
    atomic_begin_at(v, linear, 8, &atomic);
    uint64_t old;
    do {
        old = atomic_old(&atomic);
    } while (!atomic_replace(&atomic, old, old == expected ? value : old));
    atomic_end(v, &atomic);
    soft_set_arith(v, (cc_compute(v) & ~FL_ZF) | (old == expected ? FL_ZF : 0));
    if (old != expected) {
        v->r[X86_RAX] = (uint32_t)old;
        v->r[X86_RDX] = old >> 32;
    }
}
