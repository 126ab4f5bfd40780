/*
 * Intel's 82574L network card (datasheet 82574, revision 3.4): one pair of queues, legacy, context,
 * data and extended descriptors, checksum offload and TSO, MSI-X. Its peer is a network port.
 *
 * The builder sets the fields of the first part, then calls device_realize(), which links the port.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_NIC_E1000E_H
#define TENON_HW_NIC_E1000E_H

#include "base/log.h"
#include "hw/pci/pci.h"
#include "net/net.h"

#define E1000E_REGISTERS 0x1800 /* words: 24 KiB */
#define E1000E_PHY_REGISTERS 32
#define E1000E_NVM_WORDS 64

struct e1000e {
    struct pci_device pci;

    /* Set before realize. */
    uint8_t mac[6];
    struct loop *loop;     /* NULL: env->loop */
    struct net_port *peer; /* on that loop; borrowed; NULL: nothing is plugged in */

    /* What the driver wrote, as it reads it; those that do something are named in e1000e.c. */
    uint32_t reg[E1000E_REGISTERS];
    uint16_t phy[E1000E_PHY_REGISTERS];
    uint8_t context[16]; /* the last context descriptor */

    /* The device's own. */
    uint16_t nvm[E1000E_NVM_WORDS];
    struct net_port port;
    struct loop_timer work; /* transmits, and wakes the peer, on the loop */
    uint8_t *frame;         /* owned: a frame behind its net header, within one call */
    uint32_t frame_len;
    bool tx_waiting, rx_waiting, quiesced;
    struct log_limit complaints;
};

extern const struct device_class e1000e_class;

#endif
