/*
 * LUKS: what is written in parts, by several threads, is what a plain file would have; damage of
 * header and slots ends in an error.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>

#include "block/format/luks.h"
#include "image_model.h"

#define SIZE MIB(1)
#define KEY "a passphrase"

static int new_luks(void)
{
    const struct luks_options options = {.key_bits = 256, .hash = "sha256", .iterate_ms = 1};
    uint8_t *area;
    size_t length;
    int fd = memfd_create("luks", MFD_CLOEXEC);
    model_ok(luks_format(&options, KEY, strlen(KEY), &area, &length));
    assert_int_equal(length, MIB(2));
    assert_int_equal(pwrite(fd, area, length, 0), length);
    assert_int_equal(ftruncate(fd, (off_t)(length + SIZE)), 0);
    free(area);
    return fd;
}

static struct err *try_open(int fd, struct image **image)
{
    struct image *file;
    model_ok(image_open_fd(dup(fd), IMAGE_OPEN_WRITABLE, &file));
    return image_open(file, NULL, IMAGE_OPEN_WRITABLE, NULL, image);
}

static void locked_until_unlocked(void **state)
{
    (void)state;
    int fd = new_luks();
    struct image *image;
    uint8_t byte = 0;
    model_ok(try_open(fd, &image));
    assert_string_equal(image_driver_name(image_driver(image)), "luks");
    assert_true(image_locked(image));
    assert_int_equal(image_read(image, &byte, 0, 1), -ENOKEY);
    assert_int_equal(image_write(image, &byte, 0, 1), -ENOKEY);
    struct err *err = image_unlock(image, "another", 7);
    assert_string_equal(err_text(err), "luks: the passphrase opens none of its key slots");
    err_free(err);
    assert_true(image_locked(image));
    model_ok(image_unlock(image, KEY, strlen(KEY)));
    assert_false(image_locked(image));
    assert_int_equal(image_read(image, &byte, 0, 1), 0);
    image_close(image);
    close(fd);
}

struct writer {
    struct image *image;
    uint8_t *model;
    unsigned lane; /* every fourth run of 1000 bytes is its own: sectors are shared */
};

static void *write_lane(void *opaque)
{
    struct writer *w = opaque;
    uint8_t bytes[1000];
    for (uint64_t at = w->lane * 1000; at + 1000 <= SIZE; at += 4000) {
        for (unsigned i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)(at * 31 + i * 7 + w->lane);
        if (image_write(w->image, bytes, at, sizeof(bytes)))
            return w;
        memcpy(w->model + at, bytes, sizeof(bytes));
    }
    return NULL;
}

static void threads_share_sectors(void **state)
{
    (void)state;
    int fd = new_luks();
    struct image *image;
    uint8_t *model = malloc(SIZE), *found = malloc(SIZE);
    model_ok(try_open(fd, &image));
    model_ok(image_unlock(image, KEY, strlen(KEY)));
    assert_int_equal(image_read(image, model, 0, SIZE), 0); /* noise */
    struct writer writer[4];
    pthread_t thread[4];
    for (unsigned i = 0; i < 4; i++) {
        writer[i] = (struct writer){image, model, i};
        assert_int_equal(pthread_create(&thread[i], NULL, write_lane, &writer[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        void *failed;
        pthread_join(thread[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(image_close(image), 0);
    model_ok(try_open(fd, &image));
    model_ok(image_unlock(image, KEY, strlen(KEY)));
    for (uint64_t at = 0, n; at < SIZE; at += n) { /* in odd pieces */
        n = MIN(SIZE - at, 777 + at % 5000);
        assert_int_equal(image_read(image, found + at, at, n), 0);
    }
    assert_memory_equal(found, model, SIZE);
    image_close(image);
    free(model);
    free(found);
    close(fd);
}

static void damage_is_an_error(void **state)
{
    (void)state;
    uint8_t good[LUKS_HEADER], bad[LUKS_HEADER];
    int fd = new_luks();
    assert_int_equal(pread(fd, good, sizeof(good), 0), sizeof(good));
    for (unsigned at = 0; at < LUKS_HEADER; at += 5) {
        struct image *image;
        memcpy(bad, good, sizeof(bad));
        bad[at] ^= at % 3 ? 0xff : 0x40;
        if ((at >= 164 && at < 168) || (at >= 212 && at < 216))
            continue; /* more iterations are only slower */
        assert_int_equal(pwrite(fd, bad, sizeof(bad), 0), sizeof(bad));
        struct err *err = try_open(fd, &image);
        if (!err) {
            err = image_unlock(image, KEY, strlen(KEY));
            image_close(image);
        }
        err_free(err); /* the UUID and free slots may be anything */
    }
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(locked_until_unlocked),
        cmocka_unit_test(threads_share_sectors),
        cmocka_unit_test(damage_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
