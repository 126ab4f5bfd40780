/*
 * Board q35: the parts of Intel's 82G33/ICH9 chipset that operating systems and stock firmware ask
 * for.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/hpet.h"
#include "hw/chipset/layout.h"
#include "hw/chipset/lpc.h"
#include "hw/chipset/pit.h"
#include "hw/chipset/pm.h"
#include "hw/chipset/reset.h"
#include "hw/chipset/rtc.h"
#include "hw/input/i8042.h"
#include "hw/pci/host_bridge.h"
#include "hw/tpm/tpm_crb.h"
#include "vm/board.h"

static struct err *add_controllers(struct board *board)
{
    struct ioapic *ioapic = (struct ioapic *)device_new(&ioapic_class, board->env, "ioapic");
    struct pic *pic = (struct pic *)device_new(&pic_class, board->env, "pic");

    /* In the list first, so that an error finds both. */
    list_append(&board->devices, &ioapic->device.link);
    list_append(&board->devices, &pic->device.link);
    board->ioapic = board->isa.ioapic = ioapic;
    board->pic = board->isa.pic = pic;
    ioapic->base = LAYOUT_IOAPIC_BASE;
    ioapic->route = board->wiring.ioapic_route;
    pic->intr = board->wiring.extint;
    ioapic->opaque = pic->opaque = board->wiring.opaque;
    TRY(device_realize(&ioapic->device));
    return device_realize(&pic->device);
}

static struct err *add_hpet(struct board *board)
{
    struct hpet *hpet = (struct hpet *)device_new(&hpet_class, board->env, "hpet");

    hpet->base = LAYOUT_HPET_BASE;
    for (unsigned pin = 0; pin < ARRAY_SIZE(hpet->pin); pin++) {
        if (HPET_ROUTES >> pin & 1)
            hpet->pin[pin] = ioapic_line(board->ioapic, pin);
    }
    hpet->isa0 = isa_irq_line(&board->isa, LAYOUT_IRQ_PIT);
    hpet->isa8 = isa_irq_line(&board->isa, LAYOUT_IRQ_RTC);
    board->hpet = hpet;
    return board_add(board, &hpet->device);
}

static struct err *build_core(struct board *board, struct pci_bus_config *pci)
{
    TRY(add_controllers(board));
    TRY(add_hpet(board));

    struct reset_port *reset =
        (struct reset_port *)device_new(&reset_port_class, board->env, "reset");
    pci->cf9_ops = &reset_port_ops;
    pci->cf9_opaque = reset;
    TRY(board_add(board, &reset->device));

    /* The bus wants its interrupt lines, and the bridge that owns them wants the bus. */
    struct lpc *lpc = (struct lpc *)device_new(&lpc_class, board->env, "lpc");
    lpc->ioapic = board->ioapic;
    lpc->pic = board->pic;
    board->lpc = &lpc->pci.device;
    list_append(&board->devices, &lpc->pci.device.link);
    for (unsigned i = 0; i < 4; i++)
        pci->intx[i] = lpc_pirq_line(lpc, i);
    return NULL;
}

static struct err *add_pci_functions(struct board *board)
{
    struct lpc *lpc = (struct lpc *)board->lpc;
    struct host_bridge *bridge =
        (struct host_bridge *)device_new(&host_bridge_class, board->env, "host-bridge");

    bridge->q35 = true;
    bridge->firmware = board_has_firmware(board);
    board->bridge = bridge;
    bridge->ecam_base = board->kind->ecam_base;
    TRY(board_add_pci(board, &bridge->pci, 0));
    TRY(pci_bus_attach(board->bus, &lpc->pci, LPC_DEVFN));
    return device_realize(&lpc->pci.device);
}

static struct err *add_timers(struct board *board)
{
    struct pit *pit = (struct pit *)device_new(&pit_class, board->env, "pit");
    pit->irq = hpet_pit_line(board->hpet);
    TRY(board_add(board, &pit->device));

    struct rtc *rtc = (struct rtc *)device_new(&rtc_class, board->env, "rtc");
    rtc->irq = hpet_rtc_line(board->hpet);
    rtc->alarm = pm_alarm_line((struct pm *)board->power);
    board->rtc = &rtc->device;
    rtc->cpus = board->config->cpus;
    rtc->low_ram = board->low_end;
    rtc->high_ram = board->high_end ? board->high_end - LAYOUT_HIGH_RAM_BASE : 0;
    return board_add(board, &rtc->device);
}

static struct err *add_tpm(struct board *board)
{
    struct vm_config *config = board->config;

    if (!config->tpm)
        return NULL;
    board->tpm = (struct tpm_crb *)device_new(&tpm_crb_class, board->env, "tpm");
    board->tpm->base = LAYOUT_TPM_BASE;
    board->tpm->tpm.control_fd = config->tpm_control_fd;
    board->tpm->tpm.command_fd = config->tpm_command_fd;
    config->tpm_control_fd = config->tpm_command_fd = -1;
    return board_add(board, &board->tpm->device);
}

static struct err *build_chipset(struct board *board)
{
    TRY(add_pci_functions(board));

    struct pm *pm = (struct pm *)device_new(&pm_class, board->env, "pm");
    pm->sci = isa_irq_line(&board->isa, LAYOUT_IRQ_SCI);
    board->power = &pm->device;
    TRY(board_add(board, &pm->device));
    TRY(add_timers(board));
    TRY(add_tpm(board));

    struct i8042 *keyboard = (struct i8042 *)device_new(&i8042_class, board->env, "i8042");
    keyboard->keyboard_irq = isa_irq_line(&board->isa, LAYOUT_IRQ_KEYBOARD);
    keyboard->mouse_irq = isa_irq_line(&board->isa, LAYOUT_IRQ_MOUSE);
    keyboard->plugged = board_has_ps2(board);
    board->i8042 = keyboard;
    return board_add(board, &keyboard->device);
}

static void power_button(struct board *board)
{
    pm_power_button((struct pm *)board->power);
}

static bool asleep(struct board *board)
{
    return pm_asleep((struct pm *)board->power);
}

const struct board_kind board_q35 = {
    .name = "q35",
    .low_ram_max = LAYOUT_Q35_LOW_RAM_MAX,
    .video_hole = true,
    .ecam_base = LAYOUT_Q35_ECAM_BASE,
    .ecam_buses = LAYOUT_Q35_ECAM_BUSES,
    .mmio32_base = LAYOUT_Q35_MMIO32_BASE,
    .mmio32_size = LAYOUT_Q35_MMIO32_SIZE,
    .cf8 = true,
    .pio_bars = true,
    .build_core = build_core,
    .build_chipset = build_chipset,
    .power_button = power_button,
    .asleep = asleep,
};
