/*
 * The event log, out of a running VM's memory. It has no fixed place: with UEFI it is where the
 * firmware found room, and later where the kernel copied it. So all RAM is looked through, a window
 * at a time, for how a log begins; the quote tells the true one from what only looks like one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cmd/attest.h"
#include "hw/chipset/layout.h"

#define WINDOW MIB(16)
#define CANDIDATES_MAX 64 /* more are somebody's joke */

struct search {
    struct qmp_client *client;
    uint8_t (*quoted)[TPM_SHA256_SIZE];
    int fd; /* the memory file that the VM writes */
    char name[40];
    uint8_t *bytes; /* the same, mapped */
    unsigned candidates;
    struct event_log best;
    unsigned unexplained; /* PCRs that the best log leaves open; more than there are: no log yet */
};

static void judge(struct search *search, const uint8_t *bytes, size_t len)
{
    struct event_log log;
    struct err *err = event_log_parse(bytes, len, &log);
    unsigned unexplained =
        (unsigned)__builtin_popcount(event_log_unexplained(&log, search->quoted));

    if (err || unexplained >= search->unexplained) {
        event_log_fini(&log);
    } else {
        event_log_fini(&search->best);
        search->best = log;
        search->unexplained = unexplained;
    }
    err_free(err);
}

static struct err *look_at(struct search *search, uint64_t gpa, size_t len)
{
    if (lseek(search->fd, 0, SEEK_SET) < 0)
        return err_errno(errno, "memory file");
    TRY(qmp_client_run(search->client, "pmemsave",
                       json_pack("{s:I, s:I, s:s}", "val", (json_int_t)gpa, "size", (json_int_t)len,
                                 "filename", search->name),
                       -1, NULL));
    for (size_t at = event_log_find(search->bytes, len, 0); at < len;
         at = event_log_find(search->bytes, len, at + 1)) {
        if (search->candidates++ < CANDIDATES_MAX)
            judge(search, search->bytes + at, len - at);
        if (!search->unexplained)
            break;
    }
    return NULL;
}

/* Windows overlap, so that no log is cut. */
static struct err *look_through(struct search *search, uint64_t from, uint64_t end)
{
    while (from < end && search->unexplained) {
        uint64_t len = MIN(end - from, (uint64_t)(WINDOW + EVENT_LOG_MAX));
        TRY(look_at(search, from, (size_t)len));
        from += MIN((uint64_t)WINDOW, len);
    }
    return NULL;
}

static struct err *search_all(struct search *search)
{
    json_t *summary = NULL, *set = NULL;

    TRY(qmp_client_run(search->client, "query-memory-size-summary", NULL, -1, &summary));
    uint64_t memory = (uint64_t)json_integer_value(json_object_get(summary, "base-memory"));
    uint64_t low = MIN(memory, (uint64_t)LAYOUT_Q35_LOW_RAM_MAX);
    json_decref(summary);
    TRY(qmp_client_run(search->client, "add-fd", NULL, search->fd, &set));
    json_int_t id = json_integer_value(json_object_get(set, "fdset-id"));
    json_decref(set);
    snprintf(search->name, sizeof(search->name), "/dev/fdset/%lld", (long long)id);
    struct err *err = look_through(search, MIB(1), low);
    if (!err)
        err = look_through(search, LAYOUT_HIGH_RAM_BASE, LAYOUT_HIGH_RAM_BASE + (memory - low));
    err_free(
        qmp_client_run(search->client, "remove-fd", json_pack("{s:I}", "fdset-id", id), -1, NULL));
    return err;
}

struct err *attest_find_log(struct qmp_client *client, uint8_t quoted[TPM_PCRS][TPM_SHA256_SIZE],
                            struct event_log *log)
{
    const size_t size = WINDOW + EVENT_LOG_MAX;
    scoped(fd_cleanup) int fd = memfd_create("guest-memory", MFD_CLOEXEC);
    struct search search = {
        .client = client, .quoted = quoted, .fd = fd, .unexplained = TPM_PCRS + 1};

    if (fd < 0 || ftruncate(fd, (off_t)size) != 0)
        return err_errno(errno, "cannot create a memory file");
    search.bytes = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (search.bytes == MAP_FAILED)
        return err_errno(errno, "cannot map a memory file");
    struct err *err = search_all(&search);
    munmap(search.bytes, size);
    if (!err && search.unexplained > TPM_PCRS)
        err = err_new("there is no event log in the guest's memory: was it started by firmware?");
    if (err)
        event_log_fini(&search.best);
    else
        *log = search.best;
    return err;
}
