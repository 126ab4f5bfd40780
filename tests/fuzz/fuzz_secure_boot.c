/*
 * libFuzzer target: a variable store that a guest has written, and a file with keys that go into
 * it: read, shown, changed, packed, and read again.
 *
 * A finding is a crash or a sanitizer's report; text that is not printable; a store that is not
 * what was written.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "uefi/secure_boot.h"
#include "uefi/signature_file.h"
#include "uefi/signature_list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct guid owner = GUID(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);

static void show(const struct variable_store *store)
{
    for (unsigned i = 0; i < SECURE_BOOT_VARIABLES; i++) {
        struct signature_reader reader = {0};
        struct signature signature;
        struct err *err;
        reader.at = secure_boot_get(store, (enum secure_boot_variable)i, &reader.left);
        while (signature_next(&reader, &signature, &err)) {
            struct signature_text text;
            signature_describe(&signature, &text);
            for (const char *c = text.name; *c; c++) {
                if (!isprint((unsigned char)*c))
                    abort();
            }
        }
        err_free(err);
    }
}

/* No mutation finds a checksum: whoever writes a store writes that too. */
static void seal(uint8_t *bytes, size_t len)
{
    uint16_t sum = 0;
    if (len < 56)
        return;
    put_le16(bytes + 50, 0);
    for (size_t i = 0; i + 2 <= MIN((size_t)get_le16(bytes + 48), len); i += 2)
        sum = (uint16_t)(sum + get_le16(bytes + i));
    put_le16(bytes + 50, (uint16_t)-sum);
}

static void again(const struct variable_store *store)
{
    struct variable_store other;
    uint8_t *copy = malloc(store->len + 1);
    memcpy(copy, store->bytes, store->len);
    if (variable_store_open(copy, store->len, &other) || other.count != store->count)
        abort();
    for (unsigned i = 0; i < other.count; i++) {
        if (other.variable[i].len != store->variable[i].len)
            abort();
    }
    variable_store_fini(&other);
}

/* The first two bytes say how long the file with keys is; the store follows it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct variable_store store;
    struct buf list = BUF_INIT;

    if (size < 2)
        return 0;
    size_t len = MIN((size_t)get_le16(data), size - 2), rest = size - 2 - len;
    uint8_t *bytes = malloc(rest + 1);
    memcpy(bytes, data + 2 + len, rest);
    seal(bytes, rest);
    err_free(signature_file_parse(data + 2, len, &owner, &list));
    struct err *err = variable_store_open(bytes, rest, &store);
    if (!err) {
        show(&store);
        err = secure_boot_set(&store, SECURE_BOOT_DB, list.data, list.len);
        show(&store);
        if (!err)
            err = secure_boot_enforce(&store);
        if (!err)
            err = variable_store_pack(&store);
        if (!err)
            again(&store);
    }
    err_free(err);
    variable_store_fini(&store);
    buf_fini(&list);
    return 0;
}
