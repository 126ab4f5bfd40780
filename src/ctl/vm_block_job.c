/*
 * QMP commands and events of block jobs: mirror, commit, stream, backup. As in QEMU's
 * qapi/block-core.json, where they are a part. All on the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/vm_control_internal.h"

static const char *type_name(enum block_job_kind kind)
{
    switch (kind) {
    case BLOCK_JOB_MIRROR:
        return "mirror";
    case BLOCK_JOB_COMMIT:
        return "commit";
    case BLOCK_JOB_BACKUP:
        return "backup";
    case BLOCK_JOB_STREAM:
        break;
    }
    return "stream";
}

static json_t *describe(const struct vm_control *control, unsigned disk,
                        const struct block_job_status *status)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:i}", "device", control->job_id[disk], "type",
                     type_name(status->kind), "len", (json_int_t)status->length, "offset",
                     (json_int_t)status->done, "speed", 0);
}

/*
 * The job has come to its end, one way or the other; says so. While a disk's error holds the VM, it
 * is refused and the job stays what it is.
 */
static struct err *finish(struct vm_control *control, unsigned disk, bool keep, const char *event)
{
    struct block_job_status status;

    block_job_status(vm_disk_job(control->vm, disk), &status);
    json_t *data = describe(control, disk, &status);
    struct err *err = err_wrap(vm_disk_job_end(control->vm, disk, keep), "disk '%s'",
                               vm_disk_config(control->vm, disk)->id);
    if (vm_disk_job(control->vm, disk)) {
        json_decref(data);
        return err;
    }
    if (err)
        json_object_set_new(data, "error", json_string(err_text(err)));
    qmp_server_event(control->server, event, data);
    free(control->job_id[disk]);
    control->job_id[disk] = NULL;
    return err;
}

static void on_changed(void *opaque, unsigned disk)
{
    struct vm_control *control = opaque;
    struct block_job_status status;

    block_job_status(vm_disk_job(control->vm, disk), &status);
    switch (status.state) {
    case BLOCK_JOB_RUNNING:
        break;
    case BLOCK_JOB_READY:
        qmp_server_event(control->server, "BLOCK_JOB_READY", describe(control, disk, &status));
        break;
    case BLOCK_JOB_DONE:
        err_free(finish(control, disk, true, "BLOCK_JOB_COMPLETED"));
        break;
    case BLOCK_JOB_FAILED:
        if (status.error == -ECANCELED) {
            err_free(finish(control, disk, false, "BLOCK_JOB_CANCELLED"));
            break;
        }
        /* `keep` of a failed job says why it failed, and leaves the disk as it was. */
        err_free(finish(control, disk, true, "BLOCK_JOB_COMPLETED"));
        break;
    }
}

/* Starts a job; `take_fd` is its target or -1. */
static struct err *start(struct vm_control *control, const json_t *arguments, unsigned disk,
                         struct block_job_options *options, int take_fd, const char *format)
{
    const char *id = NULL;
    struct err *err = vm_control_text(arguments, "job-id", &id);

    if (!err)
        err = vm_control_number(arguments, "speed", &options->speed);
    if (!err && vm_disk_job(control->vm, disk))
        err = err_of(ERR_BUSY, "a job runs on it already");
    if (err) {
        if (take_fd >= 0)
            close(take_fd);
        return err;
    }
    free(control->job_id[disk]);
    control->job_id[disk] = xstrdup(id ? id : vm_disk_config(control->vm, disk)->id);
    return err_wrap(
        vm_disk_job_start(control->vm, disk, options, take_fd, format, on_changed, control),
        "disk '%s'", vm_disk_config(control->vm, disk)->id);
}

/* "target" of a drive-... command: a file that was handed over and holds an image. */
static struct err *target_file(struct vm_control *control, const json_t *arguments, int *fd,
                               const char **format)
{
    const char *mode;

    TRY(vm_control_text(arguments, "format", format));
    TRY(vm_control_text(arguments, "mode", &mode));
    if (mode && strcmp(mode, "existing"))
        return err_new("mode is existing: create the target first");
    *format = *format ? *format : "raw";
    return vm_control_fd(control, arguments, "target", fd);
}

/* A job whose target is a whole image, which exists; `named`: a node of blockdev-add. */
static struct err *start_copy(struct vm_control *control, const json_t *arguments, bool named,
                              struct block_job_options *options)
{
    const char *format;
    unsigned disk;
    int fd;

    TRY(vm_control_disk(control, arguments, &disk));
    TRY(named ? vm_control_node(control, arguments, "target", &fd, &format)
              : target_file(control, arguments, &fd, &format));
    return start(control, arguments, disk, options, fd, format);
}

static struct err *mirror(struct vm_control *control, const json_t *arguments, bool named)
{
    struct block_job_options options = {.kind = BLOCK_JOB_MIRROR};
    const char *sync;

    TRY(vm_control_text(arguments, "sync", &sync));
    if (!sync || (strcmp(sync, "full") && strcmp(sync, "top")))
        return err_new("sync is full or top");
    options.top_only = !strcmp(sync, "top");
    return start_copy(control, arguments, named, &options);
}

struct err *vm_block_mirror(void *opaque, const json_t *arguments, json_t **result)
{
    return mirror(opaque, arguments, false);
}

struct err *vm_blockdev_mirror(void *opaque, const json_t *arguments, json_t **result)
{
    return mirror(opaque, arguments, true);
}

static struct err *backup(struct vm_control *control, const json_t *arguments, bool named)
{
    struct block_job_options options = {.kind = BLOCK_JOB_BACKUP};
    const char *sync;

    TRY(vm_control_text(arguments, "sync", &sync));
    TRY(vm_control_text(arguments, "bitmap", &options.bitmap));
    if (!sync || (strcmp(sync, "full") && strcmp(sync, "incremental")))
        return err_new("sync is full or incremental");
    if (!options.bitmap != !strcmp(sync, "full"))
        return err_new("'bitmap' names what an incremental backup copies, and only that");
    return start_copy(control, arguments, named, &options);
}

struct err *vm_block_backup(void *opaque, const json_t *arguments, json_t **result)
{
    return backup(opaque, arguments, false);
}

struct err *vm_blockdev_backup(void *opaque, const json_t *arguments, json_t **result)
{
    return backup(opaque, arguments, true);
}

/* The format of the disk's layer that lies in the file behind `fd`. */
static const char *layer_format(struct vm_control *control, unsigned disk, int fd)
{
    struct image *layer = block_node(vm_disk_block(control->vm, disk));
    struct stat one, two;

    for (; layer; layer = image_backing(layer)) {
        if (image_file(layer) && fstat(image_fd(image_file(layer)), &one) == 0 &&
            fstat(fd, &two) == 0 && one.st_dev == two.st_dev && one.st_ino == two.st_ino)
            return image_driver_name(image_driver(layer));
    }
    return NULL;
}

struct err *vm_block_commit(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    struct block_job_options options = {.kind = BLOCK_JOB_COMMIT};
    unsigned disk;
    int fd;

    TRY(vm_control_disk(control, arguments, &disk));
    TRY(vm_control_fd(control, arguments, "base", &fd));
    const char *format = layer_format(control, disk, fd);
    if (!format) {
        close(fd);
        return err_new("disk '%s': the base is no layer of it",
                       vm_disk_config(control->vm, disk)->id);
    }
    return start(control, arguments, disk, &options, fd, format);
}

struct err *vm_block_stream(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    struct block_job_options options = {.kind = BLOCK_JOB_STREAM};
    unsigned disk;

    TRY(vm_control_disk(control, arguments, &disk));
    return start(control, arguments, disk, &options, -1, NULL);
}

/* --- jobs that run --- */

/* "device" is a job's id. */
static struct err *find_job(struct vm_control *control, const json_t *arguments, unsigned *disk,
                            struct block_job **job)
{
    const char *id;

    TRY(vm_control_text(arguments, "device", &id));
    for (*disk = 0; id && *disk < VM_DISKS_MAX; ++*disk) {
        *job = vm_disk_job(control->vm, *disk);
        if (*job && !strcmp(control->job_id[*disk], id))
            return NULL;
    }
    return err_new("there is no job '%s'", id ? id : "");
}

struct err *vm_block_job_query(void *opaque, const json_t *arguments, json_t **result)
{
    static const char *const states[] = {"running", "ready", "concluded", "aborting"};
    struct vm_control *control = opaque;

    *result = json_array();
    for (unsigned i = 0; i < VM_DISKS_MAX; i++) {
        struct block_job_status status;
        if (!vm_disk_job(control->vm, i))
            continue;
        block_job_status(vm_disk_job(control->vm, i), &status);
        json_t *job = describe(control, i, &status);
        json_object_set_new(job, "ready", json_boolean(status.state == BLOCK_JOB_READY));
        json_object_set_new(job, "busy", json_boolean(status.state == BLOCK_JOB_RUNNING));
        json_object_set_new(job, "paused", json_false());
        json_object_set_new(job, "io-status", json_string("ok"));
        json_object_set_new(job, "status", json_string(states[status.state]));
        json_array_append_new(*result, job);
    }
    return NULL;
}

struct err *vm_block_job_complete(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    struct block_job_status status;
    struct block_job *job;
    unsigned disk;

    TRY(find_job(control, arguments, &disk, &job));
    block_job_status(job, &status);
    if (status.state != BLOCK_JOB_READY)
        return err_new("the job '%s' is not ready yet", control->job_id[disk]);
    return finish(control, disk, true, "BLOCK_JOB_COMPLETED");
}

struct err *vm_block_job_cancel(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    struct block_job_status status;
    struct block_job *job;
    unsigned disk;

    TRY(find_job(control, arguments, &disk, &job));
    block_job_status(job, &status);
    /* A ready one has nothing to abort: its target stays as a copy of this moment. */
    if (status.state == BLOCK_JOB_READY)
        return finish(control, disk, false, "BLOCK_JOB_COMPLETED");
    block_job_cancel(job);
    return NULL;
}

struct err *vm_block_job_set_speed(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    struct block_job *job;
    unsigned disk;
    uint64_t speed;

    TRY(find_job(control, arguments, &disk, &job));
    TRY(vm_control_number(arguments, "speed", &speed));
    block_job_set_speed(job, speed);
    return NULL;
}
