/*
 * Trace points for perf, bpftrace and SystemTap (USDT): TRACE(name, arguments...) of up to 12
 * integers or pointers. Each is one NOP until somebody attaches; its arguments are what the code
 * has at hand. tenon-vmm(8) lists them. A build without <sys/sdt.h> has none.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_TRACE_H
#define TENON_BASE_TRACE_H

#if __has_include(<sys/sdt.h>)
#define SDT_USE_VARIADIC
#include <sys/sdt.h>
#define TRACE(name, ...) STAP_PROBEV(tenon, name, __VA_ARGS__)
#else
#define TRACE(name, ...) ((void)0)
#endif

#endif
