/*
 * tenon attest: what has a VM started, by the word of its TPM? Asks swtpm, past the guest, for a
 * signed list of PCRs, finds the event log that leads to them, and compares it with a reference.
 *
 * Exit status: 0 all is as in the reference, or there is none; 1 something has changed, or cannot
 * be proved.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/attest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "attest/compare.h"
#include "cmd/command.h"
#include "cmd/registry.h"

static const struct option_spec options[] = {
    {"save", "FILE", "Write what was measured to this file, as a reference for later."},
    {"reference", "FILE", "Say what is different from this reference; status 1 if anything is."},
    {"log", "FILE",
     "Take the event log from this file (a copy of the guest's binary_bios_measurements), not from "
     "the VM's memory."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

struct attest {
    const char *vm, *save, *reference, *log_path;
    struct qmp_client client;
    struct tpm_key key;
    uint8_t pcr[TPM_PCRS][TPM_SHA256_SIZE];
    struct event_log log;
};

/* --- the TPM --- */

static struct err *run_command(void *opaque, const uint8_t *command, size_t len, struct buf *reply)
{
    struct qmp_client *client = opaque;
    struct buf hex = BUF_INIT;
    json_t *result = NULL;

    for (size_t i = 0; i < len; i++)
        buf_printf(&hex, "%02x", command[i]);
    struct err *err = qmp_client_run(client, "tpm-command",
                                     json_pack("{s:s}", "command", (char *)hex.data), -1, &result);
    buf_fini(&hex);
    const char *text = json_string_value(json_object_get(result, "response"));
    for (unsigned byte; text && sscanf(text, "%2x", &byte) == 1 && strlen(text) > 1; text += 2)
        buf_u8(reply, (uint8_t)byte);
    json_decref(result);
    return err;
}

static struct err *ask_tpm(struct attest *attest)
{
    const struct tpm_transport tpm = {run_command, &attest->client};
    uint8_t nonce[TPM_NONCE_SIZE];
    struct tpm_quote quote;

    if (getrandom(nonce, sizeof(nonce), 0) != sizeof(nonce))
        return err_errno(errno, "no random numbers");
    TRY(tpm_read_key(&tpm, &attest->key));
    TRY(tpm_read_pcrs(&tpm, attest->pcr));
    TRY(tpm_quote(&tpm, nonce, &quote));
    return tpm_quote_verify(&quote, &attest->key, nonce, attest->pcr);
}

/* --- the log --- */

static struct err *read_log(const char *path, struct event_log *log)
{
    scoped(free_cleanup) uint8_t *bytes = xcalloc(1, EVENT_LOG_MAX);
    FILE *file = fopen(path, "rb");

    if (!file)
        return err_errno(errno, "--log: cannot open '%s'", path);
    size_t len = fread(bytes, 1, EVENT_LOG_MAX, file);
    fclose(file);
    return err_wrap(event_log_parse(bytes, len, log), "--log '%s'", path);
}

static void print_stage(const char *name, const char *state, const char *what)
{
    printf("  %-18s %s%s%s\n", name, state, what ? ": " : "", what ? what : "");
}

/* False: something is not proved. */
static bool print_proof(const struct attest *attest)
{
    uint32_t open = event_log_unexplained(&attest->log, (uint8_t(*)[TPM_SHA256_SIZE])attest->pcr);

    printf("VM '%s': the quote is genuine", attest->vm);
    if (!open) {
        printf(", and %u events lead to its PCRs\n", attest->log.count);
        return true;
    }
    printf(", but the %u events of the log do not lead to PCR", attest->log.count);
    for (unsigned i = 0; i < TPM_PCRS; i++) {
        if (open >> i & 1)
            printf(" %u", i);
    }
    printf("\n");
    return false;
}

/* --- the reference --- */

static struct err *save(const struct attest *attest)
{
    json_t *reference = reference_make(&attest->key, &attest->log);
    bool good = reference && json_dump_file(reference, attest->save, JSON_INDENT(1)) == 0;

    json_decref(reference);
    return good ? NULL : err_errno(errno, "--save: cannot write '%s'", attest->save);
}

static struct err *compare(const struct attest *attest, bool *same)
{
    json_error_t where;
    struct difference difference;
    json_t *reference = json_load_file(attest->reference, JSON_REJECT_DUPLICATES, &where);

    if (!reference)
        return err_new("--reference '%s': %s", attest->reference, where.text);
    struct err *err = reference_compare(reference, &attest->key, &attest->log, &difference);
    json_decref(reference);
    if (err)
        return err_wrap(err, "--reference '%s'", attest->reference);
    if (difference.key)
        print_stage("TPM", "CHANGED", "another attestation key");
    *same = !difference.key;
    for (unsigned i = 0; i < STAGES; i++) {
        print_stage(event_stage_name((enum event_stage)i),
                    difference.changed[i] ? "CHANGED" : "unchanged", difference.what[i]);
        *same &= !difference.changed[i];
    }
    difference_fini(&difference);
    return NULL;
}

/* --- the command --- */

static struct err *read_arguments(int argc, char **argv, struct attest *attest)
{
    for (int i = 1; i < argc;) {
        struct option_arg arg;
        struct err *err = option_next(argc, argv, &i, options, NULL, NULL, &arg);
        if (!err && !arg.spec && attest->vm)
            err = err_of(ERR_USAGE, "'%s' is one word too many: give one VM", arg.value);
        else if (!err && !arg.spec)
            attest->vm = arg.value;
        else if (!err && !strcmp(arg.name, "save"))
            attest->save = arg.value;
        else if (!err && !strcmp(arg.name, "reference"))
            attest->reference = arg.value;
        else if (!err) /* --help does not come here */
            attest->log_path = arg.value;
        option_arg_fini(&arg);
        TRY(err);
    }
    return attest->vm ? NULL : err_of(ERR_USAGE, "give a VM: its name or PID, see `tenon ps`");
}

static struct err *judge(struct attest *attest, int *status)
{
    bool same = true;

    TRY(ask_tpm(attest));
    TRY(attest->log_path ? read_log(attest->log_path, &attest->log)
                         : attest_find_log(&attest->client, attest->pcr, &attest->log));
    bool proved = print_proof(attest);
    if (attest->reference)
        TRY(compare(attest, &same));
    *status = proved && same ? 0 : ERR_FAILED;
    if (attest->save && !proved)
        return err_new("--save: what is not proved is no reference");
    return attest->save ? save(attest) : NULL;
}

static struct err *attest(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct attest attest = {0};

    TRY(read_arguments(argc, argv, &attest));
    struct err *err = registry_open(attest.vm, &attest.client);
    if (!err)
        err = judge(&attest, status);
    qmp_client_close(&attest.client);
    event_log_fini(&attest.log);
    return err_wrap(err, "VM '%s'", attest.vm);
}

const struct command command_attest = {
    .name = "attest",
    .usage = "attest VM [OPTIONS]",
    .summary = "Prove what a VM has started, by its TPM",
    .run = attest,
    .options = options,
};
