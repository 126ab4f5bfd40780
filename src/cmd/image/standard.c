/*
 * tenon image: "-", standard input as an image to read, standard output as a raw one to write.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/proto/pipe.h"
#include "cmd/image/convert.h"

#define PIECE MIB(1)

/* A file without a name, in TMPDIR or /var/tmp: a disk may be larger than memory. */
static struct err *nameless(int *fd)
{
    const char *folder = getenv("TMPDIR");
    folder = folder && *folder ? folder : "/var/tmp";
    *fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (*fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        scoped(free_cleanup) char *path = xasprintf("%s/tenon-XXXXXX", folder);
        *fd = mkostemp(path, O_CLOEXEC);
        if (*fd >= 0)
            unlink(path);
    }
    return *fd < 0 ? image_open_error(folder, errno) : NULL;
}

/* A piece, whole unless the input ends in it. */
static ssize_t read_piece(uint8_t *bytes)
{
    size_t have = 0;
    while (have < PIECE) {
        ssize_t got = read(STDIN_FILENO, bytes + have, PIECE - have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (!got)
            break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

/* All of standard input; zeros become holes. */
static struct err *keep_input(struct image *file)
{
    scoped(free_cleanup) uint8_t *bytes = xcalloc(1, PIECE);
    uint64_t at = 0;
    ssize_t got;
    while ((got = read_piece(bytes)) > 0) {
        int result =
            image_is_zero(bytes, (size_t)got) ? 0 : image_write(file, bytes, at, (size_t)got);
        if (result)
            return err_errno(-result, "cannot keep standard input in a temporary file");
        at += (uint64_t)got;
    }
    if (got < 0)
        return err_errno(errno, "cannot read standard input");
    return image_resize(file, at);
}

/* Of a file a second descriptor will do, the rest is kept in one: `path` is how it is opened. */
static struct err *take_input(char *path)
{
    struct stat status;
    struct image *file;
    int fd = STDIN_FILENO;
    if (fstat(fd, &status) < 0)
        return err_errno(errno, "cannot look at standard input");
    if (isatty(fd))
        return err_of(ERR_USAGE, "standard input is a terminal: let a file or a program be it");
    if (!S_ISREG(status.st_mode)) {
        TRY(nameless(&fd));
        int own =
            fcntl(fd, F_DUPFD_CLOEXEC, 3); /* the name is good while `fd` is open: to the end */
        if (own < 0)
            return err_errno(errno, "cannot keep standard input");
        TRY(image_open_fd(own, IMAGE_OPEN_WRITABLE | IMAGE_OPEN_UNSAFE, &file));
        struct err *err = keep_input(file);
        image_close(file);
        TRY(err);
    }
    snprintf(path, IMAGE_INPUT_PATH, "/proc/self/fd/%d", fd);
    return NULL;
}

struct err *image_standard_sources(const struct image_args *args, char **path, unsigned count,
                                   char *input)
{
    bool taken = false;
    for (unsigned i = 0; i < count && !args->qemu; i++) {
        if (strcmp(path[i], "-"))
            continue;
        if (taken)
            return err_of(ERR_USAGE, "standard input can be read once");
        taken = true;
        TRY(take_input(input));
        path[i] = input;
    }
    return NULL;
}

struct err *image_standard_output(struct image_copy *copy, const struct block_driver *driver,
                                  struct err *(*copy_data)(const struct image_copy *copy))
{
    struct image_args own = *copy->args;
    struct image_copy to_pipe = *copy;
    if (driver != image_driver_find("raw") || own.no_create || own.option_count || own.backing ||
        own.verify)
        return err_of(ERR_USAGE, "standard output takes a raw image and nothing else: other "
                                 "formats are written back and forth");
    if (isatty(STDOUT_FILENO))
        return err_of(ERR_USAGE, "standard output is a terminal: let a file or a program be it");
    own.write_zeros = own.quiet = true;
    to_pipe.args = &own;
    to_pipe.target_name = "standard output";
    to_pipe.target = image_open_pipe(STDOUT_FILENO, copy->length);
    struct err *err = copy_data(&to_pipe);
    image_close(to_pipe.target);
    return err;
}
