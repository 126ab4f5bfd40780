/*
 * REP MOVS and REP STOS against a model that moves one element at a time: each width of operand and
 * address, upward and downward, overlapping, over pages, to the end of a segment and around the end
 * of the offsets.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "soft_rig.h"

#define CODE 0x100000u
#define WINDOW 0x200000u
#define WINDOW_SIZE 0x12000u
#define CASES 1500u

struct shape {
    uint8_t mode; /* enum insn_mode */
    unsigned addrsize;
};

/* One instruction: what it begins with, and by the model what it leaves. */
struct job {
    struct shape shape;
    bool stos, down, faults;
    unsigned opsize;
    uint64_t base, limit, from, to, count;
    uint8_t window[WINDOW_SIZE];
};

static uint64_t seed = 1;

static uint32_t draw(uint32_t below)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((seed >> 33) % below);
}

#define PATTERN 0x8877665544332211ull

static uint64_t step(const struct job *job, uint64_t offset)
{
    uint64_t next = job->down ? offset - job->opsize : offset + job->opsize;
    return job->shape.addrsize == 8 ? next : next & ((1ull << 8 * job->shape.addrsize) - 1);
}

/* False: the element lies behind the limit. */
static bool inside(const struct job *job, uint64_t offset)
{
    return job->shape.mode == INSN_64 || offset + job->opsize - 1 <= job->limit;
}

static void run_model(struct job *job)
{
    for (; job->count; job->count--) {
        uint8_t element[8];
        put_le64(element, PATTERN);
        if ((!job->stos && !inside(job, job->from)) || !inside(job, job->to)) {
            job->faults = true;
            return;
        }
        if (!job->stos) {
            memcpy(element, job->window + job->base + job->from - WINDOW, job->opsize);
            job->from = step(job, job->from);
        }
        memcpy(job->window + job->base + job->to - WINDOW, element, job->opsize);
        job->to = step(job, job->to);
    }
}

static void draw_job(struct job *job, struct shape shape)
{
    *job = (struct job){.shape = shape, .stos = draw(4) == 0, .down = draw(2)};
    job->opsize = 1u << draw(shape.mode == INSN_64 ? 4 : 3);
    job->base = shape.mode == INSN_64 ? 0 : WINDOW;
    job->limit = shape.addrsize == 2 ? 0xffff : draw(3) ? 0xffffffff : 0x3000 + draw(0x2000);
    job->count = draw(8) ? draw(6000 / job->opsize) : draw(3);
    uint64_t start = shape.mode == INSN_64 ? WINDOW : 0;
    /* With two bytes of address all offsets are in the window, also those around its end. */
    bool small = shape.addrsize == 2;
    job->from = start + (small ? draw(0x10000) : 0x2800 + draw(0x3000));
    job->to = start + (small ? draw(0x10000) : 0x2800 + draw(0x3000));
    if (draw(2)) {
        job->to = job->from + draw(41) - 20;
        job->to = small ? job->to & 0xffff : job->to;
    }
    for (unsigned i = 0; i < WINDOW_SIZE; i++)
        job->window[i] = (uint8_t)draw(256);
}

static void put_code(uint8_t *at, const struct job *job)
{
    unsigned natural = job->shape.mode == INSN_16 ? 2 : 4;
    if (job->shape.addrsize != (job->shape.mode == INSN_64   ? 8
                                : job->shape.mode == INSN_32 ? 4
                                                             : 2))
        *at++ = 0x67;
    if (job->opsize > 1 && job->opsize < 8 && job->opsize != natural)
        *at++ = 0x66;
    *at++ = 0xf3;
    if (job->opsize == 8)
        *at++ = 0x48;
    *at++ = (uint8_t)((job->stos ? 0xaa : 0xa4) + (job->opsize > 1));
    memcpy(at, (uint8_t[]){RIG_END}, 4);
}

/* Without paging, code of `mode` in a flat segment, data in one with the job's base and limit. */
static void leave_long_mode(struct rig *rig, const struct job *job)
{
    struct soft_vcpu *v = rig->v;
    struct x86_segment data = {
        .base = job->base, .limit = (uint32_t)job->limit, .attr = 0xc093, .selector = 0x10};
    v->seg[X86_CS] = job->shape.mode == INSN_32 ? soft_unpack(0x18, 0x00cf9b000000ffffull)
                                                : soft_unpack(0x30, 0x008f9b000000ffffull);
    v->seg[X86_DS] = v->seg[X86_ES] = data;
    v->cr0 &= ~(uint64_t)CR0_PG;
    v->efer = 0;
    soft_mode_changed(v);
}

static void run_job(struct rig *rig, struct job *job)
{
    struct soft_vcpu *v = rig->v;
    put_code(rig->ram + CODE, job);
    soft_code_flush(v);
    rig_long_mode(rig, CODE);
    v->idt.limit = 0;
    if (job->shape.mode != INSN_64)
        leave_long_mode(rig, job);
    v->rflags |= job->down ? 1u << 10 : 0;
    v->r[X86_RSI] = job->from;
    v->r[X86_RDI] = job->to;
    v->r[X86_RCX] = job->count;
    v->r[X86_RAX] = PATTERN;
    memcpy(rig->ram + WINDOW, job->window, WINDOW_SIZE);
    run_model(job);
    assert_int_equal(rig_run(rig), job->faults ? VM_EXIT_SHUTDOWN : VM_EXIT_KICKED);
    assert_int_equal(v->r[X86_RCX], job->count);
    assert_int_equal(v->r[X86_RSI], job->from);
    assert_int_equal(v->r[X86_RDI], job->to);
    assert_memory_equal(rig->ram + WINDOW, job->window, WINDOW_SIZE);
}

static void test_moves(void **state)
{
    static const struct shape shapes[] = {
        {INSN_64, 8}, {INSN_64, 4}, {INSN_32, 4}, {INSN_32, 2}, {INSN_16, 4}, {INSN_16, 2},
    };
    struct job *job = malloc(sizeof(*job));
    for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
        struct rig *rig = rig_new();
        unsigned faults = 0;
        for (unsigned n = 0; n < CASES; n++) {
            draw_job(job, shapes[i]);
            run_job(rig, job);
            faults += job->faults;
        }
        assert_true(shapes[i].mode == INSN_64 ? !faults : faults > 20);
        rig_free(rig);
    }
    free(job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_moves)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
