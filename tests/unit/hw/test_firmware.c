/*
 * What firmware finds on a q35: fw_cfg, flash memory, PAM, the table loader's script.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "board_env.h"
#include "hw/chipset/layout.h"
#include "hw/firmware/fw_cfg.h"
#include "hw/firmware/loader_script.h"
#include "hw/firmware/pflash.h"
#include "hw/pci/host_bridge.h"

#define FLASH_BASE 0xffc00000u
#define FLASH_SIZE 0x4000u

/* --- fw_cfg --- */

static struct fw_cfg *cfg_new(struct board_env *board)
{
    struct fw_cfg *cfg = (struct fw_cfg *)device_new(&fw_cfg_class, &board->env, "fw-cfg");
    fw_cfg_add_number(cfg, FW_CFG_CPUS, 2, 3);
    fw_cfg_add_file(cfg, "etc/one", "first", 5);
    fw_cfg_add_file(cfg, "etc/two", "\1\2\3\4", 4);
    board_ok(device_realize(&cfg->device));
    return cfg;
}

static void select_key(struct board_env *board, unsigned key)
{
    board_out(board, 0x510, 2, key);
}

static void cfg_reads_items_and_files(void **state)
{
    struct board_env board;
    board_init(&board);
    struct fw_cfg *cfg = cfg_new(&board);
    uint8_t bytes[4 + 2 * 64 + 4];

    select_key(&board, FW_CFG_SIGNATURE);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(board_in(&board, 0x511, 1), "QEMU"[i]);
    assert_int_equal(board_in(&board, 0x511, 1), 0);
    select_key(&board, FW_CFG_CPUS);
    assert_int_equal(board_in(&board, 0x511, 1), 3);
    select_key(&board, FW_CFG_DIRECTORY);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)board_in(&board, 0x511, 1);
    assert_int_equal(get_be32(bytes), 2);
    assert_int_equal(get_be32(bytes + 4), 5);
    assert_int_equal(get_be16(bytes + 8), FW_CFG_FILE_FIRST);
    assert_string_equal((char *)bytes + 12, "etc/one");
    assert_int_equal(get_be16(bytes + 64 + 8), FW_CFG_FILE_FIRST + 1);
    assert_string_equal((char *)bytes + 64 + 12, "etc/two");
    assert_int_equal(get_be32(bytes + sizeof(bytes) - 4), 0);
    /* A key of nothing reads zeroes; a data port of another width nothing. */
    select_key(&board, 0x7777);
    assert_int_equal(board_in(&board, 0x511, 1), 0);
    assert_int_equal(board_in(&board, 0x510, 2), 0xffff);
    device_free(&cfg->device);
    board_fini(&board);
}

static uint32_t dma(struct board_env *board, uint64_t at, uint32_t control, uint32_t len,
                    uint64_t to)
{
    uint8_t bytes[16];
    put_be32(bytes, control);
    put_be32(bytes + 4, len);
    put_be64(bytes + 8, to);
    gmem_write(board->env.gmem, at, bytes, sizeof(bytes));
    board_out(board, 0x514, 4, __builtin_bswap32((uint32_t)(at >> 32)));
    board_out(board, 0x518, 4, __builtin_bswap32((uint32_t)at));
    return gmem_read(board->env.gmem, at, bytes, 4) ? 0 : get_be32(bytes);
}

static void cfg_transfers_by_dma(void **state)
{
    struct board_env board;
    board_init(&board);
    struct fw_cfg *cfg = cfg_new(&board);
    char text[16];

    assert_int_equal(board_in(&board, 0x514, 4), 0x554d4551); /* QEMU, as bytes lie */
    memset(text, 'x', sizeof(text));
    gmem_write(board.env.gmem, 0x2000, text, sizeof(text));
    assert_int_equal(dma(&board, 0x1000, FW_CFG_FILE_FIRST << 16 | 0x0a, 8, 0x2000), 0);
    gmem_read(board.env.gmem, 0x2000, text, 9);
    assert_memory_equal(text, "first\0\0\0x", 9);
    /* Skipping, then reading on. */
    assert_int_equal(dma(&board, 0x1000, FW_CFG_FILE_FIRST << 16 | 0x0c, 2, 0), 0);
    assert_int_equal(dma(&board, 0x1000, 0x02, 2, 0x2000), 0);
    gmem_read(board.env.gmem, 0x2000, text, 2);
    assert_memory_equal(text, "rs", 2);
    /* Nothing may be written, nothing lands outside of memory, and a wild address is no harm. */
    assert_int_equal(dma(&board, 0x1000, 0x10, 2, 0x2000), 1);
    assert_int_equal(dma(&board, 0x1000, FW_CFG_FILE_FIRST << 16 | 0x0a, 4, UINT64_MAX - 1), 1);
    assert_int_equal(dma(&board, 0x1000, FW_CFG_FILE_FIRST << 16 | 0x0a, UINT32_MAX, 0x2000), 1);
    board_out(&board, 0x518, 4, 0xffffffff);
    board_out(&board, 0x514, 8, UINT64_MAX);
    device_free(&cfg->device);
    board_fini(&board);
}

static void refresh(void *opaque)
{
    fw_cfg_replace(opaque, "etc/two", "new", 3);
    fw_cfg_replace(opaque, "etc/two", "too long", 8);
    fw_cfg_replace(opaque, "etc/none", "", 0);
}

static void cfg_refreshes_and_comes_back(void **state)
{
    struct board_env board, second;
    board_init(&board);
    board_init(&second);
    struct fw_cfg *cfg = cfg_new(&board), *other = cfg_new(&second);

    cfg->refresh = refresh;
    cfg->opaque = cfg;
    select_key(&board, FW_CFG_FILE_FIRST + 1);
    assert_int_equal(board_in(&board, 0x511, 1), 'n');
    assert_int_equal(board_in(&board, 0x511, 1), 'e');
    assert_int_equal(board_in(&board, 0x511, 1), 'w');
    assert_int_equal(board_in(&board, 0x511, 1), 0);
    select_key(&board, FW_CFG_FILE_FIRST);
    board_in(&board, 0x511, 1);
    board_round_trip(&cfg->device, &other->device);
    assert_int_equal(board_in(&second, 0x511, 1), 'i');
    device_free(&cfg->device);
    device_free(&other->device);
    board_fini(&board);
    board_fini(&second);
}

/* --- flash --- */

static struct pflash *flash_new(struct board_env *board, int fd)
{
    board_ok(gmem_add_switched(board->env.gmem, "variables", FLASH_BASE, FLASH_SIZE));
    memset(gmem_find(board->env.gmem, FLASH_BASE)->rom, 0xff, FLASH_SIZE);
    struct pflash *flash = (struct pflash *)device_new(&pflash_class, &board->env, "variables");
    flash->base = FLASH_BASE;
    flash->size = FLASH_SIZE;
    flash->fd = fd;
    board_ok(device_realize(&flash->device));
    return flash;
}

static void flash_out(struct board_env *board, uint32_t at, uint8_t value)
{
    io_bus_write(board->env.mmio, FLASH_BASE + at, 1, value);
}

static unsigned flash_in(struct board_env *board, uint32_t at)
{
    uint8_t byte;
    if (!gmem_read(board->env.gmem, FLASH_BASE + at, &byte, 1))
        return byte; /* as the guest would: memory first */
    return (unsigned)io_bus_read(board->env.mmio, FLASH_BASE + at, 1);
}

static void flash_programs_and_erases(void **state)
{
    struct board_env board;
    char path[] = "/tmp/tenon-flash-XXXXXX";
    uint8_t bytes[4];
    int fd = mkstemp(path), copy = dup(fd);
    board_init(&board);
    struct pflash *flash = flash_new(&board, fd);

    assert_int_equal(flash_in(&board, 0x1234), 0xff);
    flash_out(&board, 0x1234, 0x50);
    assert_int_equal(flash_in(&board, 0x1234), 0); /* how OVMF tells flash from RAM */
    flash_out(&board, 0x1234, 0x10);
    flash_out(&board, 0x1234, 0x5a);
    assert_int_equal(flash_in(&board, 0x1234), 0x80);
    flash_out(&board, 0x1234, 0x40);
    flash_out(&board, 0x1234, 0xf0); /* only clears */
    flash_out(&board, 0x1234, 0xff);
    assert_int_equal(flash_in(&board, 0x1234), 0x50);
    assert_int_equal(pread(copy, bytes, 1, 0x1234), 1);
    assert_int_equal(bytes[0], 0x50);
    flash_out(&board, 0x1000, 0x20);
    flash_out(&board, 0x1000, 0xd0);
    flash_out(&board, 0x1000, 0xff);
    assert_int_equal(flash_in(&board, 0x1234), 0xff);
    /* An erase without its confirmation is an error, and erases nothing. */
    flash_out(&board, 0x2000, 0x10);
    flash_out(&board, 0x2000, 0x00);
    flash_out(&board, 0x2000, 0x20);
    flash_out(&board, 0x2000, 0x00);
    assert_int_equal(flash_in(&board, 0x2000), 0xb0);
    flash_out(&board, 0x2000, 0x50);
    flash_out(&board, 0x2000, 0xff);
    assert_int_equal(flash_in(&board, 0x2000), 0);
    /* Through the buffer; the end of the machine stores what the guest left. */
    flash_out(&board, 0x3000, 0xe8);
    assert_int_equal(flash_in(&board, 0x3000), 0x80);
    flash_out(&board, 0x3000, 1);
    flash_out(&board, 0x3000, 0x11);
    flash_out(&board, 0x3001, 0x22);
    flash_out(&board, 0x3000, 0xd0);
    device_free(&flash->device);
    assert_int_equal(pread(copy, bytes, 2, 0x3000), 2);
    assert_memory_equal(bytes, "\x11\x22", 2);
    close(copy);
    unlink(path);
    board_fini(&board);
}

static void flash_tells_what_it_is(void **state)
{
    struct board_env board, second;
    board_init(&board);
    board_init(&second);
    struct pflash *flash = flash_new(&board, -1), *other = flash_new(&second, -1);

    flash_out(&board, 0, 0x98);
    assert_int_equal(flash_in(&board, 0x10), 'Q');
    assert_int_equal(flash_in(&board, 0x11), 'R');
    assert_int_equal(flash_in(&board, 0x12), 'Y');
    assert_int_equal(flash_in(&board, 0x27), 14);
    assert_int_equal(flash_in(&board, 0x2d), FLASH_SIZE / PFLASH_BLOCK - 1);
    flash_out(&board, 0, 0x90);
    assert_int_equal(flash_in(&board, 0), 0x89);
    flash_out(&board, 0, 0xe8);
    flash_out(&board, 0, 3);
    board_round_trip(&flash->device, &other->device);
    flash_out(&second, 7, 0x12);
    assert_int_equal(other->count, 3);
    device_reset(&other->device);
    assert_int_equal(flash_in(&second, 7), 0x12);
    device_free(&flash->device);
    device_free(&other->device);
    board_fini(&board);
    board_fini(&second);
}

/* --- PAM --- */

struct q35 {
    struct board_env board;
    struct pci_bus *bus;
    struct host_bridge *bridge;
    unsigned changes;
};

static struct hw_env_ops q35_ops;

static void memory_changed(void *opaque)
{
    container_of((struct board_env *)opaque, struct q35, board)->changes++;
}

static void q35_init(struct q35 *q35)
{
    memset(q35, 0, sizeof(*q35));
    board_init(&q35->board);
    struct hw_env *env = &q35->board.env;
    q35_ops = board_ops;
    q35_ops.memory_changed = memory_changed;
    env->ops = &q35_ops;
    gmem_free(env->gmem);
    env->gmem = gmem_new();
    for (uint64_t gpa = LAYOUT_SHADOW_BASE; gpa < MIB(1); gpa += gpa < 0xf0000 ? 0x4000 : 0x10000)
        board_ok(gmem_add_switched(env->gmem, "shadow", gpa, gpa < 0xf0000 ? 0x4000 : 0x10000));
    assert_int_equal(gmem_load(env->gmem, 0xf0000, "rom", 4), 0);
    struct pci_bus_config config = {.env = env, .ecam_base = 0, .ecam_buses = 256, .cf8 = true};
    board_ok(pci_bus_new(&config, &q35->bus));
    q35->bridge = (struct host_bridge *)device_new(&host_bridge_class, env, "host-bridge");
    q35->bridge->q35 = q35->bridge->firmware = true;
    board_ok(pci_bus_attach(q35->bus, &q35->bridge->pci, 0));
    board_ok(device_realize(&q35->bridge->pci.device));
}

static void q35_fini(struct q35 *q35)
{
    device_free(&q35->bridge->pci.device);
    pci_bus_free(q35->bus);
    board_fini(&q35->board);
}

static void shadow_switches(void **state)
{
    struct q35 q35, second;
    char text[4];
    q35_init(&q35);
    q35_init(&second);
    struct gmem *gmem = q35.board.env.gmem;
    struct pci_device *pci = &q35.bridge->pci;

    assert_int_equal(gmem_write(gmem, 0xf0000, "ram", 4), -EFAULT);
    pci_config_write(pci, 0x90, 1, 0x30);
    assert_int_equal(q35.changes, 1);
    gmem_read(gmem, 0xf0000, text, 4);
    assert_int_equal(text[0], 0);
    assert_int_equal(gmem_write(gmem, 0xf0000, "ram", 4), 0);
    assert_int_equal(gmem_write(gmem, 0xec000, "x", 1), -EFAULT);
    pci_config_write(pci, 0x90, 1, 0x10);
    assert_int_equal(gmem_write(gmem, 0xf0000, "xxx", 4), -EFAULT);
    gmem_read(gmem, 0xf0000, text, 4);
    assert_string_equal(text, "ram");
    pci_config_write(pci, 0x90, 1, 0x10); /* no change */
    assert_int_equal(q35.changes, 2);
    pci_config_write(pci, 0x96, 1, 0x30); /* 0xec000 */
    assert_int_equal(gmem_write(gmem, 0xec000, "x", 1), 0);
    assert_int_equal(gmem_write(gmem, 0xe8000, "x", 1), -EFAULT);

    board_round_trip(&pci->device, &second.bridge->pci.device);
    assert_int_equal(gmem_find(second.board.env.gmem, 0xf0000)->view, GMEM_VIEW_RAM_READONLY);
    assert_int_equal(gmem_find(second.board.env.gmem, 0xec000)->view, GMEM_VIEW_RAM);
    device_reset(&pci->device);
    gmem_read(gmem, 0xf0000, text, 4);
    assert_string_equal(text, "rom");
    q35_fini(&q35);
    q35_fini(&second);
}

static void ecam_moves(void **state)
{
    struct q35 q35;
    q35_init(&q35);
    struct pci_device *pci = &q35.bridge->pci;

    assert_int_equal(host_bridge_ecam(q35.bridge), 0);
    pci_config_write(pci, 0x60, 4, 0xb0000001);
    /* Devices ask under their own lock. */
    struct lock device;
    lock_init(&device, LOCK_DEVICE);
    lock_take(&device);
    assert_int_equal(host_bridge_ecam(q35.bridge), 0xb0000000);
    lock_drop(&device);
    lock_fini(&device);
    assert_int_equal(io_bus_read(q35.board.env.mmio, 0xb0000000, 4), 0x29c08086);
    /* Moved through itself. */
    io_bus_write(q35.board.env.mmio, 0xb0000060, 4, 0xe0000001);
    assert_int_equal(io_bus_read(q35.board.env.mmio, 0xb0000000, 4), 0xffffffff);
    assert_int_equal(io_bus_read(q35.board.env.mmio, 0xe0000000, 4), 0x29c08086);
    pci_config_write(pci, 0x60, 4, 0xe0000000);
    assert_int_equal(io_bus_read(q35.board.env.mmio, 0xe0000000, 4), 0xffffffff);
    q35_fini(&q35);
}

/* --- the loader's script --- */

struct loaded {
    struct buf *file;
    uint64_t gpa;
};

/* What firmware does with the script; the files end at the addresses of a direct boot. */
static void run_script(const struct buf *script, struct loaded *rsdp, struct loaded *tables)
{
    unsigned allocations = 0;
    for (size_t at = 0; at + 128 <= script->len; at += 128) {
        const uint8_t *command = script->data + at, *operands = command + 60;
        const char *name = (const char *)command + 4;
        struct loaded *file = strcmp(name, "etc/acpi/rsdp") ? tables : rsdp;
        switch (get_le32(command)) {
        case 0:
            break;
        case 1:
            allocations++;
            break;
        case 2: {
            uint32_t field = get_le32(operands + 56);
            unsigned size = operands[60];
            assert_true(field + size <= file->file->len);
            assert_string_equal((const char *)operands, "etc/acpi/tables");
            uint64_t value = get_le(file->file->data + field, size);
            assert_true(value < tables->file->len);
            put_le(file->file->data + field, size, value + tables->gpa);
            break;
        }
        case 3: {
            uint8_t sum = 0;
            uint32_t start = get_le32(operands + 4), len = get_le32(operands + 8);
            assert_true(start + len <= file->file->len);
            file->file->data[get_le32(operands)] = 0;
            for (uint32_t i = 0; i < len; i++)
                sum = (uint8_t)(sum + file->file->data[start + i]);
            file->file->data[get_le32(operands)] = (uint8_t)-sum;
            break;
        }
        default:
            fail();
        }
    }
    assert_int_equal(allocations, 2);
}

static void the_script_makes_the_same_tables(void **state)
{
    struct acpi_config config = {.cpus = 4,
                                 .hpet = true,
                                 .i8042 = true,
                                 .ecam_base = LAYOUT_Q35_ECAM_BASE,
                                 .ecam_buses = 256,
                                 .mmio32_base = 0x20000000,
                                 .mmio32_size = 0xdec00000};
    struct loader_files files, none;
    struct buf direct = BUF_INIT;

    board_ok(loader_files_build(&config, &files));
    struct loaded rsdp = {&files.rsdp, LAYOUT_TABLES_GPA};
    struct loaded tables = {&files.tables, LAYOUT_TABLES_GPA + ACPI_FACS};
    run_script(&files.script, &rsdp, &tables);
    board_ok(acpi_build(&config, LAYOUT_TABLES_GPA, LAYOUT_TABLES_SIZE, &direct, NULL));
    assert_memory_equal(files.rsdp.data, direct.data, files.rsdp.len);
    assert_memory_equal(files.tables.data, direct.data + ACPI_FACS, direct.len - ACPI_FACS);

    /* Sizes are told before ECAM is there. */
    config.ecam_base = 0;
    board_ok(loader_files_build(&config, &none));
    assert_int_equal(none.tables.len, files.tables.len);
    assert_int_equal(none.script.len, files.script.len);
    buf_fini(&direct);
    loader_files_fini(&files);
    loader_files_fini(&none);
}

/* The log's room is the firmware's to find; the table learns where it is. */
static void the_script_places_the_tpm_log(void **state)
{
    struct acpi_config config = {.cpus = 1, .ecam_buses = 256, .tpm = true, .tpm_log = true};
    struct loader_files files;
    unsigned allocations = 0, pointers = 0;

    board_ok(loader_files_build(&config, &files));
    for (size_t at = 0; at + 128 <= files.script.len; at += 128) {
        const uint8_t *command = files.script.data + at, *operands = command + 60;
        if (get_le32(command) == 1 && !strcmp((const char *)command + 4, "etc/tpm/log"))
            allocations++;
        if (get_le32(command) != 2 || strcmp((const char *)operands, "etc/tpm/log"))
            continue;
        uint32_t field = get_le32(operands + 56);
        assert_int_equal(operands[60], 8);
        assert_memory_equal(files.tables.data + field - 68, "TPM2", 4);
        assert_int_equal(get_le32(files.tables.data + field - 4), ACPI_TPM_LOG_SIZE);
        assert_int_equal(get_le64(files.tables.data + field), 0);
        pointers++;
    }
    assert_int_equal(allocations, 1);
    assert_int_equal(pointers, 1);
    loader_files_fini(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cfg_reads_items_and_files),
        cmocka_unit_test(cfg_transfers_by_dma),
        cmocka_unit_test(cfg_refreshes_and_comes_back),
        cmocka_unit_test(flash_programs_and_erases),
        cmocka_unit_test(flash_tells_what_it_is),
        cmocka_unit_test(shadow_switches),
        cmocka_unit_test(ecam_moves),
        cmocka_unit_test(the_script_makes_the_same_tables),
        cmocka_unit_test(the_script_places_the_tpm_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
