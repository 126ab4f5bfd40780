/*
 * The fixed ACPI tables (ACPI 6.4, 5.2), and their way into one block. See acpi.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/chipset/ged.h"
#include "hw/chipset/hpet.h"
#include "hw/chipset/layout.h"
#include "hw/chipset/pm.h"
#include "hw/firmware/acpi.h"
#include "hw/firmware/dsdt.h"
#include "hw/tpm/tpm_crb.h"

#define HEADER_SIZE 36
#define RSDP_SIZE 36
#define TABLES_MAX 8
#define FACS_SIZE 64

/* FADT: fixed feature flags, and IA-PC boot architecture flags. */
#define FADT_SIZE 276
#define FADT_WBINVD (1u << 0)
#define FADT_PROC_C1 (1u << 2)
#define FADT_NO_FIXED_POWER_BUTTON (1u << 4)
#define FADT_NO_FIXED_SLEEP_BUTTON (1u << 5)
#define FADT_NO_FIXED_RTC (1u << 6)
#define FADT_RESET_REGISTER (1u << 10)
#define FADT_REDUCED (1u << 20)
#define BOOT_LEGACY_DEVICES (1u << 0)
#define BOOT_8042 (1u << 1)
#define BOOT_NO_VGA (1u << 2)
#define BOOT_NO_CMOS_RTC (1u << 5)

#define MADT_PCAT_COMPAT 1u
#define MADT_LEVEL_HIGH 0x000d
#define TPM2_START_CRB 7u

enum gas_space { GAS_MEMORY = 0, GAS_IO = 1 };

struct builder {
    const struct acpi_config *config;
    struct buf *out;
    size_t start;               /* of the block in `out` */
    uint64_t gpa;               /* of the block */
    uint64_t table[TABLES_MAX]; /* addresses for RSDT and XSDT */
    unsigned tables;
    struct acpi_layout layout;
};

static uint8_t checksum(const uint8_t *bytes, size_t len)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + bytes[i]);
    return (uint8_t)-sum;
}

/* The address that the next byte will have, after aligning it. */
static uint64_t align(struct builder *b, unsigned to)
{
    uint64_t here = b->gpa + (b->out->len - b->start);
    buf_extend(b->out, (size_t)(ALIGN_UP(here, (uint64_t)to) - here));
    return ALIGN_UP(here, (uint64_t)to);
}

static uint64_t begin_table(struct builder *b, const char *signature, uint8_t revision)
{
    uint64_t address = align(b, 16);
    buf_append(b->out, signature, 4);
    buf_le32(b->out, 0); /* length, by end_table */
    buf_u8(b->out, revision);
    buf_u8(b->out, 0); /* checksum, likewise */
    buf_text(b->out, "TENON ");
    buf_text(b->out, "TENONVMM");
    buf_le32(b->out, 1);
    buf_text(b->out, "TENN");
    buf_le32(b->out, 1);
    return address;
}

static uint8_t *at(struct builder *b, uint64_t address)
{
    return b->out->data + b->start + (address - b->gpa);
}

/* Writes an address into the byte range [offset, offset+size) of the table at `address`. */
static void put_pointer(struct builder *b, uint64_t address, unsigned offset, uint8_t size,
                        uint64_t target)
{
    unsigned n = b->layout.pointers++;

    put_le(at(b, address) + offset, size, target);
    if (n < ACPI_POINTERS_MAX) {
        b->layout.pointer[n].at = (uint32_t)(address - b->gpa) + offset;
        b->layout.pointer[n].size = size;
    }
}

static void put_checksum(struct builder *b, uint64_t address, unsigned offset, size_t len)
{
    uint8_t *table = at(b, address);
    unsigned n = b->layout.sums++;

    table[offset] = checksum(table, len);
    if (n < ACPI_SUMS_MAX) {
        b->layout.sum[n].at = (uint32_t)(address - b->gpa) + offset;
        b->layout.sum[n].start = (uint32_t)(address - b->gpa);
        b->layout.sum[n].len = (uint32_t)len;
    }
}

static void end_table(struct builder *b, uint64_t address, bool listed)
{
    uint8_t *table = at(b, address);
    size_t len = (size_t)(b->out->data + b->out->len - table);
    put_le32(table + 4, (uint32_t)len);
    put_checksum(b, address, 9, len);
    if (listed)
        b->table[b->tables++] = address;
}

/* A generic address structure; access size by width. */
static void put_gas(uint8_t *gas, enum gas_space space, unsigned bits, uint64_t address)
{
    gas[0] = (uint8_t)space;
    gas[1] = (uint8_t)bits;
    gas[3] = bits >= 32 ? 3 : bits >= 16 ? 2 : 1;
    put_le64(gas + 4, address);
}

static void fadt_pm(uint8_t *fadt, const struct acpi_config *config)
{
    put_le16(fadt + 46, LAYOUT_IRQ_SCI);
    put_le32(fadt + 48, LAYOUT_PORT_SMI_COMMAND);
    fadt[52] = PM_SMI_ACPI_ENABLE;
    fadt[53] = PM_SMI_ACPI_DISABLE;
    put_le32(fadt + 56, LAYOUT_PORT_PM + PM_PM1_EVENT);
    put_le32(fadt + 64, LAYOUT_PORT_PM + PM_PM1_CONTROL);
    put_le32(fadt + 76, LAYOUT_PORT_PM + PM_TIMER);
    put_le32(fadt + 80, LAYOUT_PORT_PM + PM_GPE0);
    fadt[88] = 4;
    fadt[89] = 2;
    fadt[91] = 4;
    fadt[92] = PM_GPE0_BYTES;
    put_le16(fadt + 96, 0xfff); /* C2 and C3: so slow that nobody takes them */
    put_le16(fadt + 98, 0xfff);
    fadt[108] = 0x32; /* CMOS byte of the century */
    put_le16(fadt + 109, (uint16_t)(BOOT_LEGACY_DEVICES | (config->vga ? 0 : BOOT_NO_VGA) |
                                    (config->i8042 ? BOOT_8042 : 0)));
    put_le32(fadt + 112,
             FADT_WBINVD | FADT_PROC_C1 | FADT_NO_FIXED_SLEEP_BUTTON | FADT_RESET_REGISTER);
    put_gas(fadt + 116, GAS_IO, 8, 0xcf9);
    fadt[128] = 0x06;
    put_gas(fadt + 148, GAS_IO, 32, LAYOUT_PORT_PM + PM_PM1_EVENT);
    put_gas(fadt + 172, GAS_IO, 16, LAYOUT_PORT_PM + PM_PM1_CONTROL);
    put_gas(fadt + 208, GAS_IO, 32, LAYOUT_PORT_PM + PM_TIMER);
    put_gas(fadt + 220, GAS_IO, 8 * PM_GPE0_BYTES, LAYOUT_PORT_PM + PM_GPE0);
    fadt[220 + 3] = 1; /* GPE registers are accessed in bytes */
}

static void fadt_reduced(uint8_t *fadt)
{
    put_le16(fadt + 109, BOOT_NO_VGA | BOOT_NO_CMOS_RTC);
    put_le32(fadt + 112, FADT_WBINVD | FADT_PROC_C1 | FADT_NO_FIXED_POWER_BUTTON |
                             FADT_NO_FIXED_SLEEP_BUTTON | FADT_NO_FIXED_RTC | FADT_RESET_REGISTER |
                             FADT_REDUCED);
    put_gas(fadt + 116, GAS_MEMORY, 8, LAYOUT_GED_BASE + GED_RESET);
    fadt[128] = GED_RESET_VALUE;
    put_gas(fadt + 244, GAS_MEMORY, 8, LAYOUT_GED_BASE + GED_SLEEP_CONTROL);
    put_gas(fadt + 256, GAS_MEMORY, 8, LAYOUT_GED_BASE + GED_SLEEP_STATUS);
}

static void fadt(struct builder *b, uint64_t facs, uint64_t dsdt)
{
    uint64_t address = begin_table(b, "FACP", 6);
    buf_extend(b->out, FADT_SIZE - HEADER_SIZE);
    uint8_t *table = at(b, address);
    put_pointer(b, address, 40, 4, dsdt);
    table[131] = 4; /* minor version: ACPI 6.4 */
    put_pointer(b, address, 140, 8, dsdt);
    memcpy(table + 268, "TENON\0\0", 8); /* hypervisor vendor */
    if (b->config->reduced)
        fadt_reduced(table);
    else
        fadt_pm(table, b->config);
    if (facs)
        put_pointer(b, address, 36, 4, facs);
    end_table(b, address, true);
}

static uint64_t facs(struct builder *b)
{
    uint64_t address = align(b, 64);
    uint8_t *table = buf_extend(b->out, FACS_SIZE);
    memcpy(table, "FACS", 4);
    put_le32(table + 4, FACS_SIZE);
    table[32] = 2; /* version */
    return address;
}

static void override(struct buf *out, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    buf_u8(out, 2);
    buf_u8(out, 10);
    buf_u8(out, 0); /* ISA */
    buf_u8(out, irq);
    buf_le32(out, gsi);
    buf_le16(out, flags);
}

static void madt(struct builder *b)
{
    struct buf *out = b->out;
    uint64_t address = begin_table(b, "APIC", 5);
    buf_le32(out, (uint32_t)LAYOUT_LAPIC_BASE);
    buf_le32(out, b->config->reduced ? 0 : MADT_PCAT_COMPAT);
    for (unsigned cpu = 0; cpu < b->config->cpus; cpu++) {
        buf_u8(out, 0);
        buf_u8(out, 8);
        buf_u8(out, (uint8_t)cpu); /* the processor device's _UID */
        buf_u8(out, (uint8_t)cpu); /* APIC ID */
        buf_le32(out, 1);          /* enabled */
    }
    buf_u8(out, 1);
    buf_u8(out, 12);
    buf_le16(out, 0); /* IOAPIC ID, reserved */
    buf_le32(out, (uint32_t)LAYOUT_IOAPIC_BASE);
    buf_le32(out, 0); /* its first GSI */
    if (!b->config->reduced) {
        override(out, LAYOUT_IRQ_PIT, LAYOUT_GSI_PIT, 0);
        override(out, LAYOUT_IRQ_SCI, LAYOUT_IRQ_SCI, MADT_LEVEL_HIGH);
    }
    buf_u8(out, 4); /* NMI on LINT1 of every processor */
    buf_u8(out, 6);
    buf_u8(out, 0xff);
    buf_le16(out, 0);
    buf_u8(out, 1);
    end_table(b, address, true);
}

static void mcfg(struct builder *b)
{
    uint64_t address = begin_table(b, "MCFG", 1);
    buf_le64(b->out, 0);
    buf_le64(b->out, b->config->ecam_base);
    buf_le16(b->out, 0); /* segment */
    buf_u8(b->out, 0);   /* first and last bus */
    buf_u8(b->out, (uint8_t)(b->config->ecam_buses - 1));
    buf_le32(b->out, 0);
    end_table(b, address, true);
}

static void hpet(struct builder *b)
{
    uint64_t address = begin_table(b, "HPET", 1);
    buf_le32(b->out, HPET_BLOCK_ID);
    put_gas(buf_extend(b->out, 12), GAS_MEMORY, 64, LAYOUT_HPET_BASE);
    buf_u8(b->out, 0); /* the first HPET */
    /* Ticks that a periodic timer needs at least: what hw/chipset/hpet.c grants. */
    buf_le16(b->out, 100000 / HPET_TICK_NS);
    buf_u8(b->out, 0); /* its page is not shared with anything that wants protection */
    end_table(b, address, true);
}

/* TCG ACPI Specification 1.2, table 7; without a log as in revision 3. */
static void tpm2(struct builder *b)
{
    uint64_t address = begin_table(b, "TPM2", b->config->tpm_log ? 4 : 3);
    buf_le32(b->out, 0); /* platform class: client */
    buf_le64(b->out, LAYOUT_TPM_BASE + TPM_CRB_CONTROL);
    buf_le32(b->out, TPM2_START_CRB);
    if (b->config->tpm_log) {
        buf_extend(b->out, 12); /* parameters of the start method: none */
        buf_le32(b->out, (uint32_t)ACPI_TPM_LOG_SIZE);
        b->layout.tpm_log = (uint32_t)(b->out->len - b->start);
        buf_le64(b->out, 0);
    }
    end_table(b, address, true);
}

/* RSDT or XSDT, by the size of its addresses. */
static uint64_t root_table(struct builder *b, const char *signature, uint8_t size)
{
    uint64_t address = begin_table(b, signature, 1);
    buf_extend(b->out, (size_t)size * b->tables);
    for (unsigned i = 0; i < b->tables; i++)
        put_pointer(b, address, HEADER_SIZE + size * i, size, b->table[i]);
    end_table(b, address, false);
    return address;
}

static void rsdp(struct builder *b)
{
    /* Who knows ACPI 1.0 alone looks for an RSDT at any address, 0 too: GRUB's `halt` does. */
    uint64_t rsdt = root_table(b, "RSDT", 4), xsdt = root_table(b, "XSDT", 8);
    uint8_t *table = at(b, b->gpa);
    memcpy(table, "RSD PTR ", 8);
    memcpy(table + 9, "TENON ", 6);
    table[15] = 2; /* revision */
    put_pointer(b, b->gpa, 16, 4, rsdt);
    put_le32(table + 20, RSDP_SIZE);
    put_pointer(b, b->gpa, 24, 8, xsdt);
    put_checksum(b, b->gpa, 8, 20);
    put_checksum(b, b->gpa, 32, RSDP_SIZE);
}

static struct err *config_check(const struct acpi_config *config, uint64_t gpa)
{
    if (config->cpus < 1 || config->cpus > 255)
        return err_new("ACPI: %u processors do not fit the tables", config->cpus);
    if ((!config->ecam_base && config->reduced) || config->ecam_buses < 1 ||
        config->ecam_buses > 256)
        return err_new("ACPI: the PCI configuration window is missing");
    if (config->reduced && (config->hpet || config->i8042 || config->tpm))
        return err_new("ACPI: a hardware-reduced machine has no HPET, i8042 or TPM");
    if (gpa % 16 || gpa >= GIB(4))
        return err_new("ACPI: the tables cannot lie at 0x%llx", (unsigned long long)gpa);
    return NULL;
}

struct err *acpi_build(const struct acpi_config *config, uint64_t gpa, size_t size_max,
                       struct buf *out, struct acpi_layout *layout)
{
    TRY(config_check(config, gpa));
    struct builder b = {.config = config, .out = out, .start = out->len, .gpa = gpa};
    buf_extend(out, RSDP_SIZE);
    uint64_t facs_address = config->reduced ? 0 : facs(&b);
    if (facs_address && facs_address != gpa + ACPI_FACS)
        return err_new("ACPI: the tables must lie at a multiple of 64");
    uint64_t dsdt_address = begin_table(&b, "DSDT", 2);
    dsdt_body(config, out);
    end_table(&b, dsdt_address, false);
    fadt(&b, facs_address, dsdt_address);
    madt(&b);
    if (config->ecam_base)
        mcfg(&b);
    if (config->hpet)
        hpet(&b);
    if (config->tpm)
        tpm2(&b);
    rsdp(&b);
    if (out->len - b.start > size_max)
        return err_new("ACPI: the tables need %zu bytes, there are %zu", out->len - b.start,
                       size_max);
    if (b.layout.pointers > ACPI_POINTERS_MAX || b.layout.sums > ACPI_SUMS_MAX)
        return err_new("ACPI: more pointers than their list holds");
    if (layout)
        *layout = b.layout;
    return NULL;
}
