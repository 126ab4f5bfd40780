/*
 * tenon image map: what is where.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>

#include "cmd/image/image.h"

static bool same_kind(const struct image_extent *a, unsigned a_depth, const struct image_extent *b,
                      unsigned b_depth)
{
    return a->flags == b->flags && a_depth == b_depth &&
           (!(a->flags & IMAGE_EXTENT_HOST) || a->host + a->length == b->host);
}

static void map_line(const struct image_args *args, uint64_t start,
                     const struct image_extent *extent, unsigned depth, bool *first)
{
    bool data = extent->flags & IMAGE_EXTENT_DATA, host = extent->flags & IMAGE_EXTENT_HOST;
    if (args->json) {
        printf("%s{ \"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, "
               "\"zero\": %s, \"data\": %s, \"compressed\": %s",
               *first ? "[" : ",\n", (unsigned long long)start, (unsigned long long)extent->length,
               depth, extent->flags & IMAGE_EXTENT_ALLOCATED ? "true" : "false",
               extent->flags & IMAGE_EXTENT_ZERO ? "true" : "false", data ? "true" : "false",
               extent->flags & IMAGE_EXTENT_COMPRESSED ? "true" : "false");
        if (host)
            printf(", \"offset\": %llu", (unsigned long long)extent->host);
        printf("}");
    } else if (data) {
        if (*first)
            printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "Depth");
        printf("%#-16llx%#-16llx", (unsigned long long)start, (unsigned long long)extent->length);
        if (host)
            printf("%#-16llx", (unsigned long long)extent->host);
        else
            printf("%-16s", "compressed");
        printf("%u\n", depth);
    } else {
        return;
    }
    *first = false;
}

struct err *image_map_run(const struct image_args *args, int *status)
{
    struct image *image;
    struct image_extent held = {0}, extent;
    unsigned held_depth = 0, depth;
    uint64_t start = 0, at = args->start, end;
    bool first = true;
    int result = 0;
    (void)status;
    TRY(image_open_chain(args, args->word[0], args->format, 0, &image));
    end = image_size(image);
    if (args->length && at < end)
        end = MIN(end, at + MIN(args->length, end - at));
    while (at < end) {
        result = image_extent_chain(image, at, end - at, &extent, &depth);
        if (result)
            break;
        if (held.length && same_kind(&held, held_depth, &extent, depth)) {
            held.length += extent.length;
        } else {
            if (held.length)
                map_line(args, start, &held, held_depth, &first);
            held = extent;
            held_depth = depth;
            start = at;
        }
        at += extent.length;
    }
    if (held.length && !result)
        map_line(args, start, &held, held_depth, &first);
    if (args->json)
        printf("%s]\n", first ? "[" : "");
    image_close(image);
    return result ? err_errno(-result, "'%s': cannot read its map", args->word[0]) : NULL;
}
