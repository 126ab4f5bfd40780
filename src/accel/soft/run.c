/*
 * The run loop of a vCPU: events from other threads, interrupts, halting, single steps, and
 * entering blocks (Intel SDM vol. 3, 6.6-6.9 and 9.4).
 *
 * Runs on the vCPU's thread; soft_post() is for any thread. While `running` is 1 the vCPU promises
 * to look at `events` in bounded time; it sets `running` before it looks, so whoever posts an event
 * and then reads 0 knows that the event is seen before the next guest instruction.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/run.h"

#include <linux/futex.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "accel/soft/interp/ops.h"
#include "accel/soft/mem/atomic.h"
#include "accel/soft/system/segment.h"
#include "base/clock.h"
#include "base/log.h"

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

void soft_post(struct soft_vcpu *v, uint32_t events)
{
    atomic_fetch_or(&v->events, events);
    if (!atomic_load(&v->running))
        syscall(SYS_futex, &v->events, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void soft_post_nmi(struct soft_vcpu *v)
{
    if (atomic_fetch_or(&v->events, EV_NMI) & EV_NMI)
        atomic_fetch_or(&v->events, EV_NMI_AGAIN);
    soft_post(v, 0);
}

/* ---- events ---- */

static void start_ap(struct soft_vcpu *v)
{
    if (v->activity != X86_WAIT_SIPI)
        return;
    uint8_t vector = atomic_load(&v->sipi_vector);
    soft_set_seg_real(v, X86_CS, vector << 8);
    v->rip = 0;
    v->activity = X86_ACTIVE;
    soft_mode_changed(v);
}

static void init_signal(struct soft_vcpu *v)
{
    soft_reset_cpu(v, true);
    v->activity = v->index == 0 ? X86_ACTIVE : X86_WAIT_SIPI;
}

/* False when vcpu_run must return. */
static bool take_events(struct soft_vcpu *v)
{
    uint32_t events = atomic_exchange(&v->events, 0);
    if (events & EV_SYNC)
        soft_sync_answer(v);
    if (events & EV_TLB_WRITE)
        soft_tlb_flush_writes(v);
    if (events & EV_TLB_ALL) {
        soft_code_flush(v);
        soft_tlb_flush(v);
    }
    if (events & EV_CODE)
        soft_inbox(v);
    if (events & (EV_INTR | EV_EXTINT))
        v->intr_maybe = true;
    if (events & EV_NMI)
        v->nmi_pending++;
    if (events & EV_NMI_AGAIN)
        v->nmi_pending++;
    v->nmi_pending = MIN(v->nmi_pending, v->nmi_masked ? 1 : 2);
    if (events & EV_INIT)
        init_signal(v);
    if (events & EV_SIPI)
        start_ap(v);
    if (events & EV_KICK) {
        v->exit->reason = VM_EXIT_KICKED;
        return false;
    }
    return true;
}

/* ---- interrupts ---- */

static void deliver_external(struct soft_vcpu *v, int vector)
{
    v->activity = X86_ACTIVE;
    v->stats.interrupts++;
    v->external = true;
    soft_deliver(v, vector, false, false, 0, v->rip);
}

/* The vector to deliver now, acknowledged; -1 when there is none. */
static int acknowledge(struct soft_vcpu *v)
{
    struct soft_vm *vm = v->vm;
    if (v->index == 0 && atomic_load(&vm->extint) && lapic_extint_open(v->lapic))
        return vm->io->extint_ack(vm->opaque);
    int vector = lapic_pending(v->lapic);
    if (vector >= 0)
        lapic_ack(v->lapic, vector);
    else
        v->intr_maybe = false;
    return vector;
}

static void inject(struct soft_vcpu *v)
{
    if (v->exc_pending) {
        v->exc_pending = false;
        soft_deliver(v, v->exc_vector, false, v->exc_has_error, v->exc_error, v->rip);
    } else if (v->inject_vector >= 0) {
        int vector = v->inject_vector;
        v->inject_vector = -1;
        deliver_external(v, vector);
    }
}

/* Delivers what may be delivered now. The shadow that the next instruction runs under, or 0. */
static uint8_t interrupts(struct soft_vcpu *v)
{
    if (unlikely(v->exc_pending || v->inject_vector >= 0)) {
        inject(v);
        return 0;
    }
    uint8_t shadow = v->shadow;
    if (unlikely(shadow || v->debug_pending)) { /* debug traps come before interrupts */
        v->shadow = 0;
        return shadow;
    }
    if (unlikely(v->debugger.step)) /* who steps through a program does not want its interrupts */
        return 0;
    if (unlikely(v->nmi_pending && !v->nmi_masked)) {
        v->nmi_pending--;
        v->nmi_masked = true;
        deliver_external(v, VEC_NMI);
        return 0;
    }
    if (v->intr_maybe && v->rflags & FL_IF) {
        int vector = acknowledge(v);
        if (vector >= 0)
            deliver_external(v, vector);
    }
    return 0;
}

/* A halted vCPU goes on for an interrupt that it will take, and nothing else. */
static bool wakes(struct soft_vcpu *v)
{
    if (v->exc_pending || v->inject_vector >= 0 || (v->nmi_pending && !v->nmi_masked))
        return true;
    if (!v->intr_maybe || !(v->rflags & FL_IF))
        return false;
    if (v->index == 0 && atomic_load(&v->vm->extint) && lapic_extint_open(v->lapic))
        return true;
    if (lapic_pending(v->lapic) >= 0)
        return true;
    v->intr_maybe = false;
    return false;
}

/* Sleeps until an event comes. */
static void sleep_until_event(struct soft_vcpu *v)
{
    atomic_store(&v->running, 0);
    while (!atomic_load(&v->events))
        futex_wait(&v->events, 0);
    atomic_store(&v->running, 1);
}

/* ---- the loop ---- */

/* The op at v->rip. */
static const struct op *first_op(struct soft_vcpu *v)
{
    uint64_t key = jc_key(v, v->rip);
    const struct soft_jc *e = &v->space->jc[jc_index(key)];
    if (unlikely(e->key != key))
        return soft_lookup(v, v->rip);
    v->r[R_BLOCK] = v->rip;
    return e->block->ops;
}

static void run_blocks(struct soft_vcpu *v, uint8_t shadow)
{
    /* With something to deliver behind a shadow, that one instruction runs alone. */
    if (unlikely(soft_wants_step(v) || (shadow && (v->intr_maybe || v->nmi_pending)))) {
        soft_step(v, shadow == SHADOW_SS);
        return;
    }
    v->rflags &= ~FL_RF;
    const struct op *op = first_op(v);
    do
        op = op->fn(v, op);
    while (op);
}

/* Test modes poll and trace: an event is always there, so every block comes back here. */
static void look_often(struct soft_vcpu *v)
{
    atomic_fetch_or(&v->events, EV_WAKE);
    if (v->vm->modes.trace)
        log_info("trace: cpu %u cpl %u rip %#llx rsp %#llx rflags %#x", v->index, v->cpl,
                 (unsigned long long)v->rip, (unsigned long long)v->r[X86_RSP], soft_flags(v));
}

static bool loop_once(struct soft_vcpu *v)
{
    if (atomic_load_explicit(&v->events, memory_order_relaxed) && !take_events(v))
        return false;
    if (unlikely(v->activity != X86_ACTIVE)) {
        if (v->activity == X86_HALTED && wakes(v)) {
            v->activity = X86_ACTIVE;
            v->shadow = 0;
        } else {
            sleep_until_event(v);
            return true;
        }
    }
    uint8_t shadow = interrupts(v);
    if (unlikely(v->vm->modes.poll || v->vm->modes.trace))
        look_often(v);
    run_blocks(v, shadow);
    return true;
}

/* RAM may have been added between vm_create and the first run. */
static bool ready(struct soft_vcpu *v, struct vm_exit *exit)
{
    struct soft_vm *vm = v->vm;
    struct err *err = NULL;
    lock_take(&vm->table_lock);
    if (!vm->started && vm->mem->ram_count != gmem_region_count(vm->gmem))
        err = soft_mem_build(vm);
    vm->started = true;
    lock_drop(&vm->table_lock);
    if (!err)
        return true;
    snprintf(exit->error, sizeof(exit->error), "%s", err_text(err));
    exit->reason = VM_EXIT_ERROR;
    err_free(err);
    return false;
}

/*
 * #AC can meet itself for ever, in frames that user mode has made the kernel push to itself. A
 * processor hangs in that (CVE-2015-5307); a chain that ends is three long.
 */
#define UNDELIVERED_MAX 8

void soft_vcpu_run(struct accel_vcpu *vcpu, struct vm_exit *exit)
{
    struct soft_vcpu *v = (struct soft_vcpu *)vcpu;
    exit->reason = VM_EXIT_KICKED;
    exit->error[0] = 0;
    v->exit = exit;
    if (!ready(v, exit))
        return;
    v->thread = pthread_self();
    atomic_store(&v->running, 1);
    volatile unsigned undelivered = 0; /* exceptions in a row that met another in their delivery */
    int why = setjmp(v->unwind);
    if (why)
        soft_split_drop(v);
    if (why == 2)
        goto out; /* soft_fail, soft_debugger_leave */
    if (why == 1 && (++undelivered > UNDELIVERED_MAX || !soft_deliver_raised(v))) {
        v->delivering = -1;
        v->delivering_ext = v->external = false;
        exit->reason = VM_EXIT_SHUTDOWN;
        goto out;
    }
    undelivered = 0;
    if (why == 1 && v->debugger.step) { /* the exception was the step */
        exit->reason = VM_EXIT_DEBUG;
        exit->debug = ACCEL_DEBUG_STEPPED;
        goto out;
    }
    while (loop_once(v))
        ;
out:
    soft_mxcsr_leave(v);
    v->stats.exits++;
    v->stats.cpu_ns = clock_thread_ns();
    atomic_store(&v->running, 0);
}
