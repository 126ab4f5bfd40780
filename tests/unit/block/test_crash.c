/*
 * Power cuts and failing writes under each format: random work on an image whose file is logged,
 * then the states that a cut at any moment may leave. Each must open, be found sound by the
 * format's check (leaks aside), hold what was flushed, and hold for every other sector one of the
 * contents that it had since.
 *
 * TENON_CRASH_STATES: how many a format (default 1000). A sample goes to qemu-img check, too.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <sys/wait.h>

#include "crash_log.h"
#include "image_model.h"

#define WINDOWS 12
#define WINDOW_SECTORS 64u /* sectors of the disk that are written and looked at */
#define SECTORS (WINDOWS * WINDOW_SECTORS)
#define OPS 120
#define VERSIONS_MAX 64
#define ROUND_STATES 500u

struct kind {
    const char *name, *format;
    struct image_option option[3];
    unsigned options;
    uint64_t size;
    bool snapshots, qemu_checks, leaks;
};

static const struct kind kinds[] = {
    {"qcow2-4k", "qcow2", {{"cluster_size", "4096"}}, 1, MIB(8), true, true, true},
    {"qcow2-64k", "qcow2", {{"cluster_size", "65536"}}, 1, MIB(32), true, true, true},
    {"qcow2-512", "qcow2", {{"cluster_size", "512"}}, 1, MIB(4), true, true, true},
    {"qcow2-v2",
     "qcow2",
     {{"cluster_size", "4096"}, {"compat", "0.10"}},
     2,
     MIB(8),
     false,
     true,
     true},
    {"qcow2-lazy",
     "qcow2",
     {{"cluster_size", "4096"}, {"lazy_refcounts", "on"}},
     2,
     MIB(8),
     true,
     true,
     true},
    {"qcow2-extended",
     "qcow2",
     {{"cluster_size", "16384"}, {"extended_l2", "on"}},
     2,
     MIB(16),
     true,
     true,
     true},
    {"vdi", "vdi", {{NULL, NULL}}, 0, MIB(24), false, true, true},
    {"vhd", "vpc", {{NULL, NULL}}, 0, MIB(32), false, false, true},
    {"vhdx", "vhdx", {{"block_size", "1048576"}}, 1, MIB(24), false, true, true},
    {"vmdk", "vmdk", {{NULL, NULL}}, 0, MIB(32), false, false, true},
};

/* What a sector held, and from which length of the log on. */
struct version {
    unsigned since;
    uint64_t stamp;
};
struct sector {
    struct version version[VERSIONS_MAX];
    unsigned count;
};

struct bed {
    const struct kind *kind;
    struct crash_file file;
    struct crash_log log;
    struct image *image, *fault;
    unsigned seed;
    uint64_t stamp;
    struct sector *sector;
    unsigned *flushed; /* lengths of the log at which all before is stable, and since when it was */
    unsigned *flush_from;
    unsigned flush_count;
    uint64_t grown;
};

static unsigned draw(struct bed *bed, unsigned below)
{
    return (unsigned)rand_r(&bed->seed) % below;
}

/* Windows lie apart, so that they touch several tables. */
static uint64_t place(const struct kind *kind, unsigned sector)
{
    uint64_t apart = ALIGN_DOWN(kind->size / WINDOWS, 512ull);
    return sector / WINDOW_SECTORS * apart + sector % WINDOW_SECTORS * 512ull;
}

static void hold(struct bed *bed, unsigned sector, unsigned since, uint64_t stamp)
{
    struct sector *at = &bed->sector[sector];
    if (at->count == VERSIONS_MAX) { /* the oldest are stable long since */
        memmove(at->version, at->version + VERSIONS_MAX / 2, sizeof(at->version) / 2);
        at->count = VERSIONS_MAX / 2;
    }
    at->version[at->count++] = (struct version){since, stamp};
}

static void fill(uint8_t *bytes, uint64_t length, uint64_t stamp)
{
    for (uint64_t i = 0; i < length; i += 8)
        memcpy(bytes + i, &stamp, 8);
}

/* The stamp that fills the sector; UINT64_MAX: more than one does. */
static uint64_t stamp_of(const uint8_t *sector)
{
    uint64_t first;
    memcpy(&first, sector, 8);
    return memcmp(sector, sector + 8, 504) ? UINT64_MAX : first;
}

static void note_flush(struct bed *bed, unsigned from)
{
    bed->flushed = xrealloc(bed->flushed, bed->flush_count + 1, sizeof(unsigned));
    bed->flush_from = xrealloc(bed->flush_from, bed->flush_count + 1, sizeof(unsigned));
    bed->flushed[bed->flush_count] = bed->log.count;
    bed->flush_from[bed->flush_count++] = from;
}

/* A write, zero or discard of some sectors of a window. */
static void change(struct bed *bed, unsigned call)
{
    static uint8_t bytes[WINDOW_SECTORS * 512], found[512];
    unsigned first = draw(bed, WINDOW_SECTORS), window = draw(bed, WINDOWS) * WINDOW_SECTORS;
    unsigned count = 1 + draw(bed, WINDOW_SECTORS - first), since = bed->log.count;
    if (draw(bed, 2))
        count = MIN(count, 8u);
    if (call == FILTER_DISCARD)
        first = 0, count = WINDOW_SECTORS;
    uint64_t at = place(bed->kind, window + first), stamp = call == FILTER_WRITE ? ++bed->stamp : 0;
    int result;
    fill(bytes, count * 512ull, stamp);
    if (call == FILTER_WRITE)
        result = image_write(bed->image, bytes, at, count * 512ull);
    else if (call == FILTER_ZERO)
        result = image_zero(bed->image, at, count * 512ull, draw(bed, 2));
    else
        result = image_discard(bed->image, at, count * 512ull);
    if (result && !bed->fault)
        fail_msg("%s: a change failed: %d", bed->kind->name, result);
    for (unsigned i = 0; i < count; i++) {
        unsigned sector = window + first + i;
        struct sector *old = &bed->sector[sector];
        uint64_t before = old->count ? old->version[old->count - 1].stamp : 0;
        hold(bed, sector, since, stamp);
        if (!result && call != FILTER_DISCARD)
            continue;
        /* Old or new: what it reads as now, if it can be read. */
        if (image_read(bed->image, found, place(bed->kind, sector), 512) == 0)
            hold(bed, sector, since, stamp_of(found) == stamp ? stamp : before);
        else
            hold(bed, sector, since, before);
    }
}

static void flush(struct bed *bed)
{
    unsigned from = bed->log.count;
    int result = image_flush(bed->image);
    if (!result)
        note_flush(bed, from);
    else if (!bed->fault)
        fail_msg("%s: a flush failed: %d", bed->kind->name, result);
}

/* What a snapshot does ends stable, as the whole disk was before or after. */
static void snapshot(struct bed *bed, unsigned round)
{
    static uint64_t kept[SECTORS];
    unsigned since = bed->log.count;
    switch (round % 4) {
    case 0:
        model_ok(image_snapshot_create(bed->image, "kept"));
        for (unsigned i = 0; i < SECTORS; i++)
            kept[i] =
                bed->sector[i].count ? bed->sector[i].version[bed->sector[i].count - 1].stamp : 0;
        break;
    case 1:
        model_ok(image_snapshot_apply(bed->image, "kept"));
        for (unsigned i = 0; i < SECTORS; i++)
            hold(bed, i, since, kept[i]);
        break;
    case 2:
        model_ok(image_snapshot_delete(bed->image, "kept"));
        break;
    default:
        bed->grown += MIB(1);
        model_ok(image_resize(bed->image, bed->kind->size + bed->grown));
    }
    note_flush(bed, bed->log.count);
}

static void work(struct bed *bed)
{
    unsigned round = 0;
    for (unsigned i = 0; i < OPS; i++) {
        unsigned what = draw(bed, 20);
        if (what < 10)
            change(bed, FILTER_WRITE);
        else if (what < 12)
            change(bed, FILTER_ZERO);
        else if (what < 15)
            change(bed, FILTER_DISCARD);
        else if (what < 18 || !bed->kind->snapshots || bed->fault)
            flush(bed);
        else
            snapshot(bed, round++);
    }
}

static void bed_init(struct bed *bed, const struct kind *kind, unsigned seed, bool fault)
{
    const unsigned flags = IMAGE_OPEN_WRITABLE | IMAGE_OPEN_DISCARD;
    const struct image_create create = {
        .size = kind->size, .option = kind->option, .option_count = kind->options};
    *bed = (struct bed){.kind = kind, .seed = seed};
    bed->sector = xcalloc(SECTORS, sizeof(*bed->sector));
    for (unsigned i = 0; i < SECTORS; i++)
        hold(bed, i, 0, 0);
    struct image *file = crash_file_open(&bed->file, flags);
    model_ok(image_create(file, image_driver_find(kind->format), &create));
    assert_int_equal(image_close(file), 0);
    file = crash_file_open(&bed->file, flags);
    if (fault)
        file = bed->fault = filter_fault_open(file);
    else
        file = filter_log_open(file, crash_log_add, &bed->log);
    model_ok(image_open(file, image_driver_find(kind->format), flags, NULL, &bed->image));
    if (kind->snapshots) /* stored when the image is closed, which may be cut, too */
        model_ok(image_bitmap_add(bed->image, "dirty", KIB(4), true));
}

static void bed_fini(struct bed *bed)
{
    crash_log_fini(&bed->log);
    crash_file_fini(&bed->file);
    free(bed->sector);
    free(bed->flushed);
    free(bed->flush_from);
}

static void say(void *opaque, const char *line)
{
    (void)opaque;
    print_message("    %s\n", line);
}

/* What the check of an open image finds. */
static void sound(const struct kind *kind, struct image *image, const char *when)
{
    struct image_check check = {.say = NULL};
    if (!image_driver(image)->check)
        return;
    model_ok(image_check(image, false, &check));
    if (!check.corruptions && !check.errors && (kind->leaks || !check.leaks))
        return;
    check = (struct image_check){.say = say};
    (void)image_check(image, false, &check);
    fail_msg("%s: %s: %llu corruptions, %llu errors, %llu leaks", kind->name, when,
             (unsigned long long)check.corruptions, (unsigned long long)check.errors,
             (unsigned long long)check.leaks);
}

static void check_sectors(const struct bed *bed, struct image *image, unsigned cut,
                          const char *when)
{
    static uint8_t bytes[WINDOW_SECTORS * 512];
    unsigned stable = 0;
    for (unsigned i = 0; i < bed->flush_count; i++)
        if (bed->flushed[i] <= cut)
            stable = bed->flush_from[i];
    for (unsigned i = 0; i < SECTORS; i++) {
        const struct sector *sector = &bed->sector[i];
        if (i % WINDOW_SECTORS == 0)
            assert_int_equal(image_read(image, bytes, place(bed->kind, i), sizeof(bytes)), 0);
        uint64_t stamp = stamp_of(bytes + i % WINDOW_SECTORS * 512);
        unsigned k = sector->count;
        bool good = false;
        /* Back to the last that was complete when the flush began. */
        while (k-- > 0 && !good) {
            const struct version *version = &sector->version[k];
            bool last = version->since < stable &&
                        (k + 1 == sector->count || sector->version[k + 1].since != version->since);
            good = version->stamp == stamp && (version->since < cut || !version->since);
            if (last && version->since < stable)
                break;
        }
        for (k = 0; !good && k < sector->count; k++)
            print_message("    %lld since change %u\n", (long long)sector->version[k].stamp,
                          sector->version[k].since);
        if (!good)
            fail_msg("%s: %s, cut %u, stable to %u: sector %u (byte %llu) has stamp %lld of %llu",
                     bed->kind->name, when, cut, stable, i, (unsigned long long)place(bed->kind, i),
                     (long long)stamp, (unsigned long long)bed->stamp);
    }
}

static void ask_qemu(const struct kind *kind, const struct crash_file *file)
{
    char name[] = "/tmp/tenon-crash-XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, file->bytes, file->size), (ssize_t)file->size);
    close(fd);
    pid_t child = fork();
    if (!child) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1);
        dup2(null, 2);
        execlp("qemu-img", "qemu-img", "check", "-f", kind->format, name, NULL);
        _exit(127);
    }
    int status;
    waitpid(child, &status, 0);
    int result = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (result != 0 && result != 3 && result != 127) /* 3: leaks; 127: it is not installed */
        fail_msg("%s: qemu-img check says %d of %s", kind->name, result, name);
    unlink(name);
}

/* One state: opened as the next user would, which repairs what the format lets repair. */
static void try_state(const struct bed *bed, struct crash_file *state, unsigned cut, bool qemu)
{
    const struct block_driver *driver = image_driver_find(bed->kind->format);
    const unsigned flags = IMAGE_OPEN_WRITABLE | IMAGE_OPEN_DISCARD;
    struct image *image;
    uint8_t bytes[512];
    model_ok(image_open(crash_file_open(state, flags), driver, flags, NULL, &image));
    sound(bed->kind, image, "after a cut");
    check_sectors(bed, image, cut, "after a cut");
    if (cut % 8 == 0) { /* and goes on */
        fill(bytes, 512, UINT64_MAX / 2);
        assert_int_equal(image_write(image, bytes, place(bed->kind, cut % SECTORS), 512), 0);
        assert_int_equal(image_flush(image), 0);
        sound(bed->kind, image, "written after a cut");
    }
    assert_int_equal(image_close(image), 0);
    if (qemu && bed->kind->qemu_checks)
        ask_qemu(bed->kind, state);
}

/* More is tried where most is at stake: before a flush, and when one has returned. */
static unsigned weight(const struct bed *bed, unsigned cut)
{
    if (cut < bed->log.count && bed->log.entry[cut].call == FILTER_FLUSH)
        return 8;
    for (unsigned i = 0; i < bed->flush_count; i++)
        if (bed->flushed[i] == cut)
            return 8;
    return 1;
}

/* The states of one piece of work. */
static unsigned cut_round(const struct kind *kind, unsigned seed, unsigned states)
{
    struct bed bed;
    bed_init(&bed, kind, seed, false);
    struct crash_file stable = {0}, state = {0};
    crash_file_put(&stable, 0, bed.file.bytes, bed.file.size);
    work(&bed);
    assert_int_equal(image_close(bed.image), 0);
    /* `stable` is what the last flush before `cut` made so. */
    unsigned done = 0, tried = 0, flushed = 0, total = 0, weighed = 0;
    for (unsigned cut = 0; cut <= bed.log.count; cut++)
        total += weight(&bed, cut);
    for (unsigned cut = 0; cut <= bed.log.count; cut++) {
        weighed += weight(&bed, cut);
        if (cut && bed.log.entry[cut - 1].call == FILTER_FLUSH)
            for (flushed = cut; done < flushed; done++)
                crash_apply(&stable, &bed.log.entry[done], NULL);
        for (unsigned i = 0; tried < (uint64_t)weighed * states / total; i++) {
            unsigned draws = cut * 977 + i;
            crash_file_match(&state, &stable);
            for (unsigned k = flushed; k < cut; k++)
                crash_apply(&state, &bed.log.entry[k], i ? &draws : NULL);
            try_state(&bed, &state, cut, ++tried % (states / 2) == 0);
        }
    }
    crash_file_fini(&stable);
    crash_file_fini(&state);
    bed_fini(&bed);
    return tried;
}

static void cut_power(const struct kind *kind, unsigned states)
{
    unsigned tried = 0;
    for (unsigned seed = 1; tried < states; seed++)
        tried += cut_round(kind, seed * 7, ROUND_STATES);
    print_message("%s: %u states\n", kind->name, tried);
}

static unsigned states_wanted(void)
{
    const char *text = getenv("TENON_CRASH_STATES");
    return text ? (unsigned)strtoul(text, NULL, 10) : 1000;
}

static void test_power_cuts(void **state)
{
    const char *only = getenv("TENON_CRASH_ONLY");
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (!only || !strcmp(only, kinds[i].name))
            cut_power(&kinds[i], states_wanted());
}

/* The n-th change of the file fails, alone or with all after it, and the work goes on. */
static unsigned fail_change(const struct kind *kind, unsigned n, int error, bool for_ever)
{
    struct bed bed;
    bed_init(&bed, kind, n + 1, true);
    const struct filter_fault rule = {.calls = FILTER_WRITE | FILTER_ZERO | FILTER_TRUNCATE |
                                               (error == EIO ? FILTER_FLUSH : 0),
                                      .skip = n,
                                      .count = for_ever ? 0 : 1,
                                      .error = error};
    filter_fault_set(bed.fault, &rule, 1);
    work(&bed);
    unsigned hits = (unsigned)filter_fault_hits(bed.fault);
    (void)image_close(bed.image);
    try_state(&bed, &bed.file, UINT32_MAX,
              false); /* nothing was cut: all that began may be there */
    bed_fini(&bed);
    return hits;
}

static void test_failing_writes(void **state)
{
    const char *only = getenv("TENON_CRASH_ONLY");
    unsigned cases = 0;
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (only && strcmp(only, kinds[i].name))
            continue;
        unsigned step = MAX(3000 / MAX(states_wanted(), 1u), 1u);
        for (unsigned n = 0;; n += step) {
            if (!fail_change(&kinds[i], n, n % 2 ? EIO : ENOSPC, n % 3 == 0))
                break; /* there are no so many changes */
            cases++;
        }
    }
    print_message("%u cases of failing changes\n", cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_power_cuts),
                                       cmocka_unit_test(test_failing_writes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
