/*
 * Plays key strokes on a keyboard, no faster than a guest's small buffer takes them: keys go down
 * one after the other, stay for a while, and come up together.
 *
 * On the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_INPUT_KEY_PLAYER_H
#define TENON_HW_INPUT_KEY_PLAYER_H

#include "display/keys.h"
#include "loop/loop.h"

struct key_player;

/* `key` presses and releases a key of whatever keyboard it is. */
struct key_player *key_player_new(struct loop *loop,
                                  void (*key)(void *opaque, uint8_t key, bool down), void *opaque);
/* NULL is fine. What is still to play is lost. */
void key_player_free(struct key_player *player);
/* Strokes queue up; false: there are too many, this one is dropped. */
bool key_player_play(struct key_player *player, const struct key_stroke *stroke, unsigned hold_ms);
/* How many more it takes. */
size_t key_player_room(const struct key_player *player);

#endif
