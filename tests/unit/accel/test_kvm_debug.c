/*
 * The KVM engine under a debugger outside the guest: INT3s, steps, points; what the guest has of
 * its own stays its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kvm_rig.h"

#include <cpuid.h>

#define HANDLER 0x3000u

static const uint8_t code[] = {
    0x90,                         /* 1000: nop */
    0xcc,                         /* 1001: int3 */
    0xc6, 0x06, 0x00, 0x20, 0x05, /* 1002: mov byte [0x2000], 5 */
    0xa0, 0x00, 0x20,             /* 1007: mov al, [0x2000] */
    0x90,                         /* 100a: nop */
    DONE,                         /* 100b */
};

static void begin(struct rig *rig)
{
    /* incb [0x2001]; iret */
    static const uint8_t handler[] = {0xfe, 0x06, 0x01, 0x20, 0xcf};

    rig_init(rig, 1);
    rig_load(rig, HANDLER, handler, sizeof(handler));
    rig_vector(rig, 3, HANDLER);
    rig_start(rig, code, sizeof(code));
}

static uint8_t byte_at(struct rig *rig, uint64_t gpa)
{
    uint8_t byte;
    assert_int_equal(gmem_read(rig->gmem, gpa, &byte, 1), 0);
    return byte;
}

/* Runs with `debug`; the exit must be `event`, with rip where it says. */
static void expect_stop(struct rig *rig, const struct accel_debug *debug,
                        enum accel_debug_event event, unsigned point, uint64_t rip)
{
    struct x86_state *state = calloc(1, sizeof(*state));
    struct vm_exit exit;

    rig_ok(accel_kvm.vcpu_debug(rig->cpu[0], debug));
    alarm(20);
    accel_kvm.vcpu_run(rig->cpu[0], &exit);
    alarm(0);
    assert_int_equal(exit.reason, VM_EXIT_DEBUG);
    assert_int_equal(exit.debug, event);
    if (event == ACCEL_DEBUG_POINT)
        assert_int_equal(exit.debug_point, point);
    rig_ok(accel_kvm.vcpu_get(rig->cpu[0], state));
    assert_int_equal(state->rip, rip);
    free(state);
}

static void set_rip(struct rig *rig, uint64_t rip)
{
    struct x86_state *state = calloc(1, sizeof(*state));

    rig_ok(accel_kvm.vcpu_get(rig->cpu[0], state));
    state->rip = rip;
    rig_ok(accel_kvm.vcpu_set(rig->cpu[0], state));
    free(state);
}

static void expect_done(struct rig *rig, const struct accel_debug *debug)
{
    rig_ok(accel_kvm.vcpu_debug(rig->cpu[0], debug));
    assert_int_equal(rig_run_(rig), VM_EXIT_KICKED);
    assert_int_equal(rig->done, 5);
}

/*
 * Skips where the virtualisation is itself emulated: QEMU's SVM neither intercepts INT3 nor loads
 * DR7 at VMRUN, a KVM in software knows no data breakpoints.
 */
static bool qemu_emulates(void)
{
    uint32_t eax, ebx, ecx, edx;

    __cpuid(0x40000000, eax, ebx, ecx, edx);
    return ebx == 0x54474354; /* "TCGT" */
}

static void needs_processor(void)
{
    rig_needs_hardware();
    if (qemu_emulates()) {
        print_message("skipped: QEMU emulates this processor\n");
        skip();
    }
}

static void test_int3(void **unused)
{
    struct rig rig;

    needs_processor();
    begin(&rig);
    expect_stop(&rig, &(struct accel_debug){.on = true}, ACCEL_DEBUG_INT3, 0, 0x1001);
    assert_int_equal(byte_at(&rig, 0x2001), 0);
    /* It is the guest's: its handler runs, once. */
    expect_done(&rig, &(struct accel_debug){.on = true, .pass = true});
    assert_int_equal(byte_at(&rig, 0x2001), 1);
    rig_fini(&rig);
}

/* What a step over INT3 is differs: a processor may run the handler as well. */
static void test_steps(void **unused)
{
    static const struct accel_debug step = {.step = true};
    struct rig rig;

    begin(&rig);
    expect_stop(&rig, &step, ACCEL_DEBUG_STEPPED, 0, 0x1001);
    set_rip(&rig, 0x1002);
    expect_stop(&rig, &step, ACCEL_DEBUG_STEPPED, 0, 0x1007);
    assert_int_equal(byte_at(&rig, 0x2000), 5);
    expect_stop(&rig, &step, ACCEL_DEBUG_STEPPED, 0, 0x100a);
    expect_done(&rig, &(struct accel_debug){0});
    rig_fini(&rig);
}

static void test_breakpoint(void **unused)
{
    static const struct accel_debug debug = {
        .count = 2, .point = {{0xffff, 1, ACCEL_DEBUG_EXEC}, {0x1007, 1, ACCEL_DEBUG_EXEC}}};
    struct rig rig;

    if (qemu_emulates())
        needs_processor();
    begin(&rig);
    expect_stop(&rig, &debug, ACCEL_DEBUG_POINT, 1, 0x1007);
    expect_done(&rig, &(struct accel_debug){0});
    rig_fini(&rig);
}

static void test_watchpoints(void **unused)
{
    static const struct accel_debug written = {.count = 1,
                                               .point = {{0x2000, 1, ACCEL_DEBUG_WRITE}}};
    static const struct accel_debug used = {
        .count = 2, .point = {{0x7000, 8, ACCEL_DEBUG_WRITE}, {0x2000, 1, ACCEL_DEBUG_ACCESS}}};
    struct rig rig;

    needs_processor();
    begin(&rig);
    expect_stop(&rig, &written, ACCEL_DEBUG_POINT, 0, 0x1007);
    expect_stop(&rig, &used, ACCEL_DEBUG_POINT, 1, 0x100a);
    expect_done(&rig, &(struct accel_debug){0});
    rig_fini(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_int3),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_breakpoint),
        cmocka_unit_test(test_watchpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
