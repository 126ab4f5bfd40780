/*
 * Plays key strokes. See key_player.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/input/key_player.h"

#include <stdlib.h>

#include "base/clock.h"

#define STROKES_MAX 1024
#define PAUSE_MS 10 /* between two strokes */

struct key_player {
    void (*key)(void *opaque, uint8_t key, bool down);
    void *opaque;
    struct loop_timer timer;
    struct {
        struct key_stroke stroke;
        unsigned hold_ms;
    } queue[STROKES_MAX]; /* a ring */
    size_t first, count;
    bool down; /* the first one is held */
};

static void arm(struct key_player *player, unsigned ms)
{
    loop_timer_arm(&player->timer, clock_now_ns() + ms * NSEC_PER_MSEC);
}

static void press(struct key_player *player)
{
    const struct key_stroke *stroke = &player->queue[player->first].stroke;

    for (unsigned i = 0; i < stroke->count; i++)
        player->key(player->opaque, stroke->key[i], true);
    player->down = true;
    arm(player, player->queue[player->first].hold_ms);
}

static void release(struct key_player *player)
{
    const struct key_stroke *stroke = &player->queue[player->first].stroke;

    for (unsigned i = stroke->count; i-- > 0;)
        player->key(player->opaque, stroke->key[i], false);
    player->down = false;
    player->first = (player->first + 1) % STROKES_MAX;
    if (--player->count)
        arm(player, PAUSE_MS);
}

static void step(void *opaque)
{
    struct key_player *player = opaque;

    if (player->down)
        release(player);
    else
        press(player);
}

struct key_player *key_player_new(struct loop *loop,
                                  void (*key)(void *opaque, uint8_t key, bool down), void *opaque)
{
    struct key_player *player = xcalloc(1, sizeof(*player));

    player->key = key;
    player->opaque = opaque;
    loop_timer_init(loop, &player->timer, step, player);
    return player;
}

void key_player_free(struct key_player *player)
{
    if (!player)
        return;
    loop_timer_cancel(&player->timer);
    free(player);
}

size_t key_player_room(const struct key_player *player)
{
    return STROKES_MAX - player->count;
}

bool key_player_play(struct key_player *player, const struct key_stroke *stroke, unsigned hold_ms)
{
    if (player->count == STROKES_MAX)
        return false;
    size_t last = (player->first + player->count++) % STROKES_MAX;
    player->queue[last].stroke = *stroke;
    player->queue[last].hold_ms = hold_ms;
    if (player->count == 1 && !player->down)
        press(player);
    return true;
}
