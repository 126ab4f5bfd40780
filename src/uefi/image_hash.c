/*
 * Hashes of images (Windows Authenticode Portable Executable Signature Format). See image_hash.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "uefi/image_hash.h"

#include <gnutls/crypto.h>
#include <stdlib.h>

#include "base/bytes.h"

#define PE_OFFSET_AT 0x3c
#define COFF_HEADER 24u /* with the signature before it */
#define SECTIONS_AT 6
#define OPTIONAL_SIZE_AT 20
#define MAGIC_PE32 0x10b
#define MAGIC_PE32_PLUS 0x20b
#define HEADERS_SIZE_AT 60u
#define CHECKSUM_AT 64u
/* Data directories, from the optional header on; the fifth is that of the signatures. */
#define DIRECTORIES_PE32_AT 96u
#define DIRECTORIES_PE32_PLUS_AT 112u
#define SIGNATURES 4
#define DIRECTORY 8u
#define SECTION 40u
#define SECTION_SIZE_AT 16
#define SECTION_OFFSET_AT 20

struct range {
    size_t from, to;
};

struct pe {
    const uint8_t *bytes;
    size_t len;
    size_t optional, directories; /* offsets */
    size_t sections;
    unsigned section_count;
    size_t headers_end;
    size_t signatures; /* bytes of them, at the end of the file */
};

bool image_is_pe(const uint8_t *bytes, size_t len)
{
    return len >= PE_OFFSET_AT + 4 && bytes[0] == 'M' && bytes[1] == 'Z';
}

static bool parse(const uint8_t *bytes, size_t len, struct pe *pe)
{
    *pe = (struct pe){.bytes = bytes, .len = len};
    if (!image_is_pe(bytes, len))
        return false;
    size_t at = get_le32(bytes + PE_OFFSET_AT);
    if (at > len || len - at < COFF_HEADER || memcmp(bytes + at, "PE\0", 4) != 0)
        return false;
    size_t optional_size = get_le16(bytes + at + OPTIONAL_SIZE_AT);
    pe->optional = at + COFF_HEADER;
    pe->section_count = get_le16(bytes + at + SECTIONS_AT);
    pe->sections = pe->optional + optional_size;
    if (pe->sections > len || len - pe->sections < (size_t)pe->section_count * SECTION)
        return false;
    uint16_t magic = optional_size >= 2 ? get_le16(bytes + pe->optional) : 0;
    pe->directories =
        pe->optional + (magic == MAGIC_PE32 ? DIRECTORIES_PE32_AT : DIRECTORIES_PE32_PLUS_AT);
    if ((magic != MAGIC_PE32 && magic != MAGIC_PE32_PLUS) ||
        pe->directories + (SIGNATURES + 1) * DIRECTORY > pe->sections)
        return false;
    pe->headers_end = get_le32(bytes + pe->optional + HEADERS_SIZE_AT);
    pe->signatures = get_le32(bytes + pe->directories + SIGNATURES * DIRECTORY + 4);
    return pe->headers_end <= len && pe->headers_end >= pe->sections && pe->signatures <= len;
}

static int by_offset(const void *a, const void *b)
{
    const struct range *one = a, *other = b;

    return (one->from > other->from) - (one->from < other->from);
}

/* Sections that lie in the file, by their place in it; false: one does not. */
static bool find_sections(const struct pe *pe, struct range *range, unsigned *count)
{
    for (unsigned i = 0; i < pe->section_count; i++) {
        const uint8_t *section = pe->bytes + pe->sections + (size_t)i * SECTION;
        size_t from = get_le32(section + SECTION_OFFSET_AT);
        size_t size = get_le32(section + SECTION_SIZE_AT);
        if (!size)
            continue;
        if (from > pe->len || size > pe->len - from)
            return false;
        range[(*count)++] = (struct range){from, from + size};
    }
    qsort(range, *count, sizeof(*range), by_offset);
    return true;
}

struct err *image_hash(const uint8_t *bytes, size_t len, uint8_t hash[SHA256_SIZE])
{
    struct pe pe;
    gnutls_hash_hd_t state;

    if (!parse(bytes, len, &pe))
        return err_new("it is no EFI program, or a broken one");
    scoped(free_cleanup) struct range *range = xcalloc(pe.section_count + 4, sizeof(*range));
    size_t checksum = pe.optional + CHECKSUM_AT, entry = pe.directories + SIGNATURES * DIRECTORY;
    range[0] = (struct range){0, checksum};
    range[1] = (struct range){checksum + 4, entry};
    range[2] = (struct range){entry + DIRECTORY, pe.headers_end};
    unsigned count = 0;
    if (!find_sections(&pe, range + 3, &count))
        return err_new("a section of it lies outside of the file");
    size_t hashed = pe.headers_end;
    for (unsigned i = 0; i < count; i++)
        hashed += range[3 + i].to - range[3 + i].from;
    /* What follows the sections counts too, but for the signatures. */
    if (hashed < len - pe.signatures)
        range[3 + count++] = (struct range){hashed, len - pe.signatures};
    if (gnutls_hash_init(&state, GNUTLS_DIG_SHA256) < 0)
        return err_new("no memory for a hash");
    for (unsigned i = 0; i < 3 + count; i++)
        gnutls_hash(state, bytes + range[i].from, range[i].to - range[i].from);
    gnutls_hash_deinit(state, hash);
    return NULL;
}
