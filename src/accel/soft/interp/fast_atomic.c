/*
 * Specialised ops: LOCKed read-modify-writes that hit the write TLB. The rest goes to the general
 * executors.
 *
 * The op's `insn` is the decoded instruction, so that a miss can fall back to op_generic; the
 * operands are in a, b, c and the address as usual. Immediates come from insn->imm.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma GCC target("general-regs-only")

#include "accel/soft/interp/fast.h"

#define CMPXCHG(type, suffix, n)                                                                   \
    static const struct op *cmpxchg_##n(struct soft_vcpu *v, const struct op *op)                  \
    {                                                                                              \
        uintptr_t host = write_hit(v, fast_ea(v, op, EA_FULL), n);                                 \
        if (unlikely(!host))                                                                       \
            return op_generic(v, op);                                                              \
        type seen = v->r[X86_RAX], expected = seen;                                                \
        __asm__ volatile("lock cmpxchg" suffix " %2, %0"                                           \
                         : "+m"(*(volatile type *)host), "+a"(seen)                                \
                         : "r"((type)v->r[op->a])                                                  \
                         : "memory", "cc");                                                        \
        alu_sub(v, expected, seen, n);                                                             \
        if (seen != expected)                                                                      \
            fast_put(v, X86_RAX, n, seen);                                                         \
        NEXT_OP(v, op);                                                                            \
    }
CMPXCHG(uint32_t, "l", 4)
CMPXCHG(uint64_t, "q", 8)
op_fn *const fast_lock_cmpxchg[2] = {cmpxchg_4, cmpxchg_8};

#define XADD(type, n)                                                                              \
    static const struct op *xadd_##n(struct soft_vcpu *v, const struct op *op)                     \
    {                                                                                              \
        uintptr_t host = write_hit(v, fast_ea(v, op, EA_FULL), n);                                 \
        if (unlikely(!host))                                                                       \
            return op_generic(v, op);                                                              \
        type b = v->r[op->a], old = b;                                                             \
        __asm__ volatile("lock xadd %1, %0"                                                        \
                         : "+m"(*(volatile type *)host), "+r"(old)                                 \
                         :                                                                         \
                         : "memory", "cc");                                                        \
        alu_add(v, old, b, n);                                                                     \
        fast_put(v, op->a, n, old);                                                                \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    static const struct op *xchg_##n(struct soft_vcpu *v, const struct op *op)                     \
    {                                                                                              \
        uintptr_t host = write_hit(v, fast_ea(v, op, EA_FULL), n);                                 \
        if (unlikely(!host))                                                                       \
            return op_generic(v, op);                                                              \
        type old = v->r[op->a];                                                                    \
        __asm__ volatile("xchg %1, %0" : "+m"(*(volatile type *)host), "+r"(old) : : "memory");    \
        fast_put(v, op->a, n, old);                                                                \
        NEXT_OP(v, op);                                                                            \
    }
XADD(uint32_t, 4)
XADD(uint64_t, 8)
op_fn *const fast_lock_xadd[2] = {xadd_4, xadd_8};
op_fn *const fast_xchg_m[2] = {xchg_4, xchg_8};

/* ADD and SUB through XADD, the logic operations through a CMPXCHG loop: both give the old value.
 */
#define OLD_ADD(type, host, delta)                                                                 \
    ({                                                                                             \
        type old_ = (delta);                                                                       \
        __asm__ volatile("lock xadd %1, %0"                                                        \
                         : "+m"(*(volatile type *)(host)), "+r"(old_)                              \
                         :                                                                         \
                         : "memory", "cc");                                                        \
        old_;                                                                                      \
    })
#define OLD_LOGIC(type, host, operator, b)                                                         \
    ({                                                                                             \
        type old_ = *(volatile type *)(host), seen_;                                               \
        do {                                                                                       \
            seen_ = old_;                                                                          \
            __asm__ volatile("lock cmpxchg %2, %0"                                                 \
                             : "+m"(*(volatile type *)(host)), "+a"(old_)                          \
                             : "r"((type)(seen_ operator(b)))                                      \
                             : "memory", "cc");                                                    \
        } while (old_ != seen_);                                                                   \
        old_;                                                                                      \
    })

FAST bool lock_alu(struct soft_vcpu *v, const struct op *op, unsigned which, unsigned n, uint64_t b)
{
    uintptr_t host = write_hit(v, fast_ea(v, op, EA_FULL), n);
    if (unlikely(!host))
        return false;
    uint64_t old;
    switch (which) {
    case 0:
        old = n == 4 ? OLD_ADD(uint32_t, host, b) : OLD_ADD(uint64_t, host, b);
        break;
    case 5:
        old = n == 4 ? OLD_ADD(uint32_t, host, -b) : OLD_ADD(uint64_t, host, -b);
        break;
    case 1:
        old = n == 4 ? OLD_LOGIC(uint32_t, host, |, b) : OLD_LOGIC(uint64_t, host, |, b);
        break;
    case 4:
        old = n == 4 ? OLD_LOGIC(uint32_t, host, &, b) : OLD_LOGIC(uint64_t, host, &, b);
        break;
    default:
        old = n == 4 ? OLD_LOGIC(uint32_t, host, ^, b) : OLD_LOGIC(uint64_t, host, ^, b);
    }
    alu_group1(v, which, old, b, n);
    return true;
}

#define LOCK_ALU(name, which, n)                                                                   \
    static const struct op *lock_##name##_r_##n(struct soft_vcpu *v, const struct op *op)          \
    {                                                                                              \
        if (unlikely(!lock_alu(v, op, which, n, v->r[op->a])))                                     \
            return op_generic(v, op);                                                              \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    static const struct op *lock_##name##_i_##n(struct soft_vcpu *v, const struct op *op)          \
    {                                                                                              \
        if (unlikely(!lock_alu(v, op, which, n, op->insn->imm)))                                   \
            return op_generic(v, op);                                                              \
        NEXT_OP(v, op);                                                                            \
    }
#define LOCK_BOTH(name, which) LOCK_ALU(name, which, 4) LOCK_ALU(name, which, 8)
#define LOCK_ROW(name)                                                                             \
    {                                                                                              \
        {lock_##name##_r_4, lock_##name##_i_4},                                                    \
        {                                                                                          \
            lock_##name##_r_8, lock_##name##_i_8                                                   \
        }                                                                                          \
    }

LOCK_BOTH(add, 0)
LOCK_BOTH(or, 1)
LOCK_BOTH(and, 4)
LOCK_BOTH(sub, 5)
LOCK_BOTH(xor, 6)

op_fn *const fast_lock_alu[8][2][2] = {[0] = LOCK_ROW(add),
                                       [1] = LOCK_ROW(or),
                                       [4] = LOCK_ROW(and),
                                       [5] = LOCK_ROW(sub),
                                       [6] = LOCK_ROW(xor)};

#define LOCK_INC(type, n)                                                                          \
    static const struct op *lock_inc_##n(struct soft_vcpu *v, const struct op *op)                 \
    {                                                                                              \
        uintptr_t host = write_hit(v, fast_ea(v, op, EA_FULL), n);                                 \
        if (unlikely(!host))                                                                       \
            return op_generic(v, op);                                                              \
        alu_inc(v, OLD_ADD(type, host, 1), n);                                                     \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    static const struct op *lock_dec_##n(struct soft_vcpu *v, const struct op *op)                 \
    {                                                                                              \
        uintptr_t host = write_hit(v, fast_ea(v, op, EA_FULL), n);                                 \
        if (unlikely(!host))                                                                       \
            return op_generic(v, op);                                                              \
        alu_dec(v, OLD_ADD(type, host, -1), n);                                                    \
        NEXT_OP(v, op);                                                                            \
    }
LOCK_INC(uint32_t, 4)
LOCK_INC(uint64_t, 8)
op_fn *const fast_lock_inc[2][2] = {{lock_inc_4, lock_inc_8}, {lock_dec_4, lock_dec_8}};
