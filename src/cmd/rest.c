/*
 * A client of tenond's REST API. See rest.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/rest.h"

#define CURL_DISABLE_TYPECHECK /* its macros cannot stand after "->" */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/library.h"
#include "cmd/tenond_paths.h"

#define REPLY_MAX MIB(64)

struct rest {
    LIBRARY_MEMBER(curl_easy_init);
    LIBRARY_MEMBER(curl_easy_setopt);
    LIBRARY_MEMBER(curl_easy_perform);
    LIBRARY_MEMBER(curl_easy_getinfo);
    LIBRARY_MEMBER(curl_easy_strerror);
    LIBRARY_MEMBER(curl_easy_cleanup);
    LIBRARY_MEMBER(curl_slist_append);
    LIBRARY_MEMBER(curl_slist_free_all);
    void *library;
    CURL *curl;
    struct curl_slist *headers;
    char *socket, *url;
    /* The reply. */
    struct buf body;
    size_t (*take)(struct rest *rest, const char *bytes, size_t len); /* NULL: into `body` */
    void (*line)(void *opaque, const char *text);
    void *opaque;
};

static const struct library_symbol symbols[] = {
    LIBRARY_SYMBOL(rest, curl_easy_init),     LIBRARY_SYMBOL(rest, curl_easy_setopt),
    LIBRARY_SYMBOL(rest, curl_easy_perform),  LIBRARY_SYMBOL(rest, curl_easy_getinfo),
    LIBRARY_SYMBOL(rest, curl_easy_strerror), LIBRARY_SYMBOL(rest, curl_easy_cleanup),
    LIBRARY_SYMBOL(rest, curl_slist_append),  LIBRARY_SYMBOL(rest, curl_slist_free_all),
};

static long status_of(const struct rest *rest)
{
    long status = 0;

    rest->curl_easy_getinfo(rest->curl, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

static size_t on_bytes(char *bytes, size_t one, size_t len, void *opaque)
{
    struct rest *rest = opaque;

    if (rest->take && status_of(rest) < 300)
        return rest->take(rest, bytes, len);
    if (rest->body.len + len > REPLY_MAX)
        return 0;
    buf_append(&rest->body, bytes, len);
    return len;
}

static struct err *rest_open(struct rest *rest, const char *path)
{
    TRY(library_load("libcurl.so.4", "libcurl4", symbols, ARRAY_SIZE(symbols), rest,
                     &rest->library));
    rest->socket = tenond_socket_path(false);
    if (!rest->socket)
        return err_of(ERR_USAGE, "where is tenond? Set TENON_SOCKET to its socket");
    rest->url = xasprintf("http://localhost%s", path);
    rest->curl = rest->curl_easy_init();
    if (!rest->curl)
        return err_new("libcurl does not start");
    rest->curl_easy_setopt(rest->curl, CURLOPT_UNIX_SOCKET_PATH, rest->socket);
    rest->curl_easy_setopt(rest->curl, CURLOPT_URL, rest->url);
    rest->curl_easy_setopt(rest->curl, CURLOPT_NOSIGNAL, 1L);
    rest->curl_easy_setopt(rest->curl, CURLOPT_PROXY, "");
    rest->curl_easy_setopt(rest->curl, CURLOPT_WRITEFUNCTION, on_bytes);
    rest->curl_easy_setopt(rest->curl, CURLOPT_WRITEDATA, rest);
    return NULL;
}

static void rest_close(struct rest *rest)
{
    if (rest->curl)
        rest->curl_easy_cleanup(rest->curl);
    if (rest->headers)
        rest->curl_slist_free_all(rest->headers);
    buf_fini(&rest->body);
    free(rest->socket);
    free(rest->url);
    library_unload(rest->library);
}

/* The sentence of a problem, as an error of the kind that a command would end with. */
static struct err *refusal(const struct rest *rest, long status)
{
    json_t *problem =
        json_loadb(rest->body.data ? (const char *)rest->body.data : "", rest->body.len, 0, NULL);
    const char *text = json_string_value(json_object_get(problem, "detail"));
    enum err_kind kind = status == 400 || status == 415   ? ERR_USAGE
                         : status == 401 || status == 403 ? ERR_DENIED
                         : status == 409 || status == 504 ? ERR_BUSY
                                                          : ERR_FAILED;
    struct err *err =
        text ? err_of(kind, "%s", text) : err_of(kind, "tenond answers with status %ld", status);

    json_decref(problem);
    return err;
}

static struct err *rest_perform(struct rest *rest)
{
    CURLcode result = rest->curl_easy_perform(rest->curl);
    long status = status_of(rest);

    if (result == CURLE_COULDNT_CONNECT)
        return err_new("no tenond listens on '%s': start it, or set TENON_SOCKET", rest->socket);
    if (result == CURLE_WRITE_ERROR)
        return err_errno(errno, "cannot write to standard output");
    /* A stream that is cut off has ended. */
    if (result != CURLE_OK && !(rest->take && status))
        return err_new("tenond: %s", rest->curl_easy_strerror(result));
    return status >= 300 ? refusal(rest, status) : NULL;
}

struct err *rest_call(const char *method, const char *path, json_t *take_body, json_t **reply)
{
    struct rest rest = {0};
    char *text = take_body ? json_dumps(take_body, JSON_COMPACT) : NULL;
    struct err *err = rest_open(&rest, path);

    json_decref(take_body);
    if (reply)
        *reply = NULL;
    if (!err) {
        rest.curl_easy_setopt(rest.curl, CURLOPT_CUSTOMREQUEST, method);
        if (text) {
            rest.headers = rest.curl_slist_append(NULL, "Content-Type: application/json");
            rest.curl_easy_setopt(rest.curl, CURLOPT_HTTPHEADER, rest.headers);
            rest.curl_easy_setopt(rest.curl, CURLOPT_POSTFIELDS, text);
        }
        err = rest_perform(&rest);
    }
    if (!err && reply && rest.body.len) {
        *reply = json_loadb((const char *)rest.body.data, rest.body.len, 0, NULL);
        if (!*reply)
            err = err_new("what answers on '%s' is no tenond", rest.socket);
    }
    rest_close(&rest);
    free(text);
    return err;
}

static size_t to_output(struct rest *rest, const char *bytes, size_t len)
{
    return fwrite(bytes, 1, len, stdout) == len && fflush(stdout) == 0 ? len : 0;
}

struct err *rest_copy(const char *path)
{
    struct rest rest = {.take = to_output};
    struct err *err = rest_open(&rest, path);

    if (!err)
        err = rest_perform(&rest);
    rest_close(&rest);
    return err;
}

static size_t to_lines(struct rest *rest, const char *bytes, size_t len)
{
    struct buf *in = &rest->body;
    uint8_t *end;

    buf_append(in, bytes, len);
    while (in->len && (end = memchr(in->data, '\n', in->len))) {
        *end = 0;
        rest->line(rest->opaque, (const char *)in->data);
        in->len -= (size_t)(end - in->data) + 1;
        memmove(in->data, end + 1, in->len);
    }
    return in->len < REPLY_MAX ? len : 0;
}

struct err *rest_lines(const char *path, void (*line)(void *opaque, const char *text), void *opaque)
{
    struct rest rest = {.take = to_lines, .line = line, .opaque = opaque};
    struct err *err = rest_open(&rest, path);

    if (!err)
        err = rest_perform(&rest);
    rest_close(&rest);
    return err;
}

/* ---- what such commands share ---- */

static void take_option(struct rest_arguments *arguments, const char *name, const char *value)
{
    const struct {
        const char *name;
        bool *flag;
        const char **text;
    } known[] = {
        {"json", &arguments->json, NULL},       {"force", &arguments->force, NULL},
        {"paused", &arguments->paused, NULL},   {"start", &arguments->start, NULL},
        {"dry-run", &arguments->dry_run, NULL}, {"vm", NULL, &arguments->vm},
        {"wait", NULL, &arguments->wait},       {"console", NULL, &arguments->console},
        {"role", NULL, &arguments->role},       {"vms", NULL, &arguments->vms},
        {"expires", NULL, &arguments->expires}, {"state", NULL, &arguments->state},
    };

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (strcmp(known[i].name, name) != 0)
            continue;
        if (known[i].flag)
            *known[i].flag = true;
        else
            *known[i].text = value;
    }
}

struct err *rest_arguments(int argc, char **argv, const struct option_spec *options, unsigned least,
                           unsigned most, const char *words, struct rest_arguments *arguments)
{
    unsigned count = 0;

    *arguments = (struct rest_arguments){0};
    for (int i = 1; i < argc;) {
        struct option_arg arg;
        struct err *err = option_next(argc, argv, &i, options, NULL, NULL, &arg);
        if (!err && arg.spec)
            take_option(arguments, arg.name, arg.value);
        else if (!err && count == most)
            err = err_of(ERR_USAGE, "'%s' is one word too many: give %s", arg.value, words);
        else if (!err)
            arguments->word[count++] = arg.value;
        option_arg_fini(&arg);
        TRY(err);
    }
    return count < least ? err_of(ERR_USAGE, "give %s", words) : NULL;
}

struct err *rest_check_name(const char *name)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

    if (!*name || name[strspn(name, plain)] || *name == '.')
        return err_of(ERR_USAGE, "'%s' is no name: it has letters, digits, '.', '_' and '-'", name);
    return NULL;
}

struct err *rest_print(const json_t *json)
{
    char *text = json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(9));

    printf("%s\n", text ? text : "");
    free(text);
    return fflush(stdout) == 0 ? NULL : err_errno(errno, "cannot write to standard output");
}
