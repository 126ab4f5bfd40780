/*
 * What the files of a VM's control share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CTL_VM_CONTROL_INTERNAL_H
#define TENON_CTL_VM_CONTROL_INTERNAL_H

#include "ctl/gdb/gdb.h"
#include "ctl/qmp.h"
#include "ctl/vm_control.h"
#include "vm/vm_disk.h"

#define VM_CONTROL_FDSETS_MAX 32
#define VM_CONTROL_NODES_MAX 32

enum vm_status {
    STATUS_PRELAUNCH,
    STATUS_RUNNING,
    STATUS_PAUSED,
    STATUS_IO_ERROR,
    STATUS_DEBUG,
    STATUS_SHUTDOWN
};

/* A descriptor that a client has handed over: "/dev/fdset/ID" where a file name is wanted. */
struct vm_fdset {
    json_int_t id;
    int fd;
};

/* An image that blockdev-add gave a name; nobody uses it yet. */
struct vm_node {
    char *name;         /* owned */
    const char *format; /* static */
    int fd;             /* owned */
};

struct vm_control {
    struct vm *vm;
    char *name;
    const struct timeline *timeline;
    struct qmp_server *server;
    struct gdb_server *gdb; /* NULL: none listens */
    enum vm_status status;
    struct vm_fdset fdset[VM_CONTROL_FDSETS_MAX];
    unsigned fdset_count;
    struct vm_node node[VM_CONTROL_NODES_MAX];
    unsigned node_count;
    char *job_id[VM_DISKS_MAX]; /* of the job on each disk; owned */
    struct loop *loop;
    struct list screen_shares;
};

/* A member of `arguments`; NULL or 0 when it is absent, an error when it is something else. */
struct err *vm_control_text(const json_t *arguments, const char *name, const char **text);
struct err *vm_control_number(const json_t *arguments, const char *name, uint64_t *number);
/* The disk that "device", or "node", names, which must be there. */
struct err *vm_control_disk(struct vm_control *control, const json_t *arguments, unsigned *disk);
/* A duplicate of the descriptor that "/dev/fdset/ID" in `name` stands for. */
struct err *vm_control_fd(struct vm_control *control, const json_t *arguments, const char *name,
                          int *fd);
/* The same of "filename", a regular file to write to: others might keep the control loop waiting.
 */
struct err *vm_control_output(struct vm_control *control, const json_t *arguments, int *fd);
struct err *vm_control_write(int fd, const void *bytes, size_t len);
/* What vm_control_fd() gives, of the node that `member` names, and its format (static). */
struct err *vm_control_node(struct vm_control *control, const json_t *arguments, const char *member,
                            int *fd, const char **format);

/* vm_block.c, vm_block_bitmap.c, vm_block_job.c, vm_blockdev.c, vm_drive.c: commands. */
typedef struct err *vm_command(void *opaque, const json_t *arguments, json_t **result);
vm_command vm_block_query, vm_block_resize, vm_block_add_fd, vm_block_remove_fd, vm_block_snapshot;
vm_command vm_block_throttle, vm_block_mirror, vm_block_commit, vm_block_stream;
vm_command vm_block_bitmap_add, vm_block_bitmap_remove, vm_block_bitmap_clear, vm_block_backup;
vm_command vm_blockdev_add, vm_blockdev_del, vm_blockdev_backup, vm_blockdev_mirror;
vm_command vm_drive_eject, vm_drive_change_medium;
vm_command vm_block_job_query, vm_block_job_complete, vm_block_job_cancel, vm_block_job_set_speed;
/* vm_machine.c: commands, and for vm_on_reset(). */
vm_command vm_machine_reset, vm_machine_nmi, vm_machine_cpus, vm_machine_memory;
vm_command vm_machine_chardevs, vm_machine_pci;
void vm_machine_was_reset(void *opaque, bool by_guest);
void vm_machine_boot_failed(void *opaque);
/* vm_stats.c: commands; and the engine's counters by name. */
vm_command vm_stats_query, vm_stats_disks, vm_stats_nets, vm_stats_queues;
void vm_stats_counters(const struct accel_stats *stats,
                       void (*each)(void *opaque, const char *name, uint64_t value), void *opaque);
/* vm_screen.c: commands. */
vm_command vm_screen_dump, vm_screen_send_key, vm_screen_send_event, vm_screen_share;
/* vm_agent.c: a command. */
vm_command vm_agent_command;
/* vm_tpm.c: commands. */
vm_command vm_tpm_command, vm_tpm_save_memory;
/* What query-block says of a node's bitmaps. */
json_t *vm_block_bitmaps(const struct image *node);
/* vm_drive.c, for vm_on_tray(). */
void vm_drive_tray_moved(void *opaque, const char *disk, bool open);
/* For vm_on_disk_error(). */
void vm_block_failed(void *opaque, const char *disk, bool write, int error);
void vm_block_fini(struct vm_control *control);
void vm_blockdev_fini(struct vm_control *control);

#endif
