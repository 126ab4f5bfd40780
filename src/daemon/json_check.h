/*
 * JSON against JSON Schema (draft 2020-12), the part that our own schemas use: type, enum, const
 * ranges, lengths, pattern of names, items, properties, required, additionalProperties, anyOf, $ref
 * into the components. A keyword that is not known here is an error of the schema's author: a unit
 * test checks all of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_JSON_CHECK_H
#define TENON_DAEMON_JSON_CHECK_H

#include <jansson.h>

#include "base/base.h"
#include "base/err.h"

/* `schemas`: what "#/components/schemas/NAME" means. The error names the place: "keys[2]: ...". */
struct err *json_check(const json_t *schemas, const json_t *schema, const json_t *value);
/* NULL when json_check() knows every keyword of the schema. */
struct err *json_check_schema(const json_t *schema);
/* Text of a query as the value that a schema of a plain type wants; NULL: it is none. */
json_t *json_check_from_text(const json_t *schema, const char *text);

/* Text of a client as JSON: bytes that are no UTF-8 become question marks. */
json_t *json_text(const char *text);

#endif
