/*
 * ACPI and SMBIOS tables of a board, in the BIOS area, and code at the reset vector. They are built
 * from the same numbers as the devices, and again at each reset, because they lie in RAM that the
 * guest may have used.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/layout.h"
#include "hw/firmware/acpi.h"
#include "hw/firmware/reset_vector.h"
#include "hw/firmware/smbios.h"
#include "vm/board.h"

static struct err *load(struct board *board, uint64_t gpa, const void *bytes, size_t len)
{
    if (gmem_load(board->env->gmem, gpa, bytes, len))
        return err_new("there is no guest memory at 0x%llx", (unsigned long long)gpa);
    return NULL;
}

static void describe_serials(const struct vm_config *config, struct acpi_config *acpi)
{
    static const uint16_t ports[] = {LAYOUT_PORT_COM1, LAYOUT_PORT_COM2};
    static const uint8_t irqs[] = {LAYOUT_IRQ_COM1, LAYOUT_IRQ_COM2};
    unsigned serials = 0;

    for (unsigned i = 0; i < config->console_count && serials < ARRAY_SIZE(ports); i++) {
        if (config->console[i].device != VM_CONSOLE_SERIAL)
            continue;
        acpi->serial[serials].port = ports[serials];
        acpi->serial[serials].irq = irqs[serials];
        serials++;
    }
}

static struct err *load_acpi(struct board *board)
{
    const struct board_kind *kind = board->kind;
    struct acpi_config config = {
        .cpus = board->config->cpus,
        .reduced = kind->reduced,
        .hpet = !kind->reduced,
        .i8042 = !kind->reduced,
        .ecam_base = kind->ecam_base,
        .ecam_buses = kind->ecam_buses,
        .mmio32_base = kind->mmio32_base,
        .mmio32_size = kind->mmio32_size,
        .mmio64_base = board->mmio64_base,
        .mmio64_size = board->mmio64_size,
    };
    struct buf tables = BUF_INIT;

    describe_serials(board->config, &config);
    struct err *err = acpi_build(&config, LAYOUT_TABLES_GPA, LAYOUT_TABLES_SIZE, &tables);
    if (!err)
        err = load(board, LAYOUT_TABLES_GPA, tables.data, tables.len);
    buf_fini(&tables);
    return err_wrap(err, "ACPI tables");
}

static struct err *load_smbios(struct board *board)
{
    const struct smbios_config config = {
        .name = board->config->name,
        .board = board->kind->name,
        .cpus = board->config->cpus,
        .low_ram = board->low_end,
        .high_ram = board->high_end ? board->high_end - LAYOUT_HIGH_RAM_BASE : 0,
    };
    struct buf tables = BUF_INIT;

    struct err *err = smbios_build(&config, LAYOUT_SMBIOS_GPA, LAYOUT_SMBIOS_SIZE, &tables);
    if (!err)
        err = load(board, LAYOUT_SMBIOS_GPA, tables.data, tables.len);
    buf_fini(&tables);
    return err_wrap(err, "SMBIOS tables");
}

struct err *board_load_tables(struct board *board)
{
    TRY(load_acpi(board));
    TRY(load_smbios(board));
    return err_wrap(load(board, LAYOUT_RESET_VECTOR, reset_vector, sizeof(reset_vector)),
                    "reset vector");
}
