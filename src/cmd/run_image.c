/*
 * `tenon run IMAGE`: a disk image instead of a VM file. What the flags leave open is chosen from
 * what the image is: a name, the firmware that its partition table is made for, a network. The
 * image itself is only read; what the guest writes goes to an overlay that nobody finds again,
 * unless --write is given.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "cmd/image/image.h"
#include "cmd/run.h"
#include "vm/schema.h"

#define NAME_MAX_LENGTH 32
#define IMAGE_MEMORY GIB(1)

/* GUID partition table (UEFI 2.10, 5.3). */
#define GPT_ENTRIES_AT 72
#define GPT_ENTRY_COUNT 80
#define GPT_ENTRY_SIZE 84
#define GPT_ENTRIES_MAX 128

static const uint8_t esp_type[16] = {0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11,
                                     0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b};

static bool named_as_vm_file(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml"));
}

/*
 * A VM file says so by its name, or is text. An image is not, but for the descriptors of VMDK. What
 * cannot be opened is left to who will.
 */
bool run_is_image(const char *path)
{
    static const char vmdk[] = "# Disk DescriptorFile";
    scoped(fd_cleanup) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat status;
    uint8_t head[IMAGE_SECTOR];

    if (fd < 0 || named_as_vm_file(path) || fstat(fd, &status) != 0)
        return false;
    if (S_ISBLK(status.st_mode))
        return true;
    ssize_t n = S_ISREG(status.st_mode) ? pread(fd, head, sizeof(head), 0) : 0;
    return n > 0 && (memchr(head, 0, (size_t)n) ||
                     (n >= (ssize_t)sizeof(vmdk) && !memcmp(head, vmdk, sizeof(vmdk) - 1)));
}

/* "debian-12" of "/images/debian-12.qcow2": what a name may contain, without the ending. */
static char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    size_t len = dot && dot != base ? (size_t)(dot - base) : strlen(base);
    char *name = xasprintf("%.*s", (int)MIN(len, (size_t)NAME_MAX_LENGTH), base);

    for (char *at = name; *at; at++) {
        if (!isalnum((unsigned char)*at) && !strchr("._-", *at))
            *at = '-';
    }
    return name;
}

struct err *run_image_begin(struct run *run, const char *path)
{
    struct vm_config *config = &run->launch.config;

    run->image_path = path;
    config->name = name_of(path);
    config->memory = IMAGE_MEMORY;
    TRY(schema_apply_flag(config, "disk", "x"));
    free(config->disk[0].path);
    config->disk[0].path = xstrdup(path);
    return NULL;
}

/* Is there an EFI system partition? What cannot be read has none. */
static bool has_esp(struct image *image)
{
    uint8_t header[IMAGE_SECTOR], entry[128];

    if (image_read(image, header, IMAGE_SECTOR, sizeof(header)) || memcmp(header, "EFI PART", 8))
        return false;
    uint64_t at = get_le64(header + GPT_ENTRIES_AT);
    uint32_t count = MIN(get_le32(header + GPT_ENTRY_COUNT), (uint32_t)GPT_ENTRIES_MAX);
    uint32_t size = get_le32(header + GPT_ENTRY_SIZE);
    if (size < sizeof(entry) || size > 4096 || at > image_size(image) / IMAGE_SECTOR)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (image_read(image, entry, at * IMAGE_SECTOR + (uint64_t)i * size, sizeof(entry)))
            return false;
        if (!memcmp(entry, esp_type, sizeof(esp_type)))
            return true;
    }
    return false;
}

static struct err *open_image(const char *path, int *fd)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    return *fd < 0 ? image_open_error(path, errno) : NULL;
}

static struct err *look(struct run *run, bool *esp)
{
    const struct image_args args = {.verb = "run", .unlocked = true};
    struct vm_disk *disk = &run->launch.config.disk[0];
    struct image *image;

    if (!disk->format) {
        int fd;
        TRY(open_image(disk->path, &fd));
        TRY(image_guess_format(fd, disk->path, &disk->format));
    }
    TRY(image_open_chain(&args, disk->path, disk->format, IMAGE_OPEN_CHECK, &image));
    *esp = has_esp(image);
    run->image_size = image_size(image);
    image_close(image);
    return NULL;
}

struct err *run_image_finish(struct run *run)
{
    struct vm_config *config = &run->launch.config;
    bool esp = false;

    if (!run->image_path) {
        if (run->write_image)
            return err_of(ERR_USAGE, "--write is for `tenon run IMAGE`: remove it, disks of a VM "
                                     "file are written to");
        return NULL;
    }
    TRY(err_wrap(look(run, &esp), "disk '%s'", run->image_path));
    if (!config->kernel && !config->firmware)
        config->firmware = xstrdup(esp ? "uefi" : "bios");
    if (!config->net_count)
        TRY(schema_apply_flag(config, "net", "user"));
    return NULL;
}

struct err *run_image_overlay(struct run *run)
{
    struct vm_disk *disk = &run->launch.config.disk[0];
    scoped(free_cleanup) char *backing = NULL;
    struct image *file;

    if (!run->image_path || run->write_image || disk->readonly)
        return NULL;
    backing = realpath(disk->path, NULL);
    if (!backing)
        return err_errno(errno, "cannot find '%s'", disk->path);
    scoped(free_cleanup) char *unique =
        xasprintf("%s-%ld.qcow2", run->launch.config.name, (long)getpid());
    TRY(run_user_path("XDG_CACHE_HOME", ".cache", unique, &run->overlay_path));
    int fd = open(run->overlay_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(errno, "cannot make the overlay '%s'", run->overlay_path);
    TRY(image_open_fd(fd, IMAGE_OPEN_WRITABLE | IMAGE_OPEN_SCRATCH, &file));
    const struct image_create create = {
        .size = run->image_size, .backing_name = backing, .backing_format = disk->format};
    struct err *err = image_create(file, image_driver_find("qcow2"), &create);
    int closed = image_close(file);
    TRY(err_wrap(err, "overlay '%s'", run->overlay_path));
    if (closed)
        return err_errno(-closed, "cannot write the overlay '%s'", run->overlay_path);
    free(disk->path);
    disk->path = xstrdup(run->overlay_path);
    free(disk->format);
    disk->format = xstrdup("qcow2");
    return NULL;
}

void run_image_forget(struct run *run)
{
    if (run->overlay_path)
        unlink(run->overlay_path);
    free(run->overlay_path);
    run->overlay_path = NULL;
}
