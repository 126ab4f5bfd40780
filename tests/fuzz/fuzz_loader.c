/*
 * Fuzz target: the kernel loaders. The first byte chooses how much RAM there is and whether the
 * input serves as initrd too; the rest is the kernel file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm/boot/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct boot_request *request, const struct x86_state *state,
                  const struct boot_result *result)
{
    if (result->kernel_base < MIB(1) || result->kernel_end > request->low_end ||
        result->kernel_base >= result->kernel_end)
        abort();
    struct err *err = x86_state_table.check(state);
    if (err || state->rip < result->kernel_base || state->rip >= result->kernel_end)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    uint64_t low = MIB(2) << (data[0] & 3);
    struct boot_request request = {
        .gmem = gmem_new(),
        .range = {{0, 0x9fc00, BOOT_RAM}, {MIB(1), low - MIB(1), BOOT_RAM}},
        .range_count = 2,
        .low_end = low,
        .kernel = "kernel",
        .initrd = "initrd",
        .append = "quiet",
    };
    err_free(gmem_add_ram(request.gmem, "low", 0, low));
    if (data[0] & 4) {
        err_free(gmem_add_ram(request.gmem, "high", GIB(4), MIB(2)));
        request.high_end = GIB(4) + MIB(2);
    }
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data + 1, size - 1) != (ssize_t)(size - 1))
        abort();
    request.kernel_fd = fd;
    request.initrd_fd = data[0] & 8 ? fd : -1;

    struct x86_state *state = xcalloc(1, sizeof(*state));
    struct boot_result result;
    x86_state_reset(state, 0, true);
    struct err *err = boot_load(&request, state, &result);
    if (!err)
        check(&request, state, &result);
    err_free(err);
    free(state);
    close(fd);
    gmem_free(request.gmem);
    return 0;
}
