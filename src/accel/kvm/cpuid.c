/*
 * The KVM engine: CPUID tables to and from KVM's form (api.rst 4.20, 4.46).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>

#include "accel/kvm/kvm.h"

#define CPUID_1_ECX_X2APIC (1u << 21)
#define CPUID_1_ECX_TSC_DEADLINE (1u << 24)
#define CPUID_1_ECX_HYPERVISOR (1u << 31)

static struct kvm_cpuid2 *new_list(unsigned entries)
{
    struct kvm_cpuid2 *list = calloc(1, sizeof(*list) + entries * sizeof(list->entries[0]));
    if (list)
        list->nent = entries;
    return list;
}

struct err *kvm_cpuid_supported(struct accel_vm *vm, struct cpuid_table *table)
{
    scoped(free_cleanup) struct kvm_cpuid2 *list = new_list(CPUID_ENTRIES_MAX);
    if (!list)
        return err_errno(ENOMEM, "kvm: CPUID");
    int rc = kvm_call(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, list);
    if (rc < 0)
        return err_errno(rc, "kvm: KVM_GET_SUPPORTED_CPUID");

    table->count = 0;
    for (unsigned i = 0; i < list->nent && i < CPUID_ENTRIES_MAX; i++) {
        const struct kvm_cpuid_entry2 *from = &list->entries[i];
        table->entries[table->count++] = (struct cpuid_entry){
            .leaf = from->function,
            .subleaf = from->index,
            .subleaf_matters = from->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            .eax = from->eax,
            .ebx = from->ebx,
            .ecx = from->ecx,
            .edx = from->edx,
        };
        if (from->function != 1)
            continue;
        /* KVM's own APIC brings these; that it has the deadline timer is told elsewhere only. */
        uint32_t *ecx = &table->entries[table->count - 1].ecx;
        *ecx |= CPUID_1_ECX_X2APIC | CPUID_1_ECX_HYPERVISOR;
        if (kvm_call_number(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
            *ecx |= CPUID_1_ECX_TSC_DEADLINE;
    }
    return NULL;
}

struct err *kvm_vcpu_set_cpuid(struct accel_vcpu *vcpu, const struct cpuid_table *table)
{
    scoped(free_cleanup) struct kvm_cpuid2 *list = new_list(table->count);
    if (!list)
        return err_errno(ENOMEM, "kvm: CPUID");
    for (unsigned i = 0; i < table->count; i++) {
        const struct cpuid_entry *from = &table->entries[i];
        list->entries[i] = (struct kvm_cpuid_entry2){
            .function = from->leaf,
            .index = from->subleaf,
            .flags = from->subleaf_matters ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0u,
            .eax = from->eax,
            .ebx = from->ebx,
            .ecx = from->ecx,
            .edx = from->edx,
        };
    }
    int rc = kvm_call(vcpu->fd, KVM_SET_CPUID2, list);
    return rc < 0 ? err_errno(rc, "kvm: KVM_SET_CPUID2 of CPU %u", vcpu->index) : NULL;
}
