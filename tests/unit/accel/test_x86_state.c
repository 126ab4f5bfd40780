/*
 * Architectural vCPU state: reset values, save and load, hostile streams.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "accel/x86_state.h"
#include "base/bytes.h"

static void save(struct x86_state *state, struct state_writer *writer)
{
    state_writer_init(writer);
    state_save(writer, &x86_state_table, "cpu0", state);
    state_writer_end(writer);
}

static struct err *load(const void *data, size_t len, struct x86_state *state)
{
    struct state_reader reader;
    TRY(state_reader_init(&reader, data, len));
    TRY(state_load(&reader, &x86_state_table, "cpu0", state));
    return state_reader_end(&reader);
}

/* A long-mode state with something in every field. */
static void busy_state(struct x86_state *s)
{
    x86_state_reset(s, 3, false);
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = 0x1111111111111111ull * i;
    s->rip = 0xffffffff81000000ull;
    s->rflags = 0x246;
    s->cr0 = 0x80050033;
    s->cr4 = 0x6f0;
    s->efer = 0xd01;
    s->xcr0 = 7;
    put_le64(s->xsave + 512, 7);
    s->seg[X86_GS].base = 0xffff888000000000ull;
    s->msr.lstar = 0xffffffff82000000ull;
    s->msr.mtrr_fixed[10] = 0x0606060606060606ull;
    s->msr.mtrr_mask[7] = 5;
    for (unsigned i = 32; i < 512 - 96; i++)
        s->xsave[i] = (uint8_t)(i * 7);
    s->interrupt_injected = true;
    s->interrupt_vector = 0x31;
    s->activity = X86_HALTED;
    s->sipi_vector = 9;
}

static void test_reset(void **unused)
{
    struct x86_state s;
    x86_state_reset(&s, 7, true);
    assert_int_equal(s.rip, 0xfff0);
    assert_int_equal(s.cr0, 0x60000010);
    assert_int_equal(s.seg[X86_CS].base, 0xffff0000);
    assert_int_equal(s.seg[X86_CS].attr, 0x9b);
    assert_int_equal(s.seg[X86_DS].attr, 0x93);
    assert_int_equal(s.msr.apic_base, 0xfee00900);
    assert_int_equal(get_le32(s.lapic + 0x20), 7u << 24);
    assert_int_equal(s.activity, X86_ACTIVE);
    x86_state_reset(&s, 1, false);
    assert_int_equal(s.activity, X86_WAIT_SIPI);
    assert_int_equal(s.msr.apic_base, 0xfee00800);
    struct err *err = x86_state_table.check(&s);
    assert_null(err);
}

static void test_round_trip(void **unused)
{
    struct x86_state a, b;
    busy_state(&a);
    memset(&b, 0, sizeof(b));
    struct state_writer first, second;
    save(&a, &first);
    struct err *err = load(first.out.data, first.out.len, &b);
    if (err)
        fail_msg("%s", err_text(err));
    save(&b, &second);
    assert_int_equal(first.out.len, second.out.len);
    assert_memory_equal(first.out.data, second.out.data, first.out.len);
    assert_int_equal(b.msr.mtrr_mask[7], 5);
    assert_int_equal(b.interrupt_vector, 0x31);
    state_writer_fini(&first);
    state_writer_fini(&second);
}

static void test_cut_and_flipped(void **unused)
{
    struct x86_state a, b, before;
    busy_state(&a);
    x86_state_reset(&b, 0, true);
    before = b;
    struct state_writer writer;
    save(&a, &writer);
    for (size_t len = 0; len < writer.out.len; len += 13) {
        struct err *err = load(writer.out.data, len, &b);
        assert_non_null(err);
        assert_true(strlen(err_text(err)) > 5);
        err_free(err);
        /* The end mark may be all that is missing: then the section itself was good. */
        b = before;
    }
    for (size_t at = 0; at < writer.out.len; at += 17) {
        writer.out.data[at] ^= 0x20;
        struct err *err = load(writer.out.data, writer.out.len, &b);
        assert_non_null(err);
        err_free(err);
        b = before;
        writer.out.data[at] ^= 0x20;
    }
    state_writer_fini(&writer);
}

/* Each makes a good state impossible. */
static void spoil(struct x86_state *s, unsigned how)
{
    switch (how) {
    case 0:
        s->cr0 = 0x80000010;
        break;
    case 1:
        s->cr4 = 1ull << 40;
        break;
    case 2:
        s->cr8 = 16;
        break;
    case 3:
        s->efer = 0x500;
        s->cr0 = 0x11;
        break;
    case 4:
        s->rflags = 0;
        break;
    case 5:
        s->xcr0 = 5;
        break;
    case 6:
        s->dr[7] = 1ull << 33;
        break;
    case 7:
        s->msr.lstar = 1ull << 60;
        break;
    case 8:
        s->seg[2].attr = 0x100;
        break;
    case 9:
        put_le64(s->xsave + 512, 1ull << 17);
        break;
    case 10:
        put_le64(s->xsave + 520, 1ull << 63);
        break;
    case 11:
        put_le32(s->xsave + 24, 0x80000000);
        break;
    case 12:
        s->msr.apic_base = 0x400;
        break;
    case 13:
        s->msr.pat = 2;
        break;
    case 14:
        s->activity = 9;
        break;
    case 15:
        s->exception_pending = true;
        s->exception_vector = 40;
        break;
    case 16:
        s->interrupt_vector = 3;
        break;
    case 17:
        s->xsave[560] = 1;
        break;
    }
}

static void test_check_refuses(void **unused)
{
    for (unsigned how = 0; how <= 17; how++) {
        struct x86_state s;
        busy_state(&s);
        assert_null(x86_state_table.check(&s));
        spoil(&s, how);
        struct err *err = x86_state_table.check(&s);
        if (!err)
            fail_msg("state %u was accepted", how);
        err_free(err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_cut_and_flipped),
        cmocka_unit_test(test_check_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
