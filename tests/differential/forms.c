/*
 * The forms of instructions, found by walking the decode tables, so that no row is forgotten.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "differential.h"

#include <stdlib.h>
#include <string.h>

/* Why the form is not generated at all, or NULL. */
static const char *excluded_form(const struct form *form)
{
    switch (form->row->id) {
    case I_SYSCALL:
    case I_SYSENTER:
    case I_VMCALL:
        return "the host's kernel would answer";
    case I_INT:
        return form->row->op[0] == O_Ib ? NULL : "the host's kernel would answer";
    case I_RDTSC:
    case I_RDTSCP:
    case I_RDRAND:
    case I_RDSEED:
        return "another value each time";
    case I_CPUID:
    case I_RDPID:
    case I_RDPMC:
    case I_XGETBV:
    case I_SGDT:
    case I_SIDT:
    case I_SLDT:
    case I_STR:
    case I_SMSW:
    case I_LAR:
    case I_LSL:
    case I_VERR:
    case I_VERW:
        return "shows the host's system registers";
    case I_XSAVE:
    case I_XSAVEOPT:
    case I_XSAVEC:
    case I_XRSTOR:
        return "which state is initial is the CPU's choice; XRSTOR sees more of XCR0 there";
    case I_JMPFI:
    case I_CALLFI:
    case I_RETF:
    case I_IRET:
    case I_POPSEG:
    case I_LSS:
    case I_LFS:
    case I_LGS:
        return "segments are the host kernel's";
    case I_EMMS:
        return lenient ? "whether TOP becomes 0 is the maker's choice" : NULL;
    case I_UD:
        return "has no other outcome than #UD";
    default:
        return NULL;
    }
}

static void add(struct forms *forms, const struct form *form)
{
    if (forms->count % 256 == 0)
        forms->form = xrealloc(forms->form, forms->count + 256, sizeof(*forms->form));
    forms->form[forms->count] = *form;
    forms->form[forms->count++].excluded = excluded_form(form);
}

static void add_simd(struct forms *forms, struct form form, uint64_t features)
{
    const struct oprow *row = form.row;
    for (form.pp = 0; form.pp < 4; form.pp++) {
        if (row->mem[form.pp] == Z_NA)
            continue;
        if (row->mem[form.pp] == Z_R)
            form.mod = MOD_REG;
        else if (row->attr & A_MEM)
            form.mod = MOD_MEM;
        form.vex = false;
        form.vex_l = 0;
        if (!(row->attr & A_VEX))
            add(forms, &form);
        if (!(features >> FEAT_AVX & 1))
            continue;
        form.vex = true;
        for (form.vex_l = 0; form.vex_l < 2; form.vex_l++)
            add(forms, &form);
    }
}

static void walk(struct forms *forms, struct form form, const struct oprow *row, uint64_t features);

static void walk_sub(struct forms *forms, struct form form, const struct oprow *row,
                     uint64_t features)
{
    switch (row->kind) {
    case ROW_GROUP:
        for (form.reg = 0; form.reg < 8; form.reg++)
            walk(forms, form, &row->sub[form.reg], features);
        break;
    case ROW_PREFIX:
        for (form.pp = 0; form.pp < 4; form.pp++)
            walk(forms, form, &row->sub[form.pp], features);
        break;
    case ROW_MODREG:
        form.mod = MOD_MEM;
        walk(forms, form, &row->sub[0], features);
        form.mod = MOD_REG;
        walk(forms, form, &row->sub[1], features);
        break;
    case ROW_RM:
        form.mod = MOD_REG;
        for (form.rm = 0; form.rm < 8; form.rm++)
            walk(forms, form, &row->sub[form.rm], features);
        break;
    default: /* ROW_MODE */
        walk(forms, form, &row->sub[1], features);
        break;
    }
}

static void walk(struct forms *forms, struct form form, const struct oprow *row, uint64_t features)
{
    form.row = row;
    if (row->kind == ROW_BAD)
        return;
    if (row->kind != ROW_INSN && row->kind != ROW_SIMD) {
        walk_sub(forms, form, row, features);
        return;
    }
    if (row->attr & A_NO64 || (row->feature && !(features >> row->feature & 1)))
        return;
    if (row->kind == ROW_SIMD) {
        add_simd(forms, form, features);
        return;
    }
    if (row->attr & A_MEM)
        form.mod = MOD_MEM;
    form.vex = row->attr & A_VEX;
    if (form.vex && form.pp < 0)
        form.pp = 0;
    add(forms, &form);
    if ((row->id == I_LDMXCSR || row->id == I_STMXCSR) && features >> FEAT_AVX & 1) {
        form.vex = true;
        form.pp = 0;
        add(forms, &form);
    }
}

void forms_make(struct forms *forms, uint64_t features)
{
    static const struct oprow *const maps[] = {optable_one, optable_0f, optable_0f38, optable_0f3a};
    *forms = (struct forms){0};
    for (unsigned map = 0; map < 4; map++)
        for (unsigned opcode = 0; opcode < 256; opcode++)
            walk(forms, (struct form){.map = map, .opcode = opcode, .pp = -1, .reg = -1, .rm = -1},
                 &maps[map][opcode], features);
}

void forms_probe(struct forms *forms)
{
    static struct test_case test;
    static struct outcome out;
    for (unsigned i = 0; i < forms->count; i++) {
        struct form *form = &forms->form[i];
        if (form->excluded)
            continue;
        /* Bit 0 and 1: with W 0 and 1; 2 and 3: the same with VEX.vvvv. */
        unsigned known = 0;
        form->second = form->vex;
        form->w = 3;
        for (unsigned try = 1; try <= (form->vex ? 40u : 12u); try++) {
            case_make(&test, forms, form, try * 0x9e3779b9u, 0);
            native_run(&test, &out);
            const struct insn *insn = &test.insn[0];
            if (out.vector != VEC_UD)
                known |= 1u << ((insn->vex_v ? 2 : 0) | (insn->rex >> 3 & 1));
        }
        form->undefined = !known;
        form->second = known & 12;
        form->w = known ? (known | known >> 2) & 3 : 3;
    }
    memset(test.code, 0xcc, SLOT);
    test.length = SLOT;
    native_run(&test, &out); /* leaves no trace in the code */
}

const char *feature_name(unsigned feature)
{
    static const char *const names[] = {
        [FEAT_NONE] = "integer",
        [FEAT_X87] = "x87",
        [FEAT_MMX] = "mmx",
        [FEAT_SSE] = "sse",
        [FEAT_SSE2] = "sse2",
        [FEAT_SSE3] = "sse3",
        [FEAT_SSSE3] = "ssse3",
        [FEAT_SSE41] = "sse4.1",
        [FEAT_SSE42] = "sse4.2",
        [FEAT_AES] = "aes",
        [FEAT_PCLMUL] = "pclmulqdq",
        [FEAT_SHA] = "sha",
        [FEAT_GFNI] = "gfni",
        [FEAT_AVX] = "avx",
        [FEAT_AVX2] = "avx2",
        [FEAT_FMA] = "fma",
        [FEAT_F16C] = "f16c",
        [FEAT_AVX_VNNI] = "avx_vnni",
        [FEAT_FXSR] = "fxsr",
        [FEAT_XSAVE] = "xsave",
        [FEAT_XSAVEOPT] = "xsaveopt",
        [FEAT_XSAVEC] = "xsavec",
        [FEAT_CX8] = "cx8",
        [FEAT_CX16] = "cx16",
        [FEAT_CMOV] = "cmov",
        [FEAT_MOVBE] = "movbe",
        [FEAT_POPCNT] = "popcnt",
        [FEAT_LZCNT] = "lzcnt",
        [FEAT_BMI1] = "bmi1",
        [FEAT_BMI2] = "bmi2",
        [FEAT_ADX] = "adx",
        [FEAT_RDRAND] = "rdrand",
        [FEAT_RDSEED] = "rdseed",
        [FEAT_RDTSCP] = "rdtscp",
        [FEAT_RDPID] = "rdpid",
        [FEAT_FSGSBASE] = "fsgsbase",
        [FEAT_INVPCID] = "invpcid",
        [FEAT_CLFLUSH] = "clflush",
        [FEAT_CLFLUSHOPT] = "clflushopt",
        [FEAT_CLWB] = "clwb",
        [FEAT_SYSCALL] = "syscall",
        [FEAT_SEP] = "sep",
        [FEAT_SERIALIZE] = "serialize",
    };
    return feature < ARRAY_SIZE(names) && names[feature] ? names[feature] : "other";
}

static void describe(const struct form *form)
{
    printf("  %s%x:%02x", form->vex ? (form->vex_l ? "vex.256 " : "vex.128 ") : "", form->map,
           form->opcode);
    if (form->pp >= 0)
        printf(" prefix %d", form->pp);
    if (form->reg >= 0)
        printf(" /%d", form->reg);
    if (form->rm >= 0)
        printf(" rm %d", form->rm);
    printf(" %s", decode_name(form->row->id));
}

void forms_report(const struct forms *forms)
{
    struct {
        unsigned forms, executed, excluded;
        uint64_t cases, finished;
    } sum[64] = {{0}};
    for (unsigned i = 0; i < forms->count; i++) {
        const struct form *form = &forms->form[i];
        unsigned feature = form->row->feature;
        sum[feature].forms++;
        sum[feature].excluded += form->excluded != NULL;
        sum[feature].executed += form->finished != 0;
        sum[feature].cases += form->cases;
        sum[feature].finished += form->finished;
    }
    printf("%-12s %6s %9s %9s %12s %12s\n", "extension", "forms", "executed", "excluded",
           "instructions", "finished");
    for (unsigned i = 0; i < ARRAY_SIZE(sum); i++)
        if (sum[i].forms)
            printf("%-12s %6u %9u %9u %12llu %12llu\n", feature_name(i), sum[i].forms,
                   sum[i].executed, sum[i].excluded, (unsigned long long)sum[i].cases,
                   (unsigned long long)sum[i].finished);
    puts("never finished without an exception:");
    for (unsigned i = 0; i < forms->count; i++) {
        const struct form *form = &forms->form[i];
        if (form->finished)
            continue;
        describe(form);
        if (form->excluded)
            printf(": not generated, %s\n", form->excluded);
        else
            printf(": %llu faulted\n", (unsigned long long)form->cases);
    }
}
