/*
 * libFuzzer target: event logs out of a guest's memory: found, parsed, replayed, compared.
 *
 * A finding is a crash or a sanitizer's report; text that is not printable; a log that differs from
 * a reference of itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <stdlib.h>

#include "attest/compare.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void compare(const struct event_log *log)
{
    const struct tpm_key key = {{1}, {2}};
    struct difference difference;
    json_t *reference = reference_make(&key, log);

    if (!reference || reference_compare(reference, &key, log, &difference))
        abort();
    for (unsigned i = 0; i < STAGES; i++) {
        if (difference.changed[i] || difference.key)
            abort();
    }
    difference_fini(&difference);
    json_decref(reference);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct event_log log;

    for (size_t at = event_log_find(data, size, 0); at < size;
         at = event_log_find(data, size, at + 1)) {
        struct err *err = event_log_parse(data + at, size - at, &log);
        for (unsigned i = 0; i < log.count; i++) {
            for (const char *text = log.event[i].text; *text; text++) {
                if (!isprint((unsigned char)*text))
                    abort();
            }
        }
        if (!err)
            compare(&log);
        err_free(err);
        event_log_fini(&log);
    }
    return 0;
}
