/*
 * PCI Express functions: configuration space, BARs, MSI, MSI-X (PCIe base specification 4.0 chapter
 * 7, PCI local bus 3.0 chapter 6).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_PCI_PCI_H
#define TENON_HW_PCI_PCI_H

#include "base/base.h"
#include "hw/core/bus.h"
#include "hw/core/device.h"

#define PCI_CONFIG_SIZE 4096
#define PCI_BARS 6
#define PCI_MSIX_MAX 2048

/* Standard configuration offsets. */
enum pci_config_offset {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09, /* three bytes: interface, subclass, class */
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR = 0x2c,
    PCI_SUBSYSTEM_ID = 0x2e,
    PCI_ROM = 0x30,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
};

#define PCI_COMMAND_IO 0x0001
#define PCI_COMMAND_MEMORY 0x0002
#define PCI_COMMAND_MASTER 0x0004
#define PCI_COMMAND_INTX_DISABLE 0x0400
#define PCI_STATUS_INTX 0x0008
#define PCI_STATUS_CAPABILITIES 0x0010

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

struct pci_bar {
    uint8_t kind; /* enum pci_bar_kind */
    bool prefetchable;
    uint64_t size;                    /* power of two */
    struct io_region region;          /* mapped while the guest enabled decoding */
    const struct gmem_region *memory; /* the guest reaches these bytes without the ops; or NULL */
};

struct pci_msix_vector {
    uint64_t address;
    uint32_t data;
    uint32_t control; /* bit 0: masked */
    bool pending;
};

struct pci_bus;

/* First member of every PCI device; itself starts with struct device. */
struct pci_device {
    struct device device;
    struct pci_bus *bus; /* set by pci_bus_attach */
    uint8_t devfn;

    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE]; /* a 1 bit: the guest may change it */
    uint8_t clear_on_1[PCI_CONFIG_SIZE];
    uint16_t last_capability; /* offset of the newest capability, 0 at first */
    uint16_t next_free;       /* where the next capability goes */

    struct pci_bar bar[PCI_BARS];
    struct pci_bar rom; /* option ROM; kind PCI_BAR_NONE: there is none */

    uint16_t msi_capability;  /* offset, 0 without MSI */
    uint16_t msix_capability; /* offset, 0 without MSI-X */
    uint32_t msix_count;
    struct pci_msix_vector *msix; /* owned */
    bool intx_level;              /* what the device asks for */
    bool intx_driven;             /* what reaches the bus */

    uint8_t saved[PCI_CONFIG_SIZE]; /* the guest's bits of config, while saving and loading */

    /* Optional, under the device lock: the guest wrote [offset, offset+size) of configuration
     * space. */
    void (*config_written)(struct pci_device *pci, unsigned offset, unsigned size);
    /* Optional: the device answers its own vendor capability (virtio's configuration window). */
    void (*config_read)(struct pci_device *pci, unsigned offset, unsigned size);
    /* Optional, under the device lock: a vector's mask or message changed (irqfd users). */
    void (*msix_changed)(struct pci_device *pci, unsigned vector);
};

/* Set-up, before realize ends. Writes the identity fields. `class_code` is 0xCCSSPP. */
void pci_device_identify(struct pci_device *pci, uint16_t vendor, uint16_t device,
                         uint32_t class_code, uint8_t revision, uint16_t subsystem_vendor,
                         uint16_t subsystem);
/* Declares a BAR; MEM64 takes two slots. The ops run under the device lock. */
void pci_bar_add(struct pci_device *pci, unsigned index, enum pci_bar_kind kind, uint64_t size,
                 const struct io_ops *ops, void *opaque);
/*
 * The BAR, just declared, is this movable memory of the same size: its ops answer only while the
 * memory is not yet in its place.
 */
void pci_bar_back(struct pci_device *pci, unsigned index, const struct gmem_region *memory);
/* Declares an option ROM of `size` bytes, a power of two from 2 KiB on. */
void pci_rom_add(struct pci_device *pci, uint64_t size, const struct io_ops *ops, void *opaque);
/* The function has a legacy interrupt, INTA#. */
void pci_intx_add(struct pci_device *pci);
/* Appends a capability of `len` bytes, header included; returns its offset. Read-only at first. */
unsigned pci_capability_add(struct pci_device *pci, uint8_t id, unsigned len);
/* Reads and writes a BAR's address, 0 when none is set. With the device lock held, or before it
 * runs. */
uint64_t pci_bar_address(const struct pci_device *pci, unsigned index);
void pci_bar_set_address(struct pci_device *pci, unsigned index, uint64_t address);
/* Maps and unmaps BARs as the command register and the addresses say. */
void pci_bars_update(struct pci_device *pci);
/*
 * MSI-X with its table and pending bits in BAR `bar`: a BAR that this call declares (MEM32, the
 * size it needs, at least one page), so devices keep it apart from their registers.
 */
void pci_msix_add(struct pci_device *pci, unsigned count, unsigned bar);
/* PCI Express endpoint capability; every function on a q35 or micro bus has one. */
void pci_express_add(struct pci_device *pci);

/* MSI with one message. Such a function uses INTx while the guest has not enabled it. */
void pci_msi_add(struct pci_device *pci);
bool pci_msi_enabled(const struct pci_device *pci);
/* With the device lock held: sends the message, if it is enabled. */
void pci_msi_notify(struct pci_device *pci);

/* Any thread, with the device lock held: sends the vector, or leaves it pending while masked. */
void pci_msix_notify(struct pci_device *pci, unsigned vector);
/* Has the guest enabled MSI-X? Otherwise the device uses INTx. */
bool pci_msix_enabled(const struct pci_device *pci);
/* Legacy interrupt INTA#, level; honours the command register's disable bit. */
void pci_intx_set(struct pci_device *pci, bool level);
/* May the device reach memory (bus master)? */
bool pci_master_enabled(const struct pci_device *pci);

/* The state of everything above; a device's table begins with PCI_DEVICE_STATE(x, pci). */
extern const struct state_table pci_device_state;
#define PCI_DEVICE_STATE(struct_, member_) STATE_STRUCT(1, struct_, member_, &pci_device_state)
/*
 * To be called from the device's reset and fini. post_load is called by pci_device_state itself,
 * before the device's own; calling it again does no harm.
 */
void pci_device_reset(struct pci_device *pci);
void pci_device_fini(struct pci_device *pci);
void pci_device_post_load(struct pci_device *pci);

/* Where BARs may go, and how INTx lines are wired. */
struct pci_bus_config {
    struct hw_env *env;
    uint64_t ecam_base;           /* 256 buses of 1 MiB; 0: no ECAM */
    uint16_t ecam_buses;          /* how many buses it covers: 1..256 */
    bool cf8;                     /* also ports 0xcf8/0xcfc */
    const struct io_ops *cf9_ops; /* with cf8: byte accesses to port 0xcf9 (hw/chipset/reset.h) */
    void *cf9_opaque;
    uint16_t io_base, io_size; /* where I/O BARs go; size 0: nowhere */
    uint64_t mmio32_base, mmio32_size;
    uint64_t mmio64_base, mmio64_size;
    struct irq_line intx[4]; /* INTA..INTD after swizzling by slot: line (slot + pin) % 4 */
};

struct err *pci_bus_new(const struct pci_bus_config *config, struct pci_bus **bus);
/* All devices have been detached. */
void pci_bus_free(struct pci_bus *bus);
/* Puts a function at `devfn` (slot << 3 | function); -1: the first free slot. Before or at realize.
 */
struct err *pci_bus_attach(struct pci_bus *bus, struct pci_device *pci, int devfn);
/* vCPUs are stopped, or the guest has been told to let go. */
void pci_bus_detach(struct pci_device *pci);
/*
 * Assigns every BAR an address, as firmware would, and enables decoding: a directly booted kernel
 * finds a finished bus. Again after each reset of the machine, which clears all BARs.
 */
struct err *pci_bus_assign(struct pci_bus *bus);
/* Runs `fn` under the bus's lock, which also covers every change of its interrupt lines. */
void pci_bus_locked(struct pci_bus *bus, void (*fn)(void *opaque), void *opaque);
/* The function at `devfn`, or NULL. */
struct pci_device *pci_bus_device(struct pci_bus *bus, uint8_t devfn);
/* Moves the memory window on configuration space; 0: there is none. Any thread. */
void pci_bus_set_ecam(struct pci_bus *bus, uint64_t base);
/* Port 0xcf8's register, which the host bridge saves for the bus. */
uint32_t pci_bus_config_address(struct pci_bus *bus);
void pci_bus_set_config_address(struct pci_bus *bus, uint32_t address);

/*
 * Any thread: an access to configuration space as a vCPU makes it, of 1, 2 or 4 bytes at any
 * offset. What lies beyond the 4096 bytes reads all ones. Takes the device lock.
 */
uint32_t pci_config_read(struct pci_device *pci, unsigned offset, unsigned size);
void pci_config_write(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value);

#endif
