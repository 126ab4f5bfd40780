/*
 * ACPI power management (ACPI 6.4, 4.8; ICH9 datasheet, 13.8): PM1, PM timer, GPE0, SMI command
 * port.
 *
 * Lock: the device's. The timer runs on the control loop and takes it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "hw/chipset/layout.h"
#include "hw/chipset/pm.h"
#include "hw/core/env.h"

#define TIMER_HZ 3579545u
#define TIMER_MASK 0xffffffu
#define TIMER_HALF (1u << 23) /* the overflow flag follows the top bit */

#define STATUS_TIMER 0x0001
#define STATUS_GLOBAL 0x0020
#define STATUS_POWER_BUTTON 0x0100
#define STATUS_SLEEP_BUTTON 0x0200
#define STATUS_RTC 0x0400
#define STATUS_WAKE 0x8000
#define EVENTS                                                                                     \
    (STATUS_TIMER | STATUS_GLOBAL | STATUS_POWER_BUTTON | STATUS_SLEEP_BUTTON | STATUS_RTC)
#define CONTROL_SCI_EN 0x0001
#define CONTROL_WRITABLE 0x1c02 /* sleep type, bus master reload */
#define CONTROL_SLP_EN 0x2000
/*
 * There is no system management mode. Firmware that finds its interrupts already on installs no
 * handler.
 */
#define SMI_ENABLE_APMC 0x20

static uint64_t timer_ticks(const struct pm *pm)
{
    return mul_div(hw_clock_now(&pm->clock), TIMER_HZ, NSEC_PER_SEC);
}

/* Raises or lowers SCI as the flags say. */
static void sci_update(struct pm *pm)
{
    bool level = pm->pm1_status & pm->pm1_enable & EVENTS;
    for (unsigned i = 0; i < PM_GPE0_BYTES / 2; i++)
        level |= pm->gpe_status[i] & pm->gpe_enable[i];
    level = level && pm->pm1_control & CONTROL_SCI_EN;
    if (level != pm->sci_level) {
        pm->sci_level = level;
        irq_set(&pm->sci, level);
    }
}

/* S3 ends with an enabled event; the power button always counts. */
static void wake_update(struct pm *pm)
{
    struct hw_env *env = pm->device.env;
    if (!pm->asleep || !(pm->pm1_status & (pm->pm1_enable | STATUS_POWER_BUTTON) & EVENTS))
        return;
    pm->asleep = false;
    pm->pm1_status |= STATUS_WAKE;
    env->ops->power(env->opaque, HW_POWER_WAKE, 0);
}

static void alarm_update(struct pm *pm)
{
    if (__atomic_exchange_n(&pm->alarm, false, __ATOMIC_ACQ_REL))
        pm->pm1_status |= STATUS_RTC;
}

/* Sets the overflow flag if the timer's top bit turned over, and waits for the next time. */
static void timer_update(struct pm *pm)
{
    uint64_t now = timer_ticks(pm);
    if (now / TIMER_HALF != pm->timer_seen / TIMER_HALF)
        pm->pm1_status |= STATUS_TIMER;
    pm->timer_seen = now;
    if (pm->clock.held)
        return;
    if (pm->pm1_enable & STATUS_TIMER && !(pm->pm1_status & STATUS_TIMER)) {
        uint64_t next = (now / TIMER_HALF + 1) * TIMER_HALF;
        loop_timer_arm(&pm->timer,
                       hw_clock_deadline(&pm->clock, mul_div_up(next, NSEC_PER_SEC, TIMER_HZ)));
    } else {
        loop_timer_cancel(&pm->timer);
    }
}

static void expired(void *opaque)
{
    struct pm *pm = opaque;
    lock_take(&pm->device.lock);
    if (!pm->clock.held) {
        timer_update(pm);
        sci_update(pm);
    }
    lock_drop(&pm->device.lock);
}

static void alarm_expired(void *opaque)
{
    struct pm *pm = opaque;
    lock_take(&pm->device.lock);
    alarm_update(pm);
    sci_update(pm);
    wake_update(pm);
    lock_drop(&pm->device.lock);
}

/* The clock holds its own lock, which is of our lock's rank: the flag is taken up elsewhere. */
static void alarm_set(void *opaque, unsigned pin, bool level)
{
    struct pm *pm = opaque;
    if (__atomic_exchange_n(&pm->alarm_level, level, __ATOMIC_RELAXED) || !level)
        return;
    __atomic_store_n(&pm->alarm, true, __ATOMIC_RELEASE);
    loop_timer_arm(&pm->alarm_timer, 0);
}

struct irq_line pm_alarm_line(struct pm *pm)
{
    return (struct irq_line){.set = alarm_set, .opaque = pm};
}

bool pm_asleep(struct pm *pm)
{
    lock_take(&pm->device.lock);
    bool asleep = pm->asleep;
    lock_drop(&pm->device.lock);
    return asleep;
}

static uint64_t pm_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pm *pm = opaque;
    uint8_t image[LAYOUT_PM_SIZE + 8] = {0};
    if (offset == PM_TIMER && size == 4)
        return timer_ticks(pm) & TIMER_MASK;
    timer_update(pm);
    alarm_update(pm);
    put_le16(image + PM_PM1_EVENT, pm->pm1_status);
    put_le16(image + PM_PM1_EVENT + 2, pm->pm1_enable);
    put_le16(image + PM_PM1_CONTROL, pm->pm1_control);
    put_le32(image + PM_TIMER, timer_ticks(pm) & TIMER_MASK);
    put_le32(image + PM_SMI_ENABLE, SMI_ENABLE_APMC);
    memcpy(image + PM_GPE0, pm->gpe_status, sizeof(pm->gpe_status));
    memcpy(image + PM_GPE0 + sizeof(pm->gpe_status), pm->gpe_enable, sizeof(pm->gpe_enable));
    return get_le(image + offset, size);
}

static void control_write(struct pm *pm, uint16_t value)
{
    struct hw_env *env = pm->device.env;
    pm->pm1_control = (uint16_t)((pm->pm1_control & CONTROL_SCI_EN) | (value & CONTROL_WRITABLE));
    if (!(value & CONTROL_SLP_EN))
        return;
    if ((value >> 10 & 7) == PM_SLEEP_S5) {
        env->ops->power(env->opaque, HW_POWER_OFF, 0);
    } else if ((value >> 10 & 7) == PM_SLEEP_S3) {
        pm->asleep = true;
        env->ops->power(env->opaque, HW_POWER_SLEEP, 0);
        wake_update(pm);
    }
}

static void byte_write(struct pm *pm, unsigned offset, uint8_t value)
{
    unsigned shift = 8 * (offset & 1);
    uint16_t word = (uint16_t)(value << shift), kept = (uint16_t) ~(0xff << shift);
    switch (offset) {
    case PM_PM1_EVENT:
    case PM_PM1_EVENT + 1:
        pm->pm1_status &= (uint16_t)~word;
        break;
    case PM_PM1_EVENT + 2:
    case PM_PM1_EVENT + 3:
        pm->pm1_enable = (uint16_t)((pm->pm1_enable & kept) | (word & EVENTS));
        break;
    case PM_PM1_CONTROL:
    case PM_PM1_CONTROL + 1:
        control_write(pm, (uint16_t)((pm->pm1_control & kept) | word));
        break;
    default:
        if (offset >= PM_GPE0 && offset < PM_GPE0 + PM_GPE0_BYTES / 2)
            pm->gpe_status[offset - PM_GPE0] &= (uint8_t)~value;
        else if (offset >= PM_GPE0 + PM_GPE0_BYTES / 2 && offset < PM_GPE0 + PM_GPE0_BYTES)
            pm->gpe_enable[offset - PM_GPE0 - PM_GPE0_BYTES / 2] = value;
    }
}

static void pm_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pm *pm = opaque;
    timer_update(pm);
    alarm_update(pm);
    if (offset == PM_PM1_CONTROL && size >= 2) {
        control_write(pm, (uint16_t)value);
    } else {
        for (unsigned i = 0; i < size; i++)
            byte_write(pm, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
    }
    timer_update(pm);
    sci_update(pm);
}

static uint64_t smi_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct pm *pm = opaque;
    if (size != 1)
        return UINT64_MAX;
    return offset ? pm->smi_data : pm->smi_command;
}

/* What a handler in system management mode would do happens at once. */
static void smi_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pm *pm = opaque;
    if (size != 1)
        return;
    if (offset) {
        pm->smi_data = (uint8_t)value;
        return;
    }
    pm->smi_command = (uint8_t)value;
    if (value == PM_SMI_ACPI_ENABLE)
        pm->pm1_control |= CONTROL_SCI_EN;
    else if (value == PM_SMI_ACPI_DISABLE)
        pm->pm1_control &= (uint16_t)~CONTROL_SCI_EN;
    sci_update(pm);
}

static const struct io_ops pm_ops = {pm_read, pm_write};
static const struct io_ops smi_ops = {smi_read, smi_write};

void pm_power_button(struct pm *pm)
{
    lock_take(&pm->device.lock);
    pm->pm1_status |= STATUS_POWER_BUTTON;
    sci_update(pm);
    wake_update(pm);
    lock_drop(&pm->device.lock);
}

void pm_gpe_raise(struct pm *pm, unsigned event)
{
    if (event >= 8 * sizeof(pm->gpe_status))
        return;
    lock_take(&pm->device.lock);
    pm->gpe_status[event / 8] |= (uint8_t)(1u << event % 8);
    sci_update(pm);
    lock_drop(&pm->device.lock);
}

static struct err *realize(struct device *device)
{
    struct pm *pm = (struct pm *)device;
    loop_timer_init(device->env->loop, &pm->timer, expired, pm);
    loop_timer_init(device->env->loop, &pm->alarm_timer, alarm_expired, pm);
    hw_clock_set(&pm->clock, 0);
    pm->region = (struct io_region){.name = "acpi-pm",
                                    .size = LAYOUT_PM_SIZE,
                                    .ops = &pm_ops,
                                    .opaque = pm,
                                    .lock = &device->lock};
    pm->smi_region = (struct io_region){
        .name = "smi-command", .size = 2, .ops = &smi_ops, .opaque = pm, .lock = &device->lock};
    io_bus_add(device->env->pio, &pm->region, LAYOUT_PORT_PM);
    io_bus_add(device->env->pio, &pm->smi_region, LAYOUT_PORT_SMI_COMMAND);
    return NULL;
}

static void reset(struct device *device)
{
    struct pm *pm = (struct pm *)device;
    lock_take(&device->lock);
    pm->pm1_status = pm->pm1_enable = pm->pm1_control = 0;
    memset(pm->gpe_status, 0, sizeof(pm->gpe_status));
    memset(pm->gpe_enable, 0, sizeof(pm->gpe_enable));
    pm->smi_command = pm->smi_data = 0;
    pm->asleep = false;
    __atomic_store_n(&pm->alarm, false, __ATOMIC_RELEASE);
    timer_update(pm);
    pm->pm1_status = 0;
    sci_update(pm);
    lock_drop(&device->lock);
}

static void quiesce(struct device *device)
{
    struct pm *pm = (struct pm *)device;
    lock_take(&device->lock);
    hw_clock_hold(&pm->clock);
    loop_timer_cancel(&pm->timer);
    alarm_update(pm);
    lock_drop(&device->lock);
}

static void resume(struct device *device)
{
    struct pm *pm = (struct pm *)device;
    lock_take(&device->lock);
    hw_clock_go(&pm->clock);
    timer_update(pm);
    sci_update(pm);
    wake_update(pm);
    lock_drop(&device->lock);
}

static void fini(struct device *device)
{
    struct pm *pm = (struct pm *)device;
    io_bus_remove(&pm->region);
    io_bus_remove(&pm->smi_region);
    if (pm->timer.loop)
        loop_timer_cancel(&pm->timer);
    if (pm->alarm_timer.loop)
        loop_timer_cancel(&pm->alarm_timer);
}

static void pre_save(void *object)
{
    struct pm *pm = object;
    pm->clock.held_ns = hw_clock_now(&pm->clock);
}

static struct err *check(const void *staged)
{
    const struct pm *pm = staged;
    if (pm->pm1_enable & ~EVENTS || pm->pm1_control & ~(CONTROL_SCI_EN | CONTROL_WRITABLE) ||
        pm->pm1_status & ~(EVENTS | STATUS_WAKE))
        return err_new("a PM1 register has unknown bits");
    if (pm->clock.held_ns > HW_CLOCK_MAX)
        return err_new("the device time is out of range");
    return NULL;
}

static void post_load(void *object)
{
    struct pm *pm = object;
    hw_clock_set(&pm->clock, pm->clock.held_ns);
    /* The interrupt controllers remember the level of SCI themselves. */
    if (!pm->clock.held)
        timer_update(pm);
}

static const struct state_field fields[] = {
    STATE_U64(1, pm, clock.held_ns), STATE_U16(2, pm, pm1_status),
    STATE_U16(3, pm, pm1_enable),    STATE_U16(4, pm, pm1_control),
    STATE_BYTES(5, pm, gpe_status),  STATE_BYTES(6, pm, gpe_enable),
    STATE_U8(7, pm, smi_command),    STATE_U8(8, pm, smi_data),
    STATE_U64(9, pm, timer_seen),    STATE_BOOL(10, pm, sci_level),
    STATE_BOOL(11, pm, asleep),      STATE_BOOL(12, pm, alarm_level),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("acpi-pm", pm, fields),
    .pre_save = pre_save,
    .check = check,
    .post_load = post_load,
};

const struct device_class pm_class = {
    .name = "acpi-pm",
    .description = "ACPI power management registers",
    .size = sizeof(struct pm),
    .state = &state,
    .realize = realize,
    .reset = reset,
    .quiesce = quiesce,
    .resume = resume,
    .fini = fini,
};
DEVICE_CLASS(pm_class);
