/*
 * Exceptions, interrupts and privilege of the software engine: what is pushed, stacks from the TSS,
 * double and triple faults, INT and IRET, SYSCALL and SYSRET, STI's shadow, NMI, single steps, real
 * and protected 16- and 32-bit modes, strings and wide atomics where they fault.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <unistd.h>

#include "accel/soft/apic/lapic.h"
#include "soft_rig.h"

#define CODE 0x100000u
#define HANDLERS 0x110000u /* 64 bytes each */

static uint64_t handler_at(unsigned vector)
{
    return HANDLERS + vector * 64;
}

static void handler(struct rig *rig, unsigned vector, const uint8_t *code, size_t len)
{
    memcpy(rig->ram + handler_at(vector), code, len);
    rig_gate(rig, vector, handler_at(vector), 0x8e, 0);
}

#define HANDLER(rig, vector, ...)                                                                  \
    do {                                                                                           \
        static const uint8_t handler_[] = {__VA_ARGS__};                                           \
        handler(rig, vector, handler_, sizeof(handler_));                                          \
    } while (0)

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

static void load(struct rig *rig, const uint8_t *code, size_t len, bool user)
{
    struct x86_table_register idt = rig->v->idt;
    rig_long_mode(rig, CODE);
    rig->v->idt = idt;
    assert_int_equal(gmem_load(rig->gmem, CODE, code, len), 0);
    if (user) {
        rig->v->seg[X86_CS] = soft_unpack(0x2b, 0x00affb000000ffffull);
        rig->v->seg[X86_SS] = soft_unpack(0x23, 0x00cff3000000ffffull);
        rig->v->cpl = 3;
        soft_mode_changed(rig->v);
    }
}

#define CODE_AT(rig, user, ...)                                                                    \
    do {                                                                                           \
        static const uint8_t code_[] = {__VA_ARGS__};                                              \
        load(rig, code_, sizeof(code_), user);                                                     \
    } while (0)

static int finish(struct rig *rig)
{
    enum vm_exit_reason reason = rig_run(rig);
    return reason == VM_EXIT_KICKED ? rig->exit_value : -(int)reason;
}

static uint64_t stack_word(struct rig *rig, unsigned i)
{
    return get_le64(rig->ram + rig->v->r[X86_RSP] + 8 * i);
}

/* ud2 after a nop: the frame of a fault without an error code, same privilege. */
static void test_fault_frame(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_UD, 0xb0, 6, RIG_END);
    CODE_AT(rig, false, 0x90, 0x0f, 0x0b);
    rig->v->r[X86_RSP] = 0x70009; /* misaligned on purpose */
    assert_int_equal(finish(rig), 6);
    assert_int_equal(rig->v->r[X86_RSP], 0x70000 - 40);
    assert_int_equal(stack_word(rig, 0), CODE + 1);
    assert_int_equal(stack_word(rig, 1), 8);
    assert_int_equal(stack_word(rig, 2) & 0xff, 2);
    assert_int_equal(stack_word(rig, 3), 0x70009);
    assert_int_equal(stack_word(rig, 4), 0x10);
}

static void test_divide(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_DE, 0xb0, 0x20, RIG_END);
    CODE_AT(rig, false, 0x31, 0xc9, 0x31, 0xd2, 0xb8, 7, 0, 0, 0, 0xf7, 0xf1); /* div ecx */
    assert_int_equal(finish(rig), 0x20);
    assert_int_equal(stack_word(rig, 0), CODE + 9);
    /* idiv: the most negative number by -1 */
    CODE_AT(rig, false, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x48, 0x99, 0x48, 0x83, 0xc9, 0xff,
            0x48, 0xf7, 0xf9);
    assert_int_equal(finish(rig), 0x20);
}

static void test_privilege(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_GP, 0x5b, 0xb0, 0x0d, RIG_END); /* error code to rbx */
    CODE_AT(rig, true, 0xf4);                        /* hlt in ring 3 */
    rig->v->r[X86_RSP] = 0x60000;
    assert_int_equal(finish(rig), 0x0d);
    assert_int_equal(rig->v->r[X86_RBX], 0);
    /* On RSP0, with the old stack in the frame. */
    assert_int_equal(rig->v->r[X86_RSP], RIG_STACK - 40);
    assert_int_equal(stack_word(rig, 1), 0x2b);
    assert_int_equal(stack_word(rig, 3), 0x60000);
    assert_int_equal(stack_word(rig, 4), 0x23);
    assert_int_equal(rig->v->cpl, 0);
    assert_int_equal(rig->v->seg[X86_SS].selector, 0);
    /* Ports are closed by the TSS without a bitmap, CLI by IOPL, a gate of DPL 0 by CPL. */
    CODE_AT(rig, true, 0xee);
    assert_int_equal(finish(rig), 0x0d);
    CODE_AT(rig, true, 0xfa);
    assert_int_equal(finish(rig), 0x0d);
    CODE_AT(rig, true, 0xcd, 0x80);
    assert_int_equal(finish(rig), 0x0d);
    assert_int_equal(rig->v->r[X86_RBX], 0x80 * 8 + 2);
}

static void test_int_iret(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, 0x80, 0xb0, 0x31, 0x48, 0xcf); /* mov al, 0x31; iretq */
    rig->ram[RIG_IDT + 0x80 * 16 + 5] = 0xee;   /* DPL 3 */
    HANDLER(rig, 0x81, RIG_END);
    rig->ram[RIG_IDT + 0x81 * 16 + 5] = 0xee;
    CODE_AT(rig, true, 0xcd, 0x80, 0x04, 1, 0xcd, 0x81); /* int 0x80; add al, 1; int 0x81 */
    rig->v->r[X86_RSP] = 0x61238;
    assert_int_equal(finish(rig), 0x32);
    assert_int_equal(stack_word(rig, 3), 0x61238);
    assert_int_equal(stack_word(rig, 0), CODE + 6);
}

static void test_ist(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_UD, RIG_END);
    rig_gate(rig, VEC_UD, handler_at(VEC_UD), 0x8e, 1);
    CODE_AT(rig, false, 0x0f, 0x0b);
    finish(rig);
    assert_int_equal(rig->v->r[X86_RSP], RIG_STACK + 0x8000 - 40);
}

static void test_double_fault(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_DF, 0x5b, 0xb0, 8, RIG_END);
    /* #GP whose gate is not present: #NP during #GP is #DF, error code 0. */
    rig_gate(rig, VEC_GP, handler_at(VEC_GP), 0x0e, 0);
    CODE_AT(rig, true, 0xf4);
    assert_int_equal(finish(rig), 8);
    assert_int_equal(rig->v->r[X86_RBX], 0);
    /* #UD whose gate is not present: just #NP, whose gate is not present either: #DF. */
    rig->ram[RIG_IDT + VEC_DF * 16 + 5] = 0x0e; /* and now not even that */
    CODE_AT(rig, true, 0xf4);
    assert_int_equal(finish(rig), -(int)VM_EXIT_SHUTDOWN);
}

static void test_syscall(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, 0x81, RIG_END);
    rig->ram[RIG_IDT + 0x81 * 16 + 5] = 0xee;
    /* The handler: add al, 3; sysretq */
    static const uint8_t entry[] = {0x04, 3, 0x48, 0x0f, 0x07};
    memcpy(rig->ram + 0x120000, entry, sizeof(entry));
    CODE_AT(rig, true, 0xb0, 1, 0x0f, 0x05, 0x04, 0x10, 0xcd, 0x81);
    rig->v->msr.lstar = 0x120000;
    rig->v->msr.star = 0x08ull << 32 | 0x1bull << 48; /* user: 0x1b + 16 = 0x2b, + 8 = 0x23 */
    rig->v->msr.sfmask = FL_IF | FL_DF | FL_TF;
    rig->v->r[X86_RSP] = 0x60000;
    assert_int_equal(finish(rig), 0x14);
    assert_int_equal(stack_word(rig, 1), 0x2b);
    assert_int_equal(stack_word(rig, 4), 0x23);
    assert_int_equal(rig->v->r[X86_RCX], CODE + 4);
}

/* An interrupt that waits is not taken before the instruction that follows STI has run; our poll at
   the block's end may let a few more run. */
static void test_sti_shadow(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, 0x40, RIG_END);
    CODE_AT(rig, false, 0xb0, 1, 0xfb, 0x04, 2, 0x04, 4, 0x04, 8, 0xeb, 0xfe);
    lapic_write(rig->v->lapic, LAPIC_SVR, 0x1ff);
    soft_msi(rig->v->vm, 0xfee00000, 0x40);
    int al = finish(rig);
    assert_int_equal(al & 3, 3);
    assert_in_range(stack_word(rig, 0), CODE + 5, CODE + 9);
}

static void test_hlt_wakes(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, 0x41, 0x04, 1, 0x48, 0xcf);
    CODE_AT(rig, false, 0xb0, 0, 0xfb, 0xf4, RIG_END);
    lapic_write(rig->v->lapic, LAPIC_SVR, 0x1ff);
    soft_msi(rig->v->vm, 0xfee00000, 0x41);
    assert_int_equal(finish(rig), 1);
}

/* An interrupt counts as benign only itself: what its delivery meets ends in a triple fault. */
static void test_interrupt_without_a_table(void **state)
{
    struct rig *rig = *state;
    CODE_AT(rig, false, 0xeb, 0xfe);
    rig->v->idt.limit = 0;
    accel_soft.nmi(rig->vcpu);
    alarm(20);
    assert_int_equal(finish(rig), -VM_EXIT_SHUTDOWN);
    alarm(0);
}

/* A second NMI waits for the IRET of the first. */
static void test_nmi(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_NMI, 0x04, 1, 0x48, 0xcf);
    CODE_AT(rig, false, 0xb0, 0x10, 0x90, 0xeb, 0x00, 0x90, 0xeb, 0x00, RIG_END);
    accel_soft.nmi(rig->vcpu);
    assert_int_equal(finish(rig), 0x10); /* taken before the first instruction: al is set after */
    assert_false(rig->v->nmi_masked);
}

static void test_single_step(void **state)
{
    struct rig *rig = *state;
    /* #DB counts in cl and returns; the stepped code clears TF through popfq. */
    HANDLER(rig, VEC_DB, 0xfe, 0xc1, 0x48, 0xcf);
    CODE_AT(rig, false, 0x31, 0xc9, 0x68, 0x02, 0x01, 0, 0, 0x9d, /* push TF; popfq */
            0x90, 0x90, 0x6a, 0x02, 0x9d, 0x88, 0xc8, RIG_END);
    assert_int_equal(finish(rig), 4); /* nop, nop, push, popfq */
}

static void test_breakpoint(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_DB, 0x0f, 0x21, 0xf0, RIG_END); /* mov rax, dr6 */
    CODE_AT(rig, false, 0x90, 0x90, 0x90, 0xb0, 0x55, RIG_END);
    rig->v->dr[1] = CODE + 2;
    rig->v->dr[7] = 0x400 | 0xc;
    assert_int_equal(finish(rig) & 0xf, 2);
    assert_int_equal(stack_word(rig, 0), CODE + 2);
}

/* ---- other modes ---- */

static void real_mode(struct rig *rig, const uint8_t *code, size_t len)
{
    accel_soft.vcpu_reset(rig->vcpu);
    rig->v->activity = X86_ACTIVE;
    soft_set_seg_real(rig->v, X86_CS, 0x1000);
    soft_set_seg_real(rig->v, X86_SS, 0x2000);
    rig->v->r[X86_RSP] = 0x1000;
    rig->v->rip = 0;
    soft_mode_changed(rig->v);
    assert_int_equal(gmem_load(rig->gmem, 0x10000, code, len), 0);
}

static void test_real_mode(void **state)
{
    struct rig *rig = *state;
    /* IVT 0x21 -> 1000:0100: add al, 1; iret */
    put_le32(rig->ram + 0x21 * 4, 0x10000100);
    static const uint8_t handler_[] = {0x04, 1, 0xcf};
    /* mov ax, 0x1234; mov ds, ax; mov byte [5], 7; mov al, [5]; int 0x21; call far 1000:0200 */
    static const uint8_t code[] = {0xb8, 0x34, 0x12, 0x8e, 0xd8, 0xc6, 0x06,
                                   5,    0,    7,    0xa0, 5,    0,    0xcd,
                                   0x21, 0x9a, 0x00, 0x02, 0x00, 0x10, RIG_END};
    static const uint8_t far_code[] = {0x04, 0x10, 0xcb};
    real_mode(rig, code, sizeof(code));
    memcpy(rig->ram + 0x10100, handler_, sizeof(handler_));
    memcpy(rig->ram + 0x10200, far_code, sizeof(far_code));
    assert_int_equal(finish(rig), 0x18);
    assert_int_equal(rig->ram[0x12345], 7);
    assert_int_equal(rig->v->r[X86_RSP], 0x1000);
}

/* Real mode to 32-bit protected mode to 64-bit mode, as an operating system starts. */
static void test_mode_switch(void **state)
{
    struct rig *rig = *state;
    rig_tables(rig);
    /* 16-bit at 1000:0000 */
    static const uint8_t code16[] = {
        0x66, 0x2e, 0x0f, 0x01, 0x16, 0x00, 0x03,        /* lgdt cs:[0x300] (32-bit base) */
        0x0f, 0x20, 0xc0, 0x0c, 1,    0x0f, 0x22, 0xc0,  /* cr0.pe */
        0x66, 0xea, 0x00, 0x04, 0x01, 0x00, 0x18, 0x00}; /* jmp 18:10400 */
    static const uint8_t code32[] = {
        0xb8, 0x10, 0,    0,    0,    0x8e, 0xd8, 0x8e, 0xd0, /* data segments */
        0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0, /* cr4.pae */
        0xb8, 0x00, 0x10, 0,    0,    0x0f, 0x22, 0xd8,       /* cr3 */
        0xb9, 0x80, 0,    0,    0xc0, 0x0f, 0x32, 0x0d, 0,    1,    0,
        0,    0x0f, 0x30,                                                 /* efer.lme */
        0x0f, 0x20, 0xc0, 0x0d, 0,    0,    0,    0x80, 0x0f, 0x22, 0xc0, /* cr0.pg */
        0xea, 0x00, 0x05, 0x01, 0x00, 0x08, 0x00};                        /* jmp 08:10500 */
    static const uint8_t code64[] = {0x48, 0xb8, 0,    0,    0,
                                     0,    1,    0,    0,    0,        /* mov rax, 1 << 32 */
                                     0x48, 0xc1, 0xe8, 0x1b, RIG_END}; /* shr rax, 27 */
    real_mode(rig, code16, sizeof(code16));
    put_le16(rig->ram + 0x10300, 0x3f);
    put_le32(rig->ram + 0x10302, RIG_GDT);
    memcpy(rig->ram + 0x10400, code32, sizeof(code32));
    memcpy(rig->ram + 0x10500, code64, sizeof(code64));
    assert_int_equal(finish(rig), 32);
    assert_true(rig->v->efer & EFER_LMA);
    assert_int_equal(rig->v->mode, INSN_64);
}

/* Limits hold in 32-bit code. */
static void test_segment_limit(void **state)
{
    struct rig *rig = *state;
    static const uint8_t code[] = {0xa0, 0xff, 0x0f, 0, 0, 0xa0, 0, 0x10, 0, 0, 0xf4};
    assert_int_equal(gmem_load(rig->gmem, CODE, code, sizeof(code)), 0);
    rig_long_mode(rig, CODE);
    struct x86_segment cs = soft_unpack(0x18, 0x00cf9b000000ffffull);
    struct x86_segment ds = soft_unpack(0x10, 0x0040930000000fffull); /* limit 0xfff */
    rig->v->seg[X86_CS] = cs;
    rig->v->seg[X86_DS] = ds;
    rig->v->cr0 &= ~(uint64_t)CR0_PG;
    rig->v->efer = 0;
    rig->v->idt.limit = 0;
    soft_mode_changed(rig->v);
    assert_int_equal(finish(rig), -(int)VM_EXIT_SHUTDOWN);
    assert_int_equal(rig->v->rip, CODE + 5);
}

/* ---- instructions that fault half-way ---- */

static void test_rep_fault(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_PF, 0xb0, 0x0e, RIG_END);
    /* 4 GiB and above is not mapped: rep stosq over the edge stops exactly there. RAM ends sooner,
       so the mapping of its last page is extended onto itself. */
    put_le64(rig->ram + RIG_TABLES + 0x1000 + 8 * 4, 0);
    put_le64(rig->ram + RIG_TABLES + 0x5000 + 8 * 511, 0x600000 | 0x87);
    CODE_AT(rig, false, 0xf3, 0x48, 0xab);
    rig->v->r[X86_RDI] = 0x100000000ull - 64;
    rig->v->r[X86_RCX] = 20;
    rig->v->r[X86_RAX] = 0x4242424242424242ull;
    assert_int_equal(finish(rig), 0x0e);
    assert_int_equal(rig->v->r[X86_RCX], 12);
    assert_int_equal(rig->v->r[X86_RDI], 0x100000000ull);
    assert_int_equal(rig->v->cr2, 0x100000000ull);
    assert_int_equal(stack_word(rig, 1), CODE);
    assert_int_equal(get_le64(rig->ram + 0x7ffff8), 0x4242424242424242ull);
}

static void test_cmpxchg16b(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_GP, 0xb0, 0x0d, RIG_END);
    put_le64(rig->ram + 0x300000, 1);
    put_le64(rig->ram + 0x300008, 2);
    /* lock cmpxchg16b [rdi]; setz al */
    CODE_AT(rig, false, 0xf0, 0x48, 0x0f, 0xc7, 0x0f, 0x0f, 0x94, 0xc0, RIG_END);
    rig->v->r[X86_RDI] = 0x300000;
    rig->v->r[X86_RAX] = 1;
    rig->v->r[X86_RDX] = 2;
    rig->v->r[X86_RBX] = 3;
    rig->v->r[X86_RCX] = 4;
    assert_int_equal(finish(rig), 1);
    assert_int_equal(get_le64(rig->ram + 0x300000), 3);
    assert_int_equal(get_le64(rig->ram + 0x300008), 4);
    rig->v->rip = CODE;
    rig->v->r[X86_RAX] = 9;
    assert_int_equal(finish(rig), 0);
    assert_int_equal(rig->v->r[X86_RDX], 4);
    rig->v->rip = CODE;
    rig->v->r[X86_RDI] = 0x300008;
    assert_int_equal(finish(rig), 0x0d);
}

/* A loop that reads misaligned words, hot when the program turns on AC: #AC at its first read, but
   only if the kernel allows it. */
static void test_alignment(void **state)
{
    struct rig *rig = *state;
    HANDLER(rig, VEC_AC, 0xb0, 0x11, RIG_END);
    HANDLER(rig, VEC_UD, 0xb0, 0x06, RIG_END);
    for (unsigned am = 0; am < 2; am++) {
        CODE_AT(rig, true, 0x48, 0x8b, 0x03,            /* 0: mov rax, [rbx] */
                0xff, 0xc9, 0x75, 0xf9,                 /* dec ecx; jnz 0 */
                0xff, 0xca, 0x79, 0x02, 0x0f, 0x0b,     /* dec edx; jns +2; ud2 */
                0x9c, 0x81, 0x0c, 0x24, 0, 0, 4, 0,     /* pushfq; or [rsp], AC */
                0x9d, 0xb9, 0xc8, 0, 0, 0, 0xeb, 0xe3); /* popfq; mov ecx, 200; jmp 0 */
        rig->v->cr0 |= am ? CR0_AM : 0;
        rig->v->r[X86_RBX] = 0x300001;
        rig->v->r[X86_RCX] = 200;
        rig->v->r[X86_RDX] = 1;
        assert_int_equal(finish(rig), am ? 0x11 : 0x06);
        assert_int_equal(stack_word(rig, am), am ? CODE : CODE + 11);
        assert_int_equal(rig->v->r[X86_RCX], am ? 200 : 0);
    }
    assert_true(rig->v->stats.native > 0);
}

/* State goes out and comes back unchanged. */
static void test_state_round_trip(void **state)
{
    struct rig *rig = *state;
    struct x86_state *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));
    CODE_AT(rig, false, 0xb8, 1, 2, 3, 4, 0x48, 0x83, 0xf8, 1, RIG_END);
    finish(rig);
    rig_ok(accel_soft.vcpu_get(rig->vcpu, a));
    accel_soft.vcpu_reset(rig->vcpu);
    rig_ok(accel_soft.vcpu_set(rig->vcpu, a));
    rig_ok(accel_soft.vcpu_get(rig->vcpu, b));
    assert_in_range(b->msr.tsc - a->msr.tsc, 0, 10000000000ull);
    b->msr.tsc = a->msr.tsc;
    a->msr.tsc_adjust = b->msr.tsc_adjust = 0;
    assert_memory_equal(a, b, sizeof(*a));
    free(a);
    free(b);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_fault_frame),
        TEST(test_divide),
        TEST(test_privilege),
        TEST(test_int_iret),
        TEST(test_ist),
        TEST(test_double_fault),
        TEST(test_syscall),
        TEST(test_sti_shadow),
        TEST(test_hlt_wakes),
        TEST(test_nmi),
        TEST(test_interrupt_without_a_table),
        TEST(test_single_step),
        TEST(test_breakpoint),
        TEST(test_real_mode),
        TEST(test_mode_switch),
        TEST(test_segment_limit),
        TEST(test_rep_fault),
        TEST(test_cmpxchg16b),
        TEST(test_alignment),
        TEST(test_state_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
