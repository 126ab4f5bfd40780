/*
 * Unit tests of src/state: equal bytes after a round trip, and every damaged stream refused.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "../test.h"
#include "state/state.h"

struct leaf {
    uint16_t value;
    bool on;
};

struct tree {
    uint8_t small;
    uint64_t big[3];
    uint8_t blob[5];
    struct leaf fixed[2];
    struct leaf *leaves;
    uint32_t leaf_count;
    int derived;
};

static const struct state_field leaf_fields[] = {
    STATE_U16(1, leaf, value),
    STATE_BOOL(2, leaf, on),
};

static const struct state_table leaf_table = {
    .name = "leaf",
    .version = 1,
    .min_version = 1,
    .size = sizeof(struct leaf),
    .fields = leaf_fields,
    .field_count = ARRAY_SIZE(leaf_fields),
};

static const struct state_field tree_fields[] = {
    STATE_U8(1, tree, small),
    STATE_U64(2, tree, big),
    STATE_BYTES(3, tree, blob),
    STATE_STRUCT(4, tree, fixed, &leaf_table),
    STATE_ARRAY(5, tree, leaves, leaf_count, leaf, &leaf_table),
};

static struct err *tree_check(const void *staged)
{
    const struct tree *tree = staged;
    return tree->small > 100 ? err_new("small is %u", tree->small) : NULL;
}

static void tree_post_load(void *object)
{
    struct tree *tree = object;
    tree->derived = tree->small * 2;
}

static const struct state_table tree_table = {
    .name = "tree",
    .version = 1,
    .min_version = 1,
    .size = sizeof(struct tree),
    .fields = tree_fields,
    .field_count = ARRAY_SIZE(tree_fields),
    .check = tree_check,
    .post_load = tree_post_load,
};

static struct leaf sample_leaves[3] = {{7, true}, {8, false}, {9, true}};
static const struct tree sample = {
    .small = 42,
    .big = {1, UINT64_MAX, 3},
    .blob = "abcd",
    .fixed = {{1, true}, {2, false}},
    .leaves = sample_leaves,
    .leaf_count = 3,
};

static struct tree *fresh(void)
{
    struct tree *tree = xcalloc(1, sizeof(*tree));
    tree->leaf_count = 3;
    tree->leaves = xcalloc(3, sizeof(struct leaf));
    return tree;
}

static void release(struct tree *tree)
{
    free(tree->leaves);
    free(tree);
}

static void save(const struct tree *tree, struct state_writer *writer)
{
    struct tree copy = *tree;
    state_writer_init(writer);
    state_save(writer, &tree_table, "oak", &copy);
    state_writer_end(writer);
}

static struct err *load(struct tree *tree, const uint8_t *data, size_t len)
{
    struct state_reader reader;
    TRY(state_reader_init(&reader, data, len));
    TRY(state_load(&reader, &tree_table, "oak", tree));
    return state_reader_end(&reader);
}

static void a_round_trip_gives_equal_bytes(void **state)
{
    struct state_writer first, second;
    save(&sample, &first);
    struct tree *tree = fresh();
    assert_ok(load(tree, first.out.data, first.out.len));
    assert_int_equal(tree->big[1] == UINT64_MAX, 1);
    assert_int_equal(tree->leaves[2].value, 9);
    assert_int_equal(tree->derived, 84);
    save(tree, &second);
    assert_int_equal(first.out.len, second.out.len);
    assert_memory_equal(first.out.data, second.out.data, first.out.len);
    state_writer_fini(&first);
    state_writer_fini(&second);
    release(tree);
}

static void every_cut_and_every_flip_is_refused(void **state)
{
    struct state_writer writer;
    save(&sample, &writer);
    for (size_t len = 0; len < writer.out.len; len++) {
        /* A copy of the exact size lets the address sanitizer see a read past the cut. */
        uint8_t *cut = malloc(len ? len : 1);
        memcpy(cut, writer.out.data, len);
        struct tree *tree = fresh();
        struct err *err = load(tree, cut, len);
        assert_non_null(err);
        err_free(err);
        release(tree);
        free(cut);
    }
    for (size_t bit = 0; bit < writer.out.len * 8; bit++) {
        writer.out.data[bit / 8] ^= 1u << (bit % 8);
        struct tree *tree = fresh();
        struct err *err = load(tree, writer.out.data, writer.out.len);
        assert_non_null(err);
        err_free(err);
        release(tree);
        writer.out.data[bit / 8] ^= 1u << (bit % 8);
    }
    state_writer_fini(&writer);
}

static void a_refused_section_changes_nothing(void **state)
{
    struct tree bad = sample;
    bad.small = 101;
    struct state_writer writer;
    save(&bad, &writer);
    struct tree *tree = fresh();
    assert_err(load(tree, writer.out.data, writer.out.len), "state of tree 'oak': small is 101");
    assert_int_equal(tree->small, 0);
    assert_int_equal(tree->leaves[0].value, 0);
    release(tree);
    state_writer_fini(&writer);
}

static void the_live_object_decides_the_count(void **state)
{
    struct state_writer writer;
    save(&sample, &writer);
    struct tree *tree = fresh();
    tree->leaf_count = 2;
    assert_err(load(tree, writer.out.data, writer.out.len), "more than 2 elements");
    release(tree);
    state_writer_fini(&writer);
}

static void the_dump_is_readable(void **state)
{
    struct buf out = BUF_INIT;
    state_dump_json(&tree_table, &sample, &out);
    assert_string_equal((char *)out.data,
                        "{\"small\":42,\"big\":[1,18446744073709551615,3],\"blob\":\"6162636400\","
                        "\"fixed\":[{\"value\":1,\"on\":true},{\"value\":2,\"on\":false}],"
                        "\"leaves\":[{\"value\":7,\"on\":true},{\"value\":8,\"on\":false},"
                        "{\"value\":9,\"on\":true}]}");
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_round_trip_gives_equal_bytes),
        cmocka_unit_test(every_cut_and_every_flip_is_refused),
        cmocka_unit_test(a_refused_section_changes_nothing),
        cmocka_unit_test(the_live_object_decides_the_count),
        cmocka_unit_test(the_dump_is_readable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
