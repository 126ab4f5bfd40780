/*
 * LUKS: what its parts share: libcrypto as it was loaded, and ciphers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_FORMAT_LUKS_CRYPTO_H
#define TENON_BLOCK_FORMAT_LUKS_CRYPTO_H

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "base/library.h"
#include "base/spare.h"
#include "block/format/luks.h"

/* The functions of libcrypto. */
struct luks_crypto {
    void *handle;
    LIBRARY_MEMBER(EVP_CIPHER_CTX_new);
    LIBRARY_MEMBER(EVP_CIPHER_CTX_free);
    LIBRARY_MEMBER(EVP_CIPHER_CTX_set_padding);
    LIBRARY_MEMBER(EVP_CipherInit_ex);
    LIBRARY_MEMBER(EVP_CipherUpdate);
    LIBRARY_MEMBER(EVP_Digest);
    LIBRARY_MEMBER(EVP_MD_get_size);
    LIBRARY_MEMBER(EVP_aes_128_cbc);
    LIBRARY_MEMBER(EVP_aes_128_ecb);
    LIBRARY_MEMBER(EVP_aes_128_xts);
    LIBRARY_MEMBER(EVP_aes_192_cbc);
    LIBRARY_MEMBER(EVP_aes_192_ecb);
    LIBRARY_MEMBER(EVP_aes_256_cbc);
    LIBRARY_MEMBER(EVP_aes_256_ecb);
    LIBRARY_MEMBER(EVP_aes_256_xts);
    LIBRARY_MEMBER(EVP_sha1);
    LIBRARY_MEMBER(EVP_sha256);
    LIBRARY_MEMBER(EVP_sha512);
    LIBRARY_MEMBER(PKCS5_PBKDF2_HMAC);
    LIBRARY_MEMBER(RAND_bytes);
};
struct err *luks_crypto_load(struct luks_crypto *crypto);
const EVP_MD *luks_hash(const struct luks_crypto *crypto, const char *name); /* NULL: unknown */

/* AES with a way to make the initial vector of a sector from its number. */
enum luks_iv { LUKS_IV_PLAIN, LUKS_IV_PLAIN64, LUKS_IV_ESSIV };
struct luks_cipher {
    const struct luks_crypto *crypto;
    const EVP_CIPHER *cipher;
    enum luks_iv iv;
    uint32_t key_bytes;
    uint8_t key[LUKS_KEY_MAX];
    struct spare lanes[2]; /* decrypting, encrypting */
    struct lock lock;      /* LOCK_LEAF; around the use of `essiv` */
    EVP_CIPHER_CTX *essiv; /* makes vectors */
};
/* "xts-plain64" and its like; false: unknown. */
bool luks_cipher_find(const struct luks_crypto *crypto, const char *mode, uint32_t key_bytes,
                      const EVP_CIPHER **cipher, enum luks_iv *iv);
/* Sets the key: then sectors can be done. */
int luks_cipher_init(struct luks_cipher *cipher, const struct luks_crypto *crypto, const char *mode,
                     const uint8_t *key, uint32_t key_bytes);
void luks_cipher_fini(struct luks_cipher *cipher);
int luks_cipher_run(struct luks_cipher *cipher, bool encrypt, uint64_t sector, const uint8_t *data,
                    uint8_t *out, size_t length);

#endif
