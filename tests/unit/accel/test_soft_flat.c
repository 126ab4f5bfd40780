/*
 * Flat 32-bit code: its specialised ops against the general ones. The same program runs twice, once
 * in flat segments and once in segments that are a byte short, and must leave the same machine.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "soft_rig.h"

#define CODE 0x100000u
#define DATA 0x200000u
#define DATA_SIZE 0x3000u
#define SECOND (CODE + 0xab) /* loses its flat data segment half-way */
#define HANDLER (CODE + 0xd7)
#define FLAT_LIMIT UINT32_MAX

/*
 * Moves and arithmetic of all sizes, conditions, shifts, calls through all kinds of targets, the
 * stack, and an index that wraps around 4 GiB:
 *
 *      mov $0x200000, %edi         |      dec %ecx              | 4:   mov $0x2a, %al
 *      mov $0x12345678, %eax       |      jnz 1b                |      out %al, $0xf4
 *      mov $500, %ecx              |      mov $-1, %ecx         | 5:   jmp 5b
 * 1:   mov %eax, (%edi)            |      mov 0x200008(,%ecx,4), %ebp
 *      mov %ax, 4(%edi)            |      add 0x200004(%ecx,%ecx,2), %ebp
 *      mov %ah, 6(%edi)            |      mov $fin, %eax        | second:
 *      add $0x9e3779b9, %eax       |      call *%eax            |      movl $0x11, 0x300000
 *      rol $5, %eax                |      mov $4f, %eax         |      mov 0x300000, %ebx
 *      xor %ecx, %eax              |      jmp *%eax             |      mov $0x40, %cx
 *      movzbl 6(%edi), %ebx        | 3:   push %ebp             |      mov %cx, %ds
 *      movswl 4(%edi), %edx        |      mov %esp, %ebp        |      mov 0x8000, %edx
 *      lea 3(%ebx,%edx,4), %esi    |      mov 8(%ebp), %edx     |      movl $0x22, 0x300000
 *      imul $77, %esi, %esi        |      neg %edx              |      mov $1, %al
 *      add %esi, 8(%edi)           |      bt $2, %edx           |      out %al, $0xf4
 *      adc %edx, 12(%edi)          |      cdq                   |      jmp 5b
 *      sbb %bh, %ah                |      bswap %edx            | handler:
 *      testl $0x10000, (%edi)      |      add %edx, 20(%edi)    |      mov $0xd, %al
 *      setnz %bl                   |      xchg %eax, %edx       |      out %al, $0xf4
 *      cmovnz %edx, %ebx           |      xchg %eax, %edx       |      jmp 5b
 *      shr %cl, %ebx               |      leave
 *      mov %ebx, 16(%edi)          |      ret
 *      push %ebx                   | fin: incl 0x200000
 *      push $-7                    |      notb 0x200001
 *      call 3f                     |      ret $0
 *      add $4, %esp
 *      pop %edx
 *      mov %edx, 20(%edi)
 *      add $24, %edi
 */
static const uint8_t program[] = {
    0xbf, 0x00, 0x00, 0x20, 0x00, 0xb8, 0x78, 0x56, 0x34, 0x12, 0xb9, 0xf4, 0x01, 0x00, 0x00, 0x89,
    0x07, 0x66, 0x89, 0x47, 0x04, 0x88, 0x67, 0x06, 0x05, 0xb9, 0x79, 0x37, 0x9e, 0xc1, 0xc0, 0x05,
    0x31, 0xc8, 0x0f, 0xb6, 0x5f, 0x06, 0x0f, 0xbf, 0x57, 0x04, 0x8d, 0x74, 0x93, 0x03, 0x6b, 0xf6,
    0x4d, 0x01, 0x77, 0x08, 0x11, 0x57, 0x0c, 0x18, 0xfc, 0xf7, 0x07, 0x00, 0x00, 0x01, 0x00, 0x0f,
    0x95, 0xc3, 0x0f, 0x45, 0xda, 0xd3, 0xeb, 0x89, 0x5f, 0x10, 0x53, 0x6a, 0xf9, 0xe8, 0x2e, 0x00,
    0x00, 0x00, 0x83, 0xc4, 0x04, 0x5a, 0x89, 0x57, 0x14, 0x83, 0xc7, 0x18, 0x49, 0x75, 0xb0, 0xb9,
    0xff, 0xff, 0xff, 0xff, 0x8b, 0x2c, 0x8d, 0x08, 0x00, 0x20, 0x00, 0x03, 0xac, 0x49, 0x04, 0x00,
    0x20, 0x00, 0xb8, 0x96, 0x00, 0x10, 0x00, 0xff, 0xd0, 0xb8, 0xa5, 0x00, 0x10, 0x00, 0xff, 0xe0,
    0x55, 0x89, 0xe5, 0x8b, 0x55, 0x08, 0xf7, 0xda, 0x0f, 0xba, 0xe2, 0x02, 0x99, 0x0f, 0xca, 0x01,
    0x57, 0x14, 0x92, 0x92, 0xc9, 0xc3, 0xff, 0x05, 0x00, 0x00, 0x20, 0x00, 0xf6, 0x15, 0x01, 0x00,
    0x20, 0x00, 0xc2, 0x00, 0x00, 0xb0, 0x2a, 0xe6, 0xf4, 0xeb, 0xfe, 0xc7, 0x05, 0x00, 0x00, 0x30,
    0x00, 0x11, 0x00, 0x00, 0x00, 0x8b, 0x1d, 0x00, 0x00, 0x30, 0x00, 0x66, 0xb9, 0x40, 0x00, 0x8e,
    0xd9, 0x8b, 0x15, 0x00, 0x80, 0x00, 0x00, 0xc7, 0x05, 0x00, 0x00, 0x30, 0x00, 0x22, 0x00, 0x00,
    0x00, 0xb0, 0x01, 0xe6, 0xf4, 0xeb, 0xd2, 0xb0, 0x0d, 0xe6, 0xf4, 0xeb, 0xcc,
};

static void protected_mode(struct rig *rig, uint32_t rip, uint32_t data_limit)
{
    struct x86_state *s = calloc(1, sizeof(*s));
    rig_ok(accel_soft.vcpu_get(rig->vcpu, s));
    struct x86_segment code = {.limit = UINT32_MAX, .attr = 0xc09b, .selector = 0x18};
    struct x86_segment data = {.limit = data_limit, .attr = 0xc093, .selector = 0x10};
    for (unsigned i = 0; i < X86_SEGS; i++)
        s->seg[i] = i == X86_CS ? code : data;
    memset(s->gpr, 0, sizeof(s->gpr));
    s->gdt = (struct x86_table_register){.base = RIG_GDT, .limit = 0xff};
    s->idt = (struct x86_table_register){.base = RIG_IDT, .limit = 0x7ff};
    s->cr0 = CR0_PE | CR0_ET | CR0_NE;
    s->cr4 = s->cr3 = s->efer = 0;
    s->rflags = 2;
    s->rip = rip;
    s->gpr[X86_RSP] = RIG_STACK;
    s->activity = X86_ACTIVE;
    rig_ok(accel_soft.vcpu_set(rig->vcpu, s));
    free(s);
}

static struct rig *new_rig(void)
{
    struct rig *rig = rig_new();
    memcpy(rig->ram + CODE, program, sizeof(program));
    put_le64(rig->ram + RIG_GDT + 0x40, 0x004093000000ffffull); /* data, 64 KiB */
    put_le64(rig->ram + RIG_IDT + 13 * 8,                       /* a 32-bit interrupt gate */
             (HANDLER & 0xffff) | 0x18u << 16 | 0x8e00ull << 32 |
                 (uint64_t)(HANDLER & 0xffff0000u) << 32);
    return rig;
}

static void both_ways_leave_the_same(void **state)
{
    struct rig *flat = new_rig(), *general = new_rig();

    protected_mode(flat, CODE, FLAT_LIMIT);
    protected_mode(general, CODE, FLAT_LIMIT - 1);
    assert_true(flat->v->flat);
    assert_false(general->v->flat);
    rig_run(flat);
    rig_run(general);
    assert_int_equal(flat->exit_value, 0x2a);
    assert_int_equal(general->exit_value, 0x2a);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal((uint32_t)flat->v->r[i], (uint32_t)general->v->r[i]);
    assert_memory_equal(flat->ram + DATA, general->ram + DATA, DATA_SIZE);
    assert_memory_equal(flat->ram + RIG_STACK - 64, general->ram + RIG_STACK - 64, 64);
    assert_int_equal(flat->v->icount, general->v->icount);
    rig_free(flat);
    rig_free(general);
}

/* The instructions behind a segment's load obey it, in the same block and when it runs again. */
static void a_segment_that_shrinks_counts_at_once(void **state)
{
    struct rig *rig = new_rig();

    for (unsigned round = 0; round < 3; round++) {
        protected_mode(rig, SECOND, FLAT_LIMIT);
        put_le32(rig->ram + 0x300000, 0);
        rig_run(rig);
        assert_int_equal(rig->exit_value, 0xd);
        assert_int_equal(rig->v->r[X86_RBX], 0x11);
        assert_int_equal(get_le32(rig->ram + 0x300000), 0x11);
        assert_false(rig->v->flat);
    }
    rig_free(rig);
}

/*
 * A loop with an instruction that lies on two pages:
 *
 *      mov $3000000, %ecx     |  1:  add $1, %eax  (2 bytes on the first page)
 *      jmp 1f                 |      dec %ecx
 *                             |      jnz 1b; mov $0x2a, %al; out %al, $0xf4; jmp .
 *
 * It goes from op to op without an end, and must not take a frame of the host's stack each time.
 */
static void a_loop_across_pages_needs_no_stack(void **state)
{
    static const uint8_t start[] = {0xb9, 0xc0, 0xc6, 0x2d, 0x00, 0xe9, 0xf4, 0x0f, 0x00, 0x00};
    static const uint8_t loop[] = {0x81, 0xc0, 0x01, 0x00, 0x00, 0x00, 0x49, 0x75,
                                   0xf7, 0xb0, 0x2a, 0xe6, 0xf4, 0xeb, 0xfe};
    struct rig *rig = new_rig();

    memcpy(rig->ram + CODE, start, sizeof(start));
    memcpy(rig->ram + CODE + 0xffe, loop, sizeof(loop));
    protected_mode(rig, CODE, FLAT_LIMIT);
    rig_run(rig);
    assert_int_equal(rig->exit_value, 0x2a);
    assert_int_equal(rig->v->r[X86_RAX] >> 8, 3000000 >> 8);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways_leave_the_same),
        cmocka_unit_test(a_segment_that_shrinks_counts_at_once),
        cmocka_unit_test(a_loop_across_pages_needs_no_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
