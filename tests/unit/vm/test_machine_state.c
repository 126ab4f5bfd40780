/*
 * A whole machine's state: save, load into a fresh machine, save again: equal bytes, for both
 * boards with every device. A cut or flipped stream is refused with a sentence and harms nothing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "../test.h"
#include "guest.h"
#include "hw/chipset/layout.h"
#include "hw/input/i8042.h"
#include "vm/schema.h"
#include "vm/vm_internal.h"

#define VGA_CONFIG 0x8000 /* of function 00:01.0, in ECAM */
#define FRAMEBUFFER 0xd8000000u

struct machine {
    struct vm_config config;
    struct vm *vm;
    struct loop *loop;
};

static void flag(struct machine *machine, const char *name, const char *value)
{
    assert_ok(schema_apply_flag(&machine->config, name, value));
}

static void give_descriptors(struct vm_config *config)
{
    const uint8_t code[] = {GUEST_LOOP};
    int pair[2];

    config->kernel_fd = guest_image(code, sizeof(code));
    for (unsigned i = 0; i < config->disk_count; i++) {
        config->disk[i].fd = memfd_create("disk", MFD_CLOEXEC);
        assert_int_equal(ftruncate(config->disk[i].fd, MIB(1)), 0);
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
                     0);
    config->net[0].fd[0] = pair[0];
    close(pair[1]);
}

/* Everything that a configuration can ask for. */
static void build(struct machine *machine, enum vm_board board)
{
    memset(machine, 0, sizeof(*machine));
    vm_config_init(&machine->config);
    machine->config.accel = VM_ACCEL_NONE;
    machine->config.board = board;
    machine->config.cpus = 3;
    machine->config.memory = MIB(64);
    flag(machine, "kernel", "guest");
    flag(machine, "debug-exit", NULL);
    flag(machine, "disk", "a.img,queues=2");
    flag(machine, "disk", "b.img,readonly,cache=writethrough");
    flag(machine, "net", "user");
    flag(machine, "net", "none");
    flag(machine, "console", "serial,backend=null");
    flag(machine, "console", "serial,backend=null");
    flag(machine, "console", "virtio,backend=null");
    flag(machine, "console", "debug,backend=null");
    if (board == VM_BOARD_Q35) {
        flag(machine, "console", "vga,backend=null");
        flag(machine, "usb-keyboard", NULL);
        flag(machine, "usb-tablet", NULL);
    }
    assert_ok(schema_finish(&machine->config));
    give_descriptors(&machine->config);
    assert_ok(loop_new("control", &machine->loop));
    assert_ok(vm_new(&machine->config, machine->loop, NULL, &machine->vm));
}

static void fini(struct machine *machine)
{
    vm_free(machine->vm);
    vm_config_fini(&machine->config);
    loop_free(machine->loop);
}

static void save(struct machine *machine, struct state_writer *writer)
{
    state_writer_init(writer);
    board_quiesce(&machine->vm->board);
    assert_ok(vm_save(machine->vm, writer));
    state_writer_end(writer);
}

static struct err *load(struct machine *machine, const void *bytes, size_t len)
{
    struct state_reader reader;

    TRY(state_reader_init(&reader, bytes, len));
    TRY(vm_load(machine->vm, &reader));
    return state_reader_end(&reader);
}

/* A little life: registers that differ from their reset values. */
static void disturb(struct machine *machine, enum vm_board board)
{
    struct io_bus *pio = machine->vm->pio, *mmio = machine->vm->mmio;

    io_bus_write(pio, LAYOUT_PORT_COM1 + 3, 1, 0x1b);
    io_bus_write(pio, LAYOUT_PORT_COM1 + 1, 1, 0x05);
    io_bus_write(pio, LAYOUT_PORT_COM1 + 7, 1, 0x42);
    io_bus_write(mmio, LAYOUT_IOAPIC_BASE, 4, 0x10 + 2 * 5);
    io_bus_write(mmio, LAYOUT_IOAPIC_BASE + 0x10, 4, 0x8031);
    uint64_t ecam = machine->vm->board.kind->ecam_base;
    io_bus_write(mmio, ecam + 0x10000 + 0x0c, 1, 0x20); /* a cache line size */
    if (board == VM_BOARD_Q35) {
        io_bus_write(pio, LAYOUT_PORT_PIT + 3, 1, 0x34);
        io_bus_write(pio, LAYOUT_PORT_PIT, 1, 0x9c);
        io_bus_write(pio, LAYOUT_PORT_PIT, 1, 0x2e);
        io_bus_write(pio, LAYOUT_PORT_PIC_MASTER + 1, 1, 0x55);
        io_bus_write(pio, LAYOUT_PORT_RTC, 1, 0x40);
        io_bus_write(pio, LAYOUT_PORT_RTC + 1, 1, 0x77);
        io_bus_write(pio, LAYOUT_PORT_PM + 2, 2, 0x0101);
        io_bus_write(pio, LAYOUT_PORT_PCI_CF8, 4, 0x80000800);
        io_bus_write(mmio, LAYOUT_HPET_BASE + 0x108, 8, 0x12345);
        io_bus_write(mmio, ecam + VGA_CONFIG + 0x10, 4, FRAMEBUFFER);
        io_bus_write(pio, 0x3c2, 1, 0x63);
        i8042_key(machine->vm->board.i8042, 0x1e, true);
    }
}

static void check_round_trip(enum vm_board board)
{
    struct machine a, b;
    struct state_writer first, second;

    build(&a, board);
    disturb(&a, board);
    save(&a, &first);
    build(&b, board);
    assert_ok(load(&b, first.out.data, first.out.len));
    save(&b, &second);
    assert_int_equal(first.out.len, second.out.len);
    assert_memory_equal(first.out.data, second.out.data, first.out.len);
    assert_int_equal(io_bus_read(b.vm->pio, LAYOUT_PORT_COM1 + 7, 1), 0x42);
    assert_int_equal(io_bus_read(b.vm->mmio, b.vm->board.kind->ecam_base + 0x10000 + 0x0c, 1),
                     0x20);
    if (board == VM_BOARD_Q35) { /* the framebuffer went with its BAR, and the key is there */
        assert_non_null(gmem_find(b.vm->gmem, FRAMEBUFFER));
        assert_int_equal(io_bus_read(b.vm->pio, LAYOUT_PORT_I8042_DATA, 1), 0x1e);
    }
    state_writer_fini(&first);
    state_writer_fini(&second);
    fini(&a);
    fini(&b);
}

static void test_round_trip_micro(void **state)
{
    check_round_trip(VM_BOARD_MICRO);
}

static void test_round_trip_q35(void **state)
{
    check_round_trip(VM_BOARD_Q35);
}

static void test_damaged(void **state)
{
    struct machine a, b;
    struct state_writer stream;

    build(&a, VM_BOARD_Q35);
    save(&a, &stream);
    build(&b, VM_BOARD_Q35);
    for (size_t len = 0; len < stream.out.len; len += 1 + len / 40) {
        struct err *err = load(&b, stream.out.data, len);
        if (!err)
            fail_msg("a stream cut at %zu of %zu was accepted", len, stream.out.len);
        assert_true(strlen(err_text(err)) > 5);
        err_free(err);
    }
    for (size_t at = 0; at < stream.out.len; at += 1 + at / 60) {
        stream.out.data[at] ^= 0x10;
        struct err *err = load(&b, stream.out.data, stream.out.len);
        if (!err)
            fail_msg("a stream with byte %zu flipped was accepted", at);
        err_free(err);
        stream.out.data[at] ^= 0x10;
    }
    /* And the whole one still goes in. */
    assert_ok(load(&b, stream.out.data, stream.out.len));
    state_writer_fini(&stream);
    fini(&a);
    fini(&b);
}

static void other_machine(const char *name, const char *value, const char *error)
{
    struct machine a, b;
    struct state_writer stream;

    build(&a, VM_BOARD_MICRO);
    save(&a, &stream);
    build(&b, VM_BOARD_MICRO);
    flag(&b, name, value);
    struct err *err = load(&b, stream.out.data, stream.out.len);
    assert_non_null(err);
    assert_string_equal(err_text(err), error);
    err_free(err);
    flag(&b, "cpus", "3");
    state_writer_fini(&stream);
    fini(&a);
    fini(&b);
}

static void test_other_machine(void **state)
{
    other_machine("cpus", "2", "the state is of a VM with 3 CPUs: give --cpus 3");
    other_machine("memory", "32M", "the state is of a VM with 64M of memory: give --memory 64M");
    other_machine("board", "q35", "the state is of board micro: choose it with --board");
}

static void test_runs_after_load(void **state)
{
    struct machine a, b;
    struct state_writer stream;

    build(&a, VM_BOARD_Q35);
    assert_ok(vm_start(a.vm, NULL, NULL));
    vm_pause(a.vm);
    state_writer_init(&stream);
    assert_ok(vm_save(a.vm, &stream));
    state_writer_end(&stream);
    vm_resume(a.vm);
    build(&b, VM_BOARD_Q35);
    assert_ok(load(&b, stream.out.data, stream.out.len));
    assert_ok(vm_start(b.vm, NULL, NULL));
    vm_powerdown(b.vm);
    /* The button is a status bit of the PM block. */
    assert_int_equal(io_bus_read(b.vm->pio, LAYOUT_PORT_PM, 2) & 0x100, 0x100);
    state_writer_fini(&stream);
    fini(&a);
    fini(&b);
}

/* What swtpm holds is in no stream. */
static void test_a_tpm_stays(void **state)
{
    struct machine machine;
    struct state_writer stream;

    build(&machine, VM_BOARD_Q35);
    save(&machine, &stream);
    machine.config.tpm = true;
    struct err *err = vm_save(machine.vm, &stream);
    assert_non_null(strstr(err_text(err), "a VM with a TPM"));
    err_free(err);
    err = load(&machine, stream.out.data, stream.out.len);
    assert_non_null(strstr(err_text(err), "a VM with a TPM"));
    err_free(err);
    state_writer_fini(&stream);
    fini(&machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_micro), cmocka_unit_test(test_round_trip_q35),
        cmocka_unit_test(test_damaged),          cmocka_unit_test(test_other_machine),
        cmocka_unit_test(test_runs_after_load),  cmocka_unit_test(test_a_tpm_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
