/*
 * The engine without a guest: what the tests of devices and of the VM layer rely on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "accel/none/none.h"

struct machine {
    struct accel_vm *vm;
    struct accel_vcpu *vcpu;
    uint64_t last_address, last_value;
    unsigned writes;
    uint8_t eoi;
    pthread_t io_thread;
    struct vm_exit exit;
};

static uint32_t pio_read(void *opaque, uint16_t port, unsigned size)
{
    return port + size;
}

static void pio_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct machine *m = opaque;
    m->last_address = port;
    m->last_value = value;
    m->writes++;
    m->io_thread = pthread_self();
}

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    return gpa * size;
}

static void mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t value)
{
    struct machine *m = opaque;
    m->last_address = gpa;
    m->last_value = value;
    m->writes++;
}

static uint8_t extint_ack(void *opaque)
{
    return 0;
}

static void ioapic_eoi(void *opaque, uint8_t vector)
{
    ((struct machine *)opaque)->eoi = vector;
}

static const struct accel_io io = {pio_read,   pio_write,  mmio_read,
                                   mmio_write, extint_ack, ioapic_eoi};

static int setup(void **state)
{
    struct machine *m = xcalloc(1, sizeof(*m));
    struct accel_vm_config config = {.io = &io, .opaque = m, .vcpus = 2, .kvm_fd = -1};
    assert_null(accel_none.vm_create(&config, &m->vm));
    assert_null(accel_none.vcpu_create(m->vm, 0, &m->vcpu));
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    struct machine *m = *state;
    accel_none.vcpu_free(m->vcpu);
    accel_none.vm_free(m->vm);
    free_cleanup(state);
    return 0;
}

static void test_accesses(void **state)
{
    struct machine *m = *state;
    assert_int_equal(none_pio_read(m->vm, 0x60, 1), 0x61);
    none_pio_write(m->vm, 0xcf8, 4, 0x80000000);
    assert_int_equal(m->last_value, 0x80000000);
    assert_int_equal(none_mmio_read(m->vm, 0x1000, 8), 0x8000);
    none_mmio_write(m->vm, 0x2000, 2, 7);
    assert_int_equal(m->last_address, 0x2000);
    none_eoi(m->vm, 0x41);
    assert_int_equal(m->eoi, 0x41);
}

static void test_doorbells(void **state)
{
    struct machine *m = *state;
    int any = eventfd(0, EFD_NONBLOCK), three = eventfd(0, EFD_NONBLOCK);
    eventfd_t count;
    assert_null(accel_none.doorbell_add(m->vm, 0x5000, 0, false, 0, any));
    assert_null(accel_none.doorbell_add(m->vm, 0x6000, 2, true, 3, three));
    none_mmio_write(m->vm, 0x5000, 4, 9);
    none_mmio_write(m->vm, 0x5000, 2, 1);
    assert_int_equal(eventfd_read(any, &count), 0);
    assert_int_equal(count, 2);
    assert_int_equal(m->writes, 0);
    none_mmio_write(m->vm, 0x6000, 2, 4); /* another value */
    none_mmio_write(m->vm, 0x6000, 4, 3); /* another width */
    assert_int_equal(m->writes, 2);
    none_mmio_write(m->vm, 0x6000, 2, 3);
    assert_int_equal(m->writes, 2);
    assert_int_equal(eventfd_read(three, &count), 0);
    accel_none.doorbell_remove(m->vm, 0x6000, 2, true, 3, three);
    none_mmio_write(m->vm, 0x6000, 2, 3);
    assert_int_equal(m->writes, 3);
    close(any);
    close(three);
}

static void test_interrupts(void **state)
{
    struct machine *m = *state;
    struct none_msi msi;
    assert_false(none_msi_take(m->vm, &msi));
    accel_none.msi_send(m->vm, 0xfee00000, 0x41);
    accel_none.msi_send(m->vm, 0xfee01000, 0x42);
    assert_int_equal(none_msi_count(m->vm), 2);
    assert_true(none_msi_take(m->vm, &msi));
    assert_int_equal(msi.data, 0x41);
    assert_true(none_msi_take(m->vm, &msi));
    assert_int_equal(msi.address, 0xfee01000);

    int fd = eventfd(0, EFD_NONBLOCK);
    unsigned gsi;
    assert_null(accel_none.irqfd_add(m->vm, fd, 0xfee00000, 0x50, &gsi));
    assert_true(gsi >= ACCEL_IOAPIC_PINS);
    none_irqfd_poll(m->vm);
    assert_int_equal(none_msi_count(m->vm), 0);
    eventfd_write(fd, 1);
    assert_null(accel_none.irqfd_route(m->vm, gsi, 0xfee00000, 0x51));
    none_irqfd_poll(m->vm);
    assert_true(none_msi_take(m->vm, &msi));
    assert_int_equal(msi.data, 0x51);
    accel_none.irqfd_remove(m->vm, gsi, fd);
    struct err *err = accel_none.irqfd_route(m->vm, gsi, 0, 0);
    assert_non_null(err);
    err_free(err);
    close(fd);

    accel_none.extint_set(m->vm, true);
    assert_true(none_extint(m->vm));
    accel_none.nmi(m->vcpu);
    assert_int_equal(none_nmi_count(m->vcpu), 1);
    struct none_route route;
    none_ioapic_route(m->vm, 4, &route);
    assert_true(route.masked);
    accel_none.ioapic_route(m->vm, 4, 0xfee00000, 0x8031, true, false);
    none_ioapic_route(m->vm, 4, &route);
    assert_false(route.masked);
    assert_true(route.level);
}

static void *run_thread(void *opaque)
{
    struct machine *m = opaque;
    accel_none.vcpu_run(m->vcpu, &m->exit);
    return NULL;
}

static void write_port(void *opaque)
{
    none_pio_write(((struct machine *)opaque)->vm, 0x80, 1, 1);
}

static void test_vcpu_thread(void **state)
{
    struct machine *m = *state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_thread, m), 0);
    none_vcpu_call(m->vcpu, write_port, m);
    assert_int_equal(m->writes, 1);
    assert_true(pthread_equal(m->io_thread, thread));
    accel_none.vcpu_kick(m->vcpu);
    pthread_join(thread, NULL);
    assert_int_equal(m->exit.reason, VM_EXIT_KICKED);
    /* A kick before the run is not lost. */
    accel_none.vcpu_kick(m->vcpu);
    run_thread(m);
    assert_int_equal(m->exit.reason, VM_EXIT_KICKED);
    none_vcpu_exit(m->vcpu, VM_EXIT_ERROR, "it broke");
    run_thread(m);
    assert_int_equal(m->exit.reason, VM_EXIT_ERROR);
    assert_string_equal(m->exit.error, "it broke");
}

static void test_state_and_models(void **state)
{
    struct machine *m = *state;
    static struct x86_state a, b;
    assert_null(accel_none.vcpu_get(m->vcpu, &a));
    assert_int_equal(a.rip, 0xfff0);
    a.gpr[X86_RCX] = 5;
    assert_null(accel_none.vcpu_set(m->vcpu, &a));
    assert_null(accel_none.vcpu_get(m->vcpu, &b));
    assert_int_equal(b.gpr[X86_RCX], 5);
    accel_none.vcpu_reset(m->vcpu);
    assert_null(accel_none.vcpu_get(m->vcpu, &b));
    assert_int_equal(b.gpr[X86_RCX], 0);
    static const char *const models[] = {"host", "x86-64-v2", "x86-64-v3"};
    struct cpuid_table supported, table;
    assert_null(accel_none.cpuid_supported(m->vm, &supported));
    for (unsigned i = 0; i < ARRAY_SIZE(models); i++) {
        struct cpu_model model = {.name = models[i]};
        struct err *err = cpuid_build(&supported, &model, 1, 2, 1000000, &table);
        if (err)
            fail_msg("%s", err_text(err));
    }
    struct accel_vcpu *extra;
    struct err *err = accel_none.vcpu_create(m->vm, 2, &extra);
    assert_non_null(err);
    err_free(err);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_accesses),    T(test_doorbells),        T(test_interrupts),
        T(test_vcpu_thread), T(test_state_and_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
