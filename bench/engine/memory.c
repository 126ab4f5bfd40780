/*
 * SIMD, floating point and memory-copy rows.
 *
 * The matrix rows use no fused operations, so that a sum is the same bits wherever it is computed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "rows.h"

#include <immintrin.h>
#include <string.h>

/* ---- matrices of floats ---- */

#define SIDE 48

static float left[SIDE][SIDE] __attribute__((aligned(32)));
static float right[SIDE][SIDE] __attribute__((aligned(32)));
static float product[SIDE][SIDE] __attribute__((aligned(32)));

static void matrix_setup(void)
{
    uint64_t seed = 19;

    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            left[i][j] = (float)(next_random(&seed) & 0xfff) / 64.0f;
            right[i][j] = (float)(next_random(&seed) & 0xfff) / 32.0f;
        }
}

static uint64_t matrix_sum(void)
{
    uint64_t sum = 0;

    barrier();
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            uint32_t bits;

            memcpy(&bits, &product[i][j], 4);
            sum = mix(sum, bits);
        }
    return sum;
}

static uint64_t matmul_sse2(void)
{
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j += 8) {
            __m128 a = _mm_setzero_ps();
            __m128 b = _mm_setzero_ps();

            for (int k = 0; k < SIDE; k++) {
                __m128 x = _mm_set1_ps(left[i][k]);

                a = _mm_add_ps(a, _mm_mul_ps(x, _mm_load_ps(&right[k][j])));
                b = _mm_add_ps(b, _mm_mul_ps(x, _mm_load_ps(&right[k][j + 4])));
            }
            _mm_store_ps(&product[i][j], a);
            _mm_store_ps(&product[i][j + 4], b);
        }
    return matrix_sum();
}

__attribute__((target("avx2"))) static void multiply_avx2(void)
{
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j += 16) {
            __m256 a = _mm256_setzero_ps();
            __m256 b = _mm256_setzero_ps();

            for (int k = 0; k < SIDE; k++) {
                __m256 x = _mm256_broadcast_ss(&left[i][k]);

                a = _mm256_add_ps(a, _mm256_mul_ps(x, _mm256_load_ps(&right[k][j])));
                b = _mm256_add_ps(b, _mm256_mul_ps(x, _mm256_load_ps(&right[k][j + 8])));
            }
            _mm256_store_ps(&product[i][j], a);
            _mm256_store_ps(&product[i][j + 8], b);
        }
}

static uint64_t matmul_avx2(void)
{
    multiply_avx2();
    return matrix_sum();
}

/* ---- scalar doubles: bodies that attract each other ---- */

#define BODIES 5

struct body {
    double at[3], speed[3], mass;
};

static uint64_t nbody(void)
{
    struct body bodies[BODIES];
    uint64_t sum = 0;

    for (int i = 0; i < BODIES; i++)
        for (int d = 0; d < 3; d++) {
            bodies[i].at[d] = i * 1.5 + d * 0.25;
            bodies[i].speed[d] = (i - 2) * 0.01 * (d + 1);
            bodies[i].mass = 1.0 + i;
        }
    for (int step = 0; step < 200; step++) {
        for (int i = 0; i < BODIES; i++)
            for (int j = i + 1; j < BODIES; j++) {
                double dx = bodies[i].at[0] - bodies[j].at[0];
                double dy = bodies[i].at[1] - bodies[j].at[1];
                double dz = bodies[i].at[2] - bodies[j].at[2];
                double square = dx * dx + dy * dy + dz * dz + 0.01;
                double pull = 0.001 / (square * __builtin_sqrt(square));
                double delta[3] = {dx, dy, dz};

                for (int d = 0; d < 3; d++) {
                    bodies[i].speed[d] -= delta[d] * bodies[j].mass * pull;
                    bodies[j].speed[d] += delta[d] * bodies[i].mass * pull;
                }
            }
        for (int i = 0; i < BODIES; i++)
            for (int d = 0; d < 3; d++)
                bodies[i].at[d] += 0.001 * bodies[i].speed[d];
    }
    for (int i = 0; i < BODIES; i++)
        for (int d = 0; d < 3; d++) {
            uint64_t bits;

            memcpy(&bits, &bodies[i].at[d], 8);
            sum = mix(sum, bits);
        }
    return sum;
}

/* ---- copies and fills ---- */

#define LARGE (8 << 20)
#define SMALL (16 << 10)

static uint8_t *source;
static uint8_t *target;

static void copy_setup(void)
{
    uint64_t seed = 23;

    if (source)
        return;
    /* 13 pages more: at a distance of a power of two, the pages of source and target would push
     * each other out of an emulator's direct-mapped TLB, which is a case of its own */
    source = own_memory(2 * LARGE + 13 * 4096);
    target = source + LARGE + 13 * 4096;
    for (unsigned i = 0; i < LARGE; i += 4) {
        uint32_t word = next_random(&seed);

        memcpy(source + i, &word, 4);
    }
    memset(target, 0, LARGE);
}

/* A few words of what was written: the copy is measured, not the check. */
static uint64_t sample(unsigned size)
{
    uint64_t sum = 0;

    barrier();
    for (unsigned i = 0; i < 16; i++) {
        uint64_t word;

        memcpy(&word, target + (size / 16 * i + i * 8 + 128) % size, 8);
        sum = mix(sum, word);
    }
    return sum;
}

/* Compares all that a row's first unit copied, byte by byte. */
static void compare(bool *done, const uint8_t *to, const uint8_t *from, unsigned size)
{
    barrier();
    for (unsigned i = 0; !*done && i < size; i++)
        if (to[i] != from[i])
            die("a copy is wrong");
    *done = true;
}

static uint64_t memcpy_small(void)
{
    static bool compared;

    for (int i = 0; i < 64; i++) {
        memcpy(target, source + 64 * (i & 3), SMALL);
        barrier();
    }
    compare(&compared, target, source + 192, SMALL);
    return sample(SMALL);
}

static uint64_t memcpy_large(void)
{
    static bool compared;

    memcpy(target, source, LARGE);
    compare(&compared, target, source, LARGE);
    return sample(LARGE);
}

/* What memcpy does where it does not trust rep movs. */
static uint64_t copy_sse2(void)
{
    static bool compared;

    for (int turn = 0; turn < 16; turn++) {
        const uint8_t *from = source + 4 * turn;

        for (unsigned i = 0; i < SMALL; i += 64) {
            __m128i a = _mm_loadu_si128((const __m128i *)(from + i));
            __m128i b = _mm_loadu_si128((const __m128i *)(from + i + 16));
            __m128i c = _mm_loadu_si128((const __m128i *)(from + i + 32));
            __m128i d = _mm_loadu_si128((const __m128i *)(from + i + 48));

            _mm_store_si128((__m128i *)(target + i), a);
            _mm_store_si128((__m128i *)(target + i + 16), b);
            _mm_store_si128((__m128i *)(target + i + 32), c);
            _mm_store_si128((__m128i *)(target + i + 48), d);
        }
        barrier();
    }
    compare(&compared, target, source + 60, SMALL);
    return sample(SMALL);
}

static void rep_movsb(void *to, const void *from, uint64_t bytes)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static void rep_movsq(void *to, const void *from, uint64_t words)
{
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
}

static void rep_stosb(void *to, uint8_t value, uint64_t bytes)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
}

static void rep_stosq(void *to, uint64_t value, uint64_t words)
{
    __asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(value) : "memory");
}

static uint64_t rep_movs(void)
{
    static bool bytes_compared;
    static bool words_compared;

    for (unsigned i = 0; i < 16; i++) {
        rep_movsb(target, source + i, SMALL);
        rep_movsq(target + SMALL, source + 8 * i, SMALL / 8);
    }
    compare(&bytes_compared, target, source + 15, SMALL);
    compare(&words_compared, target + SMALL, source + 8 * 15, SMALL);
    return sample(2 * SMALL);
}

static uint64_t rep_stos(void)
{
    static bool compared;

    for (unsigned i = 0; i < 16; i++) {
        rep_stosb(target, (uint8_t)(i * 7), SMALL);
        rep_stosq(target + SMALL, i * 0x0123456789abcdefu, SMALL / 8);
    }
    compare(&compared, target + 1, target, SMALL - 1); /* all bytes are like the first */
    return sample(2 * SMALL);
}

const struct row memory_rows[] = {
    {"matmul-sse2", "simd", 1, matrix_setup, matmul_sse2, false},
    {"matmul-avx2", "simd", 1, matrix_setup, matmul_avx2, true},
    {"nbody-double", "simd", 1, NULL, nbody, false},
    {"memcpy-16k", "simd", 64, copy_setup, memcpy_small, false},
    {"copy-sse2-16k", "simd", 16, copy_setup, copy_sse2, false},
    {"memcpy-8m", "simd", 1, copy_setup, memcpy_large, false},
    {"rep-movs-16k", "simd", 32, copy_setup, rep_movs, false},
    {"rep-stos-16k", "simd", 32, copy_setup, rep_stos, false},
    {0},
};
