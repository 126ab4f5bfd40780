/*
 * The instruction decoder (Intel SDM vol. 2, chapter 2): prefixes, REX and VEX, opcode map, ModRM,
 * SIB, displacement and immediates, each as the table row asks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/decode/decode.h"

#include "accel/soft/decode/optable.h"
#include "accel/x86_state.h"
#include "base/bytes.h"

struct cursor {
    const uint8_t *bytes;
    unsigned count; /* bytes that are there, at most 15 */
    unsigned at;
    bool rex_seen;
    bool opsize66;
    const struct oprow *row;
};

/* Fewer bytes than asked for: a longer fetch may help, unless 15 were there. */
static enum decode_result short_of(const struct cursor *c)
{
    return c->count >= INSN_MAX ? DECODE_TOO_LONG : DECODE_SHORT;
}

static enum decode_result parse_prefixes(struct cursor *c, struct insn *insn)
{
    insn->seg = X86_SEGS;
    for (; c->at < c->count; c->at++) {
        uint8_t byte = c->bytes[c->at];
        switch (byte) {
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
            insn->prefix |= INSN_SEGMENT;
            if (insn->mode != INSN_64)
                insn->seg = (byte - 0x26) >> 3;
            break;
        case 0x64:
        case 0x65:
            insn->prefix |= INSN_SEGMENT;
            insn->seg = X86_FS + (byte - 0x64);
            break;
        case 0x66:
            insn->prefix |= INSN_OPSIZE;
            break;
        case 0x67:
            insn->prefix |= INSN_ADDRSIZE;
            break;
        case 0xf0:
            insn->prefix |= INSN_LOCK;
            break;
        case 0xf2:
            insn->prefix = (insn->prefix & ~INSN_REP) | INSN_REPNE;
            break;
        case 0xf3:
            insn->prefix = (insn->prefix & ~INSN_REPNE) | INSN_REP;
            break;
        default:
            if (insn->mode == INSN_64 && (byte & 0xf0) == 0x40) {
                insn->rex = byte; /* counts only directly before the opcode */
                continue;
            }
            return DECODE_OK;
        }
        insn->rex = 0;
    }
    return short_of(c);
}

/* C4 and C5 are LES and LDS in 16- and 32-bit code when a memory ModRM follows. */
static enum decode_result parse_vex(struct cursor *c, struct insn *insn, bool *vex)
{
    *vex = false;
    uint8_t first = c->bytes[c->at];
    if (first != 0xc4 && first != 0xc5)
        return DECODE_OK;
    if (c->at + 1 >= c->count)
        return short_of(c);
    if (insn->mode != INSN_64 && c->bytes[c->at + 1] < 0xc0)
        return DECODE_OK;
    unsigned length = first == 0xc5 ? 2 : 3;
    if (c->at + length >= c->count)
        return short_of(c);
    if (insn->rex || (insn->prefix & (INSN_LOCK | INSN_REP | INSN_REPNE | INSN_OPSIZE)))
        return DECODE_UD;
    uint8_t payload = c->bytes[c->at + length - 1];
    uint8_t rxb = c->bytes[c->at + 1];
    insn->rex = 0x40 | (rxb & 0x80 ? 0 : 4);
    insn->map = INSN_MAP_0F;
    if (length == 3) {
        insn->rex |= (rxb & 0x40 ? 0 : 2) | (rxb & 0x20 ? 0 : 1) | (payload & 0x80 ? 8 : 0);
        insn->map = rxb & 0x1f;
        if (insn->map < INSN_MAP_0F || insn->map > INSN_MAP_0F3A)
            return DECODE_UD;
    }
    insn->vex_v = ~payload >> 3 & 15;
    insn->vex_l = payload >> 2 & 1;
    insn->pp = payload & 3;
    insn->prefix |= INSN_VEX;
    if (insn->mode != INSN_64) {
        insn->rex &= 0x48; /* only eight registers */
        insn->vex_v &= 7;
    }
    c->at += length;
    *vex = true;
    return DECODE_OK;
}

static enum decode_result parse_opcode(struct cursor *c, struct insn *insn)
{
    static const struct oprow *const maps[] = {optable_one, optable_0f, optable_0f38, optable_0f3a};
    bool vex;
    enum decode_result result = parse_vex(c, insn, &vex);
    if (result != DECODE_OK)
        return result;
    if (!vex) {
        insn->pp = insn->prefix & INSN_REP      ? 2
                   : insn->prefix & INSN_REPNE  ? 3
                   : insn->prefix & INSN_OPSIZE ? 1
                                                : 0;
        if (c->bytes[c->at] == 0x0f) {
            c->at++;
            if (c->at >= c->count)
                return short_of(c);
            insn->map = INSN_MAP_0F;
            if (c->bytes[c->at] == 0x38 || c->bytes[c->at] == 0x3a) {
                insn->map = c->bytes[c->at] == 0x38 ? INSN_MAP_0F38 : INSN_MAP_0F3A;
                c->at++;
                if (c->at >= c->count)
                    return short_of(c);
            }
        }
    }
    if (c->at >= c->count)
        return short_of(c);
    insn->opcode_at = c->at;
    insn->opcode = c->bytes[c->at++];
    c->row = &maps[insn->map][insn->opcode];
    return DECODE_OK;
}

/* Follows the row through groups to the instruction; looks at the ModRM byte without consuming it.
 */
static enum decode_result resolve_row(struct cursor *c, struct insn *insn, uint64_t features)
{
    const struct oprow *row = c->row;
    for (;;) {
        if (row->kind == ROW_BAD)
            return DECODE_UD;
        if (row->kind == ROW_INSN || row->kind == ROW_SIMD)
            break;
        if (row->kind == ROW_MODE) {
            row = &row->sub[insn->mode == INSN_64];
            continue;
        }
        if (row->kind == ROW_PREFIX) {
            const struct oprow *next = &row->sub[insn->pp];
            /* TZCNT and LZCNT without the feature are BSF and BSR. */
            if ((next->id == I_TZCNT || next->id == I_LZCNT) && !(features >> next->feature & 1))
                next = &row->sub[0];
            row = next;
            continue;
        }
        if (c->at >= c->count)
            return short_of(c);
        uint8_t modrm = c->bytes[c->at];
        insn->has_modrm = 1;
        if (row->kind == ROW_GROUP)
            row = &row->sub[modrm >> 3 & 7];
        else if (row->kind == ROW_MODREG)
            row = &row->sub[modrm >= 0xc0];
        else
            row = &row->sub[modrm & 7];
    }
    c->row = row;
    return DECODE_OK;
}

static void apply_sizes(struct cursor *c, struct insn *insn)
{
    unsigned attr = c->row->attr;
    bool p66 = insn->prefix & INSN_OPSIZE, p67 = insn->prefix & INSN_ADDRSIZE;
    bool w = insn->rex & 8;
    switch (insn->mode) {
    case INSN_64:
        insn->addrsize = p67 ? 4 : 8;
        if (attr & A_F64)
            insn->opsize = 8;
        else if (attr & A_D64)
            insn->opsize = p66 && !w ? 2 : 8;
        else
            insn->opsize = w ? 8 : p66 ? 2 : 4;
        break;
    case INSN_32:
        insn->addrsize = p67 ? 2 : 4;
        insn->opsize = p66 ? 2 : 4;
        break;
    default:
        insn->addrsize = p67 ? 4 : 2;
        insn->opsize = p66 ? 4 : 2;
        break;
    }
    if (attr & A_B)
        insn->opsize = 1;
}

static enum decode_result parse_address16(struct cursor *c, struct insn *insn, unsigned mod)
{
    static const uint8_t bases[8] = {X86_RBX, X86_RBX, X86_RBP, X86_RBP,
                                     X86_RSI, X86_RDI, X86_RBP, X86_RBX};
    static const uint8_t indexes[8] = {X86_RSI,       X86_RDI,       X86_RSI,       X86_RDI,
                                       INSN_REG_NONE, INSN_REG_NONE, INSN_REG_NONE, INSN_REG_NONE};
    unsigned rm = insn->modrm & 7;
    unsigned length = mod == 2 ? 2 : mod;
    insn->base = bases[rm];
    insn->index = indexes[rm];
    if (mod == 0 && rm == 6) {
        insn->base = INSN_REG_NONE;
        length = 2;
    }
    if (c->at + length > c->count)
        return short_of(c);
    if (length == 1)
        insn->disp = (int8_t)c->bytes[c->at];
    else if (length == 2)
        insn->disp = (int16_t)get_le16(c->bytes + c->at);
    c->at += length;
    if (insn->seg == X86_SEGS)
        insn->seg = insn->base == X86_RBP ? X86_SS : X86_DS;
    return DECODE_OK;
}

static enum decode_result parse_address(struct cursor *c, struct insn *insn, unsigned mod)
{
    unsigned rm = insn->modrm & 7;
    unsigned length = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    insn->base = rm | (insn->rex & 1) << 3;
    if (rm == 4) {
        if (c->at >= c->count)
            return short_of(c);
        uint8_t sib = c->bytes[c->at++];
        insn->base = (sib & 7) | (insn->rex & 1) << 3;
        insn->index = (sib >> 3 & 7) | (insn->rex & 2) << 2;
        insn->scale = sib >> 6;
        /* A gather's index is a vector register and may be number 4. */
        if (insn->index == X86_RSP && !(c->row->kind == ROW_SIMD && c->row->mem[1] == Z_V))
            insn->index = INSN_REG_NONE;
        if (mod == 0 && (sib & 7) == 5) {
            insn->base = INSN_REG_NONE;
            length = 4;
        }
    } else if (mod == 0 && rm == 5) {
        insn->base = insn->mode == INSN_64 ? INSN_REG_RIP : INSN_REG_NONE;
        length = 4;
    }
    if (c->at + length > c->count)
        return short_of(c);
    if (length == 1)
        insn->disp = (int8_t)c->bytes[c->at];
    else if (length == 4)
        insn->disp = (int32_t)get_le32(c->bytes + c->at);
    c->at += length;
    if (insn->seg == X86_SEGS)
        insn->seg = insn->base == X86_RSP || insn->base == X86_RBP ? X86_SS : X86_DS;
    return DECODE_OK;
}

static bool row_has_modrm(const struct oprow *row)
{
    if (row->kind == ROW_SIMD || (row->attr & A_MODRM))
        return true;
    for (unsigned i = 0; i < 4; i++)
        if (row->op[i] >= O_Eb && row->op[i] <= O_Dq)
            return true;
    return false;
}

static enum decode_result parse_modrm(struct cursor *c, struct insn *insn)
{
    insn->base = insn->index = INSN_REG_NONE;
    insn->rm = (insn->opcode & 7) | (insn->rex & 1) << 3;
    if (!insn->has_modrm && !row_has_modrm(c->row))
        return DECODE_OK;
    if (c->at >= c->count)
        return short_of(c);
    insn->has_modrm = 1;
    insn->modrm_at = c->at;
    insn->modrm = c->bytes[c->at++];
    insn->reg = (insn->modrm >> 3 & 7) | (insn->rex & 4) << 1;
    insn->rm = (insn->modrm & 7) | (insn->rex & 1) << 3;
    unsigned mod = insn->modrm >> 6;
    bool always_register =
        c->row->kind == ROW_INSN && (c->row->op[0] == O_Rq || c->row->op[1] == O_Rq);
    if (mod == 3 || always_register)
        return DECODE_OK;
    insn->is_mem = 1;
    return insn->addrsize == 2 ? parse_address16(c, insn, mod) : parse_address(c, insn, mod);
}

static unsigned operand_bytes(const struct insn *insn, uint8_t kind)
{
    switch (kind) {
    case O_Eb:
    case O_Ob:
        return 1;
    case O_Ew:
        return 2;
    case O_Ed:
        return 4;
    case O_Ey:
        return insn->rex & 8 ? 8 : 4;
    case O_Eq:
        return 8;
    case O_Ev:
    case O_Ov:
        return insn->opsize;
    default:
        return 0;
    }
}

static unsigned simd_bytes(const struct insn *insn, uint8_t code)
{
    unsigned vector = insn->vex_l ? 32 : 16;
    switch (code) {
    case Z_1:
        return 1;
    case Z_2:
        return 2;
    case Z_4:
        return 4;
    case Z_8:
        return 8;
    case Z_16:
        return 16;
    case Z_X:
        return vector;
    case Z_H:
        return vector / 2;
    case Z_Q:
        return vector / 4;
    case Z_E:
        return vector / 8;
    case Z_Y:
        return insn->rex & 8 ? 8 : 4;
    case Z_D:
        return insn->vex_l ? 32 : 8;
    default:
        return 0;
    }
}

/* Immediate bytes of one operand; moffs and far pointers included. */
static unsigned immediate_bytes(const struct insn *insn, uint8_t kind)
{
    switch (kind) {
    case O_Ib:
    case O_Is:
    case O_Jb:
        return 1;
    case O_Iw:
        return 2;
    case O_Iz:
        return insn->opsize == 2 ? 2 : 4;
    case O_Jz:
        return insn->opsize == 2 && insn->mode != INSN_64 ? 2 : 4;
    case O_Iv:
        return insn->opsize;
    case O_Ob:
    case O_Ov:
        return insn->addrsize;
    case O_Ap:
        return insn->opsize + 2;
    default:
        return 0;
    }
}

static void set_immediate(struct insn *insn, uint8_t kind, const uint8_t *at, unsigned length,
                          bool second)
{
    uint64_t value = get_le(at, length > 8 ? 8 : length);
    if (second) {
        insn->imm2 = value;
        return;
    }
    switch (kind) {
    case O_Ob:
    case O_Ov:
        insn->disp = value;
        insn->is_mem = 1;
        if (insn->seg == X86_SEGS)
            insn->seg = X86_DS;
        return;
    case O_Ap:
        insn->imm = value & (insn->opsize == 2 ? 0xffff : 0xffffffff);
        insn->imm2 = get_le16(at + insn->opsize);
        return;
    case O_Ib:
    case O_Iw:
        insn->imm = value;
        return;
    default:
        insn->imm = length == 1   ? (int8_t)value
                    : length == 2 ? (int16_t)value
                    : length == 4 ? (int32_t)value
                                  : (int64_t)value;
    }
}

static enum decode_result parse_immediates(struct cursor *c, struct insn *insn)
{
    const struct oprow *row = c->row;
    if (row->kind == ROW_SIMD) {
        /* An imm8 ends every 0F3A opcode and a few of the 0F map. */
        bool imm = insn->map == INSN_MAP_0F3A;
        if (insn->map == INSN_MAP_0F)
            imm = (insn->opcode >= 0x70 && insn->opcode <= 0x73) || insn->opcode == 0xc2 ||
                  (insn->opcode >= 0xc4 && insn->opcode <= 0xc6);
        if (!imm)
            return DECODE_OK;
        if (c->at >= c->count)
            return short_of(c);
        insn->imm = c->bytes[c->at++];
        return DECODE_OK;
    }
    bool second = false;
    for (unsigned i = 0; i < 4; i++) {
        unsigned length = immediate_bytes(insn, row->op[i]);
        /* TEST is the only member of group 3 with an immediate; its row says so itself. */
        if (!length)
            continue;
        if (c->at + length > c->count)
            return short_of(c);
        set_immediate(insn, row->op[i], c->bytes + c->at, length, second);
        c->at += length;
        second = true;
    }
    return DECODE_OK;
}

/* Control register 1 and 5 to 7, and debug registers from 8, are nowhere: #UD at any privilege. */
static bool is_register(const struct insn *insn, unsigned id)
{
    if (id == I_MOVCR_R || id == I_MOVCR_W)
        return insn->reg == 8 || (insn->reg <= 4 && insn->reg != 1);
    return (id != I_MOVDR_R && id != I_MOVDR_W) || insn->reg < 8;
}

/* Of the instructions that AVX knows with 128 bits: do 256 bits need AVX2? All integer ones but
   moves and VPTEST do. */
static bool is_avx2(const struct insn *insn)
{
    uint8_t op = insn->opcode;
    switch (insn->map) {
    case INSN_MAP_0F:
        return (op >= 0x60 && op <= 0x76 && op != 0x6e && op != 0x6f) ||
               (op >= 0xd1 && op != 0xe6 && op != 0xe7 && op != 0xf0);
    case INSN_MAP_0F38:
        return op != 0x17;
    default:
        return op == 0x0e || op == 0x0f || op == 0x42;
    }
}

/* The rows of SIMD instructions name the feature of their legacy form; the VEX forms have others.
 */
static unsigned feature_of(const struct oprow *row, const struct insn *insn)
{
    if (row->kind != ROW_SIMD || row->attr & A_VEX || !(insn->prefix & INSN_VEX))
        return row->feature;
    switch (row->feature) {
    case FEAT_AES:
        return insn->vex_l ? FEAT_VAES : FEAT_AES;
    case FEAT_PCLMUL:
        return insn->vex_l ? FEAT_VPCLMUL : FEAT_PCLMUL;
    case FEAT_GFNI:
    case FEAT_SHA:
        return row->feature;
    default:
        return insn->vex_l && is_avx2(insn) ? FEAT_AVX2 : FEAT_AVX;
    }
}

/* What the table row rules out. */
static bool row_allows(const struct cursor *c, const struct insn *insn, uint64_t features)
{
    const struct oprow *row = c->row;
    unsigned attr = row->attr;
    bool vex = insn->prefix & INSN_VEX;
    if ((attr & A_NO64 && insn->mode == INSN_64) || (attr & A_ONLY64 && insn->mode != INSN_64))
        return false;
    if ((attr & A_MEM && !insn->is_mem) || !is_register(insn, row->id))
        return false;
    if (attr & A_VEX && !vex)
        return false;
    if (vex && row->kind != ROW_SIMD && !(attr & A_VEX) && row->id != I_LDMXCSR &&
        row->id != I_STMXCSR && row->id != I_EMMS)
        return false;
    if (vex && row->kind != ROW_SIMD && (attr & A_VEX) && insn->vex_l)
        return false;
    if (vex && row->kind != ROW_SIMD && insn->vex_v && row->op[0] != O_By && row->op[1] != O_By &&
        row->op[2] != O_By)
        return false;
    if (row->kind == ROW_SIMD) {
        uint8_t code = row->mem[insn->pp];
        if (code == Z_NA || (code == Z_R && insn->is_mem))
            return false;
        if (vex && !(features >> FEAT_AVX & 1))
            return false;
    }
    unsigned feature = feature_of(row, insn);
    if (feature && !(features >> feature & 1))
        return false;
    if (insn->prefix & INSN_LOCK && !(attr & A_LOCK && insn->is_mem))
        return false;
    return true;
}

static void finish(struct cursor *c, struct insn *insn)
{
    const struct oprow *row = c->row;
    unsigned attr = row->attr;
    insn->id = row->id;
    /* 90 is XCHG rAX, rAX in the tables, and would clear bits 63:32; only with REX.B it exchanges.
     */
    if (row->id == I_XCHG && insn->map == INSN_MAP_ONE && insn->opcode == 0x90 && !(insn->rex & 1))
        insn->id = I_NOP;
    insn->feature = row->feature;
    insn->flags = attr & (A_END | A_PRIV | A_LOCK | A_STATE);
    insn->cls = INSN_CLASS_INT;
    if (row->kind == ROW_SIMD) {
        insn->cls = INSN_CLASS_SIMD;
        if (insn->is_mem)
            insn->mem_size = simd_bytes(insn, row->mem[insn->pp]);
    } else {
        memcpy(insn->op, row->op, sizeof(insn->op));
        for (unsigned i = 0; i < 4 && insn->is_mem && !insn->mem_size; i++)
            insn->mem_size = operand_bytes(insn, row->op[i]);
        if (row->id == I_X87)
            insn->cls = INSN_CLASS_X87;
        else if (row->id >= I_FXSAVE && row->id <= I_EMMS)
            insn->cls = INSN_CLASS_STATE;
    }
    if (insn->is_mem && !(attr & A_NOSIZE))
        insn->mem_access = attr & A_RW  ? INSN_MEM_READ | INSN_MEM_WRITE
                           : attr & A_W ? INSN_MEM_WRITE
                                        : INSN_MEM_READ;
    if (row->attr & A_REP)
        insn->rep = insn->prefix & (INSN_REP | INSN_REPNE);
    if (insn->seg == X86_SEGS)
        insn->seg = X86_DS;
}

enum decode_result decode(const uint8_t *bytes, unsigned count, enum insn_mode mode,
                          uint64_t features, struct insn *insn)
{
    struct cursor c = {.bytes = bytes, .count = MIN(count, (unsigned)INSN_MAX)};
    memset(insn, 0, sizeof(*insn));
    insn->mode = mode;
    enum decode_result result = parse_prefixes(&c, insn);
    if (result == DECODE_OK)
        result = parse_opcode(&c, insn);
    if (result == DECODE_OK)
        result = resolve_row(&c, insn, features);
    if (result == DECODE_OK) {
        apply_sizes(&c, insn);
        result = parse_modrm(&c, insn);
    }
    if (result == DECODE_OK)
        result = parse_immediates(&c, insn);
    insn->len = c.at;
    if (result != DECODE_OK)
        return result;
    if (!row_allows(&c, insn, features))
        return DECODE_UD;
    finish(&c, insn);
    memcpy(insn->raw, bytes, insn->len);
    return DECODE_OK;
}

const char *decode_name(uint16_t id)
{
    static const char *const names[] = {
#define X(name) #name,
        INSN_IDS(X)
#undef X
    };
    return id < I_COUNT ? names[id] : "?";
}
