/*
 * ACPI tables: checksums and links by our own reading, and the judgement of iasl: each table is
 * taken apart and compiled again. Without iasl that part is skipped, with a message.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "board_env.h"
#include "hw/chipset/layout.h"
#include "hw/firmware/acpi.h"

static struct acpi_config q35_config(unsigned cpus)
{
    return (struct acpi_config){
        .cpus = cpus,
        .hpet = true,
        .i8042 = true,
        .ecam_base = LAYOUT_Q35_ECAM_BASE,
        .ecam_buses = LAYOUT_Q35_ECAM_BUSES,
        .mmio32_base = LAYOUT_Q35_MMIO32_BASE,
        .mmio32_size = LAYOUT_Q35_MMIO32_SIZE,
        .mmio64_base = layout_mmio64_base(GIB(8)),
        .mmio64_size = LAYOUT_MMIO64_SIZE,
        .serial = {{LAYOUT_PORT_COM1, LAYOUT_IRQ_COM1}, {LAYOUT_PORT_COM2, LAYOUT_IRQ_COM2}},
    };
}

static struct acpi_config micro_config(unsigned cpus)
{
    return (struct acpi_config){
        .cpus = cpus,
        .reduced = true,
        .ecam_base = LAYOUT_MICRO_ECAM_BASE,
        .ecam_buses = LAYOUT_MICRO_ECAM_BUSES,
        .mmio32_base = LAYOUT_MICRO_MMIO32_BASE,
        .mmio32_size = LAYOUT_MICRO_MMIO32_SIZE,
        .mmio64_base = layout_mmio64_base(GIB(1)),
        .mmio64_size = LAYOUT_MMIO64_SIZE,
        .serial = {{LAYOUT_PORT_COM1, LAYOUT_IRQ_COM1}},
    };
}

static uint8_t sum(const uint8_t *bytes, size_t len)
{
    uint8_t total = 0;
    while (len--)
        total = (uint8_t)(total + *bytes++);
    return total;
}

static const uint8_t *table_at(const struct buf *block, uint64_t gpa)
{
    assert_true(gpa >= LAYOUT_TABLES_GPA && gpa < LAYOUT_TABLES_GPA + block->len);
    return block->data + (gpa - LAYOUT_TABLES_GPA);
}

static void write_file(const char *path, const void *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static bool have_iasl(void)
{
    return system("command -v iasl >/dev/null 2>&1") == 0;
}

static void iasl_accepts(const char *dir, const char *name, const uint8_t *table)
{
    char path[300], command[1200];
    snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
    write_file(path, table, get_le32(table + 4));
    /* Disassemble, then compile what came out: no errors, and no warnings either in a DSDT. */
    snprintf(command, sizeof(command),
             "cd %s && iasl -d %s.aml >%s.log 2>&1 && mv %s.dsl again.dsl && "
             "iasl again.dsl >>%s.log 2>&1 && grep -q '0 Errors' %s.log || { cat %s.log; exit 1; }",
             dir, name, name, name, name, name, name);
    if (system(command) != 0)
        fail_msg("iasl does not like %s", name);
}

/* Every table that the XSDT names, and the RSDT too, and the DSDT behind the FADT. */
static void check_block(const struct acpi_config *config, bool with_iasl, const char *dir)
{
    struct buf block = BUF_INIT;
    board_ok(acpi_build(config, LAYOUT_TABLES_GPA, LAYOUT_TABLES_SIZE, &block, NULL));
    assert_memory_equal(block.data, "RSD PTR ", 8);
    assert_int_equal(sum(block.data, 20), 0);
    assert_int_equal(sum(block.data, 36), 0);

    const uint8_t *xsdt = table_at(&block, get_le64(block.data + 24));
    uint32_t len = get_le32(xsdt + 4);
    assert_memory_equal(xsdt, "XSDT", 4);
    assert_int_equal(sum(xsdt, len), 0);
    const uint8_t *rsdt = table_at(&block, get_le32(block.data + 16));
    assert_memory_equal(rsdt, "RSDT", 4);
    assert_int_equal(sum(rsdt, get_le32(rsdt + 4)), 0);
    assert_int_equal(get_le32(rsdt + 4) - 36, (len - 36) / 2);
    unsigned found = 0;
    for (uint32_t at = 36; at < len; at += 8) {
        const uint8_t *table = table_at(&block, get_le64(xsdt + at));
        assert_int_equal(get_le32(rsdt + 36 + 4 * found), get_le64(xsdt + at));
        char name[5] = {0};
        memcpy(name, table, 4);
        assert_int_equal(sum(table, get_le32(table + 4)), 0);
        if (with_iasl)
            iasl_accepts(dir, name, table);
        found++;
        if (memcmp(table, "FACP", 4) == 0) {
            const uint8_t *dsdt = table_at(&block, get_le64(table + 140));
            assert_int_equal(get_le32(table + 4), 276);
            assert_int_equal(get_le32(table + 112) >> 20 & 1, config->reduced);
            assert_memory_equal(dsdt, "DSDT", 4);
            assert_int_equal(sum(dsdt, get_le32(dsdt + 4)), 0);
            if (with_iasl)
                iasl_accepts(dir, "DSDT", dsdt);
            uint32_t facs = get_le32(table + 36);
            assert_int_equal(facs != 0, !config->reduced);
            assert_int_equal(facs % 64, 0);
        }
        if (memcmp(table, "APIC", 4) == 0)
            assert_int_equal(get_le32(table + 4),
                             44 + 8 * config->cpus + 12 + 6 + (config->reduced ? 0 : 20));
    }
    assert_int_equal(found, 3 + config->hpet + config->tpm);
    buf_fini(&block);
}

static void tables_are_sound(void **state)
{
    static const unsigned cpus[] = {1, 4, 255};
    char dir[] = "/tmp/tenon-acpi-XXXXXX", command[64];
    bool iasl = have_iasl();
    if (!iasl)
        print_message("[  SKIPPED ] iasl is not installed: tables are not recompiled\n");
    assert_non_null(mkdtemp(dir));
    for (unsigned i = 0; i < ARRAY_SIZE(cpus); i++) {
        struct acpi_config q35 = q35_config(cpus[i]), micro = micro_config(cpus[i]);
        check_block(&q35, iasl, dir);
        q35.tpm = true;
        check_block(&q35, iasl, dir);
        q35.tpm_log = true;
        check_block(&q35, iasl, dir);
        check_block(&micro, iasl, dir);
    }
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void refuses(const struct acpi_config *config, uint64_t gpa, size_t size_max)
{
    struct buf block = BUF_INIT;
    struct err *err = acpi_build(config, gpa, size_max, &block, NULL);
    assert_non_null(err);
    err_free(err);
    buf_fini(&block);
}

static void what_does_not_fit_is_refused(void **state)
{
    struct acpi_config config = q35_config(4);
    refuses(&config, LAYOUT_TABLES_GPA, 1000);
    refuses(&config, LAYOUT_TABLES_GPA + 4, LAYOUT_TABLES_SIZE);
    config.cpus = 256;
    refuses(&config, LAYOUT_TABLES_GPA, LAYOUT_TABLES_SIZE);
    config.cpus = 0;
    refuses(&config, LAYOUT_TABLES_GPA, LAYOUT_TABLES_SIZE);
    config = micro_config(1);
    config.hpet = true;
    refuses(&config, LAYOUT_TABLES_GPA, LAYOUT_TABLES_SIZE);
    config.hpet = false;
    config.tpm = true;
    refuses(&config, LAYOUT_TABLES_GPA, LAYOUT_TABLES_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_sound),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
