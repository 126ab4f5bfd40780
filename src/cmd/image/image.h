/*
 * `tenon image`: what its verbs share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_IMAGE_IMAGE_H
#define TENON_CMD_IMAGE_IMAGE_H

#include <jansson.h>

#include "block/image.h"
#include "block/job/parallel.h"
#include "cmd/command.h"

#define IMAGE_OPTIONS_MAX 32
#define IMAGE_CHAIN_MAX 64
#define IMAGE_SECRETS_MAX 8

/* A passphrase that --object or --key-file gave. */
struct image_secret {
    const char *id;
    char *bytes; /* owned */
    size_t length;
};

/* The words of one call. A letter means what its verb says: args.c has the table. */
struct image_args {
    const char *verb;
    bool qemu;                       /* called as qemu-img: its words, its ways */
    const char *format, *out_format; /* -f, -O (compare: -F is backing_format) */
    const char *backing, *backing_format;
    struct image_option option[IMAGE_OPTIONS_MAX];
    char *text[IMAGE_OPTIONS_MAX]; /* owned copies behind `option` and others */
    unsigned option_count, text_count;
    bool compress, progress, quiet, no_create, json, force, unlocked, backing_chain, strict;
    bool offload, shrink, unchecked, salvage, target_is_zero, verify, write_zeros, drop, write;
    bool opts, several; /* several: one of the files of this call */
    enum { REPAIR_NONE, REPAIR_LEAKS, REPAIR_ALL } repair;
    const char *snapshot; /* name, for -c -a -d of `snapshot`, -l of convert */
    char snapshot_action;
    const char *cache;      /* -t, of what is written */
    uint32_t sparse_size;   /* bytes; 0: the format's own */
    uint64_t rate;          /* bytes a second; 0: no limit */
    uint64_t size;          /* measure --size */
    uint64_t start, length; /* map: bytes; length 0: all */
    unsigned workers;
    uint64_t count, depth, step, buffer, pattern, flush_interval; /* bench */
    const char *key_file;
    struct image_secret secret[IMAGE_SECRETS_MAX];
    unsigned secret_count;
    const char *key_secret; /* of the image that is opened, by --image-opts */
    char **word;            /* what is no option */
    int word_count;
};

struct image_verb {
    const char *name, *usage, *summary;
    int words_min, words_max;
    struct err *(*run)(const struct image_args *args, int *status);
    int failed;   /* exit status of a failure as qemu-img; 0: 1 */
    bool several; /* takes any number of files, one after the other; qemu-img takes one */
};

/* args.c: the words behind the verb. image_args_fini() on error too. */
struct err *image_args_parse(struct image_args *args, const struct image_verb *verb, int argc,
                             char **argv);
void image_args_fini(struct image_args *args);
/* Text that lives as long as `args`; taken. NULL: too many. */
char *image_args_keep(struct image_args *args, char *take_text);
/* Bytes with an optional k, M, G, T, P; "+" before it is the caller's. */
struct err *image_parse_size(const char *text, uint64_t *size);
/* Moves -o backing_file= and backing_fmt= to where -b and -F are. */
void image_backing_options(struct image_args *args);
/* May what is written be lost in a power cut? */
bool image_args_unsafe(const struct image_args *args);

/* secret.c: passphrases of encrypted images. */
struct err *image_secret_object(struct image_args *args, const char *definition);
/* Unlocks an image that is encrypted; `id` is the secret's, or NULL. */
struct err *image_unlock_open(const struct image_args *args, const char *path, const char *id,
                              struct image *image);
/* image_create(), with a passphrase where the options ask for encryption. */
struct err *image_create_locked(const struct image_args *args, const char *path, struct image *file,
                                const struct block_driver *driver, struct image_create *create);

/* opts.c: --image-opts driver=qcow2,file.filename=x */
struct err *image_opts_parse(struct image_args *args, char **word, const char **format);

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
/* Several, each with its chain, as one disk after the other, for reading. */
struct err *image_open_joined(const struct image_args *args, char *const *path, unsigned paths,
                              const char *format, struct image **image);
/* The same, opened once for each worker; `first` (borrowed, may be NULL) is the first. */
struct image_readers {
    struct image *image[JOB_WORKERS_MAX];
    unsigned count;
    bool borrowed; /* the first */
};
struct err *image_readers_open(struct image_readers *readers, const struct image_args *args,
                               char *const *path, unsigned paths, const char *format,
                               struct image *first, unsigned count);
void image_readers_close(struct image_readers *readers);
/* Flushes and closes what was written, unless `err`; either error, about `path`. */
struct err *image_finish(struct image *image, struct err *take_err, const char *path);

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
/* What the first bytes of a file and the end of its name agree on. */
struct err *image_guess(struct image *file, const char *path, char **format);
/* The same; the descriptor is taken. */
struct err *image_guess_format(int take_fd, const char *path, char **format);

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
    bool on, line, json;
    uint64_t total, started_ns, shown_ns;
};
void image_progress_begin(struct image_progress *progress, const struct image_args *args,
                          uint64_t total);
/* `progress` is a struct image_progress: fits a job's callback. */
void image_progress_at(void *progress, uint64_t done);
void image_progress_end(struct image_progress *progress);

/* image.c: the verbs, with blanks between them. */
void image_verb_words(struct buf *out);

/* serve.c: a verb with options of its own; serves until a signal. */
struct err *image_serve(int argc, char **argv);
void image_serve_help(struct buf *out);
/* The same for the manual page. */
void image_serve_man(struct buf *out);

/* A file a verb. */
struct err *image_amend_run(const struct image_args *args, int *status);
struct err *image_bench_run(const struct image_args *args, int *status);
struct err *image_check_run(const struct image_args *args, int *status);
struct err *image_commit_run(const struct image_args *args, int *status);
struct err *image_compare_run(const struct image_args *args, int *status);
struct err *image_convert_run(const struct image_args *args, int *status);
struct err *image_create_run(const struct image_args *args, int *status);
struct err *image_dd_run(const struct image_args *args, int *status);
struct err *image_info_run(const struct image_args *args, int *status);
struct err *image_map_run(const struct image_args *args, int *status);
struct err *image_measure_run(const struct image_args *args, int *status);
struct err *image_rebase_run(const struct image_args *args, int *status);
struct err *image_resize_run(const struct image_args *args, int *status);
struct err *image_snapshot_run(const struct image_args *args, int *status);

#endif
