/*
 * A growing run of bytes: ACPI tables, state streams, reports. Not for guest-chosen sizes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_BUF_H
#define TENON_BASE_BUF_H

#include "base/base.h"

struct buf {
    uint8_t *data; /* owned; NULL while empty, otherwise a zero byte follows the last one */
    size_t len;
    size_t capacity;
};

#define BUF_INIT                                                                                   \
    {                                                                                              \
        0                                                                                          \
    }

void buf_fini(struct buf *buf);
/* `len` zero bytes at the end; the pointer holds until the next append. */
uint8_t *buf_extend(struct buf *buf, size_t len);
void buf_append(struct buf *buf, const void *bytes, size_t len);
/* The first `len` bytes go; there are that many. */
void buf_drop(struct buf *buf, size_t len);
void buf_u8(struct buf *buf, uint8_t value);
void buf_le16(struct buf *buf, uint16_t value);
void buf_le32(struct buf *buf, uint32_t value);
void buf_le64(struct buf *buf, uint64_t value);
/* Text without its final zero. */
void buf_text(struct buf *buf, const char *text);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
