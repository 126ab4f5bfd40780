/*
 * Shared screens: what has changed, and the messages about it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "../test.h"
#include "display/surface.h"

struct fixture {
    struct surface surface;
    struct picture picture;
    struct surface_rect rects[SURFACE_RECTS_MAX];
};

static void begin(struct fixture *fixture, unsigned width, unsigned height)
{
    *fixture = (struct fixture){0};
    fixture->surface.pixels = xcalloc(SURFACE_PIXELS_MAX / 16, sizeof(uint32_t));
    picture_init(&fixture->picture, width, height);
}

static void end(struct fixture *fixture)
{
    picture_fini(&fixture->picture);
    free(fixture->surface.pixels);
}

static unsigned draw(struct fixture *fixture)
{
    unsigned count = surface_draw(&fixture->surface, &fixture->picture, fixture->rects);

    assert_int_equal(fixture->surface.width, fixture->picture.width);
    assert_memory_equal(fixture->surface.pixels, fixture->picture.pixels,
                        (size_t)fixture->picture.width * fixture->picture.height * 4);
    return count;
}

static void assert_rect(const struct surface_rect *rect, unsigned x, unsigned y, unsigned width,
                        unsigned height)
{
    assert_int_equal(rect->x, x);
    assert_int_equal(rect->y, y);
    assert_int_equal(rect->width, width);
    assert_int_equal(rect->height, height);
}

static void changes_are_found(void **state)
{
    struct fixture f;

    begin(&f, 200, 100);
    assert_int_equal(draw(&f), 1);
    assert_rect(&f.rects[0], 0, 0, 200, 100);
    assert_int_equal(draw(&f), 0);
    f.picture.pixels[20 * 200 + 70] = 1;
    assert_int_equal(draw(&f), 1);
    assert_rect(&f.rects[0], 64, 16, 64, 16);
    /* Tiles side by side are one; the last ones are cut. */
    f.picture.pixels[99 * 200 + 130] = f.picture.pixels[99 * 200 + 199] = 2;
    f.picture.pixels[0] = 3;
    assert_int_equal(draw(&f), 2);
    assert_rect(&f.rects[0], 0, 0, 64, 16);
    assert_rect(&f.rects[1], 128, 96, 72, 4);
    end(&f);
}

static void too_many_changes_are_everything(void **state)
{
    struct fixture f;

    begin(&f, 1024, 768);
    draw(&f);
    for (unsigned y = 0; y < 768; y += 16)
        for (unsigned x = 0; x < 1024; x += 128)
            f.picture.pixels[y * 1024 + x] = 7;
    assert_int_equal(draw(&f), 1);
    assert_rect(&f.rects[0], 0, 0, 1024, 768);
    end(&f);
}

static void another_size_is_everything(void **state)
{
    struct fixture f;

    begin(&f, 64, 64);
    draw(&f);
    picture_fini(&f.picture);
    picture_init(&f.picture, 32, 128);
    assert_int_equal(draw(&f), 1);
    assert_rect(&f.rects[0], 0, 0, 32, 128);
    end(&f);
}

static void messages_come_as_they_went(void **state)
{
    const struct surface_message messages[] = {
        {.type = SURFACE_SHARE},
        {.type = SURFACE_REFRESH},
        {.type = SURFACE_KEY, .key = 0x9c, .down = 1},
        {.type = SURFACE_POINTER, .buttons = 5, .wheel = -1, .x = SURFACE_POINT_MAX, .y = 3},
        {.type = SURFACE_FRAME,
         .width = 640,
         .height = 480,
         .count = 2,
         .rects = {{0, 0, 640, 16}, {600, 464, 40, 16}}},
    };

    for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
        uint8_t bytes[SURFACE_MESSAGE_MAX];
        struct surface_message read = {0};
        size_t len = surface_message_put(&messages[i], bytes);
        assert_true(surface_message_get(&read, bytes, len));
        assert_memory_equal(&read, &messages[i], sizeof(read));
        assert_false(surface_message_get(&read, bytes, len - 1));
        bytes[len] = 0;
        assert_false(surface_message_get(&read, bytes, len + 1));
    }
}

static void nonsense_is_none(void **state)
{
    const struct surface_message outside = {
        .type = SURFACE_FRAME, .width = 64, .height = 64, .count = 1, .rects = {{32, 0, 33, 1}}};
    const struct surface_message huge = {.type = SURFACE_FRAME, .width = 8192, .height = 8192};
    uint8_t bytes[SURFACE_MESSAGE_MAX];
    struct surface_message read;

    assert_false(surface_message_get(&read, bytes, surface_message_put(&outside, bytes)));
    assert_false(surface_message_get(&read, bytes, surface_message_put(&huge, bytes)));
    assert_false(surface_message_get(&read, (const uint8_t[]){SURFACE_KEY, 0x80, 1}, 3));
    assert_false(surface_message_get(&read, (const uint8_t[]){99}, 1));
    assert_false(surface_message_get(&read, bytes, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes_are_found),
        cmocka_unit_test(too_many_changes_are_everything),
        cmocka_unit_test(another_size_is_everything),
        cmocka_unit_test(messages_come_as_they_went),
        cmocka_unit_test(nonsense_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
