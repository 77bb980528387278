/*
 * native_bind.c - binds SIMD and x87 instructions to stubs, and runs those.
 *
 * A runner checks that the unit is available, finds the memory operand, and calls the stub with a
 * pointer to it: the guest's RAM itself where possible, else a buffer (page crossings, devices,
 * watched pages). A stub has no effect on the guest's state before all that can fault has
 * succeeded.
 */
#include "isa/x86/native_mem.h"

static inline void call(struct x86_cpu *c, const struct x86_insn *i, void *mem)
{
    ((x86_stub_fn)(uintptr_t)i->ext)(c, mem);
}

/* ---- SSE and AVX ---- */

static inline void run_store(struct x86_cpu *c, const struct x86_insn *i)
{
    unsigned size = x86_vec_size(i);
    gva_t lin = x86_vec_store_lin(c, i, size);
    void *host = x86_vec_store_ptr(c, lin, size);
    if (LIKELY(host)) {
        call(c, i, host);
        x86_vec_store_done(c, lin, host, size);
        return;
    }
    call(c, i, c->native->buffer);
    x86_vec_store_slow(c, lin, c->native->buffer, size);
}

#define RUNNERS(name, check)                                              \
    static void name##_none(struct x86_cpu *c, const struct x86_insn *i)  \
    {                                                                     \
        check(c);                                                         \
        call(c, i, NULL);                                                 \
    }                                                                     \
    static void name##_load(struct x86_cpu *c, const struct x86_insn *i)  \
    {                                                                     \
        check(c);                                                         \
        call(c, i, x86_vec_load(c, i, x86_vec_size(i)));                  \
    }                                                                     \
    static void name##_store(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                     \
        check(c);                                                         \
        run_store(c, i);                                                  \
    }
RUNNERS(sse, x86_sse_check)
RUNNERS(avx, x86_avx_check)
#undef RUNNERS

/* VCVTPS2PH sets MXCSR's flags even if its store faults. */
static void avx_store_last(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_avx_check(c);
    call(c, i, c->native->buffer);
    x86_vec_store(c, i, c->native->buffer, x86_vec_size(i));
}

/* ---- MMX; dst: the instruction belongs to SSE, too ---- */

static inline bool mmx_ready(struct x86_cpu *c, const struct x86_insn *i)
{
    if (i->dst)
        x86_sse_check(c);
    x86_mmx_check(c);
    return x86_fpu_wait(c, i);
}

/* Processors turn to MMX behind the load and before the operation: what faults there (#XM) finds
 * TOP = 0. */
static void mmx_call(struct x86_cpu *c, const struct x86_insn *i, void *mem)
{
    x86_mmx_enter(c);
    call(c, i, mem);
}

static void mmx_none(struct x86_cpu *c, const struct x86_insn *i)
{
    if (mmx_ready(c, i))
        mmx_call(c, i, NULL);
}

static void mmx_load(struct x86_cpu *c, const struct x86_insn *i)
{
    if (mmx_ready(c, i))
        mmx_call(c, i, x86_vec_load(c, i, x86_vec_size(i)));
}

static void mmx_store(struct x86_cpu *c, const struct x86_insn *i)
{
    if (!mmx_ready(c, i))
        return;
    x86_fpu_set_top(c, 0);
    run_store(c, i);
    x86_mmx_enter(c);
}

/* ---- binding ---- */

static const x86_op_fn runner[3][3] = {
    [X86_STUB_SSE] = {sse_none, sse_load, sse_store},
    [X86_STUB_AVX] = {avx_none, avx_load, avx_store},
    [X86_STUB_MMX] = {mmx_none, mmx_load, mmx_store},
};

static bool has_class(const struct x86_dec *d, ZydisRegisterClass a, ZydisRegisterClass b)
{
    for (unsigned n = 0; n < d->zi->operand_count; n++) {
        if (d->op[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        ZydisRegisterClass cl = ZydisRegisterGetClass(d->op[n].reg.value);
        if (cl == a || cl == b)
            return true;
    }
    return false;
}

/* False: neither a vector nor an x87 instruction. */
static bool classify(const struct x86_dec *d, enum x86_stub_kind *kind)
{
    ZydisInstructionCategory cat = d->zi->meta.category;
    if (cat == ZYDIS_CATEGORY_X87_ALU || cat == ZYDIS_CATEGORY_FCMOV)
        *kind = X86_STUB_X87;
    else if (has_class(d, ZYDIS_REGCLASS_MMX, ZYDIS_REGCLASS_MMX))
        *kind = X86_STUB_MMX;
    else if (!has_class(d, ZYDIS_REGCLASS_XMM, ZYDIS_REGCLASS_YMM) &&
             cat != ZYDIS_CATEGORY_CONVERT) /* CVTSD2SI r32, m64 */
        return false;
    else
        *kind = d->zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? X86_STUB_AVX : X86_STUB_SSE;
    return true;
}

/* SDM vol. 2, 2.4 and tables 23-4 ff. of vol. 3: legacy 16-byte operands must be aligned but for
 * these; VEX operands need not be but for the moves that say so (class 1). */
static unsigned alignment(const ZydisDecodedInstruction *zi, enum x86_stub_kind kind, unsigned size)
{
    if (kind == X86_STUB_X87 || size < 16)
        return 1;
    if (kind == X86_STUB_AVX)
        return zi->meta.exception_class == ZYDIS_EXCEPTION_CLASS_AVX1 ? size : 1;
    switch (zi->mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return 1;
    default:
        return size;
    }
}

static bool bind_memory(struct x86_dec *d, enum x86_stub_kind kind, bool *store)
{
    *store = false;
    bool found = false;
    for (unsigned n = 0; n < d->zi->operand_count_visible; n++) {
        const ZydisDecodedOperand *o = &d->op[n];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        unsigned size = o->size / 8u;
        *store = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        bool reads = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
        if (size == 0 || size > 32 || reads == *store)
            return false;
        d->i->aux = X86_VEC_AUX(size, alignment(d->zi, kind, size));
        found = true;
    }
    return found == !!(d->i->flags & X86_IF_MEM); /* an implicit one cannot be rewritten */
}

static x86_stub_fn find_or_make(const struct x86_dec *d, enum x86_stub_kind kind)
{
    struct x86_stub_key k;
    if (!x86_native_key(d, kind, &k))
        return NULL;
    x86_stub_fn stub = x86_native_find(d->c, &k);
    if (stub)
        return stub;
    uint8_t code[X86_STUB_MAX];
    unsigned len = x86_native_emit(d, &k, d->c->native->used, code);
    return x86_native_add(d->c, &k, code, len);
}

bool x86_bind_native(struct x86_dec *d)
{
    const ZydisDecodedInstruction *zi = d->zi;
    enum x86_stub_kind kind;
    bool store;
    if ((zi->attributes & ZYDIS_ATTRIB_HAS_LOCK) || !classify(d, &kind) ||
        !x86_model_has_isa(d->c->model, zi->meta.isa_ext, zi->meta.isa_set))
        return false;
    if (x86_bind_simd_move(d) || x86_bind_masked(d))
        return true;
    if (!bind_memory(d, kind, &store))
        return false;
    x86_stub_fn stub = find_or_make(d, kind);
    if (!stub)
        return false;
    d->i->ext = (void *)(uintptr_t)stub;
    if (kind == X86_STUB_MMX)
        d->i->dst = has_class(d, ZYDIS_REGCLASS_XMM, ZYDIS_REGCLASS_XMM) ||
                    zi->meta.category == ZYDIS_CATEGORY_CONVERT;
    if (kind == X86_STUB_X87)
        return x86_bind_x87(d, stub, store);
    d->i->fn = runner[kind][!(d->i->flags & X86_IF_MEM) ? 0 : store ? 2 : 1];
    if (store && zi->mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH)
        d->i->fn = avx_store_last;
    return true;
}
