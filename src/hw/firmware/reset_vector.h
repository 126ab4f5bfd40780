/*
 * The processor's reset vector in the BIOS area. There is no BIOS behind it; whoever jumps here in
 * real mode wants the machine to start again, as Linux does where hardware-reduced ACPI makes it
 * look for an EFI that is not there. The code asks the reset register at port 0xcf9.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_FIRMWARE_RESET_VECTOR_H
#define TENON_HW_FIRMWARE_RESET_VECTOR_H

#include "base/base.h"

#define RESET_VECTOR_SIZE 16

/* To lie at LAYOUT_RESET_VECTOR, also after a reset. */
extern const uint8_t reset_vector[RESET_VECTOR_SIZE];

#endif
