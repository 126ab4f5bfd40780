/*
 * Raw files and block devices: size, geometry, direct I/O.
 *
 * Control path, before the sandbox.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "block/core/internal.h"

#define SECTOR 512

static bool plausible_block(uint64_t size)
{
    return is_power_of_2(size) && size >= SECTOR && size <= KIB(64);
}

/* O_DIRECT: does the file take reads of `size` bytes into memory aligned to it? */
static bool direct_read_works(int fd, size_t size)
{
    void *buffer;
    if (posix_memalign(&buffer, size, size) != 0)
        return false;
    ssize_t got = pread(fd, buffer, size, 0);
    free(buffer);
    return got >= 0;
}

static struct err *setup_direct(struct block *block)
{
    int flags = fcntl(block->fd, F_GETFL);
    if (!(flags & O_DIRECT) && fcntl(block->fd, F_SETFL, flags | O_DIRECT) < 0)
        return err_errno(errno,
                         "direct I/O is not possible on this file system, use another cache");
    uint32_t offset_align = 0, memory_align = 0;
#ifdef STATX_DIOALIGN
    struct statx status;
    if (statx(block->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
        (status.stx_mask & STATX_DIOALIGN)) {
        offset_align = status.stx_dio_offset_align;
        memory_align = status.stx_dio_mem_align;
    }
#endif
    if (!plausible_block(offset_align)) {
        offset_align = SECTOR;
        while (offset_align < 4096 && !direct_read_works(block->fd, offset_align))
            offset_align *= 2;
    }
    block->info.logical_block = MAX(block->info.logical_block, offset_align);
    block->memory_align = is_power_of_2(memory_align) ? memory_align : block->info.logical_block;
    return NULL;
}

static struct err *device_geometry(struct block *block)
{
    uint64_t size;
    int logical = 0;
    unsigned physical = 0;
    if (ioctl(block->fd, BLKGETSIZE64, &size) < 0)
        return err_errno(errno, "cannot learn the size of the device");
    block->info.size = size;
    if (ioctl(block->fd, BLKSSZGET, &logical) == 0 && plausible_block((uint64_t)logical) &&
        block->cache == BLOCK_CACHE_NONE)
        block->info.logical_block = (uint32_t)logical;
    if (ioctl(block->fd, BLKPBSZGET, &physical) == 0 && plausible_block(physical))
        block->info.physical_block = physical;
    return NULL;
}

struct err *block_file_open(struct block *block, const struct block_options *options)
{
    struct stat status;
    if (fstat(block->fd, &status) < 0)
        return err_errno(errno, "cannot examine the file");
    block->memory_align = 1;
    block->info.logical_block = SECTOR;
    block->info.physical_block = SECTOR;
    int access = fcntl(block->fd, F_GETFL) & O_ACCMODE;
    if (access == O_WRONLY || (access == O_RDONLY && !options->readonly))
        return err_new("its descriptor was opened for the wrong access");
    if (S_ISBLK(status.st_mode)) {
        TRY(device_geometry(block));
    } else if (S_ISREG(status.st_mode)) {
        block->info.size = (uint64_t)status.st_size;
        if (plausible_block((uint64_t)status.st_blksize))
            block->info.physical_block = MIN((uint32_t)status.st_blksize, 4096u);
    } else {
        return err_new("it is neither a file nor a block device");
    }
    if (options->cache == BLOCK_CACHE_NONE)
        TRY(setup_direct(block));
    block->info.physical_block = MAX(block->info.physical_block, block->info.logical_block);
    block->info.size = ALIGN_DOWN(block->info.size, (uint64_t)block->info.logical_block);
    if (!block->info.size)
        return err_new("it is empty");
    return NULL;
}
