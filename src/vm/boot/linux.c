/*
 * Linux bzImage by the x86 boot protocol, 2.06 to 2.15, and the zero page (Linux
 * Documentation/arch/x86/boot.rst and zero-page.rst).
 *
 * The 64-bit entry skips the kernel's real-mode and protected-mode parts; kernels that lack it
 * start by the 32-bit entry.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "vm/boot/internal.h"

/* Offsets in the first sectors of the file, and the same in the zero page. */
enum setup {
    SETUP_HEADER = 0x1f1,
    SETUP_SECTS = 0x1f1,
    SETUP_SYSSIZE = 0x1f4,
    SETUP_BOOT_FLAG = 0x1fe,
    SETUP_JUMP = 0x200,
    SETUP_MAGIC = 0x202,
    SETUP_VERSION = 0x206,
    SETUP_LOADER = 0x210,
    SETUP_LOADFLAGS = 0x211,
    SETUP_CODE32_START = 0x214,
    SETUP_RAMDISK_IMAGE = 0x218,
    SETUP_RAMDISK_SIZE = 0x21c,
    SETUP_CMD_LINE_PTR = 0x228,
    SETUP_INITRD_ADDR_MAX = 0x22c,
    SETUP_KERNEL_ALIGNMENT = 0x230,
    SETUP_XLOADFLAGS = 0x236,
    SETUP_CMDLINE_SIZE = 0x238,
    SETUP_SETUP_DATA = 0x250,
    SETUP_PREF_ADDRESS = 0x258,
    SETUP_INIT_SIZE = 0x260,
    /* Only in the zero page. */
    ZERO_RSDP = 0x070,
    ZERO_EXT_RAMDISK_IMAGE = 0x0c0,
    ZERO_EXT_RAMDISK_SIZE = 0x0c4,
    ZERO_E820_ENTRIES = 0x1e8,
    ZERO_E820_TABLE = 0x2d0,
};

#define SETUP_MAGIC_HDRS 0x53726448u
#define E820_ENTRY_SIZE 20u
#define LOADED_HIGH 0x01
#define XLF_KERNEL_64 0x0001
#define XLF_ABOVE_4G 0x0002
#define LOADER_UNDEFINED 0xff
#define ENTRY64_OFFSET 0x200

bool boot_is_bzimage(const struct boot *boot)
{
    return get_le16(boot->head + SETUP_BOOT_FLAG) == 0xaa55 &&
           get_le32(boot->head + SETUP_MAGIC) == SETUP_MAGIC_HDRS;
}

/* The fields of the setup header that matter, with the protocol's defaults for older versions. */
struct setup_header {
    uint16_t version, xloadflags;
    uint64_t payload_offset; /* of the protected-mode kernel in the file */
    uint64_t payload_size;
    uint64_t load, init_size;
    uint64_t initrd_max; /* first address behind the highest initrd */
    uint64_t cmdline_max;
    size_t header_len;
};

static struct err *read_header(const struct boot *boot, struct setup_header *header)
{
    const uint8_t *head = boot->head;
    uint64_t sectors = head[SETUP_SECTS] ? head[SETUP_SECTS] : 4;

    header->version = get_le16(head + SETUP_VERSION);
    if (header->version < 0x0206)
        return err_new("speaks boot protocol %u.%02u, and 2.06 is needed: take a kernel of Linux "
                       "2.6.22 or newer",
                       header->version >> 8, header->version & 0xff);
    if (!(head[SETUP_LOADFLAGS] & LOADED_HIGH))
        return err_new("is a zImage, which loads low: take a bzImage");
    header->header_len = (size_t)(SETUP_MAGIC + head[SETUP_JUMP + 1]) - SETUP_HEADER;
    header->payload_offset = (sectors + 1) * 512;
    if (header->payload_offset >= boot->kernel.size)
        return err_new("is truncated: it has %" PRIu64 " bytes and ends within its setup code; get "
                       "a whole copy",
                       boot->kernel.size);
    header->payload_size = boot->kernel.size - header->payload_offset;
    uint64_t told = (uint64_t)get_le32(head + SETUP_SYSSIZE) * 16;
    if (told > ALIGN_UP(header->payload_size, 16))
        return err_new("is truncated: it should have %" PRIu64 " bytes and has %" PRIu64
                       "; get a whole copy",
                       header->payload_offset + told, boot->kernel.size);

    header->initrd_max = (uint64_t)get_le32(head + SETUP_INITRD_ADDR_MAX) + 1;
    header->cmdline_max = get_le32(head + SETUP_CMDLINE_SIZE);
    header->load = BOOT_KERNEL_MIN;
    header->init_size = header->payload_size;
    if (header->version >= 0x020a) {
        header->load = get_le64(head + SETUP_PREF_ADDRESS);
        header->init_size = MAX((uint64_t)get_le32(head + SETUP_INIT_SIZE), header->payload_size);
    }
    header->xloadflags = header->version >= 0x020c ? get_le16(head + SETUP_XLOADFLAGS) : 0;
    return NULL;
}

static void put_e820(const struct boot_request *request, uint8_t *page)
{
    page[ZERO_E820_ENTRIES] = (uint8_t)request->range_count;
    for (unsigned i = 0; i < request->range_count; i++) {
        uint8_t *entry = page + ZERO_E820_TABLE + i * E820_ENTRY_SIZE;
        put_le64(entry, request->range[i].base);
        put_le64(entry + 8, request->range[i].size);
        put_le32(entry + 16, request->range[i].type);
    }
}

struct err *boot_put_zero_page(struct boot *boot, const uint8_t *setup, size_t setup_len,
                               uint64_t cmdline_max)
{
    const struct boot_result *result = boot->result;
    uint8_t page[GUEST_PAGE_SIZE] = {0};

    TRY(boot_put_cmdline(boot, cmdline_max));
    if (setup) {
        memcpy(page + SETUP_HEADER, setup, MIN(setup_len, (size_t)ZERO_E820_TABLE - SETUP_HEADER));
    } else {
        put_le16(page + SETUP_BOOT_FLAG, 0xaa55);
        put_le32(page + SETUP_MAGIC, SETUP_MAGIC_HDRS);
        put_le16(page + SETUP_VERSION, 0x020c);
        put_le32(page + SETUP_KERNEL_ALIGNMENT, 0x1000000);
        page[SETUP_LOADFLAGS] = LOADED_HIGH;
    }
    page[SETUP_LOADER] = LOADER_UNDEFINED;
    put_le64(page + SETUP_SETUP_DATA, 0);
    put_le32(page + SETUP_CMD_LINE_PTR, BOOT_CMDLINE);
    put_le32(page + SETUP_CODE32_START, (uint32_t)result->kernel_base);
    put_le32(page + SETUP_RAMDISK_IMAGE, (uint32_t)result->initrd_base);
    put_le32(page + SETUP_RAMDISK_SIZE, (uint32_t)result->initrd_size);
    put_le32(page + ZERO_EXT_RAMDISK_IMAGE, (uint32_t)(result->initrd_base >> 32));
    put_le32(page + ZERO_EXT_RAMDISK_SIZE, (uint32_t)(result->initrd_size >> 32));
    put_le64(page + ZERO_RSDP, boot->request->rsdp);
    put_e820(boot->request, page);
    return boot_put(boot, BOOT_ZERO_PAGE, page, sizeof(page), "the zero page");
}

struct err *boot_load_bzimage(struct boot *boot)
{
    struct setup_header header = {0};
    struct boot_result *result = boot->result;

    TRY(boot_file_error(&boot->kernel, read_header(boot, &header)));
    uint64_t end;
    if (header.load < BOOT_KERNEL_MIN || !checked_add(header.load, header.init_size, &end) ||
        end > GIB(4))
        return boot_file_error(&boot->kernel,
                               err_new("wants to lie at 0x%" PRIx64 ", outside 1 MiB to 4 GiB: the "
                                       "file is damaged",
                                       header.load));
    if (end > boot->request->low_end)
        return boot_no_room(boot, end);
    result->kernel_base = header.load;
    result->kernel_end = end;
    TRY(boot_file_copy(&boot->kernel, header.payload_offset, boot->request->gmem, header.load,
                       header.payload_size));
    TRY(boot_place_initrd(boot, header.initrd_max, header.xloadflags & XLF_ABOVE_4G));
    TRY(boot_put_zero_page(boot, boot->head + SETUP_HEADER, header.header_len, header.cmdline_max));
    if (header.xloadflags & XLF_KERNEL_64) {
        if (header.payload_size <= ENTRY64_OFFSET)
            return boot_file_error(&boot->kernel, err_new("is truncated: it ends before its entry; "
                                                          "get a whole copy"));
        result->protocol = BOOT_LINUX64;
        result->entry = header.load + ENTRY64_OFFSET;
        return boot_cpu_long(boot, result->entry, BOOT_ZERO_PAGE);
    }
    result->protocol = BOOT_LINUX32;
    result->entry = header.load;
    TRY(boot_cpu_flat(boot, (uint32_t)result->entry));
    boot->state->gpr[X86_RSI] = BOOT_ZERO_PAGE;
    return NULL;
}
