/*
 * tenon image: disk images: look, create, convert, check, compare, grow.
 *
 * The verbs and option letters are those of qemu-img, so that scripts work; unlike it, nothing that
 * exists is overwritten without --force.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cmd/image/image.h"

static const struct image_verb verbs[] = {
    {"amend", "amend [-f FORMAT] -o OPTIONS FILE", "Change options of an image that exists", 1, 1,
     image_amend_run, 0},
    {"bench", "bench [-f FORMAT] [-w] [-c COUNT] [-d DEPTH] [-s SIZE] [-S STEP] FILE",
     "Say how fast an image answers", 1, 1, image_bench_run, 0},
    {"check", "check [-f FORMAT] [--repair[=leaks|all]] [--json] FILE...",
     "Look for damage and leaked clusters", 1, 1, image_check_run, 0, true},
    {"commit", "commit [-f FORMAT] [-b BASE] [-d] FILE", "Put an overlay into what is below it", 1,
     1, image_commit_run, 0},
    {"compare", "compare [-f FORMAT] [-F FORMAT] [-s] FILE FILE", "Compare what two images hold", 2,
     2, image_compare_run, 2},
    {"convert", "convert [-f FORMAT] [-O FORMAT] [-c] [-o OPTIONS] [--verify] FILE... TARGET",
     "Copy an image, or several one behind the other, into another format", 2, INT_MAX,
     image_convert_run, 0},
    {"create", "create [-f FORMAT] [-o OPTIONS] [-b BACKING [-F FORMAT]] [--force] FILE [SIZE]",
     "Make an empty image", 1, 2, image_create_run, 0},
    {"dd", "dd [-f FORMAT] [-O FORMAT] [bs=N] [count=N] [skip=N] if=FILE of=TARGET",
     "Copy a stretch of an image", 2, 5, image_dd_run, 0},
    {"info", "info [-f FORMAT] [--json] FILE...", "Say what an image is", 1, 1, image_info_run, 0,
     true},
    {"map", "map [-f FORMAT] [--json] FILE", "List what is where", 1, 1, image_map_run, 0},
    {"measure", "measure [-f FORMAT] [-O FORMAT] [-o OPTIONS] [--size N | FILE]",
     "Say what a converted image would take", 0, 1, image_measure_run, 0},
    {"rebase", "rebase [-f FORMAT] [-u] -b BACKING [-F FORMAT] FILE",
     "Put another image below an overlay", 1, 1, image_rebase_run, 0},
    {"resize", "resize [-f FORMAT] [--shrink] FILE [+-]SIZE", "Make an image larger or smaller", 2,
     2, image_resize_run, 0},
    {"snapshot", "snapshot [-f FORMAT] [-l | -c NAME | -a NAME | -d NAME] FILE",
     "List, create, apply or delete internal snapshots", 1, 1, image_snapshot_run, 0},
};

void image_verb_words(struct buf *out)
{
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        buf_printf(out, "%s ", verbs[i].name);
    buf_text(out, "serve");
}

static struct err *find_verb(const char *name, const struct image_verb **verb)
{
    const char *names[ARRAY_SIZE(verbs) + 1] = {0}, *near;
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
        names[i] = verbs[i].name;
        if (!strcmp(verbs[i].name, name)) {
            *verb = &verbs[i];
            return NULL;
        }
    }
    near = nearest_name(name, names);
    if (near)
        return err_of(ERR_USAGE, "image: unknown verb '%s': did you mean '%s'?", name, near);
    return err_of(ERR_USAGE, "image: unknown verb '%s': see `tenon help image`", name);
}

/* The worst status of all files counts; what cannot be looked at at all ends it. */
static struct err *run_each(const struct image_verb *verb, struct image_args *args, int *status)
{
    int words = args->word_count, worst = 0;
    char **word = args->word;
    if (!verb->several || words == 1)
        return verb->run(args, status);
    struct err *err = NULL;
    args->several = true;
    for (int i = 0; i < words && !err; i++) {
        args->word = word + i;
        args->word_count = 1;
        if (i && !args->json)
            printf("\n");
        err = verb->run(args, status);
        worst = MAX(worst, *status);
    }
    args->word = word;
    *status = worst;
    return err;
}

static struct err *run(int argc, char **argv, bool qemu, int *status)
{
    const struct image_verb *verb = NULL;
    if (argc < 2)
        return err_of(ERR_USAGE, "image: no verb: see `tenon help image`");
    if (!strcmp(argv[1], "serve"))
        return image_serve(argc - 1, argv + 1);
    *status = 1;
    TRY(find_verb(argv[1], &verb));
    *status = 0;
    struct image_args args = {.qemu = qemu};
    signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error like others */
    struct err *err = image_args_parse(&args, verb, argc - 2, argv + 2);
    if (!err)
        err = run_each(verb, &args, status);
    if (err && !*status)
        *status = verb->failed ? verb->failed : 1;
    image_args_fini(&args);
    return err;
}

static struct err *image(int argc, char **argv, uint64_t started_ns, int *status)
{
    (void)started_ns;
    return run(argc, argv, false, status);
}

int image_as_qemu_img(int argc, char **argv)
{
    int status = 0;
    struct buf text = BUF_INIT;
    if (argc > 1 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))) {
        printf("qemu-img version 7.2.0 (tenon " TENON_VERSION ")\n");
        return 0;
    }
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        command_help(&text, &command_image);
        status = fwrite(text.data, 1, text.len, stdout) != text.len || fflush(stdout);
        buf_fini(&text);
        return status;
    }
    struct err *err = run(argc, argv, true, &status);
    if (err)
        command_say_error("qemu-img", err);
    else if (fflush(stdout))
        status = 1;
    err_free(err);
    return status;
}

static const struct option_spec options[] = {
    {"format", "FORMAT", "-f: what the image is; without it, its first bytes tell."},
    {"output-format", "FORMAT", "-O: what a converted image becomes; raw if not given."},
    {"options", "NAME=VALUE,...", "-o: options of the image's format, as qemu-img names them."},
    {"compress", NULL, "-c: compress (convert)."},
    {"backing-file", "FILE",
     "-b, -B for convert: the image below; -F: its format, which is never guessed."},
    {"no-create", NULL, "-n: convert into an image that exists."},
    {"force", NULL, "Overwrite what exists, and do not ask whether there is room."},
    {"verify", NULL, "Read a converted image again and compare it with its source."},
    {"repair", NULL,
     "Free leaked clusters (check); --repair=all also sets counts that are too low."},
    {"snapshot", "NAME", "-l: convert or measure a snapshot of the image."},
    {"sparse", "SIZE", "-S: zeros shorter than this are written; 0: all are (convert)."},
    {"copy-offloading", NULL, "-C: the kernel copies between raw files (convert)."},
    {"salvage", NULL, "What cannot be read becomes zeros (convert)."},
    {"target-is-zero", NULL, "With -n: the target reads as zeros already."},
    {"rate-limit", "BYTES", "-r: a second (convert, commit)."},
    {"drop", NULL, "-d: leave the overlay as it is (commit)."},
    {"unchecked", NULL, "-u: change the name only (rebase); do not look for the backing (create)."},
    {"target-cache", "MODE", "-t: unsafe does not wait until what is written is on the disk."},
    {"json", NULL, "Print JSON, as does --output=json; progress as lines of JSON."},
    {"progress", NULL, "-p: show progress; on a terminal it is shown anyhow, unless -q."},
    {"force-share", NULL, "-U: read an image although a VM writes to it."},
    {"key-file", "FILE", "The passphrase of an encrypted image: all of the file's bytes."},
    {"object", "secret,id=ID,file=FILE", "A passphrase, as qemu-img takes it."},
    {"image-opts", NULL, "Names are driver=FORMAT,file.filename=FILE,key-secret=ID."},
    {"workers", "N", "-m: threads that read and compress."},
    {"strict", NULL, "-s: images of different size differ (compare)."},
    {"size", "BYTES", "Measure an empty disk of this size."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

static void help_more(struct buf *out)
{
    buf_text(out, "\nVerbs:\n");
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        buf_printf(out, "  %s\n      %s.\n", verbs[i].usage, verbs[i].summary);
    image_serve_help(out);
    buf_text(out, "\nFormats:");
    for (unsigned i = 0; image_driver_at(i); i++)
        buf_printf(out, " %s", image_driver_name(image_driver_at(i)));
    buf_text(out, "\n");
}

const struct command command_image = {
    .name = "image",
    .usage = "image VERB [OPTIONS] FILE ...",
    .summary = "Look at, create, convert, check and grow disk images",
    .run = image,
    .options = options,
    .help_more = help_more,
};
