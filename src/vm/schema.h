/*
 * The VM schema: ONE table that describes a virtual machine. The flags of `tenon run`, the keys of
 * a VM file (YAML), the JSON of --dry-run and of the hand-over to tenon-vmm, and the help texts all
 * come from it, so that they cannot disagree.
 *
 * Order of use in a command: vm_config_init, schema_parse_yaml when there is a file,
 * schema_apply_flag for each flag, schema_finish. In tenon-vmm: vm_config_init, schema_from_json
 * (which expects a finished VM). Every error is ERR_USAGE and one sentence that names the thing and
 * says what to do.
 *
 * Any thread; there is no state but the config.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_SCHEMA_H
#define TENON_VM_SCHEMA_H

#include <jansson.h>

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "vm/config.h"

/*
 * Reads a VM file over `config`. `name` is its path as the user wrote it: errors begin with
 * "name:line:column: ", and relative paths in the file count from its directory.
 */
struct err *schema_parse_yaml(const char *text, size_t len, const char *name,
                              struct vm_config *config);

enum schema_flag_use {
    SCHEMA_FLAG_UNKNOWN, /* not a flag of the schema */
    SCHEMA_FLAG_VALUE,   /* needs a value */
    SCHEMA_FLAG_SWITCH,  /* stands alone: --rng, --no-rng; "--rng=off" is accepted too */
};
/* `flag` is without its dashes ("memory"). */
enum schema_flag_use schema_flag_use(const char *flag);
/* The known flag nearest to a mistyped one, for the command's error; NULL when none is near. */
const char *schema_flag_nearest(const char *flag);
/*
 * Applies one flag. `value` is NULL for a switch that stands alone. --disk, --net and --console add
 * an entry, or change the one whose id they name ("--disk id=d0,readonly"); --forward belongs to
 * the first net of kind user, which it makes when there is none. Relative paths stay relative to
 * the working directory.
 */
struct err *schema_apply_flag(struct vm_config *config, const char *flag, const char *value);

/*
 * After all input: fills what was left open (name, ids, queues, MAC addresses, a console, the
 * command line's console) and checks ranges and what must agree. The config is then complete but
 * for descriptors, and but for accel, which stays VM_ACCEL_AUTO if nobody chose.
 */
struct err *schema_finish(struct vm_config *config);

/* The resolved VM; with_fds adds the descriptor numbers that tenon-vmm inherits. The caller owns
 * it. */
json_t *schema_to_json(const struct vm_config *config, bool with_fds);
/* Reads what schema_to_json wrote, descriptor numbers included. */
struct err *schema_from_json(const json_t *json, struct vm_config *config);

/* The same, written by a user: no descriptors, and paths are absolute. */
struct err *schema_parse_json(const json_t *json, struct vm_config *config);
/* JSON Schema (draft 2020-12) of a VM, as OpenAPI 3.1 has it. The caller owns it. */
json_t *schema_json_schema(void);

/*
 * Calls `each` for every flag; `shape` is what its value is, "auto|kvm|soft", and NULL for a
 * switch, which comes a second time with "no-" in front. All is borrowed until it returns.
 */
void schema_each_flag(void (*each)(void *opaque, const char *flag, const char *shape,
                                   const char *help),
                      void *opaque);
/* The flags with their help, for `tenon run --help`, 79 columns. */
void schema_help(struct buf *out);
/* The keys of a VM file with their help, for `tenon run --help-file` and the manual. */
void schema_help_file(struct buf *out);
/* The same two as man(7) paragraphs for tenon-run(1): flags, then file keys. */
void schema_man_flags(struct buf *out);
void schema_man_file(struct buf *out);

#endif
