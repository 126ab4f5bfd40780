/*
 * Image locks against a second writer, by open-file-description locks.
 *
 * The byte is the one by which QEMU says "nobody else may write" (201); its users of an image are
 * therefore kept out, and noticed, as well. A reader of QEMU's locks both kinds shared, so for our
 * readers its writers are recognised by their other byte (101).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "block/block.h"

#define BYTE_WRITES 101
#define BYTE_NO_OTHER_WRITER 201
#define TRIES 30 /* of 10 ms each */

static int lock_byte(int fd, int command, short type, off_t byte, short *found)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int result = fcntl(fd, command, &lock);
    if (found)
        *found = lock.l_type;
    return result;
}

/* Does the process's descriptor hold a lock, as its fdinfo tells? */
static bool descriptor_locks(const char *pid, const char *number)
{
    char path[600], line[256];
    snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, number);
    FILE *file = fopen(path, "re");
    bool locks = false;
    while (file && !locks && fgets(line, sizeof(line), file))
        locks = strncmp(line, "lock:", 5) == 0 && strstr(line, "OFDLCK");
    if (file)
        fclose(file);
    return locks;
}

static bool process_holds(const char *pid, const struct stat *image)
{
    char path[600];
    snprintf(path, sizeof(path), "/proc/%s/fd", pid);
    DIR *directory = opendir(path);
    if (!directory)
        return false;
    bool holds = false;
    struct dirent *entry;
    while (!holds && (entry = readdir(directory))) {
        struct stat status;
        if (isdigit((unsigned char)entry->d_name[0]) &&
            fstatat(dirfd(directory), entry->d_name, &status, 0) == 0)
            holds = status.st_dev == image->st_dev && status.st_ino == image->st_ino &&
                    descriptor_locks(pid, entry->d_name);
    }
    closedir(directory);
    return holds;
}

/* " (NAME, process 123)" of another process that holds the lock, or "". The caller frees it. */
static char *holder(int fd)
{
    struct stat image;
    DIR *directory = fstat(fd, &image) == 0 ? opendir("/proc") : NULL;
    char *text = NULL;
    struct dirent *entry;
    while (directory && !text && (entry = readdir(directory))) {
        if (!isdigit((unsigned char)entry->d_name[0]) || atoi(entry->d_name) == getpid() ||
            !process_holds(entry->d_name, &image))
            continue;
        char path[300], name[64] = "";
        snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
        FILE *file = fopen(path, "re");
        if (file && fgets(name, sizeof(name), file))
            name[strcspn(name, "\n")] = 0;
        if (file)
            fclose(file);
        text = xasprintf(" (%s, process %s)", name, entry->d_name);
    }
    if (directory)
        closedir(directory);
    return text ? text : xstrdup("");
}

static struct err *try_lock(int fd, const char *path, bool readonly)
{
    short other = F_UNLCK;
    int result =
        lock_byte(fd, F_OFD_SETLK, readonly ? F_RDLCK : F_WRLCK, BYTE_NO_OTHER_WRITER, NULL);
    if (result < 0 && errno != EAGAIN && errno != EACCES)
        return err_errno(errno, "cannot lock '%s'", path);
    if (result == 0 &&
        (lock_byte(fd, F_OFD_GETLK, F_WRLCK, BYTE_WRITES, &other) < 0 || other == F_UNLCK))
        return NULL;
    if (result == 0)
        lock_byte(fd, F_OFD_SETLK, F_UNLCK, BYTE_NO_OTHER_WRITER, NULL);
    scoped(free_cleanup) char *who = holder(fd);
    return err_of(ERR_BUSY, "'%s' is in use by another VM%s", path, who);
}

struct err *block_lock_file(int fd, const char *path, bool readonly)
{
    const struct timespec pause = {.tv_nsec = 10 * NSEC_PER_MSEC};
    for (unsigned tries = 0;; tries++) {
        struct err *err = try_lock(fd, path, readonly);
        if (!err || err_kind(err) != ERR_BUSY || tries == TRIES)
            return err;
        err_free(err);
        nanosleep(&pause, NULL);
    }
}

void block_unlock_file(int fd)
{
    struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    (void)fcntl(fd, F_OFD_SETLK, &all);
}
