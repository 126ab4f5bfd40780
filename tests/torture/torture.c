/*
 * A guest that does its worst to the software engine: random bytes and the most dangerous
 * instructions, with random operands, as kernel and as user code, over random tables, and under
 * each of the engine's modes. It may do to itself what it likes; the engine must stay, come back
 * when it is kicked, and leave alone what lies around the guest's memory.
 *
 *   torture [--seconds N] [--seed N] [--rounds N]
 *
 * In the rounds under lockstep, translated code and interpreter must agree as well, but where the
 * guest changed its page tables and did not flush: either may then be right.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include "../unit/accel/soft_rig.h"

#define CODE 0x100000u
#define CODE_SIZE 0x4000u
#define HANDLERS 0xc000u /* 32 bytes a vector */
#define CANARY_SIZE 0x10000u
#define CANARY 0xa5
#define KICK_MS 4
#define STUCK_S 60

struct torture {
    struct rig *rig;
    const char *modes;
    uint64_t state; /* of the random numbers */
    uint8_t *canary[2];
    pthread_t kicker;
    _Atomic bool stop;
    _Atomic uint64_t round;
    uint64_t ends[4]; /* by enum vm_exit_reason */
};

static uint64_t next_random(struct torture *t)
{
    uint64_t z = t->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static unsigned below(struct torture *t, unsigned n)
{
    return next_random(t) % n;
}

/* ---- what the guest consists of ---- */

/* Opcodes that reach far into the engine; ModRM, displacements and immediates follow at random. */
static const struct {
    uint8_t len, bytes[4];
} openings[] = {
    {2, {0x0f, 0x20}},
    {2, {0x0f, 0x22}},
    {2, {0x0f, 0x21}},
    {2, {0x0f, 0x23}},
    {2, {0x0f, 0x30}},
    {2, {0x0f, 0x32}},
    {2, {0x0f, 0x00}},
    {2, {0x0f, 0x01}},
    {2, {0x0f, 0x05}},
    {2, {0x0f, 0x07}},
    {3, {0x48, 0x0f, 0x07}},
    {2, {0x0f, 0x34}},
    {2, {0x0f, 0x35}},
    {2, {0x0f, 0xae}},
    {2, {0x0f, 0xc7}},
    {3, {0x48, 0x0f, 0xc7}},
    {2, {0x48, 0xcf}},
    {1, {0xcf}},
    {1, {0xcb}},
    {2, {0x48, 0xff}},
    {1, {0xff}},
    {2, {0xf3, 0xa4}},
    {2, {0xf3, 0xab}},
    {3, {0xf3, 0x48, 0xa5}},
    {2, {0xf3, 0xa6}},
    {2, {0xf2, 0xae}},
    {2, {0xf3, 0x6c}},
    {2, {0xf3, 0x6e}},
    {1, {0x8e}},
    {1, {0x8f}},
    {1, {0xc8}},
    {1, {0xc9}},
    {1, {0x9d}},
    {1, {0x9c}},
    {1, {0xcd}},
    {1, {0xf1}},
    {1, {0xcc}},
    {1, {0xf4}},
    {1, {0xfb}},
    {1, {0xfa}},
    {1, {0xe6}},
    {1, {0xed}},
    {3, {0xf0, 0x48, 0x0f}},
    {2, {0xf0, 0x0f}},
    {3, {0x66, 0x0f, 0x38}},
    {3, {0x66, 0x0f, 0x3a}},
    {3, {0xc4, 0xe2, 0x79}},
    {3, {0xc4, 0xe2, 0xfd}},
    {2, {0xc5, 0xfd}},
    {2, {0xc5, 0xf8}},
    {1, {0xd9}},
    {1, {0xdd}},
    {1, {0xdb}},
    {1, {0x65}},
    {1, {0x64}},
    {2, {0x0f, 0x09}},
    {2, {0x0f, 0xa2}},
    {2, {0x0f, 0x31}},
    {1, {0xe8}},
    {1, {0xe9}},
    {1, {0xeb}},
    {1, {0xe2}},
    {1, {0x75}},
    {1, {0x74}},
};

/* Addresses and values that matter somewhere. */
static uint64_t value(struct torture *t)
{
    static const uint64_t values[] = {0,
                                      1,
                                      RIG_TABLES,
                                      RIG_GDT,
                                      RIG_IDT,
                                      RIG_TSS,
                                      RIG_STACK,
                                      CODE,
                                      CODE + 0xffc,
                                      CODE + 0x1000,
                                      RIG_RAM - 8,
                                      RIG_RAM,
                                      RIG_RAM - 1,
                                      0xfee00000,
                                      0xfee00300,
                                      0xfec00000,
                                      0xd0000000,
                                      0x7ffffffffff8,
                                      0x7fffffffffff,
                                      0x800000000000,
                                      0xffff800000000000,
                                      ~0ull,
                                      ~7ull,
                                      0xc0000080,
                                      0xc0000082,
                                      0xc0000101,
                                      0x1b,
                                      0x6e0,
                                      0x80b,
                                      0x80050033,
                                      0x406b0};
    uint64_t r = next_random(t);
    switch (r & 3) {
    case 0:
        return next_random(t);
    case 1:
        return CODE + (r >> 8) % CODE_SIZE;
    default:
        return values[(r >> 8) % ARRAY_SIZE(values)] + (r & 4 ? 0 : (r >> 40) % 17 - 8);
    }
}

static void fill_code(struct torture *t, uint8_t *code, unsigned size)
{
    for (unsigned at = 0; at + 16 < size;) {
        unsigned kind = below(t, 8);
        if (kind < 3) {
            unsigned n = 1 + below(t, 12);
            for (unsigned i = 0; i < n; i++)
                code[at++] = next_random(t);
        } else if (kind < 6) {
            unsigned i = below(t, ARRAY_SIZE(openings));
            memcpy(code + at, openings[i].bytes, openings[i].len);
            at += openings[i].len;
            code[at++] = next_random(t);
        } else { /* mov r64, imm64 */
            unsigned reg = below(t, 16);
            code[at++] = 0x48 | reg >> 3;
            code[at++] = 0xb8 | (reg & 7);
            put_le64(code + at, value(t));
            at += 8;
        }
    }
}

/* Handlers that skip a byte of what faulted and go on; some are random code themselves. */
static void fill_handlers(struct torture *t)
{
    struct rig *rig = t->rig;
    static const uint8_t skip[] = {0x48, 0xff, 0x04, 0x24, 0x48, 0xcf};
    static const uint8_t skip_error[] = {0x48, 0x83, 0xc4, 0x08, 0x48,
                                         0xff, 0x04, 0x24, 0x48, 0xcf};
    for (unsigned vector = 0; vector < 256; vector++) {
        uint32_t at = HANDLERS + 32 * (vector & 31);
        bool error = soft_vector_has_error((int)vector);
        if (below(t, 12) == 0)
            fill_code(t, rig->ram + at, 32);
        else if (error)
            memcpy(rig->ram + at, skip_error, sizeof(skip_error));
        else
            memcpy(rig->ram + at, skip, sizeof(skip));
        rig_gate(rig, vector, at, below(t, 2) ? 0x8e : 0xee, below(t, 8) ? 0 : 1);
    }
}

static void start_state(struct torture *t)
{
    struct rig *rig = t->rig;
    struct soft_vcpu *v = rig->v;
    rig_tables(rig);
    rig_long_mode(rig, CODE + below(t, CODE_SIZE / 2));
    fill_handlers(t);
    fill_code(t, rig->ram + CODE, CODE_SIZE);
    for (unsigned i = 0; i < 16; i++)
        if (i != X86_RSP || below(t, 4) == 0)
            v->r[i] = value(t);
    v->r[X86_RCX] &= below(t, 2) ? 0xffff : ~0ull;
    v->cr4 |= CR4_OSXSAVE | CR4_FSGSBASE | CR4_PGE;
    v->xcr0 = 7;
    soft_seg_base(v, X86_GS, value(t));
    v->msr.lstar = CODE + below(t, CODE_SIZE);
    v->msr.star = 0x0018000800000000ull;
    if (below(t, 2)) { /* user code */
        struct x86_segment code = {.limit = ~0u, .attr = 0xa0fb, .selector = 0x2b};
        struct x86_segment stack = {.limit = ~0u, .attr = 0xc0f3, .selector = 0x23};
        v->seg[X86_CS] = code;
        v->seg[X86_SS] = stack;
        soft_set_cpl(v, 3);
        soft_mode_changed(v);
    }
}

/* ---- around it ---- */

static void map_canaries(struct torture *t)
{
    const struct gmem_region *ram = gmem_region(t->rig->gmem, 0);
    uint8_t *places[2] = {(uint8_t *)ram->host - CANARY_SIZE, (uint8_t *)ram->host + ram->size};
    for (unsigned i = 0; i < 2; i++) {
        void *at = mmap(places[i], CANARY_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        t->canary[i] = at == MAP_FAILED ? NULL : at; /* gmem has a guard there itself */
        if (t->canary[i])
            memset(t->canary[i], CANARY, CANARY_SIZE);
    }
}

static void check_canaries(const struct torture *t)
{
    for (unsigned i = 0; i < 2; i++)
        for (unsigned j = 0; t->canary[i] && j < CANARY_SIZE; j++)
            if (t->canary[i][j] != CANARY) {
                printf("FAILED: memory %s guest RAM was written, byte %u\n",
                       i ? "behind" : "before", j);
                exit(1);
            }
}

/* Ends each round, and the program when a round does not end. */
static void *kick(void *opaque)
{
    struct torture *t = opaque;
    uint64_t seen = 0;
    unsigned same = 0;
    while (!atomic_load(&t->stop)) {
        nanosleep(&(struct timespec){.tv_nsec = KICK_MS * 1000000}, NULL);
        accel_soft.vcpu_kick(t->rig->vcpu);
        uint64_t now = atomic_load(&t->round);
        same = now == seen ? same + 1 : 0;
        seen = now;
        if (same > STUCK_S * 1000 / KICK_MS) {
            printf("FAILED: round %llu (%s) does not end\n", (unsigned long long)now,
                   t->modes ? t->modes : "no modes");
            fflush(stdout);
            abort();
        }
    }
    return NULL;
}

static void open_vm(struct torture *t, const char *modes)
{
    t->modes = modes;
    t->rig = rig_new_modes(modes);
    map_canaries(t);
    atomic_store(&t->stop, false);
    pthread_create(&t->kicker, NULL, kick, t);
}

static void close_vm(struct torture *t)
{
    atomic_store(&t->stop, true);
    pthread_join(t->kicker, NULL);
    check_canaries(t);
    for (unsigned i = 0; i < 2; i++)
        if (t->canary[i])
            munmap(t->canary[i], CANARY_SIZE);
    rig_free(t->rig);
}

static void run_round(struct torture *t, uint64_t seed)
{
    struct rig *rig = t->rig;
    t->state = seed;
    accel_soft.vcpu_reset(rig->vcpu);
    start_state(t);
    enum vm_exit_reason reason = rig_run(rig);
    t->ends[reason]++;
    atomic_fetch_add(&t->round, 1);
    if (reason == VM_EXIT_ERROR && strstr(rig->exit.error, "lockstep") &&
        !strstr(rig->exit.error, "stale translation")) {
        printf("FAILED: seed %#llx: %s\n", (unsigned long long)seed, rig->exit.error);
        exit(1);
    }
    check_canaries(t);
}

int main(int argc, char **argv)
{
    static const char *const modes[] = {NULL,
                                        "xlate-after=1",
                                        "xlate-after=1,tlb=4",
                                        "lockstep",
                                        "code-cache=64",
                                        "xlate-after=1,crossings",
                                        "xlate-after=0,poll",
                                        "lockstep,xlate-after=1"};
    static const struct option options[] = {
        {"seconds", 1, NULL, 't'}, {"seed", 1, NULL, 's'}, {"rounds", 1, NULL, 'n'}, {0}};
    struct torture t = {0};
    uint64_t seed = (uint64_t)time(NULL) * 0x9e3779b97f4a7c15ull, rounds = UINT64_MAX;
    time_t seconds = 20;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (o == '?')
            return 2;
        uint64_t number = strtoull(optarg, NULL, 0);
        if (o == 't')
            seconds = (time_t)number;
        else
            *(o == 's' ? &seed : &rounds) = number;
    }
    printf("seed %#llx\n", (unsigned long long)seed);
    fflush(stdout);
    time_t end = time(NULL) + seconds;
    for (uint64_t vm = 0; time(NULL) < end && t.round < rounds; vm++) {
        open_vm(&t, modes[vm % ARRAY_SIZE(modes)]);
        for (unsigned i = 0; i < 200 && time(NULL) < end && t.round < rounds; i++)
            run_round(&t, seed + t.round);
        close_vm(&t);
    }
    printf("%llu rounds: %llu kicked, %llu triple faults, %llu errors\n",
           (unsigned long long)t.round, (unsigned long long)t.ends[VM_EXIT_KICKED],
           (unsigned long long)t.ends[VM_EXIT_SHUTDOWN], (unsigned long long)t.ends[VM_EXIT_ERROR]);
    return t.ends[VM_EXIT_KICKED] ? 0 : 1;
}
