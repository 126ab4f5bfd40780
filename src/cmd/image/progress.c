/*
 * tenon image: the progress bar, with rate and time left.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmd/image/image.h"

#define BAR 30
#define PERIOD_NS (100 * NSEC_PER_MSEC)

void image_progress_begin(struct image_progress *progress, const struct image_args *args,
                          uint64_t total)
{
    bool terminal = isatty(STDOUT_FILENO);
    *progress = (struct image_progress){
        .on = !args->quiet && (args->progress || args->json || (terminal && !args->qemu)),
        .line = terminal && !args->qemu,
        .json = args->json,
        .total = MAX(total, (uint64_t)1),
        .started_ns = clock_now_ns()};
    image_progress_at(progress, 0);
}

void image_progress_at(void *opaque, uint64_t done)
{
    struct image_progress *progress = opaque;
    uint64_t now = clock_now_ns();
    if (!progress->on || (done < progress->total && now - progress->shown_ns < PERIOD_NS))
        return;
    progress->shown_ns = now;
    double part = (double)done / (double)progress->total;
    if (progress->json) {
        printf("{\"done\": %llu, \"total\": %llu}\n", (unsigned long long)done,
               (unsigned long long)progress->total);
        fflush(stdout);
        return;
    }
    if (!progress->line) { /* the words of qemu-img */
        printf("    (%.2f/100%%)\r", part * 100);
        fflush(stdout);
        return;
    }
    char bar[BAR + 1], rate[24];
    double seconds = (double)(now - progress->started_ns) / NSEC_PER_SEC;
    unsigned full = (unsigned)(part * BAR);
    memset(bar, ' ', BAR);
    memset(bar, '#', MIN(full, (unsigned)BAR));
    bar[BAR] = 0;
    image_size_text(rate, sizeof(rate), seconds > 0 ? (uint64_t)((double)done / seconds) : 0);
    unsigned left = part > 0 ? (unsigned)(seconds / part - seconds) : 0;
    printf("\r[%s] %5.1f %%  %s/s  %u:%02u left \033[K", bar, part * 100, rate, left / 60,
           left % 60);
    fflush(stdout);
}

void image_progress_end(struct image_progress *progress)
{
    if (progress->on) {
        image_progress_at(progress, progress->total);
        if (!progress->json)
            printf("\n");
    }
}
