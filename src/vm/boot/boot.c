/*
 * Direct boot: recognises the kernel's format, and what the loaders share. See boot.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/boot/boot.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/chipset/layout.h"
#include "vm/boot/internal.h"

/* The memory type that firmware leaves behind: write-back (Intel SDM vol. 3, 12.11.2.1). */
#define MTRR_ENABLED_WRITE_BACK 0x806

const char *boot_protocol_name(enum boot_protocol protocol)
{
    switch (protocol) {
    case BOOT_LINUX64:
        return "Linux, 64-bit entry";
    case BOOT_LINUX32:
        return "Linux, 32-bit entry";
    case BOOT_ELF64:
        return "Linux vmlinux";
    case BOOT_PVH:
        return "PVH";
    case BOOT_MULTIBOOT:
        return "Multiboot";
    }
    return "?";
}

bool boot_kernel_may_lie(const struct boot *boot, uint64_t base, uint64_t end)
{
    if (base >= BOOT_KERNEL_MIN)
        return end <= GIB(4);
    /* Conventional memory, but for what the loader itself puts there. */
    return boot->low_kernel && base >= BOOT_INFO + BOOT_INFO_SIZE && end <= BOOT_LOW_END &&
           (end <= BOOT_CMDLINE || base >= BOOT_CMDLINE + BOOT_CMDLINE_SIZE);
}

struct err *boot_put(struct boot *boot, uint64_t gpa, const void *bytes, size_t len,
                     const char *what)
{
    if (gmem_write(boot->request->gmem, gpa, bytes, len))
        return err_new("there is no guest memory at 0x%" PRIx64 " for %s", gpa, what);
    return NULL;
}

struct err *boot_put_cmdline(struct boot *boot, uint64_t limit)
{
    const char *text = boot->request->append ? boot->request->append : "";
    size_t len = strlen(text);

    limit = MIN(limit, (uint64_t)BOOT_CMDLINE_SIZE - 1);
    if (len > limit)
        return err_of(ERR_USAGE,
                      "the command line has %zu characters, and this kernel takes "
                      "%" PRIu64 ": shorten --append",
                      len, limit);
    return boot_put(boot, BOOT_CMDLINE, text, len + 1, "the command line");
}

struct err *boot_no_room(const struct boot *boot, uint64_t needed)
{
    uint64_t memory = boot->request->low_end;
    if (boot->request->high_end > GIB(4))
        memory += boot->request->high_end - GIB(4);

    char *extra =
        boot->has_initrd ? xasprintf(" with initrd '%s'", boot->initrd.name) : xstrdup("");
    scoped(free_cleanup) void *owned = extra;
    if (needed > LAYOUT_Q35_LOW_RAM_MAX || needed <= boot->request->low_end)
        return err_of(ERR_USAGE,
                      "kernel '%s'%s does not fit into the memory below 4 GiB: give "
                      "smaller files",
                      boot->kernel.name, extra);
    return err_of(ERR_USAGE,
                  "kernel '%s'%s does not fit into %" PRIu64 "M of memory: give --memory "
                  "%" PRIu64 "M or more",
                  boot->kernel.name, extra, memory / MIB(1), ALIGN_UP(needed, MIB(1)) / MIB(1));
}

struct err *boot_place_initrd(struct boot *boot, uint64_t limit, bool high_allowed)
{
    const struct boot_request *request = boot->request;
    struct boot_result *result = boot->result;
    uint64_t size = boot->initrd.size;
    uint64_t top = MIN(limit, request->low_end);

    if (!boot->has_initrd)
        return NULL;
    result->initrd_size = size;
    if (top >= size && ALIGN_DOWN(top - size, GUEST_PAGE_SIZE) >= result->kernel_end) {
        result->initrd_base = ALIGN_DOWN(top - size, GUEST_PAGE_SIZE);
    } else if (high_allowed && request->high_end > GIB(4) && request->high_end - GIB(4) >= size) {
        result->initrd_base = ALIGN_DOWN(request->high_end - size, GUEST_PAGE_SIZE);
    } else {
        uint64_t needed = ALIGN_UP(result->kernel_end, GUEST_PAGE_SIZE);
        if (!checked_add(needed, ALIGN_UP(size, GUEST_PAGE_SIZE), &needed) || needed > limit)
            needed = UINT64_MAX;
        return boot_no_room(boot, needed);
    }
    return boot_file_copy(&boot->initrd, 0, request->gmem, result->initrd_base, size);
}

/* What a file that is no kernel seems to be. */
static const char *recognise(const struct boot *boot)
{
    static const struct {
        unsigned offset, len;
        const char *magic, *name;
    } kinds[] = {
        {0, 2, "\x1f\x8b", "gzip data (unpack it first)"},
        {0, 6,
         "\xfd"
         "7zXZ",
         "xz data (unpack it first)"},
        {0, 4, "\x28\xb5\x2f\xfd", "zstd data (unpack it first)"},
        {0, 3, "BZh", "bzip2 data (unpack it first)"},
        {0, 4, "QFI\xfb", "a qcow2 disk image"},
        {0, 6, "070701", "a cpio archive (an initrd?)"},
        {0, 2, "#!", "a script"},
        {56, 4, "ARM\x64", "a kernel for arm64"},
        {0, 4,
         "\x7f"
         "ELF",
         "an ELF file, but not an x86 executable"},
        {0, 2, "MZ", "a Windows or EFI program without a Linux boot header"},
        {510, 2, "\x55\xaa", "a boot sector or disk image"},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (!memcmp(boot->head + kinds[i].offset, kinds[i].magic, kinds[i].len))
            return kinds[i].name;
    }
    bool text = true;
    for (uint64_t i = 0; i < MIN(boot->kernel.size, 256ull); i++)
        text &= (boot->head[i] >= ' ' && boot->head[i] < 0x7f) || boot->head[i] == '\n' ||
                boot->head[i] == '\t' || boot->head[i] == '\r';
    return text ? "text" : "data of an unknown kind";
}

static struct err *load(struct boot *boot)
{
    uint32_t header;

    if (boot_is_bzimage(boot))
        return boot_load_bzimage(boot);
    if (boot_find_multiboot(boot, &header))
        return boot_load_multiboot(boot, header);
    if (boot_is_elf(boot))
        return boot_load_elf(boot);
    return boot_file_error(&boot->kernel,
                           err_new("is not a kernel but %s: give a Linux bzImage or vmlinux, or a "
                                   "Multiboot image",
                                   recognise(boot)));
}

struct err *boot_load(const struct boot_request *request, struct x86_state *state,
                      struct boot_result *result)
{
    struct boot *boot = xcalloc(1, sizeof(*boot));
    scoped(free_cleanup) void *owned = boot;

    memset(result, 0, sizeof(*result));
    boot->request = request;
    boot->result = result;
    boot->state = state;
    TRY(boot_file_open(&boot->kernel, request->kernel_fd, "kernel", request->kernel));
    if (request->initrd_fd >= 0) {
        boot->has_initrd = true;
        TRY(boot_file_open(&boot->initrd, request->initrd_fd, "initrd", request->initrd));
    }
    TRY(boot_file_read(&boot->kernel, 0, boot->head,
                       MIN(boot->kernel.size, (uint64_t)sizeof(boot->head))));
    TRY(load(boot));
    state->msr.mtrr_def_type = MTRR_ENABLED_WRITE_BACK;
    return NULL;
}
