/*
 * A pipe, socket or terminal that a disk of `size` bytes is written into, in order.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_PROTO_PIPE_H
#define TENON_BLOCK_PROTO_PIPE_H

#include "block/image.h"

/* `fd` is borrowed and stays open. */
struct image *image_open_pipe(int fd, uint64_t size);

#endif
