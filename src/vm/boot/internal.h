/*
 * Shared by the loaders.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_BOOT_INTERNAL_H
#define TENON_VM_BOOT_INTERNAL_H

#include "vm/boot/boot.h"

/* Low memory, see boot.h. */
#define BOOT_GDT 0x500u
#define BOOT_HANDLERS 0x600u
#define BOOT_INFO 0x6000u
#define BOOT_INFO_SIZE 0x1000u
#define BOOT_ZERO_PAGE 0x7000u
#define BOOT_STACK 0x8ff0u
#define BOOT_PAGE_TABLES 0x9000u
#define BOOT_CMDLINE 0x20000u
#define BOOT_CMDLINE_SIZE 0x10000u
#define BOOT_LOW_END 0x9fc00u /* of conventional memory, as the memory map says */
/* Kernels lie above: below are the BIOS area and the loader's own things. */
#define BOOT_KERNEL_MIN 0x100000u

/* A kernel or initrd file. */
struct boot_file {
    int fd;
    const char *kind, *name; /* "kernel", its path */
    uint64_t size;
};

struct err *boot_file_open(struct boot_file *file, int fd, const char *kind, const char *name);
/* "kernel 'PATH': cause" */
struct err *boot_file_error(const struct boot_file *file, struct err *take_cause);
/* All of [offset, offset + len), or an error: "truncated: ..." */
struct err *boot_file_read(const struct boot_file *file, uint64_t offset, void *bytes, size_t len);
/* The same into guest memory. */
struct err *boot_file_copy(const struct boot_file *file, uint64_t offset, struct gmem *gmem,
                           uint64_t gpa, uint64_t len);

/* The state of one load. */
struct boot {
    const struct boot_request *request;
    struct boot_file kernel, initrd;
    struct boot_result *result;
    struct x86_state *state;
    bool has_initrd;
    bool low_kernel;    /* the kernel may lie in conventional memory (Multiboot) */
    uint8_t head[8192]; /* first bytes of the kernel, zero behind its end */
};

/* May a piece of the kernel lie at [base, end)? From 1 MiB to 4 GiB, and low where that is said. */
bool boot_kernel_may_lie(const struct boot *boot, uint64_t base, uint64_t end);
/* Guest memory that must be there; an error names `what`. */
struct err *boot_put(struct boot *boot, uint64_t gpa, const void *bytes, size_t len,
                     const char *what);
/* Writes the command line to BOOT_CMDLINE; `limit` is the longest that the kernel takes. */
struct err *boot_put_cmdline(struct boot *boot, uint64_t limit);
/* "does not fit into 32M of memory: 92M would be enough"; `needed` is in bytes from 0. */
struct err *boot_no_room(const struct boot *boot, uint64_t needed);
/* Loads the initrd as high as possible below `limit`, or with `high_allowed` above 4 GiB. */
struct err *boot_place_initrd(struct boot *boot, uint64_t limit, bool high_allowed);

/* The loaders. */
bool boot_is_bzimage(const struct boot *boot);
struct err *boot_load_bzimage(struct boot *boot);
/* Zero page of a kernel that brought no setup header. */
struct err *boot_put_zero_page(struct boot *boot, const uint8_t *setup, size_t setup_len,
                               uint64_t cmdline_max);

/* Sets *header to its offset in the file. */
bool boot_find_multiboot(const struct boot *boot, uint32_t *header);
struct err *boot_load_multiboot(struct boot *boot, uint32_t header);

bool boot_is_elf(const struct boot *boot);
struct boot_elf {
    bool wide; /* ELF64 */
    uint64_t entry;
    uint64_t low, high; /* what the segments cover */
    uint32_t pvh_entry; /* 0: no PVH note */
};
/* Loads all segments at their physical addresses, and finds the PVH note. */
struct err *boot_load_segments(struct boot *boot, struct boot_elf *elf);
/* vmlinux: by PVH where the kernel offers it, else by its 64-bit entry. */
struct err *boot_load_elf(struct boot *boot);
struct err *boot_load_pvh(struct boot *boot, const struct boot_elf *elf);

/* Long mode with the first 4 GiB mapped one to one; rsi is `argument`. */
struct err *boot_cpu_long(struct boot *boot, uint64_t entry, uint64_t argument);
/* 32-bit protected mode, flat segments, paging off. */
struct err *boot_cpu_flat(struct boot *boot, uint32_t entry);

#endif
