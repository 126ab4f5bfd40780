/*
 * SIMD memory accesses by element: masked moves and gathers (Intel SDM vol. 2: VMASKMOV, VPMASKMOV,
 * MASKMOVDQU, VGATHER, VPGATHER). An element whose mask is clear is not accessed and cannot fault.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/simd/simd.h"

/* Byte `at` of a 256-bit register: its halves lie apart in the image. */
static uint8_t *lane(struct soft_vcpu *v, unsigned reg, unsigned at)
{
    return at < 16 ? simd_xmm(v, reg) + at : simd_ymm_high(v, reg) + at - 16;
}

static bool selected(struct soft_vcpu *v, unsigned mask, unsigned at, unsigned size)
{
    return *lane(v, mask, at + size - 1) & 0x80;
}

static unsigned mask_element(const struct insn *insn)
{
    if (insn->opcode == 0x8c || insn->opcode == 0x8e)
        return insn->rex & 8 ? 8 : 4;
    return insn->opcode & 1 ? 8 : 4; /* 2C 2E: single, 2D 2F: double */
}

static void masked_load(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    unsigned size = mask_element(insn), total = insn->vex_l ? 32 : 16;
    uint8_t data[32] = {0};
    simd_check_avx(v);
    uint64_t linear = soft_linear(v, insn, 0, ACC_READ);
    for (unsigned at = 0; at < total; at += size) {
        if (selected(v, insn->vex_v, at, size))
            soft_read(v, linear + at, data + at, size);
    }
    memcpy(simd_xmm(v, insn->reg), data, 16);
    memcpy(simd_ymm_high(v, insn->reg), data + 16, 16);
}

static void masked_store(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    unsigned size = mask_element(insn), total = insn->vex_l ? 32 : 16;
    simd_check_avx(v);
    uint64_t linear = soft_linear(v, insn, 0, ACC_WRITE);
    for (unsigned at = 0; at < total; at += size) {
        if (selected(v, insn->vex_v, at, size))
            soft_probe(v, linear + at, size, ACC_WRITE);
    }
    for (unsigned at = 0; at < total; at += size) {
        if (selected(v, insn->vex_v, at, size))
            soft_write(v, linear + at, lane(v, insn->reg, at), size);
    }
}

/* MASKMOVDQU: bytes of `reg` to DS:rDI where `rm` has its top bits set. */
static void masked_bytes(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    if (plan->vex)
        simd_check_avx(v);
    else
        simd_check_sse(v);
    if (plan->vex && (insn->vex_l || insn->vex_v))
        soft_ud(v);
    uint64_t offset = v->r[X86_RDI];
    if (insn->addrsize < 8)
        offset &= (1ull << (8 * insn->addrsize)) - 1;
    uint64_t linear = soft_seg_linear(v, insn->seg, offset, 16, ACC_WRITE);
    soft_check_alignment(v, linear, 8);
    for (unsigned at = 0; at < 16; at++) {
        if (selected(v, insn->rm, at, 1))
            soft_probe(v, linear + at, 1, ACC_WRITE);
    }
    for (unsigned at = 0; at < 16; at++) {
        if (selected(v, insn->rm, at, 1))
            soft_store(v, linear + at, 1, simd_xmm(v, insn->reg)[at]);
    }
}

/*
 * A gather may fault between elements: what is done is in the registers then, its mask bits are
 * clear, and the instruction goes on from there when it runs again.
 */
static void gather(struct soft_vcpu *v, const struct insn *insn, const struct simd_plan *plan)
{
    unsigned size = insn->rex & 8 ? 8 : 4, index_size = insn->opcode & 1 ? 8 : 4;
    unsigned vector = insn->vex_l ? 32 : 16;
    unsigned count = vector / MAX(size, index_size);
    unsigned dest = insn->reg, mask = insn->vex_v, index = insn->index;
    simd_check_avx(v);
    if (index > 15 || dest == mask || dest == index || mask == index)
        soft_ud(v);
    /* Each mask element becomes all ones or all zeroes first, as its sign bit says. */
    for (unsigned i = 0; i < count; i++)
        memset(lane(v, mask, i * size), selected(v, mask, i * size, size) ? 0xff : 0, size);
    for (unsigned i = 0; i < count; i++) {
        if (!selected(v, mask, i * size, size))
            continue;
        uint64_t raw = get_le(lane(v, index, i * index_size), index_size);
        int64_t step = index_size == 8 ? (int64_t)raw : (int32_t)raw;
        uint64_t offset = v->r[insn->base] + ((uint64_t)step << insn->scale) + (uint64_t)insn->disp;
        if (insn->addrsize < 8)
            offset &= (1ull << (8 * insn->addrsize)) - 1;
        uint64_t linear = soft_seg_linear(v, insn->seg, offset, size, ACC_READ);
        soft_read(v, linear, lane(v, dest, i * size), size);
        memset(lane(v, mask, i * size), 0, size);
    }
    for (unsigned at = count * size; at < 32; at++)
        *lane(v, dest, at) = 0;
    memset(simd_xmm(v, mask), 0, 16);
    memset(simd_ymm_high(v, mask), 0, 16);
}

simd_exec_fn *simd_mask_plan(const struct insn *insn)
{
    bool vex = insn->prefix & INSN_VEX;
    uint8_t op = insn->opcode;
    if (insn->map == INSN_MAP_0F)
        return op == 0xf7 && insn->pp == 1 && !insn->is_mem ? masked_bytes : NULL;
    if (insn->map != INSN_MAP_0F38 || !vex || !insn->is_mem)
        return NULL;
    bool w = insn->rex & 8;
    if ((op == 0x2c || op == 0x2d) && !w)
        return masked_load;
    if ((op == 0x2e || op == 0x2f) && !w)
        return masked_store;
    if (op == 0x8c)
        return masked_load;
    if (op == 0x8e)
        return masked_store;
    if (op >= 0x90 && op <= 0x93)
        return gather;
    return NULL;
}
