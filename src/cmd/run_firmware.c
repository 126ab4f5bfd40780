/*
 * The firmware of a VM that boots from its disks: images from Debian's packages, or a file; and a
 * UEFI firmware's variables, a file of each VM made from the package's template.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "block/block.h"
#include "cmd/run.h"

#define VARIABLES_MAX MIB(8)

/* Firmware volume header (UEFI PI 1.7, vol. 3, 3.2.1). */
#define VOLUME_LENGTH_AT 32
#define VOLUME_SIGNATURE_AT 40
#define VOLUME_HEADER_LENGTH_AT 48
#define VOLUME_HEADER_MAX 4096u

#define VGA_ROM "/usr/share/seabios/vgabios-stdvga.bin"

struct firmware {
    const char *name, *package, *image, *variables; /* variables NULL: it keeps none */
};

static const struct firmware firmwares[] = {
    {"bios", "seabios", "/usr/share/seabios/bios-256k.bin", NULL},
    {"uefi", "ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
    /* The same with enrolled keys: it is built to enforce them without system management mode. */
    {"secure", "ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"},
};

/* NULL: `name` is a path. */
static const struct firmware *find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(firmwares); i++) {
        if (!strcmp(firmwares[i].name, name))
            return &firmwares[i];
    }
    return NULL;
}

static struct err *check_package(const struct firmware *firmware)
{
    if (access(firmware->image, F_OK) == 0 &&
        (!firmware->variables || access(firmware->variables, F_OK) == 0))
        return NULL;
    return err_new("firmware %s: '%s' does not exist: install the package %s (apt-get install %s), "
                   "or give --firmware PATH",
                   firmware->name, firmware->image, firmware->package, firmware->package);
}

/* A whole copy or none: it gets its name when all of it is there. */
static struct err *copy_template(const char *from, const char *path)
{
    scoped(fd_cleanup) int in = -1;
    scoped(fd_cleanup) int out = -1;
    scoped(free_cleanup) char *temporary = xasprintf("%s.%ld", path, (long)getpid());
    scoped(free_cleanup) uint8_t *bytes = xcalloc(1, VARIABLES_MAX);

    TRY(run_open_file("variable template", from, O_RDONLY, &in));
    ssize_t size = read(in, bytes, VARIABLES_MAX);
    if (size <= 0)
        return err_errno(size ? errno : EIO, "cannot read '%s'", from);
    out = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out < 0)
        return err_errno(errno, "cannot write '%s'", temporary);
    bool good = write(out, bytes, (size_t)size) == size && fsync(out) == 0;
    /* Another VM of this name may have been faster: its file stays. */
    if (good && (link(temporary, path) == 0 || errno == EEXIST)) {
        unlink(temporary);
        return NULL;
    }
    struct err *err = err_errno(errno, "cannot make '%s'", path);
    unlink(temporary);
    return err;
}

/* A store begins with the header of a firmware volume, whose 16-bit words sum up to 0. */
static bool is_store(const uint8_t *head, size_t len, uint64_t size)
{
    uint16_t sum = 0;

    if (len < VOLUME_HEADER_LENGTH_AT + 2 || memcmp(head + VOLUME_SIGNATURE_AT, "_FVH", 4))
        return false;
    size_t header = get_le16(head + VOLUME_HEADER_LENGTH_AT);
    if (header > len || header % 2 || get_le64(head + VOLUME_LENGTH_AT) > size)
        return false;
    for (size_t i = 0; i < header; i += 2)
        sum = (uint16_t)(sum + get_le16(head + i));
    return sum == 0;
}

/*
 * The firmware would write a new store over a broken one, without a word: the boot entries and keys
 * in it would be gone.
 */
static struct err *check_variables(int fd, const char *path, const char *template)
{
    uint8_t head[VOLUME_HEADER_MAX];
    struct stat status, wanted;

    if (fstat(fd, &status) != 0 || stat(template, &wanted) != 0)
        return err_errno(errno, "cannot look at '%s'", path);
    ssize_t n = pread(fd, head, sizeof(head), 0);
    if (n < 0)
        return err_errno(errno, "cannot read '%s'", path);
    if (status.st_size != wanted.st_size)
        return err_new("'%s' has %lld bytes, and this firmware's variable store has %lld: name "
                       "another with --firmware-vars, or remove it, and a new one is made",
                       path, (long long)status.st_size, (long long)wanted.st_size);
    if (!is_store(head, (size_t)n, (uint64_t)status.st_size))
        return err_new("'%s' is no variable store, or a broken one: restore it from a copy, or "
                       "remove it, and a new one is made",
                       path);
    return NULL;
}

static struct err *open_variables(struct vm_config *config, const struct firmware *firmware)
{
    const char *from = firmware ? firmware->variables : NULL;

    if (!config->firmware_vars && !from)
        return NULL;
    if (!config->firmware_vars) {
        /* A store of its own: one without keys would start anything. */
        bool secure = !strcmp(firmware->name, "secure");
        scoped(free_cleanup) char *file =
            xasprintf("%s%s.vars.fd", config->name, secure ? ".secure" : "");
        TRY(run_user_path("XDG_STATE_HOME", ".local/state", file, &config->firmware_vars));
    }
    if (from && access(config->firmware_vars, F_OK) != 0)
        TRY(copy_template(from, config->firmware_vars));
    TRY(run_open_file("variables", config->firmware_vars, O_RDWR, &config->firmware_vars_fd));
    TRY(block_lock_file(config->firmware_vars_fd, config->firmware_vars, false));
    return from ? check_variables(config->firmware_vars_fd, config->firmware_vars, from) : NULL;
}

void run_firmware_list(struct buf *found, struct buf *missing)
{
    for (size_t i = 0; i < ARRAY_SIZE(firmwares); i++) {
        struct err *err = check_package(&firmwares[i]);
        struct buf *out = err ? missing : found;
        if (err && out->len && strstr((const char *)out->data, firmwares[i].package)) {
            err_free(err);
            continue;
        }
        buf_printf(out, "%s%s", out->len ? err ? " " : ", " : "",
                   err ? firmwares[i].package : firmwares[i].name);
        err_free(err);
    }
}

/* A BIOS sets up the screen by the adapter's own code; kernels and UEFI firmware have drivers. */
static struct err *open_vga_rom(struct vm_config *config)
{
    if (!config->vga)
        return NULL;
    if (access(VGA_ROM, F_OK) != 0)
        return err_new("VGA adapter: '%s' does not exist: install the package seabios "
                       "(apt-get install seabios)",
                       VGA_ROM);
    return run_open_file("option ROM of the VGA adapter", VGA_ROM, O_RDONLY, &config->vga_rom_fd);
}

struct err *run_open_firmware(struct run *run)
{
    struct vm_config *config = &run->launch.config;

    if (!config->firmware)
        return NULL;
    TRY(open_vga_rom(config));
    const struct firmware *firmware = find(config->firmware);
    if (firmware)
        TRY(check_package(firmware));
    if (firmware && config->firmware_vars && !firmware->variables)
        return err_of(ERR_USAGE, "firmware %s keeps no variables: remove --firmware-vars",
                      firmware->name);
    TRY(run_open_file("firmware", firmware ? firmware->image : config->firmware, O_RDONLY,
                      &config->firmware_fd));
    return err_wrap(open_variables(config, firmware), "firmware %s", config->firmware);
}
