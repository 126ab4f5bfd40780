/*
 * The kernel loaders, with images made here, and with the demonstration guest's kernels when they
 * have been built.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <elf.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "vm/boot/boot.h"

struct fixture {
    struct boot_request request;
    struct boot_result result;
    struct x86_state *state;
};

static int file_of(const void *bytes, size_t len)
{
    int fd = memfd_create("image", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    return fd;
}

/* A machine with `low` bytes of RAM from 0 and `high` from 4 GiB. */
static struct fixture machine(uint64_t low, uint64_t high)
{
    struct fixture f = {.state = xcalloc(1, sizeof(struct x86_state))};
    struct boot_request *request = &f.request;

    request->gmem = gmem_new();
    assert_null(gmem_add_ram(request->gmem, "low", 0, low));
    request->range[0] = (struct boot_range){0, 0x9fc00, BOOT_RAM};
    request->range[1] = (struct boot_range){0x9fc00, MIB(1) - 0x9fc00, BOOT_RESERVED};
    request->range[2] = (struct boot_range){MIB(1), low - MIB(1), BOOT_RAM};
    request->range_count = 3;
    request->low_end = low;
    if (high) {
        assert_null(gmem_add_ram(request->gmem, "high", GIB(4), high));
        request->range[request->range_count++] = (struct boot_range){GIB(4), high, BOOT_RAM};
        request->high_end = GIB(4) + high;
    }
    request->rsdp = 0xe0000;
    request->kernel_fd = request->initrd_fd = -1;
    request->kernel = "k";
    request->initrd = "i";
    request->append = "console=ttyS0";
    x86_state_reset(f.state, 0, true);
    return f;
}

static void set_kernel(struct fixture *f, const void *bytes, size_t len)
{
    fd_cleanup(&f->request.kernel_fd);
    f->request.kernel_fd = file_of(bytes, len);
}

static void fini(struct fixture *f)
{
    fd_cleanup(&f->request.kernel_fd);
    fd_cleanup(&f->request.initrd_fd);
    gmem_free(f->request.gmem);
    free(f->state);
}

static void loads(struct fixture *f)
{
    struct err *err = boot_load(&f->request, f->state, &f->result);

    if (err)
        fail_msg("unexpected: %s", err_text(err));
}

static void refuses(struct fixture *f, const char *text)
{
    struct err *err = boot_load(&f->request, f->state, &f->result);

    if (!err)
        fail_msg("accepted; expected: %s", text);
    assert_string_equal(err_text(err), text);
    err_free(err);
}

static void in_memory(struct fixture *f, uint64_t gpa, const void *bytes, size_t len)
{
    uint8_t *have = xcalloc(1, len);

    assert_int_equal(gmem_read(f->request.gmem, gpa, have, len), 0);
    assert_memory_equal(have, bytes, len);
    free(have);
}

static uint32_t word(struct fixture *f, uint64_t gpa)
{
    uint8_t raw[4];

    assert_int_equal(gmem_read(f->request.gmem, gpa, raw, 4), 0);
    return get_le32(raw);
}

static uint64_t quad(struct fixture *f, uint64_t gpa)
{
    return word(f, gpa) | (uint64_t)word(f, gpa + 4) << 32;
}

/* --- Linux --- */

#define SETUP_SIZE 1024u /* boot sector and one sector of setup code */

struct linux_image {
    uint8_t *bytes;
    size_t len;
};

static struct linux_image make_linux(size_t payload)
{
    struct linux_image image = {.len = SETUP_SIZE + payload};

    image.bytes = xcalloc(1, image.len);
    uint8_t *b = image.bytes;
    b[0x1f1] = 1;
    put_le32(b + 0x1f4, (uint32_t)(payload / 16));
    put_le16(b + 0x1fe, 0xaa55);
    b[0x200] = 0xeb;
    b[0x201] = 0x66;
    memcpy(b + 0x202, "HdrS", 4);
    put_le16(b + 0x206, 0x020f);
    b[0x211] = 1;
    put_le32(b + 0x214, 0x100000);
    put_le32(b + 0x22c, 0x7fffffff);
    put_le16(b + 0x236, 0x7f);
    put_le32(b + 0x238, 2047);
    put_le64(b + 0x250, 0x1234); /* a setup_data list of a lying file */
    put_le64(b + 0x258, MIB(16));
    put_le32(b + 0x260, MIB(4));
    for (size_t i = 0; i < payload; i++)
        b[SETUP_SIZE + i] = (uint8_t)(i * 7 + 1);
    return image;
}

static void test_linux64(void **state)
{
    struct fixture f = machine(MIB(64), 0);
    struct linux_image image = make_linux(8192);
    uint8_t initrd[5000];

    memset(initrd, 0x5a, sizeof(initrd));
    f.request.initrd_fd = file_of(initrd, sizeof(initrd));
    set_kernel(&f, image.bytes, image.len);
    loads(&f);
    assert_int_equal(f.result.protocol, BOOT_LINUX64);
    assert_int_equal(f.result.entry, MIB(16) + 0x200);
    assert_int_equal(f.result.kernel_end, MIB(20));
    in_memory(&f, MIB(16), image.bytes + SETUP_SIZE, 8192);
    assert_int_equal(f.result.initrd_base, MIB(64) - 8192);
    in_memory(&f, f.result.initrd_base, initrd, sizeof(initrd));

    const struct x86_state *cpu = f.state;
    assert_int_equal(cpu->rip, f.result.entry);
    assert_int_equal(cpu->gpr[X86_RSI], 0x7000);
    assert_int_equal(cpu->cr0 & 0x80000001, 0x80000001);
    assert_int_equal(cpu->efer, 0x500);
    assert_int_equal(cpu->seg[X86_CS].selector, 0x10);
    assert_true(cpu->seg[X86_CS].attr & X86_ATTR_L);
    assert_int_equal(cpu->seg[X86_DS].selector, 0x18);
    assert_int_equal(cpu->msr.mtrr_def_type, 0x806);
    struct err *err = x86_state_table.check(cpu);
    if (err)
        fail_msg("not a state of a CPU: %s", err_text(err));

    /* Page tables: PML4[0] -> PDPT[3] -> directory 3, entry 511 maps the last 2 MiB below 4 GiB. */
    uint64_t pdpt = quad(&f, cpu->cr3) & ~0xfffull;
    uint64_t directory = quad(&f, pdpt + 24) & ~0xfffull;
    assert_int_equal(quad(&f, directory + 511 * 8), (GIB(4) - MIB(2)) | 0x83);

    const uint64_t zero = 0x7000;
    assert_int_equal(quad(&f, zero + 0x070), 0xe0000);
    assert_int_equal(word(&f, zero + 0x202), 0x53726448);
    assert_int_equal(quad(&f, zero + 0x250), 0);
    assert_int_equal(word(&f, zero + 0x210) & 0xff, 0xff);
    assert_int_equal(word(&f, zero + 0x218), f.result.initrd_base);
    assert_int_equal(word(&f, zero + 0x21c), sizeof(initrd));
    in_memory(&f, word(&f, zero + 0x228), "console=ttyS0", 14);
    assert_int_equal(word(&f, zero + 0x1e8) & 0xff, 3);
    assert_int_equal(quad(&f, zero + 0x2d0 + 40), MIB(1));
    assert_int_equal(quad(&f, zero + 0x2d0 + 48), MIB(63));
    assert_int_equal(word(&f, zero + 0x2d0 + 56), 1);
    free(image.bytes);
    fini(&f);
}

static void test_linux32(void **state)
{
    struct fixture f = machine(MIB(64), 0);
    struct linux_image image = make_linux(4096);

    put_le16(image.bytes + 0x206, 0x0209);
    set_kernel(&f, image.bytes, image.len);
    loads(&f);
    assert_int_equal(f.result.protocol, BOOT_LINUX32);
    assert_int_equal(f.state->rip, MIB(1));
    assert_int_equal(f.state->gpr[X86_RSI], 0x7000);
    assert_int_equal(f.state->cr0 & 0x80000001, 1);
    assert_int_equal(f.state->efer, 0);
    assert_true(f.state->seg[X86_CS].attr & X86_ATTR_DB);
    in_memory(&f, MIB(1), image.bytes + SETUP_SIZE, 4096);
    free(image.bytes);
    fini(&f);
}

static void test_linux_initrd_above_4g(void **state)
{
    struct fixture f = machine(MIB(32), MIB(64));
    struct linux_image image = make_linux(4096);

    f.request.initrd_fd = memfd_create("initrd", MFD_CLOEXEC);
    assert_int_equal(ftruncate(f.request.initrd_fd, MIB(14)), 0);
    assert_int_equal(pwrite(f.request.initrd_fd, "end", 3, MIB(14) - 3), 3);
    set_kernel(&f, image.bytes, image.len);
    loads(&f);
    assert_int_equal(f.result.initrd_base, GIB(4) + MIB(50));
    assert_int_equal(word(&f, 0x7000 + 0x0c0), 1);
    in_memory(&f, GIB(4) + MIB(64) - 3, "end", 3);

    /* A kernel that cannot reach there. */
    put_le16(image.bytes + 0x236, 0x1);
    set_kernel(&f, image.bytes, image.len);
    refuses(&f, "kernel 'k' with initrd 'i' does not fit into 96M of memory: give --memory 34M or "
                "more");
    free(image.bytes);
    fini(&f);
}

static void test_linux_errors(void **state)
{
    struct fixture f = machine(MIB(64), 0);
    struct linux_image image = make_linux(8192);

    set_kernel(&f, image.bytes, image.len - 100);
    refuses(&f,
            "kernel 'k': is truncated: it should have 9216 bytes and has 9116; get a whole copy");
    set_kernel(&f, image.bytes, 1024);
    refuses(&f, "kernel 'k': is truncated: it has 1024 bytes and ends within its setup code; get a "
                "whole copy");
    image.bytes[0x211] = 0;
    set_kernel(&f, image.bytes, image.len);
    refuses(&f, "kernel 'k': is a zImage, which loads low: take a bzImage");
    image.bytes[0x211] = 1;
    put_le16(image.bytes + 0x206, 0x0203);
    set_kernel(&f, image.bytes, image.len);
    refuses(&f, "kernel 'k': speaks boot protocol 2.03, and 2.06 is needed: take a kernel of Linux "
                "2.6.22 or newer");
    put_le16(image.bytes + 0x206, 0x020f);
    put_le32(image.bytes + 0x260, MIB(60));
    set_kernel(&f, image.bytes, image.len);
    refuses(&f, "kernel 'k' does not fit into 64M of memory: give --memory 76M or more");
    put_le64(image.bytes + 0x258, UINT64_MAX - 4096);
    set_kernel(&f, image.bytes, image.len);
    refuses(&f,
            "kernel 'k': wants to lie at 0xffffffffffffefff, outside 1 MiB to 4 GiB: the file is "
            "damaged");
    put_le64(image.bytes + 0x258, MIB(16));
    put_le32(image.bytes + 0x260, MIB(4));
    put_le32(image.bytes + 0x238, 5);
    set_kernel(&f, image.bytes, image.len);
    refuses(&f, "the command line has 13 characters, and this kernel takes 5: shorten --append");
    put_le32(image.bytes + 0x238, 2047);
    set_kernel(&f, image.bytes, image.len);
    f.request.initrd_fd = memfd_create("initrd", MFD_CLOEXEC);
    refuses(&f, "initrd 'i': is empty: give another file");
    assert_int_equal(ftruncate(f.request.initrd_fd, MIB(50)), 0);
    refuses(&f, "kernel 'k' with initrd 'i' does not fit into 64M of memory: give --memory 70M or "
                "more");
    assert_int_equal(ftruncate(f.request.initrd_fd, (off_t)GIB(4)), 0);
    refuses(&f, "kernel 'k' with initrd 'i' does not fit into the memory below 4 GiB: give smaller "
                "files");
    free(image.bytes);
    fini(&f);
}

/* --- ELF --- */

static void elf_header(uint8_t *b, bool wide, uint64_t entry, unsigned segments)
{
    memcpy(b, ELFMAG, 4);
    b[EI_CLASS] = wide ? ELFCLASS64 : ELFCLASS32;
    b[EI_DATA] = ELFDATA2LSB;
    put_le16(b + 16, ET_EXEC);
    put_le16(b + 18, wide ? EM_X86_64 : EM_386);
    if (wide) {
        put_le64(b + 24, entry);
        put_le64(b + 32, 64);
        put_le16(b + 54, 56);
        put_le16(b + 56, (uint16_t)segments);
    } else {
        put_le32(b + 24, (uint32_t)entry);
        put_le32(b + 28, 64);
        put_le16(b + 42, 32);
        put_le16(b + 44, (uint16_t)segments);
    }
}

static void elf_segment(uint8_t *b, bool wide, unsigned index, uint32_t type, uint64_t offset,
                        uint64_t paddr, uint64_t filesz, uint64_t memsz)
{
    uint8_t *at = b + 64 + index * (wide ? 56 : 32);

    put_le32(at, type);
    if (wide) {
        put_le64(at + 8, offset);
        put_le64(at + 24, paddr);
        put_le64(at + 32, filesz);
        put_le64(at + 40, memsz);
    } else {
        put_le32(at + 4, (uint32_t)offset);
        put_le32(at + 12, (uint32_t)paddr);
        put_le32(at + 16, (uint32_t)filesz);
        put_le32(at + 20, (uint32_t)memsz);
    }
}

static void test_vmlinux(void **state)
{
    struct fixture f = machine(MIB(32), 0);
    uint8_t b[8192] = {0};

    elf_header(b, true, MIB(2) + 16, 2);
    elf_segment(b, true, 0, PT_LOAD, 4096, MIB(2), 100, 4096);
    elf_segment(b, true, 1, PT_LOAD, 4096, MIB(3), 0, 4096);
    memset(b + 4096, 0x90, 100);
    set_kernel(&f, b, sizeof(b));
    assert_int_equal(gmem_fill(f.request.gmem, MIB(2), 0xff, 4096), 0);
    loads(&f);
    assert_int_equal(f.result.protocol, BOOT_ELF64);
    assert_int_equal(f.state->rip, MIB(2) + 16);
    assert_int_equal(f.state->gpr[X86_RSI], 0x7000);
    assert_int_equal(word(&f, 0x7000 + 0x202), 0x53726448);
    assert_int_equal(word(&f, MIB(2)), 0x90909090);
    assert_int_equal(word(&f, MIB(2) + 100), 0);
    assert_int_equal(f.result.kernel_end, MIB(3) + 4096);
    fini(&f);
}

static void put_pvh_note(uint8_t *b, size_t offset, uint32_t entry)
{
    put_le32(b + offset, 4);
    put_le32(b + offset + 4, 4);
    put_le32(b + offset + 8, 1);
    memcpy(b + offset + 12, "GNU", 4);
    offset += 20;
    put_le32(b + offset, 4);
    put_le32(b + offset + 4, 8);
    put_le32(b + offset + 8, 18);
    memcpy(b + offset + 12, "Xen", 4);
    put_le64(b + offset + 16, entry);
}

static void check_pvh(bool wide)
{
    struct fixture f = machine(MIB(32), MIB(16));
    uint8_t b[8192] = {0};

    elf_header(b, wide, 0, 2);
    elf_segment(b, wide, 0, PT_LOAD, 4096, MIB(1), 4096, 4096);
    elf_segment(b, wide, 1, PT_NOTE, 2048, 0, 44, 44);
    put_pvh_note(b, 2048, MIB(1) + 0x40);
    set_kernel(&f, b, sizeof(b));
    f.request.initrd_fd = file_of("initrd", 6);
    loads(&f);
    assert_int_equal(f.result.protocol, BOOT_PVH);
    assert_int_equal(f.state->rip, MIB(1) + 0x40);
    assert_int_equal(f.state->cr0, 0x11);
    const uint64_t info = f.state->gpr[X86_RBX];
    assert_int_equal(word(&f, info), 0x336ec578);
    assert_int_equal(word(&f, info + 4), 1);
    assert_int_equal(word(&f, info + 12), 1);
    in_memory(&f, quad(&f, quad(&f, info + 16)), "initrd", 6);
    assert_int_equal(quad(&f, quad(&f, info + 16) + 8), 6);
    in_memory(&f, quad(&f, info + 24), "console=ttyS0", 14);
    assert_int_equal(quad(&f, info + 32), 0xe0000);
    assert_int_equal(word(&f, info + 48), 4);
    assert_int_equal(quad(&f, quad(&f, info + 40) + 3 * 24), GIB(4));

    /* An entry outside what was loaded. */
    put_pvh_note(b, 2048, MIB(9));
    set_kernel(&f, b, sizeof(b));
    refuses(&f,
            "kernel 'k': begins at 0x900000, outside what it loads (0x100000 to 0x101000): it is "
            "not a kernel for direct boot");
    fini(&f);
}

static void test_pvh(void **state)
{
    check_pvh(true);
    check_pvh(false);
}

static void test_elf_errors(void **state)
{
    struct fixture f = machine(MIB(32), 0);
    uint8_t b[8192] = {0};

    elf_header(b, true, MIB(2), 1);
    elf_segment(b, true, 0, PT_LOAD, 4096, MIB(2), 8192, 8192);
    set_kernel(&f, b, sizeof(b));
    refuses(&f, "kernel 'k': is truncated: it has 8192 bytes, and names some beyond; get a whole "
                "copy");
    elf_segment(b, true, 0, PT_LOAD, UINT64_MAX - 10, MIB(2), 100, 100);
    set_kernel(&f, b, sizeof(b));
    refuses(&f, "kernel 'k': is truncated: it has 8192 bytes, and names some beyond; get a whole "
                "copy");
    elf_segment(b, true, 0, PT_LOAD, 0, 0x1000, 100, 100);
    set_kernel(&f, b, sizeof(b));
    refuses(&f,
            "kernel 'k': has a segment of 100 bytes at 0x1000, outside 1 MiB to 4 GiB: it is not "
            "a kernel for direct boot");
    elf_segment(b, true, 0, PT_LOAD, 0, UINT64_MAX - 50, 100, 100);
    set_kernel(&f, b, sizeof(b));
    refuses(&f, "kernel 'k': has a segment of 100 bytes at 0xffffffffffffffcd, outside 1 MiB to 4 "
                "GiB: it is not a kernel for direct boot");
    elf_segment(b, true, 0, PT_LOAD, 0, MIB(31), 100, MIB(9));
    set_kernel(&f, b, sizeof(b));
    refuses(&f, "kernel 'k' does not fit into 32M of memory: give --memory 40M or more");
    elf_segment(b, true, 0, PT_NULL, 0, 0, 0, 0);
    set_kernel(&f, b, sizeof(b));
    refuses(&f, "kernel 'k': is an ELF file with nothing to load");
    put_le16(b + 56, 0);
    set_kernel(&f, b, sizeof(b));
    refuses(&f, "kernel 'k': has a damaged ELF header (0 program headers of 56 bytes)");
    put_le16(b + 56, 1);
    put_le64(b + 32, UINT64_MAX - 8);
    set_kernel(&f, b, sizeof(b));
    refuses(&f, "kernel 'k': is truncated: it has 8192 bytes, and names some beyond; get a whole "
                "copy");

    memset(b, 0, sizeof(b));
    elf_header(b, false, MIB(2), 1);
    elf_segment(b, false, 0, PT_LOAD, 4096, MIB(2), 100, 100);
    set_kernel(&f, b, sizeof(b));
    refuses(&f, "kernel 'k': is a 32-bit ELF file with neither a Multiboot header nor a PVH note: "
                "give a Linux bzImage or vmlinux, or a Multiboot image");
    fini(&f);
}

/* --- Multiboot --- */

static void multiboot_header(uint8_t *at, uint32_t flags)
{
    put_le32(at, 0x1badb002);
    put_le32(at + 4, flags);
    put_le32(at + 8, 0u - 0x1badb002u - flags);
}

static void check_multiboot_info(struct fixture *f)
{
    const uint64_t info = f->state->gpr[X86_RBX];

    assert_int_equal(f->result.protocol, BOOT_MULTIBOOT);
    assert_int_equal(f->state->gpr[X86_RAX], 0x2badb002);
    assert_int_equal(f->state->cr0 & 0x80000001, 1);
    assert_int_equal(word(f, info), 0x24d);
    assert_int_equal(word(f, info + 4), 639);
    assert_int_equal(word(f, info + 8), 31 * 1024);
    in_memory(f, word(f, info + 16), "console=ttyS0", 14);
    assert_int_equal(word(f, info + 20), 1);
    uint64_t module = word(f, info + 24);
    in_memory(f, word(f, module), "initrd", 6);
    assert_int_equal(word(f, module + 4) - word(f, module), 6);
    assert_int_equal(word(f, module) % 4096, 0);
    assert_int_equal(word(f, info + 44), 3 * 24);
    uint64_t map = word(f, info + 48);
    assert_int_equal(word(f, map + 48), 20);
    assert_int_equal(quad(f, map + 52), MIB(1));
    in_memory(f, word(f, info + 64), "tenon", 6);
    /* Real-mode vectors: each handler ends in IRET, the PICs' after an end of interrupt. */
    static const uint8_t master[] = {0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf};
    static const uint8_t slave[] = {0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf};
    in_memory(f, word(f, 0x21 * 4), "\xcf", 1);
    in_memory(f, word(f, 0x08 * 4), master, sizeof(master));
    in_memory(f, word(f, 0x77 * 4), slave, sizeof(slave));
}

static void test_multiboot_addresses(void **state)
{
    struct fixture f = machine(MIB(32), 0);
    uint8_t b[2048] = {0};

    multiboot_header(b + 512, 0x10003);
    put_le32(b + 524, MIB(1) + 256); /* header; the image begins at file offset 256 */
    put_le32(b + 528, MIB(1));
    put_le32(b + 532, MIB(1) + 1024);
    put_le32(b + 536, MIB(1) + 8192);
    put_le32(b + 540, MIB(1) + 0x20);
    memset(b + 256, 0x42, 16);
    set_kernel(&f, b, sizeof(b));
    f.request.initrd_fd = file_of("initrd", 6);
    assert_int_equal(gmem_fill(f.request.gmem, MIB(1), 0xff, 8192), 0);
    loads(&f);
    assert_int_equal(f.state->rip, MIB(1) + 0x20);
    in_memory(&f, MIB(1), b + 256, 1024);
    assert_int_equal(word(&f, MIB(1) + 1024), 0);
    assert_int_equal(word(&f, MIB(1) + 8188), 0);
    check_multiboot_info(&f);

    put_le32(b + 532, MIB(1) + 4096);
    set_kernel(&f, b, sizeof(b));
    refuses(&f,
            "kernel 'k': is truncated: its header promises 4096 bytes and there are 1792; get a "
            "whole copy");
    put_le32(b + 532, 0);
    put_le32(b + 536, MIB(100));
    set_kernel(&f, b, sizeof(b));
    refuses(&f, "kernel 'k' with initrd 'i' does not fit into 32M of memory: give --memory 100M or "
                "more");
    put_le32(b + 524, MIB(2));
    set_kernel(&f, b, sizeof(b));
    refuses(&f, "kernel 'k': has a damaged Multiboot header: load address 0x100000, header at "
                "0x200000");
    multiboot_header(b + 512, 0x10008);
    set_kernel(&f, b, sizeof(b));
    refuses(&f, "kernel 'k': demands Multiboot features that do not exist (flags 0x8)");
    multiboot_header(b + 512, 0x10003);
    set_kernel(&f, b, 530);
    refuses(&f, "kernel 'k': is truncated within its Multiboot header");
    fini(&f);
}

static void test_multiboot_elf(void **state)
{
    struct fixture f = machine(MIB(32), 0);
    uint8_t b[8192] = {0};

    elf_header(b, false, MIB(1) + 12, 1);
    elf_segment(b, false, 0, PT_LOAD, 4096, MIB(1), 4096, 8192);
    multiboot_header(b + 4096, 3);
    set_kernel(&f, b, sizeof(b));
    f.request.initrd_fd = file_of("initrd", 6);
    loads(&f);
    assert_int_equal(f.state->rip, MIB(1) + 12);
    check_multiboot_info(&f);

    /* Conventional memory is fine where the loader has nothing; the module stays above 1 MiB. */
    elf_header(b, false, 0x8018, 1);
    elf_segment(b, false, 0, PT_LOAD, 4096, 0x8000, 4096, 8192);
    set_kernel(&f, b, sizeof(b));
    loads(&f);
    assert_int_equal(f.state->rip, 0x8018);
    in_memory(&f, 0x8000, b + 4096, 4096);
    assert_int_equal(f.result.initrd_base, MIB(1));
    static const uint32_t taken[] = {0x500, 0x5000, 0x6000, 0x1f000, 0x20000, 0x2f000, 0x9e000};
    for (unsigned i = 0; i < ARRAY_SIZE(taken); i++) {
        elf_header(b, false, taken[i], 1);
        elf_segment(b, false, 0, PT_LOAD, 4096, taken[i], 4096, 8192);
        set_kernel(&f, b, sizeof(b));
        char text[160];
        snprintf(text, sizeof(text),
                 "kernel 'k': has a segment of 8192 bytes at 0x%x, outside 1 MiB to 4 GiB: it is "
                 "not a kernel for direct boot",
                 taken[i]);
        refuses(&f, text);
    }

    memset(b, 0, 4096);
    set_kernel(&f, b, sizeof(b));
    refuses(&f, "kernel 'k': has a Multiboot header without addresses, and is not an x86 ELF "
                "executable");
    fini(&f);
}

/* --- what is no kernel --- */

static void test_not_a_kernel(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *found;
    } cases[] = {
        {"\x1f\x8b\x08", 3, "gzip data (unpack it first)"},
        {"QFI\xfb\0\0", 6, "a qcow2 disk image"},
        {"#!/bin/sh\n", 10, "a script"},
        {"hello\n", 6, "text"},
        {"\x7f"
         "ELF\x02\x01",
         6, "an ELF file, but not an x86 executable"},
        {"MZ\x90\0", 4, "a Windows or EFI program without a Linux boot header"},
        {"070701", 6, "a cpio archive (an initrd?)"},
        {"\x01\x02\x03", 3, "data of an unknown kind"},
    };
    struct fixture f = machine(MIB(16), 0);

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char text[200];
        snprintf(text, sizeof(text),
                 "kernel 'k': is not a kernel but %s: give a Linux bzImage or "
                 "vmlinux, or a Multiboot image",
                 cases[i].found);
        set_kernel(&f, cases[i].bytes, cases[i].len);
        refuses(&f, text);
    }
    set_kernel(&f, "", 0);
    refuses(&f, "kernel 'k': is empty: give another file");
    fd_cleanup(&f.request.kernel_fd);
    f.request.kernel_fd = open("/", O_RDONLY | O_CLOEXEC);
    refuses(&f, "kernel 'k': is not a regular file: give the path of one");
    fini(&f);
}

/* --- real kernels --- */

static void check_real(const char *name, enum boot_protocol protocol)
{
    const char *root = getenv("TENON_DEMO_GUEST");
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", root ? root : ".cache/demo-guest", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        print_message("skipped: %s is not there; build it with tools/demo-guest\n", path);
        skip();
    }
    struct fixture f = machine(MIB(256), 0);
    f.request.kernel_fd = fd;
    loads(&f);
    assert_int_equal(f.result.protocol, protocol);
    assert_in_range(f.result.kernel_end, MIB(16), MIB(256));
    assert_null(x86_state_table.check(f.state));
    fini(&f);

    /* Every truncation is an error, and none a crash. */
    f = machine(MIB(256), 0);
    off_t size = 0;
    int cut = open(path, O_RDONLY | O_CLOEXEC);
    size = lseek(cut, 0, SEEK_END);
    for (unsigned i = 0; i < 6; i++) {
        size_t len = (size_t)size * i / 6;
        uint8_t *bytes = xcalloc(1, len + 1);
        assert_int_equal(pread(cut, bytes, len, 0), len);
        set_kernel(&f, bytes, len);
        struct err *err = boot_load(&f.request, f.state, &f.result);
        assert_non_null(err);
        err_free(err);
        free(bytes);
    }
    close(cut);
    fini(&f);
}

static void test_real_bzimage(void **state)
{
    check_real("cloud/vmlinuz", BOOT_LINUX64);
}

static void test_real_vmlinux(void **state)
{
    check_real("cloud/vmlinux", BOOT_PVH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linux64),
        cmocka_unit_test(test_linux32),
        cmocka_unit_test(test_linux_initrd_above_4g),
        cmocka_unit_test(test_linux_errors),
        cmocka_unit_test(test_vmlinux),
        cmocka_unit_test(test_pvh),
        cmocka_unit_test(test_elf_errors),
        cmocka_unit_test(test_multiboot_addresses),
        cmocka_unit_test(test_multiboot_elf),
        cmocka_unit_test(test_not_a_kernel),
        cmocka_unit_test(test_real_bzimage),
        cmocka_unit_test(test_real_vmlinux),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
