/*
 * Framing of JSON objects out of a byte stream, whole and in pieces of every size.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <string.h>

#include "base/buf.h"
#include "ctl/frame.h"

/* Feeds `text` in pieces of `step` bytes; messages end up in `out`, each with a '|', junk as '!'.
 */
static void feed(const char *text, size_t step, char *out)
{
    struct json_frame frame = {0};
    struct buf message = BUF_INIT;
    size_t len = strlen(text);

    *out = 0;
    for (size_t at = 0; at < len; at += step) {
        const char *bytes = text + at;
        size_t left = MIN(step, len - at);

        while (left) {
            size_t begin, used;
            enum json_frame_result result = json_frame_scan(&frame, bytes, left, &begin, &used);

            assert_true(used <= left && begin <= used && used > 0);
            if (result == JSON_FRAME_JUNK)
                strcat(out, "!");
            else if (result == JSON_FRAME_DONE || frame.length)
                buf_append(&message, bytes + begin, used - begin);
            if (result == JSON_FRAME_DONE) {
                strncat(out, (char *)message.data, message.len);
                strcat(out, "|");
                message.len = 0;
            }
            bytes += used;
            left -= used;
        }
    }
    buf_fini(&message);
}

static void test_messages(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"{}", "{}|"},
        {"{}{}", "{}|{}|"},
        {" \r\n{\"a\":1}\n\t{\"b\":[1,{}]}", "{\"a\":1}|{\"b\":[1,{}]}|"},
        {"{\"a\":\"}\"}", "{\"a\":\"}\"}|"},
        {"{\"a\":\"\\\"}\"}", "{\"a\":\"\\\"}\"}|"},
        {"{\"a\":\"\\\\\"}{}", "{\"a\":\"\\\\\"}|{}|"},
        {"x\n{}", "!{}|"},
        {"garbage { } more\n{}", "!{}|"},
        {"]]\n{}", "!{}|"},
        {"{\"a\":", ""},
        {"", ""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        for (size_t step = 1; step <= 9; step++) {
            char out[200];

            feed(cases[i].text, step, out);
            assert_string_equal(out, cases[i].expected);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
    };

    return cmocka_run_group_tests_name("ctl/frame", tests, NULL, NULL);
}
