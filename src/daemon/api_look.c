/*
 * REST: looks at a VM and at the daemon; keys.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/api.h"
#include "display/keys.h"

#define FILE_MAX MIB(8)
#define KEY_HOLD_MS 50

static struct err *get_openapi(struct api_call *call)
{
    api_answer(call, json_incref(call->daemon->document.openapi));
    return NULL;
}

static struct err *get_host(struct api_call *call)
{
    struct instance *vm;
    int count = 0, running = 0;
    char name[65] = "";

    gethostname(name, sizeof(name) - 1);
    list_for_each (vm, &call->daemon->fleet->instances, link) {
        if (!identity_sees(&call->who, vm->name))
            continue;
        count++;
        running += vm->state != INSTANCE_STOPPED;
    }
    api_answer(call,
               json_pack("{s:s, s:s, s:i, s:o, s:i, s:i}", "version", TENON_VERSION, "name", name,
                         "pid", (int)getpid(), "started_at", events_time(call->daemon->started_ns),
                         "vms", count, "running", running));
    return NULL;
}

static void answer_last_timeline(struct api_call *call, const struct instance *vm)
{
    json_t *stages = json_object_get(vm ? vm->last : NULL, "timeline");

    api_answer(call, json_pack("{s:o}", "stages", stages ? json_incref(stages) : json_array()));
}

/* A VM that ends in this moment has nothing to say any more. */
static void on_timeline(void *opaque, const json_t *result, const struct err *err)
{
    struct api_call *call = opaque;

    if (err)
        answer_last_timeline(call, fleet_find(call->daemon->fleet, call->argument[0]));
    else
        api_answer(call, json_deep_copy(result));
}

/* Of a VM that runs as far as it has come; else of the last run. */
static struct err *get_timeline(struct api_call *call)
{
    if (link_is_ready(call->vm->qmp))
        link_run(call->vm->qmp, "tenon-query-timeline", NULL, -1, on_timeline, call);
    else
        answer_last_timeline(call, call->vm);
    return NULL;
}

/* The end of a file in the VM's folder; a file that is not there is empty. */
static struct err *answer_file(struct api_call *call, const char *name, const char *type)
{
    scoped(fd_cleanup) int fd =
        openat(call->vm->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct buf bytes = BUF_INIT;
    struct stat status;

    if (fd < 0 && errno != ENOENT)
        return err_errno(errno, "cannot read '%s/%s'", call->vm->directory, name);
    if (fd >= 0 && fstat(fd, &status) == 0 && status.st_size > 0) {
        size_t len = MIN((size_t)status.st_size, (size_t)FILE_MAX);
        ssize_t n = pread(fd, buf_extend(&bytes, len), len, status.st_size - (off_t)len);
        bytes.len = n < 0 ? 0 : (size_t)n;
    }
    api_answer_bytes(call, type, bytes.data, bytes.len);
    buf_fini(&bytes);
    return NULL;
}

static struct err *get_log(struct api_call *call)
{
    return answer_file(call, "log", "text/plain");
}

static struct err *get_console_log(struct api_call *call)
{
    scoped(free_cleanup) char *name = xasprintf("console-%s.log", call->console->id);
    return answer_file(call, name, "application/octet-stream");
}

/* ---- commands to the VM ---- */

/* One of the commands of a call has ended; the first error is the answer's. False: more to come. */
static bool all_done(struct api_call *call, const struct err *err)
{
    if (err && !call->err)
        call->err = err_new("VM '%s': %s", call->argument[0], err_text(err));
    if (--call->pending)
        return false;
    if (!call->err)
        return true;
    struct err *first = call->err;
    call->err = NULL;
    api_answer_error(call, 409, first);
    return false;
}

static struct err *check_listens(const struct api_call *call)
{
    if (!link_is_ready(call->vm->qmp))
        return err_of(ERR_BUSY, "VM '%s' is %s", call->vm->name, instance_state_text(call->vm));
    return NULL;
}

/* ---- screenshot: the VM writes into a memory file of ours ---- */

static void on_picture(void *opaque, const json_t *result, const struct err *err)
{
    struct api_call *call = opaque;
    struct stat status;

    if (!all_done(call, err))
        return;
    size_t len = fstat(call->fd, &status) == 0 ? (size_t)status.st_size : 0;
    void *bytes = len ? mmap(NULL, len, PROT_READ, MAP_PRIVATE, call->fd, 0) : MAP_FAILED;
    if (bytes == MAP_FAILED) {
        api_answer_error(call, 500, err_errno(errno, "cannot read the picture"));
        return;
    }
    api_answer_bytes(call, call->text, bytes, len);
    munmap(bytes, len);
}

static void on_picture_fd(void *opaque, const json_t *result, const struct err *err)
{
    struct api_call *call = opaque;
    struct instance *vm = fleet_find(call->daemon->fleet, call->argument[0]);
    json_int_t id = json_integer_value(json_object_get(result, "fdset-id"));

    if (err || !vm || !link_is_ready(vm->qmp)) {
        scoped(err_cleanup) struct err *gone = err_new("it has ended");
        all_done(call, err ? err : gone);
        return;
    }
    call->pending += 2;
    link_run(vm->qmp, "screendump",
             json_pack("{s:o, s:s}", "filename", json_sprintf("/dev/fdset/%lld", (long long)id),
                       "format", strcmp(call->text, "image/png") ? "ppm" : "png"),
             -1, on_picture, call);
    link_run(vm->qmp, "remove-fd", json_pack("{s:I}", "fdset-id", id), -1, on_picture, call);
    all_done(call, NULL);
}

static struct err *get_screenshot(struct api_call *call)
{
    const char *format = http_query(call->request, "format");

    TRY(check_listens(call));
    call->text =
        xstrdup(format && !strcmp(format, "ppm") ? "image/x-portable-pixmap" : "image/png");
    call->fd = memfd_create("screenshot", MFD_CLOEXEC);
    if (call->fd < 0)
        return err_errno(errno, "cannot create a memory file");
    call->pending = 1;
    link_run(call->vm->qmp, "add-fd", NULL, call->fd, on_picture_fd, call);
    return NULL;
}

/* ---- keys ---- */

static void on_key(void *opaque, const json_t *result, const struct err *err)
{
    struct api_call *call = opaque;

    if (all_done(call, err))
        api_answer_nothing(call);
}

static void send_stroke(struct api_call *call, const struct key_stroke *stroke)
{
    const json_t *hold = json_object_get(call->body, "hold_ms");
    json_t *keys = json_array();

    for (unsigned i = 0; i < stroke->count; i++)
        json_array_append_new(
            keys, json_pack("{s:s, s:i}", "type", "number", "data", (int)stroke->key[i]));
    call->pending++;
    link_run(call->vm->qmp, "send-key",
             json_pack("{s:o, s:I}", "keys", keys, "hold-time",
                       hold ? json_integer_value(hold) : (json_int_t)KEY_HOLD_MS),
             -1, on_key, call);
}

/* Every key is read before the first is pressed (`send`). */
static struct err *each_stroke(struct api_call *call, bool send)
{
    const json_t *words = json_object_get(call->body, "keys");
    const char *text = json_string_value(json_object_get(call->body, "text"));

    for (size_t i = 0; i < json_array_size(words); i++) {
        struct key_stroke stroke = {0};
        TRY(key_stroke_read(&stroke, json_string_value(json_array_get(words, i))));
        if (send)
            send_stroke(call, &stroke);
    }
    for (; text && *text; text++) {
        struct key_stroke stroke = {0};
        if (!key_stroke_character(&stroke, (unsigned char)*text))
            return err_of(ERR_USAGE, "no key of a US keyboard types the byte 0x%02x",
                          (unsigned char)*text);
        if (send)
            send_stroke(call, &stroke);
    }
    return NULL;
}

static struct err *send_keys(struct api_call *call)
{
    TRY(check_listens(call));
    TRY(each_stroke(call, false));
    call->pending = 1;
    err_free(each_stroke(call, true));
    on_key(call, NULL, NULL);
    return NULL;
}

const struct api_handler api_look_handlers[] = {
    {"getOpenapi", get_openapi},        {"getHost", get_host},
    {"getScreenshot", get_screenshot},  {"sendKeys", send_keys},
    {"getTimeline", get_timeline},      {"getLog", get_log},
    {"getConsoleLog", get_console_log}, {NULL, NULL},
};
