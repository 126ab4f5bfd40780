/*
 * What the architecture leaves undefined, in one place (Intel SDM vol. 2, the pages of the
 * instructions; AMD APM vol. 3): whoever compares two executions leaves it out.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_UNDEFINED_H
#define TENON_ACCEL_SOFT_UNDEFINED_H

#include "accel/soft/decode/decode.h"

/* Arithmetic flags that mean nothing after `insn`. `gpr`: the registers before it; NULL: whatever
   they are, so that a flag counts which is undefined for some operands only. */
uint32_t soft_undefined_flags(const struct insn *insn, const uint64_t *gpr);
/* Is the result as a whole undefined? (BSF and BSR: it may be.) */
bool soft_undefined_result(const struct insn *insn, const uint64_t *gpr);

#endif
