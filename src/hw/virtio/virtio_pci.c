/*
 * Virtio over PCI, modern only (virtio 1.2, section 4.1): capabilities, register pages, doorbells.
 *
 * BAR 4 (64 bits) has four pages: common configuration, interrupt status, device configuration,
 * notification. BAR 1 is the MSI-X table. A doorbell is an eventfd that the accelerator rings
 * without coming here, once the queue is live and the BAR has its place; otherwise the write ends
 * here and rings the same eventfd.
 *
 * Device lock throughout: the bus takes it around register accesses.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/core/env.h"
#include "hw/virtio/virtq.h"

#define VENDOR 0x1af4
#define DEVICE_BASE 0x1040
#define REGISTER_BAR 4
#define MSIX_BAR 1
#define PAGE GUEST_PAGE_SIZE
#define PAGE_COMMON (0 * PAGE)
#define PAGE_ISR (1 * PAGE)
#define PAGE_CONFIG (2 * PAGE)
#define PAGE_NOTIFY (3 * PAGE)
#define BAR_SIZE (4 * PAGE)
#define NOTIFY_MULTIPLIER 4
#define DOORBELL_SIZE 2

#define CAP_VENDOR 0x09
enum cap_type { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_WINDOW };
/* Fields of struct virtio_pci_cap. */
#define CAP_LENGTH_FIELD 2
#define CAP_TYPE 3
#define CAP_BAR 4
#define CAP_OFFSET 8
#define CAP_SIZE 12
#define CAP_EXTRA 16 /* notify multiplier, window data */

/* Fields of the common configuration page (section 4.1.4.3). */
enum common {
    DEVICE_FEATURE_SELECT = 0x00,
    DEVICE_FEATURE = 0x04,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    CONFIG_VECTOR = 0x10,
    NUM_QUEUES = 0x12,
    DEVICE_STATUS = 0x14,
    CONFIG_GENERATION = 0x15,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_OFF = 0x1e,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
    QUEUE_NOTIFY_DATA = 0x38,
    QUEUE_RESET = 0x3a,
    COMMON_SIZE = 0x40,
};

static uint32_t feature_half(uint64_t features, uint32_t select)
{
    return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

static void common_image(struct virtio_device *device, uint8_t image[COMMON_SIZE])
{
    memset(image, 0, COMMON_SIZE);
    put_le32(image + DEVICE_FEATURE_SELECT, device->feature_select);
    put_le32(image + DEVICE_FEATURE, feature_half(device->offered, device->feature_select));
    put_le32(image + DRIVER_FEATURE_SELECT, device->driver_feature_select);
    put_le32(image + DRIVER_FEATURE, feature_half(device->accepted, device->driver_feature_select));
    put_le16(image + CONFIG_VECTOR, device->config_vector);
    put_le16(image + NUM_QUEUES, (uint16_t)device->queue_count);
    image[DEVICE_STATUS] = device->status;
    image[CONFIG_GENERATION] = device->config_generation;
    put_le16(image + QUEUE_SELECT, device->queue_select);
    const struct virtq *queue = virtio_queue(device, device->queue_select);
    if (!queue)
        return;
    put_le16(image + QUEUE_SIZE, queue->size);
    put_le16(image + QUEUE_VECTOR, queue->vector);
    put_le16(image + QUEUE_ENABLE, queue->enabled);
    put_le16(image + QUEUE_NOTIFY_OFF, (uint16_t)queue->index);
    put_le64(image + QUEUE_DESC, queue->area[0]);
    put_le64(image + QUEUE_DRIVER, queue->area[1]);
    put_le64(image + QUEUE_DEVICE, queue->area[2]);
    put_le16(image + QUEUE_RESET, queue->resetting);
}

static uint64_t common_read(struct virtio_device *device, unsigned offset, unsigned size)
{
    uint8_t image[COMMON_SIZE];
    if (!range_within(offset, size, COMMON_SIZE))
        return 0;
    common_image(device, image);
    return get_le(image + offset, size);
}

static uint16_t vector_or_none(const struct virtio_device *device, uint64_t value)
{
    return value < device->pci.msix_count ? (uint16_t)value : VIRTIO_NO_VECTOR;
}

static void accept_features(struct virtio_device *device, uint32_t value)
{
    unsigned shift = 32 * device->driver_feature_select;
    if (device->driver_feature_select > 1 || (device->status & VIRTIO_STATUS_FEATURES_OK))
        return;
    device->accepted &= ~(0xffffffffull << shift);
    device->accepted |= (uint64_t)value << shift;
}

static void enable_queue(struct virtio_device *device, struct virtq *queue, uint64_t value)
{
    if (value != 1 || queue->enabled)
        return;
    if (!(device->status & VIRTIO_STATUS_FEATURES_OK)) {
        log_guest(&device->complaints, "%s '%s': queue %u enabled before the features are agreed",
                  device->pci.device.class->name, device->pci.device.id, queue->index);
        return;
    }
    queue->enabled = virtq_enable(queue);
    virtio_pci_doorbells(device);
    if (queue->enabled && (device->status & VIRTIO_STATUS_DRIVER_OK))
        virtq_signal(queue); /* after a reset of this queue alone */
}

static void queue_write(struct virtio_device *device, struct virtq *queue, unsigned offset,
                        unsigned size, uint64_t value)
{
    if (offset == QUEUE_VECTOR && size == 2)
        queue->vector = vector_or_none(device, value);
    else if (offset == QUEUE_ENABLE && size == 2)
        enable_queue(device, queue, value);
    else if (offset == QUEUE_RESET && size == 2) {
        if (value == 1 && virtio_has_feature(device, VIRTIO_F_RING_RESET))
            virtq_guest_reset(queue);
    } else if (queue->enabled)
        return; /* a live ring does not move */
    else if (offset == QUEUE_SIZE && size == 2)
        queue->size = (uint16_t)value;
    else if (offset >= QUEUE_DESC && offset < QUEUE_NOTIFY_DATA) {
        uint64_t *area = &queue->area[(offset - QUEUE_DESC) / 8];
        if (size == 8 && offset % 8 == 0)
            *area = value;
        else if (size == 4 && offset % 8 == 0)
            *area = (*area & ~0xffffffffull) | value;
        else if (size == 4 && offset % 8 == 4)
            *area = (*area & 0xffffffffull) | value << 32;
    }
}

static void common_write(struct virtio_device *device, unsigned offset, unsigned size,
                         uint64_t value)
{
    if (device->resetting)
        return; /* until the status reads 0 */
    if (offset == DEVICE_STATUS && size == 1)
        virtio_set_status(device, (uint8_t)value);
    else if (offset == DEVICE_FEATURE_SELECT && size == 4)
        device->feature_select = (uint32_t)value;
    else if (offset == DRIVER_FEATURE_SELECT && size == 4)
        device->driver_feature_select = (uint32_t)value;
    else if (offset == DRIVER_FEATURE && size == 4)
        accept_features(device, (uint32_t)value);
    else if (offset == CONFIG_VECTOR && size == 2)
        device->config_vector = vector_or_none(device, value);
    else if (offset == QUEUE_SELECT && size == 2)
        device->queue_select = (uint16_t)value;
    else if (offset >= QUEUE_SIZE && virtio_queue(device, device->queue_select))
        queue_write(device, virtio_queue(device, device->queue_select), offset, size, value);
}

static uint64_t register_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_device *device = opaque;
    unsigned in_page = (unsigned)(offset % PAGE);
    uint8_t bytes[8] = {0};
    switch (offset - in_page) {
    case PAGE_COMMON:
        return common_read(device, in_page, size);
    case PAGE_ISR:
        if (in_page)
            return 0;
        bytes[0] = device->isr;
        device->isr = 0;
        pci_intx_set(&device->pci, false);
        return bytes[0];
    case PAGE_CONFIG:
        if (device->ops->config_read)
            device->ops->config_read(device, in_page, bytes, size);
        return get_le(bytes, size);
    default:
        return 0;
    }
}

static void register_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_device *device = opaque;
    unsigned in_page = (unsigned)(offset % PAGE);
    uint8_t bytes[8];
    struct virtq *queue;
    switch (offset - in_page) {
    case PAGE_COMMON:
        common_write(device, in_page, size, value);
        break;
    case PAGE_CONFIG:
        put_le(bytes, size, value);
        if (device->ops->config_write && !device->resetting)
            device->ops->config_write(device, in_page, bytes, size);
        break;
    case PAGE_NOTIFY:
        queue = virtio_queue(device, in_page / NOTIFY_MULTIPLIER);
        if (queue && queue->enabled)
            virtq_kick(queue);
        break;
    default:
        break;
    }
}

static const struct io_ops register_ops = {register_read, register_write};

void virtio_pci_doorbells(struct virtio_device *device)
{
    struct hw_env *env = device->pci.device.env;
    const struct io_region *region = &device->pci.bar[REGISTER_BAR].region;
    if (!env->ops || !env->ops->doorbell_add)
        return;
    for (unsigned i = 0; i < device->queue_count; i++) {
        struct virtq *queue = &device->queues[i];
        uint64_t wanted = 0;
        if (region->bus && queue->enabled && (device->status & VIRTIO_STATUS_DRIVER_OK))
            wanted = region->base + PAGE_NOTIFY + i * NOTIFY_MULTIPLIER;
        if (queue->doorbell == wanted)
            continue;
        if (queue->doorbell)
            env->ops->doorbell_remove(env->opaque, queue->doorbell, DOORBELL_SIZE, queue->kick_fd);
        queue->doorbell = 0;
        if (!wanted)
            continue;
        struct err *err =
            env->ops->doorbell_add(env->opaque, wanted, DOORBELL_SIZE, queue->kick_fd);
        if (!err)
            queue->doorbell = wanted;
        err_free(err); /* the write comes to register_write() then */
    }
}

void virtio_pci_doorbells_off(struct virtio_device *device)
{
    struct hw_env *env = device->pci.device.env;
    for (unsigned i = 0; i < device->queue_count; i++) {
        struct virtq *queue = &device->queues[i];
        if (queue->doorbell)
            env->ops->doorbell_remove(env->opaque, queue->doorbell, DOORBELL_SIZE, queue->kick_fd);
        queue->doorbell = 0;
    }
}

/*
 * The configuration access capability (section 4.1.4.9): a window of up to 4 bytes onto the BAR,
 * for firmware that cannot reach memory there. False when the window points nowhere.
 */
static bool window_place(const struct pci_device *pci, unsigned cap, uint32_t *offset,
                         uint32_t *size)
{
    *offset = get_le32(pci->config + cap + CAP_OFFSET);
    *size = get_le32(pci->config + cap + CAP_SIZE);
    return pci->config[cap + CAP_BAR] == REGISTER_BAR && (*size == 1 || *size == 2 || *size == 4) &&
           *offset % *size == 0 && range_within(*offset, *size, BAR_SIZE);
}

static void config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_device *device = container_of(pci, struct virtio_device, pci);
    uint32_t at, width;
    if (ranges_overlap(offset, size, device->window + CAP_EXTRA, 4) &&
        window_place(pci, device->window, &at, &width))
        put_le(pci->config + device->window + CAP_EXTRA, width, register_read(device, at, width));
}

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_device *device = container_of(pci, struct virtio_device, pci);
    uint32_t at, width;
    if (ranges_overlap(offset, size, device->window + CAP_EXTRA, 4) &&
        window_place(pci, device->window, &at, &width))
        register_write(device, at, width, get_le(pci->config + device->window + CAP_EXTRA, width));
    if (ranges_overlap(offset, size, PCI_COMMAND, 2) ||
        ranges_overlap(offset, size, PCI_BAR0, 4 * PCI_BARS))
        virtio_pci_doorbells(device);
}

static unsigned add_cap(struct pci_device *pci, enum cap_type type, uint32_t offset, uint32_t size)
{
    unsigned len = type == CAP_NOTIFY || type == CAP_WINDOW ? CAP_EXTRA + 4 : CAP_EXTRA;
    unsigned at = pci_capability_add(pci, CAP_VENDOR, len);
    pci->config[at + CAP_LENGTH_FIELD] = (uint8_t)len;
    pci->config[at + CAP_TYPE] = (uint8_t)type;
    pci->config[at + CAP_BAR] = type == CAP_WINDOW ? 0 : REGISTER_BAR;
    put_le32(pci->config + at + CAP_OFFSET, offset);
    put_le32(pci->config + at + CAP_SIZE, size);
    return at;
}

void virtio_pci_build(struct virtio_device *device)
{
    struct pci_device *pci = &device->pci;
    uint16_t id = (uint16_t)(DEVICE_BASE + device->ops->id);
    pci_device_identify(pci, VENDOR, id, device->ops->pci_class, 1, VENDOR, id);
    pci_intx_add(pci);
    pci_express_add(pci);
    pci_msix_add(pci, device->queue_count + 1, MSIX_BAR);
    pci_bar_add(pci, REGISTER_BAR, PCI_BAR_MEM64, BAR_SIZE, &register_ops, device);
    add_cap(pci, CAP_COMMON, PAGE_COMMON, COMMON_SIZE);
    add_cap(pci, CAP_ISR, PAGE_ISR, 1);
    add_cap(pci, CAP_DEVICE, PAGE_CONFIG, PAGE);
    unsigned notify =
        add_cap(pci, CAP_NOTIFY, PAGE_NOTIFY, device->queue_count * NOTIFY_MULTIPLIER);
    put_le32(pci->config + notify + CAP_EXTRA, NOTIFY_MULTIPLIER);
    device->window = add_cap(pci, CAP_WINDOW, 0, 0);
    uint8_t *writable = pci->writable + device->window;
    writable[CAP_BAR] = 0xff;
    memset(writable + CAP_OFFSET, 0xff, 12); /* offset, length, data */
    pci->config_read = config_read;
    pci->config_written = config_written;
}
