/*
 * GDB stub: registers (GDB manual, E.2: g, G, p, P; G.5.15 i386 features).
 *
 * One table says what there is, in the order of the numbers that GDB gives: the description that
 * GDB reads and both directions of access follow from it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "ctl/gdb/gdb_internal.h"

/* Offsets in a standard XSAVE area (Intel SDM vol. 1, 13.4). */
#define XSAVE_FCW 0
#define XSAVE_FSW 2
#define XSAVE_FTW 4
#define XSAVE_FOP 6
#define XSAVE_FIP 8
#define XSAVE_FDP 16
#define XSAVE_MXCSR 24
#define XSAVE_ST 32
#define XSAVE_XMM 160
#define XSAVE_BV 512
#define XSAVE_YMM 576
#define XSAVE_X87 1u
#define XSAVE_SSE 2u
#define XSAVE_AVX 4u

#define REGISTER_MAX 16 /* bytes */

enum place {
    PLACE_STATE,   /* plain: `offset` in struct x86_state, `state_size` bytes there */
    PLACE_XSAVE,   /* likewise in the XSAVE area, of component `part` */
    PLACE_TAGS,    /* x87 tag word: the area has a bit a register, GDB wants two */
    PLACE_NOTHING, /* always 0: selectors of x87 pointers */
};

/* `count` registers "name0", "name1"...; 0: one, "name". `stride` apart. */
struct row {
    const char *name, *type, *group;
    uint16_t bits;
    uint8_t count, place, part, state_size;
    size_t offset, stride;
};

#define STATE(name, bits, type, group, field)                                                      \
    {                                                                                              \
        name, type, group, bits, 0, PLACE_STATE, 0, sizeof(((struct x86_state *)0)->field),        \
            offsetof(struct x86_state, field), 0                                                   \
    }
#define GPR(name, type, reg) STATE(name, 64, type, NULL, gpr[reg])
#define SELECTOR(name, which) STATE(name, 32, "int32", NULL, seg[which].selector)
#define X87(name, size, offset)                                                                    \
    {                                                                                              \
        name, "int", "float", 32, 0, PLACE_XSAVE, XSAVE_X87, size, offset, 0                       \
    }
#define X87_NOTHING(name)                                                                          \
    {                                                                                              \
        name, "int", "float", 32, 0, PLACE_NOTHING, 0, 0, 0, 0                                     \
    }
#define SYSTEM(name, field) STATE(name, 64, "uint64", "system", field)

static const struct row core[] = {
    GPR("rax", "int64", X86_RAX),
    GPR("rbx", "int64", X86_RBX),
    GPR("rcx", "int64", X86_RCX),
    GPR("rdx", "int64", X86_RDX),
    GPR("rsi", "int64", X86_RSI),
    GPR("rdi", "int64", X86_RDI),
    GPR("rbp", "data_ptr", X86_RBP),
    GPR("rsp", "data_ptr", X86_RSP),
    GPR("r8", "int64", X86_R8),
    GPR("r9", "int64", X86_R9),
    GPR("r10", "int64", X86_R10),
    GPR("r11", "int64", X86_R11),
    GPR("r12", "int64", X86_R12),
    GPR("r13", "int64", X86_R13),
    GPR("r14", "int64", X86_R14),
    GPR("r15", "int64", X86_R15),
    STATE("rip", 64, "code_ptr", NULL, rip),
    STATE("eflags", 32, "tenon_flags", NULL, rflags),
    SELECTOR("cs", X86_CS),
    SELECTOR("ss", X86_SS),
    SELECTOR("ds", X86_DS),
    SELECTOR("es", X86_ES),
    SELECTOR("fs", X86_FS),
    SELECTOR("gs", X86_GS),
    {"st", "i387_ext", "float", 80, 8, PLACE_XSAVE, XSAVE_X87, 10, XSAVE_ST, 16},
    X87("fctrl", 2, XSAVE_FCW),
    X87("fstat", 2, XSAVE_FSW),
    {"ftag", "int", "float", 32, 0, PLACE_TAGS, XSAVE_X87, 1, XSAVE_FTW, 0},
    X87_NOTHING("fiseg"),
    X87("fioff", 4, XSAVE_FIP),
    X87_NOTHING("foseg"),
    X87("fooff", 4, XSAVE_FDP),
    X87("fop", 2, XSAVE_FOP),
};

static const struct row sse[] = {
    {"xmm", "vec128", "vector", 128, 16, PLACE_XSAVE, XSAVE_SSE, 16, XSAVE_XMM, 16},
    {"mxcsr", "int", "vector", 32, 0, PLACE_XSAVE, 0, 4, XSAVE_MXCSR, 0},
};

static const struct row segments[] = {
    STATE("fs_base", 64, "int", NULL, seg[X86_FS].base),
    STATE("gs_base", 64, "int", NULL, seg[X86_GS].base),
};

static const struct row avx[] = {
    {"ymm", "uint128", "vector", 128, 16, PLACE_XSAVE, XSAVE_AVX, 16, XSAVE_YMM, 16},
};

static const struct row system_registers[] = {
    SYSTEM("cr0", cr0),
    SYSTEM("cr2", cr2),
    SYSTEM("cr3", cr3),
    SYSTEM("cr4", cr4),
    SYSTEM("cr8", cr8),
    SYSTEM("efer", efer),
    SYSTEM("k_gs_base", msr.kernel_gs_base),
    SYSTEM("gdt_base", gdt.base),
    SYSTEM("idt_base", idt.base),
    SYSTEM("tr_base", tr.base),
};

static const struct feature {
    const char *name;
    const char *types;  /* declarations, before the registers */
    const char *suffix; /* of its registers' names */
    const struct row *rows;
    size_t count;
} features[] = {
    {"org.gnu.gdb.i386.core",
     "<flags id=\"tenon_flags\" size=\"4\">"
     "<field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" end=\"1\"/>"
     "<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/>"
     "<field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/>"
     "<field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"IF\" start=\"9\" end=\"9\"/>"
     "<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/>"
     "<field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" start=\"16\" end=\"16\"/>"
     "<field name=\"VM\" start=\"17\" end=\"17\"/><field name=\"AC\" start=\"18\" end=\"18\"/>"
     "</flags>",
     "", core, ARRAY_SIZE(core)},
    {"org.gnu.gdb.i386.sse",
     "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
     "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
     "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
     "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
     "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
     "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
     "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
     "<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>"
     "<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
     "<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>",
     "", sse, ARRAY_SIZE(sse)},
    {"org.gnu.gdb.i386.segments", "", "", segments, ARRAY_SIZE(segments)},
    {"org.gnu.gdb.i386.avx", "", "h", avx, ARRAY_SIZE(avx)},
    {"org.tenon.i386.system", "", "", system_registers, ARRAY_SIZE(system_registers)},
};

/* ---- the description ---- */

static void describe_row(struct buf *xml, const struct feature *feature, const struct row *row)
{
    for (unsigned i = 0; i < MAX(row->count, 1u); i++) {
        buf_printf(xml, "<reg name=\"%s", row->name);
        if (row->count)
            buf_printf(xml, "%u", i);
        buf_printf(xml, "%s\" bitsize=\"%u\" type=\"%s\"", feature->suffix, row->bits, row->type);
        if (row->group)
            buf_printf(xml, " group=\"%s\"", row->group);
        buf_text(xml, "/>\n");
    }
}

void gdb_describe(struct buf *xml)
{
    buf_text(xml, "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
                  "<target>\n<architecture>i386:x86-64</architecture>\n");
    for (size_t f = 0; f < ARRAY_SIZE(features); f++) {
        buf_printf(xml, "<feature name=\"%s\">\n%s\n", features[f].name, features[f].types);
        for (size_t i = 0; i < features[f].count; i++)
            describe_row(xml, &features[f], &features[f].rows[i]);
        buf_text(xml, "</feature>\n");
    }
    buf_text(xml, "</target>\n");
}

/* ---- one register ---- */

struct reg {
    const struct row *row;
    unsigned index; /* of the row's */
};

/* Register number `number`; false behind the last one. */
static bool find(unsigned number, struct reg *reg)
{
    for (size_t f = 0; f < ARRAY_SIZE(features); f++) {
        for (size_t i = 0; i < features[f].count; i++) {
            const struct row *row = &features[f].rows[i];
            unsigned count = MAX(row->count, 1u);
            if (number < count) {
                *reg = (struct reg){row, number};
                return true;
            }
            number -= count;
        }
    }
    return false;
}

/* x87 tags: 0 valid, 1 zero, 2 special, 3 empty; of physical registers, while ST is relative. */
static uint16_t tags_get(const uint8_t *xsave)
{
    unsigned top = get_le16(xsave + XSAVE_FSW) >> 11 & 7;
    uint16_t tags = 0;

    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *st = xsave + XSAVE_ST + ((i - top) & 7) * 16;
        unsigned exponent = get_le16(st + 8) & 0x7fff, tag = 3;
        uint64_t mantissa = get_le64(st);
        if (xsave[XSAVE_FTW] >> i & 1)
            tag = exponent == 0x7fff || (mantissa >> 63) != !!exponent ? 2
                  : exponent || mantissa                               ? 0
                                                                       : 1;
        tags |= (uint16_t)(tag << (2 * i));
    }
    return tags;
}

static uint8_t tags_put(uint16_t tags)
{
    uint8_t present = 0;

    for (unsigned i = 0; i < 8; i++)
        if ((tags >> (2 * i) & 3) != 3)
            present |= (uint8_t)(1u << i);
    return present;
}

static size_t reg_get(const struct x86_state *state, const struct reg *reg, uint8_t *bytes)
{
    const struct row *row = reg->row;
    size_t offset = row->offset + reg->index * row->stride;
    uint64_t present = get_le64(state->xsave + XSAVE_BV);

    memset(bytes, 0, REGISTER_MAX);
    switch (row->place) {
    case PLACE_STATE:
        memcpy(bytes, (const uint8_t *)state + offset, MIN(row->state_size, row->bits / 8u));
        break;
    case PLACE_XSAVE:
        /* What the area does not hold above the legacy part is 0. */
        if (row->part != XSAVE_AVX || present & XSAVE_AVX)
            memcpy(bytes, state->xsave + offset, row->state_size);
        break;
    case PLACE_TAGS:
        put_le16(bytes, tags_get(state->xsave));
        break;
    default:
        break;
    }
    return row->bits / 8u;
}

static void reg_put(struct x86_state *state, const struct reg *reg, const uint8_t *bytes)
{
    const struct row *row = reg->row;
    size_t offset = row->offset + reg->index * row->stride;
    uint64_t present = get_le64(state->xsave + XSAVE_BV);

    switch (row->place) {
    case PLACE_STATE:
        memcpy((uint8_t *)state + offset, bytes, MIN(row->state_size, row->bits / 8u));
        return;
    case PLACE_XSAVE:
        if (row->part == XSAVE_AVX && !(present & XSAVE_AVX))
            memset(state->xsave + XSAVE_YMM, 0, 256);
        memcpy(state->xsave + offset, bytes, row->state_size);
        break;
    case PLACE_TAGS:
        state->xsave[XSAVE_FTW] = tags_put(get_le16(bytes));
        break;
    default:
        return;
    }
    put_le64(state->xsave + XSAVE_BV, present | row->part);
}

/*
 * The hidden parts of a segment stay: a selector that is written is only a number until the guest
 * loads it. So does the time that has passed since the state was read.
 */
static struct err *commit(struct gdb_server *gdb)
{
    struct x86_state *now = xcalloc(1, sizeof(*now));
    struct err *err = vm_cpu_get(gdb->vm, gdb->cpu, now);

    if (!err) {
        gdb->state.msr.tsc = now->msr.tsc;
        err = vm_cpu_set(gdb->vm, gdb->cpu, &gdb->state);
    }
    free(now);
    gdb->fresh = false;
    if (!err)
        gdb_answer(gdb, "OK");
    return err;
}

/* ---- packets ---- */

struct err *gdb_registers_read(struct gdb_server *gdb)
{
    uint8_t bytes[REGISTER_MAX];
    struct reg reg;

    TRY(gdb_state(gdb));
    for (unsigned number = 0; find(number, &reg); number++) {
        size_t len = reg_get(&gdb->state, &reg, bytes);
        gdb_answer_hex(gdb, bytes, len);
    }
    return NULL;
}

struct err *gdb_registers_write(struct gdb_server *gdb, const char *text)
{
    uint8_t bytes[REGISTER_MAX];
    struct reg reg;

    TRY(gdb_state(gdb));
    for (unsigned number = 0; find(number, &reg) && *text; number++) {
        size_t len = reg.row->bits / 8u;
        if (gdb_parse_hex(text, bytes, len) != len)
            return err_new("G: register %u is cut short", number);
        reg_put(&gdb->state, &reg, bytes);
        text += 2 * len;
    }
    return commit(gdb);
}

struct err *gdb_register_read(struct gdb_server *gdb, const char *text)
{
    uint8_t bytes[REGISTER_MAX];
    struct reg reg;
    uint64_t number;

    if (!gdb_parse_number(&text, &number) || number > 1000 || !find((unsigned)number, &reg))
        return err_new("there is no such register");
    TRY(gdb_state(gdb));
    size_t len = reg_get(&gdb->state, &reg, bytes);
    gdb_answer_hex(gdb, bytes, len);
    return NULL;
}

struct err *gdb_register_write(struct gdb_server *gdb, const char *text)
{
    uint8_t bytes[REGISTER_MAX];
    struct reg reg;
    uint64_t number;

    if (!gdb_parse_number(&text, &number) || number > 1000 || !find((unsigned)number, &reg) ||
        *text++ != '=')
        return err_new("there is no such register");
    size_t len = reg.row->bits / 8u;
    if (gdb_parse_hex(text, bytes, len) != len)
        return err_new("P: the value is cut short");
    TRY(gdb_state(gdb));
    reg_put(&gdb->state, &reg, bytes);
    return commit(gdb);
}
