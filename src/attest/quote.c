/*
 * Judging a quote (TPM 2.0 Library part 2, 10.12: TPMS_ATTEST). See tpm.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <string.h>

#include "attest/tpm.h"

#define GENERATED 0xff544347u /* made by a TPM, which signs nothing else that begins so */
#define ST_QUOTE 0x8018u
#define ALG_SHA256 0x0b

void tpm_sha256(const void *bytes, size_t len, uint8_t digest[TPM_SHA256_SIZE])
{
    gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes, len, digest);
}

static struct err *verify_signature(const struct tpm_quote *quote, const struct tpm_key *key)
{
    gnutls_datum_t x = {(unsigned char *)key->x, 32}, y = {(unsigned char *)key->y, 32};
    gnutls_datum_t r = {(unsigned char *)quote->r, 32}, s = {(unsigned char *)quote->s, 32};
    gnutls_datum_t data = {(unsigned char *)quote->attest, (unsigned)quote->attest_len};
    gnutls_datum_t signature = {NULL, 0};
    gnutls_pubkey_t public;

    if (gnutls_pubkey_init(&public) < 0)
        return err_new("no memory for the attestation key");
    int result = gnutls_pubkey_import_ecc_raw(public, GNUTLS_ECC_CURVE_SECP256R1, &x, &y);
    if (result >= 0)
        result = gnutls_encode_rs_value(&signature, &r, &s);
    if (result >= 0)
        result = gnutls_pubkey_verify_data2(public, GNUTLS_SIGN_ECDSA_SHA256, 0, &data, &signature);
    gnutls_free(signature.data);
    gnutls_pubkey_deinit(public);
    return result >= 0 ? NULL : err_new("the quote is not signed by the VM's attestation key");
}

static struct err *verify_contents(const struct tpm_quote *quote,
                                   const uint8_t nonce[TPM_NONCE_SIZE],
                                   uint8_t pcr[TPM_PCRS][TPM_SHA256_SIZE])
{
    struct tpm_reader reader = {quote->attest, quote->attest_len, false};
    uint8_t digest[TPM_SHA256_SIZE];

    bool good = tpm_take(&reader, 4) == GENERATED && tpm_take(&reader, 2) == ST_QUOTE;
    tpm_take_bytes(&reader, tpm_take(&reader, 2)); /* name of the signer */
    bool fresh = tpm_take(&reader, 2) == TPM_NONCE_SIZE;
    const uint8_t *said = fresh ? tpm_take_bytes(&reader, TPM_NONCE_SIZE) : NULL;
    fresh = said && !memcmp(said, nonce, TPM_NONCE_SIZE);
    tpm_take_bytes(&reader, 17 + 8); /* clock, firmware version */
    good = good && tpm_take(&reader, 4) == 1 && tpm_take(&reader, 2) == ALG_SHA256 &&
           tpm_take(&reader, 1) == 3 && tpm_take(&reader, 3) == 0xffffff &&
           tpm_take(&reader, 2) == TPM_SHA256_SIZE;
    const uint8_t *signed_digest = good ? tpm_take_bytes(&reader, TPM_SHA256_SIZE) : NULL;
    if (!good || reader.bad || reader.left || !signed_digest)
        return err_new("what the attestation key has signed is no quote of all PCRs");
    if (!fresh)
        return err_new("the quote is an old one: it has another nonce");
    tpm_sha256(pcr, (size_t)TPM_PCRS * TPM_SHA256_SIZE, digest);
    if (memcmp(signed_digest, digest, sizeof(digest)) != 0)
        return err_new("the PCRs are not those that the quote is about");
    return NULL;
}

struct err *tpm_quote_verify(const struct tpm_quote *quote, const struct tpm_key *key,
                             const uint8_t nonce[TPM_NONCE_SIZE],
                             uint8_t pcr[TPM_PCRS][TPM_SHA256_SIZE])
{
    TRY(verify_signature(quote, key));
    return verify_contents(quote, nonce, pcr);
}
