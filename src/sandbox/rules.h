/*
 * The rule sets that policies share. Inside src/sandbox only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_SANDBOX_RULES_H
#define TENON_SANDBOX_RULES_H

#include "sandbox/sandbox.h"

struct sandbox_rule_set {
    const struct sandbox_rule *rules;
    size_t count;
};

extern const struct sandbox_rule_set sandbox_rules_base;
extern const struct sandbox_rule_set sandbox_rules_threads;
/* Memory without PROT_EXEC, and with it. */
extern const struct sandbox_rule_set sandbox_rules_memory;
extern const struct sandbox_rule_set sandbox_rules_exec_memory;

#endif
