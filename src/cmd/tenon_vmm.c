/*
 * tenon-vmm: one virtual machine. Started by `tenon run` with everything open; builds the VM,
 * enters its sandbox, and only then lets the guest run. Speaks QMP with its starter (src/ctl),
 * which gets either a report of the VM's end, or, before any greeting, one line {"error": {"desc",
 * "kind"}}.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/launch.h"
#include "cmd/vmm_policy.h"
#include "ctl/vm_control.h"
#include "sandbox/sandbox.h"
#include "vm/vm.h"

#if defined(__SANITIZE_ADDRESS__)
/* The leak check traces its own process, which the sandbox denies. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}
#endif

struct vmm {
    struct launch launch;
    struct loop *loop;
    struct vm *vm;
    struct vm_control *control;
    int owner_fd; /* a duplicate, for the sentence of a failed start */
};

static void on_ended(void *opaque, const struct vm_result *result)
{
    struct vmm *vmm = opaque;

    vm_control_ended(vmm->control, result);
    loop_stop(vmm->loop);
}

/* The starter prints the sentence; without one we do. */
static void report_failure(struct vmm *vmm, const struct err *err)
{
    json_t *message = json_pack("{s:{s:s, s:s, s:i}}", "error", "class", "GenericError", "desc",
                                err_text(err), "kind", (int)err_kind(err));
    char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
    char *line = text ? xasprintf("%s\n", text) : NULL;

    if (!line || vmm->owner_fd < 0 ||
        send(vmm->owner_fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
        fprintf(stderr, "tenon-vmm: %s\n", err_text(err));
    free(line);
    free(text);
    json_decref(message);
}

static struct err *build(struct vmm *vmm)
{
    struct vm_config *config = &vmm->launch.config;
    struct vm_control_config control = {
        .name = config->name,
        .timeline = &vmm->launch.timeline,
        .owner_fd = config->control_fd,
        .listen_fd = vmm->launch.listen_fd,
        .gdb_fd = vmm->launch.gdb_fd,
    };
    const struct accel_ops *accel = config->accel == VM_ACCEL_KVM ? &accel_kvm : &accel_soft;

    config->control_fd = -1;
    /* There is one thread yet: those that vm_new starts inherit what it has not. */
    TRY(vmm_policy_renounce());
    TRY(loop_new("control", &vmm->loop));
    TRY(vm_new(config, vmm->loop, &vmm->launch.timeline, &vmm->vm));
    TRY(vmm_policy_enter(accel));
    control.loop = vmm->loop;
    control.vm = vmm->vm;
    TRY(vm_control_new(&control, &vmm->control));
    if (vmm->launch.paused)
        vm_start_paused(vmm->vm);
    TRY(vm_start(vmm->vm, on_ended, vmm));
    vm_control_started(vmm->control);
    return NULL;
}

static struct err *run(int hand_over_fd, struct vmm *vmm)
{
    int keep[LAUNCH_FDS_MAX];

    TRY(launch_read(hand_over_fd, &vmm->launch));
    log_set_level(vmm->launch.log_level);
    log_output_use(&vmm->launch.log);
    TRY(sandbox_close_others(keep, launch_fds(&vmm->launch, keep, LAUNCH_FDS_MAX)));
    vmm->owner_fd = fcntl(vmm->launch.config.control_fd, F_DUPFD_CLOEXEC, 3);
    TRY(build(vmm));
    loop_run(vmm->loop);
    return NULL;
}

int main(int argc, char **argv)
{
    struct vmm *vmm;
    int status = 0;
    struct err *err;
    char *end = NULL;
    long fd = argc == 2 ? strtol(argv[1], &end, 10) : -1;

    if (fd < 3 || fd > 65535 || *end) {
        fprintf(stderr, "tenon-vmm: this program is started by `tenon run`\n");
        return ERR_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    vmm = xcalloc(1, sizeof(*vmm));
    vmm->owner_fd = -1;
    err = run((int)fd, vmm);
    if (err) {
        status = (int)err_kind(err);
        report_failure(vmm, err);
        err_free(err);
    }
    vm_control_free(vmm->control);
    vm_free(vmm->vm);
    loop_free(vmm->loop);
    log_set_sink(NULL, NULL);
    vm_config_fini(&vmm->launch.config);
    if (vmm->owner_fd >= 0)
        close(vmm->owner_fd);
    free(vmm);
    return status;
}
