/*
 * Names of keys (QEMU's QKeyCode), and the US layout. See keys.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "display/keys.h"

#include <string.h>

#define E KEY_EXTENDED

/* The name's place is the key: rows of 16. */
static const char *const plain[128] = {
    /* 00 */ NULL,
    "esc",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    /* 08 */ "7",
    "8",
    "9",
    "0",
    "minus",
    "equal",
    "backspace",
    "tab",
    /* 10 */ "q",
    "w",
    "e",
    "r",
    "t",
    "y",
    "u",
    "i",
    /* 18 */ "o",
    "p",
    "bracket_left",
    "bracket_right",
    "ret",
    "ctrl",
    "a",
    "s",
    /* 20 */ "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "semicolon",
    /* 28 */ "apostrophe",
    "grave_accent",
    "shift",
    "backslash",
    "z",
    "x",
    "c",
    "v",
    /* 30 */ "b",
    "n",
    "m",
    "comma",
    "dot",
    "slash",
    "shift_r",
    "kp_multiply",
    /* 38 */ "alt",
    "spc",
    "caps_lock",
    "f1",
    "f2",
    "f3",
    "f4",
    "f5",
    /* 40 */ "f6",
    "f7",
    "f8",
    "f9",
    "f10",
    "num_lock",
    "scroll_lock",
    "kp_7",
    /* 48 */ "kp_8",
    "kp_9",
    "kp_subtract",
    "kp_4",
    "kp_5",
    "kp_6",
    "kp_add",
    "kp_1",
    /* 50 */ "kp_2",
    "kp_3",
    "kp_0",
    "kp_decimal",
    "sysrq",
    NULL,
    "less",
    "f11",
    /* 58 */ "f12",
    "kp_equals",
    [0x70] = "katakanahiragana",
    [0x73] = "ro",
    [0x79] = "henkan",
    [0x7b] = "muhenkan",
    [0x7d] = "yen",
    [0x7e] = "kp_comma"};

static const struct {
    const char *name;
    uint8_t key;
} others[] = {
    {"audioprev", E | 0x10},  {"audionext", E | 0x19},  {"kp_enter", E | 0x1c},
    {"ctrl_r", E | 0x1d},     {"audiomute", E | 0x20},  {"calculator", E | 0x21},
    {"audioplay", E | 0x22},  {"audiostop", E | 0x24},  {"volumedown", E | 0x2e},
    {"volumeup", E | 0x30},   {"ac_home", E | 0x32},    {"kp_divide", E | 0x35},
    {"print", E | 0x37},      {"alt_r", E | 0x38},      {"pause", E | 0x46},
    {"home", E | 0x47},       {"up", E | 0x48},         {"pgup", E | 0x49},
    {"left", E | 0x4b},       {"right", E | 0x4d},      {"end", E | 0x4f},
    {"down", E | 0x50},       {"pgdn", E | 0x51},       {"insert", E | 0x52},
    {"delete", E | 0x53},     {"meta_l", E | 0x5b},     {"meta_r", E | 0x5c},
    {"compose", E | 0x5d},    {"menu", E | 0x5d},       {"power", E | 0x5e},
    {"sleep", E | 0x5f},      {"wake", E | 0x63},       {"ac_bookmarks", E | 0x66},
    {"ac_refresh", E | 0x67}, {"ac_forward", E | 0x69}, {"ac_back", E | 0x6a},
    {"computer", E | 0x6b},   {"mail", E | 0x6c},       {"mediaselect", E | 0x6d},
    {"asterisk", 0x37},
};

/* What each key of the US layout types: by itself, with shift. */
static const struct {
    uint8_t key;
    char low, high;
} us[] = {
    {0x02, '1', '!'},  {0x03, '2', '@'}, {0x04, '3', '#'},  {0x05, '4', '$'}, {0x06, '5', '%'},
    {0x07, '6', '^'},  {0x08, '7', '&'}, {0x09, '8', '*'},  {0x0a, '9', '('}, {0x0b, '0', ')'},
    {0x0c, '-', '_'},  {0x0d, '=', '+'}, {0x1a, '[', '{'},  {0x1b, ']', '}'}, {0x27, ';', ':'},
    {0x28, '\'', '"'}, {0x29, '`', '~'}, {0x2b, '\\', '|'}, {0x33, ',', '<'}, {0x34, '.', '>'},
    {0x35, '/', '?'},  {0x39, ' ', 0},
};

uint8_t key_find(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(plain); i++) {
        if (plain[i] && !strcmp(plain[i], name))
            return (uint8_t)i;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
        if (!strcmp(others[i].name, name))
            return others[i].key;
    }
    return KEY_NONE;
}

bool key_stroke_add(struct key_stroke *stroke, uint8_t key)
{
    if (stroke->count == KEYS_TOGETHER_MAX)
        return false;
    stroke->key[stroke->count++] = key;
    return true;
}

static bool add_with(struct key_stroke *stroke, uint8_t modifier, uint8_t key)
{
    return (!modifier || key_stroke_add(stroke, modifier)) && key_stroke_add(stroke, key);
}

bool key_stroke_character(struct key_stroke *stroke, unsigned char character)
{
    char name[2] = {(char)(character | 0x20), 0};

    switch (character) {
    case '\r':
    case '\n':
        return key_stroke_add(stroke, KEY_RET);
    case '\t':
        return key_stroke_add(stroke, KEY_TAB);
    case 0x1b:
        return key_stroke_add(stroke, KEY_ESC);
    case '\b':
    case 0x7f:
        return key_stroke_add(stroke, KEY_BACKSPACE);
    case 0:
        return add_with(stroke, KEY_CTRL, KEY_SPC);
    }
    if (character < 0x20) /* Ctrl-A is 1; Ctrl-\ 0x1c, Ctrl-] 0x1d, Ctrl-^ 0x1e, Ctrl-_ 0x1f */
        return key_stroke_add(stroke, KEY_CTRL) &&
               key_stroke_character(stroke, character < 0x1b ? character | 0x60 : character | 0x40);
    if (name[0] >= 'a' && name[0] <= 'z')
        return add_with(stroke, character & 0x20 ? KEY_NONE : KEY_SHIFT, key_find(name));
    for (unsigned i = 0; i < ARRAY_SIZE(us); i++) {
        if (character == (unsigned char)us[i].low)
            return key_stroke_add(stroke, us[i].key);
        if (us[i].high && character == (unsigned char)us[i].high)
            return add_with(stroke, KEY_SHIFT, us[i].key);
    }
    return false;
}

struct err *key_stroke_read(struct key_stroke *stroke, const char *word)
{
    scoped(free_cleanup) char *copy = xstrdup(word);
    char *rest = copy, *name;

    while ((name = strsep(&rest, "-"))) {
        uint8_t key = key_find(name);
        if (!key)
            return err_of(ERR_USAGE, "there is no key '%s' (in '%s')", name, word);
        if (!key_stroke_add(stroke, key))
            return err_of(ERR_USAGE, "'%s' are more than %d keys together", word,
                          KEYS_TOGETHER_MAX);
    }
    return NULL;
}
