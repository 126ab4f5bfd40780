/*
 * What ATA disks and ATAPI drives say of themselves: IDENTIFY data (ACS-3, 7.12 and 7.13), general
 * purpose logs (ACS-3, annex A), SMART data (ATA8-ACS, 7.52.6).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "hw/disk/ahci_internal.h"

#define FIRMWARE "1.0"
#define MODEL_DISK "TENON DISK"
#define MODEL_OPTICAL "TENON DVD-ROM"
#define LBA28_MAX 0x0fffffffull

#define LOG_DIRECTORY 0x00
#define LOG_SUMMARY 0x01 /* errors, SMART */
#define LOG_SELF_TEST 0x06
#define LOG_QUEUED_ERROR 0x10

static void put_word(uint8_t *out, unsigned word, unsigned value)
{
    put_le16(out + 2 * word, (uint16_t)value);
}

/* Padded with spaces, the first character of each word in its high byte. */
static void put_text(uint8_t *out, unsigned word, unsigned words, const char *text)
{
    size_t length = strlen(text);
    for (unsigned i = 0; i < 2 * words; i++)
        out[2 * word + (i ^ 1)] = i < length ? (uint8_t)text[i] : ' ';
}

/* The last byte makes the sum of all 512 zero. */
static void put_checksum(uint8_t out[ATA_SECTOR])
{
    uint8_t sum = 0;
    for (unsigned i = 0; i < ATA_SECTOR - 1; i++)
        sum = (uint8_t)(sum + out[i]);
    out[ATA_SECTOR - 1] = (uint8_t)-sum;
}

/* What disks and optical drives have alike. */
static void identify_common(const struct ahci_port *port, const char *model, uint8_t *out)
{
    uint8_t mode = port->disk.transfer_mode;
    memset(out, 0, ATA_SECTOR);
    put_text(out, 10, 10, port->serial_text);
    put_text(out, 23, 4, FIRMWARE);
    put_text(out, 27, 20, model);
    put_word(out, 53, 0x0006); /* words 64 to 70 and 88 are valid */
    put_word(out, 63, 0x0007 | (mode >> 3 == 4 ? 0x100u << (mode & 7) : 0));
    put_word(out, 64, 0x0003);
    for (unsigned word = 65; word <= 68; word++)
        put_word(out, word, 120);
    put_word(out, 80, 0x01f0); /* ATA/ATAPI-4 to ATA8-ACS */
    put_word(out, 88, 0x003f | (mode >> 3 == 8 ? 0x100u << (mode & 7) : 0));
    put_word(out, 222, 0x107f); /* serial, all revisions up to 3.1 */
}

static void put_sectors(const struct block_info *info, uint8_t *out)
{
    uint64_t sectors = info->size / info->logical_block;
    unsigned physical = (unsigned)__builtin_ctz(MAX(info->physical_block, info->logical_block) /
                                                info->logical_block);
    put_le32(out + 2 * 60, (uint32_t)MIN(sectors, LBA28_MAX));
    put_le64(out + 2 * 100, sectors);
    put_word(out, 106,
             0x4000 | (physical ? 0x2000 | physical : 0) |
                 (info->logical_block > ATA_SECTOR ? 0x1000 : 0));
    if (info->logical_block > ATA_SECTOR)
        put_le32(out + 2 * 117, info->logical_block / 2);
}

void ata_identify_disk(const struct ahci_port *port, uint8_t out[ATA_SECTOR])
{
    const struct ata_disk *disk = &port->disk;
    identify_common(port, MODEL_DISK, out);
    put_word(out, 0, 0x0040);
    put_word(out, 1, 16383); /* the geometry of every disk that is too large for one */
    put_word(out, 3, 16);
    put_word(out, 6, 63);
    put_word(out, 47, 0x8010); /* sectors of a READ MULTIPLE */
    put_word(out, 49, 0x2f00); /* LBA, DMA, IORDY, standard timers */
    put_word(out, 50, 0x4000);
    put_word(out, 59, disk->multiple ? 0x100u | disk->multiple : 0);
    put_sectors(&disk->info, out);
    put_word(out, 75, AHCI_SLOTS - 1);
    put_word(out, 76, 0x0106); /* NCQ, 1.5 and 3 Gbit/s */
    put_word(out, 82, 0x0061); /* look-ahead, write cache, SMART */
    put_word(out, 83, 0x7400); /* FLUSH CACHE (EXT), 48-bit addresses */
    put_word(out, 84, 0x4061); /* WRITE FUA, logs, SMART errors */
    put_word(out, 85, 0x0040u | (disk->write_cache ? 0x20 : 0) | disk->smart);
    put_word(out, 86, 0x3400);
    put_word(out, 87, 0x4061);
    if (disk->info.discard) {
        put_word(out, 105, ATA_LIST_SIZE / ATA_SECTOR);
        put_word(out, 169, 1);
    }
    put_word(out, 217, 1); /* does not rotate */
    out[510] = 0xa5;
    put_checksum(out);
}

void ata_identify_optical(const struct ahci_port *port, uint8_t out[ATA_SECTOR])
{
    identify_common(port, MODEL_OPTICAL, out);
    put_word(out, 0, 0x85c0);  /* ATAPI, CD or DVD, removable, packets of 12 bytes */
    put_word(out, 49, 0x0b00); /* LBA, DMA, IORDY */
    put_word(out, 76, 0x0006);
    put_word(out, 82, 0x4210); /* NOP, DEVICE RESET, PACKET */
    put_word(out, 83, 0x4000);
    put_word(out, 84, 0x4000);
    put_word(out, 85, 0x4210);
    put_word(out, 87, 0x4000);
    out[510] = 0xa5;
    put_checksum(out);
}

/* The queued command that failed; reading it ends the failure. */
static void queued_error(struct ata_disk *disk, uint8_t *out)
{
    out[0] = 0x80; /* no queued command */
    if (disk->failed) {
        out[0] = disk->failed_tag;
        out[2] = disk->failed_status;
        out[3] = disk->failed_error;
        put_le32(out + 4, (uint32_t)(disk->failed_lba & 0xffffff) | 0x40000000);
        put_le32(out + 8, (uint32_t)(disk->failed_lba >> 24 & 0xffffff));
    }
    disk->failed = false;
    put_checksum(out);
}

bool ata_log_page(struct ahci_port *port, uint8_t log, uint16_t page, uint8_t out[ATA_SECTOR])
{
    memset(out, 0, ATA_SECTOR);
    if (page)
        return false;
    switch (log) {
    case LOG_DIRECTORY:
        put_le16(out, 1);
        put_le16(out + 2 * LOG_SUMMARY, 1);
        put_le16(out + 2 * LOG_SELF_TEST, 1);
        put_le16(out + 2 * LOG_QUEUED_ERROR, 1);
        return true;
    case LOG_SUMMARY: /* no error has been kept, no test was run */
    case LOG_SELF_TEST:
        out[0] = 1;
        put_checksum(out);
        return true;
    case LOG_QUEUED_ERROR:
        queued_error(&port->disk, out);
        return true;
    }
    return false;
}

/* One attribute of 12 bytes. */
static void put_attribute(uint8_t *at, uint8_t id, uint16_t flags, uint32_t raw)
{
    at[0] = id;
    put_le16(at + 1, flags);
    at[3] = at[4] = 100;
    put_le32(at + 5, raw);
}

void ata_smart_data(const struct ahci_port *port, bool thresholds, uint8_t out[ATA_SECTOR])
{
    static const uint8_t ids[] = {0x01, 0x05, 0x0c, 0xc4};
    memset(out, 0, ATA_SECTOR);
    put_le16(out, 0x0010);
    for (unsigned i = 0; i < ARRAY_SIZE(ids); i++) {
        uint8_t *at = out + 2 + 12 * i;
        if (thresholds)
            at[0] = ids[i];
        else /* errors, moved sectors and their number never count up: the host's disk knows */
            put_attribute(at, ids[i], 0x0003, ids[i] == 0x0c ? 1 : 0);
    }
    if (!thresholds) {
        out[362] = 0x02;             /* off-line data: never collected */
        put_le16(out + 368, 0x0003); /* saved, and by itself */
        out[370] = 0x01;             /* logs */
    }
    put_checksum(out);
}
