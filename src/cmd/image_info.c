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
#include "cmd/image.h"

static struct err *print_json(json_t *take_json)
{
    bool good = json_dumpf(take_json, stdout, JSON_INDENT(4)) == 0 && putchar('\n') != EOF;
    json_decref(take_json);
    return good && fflush(stdout) == 0 ? NULL : err_errno(errno, "cannot write the report");
}

/* A name out of an image, for a terminal: no control characters. */
static void print_name(const char *name)
{
    for (; *name; name++)
        putchar((unsigned char)*name < ' ' || *name == 127 ? '?' : *name);
}

static json_t *text_json(const char *text)
{
    json_t *json = json_string(text);
    return json ? json : json_string("?"); /* not UTF-8 */
}

static json_t *item_json(const struct image_info_item *item)
{
    switch (item->kind) {
    case IMAGE_INFO_TEXT:
        return text_json(item->text);
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
        json_object_set_new(one, "name", text_json(snapshot.name));
        json_object_set_new(one, "id", text_json(snapshot.id));
        json_array_append_new(list, one);
    }
    return list;
}

static json_t *info_json(const char *path, struct image *image, const struct image_info *info)
{
    json_t *json = json_pack("{s:I,s:s,s:I,s:b}", "virtual-size", (json_int_t)image_size(image),
                             "format", image_driver_name(image_driver(image)), "actual-size",
                             (json_int_t)image_allocated(image), "dirty-flag", info->dirty);
    json_object_set_new(json, "filename", text_json(path));
    if (info->cluster_size)
        json_object_set_new(json, "cluster-size", json_integer(info->cluster_size));
    if (image_backing_name(image)) {
        char *full = NULL;
        json_object_set_new(json, "backing-filename", text_json(image_backing_name(image)));
        struct err *err = image_backing_path(path, image_backing_name(image), &full);
        if (!err)
            json_object_set_new(json, "full-backing-filename", text_json(full));
        err_free(err);
        free(full);
    }
    if (image_backing_format(image))
        json_object_set_new(json, "backing-filename-format",
                            text_json(image_backing_format(image)));
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
    print_name(path);
    image_size_text(size, sizeof(size), image_size(image));
    printf("\nfile format: %s\nvirtual size: %s (%llu bytes)\n",
           image_driver_name(image_driver(image)), size, (unsigned long long)image_size(image));
    image_size_text(size, sizeof(size), image_allocated(image));
    printf("disk size: %s\n", size);
    if (info->cluster_size)
        printf("cluster_size: %u\n", info->cluster_size);
    if (info->dirty)
        printf("cleanly shut down: no\n");
    if (image_backing_name(image)) {
        printf("backing file: ");
        print_name(image_backing_name(image));
        printf("\n");
    }
    if (image_backing_format(image)) {
        printf("backing file format: ");
        print_name(image_backing_format(image));
        printf("\n");
    }
    if (image_snapshot_count(image)) {
        printf("Snapshots:\n");
        for (unsigned i = 0; i < image_snapshot_count(image); i++) {
            struct image_snapshot snapshot;
            image_snapshot_get(image, i, &snapshot);
            printf("    %s  ", snapshot.id);
            print_name(snapshot.name);
            printf("\n");
        }
    }
    if (info->item_count)
        printf("Format specific information:\n");
    for (unsigned i = 0; i < info->item_count; i++) {
        const struct image_info_item *item = &info->item[i];
        printf("    %s: ", item->name);
        if (item->kind == IMAGE_INFO_TEXT)
            print_name(item->text);
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
        err = print_json(json_incref(args->backing_chain ? list : json_array_get(list, 0)));
    json_decref(list);
    image_close(image);
    return err;
}

static bool same_kind(const struct image_extent *a, unsigned a_depth, const struct image_extent *b,
                      unsigned b_depth)
{
    return a->flags == b->flags && a_depth == b_depth &&
           (!(a->flags & IMAGE_EXTENT_HOST) || a->host + a->length == b->host);
}

static void map_line(const struct image_args *args, uint64_t start,
                     const struct image_extent *extent, unsigned depth, bool *first)
{
    bool data = extent->flags & IMAGE_EXTENT_DATA, host = extent->flags & IMAGE_EXTENT_HOST;
    if (args->json) {
        printf("%s{ \"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, "
               "\"zero\": %s, \"data\": %s, \"compressed\": %s",
               *first ? "[" : ",\n", (unsigned long long)start, (unsigned long long)extent->length,
               depth, extent->flags & IMAGE_EXTENT_ALLOCATED ? "true" : "false",
               extent->flags & IMAGE_EXTENT_ZERO ? "true" : "false", data ? "true" : "false",
               extent->flags & IMAGE_EXTENT_COMPRESSED ? "true" : "false");
        if (host)
            printf(", \"offset\": %llu", (unsigned long long)extent->host);
        printf("}");
    } else if (data) {
        if (*first)
            printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "Depth");
        printf("%#-16llx%#-16llx", (unsigned long long)start, (unsigned long long)extent->length);
        if (host)
            printf("%#-16llx", (unsigned long long)extent->host);
        else
            printf("%-16s", "compressed");
        printf("%u\n", depth);
    } else {
        return;
    }
    *first = false;
}

struct err *image_map_run(const struct image_args *args, int *status)
{
    struct image *image;
    struct image_extent held = {0}, extent;
    unsigned held_depth = 0, depth;
    uint64_t start = 0, at = 0;
    bool first = true;
    int result = 0;
    (void)status;
    TRY(image_open_chain(args, args->word[0], args->format, 0, &image));
    while (at < image_size(image)) {
        result = image_extent_chain(image, at, image_size(image) - at, &extent, &depth);
        if (result)
            break;
        if (held.length && same_kind(&held, held_depth, &extent, depth)) {
            held.length += extent.length;
        } else {
            if (held.length)
                map_line(args, start, &held, held_depth, &first);
            held = extent;
            held_depth = depth;
            start = at;
        }
        at += extent.length;
    }
    if (held.length && !result)
        map_line(args, start, &held, held_depth, &first);
    if (args->json)
        printf("%s]\n", first ? "[" : "");
    image_close(image);
    return result ? err_errno(-result, "'%s': cannot read its map", args->word[0]) : NULL;
}

static void say(void *opaque, const char *line)
{
    (void)opaque;
    fprintf(stderr, "%s\n", line);
}

static json_t *check_json(const char *path, const char *format, const struct image_check *check)
{
    json_t *json =
        json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "format", format, "check-errors",
                  (json_int_t)check->errors, "image-end-offset", (json_int_t)check->end_offset,
                  "total-clusters", (json_int_t)check->total_clusters, "allocated-clusters",
                  (json_int_t)check->allocated_clusters, "fragmented-clusters",
                  (json_int_t)check->fragmented_clusters, "compressed-clusters",
                  (json_int_t)check->compressed_clusters, "leaks", (json_int_t)check->leaks);
    json_object_set_new(json, "corruptions", json_integer((json_int_t)check->corruptions));
    json_object_set_new(json, "leaks-fixed", json_integer((json_int_t)check->leaks_fixed));
    json_object_set_new(json, "corruptions-fixed",
                        json_integer((json_int_t)check->corruptions_fixed));
    json_object_set_new(json, "filename", text_json(path));
    return json;
}

static void check_text(const struct image_check *check)
{
    if (check->leaks_fixed || check->corruptions_fixed)
        printf("Repaired: %llu leaked clusters, %llu corruptions.\n",
               (unsigned long long)check->leaks_fixed,
               (unsigned long long)check->corruptions_fixed);
    if (check->corruptions)
        printf("%llu corruptions were found: data may be lost.\n",
               (unsigned long long)check->corruptions);
    if (check->leaks)
        printf("%llu leaked clusters were found: they waste space and harm nothing.\n",
               (unsigned long long)check->leaks);
    if (check->errors)
        printf("%llu places could not be checked.\n", (unsigned long long)check->errors);
    if (!check->corruptions && !check->leaks && !check->errors)
        printf("No errors were found on the image.\n");
    if (check->total_clusters)
        printf("%llu/%llu = %.2f%% allocated, %.2f%% compressed clusters\n",
               (unsigned long long)check->allocated_clusters,
               (unsigned long long)check->total_clusters,
               100.0 * (double)check->allocated_clusters / (double)check->total_clusters,
               check->allocated_clusters
                   ? 100.0 * (double)check->compressed_clusters / (double)check->allocated_clusters
                   : 0.0);
    if (check->end_offset)
        printf("Image end offset: %llu\n", (unsigned long long)check->end_offset);
}

struct err *image_check_run(const struct image_args *args, int *status)
{
    const char *path = args->word[0];
    struct image *image;
    struct image_check check = {.say = args->quiet ? NULL : say};
    unsigned flags = IMAGE_OPEN_CHECK | (args->repair ? IMAGE_OPEN_WRITABLE : 0);
    struct err *err = NULL;
    TRY(image_open_one(args, path, args->format, flags, &image));
    if (args->repair == REPAIR_LEAKS) { /* only when there is nothing worse */
        struct image_check look = {0};
        err = image_check(image, false, &look);
        if (!err && (look.corruptions || look.errors)) {
            image_check(image, false, &check);
            err = err_new("it has corruptions: copy it first, then use --repair=all");
        }
    }
    if (!err)
        err = image_check(image, args->repair != REPAIR_NONE, &check);
    const char *format = image_driver_name(image_driver(image));
    int result = image_close(image);
    if (!err && result)
        err = err_errno(-result, "cannot write what was repaired");
    TRY(err_wrap(err, "'%s'", path));
    *status = check.errors ? 1 : check.corruptions ? 2 : check.leaks ? 3 : 0;
    if (args->json)
        return print_json(check_json(path, format, &check));
    if (!args->quiet)
        check_text(&check);
    return NULL;
}
