/*
 * tenon run: resolves a VM from its file and flags, opens everything that it needs, hands it to
 * tenon-vmm, and stays to serve terminal and signals until the VM ends.
 *
 * Exit status: 0 when the guest powered off, reset with on-reset exit, or wrote 0 to the debug-exit
 * port, and when the VM was ended by Ctrl-] q or QMP quit; 1 when the guest crashed, wrote another
 * value (the report has it), or a second signal or the end of --grace ended the VM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmd/command.h"
#include "cmd/ready.h"
#include "cmd/run.h"
#include "cmd/spawn.h"
#include "vm/schema.h"

#define VM_FILE_MAX MIB(1)
#define GRACE_STANDARD_S 60
#define GRACE_MAX_S 86400

static const struct option_spec options[] = {
    {"dry-run", NULL, "Print the resolved VM as a VM file, and start nothing."},
    {"json", NULL,
     "At the end, print one JSON report to standard output (the console then goes to "
     "standard error); with --dry-run, print the VM as JSON."},
    {"report", "FILE",
     "At the end, write the JSON report to this file; of a run that failed, with result \"failed\" "
     "and the reason."},
    {"qmp", "PATH", "Listen on this unix socket for QMP clients."},
    {"gdb", "WHERE",
     "Listen for gdb's `target remote`: path of a unix socket, PORT of 127.0.0.1, or ADDRESS:PORT. "
     "Whoever may connect owns the guest."},
    {"grace", "SECONDS",
     "How long the guest may take to power down after SIGTERM or SIGHUP; then the VM is ended. "
     "Default: 60."},
    VIEW_OPTION_SPECS,
    {"paused", NULL, "Start with the CPUs stopped: QMP `cont` or gdb lets them go."},
    {"write", NULL, "With an image: change it, instead of an overlay that is dropped at the end."},
    {"cdrom", "FILE|URL",
     "An optical drive with this image as its disc; none: an empty one. May be repeated."},
    {"user-data", "FILE", "User data for cloud-init in the guest, on a disk of its own."},
    {"ssh-key", "FILE", "Public keys that may log in, through cloud-init."},
    {"hostname", "NAME", "The guest's name for itself, through cloud-init."},
    {"quiet", NULL, "No start-up report and no boot timeline."},
    {"verbose", NULL, "More log lines of tenon-vmm."},
    {"log-format", "FORMAT",
     "How tenon-vmm writes its log: text or json (a line an event, on standard error), or journald "
     "(to systemd's journal, with fields). Default: journald where standard error is the journal, "
     "else text."},
    {"help-file", NULL, "Explain the keys of a VM file."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

/* ---- arguments ---- */

struct err *run_read_vm_file(const char *path, struct vm_config *config)
{
    scoped(fd_cleanup) int fd = -1;
    scoped(free_cleanup) char *text = NULL;
    struct stat status;
    ssize_t n;

    TRY(run_open_file("VM file", path, O_RDONLY, &fd));
    if (fstat(fd, &status) != 0)
        return err_errno(errno, "VM file: cannot look at '%s'", path);
    if ((uint64_t)status.st_size > VM_FILE_MAX)
        return err_new("VM file: '%s' is larger than 1 MiB: that is no VM file", path);
    text = xcalloc(1, (size_t)status.st_size + 1);
    n = read(fd, text, (size_t)status.st_size);
    if (n < 0)
        return err_errno(errno, "VM file: cannot read '%s'", path);
    return schema_parse_yaml(text, (size_t)n, path, config);
}

enum option_use run_schema_option(const char *name)
{
    switch (schema_flag_use(name)) {
    case SCHEMA_FLAG_VALUE:
        return OPTION_VALUE;
    case SCHEMA_FLAG_SWITCH:
        return OPTION_SWITCH;
    case SCHEMA_FLAG_UNKNOWN:
        break;
    }
    return OPTION_UNKNOWN;
}

static struct err *read_grace(struct run *run, const char *value)
{
    char *end;
    long seconds = strtol(value, &end, 10);

    if (end == value || *end || seconds < 0 || seconds > GRACE_MAX_S)
        return err_of(ERR_USAGE, "--grace is 0 to %d seconds, not '%s'", GRACE_MAX_S, value);
    run->grace_s = (unsigned)seconds;
    return NULL;
}

static struct err *own_option(struct run *run, const char *name, const char *value)
{
    if (!strcmp(name, "grace"))
        return read_grace(run, value);
    if (!strcmp(name, "dry-run"))
        run->dry_run = true;
    else if (!strcmp(name, "json"))
        run->json = true;
    else if (!strcmp(name, "report"))
        run->report_path = value;
    else if (!strcmp(name, "qmp"))
        run->qmp_path = value;
    else if (!strcmp(name, "gdb"))
        run->gdb_where = value;
    else if (!strcmp(name, "paused"))
        run->launch.paused = true;
    else if (!strcmp(name, "write"))
        run->write_image = true;
    else if (!strcmp(name, "user-data"))
        run->user_data = value;
    else if (!strcmp(name, "ssh-key"))
        run->ssh_key = value;
    else if (!strcmp(name, "hostname"))
        run->hostname = value;
    else if (!strcmp(name, "quiet"))
        run->quiet = true;
    else if (view_option(&run->view_options, name, value))
        return NULL;
    else if (!strcmp(name, "verbose"))
        run->launch.log_level = LOG_DEBUG;
    else if (!strcmp(name, "log-format"))
        run->log_format = value;
    else if (!strcmp(name, "help-file"))
        run->help_file = true;
    return NULL;
}

/*
 * Two passes: the file is the ground, flags change it, wherever they stand. `flags` false: own
 * options and the file's name; true: flags of the schema.
 */
static struct err *parse_pass(int argc, char **argv, struct run *run, bool flags, const char **file)
{
    for (int i = 1; i < argc;) {
        struct option_arg arg;
        struct err *err =
            option_next(argc, argv, &i, options, run_schema_option, schema_flag_nearest, &arg);

        if (!err && arg.spec && !flags)
            err = own_option(run, arg.name, arg.value);
        else if (!err && arg.spec && !strcmp(arg.name, "cdrom"))
            err = run_add_cdrom(run, arg.value);
        else if (!err && !arg.spec && arg.name && flags)
            err = schema_apply_flag(&run->launch.config, arg.name, arg.value);
        else if (!err && !arg.name && !flags && *file)
            err = err_of(ERR_USAGE, "two VM files, '%s' and '%s': give one", *file, arg.value);
        else if (!err && !arg.name && !flags)
            *file = arg.value;
        option_arg_fini(&arg);
        TRY(err);
    }
    return NULL;
}

static struct err *resolve(int argc, char **argv, struct run *run)
{
    const char *file = NULL;

    TRY(parse_pass(argc, argv, run, false, &file));
    if (run->help_file)
        return NULL;
    if (file && run_is_image(file))
        TRY(run_image_begin(run, file));
    else if (file)
        TRY(run_read_vm_file(file, &run->launch.config));
    TRY(parse_pass(argc, argv, run, true, &file));
    TRY(run_image_finish(run));
    TRY(run_seed_begin(run));
    return schema_finish(&run->launch.config);
}

/* ---- start ---- */

static struct err *open_report(struct run *run)
{
    if (!run->report_path)
        return NULL;
    run->report_fd = open(run->report_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (run->report_fd < 0)
        return err_errno(errno, "--report: cannot write '%s'", run->report_path);
    return NULL;
}

static struct err *open_channels(struct run *run)
{
    int pair[2];

    TRY(log_output_open(&run->launch.log, run->log_format, NULL, LOG_JOURNAL_PATH));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return err_errno(errno, "cannot create a socket pair");
    run->control_fd = pair[0];
    run->launch.config.control_fd = pair[1];
    /* Neither side waits for the other: a log line that does not fit is lost. */
    if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) != 0)
        return err_errno(errno, "cannot create a pipe");
    run->stderr_fd = pair[0];
    run->child_stderr_fd = pair[1];
    return NULL;
}

static struct err *start_vmm(struct run *run)
{
    int keep[LAUNCH_FDS_MAX + 1], launch_fd;
    scoped(free_cleanup) char *path = NULL;
    char number[16];
    char *const argv[] = {"tenon-vmm", number, NULL};
    struct err *err;
    size_t count;

    TRY(spawn_find("tenon-vmm", &path));
    timeline_mark(&run->launch.timeline, TIMELINE_CONFIG);
    TRY(launch_write(&run->launch, &launch_fd));
    count = launch_fds(&run->launch, keep, LAUNCH_FDS_MAX);
    keep[count++] = launch_fd;
    snprintf(number, sizeof(number), "%d", launch_fd);
    err = spawn(path, argv, keep, count, run->child_stderr_fd, &run->vmm);
    close(launch_fd);
    if (err)
        run->vmm = 0;
    return err;
}

/* What tenon-vmm and its helpers have now must not live on through us. */
static void close_handed(struct run *run)
{
    struct vm_config *config = &run->launch.config;
    int fds[LAUNCH_FDS_MAX];
    size_t count = launch_fds(&run->launch, fds, LAUNCH_FDS_MAX);

    for (size_t i = 0; i < count; i++) {
        bool again = false;

        for (size_t j = 0; j < i; j++)
            again |= fds[j] == fds[i];
        if (!again)
            close(fds[i]);
    }
    config->kernel_fd = config->initrd_fd = config->kvm_fd = config->control_fd = -1;
    config->firmware_fd = config->firmware_vars_fd = config->vga_rom_fd = -1;
    config->tpm_control_fd = config->tpm_command_fd = -1;
    run->launch.listen_fd = run->launch.gdb_fd = run->launch.log.journal_fd = -1;
    for (unsigned i = 0; i < config->disk_count; i++) {
        config->disk[i].fd = -1;
        memset(config->disk[i].backing_fd, -1, sizeof(config->disk[i].backing_fd));
    }
    for (unsigned i = 0; i < config->net_count; i++)
        memset(config->net[i].fd, -1, sizeof(config->net[i].fd));
    for (unsigned i = 0; i < config->console_count; i++)
        config->console[i].in_fd = config->console[i].out_fd = -1;
    close(run->child_stderr_fd);
    run->child_stderr_fd = -1;
}

/* It gets the VM's screen when the VM is built (supervise.c). */
static struct err *start_view(struct run *run)
{
    if (!run->view_options.where)
        return NULL;
    if (!run->launch.config.vga)
        return err_of(ERR_USAGE, "--vnc: the VM has no screen: add --vga");
    TRY(view_start(&run->view_options, run->launch.config.name, run->child_stderr_fd, &run->view));
    run->helper[RUN_VIEW] = run->view.pid;
    run->view.pid = 0;
    return ready_await(run->view.status_fd, "tenon-view");
}

static bool uses_stdio(const struct vm_config *config)
{
    for (unsigned i = 0; i < config->console_count; i++)
        if (config->console[i].backend == VM_BACKEND_STDIO)
            return true;
    return false;
}

static struct err *start(struct run *run)
{
    sigset_t signals;

    /* From here on there are things to put away: signals wait until somebody serves them. */
    run_signals(&signals);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGCHLD, SIG_DFL); /* ignored by our parent, it would take the children's status */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
    signal(SIGTTIN, SIG_IGN);
    TRY(open_channels(run));
    TRY(run_start_nets(run));
    TRY(run_start_tpm(run));
    TRY(run_choose_accel(run, true));
    TRY(run_image_overlay(run));
    TRY(run_seed_write(run));
    TRY(run_open_files(run));
    run_image_forget(run);
    run_seed_forget(run);
    TRY(open_report(run));
    TRY(run_open_consoles(run));
    TRY(start_view(run));
    TRY(run_await_nets(run));
    TRY(start_vmm(run));
    close_handed(run);
    if (uses_stdio(&run->launch.config))
        TRY(terminal_init(&run->terminal, STDIN_FILENO));
    return NULL;
}

/* ---- the end ---- */

static void write_report_file(const struct run *run, const char *text)
{
    if (run->report_fd >= 0 && dprintf(run->report_fd, "%s\n", text) < 0)
        fprintf(stderr, "tenon: --report: cannot write '%s': %s\n", run->report_path,
                strerror(errno));
}

static void write_report(const struct run *run)
{
    char *text = json_dumps(run->report, JSON_INDENT(2) | JSON_REAL_PRECISION(9));

    if (!text)
        return;
    if (run->json)
        printf("%s\n", text);
    write_report_file(run, text);
    free(text);
}

/* The file says so as well when the VM never ran, or tenon-vmm was killed. */
static void write_failure(struct run *run, const struct err *err)
{
    if (run->report || !run->report_path)
        return;
    if (run->report_fd < 0)
        err_free(open_report(run));
    json_t *report =
        json_pack("{s:s*, s:s, s:s, s:i}", "name", run->launch.config.name, "result", "failed",
                  "reason", err_text(err), "exit_status", (int)err_kind(err));
    char *text = report ? json_dumps(report, JSON_INDENT(2)) : NULL;
    if (text)
        write_report_file(run, text);
    free(text);
    json_decref(report);
}

static struct err *conclude(struct run *run, int *status)
{
    const char *name = run->launch.config.name, *result;
    struct buf text = BUF_INIT;
    char ended[80];

    if (run->failure) {
        struct err *failure = run->failure;

        run->failure = NULL;
        return failure;
    }
    if (!run->report) {
        spawn_status_text(run->vmm_status, ended, sizeof(ended));
        return err_new("VM '%s': tenon-vmm %s%s", name, ended,
                       run->forced ? " on request" : " before the VM did");
    }
    json_object_set_new(run->report, "forced", json_boolean(run->forced));
    *status = run->forced ? ERR_FAILED : 0;
    result = json_string_value(json_object_get(run->report, "result"));
    if (!strcmp(result, "crash") ||
        (!strcmp(result, "exit") && json_integer_value(json_object_get(run->report, "status"))))
        *status = ERR_FAILED;
    json_object_set_new(run->report, "exit_status", json_integer(*status));
    write_report(run);
    if (!run->quiet) {
        run_print_timeline(run->report, &text);
        fwrite(text.data, 1, text.len, stderr);
        buf_fini(&text);
    }
    if (!strcmp(result, "crash"))
        return err_new("VM '%s' crashed: %s", name,
                       json_string_value(json_object_get(run->report, "reason")));
    return NULL;
}

static void run_init(struct run *run, uint64_t started_ns)
{
    memset(run, 0, sizeof(*run));
    vm_config_init(&run->launch.config);
    run->launch.listen_fd = run->launch.gdb_fd = run->launch.log.journal_fd = -1;
    run->launch.log_level = LOG_WARN;
    timeline_mark_at(&run->launch.timeline, TIMELINE_EXEC, started_ns);
    run->control_fd = run->console_fd = run->stderr_fd = run->child_stderr_fd = -1;
    run->report_fd = run->overlay_fd = -1;
    run->grace_s = GRACE_STANDARD_S;
    run->terminal.fd = -1;
    run->view.status_fd = run->view.screen_fd = -1;
    memset(run->slirp_status_fd, -1, sizeof(run->slirp_status_fd));
    memset(run->pty_slave_fd, -1, sizeof(run->pty_slave_fd));
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* Everything that is still there, after success as after an error in the middle of the start. */
static void run_fini(struct run *run)
{
    close_fd(run->control_fd);
    close_fd(run->console_fd);
    close_fd(run->stderr_fd);
    close_fd(run->child_stderr_fd);
    close_fd(run->report_fd);
    close_fd(run->launch.listen_fd);
    close_fd(run->launch.gdb_fd);
    close_fd(run->launch.log.journal_fd);
    for (unsigned i = 0; i < VM_NETS_MAX; i++)
        close_fd(run->slirp_status_fd[i]);
    for (unsigned i = 0; i < RUN_HELPERS_MAX; i++) {
        if (run->helper[i] <= 0)
            continue;
        kill(run->helper[i], SIGKILL);
        waitpid(run->helper[i], NULL, 0);
    }
    if (run->vmm > 0) {
        kill(run->vmm, SIGKILL);
        waitpid(run->vmm, NULL, 0);
    }
    view_end(&run->view);
    run_end_remotes(run);
    terminal_fini(&run->terminal);
    for (unsigned i = 0; i < run->socket_count; i++) {
        unlink(run->socket_path[i]);
        free(run->socket_path[i]);
    }
    for (unsigned i = 0; i < VM_CONSOLES_MAX; i++) {
        close_fd(run->pty_slave_fd[i]);
        free(run->pty_path[i]);
    }
    run_image_forget(run);
    run_seed_forget(run);
    json_decref(run->report);
    err_free(run->failure);
    vm_config_fini(&run->launch.config);
}

static struct err *dry_run(struct run *run)
{
    struct buf text = BUF_INIT;
    bool good;

    TRY(run_choose_accel(run, false));
    run_print_dry(run, &text);
    good = fwrite(text.data, 1, text.len, stdout) == text.len && fflush(stdout) == 0;
    buf_fini(&text);
    return good ? NULL : err_errno(errno, "cannot write to standard output");
}

static struct err *help_file(void)
{
    struct buf text = BUF_INIT;

    buf_text(&text, "Keys of a VM file (YAML):\n\n");
    schema_help_file(&text);
    fwrite(text.data, 1, text.len, stdout);
    buf_fini(&text);
    return NULL;
}

static struct err *command_run_main(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct run *run = xcalloc(1, sizeof(*run));
    struct err *err;

    run_init(run, started_ns);
    err = resolve(argc, argv, run);
    if (!err && run->help_file) {
        err = help_file();
    } else if (!err && run->dry_run) {
        err = dry_run(run);
    } else if (!err) {
        err = start(run);
        if (!err)
            err = run_supervise(run);
        run_end_remotes(run);
        if (!err)
            err = conclude(run, status);
        if (err)
            write_failure(run, err);
    }
    run_fini(run);
    free(run);
    return err;
}

static void help_more(struct buf *out)
{
    buf_text(out, "\nThe VM (each changes what the VM file says):\n");
    schema_help(out);
    buf_text(out,
             "\nCtrl-] is the escape key of the console: q ends the VM at once, p presses the\n"
             "power button, ? helps, Ctrl-] sends itself. SIGINT and SIGTERM ask the guest to\n"
             "power down; a second one ends the VM, and after SIGTERM the time of --grace.\n");
}

const struct command command_run = {
    .name = "run",
    .usage = "run [VMFILE|IMAGE] [OPTIONS]",
    .summary = "Start a virtual machine",
    .run = command_run_main,
    .options = options,
    .help_more = help_more,
    .vm_flags = true,
};
