/*
 * Random instructions on the bare CPU against the engine: step by step, block by block, translated.
 *
 *   differential [--seed N] [--cases N] [--seconds N] [--only NAME] [--keep-going]
 *   differential --case SEED [--slot N]       one case, printed
 *
 * Prints its seed and ends with counts for each extension. A case that differs is printed with its
 * bytes, its state and how to repeat it; the status is 1 then, and 77 where the host cannot run it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>

#include "differential.h"
#include "values.h"

bool lenient;

struct run {
    struct engine *engine[ENGINES];
    struct forms forms;
    uint64_t seed;
    bool keep_going;
    uint64_t cases, finished, endless, failed;
    uint64_t vector[32];
};

static const char *const engine_names[ENGINES] = {"step by step", "interpreted", "translated"};

static void print_case(const struct test_case *test, unsigned slot)
{
    printf("  repeat: differential --case %#llx --slot %u\n", (unsigned long long)test->seed, slot);
    const uint8_t *at = test->code;
    while (at < test->code + test->length) {
        struct insn insn;
        enum decode_result result =
            decode(at, (unsigned)(test->code + test->length - at), INSN_64, ~0ull, &insn);
        printf("  %#llx ", (unsigned long long)(test->at + (at - test->code)));
        unsigned len = insn.len ? insn.len : 1;
        for (unsigned i = 0; i < len; i++)
            printf("%02x", at[i]);
        if (result == DECODE_OK)
            printf("  %s map %u opcode %02x", decode_name(insn.id), insn.map, insn.opcode);
        printf("\n");
        at += len;
    }
}

static void print_end(const struct outcome *native)
{
    printf("  vector %d, error %#llx at %#llx, cr2 %#llx\n", native->vector,
           (unsigned long long)native->error, (unsigned long long)native->out.rip,
           (unsigned long long)native->cr2);
}

static void count(struct run *run, struct test_case *test, const struct outcome *native)
{
    uint64_t end = native->out.rip;
    if (native->vector == VEC_BP && end == test->at + test->length)
        run->finished++;
    if (native->vector >= 0 && native->vector < 32)
        run->vector[native->vector]++;
    /* An instruction was executed if the case ended behind it; branches only skip. */
    for (unsigned i = 0; i < test->count; i++) {
        test->form[i]->cases++;
        if (end > test->at + test->start[i] && end <= test->at + test->length)
            test->form[i]->finished++;
    }
}

/* False when it differs. */
static bool run_case(struct run *run, struct test_case *test, unsigned slot, bool verbose)
{
    static struct outcome native, soft;
    if (verbose)
        print_case(test, slot);
    native_run(test, &native);
    run->cases++;
    if (native.vector == VEC_AC && !values_alignment())
        return true;
    if (native.vector == OUTCOME_ENDLESS) {
        run->endless++;
        return true;
    }
    count(run, test, &native);
    for (unsigned kind = 0; kind < ENGINES; kind++)
        /* Translated code runs twice: the second time its jumps lead on to each other. */
        for (unsigned i = 0; i < (kind == ENGINE_TRANSLATED ? 2u : 1u); i++) {
            engine_run(run->engine[kind], test, &soft);
            if (!outcome_compare(test, &native, &soft, NULL))
                continue;
            printf("DIFFERENCE, %s:\n", engine_names[kind]);
            print_case(test, slot);
            print_end(&native);
            outcome_compare(test, &native, &soft, stdout);
            fflush(stdout);
            return false;
        }
    if (verbose)
        print_end(&native);
    return true;
}

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

static void run_cases(struct run *run, uint64_t cases, double seconds)
{
    static struct test_case test;
    struct random random = {.state = run->seed};
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (unsigned slot = 0; run->cases < cases; slot++) {
        if (slot == SLOTS) {
            slot = 0;
            for (unsigned kind = 0; kind < ENGINES; kind++)
                engine_flush(run->engine[kind]);
        }
        case_make(&test, &run->forms, NULL, random_next(&random), slot);
        if (!run_case(run, &test, slot, false) && (run->failed++, !run->keep_going))
            break;
        if (run->cases % 256 == 0 && seconds_since(&start) > seconds)
            break;
    }
    printf("%llu cases in %.1f s, %llu differ; %llu ran to their end, %llu had no end\n",
           (unsigned long long)run->cases, seconds_since(&start), (unsigned long long)run->failed,
           (unsigned long long)run->finished, (unsigned long long)run->endless);
    printf("vectors:");
    for (unsigned i = 0; i < 32; i++)
        if (run->vector[i])
            printf(" %u: %llu", i, (unsigned long long)run->vector[i]);
    printf("\n");
    forms_report(&run->forms);
}

/* Leaves only the forms of one instruction or extension. */
static void keep_only(struct forms *forms, const char *name)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < forms->count; i++) {
        const struct form *form = &forms->form[i];
        if (!strcasecmp(decode_name(form->row->id), name) ||
            !strcmp(feature_name(form->row->feature), name))
            forms->form[kept++] = *form;
    }
    if (!kept) {
        fprintf(stderr, "differential: no instruction or extension '%s' here\n", name);
        exit(2);
    }
    forms->count = kept;
}

static void one_case(struct run *run, uint64_t seed, unsigned slot)
{
    static struct test_case test;
    case_make(&test, &run->forms, NULL, seed, slot);
    run->failed += !run_case(run, &test, slot, true);
}

/* Cases load FS and GS themselves, and all registers up to AVX. */
static void require_host(void)
{
    bool fsgsbase = getauxval(AT_HWCAP2) & 2;
    if (fsgsbase && __builtin_cpu_supports("avx2"))
        return;
    puts("skipped: the host lacks FSGSBASE or AVX2 in user code");
    exit(77);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seed", 1, NULL, 's'},       {"cases", 1, NULL, 'n'},
                                            {"seconds", 1, NULL, 't'},    {"only", 1, NULL, 'o'},
                                            {"case", 1, NULL, 'c'},       {"slot", 1, NULL, 'l'},
                                            {"keep-going", 0, NULL, 'k'}, {0}};
    struct run run = {.seed = (uint64_t)time(NULL) * 0x9e3779b97f4a7c15ull};
    uint64_t cases = UINT64_MAX, one = 0;
    double seconds = 1e9;
    unsigned slot = 0;
    const char *only = NULL;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 's':
            run.seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            cases = strtoull(optarg, NULL, 0);
            break;
        case 't':
            seconds = strtod(optarg, NULL);
            break;
        case 'o':
            only = optarg;
            break;
        case 'c':
            one = strtoull(optarg, NULL, 0);
            break;
        case 'l':
            slot = strtoul(optarg, NULL, 0) % SLOTS;
            break;
        case 'k':
            run.keep_going = true;
            break;
        default:
            return 2;
        }
    }
    require_host();
    for (unsigned kind = 0; kind < ENGINES; kind++)
        run.engine[kind] = engine_new(kind);
    native_init();
    lenient = !__builtin_cpu_is("intel");
    forms_make(&run.forms, engine_features(run.engine[0]));
    forms_probe(&run.forms);
    if (only)
        keep_only(&run.forms, only);
    printf("seed %#llx, %u forms\n", (unsigned long long)run.seed, run.forms.count);
    fflush(stdout);
    if (one)
        one_case(&run, one, slot);
    else
        run_cases(&run, cases, seconds);
    for (unsigned kind = 0; kind < ENGINES; kind++)
        engine_free(run.engine[kind]);
    return run.failed ? 1 : 0;
}
