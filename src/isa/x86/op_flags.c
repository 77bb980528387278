/*
 * op_flags.c - CLI STI PUSHF POPF CLAC STAC: flags whose change depends on privilege, IOPL, and the
 * virtual interrupt flag (SDM 21.3.3, 21.4).
 */
#include "isa/x86/op_priv.h"

/* Where IF may not be changed: true if VIF stands in for it (CR4.VME in virtual-8086 mode, CR4.PVI
 * at CPL 3), #GP if not. */
static bool virtual_if(struct x86_cpu *c)
{
    if (c->cpl <= x86_iopl(c))
        return false;
    uint64_t need = x86_vm86(c) ? X86_CR4_VME : X86_CR4_PVI;
    if (c->cpl != 3 || !(c->s.cr4 & need))
        x86_gp0(c);
    return true;
}

static void cli(struct x86_cpu *c, const struct x86_insn *i)
{
    c->s.rflags &= ~(uint64_t)(virtual_if(c) ? X86_FL_VIF : X86_FL_IF);
}

static void sti(struct x86_cpu *c, const struct x86_insn *i)
{
    if (virtual_if(c)) {
        if (c->s.rflags & X86_FL_VIP)
            x86_gp0(c);
        c->s.rflags |= X86_FL_VIF;
        return;
    }
    if (c->s.rflags & X86_FL_IF)
        return;
    c->s.rflags |= X86_FL_IF;
    c->s.sti_shadow = 1;
    c->slow |= X86_SLOW_SHADOW;
}

static void pushf(struct x86_cpu *c, const struct x86_insn *i)
{
    uint64_t f = x86_rflags(c) & ~(uint64_t)(X86_FL_RF | X86_FL_VM);
    if (x86_vm86(c) && x86_iopl(c) < 3) {
        if (!(c->s.cr4 & X86_CR4_VME) || i->osize != 2)
            x86_gp0(c);
        f = (f & ~(uint64_t)X86_FL_IF) | X86_FL_IOPL;
        if (c->s.rflags & X86_FL_VIF)
            f |= X86_FL_IF;
    }
    if (i->osize == 8)
        x86_push64(c, f);
    else if (i->osize == 4)
        x86_push32(c, (uint32_t)f);
    else
        x86_push16(c, (uint16_t)f);
}

#define POPF_ALWAYS (X86_FL_ARITH | X86_FL_TF | X86_FL_DF | X86_FL_NT)

static void popf(struct x86_cpu *c, const struct x86_insn *i)
{
    uint64_t f = i->osize == 8   ? x86_peek64(c, 0)
                 : i->osize == 4 ? x86_peek32(c, 0)
                                 : x86_peek16(c, 0);
    uint64_t mask = POPF_ALWAYS | X86_FL_RF;
    if (i->osize != 2)
        mask |= X86_FL_AC | X86_FL_ID;
    f &= ~(uint64_t)X86_FL_RF; /* cleared, never loaded */
    if (x86_vm86(c) && x86_iopl(c) < 3) {
        bool bad = !(c->s.cr4 & X86_CR4_VME) || i->osize != 2 || (f & X86_FL_TF) ||
                   ((f & X86_FL_IF) && (c->s.rflags & X86_FL_VIP));
        if (bad)
            x86_gp0(c);
        mask |= X86_FL_VIF;
        if (f & X86_FL_IF)
            f |= X86_FL_VIF;
    } else {
        if (c->cpl <= x86_iopl(c))
            mask |= X86_FL_IF;
        if (c->cpl == 0)
            mask |= X86_FL_IOPL;
    }
    x86_set_rsp(c, c->s.gpr[X86_RSP] + i->osize);
    x86_merge_rflags(c, f, mask);
}

/* CLAC and STAC: only SMAP's AC, no privilege below 0 may touch it this way. */
static void clac_stac(struct x86_cpu *c, const struct x86_insn *i)
{
    if (c->cpl)
        x86_ud(c);
    x86_merge_rflags(c, i->aux ? X86_FL_AC : 0, X86_FL_AC);
}

static bool bind_pushf_popf(struct x86_dec *d)
{
    switch (d->zi->mnemonic) {
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_POPF:
        d->i->osize = 2;
        break;
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_POPFQ:
        d->i->osize = 8;
        break;
    default:
        d->i->osize = 4;
    }
    if (d->arg)
        return x86_bind_end(d, popf);
    d->i->fn = pushf;
    return true;
}

bool x86_bind_flags(struct x86_dec *d)
{
    if (x86_is_locked(d))
        return false;
    switch (d->zi->mnemonic) {
    case ZYDIS_MNEMONIC_CLI: /* interrupts are looked for between blocks: no need to end this one */
        d->i->fn = cli;
        return true;
    case ZYDIS_MNEMONIC_STI:
        return x86_bind_end(d, sti);
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_STAC:
        d->i->aux = d->zi->mnemonic == ZYDIS_MNEMONIC_STAC;
        d->i->fn = clac_stac; /* selects the TLB array: no block depends on it */
        return x86_model_has(d->c->model, X86_HAS_SMAP);
    default:
        return bind_pushf_popf(d);
    }
}
