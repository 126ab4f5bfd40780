/*
 * The 8254 interval timer (Intel 8254 datasheet) and port 0x61 (ICH9 datasheet, 13.7.1).
 *
 * Nothing counts: a channel knows when its count began, and a read works out where it would be.
 * Only channel 0 in a mode that interrupts has a timer on the loop.
 *
 * Lock: the device's. The timer runs on the control loop and takes it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/pit.h"
#include "hw/chipset/layout.h"
#include "hw/core/env.h"

#define CONTROL 3
#define READ_BACK 3
/* Faster interrupts than this would keep the control loop from everything else. */
#define INTERVAL_MIN_NS 100000u
/* Port 0x61 bit 4 turns over with each memory refresh of old. */
#define REFRESH_NS 15085u

static uint64_t now_ns(const struct pit *pit)
{
    return hw_clock_now(&pit->clock);
}

/* Modes 0 and 4 stand still while the gate is low; `start_ns` then holds what had passed. */
static bool pauses(const struct pit_channel *channel)
{
    return (channel->mode == 0 || channel->mode == 4) && !channel->gate;
}

static uint64_t ticks(const struct pit *pit, const struct pit_channel *channel)
{
    uint64_t elapsed = pauses(channel) ? channel->start_ns : now_ns(pit) - channel->start_ns;
    return mul_div(elapsed, PIT_HZ, NSEC_PER_SEC);
}

static uint32_t modulus(const struct pit_channel *channel)
{
    return channel->bcd ? 10000 : 65536;
}

static uint16_t count(const struct pit *pit, const struct pit_channel *channel)
{
    uint64_t passed = ticks(pit, channel), value;
    uint32_t reload = channel->reload;
    if (!channel->counting)
        passed = 0;
    switch (channel->mode) {
    case 2:
        value = reload - (channel->gate ? passed % reload : 0);
        break;
    case 3:
        value = reload - (channel->gate ? 2 * passed % reload : 0);
        value &= ~1ull;
        break;
    default: /* counts down and around */
        value = reload + modulus(channel) - passed % modulus(channel);
    }
    value %= modulus(channel);
    if (!channel->bcd)
        return (uint16_t)value;
    return (uint16_t)(value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 |
                      value % 10);
}

static bool output(const struct pit *pit, const struct pit_channel *channel)
{
    if (!channel->counting)
        return channel->mode != 0;
    uint64_t passed = ticks(pit, channel);
    uint32_t reload = channel->reload;
    switch (channel->mode) {
    case 0:
    case 1:
        return passed >= reload;
    case 2:
        return !channel->gate || passed % reload != reload - 1;
    case 3:
        return !channel->gate || passed % reload < (reload + 1) / 2;
    default:
        return passed != reload;
    }
}

/* Arms the timer for the next rising edge of channel 0's output. */
static void schedule(struct pit *pit)
{
    const struct pit_channel *channel = &pit->channel[0];
    if (pit->clock.held)
        return;
    uint64_t passed = ticks(pit, channel), next;
    bool periodic = channel->mode == 2 || channel->mode == 3;
    if (periodic)
        next = (passed / channel->reload + 1) * channel->reload;
    else
        next = channel->reload;
    bool wanted = channel->counting &&
                  (periodic || ((channel->mode == 0 || channel->mode == 4) && !pit->irq_level));
    if (!wanted) {
        loop_timer_cancel(&pit->timer);
        return;
    }
    uint64_t at = channel->start_ns + mul_div_up(next, NSEC_PER_SEC, PIT_HZ);
    if (periodic)
        at = MAX(at, now_ns(pit) + INTERVAL_MIN_NS);
    loop_timer_arm(&pit->timer, hw_clock_deadline(&pit->clock, at));
}

static void expired(void *opaque)
{
    struct pit *pit = opaque;
    const struct pit_channel *channel = &pit->channel[0];
    lock_take(&pit->device.lock);
    /* The guest may have changed its mind since the timer was armed. */
    if (!pit->clock.held && channel->counting) {
        bool periodic = channel->mode == 2 || channel->mode == 3;
        if (periodic || (!pit->irq_level && ticks(pit, channel) >= channel->reload)) {
            irq_set(&pit->irq, false);
            irq_set(&pit->irq, true);
            pit->irq_level = true;
        }
        schedule(pit);
    }
    lock_drop(&pit->device.lock);
}

static void start(struct pit *pit, struct pit_channel *channel)
{
    channel->start_ns = pauses(channel) ? 0 : now_ns(pit);
    channel->counting = true;
    if (channel != &pit->channel[0])
        return;
    if (channel->mode == 0 || channel->mode == 4) {
        pit->irq_level = false;
        irq_set(&pit->irq, false);
    }
    schedule(pit);
}

static void load(struct pit *pit, struct pit_channel *channel, uint16_t value)
{
    uint32_t reload = value;
    if (channel->bcd)
        reload = (value >> 12) % 10 * 1000u + (value >> 8 & 15) % 10 * 100u +
                 (value >> 4 & 15) % 10 * 10u + (value & 15u) % 10;
    channel->reload = reload ? reload : modulus(channel);
    /* Modes 2 and 3 cannot count by ones. */
    if ((channel->mode == 2 || channel->mode == 3) && channel->reload < 2)
        channel->reload = 2;
    if (channel->mode != 1 && channel->mode != 5)
        start(pit, channel);
}

static void count_write(struct pit *pit, struct pit_channel *channel, uint8_t value)
{
    switch (channel->access) {
    case 1:
        load(pit, channel, value);
        break;
    case 2:
        load(pit, channel, (uint16_t)(value << 8));
        break;
    default:
        if (!channel->write_high)
            channel->write_low = value;
        else
            load(pit, channel, (uint16_t)(value << 8 | channel->write_low));
        channel->write_high = !channel->write_high;
    }
}

static void latch(const struct pit *pit, struct pit_channel *channel)
{
    if (channel->latched_bytes)
        return;
    channel->latch = count(pit, channel);
    channel->latched_bytes = channel->access == 3 ? 2 : 1;
}

static void latch_status(const struct pit *pit, struct pit_channel *channel)
{
    if (channel->status_latched)
        return;
    channel->status_latched = true;
    channel->status = (uint8_t)(output(pit, channel) << 7 | !channel->counting << 6 |
                                channel->access << 4 | channel->mode << 1 | channel->bcd);
}

static void control_write(struct pit *pit, uint8_t value)
{
    unsigned select = value >> 6, access = value >> 4 & 3, mode = value >> 1 & 7;
    if (select == READ_BACK) {
        for (unsigned i = 0; i < 3; i++) {
            if (!(value >> (i + 1) & 1))
                continue;
            if (!(value & 0x20))
                latch(pit, &pit->channel[i]);
            if (!(value & 0x10))
                latch_status(pit, &pit->channel[i]);
        }
        return;
    }
    struct pit_channel *channel = &pit->channel[select];
    if (!access) {
        latch(pit, channel);
        return;
    }
    channel->mode = (uint8_t)(mode > 5 ? mode - 4 : mode);
    channel->access = (uint8_t)access;
    channel->bcd = value & 1;
    channel->counting = channel->write_high = channel->read_high = false;
    channel->latched_bytes = 0;
    channel->status_latched = false;
    channel->reload = modulus(channel);
    if (select == 0) {
        loop_timer_cancel(&pit->timer);
        pit->irq_level = false;
        irq_set(&pit->irq, false);
    }
}

static uint8_t count_read(const struct pit *pit, struct pit_channel *channel)
{
    if (channel->status_latched) {
        channel->status_latched = false;
        return channel->status;
    }
    uint16_t value = channel->latched_bytes ? channel->latch : count(pit, channel);
    bool high = channel->access == 2;
    if (channel->access == 3) {
        high = channel->read_high;
        channel->read_high = !channel->read_high;
    }
    if (channel->latched_bytes)
        channel->latched_bytes--;
    return (uint8_t)(high ? value >> 8 : value);
}

static uint64_t pit_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pit *pit = opaque;
    if (size != 1 || offset == CONTROL)
        return UINT64_MAX;
    return count_read(pit, &pit->channel[offset]);
}

static void pit_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *pit = opaque;
    if (size != 1)
        return;
    if (offset == CONTROL)
        control_write(pit, (uint8_t)value);
    else
        count_write(pit, &pit->channel[offset], (uint8_t)value);
}

static void gate_set(struct pit *pit, struct pit_channel *channel, bool gate)
{
    if (channel->gate == gate)
        return;
    uint64_t now = now_ns(pit);
    if (channel->mode == 0 || channel->mode == 4)
        channel->start_ns = now - channel->start_ns; /* stops, or goes on: the same sum */
    channel->gate = gate;
    if (!gate)
        return;
    if (channel->mode == 2 || channel->mode == 3)
        channel->start_ns = now;
    else if (channel->mode == 1 || channel->mode == 5)
        start(pit, channel);
}

static uint64_t speaker_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct pit *pit = opaque;
    if (size != 1)
        return UINT64_MAX;
    return (uint64_t)(pit->channel[2].gate | pit->speaker_data << 1 |
                      (now_ns(pit) / REFRESH_NS & 1) << 4 | output(pit, &pit->channel[2]) << 5);
}

static void speaker_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *pit = opaque;
    if (size != 1)
        return;
    pit->speaker_data = value & 2;
    gate_set(pit, &pit->channel[2], value & 1);
}

static const struct io_ops pit_ops = {pit_read, pit_write};
static const struct io_ops speaker_ops = {speaker_read, speaker_write};

static struct err *realize(struct device *device)
{
    struct pit *pit = (struct pit *)device;
    loop_timer_init(device->env->loop, &pit->timer, expired, pit);
    hw_clock_set(&pit->clock, 0);
    pit->region = (struct io_region){
        .name = "pit", .size = 4, .ops = &pit_ops, .opaque = pit, .lock = &device->lock};
    pit->speaker_region = (struct io_region){
        .name = "speaker", .size = 1, .ops = &speaker_ops, .opaque = pit, .lock = &device->lock};
    io_bus_add(device->env->pio, &pit->region, LAYOUT_PORT_PIT);
    io_bus_add(device->env->pio, &pit->speaker_region, LAYOUT_PORT_SPEAKER);
    return NULL;
}

static void reset(struct device *device)
{
    struct pit *pit = (struct pit *)device;
    lock_take(&device->lock);
    loop_timer_cancel(&pit->timer);
    for (unsigned i = 0; i < 3; i++)
        pit->channel[i] =
            (struct pit_channel){.reload = 65536, .mode = 3, .access = 3, .gate = i != 2};
    pit->speaker_data = false;
    pit->irq_level = false;
    irq_set(&pit->irq, false);
    lock_drop(&device->lock);
}

static void quiesce(struct device *device)
{
    struct pit *pit = (struct pit *)device;
    lock_take(&device->lock);
    hw_clock_hold(&pit->clock);
    loop_timer_cancel(&pit->timer);
    lock_drop(&device->lock);
}

static void resume(struct device *device)
{
    struct pit *pit = (struct pit *)device;
    lock_take(&device->lock);
    hw_clock_go(&pit->clock);
    schedule(pit);
    lock_drop(&device->lock);
}

static void fini(struct device *device)
{
    struct pit *pit = (struct pit *)device;
    io_bus_remove(&pit->region);
    io_bus_remove(&pit->speaker_region);
    if (pit->timer.loop)
        loop_timer_cancel(&pit->timer);
}

static void pre_save(void *object)
{
    struct pit *pit = object;
    pit->clock.held_ns = now_ns(pit);
}

static struct err *check_channel(const void *staged)
{
    const struct pit_channel *channel = staged;
    if (channel->mode > 5 || !channel->access || channel->access > 3 || channel->latched_bytes > 2)
        return err_new("an 8254 channel is in a state that does not exist");
    if (channel->reload < 1 || channel->reload > modulus(channel))
        return err_new("an 8254 channel's count is out of range");
    if ((channel->mode == 2 || channel->mode == 3) && channel->reload < 2)
        return err_new("an 8254 channel's count is out of range");
    return NULL;
}

static struct err *check(const void *staged)
{
    const struct pit *pit = staged;
    if (pit->clock.held_ns > HW_CLOCK_MAX)
        return err_new("the device time is out of range");
    for (unsigned i = 0; i < 3; i++) {
        if (pit->channel[i].start_ns > pit->clock.held_ns)
            return err_new("an 8254 channel has been started in the future");
    }
    return NULL;
}

static void post_load(void *object)
{
    struct pit *pit = object;
    hw_clock_set(&pit->clock, pit->clock.held_ns);
    loop_timer_cancel(&pit->timer);
    schedule(pit);
}

static const struct state_field channel_fields[] = {
    STATE_U32(1, pit_channel, reload),
    STATE_U64(2, pit_channel, start_ns),
    STATE_U8(3, pit_channel, mode),
    STATE_U8(4, pit_channel, access),
    STATE_BOOL(5, pit_channel, bcd),
    STATE_BOOL(6, pit_channel, gate),
    STATE_BOOL(7, pit_channel, counting),
    STATE_BOOL(8, pit_channel, write_high),
    STATE_BOOL(9, pit_channel, read_high),
    STATE_U8(10, pit_channel, write_low),
    STATE_U8(11, pit_channel, latched_bytes),
    STATE_U16(12, pit_channel, latch),
    STATE_BOOL(13, pit_channel, status_latched),
    STATE_U8(14, pit_channel, status),
};

static const struct state_table channel_state = {
    DEVICE_STATE_TABLE("8254-channel", pit_channel, channel_fields),
    .check = check_channel,
};

static const struct state_field fields[] = {
    STATE_U64(1, pit, clock.held_ns),
    STATE_STRUCT(2, pit, channel, &channel_state),
    STATE_BOOL(3, pit, irq_level),
    STATE_BOOL(4, pit, speaker_data),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("pit", pit, fields),
    .pre_save = pre_save,
    .check = check,
    .post_load = post_load,
};

const struct device_class pit_class = {
    .name = "pit",
    .description = "8254 interval timer and speaker port",
    .size = sizeof(struct pit),
    .state = &state,
    .realize = realize,
    .reset = reset,
    .quiesce = quiesce,
    .resume = resume,
    .fini = fini,
};
DEVICE_CLASS(pit_class);
