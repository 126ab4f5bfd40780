/*
 * What the files of the 82574L share: registers and their bits (chapter 10 of the datasheet).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_NIC_E1000E_INTERNAL_H
#define TENON_HW_NIC_E1000E_INTERNAL_H

#include "hw/core/env.h"
#include "hw/nic/e1000e.h"
#include "net/core/hdr.h"

enum e1000e_register {
    E1000E_CTRL = 0x0000,
    E1000E_STATUS = 0x0008,
    E1000E_EECD = 0x0010,
    E1000E_EERD = 0x0014,
    E1000E_CTRL_EXT = 0x0018,
    E1000E_MDIC = 0x0020,
    E1000E_ICR = 0x00c0,
    E1000E_ICS = 0x00c8,
    E1000E_IMS = 0x00d0,
    E1000E_IMC = 0x00d8,
    E1000E_EIAC = 0x00dc,
    E1000E_IAM = 0x00e0,
    E1000E_IVAR = 0x00e4,
    E1000E_RCTL = 0x0100,
    E1000E_TCTL = 0x0400,
    E1000E_RDBAL = 0x2800,
    E1000E_RDBAH = 0x2804,
    E1000E_RDLEN = 0x2808,
    E1000E_RDH = 0x2810,
    E1000E_RDT = 0x2818,
    E1000E_TDBAL = 0x3800,
    E1000E_TDBAH = 0x3804,
    E1000E_TDLEN = 0x3808,
    E1000E_TDH = 0x3810,
    E1000E_TDT = 0x3818,
    E1000E_STATISTICS = 0x4000, /* to 0x4fff: cleared by reads, and nothing is counted */
    E1000E_STATISTICS_END = 0x5000,
    E1000E_RFCTL = 0x5008,
    E1000E_MTA = 0x5200,
    E1000E_RAL0 = 0x5400,
    E1000E_RAH0 = 0x5404,
    E1000E_MRQC = 0x5818,
    E1000E_SWSM = 0x5b50,
};

#define E1000E_CTRL_RST (1u << 26)
#define E1000E_CTRL_PHY_RST (1u << 31)
#define E1000E_STATUS_UP 0x00080083u /* full duplex, link up, 1000 Mbit/s, GIO master */
#define E1000E_STATUS_LINK 0x2u
#define E1000E_EECD_PRESENT 0x00000300u /* NVM present, auto-read done */
#define E1000E_EXT_EIAME (1u << 24)
#define E1000E_EXT_IAME (1u << 27)
#define E1000E_INT_TXDW (1u << 0)
#define E1000E_INT_LSC (1u << 2)
#define E1000E_INT_RXT0 (1u << 7)
#define E1000E_INT_RXQ0 (1u << 20)
#define E1000E_INT_TXQ0 (1u << 22)
#define E1000E_INT_OTHER (1u << 24)
#define E1000E_INT_ASSERTED (1u << 31)
#define E1000E_RCTL_EN (1u << 1)
#define E1000E_RCTL_UPE (1u << 3)
#define E1000E_RCTL_MPE (1u << 4)
#define E1000E_RCTL_LPE (1u << 5)
#define E1000E_RCTL_BAM (1u << 15)
#define E1000E_RCTL_BSEX (1u << 25)
#define E1000E_RCTL_SECRC (1u << 26)
#define E1000E_TCTL_EN (1u << 1)
#define E1000E_RFCTL_EXTEN (1u << 15)
#define E1000E_RAH_VALID (1u << 31)
#define E1000E_ADDRESSES 16u
#define E1000E_DESCRIPTOR 16u

static inline uint32_t *e1000e_reg(struct e1000e *nic, enum e1000e_register offset)
{
    return &nic->reg[offset / 4];
}

/* e1000e.c: causes of interrupts. Device lock. */
void e1000e_raise(struct e1000e *nic, uint32_t causes);
/* e1000e_ring.c */
void e1000e_transmit(struct e1000e *nic);
extern const struct net_port_ops e1000e_port_ops;

#endif
