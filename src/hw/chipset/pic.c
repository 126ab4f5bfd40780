/*
 * The 8259A pair (Intel 8259A datasheet; edge/level control registers of the ICH9, 13.4.9).
 *
 * Lock: irq_lock (LOCK_IRQCHIP) for lines, registers and the acknowledge cycle. The INTR output is
 * told under it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/pic.h"
#include "hw/chipset/layout.h"
#include "hw/core/env.h"

#define CASCADE 2
#define SPURIOUS 7
/* Lines that can never be level-triggered: 0, 1, 2 and 8, 13. */
#define ELCR_MASTER 0xf8
#define ELCR_SLAVE 0xde

#define ICW1_ICW4 0x01
#define ICW1_SINGLE 0x02
#define ICW1_LEVEL 0x08
#define ICW1 0x10
#define OCW3 0x08
#define ICW4_AUTO_EOI 0x02
#define ICW4_SPECIAL_NESTED 0x10

/* The line of highest priority in `lines`, or 8. */
static unsigned first_line(const struct pic_chip *chip, uint8_t lines)
{
    for (unsigned i = 1; i <= 8; i++) {
        unsigned line = (chip->lowest + i) & 7;
        if (lines >> line & 1)
            return line;
    }
    return 8;
}

static unsigned rank(const struct pic_chip *chip, unsigned line)
{
    return (line - chip->lowest - 1) & 7;
}

/* The line that this chip asks service for, or 8: not masked, above what is in service. */
static unsigned request(const struct pic_chip *chip, bool master)
{
    unsigned line = first_line(chip, chip->irr & ~chip->imr);
    if (line == 8)
        return 8;
    uint8_t in_service = chip->isr;
    if (chip->special_mask)
        in_service &= (uint8_t)~chip->imr;
    /* Fully nested below a slave in service: the slave itself may ask again. */
    if (chip->special_nested && master)
        in_service &= (uint8_t) ~(1u << CASCADE);
    unsigned busy = first_line(chip, in_service);
    return busy == 8 || rank(chip, line) < rank(chip, busy) ? line : 8;
}

static void chip_line(struct pic_chip *chip, unsigned line, bool level)
{
    uint8_t bit = (uint8_t)(1u << line);
    if (chip->level_mode || chip->elcr & bit) {
        chip->irr = (uint8_t)(level ? chip->irr | bit : chip->irr & ~bit);
    } else if (!level) {
        chip->irr &= (uint8_t)~bit;
    } else if (!(chip->levels & bit)) {
        chip->irr |= bit;
    }
    chip->levels = (uint8_t)(level ? chip->levels | bit : chip->levels & ~bit);
}

static void update_locked(struct pic *pic)
{
    chip_line(&pic->chip[0], CASCADE, request(&pic->chip[1], false) < 8);
    bool level = request(&pic->chip[0], true) < 8;
    if (level == pic->intr_level)
        return;
    pic->intr_level = level;
    if (pic->intr)
        pic->intr(pic->opaque, level);
}

static void line_set(void *opaque, unsigned irq, bool level)
{
    struct pic *pic = opaque;
    lock_take(&pic->irq_lock);
    chip_line(&pic->chip[irq / 8], irq % 8, level);
    update_locked(pic);
    lock_drop(&pic->irq_lock);
}

struct irq_line pic_line(struct pic *pic, unsigned irq)
{
    if (irq > 15 || irq == CASCADE)
        return (struct irq_line){0};
    return (struct irq_line){line_set, pic, irq};
}

/* The chip's part of the acknowledge cycle; returns the line, the spurious one if none asks. */
static unsigned chip_ack(struct pic_chip *chip, bool master)
{
    unsigned line = request(chip, master);
    if (line == 8)
        return SPURIOUS;
    uint8_t bit = (uint8_t)(1u << line);
    if (!(chip->level_mode || chip->elcr & bit))
        chip->irr &= (uint8_t)~bit;
    if (!chip->auto_eoi)
        chip->isr |= bit;
    else if (chip->rotate_auto)
        chip->lowest = (uint8_t)line;
    return line;
}

uint8_t pic_ack(struct pic *pic)
{
    lock_take(&pic->irq_lock);
    struct pic_chip *chip = &pic->chip[0];
    unsigned line = chip_ack(chip, true);
    if (line == CASCADE) {
        chip = &pic->chip[1];
        line = chip_ack(chip, false);
        /* The slave's request is edge for the master: it may ask again with another line. */
        pic->chip[0].levels &= (uint8_t) ~(1u << CASCADE);
    }
    uint8_t vector = (uint8_t)(chip->vector_base + line);
    update_locked(pic);
    lock_drop(&pic->irq_lock);
    return vector;
}

static void chip_reset(struct pic_chip *chip)
{
    uint8_t levels = chip->levels, elcr = chip->elcr;
    *chip = (struct pic_chip){.levels = levels, .elcr = elcr, .lowest = 7};
    chip->irr = levels & elcr;
}

static void end_of_interrupt(struct pic_chip *chip, uint8_t command)
{
    unsigned line = command & 7;
    bool specific = command & 0x40, rotate = command & 0x80;
    if (!(command & 0x20)) {
        /* Without EOI: set priority, or switch rotation on automatic EOI. */
        if (specific && rotate)
            chip->lowest = (uint8_t)line;
        else if (!specific)
            chip->rotate_auto = rotate;
        return;
    }
    if (!specific)
        line = first_line(chip, chip->special_mask ? chip->isr & ~chip->imr : chip->isr);
    if (line == 8)
        return;
    chip->isr &= (uint8_t) ~(1u << line);
    if (rotate)
        chip->lowest = (uint8_t)line;
}

static void command_write(struct pic_chip *chip, uint8_t value)
{
    if (value & ICW1) {
        chip_reset(chip);
        chip->icw4_needed = value & ICW1_ICW4;
        chip->single = value & ICW1_SINGLE;
        chip->level_mode = value & ICW1_LEVEL;
        chip->icw_next = 2;
        if (chip->level_mode)
            chip->irr = chip->levels;
    } else if (value & OCW3) {
        chip->poll = value & 0x04;
        if (value & 0x02)
            chip->read_isr = value & 0x01;
        if (value & 0x40)
            chip->special_mask = value & 0x20;
    } else {
        end_of_interrupt(chip, value);
    }
}

static void data_write(struct pic_chip *chip, uint8_t value)
{
    switch (chip->icw_next) {
    case 2:
        chip->vector_base = value & 0xf8;
        chip->icw_next = !chip->single ? 3 : chip->icw4_needed ? 4 : 0;
        break;
    case 3: /* which line the slave is on is soldered */
        chip->icw_next = chip->icw4_needed ? 4 : 0;
        break;
    case 4:
        chip->auto_eoi = value & ICW4_AUTO_EOI;
        chip->special_nested = value & ICW4_SPECIAL_NESTED;
        chip->icw_next = 0;
        break;
    default:
        chip->imr = value;
    }
}

static uint64_t port_read(struct pic *pic, unsigned index, uint64_t offset, unsigned size)
{
    struct pic_chip *chip = &pic->chip[index];
    if (size != 1)
        return UINT64_MAX;
    if (chip->poll) {
        /* A read after the poll command acknowledges: bit 7 and the line. */
        bool asked = request(chip, index == 0) < 8;
        unsigned line = chip_ack(chip, index == 0);
        chip->poll = false;
        update_locked(pic);
        return asked ? 0x80 | line : 0;
    }
    if (offset)
        return chip->imr;
    return chip->read_isr ? chip->isr : chip->irr;
}

static void port_write(struct pic *pic, unsigned index, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct pic_chip *chip = &pic->chip[index];
    if (size != 1)
        return;
    if (offset)
        data_write(chip, (uint8_t)value);
    else
        command_write(chip, (uint8_t)value);
    update_locked(pic);
}

static uint64_t master_read(void *opaque, uint64_t offset, unsigned size)
{
    return port_read(opaque, 0, offset, size);
}

static void master_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    port_write(opaque, 0, offset, size, value);
}

static uint64_t slave_read(void *opaque, uint64_t offset, unsigned size)
{
    return port_read(opaque, 1, offset, size);
}

static void slave_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    port_write(opaque, 1, offset, size, value);
}

static uint64_t elcr_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct pic *pic = opaque;
    return size == 1 ? pic->chip[offset].elcr : UINT64_MAX;
}

static void elcr_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pic *pic = opaque;
    struct pic_chip *chip = &pic->chip[offset];
    if (size != 1)
        return;
    uint8_t before = chip->elcr;
    chip->elcr = (uint8_t)value & (offset ? ELCR_SLAVE : ELCR_MASTER);
    /* A line that became level-triggered requests as long as it is asserted, no longer. */
    uint8_t became = chip->elcr & ~before;
    chip->irr = (uint8_t)((chip->irr & ~became) | (chip->levels & became));
    update_locked(pic);
}

static const struct io_ops master_ops = {master_read, master_write};
static const struct io_ops slave_ops = {slave_read, slave_write};
static const struct io_ops elcr_ops = {elcr_read, elcr_write};

static void map(struct pic *pic, struct io_region *region, const struct io_ops *ops, uint16_t port)
{
    *region = (struct io_region){
        .name = "pic", .size = 2, .ops = ops, .opaque = pic, .lock = &pic->irq_lock};
    io_bus_add(pic->device.env->pio, region, port);
}

static struct err *realize(struct device *device)
{
    struct pic *pic = (struct pic *)device;
    map(pic, &pic->region[0], &master_ops, LAYOUT_PORT_PIC_MASTER);
    map(pic, &pic->region[1], &slave_ops, LAYOUT_PORT_PIC_SLAVE);
    map(pic, &pic->elcr_region, &elcr_ops, LAYOUT_PORT_ELCR);
    return NULL;
}

static void reset(struct device *device)
{
    struct pic *pic = (struct pic *)device;
    lock_take(&pic->irq_lock);
    for (unsigned i = 0; i < 2; i++) {
        pic->chip[i].elcr = 0;
        chip_reset(&pic->chip[i]);
        pic->chip[i].imr = 0xff; /* nobody asks before the guest has said where to */
    }
    update_locked(pic);
    lock_drop(&pic->irq_lock);
}

static void init(struct device *device)
{
    lock_init(&((struct pic *)device)->irq_lock, LOCK_IRQCHIP);
}

static void fini(struct device *device)
{
    struct pic *pic = (struct pic *)device;
    io_bus_remove(&pic->region[0]);
    io_bus_remove(&pic->region[1]);
    io_bus_remove(&pic->elcr_region);
    lock_fini(&pic->irq_lock);
}

static struct err *check_chip(const void *staged)
{
    const struct pic_chip *chip = staged;
    if (chip->icw_next == 1 || chip->icw_next > 4 || chip->lowest > 7 || chip->vector_base & 7)
        return err_new("an 8259A is in a state that does not exist");
    return NULL;
}

/* The output is the accelerator's to restore; what it was told last is ours. */
static void post_load(void *object)
{
    struct pic *pic = object;
    lock_take(&pic->irq_lock);
    pic->intr_level = request(&pic->chip[0], true) < 8;
    if (pic->intr)
        pic->intr(pic->opaque, pic->intr_level);
    lock_drop(&pic->irq_lock);
}

static const struct state_field chip_fields[] = {
    STATE_U8(1, pic_chip, irr),
    STATE_U8(2, pic_chip, isr),
    STATE_U8(3, pic_chip, imr),
    STATE_U8(4, pic_chip, levels),
    STATE_U8(5, pic_chip, elcr),
    STATE_U8(6, pic_chip, vector_base),
    STATE_U8(7, pic_chip, icw_next),
    STATE_U8(8, pic_chip, lowest),
    STATE_BOOL(9, pic_chip, icw4_needed),
    STATE_BOOL(10, pic_chip, auto_eoi),
    STATE_BOOL(11, pic_chip, rotate_auto),
    STATE_BOOL(12, pic_chip, special_mask),
    STATE_BOOL(13, pic_chip, special_nested),
    STATE_BOOL(14, pic_chip, single),
    STATE_BOOL(15, pic_chip, level_mode),
    STATE_BOOL(16, pic_chip, read_isr),
    STATE_BOOL(17, pic_chip, poll),
};

static const struct state_table chip_state = {
    DEVICE_STATE_TABLE("8259a", pic_chip, chip_fields),
    .check = check_chip,
};

static const struct state_field fields[] = {
    STATE_STRUCT(1, pic, chip, &chip_state),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("pic", pic, fields),
    .post_load = post_load,
};

const struct device_class pic_class = {
    .name = "pic",
    .description = "pair of 8259A interrupt controllers",
    .size = sizeof(struct pic),
    .state = &state,
    .init = init,
    .realize = realize,
    .reset = reset,
    .fini = fini,
};
DEVICE_CLASS(pic_class);
