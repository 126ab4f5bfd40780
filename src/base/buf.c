/*
 * Growing byte buffer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/bytes.h"

void buf_fini(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf)BUF_INIT;
}

/* Room for `len` more bytes and a final zero that is not counted. */
static void buf_reserve(struct buf *buf, size_t len)
{
    size_t need = buf->len + len + 1;
    if (need <= buf->capacity)
        return;
    buf->capacity = MAX(need, MAX(buf->capacity * 2, (size_t)64));
    buf->data = xrealloc(buf->data, buf->capacity, 1);
}

uint8_t *buf_extend(struct buf *buf, size_t len)
{
    buf_reserve(buf, len);
    uint8_t *start = buf->data + buf->len;
    memset(start, 0, len + 1);
    buf->len += len;
    return start;
}

void buf_append(struct buf *buf, const void *bytes, size_t len)
{
    if (len)
        memcpy(buf_extend(buf, len), bytes, len);
}

void buf_drop(struct buf *buf, size_t len)
{
    buf->len -= len;
    if (buf->len)
        memmove(buf->data, buf->data + len, buf->len);
}

void buf_u8(struct buf *buf, uint8_t value)
{
    buf_extend(buf, 1)[0] = value;
}

void buf_le16(struct buf *buf, uint16_t value)
{
    put_le16(buf_extend(buf, 2), value);
}

void buf_le32(struct buf *buf, uint32_t value)
{
    put_le32(buf_extend(buf, 4), value);
}

void buf_le64(struct buf *buf, uint64_t value)
{
    put_le64(buf_extend(buf, 8), value);
}

void buf_text(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    scoped(free_cleanup) char *text = NULL;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    if (length > 0)
        buf_append(buf, text, (size_t)length);
}
