/*
 * TPM commands. See tpm.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attest/tpm.h"

#include <string.h>

#include "base/bytes.h"

#define HEADER_SIZE 10
#define TAG_PLAIN 0x8001
#define TAG_SESSIONS 0x8002
#define RH_PLATFORM 0x4000000cu
#define RS_PASSWORD 0x40000009u
#define SU_CLEAR 0

enum command {
    CC_EVICT_CONTROL = 0x120,
    CC_PCR_ALLOCATE = 0x12b,
    CC_CREATE_PRIMARY = 0x131,
    CC_STARTUP = 0x144,
    CC_SHUTDOWN = 0x145,
    CC_QUOTE = 0x158,
    CC_FLUSH_CONTEXT = 0x165,
    CC_READ_PUBLIC = 0x173,
    CC_PCR_READ = 0x17e,
};

enum algorithm {
    ALG_SHA1 = 0x04,
    ALG_SHA256 = 0x0b,
    ALG_SHA384 = 0x0c,
    ALG_SHA512 = 0x0d,
    ALG_NULL = 0x10,
    ALG_ECDSA = 0x18,
    ALG_ECC = 0x23,
};
#define CURVE_P256 3

/* Made by the TPM, never leaves it; signs without a password, and only what the TPM itself says. */
#define KEY_ATTRIBUTES 0x00050472u

/* --- writing --- */

static void put(struct buf *out, unsigned size, uint64_t value)
{
    uint8_t *at = buf_extend(out, size);

    while (size--) {
        at[size] = (uint8_t)value;
        value >>= 8;
    }
}

static void begin(struct buf *out, unsigned tag, enum command code)
{
    put(out, 2, tag);
    put(out, 4, 0);
    put(out, 4, code);
}

/* An authorisation by an empty password. */
static void put_password(struct buf *out)
{
    put(out, 4, 9);
    put(out, 4, RS_PASSWORD);
    put(out, 2, 0);
    put(out, 1, 0);
    put(out, 2, 0);
}

static void put_selection(struct buf *out, enum algorithm bank, uint32_t pcrs)
{
    put(out, 2, bank);
    put(out, 1, TPM_PCRS / 8);
    for (unsigned i = 0; i < TPM_PCRS / 8; i++)
        put(out, 1, pcrs >> (8 * i) & 0xff);
}

/* --- reading --- */

const uint8_t *tpm_take_bytes(struct tpm_reader *reader, size_t len)
{
    const uint8_t *at = reader->at;

    if (len > reader->left) {
        reader->bad = true;
        reader->left = 0;
        return NULL;
    }
    reader->at += len;
    reader->left -= len;
    return at;
}

uint64_t tpm_take(struct tpm_reader *reader, unsigned size)
{
    const uint8_t *at = tpm_take_bytes(reader, size);
    uint64_t value = 0;

    for (unsigned i = 0; at && i < size; i++)
        value = value << 8 | at[i];
    return value;
}

static void take_number(struct tpm_reader *reader, uint8_t to[32])
{
    size_t len = tpm_take(reader, 2);
    const uint8_t *at = tpm_take_bytes(reader, len);

    memset(to, 0, 32);
    if (at && len <= 32)
        memcpy(to + 32 - len, at, len);
    else
        reader->bad = true;
}

/* Runs the command that `take_command` holds; the reader is behind the header of `reply`. */
static struct err *run(const struct tpm_transport *tpm, struct buf *take_command, struct buf *reply,
                       struct tpm_reader *reader)
{
    put_be32(take_command->data + 2, (uint32_t)take_command->len);
    reply->len = 0;
    struct err *err = tpm->run(tpm->opaque, take_command->data, take_command->len, reply);
    uint32_t code = get_be32(take_command->data + 6);
    buf_fini(take_command);
    if (err)
        return err;
    if (reply->len < HEADER_SIZE || get_be32(reply->data + 2) != reply->len)
        return err_new("the TPM answers command 0x%x with %zu bytes that are no response", code,
                       reply->len);
    if (get_be32(reply->data + 6))
        return err_new("the TPM refuses command 0x%x: its code is 0x%x", code,
                       get_be32(reply->data + 6));
    *reader = (struct tpm_reader){reply->data + HEADER_SIZE, reply->len - HEADER_SIZE, false};
    return NULL;
}

static struct err *malformed(const char *what)
{
    return err_new("the TPM's %s does not have the form that it should", what);
}

/* --- making the key --- */

static struct err *power(const struct tpm_transport *tpm, enum command code, struct buf *reply)
{
    struct buf command = BUF_INIT;
    struct tpm_reader reader;

    begin(&command, TAG_PLAIN, code);
    put(&command, 2, SU_CLEAR);
    return run(tpm, &command, reply, &reader);
}

/* Each measurement is hashed for each bank, by the guest's slow firmware: one is enough. */
static struct err *allocate_pcrs(const struct tpm_transport *tpm, struct buf *reply)
{
    static const enum algorithm banks[] = {ALG_SHA1, ALG_SHA256, ALG_SHA384, ALG_SHA512};
    struct buf command = BUF_INIT;
    struct tpm_reader reader;

    begin(&command, TAG_SESSIONS, CC_PCR_ALLOCATE);
    put(&command, 4, RH_PLATFORM);
    put_password(&command);
    put(&command, 4, ARRAY_SIZE(banks));
    for (unsigned i = 0; i < ARRAY_SIZE(banks); i++)
        put_selection(&command, banks[i], banks[i] == ALG_SHA256 ? 0xffffff : 0);
    TRY(run(tpm, &command, reply, &reader));
    tpm_take(&reader, 4);
    return tpm_take(&reader, 1) ? NULL : err_new("the TPM has no room for its PCRs");
}

static struct err *create_key(const struct tpm_transport *tpm, struct buf *reply, uint32_t *handle)
{
    struct buf command = BUF_INIT, template = BUF_INIT;
    struct tpm_reader reader;

    put(&template, 2, ALG_ECC);
    put(&template, 2, ALG_SHA256);
    put(&template, 4, KEY_ATTRIBUTES);
    put(&template, 2, 0); /* policy */
    put(&template, 2, ALG_NULL);
    put(&template, 2, ALG_ECDSA);
    put(&template, 2, ALG_SHA256);
    put(&template, 2, CURVE_P256);
    put(&template, 2, ALG_NULL); /* key derivation */
    put(&template, 4, 0);        /* x, y: none given */

    begin(&command, TAG_SESSIONS, CC_CREATE_PRIMARY);
    put(&command, 4, RH_PLATFORM);
    put_password(&command);
    put(&command, 2, 4);
    put(&command, 4, 0); /* no password, no data */
    put(&command, 2, template.len);
    buf_append(&command, template.data, template.len);
    put(&command, 2, 0); /* outside information */
    put(&command, 4, 0); /* PCRs at creation */
    buf_fini(&template);
    TRY(run(tpm, &command, reply, &reader));
    *handle = (uint32_t)tpm_take(&reader, 4);
    return reader.bad ? malformed("new key") : NULL;
}

static struct err *keep_key(const struct tpm_transport *tpm, struct buf *reply, uint32_t handle)
{
    struct buf command = BUF_INIT;
    struct tpm_reader reader;

    begin(&command, TAG_SESSIONS, CC_EVICT_CONTROL);
    put(&command, 4, RH_PLATFORM);
    put(&command, 4, handle);
    put_password(&command);
    put(&command, 4, TPM_KEY_HANDLE);
    TRY(run(tpm, &command, reply, &reader));
    begin(&command, TAG_PLAIN, CC_FLUSH_CONTEXT);
    put(&command, 4, handle);
    return run(tpm, &command, reply, &reader);
}

static struct err *provision(const struct tpm_transport *tpm, struct buf *reply)
{
    uint32_t handle;

    TRY(power(tpm, CC_STARTUP, reply));
    TRY(create_key(tpm, reply, &handle));
    TRY(keep_key(tpm, reply, handle));
    TRY(allocate_pcrs(tpm, reply));
    return power(tpm, CC_SHUTDOWN, reply);
}

struct err *tpm_provision(const struct tpm_transport *tpm)
{
    struct buf reply = BUF_INIT;
    struct err *err = provision(tpm, &reply);

    buf_fini(&reply);
    return err_wrap(err, "making the attestation key");
}

/* --- asking --- */

static struct err *parse_key(struct tpm_reader *reader, struct tpm_key *key)
{
    tpm_take(reader, 2); /* size of the public area */
    bool ours = tpm_take(reader, 2) == ALG_ECC && tpm_take(reader, 2) == ALG_SHA256 &&
                tpm_take(reader, 4) == KEY_ATTRIBUTES && tpm_take(reader, 2) == 0 &&
                tpm_take(reader, 2) == ALG_NULL && tpm_take(reader, 2) == ALG_ECDSA &&
                tpm_take(reader, 2) == ALG_SHA256 && tpm_take(reader, 2) == CURVE_P256 &&
                tpm_take(reader, 2) == ALG_NULL;
    if (!ours)
        return err_new("what the TPM has in the place of its attestation key is another object");
    take_number(reader, key->x);
    take_number(reader, key->y);
    return reader->bad ? malformed("attestation key") : NULL;
}

struct err *tpm_read_key(const struct tpm_transport *tpm, struct tpm_key *key)
{
    struct buf command = BUF_INIT, reply = BUF_INIT;
    struct tpm_reader reader;

    begin(&command, TAG_PLAIN, CC_READ_PUBLIC);
    put(&command, 4, TPM_KEY_HANDLE);
    struct err *err = run(tpm, &command, &reply, &reader);
    if (!err)
        err = parse_key(&reader, key);
    buf_fini(&reply);
    return err_wrap(err, "attestation key");
}

/* A TPM gives eight at a time. */
static struct err *read_eight(const struct tpm_transport *tpm, unsigned first, struct buf *reply,
                              uint8_t pcr[][TPM_SHA256_SIZE])
{
    struct buf command = BUF_INIT;
    struct tpm_reader reader;

    begin(&command, TAG_PLAIN, CC_PCR_READ);
    put(&command, 4, 1);
    put_selection(&command, ALG_SHA256, 0xffu << first);
    TRY(run(tpm, &command, reply, &reader));
    tpm_take(&reader, 4); /* update counter */
    bool good = tpm_take(&reader, 4) == 1 && tpm_take(&reader, 2) == ALG_SHA256 &&
                tpm_take(&reader, 1) == 3;
    tpm_take(&reader, 3);
    good = good && tpm_take(&reader, 4) == 8;
    for (unsigned i = 0; good && i < 8; i++) {
        good = tpm_take(&reader, 2) == TPM_SHA256_SIZE;
        const uint8_t *digest = good ? tpm_take_bytes(&reader, TPM_SHA256_SIZE) : NULL;
        if (digest)
            memcpy(pcr[first + i], digest, TPM_SHA256_SIZE);
    }
    return good && !reader.bad ? NULL : malformed("list of PCRs");
}

struct err *tpm_read_pcrs(const struct tpm_transport *tpm, uint8_t pcr[TPM_PCRS][TPM_SHA256_SIZE])
{
    struct buf reply = BUF_INIT;
    struct err *err = NULL;

    for (unsigned first = 0; first < TPM_PCRS && !err; first += 8)
        err = read_eight(tpm, first, &reply, pcr);
    buf_fini(&reply);
    return err;
}

static struct err *parse_quote(struct tpm_reader *reader, struct tpm_quote *quote)
{
    tpm_take(reader, 4); /* size of the parameters */
    quote->attest_len = tpm_take(reader, 2);
    const uint8_t *attest = tpm_take_bytes(reader, quote->attest_len);
    if (!attest || quote->attest_len > sizeof(quote->attest))
        return malformed("quote");
    memcpy(quote->attest, attest, quote->attest_len);
    bool good = tpm_take(reader, 2) == ALG_ECDSA && tpm_take(reader, 2) == ALG_SHA256;
    take_number(reader, quote->r);
    take_number(reader, quote->s);
    return good && !reader->bad ? NULL : malformed("signature");
}

struct err *tpm_quote(const struct tpm_transport *tpm, const uint8_t nonce[TPM_NONCE_SIZE],
                      struct tpm_quote *quote)
{
    struct buf command = BUF_INIT, reply = BUF_INIT;
    struct tpm_reader reader;

    begin(&command, TAG_SESSIONS, CC_QUOTE);
    put(&command, 4, TPM_KEY_HANDLE);
    put_password(&command);
    put(&command, 2, TPM_NONCE_SIZE);
    buf_append(&command, nonce, TPM_NONCE_SIZE);
    put(&command, 2, ALG_NULL); /* the key's own scheme */
    put(&command, 4, 1);
    put_selection(&command, ALG_SHA256, 0xffffff);
    struct err *err = run(tpm, &command, &reply, &reader);
    if (!err)
        err = parse_quote(&reader, quote);
    buf_fini(&reply);
    return err_wrap(err, "quote");
}
