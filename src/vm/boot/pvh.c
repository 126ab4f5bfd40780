/*
 * The PVH entry: 32-bit protected mode with ebx at struct hvm_start_info (Xen
 * docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/bytes.h"
#include "vm/boot/internal.h"

#define START_MAGIC 0x336ec578u
#define START_SIZE 56u
#define MODULE_SIZE 32u
#define RANGE_SIZE 24u
/* 32-bit code must reach its modules. */
#define MODULE_MAX GIB(4)

struct err *boot_load_pvh(struct boot *boot, const struct boot_elf *elf)
{
    const struct boot_request *request = boot->request;
    struct boot_result *result = boot->result;
    uint8_t info[START_SIZE + MODULE_SIZE + BOOT_RANGES_MAX * RANGE_SIZE] = {0};
    const uint32_t modules = BOOT_INFO + START_SIZE, ranges = modules + MODULE_SIZE;

    result->protocol = BOOT_PVH;
    result->entry = elf->pvh_entry;
    TRY(boot_place_initrd(boot, MODULE_MAX, false));
    TRY(boot_put_cmdline(boot, BOOT_CMDLINE_SIZE - 1));

    put_le32(info, START_MAGIC);
    put_le32(info + 4, 1); /* version: with the memory map */
    put_le32(info + 12, boot->has_initrd);
    put_le64(info + 16, boot->has_initrd ? modules : 0);
    put_le64(info + 24, BOOT_CMDLINE);
    put_le64(info + 32, request->rsdp);
    put_le64(info + 40, ranges);
    put_le32(info + 48, request->range_count);
    put_le64(info + START_SIZE, result->initrd_base);
    put_le64(info + START_SIZE + 8, result->initrd_size);
    for (unsigned i = 0; i < request->range_count; i++) {
        uint8_t *range = info + START_SIZE + MODULE_SIZE + i * RANGE_SIZE;
        put_le64(range, request->range[i].base);
        put_le64(range + 8, request->range[i].size);
        put_le32(range + 16, request->range[i].type);
    }
    TRY(boot_put(boot, BOOT_INFO, info, sizeof(info), "the start information"));
    TRY(boot_cpu_flat(boot, elf->pvh_entry));
    boot->state->gpr[X86_RBX] = BOOT_INFO;
    return NULL;
}
