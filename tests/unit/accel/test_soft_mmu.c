/*
 * Paging of the software engine: translation, rights, accessed and dirty bits, error codes, large
 * pages, flushes, accesses across pages, MMIO, code that changes under the CPU, the dirty log.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <unistd.h>

#include "soft_rig.h"

/* One 4 KiB page table at 0x20000 for the 2 MiB at TEST_VA; physical pages from 0x400000 on. */
#define TABLE 0x20000u
#define TEST_VA 0x40000000ull
#define TEST_PA 0x400000u
#define CODE 0x100000u
#define PF_HANDLER 0x110000u
#define PTE_NX (1ull << 63)

static uint64_t *pte(struct rig *rig, unsigned page)
{
    return (uint64_t *)(rig->ram + TABLE) + page;
}

static void map(struct rig *rig, unsigned page, uint64_t bits)
{
    *pte(rig, page) = (TEST_PA + page * 4096ull) | bits;
}

static int setup(void **state)
{
    struct rig *rig = rig_new();
    /* TEST_VA is the first 2 MiB of the second GiB: its PD is RIG_TABLES + 0x3000. */
    put_le64(rig->ram + RIG_TABLES + 0x3000, TABLE | 7);
    for (unsigned i = 0; i < 16; i++)
        map(rig, i, 7);
    /* #PF: pop the error code into rbx, cr2 into rdx, end. */
    static const uint8_t handler[] = {0x5b, 0x0f, 0x20, 0xd2, 0xb0, 0x0e, RIG_END};
    memcpy(rig->ram + PF_HANDLER, handler, sizeof(handler));
    rig_gate(rig, VEC_PF, PF_HANDLER, 0x8e, 0);
    static const uint8_t gp[] = {0x5b, 0xb0, 0x0d, RIG_END};
    memcpy(rig->ram + PF_HANDLER + 64, gp, sizeof(gp));
    rig_gate(rig, VEC_GP, PF_HANDLER + 64, 0x8e, 0);
    static const uint8_t ss[] = {0x5b, 0xb0, 0x0c, RIG_END};
    memcpy(rig->ram + PF_HANDLER + 96, ss, sizeof(ss));
    rig_gate(rig, VEC_SS, PF_HANDLER + 96, 0x8e, 0);
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    rig_free(*state);
    return 0;
}

/* Runs `code` with rdi = address; the value of AL at the end. */
static int run_code(struct rig *rig, const uint8_t *code, size_t len, uint64_t rdi, bool user)
{
    struct x86_table_register idt = rig->v->idt;
    rig_long_mode(rig, CODE);
    rig->v->idt = idt;
    gmem_load(rig->gmem, CODE, code, len);
    rig->v->r[X86_RDI] = rdi;
    rig->v->r[X86_RAX] = 0x55;
    rig->v->r[X86_RBX] = ~0ull;
    if (user) {
        struct x86_segment cs = soft_unpack(0x2b, 0x00affb000000ffffull);
        struct x86_segment data = soft_unpack(0x23, 0x00cff3000000ffffull);
        rig->v->seg[X86_CS] = cs;
        rig->v->seg[X86_SS] = rig->v->seg[X86_DS] = data;
        rig->v->cpl = 3;
        soft_set_flags(rig->v, 2 | FL_IOPL); /* ports are open */
        soft_mode_changed(rig->v);
    }
    assert_int_equal(rig_run(rig), VM_EXIT_KICKED);
    return rig->exit_value;
}

#define RUN(rig, rdi, user, ...)                                                                   \
    ({                                                                                             \
        static const uint8_t code_[] = {__VA_ARGS__, RIG_END};                                     \
        run_code(rig, code_, sizeof(code_), rdi, user);                                            \
    })
#define LOAD 0x8a, 0x07        /* mov al, [rdi] */
#define STORE 0xc6, 0x07, 0x77 /* mov byte [rdi], 0x77 */

static void expect_fault(struct rig *rig, int exit_value, uint32_t error, uint64_t address)
{
    assert_int_equal(exit_value, VEC_PF);
    assert_int_equal(rig->v->r[X86_RBX], error);
    assert_int_equal(rig->v->r[X86_RDX], address);
}

static void test_translates(void **state)
{
    struct rig *rig = *state;
    rig->ram[TEST_PA + 5] = 0x42;
    assert_int_equal(RUN(rig, TEST_VA + 5, false, LOAD), 0x42);
    map(rig, 1, 7);
    *pte(rig, 2) = (TEST_PA + 0x9000) | 7;
    rig->ram[TEST_PA + 0x9123] = 0x99;
    assert_int_equal(RUN(rig, TEST_VA + 0x2123, false, LOAD), 0x99);
    assert_int_equal(RUN(rig, TEST_VA + 0x2124, false, STORE, LOAD), 0x77);
    assert_int_equal(rig->ram[TEST_PA + 0x9124], 0x77);
}

static void test_rights(void **state)
{
    struct rig *rig = *state;
    uint64_t va = TEST_VA + 0x3010;
    map(rig, 3, 0);
    expect_fault(rig, RUN(rig, va, false, LOAD), 0, va);
    expect_fault(rig, RUN(rig, va, false, STORE), 2, va);
    expect_fault(rig, RUN(rig, va, true, LOAD), 4, va);
    expect_fault(rig, RUN(rig, va, true, STORE), 6, va);
    map(rig, 3, 5); /* user, read-only */
    assert_int_equal(RUN(rig, va, true, LOAD), rig->ram[TEST_PA + 0x3010]);
    expect_fault(rig, RUN(rig, va, true, STORE), 7, va);
    assert_int_equal(RUN(rig, va, false, STORE, LOAD), 0x77); /* CR0.WP clear */
    expect_fault(rig,
                 RUN(rig, va, false, 0x0f, 0x20, 0xc0, 0x0d, 0, 0, 1, 0, 0x0f, 0x22, 0xc0, STORE),
                 3, va); /* WP set */
    map(rig, 3, 3);      /* supervisor */
    assert_int_equal(RUN(rig, va, false, STORE, LOAD), 0x77);
    expect_fault(rig, RUN(rig, va, true, LOAD), 5, va);
    *pte(rig, 3) |= 1ull << 51; /* reserved: beyond the physical width */
    expect_fault(rig, RUN(rig, va, false, LOAD), 9, va);
    map(rig, 3, 7 | PTE_NX);
    rig->ram[TEST_PA + 0x3010] = 0x90;
    expect_fault(rig, RUN(rig, va, false, 0xff, 0xe7), 0x11, va); /* jmp rdi */
    expect_fault(rig, RUN(rig, va, true, 0xff, 0xe7), 0x15, va);
}

static void test_smep(void **state)
{
    struct rig *rig = *state;
    uint64_t va = TEST_VA + 0x4000;
    static const uint8_t there[] = {0xb0, 0x21, RIG_END};
    memcpy(rig->ram + TEST_PA + 0x4000, there, sizeof(there));
    /* User pages hold the identity map too: make the code's pages supervisor ones. */
    put_le64(rig->ram + RIG_TABLES + 0x2000, 0x83);
    assert_int_equal(RUN(rig, va, false, 0xff, 0xe7), 0x21);
    /* mov rax, cr4; bts rax, 20; mov cr4, rax */
    expect_fault(rig,
                 RUN(rig, va, false, 0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xe8, 0x14, 0x0f, 0x22,
                     0xe0, 0xff, 0xe7),
                 0x11, va);
}

static void test_accessed_dirty(void **state)
{
    struct rig *rig = *state;
    uint64_t va = TEST_VA + 0x5000;
    map(rig, 5, 7);
    RUN(rig, va, false, LOAD);
    assert_int_equal(*pte(rig, 5) & 0x60, 0x20);
    assert_int_equal(get_le64(rig->ram + RIG_TABLES + 0x3000) & 0x20, 0x20);
    RUN(rig, va, false, LOAD, STORE);
    assert_int_equal(*pte(rig, 5) & 0x60, 0x60);
    /* A write that faults sets neither bit of the page. */
    map(rig, 5, 5);
    expect_fault(rig, RUN(rig, va, true, STORE), 7, va);
    assert_int_equal(*pte(rig, 5) & 0x60, 0);
}

static void test_noncanonical(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(RUN(rig, 0x800000000000ull, false, LOAD), 0x0d);
    assert_int_equal(rig->v->r[X86_RBX], 0);
    assert_int_equal(RUN(rig, 0x800000000000ull, false, 0xff, 0xe7), 0x0d);
    /* Through rsp (mov rsp, rdi; pop rax) it is #SS; the handler runs on IST 1. */
    rig_gate(rig, VEC_SS, PF_HANDLER + 96, 0x8e, 1);
    assert_int_equal(RUN(rig, 0x800000000000ull, false, 0x48, 0x89, 0xfc, 0x58), 0x0c);
}

static void test_crossing(void **state)
{
    struct rig *rig = *state;
    /* Pages 6 and 7 are swapped physically, so a crossing access must be split. */
    *pte(rig, 6) = (TEST_PA + 0x7000) | 7;
    *pte(rig, 7) = (TEST_PA + 0x6000) | 7;
    uint64_t va = TEST_VA + 0x6ffd;
    /* mov rax, 0x8877665544332211; mov [rdi], rax; xor eax, eax; mov rax, [rdi]; shr rax, 56 */
    assert_int_equal(RUN(rig, va, false, 0x48, 0xb8, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
                         0x48, 0x89, 0x07, 0x31, 0xc0, 0x48, 0x8b, 0x07, 0x48, 0xc1, 0xe8, 0x38),
                     0x88);
    assert_int_equal(rig->ram[TEST_PA + 0x7fff], 0x33);
    assert_int_equal(rig->ram[TEST_PA + 0x6000], 0x44);
    /* When the second page refuses, the first keeps its bytes. */
    memset(rig->ram + TEST_PA + 0x7ff0, 0, 16);
    map(rig, 7, 0);
    expect_fault(rig, RUN(rig, va, false, 0x48, 0x89, 0x07), 2, TEST_VA + 0x7000);
    assert_int_equal(rig->ram[TEST_PA + 0x7ffd], 0);
    /* The same for a read-modify-write and for a locked one. */
    expect_fault(rig, RUN(rig, va, false, 0x48, 0xff, 0x07), 2, TEST_VA + 0x7000);
    expect_fault(rig, RUN(rig, va, false, 0xf0, 0x48, 0xff, 0x07), 2, TEST_VA + 0x7000);
    map(rig, 7, 7);
}

static void test_invlpg(void **state)
{
    struct rig *rig = *state;
    uint64_t va = TEST_VA + 0x8000;
    rig->ram[TEST_PA + 0x8000] = 1;
    rig->ram[TEST_PA + 0xa000] = 2;
    map(rig, 8, 7);
    /* mov al, [rdi]; mov rcx, PTE address; mov qword [rcx], new; invlpg [rdi]; mov al, [rdi] */
    assert_int_equal(RUN(rig, va, false, 0x8a, 0x07, 0x48, 0xc7, 0xc1, 0x40, 0x00, 0x02, 0x00, 0x48,
                         0xc7, 0x01, 0x07, 0xa0, 0x40, 0x00, 0x0f, 0x01, 0x3f, 0x8a, 0x07),
                     2);
}

#define PGE 0x0f, 0x20, 0xe0, 0x0c, 0x80, 0x0f, 0x22, 0xe0    /* mov rax, cr4; or al, 0x80; ... */
#define NO_PGE 0x0f, 0x20, 0xe0, 0x24, 0x7f, 0x0f, 0x22, 0xe0 /* and al, 0x7f */
#define RELOAD_CR3 0x0f, 0x20, 0xda, 0x0f, 0x22, 0xda
#define INVLPG 0x0f, 0x01, 0x3f /* of [rdi] */
/* mov rcx, entry of `page`; mov qword [rcx], page 13 and `bits` (a byte each) */
#define REMAP(page, low, high)                                                                     \
    0x48, 0xc7, 0xc1, (page)*8, 0x00, 0x02, 0x00, 0x48, 0xc7, 0x01, low, 0xd0 | (high), 0x40, 0

static void test_global(void **state)
{
    struct rig *rig = *state;
    uint64_t va = TEST_VA + 0xc000;
    rig->ram[TEST_PA + 0xc000] = 1;
    rig->ram[TEST_PA + 0xd000] = 2;
    map(rig, 12, 0x107);
    assert_int_equal(RUN(rig, va, false, PGE, LOAD, REMAP(12, 7, 1), RELOAD_CR3, LOAD), 1);
    map(rig, 12, 0x107);
    assert_int_equal(RUN(rig, va, false, PGE, LOAD, REMAP(12, 7, 1), INVLPG, LOAD), 2);
    map(rig, 12, 0x107);
    assert_int_equal(RUN(rig, va, false, PGE, LOAD, REMAP(12, 7, 1), NO_PGE, LOAD), 2);
    map(rig, 12, 0x107); /* PGE is clear: the bit means nothing */
    assert_int_equal(RUN(rig, va, false, LOAD, REMAP(12, 7, 1), RELOAD_CR3, LOAD), 2);
    map(rig, 12, 7);
    assert_int_equal(RUN(rig, va, false, PGE, LOAD, REMAP(12, 7, 0), RELOAD_CR3, LOAD), 2);
}

/* Jumps that were taken before follow a mapping that changes, for small pages and large ones. */
static void test_code_remapped(void **state)
{
    struct rig *rig = *state;
    static const uint8_t one[] = {0xb0, 1, 0xc3}, two[] = {0xb0, 2, 0xc3}; /* mov al, n; ret */
    memcpy(rig->ram + TEST_PA + 0xe000, one, sizeof(one));
    memcpy(rig->ram + TEST_PA + 0xd000, two, sizeof(two));
    uint64_t va = TEST_VA + 0xe000;
    map(rig, 14, 7);
    assert_int_equal(RUN(rig, va, false, 0xff, 0xd7, REMAP(14, 7, 0), INVLPG, 0xff, 0xd7), 2);
    map(rig, 14, 7);
    assert_int_equal(RUN(rig, va, false, 0xff, 0xd7, REMAP(14, 7, 0), RELOAD_CR3, 0xff, 0xd7), 2);
    map(rig, 14, 0x107);
    assert_int_equal(RUN(rig, va, false, PGE, 0xff, 0xd7, REMAP(14, 7, 1), INVLPG, 0xff, 0xd7), 2);
    /* mov qword [PD entry of 2 MiB at 0xe00000], 0x1000087; invlpg; call again */
    memcpy(rig->ram + 0xe00000, one, sizeof(one));
    memcpy(rig->ram + 0x1000000, two, sizeof(two));
    assert_int_equal(RUN(rig, 0xe00000, false, 0xff, 0xd7, 0x48, 0xc7, 0xc1, 0x38, 0x30, 0, 0, 0x48,
                         0xc7, 0x01, 0x87, 0, 0, 1, INVLPG, 0xff, 0xd7),
                     2);
}

/* One translation serves all privileges: what a kernel may do faults in a program. */
static void test_privilege_of_hot_code(void **state)
{
    struct rig *rig = *state;
    /* mov ecx, 100; L: mov rax, cr0; swapgs; cli; sti; dec ecx; jnz L */
    static const uint8_t code[] = {0xb9, 100,  0,    0,    0,    0x0f, 0x20, 0xc0, 0x0f,
                                   0x01, 0xf8, 0xfa, 0xfb, 0xff, 0xc9, 0x75, 0xf4, RIG_END};
    run_code(rig, code, sizeof(code), 0, false);
    assert_int_equal(run_code(rig, code, 0, 0, true), VEC_GP);
    assert_int_equal(rig->v->r[X86_RBX], 0);
    /* RDTSC is for all. */
    static const uint8_t clock[] = {0xb9, 100,  0,    0,    0,    0x0f,
                                    0x31, 0xff, 0xc9, 0x75, 0xfa, RIG_END};
    run_code(rig, clock, sizeof(clock), 0, false);
    assert_int_not_equal(run_code(rig, clock, 0, 0, true), VEC_GP);
}

static void test_mmio(void **state)
{
    struct rig *rig = *state;
    *pte(rig, 9) = 0xd0000000 | 7;
    rig->mmio_reads = rig->mmio_writes = 0;
    assert_int_equal(RUN(rig, TEST_VA + 0x9004, false, LOAD), 0x88);
    assert_int_equal(rig->mmio_last, 0xd0000004);
    RUN(rig, TEST_VA + 0x9008, false, STORE);
    assert_int_equal(rig->mmio_last, 0xd0000008);
    assert_int_equal(rig->mmio_value, 0x77);
    assert_int_equal(rig->mmio_reads, 1);
    assert_int_equal(rig->mmio_writes, 1);
    /* add byte [rdi], 1: one read, one write */
    RUN(rig, TEST_VA + 0x9008, false, 0x80, 0x07, 0x01);
    assert_int_equal(rig->mmio_reads, 2);
    assert_int_equal(rig->mmio_writes, 2);
    assert_int_equal(rig->mmio_value, 0x89);
    /* lock add byte [rdi], 1, and xchg: as well, and the lock is free again */
    RUN(rig, TEST_VA + 0x9008, false, 0xf0, 0x80, 0x07, 0x01, 0x86, 0x07);
    assert_int_equal(rig->mmio_reads, 4);
    assert_int_equal(rig->mmio_writes, 4);
    assert_int_equal(rig->mmio_value, 0x55);
    /* rep stosb of 3 bytes */
    RUN(rig, TEST_VA + 0x9010, false, 0xb9, 3, 0, 0, 0, 0xf3, 0xaa);
    assert_int_equal(rig->mmio_writes, 7);
    assert_int_equal(rig->mmio_last, 0xd0000012);
}

static void test_self_modifying(void **state)
{
    struct rig *rig = *state;
    /* mov byte [rip+1], 7; mov al, 0 -> the immediate of the next instruction becomes 7 */
    assert_int_equal(RUN(rig, 0, false, 0xc6, 0x05, 0x01, 0, 0, 0, 7, 0xb0, 0), 7);
    /* A loop whose body changes on every turn: al counts 1 + 2 + 3.
       xor eax, eax; mov ecx, 3; L: add al, 1; inc byte [rip-7+..]; dec ecx; jnz L */
    assert_int_equal(RUN(rig, 0, false, 0x31, 0xc0, 0xb9, 3, 0, 0, 0, 0x04, 1, 0xfe, 0x05, 0xf9,
                         0xff, 0xff, 0xff, 0xff, 0xc9, 0x75, 0xf4),
                     6);
}

static void test_device_writes_code(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(RUN(rig, 0, false, 0xb0, 1), 1);
    uint8_t two = 2;
    rig->v->rip = CODE;
    assert_int_equal(gmem_write(rig->gmem, CODE + 1, &two, 1), 0);
    assert_int_equal(rig_run(rig), VM_EXIT_KICKED);
    assert_int_equal(rig->exit_value, 2);
}

static void test_dirty_log(void **state)
{
    struct rig *rig = *state;
    uint64_t *bits = calloc(RIG_RAM / 4096 / 64, 8);
    map(rig, 10, 7);
    gmem_dirty_enable(rig->gmem, true);
    rig_ok(accel_soft.dirty_enable(rig->vm, true));
    for (unsigned round = 0; round < 3; round++) {
        RUN(rig, TEST_VA + 0xa000, false, STORE);
        rig_ok(accel_soft.dirty_fetch(rig->vm));
        gmem_dirty_take(rig->gmem, 0, bits);
        uint64_t page = (TEST_PA + 0xa000) / 4096;
        assert_true(bits[page / 64] >> (page % 64) & 1);
        page = (TEST_PA + 0xb000) / 4096;
        assert_false(bits[page / 64] >> (page % 64) & 1);
    }
    rig_ok(accel_soft.dirty_enable(rig->vm, false));
    free(bits);
}

static void test_doorbell(void **state)
{
    struct rig *rig = *state;
    int pipe_fd[2];
    assert_int_equal(pipe(pipe_fd), 0);
    *pte(rig, 11) = 0xd0000000 | 7;
    rig->mmio_writes = 0;
    rig_ok(accel_soft.doorbell_add(rig->vm, 0xd0000020, 1, true, 0x77, pipe_fd[1]));
    RUN(rig, TEST_VA + 0xb020, false, STORE);
    assert_int_equal(rig->mmio_writes, 0);
    uint64_t tick = 0;
    assert_int_equal(read(pipe_fd[0], &tick, 8), 8);
    assert_int_equal(tick, 1);
    RUN(rig, TEST_VA + 0xb021, false, STORE);
    assert_int_equal(rig->mmio_writes, 1);
    accel_soft.doorbell_remove(rig->vm, 0xd0000020, 1, true, 0x77, pipe_fd[1]);
    RUN(rig, TEST_VA + 0xb020, false, STORE);
    assert_int_equal(rig->mmio_writes, 2);
    close(pipe_fd[0]);
    close(pipe_fd[1]);
}

#define SWITCHED 0x30000000ull /* behind the rig's RAM */

static void switching_write(void *opaque, uint64_t gpa, unsigned size, uint64_t value)
{
    struct rig *rig = opaque;
    rig->mmio_writes++;
    if (gmem_switch(rig->gmem, SWITCHED, (enum gmem_view)value))
        rig_ok(accel_soft.ram_changed(rig->vm));
}

/* A store that switches memory, in the middle of a block: the next instruction sees the change. */
static void test_switched(void **state)
{
    struct rig *rig = *state;
    struct accel_io switching = rig_io;
    static const uint8_t code[] = {0x8a,   0x1e,       /* mov bl, [rsi]: ROM */
                                   0xc6,   0x07, 0x00, /* mov byte [rdi], GMEM_VIEW_RAM */
                                   0x8a,   0x3e,       /* mov bh, [rsi]: RAM */
                                   0xc6,   0x06, 0x33, /* mov byte [rsi], 0x33 */
                                   0x8a,   0x0e,       /* mov cl, [rsi]: what was written */
                                   0xc6,   0x07, 0x03, /* mov byte [rdi], GMEM_VIEW_NONE */
                                   0x8a,   0x2e,       /* mov ch, [rsi]: the device's */
                                   0xc6,   0x07, 0x02, /* mov byte [rdi], GMEM_VIEW_ROM */
                                   0x8a,   0x16,       /* mov dl, [rsi]: ROM again */
                                   RIG_END};
    switching.mmio_write = switching_write;
    rig_ok(gmem_add_switched(rig->gmem, "switched", SWITCHED, 0x4000));
    assert_int_equal(gmem_load(rig->gmem, SWITCHED, "\x11", 1), 0);
    rig_ok(accel_soft.ram_changed(rig->vm));
    rig->v->vm->io = &switching;
    memcpy(rig->ram + 0x100000, code, sizeof(code));
    rig_long_mode(rig, 0x100000);
    rig->v->r[X86_RSI] = SWITCHED;
    rig->v->r[X86_RDI] = 0x50000000;
    rig->v->r[X86_RBX] = rig->v->r[X86_RCX] = rig->v->r[X86_RDX] = 0;
    rig_run(rig);
    assert_int_equal(rig->mmio_writes, 3);
    assert_int_equal(rig->v->r[X86_RBX] & 0xffff, 0x0011);
    assert_int_equal(rig->v->r[X86_RCX] & 0xffff, 0x8833);
    assert_int_equal(rig->v->r[X86_RDX] & 0xff, 0x11);
    /* Code too: what was decoded of one side does not run on the other. */
    uint8_t *rom = gmem_find(rig->gmem, SWITCHED)->rom, *ram = gmem_find(rig->gmem, SWITCHED)->ram;
    static const uint8_t in_rom[] = {0xc6, 0x07, 0x00, 0xb0, 0x01, RIG_END};
    static const uint8_t in_ram[] = {0xc6, 0x07, 0x00, 0xb0, 0x02, RIG_END};
    memcpy(rom, in_rom, sizeof(in_rom));
    memcpy(ram, in_ram, sizeof(in_ram));
    for (unsigned round = 0; round < 2; round++) {
        rig_long_mode(rig, SWITCHED);
        rig->v->r[X86_RDI] = 0x50000000;
        rig_run(rig);
        assert_int_equal(rig->v->r[X86_RAX] & 0xff, 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_translates, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rights, setup, teardown),
        cmocka_unit_test_setup_teardown(test_smep, setup, teardown),
        cmocka_unit_test_setup_teardown(test_accessed_dirty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_noncanonical, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crossing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_invlpg, setup, teardown),
        cmocka_unit_test_setup_teardown(test_global, setup, teardown),
        cmocka_unit_test_setup_teardown(test_code_remapped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_privilege_of_hot_code, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mmio, setup, teardown),
        cmocka_unit_test_setup_teardown(test_self_modifying, setup, teardown),
        cmocka_unit_test_setup_teardown(test_device_writes_code, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dirty_log, setup, teardown),
        cmocka_unit_test_setup_teardown(test_doorbell, setup, teardown),
        cmocka_unit_test_setup_teardown(test_switched, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
