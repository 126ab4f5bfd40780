/*
 * Random values as operands of a case: random bits, corners, and floating-point numbers of all
 * kinds.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TESTS_VALUES_H
#define TENON_TESTS_VALUES_H

#include "differential.h"

void values_memory(struct random *random, uint8_t *bytes, unsigned len);
/* Everything but rip. */
void values_state(struct random *random, struct machine_state *state);

/* Are alignment checks (AC) compared? What they are for is the maker's choice where SIMD is
   concerned; the engine follows Intel's. */
bool values_alignment(void);

#endif
