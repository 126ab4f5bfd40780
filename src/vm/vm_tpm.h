/*
 * The TPM and the memory of a VM, for those who judge it from outside. On the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_VM_TPM_H
#define TENON_VM_VM_TPM_H

#include "base/buf.h"
#include "vm/vm.h"

/* Runs a TPM command beside the guest's; appends the response. */
struct err *vm_tpm_execute(struct vm *vm, const uint8_t *command, size_t len, struct buf *reply);
/* Copies RAM out; an error when there is none all along. */
struct err *vm_memory_read(struct vm *vm, uint64_t gpa, void *bytes, size_t len);

#endif
