/*
 * What filters share: a node that passes on what its driver does not look at.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_FILTER_PASS_H
#define TENON_BLOCK_FILTER_PASS_H

#include "block/core/driver.h"

/* A filter's node over the one below. */
struct image *filter_new(const struct block_driver *driver, struct image *take_below, void *state);

int filter_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length);
int filter_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length);
int filter_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap);
int filter_discard(struct image *image, uint64_t offset, uint64_t length);
int filter_flush(struct image *image);
int filter_extent(struct image *image, uint64_t offset, uint64_t length, struct image_extent *out);
int filter_truncate(struct image *image, uint64_t size);
struct err *filter_resize(struct image *image, uint64_t size);

#endif
