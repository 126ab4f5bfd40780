/*
 * Multiboot 1 (Multiboot Specification 0.6.96): the header within the first 8 KiB, an image by ELF
 * or by address fields, one module (the initrd), memory map and command line.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "vm/boot/internal.h"

#define HEADER_MAGIC 0x1badb002u
#define LOADER_MAGIC 0x2badb002u
#define WANT_ADDRESSES (1u << 16)
/* Bits 0 to 15 are demands; of those we meet page-aligned modules and memory information. */
#define DEMANDS 0xffffu
#define DEMANDS_MET 0x3u
#define DEMAND_VIDEO 0x4u

enum info {
    INFO_FLAGS = 0,
    INFO_MEM_LOWER = 4,
    INFO_MEM_UPPER = 8,
    INFO_CMDLINE = 16,
    INFO_MODS_COUNT = 20,
    INFO_MODS_ADDR = 24,
    INFO_MMAP_LENGTH = 44,
    INFO_MMAP_ADDR = 48,
    INFO_LOADER_NAME = 64,
    INFO_SIZE = 120,
};

#define HAS_MEMORY (1u << 0)
#define HAS_CMDLINE (1u << 2)
#define HAS_MODULES (1u << 3)
#define HAS_MMAP (1u << 6)
#define HAS_LOADER_NAME (1u << 9)

#define MODULE_SIZE 16u
#define RANGE_SIZE 24u
#define NAME_SIZE 16u

bool boot_find_multiboot(const struct boot *boot, uint32_t *header)
{
    uint64_t end = MIN(boot->kernel.size, (uint64_t)sizeof(boot->head));

    for (uint32_t at = 0; range_within(at, 12, end); at += 4) {
        const uint8_t *raw = boot->head + at;
        if (get_le32(raw) == HEADER_MAGIC &&
            !(uint32_t)(get_le32(raw) + get_le32(raw + 4) + get_le32(raw + 8))) {
            *header = at;
            return true;
        }
    }
    return false;
}

/* Where an image lies by the header's own address fields ("a.out kludge"). */
struct placement {
    uint64_t offset, size; /* in the file */
    uint64_t load, end;    /* in memory, with bss */
    uint32_t entry;
};

static struct err *read_addresses(const struct boot *boot, uint32_t header,
                                  struct placement *placement)
{
    const uint8_t *raw = boot->head + header;
    uint64_t header_addr = get_le32(raw + 12), load = get_le32(raw + 16);
    uint64_t load_end = get_le32(raw + 20), bss_end = get_le32(raw + 24);
    uint32_t entry = get_le32(raw + 28);

    if (header_addr < load || header_addr - load > header)
        return err_new("has a damaged Multiboot header: load address 0x%" PRIx64
                       ", header at 0x%" PRIx64,
                       load, header_addr);
    uint64_t offset = header - (header_addr - load);
    uint64_t size = boot->kernel.size - offset;
    if (load_end) {
        if (load_end < load)
            return err_new("has a damaged Multiboot header: it ends before it begins");
        if (load_end - load > size)
            return err_new("is truncated: its header promises %" PRIu64 " bytes and there are "
                           "%" PRIu64 "; get a whole copy",
                           load_end - load, size);
        size = load_end - load;
    }
    uint64_t end = MAX(load + size, bss_end);
    if (!boot_kernel_may_lie(boot, load, end))
        return err_new("wants to lie at 0x%" PRIx64 ", outside 1 MiB to 4 GiB", load);
    if (entry < load || entry >= end)
        return err_new("begins at 0x%x, outside what it loads (0x%" PRIx64 " to 0x%" PRIx64 ")",
                       entry, load, end);
    *placement = (struct placement){offset, size, load, end, entry};
    return NULL;
}

static struct err *load_by_addresses(struct boot *boot, uint32_t header, uint32_t *entry)
{
    struct gmem *gmem = boot->request->gmem;
    struct placement at = {0};

    if (!range_within(header, 32, MIN(boot->kernel.size, (uint64_t)sizeof(boot->head))))
        return boot_file_error(&boot->kernel, err_new("is truncated within its Multiboot header"));
    TRY(boot_file_error(&boot->kernel, read_addresses(boot, header, &at)));
    if (at.end > boot->request->low_end)
        return boot_no_room(boot, at.end);
    TRY(boot_file_copy(&boot->kernel, at.offset, gmem, at.load, at.size));
    if (gmem_fill(gmem, at.load + at.size, 0, at.end - at.load - at.size))
        return boot_no_room(boot, at.end);
    boot->result->kernel_base = at.load;
    boot->result->kernel_end = at.end;
    *entry = at.entry;
    return NULL;
}

static struct err *load_image(struct boot *boot, uint32_t header, uint32_t *entry)
{
    if (get_le32(boot->head + header + 4) & WANT_ADDRESSES)
        return load_by_addresses(boot, header, entry);

    struct boot_elf elf;
    if (!boot_is_elf(boot))
        return boot_file_error(
            &boot->kernel, err_new("has a Multiboot header without addresses, and is not an x86 "
                                   "ELF executable"));
    TRY(boot_load_segments(boot, &elf));
    if (elf.entry < elf.low || elf.entry >= elf.high)
        return boot_file_error(
            &boot->kernel, err_new("begins at 0x%" PRIx64 ", outside what it loads", elf.entry));
    *entry = (uint32_t)elf.entry;
    return NULL;
}

/*
 * The module goes right behind the kernel: small kernels map little more than themselves. Never
 * below 1 MiB: it could grow into the loader's own things there.
 */
static struct err *load_module(struct boot *boot)
{
    struct boot_result *result = boot->result;
    uint64_t base = ALIGN_UP(MAX(result->kernel_end, (uint64_t)BOOT_KERNEL_MIN), GUEST_PAGE_SIZE);
    uint64_t end;

    if (!boot->has_initrd)
        return NULL;
    if (!checked_add(base, boot->initrd.size, &end))
        end = UINT64_MAX;
    if (end > boot->request->low_end)
        return boot_no_room(boot, end);
    result->initrd_base = base;
    result->initrd_size = boot->initrd.size;
    return boot_file_copy(&boot->initrd, 0, boot->request->gmem, base, boot->initrd.size);
}

static struct err *put_info(struct boot *boot)
{
    const struct boot_request *request = boot->request;
    const struct boot_result *result = boot->result;
    uint8_t info[INFO_SIZE + NAME_SIZE + MODULE_SIZE + BOOT_RANGES_MAX * RANGE_SIZE] = {0};
    const uint32_t name = INFO_SIZE, module = name + NAME_SIZE, map = module + MODULE_SIZE;
    uint32_t flags = HAS_MEMORY | HAS_CMDLINE | HAS_MODULES | HAS_MMAP | HAS_LOADER_NAME;

    put_le32(info + INFO_FLAGS, flags);
    put_le32(info + INFO_MEM_LOWER, 639);
    put_le32(info + INFO_MEM_UPPER, (uint32_t)((request->low_end - BOOT_KERNEL_MIN) / 1024));
    put_le32(info + INFO_CMDLINE, BOOT_CMDLINE);
    put_le32(info + INFO_MODS_COUNT, boot->has_initrd);
    put_le32(info + INFO_MODS_ADDR, BOOT_INFO + module);
    put_le32(info + INFO_MMAP_LENGTH, request->range_count * RANGE_SIZE);
    put_le32(info + INFO_MMAP_ADDR, BOOT_INFO + map);
    put_le32(info + INFO_LOADER_NAME, BOOT_INFO + name);
    memcpy(info + name, "tenon", sizeof("tenon"));
    put_le32(info + module, (uint32_t)result->initrd_base);
    put_le32(info + module + 4, (uint32_t)(result->initrd_base + result->initrd_size));
    for (unsigned i = 0; i < request->range_count; i++) {
        uint8_t *range = info + map + i * RANGE_SIZE;
        put_le32(range, RANGE_SIZE - 4); /* size of the rest */
        put_le64(range + 4, request->range[i].base);
        put_le64(range + 12, request->range[i].size);
        put_le32(range + 20, request->range[i].type);
    }
    return boot_put(boot, BOOT_INFO, info, sizeof(info), "the start information");
}

/*
 * The machine is left as a BIOS leaves it (3.2), interrupt vectors included: a kernel that goes
 * back to real mode may run with them. Handlers end the interrupt and return. The ports' part of it
 * is done by whoever has the board.
 */
static struct err *put_vectors(struct boot *boot)
{
    /* iret; at +16 for the master PIC, at +32 for the slave: push ax; mov al, 0x20; out..; pop ax.
     */
    static const uint8_t code[48] = {
        [0] = 0xcf, [16] = 0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf, [32] = 0x50,
        0xb0,       0x20,        0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf,
    };
    uint8_t vectors[256 * 4];

    for (unsigned i = 0; i < 256; i++) {
        uint32_t handler = BOOT_HANDLERS;
        if ((i & 0xf8) == BOOT_PIC_MASTER_BASE)
            handler += 16;
        else if ((i & 0xf8) == BOOT_PIC_SLAVE_BASE)
            handler += 32;
        put_le32(vectors + 4 * i, handler);
    }
    TRY(boot_put(boot, 0, vectors, sizeof(vectors), "the interrupt vectors"));
    return boot_put(boot, BOOT_HANDLERS, code, sizeof(code), "the interrupt handlers");
}

struct err *boot_load_multiboot(struct boot *boot, uint32_t header)
{
    uint32_t demands = get_le32(boot->head + header + 4) & DEMANDS;
    uint32_t entry = 0;

    /* A graphics mode is a wish that a machine without a display may leave unmet. */
    if (demands & ~(DEMANDS_MET | DEMAND_VIDEO))
        return boot_file_error(
            &boot->kernel,
            err_new("demands Multiboot features that do not exist (flags 0x%x)", demands));
    boot->low_kernel = true;
    TRY(load_image(boot, header, &entry));
    TRY(load_module(boot));
    TRY(boot_put_cmdline(boot, BOOT_CMDLINE_SIZE - 1));
    TRY(put_info(boot));
    TRY(put_vectors(boot));
    TRY(boot_cpu_flat(boot, entry));
    boot->state->gpr[X86_RAX] = LOADER_MAGIC;
    boot->state->gpr[X86_RBX] = BOOT_INFO;
    boot->result->protocol = BOOT_MULTIBOOT;
    boot->result->entry = entry;
    return NULL;
}
