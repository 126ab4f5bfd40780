/*
 * Secure Boot's variables. See secure_boot.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "uefi/secure_boot.h"

#define KEPT (VARIABLE_NON_VOLATILE | VARIABLE_BOOT_SERVICE)

static const struct guid global =
    GUID(0x8be4df61, 0x93ca, 0x11d2, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c);
static const struct guid image_security =
    GUID(0xd719b2cb, 0x3d3a, 0x4596, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f);
/* EDK2's switch beside the keys: SecureBootEnable. */
static const struct guid secure_boot_enable =
    GUID(0xf0a30bc7, 0xaf08, 0x4556, 0x99, 0xc4, 0x00, 0x10, 0x09, 0xc9, 0x3a, 0x44);

static const struct {
    const char *name;
    const struct guid *vendor;
} variables[SECURE_BOOT_VARIABLES] = {
    {"PK", &global}, {"KEK", &global}, {"db", &image_security}, {"dbx", &image_security}};

const char *secure_boot_name(enum secure_boot_variable variable)
{
    return variables[variable].name;
}

const uint8_t *secure_boot_get(const struct variable_store *store,
                               enum secure_boot_variable variable, size_t *len)
{
    return variable_store_get(store, variables[variable].vendor, variables[variable].name, len);
}

struct err *secure_boot_set(struct variable_store *store, enum secure_boot_variable variable,
                            const uint8_t *list, size_t len)
{
    return variable_store_set(store, variables[variable].vendor, variables[variable].name,
                              KEPT | VARIABLE_RUNTIME | VARIABLE_TIME_AUTHENTICATED, list, len);
}

/* A store with keys that no firmware has seen has no switch yet: the firmware turns it on. */
enum secure_boot_state secure_boot_state(const struct variable_store *store)
{
    size_t len;

    secure_boot_get(store, SECURE_BOOT_PK, &len);
    if (!len)
        return SECURE_BOOT_SETUP;
    const uint8_t *on = variable_store_get(store, &secure_boot_enable, "SecureBootEnable", &len);
    return len && !*on ? SECURE_BOOT_OFF : SECURE_BOOT_ON;
}

struct err *secure_boot_enforce(struct variable_store *store)
{
    size_t len;

    secure_boot_get(store, SECURE_BOOT_PK, &len);
    return variable_store_set(store, &secure_boot_enable, "SecureBootEnable", KEPT, "\1",
                              len ? 1 : 0);
}
