/*
 * PRD tables (AHCI 1.3.1, section 4.2.3.3): from a command's table to borrowed guest memory.
 *
 * The guest may change the table at any time. Each entry is read once when it is needed, and what
 * was read is what counts; a step that has to be mapped again is judged again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/core/env.h"
#include "hw/disk/ahci_internal.h"

#define ENTRY 16u
#define ENTRY_LENGTH 0x3fffffu /* less one */

static struct gmem *memory_of(const struct ahci_command *command)
{
    return command->port->ahci->pci.device.env->gmem;
}

/* Leaves something in cursor->left; 0, -EFAULT or -ENOBUFS. */
static int next_entry(struct gmem *gmem, struct ahci_cursor *cursor)
{
    uint8_t entry[ENTRY];
    if (cursor->left)
        return 0;
    if (cursor->next == cursor->entries)
        return -ENOBUFS;
    if (gmem_read(gmem, cursor->table + (uint64_t)ENTRY * cursor->next++, entry, sizeof(entry)) < 0)
        return -EFAULT;
    /* Addresses and lengths are even: the lowest bit of either is not looked at. */
    cursor->gpa = get_le64(entry) & ~1ull;
    cursor->left = ((get_le32(entry + 12) & ENTRY_LENGTH) | 1) + 1;
    return 0;
}

static void advance(struct ahci_cursor *cursor, uint64_t bytes)
{
    cursor->gpa += bytes;
    cursor->left -= (uint32_t)bytes;
}

/* One pass: up to `want` bytes or the end of table or segments. */
static int map_some(struct ahci_command *command, uint64_t want, uint64_t *mapped)
{
    struct gmem *gmem = memory_of(command);
    struct ahci_cursor *cursor = &command->cursor;
    enum gmem_dir dir = command->to_guest ? GMEM_WRITE : GMEM_READ;
    *mapped = 0;
    while (*mapped < want && command->segments < AHCI_SEGMENTS_MAX) {
        size_t here;
        int result = next_entry(gmem, cursor);
        if (result)
            return result;
        void *host =
            gmem_map(gmem, cursor->gpa, MIN((uint64_t)cursor->left, want - *mapped), dir, &here);
        if (!host)
            return -EFAULT;
        command->iov[command->segments++] = (struct iovec){host, here};
        advance(cursor, here);
        *mapped += here;
    }
    return 0;
}

int ahci_map(struct ahci_command *command, uint64_t want, uint32_t unit, uint64_t *mapped)
{
    struct ahci_cursor begin = command->cursor;
    uint64_t whole;
    int result = map_some(command, want, mapped);
    whole = *mapped - *mapped % unit;
    if (!result && whole != *mapped) {
        /* The segments ended inside a sector: once more, up to where it begins. */
        ahci_unmap(command, 0);
        command->cursor = begin;
        result = map_some(command, whole, mapped);
        if (!result && *mapped != whole)
            result = -EFAULT;
    }
    if (!result && want && !*mapped)
        result = -EFAULT;
    if (result)
        ahci_unmap(command, 0);
    return result;
}

int ahci_map_all(struct ahci_command *command, uint64_t *mapped)
{
    return map_some(command, UINT64_MAX, mapped);
}

void ahci_unmap(struct ahci_command *command, uint64_t written)
{
    struct gmem *gmem = memory_of(command);
    enum gmem_dir dir = command->to_guest ? GMEM_WRITE : GMEM_READ;
    for (unsigned i = 0; i < command->segments; i++) {
        const struct iovec *segment = &command->iov[i];
        uint64_t here = MIN(written, (uint64_t)segment->iov_len);
        gmem_unmap(gmem, segment->iov_base, segment->iov_len, dir, here);
        written -= here;
    }
    command->segments = 0;
}

int ahci_copy(struct ahci_command *command, void *bytes, uint32_t length, bool to_guest)
{
    struct gmem *gmem = memory_of(command);
    struct ahci_cursor *cursor = &command->cursor;
    uint8_t *at = bytes;
    while (length) {
        int result = next_entry(gmem, cursor);
        if (result)
            return result;
        uint32_t here = MIN(length, cursor->left);
        result = to_guest ? gmem_write(gmem, cursor->gpa, at, here)
                          : gmem_read(gmem, cursor->gpa, at, here);
        if (result < 0)
            return -EFAULT;
        advance(cursor, here);
        command->moved += here;
        at += here;
        length -= here;
    }
    return 0;
}
