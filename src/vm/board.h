/*
 * Boards: which chipset devices a machine has, where they are and how their interrupts run; and
 * what every board has alike: guest RAM, the PCI bus, virtio devices for the configured disks, nets
 * and consoles, the firmware tables.
 *
 * Built and freed on the control loop, while no vCPU and no I/O loop runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_BOARD_H
#define TENON_VM_BOARD_H

#include "block/block.h"
#include "hw/chipset/hpet.h"
#include "hw/chipset/ioapic.h"
#include "hw/chipset/isa_irq.h"
#include "hw/chipset/pic.h"
#include "hw/core/device.h"
#include "hw/pci/pci.h"
#include "net/net.h"
#include "share/stream.h"
#include "vm/boot/boot.h"
#include "vm/config.h"

struct board;

/* One constant table a board. */
struct board_kind {
    const char *name;
    uint64_t low_ram_max; /* RAM below the PCI windows */
    bool video_hole;      /* no RAM from 640 KiB to 768 KiB */
    uint64_t ecam_base;
    unsigned ecam_buses;
    uint64_t mmio32_base, mmio32_size;
    bool cf8;      /* configuration space by ports 0xcf8/0xcfc as well */
    bool pio_bars; /* has room for I/O BARs */
    bool reduced;  /* hardware-reduced ACPI */
    /* Creates the interrupt controllers and everything before the PCI bus. */
    struct err *(*build_core)(struct board *board, struct pci_bus_config *pci);
    /* Adds the rest, when the bus is there. */
    struct err *(*build_chipset)(struct board *board);
    void (*power_button)(struct board *board);
    bool (*asleep)(struct board *board); /* NULL: the board has no S3 */
};

extern const struct board_kind board_micro, board_q35;

/* Filled by the VM before board_build(). */
struct board_wiring {
    struct loop *io_loop; /* block and net I/O */
    void *opaque;         /* of the two below */
    /* struct ioapic's and struct pic's outputs. */
    void (*ioapic_route)(void *opaque, unsigned pin, uint64_t address, uint32_t data, bool level,
                         bool masked);
    void (*extint)(void *opaque, bool level);
};

struct board {
    const struct board_kind *kind;
    struct vm_config *config; /* borrowed; descriptors are taken out of it */
    struct hw_env *env;       /* borrowed */
    struct board_wiring wiring;
    uint64_t low_end, high_end; /* as in struct boot_request */
    uint64_t mmio64_base, mmio64_size;

    struct list devices; /* in order of building: also of reset, save and load */
    struct pci_bus *bus;
    struct isa_irqs isa;
    struct ioapic *ioapic;
    struct pic *pic;            /* q35 */
    struct hpet *hpet;          /* q35 */
    struct device *power;       /* who has the power button: pm or ged */
    struct device *rtc;         /* q35 */
    struct device *lpc;         /* q35, until it is realized */
    struct host_bridge *bridge; /* q35 */
    struct i8042 *i8042;        /* q35 */
    struct vga *vga;            /* NULL: no screen, and nobody sees the keyboard */
    struct xhci *xhci;          /* NULL: no USB */
    struct usb_hid *usb_keyboard, *usb_tablet;
    struct key_player *keys;               /* NULL: no keyboard */
    uint8_t buttons;                       /* of mouse or tablet, enum mouse_button */
    struct tpm_crb *tpm;                   /* NULL: none */
    struct screen_console *screen_console; /* NULL: none */
    struct virtio_console *agent;          /* NULL: none */

    /* With firmware. */
    struct fw_cfg *fw_cfg;
    uint64_t vars_base; /* the variable store's flash memory; size 0: there is none */
    uint32_t vars_size;
    uint64_t tables_ecam;          /* what the ACPI tables in fw_cfg say of ECAM */
    bool started;                  /* it has been reset before */
    char *boot_path[VM_DISKS_MAX]; /* owned: what firmware calls each disk; NULL: cannot boot */

    /* The host's side, freed after the devices. */
    struct stream *stream[VM_CONSOLES_MAX], *agent_stream;
    struct block *block[VM_DISKS_MAX];
    struct net_port *port[VM_NETS_MAX][VM_QUEUES_MAX];
};

const struct board_kind *board_kind(enum vm_board board);

/*
 * Works out the address map and adds RAM to env->gmem. `phys_bits` is the width of a guest-physical
 * address, which limits RAM and the 64-bit PCI window. `board` is zeroed memory; board_fini is due
 * after an error as well.
 */
struct err *board_init(struct board *board, struct vm_config *config, struct hw_env *env,
                       unsigned phys_bits);
struct err *board_build(struct board *board, const struct board_wiring *wiring);
/* Frees the devices, then the host's side. The I/O loop has ended. */
void board_fini(struct board *board);

/*
 * To power-on state, for the first start and for each reset: devices, BAR addresses, firmware
 * tables. The vCPUs are stopped and the devices quiesced.
 */
struct err *board_reset(struct board *board);
/*
 * Out of S3: all devices to power-on state but those that stayed awake to wake the rest; BAR
 * addresses. Memory, firmware tables included, is as it was. The rest as board_reset().
 */
struct err *board_wake(struct board *board);
/* The guest has chosen S3, and nothing has woken it yet. */
bool board_asleep(struct board *board);
/* Where its firmware would jump at the end of S3; 0 when the guest left no address. */
uint32_t board_waking_vector(struct board *board);
void board_quiesce(struct board *board);
void board_resume(struct board *board);
void board_power_button(struct board *board);
/* Fills memory map, RAM limits and root pointer. */
void board_boot_request(const struct board *board, struct boot_request *request);
/* The local APIC's interrupt acknowledge cycle. */
uint8_t board_extint_ack(struct board *board);

/* For the boards' own files: puts a new device into the list, then realizes it. */
struct err *board_add(struct board *board, struct device *device);
/* The same for a PCI function at `devfn` (-1: the first free slot). */
struct err *board_add_pci(struct board *board, struct pci_device *pci, int devfn);
/* The serial ports and test devices that the configuration wants. */
struct err *board_add_ports(struct board *board);

/* board_screen.c: the VGA adapter, if the VM has one, and the console that shows it. */
struct err *board_add_screen(struct board *board);
/* Before the devices. */
void board_fini_screen(struct board *board);
/* board_usb.c: the controller, if the VM has one, with what is plugged in but disks. */
struct err *board_add_usb(struct board *board);
struct err *board_add_usb_disk(struct board *board, unsigned disk);
/* A person's keyboard and pointer: those that the guest uses, if it has several. */
void board_key(struct board *board, uint8_t key, bool down);
/* To a place on the screen, see USB_TABLET_RANGE; negative: as it is. False: there is no tablet. */
bool board_point(struct board *board, int x, int y);
/* By a distance. */
void board_move(struct board *board, int x, int y);
void board_buttons(struct board *board, uint8_t buttons, int wheel);
/* board_virtio.c */
struct err *board_add_virtio(struct board *board);
/* board_tables.c: ACPI, SMBIOS and the reset vector into guest memory. */
struct err *board_load_tables(struct board *board);
struct acpi_config;
struct smbios_config;
void board_describe_acpi(const struct board *board, struct acpi_config *config);
void board_describe_smbios(const struct board *board, struct smbios_config *config);

/* How Open Firmware would call a device on the root bus: "/pci@i0cf8/scsi@3/disk@0,0". */
char *board_boot_path(const struct pci_device *pci, const char *kind, const char *unit);

/* board_firmware.c: without firmware, nothing. Its memory, with contents, for board_init(). */
struct err *board_add_firmware_memory(struct board *board);
/* Its devices, when all others are there. */
struct err *board_add_firmware(struct board *board);
/* At each reset of the machine, behind its devices'. */
void board_firmware_reset(struct board *board);
/* Firmware starts the machine, and sets up what otherwise the board does. */
static inline bool board_has_firmware(const struct board *board)
{
    return board->config->firmware != NULL;
}
/* PS/2 keyboard and mouse. OVMF waits for seconds when no keyboard answers: its PCs have one. */
static inline bool board_has_ps2(const struct board *board)
{
    return !board->kind->reduced && (board->config->vga || board_has_firmware(board));
}

#endif
