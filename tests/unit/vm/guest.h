/*
 * Tiny guests for tests of the VM: a Multiboot image of a few instructions, 32-bit code at 1 MiB
 * + 64.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_VM_GUEST_H
#define TESTS_VM_GUEST_H

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "vm/schema.h"

#define GUEST_BASE 0x100000u
#define GUEST_CODE 0x40u

/* A descriptor of the image, or -1. */
static inline int guest_image(const uint8_t *code, size_t len)
{
    uint8_t image[512] = {0};
    const uint32_t flags = 0x10003;

    put_le32(image, 0x1badb002);
    put_le32(image + 4, flags);
    put_le32(image + 8, 0u - 0x1badb002u - flags);
    put_le32(image + 12, GUEST_BASE);
    put_le32(image + 16, GUEST_BASE);
    put_le32(image + 20, GUEST_BASE + sizeof(image));
    put_le32(image + 24, GUEST_BASE + sizeof(image));
    put_le32(image + 28, GUEST_BASE + GUEST_CODE);
    if (len > sizeof(image) - GUEST_CODE)
        return -1;
    memcpy(image + GUEST_CODE, code, len);
    int fd = memfd_create("guest", MFD_CLOEXEC);
    if (fd >= 0 && write(fd, image, sizeof(image)) != (ssize_t)sizeof(image))
        fd_cleanup(&fd);
    return fd;
}

/* The rest of a small VM for such a guest, without a console: after vm_config_init() and what the
 * test sets by itself. */
static inline struct err *guest_config(struct vm_config *config, const uint8_t *code, size_t len)
{
    config->kernel = xstrdup("guest");
    config->memory = MIB(16);
    config->rng = false;
    TRY(schema_apply_flag(config, "console", "serial,backend=null"));
    TRY(schema_finish(config));
    config->kernel_fd = guest_image(code, len);
    return config->kernel_fd < 0 ? err_new("cannot write the guest's image") : NULL;
}

/* clang-format off */

/* mov al, status; out 0xf4, al; then halt for ever */
#define GUEST_EXIT(status) 0xb0, (status), 0xe6, 0xf4, 0xf4, 0xeb, 0xfd
/* inc dword [0x200000]; cmp dword [0x200000], count; je over the next `skip` bytes */
#define GUEST_COUNT_AND_SKIP(count, skip)                                                          \
    0xff, 0x05, 0x00, 0x00, 0x20, 0x00,                                                            \
    0x83, 0x3d, 0x00, 0x00, 0x20, 0x00, (count),                                                   \
    0x74, (skip)
/* mov byte [address], value: 7 bytes */
#define GUEST_STORE_BYTE(address, value)                                                           \
    0xc6, 0x05, (uint8_t)(address), (uint8_t)((address) >> 8), (uint8_t)((address) >> 16),         \
    (uint8_t)((address) >> 24), (value)
/* mov dx, port; mov eax, value; out dx, ax: 11 bytes */
#define GUEST_OUT_WORD(port, value)                                                                \
    0x66, 0xba, (uint8_t)(port), (uint8_t)((port) >> 8),                                           \
    0xb8, (uint8_t)(value), (uint8_t)((value) >> 8), 0, 0,                                         \
    0x66, 0xef
/* mov dx, port; mov al, value; out dx, al: 7 bytes */
#define GUEST_OUT_BYTE(port, value)                                                                \
    0x66, 0xba, (uint8_t)(port), (uint8_t)((port) >> 8), 0xb0, (value), 0xee
/* A fault without a descriptor table: lidt of zeros, then a bad selector into DS. 13 bytes */
#define GUEST_TRIPLE_FAULT                                                                         \
    0x0f, 0x01, 0x1d, 0x00, 0x00, 0x30, 0x00, 0x66, 0xb8, 0x00, 0x10, 0x8e, 0xd8
#define GUEST_LOOP 0xeb, 0xfe

/* clang-format on */

#endif
