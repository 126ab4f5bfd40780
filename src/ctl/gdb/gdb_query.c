/*
 * GDB stub: q and Q packets (GDB manual, E.4), monitor commands.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/gdb/gdb_internal.h"

/* Behind `prefix`, or NULL. */
static const char *after(const char *text, const char *prefix)
{
    size_t len = strlen(prefix);

    return strncmp(text, prefix, len) ? NULL : text + len;
}

/* "qXfer:features:read:target.xml:OFFSET,LENGTH" */
static struct err *read_description(struct gdb_server *gdb, const char *text)
{
    struct buf xml = BUF_INIT;
    uint64_t offset, len;
    const char *range = after(text, "target.xml:");

    if (!range || !gdb_parse_number(&range, &offset) || *range++ != ',' ||
        !gdb_parse_number(&range, &len))
        return err_new("there is only target.xml to read");
    gdb_describe(&xml);
    offset = MIN(offset, (uint64_t)xml.len);
    len = MIN(MIN(len, xml.len - offset), (uint64_t)GDB_PACKET_MAX / 2);
    gdb_answer(gdb, offset + len < xml.len ? "m" : "l");
    buf_append(&gdb->answer, xml.data + offset, len);
    buf_fini(&xml);
    return NULL;
}

static void list_threads(struct gdb_server *gdb)
{
    for (unsigned i = 0; i < vm_cpu_count(gdb->vm); i++)
        gdb_answer(gdb, "%c%x", i ? ',' : 'm', i + 1);
}

/* What GDB shows beside the thread's number. */
static struct err *thread_extra(struct gdb_server *gdb, const char *text)
{
    static const char *const activities[] = {"", ", halted", ", waits for INIT",
                                             ", waits for SIPI"};
    struct x86_state *state;
    struct err *err;
    char line[64];
    int cpu;

    if (!gdb_parse_thread(gdb, &text, &cpu) || cpu < 0)
        return err_new("there is no such CPU");
    state = xcalloc(1, sizeof(*state));
    err = vm_cpu_get(gdb->vm, (unsigned)cpu, state);
    if (!err) {
        snprintf(line, sizeof(line), "CPU %d%s%s", cpu,
                 state->seg[X86_CS].selector & 3 ? ", user" : "",
                 activities[MIN((size_t)state->activity, ARRAY_SIZE(activities) - 1)]);
        gdb_answer_hex(gdb, line, strlen(line));
    }
    free(state);
    return err;
}

/* ---- monitor commands ---- */

static void show_segment(struct buf *out, const char *name, const struct x86_segment *segment)
{
    buf_printf(out, "%-4s %04x base %016llx limit %08x attributes %05x\n", name, segment->selector,
               (unsigned long long)segment->base, segment->limit, segment->attr);
}

static struct err *monitor_system(struct gdb_server *gdb, const char *text, struct buf *out)
{
    static const char *const names[X86_SEGS] = {"es", "cs", "ss", "ds", "fs", "gs"};
    const struct x86_state *state = &gdb->state;

    TRY(gdb_state(gdb));
    for (unsigned i = 0; i < X86_SEGS; i++)
        show_segment(out, names[i], &state->seg[i]);
    show_segment(out, "ldt", &state->ldt);
    show_segment(out, "tr", &state->tr);
    buf_printf(out, "gdt  base %016llx limit %04x\nidt  base %016llx limit %04x\n",
               (unsigned long long)state->gdt.base, state->gdt.limit,
               (unsigned long long)state->idt.base, state->idt.limit);
    buf_printf(out, "cr0 %llx cr2 %llx cr3 %llx cr4 %llx cr8 %llx efer %llx xcr0 %llx\n",
               (unsigned long long)state->cr0, (unsigned long long)state->cr2,
               (unsigned long long)state->cr3, (unsigned long long)state->cr4,
               (unsigned long long)state->cr8, (unsigned long long)state->efer,
               (unsigned long long)state->xcr0);
    buf_printf(out, "dr0 %llx dr1 %llx dr2 %llx dr3 %llx dr6 %llx dr7 %llx\n",
               (unsigned long long)state->dr[0], (unsigned long long)state->dr[1],
               (unsigned long long)state->dr[2], (unsigned long long)state->dr[3],
               (unsigned long long)state->dr[6], (unsigned long long)state->dr[7]);
    buf_printf(out, "apic_base %llx tsc %llx star %llx lstar %llx sfmask %llx k_gs_base %llx\n",
               (unsigned long long)state->msr.apic_base, (unsigned long long)state->msr.tsc,
               (unsigned long long)state->msr.star, (unsigned long long)state->msr.lstar,
               (unsigned long long)state->msr.sfmask,
               (unsigned long long)state->msr.kernel_gs_base);
    return NULL;
}

static struct err *monitor_translate(struct gdb_server *gdb, const char *text, struct buf *out)
{
    char *end;
    uint64_t linear = strtoull(text, &end, 0), gpa;

    if (end == text || *end)
        return err_new("translate: expected an address, such as 0xffffffff81000000");
    TRY(gdb_state(gdb));
    if (vm_debug_translate(gdb->vm, &gdb->state, linear, &gpa))
        buf_printf(out, "linear 0x%llx is guest-physical 0x%llx\n", (unsigned long long)linear,
                   (unsigned long long)gpa);
    else
        buf_printf(out, "linear 0x%llx is not mapped\n", (unsigned long long)linear);
    return NULL;
}

static struct err *monitor_read(struct gdb_server *gdb, const char *text, struct buf *out)
{
    char *end;
    uint64_t gpa = strtoull(text, &end, 0);
    uint8_t bytes[64];

    if (end == text || *end)
        return err_new("physical: expected an address, such as 0x1000000");
    if (!vm_physical_read(gdb->vm, gpa, bytes, sizeof(bytes)))
        return err_new("there are no 64 bytes of memory at 0x%llx", (unsigned long long)gpa);
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        if (i % 16 == 0)
            buf_printf(out, "%016llx:", (unsigned long long)gpa + i);
        buf_printf(out, " %02x%s", bytes[i], i % 16 == 15 ? "\n" : "");
    }
    return NULL;
}

static struct err *monitor_help(struct gdb_server *gdb, const char *text, struct buf *out);

static const struct monitor_command {
    const char *name, *arguments, *help;
    struct err *(*run)(struct gdb_server *gdb, const char *text, struct buf *out);
} monitor_commands[] = {
    {"help", "", "this list", monitor_help},
    {"system", "", "system registers of the thread's CPU", monitor_system},
    {"translate", "ADDRESS", "where a linear address lies in guest-physical memory",
     monitor_translate},
    {"physical", "ADDRESS", "64 bytes of guest-physical memory", monitor_read},
};

static struct err *monitor_help(struct gdb_server *gdb, const char *text, struct buf *out)
{
    for (size_t i = 0; i < ARRAY_SIZE(monitor_commands); i++)
        buf_printf(out, "monitor %s %s\n    %s\n", monitor_commands[i].name,
                   monitor_commands[i].arguments, monitor_commands[i].help);
    return NULL;
}

static struct err *run_monitor(struct gdb_server *gdb, const char *line, struct buf *out)
{
    for (size_t i = 0; i < ARRAY_SIZE(monitor_commands); i++) {
        const struct monitor_command *command = &monitor_commands[i];
        const char *rest = after(line, command->name);
        if (rest && (!*rest || *rest == ' '))
            return command->run(gdb, rest + strspn(rest, " "), out);
    }
    return err_new("'%.40s' is no monitor command: see monitor help", line);
}

/* The answer is text in hexadecimal; a failed command answers with its sentence. */
static struct err *monitor(struct gdb_server *gdb, const char *hex)
{
    char line[256];
    struct buf out = BUF_INIT;

    line[gdb_parse_hex(hex, (uint8_t *)line, sizeof(line) - 1)] = 0;
    struct err *err = run_monitor(gdb, line, &out);
    if (err) {
        out.len = 0;
        buf_printf(&out, "%s\n", err_text(err));
        err_free(err);
    }
    gdb_answer_hex(gdb, out.data, out.len);
    buf_fini(&out);
    return NULL;
}

/* ---- the packets ---- */

struct err *gdb_query(struct gdb_server *gdb, const char *text)
{
    const char *rest;

    if (after(text, "qSupported")) {
        gdb_answer(gdb,
                   "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+;"
                   "swbreak+;hwbreak+",
                   (unsigned)GDB_PACKET_MAX);
    } else if (!strcmp(text, "QStartNoAckMode")) {
        gdb->no_ack = true;
        gdb_answer(gdb, "OK");
    } else if ((rest = after(text, "qXfer:features:read:"))) {
        return read_description(gdb, rest);
    } else if (!strcmp(text, "qfThreadInfo")) {
        list_threads(gdb);
    } else if (!strcmp(text, "qsThreadInfo")) {
        gdb_answer(gdb, "l");
    } else if ((rest = after(text, "qThreadExtraInfo,"))) {
        return thread_extra(gdb, rest);
    } else if (!strcmp(text, "qC")) {
        gdb_answer(gdb, "QC%x", gdb->cpu + 1);
    } else if (!strcmp(text, "qAttached")) {
        gdb_answer(gdb, "1");
    } else if ((rest = after(text, "qRcmd,"))) {
        return monitor(gdb, rest);
    }
    return NULL;
}
