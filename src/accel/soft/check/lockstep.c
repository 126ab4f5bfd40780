/*
 * Lockstep of translated code and interpreter: see lockstep.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/check/lockstep.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "accel/soft/check/stale.h"
#include "accel/soft/check/undefined.h"
#include "accel/soft/interp/ops.h"
#include "accel/soft/mem/atomic.h"
#include "accel/soft/mem/site.h"
#include "accel/soft/mem/tlb.h"
#include "accel/soft/simd/simd.h"
#include "accel/soft/xlate/xlate.h"
#include "base/clock.h"
#include "base/log.h"
#include "gmem/gmem.h"

#define PAGES_MAX 4096u
#define SLOTS 8192u
#define VECTOR_STATE 832u /* x87, SSE and AVX in the XSAVE image */
#define PTE_AD 0x60u
#define RECENT 24u
#define DECODED 4096u
#define FILLED_MAX 512u
#define MARKED_MAX 16u
#define DEVICE_MS 10 /* a device has told of its bytes by then (gmem_writes) */
#define BORROW_MS 1000
#define PATIENCE_NS (2 * NSEC_PER_SEC)

enum phase { PHASE_OFF, PHASE_NATIVE, PHASE_SHADOW };

/* What translated code may change, and where it stands. */
struct window_state {
    uint64_t r[R_COUNT];
    uint64_t cc_dst, cc_src, rip, next_rip, icount;
    uint32_t cc_op, rflags;
    uint8_t vectors[VECTOR_STATE];
};

struct page {
    uint8_t *host;
    uint8_t *copy; /* as it was when the window opened; the shadow writes here */
};

struct filled {
    struct soft_tlbe *entry;
    unsigned index;
};

struct lockstep {
    enum phase phase;
    struct window_state before, native;
    uint64_t start;    /* rip */
    unsigned position; /* of the entry in its block, in instructions */
    uint64_t writes;   /* of devices, until the window opened */
    bool behind;       /* by then one had written code that the vCPU had not dropped yet */
    struct page pages[PAGES_MAX];
    unsigned count;
    bool full;            /* more pages than that: the window is not compared */
    uint16_t slot[SLOTS]; /* hash of pages: index + 1 */
    uint8_t *copies;
    struct soft_space *space;         /* TLBs of the shadow */
    struct filled filled[FILLED_MAX]; /* of the write TLBs, since a window began */
    unsigned filled_count;
    const uint8_t *marked[MARKED_MAX]; /* page tables in which walks of this window set bits */
    unsigned marked_count;             /* above MARKED_MAX: more than that */
    bool reads_marked;                 /* the shadow used one of them, as data or code */
    struct insn decoded[DECODED];
    uint64_t recent_rip[RECENT], steps; /* where the shadow's last instructions were */
    uint32_t undefined;                 /* flags that mean nothing at this point of the shadow */
    bool unsure;           /* the two may differ: by something undefined, or the shadow gave up */
    const uint8_t *pushed; /* eight bytes that may differ: see find_pushed */
    char why[512];
};

struct lockstep *lockstep_new(struct soft_vcpu *v)
{
    struct lockstep *lockstep = xcalloc(1, sizeof(*lockstep));
    void *copies = mmap(NULL, (size_t)PAGES_MAX * GUEST_PAGE_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (copies == MAP_FAILED) {
        free(lockstep);
        return NULL;
    }
    lockstep->copies = copies;
    lockstep->space = soft_space_new(v);
    gmem_count_writes(v->vm->gmem);
    return lockstep;
}

void lockstep_free(struct lockstep *lockstep)
{
    if (!lockstep)
        return;
    munmap(lockstep->copies, (size_t)PAGES_MAX * GUEST_PAGE_SIZE);
    free(lockstep->space);
    free(lockstep);
}

/* ---- pages ---- */

static unsigned slot_of(const struct lockstep *lockstep, const uint8_t *host)
{
    unsigned slot = ((uintptr_t)host >> GUEST_PAGE_SHIFT) * 0x9e3779b1u % SLOTS;
    while (lockstep->slot[slot] && lockstep->pages[lockstep->slot[slot] - 1].host != host)
        slot = (slot + 1) % SLOTS;
    return slot;
}

static struct page *keep_page(struct lockstep *lockstep, uint8_t *host, unsigned slot)
{
    if (lockstep->count == PAGES_MAX) {
        lockstep->full = true;
        return NULL;
    }
    struct page *page = &lockstep->pages[lockstep->count];
    page->host = host;
    page->copy = lockstep->copies + (size_t)lockstep->count * GUEST_PAGE_SIZE;
    memcpy(page->copy, host, GUEST_PAGE_SIZE);
    lockstep->slot[slot] = ++lockstep->count;
    return page;
}

static void forget_pages(struct lockstep *lockstep)
{
    if (lockstep->count)
        memset(lockstep->slot, 0, sizeof(lockstep->slot));
    lockstep->count = 0;
    lockstep->full = false;
}

void lockstep_filled(struct soft_vcpu *v, struct soft_tlbe *entry, unsigned index)
{
    struct lockstep *lockstep = v->lockstep;
    if (lockstep->phase == PHASE_SHADOW)
        return;
    if (lockstep->filled_count < FILLED_MAX)
        lockstep->filled[lockstep->filled_count] = (struct filled){entry, index};
    lockstep->filled_count = MIN(lockstep->filled_count, FILLED_MAX) + 1;
}

/* The page of RAM itself that `at` lies in, or whose copy it does. */
static const uint8_t *original(const struct lockstep *lockstep, const uint8_t *at)
{
    uint64_t offset = (uint64_t)(at - lockstep->copies);
    if (offset < (uint64_t)PAGES_MAX * GUEST_PAGE_SIZE)
        return lockstep->pages[offset / GUEST_PAGE_SIZE].host;
    return at - ((uintptr_t)at & (GUEST_PAGE_SIZE - 1));
}

static bool is_marked(const struct lockstep *lockstep, const uint8_t *page)
{
    for (unsigned i = 0; i < lockstep->marked_count; i++)
        if (lockstep->marked[i] == page)
            return true;
    return false;
}

void lockstep_marked(struct soft_vcpu *v, const uint8_t *at)
{
    struct lockstep *lockstep = v->lockstep;
    const uint8_t *page = original(lockstep, at);
    if (lockstep->phase == PHASE_OFF || lockstep->marked_count > MARKED_MAX ||
        is_marked(lockstep, page))
        return;
    if (lockstep->marked_count < MARKED_MAX)
        lockstep->marked[lockstep->marked_count] = page;
    lockstep->marked_count++;
}

void lockstep_uses(struct soft_vcpu *v, const uint8_t *page)
{
    struct lockstep *lockstep = v->lockstep;
    if (lockstep->phase == PHASE_SHADOW && is_marked(lockstep, original(lockstep, page)))
        lockstep->reads_marked = true;
}

/* Looks at the shadow's TLBs, before they are emptied, for what has been marked since. */
static void look_for_marked(struct lockstep *lockstep)
{
    if (!lockstep->marked_count)
        return;
    lockstep->reads_marked |= lockstep->marked_count > MARKED_MAX;
    for (unsigned i = 0; i < 2 * TLB_SIZE && !lockstep->reads_marked; i++) {
        const struct soft_tlbe *tlb = i % 2 ? lockstep->space->write : lockstep->space->read;
        const struct soft_tlbe *e = &tlb[i / 2];
        if (e->tag != tlb_empty_tag(i / 2))
            lockstep->reads_marked = is_marked(
                lockstep, original(lockstep, (const uint8_t *)(uintptr_t)(e->tag + e->addend)));
    }
}

/* The write TLB becomes empty. */
static void drop_writes(struct soft_vcpu *v)
{
    struct lockstep *lockstep = v->lockstep;
    struct soft_space *spaces[] = {v->space, soft_space_of(v, false)};
    for (unsigned i = 0; i < ARRAY_SIZE(spaces); i++)
        soft_sites_flush(v, spaces[i], true);
    if (lockstep->filled_count > FILLED_MAX || v->vm->dirty_log)
        soft_tlb_flush_writes(v);
    else
        for (unsigned i = 0; i < lockstep->filled_count; i++)
            lockstep->filled[i].entry->tag = tlb_empty_tag(lockstep->filled[i].index);
    lockstep->filled_count = 0;
}

uint8_t *lockstep_page(struct soft_vcpu *v, uint8_t *host, bool write)
{
    struct lockstep *lockstep = v->lockstep;
    if (lockstep->phase == PHASE_OFF || (lockstep->phase == PHASE_NATIVE && !write))
        return host;
    unsigned slot = slot_of(lockstep, host);
    struct page *page = lockstep->slot[slot] ? &lockstep->pages[lockstep->slot[slot] - 1] : NULL;
    if (!page && write) {
        page = keep_page(lockstep, host, slot);
        if (lockstep->phase == PHASE_SHADOW) {
            look_for_marked(lockstep);
            soft_space_flush(v, lockstep->space); /* reads must see the copy from now on */
        }
    }
    return page && lockstep->phase == PHASE_SHADOW ? page->copy : host;
}

/* ---- state ---- */

static void save(struct soft_vcpu *v, struct window_state *state)
{
    soft_mxcsr_leave(v);
    memcpy(state->r, v->r, sizeof(state->r));
    memcpy(state->vectors, v->xsave, VECTOR_STATE);
    state->cc_dst = v->cc_dst;
    state->cc_src = v->cc_src;
    state->cc_op = v->cc_op;
    state->rflags = v->rflags;
    state->rip = v->rip;
    state->next_rip = v->next_rip;
    state->icount = v->icount;
}

static void restore(struct soft_vcpu *v, const struct window_state *state)
{
    soft_mxcsr_leave(v);
    memcpy(v->r, state->r, sizeof(state->r));
    memcpy(v->xsave, state->vectors, VECTOR_STATE);
    v->cc_dst = state->cc_dst;
    v->cc_src = state->cc_src;
    v->cc_op = state->cc_op;
    v->rflags = state->rflags;
    v->rip = state->rip;
    v->next_rip = state->next_rip;
    v->icount = state->icount;
}

void lockstep_begin(struct soft_vcpu *v, const struct op *op)
{
    struct lockstep *lockstep = v->lockstep;
    bool busy;
    save(v, &lockstep->before);
    forget_pages(lockstep);
    drop_writes(v);
    lockstep->marked_count = 0;
    lockstep->reads_marked = false;
    lockstep->start = v->r[R_BLOCK] + op->off;
    lockstep->position = op->n - 1;
    lockstep->writes = gmem_writes(v->vm->gmem, &busy);
    lockstep->behind = atomic_load(&v->events) & EV_CODE;
    lockstep->phase = PHASE_NATIVE;
}

/* ---- the shadow ---- */

/* Leaves the shadow: it went where translated code cannot. */
static void __attribute__((noreturn)) stray(struct soft_vcpu *v, const char *what)
{
    snprintf(v->lockstep->why, sizeof(v->lockstep->why), "the interpreter came to %s", what);
    longjmp(v->unwind, 3);
}

void lockstep_device(struct soft_vcpu *v)
{
    if (v->lockstep->phase == PHASE_SHADOW)
        stray(v, "a device");
}

/* The instruction at v->rip: from the cache if its bytes are still the same. */
static const struct insn *fetch(struct soft_vcpu *v)
{
    struct insn *insn = &v->lockstep->decoded[v->rip % DECODED];
    if ((v->rip & 0xfff) + INSN_MAX <= GUEST_PAGE_SIZE) {
        uint64_t gpa;
        const uint8_t *at = soft_fetch_ptr(v, v->rip, &gpa);
        if (at)
            lockstep_uses(v, at); /* a table as code */
        if (at && insn->len && !memcmp(at, insn->raw, insn->len))
            return insn;
    }
    insn->len = 0; /* should it raise */
    soft_fetch_insn(v, insn);
    if (!xlate_handles(insn)) {
        insn->len = 0;
        stray(v, decode_name(insn->id));
    }
    return insn;
}

/* Does it go by a flag that means nothing? Shifts that may keep the flags do not look at them. */
static bool reads_undefined(const struct insn *insn, uint32_t undefined)
{
    switch (insn->id) {
    case I_JCC:
    case I_SETCC:
    case I_CMOVCC:
    case I_ADC:
    case I_SBB:
    case I_RCL:
    case I_RCR:
    case I_CMC:
    case I_LAHF:
    case I_ADCX:
    case I_ADOX:
        return xlate_flag_use(insn).reads & undefined;
    default:
        return false;
    }
}

static void shadow_step(struct soft_vcpu *v)
{
    struct lockstep *lockstep = v->lockstep;
    const struct insn *insn = fetch(v);
    lockstep->recent_rip[lockstep->steps++ % RECENT] = v->rip;
    v->next_rip = v->rip + insn->len;
    v->stack_access = false;
    v->r[R_BLOCK] = v->rip;
    lockstep->unsure |=
        reads_undefined(insn, lockstep->undefined) || soft_undefined_result(insn, v->r);
    lockstep->undefined &= ~xlate_flag_use(insn).writes;
    lockstep->undefined |= soft_undefined_flags(insn, v->r);
    soft_exec[insn->id](v, insn);
    v->rip = v->next_rip;
}

/* A call whose target has no code yet is left to the interpreter after its push: that is not seen
   to be undone in memory, and the call will push the same again. */
static void look_for_push(struct soft_vcpu *v)
{
    struct insn insn;
    struct walk walk;
    uint64_t at = v->r[X86_RSP] - 8;
    soft_fetch_insn(v, &insn);
    if (insn.id != I_CALL || !soft_canonical(at) ||
        !soft_walk_try(v, at, ACC_READ, v->cpl == 3, &walk))
        return;
    const struct soft_ram *ram = soft_ram_find(v->vm->mem, walk.gpa);
    if (ram)
        v->lockstep->pushed = soft_ram_host(ram, walk.gpa);
}

static void find_pushed(struct soft_vcpu *v)
{
    jmp_buf outer;
    v->lockstep->pushed = NULL;
    memcpy(&outer, &v->unwind, sizeof(outer));
    if (!setjmp(v->unwind)) /* nobody has come there yet: it may fault */
        look_for_push(v);
    memcpy(&v->unwind, &outer, sizeof(outer));
}

/* Gives up where somebody has waited for the vCPU for long: for what it does in a second a shadow
   takes minutes. */
static void end_in_time(struct soft_vcpu *v, uint64_t began)
{
    if (!atomic_load(&v->events) || clock_now_ns() - began <= PATIENCE_NS)
        return;
    v->lockstep->unsure = true;
    stray(v, "no end in time");
}

/* False when it raised or strayed; `why` says so. */
static bool run_shadow(struct soft_vcpu *v, uint64_t count)
{
    struct lockstep *lockstep = v->lockstep;
    jmp_buf outer;
    memcpy(&outer, &v->unwind, sizeof(outer));
    lockstep->undefined = 0;
    lockstep->unsure = false;
    lockstep->steps = 0;
    uint64_t began = clock_now_ns();
    int why = setjmp(v->unwind);
    if (!why) {
        for (uint64_t i = 0; i < count; i++) {
            shadow_step(v);
            if (i % 4096 == 4095)
                end_in_time(v, began);
        }
    } else if (why == 1) {
        snprintf(lockstep->why, sizeof(lockstep->why),
                 "the interpreter raised vector %d, error %#x at %#llx, cr2 %#llx", v->raised,
                 v->raised_error, (unsigned long long)v->rip, (unsigned long long)v->cr2);
    }
    soft_split_drop(v); /* should it have ended within an atomic */
    memcpy(&v->unwind, &outer, sizeof(outer));
    return !why;
}

/* ---- comparison ---- */

/*
 * Of the flags in `open`, those that the code at `rip` reads before it writes them. It looks at
 * least as far as the translator does; what it does not find out counts as not read.
 */
static uint32_t flags_read(struct soft_vcpu *v, uint64_t rip, uint32_t open, unsigned *budget)
{
    uint32_t live = 0;
    for (; open && *budget; --*budget) {
        struct insn insn;
        v->rip = rip;
        soft_fetch_insn(v, &insn);
        if (!xlate_handles(&insn))
            return live | open;
        struct flag_use use = xlate_flag_use(&insn);
        live |= use.reads & open;
        open &= ~(use.reads | use.writes);
        rip += insn.len;
        if (insn.id == I_JCC)
            live |= flags_read(v, rip + insn.imm, open, budget);
        else if (insn.id == I_JMP || insn.id == I_CALL)
            rip += insn.imm;
        else if (insn.flags & INSN_F_END)
            return live | open;
    }
    return live;
}

/* Flags in which the two may not differ; the others may be stale (xlate.h). */
static uint32_t live_flags(struct soft_vcpu *v, uint32_t different)
{
    jmp_buf outer;
    uint64_t rip = v->rip;
    unsigned budget = 512;
    volatile uint32_t live = 0;
    memcpy(&outer, &v->unwind, sizeof(outer));
    if (!setjmp(v->unwind))
        live = flags_read(v, rip, different, &budget);
    v->rip = rip;
    memcpy(&v->unwind, &outer, sizeof(outer));
    return live;
}

/* `what` with its number differs if the two do. */
static bool differs(struct lockstep *lockstep, const char *what, uint64_t number, uint64_t native,
                    uint64_t shadow)
{
    if (likely(native == shadow))
        return false;
    snprintf(lockstep->why, sizeof(lockstep->why), "%s %#llx is %#llx, the interpreter has %#llx",
             what, (unsigned long long)number, (unsigned long long)native,
             (unsigned long long)shadow);
    return true;
}

/* A walk of the one side set A or D in an entry that the other side's copy has without it. */
static bool only_accessed(const uint8_t *a, const uint8_t *b, unsigned offset)
{
    return offset % 8 == 0 && !((a[offset] ^ b[offset]) & ~PTE_AD);
}

static bool pages_differ(struct lockstep *lockstep, const struct soft_mem *mem)
{
    for (unsigned i = 0; i < lockstep->count; i++) {
        const struct page *page = &lockstep->pages[i];
        if (likely(!memcmp(page->host, page->copy, GUEST_PAGE_SIZE)))
            continue;
        for (unsigned j = 0; j < GUEST_PAGE_SIZE; j++) {
            if (page->host[j] == page->copy[j] || only_accessed(page->host, page->copy, j) ||
                (uintptr_t)(page->host + j - lockstep->pushed) < 8)
                continue;
            return differs(lockstep, "the byte at physical", soft_host_gpa(mem, page->host) + j,
                           page->host[j], page->copy[j]);
        }
    }
    return false;
}

static bool state_differs(struct soft_vcpu *v, struct window_state *native)
{
    struct lockstep *lockstep = v->lockstep;
    soft_mxcsr_leave(v);
    uint32_t shadow_flags = cc_compute(v);
    if (differs(lockstep, "rip behind", lockstep->start, native->rip, v->rip) ||
        differs(lockstep, "rflags without", FL_ARITH, native->rflags & ~FL_RF, v->rflags & ~FL_RF))
        return true;
    for (unsigned i = 0; i < 16; i++)
        if (differs(lockstep, "register", i, native->r[i], v->r[i]))
            return true;
    for (unsigned i = 0; i < VECTOR_STATE; i += 8)
        if (differs(lockstep, "XSAVE image at", i, get_le64(native->vectors + i),
                    get_le64(v->xsave + i)))
            return true;
    struct window_state shadow;
    save(v, &shadow);
    restore(v, native);
    uint32_t native_flags = cc_compute(v);
    restore(v, &shadow);
    uint32_t different = (native_flags ^ shadow_flags) & ~lockstep->undefined;
    if (likely(!different))
        return false;
    uint32_t live = live_flags(v, different);
    return differs(lockstep, "flags of the live ones", live, native_flags & live,
                   shadow_flags & live);
}

static void report_recent(const struct lockstep *lockstep)
{
    uint64_t first = lockstep->steps > RECENT ? lockstep->steps - RECENT : 0;
    for (uint64_t i = first; i < lockstep->steps; i++) {
        uint64_t rip = lockstep->recent_rip[i % RECENT];
        const struct insn *insn = &lockstep->decoded[rip % DECODED];
        char text[2 * INSN_MAX + 1] = "";
        for (unsigned j = 0; j < insn->len; j++)
            snprintf(text + 2 * j, 3, "%02x", insn->raw[j]);
        log_error("lockstep: %#llx %s (%s)", (unsigned long long)rip, text, decode_name(insn->id));
    }
}

static void report(struct soft_vcpu *v, uint64_t count, bool stale)
{
    struct lockstep *lockstep = v->lockstep;
    report_recent(lockstep);
    log_error("lockstep: %llu instructions from %#llx: %s", (unsigned long long)count,
              (unsigned long long)lockstep->start, lockstep->why);
    for (unsigned i = 0; i < 16; i++)
        log_error("lockstep: register %2u: before %016llx, translated %016llx", i,
                  (unsigned long long)lockstep->before.r[i],
                  (unsigned long long)lockstep->native.r[i]);
    soft_fail(v, "lockstep%s: translated code from %#llx: %.100s",
              stale ? " beside a stale translation" : "", (unsigned long long)lockstep->start,
              lockstep->why);
}

/* Instructions of its block that stand before the op. */
static unsigned position(const struct op *next)
{
    return next->fn == op_fallthrough ? next->n : MAX(next->n, 1u) - 1u;
}

/* Has a device written since the window opened, or is it about to have? */
static bool device_wrote(const struct soft_vcpu *v)
{
    bool busy;
    if (v->lockstep->behind)
        return true;
    for (unsigned ms = 0; gmem_writes(v->vm->gmem, &busy) == v->lockstep->writes; ms++) {
        if (ms >= (busy ? BORROW_MS : DEVICE_MS))
            return false;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return true;
}

/* May the two differ in this window without a fault of either? */
static bool excused(const struct soft_vcpu *v)
{
    const struct lockstep *lockstep = v->lockstep;
    if (lockstep->full || lockstep->unsure || lockstep->reads_marked)
        return true;
    if (!device_wrote(v))
        return false;
    log_info("lockstep: a device wrote to RAM beside the code from %#llx: %s",
             (unsigned long long)lockstep->start, lockstep->why);
    return true;
}

/* Runs the shadow over the window and compares. *rip becomes where it ended; *stale, after a
   difference, whether the native side has a translation that the shadow's tables do not give. */
static bool window_agrees(struct soft_vcpu *v, uint64_t count, uint64_t *rip, bool *stale)
{
    struct lockstep *lockstep = v->lockstep;
    struct soft_space *space = v->space;
    uint64_t cr2 = v->cr2;
    lockstep->phase = PHASE_SHADOW;
    v->space = lockstep->space;
    restore(v, &lockstep->before);
    v->rip = lockstep->start;
    bool same = run_shadow(v, count);
    if (same)
        find_pushed(v);
    same = same && !state_differs(v, &lockstep->native) && !pages_differ(lockstep, v->vm->mem);
    if (unlikely(!same)) {
        look_for_marked(lockstep);
        *stale = soft_space_stale(v, space);
    }
    *rip = v->rip;
    v->cr2 = cr2;
    restore(v, &lockstep->native);
    lockstep->phase = PHASE_OFF;
    v->space = space;
    soft_space_flush(v, lockstep->space);
    return same;
}

void lockstep_check(struct soft_vcpu *v, const struct op *next)
{
    struct lockstep *lockstep = v->lockstep;
    save(v, &lockstep->native);
    lockstep->native.rip = next ? v->r[R_BLOCK] + next->off : v->rip;
    bool unknown = lockstep->full || (next && next->fn == op_dead && !next->len);
    uint64_t count = lockstep->native.icount - lockstep->before.icount +
                     (next ? position(next) : 0) - lockstep->position;
    if (likely(!unknown)) {
        uint64_t rip;
        bool stale = false;
        if (unlikely(!window_agrees(v, count, &rip, &stale)) && !excused(v)) {
            stale = stale || soft_space_stale(v, v->space);
            v->rip = rip;
            report(v, count, stale);
        }
        v->stats.lockstep += count;
    }
    lockstep->phase = PHASE_OFF;
    v->rip = next ? v->rip : lockstep->native.rip;
}
