/*
 * Shared libraries that are loaded when they are needed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dlfcn.h>
#include <string.h>

#include "base/library.h"

struct err *library_load(const char *file, const char *package, const struct library_symbol *symbol,
                         size_t count, void *table, void **handle)
{
    *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!*handle)
        return err_new("it needs %s, which is not here: install the package %s", file, package);
    for (size_t i = 0; i < count; i++) {
        void *found = dlsym(*handle, symbol[i].name);
        if (!found) {
            library_unload(*handle);
            *handle = NULL;
            return err_new("%s has no %s: install the package %s of Debian 12 or later", file,
                           symbol[i].name, package);
        }
        memcpy((char *)table + symbol[i].offset, &found, sizeof(found));
    }
    return NULL;
}

void library_unload(void *handle)
{
    if (handle)
        dlclose(handle);
}
