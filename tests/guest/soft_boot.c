/*
 * Boots a Linux bzImage or a bare Multiboot guest on the software CPU engine alone: RAM, a serial
 * port without interrupts, an IOAPIC that only remembers, ACPI tables for the CPUs, a debug-exit
 * port. For work on the engine; the real boards are in hw/.
 *
 *   soft_boot [-c CPUS] [-m MIB] [-i INITRD] [-t SECONDS] [-q] [-d DUMP] KERNEL [COMMAND LINE]
 *
 * Linux Documentation/arch/x86/boot.rst, 64-bit boot protocol; a 32-bit ELF file starts as
 * Multiboot 1.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "accel/accel.h"
#include "base/checked.h"
#include "base/clock.h"

#define ZERO_PAGE 0x10000
#define CMDLINE 0x20000
#define PAGE_TABLES 0x30000
#define GDT 0x40000
#define ACPI 0xe0000
#define KERNEL_AT 0x1000000
#define IOAPIC 0xfec00000u

struct machine {
    struct gmem *gmem;
    struct accel_vm *vm;
    struct accel_vcpu *vcpu[ACCEL_VCPUS_MAX];
    unsigned cpus;
    uint64_t ram;
    uint32_t ioapic_select, ioapic[64];
    uint8_t uart[8], divisor[2];
    bool tx_pending; /* "transmitter empty" waits to be read from IIR */
    volatile bool stop;
    int status;
    uint64_t start_ns;
    bool quiet;
};

static void fail(struct err *err)
{
    fprintf(stderr, "soft_boot: %s\n", err_text(err));
    exit(1);
}

static void stop_all(struct machine *m, int status)
{
    m->status = status;
    m->stop = true;
    for (unsigned i = 0; i < m->cpus; i++)
        accel_soft.vcpu_kick(m->vcpu[i]);
}

/* IRQ 4: edge-triggered through the IOAPIC's entry, as an MSI. */
static void uart_irq(struct machine *m)
{
    uint32_t low = m->ioapic[0x10 + 8], high = m->ioapic[0x11 + 8];
    if (!(m->uart[1] & 2))
        return;
    m->tx_pending = true;
    if (!(low & 0x10000))
        accel_soft.msi_send(m->vm, 0xfee00000 | high >> 24 << 12 | (low >> 11 & 1) << 2,
                            low & 0x7ff);
}

static uint32_t uart_iir(struct machine *m)
{
    if (!m->tx_pending)
        return 0xc1;
    m->tx_pending = false;
    return 0xc2;
}

static uint32_t pio_read(void *opaque, uint16_t port, unsigned size)
{
    struct machine *m = opaque;
    if (port >= 0x3f8 && port < 0x400) {
        unsigned reg = port - 0x3f8;
        if (reg < 2 && m->uart[3] & 0x80)
            return m->divisor[reg];
        switch (reg) {
        case 0:
            return 0;
        case 2:
            return uart_iir(m);
        case 5:
            return 0x60;
        case 6:
            return 0xb0;
        default:
            return m->uart[reg];
        }
    }
    if (port == 0x71)
        return 0;
    return ~0u >> (32 - 8 * size);
}

static void pio_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct machine *m = opaque;
    if (port >= 0x3f8 && port < 0x400) {
        unsigned reg = port - 0x3f8;
        if (reg < 2 && m->uart[3] & 0x80) {
            m->divisor[reg] = value;
        } else if (reg == 0) {
            if (!m->quiet) {
                putchar(value);
                if ((uint8_t)value == '\n')
                    fflush(stdout);
            }
            uart_irq(m);
        } else {
            m->uart[reg] = value;
            if (reg == 1)
                uart_irq(m);
        }
    } else if (port == 0xe9) {
        putchar(value);
        fflush(stdout);
    } else if (port == 0xf4) {
        stop_all(m, value & 0xff);
    } else if ((port == 0x64 && value == 0xfe) || (port == 0xcf9 && value & 4)) {
        stop_all(m, 0); /* reset, by the keyboard controller or the chipset */
    }
}

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    struct machine *m = opaque;
    if (gpa == IOAPIC)
        return m->ioapic_select;
    if (gpa == IOAPIC + 0x10)
        return m->ioapic_select == 1 ? 0x170011 : m->ioapic[m->ioapic_select & 63];
    return ~0ull;
}

static void mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t value)
{
    struct machine *m = opaque;
    if (gpa == IOAPIC)
        m->ioapic_select = value & 63;
    else if (gpa == IOAPIC + 0x10)
        m->ioapic[m->ioapic_select & 63] = value;
}

static uint8_t extint_ack(void *opaque)
{
    return 0;
}

static void ioapic_eoi(void *opaque, uint8_t vector)
{
}

static const struct accel_io io = {.pio_read = pio_read,
                                   .pio_write = pio_write,
                                   .mmio_read = mmio_read,
                                   .mmio_write = mmio_write,
                                   .extint_ack = extint_ack,
                                   .ioapic_eoi = ioapic_eoi};

static void put(struct machine *m, uint64_t gpa, const void *bytes, size_t len)
{
    if (gmem_load(m->gmem, gpa, bytes, len)) {
        fprintf(stderr, "soft_boot: %#llx does not fit into memory\n", (unsigned long long)gpa);
        exit(1);
    }
}

/* ---- ACPI ---- */

static uint64_t acpi_table(struct machine *m, uint64_t *at, const char *name, struct buf *body)
{
    uint8_t head[36] = {0};
    memcpy(head, name, 4);
    put_le32(head + 4, 36 + body->len);
    head[8] = memcmp(name, "FACP", 4) ? 1 : 6;
    memcpy(head + 10, "TENON TENONSOF", 14);
    uint8_t sum = 0;
    for (size_t i = 0; i < sizeof(head); i++)
        sum += head[i];
    for (size_t i = 0; i < body->len; i++)
        sum += body->data[i];
    head[9] = -sum;
    uint64_t gpa = *at;
    put(m, gpa, head, 36);
    if (body->len)
        put(m, gpa + 36, body->data, body->len);
    *at = ALIGN_UP(gpa + 36 + body->len, 16);
    buf_fini(body);
    return gpa;
}

static uint64_t build_acpi(struct machine *m)
{
    uint64_t at = ACPI + 64;
    struct buf madt = BUF_INIT, fadt = BUF_INIT, dsdt = BUF_INIT, xsdt = BUF_INIT;
    buf_le32(&madt, 0xfee00000);
    buf_le32(&madt, 0);
    for (unsigned i = 0; i < m->cpus; i++) {
        uint8_t lapic[8] = {0, 8, i, i, 1};
        buf_append(&madt, lapic, 8);
    }
    uint8_t ioapic[12] = {1, 12, m->cpus};
    put_le32(ioapic + 4, IOAPIC);
    buf_append(&madt, ioapic, 12);
    uint64_t madt_at = acpi_table(m, &at, "APIC", &madt);
    uint64_t dsdt_at = acpi_table(m, &at, "DSDT", &dsdt);
    uint8_t *f = buf_extend(&fadt, 276 - 36);
    put_le32(f + 40 - 36, dsdt_at);
    put_le32(f + 112 - 36, 1u << 20); /* hardware-reduced */
    put_le64(f + 140 - 36, dsdt_at);
    uint64_t fadt_at = acpi_table(m, &at, "FACP", &fadt);
    buf_le64(&xsdt, fadt_at);
    buf_le64(&xsdt, madt_at);
    uint64_t xsdt_at = acpi_table(m, &at, "XSDT", &xsdt);
    uint8_t rsdp[36] = "RSD PTR ", sum = 0;
    memcpy(rsdp + 9, "TENON ", 6);
    rsdp[15] = 2;
    put_le32(rsdp + 20, 36);
    put_le64(rsdp + 24, xsdt_at);
    for (unsigned i = 0; i < 20; i++)
        sum += rsdp[i];
    rsdp[8] = -sum;
    sum = 0;
    for (unsigned i = 0; i < 36; i++)
        sum += rsdp[i];
    rsdp[32] = -sum;
    put(m, ACPI, rsdp, 36);
    return ACPI;
}

/* ---- loading ---- */

static uint8_t *read_file(const char *path, size_t *len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        fprintf(stderr, "soft_boot: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    uint8_t *bytes = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (bytes == MAP_FAILED) {
        fprintf(stderr, "soft_boot: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    *len = st.st_size;
    return bytes;
}

static void put_e820(uint8_t *zero, unsigned i, uint64_t base, uint64_t size, uint32_t type)
{
    uint8_t *at = zero + 0x2d0 + i * 20;
    put_le64(at, base);
    put_le64(at + 8, size);
    put_le32(at + 16, type);
    zero[0x1e8] = i + 1;
}

static void load_linux(struct machine *m, const uint8_t *image, size_t len, const char *initrd,
                       const char *cmdline)
{
    uint8_t zero[4096] = {0};
    unsigned setup = (image[0x1f1] ? image[0x1f1] : 4) + 1;
    if (len < 0x268 || get_le32(image + 0x202) != 0x53726448 || len < setup * 512u) {
        fprintf(stderr, "soft_boot: not a bzImage\n");
        exit(1);
    }
    memcpy(zero + 0x1f1, image + 0x1f1, MIN((size_t)0x202 + image[0x201] - 0x1f1, (size_t)0x80));
    zero[0x210] = 0xff;
    zero[0x211] |= 1;
    put_le32(zero + 0x228, CMDLINE);
    put_e820(zero, 0, 0, 0x9fc00, 1);
    put_e820(zero, 1, 0xe0000, 0x20000, 2);
    put_e820(zero, 2, 0x100000, m->ram - 0x100000, 1);
    put_le64(zero + 0x70, build_acpi(m));
    put(m, KERNEL_AT, image + setup * 512, len - setup * 512);
    put(m, CMDLINE, cmdline, strlen(cmdline) + 1);
    if (initrd) {
        size_t size;
        uint8_t *bytes = read_file(initrd, &size);
        uint64_t at = ALIGN_DOWN(m->ram - size, 4096);
        put(m, at, bytes, size);
        put_le32(zero + 0x218, at);
        put_le32(zero + 0x21c, size);
    }
    put(m, ZERO_PAGE, zero, sizeof(zero));
}

/* A 32-bit ELF file with a Multiboot 1 header: its segments; the entry point. */
static uint32_t load_multiboot(struct machine *m, const uint8_t *image, size_t len)
{
    uint32_t table = get_le32(image + 28);
    unsigned count = get_le16(image + 44);
    for (unsigned i = 0; i < count; i++) {
        if (!range_within(table + i * 32ull, 32, len))
            break;
        const uint8_t *header = image + table + i * 32;
        uint32_t offset = get_le32(header + 4), size = get_le32(header + 16);
        if (get_le32(header) != 1)
            continue;
        if (!range_within(offset, size, len)) {
            fprintf(stderr, "soft_boot: the file is cut\n");
            exit(1);
        }
        put(m, get_le32(header + 12), image + offset, size);
    }
    return get_le32(image + 24);
}

/* 32-bit protected mode without paging, as Multiboot 1 has it. */
static void enter_multiboot(struct machine *m, uint32_t entry)
{
    struct x86_state *s = xcalloc(1, sizeof(*s));
    struct err *err = accel_soft.vcpu_get(m->vcpu[0], s);
    if (err)
        fail(err);
    struct x86_segment code = {.limit = ~0u, .attr = 0xc09b, .selector = 0x10};
    struct x86_segment data = {.limit = ~0u, .attr = 0xc093, .selector = 0x18};
    for (unsigned i = 0; i < X86_SEGS; i++)
        s->seg[i] = i == X86_CS ? code : data;
    s->cr0 = 0x11;
    s->rflags = 2;
    s->rip = entry;
    s->gpr[X86_RAX] = 0x2badb002;
    s->gpr[X86_RBX] = ZERO_PAGE; /* all zero: no information is given */
    err = accel_soft.vcpu_set(m->vcpu[0], s);
    if (err)
        fail(err);
    free(s);
}

static void build_tables(struct machine *m)
{
    uint8_t page[4096] = {0};
    put_le64(page, (PAGE_TABLES + 0x1000) | 3);
    put(m, PAGE_TABLES, page, 4096);
    for (unsigned i = 0; i < 4; i++)
        put_le64(page + 8 * i, (PAGE_TABLES + 0x2000 + i * 0x1000) | 3);
    put(m, PAGE_TABLES + 0x1000, page, 4096);
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned j = 0; j < 512; j++)
            put_le64(page + 8 * j, ((uint64_t)i << 30 | (uint64_t)j << 21) | 0x83);
        put(m, PAGE_TABLES + 0x2000 + i * 0x1000, page, 4096);
    }
    uint8_t gdt[32] = {0};
    put_le64(gdt + 16, 0x00af9b000000ffffull);
    put_le64(gdt + 24, 0x00cf93000000ffffull);
    put(m, GDT, gdt, 32);
}

static void enter_long_mode(struct machine *m)
{
    struct x86_state *s = xcalloc(1, sizeof(*s));
    struct err *err = accel_soft.vcpu_get(m->vcpu[0], s);
    if (err)
        fail(err);
    struct x86_segment code = {.limit = ~0u, .attr = 0xa09b, .selector = 0x10};
    struct x86_segment data = {.limit = ~0u, .attr = 0xc093, .selector = 0x18};
    for (unsigned i = 0; i < X86_SEGS; i++)
        s->seg[i] = i == X86_CS ? code : data;
    s->gdt = (struct x86_table_register){.base = GDT, .limit = 31};
    s->cr0 = 0x80000031;
    s->cr4 = 0x20;
    s->cr3 = PAGE_TABLES;
    s->efer = 0x500;
    s->rflags = 2;
    s->rip = KERNEL_AT + 0x200;
    s->gpr[X86_RSI] = ZERO_PAGE;
    s->gpr[X86_RSP] = 0x50000;
    err = accel_soft.vcpu_set(m->vcpu[0], s);
    if (err)
        fail(err);
    free(s);
}

/* ---- running ---- */

struct runner {
    struct machine *m;
    unsigned index;
};

static void *run(void *opaque)
{
    struct runner *r = opaque;
    struct machine *m = r->m;
    struct vm_exit exit_info;
    while (!m->stop) {
        accel_soft.vcpu_run(m->vcpu[r->index], &exit_info);
        if (exit_info.reason == VM_EXIT_SHUTDOWN || exit_info.reason == VM_EXIT_ERROR) {
            fprintf(stderr, "soft_boot: vCPU %u: %s\n", r->index,
                    exit_info.reason == VM_EXIT_ERROR ? exit_info.error : "triple fault");
            stop_all(m, exit_info.reason == VM_EXIT_ERROR ? 101 : 100);
        }
    }
    return NULL;
}

static void report(struct machine *m)
{
    double seconds = (clock_now_ns() - m->start_ns) / 1e9;
    for (unsigned i = 0; i < m->cpus; i++) {
        struct accel_stats s;
        struct x86_state *state = xcalloc(1, sizeof(*state));
        accel_soft.vcpu_stats(m->vcpu[i], &s);
        struct err *err = accel_soft.vcpu_get(m->vcpu[i], state);
        err_free(err);
        fprintf(stderr,
                "soft_boot: vCPU %u: %llu M instructions, %.1f MIPS, %.2f s; %llu pio, %llu mmio, "
                "%llu halts, %llu interrupts, %llu tlb misses, %llu blocks, %llu dropped; rip %llx "
                "rsp %llx cr2 %llx cr3 %llx\n",
                i, (unsigned long long)s.instructions / 1000000, s.instructions / seconds / 1e6,
                seconds, (unsigned long long)s.pio, (unsigned long long)s.mmio,
                (unsigned long long)s.halts, (unsigned long long)s.interrupts,
                (unsigned long long)s.tlb_misses, (unsigned long long)s.translations,
                (unsigned long long)s.invalidations, (unsigned long long)state->rip,
                (unsigned long long)state->gpr[X86_RSP], (unsigned long long)state->cr2,
                (unsigned long long)state->cr3);
        free(state);
    }
}

static void create(struct machine *m)
{
    m->gmem = gmem_new();
    struct err *err = gmem_add_ram(m->gmem, "ram", 0, m->ram);
    struct accel_vm_config config = {
        .gmem = m->gmem, .io = &io, .opaque = m, .vcpus = m->cpus, .kvm_fd = -1};
    if (!err)
        err = accel_soft.vm_create(&config, &m->vm);
    struct cpuid_table *supported = xcalloc(1, sizeof(*supported));
    if (!err)
        err = accel_soft.cpuid_supported(m->vm, supported);
    for (unsigned i = 0; i < m->cpus && !err; i++) {
        struct cpu_model model = {.name = NULL};
        struct cpuid_table *table = xcalloc(1, sizeof(*table));
        err = accel_soft.vcpu_create(m->vm, i, &m->vcpu[i]);
        if (!err)
            err = cpuid_build(supported, &model, i, m->cpus, accel_soft.tsc_khz(m->vm), table);
        if (!err)
            err = accel_soft.vcpu_set_cpuid(m->vcpu[i], table);
        free(table);
    }
    free(supported);
    if (err)
        fail(err);
}

int main(int argc, char **argv)
{
    struct machine m = {.cpus = 1, .ram = MIB(512)};
    const char *initrd = NULL;
    const char *cmdline = "console=ttyS0 earlyprintk=serial,ttyS0,115200 panic=-1";
    const char *dump = NULL;
    unsigned timeout = 60;
    int c;
    while ((c = getopt(argc, argv, "c:m:i:t:qd:")) != -1) {
        switch (c) {
        case 'c':
            m.cpus = atoi(optarg);
            break;
        case 'm':
            m.ram = MIB(atoi(optarg));
            break;
        case 'i':
            initrd = optarg;
            break;
        case 't':
            timeout = atoi(optarg);
            break;
        case 'd':
            dump = optarg;
            break;
        case 'q':
            m.quiet = true;
            break;
        default:
            return 2;
        }
    }
    if (optind >= argc || m.cpus < 1 || m.cpus > ACCEL_VCPUS_MAX) {
        fprintf(stderr,
                "usage: soft_boot [-c CPUS] [-m MIB] [-i INITRD] [-t S] [-q] KERNEL [CMD]\n");
        return 2;
    }
    if (optind + 1 < argc)
        cmdline = argv[optind + 1];
    create(&m);
    size_t len;
    uint8_t *image = read_file(argv[optind], &len);
    if (len > 52 && !memcmp(image, "\177ELF\1", 5)) {
        enter_multiboot(&m, load_multiboot(&m, image, len));
    } else {
        load_linux(&m, image, len, initrd, cmdline);
        build_tables(&m);
        enter_long_mode(&m);
    }
    m.start_ns = clock_now_ns();
    pthread_t threads[ACCEL_VCPUS_MAX];
    struct runner runners[ACCEL_VCPUS_MAX];
    for (unsigned i = 0; i < m.cpus; i++) {
        runners[i] = (struct runner){.m = &m, .index = i};
        pthread_create(&threads[i], NULL, run, &runners[i]);
    }
    for (unsigned i = 0; i < timeout * 20 && !m.stop; i++)
        usleep(50000);
    if (!m.stop)
        stop_all(&m, 124);
    for (unsigned i = 0; i < m.cpus; i++)
        pthread_join(threads[i], NULL);
    fflush(stdout);
    report(&m);
    if (dump) {
        const struct gmem_region *ram = gmem_region(m.gmem, 0);
        FILE *file = fopen(dump, "w");
        if (file) {
            fwrite(ram->host, 1, ram->size, file);
            fclose(file);
        }
    }
    for (unsigned i = 0; i < m.cpus; i++)
        accel_soft.vcpu_free(m.vcpu[i]);
    accel_soft.vm_free(m.vm);
    gmem_free(m.gmem);
    return m.status;
}
