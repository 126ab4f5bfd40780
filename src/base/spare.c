/*
 * Things that cost much to make and are used again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/spare.h"

void spare_init(struct spare *spare, void (*release)(void *thing))
{
    *spare = (struct spare){.release = release};
    lock_init(&spare->lock, LOCK_LEAF);
}

void spare_fini(struct spare *spare)
{
    for (unsigned i = 0; i < SPARE_MAX; i++)
        if (spare->thing[i])
            spare->release(spare->thing[i]);
    lock_fini(&spare->lock);
}

void *spare_take(struct spare *spare)
{
    void *found = NULL;
    lock_take(&spare->lock);
    for (unsigned i = 0; i < SPARE_MAX && !found; i++) {
        found = spare->thing[i];
        spare->thing[i] = NULL;
    }
    lock_drop(&spare->lock);
    return found;
}

void spare_give(struct spare *spare, void *take_thing)
{
    lock_take(&spare->lock);
    for (unsigned i = 0; i < SPARE_MAX && take_thing; i++) {
        if (!spare->thing[i]) {
            spare->thing[i] = take_thing;
            take_thing = NULL;
        }
    }
    lock_drop(&spare->lock);
    if (take_thing)
        spare->release(take_thing);
}
