/*
 * QMP commands on the machine as a whole, with the names and shapes of QEMU's QAPI schema
 * (qapi/machine.json, pci.json, char.json, run-state.json). On the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "ctl/vm_control_internal.h"
#include "vm/vm_debug.h"
#include "vm/vm_look.h"

void vm_machine_was_reset(void *opaque, bool by_guest)
{
    struct vm_control *control = opaque;

    qmp_server_event(control->server, "RESET",
                     json_pack("{s:b, s:s}", "guest", by_guest, "reason",
                               by_guest ? "guest-reset" : "host-qmp-system-reset"));
}

void vm_machine_boot_failed(void *opaque)
{
    struct vm_control *control = opaque;

    qmp_server_event(control->server, "TENON_BOOT_FAILED", NULL);
}

struct err *vm_machine_reset(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;

    if (control->status == STATUS_PRELAUNCH)
        return err_new("the VM has not started yet");
    vm_reset(control->vm);
    return NULL;
}

struct err *vm_machine_nmi(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;

    vm_nmi(control->vm);
    return NULL;
}

struct err *vm_machine_cpus(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    unsigned count = vm_cpu_count(control->vm);

    *result = json_array();
    for (unsigned i = 0; i < count; i++) {
        char path[32];

        snprintf(path, sizeof(path), "/machine/cpu[%u]", i);
        json_array_append_new(*result,
                              json_pack("{s:i, s:i, s:s, s:s, s:{s:i, s:i, s:i}}", "cpu-index",
                                        (int)i, "thread-id", vm_look_thread(control->vm, i),
                                        "qom-path", path, "target", "x86_64", "props", "socket-id",
                                        0, "core-id", (int)i, "thread-id", 0));
    }
    return NULL;
}

struct err *vm_machine_memory(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;

    *result = json_pack("{s:I, s:i}", "base-memory",
                        (json_int_t)vm_look_config(control->vm)->memory, "plugged-memory", 0);
    return NULL;
}

/* What QEMU calls the host's end of a character device. */
static char *console_name(const struct vm_console *console)
{
    switch (console->backend) {
    case VM_BACKEND_STDIO:
        return xstrdup("stdio");
    case VM_BACKEND_PTY:
        return xstrdup("pty");
    case VM_BACKEND_SOCKET:
        return xasprintf("unix:%s,server=on", console->path);
    case VM_BACKEND_FILE:
        return xstrdup("file");
    case VM_BACKEND_NULL:
        break;
    }
    return xstrdup("null");
}

struct err *vm_machine_chardevs(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    const struct vm_config *config = vm_look_config(control->vm);

    *result = json_array();
    for (unsigned i = 0; i < config->console_count; i++) {
        scoped(free_cleanup) char *name = console_name(&config->console[i]);
        json_array_append_new(*result, json_pack("{s:s, s:s, s:b}", "label", config->console[i].id,
                                                 "filename", name, "frontend-open", 1));
    }
    return NULL;
}

/* ---- query-pci ---- */

static json_t *region(const struct vm_pci_bar *bar)
{
    json_t *object =
        json_pack("{s:i, s:s, s:I, s:I}", "bar", (int)bar->index, "type", bar->io ? "io" : "memory",
                  "address", (json_int_t)bar->address, "size", (json_int_t)bar->size);

    if (!bar->io) {
        json_object_set_new(object, "prefetch", json_boolean(bar->prefetchable));
        json_object_set_new(object, "mem_type_64", json_boolean(bar->wide));
    }
    return object;
}

static json_t *pci_function(const struct vm_pci_function *function)
{
    json_t *regions = json_array();

    for (unsigned i = 0; i < function->bars; i++)
        json_array_append_new(regions, region(&function->bar[i]));
    return json_pack("{s:i, s:i, s:i, s:{s:i}, s:{s:i, s:i, s:i, s:i}, s:i, s:i, s:s, s:o}", "bus",
                     0, "slot", function->devfn >> 3, "function", function->devfn & 7, "class_info",
                     "class", function->class_code, "id", "device", function->device, "vendor",
                     function->vendor, "subsystem", function->subsystem, "subsystem-vendor",
                     function->subsystem_vendor, "irq", function->irq_line, "irq_pin",
                     function->irq_pin, "qdev_id", function->id ? function->id : "", "regions",
                     regions);
}

struct err *vm_machine_pci(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    json_t *functions = json_array();

    for (unsigned devfn = 0; devfn < 256; devfn++) {
        struct vm_pci_function function;
        if (vm_look_pci(control->vm, (uint8_t)devfn, &function))
            json_array_append_new(functions, pci_function(&function));
    }
    *result = json_pack("[{s:i, s:o}]", "bus", 0, "devices", functions);
    return NULL;
}
