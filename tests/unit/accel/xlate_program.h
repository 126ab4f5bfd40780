/*
 * Random programs of 64-bit code for test_soft_xlate.c, and what a run of one begins with.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TESTS_XLATE_PROGRAM_H
#define TENON_TESTS_XLATE_PROGRAM_H

#include <signal.h>

#include "soft_rig.h"

#define CODE 0x200000u   /* two pages */
#define DATA 0x10000000u /* two pages */
#define STACK 0x300000u  /* one page */
#define CELLS 0x301000u  /* indirect targets */
#define DEVICE 0x30000000u
#define ABSENT 0x500000000ull
#define PF_HANDLER 0x400000u

struct fixture {
    struct rig *rig;
    uint64_t seed, first_seed;
    uint8_t *at; /* where the next byte of the program goes, in guest RAM */
    unsigned cells, depth;
    uint8_t code[8192], data[8192];
    uint64_t regs[16], flags;
    uint8_t xsave[X86_XSAVE_SIZE];
    struct sigaction on_ill, on_fpe; /* the engine's: cmocka puts its own in their place */
};

static inline uint64_t next_random(struct fixture *f)
{
    f->seed ^= f->seed << 13;
    f->seed ^= f->seed >> 7;
    f->seed ^= f->seed << 17;
    return f->seed * 0x2545f4914f6cdd1dull >> 8;
}

static inline unsigned below(struct fixture *f, unsigned n)
{
    return next_random(f) % n;
}

/* Puts one at CODE; it begins where regs[0] says. */
void xlate_program(struct fixture *f);

#endif
