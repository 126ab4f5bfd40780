/*
 * The frequency of this machine's TSC, which must be constant (CPU flag constant_tsc).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_HOST_TSC_H
#define TENON_ACCEL_HOST_TSC_H

#include <stdint.h>

/* kHz: asked of the CPU, else measured in 1 ms. Any thread. */
uint32_t host_tsc_khz(void);

#endif
