/*
 * Fuzz target: VMDK files, sparse ones, streams and descriptors. The first byte is how many
 * megabytes the file has at least; 0: just its bytes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image_poke.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= 1 && size < POKE_FILE_MAX)
        poke("vmdk", data + 1, size - 1, MAX((uint64_t)size - 1, MIB(data[0] & 3)));
    return 0;
}
