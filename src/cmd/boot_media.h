/*
 * What is on an image for firmware to start: an EFI system partition, boot programs and for which
 * processors. Only looks; what cannot be read is not there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_BOOT_MEDIA_H
#define TENON_CMD_BOOT_MEDIA_H

#include "block/image.h"

struct boot_media {
    bool esp;            /* the partition table has an EFI system partition */
    const char *foreign; /* its boot programs are for this architecture alone: "arm64"; or NULL */
};

/* A disk with a GUID partition table, or a disc with El Torito entries. */
void boot_media_look(struct image *image, struct boot_media *media);
/* The sentence about `foreign`; NULL when there is nothing to say. */
struct err *boot_media_check(const struct boot_media *media, const char *path);

#endif
