/*
 * qcow2: clusters that LUKS encrypts (crypt_method 2). The header with its key slots lies in
 * clusters of its own; a sector's number is that of its place in the file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "block/format/luks.h"
#include "block/format/qcow2.h"

#define AREA_MAX MIB(64)

struct err *qcow2_crypt_open(struct qcow2 *q)
{
    uint8_t header[LUKS_HEADER];
    if (q->external)
        return err_new("encrypted data in another file is not supported");
    if (q->crypt_at % q->cluster_size || q->crypt_size < LUKS_HEADER || q->crypt_size > AREA_MAX ||
        !range_within(q->crypt_at, q->crypt_size, image_size(q->file)))
        return err_new("its encryption header lies outside of the file");
    int result = image_read(q->file, header, q->crypt_at, sizeof(header));
    if (result)
        return err_errno(-result, "cannot read its encryption header");
    TRY(luks_open(header, sizeof(header), &q->luks));
    q->data = luks_clusters(q->file, q->luks);
    return NULL;
}

void qcow2_crypt_close(struct qcow2 *q)
{
    if (q->luks)
        image_close(q->data); /* and with it the header */
    q->luks = NULL;
    q->data = q->file;
}

bool qcow2_locked(const struct image *image)
{
    const struct qcow2 *q = image->state;
    return q->luks && luks_locked(q->luks);
}

struct err *qcow2_unlock(struct image *image, const void *key, size_t length)
{
    struct qcow2 *q = image->state;
    uint8_t *area = malloc(q->crypt_size);
    int result = area ? image_read(q->file, area, q->crypt_at, q->crypt_size) : -ENOMEM;
    struct err *err = result ? err_errno(-result, "cannot read its key slots")
                             : luks_unlock(q->luks, area, q->crypt_size, key, length);
    free(area);
    return err;
}

bool qcow2_wants_key(const struct image_create *create)
{
    return image_create_value(create, "encrypt.format");
}

struct err *qcow2_crypt_create(const struct image_create *create, uint8_t **area, size_t *length)
{
    const char *format = image_create_value(create, "encrypt.format");
    struct luks_options options;
    *area = NULL;
    *length = 0;
    if (!format)
        return NULL;
    if (strcmp(format, "luks"))
        return err_of(ERR_USAGE, "encrypt.format is luks, not '%s'", format);
    if (image_create_value(create, "data_file"))
        return err_of(ERR_USAGE, "encrypted data in another file is not supported");
    if (!create->key_length)
        return err_of(ERR_USAGE, "a passphrase is needed: give it with --key-file");
    TRY(luks_options_choose(create, "encrypt.", &options));
    return luks_format(&options, create->key, create->key_length, area, length);
}
