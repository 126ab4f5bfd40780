/*
 * What `tenon doctor` looks at: CPU, engines, kernel features, devices, limits, our own programs.
 * Each check tries the thing itself where that is harmless, rather than to believe a version
 * number.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "accel/accel.h"
#include "accel/host_tsc.h"
#include "cmd/doctor.h"
#include "cmd/firmware_files.h"
#include "cmd/run.h"
#include "cmd/spawn.h"
#include "sandbox/sandbox.h"

static void __attribute__((format(printf, 3, 4)))
found(struct finding *finding, enum finding_mark mark, const char *format, ...)
{
    va_list args;

    finding->mark = mark;
    va_start(args, format);
    vsnprintf(finding->text, sizeof(finding->text), format, args);
    va_end(args);
}

static void __attribute__((format(printf, 2, 3)))
advise(struct finding *finding, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(finding->advice, sizeof(finding->advice), format, args);
    va_end(args);
}

/* The first line of a small file, without its newline; false when it cannot be read. */
static bool read_line(const char *path, char *line, size_t size)
{
    scoped(fd_cleanup) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, line, size - 1);

    if (n < 0)
        return false;
    line[n] = 0;
    line[strcspn(line, "\n")] = 0;
    return true;
}

static unsigned count_entries(const char *path)
{
    DIR *directory = opendir(path);
    unsigned count = 0;
    struct dirent *entry;

    while (directory && (entry = readdir(directory)))
        count += entry->d_name[0] != '.';
    if (directory)
        closedir(directory);
    return count;
}

/* ---- CPU ---- */

struct cpu_facts {
    char vendor[64], model[128], flags[8192];
    unsigned count;
};

static bool take_value(const char *line, const char *key, char *value, size_t size)
{
    const char *colon = strchr(line, ':');

    if (strncmp(line, key, strlen(key)) || !colon || value[0])
        return false;
    snprintf(value, size, " %s ", colon + 1 + strspn(colon + 1, " \t"));
    value[strcspn(value, "\n")] = ' ';
    return true;
}

static void trim(char *text)
{
    size_t skip = strspn(text, " "), len = strlen(text + skip);

    memmove(text, text + skip, len + 1);
    while (len && text[len - 1] == ' ')
        text[--len] = 0;
}

static void read_cpu(struct cpu_facts *facts)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char *line = NULL;
    size_t size = 0;

    memset(facts, 0, sizeof(*facts));
    while (file && getline(&line, &size, file) > 0) {
        facts->count += !strncmp(line, "processor", 9);
        take_value(line, "vendor_id", facts->vendor, sizeof(facts->vendor));
        take_value(line, "model name", facts->model, sizeof(facts->model));
        take_value(line, "flags", facts->flags, sizeof(facts->flags));
    }
    free(line);
    if (file)
        fclose(file);
    trim(facts->vendor);
    trim(facts->model);
}

static bool has_flag(const struct cpu_facts *facts, const char *flag)
{
    char word[40];

    snprintf(word, sizeof(word), " %s ", flag);
    return strstr(facts->flags, word);
}

static void check_cpu(struct finding *finding)
{
    static const char *const wanted[] = {
        "vmx",          "svm",         "ept",  "npt",     "x2apic", "tsc_deadline_timer",
        "constant_tsc", "nonstop_tsc", "avx2", "avx512f", "aes",    "fsgsbase"};
    struct cpu_facts facts;
    char list[200] = "", tsc[40] = "";

    read_cpu(&facts);
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
        if (has_flag(&facts, wanted[i]))
            snprintf(list + strlen(list), sizeof(list) - strlen(list), " %s", wanted[i]);
    if (has_flag(&facts, "constant_tsc")) {
        uint32_t khz = host_tsc_khz();
        snprintf(tsc, sizeof(tsc), ", TSC %u.%03u MHz", khz / 1000, khz % 1000);
    }
    found(finding, FINDING_OK, "%u x %s (%s)%s%s:%s", facts.count, facts.model, facts.vendor,
          has_flag(&facts, "hypervisor") ? ", itself virtual" : "", tsc,
          list[0] ? list : " none of the features that matter here");
    if (!has_flag(&facts, "vmx") && !has_flag(&facts, "svm"))
        advise(finding, "no vmx or svm: %s",
               has_flag(&facts, "hypervisor")
                   ? "switch on nested virtualisation in the host of this machine for speed"
                   : "switch on virtualisation (VT-x, SVM) in the firmware setup for speed");
}

static void check_kvm(struct finding *finding)
{
    struct accel_kvm_probe probe = {0};

    accel_kvm_probe(&probe);
    found(finding, probe.verdict == ACCEL_KVM_USABLE ? FINDING_OK : FINDING_LIMITED, "%s%s",
          probe.why, probe.verdict == ACCEL_KVM_USABLE ? "" : "; VMs use the engine soft");
    snprintf(finding->advice, sizeof(finding->advice), "%s", probe.advice);
}

static void check_nested(struct finding *finding)
{
    char value[16];

    if (!read_line("/sys/module/kvm_intel/parameters/nested", value, sizeof(value)) &&
        !read_line("/sys/module/kvm_amd/parameters/nested", value, sizeof(value)))
        found(finding, FINDING_INFO, "no kvm_intel or kvm_amd module is loaded");
    else if (value[0] == 'Y' || value[0] == '1')
        found(finding, FINDING_OK, "guests may run VMs of their own");
    else
        found(finding, FINDING_INFO, "off: guests cannot use KVM themselves");
}

/* ---- kernel ---- */

static void check_memfd(struct finding *finding)
{
    scoped(fd_cleanup) int fd = memfd_create("tenon-doctor", MFD_CLOEXEC);

    if (fd >= 0) {
        found(finding, FINDING_OK, "memory files for guest memory work");
        return;
    }
    found(finding, FINDING_BROKEN, "memfd_create: %s", strerror(errno));
    advise(finding, "leave the container or sandbox that forbids it");
}

static void check_seccomp(struct finding *finding)
{
    uint32_t action = SECCOMP_RET_ERRNO;

    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0) {
        found(finding, FINDING_OK, "filters work");
        return;
    }
    found(finding, FINDING_BROKEN, "no seccomp filters: %s; tenon-vmm runs in no other way",
          strerror(errno));
    advise(finding, "use a kernel with CONFIG_SECCOMP_FILTER");
}

static void check_landlock(struct finding *finding)
{
    int abi = sandbox_landlock_abi();

    if (abi > 0) {
        found(finding, FINDING_OK, "ABI %d", abi);
        return;
    }
    found(finding, FINDING_LIMITED, "not there: seccomp alone confines tenon-vmm");
    advise(finding, "boot with lsm=landlock,... (kernel 5.13 or newer)");
}

static void check_io_uring(struct finding *finding)
{
    struct io_uring_params params = {0};
    scoped(fd_cleanup) int fd = (int)syscall(SYS_io_uring_setup, 4, &params);
    char value[16];

    if (fd >= 0) {
        found(finding, FINDING_OK, "rings for disk I/O work");
        return;
    }
    found(finding, FINDING_LIMITED, "io_uring_setup: %s; VMs with disks need it", strerror(errno));
    if (read_line("/proc/sys/kernel/io_uring_disabled", value, sizeof(value)) && value[0] != '0')
        advise(finding, "sysctl kernel.io_uring_disabled=0 (it is %s)", value);
    else
        advise(finding, "leave the container that forbids it, or use kernel 5.6 or newer");
}

/* In a child: the namespace would be ours for the rest of the run. */
static void check_userns(struct finding *finding)
{
    pid_t pid = fork();
    int status = 1;

    if (pid == 0)
        _exit(unshare(CLONE_NEWUSER) == 0 ? 0 : 1);
    if (pid > 0)
        waitpid(pid, &status, 0);
    if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        found(finding, FINDING_OK, "this user can make user namespaces");
    else
        found(finding, FINDING_INFO, "this user cannot make user namespaces; VMs do without");
}

/* ---- devices ---- */

static void check_tap(struct finding *finding)
{
    scoped(fd_cleanup) int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    if (fd >= 0) {
        found(finding, FINDING_OK, "/dev/net/tun opens; an own tap device can be used%s",
              geteuid() == 0 ? ", or made" : "");
        if (geteuid() != 0)
            advise(finding, "make one for this user: sudo ip tuntap add dev tap0 mode tap user %u",
                   geteuid());
        return;
    }
    found(finding, FINDING_INFO, "/dev/net/tun: %s; the network of kind user needs none",
          strerror(errno));
    if (errno == ENOENT)
        advise(finding, "for tap devices: sudo modprobe tun");
}

static void check_vhost(struct finding *finding)
{
    static const char *const nodes[] = {"/dev/vhost-net", "/dev/vhost-vsock"};
    char list[160] = "";

    for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s %s", i ? ", " : "",
                 nodes[i],
                 access(nodes[i], R_OK | W_OK) == 0 ? "usable"
                 : errno == ENOENT                  ? "missing"
                                                    : "not permitted");
    found(finding, strstr(list, "usable") ? FINDING_OK : FINDING_INFO, "%s", list);
}

static void check_vfio(struct finding *finding)
{
    unsigned groups = count_entries("/sys/kernel/iommu_groups");
    bool vfio = access("/dev/vfio/vfio", F_OK) == 0;

    found(finding, groups && vfio ? FINDING_OK : FINDING_INFO, "%u IOMMU groups, /dev/vfio/vfio %s",
          groups, vfio ? "is there" : "is missing");
    if (!groups)
        advise(finding, "for device passthrough: switch on VT-d or AMD-Vi in the firmware setup "
                        "and boot with intel_iommu=on");
    else if (!vfio)
        advise(finding, "for device passthrough: sudo modprobe vfio-pci");
}

/* ---- memory and limits ---- */

static uint64_t meminfo_kib(const char *key)
{
    FILE *file = fopen("/proc/meminfo", "re");
    char line[160];
    uint64_t value = 0;

    while (file && fgets(line, sizeof(line), file))
        if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':')
            value = strtoull(line + strlen(key) + 1, NULL, 10);
    if (file)
        fclose(file);
    return value;
}

static void check_memory(struct finding *finding)
{
    uint64_t total = meminfo_kib("MemTotal"), available = meminfo_kib("MemAvailable");

    found(finding, available >= 512 * 1024 ? FINDING_OK : FINDING_LIMITED,
          "%" PRIu64 " MiB, of which %" PRIu64 " MiB are available", total >> 10, available >> 10);
    if (finding->mark != FINDING_OK)
        advise(finding, "the standard VM has 512 MiB: stop something, or give --memory 128M");
}

static void check_hugepages(struct finding *finding)
{
    uint64_t total = meminfo_kib("HugePages_Total"), unused = meminfo_kib("HugePages_Free");
    char thp[80] = "";

    read_line("/sys/kernel/mm/transparent_hugepage/enabled", thp, sizeof(thp));
    found(finding,
          total || strstr(thp, "[always]") || strstr(thp, "[madvise]") ? FINDING_OK : FINDING_INFO,
          "%" PRIu64 " of %" PRIu64 " reserved pages of %" PRIu64 " KiB are free; transparent: %s",
          unused, total, meminfo_kib("Hugepagesize"), thp[0] ? thp : "not there");
}

static void check_ksm(struct finding *finding)
{
    char run[16];

    if (!read_line("/sys/kernel/mm/ksm/run", run, sizeof(run)))
        found(finding, FINDING_INFO, "the kernel cannot merge equal pages");
    else if (run[0] == '1')
        found(finding, FINDING_OK, "equal pages are merged");
    else
        found(finding, FINDING_INFO, "off");
}

static void check_limits(struct finding *finding)
{
    struct rlimit files = {0};

    getrlimit(RLIMIT_NOFILE, &files);
    found(finding, files.rlim_cur >= 256 ? FINDING_OK : FINDING_LIMITED,
          "%" PRIu64 " open files (at most %" PRIu64 ")", (uint64_t)files.rlim_cur,
          (uint64_t)files.rlim_max);
    if (finding->mark != FINDING_OK)
        advise(finding, "ulimit -n 1024");
}

/* ---- our own programs ---- */

static void check_program(struct finding *finding, const char *program, enum finding_mark missing)
{
    char *path = NULL;
    struct err *err = spawn_find(program, &path);

    if (!err) {
        found(finding, FINDING_OK, "%s", path);
    } else {
        found(finding, missing, "%s", err_text(err));
        advise(finding, "install Tenon completely");
    }
    err_free(err);
    free(path);
}

static void check_vmm(struct finding *finding)
{
    check_program(finding, "tenon-vmm", FINDING_BROKEN);
}

static void check_firmware(struct finding *finding)
{
    struct buf there = BUF_INIT, missing = BUF_INIT;

    firmware_list(&there, &missing);
    found(finding, there.len ? FINDING_OK : FINDING_INFO, "%s",
          there.len ? (char *)there.data : "none is installed: VMs start with a kernel only");
    if (missing.len)
        advise(finding, "apt-get install %s", (char *)missing.data);
    buf_fini(&there);
    buf_fini(&missing);
}

static void check_slirp(struct finding *finding)
{
    check_program(finding, "tenon-slirp", FINDING_LIMITED);
}

static void check_view(struct finding *finding)
{
    check_program(finding, "tenon-view", FINDING_LIMITED);
}

static void check_tpm(struct finding *finding)
{
    scoped(free_cleanup) char *path = NULL;
    struct err *err = run_find_swtpm(&path);

    if (!err) {
        found(finding, FINDING_OK, "%s", path);
        return;
    }
    err_free(err);
    found(finding, FINDING_INFO, "swtpm is not installed: VMs have no TPM");
    advise(finding, "apt-get install swtpm");
}

const struct doctor_check doctor_checks[] = {
    {"cpu", "CPU", check_cpu},
    {"kvm", "KVM", check_kvm},
    {"nested", "nested KVM", check_nested},
    {"memory", "memory", check_memory},
    {"hugepages", "huge pages", check_hugepages},
    {"ksm", "page merging", check_ksm},
    {"memfd", "memfd", check_memfd},
    {"io_uring", "io_uring", check_io_uring},
    {"seccomp", "seccomp", check_seccomp},
    {"landlock", "Landlock", check_landlock},
    {"userns", "user ns", check_userns},
    {"tap", "tap devices", check_tap},
    {"vhost", "vhost", check_vhost},
    {"vfio", "passthrough", check_vfio},
    {"limits", "limits", check_limits},
    {"vmm", "tenon-vmm", check_vmm},
    {"slirp", "tenon-slirp", check_slirp},
    {"view", "tenon-view", check_view},
    {"firmware", "firmware", check_firmware},
    {"tpm", "TPM", check_tpm},
    {NULL, NULL, NULL},
};
