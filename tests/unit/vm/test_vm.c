/*
 * Whole VMs with tiny guests: two side by side, every way to end, reset, pause; on each engine that
 * this host has.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "../test.h"
#include "base/clock.h"
#include "guest.h"
#include "hw/chipset/ged.h"
#include "hw/chipset/layout.h"
#include "vm/schema.h"
#include "vm/vm.h"

/* A VM and how it ended. */
struct run {
    struct vm_config config;
    struct timeline timeline;
    struct vm *vm;
    struct loop *loop;
    struct vm_result result;
    bool ended;
};

/* The engine of this pass over the tests. */
static enum vm_accel engine;

static void configure(struct run *run, enum vm_board board, const uint8_t *code, size_t len)
{
    memset(run, 0, sizeof(*run));
    vm_config_init(&run->config);
    run->config.board = board;
    run->config.debug_exit = true;
    run->config.accel = engine;
    assert_ok(guest_config(&run->config, code, len));
    assert_true(run->config.kernel_fd >= 0);
    if (engine == VM_ACCEL_KVM)
        run->config.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
}

static void ended(void *opaque, const struct vm_result *result)
{
    struct run *run = opaque;

    assert_false(run->ended);
    run->ended = true;
    run->result = *result;
}

static void start(struct run *run, struct loop *loop)
{
    run->loop = loop;
    assert_ok(vm_new(&run->config, loop, &run->timeline, &run->vm));
    assert_int_equal(run->config.kernel_fd, -1);
    assert_ok(vm_start(run->vm, ended, run));
}

static void serve_for(struct loop *loop, uint64_t milliseconds)
{
    uint64_t end = clock_now_ns() + milliseconds * NSEC_PER_MSEC;

    while (clock_now_ns() < end)
        loop_once(loop, 5);
}

static void wait_end(struct run *run)
{
    uint64_t end = clock_now_ns() + 20 * NSEC_PER_SEC;

    while (!run->ended && clock_now_ns() < end)
        loop_once(run->loop, 100);
    if (!run->ended)
        fail_msg("the VM did not end");
}

static void fini(struct run *run)
{
    vm_free(run->vm);
    vm_config_fini(&run->config);
}

static struct loop *new_loop(void)
{
    struct loop *loop;

    assert_ok(loop_new("control", &loop));
    return loop;
}

/* Runs one guest to its end. */
static struct vm_result run_guest(enum vm_board board, enum vm_on_reset on_reset,
                                  const uint8_t *code, size_t len)
{
    struct loop *loop = new_loop();
    struct run run;

    configure(&run, board, code, len);
    run.config.on_reset = on_reset;
    start(&run, loop);
    wait_end(&run);
    fini(&run);
    loop_free(loop);
    return run.result;
}

static void test_two_side_by_side(void **state)
{
    const uint8_t code[2][7] = {{GUEST_EXIT(21)}, {GUEST_EXIT(42)}};
    struct loop *loop = new_loop();
    struct run run[2];

    for (unsigned i = 0; i < 2; i++)
        configure(&run[i], i ? VM_BOARD_Q35 : VM_BOARD_MICRO, code[i], sizeof(code[i]));
    for (unsigned i = 0; i < 2; i++)
        start(&run[i], loop);
    for (unsigned i = 0; i < 2; i++) {
        wait_end(&run[i]);
        assert_int_equal(run[i].result.end, VM_END_EXIT);
        assert_int_equal(run[i].result.status, i ? 42 : 21);
        for (unsigned mark = TIMELINE_MEMORY; mark <= TIMELINE_KERNEL_ENTRY; mark++) {
            if (mark != TIMELINE_BOOT_LOADER) /* a Multiboot image needs none */
                assert_int_not_equal(run[i].timeline.at_ns[mark], 0);
        }
        assert_int_not_equal(run[i].timeline.at_ns[TIMELINE_END], 0);
        assert_string_equal(vm_boot_protocol(run[i].vm), "Multiboot");
        struct accel_stats stats;
        vm_stats(run[i].vm, &stats);
        assert_in_range(stats.pio, 1, 2);
    }
    for (unsigned i = 0; i < 2; i++)
        fini(&run[i]);
    loop_free(loop);
}

static void test_power_off(void **state)
{
    const uint8_t micro[] = {GUEST_STORE_BYTE(LAYOUT_GED_BASE + GED_SLEEP_CONTROL, 0x34),
                             GUEST_LOOP};
    const uint8_t q35[] = {GUEST_OUT_WORD(LAYOUT_PORT_PM + 4, 0x2000), GUEST_LOOP};

    struct vm_result result = run_guest(VM_BOARD_MICRO, VM_RESET_REBOOT, micro, sizeof(micro));
    assert_int_equal(result.end, VM_END_POWEROFF);
    assert_string_equal(result.reason, "the guest switched itself off");
    result = run_guest(VM_BOARD_Q35, VM_RESET_REBOOT, q35, sizeof(q35));
    assert_int_equal(result.end, VM_END_POWEROFF);
}

/* S3: the vCPU stops at its very instruction, pause and save work meanwhile, the button wakes, and
   the guest's own code runs with the memory that it left. */
static void test_sleep_and_wake(void **state)
{
    const uint8_t code[] = {GUEST_STORE_BYTE(0x1000, 0xb0), /* mov al, 42; out 0xf4, al */
                            GUEST_STORE_BYTE(0x1001, 42),
                            GUEST_STORE_BYTE(0x1002, 0xe6),
                            GUEST_STORE_BYTE(0x1003, 0xf4),
                            GUEST_STORE_BYTE(LAYOUT_TABLES_GPA + 0x4d, 0x10), /* FACS: 0x1000 */
                            GUEST_OUT_WORD(LAYOUT_PORT_PM + 4, 0x2400),
                            GUEST_EXIT(9)};
    const uint8_t no_vector[] = {GUEST_OUT_WORD(LAYOUT_PORT_PM + 4, 0x2400), GUEST_EXIT(9)};
    struct loop *loop = new_loop();
    struct state_writer writer;
    struct run run;

    configure(&run, VM_BOARD_Q35, code, sizeof(code));
    start(&run, loop);
    serve_for(loop, 50);
    assert_false(run.ended);
    vm_pause(run.vm);
    state_writer_init(&writer);
    assert_ok(vm_save(run.vm, &writer));
    state_writer_fini(&writer);
    vm_resume(run.vm);
    serve_for(loop, 20);
    assert_false(run.ended);
    vm_powerdown(run.vm);
    wait_end(&run);
    assert_int_equal(run.result.end, VM_END_EXIT);
    assert_int_equal(run.result.status, 42);
    fini(&run);

    configure(&run, VM_BOARD_Q35, no_vector, sizeof(no_vector));
    run.config.on_reset = VM_RESET_EXIT;
    start(&run, loop);
    serve_for(loop, 50);
    assert_false(run.ended);
    vm_powerdown(run.vm);
    wait_end(&run);
    assert_int_equal(run.result.end, VM_END_RESET);
    fini(&run);
    loop_free(loop);
}

static void test_reset_starts_again(void **state)
{
    const uint8_t micro[] = {GUEST_COUNT_AND_SKIP(3, 9),
                             GUEST_STORE_BYTE(LAYOUT_GED_BASE + GED_RESET, GED_RESET_VALUE),
                             GUEST_LOOP, GUEST_EXIT(3)};
    const uint8_t q35[] = {GUEST_COUNT_AND_SKIP(3, 9), GUEST_OUT_BYTE(0xcf9, 0x06), GUEST_LOOP,
                           GUEST_EXIT(4)};
    const uint8_t port[] = {GUEST_COUNT_AND_SKIP(2, 9), GUEST_OUT_BYTE(0xcf9, 0x06), GUEST_LOOP,
                            GUEST_EXIT(6)};
    const uint8_t fault[] = {GUEST_COUNT_AND_SKIP(2, 13), GUEST_TRIPLE_FAULT, GUEST_EXIT(5)};

    struct vm_result result = run_guest(VM_BOARD_MICRO, VM_RESET_REBOOT, micro, sizeof(micro));
    assert_int_equal(result.end, VM_END_EXIT);
    assert_int_equal(result.status, 3);
    result = run_guest(VM_BOARD_Q35, VM_RESET_REBOOT, q35, sizeof(q35));
    assert_int_equal(result.end, VM_END_EXIT);
    assert_int_equal(result.status, 4);
    result = run_guest(VM_BOARD_MICRO, VM_RESET_REBOOT, port, sizeof(port));
    assert_int_equal(result.end, VM_END_EXIT);
    assert_int_equal(result.status, 6);
    result = run_guest(VM_BOARD_MICRO, VM_RESET_REBOOT, fault, sizeof(fault));
    assert_int_equal(result.end, VM_END_EXIT);
    assert_int_equal(result.status, 5);
}

static void test_reset_ends(void **state)
{
    const uint8_t reset[] = {GUEST_OUT_BYTE(0xcf9, 0x06), GUEST_LOOP};
    const uint8_t fault[] = {GUEST_TRIPLE_FAULT};

    struct vm_result result = run_guest(VM_BOARD_Q35, VM_RESET_EXIT, reset, sizeof(reset));
    assert_int_equal(result.end, VM_END_RESET);
    assert_string_equal(result.reason, "the guest reset itself");
    result = run_guest(VM_BOARD_MICRO, VM_RESET_EXIT, fault, sizeof(fault));
    assert_int_equal(result.end, VM_END_CRASH);
    assert_string_equal(result.reason, "CPU 0 stopped with a triple fault");
}

/* inc dword [0x200000]; jmp back */
static const uint8_t counting[] = {0xff, 0x05, 0x00, 0x00, 0x20, 0x00, 0xeb, 0xf8};

static void test_pause_resume_quit(void **state)
{
    struct loop *loop = new_loop();
    struct run run;
    struct state_writer a, b;

    configure(&run, VM_BOARD_MICRO, counting, sizeof(counting));
    start(&run, loop);
    serve_for(loop, 20);

    state_writer_init(&a);
    struct err *err = vm_save(run.vm, &a);
    assert_non_null(err);
    assert_string_equal(err_text(err), "the VM runs: pause it first");
    err_free(err);

    vm_pause(run.vm);
    vm_pause(run.vm);
    assert_true(vm_is_paused(run.vm));
    assert_ok(vm_save(run.vm, &a));
    serve_for(loop, 20);
    state_writer_init(&b);
    assert_ok(vm_save(run.vm, &b));
    assert_int_equal(a.out.len, b.out.len);
    vm_resume(run.vm);
    assert_false(vm_is_paused(run.vm));
    serve_for(loop, 20);
    assert_false(run.ended);
    vm_quit(run.vm);
    wait_end(&run);
    assert_int_equal(run.result.end, VM_END_QUIT);
    state_writer_fini(&a);
    state_writer_fini(&b);
    fini(&run);
    loop_free(loop);
}

static void test_quit_while_paused_or_before_start(void **state)
{
    struct loop *loop = new_loop();
    struct run run;

    configure(&run, VM_BOARD_Q35, counting, sizeof(counting));
    start(&run, loop);
    vm_pause(run.vm);
    vm_quit(run.vm);
    wait_end(&run);
    assert_int_equal(run.result.end, VM_END_QUIT);
    fini(&run);

    configure(&run, VM_BOARD_MICRO, counting, sizeof(counting));
    run.loop = loop;
    assert_ok(vm_new(&run.config, loop, NULL, &run.vm));
    vm_quit(run.vm);
    assert_ok(vm_start(run.vm, ended, &run));
    wait_end(&run);
    assert_int_equal(run.result.end, VM_END_QUIT);
    fini(&run);

    /* Freed while it runs. */
    configure(&run, VM_BOARD_MICRO, counting, sizeof(counting));
    start(&run, loop);
    fini(&run);
    loop_free(loop);
}

static void free_in_callback(void *opaque, const struct vm_result *result)
{
    struct run *run = opaque;

    ended(opaque, result);
    vm_free(run->vm);
    run->vm = NULL;
}

static void test_free_in_callback(void **state)
{
    const uint8_t code[] = {GUEST_EXIT(1)};
    struct loop *loop = new_loop();
    struct run run;

    configure(&run, VM_BOARD_MICRO, code, sizeof(code));
    run.loop = loop;
    assert_ok(vm_new(&run.config, loop, &run.timeline, &run.vm));
    assert_ok(vm_start(run.vm, free_in_callback, &run));
    wait_end(&run);
    assert_null(run.vm);
    fini(&run);
    loop_free(loop);
}

/* Each vCPU reaches its own place: the first sends INIT and SIPI to the others through its local
 * APIC. */
static void test_application_processors(void **state)
{
    /* clang-format off */
    const uint8_t code[] = {
        0x66, 0xc7, 0x05, 0x00, 0x80, 0x00, 0x00, 0xfa, 0xf0, /* 0x8000: cli; lock ... */
        0xc7, 0x05, 0x02, 0x80, 0x00, 0x00, 0xff, 0x06, 0x00, 0x90, /* ... inc word [0x9000] */
        0x66, 0xc7, 0x05, 0x06, 0x80, 0x00, 0x00, 0xf4, 0xf4, /* hlt; hlt */
        0xc7, 0x05, 0x00, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, /* counter 0 */
        0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0x00, 0x00, /* enable the local APIC */
        0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x0c, 0x00, /* INIT, all but self */
        0xb9, 0x00, 0x10, 0x00, 0x00, 0xe2, 0xfe,                   /* wait a little */
        0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x08, 0x46, 0x0c, 0x00, /* SIPI, page 8 */
        0x66, 0x83, 0x3d, 0x00, 0x90, 0x00, 0x00, 0x03,             /* until three have counted */
        0x75, 0xf6,
        GUEST_EXIT(77),
    };
    /* clang-format on */
    struct loop *loop = new_loop();
    struct run run;

    configure(&run, VM_BOARD_MICRO, code, sizeof(code));
    run.config.cpus = 4;
    start(&run, loop);
    wait_end(&run);
    assert_int_equal(run.result.end, VM_END_EXIT);
    assert_int_equal(run.result.status, 77);
    fini(&run);
    loop_free(loop);
}

/* Runs a guest that writes bytes to the serial port and ends; returns the timeline. */
static struct timeline serial_timeline(const char *append, const uint8_t *code, size_t len)
{
    struct loop *loop = new_loop();
    struct run run;

    configure(&run, VM_BOARD_MICRO, code, len);
    free(run.config.append);
    run.config.append = xstrdup(append);
    start(&run, loop);
    wait_end(&run);
    fini(&run);
    loop_free(loop);
    return run.timeline;
}

static void test_serial_marks(void **state)
{
#define PUT(byte) GUEST_OUT_BYTE(LAYOUT_PORT_COM1, byte)
#define DLAB(value) GUEST_OUT_BYTE(LAYOUT_PORT_COM1 + 3, value)
    const uint8_t silent[] = {DLAB(0x80), PUT(1), DLAB(0x03), GUEST_EXIT(0)};
    const uint8_t kernel[] = {PUT('['), PUT('0'), PUT('\n'), PUT('\r'), GUEST_EXIT(0)};
    const uint8_t init[] = {PUT('['), PUT('\r'), PUT('\n'), PUT('i'), GUEST_EXIT(0)};
    const uint8_t early[] = {PUT('e'), PUT('\n'), PUT('['), PUT('\n'), GUEST_EXIT(0)};

    struct timeline timeline = serial_timeline("", silent, sizeof(silent));
    assert_int_equal(timeline.at_ns[TIMELINE_FIRST_OUTPUT], 0);
    timeline = serial_timeline("", kernel, sizeof(kernel));
    assert_int_not_equal(timeline.at_ns[TIMELINE_FIRST_OUTPUT], 0);
    assert_int_equal(timeline.at_ns[TIMELINE_INIT], 0);
    timeline = serial_timeline("earlyprintk=serial", init, sizeof(init));
    assert_true(timeline.at_ns[TIMELINE_INIT] > timeline.at_ns[TIMELINE_FIRST_OUTPUT]);
    timeline = serial_timeline("earlyprintk=serial", early, sizeof(early));
    assert_int_equal(timeline.at_ns[TIMELINE_INIT], 0);
}

static void refused(struct run *run, const char *text)
{
    struct loop *loop = new_loop();
    struct err *err = vm_new(&run->config, loop, &run->timeline, &run->vm);

    if (!err)
        fail_msg("accepted; expected: %s", text);
    if (!strstr(err_text(err), text))
        fail_msg("'%s' does not say: %s", err_text(err), text);
    err_free(err);
    fini(run);
    loop_free(loop);
}

static void test_refused(void **state)
{
    const uint8_t code[] = {GUEST_EXIT(1)};
    struct run run;

    configure(&run, VM_BOARD_MICRO, code, sizeof(code));
    assert_int_equal(ftruncate(run.config.kernel_fd, 100), 0);
    refused(&run, "kernel 'guest': is truncated");
    configure(&run, VM_BOARD_Q35, code, sizeof(code));
    run.config.memory = 1ull << 53;
    refused(&run, "do not fit into the");
    configure(&run, VM_BOARD_MICRO, code, sizeof(code));
    assert_ok(schema_apply_flag(&run.config, "cpu", "host,avx2"));
    refused(&run, "expected +FEATURE, -FEATURE or vendor=NAME, found 'avx2'");
    configure(&run, VM_BOARD_MICRO, code, sizeof(code));
    assert_ok(schema_apply_flag(&run.config, "cpu", "nonesuch"));
    refused(&run, "nonesuch");
    configure(&run, VM_BOARD_MICRO, code, sizeof(code));
    assert_ok(schema_apply_flag(&run.config, "disk", "missing.img,queues=1"));
    run.config.disk[0].serial = xstrdup("x");
    refused(&run, "disk 'd0': 'missing.img' was not opened");
}

static const struct CMUnitTest guest_tests[] = {
    cmocka_unit_test(test_two_side_by_side),
    cmocka_unit_test(test_power_off),
    cmocka_unit_test(test_sleep_and_wake),
    cmocka_unit_test(test_reset_starts_again),
    cmocka_unit_test(test_reset_ends),
    cmocka_unit_test(test_pause_resume_quit),
    cmocka_unit_test(test_quit_while_paused_or_before_start),
    cmocka_unit_test(test_free_in_callback),
    cmocka_unit_test(test_application_processors),
    cmocka_unit_test(test_serial_marks),
    cmocka_unit_test(test_refused),
};

int main(void)
{
    int failed = 0;

    engine = VM_ACCEL_SOFT;
    failed += cmocka_run_group_tests_name("soft", guest_tests, NULL, NULL);
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        print_message("skipped: engine kvm, because /dev/kvm cannot be opened\n");
        return failed;
    }
    close(fd);
    engine = VM_ACCEL_KVM;
    return failed + cmocka_run_group_tests_name("kvm", guest_tests, NULL, NULL);
}
