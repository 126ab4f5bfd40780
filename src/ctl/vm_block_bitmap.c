/*
 * QMP commands of dirty bitmaps, as in QEMU's qapi/block-core.json, where they are a part. All on
 * the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "ctl/vm_control_internal.h"

json_t *vm_block_bitmaps(const struct image *node)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < image_bitmap_count(node); i++) {
        struct image_bitmap bitmap;
        image_bitmap_get(node, i, &bitmap);
        json_t *each =
            json_pack("{s:s, s:I, s:I, s:b, s:b, s:b}", "name", bitmap.name, "count",
                      (json_int_t)bitmap.dirty, "granularity", (json_int_t)bitmap.granularity,
                      "recording", bitmap.recording, "busy", 0, "persistent", bitmap.persistent);
        if (bitmap.inconsistent)
            json_object_set_new(each, "inconsistent", json_true());
        json_array_append_new(list, each);
    }
    return list;
}

static struct err *change(struct vm_control *control, const json_t *arguments,
                          struct block_bitmap_change *change)
{
    unsigned disk;

    TRY(vm_control_disk(control, arguments, &disk));
    TRY(vm_control_text(arguments, "name", &change->name));
    if (!change->name)
        return err_new("'name' is missing: a bitmap's");
    return err_wrap(vm_disk_change_bitmap(control->vm, disk, change), "disk '%s'",
                    vm_disk_config(control->vm, disk)->id);
}

struct err *vm_block_bitmap_add(void *opaque, const json_t *arguments, json_t **result)
{
    struct block_bitmap_change add = {.what = BLOCK_BITMAP_ADD};

    TRY(vm_control_number(arguments, "granularity", &add.granularity));
    add.persistent = json_is_true(json_object_get(arguments, "persistent"));
    return change(opaque, arguments, &add);
}

struct err *vm_block_bitmap_remove(void *opaque, const json_t *arguments, json_t **result)
{
    return change(opaque, arguments, &(struct block_bitmap_change){.what = BLOCK_BITMAP_REMOVE});
}

struct err *vm_block_bitmap_clear(void *opaque, const json_t *arguments, json_t **result)
{
    return change(opaque, arguments, &(struct block_bitmap_change){.what = BLOCK_BITMAP_CLEAR});
}
