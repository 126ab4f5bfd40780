/*
 * A reference: what a good start of a VM measured, as JSON; and what is different now.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ATTEST_COMPARE_H
#define TENON_ATTEST_COMPARE_H

#include <jansson.h>

#include "attest/event_log.h"

/* The caller owns it. */
json_t *reference_make(const struct tpm_key *key, const struct event_log *log);

/* What comparing finds; stages by number. */
struct difference {
    bool key; /* it is another TPM */
    bool changed[STAGES];
    char *what[STAGES]; /* the first event that is other: "PCR 9: /boot/vmlinuz"; owned */
};

/* An error when `reference` is no reference. */
struct err *reference_compare(const json_t *reference, const struct tpm_key *key,
                              const struct event_log *log, struct difference *difference);
void difference_fini(struct difference *difference);

#endif
