/*
 * Fuzz target: the xHCI controller with a keyboard and a disk. The input is a host: it writes guest
 * memory and registers, puts commands and transfers into rings, presses keys, and has the
 * controller and its devices saved and loaded in between.
 *
 * Whatever it does, the controller must come to rest with no transfer in a device's hands.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz_pci.h"
#include "hw/usb/usb_hid.h"
#include "hw/usb/usb_storage.h"
#include "hw/usb/xhci_internal.h"

#define DISK_SIZE KIB(256)
#define BLOCKS 16u /* of every ring; the last one is a link */
#define DCBAA 0x1000u
#define COMMANDS 0x1200u
#define EVENT_TABLE 0x1300u
#define EVENTS 0x1400u
#define INPUT_CONTEXT 0x2000u
#define OUTPUT_CONTEXT(slot) (0x2c00u + 0x400u * (slot))
#define ENDPOINT_RING(slot, dci) (0x4000u + 0x800u * ((slot)-1) + 0x100u * (dci))
#define DATA 0x8000u
#define SLOTS 2u
#define KEYBOARD_PORT 1u
#define DISK_PORT (2u + XHCI_CONNECTORS)
#define DCI_MAX 5u
#define BULK_IN 3u
#define BULK_OUT 4u

static struct xhci *xhci;
static struct usb_hid *keyboard;
static struct usb_storage *disk;

struct tail {
    uint64_t ring;
    unsigned index;
    bool cycle;
};
static struct tail commands, endpoint[SLOTS + 1][DCI_MAX + 1];

static struct block *open_disk(void)
{
    struct block *block;
    int fd = memfd_create("disk", 0);
    if (fd < 0 || ftruncate(fd, DISK_SIZE) != 0)
        abort();
    struct block_options options = {
        .id = "d0", .fd = fd, .discard = true, .engine = BLOCK_ENGINE_THREADS};
    must(block_open_raw(&options, &block));
    return block;
}

static struct pci_device *open_devices(struct fuzz_machine *machine)
{
    xhci = (struct xhci *)device_new(&xhci_class, &machine->env, "usb");
    fuzz_machine_add(machine, &xhci->pci);
    keyboard = (struct usb_hid *)device_new(&usb_keyboard_class, &machine->env, "keyboard");
    keyboard->usb.bus = &xhci->bus;
    must(device_realize(&keyboard->usb.device));
    disk = (struct usb_storage *)device_new(&usb_storage_class, &machine->env, "d0");
    disk->usb.bus = &xhci->bus;
    disk->block = open_disk();
    must(device_realize(&disk->usb.device));
    return &xhci->pci;
}

/* --- rings --- */

static void put_block(uint64_t gpa, uint64_t parameter, uint32_t status, uint32_t control)
{
    uint8_t bytes[XHCI_TRB_SIZE];
    put_le64(bytes, parameter);
    put_le32(bytes + 8, status);
    put_le32(bytes + 12, control);
    gmem_write(fuzz_machine.env.gmem, gpa, bytes, sizeof(bytes));
}

static void push(struct tail *tail, uint64_t parameter, uint32_t status, uint32_t control)
{
    uint64_t at = tail->ring + XHCI_TRB_SIZE * tail->index++;
    put_block(at, parameter, status, (control & ~XHCI_TRB_CYCLE) | tail->cycle);
    if (tail->index < BLOCKS - 1)
        return;
    put_block(at + XHCI_TRB_SIZE, tail->ring, 0,
              XHCI_LINK << XHCI_TRB_TYPE_SHIFT | XHCI_TRB_TOGGLE | tail->cycle);
    tail->index = 0;
    tail->cycle = !tail->cycle;
}

static void ring(unsigned slot, unsigned target)
{
    fuzz_put(XHCI_DOORBELLS + 4 * slot, 4, target);
}

/* The guest takes all events there are. */
static void take_events(struct input *input)
{
    const struct xhci_interrupter *from = &xhci->interrupter[0];
    fuzz_put(XHCI_INTERRUPTER0 + XHCI_ERDP, 4,
             (EVENTS + XHCI_TRB_SIZE * (from->index % BLOCKS)) | XHCI_ERDP_BUSY);
}

static void command(enum xhci_trb_type type, uint64_t parameter, uint32_t control)
{
    push(&commands, parameter, 0, control | (uint32_t)type << XHCI_TRB_TYPE_SHIFT);
    ring(0, 0);
    fuzz_run();
    take_events(NULL);
}

/* --- a good host --- */

static void put_word(uint64_t gpa, uint32_t value)
{
    gmem_store_le32(fuzz_machine.env.gmem, gpa, value);
}

static void put_endpoint(unsigned slot, unsigned dci, enum xhci_endpoint_type type)
{
    uint64_t at = INPUT_CONTEXT + XHCI_CONTEXT_SIZE * (1 + dci);
    endpoint[slot][dci] = (struct tail){ENDPOINT_RING(slot, dci), 0, true};
    put_word(at + 4, 3u << 1 | (uint32_t)type << 3 | 512u << 16);
    put_word(at + 8, ENDPOINT_RING(slot, dci) | 1);
}

static void set_up_device(unsigned slot, unsigned port, uint32_t endpoints)
{
    gmem_fill(fuzz_machine.env.gmem, INPUT_CONTEXT, 0, 0x800);
    fuzz_put(XHCI_PORT_REGISTERS + 16 * (port - 1), 4, XHCI_PORT_POWER | XHCI_PORT_RESET);
    command(XHCI_ENABLE_SLOT, 0, 0);
    gmem_store_le64(fuzz_machine.env.gmem, DCBAA + 8 * slot, OUTPUT_CONTEXT(slot));
    put_word(INPUT_CONTEXT + 4, 3);
    put_word(INPUT_CONTEXT + XHCI_CONTEXT_SIZE, 1u << 27);
    put_word(INPUT_CONTEXT + XHCI_CONTEXT_SIZE + 4, port << 16);
    put_endpoint(slot, 1, XHCI_TYPE_CONTROL);
    command(XHCI_ADDRESS_DEVICE, INPUT_CONTEXT, slot << 24);
    put_word(INPUT_CONTEXT + 4, 1 | endpoints);
    for (unsigned dci = 2; dci <= DCI_MAX; dci++) {
        if (endpoints >> dci & 1)
            put_endpoint(slot, dci, dci & 1 ? XHCI_TYPE_BULK_IN : XHCI_TYPE_BULK_OUT);
    }
    command(XHCI_CONFIGURE_ENDPOINT, INPUT_CONTEXT, slot << 24);
    struct tail *control = &endpoint[slot][1];
    push(control, USB_SET_CONFIGURATION << 8 | 1 << 16, USB_SETUP_SIZE,
         XHCI_SETUP_STAGE << XHCI_TRB_TYPE_SHIFT | XHCI_TRB_IMMEDIATE);
    push(control, 0, 0,
         XHCI_STATUS_STAGE << XHCI_TRB_TYPE_SHIFT | XHCI_TRB_TO_HOST | XHCI_TRB_INTERRUPT);
    ring(slot, 1);
    fuzz_run();
    take_events(NULL);
}

static void set_up(struct input *input)
{
    fuzz_put(XHCI_OPERATIONAL + XHCI_USBCMD, 4, XHCI_CMD_RESET);
    gmem_fill(fuzz_machine.env.gmem, DCBAA, 0, DATA - DCBAA);
    commands = (struct tail){COMMANDS, 0, true};
    gmem_store_le64(fuzz_machine.env.gmem, EVENT_TABLE, EVENTS);
    put_word(EVENT_TABLE + 8, BLOCKS);
    fuzz_put(XHCI_OPERATIONAL + XHCI_CONFIG, 4, XHCI_SLOTS);
    fuzz_put(XHCI_OPERATIONAL + XHCI_DCBAAP, 8, DCBAA);
    fuzz_put(XHCI_OPERATIONAL + XHCI_CRCR, 8, COMMANDS | 1);
    fuzz_put(XHCI_INTERRUPTER0 + XHCI_ERSTSZ, 4, 1);
    fuzz_put(XHCI_INTERRUPTER0 + XHCI_ERDP, 8, EVENTS);
    fuzz_put(XHCI_INTERRUPTER0 + XHCI_ERSTBA, 8, EVENT_TABLE);
    fuzz_put(XHCI_INTERRUPTER0 + XHCI_IMAN, 4, XHCI_IMAN_ENABLE);
    fuzz_put(XHCI_OPERATIONAL + XHCI_USBCMD, 4, XHCI_CMD_RUN | XHCI_CMD_INTERRUPTS);
    set_up_device(1, KEYBOARD_PORT, 1u << BULK_IN);
    set_up_device(2, DISK_PORT, 1u << BULK_IN | 1u << BULK_OUT);
}

/* --- the input's host --- */

/* Addresses near every edge; the rest as the input says. */
static uint64_t take_place(struct input *input)
{
    static const uint64_t places[] = {
        DATA,           DATA + 0x7ff, REGION - 8,        2 * REGION - 64,
        2 * REGION - 4, 2 * REGION,   ~0ull - 4095,      INPUT_CONTEXT,
        COMMANDS,       EVENTS,       OUTPUT_CONTEXT(1), ENDPOINT_RING(2, BULK_OUT)};
    uint64_t how = take(input, 1);
    return places[how % ARRAY_SIZE(places)] + 16 * (how / ARRAY_SIZE(places));
}

static void op_command(struct input *input)
{
    enum xhci_trb_type type = (enum xhci_trb_type)(take(input, 1) % 32);
    uint32_t flags = (uint32_t)take(input, 1), where = (uint32_t)take(input, 1);
    uint64_t parameter = flags & 0x80 ? take_place(input) : INPUT_CONTEXT;
    command(type, parameter,
            (flags & 3) << 8 | (where & 7) << 16 | (where >> 3 & 3) << 24 | (flags & 1) << 9);
}

static void op_context(struct input *input)
{
    unsigned word = (unsigned)take(input, 1);
    put_word(INPUT_CONTEXT + 4 * word, (uint32_t)take(input, 4));
}

static struct tail *take_ring(struct input *input, unsigned *slot, unsigned *dci)
{
    unsigned where = (unsigned)take(input, 1);
    *slot = 1 + (where & 1);
    *dci = 1 + (where >> 1) % DCI_MAX;
    struct tail *tail = &endpoint[*slot][*dci];
    if (!tail->ring)
        *tail = (struct tail){ENDPOINT_RING(*slot, *dci), 0, true};
    return tail;
}

static void op_block(struct input *input)
{
    unsigned slot, dci;
    struct tail *tail = take_ring(input, &slot, &dci);
    uint32_t type = (uint32_t)take(input, 1), flags = (uint32_t)take(input, 1);
    uint64_t parameter = type & 0x80 ? take(input, 8) : take_place(input);
    push(tail, parameter, (uint32_t)take(input, 3),
         (type & 0x3f) << XHCI_TRB_TYPE_SHIFT | (flags & 0x7e) | (flags >> 7) << 16);
    if (!(flags & XHCI_TRB_CHAIN))
        ring(slot, dci);
}

static void op_control(struct input *input)
{
    unsigned slot = 1 + (unsigned)take(input, 1) % SLOTS;
    struct tail *tail = &endpoint[slot][1];
    uint64_t setup = take(input, 8), place = take_place(input);
    uint32_t length = (uint32_t)(setup >> 48), in = setup & USB_IN ? XHCI_TRB_TO_HOST : 0;
    push(tail, setup, USB_SETUP_SIZE, XHCI_SETUP_STAGE << XHCI_TRB_TYPE_SHIFT | XHCI_TRB_IMMEDIATE);
    if (length)
        push(tail, place, length, XHCI_DATA_STAGE << XHCI_TRB_TYPE_SHIFT | XHCI_TRB_SHORT | in);
    push(tail, 0, 0, XHCI_STATUS_STAGE << XHCI_TRB_TYPE_SHIFT | XHCI_TRB_INTERRUPT);
    ring(slot, 1);
    fuzz_run();
}

/* A command for the disk, and packets for its data and its status. */
static void op_wrapper(struct input *input)
{
    uint8_t wrapper[31] = {'U', 'S', 'B', 'C'};
    uint32_t how = (uint32_t)take(input, 1), length = (uint32_t)take(input, 2);
    const uint32_t normal = XHCI_NORMAL << XHCI_TRB_TYPE_SHIFT | XHCI_TRB_INTERRUPT;
    put_le32(wrapper + 8, length);
    wrapper[12] = (uint8_t)(how & 0x80);
    wrapper[13] = how >> 3 & 1;
    wrapper[14] = 16;
    for (unsigned i = 15; i < sizeof(wrapper); i++)
        wrapper[i] = (uint8_t)take(input, 1);
    gmem_write(fuzz_machine.env.gmem, DATA, wrapper, sizeof(wrapper));
    push(&endpoint[2][BULK_OUT], DATA, sizeof(wrapper), normal);
    for (unsigned i = 0; i < (how & 7); i++)
        push(&endpoint[2][how & 0x80 ? BULK_IN : BULK_OUT], take_place(input),
             1 + length / (1 + (how >> 4 & 3)), normal);
    push(&endpoint[2][BULK_IN], DATA, 13, normal);
    ring(2, BULK_OUT);
    ring(2, BULK_IN);
    fuzz_run();
}

static void op_port(struct input *input)
{
    unsigned port = (unsigned)take(input, 1) % XHCI_PORTS;
    fuzz_put(XHCI_PORT_REGISTERS + 16 * port, 4, take(input, 4));
}

static void op_doorbell(struct input *input)
{
    unsigned slot, dci;
    take_ring(input, &slot, &dci);
    ring(slot, dci);
}

static void op_key(struct input *input)
{
    uint8_t key = (uint8_t)take(input, 1);
    usb_keyboard_key(keyboard, key, true);
    usb_keyboard_key(keyboard, key, false);
}

static void op_save(struct input *input)
{
    if (!fuzz_may_save())
        return;
    device_quiesce(&xhci->pci.device);
    fuzz_save_and_load(&keyboard->usb.device);
    if (!(take(input, 1) & 15)) /* it has a large buffer, which takes time */
        fuzz_save_and_load(&disk->usb.device);
    fuzz_save_and_load(&xhci->pci.device);
}

static bool at_rest(void)
{
    device_quiesce(&disk->usb.device);
    bool rest = !xhci->in_flight && list_empty(&keyboard->usb.packets) &&
                list_empty(&disk->usb.packets) && !disk->busy;
    device_resume(&disk->usb.device);
    return rest;
}

static void (*const operations[])(struct input *) = {
    op_command,     op_context,  op_block,    op_control,     op_wrapper,
    fuzz_op_memory, op_port,     op_doorbell, fuzz_op_config, fuzz_op_register,
    fuzz_op_run,    take_events, op_key,      op_save,        set_up};

static const struct fuzz_pci_target fuzz_target = {
    .bar = 0,
    .registers = 0x2100,
    .operations_max = 200,
    .open = open_devices,
    .begin = set_up,
    .operations = operations,
    .operation_count = ARRAY_SIZE(operations),
    .at_rest = at_rest,
};
