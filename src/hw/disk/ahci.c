/*
 * The SATA controller of the ICH9 in AHCI mode (AHCI 1.3.1, section 3.1; ICH9 datasheet 316972,
 * chapter 15): global registers, interrupts, life and state of the device. Ports are in
 * ahci_port.c.
 *
 * Registers are the vCPUs', commands the I/O loop's; the device lock covers both.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/core/env.h"
#include "hw/disk/ahci_internal.h"

#define VENDOR_INTEL 0x8086
#define DEVICE_ICH9_AHCI 0x2922
#define PCI_CLASS_AHCI 0x010601
#define REVISION 2
#define REGISTER_BAR 5
#define BAR_SIZE 0x1000
#define CONFIG_MAP 0x90 /* address map: AHCI */
#define CONFIG_PCS 0x92 /* port control and status */

/* CAP: ports and slots less one, AHCI only, 3 Gbit/s, command list override, NCQ, 64 bits. */
#define CAPABILITIES                                                                               \
    ((AHCI_PORTS - 1) | (AHCI_SLOTS - 1) << 8 | 1u << 18 | 2u << 20 | 1u << 24 | 1u << 30 |        \
     1u << 31)
#define PORTS_IMPLEMENTED ((1u << AHCI_PORTS) - 1)
#define VERSION 0x00010301u

static struct ahci *to_ahci(struct device *device)
{
    return container_of(device, struct ahci, pci.device);
}

void ahci_wake(struct ahci *ahci)
{
    uint64_t one = 1;
    (void)!write(ahci->kick_fd, &one, sizeof(one));
}

/* --- interrupts --- */

/* `again`: what is pending already is told once more (a message says nothing of what stays). */
static void update_interrupts(struct ahci *ahci, bool again)
{
    uint32_t before = again ? 0 : ahci->is;
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        const struct ahci_port *port = &ahci->port[i];
        if (ahci_port_read(port, AHCI_PxIS) & port->ie)
            ahci->is |= 1u << i;
    }
    bool wanted = ahci->is && (ahci->ghc & AHCI_GHC_IE);
    bool message = pci_msi_enabled(&ahci->pci);
    pci_intx_set(&ahci->pci, wanted && !message);
    if (wanted && message && (ahci->is & ~before))
        pci_msi_notify(&ahci->pci);
}

void ahci_interrupts(struct ahci *ahci)
{
    update_interrupts(ahci, false);
}

/* --- reset --- */

static void reset_registers(struct ahci *ahci)
{
    ahci->resetting = false;
    ahci->ghc = AHCI_GHC_AE;
    ahci->is = 0;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        ahci_port_reset(&ahci->port[i]);
    update_interrupts(ahci, false);
}

void ahci_ended(struct ahci_port *port)
{
    struct ahci *ahci = port->ahci;
    ahci->in_flight--;
    if (!--port->in_flight)
        ahci_port_went_idle(port);
    if (!ahci->in_flight) {
        if (ahci->resetting)
            reset_registers(ahci);
        pthread_cond_broadcast(&ahci->idle);
    }
    ahci_port_serve(port);
}

static void write_ghc(struct ahci *ahci, uint32_t value)
{
    if (ahci->resetting)
        return; /* until GHC.HR reads 0 */
    ahci->ghc = AHCI_GHC_AE | (value & AHCI_GHC_IE);
    if (!(value & AHCI_GHC_HR)) {
        update_interrupts(ahci, true);
        return;
    }
    ahci->resetting = true;
    if (!ahci->in_flight)
        reset_registers(ahci);
}

/* --- registers --- */

static uint32_t read_word(struct ahci *ahci, unsigned offset)
{
    if (offset >= AHCI_PORT0) {
        unsigned index = (offset - AHCI_PORT0) / AHCI_PORT_SIZE;
        return index < AHCI_PORTS ? ahci_port_read(&ahci->port[index], offset % AHCI_PORT_SIZE) : 0;
    }
    switch ((enum ahci_register)offset) {
    case AHCI_CAP:
        return CAPABILITIES;
    case AHCI_GHC:
        return ahci->ghc | (ahci->resetting ? AHCI_GHC_HR : 0);
    case AHCI_IS:
        return ahci->is;
    case AHCI_PI:
        return PORTS_IMPLEMENTED;
    case AHCI_VS:
        return VERSION;
    default:
        return 0;
    }
}

static void write_word(struct ahci *ahci, unsigned offset, uint32_t value)
{
    if (offset >= AHCI_PORT0) {
        unsigned index = (offset - AHCI_PORT0) / AHCI_PORT_SIZE;
        if (index >= AHCI_PORTS)
            return;
        ahci_port_write(&ahci->port[index], offset % AHCI_PORT_SIZE, value);
        update_interrupts(ahci, false);
        if (ahci->port[index].ci)
            ahci_wake(ahci);
    } else if (offset == AHCI_GHC) {
        write_ghc(ahci, value);
    } else if (offset == AHCI_IS) {
        ahci->is &= ~value;
        update_interrupts(ahci, true);
    }
}

static uint64_t register_read(void *opaque, uint64_t offset, unsigned size)
{
    unsigned at = (unsigned)offset & ~3u;
    uint64_t value = read_word(opaque, at);
    if (size == 8)
        value |= (uint64_t)read_word(opaque, at + 4) << 32;
    value >>= 8 * (offset & 3);
    return size < 8 ? value & ((1ull << 8 * size) - 1) : value;
}

static void register_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    if (size < 4 || offset % 4)
        return;
    write_word(opaque, (unsigned)offset, (uint32_t)value);
    if (size == 8)
        write_word(opaque, (unsigned)offset + 4, (uint32_t)(value >> 32));
}

static const struct io_ops register_ops = {register_read, register_write};

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    /* The message may have been switched on or off. */
    if (ranges_overlap(offset, size, pci->msi_capability, 4))
        update_interrupts(container_of(pci, struct ahci, pci), true);
}

/* --- the I/O loop --- */

static void kicked(void *opaque, uint32_t events)
{
    struct ahci *ahci = opaque;
    uint64_t count;
    (void)!read(ahci->kick_fd, &count, sizeof(count));
    lock_take(&ahci->pci.device.lock);
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        ahci_port_serve(&ahci->port[i]);
    lock_drop(&ahci->pci.device.lock);
    /* The kernel copies cached data right here: no vCPU need wait for that. */
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        if (ahci->port[i].queue)
            block_flush_submissions(ahci->port[i].queue);
    }
}

static void batch_done(void *opaque)
{
    struct ahci_port *port = opaque;
    lock_take(ahci_lock(port));
    ahci_port_tell_finished(port);
    lock_drop(ahci_lock(port));
}

/* --- life --- */

static struct err *build_port(struct ahci *ahci, struct ahci_port *port)
{
    if (!port->block)
        return NULL;
    if (port->serial)
        memcpy(port->serial_text, port->serial, strnlen(port->serial, ATA_SERIAL_MAX));
    unsigned commands = port->optical ? 1 : 1 + AHCI_SLOTS;
    /* Zero pages: only the commands that are in flight together ever cost memory. */
    port->command = xcalloc(commands, sizeof(*port->command));
    for (unsigned i = 0; i < commands; i++)
        port->command[i].port = port;
    if (port->optical) {
        port->task = xcalloc(1, sizeof(*port->task));
        port->unit.block = port->block;
        port->unit.id = port->id;
        port->unit.optical = true;
        scsi_unit_init(&port->unit);
    } else {
        port->list = xcalloc(1, ATA_LIST_SIZE);
        block_get_info(port->block, &port->disk.info);
    }
    TRY(block_queue_new(port->block, ahci->loop, &port->queue));
    block_queue_on_batch(port->queue, batch_done, port);
    return NULL;
}

static void build_pci(struct ahci *ahci)
{
    struct pci_device *pci = &ahci->pci;
    pci_device_identify(pci, VENDOR_INTEL, DEVICE_ICH9_AHCI, PCI_CLASS_AHCI, REVISION, 0x1af4,
                        0x1100);
    pci_intx_add(pci);
    pci_msi_add(pci);
    pci_bar_add(pci, REGISTER_BAR, PCI_BAR_MEM32, BAR_SIZE, &register_ops, ahci);
    pci->config[CONFIG_MAP] = 0x40;
    put_le16(pci->writable + CONFIG_PCS, PORTS_IMPLEMENTED);
    pci->config_written = config_written;
}

static struct err *ahci_realize(struct device *device)
{
    struct ahci *ahci = to_ahci(device);
    pthread_cond_init(&ahci->idle, NULL);
    ahci->loop = ahci->io_loop ? ahci->io_loop : device->env->loop;
    ahci->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ahci->kick_fd < 0)
        return err_errno(errno, "cannot create an event descriptor");
    TRY(loop_fd_add(ahci->loop, &ahci->kick_watch, ahci->kick_fd, EPOLLIN, kicked, ahci));
    build_pci(ahci);
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        ahci->port[i].ahci = ahci;
        ahci->port[i].index = i;
        TRY(err_wrap(build_port(ahci, &ahci->port[i]), "port %u", i));
    }
    return NULL;
}

/* Nothing is in flight afterwards. The lock is dropped meanwhile. */
static void drain(struct ahci *ahci)
{
    struct lock *lock = &ahci->pci.device.lock;
    if (ahci->in_flight && loop_is_mine(ahci->loop)) {
        lock_drop(lock);
        for (unsigned i = 0; i < AHCI_PORTS; i++) {
            if (ahci->port[i].queue)
                block_drain(ahci->port[i].queue);
        }
        lock_take(lock);
    }
    while (ahci->in_flight)
        pthread_cond_wait(&ahci->idle, &lock->mutex);
    /* The last batch may not have come to it yet. */
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        ahci_port_tell_finished(&ahci->port[i]);
}

static void ahci_quiesce(struct device *device)
{
    struct ahci *ahci = to_ahci(device);
    lock_take(&device->lock);
    ahci->quiesced = true;
    drain(ahci);
    lock_drop(&device->lock);
}

static void ahci_resume(struct device *device)
{
    struct ahci *ahci = to_ahci(device);
    lock_take(&device->lock);
    ahci->quiesced = false;
    ahci_wake(ahci);
    lock_drop(&device->lock);
}

static void ahci_reset(struct device *device)
{
    struct ahci *ahci = to_ahci(device);
    bool was_quiesced = ahci->quiesced;
    lock_take(&device->lock);
    ahci->quiesced = true;
    drain(ahci);
    ahci->quiesced = was_quiesced;
    pci_device_reset(&ahci->pci);
    reset_registers(ahci);
    lock_drop(&device->lock);
}

static void ahci_fini(struct device *device)
{
    struct ahci *ahci = to_ahci(device);
    if (ahci->loop) {
        loop_fd_remove(&ahci->kick_watch);
        fd_cleanup(&ahci->kick_fd);
        pthread_cond_destroy(&ahci->idle);
    }
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct ahci_port *port = &ahci->port[i];
        block_queue_free(port->queue);
        free(port->command);
        free(port->list);
        free(port->task);
        port->queue = NULL;
        port->command = NULL;
        port->list = NULL;
        port->task = NULL;
    }
    ahci->loop = NULL;
    pci_device_fini(&ahci->pci);
}

void ahci_resized(struct ahci *ahci, unsigned port)
{
    lock_take(&ahci->pci.device.lock);
    block_get_info(ahci->port[port].block, &ahci->port[port].disk.info);
    lock_drop(&ahci->pci.device.lock);
}

void ahci_medium_changed(struct ahci *ahci, unsigned port, bool tray_open)
{
    lock_take(&ahci->pci.device.lock);
    scsi_unit_medium_changed(&ahci->port[port].unit, tray_open);
    lock_drop(&ahci->pci.device.lock);
}

void ahci_tray(struct ahci *ahci, unsigned port, bool *locked, bool *open)
{
    lock_take(&ahci->pci.device.lock);
    *locked = ahci->port[port].unit.locked;
    *open = ahci->port[port].unit.tray_open;
    lock_drop(&ahci->pci.device.lock);
}

void ahci_request_eject(struct ahci *ahci, unsigned port)
{
    lock_take(&ahci->pci.device.lock);
    scsi_unit_request_eject(&ahci->port[port].unit);
    lock_drop(&ahci->pci.device.lock);
}

/* --- state: saved while quiesced, so no command is in flight --- */

static struct err *check_port(const void *staged)
{
    const struct ahci_port *port = staged;
    if (port->last_slot >= AHCI_SLOTS)
        return err_new("slot %u", port->last_slot);
    if (port->clb % 1024 || port->fb % 256)
        return err_new("a command list at 0x%llx, FISes at 0x%llx", (unsigned long long)port->clb,
                       (unsigned long long)port->fb);
    return NULL;
}

static void post_load(void *object)
{
    struct ahci *ahci = object;
    ahci->ghc = AHCI_GHC_AE | (ahci->ghc & AHCI_GHC_IE);
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct ahci_port *port = &ahci->port[i];
        port->stopping = port->link_wanted = false;
        port->finished = 0;
        port->cmd &= ~AHCI_CMD_CR;
        if (port->cmd & AHCI_CMD_ST)
            port->cmd |= AHCI_CMD_CR;
    }
    /* The interrupt controller restores the level of its inputs by itself, messages are edges. */
}

static const struct state_field disk_fields[] = {
    STATE_U8(1, ata_disk, multiple),      STATE_U8(2, ata_disk, transfer_mode),
    STATE_BOOL(3, ata_disk, write_cache), STATE_BOOL(4, ata_disk, smart),
    STATE_BOOL(5, ata_disk, failed),      STATE_U8(6, ata_disk, failed_tag),
    STATE_U8(7, ata_disk, failed_status), STATE_U8(8, ata_disk, failed_error),
    STATE_U64(9, ata_disk, failed_lba),
};
static const struct state_table disk_state = {
    DEVICE_STATE_TABLE("ata-disk", ata_disk, disk_fields)};

static const struct state_field port_fields[] = {
    STATE_U64(1, ahci_port, clb),
    STATE_U64(2, ahci_port, fb),
    STATE_U32(3, ahci_port, is),
    STATE_U32(4, ahci_port, ie),
    STATE_U32(5, ahci_port, cmd),
    STATE_U32(6, ahci_port, tfd),
    STATE_U32(7, ahci_port, sig),
    STATE_U32(8, ahci_port, sctl),
    STATE_U32(9, ahci_port, serr),
    STATE_U32(10, ahci_port, sact),
    STATE_U32(11, ahci_port, ci),
    STATE_U8(12, ahci_port, last_slot),
    STATE_BOOL(13, ahci_port, halted),
    STATE_BOOL(14, ahci_port, signature),
    STATE_BOOL(15, ahci_port, srst),
    STATE_STRUCT(16, ahci_port, disk, &disk_state),
    STATE_STRUCT(17, ahci_port, unit, &scsi_unit_state),
    STATE_BYTES(18, ahci_port, sense),
};
static const struct state_table port_state = {
    DEVICE_STATE_TABLE("ahci-port", ahci_port, port_fields),
    .check = check_port,
};

static const struct state_field fields[] = {
    PCI_DEVICE_STATE(ahci, pci),
    STATE_U32(2, ahci, ghc),
    STATE_U32(3, ahci, is),
    STATE_STRUCT(4, ahci, port, &port_state),
};

const struct state_table ahci_state = {
    DEVICE_STATE_TABLE("ahci", ahci, fields),
    .post_load = post_load,
};

const struct device_class ahci_class = {
    .name = "ahci",
    .description = "ICH9 SATA controller with disks and optical drives",
    .size = sizeof(struct ahci),
    .state = &ahci_state,
    .realize = ahci_realize,
    .reset = ahci_reset,
    .quiesce = ahci_quiesce,
    .resume = ahci_resume,
    .fini = ahci_fini,
};
DEVICE_CLASS(ahci_class);
