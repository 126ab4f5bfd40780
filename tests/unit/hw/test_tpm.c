/*
 * TPM 2.0 with a command response buffer, as a guest's driver finds it, and its client of swtpm,
 * against a peer that says what the test wants. The real swtpm is in tests/e2e/test_tpm.py.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "board_env.h"
#include "hw/tpm/tpm_crb.h"

#define BASE 0xfed40000ull
#define GET_RANDOM 0x17b

struct fixture {
    struct board_env board;
    struct tpm_crb *crb;
    int control, command; /* the peer's ends */
};

static void connect_pair(int *device, int *peer)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *device = fds[0];
    *peer = fds[1];
    fcntl(*peer, F_SETFL, O_NONBLOCK);
}

static struct tpm_crb *crb_new(struct board_env *board, int *control, int *command)
{
    struct tpm_crb *crb = (struct tpm_crb *)device_new(&tpm_crb_class, &board->env, "tpm");
    crb->base = BASE;
    connect_pair(&crb->tpm.control_fd, control);
    connect_pair(&crb->tpm.command_fd, command);
    board_ok(device_realize(&crb->device));
    return crb;
}

static void no_log(void *opaque, const struct log_record *record)
{
}

static int setup(void **state)
{
    static struct fixture f;
    log_set_sink(no_log, NULL);
    board_init(&f.board);
    f.crb = crb_new(&f.board, &f.control, &f.command);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    device_free(&f->crb->device);
    close(f->control);
    close(f->command);
    board_fini(&f->board);
    log_set_sink(NULL, NULL);
    return 0;
}

static uint32_t reg(struct fixture *f, unsigned at)
{
    return (uint32_t)io_bus_read(f->board.env.mmio, BASE + at, 4);
}

static void set(struct fixture *f, unsigned at, uint32_t value)
{
    io_bus_write(f->board.env.mmio, BASE + at, 4, value);
}

static void turn(struct fixture *f)
{
    for (unsigned i = 0; i < 4; i++)
        loop_once(f->board.env.loop, 0);
}

/* What the device has sent; "" for nothing. */
static size_t heard(int fd, uint8_t *bytes, size_t size)
{
    ssize_t n = recv(fd, bytes, size, 0);
    return n < 0 ? 0 : (size_t)n;
}

static void power_on(struct fixture *f)
{
    uint8_t message[64];
    assert_int_equal(heard(f->control, message, sizeof(message)), 8);
    assert_int_equal(get_be32(message), SWTPM_INIT);
    assert_int_equal(write(f->control, "\0\0\0\0", 4), 4);
    turn(f);
}

static void header(uint8_t *to, uint32_t len, uint32_t code)
{
    put_be16(to, 0x8001);
    put_be32(to + 2, len);
    put_be32(to + 6, code);
}

static void write_command(struct fixture *f, const uint8_t *command, size_t len)
{
    for (size_t i = 0; i < len; i++)
        io_bus_write(f->board.env.mmio, BASE + TPM_CRB_BUFFER + i, 1, command[i]);
}

static void read_response(struct fixture *f, uint8_t *to, size_t len)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)io_bus_read(f->board.env.mmio, BASE + TPM_CRB_BUFFER + i, 1);
}

/* The driver's steps up to the start of GetRandom(8). */
static void start_command(struct fixture *f, uint32_t len)
{
    uint8_t command[12];
    header(command, len, GET_RANDOM);
    put_be16(command + 10, 8);
    set(f, 0x08, 1); /* request locality 0 */
    set(f, 0x40, 1); /* ready */
    write_command(f, command, sizeof(command));
    set(f, 0x4c, 1);
}

static void is_found_by_a_probe(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(reg(f, 0x00), 0x81); /* valid, not assigned */
    uint32_t id = reg(f, 0x30);
    assert_int_equal(id & 0xff, 0x11); /* CRB, version 1 */
    assert_int_equal(id >> 14 & 1, 1); /* it can CRB, and no FIFO */
    assert_int_equal(id >> 13 & 1, 0);
    assert_int_equal(reg(f, 0x34) & 0xffff, 0x1014);
    assert_int_equal(reg(f, 0x58), TPM_CRB_BUFFER_SIZE);
    assert_int_equal(reg(f, 0x64), TPM_CRB_BUFFER_SIZE);
    assert_int_equal(reg(f, 0x5c), BASE + TPM_CRB_BUFFER);
    assert_int_equal(io_bus_read(f->board.env.mmio, BASE + 0x68, 8), BASE + TPM_CRB_BUFFER);
    assert_int_equal(reg(f, 0x44), 2); /* idle */
    set(f, 0x08, 1);
    assert_int_equal(reg(f, 0x00), 0x83);
    assert_int_equal(reg(f, 0x0c), 1);
    assert_int_equal(io_bus_read(f->board.env.mmio, BASE, 1), 0x83);
    set(f, 0x08, 2);
    assert_int_equal(reg(f, 0x0c), 0);
    set(f, 0x40, 1);
    assert_int_equal(reg(f, 0x40), 0);
    assert_int_equal(reg(f, 0x44), 0);
    set(f, 0x40, 2);
    assert_int_equal(reg(f, 0x44), 2);
}

static void a_command_goes_there_and_back(void **state)
{
    struct fixture *f = *state;
    uint8_t message[64], reply[20];
    power_on(f);
    start_command(f, 12);
    assert_int_equal(reg(f, 0x4c), 1);
    assert_int_equal(heard(f->command, message, sizeof(message)), 12);
    assert_int_equal(get_be32(message + 6), GET_RANDOM);
    set(f, TPM_CRB_BUFFER, 0xffffffff); /* the buffer is the TPM's now */
    set(f, 0x40, 2);                    /* and it does not go idle */
    assert_int_equal(reg(f, 0x44), 0);
    turn(f);
    assert_int_equal(reg(f, 0x4c), 1);
    header(reply, sizeof(reply), 0);
    memset(reply + 10, 0x5a, 10);
    assert_int_equal(write(f->command, reply, 7), 7); /* in two pieces */
    turn(f);
    assert_int_equal(reg(f, 0x4c), 1);
    assert_int_equal(write(f->command, reply + 7, 13), 13);
    turn(f);
    assert_int_equal(reg(f, 0x4c), 0);
    read_response(f, message, sizeof(reply));
    assert_memory_equal(message, reply, sizeof(reply));
}

static void a_command_waits_for_the_power(void **state)
{
    struct fixture *f = *state;
    uint8_t message[64];
    start_command(f, 12);
    turn(f);
    assert_int_equal(heard(f->command, message, sizeof(message)), 0);
    power_on(f);
    assert_int_equal(heard(f->command, message, sizeof(message)), 12);
}

static void wrong_lengths_stay_here(void **state)
{
    static const uint32_t lengths[] = {0, 9, TPM_CRB_BUFFER_SIZE + 1, UINT32_MAX};
    struct fixture *f = *state;
    uint8_t message[64];
    power_on(f);
    for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
        start_command(f, lengths[i]);
        assert_int_equal(reg(f, 0x4c), 0);
        read_response(f, message, 10);
        assert_int_equal(get_be32(message + 2), 10);
        assert_int_equal(get_be32(message + 6), 0x142);
    }
    set(f, 0x40, 2); /* idle: not started at all */
    set(f, 0x4c, 1);
    assert_int_equal(reg(f, 0x4c), 0);
    set(f, 0x08, 2);
    set(f, 0x40, 1); /* nobody's locality */
    set(f, 0x4c, 1);
    assert_int_equal(reg(f, 0x4c), 0);
    assert_int_equal(heard(f->command, message, sizeof(message)), 0);
}

/* The driver is told, and later commands fail at once. */
static void expect_gone(struct fixture *f)
{
    uint8_t response[10];
    turn(f);
    assert_int_equal(reg(f, 0x4c), 0);
    assert_int_equal(reg(f, 0x44), 1);
    read_response(f, response, sizeof(response));
    assert_int_equal(get_be32(response + 6), 0x101);
    start_command(f, 12);
    assert_int_equal(reg(f, 0x4c), 0);
    assert_int_equal(reg(f, 0x44), 1);
    device_reset(&f->crb->device);
    assert_int_equal(reg(f, 0x44), 3);
    turn(f);
}

static void an_end_of_swtpm_is_an_error(void **state)
{
    struct fixture *f = *state;
    power_on(f);
    start_command(f, 12);
    shutdown(f->command, SHUT_RDWR);
    expect_gone(f);
}

static void an_end_of_swtpm_is_seen_by_the_next_command(void **state)
{
    struct fixture *f = *state;
    power_on(f);
    shutdown(f->command, SHUT_RDWR);
    start_command(f, 12);
    expect_gone(f);
}

static void a_power_that_fails_is_an_error(void **state)
{
    struct fixture *f = *state;
    uint8_t message[8];
    start_command(f, 12);
    assert_int_equal(heard(f->control, message, sizeof(message)), 8);
    assert_int_equal(write(f->control, "\0\0\0\x09", 4), 4);
    expect_gone(f);
}

static void replies_are_measured(void **state)
{
    struct fixture *f = *state;
    uint8_t reply[32] = {0};
    unsigned which = 0;
    static const struct {
        uint32_t says, has;
    } cases[] = {{9, 10}, {TPM_MESSAGE_MAX + 1, 10}, {UINT32_MAX, 10}, {12, 20}, {0, 12}};

    for (; which < ARRAY_SIZE(cases); which++) {
        power_on(f);
        start_command(f, 12);
        header(reply, cases[which].says, 0);
        assert_int_equal(write(f->command, reply, cases[which].has), cases[which].has);
        expect_gone(f);
        teardown(state);
        setup(state);
        f = *state;
    }
    power_on(f);
    header(reply, 10, 0); /* nobody asked */
    assert_int_equal(write(f->command, reply, 10), 10);
    turn(f);
    start_command(f, 12);
    expect_gone(f);
}

/* A reply that fits the channel, but not the guest's buffer. */
static void a_reply_may_be_too_long_for_the_buffer(void **state)
{
    struct fixture *f = *state;
    uint8_t reply[TPM_MESSAGE_MAX] = {0};
    power_on(f);
    start_command(f, 12);
    header(reply, sizeof(reply), 0);
    assert_int_equal(write(f->command, reply, sizeof(reply)), sizeof(reply));
    turn(f);
    read_response(f, reply, 10);
    assert_int_equal(get_be32(reply + 6), 0x101);
    assert_int_equal(reg(f, 0x44), 0); /* the TPM itself is well */
}

/* The answer to a command of the time before the reset is nobody's; the reset itself comes next. */
static void a_reset_in_the_middle(void **state)
{
    struct fixture *f = *state;
    uint8_t message[64], reply[12];
    power_on(f);
    start_command(f, 12);
    assert_int_equal(heard(f->command, message, sizeof(message)), 12);
    device_reset(&f->crb->device);
    start_command(f, 12);
    turn(f);
    assert_int_equal(heard(f->control, message, sizeof(message)), 0);
    assert_int_equal(heard(f->command, message, sizeof(message)), 0);
    header(reply, sizeof(reply), 7);
    assert_int_equal(write(f->command, reply, sizeof(reply)), sizeof(reply));
    turn(f);
    assert_int_equal(reg(f, 0x4c), 1);
    power_on(f);
    assert_int_equal(heard(f->command, message, sizeof(message)), 12);
    header(reply, sizeof(reply), 0);
    assert_int_equal(write(f->command, reply, sizeof(reply)), sizeof(reply));
    turn(f);
    assert_int_equal(reg(f, 0x4c), 0);
    read_response(f, message, 10);
    assert_int_equal(get_be32(message + 6), 0);
}

/* One that swtpm has not even heard is not run for the next guest. */
static void a_reset_drops_what_waits(void **state)
{
    struct fixture *f = *state;
    uint8_t message[64];
    start_command(f, 12); /* waits for the power */
    device_reset(&f->crb->device);
    power_on(f);
    assert_int_equal(heard(f->command, message, sizeof(message)), 0);
    assert_int_equal(reg(f, 0x4c), 0);
}

static void a_command_is_cancelled_once(void **state)
{
    struct fixture *f = *state;
    uint8_t message[64], reply[10];
    power_on(f);
    set(f, 0x48, 1);
    assert_int_equal(heard(f->control, message, sizeof(message)), 0);
    start_command(f, 12);
    for (unsigned i = 0; i < 1000; i++)
        set(f, 0x48, 1);
    assert_int_equal(heard(f->control, message, sizeof(message)), 4);
    assert_int_equal(get_be32(message), SWTPM_CANCEL);
    assert_int_equal(write(f->control, "\0\0\0\x01", 4), 4); /* it was too late: no error */
    header(reply, 10, 0x909);
    assert_int_equal(write(f->command, reply, 10), 10);
    turn(f);
    read_response(f, message, 10);
    assert_int_equal(get_be32(message + 6), 0x909);
    assert_int_equal(reg(f, 0x44), 0);
}

static void on_host_reply(void *opaque, const uint8_t *reply, size_t len)
{
    *(uint32_t *)opaque = reply ? get_be32(reply + 6) : UINT32_MAX;
}

static void submit(struct fixture *f, struct swtpm_request *request)
{
    lock_take(&f->crb->device.lock);
    swtpm_submit(&f->crb->tpm, request);
    lock_drop(&f->crb->device.lock);
}

/* The host's own command takes its turn behind the guest's. */
static void the_host_asks_too(void **state)
{
    struct fixture *f = *state;
    uint8_t message[64], command[10], reply[10];
    uint32_t code = 0;
    struct swtpm_request request = {command, sizeof(command), on_host_reply, &code, {0}};
    header(command, 10, 0x42);
    power_on(f);
    start_command(f, 12);
    submit(f, &request);
    assert_int_equal(heard(f->command, message, sizeof(message)), 12);
    header(reply, 10, 0);
    assert_int_equal(write(f->command, reply, 10), 10);
    turn(f);
    assert_int_equal(reg(f, 0x4c), 0);
    assert_int_equal(heard(f->command, message, sizeof(message)), 10);
    assert_int_equal(get_be32(message + 6), 0x42);
    start_command(f, 12); /* waits now in its turn */
    header(reply, 10, 0x1234);
    assert_int_equal(write(f->command, reply, 10), 10);
    turn(f);
    assert_int_equal(code, 0x1234);
    assert_int_equal(heard(f->command, message, sizeof(message)), 12);
    submit(f, &request);
    shutdown(f->command, SHUT_RDWR);
    turn(f);
    assert_int_equal(code, UINT32_MAX);
}

/* With an answer that is there already, since the peer of this test is no process of its own. */
static void the_host_waits_for_the_answer(void **state)
{
    struct fixture *f = *state;
    uint8_t command[10], reply[14] = {0};
    struct buf answer = BUF_INIT;
    header(command, 10, 0x42);
    header(reply, sizeof(reply), 0x77);
    assert_int_equal(write(f->control, "\0\0\0\0", 4), 4);
    turn(f);
    assert_int_equal(write(f->command, reply, sizeof(reply)), sizeof(reply));
    board_ok(tpm_crb_execute(f->crb, command, sizeof(command), &answer));
    assert_int_equal(answer.len, sizeof(reply));
    assert_memory_equal(answer.data, reply, sizeof(reply));
    struct err *err = tpm_crb_execute(f->crb, command, 9, &answer);
    assert_non_null(err);
    err_free(err);
    shutdown(f->command, SHUT_RDWR);
    err = tpm_crb_execute(f->crb, command, sizeof(command), &answer);
    assert_non_null(strstr(err_text(err), "out of order"));
    err_free(err);
    buf_fini(&answer);
}

static void its_state_can_be_saved(void **state)
{
    struct fixture *f = *state;
    int control, command;
    struct tpm_crb *fresh;
    power_on(f);
    set(f, 0x08, 1);
    set(f, 0x40, 1);
    set(f, TPM_CRB_BUFFER + 100, 0x12345678);
    io_bus_remove(&f->crb->region);
    fresh = crb_new(&f->board, &control, &command);
    assert_int_equal(write(control, "\0\0\0\0", 4), 4);
    board_round_trip(&f->crb->device, &fresh->device);
    assert_int_equal(reg(f, TPM_CRB_BUFFER + 100), 0x12345678);
    assert_int_equal(reg(f, 0x00), 0x83);
    device_free(&fresh->device);
    close(control);
    close(command);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(is_found_by_a_probe),
        TEST(a_command_goes_there_and_back),
        TEST(a_command_waits_for_the_power),
        TEST(wrong_lengths_stay_here),
        TEST(an_end_of_swtpm_is_an_error),
        TEST(an_end_of_swtpm_is_seen_by_the_next_command),
        TEST(a_power_that_fails_is_an_error),
        TEST(replies_are_measured),
        TEST(a_reply_may_be_too_long_for_the_buffer),
        TEST(a_reset_in_the_middle),
        TEST(a_reset_drops_what_waits),
        TEST(a_command_is_cancelled_once),
        TEST(the_host_asks_too),
        TEST(the_host_waits_for_the_answer),
        TEST(its_state_can_be_saved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
