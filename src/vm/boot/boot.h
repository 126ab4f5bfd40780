/*
 * Direct boot: puts a kernel and what it needs to know into guest memory, and the first CPU into
 * the state in which that kernel expects it. Linux bzImage and vmlinux, PVH, Multiboot 1.
 *
 * Kernel files are untrusted: every offset is checked, and a bad file is an error, never a crash.
 *
 * What the loader puts into low memory itself (all of it free for the kernel to reuse):
 *   0x00000  vectors, for Multiboot    0x00600  their handlers
 *   0x00500  GDT                       0x06000  PVH or Multiboot start information (4 KiB)
 *   0x07000  Linux zero page           0x08ff0  first stack, downwards
 *   0x09000  page tables (6 pages)     0x20000  command line (64 KiB)
 *
 * Before the vCPUs run, or while they are stopped; any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_BOOT_BOOT_H
#define TENON_VM_BOOT_BOOT_H

#include "accel/x86_state.h"
#include "base/base.h"
#include "base/err.h"
#include "gmem/gmem.h"

#define BOOT_RANGES_MAX 16

/* First vectors of the PICs, as a BIOS sets them. */
#define BOOT_PIC_MASTER_BASE 0x08
#define BOOT_PIC_SLAVE_BASE 0x70

/* Types of ACPI 6.4, table 15-374; Multiboot and PVH use the same numbers. */
enum boot_range_type { BOOT_RAM = 1, BOOT_RESERVED = 2 };

struct boot_range {
    uint64_t base, size;
    enum boot_range_type type;
};

struct boot_request {
    struct gmem *gmem;
    struct boot_range range[BOOT_RANGES_MAX]; /* memory map, in rising order */
    unsigned range_count;
    uint64_t low_end;            /* end of the RAM from 1 MiB up, below 4 GiB */
    uint64_t high_end;           /* end of the RAM from 4 GiB up; 0 when there is none */
    uint64_t rsdp;               /* address of the ACPI root pointer; 0: no ACPI */
    int kernel_fd;               /* regular files; read, never moved or closed */
    int initrd_fd;               /* -1: none */
    const char *kernel, *initrd; /* names, for errors */
    const char *append;          /* command line; NULL is "" */
};

enum boot_protocol {
    BOOT_LINUX64, /* bzImage, 64-bit entry */
    BOOT_LINUX32, /* bzImage, 32-bit entry */
    BOOT_ELF64,   /* vmlinux, 64-bit entry */
    BOOT_PVH,
    BOOT_MULTIBOOT,
};

struct boot_result {
    enum boot_protocol protocol;
    uint64_t entry;
    uint64_t kernel_base, kernel_end; /* what the kernel occupies while it starts */
    uint64_t initrd_base, initrd_size;
};

/*
 * Loads the kernel. `state` comes in as the processor's reset state and leaves ready to run. An
 * error reads "kernel 'PATH': ..." or "initrd 'PATH': ...", and guest memory may be half written.
 */
struct err *boot_load(const struct boot_request *request, struct x86_state *state,
                      struct boot_result *result);

const char *boot_protocol_name(enum boot_protocol protocol);

#endif
