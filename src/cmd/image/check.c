/*
 * tenon image check: damage and leaked clusters.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>

#include "cmd/image/image.h"

#define CANNOT_CHECK 63 /* what qemu-img says of formats without checks */

static void say(void *opaque, const char *line)
{
    (void)opaque;
    fprintf(stderr, "%s\n", line);
}

/* As qemu-img prints it: what is nothing is left out. */
static json_t *check_json(const char *path, const char *format, const struct image_check *check)
{
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {
        {"image-end-offset", check->end_offset},
        {"total-clusters", check->total_clusters},
        {"allocated-clusters", check->allocated_clusters},
        {"fragmented-clusters", check->fragmented_clusters},
        {"compressed-clusters", check->compressed_clusters},
        {"leaks", check->leaks},
        {"corruptions", check->corruptions},
        {"leaks-fixed", check->leaks_fixed},
        {"corruptions-fixed", check->corruptions_fixed},
    };
    json_t *json =
        json_pack("{s:s,s:I}", "format", format, "check-errors", (json_int_t)check->errors);
    json_object_set_new(json, "filename", image_text_json(path));
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
        if (counts[i].value)
            json_object_set_new(json, counts[i].name, json_integer((json_int_t)counts[i].value));
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
    if (args->several && !args->json && !args->quiet) {
        printf("image: ");
        image_print_name(path);
        printf("\n");
    }
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
    if (err && err_kind(err) == ERR_USAGE)
        *status = CANNOT_CHECK;
    const char *format = image_driver_name(image_driver(image));
    int result = image_close(image);
    if (!err && result)
        err = err_errno(-result, "cannot write what was repaired");
    TRY(err_wrap(err, "'%s'", path));
    *status = check.errors ? 1 : check.corruptions ? 2 : check.leaks ? 3 : 0;
    if (args->json)
        return image_print_json(check_json(path, format, &check));
    if (!args->quiet)
        check_text(&check);
    return NULL;
}
