/*
 * Code that changes: by its own stores, by a device, by another mapping of its page, and under a
 * mapping that turns to other frames. Each in the interpreter, translated late and at once.
 *
 * Two CPUs of which one modifies what the other runs: tests/guest/smp.S.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "base/clock.h"
#include "soft_rig.h"

#define CODE 0x100000u
#define ROUNDS 3000u
#define WINDOW 0x80000000u /* linear: one 4 KiB page */
#define WINDOW_TABLE 0x20000u
#define FRAME_A 0x300000u
#define FRAME_B 0x304000u
#define PTE_RW 3ull
#define PTE_RX 1ull
#define PTE_NX (1ull << 63)

/* Guests: rbx is the result, ecx counts. */
#define GUEST(name, text)                                                                          \
    extern const uint8_t name[], name##_end[];                                                     \
    __asm__(".pushsection .rodata\n.balign 4096\n" #name ":\n" text                                \
            "    out %al, $0xf4\n    jmp .\n" #name "_end:\n.popsection")

/* An immediate in this page, one in the next, an opcode behind the store. */
GUEST(patches, "1:  mov %ecx, 4f+1(%rip)\n"
               "    mov %ecx, 5f+1(%rip)\n"
               "    call 4f\n"
               "    add %rax, %rbx\n"
               "    call 5f\n"
               "    add %rax, %rbx\n"
               "    xorb $8, 3f+1(%rip)\n" /* inc and dec in turn */
               "3:  inc %edx\n"
               "    add %rdx, %rbx\n"
               "    dec %ecx\n"
               "    jnz 1b\n"
               "    jmp 6f\n"
               "4:  mov $0, %eax\n"
               "    ret\n"
               "    .balign 4096\n"
               "    .skip 40\n"
               "5:  mov $0, %eax\n"
               "    ret\n"
               "6:\n");

/* Writes through the window, turns it to execute, calls; r8 is the entry, r9 and r10 its values. */
GUEST(flips, "1:  mov %r9, (%r8)\n"
             "    invlpg (%rdi)\n"
             "    movb $0xb8, 0x10(%rdi)\n"
             "    mov %ecx, 0x11(%rdi)\n"
             "    movb $0xc3, 0x15(%rdi)\n"
             "    mov %r10, (%r8)\n"
             "    invlpg (%rdi)\n"
             "    lea 0x10(%rdi), %rsi\n"
             "    call *%rsi\n"
             "    add %rax, %rbx\n"
             "    dec %ecx\n"
             "    jnz 1b\n");

/* Writes through the identity mapping what runs through the window. */
GUEST(aliases, "1:  mov %ecx, 0x11(%rsi)\n"
               "    lea 0x10(%rdi), %rax\n"
               "    call *%rax\n"
               "    add %rax, %rbx\n"
               "    dec %ecx\n"
               "    jnz 1b\n");

/* The window turns to another frame each time. */
GUEST(turns, "1:  mov %r9, (%r8)\n"
             "    xchg %r9, %r10\n"
             "    invlpg (%rdi)\n"
             "    lea 0x10(%rdi), %rax\n"
             "    call *%rax\n"
             "    add %rax, %rbx\n"
             "    dec %ecx\n"
             "    jnz 1b\n");

/* Data in the line of the code, and every 64 rounds a new immediate; each alone would be simple. */
GUEST(neighbours, "    jmp 1f\n"
                  "7:  .long 0\n"
                  "1:  mov %ecx, 7b(%rip)\n"
                  "    mov 7b(%rip), %eax\n"
                  "    add %rax, %rbx\n"
                  "    test $63, %cl\n"
                  "    jnz 2f\n"
                  "    mov %ecx, 3f+1(%rip)\n"
                  "2:\n"
                  "3:  mov $0, %eax\n"
                  "    add %rax, %rdx\n"
                  "    mov %edx, 8f(%rip)\n"
                  "    dec %ecx\n"
                  "    jnz 1b\n"
                  "    jmp 9f\n"
                  "8:  .long 0\n"
                  "9:\n");

/* Adds across the boundary to a page whose function it calls. */
GUEST(astride, "1:  mov $0x304010, %eax\n"
               "    call *%rax\n"
               "    add %rax, %rbx\n"
               "    mov $0x303ffe, %esi\n"
               "    lock incl (%rsi)\n"
               "    mov $1, %eax\n"
               "    lock xadd %eax, (%rsi)\n"
               "    mov %eax, %edx\n"
               "    dec %ecx\n"
               "    jnz 1b\n");

/* Calls a page-table entry, and again when a walk has made its ADD an AND by the accessed bit. */
GUEST(tables, "1:  mov $0xff00, %eax\n"
              "    call *%r8\n"
              "    dec %ecx\n"
              "    jnz 1b\n"
              "    mov %rax, %rbx\n"
              "    mov (%rdi), %edx\n"
              "    mov $0xff00, %eax\n"
              "    call *%r8\n"
              "    shl $32, %rax\n"
              "    or %rax, %rbx\n");

/* Shows what its function returns at r8, until that is 255. */
GUEST(watcher, "1:  call 2f\n"
               "    mov %eax, (%r8)\n"
               "    cmp $255, %eax\n"
               "    jne 1b\n"
               "    jmp 3f\n"
               "2:  mov $0, %eax\n"
               "    ret\n"
               "3:\n");
#define WATCHER_IMMEDIATE 0x12 /* checked below */
#define SHOWN 0x310000u

static void put_function(struct rig *rig, uint32_t at, uint32_t value)
{
    rig->ram[at] = 0xb8;
    put_le32(rig->ram + at + 1, value);
    rig->ram[at + 5] = 0xc3;
}

static struct rig *prepare(const uint8_t *guest, const uint8_t *end, const char *mode)
{
    struct rig *rig = rig_new_modes(mode);
    struct soft_vcpu *v = rig->v;
    memcpy(rig->ram + CODE, guest, (size_t)(end - guest));
    put_le64(rig->ram + RIG_TABLES + 0x2000 + 8 * (WINDOW >> 21), WINDOW_TABLE | 7);
    put_le64(rig->ram + WINDOW_TABLE, FRAME_A | PTE_RX);
    put_function(rig, FRAME_A + 0x10, 1);
    put_function(rig, FRAME_B + 0x10, 1000);
    v->r[X86_RCX] = ROUNDS;
    v->r[X86_RBX] = v->r[X86_RDX] = 0;
    v->r[X86_RDI] = WINDOW;
    v->r[8] = WINDOW_TABLE;
    v->rip = CODE;
    return rig;
}

static void finish(struct rig *rig, uint64_t expected)
{
    assert_int_equal(rig_run(rig), VM_EXIT_KICKED);
    assert_int_equal(rig->exit_value, rig->v->r[X86_RAX] & 0xff);
    assert_int_equal(rig->v->r[X86_RBX], expected);
    rig_free(rig);
}

static const char *const modes[] = {"xlate-after=0",           "xlate-after=1",
                                    "xlate-after=32",          "xlate-after=1,tlb=4",
                                    "xlate-after=1,crossings", "lockstep"};
#define SUM ((uint64_t)ROUNDS * (ROUNDS + 1) / 2)

static void test_patches(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        struct rig *rig = prepare(patches, patches_end, modes[i]);
        /* The first flip makes it a decrement: edx is -1, 0, -1, 0... in 32 bits. */
        finish(rig, 2 * SUM + (uint64_t)UINT32_MAX * (ROUNDS / 2));
    }
}

static void test_flips(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        struct rig *rig = prepare(flips, flips_end, modes[i]);
        rig->v->r[9] = FRAME_A | PTE_RW | PTE_NX;
        rig->v->r[10] = FRAME_A | PTE_RX;
        finish(rig, SUM);
    }
}

static void test_aliases(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        struct rig *rig = prepare(aliases, aliases_end, modes[i]);
        rig->v->r[X86_RSI] = FRAME_A;
        finish(rig, SUM);
    }
}

static void test_turns(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        struct rig *rig = prepare(turns, turns_end, modes[i]);
        rig->v->r[9] = FRAME_B | PTE_RX;
        rig->v->r[10] = FRAME_A | PTE_RX;
        finish(rig, (uint64_t)ROUNDS / 2 * 1001);
    }
}

static void test_neighbours(void **state)
{
    uint64_t patched = 0, value = 0;
    for (uint64_t round = ROUNDS; round; round--) {
        value = round % 64 ? value : round;
        patched += value;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        struct rig *rig = prepare(neighbours, neighbours_end, modes[i]);
        assert_int_equal(rig_run(rig), VM_EXIT_KICKED);
        assert_int_equal(rig->v->r[X86_RBX], SUM);
        assert_int_equal(rig->v->r[X86_RDX], patched);
        rig_free(rig);
    }
    /* Once the page is known for it, the data costs no decoded code: 46 patches do. */
    struct rig *rig = prepare(neighbours, neighbours_end, "xlate-after=0");
    assert_int_equal(rig_run(rig), VM_EXIT_KICKED);
    assert_in_range(rig->v->stats.translations, 46, 1000);
    rig_free(rig);
}

static void test_tables(void **state)
{
    /* add $0x3000, %eax; add %al, %al; nop, and FRAME_A's entry: present, for users, NX. */
    static const uint8_t code[] = {0x05, 0x00, 0x30, 0x00, 0x00, 0x00, 0xc0, 0x90, 0xc3};
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        struct rig *rig = prepare(tables, tables_end, modes[i]);
        memcpy(rig->ram + WINDOW_TABLE, code, sizeof(code));
        finish(rig, 0x300000012f00);
    }
}

static void test_astride(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        struct rig *rig = prepare(astride, astride_end, modes[i]);
        assert_int_equal(FRAME_B + 0x10, 0x304010);
        assert_int_equal(rig_run(rig), VM_EXIT_KICKED);
        assert_int_equal(rig->v->r[X86_RBX], 1000 * ROUNDS);
        assert_int_equal(rig->v->r[X86_RDX], 2 * ROUNDS - 1);
        rig_free(rig);
    }
}

/* ---- a device writes while the guest runs ---- */

static void *device(void *opaque)
{
    struct rig *rig = opaque;
    uint32_t at = CODE + WATCHER_IMMEDIATE;
    for (unsigned value = 1; value <= 255; value += value < 30 ? 1 : 225) {
        uint8_t byte = value;
        if (gmem_write(rig->gmem, at, &byte, 1))
            return (void *)1;
        uint64_t start = clock_now_ns();
        while (__atomic_load_n(rig->ram + SHOWN, __ATOMIC_ACQUIRE) != value) {
            if (clock_now_ns() - start > 60000000000ull) { /* never seen: the run must end */
                accel_soft.vcpu_kick(rig->vcpu);
                return (void *)2;
            }
            sched_yield();
        }
    }
    return NULL;
}

static void test_device(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        struct rig *rig = prepare(watcher, watcher_end, modes[i]);
        pthread_t thread;
        void *result;
        rig->v->r[8] = SHOWN;
        assert_int_equal(rig->ram[CODE + WATCHER_IMMEDIATE - 1], 0xb8);
        assert_int_equal(pthread_create(&thread, NULL, device, rig), 0);
        assert_int_equal(rig_run(rig), VM_EXIT_KICKED);
        pthread_join(thread, &result);
        assert_null(result);
        assert_int_equal(rig->exit_value, 255);
        rig_free(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patches), cmocka_unit_test(test_flips),
        cmocka_unit_test(test_aliases), cmocka_unit_test(test_turns),
        cmocka_unit_test(test_device),  cmocka_unit_test(test_neighbours),
        cmocka_unit_test(test_tables),  cmocka_unit_test(test_astride),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
