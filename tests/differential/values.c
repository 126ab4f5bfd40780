/*
 * Random values: see values.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "values.h"

#include <string.h>

#include "accel/soft/simd/simd.h"

/* Steele, Lea, Flood: SplitMix. */
uint64_t random_next(struct random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static uint64_t integer(struct random *random)
{
    uint64_t r = random_next(random);
    switch (r & 7) {
    case 0: /* a power of two, and its neighbours */
        return (1ull << (r >> 8 & 63)) + (r >> 16) % 3 - 1;
    case 1:
        return -(1ull << (r >> 8 & 63)) + (r >> 16) % 3 - 1;
    case 2:
        return r >> 8 & 0xff;
    case 3:
        return (int8_t)(r >> 8);
    default:
        return random_next(random);
    }
}

/* Eight bytes that hold doubles, floats, halves or bytes worth computing with. */
static uint64_t eight(struct random *random)
{
    static const uint64_t doubles[] = {0,
                                       0x8000000000000000ull,
                                       0x3ff0000000000000ull,
                                       0xbff0000000000000ull,
                                       0x7ff0000000000000ull,
                                       0xfff0000000000000ull,
                                       0x7ff8000000000000ull,
                                       0x7ff0000000000001ull,
                                       0x0000000000000001ull,
                                       0x000fffffffffffffull,
                                       0x0010000000000000ull,
                                       0x7fefffffffffffffull,
                                       0x4330000000000000ull,
                                       0xc1e0000000000000ull,
                                       0x41dfffffffc00000ull,
                                       0x3ca0000000000000ull};
    static const uint32_t floats[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                      0xff800000, 0x7fc00000, 0x7f800001, 0x00000001, 0x007fffff,
                                      0x00800000, 0x7f7fffff, 0x4b000000, 0xcf000000, 0x34000000};
    uint64_t r = random_next(random);
    switch (r & 7) {
    case 0:
        return doubles[(r >> 8) % ARRAY_SIZE(doubles)];
    case 1:
        return floats[(r >> 8) % ARRAY_SIZE(floats)] |
               (uint64_t)floats[(r >> 32) % ARRAY_SIZE(floats)] << 32;
    case 2: /* a double near 1 */
        return (r & 0x800fffffffffff00ull) | (0x3f8ull + (r >> 52 & 15)) << 52;
    case 3: /* two floats near 1 */
        return (r & 0x807fff00807fff00ull) | 0x3f0000003f000000ull;
    case 4:
        return integer(random);
    default:
        return random_next(random);
    }
}

void values_memory(struct random *random, uint8_t *bytes, unsigned len)
{
    for (unsigned i = 0; i < len; i += 8)
        put_le64(bytes + i, eight(random));
}

static void x87_register(struct random *random, uint8_t *at)
{
    static const uint16_t exponents[] = {0, 0x7fff, 0x3fff, 0xbfff, 0x8000, 0xffff, 1, 0x403e};
    uint64_t r = random_next(random);
    memset(at, 0, 16);
    put_le64(at, r & 1 ? random_next(random) | 1ull << 63 : eight(random));
    if (r & 6)
        put_le16(at + 8, 0x3fff + (int)(r >> 8 & 63) - 32);
    else
        put_le16(at + 8, exponents[(r >> 8) % ARRAY_SIZE(exponents)]);
    if (r & 8)
        at[9] ^= 0x80;
}

static void x87_control(struct random *random, uint8_t *xstate)
{
    uint64_t r = random_next(random);
    uint16_t fcw = 0x40 | (r & 0x0f00), fsw = (r >> 16) & 0x7f7f;
    fcw |= one_in(random, 6) ? r >> 32 & 0x3f : 0x3f;
    if (r >> 40 & 1)
        fcw = (fcw & ~0x300) | 0x300;
    if (!one_in(random, 4))
        fsw &= ~0x7f;
    if (fsw & ~fcw & 0x3f)
        fsw |= FSW_ES | FSW_B;
    put_le16(xstate + XS_FCW, fcw);
    put_le16(xstate + XS_FSW, fsw);
    xstate[XS_FTW] = one_in(random, 3) ? 0xff : r >> 48;
    for (unsigned i = 0; i < 8; i++)
        x87_register(random, xstate + XS_ST + 16 * i);
}

bool values_alignment(void)
{
    return __builtin_cpu_is("intel");
}

void values_state(struct random *random, struct machine_state *state)
{
    memset(state, 0, sizeof(*state));
    for (unsigned i = 0; i < 16; i++)
        state->gpr[i] = integer(random);
    state->flags = (random_next(random) & (FL_ARITH | FL_DF)) | FL_IF | 2;
    if (!one_in(random, 4))
        state->flags &= ~(uint64_t)FL_DF;
    if (one_in(random, 16) && values_alignment())
        state->flags |= FL_AC;
    state->fs_base = DATA_AT + below(random, 4096);
    state->gs_base = one_in(random, 4) ? random_next(random) >> 20 : DATA_AT - below(random, 4096);
    x87_control(random, state->xstate);
    uint64_t r = random_next(random);
    uint32_t mxcsr = r & 0xe07f;
    if (r >> 32 & 3)
        mxcsr &= ~0x3fu;
    mxcsr |= one_in(random, 6) ? r >> 16 & MXCSR_MASKS : MXCSR_MASKS;
    put_le32(state->xstate + XS_MXCSR, mxcsr);
    put_le64(state->xstate + XS_HEADER, 7);
    values_memory(random, state->xstate + XS_XMM, 256);
    values_memory(random, state->xstate + XS_YMM, 256);
}
