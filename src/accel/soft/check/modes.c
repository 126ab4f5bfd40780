/*
 * Reads the engine's test modes: see modes.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/check/modes.h"

#include <stdlib.h>
#include <string.h>

/* Executions that make a block worth translating (xlate.h). */
#define XLATE_AFTER 32

struct number {
    const char *name;
    uint32_t min, max;
    uint32_t unit;
    size_t offset;
};

static const struct number numbers[] = {
    {"xlate-after", 0, 1000000, 1, offsetof(struct soft_modes, xlate_after)},
    {"tlb", 4, 1024, 1, offsetof(struct soft_modes, tlb)},
    {"code-cache", 64, 65536, 1024, offsetof(struct soft_modes, code_cache)},
};

static const struct {
    const char *name;
    size_t offset;
} switches[] = {
    {"lockstep", offsetof(struct soft_modes, lockstep)},
    {"poll", offsetof(struct soft_modes, poll)},
    {"scatter", offsetof(struct soft_modes, scatter)},
    {"crossings", offsetof(struct soft_modes, crossings)},
    {"trace", offsetof(struct soft_modes, trace)},
};

static struct err *read_number(const struct number *number, const char *text,
                               struct soft_modes *modes)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (end == text || *end || value < number->min || value > number->max)
        return err_of(ERR_USAGE, "--accel-debug: %s takes a number from %u to %u, found '%s'",
                      number->name, number->min, number->max, text);
    *(uint32_t *)(void *)((char *)modes + number->offset) = (uint32_t)value * number->unit;
    return NULL;
}

static struct err *read_word(const char *word, struct soft_modes *modes)
{
    for (size_t i = 0; i < ARRAY_SIZE(switches); i++)
        if (!strcmp(word, switches[i].name)) {
            *((bool *)modes + switches[i].offset) = true;
            return NULL;
        }
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        size_t len = strlen(numbers[i].name);
        if (!strncmp(word, numbers[i].name, len) && word[len] == '=')
            return read_number(&numbers[i], word + len + 1, modes);
    }
    return err_of(
        ERR_USAGE,
        "--accel-debug: '%s' is no mode; there are: lockstep, poll, trace, scatter, crossings, "
        "xlate-after=N, tlb=N, code-cache=KIB",
        word);
}

struct err *soft_modes_read(const char *text, struct soft_modes *modes)
{
    *modes = (struct soft_modes){.xlate_after = XLATE_AFTER};
    if (!text)
        return NULL;
    scoped(free_cleanup) char *words = xstrdup(text);
    char *rest = words;
    for (char *word; (word = strsep(&rest, ","));)
        TRY(read_word(word, modes));
    return NULL;
}
