/*
 * LUKS version 1: the header with its key slots, and the cipher of the payload; for images that are
 * LUKS and for formats that encrypt their clusters with it.
 *
 * Specification: LUKS On-Disk Format, version 1.2.3. libcrypto is loaded when an image needs it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_FORMAT_LUKS_H
#define TENON_BLOCK_FORMAT_LUKS_H

#include "base/base.h"
#include "base/err.h"

#define LUKS_SECTOR 512u
#define LUKS_HEADER 592u /* bytes that luks_open() looks at */
#define LUKS_SLOTS 8
#define LUKS_KEY_MAX 64
#define LUKS_CHUNK KIB(64) /* bytes that luks_encrypt() takes at most */

struct luks;

/* What a new header is to be. */
struct luks_options {
    unsigned key_bits;   /* of AES: 128 or 256 */
    const char *hash;    /* sha1, sha256, sha512 */
    unsigned iterate_ms; /* how long trying one passphrase is to take here */
};

/* Reads a header; a stranger wrote it. */
struct err *luks_open(const uint8_t *header, size_t length, struct luks **luks);
void luks_close(struct luks *luks); /* NULL is fine */
/* Bytes of header and key material before the payload. */
uint64_t luks_payload(const struct luks *luks);
/* The master key, from the area of header and key material (all of luks_payload()'s bytes, or what
 * a format keeps of them). */
struct err *luks_unlock(struct luks *luks, const uint8_t *area, size_t length, const void *key,
                        size_t key_length);
bool luks_locked(const struct luks *luks);
/* Whole sectors, in place; `sector` is the first one's number. Any thread. 0 or -errno. */
int luks_decrypt(struct luks *luks, uint64_t sector, uint8_t *data, size_t length);
/* The same into `out`. */
int luks_encrypt(struct luks *luks, uint64_t sector, const uint8_t *data, uint8_t *out,
                 size_t length);
/* A new header with one key slot and its key material, in a buffer that the caller frees. */
struct err *luks_format(const struct luks_options *options, const void *key, size_t key_length,
                        uint8_t **area, size_t *length);

/* What a header says of itself, for info. */
struct luks_info {
    char cipher[33], mode[33], hash[33], uuid[41];
    uint32_t key_bytes, digest_iterations, slots_used;
};
void luks_get_info(const struct luks *luks, struct luks_info *info);

struct image;
struct image_create;
/* The options of a new header, each behind `prefix`. */
struct err *luks_options_choose(const struct image_create *create, const char *prefix,
                                struct luks_options *options);
/* A node over the clusters of a format: all of `file` (borrowed), sectors counted from its start.
 */
struct image *luks_clusters(struct image *file, struct luks *take_luks);

#endif
