/*
 * The TPM and the memory of a VM. See vm_tpm.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/vm_tpm.h"

#include "hw/tpm/tpm_crb.h"
#include "vm/vm_internal.h"

struct err *vm_tpm_execute(struct vm *vm, const uint8_t *command, size_t len, struct buf *reply)
{
    if (!vm->board.tpm)
        return err_new("the VM has no TPM: start it with --tpm");
    return tpm_crb_execute(vm->board.tpm, command, len, reply);
}

struct err *vm_memory_read(struct vm *vm, uint64_t gpa, void *bytes, size_t len)
{
    if (gmem_read(vm->gmem, gpa, bytes, len))
        return err_new("there is not RAM in all %zu bytes from 0x%llx on", len,
                       (unsigned long long)gpa);
    return NULL;
}
