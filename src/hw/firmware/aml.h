/*
 * A writer of AML, the byte code of ACPI tables (ACPI 6.4, chapter 20), and of resource descriptors
 * (6.4). Appends to a struct buf; what opens with a package length is closed by aml_end().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_FIRMWARE_AML_H
#define TENON_HW_FIRMWARE_AML_H

#include "base/base.h"
#include "base/buf.h"

#define AML_DEPTH_MAX 12

struct aml {
    struct buf *out;
    size_t open[AML_DEPTH_MAX]; /* where the contents of what is open begin */
    unsigned depth;
};

/* Paths are as in ASL: "\\_SB", "_SB.PCI0", "COM1"; segments of up to four characters. */
void aml_path(struct aml *aml, const char *path);
void aml_integer(struct aml *aml, uint64_t value);
void aml_string(struct aml *aml, const char *text);
/* "PNP0A08" as the compressed integer that _HID may be. */
void aml_eisa_id(struct aml *aml, const char *id);
void aml_uuid(struct aml *aml, const char *text);
void aml_op(struct aml *aml, unsigned opcode);

/* Name(path, ...): the object follows. */
void aml_name(struct aml *aml, const char *path);
void aml_name_integer(struct aml *aml, const char *path, uint64_t value);

void aml_scope(struct aml *aml, const char *path);
void aml_device(struct aml *aml, const char *name);
void aml_method(struct aml *aml, const char *name, unsigned arguments, bool serialized);
void aml_package(struct aml *aml, unsigned elements);
void aml_if(struct aml *aml);
void aml_else(struct aml *aml);
void aml_end(struct aml *aml);

enum aml_space { AML_SYSTEM_MEMORY = 0, AML_SYSTEM_IO = 1 };
void aml_region(struct aml *aml, const char *name, enum aml_space space, uint64_t base,
                uint64_t length);
/* A field of one 32-bit unit at the start of the region. */
void aml_field32(struct aml *aml, const char *region, const char *name);

enum aml_opcode {
    AML_ZERO = 0x00,
    AML_LOCAL0 = 0x60,
    AML_ARG0 = 0x68,
    AML_STORE = 0x70,
    AML_AND = 0x7b,
    AML_OR = 0x7d,
    AML_NOTIFY = 0x86,
    AML_CREATE_DWORD_FIELD = 0x8a,
    AML_EQUAL = 0x93,
    AML_RETURN = 0xa4,
};

/* A resource template: descriptors between begin and end make one buffer. */
void aml_resources(struct aml *aml, struct buf *scratch);
void aml_resources_end(struct aml *aml, struct buf *scratch);
void aml_res_io(struct buf *out, uint16_t base, uint8_t length);
void aml_res_irq(struct buf *out, unsigned irq);
void aml_res_memory32(struct buf *out, uint32_t base, uint32_t length);
/* Extended interrupt, active high. */
void aml_res_interrupt(struct buf *out, uint32_t gsi, bool level);
enum aml_window { AML_WINDOW_MEMORY = 0, AML_WINDOW_IO = 1, AML_WINDOW_BUS = 2 };
/* Address space that a bridge passes on; the width of the descriptor follows the kind and size. */
void aml_res_window(struct buf *out, enum aml_window kind, uint64_t base, uint64_t length);

#endif
