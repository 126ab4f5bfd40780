/*
 * virtio-blk (virtio 1.2, section 5.2): queues, configuration space and life of the disk device.
 * What a request means is in virtio_blk_request.c.
 *
 * Each queue has a block queue on its own loop, where requests start and end. Registers and rings
 * under the device lock; the block layer calls back without it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/virtio/virtio_blk_internal.h"

#define PCI_CLASS_STORAGE 0x018000
#define CONFIG_SIZE 60
#define CONFIG_WRITEBACK 32
#define SECTOR 512u
/* Of a range in a discard or write-zeroes request, in sectors: 2 GiB less one block of any size. */
#define RANGE_SECTORS_MAX (0x400000u - 128)

static struct virtio_blk *to_blk(struct virtio_device *virtio)
{
    return container_of(virtio, struct virtio_blk, virtio);
}

/*
 * Without SIZE_MAX: SeaBIOS 1.16 computes a request's limit from it in 16 bits, and one that comes
 * out as 0 makes it read nothing for ever. A segment may be as long as a descriptor says.
 */
static uint64_t blk_features(struct virtio_device *virtio)
{
    const struct virtio_blk *blk = to_blk(virtio);
    uint64_t features = 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE |
                        1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_TOPOLOGY;
    if (blk->info.readonly)
        features |= 1ull << VIRTIO_BLK_F_RO;
    else
        features |= 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
    if (blk->info.discard)
        features |= 1ull << VIRTIO_BLK_F_DISCARD;
    if (blk->info.write_cache)
        features |= 1ull << VIRTIO_BLK_F_CONFIG_WCE;
    if (blk->queues > 1)
        features |= 1ull << VIRTIO_BLK_F_MQ;
    return features;
}

static unsigned log2_of(uint32_t power)
{
    return (unsigned)__builtin_ctz(power);
}

static void blk_config_read(struct virtio_device *virtio, unsigned offset, void *bytes,
                            unsigned len)
{
    const struct virtio_blk *blk = to_blk(virtio);
    const struct block_info *info = &blk->info;
    uint8_t config[CONFIG_SIZE] = {0};
    put_le64(config, info->size / SECTOR);
    put_le32(config + 12, virtio->queue_size - 2u); /* header and status take one each */
    put_le32(config + 20, info->logical_block);
    config[24] = (uint8_t)log2_of(info->physical_block / info->logical_block);
    put_le16(config + 26, (uint16_t)(info->physical_block / info->logical_block));
    config[CONFIG_WRITEBACK] = blk->writeback;
    put_le16(config + 34, (uint16_t)blk->queues);
    put_le32(config + 36, RANGE_SECTORS_MAX);
    put_le32(config + 40, VIRTIO_BLK_RANGES_MAX);
    put_le32(config + 44, info->physical_block / SECTOR);
    put_le32(config + 48, RANGE_SECTORS_MAX);
    put_le32(config + 52, VIRTIO_BLK_RANGES_MAX);
    config[56] = info->discard;
    memset(bytes, 0, len);
    if (offset < sizeof(config))
        memcpy(bytes, config + offset, MIN(len, (unsigned)sizeof(config) - offset));
}

static void blk_config_write(struct virtio_device *virtio, unsigned offset, const void *bytes,
                             unsigned len)
{
    struct virtio_blk *blk = to_blk(virtio);
    uint8_t value = *(const uint8_t *)bytes;
    if (offset == CONFIG_WRITEBACK && len == 1 && value <= 1 &&
        virtio_has_feature(virtio, VIRTIO_BLK_F_CONFIG_WCE))
        blk->writeback = value;
}

static void blk_reset(struct virtio_device *virtio)
{
    struct virtio_blk *blk = to_blk(virtio);
    blk->writeback = blk->info.write_cache;
}

static void blk_queue_kick(struct virtio_device *virtio, struct virtq *virtq)
{
    struct virtio_blk *blk = to_blk(virtio);
    struct virtq_req *req;
    while ((req = virtq_pop(virtq)))
        virtio_blk_start(&blk->queue[virtq_index(virtq)], req);
    /*
     * The kernel copies cached data right here. A vCPU that rings, and the other queues, need not
     * wait for that; the queue cannot go away meanwhile, because only this thread drains it.
     */
    lock_drop(&virtio->pci.device.lock);
    block_flush_submissions(blk->queue[virtq_index(virtq)].block);
    lock_take(&virtio->pci.device.lock);
    virtq_notify(virtq);
}

static void blk_queue_drain(struct virtio_device *virtio, struct virtq *virtq)
{
    struct virtio_blk *blk = to_blk(virtio);
    /* Completions take the lock themselves. */
    lock_drop(&virtio->pci.device.lock);
    block_drain(blk->queue[virtq_index(virtq)].block);
    lock_take(&virtio->pci.device.lock);
}

/* The block queue has delivered a batch of completions: one interrupt for all of them. */
static void batch_done(void *opaque)
{
    struct virtio_blk_queue *queue = opaque;
    struct lock *lock = &queue->blk->virtio.pci.device.lock;
    lock_take(lock);
    virtq_notify(virtio_queue(&queue->blk->virtio, queue->index));
    lock_drop(lock);
}

void virtio_blk_resized(struct virtio_blk *blk)
{
    struct lock *lock = &blk->virtio.pci.device.lock;
    lock_take(lock);
    block_get_info(blk->block, &blk->info);
    virtio_config_changed(&blk->virtio);
    lock_drop(lock);
}

static const struct virtio_ops blk_ops = {
    .id = VIRTIO_ID_BLOCK,
    .pci_class = PCI_CLASS_STORAGE,
    .features = blk_features,
    .config_read = blk_config_read,
    .config_write = blk_config_write,
    .reset = blk_reset,
    .queue_kick = blk_queue_kick,
    .queue_drain = blk_queue_drain,
};

static struct err *blk_realize(struct device *device)
{
    struct virtio_blk *blk = (struct virtio_blk *)device;
    struct virtio_device *virtio = &blk->virtio;
    if (!blk->queues)
        blk->queues = 1;
    if (blk->queues > VIRTIO_BLK_QUEUES_MAX)
        return err_of(ERR_USAGE, "%u queues, at most %u are possible", blk->queues,
                      VIRTIO_BLK_QUEUES_MAX);
    if (blk->serial)
        memcpy(blk->serial_bytes, blk->serial, strnlen(blk->serial, VIRTIO_BLK_SERIAL_LEN));
    block_get_info(blk->block, &blk->info);
    virtio->ops = &blk_ops;
    virtio->queue_count = blk->queues;
    virtio->queue_loops = blk->io_loops;
    virtio->queue_loop_count = blk->io_loop_count;
    virtio->request_extra = virtio_blk_request_size;
    blk->queue = xcalloc(blk->queues, sizeof(*blk->queue));
    TRY(virtio_realize(virtio));
    for (unsigned i = 0; i < blk->queues; i++) {
        struct virtio_blk_queue *queue = &blk->queue[i];
        struct loop *loop =
            blk->io_loop_count ? blk->io_loops[i % blk->io_loop_count] : device->env->loop;
        queue->blk = blk;
        queue->index = i;
        TRY(block_queue_new(blk->block, loop, &queue->block));
        block_queue_on_batch(queue->block, batch_done, queue);
    }
    return NULL;
}

static void blk_device_reset(struct device *device)
{
    virtio_reset(&((struct virtio_blk *)device)->virtio);
}

static void blk_quiesce(struct device *device)
{
    virtio_quiesce(&((struct virtio_blk *)device)->virtio);
}

static void blk_resume(struct device *device)
{
    virtio_resume(&((struct virtio_blk *)device)->virtio);
}

static void blk_fini(struct device *device)
{
    struct virtio_blk *blk = (struct virtio_blk *)device;
    virtio_fini(&blk->virtio);
    for (unsigned i = 0; blk->queue && i < blk->queues; i++)
        block_queue_free(blk->queue[i].block);
    free(blk->queue);
    blk->queue = NULL;
}

static struct err *check(const void *staged)
{
    const struct virtio_blk *blk = staged;
    if (blk->writeback > 1)
        return err_new("its cache mode %u is unknown", blk->writeback);
    return NULL;
}

static const struct state_field fields[] = {
    STATE_STRUCT(1, virtio_blk, virtio, &virtio_device_state),
    STATE_U8(2, virtio_blk, writeback),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("virtio-blk", virtio_blk, fields),
    .check = check,
};

const struct device_class virtio_blk_class = {
    .name = "virtio-blk",
    .description = "virtio disk",
    .size = sizeof(struct virtio_blk),
    .state = &state,
    .realize = blk_realize,
    .reset = blk_device_reset,
    .quiesce = blk_quiesce,
    .resume = blk_resume,
    .fini = blk_fini,
};
DEVICE_CLASS(virtio_blk_class);
