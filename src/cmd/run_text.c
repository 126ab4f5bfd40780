/*
 * What `tenon run` prints: the resolved VM, the start-up report, the boot timeline.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/block.h"
#include "cmd/run.h"
#include "vm/schema.h"

/* ---- the resolved VM as YAML that the schema reads back ---- */

/* Plain where no reader could take it for anything but this text. */
static bool is_plain(const char *text)
{
    if (!*text || !(isalnum((unsigned char)*text) || *text == '/'))
        return false;
    for (; *text; text++)
        if (!isalnum((unsigned char)*text) && !strchr("/._-+", *text))
            return false;
    return true;
}

static void yaml_text(struct buf *out, const char *text)
{
    if (is_plain(text)) {
        buf_text(out, text);
        return;
    }
    buf_text(out, "\"");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            buf_printf(out, "\\x%02x", c);
        else
            buf_u8(out, c);
    }
    buf_text(out, "\"");
}

static void yaml_scalar(struct buf *out, const json_t *value)
{
    if (json_is_string(value))
        yaml_text(out, json_string_value(value));
    else if (json_is_boolean(value))
        buf_text(out, json_is_true(value) ? "true" : "false");
    else if (json_is_integer(value))
        buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
}

static void yaml_object(struct buf *out, const json_t *object, unsigned indent, bool in_list);

static void yaml_list(struct buf *out, const json_t *list, unsigned indent)
{
    json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        buf_printf(out, "%*s- ", (int)indent, "");
        if (json_is_object(item)) {
            yaml_object(out, item, indent + 2, true);
        } else {
            yaml_scalar(out, item);
            buf_text(out, "\n");
        }
    }
}

/* In a list the first key stands behind the dash. */
static void yaml_object(struct buf *out, const json_t *object, unsigned indent, bool in_list)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)object, key, value)
    {
        buf_printf(out, "%*s%s:", in_list ? 0 : (int)indent, "", key);
        in_list = false;
        if (json_is_array(value)) {
            buf_text(out, json_array_size(value) ? "\n" : " []\n");
            yaml_list(out, value, indent + 2);
        } else if (json_is_object(value)) {
            buf_text(out, "\n");
            yaml_object(out, value, indent + 2, false);
        } else {
            buf_text(out, " ");
            yaml_scalar(out, value);
            buf_text(out, "\n");
        }
    }
}

void run_print_dry(const struct run *run, struct buf *out)
{
    json_t *vm = schema_to_json(&run->launch.config, false);

    if (run->json) {
        char *text = json_dumps(vm, JSON_INDENT(2));

        buf_printf(out, "%s\n", text ? text : "{}");
        free(text);
    } else {
        buf_printf(out, "# engine: %s\n", run->engine_why);
        yaml_object(out, vm, 0, false);
    }
    json_decref(vm);
}

/* ---- the start-up report ---- */

static void size_text(char *text, size_t size, uint64_t bytes)
{
    if (bytes >= GIB(1) && bytes % GIB(1) == 0)
        snprintf(text, size, "%" PRIu64 " GiB", bytes >> 30);
    else if (bytes >= MIB(1))
        snprintf(text, size, "%" PRIu64 " MiB", bytes >> 20);
    else
        snprintf(text, size, "%" PRIu64 " KiB", bytes >> 10);
}

static void print_disk(struct buf *out, const struct vm_disk *disk)
{
    static const char *const cache[] = {"writeback", "no cache", "writethrough", "unsafe"};

    if (disk->media == VM_MEDIA_CDROM) {
        buf_printf(out, "  cdrom %s: %s\n", disk->id, disk->path ? disk->path : "empty");
        return;
    }
    buf_printf(out, "  disk %s: %s%s%s, %s%s\n", disk->id, disk->path,
               disk->format && strcmp(disk->format, "raw") ? ", " : "",
               disk->format && strcmp(disk->format, "raw") ? disk->format : "",
               (size_t)disk->cache < ARRAY_SIZE(cache) ? cache[disk->cache] : "?",
               disk->readonly ? ", read-only" : "");
}

static void print_net(struct buf *out, const struct vm_net *net)
{
    static const char *const kinds[] = {"user NAT", "tap", "no cable"};

    buf_printf(out, "  net %s: %s%s%s, %02x:%02x:%02x:%02x:%02x:%02x", net->id, kinds[net->kind],
               net->ifname ? " " : "", net->ifname ? net->ifname : "", net->mac[0], net->mac[1],
               net->mac[2], net->mac[3], net->mac[4], net->mac[5]);
    for (unsigned i = 0; i < net->forward_count; i++) {
        const struct vm_forward *forward = &net->forward[i];

        buf_printf(out, ", %s %s:%u leads to port %u", forward->udp ? "udp" : "tcp",
                   forward->host_address, forward->host_port, forward->guest_port);
    }
    buf_text(out, "\n");
}

static void print_console(struct buf *out, const struct run *run, unsigned index)
{
    static const char *const devices[VM_CONSOLE_DEVICES] = {
        [VM_CONSOLE_SERIAL] = "serial",
        [VM_CONSOLE_VIRTIO] = "virtio",
        [VM_CONSOLE_DEBUG] = "debug",
        [VM_CONSOLE_FIRMWARE] = "firmware log",
        [VM_CONSOLE_VGA] = "text of the screen",
    };
    const struct vm_console *console = &run->launch.config.console[index];

    buf_printf(out, "  console %s: %s on ", console->id, devices[console->device]);
    switch (console->backend) {
    case VM_BACKEND_STDIO:
        buf_text(out, isatty(STDIN_FILENO)
                          ? "this terminal; Ctrl-] then q ends the VM, p powers it down, ? helps\n"
                          : "standard input and output\n");
        break;
    case VM_BACKEND_PTY:
        buf_printf(out, "%s\n", run->pty_path[index]);
        break;
    case VM_BACKEND_SOCKET:
        buf_printf(out, "socket %s\n", console->path);
        break;
    case VM_BACKEND_FILE:
        buf_printf(out, "file %s\n", console->path);
        break;
    case VM_BACKEND_NULL:
        buf_text(out, "nothing\n");
        break;
    }
}

void run_print_start(const struct run *run)
{
    static const char *const boards[] = {"micro", "q35"};
    const struct vm_config *config = &run->launch.config;
    struct buf out = BUF_INIT;
    char memory[32];

    size_text(memory, sizeof(memory), config->memory);
    buf_printf(&out, "tenon: VM '%s', %u CPU%s, %s, board %s\n  engine: %s\n", config->name,
               config->cpus, config->cpus == 1 ? "" : "s", memory, boards[config->board],
               run->engine_why);
    if (config->kernel)
        buf_printf(&out, "  kernel: %s\n", config->kernel);
    else
        buf_printf(&out, "  firmware: %s%s%s\n", config->firmware,
                   config->firmware_vars ? ", variables in " : "",
                   config->firmware_vars ? config->firmware_vars : "");
    for (unsigned i = 0; i < config->disk_count; i++) {
        if (!i && run->image_path && !run->write_image)
            buf_printf(&out, "  disk %s: %s, changes are dropped at the end (--write keeps them)\n",
                       config->disk[0].id, run->image_path);
        else
            print_disk(&out, &config->disk[i]);
    }
    for (unsigned i = 0; i < config->net_count; i++)
        print_net(&out, &config->net[i]);
    if (config->tpm)
        buf_printf(&out, "  TPM: 2.0, kept in %s\n", config->tpm_state);
    if (config->vga)
        buf_printf(&out, "  screen: VGA adapter, with keyboard and mouse\n");
    if (config->usb)
        buf_printf(&out, "  usb: xHCI controller%s%s\n", config->usb_keyboard ? ", keyboard" : "",
                   config->usb_tablet ? ", tablet" : "");
    for (unsigned i = 0; i < config->console_count; i++)
        print_console(&out, run, i);
    if (run->qmp_path)
        buf_printf(&out, "  control: QMP on %s\n", run->qmp_path);
    if (run->view.where)
        buf_printf(&out, "  screen: VNC on %s\n", run->view.where);
    if (run->gdb_where)
        buf_printf(&out, "  debugger: gdb -ex 'target remote %s'\n", run->gdb_where);
    if (run->launch.paused)
        buf_text(&out, "  paused: QMP `cont` or a debugger starts the guest\n");
    fwrite(out.data, 1, out.len, stderr);
    buf_fini(&out);
}

/* ---- the boot timeline ---- */

void run_print_timeline(const json_t *report, struct buf *out)
{
    struct timeline timeline = {0};
    json_t *row;
    size_t i;

    json_array_foreach(json_object_get(report, "timeline"), i, row)
    {
        const char *stage = json_string_value(json_object_get(row, "stage"));
        json_int_t at_ns = json_integer_value(json_object_get(row, "at_ns"));

        for (int mark = 0; stage && mark < TIMELINE_MARKS; mark++)
            if (!strcmp(stage, timeline_name((enum timeline_mark)mark)))
                timeline_mark_at(&timeline, (enum timeline_mark)mark, (uint64_t)at_ns);
    }
    timeline_print(&timeline, out);
}
