/*
 * Firmware of Debian's packages and the variable stores of VMs. See firmware_files.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/firmware_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/run.h"
#include "uefi/variable_store.h"

static const struct firmware firmwares[] = {
    {"bios", "seabios", "/usr/share/seabios/bios-256k.bin", NULL},
    {"uefi", "ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
    /* The same with enrolled keys: it is built to enforce them without system management mode. */
    {"secure", "ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"},
};

const struct firmware *firmware_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(firmwares); i++) {
        if (!strcmp(firmwares[i].name, name))
            return &firmwares[i];
    }
    return NULL;
}

struct err *firmware_check_package(const struct firmware *firmware)
{
    if (access(firmware->image, F_OK) == 0 &&
        (!firmware->variables || access(firmware->variables, F_OK) == 0))
        return NULL;
    return err_new("firmware %s: '%s' does not exist: install the package %s (apt-get install %s), "
                   "or give --firmware PATH",
                   firmware->name, firmware->image, firmware->package, firmware->package);
}

void firmware_list(struct buf *found, struct buf *missing)
{
    for (size_t i = 0; i < ARRAY_SIZE(firmwares); i++) {
        struct err *err = firmware_check_package(&firmwares[i]);
        struct buf *out = err ? missing : found;
        if (err && out->len && strstr((const char *)out->data, firmwares[i].package)) {
            err_free(err);
            continue;
        }
        buf_printf(out, "%s%s", out->len ? err ? " " : ", " : "",
                   err ? firmwares[i].package : firmwares[i].name);
        err_free(err);
    }
}

struct err *firmware_store_path(const struct firmware *firmware, const char *vm, char **path)
{
    /* A store of its own: one without keys would start anything. */
    bool secure = !strcmp(firmware->name, "secure");
    scoped(free_cleanup) char *file = xasprintf("%s%s.vars.fd", vm, secure ? ".secure" : "");

    return run_user_path("XDG_STATE_HOME", ".local/state", file, path);
}

struct err *firmware_read_store(int fd, const char *path, uint8_t **bytes, size_t *len)
{
    struct stat status;

    if (fstat(fd, &status) != 0)
        return err_errno(errno, "cannot look at '%s'", path);
    if (!S_ISREG(status.st_mode) || status.st_size > (off_t)VARIABLE_STORE_MAX)
        return err_new("'%s' is no variable store: it is %s", path,
                       S_ISREG(status.st_mode) ? "too large" : "no regular file");
    *len = (size_t)status.st_size;
    *bytes = xcalloc(1, *len + 1);
    ssize_t n = pread(fd, *bytes, *len, 0);
    if (n == (ssize_t)*len)
        return NULL;
    return err_errno(n < 0 ? errno : EIO, "cannot read '%s'", path);
}

struct err *firmware_write_store(const char *path, const uint8_t *bytes, size_t len, bool replace)
{
    scoped(free_cleanup) char *temporary = xasprintf("%s.%ld", path, (long)getpid());
    scoped(fd_cleanup) int out =
        open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (out < 0)
        return err_errno(errno, "cannot write '%s'", temporary);
    bool good = write(out, bytes, len) == (ssize_t)len && fsync(out) == 0;
    if (good && replace && rename(temporary, path) == 0)
        return NULL;
    /* Another VM of this name may have been faster: its file stays. */
    bool linked = good && !replace && (link(temporary, path) == 0 || errno == EEXIST);
    struct err *err = linked ? NULL : err_errno(errno, "cannot make '%s'", path);
    unlink(temporary);
    return err;
}

struct err *firmware_make_store(const struct firmware *firmware, const char *path)
{
    scoped(fd_cleanup) int fd = -1;
    scoped(free_cleanup) uint8_t *bytes = NULL;
    size_t len;

    if (access(path, F_OK) == 0)
        return NULL;
    TRY(run_open_file("variable template", firmware->variables, O_RDONLY, &fd));
    TRY(firmware_read_store(fd, firmware->variables, &bytes, &len));
    return firmware_write_store(path, bytes, len, false);
}

struct err *firmware_store_error(const char *path, struct err *take_cause)
{
    if (!take_cause)
        return NULL;
    struct err *err = err_new("'%s' is no variable store, or a broken one (%s): restore it from a "
                              "copy, or remove it, and a new one is made",
                              path, err_text(take_cause));
    err_free(take_cause);
    return err;
}
