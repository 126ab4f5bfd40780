/*
 * One VM, resolved: every default filled in, every path opened. The product of the schema
 * (vm/schema.h), the input of vm_new().
 *
 * The same struct serves both sides of the sandbox: the tenon command fills in paths and opens
 * them, and hands descriptors with a JSON text of this struct to tenon-vmm, which opens nothing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_CONFIG_H
#define TENON_VM_CONFIG_H

#include "base/base.h"
#include "base/err.h"

#define VM_DISKS_MAX 24
#define VM_NETS_MAX 8
#define VM_CONSOLES_MAX 8
#define VM_FORWARDS_MAX 32
#define VM_QUEUES_MAX 16
#define VM_AHCI_PORTS 6
#define VM_USB_CONNECTORS 8

enum vm_accel {
    VM_ACCEL_AUTO,
    VM_ACCEL_KVM,
    VM_ACCEL_SOFT,
    VM_ACCEL_NONE, /* unit tests: devices without a running guest; no user can ask for it */
};
enum vm_board { VM_BOARD_MICRO, VM_BOARD_Q35, VM_BOARD_AUTO /* until schema_finish */ };
enum vm_on_reset { VM_RESET_REBOOT, VM_RESET_EXIT };
enum vm_disk_bus {
    VM_DISK_VIRTIO,
    VM_DISK_SCSI,
    VM_DISK_NVME,
    VM_DISK_AHCI,
    VM_DISK_SATA, /* the same; until schema_finish */
    VM_DISK_USB,
};
enum vm_disk_media { VM_MEDIA_DISK, VM_MEDIA_CDROM };
enum vm_on_error { VM_ON_ERROR_REPORT, VM_ON_ERROR_STOP };
enum vm_net_model { VM_MODEL_VIRTIO, VM_MODEL_E1000E };
enum vm_net_kind { VM_NET_USER, VM_NET_TAP, VM_NET_NONE };
enum vm_console_device {
    VM_CONSOLE_SERIAL,
    VM_CONSOLE_VIRTIO,
    VM_CONSOLE_DEBUG,
    VM_CONSOLE_FIRMWARE,
    VM_CONSOLE_VGA,
    VM_CONSOLE_DEVICES
};
enum vm_console_backend {
    VM_BACKEND_STDIO, /* the terminal of `tenon run`, or its standard input and output */
    VM_BACKEND_PTY,
    VM_BACKEND_SOCKET, /* listening unix socket */
    VM_BACKEND_FILE,   /* output only */
    VM_BACKEND_NULL,
};

struct vm_disk {
    char *id, *path;
    int fd; /* -1 until opened */
    /* "raw", "qcow2"...; once opened, that of every layer of the backing chain: "qcow2.raw" */
    char *format;
    int backing_fd[VM_QUEUES_MAX]; /* the layers below the first, ended by -1 */
    enum vm_disk_bus bus;
    enum vm_disk_media media; /* a cdrom may have no path: it is empty */
    bool readonly;
    int cache; /* enum block_cache */
    bool discard;
    unsigned queues;
    char *serial;
    unsigned logical_block; /* bytes; 0: what the file has */
    enum vm_on_error on_error;
    /* Limits a second; 0: none. */
    unsigned iops, iops_read, iops_write, burst_ops;
    uint64_t bandwidth, bandwidth_read, bandwidth_write, burst; /* bytes */
};

struct vm_forward {
    bool udp;
    char *host_address; /* "127.0.0.1" */
    uint16_t host_port, guest_port;
};

struct vm_net {
    char *id;
    enum vm_net_kind kind;
    enum vm_net_model model;
    char *ifname; /* tap */
    uint8_t mac[6];
    unsigned queues;
    int fd[VM_QUEUES_MAX]; /* tap queues, or fd[0]: the socket to tenon-slirp */
    struct vm_forward forward[VM_FORWARDS_MAX];
    unsigned forward_count;
};

struct vm_console {
    char *id;
    enum vm_console_device device;
    enum vm_console_backend backend;
    char *path;
    int in_fd, out_fd; /* in_fd is the listener for a socket */
};

struct vm_config {
    char *name;
    unsigned cpus;
    uint64_t memory; /* bytes */
    enum vm_accel accel;
    char *accel_debug; /* test modes of the engine; NULL: none */
    char *cpu_model;   /* "host", "x86-64-v2", ... with ",+feature,-feature,vendor=NAME" */
    enum vm_board board;
    char *kernel, *initrd, *append; /* paths; NULL when absent */
    int kernel_fd, initrd_fd;
    char *firmware;         /* "bios", "uefi" or a path; NULL: the kernel is started directly */
    char *firmware_vars;    /* path of the variable store; NULL: none, or the standard one */
    char *boot, *boot_once; /* what firmware tries first: "cdrom,d0"; NULL: disks as they stand */
    int firmware_fd, firmware_vars_fd;
    bool vga;       /* VGA adapter, keyboard and mouse */
    int vga_rom_fd; /* its option ROM; -1: none */
    bool usb, usb_keyboard, usb_tablet;
    bool agent;                         /* port for a guest agent */
    bool tpm;                           /* TPM 2.0 */
    char *tpm_state;                    /* folder of what it keeps; NULL: the standard one */
    int tpm_control_fd, tpm_command_fd; /* sockets to swtpm */
    bool debug_exit;                    /* test devices: debug exit and testdev */
    enum vm_on_reset on_reset;
    struct vm_disk disk[VM_DISKS_MAX];
    unsigned disk_count;
    struct vm_net net[VM_NETS_MAX];
    unsigned net_count;
    struct vm_console console[VM_CONSOLES_MAX];
    unsigned console_count;
    bool rng;
    int kvm_fd;     /* -1 unless accel is kvm */
    int control_fd; /* connected socket to the tenon command; -1: none */
};

/*
 * The first disk of the controller that disk `index` is at, often itself: SCSI disks share one,
 * NVMe disks with the same serial do, each virtio disk has its own. After schema_finish().
 */
unsigned vm_disk_controller(const struct vm_config *config, unsigned index);
/*
 * The disks in the order in which firmware is to try them: what `boot` names (`boot_once`, if there
 * is one and `once`), then the others as they stand.
 */
void vm_boot_order(const struct vm_config *config, bool once, unsigned order[VM_DISKS_MAX]);
/* Defaults, all descriptors -1. */
void vm_config_init(struct vm_config *config);
/* Frees strings and closes the descriptors that are still its own (not -1). */
void vm_config_fini(struct vm_config *config);

#endif
