/*
 * GDB stub on a VM that stands at its first instruction: packets as they come over the wire, good
 * and bad. What a real gdb does with it is tests/e2e/test_gdb.py.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "../test.h"
#include "../vm/guest.h"
#include "ctl/gdb/gdb.h"
#include "vm/schema.h"
#include "vm/vm_debug.h"

#define CODE (GUEST_BASE + GUEST_CODE)

struct rig {
    struct vm_config config;
    struct timeline timeline;
    struct loop *loop;
    struct vm *vm;
    struct gdb_server *server;
    struct sockaddr_un name;
    socklen_t name_len;
    int client;
    bool running;
};

static void on_changed(void *opaque, bool running)
{
    ((struct rig *)opaque)->running = running;
}

static void on_ended(void *opaque, const struct vm_result *result)
{
}

static void serve(struct rig *rig)
{
    for (int i = 0; i < 8; i++)
        loop_once(rig->loop, 0);
}

/* A listener without a name in the file system. */
static int listener(struct rig *rig)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    rig->name.sun_family = AF_UNIX;
    rig->name_len = sizeof(sa_family_t);
    assert_int_equal(bind(fd, (struct sockaddr *)&rig->name, rig->name_len), 0);
    rig->name_len = sizeof(rig->name);
    getsockname(fd, (struct sockaddr *)&rig->name, &rig->name_len);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

static int connect_client(struct rig *rig)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&rig->name, rig->name_len), 0);
    serve(rig);
    return fd;
}

static int set_up(void **state)
{
    static const uint8_t code[] = {0x90, 0x90, GUEST_LOOP};
    struct rig *rig = xcalloc(1, sizeof(*rig));

    vm_config_init(&rig->config);
    rig->config.board = VM_BOARD_MICRO;
    rig->config.cpus = 2;
    rig->config.accel = VM_ACCEL_SOFT;
    assert_ok(guest_config(&rig->config, code, sizeof(code)));
    assert_ok(loop_new("test", &rig->loop));
    assert_ok(vm_new(&rig->config, rig->loop, &rig->timeline, &rig->vm));
    vm_start_paused(rig->vm);
    assert_ok(vm_start(rig->vm, on_ended, rig));
    const struct gdb_config config = {.loop = rig->loop,
                                      .vm = rig->vm,
                                      .listen_fd = listener(rig),
                                      .changed = on_changed,
                                      .opaque = rig};
    assert_ok(gdb_server_new(&config, &rig->server));
    rig->client = connect_client(rig);
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;

    if (rig->client >= 0)
        close(rig->client);
    serve(rig);
    gdb_server_free(rig->server);
    vm_free(rig->vm);
    loop_free(rig->loop);
    vm_config_fini(&rig->config);
    free(rig);
    return 0;
}

static void send_raw(struct rig *rig, const char *bytes, size_t len)
{
    assert_int_equal(send(rig->client, bytes, len, MSG_NOSIGNAL), len);
    serve(rig);
}

/* What has come; empty when nothing has, "closed" when the stub hung up. */
static const char *received(struct rig *rig)
{
    static char text[KIB(64)];
    ssize_t n = recv(rig->client, text, sizeof(text) - 1, MSG_DONTWAIT);

    if (n == 0)
        return "closed";
    text[MAX(n, 0)] = 0;
    return text;
}

/* The answer to a packet, without acknowledgement, '$' and checksum. */
static const char *ask(struct rig *rig, const char *packet)
{
    static char answer[KIB(64)];
    char text[512];
    uint8_t sum = 0;

    for (const char *at = packet; *at; at++)
        sum += (uint8_t)*at;
    snprintf(text, sizeof(text), "$%s#%02x", packet, sum);
    send_raw(rig, text, strlen(text));
    const char *got = received(rig);
    assert_int_equal(strncmp(got, "+$", 2), 0);
    snprintf(answer, sizeof(answer), "%s", got + 2);
    char *hash = strrchr(answer, '#');
    assert_non_null(hash);
    *hash = 0;
    return answer;
}

static void test_packets(void **state)
{
    struct rig *rig = *state;

    assert_false(rig->running);
    assert_string_equal(ask(rig, "?"), "T05thread:1;");
    assert_string_equal(ask(rig, "unknown"), "");
    assert_string_equal(ask(rig, "qfThreadInfo"), "m1,2");
    /* A wrong checksum is asked for again, junk between packets is skipped. */
    send_raw(rig, "$?#00", 5);
    assert_string_equal(received(rig), "-");
    send_raw(rig, "++junk\x03", 7);
    assert_string_equal(received(rig), "");
    /* A packet in pieces; two in one. */
    send_raw(rig, "$qC", 3);
    assert_string_equal(received(rig), "");
    send_raw(rig, "#b4$qC#b4", 9);
    assert_string_equal(received(rig), "+$QC1#c5+$QC1#c5");
    assert_string_equal(ask(rig, "QStartNoAckMode"), "OK");
    send_raw(rig, "$qC#b4", 6);
    assert_string_equal(received(rig), "$QC1#c5");
}

static void test_memory_and_breakpoints(void **state)
{
    struct rig *rig = *state;
    char packet[80];
    uint8_t byte;

    snprintf(packet, sizeof(packet), "m%x,4", CODE);
    assert_string_equal(ask(rig, packet), "9090ebfe");
    snprintf(packet, sizeof(packet), "Z0,%x,1", CODE);
    assert_string_equal(ask(rig, packet), "OK");
    assert_true(vm_physical_read(rig->vm, CODE, &byte, 1));
    assert_int_equal(byte, 0xcc);
    /* Hidden from reads, and from writes. */
    snprintf(packet, sizeof(packet), "m%x,2", CODE);
    assert_string_equal(ask(rig, packet), "9090");
    snprintf(packet, sizeof(packet), "M%x,2:f8fc", CODE);
    assert_string_equal(ask(rig, packet), "OK");
    snprintf(packet, sizeof(packet), "m%x,2", CODE);
    assert_string_equal(ask(rig, packet), "f8fc");
    /* Going away leaves the guest as it was, and running. */
    assert_string_equal(ask(rig, "D"), "OK");
    serve(rig);
    assert_true(rig->running);
    assert_true(vm_physical_read(rig->vm, CODE, &byte, 1));
    assert_int_equal(byte, 0xf8);
    assert_string_equal(received(rig), "closed");
    /* The next one is welcome. */
    close(rig->client);
    rig->client = connect_client(rig);
    assert_string_equal(ask(rig, "qC"), "QC1");
    assert_false(rig->running);
}

static void test_points(void **state)
{
    struct rig *rig = *state;

    assert_string_equal(ask(rig, "Z2,200000,20"), "OK"); /* four of eight bytes */
    assert_int_equal(strncmp(ask(rig, "Z1,100000,1"), "E.", 2), 0);
    assert_string_equal(ask(rig, "z2,200000,20"), "OK");
    assert_string_equal(ask(rig, "Z2,20000a,4"), "OK"); /* two of two */
    assert_string_equal(ask(rig, "Z1,100000,1"), "OK");
    assert_string_equal(ask(rig, "Z3,200000,4"), "");
    assert_int_equal(strncmp(ask(rig, "Z2,0,ffffffffffffffff"), "E.", 2), 0);
    assert_int_equal(strncmp(ask(rig, "Z0,40000000,1"), "E.", 2), 0);
}

static void test_registers(void **state)
{
    struct rig *rig = *state;
    char *all = xstrdup(ask(rig, "g")), *packet = xasprintf("G%s", all);
    uint8_t sum = 0;

    assert_string_equal(ask(rig, "p10"), "4000100000000000");
    assert_string_equal(ask(rig, "P0=efbeadde00000000"), "OK");
    assert_string_equal(ask(rig, "p0"), "efbeadde00000000");
    /* All back: as it was before. */
    for (const char *at = packet; *at; at++)
        sum += (uint8_t)*at;
    char *text = xasprintf("$%s#%02x", packet, sum);
    send_raw(rig, text, strlen(text));
    assert_string_equal(received(rig), "+$OK#9a");
    assert_string_equal(ask(rig, "g"), all);
    /* The other CPU has registers of its own. */
    assert_string_equal(ask(rig, "Hg2"), "OK");
    assert_string_not_equal(ask(rig, "g"), all);
    free(text);
    free(packet);
    free(all);
}

static void test_bad_packets(void **state)
{
    static const char *const bad[] = {
        "m",
        "m0",
        "mfffffffffffffff0,10",
        "M100000,4:00",
        "M100000,ffff:00",
        "X100000,",
        "G00",
        "p",
        "p3e8",
        "P0",
        "P0=00",
        "Pffff=00",
        "Hg3",
        "Hgx",
        "T9",
        "vCont;x",
        "vCont;c:9",
        "vCont;s:1junk",
        "Z9",
        "Z0",
        "c100000",
        "qThreadExtraInfo,7",
        "qXfer:features:read:other.xml:0,10",
    };
    struct rig *rig = *state;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        const char *answer = ask(rig, bad[i]);
        if (strncmp(answer, "E.", 2) != 0)
            fail_msg("'%s' was answered with '%s'", bad[i], answer);
    }
    assert_string_equal(ask(rig, "qC"), "QC1");
    assert_false(rig->running);
    /* Only one debugger. */
    int second = connect_client(rig);
    char byte;
    assert_int_equal(recv(second, &byte, 1, MSG_DONTWAIT), 0);
    close(second);
    /* One that never ends its packet is dropped, and the guest goes on. */
    static char flood[KIB(64)] = "$";
    memset(flood + 1, 'a', sizeof(flood) - 1);
    for (size_t sent = 0; sent < sizeof(flood); sent += KIB(4)) {
        if (send(rig->client, flood + sent, KIB(4), MSG_NOSIGNAL) < 0)
            break;
        serve(rig);
    }
    assert_true(rig->running);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_packets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_memory_and_breakpoints, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_points, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_registers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_packets, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
