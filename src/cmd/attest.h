/*
 * The parts of `tenon attest`. Inside src/cmd only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_ATTEST_H
#define TENON_CMD_ATTEST_H

#include "attest/event_log.h"
#include "cmd/qmp_client.h"

/*
 * attest_memory.c: the event log in the VM's memory that explains the quoted PCRs best; firmware
 * and kernel keep copies, and older ones may be left over. An error when there is none.
 */
struct err *attest_find_log(struct qmp_client *client, uint8_t quoted[TPM_PCRS][TPM_SHA256_SIZE],
                            struct event_log *log);

#endif
