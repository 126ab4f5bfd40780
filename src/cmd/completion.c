/*
 * tenon completion: scripts for bash, zsh and fish, made from the table of commands, their options,
 * and the schema's flags, so that they know what the program knows.
 *
 * What follows a command comes from its usage: words in small letters are meant as they are, VM is
 * a VM of this user, everything else is left to the shell's files.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/command.h"
#include "cmd/image/image.h"
#include "vm/schema.h"

static const struct option_spec options[] = {
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

/* The VMs of this user: those that run, and those of tenond. */
#define LIST_VMS "tenon ps --all 2>/dev/null || tenon ps 2>/dev/null"

/* A shell, and the text that is made for it. */
struct shell {
    void (*begin)(struct buf *out);
    void (*command)(struct buf *out, const struct command *command);
    void (*option)(struct buf *out, const struct command *command, const char *name,
                   const char *shape, const char *help);
    void (*command_end)(struct buf *out, const struct command *command);
    void (*end)(struct buf *out);
};

struct walk {
    const struct shell *shell;
    struct buf *out;
    const struct command *command;
};

/* ---- what a command takes ---- */

/* Is a shape a choice, "viewer|operator|admin", "bios|uefi|PATH"? */
static bool is_choice(const char *shape)
{
    return shape && strchr(shape, '|') && islower((unsigned char)*shape) && !strpbrk(shape, " [].");
}

/* The words of a text with '|' or blanks between them that are in small letters, and nothing else;
 * owned by the caller. */
static char *small_words(const char *text)
{
    static const char small[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    struct buf words = BUF_INIT;

    while (*text) {
        size_t len = strcspn(text, " |");
        if (len && strspn(text, small) >= len)
            buf_printf(&words, "%s%.*s", words.len ? " " : "", (int)len, text);
        text += len + (text[len] != 0);
    }
    buf_u8(&words, 0);
    return (char *)words.data;
}

/* What may stand behind a command, owned by the caller. */
static char *usage_words(const struct command *command)
{
    struct buf words = BUF_INIT;

    if (command != &command_image)
        return small_words(command->usage + strcspn(command->usage, " "));
    image_verb_words(&words);
    buf_u8(&words, 0);
    return (char *)words.data;
}

static bool takes_vm(const struct command *command)
{
    const char *at = strstr(command->usage, " VM");

    return at && (at[3] == ' ' || !at[3]);
}

static void add_flag(void *opaque, const char *flag, const char *shape, const char *help)
{
    const struct walk *walk = opaque;

    walk->shell->option(walk->out, walk->command, flag, shape, help);
}

static void make(const struct shell *shell, struct buf *out)
{
    struct walk walk = {.shell = shell, .out = out};

    shell->begin(out);
    for (unsigned i = 0; (walk.command = command_at(i)); i++) {
        shell->command(out, walk.command);
        for (const struct option_spec *spec = walk.command->options; spec->name; spec++)
            shell->option(out, walk.command, spec->name, spec->value, spec->help);
        if (walk.command->vm_flags)
            schema_each_flag(add_flag, &walk);
        shell->command_end(out, walk.command);
    }
    shell->end(out);
}

/* Text inside of single quotes; `special` gets a backslash in front. */
static void quoted(struct buf *out, const char *text, const char *quote, const char *special)
{
    for (; *text; text++) {
        if (*text == '\'')
            buf_text(out, quote);
        else if (strchr(special, *text))
            buf_printf(out, "\\%c", *text);
        else
            buf_u8(out, (uint8_t)*text);
    }
}

/* ---- bash ---- */

static void bash_begin(struct buf *out)
{
    buf_text(out, "# bash completion of tenon: tenon completion bash\n"
                  "_tenon() {\n"
                  "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
                  "    local words='' options=''\n"
                  "    COMPREPLY=()\n"
                  "    if ((COMP_CWORD == 1)); then\n"
                  "        COMPREPLY=($(compgen -W 'help");
    for (unsigned i = 0; command_at(i); i++)
        buf_printf(out, " %s", command_at(i)->name);
    buf_text(out, "' -- \"$cur\"))\n"
                  "        return\n"
                  "    fi\n"
                  "    case ${COMP_WORDS[1]} in\n");
}

static void add_word(void *opaque, const char *flag, const char *shape, const char *help)
{
    buf_printf(opaque, " --%s", flag);
}

static void bash_command(struct buf *out, const struct command *command)
{
    scoped(free_cleanup) char *words = usage_words(command);

    buf_printf(out, "    %s)\n", command->name);
    if (takes_vm(command))
        buf_text(out, "        words=$({ " LIST_VMS "; } | awk 'NR > 1 { print $1 }')\n");
    else if (*words)
        buf_printf(out, "        words='%s'\n", words);
    buf_text(out, "        options='");
    for (const struct option_spec *spec = command->options; spec->name; spec++)
        add_word(out, spec->name, spec->value, spec->help);
    if (command->vm_flags)
        schema_each_flag(add_word, out);
    buf_text(out, "'\n        case $prev in\n");
}

static void bash_option(struct buf *out, const struct command *command, const char *name,
                        const char *shape, const char *help)
{
    scoped(free_cleanup) char *words = is_choice(shape) ? small_words(shape) : NULL;

    if (words)
        buf_printf(out, "        --%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n",
                   name, words);
    else if (shape)
        buf_printf(out, "        --%s) return ;;\n", name); /* the default: files */
}

static void bash_command_end(struct buf *out, const struct command *command)
{
    buf_text(out, "        esac ;;\n");
}

static void bash_end(struct buf *out)
{
    buf_text(out, "    esac\n"
                  "    case $cur in\n"
                  "    -*) COMPREPLY=($(compgen -W \"$options\" -- \"$cur\")) ;;\n"
                  "    *) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")) ;;\n"
                  "    esac\n"
                  "}\n"
                  "complete -o default -F _tenon tenon\n");
}

static const struct shell bash = {bash_begin, bash_command, bash_option, bash_command_end,
                                  bash_end};

/* ---- zsh ---- */

static void zsh_text(struct buf *out, const char *text)
{
    quoted(out, text, "'\\''", "[]:\\");
}

static void zsh_begin(struct buf *out)
{
    buf_text(out, "#compdef tenon\n"
                  "# zsh completion of tenon: tenon completion zsh\n"
                  "_tenon_vms() {\n"
                  "    local -a vms=(${${(f)\"$(" LIST_VMS ")\"}[2,-1]%% *})\n"
                  "    compadd -a vms\n"
                  "}\n"
                  "_tenon() {\n"
                  "    local -a commands=(\n"
                  "        'help:Explain a command'\n");
    for (unsigned i = 0; command_at(i); i++) {
        buf_printf(out, "        '%s:", command_at(i)->name);
        zsh_text(out, command_at(i)->summary);
        buf_text(out, "'\n");
    }
    buf_text(out, "    )\n"
                  "    if ((CURRENT == 2)); then\n"
                  "        _describe command commands\n"
                  "        return\n"
                  "    fi\n"
                  "    shift words\n"
                  "    ((CURRENT--))\n"
                  "    case $words[1] in\n");
}

static void zsh_command(struct buf *out, const struct command *command)
{
    buf_printf(out, "    %s) _arguments \\\n", command->name);
}

static void zsh_option(struct buf *out, const struct command *command, const char *name,
                       const char *shape, const char *help)
{
    scoped(free_cleanup) char *words = is_choice(shape) ? small_words(shape) : NULL;

    buf_printf(out, "        '*--%s%s[", name, shape ? "=" : "");
    zsh_text(out, help);
    buf_text(out, "]");
    if (words)
        buf_printf(out, ":%s:(%s)", name, words);
    else if (shape)
        buf_printf(out, ":%s:_files", name);
    buf_text(out, "' \\\n");
}

static void zsh_command_end(struct buf *out, const struct command *command)
{
    scoped(free_cleanup) char *words = usage_words(command);

    if (takes_vm(command))
        buf_text(out, "        ':VM:_tenon_vms' ");
    else if (*words)
        buf_printf(out, "        ':word:(%s)' ", words);
    buf_text(out, "'*:file:_files' ;;\n");
}

static void zsh_end(struct buf *out)
{
    buf_text(out, "    esac\n"
                  "}\n"
                  "compdef _tenon tenon\n");
}

static const struct shell zsh = {zsh_begin, zsh_command, zsh_option, zsh_command_end, zsh_end};

/* ---- fish ---- */

static void fish_text(struct buf *out, const char *text)
{
    quoted(out, text, "\\'", "\\");
}

static void fish_begin(struct buf *out)
{
    buf_text(out, "# fish completion of tenon: tenon completion fish\n"
                  "function __tenon_vms\n"
                  "    begin; " LIST_VMS "; end | awk 'NR > 1 { print $1 }'\n"
                  "end\n"
                  "complete -c tenon -n __fish_use_subcommand -f -a help -d 'Explain a command'\n");
}

static void fish_command(struct buf *out, const struct command *command)
{
    scoped(free_cleanup) char *words = usage_words(command);
    const char *name = command->name;

    buf_printf(out, "complete -c tenon -n __fish_use_subcommand -f -a %s -d '", name);
    fish_text(out, command->summary);
    buf_text(out, "'\n");
    if (takes_vm(command))
        buf_printf(out,
                   "complete -c tenon -n '__fish_seen_subcommand_from %s' -a '(__tenon_vms)'\n",
                   name);
    else if (*words)
        buf_printf(out, "complete -c tenon -n '__fish_seen_subcommand_from %s' -a '%s'\n", name,
                   words);
}

static void fish_option(struct buf *out, const struct command *command, const char *name,
                        const char *shape, const char *help)
{
    scoped(free_cleanup) char *words = is_choice(shape) ? small_words(shape) : NULL;

    buf_printf(out, "complete -c tenon -n '__fish_seen_subcommand_from %s' -l %s", command->name,
               name);
    if (words)
        buf_printf(out, " -x -a '%s'", words);
    else if (shape)
        buf_text(out, " -r");
    buf_text(out, " -d '");
    fish_text(out, help);
    buf_text(out, "'\n");
}

static void fish_command_end(struct buf *out, const struct command *command)
{
}

static void fish_end(struct buf *out)
{
}

static const struct shell fish = {fish_begin, fish_command, fish_option, fish_command_end,
                                  fish_end};

/* ---- the command ---- */

static struct err *completion(int argc, char **argv, uint64_t started_ns, int *status)
{
    static const struct {
        const char *name;
        const struct shell *shell;
    } shells[] = {{"bash", &bash}, {"zsh", &zsh}, {"fish", &fish}};
    const struct shell *shell = NULL;
    struct buf out = BUF_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(shells) && argc == 2; i++)
        if (!strcmp(argv[1], shells[i].name))
            shell = shells[i].shell;
    if (!shell)
        return err_of(ERR_USAGE, "give a shell: bash, zsh or fish");
    make(shell, &out);
    bool good = fwrite(out.data, 1, out.len, stdout) == out.len && fflush(stdout) == 0;
    buf_fini(&out);
    return good ? NULL : err_errno(errno, "cannot write to standard output");
}

const struct command command_completion = {
    .name = "completion",
    .usage = "completion bash|zsh|fish",
    .summary = "What a shell needs to complete the words of tenon",
    .run = completion,
    .options = options,
};
