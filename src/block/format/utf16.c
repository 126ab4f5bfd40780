/*
 * UTF-16 and UTF-8; see utf16.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/format/utf16.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

static size_t put_utf8(char *out, uint32_t code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    unsigned more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(lead[more] | code >> (6 * more));
    for (unsigned i = 1; i <= more; i++)
        out[i] = (char)(0x80 | (code >> (6 * (more - i)) & 0x3f));
    return more + 1;
}

char *utf16_text(const uint8_t *bytes, size_t length, bool big_endian)
{
    if (length > KIB(64))
        return NULL;
    char *text = xcalloc(length / 2 * 3 + 4, 1);
    size_t used = 0;
    for (size_t i = 0; i + 2 <= length; i += 2) {
        uint32_t code = big_endian ? get_be16(bytes + i) : get_le16(bytes + i);
        if (!code)
            break;
        if (code >= 0xd800 && code < 0xe000) {
            uint32_t low = 0;
            if (i + 4 <= length)
                low = big_endian ? get_be16(bytes + i + 2) : get_le16(bytes + i + 2);
            if (code >= 0xdc00 || low < 0xdc00 || low >= 0xe000) {
                free(text);
                return NULL;
            }
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            i += 2;
        }
        if (code < 0x20) { /* no name; it would end up on somebody's terminal */
            free(text);
            return NULL;
        }
        used += put_utf8(text + used, code);
    }
    return text;
}

/* One code point; *at moves on. 0 if it is none. */
static uint32_t get_utf8(const uint8_t **at)
{
    uint32_t code = *(*at)++;
    if (code < 0x80)
        return code;
    unsigned more = code >= 0xf0 && code < 0xf5   ? 3
                    : code >= 0xe0 && code < 0xf0 ? 2
                    : code >= 0xc2 && code < 0xe0 ? 1
                                                  : 0;
    code &= 0x3fu >> more;
    for (unsigned i = 0; i < more; i++, (*at)++) {
        if ((**at & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (**at & 0x3f);
    }
    return more ? code : 0;
}

static void put_unit(uint8_t *at, uint32_t unit, bool big_endian)
{
    if (big_endian)
        put_be16(at, (uint16_t)unit);
    else
        put_le16(at, (uint16_t)unit);
}

size_t utf16_from_text(const char *text, uint8_t *bytes, size_t room, bool big_endian)
{
    const uint8_t *at = (const uint8_t *)text;
    size_t used = 0;
    while (*at) {
        uint32_t code = get_utf8(&at);
        if (!code || code >= 0x110000 || used + 4 > room)
            return 0;
        if (code >= 0x10000) {
            put_unit(bytes + used, 0xd800 + ((code - 0x10000) >> 10), big_endian);
            used += 2;
            code = 0xdc00 + ((code - 0x10000) & 0x3ff);
        }
        put_unit(bytes + used, code, big_endian);
        used += 2;
    }
    return used;
}

void utf16_tidy_path(char *path)
{
    for (char *at = path; *at; at++)
        if (*at == '\\')
            *at = '/';
    size_t skip = 0;
    while (path[skip] == '.' && path[skip + 1] == '/')
        skip += 2;
    memmove(path, path + skip, strlen(path + skip) + 1);
}
