/*
 * The checks of `tenon doctor`. Inside src/cmd only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_DOCTOR_H
#define TENON_CMD_DOCTOR_H

#include "base/base.h"

enum finding_mark {
    FINDING_OK,
    FINDING_INFO,    /* absent or off, and nobody misses it */
    FINDING_LIMITED, /* VMs run, something is slower or missing */
    FINDING_BROKEN,  /* no VM can run */
};

struct finding {
    enum finding_mark mark;
    char text[320];   /* what was found */
    char advice[320]; /* what to do about it; empty: nothing */
};

struct doctor_check {
    const char *id, *title;
    void (*run)(struct finding *finding);
};

extern const struct doctor_check doctor_checks[]; /* ends with a NULL id */

#endif
