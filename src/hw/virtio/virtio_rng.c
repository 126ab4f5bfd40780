/*
 * virtio-rng (virtio 1.2, section 5.4): each request is filled from getrandom().
 *
 * A guest may ask without end, so a bucket bounds the rate: requests beyond it wait for the timer.
 * The device keeps no request: what the bucket cannot serve stays in the ring.
 *
 * Device lock, on the device's loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <sys/random.h>

#include "base/clock.h"
#include "hw/virtio/virtio_rng.h"

#define PCI_CLASS_OTHER 0x00ff00
#define DEFAULT_RATE MIB(1)
/* A request gets no more at once; the driver asks again. */
#define CHUNK 4096u

static struct virtio_rng *to_rng(struct virtio_device *virtio)
{
    return container_of(virtio, struct virtio_rng, virtio);
}

/* The bucket holds a tenth of a second. */
static void refill(struct virtio_rng *rng)
{
    uint64_t now = clock_now_ns();
    uint64_t most = MAX(rng->bytes_per_second / 10, (uint64_t)CHUNK);
    uint64_t elapsed = MIN(now - rng->refilled_ns, NSEC_PER_SEC);
    uint64_t more = (uint64_t)((unsigned __int128)elapsed * rng->bytes_per_second / NSEC_PER_SEC);
    if (more) {
        rng->budget = MIN(rng->budget + more, most);
        rng->refilled_ns = now;
    }
}

static uint32_t fill(struct virtq_req *req, uint64_t most)
{
    uint8_t bytes[CHUNK];
    size_t want = (size_t)MIN(MIN(most, req->in_len), (uint64_t)CHUNK);
    ssize_t got;
    do
        got = getrandom(bytes, want, 0);
    while (got < 0 && errno == EINTR);
    return got > 0 ? (uint32_t)virtq_req_write(req, 0, bytes, (size_t)got) : 0;
}

static void rng_queue_kick(struct virtio_device *virtio, struct virtq *queue)
{
    struct virtio_rng *rng = to_rng(virtio);
    struct virtq_req *req;
    refill(rng);
    while (rng->budget && (req = virtq_pop(queue))) {
        uint32_t written = fill(req, rng->budget);
        rng->budget -= MIN(rng->budget, (uint64_t)MAX(written, 1u));
        virtq_push(queue, req, written);
    }
    virtq_notify(queue);
    if (!rng->budget) /* also when the ring looks empty: only an unsuccessful pop asks for doorbells
                       */
        loop_timer_arm(&rng->timer,
                       clock_now_ns() +
                           MAX(NSEC_PER_SEC * CHUNK / rng->bytes_per_second, NSEC_PER_MSEC));
}

static void rng_refilled(void *opaque)
{
    struct virtio_rng *rng = opaque;
    struct lock *lock = &rng->virtio.pci.device.lock;
    lock_take(lock);
    rng_queue_kick(&rng->virtio, virtio_queue(&rng->virtio, 0));
    lock_drop(lock);
}

static const struct virtio_ops rng_ops = {
    .id = VIRTIO_ID_RNG,
    .pci_class = PCI_CLASS_OTHER,
    .queue_kick = rng_queue_kick,
};

static struct err *rng_realize(struct device *device)
{
    struct virtio_rng *rng = (struct virtio_rng *)device;
    struct virtio_device *virtio = &rng->virtio;
    if (!rng->bytes_per_second)
        rng->bytes_per_second = DEFAULT_RATE;
    virtio->ops = &rng_ops;
    virtio->queue_count = 1;
    if (!virtio->queue_size)
        virtio->queue_size = 64;
    TRY(virtio_realize(virtio));
    loop_timer_init(virtio->loop, &rng->timer, rng_refilled, rng);
    return NULL;
}

static void rng_reset(struct device *device)
{
    virtio_reset(&((struct virtio_rng *)device)->virtio);
}

static void rng_quiesce(struct device *device)
{
    virtio_quiesce(&((struct virtio_rng *)device)->virtio);
}

static void rng_resume(struct device *device)
{
    virtio_resume(&((struct virtio_rng *)device)->virtio);
}

static void rng_fini(struct device *device)
{
    struct virtio_rng *rng = (struct virtio_rng *)device;
    loop_timer_cancel(&rng->timer);
    virtio_fini(&rng->virtio);
}

static const struct state_field fields[] = {
    STATE_STRUCT(1, virtio_rng, virtio, &virtio_device_state),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("virtio-rng", virtio_rng, fields),
};

const struct device_class virtio_rng_class = {
    .name = "virtio-rng",
    .description = "virtio entropy source",
    .size = sizeof(struct virtio_rng),
    .state = &state,
    .realize = rng_realize,
    .reset = rng_reset,
    .quiesce = rng_quiesce,
    .resume = rng_resume,
    .fini = rng_fini,
};
DEVICE_CLASS(virtio_rng_class);
