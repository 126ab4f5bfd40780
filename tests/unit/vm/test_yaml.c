/*
 * YAML reading: positions, and everything of YAML that a VM file must not use.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "vm/node.h"

static struct node *parse(const char *text)
{
    struct node *node;
    struct err *err = node_parse_yaml(text, strlen(text), "f", &node);

    if (err)
        fail_msg("unexpected: %s", err_text(err));
    return node;
}

static void refused_bytes(const char *text, size_t len, const char *error)
{
    struct node *node;
    struct err *err = node_parse_yaml(text, len, "f", &node);

    if (!err)
        fail_msg("accepted; expected: %s", error);
    assert_string_equal(err_text(err), error);
    assert_null(node);
    err_free(err);
}

static void refused(const char *text, const char *error)
{
    refused_bytes(text, strlen(text), error);
}

static void test_positions(void **state)
{
    struct node *node = parse("# comment\na: 1\nb:\n  - x\n  - c: \"\"\n    d: 'q'\n");

    assert_int_equal(node->kind, NODE_MAP);
    assert_int_equal(node->count, 2);
    assert_string_equal(node->items[0]->name, "a");
    assert_string_equal(node->items[0]->text, "1");
    assert_false(node->items[0]->quoted);
    assert_int_equal(node->items[0]->line, 2);
    assert_int_equal(node->items[0]->column, 4);
    const struct node *list = node->items[1];
    assert_int_equal(list->name_line, 3);
    assert_int_equal(list->kind, NODE_LIST);
    assert_int_equal(list->items[0]->line, 4);
    assert_int_equal(list->items[0]->column, 5);
    const struct node *map = list->items[1];
    assert_string_equal(map->items[0]->text, "");
    assert_true(map->items[0]->quoted);
    assert_string_equal(map->items[1]->text, "q");
    assert_int_equal(map->items[1]->name_line, 6);
    assert_int_equal(map->items[1]->name_column, 5);
    node_free(node);
}

static void test_empty(void **state)
{
    const char *const texts[] = {"", "# only a comment\n", "---\n...\n"};

    for (size_t i = 0; i < 2; i++) {
        struct node *node = parse(texts[i]);
        assert_int_equal(node->kind, NODE_MAP);
        assert_int_equal(node->count, 0);
        node_free(node);
    }
}

static void test_refused(void **state)
{
    refused("a: !str x", "f:1:4: tags ('!str') are not supported: remove it");
    refused("a: &x 1", "f:1:4: anchors ('&x') are not supported: remove it");
    refused("a: *x", "f:1:4: aliases ('*x') are not supported: write the value again");
    refused("a: !!map {}", "f:1:4: tags ('tag:yaml.org,2002:map') are not supported: remove it");
    refused("a: &y [1]", "f:1:4: anchors ('&y') are not supported: remove it");
    refused("a: 1\nb: 2\na: 3", "f:3:1: key 'a' appears twice (first in line 1): remove one");
    refused("[a]: 1", "f:1:1: a key must be a word");
    refused("&k a: 1", "f:1:1: anchors ('&k') are not supported: remove it");
    refused("a: 1\n---\nb: 2", "f:2:1: a second document begins: a VM file holds one VM");
    refused("a: \"\\0\"", "f:1:4: a value must not hold a zero byte");
    refused("\"a\\0\": 1", "f:1:1: a key must not hold a zero byte");
    refused("a: 1\n b: 2", "f:2:3: not valid YAML: mapping values are not allowed in this context");
    refused("a: [1", "f:2:1: not valid YAML: while parsing a flow sequence, did not find expected "
                     "',' or ']'");
    refused("a:\n\t- b", "f:2:1: not valid YAML: while scanning for the next token, found "
                         "character that cannot start any token");
    refused_bytes("a: \xff\xfe", 5,
                  "f:1:1: not readable as YAML text: invalid leading UTF-8 octet");
    refused("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
            "f:1:18: nested deeper than 16 levels");
}

static void test_limits(void **state)
{
    struct buf text = BUF_INIT;

    for (unsigned i = 0; i < 10001; i++)
        buf_text(&text, "- a\n");
    refused_bytes((const char *)text.data, text.len,
                  "f:10000:3: more than 10000 values: split the file");
    buf_extend(&text, MIB(1));
    struct node *node;
    struct err *err = node_parse_yaml((const char *)text.data, text.len, "f", &node);
    assert_non_null(err);
    assert_non_null(strstr(err_text(err), "too many for a VM file"));
    err_free(err);
    buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
