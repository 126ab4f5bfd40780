/*
 * Makes cases out of seeds: which instructions, with which operands, on which state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "differential.h"

#include <string.h>

#include "base/bytes.h"
#include "values.h"

struct maker {
    struct random random;
    struct test_case *test;
    uint32_t claimed;  /* registers that some operand relies on already */
    uint32_t pointers; /* longer programs: registers that hold addresses */
};

/* ---- encoding ---- */

static unsigned pick(struct maker *m, unsigned n)
{
    return below(&m->random, n);
}

static uint8_t *put_prefixes(struct maker *m, const struct form *form, uint8_t *at, bool memory)
{
    unsigned attr = form->row->attr;
    uint8_t prefixes[6];
    unsigned n = 0;
    static const uint8_t mandatory[4] = {0, 0x66, 0xf3, 0xf2};
    if (!form->vex && form->pp > 0)
        prefixes[n++] = mandatory[form->pp];
    else if (form->pp < 0) {
        if (pick(m, 6) == 0)
            prefixes[n++] = 0x66;
        if (attr & A_REP ? pick(m, 2) : !lenient && pick(m, 24) == 0)
            prefixes[n++] = 0xf2 + pick(m, 2);
    }
    if (attr & A_LOCK && memory ? pick(m, 4) == 0 : !lenient && pick(m, 250) == 0)
        prefixes[n++] = 0xf0;
    if (pick(m, 14) == 0)
        prefixes[n++] = 0x67;
    if (pick(m, 14) == 0)
        prefixes[n++] = 0x64 + pick(m, 2);
    else if (pick(m, 40) == 0)
        prefixes[n++] = 0x26 + 8 * pick(m, 4);
    for (; n; n--) {
        unsigned i = pick(m, n);
        *at++ = prefixes[i];
        prefixes[i] = prefixes[n - 1];
    }
    return at;
}

static uint8_t *put_opcode(struct maker *m, const struct form *form, uint8_t *at)
{
    uint64_t r = random_next(&m->random);
    if (form->vex) {
        bool three = form->map != INSN_MAP_0F || form->w == 2 || r & 1;
        /* A form without a second source wants 1111 there. */
        uint8_t v = form->second ? r & 2 : (r & 0x3e) == 0;
        v = v ? r >> 8 & 15 : 15;
        uint8_t w = form->w == 3 || (r & 0x7c0) == 0 ? r >> 24 & 0x80 : form->w == 2 ? 0x80u : 0u;
        uint8_t tail = v << 3 | form->vex_l << 2 | form->pp;
        if (three) {
            *at++ = 0xc4;
            *at++ = (r >> 16 & 0xe0) | form->map;
            *at++ = w | tail;
        } else {
            *at++ = 0xc5;
            *at++ = (r >> 16 & 0x80) | tail;
        }
    } else {
        if (r & 1)
            *at++ = 0x40 | (r >> 8 & 15);
        if (form->map)
            *at++ = 0x0f;
        if (form->map > 1)
            *at++ = form->map == 2 ? 0x38 : 0x3a;
    }
    *at++ = form->opcode;
    return at;
}

/* ModRM, SIB and displacement. */
static uint8_t *put_modrm(struct maker *m, const struct form *form, uint8_t *at, bool memory)
{
    uint8_t modrm = random_next(&m->random);
    modrm = memory ? modrm % 0xc0 : modrm | 0xc0;
    if (form->reg >= 0)
        modrm = (modrm & ~0x38) | form->reg << 3;
    if (form->rm >= 0)
        modrm = (modrm & ~7) | form->rm;
    bool gather = form->row->kind == ROW_SIMD && form->row->mem[1] == Z_V;
    if (gather)
        modrm = (modrm & ~7) | 4;
    *at++ = modrm;
    if (!memory)
        return at;
    unsigned mod = modrm >> 6, rm = modrm & 7, disp = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    if (rm == 4) {
        uint8_t sib = random_next(&m->random);
        *at++ = sib;
        if (mod == 0 && (sib & 7) == 5)
            disp = 4;
    } else if (mod == 0 && rm == 5) {
        disp = 4;
    }
    int32_t value =
        one_in(&m->random, 8) ? (int32_t)random_next(&m->random) : (int32_t)pick(m, 256) - 128;
    put_le(at, disp, (uint64_t)value);
    return at + disp;
}

static bool form_is_memory(struct maker *m, const struct form *form)
{
    return form->mod == MOD_MEM || (form->mod == MOD_ANY && pick(m, 2));
}

/* One encoding of the form; its length as the decoder has it, 0 when it is none. */
static unsigned encode(struct maker *m, const struct form *form, uint8_t *bytes, struct insn *insn)
{
    bool memory = form_is_memory(m, form);
    uint8_t *at = put_prefixes(m, form, bytes, memory);
    at = put_opcode(m, form, at);
    /* Bytes behind a row without ModRM are its immediate. */
    at = put_modrm(m, form, at, memory);
    for (unsigned i = 0; i < 9; i++)
        *at++ = random_next(&m->random);
    enum decode_result result = decode(bytes, 15, INSN_64, ~0ull, insn);
    if (result == DECODE_UD && one_in(&m->random, 40)) {
        insn->id = I_UD; /* must be #UD everywhere */
        insn->is_mem = 0;
        return insn->len;
    }
    return result == DECODE_OK ? insn->len : 0;
}

/* ---- what a longer program must not do ---- */

/* Branches that fall through or skip, so that the program goes on; else none in longer ones. */
static bool ends(const struct insn *insn)
{
    return insn->flags & INSN_F_END || insn->flags & INSN_F_PRIV || insn->id == I_UD;
}

static bool writes_pointer(const struct maker *m, const struct insn *insn)
{
    if (insn->cls != INSN_CLASS_INT)
        return false;
    if (!insn->is_mem && m->pointers >> insn->rm & 1)
        return true;
    return insn->has_modrm && m->pointers >> insn->reg & 1;
}

static bool fits_program(const struct maker *m, const struct insn *insn, unsigned count)
{
    if (count == 1)
        return true;
    if (ends(insn) && insn->id != I_JCC && insn->id != I_JMP && insn->id != I_CALL)
        return one_in(&((struct maker *)(uintptr_t)m)->random, 50);
    if (insn->id == I_ENTER || insn->id == I_LEAVE || insn->id == I_IN || insn->id == I_OUT ||
        insn->id == I_INS || insn->id == I_OUTS)
        return false;
    if (writes_pointer(m, insn) || (insn->rep && insn->addrsize == 4))
        return false;
    if (insn->is_mem && insn->base < 16 && !(m->pointers >> insn->base & 1))
        return false;
    if (insn->is_mem && insn->base >= 16 && insn->index < 16)
        return false;
    return true;
}

static bool branch(const struct insn *insn)
{
    switch (insn->id) {
    case I_JCC:
    case I_JMP:
    case I_CALL:
    case I_LOOP:
    case I_LOOPE:
    case I_LOOPNE:
    case I_JCXZ:
        return true;
    default:
        return false;
    }
}

/* Some things that would not come back, or not the same twice. */
static bool sane(const struct insn *insn)
{
    if (insn->id == I_INT && (insn->imm == 0x80 || insn->imm < 32))
        return false;
    return !soft_undefined_result(insn, NULL) || insn->id == I_SHLD || insn->id == I_SHRD;
}

/* ---- program ---- */

static void append(struct maker *m, const uint8_t *bytes, const struct insn *insn,
                   struct form *form)
{
    struct test_case *test = m->test;
    memcpy(test->code + test->length, bytes, insn->len);
    if (insn->id == I_ENTER && pick(m, 8)) { /* a frame that fits */
        put_le16(test->code + test->length + insn->len - 3, pick(m, 256));
        test->code[test->length + insn->len - 1] = pick(m, 4);
    }
    m->test->start[test->count] = test->length;
    test->insn[test->count] = *insn;
    test->form[test->count++] = form;
    test->length += insn->len;
}

/* Defines all arithmetic flags again: cmp al, imm8. */
static void settle(struct maker *m)
{
    uint8_t bytes[2] = {0x3c, random_next(&m->random)};
    memcpy(m->test->code + m->test->length, bytes, 2);
    m->test->length += 2;
}

static struct form *pick_form(struct maker *m, struct forms *forms)
{
    for (;;) {
        struct form *form = &forms->form[pick(m, forms->count)];
        if (!form->excluded && (!form->undefined || pick(m, 32) == 0))
            return form;
    }
}

static void program(struct maker *m, struct forms *forms, struct form *only, unsigned count)
{
    struct test_case *test = m->test;
    uint8_t bytes[64];
    struct insn insn;
    while (test->count < count) {
        struct form *form = only ? only : pick_form(m, forms);
        memset(bytes, 0, sizeof(bytes));
        if (!encode(m, form, bytes, &insn) || !sane(&insn) || !fits_program(m, &insn, count))
            continue;
        if (count > 1 && soft_undefined_result(&insn, NULL))
            continue;
        append(m, bytes, &insn, form);
        if (count > 1 && soft_undefined_flags(&insn, NULL))
            settle(m);
    }
    m->test->start[test->count] = test->length;
    test->code[test->length++] = 0xcc;
}

/* Relative branches lead to a later instruction. */
static void aim_branches(struct maker *m)
{
    struct test_case *test = m->test;
    for (unsigned i = 0; i < test->count; i++) {
        struct insn *insn = &test->insn[i];
        if (!branch(insn))
            continue;
        unsigned next = m->test->start[i] + insn->len;
        unsigned target = m->test->start[i + 1 + pick(m, test->count - i)];
        unsigned width = insn->op[0] == O_Jz ? 4 : 1;
        put_le(test->code + next - width, width, target - next);
        insn->imm = target - next;
    }
}

/* ---- operands ---- */

/* An address for an operand of `size` bytes: mostly good, sometimes at an edge. */
static uint64_t operand_address(struct maker *m, unsigned size)
{
    struct random *r = &m->random;
    if (!size || size > 512)
        size = 8;
    uint64_t inside = DATA_AT + below(r, DATA_SIZE - size - 64);
    switch (below(r, 24)) {
    case 0:
    case 1:
    case 2: /* across the two pages */
        return DATA_AT + 0x1000 - below(r, size);
    case 3:
        return READ_ONLY_AT - below(r, size);
    case 4:
        return READ_ONLY_AT + below(r, 0x1000 - size);
    case 5:
        return DATA_END - below(r, size + 1);
    case 6:
        return one_in(r, 2) ? DATA_AT - below(r, size) : 0x8000000000000000ull >> below(r, 40);
    case 7:
    case 8:
    case 9:
    case 10:
    case 11:
    case 12:
        return inside;
    default:
        return ALIGN_UP(inside, size >= 32 ? 32 : size >= 16 ? 16 : 8);
    }
}

static void claim(struct maker *m, unsigned reg, uint64_t value)
{
    if (m->claimed >> reg & 1)
        return;
    m->claimed |= 1u << reg;
    m->test->in.gpr[reg] = value;
}

static uint64_t segment_base(const struct test_case *test, const struct insn *insn)
{
    return insn->seg == X86_FS ? test->in.fs_base : insn->seg == X86_GS ? test->in.gs_base : 0;
}

/* Moves an address without registers: its displacement is behind the ModRM byte. */
static void aim_displacement(struct maker *m, unsigned i, uint64_t target)
{
    struct test_case *test = m->test;
    struct insn *insn = &test->insn[i];
    uint8_t *code = test->code + test->start[i];
    uint64_t value = target - segment_base(test, insn);
    if (!insn->has_modrm) { /* moffs */
        put_le(code + insn->opcode_at + 1, insn->addrsize, value);
        insn->disp = value;
        return;
    }
    if (insn->base == INSN_REG_RIP)
        value -= test->at + m->test->start[i] + insn->len;
    bool sib = (insn->modrm & 7) == 4;
    put_le32(code + insn->modrm_at + 1 + sib, value);
    insn->disp = (int32_t)value;
}

static void aim_memory(struct maker *m, unsigned i)
{
    struct test_case *test = m->test;
    struct insn *insn = &test->insn[i];
    uint64_t target = operand_address(m, insn->mem_size ? insn->mem_size : 32);
    uint64_t value = target - segment_base(test, insn) - insn->disp;
    bool gather = insn->cls == INSN_CLASS_SIMD && insn->id == I_SIMD && insn->map == 2 &&
                  insn->opcode >= 0x90 && insn->opcode <= 0x93;
    bool indexed = insn->index < 16 && !gather;
    if (insn->base < 16) {
        if (indexed && insn->index != insn->base) {
            claim(m, insn->index,
                  one_in(&m->random, 3) ? random_next(&m->random) : below(&m->random, 64));
            value -= test->in.gpr[insn->index] << insn->scale;
        }
        claim(m, insn->base, value);
    } else if (indexed) {
        claim(m, insn->index, value >> insn->scale);
    } else if (!gather) {
        aim_displacement(m, i, target);
    }
    if (gather && insn->base < 16)
        claim(m, insn->base, target - insn->disp);
    /* Bit strings reach far: mostly a small number. */
    bool bits = insn->id == I_BT || insn->id == I_BTS || insn->id == I_BTR || insn->id == I_BTC;
    if (bits && insn->op[1] == O_Gv && pick(m, 4))
        claim(m, insn->reg, below(&m->random, 8192));
}

static void aim_indirect(struct maker *m, unsigned i)
{
    struct test_case *test = m->test;
    struct insn *insn = &test->insn[i];
    uint64_t next = test->at + m->test->start[i + 1];
    if (!pick(m, 4))
        return;
    if (!insn->is_mem && insn->id != I_RET) {
        claim(m, insn->rm, next);
        return;
    }
    unsigned base = insn->id == I_RET ? X86_RSP : insn->base;
    if (base >= 16)
        return;
    uint64_t at = test->in.gpr[base] + insn->disp - DATA_AT;
    if (insn->id == I_RET)
        at = test->in.gpr[X86_RSP] - DATA_AT;
    if (at <= DATA_SIZE - 8)
        put_le64(test->data + at, next);
}

static void aim_implicit(struct maker *m, unsigned i)
{
    const struct insn *insn = &m->test->insn[i];
    struct random *r = &m->random;
    switch (insn->id) {
    case I_MOVS:
    case I_CMPS:
    case I_STOS:
    case I_SCAS:
    case I_LODS:
    case I_INS:
    case I_OUTS:
        /* With 67 and a count of 0, CPUs differ in whether they clear the upper halves. */
        claim(m, X86_RSI, operand_address(m, 8) & (insn->addrsize == 4 ? UINT32_MAX : ~0ull));
        claim(m, X86_RDI, operand_address(m, 8) & (insn->addrsize == 4 ? UINT32_MAX : ~0ull));
        if (insn->rep && (insn->addrsize == 4 || pick(m, 16)))
            claim(m, X86_RCX, below(r, one_in(r, 4) ? 700 : 40));
        break;
    case I_XLAT:
        claim(m, X86_RBX, operand_address(m, 256));
        break;
    case I_PUSH:
    case I_POP:
    case I_PUSHF:
    case I_POPF:
    case I_CALL:
    case I_CALLI:
    case I_RET:
    case I_PUSHSEG:
        claim(m, X86_RSP, operand_address(m, 8) + (one_in(r, 8) ? 0 : 8));
        break;
    case I_LEAVE:
    case I_ENTER:
        claim(m, X86_RBP, operand_address(m, 8));
        claim(m, X86_RSP, operand_address(m, 512) + 256);
        break;
    case I_DIV:
    case I_IDIV: /* a quotient that fits, mostly */
        if (pick(m, 4))
            claim(m, X86_RDX, insn->id == I_IDIV ? 0 : below(r, 4));
        break;
    case I_MOVSEG_W:
        if (!insn->is_mem && pick(m, 4))
            claim(m, insn->rm, 0x2b);
        break;
    case I_SHLD:
    case I_SHRD:
        if (insn->op[2] == O_CL && insn->opsize == 2)
            claim(m, X86_RCX, below(r, 17));
        break;
    case I_SIMD: /* MASKMOVQ, MASKMOVDQU */
        if (insn->map == 1 && insn->opcode == 0xf7)
            claim(m, X86_RDI, operand_address(m, 16));
        break;
    default:
        break;
    }
    if (insn->id == I_JMPI || insn->id == I_CALLI || insn->id == I_RET)
        aim_indirect(m, i);
}

/* ---- the case ---- */

void case_read_only(uint8_t page[4096])
{
    struct random random = {.state = 0x7ead0417};
    values_memory(&random, page, 4096);
}

void case_make(struct test_case *test, struct forms *forms, struct form *form, uint64_t seed,
               unsigned slot)
{
    struct maker m = {.random = {.state = seed}, .test = test};
    memset(test, 0, offsetof(struct test_case, in));
    test->seed = seed;
    test->at = CODE_AT + slot * SLOT;
    unsigned count = form || pick(&m, 2) ? 1 : 2 + pick(&m, INSNS_MAX - 1);
    if (count > 1)
        m.pointers = 1u << pick(&m, 16) | 1u << pick(&m, 16);
    values_state(&m.random, &test->in);
    values_memory(&m.random, test->data, DATA_SIZE);
    test->in.rip = test->at;
    program(&m, forms, form, count);
    aim_branches(&m);
    for (unsigned i = 0; i < test->count; i++) {
        if (test->insn[i].is_mem)
            aim_memory(&m, i);
        aim_implicit(&m, i);
    }
    if (count == 1 && soft_undefined_result(&test->insn[0], test->in.gpr))
        test->in.gpr[X86_RCX] &= ~31ull;
}
