/*
 * THE table: everything that can be said about a VM. To add a property, add its member to struct
 * vm_config and one row here; reading, writing, flags and help follow from the row.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/schema_table.h"
#include "vm/config.h"

/* The engine "none" of unit tests stands behind the end: it can be written, but not asked for. */
static const char *const accel_names[] = {"auto", "kvm", "soft", NULL, "none"};
static const char *const board_names[] = {"micro", "q35", "auto", NULL};
static const char *const reset_names[] = {"reboot", "exit", NULL};
static const char *const cache_names[] = {"writeback", "none", "writethrough", "unsafe", NULL};
static const char *const bus_names[] = {"virtio", "scsi", "nvme", "ahci", "sata", "usb", NULL};
static const char *const media_names[] = {"disk", "cdrom", NULL};
static const char *const error_names[] = {"report", "stop", NULL};
static const char *const net_names[] = {"user", "tap", "none", NULL};
static const char *const model_names[] = {"virtio", "e1000e", NULL};
static const char *const proto_names[] = {"tcp", "udp", NULL};
static const char *const console_names[] = {"serial", "virtio", "debug", "firmware", "vga", NULL};
static const char *const backend_names[] = {"stdio", "pty", "socket", "file", "null", NULL};

/* A row is read as a row. */
/* clang-format off */

#define LIMIT(key_, member_, kind_, help_)                                                         \
    {.key = key_, .kind = kind_, .offset = offsetof(struct vm_disk, member_), .min = 1,            \
     .max = kind_ == SCHEMA_COUNT ? 100000000 : GIB(1024),                                         \
     .metavar = kind_ == SCHEMA_COUNT ? "N" : "SIZE", .help = help_ " Default: no limit."}

static const struct schema_field disk_fields[] = {
    {.key = "id", .kind = SCHEMA_WORD, .offset = offsetof(struct vm_disk, id), .metavar = "ID",
     .help = "Name of the disk in reports and errors. Default: d0, d1, ..."},
    {.key = "path", .kind = SCHEMA_PATH, .offset = offsetof(struct vm_disk, path),
     .metavar = "PATH",
     .help = "Image file, block device, or URL: nbd:, http:, https:, rbd:, iscsi:, vhost-user:."},
    {.key = "format", .kind = SCHEMA_WORD, .offset = offsetof(struct vm_disk, format),
     .metavar = "FORMAT",
     .help = "What the image is: raw, qcow2... Default: what its first bytes and the end of its name "
             "agree on, raw if they tell nothing."},
    {.key = "bus", .kind = SCHEMA_CHOICE, .offset = offsetof(struct vm_disk, bus),
     .choices = bus_names, .standard = "virtio",
     .help = "How the guest sees it: virtio (virtio-blk, vda...), scsi (virtio-scsi, sda...; one controller for "
             "all such disks), nvme (nvme0n1...; disks with the same serial are namespaces of one controller), ahci "
             "(sda...; the board's SATA controller has six ports; sata is the same) or usb (sda...; a USB 3 disk, which "
             "brings a controller with eight connectors)."},
    {.key = "media", .kind = SCHEMA_CHOICE, .offset = offsetof(struct vm_disk, media),
     .choices = media_names, .standard = "disk",
     .help = "disk, or cdrom: an optical drive with the image as its disc (sr0...), bus ahci, read only. Without a "
             "path it is empty."},
    {.key = "readonly", .kind = SCHEMA_SWITCH, .offset = offsetof(struct vm_disk, readonly),
     .standard = "false", .help = "The guest cannot write; several VMs may share the file."},
    {.key = "cache", .kind = SCHEMA_CHOICE, .offset = offsetof(struct vm_disk, cache),
     .choices = cache_names, .standard = "writeback",
     .help = "Use of the host's page cache: writeback flushes when the guest asks, none goes past "
             "the cache, writethrough makes every write stable, unsafe never flushes."},
    {.key = "discard", .kind = SCHEMA_SWITCH, .offset = offsetof(struct vm_disk, discard),
     .standard = "true", .help = "Blocks that the guest discards are given back to the host."},
    {.key = "queues", .kind = SCHEMA_COUNT, .offset = offsetof(struct vm_disk, queues), .min = 1,
     .max = VM_QUEUES_MAX, .metavar = "N",
     .help = "Request queues. Default: one a CPU, at most 4."},
    {.key = "serial", .kind = SCHEMA_WORD, .offset = offsetof(struct vm_disk, serial),
     .metavar = "TEXT",
     .help = "Serial number that the guest sees, at most 20 characters. Default: the id."},
    {.key = "logical-block-size", .kind = SCHEMA_COUNT, .offset = offsetof(struct vm_disk, logical_block),
     .min = 512, .max = 4096, .metavar = "BYTES",
     .help = "Smallest unit that the guest reads and writes: 512 or 4096. Default: the file's."},
    {.key = "on-error", .kind = SCHEMA_CHOICE, .offset = offsetof(struct vm_disk, on_error),
     .choices = error_names, .standard = "report",
     .help = "When the host cannot read or write: report it to the guest, or stop the VM until `cont` tries again."},
    LIMIT("iops", iops, SCHEMA_COUNT, "Requests a second."),
    LIMIT("iops-read", iops_read, SCHEMA_COUNT, "Reads a second."),
    LIMIT("iops-write", iops_write, SCHEMA_COUNT, "Writes a second."),
    LIMIT("burst-ops", burst_ops, SCHEMA_COUNT, "Requests that may come at once after a pause."),
    LIMIT("bandwidth", bandwidth, SCHEMA_SIZE, "Bytes a second: 100M."),
    LIMIT("bandwidth-read", bandwidth_read, SCHEMA_SIZE, "Bytes read a second."),
    LIMIT("bandwidth-write", bandwidth_write, SCHEMA_SIZE, "Bytes written a second."),
    LIMIT("burst", burst, SCHEMA_SIZE, "Bytes that may come at once after a pause."),
    {.key = "fd", .kind = SCHEMA_FD, .offset = offsetof(struct vm_disk, fd)},
    {.key = "backing-fds", .kind = SCHEMA_FDS, .offset = offsetof(struct vm_disk, backing_fd)},
};

static const struct schema_field forward_fields[] = {
    {.key = "proto", .kind = SCHEMA_CHOICE, .offset = offsetof(struct vm_forward, udp),
     .choices = proto_names, .narrow = true, .standard = "tcp", .help = "tcp or udp."},
    {.key = "host-address", .kind = SCHEMA_ADDRESS,
     .offset = offsetof(struct vm_forward, host_address), .standard = "127.0.0.1",
     .metavar = "ADDRESS", .help = "Address of the host to listen on."},
    {.key = "host-port", .kind = SCHEMA_PORT, .offset = offsetof(struct vm_forward, host_port),
     .min = 1, .max = 65535, .metavar = "PORT", .help = "Port of the host to listen on."},
    {.key = "guest-port", .kind = SCHEMA_PORT, .offset = offsetof(struct vm_forward, guest_port),
     .min = 1, .max = 65535, .metavar = "PORT", .help = "Port of the guest to lead to."},
};

static const struct schema_field net_fields[] = {
    {.key = "id", .kind = SCHEMA_WORD, .offset = offsetof(struct vm_net, id), .metavar = "ID",
     .help = "Name of the network card in reports and errors. Default: n0, n1, ..."},
    {.key = "kind", .kind = SCHEMA_CHOICE, .offset = offsetof(struct vm_net, kind),
     .choices = net_names, .standard = "user",
     .help = "user: rootless NAT with DHCP and DNS; tap: an existing tap device of the host; none: "
             "a card without a cable."},
    {.key = "model", .kind = SCHEMA_CHOICE, .offset = offsetof(struct vm_net, model),
     .choices = model_names, .standard = "virtio",
     .help = "What the guest sees: virtio (virtio-net) or e1000e (Intel 82574L), for guests without virtio drivers."},
    {.key = "ifname", .kind = SCHEMA_WORD, .offset = offsetof(struct vm_net, ifname),
     .metavar = "NAME", .help = "Tap device of the host, for kind tap."},
    {.key = "mac", .kind = SCHEMA_MAC, .offset = offsetof(struct vm_net, mac),
     .metavar = "XX:XX:XX:XX:XX:XX",
     .help = "Hardware address. Default: one of 52:54:00, computed from the VM's name and the "
             "card's number."},
    {.key = "queues", .kind = SCHEMA_COUNT, .offset = offsetof(struct vm_net, queues), .min = 1,
     .max = VM_QUEUES_MAX, .metavar = "N", .standard = "1",
     .help = "Pairs of queues; more than one needs kind tap."},
    {.key = "forwards", .flag = "forward", .kind = SCHEMA_LIST,
     .offset = offsetof(struct vm_net, forward), .object = &schema_forward,
     .count_offset = offsetof(struct vm_net, forward_count), .limit = VM_FORWARDS_MAX,
     .metavar = "[PROTO:][ADDRESS:]PORT-GUESTPORT",
     .help = "A port of the host leads to the guest: \"tcp:127.0.0.1:2222-22\". For kind user; as a "
             "flag, for the first such net."},
    {.key = "fds", .kind = SCHEMA_FDS, .offset = offsetof(struct vm_net, fd)},
};

static const struct schema_field console_fields[] = {
    {.key = "id", .kind = SCHEMA_WORD, .offset = offsetof(struct vm_console, id), .metavar = "ID",
     .help = "Name of the console in reports and errors. Default: c0, c1, ..."},
    {.key = "device", .kind = SCHEMA_CHOICE, .offset = offsetof(struct vm_console, device),
     .choices = console_names, .standard = "serial",
     .help = "What the guest sees: serial (ttyS0), virtio (hvc0), debug (output of port 0xe9), "
             "firmware (the firmware's own log, port 0x402), or vga (the text on the VGA adapter's screen, and its "
             "keyboard)."},
    {.key = "backend", .kind = SCHEMA_CHOICE, .offset = offsetof(struct vm_console, backend),
     .choices = backend_names, .standard = "stdio",
     .help = "What it is joined to: stdio (this terminal), pty (a new terminal device), socket (a "
             "unix socket that listens), file (output only), null."},
    {.key = "path", .kind = SCHEMA_PATH, .offset = offsetof(struct vm_console, path),
     .metavar = "PATH", .help = "Path of the socket or file."},
    {.key = "in-fd", .kind = SCHEMA_FD, .offset = offsetof(struct vm_console, in_fd)},
    {.key = "out-fd", .kind = SCHEMA_FD, .offset = offsetof(struct vm_console, out_fd)},
};

static const struct schema_field vm_fields[] = {
    {.key = "name", .flag = "name", .kind = SCHEMA_WORD, .offset = offsetof(struct vm_config, name),
     .metavar = "NAME", .help = "Name of the VM. Default: vm."},
    {.key = "cpus", .flag = "cpus", .kind = SCHEMA_COUNT, .offset = offsetof(struct vm_config, cpus),
     .min = 1, .max = 255, .standard = "1", .metavar = "N", .help = "Virtual CPUs."},
    {.key = "memory", .flag = "memory", .kind = SCHEMA_SIZE,
     .offset = offsetof(struct vm_config, memory), .min = MIB(16), .max = GIB(4096),
     .standard = "512M", .metavar = "SIZE", .help = "Guest memory, with a unit: 512M, 2G."},
    {.key = "accel", .flag = "accel", .kind = SCHEMA_CHOICE,
     .offset = offsetof(struct vm_config, accel), .choices = accel_names, .standard = "auto",
     .help = "Engine: kvm (hardware virtualisation), soft (Tenon's own, works everywhere), or auto, "
             "which takes kvm where the hardware has it."},
    {.key = "accel-debug", .flag = "accel-debug", .kind = SCHEMA_TEXT,
     .offset = offsetof(struct vm_config, accel_debug), .metavar = "MODES",
     .help = "Test modes of engine soft, joined by commas: lockstep (translated code against the "
             "interpreter), scatter, crossings, xlate-after=N, tlb=N, code-cache=KIB, poll, trace."},
    {.key = "cpu-model", .flag = "cpu", .kind = SCHEMA_TEXT,
     .offset = offsetof(struct vm_config, cpu_model), .standard = "host", .metavar = "MODEL",
     .help = "CPU that the guest sees: host, x86-64-v2 or x86-64-v3, then ,+feature or ,-feature or "
             ",vendor=NAME."},
    {.key = "board", .flag = "board", .kind = SCHEMA_CHOICE,
     .offset = offsetof(struct vm_config, board), .choices = board_names, .standard = "auto",
     .help = "micro starts fastest; q35 has the devices of a PC; auto is q35 with firmware, micro "
             "without."},
    {.key = "firmware", .flag = "firmware", .kind = SCHEMA_TEXT,
     .offset = offsetof(struct vm_config, firmware), .metavar = "bios|uefi|secure|PATH",
     .help = "Firmware that boots from disks: bios (SeaBIOS, package seabios), uefi (OVMF, package "
             "ovmf), secure (OVMF with Secure Boot and the keys of Debian and Microsoft), or an image file. Default: bios without a kernel, none with one."},
    {.key = "firmware-vars", .flag = "firmware-vars", .kind = SCHEMA_PATH,
     .offset = offsetof(struct vm_config, firmware_vars), .metavar = "PATH",
     .help = "File with the variables of a UEFI firmware, made from the template when missing. "
             "Default for uefi: NAME.vars.fd in $XDG_STATE_HOME/tenon."},
    {.key = "boot", .flag = "boot", .kind = SCHEMA_TEXT, .offset = offsetof(struct vm_config, boot),
     .metavar = "ORDER",
     .help = "What firmware tries first: ids of disks, or disk or cdrom for all of that kind, joined by commas. Default: "
             "the disks in their order."},
    {.key = "boot-once", .flag = "boot-once", .kind = SCHEMA_TEXT,
     .offset = offsetof(struct vm_config, boot_once), .metavar = "ORDER",
     .help = "The same for the first start alone; a reset goes back to `boot`."},
    {.key = "vga", .flag = "vga", .kind = SCHEMA_SWITCH, .offset = offsetof(struct vm_config, vga),
     .standard = "false",
     .help = "VGA adapter (1234:1111, Bochs VBE) with a PS/2 keyboard and mouse, for firmware and kernel. "
             "A vga console brings one. Firmware finds keyboard and mouse without it, too."},
    {.key = "usb", .flag = "usb", .kind = SCHEMA_SWITCH, .offset = offsetof(struct vm_config, usb),
     .standard = "false",
     .help = "USB 3 controller (xHCI) with eight connectors. A USB device brings one."},
    {.key = "usb-keyboard", .flag = "usb-keyboard", .kind = SCHEMA_SWITCH,
     .offset = offsetof(struct vm_config, usb_keyboard), .standard = "false",
     .help = "USB keyboard; once the guest uses it, it gets the keys instead of the PS/2 one."},
    {.key = "usb-tablet", .flag = "usb-tablet", .kind = SCHEMA_SWITCH,
     .offset = offsetof(struct vm_config, usb_tablet), .standard = "false",
     .help = "USB tablet: a pointer that goes to places on the screen, not by distances."},
    {.key = "tpm", .flag = "tpm", .kind = SCHEMA_SWITCH, .offset = offsetof(struct vm_config, tpm),
     .standard = "false",
     .help = "TPM 2.0 (CRB interface), by the program swtpm: firmware measures into it what it starts."},
    {.key = "tpm-state", .flag = "tpm-state", .kind = SCHEMA_PATH,
     .offset = offsetof(struct vm_config, tpm_state), .metavar = "PATH",
     .help = "Folder of what the TPM keeps, made when missing. Default: NAME.tpm in $XDG_STATE_HOME/tenon."},
    {.key = "kernel", .flag = "kernel", .kind = SCHEMA_PATH,
     .offset = offsetof(struct vm_config, kernel), .metavar = "PATH",
     .help = "Kernel to start: a Linux bzImage or vmlinux, or a Multiboot image."},
    {.key = "initrd", .flag = "initrd", .kind = SCHEMA_PATH,
     .offset = offsetof(struct vm_config, initrd), .metavar = "PATH",
     .help = "Initial RAM disk for the kernel."},
    {.key = "append", .flag = "append", .kind = SCHEMA_TEXT,
     .offset = offsetof(struct vm_config, append), .metavar = "TEXT",
     .help = "Kernel command line. Default: the first console, such as console=ttyS0."},
    {.key = "on-reset", .flag = "on-reset", .kind = SCHEMA_CHOICE,
     .offset = offsetof(struct vm_config, on_reset), .choices = reset_names, .standard = "reboot",
     .help = "What a reset by the guest does: start again, or end the VM."},
    {.key = "debug-exit", .flag = "debug-exit", .kind = SCHEMA_SWITCH,
     .offset = offsetof(struct vm_config, debug_exit), .standard = "false",
     .help = "Test devices: a write to port 0xf4 ends the VM with that status; registers, interrupt lines "
             "and memory at ports 0xe0 and 0x2000 and at 0xff000000 serve CPU test suites."},
    {.key = "rng", .flag = "rng", .kind = SCHEMA_SWITCH, .offset = offsetof(struct vm_config, rng),
     .standard = "true", .help = "Random number device (virtio-rng)."},
    {.key = "agent", .flag = "agent", .kind = SCHEMA_SWITCH,
     .offset = offsetof(struct vm_config, agent), .standard = "false",
     .help = "Port (virtio-serial, org.qemu.guest_agent.0) for the agent in the guest, package qemu-guest-agent: "
             "for tenon exec, cp, agent and snapshot."},
    {.key = "disks", .flag = "disk", .kind = SCHEMA_LIST, .offset = offsetof(struct vm_config, disk),
     .object = &schema_disk, .count_offset = offsetof(struct vm_config, disk_count),
     .limit = VM_DISKS_MAX, .metavar = "PATH[,KEY=VALUE...]", .help = "A disk."},
    {.key = "nets", .flag = "net", .kind = SCHEMA_LIST, .offset = offsetof(struct vm_config, net),
     .object = &schema_net, .count_offset = offsetof(struct vm_config, net_count),
     .limit = VM_NETS_MAX, .metavar = "KIND[,KEY=VALUE...]",
     .help = "A network card: user, tap,ifname=NAME or none."},
    {.key = "consoles", .flag = "console", .kind = SCHEMA_LIST,
     .offset = offsetof(struct vm_config, console), .object = &schema_console,
     .count_offset = offsetof(struct vm_config, console_count), .limit = VM_CONSOLES_MAX,
     .metavar = "DEVICE[,KEY=VALUE...]",
     .help = "A console. Default: serial,backend=stdio."},
    {.key = "kernel-fd", .kind = SCHEMA_FD, .offset = offsetof(struct vm_config, kernel_fd)},
    {.key = "initrd-fd", .kind = SCHEMA_FD, .offset = offsetof(struct vm_config, initrd_fd)},
    {.key = "firmware-fd", .kind = SCHEMA_FD, .offset = offsetof(struct vm_config, firmware_fd)},
    {.key = "firmware-vars-fd", .kind = SCHEMA_FD,
     .offset = offsetof(struct vm_config, firmware_vars_fd)},
    {.key = "vga-rom-fd", .kind = SCHEMA_FD, .offset = offsetof(struct vm_config, vga_rom_fd)},
    {.key = "tpm-control-fd", .kind = SCHEMA_FD,
     .offset = offsetof(struct vm_config, tpm_control_fd)},
    {.key = "tpm-command-fd", .kind = SCHEMA_FD,
     .offset = offsetof(struct vm_config, tpm_command_fd)},
    {.key = "kvm-fd", .kind = SCHEMA_FD, .offset = offsetof(struct vm_config, kvm_fd)},
    {.key = "control-fd", .kind = SCHEMA_FD, .offset = offsetof(struct vm_config, control_fd)},
};

#define FIELDS(array) .fields = (array), .count = ARRAY_SIZE(array)

const struct schema_object schema_disk = {.what = "disk", .id_prefix = "d",
    .size = sizeof(struct vm_disk), FIELDS(disk_fields), .first_key = "path"};
const struct schema_object schema_forward = {.what = "forward", .size = sizeof(struct vm_forward),
    FIELDS(forward_fields), .read_short = schema_read_forward};
const struct schema_object schema_net = {.what = "net", .id_prefix = "n",
    .size = sizeof(struct vm_net), FIELDS(net_fields), .first_key = "kind"};
const struct schema_object schema_console = {.what = "console", .id_prefix = "c",
    .size = sizeof(struct vm_console), FIELDS(console_fields), .first_key = "device"};
const struct schema_object schema_vm = {.what = "VM", .size = sizeof(struct vm_config),
    FIELDS(vm_fields)};

/* clang-format on */
