/* asm.c - see asm.h. Encodings: SDM vol. 2, chapter 2 and appendix B. */
#include "engine/jit/asm.h"

#include <string.h>

void asm_u8(struct asm_buf *b, uint8_t v)
{
    if (b->p >= b->end) {
        b->full = true;
        return;
    }
    *b->p++ = v;
}

void asm_bytes(struct asm_buf *b, const void *p, unsigned n)
{
    if ((size_t)(b->end - b->p) < n) {
        b->full = true;
        return;
    }
    memcpy(b->p, p, n);
    b->p += n;
}

void asm_u32(struct asm_buf *b, uint32_t v)
{
    asm_bytes(b, &v, 4);
}

void asm_u64(struct asm_buf *b, uint64_t v)
{
    asm_bytes(b, &v, 8);
}

/* ---- ModRM ---- */

static void modrm_mem(struct asm_buf *b, unsigned reg, struct opnd m)
{
    unsigned r = (reg & 7) << 3;
    if (m.base == H_NONE) { /* [index * scale + disp32], [disp32]: by a SIB byte without a base */
        unsigned index = m.index == H_NONE ? 4 : m.index & 7u;
        asm_u8(b, (uint8_t)(r | 4));
        asm_u8(b, (uint8_t)(m.scale << 6 | index << 3 | 5));
        asm_u32(b, (uint32_t)m.disp);
        return;
    }
    bool sib = m.index != H_NONE || (m.base & 7) == H_RSP;
    unsigned mod = m.disp == 0 && (m.base & 7) != H_RBP ? 0
                   : m.disp >= -128 && m.disp <= 127    ? 1
                                                        : 2;
    asm_u8(b, (uint8_t)(mod << 6 | r | (sib ? 4 : m.base & 7u)));
    if (sib)
        asm_u8(b, (uint8_t)(m.scale << 6 | (m.index == H_NONE ? 4 : m.index & 7u) << 3 |
                            (m.base & 7u)));
    if (mod == 1)
        asm_u8(b, (uint8_t)m.disp);
    else if (mod == 2)
        asm_u32(b, (uint32_t)m.disp);
}

static void modrm(struct asm_buf *b, unsigned reg, struct opnd rm)
{
    if (rm.mem)
        modrm_mem(b, reg, rm);
    else
        asm_u8(b, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm.reg & 7u)));
}

/* ---- prefixes ---- */

static unsigned bit3(unsigned r)
{
    return r == H_NONE ? 0 : (r >> 3) & 1;
}

static void vex(struct asm_buf *b, const struct opcode *o, unsigned reg, unsigned x, unsigned bb)
{
    static const uint8_t pp[4] = {0, 1, 2, 3};
    unsigned p = o->prefix == 0x66 ? pp[1] : o->prefix == 0xf3 ? pp[2] : o->prefix == 0xf2 ? 3 : 0;
    unsigned r = bit3(reg);
    unsigned last = (~(unsigned)o->vvvv & 15) << 3 | (unsigned)o->l << 2 | p;
    if (!x && !bb && !o->w && o->map == 1) {
        asm_u8(b, 0xc5);
        asm_u8(b, (uint8_t)(!r << 7 | last));
        return;
    }
    asm_u8(b, 0xc4);
    asm_u8(b, (uint8_t)(!r << 7 | !x << 6 | !bb << 5 | o->map));
    asm_u8(b, (uint8_t)(o->w << 7 | last));
}

void asm_insn(struct asm_buf *b, struct opcode o, unsigned reg, struct opnd rm)
{
    unsigned x = rm.mem ? bit3(rm.index) : 0, bb = rm.mem ? bit3(rm.base) : bit3(rm.reg);
    if (rm.mem && rm.gs)
        asm_u8(b, 0x65);
    if (o.lock)
        asm_u8(b, 0xf0);
    if (o.vex) {
        vex(b, &o, reg, x, bb);
        asm_u8(b, o.op);
        modrm(b, reg, rm);
        return;
    }
    if (o.opsize)
        asm_u8(b, 0x66);
    if (o.prefix)
        asm_u8(b, o.prefix);
    bool low8 =
        (o.byte_reg && reg >= 4 && reg < 8) || (o.byte_rm && !rm.mem && rm.reg >= 4 && rm.reg < 8);
    unsigned rex = (unsigned)o.w << 3 | bit3(reg) << 2 | x << 1 | bb;
    if (rex || low8)
        asm_u8(b, (uint8_t)(0x40 | rex));
    if (o.map)
        asm_u8(b, 0x0f);
    if (o.map > 1)
        asm_u8(b, o.map == 2 ? 0x38 : 0x3a);
    asm_u8(b, o.op);
    modrm(b, reg, rm);
}

/* ---- the translator's own ---- */

static struct opcode sized(uint8_t op8, unsigned size)
{
    return (struct opcode){.op = (uint8_t)(size == 1 ? op8 : op8 + 1),
                           .prefix = size == 2 ? 0x66 : 0,
                           .w = size == 8,
                           .byte_reg = size == 1,
                           .byte_rm = size == 1};
}

void asm_mov_rr(struct asm_buf *b, unsigned dst, unsigned src)
{
    if (dst != src)
        asm_insn(b, (struct opcode){.op = 0x8b, .w = true}, dst, OP_REG((uint8_t)src));
}

void asm_mov_rr32(struct asm_buf *b, unsigned dst, unsigned src)
{
    asm_insn(b, (struct opcode){.op = 0x8b}, dst, OP_REG((uint8_t)src));
}

void asm_load(struct asm_buf *b, unsigned dst, struct opnd m, unsigned size)
{
    if (size >= 4)
        asm_insn(b, (struct opcode){.op = 0x8b, .w = size == 8}, dst, m);
    else
        asm_insn(b, (struct opcode){.op = size == 1 ? 0xb6 : 0xb7, .map = 1, .byte_rm = size == 1},
                 dst, m);
}

void asm_store(struct asm_buf *b, struct opnd m, unsigned src, unsigned size)
{
    asm_insn(b, sized(0x88, size), src, m);
}

void asm_store_imm(struct asm_buf *b, struct opnd m, int32_t imm, unsigned size)
{
    asm_insn(b, sized(0xc6, size), 0, m);
    asm_bytes(b, &imm, size < 4 ? size : 4);
}

void asm_mov_imm(struct asm_buf *b, unsigned dst, uint64_t imm)
{
    if (imm <= 0xffffffffu) {
        if (dst >= 8)
            asm_u8(b, 0x41);
        asm_u8(b, (uint8_t)(0xb8 | (dst & 7)));
        asm_u32(b, (uint32_t)imm);
    } else if ((int64_t)imm == (int32_t)imm) {
        asm_insn(b, (struct opcode){.op = 0xc7, .w = true}, 0, OP_REG((uint8_t)dst));
        asm_u32(b, (uint32_t)imm);
    } else {
        asm_u8(b, (uint8_t)(0x48 | (dst >> 3)));
        asm_u8(b, (uint8_t)(0xb8 | (dst & 7)));
        asm_u64(b, imm);
    }
}

void asm_lea(struct asm_buf *b, unsigned dst, struct opnd m, unsigned size)
{
    asm_insn(b, (struct opcode){.op = 0x8d, .w = size == 8}, dst, m);
}

void asm_alu_imm(struct asm_buf *b, enum asm_alu op, struct opnd rm, int32_t imm, unsigned size)
{
    if (size > 1 && imm >= -128 && imm <= 127) {
        struct opcode o = sized(0x82, size);
        asm_insn(b, o, op, rm);
        asm_u8(b, (uint8_t)imm);
        return;
    }
    asm_insn(b, sized(0x80, size), op, rm);
    asm_bytes(b, &imm, size < 4 ? size : 4);
}

void asm_alu(struct asm_buf *b, enum asm_alu op, unsigned dst, struct opnd m, unsigned size)
{
    asm_insn(b, sized((uint8_t)(op << 3 | 2), size), dst, m);
}

/* ---- branches ---- */

static uint8_t *rel32(struct asm_buf *b, const uint8_t *to)
{
    uint8_t *at = b->p;
    asm_u32(b, 0);
    if (b->full)
        return NULL;
    if (to)
        asm_patch(at, to);
    return at;
}

/* A branch of two bytes to `to`, if that is near enough. */
static bool rel8(struct asm_buf *b, uint8_t op, const uint8_t *to)
{
    ptrdiff_t d = to ? to - (b->p + 2) : PTRDIFF_MAX;
    if (d != (int8_t)d)
        return false;
    asm_u8(b, op);
    asm_u8(b, (uint8_t)d);
    return true;
}

uint8_t *asm_jcc(struct asm_buf *b, unsigned cc, const uint8_t *to)
{
    if (rel8(b, (uint8_t)(0x70 | cc), to))
        return NULL;
    asm_u8(b, 0x0f);
    asm_u8(b, (uint8_t)(0x80 | cc));
    return rel32(b, to);
}

uint8_t *asm_jmp(struct asm_buf *b, const uint8_t *to)
{
    if (rel8(b, 0xeb, to))
        return NULL;
    asm_u8(b, 0xe9);
    return rel32(b, to);
}

uint8_t *asm_call(struct asm_buf *b, const uint8_t *to)
{
    asm_u8(b, 0xe8);
    return rel32(b, to);
}

void asm_jmp_opnd(struct asm_buf *b, struct opnd rm)
{
    asm_insn(b, (struct opcode){.op = 0xff}, 4, rm);
}

void asm_call_opnd(struct asm_buf *b, struct opnd rm)
{
    asm_insn(b, (struct opcode){.op = 0xff}, 2, rm);
}

void asm_patch(uint8_t *at, const uint8_t *to)
{
    if (!at)
        return;
    int32_t rel = (int32_t)(to - (at + 4));
    memcpy(at, &rel, 4);
}

void asm_jcc_to(struct asm_buf *b, unsigned cc, struct asm_jumps *j)
{
    j->site[j->n++] = asm_jcc(b, cc, NULL);
}

void asm_jumps_here(struct asm_buf *b, const struct asm_jumps *j)
{
    for (unsigned n = 0; n < j->n; n++)
        asm_patch(j->site[n], b->p);
}

/* ---- flags: LAHF and SAHF hold all but OF; 1 + 127 overflows, 0 + 127 does not ---- */

void asm_flags_save(struct asm_buf *b, int32_t fl)
{
    static const uint8_t code[] = {0x9f, 0x0f, 0x90, 0xc0}; /* LAHF; SETO AL */
    asm_bytes(b, code, sizeof code);
    asm_store(b, OP_GS(fl), H_RAX, 2);
}

void asm_flags_load(struct asm_buf *b, int32_t fl)
{
    static const uint8_t code[] = {0x04, 0x7f, 0x9e}; /* ADD AL, 0x7F; SAHF */
    asm_load(b, H_RAX, OP_GS(fl), 2);
    asm_bytes(b, code, sizeof code);
}
