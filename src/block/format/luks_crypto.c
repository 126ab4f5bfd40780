/*
 * LUKS: libcrypto on demand, and the cipher of sectors.
 *
 * A sector is encrypted by itself; what differs from one to the next is its initial vector, which
 * is its number (plain), or its number encrypted with a hash of the key (essiv).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "block/format/luks_crypto.h"

static const struct library_symbol symbols[] = {
    LIBRARY_SYMBOL(luks_crypto, EVP_CIPHER_CTX_new),
    LIBRARY_SYMBOL(luks_crypto, EVP_CIPHER_CTX_free),
    LIBRARY_SYMBOL(luks_crypto, EVP_CIPHER_CTX_set_padding),
    LIBRARY_SYMBOL(luks_crypto, EVP_CipherInit_ex),
    LIBRARY_SYMBOL(luks_crypto, EVP_CipherUpdate),
    LIBRARY_SYMBOL(luks_crypto, EVP_Digest),
    LIBRARY_SYMBOL(luks_crypto, EVP_MD_get_size),
    LIBRARY_SYMBOL(luks_crypto, EVP_aes_128_cbc),
    LIBRARY_SYMBOL(luks_crypto, EVP_aes_128_ecb),
    LIBRARY_SYMBOL(luks_crypto, EVP_aes_128_xts),
    LIBRARY_SYMBOL(luks_crypto, EVP_aes_192_cbc),
    LIBRARY_SYMBOL(luks_crypto, EVP_aes_192_ecb),
    LIBRARY_SYMBOL(luks_crypto, EVP_aes_256_cbc),
    LIBRARY_SYMBOL(luks_crypto, EVP_aes_256_ecb),
    LIBRARY_SYMBOL(luks_crypto, EVP_aes_256_xts),
    LIBRARY_SYMBOL(luks_crypto, EVP_sha1),
    LIBRARY_SYMBOL(luks_crypto, EVP_sha256),
    LIBRARY_SYMBOL(luks_crypto, EVP_sha512),
    LIBRARY_SYMBOL(luks_crypto, PKCS5_PBKDF2_HMAC),
    LIBRARY_SYMBOL(luks_crypto, RAND_bytes),
};

struct err *luks_crypto_load(struct luks_crypto *crypto)
{
    return library_load("libcrypto.so.3", "libssl3", symbols, ARRAY_SIZE(symbols), crypto,
                        &crypto->handle);
}

const EVP_MD *luks_hash(const struct luks_crypto *crypto, const char *name)
{
    if (!strcmp(name, "sha1"))
        return crypto->EVP_sha1();
    if (!strcmp(name, "sha256"))
        return crypto->EVP_sha256();
    return strcmp(name, "sha512") ? NULL : crypto->EVP_sha512();
}

bool luks_cipher_find(const struct luks_crypto *crypto, const char *mode, uint32_t key_bytes,
                      const EVP_CIPHER **cipher, enum luks_iv *iv)
{
    bool xts = !strncmp(mode, "xts-", 4);
    if (!xts && strncmp(mode, "cbc-", 4))
        return false;
    if (!strcmp(mode + 4, "plain64"))
        *iv = LUKS_IV_PLAIN64;
    else if (!strcmp(mode + 4, "plain"))
        *iv = LUKS_IV_PLAIN;
    else if (!xts && !strcmp(mode + 4, "essiv:sha256"))
        *iv = LUKS_IV_ESSIV;
    else
        return false;
    if (xts) /* two keys in one */
        *cipher = key_bytes == 32   ? crypto->EVP_aes_128_xts()
                  : key_bytes == 64 ? crypto->EVP_aes_256_xts()
                                    : NULL;
    else
        *cipher = key_bytes == 16   ? crypto->EVP_aes_128_cbc()
                  : key_bytes == 24 ? crypto->EVP_aes_192_cbc()
                  : key_bytes == 32 ? crypto->EVP_aes_256_cbc()
                                    : NULL;
    return *cipher;
}

/* The cipher that makes essiv's vectors: keyed with the hash of the key. */
static int init_essiv(struct luks_cipher *cipher)
{
    const struct luks_crypto *crypto = cipher->crypto;
    uint8_t salt[32];
    unsigned length = sizeof(salt);
    if (!crypto->EVP_Digest(cipher->key, cipher->key_bytes, salt, &length, crypto->EVP_sha256(),
                            NULL))
        return -EIO;
    cipher->essiv = crypto->EVP_CIPHER_CTX_new();
    bool good = cipher->essiv && crypto->EVP_CipherInit_ex(cipher->essiv, crypto->EVP_aes_256_ecb(),
                                                           NULL, salt, NULL, 1);
    explicit_bzero(salt, sizeof(salt));
    if (!good)
        return -ENOMEM;
    crypto->EVP_CIPHER_CTX_set_padding(cipher->essiv, 0);
    return 0;
}

/* A context with the key set up, for one thread at a time. */
struct lane {
    const struct luks_crypto *crypto;
    EVP_CIPHER_CTX *context;
};

static void release_lane(void *opaque)
{
    struct lane *lane = opaque;
    lane->crypto->EVP_CIPHER_CTX_free(lane->context);
    free(lane);
}

int luks_cipher_init(struct luks_cipher *cipher, const struct luks_crypto *crypto, const char *mode,
                     const uint8_t *key, uint32_t key_bytes)
{
    *cipher = (struct luks_cipher){.crypto = crypto, .key_bytes = key_bytes};
    lock_init(&cipher->lock, LOCK_LEAF);
    spare_init(&cipher->lanes[0], release_lane);
    spare_init(&cipher->lanes[1], release_lane);
    if (key_bytes > LUKS_KEY_MAX ||
        !luks_cipher_find(crypto, mode, key_bytes, &cipher->cipher, &cipher->iv))
        return -EINVAL;
    memcpy(cipher->key, key, key_bytes);
    return cipher->iv == LUKS_IV_ESSIV ? init_essiv(cipher) : 0;
}

void luks_cipher_fini(struct luks_cipher *cipher)
{
    if (!cipher->crypto)
        return;
    spare_fini(&cipher->lanes[0]);
    spare_fini(&cipher->lanes[1]);
    cipher->crypto->EVP_CIPHER_CTX_free(cipher->essiv);
    lock_fini(&cipher->lock);
    explicit_bzero(cipher, sizeof(*cipher));
}

static struct lane *take(struct luks_cipher *cipher, bool encrypt)
{
    struct lane *lane = spare_take(&cipher->lanes[encrypt]);
    if (lane)
        return lane;
    lane = xcalloc(1, sizeof(*lane));
    lane->crypto = cipher->crypto;
    lane->context = cipher->crypto->EVP_CIPHER_CTX_new();
    if (!lane->context || !cipher->crypto->EVP_CipherInit_ex(lane->context, cipher->cipher, NULL,
                                                             cipher->key, NULL, encrypt)) {
        release_lane(lane);
        return NULL;
    }
    cipher->crypto->EVP_CIPHER_CTX_set_padding(lane->context, 0);
    return lane;
}

static bool make_vector(struct luks_cipher *cipher, uint64_t sector, uint8_t vector[16])
{
    int made;
    memset(vector, 0, 16);
    put_le64(vector, cipher->iv == LUKS_IV_PLAIN ? (uint32_t)sector : sector);
    if (cipher->iv != LUKS_IV_ESSIV)
        return true;
    lock_take(&cipher->lock);
    bool good = cipher->crypto->EVP_CipherUpdate(cipher->essiv, vector, &made, vector, 16);
    lock_drop(&cipher->lock);
    return good;
}

int luks_cipher_run(struct luks_cipher *cipher, bool encrypt, uint64_t sector, const uint8_t *data,
                    uint8_t *out, size_t length)
{
    struct lane *lane = take(cipher, encrypt);
    bool good = true;
    if (!lane)
        return -ENOMEM;
    for (size_t at = 0; at < length && good; at += LUKS_SECTOR) {
        uint8_t vector[16];
        int made;
        good = make_vector(cipher, sector + at / LUKS_SECTOR, vector) &&
               cipher->crypto->EVP_CipherInit_ex(lane->context, NULL, NULL, NULL, vector, -1) &&
               cipher->crypto->EVP_CipherUpdate(lane->context, out + at, &made, data + at,
                                                LUKS_SECTOR);
    }
    spare_give(&cipher->lanes[encrypt], lane);
    return good ? 0 : -EIO;
}
