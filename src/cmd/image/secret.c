/*
 * tenon image: passphrases of encrypted images, from a file, an --object or the terminal.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "cmd/image/image.h"

#define KEY_MAX KIB(64)

static struct err *read_key(const char *path, char **bytes, size_t *length)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return image_open_error(path, errno);
    char *text = xcalloc(1, KEY_MAX + 1);
    size_t have = 0;
    ssize_t got = 1;
    while (got > 0 && have <= KEY_MAX) {
        got = read(fd, text + have, KEY_MAX + 1 - have);
        have += got > 0 ? (size_t)got : 0;
    }
    int error = got < 0 ? errno : 0;
    close(fd);
    if (error || have > KEY_MAX || !have) {
        free(text);
        return error ? err_errno(error, "cannot read '%s'", path)
                     : err_of(ERR_USAGE, "the key file '%s' has %s", path,
                              have ? "more than 64 KiB" : "nothing in it");
    }
    *bytes = text;
    *length = have;
    return NULL;
}

struct err *image_secret_object(struct image_args *args, const char *definition)
{
    char *text = image_args_keep(args, xstrdup(definition)), *next = text;
    const char *id = NULL, *data = NULL, *file = NULL;
    if (!text || args->secret_count == IMAGE_SECRETS_MAX)
        return err_of(ERR_USAGE, "too many objects");
    if (strcmp(strsep(&next, ","), "secret"))
        return err_of(ERR_USAGE, "--object is 'secret,id=ID,file=FILE', and nothing else");
    while (next) {
        char *name = strsep(&next, ","), *value = strchr(name, '=');
        if (value)
            *value++ = 0;
        if (value && !strcmp(name, "id"))
            id = value;
        else if (value && !strcmp(name, "data"))
            data = value;
        else if (value && !strcmp(name, "file"))
            file = value;
        else if (!value || strcmp(name, "format") || strcmp(value, "raw"))
            return err_of(ERR_USAGE, "--object secret: '%s' is not supported", name);
    }
    if (!id || !data == !file)
        return err_of(ERR_USAGE, "--object secret needs an id, and data or file");
    struct image_secret *secret = &args->secret[args->secret_count];
    secret->id = id;
    if (file)
        TRY(read_key(file, &secret->bytes, &secret->length));
    else
        secret->bytes = xstrdup(data);
    if (data)
        secret->length = strlen(data);
    args->secret_count++;
    return NULL;
}

/* Without an echo, from the terminal itself. */
static struct err *ask(const char *path, char **bytes, size_t *length)
{
    int fd = isatty(STDIN_FILENO) ? open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY) : -1;
    struct termios before, quiet;
    if (fd < 0 || tcgetattr(fd, &before) < 0) {
        if (fd >= 0)
            close(fd);
        return err_of(ERR_DENIED, "'%s' is encrypted: give its passphrase with --key-file", path);
    }
    quiet = before;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    tcsetattr(fd, TCSAFLUSH, &quiet);
    dprintf(fd, "Passphrase of '%s': ", path);
    char *text = xcalloc(1, 1024);
    ssize_t got = read(fd, text, 1023);
    tcsetattr(fd, TCSAFLUSH, &before);
    dprintf(fd, "\n");
    close(fd);
    *length = got > 0 ? (size_t)got - (text[got - 1] == '\n') : 0;
    *bytes = text;
    return NULL;
}

/* The passphrase for `path`, owned by the caller: the secret with this id, else any. */
static struct err *find(const struct image_args *args, const char *path, const char *id,
                        char **bytes, size_t *length)
{
    if (args->key_file)
        return read_key(args->key_file, bytes, length);
    for (unsigned i = 0; i < args->secret_count; i++) {
        const struct image_secret *secret = &args->secret[i];
        if (id ? strcmp(secret->id, id) : args->secret_count > 1)
            continue;
        *length = secret->length;
        *bytes = xcalloc(1, *length + 1);
        memcpy(*bytes, secret->bytes, *length);
        return NULL;
    }
    if (id)
        return err_of(ERR_USAGE, "there is no --object secret with the id '%s'", id);
    return ask(path, bytes, length);
}

static void forget(char *bytes, size_t length)
{
    if (bytes)
        explicit_bzero(bytes, length);
    free(bytes);
}

static const char *wanted_id(const struct image_option *option, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (!strcmp(option[i].name, "key-secret") || !strcmp(option[i].name, "encrypt.key-secret"))
            return option[i].value;
    return NULL;
}

struct err *image_unlock_open(const struct image_args *args, const char *path, const char *id,
                              struct image *image)
{
    char *bytes = NULL;
    size_t length = 0;
    if (!image_locked(image))
        return NULL;
    struct err *err = find(args, path, id, &bytes, &length);
    if (!err)
        err = err_wrap(image_unlock(image, bytes, length), "'%s'", path);
    forget(bytes, length);
    return err;
}

struct err *image_create_locked(const struct image_args *args, const char *path, struct image *file,
                                const struct block_driver *driver, struct image_create *create)
{
    char *bytes = NULL;
    size_t length = 0;
    const char *id = wanted_id(create->option, create->option_count);
    if (image_wants_key(driver, create))
        TRY(find(args, path, id, &bytes, &length));
    create->key = bytes;
    create->key_length = length;
    struct err *err = image_create(file, driver, create);
    create->key = NULL;
    forget(bytes, length);
    return err;
}
