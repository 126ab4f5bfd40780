/*
 * The firmware's log of what it measured (TCG PC Client Platform Firmware Profile 1.05, section 10,
 * "crypto agile"), and what the PCRs must be if it is true.
 *
 * A log comes out of the guest's memory and may say anything. Only the quote makes it credible: if
 * its digests lead to the PCRs that the TPM signed, they are those that were measured. What an
 * event says besides its digest is the guest's word, unless the digest is that of the words.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ATTEST_EVENT_LOG_H
#define TENON_ATTEST_EVENT_LOG_H

#include "attest/tpm.h"

#define EVENT_LOG_MAX KIB(256) /* no firmware has room for more */
#define EVENT_LOG_EVENTS_MAX 4096

/* What happened in a start, in its order, as far as somebody can change it apart from the rest. */
enum event_stage {
    STAGE_FIRMWARE,
    STAGE_SETTINGS, /* of the firmware: variables, tables */
    STAGE_SECURE_BOOT,
    STAGE_PARTITIONS,
    STAGE_BOOT_LOADER,
    STAGE_KERNEL,
    STAGE_INITRD,
    STAGE_COMMAND_LINE,
    STAGES
};

struct event {
    uint8_t pcr;
    uint32_t type;
    enum event_stage stage;
    uint8_t digest[TPM_SHA256_SIZE];
    char *text; /* owned: what it is about, printable; "" if it does not say */
};

struct event_log {
    struct event *event; /* owned */
    unsigned count;
    uint8_t pcr[TPM_PCRS][TPM_SHA256_SIZE]; /* where the events lead */
};

/*
 * Reads the log that begins at `bytes`. It ends where nothing like an event follows: logs lie in
 * memory that is larger. An error when it does not begin like one, or has no SHA-256.
 */
struct err *event_log_parse(const uint8_t *bytes, size_t len, struct event_log *log);
void event_log_fini(struct event_log *log);

/* The next place from `from` on where a log may begin, or `len`. */
size_t event_log_find(const uint8_t *bytes, size_t len, size_t from);

/* The PCRs of firmware and boot loader that the log does not explain, a bit each. */
uint32_t event_log_unexplained(const struct event_log *log,
                               uint8_t quoted[TPM_PCRS][TPM_SHA256_SIZE]);

const char *event_stage_name(enum event_stage stage);

#endif
