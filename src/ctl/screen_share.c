/*
 * Screens that viewers share. See screen_share.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "ctl/screen_share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/socket.h"
#include "display/surface.h"
#include "vm/vm_screen.h"

_Static_assert((int)SURFACE_LEFT == MOUSE_LEFT && (int)SURFACE_RIGHT == MOUSE_RIGHT &&
                   (int)SURFACE_MIDDLE == MOUSE_MIDDLE,
               "buttons have the same bits");

#define SHARES_MAX 8
#define MESSAGES_A_ROUND 64 /* so that other descriptors of the loop get their turn */

struct screen_share {
    struct list link;
    struct loop_fd watch;
    struct vm *vm;
    int fd;
    struct surface surface; /* pixels NULL: the viewer has not given any memory yet */
    uint8_t buttons;
    uint16_t x, y; /* where the pointer was */
    bool placed;
};

static void share_free(struct screen_share *share)
{
    loop_fd_remove(&share->watch);
    list_remove(&share->link);
    if (share->surface.pixels)
        munmap(share->surface.pixels, SURFACE_SIZE);
    close(share->fd);
    free(share);
}

/* Memory that its owner can take away would end us by SIGBUS: it must be sealed. */
static bool map_memory(struct screen_share *share, int fd)
{
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);

    if (share->surface.pixels || seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &status) < 0 ||
        (uint64_t)status.st_size < SURFACE_SIZE)
        return false;
    void *memory = mmap(NULL, SURFACE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return false;
    share->surface.pixels = memory;
    return true;
}

static bool refresh(struct screen_share *share)
{
    struct surface_message frame = {.type = SURFACE_FRAME};
    uint8_t bytes[SURFACE_MESSAGE_MAX];
    struct picture picture;

    if (!share->surface.pixels)
        return false;
    struct err *err = vm_screen_picture(share->vm, &picture);
    if (err) {
        err_free(err);
        return false;
    }
    frame.count = surface_draw(&share->surface, &picture, frame.rects);
    picture_fini(&picture);
    frame.width = (uint16_t)share->surface.width;
    frame.height = (uint16_t)share->surface.height;
    size_t len = surface_message_put(&frame, bytes);
    return send(share->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)len;
}

/* What the VM lacks, a keyboard or a mouse, is no reason to stop looking. */
static void input(struct screen_share *share, const struct vm_input *what)
{
    err_free(vm_screen_input(share->vm, what));
}

static int dots(int from, int to, unsigned side)
{
    return (int)(to * (int)side / (SURFACE_POINT_MAX + 1)) -
           (int)(from * (int)side / (SURFACE_POINT_MAX + 1));
}

/* A tablet is told the place. A mouse is moved by as many dots as the viewer's pointer. */
static void move(struct screen_share *share, uint16_t x, uint16_t y)
{
    struct vm_input to = {.absolute = true, .x = x, .y = y};
    struct vm_input by = {.x = dots(share->x, x, share->surface.width),
                          .y = dots(share->y, y, share->surface.height)};
    struct err *err = vm_screen_input(share->vm, &to);

    if (err && share->placed && (by.x || by.y))
        input(share, &by);
    err_free(err);
    share->x = x;
    share->y = y;
    share->placed = true;
}

static void point(struct screen_share *share, const struct surface_message *message)
{
    uint8_t pressed = message->buttons & (uint8_t)~share->buttons;
    uint8_t released = share->buttons & (uint8_t)~message->buttons;

    if (!share->placed || message->x != share->x || message->y != share->y)
        move(share, message->x, message->y);
    if (pressed)
        input(share, &(struct vm_input){.buttons = pressed, .down = true});
    if (released)
        input(share, &(struct vm_input){.buttons = released});
    if (message->wheel)
        input(share, &(struct vm_input){.wheel = message->wheel});
    share->buttons = message->buttons;
}

/* False: the viewer does not know what it says. */
static bool serve(struct screen_share *share, const struct surface_message *message, int fd)
{
    switch (message->type) {
    case SURFACE_SHARE:
        return map_memory(share, fd);
    case SURFACE_REFRESH:
        return refresh(share);
    case SURFACE_KEY:
        input(share, &(struct vm_input){.key = message->key, .down = message->down});
        return true;
    case SURFACE_POINTER:
        point(share, message);
        return true;
    case SURFACE_FRAME:
        break;
    }
    return false;
}

static void on_socket(void *opaque, uint32_t events)
{
    struct screen_share *share = opaque;

    for (unsigned i = 0; i < MESSAGES_A_ROUND; i++) {
        uint8_t bytes[16];
        struct surface_message message;
        scoped(fd_cleanup) int fd = -1;
        ssize_t n = socket_receive_fd(share->fd, bytes, sizeof(bytes), &fd);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        bool understood =
            n > 0 && surface_message_get(&message, bytes, (size_t)n) && serve(share, &message, fd);
        if (understood)
            continue;
        if (n > 0)
            log_warn("a viewer of the screen sent what is no message, or did not read");
        share_free(share);
        return;
    }
}

struct err *screen_share_new(struct loop *loop, struct vm *vm, struct list *shares, int take_fd)
{
    struct err *err = vm_screen_check(vm);
    struct screen_share *share;
    unsigned count = 0;

    list_for_each (share, shares, link)
        count++;
    if (!err && count == SHARES_MAX)
        err = err_of(ERR_BUSY, "%d viewers share the screen already", SHARES_MAX);
    if (err) {
        close(take_fd);
        return err;
    }
    share = xcalloc(1, sizeof(*share));
    share->vm = vm;
    share->fd = take_fd;
    list_append(shares, &share->link);
    err = loop_fd_add(loop, &share->watch, take_fd, EPOLLIN, on_socket, share);
    if (err)
        share_free(share);
    return err;
}

void screen_shares_free(struct list *shares)
{
    while (!list_empty(shares))
        share_free(list_first(shares, struct screen_share, link));
}
