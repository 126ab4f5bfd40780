/*
 * `tenon image`: what its verbs share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_IMAGE_IMAGE_H
#define TENON_CMD_IMAGE_IMAGE_H

#include <jansson.h>

#include "block/image.h"
#include "cmd/command.h"

#define IMAGE_OPTIONS_MAX 32
#define IMAGE_CHAIN_MAX 64

/* The words of one call. A letter means what its verb says: args.c has the table. */
struct image_args {
    const char *verb;
    const char *format, *out_format; /* -f, -O (compare: -F is backing_format) */
    const char *backing, *backing_format;
    struct image_option option[IMAGE_OPTIONS_MAX];
    char *option_text[IMAGE_OPTIONS_MAX]; /* owned copies behind `option` */
    unsigned option_count;
    bool compress, progress, quiet, no_create, json, force, unlocked, backing_chain, strict;
    bool shrink, unchecked;
    enum { REPAIR_NONE, REPAIR_LEAKS, REPAIR_ALL } repair;
    const char *snapshot; /* name, for -c -a -d of `snapshot` */
    char snapshot_action;
    const char *sparse;
    unsigned workers;
    char **word; /* what is no option */
    int word_count;
};

struct image_verb {
    const char *name, *usage, *summary;
    int words_min, words_max;
    struct err *(*run)(const struct image_args *args, int *status);
};

/* args.c: the words behind the verb. image_args_fini() on error too. */
struct err *image_args_parse(struct image_args *args, const struct image_verb *verb, int argc,
                             char **argv);
void image_args_fini(struct image_args *args);
/* Bytes with an optional k, M, G, T, P; "+" before it is the caller's. */
struct err *image_parse_size(const char *text, uint64_t *size);

/* open.c */
const struct block_driver *image_format(const char *name, struct err **err);
/* Opens one layer, no backing. */
struct err *image_open_one(const struct image_args *args, const char *path, const char *format,
                           unsigned flags, struct image **image);
/* Opens the image and its backing chain. */
struct err *image_open_chain(const struct image_args *args, const char *path, const char *format,
                             unsigned flags, struct image **image);
/* The backing chain of an image that is open already. */
struct err *image_open_backing(const struct image_args *args, const char *path, bool probed,
                               struct image *image);
/* The name of a backing file, resolved against its overlay; refuses what is no plain file name. */
struct err *image_backing_path(const char *overlay, const char *name, char **path);
/* Why a file could not be opened, in a sentence. */
struct err *image_open_error(const char *path, int error);
/* How drivers reach the other files of an image at `path`. */
void image_files_init(struct image_files *files, const struct image_args *args, const char *path);
void image_files_fini(struct image_files *files);

/* new.c: a file that does not exist yet under its name, created without one. */
struct image_new {
    char *path, *temporary; /* temporary: NULL while it has no name */
    bool force;
    int fd; /* a duplicate, for the naming */
};
struct err *image_new_begin(const char *path, bool force, struct image_new *file,
                            struct image **image);
struct err *image_new_keep(struct image_new *file);
void image_new_fini(struct image_new *file);

/* disk.c: the format of a VM's disk and the descriptors of its backing chain. */
struct vm_disk;
struct err *image_resolve_disk(struct vm_disk *disk);

/* report.c: what goes to standard output. */
struct err *image_print_json(json_t *take_json);
/* A name out of an image, for a terminal: no control characters. */
void image_print_name(const char *name);
/* The same for JSON, which wants UTF-8. */
json_t *image_text_json(const char *text);
/* "1.5 GiB" */
void image_size_text(char *out, size_t room, uint64_t bytes);

/* progress.c */
struct image_progress {
    bool on, line;
    uint64_t total, started_ns, shown_ns;
};
void image_progress_begin(struct image_progress *progress, const struct image_args *args,
                          uint64_t total);
void image_progress_at(struct image_progress *progress, uint64_t done);
void image_progress_end(struct image_progress *progress);

/* A file a verb. */
struct err *image_check_run(const struct image_args *args, int *status);
struct err *image_compare_run(const struct image_args *args, int *status);
struct err *image_convert_run(const struct image_args *args, int *status);
struct err *image_create_run(const struct image_args *args, int *status);
struct err *image_info_run(const struct image_args *args, int *status);
struct err *image_map_run(const struct image_args *args, int *status);
struct err *image_resize_run(const struct image_args *args, int *status);
struct err *image_snapshot_run(const struct image_args *args, int *status);

#endif
