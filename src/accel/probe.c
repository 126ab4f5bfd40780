/*
 * What the host's /dev/kvm is worth, for `--accel auto` and `tenon doctor`.
 *
 * A KVM that answers on a CPU without VMX and SVM is emulated in software: it runs guest kernels a
 * thousand times slower than the bare CPU, and slower than our own engine. It is named, not chosen.
 *
 * Any thread; opens and closes, keeps nothing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "accel/accel.h"

/* Capabilities without which accel_kvm refuses to start, and the Linux that brought each. */
static const struct {
    int number;
    const char *name, *since;
} needed[] = {
    {KVM_CAP_SIGNAL_MSI, "message-signalled interrupts", "3.5"},
    {KVM_CAP_READONLY_MEM, "read-only memory slots", "3.7"},
    {KVM_CAP_SPLIT_IRQCHIP, "the split interrupt chip", "4.4"},
    {KVM_CAP_IMMEDIATE_EXIT, "immediate exit", "4.11"},
};

static void verdict(struct accel_kvm_probe *probe, enum accel_kvm_verdict what, const char *why,
                    const char *advice)
{
    probe->verdict = what;
    snprintf(probe->why, sizeof(probe->why), "%s", why);
    snprintf(probe->advice, sizeof(probe->advice), "%s", advice);
}

/* "vmx", "svm" or NULL: the first of them among the CPU's flags. */
static const char *virtualization_flag(void)
{
    const char *found = NULL;
    char *line = NULL;
    size_t size = 0;
    FILE *file = fopen("/proc/cpuinfo", "re");

    while (file && !found && getline(&line, &size, file) > 0) {
        if (strncmp(line, "flags", 5) != 0)
            continue;
        for (char *rest = line, *word; !found && (word = strsep(&rest, " \t\n"));) {
            if (strcmp(word, "vmx") == 0)
                found = "vmx";
            else if (strcmp(word, "svm") == 0)
                found = "svm";
        }
        break; /* all CPUs are alike */
    }
    free(line);
    if (file)
        fclose(file);
    return found;
}

static void cannot_open(struct accel_kvm_probe *probe, int number, const char *flag)
{
    char why[200];

    if (number == EACCES || number == EPERM) {
        verdict(probe, ACCEL_KVM_DENIED, "/dev/kvm is there, but this user may not open it",
                "add the user to the group that owns it: sudo usermod -aG kvm $USER, and log in "
                "again");
    } else if (number != ENOENT && number != ENODEV && number != ENXIO) {
        snprintf(why, sizeof(why), "/dev/kvm cannot be opened: %s", strerror(number));
        verdict(probe, ACCEL_KVM_UNFIT, why, "look at the kernel's log: sudo dmesg | grep -i kvm");
    } else if (flag) {
        snprintf(why, sizeof(why), "the CPU has %s, but there is no /dev/kvm", flag);
        verdict(probe, ACCEL_KVM_MISSING, why,
                strcmp(flag, "vmx") == 0
                    ? "load the module: sudo modprobe kvm_intel; in a container, pass /dev/kvm in"
                    : "load the module: sudo modprobe kvm_amd; in a container, pass /dev/kvm in");
    } else {
        verdict(probe, ACCEL_KVM_MISSING,
                "there is no /dev/kvm, and the CPU shows neither vmx nor svm",
                "switch virtualisation on in the firmware setup, or, on a virtual host, nested "
                "virtualisation in its hypervisor; until then the software engine runs guests");
    }
}

/* With an open /dev/kvm. */
static void examine(struct accel_kvm_probe *probe, int fd, const char *flag)
{
    char why[200];

    probe->api_version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (probe->api_version != KVM_API_VERSION) {
        snprintf(why, sizeof(why), "/dev/kvm speaks API version %d, not %d", probe->api_version,
                 KVM_API_VERSION);
        verdict(probe, ACCEL_KVM_UNFIT, why, "boot a current Linux kernel");
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
        if (ioctl(fd, KVM_CHECK_EXTENSION, needed[i].number) > 0)
            continue;
        char advice[200];
        snprintf(why, sizeof(why), "this KVM has no %s", needed[i].name);
        snprintf(advice, sizeof(advice), "boot Linux %s or later", needed[i].since);
        verdict(probe, ACCEL_KVM_UNFIT, why, advice);
        return;
    }
    if (!flag) {
        verdict(probe, ACCEL_KVM_SOFTWARE,
                "/dev/kvm answers, but the CPU has neither vmx nor svm: this KVM is emulated in "
                "software",
                "nothing to do: the software engine is faster there; where the hypervisor below "
                "offers nested virtualisation, switch it on");
        return;
    }
    snprintf(why, sizeof(why), "/dev/kvm works, with %s in hardware", flag);
    verdict(probe, ACCEL_KVM_USABLE, why, "");
}

void accel_kvm_probe(struct accel_kvm_probe *probe)
{
    *probe = (struct accel_kvm_probe){0};
    const char *flag = virtualization_flag();
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        cannot_open(probe, errno, flag);
        return;
    }
    examine(probe, fd, flag);
    close(fd);
}
