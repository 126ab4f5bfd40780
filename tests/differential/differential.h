/*
 * Random instructions on the bare CPU, the interpreter and the translator: what the files of this
 * program share. main.c says how it is used.
 *
 * A case is a short program with its registers, x87, MMX, SSE and AVX state and memory. It runs in
 * 64-bit code at privilege level 3, at the same addresses everywhere, and ends at an INT3 or at the
 * exception that it raises. All of the state must be equal then, but for what the architecture
 * leaves undefined (soft/check/undefined.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TESTS_DIFFERENTIAL_H
#define TENON_TESTS_DIFFERENTIAL_H

#include <stdio.h>

#include "accel/soft/check/undefined.h"
#include "accel/soft/decode/optable.h"
#include "accel/soft/soft.h"

/* Linear addresses. Around the data nothing is mapped. */
#define CODE_AT 0x08000000u
#define CODE_SIZE 0x100000u
#define SLOT 192u /* bytes for the program of a case; slots come to lie across pages */
#define SLOTS (CODE_SIZE / SLOT)
#define DATA_AT 0x10000000u
#define DATA_SIZE 0x2000u /* two pages to read and write, then one to read */
#define READ_ONLY_AT (DATA_AT + DATA_SIZE)
#define DATA_END (READ_ONLY_AT + 0x1000u)

#define XSTATE_SIZE 832u /* x87, SSE, AVX in the standard format */
#define INSNS_MAX 8

struct random {
    uint64_t state;
};
uint64_t random_next(struct random *random);
static inline uint64_t below(struct random *random, uint64_t n)
{
    return random_next(random) % n;
}
static inline bool one_in(struct random *random, unsigned n)
{
    return below(random, n) == 0;
}

/* ---- forms: the rows of the decode tables, with everything that a row leaves open ---- */

enum form_mod { MOD_ANY, MOD_MEM, MOD_REG };

struct form {
    const struct oprow *row;
    uint8_t map, opcode;
    int8_t pp;      /* mandatory prefix as VEX.pp counts, or -1 */
    int8_t reg, rm; /* ModRM fields, or -1 */
    uint8_t mod;    /* enum form_mod */
    bool vex;
    uint8_t vex_l;
    bool undefined;       /* the host knows no such instruction: generated seldom */
    bool second;          /* VEX.vvvv names an operand */
    uint8_t w;            /* values that VEX.W may have: bit 0 for 0, bit 1 for 1 */
    const char *excluded; /* why it is not generated, or NULL */
    uint64_t cases, finished;
};

struct forms {
    struct form *form;
    unsigned count;
};

/* Tries each form on the bare CPU. */
void forms_probe(struct forms *forms);
/* All forms of all maps that 64-bit code with `features` has. */
void forms_make(struct forms *forms, uint64_t features);
const char *feature_name(unsigned feature);
/* How often each extension was executed, and which forms never were. */
void forms_report(const struct forms *forms);

/* ---- cases ---- */

struct machine_state {
    uint64_t gpr[16], rip, flags;
    uint64_t fs_base, gs_base;
    uint8_t xstate[XSTATE_SIZE] __attribute__((aligned(64)));
};

struct test_case {
    uint64_t seed;
    unsigned count;
    struct insn insn[INSNS_MAX + 1];
    struct form *form[INSNS_MAX + 1];
    unsigned start[INSNS_MAX + 2]; /* offsets of the instructions, then of the INT3 */
    uint8_t code[SLOT];
    unsigned length; /* with the INT3 at its end */
    uint64_t at;     /* linear address of the code */
    struct machine_state in;
    uint8_t data[DATA_SIZE];
};

/* With `form`, one instruction of that form. */
void case_make(struct test_case *test, struct forms *forms, struct form *form, uint64_t seed,
               unsigned slot);
/* The page that is only read is the same in every case. */
void case_read_only(uint8_t page[4096]);

/* ---- execution ---- */

#define OUTCOME_ENDLESS (-1)

struct outcome {
    struct machine_state out;
    uint16_t selector[4]; /* DS, ES, FS, GS */
    int vector;           /* or OUTCOME_ENDLESS */
    uint64_t error, cr2;
    uint8_t data[DATA_SIZE];
};

void native_init(void);
void native_run(const struct test_case *test, struct outcome *out);

enum engine_kind { ENGINE_STEP, ENGINE_BLOCKS, ENGINE_TRANSLATED, ENGINES };
struct engine;
struct engine *engine_new(enum engine_kind kind);
void engine_free(struct engine *engine);
uint64_t engine_features(const struct engine *engine);
/* A new round through the code slots: forgets what it has decoded. */
void engine_flush(struct engine *engine);
void engine_run(struct engine *engine, const struct test_case *test, struct outcome *out);
/* From a signal handler: ends the run in progress. */
void engine_interrupt(void);

/*
 * On a CPU of another maker than Intel: only what manuals of all makers say alike, so no prefix
 * that an instruction has no use for, and no state after a fault.
 */
extern bool lenient;

/* ---- comparison ---- */

/* Prints the differences to `file` if there is one; returns how many. */
unsigned outcome_compare(const struct test_case *test, const struct outcome *native,
                         const struct outcome *soft, FILE *file);

#endif
