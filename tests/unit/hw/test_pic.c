/*
 * The 8259A pair: initialisation, priorities, cascade, EOI forms, spurious interrupts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "board_env.h"
#include "hw/chipset/pic.h"

struct fixture {
    struct board_env board;
    struct pic *pic;
    bool intr;
};

static void intr(void *opaque, bool level)
{
    ((struct fixture *)opaque)->intr = level;
}

/* As an operating system does: vectors 0x30 and 0x38, everything unmasked. */
static void set_up(struct board_env *board)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } writes[] = {{0x20, 0x11}, {0x21, 0x30}, {0x21, 0x04}, {0x21, 0x01}, {0xa0, 0x11},
                  {0xa1, 0x38}, {0xa1, 0x02}, {0xa1, 0x01}, {0x21, 0x00}, {0xa1, 0x00}};
    for (unsigned i = 0; i < ARRAY_SIZE(writes); i++)
        board_out(board, writes[i].port, 1, writes[i].value);
}

static int setup(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof(f));
    board_init(&f.board);
    struct device *device = device_new(&pic_class, &f.board.env, "pic");
    f.pic = (struct pic *)device;
    f.pic->intr = intr;
    f.pic->opaque = &f;
    board_ok(device_realize(device));
    set_up(&f.board);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    device_free(&f->pic->device);
    board_fini(&f->board);
    return 0;
}

static void pull(struct fixture *f, unsigned irq, bool level)
{
    struct irq_line line = pic_line(f->pic, irq);
    irq_set(&line, level);
}

static void acknowledges(void **state)
{
    struct fixture *f = *state;
    assert_false(f->intr);
    pull(f, 4, true);
    assert_true(f->intr);
    assert_int_equal(pic_ack(f->pic), 0x34);
    assert_false(f->intr);
    pull(f, 5, true); /* lower priority: waits for the EOI */
    assert_false(f->intr);
    pull(f, 1, true); /* higher: interrupts */
    assert_true(f->intr);
    assert_int_equal(pic_ack(f->pic), 0x31);
    board_out(&f->board, 0x20, 1, 0x0b);
    assert_int_equal(board_in(&f->board, 0x20, 1), 0x12);
    board_out(&f->board, 0x20, 1, 0x20); /* ends 1 */
    assert_false(f->intr);
    board_out(&f->board, 0x20, 1, 0x64); /* specific: ends 4 */
    assert_true(f->intr);
    assert_int_equal(pic_ack(f->pic), 0x35);
    board_out(&f->board, 0x20, 1, 0x0a);
    assert_int_equal(board_in(&f->board, 0x20, 1), 0x00);
}

static void cascades(void **state)
{
    struct fixture *f = *state;
    pull(f, 12, true);
    pull(f, 9, true);
    assert_int_equal(pic_ack(f->pic), 0x39);
    assert_false(f->intr);
    board_out(&f->board, 0xa0, 1, 0x20);
    board_out(&f->board, 0x20, 1, 0x20);
    assert_true(f->intr);
    assert_int_equal(pic_ack(f->pic), 0x3c);
    board_out(&f->board, 0xa0, 1, 0x20);
    board_out(&f->board, 0x20, 1, 0x20);
    assert_false(f->intr);
}

static void masks_and_spurious(void **state)
{
    struct fixture *f = *state;
    board_out(&f->board, 0x21, 1, 0x10);
    assert_int_equal(board_in(&f->board, 0x21, 1), 0x10);
    pull(f, 4, true);
    assert_false(f->intr);
    board_out(&f->board, 0x21, 1, 0x00);
    assert_true(f->intr);
    pull(f, 4, false); /* gone before the acknowledge */
    assert_int_equal(pic_ack(f->pic), 0x37);
    board_out(&f->board, 0x20, 1, 0x0b);
    assert_int_equal(board_in(&f->board, 0x20, 1), 0);
}

static void level_lines_ask_again(void **state)
{
    struct fixture *f = *state;
    board_out(&f->board, 0x4d0, 1, 0xff);
    board_out(&f->board, 0x4d1, 1, 0xff);
    assert_int_equal(board_in(&f->board, 0x4d0, 1), 0xf8);
    assert_int_equal(board_in(&f->board, 0x4d1, 1), 0xde);
    pull(f, 11, true);
    assert_int_equal(pic_ack(f->pic), 0x3b);
    board_out(&f->board, 0xa0, 1, 0x20);
    board_out(&f->board, 0x20, 1, 0x20);
    assert_true(f->intr);
    assert_int_equal(pic_ack(f->pic), 0x3b);
    pull(f, 11, false);
    board_out(&f->board, 0xa0, 1, 0x20);
    board_out(&f->board, 0x20, 1, 0x20);
    assert_false(f->intr);
}

static void polling_and_rotation(void **state)
{
    struct fixture *f = *state;
    pull(f, 3, true);
    pull(f, 6, true);
    board_out(&f->board, 0x20, 1, 0x0c);
    assert_int_equal(board_in(&f->board, 0x20, 1), 0x83);
    board_out(&f->board, 0x20, 1, 0xa0); /* rotate on EOI: 3 becomes the lowest */
    pull(f, 3, false);
    pull(f, 3, true);
    assert_int_equal(pic_ack(f->pic), 0x36);
    board_out(&f->board, 0x20, 1, 0x20);
    assert_int_equal(pic_ack(f->pic), 0x33);
    board_out(&f->board, 0x20, 1, 0x20);
    board_out(&f->board, 0x20, 1, 0x0c);
    assert_int_equal(board_in(&f->board, 0x20, 1), 0x00);
}

static void any_byte_is_survived(void **state)
{
    struct fixture *f = *state;
    static const uint16_t ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};
    uint32_t seed = 1;
    for (unsigned i = 0; i < 20000; i++) {
        seed = seed * 1664525 + 1013904223;
        uint16_t port = ports[seed >> 8 & 7 ? (seed >> 8 & 7) % 6 : 0];
        board_out(&f->board, port, 1u << (seed >> 12 & 1), seed >> 16 & 0xff);
        board_in(&f->board, port, 1);
        pull(f, seed >> 24 & 15, seed >> 28 & 1);
        if (f->intr)
            pic_ack(f->pic);
    }
}

static void state_comes_back(void **state)
{
    struct fixture *f = *state;
    struct board_env second;
    pull(f, 4, true);
    pic_ack(f->pic);
    pull(f, 9, true);
    pull(f, 1, true);
    board_out(&f->board, 0xa0, 1, 0x11); /* in the middle of an initialisation */
    board_init(&second);
    struct device *device = device_new(&pic_class, &second.env, "pic");
    board_ok(device_realize(device));
    board_round_trip(&f->pic->device, device);
    /* The second chip as well: an array is saved whole. */
    assert_memory_equal(&((struct pic *)device)->chip[1], &f->pic->chip[1],
                        sizeof(struct pic_chip));
    assert_int_equal(pic_ack((struct pic *)device), 0x31);
    device_free(device);
    board_fini(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(acknowledges, setup, teardown),
        cmocka_unit_test_setup_teardown(cascades, setup, teardown),
        cmocka_unit_test_setup_teardown(masks_and_spurious, setup, teardown),
        cmocka_unit_test_setup_teardown(level_lines_ask_again, setup, teardown),
        cmocka_unit_test_setup_teardown(polling_and_rotation, setup, teardown),
        cmocka_unit_test_setup_teardown(any_byte_is_survived, setup, teardown),
        cmocka_unit_test_setup_teardown(state_comes_back, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
