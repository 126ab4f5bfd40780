/*
 * Opens the firmware of a VM that boots from its disks: an image from Debian's packages, or a file;
 * and a UEFI firmware's variables, a file of each VM made from the package's template.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "cmd/firmware_files.h"
#include "cmd/run.h"
#include "uefi/variable_store.h"

#define VGA_ROM "/usr/share/seabios/vgabios-stdvga.bin"

/*
 * The firmware would write a new store over a broken one, without a word: the boot entries and keys
 * in it would be gone.
 */
static struct err *check_variables(int fd, const char *path, const char *template)
{
    scoped(free_cleanup) uint8_t *bytes = NULL;
    struct stat wanted;
    size_t len;

    if (stat(template, &wanted) != 0)
        return err_errno(errno, "cannot look at '%s'", template);
    TRY(firmware_read_store(fd, path, &bytes, &len));
    if (len != (size_t)wanted.st_size)
        return err_new("'%s' has %zu bytes, and this firmware's variable store has %lld: name "
                       "another with --firmware-vars, or remove it, and a new one is made",
                       path, len, (long long)wanted.st_size);
    return firmware_store_error(path, variable_store_check(bytes, len));
}

/* --- builds that need system management mode --- */

/* Where packages describe their firmware (QEMU's docs/interop/firmware.json); and how Debian calls
 * such a build, since not all of them are described. */
#define DESCRIPTORS "/usr/share/qemu/firmware/*.json"
#define DEBIANS "/usr/share/OVMF/*.secboot.fd"

static bool is_same_file(int fd, const char *path)
{
    scoped(fd_cleanup) int other = open(path, O_RDONLY | O_CLOEXEC);
    struct stat mine, its;

    if (other < 0 || fstat(fd, &mine) != 0 || fstat(other, &its) != 0 ||
        mine.st_size != its.st_size)
        return false;
    if (mine.st_dev == its.st_dev && mine.st_ino == its.st_ino)
        return true;
    uint8_t bytes[2][16384];
    for (off_t at = 0; at < mine.st_size;) {
        ssize_t n = pread(fd, bytes[0], sizeof(bytes[0]), at);
        if (n <= 0 || pread(other, bytes[1], (size_t)n, at) != n ||
            memcmp(bytes[0], bytes[1], (size_t)n) != 0)
            return false;
        at += n;
    }
    return true;
}

static bool is_described_with_smm(int fd, const char *descriptor)
{
    json_t *json = json_load_file(descriptor, 0, NULL), *feature;
    const char *image = NULL;
    bool needs = false;
    size_t i;

    if (json_unpack(json, "{s:{s:{s:s}}}", "mapping", "executable", "filename", &image) == 0) {
        json_array_foreach(json_object_get(json, "features"), i, feature) needs |=
            json_is_string(feature) && !strcmp(json_string_value(feature), "requires-smm");
    }
    needs = needs && is_same_file(fd, image);
    json_decref(json);
    return needs;
}

static bool any(const char *pattern, bool (*test)(int fd, const char *path), int fd)
{
    glob_t found = {0};
    bool is = false;

    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc && !is; i++)
            is = test(fd, found.gl_pathv[i]);
    }
    globfree(&found);
    return is;
}

/* Such a build stops for ever, without a word, where there is no such mode. */
static struct err *check_smm(int fd, const char *path)
{
    bool needs = any(DESCRIPTORS, is_described_with_smm, fd) || any(DEBIANS, is_same_file, fd);

    return needs ? err_new("'%s' needs system management mode, which Tenon's VMs do not have: "
                           "--firmware secure enforces Secure Boot without it",
                           path)
                 : NULL;
}

/* --- opening --- */

static struct err *open_variables(struct vm_config *config, const struct firmware *firmware)
{
    const char *from = firmware ? firmware->variables : NULL;

    if (!config->firmware_vars && !from)
        return NULL;
    if (!config->firmware_vars)
        TRY(firmware_store_path(firmware, config->name, &config->firmware_vars));
    if (from)
        TRY(firmware_make_store(firmware, config->firmware_vars));
    TRY(run_open_file("variables", config->firmware_vars, O_RDWR, &config->firmware_vars_fd));
    TRY(block_lock_file(config->firmware_vars_fd, config->firmware_vars, false));
    return from ? check_variables(config->firmware_vars_fd, config->firmware_vars, from) : NULL;
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
    const struct firmware *firmware = firmware_find(config->firmware);
    if (firmware)
        TRY(firmware_check_package(firmware));
    if (firmware && config->firmware_vars && !firmware->variables)
        return err_of(ERR_USAGE, "firmware %s keeps no variables: remove --firmware-vars",
                      firmware->name);
    TRY(run_open_file("firmware", firmware ? firmware->image : config->firmware, O_RDONLY,
                      &config->firmware_fd));
    if (!firmware)
        TRY(check_smm(config->firmware_fd, config->firmware));
    return err_wrap(open_variables(config, firmware), "firmware %s", config->firmware);
}
