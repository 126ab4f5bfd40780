/*
 * The smallest guest: a Multiboot 1 kernel that writes 0 to the debug-exit port and halts. What it
 * costs to run is what it costs to start a VMM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
    .text
    .align 4
    .long 0x1badb002          /* magic */
    .long 0                   /* flags: ELF headers tell where to load */
    .long -0x1badb002         /* checksum */

    .code32
    .globl _start
_start:
    xorl %eax, %eax
    outb %al, $0xf4
1:  cli
    hlt
    jmp 1b
