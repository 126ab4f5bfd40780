/*
 * Tests of how log lines leave a process: JSON that jansson reads, the journal's protocol on a
 * socket of the test, and the choice between them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/log_output.h"

struct bed {
    struct log_output output;
    int saved_fd, stderr_fd; /* what the log wrote is in a memory file */
    int journal;
    char folder[32], path[64];
};

static int setup(void **state)
{
    static struct bed bed;
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    strcpy(bed.folder, "/tmp/tenon-log-XXXXXX");
    assert_non_null(mkdtemp(bed.folder));
    snprintf(bed.path, sizeof(bed.path), "%s/socket", bed.folder);
    bed.journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    strcpy(address.sun_path, bed.path);
    assert_int_equal(bind(bed.journal, (struct sockaddr *)&address, sizeof(address)), 0);
    bed.saved_fd = dup(STDERR_FILENO);
    bed.stderr_fd = memfd_create("stderr", MFD_CLOEXEC);
    dup2(bed.stderr_fd, STDERR_FILENO);
    bed.output.journal_fd = -1;
    *state = &bed;
    return 0;
}

static int teardown(void **state)
{
    struct bed *bed = *state;

    log_set_sink(NULL, NULL);
    dup2(bed->saved_fd, STDERR_FILENO);
    fd_cleanup(&bed->saved_fd);
    fd_cleanup(&bed->stderr_fd);
    fd_cleanup(&bed->journal);
    fd_cleanup(&bed->output.journal_fd);
    unlink(bed->path);
    rmdir(bed->folder);
    unsetenv("JOURNAL_STREAM");
    return 0;
}

static const char *said(const struct bed *bed)
{
    static char text[8192];
    ssize_t n = pread(bed->stderr_fd, text, sizeof(text) - 1, 0);

    text[n < 0 ? 0 : n] = 0;
    return text;
}

static void use(struct bed *bed, const char *format, const char *vm)
{
    assert_ok(log_output_open(&bed->output, format, vm, bed->path));
    log_output_use(&bed->output);
}

static const char *member(const json_t *json, const char *name)
{
    const char *text = json_string_value(json_object_get(json, name));

    return text ? text : "";
}

static void a_json_line_has_what_happened(void **state)
{
    struct bed *bed = *state;
    unsigned year, second;

    use(bed, "json", NULL);
    log_with(LOG_WARN, LOG_FIELDS({"vm", "web"}, {"reason", "a \"word\""}, {"gone", NULL}),
             "VM '%s': %s", "web", "two\nlines\\");
    assert_int_equal(strcspn(said(bed), "\n"), strlen(said(bed)) - 1); /* one line */
    json_t *json = json_loads(said(bed), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    assert_string_equal(member(json, "level"), "warning");
    assert_string_equal(member(json, "component"), program_invocation_short_name);
    assert_string_equal(member(json, "vm"), "web");
    assert_string_equal(member(json, "message"), "VM 'web': two\nlines\\");
    assert_string_equal(member(json, "reason"), "a \"word\"");
    assert_null(json_object_get(json, "gone"));
    assert_int_equal(json_integer_value(json_object_get(json, "pid")), getpid());
    assert_int_equal(sscanf(member(json, "time"), "%4u-%*2u-%*2uT%*2u:%*2u:%2u.", &year, &second),
                     2);
    assert_true(year >= 2024);
    assert_int_equal(member(json, "time")[strlen(member(json, "time")) - 1], 'Z');
    json_decref(json);
}

/* A guest chooses bytes of some lines: jansson takes UTF-8 alone. */
static void json_is_utf8_whatever_is_logged(void **state)
{
    struct bed *bed = *state;
    char all[256];

    for (int i = 0; i < 255; i++)
        all[i] = (char)(i + 1);
    all[255] = 0;
    use(bed, "json", "of the process");
    log_info("%s", all);
    log_info("%s", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80|\xc0\xaf|\xe0\x80\xaf|\xed\xa0\x80|"
                   "\xf4\x90\x80\x80|\xf0\x80\x80\x80|\xe2\x82");
    char *second = strchr(said(bed), '\n') + 1;
    json_t *json = json_loadb(said(bed), (size_t)(second - said(bed)), 0, NULL);
    assert_non_null(json);
    assert_string_equal(member(json, "vm"), "of the process");
    assert_memory_equal(member(json, "message"), all, 127);
    json_decref(json);
    json = json_loads(second, 0, NULL);
    assert_non_null(json);
    assert_memory_equal(member(json, "message"),
                        "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80|\xef\xbf\xbd", 13);
    json_decref(json);
}

static size_t receive(const struct bed *bed, char text[1024])
{
    ssize_t n = recv(bed->journal, text, 1023, MSG_DONTWAIT);

    assert_true(n > 0);
    text[n] = 0;
    return (size_t)n;
}

static void the_journal_gets_fields(void **state)
{
    static const char lines[] = "MESSAGE\n\3\0\0\0\0\0\0\0a\nb\n";
    struct bed *bed = *state;
    char text[1024];

    use(bed, "journald", "web");
    log_with(LOG_ERROR, LOG_FIELDS({"reason", "it broke"}), "that failed");
    receive(bed, text);
    assert_memory_equal(text, "PRIORITY=3\nSYSLOG_IDENTIFIER=", 29);
    assert_non_null(strstr(text, program_invocation_short_name));
    assert_non_null(strstr(text, "\nMESSAGE=that failed\nTENON_VM=web\nTENON_REASON=it broke\n"));
    log_debug("not at this level");
    log_info("a\nb");
    size_t len = receive(bed, text);
    assert_memory_equal(text, "PRIORITY=6\n", 11);
    assert_non_null(memmem(text, len, lines, sizeof(lines) - 1));
    assert_string_equal(said(bed), "");
}

/* Neither a journal that has gone nor one that is behind keeps a line or the caller. */
static void what_the_journal_does_not_take_is_text(void **state)
{
    struct bed *bed = *state;
    int lines = 0;

    use(bed, "journald", NULL);
    while (!strstr(said(bed), "number") && lines < 100000)
        log_info("number %d", lines++);
    assert_true(lines > 1 && lines < 100000); /* Linux keeps ten datagrams or so for a socket */
    fd_cleanup(&bed->journal);
    log_info("nobody listens");
    assert_non_null(strstr(said(bed), ": nobody listens\n"));
}

static void the_format_follows_standard_error(void **state)
{
    struct bed *bed = *state;
    struct stat status;
    char stream[64];

    assert_ok(log_output_open(&bed->output, NULL, NULL, bed->path));
    assert_string_equal(log_output_format(&bed->output), "text");
    assert_int_equal(fstat(STDERR_FILENO, &status), 0);
    snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_ino + 1);
    setenv("JOURNAL_STREAM", stream, 1);
    assert_ok(log_output_open(&bed->output, NULL, NULL, bed->path));
    assert_string_equal(log_output_format(&bed->output), "text");
    snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    assert_ok(log_output_open(&bed->output, NULL, NULL, "/nowhere/socket"));
    assert_string_equal(log_output_format(&bed->output), "text");
    assert_ok(log_output_open(&bed->output, NULL, NULL, bed->path));
    assert_string_equal(log_output_format(&bed->output), "journald");
    fd_cleanup(&bed->output.journal_fd);
    assert_err(log_output_open(&bed->output, "journald", NULL, "/nowhere/socket"), "/nowhere");
    assert_err(log_output_open(&bed->output, "xml", NULL, bed->path), "text, json or journald");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_json_line_has_what_happened, setup, teardown),
        cmocka_unit_test_setup_teardown(json_is_utf8_whatever_is_logged, setup, teardown),
        cmocka_unit_test_setup_teardown(the_journal_gets_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(what_the_journal_does_not_take_is_text, setup, teardown),
        cmocka_unit_test_setup_teardown(the_format_follows_standard_error, setup, teardown),
    };

    return cmocka_run_group_tests_name("base/log", tests, NULL, NULL);
}
