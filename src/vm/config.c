/*
 * The VM's configuration: its beginning, its completion and its end. See config.h and schema.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vm/schema.h"
#include "vm/schema_table.h"

/* Slots of the PCI bus that the board itself does not use. */
#define PCI_DEVICES_MAX 28
#define SERIAL_MAX 2
/* virtio-blk's identification string (virtio 1.2, section 5.2.6). */
#define DISK_SERIAL_MAX 20
#define DISK_QUEUES_STANDARD 4u

void vm_config_init(struct vm_config *config)
{
    memset(config, 0, sizeof(*config));
    schema_init(&schema_vm, config);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void vm_config_fini(struct vm_config *config)
{
    close_fd(&config->kernel_fd);
    close_fd(&config->initrd_fd);
    close_fd(&config->firmware_fd);
    close_fd(&config->firmware_vars_fd);
    close_fd(&config->vga_rom_fd);
    close_fd(&config->tpm_control_fd);
    close_fd(&config->tpm_command_fd);
    close_fd(&config->kvm_fd);
    close_fd(&config->control_fd);
    for (unsigned i = 0; i < config->disk_count; i++) {
        close_fd(&config->disk[i].fd);
        for (unsigned k = 0; k < VM_QUEUES_MAX; k++)
            close_fd(&config->disk[i].backing_fd[k]);
    }
    for (unsigned i = 0; i < config->net_count; i++) {
        for (unsigned q = 0; q < VM_QUEUES_MAX; q++)
            close_fd(&config->net[i].fd[q]);
    }
    for (unsigned i = 0; i < config->console_count; i++) {
        struct vm_console *console = &config->console[i];
        if (console->out_fd == console->in_fd)
            console->out_fd = -1;
        close_fd(&console->in_fd);
        close_fd(&console->out_fd);
    }
    schema_fini(&schema_vm, config);
}

/* --- completion --- */

/* Entries whose id stands twice. */
static struct err *check_ids(const struct schema_object *object, const void *entries,
                             unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const char *id =
            *(char *const *)schema_at(entries, i * object->size + object->fields[0].offset);
        for (unsigned j = 0; j < i; j++) {
            const char *other =
                *(char *const *)schema_at(entries, j * object->size + object->fields[0].offset);
            if (!strcmp(id, other))
                return err_of(ERR_USAGE, "two %ss have the id '%s': rename one", object->what, id);
        }
    }
    return NULL;
}

static struct err *finish_bus(struct vm_disk *disk)
{
    bool optical = disk->media == VM_MEDIA_CDROM;

    if (disk->bus == VM_DISK_SATA || (optical && disk->bus == VM_DISK_VIRTIO))
        disk->bus = VM_DISK_AHCI;
    if (optical && disk->bus != VM_DISK_AHCI)
        return err_of(ERR_USAGE, "disk '%s': a cdrom is at bus ahci: remove the bus", disk->id);
    if (!optical)
        return NULL;
    disk->readonly = true;
    if (!disk->format)
        disk->format = xstrdup("raw");
    return NULL;
}

static struct err *check_ahci(const struct vm_config *config)
{
    unsigned count = 0;

    for (unsigned i = 0; i < config->disk_count; i++)
        count += config->disk[i].bus == VM_DISK_AHCI;
    if (count > VM_AHCI_PORTS)
        return err_of(ERR_USAGE,
                      "%u disks and drives at bus ahci: it has %d ports, give the others "
                      "another bus",
                      count, VM_AHCI_PORTS);
    if (count && config->board == VM_BOARD_MICRO)
        return err_of(ERR_USAGE, "bus ahci needs board q35: remove --board micro");
    return NULL;
}

static struct err *finish_usb(struct vm_config *config)
{
    unsigned count = config->usb_keyboard + config->usb_tablet;

    for (unsigned i = 0; i < config->disk_count; i++)
        count += config->disk[i].bus == VM_DISK_USB;
    config->usb |= count > 0;
    if (count > VM_USB_CONNECTORS)
        return err_of(ERR_USAGE,
                      "%u USB devices: the controller has %d connectors, give disks another bus",
                      count, VM_USB_CONNECTORS);
    return NULL;
}

static struct err *finish_disks(struct vm_config *config)
{
    for (unsigned i = 0; i < config->disk_count; i++) {
        struct vm_disk *disk = &config->disk[i];
        TRY(finish_bus(disk));
        if (!disk->path && disk->media == VM_MEDIA_DISK)
            return err_of(ERR_USAGE, "disk '%s' has no path: add one (path: FILE)", disk->id);
        if (disk->logical_block && disk->logical_block != 512 && disk->logical_block != 4096)
            return err_of(ERR_USAGE, "disk '%s': logical-block-size is 512 or 4096, not %u",
                          disk->id, disk->logical_block);
        if (!disk->queues)
            disk->queues = MIN(config->cpus, DISK_QUEUES_STANDARD);
        if (!disk->serial)
            disk->serial = xasprintf("%.*s", DISK_SERIAL_MAX, disk->id);
        if (strlen(disk->serial) > DISK_SERIAL_MAX)
            return err_of(ERR_USAGE,
                          "disk '%s': the serial '%s' is longer than %d characters: "
                          "shorten it",
                          disk->id, disk->serial, DISK_SERIAL_MAX);
    }
    TRY(check_ahci(config));
    TRY(finish_usb(config));
    return check_ids(&schema_disk, config->disk, config->disk_count);
}

/* FNV-1a over the name and the card's number: the same VM keeps its addresses. */
static void make_mac(const char *name, unsigned index, uint8_t mac[6])
{
    uint32_t hash = 2166136261u;

    for (const char *at = name; *at; at++)
        hash = (hash ^ (uint8_t)*at) * 16777619u;
    hash = (hash ^ index) * 16777619u;
    hash ^= hash >> 24;
    mac[0] = 0x52;
    mac[1] = 0x54;
    mac[2] = 0x00;
    mac[3] = (uint8_t)(hash >> 16);
    mac[4] = (uint8_t)(hash >> 8);
    mac[5] = (uint8_t)hash;
}

static struct err *check_forwards(const struct vm_config *config)
{
    const struct vm_forward *seen[VM_NETS_MAX * VM_FORWARDS_MAX];
    unsigned count = 0;

    for (unsigned i = 0; i < config->net_count; i++) {
        const struct vm_net *net = &config->net[i];
        if (net->forward_count && net->kind != VM_NET_USER)
            return err_of(ERR_USAGE,
                          "net '%s': forwards need kind user: remove them or change the "
                          "kind",
                          net->id);
        for (unsigned f = 0; f < net->forward_count; f++) {
            const struct vm_forward *forward = &net->forward[f];
            if (!forward->host_port || !forward->guest_port)
                return err_of(ERR_USAGE,
                              "net '%s': forward %u needs host-port and guest-port: add "
                              "them",
                              net->id, f);
            for (unsigned s = 0; s < count; s++) {
                if (seen[s]->udp == forward->udp && seen[s]->host_port == forward->host_port &&
                    !strcmp(seen[s]->host_address, forward->host_address))
                    return err_of(ERR_USAGE,
                                  "net '%s': %s port %s:%u is forwarded twice: remove "
                                  "one",
                                  net->id, forward->udp ? "udp" : "tcp", forward->host_address,
                                  forward->host_port);
            }
            seen[count++] = forward;
        }
    }
    return NULL;
}

static struct err *finish_nets(struct vm_config *config)
{
    static const uint8_t none[6];

    for (unsigned i = 0; i < config->net_count; i++) {
        struct vm_net *net = &config->net[i];
        if (!memcmp(net->mac, none, 6))
            make_mac(config->name, i, net->mac);
        if (net->kind == VM_NET_TAP && !net->ifname)
            return err_of(ERR_USAGE, "net '%s' is a tap without a name: add ifname", net->id);
        if (net->kind == VM_NET_TAP && strlen(net->ifname) > 15)
            return err_of(ERR_USAGE,
                          "net '%s': '%s' is longer than the 15 characters of an "
                          "interface name",
                          net->id, net->ifname);
        if (net->kind != VM_NET_TAP && net->ifname)
            return err_of(ERR_USAGE,
                          "net '%s': ifname needs kind tap: remove it or change the "
                          "kind",
                          net->id);
        if (net->kind != VM_NET_TAP && net->queues > 1)
            return err_of(ERR_USAGE, "net '%s': %u queues need kind tap: give 1", net->id,
                          net->queues);
        if (net->model == VM_MODEL_E1000E && net->queues > 1)
            return err_of(ERR_USAGE, "net '%s': an e1000e has one pair of queues: give 1", net->id);
        for (unsigned j = 0; j < i; j++) {
            if (!memcmp(config->net[j].mac, net->mac, 6))
                return err_of(ERR_USAGE, "nets '%s' and '%s' have the same mac: change one",
                              config->net[j].id, net->id);
        }
    }
    TRY(check_forwards(config));
    return check_ids(&schema_net, config->net, config->net_count);
}

static struct err *check_console(const struct vm_console *console)
{
    bool wants = console->backend == VM_BACKEND_SOCKET || console->backend == VM_BACKEND_FILE;

    if (wants && !console->path)
        return err_of(ERR_USAGE, "console '%s' is a %s without a path: add one", console->id,
                      console->backend == VM_BACKEND_SOCKET ? "socket" : "file");
    if (!wants && console->path)
        return err_of(ERR_USAGE,
                      "console '%s': a path needs backend socket or file: remove it or "
                      "change the backend",
                      console->id);
    return NULL;
}

static struct err *finish_consoles(struct vm_config *config)
{
    unsigned by_device[VM_CONSOLE_DEVICES] = {0}, terminals = 0;

    if (!config->console_count)
        TRY(schema_apply_flag(config, "console", "serial,backend=stdio"));
    for (unsigned i = 0; i < config->console_count; i++) {
        const struct vm_console *console = &config->console[i];
        TRY(check_console(console));
        by_device[console->device]++;
        terminals += console->backend == VM_BACKEND_STDIO;
    }
    if (terminals > 1)
        return err_of(ERR_USAGE,
                      "%u consoles use stdio: there is one terminal, give the others "
                      "another backend",
                      terminals);
    if (by_device[VM_CONSOLE_SERIAL] > SERIAL_MAX)
        return err_of(ERR_USAGE, "%u serial consoles: a board has %d, make the others virtio",
                      by_device[VM_CONSOLE_SERIAL], SERIAL_MAX);
    if (by_device[VM_CONSOLE_VGA] > 1)
        return err_of(ERR_USAGE, "%u consoles show the VGA screen: there is one, remove the others",
                      by_device[VM_CONSOLE_VGA]);
    if (by_device[VM_CONSOLE_DEBUG] > 1 || by_device[VM_CONSOLE_FIRMWARE] > 1)
        return err_of(ERR_USAGE, "%u %s consoles: a board has one, remove the others",
                      MAX(by_device[VM_CONSOLE_DEBUG], by_device[VM_CONSOLE_FIRMWARE]),
                      by_device[VM_CONSOLE_DEBUG] > 1 ? "debug" : "firmware");
    return check_ids(&schema_console, config->console, config->console_count);
}

/* The standard command line: the kernel speaks where the user listens. */
static char *standard_append(const struct vm_config *config)
{
    unsigned serial = 0, virtio = 0;

    for (unsigned i = 0; i < config->console_count; i++) {
        switch (config->console[i].device) {
        case VM_CONSOLE_SERIAL:
            return xasprintf("console=ttyS%u", serial);
        case VM_CONSOLE_VIRTIO:
            return xasprintf("console=hvc%u", virtio);
        case VM_CONSOLE_VGA:
            return xstrdup("console=tty0");
        default:
            break;
        }
    }
    return xstrdup("");
}

unsigned vm_disk_controller(const struct vm_config *config, unsigned index)
{
    const struct vm_disk *disk = &config->disk[index];

    bool alone = disk->bus == VM_DISK_VIRTIO || disk->bus == VM_DISK_USB;

    for (unsigned i = 0; i < index && !alone; i++) {
        const struct vm_disk *other = &config->disk[i];
        if (other->bus == disk->bus &&
            (disk->bus != VM_DISK_NVME || !strcmp(other->serial, disk->serial)))
            return i;
    }
    return index;
}

/* Does `word`, of `length` bytes, name this disk? */
static bool boot_names(const char *word, size_t length, const struct vm_disk *disk)
{
    const char *kind = disk->media == VM_MEDIA_CDROM ? "cdrom" : "disk";

    return (strlen(disk->id) == length && !memcmp(word, disk->id, length)) ||
           (strlen(kind) == length && !memcmp(word, kind, length));
}

void vm_boot_order(const struct vm_config *config, bool once, unsigned order[VM_DISKS_MAX])
{
    const char *word = once && config->boot_once ? config->boot_once : config->boot;
    bool taken[VM_DISKS_MAX] = {false};
    unsigned count = 0;

    while (word && *word) {
        size_t length = strcspn(word, ",");
        for (unsigned i = 0; i < config->disk_count; i++) {
            if (taken[i] || !boot_names(word, length, &config->disk[i]))
                continue;
            taken[i] = true;
            order[count++] = i;
        }
        word += length + (word[length] == ',');
    }
    for (unsigned i = 0; i < config->disk_count; i++) {
        if (!taken[i])
            order[count++] = i;
    }
}

static struct err *check_boot(const struct vm_config *config, const char *flag, const char *word)
{
    if (word && !config->firmware)
        return err_of(ERR_USAGE, "--%s is for firmware, and a kernel is started: remove it", flag);
    while (word && *word) {
        size_t length = strcspn(word, ",");
        bool found = false;
        for (unsigned i = 0; i < config->disk_count && !found; i++)
            found = boot_names(word, length, &config->disk[i]);
        if (!found)
            return err_of(ERR_USAGE,
                          "--%s: there is no '%.*s' to boot from: give ids of disks, disk or cdrom",
                          flag, (int)length, word);
        word += length + (word[length] == ',');
    }
    return NULL;
}

static struct err *check_slots(const struct vm_config *config)
{
    unsigned devices = config->net_count + config->rng + config->vga + config->usb + config->agent;

    for (unsigned i = 0; i < config->disk_count; i++)
        devices += config->disk[i].bus != VM_DISK_AHCI && config->disk[i].bus != VM_DISK_USB &&
                   vm_disk_controller(config, i) == i;
    for (unsigned i = 0; i < config->console_count; i++)
        devices += config->console[i].device == VM_CONSOLE_VIRTIO;
    if (devices > PCI_DEVICES_MAX)
        return err_of(ERR_USAGE,
                      "%u disks, nets, virtio consoles and rng together: the board has "
                      "room for %d, remove some",
                      devices, PCI_DEVICES_MAX);
    return NULL;
}

/* What starts first: a kernel, or firmware that looks for one. */
static struct err *finish_start(struct vm_config *config)
{
    if (!config->kernel && !config->firmware && !config->disk_count)
        return err_of(ERR_USAGE, "there is nothing to start: give --kernel PATH or --disk PATH, or "
                                 "kernel: or disks: in the VM file");
    if (!config->kernel && !config->firmware)
        config->firmware = xstrdup("bios");
    if (config->kernel && config->firmware)
        return err_of(ERR_USAGE, "a kernel is started without firmware: remove --kernel or "
                                 "--firmware");
    if (!config->kernel && (config->initrd || config->append))
        return err_of(ERR_USAGE,
                      "%s is for a kernel, and there is none: give --kernel PATH, or "
                      "remove it",
                      config->initrd ? "--initrd" : "--append");
    if (config->firmware_vars && !config->firmware)
        return err_of(ERR_USAGE, "--firmware-vars is for UEFI firmware: give --firmware uefi, or "
                                 "remove it");
    for (unsigned i = 0; i < config->console_count; i++)
        config->vga |= config->console[i].device == VM_CONSOLE_VGA;
    if (config->tpm_state && !config->tpm)
        return err_of(ERR_USAGE, "--tpm-state is for a TPM: add --tpm, or remove it");
    if ((config->firmware || config->vga || config->tpm) && config->board == VM_BOARD_MICRO)
        return err_of(ERR_USAGE, "%s needs board q35: remove --board micro",
                      config->firmware ? "firmware"
                      : config->vga    ? "a VGA adapter"
                                       : "a TPM");
    return NULL;
}

/* Firmware, VGA, TPM and SATA controller are parts of a PC; all else starts faster without one. */
static enum vm_board standard_board(const struct vm_config *config)
{
    for (unsigned i = 0; i < config->disk_count; i++) {
        if (config->disk[i].bus == VM_DISK_AHCI)
            return VM_BOARD_Q35;
    }
    return config->firmware || config->vga || config->tpm ? VM_BOARD_Q35 : VM_BOARD_MICRO;
}

struct err *schema_finish(struct vm_config *config)
{
    if (!config->name)
        config->name = xstrdup("vm");
    TRY(finish_start(config));
    TRY(finish_disks(config));
    TRY(check_boot(config, "boot", config->boot));
    TRY(check_boot(config, "boot-once", config->boot_once));
    if (config->board == VM_BOARD_AUTO)
        config->board = standard_board(config);
    TRY(finish_nets(config));
    TRY(finish_consoles(config));
    TRY(check_slots(config));
    if (!config->append && config->kernel)
        config->append = standard_append(config);
    return NULL;
}
