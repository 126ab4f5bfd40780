/*
 * Intel's 82574L network card: registers, interrupts, PHY and NVM, life and state (datasheet
 * 82574, chapters 5, 9 and 10). Its rings are in e1000e_ring.c.
 *
 * Most registers only keep what was written. There is one pair of queues, no receive-side scaling,
 * no VLAN filter, no wake-up and no moderation of interrupts.
 *
 * Registers are the vCPUs', frames the loop's; the device lock covers both.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/nic/e1000e_internal.h"

#define VENDOR_INTEL 0x8086
#define DEVICE_82574L 0x10d3
#define PCI_CLASS_ETHERNET 0x020000
#define REGISTER_BAR 0
#define REGISTER_BAR_SIZE KIB(128)
#define MSIX_BAR 3
#define MSIX_VECTORS 5

#define NVM_CHECKSUM 0xbaba
#define EERD_START 1u
#define EERD_DONE 2u
#define MDIC_READ (2u << 26)
#define MDIC_WRITE (1u << 26)
#define MDIC_READY (1u << 28)
#define MDIC_ERROR (1u << 30)
#define PHY_ADDRESS 1u
#define PHY_CONTROL 0
#define PHY_CONTROL_SELF_CLEARING 0x8200u /* reset, restart of the negotiation */

static struct e1000e *to_nic(struct device *device)
{
    return container_of(device, struct e1000e, pci.device);
}

/* --- interrupts --- */

/* The causes that have a message of their own, with the place of their vector in IVAR. */
static const struct {
    uint32_t cause;
    unsigned shift;
} queues[] = {{E1000E_INT_RXQ0, 0}, {E1000E_INT_TXQ0, 8}, {E1000E_INT_OTHER, 16}};

static void send_messages(struct e1000e *nic)
{
    uint32_t *icr = e1000e_reg(nic, E1000E_ICR), *ims = e1000e_reg(nic, E1000E_IMS);
    uint32_t ivar = *e1000e_reg(nic, E1000E_IVAR);
    const uint32_t own = E1000E_INT_RXQ0 | E1000E_INT_TXQ0 | E1000E_INT_OTHER;
    if (*icr & *ims & ~(own | E1000E_INT_RXT0 | E1000E_INT_TXDW))
        *icr |= E1000E_INT_OTHER;
    for (unsigned i = 0; i < ARRAY_SIZE(queues); i++) {
        uint32_t cause = queues[i].cause, entry = ivar >> queues[i].shift;
        if (!(*icr & *ims & cause) || !(entry & 8))
            continue;
        pci_msix_notify(&nic->pci, entry & 7);
        if (*e1000e_reg(nic, E1000E_CTRL_EXT) & E1000E_EXT_EIAME)
            *ims &= ~(*e1000e_reg(nic, E1000E_IAM) & cause);
        *icr &= ~(*e1000e_reg(nic, E1000E_EIAC) & cause);
    }
}

static void update_interrupts(struct e1000e *nic, bool again)
{
    uint32_t *icr = e1000e_reg(nic, E1000E_ICR);
    bool before = *icr & E1000E_INT_ASSERTED;
    *icr &= ~E1000E_INT_ASSERTED;
    if (pci_msix_enabled(&nic->pci)) {
        pci_intx_set(&nic->pci, false);
        send_messages(nic);
        return;
    }
    bool wanted = *icr & *e1000e_reg(nic, E1000E_IMS);
    if (wanted)
        *icr |= E1000E_INT_ASSERTED;
    bool message = pci_msi_enabled(&nic->pci);
    pci_intx_set(&nic->pci, wanted && !message);
    if (wanted && message && (again || !before))
        pci_msi_notify(&nic->pci);
}

void e1000e_raise(struct e1000e *nic, uint32_t causes)
{
    *e1000e_reg(nic, E1000E_ICR) |= causes & ~E1000E_INT_ASSERTED;
    update_interrupts(nic, false);
}

static uint32_t read_causes(struct e1000e *nic)
{
    uint32_t *icr = e1000e_reg(nic, E1000E_ICR), causes = *icr;
    *icr = 0;
    if (*e1000e_reg(nic, E1000E_CTRL_EXT) & E1000E_EXT_IAME)
        *e1000e_reg(nic, E1000E_IMS) &= ~*e1000e_reg(nic, E1000E_IAM);
    update_interrupts(nic, false);
    return causes;
}

/* --- NVM and PHY --- */

static void build_nvm(struct e1000e *nic)
{
    uint16_t sum = 0;
    for (unsigned i = 0; i < 3; i++)
        nic->nvm[i] = get_le16(nic->mac + 2 * i);
    nic->nvm[0x0a] = 0x026b; /* PCI identifiers come from the NVM */
    nic->nvm[0x0d] = DEVICE_82574L;
    nic->nvm[0x0e] = VENDOR_INTEL;
    for (unsigned i = 0; i < E1000E_NVM_WORDS - 1; i++)
        sum = (uint16_t)(sum + nic->nvm[i]);
    nic->nvm[E1000E_NVM_WORDS - 1] = (uint16_t)(NVM_CHECKSUM - sum);
}

static void read_nvm(struct e1000e *nic, uint32_t value)
{
    uint32_t address = value >> 2 & 0x3fff;
    uint32_t word = address < E1000E_NVM_WORDS ? nic->nvm[address] : 0xffff;
    *e1000e_reg(nic, E1000E_EERD) =
        value & EERD_START ? (value & 0xfffcu) | EERD_DONE | word << 16 : value;
}

static void reset_phy(struct e1000e *nic)
{
    static const uint16_t values[E1000E_PHY_REGISTERS] = {
        [PHY_CONTROL] = 0x1140,               /* negotiation, 1000 Mbit/s, full duplex */
        [1] = 0x796d,                         /* status: link, negotiation complete */
        [2] = 0x0141,                         /* identifier of the 82574's PHY */
        [3] = 0x0cb1,           [4] = 0x0de1, /* what we and the partner can */
        [5] = 0xcde1,           [6] = 0x000f,  [9] = 0x0e00, [10] = 0x7c00,
        [15] = 0x3000,          [17] = 0xac08, /* specific status: link, 1000 Mbit/s, full duplex,
                                                  resolved */
    };
    memcpy(nic->phy, values, sizeof(values));
}

static void access_phy(struct e1000e *nic, uint32_t value)
{
    unsigned index = value >> 16 & 31;
    uint32_t result = (value & ~0xf0000000u) | MDIC_READY;
    bool read_only = index == 1 || index == 2 || index == 3 || index == 5 || index == 10 ||
                     index == 15 || index == 17;
    if ((value >> 21 & 31) != PHY_ADDRESS)
        result |= MDIC_ERROR;
    else if (value & MDIC_READ)
        result = (result & ~0xffffu) | nic->phy[index];
    else if ((value & MDIC_WRITE) && !read_only)
        nic->phy[index] =
            (uint16_t)(index == PHY_CONTROL ? value & ~PHY_CONTROL_SELF_CLEARING : value);
    *e1000e_reg(nic, E1000E_MDIC) = result;
}

/* --- registers --- */

/* What a reset by CTRL.RST leaves. */
static void reset_registers(struct e1000e *nic)
{
    memset(nic->reg, 0, sizeof(nic->reg));
    memset(nic->context, 0, sizeof(nic->context));
    *e1000e_reg(nic, E1000E_STATUS) =
        nic->peer ? E1000E_STATUS_UP : E1000E_STATUS_UP & ~E1000E_STATUS_LINK;
    *e1000e_reg(nic, E1000E_EECD) = E1000E_EECD_PRESENT;
    *e1000e_reg(nic, E1000E_CTRL) = 1 | 1u << 6; /* full duplex, link up */
    *e1000e_reg(nic, E1000E_RAL0) = get_le32(nic->mac);
    *e1000e_reg(nic, E1000E_RAH0) = get_le16(nic->mac + 4) | E1000E_RAH_VALID;
    reset_phy(nic);
    if (!nic->peer)
        nic->phy[1] &= (uint16_t)~0x0024;
    nic->tx_waiting = false;
    net_port_abandon(&nic->port);
    update_interrupts(nic, false);
}

static uint64_t register_read(void *opaque, uint64_t offset, unsigned size)
{
    struct e1000e *nic = opaque;
    uint64_t word = offset / 4;
    if (word >= E1000E_REGISTERS || (offset >= E1000E_STATISTICS && offset < E1000E_STATISTICS_END))
        return 0;
    uint32_t value = word == E1000E_ICR / 4 ? read_causes(nic) : nic->reg[word];
    return (value >> 8 * (offset & 3)) & (size < 4 ? (1u << 8 * size) - 1 : 0xffffffff);
}

static void write_control(struct e1000e *nic, uint32_t value)
{
    if (value & E1000E_CTRL_RST) {
        reset_registers(nic);
        return;
    }
    if (value & E1000E_CTRL_PHY_RST)
        reset_phy(nic);
    *e1000e_reg(nic, E1000E_CTRL) = value & ~E1000E_CTRL_PHY_RST;
}

/* The loop has something to do: transmit, or new buffers for who waits for them. */
static void wake(struct e1000e *nic)
{
    loop_timer_arm(&nic->work, 0);
}

static void write_word(struct e1000e *nic, uint32_t offset, uint32_t value)
{
    uint32_t *reg = &nic->reg[offset / 4];
    switch ((enum e1000e_register)offset) {
    case E1000E_CTRL:
        write_control(nic, value);
        break;
    case E1000E_STATUS:
        break;
    case E1000E_EECD:
        *reg = value | E1000E_EECD_PRESENT;
        break;
    case E1000E_EERD:
        read_nvm(nic, value);
        break;
    case E1000E_MDIC:
        access_phy(nic, value);
        break;
    case E1000E_ICR:
        *reg &= ~value;
        update_interrupts(nic, false);
        break;
    case E1000E_ICS:
        e1000e_raise(nic, value);
        break;
    case E1000E_IMS:
        *reg |= value;
        update_interrupts(nic, false);
        break;
    case E1000E_IMC:
        *e1000e_reg(nic, E1000E_IMS) &= ~value;
        update_interrupts(nic, false);
        break;
    case E1000E_TCTL:
    case E1000E_TDT:
    case E1000E_RCTL:
    case E1000E_RDT:
        *reg = value;
        wake(nic);
        break;
    default:
        *reg = value;
    }
}

static void register_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct e1000e *nic = opaque;
    if (size < 4 || offset % 4 || offset / 4 >= E1000E_REGISTERS)
        return;
    write_word(nic, (uint32_t)offset, (uint32_t)value);
    if (size == 8 && offset / 4 + 1 < E1000E_REGISTERS)
        write_word(nic, (uint32_t)offset + 4, (uint32_t)(value >> 32));
}

static const struct io_ops register_ops = {register_read, register_write};

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct e1000e *nic = container_of(pci, struct e1000e, pci);
    if (ranges_overlap(offset, size, pci->msi_capability, 4) ||
        ranges_overlap(offset, size, pci->msix_capability, 4))
        update_interrupts(nic, true);
}

/* --- life --- */

/* On the loop. */
static void work(void *opaque)
{
    struct e1000e *nic = opaque;
    lock_take(&nic->pci.device.lock);
    e1000e_transmit(nic);
    bool ready = nic->rx_waiting && !nic->quiesced;
    if (ready)
        nic->rx_waiting = false;
    lock_drop(&nic->pci.device.lock);
    if (ready) /* the peer sends at once */
        net_port_ready(&nic->port);
}

static struct err *e1000e_realize(struct device *device)
{
    struct e1000e *nic = to_nic(device);
    struct pci_device *pci = &nic->pci;
    struct loop *loop = nic->loop ? nic->loop : device->env->loop;
    pci_device_identify(pci, VENDOR_INTEL, DEVICE_82574L, PCI_CLASS_ETHERNET, 0, VENDOR_INTEL, 0);
    pci_intx_add(pci);
    pci_msi_add(pci);
    pci_express_add(pci);
    pci_bar_add(pci, REGISTER_BAR, PCI_BAR_MEM32, REGISTER_BAR_SIZE, &register_ops, nic);
    pci_msix_add(pci, MSIX_VECTORS, MSIX_BAR);
    pci->config_written = config_written;
    build_nvm(nic);
    nic->frame = xcalloc(1, NET_FRAME_MAX);
    loop_timer_init(loop, &nic->work, work, nic);
    nic->port.ops = &e1000e_port_ops;
    nic->port.loop = loop;
    if (nic->peer)
        net_port_link(&nic->port, nic->peer);
    return NULL;
}

static void e1000e_quiesce(struct device *device)
{
    struct e1000e *nic = to_nic(device);
    lock_take(&device->lock);
    nic->quiesced = true;
    lock_drop(&device->lock);
}

static void e1000e_resume(struct device *device)
{
    struct e1000e *nic = to_nic(device);
    lock_take(&device->lock);
    nic->quiesced = false;
    wake(nic);
    lock_drop(&device->lock);
}

static void e1000e_reset(struct device *device)
{
    struct e1000e *nic = to_nic(device);
    lock_take(&device->lock);
    pci_device_reset(&nic->pci);
    reset_registers(nic);
    lock_drop(&device->lock);
}

static void e1000e_fini(struct device *device)
{
    struct e1000e *nic = to_nic(device);
    if (nic->port.ops) {
        net_port_close(&nic->port);
        loop_timer_cancel(&nic->work);
    }
    free(nic->frame);
    nic->frame = NULL;
    pci_device_fini(&nic->pci);
}

static const struct state_field fields[] = {
    PCI_DEVICE_STATE(e1000e, pci),
    STATE_U32(2, e1000e, reg),
    STATE_U16(3, e1000e, phy),
    STATE_BYTES(4, e1000e, context),
};

static const struct state_table state = {DEVICE_STATE_TABLE("e1000e", e1000e, fields)};

const struct device_class e1000e_class = {
    .name = "e1000e",
    .description = "Intel 82574L network card",
    .size = sizeof(struct e1000e),
    .state = &state,
    .realize = e1000e_realize,
    .reset = e1000e_reset,
    .quiesce = e1000e_quiesce,
    .resume = e1000e_resume,
    .fini = e1000e_fini,
};
DEVICE_CLASS(e1000e_class);
