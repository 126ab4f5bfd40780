/*
 * Picks the specialised op of a decoded 64-bit instruction.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/exec.h"

bool soft_select(struct op *op, const struct insn *insn)
{
    (void)op;
    (void)insn;
    return false;
}
