/*
 * Optical drives (MMC-5): a read-only disc of one data track, or none, in a drive with a tray.
 *
 * The tray belongs to both sides: the guest moves and locks it, and so does whoever runs the
 * machine. What changes meanwhile the guest learns by unit attention and by media events.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "hw/disk/scsi_internal.h"

#define SECTOR 2048u
#define PRODUCT "DVD-ROM         "
#define PREGAP 150u /* sectors before address 0, in minutes:seconds:frames */
#define CD_SECTORS_MAX (80u * 60 * 75)
#define LEAD_OUT 0xaa
#define TOC_MSF 0x02
#define START_STOP_START 0x01
#define START_STOP_TRAY 0x02 /* the tray moves */
#define DATA_TRACK 0x14      /* ADR 1, a data track */

enum profile { PROFILE_NONE = 0x0000, PROFILE_CD_ROM = 0x0008, PROFILE_DVD_ROM = 0x0010 };

enum mode_page { MODE_ERROR_RECOVERY = 0x01, MODE_CAPABILITIES = 0x2a, MODE_ALL = 0x3f };

/* --- the drive --- */

static void read_info(struct scsi_unit *unit)
{
    block_get_info(unit->block, &unit->info);
    unit->info.logical_block = unit->info.physical_block = SECTOR;
    unit->info.size = ALIGN_DOWN(unit->info.size, (uint64_t)SECTOR);
    unit->info.readonly = true;
    unit->info.discard = unit->info.write_cache = false;
}

void scsi_optical_init(struct scsi_unit *unit)
{
    read_info(unit);
    unit->tray_open = false;
}

bool scsi_unit_ready(const struct scsi_unit *unit)
{
    return unit->info.size && !unit->tray_open;
}

void scsi_unit_medium_changed(struct scsi_unit *unit, bool tray_open)
{
    bool was_ready = scsi_unit_ready(unit);
    read_info(unit);
    unit->tray_open = tray_open;
    if (scsi_unit_ready(unit)) {
        unit->attention = SCSI_ASC_MEDIUM_CHANGED;
        unit->event = SCSI_MEDIA_NEW;
    } else if (was_ready) {
        unit->event = SCSI_MEDIA_REMOVED;
    }
    if (tray_open)
        unit->locked = false;
}

void scsi_unit_request_eject(struct scsi_unit *unit)
{
    unit->event = SCSI_MEDIA_EJECT_REQUEST;
}

static uint32_t sectors_of(const struct scsi_unit *unit)
{
    return (uint32_t)MIN(unit->info.size / SECTOR, (uint64_t)UINT32_MAX);
}

static enum profile profile_of(const struct scsi_unit *unit)
{
    if (!scsi_unit_ready(unit))
        return PROFILE_NONE;
    return sectors_of(unit) > CD_SECTORS_MAX ? PROFILE_DVD_ROM : PROFILE_CD_ROM;
}

void scsi_optical_inquiry(struct scsi_task *task)
{
    uint8_t *at = task->scratch;
    if (task->cdb[1] & 1 || task->cdb[2]) { /* no vital product data */
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
        return;
    }
    memset(at, 0, 36);
    at[0] = 0x05;
    at[1] = 0x80; /* the medium can be removed */
    at[2] = 0x05; /* SPC-3 */
    at[3] = 0x02;
    at[4] = 36 - 5;
    memcpy(at + 8, SCSI_VENDOR PRODUCT SCSI_REVISION, 28);
    scsi_task_answer(task, 36, get_be16(task->cdb + 3));
}

/* --- the tray --- */

static void move_tray(struct scsi_unit *unit, bool open)
{
    if (unit->tray_open == open)
        return;
    unit->tray_open = open;
    unit->event = open ? SCSI_MEDIA_REMOVED : SCSI_MEDIA_NOTHING;
    if (scsi_unit_ready(unit)) {
        unit->attention = SCSI_ASC_MEDIUM_CHANGED;
        unit->event = SCSI_MEDIA_NEW;
    }
    if (unit->tray_moved)
        unit->tray_moved(unit->opaque, open);
}

static void start_stop(struct scsi_task *task)
{
    struct scsi_unit *unit = task->unit;
    bool start = task->cdb[4] & START_STOP_START, moves = task->cdb[4] & START_STOP_TRAY;
    if (moves && !start && unit->locked) {
        scsi_task_illegal(task, SCSI_ASC_REMOVAL_PREVENTED);
        return;
    }
    if (moves && !(task->cdb[4] >> 4)) /* not a change of power state */
        move_tray(unit, !start);
    scsi_task_good(task);
}

static void prevent_removal(struct scsi_task *task)
{
    task->unit->locked = task->cdb[4] & 1;
    scsi_task_good(task);
}

static void get_event_status(struct scsi_task *task)
{
    struct scsi_unit *unit = task->unit;
    uint8_t *at = task->scratch;
    bool media = task->cdb[4] & 1u << 4;
    if (!(task->cdb[1] & 1)) { /* only polled */
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
        return;
    }
    memset(at, 0, 8);
    at[3] = 1u << 4; /* the classes that there are */
    if (media) {
        at[1] = 6;
        at[2] = 4;
        at[4] = unit->event;
        at[5] = (uint8_t)((unit->info.size ? 2 : 0) | unit->tray_open);
        unit->event = SCSI_MEDIA_NOTHING;
    } else {
        at[1] = 2;
        at[2] = 0x80;
    }
    scsi_task_answer(task, media ? 8 : 4, get_be16(task->cdb + 7));
}

static void mechanism_status(struct scsi_task *task)
{
    memset(task->scratch, 0, 8);
    task->scratch[1] = task->unit->tray_open ? 0x10 : 0;
    scsi_task_answer(task, 8, get_be16(task->cdb + 8));
}

/* --- the disc --- */

/* An address in a table of contents. */
static void put_address(uint8_t *at, uint32_t sector, bool msf)
{
    if (!msf) {
        put_be32(at, sector);
        return;
    }
    sector += PREGAP;
    at[0] = 0;
    at[1] = (uint8_t)MIN(sector / 75 / 60, 255u);
    at[2] = (uint8_t)(sector / 75 % 60);
    at[3] = (uint8_t)(sector % 75);
}

static unsigned put_track(uint8_t *at, unsigned number, uint32_t sector, bool msf)
{
    memset(at, 0, 8);
    at[1] = DATA_TRACK;
    at[2] = (uint8_t)number;
    put_address(at + 4, sector, msf);
    return 8;
}

static void read_toc(struct scsi_task *task)
{
    uint8_t *at = task->scratch, format = task->cdb[2] & 0x0f, from = task->cdb[6];
    bool msf = task->cdb[1] & TOC_MSF;
    unsigned length = 4;
    if (!format) /* before MMC-2 it was in the last byte */
        format = task->cdb[9] >> 6;
    if (format > 1 || (!format && from > 1 && from != LEAD_OUT)) {
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
        return;
    }
    at[2] = at[3] = 1; /* first and last track, or session */
    if (format == 1 || from <= 1)
        length += put_track(at + length, 1, 0, msf);
    if (format == 0)
        length += put_track(at + length, LEAD_OUT, sectors_of(task->unit), msf);
    put_be16(at, (uint16_t)(length - 2));
    scsi_task_answer(task, length, get_be16(task->cdb + 7));
}

static void read_disc_information(struct scsi_task *task)
{
    uint8_t *at = task->scratch;
    memset(at, 0, 34);
    put_be16(at, 32);
    at[2] = 0x0e; /* the last session is complete, so is the disc */
    at[3] = at[4] = at[5] = at[6] = 1;
    at[7] = 0x20; /* for unrestricted use */
    memset(at + 16, 0xff, 8);
    scsi_task_answer(task, 34, get_be16(task->cdb + 7));
}

static void read_track_information(struct scsi_task *task)
{
    uint8_t *at = task->scratch;
    memset(at, 0, 36);
    put_be16(at, 34);
    at[2] = at[3] = 1;
    at[5] = 0x04; /* data */
    at[6] = 0x01; /* in mode 1 */
    put_be32(at + 24, sectors_of(task->unit));
    scsi_task_answer(task, 36, get_be16(task->cdb + 7));
}

static void read_capacity(struct scsi_task *task)
{
    put_be32(task->scratch, sectors_of(task->unit) - 1);
    put_be32(task->scratch + 4, SECTOR);
    scsi_task_answer(task, 8, 8);
}

static void good(struct scsi_task *task)
{
    scsi_task_good(task);
}

/* --- what the drive can --- */

#define FEATURE_CURRENT 0x01
#define FEATURE_PERSISTENT 0x02

static unsigned put_feature(uint8_t *at, unsigned code, unsigned flags, unsigned length)
{
    memset(at, 0, 4 + length);
    put_be16(at, (uint16_t)code);
    at[2] = (uint8_t)flags;
    at[3] = (uint8_t)length;
    return 4 + length;
}

static void put_profile(uint8_t *at, enum profile profile, enum profile current)
{
    put_be16(at, (uint16_t)profile);
    at[2] = profile == current;
    at[3] = 0;
}

/* Feature `code`, or 0 bytes: the drive has none such. */
static unsigned put_feature_of(const struct scsi_unit *unit, unsigned code, uint8_t *at)
{
    enum profile current = profile_of(unit);
    unsigned always = FEATURE_CURRENT | FEATURE_PERSISTENT, length = 0;
    switch (code) {
    case 0x0000: /* profiles */
        length = put_feature(at, code, always, 8);
        put_profile(at + 4, PROFILE_DVD_ROM, current);
        put_profile(at + 8, PROFILE_CD_ROM, current);
        break;
    case 0x0001: /* core */
        length = put_feature(at, code, 2u << 2 | always, 8);
        put_be32(at + 4, 8); /* Serial ATA */
        at[8] = 0x01;
        break;
    case 0x0003: /* removable medium: tray, can be ejected and locked */
        length = put_feature(at, code, always, 4);
        at[4] = 0x29;
        break;
    case 0x0010: /* random reads */
        length = put_feature(at, code, current ? FEATURE_CURRENT : 0, 8);
        put_be32(at + 4, SECTOR);
        put_be16(at + 8, 1);
        break;
    case 0x001e: /* reads CDs */
        length = put_feature(at, code, current == PROFILE_CD_ROM ? FEATURE_CURRENT : 0, 4);
        break;
    case 0x001f: /* reads DVDs */
        length = put_feature(at, code, current == PROFILE_DVD_ROM ? FEATURE_CURRENT : 0, 4);
        break;
    }
    return length;
}

static void get_configuration(struct scsi_task *task)
{
    unsigned type = task->cdb[1] & 3, from = get_be16(task->cdb + 2), length = 8;
    uint8_t *at = task->scratch;
    if (type == 3) {
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
        return;
    }
    memset(at, 0, 8);
    put_be16(at + 6, (uint16_t)profile_of(task->unit));
    for (unsigned code = from; code <= 0x1f; code++) {
        unsigned here = put_feature_of(task->unit, code, at + length);
        if (type != 1 || !here || (at[length + 2] & FEATURE_CURRENT))
            length += here;
        if (type == 2)
            break;
    }
    put_be32(at, length - 4);
    scsi_task_answer(task, length, get_be16(task->cdb + 7));
}

static unsigned put_mode_page(const struct scsi_unit *unit, unsigned page, uint8_t *at)
{
    unsigned length = page == MODE_CAPABILITIES ? 22 : 8;
    memset(at, 0, length);
    at[0] = (uint8_t)page;
    at[1] = (uint8_t)(length - 2);
    if (page == MODE_ERROR_RECOVERY) {
        at[3] = 5; /* tries */
        return length;
    }
    at[2] = 0x08;                                     /* reads DVDs */
    at[6] = (uint8_t)(0x29 | (unit->locked ? 2 : 0)); /* tray, ejects, locks */
    put_be16(at + 8, 8467);                           /* kB/s: 48 times a CD's */
    put_be16(at + 12, 512);                           /* kB of buffer */
    put_be16(at + 14, 8467);
    return length;
}

static void mode_sense(struct scsi_task *task)
{
    static const uint8_t pages[] = {MODE_ERROR_RECOVERY, MODE_CAPABILITIES};
    bool ten = task->cdb[0] == SCSI_MODE_SENSE_10;
    unsigned wanted = task->cdb[2] & 0x3f, header = ten ? 8 : 4, length = header;
    uint8_t *at = task->scratch;
    if (task->cdb[2] >> 6 == 3) {
        scsi_task_illegal(task, SCSI_ASC_SAVING_UNSUPPORTED);
        return;
    }
    memset(at, 0, header);
    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        if (wanted != MODE_ALL && wanted != pages[i])
            continue;
        unsigned here = put_mode_page(task->unit, pages[i], at + length);
        if (task->cdb[2] >> 6 == 1) /* nothing can be changed */
            memset(at + length + 2, 0, here - 2);
        length += here;
    }
    if (length == header) {
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
        return;
    }
    if (ten)
        put_be16(at, (uint16_t)(length - 2));
    else
        at[0] = (uint8_t)(length - 1);
    scsi_task_answer(task, length, ten ? get_be16(task->cdb + 7) : task->cdb[4]);
}

/* --- dispatch --- */

#define ANYTIME 1u /* without a medium, and a unit attention stays */
#define NO_MEDIUM 2u

static const struct {
    uint8_t op, flags;
    void (*run)(struct scsi_task *task);
} commands[] = {
    {SCSI_READ_10, 0, scsi_read_blocks},
    {SCSI_READ_12, 0, scsi_read_blocks},
    {SCSI_TEST_UNIT_READY, 0, good},
    {SCSI_GET_EVENT_STATUS, ANYTIME, get_event_status},
    {SCSI_GET_CONFIGURATION, ANYTIME, get_configuration},
    {SCSI_READ_CAPACITY_10, 0, read_capacity},
    {SCSI_READ_TOC, 0, read_toc},
    {SCSI_READ_DISC_INFORMATION, 0, read_disc_information},
    {SCSI_READ_TRACK_INFORMATION, 0, read_track_information},
    {SCSI_MODE_SENSE_6, NO_MEDIUM, mode_sense},
    {SCSI_MODE_SENSE_10, NO_MEDIUM, mode_sense},
    {SCSI_START_STOP, NO_MEDIUM, start_stop},
    {SCSI_PREVENT_REMOVAL, NO_MEDIUM, prevent_removal},
    {SCSI_MECHANISM_STATUS, NO_MEDIUM, mechanism_status},
    {SCSI_SET_SPEED, NO_MEDIUM, good}, /* as fast as the host, whatever is wished */
    {SCSI_SEEK_10, 0, good},
    {SCSI_SYNC_CACHE_10, 0, good},
};

void scsi_optical_start(struct scsi_task *task)
{
    struct scsi_unit *unit = task->unit;
    unsigned i = 0;
    while (i < ARRAY_SIZE(commands) && commands[i].op != task->cdb[0])
        i++;
    unsigned flags = i < ARRAY_SIZE(commands) ? commands[i].flags : NO_MEDIUM;
    if (unit->attention && !(flags & ANYTIME)) {
        enum scsi_asc why = (enum scsi_asc)unit->attention;
        unit->attention = 0;
        scsi_task_check(task, SCSI_KEY_UNIT_ATTENTION, why);
    } else if (i == ARRAY_SIZE(commands)) {
        scsi_task_illegal(task, SCSI_ASC_INVALID_OPCODE);
    } else if (!flags && !scsi_unit_ready(unit)) {
        scsi_task_check(task, SCSI_KEY_NOT_READY,
                        unit->tray_open ? SCSI_ASC_TRAY_OPEN : SCSI_ASC_NO_MEDIUM);
    } else {
        commands[i].run(task);
    }
}
