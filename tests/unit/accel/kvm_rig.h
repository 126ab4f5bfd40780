/*
 * A machine for tests of the KVM engine: 1 MiB of RAM at 0, a ROM, and real-mode code written out
 * in bytes. Port and memory accesses are recorded; a write to port 0xf4 kicks the vCPU, so that
 * vcpu_run returns when the guest says that it is done.
 *
 * The tests skip, with the probe's reason, where there is no usable /dev/kvm; a KVM emulated in
 * software will do, the guests are a few instructions long.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TESTS_KVM_RIG_H
#define TENON_TESTS_KVM_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "accel/accel.h"
#include "base/bytes.h"
#include "base/clock.h"

#define RIG_RAM MIB(1)
#define RIG_ROM 0xe0000000u
#define RIG_CODE 0x1000u
#define RIG_STACK 0x8000u
#define RIG_DONE_PORT 0xf4
#define RIG_LOG 64

struct rig_access {
    bool write, mmio;
    uint64_t address, value;
    unsigned size;
};

struct rig {
    struct gmem *gmem;
    int kvm_fd;
    struct accel_vm *vm;
    struct accel_vcpu *cpu[4];
    unsigned cpus;
    struct rig_access log[RIG_LOG];
    unsigned count;
    uint64_t answer; /* what reads return, plus how many reads there were */
    unsigned reads;
    bool kick_on_read;
    unsigned acks, eois;
    uint8_t extint_vector, eoi_vector;
    uint8_t done; /* last byte written to the done port */
    pthread_mutex_t mutex;
};

static inline void rig_record(struct rig *rig, bool write, bool mmio, uint64_t address,
                              unsigned size, uint64_t value)
{
    pthread_mutex_lock(&rig->mutex);
    if (rig->count < RIG_LOG)
        rig->log[rig->count++] = (struct rig_access){write, mmio, address, value, size};
    pthread_mutex_unlock(&rig->mutex);
}

static inline uint32_t rig_pio_read(void *opaque, uint16_t port, unsigned size)
{
    struct rig *rig = opaque;
    uint32_t value = (uint32_t)(rig->answer + rig->reads++);
    rig_record(rig, false, false, port, size, value);
    if (rig->kick_on_read)
        accel_kvm.vcpu_kick(rig->cpu[0]);
    return value;
}

static inline void rig_pio_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct rig *rig = opaque;
    if (port == RIG_DONE_PORT) {
        rig->done = (uint8_t)value;
        for (unsigned i = 0; i < rig->cpus; i++)
            accel_kvm.vcpu_kick(rig->cpu[i]);
        return;
    }
    rig_record(rig, true, false, port, size, value);
}

static inline uint64_t rig_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    struct rig *rig = opaque;
    uint64_t value = rig->answer + rig->reads++;
    rig_record(rig, false, true, gpa, size, value);
    return value;
}

static inline void rig_mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t value)
{
    rig_record(opaque, true, true, gpa, size, value);
}

static inline uint8_t rig_extint_ack(void *opaque)
{
    struct rig *rig = opaque;
    rig->acks++;
    accel_kvm.extint_set(rig->vm, false);
    return rig->extint_vector;
}

static inline void rig_ioapic_eoi(void *opaque, uint8_t vector)
{
    struct rig *rig = opaque;
    rig->eois++;
    rig->eoi_vector = vector;
}

static const struct accel_io rig_io = {
    .pio_read = rig_pio_read,
    .pio_write = rig_pio_write,
    .mmio_read = rig_mmio_read,
    .mmio_write = rig_mmio_write,
    .extint_ack = rig_extint_ack,
    .ioapic_eoi = rig_ioapic_eoi,
};

static inline void rig_ok_(struct err *err, const char *file, int line)
{
    if (!err)
        return;
    print_error("%s:%d: %s\n", file, line, err_text(err));
    err_free(err);
    fail();
}
#define rig_ok(call) rig_ok_(call, __FILE__, __LINE__)

/* For what a KVM emulated in software cannot do, or cannot do in time. */
static inline void rig_needs_hardware(void)
{
    struct accel_kvm_probe probe;
    accel_kvm_probe(&probe);
    if (probe.verdict != ACCEL_KVM_USABLE) {
        print_message("skipped: needs KVM in hardware: %s\n", probe.why);
        skip();
    }
}

/* Skips the test when there is no KVM at all. */
static inline void rig_init(struct rig *rig, unsigned cpus)
{
    struct accel_kvm_probe probe;
    accel_kvm_probe(&probe);
    if (probe.verdict != ACCEL_KVM_USABLE && probe.verdict != ACCEL_KVM_SOFTWARE) {
        print_message("skipped: %s\n", probe.why);
        skip();
    }
    *rig = (struct rig){.answer = 0x11223344, .cpus = cpus};
    pthread_mutex_init(&rig->mutex, NULL);
    rig->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    assert_true(rig->kvm_fd >= 0);
    rig->gmem = gmem_new();
    rig_ok(gmem_add_ram(rig->gmem, "ram", 0, RIG_RAM));
    rig_ok(gmem_add_rom(rig->gmem, "rom", RIG_ROM, KIB(64)));
    struct accel_vm_config config = {
        .gmem = rig->gmem, .io = &rig_io, .opaque = rig, .vcpus = cpus, .kvm_fd = rig->kvm_fd};
    rig_ok(accel_kvm.vm_create(&config, &rig->vm));

    struct cpuid_table *table = calloc(2, sizeof(*table));
    struct cpu_model model = {.name = "host"};
    rig_ok(accel_kvm.cpuid_supported(rig->vm, &table[0]));
    for (unsigned i = 0; i < cpus; i++) {
        rig_ok(accel_kvm.vcpu_create(rig->vm, i, &rig->cpu[i]));
        rig_ok(cpuid_build(&table[0], &model, i, cpus, accel_kvm.tsc_khz(rig->vm), &table[1]));
        rig_ok(accel_kvm.vcpu_set_cpuid(rig->cpu[i], &table[1]));
    }
    free(table);
}

static inline void rig_fini(struct rig *rig)
{
    for (unsigned i = 0; i < rig->cpus; i++)
        accel_kvm.vcpu_free(rig->cpu[i]);
    accel_kvm.vm_free(rig->vm);
    gmem_free(rig->gmem);
    close(rig->kvm_fd);
    pthread_mutex_destroy(&rig->mutex);
}

/* Real mode at `rip`, flat low 64 KiB, interrupts off, LAPIC of the BSP on. */
static inline void rig_real_mode(struct x86_state *state, uint64_t rip)
{
    x86_state_reset(state, 0, true);
    state->seg[X86_CS].base = 0;
    state->seg[X86_CS].selector = 0;
    state->rip = rip;
    state->gpr[X86_RSP] = RIG_STACK;
    state->idt.limit = 0x3ff;
    put_le32(state->lapic + 0xf0, 0x1ff);
}

static inline void rig_load(struct rig *rig, uint64_t gpa, const void *code, size_t size)
{
    assert_int_equal(gmem_load(rig->gmem, gpa, code, size), 0);
}

/* The real-mode interrupt vector `vector` leads to `offset` of segment 0. */
static inline void rig_vector(struct rig *rig, uint8_t vector, uint16_t offset)
{
    uint8_t entry[4];
    put_le16(entry, offset);
    put_le16(entry + 2, 0);
    rig_load(rig, vector * 4u, entry, sizeof(entry));
}

static inline void rig_start(struct rig *rig, const void *code, size_t size)
{
    struct x86_state *state = calloc(1, sizeof(*state));
    rig_load(rig, RIG_CODE, code, size);
    rig_real_mode(state, RIG_CODE);
    rig_ok(accel_kvm.vcpu_set(rig->cpu[0], state));
    free(state);
}

static inline enum vm_exit_reason rig_run_(struct rig *rig)
{
    struct vm_exit exit;
    alarm(20); /* a guest that hangs fails the test, not the machine */
    accel_kvm.vcpu_run(rig->cpu[0], &exit);
    alarm(0);
    if (exit.reason == VM_EXIT_ERROR)
        print_message("exit: %s\n", exit.error);
    return exit.reason;
}

/* Runs `code` in real mode until it writes the done port. */
#define rig_run_code(rig, code)                                                                    \
    do {                                                                                           \
        rig_start(rig, code, sizeof(code));                                                        \
        assert_int_equal(rig_run_(rig), VM_EXIT_KICKED);                                           \
    } while (0)

static inline void rig_expect(const struct rig *rig, unsigned index, bool write, bool mmio,
                              uint64_t address, unsigned size, uint64_t value)
{
    assert_true(index < rig->count);
    assert_int_equal(rig->log[index].write, write);
    assert_int_equal(rig->log[index].mmio, mmio);
    assert_int_equal(rig->log[index].address, address);
    assert_int_equal(rig->log[index].size, size);
    assert_int_equal(rig->log[index].value, value);
}

#define DONE 0xe6, RIG_DONE_PORT /* out 0xf4, al */

#endif
