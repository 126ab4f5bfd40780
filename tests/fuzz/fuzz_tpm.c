/*
 * libFuzzer target: the TPM's registers as a guest writes them, and a swtpm that answers anything.
 * The input is a run of steps.
 *
 * A finding is a crash or a sanitizer's report; a command without a length that its header says; a
 * TPM that is still busy when swtpm has gone; a state that does not load into itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz_machine.h"
#include "hw/tpm/tpm_crb.h"

#define BASE 0xfed40000ull
#define STEPS_MAX 1024

static int connect_peer(int *device)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds))
        abort();
    *device = fds[0];
    return fds[1];
}

/* What swtpm reads is whole: it relies on that. */
static void hear(int fd)
{
    uint8_t bytes[TPM_MESSAGE_MAX + 1];
    ssize_t n = recv(fd, bytes, sizeof(bytes), 0);

    if (n > 0 && !swtpm_command_is_whole(bytes, (size_t)n))
        abort();
}

static void say(int fd, struct input *input, uint8_t count)
{
    uint8_t bytes[256];

    for (unsigned i = 0; i < count; i++)
        bytes[i] = (uint8_t)take(input, 1);
    if (count && send(fd, bytes, count, MSG_NOSIGNAL) < 0)
        return; /* hung up: as good as any */
}

static void say_well(int fd, struct input *input)
{
    uint8_t reply[TPM_HEADER_SIZE + 255] = {0x80, 0x01};
    uint32_t len = TPM_HEADER_SIZE + (uint32_t)take(input, 1);

    put_be32(reply + 2, len);
    if (send(fd, reply, len, MSG_NOSIGNAL) < 0)
        return;
}

static void step(struct hw_env *env, struct tpm_crb *crb, int control, int command,
                 struct input *input)
{
    static const uint8_t registers[] = {0x08, 0x40, 0x48, 0x4c, 0x80, 0x82, 0x84, 0x86};
    uint8_t what = (uint8_t)take(input, 1);

    switch (what & 7) {
    case 0:
        io_bus_write(env->mmio, BASE + take(input, 2) % TPM_CRB_SIZE, 1u << (what >> 6),
                     take(input, 8));
        break;
    case 1:
        io_bus_read(env->mmio, BASE + take(input, 2) % TPM_CRB_SIZE, 1u << (what >> 6));
        break;
    case 2:
        io_bus_write(env->mmio, BASE + registers[what >> 5], 4, take(input, 1));
        break;
    case 3:
        say(what & 8 ? control : command, input, (uint8_t)take(input, 1));
        break;
    case 4:
        say_well(command, input);
        break;
    case 5:
        if (send(control, "\0\0\0\0", 4, MSG_NOSIGNAL) < 0)
            break;
        break;
    case 6:
        io_bus_write(env->mmio, BASE + 0x82, 4, 0x0c000000); /* a length that is right */
        break;
    default:
        device_reset(&crb->device);
    }
    loop_once(env->loop, 0);
    hear(command);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_machine machine;
    struct input input = {data, size};

    if (!machine.env.loop)
        fuzz_machine_open(&machine);
    struct tpm_crb *crb = (struct tpm_crb *)device_new(&tpm_crb_class, &machine.env, "tpm");
    crb->base = BASE;
    int control = connect_peer(&crb->tpm.control_fd);
    int command = connect_peer(&crb->tpm.command_fd);
    must(device_realize(&crb->device));
    for (unsigned i = 0; i < STEPS_MAX && input.left; i++)
        step(&machine.env, crb, control, command, &input);
    close(control);
    close(command);
    for (unsigned i = 0; i < 4; i++)
        loop_once(machine.env.loop, 0);
    if (io_bus_read(machine.env.mmio, BASE + 0x4c, 4))
        abort();
    fuzz_save_and_load(&crb->device);
    device_free(&crb->device);
    return 0;
}
