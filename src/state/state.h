/*
 * Save and restore: one table of tagged fields describes an object's state.
 *
 * The same table serves snapshot, migration, in-place upgrade and the JSON dump of the tests. On
 * the wire a section is one object: name, version, then fields as little-endian tag, length, value,
 * and a CRC-32; an end mark carries the count of sections. See state.c for the exact layout.
 *
 * An incoming stream is hostile. Fields are decoded into a copy of the object, `check` judges that
 * copy, and only then are the fields committed and `post_load` called: a refused section leaves
 * the object as it was. An unknown tag, a missing field, a wrong length or count is an error.
 *
 * The caller quiesces the object and holds its lock. Nothing here allocates in proportion to a
 * number read from the stream before that number was compared with the live object.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_STATE_STATE_H
#define TENON_STATE_STATE_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

enum state_type {
    STATE_TYPE_BOOL,
    STATE_TYPE_U8,
    STATE_TYPE_U16,
    STATE_TYPE_U32,
    STATE_TYPE_U64,
    STATE_TYPE_BYTES,  /* `size` bytes inside the object */
    STATE_TYPE_STRUCT, /* an embedded struct, or an array of `count` of them, by `sub` */
};

struct state_table;

struct state_field {
    uint16_t tag;   /* unique in the table, never reused for another meaning */
    uint16_t since; /* version that introduced it; older streams leave the live value */
    enum state_type type;
    const char *name;
    size_t offset;
    size_t size;    /* bytes of one scalar, or of all of an embedded field */
    uint32_t count; /* elements of a fixed array of scalars, 1 for a single one */
    /*
     * The field is a pointer to an allocated array. The element count is the live object's
     * uint32_t at `count_offset`: it belongs to the configuration, and the stream must agree.
     */
    bool pointer;
    size_t count_offset;
    const struct state_table *sub;
};

struct state_table {
    const char *name;
    uint16_t version;     /* written */
    uint16_t min_version; /* oldest that is still read */
    size_t size;          /* sizeof the object */
    const struct state_field *fields;
    size_t field_count;
    /* Brings derived fields up to date before saving. Optional. */
    void (*pre_save)(void *object);
    /* Judges a decoded copy: indexes in range, flags known. Optional. Must not change the world. */
    struct err *(*check)(const void *staged);
    /* Recomputes what is derived: timers, interrupt levels, mappings. Optional, cannot fail. */
    void (*post_load)(void *object);
};

#define STATE_SCALAR_(tag_, type_, ctype_, struct_, member_)                                       \
    {                                                                                              \
        .tag = (tag_), .since = 1, .type = (type_), .name = #member_,                              \
        .offset = offsetof(struct struct_, member_), .size = sizeof(ctype_),                       \
        .count = sizeof(((struct struct_ *)0)->member_) / sizeof(ctype_)                           \
    }
/* Scalars and fixed arrays of scalars; the member's C type must have exactly this width. */
#define STATE_BOOL(tag, struct_, member) STATE_SCALAR_(tag, STATE_TYPE_BOOL, bool, struct_, member)
#define STATE_U8(tag, struct_, member) STATE_SCALAR_(tag, STATE_TYPE_U8, uint8_t, struct_, member)
#define STATE_U16(tag, struct_, member)                                                            \
    STATE_SCALAR_(tag, STATE_TYPE_U16, uint16_t, struct_, member)
#define STATE_U32(tag, struct_, member)                                                            \
    STATE_SCALAR_(tag, STATE_TYPE_U32, uint32_t, struct_, member)
#define STATE_U64(tag, struct_, member)                                                            \
    STATE_SCALAR_(tag, STATE_TYPE_U64, uint64_t, struct_, member)
#define STATE_BYTES(tag_, struct_, member_)                                                        \
    {                                                                                              \
        .tag = (tag_), .since = 1, .type = STATE_TYPE_BYTES, .name = #member_,                     \
        .offset = offsetof(struct struct_, member_),                                               \
        .size = sizeof(((struct struct_ *)0)->member_), .count = 1                                 \
    }
/* An embedded struct or fixed array of structs, each described by `table_`; its size tells how
 * many. */
#define STATE_STRUCT(tag_, struct_, member_, table_)                                               \
    {                                                                                              \
        .tag = (tag_), .since = 1, .type = STATE_TYPE_STRUCT, .name = #member_,                    \
        .offset = offsetof(struct struct_, member_),                                               \
        .size = sizeof(((struct struct_ *)0)->member_), .sub = (table_)                            \
    }
/* An allocated array of structs: pointer member, and the uint32_t member that counts it. */
#define STATE_ARRAY(tag_, struct_, member_, count_member_, element_, table_)                       \
    {                                                                                              \
        .tag = (tag_), .since = 1, .type = STATE_TYPE_STRUCT, .name = #member_,                    \
        .offset = offsetof(struct struct_, member_), .size = sizeof(struct element_),              \
        .pointer = true, .count_offset = offsetof(struct struct_, count_member_), .sub = (table_)  \
    }

/* Appends sections to a stream. */
struct state_writer {
    struct buf out;
    uint32_t sections;
};

void state_writer_init(struct state_writer *writer);
void state_writer_fini(struct state_writer *writer);
/* One section: `instance` tells objects of one table apart ("virtio-blk", "d0"). */
void state_save(struct state_writer *writer, const struct state_table *table, const char *instance,
                void *object);
/* The end mark. The stream is then writer->out. */
void state_writer_end(struct state_writer *writer);

/* Reads a stream that lies whole in memory (borrowed). */
struct state_reader {
    const uint8_t *data;
    size_t len;
    size_t at;
    uint32_t sections;
};

struct err *state_reader_init(struct state_reader *reader, const void *data, size_t len);
/* The next section must be this table and instance. */
struct err *state_load(struct state_reader *reader, const struct state_table *table,
                       const char *instance, void *object);
/* The end mark must follow, and nothing after it. */
struct err *state_reader_end(struct state_reader *reader);

/* A readable dump of one object, for golden tests. */
void state_dump_json(const struct state_table *table, const void *object, struct buf *out);

#endif
