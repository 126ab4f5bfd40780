/*
 * SIMD and x87 of the software engine against the CPU itself: random instructions, run natively and
 * through soft_simd_exec(), must leave the same registers, flags, memory and faults.
 *
 * Guest memory is identity-mapped test memory here, so that both runs use the same addresses.
 * The seed is printed; TENON_TEST_SEED repeats a run, TENON_ROUNDS makes it longer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include <cmocka.h>

#include "accel/soft/decode/optable.h"
#include "accel/soft/interp/fast.h"
#include "accel/soft/simd/simd.h"

#define DATA_SIZE 512

/* What the native runner loads and leaves. */
struct native {
    uint8_t xsave[1024] __attribute__((aligned(64)));
    uint64_t r[16];
    uint64_t flags;
    uint64_t host_rsp;
};

static struct native native;
static uint8_t data[DATA_SIZE] __attribute__((aligned(4096)));
static struct soft_vcpu cpu;
static struct soft_space space;
static int raised; /* vector of the emulated run, or -1 */
static jmp_buf unwind;
static sigjmp_buf native_fault;
static volatile sig_atomic_t in_native;
static int native_signal;
static uint32_t native_mxcsr;
static uint8_t *code;
static unsigned insn_offset;
static uint64_t random_state;
static struct sigaction simd_action;
static unsigned long special; /* instructions that had an op of their own */

static uint64_t rnd(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1dull;
}

/* ---- the engine's services that the SIMD unit calls, on flat memory ---- */

void soft_raise(struct soft_vcpu *v, int vector, uint32_t error)
{
    raised = vector;
    longjmp(unwind, 1);
}

uint64_t soft_ea(const struct soft_vcpu *v, const struct insn *insn)
{
    return v->r[insn->base] + (v->r[insn->index] << insn->scale) + (uint64_t)insn->disp;
}

static bool inside(uint64_t linear, unsigned len)
{
    return linear - (uintptr_t)data <= DATA_SIZE - len;
}

uint64_t soft_linear(struct soft_vcpu *v, const struct insn *insn, unsigned len,
                     enum soft_access access)
{
    return soft_ea(v, insn);
}

uint64_t soft_seg_linear(struct soft_vcpu *v, unsigned seg, uint64_t offset, unsigned len,
                         enum soft_access access)
{
    return offset;
}

void soft_read(struct soft_vcpu *v, uint64_t linear, void *bytes, unsigned len)
{
    assert_true(inside(linear, len));
    memcpy(bytes, (void *)(uintptr_t)linear, len);
}

void soft_write(struct soft_vcpu *v, uint64_t linear, const void *bytes, unsigned len)
{
    assert_true(inside(linear, len));
    memcpy((void *)(uintptr_t)linear, bytes, len);
}

void soft_check_alignment(struct soft_vcpu *v, uint64_t linear, unsigned size)
{
}

void soft_probe(struct soft_vcpu *v, uint64_t linear, unsigned len, enum soft_access access)
{
    assert_true(inside(linear, len));
}

uint64_t soft_load(struct soft_vcpu *v, uint64_t linear, unsigned size)
{
    uint8_t bytes[8];
    soft_read(v, linear, bytes, size);
    return get_le(bytes, size);
}

void soft_store(struct soft_vcpu *v, uint64_t linear, unsigned size, uint64_t value)
{
    uint8_t bytes[8];
    put_le(bytes, size, value);
    soft_write(v, linear, bytes, size);
}

const struct op *op_generic(struct soft_vcpu *v, const struct op *op)
{
    soft_simd_exec(v, op->insn);
    return op + 1;
}

static const struct op *stop(struct soft_vcpu *v, const struct op *op)
{
    return NULL;
}

/* ---- the native runner ---- */

static void on_signal(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    if (!in_native) {
        simd_action.sa_sigaction(number, info, context);
        return;
    }
    in_native = 0;
    native_signal = number;
    native_mxcsr = uc->uc_mcontext.fpregs->mxcsr;
    siglongjmp(native_fault, 1);
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t len)
{
    memcpy(at, bytes, len);
    return at + len;
}

/* mov between register `reg` and a 64-bit field of `native`, by absolute address through no
   register: the code page lies within 2 GiB of nothing, so r/m is [rip + disp32] into the page's
   own data. */
#define PAGE_DATA 2048

static uint8_t *move(uint8_t *at, bool store, unsigned reg, unsigned slot)
{
    *at++ = 0x48 | (reg >= 8 ? 4 : 0);
    *at++ = store ? 0x89 : 0x8b;
    *at++ = (reg & 7) << 3 | 5;
    int32_t disp = (int32_t)(code + PAGE_DATA + 8 * slot - (at + 4));
    return put(at, &disp, 4);
}

/* Slots of the page's data: 0-15 registers, 16 flags, 17 host rsp, 18 the XSAVE area's address. */
static void build_native(const uint8_t *insn, unsigned len)
{
    static const uint8_t entry[] = {0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57};
    static const uint8_t leave[] = {0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d,
                                    0x41, 0x5c, 0x5d, 0x5b, 0xc3};
    static const uint8_t mask[] = {0xb8, 7, 0, 0, 0, 0x31, 0xd2}; /* eax = 7, edx = 0 */
    uint8_t *at = put(code, entry, sizeof(entry));
    at = put(at, mask, sizeof(mask));
    at = move(at, false, X86_RCX, 18);
    at = put(at, "\x48\x0f\xae\x29", 4); /* xrstor64 [rcx] */
    at = move(at, false, X86_RAX, 16);
    at = put(at, "\x50\x9d", 2); /* push rax; popfq */
    for (unsigned reg = 0; reg < 16; reg++) {
        if (reg != X86_RSP)
            at = move(at, false, reg, reg);
    }
    insn_offset = (unsigned)(at - code);
    at = put(at, insn, len);
    for (unsigned reg = 0; reg < 16; reg++) {
        if (reg != X86_RSP)
            at = move(at, true, reg, reg);
    }
    at = put(at, "\x9c\x58", 2); /* pushfq; pop rax */
    at = move(at, true, X86_RAX, 16);
    at = put(at, mask, sizeof(mask));
    at = move(at, false, X86_RCX, 18);
    at = put(at, "\x48\x0f\xae\x21", 4); /* xsave64 [rcx] */
    at = put(at, "\xdb\xe3", 2);         /* fninit */
    at = put(at, "\xc5\xf8\x77", 3);     /* vzeroupper */
    at =
        put(at, "\x68\x80\x1f\0\0\x0f\xae\x14\x24\x58", 10); /* push 1f80; ldmxcsr [rsp]; pop rax */
    at = put(at, leave, sizeof(leave));
    assert_true(at < code + PAGE_DATA);
}

static void run_native(void)
{
    uint64_t *slots = (uint64_t *)(void *)(code + PAGE_DATA);
    memcpy(slots, native.r, sizeof(native.r));
    slots[16] = native.flags;
    slots[18] = (uintptr_t)native.xsave;
    native_signal = 0;
    if (sigsetjmp(native_fault, 1) == 0) {
        in_native = 1;
        ((void (*)(void))(uintptr_t)code)();
        in_native = 0;
        memcpy(native.r, slots, sizeof(native.r));
        native.flags = slots[16];
    } else {
        __asm__ volatile("fninit; vzeroupper" ::: "memory");
        uint32_t host = 0x1f80;
        __asm__ volatile("ldmxcsr %0" ::"m"(host));
    }
}

/* XSAVE leaves out what is initial. */
static void complete(uint8_t *x)
{
    uint64_t present = get_le64(x + XS_HEADER);
    if (!(present & 1)) {
        memset(x, 0, XS_MXCSR);
        memset(x + XS_ST, 0, 128);
        put_le16(x + XS_FCW, 0x37f);
    }
    if (!(present & 2))
        memset(x + XS_XMM, 0, 256);
    if (!(present & 4))
        memset(x + XS_YMM, 0, 256);
}

/* ---- random states and instructions ---- */

static double interesting(void)
{
    static const double values[] = {0.0,    -0.0,  1.0,    -1.0,         0.5,     3.0,     1e10,
                                    -1e-10, 1e300, 1e-300, 2147483648.0, -9.3e18, 1.0 / 3, 65504.0};
    return values[rnd() % ARRAY_SIZE(values)];
}

static void random_vector(uint8_t *at, unsigned len)
{
    unsigned kind = rnd() % 4;
    for (unsigned i = 0; i < len; i += 8) {
        uint64_t bits = rnd();
        if (kind == 1) {
            double value = interesting();
            memcpy(&bits, &value, 8);
        } else if (kind == 2) {
            float pair[2] = {(float)interesting(), (float)interesting()};
            memcpy(&bits, pair, 8);
        } else if (kind == 3) {
            bits &= 0x7f7f00ff00ff7f80ull;
        }
        put_le64(at + i, bits);
    }
}

static void random_state_of(const struct insn *insn)
{
    uint8_t *x = native.xsave;
    memset(x, 0, sizeof(native.xsave));
    put_le16(x + XS_FCW, rnd() % 4 ? 0x37f : 0x40 | (rnd() & 0xf3f));
    put_le16(x + XS_FSW, rnd() % 8 ? rnd() & 0x7f00 : rnd() & 0x7f3f);
    if (get_le16(x + XS_FSW) & ~get_le16(x + XS_FCW) & 0x3f)
        put_le16(x + XS_FSW, get_le16(x + XS_FSW) | FSW_ES | FSW_B);
    x[XS_FTW] = rnd() % 2 ? 0xff : (uint8_t)rnd();
    uint32_t mxcsr = rnd() % 4 ? 0x1f80 : (rnd() & 0xffff);
    put_le32(x + XS_MXCSR, mxcsr);
    put_le32(x + XS_MXCSR_MASK, MXCSR_VALID);
    for (unsigned i = 0; i < 8; i++) {
        long double value = (long double)interesting() * (long double)(int)(rnd() % 1000);
        memcpy(x + XS_ST + 16 * i, &value, 10);
        if (rnd() % 8 == 0)
            put_le64(x + XS_ST + 16 * i, rnd());
        if (rnd() % 16 == 0)
            put_le16(x + XS_ST + 16 * i + 8, (uint16_t)rnd());
    }
    random_vector(x + XS_XMM, 256);
    random_vector(x + XS_YMM, 256);
    put_le64(x + XS_HEADER, 7);
    for (unsigned i = 0; i < 16; i++)
        native.r[i] = rnd();
    native.r[X86_RBX] = (uintptr_t)data + 64 + (rnd() % 4 ? 0 : rnd() % 16);
    native.r[X86_RDI] = (uintptr_t)data + 128;
    if (insn->map == INSN_MAP_0F3A && (insn->opcode == 0x60 || insn->opcode == 0x61)) {
        native.r[X86_RAX] = rnd() % 24;
        native.r[X86_RDX] = rnd() % 24;
    }
    bool gather = insn->map == INSN_MAP_0F38 && insn->opcode >= 0x90 && insn->opcode <= 0x93;
    for (unsigned i = 0; gather && i < 32; i += insn->opcode & 1 ? 8 : 4)
        put_le((i < 16 ? x + XS_XMM : x + XS_YMM - 16) + 16 * insn->index + i,
               insn->opcode & 1 ? 8 : 4, rnd() % 16);
    native.flags = 2 | (rnd() & FL_ARITH);
    for (unsigned i = 0; i < DATA_SIZE; i += 32)
        random_vector(data + i, 32);
}

/* Bytes that decode to a SIMD or x87 instruction of the host's features. */
static void random_insn(struct insn *insn)
{
    for (;;) {
        uint8_t bytes[16];
        unsigned at = 0;
        unsigned reg = rnd() & 7, modrm_mod = rnd() % 3 ? 3 : rnd() & 1;
        if (rnd() % 5 == 0) {
            bytes[at++] = 0xd8 | (rnd() & 7);
        } else if (rnd() & 1) {
            bytes[at++] = 0xc4;
            bytes[at++] = (rnd() & 0xa0) | 0x40 | (1 + rnd() % 3);
            bytes[at++] = (rnd() % 3 ? 0x78 : rnd() & 0x78) | (rnd() & 0x87);
            bytes[at++] = (uint8_t)rnd();
        } else {
            static const uint8_t prefixes[] = {0x66, 0xf3, 0xf2};
            if (rnd() % 4)
                bytes[at++] = prefixes[rnd() % 3];
            if (rnd() & 1)
                bytes[at++] = 0x40 | (rnd() & 0xd);
            bytes[at++] = 0x0f;
            unsigned map = rnd() % 4;
            if (map >= 2)
                bytes[at++] = map == 2 ? 0x38 : 0x3a;
            bytes[at++] = (uint8_t)rnd();
        }
        bytes[at++] = modrm_mod == 3 ? (uint8_t)(0xc0 | (rnd() & 0x3f))
                                     : (uint8_t)(modrm_mod << 6 | reg << 3 | (rnd() % 4 ? 3 : 4));
        if ((bytes[at - 1] & 0xc7) == 4 || (bytes[at - 1] & 0xc7) == 0x44)
            bytes[at++] = (uint8_t)((rnd() & 0x38) | 3); /* SIB, base rbx, index for gathers */
        if (modrm_mod == 1)
            bytes[at++] = 16 * (rnd() & 3);
        uint8_t imm = (uint8_t)rnd();
        bytes[at++] = imm;
        if (decode(bytes, at, INSN_64, cpu.features, insn) != DECODE_OK)
            continue;
        if (insn->cls != INSN_CLASS_SIMD && insn->cls != INSN_CLASS_X87)
            continue;
        bool gather = insn->map == INSN_MAP_0F38 && insn->opcode >= 0x90 && insn->opcode <= 0x93;
        /* Addresses must stay inside the data: base rbx only, no index but a gather's. */
        if (insn->is_mem && (insn->base != X86_RBX || (!gather && insn->index != INSN_REG_NONE)))
            continue;
        /* The stack pointer is the host's own, and rbx and rdi must stay addresses. */
        bool rm_gpr = !insn->is_mem && (insn->rm == X86_RSP);
        if (rm_gpr || insn->reg == X86_RSP)
            continue;
        return;
    }
}

static int expected_vector(const struct insn *insn)
{
    switch (native_signal) {
    case 0:
        return -1;
    case SIGILL:
        return VEC_UD;
    case SIGFPE:
        if (insn->cls == INSN_CLASS_X87 || (simd_is_mmx(insn) && simd_x87_pending(&cpu)))
            return VEC_MF;
        return VEC_XM;
    default:
        return VEC_GP;
    }
}

static void explain(const struct insn *insn, const char *what)
{
    char text[64] = "";
    for (unsigned i = 0; i < insn->len; i++)
        sprintf(text + 3 * i, "%02x ", insn->raw[i]);
    print_error("instruction %s (map %u, opcode %02x, pp %u, %s): %s\n", text, insn->map,
                insn->opcode, insn->pp, insn->prefix & INSN_VEX ? "VEX" : "legacy", what);
    for (unsigned i = 0; i < 832; i++) {
        if (native.xsave[i] != cpu.xsave[i] && (i < 416 || i >= 576))
            print_error("  image %u: native %02x, engine %02x\n", i, native.xsave[i], cpu.xsave[i]);
    }
    for (unsigned i = 0; i < 16; i++) {
        if (native.r[i] != cpu.r[i])
            print_error("  r%u: native %llx, engine %llx\n", i, (unsigned long long)native.r[i],
                        (unsigned long long)cpu.r[i]);
    }
}

/* Does the TLB know the data's page, so that operands are used in place? */
static void set_tlb(bool hit)
{
    unsigned index = (uintptr_t)data >> GUEST_PAGE_SHIFT & (TLB_SIZE - 1);
    struct soft_tlbe entry = {hit ? (uintptr_t)data : ~0ull, 0};
    space.read[index] = space.write[index] = entry;
}

/* As the blocks of 64-bit code do it: the instruction's own op, or the general one with its plan
   kept, twice in turn; or by the plan alone. */
static void execute(const struct insn *insn)
{
    struct op ops[2] = {{.fn = fast_simd, .insn = insn, .len = insn->len}, {.fn = stop}};
    unsigned way = rnd() % 4;
    if (way == 0) {
        soft_simd_exec(&cpu, insn);
        return;
    }
    if (rnd() & 1) { /* MXCSR is live already, as it mostly is */
        static const uint8_t sqrtss[] = {0xf3, 0x0f, 0x51, 0xc0};
        struct insn other;
        uint8_t kept[16];
        uint32_t mxcsr = get_le32(cpu.xsave + XS_MXCSR);
        assert_int_equal(decode(sqrtss, 4, INSN_64, cpu.features, &other), DECODE_OK);
        memcpy(kept, simd_xmm(&cpu, 0), 16);
        memset(simd_xmm(&cpu, 0), 0, 16); /* exact: no flag is raised */
        soft_simd_exec(&cpu, &other);
        assert_int_equal(cpu.mxcsr_live, (mxcsr & MXCSR_MASKS) == MXCSR_MASKS);
        memcpy(simd_xmm(&cpu, 0), kept, 16);
    }
    ops[0].off = (uint16_t)insn_offset;
    cpu.r[R_BLOCK] = (uintptr_t)code;
    cpu.r[R_ZERO] = 0;
    if (way != 1 && soft_select_simd(ops, insn))
        special++;
    else
        ops[0].disp = 0;
    ops[0].fn(&cpu, ops);
}

static unsigned one_round(void)
{
    struct insn insn;
    uint8_t before[DATA_SIZE], after[DATA_SIZE];
    random_insn(&insn);
    random_state_of(&insn);
    build_native(insn.raw, insn.len);
    memcpy(before, data, DATA_SIZE);
    set_tlb(rnd() & 1);
    memcpy(cpu.xsave, native.xsave, 832);
    memcpy(cpu.r, native.r, sizeof(native.r));
    cpu.rflags = (uint32_t)native.flags & ~FL_ARITH;
    cc_set_flags(&cpu, native.flags & FL_ARITH);
    cpu.rip = (uintptr_t)code + insn_offset;
    run_native();
    memcpy(after, data, DATA_SIZE);
    memcpy(data, before, DATA_SIZE);
    int vector = expected_vector(&insn);
    raised = -1;
    if (setjmp(unwind) == 0)
        execute(&insn);
    soft_mxcsr_leave(&cpu);
    if (raised != vector) {
        char text[80];
        snprintf(text, sizeof(text), "native vector %d, engine %d", vector, raised);
        explain(&insn, text);
        return 1;
    }
    if (vector == VEC_XM && native_mxcsr != get_le32(cpu.xsave + XS_MXCSR)) {
        print_error("mxcsr native %x engine %x\n", native_mxcsr, get_le32(cpu.xsave + XS_MXCSR));
        explain(&insn, "MXCSR after a fault");
        return 1;
    }
    if (vector >= 0)
        return 0; /* registers are unchanged: `native` still holds what they were */
    complete(native.xsave);
    native.r[X86_RSP] = cpu.r[X86_RSP];
    if (memcmp(native.xsave, cpu.xsave, 28) || memcmp(native.xsave + 32, cpu.xsave + 32, 384) ||
        memcmp(native.xsave + XS_YMM, cpu.xsave + XS_YMM, 256) ||
        memcmp(native.r, cpu.r, sizeof(native.r))) {
        explain(&insn, "registers differ");
        return 1;
    }
    if ((native.flags ^ soft_flags(&cpu)) & FL_ARITH) {
        explain(&insn, "flags differ");
        return 1;
    }
    if (memcmp(after, data, DATA_SIZE)) {
        explain(&insn, "memory differs");
        return 1;
    }
    return 0;
}

static int setup(void **state)
{
    const char *seed = getenv("TENON_TEST_SEED");
    random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 0x9e3779b9u;
    print_message("seed %#llx\n", (unsigned long long)random_state);
    assert_null(soft_cpuid_supported(NULL, &cpu.cpuid));
    soft_cpuid_apply(&cpu);
    cpu.space = &space;
    for (unsigned i = 0; i < TLB_SIZE; i++)
        space.read[i].tag = space.write[i].tag = ~0ull;
    cpu.cr0 = CR0_PE | CR0_NE | CR0_MP;
    cpu.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    cpu.xcr0 = 7;
    cpu.mode = INSN_64;
    assert_null(soft_simd_new(&cpu));
    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(code, MAP_FAILED);
    sigaction(SIGILL, NULL, &simd_action);
    return 0;
}

/* cmocka puts its own handlers around each test. */
static void take_signals(void)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}

static int teardown(void **state)
{
    soft_simd_free(&cpu);
    return munmap(code, 4096);
}

static void test_against_cpu(void **state)
{
    if (!(cpu.features >> FEAT_AVX & 1))
        skip();
    take_signals();
    const char *text = getenv("TENON_ROUNDS");
    unsigned long rounds = text ? strtoul(text, NULL, 0) : 60000;
    unsigned failures = 0;
    for (unsigned long i = 0; i < rounds && failures < 20; i++)
        failures += one_round();
    assert_int_equal(failures, 0);
    if (rounds >= 1000)
        assert_true(special > rounds / 50);
}

/* Decodes and executes; the vector or -1. */
static int run(const char *bytes, unsigned len)
{
    struct insn insn;
    assert_int_equal(decode((const uint8_t *)bytes, len, INSN_64, cpu.features, &insn), DECODE_OK);
    raised = -1;
    if (setjmp(unwind) == 0) {
        if (insn.cls == INSN_CLASS_STATE)
            soft_xstate_exec(&cpu, &insn);
        else
            soft_simd_exec(&cpu, &insn);
    }
    return raised;
}
#define RUN(bytes) run(bytes, sizeof(bytes) - 1)

static void test_control_registers(void **state)
{
    uint64_t cr0 = cpu.cr0, cr4 = cpu.cr4;
    soft_xstate_reset(&cpu);
    cpu.xcr0 = 7;
    assert_int_equal(RUN("\x0f\x58\xc1"), -1); /* addps xmm0, xmm1 */
    cpu.cr0 |= CR0_TS;
    assert_int_equal(RUN("\x0f\x58\xc1"), VEC_NM);
    assert_int_equal(RUN("\x0f\x28\xc1"), VEC_NM);     /* movaps, done in C */
    assert_int_equal(RUN("\xc5\xf8\x58\xc1"), VEC_NM); /* vaddps */
    assert_int_equal(RUN("\xd9\xe8"), VEC_NM);         /* fld1 */
    assert_int_equal(RUN("\x0f\xfc\xc1"), VEC_NM);     /* paddb mm */
    assert_int_equal(RUN("\x9b"), VEC_NM);             /* fwait with MP */
    cpu.cr0 = cr0 | CR0_EM;
    assert_int_equal(RUN("\x0f\x58\xc1"), VEC_UD);
    assert_int_equal(RUN("\x0f\xfc\xc1"), VEC_UD);
    assert_int_equal(RUN("\xd9\xe8"), VEC_NM);
    cpu.cr0 = cr0;
    cpu.cr4 &= ~(uint64_t)CR4_OSFXSR;
    assert_int_equal(RUN("\x0f\x58\xc1"), VEC_UD);
    cpu.cr4 = cr4 & ~(uint64_t)CR4_OSXSAVE;
    assert_int_equal(RUN("\xc5\xf8\x58\xc1"), VEC_UD);
    assert_int_equal(RUN("\x0f\x01\xd0"), VEC_UD); /* xgetbv */
    cpu.cr4 = cr4;
    cpu.xcr0 = 3;
    assert_int_equal(RUN("\xc5\xf8\x58\xc1"), VEC_UD);
    cpu.xcr0 = 7;
}

static void test_refused_encodings(void **state)
{
    /* One operand too many: vvvv is unused in these and must say so. */
    take_signals();
    soft_xstate_reset(&cpu);
    cpu.xcr0 = 7;
    assert_int_equal(RUN("\xc5\xf0\x51\xc1"), VEC_UD); /* vsqrtps with vvvv = 1 */
    assert_int_equal(RUN("\xc5\xf0\x10\xc1"), VEC_UD);
    assert_int_equal(RUN("\xc5\xf0\x28\xc1"), VEC_UD);
    assert_int_equal(RUN("\xc5\xf8\x51\xc1"), -1);
}

static void test_pending_x87(void **state)
{
    soft_xstate_reset(&cpu);
    assert_int_equal(RUN("\xdb\xe3"), -1); /* fninit */
    put_le16(cpu.xsave + XS_FCW, 0x37b);   /* divide by zero unmasked */
    assert_int_equal(RUN("\xd9\xe8"), -1); /* fld1 */
    assert_int_equal(RUN("\xd9\xee"), -1); /* fldz */
    assert_int_equal(RUN("\xde\xf9"), -1); /* fdivp: pending now */
    assert_true(simd_x87_pending(&cpu));
    assert_int_equal(RUN("\xd9\xe8"), VEC_MF);
    assert_int_equal(RUN("\x9b"), VEC_MF);
    cpu.r[X86_RAX] = 0;
    assert_int_equal(RUN("\xdf\xe0"), -1); /* fnstsw ax does not wait */
    assert_int_equal(cpu.r[X86_RAX] & 0x84, 0x84);
    assert_int_equal(RUN("\xdb\xe2"), -1); /* fnclex */
    assert_int_equal(RUN("\xd9\xe8"), -1);
}

static void test_save_formats(void **state)
{
    struct soft_vcpu *v = &cpu;
    soft_xstate_reset(v);
    v->xcr0 = 7;
    for (unsigned i = 0; i < 16; i++) {
        memset(simd_xmm(v, i), (int)(0x10 + i), 16);
        memset(simd_ymm_high(v, i), (int)(0x40 + i), 16);
    }
    uint8_t *area = malloc(2048);
    uint8_t *at = (uint8_t *)ALIGN_UP((uintptr_t)data, 64ull);
    /* Only 512 bytes are mapped: the FXSAVE area fits exactly. */
    memset(data, 0xee, DATA_SIZE);
    v->r[X86_RBX] = (uintptr_t)at;
    assert_int_equal(RUN("\x48\x0f\xae\x03"), -1); /* fxsave64 [rbx] */
    assert_int_equal(at[XS_XMM + 16 * 15], 0x1f);
    assert_int_equal(at[420], 0xee); /* not written */
    v->r[X86_RBX] += 8;
    assert_int_equal(RUN("\x48\x0f\xae\x0b"), VEC_GP); /* fxrstor64, misaligned */
    v->r[X86_RBX] -= 8;
    at[XS_MXCSR + 3] = 0x80;
    assert_int_equal(RUN("\x48\x0f\xae\x0b"), VEC_GP); /* reserved MXCSR bit */
    at[XS_MXCSR + 3] = 0;
    memset(at + XS_XMM, 0x77, 16);
    assert_int_equal(RUN("\x48\x0f\xae\x0b"), -1);
    assert_int_equal(simd_xmm(v, 0)[3], 0x77);
    assert_int_equal(simd_ymm_high(v, 0)[3], 0x40);
    free(area);

    uint8_t image[X86_XSAVE_SIZE];
    soft_xstate_get(v, image);
    put_le64(image + XS_HEADER, 2);
    soft_xstate_set(v, image);
    assert_int_equal(get_le16(v->xsave + XS_FCW), 0x37f); /* x87 and AVX were left out: initial */
    assert_int_equal(simd_xmm(v, 0)[3], 0x77);
    assert_int_equal(simd_ymm_high(v, 0)[3], 0);
}

static void test_xgetbv(void **state)
{
    soft_xstate_reset(&cpu);
    cpu.cpl = 0;
    cpu.r[X86_RCX] = 0;
    cpu.r[X86_RAX] = 7;
    cpu.r[X86_RDX] = 0;
    assert_int_equal(RUN("\x0f\x01\xd1"), -1); /* xsetbv */
    assert_int_equal(cpu.xcr0, 7);
    cpu.r[X86_RAX] = 5;
    assert_int_equal(RUN("\x0f\x01\xd1"), VEC_GP);
    cpu.r[X86_RAX] = 6;
    assert_int_equal(RUN("\x0f\x01\xd1"), VEC_GP);
    cpu.r[X86_RAX] = 0xe7;
    assert_int_equal(RUN("\x0f\x01\xd1"), VEC_GP);
    assert_int_equal(RUN("\x0f\x01\xd0"), -1);
    assert_int_equal(cpu.r[X86_RAX], 7);
    cpu.r[X86_RCX] = 9;
    assert_int_equal(RUN("\x0f\x01\xd0"), VEC_GP);
}

/* More encodings than the code region holds: it starts anew, and goes on. */
static void test_region_overflow(void **state)
{
    soft_xstate_reset(&cpu);
    cpu.xcr0 = 7;
    for (unsigned imm = 0; imm < 256; imm++) {
        for (unsigned regs = 0; regs < 64; regs++) {
            uint8_t bytes[] = {0x66, 0x0f, 0x70, (uint8_t)(0xc0 | regs), (uint8_t)imm};
            assert_int_equal(run((const char *)bytes, sizeof(bytes)), -1); /* pshufd */
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_cpu),       cmocka_unit_test(test_control_registers),
        cmocka_unit_test(test_refused_encodings), cmocka_unit_test(test_pending_x87),
        cmocka_unit_test(test_save_formats),      cmocka_unit_test(test_xgetbv),
        cmocka_unit_test(test_region_overflow),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
