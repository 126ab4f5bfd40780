/*
 * Event logs. See event_log.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attest/event_log.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

/* The first event has the old form: PCR, type, SHA-1, size; its contents tell the form of the rest.
 */
#define FIRST_HEADER 32
#define SIGNATURE "Spec ID Event03"
/* In the first event's contents: their count, then pairs of id and size. */
#define ALGORITHMS_AT 24
#define ALGORITHMS_MAX 8
#define DIGEST_MAX 64
#define ALG_SHA256 0x000bu

#define EV_NO_ACTION 0x03u
#define EV_SEPARATOR 0x04u
#define EV_IPL 0x0du
#define EV_EFI_VARIABLE_DRIVER_CONFIG 0x80000001u
#define EV_EFI_VARIABLE_BOOT 0x80000002u
#define EV_EFI_BOOT_SERVICES_APPLICATION 0x80000003u
#define EV_EFI_ACTION 0x80000007u
#define EV_EFI_VARIABLE_BOOT2 0x8000000cu
#define EV_EFI_VARIABLE_AUTHORITY 0x800000e0u

#define TEXT_MAX 200

/* PCRs that firmware and boot loader extend: the rest is the operating system's. */
#define EXPLAINED 0x43ffu /* 0 to 9, and shim's 14 */

struct algorithm {
    uint16_t id, size;
};

struct parser {
    const uint8_t *at;
    size_t left;
    struct algorithm algorithm[ALGORITHMS_MAX];
    unsigned algorithms;
};

static const uint8_t *take(struct parser *parser, size_t len)
{
    const uint8_t *at = parser->at;

    if (len > parser->left)
        return NULL;
    parser->at += len;
    parser->left -= len;
    return at;
}

static struct err *parse_first(struct parser *parser)
{
    const uint8_t *header = take(parser, FIRST_HEADER);
    uint32_t size = header ? get_le32(header + 28) : 0;
    const uint8_t *contents = header ? take(parser, size) : NULL;
    bool sha256 = false;

    if (!contents || size < ALGORITHMS_AT + 4 || get_le32(header + 4) != EV_NO_ACTION ||
        memcmp(contents, SIGNATURE, sizeof(SIGNATURE)) != 0)
        return err_new("the event log does not begin like one of a TPM 2.0");
    parser->algorithms = get_le32(contents + ALGORITHMS_AT);
    if (!parser->algorithms || parser->algorithms > ALGORITHMS_MAX ||
        ALGORITHMS_AT + 4 + parser->algorithms * 4 > size)
        return err_new("the event log has %u kinds of digests", parser->algorithms);
    for (unsigned i = 0; i < parser->algorithms; i++) {
        const uint8_t *entry = contents + ALGORITHMS_AT + 4 + (size_t)i * 4;
        struct algorithm *algorithm = &parser->algorithm[i];
        *algorithm = (struct algorithm){get_le16(entry), get_le16(entry + 2)};
        if (!algorithm->size || algorithm->size > DIGEST_MAX ||
            (algorithm->id == ALG_SHA256 && algorithm->size != TPM_SHA256_SIZE))
            return err_new("the event log has digests of %u bytes", algorithm->size);
        sha256 |= algorithm->id == ALG_SHA256;
    }
    return sha256 ? NULL : err_new("the event log has no SHA-256 digests");
}

/* --- what an event is about --- */

/* Bytes as printable text, '?' for what is none. */
static void print_bytes(struct buf *out, const uint8_t *bytes, size_t len, size_t step)
{
    for (size_t i = 0; i < len && bytes[i] && out->len < TEXT_MAX; i += step)
        buf_u8(out, isprint(bytes[i]) ? bytes[i] : '?');
}

/* UEFI_VARIABLE_DATA: GUID, length of the name in characters, of the data, then the name. */
static void print_variable(struct buf *out, const uint8_t *data, size_t size)
{
    uint64_t characters = size >= 32 ? get_le64(data + 16) : 0;

    if (characters && characters <= (size - 32) / 2)
        print_bytes(out, data + 32, (size_t)characters * 2, 2);
}

/* The file's path, from a device path (UEFI 2.9, 10.3.5.4) behind address, length and link base. */
static void print_image(struct buf *out, const uint8_t *data, size_t size)
{
    size_t at = 32;

    while (at + 4 <= size && data[at] != 0x7f) {
        size_t len = get_le16(data + at + 2);
        if (len < 4 || len > size - at)
            return;
        if (data[at] == 4 && data[at + 1] == 4)
            print_bytes(out, data + at + 4, len - 4, 2);
        at += len;
    }
}

static char *describe(uint32_t type, const uint8_t *data, size_t size)
{
    struct buf out = BUF_INIT;

    switch (type) {
    case EV_EFI_VARIABLE_DRIVER_CONFIG:
    case EV_EFI_VARIABLE_BOOT:
    case EV_EFI_VARIABLE_BOOT2:
    case EV_EFI_VARIABLE_AUTHORITY:
        print_variable(&out, data, size);
        break;
    case EV_EFI_BOOT_SERVICES_APPLICATION:
        print_image(&out, data, size);
        break;
    case EV_IPL:
    case EV_EFI_ACTION:
        print_bytes(&out, data, size, 1);
        break;
    case EV_SEPARATOR:
        buf_text(&out, "separator");
        break;
    default: /* binary, for each kind another way */
        break;
    }
    char *text = xasprintf("%s", out.len ? (char *)out.data : "");
    buf_fini(&out);
    return text;
}

/* --- which stage it belongs to --- */

static bool starts_with(const char *text, const char *start)
{
    return !strncmp(text, start, strlen(start));
}

/*
 * Did the boot loader's command name this file? GRUB measures each command before it does it
 * ("grub_cmd: linux /vmlinuz root=..."), then the files that it reads ("(hd0,gpt2)/vmlinuz").
 */
static bool was_named(const struct event_log *log, const char *command, const char *file)
{
    const char *path = file[0] == '(' ? strchr(file, ')') : NULL;
    size_t len;

    path = path ? path + 1 : file;
    len = strlen(path);
    for (unsigned i = 0; len && i < log->count; i++) {
        const char *text = log->event[i].text;
        if (log->event[i].pcr != 8 || !starts_with(text, "grub_cmd: ") ||
            !starts_with(text + 10, command))
            continue;
        for (const char *at = strstr(text + 10, path); at; at = strstr(at + 1, path)) {
            if ((at[-1] == ' ' || at[-1] == ')') && (!at[len] || at[len] == ' '))
                return true;
        }
    }
    return false;
}

static enum event_stage classify(const struct event_log *log, const struct event *event)
{
    static const enum event_stage by_pcr[] = {
        STAGE_FIRMWARE,    STAGE_SETTINGS,   STAGE_FIRMWARE, STAGE_SETTINGS,
        STAGE_BOOT_LOADER, STAGE_PARTITIONS, STAGE_SETTINGS, STAGE_SECURE_BOOT,
    };

    if (event->pcr < ARRAY_SIZE(by_pcr))
        return by_pcr[event->pcr];
    if (event->pcr == 14)
        return STAGE_SECURE_BOOT;
    if (event->pcr == 8 && (starts_with(event->text, "kernel_cmdline: ") ||
                            starts_with(event->text, "grub_cmd: linux")))
        return STAGE_COMMAND_LINE;
    if (event->pcr == 9 && was_named(log, "linux", event->text))
        return STAGE_KERNEL;
    if (event->pcr == 9 && was_named(log, "initrd", event->text))
        return STAGE_INITRD;
    return STAGE_BOOT_LOADER;
}

/* --- the log --- */

static void extend(uint8_t pcr[TPM_SHA256_SIZE], const uint8_t digest[TPM_SHA256_SIZE])
{
    uint8_t both[2 * TPM_SHA256_SIZE];

    memcpy(both, pcr, TPM_SHA256_SIZE);
    memcpy(both + TPM_SHA256_SIZE, digest, TPM_SHA256_SIZE);
    tpm_sha256(both, sizeof(both), pcr);
}

static bool take_digests(struct parser *parser, uint8_t sha256[TPM_SHA256_SIZE])
{
    const uint8_t *count = take(parser, 4);
    bool found = false;

    if (!count || get_le32(count) != parser->algorithms)
        return false;
    for (unsigned i = 0; i < parser->algorithms; i++) {
        const uint8_t *id = take(parser, 2);
        unsigned known = 0;
        while (id && known < parser->algorithms && parser->algorithm[known].id != get_le16(id))
            known++;
        if (!id || known == parser->algorithms)
            return false;
        const uint8_t *digest = take(parser, parser->algorithm[known].size);
        if (!digest)
            return false;
        if (get_le16(id) == ALG_SHA256) {
            memcpy(sha256, digest, TPM_SHA256_SIZE);
            found = true;
        }
    }
    return found;
}

/* TCG_PCR_EVENT2. False: there is no event here. */
static bool take_event(struct parser *parser, struct event *event)
{
    const uint8_t *header = take(parser, 8);

    if (!header || get_le32(header) >= TPM_PCRS)
        return false;
    event->pcr = (uint8_t)get_le32(header);
    event->type = get_le32(header + 4);
    if (!take_digests(parser, event->digest))
        return false;
    const uint8_t *size = take(parser, 4);
    const uint8_t *data = size ? take(parser, get_le32(size)) : NULL;
    if (!data)
        return false;
    event->text = describe(event->type, data, get_le32(size));
    return true;
}

struct err *event_log_parse(const uint8_t *bytes, size_t len, struct event_log *log)
{
    struct parser parser = {.at = bytes, .left = MIN(len, (size_t)EVENT_LOG_MAX)};
    struct event event;

    memset(log, 0, sizeof(*log));
    TRY(parse_first(&parser));
    while (log->count < EVENT_LOG_EVENTS_MAX && take_event(&parser, &event)) {
        if (!(log->count & (log->count - 1)))
            log->event =
                xrealloc(log->event, log->count ? (size_t)log->count * 2 : 1, sizeof(*log->event));
        log->event[log->count++] = event;
        if (event.type != EV_NO_ACTION)
            extend(log->pcr[event.pcr], event.digest);
    }
    for (unsigned i = 0; i < log->count; i++)
        log->event[i].stage = classify(log, &log->event[i]);
    return NULL;
}

void event_log_fini(struct event_log *log)
{
    for (unsigned i = 0; i < log->count; i++)
        free(log->event[i].text);
    free(log->event);
    memset(log, 0, sizeof(*log));
}

size_t event_log_find(const uint8_t *bytes, size_t len, size_t from)
{
    static const uint8_t begin[FIRST_HEADER - 4] = {[4] = EV_NO_ACTION};

    while (from + FIRST_HEADER + sizeof(SIGNATURE) <= len) {
        const uint8_t *at = memmem(bytes + from + FIRST_HEADER, len - from - FIRST_HEADER,
                                   SIGNATURE, sizeof(SIGNATURE));
        if (!at)
            break;
        from = (size_t)(at - bytes) - FIRST_HEADER;
        if (!memcmp(bytes + from, begin, sizeof(begin)))
            return from;
        from++;
    }
    return len;
}

uint32_t event_log_unexplained(const struct event_log *log,
                               uint8_t quoted[TPM_PCRS][TPM_SHA256_SIZE])
{
    uint32_t wrong = 0;

    for (unsigned i = 0; i < TPM_PCRS; i++) {
        if (EXPLAINED >> i & 1 && memcmp(log->pcr[i], quoted[i], TPM_SHA256_SIZE) != 0)
            wrong |= 1u << i;
    }
    return wrong;
}

const char *event_stage_name(enum event_stage stage)
{
    static const char *const names[] = {
        "firmware", "firmware settings", "Secure Boot policy", "partitions", "boot loader",
        "kernel",   "initial RAM disk",  "command line"};

    return names[stage];
}
