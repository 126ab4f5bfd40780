/*
 * SMBIOS tables (DMTF DSP0134 3.3). See smbios.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdarg.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/firmware/smbios.h"

#define ENTRY_SIZE 24
#define VENDOR "Tenon"

enum {
    HANDLE_BIOS = 0x0000,
    HANDLE_SYSTEM = 0x0100,
    HANDLE_CHASSIS = 0x0300,
    HANDLE_PROCESSOR = 0x0400,
    HANDLE_ARRAY = 0x1000,
    HANDLE_DIMM = 0x1100,
    HANDLE_RANGE = 0x1300,
    HANDLE_BOOT = 0x2000,
    HANDLE_END = 0x7f00
};

/* A zeroed structure of `len` bytes; its pointer holds until the next append. */
static uint8_t *structure(struct buf *out, uint8_t type, uint8_t len, uint16_t handle)
{
    uint8_t *at = buf_extend(out, len);
    at[0] = type;
    at[1] = len;
    put_le16(at + 2, handle);
    return at;
}

/* The strings behind a structure, numbered from 1; the list ends with NULL. */
static void strings(struct buf *out, ...)
{
    va_list list;
    const char *text;
    bool any = false;
    va_start(list, out);
    while ((text = va_arg(list, const char *))) {
        /* An empty string would end the list. */
        buf_append(out, *text ? text : " ", *text ? strlen(text) + 1 : 2);
        any = true;
    }
    va_end(list);
    if (!any)
        buf_u8(out, 0);
    buf_u8(out, 0);
}

static void bios(struct buf *out)
{
    uint8_t *at = structure(out, 0, 26, HANDLE_BIOS);
    at[4] = 1;
    at[5] = 2;
    put_le16(at + 6, 0xe000);
    at[8] = 3;
    put_le64(at + 10, 1u << 3); /* no further characteristics */
    at[19] = 0x10;              /* a virtual machine */
    at[20] = 0;
    at[21] = 1;
    at[22] = at[23] = 0xff; /* no embedded controller */
    strings(out, VENDOR, TENON_VERSION, "01/01/2026", (char *)NULL);
}

static void system_information(struct buf *out, const struct smbios_config *config)
{
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    uint8_t *at = structure(out, 1, 27, HANDLE_SYSTEM);
    at[4] = 1;
    at[5] = 2;
    at[6] = 3;
    at[7] = config->name ? 4 : 0;
    for (unsigned i = 0; i < 16; i++)
        at[8 + order[i]] = config->uuid[i];
    at[24] = 6; /* woken by the power switch */
    strings(out, VENDOR, config->board, TENON_VERSION, config->name, (char *)NULL);
}

static void chassis(struct buf *out)
{
    uint8_t *at = structure(out, 3, 22, HANDLE_CHASSIS);
    at[4] = 1;
    at[5] = 1;                   /* type: other */
    at[9] = at[10] = at[11] = 3; /* boot, power, thermal state: safe */
    at[12] = 2;                  /* security: unknown */
    strings(out, VENDOR, (char *)NULL);
}

static void processor(struct buf *out, unsigned cpus)
{
    uint8_t *at = structure(out, 4, 48, HANDLE_PROCESSOR);
    uint8_t short_count = (uint8_t)MIN(cpus, 255u);
    at[4] = 1;
    at[5] = 3; /* central processor */
    at[6] = 1; /* family: other */
    at[7] = 2;
    at[24] = 0x41;             /* socket populated, enabled */
    at[25] = 1;                /* socket type: other */
    put_le16(at + 26, 0xffff); /* no information about caches */
    put_le16(at + 28, 0xffff);
    put_le16(at + 30, 0xffff);
    at[35] = at[36] = at[37] = short_count; /* cores, enabled, threads */
    put_le16(at + 38, 0x000c);              /* 64-bit, multi-core */
    put_le16(at + 40, 1);
    put_le16(at + 42, (uint16_t)cpus);
    put_le16(at + 44, (uint16_t)cpus);
    put_le16(at + 46, (uint16_t)cpus);
    strings(out, "CPU 0", VENDOR, (char *)NULL);
}

static void memory_array(struct buf *out, uint64_t bytes)
{
    uint8_t *at = structure(out, 16, 23, HANDLE_ARRAY);
    at[4] = 1; /* location: other */
    at[5] = 3; /* system memory */
    at[6] = 3; /* no error correction */
    put_le32(at + 7, 0x80000000u);
    put_le16(at + 11, 0xfffe); /* error information not provided */
    put_le16(at + 13, 1);
    put_le64(at + 15, bytes);
    strings(out, (char *)NULL);
}

static void memory_device(struct buf *out, uint64_t bytes)
{
    uint64_t mib = bytes / MIB(1);
    uint8_t *at = structure(out, 17, 40, HANDLE_DIMM);
    put_le16(at + 4, HANDLE_ARRAY);
    put_le16(at + 6, 0xfffe);
    put_le16(at + 8, 0xffff); /* widths unknown */
    put_le16(at + 10, 0xffff);
    put_le16(at + 12, mib < 0x7fff ? (uint16_t)mib : 0x7fff);
    at[14] = 9; /* DIMM */
    at[16] = 1;
    at[18] = 7;              /* RAM */
    put_le16(at + 19, 0x02); /* other */
    at[23] = 2;
    put_le32(at + 28, mib < 0x7fff ? 0 : (uint32_t)mib);
    strings(out, "DIMM 0", VENDOR, (char *)NULL);
}

static void memory_range(struct buf *out, unsigned index, uint64_t start, uint64_t bytes)
{
    if (!bytes)
        return;
    uint8_t *at = structure(out, 19, 31, (uint16_t)(HANDLE_RANGE + index));
    uint64_t last = start + bytes - 1;
    /* Where kilobytes do not fit 32 bits, the wide fields speak. */
    bool wide = last / KIB(1) >= UINT32_MAX;
    put_le32(at + 4, wide ? UINT32_MAX : (uint32_t)(start / KIB(1)));
    put_le32(at + 8, wide ? UINT32_MAX : (uint32_t)(last / KIB(1)));
    put_le16(at + 12, HANDLE_ARRAY);
    at[14] = 1;
    put_le64(at + 15, wide ? start : 0);
    put_le64(at + 23, wide ? last : 0);
    strings(out, (char *)NULL);
}

static void put_entry(uint8_t *at, uint64_t table, size_t size)
{
    memcpy(at, "_SM3_", 5);
    at[6] = ENTRY_SIZE;
    at[7] = 3;
    at[8] = 3;
    at[10] = 1; /* entry point revision */
    put_le32(at + 12, (uint32_t)size);
    put_le64(at + 16, table);
    uint8_t sum = 0;
    for (unsigned i = 0; i < ENTRY_SIZE; i++)
        sum = (uint8_t)(sum + at[i]);
    at[5] = (uint8_t)-sum;
}

struct err *smbios_build(const struct smbios_config *config, uint64_t gpa, size_t size_max,
                         struct buf *out)
{
    size_t start = out->len;
    uint64_t ram = config->low_ram + config->high_ram;
    if (gpa % 16)
        return err_new("SMBIOS: the tables cannot lie at 0x%llx", (unsigned long long)gpa);
    buf_extend(out, ALIGN_UP((size_t)ENTRY_SIZE, 16));
    size_t table = out->len;
    bios(out);
    system_information(out, config);
    chassis(out);
    processor(out, config->cpus);
    memory_array(out, ram);
    memory_device(out, ram);
    memory_range(out, 0, 0, config->low_ram);
    memory_range(out, 1, GIB(4), config->high_ram);
    structure(out, 32, 11, HANDLE_BOOT);
    strings(out, (char *)NULL);
    structure(out, 127, 4, HANDLE_END);
    strings(out, (char *)NULL);
    put_entry(out->data + start, gpa + (table - start), out->len - table);
    if (out->len - start > size_max)
        return err_new("SMBIOS: the tables need %zu bytes, there are %zu", out->len - start,
                       size_max);
    return NULL;
}
