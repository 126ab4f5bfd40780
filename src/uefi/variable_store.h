/*
 * The variable store of a UEFI firmware, as a file: what lies in the flash memory beside the image.
 * A firmware volume (UEFI PI 1.7, vol. 3, 3.2.1) with authenticated variables one behind another
 * and room for the firmware's own rewriting behind them (EDK2: VariableFormat.h,
 * FaultTolerantWrite.h).
 *
 * The guest writes its store: what is in one may be meant badly.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_UEFI_VARIABLE_STORE_H
#define TENON_UEFI_VARIABLE_STORE_H

#include "base/buf.h"
#include "base/err.h"
#include "uefi/guid.h"

#define VARIABLE_STORE_MAX MIB(8)

/* Attributes (UEFI 2.10, 8.2.1). */
#define VARIABLE_NON_VOLATILE 0x01u
#define VARIABLE_BOOT_SERVICE 0x02u
#define VARIABLE_RUNTIME 0x04u
#define VARIABLE_TIME_AUTHENTICATED 0x20u

struct variable_store {
    uint8_t *bytes; /* the whole file; owned */
    size_t len;
    size_t begin, end;    /* the variables in it */
    struct buf *variable; /* a record each, as it lies in the store; owned */
    unsigned count;
};

/* Is it one at all? Looks at the headers only. */
struct err *variable_store_check(const uint8_t *bytes, size_t len);

/*
 * Reads the variables that count: not those that were deleted or never finished. The store is valid
 * on errors too.
 */
struct err *variable_store_open(uint8_t *take_bytes, size_t len, struct variable_store *store);
void variable_store_fini(struct variable_store *store);

/* The contents of a variable; NULL when there is none. Held by the store until it is changed. */
const uint8_t *variable_store_get(const struct variable_store *store, const struct guid *vendor,
                                  const char *name, size_t *len);

/* Sets a variable, or removes it (len 0). */
struct err *variable_store_set(struct variable_store *store, const struct guid *vendor,
                               const char *name, uint32_t attributes, const void *data, size_t len);

/* Puts the variables into `bytes`, packed: an error when they are more than it has room for. */
struct err *variable_store_pack(struct variable_store *store);

#endif
