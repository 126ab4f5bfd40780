/*
 * Variable stores: what counts in one, what is written back, Secure Boot's variables, and stores
 * that are broken or meant badly. OVMF's own store is read where the package is installed; that
 * firmware takes what is written here is for tests/e2e/test_secure_boot.py.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>

#include "../test.h"
#include "base/bytes.h"
#include "uefi/secure_boot.h"

#define VOLUME_HEADER 72u
#define STORE 4096u /* with its header */
#define JOURNAL (VOLUME_HEADER + STORE + 0x1000u)
#define LENGTH (JOURNAL + 0x1000u)
#define FIRST (VOLUME_HEADER + 28u)

#define ADDED 0x3f
#define IN_TRANSITION 0x3e
#define DELETED 0x3c
#define UNFINISHED 0x7f

static const struct guid vendor = GUID(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
static const struct guid authenticated =
    GUID(0xaaf32c78, 0x947b, 0x439a, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92);
static const struct guid journal =
    GUID(0x9e58292b, 0x7c68, 0x497d, 0xa0, 0xce, 0x65, 0x00, 0xfd, 0x9f, 0x1b, 0x95);

/* --- writing stores --- */

static void seal(uint8_t *bytes)
{
    uint16_t sum = 0;
    put_le16(bytes + 50, 0);
    for (unsigned i = 0; i < VOLUME_HEADER; i += 2)
        sum = (uint16_t)(sum + get_le16(bytes + i));
    put_le16(bytes + 50, (uint16_t)-sum);
}

static uint8_t *empty_store(void)
{
    uint8_t *bytes = malloc(LENGTH);
    memset(bytes, 0xff, LENGTH);
    memset(bytes, 0, VOLUME_HEADER);
    put_le64(bytes + 32, LENGTH);
    memcpy(bytes + 40, "_FVH", 4);
    put_le16(bytes + 48, VOLUME_HEADER);
    seal(bytes);
    memcpy(bytes + VOLUME_HEADER, authenticated.bytes, GUID_SIZE);
    put_le32(bytes + VOLUME_HEADER + 16, STORE);
    bytes[VOLUME_HEADER + 20] = 0x5a;
    bytes[VOLUME_HEADER + 21] = 0xfe;
    memcpy(bytes + JOURNAL, journal.bytes, GUID_SIZE);
    put_le64(bytes + JOURNAL + 24, 0x1000 - 32);
    return bytes;
}

/* A variable with a name of one letter and a text; where the next one begins. */
static size_t put(uint8_t *bytes, size_t at, uint8_t state, char name, const char *text)
{
    memset(bytes + at, 0, 60);
    put_le16(bytes + at, 0x55aa);
    bytes[at + 2] = state;
    put_le32(bytes + at + 4, 7);
    put_le32(bytes + at + 36, 4);
    put_le32(bytes + at + 40, (uint32_t)strlen(text));
    memcpy(bytes + at + 44, vendor.bytes, GUID_SIZE);
    put_le32(bytes + at + 60, (uint8_t)name);
    memcpy(bytes + at + 64, text, strlen(text));
    return (at + 64 + strlen(text) + 3) & ~(size_t)3;
}

static void has(const struct variable_store *store, const char *name, const char *text)
{
    size_t len;
    const uint8_t *data = variable_store_get(store, &vendor, name, &len);
    if (!text) {
        assert_null(data);
        return;
    }
    assert_int_equal(len, strlen(text));
    assert_memory_equal(data, text, len);
}

/* --- tests --- */

static void what_counts(void **state)
{
    struct variable_store store;
    uint8_t *bytes = empty_store();
    size_t at = put(bytes, FIRST, ADDED, 'a', "one");
    at = put(bytes, at, DELETED, 'b', "old");
    at = put(bytes, at, ADDED, 'b', "new");
    at = put(bytes, at, IN_TRANSITION, 'c', "before");
    at = put(bytes, at, ADDED, 'c', "after");
    at = put(bytes, at, IN_TRANSITION, 'd', "alone");
    at = put(bytes, at, UNFINISHED, 'e', "half");
    at = put(bytes, at, ADDED, 'f', "first");
    at = put(bytes, at, IN_TRANSITION, 'f', "later");
    /* The power went before the sizes: only a header is lost. */
    put(bytes, at, 0xff, 'g', "");
    memset(bytes + at + 4, 0xff, 56);
    at = put(bytes, at + 60, ADDED, 'h', "last");
    /* A liar says so of a variable that is there. */
    put(bytes, at, ADDED, 'i', "");
    put_le32(bytes + at + 36, ~0u);
    at = put(bytes, at + 60, ADDED, 'j', "");
    put_le32(bytes + at - 64 + 40, ~0u);
    assert_ok(variable_store_open(bytes, LENGTH, &store));
    has(&store, "a", "one");
    has(&store, "b", "new");
    has(&store, "c", "after");
    has(&store, "d", "alone");
    has(&store, "e", NULL);
    has(&store, "f", "first");
    has(&store, "h", "last");
    has(&store, "aa", NULL);
    assert_int_equal(store.count, 6);
    variable_store_fini(&store);
}

static void what_is_written_is_read(void **state)
{
    struct variable_store store, again;
    uint8_t *bytes = empty_store(), *copy = malloc(LENGTH);
    size_t at = put(bytes, FIRST, ADDED, 'a', "one"), len;
    at = put(bytes, at, DELETED, 'b', "old");
    put(bytes, at, IN_TRANSITION, 'c', "three");
    assert_ok(variable_store_open(bytes, LENGTH, &store));
    assert_ok(variable_store_set(&store, &vendor, "name", 7, "a longer one", 12));
    assert_ok(variable_store_set(&store, &vendor, "a", 7, "changed", 7));
    assert_ok(variable_store_set(&store, &vendor, "gone", 7, "x", 1));
    assert_ok(variable_store_set(&store, &vendor, "gone", 7, NULL, 0));
    assert_ok(variable_store_set(&store, &vendor, "never", 7, NULL, 0));
    /* Its own contents. */
    const uint8_t *own = variable_store_get(&store, &vendor, "c", &len);
    assert_ok(variable_store_set(&store, &vendor, "c", 7, own, len));
    assert_ok(variable_store_pack(&store));
    memcpy(copy, store.bytes, LENGTH);
    variable_store_fini(&store);

    assert_ok(variable_store_open(copy, LENGTH, &again));
    assert_int_equal(again.count, 3);
    has(&again, "a", "changed");
    has(&again, "c", "three");
    has(&again, "name", "a longer one");
    has(&again, "gone", NULL);
    /* Nothing is left behind the last one. */
    assert_int_equal(copy[VOLUME_HEADER + STORE - 1], 0xff);
    assert_null(memmem(copy, LENGTH, "old", 3));
    variable_store_fini(&again);
}

static void secure_boot(void **state)
{
    struct variable_store store;
    size_t len;
    assert_ok(variable_store_open(empty_store(), LENGTH, &store));
    assert_int_equal(secure_boot_state(&store), SECURE_BOOT_SETUP);
    assert_ok(secure_boot_enforce(&store));
    assert_int_equal(store.count, 0);
    assert_ok(secure_boot_set(&store, SECURE_BOOT_PK, (const uint8_t *)"key", 3));
    assert_ok(secure_boot_enforce(&store));
    assert_int_equal(secure_boot_state(&store), SECURE_BOOT_ON);
    assert_memory_equal(secure_boot_get(&store, SECURE_BOOT_PK, &len), "key", 3);
    assert_null(secure_boot_get(&store, SECURE_BOOT_DB, &len));
    /* Somebody turns it off in the firmware's menu. */
    assert_int_equal(store.count, 2);
    store.variable[1].data[store.variable[1].len - 1] = 0;
    assert_int_equal(secure_boot_state(&store), SECURE_BOOT_OFF);
    assert_ok(secure_boot_enforce(&store));
    assert_int_equal(secure_boot_state(&store), SECURE_BOOT_ON);
    /* Firmware takes keys only if they carry a time. */
    const uint8_t *header = store.variable[0].data;
    assert_int_equal(get_le32(header + 4), 0x27);
    assert_true(get_le16(header + 16) >= 2024 && header[18] >= 1 && header[18] <= 12);
    variable_store_fini(&store);
}

static void too_much(void **state)
{
    struct variable_store store;
    uint8_t *large = calloc(1, 40000);
    assert_ok(variable_store_open(empty_store(), LENGTH, &store));
    assert_err(variable_store_set(&store, &vendor, "large", 7, large, 40000), "firmware takes");
    assert_ok(variable_store_set(&store, &vendor, "large", 7, large, 5000));
    assert_err(variable_store_pack(&store), "has room for");
    variable_store_fini(&store);
    free(large);
}

struct damage {
    size_t at, size;
    uint64_t value;
    bool sealed; /* the volume's checksum is right again */
    const char *because;
};

static void broken_stores(void **state)
{
    static const struct damage damages[] = {
        {40, 1, 'x', true, "no header of a firmware volume"},
        {50, 2, 1, false, "checksum"},
        {48, 2, 0xfffe, true, "for itself"},
        {48, 2, 8, true, "for itself"},
        {32, 8, LENGTH + 1, true, "cut short"},
        {VOLUME_HEADER, 1, 0, true, "no authenticated variables"},
        {VOLUME_HEADER + 16, 4, 0xffffffff, true, "for its variables"},
        {VOLUME_HEADER + 16, 4, 27, true, "for its variables"},
        {VOLUME_HEADER + 20, 1, 0xff, true, "never formatted"},
        {FIRST + 36, 4, 0xfffffff0, true, "reaches past its end"},
        {FIRST + 40, 4, STORE, true, "reaches past its end"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(damages); i++) {
        struct variable_store store;
        uint8_t *bytes = empty_store();
        put(bytes, FIRST, ADDED, 'a', "one");
        put_le(bytes + damages[i].at, (unsigned)damages[i].size, damages[i].value);
        if (damages[i].sealed)
            seal(bytes);
        assert_err(variable_store_open(bytes, LENGTH, &store), damages[i].because);
        variable_store_fini(&store);
    }
    for (size_t len = 0; len < LENGTH; len += len < 200 ? 1 : 500) {
        struct variable_store store;
        struct err *err = variable_store_open(realloc(empty_store(), len + 1), len, &store);
        assert_non_null(err);
        err_free(err);
        variable_store_fini(&store);
    }
}

/* The journal's list of writes: begun, written, complete. */
static void an_unfinished_rewrite(void **state)
{
    static const uint8_t bits[] = {0xff, 0xfe, 0xfc, 0xf8};
    for (unsigned i = 0; i < ARRAY_SIZE(bits); i++) {
        struct variable_store store;
        uint8_t *bytes = empty_store(), *list = bytes + JOURNAL + 32;
        memset(list, 0, 80);
        list[0] = 0xf8;
        put_le64(list + 24, 1);
        memset(list + 80, 0, 80);
        list[80] = bits[i];
        put_le64(list + 80 + 24, 1);
        struct err *err = variable_store_open(bytes, LENGTH, &store);
        if (bits[i] == 0xff || bits[i] == 0xf8)
            assert_ok(err);
        else
            assert_err(err, "while the firmware wrote");
        variable_store_fini(&store);
    }
}

static void ovmfs_own(void **state)
{
    FILE *file = fopen("/usr/share/OVMF/OVMF_VARS_4M.ms.fd", "rb");
    if (!file)
        skip();
    struct variable_store store;
    uint8_t *bytes = malloc(MIB(1));
    size_t len = fread(bytes, 1, MIB(1), file);
    fclose(file);
    assert_ok(variable_store_open(bytes, len, &store));
    assert_int_equal(secure_boot_state(&store), SECURE_BOOT_ON);
    for (unsigned i = 0; i < SECURE_BOOT_VARIABLES; i++)
        assert_non_null(secure_boot_get(&store, (enum secure_boot_variable)i, &len));
    variable_store_fini(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_counts),   cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(secure_boot),   cmocka_unit_test(too_much),
        cmocka_unit_test(broken_stores), cmocka_unit_test(an_unfinished_rewrite),
        cmocka_unit_test(ovmfs_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
