/*
 * FAT12, FAT16 and FAT32 file systems (Microsoft FAT Specification, 2005): names in folders, read
 * only, with short names only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_FAT_H
#define TENON_CMD_FAT_H

#include "block/image.h"

#define FAT_NAME 11 /* "BOOTX64 EFI": name and extension, padded with blanks */

struct fat {
    struct image *image;
    uint64_t table_at, root_at, data_at; /* bytes in the image */
    uint32_t cluster_size, cluster_count;
    uint32_t root_entries; /* of FAT12 and FAT16, whose root is no file */
    uint32_t root_cluster; /* of FAT32 */
    unsigned bits;
};

/* A folder of an open file system. */
struct fat_folder {
    bool root;
    uint32_t cluster; /* its first */
};

/* Is there a file system at byte `at` of the image? */
bool fat_open(struct fat *fat, struct image *image, uint64_t at);
struct fat_folder fat_root(const struct fat *fat);
/* Is there this name? `found` (may be NULL) is what a folder of that name is. */
bool fat_find(const struct fat *fat, struct fat_folder in, const char name[FAT_NAME],
              struct fat_folder *found);

#endif
