/*
 * The block cache: finds the block at an address, decodes new ones, drops those whose bytes
 * changed.
 *
 * Each vCPU has its own cache, so nothing here is shared but the marks of code.c. Memory is given
 * out in order and never returned piece by piece: a dropped block stays, its ops patched to leave
 * it, and a full arena is emptied as a whole between blocks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/block.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "accel/soft/mem/tlb.h"
#include "accel/soft/xlate/xlate.h"

static unsigned hash_of(uint64_t gpa, unsigned mode, bool flat)
{
    uint64_t h = (gpa ^ (uint64_t)mode << 40 ^ (uint64_t)flat << 44) * 0x9e3779b97f4a7c15ull;
    return h >> (64 - BLOCK_HASH_BITS);
}

static void *arena_map(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

struct soft_code *soft_code_new(struct soft_vcpu *v)
{
    struct soft_code *code = xcalloc(1, sizeof(*code));
    code->arena = arena_map(CODE_ARENA);
    code->insns = arena_map(INSN_ARENA);
    code->miss = xcalloc(1, sizeof(*code->miss) + sizeof(struct op));
    code->miss->ops[0].fn = op_lookup;
    code->xlate = xlate_new();
    if (!code->arena || !code->insns || !code->xlate) {
        soft_code_free(code);
        return NULL;
    }
    return code;
}

void soft_code_free(struct soft_code *code)
{
    if (!code)
        return;
    if (code->arena)
        munmap(code->arena, CODE_ARENA);
    if (code->insns)
        munmap(code->insns, INSN_ARENA);
    if (code->pages)
        munmap(code->pages, code->page_count * sizeof(*code->pages));
    xlate_free(code->xlate);
    free(code->miss);
    free(code);
}

struct block *soft_code_miss(struct soft_code *code)
{
    return code->miss;
}

void soft_code_flush(struct soft_vcpu *v)
{
    struct soft_code *code = v->code;
    memset(code->hash, 0, sizeof(code->hash));
    if (code->pages)
        munmap(code->pages, code->page_count * sizeof(*code->pages));
    code->page_count = 0;
    code->pages = NULL;
    code->used = 0;
    code->insn_count = 0;
    xlate_flush(code->xlate);
    xlate_block_init(v, code->miss);
    soft_jc_flush(v);
}

static struct block **page_list(struct soft_vcpu *v, uint64_t gpa)
{
    struct soft_code *code = v->code;
    if (!code->pages) {
        code->page_count = v->vm->mem->pages ? v->vm->mem->pages : 1;
        code->pages = arena_map(code->page_count * sizeof(*code->pages));
        if (!code->pages)
            soft_fail(v, "soft: no memory for the code tables");
    }
    uint64_t index = soft_page_index(v->vm->mem, gpa);
    return index < code->page_count ? &code->pages[index] : NULL;
}

/* Every op of a dead block leaves it, also for a vCPU that is in the middle of it. */
static void kill(struct soft_vcpu *v, struct block *block)
{
    if (block->dead)
        return;
    block->dead = true;
    for (unsigned i = 0; i < block->op_count; i++)
        block->ops[i].fn = op_dead;
    xlate_block_drop(v, block);
    struct block **link = &v->code->hash[hash_of(block->gpa, block->mode, block->flat)];
    while (*link && *link != block)
        link = &(*link)->hash_next;
    if (*link)
        *link = block->hash_next;
    v->stats.invalidations++;
}

void soft_code_drop(struct soft_vcpu *v, uint64_t gpa)
{
    soft_code_drop_bytes(v, gpa & ~0xfffull, GUEST_PAGE_SIZE);
}

/* Translated code may rely on what it jumps to as well. */
static bool block_depends(const struct block *block, uint64_t gpa, unsigned len)
{
    return block->mode == INSN_64 || block->crosses ||
           (gpa < block->gpa + block->bytes && block->gpa < gpa + len);
}

void soft_code_drop_bytes(struct soft_vcpu *v, uint64_t gpa, unsigned len)
{
    struct block **link = v->code->pages ? page_list(v, gpa) : NULL;
    uint64_t page = gpa & ~0xfffull;
    while (link && *link) {
        struct block *block = *link;
        bool first = (block->gpa & ~0xfffull) == page; /* or the second of one that crosses */
        struct block **next = first ? &block->page_next : &block->page2_next;
        if (len == GUEST_PAGE_SIZE || block_depends(block, gpa, len)) {
            *link = *next;
            kill(v, block);
        } else {
            link = next;
        }
    }
}

/* ---- building ---- */

struct builder {
    struct soft_vcpu *v;
    struct block *block;
    const uint8_t *host; /* of the first byte; the page ends at `room` */
    unsigned room;
    unsigned at;     /* bytes decoded */
    unsigned looked; /* bytes that decided about the block, beyond them if there are more */
    unsigned insns;
    bool xlate;  /* the block may be translated: leave room for its entries */
    bool behind; /* the last instruction is not for the translator */
};

static const struct insn *keep_insn(struct soft_vcpu *v, const struct insn *insn)
{
    struct insn *copy = &v->code->insns[v->code->insn_count++];
    *copy = *insn;
    return copy;
}

static bool ends_block(const struct insn *insn)
{
    return insn->flags & INSN_F_END || insn->rep;
}

/* Of those that do not end a block by themselves. */
static bool loads_segment(const struct insn *insn)
{
    return insn->id == I_POPSEG || insn->id == I_LDS || insn->id == I_LES || insn->id == I_LSS;
}

/* An op that is no instruction: the translator's ways in. */
static void append_entry(struct builder *b, op_fn *fn)
{
    struct op *op = &b->block->ops[b->block->op_count++];
    memset(op, 0, sizeof(*op));
    op->fn = fn;
    op->off = b->at;
    op->n = b->insns + 1;
}

/* Appends the op of one decoded instruction; true when the block ends with it. */
static bool append(struct builder *b, const struct insn *insn)
{
    struct block *block = b->block;
    if (b->xlate) {
        bool known = xlate_handles(insn);
        if (!block->op_count)
            append_entry(b, xlate_op_hot);
        else if (known && b->behind)
            append_entry(b, xlate_op_entry);
        b->behind = !known;
    }
    struct op *op = &block->ops[block->op_count++];
    memset(op, 0, sizeof(*op));
    op->off = b->at;
    op->len = insn->len;
    op->n = ++b->insns;
    b->at += insn->len;
    bool end = ends_block(insn);
    /* Where the block lies in its page: tells select.c which targets are in the same page. */
    unsigned in_page = block->gpa & 0xfff;
    op->c = in_page / 64;
    op->d = in_page % 64;
    if (block->flat && soft_select_flat(op, insn))
        return end;
    if (insn->mode == INSN_64) {
        if (soft_select_keeps(insn))
            op->insn = keep_insn(b->v, insn);
        if (soft_select(op, insn))
            return end;
    }
    end |= insn->id == I_JCC || insn->id == I_STI || (block->flat && loads_segment(insn));
    op->fn = end ? op_generic_end : op_generic;
    op->insn = keep_insn(b->v, insn);
    return end;
}

static void append_ud(struct builder *b, enum decode_result why, struct insn *insn)
{
    insn->id = I_UD;
    insn->cls = INSN_CLASS_INT;
    insn->flags = INSN_F_END;
    insn->rep = 0;
    insn->mode = b->block->mode;
    if (why == DECODE_TOO_LONG)
        insn->id = I_COUNT; /* #GP */
    struct op *op = &b->block->ops[b->block->op_count++];
    memset(op, 0, sizeof(*op));
    b->looked = b->at + INSN_MAX; /* what is no instruction now may be one with other bytes */
    op->off = b->at;
    op->len = insn->len ? insn->len : 1;
    op->n = ++b->insns;
    op->fn = op_generic_end;
    op->insn = keep_insn(b->v, insn);
    b->at += op->len;
}

/* The bytes of an instruction that crosses into the next page; its gpa goes to *gpa2. */
static unsigned cross_bytes(struct builder *b, uint8_t bytes[INSN_MAX], uint64_t *gpa2)
{
    struct soft_vcpu *v = b->v;
    unsigned first = b->room - b->at;
    memcpy(bytes, b->host + b->at, first);
    uint64_t linear = v->rip + b->at + first;
    linear = v->mode == INSN_64 ? linear : (uint32_t)(linear + v->seg[X86_CS].base);
    const uint8_t *second = soft_fetch_ptr(v, linear, gpa2);
    if (!second)
        soft_fail(v, "soft: code runs out of RAM at %#llx", (unsigned long long)*gpa2);
    soft_code_mark(v, *gpa2, INSN_MAX - first);
    memcpy(bytes + first, second, INSN_MAX - first);
    return INSN_MAX;
}

/* A block of one instruction that crosses a page: it checks first that the second page is still the
   same. Raises when the second page faults. */
static void build_crossing(struct builder *b)
{
    struct block *block = b->block;
    uint8_t bytes[INSN_MAX];
    struct insn insn;
    uint64_t gpa2;
    unsigned count = cross_bytes(b, bytes, &gpa2);
    b->xlate = false;
    block->crosses = true;
    struct op *check = &block->ops[block->op_count++];
    memset(check, 0, sizeof(*check));
    check->fn = op_crossing;
    check->imm = (int64_t)gpa2;
    check->disp = b->room;
    enum decode_result result = decode(bytes, count, block->mode, b->v->features, &insn);
    bool end = true;
    if (result == DECODE_OK)
        end = append(b, &insn);
    else
        append_ud(b, result, &insn);
    block->ops[block->op_count - 1].n = 1;
    if (!end) {
        struct op *op = &block->ops[block->op_count++];
        memset(op, 0, sizeof(*op));
        op->fn = op_fallthrough;
        op->off = op->disp = b->at;
        op->n = 1;
    }
}

static void build_ops(struct builder *b)
{
    struct block *block = b->block;
    struct insn insn;
    for (;;) {
        enum decode_result result = b->at >= b->room ? DECODE_SHORT
                                                     : decode(b->host + b->at, b->room - b->at,
                                                              block->mode, b->v->features, &insn);
        if (result == DECODE_OK) {
            if (append(b, &insn))
                return;
            if (block->op_count < BLOCK_OPS_MAX)
                continue;
        } else if (result != DECODE_SHORT) {
            append_ud(b, result, &insn);
            return;
        } else if (!block->op_count) {
            build_crossing(b);
            return;
        }
        struct op *op = &block->ops[block->op_count];
        memset(op, 0, sizeof(*op));
        op->fn = op_fallthrough;
        op->off = op->disp = b->at;
        op->n = b->insns;
        block->op_count++;
        op->a = b->at < b->room; /* stays in the page: may be linked */
        return;
    }
}

static void insert(struct soft_vcpu *v, struct block *block)
{
    struct block **slot = &v->code->hash[hash_of(block->gpa, block->mode, block->flat)];
    block->hash_next = *slot;
    *slot = block;
    struct block **list = page_list(v, block->gpa);
    if (list) {
        block->page_next = *list;
        *list = block;
    }
    if (block->crosses) {
        list = page_list(v, (uint64_t)block->ops[0].imm);
        if (list) {
            block->page2_next = *list;
            *list = block;
        }
    }
}

static struct block *build(struct soft_vcpu *v, const uint8_t *host, uint64_t gpa)
{
    struct soft_code *code = v->code;
    size_t most = sizeof(struct block) + (BLOCK_OPS_MAX + 4) * sizeof(struct op);
    if (code->used + most > CODE_ARENA ||
        (code->insn_count + BLOCK_OPS_MAX + 4) * sizeof(struct insn) > INSN_ARENA)
        soft_code_flush(v);
    struct block *block = (struct block *)(code->arena + code->used);
    memset(block, 0, sizeof(*block));
    block->gpa = gpa;
    block->mode = v->mode;
    block->flat = v->flat;
    xlate_block_init(v, block);
    struct builder b = {.v = v,
                        .block = block,
                        .host = host,
                        .room = GUEST_PAGE_SIZE - (gpa & 0xfff),
                        .xlate = v->mode == INSN_64 && v->vm->xlate_after};
    /* Marked before the bytes are read, wide first: a write in between is noticed. */
    soft_code_mark_lines(v, gpa, MIN(b.room, 64u));
    size_t insns = code->insn_count;
    do {
        code->insn_count = insns;
        block->op_count = 0;
        block->crosses = false;
        b.at = b.looked = b.insns = 0;
        b.behind = false;
        build_ops(&b);
        block->bytes = MIN(MAX(b.at, b.looked), b.room);
    } while (soft_code_mark(v, gpa, block->bytes));
    code->used += sizeof(*block) + block->op_count * sizeof(struct op);
    insert(v, block);
    v->stats.translations++;
    return block;
}

struct block *soft_block_find(struct soft_vcpu *v)
{
    uint64_t rip = v->rip, gpa;
    uint64_t linear = v->mode == INSN_64 ? rip : (uint32_t)(rip + v->seg[X86_CS].base);
    const uint8_t *host = soft_fetch_ptr(v, linear, &gpa);
    if (unlikely(!host))
        soft_fail(v, "soft: the guest runs code outside RAM, at physical address %#llx",
                  (unsigned long long)gpa);
    struct block *block = v->code->hash[hash_of(gpa, v->mode, v->flat)];
    while (block && (block->gpa != gpa || block->mode != v->mode || block->flat != v->flat))
        block = block->hash_next;
    if (!block)
        block = build(v, host, gpa);
    struct soft_space *space = v->space;
    uint64_t key = jc_key(v, rip);
    unsigned index = jc_index(key), page = linear >> GUEST_PAGE_SHIFT & (TLBX_SIZE - 1);
    if (!(space->exec_global[page / 64] >> (page % 64) & 1)) {
        if (space->n_jc < JC_LOG)
            space->log_jc[space->n_jc] = index;
        space->n_jc++;
    }
    space->jc[index] = (struct soft_jc){.key = key, .block = block};
    return block;
}

void soft_fetch_insn(struct soft_vcpu *v, struct insn *insn)
{
    uint8_t bytes[INSN_MAX];
    uint64_t gpa;
    uint64_t linear = v->mode == INSN_64 ? v->rip : (uint32_t)(v->rip + v->seg[X86_CS].base);
    unsigned first = MIN(GUEST_PAGE_SIZE - (unsigned)(linear & 0xfff), (unsigned)INSN_MAX);
    const uint8_t *host = soft_fetch_ptr(v, linear, &gpa);
    if (!host)
        soft_fail(v, "soft: the guest runs code outside RAM, at physical address %#llx",
                  (unsigned long long)gpa);
    memcpy(bytes, host, first);
    enum decode_result result = decode(bytes, first, v->mode, v->features, insn);
    if (result == DECODE_SHORT) {
        host = soft_fetch_ptr(v, tlb_next_page(v, linear), &gpa);
        if (!host)
            soft_fail(v, "soft: code runs out of RAM at %#llx", (unsigned long long)gpa);
        memcpy(bytes + first, host, INSN_MAX - first);
        result = decode(bytes, INSN_MAX, v->mode, v->features, insn);
    }
    if (result != DECODE_OK)
        soft_raise(v, result == DECODE_UD ? VEC_UD : VEC_GP, 0);
}
