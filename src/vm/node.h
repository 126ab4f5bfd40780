/*
 * A tree of maps, lists and scalars with the place where each was written: what the schema reads,
 * whether it came as YAML or as JSON.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_NODE_H
#define TENON_VM_NODE_H

#include <jansson.h>

#include "base/base.h"
#include "base/err.h"

enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
    enum node_kind kind;
    unsigned line, column; /* from 1; line 0: not from a text */
    char *name;            /* key, when the parent is a map */
    unsigned name_line, name_column;
    char *text;          /* NODE_SCALAR */
    bool quoted;         /* a quoted "" is empty text, a plain nothing is no value */
    struct node **items; /* NODE_LIST, NODE_MAP; owned */
    size_t count;
};

void node_free(struct node *node);

/*
 * Parses one YAML document. Tags, anchors, aliases, merge keys, several documents, duplicate keys
 * and more than 16 levels or 10000 nodes are errors. Errors begin with "name:line:column: ".
 */
struct err *node_parse_yaml(const char *text, size_t len, const char *name, struct node **node);
/* The same tree out of JSON. */
struct err *node_from_json(const json_t *json, struct node **node);

#endif
