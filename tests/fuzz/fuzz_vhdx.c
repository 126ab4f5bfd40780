/*
 * Fuzz target: VHDX files. The format is spread over megabytes, so the input is pieces: two bytes
 * say where a piece of 512 bytes goes, in units of 512 bytes from the beginning. Checksums of
 * headers, region tables and log entries are made right.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "image_poke.h"

#include <string.h>

#include "base/bytes.h"
#include "block/format/vhdx.h"

#define FILE_BYTES MIB(8)
#define PIECE 512u

static void seal(uint8_t *file, uint64_t at, uint32_t length)
{
    if (length >= 8 && length % VHDX_LOG_SECTOR == 0 && at + length <= FILE_BYTES)
        put_le32(file + at + X_CHECKSUM, vhdx_checksum(file + at, length));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *file = calloc(1, FILE_BYTES);
    if (!file)
        return 0;
    while (size > 2) {
        size_t n = MIN(size - 2, (size_t)PIECE);
        memcpy(file + get_le16(data) % (FILE_BYTES / PIECE) * PIECE, data + 2, n);
        data += 2 + n;
        size -= 2 + n;
    }
    for (uint64_t at = MIB(1); at < MIB(2); at += VHDX_LOG_SECTOR)
        if (!memcmp(file + at, "loge", 4))
            seal(file, at, get_le32(file + at + 8));
    seal(file, VHDX_HEADER_1, VHDX_HEADER_BYTES);
    seal(file, VHDX_HEADER_2, VHDX_HEADER_BYTES);
    seal(file, VHDX_REGIONS_1, VHDX_TABLE_BYTES);
    seal(file, VHDX_REGIONS_2, VHDX_TABLE_BYTES);
    poke("vhdx", file, FILE_BYTES, FILE_BYTES);
    free(file);
    return 0;
}
