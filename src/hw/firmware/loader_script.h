/*
 * The script by which firmware puts ACPI tables into memory (fw_cfg file etc/table-loader): where
 * to allocate, which fields are addresses, which are checksums.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_FIRMWARE_LOADER_SCRIPT_H
#define TENON_HW_FIRMWARE_LOADER_SCRIPT_H

#include "hw/firmware/acpi.h"

struct loader_files {
    struct buf rsdp, tables, script;
};

/* The three files for the machine; filled or empty, to be freed by loader_files_fini(). */
struct err *loader_files_build(const struct acpi_config *config, struct loader_files *files);
void loader_files_fini(struct loader_files *files);

#endif
