/*
 * Eight threads against a plain copy in memory: a qcow2 image over a chain, written, zeroed,
 * discarded, read and flushed by all of them at once, with snapshots, growth, checks and reopenings
 * in between.
 *
 * Each thread owns stripes of the disk that are smaller than clusters in its first half and larger
 * in its second, so that they meet in the same clusters and tables, and yet every byte has one
 * owner who knows what it must be.
 *
 * TENON_GRAPH_SECONDS: how long (default 6). TENON_GRAPH_SEED: the first seed, each round takes
 * five.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>

#include "base/clock.h"
#include "image_model.h"

#define THREADS 8
#define HALF MIB(6)
#define SIZE (2 * HALF)
#define GROWN (SIZE + MIB(1) + 512)
#define FINE KIB(4)
#define COARSE KIB(256)
#define OPS 100

struct layout {
    const char *cluster_size, *compat, *base_format;
    bool chain, extended, lazy;
};

static const struct layout layouts[] = {
    {"65536", "1.1", "raw", true},       {"4096", "1.1", "qcow2", true},
    {"65536", "1.1", NULL, false},       {"512", "1.1", "raw", true},
    {"16384", "0.10", NULL, false},      {"65536", "0.10", "vmdk", true},
    {"2097152", "1.1", "vhdx", true},    {"65536", "1.1", "qcow2", true, true},
    {"16384", "1.1", NULL, false, true}, {"4096", "1.1", "raw", true, .lazy = true},
};

struct bed {
    struct model_dir dir;
    const struct layout *layout;
    struct image *image;
    uint64_t size;
    uint8_t *model;
};

struct worker {
    struct bed *bed;
    unsigned index, seed;
    uint8_t *buffer;
    char said[128];
};

static uint64_t draw(struct worker *w, uint64_t below)
{
    return (((uint64_t)rand_r(&w->seed) << 20) ^ (uint64_t)rand_r(&w->seed)) % below;
}

/* A stretch that belongs to this thread. */
static void choose(struct worker *w, uint64_t *offset, uint64_t *length)
{
    uint64_t stripe = draw(w, 2) ? FINE : COARSE, from = stripe == FINE ? 0 : HALF;
    uint64_t count = HALF / (stripe * THREADS);
    *offset = from + (draw(w, count) * THREADS + w->index) * stripe;
    uint64_t inside = draw(w, 3) ? draw(w, stripe / 512) * 512 : draw(w, stripe);
    *length = 1 + draw(w, stripe - inside);
    if (draw(w, 3) == 0) {
        inside = 0;
        *length = stripe;
    }
    *offset += inside;
}

static void check_bytes(struct worker *w, uint64_t offset, uint64_t length)
{
    int result = image_read(w->bed->image, w->buffer, offset, length);
    for (uint64_t i = 0; i < length && !result && !w->said[0]; i++)
        if (w->buffer[i] != w->bed->model[offset + i])
            snprintf(w->said, sizeof(w->said), "byte %llu is %#x, not %#x",
                     (unsigned long long)(offset + i), w->buffer[i], w->bed->model[offset + i]);
    if (result)
        snprintf(w->said, sizeof(w->said), "a read failed: %d", result);
}

/* What a discard leaves is old or zero, a sector at a time; the model takes over what it finds. */
static int discard(struct worker *w, uint64_t offset, uint64_t length)
{
    uint8_t *model = w->bed->model + offset;
    int result = image_discard(w->bed->image, offset, length);
    if (!result)
        result = image_read(w->bed->image, w->buffer, offset, length);
    for (uint64_t i = 0; i < length && !result; i++)
        if (w->buffer[i] && w->buffer[i] != model[i])
            snprintf(w->said, sizeof(w->said), "a discard made byte %llu %#x",
                     (unsigned long long)(offset + i), w->buffer[i]);
    memcpy(model, w->buffer, length);
    return result;
}

static void one_op(struct worker *w)
{
    struct bed *bed = w->bed;
    uint64_t offset, length;
    int result = 0;
    choose(w, &offset, &length);
    switch (draw(w, 16)) {
    case 0:
    case 1:
        memset(bed->model + offset, 0, length);
        result = image_zero(bed->image, offset, length, draw(w, 2));
        break;
    case 2:
    case 3:
        result = discard(w, offset, length);
        break;
    case 4:
        result = draw(w, 3) ? 0 : image_flush(bed->image);
        break;
    case 5:
    case 6:
    case 7:
    case 8:
        check_bytes(w, offset, length);
        break;
    default:
        for (uint64_t i = 0; i < length; i++)
            bed->model[offset + i] = (uint8_t)(offset + i * 7 + w->seed);
        result = image_write(bed->image, bed->model + offset, offset, length);
    }
    if (result)
        snprintf(w->said, sizeof(w->said), "a call failed: %d", result);
}

static void *work(void *opaque)
{
    struct worker *w = opaque;
    for (unsigned i = 0; i < OPS && !w->said[0]; i++)
        one_op(w);
    return NULL;
}

static void run_threads(struct bed *bed, unsigned seed)
{
    struct worker worker[THREADS];
    pthread_t thread[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        worker[i] = (struct worker){.bed = bed, .index = i, .seed = seed * THREADS + i + 1};
        worker[i].buffer = malloc(COARSE);
        assert_int_equal(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        free(worker[i].buffer);
        if (worker[i].said[0])
            fail_msg("seed %u, thread %u, clusters of %s: %s", seed, i, bed->layout->cluster_size,
                     worker[i].said);
    }
}

static void bed_open(struct bed *bed)
{
    bed->image = model_open(&bed->dir, "top", "qcow2",
                            IMAGE_OPEN_WRITABLE | IMAGE_OPEN_DISCARD | IMAGE_OPEN_UNSAFE);
}

static void bed_init(struct bed *bed, const struct layout *layout)
{
    *bed = (struct bed){.layout = layout, .size = SIZE};
    bed->model = calloc(1, GROWN);
    if (layout->chain) { /* it ends before the disk does */
        uint64_t below = SIZE - MIB(1);
        model_create(&bed->dir, "base", layout->base_format, below, NULL, NULL, NULL);
        struct image *base =
            model_open(&bed->dir, "base", layout->base_format, IMAGE_OPEN_WRITABLE);
        for (uint64_t i = 0; i < below; i++)
            bed->model[i] = i % MIB(1) < KIB(300) ? 0 : (uint8_t)(i / 700);
        for (uint64_t i = 0; i < below; i += MIB(1))
            assert_int_equal(image_write(base, bed->model + i, i, MIN(MIB(1), below - i)), 0);
        assert_int_equal(image_close(base), 0);
    }
    const struct image_option option[] = {{"cluster_size", layout->cluster_size},
                                          {"compat", layout->compat},
                                          {"extended_l2", layout->extended ? "on" : "off"},
                                          {"lazy_refcounts", layout->lazy ? "on" : "off"}};
    const struct image_create create = {.size = SIZE,
                                        .option = option,
                                        .option_count = ARRAY_SIZE(option),
                                        .backing_name = layout->chain ? "base" : NULL,
                                        .backing_format = layout->base_format};
    struct image *file;
    model_ok(model_create_file(&bed->dir, "top", &file));
    model_ok(image_create(file, &image_qcow2, &create));
    assert_int_equal(image_close(file), 0);
    bed_open(bed);
}

static void sound(struct bed *bed)
{
    struct image_check check = {0};
    assert_int_equal(image_flush(bed->image), 0);
    assert_int_equal(image_close(bed->image), 0);
    bed_open(bed);
    model_ok(image_check(bed->image, false, &check));
    assert_int_equal(check.corruptions + check.errors + check.leaks, 0);
    model_compare(bed->image, bed->model, bed->size);
}

static void bed_fini(struct bed *bed)
{
    image_close(bed->image);
    model_dir_fini(&bed->dir);
    free(bed->model);
}

/* Rounds of all threads; between them what one thread alone does. */
static void play(const struct layout *layout, unsigned seed)
{
    struct bed bed;
    bed_init(&bed, layout);
    uint8_t *kept = malloc(GROWN);
    run_threads(&bed, seed);
    sound(&bed);
    model_ok(image_snapshot_create(bed.image, "kept"));
    memcpy(kept, bed.model, SIZE);
    run_threads(&bed, seed + 1);
    sound(&bed);
    if (seed & 1) {
        model_ok(image_snapshot_apply(bed.image, "kept"));
        memcpy(bed.model, kept, SIZE);
        run_threads(&bed, seed + 2);
    }
    model_ok(image_snapshot_delete(bed.image, "kept"));
    model_ok(image_resize(bed.image, GROWN));
    bed.size = GROWN;
    run_threads(&bed, seed + 3);
    sound(&bed);
    free(kept);
    bed_fini(&bed);
}

static void test_graph(void **state)
{
    const char *text = getenv("TENON_GRAPH_SECONDS"), *first = getenv("TENON_GRAPH_SEED");
    uint64_t end = clock_now_ns() + (text ? strtoull(text, NULL, 10) : 6) * NSEC_PER_SEC;
    (void)state;
    unsigned seed = first ? (unsigned)strtoul(first, NULL, 10) : 1, from = seed;
    for (unsigned round = 0; round < ARRAY_SIZE(layouts) || clock_now_ns() < end; round++) {
        play(&layouts[round % ARRAY_SIZE(layouts)], seed);
        seed += 5;
    }
    print_message("seeds %u to %u: %u rounds of %u operations\n", from, seed - 1, (seed - from) / 5,
                  3 * THREADS * OPS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_graph)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
