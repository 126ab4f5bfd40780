/*
 * Firmware on a board: its image at the end of the first 4 GiB and in the BIOS area, its variables
 * in flash memory below, and what it reads through fw_cfg.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "hw/chipset/layout.h"
#include "hw/firmware/fw_cfg.h"
#include "hw/firmware/loader_script.h"
#include "hw/firmware/pflash.h"
#include "hw/firmware/smbios.h"
#include "hw/pci/host_bridge.h"
#include "vm/board.h"

#define SHADOW_LAST 0xf0000u /* one segment up to 1 MiB */
#define SMBIOS_ENTRY_SIZE 24
#define SMBIOS_TABLE_OFFSET 32
#define SMBIOS_MAX KIB(64)

/* --- memory --- */

static struct err *file_size(int fd, const char *what, uint64_t unit, uint64_t *size)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return err_errno(errno, "cannot look at the %s", what);
    *size = (uint64_t)status.st_size;
    if (!*size || *size % unit || *size > LAYOUT_FIRMWARE_MAX)
        return err_new("the %s has %" PRIu64 " bytes, and should have whole KiB, at most %lu MiB: "
                       "it is no %s",
                       what, *size, LAYOUT_FIRMWARE_MAX / MIB(1), what);
    return NULL;
}

/* The file's contents into the region's ROM at `gpa`. */
static struct err *load_file(struct board *board, int fd, const char *what, uint64_t gpa,
                             uint64_t size)
{
    const struct gmem_region *region = gmem_find(board->env->gmem, gpa);
    uint64_t at = 0;

    while (at < size) {
        ssize_t n = pread(fd, region->rom + at, size - at, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_errno(n ? errno : EIO, "cannot read the %s", what);
        at += (uint64_t)n;
    }
    return NULL;
}

/* RAM and ROM from 0xc0000 to 1 MiB, a region a PAM segment; the image's end is the ROM's. */
static struct err *add_shadow(struct board *board, const uint8_t *image, uint64_t size)
{
    struct gmem *gmem = board->env->gmem;
    uint64_t shown = MIN(size, (uint64_t)(MIB(1) - LAYOUT_BIOS_AREA));

    for (uint64_t gpa = LAYOUT_SHADOW_BASE; gpa < MIB(1);) {
        uint64_t len = gpa == SHADOW_LAST ? MIB(1) - SHADOW_LAST : LAYOUT_SHADOW_SEGMENT;
        TRY(gmem_add_switched(gmem, "shadow", gpa, len));
        gpa += len;
    }
    if (gmem_load(gmem, MIB(1) - shown, image + size - shown, shown))
        return err_new("there is no room for it in the BIOS area");
    return NULL;
}

static struct err *add_image(struct board *board, uint64_t *base)
{
    struct gmem *gmem = board->env->gmem;
    int fd = board->config->firmware_fd;
    uint64_t size;

    if (fd < 0)
        return err_new("it was not opened");
    TRY(file_size(fd, "firmware image", KIB(4), &size));
    *base = GIB(4) - size;
    TRY(gmem_add_rom(gmem, "firmware", *base, size));
    TRY(load_file(board, fd, "firmware image", *base, size));
    return add_shadow(board, gmem_find(gmem, *base)->rom, size);
}

static struct err *add_variables(struct board *board, uint64_t end)
{
    int fd = board->config->firmware_vars_fd;
    uint64_t size;

    if (fd < 0)
        return NULL;
    TRY(file_size(fd, "variable store", PFLASH_BLOCK, &size));
    if (GIB(4) - end + size > LAYOUT_FIRMWARE_MAX)
        return err_new("with its variable store it has more than %lu MiB",
                       LAYOUT_FIRMWARE_MAX / MIB(1));
    TRY(gmem_add_switched(board->env->gmem, "variables", end - size, size));
    board->vars_base = end - size;
    board->vars_size = (uint32_t)size;
    return load_file(board, fd, "variable store", board->vars_base, size);
}

struct err *board_add_firmware_memory(struct board *board)
{
    uint64_t base = 0;

    if (!board_has_firmware(board))
        return NULL;
    TRY(err_wrap(add_image(board, &base), "firmware '%s'", board->config->firmware));
    return err_wrap(add_variables(board, base), "firmware '%s'", board->config->firmware);
}

/* --- fw_cfg --- */

static void add_memory_map(const struct board *board, struct fw_cfg *cfg)
{
    struct buf map = BUF_INIT;

    buf_le64(&map, 0);
    buf_le64(&map, board->low_end);
    buf_le32(&map, BOOT_RAM);
    if (board->high_end) {
        buf_le64(&map, LAYOUT_HIGH_RAM_BASE);
        buf_le64(&map, board->high_end - LAYOUT_HIGH_RAM_BASE);
        buf_le32(&map, BOOT_RAM);
    }
    fw_cfg_add_file(cfg, "etc/e820", map.data, map.len);
    buf_fini(&map);
}

static struct err *add_acpi(struct board *board, struct fw_cfg *cfg)
{
    struct acpi_config config;
    struct loader_files files;

    board_describe_acpi(board, &config);
    struct err *err = loader_files_build(&config, &files);
    if (!err) {
        fw_cfg_add_file(cfg, "etc/acpi/rsdp", files.rsdp.data, files.rsdp.len);
        fw_cfg_add_file(cfg, "etc/acpi/tables", files.tables.data, files.tables.len);
        fw_cfg_add_file(cfg, "etc/table-loader", files.script.data, files.script.len);
    }
    if (!err && config.tpm) {
        scoped(free_cleanup) uint8_t *empty = xcalloc(1, ACPI_TPM_LOG_SIZE);
        fw_cfg_add_file(cfg, "etc/tpm/log", empty, ACPI_TPM_LOG_SIZE);
    }
    loader_files_fini(&files);
    return err;
}

/* The tables show where firmware has put ECAM. A vCPU thread, under fw_cfg's lock. */
static void refresh_acpi(void *opaque)
{
    struct board *board = opaque;
    struct acpi_config config;
    struct loader_files files;
    uint64_t ecam = host_bridge_ecam(board->bridge);

    if (ecam == board->tables_ecam)
        return;
    board_describe_acpi(board, &config);
    struct err *err = loader_files_build(&config, &files);
    if (!err) {
        board->tables_ecam = ecam;
        fw_cfg_replace(board->fw_cfg, "etc/acpi/rsdp", files.rsdp.data, files.rsdp.len);
        fw_cfg_replace(board->fw_cfg, "etc/acpi/tables", files.tables.data, files.tables.len);
        fw_cfg_replace(board->fw_cfg, "etc/table-loader", files.script.data, files.script.len);
    }
    err_free(err); /* the machine was described before, and has not changed since */
    loader_files_fini(&files);
}

static struct err *add_smbios(const struct board *board, struct fw_cfg *cfg)
{
    struct smbios_config config;
    struct buf tables = BUF_INIT;

    board_describe_smbios(board, &config);
    struct err *err = smbios_build(&config, 0, SMBIOS_MAX, &tables);
    if (!err) {
        fw_cfg_add_file(cfg, "etc/smbios/smbios-anchor", tables.data, SMBIOS_ENTRY_SIZE);
        fw_cfg_add_file(cfg, "etc/smbios/smbios-tables", tables.data + SMBIOS_TABLE_OFFSET,
                        tables.len - SMBIOS_TABLE_OFFSET);
    }
    buf_fini(&tables);
    return err;
}

/* Disks as Open Firmware paths, a line each. */
static void write_boot_order(const struct board *board, bool once, struct buf *text)
{
    unsigned order[VM_DISKS_MAX];

    vm_boot_order(board->config, once, order);
    for (unsigned i = 0; i < board->config->disk_count; i++) {
        if (board->boot_path[order[i]])
            buf_printf(text, "%s\n", board->boot_path[order[i]]);
    }
    buf_u8(text, 0);
}

static void add_boot_order(const struct board *board, struct fw_cfg *cfg)
{
    struct buf text = BUF_INIT;

    write_boot_order(board, true, &text);
    fw_cfg_add_file(cfg, "bootorder", text.data, text.len);
    buf_fini(&text);
}

void board_firmware_reset(struct board *board)
{
    struct buf text = BUF_INIT;

    if (board->started) { /* `boot-once` was for the first start */
        write_boot_order(board, false, &text);
        fw_cfg_replace(board->fw_cfg, "bootorder", text.data, text.len);
        buf_fini(&text);
    }
    board->started = true;
}

/* What the BIOS shows on the screen, if there is one, goes to the first serial port as well. */
static void add_serial_screen(const struct board *board, struct fw_cfg *cfg)
{
    uint8_t port[2];

    put_le16(port, LAYOUT_PORT_COM1);
    for (unsigned i = 0; i < board->config->console_count; i++) {
        if (board->config->console[i].device != VM_CONSOLE_SERIAL)
            continue;
        fw_cfg_add_file(cfg, "etc/sercon-port", port, sizeof(port));
        return;
    }
}

static struct err *add_fw_cfg(struct board *board)
{
    const struct vm_config *config = board->config;
    struct fw_cfg *cfg = (struct fw_cfg *)device_new(&fw_cfg_class, board->env, "fw-cfg");

    list_append(&board->devices, &cfg->device.link);
    board->fw_cfg = cfg;
    cfg->refresh = refresh_acpi;
    cfg->opaque = board;
    fw_cfg_add_number(cfg, FW_CFG_RAM_SIZE, 8, config->memory);
    fw_cfg_add_number(cfg, FW_CFG_NOGRAPHIC, 2, !config->vga);
    fw_cfg_add_number(cfg, FW_CFG_CPUS, 2, config->cpus);
    fw_cfg_add_number(cfg, FW_CFG_MAX_CPUS, 2, config->cpus);
    fw_cfg_add_number(cfg, FW_CFG_BOOT_MENU, 2, 0);
    fw_cfg_add_number(cfg, FW_CFG_IRQ0_OVERRIDE, 1, 1);
    add_memory_map(board, cfg);
    TRY(add_acpi(board, cfg));
    TRY(add_smbios(board, cfg));
    add_boot_order(board, cfg);
    add_serial_screen(board, cfg);
    return device_realize(&cfg->device);
}

static struct err *add_pflash(struct board *board)
{
    struct pflash *flash = (struct pflash *)device_new(&pflash_class, board->env, "variables");

    flash->base = board->vars_base;
    flash->size = board->vars_size;
    flash->fd = board->config->firmware_vars_fd;
    board->config->firmware_vars_fd = -1;
    return board_add(board, &flash->device);
}

struct err *board_add_firmware(struct board *board)
{
    if (!board_has_firmware(board))
        return NULL;
    TRY(err_wrap(add_fw_cfg(board), "firmware configuration"));
    return board->vars_size ? add_pflash(board) : NULL;
}
