/*
 * Log lines as JSON (RFC 8259) and in the journal's native protocol, as systemd documents it in
 * "Native Journal Protocol". See log_output.h. Called by the log, one line at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/log_output.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/socket.h"

static const char *const format_names[] = {"text", "json", "journald"};
static const char *const level_names[] = {"error", "warning", "info", "debug"};
static const unsigned level_priority[] = {3, 4, 6, 7}; /* syslog(3) */

const char *log_output_format(const struct log_output *output)
{
    return format_names[output->format];
}

/* ---- JSON ---- */

/* Length of the well-formed UTF-8 sequence (RFC 3629) that text begins with; 0: there is none. */
static unsigned utf8_length(const unsigned char *text)
{
    unsigned length = text[0] < 0x80 ? 1 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;

    if ((text[0] >= 0x80 && text[0] < 0xc2) || text[0] > 0xf4)
        return 0;
    for (unsigned i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    /* Longer than need be, half of a surrogate pair, behind the last code point. */
    if ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f) ||
        (text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] > 0x8f))
        return 0;
    return length;
}

/* What is no UTF-8, a guest's bytes or a sentence cut short, becomes U+FFFD. */
static void json_string(struct buf *out, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;

    buf_u8(out, '"');
    while (*at) {
        unsigned length = utf8_length(at);
        if (!length)
            buf_text(out, "\xef\xbf\xbd");
        else if (*at == '"' || *at == '\\')
            buf_printf(out, "\\%c", *at);
        else if (*at < ' ' || *at == 127)
            buf_printf(out, "\\u%04x", *at);
        else
            buf_append(out, at, length);
        at += length ? length : 1;
    }
    buf_u8(out, '"');
}

static void json_member(struct buf *out, const char *name, const char *value)
{
    if (!value)
        return;
    buf_printf(out, ",\"%s\":", name);
    json_string(out, value);
}

static const char *vm_of(const struct log_output *output, const struct log_record *record)
{
    for (const struct log_field *field = record->field; field->name; field++)
        if (!strcmp(field->name, "vm"))
            return field->value;
    return output->vm;
}

static void write_json(const struct log_output *output, const struct log_record *record)
{
    struct buf out = BUF_INIT;
    char time[CLOCK_TEXT_SIZE];

    clock_text(clock_wall_ns(), time);
    buf_printf(&out, "{\"time\":\"%s\",\"level\":\"%s\"", time, level_names[record->level]);
    json_member(&out, "component", program_invocation_short_name);
    buf_printf(&out, ",\"pid\":%ld", (long)getpid());
    json_member(&out, "vm", vm_of(output, record));
    json_member(&out, "message", record->message);
    for (const struct log_field *field = record->field; field->name; field++)
        if (strcmp(field->name, "vm") != 0)
            json_member(&out, field->name, field->value);
    buf_text(&out, "}\n");
    (void)!write(STDERR_FILENO, out.data, out.len); /* one write: lines do not mix */
    buf_fini(&out);
}

/* ---- the journal ---- */

/* NAME=value, or, for a value of several lines, its length before it. */
static void journal_field(struct buf *out, const char *prefix, const char *name, const char *value)
{
    if (!value)
        return;
    buf_text(out, prefix);
    for (; *name; name++)
        buf_u8(out, (uint8_t)toupper((unsigned char)*name));
    if (strchr(value, '\n')) {
        buf_u8(out, '\n');
        buf_le64(out, strlen(value));
    } else {
        buf_u8(out, '=');
    }
    buf_text(out, value);
    buf_u8(out, '\n');
}

static bool send_journal(const struct log_output *output, const struct log_record *record)
{
    struct buf out = BUF_INIT;

    buf_printf(&out, "PRIORITY=%u\n", level_priority[record->level]);
    journal_field(&out, "", "SYSLOG_IDENTIFIER", program_invocation_short_name);
    journal_field(&out, "", "MESSAGE", record->message);
    journal_field(&out, "TENON_", "VM", vm_of(output, record));
    for (const struct log_field *field = record->field; field->name; field++)
        if (strcmp(field->name, "vm") != 0)
            journal_field(&out, "TENON_", field->name, field->value);
    /* A VM does not wait for a journal that is behind. */
    ssize_t sent = send(output->journal_fd, out.data, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    buf_fini(&out);
    return sent >= 0;
}

/* ---- the sink ---- */

static void sink(void *opaque, const struct log_record *record)
{
    const struct log_output *output = opaque;

    if (output->format == LOG_JSON)
        write_json(output, record);
    else if (!send_journal(output, record))
        log_write_text(record->message);
}

void log_output_use(struct log_output *output)
{
    log_set_sink(output->format == LOG_TEXT ? NULL : sink, output);
}

/* ---- opening ---- */

static struct err *parse_format(const char *name, enum log_format *format)
{
    for (unsigned i = 0; i < ARRAY_SIZE(format_names); i++) {
        if (strcmp(name, format_names[i]) != 0)
            continue;
        *format = (enum log_format)i;
        return NULL;
    }
    return err_of(ERR_USAGE, "--log-format is text, json or journald, not '%s'", name);
}

static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat status;

    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &status) == 0 && status.st_dev == device && status.st_ino == inode;
}

static struct err *connect_journal(const char *path, int *result)
{
    *result = socket_connect(path, SOCK_DGRAM);
    return *result < 0 ? err_errno(errno, "--log-format journald: '%s'", path) : NULL;
}

struct err *log_output_open(struct log_output *output, const char *format, const char *vm,
                            const char *journal)
{
    *output = (struct log_output){.format = LOG_TEXT, .vm = vm, .journal_fd = -1};
    if (format)
        TRY(parse_format(format, &output->format));
    else if (stderr_is_journal())
        output->format = LOG_JOURNALD;
    if (output->format != LOG_JOURNALD)
        return NULL;
    struct err *err = connect_journal(journal, &output->journal_fd);
    if (err && !format) {
        output->format = LOG_TEXT; /* the stream takes it as well */
        err_free(err);
        err = NULL;
    }
    return err;
}
