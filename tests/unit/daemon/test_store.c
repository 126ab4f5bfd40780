/*
 * tenond's state: what is written is read again, also by the next one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/store.h"

struct fixture {
    char path[64];
    struct store *store;
};

static int setup(void **state)
{
    struct fixture *fixture = xcalloc(1, sizeof(*fixture));

    strcpy(fixture->path, "/tmp/tenon-store-XXXXXX");
    close(mkstemp(fixture->path));
    assert_ok(store_open(fixture->path, &fixture->store));
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    store_close(fixture->store);
    unlink(fixture->path);
    free(fixture);
    return 0;
}

static void reopen(struct fixture *fixture)
{
    store_close(fixture->store);
    assert_ok(store_open(fixture->path, &fixture->store));
}

static struct err *look_at_vm(void *opaque, const char *name, json_t *config, uint64_t created_ns,
                              const struct store_process *process, json_t *last)
{
    unsigned *count = opaque;

    ++*count;
    assert_string_equal(name, "web");
    assert_int_equal(json_integer_value(json_object_get(config, "cpus")), 2);
    assert_int_equal(created_ns, 7);
    assert_int_equal(process->pid, 42);
    assert_int_equal(process->started, 99);
    assert_string_equal(json_string_value(json_object_get(last, "result")), "quit");
    return NULL;
}

static void test_vms(void **state)
{
    struct fixture *fixture = *state;
    json_t *config = json_pack("{s:i}", "cpus", 1), *better = json_pack("{s:i}", "cpus", 2);
    json_t *last = json_pack("{s:s}", "result", "quit");
    const struct store_process process = {42, 99};
    unsigned count = 0;

    assert_ok(store_vm_put(fixture->store, "web", config, 7));
    assert_ok(store_vm_process(fixture->store, "web", &process));
    assert_ok(store_vm_last(fixture->store, "web", last));
    assert_ok(store_vm_put(fixture->store, "web", better, 8)); /* keeps the rest */
    reopen(fixture);
    assert_ok(store_vms(fixture->store, look_at_vm, &count));
    assert_int_equal(count, 1);
    assert_ok(store_vm_delete(fixture->store, "web"));
    assert_ok(store_vms(fixture->store, look_at_vm, &count));
    assert_int_equal(count, 1);
    json_decref(config);
    json_decref(better);
    json_decref(last);
}

static void test_tokens(void **state)
{
    struct fixture *fixture = *state;
    struct store_token token = {.name = "ci", .role = "viewer", .created_ns = 1, .hash = {1, 2}};
    struct store_token read;
    bool found;

    assert_ok(store_token_add(fixture->store, &token));
    assert_err(store_token_add(fixture->store, &token), "token 'ci' already");
    reopen(fixture);
    assert_ok(store_token_find(fixture->store, token.hash, &read, &found));
    assert_true(found);
    assert_string_equal(read.role, "viewer");
    assert_null(read.vms);
    store_token_fini(&read);
    assert_ok(store_token_remove(fixture->store, "ci", &found));
    assert_true(found);
    assert_ok(store_token_remove(fixture->store, "ci", &found));
    assert_false(found);
    assert_ok(store_token_find(fixture->store, token.hash, &read, &found));
    assert_false(found);
}

static void test_later_version(void **state)
{
    struct fixture *fixture = *state;
    struct store *store;

    assert_ok(store_set(fixture->store, "version", "999"));
    assert_err(store_open(fixture->path, &store), "later tenond");
}

static void test_no_database(void **state)
{
    struct store *store;

    assert_err(store_open("/etc/passwd", &store), "/etc/passwd");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_vms, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(test_later_version, setup, teardown),
        cmocka_unit_test(test_no_database),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
