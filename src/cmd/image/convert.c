/*
 * tenon image convert and compare.
 *
 * Convert: worker threads, each with its own open source, read pieces of the disk, skip what is
 * known or found to be zero, and compress; the calling thread writes the pieces in order. Nodes are
 * never shared between threads, but for image_compress(), which allows it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cmd/image/image.h"

#define PIECE MIB(2)
#define GRAIN KIB(4)
#define WORKERS_MAX 16
#define SLOTS_EACH 3

struct piece {
    bool ready;
    int result;
    uint64_t length;
    uint8_t *data;
    bool *zero;            /* of each unit */
    uint8_t *packed;       /* units, compressed */
    size_t *packed_length; /* 0: plain */
};

struct convert {
    const struct image_args *args;
    struct image *source, *target;
    struct image *reader[WORKERS_MAX];
    unsigned workers, slots;
    uint64_t total, pieces, unit, next, written;
    struct piece *piece;
    bool stop;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
};

struct worker {
    struct convert *convert;
    struct image *reader;
};

/* Reads a stretch whose zeros are known in part; marks the units that are zero. */
static int read_piece(struct convert *c, struct image *source, struct piece *piece, uint64_t start)
{
    uint64_t at = 0, units = (piece->length + c->unit - 1) / c->unit;
    for (uint64_t i = 0; i < units; i++)
        piece->zero[i] = false;
    while (at < piece->length) {
        struct image_extent extent = {0};
        unsigned depth;
        uint64_t offset = start + at, have = image_size(source);
        int result;
        have = offset < have ? MIN(piece->length - at, have - offset) : 0;
        if (!have) { /* behind the end of the source */
            memset(piece->data + at, 0, piece->length - at);
            break;
        }
        result = image_extent_chain(source, offset, have, &extent, &depth);
        if (result)
            return result;
        if (extent.flags & IMAGE_EXTENT_ZERO)
            memset(piece->data + at, 0, extent.length);
        else
            result = image_read(source, piece->data + at, offset, extent.length);
        if (result)
            return result;
        at += extent.length;
    }
    for (uint64_t i = 0; i < units; i++)
        piece->zero[i] =
            image_is_zero(piece->data + i * c->unit, MIN(c->unit, piece->length - i * c->unit));
    return 0;
}

static int compress_piece(struct convert *c, struct piece *piece)
{
    uint64_t units = (piece->length + c->unit - 1) / c->unit;
    memset(piece->data + piece->length, 0, units * c->unit - piece->length);
    for (uint64_t i = 0; i < units; i++) {
        int result = piece->zero[i]
                         ? 0
                         : image_compress(c->target, piece->data + i * c->unit,
                                          piece->packed + i * c->unit, &piece->packed_length[i]);
        if (result)
            return result;
    }
    return 0;
}

static void *work(void *opaque)
{
    struct worker *worker = opaque;
    struct convert *c = worker->convert;
    pthread_mutex_lock(&c->lock);
    while (!c->stop && c->next < c->pieces) {
        if (c->next >= c->written + c->slots) {
            pthread_cond_wait(&c->work, &c->lock);
            continue;
        }
        uint64_t index = c->next++, start = index * PIECE;
        struct piece *piece = &c->piece[index % c->slots];
        pthread_mutex_unlock(&c->lock);
        piece->length = MIN(PIECE, c->total - start);
        piece->result = read_piece(c, worker->reader, piece, start);
        if (!piece->result && c->args->compress)
            piece->result = compress_piece(c, piece);
        pthread_mutex_lock(&c->lock);
        piece->ready = true;
        pthread_cond_signal(&c->done);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* A new target reads as zeros already. */
static int write_piece(struct convert *c, const struct piece *piece, uint64_t start)
{
    for (uint64_t at = 0, length; at < piece->length; at += length) {
        uint64_t i = at / c->unit;
        bool zero = piece->zero[i];
        length = MIN(c->unit, piece->length - at);
        if (c->args->compress && !zero && piece->packed_length[i]) {
            int result = image_write_compressed(c->target, start + at, piece->packed + at,
                                                piece->packed_length[i]);
            if (result)
                return result;
            continue;
        }
        while (at + length < piece->length && piece->zero[(at + length) / c->unit] == zero &&
               !(c->args->compress && !zero))
            length += MIN(c->unit, piece->length - at - length);
        int result = 0;
        if (!zero)
            result = image_write(c->target, piece->data + at, start + at, length);
        else if (c->args->no_create)
            result = image_zero(c->target, start + at, length, true);
        if (result)
            return result;
    }
    return 0;
}

static struct err *write_all(struct convert *c)
{
    struct image_progress progress;
    image_progress_begin(&progress, c->args, c->total);
    for (uint64_t index = 0; index < c->pieces; index++) {
        struct piece *piece = &c->piece[index % c->slots];
        pthread_mutex_lock(&c->lock);
        while (!piece->ready)
            pthread_cond_wait(&c->done, &c->lock);
        pthread_mutex_unlock(&c->lock);
        if (piece->result)
            return err_errno(-piece->result, "cannot read '%s' near byte %llu", c->args->word[0],
                             (unsigned long long)(index * PIECE));
        int result = write_piece(c, piece, index * PIECE);
        if (result)
            return err_errno(-result, "cannot write '%s'", c->args->word[1]);
        pthread_mutex_lock(&c->lock);
        piece->ready = false;
        c->written = index + 1;
        pthread_cond_broadcast(&c->work);
        pthread_mutex_unlock(&c->lock);
        image_progress_at(&progress, index * PIECE);
    }
    image_progress_end(&progress);
    return NULL;
}

static struct err *make_pieces(struct convert *c)
{
    c->slots = c->workers * SLOTS_EACH;
    c->piece = xcalloc(c->slots, sizeof(*c->piece));
    for (unsigned i = 0; i < c->slots; i++) {
        struct piece *piece = &c->piece[i];
        piece->data = malloc(PIECE);
        piece->zero = xcalloc(PIECE / c->unit, sizeof(*piece->zero));
        if (c->args->compress) {
            piece->packed = malloc(PIECE);
            piece->packed_length = xcalloc(PIECE / c->unit, sizeof(size_t));
        }
        if (!piece->data || (c->args->compress && !piece->packed))
            return err_new("no memory for buffers");
    }
    return NULL;
}

static void free_pieces(struct convert *c)
{
    for (unsigned i = 0; c->piece && i < c->slots; i++) {
        free(c->piece[i].data);
        free(c->piece[i].zero);
        free(c->piece[i].packed);
        free(c->piece[i].packed_length);
    }
    free(c->piece);
}

static struct err *run_workers(struct convert *c)
{
    pthread_t thread[WORKERS_MAX];
    struct worker worker[WORKERS_MAX];
    unsigned started = 0;
    struct err *err = NULL;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->work, NULL);
    pthread_cond_init(&c->done, NULL);
    for (; started < c->workers && !err; started++) {
        worker[started] = (struct worker){c, c->reader[started]};
        int error = pthread_create(&thread[started], NULL, work, &worker[started]);
        if (error) {
            err = err_errno(error, "cannot start a thread");
            break;
        }
    }
    if (!err)
        err = write_all(c);
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    pthread_cond_destroy(&c->done);
    pthread_cond_destroy(&c->work);
    pthread_mutex_destroy(&c->lock);
    return err;
}

static struct err *copy_data(struct convert *c)
{
    c->total = image_size(c->source);
    c->pieces = (c->total + PIECE - 1) / PIECE;
    struct image_info info;
    image_get_info(c->target, &info);
    c->unit = c->args->compress ? image_compress_unit(c->target)
                                : MAX((uint64_t)info.cluster_size, GRAIN);
    if (c->args->compress && !c->unit)
        return err_of(ERR_USAGE, "%s images cannot be compressed",
                      image_driver_name(image_driver(c->target)));
    if (c->unit > PIECE || PIECE % c->unit)
        c->unit = GRAIN;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    c->workers = c->args->workers ? c->args->workers : (unsigned)MIN(MAX(cpus, 1l), 8l);
    struct err *err = make_pieces(c);
    c->reader[0] = c->source;
    for (unsigned i = 1; i < c->workers && !err; i++)
        err = image_open_chain(c->args, c->args->word[0], c->args->format, 0, &c->reader[i]);
    if (!err)
        err = run_workers(c);
    for (unsigned i = 1; i < c->workers; i++)
        image_close(c->reader[i]);
    free_pieces(c);
    return err;
}

/* Raw to raw on a file system that shares blocks: no byte is copied. */
static bool reflink(struct convert *c)
{
    const struct block_driver *raw = image_driver_find("raw");
    if (image_driver(c->source) != raw || image_driver(c->target) != raw || c->args->no_create)
        return false;
    return ioctl(image_fd(image_file(c->target)), FICLONE, image_fd(image_file(c->source))) == 0;
}

static struct err *into(struct convert *c, const struct image_files *files, struct image *take_file,
                        const struct block_driver *driver)
{
    struct err *err = image_open(
        take_file, driver, IMAGE_OPEN_WRITABLE | (c->args->no_create ? 0 : IMAGE_OPEN_SCRATCH),
        files, &c->target);
    if (!err && image_size(c->target) < image_size(c->source))
        err = err_new("it is smaller than '%s'", c->args->word[0]);
    if (!err && !reflink(c))
        err = copy_data(c);
    return err;
}

static struct err *into_new(struct convert *c, const struct block_driver *driver)
{
    const char *path = c->args->word[1];
    struct image_create create = {.size = image_size(c->source),
                                  .option = c->args->option,
                                  .option_count = c->args->option_count};
    struct image_new file;
    struct image *image;
    struct image_files files;
    image_files_init(&files, c->args, path);
    create.files = &files;
    struct err *err = image_new_begin(path, c->args->force, &file, &image);
    if (!err) {
        err = image_create(image, driver, &create);
        if (err)
            image_close(image);
        else
            err = into(c, &files, image, driver);
        int result = image_close(c->target);
        if (!err && (result || fdatasync(file.fd) < 0))
            err = result ? err_errno(-result, "cannot write") : err_errno(errno, "cannot write");
    }
    err = err_wrap(err, "'%s'", path);
    if (!err)
        err = image_new_keep(&file);
    image_new_fini(&file);
    image_files_fini(&files);
    return err;
}

static struct err *into_existing(struct convert *c, const char *format)
{
    const char *path = c->args->word[1];
    if (c->args->option_count)
        return err_of(ERR_USAGE, "-o is about a new image, and -n makes none");
    TRY(image_open_chain(c->args, path, format, IMAGE_OPEN_WRITABLE, &c->target));
    struct err *err = NULL;
    if (image_size(c->target) < image_size(c->source))
        err = err_new("it is smaller than '%s'", c->args->word[0]);
    if (!err)
        err = copy_data(c);
    int result = err ? 0 : image_flush(c->target);
    int closed = image_close(c->target);
    if (!err && (result || closed))
        err = err_errno(result ? -result : -closed, "cannot write");
    return err_wrap(err, "'%s'", path);
}

struct err *image_convert_run(const struct image_args *args, int *status)
{
    struct convert c = {.args = args};
    const char *format = args->out_format ? args->out_format : "raw";
    struct err *err = NULL;
    const struct block_driver *driver = image_format(format, &err);
    (void)status;
    TRY(err);
    TRY(image_open_chain(args, args->word[0], args->format, 0, &c.source));
    err = args->no_create ? into_existing(&c, format) : into_new(&c, driver);
    image_close(c.source);
    return err;
}
