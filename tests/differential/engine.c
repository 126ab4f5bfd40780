/*
 * Cases on the software engine: one vCPU for each way of execution, with paging that shows user
 * code what the process shows it on the bare CPU, on scattered physical pages, and an IDT whose
 * handlers end the run.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "differential.h"

#include "../unit/accel/soft_rig.h"

#include "accel/soft/simd/simd.h"
#include "values.h"

#define KERNEL 0xffffffff80000000ull /* linear address of physical 0, for the supervisor */
#define TABLES 0x30000u
#define HANDLERS 0xc000u /* 16 bytes a vector */
#define ENTRY 0xd000u    /* IRETQ */
#define FRAME 0x7f000u   /* its frame */
#define CODE_GPA 0x200000u
#define READ_ONLY_GPA 0x401000u

/* Never reached: one enabled breakpoint makes the engine run instruction by instruction. */
#define FAR_BREAKPOINT 0x6000000000ull

static const uint32_t data_gpa[2] = {0x400000, 0x403000};

struct engine {
    struct rig *rig;
    enum engine_kind kind;
    struct x86_state *state; /* at privilege level 0, before the IRETQ */
};

static struct engine *volatile running;

static uint64_t user_page(uint64_t gpa, bool writable, bool code)
{
    return gpa | 0x65 | (writable ? 2 : 0) | (code ? 0 : 1ull << 63); /* present, user, A, D */
}

static void build_tables(uint8_t *ram)
{
    uint8_t *at = ram + TABLES;
    memset(at, 0, 0x8000);
    put_le64(at, (TABLES + 0x1000) | 7);
    put_le64(at + 511 * 8, (TABLES + 0x5000) | 3);
    put_le64(at + 0x1000, (TABLES + 0x2000) | 7);
    put_le64(at + 0x5000 + 510 * 8, (TABLES + 0x6000) | 3);
    put_le64(at + 0x6000, 0x183); /* 2 MiB, global, supervisor */
    put_le64(at + 0x2000 + (CODE_AT >> 21) * 8, (TABLES + 0x3000) | 7);
    put_le64(at + 0x2000 + (DATA_AT >> 21) * 8, (TABLES + 0x4000) | 7);
    for (unsigned i = 0; i < CODE_SIZE >> 12; i++)
        put_le64(at + 0x3000 + 8 * i, user_page(CODE_GPA + (i << 12), false, true));
    put_le64(at + 0x4000, user_page(data_gpa[0], true, false));
    put_le64(at + 0x4008, user_page(data_gpa[1], true, false));
    put_le64(at + 0x4010, user_page(READ_ONLY_GPA, false, false));
}

/* Selectors as Linux has them, so that loads of them agree. */
static void build_descriptors(uint8_t *ram)
{
    static const uint64_t gdt[16] = {0,
                                     0x00cf9b000000ffff,
                                     0x00af9b000000ffff,
                                     0x00cf93000000ffff,
                                     0x00cffb000000ffff,
                                     0x00cff3000000ffff,
                                     0x00affb000000ffff,
                                     [15] = 0x0040f50000000000 /* the CPU's number */};
    for (unsigned i = 0; i < ARRAY_SIZE(gdt); i++)
        put_le64(ram + RIG_GDT + 8 * i, gdt[i]);
    put_le64(ram + RIG_TSS + 4, KERNEL + RIG_STACK);
    put_le16(ram + RIG_TSS + 102, 104);
    for (unsigned vector = 0; vector < 32; vector++) {
        uint64_t handler = KERNEL + HANDLERS + 16 * vector;
        uint8_t type = vector == VEC_BP || vector == VEC_OF ? 0xee : 0x8e;
        uint8_t *gate = ram + RIG_IDT + vector * 16;
        static const uint8_t code[] = {RIG_END};
        put_le64(gate, (handler & 0xffff) | 0x10ull << 16 | (uint64_t)type << 40 |
                           (handler >> 16 & 0xffff) << 48);
        put_le64(gate + 8, handler >> 32);
        memcpy(ram + HANDLERS + 16 * vector, code, sizeof(code));
    }
    for (unsigned vector = 32; vector < 256; vector++) /* not for INT n */
        put_le64(ram + RIG_IDT + vector * 16, 0x10ull << 16 | 0x8e00ull << 32);
    put_le16(ram + ENTRY, 0xcf48);
}

static void set_state(struct engine *engine)
{
    struct x86_state *s = engine->state;
    rig_ok(accel_soft.vcpu_get(engine->rig->vcpu, s));
    struct x86_segment code = {.limit = ~0u, .attr = 0xa09b, .selector = 0x10};
    struct x86_segment stack = {.limit = ~0u, .attr = 0xc093, .selector = 0x18};
    s->seg[X86_CS] = code;
    s->seg[X86_SS] = stack;
    s->gdt = (struct x86_table_register){.base = KERNEL + RIG_GDT, .limit = 127};
    s->idt = (struct x86_table_register){.base = KERNEL + RIG_IDT, .limit = 4095};
    s->tr.base = KERNEL + RIG_TSS;
    s->ldt = (struct x86_segment){.attr = X86_ATTR_UNUSABLE};
    s->cr0 |= CR0_WP | (values_alignment() ? CR0_AM : 0);
    s->cr4 |= CR4_PGE | CR4_OSXSAVE | CR4_FSGSBASE;
    s->cr3 = TABLES;
    s->xcr0 = 7;
    if (engine->kind == ENGINE_STEP) {
        s->dr[0] = FAR_BREAKPOINT;
        s->dr[7] = 0x402;
    }
    rig_ok(accel_soft.vcpu_set(engine->rig->vcpu, s));
}

struct engine *engine_new(enum engine_kind kind)
{
    struct engine *engine = xcalloc(1, sizeof(*engine));
    engine->rig = rig_new();
    engine->kind = kind;
    engine->state = xcalloc(1, sizeof(*engine->state));
    engine->rig->v->vm->xlate_after = kind == ENGINE_TRANSLATED;
    build_tables(engine->rig->ram);
    build_descriptors(engine->rig->ram);
    memset(engine->rig->ram + CODE_GPA, 0xcc, CODE_SIZE);
    case_read_only(engine->rig->ram + READ_ONLY_GPA);
    set_state(engine);
    return engine;
}

void engine_free(struct engine *engine)
{
    rig_free(engine->rig);
    free(engine->state);
    free(engine);
}

uint64_t engine_features(const struct engine *engine)
{
    return engine->rig->v->features;
}

void engine_flush(struct engine *engine)
{
    soft_code_flush(engine->rig->v);
}

void engine_interrupt(void)
{
    struct engine *engine = running;
    if (engine)
        accel_soft.vcpu_kick(engine->rig->vcpu);
}

static void data_segment(struct soft_vcpu *v, unsigned seg, uint16_t selector, uint64_t base)
{
    struct x86_segment value = {.base = base,
                                .selector = selector,
                                .limit = selector ? ~0u : 0,
                                .attr = selector ? 0xc0f3 : X86_ATTR_UNUSABLE};
    soft_set_seg(v, seg, &value);
}

static void load(struct engine *engine, const struct test_case *test)
{
    struct rig *rig = engine->rig;
    struct soft_vcpu *v = rig->v;
    memcpy(rig->ram + CODE_GPA + (test->at - CODE_AT), test->code, test->length);
    for (unsigned i = 0; i < 2; i++)
        memcpy(rig->ram + data_gpa[i], test->data + 4096 * i, 4096);
    const uint64_t frame[5] = {test->in.rip, 0x33, test->in.flags, test->in.gpr[X86_RSP], 0x2b};
    for (unsigned i = 0; i < 5; i++)
        put_le64(rig->ram + FRAME + 8 * i, frame[i]);
    memcpy(v->r, test->in.gpr, sizeof(test->in.gpr));
    v->r[X86_RSP] = KERNEL + FRAME;
    v->rip = KERNEL + ENTRY;
    soft_set_flags(v, 2);
    memcpy(v->xsave, test->in.xstate, XSTATE_SIZE);
    put_le32(v->xsave + XS_MXCSR_MASK, MXCSR_VALID);
    data_segment(v, X86_DS, 0x2b, 0);
    data_segment(v, X86_ES, 0x2b, 0);
    data_segment(v, X86_FS, 0, test->in.fs_base);
    data_segment(v, X86_GS, 0, test->in.gs_base);
    v->cr2 = 0;
}

/* The vector whose handler ran. */
static int vector_of(const struct soft_vcpu *v)
{
    uint64_t at = v->rip - (KERNEL + HANDLERS);
    return at < 32 * 16 && v->cpl == 0 ? (int)(at / 16) : OUTCOME_ENDLESS;
}

static void unload(struct engine *engine, struct outcome *out)
{
    struct rig *rig = engine->rig;
    struct soft_vcpu *v = rig->v;
    memcpy(out->out.gpr, v->r, sizeof(out->out.gpr));
    memcpy(out->out.xstate, v->xsave, XSTATE_SIZE);
    const uint8_t *frame = rig->ram + RIG_STACK - 40;
    out->vector = vector_of(v);
    out->error = 0;
    if (out->vector >= 0 && soft_vector_has_error(out->vector))
        out->error = get_le64(frame - 8);
    out->out.rip = get_le64(frame);
    out->out.flags = get_le64(frame + 16);
    out->out.gpr[X86_RSP] = get_le64(frame + 24);
    out->out.fs_base = v->seg[X86_FS].base;
    out->out.gs_base = v->seg[X86_GS].base;
    out->selector[0] = v->seg[X86_DS].selector;
    out->selector[1] = v->seg[X86_ES].selector;
    out->selector[2] = v->seg[X86_FS].selector;
    out->selector[3] = v->seg[X86_GS].selector;
    out->cr2 = v->cr2;
    for (unsigned i = 0; i < 2; i++)
        memcpy(out->data + 4096 * i, rig->ram + data_gpa[i], 4096);
}

void engine_run(struct engine *engine, const struct test_case *test, struct outcome *out)
{
    load(engine, test);
    running = engine;
    enum vm_exit_reason reason = rig_run(engine->rig);
    running = NULL;
    if (reason == VM_EXIT_KICKED)
        unload(engine, out);
    if (reason != VM_EXIT_KICKED || out->vector < 0) {
        out->vector = OUTCOME_ENDLESS;
        set_state(engine);
    }
    if (reason == VM_EXIT_ERROR)
        fprintf(stderr, "engine: %s\n", engine->rig->exit.error);
    /* A kick of the watchdog may have come too late. */
    atomic_store(&engine->rig->v->events, 0);
}
