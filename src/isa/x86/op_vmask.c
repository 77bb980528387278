/*
 * op_vmask.c - SIMD instructions whose mask says which elements are transferred: masked moves and
 * gathers, element by element, so that an element that is masked off cannot fault.
 */
#include "isa/x86/native_mem.h"

/* A vector register as one piece. */
struct vec {
    uint8_t b[32];
};

static void get(const struct x86_cpu *c, unsigned r, struct vec *v)
{
    memcpy(v->b, c->s.fpu.xmm[r], 16);
    memcpy(v->b + 16, c->s.fpu.ymmh[r], 16);
}

static void set(struct x86_cpu *c, unsigned r, const struct vec *v)
{
    memcpy(c->s.fpu.xmm[r], v->b, 16);
    memcpy(c->s.fpu.ymmh[r], v->b + 16, 16);
}

/* The top bit of element n. */
static bool selected(const struct vec *mask, unsigned n, unsigned size)
{
    return mask->b[n * size + size - 1] & 0x80;
}

/* No alignment is asked for (SDM vol. 2, VMASKMOV: exceptions of type 6 without #AC; table 2-27 for
 * gathers). */
static enum x86_mmu masked_mmu(const struct x86_cpu *c)
{
    return c->mmu == X86_MMU_ALIGN ? X86_MMU_USER : (enum x86_mmu)c->mmu;
}

static uint64_t load(struct x86_cpu *c, gva_t lin, unsigned size, enum x86_mmu mmu)
{
    return size == 8 ? x86_ldm64(c, lin, mmu) : x86_ldm32(c, lin, mmu);
}

static void store(struct x86_cpu *c, gva_t lin, const uint8_t *p, unsigned size)
{
    uint64_t v = 0;
    memcpy(&v, p, size);
    if (size == 8)
        x86_stm64(c, lin, v, masked_mmu(c));
    else if (size == 4)
        x86_stm32(c, lin, (uint32_t)v, masked_mmu(c));
    else
        x86_stm8(c, lin, (uint8_t)v, masked_mmu(c));
}

/* All elements are checked before the first is stored. */
static void store_selected(struct x86_cpu *c, const struct x86_insn *i, const struct vec *data,
                           const struct vec *mask, unsigned total, unsigned size)
{
    gva_t lin[32];
    uint64_t ea = x86_ea(c, i);
    for (unsigned n = 0; n < total / size; n++) {
        if (!selected(mask, n, size))
            continue;
        lin[n] = x86_seg_lin(c, i->seg, (ea + n * size) & i->amask, size, X86_SEGOK_W);
        x86_probe(c, lin[n], size, X86_WRITE, c->mmu);
    }
    for (unsigned n = 0; n < total / size; n++)
        if (selected(mask, n, size))
            store(c, lin[n], data->b + n * size, size);
}

/* If so, all of the operand must lie within the segment. */
static bool any_selected(const struct vec *mask, const struct x86_insn *i)
{
    for (unsigned n = 0; n < i->aux / i->osize; n++)
        if (selected(mask, n, i->osize))
            return true;
    return false;
}

/* VMASKMOVPS/PD, VPMASKMOVD/Q. aux: bytes of the vector; osize: of an element; src: mask; dst: the
 * other */
static void vmaskmov_load(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_avx_check(c);
    struct vec mask, out = {{0}};
    get(c, i->src, &mask);
    if (any_selected(&mask, i))
        (void)x86_lin_r(c, i, i->aux);
    uint64_t ea = x86_ea(c, i);
    unsigned size = i->osize;
    for (unsigned n = 0; n < i->aux / size; n++) {
        if (!selected(&mask, n, size))
            continue;
        uint64_t at = (ea + n * size) & i->amask;
        uint64_t v = load(c, x86_seg_lin(c, i->seg, at, size, X86_SEGOK_R), size, masked_mmu(c));
        memcpy(out.b + n * size, &v, size);
    }
    set(c, i->dst, &out);
}

static void vmaskmov_store(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_avx_check(c);
    struct vec mask, data;
    get(c, i->src, &mask);
    get(c, i->dst, &data);
    if (any_selected(&mask, i))
        (void)x86_lin_w(c, i, i->aux);
    store_selected(c, i, &data, &mask, i->aux, i->osize);
}

/* Whether bytes that are not selected can fault is implementation-specific (SDM vol. 2, MASKMOVQ);
 * processors ask for the whole operand. */
static void store_bytes(struct x86_cpu *c, const struct x86_insn *i, const struct vec *data,
                        const struct vec *mask, unsigned total)
{
    x86_probe(c, x86_lin_w(c, i, total), total, X86_WRITE, c->mmu);
    store_selected(c, i, data, mask, total, 1);
}

/* MASKMOVDQU, MASKMOVQ: bytes of dst by mask src to DS:[rDI] */
static void maskmovdqu(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_sse_check(c);
    struct vec mask, data;
    get(c, i->src, &mask);
    get(c, i->dst, &data);
    store_bytes(c, i, &data, &mask, 16);
}

static void vmaskmovdqu(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_avx_check(c);
    struct vec mask, data;
    get(c, i->src, &mask);
    get(c, i->dst, &data);
    store_bytes(c, i, &data, &mask, 16);
}

static void maskmovq(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_mmx_check(c);
    if (!x86_fpu_wait(c, i))
        return;
    x86_mmx_enter(c);
    struct vec mask = {{0}}, data = {{0}};
    memcpy(mask.b, c->s.fpu.st[i->src], 8);
    memcpy(data.b, c->s.fpu.st[i->dst], 8);
    store_bytes(c, i, &data, &mask, 8);
}

/* ---- gathers: dst, src: the mask, src2: the indices; osize: data element, aux: see below ---- */

#define AUX_INDEX(size) (size) /* bytes of an index: 4, 8 */
#define AUX_COUNT(n)    ((n) << 8)

static gva_t gather_lin(struct x86_cpu *c, const struct x86_insn *i, const struct vec *index,
                        unsigned n)
{
    int64_t x;
    if ((i->aux & 0xff) == 8) {
        memcpy(&x, index->b + 8 * n, 8);
    } else {
        int32_t x32;
        memcpy(&x32, index->b + 4 * n, 4);
        x = x32;
    }
    uint64_t ea = c->s.gpr[i->base] + ((uint64_t)x << i->scale) + (uint64_t)i->disp;
    return x86_seg_lin(c, i->seg, ea & i->amask, i->osize, X86_SEGOK_R);
}

/* SDM vol. 2, VGATHERDPS: each element that was loaded is committed, with its mask cleared, so that
 * after a fault the instruction goes on where it stopped. */
static void gather(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_avx_check(c);
    unsigned size = i->osize, count = i->aux >> 8;
    struct vec mask, index, out;
    get(c, i->src, &mask);
    get(c, i->src2, &index);
    unsigned isize = i->aux & 0xff, width = count * (isize > size ? isize : size); /* VEX.L */
    for (unsigned n = 0; n < width / size; n++) /* a fault finds it like this */
        memset(mask.b + n * size, selected(&mask, n, size) ? 0xff : 0, size);
    memset(mask.b + width, 0, sizeof mask.b - width);
    set(c, i->src, &mask);
    for (unsigned n = 0; n < count; n++) {
        if (!selected(&mask, n, size))
            continue;
        uint64_t v = load(c, gather_lin(c, i, &index, n), size, masked_mmu(c));
        get(c, i->dst, &out);
        memcpy(out.b + n * size, &v, size);
        memset(out.b + width, 0, sizeof out.b - width);
        memset(mask.b + n * size, 0, size);
        set(c, i->dst, &out);
        set(c, i->src, &mask);
    }
    get(c, i->dst, &out);
    memset(out.b + count * size, 0, sizeof out.b - count * size);
    set(c, i->dst, &out);
    memset(mask.b, 0, sizeof mask.b);
    set(c, i->src, &mask);
}

static bool bind_gather(struct x86_dec *d)
{
    if (d->zi->operand_count_visible != 3 || !x86_is_reg(d, 0) || !x86_is_reg(d, 2) ||
        !x86_is_mem(d, 1) || d->op[1].mem.type != ZYDIS_MEMOP_TYPE_VSIB)
        return false;
    struct x86_insn *i = d->i;
    ZydisMnemonic m = d->zi->mnemonic;
    bool qword_index = m == ZYDIS_MNEMONIC_VGATHERQPS || m == ZYDIS_MNEMONIC_VGATHERQPD ||
                       m == ZYDIS_MNEMONIC_VPGATHERQD || m == ZYDIS_MNEMONIC_VPGATHERQQ;
    bool qword_data = m == ZYDIS_MNEMONIC_VGATHERDPD || m == ZYDIS_MNEMONIC_VGATHERQPD ||
                      m == ZYDIS_MNEMONIC_VPGATHERDQ || m == ZYDIS_MNEMONIC_VPGATHERQQ;
    unsigned vl = d->zi->avx.vector_length / 8u, isize = qword_index ? 8 : 4;
    i->osize = qword_data ? 8 : 4;
    i->dst = (uint8_t)ZydisRegisterGetId(d->op[0].reg.value);
    i->src = (uint8_t)ZydisRegisterGetId(d->op[2].reg.value);
    i->src2 = (uint8_t)ZydisRegisterGetId(d->op[1].mem.index);
    if (i->dst == i->src || i->dst == i->src2 || i->src == i->src2)
        return false;
    unsigned count = vl / (isize > i->osize ? isize : i->osize);
    i->aux = (uint16_t)(AUX_INDEX(isize) | AUX_COUNT(count));
    i->fn = gather;
    return true;
}

static bool bind_vmaskmov(struct x86_dec *d, unsigned size)
{
    bool to_mem = x86_is_mem(d, 0);
    unsigned other = to_mem ? 2 : 0;
    if (d->zi->operand_count_visible != 3 || !x86_is_reg(d, 1) || !x86_is_reg(d, other))
        return false;
    d->i->src = (uint8_t)ZydisRegisterGetId(d->op[1].reg.value);
    d->i->dst = (uint8_t)ZydisRegisterGetId(d->op[other].reg.value);
    d->i->aux = d->zi->avx.vector_length / 8u;
    d->i->osize = (uint8_t)size;
    d->i->fn = to_mem ? vmaskmov_store : vmaskmov_load;
    return true;
}

static bool bind_maskmov(struct x86_dec *d, x86_op_fn fn)
{
    if (!(d->i->flags & X86_IF_MEM) || !x86_is_reg(d, 0) || !x86_is_reg(d, 1))
        return false;
    d->i->dst = (uint8_t)ZydisRegisterGetId(d->op[0].reg.value);
    d->i->src = (uint8_t)ZydisRegisterGetId(d->op[1].reg.value);
    d->i->fn = fn;
    return true;
}

bool x86_bind_masked(struct x86_dec *d)
{
    switch (d->zi->mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVDQU:
        return bind_maskmov(d, maskmovdqu);
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return bind_maskmov(d, vmaskmovdqu);
    case ZYDIS_MNEMONIC_MASKMOVQ:
        return bind_maskmov(d, maskmovq);
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
        return bind_vmaskmov(d, 4);
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return bind_vmaskmov(d, 8);
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
        return bind_gather(d);
    default:
        return false;
    }
}
