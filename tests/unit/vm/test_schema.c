/*
 * The VM schema: files, flags, JSON, completion, and the sentence of each error.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "../test.h"
#include "vm/schema.h"

static struct err *parse(struct vm_config *config, const char *text)
{
    vm_config_init(config);
    return schema_parse_yaml(text, strlen(text), "vms/demo.yaml", config);
}

static void parse_refused(const char *text, const char *error)
{
    struct vm_config config;

    assert_usage_err(parse(&config, text), error);
    vm_config_fini(&config);
}

static void finish_refused(const char *text, const char *error)
{
    struct vm_config config;

    assert_ok(parse(&config, text));
    assert_usage_err(schema_finish(&config), error);
    vm_config_fini(&config);
}

static const char full[] =
    "name: demo\n"
    "cpus: 2\n"
    "memory: 1536M\n"
    "accel: soft\n"
    "cpu-model: x86-64-v2,+aes\n"
    "board: q35\n"
    "kernel: vmlinuz\n"
    "initrd: /boot/initrd\n"
    "append: \"console=ttyS0 root=/dev/vda\"\n"
    "on-reset: exit\n"
    "debug-exit: yes\n"
    "rng: false\n"
    "disks:\n"
    "  - {id: root, path: root.img, readonly: true, cache: none, discard: off, queues: 3, serial: "
    "S1}\n"
    "  - data.img\n"
    "nets:\n"
    "  - kind: user\n"
    "    forwards:\n"
    "      - tcp:127.0.0.1:2222-22\n"
    "      - {proto: udp, host-address: 0.0.0.0, host-port: 5353, guest-port: 53}\n"
    "      - 8080-80\n"
    "  - {id: lan, kind: tap, ifname: tap0, mac: 52:54:00:00:00:01, queues: 4}\n"
    "consoles:\n"
    "  - serial,backend=stdio\n"
    "  - {device: virtio, backend: socket, path: run/console.sock}\n";

static void test_file(void **state)
{
    struct vm_config config;

    assert_ok(parse(&config, full));
    assert_ok(schema_finish(&config));
    assert_string_equal(config.name, "demo");
    assert_int_equal(config.cpus, 2);
    assert_int_equal(config.memory, MIB(1536));
    assert_int_equal(config.accel, VM_ACCEL_SOFT);
    assert_string_equal(config.cpu_model, "x86-64-v2,+aes");
    assert_int_equal(config.board, VM_BOARD_Q35);
    assert_string_equal(config.kernel, "vms/vmlinuz");
    assert_string_equal(config.initrd, "/boot/initrd");
    assert_string_equal(config.append, "console=ttyS0 root=/dev/vda");
    assert_int_equal(config.on_reset, VM_RESET_EXIT);
    assert_true(config.debug_exit);
    assert_false(config.rng);

    assert_int_equal(config.disk_count, 2);
    assert_string_equal(config.disk[0].id, "root");
    assert_string_equal(config.disk[0].path, "vms/root.img");
    assert_true(config.disk[0].readonly);
    assert_int_equal(config.disk[0].cache, 1);
    assert_false(config.disk[0].discard);
    assert_int_equal(config.disk[0].queues, 3);
    assert_string_equal(config.disk[0].serial, "S1");
    assert_int_equal(config.disk[0].fd, -1);
    assert_string_equal(config.disk[1].id, "d1");
    assert_string_equal(config.disk[1].path, "vms/data.img");
    assert_true(config.disk[1].discard);
    assert_int_equal(config.disk[1].queues, 2);
    assert_string_equal(config.disk[1].serial, "d1");

    assert_int_equal(config.net_count, 2);
    const struct vm_net *user = &config.net[0];
    assert_string_equal(user->id, "n0");
    assert_int_equal(user->mac[0], 0x52);
    assert_int_equal(user->forward_count, 3);
    assert_int_equal(user->forward[0].host_port, 2222);
    assert_int_equal(user->forward[0].guest_port, 22);
    assert_true(user->forward[1].udp);
    assert_string_equal(user->forward[1].host_address, "0.0.0.0");
    assert_int_equal(user->forward[2].guest_port, 80);
    assert_string_equal(user->forward[2].host_address, "127.0.0.1");
    assert_int_equal(config.net[1].queues, 4);
    assert_int_equal(config.net[1].mac[5], 1);
    assert_int_equal(config.net[1].fd[VM_QUEUES_MAX - 1], -1);

    assert_int_equal(config.console_count, 2);
    assert_int_equal(config.console[1].device, VM_CONSOLE_VIRTIO);
    assert_string_equal(config.console[1].path, "vms/run/console.sock");
    vm_config_fini(&config);
}

static void test_defaults(void **state)
{
    struct vm_config config;

    assert_ok(parse(&config, "kernel: /k\ndisks:\nnets: []\n"));
    assert_ok(schema_finish(&config));
    assert_string_equal(config.name, "vm");
    assert_int_equal(config.cpus, 1);
    assert_int_equal(config.memory, MIB(512));
    assert_int_equal(config.accel, VM_ACCEL_AUTO);
    assert_int_equal(config.board, VM_BOARD_MICRO);
    assert_string_equal(config.cpu_model, "host");
    assert_int_equal(config.on_reset, VM_RESET_REBOOT);
    assert_true(config.rng);
    assert_int_equal(config.console_count, 1);
    assert_int_equal(config.console[0].device, VM_CONSOLE_SERIAL);
    assert_int_equal(config.console[0].backend, VM_BACKEND_STDIO);
    assert_string_equal(config.append, "console=ttyS0");
    assert_int_equal(config.kernel_fd, -1);
    assert_int_equal(config.control_fd, -1);
    vm_config_fini(&config);

    assert_ok(parse(&config, "{kernel: k, append: \"\", consoles: [virtio]}"));
    assert_ok(schema_finish(&config));
    assert_string_equal(config.append, "");
    vm_config_fini(&config);
    assert_ok(parse(&config, "{kernel: k, consoles: [\"debug,backend=null\", virtio]}"));
    assert_ok(schema_finish(&config));
    assert_string_equal(config.append, "console=hvc0");
    vm_config_fini(&config);
}

static void test_mac_is_stable(void **state)
{
    struct vm_config a, b;

    assert_ok(parse(&a, "{name: a, kernel: k, nets: [user, user]}"));
    assert_ok(parse(&b, "{name: b, kernel: k, nets: [user]}"));
    assert_ok(schema_finish(&a));
    assert_ok(schema_finish(&b));
    assert_memory_not_equal(a.net[0].mac, a.net[1].mac, 6);
    assert_memory_not_equal(a.net[0].mac, b.net[0].mac, 6);
    vm_config_fini(&b);
    assert_ok(parse(&b, "{name: a, kernel: k, nets: [user, user]}"));
    assert_ok(schema_finish(&b));
    assert_memory_equal(a.net[1].mac, b.net[1].mac, 6);
    vm_config_fini(&a);
    vm_config_fini(&b);
}

static void test_flags(void **state)
{
    struct vm_config config;

    assert_ok(parse(&config, full));
    assert_ok(schema_apply_flag(&config, "cpus", "4"));
    assert_ok(schema_apply_flag(&config, "memory", "2GiB"));
    assert_ok(schema_apply_flag(&config, "cpu", "host,-avx2"));
    assert_ok(schema_apply_flag(&config, "kernel", "other"));
    assert_ok(schema_apply_flag(&config, "rng", NULL));
    assert_ok(schema_apply_flag(&config, "no-debug-exit", NULL));
    assert_ok(schema_apply_flag(&config, "disk", "id=root,readonly=no"));
    assert_ok(schema_apply_flag(&config, "disk", "a,,b=c.img,serial=XYZ,readonly"));
    assert_ok(schema_apply_flag(&config, "forward", "udp:69-69"));
    assert_ok(schema_apply_flag(&config, "console", "virtio,backend=null"));
    assert_ok(schema_finish(&config));
    assert_int_equal(config.cpus, 4);
    assert_int_equal(config.memory, GIB(2));
    assert_string_equal(config.cpu_model, "host,-avx2");
    assert_string_equal(config.kernel, "other");
    assert_true(config.rng);
    assert_false(config.debug_exit);
    assert_int_equal(config.disk_count, 3);
    assert_false(config.disk[0].readonly);
    assert_string_equal(config.disk[0].path, "vms/root.img");
    assert_string_equal(config.disk[2].path, "a,b=c.img");
    assert_string_equal(config.disk[2].serial, "XYZ");
    assert_true(config.disk[2].readonly);
    assert_int_equal(config.net[0].forward_count, 4);
    assert_int_equal(config.console_count, 3);
    vm_config_fini(&config);

    vm_config_init(&config);
    assert_ok(schema_apply_flag(&config, "forward", "8022-22"));
    assert_int_equal(config.net_count, 1);
    assert_int_equal(config.net[0].kind, VM_NET_USER);
    vm_config_fini(&config);

    assert_int_equal(schema_flag_use("memory"), SCHEMA_FLAG_VALUE);
    assert_int_equal(schema_flag_use("rng"), SCHEMA_FLAG_SWITCH);
    assert_int_equal(schema_flag_use("no-rng"), SCHEMA_FLAG_SWITCH);
    assert_int_equal(schema_flag_use("no-memory"), SCHEMA_FLAG_UNKNOWN);
    assert_int_equal(schema_flag_use("kernel-fd"), SCHEMA_FLAG_UNKNOWN);
}

static void flag_refused(const char *flag, const char *value, const char *error)
{
    struct vm_config config;

    vm_config_init(&config);
    assert_usage_err(schema_apply_flag(&config, flag, value), error);
    assert_int_equal(config.disk_count, 0);
    vm_config_fini(&config);
}

static void test_flag_errors(void **state)
{
    flag_refused("memroy", "1G", "unknown option --memroy: did you mean --memory?");
    flag_refused("zzz", NULL, "unknown option --zzz");
    flag_refused("memory", NULL, "--memory needs a value: --memory SIZE");
    flag_refused("memory", "lots", "--memory: expected a size such as 512M or 2G, found 'lots'");
    flag_refused("memory", "512", "--memory: 512 is out of range: give 16M to 4T, with its unit");
    flag_refused("memory", "5T", "--memory: 5T is out of range: give 16M to 4T");
    flag_refused("memory", "99999999999999T",
                 "--memory: expected a size such as 512M or 2G, found '99999999999999T'");
    flag_refused("memory", "16777217", "--memory: 16777217 is not a multiple of 4K: round it");
    flag_refused("cpus", "0", "--cpus: 0 is out of range: give 1 to 255");
    flag_refused("cpus", "256", "--cpus: 256 is out of range: give 1 to 255");
    flag_refused("cpus", "-1", "--cpus: expected a whole number, found '-1'");
    flag_refused("cpus", "", "--cpus: expected a whole number, found nothing");
    flag_refused("accel", "xen", "--accel: expected auto, kvm or soft, found 'xen'");
    flag_refused("name", "a b",
                 "--name: expected 1 to 64 letters, digits, '.', '_' or '-', found "
                 "'a b'");
    flag_refused("no-rng", "on", "--no-rng takes no value");
    flag_refused("disk", "x.img,queue=2", "--disk: unknown key 'queue': did you mean 'queues'?");
    flag_refused("disk", "x.img,serial", "--disk: serial needs a value: serial=TEXT");
    flag_refused("disk", "x.img,cache=fast",
                 "--disk: cache: expected writeback, none, "
                 "writethrough or unsafe, found 'fast'");
    flag_refused("disk", "", "--disk: path: expected a path, found nothing");
    flag_refused("disk", "x,fd=3", "--disk: unknown key 'fd': did you mean 'id'?");
    flag_refused("net", "usr", "--net: kind: expected user, tap or none, found 'usr'");
    flag_refused("net", "user,mac=52:54:00:1",
                 "--net: mac: expected a MAC address such as "
                 "52:54:00:12:34:56, found '52:54:00:1'");
    flag_refused("net", "user,mac=01:00:5e:00:00:01",
                 "--net: mac: 01:00:5e:00:00:01 is a group address: make its first byte even");
    flag_refused("forward", "2222",
                 "--forward: expected [PROTO:][ADDRESS:]PORT-GUESTPORT such as "
                 "tcp:127.0.0.1:2222-22, found '2222'");
    flag_refused("forward", "sctp:1-2", "--forward: proto: expected tcp or udp, found 'sctp'");
    flag_refused("forward", "tcp:1.2.3:1-2",
                 "--forward: host-address: expected an IPv4 address, found '1.2.3'");
    flag_refused("forward", "70000-22",
                 "--forward: host-port: 70000 is out of range: give 1 to "
                 "65535");
    flag_refused("append", "\xff", "--append: the text is not UTF-8");
}

static void test_file_errors(void **state)
{
    parse_refused("memroy: 1G", "vms/demo.yaml:1:1: unknown key 'memroy': did you mean 'memory'?");
    parse_refused(
        "a: 1\nzzzzz: 1",
        "vms/demo.yaml:1:1: unknown key 'a': a VM has name, cpus, "
        "memory, accel, accel-debug, cpu-model, board, firmware, firmware-vars, boot, "
        "boot-once, vga, usb, usb-keyboard, usb-tablet, tpm, tpm-state, "
        "kernel, initrd, append, on-reset, debug-exit, rng, agent, disks, nets, consoles");
    parse_refused("cpus: 1\ncpus: 2", "vms/demo.yaml:2:1: key 'cpus' appears twice (first in line "
                                      "1): remove one");
    parse_refused("cpus: two", "vms/demo.yaml:1:7: cpus: expected a whole number, found 'two'");
    parse_refused("cpus: [1]", "vms/demo.yaml:1:7: cpus: expected a single value, found a list");
    parse_refused("cpus:", "vms/demo.yaml:1:6: cpus: expected a value, found nothing: add one or "
                           "remove the key");
    parse_refused("rng: maybe", "vms/demo.yaml:1:6: rng: expected true or false, found 'maybe'");
    parse_refused("disks: x", "vms/demo.yaml:1:8: disks: expected a list of disks ('- ...'), found "
                              "a single value");
    parse_refused("disks:\n  - path: a\n    queues: 99",
                  "vms/demo.yaml:3:13: disks[0].queues: 99 is out of range: give 1 to 16");
    parse_refused("disks:\n  - [a]", "vms/demo.yaml:2:5: disks[0]: expected the keys of a disk "
                                     "('key: value'), found a list");
    parse_refused("disks:\n  - a,cach=none", "vms/demo.yaml:2:5: disks[0]: unknown key 'cach': did "
                                             "you mean 'cache'?");
    parse_refused("nets:\n  - kind: user\n    forwards:\n      - tcp:x-1",
                  "vms/demo.yaml:4:9: nets[0].forwards[0]: host-port: expected a whole number, "
                  "found 'x'");
    parse_refused("initrd-f: 3", "vms/demo.yaml:1:1: unknown key 'initrd-f': did you mean "
                                 "'initrd'?");
    parse_refused("disks: [{fd: 3}]",
                  "vms/demo.yaml:1:10: disks[0]: unknown key 'fd': did you mean "
                  "'id'?");
    parse_refused("- a", "vms/demo.yaml:1:1: expected the keys of a VM ('key: value'), found a "
                         "list");
    parse_refused("nets: [user,user,user,user,user,user,user,user,user]",
                  "vms/demo.yaml:1:48: nets[8]: more than 8 nets: remove one");
}

static void test_finish_errors(void **state)
{
    finish_refused("name: x", "there is nothing to start: give --kernel PATH or --disk PATH, or "
                              "kernel: or disks: in the VM file");
    finish_refused("{kernel: k, firmware: bios}", "a kernel is started without firmware: remove "
                                                  "--kernel or --firmware");
    finish_refused("{disks: [d], append: x}", "--append is for a kernel, and there is none: give "
                                              "--kernel PATH, or remove it");
    finish_refused("{kernel: k, firmware-vars: v}", "--firmware-vars is for UEFI firmware: give "
                                                    "--firmware uefi, or remove it");
    finish_refused("{disks: [d], board: micro}", "firmware needs board q35: remove --board micro");
    finish_refused("{kernel: k, vga: true, board: micro}", "a VGA adapter needs board q35: remove "
                                                           "--board micro");
    finish_refused("{disks: [d], consoles: [\"vga,backend=null\", vga]}",
                   "2 consoles show the VGA screen: there is one, remove the others");
    finish_refused("{disks: [d], consoles: [\"firmware,backend=null\", \"firmware,backend=null\"]}",
                   "2 firmware consoles: a board has one, remove the others");
    finish_refused("{kernel: k, disks: [{readonly: true}]}", "disk 'd0' has no path: add one "
                                                             "(path: FILE)");
    finish_refused("{kernel: k, disks: [\"a,id=x\", \"b,id=x\"]}", "two disks have the id 'x': "
                                                                   "rename one");
    finish_refused("{kernel: k, disks: [\"a,serial=123456789012345678901\"]}",
                   "disk 'd0': the "
                   "serial '123456789012345678901' is longer than 20 characters: shorten it");
    finish_refused("{kernel: k, nets: [tap]}", "net 'n0' is a tap without a name: add ifname");
    finish_refused("{kernel: k, nets: [\"user,ifname=t\"]}", "net 'n0': ifname needs kind tap: "
                                                             "remove it or change the kind");
    finish_refused("{kernel: k, nets: [\"user,queues=2\"]}", "net 'n0': 2 queues need kind tap: "
                                                             "give 1");
    finish_refused("{kernel: k, nets: [{kind: none, forwards: [1-1]}]}",
                   "net 'n0': forwards need "
                   "kind user: remove them or change the kind");
    finish_refused("{kernel: k, nets: [{forwards: [{host-port: 1}]}]}",
                   "net 'n0': forward 0 needs "
                   "host-port and guest-port: add them");
    finish_refused("{kernel: k, nets: [{forwards: [1-1, 1-2]}]}", "net 'n0': tcp port 127.0.0.1:1 "
                                                                  "is forwarded twice: remove one");
    finish_refused("{kernel: k, nets: [\"user,mac=52:54:00:00:00:01\", "
                   "\"user,mac=52:54:00:00:00:01\"]}",
                   "nets 'n0' and 'n1' have the same mac: "
                   "change one");
    finish_refused("{kernel: k, consoles: [serial, virtio]}",
                   "2 consoles use stdio: there is one "
                   "terminal, give the others another backend");
    finish_refused("{kernel: k, consoles: [\"serial,backend=file\"]}", "console 'c0' is a file "
                                                                       "without a path: add one");
    finish_refused("{kernel: k, consoles: [\"serial,path=x\"]}",
                   "console 'c0': a path needs "
                   "backend socket or file: remove it or change the backend");
    finish_refused("{kernel: k, consoles: [\"serial,backend=null\", \"serial,backend=null\", "
                   "\"serial,backend=null\"]}",
                   "3 serial consoles: a board has 2, make the others "
                   "virtio");
    finish_refused("{kernel: k, disks: [a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a], nets: "
                   "[user,user,user,user]}",
                   "29 disks, nets, virtio consoles and rng together: "
                   "the board has room for 28, remove some");
}

/* Text of the JSON, owned by the caller. */
static char *json_text(const struct vm_config *config, bool with_fds)
{
    json_t *json = schema_to_json(config, with_fds);
    char *text = json_dumps(json, JSON_INDENT(1));

    assert_non_null(text);
    json_decref(json);
    return text;
}

static void test_json_round_trip(void **state)
{
    struct vm_config config, copy;

    assert_ok(parse(&config, full));
    assert_ok(schema_finish(&config));
    /* Numbers only: nothing is opened, so they are taken back before the end. */
    config.kernel_fd = 1001;
    config.disk[1].fd = 1002;
    config.net[1].fd[0] = 1003;
    config.net[1].fd[1] = 1004;
    config.console[0].in_fd = 1005;
    config.console[0].out_fd = 1006;

    json_t *json = schema_to_json(&config, true);
    vm_config_init(&copy);
    assert_ok(schema_from_json(json, &copy));
    json_decref(json);
    assert_int_equal(copy.kernel_fd, 1001);
    assert_int_equal(copy.initrd_fd, -1);
    assert_int_equal(copy.disk[1].fd, 1002);
    assert_int_equal(copy.net[1].fd[1], 1004);
    assert_int_equal(copy.net[1].fd[2], -1);
    assert_int_equal(copy.console[0].out_fd, 1006);
    char *a = json_text(&config, true), *b = json_text(&copy, true);
    assert_string_equal(a, b);
    free(a);
    free(b);

    /* Without descriptors none is told, and none is taken from a file. */
    a = json_text(&config, false);
    assert_null(strstr(a, "fd"));
    assert_non_null(strstr(a, "\"memory\": 1610612736"));
    free(a);
    schema_finish(&copy);
    config.kernel_fd = copy.kernel_fd = -1;
    config.disk[1].fd = copy.disk[1].fd = -1;
    config.net[1].fd[0] = config.net[1].fd[1] = copy.net[1].fd[0] = copy.net[1].fd[1] = -1;
    config.console[0].in_fd = config.console[0].out_fd = -1;
    copy.console[0].in_fd = copy.console[0].out_fd = -1;
    vm_config_fini(&config);
    vm_config_fini(&copy);
}

static void json_refused(const char *text, const char *error)
{
    struct vm_config config;
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);

    vm_config_init(&config);
    assert_usage_err(schema_from_json(json, &config), error);
    json_decref(json);
    vm_config_fini(&config);
}

static void test_json_errors(void **state)
{
    json_refused("{\"cpus\": \"x\"}", "VM description: cpus: expected a whole number, found 'x'");
    json_refused("{\"disks\": [{\"fd\": -2}]}",
                 "VM description: disks[0].fd: expected a descriptor number, found '-2'");
    json_refused("{\"nets\": [{\"fds\": [[]]}]}",
                 "VM description: nets[0].fds: expected a descriptor number");
    json_refused("7", "VM description: expected the keys of a VM ('key: value'), found a single "
                      "value");
    json_refused("[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]",
                 "VM description: JSON is nested deeper than 16 levels");
}

static void test_help(void **state)
{
    struct buf help = BUF_INIT;
    size_t column = 0;

    schema_help(&help);
    for (size_t i = 0; i < help.len; i++) {
        column = help.data[i] == '\n' ? 0 : column + 1;
        assert_in_range(column, 0, 79);
    }
    buf_u8(&help, 0);
    const char *text = (const char *)help.data;
    assert_non_null(strstr(text, "  --memory SIZE\n      Guest memory, with a unit: 512M, 2G. "
                                 "Default: 512M.\n"));
    assert_non_null(strstr(text, "  --rng, --no-rng\n"));
    assert_non_null(strstr(text, "  --forward "));
    assert_null(strstr(text, "-fd"));
    buf_fini(&help);

    schema_help_file(&help);
    schema_man_flags(&help);
    schema_man_file(&help);
    buf_u8(&help, 0);
    text = (const char *)help.data;
    assert_non_null(strstr(text, "    host-port: PORT\n"));
    assert_non_null(strstr(text, ".TP\n\\fB\\-\\-accel\\fR \\fIauto|kvm|soft\\fR\n"));
    assert_null(strstr(text, "\n'"));
    buf_fini(&help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),          cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_mac_is_stable), cmocka_unit_test(test_flags),
        cmocka_unit_test(test_flag_errors),   cmocka_unit_test(test_file_errors),
        cmocka_unit_test(test_finish_errors), cmocka_unit_test(test_json_round_trip),
        cmocka_unit_test(test_json_errors),   cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
