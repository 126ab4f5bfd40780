/*
 * Live operations on a running VM's disks: size, external snapshots, jobs. On the control loop.
 *
 * The VM opens nothing: files come as descriptors. An operation stops the disk's controller for the
 * moment in which its node is exchanged; the vCPUs run on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_VM_DISK_H
#define TENON_VM_VM_DISK_H

#include "block/live.h"
#include "vm/vm.h"

/* The disk's number; an error that names it when there is none. */
struct err *vm_disk_find(const struct vm *vm, const char *id, unsigned *disk);
unsigned vm_disk_count(const struct vm *vm);
const struct vm_disk *vm_disk_config(const struct vm *vm, unsigned disk);
const struct block *vm_disk_block(const struct vm *vm, unsigned disk);

/* Bytes; the guest is told. */
struct err *vm_disk_resize(struct vm *vm, unsigned disk, uint64_t size);
/* `take_fd`: a new overlay of `format` that names the disk's file as its backing. */
struct err *vm_disk_snapshot(struct vm *vm, unsigned disk, int take_fd, const char *format);

/* Limits of rate; all 0: none. */
struct err *vm_disk_limit(struct vm *vm, unsigned disk, const struct filter_limits *limits);

/* A dirty bitmap of the disk comes, goes or is cleared. */
struct err *vm_disk_change_bitmap(struct vm *vm, unsigned disk,
                                  const struct block_bitmap_change *change);

/* --- optical drives --- */
bool vm_disk_removable(const struct vm *vm, unsigned disk);
void vm_disk_tray(struct vm *vm, unsigned disk, bool *locked, bool *open);
/*
 * Another disc, closed in: `take_fd` is its image of `format`, `name` what it is called from now
 * on. -1: the disc is taken out, and the tray stays open. The guest's lock is not asked.
 */
struct err *vm_disk_set_medium(struct vm *vm, unsigned disk, int take_fd, const char *format,
                               const char *name);
/* A locked drive's guest is asked to let go. */
void vm_disk_request_eject(struct vm *vm, unsigned disk);
/* The guest moved a tray. `fn` runs on the control loop. Before vm_start. */
void vm_on_tray(struct vm *vm, void (*fn)(void *opaque, const char *disk, bool open), void *opaque);

/*
 * Starts a job; `take_fd` is its target (mirror, commit, backup) or -1. `changed` runs on the
 * control loop when the job's state is another.
 */
struct err *vm_disk_job_start(struct vm *vm, unsigned disk, struct block_job_options *options,
                              int take_fd, const char *format,
                              void (*changed)(void *opaque, unsigned disk), void *opaque);
/* NULL: none. */
struct block_job *vm_disk_job(const struct vm *vm, unsigned disk);
/* Waits for a cancelled job's thread; the disk is at its new place with `keep`. */
struct err *vm_disk_job_end(struct vm *vm, unsigned disk, bool keep);

#endif
