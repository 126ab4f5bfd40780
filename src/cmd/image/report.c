/*
 * tenon image: sizes, names and JSON for standard output.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>

#include "cmd/image/image.h"

struct err *image_print_json(json_t *take_json)
{
    bool good = json_dumpf(take_json, stdout, JSON_INDENT(4)) == 0 && putchar('\n') != EOF;
    json_decref(take_json);
    return good && fflush(stdout) == 0 ? NULL : err_errno(errno, "cannot write the report");
}

void image_print_name(const char *name)
{
    for (; *name; name++)
        putchar((unsigned char)*name < ' ' || *name == 127 ? '?' : *name);
}

json_t *image_text_json(const char *text)
{
    json_t *json = json_string(text);
    return json ? json : json_string("?"); /* not UTF-8 */
}

void image_size_text(char *out, size_t room, uint64_t bytes)
{
    static const char units[] = "KMGTPE";
    unsigned unit = 0;
    if (bytes < 1024) {
        snprintf(out, room, "%u B", (unsigned)bytes);
        return;
    }
    double value = (double)bytes / 1024;
    for (; value >= 1024 && units[unit + 1]; unit++)
        value /= 1024;
    snprintf(out, room, "%.3g %ciB", value, units[unit]);
}
