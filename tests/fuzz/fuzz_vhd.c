/*
 * Fuzz target: VHD files. The checksums of the footer at the beginning and of the dynamic header
 * where it says are made right, so that the fuzzer gets behind them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image_poke.h"

#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/vhd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 + VHD_FOOTER || size >= POKE_FILE_MAX)
        return 0;
    uint8_t *file = malloc(size - 1);
    if (!file)
        return 0;
    memcpy(file, data + 1, size - 1);
    put_be32(file + F_CHECKSUM, vhd_checksum(file, VHD_FOOTER, F_CHECKSUM));
    uint64_t head = get_be64(file + F_DATA_OFFSET);
    if (range_within(head, VHD_HEADER, size - 1))
        put_be32(file + head + D_CHECKSUM, vhd_checksum(file + head, VHD_HEADER, D_CHECKSUM));
    if (data[0] & 8) { /* the footer at the end, as a fixed disk has it */
        uint8_t *last = file + size - 1 - VHD_FOOTER;
        put_be32(last + F_CHECKSUM, vhd_checksum(last, VHD_FOOTER, F_CHECKSUM));
        poke("vpc", file, size - 1, size - 1);
    } else {
        poke("vpc", file, size - 1, MAX((uint64_t)size - 1, MIB(data[0] & 7)));
    }
    free(file);
    return 0;
}
