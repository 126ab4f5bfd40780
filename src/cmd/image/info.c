/*
 * tenon image info, map, check: what an image is, in words and in qemu-img's JSON.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cmd/image/image.h"

static json_t *item_json(const struct image_info_item *item)
{
    switch (item->kind) {
    case IMAGE_INFO_TEXT:
        return image_text_json(item->text);
    case IMAGE_INFO_NUMBER:
        return json_integer((json_int_t)item->number);
    default:
        return json_boolean(item->number);
    }
}

static json_t *snapshots_json(const struct image *image)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < image_snapshot_count(image); i++) {
        struct image_snapshot snapshot;
        image_snapshot_get(image, i, &snapshot);
        json_t *one = json_pack(
            "{s:I,s:I,s:I,s:I,s:I}", "vm-state-size", (json_int_t)snapshot.vm_state_size,
            "date-sec", (json_int_t)snapshot.date_s, "date-nsec", (json_int_t)snapshot.date_ns,
            "vm-clock-sec", (json_int_t)(snapshot.vm_clock_ns / NSEC_PER_SEC), "vm-clock-nsec",
            (json_int_t)(snapshot.vm_clock_ns % NSEC_PER_SEC));
        json_object_set_new(one, "name", image_text_json(snapshot.name));
        json_object_set_new(one, "id", image_text_json(snapshot.id));
        json_array_append_new(list, one);
    }
    return list;
}

static json_t *info_json(const char *path, struct image *image, const struct image_info *info)
{
    json_t *json = json_pack("{s:I,s:s,s:I,s:b}", "virtual-size", (json_int_t)image_size(image),
                             "format", image_driver_name(image_driver(image)), "actual-size",
                             (json_int_t)image_allocated(image), "dirty-flag", info->dirty);
    json_object_set_new(json, "filename", image_text_json(path));
    if (info->cluster_size)
        json_object_set_new(json, "cluster-size", json_integer(info->cluster_size));
    if (info->encrypted)
        json_object_set_new(json, "encrypted", json_true());
    if (image_backing_name(image)) {
        char *full = NULL;
        json_object_set_new(json, "backing-filename", image_text_json(image_backing_name(image)));
        struct err *err = image_backing_path(path, image_backing_name(image), &full);
        if (!err)
            json_object_set_new(json, "full-backing-filename", image_text_json(full));
        err_free(err);
        free(full);
    }
    if (image_backing_format(image))
        json_object_set_new(json, "backing-filename-format",
                            image_text_json(image_backing_format(image)));
    if (image_snapshot_count(image))
        json_object_set_new(json, "snapshots", snapshots_json(image));
    if (info->item_count) {
        json_t *data = json_object();
        for (unsigned i = 0; i < info->item_count; i++)
            json_object_set_new(data, info->item[i].name, item_json(&info->item[i]));
        json_object_set_new(
            json, "format-specific",
            json_pack("{s:s,s:o}", "type", image_driver_name(image_driver(image)), "data", data));
    }
    return json;
}

static void info_text(const char *path, struct image *image, const struct image_info *info)
{
    char size[24];
    printf("image: ");
    image_print_name(path);
    image_size_text(size, sizeof(size), image_size(image));
    printf("\nfile format: %s\nvirtual size: %s (%llu bytes)\n",
           image_driver_name(image_driver(image)), size, (unsigned long long)image_size(image));
    image_size_text(size, sizeof(size), image_allocated(image));
    printf("disk size: %s\n", size);
    if (info->cluster_size)
        printf("cluster_size: %u\n", info->cluster_size);
    if (info->encrypted)
        printf("encrypted: yes\n");
    if (info->dirty)
        printf("cleanly shut down: no\n");
    if (image_backing_name(image)) {
        printf("backing file: ");
        image_print_name(image_backing_name(image));
        printf("\n");
    }
    if (image_backing_format(image)) {
        printf("backing file format: ");
        image_print_name(image_backing_format(image));
        printf("\n");
    }
    if (image_snapshot_count(image)) {
        printf("Snapshots:\n");
        for (unsigned i = 0; i < image_snapshot_count(image); i++) {
            struct image_snapshot snapshot;
            image_snapshot_get(image, i, &snapshot);
            printf("    %s  ", snapshot.id);
            image_print_name(snapshot.name);
            printf("\n");
        }
    }
    if (info->item_count)
        printf("Format specific information:\n");
    for (unsigned i = 0; i < info->item_count; i++) {
        const struct image_info_item *item = &info->item[i];
        printf("    %s: ", item->name);
        if (item->kind == IMAGE_INFO_TEXT)
            image_print_name(item->text);
        else if (item->kind == IMAGE_INFO_NUMBER)
            printf("%llu", (unsigned long long)item->number);
        else
            printf("%s", item->number ? "true" : "false");
        printf("\n");
    }
}

struct err *image_info_run(const struct image_args *args, int *status)
{
    const char *path = args->word[0];
    struct image *image;
    struct image_info info;
    struct err *err = NULL;
    (void)status;
    /* Looking disturbs nobody, so nobody's lock is asked. */
    struct image_args own = *args;
    own.unlocked = true;
    TRY(image_open_one(&own, path, args->format, IMAGE_OPEN_CHECK, &image));
    if (args->backing_chain)
        err = image_open_backing(&own, path, !args->format, image);
    json_t *list = json_array();
    scoped(free_cleanup) char *name = xstrdup(path);
    for (struct image *at = image; at && !err; at = image_backing(at)) {
        image_get_info(at, &info);
        if (args->json) {
            json_array_append_new(list, info_json(name, at, &info));
        } else {
            if (at != image)
                printf("\n");
            info_text(name, at, &info);
        }
        if (image_backing(at)) {
            char *next = NULL;
            err = image_backing_path(name, image_backing_name(at), &next);
            free(name);
            name = next;
        }
    }
    if (args->json && !err)
        err = image_print_json(json_incref(args->backing_chain ? list : json_array_get(list, 0)));
    json_decref(list);
    image_close(image);
    return err;
}
