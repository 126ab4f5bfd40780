/*
 * The rows of the engine benchmark: what each file of rows offers to init.c.
 *
 * A row is a unit of work that does exactly the same at every call and returns a checksum of what
 * it computed. init.c calls units until the time is worth measuring and compares the checksums:
 * with each other here, with other machines and the bare CPU in bench/engine.py.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BENCH_ENGINE_ROWS_H
#define BENCH_ENGINE_ROWS_H

#include <stdbool.h>
#include <stdint.h>

struct row {
    const char *name;
    const char *kind;       /* scalar, simd (with memory copies) or system */
    unsigned ops;           /* operations in one unit: what a time is divided by */
    void (*setup)(void);    /* once, before the first unit; may be NULL */
    uint64_t (*unit)(void); /* the checksum is the same at every call, on every machine */
    bool avx2;              /* only where the CPU has AVX2 */
};

extern const struct row scalar_rows[];
extern const struct row memory_rows[];
extern const struct row system_rows[];

/* The program that the rows start; argument "exit" makes it end at once. */
extern const char *self_path;

/* Ends the run with one line on the console. */
void die(const char *what) __attribute__((noreturn));

/* Zeroed memory that children do not get: fork must not pay for the rows before it. */
void *own_memory(uint64_t bytes);

/* A generator that is the same everywhere (Knuth's MMIX constants). */
static inline uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 32);
}

/* Adds a value to a checksum; order matters. */
static inline uint64_t mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * 0x9e3779b97f4a7c15u;
    return sum ^ (sum >> 29);
}

/* Keeps the compiler from knowing or reordering what is in memory. */
static inline void barrier(void)
{
    __asm__ volatile("" : : : "memory");
}

#endif
