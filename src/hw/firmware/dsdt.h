/*
 * The DSDT's body, for acpi.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_FIRMWARE_DSDT_H
#define TENON_HW_FIRMWARE_DSDT_H

#include "hw/firmware/acpi.h"

/* Appends the definition block behind the table header. */
void dsdt_body(const struct acpi_config *config, struct buf *out);

#endif
