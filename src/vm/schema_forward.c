/*
 * The short form of a port forward: "[tcp|udp:][ADDRESS:]PORT-GUESTPORT".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "vm/schema_table.h"

static struct err *set_by_key(void *element, const char *key, const char *text)
{
    for (size_t i = 0; i < schema_forward.count; i++) {
        if (!strcmp(schema_forward.fields[i].key, key))
            return err_wrap(schema_set(&schema_forward.fields[i], element, text), "%s", key);
    }
    return err_of(ERR_USAGE, "unknown key '%s'", key);
}

struct err *schema_read_forward(const char *text, void *element)
{
    scoped(free_cleanup) char *copy = xstrdup(text);
    char *at = copy, *colon;

    if ((colon = strchr(at, ':')) && strcspn(at, "0123456789") > 0) {
        *colon = 0;
        TRY(set_by_key(element, "proto", at));
        at = colon + 1;
    }
    if ((colon = strchr(at, ':'))) {
        *colon = 0;
        TRY(set_by_key(element, "host-address", at));
        at = colon + 1;
    }
    char *dash = strchr(at, '-');
    if (!dash)
        return err_of(ERR_USAGE,
                      "expected [PROTO:][ADDRESS:]PORT-GUESTPORT such as "
                      "tcp:127.0.0.1:2222-22, found '%.60s'",
                      text);
    *dash = 0;
    TRY(set_by_key(element, "host-port", at));
    return set_by_key(element, "guest-port", dash + 1);
}
