/*
 * The translator's code buffer, and the ops that lead into translated code.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "accel/soft/check/lockstep.h"
#include "accel/soft/interp/ops.h"
#include "accel/soft/xlate/xlate_emit.h"

#define CODE_SIZE MIB(36)
#define JUMP_COUNT (KIB(1) * 512)
#define ACCESS_COUNT (KIB(1) * 512)

/* ---- the buffer ---- */

static void *map_code(int fd, int protection)
{
    void *at = mmap(NULL, CODE_SIZE, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

static void *map_records(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

struct xlate *xlate_new(void)
{
    struct xlate *xlate = xcalloc(1, sizeof(*xlate));
    scoped(fd_cleanup) int fd = memfd_create("tenon-code", MFD_CLOEXEC);
    xlate->sites = map_records(JUMP_COUNT * sizeof(struct xlate_site));
    xlate->accesses = map_records(ACCESS_COUNT * sizeof(struct xlate_access));
    if (fd >= 0 && !ftruncate(fd, CODE_SIZE)) {
        xlate->write = map_code(fd, PROT_READ | PROT_WRITE);
        xlate->exec = map_code(fd, PROT_READ | PROT_EXEC);
    }
    if (!xlate->sites || !xlate->accesses || !xlate->write || !xlate->exec) {
        xlate_free(xlate);
        return NULL;
    }
    xlate_common(xlate);
    return xlate;
}

void xlate_free(struct xlate *xlate)
{
    if (!xlate)
        return;
    if (xlate->write)
        munmap(xlate->write, CODE_SIZE);
    if (xlate->exec)
        munmap((void *)(uintptr_t)xlate->exec, CODE_SIZE);
    if (xlate->sites)
        munmap(xlate->sites, JUMP_COUNT * sizeof(struct xlate_site));
    if (xlate->accesses)
        munmap(xlate->accesses, ACCESS_COUNT * sizeof(struct xlate_access));
    free(xlate);
}

void xlate_flush(struct xlate *xlate)
{
    if (!xlate)
        return;
    xlate->used = xlate->fixed;
    xlate->site_count = 0;
    xlate->access_count = 0;
    xlate->sited = 0;
}

/* ---- blocks ---- */

void xlate_block_init(struct soft_vcpu *v, struct block *block)
{
    if (v->code->xlate)
        block->code = v->code->xlate->leave_block;
    block->code_flags = block->ahead = block->ahead_flags = 0;
}

static void bind(struct xlate *xlate, struct xlate_site *site, const uint8_t *to)
{
    struct emitter e = {.to_exec = xlate->exec - xlate->write};
    emit_patch(&e, site->at, to);
}

void xlate_block_drop(struct soft_vcpu *v, struct block *block)
{
    xlate_block_init(v, block);
    for (struct xlate_site *site = block->bound; site; site = site->next)
        bind(v->code->xlate, site, site->to);
    block->bound = NULL;
}

void xlate_again(struct soft_vcpu *v, struct block *block)
{
    if (block->dead)
        return;
    xlate_block_drop(v, block);
    for (unsigned i = 1; i < block->op_count; i++)
        if (block->ops[i].fn == xlate_op_native)
            block->ops[i].fn = xlate_op_entry;
    block->ops[0].fn = xlate_op_hot;
    block->ops[0].imm = v->vm->xlate_after;
}

static struct block *block_of(const struct op *first)
{
    return (struct block *)((uintptr_t)first - offsetof(struct block, ops));
}

static const uint8_t *way_in(const struct block *block, const struct xlate_site *from)
{
    if (from->ahead)
        return block->code + (from->flags_live ? block->ahead_flags : block->ahead);
    return block->code + (from->flags_live ? block->code_flags : 0);
}

/* Translated code came to a jump that leads nowhere yet: binds it if it can. The interpreter does a
   call over; any other jump is done but for its way, and its flags may be gone. */
static const struct op *take_site(struct soft_vcpu *v, struct xlate_site *site)
{
    const struct op *op = site->op;
    struct xlate *xlate = v->code->xlate;
    struct block *target = op->fn == op_dead ? NULL : op->link;
    if (target && !target->dead && target->code != xlate->leave_block) {
        bind(xlate, site, way_in(target, site));
        site->next = target->bound;
        target->bound = site;
    }
    if (site->call) {
        v->icount -= op->n; /* which the op will add again */
        return op;
    }
    uint64_t rip = v->r[R_BLOCK] + op->disp;
    if (op->fn == op_dead)
        return soft_lookup(v, rip);
    if (!target)
        return soft_link(v, op, rip);
    v->r[R_BLOCK] = rip;
    return target->ops;
}

/* Before the site is taken: a block that is built at its target may make a page one of code that
   translated code has just written to, which the shadow could not do any more. */
static void check_site(struct soft_vcpu *v, const struct xlate_site *site)
{
    v->rip = v->r[R_BLOCK] + site->op->disp;
    lockstep_check(v, NULL);
}

const struct op *xlate_op_native(struct soft_vcpu *v, const struct op *op)
{
    uint32_t flags = XLATE_FLAGS_NONE;
    if (op->a) {
        uint32_t f = cc_compute(v);
        flags = (f & 0xff) << 8 | (f & FL_OF ? 1 : 0);
    }
    if (unlikely(v->lockstep))
        lockstep_begin(v, op);
    uint64_t next = v->code->xlate->enter(v, (const void *)(intptr_t)op->imm, flags);
    if (next & 1) {
        struct xlate_site *site = (struct xlate_site *)(uintptr_t)(next & ~1ull);
        bool checked = v->lockstep && !site->call;
        if (unlikely(checked))
            check_site(v, site);
        next = (uintptr_t)take_site(v, site);
        if (unlikely(checked))
            GOTO_OP(v, (const struct op *)(uintptr_t)next);
    }
    if (unlikely(v->lockstep))
        lockstep_check(v, (const struct op *)(uintptr_t)next);
    if (!next)
        return NULL;
    GOTO_OP(v, (const struct op *)(uintptr_t)next);
}

static bool has_room(const struct soft_vcpu *v)
{
    const struct xlate *xlate = v->code->xlate;
    size_t size = v->vm->modes.code_cache ? v->vm->modes.code_cache : CODE_SIZE;
    return xlate->used + XLATE_BLOCK_MAX < size && xlate->site_count + 256 < JUMP_COUNT &&
           xlate->access_count + 256 < ACCESS_COUNT;
}

const struct op *xlate_op_hot(struct soft_vcpu *v, const struct op *op)
{
    struct op *self = (struct op *)(uintptr_t)op;
    if (++self->imm >= v->vm->xlate_after) {
        if (!has_room(v)) {
            uint64_t rip = v->r[R_BLOCK];
            soft_code_flush(v);
            GOTO_OP(v, soft_lookup(v, rip));
        }
        if (xlate_block(v, block_of(op))) {
            v->stats.native++;
            GOTO_OP(v, op);
        }
        self->imm = INT32_MIN; /* tries again, much later */
    }
    NEXT_OP(v, op);
}

/* Stands where translated code will begin again. */
const struct op *xlate_op_entry(struct soft_vcpu *v, const struct op *op)
{
    NEXT_OP(v, op);
}
