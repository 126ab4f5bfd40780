/*
 * The MC146818 real-time clock (Motorola MC146818A datasheet), and the CMOS bytes by which PC
 * firmware tells memory sizes.
 *
 * The clock is the host's UTC plus an offset that the guest sets by setting the clock. Nothing
 * ticks: reading a register works out the time, and flags of register C are worked out from the
 * time passed since the last look. Only enabled interrupts have a timer on the loop.
 *
 * Lock: the device's. The timer runs on the control loop and takes it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/rtc.h"
#include "base/clock.h"
#include "hw/chipset/layout.h"
#include "hw/core/env.h"
#include "hw/core/hw_clock.h"

enum {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    CENTURY = 0x32
};

#define A_UIP 0x80
#define A_RATE 0x0f
#define B_SET 0x80
#define B_PIE 0x40
#define B_AIE 0x20
#define B_UIE 0x10
#define B_BINARY 0x04
#define B_24H 0x02
#define C_IRQ 0x80
#define C_FLAGS 0x70 /* the same places as the enables in B */
#define C_PERIODIC 0x40
#define C_ALARM 0x20
#define C_UPDATE 0x10
#define D_VALID 0x80
#define CRYSTAL_HZ 32768
#define UPDATE_NS 244000 /* update in progress: before the second turns */
#define SECONDS_A_DAY 86400
#define ALARM_ANY 0xc0

static uint64_t guest_ns(const struct rtc *rtc)
{
    int64_t time = (int64_t)clock_wall_ns() + rtc->offset_ns;
    return time < 0 ? 0 : (uint64_t)time;
}

/* Days since 1970 of a date in the Gregorian calendar; any numbers give some day. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t in_era = year - era * 400;
    int64_t in_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + in_era * 365 + in_era / 4 - in_era / 100 + in_year - 719468;
}

struct date {
    unsigned year, month, day, weekday;
};

static struct date date_of(int64_t days)
{
    int64_t shifted = days + 719468;
    int64_t era = shifted / 146097;
    unsigned in_era = (unsigned)(shifted - era * 146097);
    unsigned year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    unsigned in_year = in_era - (365 * year + year / 4 - year / 100);
    unsigned shifted_month = (5 * in_year + 2) / 153;
    struct date date = {
        .day = in_year - (153 * shifted_month + 2) / 5 + 1,
        .month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9,
        .weekday = (unsigned)((days + 4) % 7) + 1,
    };
    date.year = (unsigned)(year + era * 400) + (date.month <= 2);
    return date;
}

static uint8_t encode(const struct rtc *rtc, unsigned value)
{
    return (uint8_t)(rtc->cmos[REG_B] & B_BINARY ? value : value / 10 % 10 << 4 | value % 10);
}

static unsigned decode(const struct rtc *rtc, uint8_t value)
{
    return rtc->cmos[REG_B] & B_BINARY ? value : (value >> 4) * 10u + (value & 15u);
}

static uint8_t encode_hour(const struct rtc *rtc, unsigned hour)
{
    if (rtc->cmos[REG_B] & B_24H)
        return encode(rtc, hour);
    uint8_t value = encode(rtc, hour % 12 ? hour % 12 : 12);
    return hour >= 12 ? value | 0x80 : value;
}

static unsigned decode_hour(const struct rtc *rtc, uint8_t value)
{
    if (rtc->cmos[REG_B] & B_24H)
        return decode(rtc, value);
    return decode(rtc, value & 0x7f) % 12 + (value & 0x80 ? 12 : 0);
}

/* Brings the time bytes up to date. */
static void registers_from_time(struct rtc *rtc)
{
    uint64_t seconds = guest_ns(rtc) / NSEC_PER_SEC;
    unsigned of_day = (unsigned)(seconds % SECONDS_A_DAY);
    struct date date = date_of((int64_t)(seconds / SECONDS_A_DAY));
    uint8_t *cmos = rtc->cmos;
    cmos[SECONDS] = encode(rtc, of_day % 60);
    cmos[MINUTES] = encode(rtc, of_day / 60 % 60);
    cmos[HOURS] = encode_hour(rtc, of_day / 3600);
    cmos[WEEKDAY] = encode(rtc, date.weekday);
    cmos[DAY] = encode(rtc, date.day);
    cmos[MONTH] = encode(rtc, date.month);
    cmos[YEAR] = encode(rtc, date.year % 100);
    cmos[CENTURY] = encode(rtc, date.year / 100);
}

/* Sets the clock to what the time bytes say. The fraction of the second starts anew. */
static void time_from_registers(struct rtc *rtc)
{
    const uint8_t *cmos = rtc->cmos;
    int64_t year = decode(rtc, cmos[CENTURY]) * 100 + decode(rtc, cmos[YEAR]);
    int64_t seconds =
        days_of(year, decode(rtc, cmos[MONTH]), decode(rtc, cmos[DAY])) * SECONDS_A_DAY +
        decode_hour(rtc, cmos[HOURS]) * 3600 + decode(rtc, cmos[MINUTES]) * 60 +
        decode(rtc, cmos[SECONDS]);
    /* Years 0 to 25755 can be written: keep nanoseconds within 64 bits. */
    seconds = MAX(MIN(seconds, (int64_t)9000000000), (int64_t)0);
    rtc->offset_ns = seconds * (int64_t)NSEC_PER_SEC - (int64_t)clock_wall_ns();
    rtc->seen_ns = guest_ns(rtc);
}

static bool alarm_matches(const struct rtc *rtc, uint64_t second)
{
    const uint8_t *cmos = rtc->cmos;
    unsigned of_day = (unsigned)(second % SECONDS_A_DAY);
    return (cmos[SECONDS_ALARM] >= ALARM_ANY || decode(rtc, cmos[SECONDS_ALARM]) == of_day % 60) &&
           (cmos[MINUTES_ALARM] >= ALARM_ANY ||
            decode(rtc, cmos[MINUTES_ALARM]) == of_day / 60 % 60) &&
           ((cmos[HOURS_ALARM] & ALARM_ANY) == ALARM_ANY ||
            decode_hour(rtc, cmos[HOURS_ALARM]) == of_day / 3600);
}

/* Crystal ticks of a periodic interrupt; 0: off. */
static unsigned periodic_ticks(const struct rtc *rtc)
{
    unsigned rate = rtc->cmos[REG_A] & A_RATE;
    if (!rate)
        return 0;
    return 1u << (rate <= 2 ? rate + 6 : rate - 1);
}

static uint64_t period_index(uint64_t ns, unsigned period)
{
    return mul_div(ns, CRYSTAL_HZ, NSEC_PER_SEC) / period;
}

/* Works out the flags for the time since the last look, and the interrupt line. */
static void flags_update(struct rtc *rtc)
{
    uint64_t now = guest_ns(rtc), seen = rtc->seen_ns;
    unsigned period = periodic_ticks(rtc);
    rtc->seen_ns = now;
    if (now > seen) {
        if (period && period_index(now, period) != period_index(seen, period))
            rtc->cmos[REG_C] |= C_PERIODIC;
        uint64_t from = seen / NSEC_PER_SEC, to = now / NSEC_PER_SEC;
        if (to != from && !(rtc->cmos[REG_B] & B_SET)) {
            rtc->cmos[REG_C] |= C_UPDATE;
            from = to - from > SECONDS_A_DAY ? to - SECONDS_A_DAY : from;
            while (!(rtc->cmos[REG_C] & C_ALARM) && from < to) {
                if (alarm_matches(rtc, ++from))
                    rtc->cmos[REG_C] |= C_ALARM;
            }
        }
    }
    bool level = rtc->cmos[REG_C] & rtc->cmos[REG_B] & C_FLAGS;
    if (level)
        rtc->cmos[REG_C] |= C_IRQ;
    else
        rtc->cmos[REG_C] &= (uint8_t)~C_IRQ;
    irq_set(&rtc->irq, level);
    irq_set(&rtc->alarm, rtc->cmos[REG_C] & rtc->cmos[REG_B] & C_ALARM);
}

static void schedule(struct rtc *rtc)
{
    uint64_t now = guest_ns(rtc), at = UINT64_MAX;
    unsigned period = periodic_ticks(rtc);
    uint8_t enabled = rtc->cmos[REG_B];
    /* A flag that is up already cannot interrupt again before register C is read. */
    if (enabled & B_PIE && period && !(rtc->cmos[REG_C] & C_PERIODIC))
        at = mul_div_up((period_index(now, period) + 1) * period, NSEC_PER_SEC, CRYSTAL_HZ);
    if (!(enabled & B_SET) && ((enabled & B_UIE && !(rtc->cmos[REG_C] & C_UPDATE)) ||
                               (enabled & B_AIE && !(rtc->cmos[REG_C] & C_ALARM))))
        at = MIN(at, (now / NSEC_PER_SEC + 1) * NSEC_PER_SEC);
    if (at == UINT64_MAX)
        loop_timer_cancel(&rtc->timer);
    else
        loop_timer_arm(&rtc->timer, clock_now_ns() + (at - now));
}

static void expired(void *opaque)
{
    struct rtc *rtc = opaque;
    lock_take(&rtc->device.lock);
    flags_update(rtc);
    schedule(rtc);
    lock_drop(&rtc->device.lock);
}

static bool is_time(unsigned index)
{
    return index == SECONDS || index == MINUTES || index == HOURS ||
           (index >= WEEKDAY && index <= YEAR) || index == CENTURY;
}

static uint8_t register_read(struct rtc *rtc, unsigned index)
{
    bool running = !(rtc->cmos[REG_B] & B_SET);
    uint8_t value;
    switch (index) {
    case REG_A:
        value = rtc->cmos[REG_A];
        if (running && guest_ns(rtc) % NSEC_PER_SEC >= NSEC_PER_SEC - UPDATE_NS)
            value |= A_UIP;
        return value;
    case REG_C:
        flags_update(rtc);
        value = rtc->cmos[REG_C];
        rtc->cmos[REG_C] = 0;
        irq_set(&rtc->irq, false);
        irq_set(&rtc->alarm, false);
        schedule(rtc);
        return value;
    case REG_D:
        return D_VALID;
    default:
        if (is_time(index) && running)
            registers_from_time(rtc);
        return rtc->cmos[index];
    }
}

static void register_write(struct rtc *rtc, unsigned index, uint8_t value)
{
    uint8_t before = rtc->cmos[REG_B];
    switch (index) {
    case REG_A:
        flags_update(rtc);
        rtc->cmos[REG_A] = value & 0x7f;
        break;
    case REG_B:
        flags_update(rtc);
        if (value & B_SET && !(before & B_SET))
            registers_from_time(rtc);
        rtc->cmos[REG_B] = value;
        /* The format may have changed together with SET: the bytes are in the new one. */
        if (before & B_SET && !(value & B_SET))
            time_from_registers(rtc);
        flags_update(rtc);
        break;
    case REG_C:
    case REG_D:
        return;
    default:
        if (!is_time(index)) {
            rtc->cmos[index] = value;
        } else if (before & B_SET) {
            rtc->cmos[index] = value;
            return;
        } else {
            registers_from_time(rtc);
            rtc->cmos[index] = value;
            time_from_registers(rtc);
        }
    }
    schedule(rtc);
}

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned size)
{
    struct rtc *rtc = opaque;
    if (size != 1 || offset == 0)
        return UINT64_MAX;
    return register_read(rtc, rtc->index);
}

static void rtc_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct rtc *rtc = opaque;
    if (size != 1)
        return;
    if (offset == 0)
        rtc->index = value & 0x7f; /* bit 7 would mask NMI */
    else
        register_write(rtc, rtc->index, (uint8_t)value);
}

static const struct io_ops ops = {rtc_read, rtc_write};

static void put16(uint8_t *cmos, unsigned low, unsigned high, uint64_t value)
{
    uint16_t limited = (uint16_t)MIN(value, (uint64_t)0xffff);
    cmos[low] = (uint8_t)limited;
    cmos[high] = (uint8_t)(limited >> 8);
}

/* What a PC's firmware leaves in the battery-backed bytes. */
static void cmos_fill(struct rtc *rtc)
{
    uint8_t *cmos = rtc->cmos;
    uint64_t over_1m = rtc->low_ram > MIB(1) ? (rtc->low_ram - MIB(1)) / KIB(1) : 0;
    uint64_t over_16m = rtc->low_ram > MIB(16) ? (rtc->low_ram - MIB(16)) / KIB(64) : 0;
    uint64_t high = rtc->high_ram / KIB(64);
    cmos[REG_A] = 0x26;
    cmos[REG_B] = B_24H;
    cmos[0x14] = 0x06; /* equipment: FPU, pointing device */
    put16(cmos, 0x15, 0x16, 640);
    put16(cmos, 0x17, 0x18, over_1m);
    put16(cmos, 0x30, 0x31, over_1m);
    put16(cmos, 0x34, 0x35, over_16m);
    cmos[0x5b] = (uint8_t)high;
    cmos[0x5c] = (uint8_t)(high >> 8);
    cmos[0x5d] = (uint8_t)(high >> 16);
    cmos[0x5f] = (uint8_t)(rtc->cpus ? rtc->cpus - 1 : 0);
}

static struct err *realize(struct device *device)
{
    struct rtc *rtc = (struct rtc *)device;
    loop_timer_init(device->env->loop, &rtc->timer, expired, rtc);
    cmos_fill(rtc);
    rtc->seen_ns = guest_ns(rtc);
    rtc->region = (struct io_region){
        .name = "rtc", .size = 2, .ops = &ops, .opaque = rtc, .lock = &device->lock};
    io_bus_add(device->env->pio, &rtc->region, LAYOUT_PORT_RTC);
    return NULL;
}

/* The clock and its memory have a battery; only the interrupts see a reset. */
static void reset(struct device *device)
{
    struct rtc *rtc = (struct rtc *)device;
    lock_take(&device->lock);
    rtc->index = 0;
    rtc->cmos[REG_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | 0x08);
    rtc->cmos[REG_C] = 0;
    irq_set(&rtc->irq, false);
    irq_set(&rtc->alarm, false);
    loop_timer_cancel(&rtc->timer);
    lock_drop(&device->lock);
}

static void quiesce(struct device *device)
{
    struct rtc *rtc = (struct rtc *)device;
    lock_take(&device->lock);
    loop_timer_cancel(&rtc->timer);
    lock_drop(&device->lock);
}

static void resume(struct device *device)
{
    struct rtc *rtc = (struct rtc *)device;
    lock_take(&device->lock);
    schedule(rtc);
    lock_drop(&device->lock);
}

static void fini(struct device *device)
{
    struct rtc *rtc = (struct rtc *)device;
    io_bus_remove(&rtc->region);
    if (rtc->timer.loop)
        loop_timer_cancel(&rtc->timer);
}

static struct err *check(const void *staged)
{
    const struct rtc *rtc = staged;
    if (rtc->index > 127)
        return err_new("the CMOS index is out of range");
    if (rtc->offset_ns > INT64_MAX / 2 || rtc->offset_ns < INT64_MIN / 2)
        return err_new("the clock's offset is out of range");
    return NULL;
}

static const struct state_field fields[] = {
    STATE_U8(1, rtc, index),
    STATE_BYTES(2, rtc, cmos),
    STATE_U64(3, rtc, offset_ns),
    STATE_U64(4, rtc, seen_ns),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("rtc", rtc, fields),
    .check = check,
};

const struct device_class rtc_class = {
    .name = "rtc",
    .description = "MC146818 real-time clock",
    .size = sizeof(struct rtc),
    .state = &state,
    .realize = realize,
    .reset = reset,
    .quiesce = quiesce,
    .resume = resume,
    .fini = fini,
};
DEVICE_CLASS(rtc_class);
