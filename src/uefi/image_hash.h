/*
 * The hash by which Secure Boot knows an image (PE/COFF, Authenticode): that of everything but its
 * checksum and its signatures.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_UEFI_IMAGE_HASH_H
#define TENON_UEFI_IMAGE_HASH_H

#include "base/err.h"
#include "uefi/signature_list.h"

bool image_is_pe(const uint8_t *bytes, size_t len);
struct err *image_hash(const uint8_t *bytes, size_t len, uint8_t hash[SHA256_SIZE]);

#endif
