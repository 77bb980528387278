/*
 * op_sys.c - the other privileged instructions, and the table of all of them.
 */
#include "isa/x86/kvm_pv.h"
#include "isa/x86/op_priv.h"

static void hlt(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_need_cpl0(c);
    c->s.activity = X86_HALTED;
}

/* INVD, WBINVD: guest memory has no cache of its own. */
static void cache_control(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_need_cpl0(c);
}

static void invlpg(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_need_cpl0(c);
    gva_t lin = (c->segc[i->seg].base + x86_ea(c, i)) & c->lin_mask;
    if (x86_canonical(lin))
        x86_tlb_flush_page(c, lin);
}

/* SDM vol. 2, INVPCID. Descriptor: PCID in bits 0..11, linear address in the upper half. */
static void invpcid(struct x86_cpu *c, const struct x86_insn *i)
{
    if (!c->protected_mode && (c->s.cr0 & X86_CR0_PE)) /* virtual-8086 mode */
        x86_gp0(c);
    x86_need_cpl0(c);
    uint64_t d[2], type = x86_r64(c, i->dst);
    if (c->code_size != 64)
        type = (uint32_t)type;
    x86_ld_bytes(c, x86_lin_r(c, i, 16), d, 16, (enum x86_mmu)c->mmu);
    bool pcide = c->s.cr4 & X86_CR4_PCIDE;
    if (type > 3 || (d[0] >> 12) || (type < 2 && d[0] && !pcide))
        x86_gp0(c);
    if (type == 0 && !x86_canonical(d[1]))
        x86_gp0(c);
    switch (type) {
    case 0:
        x86_tlb_flush_page_pcid(c, d[1], d[0]);
        break;
    case 1:
        x86_tlb_flush_pcid(c, d[0]);
        break;
    case 2:
        x86_tlb_flush_all(c);
        break;
    default:
        x86_tlb_flush_nonglobal(c);
    }
}

/* ---- counters ---- */

static void set_edx_eax(struct x86_cpu *c, uint64_t v)
{
    x86_w64(c, X86_RAX, (uint32_t)v);
    x86_w64(c, X86_RDX, v >> 32);
}

/* aux 1: RDTSCP */
static void rdtsc(struct x86_cpu *c, const struct x86_insn *i)
{
    if (c->cpl && (c->s.cr4 & X86_CR4_TSD))
        x86_gp0(c);
    set_edx_eax(c, c->bus.tsc(c->bus.ctx) + c->s.tsc_offset);
    if (i->aux)
        x86_w64(c, X86_RCX, (uint32_t)c->s.tsc_aux);
}

/* There are no performance counters: every index is invalid. */
static void rdpmc(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_gp0(c);
}

/* ---- MSRs and CPUID ---- */

static void rdmsr(struct x86_cpu *c, const struct x86_insn *i)
{
    uint64_t v;
    x86_need_cpl0(c);
    if (!x86_rdmsr(c, x86_r32(c, X86_RCX), &v))
        x86_gp0(c);
    set_edx_eax(c, v);
}

static void wrmsr(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_need_cpl0(c);
    uint64_t v = (uint64_t)x86_r32(c, X86_RDX) << 32 | x86_r32(c, X86_RAX);
    if (!x86_wrmsr(c, x86_r32(c, X86_RCX), v))
        x86_gp0(c);
}

static void cpuid(struct x86_cpu *c, const struct x86_insn *i)
{
    uint32_t r[4];
    x86_cpuid(c, x86_r32(c, X86_RAX), x86_r32(c, X86_RCX), r);
    x86_w64(c, X86_RAX, r[0]);
    x86_w64(c, X86_RBX, r[1]);
    x86_w64(c, X86_RCX, r[2]);
    x86_w64(c, X86_RDX, r[3]);
}

/* ---- VMCALL, VMMCALL ---- */

/* Alike, whosever processor has the instruction: a guest may have chosen either. */
static void hypercall(struct x86_cpu *c, const struct x86_insn *i)
{
    bool wide = c->code_size == 64;
    uint64_t mask = wide ? ~0ull : 0xffffffffull;
    const struct x86_hypercall h = {
        .nr = c->s.gpr[X86_RAX] & mask,
        .arg = {c->s.gpr[X86_RBX] & mask, c->s.gpr[X86_RCX] & mask, c->s.gpr[X86_RDX] & mask,
                c->s.gpr[X86_RSI] & mask},
        .wide = wide,
    };
    int64_t r = c->cpl ? -KVM_PV_EPERM : c->bus.hypercall(c->bus.ctx, &h);
    x86_w64(c, X86_RAX, (uint64_t)r & mask);
}

/* ---- FS and GS bases ---- */

static void swapgs(struct x86_cpu *c, const struct x86_insn *i)
{
    if (c->code_size != 64)
        x86_ud(c);
    x86_need_cpl0(c);
    uint64_t v = c->s.seg[X86_GS].base;
    c->s.seg[X86_GS].base = c->s.kernel_gs_base;
    c->s.kernel_gs_base = v;
    x86_update_seg(c, X86_GS);
}

static void need_fsgsbase(struct x86_cpu *c)
{
    if (c->code_size != 64 || !(c->s.cr4 & X86_CR4_FSGSBASE))
        x86_ud(c);
}

static void rdbase(struct x86_cpu *c, const struct x86_insn *i)
{
    need_fsgsbase(c);
    uint64_t v = c->s.seg[i->aux].base;
    x86_w64(c, i->dst, i->osize == 8 ? v : (uint32_t)v);
}

static void wrbase(struct x86_cpu *c, const struct x86_insn *i)
{
    need_fsgsbase(c);
    uint64_t v = i->osize == 8 ? x86_r64(c, i->dst) : x86_r32(c, i->dst);
    if (!x86_canonical(v))
        x86_gp0(c);
    c->s.seg[i->aux].base = v;
    x86_update_seg(c, i->aux);
}

/* ---- binding ---- */

static bool bind_base(struct x86_dec *d)
{
    ZydisMnemonic m = d->zi->mnemonic;
    d->i->dst = x86_reg_code(d, 0);
    d->i->aux = m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_WRFSBASE ? X86_FS : X86_GS;
    d->i->fn = m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_RDGSBASE ? rdbase : wrbase;
    return x86_model_has(d->c->model, X86_HAS_FSGSBASE);
}

static bool bind_plain(struct x86_dec *d, x86_op_fn fn)
{
    d->i->fn = fn;
    return true;
}

bool x86_bind_misc_sys(struct x86_dec *d)
{
    if (x86_is_locked(d))
        return false;
    switch (d->zi->mnemonic) {
    case ZYDIS_MNEMONIC_HLT:
        return x86_bind_end(d, hlt);
    case ZYDIS_MNEMONIC_INVD:
    case ZYDIS_MNEMONIC_WBINVD:
        return bind_plain(d, cache_control);
    case ZYDIS_MNEMONIC_INVLPG:
        return x86_is_mem(d, 0) && x86_bind_end(d, invlpg);
    case ZYDIS_MNEMONIC_INVPCID:
        d->i->dst = x86_reg_code(d, 0);
        return x86_model_has(d->c->model, X86_HAS_INVPCID) && x86_bind_end(d, invpcid);
    case ZYDIS_MNEMONIC_RDTSCP:
        d->i->aux = 1;
        return bind_plain(d, rdtsc);
    case ZYDIS_MNEMONIC_RDTSC:
        return bind_plain(d, rdtsc);
    case ZYDIS_MNEMONIC_RDPMC:
        return bind_plain(d, rdpmc);
    case ZYDIS_MNEMONIC_RDMSR:
        return bind_plain(d, rdmsr);
    case ZYDIS_MNEMONIC_WRMSR:
        return x86_bind_end(d, wrmsr);
    case ZYDIS_MNEMONIC_CPUID:
        return bind_plain(d, cpuid);
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
        return d->c->bus.hypercall && x86_bind_end(d, hypercall);
    case ZYDIS_MNEMONIC_SWAPGS:
        return bind_plain(d, swapgs);
    default:
        return bind_base(d);
    }
}

/* Not here, hence undefined: RSM (there is no SMM), MONITOR, MWAIT, SMX, SGX, and of VMX and SVM
 * all but their hypercalls. */
const struct x86_bind_row x86_rows_sys[] = {
    {ZYDIS_MNEMONIC_LDS, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_LES, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_LSS, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_LFS, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_LGS, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_LGDT, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_LIDT, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_SGDT, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_SIDT, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_LLDT, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_LTR, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_SLDT, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_STR, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_LAR, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_LSL, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_VERR, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_VERW, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_ARPL, x86_bind_segment, 0},
    {ZYDIS_MNEMONIC_CLTS, x86_bind_cr, 0},
    {ZYDIS_MNEMONIC_LMSW, x86_bind_cr, 0},
    {ZYDIS_MNEMONIC_SMSW, x86_bind_cr, 0},
    {ZYDIS_MNEMONIC_XGETBV, x86_bind_cr, 0},
    {ZYDIS_MNEMONIC_XSETBV, x86_bind_cr, 0},
    {ZYDIS_MNEMONIC_CLI, x86_bind_flags, 0},
    {ZYDIS_MNEMONIC_STI, x86_bind_flags, 0},
    {ZYDIS_MNEMONIC_CLAC, x86_bind_flags, 0},
    {ZYDIS_MNEMONIC_STAC, x86_bind_flags, 0},
    {ZYDIS_MNEMONIC_PUSHF, x86_bind_flags, 0},
    {ZYDIS_MNEMONIC_PUSHFD, x86_bind_flags, 0},
    {ZYDIS_MNEMONIC_PUSHFQ, x86_bind_flags, 0},
    {ZYDIS_MNEMONIC_POPF, x86_bind_flags, 1},
    {ZYDIS_MNEMONIC_POPFD, x86_bind_flags, 1},
    {ZYDIS_MNEMONIC_POPFQ, x86_bind_flags, 1},
    {ZYDIS_MNEMONIC_IN, x86_bind_io, 0},
    {ZYDIS_MNEMONIC_OUT, x86_bind_io, 0},
    {ZYDIS_MNEMONIC_INSB, x86_bind_io, 0},
    {ZYDIS_MNEMONIC_INSW, x86_bind_io, 0},
    {ZYDIS_MNEMONIC_INSD, x86_bind_io, 0},
    {ZYDIS_MNEMONIC_OUTSB, x86_bind_io, 0},
    {ZYDIS_MNEMONIC_OUTSW, x86_bind_io, 0},
    {ZYDIS_MNEMONIC_OUTSD, x86_bind_io, 0},
    {ZYDIS_MNEMONIC_HLT, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_INVD, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_WBINVD, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_INVLPG, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_INVPCID, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_RDTSC, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_RDTSCP, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_RDPMC, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_RDMSR, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_WRMSR, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_CPUID, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_VMCALL, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_VMMCALL, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_SWAPGS, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_RDFSBASE, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_RDGSBASE, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_WRFSBASE, x86_bind_misc_sys, 0},
    {ZYDIS_MNEMONIC_WRGSBASE, x86_bind_misc_sys, 0},
    {0, NULL, 0},
};
