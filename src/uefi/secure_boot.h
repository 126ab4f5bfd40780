/*
 * The variables of Secure Boot in a store (UEFI 2.10, 32.3 and 32.4): PK owns the platform, KEK may
 * change db and dbx, db may start, dbx may not.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_UEFI_SECURE_BOOT_H
#define TENON_UEFI_SECURE_BOOT_H

#include "uefi/variable_store.h"

enum secure_boot_variable {
    SECURE_BOOT_PK,
    SECURE_BOOT_KEK,
    SECURE_BOOT_DB,
    SECURE_BOOT_DBX,
    SECURE_BOOT_VARIABLES
};

enum secure_boot_state {
    SECURE_BOOT_SETUP, /* no platform key: everything starts, and anybody may enrol keys */
    SECURE_BOOT_OFF,   /* keys, but somebody has turned it off */
    SECURE_BOOT_ON
};

const char *secure_boot_name(enum secure_boot_variable variable);
enum secure_boot_state secure_boot_state(const struct variable_store *store);

/* The list of a variable; NULL, 0 bytes: none. */
const uint8_t *secure_boot_get(const struct variable_store *store,
                               enum secure_boot_variable variable, size_t *len);
struct err *secure_boot_set(struct variable_store *store, enum secure_boot_variable variable,
                            const uint8_t *list, size_t len);

/* After the last change: with a platform key the firmware shall enforce, without one it cannot. */
struct err *secure_boot_enforce(struct variable_store *store);

#endif
