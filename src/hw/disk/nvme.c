/*
 * NVMe controllers (NVM Express 1.4, chapters 3 and 7): registers, enabling, reset and shutdown,
 * life and state of the device. Queues are in nvme_queue.c, commands in nvme_admin.c and nvme_io.c.
 *
 * A block request cannot be called back. So a controller that is being disabled, and a queue that
 * is being deleted, is there until its last command has ended: CSTS.RDY and the deleting command
 * say so to the host. Quiesce and the machine's reset wait for the same.
 *
 * Device lock throughout.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/core/env.h"
#include "hw/disk/nvme_internal.h"

/* Of the range that is there for experiments without registration. */
#define VENDOR 0x1af4
#define DEVICE 0x10f1
#define PCI_CLASS_NVME 0x010802
#define REGISTER_BAR 0
#define MSIX_BAR 4
#define BAR_SIZE 0x2000
/* CAP: entries less one, contiguous queues, ready within 10 s, NVM command set; 4 KiB pages. */
#define CAPABILITIES ((NVME_ENTRIES_MAX - 1) | 1ull << 16 | 20ull << 24 | 1ull << 37)
#define AQA_SUBMISSION(aqa) (((aqa)&0xfffu) + 1)
#define AQA_COMPLETION(aqa) (((aqa) >> 16 & 0xfffu) + 1)

static struct nvme *to_nvme(struct device *device)
{
    return container_of(device, struct nvme, pci.device);
}

bool nvme_running(const struct nvme *nvme)
{
    return (nvme->csts & NVME_CSTS_RDY) && !(nvme->csts & NVME_CSTS_CFS) && !nvme->disabling &&
           !nvme->quiesced;
}

struct nvme_namespace *nvme_namespace(struct nvme *nvme, uint32_t nsid)
{
    return nsid && nsid <= nvme->ns_count ? &nvme->ns[nsid - 1] : NULL;
}

void nvme_log_error(struct nvme *nvme, const struct nvme_request *request, unsigned status)
{
    const struct nvme_command *command = &request->command;
    bool at_lba = request->sq->id && command->opcode != NVME_FLUSH;
    memmove(&nvme->error[1], &nvme->error[0], sizeof(nvme->error) - sizeof(nvme->error[0]));
    nvme->error[0] = (struct nvme_error){
        .count = ++nvme->error_count,
        .sq = request->sq->id,
        .cid = command->cid,
        .status = (uint16_t)status,
        .lba = at_lba ? command->dw10 | (uint64_t)command->dw11 << 32 : 0,
        .nsid = command->nsid,
    };
}

/* --- enabling and its end --- */

static void feature_defaults(struct nvme *nvme)
{
    memset(nvme->feature, 0, sizeof(nvme->feature));
    nvme->feature[NVME_FEATURE_TEMPERATURE] = 0x157;
    nvme->feature[NVME_FEATURE_WRITE_CACHE] = 0;
    for (unsigned i = 0; i < nvme->ns_count; i++)
        nvme->feature[NVME_FEATURE_WRITE_CACHE] |= nvme->ns[i].info.write_cache;
    nvme->feature[NVME_FEATURE_QUEUES] = (nvme->queues - 1) | (nvme->queues - 1) << 16;
}

/* What a controller reset leaves (section 7.3.1): the admin queues' registers stay. */
static void reset_controller(struct nvme *nvme)
{
    for (unsigned i = 0; i < nvme->queue_count; i++)
        nvme_sq_stop(&nvme->sq[i]);
    for (unsigned i = 0; i < nvme->queue_count; i++)
        nvme_cq_stop(&nvme->cq[i]);
    nvme->cc = nvme->csts = nvme->intms = 0;
    nvme->shadow = nvme->event_index = 0;
    nvme->aer_count = 0;
    nvme->changed = 0;
    nvme->changed_told = nvme->disabling = nvme->shutdown_wanted = false;
    feature_defaults(nvme);
    nvme_doorbells_update(nvme, false);
    pci_intx_set(&nvme->pci, false);
}

void nvme_went_idle(struct nvme *nvme)
{
    if (nvme->disabling)
        reset_controller(nvme);
    pthread_cond_broadcast(&nvme->idle);
}

static void enable(struct nvme *nvme)
{
    unsigned submission = AQA_SUBMISSION(nvme->aqa), completion = AQA_COMPLETION(nvme->aqa);
    /* Command set NVM, pages of 4 KiB, round robin. */
    bool good = !(nvme->cc & 0x3ff0) && submission >= 2 && completion >= 2 &&
                !((nvme->asq | nvme->acq) & (NVME_PAGE - 1));
    if (good) {
        nvme_cq_start(&nvme->cq[0], completion, nvme->acq, 0, true);
        good = nvme_sq_start(nvme, 0, 0, submission, nvme->asq);
    }
    if (!good)
        log_guest(&nvme->complaints, "nvme '%s': enabled with CC 0x%x, AQA 0x%x, ASQ 0x%llx",
                  nvme->pci.device.id, nvme->cc, nvme->aqa, (unsigned long long)nvme->asq);
    nvme->csts = good ? NVME_CSTS_RDY : NVME_CSTS_CFS;
}

static void disable(struct nvme *nvme)
{
    nvme->disabling = true;
    if (!nvme->in_flight)
        nvme_went_idle(nvme);
}

static void flushed(struct block_req *req, int result)
{
    struct nvme *nvme = req->opaque;
    struct lock *lock = &nvme->pci.device.lock;
    lock_take(lock);
    if (result < 0)
        log_error("nvme '%s': a disk could not be flushed at shutdown", nvme->pci.device.id);
    if (!--nvme->flushes)
        nvme->csts = (nvme->csts & ~NVME_CSTS_SHST) | NVME_CSTS_SHST_DONE;
    if (!--nvme->in_flight)
        nvme_went_idle(nvme);
    lock_drop(lock);
}

/* On the admin queue's loop: a host that shuts down finds its data stable. */
void nvme_shutdown_begin(struct nvme *nvme)
{
    nvme->shutdown_wanted = false;
    if (nvme->flushes)
        return;
    nvme->flushes = nvme->ns_count;
    nvme->in_flight += nvme->ns_count;
    for (unsigned i = 0; i < nvme->ns_count; i++) {
        struct nvme_namespace *ns = &nvme->ns[i];
        ns->flush = (struct block_req){.op = BLOCK_FLUSH, .done = flushed, .opaque = nvme};
        block_submit(ns->queue[0], &ns->flush);
    }
}

static void write_cc(struct nvme *nvme, uint32_t value)
{
    uint32_t before = nvme->cc;
    if (nvme->disabling)
        return; /* until CSTS.RDY reads 0 */
    nvme->cc = value;
    if ((value & NVME_CC_SHN) && !(before & NVME_CC_SHN) && !(nvme->csts & NVME_CSTS_SHST)) {
        nvme->csts |= NVME_CSTS_SHST_BUSY;
        nvme->shutdown_wanted = true;
        nvme_wake(&nvme->sq[0]);
    }
    if ((value & NVME_CC_EN) && !(before & NVME_CC_EN))
        enable(nvme);
    else if (!(value & NVME_CC_EN) && (before & NVME_CC_EN))
        disable(nvme);
}

/* --- registers --- */

static void register_image(const struct nvme *nvme, uint8_t image[NVME_REGISTERS_END])
{
    memset(image, 0, NVME_REGISTERS_END);
    put_le64(image + NVME_CAP, CAPABILITIES);
    put_le32(image + NVME_VS, NVME_VERSION);
    put_le32(image + NVME_INTMS, nvme->intms);
    put_le32(image + NVME_INTMC, nvme->intms);
    put_le32(image + NVME_CC, nvme->cc);
    put_le32(image + NVME_CSTS, nvme->csts);
    put_le32(image + NVME_AQA, nvme->aqa);
    put_le64(image + NVME_ASQ, nvme->asq);
    put_le64(image + NVME_ACQ, nvme->acq);
}

static uint64_t register_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct nvme *nvme = opaque;
    uint8_t image[NVME_REGISTERS_END];
    if (!range_within(offset, size, sizeof(image)))
        return 0;
    register_image(nvme, image);
    return get_le(image + offset, size);
}

static void set_half(uint64_t *whole, bool high, uint32_t value)
{
    unsigned shift = high ? 32 : 0;
    *whole = (*whole & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

static void write_word(struct nvme *nvme, uint64_t offset, uint32_t value)
{
    bool enabled = nvme->cc & NVME_CC_EN;
    switch (offset) {
    case NVME_INTMS:
        nvme->intms |= value;
        nvme_intx_update(nvme);
        break;
    case NVME_INTMC:
        nvme->intms &= ~value;
        nvme_intx_update(nvme);
        break;
    case NVME_CC:
        write_cc(nvme, value);
        break;
    case NVME_AQA:
        if (!enabled)
            nvme->aqa = value & 0x0fff0fff;
        break;
    case NVME_ASQ:
    case NVME_ASQ + 4:
        if (!enabled)
            set_half(&nvme->asq, offset != NVME_ASQ, value);
        break;
    case NVME_ACQ:
    case NVME_ACQ + 4:
        if (!enabled)
            set_half(&nvme->acq, offset != NVME_ACQ, value);
        break;
    default:
        break;
    }
}

static void register_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct nvme *nvme = opaque;
    if (size < 4 || offset % 4)
        return;
    if (offset >= NVME_DOORBELLS) {
        if (size == 4 && (nvme->csts & NVME_CSTS_RDY) && !nvme->disabling)
            nvme_doorbell(nvme, offset - NVME_DOORBELLS, (uint32_t)value);
        return;
    }
    write_word(nvme, offset, (uint32_t)value);
    if (size == 8)
        write_word(nvme, offset + 4, (uint32_t)(value >> 32));
}

static const struct io_ops register_ops = {register_read, register_write};

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    if (ranges_overlap(offset, size, PCI_COMMAND, 2) ||
        ranges_overlap(offset, size, PCI_BAR0, 4 * PCI_BARS))
        nvme_doorbells_update(container_of(pci, struct nvme, pci), false);
}

/* --- life --- */

static void batch_done(void *opaque)
{
    struct nvme_loop *from = opaque;
    struct nvme *nvme = from->nvme;
    lock_take(&nvme->pci.device.lock);
    nvme_interrupts(nvme);
    lock_drop(&nvme->pci.device.lock);
}

static struct err *build_namespace(struct nvme *nvme, struct nvme_namespace *ns)
{
    block_get_info(ns->block, &ns->info);
    ns->queue = xcalloc(nvme->loops, sizeof(struct block_queue *));
    for (unsigned i = 0; i < nvme->loops; i++) {
        TRY(block_queue_new(ns->block, nvme->loop[i].loop, &ns->queue[i]));
        block_queue_on_batch(ns->queue[i], batch_done, &nvme->loop[i]);
    }
    return NULL;
}

/* FNV-1a: the same serial gives the same identity. */
static uint64_t identity_of(const char *serial)
{
    uint64_t hash = 14695981039346656037u;
    for (; *serial; serial++)
        hash = (hash ^ (uint8_t)*serial) * 1099511628211u;
    return hash;
}

static void build_pci(struct nvme *nvme)
{
    struct pci_device *pci = &nvme->pci;
    pci_device_identify(pci, VENDOR, DEVICE, PCI_CLASS_NVME, 1, VENDOR, DEVICE);
    pci_intx_add(pci);
    pci_express_add(pci);
    pci_msix_add(pci, nvme->queue_count, MSIX_BAR);
    pci_bar_add(pci, REGISTER_BAR, PCI_BAR_MEM64, BAR_SIZE, &register_ops, nvme);
    pci->config_written = config_written;
}

static struct err *nvme_realize(struct device *device)
{
    struct nvme *nvme = to_nvme(device);
    if (!nvme->queues)
        nvme->queues = 1;
    if (nvme->queues > NVME_QUEUES_MAX || !nvme->ns_count || nvme->ns_count > NVME_NAMESPACES_MAX)
        return err_of(ERR_USAGE, "%u queues and %u namespaces, at most %d and %d are possible",
                      nvme->queues, nvme->ns_count, NVME_QUEUES_MAX, NVME_NAMESPACES_MAX);
    pthread_cond_init(&nvme->idle, NULL);
    if (nvme->serial)
        memcpy(nvme->serial_text, nvme->serial, strnlen(nvme->serial, NVME_SERIAL_LEN));
    nvme->identity = identity_of(nvme->serial_text);
    nvme->loops = MAX(nvme->io_loop_count, 1u);
    nvme->loop = xcalloc(nvme->loops, sizeof(*nvme->loop));
    for (unsigned i = 0; i < nvme->loops; i++)
        nvme->loop[i] = (struct nvme_loop){
            nvme, nvme->io_loop_count ? nvme->io_loops[i] : device->env->loop, i};
    TRY(nvme_queues_build(nvme));
    build_pci(nvme);
    for (unsigned i = 0; i < nvme->ns_count; i++)
        TRY(err_wrap(build_namespace(nvme, &nvme->ns[i]), "namespace %u", i + 1));
    return NULL;
}

/* Nothing is in flight afterwards. The lock is dropped meanwhile. */
static void drain(struct nvme *nvme)
{
    struct lock *lock = &nvme->pci.device.lock;
    for (unsigned i = 0; i < nvme->loops && nvme->in_flight; i++) {
        if (!loop_is_mine(nvme->loop[i].loop))
            continue;
        lock_drop(lock);
        for (unsigned k = 0; k < nvme->ns_count; k++)
            block_drain(nvme->ns[k].queue[i]);
        lock_take(lock);
    }
    while (nvme->in_flight)
        pthread_cond_wait(&nvme->idle, &lock->mutex);
}

static void nvme_quiesce(struct device *device)
{
    struct nvme *nvme = to_nvme(device);
    lock_take(&device->lock);
    nvme->quiesced = true;
    drain(nvme);
    lock_drop(&device->lock);
}

static void nvme_resume(struct device *device)
{
    struct nvme *nvme = to_nvme(device);
    lock_take(&device->lock);
    nvme->quiesced = false;
    for (unsigned i = 0; i < nvme->queue_count; i++) {
        if (nvme->sq[i].live || nvme->shutdown_wanted)
            nvme_wake(&nvme->sq[i]);
    }
    lock_drop(&device->lock);
}

static void nvme_reset(struct device *device)
{
    struct nvme *nvme = to_nvme(device);
    bool was_quiesced = nvme->quiesced;
    lock_take(&device->lock);
    nvme->quiesced = true;
    drain(nvme);
    nvme->quiesced = was_quiesced;
    reset_controller(nvme);
    nvme->aqa = 0;
    nvme->asq = nvme->acq = 0;
    nvme->error_count = nvme->reads = nvme->writes = nvme->read_units = nvme->write_units = 0;
    memset(nvme->error, 0, sizeof(nvme->error));
    pci_device_reset(&nvme->pci);
    nvme_doorbells_update(nvme, false);
    lock_drop(&device->lock);
}

static void nvme_fini(struct device *device)
{
    struct nvme *nvme = to_nvme(device);
    nvme_queues_fini(nvme);
    for (unsigned i = 0; i < nvme->ns_count; i++) {
        for (unsigned k = 0; nvme->ns[i].queue && k < nvme->loops; k++)
            block_queue_free(nvme->ns[i].queue[k]);
        free(nvme->ns[i].queue);
        nvme->ns[i].queue = NULL;
    }
    if (nvme->loop)
        pthread_cond_destroy(&nvme->idle);
    free(nvme->loop);
    nvme->loop = NULL;
    pci_device_fini(&nvme->pci);
}

void nvme_resized(struct nvme *nvme, unsigned index)
{
    lock_take(&nvme->pci.device.lock);
    block_get_info(nvme->ns[index].block, &nvme->ns[index].info);
    nvme->changed |= 1u << index;
    nvme_wake(&nvme->sq[0]);
    lock_drop(&nvme->pci.device.lock);
}

const struct device_class nvme_class = {
    .name = "nvme",
    .description = "NVMe controller with namespaces",
    .size = sizeof(struct nvme),
    .state = &nvme_state,
    .realize = nvme_realize,
    .reset = nvme_reset,
    .quiesce = nvme_quiesce,
    .resume = nvme_resume,
    .fini = nvme_fini,
};
DEVICE_CLASS(nvme_class);
