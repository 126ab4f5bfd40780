/*
 * A debugger outside the guest: breakpoints, watchpoints and single steps that the guest does not
 * see. Its INT3s lie in guest memory; the debugger has put them there.
 *
 * As with the guest's own debug registers (debug.c), instructions run one at a time while it has
 * points or steps. The vCPU's thread; soft_vcpu_debug() while that is outside vcpu_run.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/run.h"

struct err *soft_vcpu_debug(struct accel_vcpu *vcpu, const struct accel_debug *debug)
{
    struct soft_vcpu *v = (struct soft_vcpu *)vcpu;

    v->debugger = *debug;
    v->debugger_hit = -1;
    soft_debug_changed(v);
    return NULL;
}

void soft_debugger_leave(struct soft_vcpu *v, enum accel_debug_event event, unsigned point)
{
    v->debugger_hit = -1;
    v->exit->reason = VM_EXIT_DEBUG;
    v->exit->debug = event;
    v->exit->debug_point = point;
    longjmp(v->unwind, 2);
}

static bool is_data(const struct accel_debug_point *point)
{
    return point->kind != ACCEL_DEBUG_EXEC;
}

static bool overlaps(const struct accel_debug_point *point, uint64_t at, uint64_t len)
{
    return point->linear - at < len || at - point->linear < point->size;
}

void soft_debugger_before(struct soft_vcpu *v)
{
    uint64_t linear = v->rip + (v->mode == INSN_64 ? 0 : v->seg[X86_CS].base);

    if (v->debugger_hit >= 0)
        soft_debugger_leave(v, ACCEL_DEBUG_POINT, (unsigned)v->debugger_hit);
    for (unsigned i = 0; i < v->debugger.count; i++)
        if (!is_data(&v->debugger.point[i]) && v->debugger.point[i].linear == linear)
            soft_debugger_leave(v, ACCEL_DEBUG_POINT, i);
}

void soft_debugger_after(struct soft_vcpu *v)
{
    if (v->debugger_hit >= 0)
        soft_debugger_leave(v, ACCEL_DEBUG_POINT, (unsigned)v->debugger_hit);
    if (v->debugger.step)
        soft_debugger_leave(v, ACCEL_DEBUG_STEPPED, 0);
}

bool soft_debugger_watches(const struct soft_vcpu *v)
{
    for (unsigned i = 0; i < v->debugger.count; i++)
        if (is_data(&v->debugger.point[i]))
            return true;
    return false;
}

bool soft_debugger_watched_page(const struct soft_vcpu *v, uint64_t linear)
{
    for (unsigned i = 0; i < v->debugger.count; i++)
        if (is_data(&v->debugger.point[i]) &&
            overlaps(&v->debugger.point[i], linear & ~0xfffull, GUEST_PAGE_SIZE))
            return true;
    return false;
}

void soft_debugger_watch(struct soft_vcpu *v, uint64_t linear, unsigned len,
                         enum soft_access access)
{
    for (unsigned i = 0; i < v->debugger.count; i++) {
        const struct accel_debug_point *point = &v->debugger.point[i];
        if (is_data(point) && (access == ACC_WRITE || point->kind == ACCEL_DEBUG_ACCESS) &&
            overlaps(point, linear, len))
            v->debugger_hit = (int)i;
    }
}
