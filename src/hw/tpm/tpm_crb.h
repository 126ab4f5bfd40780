/*
 * TPM 2.0 with a command response buffer: registers of locality 0 and a buffer, in one page (TCG PC
 * Client Platform TPM Profile 1.05, section 6.5.3). It polls: there is no interrupt.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_TPM_TPM_CRB_H
#define TENON_HW_TPM_TPM_CRB_H

#include "base/buf.h"
#include "base/log.h"
#include "hw/core/device.h"
#include "hw/tpm/swtpm.h"

#define TPM_CRB_SIZE 0x1000
#define TPM_CRB_CONTROL 0x40 /* the control area, for the ACPI table */
#define TPM_CRB_BUFFER 0x80
#define TPM_CRB_BUFFER_SIZE (TPM_CRB_SIZE - TPM_CRB_BUFFER)

struct tpm_crb {
    struct device device;

    /* Set before realize: the TPM, with its descriptors. */
    uint64_t base;
    struct swtpm tpm;

    /* Own. */
    struct io_region region;
    struct log_limit log;
    struct swtpm_request request;
    bool discard; /* the machine was reset: nobody wants the answer that comes */
    /* The machine's state. */
    bool assigned; /* locality 0 is the guest's */
    bool ready;    /* not idle: takes a command */
    bool started;  /* runs the command in the buffer */
    bool failed;   /* tpmSts: the TPM is gone */
    uint8_t buffer[TPM_CRB_BUFFER_SIZE];
};

extern const struct device_class tpm_crb_class;

/*
 * Runs a command beside the guest's and appends the response; waits some seconds at most. Control
 * loop.
 */
struct err *tpm_crb_execute(struct tpm_crb *crb, const uint8_t *command, size_t len,
                            struct buf *reply);

#endif
