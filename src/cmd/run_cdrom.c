/*
 * Discs: `--cdrom FILE`, and what is seen of an image before a machine gets it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "cmd/boot_media.h"
#include "cmd/run.h"
#include "vm/schema.h"

#define ISO_SECTOR 2048u
#define ISO_VOLUME_AT (16 * ISO_SECTOR) /* primary volume descriptor (ECMA-119, 8.4) */
#define ISO_BLOCKS_AT 80
#define ISO_BLOCK_SIZE_AT 128

struct err *run_add_cdrom(struct run *run, const char *path)
{
    struct vm_config *config = &run->launch.config;

    TRY(schema_apply_flag(config, "disk", "x,media=cdrom"));
    struct vm_disk *disk = &config->disk[config->disk_count - 1];
    free(disk->path);
    disk->path = strcmp(path, "none") ? xstrdup(path) : NULL;
    return NULL;
}

struct err *run_check_disc(const char *path, int fd)
{
    uint8_t volume[ISO_SECTOR];
    struct stat status;

    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) ||
        pread(fd, volume, sizeof(volume), ISO_VOLUME_AT) != (ssize_t)sizeof(volume) ||
        memcmp(volume, "\1CD001", 6))
        return NULL;
    uint64_t wanted =
        (uint64_t)get_le32(volume + ISO_BLOCKS_AT) * get_le16(volume + ISO_BLOCK_SIZE_AT);
    if ((uint64_t)status.st_size >= wanted)
        return NULL;
    return err_new(
        "'%s' was cut short: its ISO 9660 volume has %llu bytes, the file %llu: fetch it "
        "again",
        path, (unsigned long long)wanted, (unsigned long long)status.st_size);
}

struct err *run_check_boot_disc(const struct vm_disk *disk)
{
    int fd = fcntl(disk->fd, F_DUPFD_CLOEXEC, 3);
    struct boot_media media;
    struct image *image;

    if (fd < 0)
        return err_errno(errno, "cannot look at '%s'", disk->path);
    TRY(image_open_fd(fd, 0, &image));
    boot_media_look(image, &media);
    image_close(image);
    return boot_media_check(&media, disk->path);
}
