/*
 * tenon firmware: the Secure Boot keys in a VM's variable store, shown and enrolled. Whoever has
 * the file owns the platform: no signature is asked for, as one would be by the firmware.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/block.h"
#include "cmd/command.h"
#include "cmd/firmware_files.h"
#include "cmd/run.h"
#include "uefi/secure_boot.h"
#include "uefi/signature_file.h"
#include "uefi/signature_list.h"

static const struct option_spec options[] = {
    {"pk", "FILE", "enroll: the platform key, which owns the machine: one certificate."},
    {"kek", "FILE", "enroll: a key whose owner may change db and dbx from within the guest."},
    {"db", "FILE", "enroll: what may start: a certificate, or an EFI program by its hash."},
    {"dbx", "FILE", "enroll: what may not start, whoever signed it."},
    {"defaults", NULL, "enroll: begin with the keys of Debian and Microsoft (package ovmf)."},
    {"clear", NULL,
     "enroll: begin without any key. Alone it turns Secure Boot off: a guest may enroll its own."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

#define FILES_MAX 64

/* The owner of the signatures that the user adds. */
static const struct guid ours =
    GUID(0x3a1c6b52, 0x6d0f, 0x4f0e, 0x9b, 0x5c, 0x54, 0x65, 0x6e, 0x6f, 0x6e, 0x01);

struct request {
    const char *verb, *vm;
    struct {
        enum secure_boot_variable variable;
        const char *path;
    } file[FILES_MAX];
    unsigned files;
    bool defaults, clear;
};

/* --- arguments --- */

static struct err *add_file(struct request *request, const char *option, const char *path)
{
    static const char *const names[SECURE_BOOT_VARIABLES] = {"pk", "kek", "db", "dbx"};

    if (request->files == FILES_MAX)
        return err_of(ERR_USAGE, "give at most %d files", FILES_MAX);
    for (unsigned i = 0; i < SECURE_BOOT_VARIABLES; i++) {
        if (!strcmp(names[i], option))
            request->file[request->files].variable = (enum secure_boot_variable)i;
    }
    request->file[request->files++].path = path;
    return NULL;
}

static struct err *take_argument(struct request *request, const struct option_arg *arg)
{
    if (!arg->spec && request->vm)
        return err_of(ERR_USAGE, "'%s' is one word too many: give one VM or store", arg->value);
    if (!arg->spec) {
        *(request->verb ? &request->vm : &request->verb) = arg->value;
        return NULL;
    }
    if (arg->spec->value)
        return add_file(request, arg->name, arg->value);
    *(!strcmp(arg->name, "clear") ? &request->clear : &request->defaults) = true;
    return NULL; /* --help does not come here */
}

static struct err *read_arguments(int argc, char **argv, struct request *request)
{
    for (int i = 1; i < argc;) {
        struct option_arg arg;
        struct err *err = option_next(argc, argv, &i, options, NULL, NULL, &arg);
        if (!err)
            err = take_argument(request, &arg);
        option_arg_fini(&arg);
        TRY(err);
    }
    bool enrolls = request->verb && !strcmp(request->verb, "enroll");
    bool changes = request->files || request->clear || request->defaults;
    if (!request->verb || (!enrolls && strcmp(request->verb, "show") != 0))
        return err_of(ERR_USAGE, "say what to do: show VM, or enroll VM");
    if (!request->vm)
        return err_of(ERR_USAGE, "give a VM by its name, or the file of its variable store");
    if (!enrolls && changes)
        return err_of(ERR_USAGE, "show changes nothing: use enroll");
    if (enrolls && !changes)
        return err_of(ERR_USAGE,
                      "give keys: --pk, --kek, --db or --dbx FILE, --defaults or --clear");
    if (request->clear && request->defaults)
        return err_of(ERR_USAGE, "--clear and --defaults are two beginnings: give one");
    return NULL;
}

/* --- the store --- */

/* A path is one with a slash, or of a file that is there. */
static struct err *find_store(const char *vm, char **path)
{
    if (!strchr(vm, '/') && access(vm, F_OK) != 0)
        return firmware_store_path(firmware_find("secure"), vm, path);
    /* What a link leads to, so that enrolling replaces that. */
    *path = realpath(vm, NULL);
    if (!*path)
        *path = xstrdup(vm);
    return NULL;
}

static struct err *open_store(int fd, const char *path, struct variable_store *store)
{
    uint8_t *bytes = NULL;
    size_t len;

    *store = (struct variable_store){0};
    struct err *err = firmware_read_store(fd, path, &bytes, &len);
    if (err) {
        free(bytes);
        return err;
    }
    return firmware_store_error(path, variable_store_open(bytes, len, store));
}

static struct err *print_variable(const struct variable_store *store,
                                  enum secure_boot_variable variable)
{
    struct signature_reader reader = {0};
    struct signature signature;
    struct err *err;

    reader.at = secure_boot_get(store, variable, &reader.left);
    while (signature_next(&reader, &signature, &err)) {
        struct signature_text text;
        signature_describe(&signature, &text);
        printf("  %-4s %-7s %s%s%s\n", secure_boot_name(variable), text.type, text.digest,
               *text.name ? "  " : "", text.name);
    }
    return err_wrap(err, "%s", secure_boot_name(variable));
}

static struct err *print_store(const char *path, const struct variable_store *store)
{
    static const char *const states[] = {
        [SECURE_BOOT_SETUP] = "Secure Boot is off: there is no platform key",
        [SECURE_BOOT_OFF] = "Secure Boot is turned off",
        [SECURE_BOOT_ON] = "Secure Boot is on",
    };

    printf("%s: %s\n", path, states[secure_boot_state(store)]);
    for (unsigned i = 0; i < SECURE_BOOT_VARIABLES; i++)
        TRY(err_wrap(print_variable(store, (enum secure_boot_variable)i), "'%s'", path));
    return NULL;
}

static struct err *show(const char *path, struct variable_store *store)
{
    scoped(fd_cleanup) int fd = -1;

    TRY(run_open_file("variable store", path, O_RDONLY, &fd));
    TRY(open_store(fd, path, store));
    return print_store(path, store);
}

/* --- enrolling --- */

/* What the template has, or nothing, in the place of what the store has. */
static struct err *begin(struct variable_store *store, const char *template)
{
    struct variable_store defaults = {0};
    scoped(fd_cleanup) int fd = -1;
    struct err *err = NULL;

    if (template) {
        TRY(run_open_file("variable template", template, O_RDONLY, &fd));
        err = open_store(fd, template, &defaults);
    }
    for (unsigned i = 0; i < SECURE_BOOT_VARIABLES && !err; i++) {
        size_t len = 0;
        const uint8_t *list =
            template ? secure_boot_get(&defaults, (enum secure_boot_variable)i, &len) : NULL;
        err = secure_boot_set(store, (enum secure_boot_variable)i, list, len);
    }
    variable_store_fini(&defaults);
    return err;
}

/* Keys that own something are certificates, and the platform has one owner. */
static struct err *check_keys(enum secure_boot_variable variable, const struct buf *list)
{
    struct signature_reader reader = {.at = list->data, .left = list->len};
    struct signature signature;
    struct err *err;
    unsigned count = 0;

    for (; signature_next(&reader, &signature, &err); count++) {
        if (variable <= SECURE_BOOT_KEK && !guid_is(signature.type, &signature_x509))
            return err_new("%s takes certificates only", secure_boot_name(variable));
    }
    if (!err && variable == SECURE_BOOT_PK && count != 1)
        return err_new("it holds %u certificates, and the platform key is one", count);
    return err;
}

static struct err *enroll_file(struct variable_store *store, enum secure_boot_variable variable,
                               const char *path)
{
    struct buf all = BUF_INIT, list = BUF_INIT;
    size_t len;

    struct err *err = signature_file_read(path, &ours, &list);
    if (!err)
        err = err_wrap(check_keys(variable, &list), "'%s'", path);
    const uint8_t *before = secure_boot_get(store, variable, &len);
    if (len && variable != SECURE_BOOT_PK)
        buf_append(&all, before, len);
    if (!err)
        err = signature_list_join(&all, list.data, list.len);
    if (!err)
        err = secure_boot_set(store, variable, all.data, all.len);
    buf_fini(&all);
    buf_fini(&list);
    return err;
}

static struct err *change(const struct request *request, const struct firmware *firmware,
                          struct variable_store *store)
{
    if (request->clear || request->defaults)
        TRY(begin(store, request->defaults ? firmware->variables : NULL));
    for (unsigned i = 0; i < request->files; i++)
        TRY(enroll_file(store, request->file[i].variable, request->file[i].path));
    if (secure_boot_state(store) == SECURE_BOOT_SETUP && request->files)
        return err_new("there would be no platform key, and the firmware would enforce nothing: "
                       "give --pk too");
    TRY(secure_boot_enforce(store));
    return variable_store_pack(store);
}

static struct err *enroll(const struct request *request, const char *path,
                          struct variable_store *store)
{
    const struct firmware *firmware = firmware_find("secure");
    scoped(fd_cleanup) int fd = -1;

    TRY(firmware_check_package(firmware));
    TRY(firmware_make_store(firmware, path));
    TRY(run_open_file("variable store", path, O_RDWR, &fd));
    TRY(block_lock_file(fd, path, false));
    TRY(open_store(fd, path, store));
    TRY(change(request, firmware, store));
    TRY(firmware_write_store(path, store->bytes, store->len, true));
    return print_store(path, store);
}

static struct err *firmware(int argc, char **argv, uint64_t started_ns, int *status)
{
    scoped(free_cleanup) char *path = NULL;
    struct variable_store store = {0};
    struct request request = {0};

    TRY(read_arguments(argc, argv, &request));
    TRY(find_store(request.vm, &path));
    struct err *err =
        !strcmp(request.verb, "show") ? show(path, &store) : enroll(&request, path, &store);
    variable_store_fini(&store);
    return err;
}

const struct command command_firmware = {
    .name = "firmware",
    .usage = "firmware show|enroll VM|STORE [OPTIONS]",
    .summary = "Show and enroll the Secure Boot keys of a VM",
    .run = firmware,
    .options = options,
};
