/*
 * What the NVMe controller says of itself: Identify structures (NVMe 1.4, section 5.15) and log
 * pages (section 5.14). Offsets are those of the specification's figures.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/disk/nvme_internal.h"

#define MODEL "Tenon NVMe disk"
#define DATA_UNIT 512000u /* the health log counts thousands of 512 bytes */
#define ERROR_ENTRY 64u

enum cns { CNS_NAMESPACE, CNS_CONTROLLER, CNS_NAMESPACE_LIST, CNS_DESCRIPTORS };
enum log_page { LOG_ERRORS = 1, LOG_HEALTH, LOG_FIRMWARE, LOG_CHANGED };

/* Text of these structures is padded with blanks. */
static void put_text(uint8_t *at, size_t size, const char *text)
{
    memset(at, ' ', size);
    memcpy(at, text, strnlen(text, size));
}

/* A name-based identifier: as a random one (RFC 4122 version 4) to whom it matters. */
static void put_uuid(const struct nvme *nvme, uint32_t nsid, uint8_t uuid[16])
{
    put_be64(uuid, nvme->identity);
    put_be64(uuid + 8, nvme->identity * 0x9e3779b97f4a7c15u + nsid);
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

static void put_qualified_name(const struct nvme *nvme, uint8_t *at)
{
    uint8_t uuid[16];
    put_uuid(nvme, 0, uuid);
    int length = snprintf((char *)at, 256, "nqn.2014-08.org.nvmexpress:uuid:");
    for (unsigned i = 0; i < 16; i++)
        length += snprintf((char *)at + length, 256 - (size_t)length, "%s%02x",
                           i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

static void identify_controller(const struct nvme *nvme, uint8_t *out)
{
    put_le16(out, get_le16(nvme->pci.config + PCI_VENDOR_ID));
    put_le16(out + 2, get_le16(nvme->pci.config + PCI_SUBSYSTEM_VENDOR));
    put_text(out + 4, 20, nvme->serial_text);
    put_text(out + 24, 40, MODEL);
    put_text(out + 64, 8, TENON_VERSION);
    out[72] = 6; /* arbitration burst: 2^6 */
    out[77] = NVME_TRANSFER_SHIFT;
    put_le32(out + 80, NVME_VERSION);
    put_le32(out + 92, NVME_EVENT_NAMESPACE);
    out[111] = 1;               /* an I/O controller */
    put_le16(out + 256, 0x100); /* doorbell buffers */
    out[258] = 3;               /* aborts at once, less one */
    out[259] = NVME_AER_MAX - 1;
    out[260] = 0x03; /* one firmware slot, read-only */
    out[261] = 0x04; /* log pages with offsets */
    out[262] = NVME_ERRORS_MAX - 1;
    put_le16(out + 266, 0x157); /* warning and critical temperature, kelvin */
    put_le16(out + 268, 0x175);
    out[512] = 0x66;
    out[513] = 0x44;
    put_le32(out + 516, nvme->ns_count);
    put_le16(out + 520, 0x0c); /* dataset management, write zeroes */
    for (unsigned i = 0; i < nvme->ns_count; i++)
        out[525] |= nvme->ns[i].info.write_cache;
    put_qualified_name(nvme, out + 768);
}

static void identify_namespace(const struct nvme_namespace *ns, uint8_t *out)
{
    const struct block_info *info = &ns->info;
    uint16_t granule = (uint16_t)(info->physical_block / info->logical_block - 1);
    for (unsigned i = 0; i < 3; i++) /* size, capacity, use */
        put_le64(out + 8 * i, info->size / info->logical_block);
    out[24] = 0x10; /* the preferred granules and alignments below hold */
    out[33] = 0x08; /* write zeroes may deallocate */
    put_le16(out + 64, granule);
    put_le16(out + 66, granule);
    put_le16(out + 68, granule);
    put_le16(out + 70, granule);
    put_le16(out + 72, granule);
    out[99] = info->readonly; /* write protected */
    out[130] = (uint8_t)__builtin_ctz(info->logical_block);
}

bool nvme_identify(struct nvme *nvme, uint8_t cns, uint32_t nsid, uint8_t *out)
{
    const struct nvme_namespace *ns = nvme_namespace(nvme, nsid);
    switch ((enum cns)cns) {
    case CNS_NAMESPACE:
        if (ns)
            identify_namespace(ns, out);
        return true; /* of all namespaces (ffffffffh): there is nothing to say */
    case CNS_CONTROLLER:
        identify_controller(nvme, out);
        return true;
    case CNS_NAMESPACE_LIST:
        if (nsid >= UINT32_MAX - 1)
            return false;
        for (uint32_t i = nsid; i < nvme->ns_count; i++)
            put_le32(out + 4 * (i - nsid), i + 1);
        return true;
    case CNS_DESCRIPTORS:
        if (!ns)
            return false;
        out[0] = 3; /* UUID */
        out[1] = 16;
        put_uuid(nvme, nsid, out + 4);
        return true;
    }
    return false;
}

static void log_errors(const struct nvme *nvme, uint8_t *out)
{
    for (unsigned i = 0; i < NVME_ERRORS_MAX; i++) {
        const struct nvme_error *error = &nvme->error[i];
        uint8_t *at = out + ERROR_ENTRY * i;
        if (!error->count)
            return;
        put_le64(at, error->count);
        put_le16(at + 8, error->sq);
        put_le16(at + 10, error->cid);
        put_le16(at + 12, (uint16_t)(error->status << 1));
        put_le64(at + 16, error->lba);
        put_le32(at + 24, error->nsid);
    }
}

static void log_health(const struct nvme *nvme, uint8_t *out)
{
    put_le16(out + 1, 0x12c); /* 27 degrees */
    out[3] = 100;             /* spare capacity, and when to warn, per cent */
    out[4] = 10;
    put_le64(out + 32, (nvme->read_units + DATA_UNIT - 1) / DATA_UNIT);
    put_le64(out + 48, (nvme->write_units + DATA_UNIT - 1) / DATA_UNIT);
    put_le64(out + 64, nvme->reads);
    put_le64(out + 80, nvme->writes);
    put_le64(out + 176, nvme->error_count);
}

uint32_t nvme_log_page(struct nvme *nvme, uint8_t page, uint8_t *out)
{
    unsigned entries = 0;
    switch ((enum log_page)page) {
    case LOG_ERRORS:
        log_errors(nvme, out);
        return NVME_ERRORS_MAX * ERROR_ENTRY;
    case LOG_HEALTH:
        log_health(nvme, out);
        return 512;
    case LOG_FIRMWARE:
        out[0] = 1; /* slot 1 runs */
        put_text(out + 8, 8, TENON_VERSION);
        return 512;
    case LOG_CHANGED:
        for (unsigned i = 0; i < nvme->ns_count; i++) {
            if (nvme->changed >> i & 1)
                put_le32(out + 4 * entries++, i + 1);
        }
        return NVME_IDENTIFY_SIZE;
    }
    return 0;
}
