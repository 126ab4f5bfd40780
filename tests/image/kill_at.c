/*
 * Preloaded into a program: kills it at its n-th change of a file, wherever the machine's speed
 * puts that moment.
 *
 * KILL_COUNT names a file that gets the number of changes when the program ends; KILL_AT is the
 * change that does not end: a write is cut in half, everything else does not happen.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_ulong changes;
static unsigned long last;

__attribute__((constructor)) static void begin(void)
{
    const char *at = getenv("KILL_AT");
    last = at ? strtoul(at, NULL, 10) : 0;
}

__attribute__((destructor)) static void end(void)
{
    const char *name = getenv("KILL_COUNT");
    FILE *file = name ? fopen(name, "w") : NULL;
    if (!file)
        return;
    fprintf(file, "%lu\n", atomic_load(&changes));
    fclose(file);
}

static void *next(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    return function ? function : (abort(), NULL);
}

/* Is this the change that is not to end? Standard streams and pipes are no files. */
static int fatal(int fd)
{
    struct stat status;
    if (fstat(fd, &status) || !S_ISREG(status.st_mode))
        return 0;
    return atomic_fetch_add(&changes, 1) + 1 == last;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off64_t) = next("pwrite64");
    if (!fatal(fd))
        return real(fd, bytes, length, offset);
    real(fd, bytes, length / 2 & ~(size_t)511, offset);
    die();
    return -1;
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    int (*real)(int, int, off64_t, off64_t) = next("fallocate64");
    if (fatal(fd))
        die();
    return real(fd, mode, offset, length);
}

int ftruncate64(int fd, off64_t length)
{
    int (*real)(int, off64_t) = next("ftruncate64");
    if (fatal(fd))
        die();
    return real(fd, length);
}

int fdatasync(int fd)
{
    int (*real)(int) = next("fdatasync");
    if (fatal(fd))
        die();
    return real(fd);
}
