/*
 * Random programs: loops, calls, indirect jumps, code in two pages, accesses that cross pages,
 * devices, page faults, code that writes itself, SSE and AVX, and instructions that the translator
 * leaves alone. See xlate_program.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "xlate_program.h"

#include "accel/soft/xlate/xlate.h"

static void put(struct fixture *f, unsigned byte)
{
    *f->at++ = byte;
}

static void put32(struct fixture *f, uint32_t value)
{
    put_le32(f->at, value);
    f->at += 4;
}

static uint64_t address_of(const struct fixture *f)
{
    return (uint64_t)(f->at - f->rig->ram);
}

/* Registers that programs may change: not RSP, RSI, RDI, R10 (addresses), R14 (loops). */
static unsigned any_reg(struct fixture *f)
{
    static const uint8_t regs[] = {0, 1, 2, 3, 5, 8, 9, 11, 12, 13, 15};
    return regs[below(f, ARRAY_SIZE(regs))];
}

static unsigned source_reg(struct fixture *f)
{
    return below(f, 16);
}

/* REX, opcode and ModRM of a register or memory operand. `imm`: bytes that follow, for RIP. */
static void encode(struct fixture *f, bool word, bool wide, bool byte, unsigned opcode,
                   unsigned reg, int rm, unsigned imm)
{
    if (word)
        put(f, 0x66);
    unsigned form = rm >= 0 ? 0 : below(f, 8);
    unsigned base = rm >= 0 ? (unsigned)rm : form < 3 ? 7 : form < 5 ? 10 : form == 5 ? 4 : 5;
    bool index = rm < 0 && (form == 2 || form == 4);
    unsigned segment = rm < 0 && form == 7 ? below(f, 2) : 0;
    if (segment)
        put(f, 0x65);
    unsigned rex = 0x40 | wide << 3 | (reg >> 3) << 2 | ((rm >= 0 || form < 6) ? base >> 3 : 0);
    if (rex != 0x40 || byte || below(f, 8) == 0)
        put(f, rex);
    if (opcode > 0xffff)
        put(f, opcode >> 16);
    if (opcode > 0xff)
        put(f, opcode >> 8);
    put(f, opcode);
    unsigned r = (reg & 7) << 3;
    if (rm >= 0) {
        put(f, 0xc0 | r | (base & 7));
    } else if (form >= 6) { /* RIP-relative, a data page; with GS its base is 64 */
        put(f, 0x05 | r);
        put32(f, DATA + below(f, 4000) - (uint32_t)(address_of(f) + 4 + imm));
    } else if (index) {
        put(f, 0x44 | r);
        put(f, below(f, 4) << 6 | X86_RSI << 3 | (base & 7));
        put(f, below(f, 127));
    } else {
        put(f, 0x40 | r | (base & 7));
        if ((base & 7) == 4)
            put(f, 0x24);
        put(f, base == 4 ? 0x80 + below(f, 0x78) : below(f, 127)); /* below the stack */
    }
}

static void imm_bytes(struct fixture *f, unsigned n)
{
    while (n--)
        put(f, next_random(f));
}

/* Makes all flags defined again. */
static void settle(struct fixture *f)
{
    encode(f, false, true, false, 0x83, below(f, 2) * 7, any_reg(f), 1); /* add or cmp */
    imm_bytes(f, 1);
}

/* A random operand: a register that may change, or memory (-1). */
static int operand(struct fixture *f)
{
    return below(f, 2) ? (int)any_reg(f) : -1;
}

static void group1(struct fixture *f)
{
    unsigned op = below(f, 8) * 8, size = below(f, 4);
    bool word = size == 1, wide = size == 3, byte = size == 0;
    int rm = operand(f);
    switch (below(f, 3)) {
    case 0:
        encode(f, word, wide, byte, op | !byte, source_reg(f), rm, 0);
        break;
    case 1:
        encode(f, word, wide, byte, (op | 2) | !byte, any_reg(f), rm >= 0 ? (int)source_reg(f) : rm,
               0);
        break;
    default:
        encode(f, word, wide, byte, byte ? 0x80 : 0x83, op / 8, rm, 1);
        imm_bytes(f, 1);
    }
}

static void move(struct fixture *f)
{
    unsigned size = below(f, 4);
    bool word = size == 1, wide = size == 3, byte = size == 0;
    int rm = operand(f);
    switch (below(f, 6)) {
    case 0:
        encode(f, word, wide, byte, byte ? 0x88 : 0x89, source_reg(f), rm, 0);
        break;
    case 1:
        encode(f, word, wide, byte, byte ? 0x8a : 0x8b, any_reg(f),
               rm >= 0 ? (int)source_reg(f) : rm, 0);
        break;
    case 2:
        encode(f, word, wide, byte, byte ? 0xc6 : 0xc7, 0, rm, byte ? 1 : word ? 2 : 4);
        imm_bytes(f, byte ? 1 : word ? 2 : 4);
        break;
    case 3: /* MOVZX, MOVSX */
        encode(f, false, wide, true, 0x0fb6 | below(f, 2) << 3 | below(f, 2), any_reg(f), rm, 0);
        break;
    case 4: /* MOVSXD */
        encode(f, false, true, false, 0x63, any_reg(f), rm, 0);
        break;
    default: /* LEA */
        encode(f, false, size & 1, false, 0x8d, any_reg(f), -1, 0);
    }
}

static void unary(struct fixture *f)
{
    unsigned size = below(f, 4);
    bool word = size == 1, wide = size == 3, byte = size == 0;
    int rm = operand(f);
    switch (below(f, 4)) {
    case 0: /* INC, DEC */
        encode(f, word, wide, byte, byte ? 0xfe : 0xff, below(f, 2), rm, 0);
        break;
    case 1: /* NOT, NEG */
        encode(f, word, wide, byte, byte ? 0xf6 : 0xf7, 2 + below(f, 2), rm, 0);
        break;
    case 2: /* MUL, IMUL */
        encode(f, word, wide, byte, byte ? 0xf6 : 0xf7, 4 + below(f, 2), rm, 0);
        settle(f);
        break;
    default: /* IMUL with two operands */
        encode(f, false, wide, false, 0x0faf, any_reg(f), rm, 0);
        settle(f);
    }
}

static void shift(struct fixture *f)
{
    static const uint8_t digits[] = {0, 1, 2, 3, 4, 5, 7};
    unsigned size = below(f, 4), digit = digits[below(f, 7)];
    bool word = size == 1, wide = size == 3, byte = size == 0;
    unsigned how = below(f, 3);
    encode(f, word, wide, byte,
           (how == 0   ? 0xc0
            : how == 1 ? 0xd0
                       : 0xd2) |
               !byte,
           digit, operand(f), how == 0);
    if (how == 0)
        imm_bytes(f, 1);
    settle(f);
}

static void conditional(struct fixture *f)
{
    int rm = operand(f);
    if (below(f, 2))
        encode(f, false, below(f, 2), false, 0x0f40 | below(f, 16), any_reg(f), rm, 0);
    else
        encode(f, false, false, true, 0x0f90 | below(f, 16), 0, rm, 0);
}

static void bits(struct fixture *f)
{
    static const uint16_t simple[] = {0x98, 0x99, 0xf8, 0xf9, 0xf5, 0x9f, 0x9e, 0x90};
    int rm = operand(f);
    switch (below(f, 5)) {
    case 0: /* BT family with an immediate */
        encode(f, false, below(f, 2), false, 0x0fba, 4 + below(f, 4), rm, 1);
        imm_bytes(f, 1);
        settle(f);
        break;
    case 1: /* XADD, XCHG */
        encode(f, false, below(f, 2), false, below(f, 2) ? 0x0fc1 : 0x87, any_reg(f), rm, 0);
        break;
    case 2: /* LOCK CMPXCHG */
        put(f, 0xf0);
        encode(f, false, below(f, 2), false, 0x0fb1, source_reg(f), -1, 0);
        break;
    case 3:
        if (below(f, 2))
            put(f, 0x48);
        put(f, simple[below(f, ARRAY_SIZE(simple))]);
        break;
    default: { /* BSWAP */
        unsigned reg = any_reg(f);
        put(f, 0x48 | reg >> 3);
        put(f, 0x0f);
        put(f, 0xc8 | (reg & 7));
    }
    }
}

static void stack(struct fixture *f)
{
    unsigned from = source_reg(f), to = any_reg(f);
    if (below(f, 4) == 0) { /* of memory */
        encode(f, false, false, false, 0xff, 6, -1, 0);
    } else {
        if (from > 7)
            put(f, 0x41);
        put(f, 0x50 | (from & 7));
    }
    if (below(f, 2))
        group1(f);
    if (to > 7)
        put(f, 0x41);
    put(f, 0x58 | (to & 7));
}

/* CLI, STI, SWAPGS, fences, control registers to read. */
static void system_insn(struct fixture *f)
{
    static const uint8_t codes[][4] = {
        {1, 0xfa}, {1, 0xfb}, {3, 0x0f, 0x01, 0xf8}, {3, 0x0f, 0xae, 0xe8}};
    static const uint8_t controls[] = {0, 2, 3, 4};
    unsigned which = below(f, ARRAY_SIZE(codes) + 2);
    if (which < ARRAY_SIZE(codes)) {
        for (unsigned i = 1; i <= codes[which][0]; i++)
            put(f, codes[which][i]);
        return;
    }
    unsigned to = any_reg(f);
    put(f, 0x40 | to >> 3);
    put(f, 0x0f);
    put(f, 0x20);
    put(f, 0xc0 | controls[below(f, ARRAY_SIZE(controls))] << 3 | (to & 7));
}

/* What the translator leaves to the interpreter. */
static void foreign(struct fixture *f)
{
    static const uint8_t codes[][5] = {{3, 0x0f, 0x6f, 0xca} /* movq mm1, mm2 */,
                                       {1, 0xfc} /* cld */,
                                       {2, 0x9c, 0x9d} /* pushfq; popfq */,
                                       {4, 0xd9, 0xe8, 0xdd, 0xd8} /* fld1; fstp st0 */,
                                       {3, 0x0f, 0xae, 0xf0} /* mfence */};
    const uint8_t *code = codes[below(f, ARRAY_SIZE(codes))];
    for (unsigned i = 1; i <= code[0]; i++)
        put(f, code[i]);
}

/* One SSE or AVX encoding: a register or memory, all fields at random. False: no such thing. */
static bool try_vector(struct fixture *f, unsigned map)
{
    static const uint8_t mandatory[] = {0, 0x66, 0xf3, 0xf2};
    uint8_t *start = f->at;
    unsigned reg = below(f, 16), pp = below(f, 4), opcode = below(f, 256);
    int rm = below(f, 2) ? (int)below(f, 16) : -1;
    unsigned base = rm >= 0 ? (unsigned)rm : below(f, 2) ? 7 : 10;
    bool w = below(f, 4) == 0;
    if (below(f, 2)) {
        put(f, 0xc4);
        put(f, (reg > 7 ? 0 : 0x80) | 0x40 | (base > 7 ? 0 : 0x20) | map);
        put(f, w << 7 | (below(f, 2) ? 15 : below(f, 16)) << 3 | below(f, 2) << 2 | pp);
    } else {
        if (pp)
            put(f, mandatory[pp]);
        put(f, 0x40 | w << 3 | reg >> 3 << 2 | base >> 3);
        put(f, 0x0f);
        if (map > 1)
            put(f, map == 2 ? 0x38 : 0x3a);
    }
    put(f, opcode);
    put(f, (rm >= 0 ? 0xc0 : 0x40) | (reg & 7) << 3 | (base & 7));
    if (rm < 0)
        put(f, below(f, 16) ? below(f, 4) * 32 : below(f, 128));
    put(f, next_random(f)); /* an immediate */
    struct insn insn;
    struct simd_plan plan;
    if (decode(start, INSN_MAX, INSN_64, f->rig->v->features, &insn) != DECODE_OK ||
        !xlate_handles_simd(&insn) || !simd_native(f->rig->v, &insn, &plan) ||
        (plan.gpr_out != SIMD_NO_GPR && (plan.gpr_out == X86_RSP || plan.gpr_out == X86_RDI ||
                                         plan.gpr_out == X86_RSI || plan.gpr_out == 10))) {
        f->at = start;
        return false;
    }
    f->at = start + insn.len;
    return true;
}

static void vector(struct fixture *f)
{
    for (unsigned n = 1 + below(f, 4); n; n--) {
        unsigned map = 1 + below(f, 3);
        if (below(f, 16) == 0) { /* vzeroupper, vzeroall */
            put(f, 0xc5);
            put(f, 0xf8 | below(f, 2) << 2);
            put(f, 0x77);
        }
        while (!try_vector(f, map))
            ;
    }
}

static void device_or_fault(struct fixture *f)
{
    unsigned what = below(f, 24);
    /* mov rbx, imm64; mov rax, [rbx] or the other way */
    put(f, 0x48);
    put(f, 0xbb);
    put_le64(f->at, what ? DEVICE + below(f, 4096) * 8 : ABSENT);
    f->at += 8;
    put(f, 0x48);
    put(f, below(f, 2) ? 0x8b : 0x89);
    put(f, 0x03);
}

/* Writes into the immediate of the instruction behind. */
static void self_modify(struct fixture *f)
{
    put(f, 0x88); /* mov [rip + 1], cl */
    put(f, 0x0d);
    put32(f, 1);
    put(f, 0xb8); /* mov eax, imm32 */
    imm_bytes(f, 4);
}

static void straight(struct fixture *f)
{
    static void (*const kinds[])(struct fixture *) = {
        group1, group1,      move,   move, unary, shift,       stack,
        bits,   conditional, group1, move, move,  conditional, vector};
    unsigned rare = below(f, 100);
    if (rare < 3)
        foreign(f);
    else if (rare == 3)
        device_or_fault(f);
    else if (rare == 4)
        self_modify(f);
    else if (rare < 9)
        system_insn(f);
    else
        kinds[below(f, ARRAY_SIZE(kinds))](f);
}

static void straights(struct fixture *f, unsigned most)
{
    for (unsigned n = below(f, most); n; n--)
        straight(f);
}

/* A conditional jump over some instructions. */
static void hop(struct fixture *f)
{
    put(f, 0x0f);
    put(f, 0x80 | below(f, 16));
    uint8_t *hole = f->at;
    put32(f, 0);
    straights(f, 5);
    put_le32(hole, (uint32_t)(f->at - hole - 4));
}

/* mov r14d, n; body; dec r14; jnz */
static void loop(struct fixture *f)
{
    put(f, 0x41);
    put(f, 0xbe);
    put32(f, 1 + below(f, 6));
    uint8_t *top = f->at;
    straights(f, 8);
    if (below(f, 2))
        hop(f);
    put(f, 0x49);
    put(f, 0xff);
    put(f, 0xce);
    put(f, 0x0f);
    put(f, 0x85);
    put32(f, (uint32_t)(top - f->at - 4));
}

/* lea rax, [rip + over]; jmp rax, or through memory; junk between. */
static void indirect(struct fixture *f)
{
    bool memory = below(f, 2);
    put(f, 0x48);
    put(f, 0x8d);
    put(f, 0x05);
    uint8_t *hole = f->at;
    put32(f, 0);
    if (memory) { /* mov [cell], rax; jmp [cell] */
        uint32_t cell = CELLS + 8 * (f->cells++ % 500);
        static const uint8_t store[] = {0x48, 0x89, 0x04, 0x25}, jump[] = {0xff, 0x24, 0x25};
        memcpy(f->at, store, 4);
        f->at += 4;
        put32(f, cell);
        memcpy(f->at, jump, 3);
        f->at += 3;
        put32(f, cell);
    } else {
        put(f, 0xff);
        put(f, 0xe0);
    }
    put(f, 0x0f);
    put(f, 0x0b);
    put_le32(hole, (uint32_t)(f->at - hole - 4));
}

static void call_to(struct fixture *f, uint32_t target)
{
    if (below(f, 3)) {
        put(f, 0xe8);
        put32(f, target - (uint32_t)(address_of(f) + 4));
    } else { /* mov ebx, target; call rbx */
        put(f, 0xbb);
        put32(f, target);
        put(f, 0xff);
        put(f, 0xd3);
    }
}

/* Two leaf functions, one in each page, then the program, which runs over the page boundary. */
void xlate_program(struct fixture *f)
{
    uint32_t functions[2];
    memset(f->rig->ram + CODE, 0xf4, sizeof(f->code));
    f->cells = 0;
    for (unsigned i = 0; i < 2; i++) {
        f->at = f->rig->ram + CODE + (i ? 4096 + 3000 : 0);
        functions[i] = address_of(f);
        straights(f, 8);
        put(f, 0xc3);
    }
    f->at = f->rig->ram + CODE + 600 + below(f, 2800);
    f->regs[0] = address_of(f);
    for (unsigned n = 4 + below(f, 24); n; n--) {
        switch (below(f, 8)) {
        case 0:
            loop(f);
            break;
        case 1:
            indirect(f);
            break;
        case 2:
            call_to(f, functions[below(f, 2)]);
            break;
        case 3:
            hop(f);
            break;
        default:
            straights(f, 8);
        }
    }
    static const uint8_t end[] = {RIG_END};
    memcpy(f->at, end, sizeof(end));
    memcpy(f->code, f->rig->ram + CODE, sizeof(f->code));
}
