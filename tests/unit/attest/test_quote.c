/*
 * Quotes: one that a key of this test has signed is accepted, and no change of it is; responses of
 * a TPM that are cut or wrong are errors. The real TPM is in tests/e2e/test_attest.py.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <string.h>

#include "attest/tpm.h"
#include "base/bytes.h"

struct fixture {
    gnutls_privkey_t private;
    struct tpm_key key;
    uint8_t nonce[TPM_NONCE_SIZE];
    uint8_t pcr[TPM_PCRS][TPM_SHA256_SIZE];
    struct tpm_quote quote;
};

static void right_aligned(uint8_t to[32], const gnutls_datum_t *number)
{
    size_t skip = number->size > 32 ? number->size - 32 : 0;
    memset(to, 0, 32);
    memcpy(to + 32 - (number->size - skip), number->data + skip, number->size - skip);
}

static void sign(struct fixture *f)
{
    gnutls_datum_t data = {f->quote.attest, (unsigned)f->quote.attest_len}, signature, r, s;
    assert_true(
        gnutls_privkey_sign_data2(f->private, GNUTLS_SIGN_ECDSA_SHA256, 0, &data, &signature) >= 0);
    assert_true(gnutls_decode_rs_value(&signature, &r, &s) >= 0);
    right_aligned(f->quote.r, &r);
    right_aligned(f->quote.s, &s);
    gnutls_free(signature.data);
    gnutls_free(r.data);
    gnutls_free(s.data);
}

/* TPMS_ATTEST for all PCRs. */
static void write_attest(struct fixture *f, uint32_t magic, uint16_t type)
{
    uint8_t *at = f->quote.attest;
    memset(at, 0, sizeof(f->quote.attest));
    put_be32(at, magic);
    put_be16(at + 4, type);
    put_be16(at + 6, 4); /* the signer's name */
    put_be16(at + 12, TPM_NONCE_SIZE);
    memcpy(at + 14, f->nonce, TPM_NONCE_SIZE);
    at += 14 + TPM_NONCE_SIZE + 17 + 8;
    put_be32(at, 1);
    put_be16(at + 4, 0x0b);
    at[6] = 3;
    memset(at + 7, 0xff, 3);
    put_be16(at + 10, TPM_SHA256_SIZE);
    tpm_sha256(f->pcr, sizeof(f->pcr), at + 12);
    f->quote.attest_len = (size_t)(at + 12 + TPM_SHA256_SIZE - f->quote.attest);
}

static int setup(void **state)
{
    static struct fixture f;
    gnutls_datum_t x, y;
    memset(&f, 0, sizeof(f));
    assert_true(gnutls_privkey_init(&f.private) >= 0);
    assert_true(gnutls_privkey_generate(f.private, GNUTLS_PK_ECDSA,
                                        GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0) >= 0);
    assert_true(gnutls_privkey_export_ecc_raw(f.private, NULL, &x, &y, NULL) >= 0);
    right_aligned(f.key.x, &x);
    right_aligned(f.key.y, &y);
    gnutls_free(x.data);
    gnutls_free(y.data);
    memset(f.nonce, 0x6e, sizeof(f.nonce));
    memset(f.pcr, 0x50, sizeof(f.pcr));
    write_attest(&f, 0xff544347, 0x8018);
    sign(&f);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    gnutls_privkey_deinit(((struct fixture *)*state)->private);
    return 0;
}

static void refuses(struct fixture *f, const char *why)
{
    struct err *err = tpm_quote_verify(&f->quote, &f->key, f->nonce, f->pcr);
    assert_non_null(err);
    if (!strstr(err_text(err), why))
        fail_msg("'%s' instead of '%s'", err_text(err), why);
    err_free(err);
}

static void accepts(struct fixture *f)
{
    struct err *err = tpm_quote_verify(&f->quote, &f->key, f->nonce, f->pcr);
    if (err)
        fail_msg("%s", err_text(err));
}

static void a_good_quote_is_accepted(void **state)
{
    accepts(*state);
}

static void every_byte_is_signed(void **state)
{
    struct fixture *f = *state;
    for (size_t at = 0; at < f->quote.attest_len; at++) {
        f->quote.attest[at] ^= 4;
        refuses(f, "not signed by");
        f->quote.attest[at] ^= 4;
    }
    f->quote.r[31] ^= 1;
    refuses(f, "not signed by");
    f->quote.r[31] ^= 1;
    f->key.y[31] ^= 1;
    refuses(f, "not signed by");
    f->key.y[31] ^= 1;
    memset(f->quote.s, 0, 32);
    refuses(f, "not signed by");
}

static void what_was_signed_is_looked_at(void **state)
{
    struct fixture *f = *state;
    f->nonce[0] ^= 1;
    refuses(f, "an old one");
    f->nonce[0] ^= 1;
    f->pcr[9][0] ^= 1;
    refuses(f, "PCRs are not those");
    f->pcr[9][0] ^= 1;
    accepts(f);
    write_attest(f, 0xff544348, 0x8018); /* signed, but not made by a TPM */
    sign(f);
    refuses(f, "no quote");
    write_attest(f, 0xff544347, 0x8017); /* a certificate of another kind */
    sign(f);
    refuses(f, "no quote");
    for (size_t len = 0; len < 14 + TPM_NONCE_SIZE + 17 + 8 + 12 + TPM_SHA256_SIZE; len++) {
        write_attest(f, 0xff544347, 0x8018);
        f->quote.attest_len = len;
        sign(f);
        refuses(f, "no quote");
    }
    write_attest(f, 0xff544347, 0x8018); /* fewer PCRs */
    f->quote.attest[14 + TPM_NONCE_SIZE + 17 + 8 + 8] = 0x7f;
    sign(f);
    refuses(f, "no quote");
}

/* --- a TPM that answers what the test says --- */

static struct err *say(void *opaque, const uint8_t *command, size_t len, struct buf *reply)
{
    const struct buf *words = opaque;
    assert_int_equal(get_be32(command + 2), len);
    buf_append(reply, words->data, words->len);
    return NULL;
}

static void responses_are_measured(void **state)
{
    struct fixture *f = *state;
    struct buf words = BUF_INIT;
    const struct tpm_transport tpm = {say, &words};
    struct tpm_quote quote;
    struct tpm_key key;
    uint8_t pcr[TPM_PCRS][TPM_SHA256_SIZE];

    for (size_t len = 0; len < 300; len++) {
        for (unsigned fill = 0; fill < 256; fill += 51) {
            words.len = 0;
            memset(buf_extend(&words, len), (int)fill, len);
            if (len >= 10) {
                put_be32(words.data + 2, (uint32_t)len);
                put_be32(words.data + 6, 0);
            }
            struct err *errs[] = {tpm_quote(&tpm, f->nonce, &quote), tpm_read_key(&tpm, &key),
                                  tpm_read_pcrs(&tpm, pcr)};
            for (unsigned i = 0; i < ARRAY_SIZE(errs); i++) {
                assert_non_null(errs[i]);
                err_free(errs[i]);
            }
        }
    }
    words.len = 0; /* a quote that does not fit */
    uint8_t *at = buf_extend(&words, 2000);
    put_be32(at + 2, 2000);
    put_be16(at + 14, 1000);
    struct err *err = tpm_quote(&tpm, f->nonce, &quote);
    assert_non_null(err);
    err_free(err);
    put_be32(at + 6, 0x18b); /* TPM_RC_HANDLE */
    err = tpm_read_key(&tpm, &key);
    assert_non_null(strstr(err_text(err), "0x18b"));
    err_free(err);
    buf_fini(&words);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_good_quote_is_accepted),
        TEST(every_byte_is_signed),
        TEST(what_was_signed_is_looked_at),
        TEST(responses_are_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
