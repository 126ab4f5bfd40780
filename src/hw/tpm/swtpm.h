/*
 * A TPM 2.0 in a process of its own, swtpm(8), behind two sockets: one for TPM commands and their
 * replies, one for what a real TPM hears by its pins (swtpm_ioctls(3), in its socket form).
 *
 * Nothing waits: requests queue up and are answered on the loop. Everything here, the callbacks
 * too, is under the owner's lock. What the process answers is checked; one that breaks the
 * protocol, ends or stays silent is given up, with one sentence in the log.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_TPM_SWTPM_H
#define TENON_HW_TPM_SWTPM_H

#include "base/lock.h"
#include "loop/loop.h"

/* Commands and replies begin with tag (2 bytes), length (4) and code (4), big-endian. */
#define TPM_HEADER_SIZE 10
#define TPM_MESSAGE_MAX 4096

/* Control channel: a number (4 bytes, big-endian) and operands; the answer begins with a result. */
enum swtpm_control {
    SWTPM_INIT = 2, /* flags (4): power cycle */
    SWTPM_CANCEL = 9,
};

struct swtpm_request {
    const uint8_t *command; /* borrowed until `done`: a whole TPM command */
    size_t len;             /* TPM_HEADER_SIZE to TPM_MESSAGE_MAX, and what the header says */
    /* `reply` is a whole TPM response; NULL: the TPM is gone. */
    void (*done)(void *opaque, const uint8_t *reply, size_t len);
    void *opaque;
    struct list link; /* of the waiting ones; own */
};

struct swtpm {
    /* Set before swtpm_open(). */
    const char *name; /* for the log */
    struct loop *loop;
    struct lock *lock;          /* the owner's */
    int control_fd, command_fd; /* owned; non-blocking from open on */

    /* Own. */
    struct loop_fd control_watch, command_watch;
    struct loop_timer silence;
    bool gone;
    bool reset_wanted, resetting;
    unsigned cancels; /* answers to SWTPM_CANCEL that will come first */
    uint8_t control[4];
    unsigned control_len;
    struct swtpm_request *running; /* sent, not answered */
    struct list waiting;
    uint8_t reply[TPM_MESSAGE_MAX];
    size_t reply_len;
};

struct err *swtpm_open(struct swtpm *tpm);
/* Without open, and twice, is fine. Requests that wait are dropped. */
void swtpm_close(struct swtpm *tpm);

/* Does the header say what is there? */
bool swtpm_command_is_whole(const uint8_t *command, size_t len);
/* Runs the request when those before it are done. `done` may come before this returns. */
void swtpm_submit(struct swtpm *tpm, struct swtpm_request *request);
/* Takes back a request that still waits; false when it runs, and will be answered. */
bool swtpm_withdraw(struct swtpm *tpm, struct swtpm_request *request);
/* The request that runs should end soon; it is answered all the same. */
void swtpm_cancel(struct swtpm *tpm);
/*
 * Power cycle: after the request that runs, before those that wait. What the TPM keeps in RAM, such
 * as PCRs, is lost.
 */
void swtpm_reset(struct swtpm *tpm);
/*
 * Serves the sockets until no request runs, or until `*enough` (NULL: no such thing), some seconds
 * at most. The loop's thread, without the lock.
 */
void swtpm_settle(struct swtpm *tpm, const bool *enough);

#endif
