/*
 * What the files of the GDB stub share.
 *
 *   gdb.c        the socket: packets, acknowledgements, interrupts
 *   gdb_query.c  q packets: what the stub can do, threads, monitor commands
 *   gdb_run.c    stops, steps, going on
 *   gdb_regs.c   registers and their description
 *   gdb_memory.c memory, breakpoints and watchpoints
 *
 * A command gets the packet behind its first letters as a text that ends with a zero (binary data
 * may hold more), and writes its answer to gdb->answer. Errors become "E." and a sentence.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CTL_GDB_INTERNAL_H
#define TENON_CTL_GDB_INTERNAL_H

#include "base/buf.h"
#include "ctl/gdb/gdb.h"
#include "vm/vm_debug.h"

#define GDB_PACKET_MAX KIB(16)
#define GDB_BREAKPOINTS_MAX 256
#define GDB_SIGNAL_INT 2
#define GDB_SIGNAL_TRAP 5

/* A byte of guest memory that is an INT3 while the guest runs. By place in memory: address spaces
 * come and go. */
struct gdb_breakpoint {
    uint64_t linear, gpa;
    uint8_t saved;
};

struct gdb_server {
    struct gdb_config config;
    struct vm *vm;
    struct loop_fd listen_watch, watch;
    int fd; /* of the debugger; -1: none */
    struct buf in, out, answer;
    size_t sent; /* of `out` */
    bool no_ack, closing;

    bool running;           /* the debugger waits for a stop */
    unsigned cpu;           /* that registers and memory are of ("Hg") */
    struct x86_state state; /* of that CPU, if `fresh` */
    bool fresh;
    enum vm_debug_action *actions; /* of the last resume, one a CPU; owned */
    char stop[64];                 /* the last stop, as the answer to "?" */

    struct gdb_breakpoint breakpoint[GDB_BREAKPOINTS_MAX];
    unsigned breakpoint_count;
    struct accel_debug_point point[ACCEL_DEBUG_POINTS];
    unsigned point_count;
};

/* gdb.c */
void gdb_answer(struct gdb_server *gdb, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void gdb_answer_hex(struct gdb_server *gdb, const void *bytes, size_t len);
/* Two digits a byte; how many bytes there were. */
size_t gdb_parse_hex(const char *text, uint8_t *bytes, size_t max);
/* Hexadecimal; *text moves behind it. False when there is none. */
bool gdb_parse_number(const char **text, uint64_t *number);
/* Sends a packet that is no answer, but for `?`: a stop. */
void gdb_send(struct gdb_server *gdb, const char *text);

/* gdb_run.c */
struct err *gdb_state(struct gdb_server *gdb);
struct err *gdb_attach(struct gdb_server *gdb);
void gdb_detach(struct gdb_server *gdb);
void gdb_interrupt(struct gdb_server *gdb);
/* "thread:N" of Hg, T and vCont: the CPU, or -1 for all or any. */
bool gdb_parse_thread(const struct gdb_server *gdb, const char **text, int *cpu);
struct err *gdb_continue(struct gdb_server *gdb, bool step);
struct err *gdb_vcont(struct gdb_server *gdb, const char *text);
struct err *gdb_select(struct gdb_server *gdb, const char *text);

/* gdb_regs.c */
void gdb_describe(struct buf *xml);
struct err *gdb_registers_read(struct gdb_server *gdb);
struct err *gdb_registers_write(struct gdb_server *gdb, const char *text);
struct err *gdb_register_read(struct gdb_server *gdb, const char *text);
struct err *gdb_register_write(struct gdb_server *gdb, const char *text);

/* gdb_memory.c */
struct err *gdb_memory_read(struct gdb_server *gdb, const char *text);
/* `binary`: the bytes follow as they are, `len` of the packet in all. */
struct err *gdb_memory_write(struct gdb_server *gdb, const char *text, size_t len, bool binary);
struct err *gdb_point_change(struct gdb_server *gdb, const char *text, bool insert);
bool gdb_is_breakpoint(const struct gdb_server *gdb, uint64_t linear);
void gdb_breakpoints_clear(struct gdb_server *gdb);

/* gdb_query.c */
struct err *gdb_query(struct gdb_server *gdb, const char *text);

#endif
