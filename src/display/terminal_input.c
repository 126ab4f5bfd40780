/*
 * Terminal input as key strokes. See terminal_input.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "display/terminal_input.h"

#include <stdlib.h>

#define ESC 0x1b
#define PARAMETERS_MAX 3

/* Bits of a modifier parameter, which is one more. */
#define MODIFIER_SHIFT 1u
#define MODIFIER_ALT 2u
#define MODIFIER_CTRL 4u

/* Final bytes of CSI and SS3 sequences. */
static const struct {
    char final;
    uint8_t key;
} finals[] = {
    {'A', KEY_UP},   {'B', KEY_DOWN}, {'C', KEY_RIGHT},  {'D', KEY_LEFT},   {'F', KEY_END},
    {'H', KEY_HOME}, {'P', KEY_F1},   {'Q', KEY_F1 + 1}, {'R', KEY_F1 + 2}, {'S', KEY_F1 + 3},
};

/* First parameters of CSI ... ~. */
static const uint8_t numbered[] = {
    [1] = KEY_HOME,    [2] = KEY_INSERT,  [3] = KEY_DELETE,  [4] = KEY_END,     [5] = KEY_PGUP,
    [6] = KEY_PGDN,    [7] = KEY_HOME,    [8] = KEY_END,     [11] = KEY_F1,     [12] = KEY_F1 + 1,
    [13] = KEY_F1 + 2, [14] = KEY_F1 + 3, [15] = KEY_F1 + 4, [17] = KEY_F1 + 5, [18] = KEY_F1 + 6,
    [19] = KEY_F1 + 7, [20] = KEY_F1 + 8, [21] = KEY_F1 + 9, [23] = KEY_F11,    [24] = KEY_F12,
};

static void stroke_with(struct terminal_input *input, unsigned modifiers, uint8_t key)
{
    struct key_stroke stroke = {0};

    if (modifiers & MODIFIER_SHIFT)
        key_stroke_add(&stroke, KEY_SHIFT);
    if (modifiers & MODIFIER_ALT)
        key_stroke_add(&stroke, KEY_ALT);
    if (modifiers & MODIFIER_CTRL)
        key_stroke_add(&stroke, KEY_CTRL);
    key_stroke_add(&stroke, key);
    input->stroke(input->opaque, &stroke);
}

static void character(struct terminal_input *input, bool alt, uint8_t byte)
{
    struct key_stroke stroke = {0};

    if (alt)
        key_stroke_add(&stroke, KEY_ALT);
    if (key_stroke_character(&stroke, byte))
        input->stroke(input->opaque, &stroke);
}

static unsigned parameters(const char *text, unsigned values[PARAMETERS_MAX])
{
    unsigned count = 0;

    while (count < PARAMETERS_MAX && *text >= '0' && *text <= '9') {
        char *end;
        unsigned long value = strtoul(text, &end, 10);
        values[count++] = (unsigned)MIN(value, 10000ul);
        if (*end != ';')
            break;
        text = end + 1;
    }
    return count;
}

/* A whole sequence: ESC [ parameters final, or ESC O final. */
static void sequence(struct terminal_input *input)
{
    const char *text = input->sequence;
    char final = text[input->len - 1];
    unsigned values[PARAMETERS_MAX] = {0};
    unsigned count = parameters(text + 2, values);
    unsigned modifiers = count == 2 && values[1] ? values[1] - 1 : 0;

    if (final == 't' && count == 3 && values[0] == 8) {
        input->size(input->opaque, values[1], values[2]);
    } else if (final == '~' && count && values[0] < sizeof(numbered) && numbered[values[0]]) {
        stroke_with(input, modifiers, numbered[values[0]]);
    } else if (final == 'Z') {
        stroke_with(input, MODIFIER_SHIFT, KEY_TAB);
    } else if (text[2] == '[' && final >= 'A' && final <= 'E') { /* Linux: F1 to F5 */
        stroke_with(input, 0, (uint8_t)(KEY_F1 + (final - 'A')));
    } else {
        for (unsigned i = 0; i < ARRAY_SIZE(finals); i++) {
            if (finals[i].final == final)
                stroke_with(input, modifiers, finals[i].key);
        }
    }
}

static bool is_whole(const struct terminal_input *input)
{
    char last = input->sequence[input->len - 1];

    if (input->sequence[1] == 'O')
        return input->len == 3;
    /* The Linux console's second bracket is no final byte. */
    return input->len > 2 && last >= '@' && last <= '~' && !(input->len == 3 && last == '[');
}

void terminal_input_byte(struct terminal_input *input, uint8_t byte)
{
    if (!input->len && byte != ESC) {
        character(input, false, byte);
        return;
    }
    if (input->len == 1 && byte != '[' && byte != 'O') {
        input->len = 0;
        character(input, byte != ESC, byte == ESC ? ESC : byte);
        if (byte == ESC) /* two: the first was the key, the second may begin something */
            input->len = 1;
        return;
    }
    input->sequence[input->len++] = (char)byte;
    if (input->len > 2 && is_whole(input)) {
        input->sequence[input->len] = 0;
        sequence(input);
        input->len = 0;
    } else if (input->len == TERMINAL_SEQUENCE_MAX - 1) {
        input->len = 0; /* nothing that a key sends is so long */
    }
}

void terminal_input_flush(struct terminal_input *input)
{
    unsigned len = input->len;

    input->len = 0;
    if (len == 1)
        character(input, false, ESC);
    else if (len == 2) /* Alt with [ or O */
        character(input, true, (uint8_t)input->sequence[1]);
}
