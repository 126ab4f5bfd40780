/*
 * Framing of a byte stream into JSON objects: counts brackets outside of strings. Whether the bytes
 * between are JSON is the parser's matter.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "ctl/frame.h"

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* One byte inside a message; true when it is the last one. */
static bool inside(struct json_frame *frame, char c)
{
    frame->length++;
    if (frame->in_string) {
        if (frame->escaped)
            frame->escaped = false;
        else if (c == '\\')
            frame->escaped = true;
        else if (c == '"')
            frame->in_string = false;
        return false;
    }
    if (c == '"') {
        frame->in_string = true;
    } else if (c == '{' || c == '[') {
        frame->depth++;
    } else if ((c == '}' || c == ']') && --frame->depth == 0) {
        frame->length = 0;
        return true;
    }
    return false;
}

enum json_frame_result json_frame_scan(struct json_frame *frame, const char *bytes, size_t len,
                                       size_t *begin, size_t *used)
{
    *begin = 0;
    for (size_t i = 0; i < len; i++) {
        char c = bytes[i];

        if (frame->length) {
            if (inside(frame, c)) {
                *used = i + 1;
                return JSON_FRAME_DONE;
            }
        } else if (frame->junk) {
            frame->junk = c != '\n';
        } else if (c == '{') {
            *begin = i;
            frame->length = 1;
            frame->depth = 1;
        } else if (!is_space(c)) {
            frame->junk = true;
            *used = i + 1;
            return JSON_FRAME_JUNK;
        }
    }
    *used = len;
    return JSON_FRAME_MORE;
}
