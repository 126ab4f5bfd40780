/*
 * The state of a whole machine: what kind it is, every device in the order of building, every vCPU.
 * Guest RAM is not part of it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <stdlib.h>

#include "vm/vm_internal.h"

/* What both sides must have alike, before anything is loaded. */
struct machine {
    uint32_t board, cpus;
    uint64_t memory;
};

static const struct state_field machine_fields[] = {
    STATE_U32(1, machine, board),
    STATE_U32(2, machine, cpus),
    STATE_U64(3, machine, memory),
};

static const struct state_table machine_table = {
    .name = "machine",
    .version = 1,
    .min_version = 1,
    .size = sizeof(struct machine),
    .fields = machine_fields,
    .field_count = ARRAY_SIZE(machine_fields),
};

static struct machine describe(const struct vm *vm)
{
    return (struct machine){vm->config->board, vm->config->cpus, vm->config->memory};
}

static struct err *check_can_move(const struct vm *vm)
{
    /* Keys and PCRs are swtpm's: a guest that found another TPM behind its registers would be lost.
     */
    if (vm->config->tpm)
        return err_new(
            "the state of a VM with a TPM cannot be saved or loaded: it would be without "
            "what the TPM holds");
    if (vm->started && (!vm->paused || vm->held))
        return err_new("the VM runs: pause it first");
    return NULL;
}

static struct err *save_cpu(struct vm *vm, unsigned index, struct state_writer *writer)
{
    struct x86_state *state = xcalloc(1, sizeof(*state));
    scoped(free_cleanup) void *owned = state;
    char *name = xasprintf("cpu%u", index);
    scoped(free_cleanup) void *owned_name = name;

    TRY(err_wrap(vm->accel->vcpu_get(vm->cpu[index].vcpu, state), "CPU %u", index));
    state_save(writer, &x86_state_table, name, state);
    return NULL;
}

struct err *vm_save(struct vm *vm, struct state_writer *writer)
{
    struct machine machine = describe(vm);
    struct device *device;

    TRY(check_can_move(vm));
    state_save(writer, &machine_table, "machine", &machine);
    list_for_each (device, &vm->board.devices, link)
        device_save(device, writer);
    for (unsigned i = 0; i < vm->cpu_count; i++)
        TRY(save_cpu(vm, i, writer));
    return NULL;
}

static struct err *load_cpu(struct vm *vm, unsigned index, struct state_reader *reader)
{
    struct x86_state *state = xcalloc(1, sizeof(*state));
    scoped(free_cleanup) void *owned = state;
    char *name = xasprintf("cpu%u", index);
    scoped(free_cleanup) void *owned_name = name;

    TRY(state_load(reader, &x86_state_table, name, state));
    return err_wrap(vm->accel->vcpu_set(vm->cpu[index].vcpu, state), "CPU %u", index);
}

static struct err *check_machine(const struct machine *have, const struct machine *loaded)
{
    if (have->board != loaded->board)
        return err_new("the state is of board %s: choose it with --board",
                       board_kind((enum vm_board)loaded->board)->name);
    if (have->cpus != loaded->cpus)
        return err_new("the state is of a VM with %u CPUs: give --cpus %u", loaded->cpus,
                       loaded->cpus);
    if (have->memory != loaded->memory)
        return err_new("the state is of a VM with %" PRIu64 "M of memory: give --memory %" PRIu64
                       "M",
                       loaded->memory / MIB(1), loaded->memory / MIB(1));
    return NULL;
}

struct err *vm_load(struct vm *vm, struct state_reader *reader)
{
    struct machine machine = describe(vm), loaded = machine;
    struct device *device;

    TRY(check_can_move(vm));
    TRY(state_load(reader, &machine_table, "machine", &loaded));
    TRY(check_machine(&machine, &loaded));
    board_quiesce(&vm->board);
    list_for_each (device, &vm->board.devices, link)
        TRY(device_load(device, reader));
    TRY(vm_memory_settle(vm));
    for (unsigned i = 0; i < vm->cpu_count; i++)
        TRY(load_cpu(vm, i, reader));
    vm->asleep = board_asleep(&vm->board);
    return NULL;
}
