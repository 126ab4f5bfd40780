/*
 * ISO 9660 (ECMA-119): one volume descriptor, two path tables, one folder. See iso9660.h.
 *
 * Names are as Linux shows them without extensions: in small letters, without version number.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/iso9660.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

#define BLOCK 2048u
#define DESCRIPTOR_AT 16u /* blocks before it are the system's */
#define TERMINATOR_AT 17u
#define PATHS_LE_AT 18u
#define PATHS_BE_AT 19u
#define FOLDER_AT 20u
#define FILES_AT 21u
#define PATH_TABLE_SIZE 10u
#define RECORD_SIZE 33u /* of a folder's entry, without its name */
#define FLAG_FOLDER 2

/* Numbers are there twice, in both byte orders. */
static void put_both16(uint8_t *at, uint16_t value)
{
    put_le16(at, value);
    put_be16(at + 2, value);
}

static void put_both32(uint8_t *at, uint32_t value)
{
    put_le32(at, value);
    put_be32(at + 4, value);
}

static void put_text(uint8_t *at, size_t size, const char *text)
{
    memset(at, ' ', size);
    memcpy(at, text, MIN(strlen(text), size));
}

static uint32_t blocks_of(size_t bytes)
{
    return (uint32_t)((bytes + BLOCK - 1) / BLOCK);
}

/* An entry of a folder; returns its size. The date is none. */
static unsigned record(uint8_t *at, const char *name, size_t name_len, uint32_t block,
                       uint32_t size, uint8_t flags)
{
    unsigned len = ALIGN_UP(RECORD_SIZE + (unsigned)name_len, 2u);

    at[0] = (uint8_t)len;
    put_both32(at + 2, block);
    put_both32(at + 10, size);
    at[25] = flags;
    put_both16(at + 28, 1); /* volume of the set */
    at[32] = (uint8_t)name_len;
    memcpy(at + RECORD_SIZE, name, name_len);
    return len;
}

static void descriptor(uint8_t *at, const char *label, uint32_t blocks)
{
    at[0] = 1; /* primary */
    memcpy(at + 1, "CD001", 5);
    at[6] = 1;
    put_text(at + 8, 32, "");
    put_text(at + 40, 32, label);
    put_both32(at + 80, blocks);
    put_both16(at + 120, 1); /* volumes in the set, number of this one */
    put_both16(at + 124, 1);
    put_both16(at + 128, BLOCK);
    put_both32(at + 132, PATH_TABLE_SIZE);
    put_le32(at + 140, PATHS_LE_AT);
    put_be32(at + 148, PATHS_BE_AT);
    record(at + 156, "", 1, FOLDER_AT, BLOCK, FLAG_FOLDER);
    put_text(at + 190, 813 - 190, "");
    memset(at + 813, '0', 68); /* four dates of 16 digits and a zone: none */
    at[829] = at[846] = at[863] = at[880] = 0;
    at[881] = 1;
}

static void path_tables(uint8_t *little, uint8_t *big)
{
    little[0] = big[0] = 1; /* length of the root's name */
    put_le32(little + 2, FOLDER_AT);
    put_be32(big + 2, FOLDER_AT);
    put_le16(little + 6, 1); /* its own parent */
    put_be16(big + 6, 1);
}

static void folder(uint8_t *at, const struct iso9660_file *files, unsigned count)
{
    uint32_t block = FILES_AT;

    at += record(at, "\0", 1, FOLDER_AT, BLOCK, FLAG_FOLDER);
    at += record(at, "\1", 1, FOLDER_AT, BLOCK, FLAG_FOLDER);
    for (unsigned i = 0; i < count; i++) {
        char name[32];
        int len = snprintf(name, sizeof(name), "%.28s;1", files[i].name);
        for (char *c = name; *c; c++)
            *c = (char)toupper((unsigned char)*c);
        at += record(at, name, (size_t)len, block, (uint32_t)files[i].len, 0);
        block += blocks_of(files[i].len);
    }
}

void iso9660_write(const char *label, const struct iso9660_file *files, unsigned count,
                   struct buf *out)
{
    uint32_t blocks = FILES_AT;

    count = MIN(count, (unsigned)ISO9660_FILES_MAX);
    for (unsigned i = 0; i < count; i++)
        blocks += blocks_of(files[i].len);
    uint8_t *image = buf_extend(out, (size_t)blocks * BLOCK);
    descriptor(image + DESCRIPTOR_AT * BLOCK, label, blocks);
    memcpy(image + TERMINATOR_AT * BLOCK, "\377CD001\1", 7);
    path_tables(image + PATHS_LE_AT * BLOCK, image + PATHS_BE_AT * BLOCK);
    folder(image + FOLDER_AT * BLOCK, files, count);
    uint8_t *at = image + FILES_AT * BLOCK;
    for (unsigned i = 0; i < count; i++) {
        memcpy(at, files[i].bytes, files[i].len);
        at += (size_t)blocks_of(files[i].len) * BLOCK;
    }
}
