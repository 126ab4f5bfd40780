/*
 * ACPI registers of both boards: power button, sleep, PM timer, enabling, events.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "board_env.h"
#include "hw/chipset/ged.h"
#include "hw/chipset/layout.h"
#include "hw/chipset/pm.h"

#define PM LAYOUT_PORT_PM

struct fixture {
    struct board_env board;
    struct pm *pm;
    struct ged *ged;
};

static struct pm *pm_new(struct board_env *board)
{
    struct device *device = device_new(&pm_class, &board->env, "pm");
    ((struct pm *)device)->sci = board_line(board, 9);
    board_ok(device_realize(device));
    return (struct pm *)device;
}

static struct ged *ged_new(struct board_env *board)
{
    struct device *device = device_new(&ged_class, &board->env, "ged");
    ((struct ged *)device)->base = LAYOUT_GED_BASE;
    ((struct ged *)device)->irq = board_line(board, 10);
    board_ok(device_realize(device));
    return (struct ged *)device;
}

static int setup(void **state)
{
    static struct fixture f;
    board_init(&f.board);
    f.pm = pm_new(&f.board);
    f.ged = ged_new(&f.board);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    device_free(&f->pm->device);
    device_free(&f->ged->device);
    board_fini(&f->board);
    return 0;
}

static void enabling_sets_sci_en(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(board_in(&f->board, PM + 4, 2), 0);
    board_out(&f->board, 0xb2, 1, PM_SMI_ACPI_ENABLE);
    assert_int_equal(board_in(&f->board, PM + 4, 2), 1);
    /* Only the command port switches it. */
    board_out(&f->board, PM + 4, 2, 0);
    assert_int_equal(board_in(&f->board, PM + 4, 2), 1);
    board_out(&f->board, 0xb2, 1, PM_SMI_ACPI_DISABLE);
    assert_int_equal(board_in(&f->board, PM + 4, 2), 0);
    assert_int_equal(board_in(&f->board, 0xb2, 1), PM_SMI_ACPI_DISABLE);
}

static void the_power_button_interrupts(void **state)
{
    struct fixture *f = *state;
    board_out(&f->board, 0xb2, 1, PM_SMI_ACPI_ENABLE);
    pm_power_button(f->pm);
    assert_false(f->board.level[9]);
    board_out(&f->board, PM + 2, 2, 0x0120);
    assert_true(f->board.level[9]);
    assert_int_equal(board_in(&f->board, PM, 2) & 0x100, 0x100);
    assert_int_equal(board_in(&f->board, PM, 4) >> 16, 0x0120);
    board_out(&f->board, PM, 2, 0x0100);
    assert_false(f->board.level[9]);
    /* In byte accesses as well. */
    pm_power_button(f->pm);
    assert_true(f->board.level[9]);
    board_out(&f->board, PM + 1, 1, 0x01);
    assert_false(f->board.level[9]);
}

static void general_events(void **state)
{
    struct fixture *f = *state;
    board_out(&f->board, 0xb2, 1, PM_SMI_ACPI_ENABLE);
    pm_gpe_raise(f->pm, 9);
    pm_gpe_raise(f->pm, 64);
    assert_int_equal(board_in(&f->board, PM + 0x20, 2), 0x0200);
    board_out(&f->board, PM + 0x29, 1, 0x02);
    assert_true(f->board.level[9]);
    board_out(&f->board, PM + 0x21, 1, 0x02);
    assert_false(f->board.level[9]);
}

static void sleeping_powers_off(void **state)
{
    struct fixture *f = *state;
    board_out(&f->board, PM + 4, 2, 0x2000 | 3 << 10); /* no such state */
    assert_int_equal(f->board.power_count, 0);
    board_out(&f->board, PM + 4, 2, 0x2000 | PM_SLEEP_S5 << 10);
    assert_int_equal(f->board.power_count, 1);
    assert_int_equal(f->board.power, HW_POWER_OFF);
}

static void the_alarm_wakes(void **state)
{
    struct fixture *f = *state;
    struct irq_line alarm = pm_alarm_line(f->pm);
    board_out(&f->board, PM + 4, 2, 0x2000 | PM_SLEEP_S3 << 10);
    assert_int_equal(f->board.power, HW_POWER_SLEEP);
    assert_true(pm_asleep(f->pm));
    /* Not enabled: it goes on sleeping, with the flag up. */
    irq_set(&alarm, true);
    loop_once(f->board.env.loop, 100);
    assert_int_equal(f->board.power_count, 1);
    assert_int_equal(board_in(&f->board, PM, 2) & 0x8400, 0x0400);
    /* An alarm that stays up is one event. */
    board_out(&f->board, PM, 2, 0x0400);
    irq_set(&alarm, true);
    loop_once(f->board.env.loop, 0);
    assert_int_equal(board_in(&f->board, PM, 2) & 0x8400, 0);
    irq_set(&alarm, false);
    board_out(&f->board, PM + 2, 2, 0x0400);
    irq_set(&alarm, true);
    loop_once(f->board.env.loop, 100);
    assert_int_equal(f->board.power_count, 2);
    assert_int_equal(f->board.power, HW_POWER_WAKE);
    assert_false(pm_asleep(f->pm));
    assert_int_equal(board_in(&f->board, PM, 2) & 0x8400, 0x8400);

    /* With the event waiting already, sleep ends as it begins; the button needs no enabling. */
    board_out(&f->board, PM + 4, 2, 0x2000 | PM_SLEEP_S3 << 10);
    assert_int_equal(f->board.power_count, 4);
    board_out(&f->board, PM, 2, 0x8400);
    board_out(&f->board, PM + 4, 2, 0x2000 | PM_SLEEP_S3 << 10);
    assert_int_equal(f->board.power, HW_POWER_SLEEP);
    pm_power_button(f->pm);
    assert_int_equal(f->board.power, HW_POWER_WAKE);
    assert_int_equal(f->board.power_count, 6);
}

static void the_timer_runs_and_overflows(void **state)
{
    struct fixture *f = *state;
    uint64_t first = board_in(&f->board, PM + 8, 4), start = clock_now_ns();
    while (clock_now_ns() < start + 2 * NSEC_PER_MSEC)
        continue;
    uint64_t passed = (board_in(&f->board, PM + 8, 4) - first) & 0xffffff;
    assert_true(passed >= 7000 && passed < 3579545);
    /* Just before the top bit turns over, 2^23 ticks after the start. */
    lock_take(&f->pm->device.lock);
    hw_clock_set(&f->pm->clock, mul_div(1u << 23, NSEC_PER_SEC, 3579545) - 5 * NSEC_PER_MSEC);
    lock_drop(&f->pm->device.lock);
    board_out(&f->board, 0xb2, 1, PM_SMI_ACPI_ENABLE);
    assert_int_equal(board_in(&f->board, PM, 2) & 1, 0);
    board_out(&f->board, PM + 2, 2, 0x0001);
    board_wait_rises(&f->board, 9, 1);
    assert_int_equal(board_in(&f->board, PM, 2) & 1, 1);
    board_out(&f->board, PM, 2, 1);
    assert_false(f->board.level[9]);
}

static void any_write_is_survived(void **state)
{
    struct fixture *f = *state;
    for (unsigned offset = 0; offset < LAYOUT_PM_SIZE; offset++) {
        for (unsigned size = 1; size <= 4; size *= 2) {
            board_out(&f->board, (uint16_t)(PM + offset), size, UINT32_MAX & ~0x20002000u);
            board_in(&f->board, (uint16_t)(PM + offset), size);
        }
    }
    for (unsigned offset = 0; offset < GED_SIZE; offset++) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            io_bus_write(f->board.env.mmio, LAYOUT_GED_BASE + offset, size, UINT64_MAX);
            io_bus_read(f->board.env.mmio, LAYOUT_GED_BASE + offset, size);
        }
    }
}

static void ged_tells_and_sleeps(void **state)
{
    struct fixture *f = *state;
    struct io_bus *mmio = f->board.env.mmio;
    ged_power_button(f->ged);
    assert_true(f->board.level[10]);
    assert_int_equal(io_bus_read(mmio, LAYOUT_GED_BASE + GED_EVENTS, 4), GED_EVENT_POWER_BUTTON);
    assert_false(f->board.level[10]);
    assert_int_equal(io_bus_read(mmio, LAYOUT_GED_BASE + GED_EVENTS, 4), 0);
    io_bus_write(mmio, LAYOUT_GED_BASE + GED_RESET, 1, 1);
    io_bus_write(mmio, LAYOUT_GED_BASE + GED_SLEEP_CONTROL, 1, GED_SLEEP_S5 << 2);
    assert_int_equal(f->board.power_count, 0);
    io_bus_write(mmio, LAYOUT_GED_BASE + GED_SLEEP_CONTROL, 1, 0x20 | GED_SLEEP_S5 << 2);
    assert_int_equal(f->board.power, HW_POWER_OFF);
    io_bus_write(mmio, LAYOUT_GED_BASE + GED_RESET, 1, GED_RESET_VALUE);
    assert_int_equal(f->board.power, HW_POWER_RESET);
    assert_int_equal(f->board.power_count, 2);
}

static void state_comes_back(void **state)
{
    struct fixture *f = *state;
    struct board_env second;
    board_init(&second);
    struct pm *pm = pm_new(&second);
    struct ged *ged = ged_new(&second);
    board_out(&f->board, 0xb2, 1, PM_SMI_ACPI_ENABLE);
    board_out(&f->board, PM + 2, 2, 0x0101);
    board_out(&f->board, PM + 0x28, 1, 0x40);
    pm_power_button(f->pm);
    ged_power_button(f->ged);
    board_round_trip(&f->pm->device, &pm->device);
    board_round_trip(&f->ged->device, &ged->device);
    assert_int_equal(board_in(&second, PM, 2) & 0x100, 0x100);
    assert_int_equal(io_bus_read(second.env.mmio, LAYOUT_GED_BASE, 4), GED_EVENT_POWER_BUTTON);
    device_free(&pm->device);
    device_free(&ged->device);
    board_fini(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(enabling_sets_sci_en, setup, teardown),
        cmocka_unit_test_setup_teardown(the_power_button_interrupts, setup, teardown),
        cmocka_unit_test_setup_teardown(general_events, setup, teardown),
        cmocka_unit_test_setup_teardown(sleeping_powers_off, setup, teardown),
        cmocka_unit_test_setup_teardown(the_alarm_wakes, setup, teardown),
        cmocka_unit_test_setup_teardown(the_timer_runs_and_overflows, setup, teardown),
        cmocka_unit_test_setup_teardown(any_write_is_survived, setup, teardown),
        cmocka_unit_test_setup_teardown(ged_tells_and_sleeps, setup, teardown),
        cmocka_unit_test_setup_teardown(state_comes_back, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
