/*
 * Queues of the NVMe controller (NVMe 1.4, section 4): fetching commands, posting completions,
 * doorbells and their shadows (section 7.13), interrupts.
 *
 * A command is fetched only when its completion has a place: each one in flight holds a reserved
 * entry of its completion queue, so that posting never waits. A queue that finds no place goes on
 * when the host has moved the head.
 *
 * Device lock throughout; a submission queue's commands start and end on its loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "hw/core/env.h"
#include "hw/disk/nvme_internal.h"

#define REGISTER_BAR 0
#define DOORBELL_SIZE 4

static struct gmem *nvme_gmem(const struct nvme *nvme)
{
    return nvme->pci.device.env->gmem;
}

void nvme_wake(struct nvme_sq *sq)
{
    uint64_t one = 1;
    (void)!write(sq->kick_fd, &one, sizeof(one));
}

static void fatal(struct nvme *nvme, const char *what, uint64_t gpa)
{
    log_guest(&nvme->complaints, "nvme '%s': %s at 0x%llx is not in RAM", nvme->pci.device.id, what,
              (unsigned long long)gpa);
    nvme->csts |= NVME_CSTS_CFS;
}

/* --- shadow doorbells: of I/O queues only, as hosts have it --- */

static bool shadowed(const struct nvme *nvme, unsigned id)
{
    return nvme->shadow && id;
}

/* Reads a doorbell's shadow; what lies outside the queue counts as not written. */
static void shadow_read(struct nvme *nvme, unsigned doorbell, uint16_t size, uint16_t *value)
{
    uint32_t now;
    if (gmem_load_le32(nvme_gmem(nvme), nvme->shadow + 4 * doorbell, &now) == 0 && now < size)
        *value = (uint16_t)now;
}

/* Asks the host for a real doorbell when it moves past the value; looks afterwards once more. */
static void shadow_ask(struct nvme *nvme, unsigned doorbell, uint16_t size, uint16_t *value)
{
    gmem_store_le32(nvme_gmem(nvme), nvme->event_index + 4 * doorbell, *value);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    shadow_read(nvme, doorbell, size, value);
}

/* --- completion queues --- */

static unsigned cq_free(const struct nvme_cq *cq)
{
    unsigned used = (unsigned)(cq->tail - cq->head + cq->size) % cq->size;
    return cq->size - 1u - used;
}

static bool cq_has_room(struct nvme *nvme, unsigned id)
{
    struct nvme_cq *cq = &nvme->cq[id];
    if (cq_free(cq) > cq->reserved)
        return true;
    if (shadowed(nvme, id))
        shadow_read(nvme, 2 * id + 1, cq->size, &cq->head);
    if (cq_free(cq) <= cq->reserved && shadowed(nvme, id))
        shadow_ask(nvme, 2 * id + 1, cq->size, &cq->head);
    cq->stalled = cq_free(cq) <= cq->reserved;
    return !cq->stalled;
}

static void post(struct nvme *nvme, unsigned id, const struct nvme_sq *sq, uint16_t cid,
                 uint32_t result, unsigned status)
{
    struct nvme_cq *cq = &nvme->cq[id];
    uint64_t at = cq->base + (uint64_t)cq->tail * NVME_CQE;
    uint8_t entry[12] = {0};
    put_le32(entry, result);
    put_le16(entry + 8, sq->head);
    put_le16(entry + 10, sq->id);
    /* The phase bit, in the last word, makes the entry the host's. */
    uint32_t last = cid | (uint32_t)cq->phase << 16 | (uint32_t)(status & 0x7fff) << 17;
    if (gmem_write(nvme_gmem(nvme), at, entry, sizeof(entry)) < 0 ||
        gmem_store_le32(nvme_gmem(nvme), at + sizeof(entry), last) < 0)
        fatal(nvme, "a completion queue", at);
    if (++cq->tail == cq->size) {
        cq->tail = 0;
        cq->phase = !cq->phase;
    }
    cq->unsignalled = true;
}

void nvme_cq_start(struct nvme_cq *cq, unsigned size, uint64_t base, unsigned vector,
                   bool interrupts)
{
    *cq = (struct nvme_cq){.live = true,
                           .interrupts = interrupts,
                           .phase = true,
                           .size = (uint16_t)size,
                           .base = base,
                           .vector = (uint16_t)vector};
}

void nvme_cq_stop(struct nvme_cq *cq)
{
    memset(cq, 0, sizeof(*cq));
}

void nvme_intx_update(struct nvme *nvme)
{
    bool level = false;
    for (unsigned i = 0; i < nvme->queue_count; i++) {
        const struct nvme_cq *cq = &nvme->cq[i];
        level |= cq->live && cq->interrupts && cq->head != cq->tail && !(nvme->intms & 1);
    }
    pci_intx_set(&nvme->pci, level && !pci_msix_enabled(&nvme->pci));
}

void nvme_interrupts(struct nvme *nvme)
{
    bool messages = pci_msix_enabled(&nvme->pci);
    for (unsigned i = 0; i < nvme->queue_count; i++) {
        struct nvme_cq *cq = &nvme->cq[i];
        if (!cq->live || !cq->unsignalled)
            continue;
        cq->unsignalled = false;
        if (messages && cq->interrupts)
            pci_msix_notify(&nvme->pci, cq->vector);
        /* A level falls when the head moves: that must be heard of. */
        if (!messages && shadowed(nvme, i))
            shadow_ask(nvme, 2 * i + 1, cq->size, &cq->head);
    }
    if (!messages)
        nvme_intx_update(nvme);
}

/* --- submission queues --- */

static struct nvme_request *slot_take(struct nvme_sq *sq)
{
    struct nvme_request *request = sq->free;
    if (request)
        sq->free = request->next_free;
    else if (sq->slots_touched < sq->size)
        request = &sq->slots[sq->slots_touched++];
    if (request) {
        request->sq = sq;
        request->result = 0;
        request->segments = 0;
        sq->in_flight++;
        sq->nvme->in_flight++;
        sq->nvme->cq[sq->cq].reserved++;
    }
    return request;
}

/* What waited for the last command of a queue or of the controller. */
static void went_through(struct nvme_sq *sq)
{
    struct nvme *nvme = sq->nvme;
    if (!sq->in_flight && sq->doomed) {
        struct nvme_request *doomed = sq->doomed;
        nvme_sq_stop(sq);
        nvme_complete(doomed, NVME_OK);
    }
    if (!nvme->in_flight)
        nvme_went_idle(nvme);
}

void nvme_complete(struct nvme_request *request, unsigned status)
{
    struct nvme_sq *sq = request->sq;
    struct nvme *nvme = sq->nvme;
    unsigned type = status >> 8 & 7;
    if (status != NVME_OK && status != NVME_SILENT) {
        nvme_log_error(nvme, request, status);
        if (type == 1 || (type == 0 && status != NVME_INTERNAL_ERROR))
            status |= NVME_DO_NOT_RETRY;
    }
    if (!nvme->disabling && status != NVME_SILENT)
        post(nvme, sq->cq, sq, request->command.cid, request->result, status);
    nvme->cq[sq->cq].reserved--;
    nvme->in_flight--;
    sq->in_flight--;
    request->next_free = sq->free;
    sq->free = request;
    if (sq->starved)
        nvme_wake(sq);
    sq->starved = false;
    went_through(sq);
}

bool nvme_post_admin(struct nvme *nvme, uint16_t cid, uint32_t result)
{
    if (!cq_has_room(nvme, 0))
        return false;
    post(nvme, 0, &nvme->sq[0], cid, result, NVME_OK);
    return true;
}

static void start(struct nvme_sq *sq, struct nvme_request *request, const uint8_t *entry)
{
    request->command = (struct nvme_command){
        .opcode = entry[0],
        .flags = entry[1],
        .cid = get_le16(entry + 2),
        .nsid = get_le32(entry + 4),
        .prp1 = get_le64(entry + 24),
        .prp2 = get_le64(entry + 32),
        .dw10 = get_le32(entry + 40),
        .dw11 = get_le32(entry + 44),
        .dw12 = get_le32(entry + 48),
        .dw13 = get_le32(entry + 52),
    };
    unsigned status = NVME_INVALID_FIELD;
    if (!request->command.flags) /* neither fused nor with a scatter-gather list */
        status = sq->id ? nvme_io(request) : nvme_admin(request);
    if (status != NVME_PENDING)
        nvme_complete(request, status);
}

/* Is there a command to fetch? Otherwise the next doorbell will be heard. */
static bool available(struct nvme_sq *sq)
{
    struct nvme *nvme = sq->nvme;
    if (sq->head == sq->tail && shadowed(nvme, sq->id)) {
        shadow_read(nvme, 2 * sq->id, sq->size, &sq->tail);
        if (sq->head == sq->tail)
            shadow_ask(nvme, 2 * sq->id, sq->size, &sq->tail);
    }
    return sq->head != sq->tail;
}

static void serve(struct nvme_sq *sq)
{
    struct nvme *nvme = sq->nvme;
    /* A host that adds faster than we serve is served again after the loop's other work. */
    for (unsigned turn = 2u * sq->size; sq->live && nvme_running(nvme) && !sq->doomed; turn--) {
        uint8_t entry[NVME_SQE];
        uint64_t at = sq->base + (uint64_t)sq->head * NVME_SQE;
        if (!available(sq) || !cq_has_room(nvme, sq->cq))
            return;
        if (!turn) {
            nvme_wake(sq);
            return;
        }
        if (gmem_read(nvme_gmem(nvme), at, entry, sizeof(entry)) < 0) {
            fatal(nvme, "a submission queue", at);
            return;
        }
        struct nvme_request *request = slot_take(sq);
        if (!request) {
            sq->starved = true;
            return;
        }
        sq->head = (uint16_t)((sq->head + 1) % sq->size);
        start(sq, request, entry);
    }
}

/* The queue's loop: a doorbell, room, or a shutdown. */
static void kicked(void *opaque, uint32_t events)
{
    struct nvme_sq *sq = opaque;
    struct nvme *nvme = sq->nvme;
    struct lock *lock = &nvme->pci.device.lock;
    uint64_t count;
    (void)!read(sq->kick_fd, &count, sizeof(count));
    lock_take(lock);
    if (!sq->id && nvme->shutdown_wanted && !nvme->quiesced)
        nvme_shutdown_begin(nvme);
    serve(sq);
    if (!sq->id)
        nvme_events(nvme);
    nvme_interrupts(nvme);
    lock_drop(lock);
    /* The kernel copies cached data right here: no vCPU need wait for that. */
    for (unsigned i = 0; i < nvme->ns_count; i++)
        block_flush_submissions(nvme->ns[i].queue[nvme_loop_index(nvme, sq)]);
}

bool nvme_sq_restore(struct nvme_sq *sq)
{
    /* Zero pages: only the slots that are in flight together ever cost memory. */
    sq->slots = calloc(sq->size, sizeof(*sq->slots));
    sq->free = NULL;
    sq->slots_touched = 0;
    sq->nvme->cq[sq->cq].users++;
    return sq->slots != NULL;
}

bool nvme_sq_start(struct nvme *nvme, unsigned id, unsigned cq, unsigned size, uint64_t base)
{
    struct nvme_sq *sq = &nvme->sq[id];
    sq->live = true;
    sq->cq = (uint16_t)cq;
    sq->size = (uint16_t)size;
    sq->head = sq->tail = 0;
    sq->base = base;
    if (!nvme_sq_restore(sq)) {
        nvme_sq_stop(sq);
        return false;
    }
    nvme_doorbells_update(nvme, false);
    return true;
}

void nvme_sq_stop(struct nvme_sq *sq)
{
    if (!sq->live)
        return;
    sq->nvme->cq[sq->cq].users--;
    sq->live = sq->starved = false;
    sq->cq = sq->size = sq->head = sq->tail = 0;
    sq->base = 0;
    sq->doomed = NULL;
    free(sq->slots);
    sq->slots = sq->free = NULL;
    nvme_doorbells_update(sq->nvme, false);
}

/* --- doorbells --- */

/* The head of a completion queue has moved. */
static void room_made(struct nvme *nvme, unsigned id)
{
    struct nvme_cq *cq = &nvme->cq[id];
    if (cq->stalled) {
        cq->stalled = false;
        for (unsigned i = 0; i < nvme->queue_count; i++) {
            if (nvme->sq[i].live && nvme->sq[i].cq == id)
                nvme_wake(&nvme->sq[i]);
        }
    }
    nvme_intx_update(nvme);
}

void nvme_doorbell(struct nvme *nvme, uint64_t offset, uint32_t value)
{
    unsigned id = (unsigned)(offset / 8);
    bool head = offset / 4 & 1;
    if (id >= nvme->queue_count || !(head ? nvme->cq[id].live : nvme->sq[id].live)) {
        log_guest(&nvme->complaints, "nvme '%s': a doorbell of queue %u, which is not there",
                  nvme->pci.device.id, id);
        return;
    }
    if (value >= (head ? nvme->cq[id].size : nvme->sq[id].size)) {
        log_guest(&nvme->complaints, "nvme '%s': a doorbell of queue %u moves it to entry %u",
                  nvme->pci.device.id, id, value);
        return;
    }
    if (head) {
        nvme->cq[id].head = (uint16_t)value;
        room_made(nvme, id);
    } else {
        if (!shadowed(nvme, id))
            nvme->sq[id].tail = (uint16_t)value;
        nvme_wake(&nvme->sq[id]);
    }
}

/* With shadows the value that is written means nothing, so the write need not come here. */
void nvme_doorbells_update(struct nvme *nvme, bool off)
{
    struct hw_env *env = nvme->pci.device.env;
    const struct io_region *region = &nvme->pci.bar[REGISTER_BAR].region;
    if (!env->ops || !env->ops->doorbell_add)
        return;
    for (unsigned i = 1; i < nvme->queue_count; i++) {
        struct nvme_sq *sq = &nvme->sq[i];
        uint64_t wanted = 0;
        if (!off && region->bus && sq->live && nvme->shadow)
            wanted = region->base + NVME_DOORBELLS + 8 * i;
        if (sq->doorbell == wanted)
            continue;
        if (sq->doorbell)
            env->ops->doorbell_remove(env->opaque, sq->doorbell, DOORBELL_SIZE, sq->kick_fd);
        sq->doorbell = 0;
        if (!wanted)
            continue;
        struct err *err = env->ops->doorbell_add(env->opaque, wanted, DOORBELL_SIZE, sq->kick_fd);
        if (!err)
            sq->doorbell = wanted;
        err_free(err); /* the write comes to nvme_doorbell() then */
    }
}

struct err *nvme_queues_build(struct nvme *nvme)
{
    nvme->queue_count = nvme->queues + 1;
    nvme->sq = xcalloc(nvme->queue_count, sizeof(*nvme->sq));
    nvme->cq = xcalloc(nvme->queue_count, sizeof(*nvme->cq));
    for (unsigned i = 0; i < nvme->queue_count; i++)
        nvme->sq[i] = (struct nvme_sq){.nvme = nvme, .id = (uint16_t)i, .kick_fd = -1};
    for (unsigned i = 0; i < nvme->queue_count; i++) {
        struct nvme_sq *sq = &nvme->sq[i];
        sq->loop = nvme->loop[nvme_loop_index(nvme, sq)].loop;
        sq->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (sq->kick_fd < 0)
            return err_errno(errno, "cannot create a doorbell");
        TRY(loop_fd_add(sq->loop, &sq->kick_watch, sq->kick_fd, EPOLLIN, kicked, sq));
    }
    return NULL;
}

void nvme_queues_fini(struct nvme *nvme)
{
    if (!nvme->sq)
        return;
    nvme_doorbells_update(nvme, true);
    for (unsigned i = 0; i < nvme->queue_count; i++) {
        loop_fd_remove(&nvme->sq[i].kick_watch);
        fd_cleanup(&nvme->sq[i].kick_fd);
        free(nvme->sq[i].slots);
    }
    free(nvme->sq);
    free(nvme->cq);
    nvme->sq = NULL;
    nvme->cq = NULL;
}
