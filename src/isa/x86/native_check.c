/*
 * native_check.c - what precedes a SIMD or x87 instruction: is the unit available, is an x87 error
 * pending; and the slow paths of its memory operand.
 */
#include "isa/x86/native_mem.h"

/* SDM vol. 3, table 2-2 and 13.1: #UD if emulated or not enabled, else #NM if switched away. */
_Noreturn void x86_sse_fault(struct x86_cpu *c)
{
    if ((c->s.cr0 & X86_CR0_EM) || !(c->s.cr4 & X86_CR4_OSFXSR))
        x86_ud(c);
    x86_raise(c, X86_NM);
}

_Noreturn void x86_avx_fault(struct x86_cpu *c)
{
    const uint64_t need = X86_XCR0_SSE | X86_XCR0_AVX;
    if (!c->protected_mode || !(c->s.cr4 & X86_CR4_OSXSAVE) || (c->s.xcr0 & need) != need)
        x86_ud(c);
    x86_raise(c, X86_NM);
}

_Noreturn void x86_fpu_fault(struct x86_cpu *c)
{
    x86_raise(c, X86_NM);
}

_Noreturn void x86_mmx_fault(struct x86_cpu *c)
{
    if (c->s.cr0 & X86_CR0_EM)
        x86_ud(c);
    x86_raise(c, X86_NM);
}

/* ---- x87 errors (SDM vol. 1, 8.7 and appendix D) ---- */

bool x86_fpu_error_pending(struct x86_cpu *c, const struct x86_insn *i)
{
    if (c->s.cr0 & X86_CR0_NE)
        x86_raise(c, X86_MF);
    if (!c->ferr.fn || c->ferr.ignne)
        return true;
    if (!c->ferr.level) {
        c->ferr.level = true;
        c->ferr.fn(c->ferr.ctx, true);
    }
    /* The processor freezes until the interrupt comes: this instruction is executed again. */
    c->s.rip = x86_insn_rip(c);
    c->block_end = i + 1;
    return false;
}

void x86_fpu_update_es(struct x86_cpu *c)
{
    struct x86_xsave *f = &c->s.fpu;
    if (f->fsw & ~f->fcw & 0x3f) {
        f->fsw |= X86_FSW_ES | X86_FSW_B;
        return;
    }
    f->fsw &= (uint16_t) ~(X86_FSW_ES | X86_FSW_B);
    if (c->ferr.level) {
        c->ferr.level = false;
        c->ferr.fn(c->ferr.ctx, false);
    }
    c->ferr.ignne = false;
}

void x86_set_ignne(struct x86_cpu *c, bool level)
{
    c->ferr.ignne = level && (c->s.fpu.fsw & X86_FSW_ES);
}

void x86_fpu_set_top(struct x86_cpu *c, unsigned top)
{
    struct x86_xsave *f = &c->s.fpu;
    unsigned by = ((f->fsw >> X86_FSW_TOP_SH) - top) & 7;
    uint8_t old[8][16];
    memcpy(old, f->st, sizeof old);
    for (unsigned n = 0; n < 8; n++)
        memcpy(f->st[(n + by) & 7], old[n], 16);
    f->fsw = (uint16_t)((f->fsw & ~(7u << X86_FSW_TOP_SH)) | top << X86_FSW_TOP_SH);
}

void x86_mmx_enter_slow(struct x86_cpu *c)
{
    x86_fpu_set_top(c, 0);
    c->s.fpu.ftw = 0xff;
}

/* ---- memory ---- */

/* Up to eight bytes are one access, which matters to a device. */
static bool single(unsigned size)
{
    return size <= 8 && (size & (size - 1)) == 0;
}

/* Of operands of 16 bytes and more no alignment is asked but what gives #GP (SDM vol. 1, 14.9), and
 * F16C asks for none (SDM vol. 2, exceptions of type 11). */
static enum x86_mmu vec_mmu(const struct x86_cpu *c, unsigned size)
{
    bool f16c = c->cur && (c->cur->mnemonic == ZYDIS_MNEMONIC_VCVTPH2PS ||
                           c->cur->mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH);
    return c->mmu == X86_MMU_ALIGN && (size >= 16 || f16c) ? X86_MMU_USER : (enum x86_mmu)c->mmu;
}

/* Before anything else of a misaligned operand is looked at; m80 asks for 8 (SDM vol. 3, table
 * 6-7). */
static void check_align(struct x86_cpu *c, gva_t lin, unsigned size)
{
    if (UNLIKELY(c->mmu == X86_MMU_ALIGN) && size < 16 && x86_canonical(lin) &&
        (lin & ((size > 8 ? 8 : size) - 1)))
        x86_raise_err(c, X86_AC, 0);
}

void *x86_vec_load_slow(struct x86_cpu *c, gva_t lin, unsigned size)
{
    uint8_t *b = c->native->buffer;
    if (single(size)) {
        uint64_t v = x86_ld_slow(c, lin, size, vec_mmu(c, size));
        memcpy(b, &v, sizeof v);
    } else {
        check_align(c, lin, size);
        x86_ld_bytes(c, lin, b, size, vec_mmu(c, size));
    }
    return b;
}

void x86_vec_store_slow(struct x86_cpu *c, gva_t lin, const void *src, unsigned size)
{
    if (single(size)) {
        uint64_t v = 0;
        memcpy(&v, src, size);
        x86_st_slow(c, lin, v, size, vec_mmu(c, size));
    } else if (size == 10) { /* two stores: the second can fault when the first is done */
        uint64_t low, high = 0;
        memcpy(&low, src, 8);
        memcpy(&high, (const uint8_t *)src + 8, 2);
        check_align(c, lin, size);
        x86_st_slow(c, lin, low, 8, c->mmu);
        x86_st_slow(c, (lin + 8) & c->lin_mask, high, 2, c->mmu);
    } else {
        check_align(c, lin, size);
        x86_st_bytes(c, lin, src, size, vec_mmu(c, size));
    }
}
