/*
 * Compares what the engine did with what the bare CPU did.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "differential.h"

#include <string.h>

#include "accel/soft/interp/exec.h"
#include "accel/soft/simd/simd.h"

/* The instruction that faulted, or NULL. */
static const struct insn *faulting(const struct test_case *test, const struct outcome *native)
{
    for (unsigned i = 0; i < test->count; i++)
        if (native->out.rip == test->at + test->start[i])
            return &test->insn[i];
    return NULL;
}

static bool is_simd(const struct insn *insn, unsigned map, unsigned from, unsigned to)
{
    return insn && insn->id == I_SIMD && insn->map == map && insn->opcode >= from &&
           insn->opcode <= to;
}

/* Which of several faults comes first is the CPU's choice, and with an empty mask whether one does:
   MASKMOVQ, MASKMOVDQU, VCVTPS2PH (#XM or #PF), CMPS (its two operands), CALL to no canonical
   address (its push), ENTER (its levels). */
static bool unordered(const struct outcome *native, const struct insn *fault)
{
    int vector = native->vector;
    if (!fault || (vector != VEC_PF && vector != VEC_GP && vector != VEC_SS && vector != VEC_XM &&
                   vector != VEC_AC))
        return false;
    return is_simd(fault, 1, 0xf7, 0xf7) || is_simd(fault, 3, 0x1d, 0x1d) || fault->id == I_CMPS ||
           fault->id == I_CALLI || fault->id == I_ENTER;
}

/* An access across the end of the canonical addresses: its first page fault, or its #GP. */
static bool halves(const struct outcome *native, const struct outcome *soft)
{
    return (native->vector == VEC_GP || native->vector == VEC_SS) && soft->vector == VEC_PF &&
           soft->cr2 + 0x1000 > 0x800000000000;
}

struct diff {
    FILE *file;
    unsigned count;
};

static void field(struct diff *diff, const char *name, uint64_t in, uint64_t native, uint64_t soft)
{
    if (native == soft)
        return;
    diff->count++;
    if (diff->file)
        fprintf(diff->file, "    %-10s in %016llx  bare CPU %016llx  engine %016llx\n", name,
                (unsigned long long)in, (unsigned long long)native, (unsigned long long)soft);
}

static void bytes(struct diff *diff, const char *name, unsigned number, unsigned size,
                  const uint8_t *in, const uint8_t *native, const uint8_t *soft)
{
    if (!memcmp(native, soft, size))
        return;
    diff->count++;
    if (!diff->file)
        return;
    const uint8_t *values[3] = {in, native, soft};
    static const char *const labels[3] = {"in", "bare CPU", "engine"};
    for (unsigned i = 0; i < 3; i++) {
        fprintf(diff->file, "    %s%u %-9s ", name, number, labels[i]);
        for (unsigned j = size; j-- > 0;)
            fprintf(diff->file, "%02x", values[i][j]);
        fputc('\n', diff->file);
    }
}

/* Arithmetic flags that mean nothing at the case's end. */
static uint32_t ignored_flags(const struct test_case *test, const struct outcome *native)
{
    bool finished = native->out.rip == test->at + test->length;
    if (test->count == 1)
        return finished ? soft_undefined_flags(&test->insn[0], test->in.gpr) : 0;
    /* A debug trap may come between an instruction and what defines its flags again; and flags
       that nobody reads may be stale in a fault's frame (xlate.h). */
    return finished ? 0 : FL_ARITH;
}

static void compare_exception(struct diff *diff, const struct outcome *native,
                              const struct outcome *soft, const struct insn *fault)
{
    field(diff, "vector", 0, (uint64_t)native->vector, (uint64_t)soft->vector);
    if (native->vector != soft->vector || !soft_vector_has_error(native->vector))
        return;
    /* Of the upper half, and the last page below it, Linux tells user code nothing. */
    uint64_t hidden = native->vector == VEC_PF && native->cr2 >= 0x7ffffffff000 ? 1 : 0;
    bool wide = fault && (fault->id == I_FXSAVE || fault->id == I_FXRSTOR || fault->id == I_X87);
    if (native->vector == VEC_PF && wide)
        return; /* which of two bad pages */
    field(diff, "error", 0, native->error | hidden, soft->error | hidden);
    /* Masked moves and gathers: which of their bytes is named. */
    bool masked = is_simd(fault, 2, 0x2c, 0x2f) || is_simd(fault, 2, 0x8c, 0x93);
    if (native->vector == VEC_PF)
        field(diff, "cr2", 0, native->cr2 & ~(masked ? 0xfffull : 0),
              soft->cr2 & ~(masked ? 0xfffull : 0));
}

/* Control, status and tags; FIP and FDP, of which CPUs keep no more than an address's bits. */
static void compare_x87(struct diff *diff, const uint8_t *in, const uint8_t *native,
                        const uint8_t *soft)
{
    static const struct {
        const char *name;
        uint8_t at, size;
    } fields[] = {{"fcw", XS_FCW, 2}, {"fsw", XS_FSW, 2}, {"ftw", XS_FTW, 1},
                  {"fop", XS_FOP, 2}, {"fip", XS_FIP, 6}, {"fdp", XS_FDP, 6}};
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        unsigned at = fields[i].at, size = fields[i].size;
        field(diff, fields[i].name, get_le(in + at, size), get_le(native + at, size),
              get_le(soft + at, size));
    }
}

static void compare_xstate(struct diff *diff, const uint8_t *in, const uint8_t *native,
                           const uint8_t *soft, const struct insn *fault)
{
    /* An MMX instruction that faults: it may have made the transition from x87. A gather: it may
       have gathered some. */
    bool mmx = fault && fault->id == I_SIMD && simd_is_mmx(fault),
         gather = is_simd(fault, 2, 0x90, 0x93);
    field(diff, "mxcsr", get_le32(in + XS_MXCSR), get_le32(native + XS_MXCSR),
          get_le32(soft + XS_MXCSR));
    if (!mmx)
        compare_x87(diff, in, native, soft);
    for (unsigned i = 0; i < 8 && !mmx; i++)
        bytes(diff, "st", i, 10, in + XS_ST + 16 * i, native + XS_ST + 16 * i,
              soft + XS_ST + 16 * i);
    for (unsigned i = 0; i < 16; i++) {
        if (gather && (i == fault->reg || i == fault->vex_v))
            continue;
        bytes(diff, "xmm", i, 16, in + XS_XMM + 16 * i, native + XS_XMM + 16 * i,
              soft + XS_XMM + 16 * i);
        bytes(diff, "ymmh", i, 16, in + XS_YMM + 16 * i, native + XS_YMM + 16 * i,
              soft + XS_YMM + 16 * i);
    }
}

/* A save of FIP and FDP that were loaded at random: how many of their bits a CPU keeps is its own
   affair (57 of FIP and all of FDP, or 48 of both). */
static bool pointers_copied(const struct test_case *test)
{
    bool loaded = false;
    for (unsigned i = 0; i < test->count; i++) {
        enum insn_id id = test->insn[i].id;
        loaded |= id == I_FXRSTOR || id == I_XRSTOR;
        if (loaded && (id == I_FXSAVE || id == I_XSAVE || id == I_XSAVEOPT || id == I_XSAVEC))
            return true;
    }
    return false;
}

static void compare_memory(struct diff *diff, const struct test_case *test,
                           const struct outcome *native, const struct outcome *soft,
                           const struct insn *fault)
{
    /* A wide save across pages: parts may be stored already. */
    if (fault && (fault->id == I_FXSAVE || fault->id == I_X87))
        return;
    if (!memcmp(native->data, soft->data, DATA_SIZE) || pointers_copied(test))
        return;
    for (unsigned i = 0; i < DATA_SIZE; i += 8)
        if (memcmp(native->data + i, soft->data + i, 8)) {
            char name[16];
            snprintf(name, sizeof(name), "%#x", DATA_AT + i);
            field(diff, name, get_le64(test->data + i), get_le64(native->data + i),
                  get_le64(soft->data + i));
        }
}

unsigned outcome_compare(const struct test_case *test, const struct outcome *native,
                         const struct outcome *soft, FILE *file)
{
    static const char *const registers[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                              "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                              "r12", "r13", "r14", "r15"};
    static const char *const selectors[4] = {"ds", "es", "fs", "gs"};
    struct diff diff = {.file = file};
    const struct insn *fault = native->vector == VEC_BP ? NULL : faulting(test, native);
    if (unordered(native, fault) || halves(native, soft))
        return 0;
    compare_exception(&diff, native, soft, fault);
    if (lenient && native->vector != VEC_BP)
        return diff.count;
    field(&diff, "rip", test->in.rip, native->out.rip, soft->out.rip);
    uint64_t flags = (FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_AC | FL_ID) &
                     ~ignored_flags(test, native);
    field(&diff, "rflags", test->in.flags & flags, native->out.flags & flags,
          soft->out.flags & flags);
    for (unsigned i = 0; i < 16; i++)
        field(&diff, registers[i], test->in.gpr[i], native->out.gpr[i], soft->out.gpr[i]);
    field(&diff, "fs base", test->in.fs_base, native->out.fs_base, soft->out.fs_base);
    field(&diff, "gs base", test->in.gs_base, native->out.gs_base, soft->out.gs_base);
    for (unsigned i = 0; i < 4; i++)
        /* Linux may turn any null selector into 0 behind the program's back. */
        if (native->selector[i] > 3 || soft->selector[i] > 3)
            field(&diff, selectors[i], 0, native->selector[i], soft->selector[i]);
    compare_xstate(&diff, test->in.xstate, native->out.xstate, soft->out.xstate, fault);
    compare_memory(&diff, test, native, soft, fault);
    return diff.count;
}
