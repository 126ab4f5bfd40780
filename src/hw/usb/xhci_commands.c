/*
 * The command ring of the xHCI controller (xHCI 1.2, section 4.6): slots come and go, endpoints are
 * set up, stopped and set right.
 *
 * A command that changes endpoints first takes back what their devices have; while that takes its
 * time, it stays at the head of the ring and nothing else begins. Contexts are copied before they
 * are judged, and judged before anything changes.
 *
 * On the I/O loop, with the device lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "hw/core/env.h"
#include "hw/usb/xhci_internal.h"

#define COMMANDS_AT_ONCE 32u
#define ALL_ENDPOINTS 0xfffffffeu
#define ALL_BUT_CONTROL 0xfffffffcu
#define INPUT_CONTEXTS (2 + XHCI_ENDPOINTS) /* control, slot, endpoints */
#define INPUT_SLOT 1u
#define SLOT_ENTRIES_SHIFT 27
#define SLOT_STATE_SHIFT 27

struct command {
    struct xhci_trb trb;
    unsigned slot, dci;
};

static struct xhci_slot *slot_of(struct xhci *xhci, const struct command *command)
{
    return &xhci->slot[command->slot - 1];
}

static uint32_t word(const uint8_t *contexts, unsigned context, unsigned index)
{
    return get_le32(contexts + (size_t)XHCI_CONTEXT_SIZE * context + 4 * index);
}

/* The input context; only its first `count` contexts. */
static bool read_input(struct xhci *xhci, const struct command *command, uint8_t *contexts,
                       unsigned count)
{
    uint64_t at = get_le64(command->trb.parameter) & ~0xfull;
    return !gmem_read(xhci_memory(xhci), at, contexts, (size_t)XHCI_CONTEXT_SIZE * count);
}

/* The guest's slot context: as it stands in `slot`, with our state and address. */
static void write_slot(struct xhci *xhci, unsigned number, const uint8_t slot[XHCI_CONTEXT_SIZE])
{
    const struct xhci_slot *own = &xhci->slot[number - 1];
    uint8_t out[XHCI_CONTEXT_SIZE];
    memcpy(out, slot, sizeof(out));
    put_le32(out + 12, own->address | (uint32_t)own->state << SLOT_STATE_SHIFT);
    gmem_write(xhci_memory(xhci), own->context, out, sizeof(out));
}

static void set_slot_state(struct xhci *xhci, unsigned number, enum xhci_slot_state state,
                           uint32_t entries)
{
    uint8_t context[XHCI_CONTEXT_SIZE];
    xhci->slot[number - 1].state = (uint8_t)state;
    if (gmem_read(xhci_memory(xhci), xhci->slot[number - 1].context, context, sizeof(context)))
        return;
    put_le32(context,
             (get_le32(context) & ~(0x1fu << SLOT_ENTRIES_SHIFT)) | entries << SLOT_ENTRIES_SHIFT);
    write_slot(xhci, number, context);
}

/* --- slots --- */

static enum xhci_code enable_slot(struct xhci *xhci, struct command *command)
{
    unsigned limit = MIN(xhci->config, (uint32_t)XHCI_SLOTS);
    for (unsigned i = 0; i < limit; i++) {
        if (xhci->slot[i].enabled)
            continue;
        xhci->slot[i] = (struct xhci_slot){.enabled = true};
        command->slot = i + 1;
        return XHCI_SUCCESS;
    }
    return XHCI_NO_SLOTS;
}

static enum xhci_code disable_slot(struct xhci *xhci, struct command *command)
{
    if (slot_of(xhci, command)->context)
        set_slot_state(xhci, command->slot, XHCI_SLOT_ENABLED, 0);
    xhci_slot_disable(xhci, command->slot);
    return XHCI_SUCCESS;
}

static enum xhci_code address_device(struct xhci *xhci, struct command *command)
{
    struct xhci_slot *slot = slot_of(xhci, command);
    uint8_t input[3 * XHCI_CONTEXT_SIZE];
    uint64_t context;
    bool no_address = command->trb.control & XHCI_TRB_NO_ADDRESS;
    if (slot->state > (no_address ? XHCI_SLOT_ENABLED : XHCI_SLOT_DEFAULT))
        return XHCI_CONTEXT_STATE_ERROR;
    if (!read_input(xhci, command, input, 3) || word(input, 0, 0) || word(input, 0, 1) != 3 ||
        !xhci_endpoint_context_good(XHCI_DCI_CONTROL, input + 2 * XHCI_CONTEXT_SIZE) ||
        gmem_load_le64(xhci_memory(xhci), xhci->dcbaap + 8ull * command->slot, &context))
        return XHCI_PARAMETER_ERROR;
    unsigned port = word(input, INPUT_SLOT, 1) >> 16 & 0xff;
    uint32_t route = word(input, INPUT_SLOT, 0) & 0xfffff;
    struct usb_device *device = usb_bus_find(&xhci->bus, port, route);
    if (!device || !(xhci->portsc[port - 1] & XHCI_PORT_ENABLED))
        return XHCI_TRANSACTION_ERROR;
    slot->port = (uint8_t)port;
    slot->route = route;
    slot->context = context & ~0x3full;
    slot->address = no_address ? 0 : (uint8_t)command->slot;
    slot->state = no_address ? XHCI_SLOT_DEFAULT : XHCI_SLOT_ADDRESSED;
    device->address = slot->address;
    write_slot(xhci, command->slot, input + XHCI_CONTEXT_SIZE);
    xhci_endpoint_enable(xhci, command->slot, XHCI_DCI_CONTROL, input + 2 * XHCI_CONTEXT_SIZE);
    return XHCI_SUCCESS;
}

static enum xhci_code reset_device(struct xhci *xhci, struct command *command)
{
    struct xhci_slot *slot = slot_of(xhci, command);
    if (slot->state < XHCI_SLOT_ADDRESSED)
        return XHCI_CONTEXT_STATE_ERROR;
    for (unsigned dci = 2; dci <= XHCI_ENDPOINTS; dci++)
        xhci_endpoint_disable(xhci, command->slot, dci);
    slot->address = 0;
    set_slot_state(xhci, command->slot, XHCI_SLOT_DEFAULT, 1);
    return XHCI_SUCCESS;
}

/* --- endpoints --- */

static enum xhci_code deconfigure(struct xhci *xhci, unsigned slot)
{
    for (unsigned dci = 2; dci <= XHCI_ENDPOINTS; dci++)
        xhci_endpoint_disable(xhci, slot, dci);
    set_slot_state(xhci, slot, XHCI_SLOT_ADDRESSED, 1);
    return XHCI_SUCCESS;
}

static bool additions_good(const uint8_t *input, uint32_t add)
{
    for (unsigned dci = 2; dci <= XHCI_ENDPOINTS; dci++) {
        if ((add >> dci & 1) &&
            !xhci_endpoint_context_good(dci, input + (size_t)XHCI_CONTEXT_SIZE * (1 + dci)))
            return false;
    }
    return true;
}

static enum xhci_code configure_endpoint(struct xhci *xhci, struct command *command)
{
    struct xhci_slot *slot = slot_of(xhci, command);
    uint8_t input[INPUT_CONTEXTS * XHCI_CONTEXT_SIZE];
    bool any = false;
    if (slot->state < XHCI_SLOT_ADDRESSED)
        return XHCI_CONTEXT_STATE_ERROR;
    if (command->trb.control & XHCI_TRB_DECONFIGURE)
        return deconfigure(xhci, command->slot);
    if (!read_input(xhci, command, input, INPUT_CONTEXTS))
        return XHCI_PARAMETER_ERROR;
    uint32_t drop = word(input, 0, 0), add = word(input, 0, 1);
    if ((drop & 3) || (add & 3) != 1 || !additions_good(input, add))
        return XHCI_PARAMETER_ERROR;
    for (unsigned dci = 2; dci <= XHCI_ENDPOINTS; dci++) {
        if (drop >> dci & 1)
            xhci_endpoint_disable(xhci, command->slot, dci);
        if (add >> dci & 1)
            xhci_endpoint_enable(xhci, command->slot, dci,
                                 input + (size_t)XHCI_CONTEXT_SIZE * (1 + dci));
        any |= slot->endpoint[dci - 1].transfer != NULL;
    }
    set_slot_state(xhci, command->slot, any ? XHCI_SLOT_CONFIGURED : XHCI_SLOT_ADDRESSED,
                   word(input, INPUT_SLOT, 0) >> SLOT_ENTRIES_SHIFT);
    return XHCI_SUCCESS;
}

/* What a driver learns late: the size of control packets, and what concerns power and interrupts.
 * Nothing here goes by it; the guest's contexts show it. */
static enum xhci_code evaluate_context(struct xhci *xhci, struct command *command)
{
    const struct xhci_slot *slot = slot_of(xhci, command);
    struct gmem *gmem = xhci_memory(xhci);
    uint8_t input[3 * XHCI_CONTEXT_SIZE], output[2 * XHCI_CONTEXT_SIZE];
    if (slot->state < XHCI_SLOT_DEFAULT)
        return XHCI_CONTEXT_STATE_ERROR;
    if (!read_input(xhci, command, input, 3) || word(input, 0, 0) || (word(input, 0, 1) & ~3u) ||
        gmem_read(gmem, slot->context, output, sizeof(output)))
        return XHCI_PARAMETER_ERROR;
    if (word(input, 0, 1) & 1) { /* exit latency, interrupter */
        put_le16(output + 4, get_le16(input + XHCI_CONTEXT_SIZE + 4));
        put_le32(output + 8,
                 (get_le32(output + 8) & 0x3fffff) | (word(input, INPUT_SLOT, 2) & ~0x3fffffu));
    }
    if (word(input, 0, 1) & 2)
        put_le16(output + XHCI_CONTEXT_SIZE + 6, get_le16(input + 2 * XHCI_CONTEXT_SIZE + 6));
    gmem_write(gmem, slot->context, output, sizeof(output));
    return XHCI_SUCCESS;
}

static enum xhci_code change_state(struct xhci *xhci, const struct command *command,
                                   enum xhci_endpoint_state from)
{
    if (xhci_endpoint(xhci, command->slot, command->dci)->state != from)
        return XHCI_CONTEXT_STATE_ERROR;
    xhci_endpoint_set_state(xhci, command->slot, command->dci, XHCI_EP_STOPPED);
    return XHCI_SUCCESS;
}

static enum xhci_code reset_endpoint(struct xhci *xhci, struct command *command)
{
    return change_state(xhci, command, XHCI_EP_HALTED);
}

static enum xhci_code stop_endpoint(struct xhci *xhci, struct command *command)
{
    return change_state(xhci, command, XHCI_EP_RUNNING);
}

static enum xhci_code set_dequeue(struct xhci *xhci, struct command *command)
{
    struct xhci_endpoint *endpoint = xhci_endpoint(xhci, command->slot, command->dci);
    uint64_t dequeue = get_le64(command->trb.parameter);
    if (endpoint->state != XHCI_EP_STOPPED && endpoint->state != XHCI_EP_ERROR)
        return XHCI_CONTEXT_STATE_ERROR;
    endpoint->ring.dequeue = dequeue & ~0xfull;
    endpoint->ring.cycle = dequeue & 1;
    xhci_endpoint_set_state(xhci, command->slot, command->dci, XHCI_EP_STOPPED);
    return XHCI_SUCCESS;
}

static enum xhci_code no_op(struct xhci *xhci, struct command *command)
{
    return XHCI_SUCCESS;
}

/* --- dispatch --- */

enum { NEEDS_SLOT = 1, NEEDS_ENDPOINT = 2 };

static const struct {
    enum xhci_code (*run)(struct xhci *xhci, struct command *command);
    unsigned needs;
} commands[] = {
    [XHCI_ENABLE_SLOT] = {enable_slot, 0},
    [XHCI_DISABLE_SLOT] = {disable_slot, NEEDS_SLOT},
    [XHCI_ADDRESS_DEVICE] = {address_device, NEEDS_SLOT},
    [XHCI_CONFIGURE_ENDPOINT] = {configure_endpoint, NEEDS_SLOT},
    [XHCI_EVALUATE_CONTEXT] = {evaluate_context, NEEDS_SLOT},
    [XHCI_RESET_ENDPOINT] = {reset_endpoint, NEEDS_SLOT | NEEDS_ENDPOINT},
    [XHCI_STOP_ENDPOINT] = {stop_endpoint, NEEDS_SLOT | NEEDS_ENDPOINT},
    [XHCI_SET_DEQUEUE] = {set_dequeue, NEEDS_SLOT | NEEDS_ENDPOINT},
    [XHCI_RESET_DEVICE] = {reset_device, NEEDS_SLOT},
    [XHCI_COMMAND_NO_OP] = {no_op, 0},
};

/* What may go no further while the command is carried out. */
static uint32_t concerned(const struct command *command)
{
    switch (xhci_trb_type(&command->trb)) {
    case XHCI_STOP_ENDPOINT:
        return 1u << command->dci;
    case XHCI_ADDRESS_DEVICE:
    case XHCI_DISABLE_SLOT:
        return ALL_ENDPOINTS;
    case XHCI_RESET_DEVICE:
    case XHCI_CONFIGURE_ENDPOINT: /* what stays goes on with its transfer afterwards */
        return ALL_BUT_CONTROL;
    }
    return 0;
}

static enum xhci_code judge(struct xhci *xhci, const struct command *command)
{
    unsigned type = xhci_trb_type(&command->trb);
    if (type >= ARRAY_SIZE(commands) || !commands[type].run)
        return XHCI_TRB_ERROR;
    if (!commands[type].needs)
        return XHCI_SUCCESS;
    if (!command->slot || command->slot > XHCI_SLOTS || !slot_of(xhci, command)->enabled)
        return XHCI_SLOT_NOT_ENABLED;
    if (!(commands[type].needs & NEEDS_ENDPOINT))
        return XHCI_SUCCESS;
    if (!command->dci)
        return XHCI_TRB_ERROR;
    return xhci_endpoint(xhci, command->slot, command->dci)->transfer ? XHCI_SUCCESS
                                                                      : XHCI_ENDPOINT_NOT_ENABLED;
}

static void tell(struct xhci *xhci, const struct command *command, enum xhci_code code)
{
    bool named = command->slot <= XHCI_SLOTS;
    xhci_post(xhci, 0, XHCI_EVENT_COMMAND, command->trb.gpa, (uint32_t)code << 24,
              named ? command->slot << 24 : 0);
}

void xhci_command_ring_stop(struct xhci *xhci)
{
    const struct command at = {.trb.gpa = xhci->commands.dequeue};
    xhci->command_running = xhci->command_waits = false;
    tell(xhci, &at, XHCI_RING_STOPPED);
}

/* The command at the head; false: there is none now. */
static bool serve_one(struct xhci *xhci)
{
    struct xhci_ring after = xhci->commands;
    struct command command = {0};
    int got = xhci_fetch(xhci, &after, &command.trb);
    if (got < 0) {
        log_guest(&xhci->complaints, "xhci '%s': the command ring leads nowhere",
                  xhci->pci.device.id);
        xhci_command_ring_stop(xhci);
    }
    if (got <= 0)
        return false;
    command.slot = command.trb.control >> 24;
    command.dci = command.trb.control >> 16 & 0x1f;
    if (xhci_trb_type(&command.trb) == XHCI_ENABLE_SLOT)
        command.slot = 0;
    enum xhci_code code = judge(xhci, &command);
    if (code == XHCI_SUCCESS) {
        bool stop = xhci_trb_type(&command.trb) == XHCI_STOP_ENDPOINT;
        uint32_t dcis = command.slot ? concerned(&command) : 0;
        xhci->command_waits = dcis && !xhci_take_back(xhci, command.slot, dcis, stop);
        if (xhci->command_waits)
            return false;
        code = commands[xhci_trb_type(&command.trb)].run(xhci, &command);
    }
    xhci->commands = after;
    tell(xhci, &command, code);
    return true;
}

bool xhci_serve_commands(struct xhci *xhci)
{
    for (unsigned i = 0; i < COMMANDS_AT_ONCE; i++) {
        if (!xhci->command_running || !xhci_has_room(xhci, 0) || !serve_one(xhci))
            return true;
    }
    return false;
}
