/*
 * Intrusive doubly linked list: the link lives in the element, the head is a link of its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_LIST_H
#define TENON_BASE_LIST_H

#include "base/base.h"

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *head)
{
    head->next = head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_insert_before(struct list *position, struct list *item)
{
    item->next = position;
    item->prev = position->prev;
    position->prev->next = item;
    position->prev = item;
}

static inline void list_append(struct list *head, struct list *item)
{
    list_insert_before(head, item);
}

static inline void list_prepend(struct list *head, struct list *item)
{
    list_insert_before(head->next, item);
}

/* Leaves `item` a list of its own, so that removing it again does nothing. */
static inline void list_remove(struct list *item)
{
    item->next->prev = item->prev;
    item->prev->next = item->next;
    list_init(item);
}

#define list_entry(link, type, member) container_of(link, type, member)
#define list_first(head, type, member) list_entry((head)->next, type, member)

/* The current element may be removed while walking. */
#define list_for_each(item, head, member)                                                          \
    for (__typeof__(item) item##_next_ =                                                           \
             ((item) = list_entry((head)->next, __typeof__(*item), member),                        \
             list_entry((item)->member.next, __typeof__(*item), member));                          \
         &(item)->member != (head);                                                                \
         (item) = item##_next_, item##_next_ = list_entry(item##_next_->member.next,               \
                                                          __typeof__(*item), member))

#endif
