/*
 * HTTP and HTTPS as a source: ranges of one resource, read ahead. Through libcurl.
 *
 * One connection a node, one call at a time. The resource must not change meanwhile: its entity tag
 * or date is compared at every answer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define CURL_DISABLE_TYPECHECK /* its macros would hide our pointers */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/library.h"
#include "block/proto/remote.h"

#define WINDOW KIB(64) /* what a small read fetches */
#define WINDOWS 64     /* that are kept */
#define AHEAD 16       /* fetched together when reads go on where the last ended */

struct window {
    uint64_t index, used; /* used 0: empty */
    uint8_t *bytes;
};

struct http {
    void *library;
    CURL *curl;
    char error[CURL_ERROR_SIZE];
    /* The answer that is coming in. */
    uint8_t *out;
    uint64_t wanted, got, total;
    char tag[128], now[128]; /* of the resource; of this answer */

    struct window window[WINDOWS];
    uint8_t *ahead; /* AHEAD windows */
    uint64_t clock, next_window;
    LIBRARY_MEMBER(curl_easy_init);
    LIBRARY_MEMBER(curl_easy_setopt);
    LIBRARY_MEMBER(curl_easy_perform);
    LIBRARY_MEMBER(curl_easy_getinfo);
    LIBRARY_MEMBER(curl_easy_strerror);
    LIBRARY_MEMBER(curl_easy_cleanup);
};

static const struct library_symbol symbols[] = {
    LIBRARY_SYMBOL(http, curl_easy_init),     LIBRARY_SYMBOL(http, curl_easy_setopt),
    LIBRARY_SYMBOL(http, curl_easy_perform),  LIBRARY_SYMBOL(http, curl_easy_getinfo),
    LIBRARY_SYMBOL(http, curl_easy_strerror), LIBRARY_SYMBOL(http, curl_easy_cleanup),
};

/* More than was asked for ends the transfer. */
static size_t take_body(char *data, size_t size, size_t count, void *opaque)
{
    struct http *http = opaque;
    size_t length = size * count;
    if (length > http->wanted - http->got)
        return 0;
    memcpy(http->out + http->got, data, length);
    http->got += length;
    return length;
}

static bool header_is(const char *line, size_t length, const char *name, const char **value)
{
    size_t n = strlen(name);
    if (length < n || strncasecmp(line, name, n))
        return false;
    *value = line + n;
    return true;
}

static size_t take_header(char *data, size_t size, size_t count, void *opaque)
{
    struct http *http = opaque;
    size_t length = size * count;
    const char *value;
    char line[256];
    snprintf(line, sizeof(line), "%.*s", (int)MIN(length, sizeof(line) - 1), data);
    line[strcspn(line, "\r\n")] = 0;
    if (!strncmp(line, "HTTP/", 5)) { /* after a redirection it begins anew */
        http->now[0] = 0;
        http->total = 0;
    } else if (header_is(line, length, "etag:", &value)) {
        snprintf(http->now, sizeof(http->now), "%.127s", value);
    } else if (header_is(line, length, "last-modified:", &value) && !http->now[0]) {
        snprintf(http->now, sizeof(http->now), "%.127s", value);
    } else if (header_is(line, length, "content-range:", &value)) {
        const char *slash = strchr(value, '/');
        http->total = slash ? strtoull(slash + 1, NULL, 10) : 0;
    }
    return length;
}

/* One range into `out`. A sentence in http->error when it fails. */
static int fetch(struct http *http, uint8_t *out, uint64_t offset, uint64_t length)
{
    char range[64];
    long code = 0;
    snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)offset,
             (unsigned long long)(offset + length - 1));
    http->out = out;
    http->wanted = length;
    http->got = 0;
    http->error[0] = 0;
    http->curl_easy_setopt(http->curl, CURLOPT_RANGE, range);
    CURLcode result = http->curl_easy_perform(http->curl);
    http->curl_easy_getinfo(http->curl, CURLINFO_RESPONSE_CODE, &code);
    if (code == 200) /* the whole resource was coming */
        snprintf(http->error, sizeof(http->error), "the server does not serve ranges");
    else if (result == CURLE_OK && code != 206)
        snprintf(http->error, sizeof(http->error), "the server answers %ld", code);
    else if (result != CURLE_OK && !http->error[0])
        snprintf(http->error, sizeof(http->error), "%s", http->curl_easy_strerror(result));
    if (result != CURLE_OK || code != 206 || http->got != length)
        return -EIO;
    return strcmp(http->tag, http->now) ? -ESTALE : 0;
}

static struct window *find_window(struct http *http, uint64_t index)
{
    for (unsigned i = 0; i < WINDOWS; i++)
        if (http->window[i].used && http->window[i].index == index)
            return &http->window[i];
    return NULL;
}

static struct window *oldest_window(struct http *http)
{
    struct window *oldest = &http->window[0];
    for (unsigned i = 1; i < WINDOWS; i++)
        if (http->window[i].used < oldest->used)
            oldest = &http->window[i];
    return oldest;
}

/* Fetches the window, and those behind it when reads are going that way. */
static int load_window(struct image *image, uint64_t index)
{
    struct http *http = image->state;
    uint64_t count = index == http->next_window ? AHEAD : 1, start = index * WINDOW;
    uint64_t length = MIN(count * WINDOW, image->size - start);
    int result = fetch(http, http->ahead, start, length);
    for (uint64_t at = 0; at < length && !result; at += WINDOW) {
        struct window *window = oldest_window(http);
        if (!window->bytes)
            window->bytes = malloc(WINDOW);
        if (!window->bytes)
            return -ENOMEM;
        memcpy(window->bytes, http->ahead + at, MIN(WINDOW, length - at));
        window->index = index + at / WINDOW;
        window->used = ++http->clock;
    }
    http->next_window = index + (length + WINDOW - 1) / WINDOW;
    return result;
}

static int http_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    struct http *http = image->state;
    uint8_t *out = buffer;
    int result = 0;
    remote_clip_read(image, buffer, offset, &length);
    if (length >= AHEAD * WINDOW) /* nothing to gain from keeping it */
        return fetch(http, out, offset, length);
    for (uint64_t here; length && !result; out += here, offset += here, length -= here) {
        uint64_t index = offset / WINDOW, inside = offset % WINDOW;
        struct window *window = find_window(http, index);
        here = MIN(length, WINDOW - inside);
        if (!window) {
            result = load_window(image, index);
            window = result ? NULL : find_window(http, index);
        }
        if (!window)
            return result ? result : -EIO;
        window->used = ++http->clock;
        memcpy(out, window->bytes + inside, here);
    }
    return result;
}

static void http_free(struct http *http)
{
    if (http->curl)
        http->curl_easy_cleanup(http->curl);
    for (unsigned i = 0; i < WINDOWS; i++)
        free(http->window[i].bytes);
    free(http->ahead);
    library_unload(http->library);
    free(http);
}

static int http_close(struct image *image)
{
    http_free(image->state);
    image->state = NULL;
    return 0;
}

static const struct block_driver driver = {
    .name = "http",
    .pread = http_pread,
    .close = http_close,
};

static struct err *set_up(struct http *http, const char *url)
{
    CURL *curl = http->curl = http->curl_easy_init();
    http->ahead = malloc(AHEAD * WINDOW);
    if (!curl || !http->ahead)
        return err_new("libcurl does not start");
    if (http->curl_easy_setopt(curl, CURLOPT_URL, url) ||
        http->curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https") ||
        http->curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https") ||
        http->curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1l) ||
        http->curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 5l) ||
        http->curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1l) ||
        http->curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 30l) ||
        http->curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1l) ||
        http->curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 60l) ||
        http->curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1l) ||
        http->curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, http->error) ||
        http->curl_easy_setopt(curl, CURLOPT_USERAGENT, "tenon/" TENON_VERSION) ||
        http->curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body) ||
        http->curl_easy_setopt(curl, CURLOPT_WRITEDATA, http) ||
        http->curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header) ||
        http->curl_easy_setopt(curl, CURLOPT_HEADERDATA, http))
        return err_new("libcurl cannot do what is needed");
    return NULL;
}

/* The first byte tells whether ranges work, and how long the resource is. */
static struct err *learn(struct http *http)
{
    uint8_t byte;
    int result = fetch(http, &byte, 0, 1);
    if (result && result != -ESTALE)
        return err_new("%s", http->error);
    memcpy(http->tag, http->now, sizeof(http->tag));
    return http->total ? NULL : err_new("the server does not tell how long it is");
}

struct err *remote_open_http(const char *name, unsigned flags, struct image **image)
{
    if (flags & IMAGE_OPEN_WRITABLE)
        return err_of(ERR_DENIED, "images are only read over HTTP");
    struct http *http = xcalloc(1, sizeof(*http));
    http->next_window = UINT64_MAX;
    struct err *err = library_load("libcurl.so.4", "libcurl4", symbols, ARRAY_SIZE(symbols), http,
                                   &http->library);
    if (!err)
        err = set_up(http, name);
    if (!err)
        err = learn(http);
    if (err) {
        http_free(http);
        return err;
    }
    *image = remote_node(&driver, http, flags, http->total);
    return NULL;
}
