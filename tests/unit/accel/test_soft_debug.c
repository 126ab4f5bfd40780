/*
 * Debug registers and their neighbours in the software engine: data breakpoints, single steps over
 * STI, HLT, INT and SYSRET, MOV SS, general detect; interrupt windows of one instruction; two NMIs
 * at once; hypercalls.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/apic/lapic.h"
#include "soft_rig.h"

#define CODE 0x100000u
#define HANDLERS 0x110000u
#define DATA 0x300000u

static int setup(void **state)
{
    *state = rig_new();
    return 0;
}

static int teardown(void **state)
{
    rig_free(*state);
    return 0;
}

static void put_handler(struct rig *rig, unsigned vector, const uint8_t *code, size_t len)
{
    memcpy(rig->ram + HANDLERS + vector * 64, code, len);
    rig_gate(rig, vector, HANDLERS + vector * 64, 0x8e, 0);
}

#define HANDLER(rig, vector, ...)                                                                  \
    do {                                                                                           \
        static const uint8_t handler_[] = {__VA_ARGS__};                                           \
        put_handler(rig, vector, handler_, sizeof(handler_));                                      \
    } while (0)

static void put_code(struct rig *rig, const uint8_t *code, size_t len)
{
    struct x86_table_register idt = rig->v->idt;
    rig_long_mode(rig, CODE);
    rig->v->idt = idt;
    rig->v->dr[7] = 0x400;
    soft_debug_changed(rig->v);
    assert_int_equal(gmem_load(rig->gmem, CODE, code, len), 0);
}

#define CODE_AT(rig, ...)                                                                          \
    do {                                                                                           \
        static const uint8_t code_[] = {__VA_ARGS__};                                              \
        put_code(rig, code_, sizeof(code_));                                                       \
    } while (0)

static int finish(struct rig *rig)
{
    assert_int_equal(rig_run(rig), VM_EXIT_KICKED);
    return rig->exit_value;
}

static uint64_t stack_word(struct rig *rig, unsigned i)
{
    return get_le64(rig->ram + rig->v->r[X86_RSP] + 8 * i);
}

/* Breakpoint `i` at `address`; `how` is its four bits of DR7. */
static void breakpoint(struct rig *rig, unsigned i, uint64_t address, unsigned how)
{
    rig->v->dr[i] = address;
    rig->v->dr[7] |= 0x400u | 2u << (2 * i) | how << (16 + 4 * i);
    soft_debug_changed(rig->v);
}

#define WRITE_8 0x9u
#define ACCESS_8 0xbu
#define LOAD 0x48, 0x8b, 0x0c, 0x25, 0, 0, 0x30, 0  /* mov rcx, [0x300000] */
#define STORE 0x48, 0x89, 0x04, 0x25, 0, 0, 0x30, 0 /* mov [0x300000], rax */
#define DR6_TO_RBX 0x0f, 0x21, 0xf3

static void test_watchpoint(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_DB, DR6_TO_RBX, RIG_END);
    CODE_AT(rig, LOAD, STORE, 0x90, RIG_END);
    rig->v->r[X86_RAX] = 0x1234;
    breakpoint(rig, 0, DATA, WRITE_8);
    assert_int_equal(finish(rig), 0x34);
    assert_int_equal(stack_word(rig, 0), CODE + 16); /* a trap: the store has happened */
    assert_int_equal(rig->v->r[X86_RBX] & 0x400f, 1);
    assert_int_equal(get_le64(rig->ram + DATA), 0x1234);

    CODE_AT(rig, LOAD, STORE, 0x90, RIG_END);
    breakpoint(rig, 2, DATA, ACCESS_8);
    finish(rig);
    assert_int_equal(stack_word(rig, 0), CODE + 8);
    assert_int_equal(rig->v->r[X86_RBX] & 0x400f, 4);

    /* A word whose second byte is the watched one, from the page before. */
    CODE_AT(rig, 0x66, 0x89, 0x04, 0x25, 0xff, 0xff, 0x2f, 0, 0x90, RIG_END);
    breakpoint(rig, 3, DATA, WRITE_8);
    finish(rig);
    assert_int_equal(stack_word(rig, 0), CODE + 8);
    assert_int_equal(rig->v->r[X86_RBX] & 0x400f, 8);

    /* rep movsq and an atomic: no short cut goes around the breakpoint. */
    CODE_AT(rig, 0xf3, 0x48, 0xa5, 0x90, RIG_END);
    rig->v->r[X86_RSI] = DATA + 0x10000;
    rig->v->r[X86_RDI] = DATA - 0x100;
    rig->v->r[X86_RCX] = 0x40;
    breakpoint(rig, 0, DATA, WRITE_8);
    finish(rig);
    assert_int_equal(rig->v->r[X86_RBX] & 0x400f, 1);
    CODE_AT(rig, 0xf0, 0x48, 0xff, 0x04, 0x25, 0, 0, 0x30, 0, 0x90, RIG_END); /* lock inc */
    breakpoint(rig, 1, DATA, WRITE_8);
    finish(rig);
    assert_int_equal(rig->v->r[X86_RBX] & 0x400f, 2);
    assert_int_equal(stack_word(rig, 0), CODE + 9);

    /* Off again: no trap, and the page is an ordinary one. */
    CODE_AT(rig, LOAD, STORE, 0xb0, 7, RIG_END);
    assert_false(rig->v->watching);
    assert_int_equal(finish(rig), 7);
}

#define COUNT_IN_BL 0xfe, 0xc3, 0x48, 0xcf       /* inc bl; iretq */
#define STORE_SS 0x8e, 0x14, 0x25, 0, 0, 0x30, 0 /* mov ss, [0x300000] */
#define AL_IS_BL 0x88, 0xd8

static void test_mov_ss(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_DB, DR6_TO_RBX, RIG_END);
    /* mov ss, ecx; nop; nop: a breakpoint on the first nop does not exist, one on the second does.
     */
    CODE_AT(rig, 0x8e, 0xd1, 0x90, 0x90, 0x90, RIG_END);
    rig->v->r[X86_RCX] = 0x10;
    breakpoint(rig, 0, CODE + 2, 0);
    breakpoint(rig, 1, CODE + 3, 0);
    finish(rig);
    assert_int_equal(stack_word(rig, 0), CODE + 3);
    assert_int_equal(rig->v->r[X86_RBX] & 0xf, 2);

    /* What the load itself hit waits for the next instruction. */
    put_le64(rig->ram + DATA, 0x10);
    CODE_AT(rig, STORE_SS, 0x90, 0x90, RIG_END);
    breakpoint(rig, 0, DATA, ACCESS_8);
    finish(rig);
    assert_int_equal(stack_word(rig, 0), CODE + 8);
    assert_int_equal(rig->v->r[X86_RBX] & 0xf, 1);

    HANDLER(rig, VEC_DB, COUNT_IN_BL);
    CODE_AT(rig, STORE_SS, 0xf1, AL_IS_BL, RIG_END); /* int1: one exception for both */
    rig->v->r[X86_RBX] = 0;
    breakpoint(rig, 0, DATA, ACCESS_8);
    assert_int_equal(finish(rig), 1);
    CODE_AT(rig, STORE_SS, 0xcd, 1, AL_IS_BL, RIG_END); /* int 1 is another matter */
    rig->v->r[X86_RBX] = 0;
    rig->ram[RIG_IDT + 16 + 5] = 0xee;
    breakpoint(rig, 0, DATA, ACCESS_8);
    assert_int_equal(finish(rig), 2);
}

#define SET_TF 0x31, 0xdb, 0x68, 0x02, 0x01, 0, 0, 0x9d /* xor ebx, ebx; push 0x102; popfq */
#define CLEAR_TF 0x6a, 0x02, 0x9d                       /* push 2; popfq: two steps */

static void test_single_steps(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_DB, COUNT_IN_BL);
    HANDLER(rig, 0x40, 0x90, 0x48, 0xcf);
    CODE_AT(rig, SET_TF, 0xfb, 0x90, CLEAR_TF, AL_IS_BL, RIG_END);
    assert_int_equal(finish(rig), 4); /* STI holds interrupts, not #DB */
    CODE_AT(rig, SET_TF, 0x8e, 0xd1, 0x90, CLEAR_TF, AL_IS_BL, RIG_END);
    rig->v->r[X86_RCX] = 0x10;
    assert_int_equal(finish(rig), 3); /* MOV SS does */
    CODE_AT(rig, SET_TF, 0xf4, CLEAR_TF, AL_IS_BL, RIG_END);
    assert_int_equal(finish(rig), 3); /* HLT ends with its trap */
    CODE_AT(rig, SET_TF, 0xcd, 0x40, CLEAR_TF, AL_IS_BL, RIG_END);
    assert_int_equal(finish(rig), 2); /* INT goes to its handler without TF */
    CODE_AT(rig, SET_TF, 0xf1, CLEAR_TF, AL_IS_BL, RIG_END);
    assert_int_equal(finish(rig), 3); /* INT1 is its own #DB */
    assert_int_equal(rig->v->dr[6] & 0x4000, 0x4000);
    static const uint8_t strings[] = {0xa4, 0xaa, 0xac, 0xa6, 0xae}; /* movs stos lods cmps scas */
    for (unsigned i = 0; i < sizeof(strings); i++) {
        CODE_AT(rig, SET_TF, 0xf3, 0x90, CLEAR_TF, AL_IS_BL, RIG_END);
        rig->ram[CODE + sizeof((uint8_t[]){SET_TF}) + 1] = strings[i];
        memset(rig->ram + DATA, 0, 16);
        rig->v->r[X86_RAX] = 0;
        rig->v->r[X86_RSI] = rig->v->r[X86_RDI] = DATA;
        rig->v->r[X86_RCX] = 4;
        assert_int_equal(finish(rig), 6); /* a repetition traps behind each element */
    }
}

static void test_sysret_step(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_DB, DR6_TO_RBX, RIG_END);
    CODE_AT(rig, 0x48, 0x0f, 0x07);
    rig->v->msr.star = 0x08ull << 32 | 0x1bull << 48;
    rig->v->r[X86_RCX] = 0x120000;
    rig->v->r[X86_R11] = 0x102;
    finish(rig);
    assert_int_equal(stack_word(rig, 0), 0x120000);
    assert_int_equal(rig->v->r[X86_RBX] & 0x400f, 0x4000);
}

static void test_general_detect(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_DB, 0x0f, 0x21, 0xfa /* mov rdx, dr7 */, DR6_TO_RBX, RIG_END);
    CODE_AT(rig, 0x0f, 0x23, 0xc0, RIG_END); /* mov dr0, rax */
    rig->v->dr[7] = 0x2400;
    finish(rig);
    assert_int_equal(stack_word(rig, 0), CODE);
    assert_int_equal(rig->v->r[X86_RDX], 0x400);
    assert_int_equal(rig->v->r[X86_RBX] & 0x2000, 0x2000);
}

/* sti; nop; cli: behind the nop both interrupts come, one after the other, and never after cli. */
static void test_window(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, 0x40, 0x04, 0x01, 0xc7, 0x07, 0, 0, 0, 0, 0x48, 0xcf); /* add al; EOI; iretq */
    HANDLER(rig, 0x51, 0x04, 0x10, 0xc7, 0x07, 0, 0, 0, 0, 0x48, 0xcf);
    CODE_AT(rig, 0xb0, 0, 0xfb, 0x90, 0xfa, 0xeb, 0x00, RIG_END);
    rig->v->r[X86_RDI] = 0xfee000b0;
    lapic_write(rig->v->lapic, LAPIC_SVR, 0x1ff);
    soft_msi(rig->v->vm, 0xfee00000, 0x40);
    soft_msi(rig->v->vm, 0xfee00000, 0x51);
    assert_int_equal(finish(rig), 0x11);
    /* sti; cli opens no window at all. */
    CODE_AT(rig, 0xb0, 0, 0xfb, 0xfa, 0xeb, 0x00, RIG_END);
    lapic_write(rig->v->lapic, LAPIC_SVR, 0x1ff);
    soft_msi(rig->v->vm, 0xfee00000, 0x40);
    assert_int_equal(finish(rig), 0);
}

static void test_two_nmis(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_NMI, COUNT_IN_BL);
    CODE_AT(rig, 0x90, 0xeb, 0x00, 0x90, 0xeb, 0x00, AL_IS_BL, RIG_END);
    rig->v->r[X86_RBX] = 0;
    for (unsigned i = 0; i < 4; i++)
        accel_soft.nmi(rig->vcpu);
    assert_int_equal(finish(rig), 2); /* one begins, one waits, more are lost */
}

static void test_hypercalls(void **state)
{
    struct rig *rig = *state;
    static const uint8_t calls[2] = {0xc1, 0xd9};
    for (unsigned i = 0; i < 2; i++) {
        const uint8_t code[] = {0x0f, 0x01, calls[i], RIG_END};
        put_code(rig, code, sizeof(code));
        rig->v->r[X86_RAX] = 99;
        finish(rig);
        assert_int_equal((int64_t)rig->v->r[X86_RAX], -1000);
        /* From ring 3, whatever the number. */
        put_code(rig, code, sizeof(code));
        rig->v->seg[X86_CS] = soft_unpack(0x2b, 0x00affb000000ffffull);
        rig->v->seg[X86_SS] = soft_unpack(0x23, 0x00cff3000000ffffull);
        rig->v->rflags |= FL_IOPL;
        rig->v->cpl = 3;
        soft_mode_changed(rig->v);
        finish(rig);
        assert_int_equal((int64_t)rig->v->r[X86_RAX], -1);
    }
    /* Interrupt 0x40 to CPUs 0 and 1, of which one exists. */
    CODE_AT(rig, 0x0f, 0x01, 0xc1, RIG_END);
    lapic_write(rig->v->lapic, LAPIC_SVR, 0x1ff);
    rig->v->r[X86_RAX] = 10;
    rig->v->r[X86_RBX] = 3;
    rig->v->r[X86_RCX] = rig->v->r[X86_RDX] = 0;
    rig->v->r[X86_RSI] = 0x40;
    finish(rig);
    assert_int_equal(rig->v->r[X86_RAX], 1);
    assert_int_equal(lapic_pending(rig->v->lapic), 0x40);
    /* First ID far outside; a destination in the ICR. */
    CODE_AT(rig, 0x0f, 0x01, 0xc1, RIG_END);
    rig->v->r[X86_RAX] = 10;
    rig->v->r[X86_RDX] = 0xffffffff;
    rig->v->r[X86_RBX] = rig->v->r[X86_RCX] = ~0ull;
    finish(rig);
    assert_int_equal(rig->v->r[X86_RAX], 0);
    CODE_AT(rig, 0x0f, 0x01, 0xc1, RIG_END);
    rig->v->r[X86_RAX] = 10;
    rig->v->r[X86_RSI] = 0x80040;
    finish(rig);
    assert_int_equal((int64_t)rig->v->r[X86_RAX], -22);
}

/* SYSCALL from compatibility mode goes to CSTAR on AMD's CPUs, and is no instruction on Intel's. */
static void test_syscall_compat(void **state)
{
    struct rig *rig = *state;
    static const uint8_t target[] = {0xb0, 7, RIG_END};
    memcpy(rig->ram + 0x120000, target, sizeof(target));
    HANDLER(rig, VEC_UD, 0xb0, 6, RIG_END);
    for (unsigned amd = 0; amd < 2; amd++) {
        CODE_AT(rig, 0x0f, 0x05);
        rig->v->seg[X86_CS] = soft_unpack(0x1b, 0x00cffb000000ffffull);
        rig->v->seg[X86_SS] = soft_unpack(0x23, 0x00cff3000000ffffull);
        rig->v->cpl = 3;
        rig->v->amd = amd;
        rig->v->msr.star = 0x08ull << 32;
        rig->v->msr.cstar = 0x120000;
        rig->v->msr.lstar = 0x130000;
        soft_mode_changed(rig->v);
        assert_int_equal(finish(rig), amd ? 7 : 6);
        assert_int_equal(rig->v->cpl, 0);
        assert_int_equal(rig->v->mode, INSN_64);
    }
    assert_int_equal(rig->v->r[X86_RCX], CODE + 2);
}

/* A write to a port may end or suspend the machine: nothing behind it runs. */
static void test_out_is_last(void **state)
{
    struct rig *rig = *state;
    CODE_AT(rig, 0x31, 0xdb, 0xe6, 0xf4, 0xff, 0xc3, 0xeb, 0xfe); /* out; inc ebx */
    finish(rig);
    assert_int_equal(rig->v->r[X86_RBX], 0);
    assert_int_equal(rig->v->rip, CODE + 4);
}

/* IRET to ring 3 takes a ring 0 segment's selector away, not its base. */
static void test_nullified_segment(void **state)
{
    struct rig *rig = *state;
    static const uint8_t user[] = {RIG_END};
    static const uint64_t frame[] = {0x120000, 0x2b, 0x3202, 0x60000, 0x23};
    memcpy(rig->ram + 0x120000, user, sizeof(user));
    memcpy(rig->ram + 0x70000, frame, sizeof(frame));
    CODE_AT(rig, 0x48, 0xcf);
    rig->v->r[X86_RSP] = 0x70000;
    soft_seg_base(rig->v, X86_GS, 0x400000);
    finish(rig);
    assert_int_equal(rig->v->cpl, 3);
    assert_int_equal(rig->v->seg[X86_GS].selector, 0);
    assert_int_equal(rig->v->seg[X86_GS].base, 0x400000);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_watchpoint),     TEST(test_mov_ss),      TEST(test_single_steps),
        TEST(test_sysret_step),    TEST(test_window),      TEST(test_general_detect),
        TEST(test_two_nmis),       TEST(test_hypercalls),  TEST(test_nullified_segment),
        TEST(test_syscall_compat), TEST(test_out_is_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
