/*
 * ELF executables of both classes (System V ABI, chapters 4 and 5) at their physical addresses, and
 * the entry into a vmlinux.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <elf.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "vm/boot/internal.h"

#define SEGMENTS_MAX 128
#define NOTES_MAX KIB(64)
#define XEN_ELFNOTE_PHYS32_ENTRY 18
/* Linux takes at most 2048 bytes of command line on x86. */
#define VMLINUX_CMDLINE_MAX 2047
/* Where an old kernel still expects its initrd. */
#define VMLINUX_INITRD_MAX 0x80000000ull

struct segment {
    uint32_t type;
    uint64_t offset, paddr, filesz, memsz, align;
};

bool boot_is_elf(const struct boot *boot)
{
    const uint8_t *head = boot->head;

    return !memcmp(head, ELFMAG, SELFMAG) && head[EI_DATA] == ELFDATA2LSB &&
           (head[EI_CLASS] == ELFCLASS32 || head[EI_CLASS] == ELFCLASS64) &&
           get_le16(head + offsetof(Elf64_Ehdr, e_type)) == ET_EXEC &&
           (get_le16(head + offsetof(Elf64_Ehdr, e_machine)) == EM_X86_64 ||
            get_le16(head + offsetof(Elf64_Ehdr, e_machine)) == EM_386);
}

static void decode_segment(bool wide, const uint8_t *raw, struct segment *segment)
{
    segment->type = get_le32(raw);
    if (wide) {
        segment->offset = get_le64(raw + offsetof(Elf64_Phdr, p_offset));
        segment->paddr = get_le64(raw + offsetof(Elf64_Phdr, p_paddr));
        segment->filesz = get_le64(raw + offsetof(Elf64_Phdr, p_filesz));
        segment->memsz = get_le64(raw + offsetof(Elf64_Phdr, p_memsz));
        segment->align = get_le64(raw + offsetof(Elf64_Phdr, p_align));
    } else {
        segment->offset = get_le32(raw + offsetof(Elf32_Phdr, p_offset));
        segment->paddr = get_le32(raw + offsetof(Elf32_Phdr, p_paddr));
        segment->filesz = get_le32(raw + offsetof(Elf32_Phdr, p_filesz));
        segment->memsz = get_le32(raw + offsetof(Elf32_Phdr, p_memsz));
        segment->align = get_le32(raw + offsetof(Elf32_Phdr, p_align));
    }
}

static struct err *load_segment(struct boot *boot, const struct segment *segment,
                                struct boot_elf *elf)
{
    uint64_t end;

    if (!segment->memsz)
        return NULL;
    if (segment->filesz > segment->memsz || !checked_add(segment->paddr, segment->memsz, &end) ||
        !boot_kernel_may_lie(boot, segment->paddr, end))
        return boot_file_error(&boot->kernel,
                               err_new("has a segment of %" PRIu64 " bytes at 0x%" PRIx64
                                       ", outside 1 MiB to 4 GiB: it is not a kernel for direct "
                                       "boot",
                                       segment->memsz, segment->paddr));
    if (end > boot->request->low_end)
        return boot_no_room(boot, end);
    TRY(boot_file_copy(&boot->kernel, segment->offset, boot->request->gmem, segment->paddr,
                       segment->filesz));
    if (gmem_fill(boot->request->gmem, segment->paddr + segment->filesz, 0,
                  segment->memsz - segment->filesz))
        return boot_no_room(boot, end);
    elf->low = MIN(elf->low, segment->paddr);
    elf->high = MAX(elf->high, end);
    return NULL;
}

/* Walks the notes of one segment: each is name size, descriptor size, type, name, descriptor. */
static struct err *find_pvh_note(const struct boot *boot, const struct segment *segment,
                                 struct boot_elf *elf)
{
    uint64_t align = segment->align == 8 ? 8 : 4;
    uint64_t len = MIN(segment->filesz, NOTES_MAX);
    uint8_t *notes = xcalloc(1, NOTES_MAX);
    scoped(free_cleanup) void *owned = notes;

    TRY(boot_file_read(&boot->kernel, segment->offset, notes, len));
    for (uint64_t at = 0; range_within(at, 12, len);) {
        uint64_t name_size = get_le32(notes + at), data_size = get_le32(notes + at + 4);
        uint64_t name = at + 12;
        uint64_t data = name + ALIGN_UP(name_size, align);
        if (!range_within(name, name_size, len) || !range_within(data, data_size, len))
            break;
        if (get_le32(notes + at + 8) == XEN_ELFNOTE_PHYS32_ENTRY && name_size == 4 &&
            !memcmp(notes + name, "Xen", 4) && data_size >= 4)
            elf->pvh_entry = get_le32(notes + data);
        at = data + ALIGN_UP(data_size, align);
    }
    return NULL;
}

struct err *boot_load_segments(struct boot *boot, struct boot_elf *elf)
{
    const uint8_t *head = boot->head;
    bool wide = head[EI_CLASS] == ELFCLASS64;
    uint64_t table = wide ? get_le64(head + offsetof(Elf64_Ehdr, e_phoff))
                          : get_le32(head + offsetof(Elf32_Ehdr, e_phoff));
    unsigned size = get_le16(
        head + (wide ? offsetof(Elf64_Ehdr, e_phentsize) : offsetof(Elf32_Ehdr, e_phentsize)));
    unsigned count =
        get_le16(head + (wide ? offsetof(Elf64_Ehdr, e_phnum) : offsetof(Elf32_Ehdr, e_phnum)));
    unsigned wanted = wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);

    *elf = (struct boot_elf){.wide = wide, .low = UINT64_MAX};
    elf->entry = wide ? get_le64(head + offsetof(Elf64_Ehdr, e_entry))
                      : get_le32(head + offsetof(Elf32_Ehdr, e_entry));
    if (size != wanted || !count || count > SEGMENTS_MAX)
        return boot_file_error(
            &boot->kernel,
            err_new("has a damaged ELF header (%u program headers of %u bytes)", count, size));
    for (unsigned i = 0; i < count; i++) {
        uint8_t raw[sizeof(Elf64_Phdr)];
        struct segment segment;
        uint64_t at;
        if (!checked_add(table, (uint64_t)i * size, &at))
            at = UINT64_MAX;
        TRY(boot_file_read(&boot->kernel, at, raw, size));
        decode_segment(wide, raw, &segment);
        if (segment.type == PT_LOAD)
            TRY(load_segment(boot, &segment, elf));
        else if (segment.type == PT_NOTE)
            TRY(find_pvh_note(boot, &segment, elf));
    }
    if (elf->low >= elf->high)
        return boot_file_error(&boot->kernel, err_new("is an ELF file with nothing to load"));
    boot->result->kernel_base = elf->low;
    boot->result->kernel_end = elf->high;
    return NULL;
}

static struct err *check_entry(const struct boot *boot, const struct boot_elf *elf, uint64_t entry)
{
    if (entry >= elf->low && entry < elf->high)
        return NULL;
    return boot_file_error(&boot->kernel,
                           err_new("begins at 0x%" PRIx64 ", outside what it loads (0x%" PRIx64
                                   " to 0x%" PRIx64 "): it is not a kernel for direct boot",
                                   entry, elf->low, elf->high));
}

struct err *boot_load_elf(struct boot *boot)
{
    struct boot_elf elf;

    TRY(boot_load_segments(boot, &elf));
    if (elf.pvh_entry) {
        TRY(check_entry(boot, &elf, elf.pvh_entry));
        return boot_load_pvh(boot, &elf);
    }
    if (!elf.wide)
        return boot_file_error(&boot->kernel,
                               err_new("is a 32-bit ELF file with neither a Multiboot header nor a "
                                       "PVH note: give a Linux bzImage or vmlinux, or a Multiboot "
                                       "image"));
    TRY(check_entry(boot, &elf, elf.entry));
    TRY(boot_place_initrd(boot, VMLINUX_INITRD_MAX, true));
    TRY(boot_put_zero_page(boot, NULL, 0, VMLINUX_CMDLINE_MAX));
    boot->result->protocol = BOOT_ELF64;
    boot->result->entry = elf.entry;
    return boot_cpu_long(boot, elf.entry, BOOT_ZERO_PAGE);
}
