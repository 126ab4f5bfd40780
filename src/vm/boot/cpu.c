/*
 * The first CPU's state at a kernel's entry (Intel SDM vol. 3, chapters 3 and 4; Linux
 * Documentation/arch/x86/boot.rst).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/bytes.h"
#include "vm/boot/internal.h"

#define CR0_PE (1u << 0)
#define CR0_ET (1u << 4)
#define CR0_NE (1u << 5)
#define CR0_PG (1u << 31)
#define CR4_PAE (1u << 5)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)

#define PTE_PRESENT 0x1u
#define PTE_WRITE 0x2u
#define PTE_LARGE 0x80u

#define TYPE_CODE 0xbu /* execute, read, accessed */
#define TYPE_DATA 0x3u /* read, write, accessed */
#define TYPE_TSS_BUSY 0xbu

/* Linux wants code at selector 0x10 and data at 0x18; the others do not care. */
#define SELECTOR_CODE 0x10
#define SELECTOR_DATA 0x18
#define SELECTOR_TSS 0x20

#define DESCRIPTOR_CODE32 0x00cf9b000000ffffull
#define DESCRIPTOR_CODE64 0x00af9b000000ffffull
#define DESCRIPTOR_DATA 0x00cf93000000ffffull
#define DESCRIPTOR_TSS 0x00008b0000000067ull
#define DESCRIPTORS 6 /* a 64-bit TSS takes two */

static struct err *put_gdt(struct boot *boot, uint64_t code)
{
    uint8_t gdt[DESCRIPTORS * 8] = {0};

    put_le64(gdt + SELECTOR_CODE, code);
    put_le64(gdt + SELECTOR_DATA, DESCRIPTOR_DATA);
    put_le64(gdt + SELECTOR_TSS, DESCRIPTOR_TSS);
    TRY(boot_put(boot, BOOT_GDT, gdt, sizeof(gdt), "the descriptor table"));
    boot->state->gdt = (struct x86_table_register){BOOT_GDT, sizeof(gdt) - 1};
    boot->state->idt = (struct x86_table_register){0, 0};
    return NULL;
}

static void set_segments(struct x86_state *state, uint32_t code_size)
{
    const uint32_t flat = X86_ATTR_S | X86_ATTR_P | X86_ATTR_G;

    for (unsigned i = 0; i < X86_SEGS; i++)
        state->seg[i] =
            (struct x86_segment){0, 0xffffffff, flat | X86_ATTR_DB | TYPE_DATA, SELECTOR_DATA};
    state->seg[X86_CS] =
        (struct x86_segment){0, 0xffffffff, flat | code_size | TYPE_CODE, SELECTOR_CODE};
    state->tr = (struct x86_segment){0, 0x67, X86_ATTR_P | TYPE_TSS_BUSY, SELECTOR_TSS};
    state->ldt = (struct x86_segment){0, 0, X86_ATTR_UNUSABLE, 0};
}

static void set_common(struct x86_state *state, uint64_t entry)
{
    for (unsigned i = 0; i < ARRAY_SIZE(state->gpr); i++)
        state->gpr[i] = 0;
    state->gpr[X86_RSP] = BOOT_STACK;
    state->rip = entry;
    state->rflags = 0x2;
    state->activity = X86_ACTIVE;
}

/* One PML4 and one PDPT entry chain for four page directories of 2 MiB pages. */
static struct err *put_page_tables(struct boot *boot)
{
    uint8_t page[GUEST_PAGE_SIZE] = {0};
    const uint64_t pdpt = BOOT_PAGE_TABLES + GUEST_PAGE_SIZE;
    const uint64_t directories = pdpt + GUEST_PAGE_SIZE;

    put_le64(page, pdpt | PTE_PRESENT | PTE_WRITE);
    TRY(boot_put(boot, BOOT_PAGE_TABLES, page, sizeof(page), "the page tables"));
    for (unsigned i = 0; i < 4; i++)
        put_le64(page + 8 * i, (directories + i * GUEST_PAGE_SIZE) | PTE_PRESENT | PTE_WRITE);
    TRY(boot_put(boot, pdpt, page, sizeof(page), "the page tables"));
    for (unsigned directory = 0; directory < 4; directory++) {
        for (unsigned i = 0; i < 512; i++)
            put_le64(page + 8 * i,
                     ((uint64_t)(directory * 512 + i) << 21) | PTE_PRESENT | PTE_WRITE | PTE_LARGE);
        TRY(boot_put(boot, directories + directory * GUEST_PAGE_SIZE, page, sizeof(page),
                     "the page tables"));
    }
    return NULL;
}

struct err *boot_cpu_long(struct boot *boot, uint64_t entry, uint64_t argument)
{
    struct x86_state *state = boot->state;

    TRY(put_gdt(boot, DESCRIPTOR_CODE64));
    TRY(put_page_tables(boot));
    set_segments(state, X86_ATTR_L);
    set_common(state, entry);
    state->gpr[X86_RSI] = argument;
    state->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    state->cr3 = BOOT_PAGE_TABLES;
    state->cr4 = CR4_PAE;
    state->efer = EFER_LME | EFER_LMA;
    return NULL;
}

struct err *boot_cpu_flat(struct boot *boot, uint32_t entry)
{
    struct x86_state *state = boot->state;

    TRY(put_gdt(boot, DESCRIPTOR_CODE32));
    set_segments(state, X86_ATTR_DB);
    set_common(state, entry);
    state->cr0 = CR0_PE | CR0_ET;
    state->cr3 = 0;
    state->cr4 = 0;
    state->efer = 0;
    return NULL;
}
