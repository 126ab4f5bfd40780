/*
 * The legacy registers of a VGA adapter (IBM PS/2 hardware technical reference, video subsystem):
 * sequencer, CRT controller, graphics controller, attribute controller, DAC and the external
 * registers.
 *
 * Registers keep what is written; what they mean is read off them when memory is accessed or a
 * screen is drawn.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/clock.h"
#include "hw/display/vga_internal.h"

#define MISC_COLOUR 0x01
#define ATTRIBUTE_REGISTERS 21
#define CRTC_REGISTERS 25
#define CRTC_PROTECT                                                                               \
    0x80 /* in register 0x11: of 0 to 7 only line compare's bit 8 can be written                   \
          */
#define CRTC_OVERFLOW 7
#define CRTC_OVERFLOW_COMPARE 0x10

/* Bits that exist; the rest reads 0. */
static const uint8_t sequencer_bits[8] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e};
static const uint8_t graphics_bits[16] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};

/* A frame takes 1/60 s; what matters is that both bits come and go. */
#define FRAME_NS (NSEC_PER_SEC / 60)
#define LINES 525u
#define LINES_SHOWN 480u
#define STATUS_BLANK 0x01
#define STATUS_RETRACE 0x08

static uint8_t input_status(struct vga *vga)
{
    uint64_t line_eighths = clock_now_ns() % FRAME_NS * (LINES * 8) / FRAME_NS;
    uint64_t line = line_eighths / 8;

    vga->attribute_data = false;
    if (line >= LINES_SHOWN)
        return STATUS_BLANK | (line < LINES_SHOWN + 10 ? 0 : STATUS_RETRACE);
    return line_eighths % 8 >= 6 ? STATUS_BLANK : 0;
}

/* --- DAC --- */

static void dac_data_write(struct vga *vga, uint8_t value)
{
    vga->dac_cache[vga->dac_part++] = value;
    if (vga->dac_part < 3)
        return;
    for (unsigned i = 0; i < 3; i++)
        vga->dac[vga->dac_write * 3 + i] = vga->dac_cache[i];
    vga->dac_part = 0;
    vga->dac_write++;
}

static uint8_t dac_data_read(struct vga *vga)
{
    uint8_t value = vga->dac[vga->dac_read * 3 + vga->dac_part++];

    if (vga->dac_part == 3) {
        vga->dac_part = 0;
        vga->dac_read++;
    }
    return value;
}

static void dac_start(struct vga *vga, bool reading, uint8_t index)
{
    vga->dac_reading = reading;
    vga->dac_part = 0;
    if (reading)
        vga->dac_read = index;
    else
        vga->dac_write = index;
}

/* --- registers behind an index --- */

static void crtc_write(struct vga *vga, uint8_t value)
{
    unsigned index = vga->crtc_index;

    if (index >= CRTC_REGISTERS)
        return;
    if (vga->crtc[0x11] & CRTC_PROTECT && index <= CRTC_OVERFLOW) {
        if (index != CRTC_OVERFLOW)
            return;
        value = (uint8_t)((vga->crtc[index] & ~CRTC_OVERFLOW_COMPARE) |
                          (value & CRTC_OVERFLOW_COMPARE));
    }
    vga->crtc[index] = value;
}

static void attribute_write(struct vga *vga, uint8_t value)
{
    unsigned index = vga->attribute_index & 0x1f;

    vga->attribute_data = !vga->attribute_data;
    if (vga->attribute_data)
        vga->attribute_index = value & 0x3f;
    else if (index < ATTRIBUTE_REGISTERS)
        vga->attribute[index] = index < 16 ? value & 0x3f : value;
}

/* The CRT controller answers at one of two places, and the other is empty. */
static bool crtc_place(const struct vga *vga, unsigned *port)
{
    bool colour = *port >= 0x3d0;

    if (*port >= 0x3c0 && !colour)
        return true;
    if (colour != (vga->misc & MISC_COLOUR))
        return false;
    *port = 0x3d0 | (*port & 0xf);
    return true;
}

uint8_t vga_port_read(struct vga *vga, unsigned port)
{
    if (!crtc_place(vga, &port))
        return 0xff;
    switch (port) {
    case 0x3c0:
        return vga->attribute_data ? 0 : vga->attribute_index;
    case 0x3c1:
        return vga->attribute[vga->attribute_index & 0x1f];
    case 0x3c2: /* input status 0: a colour monitor is there */
        return 0x10;
    case 0x3c4:
        return vga->sequencer_index;
    case 0x3c5:
        return vga->sequencer[vga->sequencer_index];
    case 0x3c6:
        return vga->dac_mask;
    case 0x3c7:
        return vga->dac_reading ? 3 : 0;
    case 0x3c8:
        return vga->dac_write;
    case 0x3c9:
        return dac_data_read(vga);
    case 0x3ca:
        return vga->feature;
    case 0x3cc:
        return vga->misc;
    case 0x3ce:
        return vga->graphics_index;
    case 0x3cf:
        return vga->graphics[vga->graphics_index];
    case 0x3d4:
        return vga->crtc_index;
    case 0x3d5:
        return vga->crtc[vga->crtc_index];
    case 0x3da:
        return input_status(vga);
    }
    return 0xff;
}

void vga_port_write(struct vga *vga, unsigned port, uint8_t value)
{
    if (!crtc_place(vga, &port))
        return;
    switch (port) {
    case 0x3c0:
        attribute_write(vga, value);
        break;
    case 0x3c2:
        vga->misc = value & 0xef;
        break;
    case 0x3c4:
        vga->sequencer_index = value & 7;
        break;
    case 0x3c5:
        vga->sequencer[vga->sequencer_index] = value & sequencer_bits[vga->sequencer_index];
        break;
    case 0x3c6:
        vga->dac_mask = value;
        break;
    case 0x3c7:
        dac_start(vga, true, value);
        break;
    case 0x3c8:
        dac_start(vga, false, value);
        break;
    case 0x3c9:
        dac_data_write(vga, value);
        break;
    case 0x3ce:
        vga->graphics_index = value & 0x0f;
        break;
    case 0x3cf:
        vga->graphics[vga->graphics_index] = value & graphics_bits[vga->graphics_index];
        break;
    case 0x3d4:
        vga->crtc_index = value & 0x1f;
        break;
    case 0x3d5:
        crtc_write(vga, value);
        break;
    case 0x3da:
        vga->feature = value & 0x10;
        break;
    }
}

/* A wide access is one of several ports: index and value in one instruction. */
static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)vga_port_read(opaque, VGA_PORT_FIRST + (unsigned)offset + i) << (8 * i);
    return value;
}

static void ports_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++)
        vga_port_write(opaque, VGA_PORT_FIRST + (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
}

const struct io_ops vga_port_ops = {ports_read, ports_write};

struct err *vga_ports_check(const struct vga *vga)
{
    if (vga->dac_part > 2 || vga->sequencer_index > 7 || vga->crtc_index > 0x1f ||
        vga->graphics_index > 0x0f || vga->attribute_index > 0x3f)
        return err_new("an index is out of range");
    for (unsigned i = 0; i < sizeof(vga->sequencer); i++) {
        if (vga->sequencer[i] & ~sequencer_bits[i])
            return err_new("sequencer register %u is out of range", i);
    }
    for (unsigned i = 0; i < sizeof(vga->graphics); i++) {
        if (vga->graphics[i] & ~graphics_bits[i])
            return err_new("graphics register %u is out of range", i);
    }
    return NULL;
}
