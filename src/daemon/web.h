/*
 * The web console's files, which the daemon serves to whoever asks: they hold no secret. They are
 * read once, at the start: a path is one of those names or nothing, and no request opens a file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_WEB_H
#define TENON_DAEMON_WEB_H

#include "daemon/http.h"

struct web;

/* The pages in `folder`; NULL when there is none. */
struct web *web_load(const char *folder);
/* NULL is fine. */
void web_free(struct web *web);
/* Answers a request for a page; false: it is for something else, and still to be answered. */
bool web_answer(const struct web *web, struct http_request *request);

#endif
