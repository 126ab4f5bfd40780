/*
 * The KVM engine: model-specific registers to and from struct x86_msrs (api.rst 4.18, 4.19).
 *
 * One table pairs an index with its field. KVM stops at the first register that it does not know:
 * a get leaves that field zero; a set lets it pass if the value is zero, for then nobody used it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "accel/kvm/kvm.h"

#define MSR_TSC_DEADLINE 0x6e0

static const struct {
    uint32_t index;
    size_t offset;
} fields[] = {
#define FIELD(index, member)                                                                       \
    {                                                                                              \
        index, offsetof(struct x86_msrs, member)                                                   \
    }
    FIELD(0x010, tsc),
    FIELD(0x03b, tsc_adjust),
    FIELD(0xc0000103, tsc_aux),
    FIELD(MSR_TSC_DEADLINE, tsc_deadline),
    /* apic_base travels with the segment registers */
    FIELD(0xc0000081, star),
    FIELD(0xc0000082, lstar),
    FIELD(0xc0000083, cstar),
    FIELD(0xc0000084, sfmask),
    FIELD(0xc0000102, kernel_gs_base),
    FIELD(0x174, sysenter_cs),
    FIELD(0x175, sysenter_esp),
    FIELD(0x176, sysenter_eip),
    FIELD(0x277, pat),
    FIELD(0x1a0, misc_enable),
    FIELD(0x048, spec_ctrl),
    FIELD(0xda0, xss),
    FIELD(0x250, mtrr_fixed[0]),
    FIELD(0x258, mtrr_fixed[1]),
    FIELD(0x259, mtrr_fixed[2]),
    FIELD(0x268, mtrr_fixed[3]),
    FIELD(0x269, mtrr_fixed[4]),
    FIELD(0x26a, mtrr_fixed[5]),
    FIELD(0x26b, mtrr_fixed[6]),
    FIELD(0x26c, mtrr_fixed[7]),
    FIELD(0x26d, mtrr_fixed[8]),
    FIELD(0x26e, mtrr_fixed[9]),
    FIELD(0x26f, mtrr_fixed[10]),
#define VARIABLE(i) FIELD(0x200 + 2 * (i), mtrr_base[i]), FIELD(0x201 + 2 * (i), mtrr_mask[i])
    VARIABLE(0),
    VARIABLE(1),
    VARIABLE(2),
    VARIABLE(3),
    VARIABLE(4),
    VARIABLE(5),
    VARIABLE(6),
    VARIABLE(7),
#undef VARIABLE
    FIELD(0x2ff, mtrr_def_type),
    FIELD(0x4b564d01, kvm_system_time),
    FIELD(0x4b564d00, kvm_wall_clock),
    FIELD(0x4b564d02, kvm_async_pf),
    FIELD(0x4b564d03, kvm_steal_time),
    FIELD(0x4b564d04, kvm_pv_eoi),
    FIELD(0x17a, mcg_status),
    FIELD(0x17b, mcg_ctl),
#undef FIELD
};

struct msr_list {
    struct kvm_msrs header;
    struct kvm_msr_entry entries[ARRAY_SIZE(fields)];
};

static uint64_t *field_of(struct x86_msrs *msrs, size_t i)
{
    return (uint64_t *)(void *)((uint8_t *)msrs + fields[i].offset);
}

/*
 * Moves list entries [from, count) in one call. Returns how many KVM took, which is short when the
 * next one is unknown or refused, or a negative errno.
 */
static int move(struct accel_vcpu *vcpu, unsigned long request, const struct msr_list *all,
                struct msr_list *part, unsigned from)
{
    part->header = (struct kvm_msrs){.nmsrs = all->header.nmsrs - from};
    for (unsigned i = from; i < all->header.nmsrs; i++)
        part->entries[i - from] = all->entries[i];
    return kvm_call(vcpu->fd, request, part);
}

struct err *kvm_msrs_get(struct accel_vcpu *vcpu, struct x86_msrs *msrs)
{
    struct msr_list all = {.header.nmsrs = ARRAY_SIZE(fields)}, part;
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
        all.entries[i].index = fields[i].index;

    for (unsigned at = 0; at < ARRAY_SIZE(fields); at++) {
        int taken = move(vcpu, KVM_GET_MSRS, &all, &part, at);
        if (taken < 0)
            return err_errno(taken, "kvm: KVM_GET_MSRS");
        for (int i = 0; i < taken && at < ARRAY_SIZE(fields); i++, at++)
            *field_of(msrs, at) = part.entries[i].data;
        if (at < ARRAY_SIZE(fields))
            *field_of(msrs, at) = 0;
    }
    return NULL;
}

static struct err *set_list(struct accel_vcpu *vcpu, const struct msr_list *all)
{
    struct msr_list part;
    for (unsigned at = 0; at < all->header.nmsrs; at++) {
        int taken = move(vcpu, KVM_SET_MSRS, all, &part, at);
        if (taken < 0)
            return err_errno(taken, "kvm: KVM_SET_MSRS");
        at += taken;
        if (at < all->header.nmsrs && all->entries[at].data)
            return err_new("kvm: this host refuses MSR 0x%x with the value 0x%llx",
                           all->entries[at].index, (unsigned long long)all->entries[at].data);
    }
    return NULL;
}

struct err *kvm_msrs_set(struct accel_vcpu *vcpu, const struct x86_msrs *msrs)
{
    struct msr_list all = {0};
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
        if (fields[i].index != MSR_TSC_DEADLINE)
            all.entries[all.header.nmsrs++] = (struct kvm_msr_entry){
                .index = fields[i].index, .data = *field_of((struct x86_msrs *)(uintptr_t)msrs, i)};
    return set_list(vcpu, &all);
}

struct err *kvm_msrs_set_deadline(struct accel_vcpu *vcpu, const struct x86_msrs *msrs)
{
    struct msr_list one = {.header.nmsrs = 1,
                           .entries[0] = {.index = MSR_TSC_DEADLINE, .data = msrs->tsc_deadline}};
    return set_list(vcpu, &one);
}
