/*
 * Disks and discs that another machine has (`--disk nbd://...`, `--cdrom https://...`): a process
 * for each, which opens the image and serves it to tenon-vmm over a socket pair, as an NBD server
 * of one client. So tenon-vmm sees no byte of a network's, and needs no right to connect. Over the
 * image of `tenon run URL` the process has an overlay, which takes what the guest writes.
 *
 * The process keeps the network and may read the host's configuration and certificates; it ends
 * when its end of a second socket pair, `stop`, is closed: with us, however we end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/export/nbd.h"
#include "block/proto/remote.h"
#include "cmd/image/image.h"
#include "cmd/run.h"
#include "sandbox/sandbox.h"

#define ANSWER_MAX 1000

/* How the process begins its one message on `stop`: the kind of an error, or 0 and the format. */
static struct err *read_answer(const struct vm_disk *disk, int stop_fd)
{
    char text[ANSWER_MAX];
    ssize_t n;

    do {
        n = recv(stop_fd, text, sizeof(text) - 1, 0);
    } while (n < 0 && errno == EINTR);
    if (n < 1)
        return err_new("'%s': the process for it ended without a word", disk->path);
    text[n] = 0;
    if (text[0] == ERR_DENIED && !disk->readonly)
        return err_of(ERR_DENIED, "%s: add readonly, or ask for the permission", text + 1);
    return text[0] ? err_of((enum err_kind)text[0], "%s", text + 1) : NULL;
}

static void answer(int stop_fd, int kind, const char *words)
{
    char text[ANSWER_MAX] = {(char)kind};
    size_t len = MIN(strlen(words), sizeof(text) - 1);

    memcpy(text + 1, words, len);
    (void)!send(stop_fd, text, 1 + len, MSG_NOSIGNAL);
}

/* The network, and no file but what a name service and TLS read. */
static struct err *renounce(void)
{
    static const struct sandbox_path paths[] = {{"/etc"}, {"/usr"}, {"/lib"}, {"/run"}};
    const struct sandbox_policy policy = {
        .name = "tenon run",
        .network = true,
        .paths = paths,
        .path_count = ARRAY_SIZE(paths),
    };
    return sandbox_renounce(&policy);
}

struct err *run_open_remote_image(const struct vm_disk *disk, unsigned flags, struct image **image)
{
    const struct image_args args = {.verb = "run"};
    scoped(free_cleanup) char *format = disk->format ? xstrdup(disk->format) : NULL;
    struct image *file;

    if (!format) {
        TRY(err_wrap(image_open_remote(disk->path, 0, &file), "'%s'", disk->path));
        struct err *err = image_guess(file, disk->path, &format);
        image_close(file);
        TRY(err);
    }
    TRY(image_open_one(&args, disk->path, format, flags, image));
    if (!image_backing_name(*image))
        return NULL;
    /* A file of this machine, by a stranger's word. */
    struct err *err = err_new("'%s' names '%s' as its backing file: only whole images are taken "
                              "from another machine",
                              disk->path, image_backing_name(*image));
    image_close(*image);
    *image = NULL;
    return err;
}

/* With the overlay, if there is one (taken), on top. */
static struct err *open_writable(const struct vm_disk *disk, int overlay_fd, struct image **image)
{
    struct image *remote, *file;

    if (overlay_fd < 0)
        return run_open_remote_image(
            disk, disk->readonly ? 0 : (unsigned)(IMAGE_OPEN_WRITABLE | IMAGE_OPEN_DISCARD), image);
    TRY(image_open_fd(overlay_fd, IMAGE_OPEN_WRITABLE | IMAGE_OPEN_SCRATCH, &file));
    TRY(image_open(file, image_driver_find("qcow2"), IMAGE_OPEN_WRITABLE | IMAGE_OPEN_SCRATCH, NULL,
                   image));
    TRY(run_open_remote_image(disk, 0, &remote));
    image_set_backing(*image, remote);
    return NULL;
}

/* In the process. */
static int serve(const struct vm_disk *disk, int overlay_fd, int client_fd, int stop_fd)
{
    const int keep[] = {client_fd, stop_fd, overlay_fd};
    struct nbd_export export = {.name = ""};
    const struct nbd_server_config config = {
        .export = &export,
        .export_count = 1,
        .listen_fd = -1,
        .client_fd = client_fd,
        .stop_fd = stop_fd,
        .clients_max = 1,
    };
    struct err *err = sandbox_close_others(keep, overlay_fd < 0 ? 2 : 3);

    if (!err)
        err = renounce();
    if (!err)
        err = open_writable(disk, overlay_fd, &export.image);
    answer(stop_fd, err ? (int)err_kind(err) : 0, err ? err_text(err) : "");
    if (!err)
        err = nbd_serve(&config);
    image_close(export.image);
    int status = err ? (int)err_kind(err) : 0;
    err_free(err);
    return status;
}

bool run_disk_is_remote(const struct vm_disk *disk)
{
    return disk->path && image_is_remote(disk->path);
}

struct err *run_open_remote(struct run *run, unsigned index)
{
    struct vm_disk *disk = &run->launch.config.disk[index];
    struct run_remote *remote = &run->remote[index];
    int client[2], stop[2];

    if (disk->media == VM_MEDIA_CDROM)
        disk->readonly = true;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, client) != 0)
        return err_errno(errno, "cannot create a socket pair");
    disk->fd = client[0];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, stop) != 0) {
        close(client[1]);
        return err_errno(errno, "cannot create a socket pair");
    }
    remote->stop_fd = stop[0];
    remote->pid = fork();
    if (!remote->pid)
        _exit(serve(disk, index ? -1 : run->overlay_fd, client[1], stop[1]));
    close(client[1]);
    close(stop[1]);
    if (remote->pid < 0)
        return err_errno(errno, "cannot start a process for '%s'", disk->path);
    TRY(read_answer(disk, remote->stop_fd));
    free(disk->format);
    disk->format = xstrdup("raw"); /* what is served is the disk, whatever its format */
    return NULL;
}

void run_end_remotes(struct run *run)
{
    for (unsigned i = 0; i < VM_DISKS_MAX; i++) {
        struct run_remote *remote = &run->remote[i];

        if (remote->pid <= 0)
            continue;
        close(remote->stop_fd);
        waitpid(remote->pid, NULL, 0);
        remote->pid = 0;
    }
}
