/*
 * What a backup has still to copy, and the copying of it: pieces of the disk as they were when the
 * backup began, each of them once.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_LIVE_BACKUP_H
#define TENON_BLOCK_LIVE_BACKUP_H

#include "block/image.h"

struct backup;

/*
 * Of all of `source`, or of what its `bitmap` (NULL: none) calls dirty, which is clean from then
 * on. With nothing in flight. `source` and `target` are borrowed.
 */
struct err *backup_begin(struct image *source, struct image *target, const char *bitmap,
                         struct backup **backup);
/* `good`: it is there, and stable. Otherwise what was dirty is so again. NULL is fine. */
void backup_end(struct backup *take_backup, bool good);
/* Bytes, a power of two: what is copied as a whole. */
uint64_t backup_unit(const struct backup *backup);
/* Copies what is left to copy of these units. Any thread, but one at a time for a unit. */
int backup_copy(struct backup *backup, uint64_t offset, uint64_t length);

#endif
