/*
 * The KVM engine: exits, memory slots, kicks, state, dirty log. Guests are a few instructions.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kvm_rig.h"

#include "base/bitmap.h"

static void test_port_accesses(void **unused)
{
    static const uint8_t code[] = {
        0xb0, 0x5a,                         /* mov al, 0x5a */
        0xe6, 0x80,                         /* out 0x80, al */
        0xb8, 0x34, 0x12,                   /* mov ax, 0x1234 */
        0xe7, 0x82,                         /* out 0x82, ax */
        0x66, 0xb8, 0x78, 0x56, 0x34, 0x12, /* mov eax, 0x12345678 */
        0x66, 0xe7, 0x84,                   /* out 0x84, eax */
        0x66, 0xe5, 0x88,                   /* in eax, 0x88 */
        0x66, 0xa3, 0x00, 0x20,             /* mov [0x2000], eax */
        0xe4, 0x8c,                         /* in al, 0x8c */
        0xa2, 0x04, 0x20,                   /* mov [0x2004], al */
        DONE,
    };
    struct rig rig;
    uint8_t seen[5];

    rig_init(&rig, 1);
    rig_run_code(&rig, code);
    assert_int_equal(rig.count, 5);
    rig_expect(&rig, 0, true, false, 0x80, 1, 0x5a);
    rig_expect(&rig, 1, true, false, 0x82, 2, 0x1234);
    rig_expect(&rig, 2, true, false, 0x84, 4, 0x12345678);
    rig_expect(&rig, 3, false, false, 0x88, 4, 0x11223344);
    rig_expect(&rig, 4, false, false, 0x8c, 1, 0x11223345);
    assert_int_equal(gmem_read(rig.gmem, 0x2000, seen, 5), 0);
    assert_memory_equal(seen, "\x44\x33\x22\x11\x45", 5);

    struct accel_stats stats;
    accel_kvm.vcpu_stats(rig.cpu[0], &stats);
    assert_int_equal(stats.pio, 6);
    assert_true(stats.exits >= 6);
    rig_fini(&rig);
}

static void test_string_ports(void **unused)
{
    static const uint8_t code[] = {
        0xbe, 0x00, 0x30, /* mov si, 0x3000 */
        0xb9, 0x05, 0x00, /* mov cx, 5 */
        0xba, 0x90, 0x00, /* mov dx, 0x90 */
        0xf3, 0x6f,       /* rep outsw */
        0xbf, 0x00, 0x31, /* mov di, 0x3100 */
        0xb9, 0x03, 0x00, /* mov cx, 3 */
        0xf3, 0x6c,       /* rep insb */
        DONE,
    };
    struct rig rig;
    uint8_t seen[3];

    rig_init(&rig, 1);
    rig_load(&rig, 0x3000, "AaBbCcDdEe", 10);
    rig_run_code(&rig, code);
    assert_int_equal(rig.count, 8);
    for (unsigned i = 0; i < 5; i++)
        rig_expect(&rig, i, true, false, 0x90, 2, ('A' + i) | ('a' + i) << 8);
    assert_int_equal(gmem_read(rig.gmem, 0x3100, seen, 3), 0);
    assert_memory_equal(seen, "\x44\x45\x46", 3);
    rig_fini(&rig);
}

/* Memory that nobody has, through ds = 0xd0000000. */
static void test_memory_accesses(void **unused)
{
    static const uint8_t code[] = {
        0xc6, 0x06, 0x10, 0x00, 0xab,                         /* mov byte [0x10], 0xab */
        0xc7, 0x06, 0x12, 0x00, 0xcd, 0xab,                   /* mov word [0x12], 0xabcd */
        0x66, 0xc7, 0x06, 0x14, 0x00, 0x78, 0x56, 0x34, 0x12, /* mov dword [0x14], 0x12345678 */
        0x66, 0xa1, 0x20, 0x00,                               /* mov eax, [0x20] */
        0x66, 0xe7, 0x80,                                     /* out 0x80, eax */
        DONE,
    };
    struct rig rig;
    struct x86_state *state = calloc(1, sizeof(*state));

    rig_init(&rig, 1);
    rig_load(&rig, RIG_CODE, code, sizeof(code));
    rig_real_mode(state, RIG_CODE);
    state->seg[X86_DS].base = 0xd0000000;
    rig_ok(accel_kvm.vcpu_set(rig.cpu[0], state));
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.count, 5);
    rig_expect(&rig, 0, true, true, 0xd0000010, 1, 0xab);
    rig_expect(&rig, 1, true, true, 0xd0000012, 2, 0xabcd);
    rig_expect(&rig, 2, true, true, 0xd0000014, 4, 0x12345678);
    rig_expect(&rig, 3, false, true, 0xd0000020, 4, 0x11223344);
    rig_expect(&rig, 4, true, false, 0x80, 4, 0x11223344);
    rig_fini(&rig);
    free(state);
}

/* A ROM reads as memory; a write to it changes nothing and comes as MMIO. */
static void test_rom(void **unused)
{
    static const uint8_t code[] = {
        0xa0, 0x07, 0x00,             /* mov al, [7] */
        0xe6, 0x80,                   /* out 0x80, al */
        0xc6, 0x06, 0x07, 0x00, 0x55, /* mov byte [7], 0x55 */
        0xa0, 0x07, 0x00,             /* mov al, [7] */
        0xe6, 0x80,                   /* out 0x80, al */
        DONE,
    };
    struct rig rig;
    struct x86_state *state = calloc(1, sizeof(*state));

    rig_init(&rig, 1);
    rig_load(&rig, RIG_CODE, code, sizeof(code));
    rig_load(&rig, RIG_ROM + 7, "\x77", 1);
    rig_real_mode(state, RIG_CODE);
    state->seg[X86_DS].base = RIG_ROM;
    rig_ok(accel_kvm.vcpu_set(rig.cpu[0], state));
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.count, 3);
    rig_expect(&rig, 0, true, false, 0x80, 1, 0x77);
    rig_expect(&rig, 1, true, true, RIG_ROM + 7, 1, 0x55);
    rig_expect(&rig, 2, true, false, 0x80, 1, 0x77);
    rig_fini(&rig);
    free(state);
}

/* RAM that is added later is there for the guest after ram_changed. */
static void test_ram_changed(void **unused)
{
    static const uint8_t code[] = {
        0xc6, 0x06, 0x05, 0x00, 0x66, /* mov byte [5], 0x66 */
        DONE,
    };
    struct rig rig;
    struct x86_state *state = calloc(1, sizeof(*state));
    uint8_t byte = 0;

    rig_init(&rig, 1);
    rig_ok(gmem_add_ram(rig.gmem, "more", MIB(16), MIB(1)));
    rig_ok(accel_kvm.ram_changed(rig.vm));
    rig_load(&rig, RIG_CODE, code, sizeof(code));
    rig_real_mode(state, RIG_CODE);
    state->seg[X86_DS].base = MIB(16);
    rig_ok(accel_kvm.vcpu_set(rig.cpu[0], state));
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.count, 0);
    assert_int_equal(gmem_read(rig.gmem, MIB(16) + 5, &byte, 1), 0);
    assert_int_equal(byte, 0x66);
    rig_fini(&rig);
    free(state);
}

static void *kick_later(void *opaque)
{
    struct rig *rig = opaque;
    usleep(30000);
    accel_kvm.vcpu_kick(rig->cpu[0]);
    return NULL;
}

static void expect_kick_ends(const uint8_t *code, size_t size)
{
    struct rig rig;
    pthread_t thread;

    rig_init(&rig, 1);
    rig_start(&rig, code, size);
    uint64_t start = clock_now_ns();
    assert_int_equal(pthread_create(&thread, NULL, kick_later, &rig), 0);
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_true(clock_now_ns() - start >= 25 * NSEC_PER_MSEC);
    pthread_join(thread, NULL);
    rig_fini(&rig);
}

/* Its interrupts are on: Bochs masks the host's while a guest has its own off. */
static void test_kick_of_a_running_guest(void **unused)
{
    static const uint8_t code[] = {0xfb, 0xeb, 0xfe}; /* sti; jmp . */
    expect_kick_ends(code, sizeof(code));
}

static void test_kick_of_a_halted_guest(void **unused)
{
    static const uint8_t code[] = {0xfa, 0xf4}; /* cli; hlt */
    expect_kick_ends(code, sizeof(code));
}

/* A kick before vcpu_run counts, once. */
static void test_kick_in_advance(void **unused)
{
    static const uint8_t code[] = {0xe6, 0x80, DONE};
    struct rig rig;

    rig_init(&rig, 1);
    rig_start(&rig, code, sizeof(code));
    accel_kvm.vcpu_kick(rig.cpu[0]);
    accel_kvm.vcpu_kick(rig.cpu[0]);
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.count, 0);
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.count, 1);
    rig_fini(&rig);
}

/* Many kicks from another thread at any moment: none is lost, none hurts. */
static void *kick_often(void *opaque)
{
    struct rig *rig = opaque;
    for (unsigned i = 0; i < 200; i++) {
        accel_kvm.vcpu_kick(rig->cpu[0]);
        usleep(i % 7 * 10);
    }
    rig->done = 1;
    accel_kvm.vcpu_kick(rig->cpu[0]);
    return NULL;
}

static void test_kick_storm(void **unused)
{
    /* again: inc eax; out 0x80, al; jmp again */
    static const uint8_t code[] = {0x66, 0xff, 0xc0, 0xe6, 0x80, 0xeb, 0xf9};
    struct rig rig;
    pthread_t thread;

    rig_init(&rig, 1);
    rig_start(&rig, code, sizeof(code));
    assert_int_equal(pthread_create(&thread, NULL, kick_often, &rig), 0);
    do
        assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    while (!*(volatile uint8_t *)&rig.done);
    pthread_join(thread, NULL);
    rig_fini(&rig);
}

/* When vcpu_run returns, the instruction that exited is complete, its result in the registers. */
static void test_no_half_done_instruction(void **unused)
{
    static const uint8_t code[] = {
        0x66, 0xe5, 0x88, /* in eax, 0x88: kicks while it waits for its value */
        0xe6, 0x80,       /* out 0x80, al */
    };
    struct rig rig;
    struct x86_state *state = calloc(1, sizeof(*state));

    rig_init(&rig, 1);
    rig.kick_on_read = true;
    rig_run_code(&rig, code);
    rig_ok(accel_kvm.vcpu_get(rig.cpu[0], state));
    assert_int_equal(state->rip, RIG_CODE + 3);
    assert_int_equal(state->gpr[X86_RAX], 0x11223344);
    assert_int_equal(rig.count, 1);
    rig_fini(&rig);
    free(state);
}

/*
 * Every gate of the IDT is "not present", so that the exception's exception has an exception. (Not
 * by an IDT that is too short: that gives general protection faults, which KVM intercepts, and
 * which an emulated SVM then delivers without end.)
 */
static void test_triple_fault(void **unused)
{
    static const uint8_t code[] = {0xcc}; /* int3 */
    struct rig rig;

    rig_needs_hardware(); /* the software one stays in the kernel */
    struct x86_state *state = calloc(1, sizeof(*state));
    rig_init(&rig, 1);
    rig_load(&rig, RIG_CODE, code, sizeof(code));
    for (unsigned vector = 0; vector < 32; vector++)
        rig_load(&rig, 0x3000 + 8 * vector, "\0\0\x08\0\0\x0e\0\0", 8);
    rig_real_mode(state, RIG_CODE);
    state->cr0 = 0x11;
    state->seg[X86_CS] =
        (struct x86_segment){.selector = 8,
                             .limit = 0xffffffff,
                             .attr = X86_ATTR_P | X86_ATTR_S | X86_ATTR_DB | X86_ATTR_G | 0xb};
    state->idt = (struct x86_table_register){.base = 0x3000, .limit = 32 * 8 - 1};
    rig_ok(accel_kvm.vcpu_set(rig.cpu[0], state));
    assert_int_equal(rig_run_(&rig), VM_EXIT_SHUTDOWN);

    /* After a reset the vCPU runs again. */
    static const uint8_t again[] = {DONE};
    accel_kvm.vcpu_reset(rig.cpu[0]);
    rig_ok(accel_kvm.vcpu_get(rig.cpu[0], state));
    assert_int_equal(state->rip, 0xfff0);
    assert_int_equal(state->seg[X86_CS].base, 0xffff0000);
    assert_int_equal(state->seg[X86_CS].selector, 0xf000);
    assert_int_equal(state->cr0 & 1, 0);
    free(state);
    rig_run_code(&rig, again);
    rig_fini(&rig);
}

/* Code where there is no memory: an error with a sentence, not a loop and not an abort. */
static void test_code_outside_memory(void **unused)
{
    struct rig rig;
    struct vm_exit exit;
    struct x86_state *state = calloc(1, sizeof(*state));

    rig_init(&rig, 1);
    rig_real_mode(state, 0x100);
    state->seg[X86_CS].base = 0xd0000000;
    rig_ok(accel_kvm.vcpu_set(rig.cpu[0], state));
    alarm(20);
    accel_kvm.vcpu_run(rig.cpu[0], &exit);
    alarm(0);
    assert_int_equal(exit.reason, VM_EXIT_ERROR);
    assert_non_null(strstr(exit.error, "CPU 0"));
    assert_non_null(strstr(exit.error, "0x100"));
    rig_fini(&rig);
    free(state);
}

/* vcpu_set straight into long mode: identity map of the first 2 MiB, 64-bit code. */
static void test_long_mode(void **unused)
{
    static const uint8_t code[] = {
        /* mov rax, 0x0123456789abcdef */
        0x48, 0xb8, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01,
        0x48, 0xa3, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* mov [0x2000], rax */
        DONE,
    };
    struct rig rig;
    struct x86_state *state = calloc(1, sizeof(*state));
    uint64_t entry, seen = 0;

    rig_init(&rig, 1);
    rig_load(&rig, RIG_CODE, code, sizeof(code));
    entry = htole64(0x11000 | 3);
    rig_load(&rig, 0x10000, &entry, 8);
    entry = htole64(0x12000 | 3);
    rig_load(&rig, 0x11000, &entry, 8);
    entry = htole64(0 | 0x83);
    rig_load(&rig, 0x12000, &entry, 8);

    rig_real_mode(state, RIG_CODE);
    state->cr0 = 0x80000031;
    state->cr3 = 0x10000;
    state->cr4 = 0x20;
    state->efer = 0x500;
    state->seg[X86_CS].selector = 8;
    state->seg[X86_CS].limit = 0xffffffff;
    state->seg[X86_CS].attr = X86_ATTR_P | X86_ATTR_S | X86_ATTR_L | X86_ATTR_G | 0xb;
    rig_ok(accel_kvm.vcpu_set(rig.cpu[0], state));
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(gmem_read(rig.gmem, 0x2000, &seen, 8), 0);
    assert_int_equal(le64toh(seen), 0x0123456789abcdef);
    rig_ok(accel_kvm.vcpu_get(rig.cpu[0], state));
    assert_int_equal(state->gpr[X86_RAX], 0x0123456789abcdef);
    assert_int_equal(state->efer & 0x500, 0x500);
    rig_fini(&rig);
    free(state);
}

/* Everything that is set is there in a get, and a second VM takes it and gives the same back. */
static void test_state_moves(void **unused)
{
    struct rig rig, other;
    struct x86_state *state = calloc(3, sizeof(*state));
    struct x86_state *first = &state[1], *second = &state[2];

    rig_init(&rig, 1);
    rig_init(&other, 1);
    rig_real_mode(state, 0x1234);
    for (unsigned i = 0; i < 16; i++)
        state->gpr[i] = 0x0101010101010101ull * (i + 1);
    state->rflags = 0x246;
    state->cr2 = 0xfeed000;
    state->cr8 = 3;
    put_le32(state->lapic + 0x80, 0x30); /* the task priority, where cr8 lives */
    for (unsigned i = 0; i < 4; i++)
        state->dr[i] = 0x1000 * (i + 1);
    state->msr.star = 0x0023001000000000;
    state->msr.lstar = 0xffffffff81000000;
    state->msr.cstar = 0xffffffff81000100;
    state->msr.sfmask = 0x47700;
    state->msr.kernel_gs_base = 0xffff888000000000;
    state->msr.sysenter_cs = 0x10;
    state->msr.sysenter_esp = 0xc0001000; /* AMD has 32 bits of these */
    state->msr.sysenter_eip = 0xc1000200;
    state->msr.tsc = 1000000;
    state->msr.mtrr_def_type = 0xc06;
    state->msr.mtrr_base[0] = 0xc0000000;
    state->msr.mtrr_mask[0] = 0xffc0000800;
    state->msr.mtrr_fixed[0] = 0x0606060606060606;
    for (unsigned i = 0; i < 16 * 16; i++) /* xmm0..15 */
        state->xsave[160 + i] = (uint8_t)(i ^ 0x5a);
    put_le64(state->xsave + 512, 3);
    state->activity = X86_HALTED;
    state->nmi_masked = true;

    rig_ok(accel_kvm.vcpu_set(rig.cpu[0], state));
    rig_ok(accel_kvm.vcpu_get(rig.cpu[0], first));
    assert_memory_equal(first->gpr, state->gpr, sizeof(state->gpr));
    assert_memory_equal(first->dr, state->dr, 4 * sizeof(state->dr[0]));
    assert_memory_equal(first->xsave + 160, state->xsave + 160, 256);
    assert_memory_equal(first->seg, state->seg, sizeof(state->seg));
    assert_int_equal(first->rip, 0x1234);
    assert_int_equal(first->rflags, 0x246);
    assert_int_equal(first->cr2, 0xfeed000);
    assert_int_equal(first->cr8, 3);
    assert_int_equal(first->activity, X86_HALTED);
    assert_true(first->nmi_masked);
    assert_true(first->msr.tsc >= 1000000);
    first->msr.tsc = state->msr.tsc;
    assert_int_equal(first->msr.star, state->msr.star);
    assert_int_equal(first->msr.lstar, state->msr.lstar);
    assert_int_equal(first->msr.cstar, state->msr.cstar);
    assert_int_equal(first->msr.kernel_gs_base, state->msr.kernel_gs_base);
    assert_int_equal(first->msr.sysenter_eip, state->msr.sysenter_eip);
    assert_int_equal(first->msr.mtrr_def_type, 0xc06);
    assert_int_equal(first->msr.mtrr_base[0], 0xc0000000);
    assert_int_equal(first->msr.mtrr_fixed[0], 0x0606060606060606);
    assert_int_equal(first->msr.apic_base, state->msr.apic_base);
    assert_int_equal(get_le32(first->lapic + 0xf0), 0x1ff);

    rig_ok(accel_kvm.vcpu_set(other.cpu[0], first));
    rig_ok(accel_kvm.vcpu_get(other.cpu[0], second));
    second->msr.tsc = first->msr.tsc;
    assert_memory_equal(second, first, sizeof(*first));
    rig_fini(&other);
    rig_fini(&rig);
    free(state);
}

/* Counts the dirty pages of the RAM region and says whether exactly `pages` are set. */
static unsigned take_dirty(struct rig *rig, uint64_t *bits)
{
    unsigned count = 0;
    memset(bits, 0, BITMAP_WORDS(RIG_RAM / 4096) * 8);
    rig_ok(accel_kvm.dirty_fetch(rig->vm));
    gmem_dirty_take(rig->gmem, 0, bits);
    for (unsigned i = 0; i < RIG_RAM / 4096; i++)
        count += bitmap_test(bits, i);
    return count;
}

static void test_dirty_log(void **unused)
{
    static const uint8_t code[] = {
        0xc6, 0x06, 0x00, 0x20, 0x01, /* mov byte [0x2000], 1 */
        0xc6, 0x06, 0x00, 0x70, 0x01, /* mov byte [0x7000], 1 */
        0xa0, 0x00, 0x40,             /* mov al, [0x4000] */
        DONE,
    };
    struct rig rig;
    uint64_t bits[BITMAP_WORDS(RIG_RAM / 4096)];

    rig_init(&rig, 1);
    rig_run_code(&rig, code); /* pages are there before the log begins */
    gmem_dirty_enable(rig.gmem, true);
    rig_ok(accel_kvm.dirty_enable(rig.vm, true));
    take_dirty(&rig, bits);
    assert_int_equal(take_dirty(&rig, bits), 0);

    for (unsigned round = 0; round < 3; round++) {
        rig_run_code(&rig, code); /* rig_load dirties the page of the code */
        assert_int_equal(take_dirty(&rig, bits), 3);
        assert_true(bitmap_test(bits, 1) && bitmap_test(bits, 2) && bitmap_test(bits, 7));
        assert_int_equal(take_dirty(&rig, bits), 0);
    }
    rig_ok(accel_kvm.dirty_enable(rig.vm, false));
    gmem_dirty_enable(rig.gmem, false);
    rig_run_code(&rig, code);
    rig_ok(accel_kvm.dirty_enable(rig.vm, true));
    gmem_dirty_enable(rig.gmem, true);
    assert_int_equal(take_dirty(&rig, bits), 0);
    rig_fini(&rig);
}

/* More dirty pages than a ring has entries: the run loop empties it, and no page is lost. */
static void test_dirty_overflow(void **unused)
{
    enum { PAGES = 6000 };
    static const uint8_t code[] = {
        0x66, 0xbf, 0x00, 0x00, 0x00, 0x00,       /* mov edi, 0 */
        0x66, 0xb9, 0x70, 0x17, 0x00, 0x00,       /* mov ecx, 6000 */
        0x67, 0xc6, 0x07, 0x01,                   /* mov byte [edi], 1 */
        0x66, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, /* add edi, 4096 */
        0x67, 0xe2, 0xf2,                         /* loop (ecx) */
        DONE,
    };
    struct rig rig;

    rig_needs_hardware();
    struct x86_state *state = calloc(1, sizeof(*state));
    rig_init(&rig, 1);
    rig_ok(gmem_add_ram(rig.gmem, "more", MIB(16), PAGES * 4096ull));
    rig_ok(accel_kvm.ram_changed(rig.vm));
    gmem_dirty_enable(rig.gmem, true);
    rig_ok(accel_kvm.dirty_enable(rig.vm, true));
    rig_load(&rig, RIG_CODE, code, sizeof(code));
    rig_real_mode(state, RIG_CODE);
    state->seg[X86_DS] = (struct x86_segment){
        .base = MIB(16), .limit = 0xffffffff, .attr = X86_ATTR_P | X86_ATTR_S | X86_ATTR_G | 3};
    rig_ok(accel_kvm.vcpu_set(rig.cpu[0], state));
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);

    uint64_t *bits = calloc(BITMAP_WORDS(PAGES), 8);
    rig_ok(accel_kvm.dirty_fetch(rig.vm));
    gmem_dirty_take(rig.gmem, 1, bits);
    unsigned count = 0;
    for (unsigned i = 0; i < PAGES; i++)
        count += bitmap_test(bits, i);
    assert_int_equal(count, PAGES);
    free(bits);
    rig_fini(&rig);
    free(state);
}

static void test_cpuid(void **unused)
{
    /* cpuid of leaf 1, then of the hypervisor's leaf */
    static const uint8_t code[] = {
        0x66, 0xb8, 0x01, 0x00, 0x00, 0x00, /* mov eax, 1 */
        0x0f, 0xa2,                         /* cpuid */
        0x66, 0x89, 0x0e, 0x00, 0x20,       /* mov [0x2000], ecx */
        0x66, 0x89, 0x1e, 0x04, 0x20,       /* mov [0x2004], ebx */
        0x66, 0xb8, 0x00, 0x00, 0x00, 0x40, /* mov eax, 0x40000000 */
        0x0f, 0xa2,                         /* cpuid */
        0x66, 0x89, 0x1e, 0x08, 0x20,       /* mov [0x2008], ebx */
        DONE,
    };
    static const char *const no_sse3[] = {"pni", NULL};
    struct rig rig;
    struct cpu_model model = {.name = "host", .remove = no_sse3};

    rig_needs_hardware(); /* the software one lets the host's answer through */
    struct cpuid_table *table = calloc(2, sizeof(*table));
    uint8_t seen[12];

    rig_init(&rig, 1);
    rig_ok(accel_kvm.cpuid_supported(rig.vm, &table[0]));
    const struct cpuid_entry *one = cpuid_find(&table[0], 1, 0);
    assert_non_null(one);
    assert_true(one->ecx & 1u << 21); /* x2APIC */
    assert_true(one->ecx & 1u << 31); /* hypervisor */
    rig_ok(cpuid_build(&table[0], &model, 0, 1, accel_kvm.tsc_khz(rig.vm), &table[1]));
    assert_false(cpuid_find(&table[1], 1, 0)->ecx & 1u);
    rig_ok(accel_kvm.vcpu_set_cpuid(rig.cpu[0], &table[1]));
    rig_run_code(&rig, code);
    assert_int_equal(gmem_read(rig.gmem, 0x2000, seen, sizeof(seen)), 0);
    assert_true(get_le32(seen) & 1u << 21);
    assert_false(get_le32(seen) & 1u);             /* masked */
    assert_int_equal(get_le32(seen + 4) >> 24, 0); /* APIC ID */
    assert_memory_equal(seen + 8, "KVMK", 4);
    assert_true(accel_kvm.tsc_khz(rig.vm) > 10000); /* kHz, not MHz: Bochs has 50000 */
    rig_fini(&rig);
    free(table);
}

/* Two VMs in one process do not see each other. */
static void test_two_vms(void **unused)
{
    static const uint8_t one[] = {0xb0, 1, 0xe6, 0x80, 0xa2, 0x00, 0x20, DONE};
    static const uint8_t two[] = {0xb0, 2, 0xe6, 0x80, 0xa2, 0x00, 0x20, DONE};
    struct rig a, b;
    uint8_t byte;

    rig_init(&a, 1);
    rig_init(&b, 1);
    rig_run_code(&a, one);
    rig_run_code(&b, two);
    rig_expect(&a, 0, true, false, 0x80, 1, 1);
    rig_expect(&b, 0, true, false, 0x80, 1, 2);
    assert_int_equal(gmem_read(a.gmem, 0x2000, &byte, 1), 0);
    assert_int_equal(byte, 1);
    rig_fini(&a);
    assert_int_equal(gmem_read(b.gmem, 0x2000, &byte, 1), 0);
    assert_int_equal(byte, 2);
    rig_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_port_accesses),
        cmocka_unit_test(test_string_ports),
        cmocka_unit_test(test_memory_accesses),
        cmocka_unit_test(test_rom),
        cmocka_unit_test(test_ram_changed),
        cmocka_unit_test(test_kick_of_a_running_guest),
        cmocka_unit_test(test_kick_of_a_halted_guest),
        cmocka_unit_test(test_kick_in_advance),
        cmocka_unit_test(test_kick_storm),
        cmocka_unit_test(test_no_half_done_instruction),
        cmocka_unit_test(test_triple_fault),
        cmocka_unit_test(test_code_outside_memory),
        cmocka_unit_test(test_long_mode),
        cmocka_unit_test(test_state_moves),
        cmocka_unit_test(test_dirty_log),
        cmocka_unit_test(test_dirty_overflow),
        cmocka_unit_test(test_cpuid),
        cmocka_unit_test(test_two_vms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
