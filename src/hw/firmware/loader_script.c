/*
 * Tables for firmware to place. See loader_script.h. A command is 128 bytes: its number, then its
 * operands; file names take 56 bytes.
 *
 * The tables are built as for direct boot, at address 0: the root pointer becomes a file of its
 * own, and every address in them an offset into the other.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/firmware/loader_script.h"

#include <string.h>

#include "base/bytes.h"

#define COMMAND_SIZE 128
#define NAME_SIZE 56
#define RSDP_SIZE 36
#define FILE_RSDP "etc/acpi/rsdp"
#define FILE_TABLES "etc/acpi/tables"
#define FILE_TPM_LOG "etc/tpm/log"
#define TABLES_OFFSET ACPI_FACS /* what follows the root pointer */
#define TABLES_MAX MIB(1)
/*
 * Firmware learns the sizes of files early and reads them late, when it has placed ECAM: what
 * depends on that must fit still.
 */
#define TABLES_SLACK 256
#define TABLES_ALIGN 4096
#define SCRIPT_COMMANDS (4 + ACPI_POINTERS_MAX + ACPI_SUMS_MAX)

enum command { ALLOCATE = 1, ADD_POINTER = 2, ADD_CHECKSUM = 3 };
enum zone { ZONE_HIGH = 1, ZONE_BIOS_AREA = 2 };

static uint8_t *command(struct buf *script, enum command number, const char *file)
{
    uint8_t *at = buf_extend(script, COMMAND_SIZE);

    put_le32(at, number);
    memcpy(at + 4, file, strlen(file));
    return at + 4 + NAME_SIZE;
}

static void allocate(struct buf *script, const char *file, unsigned align, enum zone zone)
{
    uint8_t *operands = command(script, ALLOCATE, file);

    put_le32(operands, align);
    operands[4] = (uint8_t)zone;
}

/* The file that holds the byte at `offset` of the block, which becomes an offset in that file. */
static const char *file_of(uint32_t *offset)
{
    if (*offset < TABLES_OFFSET)
        return FILE_RSDP;
    *offset -= TABLES_OFFSET;
    return FILE_TABLES;
}

static void add_pointer(struct buf *script, uint32_t at, uint8_t size, const char *target)
{
    const char *file = file_of(&at);
    uint8_t *operands = command(script, ADD_POINTER, file);

    memcpy(operands, target, strlen(target));
    put_le32(operands + NAME_SIZE, at);
    operands[NAME_SIZE + 4] = size;
}

static void add_checksum(struct buf *script, uint32_t at, uint32_t start, uint32_t len)
{
    const char *file = file_of(&at);
    uint8_t *operands = command(script, ADD_CHECKSUM, file);

    file_of(&start);
    put_le32(operands, at);
    put_le32(operands + 4, start);
    put_le32(operands + 8, len);
}

struct err *loader_files_build(const struct acpi_config *config, struct loader_files *files)
{
    struct acpi_layout layout;
    struct buf block = BUF_INIT;

    memset(files, 0, sizeof(*files));
    struct err *err = acpi_build(config, 0, TABLES_MAX, &block, &layout);
    if (err) {
        buf_fini(&block);
        return err;
    }
    allocate(&files->script, FILE_RSDP, 16, ZONE_BIOS_AREA);
    allocate(&files->script, FILE_TABLES, 64, ZONE_HIGH);
    for (unsigned i = 0; i < layout.pointers; i++) {
        uint8_t *field = block.data + layout.pointer[i].at;
        uint8_t size = layout.pointer[i].size;
        put_le(field, size, get_le(field, size) - TABLES_OFFSET);
        add_pointer(&files->script, layout.pointer[i].at, size, FILE_TABLES);
    }
    if (layout.tpm_log) {
        allocate(&files->script, FILE_TPM_LOG, 64, ZONE_HIGH);
        add_pointer(&files->script, layout.tpm_log, 8, FILE_TPM_LOG);
    }
    for (unsigned i = 0; i < layout.sums; i++) {
        block.data[layout.sum[i].at] = 0;
        add_checksum(&files->script, layout.sum[i].at, layout.sum[i].start, layout.sum[i].len);
    }
    buf_extend(&files->script, (size_t)SCRIPT_COMMANDS * COMMAND_SIZE - files->script.len);
    buf_append(&files->rsdp, block.data, RSDP_SIZE);
    buf_append(&files->tables, block.data + TABLES_OFFSET, block.len - TABLES_OFFSET);
    size_t size = ALIGN_UP(files->tables.len + TABLES_SLACK, (size_t)TABLES_ALIGN);
    buf_extend(&files->tables, size - files->tables.len);
    buf_fini(&block);
    return NULL;
}

void loader_files_fini(struct loader_files *files)
{
    buf_fini(&files->rsdp);
    buf_fini(&files->tables);
    buf_fini(&files->script);
}
