/*
 * The hand-over from `tenon run` to tenon-vmm.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vm/schema.h"

/* Far above any VM, far below what could hurt. */
#define LAUNCH_SIZE_MAX MIB(4)

struct err *launch_write(const struct launch *launch, int *result)
{
    scoped(fd_cleanup) int fd = -1;
    json_t *marks = json_object(), *root;
    char *text;
    size_t len, done = 0;
    ssize_t n;

    for (int mark = 0; mark < TIMELINE_MARKS; mark++)
        if (launch->timeline.at_ns[mark])
            json_object_set_new(marks, timeline_name((enum timeline_mark)mark),
                                json_integer((json_int_t)launch->timeline.at_ns[mark]));
    root = json_pack("{s:o, s:o, s:i, s:i, s:b, s:i, s:i, s:i}", "vm",
                     schema_to_json(&launch->config, true), "marks", marks, "listen_fd",
                     launch->listen_fd, "gdb_fd", launch->gdb_fd, "paused", launch->paused,
                     "log_level", (int)launch->log_level, "log_format", (int)launch->log.format,
                     "journal_fd", launch->log.journal_fd);
    text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (!text)
        return err_new("cannot describe the VM to tenon-vmm");
    fd = memfd_create("tenon-launch", MFD_CLOEXEC);
    if (fd < 0) {
        free(text);
        return err_errno(errno, "cannot create a memory file");
    }
    for (len = strlen(text); done < len; done += (size_t)n) {
        n = pwrite(fd, text + done, len - done, (off_t)done);
        if (n <= 0)
            break;
    }
    free(text);
    if (done < len)
        return err_errno(errno, "cannot write a memory file");
    *result = fd;
    fd = -1;
    return NULL;
}

/* Standard input, output and error are never handed over: a number below 3 is a mistake. */
static struct err *check_fds(const struct launch *launch)
{
    int fds[LAUNCH_FDS_MAX];
    size_t count = launch_fds(launch, fds, ARRAY_SIZE(fds));

    for (size_t i = 0; i < count; i++)
        if (fds[i] <= STDERR_FILENO)
            return err_new("the hand-over names descriptor %d", fds[i]);
    return NULL;
}

static struct err *launch_parse(const char *text, size_t len, struct launch *launch)
{
    json_error_t where;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    json_t *vm, *marks;
    int log_level = LOG_WARN, log_format = LOG_TEXT, paused = 0;
    struct err *err;

    if (!root)
        return err_new("the hand-over is no JSON: %s", where.text);
    if (json_unpack_ex(root, &where, 0, "{s:o, s:o, s:i, s:i, s:b, s:i, s:i, s:i}", "vm", &vm,
                       "marks", &marks, "listen_fd", &launch->listen_fd, "gdb_fd", &launch->gdb_fd,
                       "paused", &paused, "log_level", &log_level, "log_format", &log_format,
                       "journal_fd", &launch->log.journal_fd) != 0) {
        json_decref(root);
        return err_new("the hand-over is incomplete: %s", where.text);
    }
    launch->log_level = (enum log_level)log_level;
    launch->log.format = (enum log_format)log_format;
    launch->paused = paused;
    for (int mark = 0; mark < TIMELINE_MARKS; mark++)
        launch->timeline.at_ns[mark] = (uint64_t)json_integer_value(
            json_object_get(marks, timeline_name((enum timeline_mark)mark)));
    err = schema_from_json(vm, &launch->config);
    json_decref(root);
    launch->log.vm = launch->config.name;
    return err ? err : check_fds(launch);
}

struct err *launch_read(int take_fd, struct launch *launch)
{
    scoped(fd_cleanup) int fd = take_fd;
    struct stat status;
    struct err *err;
    char *text;

    memset(launch, 0, sizeof(*launch));
    vm_config_init(&launch->config);
    launch->listen_fd = launch->gdb_fd = launch->log.journal_fd = -1;
    if (fstat(fd, &status) != 0)
        return err_errno(errno, "the hand-over descriptor");
    if (!S_ISREG(status.st_mode) || status.st_size <= 0 ||
        (uint64_t)status.st_size > LAUNCH_SIZE_MAX)
        return err_of(ERR_USAGE,
                      "the hand-over descriptor is not what tenon passes: this program is "
                      "started by `tenon run`");
    text = xcalloc(1, (size_t)status.st_size);
    if (pread(fd, text, (size_t)status.st_size, 0) != status.st_size)
        err = err_errno(errno, "the hand-over cannot be read");
    else
        err = launch_parse(text, (size_t)status.st_size, launch);
    free(text);
    return err;
}

size_t launch_fds(const struct launch *launch, int *fds, size_t max)
{
    const struct vm_config *config = &launch->config;
    size_t count = 0;

#define KEEP(fd)                                                                                   \
    do {                                                                                           \
        if ((fd) >= 0 && count < max)                                                              \
            fds[count++] = (fd);                                                                   \
    } while (0)
    KEEP(config->kernel_fd);
    KEEP(config->firmware_fd);
    KEEP(config->firmware_vars_fd);
    KEEP(config->vga_rom_fd);
    KEEP(config->tpm_control_fd);
    KEEP(config->tpm_command_fd);
    KEEP(config->initrd_fd);
    KEEP(config->kvm_fd);
    KEEP(config->control_fd);
    KEEP(launch->listen_fd);
    KEEP(launch->gdb_fd);
    KEEP(launch->log.journal_fd);
    for (unsigned i = 0; i < config->disk_count; i++) {
        KEEP(config->disk[i].fd);
        for (unsigned layer = 0; layer < VM_QUEUES_MAX; layer++)
            KEEP(config->disk[i].backing_fd[layer]);
    }
    for (unsigned i = 0; i < config->net_count; i++)
        for (unsigned queue = 0; queue < VM_QUEUES_MAX; queue++)
            KEEP(config->net[i].fd[queue]);
    for (unsigned i = 0; i < config->console_count; i++) {
        KEEP(config->console[i].in_fd);
        KEEP(config->console[i].out_fd);
    }
#undef KEEP
    return count;
}
