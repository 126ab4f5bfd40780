/*
 * Framing of a byte stream into JSON objects, with no newline needed between them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CTL_FRAME_H
#define TENON_CTL_FRAME_H

#include "base/base.h"

/* Where the scan stands; all zero at first. */
struct json_frame {
    unsigned depth;
    bool in_string, escaped;
    bool junk;     /* skipping to the end of a line that did not begin with an object */
    size_t length; /* of the message so far, its first byte included */
};

enum json_frame_result {
    JSON_FRAME_MORE, /* all taken, nothing complete */
    JSON_FRAME_DONE, /* a message ends at *used */
    JSON_FRAME_JUNK, /* bytes outside an object begin; reported once, skipped up to the newline */
};

/*
 * Scans `bytes`; *used says how many are behind the scan. Bytes belong to the message from where
 * *begin points (relative to `bytes`) while frame->length is not 0; they are kept by the caller.
 */
enum json_frame_result json_frame_scan(struct json_frame *frame, const char *bytes, size_t len,
                                       size_t *begin, size_t *used);

#endif
