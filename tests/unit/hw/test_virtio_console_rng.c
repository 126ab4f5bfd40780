/*
 * virtio-console and virtio-rng through a driver: both directions, back pressure, ports and their
 * control messages, the last words of a guest, the rate of entropy, state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <sys/socket.h>

#include "hw/virtio/virtio_console.h"
#include "hw/virtio/virtio_rng.h"
#include "virtio_driver.h"

#define VERSION_1 F(VIRTIO_F_VERSION_1)
#define PACKED F(VIRTIO_F_RING_PACKED)
#define EVENT F(VIRTIO_F_EVENT_IDX)
#define MULTIPORT F(1)
#define PORTS 3

struct bed {
    struct machine machine;
    struct virtio_console *console;
    struct driver driver;
    struct stream *stream[PORTS];
    int peer[PORTS];
    unsigned ports;
    uint64_t memory;
};

static struct virtio_console *console_new(struct bed *bed)
{
    struct virtio_console *console =
        (struct virtio_console *)device_new(&virtio_console_class, &bed->machine.env, "con0");
    console->port_count = bed->ports;
    for (unsigned i = 0; i < bed->ports; i++) {
        console->port[i].stream = bed->stream[i];
        console->port[i].name = i ? "org.example.port" : NULL;
    }
    machine_add(&bed->machine, &console->virtio.pci.device);
    return console;
}

static void bed_open(struct bed *bed, unsigned ports)
{
    memset(bed, 0, sizeof(*bed));
    machine_init(&bed->machine);
    bed->ports = ports;
    for (unsigned i = 0; i < ports; i++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        check_ok(stream_new_fds(bed->machine.env.loop, pair[0], pair[0], &bed->stream[i]));
        bed->peer[i] = pair[1];
    }
    bed->console = console_new(bed);
    driver_find(&bed->driver, &bed->machine, &bed->console->virtio);
    driver_msix_on(&bed->driver);
}

static void bed_close(struct bed *bed)
{
    device_free(&bed->console->virtio.pci.device);
    for (unsigned i = 0; i < bed->ports; i++) {
        stream_free(bed->stream[i]);
        close(bed->peer[i]);
    }
    machine_fini(&bed->machine);
}

static void bed_start(struct bed *bed, uint64_t features)
{
    assert_true(driver_negotiate(&bed->driver, VERSION_1 | features));
    for (unsigned i = 0; i < bed->console->virtio.queue_count; i++)
        driver_queue(&bed->driver, i, 32);
    driver_start(&bed->driver);
    for (unsigned i = 0; i < bed->console->virtio.queue_count; i++)
        ring_arm(&bed->driver, &bed->driver.ring[i]);
    bed->memory = RAM_SIZE / 2;
}

static void send_text(struct bed *bed, unsigned queue, const void *text, uint32_t len)
{
    uint64_t at = bed->memory + 0x10000 * queue;
    memcpy(machine_host(&bed->machine, at), text, len);
    struct buffer buffers[2] = {{at, len / 2}, {at + len / 2, len - len / 2}};
    ring_add(&bed->driver, &bed->driver.ring[queue], buffers, 2, 0, false);
    ring_kick(&bed->driver, &bed->driver.ring[queue]);
}

static bool used(struct bed *bed, unsigned queue, uint32_t *len)
{
    uint16_t id;
    return ring_wait(&bed->driver, &bed->driver.ring[queue], &id, len);
}

static uint8_t *offer(struct bed *bed, unsigned queue, uint32_t len)
{
    uint64_t at = bed->memory + 0x8000 + 0x10000 * queue;
    struct buffer buffer = {at, len};
    ring_add(&bed->driver, &bed->driver.ring[queue], &buffer, 0, 1, false);
    ring_kick(&bed->driver, &bed->driver.ring[queue]);
    return machine_host(&bed->machine, at);
}

static void test_console_both_ways(void **state)
{
    for (unsigned kind = 0; kind < 3; kind++) {
        struct bed bed;
        char text[64];
        uint32_t len;
        bed_open(&bed, 1);
        assert_false(driver_offered(&bed.driver) & MULTIPORT);
        bed_start(&bed, kind == 1 ? PACKED : kind == 2 ? EVENT : 0);
        send_text(&bed, 1, "hello, host", 11);
        assert_true(used(&bed, 1, &len));
        assert_int_equal(len, 0);
        assert_int_equal(read(bed.peer[0], text, sizeof(text)), 11);
        assert_memory_equal(text, "hello, host", 11);
        /* Input before there is a buffer waits for one. */
        assert_int_equal(write(bed.peer[0], "hello, guest", 12), 12);
        driver_turn(&bed.driver, 5);
        uint8_t *at = offer(&bed, 0, 7);
        assert_true(used(&bed, 0, &len));
        assert_int_equal(len, 7);
        assert_memory_equal(at, "hello, ", 7);
        at = offer(&bed, 0, 100);
        assert_true(used(&bed, 0, &len));
        assert_int_equal(len, 5);
        assert_memory_equal(at, "guest", 5);
        /* Without a queue. */
        mmio_write(&bed.machine, bed.driver.device_config + 8, 4, 'X');
        assert_int_equal(read(bed.peer[0], text, sizeof(text)), 1);
        assert_int_equal(text[0], 'X');
        virtio_console_resize(bed.console, 132, 50);
        assert_int_equal(mmio_read(&bed.machine, bed.driver.device_config, 2), 132);
        assert_int_equal(mmio_read(&bed.machine, bed.driver.device_config + 2, 2), 50);
        assert_int_equal(bed.machine.message[1], 1);
        bed_close(&bed);
    }
}

/* The reader sleeps: output waits in the ring, nothing is lost, doubled or reordered. */
static void test_console_back_pressure(void **state)
{
    struct bed bed;
    bed_open(&bed, 1);
    bed_start(&bed, EVENT);
    static uint8_t chunk[0x7000], back[0x10000];
    uint64_t sent = 0, received = 0;
    uint16_t id;
    uint32_t len;
    bool moved = false;
    for (unsigned round = 0; round < 200; round++) {
        for (size_t i = 0; i < sizeof(chunk); i++)
            chunk[i] = (uint8_t)((sent + i) * 5 >> 2);
        send_text(&bed, 1, chunk, sizeof(chunk));
        sent += sizeof(chunk);
        bool done = false;
        for (int i = 0; i < 4 && !done; i++) {
            driver_turn(&bed.driver, 1);
            done = ring_used(&bed.driver, &bed.driver.ring[1], &id, &len);
        }
        if (!done && !moved) {
            /* Stuck in the middle of a request: that is the moment to save the device. */
            struct virtio_console *fresh;
            moved = true;
            stream_attach(bed.stream[0], NULL, NULL);
            fresh = console_new(&bed);
            assert_true(bed.console->port[0].tx_offset > 0);
            round_trip(&bed.console->virtio.pci.device, &fresh->virtio.pci.device);
            bed.console->virtio.pci.device.realized = false; /* its stream is the other's now */
            device_free(&bed.console->virtio.pci.device);
            bed.console = fresh;
            device_resume(&fresh->virtio.pci.device);
        }
        for (int i = 0; i < 5000 && !done; i++) {
            ssize_t got = recv(bed.peer[0], back, sizeof(back), MSG_DONTWAIT);
            for (ssize_t k = 0; k < got; k++)
                assert_int_equal(back[k], (uint8_t)((received + (uint64_t)k) * 5 >> 2));
            received += got > 0 ? (uint64_t)got : 0;
            driver_turn(&bed.driver, 1);
            done = ring_used(&bed.driver, &bed.driver.ring[1], &id, &len);
        }
        assert_true(done);
    }
    assert_true(moved);
    for (int i = 0; i < 5000 && received < sent; i++) {
        ssize_t got = recv(bed.peer[0], back, sizeof(back), MSG_DONTWAIT);
        for (ssize_t k = 0; k < got; k++)
            assert_int_equal(back[k], (uint8_t)((received + (uint64_t)k) * 5 >> 2));
        received += got > 0 ? (uint64_t)got : 0;
        driver_turn(&bed.driver, 1);
    }
    assert_int_equal(received, sent);
    bed_close(&bed);
}

/* A control message from the device; the text behind it is compared when there is one. */
static void expect_message(struct bed *bed, unsigned port, unsigned event, unsigned value,
                           const char *text)
{
    uint32_t len;
    uint8_t *at = offer(bed, 2, 200);
    assert_true(used(bed, 2, &len));
    assert_int_equal(get_le32(at), port);
    assert_int_equal(get_le16(at + 4), event);
    assert_int_equal(get_le16(at + 6), value);
    assert_int_equal(len, 8 + (text ? strlen(text) : 0));
    if (text)
        assert_memory_equal(at + 8, text, strlen(text));
}

static void say(struct bed *bed, uint32_t port, uint16_t event, uint16_t value)
{
    uint8_t message[8];
    uint32_t len;
    put_le32(message, port);
    put_le16(message + 4, event);
    put_le16(message + 6, value);
    send_text(bed, 3, message, 8);
    assert_true(used(bed, 3, &len));
}

static void test_ports(void **state)
{
    struct bed bed;
    char text[64];
    uint32_t len;
    bed_open(&bed, PORTS);
    assert_true(driver_offered(&bed.driver) & MULTIPORT);
    assert_int_equal(mmio_read(&bed.machine, bed.driver.device_config + 4, 4), PORTS);
    bed_start(&bed, MULTIPORT | EVENT);
    driver_turn(&bed.driver, 5);
    say(&bed, 0, 0, 1); /* DEVICE_READY */
    for (unsigned i = 0; i < PORTS; i++)
        expect_message(&bed, i, 1, 1, NULL); /* DEVICE_ADD */
    say(&bed, 0, 3, 1);                      /* PORT_READY */
    expect_message(&bed, 0, 4, 1, NULL);     /* CONSOLE_PORT */
    expect_message(&bed, 0, 6, 1, NULL);     /* PORT_OPEN: somebody is there */
    say(&bed, 2, 3, 1);
    expect_message(&bed, 2, 7, 1, "org.example.port");
    expect_message(&bed, 2, 6, 1, NULL);
    /* Nonsense changes nothing. */
    say(&bed, 99, 3, 1);
    say(&bed, 0xffffffff, 6, 1);
    say(&bed, 1, 77, 1);

    /* Port 2 has queues 6 and 7. Its input waits until a program opened it. */
    assert_int_equal(write(bed.peer[2], "abc", 3), 3);
    uint8_t *at = offer(&bed, 6, 100);
    driver_turn(&bed.driver, 5);
    uint16_t id;
    assert_false(ring_used(&bed.driver, &bed.driver.ring[6], &id, &len));
    say(&bed, 2, 6, 1);
    assert_true(used(&bed, 6, &len));
    assert_int_equal(len, 3);
    assert_memory_equal(at, "abc", 3);
    send_text(&bed, 7, "from port two", 13);
    assert_true(used(&bed, 7, &len));
    assert_int_equal(read(bed.peer[2], text, sizeof(text)), 13);
    /* The host side goes away. */
    shutdown(bed.peer[2], SHUT_RDWR);
    expect_message(&bed, 2, 6, 0, NULL);
    driver_reset(&bed.driver);
    assert_false(bed.console->port[2].guest_open);
    bed_close(&bed);
}

/* A first port with a name is found by it, and is no console. */
static void test_named_port(void **state)
{
    struct bed bed;
    bed_open(&bed, 1);
    device_free(&bed.console->virtio.pci.device);
    bed.console =
        (struct virtio_console *)device_new(&virtio_console_class, &bed.machine.env, "port");
    bed.console->port_count = 1;
    bed.console->port[0].stream = bed.stream[0];
    bed.console->port[0].name = "org.example.only";
    machine_add(&bed.machine, &bed.console->virtio.pci.device);
    driver_find(&bed.driver, &bed.machine, &bed.console->virtio);
    driver_msix_on(&bed.driver);
    assert_true(driver_offered(&bed.driver) & MULTIPORT);
    bed_start(&bed, MULTIPORT);
    driver_turn(&bed.driver, 5);
    say(&bed, 0, 0, 1);
    expect_message(&bed, 0, 1, 1, NULL);
    say(&bed, 0, 3, 1);
    expect_message(&bed, 0, 7, 1, "org.example.only");
    expect_message(&bed, 0, 6, 1, NULL);
    assert_false(virtio_console_port_open(bed.console, 0));
    say(&bed, 0, 6, 1);
    assert_true(virtio_console_port_open(bed.console, 0));
    bed_close(&bed);
}

struct rng_bed {
    struct machine machine;
    struct virtio_rng *rng;
    struct driver driver;
};

static void rng_open(struct rng_bed *bed, uint64_t rate, uint64_t features)
{
    machine_init(&bed->machine);
    bed->rng = (struct virtio_rng *)device_new(&virtio_rng_class, &bed->machine.env, "rng");
    bed->rng->bytes_per_second = rate;
    machine_add(&bed->machine, &bed->rng->virtio.pci.device);
    driver_find(&bed->driver, &bed->machine, &bed->rng->virtio);
    driver_msix_on(&bed->driver);
    assert_true(driver_negotiate(&bed->driver, VERSION_1 | features));
    ring_arm(&bed->driver, driver_queue(&bed->driver, 0, 16));
    driver_start(&bed->driver);
}

static void rng_close(struct rng_bed *bed)
{
    device_free(&bed->rng->virtio.pci.device);
    machine_fini(&bed->machine);
}

static void test_rng(void **state)
{
    for (unsigned kind = 0; kind < 3; kind++) {
        struct rng_bed bed;
        rng_open(&bed, MIB(64), kind == 1 ? PACKED : kind == 2 ? EVENT : 0);
        struct ring *ring = &bed.driver.ring[0];
        unsigned histogram[256] = {0}, total = 0;
        for (unsigned i = 0; i < 64; i++) {
            struct buffer buffers[2] = {{0x10000, 100}, {0x20000, 3000 + i * 100}};
            uint16_t id;
            uint32_t len;
            ring_add(&bed.driver, ring, buffers, 0, 2, false);
            ring_kick(&bed.driver, ring);
            assert_true(ring_wait(&bed.driver, ring, &id, &len));
            assert_true(len > 0 && len <= 3100 + i * 100);
            for (unsigned k = 0; k < MIN(len, 100u); k++, total++)
                histogram[*machine_host(&bed.machine, 0x10000 + k)]++;
        }
        for (unsigned i = 0; i < 256 && total > 6000; i++)
            assert_true(histogram[i] < 100);
        rng_close(&bed);
    }
}

/* More than the rate: the rest waits for its time, and no doorbell is needed for it. */
static void test_rng_rate(void **state)
{
    struct rng_bed bed;
    rng_open(&bed, 40960, 0);
    struct ring *ring = &bed.driver.ring[0];
    uint64_t start = clock_now_ns(), bytes = 0;
    for (unsigned i = 0; i < 5; i++) {
        struct buffer buffer = {0x10000, 4096};
        ring_add(&bed.driver, ring, &buffer, 0, 1, false);
    }
    ring_kick(&bed.driver, ring);
    for (unsigned i = 0; i < 5; i++) {
        uint16_t id;
        uint32_t len;
        assert_true(ring_wait(&bed.driver, ring, &id, &len));
        bytes += len;
    }
    uint64_t took = clock_now_ns() - start;
    /* The bucket's first 4 KiB are free. */
    assert_true(took > (bytes - 4096) * NSEC_PER_SEC / 40960 * 8 / 10);
    /* The ring is empty, the bucket too: the doorbell works again all the same. */
    struct buffer buffer = {0x10000, 64};
    uint16_t id;
    uint32_t len;
    driver_turn(&bed.driver, 300);
    ring_add(&bed.driver, ring, &buffer, 0, 1, false);
    ring_kick(&bed.driver, ring);
    assert_true(ring_wait(&bed.driver, ring, &id, &len));
    struct virtio_rng *fresh =
        (struct virtio_rng *)device_new(&virtio_rng_class, &bed.machine.env, "rng");
    machine_add(&bed.machine, &fresh->virtio.pci.device);
    round_trip(&bed.rng->virtio.pci.device, &fresh->virtio.pci.device);
    device_free(&bed.rng->virtio.pci.device);
    bed.rng = fresh;
    device_resume(&fresh->virtio.pci.device);
    ring_add(&bed.driver, ring, &buffer, 0, 1, false);
    ring_kick(&bed.driver, ring);
    assert_true(ring_wait(&bed.driver, ring, &id, &len));
    rng_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_console_both_ways),
        cmocka_unit_test(test_console_back_pressure),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_named_port),
        cmocka_unit_test(test_rng),
        cmocka_unit_test(test_rng_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
