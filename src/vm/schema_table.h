/*
 * The shape of the schema's table, for the files that read, write, check and explain it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_SCHEMA_TABLE_H
#define TENON_VM_SCHEMA_TABLE_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

enum schema_kind {
    SCHEMA_TEXT,    /* char *, any text */
    SCHEMA_WORD,    /* char *, [A-Za-z0-9._-]{1,64}: names and ids */
    SCHEMA_PATH,    /* char *, relative paths count from the file */
    SCHEMA_COUNT,   /* unsigned */
    SCHEMA_PORT,    /* uint16_t */
    SCHEMA_SIZE,    /* uint64_t bytes; "512M" */
    SCHEMA_SWITCH,  /* bool */
    SCHEMA_CHOICE,  /* an enum, by `choices` */
    SCHEMA_MAC,     /* uint8_t[6] */
    SCHEMA_ADDRESS, /* char *, an IPv4 address */
    SCHEMA_FD,      /* int; JSON hand-over only */
    SCHEMA_FDS,     /* int[VM_QUEUES_MAX], ended by -1; JSON hand-over only */
    SCHEMA_LIST,    /* array of `object`, counted at count_offset */
};

struct schema_object;

struct schema_field {
    const char *key;  /* in files and JSON */
    const char *flag; /* of `tenon run`; NULL: none */
    enum schema_kind kind;
    size_t offset;
    uint64_t min, max;          /* SCHEMA_COUNT, SCHEMA_PORT, SCHEMA_SIZE */
    const char *const *choices; /* SCHEMA_CHOICE: names of 0, 1, ...; NULL-terminated */
    bool narrow;                /* SCHEMA_CHOICE of two, kept in a bool */
    const char *standard;       /* the default as text; NULL: none or decided by schema_finish */
    const char *metavar;        /* "SIZE" */
    const char *help;           /* one or two sentences, with what is decided when left out */
    /* SCHEMA_LIST */
    const struct schema_object *object;
    size_t count_offset;
    unsigned limit;
};

struct schema_object {
    const char *what;      /* "disk" */
    const char *id_prefix; /* "d": entries are d0, d1, ...; NULL: no ids */
    size_t size;
    const struct schema_field *fields;
    size_t count;
    const char *first_key; /* what a bare first word of the short form means; NULL: none */
    /* Reads the whole short form itself, instead of "word,key=value". Optional. */
    struct err *(*read_short)(const char *text, void *element);
};

extern const struct schema_object schema_vm, schema_disk, schema_net, schema_forward,
    schema_console;

static inline void *schema_at(const void *object, size_t offset)
{
    return (char *)(uintptr_t)object + offset;
}

/* The nearest known key, or NULL when none is near. */
const char *schema_nearest(const char *word, const char *const *known, size_t count);

/*
 * Sets a scalar field out of text. The error is only what was expected and found ("expected a size
 * such as 512M, found 'lots'"): the caller wraps it with the place.
 */
struct err *schema_set(const struct schema_field *field, void *object, const char *text);
/* Appends the field as it would be written; nothing for an absent text. */
void schema_write_text(const struct schema_field *field, const void *object, struct buf *out);
/* Sets every field that has a standard value, descriptors to -1; `element` is zeroed memory. */
void schema_init(const struct schema_object *object, void *element);
/* Frees texts and list entries; descriptors are not closed. */
void schema_fini(const struct schema_object *object, void *element);

/*
 * A fresh entry of a list, with its standard values and without an id. An error when the list is
 * full.
 */
struct err *schema_append(const struct schema_field *list, void *object, void **element);
/* Takes the last entry away again. */
void schema_drop_last(const struct schema_field *list, void *object);
/* The entry with this id, or NULL. */
void *schema_find_id(const struct schema_field *list, const void *object, const char *id);
/* Gives ids to the entries that have none: the first free PREFIX plus number. */
void schema_name_entries(const struct schema_field *list, void *object);

/* The short form of a forward: "[tcp|udp:][ADDRESS:]PORT-GUESTPORT". */
struct err *schema_read_forward(const char *text, void *element);

#endif
