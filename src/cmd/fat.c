/*
 * FAT file systems. See fat.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/fat.h"

#include <string.h>

#include "base/bytes.h"

#define SECTOR_MIN 512u
#define SECTOR_MAX 4096u
#define ENTRY_SIZE 32u
#define ENTRIES_MAX 4096u /* of a folder: more are not looked at */
#define ATTRIBUTE_FOLDER 0x10
#define ATTRIBUTE_VOLUME 0x08 /* also of the parts of a long name */

/* The boot sector. */
enum {
    BPB_SECTOR_SIZE = 11,
    BPB_CLUSTER_SECTORS = 13,
    BPB_RESERVED = 14,
    BPB_TABLES = 16,
    BPB_ROOT_ENTRIES = 17,
    BPB_TOTAL16 = 19,
    BPB_TABLE_SIZE16 = 22,
    BPB_TOTAL32 = 32,
    BPB_TABLE_SIZE32 = 36,
    BPB_ROOT_CLUSTER = 44,
    BPB_SIGNATURE = 510,
};

static bool is_power_of_two(uint32_t value)
{
    return value && !(value & (value - 1));
}

bool fat_open(struct fat *fat, struct image *image, uint64_t at)
{
    uint8_t boot[SECTOR_MIN];

    if (image_read(image, boot, at, sizeof(boot)) || get_le16(boot + BPB_SIGNATURE) != 0xaa55)
        return false;
    uint32_t sector = get_le16(boot + BPB_SECTOR_SIZE), reserved = get_le16(boot + BPB_RESERVED);
    uint32_t per_cluster = boot[BPB_CLUSTER_SECTORS], entries = get_le16(boot + BPB_ROOT_ENTRIES);
    uint64_t total = get_le16(boot + BPB_TOTAL16), table = get_le16(boot + BPB_TABLE_SIZE16);
    total = total ? total : get_le32(boot + BPB_TOTAL32);
    table = table ? table : get_le32(boot + BPB_TABLE_SIZE32);
    if (!is_power_of_two(sector) || sector < SECTOR_MIN || sector > SECTOR_MAX || !reserved ||
        !is_power_of_two(per_cluster) || !table)
        return false;
    uint64_t root = reserved + boot[BPB_TABLES] * table;
    uint64_t data = root + (entries * ENTRY_SIZE + sector - 1) / sector;
    if (data >= total)
        return false;
    *fat = (struct fat){
        .image = image,
        .table_at = at + (uint64_t)reserved * sector,
        .root_at = at + root * sector,
        .data_at = at + data * sector,
        .cluster_size = per_cluster * sector,
        .cluster_count = (uint32_t)((total - data) / per_cluster),
        .root_entries = entries,
        .root_cluster = get_le32(boot + BPB_ROOT_CLUSTER),
    };
    fat->bits = fat->cluster_count < 4085 ? 12 : fat->cluster_count < 65525 ? 16 : 32;
    return true;
}

struct fat_folder fat_root(const struct fat *fat)
{
    return (struct fat_folder){.root = true, .cluster = fat->bits == 32 ? fat->root_cluster : 0};
}

static bool is_cluster(const struct fat *fat, uint32_t cluster)
{
    return cluster >= 2 && cluster - 2 < fat->cluster_count;
}

/* The cluster behind this one in its chain; 0: there is none. */
static uint32_t next_cluster(const struct fat *fat, uint32_t cluster)
{
    uint8_t raw[4] = {0};
    uint64_t at = fat->table_at + (uint64_t)cluster * fat->bits / 8;

    if (image_read(fat->image, raw, at, fat->bits == 32 ? 4 : 2))
        return 0;
    uint32_t value = get_le32(raw) & 0x0fffffff;
    if (fat->bits == 12)
        value = (cluster & 1 ? value >> 4 : value) & 0xfff;
    return is_cluster(fat, value) ? value : 0;
}

/* Where entry `index` of a folder is; `cluster` goes along. 0: behind the end. */
static uint64_t entry_at(const struct fat *fat, struct fat_folder in, uint32_t index,
                         uint32_t *cluster)
{
    uint32_t per_cluster = fat->cluster_size / ENTRY_SIZE;

    if (in.root && fat->bits != 32)
        return index < fat->root_entries ? fat->root_at + (uint64_t)index * ENTRY_SIZE : 0;
    if (index && index % per_cluster == 0)
        *cluster = next_cluster(fat, *cluster);
    if (!is_cluster(fat, *cluster))
        return 0;
    return fat->data_at + (uint64_t)(*cluster - 2) * fat->cluster_size +
           index % per_cluster * ENTRY_SIZE;
}

bool fat_find(const struct fat *fat, struct fat_folder in, const char name[FAT_NAME],
              struct fat_folder *found)
{
    uint32_t cluster = in.cluster;

    for (uint32_t i = 0; i < ENTRIES_MAX; i++) {
        uint8_t entry[ENTRY_SIZE];
        uint64_t at = entry_at(fat, in, i, &cluster);

        if (!at || image_read(fat->image, entry, at, sizeof(entry)) || !entry[0])
            return false;
        if (entry[11] & ATTRIBUTE_VOLUME || memcmp(entry, name, FAT_NAME))
            continue;
        if (!found)
            return true;
        *found = (struct fat_folder){.cluster = (uint32_t)get_le16(entry + 20) << 16 |
                                                get_le16(entry + 26)};
        return entry[11] & ATTRIBUTE_FOLDER;
    }
    return false;
}
