/*
 * The life of `tenon run` while tenon-vmm runs: one poll(2) loop over signals, the control socket,
 * the children and the console.
 *
 * The first SIGINT, SIGTERM, SIGQUIT or SIGHUP presses the guest's power button, the second ends
 * the VM, the third kills it. Who sends SIGTERM or SIGHUP may not be there for a second: the VM
 * ends when the guest has not powered down in time (--grace).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/socket.h"
#include "cmd/run.h"
#include "cmd/spawn.h"

#define QUIT_GRACE_NS (3 * NSEC_PER_SEC) /* from quit to SIGKILL */
#define HELPER_GRACE_MS 1000             /* from the end of the VM to SIGKILL */
#define DRAIN_MS 2000                    /* for a reader of our output that is slow */
#define CONTROL_LINE_MAX MIB(1)

enum {
    POLL_SIGNAL,
    POLL_VMM,
    POLL_CONTROL,
    POLL_STDERR,
    POLL_HELPER,
    POLL_RELAY = POLL_HELPER + RUN_HELPERS_MAX,
    POLL_COUNT = POLL_RELAY + RELAY_POLL_FDS,
};

struct supervisor {
    struct run *run;
    struct relay relay;
    int signal_fd, vmm_fd, helper_fd[RUN_HELPERS_MAX]; /* vmm_fd, helper_fd: pidfds */
    struct buf control_in;
    unsigned end_requests;
    uint64_t quit_at_ns, kill_at_ns; /* 0: not planned */
    bool ready;                      /* the VM is built; before that the terminal is not ours */
    bool paused_by_us;               /* SIGTSTP */
};

void run_signals(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGQUIT);
    sigaddset(signals, SIGHUP);
    sigaddset(signals, SIGTSTP);
    sigaddset(signals, SIGCONT);
    sigaddset(signals, SIGWINCH);
}

static int pidfd_open_cloexec(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* ---- control ---- */

static void control_send_fd(struct run *run, const char *command, int fd)
{
    char text[80];
    int len = snprintf(text, sizeof(text), "{\"execute\":\"%s\"}\n", command);

    /* A few short commands: a socket buffer that cannot take them has a dead reader. */
    if (run->control_fd >= 0 &&
        !socket_send_fd(run->control_fd, text, (size_t)len, fd, MSG_DONTWAIT) && errno == EAGAIN)
        terminal_say(&run->terminal, "tenon: the VM does not listen to '%s'", command);
}

static void control_send(struct run *run, const char *command)
{
    control_send_fd(run, command, -1);
}

/* A screen that is drawn here wants to know how large the terminal is. */
static void tell_size(struct supervisor *supervisor)
{
    const struct vm_config *config = &supervisor->run->launch.config;
    struct winsize size;
    char text[40];
    bool drawn = false;

    for (unsigned i = 0; i < config->console_count; i++)
        drawn |= config->console[i].device == VM_CONSOLE_VGA &&
                 config->console[i].backend == VM_BACKEND_STDIO;
    if (!drawn || supervisor->run->terminal.fd < 0 ||
        ioctl(supervisor->run->terminal.fd, TIOCGWINSZ, &size) < 0)
        return;
    snprintf(text, sizeof(text), "\033[8;%u;%ut", size.ws_row, size.ws_col);
    relay_type(&supervisor->relay, text);
}

/* The VM is built and about to run: a start that fails leaves its one sentence alone. */
static void on_greeting(struct supervisor *supervisor)
{
    struct run *run = supervisor->run;

    if (supervisor->ready)
        return;
    supervisor->ready = true;
    if (run->view.screen_fd >= 0)
        control_send_fd(run, "tenon-screen-share", run->view.screen_fd);
    fd_cleanup(&run->view.screen_fd);
    if (!run->quiet)
        run_print_start(run);
    terminal_raw(&run->terminal);
    tell_size(supervisor);
}

/* A disk with on-error stop. */
static void on_disk_error(struct run *run, const json_t *data)
{
    const char *disk = json_string_value(json_object_get(data, "device"));
    const char *operation = json_string_value(json_object_get(data, "operation"));
    const char *reason = json_string_value(json_object_get(data, "reason"));

    terminal_say(&run->terminal,
                 "tenon: disk '%s': %s failed: %s: the VM waits; mend it, then send 'cont' to the "
                 "control socket",
                 disk ? disk : "?", operation ? operation : "?", reason ? reason : "?");
}

/* The firmware's own words are on the console. */
static void on_boot_failed(struct run *run)
{
    const char *firmware = run->launch.config.firmware;
    const char *other = !strcmp(firmware, "uefi") ? "bios" : "uefi";

    terminal_say(&run->terminal,
                 "tenon: firmware %s found nothing that it can boot: give an image with a boot "
                 "loader, another order (--boot), or --firmware %s",
                 firmware, other);
}

static void on_message(struct supervisor *supervisor, const json_t *message)
{
    struct run *run = supervisor->run;
    const json_t *error = json_object_get(message, "error");
    const char *event = json_string_value(json_object_get(message, "event"));

    if (error) {
        const char *text = json_string_value(json_object_get(error, "desc"));
        json_int_t kind = json_integer_value(json_object_get(error, "kind"));

        if (!text)
            text = "tenon-vmm failed without a word";
        if (kind >= ERR_FAILED && kind <= ERR_BUSY && !run->failure)
            run->failure = err_of((enum err_kind)kind, "%s", text);
        else
            terminal_say(&run->terminal, "tenon: %s", text);
    } else if (json_object_get(message, "QMP")) {
        on_greeting(supervisor);
    } else if (event && !strcmp(event, "BLOCK_IO_ERROR")) {
        on_disk_error(run, json_object_get(message, "data"));
    } else if (event && !strcmp(event, "TENON_BOOT_FAILED") && run->launch.config.firmware) {
        on_boot_failed(run);
    } else if (event && !strcmp(event, "TENON_REPORT") && !run->report) {
        run->report = json_incref(json_object_get(message, "data"));
    }
}

/* Whole lines out of the buffer. */
static void control_lines(struct supervisor *supervisor)
{
    struct buf *in = &supervisor->control_in;
    size_t begin = 0;

    for (;;) {
        uint8_t *end = memchr(in->data + begin, '\n', in->len - begin);
        json_t *message;

        if (!end)
            break;
        message =
            json_loadb((const char *)in->data + begin, (size_t)(end - in->data) - begin, 0, NULL);
        if (message)
            on_message(supervisor, message);
        json_decref(message);
        begin = (size_t)(end - in->data) + 1;
    }
    in->len -= begin;
    memmove(in->data, in->data + begin, in->len);
}

/* Reads some; false when there is nothing, now or for ever. */
static bool control_read(struct supervisor *supervisor)
{
    struct run *run = supervisor->run;
    char bytes[4096];
    ssize_t n;

    if (run->control_fd < 0)
        return false;
    n = recv(run->control_fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0 || supervisor->control_in.len + (size_t)n > CONTROL_LINE_MAX) {
        close(run->control_fd);
        run->control_fd = -1;
        return false;
    }
    buf_append(&supervisor->control_in, bytes, (size_t)n);
    control_lines(supervisor);
    return true;
}

/* ---- what the children say on standard error ---- */

static bool stderr_read(struct run *run)
{
    char bytes[2048];
    ssize_t n;

    if (run->stderr_fd < 0)
        return false;
    n = read(run->stderr_fd, bytes, sizeof(bytes));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return false;
    if (n <= 0) {
        close(run->stderr_fd);
        run->stderr_fd = -1;
        return false;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i] == '\n' && run->terminal.raw)
            fputc('\r', stderr);
        fputc(bytes[i], stderr);
    }
    fflush(stderr);
    return true;
}

/* ---- the end ---- */

static void end_now(struct supervisor *supervisor)
{
    supervisor->run->forced = true;
    supervisor->quit_at_ns = 0;
    supervisor->kill_at_ns = clock_now_ns() + QUIT_GRACE_NS;
    control_send(supervisor->run, "quit");
}

/* `limited`: nobody may be there to ask a second time. */
static void request_end(struct supervisor *supervisor, bool limited)
{
    struct run *run = supervisor->run;

    switch (supervisor->end_requests++) {
    case 0:
        if (limited) {
            supervisor->quit_at_ns = clock_now_ns() + run->grace_s * NSEC_PER_SEC;
            terminal_say(&run->terminal,
                         "tenon: asking the guest to power down; in %u s, or when asked once more, "
                         "the VM ends",
                         run->grace_s);
        } else {
            terminal_say(&run->terminal,
                         "tenon: asking the guest to power down; the same once more ends the VM");
        }
        control_send(run, "system_powerdown");
        break;
    case 1:
        terminal_say(&run->terminal, "tenon: ending the VM");
        end_now(supervisor);
        break;
    default:
        supervisor->run->forced = true;
        kill(run->vmm, SIGKILL);
    }
}

static void on_escape(void *opaque, int letter)
{
    struct supervisor *supervisor = opaque;
    struct run *run = supervisor->run;

    switch (letter) {
    case RELAY_QUIT:
        control_send(run, "quit");
        supervisor->kill_at_ns = clock_now_ns() + QUIT_GRACE_NS;
        break;
    case RELAY_POWER:
        terminal_say(&run->terminal, "tenon: asking the guest to power down");
        control_send(run, "system_powerdown");
        break;
    default:
        terminal_say(&run->terminal, "tenon: Ctrl-] then: q ends the VM at once, p presses the "
                                     "power button, Ctrl-] sends itself");
    }
}

/* ---- signals ---- */

static void suspend(struct supervisor *supervisor)
{
    struct run *run = supervisor->run;

    /* A suspended job uses no CPU: the guest rests as well. */
    control_send(run, "stop");
    supervisor->paused_by_us = true;
    terminal_restore(&run->terminal);
    kill(getpid(), SIGSTOP);
}

static void on_signal(struct supervisor *supervisor)
{
    struct signalfd_siginfo info;

    if (read(supervisor->signal_fd, &info, sizeof(info)) != sizeof(info))
        return;
    switch (info.ssi_signo) {
    case SIGTSTP:
        suspend(supervisor);
        break;
    case SIGCONT:
        if (supervisor->ready)
            terminal_continue(&supervisor->run->terminal);
        if (supervisor->paused_by_us)
            control_send(supervisor->run, "cont");
        supervisor->paused_by_us = false;
        tell_size(supervisor); /* somebody else has drawn on the terminal */
        break;
    case SIGWINCH:
        tell_size(supervisor);
        break;
    default:
        request_end(supervisor, info.ssi_signo == SIGTERM || info.ssi_signo == SIGHUP);
    }
}

/* ---- the loop ---- */

static void on_helper_end(struct supervisor *supervisor, unsigned index)
{
    struct run *run = supervisor->run;
    char text[80];
    int status;

    if (waitpid(run->helper[index], &status, WNOHANG) != run->helper[index])
        return;
    spawn_status_text(status, text, sizeof(text));
    /* With status 0 it has seen the end of its socket: the VMM is about to end as well. */
    if ((!WIFEXITED(status) || WEXITSTATUS(status)) && index == RUN_SWTPM)
        terminal_say(&run->terminal, "tenon: swtpm %s; the guest has lost its TPM", text);
    else if ((!WIFEXITED(status) || WEXITSTATUS(status)) && index == RUN_VIEW)
        terminal_say(&run->terminal, "tenon: tenon-view %s; the VM runs on without it", text);
    else if (!WIFEXITED(status) || WEXITSTATUS(status))
        terminal_say(&run->terminal,
                     "tenon: net '%s': tenon-slirp %s; the guest has lost this "
                     "network",
                     run->launch.config.net[index].id, text);
    run->helper[index] = 0;
    close(supervisor->helper_fd[index]);
    supervisor->helper_fd[index] = -1;
}

static int next_timeout_ms(const struct supervisor *supervisor)
{
    uint64_t next = supervisor->quit_at_ns, now = clock_now_ns();

    if (supervisor->kill_at_ns && (!next || supervisor->kill_at_ns < next))
        next = supervisor->kill_at_ns;
    if (!next)
        return -1;
    return next <= now ? 0 : (int)((next - now) / NSEC_PER_MSEC) + 1;
}

static void on_deadlines(struct supervisor *supervisor)
{
    uint64_t now = clock_now_ns();

    if (supervisor->kill_at_ns && now >= supervisor->kill_at_ns) {
        supervisor->kill_at_ns = 0;
        kill(supervisor->run->vmm, SIGKILL);
    }
    if (supervisor->quit_at_ns && now >= supervisor->quit_at_ns) {
        terminal_say(&supervisor->run->terminal,
                     "tenon: the guest did not power down in %u s: ending the VM",
                     supervisor->run->grace_s);
        end_now(supervisor);
    }
}

static void loop_until_vmm_ends(struct supervisor *supervisor)
{
    struct run *run = supervisor->run;
    struct pollfd fds[POLL_COUNT];

    for (;;) {
        fds[POLL_SIGNAL] = (struct pollfd){.fd = supervisor->signal_fd, .events = POLLIN};
        fds[POLL_VMM] = (struct pollfd){.fd = supervisor->vmm_fd, .events = POLLIN};
        fds[POLL_CONTROL] = (struct pollfd){.fd = run->control_fd, .events = POLLIN};
        fds[POLL_STDERR] = (struct pollfd){.fd = run->stderr_fd, .events = POLLIN};
        for (unsigned i = 0; i < RUN_HELPERS_MAX; i++)
            fds[POLL_HELPER + i] =
                (struct pollfd){.fd = supervisor->helper_fd[i], .events = POLLIN};
        relay_want(&supervisor->relay, &fds[POLL_RELAY]);
        if (poll(fds, POLL_COUNT, next_timeout_ms(supervisor)) < 0)
            continue;
        if (fds[POLL_SIGNAL].revents)
            on_signal(supervisor);
        if (fds[POLL_CONTROL].revents)
            control_read(supervisor);
        if (fds[POLL_STDERR].revents)
            stderr_read(run);
        relay_serve(&supervisor->relay, &fds[POLL_RELAY]);
        if (fds[POLL_VMM].revents)
            return;
        for (unsigned i = 0; i < RUN_HELPERS_MAX; i++)
            if (fds[POLL_HELPER + i].revents)
                on_helper_end(supervisor, i);
        on_deadlines(supervisor);
    }
}

/* The sockets to the VMM are closed with it, so each helper ends by itself; not for ever. */
static void reap_helpers(struct supervisor *supervisor)
{
    struct run *run = supervisor->run;

    for (unsigned i = 0; i < RUN_HELPERS_MAX; i++) {
        struct pollfd poll_fd = {.fd = supervisor->helper_fd[i], .events = POLLIN};

        if (run->helper[i] <= 0)
            continue;
        if (poll(&poll_fd, 1, HELPER_GRACE_MS) <= 0)
            kill(run->helper[i], SIGKILL);
        waitpid(run->helper[i], NULL, 0);
        run->helper[i] = 0;
    }
}

static struct err *supervisor_init(struct supervisor *supervisor, struct run *run)
{
    sigset_t signals;

    run_signals(&signals);
    memset(supervisor, 0, sizeof(*supervisor));
    supervisor->run = run;
    supervisor->signal_fd = supervisor->vmm_fd = -1;
    for (unsigned i = 0; i < RUN_HELPERS_MAX; i++)
        supervisor->helper_fd[i] = -1;
    relay_init(&supervisor->relay, &run->terminal, run->console_fd,
               run->json ? STDERR_FILENO : STDOUT_FILENO, on_escape, supervisor);
    run->console_fd = -1;
    supervisor->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    supervisor->vmm_fd = pidfd_open_cloexec(run->vmm);
    if (supervisor->signal_fd < 0 || supervisor->vmm_fd < 0)
        return err_errno(errno, "cannot watch the VM");
    for (unsigned i = 0; i < RUN_HELPERS_MAX; i++)
        if (run->helper[i] > 0 &&
            (supervisor->helper_fd[i] = pidfd_open_cloexec(run->helper[i])) < 0)
            return err_errno(errno, "cannot watch the programs beside the VM");
    return NULL;
}

static void supervisor_fini(struct supervisor *supervisor)
{
    relay_fini(&supervisor->relay);
    buf_fini(&supervisor->control_in);
    if (supervisor->signal_fd >= 0)
        close(supervisor->signal_fd);
    if (supervisor->vmm_fd >= 0)
        close(supervisor->vmm_fd);
    for (unsigned i = 0; i < RUN_HELPERS_MAX; i++)
        if (supervisor->helper_fd[i] >= 0)
            close(supervisor->helper_fd[i]);
}

struct err *run_supervise(struct run *run)
{
    struct supervisor supervisor;
    struct err *err = supervisor_init(&supervisor, run);

    if (err) {
        kill(run->vmm, SIGKILL);
        waitpid(run->vmm, &run->vmm_status, 0);
    } else {
        loop_until_vmm_ends(&supervisor);
        waitpid(run->vmm, &run->vmm_status, 0);
        while (control_read(&supervisor))
            ;
        while (stderr_read(run))
            ;
        relay_drain(&supervisor.relay, DRAIN_MS);
    }
    run->vmm = 0;
    terminal_restore(&run->terminal);
    reap_helpers(&supervisor);
    while (stderr_read(run))
        ;
    supervisor_fini(&supervisor);
    return err;
}
