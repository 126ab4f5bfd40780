/*
 * Firmware of Debian's packages, and the files in which UEFI firmware keeps the variables of a VM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_FIRMWARE_FILES_H
#define TENON_CMD_FIRMWARE_FILES_H

#include "base/buf.h"
#include "base/err.h"

struct firmware {
    const char *name, *package, *image, *variables; /* variables NULL: it keeps none */
};

/* NULL: `name` is a path. */
const struct firmware *firmware_find(const char *name);
struct err *firmware_check_package(const struct firmware *firmware);

/* What is installed, ", bios, uefi", and the packages that are missing, "seabios ovmf". */
void firmware_list(struct buf *found, struct buf *missing);

/* Where a VM of this name keeps its variables; the caller owns *path. */
struct err *firmware_store_path(const struct firmware *firmware, const char *vm, char **path);

/* Makes a store from the package's template, if there is none. */
struct err *firmware_make_store(const struct firmware *firmware, const char *path);

/* All of a store; the caller owns *bytes. */
struct err *firmware_read_store(int fd, const char *path, uint8_t **bytes, size_t *len);

/* A whole file or none. One that is there is replaced, or stays. */
struct err *firmware_write_store(const char *path, const uint8_t *bytes, size_t len, bool replace);

/* The sentence about a broken store, from what is wrong with it. */
struct err *firmware_store_error(const char *path, struct err *take_cause);

#endif
