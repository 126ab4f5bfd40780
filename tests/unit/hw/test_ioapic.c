/*
 * I/O APIC: messages, masks, remote IRR, routes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "board_env.h"
#include "hw/chipset/ioapic.h"
#include "hw/chipset/isa_irq.h"
#include "hw/chipset/layout.h"

struct fixture {
    struct board_env board;
    struct ioapic *ioapic;
    unsigned routes;
    bool level, masked;
    uint32_t data;
    uint64_t address;
};

static void route(void *opaque, unsigned pin, uint64_t address, uint32_t data, bool level,
                  bool masked)
{
    struct fixture *f = opaque;
    f->routes++;
    f->address = address;
    f->data = data;
    f->level = level;
    f->masked = masked;
}

static struct ioapic *ioapic_new(struct fixture *f)
{
    struct device *device = device_new(&ioapic_class, &f->board.env, "ioapic");
    struct ioapic *ioapic = (struct ioapic *)device;
    ioapic->base = LAYOUT_IOAPIC_BASE;
    ioapic->route = route;
    ioapic->opaque = f;
    board_ok(device_realize(device));
    return ioapic;
}

static int setup(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof(f));
    board_init(&f.board);
    f.ioapic = ioapic_new(&f);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    device_free(&f->ioapic->device);
    board_fini(&f->board);
    return 0;
}

static void set(struct fixture *f, unsigned index, uint32_t value)
{
    io_bus_write(f->board.env.mmio, LAYOUT_IOAPIC_BASE, 4, index);
    io_bus_write(f->board.env.mmio, LAYOUT_IOAPIC_BASE + 0x10, 4, value);
}

static uint32_t get(struct fixture *f, unsigned index)
{
    io_bus_write(f->board.env.mmio, LAYOUT_IOAPIC_BASE, 4, index);
    return (uint32_t)io_bus_read(f->board.env.mmio, LAYOUT_IOAPIC_BASE + 0x10, 4);
}

static void pull(struct fixture *f, unsigned pin, bool level)
{
    struct irq_line line = ioapic_line(f->ioapic, pin);
    irq_set(&line, level);
}

static void registers(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(get(f, 1), 0x00170020);
    assert_int_equal(get(f, 0x10), 0x10000);
    set(f, 0, 0xffffffff);
    assert_int_equal(get(f, 0), 0x0f000000);
    set(f, 0x10, 0xffffffff);
    assert_int_equal(get(f, 0x10), 0x1afff);
    set(f, 0x3f, 1); /* the last half entry; beyond it nothing */
    set(f, 0x40, 0x1234);
    assert_int_equal(get(f, 0x40), 0);
    for (unsigned offset = 0; offset < 0x100; offset++) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            io_bus_write(f->board.env.mmio, LAYOUT_IOAPIC_BASE + offset, size, UINT64_MAX);
            io_bus_read(f->board.env.mmio, LAYOUT_IOAPIC_BASE + offset, size);
        }
    }
}

static void edges(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(f->routes, IOAPIC_PINS);
    pull(f, 4, true); /* masked: lost */
    pull(f, 4, false);
    set(f, 0x10 + 9, 0x03000000);
    set(f, 0x10 + 8, 0x00000831);
    assert_int_equal(f->board.msi_count, 0);
    assert_int_equal(f->address, 0xfee03004);
    assert_int_equal(f->data, 0x31);
    assert_false(f->masked);
    pull(f, 4, true);
    pull(f, 4, true);
    assert_int_equal(f->board.msi_count, 1);
    assert_int_equal(f->board.msi[0].address, 0xfee03004);
    assert_int_equal(f->board.msi[0].data, 0x31);
    pull(f, 4, false);
    pull(f, 4, true);
    assert_int_equal(f->board.msi_count, 2);
}

static void levels(void **state)
{
    struct fixture *f = *state;
    pull(f, 16, true);
    set(f, 0x10 + 32, 0x8045);
    assert_true(f->level);
    assert_int_equal(f->board.msi_count, 1);
    assert_int_equal(f->board.msi[0].data & 0x80ff, 0x8045);
    assert_int_equal(get(f, 0x10 + 32), 0xc045);
    pull(f, 16, false);
    pull(f, 16, true); /* still in service */
    assert_int_equal(f->board.msi_count, 1);
    ioapic_eoi(f->ioapic, 0x44);
    assert_int_equal(f->board.msi_count, 1);
    ioapic_eoi(f->ioapic, 0x45); /* still asserted: again */
    assert_int_equal(f->board.msi_count, 2);
    pull(f, 16, false);
    io_bus_write(f->board.env.mmio, LAYOUT_IOAPIC_BASE + 0x40, 4, 0x45);
    assert_int_equal(f->board.msi_count, 2);
    assert_int_equal(get(f, 0x10 + 32), 0x8045);
    /* Masked while asserted: comes when unmasked. */
    set(f, 0x10 + 32, 0x18045);
    pull(f, 16, true);
    assert_int_equal(f->board.msi_count, 2);
    set(f, 0x10 + 32, 0x8045);
    assert_int_equal(f->board.msi_count, 3);
    /* To edge and back clears a remote IRR whose EOI got lost. */
    set(f, 0x10 + 32, 0x10045);
    assert_int_equal(get(f, 0x10 + 32), 0x10045);
}

static void isa_lines(void **state)
{
    struct fixture *f = *state;
    struct isa_irqs irqs = {.ioapic = f->ioapic};
    struct irq_line zero = isa_irq_line(&irqs, 0), four = isa_irq_line(&irqs, 4);
    irq_set(&zero, true);
    irq_set(&four, true);
    assert_int_equal(f->ioapic->levels, 1 << 2 | 1 << 4);
}

static void state_comes_back(void **state)
{
    struct fixture *f = *state;
    set(f, 0x10 + 32, 0x8045);
    pull(f, 16, true);
    pull(f, 3, true);
    struct board_env second;
    board_init(&second);
    struct device *device = device_new(&ioapic_class, &second.env, "ioapic");
    ((struct ioapic *)device)->base = LAYOUT_IOAPIC_BASE;
    board_ok(device_realize(device));
    board_round_trip(&f->ioapic->device, device);
    assert_int_equal(second.msi_count, 0); /* it is the local APIC's already */
    ioapic_eoi((struct ioapic *)device, 0x45);
    assert_int_equal(second.msi_count, 1);
    device_free(device);
    board_fini(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(registers, setup, teardown),
        cmocka_unit_test_setup_teardown(edges, setup, teardown),
        cmocka_unit_test_setup_teardown(levels, setup, teardown),
        cmocka_unit_test_setup_teardown(isa_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(state_comes_back, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
