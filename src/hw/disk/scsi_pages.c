/*
 * SCSI disks: what a unit says of itself. INQUIRY with its vital product data, mode pages (SPC-4
 * chapters 6 and 7), capacity (SBC-3 5.15, 5.16) and the list of units.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "hw/disk/scsi_internal.h"

#define PRODUCT "DISK            "
#define NO_UNIT 0x7f /* peripheral qualifier 3, type 1fh: nothing can be here */
#define ACTION_READ_CAPACITY_16 0x10

enum vpd_page {
    VPD_PAGES = 0x00,
    VPD_SERIAL = 0x80,
    VPD_IDENTIFICATION = 0x83,
    VPD_BLOCK_LIMITS = 0xb0,
    VPD_CHARACTERISTICS = 0xb1,
    VPD_PROVISIONING = 0xb2,
};

enum mode_page {
    MODE_ERROR_RECOVERY = 0x01,
    MODE_CACHING = 0x08,
    MODE_CONTROL = 0x0a,
    MODE_ALL = 0x3f,
};
#define MODE_WCE 0x04
#define MODE_WRITE_PROTECT 0x80
#define MODE_DPOFUA 0x10

/* --- INQUIRY --- */

static unsigned standard_inquiry(struct scsi_task *task)
{
    uint8_t *at = task->scratch;
    memset(at, 0, 66);
    at[0] = task->unit ? 0x00 : NO_UNIT;
    at[2] = 0x06; /* SPC-4 */
    at[3] = 0x12; /* hierarchical addresses, the response format that there is */
    at[4] = 66 - 5;
    at[7] = 0x02; /* command queuing */
    memcpy(at + 8, SCSI_VENDOR PRODUCT SCSI_REVISION, 28);
    put_be16(at + 58, 0x0460); /* SPC-4 */
    put_be16(at + 60, 0x04c0); /* SBC-3 */
    return 66;
}

static unsigned page_identification(const struct scsi_unit *unit, uint8_t *at)
{
    unsigned serial = (unsigned)strlen(unit->serial);
    at[0] = 0x02; /* ASCII */
    at[1] = 0x01; /* of this unit, by T10 vendor */
    at[3] = (uint8_t)(8 + serial);
    memcpy(at + 4, SCSI_VENDOR, 8);
    memcpy(at + 12, unit->serial, serial);
    return 12 + serial;
}

static unsigned page_block_limits(const struct scsi_unit *unit, uint8_t *at)
{
    uint32_t block = unit->info.logical_block;
    put_be16(at + 2, (uint16_t)(unit->info.physical_block / block)); /* granularity */
    if (unit->info.discard) {
        put_be32(at + 16, (uint32_t)(SCSI_UNMAP_BYTES_MAX / block));
        put_be32(at + 20, SCSI_UNMAP_DESCRIPTORS_MAX);
        put_be32(at + 24, unit->info.physical_block / block);
    }
    if (!unit->info.readonly)
        put_be64(at + 32, SCSI_SAME_BYTES_MAX / block);
    at[0] = 0x01; /* WRITE SAME of zero blocks is refused */
    return 60;
}

static unsigned page_provisioning(const struct scsi_unit *unit, uint8_t *at)
{
    if (unit->info.discard) {
        at[1] = 0xe0; /* UNMAP, WRITE SAME(16) and (10) with UNMAP */
        at[2] = 0x02; /* thin */
    }
    return 4;
}

/* The body of a page, or -1. */
static int vpd_body(const struct scsi_unit *unit, unsigned page, uint8_t *at)
{
    static const uint8_t pages[] = {VPD_PAGES,        VPD_SERIAL,          VPD_IDENTIFICATION,
                                    VPD_BLOCK_LIMITS, VPD_CHARACTERISTICS, VPD_PROVISIONING};
    memset(at, 0, 64);
    switch ((enum vpd_page)page) {
    case VPD_PAGES:
        memcpy(at, pages, sizeof(pages));
        return sizeof(pages);
    case VPD_SERIAL:
        memcpy(at, unit->serial, strlen(unit->serial));
        return (int)strlen(unit->serial);
    case VPD_IDENTIFICATION:
        return (int)page_identification(unit, at);
    case VPD_BLOCK_LIMITS:
        return (int)page_block_limits(unit, at);
    case VPD_CHARACTERISTICS:
        put_be16(at, 1); /* does not rotate */
        return 60;
    case VPD_PROVISIONING:
        return (int)page_provisioning(unit, at);
    }
    return -1;
}

void scsi_inquiry(struct scsi_task *task)
{
    uint8_t page = task->cdb[2];
    uint64_t allocation = get_be16(task->cdb + 3);
    bool vital = task->cdb[1] & 1;
    int body = -1;
    if (task->unit && task->unit->optical) {
        scsi_optical_inquiry(task);
        return;
    }
    if (!vital && !page) {
        scsi_task_answer(task, standard_inquiry(task), allocation);
        return;
    }
    if (vital && task->unit)
        body = vpd_body(task->unit, page, task->scratch + 4);
    if (body < 0) {
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
        return;
    }
    task->scratch[0] = 0;
    task->scratch[1] = page;
    put_be16(task->scratch + 2, (uint16_t)body);
    scsi_task_answer(task, 4u + (unsigned)body, allocation);
}

/* --- mode pages --- */

/* `changeable`: the bits that MODE SELECT may set, instead of the values. */
static unsigned put_mode_page(const struct scsi_unit *unit, unsigned page, bool changeable,
                              uint8_t *at)
{
    static const uint8_t lengths[] = {
        [MODE_ERROR_RECOVERY] = 12, [MODE_CACHING] = 20, [MODE_CONTROL] = 12};
    unsigned length = lengths[page];
    memset(at, 0, length);
    at[0] = (uint8_t)page;
    at[1] = (uint8_t)(length - 2);
    if (page == MODE_CACHING)
        at[2] = (changeable ? unit->info.write_cache : unit->write_cache) ? MODE_WCE : 0;
    if (page == MODE_ERROR_RECOVERY && !changeable)
        at[2] = 0x80; /* bad blocks are replaced when written */
    if (page == MODE_CONTROL && !changeable)
        at[3] = 0x10; /* commands may be reordered */
    return length;
}

static unsigned put_block_descriptor(const struct scsi_unit *unit, uint8_t *at)
{
    uint64_t blocks = unit->info.size / unit->info.logical_block;
    put_be32(at, (uint32_t)MIN(blocks, (uint64_t)UINT32_MAX));
    put_be32(at + 4, unit->info.logical_block); /* a byte of zeros, then 24 bits */
    return 8;
}

void scsi_mode_sense(struct scsi_task *task)
{
    static const uint8_t pages[] = {MODE_ERROR_RECOVERY, MODE_CACHING, MODE_CONTROL};
    const struct scsi_unit *unit = task->unit;
    bool ten = task->cdb[0] == SCSI_MODE_SENSE_10, described = !(task->cdb[1] & 0x08);
    unsigned wanted = task->cdb[2] & 0x3f, control = task->cdb[2] >> 6, found = 0;
    unsigned header = ten ? 8 : 4, length = header;
    uint8_t *at = task->scratch;
    if (control == 3) {
        scsi_task_illegal(task, SCSI_ASC_SAVING_UNSUPPORTED);
        return;
    }
    memset(at, 0, header);
    if (described)
        length += put_block_descriptor(unit, at + length);
    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        if (wanted != MODE_ALL && wanted != pages[i])
            continue;
        length += put_mode_page(unit, pages[i], control == 1, at + length);
        found++;
    }
    if (!found || (task->cdb[3] && !(wanted == MODE_ALL && task->cdb[3] == 0xff))) {
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
        return;
    }
    uint8_t specific = MODE_DPOFUA | (unit->info.readonly ? MODE_WRITE_PROTECT : 0);
    if (ten) {
        put_be16(at, (uint16_t)(length - 2));
        at[3] = specific;
        put_be16(at + 6, described ? 8 : 0);
    } else {
        at[0] = (uint8_t)(length - 1);
        at[2] = specific;
        at[3] = described ? 8 : 0;
    }
    scsi_task_answer(task, length, ten ? get_be16(task->cdb + 7) : task->cdb[4]);
}

/* One page of a MODE SELECT; only the caching page's WCE may differ from what is. */
static bool take_mode_page(struct scsi_unit *unit, const uint8_t *at, unsigned length)
{
    uint8_t now[32], may[32];
    unsigned page = at[0] & 0x3f;
    if (page != MODE_ERROR_RECOVERY && page != MODE_CACHING && page != MODE_CONTROL)
        return false;
    unsigned expected = put_mode_page(unit, page, false, now);
    put_mode_page(unit, page, true, may);
    if ((at[0] & 0x40) || length != expected)
        return false;
    for (unsigned i = 2; i < length; i++) {
        if ((at[i] ^ now[i]) & ~may[i])
            return false;
    }
    if (page == MODE_CACHING)
        unit->write_cache = !!(at[2] & MODE_WCE);
    return true;
}

void scsi_mode_select(struct scsi_task *task)
{
    bool ten = task->cdb[0] == SCSI_MODE_SELECT_10;
    unsigned header = ten ? 8 : 4;
    uint64_t wanted = ten ? get_be16(task->cdb + 7) : task->cdb[4];
    if (!(task->cdb[1] & 0x10) || (task->cdb[1] & 1)) { /* our page format; no saving */
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
        return;
    }
    uint64_t length = scsi_task_parameters(task, wanted);
    const uint8_t *bytes = task->scratch;
    uint64_t at = header;
    if (length >= header)
        at += ten ? get_be16(bytes + 6) : bytes[3];
    if (wanted && (length < wanted || at > length)) {
        scsi_task_illegal(task, SCSI_ASC_LIST_LENGTH);
        return;
    }
    while (at < length) {
        uint64_t page = at + 2 <= length ? 2u + bytes[at + 1] : length;
        if (page > length - at) {
            scsi_task_illegal(task, SCSI_ASC_LIST_LENGTH);
            return;
        }
        if (!take_mode_page(task->unit, bytes + at, (unsigned)page)) {
            scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_LIST);
            return;
        }
        at += page;
    }
    scsi_task_good(task);
}

/* --- capacity and units --- */

void scsi_read_capacity_10(struct scsi_task *task)
{
    const struct block_info *info = &task->unit->info;
    uint64_t last = info->size / info->logical_block - 1;
    put_be32(task->scratch, (uint32_t)MIN(last, (uint64_t)UINT32_MAX));
    put_be32(task->scratch + 4, info->logical_block);
    scsi_task_answer(task, 8, 8);
}

void scsi_service_action_in(struct scsi_task *task)
{
    const struct block_info *info = &task->unit->info;
    uint8_t *at = task->scratch;
    if ((task->cdb[1] & 0x1f) != ACTION_READ_CAPACITY_16) {
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
        return;
    }
    memset(at, 0, 32);
    put_be64(at, info->size / info->logical_block - 1);
    put_be32(at + 8, info->logical_block);
    at[13] = (uint8_t)__builtin_ctz(info->physical_block / info->logical_block);
    at[14] = info->discard ? 0x80 : 0; /* provisioning is managed */
    scsi_task_answer(task, 32, get_be32(task->cdb + 10));
}

void scsi_report_luns(struct scsi_task *task)
{
    uint32_t allocation = get_be32(task->cdb + 6);
    uint8_t *at = task->scratch;
    unsigned count = task->cdb[2] == 1 ? 0 : task->lun_count; /* 1: well-known units only */
    if (allocation < 16 || task->cdb[2] > 2) {
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
        return;
    }
    memset(at, 0, 8 + 8 * (size_t)count);
    put_be32(at, 8 * count);
    for (unsigned i = 0; i < count; i++)
        put_be16(at + 8 + 8 * (size_t)i, task->luns[i]);
    scsi_task_answer(task, 8 + 8 * (uint64_t)count, allocation);
}
