/*
 * One VM under supervision: its description, the process that keeps it running, the connection to
 * it, its consoles, and how its last run ended.
 *
 * The keeper is a `tenon run` of its own session: it opens what the VM needs, starts tenon-vmm and
 * stays until that ends. It outlives tenond; whoever comes after finds it through the control
 * socket in the VM's folder and checks it against the PID and start time in the store. In the
 * folder:
 *
 *   vm.yaml            the description, with consoles as sockets
 *   qmp.sock           control socket
 *   console-ID.sock    a console; console-ID.log what came out of it
 *   log                what the keeper and the VMM said
 *   report.json        how it ended; written by the keeper
 *   starting           there until the guest was let go
 *
 * On the loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_INSTANCE_H
#define TENON_DAEMON_INSTANCE_H

#include <jansson.h>

#include "base/base.h"
#include "base/err.h"
#include "base/list.h"
#include "daemon/console.h"
#include "daemon/events.h"
#include "daemon/link.h"
#include "daemon/process.h"
#include "daemon/store.h"
#include "vm/config.h"

enum instance_state {
    INSTANCE_STOPPED,
    INSTANCE_STARTING, /* the keeper runs, the guest does not yet */
    INSTANCE_UP,       /* `status` says more */
    INSTANCE_STOPPING,
    INSTANCE_LOST, /* the keeper runs, but the VM does not talk to us */
};

/* What all VMs of a daemon share. */
struct instance_host {
    struct loop *loop;
    struct store *store;
    struct events *events;
    /*
     * Starts a keeper in a folder, paused, with its standard error on `log_fd`; nobody waits for
     * it but the instance, by `reap`.
     */
    struct err *(*start_keeper)(void *opaque, int directory_fd, int log_fd, pid_t *pid);
    /* Ends what was started, if it runs still; its status as waitpid(2) has it. */
    int (*reap)(void *opaque, pid_t pid);
    void *opaque;
};

struct instance_console {
    char *id;
    struct console *console; /* NULL: not connected */
};

struct instance {
    struct list link; /* of the fleet */
    const struct instance_host *host;
    char *name, *directory;
    int dir_fd;
    json_t *config; /* resolved */
    json_t *last;   /* report of the last run; NULL: never ran */
    uint64_t created_ns;

    enum instance_state state;
    char status[16]; /* of QMP, while it is up */
    uint64_t started_ns;
    bool stay_paused, ours; /* ours: this daemon has started the keeper */
    struct process keeper;
    struct link *qmp;
    char *engine;
    struct instance_console console[VM_CONSOLES_MAX];
    unsigned console_count;
    struct loop_timer timer; /* starting: connect again; stopping: kill */
    unsigned tries;
    struct list waiters;
};

/* `take_config` is resolved; the folder is made if it is missing. */
struct err *instance_new(const struct instance_host *host, const char *root, const char *name,
                         json_t *take_config, uint64_t created_ns, struct instance **instance);
/* Lets the VM run on. NULL is fine. */
void instance_free(struct instance *instance);
/* Finds a VM that was running when an earlier daemon ended, and `process` kept it. */
void instance_recover(struct instance *instance, const struct store_process *process);
/* Another description, for its next start. */
void instance_set_config(struct instance *instance, json_t *take_config);
/* Removes the folder with what instances leave there; the VM is stopped. */
struct err *instance_erase(struct instance *instance);

const char *instance_state_text(const struct instance *instance);
/* The VM as the API shows it. */
json_t *instance_describe(const struct instance *instance);
/* NULL: there is no such console. */
struct instance_console *instance_find_console(struct instance *instance, const char *id);

struct err *instance_start(struct instance *instance, bool paused);
/* Ends it at once, as if the power failed; by force if it does not listen. */
struct err *instance_stop(struct instance *instance);

/*
 * Calls `done` once when the VM has stopped (`stopped`), or has come up or failed to (otherwise);
 * or at the deadline with `late`. Never from within this call.
 */
struct instance_waiter {
    struct list link;
    struct loop_timer timer;
    bool stopped, over;
    void (*done)(void *opaque, bool late);
    void *opaque;
};
void instance_wait(struct instance *instance, struct instance_waiter *waiter, bool stopped,
                   uint64_t deadline_ns, void (*done)(void *opaque, bool late), void *opaque);

#endif
