/*
 * The KVM engine: interrupts of every kind, doorbells, and a second CPU's start.
 *
 * Handlers are real-mode code; the LAPIC's registers are reached through a segment register whose
 * base is the LAPIC's page.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kvm_rig.h"

#include <sys/eventfd.h>

#define LAPIC 0xfee00000u
#define HANDLER 0x1800u
#define VECTOR 0x41
/* A message to APIC ID 0: fixed delivery, edge. */
#define MSI_ADDRESS LAPIC

/* sti; wait: hlt; jmp wait */
static const uint8_t wait_for_interrupt[] = {0xfb, 0xf4, 0xeb, 0xfd};
/* The handler of tests that end with their first interrupt. */
static const uint8_t handler_done[] = {0xb0, 0x77, DONE, 0xf4};

static void load_waiter(struct rig *rig, uint8_t vector, const uint8_t *handler, size_t size)
{
    rig_vector(rig, vector, HANDLER);
    rig_load(rig, HANDLER, handler, size);
    rig_start(rig, wait_for_interrupt, sizeof(wait_for_interrupt));
}

/* Runs until the guest halts with interrupts on: a kick from outside after a while. */
static void *kick_soon(void *opaque)
{
    struct rig *rig = opaque;
    usleep(20000);
    accel_kvm.vcpu_kick(rig->cpu[0]);
    return NULL;
}

static void run_until_idle(struct rig *rig)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, kick_soon, rig), 0);
    assert_int_equal(rig_run_(rig), VM_EXIT_KICKED);
    pthread_join(thread, NULL);
}

static void test_msi_wakes_a_halted_guest(void **unused)
{
    struct rig rig;

    rig_init(&rig, 1);
    load_waiter(&rig, VECTOR, handler_done, sizeof(handler_done));
    run_until_idle(&rig);
    assert_int_equal(rig.done, 0);
    accel_kvm.msi_send(rig.vm, MSI_ADDRESS, VECTOR);
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.done, 0x77);
    rig_fini(&rig);
}

static void *send_later(void *opaque)
{
    struct rig *rig = opaque;
    usleep(20000);
    accel_kvm.msi_send(rig->vm, MSI_ADDRESS, VECTOR);
    return NULL;
}

static void test_msi_from_another_thread(void **unused)
{
    struct rig rig;
    pthread_t thread;

    rig_init(&rig, 1);
    load_waiter(&rig, VECTOR, handler_done, sizeof(handler_done));
    assert_int_equal(pthread_create(&thread, NULL, send_later, &rig), 0);
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.done, 0x77);
    pthread_join(thread, NULL);
    rig_fini(&rig);
}

/* The PIC's INTR: acknowledged once, at the moment when the guest takes it. */
static void test_extint(void **unused)
{
    static const uint8_t code[] = {
        0xfa,             /* cli */
        0xe6, 0x80,       /* out 0x80, al: the test raises INTR before */
        0xe6, 0x81,       /* out 0x81, al */
        0xfb, 0x90, 0xf4, /* sti; nop; hlt */
    };
    struct rig rig;

    rig_init(&rig, 1);
    rig.extint_vector = 0x21;
    rig_vector(&rig, 0x21, HANDLER);
    rig_load(&rig, HANDLER, handler_done, sizeof(handler_done));
    accel_kvm.extint_set(rig.vm, true);
    rig_run_code(&rig, code);
    assert_int_equal(rig.done, 0x77);
    assert_int_equal(rig.acks, 1);
    assert_int_equal(rig.count, 2); /* not before sti */

    struct accel_stats stats;
    accel_kvm.vcpu_stats(rig.cpu[0], &stats);
    assert_int_equal(stats.interrupts, 1);
    rig_fini(&rig);
}

static void *extint_later(void *opaque)
{
    struct rig *rig = opaque;
    usleep(20000);
    accel_kvm.extint_set(rig->vm, true);
    return NULL;
}

static void test_extint_wakes_a_halted_guest(void **unused)
{
    struct rig rig;
    pthread_t thread;

    rig_init(&rig, 1);
    rig.extint_vector = 0x22;
    load_waiter(&rig, 0x22, handler_done, sizeof(handler_done));
    assert_int_equal(pthread_create(&thread, NULL, extint_later, &rig), 0);
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.done, 0x77);
    assert_int_equal(rig.acks, 1);
    pthread_join(thread, NULL);
    rig_fini(&rig);
}

/* An INTR that falls again before the guest would take it is not acknowledged. */
static void test_extint_withdrawn(void **unused)
{
    static const uint8_t code[] = {0xfb, 0x90, DONE};
    struct rig rig;

    rig_init(&rig, 1);
    accel_kvm.extint_set(rig.vm, true);
    accel_kvm.extint_set(rig.vm, false);
    rig_run_code(&rig, code);
    assert_int_equal(rig.acks, 0);
    rig_fini(&rig);
}

static void test_nmi(void **unused)
{
    static const uint8_t code[] = {0xfa, 0xf4, 0xeb, 0xfd}; /* cli; wait: hlt; jmp wait */
    struct rig rig;

    rig_init(&rig, 1);
    rig_vector(&rig, 2, HANDLER);
    rig_load(&rig, HANDLER, handler_done, sizeof(handler_done));
    rig_start(&rig, code, sizeof(code));
    accel_kvm.nmi(rig.cpu[0]);
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.done, 0x77);
    rig_fini(&rig);
}

/* The end of a level-triggered vector comes to the IOAPIC, of an edge-triggered one it does not. */
static void expect_eoi(bool level, bool masked_after, unsigned eois)
{
    static const uint8_t handler[] = {
        0x66, 0x31, 0xc0,             /* xor eax, eax */
        0x66, 0x26, 0xa3, 0xb0, 0x00, /* mov es:[0xb0], eax: end of interrupt */
        0xb0, 0x77, DONE, 0xcf,       /* iret */
    };
    struct rig rig;
    struct x86_state *state = calloc(1, sizeof(*state));

    rig_init(&rig, 1);
    accel_kvm.ioapic_route(rig.vm, 5, MSI_ADDRESS, VECTOR, level, false);
    rig_vector(&rig, VECTOR, HANDLER);
    rig_load(&rig, HANDLER, handler, sizeof(handler));
    rig_load(&rig, RIG_CODE, wait_for_interrupt, sizeof(wait_for_interrupt));
    rig_real_mode(state, RIG_CODE);
    state->seg[X86_ES].base = LAPIC;
    rig_ok(accel_kvm.vcpu_set(rig.cpu[0], state));
    accel_kvm.msi_send(rig.vm, MSI_ADDRESS, VECTOR | (level ? 3u << 14 : 0));
    if (masked_after)
        accel_kvm.ioapic_route(rig.vm, 5, MSI_ADDRESS, VECTOR, level, true);
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.done, 0x77);
    run_until_idle(&rig); /* a KVM that emulates reports the end some instructions later */
    assert_int_equal(rig.eois, eois);
    if (eois)
        assert_int_equal(rig.eoi_vector, VECTOR);
    rig_fini(&rig);
    free(state);
}

static void test_eoi_of_level_interrupt(void **unused)
{
    expect_eoi(true, false, 1);
}

static void test_eoi_of_masked_level_interrupt(void **unused)
{
    expect_eoi(true, true, 1);
}

static void test_no_eoi_of_edge_interrupt(void **unused)
{
    expect_eoi(false, false, 0);
}

/* A write to a doorbell adds to the eventfd and does not come out as MMIO. */
static void test_doorbell(void **unused)
{
    static const uint8_t code[] = {
        0xc7, 0x06, 0x00, 0x01, 0x05, 0x00, /* mov word [0x100], 5 */
        0xc7, 0x06, 0x00, 0x01, 0x06, 0x00, /* mov word [0x100], 6 */
        0xc7, 0x06, 0x00, 0x02, 0x07, 0x00, /* mov word [0x200], 7: any value */
        0xc7, 0x06, 0x00, 0x03, 0x08, 0x00, /* mov word [0x300], 8: nobody's */
        DONE,
    };
    struct rig rig;
    struct x86_state *state = calloc(1, sizeof(*state));
    int five = eventfd(0, EFD_NONBLOCK), any = eventfd(0, EFD_NONBLOCK);
    eventfd_t value;

    rig_init(&rig, 1);
    rig_ok(accel_kvm.doorbell_add(rig.vm, 0xd0000100, 2, true, 5, five));
    rig_ok(accel_kvm.doorbell_add(rig.vm, 0xd0000200, 0, false, 0, any));
    rig_load(&rig, RIG_CODE, code, sizeof(code));
    rig_real_mode(state, RIG_CODE);
    state->seg[X86_DS].base = 0xd0000000;
    rig_ok(accel_kvm.vcpu_set(rig.cpu[0], state));
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(eventfd_read(five, &value), 0);
    assert_int_equal(value, 1);
    assert_int_equal(eventfd_read(any, &value), 0);
    assert_int_equal(value, 1);
    assert_int_equal(rig.count, 2);
    rig_expect(&rig, 0, true, true, 0xd0000100, 2, 6);
    rig_expect(&rig, 1, true, true, 0xd0000300, 2, 8);

    /* Removed, the same writes come out. */
    accel_kvm.doorbell_remove(rig.vm, 0xd0000100, 2, true, 5, five);
    accel_kvm.doorbell_remove(rig.vm, 0xd0000200, 0, false, 0, any);
    rig.count = 0;
    rig_ok(accel_kvm.vcpu_set(rig.cpu[0], state));
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.count, 4);
    assert_int_equal(eventfd_read(five, &value), -1);

    struct err *err = accel_kvm.doorbell_add(rig.vm, 0xd0000100, 0, true, 5, five);
    assert_non_null(err);
    err_free(err);
    rig_fini(&rig);
    close(five);
    close(any);
    free(state);
}

static void test_irqfd(void **unused)
{
    static const uint8_t other[] = {0xb0, 0x88, DONE, 0xf4};
    struct rig rig;
    unsigned gsi = 0, second = 0;
    int fd = eventfd(0, EFD_NONBLOCK), fd2 = eventfd(0, EFD_NONBLOCK);

    rig_init(&rig, 1);
    rig_ok(accel_kvm.irqfd_add(rig.vm, fd, MSI_ADDRESS, VECTOR, &gsi));
    assert_true(gsi >= ACCEL_IOAPIC_PINS);
    rig_ok(accel_kvm.irqfd_add(rig.vm, fd2, MSI_ADDRESS, VECTOR, &second));
    assert_true(second != gsi);
    accel_kvm.irqfd_remove(rig.vm, second, fd2);

    load_waiter(&rig, VECTOR, handler_done, sizeof(handler_done));
    assert_int_equal(eventfd_write(fd, 1), 0);
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.done, 0x77);

    /* Led to another vector. */
    rig_ok(accel_kvm.irqfd_route(rig.vm, gsi, MSI_ADDRESS, 0x52));
    rig_vector(&rig, 0x52, HANDLER + 0x100);
    rig_load(&rig, HANDLER + 0x100, other, sizeof(other));
    load_waiter(&rig, VECTOR, handler_done, sizeof(handler_done));
    assert_int_equal(eventfd_write(fd, 1), 0);
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.done, 0x88);

    /* Removed: the eventfd just counts. */
    accel_kvm.irqfd_remove(rig.vm, gsi, fd);
    rig.done = 0;
    load_waiter(&rig, VECTOR, handler_done, sizeof(handler_done));
    assert_int_equal(eventfd_write(fd, 1), 0);
    run_until_idle(&rig);
    assert_int_equal(rig.done, 0);
    struct err *err = accel_kvm.irqfd_route(rig.vm, gsi, MSI_ADDRESS, VECTOR);
    assert_non_null(err);
    err_free(err);
    rig_fini(&rig);
    close(fd);
    close(fd2);
}

static void *run_second(void *opaque)
{
    struct rig *rig = opaque;
    struct vm_exit exit;
    accel_kvm.vcpu_run(rig->cpu[1], &exit);
    return exit.reason == VM_EXIT_KICKED ? rig : NULL;
}

/* The BSP starts CPU 1 by INIT and SIPI; it begins at the page that the SIPI names. */
static void test_second_cpu_starts(void **unused)
{
    static const uint8_t code[] = {
        0x66, 0xc7, 0x06, 0x10, 0x03, 0x00, 0x00, 0x00, 0x01, /* mov dword [0x310], 1 << 24 */
        0x66, 0xc7, 0x06, 0x00, 0x03, 0x00, 0x45, 0x00, 0x00, /* mov dword [0x300], INIT */
        0x66, 0xc7, 0x06, 0x00, 0x03, 0x05, 0x46, 0x00, 0x00, /* mov dword [0x300], SIPI 5 */
        0xf4, 0xeb, 0xfd,                                     /* wait: hlt; jmp wait */
    };
    static const uint8_t second[] = {
        0x8c, 0xc8, /* mov ax, cs */
        0xe7, 0x80, /* out 0x80, ax */
        DONE, 0xf4,
    };
    struct rig rig;
    struct x86_state *state = calloc(1, sizeof(*state));
    pthread_t thread;
    void *kicked;

    rig_init(&rig, 2);
    rig_load(&rig, RIG_CODE, code, sizeof(code));
    rig_load(&rig, 0x5000, second, sizeof(second));
    rig_ok(accel_kvm.vcpu_get(rig.cpu[1], state));
    assert_true(state->activity == X86_WAIT_INIT || state->activity == X86_WAIT_SIPI);
    accel_kvm.vcpu_reset(rig.cpu[1]);
    rig_real_mode(state, RIG_CODE);
    state->seg[X86_DS].base = LAPIC;
    rig_ok(accel_kvm.vcpu_set(rig.cpu[0], state));
    assert_int_equal(pthread_create(&thread, NULL, run_second, &rig), 0);
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    pthread_join(thread, &kicked);
    assert_ptr_equal(kicked, &rig);
    assert_int_equal(rig.count, 1);
    rig_expect(&rig, 0, true, false, 0x80, 2, 0x500);
    rig_fini(&rig);
    free(state);
}

/* An interrupt that was acknowledged but not delivered travels with the state. */
static void test_injected_interrupt_moves(void **unused)
{
    struct rig rig;
    struct x86_state *state = calloc(1, sizeof(*state));

    rig_init(&rig, 1);
    load_waiter(&rig, VECTOR, handler_done, sizeof(handler_done));
    rig_ok(accel_kvm.vcpu_get(rig.cpu[0], state));
    state->rflags |= 0x200;
    state->interrupt_injected = true;
    state->interrupt_vector = VECTOR;
    rig_ok(accel_kvm.vcpu_set(rig.cpu[0], state));
    memset(state, 0, sizeof(*state));
    rig_ok(accel_kvm.vcpu_get(rig.cpu[0], state));
    assert_true(state->interrupt_injected);
    assert_int_equal(state->interrupt_vector, VECTOR);
    assert_int_equal(rig_run_(&rig), VM_EXIT_KICKED);
    assert_int_equal(rig.done, 0x77);
    rig_fini(&rig);
    free(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_msi_wakes_a_halted_guest),
        cmocka_unit_test(test_msi_from_another_thread),
        cmocka_unit_test(test_extint),
        cmocka_unit_test(test_extint_wakes_a_halted_guest),
        cmocka_unit_test(test_extint_withdrawn),
        cmocka_unit_test(test_nmi),
        cmocka_unit_test(test_eoi_of_level_interrupt),
        cmocka_unit_test(test_eoi_of_masked_level_interrupt),
        cmocka_unit_test(test_no_eoi_of_edge_interrupt),
        cmocka_unit_test(test_doorbell),
        cmocka_unit_test(test_irqfd),
        cmocka_unit_test(test_second_cpu_starts),
        cmocka_unit_test(test_injected_interrupt_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
