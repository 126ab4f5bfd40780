/*
 * Cases on the bare CPU, in this process: all registers are loaded, the code is entered, and the
 * signal at its end has them again. The code and data lie at addresses of their own, nothing else
 * of the process is in the lower 4 GiB, and its addresses are in no register.
 *
 * Between entry and signal FS is not the C library's, so the handler sets it right before anything
 * else; this file is compiled without stack protectors.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "differential.h"

#include <err.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/bytes.h"

#define CONTEXT_AT 0x5a5a3000

struct context {
    uint64_t gpr[16];
    uint64_t flags, fs_base, gs_base;
    uint64_t host_rsp, host_fs;
    uint32_t target;
    uint16_t target_cs;
    volatile uint32_t running;
    uint8_t xstate[1024] __attribute__((aligned(64)));
};
_Static_assert(offsetof(struct context, xstate) == 192, "offsets in the code below");

static struct context *const context = (struct context *)(uintptr_t)CONTEXT_AT;
static struct outcome *outcome;
static uint8_t *code_write;
static uint8_t *read_only_write;
/* For the watchdog: what ran at its last tick. */
static volatile uint64_t serial;
static uint64_t serial_seen;
static struct sigaction engine_action[64]; /* the engine's own handlers */

extern void native_enter(void);
extern void native_return(void);

/* clang-format off */
__asm__(
    ".equ C, 0x5a5a3000\n"
    ".globl native_enter, native_return\n"
    "native_enter:\n"
    "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "    mov %rsp, C+152\n"
    "    rdfsbase %rax\n"
    "    mov %rax, C+160\n"
    "    movl $1, C+176\n"
    "    mov $7, %eax\n"
    "    xor %edx, %edx\n"
    "    xrstor64 C+192\n"
    "    mov $0x2b, %eax\n"
    "    mov %eax, %ds\n"
    "    mov %eax, %es\n"
    "    xor %eax, %eax\n"
    "    mov %eax, %fs\n"
    "    mov %eax, %gs\n"
    "    mov C+136, %rax\n"
    "    wrfsbase %rax\n"
    "    mov C+144, %rax\n"
    "    wrgsbase %rax\n"
    "    mov $C+128, %esp\n"
    "    popfq\n"
    "    mov C+0, %rax; mov C+8, %rcx; mov C+16, %rdx; mov C+24, %rbx\n"
    "    mov C+32, %rsp; mov C+40, %rbp; mov C+48, %rsi; mov C+56, %rdi\n"
    "    mov C+64, %r8; mov C+72, %r9; mov C+80, %r10; mov C+88, %r11\n"
    "    mov C+96, %r12; mov C+104, %r13; mov C+112, %r14; mov C+120, %r15\n"
    "    ljmp *C+168\n"
    "native_return:\n" /* from the signal, with rsp set right */
    "    fninit\n"
    "    pushq $0x1f80\n"
    "    ldmxcsr (%rsp)\n"
    "    pop %rax\n"
    "    vzeroupper\n"
    "    xor %eax, %eax\n"
    "    mov %eax, %ds\n"
    "    mov %eax, %es\n"
    "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "    ret\n");
/* clang-format on */

static inline uint64_t read_fs(void)
{
    uint64_t base;
    __asm__ volatile("rdfsbase %0" : "=r"(base));
    return base;
}

static inline void write_fs(uint64_t base)
{
    __asm__ volatile("wrfsbase %0" : : "r"(base));
}

static void copy_gprs(const greg_t *regs)
{
    static const uint8_t places[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                       REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                       REG_R12, REG_R13, REG_R14, REG_R15};
    for (unsigned i = 0; i < 16; i++)
        outcome->out.gpr[i] = regs[places[i]];
    outcome->out.rip = regs[REG_RIP];
    outcome->out.flags = regs[REG_EFL];
}

/* The signal frame leaves out what is in its initial state. */
static void copy_xstate(const uint8_t *frame)
{
    uint8_t *to = outcome->out.xstate;
    uint64_t there = get_le64(frame + 512);
    memcpy(to, frame, XSTATE_SIZE);
    if (!(there & 1)) {
        memset(to, 0, 24);
        put_le16(to, 0x37f);
        memset(to + 32, 0, 128);
    }
    if (!(there & 2))
        memset(to + 160, 0, 256);
    if (!(there & 4))
        memset(to + 576, 0, 256);
}

static void on_signal(int number, siginfo_t *info, void *uc_)
{
    uint64_t fs = read_fs(), gs;
    uint16_t selectors[4];
    ucontext_t *uc = uc_;
    greg_t *regs = uc->uc_mcontext.gregs;
    if (context->running)
        write_fs(context->host_fs);
    __asm__ volatile("pushfq; andl $0xfffbffff, (%rsp); popfq"); /* AC */
    __asm__ volatile("rdgsbase %0" : "=r"(gs));
    __asm__ volatile("mov %%ds, %0" : "=r"(selectors[0]));
    __asm__ volatile("mov %%es, %0" : "=r"(selectors[1]));
    __asm__ volatile("mov %%fs, %0" : "=r"(selectors[2]));
    __asm__ volatile("mov %%gs, %0" : "=r"(selectors[3]));
    if (number == SIGPROF) {
        bool stuck = serial == serial_seen;
        serial_seen = serial;
        if (!stuck || !context->running) {
            if (stuck)
                engine_interrupt();
            if (context->running)
                write_fs(fs);
            return;
        }
    } else if (!context->running) {
        if (engine_action[number].sa_flags & SA_SIGINFO)
            engine_action[number].sa_sigaction(number, info, uc_);
        else
            signal(number, SIG_DFL); /* a mistake of this program: again, and die */
        return;
    }
    context->running = 0;
    copy_gprs(regs);
    copy_xstate((const uint8_t *)uc->uc_mcontext.fpregs);
    outcome->out.fs_base = fs;
    outcome->out.gs_base = gs;
    memcpy(outcome->selector, selectors, sizeof(selectors));
    outcome->vector = number == SIGPROF ? OUTCOME_ENDLESS : (int)regs[REG_TRAPNO];
    outcome->error = regs[REG_ERR];
    outcome->cr2 = regs[REG_CR2];
    regs[REG_RIP] = (greg_t)(uintptr_t)native_return;
    regs[REG_RSP] = (greg_t)context->host_rsp;
    regs[REG_EFL] = 0x202;
    regs[REG_CSGSFS] = (regs[REG_CSGSFS] & ~0xffffll) | 0x33;
}

static void *map_at(uint64_t at, size_t size, int protection, int fd, off_t offset)
{
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *got = mmap((void *)(uintptr_t)at, size, protection,
                     flags | MAP_POPULATE | (at ? MAP_FIXED_NOREPLACE : 0), fd, offset);
    if (got == MAP_FAILED)
        err(1, "map %#llx", (unsigned long long)at);
    return got;
}

void native_init(void)
{
    int fd = memfd_create("cases", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, CODE_SIZE + 4096))
        err(1, "memory for code");
    code_write = map_at(0, CODE_SIZE + 4096, PROT_READ | PROT_WRITE, fd, 0);
    read_only_write = code_write + CODE_SIZE;
    case_read_only(read_only_write);
    memset(code_write, 0xcc, CODE_SIZE);
    map_at(CODE_AT, CODE_SIZE, PROT_READ | PROT_EXEC, fd, 0);
    map_at(DATA_AT, DATA_SIZE, PROT_READ | PROT_WRITE, -1, 0);
    map_at(READ_ONLY_AT, 4096, PROT_READ, fd, CODE_SIZE);
    map_at(CONTEXT_AT, 4096, PROT_READ | PROT_WRITE, -1, 0);
    close(fd);
    /* A page that is there, so that the kernel does not map it on a fault. */
    *(volatile uint8_t *)(uintptr_t)DATA_AT = 0;
    stack_t stack = {.ss_size = 1 << 16, .ss_sp = malloc(1 << 16)};
    sigaltstack(&stack, NULL);
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGPROF};
    struct sigaction action = {.sa_sigaction = on_signal,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    sigfillset(&action.sa_mask);
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
        sigaction(signals[i], &action, &engine_action[signals[i]]);
    /* CPU time: a busy machine does not make a case endless. */
    struct itimerval tick = {{.tv_usec = 200000}, {.tv_usec = 200000}};
    setitimer(ITIMER_PROF, &tick, NULL);
}

void native_run(const struct test_case *test, struct outcome *out)
{
    outcome = out;
    serial++;
    memcpy(code_write + (test->at - CODE_AT), test->code, test->length);
    memcpy((void *)(uintptr_t)DATA_AT, test->data, DATA_SIZE);
    memcpy(context->gpr, test->in.gpr, sizeof(context->gpr));
    memcpy(context->xstate, test->in.xstate, XSTATE_SIZE);
    context->flags = test->in.flags;
    context->fs_base = test->in.fs_base;
    context->gs_base = test->in.gs_base;
    context->target = test->at;
    context->target_cs = 0x33;
    native_enter();
    memcpy(out->data, (void *)(uintptr_t)DATA_AT, DATA_SIZE);
}
