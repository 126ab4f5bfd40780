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
#include "hw/pci/host_bridge.h"
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

/*
 * Firmware puts BARs wherever there is no RAM, and ECAM among them; otherwise all has its place.
 */
static void describe_windows(const struct board *board, struct acpi_config *acpi)
{
    const struct board_kind *kind = board->kind;

    acpi->ecam_base = kind->ecam_base;
    acpi->ecam_buses = kind->ecam_buses;
    acpi->mmio32_base = kind->mmio32_base;
    acpi->mmio32_size = kind->mmio32_size;
    acpi->mmio64_base = board->mmio64_base;
    acpi->mmio64_size = board->mmio64_size;
    if (!board_has_firmware(board))
        return;
    acpi->ecam_base = host_bridge_ecam(board->bridge);
    acpi->mmio32_base = ALIGN_UP(board->low_end, (uint64_t)MIB(1));
    acpi->mmio32_size = kind->mmio32_base + kind->mmio32_size - acpi->mmio32_base;
    if (acpi->mmio64_size) {
        uint64_t end = board->mmio64_base + board->mmio64_size;
        acpi->mmio64_base = ALIGN_UP(MAX(board->high_end, (uint64_t)GIB(4)), (uint64_t)GIB(1));
        acpi->mmio64_size = end - acpi->mmio64_base;
    }
}

void board_describe_acpi(const struct board *board, struct acpi_config *acpi)
{
    bool reduced = board->kind->reduced;

    *acpi = (struct acpi_config){
        .cpus = board->config->cpus,
        .reduced = reduced,
        .hpet = !reduced,
        .i8042 = !reduced,
        .ps2 = board_has_ps2(board),
        .vga = board->config->vga,
        .no_s3 = board_has_firmware(board),
        .tpm = board->config->tpm,
        .tpm_log = board->config->tpm && board_has_firmware(board),
    };
    describe_windows(board, acpi);
    describe_serials(board->config, acpi);
}

static struct err *load_acpi(struct board *board)
{
    struct acpi_config config;
    struct buf tables = BUF_INIT;

    board_describe_acpi(board, &config);
    struct err *err = acpi_build(&config, LAYOUT_TABLES_GPA, LAYOUT_TABLES_SIZE, &tables, NULL);
    if (!err)
        err = load(board, LAYOUT_TABLES_GPA, tables.data, tables.len);
    buf_fini(&tables);
    return err_wrap(err, "ACPI tables");
}

void board_describe_smbios(const struct board *board, struct smbios_config *smbios)
{
    *smbios = (struct smbios_config){
        .name = board->config->name,
        .board = board->kind->name,
        .cpus = board->config->cpus,
        .low_ram = board->low_end,
        .high_ram = board->high_end ? board->high_end - LAYOUT_HIGH_RAM_BASE : 0,
    };
}

static struct err *load_smbios(struct board *board)
{
    struct smbios_config config;
    struct buf tables = BUF_INIT;

    board_describe_smbios(board, &config);
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
