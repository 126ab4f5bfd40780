/*
 * A bare guest for two CPUs (Multiboot 1): mode switches, self-modifying code, the LAPIC timer, start of
 * the other CPU through real mode, interrupts between CPUs, atomics, code that one CPU changes for
 * the other. Writes a letter a part to port 0xe9, then its result to port 0xf4: 0, or the part that
 * failed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
        .set LAPIC, 0xfee00000
        .set ROUNDS, 1000
        .set ADDS, 100000
        .set SPLITS, 2000
        .set NEAR, 20000
        .set TRAMPOLINE, 0x8000

        .section .multiboot, "a", @progbits
        .align 4
        .long 0x1badb002, 0, -0x1badb002

        .text
        .code32
        .globl start
start:
        movl $stack0, %esp
        call long_mode
        ljmp $0x08, $main64

#include "long_mode.inc"

        .code64
main64:
        movl $0x10, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movq $stack0, %rsp
        call build_idt
        lidt idtr
        movl $LAPIC, %ebp
        movl $0x1ff, 0xf0(%rbp)

/* 1: a loop whose body changes on every turn: 1 + 2 + ... + 100. */
        movb $1, %bl
        movb $1, patch + 1
        xorl %eax, %eax
        movl $100, %ecx
patch:  addb $1, %al
        movzbl %al, %edx
        incb patch + 1
        decl %ecx
        jnz patch
        cmpb $0xba, %al /* 5050 mod 256 */
        jne fail
        movb $'a', %al
        outb %al, $0xe9

/* 2: the LAPIC timer, one shot, wakes a HLT. */
        movb $2, %bl
        movl $0xb, 0x3e0(%rbp)
        movl $0x40, 0x320(%rbp)
        movl $100000, 0x380(%rbp)
        sti
1:      hlt
        cmpl $1, ticks
        jne 1b
        cli
        movb $'b', %al
        outb %al, $0xe9

/* 3: INIT, SIPI; the other CPU comes up through real mode. */
        movb $3, %bl
        movq $trampoline, %rsi
        movl $TRAMPOLINE, %edi
        movl $trampoline_end - trampoline, %ecx
        rep movsb
        movl $0x01000000, 0x310(%rbp)
        movl $0x4500, 0x300(%rbp)
        movl $0x01000000, 0x310(%rbp)
        movl $0x4600 | TRAMPOLINE >> 12, 0x300(%rbp)
        movl $1, %edi
        call wait_stage
        movb $'c', %al
        outb %al, $0xe9

/* 4: ping-pong: vector 0x50 there, 0x51 back. */
        movb $4, %bl
        sti
        movl $ROUNDS, %r12d
1:      movl pongs, %r13d
        movl $0x01000000, 0x310(%rbp)
        movl $0x4050, 0x300(%rbp)
2:      cli
        cmpl pongs, %r13d
        jne 3f
        sti
        hlt
        jmp 2b
3:      sti
        decl %r12d
        jnz 1b
        cli
        movb $'d', %al
        outb %al, $0xe9

/* 5: both add to one counter, to one across a cache line, and to one beside the code that adds. */
        movb $5, %bl
        movl $2, stage
        movl $ADDS, %ecx
1:      lock incq counter
        decl %ecx
        jnz 1b
        call add_few
        movl $3, %edi
        call wait_stage
        cmpq $2 * ADDS, counter
        jne fail
        cmpl $2 * SPLITS, split + 62
        jne fail
        cmpl $2 * 2 * NEAR, near
        jne fail
        movb $'e', %al
        outb %al, $0xe9

/* 6: this CPU changes a function, then asks the other to run it. */
        movb $6, %bl
        movl $1, %r12d
1:      movl %r12d, function + 1
        movl %r12d, request
2:      pause
        cmpl %r12d, reply_round
        jne 2b
        cmpl %r12d, reply
        jne fail
        incl %r12d
        cmpl $ROUNDS, %r12d
        jne 1b
        movb $'f', %al
        outb %al, $0xe9
        xorl %ebx, %ebx
fail:   movb %bl, %al
        outb %al, $0xf4
1:      cli
        hlt
        jmp 1b

/* Waits until the other CPU reached stage edi. */
wait_stage:
        pause
        cmpl %edi, stage
        jl wait_stage
        ret

/* ---- the other CPU ---- */
ap_main:
        movl $0x10, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movq $stack1, %rsp
        lidt idtr
        movl $LAPIC, %ebp
        movl $0x1ff, 0xf0(%rbp)
        movl $1, stage
1:      sti
        hlt
        cli
        cmpl $ROUNDS, pings
        jl 1b
2:      pause
        cmpl $2, stage
        jne 2b
        movl $ADDS, %ecx
1:      lock incq counter
        decl %ecx
        jnz 1b
        call add_few
        movl $3, stage
        xorl %r12d, %r12d
1:      movl request, %eax
        cmpl %eax, %r12d
        je 1b
        movl %eax, %r12d
        cpuid /* serialises, as cross-modifying code must */
        call function
        movl %eax, reply
        movl %r12d, reply_round
        jmp 1b

/* A lock across a line takes 80 us on some machines. What is decoded of this page is dropped by one
   CPU while the other is in the middle of an add. */
        .align 64
add_few:
        movl $SPLITS, %ecx
1:      lock incl split + 62
        decl %ecx
        jnz 1b
        movl $NEAR, %ecx
1:      movl $1, %eax
        lock xaddl %eax, near
        lock incl near
        decl %ecx
        jnz 1b
        ret
near:   .long 0

        .align 64
function:
        movl $0, %eax
        ret
        .align 64

/* ---- interrupts ---- */
timer:
        incl ticks
        jmp eoi
ping:
        incl pings
        pushq %rax
        movl $LAPIC, %eax
        movl $0, 0xb0(%rax)
        movl $0, 0x310(%rax)
        movl $0x4051, 0x300(%rax)
        popq %rax
        iretq
pong:
        incl pongs
eoi:    pushq %rax
        movl $LAPIC, %eax
        movl $0, 0xb0(%rax)
        popq %rax
        iretq

/* A gate: vector in edi, handler in esi. */
gate:
        shll $4, %edi
        movw %si, idt(%rdi)
        movw $0x08, idt + 2(%rdi)
        movw $0x8e00, idt + 4(%rdi)
        shrl $16, %esi
        movw %si, idt + 6(%rdi)
        ret
build_idt:
        movl $0x40, %edi
        movl $timer, %esi
        call gate
        movl $0x50, %edi
        movl $ping, %esi
        call gate
        movl $0x51, %edi
        movl $pong, %esi
        jmp gate

/* ---- real mode ---- */
        .code16
trampoline:
        cli
        movw %cs, %ax
        movw %ax, %ds
        lgdtl real_gdtr - trampoline /* DS is the trampoline's segment */
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpl $0x18, $TRAMPOLINE + protected - trampoline
        .code32
protected:
        movw $0x10, %ax
        movw %ax, %ds
        movw %ax, %ss
        movl $stack1, %esp
        movl $long_mode, %eax
        call *%eax
        ljmp $0x08, $ap_main
real_gdtr:
        .word 31
        .long gdt
trampoline_end:

        .data
idtr:   .word 0xfff
        .quad idt
ticks:  .long 0
stage:  .long 0
pings:  .long 0
pongs:  .long 0
request: .long 0
reply:  .long 0
reply_round: .long 0
        .align 64
counter: .quad 0
        .align 64
split:  .fill 128, 1, 0

        .bss
        .align 4096
idt:    .fill 4096
        .fill 8192
stack0: .fill 8192
stack1: .fill 16
