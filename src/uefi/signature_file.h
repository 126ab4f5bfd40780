/*
 * Files that Secure Boot keys come in: certificates (PEM or DER), lists of signatures, updates of
 * dbx that somebody has signed, and EFI programs, which are meant by their hash.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_UEFI_SIGNATURE_FILE_H
#define TENON_UEFI_SIGNATURE_FILE_H

#include "base/buf.h"
#include "base/err.h"
#include "uefi/guid.h"

#define SIGNATURE_FILE_MAX MIB(64)

/* Adds what the file holds to `list`; what it does not name an owner for gets `owner`. */
struct err *signature_file_parse(const uint8_t *bytes, size_t len, const struct guid *owner,
                                 struct buf *list);
struct err *signature_file_read(const char *path, const struct guid *owner, struct buf *list);

#endif
