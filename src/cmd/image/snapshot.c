/*
 * tenon image snapshot: snapshots inside of an image.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "cmd/image/image.h"

static void list_snapshots(const struct image *image)
{
    unsigned count = image_snapshot_count(image);
    if (!count)
        return;
    printf("Snapshot list:\n%-8s %-24s %10s %-20s %15s\n", "ID", "TAG", "VM SIZE", "DATE",
           "VM CLOCK");
    for (unsigned i = 0; i < count; i++) {
        struct image_snapshot snapshot;
        char size[24], date[32];
        struct tm when;
        image_snapshot_get(image, i, &snapshot);
        time_t seconds = (time_t)snapshot.date_s;
        image_size_text(size, sizeof(size), snapshot.vm_state_size);
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", localtime_r(&seconds, &when));
        uint64_t clock_s = snapshot.vm_clock_ns / NSEC_PER_SEC;
        printf("%-8s %-24s %10s %-20s   %02u:%02u:%02u.%03u\n", snapshot.id, snapshot.name, size,
               date, (unsigned)(clock_s / 3600), (unsigned)(clock_s / 60 % 60),
               (unsigned)(clock_s % 60), (unsigned)(snapshot.vm_clock_ns / NSEC_PER_MSEC % 1000));
    }
}

struct err *image_snapshot_run(const struct image_args *args, int *status)
{
    const char *path = args->word[0];
    bool list = !args->snapshot_action || args->snapshot_action == 'l';
    struct image *image;
    (void)status;
    /* Snapshots are about one layer: its backing is not asked. */
    TRY(image_open_one(args, path, args->format, list ? 0 : IMAGE_OPEN_WRITABLE, &image));
    struct err *err = NULL;
    if (list)
        list_snapshots(image);
    else if (args->snapshot_action == 'c')
        err = image_snapshot_create(image, args->snapshot);
    else if (args->snapshot_action == 'a')
        err = image_snapshot_apply(image, args->snapshot);
    else
        err = image_snapshot_delete(image, args->snapshot);
    int result = image_close(image);
    if (!err && result)
        err = err_errno(-result, "cannot write its tables");
    return err_wrap(err, "'%s'", path);
}
