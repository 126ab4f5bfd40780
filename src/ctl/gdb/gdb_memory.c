/*
 * GDB stub: memory, breakpoints, watchpoints (GDB manual, E.2: m, M, X, Z, z).
 *
 * A software breakpoint is an INT3 in guest memory. What the debugger reads there is the byte that
 * the guest had; the guest's own reads see the INT3, as under any debugger.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "ctl/gdb/gdb_internal.h"

#define INT3 0xcc
#define READ_MAX (GDB_PACKET_MAX / 2)

/* ---- memory ---- */

/* Bytes of memory at `linear` that are hidden behind breakpoints, from or to `bytes`. */
static void exchange_hidden(struct gdb_server *gdb, uint64_t linear, uint8_t *bytes, size_t len,
                            bool write)
{
    for (unsigned i = 0; i < gdb->breakpoint_count; i++) {
        struct gdb_breakpoint *breakpoint = &gdb->breakpoint[i];
        uint64_t at = breakpoint->linear - linear, gpa;

        if (at >= len || !vm_debug_translate(gdb->vm, &gdb->state, breakpoint->linear, &gpa) ||
            gpa != breakpoint->gpa)
            continue;
        if (write) {
            breakpoint->saved = bytes[at];
            bytes[at] = INT3;
        } else {
            bytes[at] = breakpoint->saved;
        }
    }
}

static bool parse_range(const char **text, uint64_t *linear, uint64_t *len)
{
    if (!gdb_parse_number(text, linear) || *(*text)++ != ',')
        return false;
    return gdb_parse_number(text, len);
}

struct err *gdb_memory_read(struct gdb_server *gdb, const char *text)
{
    uint8_t bytes[READ_MAX];
    uint64_t linear, len;

    if (!parse_range(&text, &linear, &len))
        return err_new("m: expected ADDRESS,LENGTH");
    TRY(gdb_state(gdb));
    len = vm_debug_read(gdb->vm, &gdb->state, linear, bytes, MIN(len, (uint64_t)READ_MAX));
    if (!len)
        return err_new("no memory is mapped at 0x%llx", (unsigned long long)linear);
    exchange_hidden(gdb, linear, bytes, len, false);
    gdb_answer_hex(gdb, bytes, len);
    return NULL;
}

struct err *gdb_memory_write(struct gdb_server *gdb, const char *text, size_t len, bool binary)
{
    const char *at = text;
    uint8_t bytes[GDB_PACKET_MAX];
    uint64_t linear, count;
    size_t found;

    if (!parse_range(&at, &linear, &count) || *at++ != ':' || count > sizeof(bytes))
        return err_new("M and X: expected ADDRESS,LENGTH:DATA");
    if (binary) {
        found = MIN(len - (size_t)(at - text), sizeof(bytes));
        memcpy(bytes, at, found);
    } else {
        found = gdb_parse_hex(at, bytes, sizeof(bytes));
    }
    if (found < count)
        return err_new("M and X: there are less bytes than the packet says");
    TRY(gdb_state(gdb));
    exchange_hidden(gdb, linear, bytes, count, true);
    if (vm_debug_write(gdb->vm, &gdb->state, linear, bytes, count) != count)
        return err_new("no memory is mapped at 0x%llx, or it ends too soon",
                       (unsigned long long)linear);
    gdb_answer(gdb, "OK");
    return NULL;
}

/* ---- breakpoints ---- */

static struct gdb_breakpoint *find(struct gdb_server *gdb, uint64_t linear)
{
    for (unsigned i = 0; i < gdb->breakpoint_count; i++)
        if (gdb->breakpoint[i].linear == linear)
            return &gdb->breakpoint[i];
    return NULL;
}

bool gdb_is_breakpoint(const struct gdb_server *gdb, uint64_t linear)
{
    return find((struct gdb_server *)gdb, linear);
}

static struct err *breakpoint_insert(struct gdb_server *gdb, uint64_t linear)
{
    struct gdb_breakpoint *breakpoint = &gdb->breakpoint[gdb->breakpoint_count];
    uint8_t int3 = INT3;

    if (find(gdb, linear))
        return NULL;
    if (gdb->breakpoint_count == GDB_BREAKPOINTS_MAX)
        return err_new("there are %d breakpoints already", GDB_BREAKPOINTS_MAX);
    if (!vm_debug_translate(gdb->vm, &gdb->state, linear, &breakpoint->gpa) ||
        vm_debug_read(gdb->vm, &gdb->state, linear, &breakpoint->saved, 1) != 1 ||
        vm_debug_write(gdb->vm, &gdb->state, linear, &int3, 1) != 1)
        return err_new("no memory is mapped at 0x%llx yet: hbreak waits for it",
                       (unsigned long long)linear);
    breakpoint->linear = linear;
    gdb->breakpoint_count++;
    return NULL;
}

/* Not if the guest has written something else there since: a reset, another program. */
static void restore(struct gdb_server *gdb, const struct gdb_breakpoint *breakpoint)
{
    uint8_t now;

    if (vm_physical_read(gdb->vm, breakpoint->gpa, &now, 1) && now == INT3)
        vm_physical_write(gdb->vm, breakpoint->gpa, &breakpoint->saved, 1);
}

static void breakpoint_remove(struct gdb_server *gdb, uint64_t linear)
{
    struct gdb_breakpoint *breakpoint = find(gdb, linear);

    if (!breakpoint)
        return;
    restore(gdb, breakpoint);
    *breakpoint = gdb->breakpoint[--gdb->breakpoint_count];
}

void gdb_breakpoints_clear(struct gdb_server *gdb)
{
    while (gdb->breakpoint_count)
        restore(gdb, &gdb->breakpoint[--gdb->breakpoint_count]);
}

/* ---- points of the processor ---- */

static struct accel_debug_point *find_point(struct gdb_server *gdb,
                                            const struct accel_debug_point *wanted)
{
    for (unsigned i = 0; i < gdb->point_count; i++) {
        struct accel_debug_point *point = &gdb->point[i];
        if (point->linear == wanted->linear && point->size == wanted->size &&
            point->kind == wanted->kind)
            return point;
    }
    return NULL;
}

/* The processor watches 1, 2, 4 or 8 bytes at a multiple of that: what remains of a range, its
 * first such part. */
static uint8_t part_size(uint64_t linear, uint64_t len)
{
    uint8_t size = 8;

    while (size > len || linear & (size - 1u))
        size >>= 1;
    return size;
}

/* All parts of [linear, linear+len), or none. */
static struct err *points_insert(struct gdb_server *gdb, enum accel_debug_kind kind,
                                 uint64_t linear, uint64_t len)
{
    unsigned count = gdb->point_count;

    while (len) {
        struct accel_debug_point point = {linear, part_size(linear, len), kind};
        linear += point.size;
        len -= point.size;
        if (find_point(gdb, &point))
            continue;
        if (count == ACCEL_DEBUG_POINTS)
            return err_new("a processor has %d points of at most 8 aligned bytes: too few for this",
                           ACCEL_DEBUG_POINTS);
        gdb->point[count++] = point;
    }
    gdb->point_count = count;
    return NULL;
}

static void points_remove(struct gdb_server *gdb, enum accel_debug_kind kind, uint64_t linear,
                          uint64_t len)
{
    while (len) {
        struct accel_debug_point wanted = {linear, part_size(linear, len), kind};
        struct accel_debug_point *point = find_point(gdb, &wanted);
        if (point)
            *point = gdb->point[--gdb->point_count];
        linear += wanted.size;
        len -= wanted.size;
    }
}

/* "TYPE,ADDRESS,KIND": 0 software, 1 hardware breakpoint; 2 write, 4 access watchpoint. */
struct err *gdb_point_change(struct gdb_server *gdb, const char *text, bool insert)
{
    static const enum accel_debug_kind kinds[] = {
        [1] = ACCEL_DEBUG_EXEC, [2] = ACCEL_DEBUG_WRITE, [4] = ACCEL_DEBUG_ACCESS};
    uint64_t type, linear, len;

    if (!gdb_parse_number(&text, &type) || *text++ != ',' || !parse_range(&text, &linear, &len))
        return err_new("Z: expected TYPE,ADDRESS,KIND");
    if (type == 3 || type > 4)
        return NULL; /* a processor has no watchpoint for reads alone: "not known" */
    if (type == 1)
        len = 1; /* was the length of a breakpoint instruction */
    if (len > 8 * ACCEL_DEBUG_POINTS)
        return err_new("%llu bytes are too many to watch", (unsigned long long)len);
    TRY(gdb_state(gdb));
    if (type == 0 && insert)
        TRY(breakpoint_insert(gdb, linear));
    else if (type == 0)
        breakpoint_remove(gdb, linear);
    else if (insert)
        TRY(points_insert(gdb, kinds[type], linear, len));
    else
        points_remove(gdb, kinds[type], linear, len);
    gdb_answer(gdb, "OK");
    return NULL;
}
