/*
 * SMBIOS 3.x tables: what a guest's dmidecode shows of its machine.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_FIRMWARE_SMBIOS_H
#define TENON_HW_FIRMWARE_SMBIOS_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

struct smbios_config {
    const char *name;  /* of the VM: serial-number field; NULL: none */
    const char *board; /* "q35", "micro": product name */
    uint8_t uuid[16];  /* in the text order of RFC 4122; all zero: not set */
    unsigned cpus;
    uint64_t low_ram, high_ram; /* bytes below and above 4 GiB */
};

/* Appends the entry point, then the structures, as one block to lie at `gpa` (16-byte aligned). */
struct err *smbios_build(const struct smbios_config *config, uint64_t gpa, size_t size_max,
                         struct buf *out);

#endif
