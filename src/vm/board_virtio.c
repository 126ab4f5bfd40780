/*
 * The disks, nets, consoles and rng that a VM's configuration asks for, with their back ends.
 *
 * Disks and nets run on the I/O loop; consoles and rng, which move little, on the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "block/live.h"
#include "hw/disk/ahci.h"
#include "hw/disk/nvme.h"
#include "hw/nic/e1000e.h"
#include "hw/virtio/virtio_blk.h"
#include "hw/virtio/virtio_console.h"
#include "hw/virtio/virtio_net.h"
#include "hw/virtio/virtio_rng.h"
#include "hw/virtio/virtio_scsi.h"
#include "vm/board.h"

static struct err *limit(struct block *block, const struct vm_disk *disk)
{
    const struct filter_limits limits = {
        .ops = {disk->iops, disk->iops_read, disk->iops_write},
        .bytes = {disk->bandwidth, disk->bandwidth_read, disk->bandwidth_write},
        .burst_ops = disk->burst_ops,
        .burst_bytes = disk->burst,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(limits.ops); i++) {
        if (limits.ops[i] || limits.bytes[i])
            return block_limit(block, &limits);
    }
    return NULL;
}

static struct err *open_block(struct board *board, unsigned index)
{
    struct vm_disk *disk = &board->config->disk[index];
    const struct block_options options = {
        .id = disk->id,
        .fd = disk->fd,
        .readonly = disk->readonly,
        .cache = (enum block_cache)disk->cache,
        .discard = disk->discard,
        .logical_block = disk->logical_block,
        .hold_errors = disk->on_error == VM_ON_ERROR_STOP,
        .formats = disk->format,
        .backing_fds = disk->backing_fd,
    };

    bool optical = disk->media == VM_MEDIA_CDROM;
    if (disk->fd < 0 && disk->path)
        return err_new("'%s' was not opened", disk->path);
    struct err *err = optical ? block_open_removable(&options, &board->block[index])
                              : block_open(&options, &board->block[index]);
    disk->fd = -1; /* taken, also by an error */
    memset(disk->backing_fd, -1, sizeof(disk->backing_fd));
    return err ? err : limit(board->block[index], disk);
}

/*
 * What firmware calls each disk of the controller that disk `first` begins. OVMF knows NVMe and
 * SATA controllers by these names alone, whichever they are.
 */
static void set_boot_paths(struct board *board, unsigned first, const struct pci_device *pci)
{
    const struct vm_config *config = board->config;
    unsigned place = 0;

    for (unsigned i = first; i < config->disk_count; i++) {
        scoped(free_cleanup) char *unit = NULL;
        const char *kind = "scsi";
        if (vm_disk_controller(config, i) != first)
            continue;
        switch (config->disk[i].bus) {
        case VM_DISK_VIRTIO:
            unit = xstrdup("disk@0,0");
            break;
        case VM_DISK_SCSI:
            unit = xasprintf("channel@0/disk@0,%x", place);
            break;
        case VM_DISK_NVME:
            kind = "pci8086,5845";
            unit = xasprintf("namespace@%x,0", place + 1);
            break;
        case VM_DISK_AHCI:
        case VM_DISK_SATA:
            kind = "pci8086,2922";
            unit = xasprintf("drive@%x/disk@0", place);
            break;
        case VM_DISK_USB: /* see board_add_usb_disk() */
            continue;
        }
        board->boot_path[i] = board_boot_path(pci, kind, unit);
        place++;
    }
}

static struct err *add_blk(struct board *board, unsigned index)
{
    const struct vm_disk *disk = &board->config->disk[index];
    struct virtio_blk *blk =
        (struct virtio_blk *)device_new(&virtio_blk_class, board->env, disk->id);

    blk->block = board->block[index];
    blk->serial = disk->serial;
    blk->queues = disk->queues;
    blk->io_loops = &board->wiring.io_loop;
    blk->io_loop_count = 1;
    TRY(board_add_pci(board, &blk->virtio.pci, -1));
    set_boot_paths(board, index, &blk->virtio.pci);
    return NULL;
}

/* The controller that disk `first` begins: its disks are units or namespaces in their order. */
static struct err *add_scsi(struct board *board, unsigned first)
{
    const struct vm_config *config = board->config;
    struct virtio_scsi *scsi =
        (struct virtio_scsi *)device_new(&virtio_scsi_class, board->env, config->disk[first].id);

    for (unsigned i = first; i < config->disk_count; i++) {
        const struct vm_disk *disk = &config->disk[i];
        if (vm_disk_controller(config, i) != first)
            continue;
        scsi->disk[scsi->disk_count++] =
            (struct virtio_scsi_disk){board->block[i], disk->id, disk->serial};
        scsi->queues = MAX(scsi->queues, disk->queues);
    }
    scsi->io_loops = &board->wiring.io_loop;
    scsi->io_loop_count = 1;
    TRY(board_add_pci(board, &scsi->virtio.pci, -1));
    set_boot_paths(board, first, &scsi->virtio.pci);
    return NULL;
}

static struct err *add_nvme(struct board *board, unsigned first)
{
    const struct vm_config *config = board->config;
    struct nvme *nvme = (struct nvme *)device_new(&nvme_class, board->env, config->disk[first].id);

    for (unsigned i = first; i < config->disk_count; i++) {
        if (vm_disk_controller(config, i) != first)
            continue;
        if (nvme->ns_count < NVME_NAMESPACES_MAX)
            nvme->ns[nvme->ns_count].block = board->block[i];
        nvme->ns_count++; /* too many: refused by the device */
        nvme->queues = MAX(nvme->queues, config->disk[i].queues);
    }
    nvme->serial = config->disk[first].serial;
    nvme->io_loops = &board->wiring.io_loop;
    nvme->io_loop_count = 1;
    TRY(board_add_pci(board, &nvme->pci, -1));
    set_boot_paths(board, first, &nvme->pci);
    return NULL;
}

/* The board's SATA controller: its disks and drives are at its ports in their order. */
static struct err *add_ahci(struct board *board, unsigned first)
{
    const struct vm_config *config = board->config;
    struct ahci *ahci = (struct ahci *)device_new(&ahci_class, board->env, config->disk[first].id);
    unsigned port = 0;

    for (unsigned i = first; i < config->disk_count; i++) {
        const struct vm_disk *disk = &config->disk[i];
        if (vm_disk_controller(config, i) != first)
            continue;
        ahci->port[port].block = board->block[i];
        ahci->port[port].id = disk->id;
        ahci->port[port].serial = disk->serial;
        ahci->port[port++].optical = disk->media == VM_MEDIA_CDROM;
    }
    ahci->io_loop = board->wiring.io_loop;
    TRY(board_add_pci(board, &ahci->pci, AHCI_DEVFN));
    set_boot_paths(board, first, &ahci->pci);
    return NULL;
}

static struct err *add_disks(struct board *board)
{
    static struct err *(*const add[])(struct board *, unsigned) = {
        [VM_DISK_VIRTIO] = add_blk, [VM_DISK_SCSI] = add_scsi,          [VM_DISK_NVME] = add_nvme,
        [VM_DISK_AHCI] = add_ahci,  [VM_DISK_USB] = board_add_usb_disk,
    };
    const struct vm_config *config = board->config;

    for (unsigned i = 0; i < config->disk_count; i++)
        TRY(err_wrap(open_block(board, i), "disk '%s'", config->disk[i].id));
    for (unsigned i = 0; i < config->disk_count; i++) {
        if (vm_disk_controller(config, i) == i)
            TRY(err_wrap(add[config->disk[i].bus](board, i), "disk '%s'", config->disk[i].id));
    }
    return NULL;
}

/* The peers of a card's queue pairs. */
static struct err *open_ports(struct board *board, unsigned index)
{
    struct vm_net *net = &board->config->net[index];
    unsigned wanted = net->kind == VM_NET_TAP ? net->queues : net->kind == VM_NET_USER;

    for (unsigned q = 0; q < wanted; q++) {
        int fd = net->fd[q];
        if (fd < 0)
            return err_new("queue %u was not opened", q);
        net->fd[q] = -1;
        if (net->kind == VM_NET_TAP)
            TRY(net_tap_new(board->wiring.io_loop, fd, &board->port[index][q]));
        else
            TRY(net_user_new(board->wiring.io_loop, fd, &board->port[index][q]));
    }
    return NULL;
}

static struct err *add_e1000e(struct board *board, unsigned index)
{
    const struct vm_net *config = &board->config->net[index];
    struct e1000e *nic = (struct e1000e *)device_new(&e1000e_class, board->env, config->id);

    nic->loop = board->wiring.io_loop;
    memcpy(nic->mac, config->mac, sizeof(nic->mac));
    nic->peer = board->port[index][0];
    return board_add_pci(board, &nic->pci, -1);
}

static struct err *add_net(struct board *board, unsigned index)
{
    const struct vm_net *config = &board->config->net[index];

    TRY(open_ports(board, index));
    if (config->model == VM_MODEL_E1000E)
        return add_e1000e(board, index);
    struct virtio_net *net =
        (struct virtio_net *)device_new(&virtio_net_class, board->env, config->id);
    net->virtio.loop = board->wiring.io_loop;
    memcpy(net->mac, config->mac, sizeof(net->mac));
    net->pairs = config->queues;
    for (unsigned q = 0; q < config->queues; q++)
        net->peer[q] = board->port[index][q];
    return board_add_pci(board, &net->virtio.pci, -1);
}

static struct err *add_console(struct board *board, unsigned index)
{
    struct virtio_console *console = (struct virtio_console *)device_new(
        &virtio_console_class, board->env, board->config->console[index].id);

    console->port_count = 1;
    console->port[0].stream = board->stream[index];
    return board_add_pci(board, &console->virtio.pci, -1);
}

/* The name is that under which agents look for it. */
static struct err *add_agent(struct board *board)
{
    struct virtio_console *agent =
        (struct virtio_console *)device_new(&virtio_console_class, board->env, "agent");

    board->agent = agent;
    agent->port_count = 1;
    agent->port[0].name = "org.qemu.guest_agent.0";
    struct err *err = stream_new_steady(board->env->loop, &board->agent_stream);
    agent->port[0].stream = board->agent_stream;
    if (err) {
        device_free(&agent->virtio.pci.device);
        return err;
    }
    return board_add_pci(board, &agent->virtio.pci, -1);
}

struct err *board_add_virtio(struct board *board)
{
    const struct vm_config *config = board->config;

    TRY(add_disks(board));
    for (unsigned i = 0; i < config->net_count; i++)
        TRY(err_wrap(add_net(board, i), "net '%s'", config->net[i].id));
    for (unsigned i = 0; i < config->console_count; i++) {
        if (config->console[i].device == VM_CONSOLE_VIRTIO)
            TRY(err_wrap(add_console(board, i), "console '%s'", config->console[i].id));
    }
    if (config->rng) {
        struct virtio_rng *rng =
            (struct virtio_rng *)device_new(&virtio_rng_class, board->env, "rng");
        TRY(board_add_pci(board, &rng->virtio.pci, -1));
    }
    return config->agent ? err_wrap(add_agent(board), "guest agent") : NULL;
}
