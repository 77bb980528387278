/*
 * op_io.c - IN OUT INS OUTS (SDM vol. 1, chapter 19).
 */
#include "isa/x86/op_priv.h"

/* Iterations of a REP INS or OUTS before interrupts are looked for. */
#define REP_MAX 1024u

/* The I/O permission bitmap (SDM vol. 1, 19.5.2): two bytes are read, so that a port's bits may
 * cross a byte, and both must lie within the TSS. */
static void check_bitmap(struct x86_cpu *c, uint16_t port, unsigned size)
{
    const struct x86_seg *tr = &c->s.tr;
    if (!(x86_sys_type(tr->attr) & 8) || tr->limit < 103)
        x86_gp0(c);
    uint32_t off = x86_ldm16(c, x86_sys_lin(c, tr->base + 102), X86_MMU_KERNEL) + port / 8u;
    if (off + 1 > tr->limit)
        x86_gp0(c);
    unsigned bits = x86_ldm16(c, x86_sys_lin(c, tr->base + off), X86_MMU_KERNEL);
    if (bits >> (port % 8) & ((1u << size) - 1))
        x86_gp0(c);
}

static inline void check_io(struct x86_cpu *c, uint16_t port, unsigned size)
{
    if (UNLIKELY(c->cpl > x86_iopl(c) || x86_vm86(c)))
        check_bitmap(c, port, size);
}

/* I/O breakpoints (DR7 type 2, only with CR4.DE): a trap behind the instruction. */
static void watch_io(struct x86_cpu *c, uint16_t port, unsigned size)
{
    if (LIKELY(!(c->s.cr4 & X86_CR4_DE) || !(c->s.dr[7] & 0xff)))
        return;
    static const uint8_t length[4] = {1, 2, 8, 4};
    for (unsigned n = 0; n < 4; n++) {
        unsigned ctl = (unsigned)(c->s.dr[7] >> (16 + 4 * n)) & 15;
        if (!((c->s.dr[7] >> (2 * n)) & 3) || (ctl & 3) != 2)
            continue;
        uint64_t len = length[ctl >> 2], a = c->s.dr[n] & ~(len - 1);
        if (port < a + len && a < (uint64_t)port + size) {
            c->db_hit |= 1ull << n;
            c->slow |= X86_SLOW_DB;
            c->block_end = c->cur + 1;
        }
    }
}

/* ---- IN, OUT: aux 1: the port is imm, else DX ---- */

static uint16_t port_of(const struct x86_cpu *c, const struct x86_insn *i)
{
    return i->aux ? (uint16_t)(i->imm & 0xff) : x86_r16(c, X86_RDX);
}

static void in(struct x86_cpu *c, const struct x86_insn *i)
{
    uint16_t port = port_of(c, i);
    check_io(c, port, i->osize);
    uint64_t v = c->bus.io_read(c->bus.ctx, port, i->osize);
    if (i->osize == 1)
        x86_w8(c, 8 * X86_RAX, (uint8_t)v);
    else if (i->osize == 2)
        x86_w16(c, X86_RAX, (uint16_t)v);
    else
        x86_w32(c, X86_RAX, (uint32_t)v);
    watch_io(c, port, i->osize);
}

static void out(struct x86_cpu *c, const struct x86_insn *i)
{
    uint16_t port = port_of(c, i);
    check_io(c, port, i->osize);
    uint32_t v = x86_r32(c, X86_RAX);
    if (i->osize < 4)
        v &= (1u << (8 * i->osize)) - 1;
    c->bus.io_write(c->bus.ctx, port, v, i->osize);
    watch_io(c, port, i->osize);
}

/* ---- INS, OUTS ---- */

/* Advances RSI or RDI by one element in the address size. */
static void advance(struct x86_cpu *c, unsigned reg, const struct x86_insn *i)
{
    uint64_t step = c->s.rflags & X86_FL_DF ? -(uint64_t)i->osize : i->osize;
    uint64_t v = c->s.gpr[reg] + step;
    c->s.gpr[reg] = i->amask == 0xffff ? (c->s.gpr[reg] & ~0xffffull) | (v & 0xffff) : v & i->amask;
}

static void ins_one(struct x86_cpu *c, const struct x86_insn *i, uint16_t port)
{
    gva_t lin = x86_seg_lin(c, X86_ES, c->s.gpr[X86_RDI] & i->amask, i->osize, X86_SEGOK_W);
    /* The device gives its byte only once: no fault may follow. */
    x86_probe(c, lin, i->osize, X86_WRITE, (enum x86_mmu)c->mmu);
    uint64_t v = c->bus.io_read(c->bus.ctx, port, i->osize);
    if (i->osize == 1)
        x86_st8(c, lin, (uint8_t)v);
    else if (i->osize == 2)
        x86_st16(c, lin, (uint16_t)v);
    else
        x86_st32(c, lin, (uint32_t)v);
    advance(c, X86_RDI, i);
}

static void outs_one(struct x86_cpu *c, const struct x86_insn *i, uint16_t port)
{
    gva_t lin = x86_seg_lin(c, i->seg, c->s.gpr[X86_RSI] & i->amask, i->osize, X86_SEGOK_R);
    uint32_t v = i->osize == 1   ? x86_ld8(c, lin)
                 : i->osize == 2 ? x86_ld16(c, lin)
                                 : x86_ld32(c, lin);
    c->bus.io_write(c->bus.ctx, port, v, i->osize);
    advance(c, X86_RSI, i);
}

typedef void (*element_fn)(struct x86_cpu *c, const struct x86_insn *i, uint16_t port);

static inline void string_io(struct x86_cpu *c, const struct x86_insn *i, element_fn one)
{
    uint16_t port = x86_r16(c, X86_RDX);
    check_io(c, port, i->osize);
    if (!(i->flags & (X86_IF_REP | X86_IF_REPNE))) {
        one(c, i, port);
        watch_io(c, port, i->osize);
        return;
    }
    for (unsigned n = 0; c->s.gpr[X86_RCX] & i->amask; n++) {
        bool stop = n == REP_MAX || c->db_hit || (n && (c->slow & X86_SLOW_TF)) ||
                    atomic_load_explicit(&c->pending, memory_order_relaxed);
        if (n && stop) { /* the instruction goes on when it is executed again */
            c->s.rip = x86_insn_rip(c);
            return;
        }
        one(c, i, port);
        uint64_t left = c->s.gpr[X86_RCX] - 1;
        c->s.gpr[X86_RCX] = i->amask == 0xffff ? (c->s.gpr[X86_RCX] & ~0xffffull) | (left & 0xffff)
                                               : left & i->amask;
        watch_io(c, port, i->osize);
    }
}

static void ins(struct x86_cpu *c, const struct x86_insn *i)
{
    string_io(c, i, ins_one);
}

static void outs(struct x86_cpu *c, const struct x86_insn *i)
{
    string_io(c, i, outs_one);
}

static bool bind_in_out(struct x86_dec *d, bool write)
{
    unsigned bytes = d->op[write ? 1 : 0].size / 8;
    d->i->osize = (uint8_t)bytes;
    d->i->aux = x86_is_imm(d, write ? 0 : 1);
    if (write)
        return x86_bind_end(d, out); /* it may remap memory or raise an interrupt */
    d->i->fn = in;
    return true;
}

static bool bind_string(struct x86_dec *d, x86_op_fn fn, unsigned bytes)
{
    d->i->osize = (uint8_t)bytes;
    return x86_bind_end(d, fn);
}

bool x86_bind_io(struct x86_dec *d)
{
    if (x86_is_locked(d))
        return false;
    switch (d->zi->mnemonic) {
    case ZYDIS_MNEMONIC_IN:
        return bind_in_out(d, false);
    case ZYDIS_MNEMONIC_OUT:
        return bind_in_out(d, true);
    case ZYDIS_MNEMONIC_INSB:
        return bind_string(d, ins, 1);
    case ZYDIS_MNEMONIC_INSW:
        return bind_string(d, ins, 2);
    case ZYDIS_MNEMONIC_INSD:
        return bind_string(d, ins, 4);
    case ZYDIS_MNEMONIC_OUTSB:
        return bind_string(d, outs, 1);
    case ZYDIS_MNEMONIC_OUTSW:
        return bind_string(d, outs, 2);
    default:
        return bind_string(d, outs, 4);
    }
}
