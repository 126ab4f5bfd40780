/*
 * ACPI tables (ACPI 6.4): RSDP, RSDT, XSDT, FADT, FACS, MADT, MCFG, HPET, DSDT, for a directly
 * booted kernel or for firmware that puts them into memory itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_FIRMWARE_ACPI_H
#define TENON_HW_FIRMWARE_ACPI_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

#define ACPI_SERIALS_MAX 4
/* From the RSDP to the FACS (which a reduced machine lacks), and there to its waking vector. */
#define ACPI_FACS 0x40
#define ACPI_FACS_WAKING_VECTOR 12

struct acpi_config {
    unsigned cpus; /* 1..255; APIC IDs 0..cpus-1 */
    /*
     * Hardware-reduced ACPI: no PM block, PIC, PIT, RTC or HPET; events and sleep by
     * hw/chipset/ged.h at LAYOUT_GED_BASE. Otherwise the PM block of hw/chipset/pm.h and the whole
     * legacy set.
     */
    bool reduced;
    bool hpet;    /* not with `reduced` */
    bool i8042;   /* a keyboard controller answers at 0x60/0x64; not with `reduced` */
    bool ps2;     /* a keyboard and a mouse are at it */
    bool vga;     /* there is a VGA adapter */
    bool no_s3;   /* the machine cannot suspend to RAM */
    bool tpm;     /* a TPM 2.0 of hw/tpm/tpm_crb.h at LAYOUT_TPM_BASE; not with `reduced` */
    bool tpm_log; /* and firmware that keeps a log of what it measures */

    uint64_t ecam_base;                /* 0: firmware has switched it off */
    unsigned ecam_buses;               /* 1..256 */
    uint64_t mmio32_base, mmio32_size; /* PCI windows, without ECAM's place; size 0: none */
    uint64_t mmio64_base, mmio64_size;

    struct {
        uint16_t port;
        uint8_t irq;
    } serial[ACPI_SERIALS_MAX]; /* port 0: absent */
};

/* Where firmware keeps its log of measurements; it makes the room itself. */
#define ACPI_TPM_LOG_SIZE KIB(64)

/* What whoever moves the block must correct: addresses, and checksums over them. */
#define ACPI_POINTERS_MAX 16
#define ACPI_SUMS_MAX 12
struct acpi_layout {
    struct {
        uint32_t at; /* offset in the block, as all here */
        uint8_t size;
    } pointer[ACPI_POINTERS_MAX];
    struct {
        uint32_t at, start, len;
    } sum[ACPI_SUMS_MAX];
    unsigned pointers, sums;
    uint32_t tpm_log; /* of the 8 bytes for the address of the TPM's log; 0: there is none */
};

/*
 * Appends all tables to `out`, RSDP first, as one block that is to lie at `gpa` (16-byte aligned,
 * below 4 GiB). The RSDP is then at `gpa` itself. For the boards: gpa is LAYOUT_TABLES_GPA, and the
 * block must fit LAYOUT_TABLES_SIZE: an error otherwise. `layout` is optional.
 */
struct err *acpi_build(const struct acpi_config *config, uint64_t gpa, size_t size_max,
                       struct buf *out, struct acpi_layout *layout);

#endif
