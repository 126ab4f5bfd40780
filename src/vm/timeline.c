/*
 * Boot timeline. See timeline.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/timeline.h"

#include <string.h>

#include "base/clock.h"

static const char *const names[TIMELINE_MARKS] = {
    [TIMELINE_EXEC] = "exec",
    [TIMELINE_CONFIG] = "config",
    [TIMELINE_MEMORY] = "memory",
    [TIMELINE_DEVICES] = "devices",
    [TIMELINE_FIRST_INSN] = "first guest instruction",
    [TIMELINE_BOOT_LOADER] = "boot loader",
    [TIMELINE_KERNEL_ENTRY] = "kernel entry",
    [TIMELINE_FIRST_OUTPUT] = "first output",
    [TIMELINE_INIT] = "init",
    [TIMELINE_END] = "end",
};

const char *timeline_name(enum timeline_mark mark)
{
    return (unsigned)mark < TIMELINE_MARKS ? names[mark] : "?";
}

void timeline_mark_at(struct timeline *timeline, enum timeline_mark mark, uint64_t at_ns)
{
    uint64_t unset = 0;

    if ((unsigned)mark < TIMELINE_MARKS)
        __atomic_compare_exchange_n(&timeline->at_ns[mark], &unset, at_ns, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED);
}

void timeline_mark(struct timeline *timeline, enum timeline_mark mark)
{
    /* The common call comes from a hot path long after the mark was set. */
    if ((unsigned)mark < TIMELINE_MARKS &&
        !__atomic_load_n(&timeline->at_ns[mark], __ATOMIC_RELAXED))
        timeline_mark_at(timeline, mark, clock_now_ns());
}

void timeline_move(struct timeline *timeline, enum timeline_mark mark)
{
    __atomic_store_n(&timeline->at_ns[mark], clock_now_ns(), __ATOMIC_RELAXED);
}

struct stage {
    enum timeline_mark mark;
    uint64_t at_ns;
};

/* The marks that were reached, by time; equal times in the order of the enum. */
static unsigned collect(const struct timeline *timeline, struct stage *stages)
{
    unsigned count = 0;

    for (unsigned mark = 0; mark < TIMELINE_MARKS; mark++) {
        uint64_t at_ns = __atomic_load_n(&timeline->at_ns[mark], __ATOMIC_RELAXED);
        if (!at_ns)
            continue;
        unsigned i = count++;
        for (; i && stages[i - 1].at_ns > at_ns; i--)
            stages[i] = stages[i - 1];
        stages[i] = (struct stage){mark, at_ns};
    }
    return count;
}

static double milliseconds(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) / 1e6;
}

void timeline_print(const struct timeline *timeline, struct buf *out)
{
    struct stage stages[TIMELINE_MARKS];
    unsigned count = collect(timeline, stages);

    buf_printf(out, "%-24s %12s %12s\n", "stage", "at ms", "took ms");
    for (unsigned i = 0; i < count; i++)
        buf_printf(out, "%-24s %12.3f %12.3f\n", timeline_name(stages[i].mark),
                   milliseconds(stages[0].at_ns, stages[i].at_ns),
                   milliseconds(stages[i ? i - 1 : 0].at_ns, stages[i].at_ns));
}

json_t *timeline_to_json(const struct timeline *timeline)
{
    struct stage stages[TIMELINE_MARKS];
    unsigned count = collect(timeline, stages);
    json_t *array = json_array();

    for (unsigned i = 0; i < count; i++) {
        json_t *stage = json_object();
        json_object_set_new(stage, "stage", json_string(timeline_name(stages[i].mark)));
        json_object_set_new(stage, "at_ms",
                            json_real(milliseconds(stages[0].at_ns, stages[i].at_ns)));
        json_object_set_new(stage, "took_ms",
                            json_real(milliseconds(stages[i ? i - 1 : 0].at_ns, stages[i].at_ns)));
        json_array_append_new(array, stage);
    }
    return array;
}
