/*
 * QMP commands for those who judge a VM from outside: a TPM command, and memory into a file (as
 * QEMU's pmemsave, qapi/machine.json).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/vm_tpm.h"

#include <stdlib.h>
#include <string.h>

#include "ctl/vm_control_internal.h"
#include "hw/tpm/swtpm.h"

static struct err *read_hex(const char *text, uint8_t *bytes, size_t *len)
{
    static const char digits[] = "0123456789abcdef";

    for (*len = 0; *text; text += 2) {
        const char *high = strchr(digits, text[0]), *low = text[1] ? strchr(digits, text[1]) : NULL;
        if (!high || !low || *len == TPM_MESSAGE_MAX)
            return err_new("'command' is a TPM command in hexadecimal digits");
        bytes[(*len)++] = (uint8_t)((high - digits) << 4 | (low - digits));
    }
    return NULL;
}

struct err *vm_tpm_command(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    uint8_t command[TPM_MESSAGE_MAX];
    struct buf reply = BUF_INIT, hex = BUF_INIT;
    const char *text = NULL;
    size_t len;

    TRY(vm_control_text(arguments, "command", &text));
    TRY(read_hex(text ? text : "", command, &len));
    struct err *err = vm_tpm_execute(control->vm, command, len, &reply);
    for (size_t i = 0; !err && i < reply.len; i++)
        buf_printf(&hex, "%02x", reply.data[i]);
    if (!err)
        *result = json_pack("{s:s}", "response", (char *)hex.data);
    buf_fini(&reply);
    buf_fini(&hex);
    return err;
}

struct err *vm_tpm_save_memory(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    uint64_t gpa = 0, left = 0;
    uint8_t bytes[KIB(16)];
    scoped(fd_cleanup) int fd = -1;

    TRY(vm_control_number(arguments, "val", &gpa));
    TRY(vm_control_number(arguments, "size", &left));
    TRY(vm_control_output(control, arguments, &fd));
    while (left) {
        size_t now = (size_t)MIN(left, (uint64_t)sizeof(bytes));
        TRY(vm_memory_read(control->vm, gpa, bytes, now));
        TRY(vm_control_write(fd, bytes, now));
        gpa += now;
        left -= now;
    }
    return NULL;
}
