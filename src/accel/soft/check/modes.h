/*
 * Modes of the software engine for its tests: they make rare things frequent, or have the engine
 * watch itself. Chosen for a VM with --accel-debug, a list of words:
 *
 *   lockstep       translated code against the interpreter, instruction for instruction
 *   xlate-after=N  a block is translated when it has run N times; 0: never
 *   tlb=N          no more than N entries in the software TLBs of a vCPU
 *   code-cache=N   no more than N KiB of translated code
 *   scatter        guest pages that lie side by side do not in the host
 *   crossings      an access of several bytes is done in two parts, as if a page ended in it; but
 *                  not an aligned one of two bytes, which the guest and devices use to synchronise
 *   poll           the run loop looks for events before every block
 *   trace          one log line for each block that is entered from the run loop
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_MODES_H
#define TENON_ACCEL_SOFT_MODES_H

#include "base/base.h"
#include "base/err.h"

struct soft_modes {
    bool lockstep, poll, trace, scatter, crossings;
    uint32_t xlate_after;
    uint32_t tlb;        /* entries; 0: all */
    uint32_t code_cache; /* bytes; 0: all */
};

/* Defaults, then `text`, which may be NULL. */
struct err *soft_modes_read(const char *text, struct soft_modes *modes);

#endif
