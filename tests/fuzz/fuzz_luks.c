/*
 * Fuzz target: LUKS headers and key slots. Iterations are made few, so that unlocking is fast.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dlfcn.h>
#include <string.h>

#include "base/bytes.h"
#include "block/format/luks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t area[300000];
    static void *kept; /* loading it again and again would be most of the work */
    struct luks *luks;
    struct luks_info info;
    if (size < LUKS_HEADER || size > sizeof(area))
        return 0;
    if (!kept)
        kept = dlopen("libcrypto.so.3", RTLD_NOW);
    memset(area, 0, sizeof(area));
    memcpy(area, data, size);
    put_be32(area + 164, get_be32(area + 164) % 3);
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        put_be32(area + 212 + i * 48, get_be32(area + 212 + i * 48) % 3);
    struct err *err = luks_open(area, sizeof(area), &luks);
    if (!err) {
        luks_get_info(luks, &info);
        err = luks_unlock(luks, area, sizeof(area), "key", 3);
        luks_close(luks);
    }
    err_free(err);
    return 0;
}
