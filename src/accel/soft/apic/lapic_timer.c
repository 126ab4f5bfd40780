/*
 * Local APIC timer: one-shot, periodic, TSC deadline (Intel SDM vol. 3, 11.5.4).
 *
 * The input clock is 1 GHz, so a count is a nanosecond times the divisor. The lock (LOCK_LAPIC)
 * covers struct lapic_timer: the vCPU's thread programs it, the clock thread expires it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/apic/lapic.h"

/* A guest must not be able to make the clock thread spin. */
#define PERIOD_MIN_NS 100000ull

static unsigned divisor(uint32_t divide)
{
    unsigned code = (divide & 3) | (divide >> 1 & 4);
    return code == 7 ? 1 : 2u << code;
}

void lapic_timer_init(struct lapic *lapic)
{
    lock_init(&lapic->timer.lock, LOCK_LAPIC);
    lapic->timer.deadline_ns = UINT64_MAX;
}

void lapic_timer_fini(struct lapic *lapic)
{
    lapic->host->detach(lapic->opaque, lapic->index);
    lock_fini(&lapic->timer.lock);
}

static void arm_locked(struct lapic *lapic, uint64_t deadline_ns)
{
    lapic->timer.deadline_ns = deadline_ns;
    lapic->host->arm(lapic->opaque, lapic->index, deadline_ns);
}

static void stop_locked(struct lapic *lapic)
{
    lapic->timer.tsc_deadline = 0;
    if (lapic->timer.deadline_ns != UINT64_MAX)
        arm_locked(lapic, UINT64_MAX);
}

void lapic_timer_reset(struct lapic *lapic)
{
    lock_take(&lapic->timer.lock);
    stop_locked(lapic);
    lapic->timer.initial = lapic->timer.divide = 0;
    lock_drop(&lapic->timer.lock);
}

static uint64_t period_of(const struct lapic_timer *timer, uint32_t lvt)
{
    uint64_t period = (uint64_t)timer->initial * divisor(timer->divide);
    if (period && (lvt & LVT_TIMER_MODE) == LVT_TIMER_PERIODIC && period < PERIOD_MIN_NS)
        period = PERIOD_MIN_NS;
    return period;
}

static void start_locked(struct lapic *lapic, uint64_t elapsed_ns)
{
    struct lapic_timer *timer = &lapic->timer;
    timer->period_ns = period_of(timer, lapic->lvt[LVT_TIMER]);
    if (!timer->period_ns) {
        stop_locked(lapic);
        return;
    }
    timer->start_ns = lapic->host->now_ns(lapic->opaque) - elapsed_ns;
    arm_locked(lapic, timer->start_ns + timer->period_ns);
}

static bool is_deadline(uint32_t lvt)
{
    return (lvt & LVT_TIMER_MODE) == LVT_TIMER_DEADLINE;
}

static void fire(struct lapic *lapic, uint32_t lvt)
{
    if (!(lvt & LVT_MASKED))
        lapic_accept(lapic, LAPIC_FIXED, lvt & 0xff, false);
}

/*
 * The timer ran out, though the clock thread may not have said so yet: it stops, or begins its next
 * period. True when an interrupt is owed; `lvt` is what the entry was when it ran out.
 */
static bool settle_locked(struct lapic *lapic, uint32_t lvt)
{
    struct lapic_timer *timer = &lapic->timer;
    uint64_t now = lapic->host->now_ns(lapic->opaque);
    if (timer->deadline_ns > now)
        return false;
    if ((lvt & LVT_TIMER_MODE) == LVT_TIMER_PERIODIC) {
        timer->start_ns = now - (now - timer->deadline_ns) % timer->period_ns;
        arm_locked(lapic, timer->start_ns + timer->period_ns);
    } else {
        timer->tsc_deadline = 0;
        timer->deadline_ns = UINT64_MAX;
    }
    return true;
}

void lapic_timer_lvt(struct lapic *lapic, uint32_t now)
{
    lock_take(&lapic->timer.lock);
    uint32_t before = lapic->lvt[LVT_TIMER];
    bool changes = (before ^ now) & LVT_TIMER_MODE;
    bool due = changes && settle_locked(lapic, before);
    lapic->lvt[LVT_TIMER] = now;
    /* To or from deadline mode disarms; one-shot and periodic keep counting. */
    if (changes && (is_deadline(before) || is_deadline(now))) {
        stop_locked(lapic);
        lapic->timer.initial = 0;
    } else if (changes) {
        lapic->timer.period_ns = period_of(&lapic->timer, now);
    }
    lock_drop(&lapic->timer.lock);
    if (due)
        fire(lapic, before);
}

void lapic_timer_set_initial(struct lapic *lapic, uint32_t value)
{
    uint32_t lvt = lapic->lvt[LVT_TIMER];
    if (is_deadline(lvt))
        return;
    lock_take(&lapic->timer.lock);
    bool due = settle_locked(lapic, lvt);
    lapic->timer.initial = value;
    start_locked(lapic, 0);
    lock_drop(&lapic->timer.lock);
    if (due)
        fire(lapic, lvt);
}

/* The count at `now`, in timer ticks. */
static uint32_t current_locked(const struct lapic *lapic, uint64_t now)
{
    const struct lapic_timer *timer = &lapic->timer;
    if (timer->deadline_ns == UINT64_MAX || is_deadline(lapic->lvt[LVT_TIMER]))
        return 0;
    if (now >= timer->deadline_ns) {
        if ((lapic->lvt[LVT_TIMER] & LVT_TIMER_MODE) != LVT_TIMER_PERIODIC)
            return 0;
        /* The clock thread is late: the next period has begun. */
        uint64_t late = (now - timer->deadline_ns) % timer->period_ns;
        return (uint32_t)((timer->period_ns - late) / divisor(timer->divide));
    }
    uint64_t left = (timer->deadline_ns - now) / divisor(timer->divide);
    return (uint32_t)MIN(left, (uint64_t)timer->initial);
}

uint32_t lapic_timer_current(struct lapic *lapic)
{
    lock_take(&lapic->timer.lock);
    uint32_t count = current_locked(lapic, lapic->host->now_ns(lapic->opaque));
    lock_drop(&lapic->timer.lock);
    return count;
}

void lapic_timer_set_divide(struct lapic *lapic, uint32_t value)
{
    lock_take(&lapic->timer.lock);
    struct lapic_timer *timer = &lapic->timer;
    uint64_t now = lapic->host->now_ns(lapic->opaque);
    uint32_t count = current_locked(lapic, now);
    timer->divide = value & 0xb;
    if (count) {
        timer->period_ns = period_of(timer, lapic->lvt[LVT_TIMER]);
        timer->start_ns = now;
        arm_locked(lapic, now + (uint64_t)count * divisor(timer->divide));
    }
    lock_drop(&lapic->timer.lock);
}

uint64_t lapic_tsc_deadline(struct lapic *lapic)
{
    lock_take(&lapic->timer.lock);
    uint64_t value = lapic->timer.tsc_deadline;
    lock_drop(&lapic->timer.lock);
    return value;
}

void lapic_set_tsc_deadline(struct lapic *lapic, uint64_t tsc)
{
    if (!is_deadline(lapic->lvt[LVT_TIMER]))
        return;
    bool now = false;
    lock_take(&lapic->timer.lock);
    uint64_t deadline_ns = tsc ? lapic->host->tsc_to_ns(lapic->opaque, lapic->index, tsc) : 0;
    if (!tsc || !deadline_ns) {
        stop_locked(lapic);
        now = tsc;
    } else {
        lapic->timer.tsc_deadline = tsc;
        arm_locked(lapic, deadline_ns);
    }
    lock_drop(&lapic->timer.lock);
    if (now)
        fire(lapic, lapic->lvt[LVT_TIMER]);
}

void lapic_tsc_changed(struct lapic *lapic)
{
    uint64_t deadline = lapic_tsc_deadline(lapic);
    if (deadline)
        lapic_set_tsc_deadline(lapic, deadline);
}

void lapic_timer_restore(struct lapic *lapic, uint32_t initial, uint32_t divide, uint32_t current,
                         uint64_t tsc_deadline)
{
    lock_take(&lapic->timer.lock);
    struct lapic_timer *timer = &lapic->timer;
    timer->initial = initial;
    timer->divide = divide & 0xb;
    if (!is_deadline(lapic->lvt[LVT_TIMER]) && current && initial) {
        uint64_t passed = initial > current ? initial - current : 0;
        start_locked(lapic, passed * divisor(timer->divide));
    }
    lock_drop(&lapic->timer.lock);
    lapic_set_tsc_deadline(lapic, tsc_deadline);
}

void lapic_timer_expire(struct lapic *lapic)
{
    struct lapic_timer *timer = &lapic->timer;
    lock_take(&timer->lock);
    uint32_t lvt = lapic->lvt[LVT_TIMER];
    bool due = settle_locked(lapic, lvt);
    /* Not due: the guest programmed it anew meanwhile, or asked for never. */
    if (!due && timer->deadline_ns != UINT64_MAX)
        arm_locked(lapic, timer->deadline_ns);
    lock_drop(&timer->lock);
    if (due)
        fire(lapic, lvt);
}
