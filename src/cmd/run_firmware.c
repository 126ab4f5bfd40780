/*
 * Opens the firmware of a VM that boots from its disks: an image from Debian's packages, or a file;
 * and a UEFI firmware's variables, a file of each VM made from the package's template.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
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
    return err_wrap(open_variables(config, firmware), "firmware %s", config->firmware);
}
