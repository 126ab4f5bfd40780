/*
 * The general executors by name; soft_exec[] in exec_table.c maps instructions to them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_EXEC_ALL_H
#define TENON_ACCEL_SOFT_EXEC_ALL_H

#include "accel/soft/interp/exec.h"

/* clang-format off */
exec_fn exec_group1, exec_test, exec_unary, exec_mov, exec_movzx, exec_movsx, exec_lea, exec_movbe,
    exec_bswap, exec_cbw, exec_cwd, exec_shift, exec_shld_shrd, exec_mul, exec_imul1, exec_imul,
    exec_div, exec_idiv, exec_xchg, exec_xadd, exec_cmpxchg, exec_cmpxchg8b, exec_flag, exec_lahf,
    exec_setcc, exec_cmovcc;                                     /* exec_int.c, atomic.c */
exec_fn exec_bt, exec_bsf_bsr, exec_count, exec_crc32, exec_adx, exec_bmi, exec_shiftx, exec_mulx,
    exec_rdrand;                                                 /* exec_bits.c */
exec_fn exec_push, exec_pop, exec_pusha, exec_popa, exec_pushf, exec_popf, exec_pushseg,
    exec_popseg, exec_enter, exec_leave;                         /* exec_stack.c */
exec_fn exec_jcc, exec_jmp, exec_jmpi, exec_call, exec_calli, exec_ret, exec_loop, exec_jcxz;
exec_fn exec_nop, exec_pause, exec_ud, exec_bound, exec_xlat, exec_salc, exec_bcd; /* exec_ctl.c */
exec_fn exec_movs, exec_stos, exec_lods, exec_scas, exec_cmps, exec_ins,
    exec_outs;                                                   /* exec_string.c */
exec_fn exec_in, exec_out, exec_hlt, exec_cli, exec_sti, exec_movseg_r, exec_movseg_w, exec_sgdt,
    exec_lgdt, exec_smsw, exec_lmsw, exec_invlpg, exec_swapgs, exec_rdtsc, exec_rdpmc, exec_clts,
    exec_wbinvd, exec_movcr_r, exec_movcr_w, exec_movdr_r, exec_movdr_w, exec_wrmsr, exec_rdmsr,
    exec_vmcall, exec_cpuid, exec_invpcid, exec_fsgsbase, exec_fence, exec_clflush, exec_serialize, exec_rdpid;

#endif
