/*
 * PCI functions and their bus: configuration space in every size, BARs, MSI-X, INTx, addresses.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "board_env.h"
#include "hw/chipset/layout.h"
#include "hw/chipset/lpc.h"
#include "hw/chipset/reset.h"
#include "hw/pci/host_bridge.h"
#include "hw/pci/pci.h"

/* A function with one BAR of each kind, MSI-X and INTx. */
struct sample {
    struct pci_device pci;
    unsigned reads, writes, config_writes, vector_changes;
    uint64_t last_value;
};

static uint64_t sample_read(void *opaque, uint64_t offset, unsigned size)
{
    ((struct sample *)opaque)->reads++;
    return 0x5a5a5a5a5a5a5a5a;
}

static void sample_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct sample *sample = opaque;
    sample->writes++;
    sample->last_value = value;
}

static const struct io_ops sample_ops = {sample_read, sample_write};

static void sample_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    ((struct sample *)pci)->config_writes++;
}

static void sample_msix_changed(struct pci_device *pci, unsigned vector)
{
    ((struct sample *)pci)->vector_changes++;
}

static struct err *sample_realize(struct device *device)
{
    struct sample *sample = (struct sample *)device;
    pci_device_identify(&sample->pci, 0x1af4, 0x1041, 0x020000, 1, 0x1af4, 0x1100);
    pci_intx_add(&sample->pci);
    pci_bar_add(&sample->pci, 0, PCI_BAR_IO, 0x20, &sample_ops, sample);
    pci_msix_add(&sample->pci, 5, 1);
    pci_bar_add(&sample->pci, 2, PCI_BAR_MEM64, 0x4000, &sample_ops, sample);
    pci_bar_add(&sample->pci, 4, PCI_BAR_MEM32, 0x1000, &sample_ops, sample);
    pci_express_add(&sample->pci);
    sample->pci.config_written = sample_config_written;
    sample->pci.msix_changed = sample_msix_changed;
    return NULL;
}

static void sample_reset(struct device *device)
{
    pci_device_reset(&((struct sample *)device)->pci);
}

static void sample_fini(struct device *device)
{
    pci_device_fini(&((struct sample *)device)->pci);
}

static const struct state_field sample_fields[] = {PCI_DEVICE_STATE(sample, pci)};
static const struct state_table sample_state = {
    DEVICE_STATE_TABLE("sample", sample, sample_fields)};
static const struct device_class sample_class = {
    .name = "sample",
    .size = sizeof(struct sample),
    .state = &sample_state,
    .realize = sample_realize,
    .reset = sample_reset,
    .fini = sample_fini,
};

struct fixture {
    struct board_env board;
    struct pci_bus *bus;
    struct sample *sample;
    struct reset_port *reset;
};

static struct sample *sample_new(struct fixture *f, const char *id, int devfn)
{
    struct device *device = device_new(&sample_class, &f->board.env, id);
    struct sample *sample = (struct sample *)device;
    board_ok(pci_bus_attach(f->bus, &sample->pci, devfn));
    board_ok(device_realize(device));
    return sample;
}

static struct pci_bus_config bus_config(struct board_env *board)
{
    return (struct pci_bus_config){
        .env = &board->env,
        .ecam_base = LAYOUT_Q35_ECAM_BASE,
        .ecam_buses = 256,
        .cf8 = true,
        .cf9_ops = &reset_port_ops,
        .io_base = LAYOUT_PORT_PCI_IO,
        .io_size = LAYOUT_PCI_IO_SIZE,
        .mmio32_base = LAYOUT_Q35_MMIO32_BASE,
        .mmio32_size = LAYOUT_Q35_MMIO32_SIZE,
        .mmio64_base = GIB(64),
        .mmio64_size = LAYOUT_MMIO64_SIZE,
        .intx = {board_line(board, 16), board_line(board, 17), board_line(board, 18),
                 board_line(board, 19)},
    };
}

static int setup(void **state)
{
    static struct fixture f;
    board_init(&f.board);
    struct device *reset = device_new(&reset_port_class, &f.board.env, "reset");
    board_ok(device_realize(reset));
    f.reset = (struct reset_port *)reset;
    struct pci_bus_config config = bus_config(&f.board);
    config.cf9_opaque = f.reset;
    board_ok(pci_bus_new(&config, &f.bus));
    f.sample = sample_new(&f, "s0", 3 << 3);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    device_free(&f->sample->pci.device);
    pci_bus_free(f->bus);
    device_free(&f->reset->device);
    board_fini(&f->board);
    return 0;
}

static uint64_t ecam(unsigned devfn, unsigned offset)
{
    return LAYOUT_Q35_ECAM_BASE + ((uint64_t)devfn << 12) + offset;
}

static uint64_t config_get(struct fixture *f, unsigned offset, unsigned size)
{
    return io_bus_read(f->board.env.mmio, ecam(f->sample->pci.devfn, offset), size);
}

static void config_set(struct fixture *f, unsigned offset, unsigned size, uint64_t value)
{
    io_bus_write(f->board.env.mmio, ecam(f->sample->pci.devfn, offset), size, value);
}

static void both_ways_see_the_same(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(config_get(f, 0, 4), 0x10411af4);
    assert_int_equal(config_get(f, 2, 2), 0x1041);
    assert_int_equal(config_get(f, 0xb, 1), 0x02);
    assert_true(config_get(f, 0, 8) == (0x10411af4 | (uint64_t)config_get(f, 4, 4) << 32));
    board_out(&f->board, 0xcf8, 4, 0x80001800);
    assert_int_equal(board_in(&f->board, 0xcf8, 4), 0x80001800);
    assert_int_equal(board_in(&f->board, 0xcfc, 4), 0x10411af4);
    assert_int_equal(board_in(&f->board, 0xcfe, 2), 0x1041);
    assert_int_equal(board_in(&f->board, 0xcff, 1), 0x10);
    board_out(&f->board, 0xcf8, 4, 0x00001800);
    assert_int_equal(board_in(&f->board, 0xcfc, 4), 0xffffffff);
    /* Nobody at other slots, on other buses. */
    assert_int_equal(io_bus_read(f->board.env.mmio, ecam(4 << 3, 0), 4), 0xffffffff);
    assert_int_equal(io_bus_read(f->board.env.mmio, ecam(0x103 << 3, 0), 4), 0xffffffff);
    /* Byte writes to the address register's ports are not the register's. */
    board_out(&f->board, 0xcf8, 4, 0x80001804);
    board_out(&f->board, 0xcf8, 1, 0xff);
    board_out(&f->board, 0xcf9, 1, 0x02);
    board_out(&f->board, 0xcfa, 2, 0xffff);
    assert_int_equal(board_in(&f->board, 0xcf8, 4), 0x80001804);
    assert_int_equal(board_in(&f->board, 0xcf9, 1), 0x02);
    assert_int_equal(f->board.power_count, 0);
    board_out(&f->board, 0xcf9, 1, 0x06);
    assert_int_equal(f->board.power_count, 1);
    assert_int_equal(f->board.power, HW_POWER_RESET);
}

static void bars_size_and_map(void **state)
{
    struct fixture *f = *state;
    struct sample *s = f->sample;
    config_set(f, 0x10, 4, 0xffffffff);
    assert_int_equal(config_get(f, 0x10, 4), 0xffffffe1);
    config_set(f, 0x18, 4, 0xffffffff);
    config_set(f, 0x1c, 4, 0xffffffff);
    assert_int_equal(config_get(f, 0x18, 4), 0xffffc004);
    assert_int_equal(config_get(f, 0x1c, 4), 0xffffffff);
    config_set(f, 0x24, 4, 0xffffffff);
    assert_int_equal(config_get(f, 0x24, 4), 0); /* BAR 5 does not exist */

    config_set(f, 0x10, 4, 0xc100);
    config_set(f, 0x18, 4, 0x10000000);
    config_set(f, 0x1c, 4, 0x20);
    config_set(f, 0x20, 4, 0xd0000000);
    assert_int_equal(board_in(&f->board, 0xc100, 1), 0xff);
    config_set(f, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    assert_int_equal(board_in(&f->board, 0xc11f, 1), 0x5a);
    assert_int_equal(board_in(&f->board, 0xc120, 1), 0xff);
    assert_int_equal(io_bus_read(f->board.env.mmio, 0x2010003ffc, 4), 0x5a5a5a5a);
    assert_int_equal(io_bus_read(f->board.env.mmio, 0xd0000000, 2), 0x5a5a);
    /* Moves while enabled, in bytes. */
    config_set(f, 0x23, 1, 0xd8);
    assert_int_equal(io_bus_read(f->board.env.mmio, 0xd0000000, 2), 0xffff);
    assert_int_equal(io_bus_read(f->board.env.mmio, 0xd8000000, 2), 0x5a5a);
    unsigned writes = s->writes;
    io_bus_write(f->board.env.mmio, 0xd8000010, 4, 0x12345678);
    assert_int_equal(s->writes, writes + 1);
    assert_int_equal(s->last_value, 0x12345678);
    device_reset(&s->pci.device);
    assert_int_equal(io_bus_read(f->board.env.mmio, 0xd8000000, 2), 0xffff);
    assert_int_equal(config_get(f, 0x20, 4), 0);
}

static uint64_t msix_bar(struct fixture *f)
{
    board_ok(pci_bus_assign(f->bus));
    config_set(f, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    return pci_bar_address(&f->sample->pci, 1);
}

static void msix_masks_and_remembers(void **state)
{
    struct fixture *f = *state;
    struct pci_device *pci = &f->sample->pci;
    struct io_bus *mmio = f->board.env.mmio;
    uint64_t bar = msix_bar(f);
    unsigned control = pci->msix_capability + 2u;
    assert_true(bar != 0);
    assert_int_equal(config_get(f, control, 2), 4);
    for (unsigned i = 0; i < 5; i++) {
        io_bus_write(mmio, bar + 16 * i, 8, 0xfee01000 + 0x1000 * i);
        io_bus_write(mmio, bar + 16 * i + 8, 4, 0x40 + i);
        assert_int_equal(io_bus_read(mmio, bar + 16 * i + 12, 4), 1);
    }
    lock_take(&pci->device.lock);
    pci_msix_notify(pci, 1); /* not enabled: INTx is the way */
    lock_drop(&pci->device.lock);
    assert_int_equal(f->board.msi_count, 0);

    config_set(f, control, 2, 0x8000);
    lock_take(&pci->device.lock);
    pci_msix_notify(pci, 2); /* masked */
    pci_msix_notify(pci, 99);
    lock_drop(&pci->device.lock);
    assert_int_equal(f->board.msi_count, 0);
    assert_int_equal(io_bus_read(mmio, bar + 0x800, 8), 1 << 2);
    io_bus_write(mmio, bar + 16 * 2 + 12, 4, 0);
    assert_int_equal(f->board.msi_count, 1);
    assert_int_equal(f->board.msi[0].address, 0xfee03000);
    assert_int_equal(f->board.msi[0].data, 0x42);
    assert_int_equal(io_bus_read(mmio, bar + 0x800, 4), 0);

    config_set(f, control, 2, 0xc000); /* function mask */
    lock_take(&pci->device.lock);
    pci_msix_notify(pci, 2);
    lock_drop(&pci->device.lock);
    assert_int_equal(f->board.msi_count, 1);
    config_set(f, control, 2, 0x8000);
    assert_int_equal(f->board.msi_count, 2);
    assert_true(f->sample->vector_changes > 0);
    /* Without bus mastering nothing leaves the function. */
    config_set(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    lock_take(&pci->device.lock);
    pci_msix_notify(pci, 2);
    lock_drop(&pci->device.lock);
    assert_int_equal(f->board.msi_count, 2);
    /* Odd sizes and places, pending bits: ignored. */
    io_bus_write(mmio, bar + 0x800, 8, UINT64_MAX);
    io_bus_write(mmio, bar + 1, 4, UINT64_MAX);
    io_bus_write(mmio, bar + 2, 1, 0xff);
    assert_int_equal(io_bus_read(mmio, bar, 4), 0xfee01000);
    assert_int_equal(io_bus_read(mmio, bar + 1, 1), 0x10);
}

static void intx(struct sample *sample, bool level)
{
    lock_take(&sample->pci.device.lock);
    pci_intx_set(&sample->pci, level);
    lock_drop(&sample->pci.device.lock);
}

static void intx_lines_are_shared(void **state)
{
    struct fixture *f = *state;
    /* Slots 3 and 7 both reach line 3. */
    struct sample *other = sample_new(f, "s1", 7 << 3);
    intx(f->sample, true);
    assert_true(f->board.level[19]);
    assert_int_equal(config_get(f, PCI_STATUS, 2) & PCI_STATUS_INTX, PCI_STATUS_INTX);
    intx(other, true);
    intx(f->sample, false);
    assert_true(f->board.level[19]);
    config_set(f, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
    intx(f->sample, true);
    intx(other, false);
    assert_false(f->board.level[19]);
    config_set(f, PCI_COMMAND, 2, 0);
    assert_true(f->board.level[19]);
    device_free(&other->pci.device);
    assert_true(f->board.level[19]);
    device_reset(&f->sample->pci.device);
    assert_false(f->board.level[19]);
}

static void addresses_do_not_collide(void **state)
{
    struct fixture *f = *state;
    struct sample *other = sample_new(f, "s1", -1);
    assert_int_equal(other->pci.devfn, 1 << 3);
    assert_ptr_equal(pci_bus_device(f->bus, 1 << 3), &other->pci);
    board_ok(pci_bus_assign(f->bus));
    struct pci_device *both[] = {&f->sample->pci, &other->pci};
    for (unsigned i = 0; i < 2 * PCI_BARS; i++) {
        const struct pci_bar *a = &both[i / PCI_BARS]->bar[i % PCI_BARS];
        if (a->kind == PCI_BAR_NONE)
            continue;
        assert_non_null(a->region.bus);
        assert_int_equal(a->region.base % a->size, 0);
        for (unsigned j = 0; j < i; j++) {
            const struct pci_bar *b = &both[j / PCI_BARS]->bar[j % PCI_BARS];
            if (b->kind != PCI_BAR_NONE && (a->kind == PCI_BAR_IO) == (b->kind == PCI_BAR_IO))
                assert_true(a->region.base + a->size <= b->region.base ||
                            b->region.base + b->size <= a->region.base);
        }
    }
    device_free(&other->pci.device);
}

static void a_taken_slot_is_refused(void **state)
{
    struct fixture *f = *state;
    struct device *device = device_new(&sample_class, &f->board.env, "s2");
    struct err *err = pci_bus_attach(f->bus, &((struct sample *)device)->pci, 3 << 3);
    assert_non_null(err);
    err_free(err);
    device_free(device);
}

/* Every offset in every size, with every kind of value; what is read-only stays. */
static void nothing_that_is_written_hurts(void **state)
{
    struct fixture *f = *state;
    static const uint64_t values[] = {0, UINT64_MAX, 0xa5a5a5a5a5a5a5a5, 0x0123456789abcdef};
    static const unsigned sizes[] = {1, 2, 4, 8};
    uint8_t before[PCI_CONFIG_SIZE];
    memcpy(before, f->sample->pci.config, sizeof(before));
    for (unsigned v = 0; v < ARRAY_SIZE(values); v++) {
        for (unsigned s = 0; s < ARRAY_SIZE(sizes); s++) {
            for (unsigned offset = 0; offset < PCI_CONFIG_SIZE; offset++) {
                config_set(f, offset, sizes[s], values[v]);
                config_get(f, offset, sizes[s]);
            }
        }
    }
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
        uint8_t fixed = (uint8_t)~f->sample->pci.writable[i];
        assert_int_equal(before[i] & fixed, f->sample->pci.config[i] & fixed);
    }
    assert_true(f->sample->config_writes > 0);
    uint64_t bar = msix_bar(f);
    for (unsigned v = 0; v < ARRAY_SIZE(values); v++) {
        for (unsigned s = 0; s < ARRAY_SIZE(sizes); s++) {
            for (unsigned offset = 0; offset < 0x1000; offset += 3) {
                io_bus_write(f->board.env.mmio, bar + offset, sizes[s], values[v]);
                io_bus_read(f->board.env.mmio, bar + offset, sizes[s]);
            }
        }
    }
}

static void state_comes_back(void **state)
{
    struct fixture *f = *state;
    struct board_env second;
    struct fixture g = {0};
    board_init(&second);
    g.board = second;
    g.board.env.opaque = &g.board;
    struct pci_bus_config config = bus_config(&g.board);
    board_ok(pci_bus_new(&config, &g.bus));
    g.sample = sample_new(&g, "s0", 3 << 3);

    uint64_t bar = msix_bar(f);
    io_bus_write(f->board.env.mmio, bar + 16, 8, 0xfee05000);
    io_bus_write(f->board.env.mmio, bar + 24, 8, 0x77);
    config_set(f, f->sample->pci.msix_capability + 2u, 2, 0x8000);
    intx(f->sample, true);
    board_round_trip(&f->sample->pci.device, &g.sample->pci.device);
    assert_int_equal(io_bus_read(g.board.env.mmio, bar + 16, 4), 0xfee05000);
    assert_memory_equal(f->sample->pci.config, g.sample->pci.config, PCI_CONFIG_SIZE);
    /* The level was counted, but the wire was left to the controller's own state. */
    assert_int_equal(g.board.rises[19], 0);
    intx(g.sample, false);
    assert_false(g.board.level[19]);
    device_free(&g.sample->pci.device);
    pci_bus_free(g.bus);
    board_fini(&g.board);
}

static void lpc_routes_lines(void **state)
{
    struct fixture *f = *state;
    struct device *ioapic = device_new(&ioapic_class, &f->board.env, "ioapic");
    struct device *pic = device_new(&pic_class, &f->board.env, "pic");
    struct device *device = device_new(&lpc_class, &f->board.env, "lpc");
    struct lpc *lpc = (struct lpc *)device;
    ((struct ioapic *)ioapic)->base = LAYOUT_IOAPIC_BASE;
    lpc->ioapic = (struct ioapic *)ioapic;
    lpc->pic = (struct pic *)pic;
    board_ok(device_realize(ioapic));
    board_ok(device_realize(pic));
    board_ok(pci_bus_attach(f->bus, &lpc->pci, LPC_DEVFN));
    board_ok(device_realize(device));
    assert_int_equal(io_bus_read(f->board.env.mmio, ecam(LPC_DEVFN, 0), 4), 0x29188086);
    assert_int_equal(io_bus_read(f->board.env.mmio, ecam(LPC_DEVFN, 0x40), 4), LAYOUT_PORT_PM | 1);
    assert_int_equal(io_bus_read(f->board.env.mmio, LAYOUT_RCBA_BASE + 0x3410, 4), 0x20);

    struct irq_line line = lpc_pirq_line(lpc, 2);
    irq_set(&line, true);
    assert_int_equal(lpc->ioapic->levels, 1 << 18);
    assert_int_equal(lpc->pic->chip[1].levels, 0);
    io_bus_write(f->board.env.mmio, ecam(LPC_DEVFN, 0x62), 1, 0x0b);
    assert_int_equal(lpc->pic->chip[1].levels, 1 << 3);
    io_bus_write(f->board.env.mmio, ecam(LPC_DEVFN, 0x60), 4, 0x800a8080);
    assert_int_equal(lpc->pic->chip[1].levels, 1 << 2);
    irq_set(&line, false);
    assert_int_equal(lpc->pic->chip[1].levels, 0);
    assert_int_equal(lpc->ioapic->levels, 0);
    device_free(device);
    device_free(pic);
    device_free(ioapic);
}

static void host_bridge_keeps_the_address(void **state)
{
    struct fixture *f = *state;
    struct device *device = device_new(&host_bridge_class, &f->board.env, "host");
    struct host_bridge *bridge = (struct host_bridge *)device;
    bridge->q35 = true;
    bridge->ecam_base = LAYOUT_Q35_ECAM_BASE;
    board_ok(pci_bus_attach(f->bus, &bridge->pci, 0));
    board_ok(device_realize(device));
    assert_int_equal(io_bus_read(f->board.env.mmio, ecam(0, 0), 4), 0x29c08086);
    assert_int_equal(io_bus_read(f->board.env.mmio, ecam(0, 0x60), 8), LAYOUT_Q35_ECAM_BASE | 1);
    board_out(&f->board, 0xcf8, 4, 0x80001234);
    struct state_writer saved;
    board_save(device, &saved);
    device_reset(device);
    assert_int_equal(board_in(&f->board, 0xcf8, 4), 0);
    board_ok(board_load(device, &saved.out));
    assert_int_equal(board_in(&f->board, 0xcf8, 4), 0x80001234);
    state_writer_fini(&saved);
    device_free(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(both_ways_see_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(bars_size_and_map, setup, teardown),
        cmocka_unit_test_setup_teardown(msix_masks_and_remembers, setup, teardown),
        cmocka_unit_test_setup_teardown(intx_lines_are_shared, setup, teardown),
        cmocka_unit_test_setup_teardown(addresses_do_not_collide, setup, teardown),
        cmocka_unit_test_setup_teardown(a_taken_slot_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_that_is_written_hurts, setup, teardown),
        cmocka_unit_test_setup_teardown(state_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(lpc_routes_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(host_bridge_keeps_the_address, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
