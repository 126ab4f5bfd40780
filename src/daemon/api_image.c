/*
 * REST: the images of the pool.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/api.h"

/* Is one of the VM's disks this file? */
static bool uses(const struct instance *vm, const struct stat *file)
{
    const json_t *disks = json_object_get(vm->config, "disks");

    for (size_t i = 0; i < json_array_size(disks); i++) {
        const char *path = json_string_value(json_object_get(json_array_get(disks, i), "path"));
        struct stat status;
        if (path && stat(path, &status) == 0 && status.st_dev == file->st_dev &&
            status.st_ino == file->st_ino)
            return true;
    }
    return false;
}

/*
 * The image as the caller sees it; NULL: not at all. Who may see some VMs alone sees their disks
 * alone.
 */
static json_t *describe(const struct api_call *call, const char *name)
{
    const struct fleet *fleet = call->daemon->fleet;
    json_t *users = json_array();
    struct instance *vm;
    struct stat status;

    if (pool_has(&call->daemon->pool, name, &status)) {
        list_for_each (vm, &fleet->instances, link)
            if (identity_sees(&call->who, vm->name) && uses(vm, &status))
                json_array_append_new(users, json_string(vm->name));
    }
    json_t *json = NULL;
    if (!call->who.vms || json_array_size(users))
        json = pool_describe(&call->daemon->pool, name);
    if (json)
        json_object_set(json, "used_by", users);
    json_decref(users);
    return json;
}

struct listing {
    struct api_call *call;
    json_t *list;
};

static void add_image(void *opaque, const char *name)
{
    const struct listing *listing = opaque;
    json_t *image = describe(listing->call, name);

    if (image)
        json_array_append_new(listing->list, image);
}

static struct err *list_images(struct api_call *call)
{
    struct listing listing = {call, json_array()};

    pool_each(&call->daemon->pool, add_image, &listing);
    api_answer(call, json_pack("{s:o}", "images", listing.list));
    return NULL;
}

static struct err *get_image(struct api_call *call)
{
    json_t *image = describe(call, call->argument[0]);

    if (image)
        api_answer(call, image);
    else
        api_answer_error(call, 404, err_new("there is no image '%.64s'", call->argument[0]));
    return NULL;
}

/* The pool is everybody's. */
static struct err *check_scope(const struct api_call *call)
{
    return call->who.vms
               ? err_of(ERR_DENIED, "%s may not change what is for all VMs", call->who.name)
               : NULL;
}

static struct err *create_image(struct api_call *call)
{
    const struct pool_image image = {
        .name = json_string_value(json_object_get(call->body, "name")),
        .format = json_string_value(json_object_get(call->body, "format")),
        .size = (uint64_t)json_integer_value(json_object_get(call->body, "size")),
        .backing = json_string_value(json_object_get(call->body, "backing")),
    };

    call->target = xstrdup(image.name);
    TRY(check_scope(call));
    TRY(pool_create(&call->daemon->pool, &image));
    events_publish(call->daemon->events, "image.created", NULL,
                   json_pack("{s:s}", "name", image.name));
    api_answer(call, describe(call, image.name));
    return NULL;
}

static struct err *delete_image(struct api_call *call)
{
    const char *name = call->argument[0];

    TRY(check_scope(call));
    json_t *image = describe(call, name);
    if (!image) {
        api_answer_error(call, 404, err_new("there is no image '%.64s'", name));
        return NULL;
    }
    const char *user = json_string_value(json_array_get(json_object_get(image, "used_by"), 0));
    struct err *err = user ? err_of(ERR_BUSY, "image '%s' is a disk of VM '%s'", name, user)
                           : pool_delete(&call->daemon->pool, name);
    json_decref(image);
    TRY(err);
    events_publish(call->daemon->events, "image.deleted", NULL, json_pack("{s:s}", "name", name));
    api_answer_nothing(call);
    return NULL;
}

const struct api_handler api_image_handlers[] = {
    {"listImages", list_images},
    {"createImage", create_image},
    {"getImage", get_image},
    {"deleteImage", delete_image},
    {NULL, NULL},
};
