/*
 * The address maps of the boards: what lies where in guest-physical memory, at which port, on which
 * interrupt. The board assembly and the ACPI tables both take their numbers from here.
 *
 * Guest-physical memory, board q35:
 *   0           low RAM, at most to 0xb0000000
 *   0xa0000     legacy video hole (no RAM)
 *   0xc0000     with firmware: RAM or firmware, as the host bridge's PAM registers say
 *   0xe0000     without: ACPI tables, then SMBIOS
 *   0xb0000000  ECAM, 256 buses; firmware may move it
 *   0xc0000000  32-bit PCI window (with firmware: from the end of RAM on, around ECAM)
 *   0xfec00000  IOAPIC
 *   0xfed00000  HPET
 *   0xfed1c000  root complex registers (RCBA)
 *   0xfed40000  TPM
 *   0xfee00000  local APIC
 *   4 GiB       the rest of RAM; below it lies the firmware, at most 8 MiB
 *
 * Board micro:
 *   0           low RAM, at most to 0xc0000000 (no hole, but e820 reserves 0xa0000 to 0xfffff)
 *   0xe0000     ACPI tables, then SMBIOS
 *   0xc0000000  32-bit PCI window
 *   0xe0000000  ECAM, 1 bus
 *   0xfec00000  IOAPIC
 *   0xfed40000  ACPI event and sleep registers
 *   0xfee00000  local APIC
 *   4 GiB       the rest of RAM
 *
 * Both: the 64-bit PCI window at layout_mmio64_base().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_LAYOUT_H
#define TENON_HW_CHIPSET_LAYOUT_H

#include "base/base.h"

/* Firmware tables in the BIOS area: RAM that the memory map reports as reserved. */
#define LAYOUT_TABLES_GPA 0xe0000u /* ACPI; the RSDP comes first */
#define LAYOUT_TABLES_SIZE 0x10000u
#define LAYOUT_SMBIOS_GPA 0xf0000u /* where a kernel looks for the SMBIOS anchor */
#define LAYOUT_SMBIOS_SIZE 0xfff0u
#define LAYOUT_RESET_VECTOR 0xffff0u /* firmware/reset_vector.h */

#define LAYOUT_VIDEO_BASE 0xa0000u /* a VGA adapter's window */
#define LAYOUT_VIDEO_SIZE 0x20000u
#define LAYOUT_SHADOW_BASE 0xc0000u /* what PAM registers switch, up to 1 MiB */
#define LAYOUT_SHADOW_SEGMENT 0x4000u
#define LAYOUT_BIOS_AREA 0xe0000u /* the firmware's end shows itself from here to 1 MiB as well */
#define LAYOUT_FIRMWARE_MAX MIB(8)

#define LAYOUT_Q35_LOW_RAM_MAX 0xb0000000ull
#define LAYOUT_Q35_ECAM_BASE 0xb0000000ull
#define LAYOUT_Q35_ECAM_BUSES 256u
#define LAYOUT_Q35_MMIO32_BASE 0xc0000000ull
#define LAYOUT_Q35_MMIO32_SIZE 0x3ec00000ull /* up to the IOAPIC */

#define LAYOUT_MICRO_LOW_RAM_MAX 0xc0000000ull
#define LAYOUT_MICRO_MMIO32_BASE 0xc0000000ull
#define LAYOUT_MICRO_MMIO32_SIZE 0x20000000ull
#define LAYOUT_MICRO_ECAM_BASE 0xe0000000ull
#define LAYOUT_MICRO_ECAM_BUSES 1u

#define LAYOUT_ECAM_BUS_SIZE 0x100000ull
#define LAYOUT_HIGH_RAM_BASE GIB(4)
#define LAYOUT_MMIO64_SIZE GIB(64)

#define LAYOUT_IOAPIC_BASE 0xfec00000ull
#define LAYOUT_HPET_BASE 0xfed00000ull
#define LAYOUT_RCBA_BASE 0xfed1c000ull
#define LAYOUT_TPM_BASE 0xfed40000ull /* q35 */
#define LAYOUT_GED_BASE 0xfed40000ull /* micro */
#define LAYOUT_LAPIC_BASE 0xfee00000ull
#define LAYOUT_TESTDEV_BASE 0xff000000ull /* with --debug-exit */

/* The 64-bit PCI window: at 64 GiB, or the first multiple of 64 GiB above RAM. */
static inline uint64_t layout_mmio64_base(uint64_t ram_end)
{
    return ram_end <= GIB(64) ? GIB(64) : ALIGN_UP(ram_end, GIB(64));
}

/* I/O ports. */
#define LAYOUT_PORT_PIC_MASTER 0x20
#define LAYOUT_PORT_PIT 0x40
#define LAYOUT_PORT_I8042_DATA 0x60
#define LAYOUT_PORT_SPEAKER 0x61
#define LAYOUT_PORT_I8042_COMMAND 0x64
#define LAYOUT_PORT_RTC 0x70
#define LAYOUT_PORT_PORT92 0x92
#define LAYOUT_PORT_PIC_SLAVE 0xa0
#define LAYOUT_PORT_SMI_COMMAND 0xb2
#define LAYOUT_PORT_TESTDEV 0xe0 /* to 0xe7; with --debug-exit */
#define LAYOUT_PORT_DEBUG_CONSOLE 0xe9
#define LAYOUT_PORT_DEBUG_EXIT 0xf4
#define LAYOUT_PORT_FIRMWARE_CONSOLE 0x402
#define LAYOUT_PORT_ELCR 0x4d0
#define LAYOUT_PORT_FW_CFG 0x510
#define LAYOUT_PORT_FW_CFG_DMA 0x514
#define LAYOUT_PORT_PM 0x600 /* PM1 event, PM1 control at +4, timer at +8, GPE0 at +0x20 */
#define LAYOUT_PM_SIZE 0x80
#define LAYOUT_PORT_COM1 0x3f8
#define LAYOUT_PORT_COM2 0x2f8
#define LAYOUT_PORT_COM3 0x3e8
#define LAYOUT_PORT_COM4 0x2e8
#define LAYOUT_PORT_PCI_CF8 0xcf8
#define LAYOUT_PORT_TESTDEV_LINES 0x2000
#define LAYOUT_PORT_PCI_IO 0xc000 /* I/O BARs: up to 0xffff */
#define LAYOUT_PCI_IO_SIZE 0x4000

/*
 * Interrupts. ISA line n is IOAPIC pin n, but for the PIT: its line 0 is pin 2. PCI INTA..INTD
 * (after swizzling) are pins 16..19; GSIs and pins have the same numbers.
 */
#define LAYOUT_IRQ_PIT 0
#define LAYOUT_IRQ_KEYBOARD 1
#define LAYOUT_IRQ_COM2 3 /* and COM4 */
#define LAYOUT_IRQ_COM1 4 /* and COM3 */
#define LAYOUT_IRQ_RTC 8
#define LAYOUT_IRQ_SCI 9
#define LAYOUT_IRQ_MOUSE 12
#define LAYOUT_GSI_PIT 2
#define LAYOUT_GSI_GED 9 /* board micro: ACPI events */
#define LAYOUT_GSI_PCI 16

#endif
