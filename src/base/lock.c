/*
 * Ranked mutexes. With TENON_DEBUG each thread remembers what it holds, in order of taking.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/lock.h"

#ifdef TENON_DEBUG
#include <stdio.h>
#include <stdlib.h>

#define HELD_MAX 16
static __thread const struct lock *held[HELD_MAX];
static __thread unsigned held_count;

/* A wrong order is a bug of ours that no input can cause or avoid: stop where it can be seen. */
static void rank_check(const struct lock *lock)
{
    if (held_count == HELD_MAX || (held_count && held[held_count - 1]->rank >= lock->rank)) {
        fprintf(stderr, "tenon: lock rank %d taken while rank %d is held\n", (int)lock->rank,
                held_count ? (int)held[held_count - 1]->rank : -1);
        abort();
    }
    held[held_count++] = lock;
}

static void rank_forget(const struct lock *lock)
{
    for (unsigned i = held_count; i-- > 0;) {
        if (held[i] == lock) {
            for (held_count--; i < held_count; i++)
                held[i] = held[i + 1];
            return;
        }
    }
    fprintf(stderr, "tenon: lock rank %d dropped but not held\n", (int)lock->rank);
    abort();
}
#else
static inline void rank_check(const struct lock *lock)
{
    (void)lock;
}

static inline void rank_forget(const struct lock *lock)
{
    (void)lock;
}
#endif

void lock_init(struct lock *lock, enum lock_rank rank)
{
    pthread_mutex_init(&lock->mutex, NULL);
    lock->rank = rank;
}

void lock_fini(struct lock *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

void lock_take(struct lock *lock)
{
    rank_check(lock);
    pthread_mutex_lock(&lock->mutex);
}

void lock_drop(struct lock *lock)
{
    rank_forget(lock);
    pthread_mutex_unlock(&lock->mutex);
}

bool lock_held(const struct lock *lock)
{
#ifdef TENON_DEBUG
    for (unsigned i = 0; i < held_count; i++) {
        if (held[i] == lock)
            return true;
    }
    return false;
#else
    (void)lock;
    return true;
#endif
}
