/*
 * A first start's wishes for a cloud image: --user-data, --ssh-key and --hostname become a disk
 * that cloud-init finds by its label (NoCloud data source).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/iso9660.h"
#include "cmd/run.h"
#include "vm/schema.h"

#define LABEL "cidata"
#define TEXT_MAX MIB(1)
#define HOSTNAME_MAX 63

static bool wanted(const struct run *run)
{
    return run->user_data || run->ssh_key || run->hostname;
}

static struct err *read_text(const char *what, const char *path, struct buf *out)
{
    scoped(fd_cleanup) int fd = -1;

    TRY(run_open_file(what, path, O_RDONLY, &fd));
    for (;;) {
        uint8_t *at = buf_extend(out, 4096);
        ssize_t n = read(fd, at, 4096);
        out->len -= 4096 - (size_t)MAX(n, (ssize_t)0);
        if (n < 0)
            return err_errno(errno, "%s: cannot read '%s'", what, path);
        if (!n)
            return NULL;
        if (out->len > TEXT_MAX)
            return err_new("%s: '%s' is larger than 1 MiB", what, path);
    }
}

/* RFC 1123: letters, digits and hyphens, which do not begin it. */
static struct err *check_hostname(const char *name)
{
    size_t len = strlen(name);
    bool good = len >= 1 && len <= HOSTNAME_MAX && *name != '-';

    for (size_t i = 0; i < len; i++)
        good &= isalnum((unsigned char)name[i]) || name[i] == '-' || name[i] == '.';
    return good ? NULL
                : err_of(ERR_USAGE,
                         "--hostname: '%s' is no host name: use letters, digits and "
                         "hyphens",
                         name);
}

/* One public key a line; a private one must not get into a VM. */
static struct err *add_keys(const char *path, struct buf *meta)
{
    struct buf text = BUF_INIT;
    struct err *err = read_text("--ssh-key", path, &text);
    char *rest = NULL;
    unsigned keys = 0;

    for (char *line = err || !text.len ? NULL : strtok_r((char *)text.data, "\r\n", &rest);
         line && !err; line = strtok_r(NULL, "\r\n", &rest)) {
        if (*line == '#')
            continue;
        if ((strncmp(line, "ssh-", 4) && strncmp(line, "ecdsa-", 6) && strncmp(line, "sk-", 3)) ||
            strpbrk(line, "\"\\"))
            err = err_new("--ssh-key: '%s' has a line that is no public key: give a file such as "
                          "~/.ssh/id_ed25519.pub",
                          path);
        else
            buf_printf(meta, "%s  - \"%s\"\n", keys++ ? "" : "public-keys:\n", line);
    }
    if (!err && !keys)
        err = err_new("--ssh-key: '%s' has no key", path);
    buf_fini(&text);
    return err;
}

/* cloud-init acts once for each instance: another wish is another one. */
static uint32_t hash(uint32_t value, const struct buf *text)
{
    for (size_t i = 0; i < text->len; i++)
        value = (value ^ text->data[i]) * 16777619u;
    return value;
}

static struct err *make_texts(const struct run *run, struct buf *user, struct buf *meta)
{
    struct buf rest = BUF_INIT;
    struct err *err = NULL;

    if (run->user_data)
        TRY(read_text("--user-data", run->user_data, user));
    else
        buf_text(user, "#cloud-config\n{}\n");
    if (run->hostname)
        buf_printf(&rest, "local-hostname: %s\n", run->hostname);
    if (run->ssh_key)
        err = add_keys(run->ssh_key, &rest);
    if (!err) {
        buf_printf(meta, "instance-id: tenon-%08x\n", hash(hash(2166136261u, user), &rest));
        buf_append(meta, rest.data, rest.len);
    }
    buf_fini(&rest);
    return err;
}

struct err *run_seed_begin(struct run *run)
{
    if (!wanted(run))
        return NULL;
    if (run->hostname)
        TRY(check_hostname(run->hostname));
    return schema_apply_flag(&run->launch.config, "disk",
                             LABEL ".iso,id=" LABEL ",readonly=true,format=raw,queues=1");
}

static struct vm_disk *seed_disk(struct vm_config *config)
{
    for (unsigned i = 0; i < config->disk_count; i++) {
        if (!strcmp(config->disk[i].id, LABEL))
            return &config->disk[i];
    }
    return NULL;
}

static struct err *write_seed(const char *path, const struct buf *image)
{
    scoped(fd_cleanup) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, image->data, image->len) != (ssize_t)image->len)
        return err_errno(errno, "cannot write '%s'", path);
    return NULL;
}

struct err *run_seed_write(struct run *run)
{
    struct buf user = BUF_INIT, meta = BUF_INIT, image = BUF_INIT;
    struct vm_disk *disk = seed_disk(&run->launch.config);

    if (!wanted(run) || !disk)
        return NULL;
    scoped(free_cleanup) char *name =
        xasprintf("%s-%ld.seed", run->launch.config.name, (long)getpid());
    struct err *err = run_user_path("XDG_CACHE_HOME", ".cache", name, &run->seed_path);
    if (!err)
        err = make_texts(run, &user, &meta);
    if (!err) {
        const struct iso9660_file files[] = {{"meta-data", meta.data, meta.len},
                                             {"user-data", user.data, user.len}};
        iso9660_write(LABEL, files, ARRAY_SIZE(files), &image);
        err = write_seed(run->seed_path, &image);
    }
    if (!err) {
        free(disk->path);
        disk->path = xstrdup(run->seed_path);
    }
    buf_fini(&user);
    buf_fini(&meta);
    buf_fini(&image);
    return err;
}

void run_seed_forget(struct run *run)
{
    if (run->seed_path)
        unlink(run->seed_path);
    free(run->seed_path);
    run->seed_path = NULL;
}
