/*
 * Lists of signatures, what PK, KEK, db and dbx are made of (UEFI 2.10, 32.4.1:
 * EFI_SIGNATURE_LIST): certificates and hashes, each with the GUID of who added it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_UEFI_SIGNATURE_LIST_H
#define TENON_UEFI_SIGNATURE_LIST_H

#include "base/buf.h"
#include "base/err.h"
#include "uefi/guid.h"

#define SHA256_SIZE 32

extern const struct guid signature_x509, signature_sha256;

struct signature {
    const uint8_t *type, *owner; /* GUIDs */
    const uint8_t *data;
    size_t len;
};

struct signature_reader {
    const uint8_t *at;
    size_t left;
    const uint8_t *list; /* whose signatures come; NULL: none has begun */
    size_t in_list, size;
};

/* The next one; false at the end, and where *err is set: nothing after that can be read. */
bool signature_next(struct signature_reader *reader, struct signature *signature, struct err **err);

/* Adds each signature of `bytes` that is not there yet, in a list of its own. */
struct err *signature_list_join(struct buf *list, const uint8_t *bytes, size_t len);
void signature_list_add(struct buf *list, const struct signature *signature);

/* What is it: "x509", "sha256", "?"; its SHA-256; and a certificate's name, printable. */
struct signature_text {
    const char *type;
    char digest[2 * SHA256_SIZE + 1];
    char name[200];
};
void signature_describe(const struct signature *signature, struct signature_text *text);

#endif
