/*
 * Writes the native stubs of the SIMD unit. See simd.h.
 *
 * A stub is called as a C function: rdi = the guest's XSAVE image, rsi = bounce buffer, rdx = guest
 * RDX, r8 = struct simd_io. The guest's vector registers are loaded into the host registers of the
 * same number, so the instruction itself is copied with its register fields; a memory operand
 * becomes [rsi], a general register becomes rax.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/simd/simd.h"

#define IO_GPR offsetof(struct simd_io, gpr)
#define IO_FLAGS offsetof(struct simd_io, flags)
#define IO_MXCSR_IN offsetof(struct simd_io, mxcsr_in)
#define IO_MXCSR_OUT offsetof(struct simd_io, mxcsr_out)
#define IO_MXCSR_HOST offsetof(struct simd_io, mxcsr_host)

#define REGION_SIZE (1u << 20)
#define STUB_MAX 640u

struct emit {
    uint8_t *at;
};

static void byte(struct emit *e, unsigned value)
{
    *e->at++ = (uint8_t)value;
}

static void bytes(struct emit *e, const void *data, size_t len)
{
    memcpy(e->at, data, len);
    e->at += len;
}
#define BYTES(e, ...)                                                                              \
    do {                                                                                           \
        const uint8_t bytes_[] = {__VA_ARGS__};                                                    \
        bytes(e, bytes_, sizeof(bytes_));                                                          \
    } while (0)

static void dword(struct emit *e, uint32_t value)
{
    put_le32(e->at, value);
    e->at += 4;
}

/* C4 form; `r` and `b` are the high bits of ModRM.reg and ModRM.rm. */
static void vex(struct emit *e, unsigned map, unsigned pp, bool w, bool l, unsigned vvvv, bool r,
                bool b)
{
    byte(e, 0xc4);
    byte(e, (r ? 0 : 0x80) | 0x40 | (b ? 0 : 0x20) | map);
    byte(e, (w ? 0x80 : 0) | (~vvvv & 15) << 3 | (l ? 4 : 0) | pp);
}

/* [rdi + offset] as the memory operand, register `reg`. */
static void image_operand(struct emit *e, unsigned reg, uint32_t offset)
{
    byte(e, 0x80 | (reg & 7) << 3 | 7);
    dword(e, offset);
}

static void move_register(struct emit *e, unsigned reg, bool is_vex, bool store)
{
    if (!is_vex) {
        if (reg >= 8)
            byte(e, 0x44);
        BYTES(e, 0x0f, store ? 0x11 : 0x10); /* movups */
        image_operand(e, reg, XS_XMM + 16 * reg);
        return;
    }
    vex(e, INSN_MAP_0F, 0, false, false, 0, reg >= 8, false);
    byte(e, store ? 0x11 : 0x10); /* vmovups xmm */
    image_operand(e, reg, XS_XMM + 16 * reg);
    vex(e, INSN_MAP_0F3A, 1, false, true, store ? 0 : reg, reg >= 8, false);
    byte(e, store ? 0x19 : 0x18); /* vextractf128 / vinsertf128, high half */
    image_operand(e, reg, XS_YMM + 16 * reg);
    byte(e, 1);
}

static void mxcsr(struct emit *e, bool store, uint8_t offset)
{
    BYTES(e, 0x41, 0x0f, 0xae, (store ? 0x58 : 0x50), offset); /* stmxcsr / ldmxcsr [r8+offset] */
}

static void load_rax(struct emit *e)
{
    BYTES(e, 0x49, 0x8b, 0x40, IO_GPR); /* mov rax, [r8+gpr] */
}

static void store_gpr(struct emit *e, bool rcx)
{
    BYTES(e, 0x49, 0x89, (rcx ? 0x48 : 0x40), IO_GPR); /* mov [r8+gpr], rax or rcx */
}

static void flags_out(struct emit *e)
{
    BYTES(e, 0x9c, 0x41, 0x8f, 0x40, IO_FLAGS); /* pushfq; pop [r8+flags] */
}

static void flags_in(struct emit *e)
{
    BYTES(e, 0x41, 0xff, 0x70, IO_FLAGS, 0x9d); /* push [r8+flags]; popfq */
}

bool simd_has_immediate(const struct insn *insn)
{
    if (insn->map == INSN_MAP_0F3A)
        return true;
    uint8_t op = insn->opcode;
    return insn->map == INSN_MAP_0F &&
           ((op >= 0x70 && op <= 0x73) || op == 0xc2 || (op >= 0xc4 && op <= 0xc6));
}

/* The instruction with its operands redirected. */
static void copy_instruction(struct emit *e, const struct insn *insn, const struct simd_plan *plan)
{
    bool implicit = insn->map == INSN_MAP_0F3A && insn->opcode >= 0x60 && insn->opcode <= 0x63;
    bool w = insn->rex & 8 && (insn->mode == INSN_64 || plan->gpr_in == plan->gpr_out);
    unsigned reg = insn->reg, rm = insn->rm;
    /* A general register as operand becomes rax; implicit ones are where they must be already. */
    if (!implicit && plan->gpr_out != SIMD_NO_GPR) {
        bool in_rm = insn->map == INSN_MAP_0F3A || insn->opcode == 0x7e;
        if (in_rm)
            rm = X86_RAX;
        else
            reg = X86_RAX;
    }
    if (!implicit && plan->gpr_in != SIMD_NO_GPR)
        rm = X86_RAX;
    if (insn->is_mem)
        rm = X86_RSI;
    if (insn->prefix & INSN_VEX) {
        vex(e, insn->map, insn->pp, w, insn->vex_l, insn->vex_v, reg >= 8, rm >= 8);
    } else {
        static const uint8_t mandatory[] = {0, 0x66, 0xf3, 0xf2};
        unsigned rex = (w ? 8u : 0) | (reg >= 8 ? 4u : 0) | (rm >= 8 ? 1u : 0);
        if (insn->pp)
            byte(e, mandatory[insn->pp]);
        if (rex)
            byte(e, 0x40 | rex);
        byte(e, 0x0f);
        if (insn->map != INSN_MAP_0F)
            byte(e, insn->map == INSN_MAP_0F38 ? 0x38 : 0x3a);
    }
    byte(e, insn->opcode);
    byte(e, (insn->is_mem ? 0 : 0xc0) | (reg & 7) << 3 | (rm & 7));
    if (simd_has_immediate(insn))
        byte(e, (unsigned)insn->imm);
}

static void copy_x87(struct emit *e, const struct insn *insn)
{
    unsigned reg = insn->modrm >> 3 & 7;
    /* FLDENV, FNSTENV, FRSTOR, FNSAVE: the operand size chooses the layout. */
    bool environment = insn->is_mem && ((insn->opcode == 0xd9 && (reg == 4 || reg == 6)) ||
                                        (insn->opcode == 0xdd && (reg == 4 || reg == 6)));
    if (environment && insn->opsize == 2)
        byte(e, 0x66);
    byte(e, insn->opcode);
    byte(e, insn->is_mem ? reg << 3 | X86_RSI : insn->modrm);
}

/* `careful`: with the MXCSR of struct simd_io, else with that of the register. */
static void emit_vector(struct emit *e, const struct insn *insn, const struct simd_plan *plan,
                        bool careful)
{
    bool implicit = insn->map == INSN_MAP_0F3A && insn->opcode >= 0x60 && insn->opcode <= 0x63;
    for (unsigned i = 0; i < plan->reg_count; i++)
        move_register(e, plan->regs[i], plan->vex, false);
    if (careful)
        mxcsr(e, false, IO_MXCSR_IN);
    if (plan->gpr_in != SIMD_NO_GPR)
        load_rax(e);
    copy_instruction(e, insn, plan);
    if (plan->flags_out)
        flags_out(e);
    if (plan->gpr_out != SIMD_NO_GPR)
        store_gpr(e, implicit);
    if (careful) {
        mxcsr(e, true, IO_MXCSR_OUT);
        mxcsr(e, false, IO_MXCSR_HOST);
    }
    for (unsigned i = 0; i < plan->reg_count; i++)
        move_register(e, plan->regs[i], plan->vex, true);
    if (plan->vex)
        BYTES(e, 0xc5, 0xf8, 0x77); /* vzeroupper */
    byte(e, 0xc3);
}

/* MMX and x87: the whole legacy image goes in and out. */
static void emit_legacy(struct emit *e, const struct insn *insn, const struct simd_plan *plan,
                        uint8_t **insn_at)
{
    BYTES(e, 0x48, 0x0f, 0xae, 0x0f); /* fxrstor64 [rdi] */
    if (plan->gpr_in != SIMD_NO_GPR)
        load_rax(e);
    if (plan->flags_in)
        flags_in(e);
    *insn_at = e->at;
    if (insn->cls == INSN_CLASS_X87)
        copy_x87(e, insn);
    else
        copy_instruction(e, insn, plan);
    if (plan->flags_out)
        flags_out(e);
    if (plan->gpr_out != SIMD_NO_GPR)
        store_gpr(e, false);
    BYTES(e, 0x48, 0x0f, 0xae, 0x07); /* fxsave64 [rdi] */
    BYTES(e, 0xdb, 0xe3);             /* fninit: the host's own x87 state */
    mxcsr(e, false, IO_MXCSR_HOST);
    byte(e, 0xc3);
}

/* What makes two instructions share a stub: the encoding without prefixes that do not matter and
   without address bytes, and the guest registers that the stub moves. */
static void make_key(const struct insn *insn, const struct simd_plan *plan,
                     struct simd_stub_key *key)
{
    memset(key, 0, sizeof(*key));
    struct emit e = {key->bytes};
    if (insn->cls == INSN_CLASS_X87)
        copy_x87(&e, insn);
    else
        copy_instruction(&e, insn, plan);
    key->len = (uint8_t)(e.at - key->bytes);
}

static void reset_region(struct simd *simd)
{
    memset(simd->stubs, 0, sizeof(simd->stubs));
    for (unsigned i = 0; i < SIMD_WAYS; i++) {
        simd->slots[i].key[1] = 0; /* an occupied key has its mode there */
        simd->slots[i].serial = 0;
    }
    simd->used = simd->start;
    simd->stub_count = 0;
}

void simd_emit_init(struct simd *simd)
{
    struct emit e = {simd->write + SIMD_RECOVER};
    BYTES(&e, 0xdb, 0xe3); /* fninit */
    mxcsr(&e, false, IO_MXCSR_HOST);
    if (simd->host_avx)
        BYTES(&e, 0xc5, 0xf8, 0x77);
    byte(&e, 0xc3);
    simd->start = ALIGN_UP((uint32_t)(e.at - simd->write), 64u);
    reset_region(simd);
}

bool simd_emit(struct simd *simd, const struct insn *insn, struct simd_plan *plan)
{
    struct simd_stub_key key;
    plan->legacy = insn->cls == INSN_CLASS_X87 || plan->mmx;
    make_key(insn, plan, &key);
    if (simd->used + STUB_MAX > REGION_SIZE || simd->stub_count >= SIMD_STUBS / 2)
        reset_region(simd);
    uint32_t hash = 2166136261u;
    for (unsigned i = 0; i < sizeof(key.bytes); i++)
        hash = (hash ^ key.bytes[i]) * 16777619u;
    struct simd_stub_key *slot;
    for (;; hash++) {
        slot = &simd->stubs[hash & (SIMD_STUBS - 1)];
        if (!slot->len || (slot->len == key.len && !memcmp(slot->bytes, key.bytes, key.len)))
            break;
    }
    bool fresh = !slot->len;
    if (fresh) {
        struct emit e = {simd->write + simd->used};
        uint8_t *insn_at = e.at;
        *slot = key;
        slot->entry = slot->careful = simd->used;
        if (plan->legacy) {
            emit_legacy(&e, insn, plan, &insn_at);
        } else {
            emit_vector(&e, insn, plan, false);
            if (plan->fp) {
                slot->careful = (uint32_t)(e.at - simd->write);
                emit_vector(&e, insn, plan, true);
            }
        }
        slot->insn_at = (uint32_t)(insn_at - simd->write);
        simd->used = ALIGN_UP((uint32_t)(e.at - simd->write), 32u);
        simd->stub_count++;
    }
    plan->stub = (simd_stub_fn *)(uintptr_t)(simd->exec + slot->entry);
    plan->careful = (simd_stub_fn *)(uintptr_t)(simd->exec + slot->careful);
    plan->insn_at = simd->exec + slot->insn_at;
    if (fresh)
        slot->refused = !simd_try(simd, plan);
    return !slot->refused;
}
