/*
 * tenon image --image-opts: the few ways in which scripts write an image as driver=...,file....
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "cmd/image/image.h"

static bool one_of(const char *name, const char *const *names)
{
    for (; *names; names++)
        if (!strcmp(*names, name))
            return true;
    return false;
}

struct err *image_opts_parse(struct image_args *args, char **word, const char **format)
{
    static const char *const filenames[] = {"file.filename", "filename", NULL};
    static const char *const secrets[] = {"key-secret", "encrypt.key-secret", NULL};
    static const char *const harmless[] = {"encrypt.format", "cache.direct", "cache.no-flush",
                                           "discard", NULL};
    char *file = NULL, *next = *word;
    while (next) {
        char *name = strsep(&next, ","), *value = strchr(name, '=');
        if (!value)
            return err_of(ERR_USAGE, "--image-opts: '%s' is not NAME=VALUE", name);
        *value++ = 0;
        if (!strcmp(name, "driver") || !strcmp(name, "format"))
            *format = value;
        else if (one_of(name, filenames))
            file = value;
        else if (one_of(name, secrets))
            args->key_secret = value;
        else if (!one_of(name, harmless) && (strcmp(name, "file.driver") || strcmp(value, "file")))
            return err_of(ERR_USAGE,
                          "--image-opts: '%s' is not supported: driver, file.filename and "
                          "key-secret are",
                          name);
    }
    if (!file)
        return err_of(ERR_USAGE, "--image-opts: file.filename is missing");
    *word = file;
    return NULL;
}
