/*
 * How a viewer shows who it is: RFC 6143, sections 7.1 and 7.2; VeNCrypt as in rfbproto.rst.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "display/rfb/rfb_internal.h"

enum security_type { SECURITY_NONE = 1, SECURITY_VNC = 2, SECURITY_VENCRYPT = 19 };

/* VeNCrypt's types: what comes after an anonymous handshake, or after one with a certificate. */
enum vencrypt_type {
    VENCRYPT_TLS_NONE = 257,
    VENCRYPT_TLS_VNC,
    VENCRYPT_TLS_PLAIN,
    VENCRYPT_X509_NONE,
    VENCRYPT_X509_VNC,
    VENCRYPT_X509_PLAIN,
};

static bool has_password(const struct rfb_access *access)
{
    return access->password || access->look_password;
}

static void append_text(struct buf *out, const char *text)
{
    rfb_u32(out, (uint32_t)strlen(text));
    buf_text(out, text);
}

/* ---- the result ---- */

static struct err *accept(struct rfb_session *session, enum rfb_right right)
{
    session->right = right;
    session->state = RFB_CLIENT_INIT;
    /* Version 3.7 and older say nothing when there was no authentication. */
    if (session->minor == 8 || has_password(session->access) || session->encrypted)
        rfb_u32(&session->out, 0);
    return NULL;
}

static struct err *refuse(struct rfb_session *session)
{
    rfb_u32(&session->out, 1);
    if (session->minor == 8)
        append_text(&session->out, "wrong password");
    return err_of(ERR_DENIED, "its password is wrong");
}

/* ---- passwords ---- */

bool rfb_vnc_encrypt(const char *password, const uint8_t challenge[RFB_CHALLENGE_SIZE],
                     uint8_t response[RFB_CHALLENGE_SIZE])
{
    uint8_t key[24] = {0};
    int len = 0;
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();

    /* DES with the bits of each key byte mirrored. OpenSSL calls single DES legacy: triple DES with
     * the same key three times is it. */
    for (size_t i = 0; i < 8 && password[i]; i++)
        for (unsigned bit = 0; bit < 8; bit++)
            key[i] |= (uint8_t)(((uint8_t)password[i] >> bit & 1) << (7 - bit));
    memcpy(key + 8, key, 8);
    memcpy(key + 16, key, 8);
    bool good = cipher && EVP_EncryptInit_ex(cipher, EVP_des_ede3_ecb(), NULL, key, NULL) &&
                EVP_CIPHER_CTX_set_padding(cipher, 0) &&
                EVP_EncryptUpdate(cipher, response, &len, challenge, RFB_CHALLENGE_SIZE) &&
                len == RFB_CHALLENGE_SIZE;
    EVP_CIPHER_CTX_free(cipher);
    OPENSSL_cleanse(key, sizeof(key));
    return good;
}

static bool response_fits(const struct rfb_session *session, const char *password,
                          const uint8_t *response)
{
    uint8_t right[RFB_CHALLENGE_SIZE];

    return password && rfb_vnc_encrypt(password, session->challenge, right) &&
           !CRYPTO_memcmp(right, response, sizeof(right));
}

struct err *rfb_vnc_response(struct rfb_session *session, const uint8_t *bytes)
{
    if (response_fits(session, session->access->password, bytes))
        return accept(session, RFB_CONTROL);
    if (response_fits(session, session->access->look_password, bytes))
        return accept(session, RFB_LOOK);
    return refuse(session);
}

static bool text_fits(const char *password, const uint8_t *text, size_t len)
{
    return password && strlen(password) == len && !CRYPTO_memcmp(password, text, len);
}

/* The user's name does not matter: the password says what one may do. */
struct err *rfb_plain(struct rfb_session *session, const uint8_t *bytes)
{
    uint32_t user = get_be32(bytes), len = get_be32(bytes + 4);
    const uint8_t *text = bytes + 8 + user;

    if (text_fits(session->access->password, text, len))
        return accept(session, RFB_CONTROL);
    if (text_fits(session->access->look_password, text, len))
        return accept(session, RFB_LOOK);
    return refuse(session);
}

static struct err *challenge(struct rfb_session *session)
{
    if (RAND_bytes(session->challenge, sizeof(session->challenge)) != 1)
        return err_new("no random numbers");
    buf_append(&session->out, session->challenge, sizeof(session->challenge));
    session->state = RFB_VNC_RESPONSE;
    return NULL;
}

/* ---- types ---- */

static unsigned offered_types(const struct rfb_access *access, uint8_t types[2])
{
    unsigned count = 0;

    if (access->tls)
        types[count++] = SECURITY_VENCRYPT;
    if (!access->tls || !access->tls_only)
        types[count++] = has_password(access) ? SECURITY_VNC : SECURITY_NONE;
    return count;
}

/* Version 3.3: the server decides, and TLS it does not know. */
static struct err *decide(struct rfb_session *session)
{
    if (session->access->tls && session->access->tls_only) {
        rfb_u32(&session->out, 0);
        append_text(&session->out, "this server wants TLS");
        return err_of(ERR_DENIED, "its version 3.3 has no TLS");
    }
    rfb_u32(&session->out, has_password(session->access) ? SECURITY_VNC : SECURITY_NONE);
    if (has_password(session->access))
        return challenge(session);
    return accept(session, session->access->open);
}

struct err *rfb_security_version(struct rfb_session *session, const uint8_t *bytes)
{
    uint8_t types[2];

    if (memcmp(bytes, "RFB 003.", 8) || bytes[11] != '\n')
        return err_new("it does not speak RFB 3");
    /* Others than 3.7 and 3.8 mean 3.3 (section 7.1.1). */
    session->minor = !memcmp(bytes + 8, "008", 3) ? 8 : !memcmp(bytes + 8, "007", 3) ? 7 : 3;
    if (session->minor == 3)
        return decide(session);
    unsigned count = offered_types(session->access, types);
    buf_u8(&session->out, (uint8_t)count);
    buf_append(&session->out, types, count);
    session->state = RFB_SECURITY;
    return NULL;
}

struct err *rfb_security_choice(struct rfb_session *session, const uint8_t *bytes)
{
    uint8_t types[2];
    unsigned count = offered_types(session->access, types);

    if (bytes[0] != types[0] && (count < 2 || bytes[0] != types[1]))
        return err_new("it chose security type %u, which was not offered", bytes[0]);
    if (bytes[0] == SECURITY_VNC)
        return challenge(session);
    if (bytes[0] == SECURITY_NONE)
        return accept(session, session->access->open);
    const uint8_t version[] = {0, 2};
    buf_append(&session->out, version, sizeof(version));
    session->state = RFB_VENCRYPT_VERSION;
    return NULL;
}

/* ---- VeNCrypt ---- */

static unsigned vencrypt_types(const struct rfb_access *access, uint32_t types[2])
{
    uint32_t none = access->certificate ? VENCRYPT_X509_NONE : VENCRYPT_TLS_NONE;

    if (!has_password(access)) {
        types[0] = none;
        return 1;
    }
    types[0] = none + 2; /* plain */
    types[1] = none + 1; /* VNC */
    return 2;
}

struct err *rfb_vencrypt_version(struct rfb_session *session, const uint8_t *bytes)
{
    uint32_t types[2];
    unsigned count = vencrypt_types(session->access, types);
    bool good = bytes[0] == 0 && bytes[1] == 2;

    buf_u8(&session->out, good ? 0 : 0xff);
    if (!good)
        return err_new("it speaks VeNCrypt %u.%u, not 0.2", bytes[0], bytes[1]);
    buf_u8(&session->out, (uint8_t)count);
    for (unsigned i = 0; i < count; i++)
        rfb_u32(&session->out, types[i]);
    session->state = RFB_VENCRYPT_TYPE;
    return NULL;
}

struct err *rfb_vencrypt_type(struct rfb_session *session, const uint8_t *bytes)
{
    uint32_t types[2], chosen = get_be32(bytes);
    unsigned count = vencrypt_types(session->access, types);
    bool good = chosen == types[0] || (count == 2 && chosen == types[1]);

    buf_u8(&session->out, good);
    if (!good)
        return err_new("it chose VeNCrypt type %u, which was not offered", chosen);
    session->after_tls = chosen;
    session->state = RFB_TLS;
    return NULL;
}

struct err *rfb_session_has_tls(struct rfb_session *session)
{
    session->encrypted = true;
    switch ((enum vencrypt_type)session->after_tls) {
    case VENCRYPT_TLS_NONE:
    case VENCRYPT_X509_NONE:
        return accept(session, session->access->open);
    case VENCRYPT_TLS_PLAIN:
    case VENCRYPT_X509_PLAIN:
        session->state = RFB_PLAIN;
        return NULL;
    case VENCRYPT_TLS_VNC:
    case VENCRYPT_X509_VNC:
        break;
    }
    return challenge(session);
}
