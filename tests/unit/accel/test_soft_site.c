/*
 * What translated code remembers of translations must go when the TLB's entries do: loops that are
 * translated on their second turn, whose page moves, loses its rights, is logged or becomes code.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>

#include "accel/soft/simd/simd.h"
#include "soft_rig.h"

#define TABLE 0x20000u /* a page table for the 2 MiB at VA */
#define VA 0x40000000ull
#define PA 0x400000u
#define CODE 0x100000u
#define HANDLER 0x110000u
#define TURNS 200

struct fixture {
    struct rig *rig;
    struct sigaction on_ill; /* the engine's: cmocka puts its own in its place */
    uint8_t *at;
};

static uint64_t *pte(struct rig *rig, unsigned page)
{
    return (uint64_t *)(void *)(rig->ram + TABLE) + page;
}

static uint8_t *page(struct rig *rig, unsigned n)
{
    return rig->ram + PA + 4096 * n;
}

static void put(struct fixture *f, size_t len, const uint8_t *bytes)
{
    memcpy(f->at, bytes, len);
    f->at += len;
}
#define PUT(f, ...) put(f, sizeof((uint8_t[]){__VA_ARGS__}), (const uint8_t[]){__VA_ARGS__})

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->rig = rig_new();
    sigaction(SIGILL, NULL, &f->on_ill);
    f->rig->v->vm->xlate_after = 1;
    put_le64(f->rig->ram + RIG_TABLES + 0x3000, TABLE | 7);
    for (unsigned i = 0; i < 64; i++)
        *pte(f->rig, i) = (PA + i * 4096ull) | 7;
    /* #PF: the error code to rbp, end */
    f->at = f->rig->ram + HANDLER;
    PUT(f, 0x5d, RIG_END);
    rig_gate(f->rig, VEC_PF, HANDLER, 0x8e, 0);
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

/* A program begins: rbx = VA, rsi = the address of its PTE, rcx = turns, all else 0. */
static void begin(struct fixture *f)
{
    sigaction(SIGILL, &f->on_ill, NULL);
    soft_code_flush(f->rig->v);
    f->at = f->rig->ram + CODE;
}

/* The body, which was put, runs that many times. */
static void run_turns(struct fixture *f, unsigned turns)
{
    struct soft_vcpu *v = f->rig->v;
    uint8_t *top = f->rig->ram + CODE;
    PUT(f, 0xff, 0xc9, 0x0f, 0x85); /* dec ecx; jnz */
    put_le32(f->at, (uint32_t)(top - f->at - 4));
    f->at += 4;
    PUT(f, RIG_END);
    struct x86_table_register idt = v->idt;
    rig_long_mode(f->rig, CODE);
    v->idt = idt;
    memset(v->r, 0, 16 * sizeof(v->r[0]));
    v->r[X86_RSP] = RIG_STACK;
    v->r[X86_RBX] = VA;
    v->r[X86_RSI] = TABLE;
    v->r[X86_RCX] = turns;
    assert_int_equal(rig_run(f->rig), VM_EXIT_KICKED);
}

static void run(struct fixture *f)
{
    run_turns(f, TURNS);
}

/* The page moves to and fro, with a flush of the given kind. */
static void moving(struct fixture *f, size_t len, const uint8_t *flush)
{
    struct rig *rig = f->rig;
    *pte(rig, 0) = PA | 7;
    put_le64(page(rig, 0), 1);
    put_le64(page(rig, 1), 1000);
    begin(f);
    PUT(f, 0x48, 0x03, 0x13);                         /* add rdx, [rbx] */
    PUT(f, 0x48, 0x83, 0x43, 0x08, 0x01);             /* add qword [rbx + 8], 1 */
    PUT(f, 0x50, 0x58, 0x89, 0xc0);                   /* push rax; pop rax; mov eax, eax */
    PUT(f, 0x48, 0x81, 0x36, 0x00, 0x10, 0x00, 0x00); /* xor qword [rsi], 0x1000 */
    put(f, len, flush);
    run(f);
    assert_int_equal(rig->v->r[X86_RCX], 0);
    assert_int_equal(rig->v->r[X86_RDX], TURNS / 2 * 1001);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(get_le64(page(rig, i) + 8), TURNS / 2);
        put_le64(page(rig, i) + 8, 0);
    }
}

static void test_invlpg(void **state)
{
    static const uint8_t flush[] = {0x0f, 0x01, 0x3b};
    moving(*state, sizeof(flush), flush);
}

static void test_cr3(void **state)
{
    static const uint8_t flush[] = {0x0f, 0x20, 0xdf, 0x0f, 0x22, 0xdf}; /* mov cr3, cr3 by rdi */
    moving(*state, sizeof(flush), flush);
}

/* Two pages that lie together are one window; a flush of either page must empty it. */
static void test_window(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = f->rig;
    put_le64(page(rig, 4), 1);
    put_le64(page(rig, 5), 10);
    put_le64(page(rig, 6), 100);
    begin(f);
    PUT(f, 0x48, 0x89, 0xdf, 0x48, 0x81, 0xc7, 0x00, 0x40, 0x00,
        0x00);                                              /* lea rdi, [rbx + 4 pages] */
    PUT(f, 0xb8, 0x02, 0x00, 0x00, 0x00);                   /* mov eax, 2 */
    PUT(f, 0x48, 0x03, 0x17);                               /* again: add rdx, [rdi] */
    PUT(f, 0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00);       /* add rdi, 4096 */
    PUT(f, 0xff, 0xc8, 0x75, 0xf2);                         /* dec eax; jnz again */
    PUT(f, 0x48, 0x81, 0x76, 0x28, 0x00, 0x30, 0x00, 0x00); /* xor qword [rsi + 5 * 8], 0x3000 */
    PUT(f, 0x0f, 0x01, 0xbb, 0x00, 0x50, 0x00, 0x00);       /* invlpg [rbx + 0x5000] */
    run(f);
    /* page 0x405 and 0x405 ^ 3 = 0x406 in turn */
    assert_int_equal(rig->v->r[X86_RDX], TURNS + TURNS / 2 * 110);
}

/* The page goes away in the middle: the store of the next turn faults. */
static void test_unmapped(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = f->rig;
    *pte(rig, 0) = PA | 7;
    begin(f);
    PUT(f, 0x48, 0x89, 0x4b, 0x18);                   /* mov [rbx + 24], rcx */
    PUT(f, 0x83, 0xf9, 0x64, 0x75, 0x07);             /* cmp ecx, 100; jne over */
    PUT(f, 0x48, 0x83, 0x26, 0xfe, 0x0f, 0x01, 0x3b); /* and qword [rsi], ~1; invlpg [rbx] */
    run(f);
    assert_int_equal(rig->v->r[X86_RCX], 99);
    assert_int_equal(rig->v->r[X86_RBP], 2);
    assert_int_equal(get_le64(page(rig, 0) + 24), 100);
    *pte(rig, 0) = PA | 7;
}

static void test_dirty_log(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = f->rig;
    uint64_t *bits = calloc(RIG_RAM / 4096 / 64, 8);
    gmem_dirty_enable(rig->gmem, true);
    rig_ok(accel_soft.dirty_enable(rig->vm, true));
    for (unsigned round = 0; round < 4; round++) {
        begin(f);
        PUT(f, 0x48, 0x89, 0x0b); /* mov [rbx], rcx */
        run(f);
        rig_ok(accel_soft.dirty_fetch(rig->vm));
        gmem_dirty_take(rig->gmem, 0, bits);
        uint64_t n = PA / 4096;
        assert_true(bits[n / 64] >> (n % 64) & 1);
    }
    rig_ok(accel_soft.dirty_enable(rig->vm, false));
    free(bits);
}

/* A loop writes to a page, calls into it, writes again: what runs is what was written last. */
static void test_page_becomes_code(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = f->rig;
    static const uint8_t function[] = {0x05, 0, 0, 0, 0, 0xc3}; /* add eax, imm32; ret */
    memcpy(page(rig, 0) + 64, function, sizeof(function));
    *pte(rig, 0) = PA | 7;
    begin(f);
    PUT(f, 0x48, 0x89, 0x8b, 0x00, 0x08, 0x00, 0x00); /* mov [rbx + 2048], rcx */
    PUT(f, 0x89, 0x4b, 0x41);                         /* mov [rbx + 65], ecx */
    PUT(f, 0x48, 0x8d, 0x53, 0x40, 0xff, 0xd2);       /* lea rdx, [rbx + 64]; call rdx */
    run(f);
    assert_int_equal(rig->v->r[X86_RAX], TURNS * (TURNS + 1) / 2);
}

/* Strides over 64 pages, a vector sum beside it: sites give way to the hashed TLB, code is
   translated anew, and no vector register changes on the way. */
static void test_wandering(void **state)
{
    struct fixture *f = *state;
    struct rig *rig = f->rig;
    struct soft_vcpu *v = rig->v;
    uint64_t sum = 0, vector = 0;
    uint32_t at = 0;
    for (unsigned i = 0; i < 64; i++)
        for (unsigned k = 0; k < 4096; k += 8)
            put_le64(page(rig, i) + k, (i * 4096ull + k) * 0x9e3779b97f4a7c15ull);
    memset(v->xsave + XS_XMM, 0, 256);
    for (unsigned i = 0; i < TURNS; i++) {
        uint64_t value = get_le64(rig->ram + PA + at);
        sum += value;
        vector += value;
        at = (uint32_t)(value >> 40) & 0x3fff0;
    }
    begin(f);
    PUT(f, 0x48, 0x8b, 0x04, 0x3b);                   /* mov rax, [rbx + rdi] */
    PUT(f, 0x66, 0x0f, 0xd4, 0x04, 0x3b);             /* paddq xmm0, [rbx + rdi] */
    PUT(f, 0x48, 0x01, 0xc2);                         /* add rdx, rax */
    PUT(f, 0x48, 0xc1, 0xe8, 0x28);                   /* shr rax, 40 */
    PUT(f, 0x25, 0xf0, 0xff, 0x03, 0x00, 0x89, 0xc7); /* and eax, 0x3fff0; mov edi, eax */
    run(f);
    assert_int_equal(v->r[X86_RCX], 0);
    assert_true(v->r[X86_RDX] == sum);
    assert_true(get_le64(v->xsave + XS_XMM) == vector);
}

/* Two pages that have the same slot in each of the hashed TLBs, large pages' too, taken in turns:
   kernel code looks there, until it is seen that the one puts out the other. */
static void test_colliding(void **state)
{
    struct fixture *f = *state;
    struct soft_vcpu *v = f->rig->v;
    enum { FIRST = 0x8000000, APART = 0x8000000, MANY = 50000 };
    begin(f);
    PUT(f, 0xbf, 0x00, 0x00, 0x00, 0x08);             /* mov edi, FIRST */
    PUT(f, 0x48, 0x03, 0x17);                         /* add rdx, [rdi] */
    PUT(f, 0x48, 0x03, 0x97, 0x00, 0x00, 0x00, 0x08); /* add rdx, [rdi + APART] */
    PUT(f, 0x89, 0x4f, 0x40);                         /* mov [rdi + 64], ecx */
    PUT(f, 0x89, 0x8f, 0x40, 0x00, 0x00, 0x08);       /* mov [rdi + APART + 64], ecx */
    put_le64(f->rig->ram + FIRST, 3);
    put_le64(f->rig->ram + FIRST + APART, 4);
    uint64_t before = v->stats.tlb_misses;
    run_turns(f, MANY);
    assert_int_equal(v->r[X86_RDX], 7 * MANY);
    assert_int_equal(get_le32(f->rig->ram + FIRST + APART + 64), 1);
    assert_in_range(v->stats.tlb_misses - before, 0, MANY / 2); /* four a turn, else */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invlpg),    cmocka_unit_test(test_cr3),
        cmocka_unit_test(test_window),    cmocka_unit_test(test_unmapped),
        cmocka_unit_test(test_dirty_log), cmocka_unit_test(test_page_becomes_code),
        cmocka_unit_test(test_wandering), cmocka_unit_test(test_colliding),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
