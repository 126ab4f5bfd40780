/*
 * Values of the schema: text to member and back, list entries, standard values. Driven by the table
 * alone: nothing here knows a property by name, but "id".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "vm/config.h"
#include "vm/schema_table.h"

/* Longest piece of a wrong value that an error repeats. */
#define QUOTE_MAX 60

static bool parse_whole(const char *text, uint64_t *value)
{
    char *end;

    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    *value = number;
    return !errno && !*end;
}

/* Digits with an optional unit K, M, G or T, then optionally iB or B: powers of 1024 all. */
static bool parse_size(const char *text, uint64_t *value)
{
    static const char units[] = "KMGT";
    char *end;

    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno)
        return false;
    if (*end) {
        const char *unit = strchr(units, toupper((unsigned char)*end));
        if (!unit || !checked_mul(number, 1024ull << (10 * (unit - units)), &number))
            return false;
        end++;
        if (*end && strcmp(end, "iB") && strcmp(end, "B"))
            return false;
    }
    *value = number;
    return true;
}

static void write_size(uint64_t bytes, struct buf *out)
{
    static const char units[] = "TGMK";

    for (unsigned i = 0; i < 4; i++) {
        unsigned shift = 40 - 10 * i;
        if (bytes && !(bytes & ((1ull << shift) - 1))) {
            buf_printf(out, "%" PRIu64 "%c", bytes >> shift, units[i]);
            return;
        }
    }
    buf_printf(out, "%" PRIu64, bytes);
}

static bool parse_switch(const char *text, bool *value)
{
    static const char *const on[] = {"true", "yes", "on"};
    static const char *const off[] = {"false", "no", "off"};

    for (unsigned i = 0; i < ARRAY_SIZE(on); i++) {
        if (!strcasecmp(text, on[i]) || !strcasecmp(text, off[i])) {
            *value = !strcasecmp(text, on[i]);
            return true;
        }
    }
    return false;
}

static bool is_word(const char *text)
{
    size_t len = strlen(text);

    if (len < 1 || len > 64)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)text[i]) && !strchr("._-", text[i]))
            return false;
    }
    return true;
}

static bool parse_mac(const char *text, uint8_t mac[6])
{
    uint8_t bytes[6];

    if (strlen(text) != 17)
        return false;
    for (unsigned i = 0; i < 6; i++) {
        const char *at = text + 3 * i;
        if (!isxdigit((unsigned char)at[0]) || !isxdigit((unsigned char)at[1]) ||
            (i < 5 && at[2] != ':'))
            return false;
        bytes[i] = (uint8_t)strtoul((char[]){at[0], at[1], 0}, NULL, 16);
    }
    memcpy(mac, bytes, 6);
    return true;
}

static void set_text(char **member, const char *text)
{
    char *copy = xstrdup(text);

    free(*member);
    *member = copy;
}

/* "expected WHAT, found 'TEXT'", without control characters that would garble a terminal. */
static struct err *mismatch(const char *expected, const char *text)
{
    char quote[QUOTE_MAX + 4];
    size_t i = 0;

    for (; text[i] && i < QUOTE_MAX; i++)
        quote[i] = iscntrl((unsigned char)text[i]) ? '?' : text[i];
    strcpy(quote + i, text[i] ? "..." : "");
    if (!*text)
        return err_of(ERR_USAGE, "expected %s, found nothing", expected);
    return err_of(ERR_USAGE, "expected %s, found '%s'", expected, quote);
}

static struct err *set_choice(const struct schema_field *field, void *member, const char *text)
{
    struct buf list = BUF_INIT;

    for (int i = 0; field->choices[i]; i++) {
        if (strcmp(text, field->choices[i]))
            continue;
        if (field->narrow)
            *(bool *)member = i;
        else
            *(int *)member = i;
        return NULL;
    }
    for (int i = 0; field->choices[i]; i++) {
        const char *joint = !i ? "" : field->choices[i + 1] ? ", " : " or ";
        buf_printf(&list, "%s%s", joint, field->choices[i]);
    }
    buf_u8(&list, 0);
    struct err *err = mismatch((const char *)list.data, text);
    buf_fini(&list);
    return err;
}

static struct err *set_number(const struct schema_field *field, void *member, const char *text)
{
    uint64_t value;

    if (!parse_whole(text, &value))
        return mismatch("a whole number", text);
    if (value < field->min || value > field->max)
        return err_of(ERR_USAGE, "%s is out of range: give %" PRIu64 " to %" PRIu64, text,
                      field->min, field->max);
    if (field->kind == SCHEMA_PORT)
        *(uint16_t *)member = (uint16_t)value;
    else
        *(unsigned *)member = (unsigned)value;
    return NULL;
}

static struct err *set_size(const struct schema_field *field, void *member, const char *text)
{
    uint64_t value;

    if (!parse_size(text, &value))
        return mismatch("a size such as 512M or 2G", text);
    if (value < field->min || value > field->max) {
        struct buf range = BUF_INIT;
        write_size(field->min, &range);
        buf_text(&range, " to ");
        write_size(field->max, &range);
        const char *hint = isdigit((unsigned char)text[strlen(text) - 1]) && value < field->min
                               ? ", with its unit"
                               : "";
        struct err *err = err_of(ERR_USAGE, "%s is out of range: give %.*s%s", text, (int)range.len,
                                 (const char *)range.data, hint);
        buf_fini(&range);
        return err;
    }
    if (value % GUEST_PAGE_SIZE)
        return err_of(ERR_USAGE, "%s is not a multiple of 4K: round it", text);
    *(uint64_t *)member = value;
    return NULL;
}

static struct err *set_fd(void *member, const char *text)
{
    uint64_t value;

    if (!strcmp(text, "-1"))
        *(int *)member = -1;
    else if (parse_whole(text, &value) && value <= INT32_MAX)
        *(int *)member = (int)value;
    else
        return mismatch("a descriptor number", text);
    return NULL;
}

/* What cannot be said in JSON could not be handed over. */
static bool is_utf8(const char *text)
{
    json_t *json = json_string(text);

    json_decref(json);
    return json;
}

struct err *schema_set(const struct schema_field *field, void *object, const char *text)
{
    void *member = schema_at(object, field->offset);
    struct in_addr address;

    switch (field->kind) {
    case SCHEMA_TEXT:
        if (!is_utf8(text))
            return err_of(ERR_USAGE, "the text is not UTF-8");
        break;
    case SCHEMA_WORD:
        if (!is_word(text))
            return mismatch("1 to 64 letters, digits, '.', '_' or '-'", text);
        break;
    case SCHEMA_PATH:
        if (!*text)
            return mismatch("a path", text);
        if (!is_utf8(text))
            return err_of(ERR_USAGE, "the path is not UTF-8: rename the file");
        break;
    case SCHEMA_ADDRESS:
        if (inet_pton(AF_INET, text, &address) != 1)
            return mismatch("an IPv4 address", text);
        break;
    case SCHEMA_COUNT:
    case SCHEMA_PORT:
        return set_number(field, member, text);
    case SCHEMA_SIZE:
        return set_size(field, member, text);
    case SCHEMA_SWITCH:
        return parse_switch(text, member) ? NULL : mismatch("true or false", text);
    case SCHEMA_CHOICE:
        return set_choice(field, member, text);
    case SCHEMA_MAC:
        if (!parse_mac(text, member))
            return mismatch("a MAC address such as 52:54:00:12:34:56", text);
        if (((uint8_t *)member)[0] & 1)
            return err_of(ERR_USAGE, "%s is a group address: make its first byte even", text);
        return NULL;
    case SCHEMA_FD:
        return set_fd(member, text);
    case SCHEMA_FDS:
    case SCHEMA_LIST:
        return mismatch("a list", text);
    }
    set_text(member, text);
    return NULL;
}

void schema_write_text(const struct schema_field *field, const void *object, struct buf *out)
{
    const void *member = schema_at(object, field->offset);
    const uint8_t *bytes = member;

    switch (field->kind) {
    case SCHEMA_TEXT:
    case SCHEMA_WORD:
    case SCHEMA_PATH:
    case SCHEMA_ADDRESS:
        buf_text(out, *(char *const *)member ? *(char *const *)member : "");
        break;
    case SCHEMA_COUNT:
        buf_printf(out, "%u", *(const unsigned *)member);
        break;
    case SCHEMA_PORT:
        buf_printf(out, "%u", *(const uint16_t *)member);
        break;
    case SCHEMA_SIZE:
        write_size(*(const uint64_t *)member, out);
        break;
    case SCHEMA_SWITCH:
        buf_text(out, *(const bool *)member ? "true" : "false");
        break;
    case SCHEMA_CHOICE:
        buf_text(out, field->choices[field->narrow ? *(const bool *)member : *(const int *)member]);
        break;
    case SCHEMA_MAC:
        buf_printf(out, "%02x:%02x:%02x:%02x:%02x:%02x", bytes[0], bytes[1], bytes[2], bytes[3],
                   bytes[4], bytes[5]);
        break;
    case SCHEMA_FD:
        buf_printf(out, "%d", *(const int *)member);
        break;
    case SCHEMA_FDS:
    case SCHEMA_LIST:
        break;
    }
}

void schema_init(const struct schema_object *object, void *element)
{
    for (size_t i = 0; i < object->count; i++) {
        const struct schema_field *field = &object->fields[i];
        void *member = schema_at(element, field->offset);
        if (field->kind == SCHEMA_FD)
            *(int *)member = -1;
        else if (field->kind == SCHEMA_FDS)
            memset(member, 0xff, sizeof(int) * VM_QUEUES_MAX);
        else if (field->standard)
            err_free(schema_set(field, element, field->standard));
    }
}

static void *entry(const struct schema_field *list, const void *object, unsigned index)
{
    return schema_at(object, list->offset + index * list->object->size);
}

static unsigned *entry_count(const struct schema_field *list, const void *object)
{
    return schema_at(object, list->count_offset);
}

void schema_fini(const struct schema_object *object, void *element)
{
    for (size_t i = 0; i < object->count; i++) {
        const struct schema_field *field = &object->fields[i];
        void *member = schema_at(element, field->offset);
        switch (field->kind) {
        case SCHEMA_TEXT:
        case SCHEMA_WORD:
        case SCHEMA_PATH:
        case SCHEMA_ADDRESS:
            free(*(char **)member);
            *(char **)member = NULL;
            break;
        case SCHEMA_LIST:
            while (*entry_count(field, element))
                schema_drop_last(field, element);
            break;
        default:
            break;
        }
    }
}

struct err *schema_append(const struct schema_field *list, void *object, void **element)
{
    unsigned *count = entry_count(list, object);

    if (*count >= list->limit)
        return err_of(ERR_USAGE, "more than %u %ss: remove one", list->limit, list->object->what);
    *element = entry(list, object, (*count)++);
    memset(*element, 0, list->object->size);
    schema_init(list->object, *element);
    return NULL;
}

void schema_drop_last(const struct schema_field *list, void *object)
{
    unsigned *count = entry_count(list, object);

    if (*count)
        schema_fini(list->object, entry(list, object, --*count));
}

/* Entries with ids have them as their first member of the table. */
static char **entry_id(const struct schema_field *list, const void *object, unsigned index)
{
    return schema_at(entry(list, object, index), list->object->fields[0].offset);
}

void *schema_find_id(const struct schema_field *list, const void *object, const char *id)
{
    for (unsigned i = 0; list->object->id_prefix && i < *entry_count(list, object); i++) {
        const char *have = *entry_id(list, object, i);
        if (have && !strcmp(have, id))
            return entry(list, object, i);
    }
    return NULL;
}

void schema_name_entries(const struct schema_field *list, void *object)
{
    for (unsigned i = 0; list->object->id_prefix && i < *entry_count(list, object); i++) {
        char **id = entry_id(list, object, i);
        for (unsigned number = i; !*id; number++) {
            char *candidate = xasprintf("%s%u", list->object->id_prefix, number);
            if (schema_find_id(list, object, candidate))
                free(candidate);
            else
                *id = candidate;
        }
    }
}

/* Levenshtein distance, bounded by the lengths of option names. */
static unsigned distance(const char *a, const char *b)
{
    size_t a_len = strlen(a), b_len = strlen(b);
    unsigned row[33];

    if (a_len > 32 || b_len > 32)
        return 33;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a_len; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            unsigned replace = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = MIN(replace, MIN(row[j] + 1, row[j - 1] + 1));
        }
    }
    return row[b_len];
}

const char *schema_nearest(const char *word, const char *const *known, size_t count)
{
    const char *best = NULL;
    unsigned best_distance = 0;

    for (size_t i = 0; i < count; i++) {
        unsigned d = distance(word, known[i]);
        /* A third of the word may be wrong; a word that begins alike is near as well. */
        bool near = d <= MAX(1u, (unsigned)strlen(known[i]) / 3) ||
                    (strlen(word) >= 3 && !strncmp(word, known[i], strlen(word)));
        if (near && (!best || d < best_distance)) {
            best = known[i];
            best_distance = d;
        }
    }
    return best;
}
