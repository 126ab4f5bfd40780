/*
 * VM files: YAML 1.1 through libyaml, cut down to what a configuration needs (maps, lists,
 * scalars), with line and column in every error. See node.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "vm/node.h"

#define TEXT_MAX MIB(1)
#define DEPTH_MAX 16
#define NODES_MAX 10000

struct reader {
    yaml_parser_t parser;
    const char *name;
    unsigned nodes;
};

static struct err *complain(const struct reader *reader, const yaml_mark_t *mark,
                            const char *format, ...) __attribute__((format(printf, 3, 4)));

static struct err *complain(const struct reader *reader, const yaml_mark_t *mark,
                            const char *format, ...)
{
    char *text = NULL;
    va_list args;

    va_start(args, format);
    int len = vasprintf(&text, format, args);
    va_end(args);
    struct err *err = err_of(ERR_USAGE, "%s:%zu:%zu: %s", reader->name, mark->line + 1,
                             mark->column + 1, len < 0 ? "wrong" : text);
    if (len >= 0)
        free(text);
    return err;
}

/* libyaml's own complaint, with the best place that it knows. */
static struct err *parser_error(const struct reader *reader)
{
    const yaml_parser_t *parser = &reader->parser;
    const char *problem = parser->problem ? parser->problem : "cannot be read";

    if (parser->error == YAML_READER_ERROR || parser->error == YAML_MEMORY_ERROR)
        return complain(reader, &parser->mark, "not readable as YAML text: %s", problem);
    if (parser->context)
        return complain(reader, &parser->problem_mark, "not valid YAML: %s, %s", parser->context,
                        problem);
    return complain(reader, &parser->problem_mark, "not valid YAML: %s", problem);
}

static struct err *next_event(struct reader *reader, yaml_event_t *event)
{
    if (!yaml_parser_parse(&reader->parser, event))
        return parser_error(reader);
    return NULL;
}

static struct err *check_plainness(const struct reader *reader, const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;

    switch (event->type) {
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        break;
    case YAML_ALIAS_EVENT:
        return complain(reader, &event->start_mark,
                        "aliases ('*%s') are not supported: write the value again",
                        (const char *)event->data.alias.anchor);
    default:
        break;
    }
    if (anchor)
        return complain(reader, &event->start_mark, "anchors ('&%s') are not supported: remove it",
                        (const char *)anchor);
    if (tag)
        return complain(reader, &event->start_mark, "tags ('%s') are not supported: remove it",
                        (const char *)tag);
    return NULL;
}

static void node_add(struct node *parent, struct node *take_child)
{
    /* Grown by doubling: a hostile file has thousands of items. */
    if (!(parent->count & (parent->count + 1)))
        parent->items = xrealloc(parent->items, (parent->count + 1) * 2, sizeof(*parent->items));
    parent->items[parent->count++] = take_child;
}

static struct err *read_node(struct reader *reader, const yaml_event_t *event, unsigned depth,
                             struct node **result);

static struct err *read_items(struct reader *reader, unsigned depth, struct node *list)
{
    for (;;) {
        yaml_event_t event;
        struct node *child = NULL;

        TRY(next_event(reader, &event));
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return NULL;
        }
        struct err *err = read_node(reader, &event, depth, &child);
        yaml_event_delete(&event);
        if (err)
            return err;
        node_add(list, child);
    }
}

/* A key's text, after checking that it is a new one. */
static struct err *read_key(struct reader *reader, const yaml_event_t *event,
                            const struct node *map, char **key)
{
    TRY(check_plainness(reader, event));
    if (event->type != YAML_SCALAR_EVENT)
        return complain(reader, &event->start_mark, "a key must be a word");

    const char *text = (const char *)event->data.scalar.value;
    if (strlen(text) != event->data.scalar.length)
        return complain(reader, &event->start_mark, "a key must not hold a zero byte");
    for (size_t i = 0; i < map->count; i++) {
        if (!strcmp(map->items[i]->name, text))
            return complain(reader, &event->start_mark,
                            "key '%s' appears twice (first in line %u): remove one", text,
                            map->items[i]->name_line);
    }
    *key = xstrdup(text);
    return NULL;
}

static struct err *read_pairs(struct reader *reader, unsigned depth, struct node *map)
{
    for (;;) {
        yaml_event_t event;
        struct node *child = NULL;
        char *key = NULL;

        TRY(next_event(reader, &event));
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return NULL;
        }
        struct err *err = read_key(reader, &event, map, &key);
        yaml_mark_t at = event.start_mark;
        yaml_event_delete(&event);
        if (err)
            return err;
        err = next_event(reader, &event);
        if (!err) {
            err = read_node(reader, &event, depth, &child);
            yaml_event_delete(&event);
        }
        if (err) {
            free(key);
            return err;
        }
        child->name = key;
        child->name_line = (unsigned)at.line + 1;
        child->name_column = (unsigned)at.column + 1;
        node_add(map, child);
    }
}

static struct err *read_node(struct reader *reader, const yaml_event_t *event, unsigned depth,
                             struct node **result)
{
    TRY(check_plainness(reader, event));
    if (++reader->nodes > NODES_MAX)
        return complain(reader, &event->start_mark, "more than %d values: split the file",
                        NODES_MAX);
    if (depth > DEPTH_MAX)
        return complain(reader, &event->start_mark, "nested deeper than %d levels", DEPTH_MAX);

    struct node *node = xcalloc(1, sizeof(*node));
    struct err *err = NULL;
    node->line = (unsigned)event->start_mark.line + 1;
    node->column = (unsigned)event->start_mark.column + 1;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        node->kind = NODE_SCALAR;
        node->text = xstrdup((const char *)event->data.scalar.value);
        node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        if (strlen(node->text) != event->data.scalar.length)
            err = complain(reader, &event->start_mark, "a value must not hold a zero byte");
        break;
    case YAML_SEQUENCE_START_EVENT:
        node->kind = NODE_LIST;
        err = read_items(reader, depth + 1, node);
        break;
    case YAML_MAPPING_START_EVENT:
        node->kind = NODE_MAP;
        err = read_pairs(reader, depth + 1, node);
        break;
    default:
        err = complain(reader, &event->start_mark, "not valid YAML: a value is missing");
        break;
    }
    if (err) {
        node_free(node);
        return err;
    }
    *result = node;
    return NULL;
}

/* Stream start, one document or none, stream end. */
static struct err *read_stream(struct reader *reader, struct node **result)
{
    bool done = false, open = false;

    *result = NULL;
    while (!done) {
        yaml_event_t event;
        struct err *err = next_event(reader, &event);
        if (err)
            return err;
        switch (event.type) {
        case YAML_STREAM_END_EVENT:
            done = true;
            break;
        case YAML_DOCUMENT_START_EVENT:
            if (*result || open)
                err = complain(reader, &event.start_mark,
                               "a second document begins: a VM file holds one VM");
            open = true;
            break;
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
            break;
        default:
            err = read_node(reader, &event, 0, result);
            break;
        }
        yaml_event_delete(&event);
        if (err)
            return err;
    }
    return NULL;
}

struct err *node_parse_yaml(const char *text, size_t len, const char *name, struct node **node)
{
    struct reader reader = {.name = name};

    *node = NULL;
    if (len > TEXT_MAX)
        return err_of(ERR_USAGE, "%s: %zu bytes are too many for a VM file (at most 1 MiB)", name,
                      len);
    if (!yaml_parser_initialize(&reader.parser))
        return err_new("%s: the YAML parser cannot start: out of memory", name);
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, len);
    struct err *err = read_stream(&reader, node);
    yaml_parser_delete(&reader.parser);
    if (err) {
        node_free(*node);
        *node = NULL;
        return err;
    }
    if (!*node) {
        struct node *empty = xcalloc(1, sizeof(*empty));
        empty->kind = NODE_MAP;
        empty->line = empty->column = 1;
        *node = empty;
    }
    return NULL;
}
