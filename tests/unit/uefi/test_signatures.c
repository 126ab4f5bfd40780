/*
 * Lists of signatures, files with keys, and hashes of programs. That efitools write and hash the
 * same is for tests/e2e/test_firmware_keys.py.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include <gnutls/crypto.h>

#include "../test.h"
#include "base/bytes.h"
#include "uefi/image_hash.h"
#include "uefi/signature_file.h"
#include "uefi/signature_list.h"

static const struct guid owner = GUID(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);

static unsigned count(const struct buf *list)
{
    struct signature_reader reader = {.at = list->data, .left = list->len};
    struct signature signature;
    struct err *err;
    unsigned n = 0;
    while (signature_next(&reader, &signature, &err))
        n++;
    assert_ok(err);
    return n;
}

static void add_hash(struct buf *list, uint8_t byte)
{
    uint8_t hash[SHA256_SIZE];
    memset(hash, byte, sizeof(hash));
    signature_list_add(
        list, &(struct signature){signature_sha256.bytes, owner.bytes, hash, sizeof(hash)});
}

/* --- lists --- */

static void lists(void **state)
{
    struct buf list = BUF_INIT, more = BUF_INIT;
    add_hash(&list, 1);
    add_hash(&list, 2);
    assert_int_equal(list.len, 2 * (28 + 16 + 32));
    /* One list of two signatures, of which one is known. */
    add_hash(&more, 2);
    buf_append(&more, owner.bytes, GUID_SIZE);
    memset(buf_extend(&more, SHA256_SIZE), 3, SHA256_SIZE);
    put_le32(more.data + 16, (uint32_t)more.len);
    assert_int_equal(count(&more), 2);
    assert_ok(signature_list_join(&list, more.data, more.len));
    assert_int_equal(count(&list), 3);
    assert_ok(signature_list_join(&list, more.data, more.len));
    assert_int_equal(count(&list), 3);

    struct signature_reader reader = {.at = list.data, .left = list.len};
    struct signature signature;
    struct signature_text text;
    struct err *err;
    assert_true(signature_next(&reader, &signature, &err));
    assert_true(guid_is(signature.owner, &owner));
    signature_describe(&signature, &text);
    assert_string_equal(text.type, "sha256");
    assert_int_equal(strlen(text.digest), 64);
    assert_int_equal(strspn(text.digest, "01"), 64);
    buf_fini(&list);
    buf_fini(&more);
}

static void broken_lists(void **state)
{
    static const struct {
        unsigned at;
        uint32_t value;
    } damages[] = {{16, 77},         {16, 20}, {16, 0xffffffff}, {20, 1},
                   {20, 0xffffffff}, {24, 16}, {24, 0},          {24, 47}};
    for (unsigned i = 0; i < ARRAY_SIZE(damages); i++) {
        struct buf list = BUF_INIT, out = BUF_INIT;
        add_hash(&list, 1);
        put_le32(list.data + damages[i].at, damages[i].value);
        assert_err(signature_list_join(&out, list.data, list.len), "impossible sizes");
        buf_fini(&list);
        buf_fini(&out);
    }
    struct buf list = BUF_INIT, out = BUF_INIT;
    add_hash(&list, 1);
    buf_u8(&list, 0);
    assert_err(signature_list_join(&out, list.data, list.len), "follow the last list");
    /* A list without signatures is none of them. */
    put_le32(list.data + 16, 28);
    assert_ok(signature_list_join(&out, list.data, 28));
    buf_fini(&list);
    buf_fini(&out);
}

/* What a guest has put there is printed on a terminal. */
static void a_certificate_that_is_none(void **state)
{
    struct signature_text text;
    signature_describe(
        &(struct signature){signature_x509.bytes, owner.bytes, (const uint8_t *)"\033[2J", 4},
        &text);
    assert_string_equal(text.type, "x509");
    assert_string_equal(text.name, "no certificate that can be read");
    signature_describe(&(struct signature){owner.bytes, owner.bytes, (const uint8_t *)"x", 1},
                       &text);
    assert_string_equal(text.type, "?");
}

/* --- files --- */

static struct err *parse(const void *bytes, size_t len, struct buf *list)
{
    return signature_file_parse(bytes, len, &owner, list);
}

static void files(void **state)
{
    struct buf list = BUF_INIT, file = BUF_INIT, update = BUF_INIT;
    add_hash(&file, 1);
    assert_ok(parse(file.data, file.len, &list));
    assert_int_equal(count(&list), 1);
    /* A signed update: a time, a certificate structure of 24 + 3 bytes, the list. */
    static const struct guid pkcs7 =
        GUID(0x4aafd29d, 0x68df, 0x49ee, 0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7);
    buf_extend(&update, 16);
    buf_le32(&update, 27);
    buf_le32(&update, 0x0ef10200);
    buf_append(&update, pkcs7.bytes, GUID_SIZE);
    buf_extend(&update, 3);
    add_hash(&update, 2);
    assert_ok(parse(update.data, update.len, &list));
    assert_int_equal(count(&list), 2);
    put_le32(update.data + 16, 0xfffffff0);
    assert_err(parse(update.data, update.len, &list), "no certificate");

    assert_err(parse("", 0, &list), "empty");
    assert_err(parse("hello", 5, &list), "no certificate");
    static const char key[] = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_err(parse(key, sizeof(key) - 1, &list), "private key");
    static const char text[] = "-----BEGIN NOTHING-----\n";
    assert_err(parse(text, sizeof(text) - 1, &list), "text without a certificate");
    static const char bad[] = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_err(parse(bad, sizeof(bad) - 1, &list), "cannot be read");
    assert_err(parse("\x30\x82\x01\x00", 4, &list), "cannot be read");
    assert_err(parse("MZ", 2, &list), "no certificate");
    uint8_t *large = calloc(1, 100000);
    assert_err(parse(large, 100000, &list), "has room for");
    free(large);
    buf_fini(&list);
    buf_fini(&file);
    buf_fini(&update);
}

/* --- programs --- */

#define OPTIONAL (0x80u + 24)
#define SECTION (OPTIONAL + 240)
#define HEADERS 0x200u
#define SIGNED_AT 0x400u /* two sections of 0x100 bytes before it */

/* PE32+: headers, two sections (the second one lies first), 8 bytes, `signatures` bytes. */
static uint8_t *program(size_t signatures, size_t *len)
{
    *len = SIGNED_AT + 8 + signatures;
    uint8_t *pe = calloc(1, *len);
    for (size_t i = HEADERS; i < *len; i++)
        pe[i] = (uint8_t)(i * 7);
    memcpy(pe, "MZ", 2);
    put_le32(pe + 0x3c, 0x80);
    memcpy(pe + 0x80, "PE\0", 4);
    put_le16(pe + 0x86, 2);
    put_le16(pe + 0x94, 240);
    put_le16(pe + OPTIONAL, 0x20b);
    put_le32(pe + OPTIONAL + 60, HEADERS);
    put_le32(pe + OPTIONAL + 112 + 4 * 8, signatures ? SIGNED_AT + 8 : 0);
    put_le32(pe + OPTIONAL + 112 + 4 * 8 + 4, (uint32_t)signatures);
    for (unsigned i = 0; i < 2; i++) {
        put_le32(pe + SECTION + 40 * i + 16, 0x100);
        put_le32(pe + SECTION + 40 * i + 20, i ? 0x200 : 0x300);
    }
    return pe;
}

static void hashes(void **state)
{
    uint8_t hash[SHA256_SIZE], other[SHA256_SIZE];
    struct buf plain = BUF_INIT;
    size_t len;

    uint8_t *pe = program(0, &len);
    /* All in the order of the file, but for checksum and signatures' entry. */
    buf_append(&plain, pe, OPTIONAL + 64);
    buf_append(&plain, pe + OPTIONAL + 68, 112 + 32 - 68);
    buf_append(&plain, pe + OPTIONAL + 152, len - OPTIONAL - 152);
    gnutls_hash_fast(GNUTLS_DIG_SHA256, plain.data, plain.len, other);
    assert_ok(image_hash(pe, len, hash));
    assert_memory_equal(hash, other, SHA256_SIZE);
    put_le32(pe + OPTIONAL + 64, 0x12345678);
    assert_ok(image_hash(pe, len, other));
    assert_memory_equal(hash, other, SHA256_SIZE);
    pe[0x250]++;
    assert_ok(image_hash(pe, len, other));
    assert_memory_not_equal(hash, other, SHA256_SIZE);
    free(pe);
    buf_fini(&plain);

    uint8_t *is_signed = program(64, &len);
    assert_ok(image_hash(is_signed, len, other));
    assert_memory_equal(hash, other, SHA256_SIZE);
    free(is_signed);
}

static void broken_programs(void **state)
{
    static const struct {
        unsigned at;
        uint32_t value;
    } damages[] = {{0x3c, 0xfffffff0},
                   {0x3c, 0x3f0},
                   {0x80, 0},
                   {0x84, 0xffff0000},
                   {0x94, 100},
                   {0x94, 0xffff},
                   {OPTIONAL, 0x107},
                   {OPTIONAL + 60, 0x10000},
                   {OPTIONAL + 60, 0x80},
                   {OPTIONAL + 112 + 36, 0xffffffff},
                   {SECTION + 16, 0xffffffff},
                   {SECTION + 20, 0xfffffff0}};
    uint8_t hash[SHA256_SIZE];
    size_t len;
    for (unsigned i = 0; i < ARRAY_SIZE(damages); i++) {
        uint8_t *pe = program(0, &len);
        put_le32(pe + damages[i].at, damages[i].value);
        struct err *err = image_hash(pe, len, hash);
        if (!err)
            print_error("damage %u\n", i);
        assert_non_null(err);
        err_free(err);
        free(pe);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),
        cmocka_unit_test(broken_lists),
        cmocka_unit_test(a_certificate_that_is_none),
        cmocka_unit_test(files),
        cmocka_unit_test(hashes),
        cmocka_unit_test(broken_programs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
