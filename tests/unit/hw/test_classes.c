/*
 * Every device class that is linked: named, described, able to be saved.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "board_env.h"

static void check_table(const struct state_table *table, size_t object_size, unsigned depth)
{
    assert_true(depth < 8);
    assert_non_null(table->name);
    assert_true(table->version >= table->min_version && table->min_version >= 1);
    assert_true(table->size <= object_size);
    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        assert_non_null(field->name);
        assert_true(field->since >= 1 && field->since <= table->version);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(field->tag, table->fields[j].tag);
        if (field->pointer)
            assert_true(field->offset + sizeof(void *) <= table->size);
        else
            assert_true(field->offset + field->size * field->count <= table->size);
        if (field->type == STATE_TYPE_STRUCT)
            check_table(field->sub, field->size, depth + 1);
    }
}

static void every_class_is_complete(void **state)
{
    size_t count;
    const struct device_class *const *all = device_class_all(&count);
    assert_true(count >= 14);
    for (size_t i = 0; i < count; i++) {
        print_message("           %-16s %s\n", all[i]->name, all[i]->description);
        assert_non_null(all[i]->name);
        assert_true(all[i]->description && *all[i]->description);
        assert_true(all[i]->size >= sizeof(struct device));
        assert_non_null(all[i]->state);
        check_table(all[i]->state, all[i]->size, 0);
        assert_ptr_equal(device_class_find(all[i]->name), all[i]);
    }
    assert_null(device_class_find("flux-capacitor"));
}

static void the_boards_devices_are_there(void **state)
{
    static const char *const names[] = {
        "acpi-ged", "acpi-pm", "debug-console", "debug-exit", "host-bridge", "hpet", "i8042",
        "ioapic",   "lpc",     "pic",           "pit",        "reset-port",  "rtc",  "uart16550"};
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        assert_non_null(device_class_find(names[i]));
}

static void a_class_that_fails_says_who(void **state)
{
    struct board_env board;
    board_init(&board);
    /* An LPC bridge that is on no bus. */
    struct device *device = device_new(device_class_find("lpc"), &board.env, "lpc0");
    struct err *err = device_realize(device);
    assert_non_null(err);
    assert_non_null(strstr(err_text(err), "device 'lpc0': "));
    err_free(err);
    device_free(device);
    device_free(NULL);
    board_fini(&board);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_class_is_complete),
        cmocka_unit_test(the_boards_devices_are_there),
        cmocka_unit_test(a_class_that_fails_says_who),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
