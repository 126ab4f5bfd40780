/*
 * Fuzz target: VM files. What parses must survive completion, and come back alike out of its JSON.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "vm/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_round_trip(const struct vm_config *config)
{
    struct vm_config copy;
    json_t *json = schema_to_json(config, false);

    vm_config_init(&copy);
    struct err *err = schema_from_json(json, &copy);
    json_t *again = schema_to_json(&copy, false);
    if (err || !json_equal(json, again))
        abort();
    json_decref(json);
    json_decref(again);
    vm_config_fini(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vm_config config;

    vm_config_init(&config);
    struct err *err = schema_parse_yaml((const char *)data, size, "dir/vm.yaml", &config);
    if (!err)
        err = schema_finish(&config);
    if (!err)
        check_round_trip(&config);
    err_free(err);
    vm_config_fini(&config);
    return 0;
}
