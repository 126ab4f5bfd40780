/*
 * Where an NVMe command's data is: physical region pages and lists of them (NVMe 1.4, section 4.3).
 *
 * An entry of a list is read once and judged as it was then. A walk ends: each step takes bytes
 * off the transfer, and a list page leads to the next one only at its last entry.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "hw/core/env.h"
#include "hw/disk/nvme_internal.h"

#define ENTRY 8u

struct walk {
    struct gmem *gmem;
    uint64_t page;  /* the second page, when there is no list */
    uint64_t entry; /* the next entry of the list; 0: there is none */
    uint32_t left;
};

/* The next run of guest memory; NVME_OK or the status. */
static unsigned walk_next(struct walk *walk, uint64_t *gpa, uint32_t *length)
{
    uint64_t entry;
    if (!walk->entry) {
        *gpa = walk->page;
        *length = walk->left;
        walk->left = 0;
        return *gpa % NVME_PAGE ? NVME_INVALID_PRP_OFFSET : NVME_OK;
    }
    if (walk->entry % NVME_PAGE == NVME_PAGE - ENTRY && walk->left > NVME_PAGE) {
        if (gmem_load_le64(walk->gmem, walk->entry, &walk->entry) < 0)
            return NVME_DATA_TRANSFER;
        if (walk->entry % NVME_PAGE)
            return NVME_INVALID_PRP_OFFSET;
    }
    if (gmem_load_le64(walk->gmem, walk->entry, &entry) < 0)
        return NVME_DATA_TRANSFER;
    walk->entry += ENTRY;
    *gpa = entry;
    *length = MIN(walk->left, NVME_PAGE);
    walk->left -= *length;
    return entry % NVME_PAGE ? NVME_INVALID_PRP_OFFSET : NVME_OK;
}

/* The first run, up to the end of its page, and where the rest is. */
static unsigned walk_start(struct walk *walk, struct nvme *nvme, const struct nvme_command *command,
                           uint32_t length, uint64_t *gpa, uint32_t *first)
{
    *gpa = command->prp1;
    *first = MIN(length, NVME_PAGE - (uint32_t)(command->prp1 % NVME_PAGE));
    *walk = (struct walk){.gmem = nvme->pci.device.env->gmem, .left = length - *first};
    if (walk->left <= NVME_PAGE)
        walk->page = command->prp2;
    else
        walk->entry = command->prp2;
    if (command->prp1 % 4 || (walk->entry && walk->entry % ENTRY))
        return NVME_INVALID_PRP_OFFSET;
    return walk->left > NVME_PAGE && !walk->entry ? NVME_DATA_TRANSFER : NVME_OK;
}

unsigned nvme_copy(struct nvme *nvme, const struct nvme_command *command, void *bytes,
                   uint32_t length, bool to_guest)
{
    struct walk walk;
    uint64_t gpa;
    uint32_t here;
    uint8_t *at = bytes;
    unsigned status = walk_start(&walk, nvme, command, length, &gpa, &here);
    while (status == NVME_OK && here) {
        int result =
            to_guest ? gmem_write(walk.gmem, gpa, at, here) : gmem_read(walk.gmem, gpa, at, here);
        if (result < 0)
            return NVME_DATA_TRANSFER;
        at += here;
        here = 0;
        if (walk.left)
            status = walk_next(&walk, &gpa, &here);
    }
    return status;
}

/* Borrows one contiguous run; false: not RAM, or too many pieces. */
static bool borrow(struct nvme_request *request, struct gmem *gmem, uint64_t gpa, uint64_t length)
{
    while (length) {
        size_t mapped;
        void *host =
            gmem_map(gmem, gpa, length, request->to_guest ? GMEM_WRITE : GMEM_READ, &mapped);
        if (!host)
            return false;
        if (request->segments == NVME_SEGMENTS_MAX) {
            gmem_unmap(gmem, host, mapped, request->to_guest ? GMEM_WRITE : GMEM_READ, 0);
            return false;
        }
        request->iov[request->segments++] = (struct iovec){host, mapped};
        gpa += mapped;
        length -= mapped;
    }
    return true;
}

unsigned nvme_map(struct nvme_request *request, uint32_t length, bool to_guest)
{
    struct walk walk;
    uint64_t gpa, run, run_length;
    uint32_t here;
    request->to_guest = to_guest;
    unsigned status = walk_start(&walk, request->sq->nvme, &request->command, length, &run, &here);
    run_length = here;
    while (status == NVME_OK && walk.left) {
        status = walk_next(&walk, &gpa, &here);
        if (status != NVME_OK)
            break;
        if (gpa == run + run_length) {
            run_length += here;
            continue;
        }
        if (!borrow(request, walk.gmem, run, run_length))
            status = NVME_DATA_TRANSFER;
        run = gpa;
        run_length = here;
    }
    if (status == NVME_OK && !borrow(request, walk.gmem, run, run_length))
        status = NVME_DATA_TRANSFER;
    if (status != NVME_OK) {
        request->io.op = BLOCK_FLUSH; /* nothing was read into these */
        nvme_unmap(request);
    }
    return status;
}

void nvme_unmap(struct nvme_request *request)
{
    struct gmem *gmem = request->sq->nvme->pci.device.env->gmem;
    bool read = request->io.op == BLOCK_READ;
    for (unsigned i = 0; i < request->segments; i++) {
        const struct iovec *segment = &request->iov[i];
        gmem_unmap(gmem, segment->iov_base, segment->iov_len,
                   request->to_guest ? GMEM_WRITE : GMEM_READ, read ? segment->iov_len : 0);
    }
    request->segments = 0;
}
