/*
 * native_x87.c - runs x87 instructions on the host's x87 unit.
 *
 * There are two kinds of stub. A *full* one loads the whole state (FXRSTOR), executes the
 * instruction and saves the state (FXSAVE): exact in all cases, but 160 cycles. A *lean* one, for
 * the common instructions, loads only the one or two registers that are read, in ten cycles. It
 * runs with all errors masked, and if one occurs that the guest has not masked, the result is
 * dropped and the full stub is run. The same if a register is empty that should not be, or the
 * other way round.
 *
 * Fields of a leanly bound x86_insn:
 *   ext    lean stub, or NULL: a move done in C
 *   imm    bits 0..10 FOP, bits 32.. offset of the full stub in the arena
 *   dst    registers that must not be empty: bit n is ST(n)
 *   src    n of the operand ST(n)
 *   src2   enum stack_move
 *   osize  condition codes that the instruction sets: the status word's upper byte
 */
#include "isa/x86/fpu.h"
#include "isa/x86/native_mem.h"

enum stack_move { STAY, POP, POP_TWO, PUSH };

/* Returns the status word, or LEAN_FAILED. The stubs of the other kind return nothing. */
typedef uint32_t (*lean_fn)(struct x86_cpu *c, void *mem, const struct x86_lean_env *env);
#define LEAN_FAILED 0xffffffffu

#define C1    0x02u /* in the status word's upper byte */
#define C0123 0x47u

#define FCW_UM    0x10u
#define X87_BYTES offsetof(struct x86_xsave, xmm) /* of the state, that x87 instructions change */

/* ---- full stubs ---- */

struct x87_pointers {
    uint16_t fop;
    uint64_t fip, fdp;
};

/* FOP, FIP and FDP after a stub that ran on zeroed ones. Those that the host shows as set are those
 * which the instruction sets, and get the guest's values (SDM vol. 1, 8.1.8). A host that shows
 * them only while an error is pending sets them nonetheless: probe_x87() knows which. */
static void take_pointers(struct x86_cpu *c, const struct x86_insn *i, bool mem,
                          const struct x87_pointers *old)
{
    const struct x86_native *n = c->native;
    struct x86_xsave *f = &c->s.fpu;
    bool hidden = n->pointers_hidden && !(f->fsw & X86_FSW_ES);
    bool fop = hidden ? n->fop_always : f->fop, fdp = hidden ? n->fdp_always && mem : f->fdp;
    f->fip = hidden || f->fip ? x86_insn_rip(c) : old->fip;
    f->fop = fop ? i->imm & 0x7ff : old->fop;
    f->fdp = !fdp ? old->fdp : mem ? x86_ea(c, i) : 0;
}

static void full_call(struct x86_cpu *c, const struct x86_insn *i, void *mem)
{
    struct x86_xsave *f = &c->s.fpu;
    struct x87_pointers old = {f->fop, f->fip, f->fdp};
    uint16_t ignored = f->fsw & X86_FSW_ES ? f->fsw & 0x3f : 0;
    f->fop = 0;
    f->fip = f->fdp = 0;
    if (UNLIKELY(ignored)) /* under IGNNE#: the host must not see the pending error */
        f->fsw &= (uint16_t) ~(X86_FSW_ES | X86_FSW_B | 0x3f);
    ((x86_stub_fn)(uintptr_t)(c->native->rx + (i->imm >> 32)))(c, mem);
    take_pointers(c, i, mem, &old);
    f->mxcsr_mask &= X86_MXCSR_BITS; /* the stub's FXSAVE stores the host's */
    if (UNLIKELY(ignored)) {
        f->fsw |= ignored;
        x86_fpu_update_es(c);
    }
}

static void full_none(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    if (x86_fpu_wait(c, i))
        full_call(c, i, NULL);
}

static void full_load(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    if (x86_fpu_wait(c, i))
        full_call(c, i, x86_vec_load(c, i, x86_vec_size(i)));
}

/* A store that meets an unmasked error other than precision does not touch its operand, and so does
 * not fault; a pattern in the buffer tells. One that does write may fault, and then has changed
 * nothing. */
static void full_store(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    if (!x86_fpu_wait(c, i))
        return;
    uint8_t *b = c->native->buffer, pattern[16], before[X87_BYTES], after[X87_BYTES];
    unsigned size = x86_vec_size(i);
    memset(pattern, 0xa5, sizeof pattern);
    memcpy(b, pattern, sizeof pattern);
    memcpy(before, &c->s.fpu, X87_BYTES);
    full_call(c, i, b);
    if ((c->s.fpu.fsw & X86_FSW_ES) && memcmp(b, pattern, size) == 0)
        return;
    memcpy(after, &c->s.fpu, X87_BYTES);
    memcpy(&c->s.fpu, before, X87_BYTES);
    x86_vec_store(c, i, b, size);
    memcpy(&c->s.fpu, after, X87_BYTES);
}

/* ---- lean stubs ---- */

static inline unsigned top_of(const struct x86_xsave *f)
{
    return (f->fsw >> X86_FSW_TOP_SH) & 7;
}

/* Can the instruction run leanly? The guest's tags, rotated so that bit n is ST(n), tell. */
static inline bool lean_ok(const struct x86_cpu *c, const struct x86_insn *i)
{
    const struct x86_xsave *f = &c->s.fpu;
    unsigned top = top_of(f), tags = (f->ftw >> top | f->ftw << (8 - top)) & 0xff;
    /* Unmasked underflow is told by a tiny result alone, masked only if it is inexact, too. */
    if ((f->fsw & X86_FSW_ES) || !(f->fcw & FCW_UM))
        return false;
    return (tags & i->dst) == i->dst && (i->src2 != PUSH || !(tags & 0x80));
}

static inline uint32_t lean_call(struct x86_cpu *c, const struct x86_insn *i, void *mem)
{
    struct x86_lean_env *env = &c->native->lean;
    env->fcw = c->s.fpu.fcw | 0x3f;
    env->unmasked = ~c->s.fpu.fcw & 0x3f;
    return ((lean_fn)(uintptr_t)i->ext)(c, mem, env);
}

/* The image is in stack order: it moves with TOP. */
static inline void pop(struct x86_xsave *f)
{
    uint8_t first[16];
    unsigned top = top_of(f);
    memcpy(first, f->st[0], 16);
    memmove(f->st[0], f->st[1], 7 * 16);
    memcpy(f->st[7], first, 16);
    f->ftw &= (uint8_t) ~(1u << top);
    f->fsw = (uint16_t)((f->fsw & ~(7u << X86_FSW_TOP_SH)) | ((top + 1) & 7) << X86_FSW_TOP_SH);
}

/* The new ST(0) is in st[7], where the register is that it becomes. */
static inline void push(struct x86_xsave *f)
{
    uint8_t last[16];
    unsigned top = (top_of(f) - 1) & 7;
    memcpy(last, f->st[7], 16);
    memmove(f->st[1], f->st[0], 7 * 16);
    memcpy(f->st[0], last, 16);
    f->ftw |= (uint8_t)(1u << top);
    f->fsw = (uint16_t)((f->fsw & ~(7u << X86_FSW_TOP_SH)) | top << X86_FSW_TOP_SH);
}

static inline void lean_commit(struct x86_cpu *c, const struct x86_insn *i, uint32_t sw)
{
    struct x86_xsave *f = &c->s.fpu;
    uint32_t cc = (uint32_t)i->osize << 8;
    f->fsw = (uint16_t)((f->fsw & ~cc) | (sw & (cc | 0x3f)));
    f->fip = x86_insn_rip(c);
    if (UNLIKELY(c->native->fop_always))
        f->fop = i->imm & 0x7ff;
    if (UNLIKELY(c->native->fdp_always) && (i->flags & X86_IF_MEM))
        f->fdp = x86_ea(c, i);
    if (i->src2 == PUSH)
        push(f);
    else if (i->src2 != STAY)
        pop(f);
    if (i->src2 == POP_TWO)
        pop(f);
}

static void lean_none(struct x86_cpu *c, const struct x86_insn *i)
{
    uint32_t sw;
    x86_fpu_check(c);
    if (LIKELY(lean_ok(c, i)) && LIKELY((sw = lean_call(c, i, NULL)) != LEAN_FAILED))
        lean_commit(c, i, sw);
    else
        full_none(c, i);
}

static void lean_load(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    if (LIKELY(lean_ok(c, i))) {
        uint32_t sw = lean_call(c, i, x86_vec_load(c, i, x86_vec_size(i)));
        if (LIKELY(sw != LEAN_FAILED)) {
            lean_commit(c, i, sw);
            return;
        }
    }
    full_load(c, i);
}

static inline void store_scalar(struct x86_cpu *c, const struct x86_insn *i, uint64_t v)
{
    unsigned size = x86_vec_size(i);
    gva_t lin = x86_lin_w(c, i, size);
    if (size == 8)
        x86_st64(c, lin, v);
    else if (size == 4)
        x86_st32(c, lin, (uint32_t)v);
    else
        x86_st16(c, lin, (uint16_t)v);
}

/* The operand is stored, and may fault, before the state changes. */
static void lean_store(struct x86_cpu *c, const struct x86_insn *i)
{
    uint32_t sw;
    uint64_t out = 0;
    x86_fpu_check(c);
    if (LIKELY(lean_ok(c, i)) && LIKELY((sw = lean_call(c, i, &out)) != LEAN_FAILED)) {
        store_scalar(c, i, out);
        lean_commit(c, i, sw);
    } else {
        full_store(c, i);
    }
}

/* ---- moves without arithmetic, in C; they clear C1 ---- */

static void move_fld_st(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    if (UNLIKELY(!lean_ok(c, i))) {
        full_none(c, i);
        return;
    }
    memmove(c->s.fpu.st[7], c->s.fpu.st[i->src], 16);
    lean_commit(c, i, 0);
}

static void move_fst_st(struct x86_cpu *c, const struct x86_insn *i)
{
    struct x86_xsave *f = &c->s.fpu;
    x86_fpu_check(c);
    if (UNLIKELY(!lean_ok(c, i))) {
        full_none(c, i);
        return;
    }
    memmove(f->st[i->src], f->st[0], 16);
    f->ftw |= (uint8_t)(1u << ((top_of(f) + i->src) & 7));
    lean_commit(c, i, 0);
}

static void move_fxch(struct x86_cpu *c, const struct x86_insn *i)
{
    struct x86_xsave *f = &c->s.fpu;
    x86_fpu_check(c);
    if (UNLIKELY(!lean_ok(c, i))) {
        full_none(c, i);
        return;
    }
    uint8_t t[16];
    memcpy(t, f->st[0], 16);
    memmove(f->st[0], f->st[i->src], 16);
    memcpy(f->st[i->src], t, 16);
    lean_commit(c, i, 0);
}

static void move_fld80(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    if (UNLIKELY(!lean_ok(c, i))) {
        full_load(c, i);
        return;
    }
    memcpy(c->s.fpu.st[7], x86_vec_load(c, i, 10), 10);
    lean_commit(c, i, 0);
}

static void move_fstp80(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    if (UNLIKELY(!lean_ok(c, i))) {
        full_store(c, i);
        return;
    }
    x86_vec_store(c, i, c->s.fpu.st[0], 10);
    lean_commit(c, i, 0);
}

/* ---- which instructions are lean ---- */

struct shape {
    x86_op_fn move; /* done in C, or NULL */
    uint8_t opcode,
        ext;       /* what the stub executes: ModRM.reg, or the whole ModRM of a register form */
    bool st0, sti; /* read */
    bool to_st0, to_sti; /* written */
    bool host_pops;      /* the stub's instruction pops its one register */
    bool flags;          /* writes RFLAGS */
    uint8_t cc;
    enum stack_move stack;
};

/* D8, DC, DA, DE with a memory operand; D8 with ST(i): 2 and 3 are FCOM and FCOMP. */
static void arith_to_st0(struct shape *s, unsigned opcode, unsigned op, bool reg)
{
    bool compare = op == 2 || op == 3;
    s->opcode = (uint8_t)opcode;
    s->ext = (uint8_t)(compare ? 2 : op);
    s->st0 = true;
    s->sti = reg;
    s->to_st0 = !compare;
    s->cc = compare ? C0123 : C1;
    s->stack = op == 3 ? POP : STAY;
}

static bool memory_shape(struct shape *s, unsigned opcode, unsigned op)
{
    if (!(opcode & 1)) {
        arith_to_st0(s, opcode, op, false);
        return true;
    }
    s->opcode = (uint8_t)opcode;
    s->ext = (uint8_t)op;
    s->cc = C1;
    if (opcode == 0xdb && op == 5)
        s->move = move_fld80;
    if (opcode == 0xdb && op == 7)
        s->move = move_fstp80;
    if (op == 0 || (op == 5 && (opcode == 0xdb || opcode == 0xdf))) { /* FLD, FILD */
        s->to_st0 = true;
        s->stack = PUSH;
        return true;
    }
    s->st0 = true;
    if (op == 1 || op == 3 || op == 7) { /* FISTTP, FSTP, FISTP */
        s->stack = POP;
        s->host_pops = true;
        return (op != 1 || opcode != 0xd9) && (op != 7 || opcode == 0xdb || opcode == 0xdf);
    }
    return op == 2; /* FST, FIST */
}

/* D9 with ModRM E0..FF: no operand */
static bool nullary_shape(struct shape *s, unsigned modrm)
{
    s->opcode = 0xd9;
    s->ext = (uint8_t)modrm;
    s->cc = C1;
    s->st0 = s->to_st0 = true;
    switch (modrm) {
    case 0xe0: /* FCHS */
    case 0xe1: /* FABS */
    case 0xfa: /* FSQRT */
    case 0xfc: /* FRNDINT */
        return true;
    case 0xe4: /* FTST */
        s->to_st0 = false;
        s->cc = C0123;
        return true;
    default: /* constants */
        s->st0 = false;
        s->stack = PUSH;
        return modrm >= 0xe8 && modrm <= 0xee;
    }
}

static bool move_shape(struct shape *s, x86_op_fn move, enum stack_move stack)
{
    s->move = move;
    s->cc = C1;
    s->stack = stack;
    s->st0 = move != move_fld_st;
    s->sti = move != move_fst_st;
    return true;
}

static bool compare_shape(struct shape *s, unsigned opcode, unsigned op, enum stack_move stack)
{
    s->opcode = (uint8_t)opcode;
    s->ext = (uint8_t)op;
    s->st0 = s->sti = true;
    s->flags = opcode == 0xdb; /* FCOMI, FUCOMI */
    s->cc = s->flags ? C1 : C0123;
    s->stack = stack;
    return true;
}

static bool register_shape(struct shape *s, unsigned opcode, unsigned modrm)
{
    unsigned op = modrm >> 3 & 7;
    switch (opcode) {
    case 0xd8:
        arith_to_st0(s, opcode, op, true);
        return true;
    case 0xdc:
    case 0xde: /* to ST(i), and pop; 3 is FCOMPP */
        if (op == 2 || op == 3)
            return opcode == 0xde && modrm == 0xd9 && compare_shape(s, 0xd8, 2, POP_TWO);
        arith_to_st0(s, 0xdc, op, true);
        s->to_st0 = false;
        s->to_sti = true;
        s->stack = opcode == 0xde ? POP : STAY;
        return true;
    case 0xd9:
        if (op == 0)
            return move_shape(s, move_fld_st, PUSH);
        if (op == 1)
            return move_shape(s, move_fxch, STAY);
        return op >= 4 && nullary_shape(s, modrm);
    case 0xda:
        return modrm == 0xe9 && compare_shape(s, 0xdd, 4, POP_TWO);
    case 0xdb:
        return (op == 5 || op == 6) && compare_shape(s, 0xdb, op, STAY);
    case 0xdd:
        if (op == 2 || op == 3)
            return move_shape(s, move_fst_st, op == 3 ? POP : STAY);
        return (op == 4 || op == 5) && compare_shape(s, 0xdd, 4, op == 5 ? POP : STAY);
    case 0xdf:
        return (op == 5 || op == 6) && compare_shape(s, 0xdb, op, POP);
    default:
        return false;
    }
}

/* ---- code of a lean stub: RDI vCPU, RSI memory, RDX struct x86_lean_env ---- */

struct code {
    uint8_t p[X86_STUB_MAX];
    unsigned len;
};

static void put(struct code *k, const void *b, unsigned n)
{
    memcpy(k->p + k->len, b, n);
    k->len += n;
}
#define PUT(k, ...) put((k), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void at_rdi(struct code *k, unsigned reg, size_t off)
{
    uint32_t disp = (uint32_t)off;
    PUT(k, 0x87 | reg << 3);
    put(k, &disp, 4);
}

/* FLD or FSTP m80 */
static void move80(struct code *k, bool store, unsigned st)
{
    PUT(k, 0xdb);
    at_rdi(k, store ? 7 : 5, offsetof(struct x86_cpu, s.fpu.st) + 16u * st);
}

static void put_insn(struct code *k, const struct shape *s, bool mem, bool two)
{
    if (s->flags) { /* MOVZX EAX, [fl]; ADD AL, 0x7F; SAHF: see native_emit.c */
        PUT(k, 0x0f, 0xb7);
        at_rdi(k, 0, offsetof(struct x86_cpu, fl));
        PUT(k, 0x04, 0x7f, 0x9e);
    }
    if (mem)
        PUT(k, s->opcode, s->ext << 3 | 6);
    else if (s->ext >= 0xc0)
        PUT(k, s->opcode, s->ext);
    else
        PUT(k, s->opcode, 0xc0 | s->ext << 3 | two);
    if (s->flags) /* LAHF; SETO AL; MOV R8D, EAX */
        PUT(k, 0x9f, 0x0f, 0x90, 0xc0, 0x41, 0x89, 0xc0);
}

static void emit_lean(struct code *k, const struct shape *s, unsigned st, bool mem)
{
    bool two = s->sti && st != 0;
    PUT(k, 0xd9, 0x2a); /* FLDCW [RDX] */
    if (two)
        move80(k, false, st);
    if (s->st0)
        move80(k, false, 0);
    put_insn(k, s, mem, two);
    PUT(k, 0xdf, 0xe0, 0x84, 0x42, 0x02, 0x75, 0); /* FNSTSW AX; TEST [RDX+2], AL; JNZ failed */
    unsigned jump = k->len;
    if (s->flags) { /* MOV [fl], R8W */
        PUT(k, 0x66, 0x44, 0x89);
        at_rdi(k, 0, offsetof(struct x86_cpu, fl));
    }
    bool into_st0 = s->to_st0 || (s->to_sti && !two); /* the host's ST(0) is the result */
    if (into_st0)
        move80(k, true, s->stack == PUSH ? 7 : 0);
    else if (s->st0 && !s->host_pops)
        PUT(k, 0xdd, 0xd8); /* FSTP ST(0): drop */
    if (two && s->to_sti)
        move80(k, true, st);
    else if (two)
        PUT(k, 0xdd, 0xd8);
    PUT(k, 0xa8, 0x7f, 0x74, 0x02, 0xdb, 0xe2);       /* TEST AL, 0x7F; JZ +2; FNCLEX */
    PUT(k, 0xd9, 0x6a, 0x04, 0x0f, 0xb7, 0xc0, 0xc3); /* FLDCW [RDX+4]; MOVZX EAX, AX; RET */
    k->p[jump - 1] = (uint8_t)(k->len - jump);
    PUT(k, 0xdb, 0xe3, 0x83, 0xc8, 0xff, 0xc3); /* FNINIT; OR EAX, -1; RET */
}

static void *lean_stub(const struct x86_dec *d, const struct shape *s, unsigned st, bool mem)
{
    struct x86_stub_key key = {.kind = X86_STUB_X87_LEAN, .len = 2, .rm = (uint8_t)st};
    key.insn[0] = d->zi->opcode;
    key.insn[1] =
        mem ? (uint8_t)(d->zi->raw.modrm.reg << 3 | 6) : d->bytes[d->zi->raw.modrm.offset];
    x86_stub_fn fn = x86_native_find(d->c, &key);
    if (!fn) {
        struct code k = {.len = 0};
        emit_lean(&k, s, st, mem);
        fn = x86_native_add(d->c, &key, k.p, k.len);
    }
    return (void *)(uintptr_t)fn;
}

bool x86_bind_x87(struct x86_dec *d, x86_stub_fn full, bool store)
{
    struct x86_insn *i = d->i;
    const ZydisDecodedInstruction *zi = d->zi;
    unsigned modrm = d->bytes[zi->raw.modrm.offset];
    bool mem = i->flags & X86_IF_MEM;
    struct shape s = {0};
    i->imm = (zi->opcode & 7u) << 8 | modrm;
    i->imm |= (uint64_t)((uintptr_t)full - (uintptr_t)d->c->native->rx) << 32;
    bool lean = mem ? memory_shape(&s, zi->opcode, zi->raw.modrm.reg)
                    : register_shape(&s, zi->opcode, modrm);
    i->fn = !mem ? full_none : store ? full_store : full_load;
    if (!lean)
        return true;
    unsigned st = s.sti || s.move == move_fst_st ? modrm & 7 : 0;
    i->dst = (uint8_t)((s.st0 ? 1u : 0) | (s.sti ? 1u << st : 0));
    i->src = (uint8_t)st;
    i->src2 = (uint8_t)s.stack;
    i->osize = s.flags && !d->c->native->fcomi_clears_c1 ? 0 : s.cc;
    if (s.move) {
        i->fn = s.move;
        return true;
    }
    i->ext = lean_stub(d, &s, st, mem);
    if (i->ext)
        i->fn = !mem ? lean_none : store ? lean_store : lean_load;
    return true;
}
