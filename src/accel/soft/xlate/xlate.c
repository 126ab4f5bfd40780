/*
 * The translator's code buffer, and the ops that lead into translated code.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "accel/soft/interp/ops.h"
#include "accel/soft/xlate/xlate_emit.h"

#define CODE_SIZE MIB(64)
#define SITE_COUNT (KIB(1) * 512)

/* ---- the buffer ---- */

static void *map_code(int fd, int protection)
{
    void *at = mmap(NULL, CODE_SIZE, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

struct xlate *xlate_new(void)
{
    struct xlate *xlate = xcalloc(1, sizeof(*xlate));
    scoped(fd_cleanup) int fd = memfd_create("tenon-code", MFD_CLOEXEC);
    void *sites = mmap(NULL, SITE_COUNT * sizeof(struct xlate_site), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (sites != MAP_FAILED)
        xlate->sites = sites;
    if (fd >= 0 && !ftruncate(fd, CODE_SIZE)) {
        xlate->write = map_code(fd, PROT_READ | PROT_WRITE);
        xlate->exec = map_code(fd, PROT_READ | PROT_EXEC);
    }
    if (!xlate->sites || !xlate->write || !xlate->exec) {
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
        munmap(xlate->sites, SITE_COUNT * sizeof(struct xlate_site));
    free(xlate);
}

void xlate_flush(struct xlate *xlate)
{
    if (!xlate)
        return;
    xlate->used = xlate->fixed;
    xlate->site_count = 0;
}

/* ---- blocks ---- */

void xlate_block_init(struct soft_vcpu *v, struct block *block)
{
    if (v->code->xlate)
        block->code = block->code_flags = v->code->xlate->leave_block;
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

static struct block *block_of(const struct op *first)
{
    return (struct block *)((uintptr_t)first - offsetof(struct block, ops));
}

/* Translated code came to a jump that leads nowhere yet: binds it if it can. */
static const struct op *take_site(struct soft_vcpu *v, struct xlate_site *site)
{
    const struct op *op = site->op;
    v->icount -= op->n; /* which the op will add again */
    struct xlate *xlate = v->code->xlate;
    if (op->fn == op_dead)
        return op;
    struct block *target = op->link;
    if (target && !target->dead && target->code != xlate->leave_block) {
        bind(xlate, site, site->flags_live ? target->code_flags : target->code);
        site->next = target->bound;
        target->bound = site;
    }
    return op;
}

const struct op *xlate_op_native(struct soft_vcpu *v, const struct op *op)
{
    uint32_t flags = XLATE_FLAGS_NONE;
    if (op->a) {
        uint32_t f = cc_compute(v);
        flags = (f & 0xff) << 8 | (f & FL_OF ? 1 : 0);
    }
    uint64_t next = v->code->xlate->enter(v, (const void *)(intptr_t)op->imm, flags);
    if (next & 1)
        next = (uintptr_t)take_site(v, (struct xlate_site *)(uintptr_t)(next & ~1ull));
    if (!next)
        return NULL;
    GOTO_OP(v, (const struct op *)(uintptr_t)next);
}

static bool has_room(const struct xlate *xlate)
{
    return xlate->used + XLATE_BLOCK_MAX < CODE_SIZE && xlate->site_count + 256 < SITE_COUNT;
}

const struct op *xlate_op_hot(struct soft_vcpu *v, const struct op *op)
{
    struct op *self = (struct op *)(uintptr_t)op;
    if (++self->imm >= v->vm->xlate_after) {
        if (!has_room(v->code->xlate)) {
            uint64_t rip = v->r[R_BLOCK];
            soft_code_flush(v);
            GOTO_OP(v, soft_lookup(v, rip));
        }
        if (xlate_block(v, block_of(op)))
            GOTO_OP(v, op);
        self->imm = INT32_MIN; /* tries again, much later */
    }
    NEXT_OP(v, op);
}

/* Stands where translated code will begin again. */
const struct op *xlate_op_entry(struct soft_vcpu *v, const struct op *op)
{
    NEXT_OP(v, op);
}
