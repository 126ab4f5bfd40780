/*
 * Variable stores. See variable_store.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "uefi/variable_store.h"

#include <stdlib.h>
#include <time.h>

#include "base/bytes.h"

/* Header of the firmware volume; its 16-bit words sum up to 0. */
#define VOLUME_LENGTH_AT 32
#define VOLUME_SIGNATURE_AT 40
#define VOLUME_HEADER_LENGTH_AT 48
#define VOLUME_HEADER_MIN 56u

/* Header of the store: format's GUID, size with the header, state. */
#define STORE_HEADER 28u
#define STORE_SIZE_AT 16
#define STORE_FORMAT_AT 20
#define STORE_STATE_AT 21
#define STORE_FORMATTED 0x5a
#define STORE_HEALTHY 0xfe

/* Header of a variable; name and contents follow, and up to 3 bytes of padding. */
#define VARIABLE_HEADER 60u
#define VARIABLE_START 0x55aa
#define STATE_AT 2
#define ATTRIBUTES_AT 4
#define TIME_AT 16
#define NAME_SIZE_AT 36
#define DATA_SIZE_AT 40
#define VENDOR_AT 44
/* States lose bits from 0xff on, as flash memory does. */
#define STATE_ADDED 0x3f
#define STATE_IN_TRANSITION 0x3e /* a newer one may be there, or was being written */
#define ERASED 0xff
#define NEVER_WRITTEN 0xffffffffu

#define VARIABLE_MAX 0x8400u /* OVMF's, with header and name */

/* The journal of the firmware's rewriting, behind the variables and an event log. */
#define JOURNAL_AT 0x1000u
#define JOURNAL_HEADER 32u
#define JOURNAL_ENTRY 40u /* of a list of writes, and of a write */
#define JOURNAL_COUNT_AT 24
#define JOURNAL_PRIVATE_AT 32
#define JOURNAL_LISTED 1u /* bits that are clear once it is so */
#define JOURNAL_COMPLETE 4u

static const struct guid authenticated =
    GUID(0xaaf32c78, 0x947b, 0x439a, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92);
static const struct guid journal =
    GUID(0x9e58292b, 0x7c68, 0x497d, 0xa0, 0xce, 0x65, 0x00, 0xfd, 0x9f, 0x1b, 0x95);

/* --- the file --- */

static struct err *check_volume(const uint8_t *bytes, size_t len)
{
    uint16_t sum = 0;

    if (len < VOLUME_HEADER_MIN || memcmp(bytes + VOLUME_SIGNATURE_AT, "_FVH", 4) != 0)
        return err_new("it has no header of a firmware volume");
    size_t header = get_le16(bytes + VOLUME_HEADER_LENGTH_AT);
    if (header < VOLUME_HEADER_MIN || header > len || header % 2)
        return err_new("its header says %zu bytes for itself", header);
    if (get_le64(bytes + VOLUME_LENGTH_AT) > len)
        return err_new("it is cut short: %zu of %llu bytes are there", len,
                       (unsigned long long)get_le64(bytes + VOLUME_LENGTH_AT));
    for (size_t i = 0; i < header; i += 2)
        sum = (uint16_t)(sum + get_le16(bytes + i));
    return sum ? err_new("the checksum of its header is wrong") : NULL;
}

struct err *variable_store_check(const uint8_t *bytes, size_t len)
{
    TRY(check_volume(bytes, len));
    size_t at = get_le16(bytes + VOLUME_HEADER_LENGTH_AT);
    if (len - at < STORE_HEADER || !guid_is(bytes + at, &authenticated))
        return err_new("it holds no authenticated variables");
    if (bytes[at + STORE_FORMAT_AT] != STORE_FORMATTED ||
        bytes[at + STORE_STATE_AT] != STORE_HEALTHY)
        return err_new("it was never formatted to its end");
    uint32_t size = get_le32(bytes + at + STORE_SIZE_AT);
    if (size < STORE_HEADER || size > len - at)
        return err_new("it says %u bytes for its variables", size);
    return NULL;
}

/* The firmware was rewriting the store when its VM ended: what is in it now is half of it. */
static bool is_being_written(const uint8_t *bytes, size_t len, size_t end)
{
    if (end > len || len - end < JOURNAL_AT + JOURNAL_HEADER)
        return false;
    const uint8_t *at = bytes + end + JOURNAL_AT;
    uint64_t left = MIN(get_le64(at + 24), (uint64_t)(bytes + len - at) - JOURNAL_HEADER);
    if (!guid_is(at, &journal))
        return false;
    at += JOURNAL_HEADER;
    while (left >= JOURNAL_ENTRY && !(at[0] & JOURNAL_LISTED)) {
        uint64_t count = get_le64(at + JOURNAL_COUNT_AT);
        uint64_t write = JOURNAL_ENTRY + MIN(get_le64(at + JOURNAL_PRIVATE_AT), (uint64_t)left);
        if (at[0] & JOURNAL_COMPLETE)
            return true;
        if (count > left || JOURNAL_ENTRY + count * write > left)
            return false;
        at += JOURNAL_ENTRY + count * write;
        left -= JOURNAL_ENTRY + count * write;
    }
    return false;
}

/* --- variables --- */

static bool is_named(const struct buf *variable, const uint8_t *vendor, const uint8_t *name,
                     size_t name_len)
{
    const uint8_t *header = variable->data;

    return get_le32(header + NAME_SIZE_AT) == name_len &&
           !memcmp(header + VENDOR_AT, vendor, GUID_SIZE) &&
           !memcmp(header + VARIABLE_HEADER, name, name_len);
}

static struct buf *find(const struct variable_store *store, const uint8_t *vendor,
                        const uint8_t *name, size_t name_len)
{
    for (unsigned i = 0; i < store->count; i++) {
        if (is_named(&store->variable[i], vendor, name, name_len))
            return &store->variable[i];
    }
    return NULL;
}

static struct buf *add(struct variable_store *store)
{
    store->variable = xrealloc(store->variable, store->count + 1, sizeof(*store->variable));
    store->variable[store->count] = (struct buf)BUF_INIT;
    return &store->variable[store->count++];
}

/* A record of the file, if it counts. One in transition gives way to its successor. */
static void keep(struct variable_store *store, const uint8_t *record, size_t len)
{
    uint8_t state = record[STATE_AT];

    if (state != STATE_ADDED && state != STATE_IN_TRANSITION)
        return;
    struct buf *twin =
        find(store, record + VENDOR_AT, record + VARIABLE_HEADER, get_le32(record + NAME_SIZE_AT));
    if (twin && twin->data[STATE_AT] == STATE_ADDED)
        return;
    if (twin)
        buf_fini(twin);
    else
        twin = add(store);
    buf_append(twin, record, len);
}

static struct err *read_variables(struct variable_store *store)
{
    size_t at = store->begin;

    while (store->end - at >= VARIABLE_HEADER && get_le16(store->bytes + at) == VARIABLE_START) {
        const uint8_t *record = store->bytes + at;
        uint64_t name = get_le32(record + NAME_SIZE_AT), data = get_le32(record + DATA_SIZE_AT);
        /* The power went before its sizes were there: the header alone is lost. */
        bool whole = record[STATE_AT] != ERASED && name != NEVER_WRITTEN && data != NEVER_WRITTEN;
        size_t len = VARIABLE_HEADER + (whole ? (size_t)(name + data) : 0);
        if (len > store->end - at)
            return err_new("a variable at byte %zu reaches past its end", at);
        if (whole)
            keep(store, record, len);
        at = MIN(ALIGN_UP(at + len, (size_t)4), store->end);
    }
    return NULL;
}

struct err *variable_store_open(uint8_t *take_bytes, size_t len, struct variable_store *store)
{
    *store = (struct variable_store){.bytes = take_bytes, .len = len};
    TRY(variable_store_check(take_bytes, len));
    size_t at = get_le16(take_bytes + VOLUME_HEADER_LENGTH_AT);
    store->begin = at + STORE_HEADER;
    store->end = at + get_le32(take_bytes + at + STORE_SIZE_AT);
    if (is_being_written(take_bytes, len, store->end))
        return err_new("its VM was ended while the firmware wrote to it: start the VM once and "
                       "power it off");
    return read_variables(store);
}

void variable_store_fini(struct variable_store *store)
{
    for (unsigned i = 0; i < store->count; i++)
        buf_fini(&store->variable[i]);
    free(store->variable);
    free(store->bytes);
    *store = (struct variable_store){0};
}

/* As variables have it: UTF-16 with a final zero. */
static void wide_name(struct buf *out, const char *name)
{
    do
        buf_le16(out, (uint8_t)*name);
    while (*name++);
}

static struct buf *find_named(const struct variable_store *store, const struct guid *vendor,
                              const char *name)
{
    struct buf wide = BUF_INIT;

    wide_name(&wide, name);
    struct buf *variable = find(store, vendor->bytes, wide.data, wide.len);
    buf_fini(&wide);
    return variable;
}

const uint8_t *variable_store_get(const struct variable_store *store, const struct guid *vendor,
                                  const char *name, size_t *len)
{
    const struct buf *variable = find_named(store, vendor, name);

    *len = variable ? get_le32(variable->data + DATA_SIZE_AT) : 0;
    return variable ? variable->data + variable->len - *len : NULL;
}

/* EFI_TIME, of this moment: authenticated variables may only become newer (UEFI 2.10, 8.2.2). */
static void put_time(uint8_t *at)
{
    time_t now = time(NULL);
    struct tm utc;

    gmtime_r(&now, &utc);
    put_le16(at, (uint16_t)(utc.tm_year + 1900));
    at[2] = (uint8_t)(utc.tm_mon + 1);
    at[3] = (uint8_t)utc.tm_mday;
    at[4] = (uint8_t)utc.tm_hour;
    at[5] = (uint8_t)utc.tm_min;
    at[6] = (uint8_t)MIN(utc.tm_sec, 59);
}

static void put_variable(struct buf *out, const struct guid *vendor, const char *name,
                         uint32_t attributes, const void *data, size_t len)
{
    struct buf wide = BUF_INIT;
    uint8_t *header = buf_extend(out, VARIABLE_HEADER);

    wide_name(&wide, name);
    put_le16(header, VARIABLE_START);
    header[STATE_AT] = STATE_ADDED;
    put_le32(header + ATTRIBUTES_AT, attributes);
    if (attributes & VARIABLE_TIME_AUTHENTICATED)
        put_time(header + TIME_AT);
    put_le32(header + NAME_SIZE_AT, (uint32_t)wide.len);
    put_le32(header + DATA_SIZE_AT, (uint32_t)len);
    memcpy(header + VENDOR_AT, vendor->bytes, GUID_SIZE);
    buf_append(out, wide.data, wide.len);
    buf_append(out, data, len);
    buf_fini(&wide);
}

struct err *variable_store_set(struct variable_store *store, const struct guid *vendor,
                               const char *name, uint32_t attributes, const void *data, size_t len)
{
    size_t room = VARIABLE_MAX - VARIABLE_HEADER - 2 * (strlen(name) + 1);
    struct buf *variable = find_named(store, vendor, name);

    if (len > room)
        return err_new("%s would have %zu bytes, and firmware takes %zu", name, len, room);
    struct buf before = variable ? *variable : (struct buf)BUF_INIT;
    if (len) {
        variable = variable ? variable : add(store);
        *variable = (struct buf)BUF_INIT;
        put_variable(variable, vendor, name, attributes, data, len);
    } else if (variable) {
        *variable = store->variable[--store->count];
    }
    buf_fini(&before); /* `data` may have been in it */
    return NULL;
}

struct err *variable_store_pack(struct variable_store *store)
{
    size_t room = store->end - store->begin, used = 0;

    for (unsigned i = 0; i < store->count; i++)
        used += ALIGN_UP(store->variable[i].len, (size_t)4);
    if (used > room)
        return err_new("its variables would have %zu bytes, and it has room for %zu", used, room);
    uint8_t *at = store->bytes + store->begin;
    memset(at, ERASED, room);
    for (unsigned i = 0; i < store->count; i++) {
        memcpy(at, store->variable[i].data, store->variable[i].len);
        at[STATE_AT] = STATE_ADDED;
        at += ALIGN_UP(store->variable[i].len, (size_t)4);
    }
    return NULL;
}
