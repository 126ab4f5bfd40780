/*
 * Event logs: parsing, stages, replay, comparison with a reference; and logs that lie.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include <string.h>

#include "../test.h"
#include "attest/compare.h"
#include "base/bytes.h"

#define IPL 0x0d
#define SEPARATOR 0x04
#define VARIABLE 0x80000001u
#define APPLICATION 0x80000003u

/* --- writing logs --- */

/* SHA-1 and SHA-256, as firmware with both banks writes it. */
static void begin_log(struct buf *out)
{
    uint8_t *first = buf_extend(out, 32);
    put_le32(first + 4, 3);
    put_le32(first + 28, 37);
    buf_append(out, "Spec ID Event03", 16);
    buf_le32(out, 0);
    buf_le32(out, 0x02000200);
    buf_le32(out, 2);
    buf_le16(out, 0x04);
    buf_le16(out, 20);
    buf_le16(out, 0x0b);
    buf_le16(out, 32);
    buf_u8(out, 0);
}

static void add_event(struct buf *out, uint32_t pcr, uint32_t type, const void *digest_of,
                      size_t digest_len, const void *data, size_t len)
{
    uint8_t digest[32];
    tpm_sha256(digest_of, digest_len, digest);
    buf_le32(out, pcr);
    buf_le32(out, type);
    buf_le32(out, 2);
    buf_le16(out, 0x04);
    buf_extend(out, 20);
    buf_le16(out, 0x0b);
    buf_append(out, digest, 32);
    buf_le32(out, (uint32_t)len);
    buf_append(out, data, len);
}

static void add_text(struct buf *out, uint32_t pcr, const char *digest_of, const char *text)
{
    add_event(out, pcr, IPL, digest_of, strlen(digest_of), text, strlen(text) + 1);
}

static void add_variable(struct buf *out, const char *name)
{
    uint8_t data[100] = {0};
    put_le64(data + 16, strlen(name));
    put_le64(data + 24, 1);
    for (size_t i = 0; name[i]; i++)
        data[32 + 2 * i] = (uint8_t)name[i];
    add_event(out, 7, VARIABLE, data, 100, data, 32 + 2 * strlen(name) + 1);
}

static void add_image(struct buf *out, const char *path, const char *contents)
{
    uint8_t data[200] = {0};
    size_t len = 4 + 2 * (strlen(path) + 1);
    data[32] = 4; /* media: file path */
    data[33] = 4;
    put_le16(data + 34, (uint16_t)len);
    for (size_t i = 0; path[i]; i++)
        data[36 + 2 * i] = (uint8_t)path[i];
    memcpy(data + 32 + len, "\x7f\xff\x04\x00", 4);
    add_event(out, 4, APPLICATION, contents, strlen(contents), data, 32 + len + 4);
}

/* A start with GRUB. */
static void write_start(struct buf *out, const char *loader, const char *kernel, const char *line)
{
    char text[200];
    begin_log(out);
    add_event(out, 0, 0x08, "version", 7, "v", 1);
    add_variable(out, "SecureBoot");
    add_image(out, "\\EFI\\BOOT\\BOOTX64.EFI", loader);
    add_event(out, 4, SEPARATOR, "\0\0\0\0", 4, "\0\0\0\0", 4);
    add_text(out, 9, "config", "(hd0,gpt2)/boot/grub/grub.cfg");
    add_text(out, 8, "set", "grub_cmd: set timeout=2");
    snprintf(text, sizeof(text), "grub_cmd: linux /boot/vmlinuz %s", line);
    add_text(out, 8, text, text);
    add_text(out, 9, kernel, "(hd0,gpt2)/boot/vmlinuz");
    snprintf(text, sizeof(text), "kernel_cmdline: /boot/vmlinuz %s", line);
    add_text(out, 8, text, text);
    add_text(out, 8, "i", "grub_cmd: initrd /boot/initrd");
    add_text(out, 9, "files", "/boot/initrd");
}

static struct event_log parsed(const struct buf *bytes)
{
    struct event_log log;
    assert_ok(event_log_parse(bytes->data, bytes->len, &log));
    return log;
}

/* --- tests --- */

static void events_have_stages(void **state)
{
    static const struct {
        enum event_stage stage;
        const char *text;
    } expected[] = {
        {STAGE_FIRMWARE, ""},
        {STAGE_SECURE_BOOT, "SecureBoot"},
        {STAGE_BOOT_LOADER, "\\EFI\\BOOT\\BOOTX64.EFI"},
        {STAGE_BOOT_LOADER, "separator"},
        {STAGE_BOOT_LOADER, "(hd0,gpt2)/boot/grub/grub.cfg"},
        {STAGE_BOOT_LOADER, "grub_cmd: set timeout=2"},
        {STAGE_COMMAND_LINE, "grub_cmd: linux /boot/vmlinuz quiet"},
        {STAGE_KERNEL, "(hd0,gpt2)/boot/vmlinuz"},
        {STAGE_COMMAND_LINE, "kernel_cmdline: /boot/vmlinuz quiet"},
        {STAGE_BOOT_LOADER, "grub_cmd: initrd /boot/initrd"},
        {STAGE_INITRD, "/boot/initrd"},
    };
    struct buf bytes = BUF_INIT;
    write_start(&bytes, "grub", "linux", "quiet");
    buf_extend(&bytes, 1000); /* the room that firmware has left */
    memset(bytes.data + bytes.len - 1000, 0xff, 1000);
    struct event_log log = parsed(&bytes);
    assert_int_equal(log.count, ARRAY_SIZE(expected));
    for (unsigned i = 0; i < log.count; i++) {
        assert_string_equal(log.event[i].text, expected[i].text);
        assert_int_equal(log.event[i].stage, expected[i].stage);
    }
    event_log_fini(&log);
    buf_fini(&bytes);
}

/* PCR 9 by hand, as TPM2_PCR_Extend does it. */
static void the_log_is_replayed(void **state)
{
    static const char *const measured[] = {"config", "linux", "files"};
    struct buf bytes = BUF_INIT;
    uint8_t pcr[64] = {0}, quoted[TPM_PCRS][TPM_SHA256_SIZE];
    write_start(&bytes, "grub", "linux", "quiet");
    struct event_log log = parsed(&bytes);
    for (unsigned i = 0; i < 3; i++) {
        tpm_sha256(measured[i], strlen(measured[i]), pcr + 32);
        tpm_sha256(pcr, 64, pcr);
    }
    assert_memory_equal(log.pcr[9], pcr, 32);
    memcpy(quoted, log.pcr, sizeof(quoted));
    assert_int_equal(event_log_unexplained(&log, quoted), 0);
    quoted[10][0] ^= 1; /* the kernel's own */
    assert_int_equal(event_log_unexplained(&log, quoted), 0);
    quoted[9][31] ^= 1;
    quoted[14][0] ^= 1;
    assert_int_equal(event_log_unexplained(&log, quoted), 1u << 9 | 1u << 14);
    event_log_fini(&log);
    buf_fini(&bytes);
}

static void it_is_found_in_memory(void **state)
{
    struct buf bytes = BUF_INIT;
    buf_extend(&bytes, 1234);
    buf_append(&bytes, "Spec ID Event03", 16); /* the words alone are no log */
    buf_extend(&bytes, 100);
    bytes.data[bytes.len - 1] = 1;
    size_t first = bytes.len;
    write_start(&bytes, "a", "b", "c");
    size_t second = bytes.len;
    write_start(&bytes, "a", "b", "d");
    assert_int_equal(event_log_find(bytes.data, bytes.len, 0), first);
    assert_int_equal(event_log_find(bytes.data, bytes.len, first + 1), second);
    assert_int_equal(event_log_find(bytes.data, bytes.len, second + 1), bytes.len);
    assert_int_equal(event_log_find(bytes.data, 10, 0), 10);
    buf_fini(&bytes);
}

/* Which stages a start with this loader, kernel and line has changed, as bits. */
static unsigned changes(const char *loader, const char *kernel, const char *line, bool other_tpm)
{
    struct buf before = BUF_INIT, now = BUF_INIT;
    struct tpm_key key = {{1}, {2}};
    struct difference difference;
    unsigned bits = 0;
    write_start(&before, "grub", "linux", "quiet");
    write_start(&now, loader, kernel, line);
    struct event_log first = parsed(&before), second = parsed(&now);
    json_t *reference = reference_make(&key, &first);
    key.y[31] = other_tpm;
    assert_ok(reference_compare(reference, &key, &second, &difference));
    for (unsigned i = 0; i < STAGES; i++) {
        bits |= (unsigned)difference.changed[i] << i;
        assert_int_equal(difference.changed[i], difference.what[i] != NULL);
    }
    assert_int_equal(difference.key, other_tpm);
    if (difference.changed[STAGE_KERNEL])
        assert_string_equal(difference.what[STAGE_KERNEL], "PCR 9: (hd0,gpt2)/boot/vmlinuz");
    if (difference.changed[STAGE_COMMAND_LINE])
        assert_non_null(strstr(difference.what[STAGE_COMMAND_LINE], "debug, before: "));
    difference_fini(&difference);
    json_decref(reference);
    event_log_fini(&first);
    event_log_fini(&second);
    buf_fini(&before);
    buf_fini(&now);
    return bits;
}

static void a_change_is_named(void **state)
{
    assert_int_equal(changes("grub", "linux", "quiet", false), 0);
    assert_int_equal(changes("grub", "linux", "quiet", true), 0);
    assert_int_equal(changes("evil", "linux", "quiet", false), 1u << STAGE_BOOT_LOADER);
    assert_int_equal(changes("grub", "evil", "quiet", false), 1u << STAGE_KERNEL);
    assert_int_equal(changes("grub", "linux", "debug", false), 1u << STAGE_COMMAND_LINE);
    assert_int_equal(changes("grub", "evil", "debug", false),
                     1u << STAGE_KERNEL | 1u << STAGE_COMMAND_LINE);
}

static void what_is_no_reference_is_refused(void **state)
{
    static const char *const texts[] = {
        "[]",
        "{}",
        "{\"version\":2,\"key\":\"\",\"events\":[]}",
        "{\"version\":1,\"key\":1,\"events\":[]}",
        "{\"version\":1,\"key\":\"\",\"events\":[1]}",
        "{\"version\":1,\"key\":\"\",\"events\":[{\"pcr\":1,\"digest\":\"\",\"about\":\"\"}]}",
        "{\"version\":1,\"key\":\"\",\"events\":[{\"pcr\":\"\",\"stage\":\"kernel\","
        "\"digest\":\"\",\"about\":\"\"}]}",
    };
    struct event_log log = {0};
    struct tpm_key key = {{0}, {0}};
    struct difference difference;
    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
        json_t *reference = json_loads(texts[i], 0, NULL);
        struct err *err = reference_compare(reference, &key, &log, &difference);
        assert_non_null(err);
        err_free(err);
        json_decref(reference);
    }
}

static void refused(const struct buf *bytes)
{
    struct event_log log;
    struct err *err = event_log_parse(bytes->data, bytes->len, &log);
    assert_non_null(err);
    err_free(err);
    event_log_fini(&log);
}

static void a_wrong_beginning_is_refused(void **state)
{
    struct buf bytes = BUF_INIT;
    for (size_t len = 0; len < 32 + 37; len++) { /* cut */
        bytes.len = 0;
        begin_log(&bytes);
        bytes.len = len;
        refused(&bytes);
    }
    static const struct {
        unsigned at, value;
    } wrong[] = {{4, 4},   {28, 36 - 9}, {32, 'X'}, {56, 0},   {56, 9},
                 {62, 65}, {62, 0},      {66, 31},  {64, 0x0c}};
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        bytes.len = 0;
        begin_log(&bytes);
        bytes.data[wrong[i].at] = (uint8_t)wrong[i].value;
        refused(&bytes);
    }
    buf_fini(&bytes);
}

/* Whatever a byte becomes, and wherever the log is cut: it ends there, or says something else. */
static void a_log_that_lies_ends_nothing(void **state)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    struct buf bytes = BUF_INIT;
    struct event_log log;
    write_start(&bytes, "grub", "linux", "quiet");
    for (size_t len = 69; len < bytes.len; len++) {
        scoped(free_cleanup) uint8_t *exact = xcalloc(1, len);
        memcpy(exact, bytes.data, len);
        assert_ok(event_log_parse(exact, len, &log));
        assert_true(log.count <= 11);
        event_log_fini(&log);
    }
    for (size_t at = 0; at < bytes.len; at++) {
        uint8_t was = bytes.data[at];
        for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
            bytes.data[at] = values[i];
            err_free(event_log_parse(bytes.data, bytes.len, &log));
            event_log_fini(&log);
        }
        bytes.data[at] = was;
    }
    buf_fini(&bytes);
}

/* Text for a terminal: nothing of what the guest wrote there steers it. */
static void words_of_the_guest_are_printable(void **state)
{
    struct buf bytes = BUF_INIT;
    char text[300];
    begin_log(&bytes);
    add_text(&bytes, 8, "x", "\033[2J\r\n\x80kernel");
    memset(text, 'a', sizeof(text));
    add_event(&bytes, 9, IPL, "y", 1, text, sizeof(text));
    add_text(&bytes, 9, "z", "grub_cmd");
    struct event_log log = parsed(&bytes);
    assert_string_equal(log.event[0].text, "?[2J???kernel");
    assert_true(strlen(log.event[1].text) <= 200);
    event_log_fini(&log);
    buf_fini(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_have_stages),
        cmocka_unit_test(the_log_is_replayed),
        cmocka_unit_test(it_is_found_in_memory),
        cmocka_unit_test(a_change_is_named),
        cmocka_unit_test(what_is_no_reference_is_refused),
        cmocka_unit_test(a_wrong_beginning_is_refused),
        cmocka_unit_test(a_log_that_lies_ends_nothing),
        cmocka_unit_test(words_of_the_guest_are_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
