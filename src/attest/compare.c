/*
 * References. See compare.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "attest/compare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1

static void to_hex(const uint8_t *bytes, size_t len, char *text)
{
    for (size_t i = 0; i < len; i++)
        sprintf(text + 2 * i, "%02x", bytes[i]);
}

static void key_text(const struct tpm_key *key, char text[2 * sizeof(*key) + 1])
{
    to_hex(key->x, sizeof(key->x), text);
    to_hex(key->y, sizeof(key->y), text + 2 * sizeof(key->x));
}

json_t *reference_make(const struct tpm_key *key, const struct event_log *log)
{
    char hex[2 * sizeof(*key) + 1];
    json_t *events = json_array();

    for (unsigned i = 0; i < log->count; i++) {
        const struct event *event = &log->event[i];
        to_hex(event->digest, sizeof(event->digest), hex);
        json_array_append_new(events, json_pack("{s:i, s:I, s:s, s:s, s:s}", "pcr", (int)event->pcr,
                                                "type", (json_int_t)event->type, "stage",
                                                event_stage_name(event->stage), "digest", hex,
                                                "about", event->text));
    }
    key_text(key, hex);
    return json_pack("{s:i, s:s, s:o}", "version", VERSION, "key", hex, "events", events);
}

/* --- comparing --- */

/* The events of a stage, one behind the other, on both sides. */
struct walk {
    const json_t *events;
    size_t reference;
    const struct event_log *log;
    unsigned now;
};

static const json_t *next_reference(struct walk *walk, const char *stage)
{
    while (walk->reference < json_array_size(walk->events)) {
        const json_t *event = json_array_get(walk->events, walk->reference++);
        if (!strcmp(json_string_value(json_object_get(event, "stage")), stage))
            return event;
    }
    return NULL;
}

static const struct event *next_now(struct walk *walk, enum event_stage stage)
{
    while (walk->now < walk->log->count) {
        const struct event *event = &walk->log->event[walk->now++];
        if (event->stage == stage)
            return event;
    }
    return NULL;
}

static bool same(const json_t *reference, const struct event *now)
{
    char hex[2 * TPM_SHA256_SIZE + 1];

    to_hex(now->digest, sizeof(now->digest), hex);
    return json_integer_value(json_object_get(reference, "pcr")) == now->pcr &&
           !strcmp(json_string_value(json_object_get(reference, "digest")), hex);
}

static char *describe(const json_t *reference, const struct event *now)
{
    const char *before = reference ? json_string_value(json_object_get(reference, "about")) : "";
    long long pcr = now ? now->pcr : json_integer_value(json_object_get(reference, "pcr"));

    if (!reference)
        return xasprintf("PCR %lld: new: %s", pcr, now->text);
    if (!now)
        return xasprintf("PCR %lld: gone: %s", pcr, before);
    if (!strcmp(before, now->text))
        return xasprintf("PCR %lld: %s", pcr, *before ? before : "measured otherwise");
    return xasprintf("PCR %lld: %s, before: %s", pcr, now->text, before);
}

static void compare_stage(const json_t *events, const struct event_log *log, enum event_stage stage,
                          struct difference *difference)
{
    struct walk walk = {.events = events, .log = log};

    for (;;) {
        const json_t *before = next_reference(&walk, event_stage_name(stage));
        const struct event *now = next_now(&walk, stage);
        if (!before && !now)
            return;
        if (before && now && same(before, now))
            continue;
        difference->changed[stage] = true;
        difference->what[stage] = describe(before, now);
        return;
    }
}

static bool is_reference(const json_t *reference)
{
    const json_t *events = json_object_get(reference, "events");

    if (json_integer_value(json_object_get(reference, "version")) != VERSION ||
        !json_is_string(json_object_get(reference, "key")) || !json_is_array(events))
        return false;
    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *event = json_array_get(events, i);
        if (!json_is_integer(json_object_get(event, "pcr")) ||
            !json_is_string(json_object_get(event, "stage")) ||
            !json_is_string(json_object_get(event, "digest")) ||
            !json_is_string(json_object_get(event, "about")))
            return false;
    }
    return true;
}

struct err *reference_compare(const json_t *reference, const struct tpm_key *key,
                              const struct event_log *log, struct difference *difference)
{
    char hex[2 * sizeof(*key) + 1];

    memset(difference, 0, sizeof(*difference));
    if (!is_reference(reference))
        return err_new("it is no reference that `tenon attest --save` has made");
    key_text(key, hex);
    difference->key = strcmp(json_string_value(json_object_get(reference, "key")), hex) != 0;
    for (unsigned stage = 0; stage < STAGES; stage++)
        compare_stage(json_object_get(reference, "events"), log, (enum event_stage)stage,
                      difference);
    return NULL;
}

void difference_fini(struct difference *difference)
{
    for (unsigned stage = 0; stage < STAGES; stage++)
        free(difference->what[stage]);
}
