/*
 * Memory operands of translated code.
 *
 * An access is checked against its site, the window that this place used last (frame.h). Accesses
 * of one block through the same base register form a group: the first checks for all that follow
 * within SPAN_MAX bytes, and those need no check, as long as the register changes by constants
 * only. An access that jumps about in memory looks into the hashed TLB instead (xlate_miss.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/mem/tlb.h"
#include "accel/soft/xlate/xlate_build.h"
#include "base/bitmap.h"

#define SPAN_MAX 128
#define LOOK_AHEAD 40
#define STACK_SITES 16 /* of each class and kind */

#define SPACE(field) ((int32_t)(offsetof(struct soft_space, field) - XLATE_FRAME_AT))
#define SITE_AT(write, index, field)                                                               \
    (SPACE(sites) +                                                                                \
     (int32_t)((write) * sizeof(struct soft_sites) + (index) * sizeof(struct soft_site) +          \
               offsetof(struct soft_site, field)))

bool xlate_good_address(const struct insn *insn)
{
    return insn->has_modrm && insn->addrsize == 8 && insn->disp == (int32_t)insn->disp;
}

/* ---- what an op accesses ---- */

static struct xlate_want stack_want(unsigned base, int32_t disp, bool write)
{
    return (struct xlate_want){.base = base,
                               .index = INSN_REG_NONE,
                               .seg = X86_SS,
                               .disp = disp,
                               .size = 8,
                               .write = write};
}

struct xlate_want xlate_operand(const struct xlate_build *b, unsigned i)
{
    const struct insn *insn = &b->ops[i].insn;
    struct xlate_want want = {.base = insn->base,
                              .index = insn->index,
                              .scale = insn->scale,
                              .seg = insn->seg,
                              .disp = insn->disp,
                              .size = insn->mem_size,
                              .write = insn->mem_access & INSN_MEM_WRITE};
    if (insn->base == INSN_REG_RIP)
        want.disp += b->in_page + b->block->ops[i].off + insn->len;
    if (insn->cls == INSN_CLASS_SIMD) {
        want.write = b->ops[i].simd.writes;
        want.align = b->ops[i].simd.align;
    }
    if (insn->id == I_JMPI || insn->id == I_CALLI)
        want.size = 8;
    want.bounce = !(insn->prefix & INSN_LOCK) && insn->id != I_XCHG && insn->id != I_JMPI &&
                  insn->id != I_CALLI && insn->id != I_PUSH;
    return want;
}

/* The op's access, or size 0. Of two (an indirect call through memory) the push. */
static struct xlate_want access_of(const struct xlate_build *b, unsigned i)
{
    const struct insn *insn = &b->ops[i].insn;
    switch (insn->id) {
    case I_PUSH:
    case I_CALL:
    case I_CALLI:
        return stack_want(X86_RSP, -8, true);
    case I_POP:
    case I_RET:
        return stack_want(X86_RSP, 0, false);
    case I_LEAVE:
        return stack_want(X86_RBP, 0, false);
    case I_LEA:
    case I_NOP:
    case I_PREFETCH:
        return (struct xlate_want){0};
    default:
        return insn->is_mem ? xlate_operand(b, i) : (struct xlate_want){0};
    }
}

/* How the op changes general registers: of `known` ones by a constant, else anyhow. */
struct change {
    uint32_t written;
    unsigned known; /* register, or INSN_REG_NONE */
    int64_t by;
};

static struct change change_of(const struct xlate_op *x)
{
    const struct insn *insn = &x->insn;
    struct change change = {.written = xlate_writes(x), .known = INSN_REG_NONE};
    unsigned to = INSN_REG_NONE;
    int64_t by = 0;
    switch (insn->id) {
    case I_PUSH:
    case I_CALL:
    case I_CALLI:
        to = X86_RSP;
        by = -8;
        break;
    case I_POP:
        if (insn->rm == X86_RSP)
            break;
        to = X86_RSP;
        by = 8;
        break;
    case I_ADD:
    case I_SUB:
        if (insn->opsize == 8 && !insn->is_mem && (insn->op[1] == O_Is || insn->op[1] == O_Iz)) {
            to = insn->op[0] == O_rAX ? X86_RAX : insn->rm;
            by = insn->id == I_ADD ? insn->imm : -insn->imm;
        }
        break;
    case I_INC:
    case I_DEC:
        if (insn->opsize == 8 && !insn->is_mem) {
            to = insn->rm;
            by = insn->id == I_INC ? 1 : -1;
        }
        break;
    case I_LEA:
        if (insn->opsize == 8 && insn->base == insn->reg && insn->index == INSN_REG_NONE) {
            to = insn->reg;
            by = insn->disp;
        }
        break;
    default:
        break;
    }
    if (to != INSN_REG_NONE) {
        change.known = to;
        change.by = by;
        change.written &= ~(1u << to);
    }
    return change;
}

static bool groupable(const struct xlate_want *want)
{
    return want->index == INSN_REG_NONE && want->base != INSN_REG_NONE && want->seg != X86_FS &&
           want->seg != X86_GS;
}

void xlate_plan_memory(struct xlate_build *b)
{
    uint16_t version[INSN_REG_RIP + 1] = {0};
    int64_t moved[INSN_REG_RIP + 1] = {0};
    for (unsigned i = 0; i < b->block->op_count; i++) {
        struct xlate_op *x = &b->ops[i];
        if (x->kind == XLATE_ENTRY || x->kind == XLATE_OTHER) {
            for (unsigned reg = 0; reg <= INSN_REG_RIP; reg++)
                version[reg]++;
            continue;
        }
        if (x->kind != XLATE_INSN)
            continue;
        x->want = access_of(b, i);
        if (x->want.size && groupable(&x->want)) {
            x->version = version[x->want.base];
            x->offset = moved[x->want.base] + x->want.disp;
            x->grouped = !b->hints.lone;
        }
        struct change change = change_of(x);
        for (unsigned reg = 0; reg < 16; reg++) {
            if (!(change.written >> reg & 1))
                continue;
            version[reg]++;
            moved[reg] = 0;
        }
        if (change.known != INSN_REG_NONE)
            moved[change.known] += change.by;
    }
}

/* ---- addresses ---- */

/* lea to, [base + index * 2^scale + disp]; index 4 is none, base 16 none. */
static void emit_lea_full(struct xlate_build *b, bool wide, unsigned to, unsigned base,
                          unsigned index, unsigned scale, int32_t disp)
{
    struct emitter *e = &b->e;
    if (base != INSN_REG_NONE && index == 4) {
        emit_rm(e, wide, 0x8d, to, base, disp);
        return;
    }
    bool none = base == INSN_REG_NONE;
    emit_opcode(e, wide, 0x8d, to, index, none ? 0 : base);
    emit1(e, (none ? 0x00 : 0x80) | (to & 7) << 3 | 4);
    emit1(e, scale << 6 | (index & 7) << 3 | (none ? 5 : base & 7));
    emit4(e, disp);
}

void xlate_lea(struct xlate_build *b, const struct xlate_want *want, bool wide, unsigned to)
{
    if (want->base == INSN_REG_RIP) {
        emit_load(&b->e, HOST_T0, HOST_STACK, FRAME(page));
        /* In two steps: the sum might not fit 32 bits. */
        int32_t half = want->disp / 2;
        emit_lea(&b->e, HOST_T0, HOST_T0, half);
        emit_rm(&b->e, wide, 0x8d, to, HOST_T0, want->disp - half);
        return;
    }
    unsigned base = INSN_REG_NONE, index = 4;
    if (want->base != INSN_REG_NONE)
        base = xlate_reg(b, want->base, HOST_T0);
    if (want->index != INSN_REG_NONE)
        index = xlate_reg(b, want->index, HOST_T1);
    emit_lea_full(b, wide, to, base, index, want->scale, want->disp);
}

/* T0 = linear address. T1 is lost. */
static void linear_address(struct xlate_build *b, const struct xlate_want *want)
{
    xlate_lea(b, want, true, HOST_T0);
    if (want->seg == X86_FS || want->seg == X86_GS)
        emit_rm(&b->e, true, 0x03, HOST_T0, HOST_STACK,
                FRAME(seg) + 8 * (int32_t)(want->seg - X86_FS));
}

/* ---- checks ---- */

static unsigned class_of(unsigned span)
{
    unsigned class = 0;
    while (1u << class < span)
        class ++;
    return class;
}

/* A site of the right span that no other access of this block has. Those of the stack, which is in
   one place, are the same few for all code. */
static unsigned pick_site(struct xlate_build *b, unsigned i, unsigned span,
                          const struct xlate_want *want)
{
    bool write = want->write;
    uint64_t hash = (b->block->gpa + i) * 0x9e3779b97f4a7c15ull >> 40;
    unsigned first = class_of(span) * SITE_WAYS;
    unsigned start = STACK_SITES + hash % (SITE_WAYS - STACK_SITES);
    if (want->base == X86_RSP && want->index == INSN_REG_NONE)
        start = 0;
    for (unsigned way = 0; way < SITE_WAYS; way++) {
        unsigned index = first + (start + way) % SITE_WAYS;
        bool used = false;
        for (unsigned k = 0; k < b->site_count; k++)
            used |= b->sites[k] == (index << 1 | write);
        if (used)
            continue;
        b->sites[b->site_count++] = index << 1 | write;
        return index;
    }
    return first;
}

static struct xlate_access *new_access(struct xlate_build *b, unsigned i,
                                       const struct xlate_want *want)
{
    struct xlate_access *a = &b->xlate->accesses[b->xlate->access_count++];
    *a = (struct xlate_access){.block = b->block,
                               .op = i,
                               .size = want->size,
                               .write = want->write,
                               .bounce = want->bounce};
    return a;
}

/* Behind the comparison: away unless cc is false. What T0 is there: the address, or relative to the
   site's start, or nothing: made again, with this displacement. */
#define MISS_LINEAR INT32_MIN
#define MISS_RELATIVE INT32_MAX
static void miss(struct xlate_build *b, unsigned i, struct xlate_access *a, unsigned cc,
                 const uint8_t *retry, int32_t disp)
{
    b->stubs[b->stub_count++] = (struct xlate_stub){.at = emit_jcc(&b->e, cc),
                                                    .op = i,
                                                    .kind = STUB_MISS,
                                                    .retry = retry,
                                                    .disp = disp,
                                                    .access = a};
}

static void emit_from_site(struct xlate_build *b, unsigned opcode, unsigned reg, int32_t at)
{
    emit_rm(&b->e, true, opcode, reg, HOST_STACK, at);
}

/* The access begins at a multiple of its alignment, or the interpreter faults. */
static void check_alignment(struct xlate_build *b, unsigned i, unsigned align, unsigned reg)
{
    emit_rr(&b->e, false, 0xf7, 0, reg); /* test */
    emit4(&b->e, align);
    xlate_stub(b, emit_jcc(&b->e, 5), i, STUB_LEAVE);
}

/* opcode reg, [rsp + T1 + disp] */
static void emit_indexed(struct xlate_build *b, bool wide, unsigned opcode, unsigned reg,
                         int32_t disp)
{
    struct emitter *e = &b->e;
    emit_opcode(e, wide, opcode, reg, HOST_T1, HOST_STACK);
    emit1(e, 0x80 | (reg & 7) << 3 | 4);
    emit1(e, (HOST_T1 & 7) << 3 | HOST_STACK);
    emit4(e, disp);
}

_Static_assert(sizeof(struct soft_tlbe) == 16 && TLB_BITS == 10, "index arithmetic below");

static struct xlate_place alone(struct xlate_build *b, unsigned i, const struct xlate_want *want)
{
    struct emitter *e = &b->e;
    struct xlate_access *a = new_access(b, i, want);
    unsigned site = a->site = pick_site(b, i, want->size, want);
    linear_address(b, want);
    if (want->align)
        check_alignment(b, i, want->align, HOST_T0);
    const uint8_t *retry = emit_here(e);
    emit_mov(e, HOST_T1, HOST_T0);
    emit_from_site(b, 0x2b, HOST_T1, SITE_AT(want->write, site, start));
    emit_from_site(b, 0x3b, HOST_T1, SITE_AT(want->write, site, limit));
    miss(b, i, a, 3, retry, MISS_LINEAR);
    emit_from_site(b, 0x03, HOST_T0, SITE_AT(want->write, site, addend));
    return (struct xlate_place){.base = HOST_T0, .index = 4};
}

/* ---- groups ---- */

/* What accesses from i on want of the same base: at most SPAN_MAX bytes from `low`. */
static void group_span(const struct xlate_build *b, unsigned i, int64_t *low, int64_t *high)
{
    const struct xlate_op *first = &b->ops[i];
    *low = first->offset;
    *high = first->offset + first->want.size;
    unsigned end = MIN(b->block->op_count, i + LOOK_AHEAD);
    for (unsigned j = i + 1; j < end; j++) {
        const struct xlate_op *x = &b->ops[j];
        if (x->kind != XLATE_INSN)
            break;
        if (!x->grouped || x->want.base != first->want.base || x->version != first->version ||
            (x->want.write && !first->want.write) || bitmap_test(b->hints.hashed, j))
            continue;
        int64_t l = MIN(*low, x->offset), h = MAX(*high, x->offset + x->want.size);
        if (h - l > SPAN_MAX)
            continue;
        *low = l;
        *high = h;
    }
}

/* The host register of the base; stolen ones and the page's address come to T1. */
static unsigned group_base(struct xlate_build *b, const struct xlate_want *want)
{
    if (want->base != INSN_REG_RIP)
        return xlate_reg(b, want->base, HOST_T1);
    emit_load(&b->e, HOST_T1, HOST_STACK, FRAME(page));
    return HOST_T1;
}

static bool group_has(const struct xlate_group *g, const struct xlate_op *x)
{
    return g->valid && g->version == x->version && x->offset >= g->low &&
           x->offset + x->want.size <= g->high;
}

/* Does an earlier access check for this one? One to write does for all. */
static bool in_group(const struct xlate_build *b, const struct xlate_op *x)
{
    const struct xlate_group *g = b->groups[x->want.base];
    return group_has(&g[1], x) || (!x->want.write && group_has(&g[0], x));
}

/* Its alignment follows from that of another access. */
static bool group_aligned(const struct xlate_group *g, const struct xlate_op *x)
{
    return g->align >= x->want.align && !((x->offset - g->aligned_at) & x->want.align);
}

/* Will a later access take the group's check for its own? Then this one may not go by a copy. */
static bool others_rely(const struct xlate_build *b, unsigned i, const struct xlate_group *g,
                        bool write)
{
    for (unsigned j = i + 1; j < b->block->op_count; j++) {
        const struct xlate_op *x = &b->ops[j];
        if (x->kind == XLATE_INSN && x->grouped && x->want.base == b->ops[i].want.base &&
            (write || !x->want.write) && group_has(g, x))
            return true;
    }
    return false;
}

/* Is the address there again for one instruction? */
static bool cheap_address(const struct xlate_want *want)
{
    return want->base != INSN_REG_RIP && want->seg != X86_FS && want->seg != X86_GS &&
           !xlate_stolen(want->base) && !xlate_stolen(want->index);
}

static void address_again(struct xlate_build *b, const struct xlate_want *want)
{
    if (cheap_address(want))
        xlate_lea(b, want, true, HOST_T0);
    else
        emit_load(&b->e, HOST_T0, HOST_STACK, FRAME(linear));
}

/* By the hashed TLB; the address is made again, beside the chain of loads. A group's first access
   checks for all of it and leaves the addend in the frame. */
static struct xlate_place hashed(struct xlate_build *b, unsigned i)
{
    struct emitter *e = &b->e;
    const struct xlate_op *x = &b->ops[i];
    struct xlate_want want = x->want;
    int64_t low = x->offset, high = low + want.size;
    bool group = x->grouped && b->local_count < XLATE_LOCALS;
    if (group)
        group_span(b, i, &low, &high);
    group = high - low > want.size;
    want.disp += low - x->offset;
    struct xlate_access *a = new_access(b, i, &want);
    a->hashed = true;
    a->huge = !want.write && bitmap_test(b->hints.huge, i);
    int32_t table = a->huge ? SPACE(huge) : want.write ? SPACE(write) : SPACE(read);
    a->group = group;
    a->bounce = a->bounce && !group;
    a->size = high - low;
    if (want.align) {
        linear_address(b, &x->want);
        check_alignment(b, i, want.align, HOST_T0);
    }
    linear_address(b, &want);
    if (!cheap_address(&want))
        emit_store(e, HOST_STACK, FRAME(linear), HOST_T0);
    const uint8_t *retry = emit_here(e);
    emit_mov(e, HOST_T1, HOST_T0);
    emit_shift_imm(e, false, 5, HOST_T1, (a->huge ? 21 : GUEST_PAGE_SHIFT) - 4);
    emit_alu_imm(e, false, 4, HOST_T1, ((a->huge ? HUGE_SIZE : TLB_SIZE) - 1) << 4);
    /* address ^ tag is the offset in the page, if the page is this and the access lies in it. */
    emit_indexed(b, true, 0x33, HOST_T0, table);
    emit_alu_imm(e, true, 7, HOST_T0, (a->huge ? MIB(2) : GUEST_PAGE_SIZE) - a->size);
    miss(b, i, a, 7, retry, want.disp);
    emit_indexed(b, true, 0x8b, HOST_T1, table + 8);
    if (group) {
        int32_t at = FRAME(local) + 8 * (int32_t)b->local_count++;
        b->groups[want.base][want.write] = (struct xlate_group){
            .valid = true, .version = x->version, .addend_at = at, .low = low, .high = high};
        emit_store(e, HOST_STACK, at, HOST_T1);
    }
    if (cheap_address(&want) && want.index == INSN_REG_NONE && want.base != INSN_REG_NONE)
        return (struct xlate_place){
            .base = xlate_reg(b, want.base, HOST_T0), .index = HOST_T1, .disp = x->want.disp};
    address_again(b, &x->want);
    return (struct xlate_place){
        .base = HOST_T0, .index = HOST_T1, .disp = cheap_address(&want) ? 0 : x->offset - low};
}

static struct xlate_place grouped(struct xlate_build *b, unsigned i)
{
    struct emitter *e = &b->e;
    const struct xlate_op *x = &b->ops[i];
    const struct xlate_want *want = &x->want;
    bool write = want->write;
    struct xlate_group *g = &b->groups[want->base][write];
    if (!write && !group_has(g, x) && group_has(&b->groups[want->base][1], x)) {
        write = true;
        g = &b->groups[want->base][1];
    }
    bool hit = group_has(g, x);
    bool check = want->align && !(hit && group_aligned(g, x));
    if (!hit || check)
        xlate_spill_flags(b, x->live_in);
    unsigned base = group_base(b, want);
    if (check) {
        emit_lea(e, HOST_T0, base, want->disp);
        check_alignment(b, i, want->align, HOST_T0);
    }
    if (!hit) {
        struct xlate_access *a = new_access(b, i, want);
        int64_t low, high;
        group_span(b, i, &low, &high);
        unsigned site = pick_site(b, i, high - low, want);
        *g = (struct xlate_group){.valid = true,
                                  .version = x->version,
                                  .addend_at = SITE_AT(write, site, addend),
                                  .low = low,
                                  .high = MIN(high, low + SITE_SPAN(site))};
        a->site = site;
        a->group = SITE_SPAN(site) > want->size || others_rely(b, i, g, write);
        a->bounce = a->bounce && !a->group;
        const uint8_t *retry = emit_here(e);
        emit_lea(e, HOST_T0, base, want->disp + (int32_t)(low - x->offset));
        emit_from_site(b, 0x2b, HOST_T0, SITE_AT(write, site, start));
        emit_from_site(b, 0x3b, HOST_T0, SITE_AT(write, site, limit));
        miss(b, i, a, 3, retry, MISS_RELATIVE);
    }
    if (check) {
        g->align = want->align;
        g->aligned_at = x->offset;
    }
    emit_from_site(b, 0x8b, HOST_T0, g->addend_at);
    return (struct xlate_place){.base = base, .index = HOST_T0, .disp = want->disp};
}

/* ---- all together ---- */

struct xlate_place xlate_access(struct xlate_build *b, unsigned i)
{
    const struct xlate_op *x = &b->ops[i];
    bool jumps_about = bitmap_test(b->hints.hashed, i);
    if (x->grouped && (!jumps_about || in_group(b, x)))
        return grouped(b, i);
    xlate_spill_flags(b, x->live_in);
    return jumps_about ? hashed(b, i) : alone(b, i, &x->want);
}

struct xlate_place xlate_access_operand(struct xlate_build *b, unsigned i)
{
    struct xlate_want want = xlate_operand(b, i);
    xlate_spill_flags(b, b->ops[i].live_in);
    return alone(b, i, &want);
}

void xlate_free_t1(struct xlate_build *b, struct xlate_place *place)
{
    if (place->base != HOST_T1 && place->index != HOST_T1)
        return;
    emit_lea_full(b, true, HOST_T0, place->base, place->index, 0, place->disp);
    *place = (struct xlate_place){.base = HOST_T0, .index = 4};
}

void xlate_modrm(struct emitter *e, unsigned reg, const struct xlate_place *place)
{
    bool small = place->disp == (int8_t)place->disp;
    bool sib = place->index != 4 || (place->base & 7) == 4;
    emit1(e, (small ? 0x40 : 0x80) | (reg & 7) << 3 | (sib ? 4 : place->base & 7));
    if (sib)
        emit1(e, (place->index & 7) << 3 | (place->base & 7));
    if (small)
        emit1(e, place->disp);
    else
        emit4(e, place->disp);
}

void xlate_place_op(struct xlate_build *b, unsigned opcode, unsigned reg,
                    const struct xlate_place *place)
{
    emit_opcode(&b->e, true, opcode, reg, place->index == 4 ? 0 : place->index, place->base);
    xlate_modrm(&b->e, reg, place);
}

/* ---- the stub ---- */

void xlate_miss_stub(struct xlate_build *b, const struct xlate_stub *stub)
{
    struct emitter *e = &b->e;
    const struct xlate_access *a = stub->access;
    if (a->hashed) {
        struct xlate_want want = b->ops[stub->op].want;
        want.disp = stub->disp;
        address_again(b, &want);
    } else if (stub->disp == MISS_RELATIVE)
        emit_from_site(b, 0x03, HOST_T0, SITE_AT(a->write, a->site, start));
    emit_mov_imm64(e, HOST_T1, (uintptr_t)a);
    emit_call(e, b->xlate->miss);
    emit_patch(e, emit_jcc(e, 4), stub->retry);
    if (!a->bounce) {
        xlate_leave(b, stub->op);
        return;
    }
    uint8_t *crossing = emit_jcc(e, 7);
    xlate_leave(b, stub->op);
    emit_patch(e, crossing, emit_here(e));
    emit_lea(e, HOST_T0, HOST_STACK, FRAME(bounce));
    b->host_flags = false;
    struct xlate_place place = {.base = HOST_T0, .index = 4};
    xlate_body(b, stub->op, &place);
    if (a->write) {
        bool flags = b->host_flags && b->ops[stub->op].live_out;
        if (flags)
            emit_flags_save(e);
        emit_call(e, b->xlate->cross_back);
        if (flags)
            emit_flags_restore(e);
    }
    emit_jmp_to(e, stub->done);
}
