/*
 * A bare guest for debuggers (Multiboot 1): a function that is called ten times and changes a
 * variable, an INT3 of its own with a handler, a byte that decides how it ends. Writes it to port
 * 0xf4: 0, or 1 when its INT3 did not come back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
        .section .multiboot, "a", @progbits
        .align 4
        .long 0x1badb002, 0, -0x1badb002

        .text
        .code32
        .globl start
start:
        movl $stack, %esp
        call long_mode
        ljmp $0x08, $main

#include "long_mode.inc"

        .code64
        .globl main
main:
        movl $0x10, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movq $stack, %rsp
        movl $on_int3, idt + 3 * 16 /* bits 31:16 go where the selector is */
        movw $0x08, idt + 3 * 16 + 2
        movl $on_int3, %eax
        andl $0xffff0000, %eax
        orl $0x8e00, %eax
        movl %eax, idt + 3 * 16 + 4
        lidt idtr

        movl $10, %ebx
1:      movl %ebx, %edi
        call work
        decl %ebx
        jnz 1b

        int3
        .globl behind_int3
behind_int3:
        cmpl $1, int3_count
        je finish
        movb $1, status
        .globl finish
finish:
        movb status, %al
        outb %al, $0xf4
        cli
        hlt

/* Adds EDI to `counter`. */
        .globl work
work:
        addl %edi, counter
        ret

on_int3:
        incl int3_count
        iretq

        .data
        .align 16
idtr:   .word 4 * 16 - 1
        .quad idt
        .globl counter, int3_count, status
counter: .long 0
int3_count: .long 0
status: .byte 0

        .bss
        .align 4096
idt:    .fill 4096
        .fill 8192
stack:  .fill 16
