/*
 * The audit log. See audit.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/events.h"
#include "daemon/json_check.h"

#define HASH_TEXT (SHA256_DIGEST_LENGTH * 2)
#define HASH_KEY ",\"hash\":\""
#define SYNC_NS NSEC_PER_SEC
/* Callers that nobody knows, or knows no more, could fill the disk. */
#define NOBODY_MAX 20
#define NOBODY_WINDOW_NS (10 * NSEC_PER_SEC)

static const char first_prev[HASH_TEXT + 1] =
    "0000000000000000000000000000000000000000000000000000000000000000";

struct audit {
    int log_fd, head_fd;
    uint64_t count; /* number of the last line */
    char latest[HASH_TEXT + 1];
    struct loop_timer sync; /* lines are on the disk a second later at most */
    uint64_t window_ns;     /* of the callers that nobody knows */
    unsigned in_window, left_out;
};

static void hash_text(const char *bytes, size_t len, char text[HASH_TEXT + 1])
{
    unsigned char hash[SHA256_DIGEST_LENGTH];

    SHA256((const unsigned char *)bytes, len, hash);
    for (size_t i = 0; i < sizeof(hash); i++)
        snprintf(text + 2 * i, 3, "%02x", hash[i]);
}

/* ---- reading ---- */

/* What a good line says; false: it is not one. `line` is without its newline. */
static bool read_line(const char *line, size_t len, uint64_t *seq, char prev[HASH_TEXT + 1],
                      char hash[HASH_TEXT + 1])
{
    const size_t tail = strlen(HASH_KEY) + HASH_TEXT + 2;
    const char *key = line + len - tail;
    char real[HASH_TEXT + 1];

    if (len < tail || strncmp(key, HASH_KEY, strlen(HASH_KEY)) != 0 ||
        strncmp(line + len - 2, "\"}", 2) != 0)
        return false;
    hash_text(line, (size_t)(key - line), real);
    if (strncmp(key + strlen(HASH_KEY), real, HASH_TEXT) != 0)
        return false;
    json_t *json = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
    const char *text = json_string_value(json_object_get(json, "prev"));
    bool good = text && strlen(text) == HASH_TEXT;
    *seq = (uint64_t)json_integer_value(json_object_get(json, "seq"));
    if (good)
        memcpy(prev, text, HASH_TEXT + 1);
    memcpy(hash, real, HASH_TEXT + 1);
    json_decref(json);
    return good;
}

static struct err *open_log(const char *folder, FILE **file)
{
    scoped(free_cleanup) char *path = xasprintf("%s/" AUDIT_FILE, folder);

    *file = fopen(path, "re");
    return *file ? NULL : err_errno(errno, "cannot read '%s'", path);
}

/* The number and hash that the head file has; 0: there is none. */
static uint64_t read_head(const char *folder, char hash[HASH_TEXT + 1])
{
    scoped(free_cleanup) char *path = xasprintf("%s/" AUDIT_HEAD, folder);
    scoped(fd_cleanup) int fd = open(path, O_RDONLY | O_CLOEXEC);
    char text[HASH_TEXT + 32] = "";
    unsigned long long count = 0;

    if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0 ||
        sscanf(text, "%20llu %64[0-9a-f]", &count, hash) != 2)
        return 0;
    return count;
}

/* What a walk through the log has seen. */
struct walk {
    uint64_t count, head;
    char latest[HASH_TEXT + 1], head_hash[HASH_TEXT + 1];
};

/* The next line; an error says what is wrong with it. */
static struct err *walk_line(struct walk *walk, const char *line, size_t len)
{
    char prev[HASH_TEXT + 1], hash[HASH_TEXT + 1];
    unsigned long long number = walk->count + 1;
    uint64_t seq;

    if (!len || line[len - 1] != '\n' || !read_line(line, len - 1, &seq, prev, hash))
        return err_new("line %llu was changed", number);
    if (seq != number)
        return err_new("line %llu has the number %llu: lines were removed or moved", number,
                       (unsigned long long)seq);
    if (strcmp(prev, walk->latest) != 0)
        return err_new("line %llu does not follow the one before it", number);
    if (number == walk->head && strcmp(hash, walk->head_hash) != 0)
        return err_new("line %llu is another one than was written", number);
    walk->count = number;
    memcpy(walk->latest, hash, sizeof(hash));
    return NULL;
}

struct err *audit_verify(const char *folder, uint64_t *count)
{
    struct walk walk = {.count = 0};
    struct err *err = NULL;
    char *line = NULL;
    size_t room = 0;
    ssize_t len;
    FILE *file;

    memcpy(walk.latest, first_prev, sizeof(first_prev));
    walk.head = read_head(folder, walk.head_hash);
    TRY(open_log(folder, &file));
    while (!err && (len = getline(&line, &room, file)) > 0)
        err = walk_line(&walk, line, (size_t)len);
    if (!err && walk.count < walk.head)
        err = err_new("it ends at line %llu: there were %llu", (unsigned long long)walk.count,
                      (unsigned long long)walk.head);
    free(line);
    fclose(file);
    *count = walk.count;
    return err_wrap(err, "audit log");
}

struct err *audit_read(const char *folder, uint64_t after, uint64_t limit, json_t **list)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t len;
    FILE *file;

    TRY(open_log(folder, &file));
    *list = json_array();
    while (json_array_size(*list) < limit && (len = getline(&line, &room, file)) > 0) {
        json_t *json = json_loadb(line, (size_t)len, 0, NULL);
        if ((uint64_t)json_integer_value(json_object_get(json, "seq")) > after)
            json_array_append_new(*list, json);
        else
            json_decref(json);
    }
    free(line);
    fclose(file);
    return NULL;
}

/* ---- writing ---- */

static void on_sync(void *opaque)
{
    const struct audit *audit = opaque;

    fdatasync(audit->log_fd);
    fdatasync(audit->head_fd);
}

/* Where to go on: the last whole line, which a crash may have left behind the head. */
static struct err *find_end(struct audit *audit, const char *folder)
{
    char *line = NULL, prev[HASH_TEXT + 1], hash[HASH_TEXT + 1];
    size_t room = 0;
    ssize_t len;
    uint64_t seq;
    off_t end = 0;
    FILE *file;

    TRY(open_log(folder, &file));
    while ((len = getline(&line, &room, file)) > 0) {
        if (line[len - 1] != '\n')
            break;
        end += len;
        if (!read_line(line, (size_t)len - 1, &seq, prev, hash))
            continue; /* found by verifying */
        audit->count = seq;
        memcpy(audit->latest, hash, sizeof(hash));
    }
    free(line);
    fclose(file);
    /* Half a line: the host went down while it was written. */
    if (ftruncate(audit->log_fd, end) != 0)
        return err_errno(errno, "cannot write the audit log");
    return NULL;
}

struct err *audit_open(struct loop *loop, const char *folder, struct audit **result)
{
    scoped(free_cleanup) char *log = xasprintf("%s/" AUDIT_FILE, folder);
    scoped(free_cleanup) char *head = xasprintf("%s/" AUDIT_HEAD, folder);
    struct audit *audit = xcalloc(1, sizeof(*audit));
    const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;

    memcpy(audit->latest, first_prev, sizeof(first_prev));
    loop_timer_init(loop, &audit->sync, on_sync, audit);
    audit->log_fd = open(log, flags | O_APPEND, 0600);
    audit->head_fd = open(head, flags, 0600);
    struct err *err = NULL;
    if (audit->log_fd < 0 || audit->head_fd < 0)
        err = err_errno(errno, "cannot write '%s'", log);
    if (!err)
        err = find_end(audit, folder);
    if (err) {
        audit_close(audit);
        return err;
    }
    *result = audit;
    return NULL;
}

void audit_close(struct audit *audit)
{
    if (!audit)
        return;
    if (loop_timer_armed(&audit->sync))
        on_sync(audit);
    loop_timer_cancel(&audit->sync);
    fd_cleanup(&audit->log_fd);
    fd_cleanup(&audit->head_fd);
    free(audit);
}

/* May one more line of nobody's be written? */
static bool may_nobody(struct audit *audit)
{
    uint64_t now = clock_now_ns();

    if (now - audit->window_ns > NOBODY_WINDOW_NS) {
        audit->window_ns = now;
        audit->in_window = 0;
    }
    if (++audit->in_window <= NOBODY_MAX)
        return true;
    audit->left_out++;
    return false;
}

static json_t *make_line(struct audit *audit, const struct audit_entry *entry)
{
    json_t *json = json_pack("{s:I, s:o, s:o, s:o, s:o, s:i}", "seq", (json_int_t)audit->count + 1,
                             "time", events_time(clock_wall_ns()), "who", json_text(entry->who),
                             "from", json_text(entry->from), "action", json_text(entry->action),
                             "status", (int)entry->status);

    if (entry->target)
        json_object_set_new(json, "target", json_text(entry->target));
    if (entry->detail)
        json_object_set_new(json, "detail", json_text(entry->detail));
    if (audit->left_out)
        json_object_set_new(json, "left_out", json_integer(audit->left_out));
    json_object_set_new(json, "prev", json_string(audit->latest));
    return json;
}

void audit_write(struct audit *audit, const struct audit_entry *entry)
{
    char hash[HASH_TEXT + 1], head[HASH_TEXT + 32];

    if ((!strcmp(entry->who, "nobody") || entry->status == 401) && !may_nobody(audit))
        return;
    json_t *json = make_line(audit, entry);
    char *text = json_dumps(json, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(json);
    size_t len = strlen(text) - 1; /* without the brace */
    hash_text(text, len, hash);
    scoped(free_cleanup) char *line = xasprintf("%.*s" HASH_KEY "%s\"}\n", (int)len, text, hash);
    free(text);
    if (write(audit->log_fd, line, strlen(line)) != (ssize_t)strlen(line)) {
        log_error("the audit log cannot be written: %s", strerror(errno));
        return;
    }
    audit->count++;
    audit->left_out = 0;
    memcpy(audit->latest, hash, sizeof(hash));
    int n = snprintf(head, sizeof(head), "%020llu %s\n", (unsigned long long)audit->count, hash);
    if (pwrite(audit->head_fd, head, (size_t)n, 0) != n)
        log_error("the audit log cannot be written: %s", strerror(errno));
    if (!loop_timer_armed(&audit->sync))
        loop_timer_arm(&audit->sync, clock_now_ns() + SYNC_NS);
}
