/*
 * What is on an image for firmware to start: GUID partition table (UEFI 2.10, 5.3), boot programs
 * of removable media (3.5.1.1), El Torito (Bootable CD-ROM Format 1.0).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/boot_media.h"

#include <string.h>

#include "base/bytes.h"
#include "cmd/fat.h"

#define GPT_ENTRIES_AT 72
#define GPT_ENTRY_COUNT 80
#define GPT_ENTRY_SIZE 84
#define GPT_ENTRIES_MAX 128
#define GPT_ENTRY_FIRST 32

#define DISC_SECTOR 2048u
#define DISC_BOOT_RECORD_AT (17 * DISC_SECTOR)
#define DISC_CATALOG_AT 71
#define CATALOG_ENTRY 32u
#define CATALOG_BOOTABLE 0x88
#define CATALOG_SECTION 0x90
#define CATALOG_LAST_SECTION 0x91
#define PLATFORM_PC 0x00
#define PLATFORM_EFI 0xef

static const uint8_t esp_type[16] = {0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11,
                                     0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b};

/* The short names; that of BOOTRISCV64.EFI is what file systems make of the long one. */
static const struct {
    char name[FAT_NAME + 1];
    const char *architecture; /* NULL: one of ours */
} programs[] = {
    {"BOOTX64 EFI", NULL},         {"BOOTIA32EFI", NULL},     {"BOOTAA64EFI", "arm64"},
    {"BOOTARM EFI", "32-bit ARM"}, {"BOOTRI~1EFI", "RISC-V"},
};

/* The first architecture that has a boot program, if none of ours has. */
static const char *foreign_programs(struct image *image, uint64_t at)
{
    struct fat fat;
    struct fat_folder efi, boot;

    if (!fat_open(&fat, image, at) || !fat_find(&fat, fat_root(&fat), "EFI        ", &efi) ||
        !fat_find(&fat, efi, "BOOT       ", &boot))
        return NULL;
    for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
        if (fat_find(&fat, boot, programs[i].name, NULL))
            return programs[i].architecture;
    }
    return NULL;
}

/* Byte offset of the EFI system partition; 0: there is none. */
static uint64_t find_esp(struct image *image)
{
    uint8_t header[IMAGE_SECTOR], entry[128];

    if (image_read(image, header, IMAGE_SECTOR, sizeof(header)) || memcmp(header, "EFI PART", 8))
        return 0;
    uint64_t at = get_le64(header + GPT_ENTRIES_AT), sectors = image_size(image) / IMAGE_SECTOR;
    uint32_t count = MIN(get_le32(header + GPT_ENTRY_COUNT), (uint32_t)GPT_ENTRIES_MAX);
    uint32_t size = get_le32(header + GPT_ENTRY_SIZE);
    if (size < sizeof(entry) || size > 4096 || at > sectors)
        return 0;
    for (uint32_t i = 0; i < count; i++) {
        if (image_read(image, entry, at * IMAGE_SECTOR + (uint64_t)i * size, sizeof(entry)))
            return 0;
        uint64_t first = get_le64(entry + GPT_ENTRY_FIRST);
        if (!memcmp(entry, esp_type, sizeof(esp_type)) && first < sectors)
            return first * IMAGE_SECTOR;
    }
    return 0;
}

/* A disc that starts on a PC in any way is one of ours. */
static const char *foreign_disc(struct image *image)
{
    uint8_t sector[DISC_SECTOR];
    const char *foreign = NULL;

    if (image_read(image, sector, DISC_BOOT_RECORD_AT, sizeof(sector)) ||
        memcmp(sector + 7, "EL TORITO SPECIFICATION", 23) ||
        image_read(image, sector, (uint64_t)get_le32(sector + DISC_CATALOG_AT) * DISC_SECTOR,
                   sizeof(sector)) ||
        sector[0] != 1)
        return NULL;
    uint8_t platform = sector[1]; /* of the entries that follow */
    for (uint32_t at = CATALOG_ENTRY; at < DISC_SECTOR; at += CATALOG_ENTRY) {
        const uint8_t *entry = sector + at;

        if (entry[0] == CATALOG_SECTION || entry[0] == CATALOG_LAST_SECTION)
            platform = entry[1];
        if (entry[0] != CATALOG_BOOTABLE)
            continue;
        if (platform == PLATFORM_EFI)
            foreign = foreign_programs(image, (uint64_t)get_le32(entry + 8) * DISC_SECTOR);
        if (platform == PLATFORM_PC || (platform == PLATFORM_EFI && !foreign))
            return NULL;
    }
    return foreign;
}

void boot_media_look(struct image *image, struct boot_media *media)
{
    uint64_t esp = find_esp(image);

    media->esp = esp;
    media->foreign = foreign_disc(image);
    if (!media->foreign && esp)
        media->foreign = foreign_programs(image, esp);
}

struct err *boot_media_check(const struct boot_media *media, const char *path)
{
    if (!media->foreign)
        return NULL;
    return err_new("'%s' boots on %s only: its EFI boot programs are for no x86 processor: fetch "
                   "the image for amd64 (x86-64)",
                   path, media->foreign);
}
