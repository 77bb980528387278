/*
 * cases.c - one case's state: registers, flags, FPU modes, memory contents, and where the memory
 * operand lies: within a page, across the end of one, in a page that may not be read or written.
 */
#include <string.h>

#include "diff.h"

#define ARITH (X86_FL_CF | X86_FL_PF | X86_FL_AF | X86_FL_ZF | X86_FL_SF | X86_FL_OF)

/* ---- values ---- */

static const uint64_t edges[] = {
    0,
    1,
    2,
    3,
    7,
    8,
    0x7f,
    0x80,
    0x81,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x10000,
    0x7fffffff,
    0x80000000,
    0x80000001,
    0xffffffff,
    0x100000000,
    0x7fffffffffffffff,
    0x8000000000000000,
    0x8000000000000001,
    0xffffffffffffffff,
    0xfffffffffffffffe,
    0xffffffff80000000,
    0xffffffff7fffffff,
    0xffffffffffff8000,
    0xffffffffffffff80,
    0x5555555555555555,
    0xaaaaaaaaaaaaaaaa,
    0x0123456789abcdef,
};

uint64_t random_gpr(struct rng *g, enum diff_mode m)
{
    uint64_t v;
    switch (rnd_n(g, 8)) {
    case 0:
    case 1:
        v = edges[rnd_n(g, ARRAY_LEN(edges))];
        break;
    case 2:
        v = rnd_n(g, 256);
        break;
    case 3:
        v = DATA_AT + rnd_n(g, DATA_SIZE);
        break;
    case 4:
        v = rnd(g) >> rnd_n(g, 64);
        break;
    default:
        v = rnd(g);
    }
    return m == MODE_64 ? v : (uint32_t)v;
}

static const uint32_t f32_edges[] = {
    0,          0x80000000, 1,          0x807fffff, 0x00800000, 0x3f800000, 0xbf800000, 0x7f7fffff,
    0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00001, 0x7f800001, 0xffbfffff, 0x4f000000,
    0xcf000000, 0x5f000000, 0x4b000001, 0x3f000000, 0x3effffff, 0x40490fdb,
};
static const uint64_t f64_edges[] = {
    0,
    0x8000000000000000,
    1,
    0x800fffffffffffff,
    0x0010000000000000,
    0x3ff0000000000000,
    0xbff0000000000000,
    0x7fefffffffffffff,
    0xffefffffffffffff,
    0x7ff0000000000000,
    0xfff0000000000000,
    0x7ff8000000000000,
    0xfff8000000000001,
    0x7ff0000000000001,
    0xfff7ffffffffffff,
    0x41e0000000000000,
    0xc1e0000000000000,
    0x43e0000000000000,
    0x4330000000000001,
    0x3fe0000000000000,
    0x36a0000000000000,
    0x47efffffffffffff,
};

/* 64 bits of a vector: integers, singles, or a double, often special ones. */
static uint64_t random_lane(struct rng *g)
{
    uint64_t v = rnd(g), a, b;
    switch (rnd_n(g, 8)) {
    case 0:
        return f64_edges[rnd_n(g, ARRAY_LEN(f64_edges))];
    case 1:
        a = f32_edges[rnd_n(g, ARRAY_LEN(f32_edges))];
        b = f32_edges[rnd_n(g, ARRAY_LEN(f32_edges))];
        return a | b << 32;
    case 2: /* an ordinary double */
        return (v & 0x800fffffffffffffull) | (uint64_t)(0x3f0 + rnd_n(g, 64)) << 52;
    case 3: /* two ordinary singles */
        return (v & 0x807fffff807fffffull) | (uint64_t)(0x70 + rnd_n(g, 40)) << 23 |
               (uint64_t)(0x70 + rnd_n(g, 40)) << 55;
    case 4:
        return edges[rnd_n(g, ARRAY_LEN(edges))];
    case 5:
        return v & 0x0f0f0f0f0f0f0f0full;
    default:
        return v;
    }
}

/* SDM vol. 1, table 8-3: also the encodings that the processor does not support any more. */
static void random_f80(struct rng *g, uint8_t out[16])
{
    static const uint16_t exps[] = {0,      1,      0x3fff, 0x7ffe, 0x7fff, 0x3ffe, 0x4000, 0x403e,
                                    0x403d, 0x3fbf, 0x3c01, 0x43fe, 0x3f81, 0x407e, 0x3f6a, 0x400e};
    static const uint64_t sigs[] = {0,
                                    0x8000000000000000,
                                    0xc000000000000000,
                                    0xffffffffffffffff,
                                    1,
                                    0x7fffffffffffffff,
                                    0x4000000000000000,
                                    0xa000000000000000,
                                    0x8000000000000001,
                                    0x8000008000000000,
                                    0x8000000000000400};
    uint64_t sig = rnd_pct(g, 40) ? sigs[rnd_n(g, ARRAY_LEN(sigs))] : rnd(g);
    unsigned exp = rnd_pct(g, 50)   ? exps[rnd_n(g, ARRAY_LEN(exps))]
                   : rnd_pct(g, 80) ? 0x3fc0 + rnd_n(g, 0x80)
                                    : rnd_n(g, 0x8000);
    if (exp && rnd_pct(g, 90))
        sig |= 1ull << 63;
    exp |= rnd_n(g, 2) << 15;
    memset(out, 0, 16);
    memcpy(out, &sig, 8);
    memcpy(out + 8, &exp, 2);
}

void random_fpu(struct rng *g, struct x86_xsave *x)
{
    memset(x, 0, sizeof *x);
    x->fcw = (uint16_t)(0x40 | (rnd(g) & 0xf00) | (rnd_pct(g, 75) ? 0x3f : rnd_n(g, 64)));
    x->fsw = (uint16_t)(rnd(g) & 0x7f7f);
    if (rnd_pct(g, 70)) /* no error pending */
        x->fsw &= (uint16_t) ~(~x->fcw & 0x3f);
    if (x->fsw & ~x->fcw & 0x3f)
        x->fsw |= 0x8080;
    x->ftw = (uint8_t)(rnd_pct(g, 60) ? 0xff : rnd(g));
    x->fop = rnd(g) & 0x7ff;
    x->fip = (uint32_t)rnd(g);
    x->fdp = (uint32_t)rnd(g);
    x->mxcsr = (uint32_t)(rnd(g) & 0xe07f) | (rnd_pct(g, 75) ? 0x1f80 : (rnd_n(g, 64) << 7));
    x->mxcsr |= rnd_pct(g, 20) ? 0x8040 : 0;
    if (rnd_pct(g, 60))
        x->mxcsr &= ~0x8040u;
    for (unsigned n = 0; n < 8; n++) {
        random_f80(g, x->st[n]);
        uint64_t mmx = random_lane(g);
        if (rnd_pct(g, 30))
            memcpy(x->st[n], &mmx, 8);
    }
    bool alike = rnd_pct(g, 20); /* comparisons meet equal operands */
    for (unsigned n = 0; n < 16; n++) {
        uint64_t lane[4] = {random_lane(g), random_lane(g), random_lane(g), random_lane(g)};
        memcpy(x->xmm[n], lane, 16);
        memcpy(x->ymmh[n], lane + 2, 16);
        if (alike && n && rnd_pct(g, 60)) {
            memcpy(x->xmm[n], x->xmm[0], 16);
            memcpy(x->ymmh[n], x->ymmh[0], 16);
        }
    }
    x->xstate_bv = X86_XCR0_ALL;
}

void pool_fill(struct pool *p, uint64_t seed)
{
    struct rng g = {seed};
    for (unsigned n = 0; n < POOL_PAGES; n++)
        for (unsigned k = 0; k < DATA_SIZE; k += 8) {
            uint64_t v = random_lane(&g);
            memcpy(p->data[n] + k, &v, 8);
        }
}

/* ---- registers by name ---- */

static unsigned reg_number(ZydisRegister reg)
{
    ZydisRegisterClass c = ZydisRegisterGetClass(reg);
    if (c != ZYDIS_REGCLASS_GPR8)
        return (unsigned)ZydisRegisterGetId(reg) & 15;
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        return (unsigned)(reg - ZYDIS_REGISTER_AH);
    return reg <= ZYDIS_REGISTER_BL ? (unsigned)(reg - ZYDIS_REGISTER_AL)
                                    : 4u + (unsigned)(reg - ZYDIS_REGISTER_SPL);
}

static uint64_t reg_mask(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
        return 0xff;
    case ZYDIS_REGCLASS_GPR16:
        return 0xffff;
    case ZYDIS_REGCLASS_GPR32:
        return 0xffffffff;
    case ZYDIS_REGCLASS_GPR64:
        return ~0ull;
    default:
        return 0;
    }
}

static unsigned reg_shift(ZydisRegister reg)
{
    return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH ? 8 : 0;
}

uint64_t get_reg(const struct regs *r, ZydisRegister reg)
{
    uint64_t mask = reg_mask(reg);
    return mask ? r->gpr[reg_number(reg)] >> reg_shift(reg) & mask : 0;
}

void set_reg(struct regs *r, enum diff_mode m, ZydisRegister reg, uint64_t v)
{
    uint64_t mask = reg_mask(reg);
    if (!mask)
        return;
    uint64_t *p = &r->gpr[reg_number(reg)];
    *p = (*p & ~(mask << reg_shift(reg))) | (v & mask) << reg_shift(reg);
    if (m != MODE_64)
        *p = (uint32_t)*p;
}

/* ---- memory operands ---- */

uint8_t *patch_at(struct input *in, uint64_t lin, unsigned size)
{
    uint64_t off = lin - DATA_AT - in->patch_off;
    return off < in->npatch && size <= in->npatch - off ? in->patch + off : NULL;
}

unsigned mem_size(const struct insn *i, const ZydisDecodedOperand *o)
{
    switch (i->zi.mnemonic) {
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        return 832;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return 512;
    default:
        return o->size >= 8 ? o->size / 8 : 1;
    }
}

/* An atomic access across cache lines is the host system's to forbid or to slow down. */
bool split_sensitive(const struct insn *i)
{
    switch (i->zi.mnemonic) {
    case ZYDIS_MNEMONIC_XCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        return true;
    default:
        return i->zi.attributes & ZYDIS_ATTRIB_HAS_LOCK;
    }
}

static uint64_t choose_address(struct rng *g, const struct insn *i, enum diff_mode m, unsigned size)
{
    unsigned inside = size > 1 ? 1 + rnd_n(g, size - 1) : 0;
    unsigned what = split_sensitive(i) ? rnd_n(g, 70) : rnd_n(g, 100);
    uint64_t at;
    if (what >= 60 && what < 70 && split_sensitive(i)) {
        at = DATA_AT + (rnd_pct(g, 50) ? DATA_RW : DATA_PAGES) * 4096 +
             (rnd_n(g, 4096 - size) & ~63u);
        return at;
    }
    if (what < 62)
        at = DATA_AT + 64 + rnd_n(g, DATA_RW * 4096 - 128 - min_u64(size, 4096));
    else if (what < 70)
        at = DATA_AT + 4096 - inside;
    else if (what < 77)
        at = DATA_AT + DATA_RW * 4096 - inside;
    else if (what < 83)
        at = DATA_AT + DATA_SIZE - inside;
    else if (what < 87)
        at = DATA_AT - inside;
    else if (what < 92)
        at = DATA_AT + DATA_RW * 4096 + rnd_n(g, 4096);
    else if (what < 95)
        at = DATA_AT + DATA_SIZE + rnd_n(g, 4096);
    else if (what < 97)
        at = DATA_AT + DATA_SIZE - size;
    else if (what < 98 || m != MODE_64)
        at = DATA_AT + 4096 - size;
    else
        at = (0x4000000000000000ull << rnd_n(g, 2)) + rnd_n(g, 4096); /* not canonical */
    unsigned align = size >= 512 ? 64 : size;
    bool pow2 = !(align & (align - 1));
    if (pow2 && (split_sensitive(i) || rnd_pct(g, size >= 16 ? 70 : 30)))
        at &= ~(uint64_t)(align - 1);
    return at;
}

static uint64_t seg_base(enum diff_mode m, ZydisRegister seg)
{
    if (m == MODE_64)
        return seg == ZYDIS_REGISTER_FS ? FS_BASE : seg == ZYDIS_REGISTER_GS ? GS_BASE : 0;
    if (seg == ZYDIS_REGISTER_CS)
        return m == MODE_16 ? CODE_AT : 0;
    if (m == MODE_32)
        return seg == ZYDIS_REGISTER_GS ? DATA_SEG : 0;
    return seg == ZYDIS_REGISTER_FS ? 0 : DATA_SEG;
}

static void vector_index(struct rng *g, struct regs *r, const ZydisDecodedOperandMem *m, bool qword)
{
    unsigned id = (unsigned)ZydisRegisterGetId(m->index) & 15;
    for (unsigned n = 0; n < 8; n++) {
        int64_t v = (int64_t)rnd_n(g, 256) - 128;
        if (rnd_pct(g, 3))
            v = (int64_t)rnd_n(g, 0x4000) - 0x2000;
        uint8_t *half = n < 4 ? r->fpu.xmm[id] : r->fpu.ymmh[id];
        if (!qword)
            memcpy(half + n % 4 * 4, &v, 4);
        else if (n % 2 == 0)
            memcpy(half + n % 4 * 4, &v, 8);
    }
}

/* Gathers whose indices have 64 bits: VPGATHERQx, VGATHERQPx. */
static bool qword_index(const struct insn *i)
{
    switch (i->zi.mnemonic) {
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VGATHERQPD:
        return true;
    default:
        return false;
    }
}

/* Makes the operand's address `at`, by the base register if there is one. */
static void aim(const struct form *f, struct rng *g, struct insn *i, const ZydisDecodedOperand *o,
                uint64_t at, struct input *in)
{
    const ZydisDecodedOperandMem *m = &o->mem;
    uint64_t ea = at - seg_base(f->mode, m->segment);
    uint64_t disp = m->disp.has_displacement ? (uint64_t)m->disp.value : 0;
    bool rip = m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP;
    if (m->type == ZYDIS_MEMOP_TYPE_VSIB)
        vector_index(g, &in->r, m, qword_index(i));
    else if (m->index != ZYDIS_REGISTER_NONE &&
             ZydisRegisterGetClass(m->index) != ZYDIS_REGCLASS_GPR8 && rnd_pct(g, 70))
        set_reg(&in->r, f->mode, m->index, rnd_n(g, 64));
    uint64_t index = m->type == ZYDIS_MEMOP_TYPE_VSIB ? 0 : get_reg(&in->r, m->index);
    if (m->base != ZYDIS_REGISTER_NONE && !rip) {
        set_reg(&in->r, f->mode, m->base, ea - disp - index * m->scale);
        return;
    }
    if (!i->zi.raw.disp.size)
        return;
    uint64_t want = ea - index * m->scale;
    if (rip)
        want = ea - (CODE_AT + in->code_off + in->len);
    memcpy(in->code + i->zi.raw.disp.offset, &want, i->zi.raw.disp.size / 8);
    insn_decode(f->mode, in->code, in->len, i);
}

static void place_patch(struct rng *g, struct input *in, const struct placement *p)
{
    if (!p->any || p->at + 64 < DATA_AT || p->at >= DATA_AT + DATA_SIZE)
        return;
    uint64_t off = p->at - DATA_AT < DATA_SIZE ? (p->at - DATA_AT) & ~7ull : 0;
    unsigned len = p->size > 64 ? p->size + 8 : 72;
    in->patch_off = (uint16_t)off;
    in->npatch = (uint16_t)min_u64(len, DATA_SIZE - off);
    for (unsigned n = 0; n < in->npatch; n += 8) {
        uint64_t v = rnd_pct(g, 50) ? random_gpr(g, MODE_64) : random_lane(g);
        memcpy(in->patch + n, &v, min_u64(8, in->npatch - n));
    }
}

static struct placement place_operands(const struct form *f, struct rng *g, struct insn *i,
                                       struct input *in)
{
    struct placement p = {0};
    /* The operand of ModRM last: it is the one that is seen. */
    for (int n = i->zi.operand_count - 1; n >= 0; n--) {
        const ZydisDecodedOperand *o = &i->op[n];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        unsigned size = mem_size(i, o);
        uint64_t at = choose_address(g, i, f->mode, size);
        if (n == 0 || !p.any)
            p = (struct placement){true, at, size};
        aim(f, g, i, o, at, in);
    }
    place_patch(g, in, &p);
    return p;
}

/* ---- the rest ---- */

static void choose_code_place(const struct form *f, struct rng *g, struct input *in)
{
    unsigned what = rnd_n(g, 40);
    unsigned off = 0x800 + rnd_n(g, 0x700);
    if (what == 0) /* across pages */
        off = 4096 - rnd_n(g, in->len);
    else if (what == 1) /* the last in mapped memory */
        off = CODE_SIZE - in->len;
    else if (what == 2) /* its end is not mapped */
        off = CODE_SIZE - rnd_n(g, in->len);
    in->code_off = off;
    in->r.rip = off + (f->mode == MODE_16 ? 0 : CODE_AT);
}

static void choose_segments(enum diff_mode m, struct regs *r)
{
    static const uint16_t sel[NMODES][X86_NSEG] = {
        [MODE_64] = {0, SEL_CS64, SEL_DS, 0, 0, 0},
        [MODE_32] = {SEL_DS, SEL_CS32, SEL_DS, SEL_DS, SEL_DS, SEL_DATA},
        [MODE_16] = {SEL_DATA, SEL_CS16, SEL_DATA, SEL_DATA, SEL_DS, SEL_DATA},
    };
    memcpy(r->seg, sel[m], sizeof r->seg);
    r->fs_base = m == MODE_64 ? FS_BASE : 0;
    r->gs_base = m == MODE_64 ? GS_BASE : DATA_SEG;
}

static bool holds_trap_back(const struct insn *i)
{
    return i->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && i->op[0].reg.value == ZYDIS_REGISTER_SS;
}

/* Single-stepping ends an instruction that branches, always; the others are ended by the breakpoint
 * behind them, too. */
static bool choose_tf(const struct form *f, struct rng *g, const struct insn *i)
{
    if (holds_trap_back(i) || freedom_trap(i))
        return false;
    if (f->cls != CLASS_FLOW)
        return rnd_pct(g, 50);
    bool relative = i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && i->op[0].imm.is_relative;
    return relative || rnd_pct(g, 70);
}

void make_case(const struct form *f, struct rng *g, struct input *in, struct insn *i)
{
    in->npatch = 0;
    in->patch_off = 0;
    encode_case(f, g, in, i);
    in->pool = (uint8_t)rnd_n(g, POOL_PAGES);
    for (unsigned n = 0; n < 16; n++)
        in->r.gpr[n] = n < 8 || f->mode == MODE_64 ? random_gpr(g, f->mode) : 0;
    if (rnd_pct(g, 60))
        set_reg(&in->r, f->mode, f->mode == MODE_64 ? ZYDIS_REGISTER_RSP : ZYDIS_REGISTER_ESP,
                DATA_AT + 0x800 - (f->mode == MODE_16 ? DATA_SEG : 0));
    random_fpu(g, &in->r.fpu);
    choose_segments(f->mode, &in->r);
    choose_code_place(f, g, in);
    in->tf = choose_tf(f, g, i);
    bool ac = rnd_pct(g, 6) && !freedom_alignment(i);
    in->r.rflags = X86_FL_R1 | X86_FL_IF | (rnd(g) & ARITH) | (rnd_pct(g, 40) ? X86_FL_DF : 0) |
                   (ac ? X86_FL_AC : 0) | (in->tf ? X86_FL_TF : 0);
    struct placement at = place_operands(f, g, i, in);
    special_operands(f, g, i, &at, in);
}
