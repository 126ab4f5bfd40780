/*
 * Specialised ops: the SSE and AVX instructions of 64-bit code that compilers emit most. Each is
 * the real instruction on the guest's register file. The 256-bit forms here work on each half
 * alone, so the 128-bit instruction runs twice, and no op needs more than SSE2 of the host.
 *
 * An op does the common case: SSE (or AVX) is on, memory is in the TLB, is aligned where it must be
 * and, if it rounds or compares, the guest's MXCSR is in the host's register (simd.h), all
 * exceptions masked. All else goes to op_generic. So an op is a leaf and never raises.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <emmintrin.h>

#include "accel/soft/interp/fast.h"
#include "accel/soft/simd/simd.h"

FAST bool sse_on(const struct soft_vcpu *v)
{
    return likely(!((v->cr0 & (CR0_EM | CR0_TS)) | (~v->cr4 & CR4_OSFXSR)));
}

/* 64-bit code is in protected mode and not virtual 8086 mode. */
FAST bool avx_on(const struct soft_vcpu *v)
{
    return likely(!((v->cr0 & CR0_TS) | (~v->cr4 & CR4_OSXSAVE) | (~v->xcr0 & 6)));
}

FAST bool ready(const struct soft_vcpu *v, bool vex, bool fp)
{
    return (vex ? avx_on(v) : sse_on(v)) && (!fp || likely(v->mxcsr_live));
}

FAST __m128i get(const struct soft_vcpu *v, unsigned reg)
{
    return _mm_load_si128((const __m128i *)(const void *)(v->xsave + XS_XMM + 16 * reg));
}

FAST void put(struct soft_vcpu *v, unsigned reg, __m128i x)
{
    _mm_store_si128((__m128i *)(void *)simd_xmm(v, reg), x);
}

FAST __m128i get_high(const struct soft_vcpu *v, unsigned reg)
{
    return _mm_load_si128((const __m128i *)(const void *)(v->xsave + XS_YMM + 16 * reg));
}

FAST void put_high(struct soft_vcpu *v, unsigned reg, __m128i x)
{
    _mm_store_si128((__m128i *)(void *)simd_ymm_high(v, reg), x);
}

FAST uintptr_t read_hit(const struct soft_vcpu *v, uint64_t linear, unsigned size)
{
    const struct soft_tlbe *e = &v->space->read[tlb_index(linear)];
    return likely((linear ^ e->tag) <= GUEST_PAGE_SIZE - size) ? linear + e->addend : 0;
}

FAST __m128i load(uintptr_t at, unsigned len)
{
    if (len == 4)
        return _mm_cvtsi32_si128((int)host_load(at, 4));
    if (len == 8)
        return _mm_cvtsi64_si128((long long)host_load(at, 8));
    return _mm_loadu_si128((const __m128i *)at);
}

#define OP(name) static const struct op *name(struct soft_vcpu *v, const struct op *op)
#define LEAVE_UNLESS(ok)                                                                           \
    if (unlikely(!(ok)))                                                                           \
    return op_generic(v, op)
#define FIND(len, align)                                                                           \
    uint64_t linear = fast_ea(v, op, EA_FULL);                                                     \
    uintptr_t host = read_hit(v, linear, len);                                                     \
    LEAVE_UNLESS(host && !(linear & (align)))
#define RUN(text, x, y) __asm__ volatile(text " %1, %0" : "+x"(x) : "x"(y))

/* ---- two operands: dest = first OP second; `first` is vvvv in VEX code ---- */

struct forms {
    op_fn *fn[3][2]; /* legacy, VEX.128, VEX.256; register, memory */
    bool unary;      /* VEX.vvvv must be unused */
};

#define BINARY_FORM(name, text, fp, len, vex)                                                      \
    OP(name##_r##vex)                                                                              \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, fp));                                                           \
        __m128i x = get(v, vex ? op->c : op->a), y = get(v, op->b);                                \
        RUN(text, x, y);                                                                           \
        put(v, op->a, x);                                                                          \
        if (vex)                                                                                   \
            put_high(v, op->a, _mm_setzero_si128());                                               \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(name##_m##vex)                                                                              \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, fp));                                                           \
        FIND(len, !vex && len == 16 ? 15 : 0);                                                     \
        __m128i x = get(v, vex ? op->c : op->a), y = load(host, len);                              \
        RUN(text, x, y);                                                                           \
        put(v, op->a, x);                                                                          \
        if (vex)                                                                                   \
            put_high(v, op->a, _mm_setzero_si128());                                               \
        NEXT_OP(v, op);                                                                            \
    }
#define WIDE_FORM(name, text, fp)                                                                  \
    OP(name##_r2)                                                                                  \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, true, fp));                                                          \
        __m128i x = get(v, op->c), y = get(v, op->b);                                              \
        __m128i xh = get_high(v, op->c), yh = get_high(v, op->b);                                  \
        RUN(text, x, y);                                                                           \
        RUN(text, xh, yh);                                                                         \
        put(v, op->a, x);                                                                          \
        put_high(v, op->a, xh);                                                                    \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(name##_m2)                                                                                  \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, true, fp));                                                          \
        FIND(32, 0);                                                                               \
        __m128i x = get(v, op->c), y = load(host, 16);                                             \
        __m128i xh = get_high(v, op->c), yh = load(host + 16, 16);                                 \
        RUN(text, x, y);                                                                           \
        RUN(text, xh, yh);                                                                         \
        put(v, op->a, x);                                                                          \
        put_high(v, op->a, xh);                                                                    \
        NEXT_OP(v, op);                                                                            \
    }
#define FORMS(name)                                                                                \
    {name##_r0, name##_m0},                                                                        \
    {                                                                                              \
        name##_r1, name##_m1                                                                       \
    }
#define PACKED_(name, text, fp, one)                                                               \
    BINARY_FORM(name, text, fp, 16, 0)                                                             \
    BINARY_FORM(name, text, fp, 16, 1)                                                             \
    WIDE_FORM(name, text, fp)                                                                      \
    static const struct forms forms_##name = {{FORMS(name), {name##_r2, name##_m2}}, one};
#define INTEGER(name) PACKED_(name, #name, false, false)
#define PACKED(name) PACKED_(name, #name, true, false)
#define PACKED_UNARY(name) PACKED_(name, #name, true, true)
/* Of these the 256-bit form is not two of the 128-bit form, or there is none. */
#define NARROW_(name, len, fp)                                                                     \
    BINARY_FORM(name, #name, fp, len, 0)                                                           \
    BINARY_FORM(name, #name, fp, len, 1)                                                           \
    static const struct forms forms_##name = {{FORMS(name), {NULL, NULL}}, false};
#define SHIFT(name) NARROW_(name, 16, false)
#define SINGLE(name) NARROW_(name, 4, true)
#define DOUBLE(name) NARROW_(name, 8, true)
#define ARITH(name) PACKED(name##ps) PACKED(name##pd) SINGLE(name##ss) DOUBLE(name##sd)

ARITH(add)
ARITH(mul)
ARITH(sub)
ARITH(min)
ARITH(div)
ARITH(max)
PACKED_UNARY(sqrtps)
PACKED_UNARY(sqrtpd)
PACKED_UNARY(cvtdq2ps)
PACKED_UNARY(cvttps2dq)
SINGLE(sqrtss)
DOUBLE(sqrtsd)
SINGLE(cvtss2sd)
DOUBLE(cvtsd2ss)
INTEGER(unpcklps)
INTEGER(unpckhps)
INTEGER(unpcklpd)
INTEGER(unpckhpd)
INTEGER(pand)
INTEGER(pandn)
INTEGER(por)
INTEGER(pxor)
INTEGER(punpcklbw)
INTEGER(punpcklwd)
INTEGER(punpckldq)
INTEGER(packsswb)
INTEGER(pcmpgtb)
INTEGER(pcmpgtw)
INTEGER(pcmpgtd)
INTEGER(packuswb)
INTEGER(punpckhbw)
INTEGER(punpckhwd)
INTEGER(punpckhdq)
INTEGER(packssdw)
INTEGER(punpcklqdq)
INTEGER(punpckhqdq)
INTEGER(pcmpeqb)
INTEGER(pcmpeqw)
INTEGER(pcmpeqd)
INTEGER(paddq)
INTEGER(pmullw)
INTEGER(pminub)
INTEGER(pmaxub)
INTEGER(pmulhuw)
INTEGER(pmulhw)
INTEGER(pminsw)
INTEGER(pmaxsw)
INTEGER(pmuludq)
INTEGER(pmaddwd)
INTEGER(psadbw)
INTEGER(psubb)
INTEGER(psubw)
INTEGER(psubd)
INTEGER(psubq)
INTEGER(paddb)
INTEGER(paddw)
INTEGER(paddd)
SHIFT(psrlw)
SHIFT(psrld)
SHIFT(psrlq)
SHIFT(psraw)
SHIFT(psrad)
SHIFT(psllw)
SHIFT(pslld)
SHIFT(psllq)

#define F(name) &forms_##name
#define ARITH_AT(op, name)                                                                         \
    [0][op] = F(name##ps), [1][op] = F(name##pd), [2][op] = F(name##ss), [3][op] = F(name##sd)

static const struct forms *const binary[4][256] = {
    ARITH_AT(0x51, sqrt),      ARITH_AT(0x58, add),      ARITH_AT(0x59, mul),
    ARITH_AT(0x5c, sub),       ARITH_AT(0x5d, min),      ARITH_AT(0x5e, div),
    ARITH_AT(0x5f, max),       [0][0x5b] = F(cvtdq2ps),  [2][0x5b] = F(cvttps2dq),
    [2][0x5a] = F(cvtss2sd),   [3][0x5a] = F(cvtsd2ss),  [0][0x14] = F(unpcklps),
    [0][0x15] = F(unpckhps),   [1][0x14] = F(unpcklpd),  [1][0x15] = F(unpckhpd),
    [0][0x54] = F(pand),       [1][0x54] = F(pand),      [0][0x55] = F(pandn),
    [1][0x55] = F(pandn),      [0][0x56] = F(por),       [1][0x56] = F(por),
    [0][0x57] = F(pxor),       [1][0x57] = F(pxor),      [1][0x60] = F(punpcklbw),
    [1][0x61] = F(punpcklwd),  [1][0x62] = F(punpckldq), [1][0x63] = F(packsswb),
    [1][0x64] = F(pcmpgtb),    [1][0x65] = F(pcmpgtw),   [1][0x66] = F(pcmpgtd),
    [1][0x67] = F(packuswb),   [1][0x68] = F(punpckhbw), [1][0x69] = F(punpckhwd),
    [1][0x6a] = F(punpckhdq),  [1][0x6b] = F(packssdw),  [1][0x6c] = F(punpcklqdq),
    [1][0x6d] = F(punpckhqdq), [1][0x74] = F(pcmpeqb),   [1][0x75] = F(pcmpeqw),
    [1][0x76] = F(pcmpeqd),    [1][0xd4] = F(paddq),     [1][0xd5] = F(pmullw),
    [1][0xda] = F(pminub),     [1][0xdb] = F(pand),      [1][0xde] = F(pmaxub),
    [1][0xdf] = F(pandn),      [1][0xe4] = F(pmulhuw),   [1][0xe5] = F(pmulhw),
    [1][0xea] = F(pminsw),     [1][0xeb] = F(por),       [1][0xee] = F(pmaxsw),
    [1][0xef] = F(pxor),       [1][0xf4] = F(pmuludq),   [1][0xf5] = F(pmaddwd),
    [1][0xf6] = F(psadbw),     [1][0xf8] = F(psubb),     [1][0xf9] = F(psubw),
    [1][0xfa] = F(psubd),      [1][0xfb] = F(psubq),     [1][0xfc] = F(paddb),
    [1][0xfd] = F(paddw),      [1][0xfe] = F(paddd),     [1][0xd1] = F(psrlw),
    [1][0xd2] = F(psrld),      [1][0xd3] = F(psrlq),     [1][0xe1] = F(psraw),
    [1][0xe2] = F(psrad),      [1][0xf1] = F(psllw),     [1][0xf2] = F(pslld),
    [1][0xf3] = F(psllq),
};

/* ---- moves; op->c is the alignment, less one ---- */

#define MOVES(vex)                                                                                 \
    OP(load16_##vex)                                                                               \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, false));                                                        \
        FIND(16, op->c);                                                                           \
        put(v, op->a, load(host, 16));                                                             \
        if (vex)                                                                                   \
            put_high(v, op->a, _mm_setzero_si128());                                               \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(load8_##vex)                                                                                \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, false));                                                        \
        FIND(8, 0);                                                                                \
        put(v, op->a, load(host, 8));                                                              \
        if (vex)                                                                                   \
            put_high(v, op->a, _mm_setzero_si128());                                               \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(load4_##vex)                                                                                \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, false));                                                        \
        FIND(4, 0);                                                                                \
        put(v, op->a, load(host, 4));                                                              \
        if (vex)                                                                                   \
            put_high(v, op->a, _mm_setzero_si128());                                               \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(store16_##vex)                                                                              \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, false));                                                        \
        uint64_t linear = fast_ea(v, op, EA_FULL);                                                 \
        uintptr_t host = write_hit(v, linear, 16);                                                 \
        LEAVE_UNLESS(host && !(linear & op->c));                                                   \
        _mm_storeu_si128((__m128i *)host, get(v, op->a));                                          \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(store8_##vex)                                                                               \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, false));                                                        \
        uintptr_t host = write_hit(v, fast_ea(v, op, EA_FULL), 8);                                 \
        LEAVE_UNLESS(host);                                                                        \
        host_store(host, 8, (uint64_t)_mm_cvtsi128_si64(get(v, op->a)));                           \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(store4_##vex)                                                                               \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, false));                                                        \
        uintptr_t host = write_hit(v, fast_ea(v, op, EA_FULL), 4);                                 \
        LEAVE_UNLESS(host);                                                                        \
        host_store(host, 4, (uint32_t)_mm_cvtsi128_si32(get(v, op->a)));                           \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(copy16_##vex)                                                                               \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, false));                                                        \
        put(v, op->a, get(v, op->b));                                                              \
        if (vex)                                                                                   \
            put_high(v, op->a, _mm_setzero_si128());                                               \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(copy8_##vex) /* MOVQ between registers */                                                   \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, false));                                                        \
        put(v, op->a, _mm_move_epi64(get(v, op->b)));                                              \
        if (vex)                                                                                   \
            put_high(v, op->a, _mm_setzero_si128());                                               \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(from_gpr8_##vex)                                                                            \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, false));                                                        \
        put(v, op->a, _mm_cvtsi64_si128((long long)v->r[op->b]));                                  \
        if (vex)                                                                                   \
            put_high(v, op->a, _mm_setzero_si128());                                               \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(from_gpr4_##vex)                                                                            \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, false));                                                        \
        put(v, op->a, _mm_cvtsi32_si128((int)v->r[op->b]));                                        \
        if (vex)                                                                                   \
            put_high(v, op->a, _mm_setzero_si128());                                               \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(to_gpr8_##vex)                                                                              \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, false));                                                        \
        v->r[op->b] = (uint64_t)_mm_cvtsi128_si64(get(v, op->a));                                  \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(to_gpr4_##vex)                                                                              \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, false));                                                        \
        v->r[op->b] = (uint32_t)_mm_cvtsi128_si32(get(v, op->a));                                  \
        NEXT_OP(v, op);                                                                            \
    }                                                                                              \
    OP(bytemask_##vex)                                                                             \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, false));                                                        \
        v->r[op->a] = (uint32_t)_mm_movemask_epi8(get(v, op->b));                                  \
        NEXT_OP(v, op);                                                                            \
    }
MOVES(0)
MOVES(1)

OP(load32)
{
    LEAVE_UNLESS(ready(v, true, false));
    FIND(32, op->c);
    __m128i low = load(host, 16), high = load(host + 16, 16);
    put(v, op->a, low);
    put_high(v, op->a, high);
    NEXT_OP(v, op);
}

OP(store32)
{
    LEAVE_UNLESS(ready(v, true, false));
    uint64_t linear = fast_ea(v, op, EA_FULL);
    uintptr_t host = write_hit(v, linear, 32);
    LEAVE_UNLESS(host && !(linear & op->c));
    _mm_storeu_si128((__m128i *)host, get(v, op->a));
    _mm_storeu_si128((__m128i *)(host + 16), get_high(v, op->a));
    NEXT_OP(v, op);
}

OP(copy32)
{
    LEAVE_UNLESS(ready(v, true, false));
    put(v, op->a, get(v, op->b));
    put_high(v, op->a, get_high(v, op->b));
    NEXT_OP(v, op);
}

OP(bytemask32)
{
    LEAVE_UNLESS(ready(v, true, false));
    uint32_t low = (uint32_t)_mm_movemask_epi8(get(v, op->b));
    v->r[op->a] = low | (uint32_t)_mm_movemask_epi8(get_high(v, op->b)) << 16;
    NEXT_OP(v, op);
}

/* MOVSS and MOVSD between registers, legacy: the low part alone. */
OP(merge4)
{
    LEAVE_UNLESS(ready(v, false, false));
    put(v, op->a,
        _mm_castps_si128(
            _mm_move_ss(_mm_castsi128_ps(get(v, op->a)), _mm_castsi128_ps(get(v, op->b)))));
    NEXT_OP(v, op);
}

OP(merge8)
{
    LEAVE_UNLESS(ready(v, false, false));
    put(v, op->a,
        _mm_castpd_si128(
            _mm_move_sd(_mm_castsi128_pd(get(v, op->a)), _mm_castsi128_pd(get(v, op->b)))));
    NEXT_OP(v, op);
}

/* MOVLPS, MOVHPS and MOVLPD, MOVHPD from memory, legacy. */
OP(load_low)
{
    LEAVE_UNLESS(ready(v, false, false));
    FIND(8, 0);
    __m128d x = _mm_castsi128_pd(get(v, op->a));
    put(v, op->a, _mm_castpd_si128(_mm_move_sd(x, _mm_castsi128_pd(load(host, 8)))));
    NEXT_OP(v, op);
}

OP(load_high)
{
    LEAVE_UNLESS(ready(v, false, false));
    FIND(8, 0);
    put(v, op->a, _mm_unpacklo_epi64(get(v, op->a), load(host, 8)));
    NEXT_OP(v, op);
}

#define BOTH(name) ((op_fn *const[3]){name##_0, name##_1, NULL})

/* ---- shuffles; op->d is the immediate ---- */

FAST __m128i shuffle4(__m128i low, __m128i high, unsigned imm)
{
    uint32_t a[4], b[4];
    _mm_storeu_si128((__m128i *)(void *)a, low);
    _mm_storeu_si128((__m128i *)(void *)b, high);
    return _mm_set_epi32((int)b[imm >> 6], (int)b[imm >> 4 & 3], (int)a[imm >> 2 & 3],
                         (int)a[imm & 3]);
}

OP(pshufd_r)
{
    LEAVE_UNLESS(ready(v, false, false));
    __m128i x = get(v, op->b);
    put(v, op->a, shuffle4(x, x, op->d));
    NEXT_OP(v, op);
}

OP(shufps_r)
{
    LEAVE_UNLESS(ready(v, false, false));
    put(v, op->a, shuffle4(get(v, op->a), get(v, op->b), op->d));
    NEXT_OP(v, op);
}

OP(shufpd_r)
{
    LEAVE_UNLESS(ready(v, false, false));
    __m128i x = get(v, op->a), y = get(v, op->b);
    x = op->d & 1 ? _mm_unpackhi_epi64(x, x) : x;
    put(v, op->a, _mm_unpacklo_epi64(x, op->d & 2 ? _mm_unpackhi_epi64(y, y) : y));
    NEXT_OP(v, op);
}

/* ---- conversions and comparisons ---- */

#define FROM_INT(name, text, type, vex)                                                            \
    OP(name##_##vex)                                                                               \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, true));                                                         \
        __m128i x = get(v, vex ? op->c : op->a);                                                   \
        __asm__ volatile(text " %1, %0" : "+x"(x) : "r"((type)v->r[op->b]));                       \
        put(v, op->a, x);                                                                          \
        if (vex)                                                                                   \
            put_high(v, op->a, _mm_setzero_si128());                                               \
        NEXT_OP(v, op);                                                                            \
    }
#define TO_INT(name, text, type, vex)                                                              \
    OP(name##_##vex)                                                                               \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, true));                                                         \
        type value;                                                                                \
        __asm__ volatile(text " %1, %0" : "=r"(value) : "x"(get(v, op->b)));                       \
        v->r[op->a] = value;                                                                       \
        NEXT_OP(v, op);                                                                            \
    }
#define COMPARE_(name, text, vex, second)                                                          \
    {                                                                                              \
        bool cf, zf, pf;                                                                           \
        __asm__ volatile(text " %4, %3"                                                            \
                         : "=@ccc"(cf), "=@ccz"(zf), "=@ccp"(pf)                                   \
                         : "x"(get(v, op->a)), "x"(second));                                       \
        cc_set_flags(v, (cf ? FL_CF : 0) | (zf ? FL_ZF : 0) | (pf ? FL_PF : 0));                   \
        NEXT_OP(v, op);                                                                            \
    }
#define COMPARE(name, len, vex)                                                                    \
    OP(name##_r##_##vex)                                                                           \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, true));                                                         \
        COMPARE_(name, #name, vex, get(v, op->b))                                                  \
    }                                                                                              \
    OP(name##_m##_##vex)                                                                           \
    {                                                                                              \
        LEAVE_UNLESS(ready(v, vex, true));                                                         \
        FIND(len, 0);                                                                              \
        COMPARE_(name, #name, vex, load(host, len))                                                \
    }
#define CONVERT(vex)                                                                               \
    FROM_INT(cvtsi2sd4, "cvtsi2sdl", uint32_t, vex)                                                \
    FROM_INT(cvtsi2sd8, "cvtsi2sdq", uint64_t, vex)                                                \
    FROM_INT(cvtsi2ss4, "cvtsi2ssl", uint32_t, vex)                                                \
    FROM_INT(cvtsi2ss8, "cvtsi2ssq", uint64_t, vex)                                                \
    TO_INT(cvttsd2si4, "cvttsd2si", uint32_t, vex)                                                 \
    TO_INT(cvttsd2si8, "cvttsd2si", uint64_t, vex)                                                 \
    TO_INT(cvttss2si4, "cvttss2si", uint32_t, vex)                                                 \
    TO_INT(cvttss2si8, "cvttss2si", uint64_t, vex)                                                 \
    COMPARE(ucomisd, 8, vex)                                                                       \
    COMPARE(ucomiss, 4, vex)                                                                       \
    COMPARE(comisd, 8, vex)                                                                        \
    COMPARE(comiss, 4, vex)
CONVERT(0)
CONVERT(1)

/* ---- selection ---- */

/* A move by its opcode: [legacy, VEX.128, VEX.256], or NULL. Swaps op->a and op->b as needed. */
static op_fn *select_move(struct op *op, const struct insn *insn, bool vex)
{
    uint8_t code = insn->opcode, pp = insn->pp;
    bool mem = insn->is_mem, wide = insn->vex_l, w = insn->rex & 8;
    bool aligned = code == 0x28 || code == 0x29 || code == 0x2b || code == 0xe7 ||
                   ((code == 0x6f || code == 0x7f) && pp == 1);
    bool whole_in = (code == 0x10 && pp < 2) || code == 0x28 || (code == 0x6f && pp && pp < 3) ||
                    (code == 0xf0 && pp == 3);
    bool whole_out = (code == 0x11 && pp < 2) || code == 0x29 || (code == 0x7f && pp && pp < 3);
    bool stream = mem && (code == 0x2b || (code == 0xe7 && pp == 1));
    if (insn->vex_v)
        return NULL;
    op->c = aligned ? (wide ? 31 : 15) : 0;
    if (whole_in && mem)
        return wide ? load32 : BOTH(load16)[vex];
    if ((whole_out && mem) || stream)
        return wide ? store32 : BOTH(store16)[vex];
    if (whole_in || whole_out) {
        if (whole_out) {
            op->a = insn->rm;
            op->b = insn->reg;
        }
        return wide ? copy32 : BOTH(copy16)[vex];
    }
    if (wide)
        return code == 0xd7 && pp == 1 && !mem ? bytemask32 : NULL;
    switch (code) {
    case 0x10:
        if (mem)
            return pp == 2 ? BOTH(load4)[vex] : BOTH(load8)[vex];
        return vex ? NULL : pp == 2 ? merge4 : merge8;
    case 0x11:
        return !mem ? NULL : pp == 2 ? BOTH(store4)[vex] : BOTH(store8)[vex];
    case 0x12:
        return mem && pp < 2 && !vex ? load_low : NULL;
    case 0x16:
        return mem && pp < 2 && !vex ? load_high : NULL;
    case 0x13:
        return mem && pp < 2 && !vex ? store8_0 : NULL;
    case 0x6e:
        if (pp != 1)
            return NULL;
        if (mem)
            return w ? BOTH(load8)[vex] : BOTH(load4)[vex];
        return w ? BOTH(from_gpr8)[vex] : BOTH(from_gpr4)[vex];
    case 0x7e:
        if (pp == 2)
            return mem ? BOTH(load8)[vex] : BOTH(copy8)[vex];
        if (pp != 1)
            return NULL;
        if (mem)
            return w ? BOTH(store8)[vex] : BOTH(store4)[vex];
        return w ? BOTH(to_gpr8)[vex] : BOTH(to_gpr4)[vex];
    case 0xd6:
        return mem && pp == 1 ? BOTH(store8)[vex] : NULL;
    case 0xd7:
        return !mem && pp == 1 ? BOTH(bytemask)[vex] : NULL;
    default:
        return NULL;
    }
}

static op_fn *select_convert(const struct insn *insn, bool vex)
{
    uint8_t pp = insn->pp;
    bool mem = insn->is_mem, w = insn->rex & 8;
    if (insn->vex_l)
        return NULL;
    switch (insn->opcode) {
    case 0x2a:
        if (mem || pp < 2)
            return NULL;
        if (pp == 2)
            return w ? BOTH(cvtsi2ss8)[vex] : BOTH(cvtsi2ss4)[vex];
        return w ? BOTH(cvtsi2sd8)[vex] : BOTH(cvtsi2sd4)[vex];
    case 0x2c:
        if (mem || pp < 2 || insn->vex_v)
            return NULL;
        if (pp == 2)
            return w ? BOTH(cvttss2si8)[vex] : BOTH(cvttss2si4)[vex];
        return w ? BOTH(cvttsd2si8)[vex] : BOTH(cvttsd2si4)[vex];
    case 0x2e:
        if (pp > 1 || insn->vex_v)
            return NULL;
        if (mem)
            return pp ? BOTH(ucomisd_m)[vex] : BOTH(ucomiss_m)[vex];
        return pp ? BOTH(ucomisd_r)[vex] : BOTH(ucomiss_r)[vex];
    case 0x2f:
        if (pp > 1 || insn->vex_v)
            return NULL;
        if (mem)
            return pp ? BOTH(comisd_m)[vex] : BOTH(comiss_m)[vex];
        return pp ? BOTH(comisd_r)[vex] : BOTH(comiss_r)[vex];
    default:
        return NULL;
    }
}

bool soft_select_simd(struct op *op, const struct insn *insn)
{
    bool vex = insn->prefix & INSN_VEX;
    if (insn->cls != INSN_CLASS_SIMD || insn->map != INSN_MAP_0F || simd_is_mmx(insn))
        return false;
    if (insn->is_mem && !fast_set_address(op, insn))
        return false;
    op->a = insn->reg;
    op->b = insn->rm;
    op->c = insn->vex_v;
    op->d = (uint8_t)insn->imm;
    const struct forms *forms = binary[insn->pp][insn->opcode];
    op_fn *fn = NULL;
    if (forms && !(vex && forms->unary && insn->vex_v))
        fn = forms->fn[vex ? 1 + insn->vex_l : 0][insn->is_mem];
    else if (!forms && !vex && !insn->is_mem && insn->opcode == 0x70 && insn->pp == 1)
        fn = pshufd_r;
    else if (!forms && !vex && !insn->is_mem && insn->opcode == 0xc6)
        fn = insn->pp == 0 ? shufps_r : insn->pp == 1 ? shufpd_r : NULL;
    else if (!forms && !(fn = select_convert(insn, vex)))
        fn = select_move(op, insn, vex);
    if (fn)
        op->fn = fn;
    return fn != NULL;
}
