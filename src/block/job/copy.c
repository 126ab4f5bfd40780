/*
 * Copies a stretch of one disk onto another.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "block/core/driver.h"
#include "block/job/copy.h"

#define GRAIN KIB(4)    /* what a hole of a file is made of */
#define UNIT_MAX MIB(2) /* larger clusters are written in part */

enum unit_kind { UNIT_LEAVE, UNIT_ZERO, UNIT_DATA };

struct slot {
    uint64_t length;
    uint8_t *data, *base, *packed;
    uint8_t *kind;         /* enum unit_kind of each unit */
    size_t *packed_length; /* of each unit; 0: it is written plain */
    int read_result, write_result;
    uint64_t unreadable;
};

struct copy {
    struct copy_job *job;
    struct slot slot[JOB_SLOTS_MAX];
    unsigned slots;
    bool direct;    /* workers write */
    bool offload;   /* they need not even read */
    uint64_t piece; /* bytes */
    uint64_t started_ns, written;
};

void copy_job_init(struct copy_job *job, struct image *source, struct image *target)
{
    struct image_info info;
    image_get_info(target, &info);
    *job = (struct copy_job){.source = {source},
                             .target = target,
                             .length = image_size(source),
                             .depth_max = UINT32_MAX,
                             .workers = 1,
                             .unit = MAX(info.cluster_size, GRAIN),
                             .find_zeros = true};
    if (job->unit > UNIT_MAX || UNIT_MAX % job->unit)
        job->unit = GRAIN;
}

static uint64_t unit_count(const struct copy *c, const struct slot *slot)
{
    return (slot->length + c->job->unit - 1) / c->job->unit;
}

static uint64_t unit_length(const struct copy *c, const struct slot *slot, uint64_t index)
{
    return MIN(c->job->unit, slot->length - index * c->job->unit);
}

/* Units from the byte `from` to `to` of the slot; a unit that is of two kinds is data. */
static void mark(const struct copy *c, struct slot *slot, uint64_t from, uint64_t to,
                 enum unit_kind kind)
{
    uint64_t first = from / c->job->unit, last = (to - 1) / c->job->unit;
    for (uint64_t i = first; i <= last; i++) {
        bool shared = i == first && from % c->job->unit;
        slot->kind[i] = shared && slot->kind[i] != kind ? UNIT_DATA : kind;
    }
}

/* Reads sector by sector what cannot be read at once; what fails is zeros. */
static void salvage(struct slot *slot, struct image *source, uint8_t *out, uint64_t offset,
                    uint64_t length)
{
    for (uint64_t at = 0; at < length; at += IMAGE_SECTOR) {
        uint64_t here = MIN(length - at, IMAGE_SECTOR);
        if (image_read(source, out + at, offset + at, here)) {
            memset(out + at, 0, here);
            slot->unreadable += here;
        }
    }
}

/* The descriptor of a file that a raw disk is, or -1. */
static int raw_fd(const struct image *image)
{
    return image->driver == &image_raw ? image_fd(image->file) : -1;
}

/*
 * What the kernel copies from file to file of whole units between `at` and `end` of the slot; sets
 * where they begin and end. What it does not copy is for us to read.
 */
static int offload(struct copy *c, const struct slot *slot, struct image *source, uint64_t start,
                   uint64_t *at, uint64_t *end)
{
    const struct copy_job *job = c->job;
    uint64_t last = *end == slot->length ? *end : ALIGN_DOWN(*end, (uint64_t)job->unit);
    *at = ALIGN_UP(*at, (uint64_t)job->unit);
    *end = *at;
    off_t to = (off_t)(start + *at), from = (off_t)(job->source_offset + start + *at);
    while (*end < last && __atomic_load_n(&c->offload, __ATOMIC_RELAXED)) {
        ssize_t done =
            copy_file_range(raw_fd(source), &from, raw_fd(job->target), &to, last - *end, 0);
        if (done > 0) {
            *end += (uint64_t)done;
            continue;
        }
        if (done < 0 && errno != EXDEV && errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS)
            return -errno;
        /* Not between these, or the source has become shorter. */
        __atomic_store_n(&c->offload, false, __ATOMIC_RELAXED);
    }
    if (*end != slot->length)
        *end = ALIGN_DOWN(*end, (uint64_t)job->unit);
    return 0;
}

/* Data from `at` on into the slot. */
static int read_data(const struct copy *c, struct slot *slot, struct image *source, uint64_t at,
                     uint64_t offset, uint64_t length)
{
    int result = length ? image_read(source, slot->data + at, offset, length) : 0;
    if (!result || !c->job->salvage)
        return result;
    salvage(slot, source, slot->data + at, offset, length);
    return 0;
}

/* One extent of the source into the slot; sets how long it is. */
static int read_extent(struct copy *c, struct slot *slot, struct image *source, uint64_t at,
                       uint64_t start, uint64_t *length)
{
    const struct copy_job *job = c->job;
    uint64_t size = image_size(source), offset = job->source_offset + start + at;
    struct image_extent extent = {.length = *length, .flags = IMAGE_EXTENT_ZERO};
    unsigned depth = 0;
    if (offset < size) {
        int result =
            image_extent_chain(source, offset, MIN(*length, size - offset), &extent, &depth);
        if (result)
            return result;
    }
    *length = extent.length;
    enum unit_kind kind = extent.flags & IMAGE_EXTENT_ZERO ? UNIT_ZERO : UNIT_DATA;
    if (!(extent.flags & IMAGE_EXTENT_ALLOCATED) && offset < size)
        depth = UINT32_MAX; /* nobody decides */
    if (depth < job->depth_min || depth > job->depth_max)
        kind = UNIT_LEAVE;
    mark(c, slot, at, at + *length, kind);
    if (kind != UNIT_DATA) {
        memset(slot->data + at, 0, *length);
        return 0;
    }
    uint64_t end = at + *length, from = at, to = end;
    bool try = __atomic_load_n(&c->offload, __ATOMIC_RELAXED);
    int result = try ? offload(c, slot, source, start, &from, &to) : 0;
    if (!result && try && to > from) {
        mark(c, slot, from, to, UNIT_LEAVE);
        result = read_data(c, slot, source, at, offset, from - at);
        at = to;
        offset = job->source_offset + start + to;
    }
    return result ? result : read_data(c, slot, source, at, offset, end - at);
}

static int read_slot(struct copy *c, struct slot *slot, unsigned worker, uint64_t start)
{
    const struct copy_job *job = c->job;
    for (uint64_t at = 0, length; at < slot->length; at += length) {
        length = slot->length - at;
        int result = read_extent(c, slot, job->source[worker], at, start, &length);
        if (result)
            return result;
    }
    for (uint64_t i = 0, units = unit_count(c, slot); i < units; i++) {
        if (slot->kind[i] == UNIT_DATA && job->find_zeros &&
            image_is_zero(slot->data + i * job->unit, unit_length(c, slot, i)))
            slot->kind[i] = UNIT_ZERO;
        if (slot->kind[i] == UNIT_ZERO && job->write_zeros)
            slot->kind[i] = UNIT_DATA;
        else if (slot->kind[i] == UNIT_ZERO && job->target_zero)
            slot->kind[i] = UNIT_LEAVE;
    }
    return 0;
}

/* Leaves out what the target will show anyhow. */
static int compare_base(const struct copy *c, struct slot *slot, unsigned worker, uint64_t start)
{
    struct image *base = c->job->base[worker];
    uint64_t unit = c->job->unit, size = base ? image_size(base) : 0;
    if (!base)
        return 0;
    uint64_t have = start < size ? MIN(slot->length, size - start) : 0;
    memset(slot->base + have, 0, slot->length - have);
    int result = have ? image_read(base, slot->base, start, have) : 0;
    for (uint64_t i = 0, units = unit_count(c, slot); i < units && !result; i++)
        if (!memcmp(slot->data + i * unit, slot->base + i * unit, unit_length(c, slot, i)))
            slot->kind[i] = UNIT_LEAVE;
    return result;
}

static int compress(const struct copy *c, struct slot *slot)
{
    uint64_t units = unit_count(c, slot), unit = c->job->unit;
    memset(slot->data + slot->length, 0, units * unit - slot->length);
    for (uint64_t i = 0; i < units; i++) {
        int result = 0;
        if (slot->kind[i] == UNIT_DATA)
            result = image_compress(c->job->target, slot->data + i * unit, slot->packed + i * unit,
                                    &slot->packed_length[i]);
        if (result)
            return result;
    }
    return 0;
}

/* Runs of units of one kind; a compressed unit is a run of its own. */
static int write_slot(const struct copy *c, const struct slot *slot, uint64_t start)
{
    const struct copy_job *job = c->job;
    uint64_t units = unit_count(c, slot);
    for (uint64_t i = 0, count; i < units; i += count) {
        uint64_t at = i * job->unit;
        enum unit_kind kind = slot->kind[i];
        int result = 0;
        count = 1;
        if (kind == UNIT_DATA && job->compress && slot->packed_length[i]) {
            result = image_write_compressed(job->target, start + at, slot->packed + at,
                                            slot->packed_length[i]);
            if (result)
                return result;
            continue;
        }
        while (i + count < units && slot->kind[i + count] == kind &&
               !(kind == UNIT_DATA && job->compress))
            count++;
        uint64_t length = MIN(count * job->unit, slot->length - at);
        if (kind == UNIT_DATA)
            result = image_write(job->target, slot->data + at, start + at, length);
        else if (kind == UNIT_ZERO)
            result = image_zero(job->target, start + at, length, true);
        if (result)
            return result;
    }
    return 0;
}

/* Long stretches of nothing are passed over at once. */
static uint64_t skip(void *opaque, uint64_t piece)
{
    const struct copy *c = opaque;
    const struct copy_job *job = c->job;
    uint64_t pieces = (job->length + c->piece - 1) / c->piece, size = image_size(job->source[0]);
    while (piece < pieces && job->target_zero && !job->write_zeros && !job->base[0]) {
        struct image_extent extent;
        unsigned depth;
        uint64_t at = piece * c->piece, offset = job->source_offset + at;
        if (offset >= size)
            return pieces;
        uint64_t length = MIN(job->length - at, size - offset);
        if (image_extent_chain(job->source[0], offset, length, &extent, &depth) ||
            !(extent.flags & IMAGE_EXTENT_ZERO) ||
            (extent.length < c->piece && extent.length < length))
            break; /* whatever is wrong, reading will say it */
        piece += MAX(extent.length / c->piece, (uint64_t)1);
    }
    return piece;
}

static void work(void *opaque, unsigned worker, unsigned index, uint64_t piece)
{
    struct copy *c = opaque;
    struct slot *slot = &c->slot[index];
    uint64_t start = piece * c->piece;
    slot->length = MIN(c->piece, c->job->length - start);
    slot->unreadable = 0;
    slot->write_result = 0;
    slot->read_result = read_slot(c, slot, worker, start);
    if (!slot->read_result)
        slot->read_result = compare_base(c, slot, worker, start);
    if (!slot->read_result && c->job->compress)
        slot->write_result = compress(c, slot);
    if (!slot->read_result && !slot->write_result && c->direct)
        slot->write_result = write_slot(c, slot, start);
}

/* Waits until the rate allows more. */
static void keep_rate(const struct copy *c)
{
    uint64_t spent = clock_now_ns() - c->started_ns;
    uint64_t due = c->written / c->job->rate * NSEC_PER_SEC +
                   c->written % c->job->rate * NSEC_PER_SEC / c->job->rate;
    if (due > spent) {
        struct timespec pause = {(time_t)((due - spent) / NSEC_PER_SEC),
                                 (long)((due - spent) % NSEC_PER_SEC)};
        nanosleep(&pause, NULL);
    }
}

static struct err *finish(void *opaque, unsigned index, uint64_t piece, bool *stop)
{
    struct copy *c = opaque;
    struct slot *slot = &c->slot[index];
    struct copy_job *job = c->job;
    uint64_t start = piece * c->piece;
    (void)stop;
    if (slot->read_result)
        return err_errno(-slot->read_result, "cannot read '%s' near byte %llu", job->source_name,
                         (unsigned long long)(job->source_offset + start));
    if (!slot->write_result && !c->direct)
        slot->write_result = write_slot(c, slot, start);
    if (slot->write_result)
        return err_errno(-slot->write_result, "cannot write '%s'", job->target_name);
    job->unreadable += slot->unreadable;
    c->written += slot->length;
    if (job->rate)
        keep_rate(c);
    if (job->progress)
        job->progress(job->opaque, start + slot->length);
    return NULL;
}

static bool make_slots(struct copy *c)
{
    const struct copy_job *job = c->job;
    c->slots = job_slots(job->workers);
    for (unsigned i = 0; i < c->slots; i++) {
        struct slot *slot = &c->slot[i];
        slot->data = malloc(c->piece);
        slot->kind = malloc(c->piece / job->unit);
        slot->base = job->base[0] ? malloc(c->piece) : NULL;
        slot->packed = job->compress ? malloc(c->piece) : NULL;
        slot->packed_length = job->compress ? malloc(c->piece / job->unit * sizeof(size_t)) : NULL;
        if (!slot->data || !slot->kind || (job->base[0] && !slot->base) ||
            (job->compress && (!slot->packed || !slot->packed_length)))
            return false;
    }
    return true;
}

static void free_slots(struct copy *c)
{
    for (unsigned i = 0; i < c->slots; i++) {
        struct slot *slot = &c->slot[i];
        free(slot->data);
        free(slot->kind);
        free(slot->base);
        free(slot->packed);
        free(slot->packed_length);
    }
}

struct err *copy_job_run(struct copy_job *job)
{
    struct copy c = {.job = job, .started_ns = clock_now_ns()};
    /* What packs all that it gets would do it one unit after another. */
    job->compress |= job->target->driver->packs && image_compress_unit(job->target);
    if (job->compress) {
        job->unit = image_compress_unit(job->target);
        if (!job->unit)
            return err_of(ERR_USAGE, "%s images of this kind cannot be compressed",
                          image_driver_name(image_driver(job->target)));
        if (job->unit > UNIT_MAX || UNIT_MAX % job->unit)
            return err_of(ERR_USAGE, "clusters of that size cannot be compressed");
    }
    if (job->target->driver->noise)
        job->target_zero = false;
    c.piece = MAX(JOB_PIECE, job->unit);
    c.offload = job->offload && raw_fd(job->target) >= 0 && raw_fd(job->source[0]) >= 0;
    c.direct = !job->compress && job->target->driver->parallel && job->target->driver->in_place;
    struct job_parallel parallel = {.workers = job->workers,
                                    .pieces = (job->length + c.piece - 1) / c.piece,
                                    .opaque = &c,
                                    .skip = skip,
                                    .work = work,
                                    .finish = finish};
    struct err *err = make_slots(&c) ? NULL : err_new("no memory for buffers");
    if (!err)
        err = job_parallel_run(&parallel);
    free_slots(&c);
    return err;
}
