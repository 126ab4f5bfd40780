/*
 * The clock thread: one a VM, it sleeps in a timerfd until the next LAPIC timer of any vCPU.
 *
 * Programming a deadline is one timerfd_settime() by whoever programs it; the thread itself wakes
 * only when something is due. Absolute CLOCK_MONOTONIC times, no slack, no polling.
 *
 * Lock: soft_clock.lock (leaf) for the deadlines and the VM's TSC offset. LAPIC timers are expired
 * without it, because they program their next deadline.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <x86intrin.h>

#include "accel/host_tsc.h"
#include "accel/soft/apic/lapic.h"
#include "accel/soft/apic/tsc.h"
#include "base/clock.h"

/* TSC writes of the VMM that are this close to the VM's clock mean the same clock, as under KVM. */
#define SYNC_SECONDS 1

struct soft_clock {
    struct soft_vm *vm;
    struct lock lock;
    int fd;
    pthread_t thread;
    bool stop;
    int firing;        /* vCPU whose LAPIC the thread is in, or -1 */
    uint64_t armed_ns; /* what the timerfd is set to; UINT64_MAX: nothing */
    uint64_t deadline_ns[ACCEL_VCPUS_MAX];
    int64_t offset; /* VM's TSC = host TSC + this */
};

static void settime_locked(struct soft_clock *clock, uint64_t deadline_ns)
{
    /* Zero would disarm; a time of 1 ns has passed long ago and fires at once. */
    uint64_t at = MAX(deadline_ns, 1ull);
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(at / NSEC_PER_SEC), .tv_nsec = (long)(at % NSEC_PER_SEC)}};
    clock->armed_ns = deadline_ns;
    timerfd_settime(clock->fd, TFD_TIMER_ABSTIME, &when, NULL);
}

void soft_clock_arm(struct soft_vm *vm, unsigned index, uint64_t deadline_ns)
{
    struct soft_clock *clock = vm->clock;
    lock_take(&clock->lock);
    clock->deadline_ns[index] = deadline_ns;
    /* A later deadline needs nothing: the thread finds it when it wakes. */
    if (deadline_ns < clock->armed_ns)
        settime_locked(clock, deadline_ns);
    lock_drop(&clock->lock);
}

void soft_clock_detach(struct soft_vm *vm, unsigned index)
{
    struct soft_clock *clock = vm->clock;
    if (!clock)
        return;
    for (bool busy = true; busy;) {
        lock_take(&clock->lock);
        clock->deadline_ns[index] = UINT64_MAX;
        busy = clock->firing == (int)index;
        lock_drop(&clock->lock);
        if (busy)
            sched_yield();
    }
}

/* Takes one vCPU whose time has come, or arms the next deadline and answers -1. */
static int next_due(struct soft_clock *clock, unsigned *from)
{
    int due = -1;
    uint64_t now = clock_now_ns(), next = UINT64_MAX;
    lock_take(&clock->lock);
    for (unsigned i = *from; i < clock->vm->vcpu_count; i++) {
        if (clock->deadline_ns[i] <= now) {
            clock->deadline_ns[i] = UINT64_MAX;
            due = (int)i;
            *from = i + 1;
            break;
        }
    }
    clock->firing = due;
    if (due < 0) {
        for (unsigned i = 0; i < clock->vm->vcpu_count; i++)
            next = MIN(next, clock->deadline_ns[i]);
        clock->armed_ns = UINT64_MAX;
        if (next != UINT64_MAX)
            settime_locked(clock, next);
    }
    lock_drop(&clock->lock);
    return due;
}

static void *clock_main(void *opaque)
{
    struct soft_clock *clock = opaque;
    for (;;) {
        uint64_t count;
        if (read(clock->fd, &count, sizeof(count)) < 0 && errno != EINTR)
            return NULL;
        if (__atomic_load_n(&clock->stop, __ATOMIC_ACQUIRE))
            return NULL;
        unsigned from = 0;
        for (int due; (due = next_due(clock, &from)) >= 0;) {
            struct soft_vcpu *v = __atomic_load_n(&clock->vm->vcpu[due], __ATOMIC_ACQUIRE);
            if (v && v->lapic)
                lapic_timer_expire(v->lapic);
        }
    }
}

static struct err *start_thread(struct soft_clock *clock)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&clock->thread, NULL, clock_main, clock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return err_errno(error, "cannot start the clock thread");
    pthread_setname_np(clock->thread, "clock");
    return NULL;
}

struct err *soft_clock_new(struct soft_vm *vm)
{
    struct soft_clock *clock = xcalloc(1, sizeof(*clock));
    clock->vm = vm;
    clock->armed_ns = UINT64_MAX;
    clock->firing = -1;
    for (unsigned i = 0; i < ACCEL_VCPUS_MAX; i++)
        clock->deadline_ns[i] = UINT64_MAX;
    vm->tsc_khz = host_tsc_khz();
    clock->offset = -(int64_t)__rdtsc();
    clock->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    if (clock->fd < 0) {
        struct err *err = err_errno(errno, "cannot create a timer");
        free(clock);
        return err;
    }
    lock_init(&clock->lock, LOCK_LEAF);
    struct err *err = start_thread(clock);
    if (err) {
        close(clock->fd);
        lock_fini(&clock->lock);
        free(clock);
        return err;
    }
    vm->clock = clock;
    return NULL;
}

void soft_clock_free(struct soft_vm *vm)
{
    struct soft_clock *clock = vm->clock;
    if (!clock)
        return;
    __atomic_store_n(&clock->stop, true, __ATOMIC_RELEASE);
    lock_take(&clock->lock);
    settime_locked(clock, 0);
    lock_drop(&clock->lock);
    pthread_join(clock->thread, NULL);
    close(clock->fd);
    lock_fini(&clock->lock);
    free(clock);
    vm->clock = NULL;
}

/*
 * The VMM's own write, at creation, reset or restore. It comes once a vCPU, each a little later
 * than the one before: values that fit one clock become one clock.
 */
void soft_tsc_set(struct soft_vcpu *v, uint64_t value)
{
    struct soft_clock *clock = v->vm->clock;
    int64_t wanted = (int64_t)(value - v->msr.tsc_adjust - __rdtsc());
    lock_take(&clock->lock);
    int64_t apart = wanted - clock->offset;
    int64_t near = (int64_t)v->vm->tsc_khz * 1000 * SYNC_SECONDS;
    if (apart > near || apart < -near)
        clock->offset = wanted;
    v->tsc_offset = clock->offset + (int64_t)v->msr.tsc_adjust;
    lock_drop(&clock->lock);
    if (v->lapic)
        lapic_tsc_changed(v->lapic);
    kvmclock_update(v);
}

uint64_t soft_clock_system_ns(struct soft_vm *vm)
{
    lock_take(&vm->clock->lock);
    uint64_t tsc = __rdtsc() + (uint64_t)vm->clock->offset;
    lock_drop(&vm->clock->lock);
    return tsc_scale_ns(tsc, vm->tsc_khz);
}
