/*
 * The AML writer. See aml.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "hw/firmware/aml.h"

#define NAME_OP 0x08
#define BYTE_PREFIX 0x0a
#define WORD_PREFIX 0x0b
#define DWORD_PREFIX 0x0c
#define STRING_PREFIX 0x0d
#define QWORD_PREFIX 0x0e
#define SCOPE_OP 0x10
#define BUFFER_OP 0x11
#define PACKAGE_OP 0x12
#define METHOD_OP 0x14
#define DUAL_NAME_PREFIX 0x2e
#define MULTI_NAME_PREFIX 0x2f
#define EXT_PREFIX 0x5b
#define EXT_REGION 0x80
#define EXT_FIELD 0x81
#define EXT_DEVICE 0x82
#define IF_OP 0xa0
#define ELSE_OP 0xa1
#define FIELD_DWORD_WRITE_ZEROS 0x43 /* access in 32 bits, no lock, other bits written as 0 */

static void segment(struct buf *out, const char *text, size_t len)
{
    for (size_t i = 0; i < 4; i++)
        buf_u8(out, i < len ? (uint8_t)text[i] : '_');
}

void aml_path(struct aml *aml, const char *path)
{
    struct buf *out = aml->out;
    if (*path == '\\')
        buf_u8(out, (uint8_t)*path++);
    unsigned segments = *path ? 1 : 0;
    for (const char *at = path; *at; at++)
        segments += *at == '.';
    if (segments == 0)
        buf_u8(out, 0);
    else if (segments == 2)
        buf_u8(out, DUAL_NAME_PREFIX);
    else if (segments > 2) {
        buf_u8(out, MULTI_NAME_PREFIX);
        buf_u8(out, (uint8_t)segments);
    }
    for (unsigned i = 0; i < segments; i++) {
        size_t len = strcspn(path, ".");
        segment(out, path, len);
        path += len + (path[len] == '.');
    }
}

void aml_integer(struct aml *aml, uint64_t value)
{
    struct buf *out = aml->out;
    if (value <= 1) {
        buf_u8(out, (uint8_t)value); /* ZeroOp and OneOp */
    } else if (value <= UINT8_MAX) {
        buf_u8(out, BYTE_PREFIX);
        buf_u8(out, (uint8_t)value);
    } else if (value <= UINT16_MAX) {
        buf_u8(out, WORD_PREFIX);
        buf_le16(out, (uint16_t)value);
    } else if (value <= UINT32_MAX) {
        buf_u8(out, DWORD_PREFIX);
        buf_le32(out, (uint32_t)value);
    } else {
        buf_u8(out, QWORD_PREFIX);
        buf_le64(out, value);
    }
}

void aml_string(struct aml *aml, const char *text)
{
    buf_u8(aml->out, STRING_PREFIX);
    buf_append(aml->out, text, strlen(text) + 1);
}

static unsigned hex_digit(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c & ~0x20) - 'A' + 10;
}

void aml_eisa_id(struct aml *aml, const char *id)
{
    uint32_t value = (uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 |
                     (uint32_t)(id[2] - '@') << 16;
    for (unsigned i = 0; i < 4; i++)
        value |= hex_digit(id[3 + i]) << (12 - 4 * i);
    buf_u8(aml->out, DWORD_PREFIX);
    buf_le32(aml->out, __builtin_bswap32(value));
}

/* The number of bytes that a package length needs in front of `len` bytes. */
static unsigned length_bytes(size_t len)
{
    if (len + 1 < 1u << 6)
        return 1;
    if (len + 2 < 1u << 12)
        return 2;
    return len + 3 < 1u << 20 ? 3 : 4;
}

static void put_length(uint8_t *at, unsigned bytes, size_t len)
{
    len += bytes; /* the length counts itself */
    if (bytes == 1) {
        at[0] = (uint8_t)len;
        return;
    }
    at[0] = (uint8_t)((bytes - 1) << 6 | (len & 0x0f));
    for (unsigned i = 1; i < bytes; i++)
        at[i] = (uint8_t)(len >> (8 * i - 4));
}

static void begin(struct aml *aml, unsigned opcode)
{
    aml_op(aml, opcode);
    aml->open[aml->depth++] = aml->out->len;
}

void aml_end(struct aml *aml)
{
    struct buf *out = aml->out;
    size_t start = aml->open[--aml->depth], len = out->len - start;
    unsigned bytes = length_bytes(len);
    buf_extend(out, bytes);
    memmove(out->data + start + bytes, out->data + start, len);
    put_length(out->data + start, bytes, len);
}

void aml_op(struct aml *aml, unsigned opcode)
{
    if (opcode > 0xff)
        buf_u8(aml->out, (uint8_t)(opcode >> 8));
    buf_u8(aml->out, (uint8_t)opcode);
}

void aml_name(struct aml *aml, const char *path)
{
    buf_u8(aml->out, NAME_OP);
    aml_path(aml, path);
}

void aml_name_integer(struct aml *aml, const char *path, uint64_t value)
{
    aml_name(aml, path);
    aml_integer(aml, value);
}

void aml_scope(struct aml *aml, const char *path)
{
    begin(aml, SCOPE_OP);
    aml_path(aml, path);
}

void aml_device(struct aml *aml, const char *name)
{
    begin(aml, EXT_PREFIX << 8 | EXT_DEVICE);
    aml_path(aml, name);
}

void aml_method(struct aml *aml, const char *name, unsigned arguments, bool serialized)
{
    begin(aml, METHOD_OP);
    aml_path(aml, name);
    buf_u8(aml->out, (uint8_t)(arguments | serialized << 3));
}

void aml_package(struct aml *aml, unsigned elements)
{
    begin(aml, PACKAGE_OP);
    buf_u8(aml->out, (uint8_t)elements);
}

void aml_if(struct aml *aml)
{
    begin(aml, IF_OP);
}

void aml_else(struct aml *aml)
{
    begin(aml, ELSE_OP);
}

void aml_region(struct aml *aml, const char *name, enum aml_space space, uint64_t base,
                uint64_t length)
{
    aml_op(aml, EXT_PREFIX << 8 | EXT_REGION);
    aml_path(aml, name);
    buf_u8(aml->out, (uint8_t)space);
    aml_integer(aml, base);
    aml_integer(aml, length);
}

void aml_field32(struct aml *aml, const char *region, const char *name)
{
    begin(aml, EXT_PREFIX << 8 | EXT_FIELD);
    aml_path(aml, region);
    buf_u8(aml->out, FIELD_DWORD_WRITE_ZEROS);
    segment(aml->out, name, strlen(name));
    put_length(buf_extend(aml->out, 1), 1, 32 - 1); /* in a field list: bits, itself not counted */
    aml_end(aml);
}

static void buffer(struct aml *aml, const void *bytes, size_t len)
{
    begin(aml, BUFFER_OP);
    aml_integer(aml, len);
    buf_append(aml->out, bytes, len);
    aml_end(aml);
}

/* Text order is big-endian; the first three groups are stored little-endian. */
void aml_uuid(struct aml *aml, const char *text)
{
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    uint8_t bytes[16];
    for (unsigned i = 0; i < 16; i++) {
        if (*text == '-')
            text++;
        bytes[order[i]] = (uint8_t)(hex_digit(text[0]) << 4 | hex_digit(text[1]));
        text += 2;
    }
    buffer(aml, bytes, sizeof(bytes));
}

void aml_resources(struct aml *aml, struct buf *scratch)
{
    aml_name(aml, "_CRS");
    scratch->len = 0;
}

void aml_resources_end(struct aml *aml, struct buf *scratch)
{
    buf_u8(scratch, 0x79); /* end tag; checksum 0: not given */
    buf_u8(scratch, 0);
    buffer(aml, scratch->data, scratch->len);
}

void aml_res_io(struct buf *out, uint16_t base, uint8_t length)
{
    buf_u8(out, 0x47);
    buf_u8(out, 1); /* decodes 16 bits */
    buf_le16(out, base);
    buf_le16(out, base);
    buf_u8(out, 1);
    buf_u8(out, length);
}

void aml_res_irq(struct buf *out, unsigned irq)
{
    buf_u8(out, 0x23);
    buf_le16(out, (uint16_t)(1u << irq));
    buf_u8(out, 1); /* edge, active high, exclusive */
}

void aml_res_memory32(struct buf *out, uint32_t base, uint32_t length)
{
    buf_u8(out, 0x86);
    buf_le16(out, 9);
    buf_u8(out, 1); /* writable */
    buf_le32(out, base);
    buf_le32(out, length);
}

void aml_res_interrupt(struct buf *out, uint32_t gsi, bool level)
{
    buf_u8(out, 0x89);
    buf_le16(out, 6);
    buf_u8(out, level ? 0x01 : 0x03); /* consumer, trigger, active high, exclusive */
    buf_u8(out, 1);
    buf_le32(out, gsi);
}

void aml_res_window(struct buf *out, enum aml_window kind, uint64_t base, uint64_t length)
{
    unsigned width = kind != AML_WINDOW_MEMORY ? 2 : base + length - 1 <= UINT32_MAX ? 4 : 8;
    /* Memory: writable; I/O: the whole range. */
    uint8_t flags = kind == AML_WINDOW_MEMORY ? 0x01 : kind == AML_WINDOW_IO ? 0x03 : 0x00;
    buf_u8(out, width == 2 ? 0x88 : width == 4 ? 0x87 : 0x8a);
    buf_le16(out, (uint16_t)(3 + 5 * width));
    buf_u8(out, (uint8_t)kind);
    buf_u8(out, 0x0c); /* producer, minimum and maximum fixed */
    buf_u8(out, flags);
    uint8_t *at = buf_extend(out, 5ul * width); /* granularity and translation stay 0 */
    put_le(at + width, width, base);
    put_le(at + 2 * width, width, base + length - 1);
    put_le(at + 4 * width, width, length);
}
