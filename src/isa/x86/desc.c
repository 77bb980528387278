/*
 * desc.c - segment descriptors in memory, and the stacks that privilege changes use.
 *
 * Accesses to descriptor tables and the TSS are implicit supervisor accesses (SDM 4.6), whatever
 * the CPL: they use X86_MMU_KERNEL.
 */
#include "isa/x86/priv.h"

/* ---- descriptors ---- */

bool x86_desc_addr(const struct x86_cpu *c, uint16_t sel, unsigned size, gva_t *addr)
{
    uint64_t base = c->s.gdtr.base, limit = c->s.gdtr.limit, off = sel & 0xfff8u;
    if (sel & X86_SEL_TI) {
        if (c->s.ldtr.attr & X86_ATTR_UNUSABLE)
            return false;
        base = c->s.ldtr.base;
        limit = c->s.ldtr.limit;
    } else if (X86_SEL_NULL(sel)) {
        return false;
    }
    if (off + size - 1 > limit)
        return false;
    *addr = x86_sys_lin(c, base + off);
    return true;
}

uint64_t x86_desc_fetch(struct x86_cpu *c, uint16_t sel, enum x86_vector v)
{
    gva_t a;
    if (!x86_desc_addr(c, sel, 8, &a))
        x86_fault_sel(c, v, sel);
    return x86_ldm64(c, a, X86_MMU_KERNEL);
}

uint64_t x86_desc_fetch_upper(struct x86_cpu *c, uint16_t sel, enum x86_vector v)
{
    gva_t a;
    if (!x86_desc_addr(c, sel, 16, &a))
        x86_fault_sel(c, v, sel);
    uint64_t hi = x86_ldm64(c, a + 8, X86_MMU_KERNEL);
    if ((hi >> 40) & 0x1f) /* the type field of the second half must be 0 (SDM 3.5.2) */
        x86_fault_sel(c, v, sel);
    return hi;
}

bool x86_desc_peek(struct x86_cpu *c, uint16_t sel, uint64_t *d)
{
    gva_t a;
    if (!x86_desc_addr(c, sel, 8, &a))
        return false;
    *d = x86_ldm64(c, a, X86_MMU_KERNEL);
    return true;
}

struct x86_seg x86_desc_seg(uint64_t d, uint16_t sel)
{
    struct x86_seg s = {.sel = sel, .attr = x86_desc_attr(d)};
    s.base = ((d >> 16) & 0xffffff) | ((d >> 56) << 24);
    s.limit = (uint32_t)(d & 0xffff) | (uint32_t)((d >> 32) & 0xf0000);
    if (s.attr & X86_ATTR_G)
        s.limit = s.limit << 12 | 0xfff;
    return s;
}

/* Sets and clears bits of a byte of a system structure; atomic in RAM. Returns the byte before. */
static uint8_t byte_update(struct x86_cpu *c, gva_t a, uint8_t set, uint8_t clear)
{
    uint64_t len = 1;
    gpa_t gpa = x86_translate(c, a, X86_WRITE, X86_MMU_KERNEL);
    uint8_t *p = dma_map(c->mem, gpa, &len), old;
    if (!p) {
        old = (uint8_t)x86_ld_slow(c, a, 1, X86_MMU_KERNEL);
        x86_st_slow(c, a, (uint8_t)((old | set) & ~clear), 1, X86_MMU_KERNEL);
        return old;
    }
    old = set ? __atomic_fetch_or(p, set, __ATOMIC_SEQ_CST)
              : __atomic_fetch_and(p, (uint8_t)~clear, __ATOMIC_SEQ_CST);
    dma_wrote(c->mem, p, 1);
    return old;
}

void x86_desc_accessed(struct x86_cpu *c, struct x86_seg *s)
{
    gva_t a;
    if ((s->attr & X86_TYPE_A) || !x86_desc_addr(c, s->sel, 8, &a))
        return;
    byte_update(c, a + 5, X86_TYPE_A, 0);
    s->attr |= X86_TYPE_A;
}

uint8_t x86_desc_busy(struct x86_cpu *c, uint16_t sel, bool busy)
{
    gva_t a;
    if (!x86_desc_addr(c, sel, 8, &a)) /* the table shrank since the register was loaded */
        return 0;
    return busy ? byte_update(c, a + 5, X86_SYS_BUSY, 0) : byte_update(c, a + 5, 0, X86_SYS_BUSY);
}

/* ---- segment registers without descriptors ---- */

struct x86_seg x86_seg_vm86(uint16_t sel)
{
    return (struct x86_seg){.base = (uint64_t)sel << 4,
                            .limit = 0xffff,
                            .sel = sel,
                            .attr = X86_ATTR_P | 3u << X86_ATTR_DPL_SH | X86_ATTR_S | X86_TYPE_RW |
                                    X86_TYPE_A};
}

/* Limit and attributes stay what protected mode left ("unreal mode"), except that nothing is
 * read-only or unusable in real-address mode. */
void x86_seg_real(struct x86_cpu *c, unsigned seg, uint16_t sel)
{
    struct x86_seg *s = &c->s.seg[seg];
    s->sel = sel;
    s->base = (uint64_t)sel << 4;
    s->attr = (s->attr & (X86_ATTR_G | X86_ATTR_DB | X86_ATTR_AVL)) | X86_ATTR_P | X86_ATTR_S |
              X86_TYPE_RW | X86_TYPE_A;
}

void x86_seg_drop_inner(struct x86_cpu *c, unsigned new_cpl)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    for (unsigned n = 0; n < ARRAY_LEN(data); n++) {
        struct x86_seg *s = &c->s.seg[data[n]];
        if (s->attr & X86_ATTR_UNUSABLE)
            continue;
        if (x86_attr_code(s->attr) && x86_attr_conforming(s->attr))
            continue;
        if (X86_ATTR_DPL(s->attr) < new_cpl)
            /* The base stays, as processors leave it; FS and GS use it in 64-bit mode. */
            *s = (struct x86_seg){.base = s->base, .attr = X86_ATTR_UNUSABLE};
    }
}

struct x86_seg x86_null_ss(unsigned cpl)
{
    return (struct x86_seg){.sel = (uint16_t)cpl,
                            .attr = X86_ATTR_UNUSABLE | cpl << X86_ATTR_DPL_SH};
}

struct x86_seg x86_check_ss(struct x86_cpu *c, uint16_t sel, unsigned cpl, enum x86_vector v)
{
    if (X86_SEL_NULL(sel))
        x86_raise_err(c, v, 0);
    struct x86_seg s = x86_desc_seg(x86_desc_fetch(c, sel, v), sel);
    if (X86_SEL_RPL(sel) != cpl || !x86_attr_writable(s.attr) || X86_ATTR_DPL(s.attr) != cpl)
        x86_fault_sel(c, v, sel);
    if (!(s.attr & X86_ATTR_P))
        x86_fault_sel(c, X86_SSF, sel);
    return s;
}

/* ---- stacks ---- */

struct x86_stack x86_stack_current(const struct x86_cpu *c)
{
    return (struct x86_stack){.ss = c->s.seg[X86_SS],
                              .sp = c->s.gpr[X86_RSP] & c->sp_mask,
                              .mask = c->sp_mask,
                              .mmu = (enum x86_mmu)c->mmu,
                              .flat = c->code_size == 64};
}

/* SDM 7.7: RSP0..2 at offset 4, IST1..7 at offset 36 of the 64-bit TSS. */
static struct x86_stack inner64(struct x86_cpu *c, unsigned cpl, unsigned ist)
{
    const struct x86_seg *tr = &c->s.tr;
    unsigned off = ist ? 36 + (ist - 1) * 8 : 4 + cpl * 8;
    if (off + 7 > tr->limit)
        x86_fault_sel(c, X86_TS, tr->sel);
    struct x86_stack s = {.ss = x86_null_ss(cpl), .mask = ~0ull, .flat = true};
    s.mmu = cpl == 3 ? X86_MMU_USER : X86_MMU_KERNEL;
    s.sp = x86_ldm64(c, tr->base + off, X86_MMU_KERNEL);
    if (!x86_canonical(s.sp))
        x86_raise_err(c, X86_SSF, 0);
    return s;
}

struct x86_stack x86_stack_inner(struct x86_cpu *c, unsigned cpl, unsigned ist)
{
    if (c->long_active)
        return inner64(c, cpl, ist);
    const struct x86_seg *tr = &c->s.tr;
    struct x86_stack s = {.mmu = X86_MMU_KERNEL};
    uint16_t sel;
    if (x86_sys_type(tr->attr) & 8) {
        unsigned off = 4 + cpl * 8;
        if (off + 5 > tr->limit)
            x86_fault_sel(c, X86_TS, tr->sel);
        s.sp = x86_ldm32(c, x86_sys_lin(c, tr->base + off), X86_MMU_KERNEL);
        sel = x86_ldm16(c, x86_sys_lin(c, tr->base + off + 4), X86_MMU_KERNEL);
    } else {
        unsigned off = 2 + cpl * 4;
        if (off + 3 > tr->limit)
            x86_fault_sel(c, X86_TS, tr->sel);
        s.sp = x86_ldm16(c, x86_sys_lin(c, tr->base + off), X86_MMU_KERNEL);
        sel = x86_ldm16(c, x86_sys_lin(c, tr->base + off + 2), X86_MMU_KERNEL);
    }
    s.ss = x86_check_ss(c, sel, cpl, X86_TS);
    s.mask = s.ss.attr & X86_ATTR_DB ? 0xffffffffu : 0xffffu;
    s.error = sel & 0xfffcu;
    return s;
}

/* As x86_seg_check() does for the loaded registers. */
static bool stack_room(const struct x86_seg *s, uint64_t ea, unsigned size)
{
    uint64_t last = ea + size - 1;
    if (s->attr & X86_ATTR_UNUSABLE)
        return false;
    if ((s->attr & (X86_TYPE_X | X86_TYPE_DC)) == X86_TYPE_DC)
        return ea > s->limit && last <= (s->attr & X86_ATTR_DB ? 0xffffffffu : 0xffffu);
    return last <= s->limit;
}

static gva_t stack_lin(struct x86_cpu *c, const struct x86_stack *s, uint64_t sp, unsigned size)
{
    if (s->flat) {
        if (!x86_canonical(sp) || !x86_canonical(sp + size - 1))
            x86_raise_err(c, X86_SSF, s->error);
        return sp;
    }
    if (!stack_room(&s->ss, sp, size))
        x86_raise_err(c, X86_SSF, s->error);
    return (uint32_t)(s->ss.base + sp);
}

void x86_stack_push(struct x86_cpu *c, struct x86_stack *s, uint64_t v, unsigned size)
{
    uint64_t sp = (s->sp - size) & s->mask;
    gva_t lin = stack_lin(c, s, sp, size);
    if (size == 8)
        x86_stm64(c, lin, v, s->mmu);
    else if (size == 4)
        x86_stm32(c, lin, (uint32_t)v, s->mmu);
    else
        x86_stm16(c, lin, (uint16_t)v, s->mmu);
    s->sp = sp;
}

uint64_t x86_stack_pop(struct x86_cpu *c, struct x86_stack *s, unsigned size)
{
    gva_t lin = stack_lin(c, s, s->sp, size);
    s->sp = (s->sp + size) & s->mask;
    return size == 8   ? x86_ldm64(c, lin, s->mmu)
           : size == 4 ? x86_ldm32(c, lin, s->mmu)
                       : x86_ldm16(c, lin, s->mmu);
}

void x86_stack_commit(struct x86_cpu *c, const struct x86_stack *s, bool load_ss)
{
    if (load_ss)
        c->s.seg[X86_SS] = s->ss;
    c->s.gpr[X86_RSP] = (c->s.gpr[X86_RSP] & ~s->mask) | (s->sp & s->mask);
}
