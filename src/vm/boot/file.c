/*
 * Kernel and initrd files: read by descriptor in checked ranges. They are not mapped, because a
 * file that shrinks under a mapping kills the process that reads it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "vm/boot/internal.h"

struct err *boot_file_error(const struct boot_file *file, struct err *take_cause)
{
    return err_wrap(take_cause, "%s '%s'", file->kind, file->name);
}

struct err *boot_file_open(struct boot_file *file, int fd, const char *kind, const char *name)
{
    struct stat stat;

    *file = (struct boot_file){.fd = fd, .kind = kind, .name = name ? name : "?"};
    if (fstat(fd, &stat))
        return boot_file_error(file, err_errno(errno, "cannot be examined"));
    if (!S_ISREG(stat.st_mode))
        return boot_file_error(file, err_new("is not a regular file: give the path of one"));
    if (!stat.st_size)
        return boot_file_error(file, err_new("is empty: give another file"));
    file->size = (uint64_t)stat.st_size;
    return NULL;
}

/* pread until all is there. */
static struct err *read_all(const struct boot_file *file, uint64_t offset, uint8_t *bytes,
                            size_t len)
{
    while (len) {
        ssize_t got = pread(file->fd, bytes, len, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return boot_file_error(file, err_errno(errno, "cannot be read"));
        if (!got)
            return boot_file_error(
                file,
                err_new("is truncated: it ends at byte %" PRIu64 " while being read", offset));
        bytes += got;
        offset += (uint64_t)got;
        len -= (size_t)got;
    }
    return NULL;
}

static struct err *check_range(const struct boot_file *file, uint64_t offset, uint64_t len)
{
    if (range_within(offset, len, file->size))
        return NULL;
    return boot_file_error(file, err_new("is truncated: it has %" PRIu64 " bytes, and names some "
                                         "beyond; get a whole copy",
                                         file->size));
}

struct err *boot_file_read(const struct boot_file *file, uint64_t offset, void *bytes, size_t len)
{
    TRY(check_range(file, offset, len));
    return read_all(file, offset, bytes, len);
}

struct err *boot_file_copy(const struct boot_file *file, uint64_t offset, struct gmem *gmem,
                           uint64_t gpa, uint64_t len)
{
    TRY(check_range(file, offset, len));
    while (len) {
        size_t mapped;
        void *host = gmem_map(gmem, gpa, len, GMEM_WRITE, &mapped);
        if (!host)
            return boot_file_error(
                file, err_new("wants to lie at 0x%" PRIx64 ", where there is no memory", gpa));
        struct err *err = read_all(file, offset, host, mapped);
        gmem_unmap(gmem, host, mapped, GMEM_WRITE, mapped);
        if (err)
            return err;
        offset += mapped;
        gpa += mapped;
        len -= mapped;
    }
    return NULL;
}
