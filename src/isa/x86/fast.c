/*
 * fast.c - SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM vol. 3, 5.8.7 and 5.8.8). Their segments are
 * fixed: no descriptor is read.
 */
#include "isa/x86/op_priv.h"

enum code_kind { CODE32, CODE64 };

static void flat_cs(struct x86_cpu *c, unsigned sel, unsigned cpl, enum code_kind kind)
{
    c->s.seg[X86_CS] =
        (struct x86_seg){.sel = (uint16_t)((sel & 0xfffc) | cpl),
                         .limit = 0xffffffff,
                         .attr = kind == CODE64 ? X86_FLAT_CODE64(cpl) : X86_FLAT_CODE32(cpl)};
}

static void flat_ss(struct x86_cpu *c, unsigned sel, unsigned cpl)
{
    c->s.seg[X86_SS] = (struct x86_seg){
        .sel = (uint16_t)((sel & 0xfffc) | cpl), .limit = 0xffffffff, .attr = X86_FLAT_DATA(cpl)};
}

static void syscall_enter(struct x86_cpu *c, const struct x86_insn *i)
{
    if (c->code_size != 64 || !(c->s.efer & X86_EFER_SCE))
        x86_ud(c);
    uint64_t flags = x86_rflags(c);
    unsigned sel = (unsigned)(c->s.star >> 32) & 0xffff;
    c->s.gpr[X86_RCX] = x86_next_rip(c);
    c->s.gpr[11] = flags & ~(uint64_t)X86_FL_RF;
    flat_cs(c, sel, 0, CODE64);
    flat_ss(c, (sel & 0xfffc) + 8, 0);
    c->s.rip = c->s.lstar;
    x86_set_rflags(c, flags & ~c->s.fmask & ~(uint64_t)(X86_FL_RF | X86_FL_VM));
    x86_update_mode(c);
}

static void syscall_return(struct x86_cpu *c, const struct x86_insn *i)
{
    if (c->code_size != 64 || !(c->s.efer & X86_EFER_SCE))
        x86_ud(c);
    x86_need_cpl0(c);
    bool wide = i->osize == 8;
    uint64_t rip = wide ? c->s.gpr[X86_RCX] : (uint32_t)c->s.gpr[X86_RCX];
    if (!x86_canonical(rip))
        x86_gp0(c);
    unsigned sel = (unsigned)(c->s.star >> 48);
    flat_cs(c, wide ? sel + 16 : sel, 3, wide ? CODE64 : CODE32);
    flat_ss(c, sel + 8, 3);
    c->s.rip = rip;
    x86_set_rflags(c, c->s.gpr[11] & X86_SYSRET_FLAGS);
    x86_update_mode(c);
}

static void sysenter(struct x86_cpu *c, const struct x86_insn *i)
{
    if (!(c->s.cr0 & X86_CR0_PE) || !(c->s.sysenter_cs & 0xfffc))
        x86_gp0(c);
    unsigned sel = (unsigned)c->s.sysenter_cs & 0xfffc;
    bool wide = c->long_active;
    uint64_t mask = wide ? ~0ull : 0xffffffffull;
    x86_set_rflags(c, x86_rflags(c) & ~(uint64_t)(X86_FL_VM | X86_FL_IF | X86_FL_RF));
    flat_cs(c, sel, 0, wide ? CODE64 : CODE32);
    flat_ss(c, sel + 8, 0);
    c->s.gpr[X86_RSP] = c->s.sysenter_esp & mask;
    c->s.rip = c->s.sysenter_eip & mask;
    x86_update_mode(c);
}

static void sysexit(struct x86_cpu *c, const struct x86_insn *i)
{
    if (!c->protected_mode || c->cpl || !(c->s.sysenter_cs & 0xfffc))
        x86_gp0(c);
    unsigned sel = (unsigned)c->s.sysenter_cs & 0xfffc;
    bool wide = i->osize == 8;
    uint64_t mask = wide ? ~0ull : 0xffffffffull;
    uint64_t rip = c->s.gpr[X86_RDX] & mask, rsp = c->s.gpr[X86_RCX] & mask;
    if (!x86_canonical(rip) || !x86_canonical(rsp))
        x86_gp0(c);
    flat_cs(c, wide ? sel + 32 : sel + 16, 3, wide ? CODE64 : CODE32);
    flat_ss(c, wide ? sel + 40 : sel + 24, 3);
    c->s.gpr[X86_RSP] = rsp;
    c->s.rip = rip;
    x86_update_mode(c);
}

bool x86_bind_fast(struct x86_dec *d)
{
    if (x86_is_locked(d))
        return false;
    switch (d->zi->mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL:
        return x86_bind_end(d, syscall_enter);
    case ZYDIS_MNEMONIC_SYSRET:
        return x86_bind_end(d, syscall_return);
    case ZYDIS_MNEMONIC_SYSENTER:
        return x86_bind_end(d, sysenter);
    default:
        return x86_bind_end(d, sysexit);
    }
}
