/*
 * Names in UTF-16, as the formats of Microsoft have them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_FORMAT_UTF16_H
#define TENON_BLOCK_FORMAT_UTF16_H

#include "base/base.h"

/* A name in UTF-16 as UTF-8 in new memory; ends at a zero; NULL if it is no text. */
char *utf16_text(const uint8_t *bytes, size_t length, bool big_endian);
/* Takes UTF-8; returns the bytes written, 0 if it is no text or does not fit. */
size_t utf16_from_text(const char *text, uint8_t *bytes, size_t room, bool big_endian);
/* A relative path of Windows as one of ours, in place: "/" between parts, no "./" in front. */
void utf16_tidy_path(char *path);

#endif
