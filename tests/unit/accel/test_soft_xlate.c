/*
 * The translator against the interpreter: random programs of 64-bit code (xlate_program.c) run in
 * both from the same state, and registers, flags, memory, the way they end and what devices saw
 * must be equal.
 *
 * The seed is printed; TENON_TEST_SEED repeats a run.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <sys/time.h>
#include <time.h>

#include "accel/soft/xlate/xlate.h"
#include "xlate_program.h"

struct outcome {
    uint64_t regs[16], rip;
    uint32_t flags;
    enum vm_exit_reason reason;
    unsigned reads, writes;
    uint64_t device;
    uint8_t data[8192], stack[4096], code[8192], xsave[X86_XSAVE_SIZE];
};

/* Registers of all kinds of numbers; all exceptions masked, mostly. */
static void random_vectors(struct fixture *f)
{
    memset(f->xsave, 0, sizeof(f->xsave));
    put_le16(f->xsave, 0x37f);
    bool narrow = below(f, 2);
    for (unsigned at = XS_XMM; at < XS_YMM + 256; at += 8) {
        if (at == XS_XMM + 256)
            at = XS_YMM;
        if (at >= XS_YMM && narrow)
            break;
        double number = (double)next_random(f) / 4096;
        uint64_t bits = next_random(f) << 8 ^ next_random(f);
        if (below(f, 2))
            memcpy(&bits, &number, 8);
        put_le64(f->xsave + at, bits);
    }
    put_le32(f->xsave + XS_MXCSR,
             (below(f, 16) ? 0x1f80 : below(f, 64) << 7) | below(f, 4) << 13 | below(f, 64));
    put_le32(f->xsave + XS_MXCSR_MASK, MXCSR_VALID);
    put_le64(f->xsave + XS_HEADER, 7);
}

static void random_state(struct fixture *f)
{
    random_vectors(f);
    uint64_t rip = f->regs[0];
    for (unsigned i = 0; i < 16; i++)
        f->regs[i] = below(f, 2) ? next_random(f) << 8 ^ next_random(f) : next_random(f) & 0xff;
    f->regs[X86_RDI] = DATA + (below(f, 4) ? 1024 : 3960) + below(f, 128);
    f->regs[X86_RBP] = 0;
    f->regs[10] = DATA + 4096 + below(f, 1024);
    f->regs[X86_RSI] = below(f, 64);
    if (below(f, 8)) { /* aligned vectors do not fault then */
        f->regs[X86_RDI] &= ~31ull;
        f->regs[10] &= ~31ull;
    }
    f->regs[X86_RSP] = STACK + 2048;
    f->flags = (next_random(f) & FL_ARITH) | 2;
    for (unsigned i = 0; i < sizeof(f->data); i += 8)
        put_le64(f->data + i, next_random(f) << 8 ^ next_random(f));
    f->rig->v->rip = rip;
}

static void run(struct fixture *f, uint64_t rip, struct outcome *out)
{
    struct rig *rig = f->rig;
    struct soft_vcpu *v = rig->v;
    memcpy(rig->ram + DATA, f->data, sizeof(f->data));
    memset(rig->ram + STACK, 0, 4096);
    memset(rig->ram + CELLS, 0, 4096);
    if (memcmp(rig->ram + CODE, f->code, sizeof(f->code))) { /* it wrote itself */
        memcpy(rig->ram + CODE, f->code, sizeof(f->code));
        soft_code_flush(v);
    }
    for (unsigned i = 0; i < 16; i++)
        v->r[i] = f->regs[i];
    soft_xstate_set(v, f->xsave);
    soft_set_flags(v, f->flags);
    soft_seg_base(v, X86_GS, 64);
    v->msr.kernel_gs_base = 96;
    v->cr2 = 0;
    v->rip = rip;
    rig->mmio_reads = rig->mmio_writes = 0;
    rig->mmio_value = 0;
    out->reason = rig_run(rig);
    memcpy(out->regs, v->r, sizeof(out->regs));
    out->rip = v->rip;
    out->flags = soft_flags(v);
    out->reads = rig->mmio_reads;
    out->writes = rig->mmio_writes;
    out->device = rig->mmio_value;
    memcpy(out->data, rig->ram + DATA, sizeof(out->data));
    memcpy(out->stack, rig->ram + STACK, sizeof(out->stack));
    memcpy(out->code, rig->ram + CODE, sizeof(out->code));
    soft_xstate_get(v, out->xsave);
    if (out->reason == VM_EXIT_SHUTDOWN)
        out->flags = 0; /* as below */
    if (out->rip >= PF_HANDLER && out->rip < PF_HANDLER + 16) {
        /* The faulting frame's arithmetic flags may be stale: xlate.h. */
        out->flags = 0;
        uint64_t top = out->regs[X86_RSP] - STACK; /* of a frame with or without an error code */
        for (uint64_t at = top + 16; at <= top + 24 && at < sizeof(out->stack) - 8; at += 8)
            put_le64(out->stack + at, get_le64(out->stack + at) & ~(uint64_t)FL_ARITH);
    }
}

static void differ(struct fixture *f, const struct outcome *a, const struct outcome *b, unsigned n)
{
    for (unsigned i = 0; i < 16; i++)
        if (a->regs[i] != b->regs[i])
            print_message("r%u: %016llx, translated %016llx\n", i, (unsigned long long)a->regs[i],
                          (unsigned long long)b->regs[i]);
    for (unsigned i = 0; i < sizeof(a->data); i++)
        if (a->data[i] != b->data[i])
            print_message("data %u: %02x, translated %02x\n", i, a->data[i], b->data[i]);
    for (unsigned i = 0; i < sizeof(a->xsave); i++)
        if (a->xsave[i] != b->xsave[i])
            print_message("xsave %u: %02x, translated %02x\n", i, a->xsave[i], b->xsave[i]);
    fail_msg("program %u (seed %#llx): rip %llx %llx, flags %x %x, reason %d %d, device %u %u", n,
             (unsigned long long)f->first_seed, (unsigned long long)a->rip,
             (unsigned long long)b->rip, a->flags, b->flags, a->reason, b->reason,
             a->reads + a->writes, b->reads + b->writes);
}

/* Blocks are translated once more, with some accesses through the hashed TLB, or without groups. */
static void translate_again(struct fixture *f)
{
    struct soft_vcpu *v = f->rig->v;
    for (unsigned i = 0; i < ARRAY_SIZE(v->code->hash); i++)
        for (struct block *block = v->code->hash[i]; block; block = block->hash_next) {
            if (block->mode != INSN_64 || block->crosses)
                continue;
            struct block_hints *hints = xlate_hints(v, block);
            hints->hashed[0] = next_random(f);
            hints->hashed[1] = next_random(f);
            hints->huge[0] = next_random(f);
            hints->huge[1] = next_random(f);
            hints->lone = below(f, 2);
            xlate_again(v, block);
        }
}

static struct accel_vcpu *watched; /* of the one fixture: for the signal handler */
static volatile sig_atomic_t expired;

/* A program that wrote over its own addresses may run for ever. */
static void on_alarm(int number)
{
    expired = 1;
    accel_soft.vcpu_kick(watched);
}

static void watch(unsigned ms)
{
    struct itimerval timer = {.it_value = {.tv_usec = ms * 1000}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->rig = rig_new();
    sigaction(SIGILL, NULL, &f->on_ill);
    sigaction(SIGFPE, NULL, &f->on_fpe);
    const char *seed = getenv("TENON_TEST_SEED");
    f->seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 0x9e3779b97f4a7c15ull | 1;
    print_message("TENON_TEST_SEED=%#llx\n", (unsigned long long)f->seed);
    static const uint8_t end[] = {RIG_END};
    memcpy(f->rig->ram + PF_HANDLER, end, sizeof(end));
    watched = f->rig->vcpu;
    signal(SIGALRM, on_alarm);
    static const uint8_t vectors[] = {VEC_UD, VEC_GP, VEC_PF, VEC_XM};
    for (unsigned i = 0; i < ARRAY_SIZE(vectors); i++)
        rig_gate(f->rig, vectors[i], PF_HANDLER, 0x8e, 0);
    f->rig->v->cr4 |= CR4_OSXSAVE;
    f->rig->v->xcr0 = 7;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    rig_free(f->rig);
    free(f);
    return 0;
}

static void test_programs(void **state)
{
    struct fixture *f = *state;
    struct soft_vcpu *v = f->rig->v;
    struct outcome *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));
    unsigned programs = 0, faults = 0, shutdowns = 0, endless = 0;
    struct timespec start, now;
    sigaction(SIGILL, &f->on_ill, NULL);
    sigaction(SIGFPE, &f->on_fpe, NULL);
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        f->first_seed = f->seed;
        xlate_program(f);
        random_state(f);
        uint64_t rip = v->rip;
        v->vm->xlate_after = 0;
        soft_code_flush(v);
        expired = 0;
        watch(100);
        run(f, rip, a);
        watch(0);
        if (expired) {
            endless++;
            atomic_store(&v->events, 0);
            continue;
        }
        faults += a->rip >= PF_HANDLER;
        shutdowns += a->reason == VM_EXIT_SHUTDOWN;
        v->vm->xlate_after = 1 + below(f, 2);
        soft_code_flush(v);
        for (unsigned i = 0; i < 4; i++) { /* the later ones through bound jumps */
            if (programs % 4 == 0)
                soft_tlb_flush(v);
            if (i == 2)
                translate_again(f);
            watch(900);
            run(f, rip, b);
            watch(0);
            if (memcmp(a, b, sizeof(*a)))
                differ(f, a, b, programs);
        }
        programs++;
    } while (clock_gettime(CLOCK_MONOTONIC, &now), now.tv_sec - start.tv_sec < 5);
    print_message("%u programs, %u faults, %u shutdowns, %u endless\n", programs, faults, shutdowns,
                  endless);
    assert_true(programs > 50 && faults && shutdowns < programs / 4);
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_programs)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
