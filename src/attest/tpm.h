/*
 * What the host asks of a VM's TPM 2.0 (TPM 2.0 Library, parts 2 and 3): to make its attestation
 * key when it is new, and later to read PCRs and to sign them.
 *
 * The key is a restricted ECDSA P-256 key of the platform hierarchy, at a handle that only the
 * platform can take away: firmware locks the platform's authorisation before it starts anything, so
 * that a guest can use the key, and not exchange it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ATTEST_TPM_H
#define TENON_ATTEST_TPM_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

#define TPM_KEY_HANDLE 0x81810001u
#define TPM_PCRS 24
#define TPM_SHA256_SIZE 32
#define TPM_NONCE_SIZE 32
#define TPM_ATTEST_MAX 512

/* How a command gets to the TPM: appends the whole response to `reply`. */
struct tpm_transport {
    struct err *(*run)(void *opaque, const uint8_t *command, size_t len, struct buf *reply);
    void *opaque;
};

/* Coordinates, big-endian. */
struct tpm_key {
    uint8_t x[32], y[32];
};

struct tpm_quote {
    uint8_t attest[TPM_ATTEST_MAX]; /* TPMS_ATTEST, the signed bytes */
    size_t attest_len;
    uint8_t r[32], s[32];
};

/* A TPM fresh from the factory: starts it, leaves it the SHA-256 PCRs alone, makes the key, and
 * shuts it down. */
struct err *tpm_provision(const struct tpm_transport *tpm);
struct err *tpm_read_key(const struct tpm_transport *tpm, struct tpm_key *key);
struct err *tpm_read_pcrs(const struct tpm_transport *tpm, uint8_t pcr[TPM_PCRS][TPM_SHA256_SIZE]);
/* All PCRs, and the nonce, signed. */
struct err *tpm_quote(const struct tpm_transport *tpm, const uint8_t nonce[TPM_NONCE_SIZE],
                      struct tpm_quote *quote);

/* quote.c: is it what the key signed about just these PCRs, for this nonce? */
struct err *tpm_quote_verify(const struct tpm_quote *quote, const struct tpm_key *key,
                             const uint8_t nonce[TPM_NONCE_SIZE],
                             uint8_t pcr[TPM_PCRS][TPM_SHA256_SIZE]);
void tpm_sha256(const void *bytes, size_t len, uint8_t digest[TPM_SHA256_SIZE]);

/* Big-endian fields of a response, one behind the other. */
struct tpm_reader {
    const uint8_t *at;
    size_t left;
    bool bad; /* it ended too early; what was read is zero */
};
uint64_t tpm_take(struct tpm_reader *reader, unsigned size);
/* `len` bytes; NULL at the end. */
const uint8_t *tpm_take_bytes(struct tpm_reader *reader, size_t len);

#endif
