/*
 * A user program strays about pages that lie apart in RAM, until they are mirrored side by side.
 * What the mirror shows must end when the TLB's entries do: pages that move, go away, lose their
 * rights, are logged or become code.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/mem/mirror.h"
#include "soft_rig.h"

#define TABLE 0x20000u /* a page table for the 2 MiB at VA */
#define VA 0x40000000ull
#define PA 0x400000u
#define CODE 0x100000u
#define HANDLER 0x110000u
#define PAGES 32u
#define TURNS 20000u

struct fixture {
    struct rig *rig;
    uint64_t sum;          /* what the program should have found so far */
    uint8_t at[PAGES + 1]; /* where in RAM a page lies */
    uint64_t cell[PAGES];  /* the first word of each page of RAM */
};

static uint64_t *pte(struct rig *rig, unsigned page)
{
    return (uint64_t *)(void *)(rig->ram + TABLE) + page;
}

static uint8_t *ram_page(struct fixture *f, unsigned n)
{
    return f->rig->ram + PA + 4096 * n;
}

static void map(struct fixture *f, unsigned page, unsigned at, unsigned rights)
{
    f->at[page] = at;
    *pte(f->rig, page) = (PA + at * 4096ull) | rights;
}

/* again: mov eax, ecx; imul eax, eax, 0x9e3779b1; shr eax, 27; shl eax, 12; mov rdi, [rbx + rax];
   add rdx, rdi; inc rdi; mov [rbx + rax], rdi; dec ecx; jnz again; end */
static const uint8_t program[] = {0x89, 0xc8, 0x69, 0xc0, 0xb1, 0x79,   0x37, 0x9e, 0xc1,
                                  0xe8, 0x1b, 0xc1, 0xe0, 0x0c, 0x48,   0x8b, 0x3c, 0x03,
                                  0x48, 0x01, 0xfa, 0x48, 0xff, 0xc7,   0x48, 0x89, 0x3c,
                                  0x03, 0xff, 0xc9, 0x75, 0xe0, RIG_END};

static void set_user(struct rig *rig, uint64_t rip)
{
    struct x86_table_register idt = rig->v->idt;
    rig_long_mode(rig, rip);
    struct x86_state *s = calloc(1, sizeof(*s));
    rig_ok(accel_soft.vcpu_get(rig->vcpu, s));
    s->seg[X86_CS] = (struct x86_segment){.limit = ~0u, .attr = 0xa0fb, .selector = 0x2b};
    s->seg[X86_SS] = (struct x86_segment){.limit = ~0u, .attr = 0xc0f3, .selector = 0x23};
    s->rflags = 2 | FL_IOPL; /* its last instruction is an OUT */
    s->idt = idt;
    s->gpr[X86_RBX] = VA;
    s->gpr[X86_RCX] = TURNS;
    s->gpr[X86_RDX] = s->gpr[X86_RBP] = 0;
    rig_ok(accel_soft.vcpu_set(rig->vcpu, s));
    free(s);
}

/* The program runs; what it should find is known. */
static void run(struct fixture *f, uint64_t offset)
{
    struct soft_vcpu *v = f->rig->v;
    set_user(f->rig, CODE);
    v->r[X86_RBX] += offset;
    assert_int_equal(rig_run(f->rig), VM_EXIT_KICKED);
}

static void expect(struct fixture *f)
{
    uint64_t sum = 0;
    for (uint32_t turn = TURNS; turn; turn--)
        sum += f->cell[f->at[turn * 0x9e3779b1u >> 27]]++;
    assert_int_equal(f->rig->v->r[X86_RCX], 0);
    assert_true(f->rig->v->r[X86_RDX] == sum);
    for (unsigned i = 0; i < PAGES; i++)
        assert_true(get_le64(ram_page(f, i)) == f->cell[i]);
}

static bool mirrored(struct fixture *f, unsigned page, bool write)
{
    struct mirror_run run;
    struct soft_vcpu *v = f->rig->v;
    return soft_mirror_find(v->user[v->asid], VA + page * 4096ull, write, &run);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->rig = rig_new();
    f->rig->v->vm->xlate_after = 1;
    put_le64(f->rig->ram + RIG_TABLES + 0x3000, TABLE | 7);
    for (unsigned i = 0; i < PAGES; i++) {
        map(f, i, i * 13 % PAGES, 7);
        put_le64(ram_page(f, i), f->cell[i] = i * 1000);
    }
    memcpy(f->rig->ram + CODE, program, sizeof(program));
    /* #PF: the error code to rbp, end */
    memcpy(f->rig->ram + HANDLER, (uint8_t[]){0x5d, RIG_END}, 5);
    rig_gate(f->rig, VEC_PF, HANDLER, 0x8e, 0);
    run(f, 0);
    expect(f);
    for (unsigned i = 0; i < PAGES; i++)
        assert_true(mirrored(f, i, false) && mirrored(f, i, true));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    rig_free(f->rig);
    free(f);
    return 0;
}

static void test_pages_move(void **state)
{
    struct fixture *f = *state;
    map(f, 3, 4 * 13 % PAGES, 7);
    map(f, 4, 3 * 13 % PAGES, 7);
    soft_tlb_flush_page(f->rig->v, VA + 3 * 4096);
    soft_tlb_flush_page(f->rig->v, VA + 4 * 4096);
    assert_false(mirrored(f, 3, false) || mirrored(f, 4, true));
    run(f, 0);
    expect(f);
    for (unsigned i = 0; i < PAGES; i++)
        map(f, i, i * 7 % PAGES, 7);
    soft_tlb_flush(f->rig->v);
    run(f, 0);
    expect(f);
}

static void test_page_goes(void **state)
{
    struct fixture *f = *state;
    map(f, 5, 5 * 13 % PAGES, 0);
    soft_tlb_flush_page(f->rig->v, VA + 5 * 4096);
    run(f, 0);
    assert_int_equal(f->rig->v->r[X86_RBP], 4); /* user, read, not present */
}

static void test_page_loses_rights(void **state)
{
    struct fixture *f = *state;
    map(f, 5, 5 * 13 % PAGES, 5);
    soft_tlb_flush_page(f->rig->v, VA + 5 * 4096);
    run(f, 0);
    assert_int_equal(f->rig->v->r[X86_RBP], 7); /* user, write, present */
}

/* What was written before the log began, or between two rounds, is in the next round. */
static void test_dirty_log(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = f->rig;
    uint64_t *bits = calloc(RIG_RAM / 4096 / 64, 8);
    gmem_dirty_enable(rig->gmem, true);
    rig_ok(accel_soft.dirty_enable(rig->vm, true));
    for (unsigned round = 0; round < 3; round++) {
        run(f, 0);
        expect(f);
        rig_ok(accel_soft.dirty_fetch(rig->vm));
        gmem_dirty_take(rig->gmem, 0, bits);
        assert_int_equal((uint32_t)bits[PA / 4096 / 64], ~0u);
    }
    rig_ok(accel_soft.dirty_enable(rig->vm, false));
    free(bits);
}

/* Writes to a page with code must be seen. */
static void test_page_becomes_code(void **state)
{
    struct fixture *f = *state;
    uint64_t gpa = PA + f->at[9] * 4096;
    soft_code_mark(f->rig->v, gpa + 2048, 64);
    assert_false(mirrored(f, 9, true));
    assert_true(mirrored(f, 9, false) && mirrored(f, 8, true));
    run(f, 0);
    expect(f);
    assert_false(mirrored(f, 9, true));
}

/* Words that lie in two pages each are in one piece in the mirror. */
static void test_crossing(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = f->rig;
    uint64_t sum = 0;
    map(f, PAGES, PAGES, 7);
    for (unsigned i = 0; i < PAGES; i++) {
        put_le32(ram_page(f, f->at[i]) + 4092, i * 77);
        put_le32(ram_page(f, f->at[i]), 0);
    }
    put_le32(ram_page(f, PAGES), 0);
    for (unsigned i = 0; i < PAGES; i++)
        f->cell[i] = i * 77;
    for (uint32_t turn = TURNS; turn; turn--)
        sum += f->cell[turn * 0x9e3779b1u >> 27]++;
    run(f, 4092);
    assert_true(rig->v->r[X86_RDX] == sum);
    for (unsigned i = 0; i < PAGES; i++)
        assert_int_equal(get_le32(ram_page(f, f->at[i]) + 4092), f->cell[i]);
}

/* More areas than a mirror has parts: one goes in the middle of a block that has checked a part of
   it for a later access. */
static void test_part_goes(void **state)
{
    /* again: rsi = rbx + 4096 * (ecx & 1); add rdx, [rsi]; rax = 64 MiB * (ecx >> 7 & 15) + 4096 *
       (ecx & 1); add rdx, [rbx + rax]; add rdx, [rsi + 8]; dec ecx; jnz again; end */
    static const uint8_t wide[] = {0x89, 0xc8, 0x83, 0xe0, 0x01, 0xc1, 0xe0, 0x0c, 0x48, 0x8d,
                                   0x34, 0x03, 0x48, 0x03, 0x16, 0x89, 0xc8, 0xc1, 0xe8, 0x07,
                                   0x83, 0xe0, 0x0f, 0xc1, 0xe0, 0x1a, 0x89, 0xcf, 0x83, 0xe7,
                                   0x01, 0xc1, 0xe7, 0x0c, 0x48, 0x01, 0xf8, 0x48, 0x03, 0x14,
                                   0x03, 0x48, 0x03, 0x56, 0x08, 0xff, 0xc9, 0x75, 0xcf, RIG_END};
    struct fixture *f = *state;
    uint64_t sum = 0, word[16][2];
    for (unsigned area = 0; area < 16; area++) {
        uint8_t *ram = f->rig->ram, *table = ram + TABLE + area * 4096;
        put_le64(ram + RIG_TABLES + 0x3000 + area * 32 * 8, (TABLE + area * 4096) | 7);
        for (unsigned i = 0; i < 2; i++) {
            uint64_t at = PA + (100 + area + i * 40) * 4096ull;
            put_le64(table + i * 8, at | 7);
            put_le64(ram + at, word[area][i] = area * 1000003 + i);
            put_le64(ram + at + 8, area + i * 77);
        }
    }
    memcpy(f->rig->ram + CODE + 4096, wide, sizeof(wide));
    soft_tlb_flush(f->rig->v);
    for (uint32_t turn = TURNS; turn; turn--)
        sum += word[0][turn & 1] + word[turn >> 7 & 15][turn & 1] + (turn & 1) * 77;
    set_user(f->rig, CODE + 4096);
    assert_int_equal(rig_run(f->rig), VM_EXIT_KICKED);
    assert_int_equal(f->rig->v->r[X86_RCX], 0);
    assert_true(f->rig->v->r[X86_RDX] == sum);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pages_move, setup, teardown),
        cmocka_unit_test_setup_teardown(test_page_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_page_loses_rights, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dirty_log, setup, teardown),
        cmocka_unit_test_setup_teardown(test_page_becomes_code, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crossing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_part_goes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
