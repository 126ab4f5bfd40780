/*
 * The block cache of one vCPU: its arenas, hash table and page lists. See exec.h for blocks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_BLOCK_H
#define TENON_ACCEL_SOFT_BLOCK_H

#include "accel/soft/interp/exec.h"

#define BLOCK_OPS_MAX 64
#define BLOCK_HASH_BITS 16
/* With 36 MiB of code and some 9 of records (xlate.c), a vCPU stays below 100 MiB. */
#define CODE_ARENA MIB(36)
#define INSN_ARENA MIB(8)

struct soft_code {
    uint8_t *arena; /* blocks */
    size_t used;
    struct insn *insns; /* instructions that op_generic keeps */
    size_t insn_count;
    struct block *hash[1u << BLOCK_HASH_BITS];
    struct block **pages; /* by page index of soft_mem: blocks that lie in the page */
    uint64_t page_count;
    struct xlate *xlate;     /* NULL: no translator */
    struct block *miss;      /* stands for "not in the jump cache": its op looks the block up */
    struct block_hints lost; /* takes what there is no room for */
};

struct block *soft_code_miss(struct soft_code *code);
uint64_t soft_page_index(const struct soft_mem *mem, uint64_t gpa);

/* The next block's first op after a jump to `rip`; NULL when the run loop must look first. */
static inline uint64_t jc_key(const struct soft_vcpu *v, uint64_t rip)
{
    if (v->mode == INSN_64)
        return rip;
    return (uint32_t)(rip + v->seg[X86_CS].base) | v->salt;
}

#endif
