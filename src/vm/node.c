/*
 * The node tree and its making out of JSON. See node.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <stdlib.h>

#include "vm/node.h"

#define DEPTH_MAX 16

void node_free(struct node *node)
{
    if (!node)
        return;
    for (size_t i = 0; i < node->count; i++)
        node_free(node->items[i]);
    free(node->items);
    free(node->name);
    free(node->text);
    free(node);
}

static void node_add(struct node *parent, struct node *take_child)
{
    parent->items = xrealloc(parent->items, parent->count + 1, sizeof(*parent->items));
    parent->items[parent->count++] = take_child;
}

static struct err *from_json(const json_t *json, unsigned depth, struct node **result);

static struct err *container_from_json(const json_t *json, unsigned depth, struct node *node)
{
    if (depth >= DEPTH_MAX)
        return err_of(ERR_USAGE, "JSON is nested deeper than %d levels", DEPTH_MAX);
    if (json_is_object(json)) {
        const char *key;
        json_t *value;
        node->kind = NODE_MAP;
        json_object_foreach((json_t *)json, key, value)
        {
            struct node *child;
            if (json_is_null(value))
                continue;
            TRY(from_json(value, depth + 1, &child));
            child->name = xstrdup(key);
            node_add(node, child);
        }
        return NULL;
    }
    node->kind = NODE_LIST;
    for (size_t i = 0; i < json_array_size(json); i++) {
        struct node *child;
        TRY(from_json(json_array_get(json, i), depth + 1, &child));
        node_add(node, child);
    }
    return NULL;
}

static struct err *from_json(const json_t *json, unsigned depth, struct node **result)
{
    struct node *node = xcalloc(1, sizeof(*node));
    struct err *err = NULL;

    switch (json_typeof(json)) {
    case JSON_OBJECT:
    case JSON_ARRAY:
        err = container_from_json(json, depth, node);
        break;
    case JSON_STRING:
        node->text = xstrdup(json_string_value(json));
        node->quoted = true;
        break;
    case JSON_INTEGER:
        node->text = xasprintf("%" PRId64, (int64_t)json_integer_value(json));
        break;
    case JSON_REAL:
        node->text = xasprintf("%g", json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        node->text = xstrdup(json_is_true(json) ? "true" : "false");
        break;
    case JSON_NULL:
        node->text = xstrdup("");
        break;
    }
    if (err) {
        node_free(node);
        return err;
    }
    *result = node;
    return NULL;
}

struct err *node_from_json(const json_t *json, struct node **node)
{
    if (!json)
        return err_of(ERR_USAGE, "there is no JSON value");
    return from_json(json, 0, node);
}
