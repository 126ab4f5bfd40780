/*
 * EDID 1.4 of the monitor at the VGA adapter (VESA E-EDID standard, release A2): 1024x768 at 60 Hz
 * is what it likes best.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "hw/display/vga_internal.h"

/* Offsets of section 3. */
#define EDID_VENDOR 8
#define EDID_PRODUCT 10
#define EDID_YEAR 17
#define EDID_VERSION 18
#define EDID_BASIC 20
#define EDID_CHROMATICITY 25
#define EDID_ESTABLISHED 35
#define EDID_STANDARD 38
#define EDID_DESCRIPTORS 54
#define DESCRIPTOR_SIZE 18

/* VESA DMT 10h: 1024x768 at 60 Hz, 65 MHz, both syncs negative; 26 x 20 cm. */
static const uint8_t preferred[DESCRIPTOR_SIZE] = {0x64, 0x19, 0x00, 0x40, 0x41, 0x00,
                                                   0x26, 0x30, 0x18, 0x88, 0x36, 0x00,
                                                   0x04, 0xc8, 0x00, 0x00, 0x00, 0x18};
/* 50 to 125 Hz vertically, 30 to 160 kHz, 300 MHz at most. */
static const uint8_t limits[DESCRIPTOR_SIZE] = {0,  0, 0,    0xfd, 0,   50,  125, 30,  160,
                                                30, 1, '\n', ' ',  ' ', ' ', ' ', ' ', ' '};
static const uint8_t name[DESCRIPTOR_SIZE] = {0,   0,    0,   0xfc, 0,   'T', 'e', 'n', 'o',
                                              'n', '\n', ' ', ' ',  ' ', ' ', ' ', ' ', ' '};
static const uint8_t unused[DESCRIPTOR_SIZE] = {0, 0, 0, 0x10};
/* sRGB's primaries and white point. */
static const uint8_t srgb[10] = {0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};

/* Standard timings at 60 Hz: width, and aspect ratio (0 16:10, 1 4:3, 2 5:4, 3 16:9). */
static const struct {
    uint16_t width;
    uint8_t aspect;
} standard[8] = {{1920, 3}, {1680, 0}, {1600, 1}, {1440, 0},
                 {1280, 0}, {1280, 2}, {1280, 3}, {1152, 1}};

void vga_edid_build(uint8_t edid[128])
{
    const uint8_t *descriptors[] = {preferred, limits, name, unused};
    uint8_t sum = 0;

    memset(edid, 0, 128);
    memset(edid + 1, 0xff, 6);
    put_be16(edid + EDID_VENDOR, ('T' - '@') << 10 | ('N' - '@') << 5 | ('N' - '@'));
    put_le16(edid + EDID_PRODUCT, 1);
    edid[EDID_YEAR] = 2024 - 1990;
    edid[EDID_VERSION] = 1;
    edid[EDID_VERSION + 1] = 4;
    memcpy(edid + EDID_BASIC, (const uint8_t[]){0xa5, 26, 20, 120, 0x06}, 5); /* digital, 8 bits */
    memcpy(edid + EDID_CHROMATICITY, srgb, sizeof(srgb));
    edid[EDID_ESTABLISHED] = 0x21;     /* 640x480, 800x600 */
    edid[EDID_ESTABLISHED + 1] = 0x08; /* 1024x768 */
    for (unsigned i = 0; i < ARRAY_SIZE(standard); i++) {
        edid[EDID_STANDARD + 2 * i] = (uint8_t)(standard[i].width / 8 - 31);
        edid[EDID_STANDARD + 2 * i + 1] = (uint8_t)(standard[i].aspect << 6);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(descriptors); i++)
        memcpy(edid + EDID_DESCRIPTORS + i * DESCRIPTOR_SIZE, descriptors[i], DESCRIPTOR_SIZE);
    for (unsigned i = 0; i < 127; i++)
        sum = (uint8_t)(sum + edid[i]);
    edid[127] = (uint8_t)-sum;
}
