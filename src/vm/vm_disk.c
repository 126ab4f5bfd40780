/*
 * Live operations on a running VM's disks. See vm_disk.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/vm_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hw/disk/ahci.h"
#include "hw/disk/nvme.h"
#include "hw/usb/usb_storage.h"
#include "hw/virtio/virtio_blk.h"
#include "hw/virtio/virtio_scsi.h"
#include "vm/vm_internal.h"

struct err *vm_disk_find(const struct vm *vm, const char *id, unsigned *disk)
{
    for (*disk = 0; *disk < vm->config->disk_count; ++*disk) {
        if (!strcmp(vm->config->disk[*disk].id, id))
            return NULL;
    }
    return err_new("there is no disk '%s'", id);
}

unsigned vm_disk_count(const struct vm *vm)
{
    return vm->config->disk_count;
}

const struct vm_disk *vm_disk_config(const struct vm *vm, unsigned disk)
{
    return &vm->config->disk[disk];
}

const struct block *vm_disk_block(const struct vm *vm, unsigned disk)
{
    return vm->board.block[disk];
}

/* The controller has the id of its first disk. */
static struct device *controller(struct vm *vm, unsigned disk)
{
    const char *id = vm->config->disk[vm_disk_controller(vm->config, disk)].id;
    struct device *device;

    list_for_each (device, &vm->board.devices, link) {
        if (!strcmp(device->id, id))
            return device;
    }
    return NULL;
}

/* A drain would answer the requests that are held back, which `cont` is to try again. */
static struct err *not_held(const struct vm *vm)
{
    return vm->held ? err_of(ERR_BUSY, "the VM waits after a disk's error: continue it first")
                    : NULL;
}

static void hold(struct vm *vm, unsigned disk)
{
    if (!vm->paused)
        device_quiesce(controller(vm, disk));
}

static void release(struct vm *vm, unsigned disk)
{
    if (!vm->paused)
        device_resume(controller(vm, disk));
}

/* Which unit or namespace of its controller the disk is. */
static unsigned place_at_controller(const struct vm *vm, unsigned disk)
{
    unsigned first = vm_disk_controller(vm->config, disk), place = 0;

    for (unsigned i = first; i < disk; i++)
        place += vm_disk_controller(vm->config, i) == first;
    return place;
}

static void tell_size(struct vm *vm, unsigned disk)
{
    struct device *device = controller(vm, disk);

    switch (vm->config->disk[disk].bus) {
    case VM_DISK_VIRTIO:
        virtio_blk_resized((struct virtio_blk *)device);
        break;
    case VM_DISK_SCSI:
        virtio_scsi_resized((struct virtio_scsi *)device, place_at_controller(vm, disk));
        break;
    case VM_DISK_NVME:
        nvme_resized((struct nvme *)device, place_at_controller(vm, disk));
        break;
    case VM_DISK_AHCI:
    case VM_DISK_SATA:
        ahci_resized((struct ahci *)device, place_at_controller(vm, disk));
        break;
    case VM_DISK_USB:
        usb_storage_resized((struct usb_storage *)device);
        break;
    }
}

struct err *vm_disk_resize(struct vm *vm, unsigned disk, uint64_t size)
{
    TRY(not_held(vm));
    hold(vm, disk);
    struct err *err = block_resize(vm->board.block[disk], size);
    if (!err)
        tell_size(vm, disk);
    release(vm, disk);
    return err;
}

/* A file that was handed over, as an image of `format`. */
static struct err *open_image(const struct vm *vm, unsigned disk, int take_fd, const char *format,
                              struct image **image)
{
    const struct vm_disk *config = &vm->config->disk[disk];
    const struct block_driver *driver = image_driver_find(format);
    unsigned flags = (config->media == VM_MEDIA_CDROM ? 0 : IMAGE_OPEN_WRITABLE) |
                     (config->cache == BLOCK_CACHE_UNSAFE ? IMAGE_OPEN_UNSAFE : 0) |
                     (config->discard ? IMAGE_OPEN_DISCARD : 0);
    struct stat status;
    struct image *file;

    if (!driver || fstat(take_fd, &status) != 0 ||
        (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))) {
        close(take_fd);
        return driver ? err_new("what was handed over is no file")
                      : err_new("unknown format '%s'", format);
    }
    TRY(image_open_fd(take_fd, flags, &file));
    return image_open(file, driver, flags, NULL, image);
}

struct err *vm_disk_snapshot(struct vm *vm, unsigned disk, int take_fd, const char *format)
{
    struct image *overlay;

    TRY(open_image(vm, disk, take_fd, format, &overlay));
    struct err *err = not_held(vm);
    if (err) {
        image_close(overlay);
        return err;
    }
    hold(vm, disk);
    err = block_put_overlay(vm->board.block[disk], overlay);
    release(vm, disk);
    return err;
}

struct err *vm_disk_limit(struct vm *vm, unsigned disk, const struct filter_limits *limits)
{
    TRY(not_held(vm));
    hold(vm, disk);
    struct err *err = block_limit(vm->board.block[disk], limits);
    release(vm, disk);
    return err;
}

struct err *vm_disk_change_bitmap(struct vm *vm, unsigned disk,
                                  const struct block_bitmap_change *change)
{
    TRY(not_held(vm));
    hold(vm, disk);
    struct err *err = block_change_bitmap(vm->board.block[disk], change);
    release(vm, disk);
    return err;
}

/* --- optical drives --- */

static struct ahci *drive(struct vm *vm, unsigned disk, unsigned *port)
{
    *port = place_at_controller(vm, disk);
    return (struct ahci *)controller(vm, disk);
}

bool vm_disk_removable(const struct vm *vm, unsigned disk)
{
    return vm->config->disk[disk].media == VM_MEDIA_CDROM;
}

void vm_disk_tray(struct vm *vm, unsigned disk, bool *locked, bool *open)
{
    unsigned port;
    struct ahci *ahci = drive(vm, disk, &port);

    ahci_tray(ahci, port, locked, open);
}

void vm_disk_request_eject(struct vm *vm, unsigned disk)
{
    unsigned port;
    struct ahci *ahci = drive(vm, disk, &port);

    ahci_request_eject(ahci, port);
}

struct err *vm_disk_set_medium(struct vm *vm, unsigned disk, int take_fd, const char *format,
                               const char *name)
{
    struct image *medium = NULL;
    unsigned port;
    struct ahci *ahci = drive(vm, disk, &port);

    if (take_fd >= 0)
        TRY(open_image(vm, disk, take_fd, format, &medium));
    struct err *err = not_held(vm);
    if (err) {
        image_close(medium);
        return err;
    }
    hold(vm, disk);
    err = block_set_medium(vm->board.block[disk], medium);
    if (!err)
        ahci_medium_changed(ahci, port, !medium);
    release(vm, disk);
    TRY(err);
    free(vm->config->disk[disk].path);
    vm->config->disk[disk].path = medium ? xstrdup(name) : NULL;
    return NULL;
}

void vm_on_tray(struct vm *vm, void (*fn)(void *opaque, const char *disk, bool open), void *opaque)
{
    vm->tray_moved = fn;
    vm->tray_moved_opaque = opaque;
}

static void tell_tray(void *opaque)
{
    struct vm_tray *tray = opaque;
    struct vm *vm = tray->vm;

    if (vm->tray_moved)
        vm->tray_moved(vm->tray_moved_opaque, vm->config->disk[tray->disk].id,
                       __atomic_load_n(&tray->open, __ATOMIC_SEQ_CST));
}

/* On the I/O loop. */
static void tray_moved(void *opaque, bool open)
{
    struct vm_tray *tray = opaque;

    __atomic_store_n(&tray->open, open, __ATOMIC_SEQ_CST);
    loop_post(tray->vm->loop, tell_tray, tray);
}

static void watch_tray(struct vm *vm, unsigned disk)
{
    unsigned port;
    struct ahci *ahci = drive(vm, disk, &port);

    vm->tray[disk] = (struct vm_tray){.vm = vm, .disk = disk};
    ahci->port[port].unit.tray_moved = tray_moved;
    ahci->port[port].unit.opaque = &vm->tray[disk];
}

/* --- errors that stop the VM --- */

void vm_on_disk_error(struct vm *vm,
                      void (*fn)(void *opaque, const char *disk, bool write, int error),
                      void *opaque)
{
    vm->disk_failed = fn;
    vm->disk_failed_opaque = opaque;
}

static void stop_for_error(void *opaque)
{
    struct vm_disk_error *what = opaque;
    struct vm *vm = what->vm;
    int error = __atomic_load_n(&what->error, __ATOMIC_RELAXED);

    if (vm->finished)
        return;
    if (!vm->paused) {
        vm->paused = vm->held = true;
        vm_cpus_stop(vm);
    }
    if (vm->disk_failed)
        vm->disk_failed(vm->disk_failed_opaque, vm->config->disk[what->disk].id,
                        __atomic_load_n(&what->write, __ATOMIC_RELAXED), error);
}

/* On the disk's I/O loop. */
static void disk_failed(void *opaque, enum block_op op, int error)
{
    struct vm_disk_error *what = opaque;

    __atomic_store_n(&what->write, op != BLOCK_READ, __ATOMIC_RELAXED);
    /* One post for all that fail before it is served. */
    if (!__atomic_exchange_n(&what->error, error, __ATOMIC_SEQ_CST))
        loop_post(what->vm->loop, stop_for_error, what);
}

void vm_disks_init(struct vm *vm)
{
    for (unsigned i = 0; i < vm->config->disk_count; i++) {
        vm->disk_error[i] = (struct vm_disk_error){.vm = vm, .disk = i};
        block_on_error(vm->board.block[i], disk_failed, &vm->disk_error[i]);
        if (vm_disk_removable(vm, i))
            watch_tray(vm, i);
    }
}

/* --- jobs --- */

static void post_changed(void *opaque)
{
    struct vm_disk_job *job = opaque;

    job->waits = job->job && job->vm->held;
    if (job->job && !job->waits) /* not ended since */
        job->changed(job->opaque, job->disk);
}

/* On the job's thread. */
static void job_changed(void *opaque)
{
    struct vm_disk_job *job = opaque;

    loop_post(job->vm->loop, post_changed, job);
}

struct err *vm_disk_job_start(struct vm *vm, unsigned disk, struct block_job_options *options,
                              int take_fd, const char *format,
                              void (*changed)(void *opaque, unsigned disk), void *opaque)
{
    struct vm_disk_job *job = &vm->disk_job[disk];
    struct err *err = not_held(vm);

    if (err) {
        if (take_fd >= 0)
            close(take_fd);
        return err;
    }
    options->target = NULL;
    if (take_fd >= 0)
        TRY(open_image(vm, disk, take_fd, format, &options->target));
    *job = (struct vm_disk_job){
        .vm = vm, .disk = disk, .job = job->job, .changed = changed, .opaque = opaque};
    options->changed = job_changed;
    options->opaque = job;
    hold(vm, disk);
    err = block_job_start(vm->board.block[disk], options, &job->job);
    release(vm, disk);
    return err;
}

struct block_job *vm_disk_job(const struct vm *vm, unsigned disk)
{
    return vm->disk_job[disk].job;
}

struct err *vm_disk_job_end(struct vm *vm, unsigned disk, bool keep)
{
    struct block_job *job = vm->disk_job[disk].job;

    TRY(not_held(vm));
    vm->disk_job[disk].job = NULL;
    hold(vm, disk);
    struct err *err = block_job_end(job, keep);
    release(vm, disk);
    return err;
}

void vm_disks_retry(struct vm *vm)
{
    vm->held = false;
    for (unsigned i = 0; i < vm->config->disk_count; i++) {
        __atomic_store_n(&vm->disk_error[i].error, 0, __ATOMIC_SEQ_CST);
        block_retry(vm->board.block[i]);
        if (vm->disk_job[i].waits)
            loop_post(vm->loop, post_changed, &vm->disk_job[i]);
    }
}

void vm_disks_fini(struct vm *vm)
{
    for (unsigned i = 0; i < VM_DISKS_MAX; i++) {
        struct block_job *job = vm->disk_job[i].job;

        if (!job)
            continue;
        device_quiesce(controller(vm, i));
        block_job_cancel(job);
        err_free(block_job_end(job, false));
        vm->disk_job[i].job = NULL;
    }
}
