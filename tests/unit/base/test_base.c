/*
 * Unit tests of src/base.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../test.h"
#include "base/bitmap.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/checked.h"
#include "base/crc32.h"
#include "base/list.h"
#include "base/log.h"
#include "base/socket.h"

static void errors_chain_into_one_sentence(void **state)
{
    struct err *err = err_wrap(err_wrap(err_new("bad version %d", 7), "qcow2"), "disk '%s'", "d0");
    assert_string_equal(err_text(err), "disk 'd0': qcow2: bad version 7");
    assert_int_equal(err_kind(err), ERR_FAILED);
    err_free(err);
    assert_null(err_wrap(NULL, "nothing went wrong"));
}

static void errno_decides_the_kind(void **state)
{
    static const struct {
        int number;
        enum err_kind kind;
    } cases[] = {{EACCES, ERR_DENIED}, {-EPERM, ERR_DENIED},    {EROFS, ERR_DENIED},
                 {EAGAIN, ERR_BUSY},   {-EADDRINUSE, ERR_BUSY}, {ENOENT, ERR_FAILED}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct err *err = err_wrap(err_errno(cases[i].number, "open"), "disk");
        assert_int_equal(err_kind(err), cases[i].kind);
        err_free(err);
    }
}

static void bytes_have_their_own_order(void **state)
{
    const uint8_t raw[9] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    assert_int_equal(get_le16(raw + 1), 0x0201);
    assert_int_equal(get_be32(raw + 1), 0x01020304);
    assert_true(get_le64(raw + 1) == 0x0807060504030201);
    uint8_t out[8] = {0};
    put_le(out, 4, 0xaabbccdd11223344);
    assert_memory_equal(out, ((uint8_t[8]){0x44, 0x33, 0x22, 0x11}), 8);
}

static void ranges_do_not_wrap(void **state)
{
    uint64_t sum;
    assert_false(checked_add(UINT64_MAX, 1, &sum));
    assert_false(range_within(1, UINT64_MAX, 100));
    assert_false(range_within(101, 0, 100));
    assert_true(range_within(100, 0, 100));
    assert_true(is_power_of_2(64));
    assert_false(is_power_of_2(0));
    assert_int_equal(MAX(1, MIN(5, MAX(2, 3))), 3);
}

static void buffers_grow_and_keep(void **state)
{
    struct buf buf = BUF_INIT;
    for (int i = 0; i < 1000; i++)
        buf_printf(&buf, "%d,", i);
    assert_int_equal(buf.len, 10 * 2 + 90 * 3 + 900 * 4);
    assert_int_equal(buf.data[buf.len], 0);
    assert_memory_equal(buf.data, "0,1,2,", 6);
    buf_fini(&buf);
}

static void bitmap_search_finds_each_bit(void **state)
{
    uint64_t map[3] = {0};
    bitmap_set(map, 5);
    bitmap_set_atomic(map, 64);
    bitmap_set(map, 130);
    assert_int_equal(bitmap_next(map, 140, 0), 5);
    assert_int_equal(bitmap_next(map, 140, 6), 64);
    assert_int_equal(bitmap_next(map, 140, 65), 130);
    assert_int_equal(bitmap_next(map, 140, 131), 140);
    assert_int_equal(bitmap_next(map, 130, 65), 130);
    bitmap_clear(map, 64);
    assert_false(bitmap_test(map, 64));
}

static void crc_matches_the_standard_check_value(void **state)
{
    assert_int_equal(crc32_update(0, "123456789", 9), 0xcbf43926);
    assert_int_equal(crc32_update(crc32_update(0, "1234", 4), "56789", 5), 0xcbf43926);
}

struct item {
    int value;
    struct list link;
};

static void lists_allow_removal_while_walking(void **state)
{
    struct list head;
    struct item items[4];
    list_init(&head);
    for (int i = 0; i < 4; i++) {
        items[i].value = i;
        list_append(&head, &items[i].link);
    }
    struct item *item;
    int sum = 0;
    list_for_each (item, &head, link) {
        sum += item->value;
        if (item->value % 2)
            list_remove(&item->link);
    }
    assert_int_equal(sum, 6);
    sum = 0;
    list_for_each (item, &head, link)
        sum = sum * 10 + item->value;
    assert_int_equal(sum, 2);
}

static void count_line(void *opaque, const struct log_record *record)
{
    assert_int_equal(record->level, LOG_WARN);
    assert_non_null(strstr(record->message, "guest: "));
    ++*(int *)opaque;
}

static void a_guest_cannot_flood_the_log(void **state)
{
    int lines = 0;
    struct log_limit limit = {0};
    log_set_sink(count_line, &lines);
    for (int i = 0; i < 1000; i++)
        log_guest(&limit, "bad descriptor %d", i);
    log_set_sink(NULL, NULL);
    assert_int_equal(lines, 5);
    assert_int_equal(limit.suppressed, 995);
}

static int lowest_free(void)
{
    int fd = dup(0);

    close(fd);
    return fd;
}

/* A peer that sends more descriptors than are wanted must not fill the table of the receiver. */
static void no_descriptor_is_left_over(void **state)
{
    int pair[2], null_fd = open("/dev/null", O_RDONLY), got[2];
    const int both[2] = {null_fd, null_fd};
    char byte;

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    int free_fd = lowest_free();
    assert_true(socket_send_fds(pair[0], "x", 1, both, 2, 0));
    assert_int_equal(socket_receive_fd(pair[1], &byte, 1, &got[0]), 1);
    assert_int_equal(got[0], free_fd);
    assert_int_equal(fcntl(got[0], F_GETFD), FD_CLOEXEC);
    close(got[0]);
    assert_int_equal(lowest_free(), free_fd);
    assert_true(socket_send_fds(pair[0], "x", 1, both, 2, 0));
    assert_int_equal(socket_receive_fds(pair[1], &byte, 1, got, 2, 0), 1);
    assert_true(got[0] == free_fd && got[1] > free_fd);
    close(got[0]);
    close(got[1]);
    assert_true(socket_send_fd(pair[0], "x", 1, null_fd, 0));
    assert_int_equal(socket_receive_fds(pair[1], &byte, 1, got, 2, 0), 1);
    assert_true(got[0] == free_fd && got[1] == -1);
    close(got[0]);
    assert_true(socket_send_fd(pair[0], "x", 1, -1, 0));
    assert_int_equal(socket_receive_fd(pair[1], &byte, 1, &got[0]), 1);
    assert_int_equal(got[0], -1);
    assert_int_equal(socket_receive_fd(pair[1], &byte, 1, &got[0]), -1);
    assert_int_equal(got[0], -1);
    close(pair[0]);
    close(pair[1]);
    close(null_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_chain_into_one_sentence),
        cmocka_unit_test(errno_decides_the_kind),
        cmocka_unit_test(bytes_have_their_own_order),
        cmocka_unit_test(ranges_do_not_wrap),
        cmocka_unit_test(buffers_grow_and_keep),
        cmocka_unit_test(bitmap_search_finds_each_bit),
        cmocka_unit_test(crc_matches_the_standard_check_value),
        cmocka_unit_test(lists_allow_removal_while_walking),
        cmocka_unit_test(a_guest_cannot_flood_the_log),
        cmocka_unit_test(no_descriptor_is_left_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
