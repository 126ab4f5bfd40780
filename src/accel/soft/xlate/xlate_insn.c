/*
 * Encodes one guest instruction for the host: registers renamed, the memory operand behind a TLB
 * probe (Intel SDM vol. 2, chapter 2).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/mem/tlb.h"
#include "accel/soft/xlate/xlate_build.h"

static bool is_e(uint8_t kind)
{
    return (kind >= O_Eb && kind <= O_Eq) || kind == O_Rv || kind == O_Rq;
}

static bool is_g(uint8_t kind)
{
    return kind >= O_Gb && kind <= O_Gy;
}

static bool is_z(uint8_t kind)
{
    return kind == O_Zb || kind == O_Zv;
}

static unsigned immediate_size(const struct insn *insn, uint8_t kind)
{
    switch (kind) {
    case O_Ib:
    case O_Is:
        return 1;
    case O_Iw:
        return 2;
    case O_Iz:
        return insn->opsize == 2 ? 2 : 4;
    case O_Iv:
        return insn->opsize;
    default:
        return 0;
    }
}

/* ---- what can be translated ---- */

/* AH, CH, DH and BH exist only without a REX prefix. */
static bool high_byte(const struct insn *insn, uint8_t kind, unsigned reg)
{
    return (kind == O_Eb || kind == O_Gb || kind == O_Zb) && !insn->rex && reg >= 4 && reg < 8;
}

static bool writes_first(const struct insn *insn)
{
    return insn->id != I_CMP && insn->id != I_TEST && insn->id != I_BT;
}

static bool writes_both(const struct insn *insn)
{
    return insn->id == I_XCHG || insn->id == I_XADD;
}

static bool high_bytes_work(const struct insn *insn)
{
    bool high = false, extended = false;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t kind = insn->op[i];
        unsigned reg = is_g(kind) ? insn->reg : insn->rm;
        if (!is_g(kind) && !is_z(kind) && !(is_e(kind) && !insn->is_mem))
            continue;
        bool here = high_byte(insn, kind, reg);
        high |= here;
        extended |= !here && (reg >= 8 || reg == X86_RSP);
        /* Beside memory it comes from a copy. */
        if (here && insn->is_mem && (i == 0 || writes_both(insn)) && writes_first(insn))
            return false;
    }
    return !(high && extended);
}

static bool handles_generic(const struct insn *insn)
{
    if (!high_bytes_work(insn))
        return false;
    if (insn->is_mem) {
        unsigned n = insn->mem_size;
        if (!xlate_good_address(insn) || !insn->mem_access ||
            (n != 1 && n != 2 && n != 4 && n != 8))
            return false;
    }
    return true;
}

static bool handles_jump(const struct insn *insn)
{
    if (insn->id == I_RET)
        return true;
    if (insn->id == I_JMPI || insn->id == I_CALLI)
        return !insn->is_mem || xlate_good_address(insn);
    /* Room for the block's offset. */
    return insn->imm == (int32_t)insn->imm && insn->imm < INT32_MAX - 65536 &&
           insn->imm > INT32_MIN + 65536;
}

bool xlate_handles(const struct insn *insn)
{
    if (insn->cls != INSN_CLASS_INT)
        return xlate_handles_simd(insn);
    if (xlate_handles_system(insn))
        return true;
    if (insn->prefix & INSN_VEX)
        return xlate_handles_bmi(insn);
    if (insn->mode != INSN_64 || insn->rep || insn->flags & (INSN_F_PRIV | INSN_F_STATE))
        return false;
    switch (insn->id) {
    case I_JCC:
    case I_JMP:
    case I_JMPI:
    case I_CALL:
    case I_CALLI:
    case I_RET:
        return handles_jump(insn);
    case I_NOP:
    case I_PREFETCH:
    case I_CLC:
    case I_STC:
    case I_CMC:
    case I_LAHF:
    case I_SAHF:
    case I_CBW:
    case I_CWD:
        return true;
    case I_LEA:
        return insn->opsize >= 4 && xlate_good_address(insn);
    case I_PUSH:
        return insn->opsize == 8 && (!insn->is_mem || xlate_good_address(insn));
    case I_POP:
        return insn->opsize == 8 && !insn->is_mem;
    case I_LEAVE:
        return insn->opsize == 8;
    case I_BT:
    case I_BTS:
    case I_BTR:
    case I_BTC: /* a register names a bit anywhere in memory */
        return !(insn->is_mem && is_g(insn->op[1])) && handles_generic(insn);
    case I_XCHG:
    case I_XADD:
    case I_CMPXCHG:
        /* Of the same register twice: not worth thought. */
        return (insn->is_mem || insn->reg != insn->rm) && handles_generic(insn);
    case I_ADD:
    case I_OR:
    case I_ADC:
    case I_SBB:
    case I_AND:
    case I_SUB:
    case I_XOR:
    case I_CMP:
    case I_TEST:
    case I_MOV:
    case I_INC:
    case I_DEC:
    case I_NOT:
    case I_NEG:
    case I_MUL:
    case I_IMUL1:
    case I_IMUL2:
    case I_IMUL3:
    case I_ROL:
    case I_ROR:
    case I_RCL:
    case I_RCR:
    case I_SHL:
    case I_SHR:
    case I_SAR:
    case I_SHLD:
    case I_SHRD:
    case I_MOVSX:
    case I_MOVSXD:
    case I_MOVZX:
    case I_SETCC:
    case I_CMOVCC:
    case I_TZCNT:
    case I_LZCNT:
    case I_POPCNT:
    case I_BSWAP:
    case I_CRC32:
    case I_MOVBE:
    case I_ADCX:
    case I_ADOX:
        return handles_generic(insn);
    default:
        return false;
    }
}

/* ---- registers and flags ---- */

unsigned xlate_reg(struct xlate_build *b, unsigned guest, unsigned scratch)
{
    if (guest == X86_RSP)
        return HOST_GUEST_RSP;
    if (!xlate_stolen(guest))
        return guest;
    emit_load(&b->e, scratch, HOST_STACK, FRAME(stolen) + 8 * (int32_t)(guest - 9));
    return scratch;
}

void xlate_reg_done(struct xlate_build *b, unsigned guest, unsigned host)
{
    if (xlate_stolen(guest))
        emit_store(&b->e, HOST_STACK, FRAME(stolen) + 8 * (int32_t)(guest - 9), host);
}

void xlate_spill_flags(struct xlate_build *b, uint32_t live)
{
    if (b->host_flags && live)
        emit_flags_save(&b->e);
    b->host_flags = false;
}

void xlate_need_flags(struct xlate_build *b)
{
    if (!b->host_flags)
        emit_flags_restore(&b->e);
    b->host_flags = true;
}

void xlate_stub(struct xlate_build *b, uint8_t *at, unsigned op, unsigned kind)
{
    b->stubs[b->stub_count++] = (struct xlate_stub){.at = at, .op = op, .kind = kind};
}

/* ---- the instruction itself ---- */

struct coded {
    unsigned reg; /* host number for ModRM.reg, or its opcode digit */
    unsigned rm;  /* host number; unused for memory */
    const struct xlate_place *place;
    bool opcode_reg, modrm;
};

static void emit_coded(struct xlate_build *b, const struct insn *insn, const struct coded *c)
{
    struct emitter *e = &b->e;
    if (insn->prefix & INSN_LOCK)
        emit1(e, 0xf0);
    if (insn->prefix & INSN_OPSIZE)
        emit1(e, 0x66);
    if (insn->map != INSN_MAP_ONE && insn->prefix & (INSN_REP | INSN_REPNE))
        emit1(e, insn->prefix & INSN_REP ? 0xf3 : 0xf2);
    unsigned rm = c->place ? c->place->base : c->rm;
    unsigned rex = (insn->rex & 8) | (c->modrm && c->reg > 7 ? 4 : 0) |
                   (c->place && c->place->index > 7 ? 2 : 0) |
                   ((c->modrm || c->opcode_reg) && rm > 7 ? 1 : 0);
    if (rex || insn->rex)
        emit1(e, 0x40 | rex);
    if (insn->map != INSN_MAP_ONE)
        emit1(e, 0x0f);
    if (insn->map == INSN_MAP_0F38)
        emit1(e, 0x38);
    if (insn->map == INSN_MAP_0F3A)
        emit1(e, 0x3a);
    emit1(e, c->opcode_reg ? (insn->opcode & ~7u) | (rm & 7) : insn->opcode);
    if (c->place)
        xlate_modrm(e, c->reg, c->place);
    else if (c->modrm)
        emit1(e, 0xc0 | (c->reg & 7) << 3 | (rm & 7));
    for (unsigned k = 0; k < 4; k++)
        for (unsigned n = immediate_size(insn, insn->op[k]), j = 0; j < n; j++)
            emit1(e, (uint64_t)insn->imm >> (8 * j));
}

/* Register and memory operands as their kinds say; whatever is implicit has its own register. */
static void generic_body(struct xlate_build *b, unsigned i, struct xlate_place *place)
{
    const struct xlate_op *x = &b->ops[i];
    const struct insn *insn = &x->insn;
    bool preserves = x->use.touches && x->live_out & ~x->use.writes;
    if (x->use.reads || preserves)
        xlate_need_flags(b);
    struct coded c = {.modrm = insn->has_modrm};
    c.reg = insn->modrm >> 3 & 7;
    bool writes_reg = false, writes_rm = false, has_reg = false, has_rm = false;
    for (unsigned k = 0; k < 4; k++) {
        bool write = (k == 0 && writes_first(insn)) || (k == 1 && writes_both(insn));
        if (is_g(insn->op[k])) {
            has_reg = true;
            writes_reg |= write;
        } else if (is_z(insn->op[k])) {
            c.opcode_reg = has_rm = true;
            writes_rm |= write;
        } else if (is_e(insn->op[k]) && !insn->is_mem) {
            has_rm = true;
            writes_rm |= write;
        }
    }
    bool high_reg = false, high_rm = false;
    for (unsigned k = 0; k < 4; k++) {
        high_reg |= is_g(insn->op[k]) && high_byte(insn, insn->op[k], insn->reg);
        high_rm |= !is_g(insn->op[k]) && high_byte(insn, insn->op[k], insn->rm);
    }
    if (insn->is_mem) {
        if (has_reg && (high_reg || xlate_stolen(insn->reg)))
            xlate_free_t1(b, place);
        c.place = place;
    }
    if (has_reg && high_reg && insn->is_mem) { /* no REX, which the place needs, goes with it */
        emit_store(&b->e, HOST_STACK, FRAME(save), insn->reg - 4);
        emit_rm(&b->e, false, 0x0fb6, HOST_T1, HOST_STACK, FRAME(save) + 1);
        c.reg = HOST_T1;
    } else if (has_reg) {
        c.reg = high_reg ? insn->reg : xlate_reg(b, insn->reg, HOST_T1);
    }
    if (has_rm)
        c.rm = high_rm ? insn->rm : xlate_reg(b, insn->rm, HOST_T0);
    emit_coded(b, insn, &c);
    if (writes_reg && !high_reg)
        xlate_reg_done(b, insn->reg, c.reg);
    if (writes_rm && !high_rm)
        xlate_reg_done(b, insn->rm, c.rm);
    if (x->use.touches)
        b->host_flags = true;
}

void xlate_body(struct xlate_build *b, unsigned i, struct xlate_place *place)
{
    if (b->ops[i].insn.cls == INSN_CLASS_SIMD)
        xlate_simd_body(b, i, place);
    else if (b->ops[i].insn.prefix & INSN_VEX)
        xlate_bmi_body(b, i, place);
    else
        generic_body(b, i, place);
}

void xlate_with_operand(struct xlate_build *b, unsigned i)
{
    struct xlate_place place = {0};
    unsigned first = b->stub_count;
    if (b->ops[i].insn.is_mem)
        place = xlate_access(b, i);
    xlate_body(b, i, &place);
    for (unsigned k = first; k < b->stub_count; k++)
        b->stubs[k].done = emit_here(&b->e);
}

static void lea(struct xlate_build *b, unsigned i)
{
    const struct insn *insn = &b->ops[i].insn;
    unsigned to = insn->reg == X86_RSP      ? HOST_GUEST_RSP
                  : xlate_stolen(insn->reg) ? HOST_T0
                                            : insn->reg;
    struct xlate_want want = xlate_operand(b, i);
    xlate_lea(b, &want, insn->opsize == 8, to);
    xlate_reg_done(b, insn->reg, to);
}

static void push(struct xlate_build *b, unsigned i)
{
    const struct xlate_op *x = &b->ops[i];
    struct emitter *e = &b->e;
    if (x->insn.is_mem) {
        struct xlate_place from = xlate_access_operand(b, i);
        xlate_place_op(b, 0x8b, HOST_T0, &from);
        emit_store(e, HOST_STACK, FRAME(target), HOST_T0);
    }
    struct xlate_place place = xlate_access(b, i);
    if (x->insn.is_mem) {
        xlate_free_t1(b, &place);
        emit_load(e, HOST_T1, HOST_STACK, FRAME(target));
        xlate_place_op(b, 0x89, HOST_T1, &place);
    } else if (immediate_size(&x->insn, x->insn.op[0])) {
        xlate_place_op(b, 0xc7, 0, &place);
        emit4(e, x->insn.imm);
    } else {
        if (xlate_stolen(x->insn.rm))
            xlate_free_t1(b, &place);
        xlate_place_op(b, 0x89, xlate_reg(b, x->insn.rm, HOST_T1), &place);
    }
    emit_lea(e, HOST_GUEST_RSP, HOST_GUEST_RSP, -8);
}

static void pop(struct xlate_build *b, unsigned i)
{
    unsigned guest = b->ops[i].insn.rm;
    struct xlate_place place = xlate_access(b, i);
    unsigned to = xlate_stolen(guest) ? HOST_T1 : guest == X86_RSP ? HOST_GUEST_RSP : guest;
    xlate_place_op(b, 0x8b, to, &place);
    if (guest != X86_RSP) /* POP RSP: the popped value wins */
        emit_lea(&b->e, HOST_GUEST_RSP, HOST_GUEST_RSP, 8);
    xlate_reg_done(b, guest, to);
}

static void leave(struct xlate_build *b, unsigned i)
{
    struct xlate_place place = xlate_access(b, i);
    emit_lea(&b->e, HOST_GUEST_RSP, X86_RBP, 8);
    xlate_place_op(b, 0x8b, X86_RBP, &place);
}

static uint32_t bit_of(const struct insn *insn, uint8_t kind)
{
    unsigned reg;
    if (is_g(kind))
        reg = insn->reg;
    else if (is_z(kind) || (is_e(kind) && !insn->is_mem))
        reg = insn->rm;
    else
        return kind == O_AL || kind == O_AX || kind == O_rAX ? 1u << X86_RAX : 0;
    return 1u << (high_byte(insn, kind, reg) ? reg - 4 : reg);
}

uint32_t xlate_writes(const struct xlate_op *x)
{
    const struct insn *insn = &x->insn;
    const uint32_t rax = 1u << X86_RAX, rdx = 1u << X86_RDX, rsp = 1u << X86_RSP;
    switch (insn->id) {
    case I_JCC:
    case I_JMP:
    case I_JMPI:
    case I_NOP:
    case I_PREFETCH:
    case I_EMMS:
    case I_CLI:
    case I_STI:
    case I_SWAPGS:
    case I_LFENCE:
    case I_MFENCE:
    case I_SFENCE:
        return 0;
    case I_CALL:
    case I_CALLI:
    case I_RET:
    case I_PUSH:
        return rsp;
    case I_POP:
        return rsp | 1u << insn->rm;
    case I_LEAVE:
        return rsp | 1u << X86_RBP;
    case I_CBW:
    case I_LAHF:
        return rax;
    case I_CWD:
        return rdx;
    case I_MUL:
    case I_IMUL1:
    case I_RDTSC:
        return rax | rdx;
    case I_SIMD:
        return x->simd.gpr_out == SIMD_NO_GPR ? 0 : 1u << x->simd.gpr_out;
    default:
        if (insn->prefix & INSN_VEX)
            return xlate_writes_bmi(insn);
        break;
    }
    uint32_t written = insn->id == I_CMPXCHG ? rax : 0;
    if (writes_first(insn))
        written |= bit_of(insn, insn->op[0]);
    if (writes_both(insn))
        written |= bit_of(insn, insn->op[1]);
    return written;
}

void xlate_insn(struct xlate_build *b, unsigned i)
{
    switch (b->ops[i].insn.id) {
    case I_JCC:
    case I_JMP:
    case I_JMPI:
    case I_CALL:
    case I_CALLI:
    case I_RET:
        xlate_jump(b, i);
        break;
    case I_NOP:
    case I_PREFETCH:
        break;
    case I_LEA:
        lea(b, i);
        break;
    case I_PUSH:
        push(b, i);
        break;
    case I_POP:
        pop(b, i);
        break;
    case I_LEAVE:
        leave(b, i);
        break;
    case I_SIMD:
    case I_EMMS:
        xlate_simd(b, i);
        break;
    case I_CLI:
    case I_STI:
    case I_SWAPGS:
    case I_RDTSC:
    case I_MOVCR_R:
    case I_LFENCE:
    case I_MFENCE:
    case I_SFENCE:
        xlate_system(b, i);
        break;
    default:
        xlate_with_operand(b, i);
        break;
    }
}
