/*
 * Which engine runs the guest: hardware KVM where it is usable, else the software engine. A KVM
 * that is itself software (no vmx, no svm) is named and not chosen.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/run.h"

static struct err *open_kvm_device(int *fd)
{
    *fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (*fd < 0)
        return err_errno(errno, "engine kvm: cannot open /dev/kvm");
    return NULL;
}

static struct err *explicit_kvm(const struct accel_kvm_probe *probe)
{
    enum err_kind kind = probe->verdict == ACCEL_KVM_DENIED ? ERR_DENIED : ERR_FAILED;

    return err_of(kind, "engine kvm cannot be used: %s%s%s", probe->why,
                  probe->advice[0] ? "; " : "", probe->advice);
}

struct err *run_choose_accel(struct run *run, bool open_kvm)
{
    struct vm_config *config = &run->launch.config;
    struct accel_kvm_probe probe = {0};

    if (config->accel == VM_ACCEL_SOFT) {
        snprintf(run->engine_why, sizeof(run->engine_why), "soft (asked for)");
        return NULL;
    }
    accel_kvm_probe(&probe);
    if (config->accel == VM_ACCEL_KVM) {
        /* A KVM in software is slow, but it answers: who asks for it by name gets it. */
        if (probe.verdict != ACCEL_KVM_USABLE && probe.verdict != ACCEL_KVM_SOFTWARE)
            return explicit_kvm(&probe);
        snprintf(run->engine_why, sizeof(run->engine_why), "kvm (asked for)%s%s",
                 probe.verdict == ACCEL_KVM_SOFTWARE ? ", although: " : "",
                 probe.verdict == ACCEL_KVM_SOFTWARE ? probe.why : "");
    } else if (probe.verdict == ACCEL_KVM_USABLE) {
        config->accel = VM_ACCEL_KVM;
        snprintf(run->engine_why, sizeof(run->engine_why), "kvm (%s)", probe.why);
    } else {
        config->accel = VM_ACCEL_SOFT;
        snprintf(run->engine_why, sizeof(run->engine_why), "soft (no kvm: %s)", probe.why);
        return NULL;
    }
    return open_kvm ? open_kvm_device(&config->kvm_fd) : NULL;
}
