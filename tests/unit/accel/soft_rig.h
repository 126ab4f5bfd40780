/*
 * One vCPU of the software engine without a board, for its unit tests: 512 MiB of RAM, identity
 * page tables with 2 MiB pages, port 0xf4 ends the run, port 0xe9 collects bytes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TESTS_SOFT_RIG_H
#define TENON_TESTS_SOFT_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "accel/soft/interp/exec.h"
#include "accel/soft/run.h"
#include "accel/soft/system/segment.h"

#define RIG_TABLES 0x1000u /* PML4, PDPT, four PDs */
#define RIG_GDT 0x8000u
#define RIG_IDT 0x9000u
#define RIG_TSS 0xb000u
#define RIG_STACK 0x80000u
#define RIG_RAM MIB(512)

struct rig {
    struct gmem *gmem;
    struct accel_vm *vm;
    struct accel_vcpu *vcpu;
    struct soft_vcpu *v;
    uint8_t *ram;
    int exit_value; /* last byte written to port 0xf4, or -1 */
    char out[256];
    unsigned out_len;
    uint64_t mmio_last, mmio_value;
    unsigned mmio_reads, mmio_writes;
    struct vm_exit exit;
};

static uint32_t rig_pio_read(void *opaque, uint16_t port, unsigned size)
{
    return port == 0x60 ? 0xa5a5a5a5u >> (32 - 8 * size) : ~0u >> (32 - 8 * size);
}

static void rig_pio_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct rig *rig = opaque;
    if (port == 0xf4) {
        rig->exit_value = value & 0xff;
        accel_soft.vcpu_kick(rig->vcpu);
    } else if (port == 0xe9 && rig->out_len < sizeof(rig->out) - 1) {
        rig->out[rig->out_len++] = value;
    }
}

static uint64_t rig_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    struct rig *rig = opaque;
    rig->mmio_last = gpa;
    rig->mmio_reads++;
    return 0x1122334455667788ull;
}

static void rig_mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t value)
{
    struct rig *rig = opaque;
    rig->mmio_last = gpa;
    rig->mmio_value = value;
    rig->mmio_writes++;
}

static uint8_t rig_extint(void *opaque)
{
    return 0x20;
}

static void rig_eoi(void *opaque, uint8_t vector)
{
}

static const struct accel_io rig_io = {.pio_read = rig_pio_read,
                                       .pio_write = rig_pio_write,
                                       .mmio_read = rig_mmio_read,
                                       .mmio_write = rig_mmio_write,
                                       .extint_ack = rig_extint,
                                       .ioapic_eoi = rig_eoi};

static inline void rig_ok(struct err *err)
{
    if (err)
        fail_msg("%s", err_text(err));
}

static inline void rig_tables(struct rig *rig)
{
    put_le64(rig->ram + RIG_TABLES, (RIG_TABLES + 0x1000) | 7);
    for (unsigned i = 0; i < 4; i++)
        put_le64(rig->ram + RIG_TABLES + 0x1000 + 8 * i, (RIG_TABLES + 0x2000 + i * 0x1000) | 7);
    for (unsigned i = 0; i < 2048; i++)
        put_le64(rig->ram + RIG_TABLES + 0x2000 + 8 * i, ((uint64_t)i << 21) | 0x87);
    static const uint64_t gdt[] = {0,
                                   0x00af9b000000ffffull /* 08 code64 */,
                                   0x00cf93000000ffffull /* 10 data */,
                                   0x00cf9b000000ffffull /* 18 code32 */,
                                   0x00cff3000000ffffull /* 20 user data */,
                                   0x00affb000000ffffull /* 28 user code64 */,
                                   0x008f9b000000ffffull /* 30 code16 */,
                                   0x000f9b000000ffffull /* 38 code16, 64 KiB pages off */};
    memcpy(rig->ram + RIG_GDT, gdt, sizeof(gdt));
    put_le64(rig->ram + RIG_TSS + 4, RIG_STACK);             /* RSP0 */
    put_le64(rig->ram + RIG_TSS + 0x24, RIG_STACK + 0x8000); /* IST1 */
    put_le16(rig->ram + RIG_TSS + 102, 104);
}

/* 64-bit ring 0 at `rip`, interrupts off. */
static inline void rig_long_mode(struct rig *rig, uint64_t rip)
{
    struct x86_state *s = calloc(1, sizeof(*s));
    rig_ok(accel_soft.vcpu_get(rig->vcpu, s));
    struct x86_segment code = {.limit = ~0u, .attr = 0xa09b, .selector = 0x08};
    struct x86_segment data = {.limit = ~0u, .attr = 0xc093, .selector = 0x10};
    for (unsigned i = 0; i < X86_SEGS; i++)
        s->seg[i] = i == X86_CS ? code : data;
    s->gdt = (struct x86_table_register){.base = RIG_GDT, .limit = 0xff};
    s->idt = (struct x86_table_register){.base = RIG_IDT, .limit = 0};
    s->tr = (struct x86_segment){.base = RIG_TSS, .limit = 103, .attr = 0x8b, .selector = 0x40};
    s->cr0 = CR0_PG | CR0_PE | CR0_ET | CR0_NE | CR0_MP;
    s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    s->cr3 = RIG_TABLES;
    s->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    s->rflags = 2;
    s->rip = rip;
    s->gpr[X86_RSP] = RIG_STACK - 0x1000;
    s->activity = X86_ACTIVE;
    rig_ok(accel_soft.vcpu_set(rig->vcpu, s));
    free(s);
}

/* `debug`: test modes of the engine, or NULL. `model`: the CPU. */
static inline struct rig *rig_new_model(const char *debug, const struct cpu_model *model)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    rig->gmem = gmem_new();
    gmem_share(rig->gmem);
    rig_ok(gmem_add_ram(rig->gmem, "ram", 0, RIG_RAM));
    rig->ram = gmem_region(rig->gmem, 0)->host;
    struct accel_vm_config config = {
        .gmem = rig->gmem, .io = &rig_io, .opaque = rig, .vcpus = 1, .debug = debug, .kvm_fd = -1};
    rig_ok(accel_soft.vm_create(&config, &rig->vm));
    rig_ok(accel_soft.vcpu_create(rig->vm, 0, &rig->vcpu));
    struct cpuid_table *supported = calloc(1, sizeof(*supported));
    struct cpuid_table *table = calloc(1, sizeof(*table));
    rig_ok(accel_soft.cpuid_supported(rig->vm, supported));
    rig_ok(cpuid_build(supported, model, 0, 1, accel_soft.tsc_khz(rig->vm), table));
    rig_ok(accel_soft.vcpu_set_cpuid(rig->vcpu, table));
    free(supported);
    free(table);
    rig->v = (struct soft_vcpu *)rig->vcpu;
    rig_tables(rig);
    rig_long_mode(rig, 0x100000);
    return rig;
}

static inline struct rig *rig_new_modes(const char *debug)
{
    const struct cpu_model host = {.name = NULL};
    return rig_new_model(debug, &host);
}

static inline struct rig *rig_new(void)
{
    return rig_new_modes(NULL);
}

static inline void rig_free(struct rig *rig)
{
    accel_soft.vcpu_free(rig->vcpu);
    accel_soft.vm_free(rig->vm);
    gmem_free(rig->gmem);
    free(rig);
}

static inline enum vm_exit_reason rig_run(struct rig *rig)
{
    rig->exit_value = -1;
    rig->out_len = 0;
    memset(rig->out, 0, sizeof(rig->out));
    accel_soft.vcpu_run(rig->vcpu, &rig->exit);
    return rig->exit.reason;
}

/* Runs `code` at 0x100000 in 64-bit ring 0; the bytes end the run themselves (rig_END). */
#define RIG_END 0xe6, 0xf4, 0xeb, 0xfe /* out 0xf4, al; jmp $ */

/* An IDT gate: handler address, selector 08, type and DPL, IST. */
static inline void rig_gate(struct rig *rig, unsigned vector, uint64_t handler, uint8_t type,
                            unsigned ist)
{
    uint8_t *at = rig->ram + RIG_IDT + vector * 16;
    put_le64(at, (handler & 0xffff) | 0x08ull << 16 | (uint64_t)ist << 32 | (uint64_t)type << 40 |
                     (handler >> 16 & 0xffff) << 48);
    put_le64(at + 8, handler >> 32);
    rig->v->idt.limit = 0xfff;
}

#endif
