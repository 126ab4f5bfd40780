/*
 * The pages of the web console. See web.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/web.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#define FILES_MAX 64
#define FILE_MAX MIB(8)

/* Nothing from anywhere else. The terminal writes its own style elements. */
#define CONTENT_POLICY                                                                             \
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' "     \
    "data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

struct web_file {
    char *path; /* as a browser asks: "/assets/index.js" */
    const char *type;
    struct buf bytes;
};

struct web {
    struct web_file file[FILES_MAX];
    unsigned count;
};

static const char *type_of(const char *name)
{
    static const struct {
        const char *suffix, *type;
    } types[] = {
        {".html", "text/html; charset=utf-8"},
        {".js", "text/javascript; charset=utf-8"},
        {".css", "text/css; charset=utf-8"},
        {".svg", "image/svg+xml"},
        {".png", "image/png"},
    };
    const char *dot = strrchr(name, '.');

    for (size_t i = 0; dot && i < ARRAY_SIZE(types); i++)
        if (!strcmp(dot, types[i].suffix))
            return types[i].type;
    return NULL;
}

static void load_file(struct web *web, int folder, const char *prefix, const char *name)
{
    scoped(fd_cleanup) int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    const char *type = type_of(name);
    struct stat status;

    if (fd < 0 || !type || web->count == FILES_MAX || fstat(fd, &status) != 0 ||
        !S_ISREG(status.st_mode) || (uint64_t)status.st_size > FILE_MAX)
        return;
    struct web_file *file = &web->file[web->count];
    size_t size = (size_t)status.st_size;
    if (size && read(fd, buf_extend(&file->bytes, size), size) != (ssize_t)size) {
        buf_fini(&file->bytes);
        return;
    }
    file->path =
        !*prefix && !strcmp(name, "index.html") ? xstrdup("/") : xasprintf("%s/%s", prefix, name);
    file->type = type;
    web->count++;
}

static void load_folder(struct web *web, const char *folder, const char *prefix)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        load_file(web, dirfd(dir), prefix, entry->d_name);
    if (dir)
        closedir(dir);
}

struct web *web_load(const char *folder)
{
    if (!folder)
        return NULL;
    struct web *web = xcalloc(1, sizeof(*web));
    scoped(free_cleanup) char *assets = xasprintf("%s/assets", folder);
    load_folder(web, folder, "");
    load_folder(web, assets, "/assets");
    log_debug("web console: %u files in '%s'", web->count, folder);
    return web;
}

void web_free(struct web *web)
{
    for (unsigned i = 0; web && i < web->count; i++) {
        free(web->file[i].path);
        buf_fini(&web->file[i].bytes);
    }
    free(web);
}

bool web_answer(const struct web *web, struct http_request *request)
{
    bool get = !strcmp(http_method(request), "GET");

    for (unsigned i = 0; get && web && i < web->count; i++) {
        const struct web_file *file = &web->file[i];
        if (strcmp(http_path(request), file->path) != 0)
            continue;
        /* The names in assets/ change with their contents. */
        http_answer_header(request, "Cache-Control",
                           strncmp(file->path, "/assets/", 8) ? "no-cache"
                                                              : "max-age=31536000, immutable");
        http_answer_header(request, "Content-Security-Policy", CONTENT_POLICY);
        http_answer_header(request, "X-Content-Type-Options", "nosniff");
        http_answer_header(request, "Referrer-Policy", "no-referrer");
        http_answer(request, 200, file->type, file->bytes.data, file->bytes.len);
        return true;
    }
    return false;
}
