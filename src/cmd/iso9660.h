/*
 * A small CD image: files in the root folder of an ISO 9660 volume.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_ISO9660_H
#define TENON_CMD_ISO9660_H

#include "base/base.h"
#include "base/buf.h"

#define ISO9660_FILES_MAX 8

struct iso9660_file {
    const char *name; /* at most 28 characters; stored in capitals, shown in small letters */
    const void *bytes;
    size_t len;
};

/* Appends the image of a volume called `label` (at most 32 characters). Files in order of names. */
void iso9660_write(const char *label, const struct iso9660_file *files, unsigned count,
                   struct buf *out);

#endif
