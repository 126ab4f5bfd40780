/*
 * The engine's test modes: each must not change what a program does, lockstep must see a wrong
 * translation, and what is no mode must be refused.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "accel/soft/interp/block.h"
#include "accel/soft/xlate/xlate.h"
#include "base/clock.h"
#include "soft_rig.h"

#define CODE 0x100000u
#define CONSTANT 0x13572468u /* in the program once */

/* Integer, memory, vector and stack instructions in a loop over 64 pages, with a call. */
extern const uint8_t program[], program_end[];
__asm__(".pushsection .rodata\n"
        "program:\n"
        "    mov $20000, %ecx\n"
        "    mov $0x200000, %edi\n"
        "1:  add $0x13572468, %rax\n"
        "    imul $31, %rax, %rax\n"
        "    mov %ecx, %esi\n"
        "    and $63, %esi\n"
        "    shl $12, %esi\n"
        "    xor %rax, 0xffc(%rdi,%rsi)\n" /* across two pages */
        "    movq %rax, %xmm1\n"
        "    paddq %xmm1, %xmm2\n"
        "    movdqu %xmm2, 16(%rdi,%rsi)\n"
        "    adc %rax, %r10\n"
        "    call 2f\n"
        "    dec %ecx\n"
        "    jnz 1b\n"
        "    movq %xmm2, %rdx\n"
        "    out %al, $0xf4\n"
        "3:  jmp 3b\n"
        "2:  push %rax\n"
        "    rol $7, %r9\n"
        "    add %rax, %r9\n"
        "    pop %r11\n"
        "    ret\n"
        "program_end:\n"
        ".popsection");

struct result {
    uint64_t r9, r10, rdx, sum;
    struct accel_stats stats;
};

static enum vm_exit_reason run(struct rig *rig)
{
    struct soft_vcpu *v = rig->v;
    memcpy(rig->ram + CODE, program, (size_t)(program_end - program));
    memset(rig->ram + 0x200000, 0, 65 * 4096);
    memset(v->r, 0, 16 * sizeof(v->r[0]));
    memset(v->xsave + 160, 0, 256);
    v->r[X86_RSP] = RIG_STACK - 0x1000;
    v->rip = CODE;
    return rig_run(rig);
}

static struct result result_of(struct rig *rig)
{
    struct soft_vcpu *v = rig->v;
    struct result result = {.r9 = v->r[9], .r10 = v->r[10], .rdx = v->r[X86_RDX]};
    for (unsigned i = 0; i < 65 * 4096; i += 8)
        result.sum = result.sum * 3 + get_le64(rig->ram + 0x200000 + i);
    accel_soft.vcpu_stats(rig->vcpu, &result.stats);
    return result;
}

static struct result run_modes(const char *modes)
{
    struct rig *rig = rig_new_modes(modes);
    assert_int_equal(run(rig), VM_EXIT_KICKED);
    struct result result = result_of(rig);
    rig_free(rig);
    return result;
}

static void test_modes_agree(void **state)
{
    static const char *const modes[] = {"xlate-after=0",
                                        "xlate-after=1",
                                        "tlb=4",
                                        "poll",
                                        "crossings",
                                        "crossings,xlate-after=1",
                                        "crossings,lockstep",
                                        "code-cache=64,tlb=5",
                                        "lockstep",
                                        "lockstep,tlb=4,xlate-after=1"};
    struct result normal = run_modes(NULL);
    assert_int_equal(normal.stats.lockstep, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        struct result other = run_modes(modes[i]);
        assert_int_equal(other.r9, normal.r9);
        assert_int_equal(other.r10, normal.r10);
        assert_int_equal(other.rdx, normal.rdx);
        assert_int_equal(other.sum, normal.sum);
        assert_int_equal(other.stats.instructions, normal.stats.instructions);
        if (strstr(modes[i], "tlb"))
            assert_true(other.stats.tlb_misses > 20000 && normal.stats.tlb_misses < 2000);
        if (strstr(modes[i], "lockstep"))
            assert_true(other.stats.lockstep > 100000);
    }
}

/* Translated code writes to a page that becomes one of code right behind it, when the interpreter
   is given an instruction that reaches into it. The shadow must have run before that. */
static void test_lockstep_new_code(void **state)
{
    struct rig *rig = rig_new_modes("lockstep,xlate-after=1");
    struct soft_vcpu *v = rig->v;
    static const uint8_t end[] = {0x48, 0x89, 0xc0, RIG_END}; /* the MOV is on both pages */
    memset(rig->ram + CODE + 0xfe3, 0, 0x200);                /* add %al, (%rax) */
    memcpy(rig->ram + CODE + 0xfff, end, sizeof(end));
    v->r[X86_RAX] = CODE + 0x1020;
    v->rip = CODE + 0xfe3;
    enum vm_exit_reason reason = rig_run(rig);
    if (reason == VM_EXIT_ERROR)
        fail_msg("%s", rig->exit.error);
    assert_int_equal(reason, VM_EXIT_KICKED);
    assert_int_equal(rig->ram[CODE + 0x1020], (uint8_t)(14 * 0x20));
    rig_free(rig);
}

static void expect_agreement(const uint8_t *guest, const uint8_t *end)
{
    struct rig *rig = rig_new_modes("lockstep,xlate-after=1");
    memcpy(rig->ram + CODE, guest, (size_t)(end - guest));
    rig->v->rip = CODE;
    enum vm_exit_reason reason = rig_run(rig);
    if (reason == VM_EXIT_ERROR)
        fail_msg("%s", rig->exit.error);
    assert_int_equal(reason, VM_EXIT_KICKED);
    rig_free(rig);
}

/* The guest reads an entry whose accessed bit the shadow set anew, and translated code did not. */
static void test_lockstep_accessed(void **state)
{
    extern const uint8_t touch[], touch_end[];
    __asm__(".pushsection .rodata\n"
            "touch:\n"
            "    mov 0x400000, %eax\n"
            "    cpuid\n"              /* not translated: the next window begins behind it */
            "    andb $0xdf, 0x3010\n" /* its entry in the page directory: not accessed */
            "    mov 0x400000, %ecx\n"
            "    mov 0x3010, %edx\n"
            "    mov %edx, %esi\n" /* few instructions would not be worth a window */
            "    mov %edx, %edi\n"
            "    out %al, $0xf4\n"
            "1:  jmp 1b\n"
            "touch_end:\n"
            ".popsection");
    expect_agreement(touch, touch_end);
}

/* The same, and the shadow's TLB does not know any more that it read the entry. */
static void test_lockstep_forgets(void **state)
{
    extern const uint8_t crowd[], crowd_end[];
    __asm__(".pushsection .rodata\n"
            "crowd:\n"
            "    cpuid\n"
            "    mov 0x3220, %edx\n"    /* the entry of 0x8800000, neither accessed nor dirty */
            "    mov 0x8803000, %ecx\n" /* has the slot of 0x3000 in the TLB */
            "    movl $1, 0x8803000\n"
            "    mov %edx, %esi\n"
            "    mov %edx, %edi\n"
            "    out %al, $0xf4\n"
            "1:  jmp 1b\n"
            "crowd_end:\n"
            ".popsection");
    expect_agreement(crowd, crowd_end);
}

/*
 * The guest takes the right to execute away from the page that it runs in and does not flush: it
 * may go on by the old entry. The same instruction gives it back, so that only the shadow's copies
 * of the tables know. The error says what it is.
 */
static void test_lockstep_stale(void **state)
{
    extern const uint8_t revoke[], revoke_end[];
    __asm__(".pushsection .rodata\n"
            "revoke:\n"
            "    btsq $63, 0x3000\n" /* the page directory's entry of the first 2 MiB */
            "    cpuid\n"            /* not translated: the next window begins behind it */
            "    btrq $63, 0x3000\n"
            "    mov %edx, %esi\n"
            "    mov %edx, %edi\n"
            "    mov %edx, %ebp\n"
            "    out %al, $0xf4\n"
            "1:  jmp 1b\n"
            "revoke_end:\n"
            ".popsection");
    struct rig *rig = rig_new_modes("lockstep,xlate-after=1");
    memcpy(rig->ram + CODE, revoke, (size_t)(revoke_end - revoke));
    rig->v->rip = CODE;
    assert_int_equal(rig_run(rig), VM_EXIT_ERROR);
    assert_non_null(strstr(rig->exit.error, "lockstep beside a stale translation: "));
    rig_free(rig);
}

/* A wrong byte in the code buffer, where the translation holds the program's constant. */
static void test_lockstep_sees(void **state)
{
    const uint8_t constant[4] = {0x68, 0x24, 0x57, 0x13};
    struct rig *rig = rig_new_modes("lockstep");
    assert_int_equal(run(rig), VM_EXIT_KICKED);
    struct xlate *xlate = rig->v->code->xlate;
    unsigned found = 0; /* the block may have been translated more than once */
    for (uint8_t *at = xlate->write; found < 100; found++, at[0] ^= 1) {
        at = memmem(at, (size_t)(xlate->write + xlate->used - at), constant, sizeof(constant));
        if (!at)
            break;
    }
    assert_in_range(found, 1, 99);
    assert_int_equal(run(rig), VM_EXIT_ERROR);
    assert_non_null(strstr(rig->exit.error, "lockstep: translated code from 0x1000"));
    rig_free(rig);
}

static void refused(const char *text)
{
    struct soft_modes modes;
    struct err *err = soft_modes_read(text, &modes);
    assert_non_null(err);
    err_free(err);
}

static void *kick_late(void *opaque)
{
    nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    accel_soft.vcpu_kick(((struct rig *)opaque)->vcpu);
    return NULL;
}

/* What translated code does in a second takes the interpreter minutes, for which nobody waits. */
static void test_lockstep_ends(void **state)
{
    static const uint8_t code[] = {0xff, 0xc0, 0xeb, 0xfc}; /* 1: inc %eax; jmp 1b */
    struct rig *rig = rig_new_modes("lockstep,xlate-after=1");
    uint64_t began = clock_thread_ns();
    pthread_t thread;
    (void)state;
    memcpy(rig->ram + CODE, code, sizeof(code));
    rig->v->rip = CODE;
    assert_int_equal(pthread_create(&thread, NULL, kick_late, rig), 0);
    assert_int_equal(rig_run(rig), VM_EXIT_KICKED);
    pthread_join(thread, NULL);
    /* 30 s and more if it is waited for. */
    assert_in_range((clock_thread_ns() - began) / NSEC_PER_SEC, 0, 10);
    rig_free(rig);
}

static void test_words(void **state)
{
    struct soft_modes modes;
    rig_ok(soft_modes_read("lockstep,code-cache=128,tlb=7,scatter", &modes));
    assert_true(modes.lockstep && !modes.poll && modes.tlb == 7 && modes.code_cache == KIB(128));
    assert_true(modes.scatter && !modes.crossings);
    assert_int_equal(modes.xlate_after, 32);
    refused("lockstop");
    refused("tlb=3");
    refused("tlb=");
    refused("tlb=4x");
    refused("poll,,trace");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_modes_agree),       cmocka_unit_test(test_lockstep_sees),
        cmocka_unit_test(test_lockstep_new_code), cmocka_unit_test(test_lockstep_accessed),
        cmocka_unit_test(test_lockstep_forgets),  cmocka_unit_test(test_lockstep_stale),
        cmocka_unit_test(test_lockstep_ends),     cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
