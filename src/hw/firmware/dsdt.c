/*
 * The DSDT: the devices that no bus can enumerate, PCI windows and interrupt wiring, S5.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>

#include "hw/chipset/ged.h"
#include "hw/chipset/layout.h"
#include "hw/chipset/pm.h"
#include "hw/firmware/aml.h"
#include "hw/firmware/dsdt.h"
#include "hw/tpm/tpm_crb.h"

#define NOTIFY_PRESSED 0x80
#define OSC_PCI "33DB4D5B-1FF7-401C-9657-7441C03DD766"
#define OSC_UNKNOWN_UUID 4

struct dsdt {
    struct aml aml;
    struct buf scratch; /* resource template being written */
    const struct acpi_config *config;
};

static void begin_device(struct dsdt *dsdt, const char *name, const char *hid, unsigned uid)
{
    aml_device(&dsdt->aml, name);
    aml_name(&dsdt->aml, "_HID");
    aml_eisa_id(&dsdt->aml, hid);
    aml_name_integer(&dsdt->aml, "_UID", uid);
    dsdt->scratch.len = 0;
}

/* Writes the resources gathered in `scratch` and closes the device. */
static void end_device(struct dsdt *dsdt)
{
    if (dsdt->scratch.len) {
        aml_name(&dsdt->aml, "_CRS");
        aml_resources_end(&dsdt->aml, &dsdt->scratch);
    }
    aml_end(&dsdt->aml);
}

static void serial_ports(struct dsdt *dsdt)
{
    for (unsigned i = 0; i < ACPI_SERIALS_MAX; i++) {
        uint16_t port = dsdt->config->serial[i].port;
        char name[8];
        if (!port)
            continue;
        snprintf(name, sizeof(name), "COM%u", (i + 1) % 10);
        begin_device(dsdt, name, "PNP0501", i + 1);
        aml_res_io(&dsdt->scratch, port, 8);
        aml_res_irq(&dsdt->scratch, dsdt->config->serial[i].irq);
        end_device(dsdt);
    }
}

static void keyboard_and_mouse(struct dsdt *dsdt)
{
    begin_device(dsdt, "KBD", "PNP0303", 0);
    aml_res_io(&dsdt->scratch, LAYOUT_PORT_I8042_DATA, 1);
    aml_res_io(&dsdt->scratch, LAYOUT_PORT_I8042_COMMAND, 1);
    aml_res_irq(&dsdt->scratch, LAYOUT_IRQ_KEYBOARD);
    end_device(dsdt);

    begin_device(dsdt, "MOU", "PNP0F13", 0);
    aml_res_irq(&dsdt->scratch, LAYOUT_IRQ_MOUSE);
    end_device(dsdt);
}

static void legacy_devices(struct dsdt *dsdt)
{
    struct buf *res = &dsdt->scratch;
    aml_device(&dsdt->aml, "ISA");
    aml_name_integer(&dsdt->aml, "_ADR", 0x001f0000);

    begin_device(dsdt, "PIC", "PNP0000", 0);
    aml_res_io(res, LAYOUT_PORT_PIC_MASTER, 2);
    aml_res_io(res, LAYOUT_PORT_PIC_SLAVE, 2);
    aml_res_io(res, LAYOUT_PORT_ELCR, 2);
    aml_res_irq(res, 2);
    end_device(dsdt);

    begin_device(dsdt, "TIMR", "PNP0100", 0);
    aml_res_io(res, LAYOUT_PORT_PIT, 4);
    if (!dsdt->config->hpet)
        aml_res_irq(res, LAYOUT_IRQ_PIT);
    end_device(dsdt);

    begin_device(dsdt, "SPKR", "PNP0800", 0);
    aml_res_io(res, LAYOUT_PORT_SPEAKER, 1);
    end_device(dsdt);

    begin_device(dsdt, "RTC", "PNP0B00", 0);
    aml_res_io(res, LAYOUT_PORT_RTC, 2);
    aml_res_irq(res, LAYOUT_IRQ_RTC);
    end_device(dsdt);

    if (dsdt->config->ps2)
        keyboard_and_mouse(dsdt);
    serial_ports(dsdt);
    aml_end(&dsdt->aml);
}

/* Interrupt wiring as hw/pci/bus.c does it: INTx of a slot is line (slot + x) % 4. */
static void interrupt_routing(struct aml *aml)
{
    aml_name(aml, "_PRT");
    aml_package(aml, 31 * 4);
    for (unsigned slot = 1; slot < 32; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            aml_package(aml, 4);
            aml_integer(aml, (uint64_t)slot << 16 | 0xffff);
            aml_integer(aml, pin);
            aml_integer(aml, 0); /* no link device: the next is a GSI */
            aml_integer(aml, LAYOUT_GSI_PCI + (slot + pin) % 4);
            aml_end(aml);
        }
    }
    aml_end(aml);
}

/* The guest may control everything that PCI Express offers: there is no firmware that would. */
static void osc_method(struct aml *aml)
{
    aml_method(aml, "_OSC", 4, false);
    aml_if(aml);
    aml_op(aml, AML_EQUAL);
    aml_op(aml, AML_ARG0);
    aml_uuid(aml, OSC_PCI);
    aml_op(aml, AML_RETURN);
    aml_op(aml, AML_ARG0 + 3);
    aml_end(aml);
    aml_op(aml, AML_CREATE_DWORD_FIELD);
    aml_op(aml, AML_ARG0 + 3);
    aml_integer(aml, 0);
    aml_path(aml, "CDW1");
    aml_op(aml, AML_OR);
    aml_path(aml, "CDW1");
    aml_integer(aml, OSC_UNKNOWN_UUID);
    aml_path(aml, "CDW1");
    aml_op(aml, AML_RETURN);
    aml_op(aml, AML_ARG0 + 3);
    aml_end(aml);
}

/* The 32-bit window, in two parts where firmware put ECAM into its middle. */
static void memory32_windows(const struct acpi_config *config, struct buf *res)
{
    uint64_t base = config->mmio32_base, end = base + config->mmio32_size;
    uint64_t ecam = config->ecam_base, behind = ecam + config->ecam_buses * LAYOUT_ECAM_BUS_SIZE;

    if (!ecam || ecam >= end || behind <= base)
        ecam = behind = end;
    if (ecam > base)
        aml_res_window(res, AML_WINDOW_MEMORY, base, ecam - base);
    if (end > behind)
        aml_res_window(res, AML_WINDOW_MEMORY, behind, end - behind);
}

static void pci_root(struct dsdt *dsdt)
{
    const struct acpi_config *config = dsdt->config;
    struct aml *aml = &dsdt->aml;
    struct buf *res = &dsdt->scratch;
    aml_device(aml, "PCI0");
    aml_name(aml, "_HID");
    aml_eisa_id(aml, "PNP0A08");
    aml_name(aml, "_CID");
    aml_eisa_id(aml, "PNP0A03");
    aml_name_integer(aml, "_UID", 0);
    aml_name_integer(aml, "_SEG", 0);
    aml_name_integer(aml, "_BBN", 0);
    aml_name_integer(aml, "_CCA", 1);
    aml_resources(aml, res);
    aml_res_window(res, AML_WINDOW_BUS, 0, config->ecam_buses);
    if (!config->reduced) {
        aml_res_io(res, LAYOUT_PORT_PCI_CF8, 8);
        aml_res_window(res, AML_WINDOW_IO, 0, LAYOUT_PORT_PCI_CF8);
        aml_res_window(res, AML_WINDOW_IO, LAYOUT_PORT_PCI_CF8 + 8,
                       0x10000 - LAYOUT_PORT_PCI_CF8 - 8);
    }
    if (config->vga)
        aml_res_window(res, AML_WINDOW_MEMORY, LAYOUT_VIDEO_BASE, LAYOUT_VIDEO_SIZE);
    memory32_windows(config, res);
    if (config->mmio64_size)
        aml_res_window(res, AML_WINDOW_MEMORY, config->mmio64_base, config->mmio64_size);
    aml_resources_end(aml, res);
    interrupt_routing(aml);
    osc_method(aml);
    if (!config->reduced)
        legacy_devices(dsdt);
    aml_end(aml);
}

/* Addresses that are taken, so that nobody puts a BAR there. The kernel looks for the ECAM here. */
static void board_resources(struct dsdt *dsdt)
{
    const struct acpi_config *config = dsdt->config;
    struct buf *res = &dsdt->scratch;
    begin_device(dsdt, "MBRD", "PNP0C02", 0);
    if (config->ecam_base)
        aml_res_memory32(res, (uint32_t)config->ecam_base,
                         (uint32_t)(config->ecam_buses * LAYOUT_ECAM_BUS_SIZE));
    if (config->reduced) {
        aml_res_memory32(res, (uint32_t)LAYOUT_GED_BASE, GED_SIZE);
    } else {
        aml_res_memory32(res, (uint32_t)LAYOUT_RCBA_BASE, 0x4000);
        aml_res_io(res, LAYOUT_PORT_PM, LAYOUT_PM_SIZE);
        aml_res_io(res, LAYOUT_PORT_SMI_COMMAND, 2);
    }
    end_device(dsdt);
}

static void hpet_device(struct dsdt *dsdt)
{
    begin_device(dsdt, "HPET", "PNP0103", 0);
    aml_res_memory32(&dsdt->scratch, (uint32_t)LAYOUT_HPET_BASE, 0x400);
    end_device(dsdt);
}

static void tpm_device(struct dsdt *dsdt)
{
    aml_device(&dsdt->aml, "TPM");
    aml_name(&dsdt->aml, "_HID");
    aml_string(&dsdt->aml, "MSFT0101");
    dsdt->scratch.len = 0;
    aml_res_memory32(&dsdt->scratch, (uint32_t)LAYOUT_TPM_BASE, TPM_CRB_SIZE);
    end_device(dsdt);
}

/* Power button of a machine without PM registers: an interrupt, a register, a notification. */
static void event_device(struct dsdt *dsdt)
{
    struct aml *aml = &dsdt->aml;
    begin_device(dsdt, "PWRB", "PNP0C0C", 0);
    end_device(dsdt);

    aml_device(aml, "GED");
    aml_name(aml, "_HID");
    aml_string(aml, "ACPI0013");
    aml_name_integer(aml, "_UID", 0);
    aml_resources(aml, &dsdt->scratch);
    aml_res_interrupt(&dsdt->scratch, LAYOUT_GSI_GED, true);
    aml_resources_end(aml, &dsdt->scratch);
    aml_region(aml, "EREG", AML_SYSTEM_MEMORY, LAYOUT_GED_BASE + GED_EVENTS, 4);
    aml_field32(aml, "EREG", "EVTS");
    aml_method(aml, "_EVT", 1, true);
    aml_op(aml, AML_STORE); /* reading also clears */
    aml_path(aml, "EVTS");
    aml_op(aml, AML_LOCAL0);
    aml_if(aml);
    aml_op(aml, AML_AND);
    aml_op(aml, AML_LOCAL0);
    aml_integer(aml, GED_EVENT_POWER_BUTTON);
    aml_op(aml, AML_ZERO); /* no target */
    aml_op(aml, AML_NOTIFY);
    aml_path(aml, "\\_SB.PWRB");
    aml_integer(aml, NOTIFY_PRESSED);
    aml_end(aml);
    aml_end(aml);
    aml_end(aml);
}

static void processors(struct dsdt *dsdt)
{
    for (unsigned i = 0; i < dsdt->config->cpus; i++) {
        char name[8];
        snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        aml_device(&dsdt->aml, name);
        aml_name(&dsdt->aml, "_HID");
        aml_string(&dsdt->aml, "ACPI0007");
        aml_name_integer(&dsdt->aml, "_UID", i);
        aml_end(&dsdt->aml);
    }
}

static void sleep_state(struct aml *aml, const char *name, unsigned type)
{
    aml_name(aml, name);
    aml_package(aml, 4);
    aml_integer(aml, type);
    aml_integer(aml, type);
    aml_integer(aml, 0);
    aml_integer(aml, 0);
    aml_end(aml);
}

void dsdt_body(const struct acpi_config *config, struct buf *out)
{
    struct dsdt dsdt = {.aml = {.out = out}, .config = config};
    struct aml *aml = &dsdt.aml;

    aml_scope(aml, "\\_SB");
    pci_root(&dsdt);
    board_resources(&dsdt);
    if (config->hpet)
        hpet_device(&dsdt);
    if (config->tpm)
        tpm_device(&dsdt);
    if (config->reduced) {
        serial_ports(&dsdt);
        event_device(&dsdt);
    }
    processors(&dsdt);
    aml_end(aml);

    if (!config->reduced && !config->no_s3)
        sleep_state(aml, "\\_S3", PM_SLEEP_S3);
    sleep_state(aml, "\\_S5", config->reduced ? GED_SLEEP_S5 : PM_SLEEP_S5);
    buf_fini(&dsdt.scratch);
}
