/*
 * The interpreter against the bare CPU: random integer instructions run natively in this process
 * and in the engine with the same registers, flags and memory; the results must be equal but for
 * flags that the architecture leaves undefined. Each runs through the block cache (the specialised
 * op, then translated code) and through the general executor.
 *
 * The seed is printed; TENON_TEST_SEED repeats a run.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include "accel/soft/decode/optable.h"
#include "soft_rig.h"

#define DATA 0x10000000u    /* data page, the same address natively and in the guest */
#define CONTEXT 0x11000000u /* native registers */
#define DATA_SIZE 4096u
#define SLOTS 0x200000u /* guest code, a slot each instruction */
#define SLOT 64u
#define SLOT_COUNT 8192u

struct context {
    uint64_t in[16], in_flags, out[16], out_flags, host_rsp;
};

struct fixture {
    struct rig *rig;
    struct context *context;
    uint8_t *data, *code;
    uint64_t seed;
    unsigned slot;
};

static uint64_t next_random(struct fixture *f)
{
    f->seed ^= f->seed << 13;
    f->seed ^= f->seed >> 7;
    f->seed ^= f->seed << 17;
    return f->seed * 0x2545f4914f6cdd1dull;
}

/* ---- native execution ---- */

static uint8_t *emit(uint8_t *at, const void *bytes, size_t len)
{
    memcpy(at, bytes, len);
    return at + len;
}

/* mov reg, [abs32] (8b) or mov [abs32], reg (89). */
static uint8_t *emit_move(uint8_t *at, uint8_t opcode, unsigned reg, uint32_t address)
{
    uint8_t bytes[8] = {0x48 | (reg >> 3) << 2, opcode, 0x04 | (reg & 7) << 3, 0x25};
    put_le32(bytes + 4, address);
    return emit(at, bytes, 8);
}

static uint8_t *emit_lea_rsp(uint8_t *at, uint32_t address)
{
    uint8_t bytes[8] = {0x48, 0x8d, 0x24, 0x25};
    put_le32(bytes + 4, address);
    return emit(at, bytes, 8);
}

static void run_native(struct fixture *f, const uint8_t *insn, unsigned len)
{
    static const uint8_t saves[] = {0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57};
    static const uint8_t restores[] = {0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d,
                                       0x41, 0x5c, 0x5d, 0x5b, 0xc3};
    uint32_t rsp_at = CONTEXT + offsetof(struct context, host_rsp);
    uint8_t *at = emit(f->code, saves, sizeof(saves));
    at = emit_move(at, 0x89, X86_RSP, rsp_at);
    at = emit_lea_rsp(at, CONTEXT + offsetof(struct context, in_flags));
    *at++ = 0x9d; /* popfq */
    at = emit_move(at, 0x8b, X86_RSP, rsp_at);
    for (unsigned i = 0; i < 16; i++)
        if (i != X86_RSP)
            at = emit_move(at, 0x8b, i, CONTEXT + 8 * i);
    at = emit(at, insn, len);
    for (unsigned i = 0; i < 16; i++)
        if (i != X86_RSP)
            at = emit_move(at, 0x89, i, CONTEXT + offsetof(struct context, out) + 8 * i);
    at = emit_lea_rsp(at, CONTEXT + offsetof(struct context, out_flags) + 8);
    *at++ = 0x9c; /* pushfq */
    at = emit_move(at, 0x8b, X86_RSP, rsp_at);
    static const uint8_t cld = 0xfc;
    at = emit(at, &cld, 1);
    emit(at, restores, sizeof(restores));
    ((void (*)(void))(uintptr_t)f->code)();
}

/* ---- random instructions ---- */

enum {
    M = 1,
    I8 = 2,
    IZ = 4,
    IV = 8,
    BYTE = 16,
    LOCKABLE = 32,
    NO16 = 64,
    REG = 128,
    VEX = 256,
    MEMONLY = 512,
    GPRLOW = 1024
};

/* prefix: mandatory prefix or VEX.pp; group: ModRM.reg or -1. */
struct pattern {
    uint8_t map, opcode, prefix;
    int8_t group;
    uint16_t attr;
};

#define ALU_PATTERNS(base)                                                                         \
    {0, (base), 0, -1, M | BYTE}, {0, (base) + 1, 0, -1, M}, {0, (base) + 2, 0, -1, M | BYTE},     \
        {0, (base) + 3, 0, -1, M}, {0, (base) + 4, 0, -1, I8 | BYTE},                              \
    {                                                                                              \
        0, (base) + 5, 0, -1, IZ                                                                   \
    }
#define GROUP_ALL(opcode, attr)                                                                    \
    {0, opcode, 0, 0, attr}, {0, opcode, 0, 1, attr}, {0, opcode, 0, 2, attr},                     \
        {0, opcode, 0, 3, attr}, {0, opcode, 0, 4, attr}, {0, opcode, 0, 5, attr},                 \
        {0, opcode, 0, 6, attr},                                                                   \
    {                                                                                              \
        0, opcode, 0, 7, attr                                                                      \
    }
#define EIGHT(map, base, attr)                                                                     \
    {map, (base), 0, -1, attr}, {map, (base) + 1, 0, -1, attr}, {map, (base) + 2, 0, -1, attr},    \
        {map, (base) + 3, 0, -1, attr}, {map, (base) + 4, 0, -1, attr},                            \
        {map, (base) + 5, 0, -1, attr}, {map, (base) + 6, 0, -1, attr},                            \
    {                                                                                              \
        map, (base) + 7, 0, -1, attr                                                               \
    }

static const struct pattern patterns[] = {
    ALU_PATTERNS(0x00),
    ALU_PATTERNS(0x08),
    ALU_PATTERNS(0x10),
    ALU_PATTERNS(0x18),
    ALU_PATTERNS(0x20),
    ALU_PATTERNS(0x28),
    ALU_PATTERNS(0x30),
    ALU_PATTERNS(0x38),
    GROUP_ALL(0x80, M | I8 | BYTE),
    GROUP_ALL(0x81, M | IZ),
    GROUP_ALL(0x83, M | I8),
    {0, 0x84, 0, -1, M | BYTE},
    {0, 0x85, 0, -1, M},
    {0, 0x86, 0, -1, M | BYTE},
    {0, 0x87, 0, -1, M},
    {0, 0x88, 0, -1, M | BYTE},
    {0, 0x89, 0, -1, M},
    {0, 0x8a, 0, -1, M | BYTE},
    {0, 0x8b, 0, -1, M},
    {0, 0x8d, 0, -1, M | MEMONLY},
    {0, 0x63, 0, -1, M},
    {0, 0x69, 0, -1, M | IZ},
    {0, 0x6b, 0, -1, M | I8},
    {0, 0x98, 0, -1, 0},
    {0, 0x99, 0, -1, 0},
    {0, 0xa8, 0, -1, I8 | BYTE},
    {0, 0xa9, 0, -1, IZ},
    EIGHT(0, 0xb0, I8 | BYTE | GPRLOW),
    EIGHT(0, 0xb8, IV | GPRLOW),
    GROUP_ALL(0xc0, M | I8 | BYTE),
    GROUP_ALL(0xc1, M | I8),
    GROUP_ALL(0xd0, M | BYTE),
    GROUP_ALL(0xd1, M),
    GROUP_ALL(0xd2, M | BYTE),
    GROUP_ALL(0xd3, M),
    {0, 0xc6, 0, 0, M | I8 | BYTE},
    {0, 0xc7, 0, 0, M | IZ},
    {0, 0xf5, 0, -1, 0},
    {0, 0xf8, 0, -1, 0},
    {0, 0xf9, 0, -1, 0},
    {0, 0x9e, 0, -1, 0},
    {0, 0x9f, 0, -1, 0},
    {0, 0xf6, 0, 0, M | I8 | BYTE},
    {0, 0xf7, 0, 0, M | IZ},
    {0, 0xf6, 0, 2, M | BYTE},
    {0, 0xf6, 0, 3, M | BYTE},
    {0, 0xf6, 0, 4, M | BYTE},
    {0, 0xf6, 0, 5, M | BYTE},
    {0, 0xf6, 0, 6, M | BYTE},
    {0, 0xf6, 0, 7, M | BYTE},
    {0, 0xf7, 0, 2, M},
    {0, 0xf7, 0, 3, M},
    {0, 0xf7, 0, 4, M},
    {0, 0xf7, 0, 5, M},
    {0, 0xf7, 0, 6, M},
    {0, 0xf7, 0, 7, M},
    {0, 0xfe, 0, 0, M | BYTE},
    {0, 0xfe, 0, 1, M | BYTE},
    {0, 0xff, 0, 0, M},
    {0, 0xff, 0, 1, M},
    {0, 0x90, 0, -1, 0},
    {0, 0x91, 0, -1, GPRLOW},
    {0, 0x93, 0, -1, GPRLOW},
    EIGHT(1, 0x40, M),
    EIGHT(1, 0x48, M),
    EIGHT(1, 0x90, M | BYTE),
    EIGHT(1, 0x98, M | BYTE),
    {1, 0xa3, 0, -1, M | REG},
    {1, 0xab, 0, -1, M | REG},
    {1, 0xb3, 0, -1, M | REG},
    {1, 0xbb, 0, -1, M | REG},
    {1, 0xba, 0, 4, M | I8},
    {1, 0xba, 0, 5, M | I8},
    {1, 0xba, 0, 6, M | I8},
    {1, 0xba, 0, 7, M | I8},
    {1, 0xa4, 0, -1, M | I8},
    {1, 0xa5, 0, -1, M},
    {1, 0xac, 0, -1, M | I8},
    {1, 0xad, 0, -1, M},
    {1, 0xaf, 0, -1, M},
    {1, 0xb0, 0, -1, M | BYTE},
    {1, 0xb1, 0, -1, M},
    {1, 0xb6, 0, -1, M},
    {1, 0xb7, 0, -1, M},
    {1, 0xbe, 0, -1, M},
    {1, 0xbf, 0, -1, M},
    {1, 0xbc, 0, -1, M},
    {1, 0xbd, 0, -1, M},
    {1, 0xbc, 0xf3, -1, M},
    {1, 0xbd, 0xf3, -1, M},
    {1, 0xb8, 0xf3, -1, M},
    {1, 0xc0, 0, -1, M | BYTE},
    {1, 0xc1, 0, -1, M},
    EIGHT(1, 0xc8, NO16 | GPRLOW),
    {1, 0xc7, 0, 1, M | MEMONLY | NO16},
    {2, 0xf0, 0, -1, M | MEMONLY},
    {2, 0xf1, 0, -1, M | MEMONLY},
    {2, 0xf0, 0xf2, -1, M | BYTE},
    {2, 0xf1, 0xf2, -1, M},
    {2, 0xf6, 0x66, -1, M | NO16},
    {2, 0xf6, 0xf3, -1, M | NO16},
    {2, 0xf2, 0, -1, M | VEX},
    {2, 0xf3, 0, 1, M | VEX},
    {2, 0xf3, 0, 2, M | VEX},
    {2, 0xf3, 0, 3, M | VEX},
    {2, 0xf5, 0, -1, M | VEX},
    {2, 0xf5, 2, -1, M | VEX},
    {2, 0xf5, 3, -1, M | VEX},
    {2, 0xf6, 3, -1, M | VEX},
    {2, 0xf7, 0, -1, M | VEX},
    {2, 0xf7, 1, -1, M | VEX},
    {2, 0xf7, 2, -1, M | VEX},
    {2, 0xf7, 3, -1, M | VEX},
    {3, 0xf0, 3, -1, M | VEX | I8},
};

/* ModRM with RDI (and RSI as index) for memory, any register but RSP otherwise. */
static uint8_t *emit_modrm(struct fixture *f, uint8_t *at, const struct pattern *p, uint8_t rex)
{
    unsigned reg = p->group >= 0 ? (unsigned)p->group : next_random(f) & 7;
    if (reg == 4 && p->group < 0 && !(rex & 4) && !(p->attr & BYTE && !rex))
        reg = 3;
    bool memory = p->attr & MEMONLY || (!(p->attr & REG) && next_random(f) & 1);
    if (!memory) {
        unsigned rm = next_random(f) & 7;
        if (rm == 4 && !(rex & 1) && !(p->attr & BYTE && !rex))
            rm = 5;
        *at++ = 0xc0 | reg << 3 | rm;
        return at;
    }
    switch (next_random(f) % 3) {
    case 0:
        *at++ = 0x07 | reg << 3;
        break;
    case 1:
        *at++ = 0x47 | reg << 3;
        *at++ = next_random(f) & 0x7f;
        break;
    default:
        *at++ = 0x84 | reg << 3;
        *at++ = (next_random(f) & 3) << 6 | X86_RSI << 3 | X86_RDI;
        put_le32(at, next_random(f) % 1024);
        at += 4;
    }
    return at;
}

static unsigned make(struct fixture *f, const struct pattern *p, uint8_t *bytes)
{
    uint8_t *at = bytes, rex = 0;
    bool word = false;
    uint64_t r = next_random(f);
    if (p->attr & VEX) {
        /* R and B select high registers only for register forms: RDI is the base here. */
        bool w = r & 1;
        *at++ = 0xc4;
        *at++ = 0xe0 | p->map;
        *at++ = w << 7 | (~(r >> 4 & 7) & 7) << 3 | 0x40 | p->prefix;
        if ((at[-1] >> 3 & 15) == 11) /* not RSP as vvvv */
            at[-1] ^= 8;
        if (p->map == 3) /* RORX has no second source */
            at[-1] |= 0x78;
        *at++ = p->opcode;
        at = emit_modrm(f, at, p, 0x40);
    } else {
        word = !(p->attr & (BYTE | NO16)) && (r & 7) == 0;
        if (word)
            *at++ = 0x66;
        if (p->prefix)
            *at++ = p->prefix;
        if (r & 0x10)
            rex = 0x40 | (r & 0x20 ? 8 : 0) | (r & 0x40 ? 4 : 0);
        if (p->attr & GPRLOW && (p->opcode & 7) == 4)
            rex |= 0x41; /* R12 instead of RSP */
        if (p->opcode == 0xc7)
            rex &= ~8; /* CMPXCHG16B wants an aligned operand: test_soft_exec.c */
        if (rex)
            *at++ = rex;
        if (p->map)
            *at++ = 0x0f;
        if (p->map > 1)
            *at++ = p->map == 2 ? 0x38 : 0x3a;
        *at++ = p->opcode;
        if (p->attr & M)
            at = emit_modrm(f, at, p, rex);
    }
    bool wide = rex & 8;
    unsigned immediate = p->attr & I8   ? 1
                         : p->attr & IZ ? (word && !wide ? 2 : 4)
                         : p->attr & IV ? (wide   ? 8
                                           : word ? 2
                                                  : 4)
                                        : 0;
    put_le(at, immediate, next_random(f));
    return at + immediate - bytes;
}

/* ---- comparing ---- */

static uint32_t undefined_flags(const struct fixture *f, const struct insn *insn)
{
    uint64_t count = insn->op[1] == O_CL || insn->op[2] == O_CL ? f->context->in[X86_RCX]
                     : insn->op[1] == O_ONE                     ? 1
                                                                : (uint64_t)insn->imm;
    count &= insn->opsize == 8 ? 63 : 31;
    switch (insn->id) {
    case I_AND:
    case I_OR:
    case I_XOR:
    case I_TEST:
        return FL_AF;
    case I_SHL:
    case I_SHR:
        return !count ? 0
                      : FL_AF | (count > 1 ? FL_OF : 0) | (count > insn->opsize * 8u ? FL_CF : 0);
    case I_SAR:
        return !count ? 0 : FL_AF | (count > 1 ? FL_OF : 0);
    case I_ROL:
    case I_ROR:
    case I_RCL:
    case I_RCR:
        return count == 1 ? 0 : FL_OF;
    case I_SHLD:
    case I_SHRD:
        return !count ? 0 : FL_AF | (count > 1 ? FL_OF : 0);
    case I_MUL:
    case I_IMUL1:
    case I_IMUL2:
    case I_IMUL3:
        return FL_SF | FL_ZF | FL_AF | FL_PF;
    case I_DIV:
    case I_IDIV:
        return FL_ARITH;
    case I_BSF:
    case I_BSR:
        return FL_ARITH & ~FL_ZF;
    case I_BT:
    case I_BTS:
    case I_BTR:
    case I_BTC:
        return FL_OF | FL_SF | FL_AF | FL_PF;
    case I_LZCNT:
    case I_TZCNT:
        return FL_OF | FL_SF | FL_PF | FL_AF;
    case I_BEXTR:
        return FL_AF | FL_SF | FL_PF;
    case I_ANDN:
    case I_BLSI:
    case I_BLSMSK:
    case I_BLSR:
    case I_BZHI:
        return FL_AF | FL_PF;
    default:
        return 0;
    }
}

/* Undefined results as a whole: a 16-bit double shift by more than its width. */
static bool comparable(const struct fixture *f, const struct insn *insn)
{
    if ((insn->id == I_SHLD || insn->id == I_SHRD) && insn->opsize == 2) {
        uint64_t count = insn->op[2] == O_CL ? f->context->in[X86_RCX] : (uint64_t)insn->imm;
        return (count & 31) <= 16;
    }
    return true;
}

static void load_guest(struct fixture *f, uint64_t rip)
{
    struct soft_vcpu *v = f->rig->v;
    for (unsigned i = 0; i < 16; i++)
        if (i != X86_RSP)
            v->r[i] = f->context->in[i];
    soft_set_flags(v, f->context->in_flags);
    v->rip = rip;
    v->raised = -1;
    memcpy(f->rig->ram + DATA, f->data, DATA_SIZE);
}

static void compare(struct fixture *f, const struct insn *insn, const char *how)
{
    struct soft_vcpu *v = f->rig->v;
    uint32_t mask = FL_ARITH & ~undefined_flags(f, insn);
    bool same = !((soft_flags(v) ^ f->context->out_flags) & mask) &&
                !memcmp(f->rig->ram + DATA, f->data, DATA_SIZE);
    for (unsigned i = 0; i < 16; i++)
        same &= i == X86_RSP || v->r[i] == f->context->out[i];
    if (same)
        return;
    char text[64] = "";
    for (unsigned i = 0; i < insn->len; i++)
        snprintf(text + 2 * i, 3, "%02x", insn->raw[i]);
    for (unsigned i = 0; i < 16; i++)
        if (i != X86_RSP && v->r[i] != f->context->out[i])
            print_message("r%u: in %016llx native %016llx soft %016llx\n", i,
                          (unsigned long long)f->context->in[i],
                          (unsigned long long)f->context->out[i], (unsigned long long)v->r[i]);
    for (unsigned i = 0; i < DATA_SIZE; i++)
        if (f->rig->ram[DATA + i] != f->data[i])
            print_message("data %u: native %02x soft %02x\n", i, f->data[i], f->rig->ram[DATA + i]);
    fail_msg("%s (%s) %s: flags in %llx native %llx soft %x", decode_name(insn->id), text, how,
             (unsigned long long)f->context->in_flags & FL_ARITH,
             (unsigned long long)f->context->out_flags & FL_ARITH, soft_flags(v) & FL_ARITH);
}

static void random_state(struct fixture *f)
{
    static const uint64_t corners[] = {0,
                                       1,
                                       2,
                                       0x7f,
                                       0x80,
                                       0xff,
                                       0x7fff,
                                       0x8000,
                                       0xffff,
                                       0x7fffffff,
                                       0x80000000,
                                       0xffffffff,
                                       0x7fffffffffffffff,
                                       0x8000000000000000,
                                       0xffffffffffffffff};
    for (unsigned i = 0; i < 16; i++) {
        uint64_t r = next_random(f);
        f->context->in[i] = r & 1 ? corners[(r >> 8) % ARRAY_SIZE(corners)] : next_random(f);
    }
    f->context->in[X86_RDI] = DATA + 1024 + next_random(f) % 1024;
    f->context->in[X86_RSI] = next_random(f) % 64;
    f->context->in_flags = (next_random(f) & FL_ARITH) | 2 | FL_IF;
}

static void one(struct fixture *f, const struct pattern *p, unsigned *faults)
{
    uint8_t bytes[16];
    struct insn insn;
    static uint8_t before[DATA_SIZE];
    unsigned len = make(f, p, bytes);
    enum decode_result result = decode(bytes, len, INSN_64, ~0ull, &insn);
    if (result != DECODE_OK || insn.len != len)
        fail_msg("opcode %u:%02x decodes to %d, length %u of %u", p->map, p->opcode, result,
                 insn.len, len);
    random_state(f);
    if (!comparable(f, &insn))
        return;
    for (unsigned i = 0; i < DATA_SIZE; i += 8)
        put_le64(f->data + i, next_random(f));
    memcpy(before, f->data, DATA_SIZE);

    /* The engine goes first: a division that faults there is not tried natively. */
    uint64_t rip = SLOTS + f->slot * SLOT;
    static const uint8_t end[] = {RIG_END};
    uint8_t *at = f->rig->ram + rip;
    memcpy(at, bytes, len);
    memcpy(at + len, end, sizeof(end));
    if (++f->slot == SLOT_COUNT) {
        f->slot = 0;
        soft_code_flush(f->rig->v);
    }
    load_guest(f, rip);
    f->rig->v->idt.limit = 0;
    enum vm_exit_reason reason = rig_run(f->rig);
    if (reason != VM_EXIT_KICKED) {
        if (insn.id != I_DIV && insn.id != I_IDIV)
            fail_msg("%s does not finish", decode_name(insn.id));
        ++*faults;
        return;
    }
    run_native(f, bytes, len);
    compare(f, &insn, "in a block");

    /* Once more through the general executor. */
    static uint8_t after[DATA_SIZE];
    memcpy(after, f->data, DATA_SIZE);
    memcpy(f->data, before, DATA_SIZE);
    load_guest(f, rip);
    memcpy(f->data, after, DATA_SIZE);
    f->rig->v->next_rip = rip + len;
    if (setjmp(f->rig->v->unwind))
        fail_msg("%s raises in the general executor", decode_name(insn.id));
    soft_exec[insn.id](f->rig->v, &insn);
    compare(f, &insn, "in the general executor");
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->rig = rig_new();
    f->data = mmap((void *)(uintptr_t)DATA, DATA_SIZE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    f->context = mmap((void *)(uintptr_t)CONTEXT, 4096, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    f->code =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f->data == MAP_FAILED || f->context == MAP_FAILED || f->code == MAP_FAILED)
        return -1;
    const char *seed = getenv("TENON_TEST_SEED");
    f->seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 0x9e3779b97f4a7c15ull | 1;
    print_message("TENON_TEST_SEED=%#llx\n", (unsigned long long)f->seed);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    munmap(f->data, DATA_SIZE);
    munmap(f->context, 4096);
    munmap(f->code, 4096);
    rig_free(f->rig);
    free(f);
    return 0;
}

static void run_random(struct fixture *f, unsigned xlate_after)
{
    f->rig->v->vm->xlate_after = xlate_after;
    soft_code_flush(f->rig->v);
    unsigned runs = 0, faults = 0;
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        for (unsigned i = 0; i < ARRAY_SIZE(patterns); i++, runs++)
            one(f, &patterns[i], &faults);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - start.tv_sec < 3);
    print_message("%u instructions, %u divisions faulted\n", runs, faults);
    assert_true(runs > ARRAY_SIZE(patterns) && faults < runs / 8);
}

static void test_interpreter(void **state)
{
    run_random(*state, 0);
}

static void test_translator(void **state)
{
    run_random(*state, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_interpreter),
                                       cmocka_unit_test(test_translator)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
