/*
 * The high precision event timer (IA-PC HPET specification 1.0a).
 *
 * The main counter does not count: it is worked out from device time. A timer that is to interrupt
 * has a timer on the loop; one whose comparator lies in the past waits for the counter to come
 * around.
 *
 * Lock: the device's. Loop timers run on the control loop and take it. PIT and RTC pull our wires
 * under their own locks, so the flag that cuts them off is atomic.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/hpet.h"
#include "base/bytes.h"
#include "hw/core/env.h"

#define REGION_SIZE 0x400
#define REG_CAPABILITIES 0x000
#define REG_CONFIG 0x010
#define REG_STATUS 0x020
#define REG_COUNTER 0x0f0
#define REG_TIMERS 0x100
#define TIMER_STRIDE 0x20
#define PERIOD_FS (HPET_TICK_NS * 1000000ull)

#define CONFIG_ENABLE 1u
#define CONFIG_LEGACY 2u

#define T_LEVEL 0x0002u
#define T_ENABLE 0x0004u
#define T_PERIODIC 0x0008u
#define T_CAN_PERIODIC 0x0010u
#define T_CAN_64 0x0020u
#define T_SET_VALUE 0x0040u
#define T_32BIT 0x0100u
#define T_ROUTE 0x3e00u
#define T_WRITABLE (T_LEVEL | T_ENABLE | T_PERIODIC | T_SET_VALUE | T_32BIT | T_ROUTE)
#define T_FIXED ((uint64_t)HPET_ROUTES << 32 | T_CAN_PERIODIC | T_CAN_64)

/* Faster interrupts than this would keep the control loop from everything else. */
#define INTERVAL_MIN_NS 100000u

static uint64_t counter(const struct hpet *hpet)
{
    if (!(hpet->config & CONFIG_ENABLE))
        return hpet->counter;
    return hpet->counter + (hw_clock_now(&hpet->clock) - hpet->counter_ns) / HPET_TICK_NS;
}

/* The wire that the timer's interrupt takes. */
static const struct irq_line *wire(const struct hpet *hpet, const struct hpet_timer *timer)
{
    static const struct irq_line nowhere;
    if (hpet->config & CONFIG_LEGACY && timer->index < 2)
        return timer->index ? &hpet->isa8 : &hpet->isa0;
    unsigned pin = timer->config >> 9 & 31;
    return pin < 24 && HPET_ROUTES >> pin & 1 ? &hpet->pin[pin] : &nowhere;
}

static void lower(struct hpet *hpet, struct hpet_timer *timer)
{
    if (timer->level)
        irq_set(wire(hpet, timer), false);
    timer->level = false;
}

static void interrupt(struct hpet *hpet, struct hpet_timer *timer)
{
    if (timer->config & T_LEVEL) {
        hpet->status |= 1u << timer->index;
        if (!(timer->config & T_ENABLE))
            return;
        timer->level = true;
        irq_set(wire(hpet, timer), true);
    } else if (timer->config & T_ENABLE) {
        irq_set(wire(hpet, timer), true);
        irq_set(wire(hpet, timer), false);
    }
}

static bool is_short(const struct hpet_timer *timer)
{
    return timer->config & T_32BIT;
}

/* Counter ticks until the comparator matches. */
static uint64_t distance(const struct hpet *hpet, const struct hpet_timer *timer)
{
    uint64_t ahead = timer->comparator - counter(hpet);
    return is_short(timer) ? (uint32_t)ahead : ahead;
}

static void schedule(struct hpet *hpet, struct hpet_timer *timer)
{
    uint64_t ahead = distance(hpet, timer);
    /* Without an interrupt to give, periodic comparators still move; reading them works that out.
     */
    if (hpet->clock.held || !(hpet->config & CONFIG_ENABLE) ||
        !(timer->config & (T_ENABLE | T_LEVEL)) || ahead > INT64_MAX / HPET_TICK_NS) {
        loop_timer_cancel(&timer->timer);
        return;
    }
    uint64_t wait = ahead * HPET_TICK_NS;
    if (timer->config & T_PERIODIC)
        wait = MAX(wait, (uint64_t)INTERVAL_MIN_NS);
    loop_timer_arm(&timer->timer, clock_now_ns() + wait);
}

/* Moves a periodic comparator past the counter; true when it had been reached. */
static bool advance(const struct hpet *hpet, struct hpet_timer *timer)
{
    uint64_t behind = counter(hpet) - timer->comparator;
    if (is_short(timer))
        behind = (uint64_t)(int64_t)(int32_t)(uint32_t)behind;
    if ((int64_t)behind < 0)
        return false;
    if (timer->config & T_PERIODIC && timer->period) {
        timer->comparator += (behind / timer->period + 1) * timer->period;
        if (is_short(timer))
            timer->comparator &= UINT32_MAX;
    }
    return true;
}

static void expired(void *opaque)
{
    struct hpet_timer *timer = opaque;
    struct hpet *hpet = timer->hpet;
    lock_take(&hpet->device.lock);
    if (!hpet->clock.held && hpet->config & CONFIG_ENABLE) {
        bool due = advance(hpet, timer);
        if (due)
            interrupt(hpet, timer);
        /* A one-shot that has matched is done, until the counter comes around. */
        if (!due || timer->config & T_PERIODIC || is_short(timer))
            schedule(hpet, timer);
    }
    lock_drop(&hpet->device.lock);
}

static uint64_t timer_read(struct hpet *hpet, unsigned index, unsigned reg)
{
    struct hpet_timer *timer = &hpet->timer[index];
    switch (reg) {
    case 0x00:
        return timer->config | T_FIXED;
    case 0x08:
        if (hpet->config & CONFIG_ENABLE && timer->config & T_PERIODIC &&
            !(timer->config & (T_ENABLE | T_LEVEL)))
            advance(hpet, timer);
        return timer->comparator;
    default:
        return 0; /* no FSB delivery */
    }
}

static uint64_t register_read(struct hpet *hpet, unsigned reg)
{
    switch (reg) {
    case REG_CAPABILITIES:
        return PERIOD_FS << 32 | HPET_BLOCK_ID;
    case REG_CONFIG:
        return hpet->config;
    case REG_STATUS:
        return hpet->status;
    case REG_COUNTER:
        return counter(hpet);
    default:
        if (reg >= REG_TIMERS && reg < REG_TIMERS + HPET_TIMERS * TIMER_STRIDE)
            return timer_read(hpet, (reg - REG_TIMERS) / TIMER_STRIDE, reg % TIMER_STRIDE);
        return 0;
    }
}

static uint64_t hpet_read(void *opaque, uint64_t offset, unsigned size)
{
    unsigned shift = 8 * (offset & 7);
    if (size < 4 || offset % size)
        return size < 4 ? register_read(opaque, offset & ~7u) >> shift : UINT64_MAX;
    return register_read(opaque, offset & ~7u) >> shift;
}

static void config_write(struct hpet *hpet, uint64_t value)
{
    uint64_t before = hpet->config;
    uint64_t now = counter(hpet);
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        lower(hpet, &hpet->timer[i]);
    hpet->config = value & (CONFIG_ENABLE | CONFIG_LEGACY);
    if ((before ^ hpet->config) & CONFIG_ENABLE) {
        hpet->counter = now;
        hpet->counter_ns = hw_clock_now(&hpet->clock);
    }
    __atomic_store_n(&hpet->legacy, hpet->config & CONFIG_LEGACY, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        schedule(hpet, &hpet->timer[i]);
}

static void timer_config_write(struct hpet *hpet, struct hpet_timer *timer, uint64_t value)
{
    lower(hpet, timer);
    timer->config = value & T_WRITABLE;
    if (is_short(timer)) {
        timer->comparator &= UINT32_MAX;
        timer->period &= UINT32_MAX;
    }
    if (timer->config & T_LEVEL && timer->config & T_ENABLE && hpet->status >> timer->index & 1) {
        timer->level = true;
        irq_set(wire(hpet, timer), true);
    }
    schedule(hpet, timer);
}

/*
 * In periodic mode a write sets the period; right after the guest asked for it, the comparator as
 * well. `keep` masks the bits that the access did not touch.
 */
static void comparator_write(struct hpet *hpet, struct hpet_timer *timer, uint64_t value,
                             uint64_t keep)
{
    bool periodic = timer->config & T_PERIODIC;
    if (!periodic || timer->config & T_SET_VALUE)
        timer->comparator = (timer->comparator & keep) | (value & ~keep);
    if (periodic)
        timer->period = (timer->period & keep) | (value & ~keep);
    if (is_short(timer)) {
        timer->comparator &= UINT32_MAX;
        timer->period &= UINT32_MAX;
    }
    timer->config &= ~(uint64_t)T_SET_VALUE;
    schedule(hpet, timer);
}

static void counter_write(struct hpet *hpet, uint64_t value, uint64_t keep)
{
    hpet->counter = (counter(hpet) & keep) | (value & ~keep);
    hpet->counter_ns = hw_clock_now(&hpet->clock);
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        schedule(hpet, &hpet->timer[i]);
}

static void hpet_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct hpet *hpet = opaque;
    unsigned reg = offset & ~7u, shift = 8 * (offset & 7);
    if (size < 4 || offset % size)
        return;
    uint64_t keep = size == 8 ? 0 : ~(0xffffffffull << shift);
    value <<= shift;
    switch (reg) {
    case REG_CONFIG:
        config_write(hpet, (hpet->config & keep) | (value & ~keep));
        return;
    case REG_STATUS:
        for (unsigned i = 0; i < HPET_TIMERS; i++) {
            if (value >> i & 1)
                lower(hpet, &hpet->timer[i]);
        }
        hpet->status &= ~value;
        return;
    case REG_COUNTER:
        counter_write(hpet, value, keep);
        return;
    }
    if (reg < REG_TIMERS || reg >= REG_TIMERS + HPET_TIMERS * TIMER_STRIDE)
        return;
    struct hpet_timer *timer = &hpet->timer[(reg - REG_TIMERS) / TIMER_STRIDE];
    if (reg % TIMER_STRIDE == 0x00)
        timer_config_write(hpet, timer, (timer->config & keep) | (value & ~keep));
    else if (reg % TIMER_STRIDE == 0x08)
        comparator_write(hpet, timer, value, keep);
}

static const struct io_ops ops = {hpet_read, hpet_write};

static void isa_passed(void *opaque, unsigned pin, bool level)
{
    struct hpet *hpet = opaque;
    if (!__atomic_load_n(&hpet->legacy, __ATOMIC_ACQUIRE))
        irq_set(pin ? &hpet->isa8 : &hpet->isa0, level);
}

struct irq_line hpet_pit_line(struct hpet *hpet)
{
    return (struct irq_line){isa_passed, hpet, 0};
}

struct irq_line hpet_rtc_line(struct hpet *hpet)
{
    return (struct irq_line){isa_passed, hpet, 8};
}

static struct err *realize(struct device *device)
{
    struct hpet *hpet = (struct hpet *)device;
    hw_clock_set(&hpet->clock, 0);
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        hpet->timer[i].hpet = hpet;
        hpet->timer[i].index = i;
        loop_timer_init(device->env->loop, &hpet->timer[i].timer, expired, &hpet->timer[i]);
    }
    hpet->region = (struct io_region){
        .name = "hpet", .size = REGION_SIZE, .ops = &ops, .opaque = hpet, .lock = &device->lock};
    io_bus_add(device->env->mmio, &hpet->region, hpet->base);
    return NULL;
}

static void cancel_all(struct hpet *hpet)
{
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        if (hpet->timer[i].timer.loop)
            loop_timer_cancel(&hpet->timer[i].timer);
    }
}

static void reset(struct device *device)
{
    struct hpet *hpet = (struct hpet *)device;
    lock_take(&device->lock);
    cancel_all(hpet);
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        struct hpet_timer *timer = &hpet->timer[i];
        lower(hpet, timer);
        timer->config = timer->period = 0;
        timer->comparator = UINT64_MAX;
    }
    hpet->config = hpet->status = hpet->counter = hpet->counter_ns = 0;
    __atomic_store_n(&hpet->legacy, false, __ATOMIC_RELEASE);
    lock_drop(&device->lock);
}

static void quiesce(struct device *device)
{
    struct hpet *hpet = (struct hpet *)device;
    lock_take(&device->lock);
    hw_clock_hold(&hpet->clock);
    /* What is due, but has not had its turn on the loop, must not get lost. */
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        if (loop_timer_armed(&hpet->timer[i].timer) && advance(hpet, &hpet->timer[i]))
            interrupt(hpet, &hpet->timer[i]);
    }
    cancel_all(hpet);
    lock_drop(&device->lock);
}

static void resume(struct device *device)
{
    struct hpet *hpet = (struct hpet *)device;
    lock_take(&device->lock);
    hw_clock_go(&hpet->clock);
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        schedule(hpet, &hpet->timer[i]);
    lock_drop(&device->lock);
}

static void fini(struct device *device)
{
    struct hpet *hpet = (struct hpet *)device;
    io_bus_remove(&hpet->region);
    cancel_all(hpet);
}

static void pre_save(void *object)
{
    struct hpet *hpet = object;
    hpet->clock.held_ns = hw_clock_now(&hpet->clock);
}

static struct err *check_timer(const void *staged)
{
    const struct hpet_timer *timer = staged;
    if (timer->config & ~(uint64_t)T_WRITABLE)
        return err_new("a timer's configuration has unknown bits");
    if (is_short(timer) && (timer->comparator > UINT32_MAX || timer->period > UINT32_MAX))
        return err_new("a 32-bit timer's comparator is out of range");
    return NULL;
}

static struct err *check(const void *staged)
{
    const struct hpet *hpet = staged;
    if (hpet->config & ~(uint64_t)(CONFIG_ENABLE | CONFIG_LEGACY))
        return err_new("the configuration has unknown bits");
    if (hpet->clock.held_ns > HW_CLOCK_MAX || hpet->counter_ns > hpet->clock.held_ns)
        return err_new("the device time is out of range");
    return NULL;
}

static void post_load(void *object)
{
    struct hpet *hpet = object;
    hw_clock_set(&hpet->clock, hpet->clock.held_ns);
    __atomic_store_n(&hpet->legacy, hpet->config & CONFIG_LEGACY, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        schedule(hpet, &hpet->timer[i]);
}

static const struct state_field timer_fields[] = {
    STATE_U64(1, hpet_timer, config),
    STATE_U64(2, hpet_timer, comparator),
    STATE_U64(3, hpet_timer, period),
    STATE_BOOL(4, hpet_timer, level),
};

static const struct state_table timer_state = {
    DEVICE_STATE_TABLE("hpet-timer", hpet_timer, timer_fields),
    .check = check_timer,
};

static const struct state_field fields[] = {
    STATE_U64(1, hpet, clock.held_ns), STATE_U64(2, hpet, config),
    STATE_U64(3, hpet, status),        STATE_U64(4, hpet, counter),
    STATE_U64(5, hpet, counter_ns),    STATE_STRUCT(6, hpet, timer, &timer_state),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("hpet", hpet, fields),
    .pre_save = pre_save,
    .check = check,
    .post_load = post_load,
};

const struct device_class hpet_class = {
    .name = "hpet",
    .description = "high precision event timer",
    .size = sizeof(struct hpet),
    .state = &state,
    .realize = realize,
    .reset = reset,
    .quiesce = quiesce,
    .resume = resume,
    .fini = fini,
};
DEVICE_CLASS(hpet_class);
