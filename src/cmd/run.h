/*
 * The parts of `tenon run`: what a run holds, and the steps that fill it. Inside src/cmd only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_RUN_H
#define TENON_CMD_RUN_H

#include <jansson.h>
#include <signal.h>
#include <sys/types.h>

#include "accel/accel.h"
#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "cmd/command.h"
#include "cmd/launch.h"
#include "cmd/relay.h"
#include "cmd/terminal.h"
#include "cmd/view.h"

/* The programs beside tenon-vmm: a tenon-slirp for each user net, swtpm, and tenon-view. */
#define RUN_SWTPM VM_NETS_MAX
#define RUN_VIEW (VM_NETS_MAX + 1)
#define RUN_HELPERS_MAX (VM_NETS_MAX + 2)
#define RUN_SOCKETS_MAX (VM_CONSOLES_MAX + 3)

/* The process that has a remote disk's image. */
struct run_remote {
    pid_t pid;   /* 0: none */
    int stop_fd; /* closed: it ends */
};

struct image;

struct run {
    struct launch launch; /* the VM, and the descriptors for tenon-vmm */

    /* Flags of the command itself. */
    bool dry_run, json, quiet, help_file;
    const char *report_path, *qmp_path, *gdb_where, *log_format;
    unsigned grace_s; /* from SIGTERM or SIGHUP to the end of a guest that goes on */
    bool write_image;
    const char *user_data, *ssh_key, *hostname;
    struct view_options view_options;

    /* `tenon run IMAGE`; NULL: a VM file or flags alone. */
    const char *image_path;
    uint64_t image_size;
    char *overlay_path; /* until tenon-vmm has it; owned */
    char *seed_path;    /* likewise */
    int overlay_fd;     /* over a remote image, likewise; -1 */

    /* What this side keeps. */
    int control_fd, console_fd;        /* sockets to tenon-vmm; console -1: none on stdio */
    int stderr_fd, child_stderr_fd;    /* pipe: what the children say */
    int pty_slave_fd[VM_CONSOLES_MAX]; /* held open, so that the pty lives without a reader */
    char *pty_path[VM_CONSOLES_MAX];
    char *socket_path[RUN_SOCKETS_MAX]; /* to unlink at the end */
    unsigned socket_count;
    int report_fd; /* -1: no report file */
    pid_t vmm;     /* 0: not running; likewise: */
    pid_t helper[RUN_HELPERS_MAX];
    int slirp_status_fd[VM_NETS_MAX]; /* until it is ready; -1 */
    struct view view;                 /* its process is a helper */
    struct run_remote remote[VM_DISKS_MAX];
    char engine_why[400]; /* "soft: /dev/kvm is missing" */
    struct terminal terminal;

    /* How it ended. */
    json_t *report;      /* of the VMM; NULL: it ended without one */
    struct err *failure; /* what the VMM said instead */
    int vmm_status;      /* of waitpid */
    bool forced;         /* a second signal ended it */
};

/* run_accel.c: resolves `auto` and opens /dev/kvm when it is for kvm. */
struct err *run_choose_accel(struct run *run, bool open_kvm);
/* run.c: for option_next(), the flags of the schema. */
enum option_use run_schema_option(const char *name);
/* A VM file over what `config` has. */
struct err *run_read_vm_file(const char *path, struct vm_config *config);
/* run_files.c: kernel, initrd, disks, with locks. */
struct err *run_open_files(struct run *run);
/* One disk with the layers below it, locked; its `format` becomes that of all of them. */
struct err *run_open_disk(struct vm_disk *disk);
/* run_remote.c: is the image on another machine? Then a process opens and serves it. */
bool run_disk_is_remote(const struct vm_disk *disk);
struct err *run_open_remote(struct run *run, unsigned index);
struct err *run_open_remote_image(const struct vm_disk *disk, unsigned flags, struct image **image);
/* The VM has ended: waits until what it wrote has been sent. */
void run_end_remotes(struct run *run);
/* Opens `path` and checks that it is a file; `what` begins the error: "kernel". */
struct err *run_open_file(const char *what, const char *path, int flags, int *fd);
/* A file of ours in the user's folders: $VARIABLE/tenon/FILE, or ~/STANDARD/tenon/FILE. Makes the
 * folders. */
struct err *run_user_path(const char *variable, const char *standard, const char *file,
                          char **path);
/* run_image.c: is this word an image, not a VM file? */
bool run_is_image(const char *path);
/* What the image gives before the flags change it, and what they have left open. */
struct err *run_image_begin(struct run *run, const char *path);
struct err *run_image_finish(struct run *run);
/* The disk becomes an overlay of the image; and loses its name, when everybody has it open. */
struct err *run_image_overlay(struct run *run);
void run_image_forget(struct run *run);
/* run_seed.c: a disk for cloud-init: in the configuration, as a file, and that without a name. */
struct err *run_seed_begin(struct run *run);
struct err *run_seed_write(struct run *run);
void run_seed_forget(struct run *run);
/* run_cdrom.c: a drive with the image, or "none", as its disc. */
struct err *run_add_cdrom(struct run *run, const char *path);
/* Does an ISO 9660 image have all its bytes? What is none is fine. */
struct err *run_check_disc(const char *path, int fd);
/* Is an open disc, the only thing to boot from, for x86 processors? What does not boot is fine. */
struct err *run_check_boot_disc(const struct vm_disk *disk);
/* run_firmware.c: the firmware image and its variables. */
struct err *run_open_firmware(struct run *run);
/* run_console.c: terminal, ptys, sockets, files; and the QMP socket. */
struct err *run_open_consoles(struct run *run);
/* A listening unix socket at `path`, remembered for removal; a dead one is replaced. */
struct err *run_listen(struct run *run, const char *what, const char *path, int *fd);
/* run_net.c: opens taps, and starts a tenon-slirp for each user net. */
struct err *run_start_nets(struct run *run);
/* Waits until each tenon-slirp has its ports: they get ready while the rest is opened. */
struct err *run_await_nets(struct run *run);

/* run_tpm.c: starts swtpm for a VM with a TPM. */
struct err *run_start_tpm(struct run *run);
/* The first swtpm of $PATH. The caller frees it. */
struct err *run_find_swtpm(char **path);

/* supervise.c: the signals that it serves; blocked before the first child is started. */
void run_signals(sigset_t *signals);
/* Serves the run until tenon-vmm has ended. */
struct err *run_supervise(struct run *run);

/* run_text.c */
void run_print_dry(const struct run *run, struct buf *out);
void run_print_start(const struct run *run);
/* The table of stages of a report's timeline. */
void run_print_timeline(const json_t *report, struct buf *out);

#endif
