/*
 * thunks.c - the code around translations: in, out, and calls of C functions.
 *
 * In translated code RSP is a multiple of 16, so that a thunk that is called finds it 8 off. A
 * thunk that is jumped to may store and load the guest's registers, but nothing else survives it.
 */
#include <stddef.h>

#include "engine/jit/jit.h"
#include "engine/jit/regs.h"

#define CALLS_BYTES (64 * 1024) /* of the stack that the host's calls may take */
#define HOST_MXCSR  0x1f80u
#define OFF_XMM(n)  (G_OFF(s.fpu.xmm) + 16 * (int32_t)(n))
#define OFF_YMM(n)  (G_OFF(s.fpu.ymmh) + 16 * (int32_t)(n))

struct maker {
    struct jit *j;
    struct asm_buf b;
};

static void move_gprs(struct asm_buf *b, bool store)
{
    for (unsigned r = 0; r < 16; r++) {
        if (jit_host_reg[r] == H_NONE)
            continue;
        if (store)
            asm_store(b, OP_GS(G_GPR(r)), jit_host_reg[r], 8);
        else
            asm_load(b, jit_host_reg[r], OP_GS(G_GPR(r)), 8);
    }
}

static void load_self(struct asm_buf *b, unsigned reg)
{
    asm_load(b, reg, OP_GS(G_OFF(self)), 8);
}

static void call_c(struct asm_buf *b, uintptr_t fn)
{
    asm_mov_imm(b, H_RAX, fn);
    asm_call_opnd(b, OP_REG(H_RAX));
}

/* ---- SSE and AVX registers ---- */

/* MOVDQU xmm, m128 or the reverse; with VEX, VMOVDQU. */
static void mov_xmm(struct asm_buf *b, bool store, bool vex, unsigned r)
{
    asm_insn(b, (struct opcode){.op = store ? 0x7f : 0x6f, .map = 1, .prefix = 0xf3, .vex = vex}, r,
             OP_GS(OFF_XMM(r)));
}

/* VEXTRACTF128 m128, ymm, 1 or VINSERTF128 ymm, ymm, m128, 1 */
static void mov_ymmh(struct asm_buf *b, bool store, unsigned r)
{
    asm_insn(b,
             (struct opcode){.op = store ? 0x19 : 0x18,
                             .map = 3,
                             .prefix = 0x66,
                             .vex = true,
                             .l = true,
                             .vvvv = store ? 0 : (uint8_t)r},
             r, OP_GS(OFF_YMM(r)));
    asm_u8(b, 1);
}

static void mxcsr(struct asm_buf *b, bool store, struct opnd m)
{
    asm_insn(b, (struct opcode){.op = 0xae, .map = 1}, store ? 3 : 2, m);
}

static void fpu_load(struct maker *m)
{
    struct asm_buf *b = &m->b;
    for (unsigned r = 0; r < 16; r++) {
        mov_xmm(b, false, m->j->avx, r);
        if (m->j->avx)
            mov_ymmh(b, false, r);
    }
    mxcsr(b, false, OP_GS(G_OFF(s.fpu.mxcsr)));
    asm_store_imm(b, OP_GS(G_OFF(jit_fpu_live)), 1, 1);
    asm_u8(b, 0xc3);
}

/* If they are live. Flags are lost. */
static void fpu_save(struct maker *m)
{
    struct asm_buf *b = &m->b;
    asm_alu_imm(b, ALU_CMP, OP_GS(G_OFF(jit_fpu_live)), 0, 1);
    uint8_t *done = asm_jcc(b, CC_Z, NULL);
    for (unsigned r = 0; r < 16; r++) {
        mov_xmm(b, true, m->j->avx, r);
        if (m->j->avx)
            mov_ymmh(b, true, r);
    }
    static const uint8_t vzeroupper[] = {0xc5, 0xf8, 0x77};
    if (m->j->avx)
        asm_bytes(b, vzeroupper, sizeof vzeroupper);
    mxcsr(b, true, OP_GS(G_OFF(s.fpu.mxcsr)));
    asm_store_imm(b, OP_GS(G_OFF(jit_scratch)), (int32_t)HOST_MXCSR, 4);
    mxcsr(b, false, OP_GS(G_OFF(jit_scratch)));
    asm_store_imm(b, OP_GS(G_OFF(jit_fpu_live)), 0, 1);
    asm_patch(done, b->p);
}

/* ---- x87 ---- */

/* XSAVE64 or XRSTOR64 of the x87 state alone; RAX and RDX are lost. */
static void xsave(struct asm_buf *b, bool store)
{
    asm_mov_imm(b, H_RAX, X86_XCR0_X87);
    asm_mov_imm(b, H_RDX, 0);
    asm_insn(b, (struct opcode){.op = 0xae, .map = 1, .w = true}, store ? 4 : 5,
             OP_GS(G_OFF(s.fpu)));
}

static void pointers(struct asm_buf *b, bool store)
{
    static const struct {
        int32_t image, live;
        unsigned size;
    } field[] = {{G_OFF(s.fpu.fip), G_OFF(jit_x87.fip), 8},
                 {G_OFF(s.fpu.fdp), G_OFF(jit_x87.fdp), 8},
                 {G_OFF(s.fpu.fop), G_OFF(jit_x87.fop), 2}};
    for (unsigned n = 0; n < ARRAY_LEN(field); n++) {
        asm_load(b, H_RAX, OP_GS(store ? field[n].live : field[n].image), field[n].size);
        asm_store(b, OP_GS(store ? field[n].image : field[n].live), H_RAX, field[n].size);
    }
}

/* RAX and R11 are lost. */
static void x87_load(struct maker *m)
{
    struct asm_buf *b = &m->b;
    pointers(b, false);
    asm_mov_rr(b, H_R11, H_RDX);
    asm_alu_imm(b, ALU_OR, OP_GS(G_OFF(s.fpu.xstate_bv)), X86_XCR0_X87, 1);
    xsave(b, false);
    asm_mov_rr(b, H_RDX, H_R11);
    asm_store_imm(b, OP_GS(G_OFF(jit_x87_live)), 1, 1);
    asm_u8(b, 0xc3);
}

/* RAX and RDX are lost. */
static void x87_save(struct maker *m)
{
    static const uint8_t fninit[] = {0xdb, 0xe3};
    struct asm_buf *b = &m->b;
    xsave(b, true);
    asm_bytes(b, fninit, sizeof fninit);
    pointers(b, true);
    asm_store_imm(b, OP_GS(G_OFF(jit_x87_live)), 0, 1);
    asm_u8(b, 0xc3);
}

/* ---- in and out ---- */

static void push_pop(struct asm_buf *b, bool push)
{
    static const uint8_t in[] = {0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57};
    static const uint8_t out[] = {0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b};
    if (push)
        asm_bytes(b, in, sizeof in);
    asm_alu_imm(b, push ? ALU_SUB : ALU_ADD, OP_REG(H_RSP), 8, 8);
    if (!push)
        asm_bytes(b, out, sizeof out);
}

static void enter(struct maker *m)
{
    struct asm_buf *b = &m->b;
    push_pop(b, true);
    asm_store(b, OP_GS(G_OFF(jit_rsp)), H_RSP, 8);
    asm_lea(b, H_RAX, OP_MEM(H_RSP, -CALLS_BYTES), 8);
    asm_store(b, OP_GS(G_OFF(jit_rsp_end)), H_RAX, 8);
    asm_mov_imm(b, H_RAX, (uintptr_t)m->j->thunk.ret);
    asm_store(b, OP_MEM(H_RSP, 0), H_RAX, 8); /* where a return leads that has no call */
    asm_mov_rr(b, H_RAX, H_RDI);
    move_gprs(b, false);
    asm_jmp_opnd(b, OP_REG(H_RAX));
}

static void leave(struct maker *m)
{
    jit_forget_calls(&m->b);
    push_pop(&m->b, false);
    asm_u8(&m->b, 0xc3);
}

/* The same if translations were given up. */
static void drop_if_told(struct asm_buf *b)
{
    asm_alu_imm(b, ALU_CMP, OP_GS(G_OFF(jit_drop)), 0, 1);
    uint8_t *keep = asm_jcc(b, CC_Z, NULL);
    jit_forget_calls(b);
    asm_store_imm(b, OP_GS(G_OFF(jit_drop)), 0, 1);
    asm_patch(keep, b->p);
}

/* Continues at the host address in RAX. */
static void go_on(struct maker *m)
{
    move_gprs(&m->b, false);
    asm_jmp_opnd(&m->b, OP_REG(H_RAX));
}

/* Of registers that have been stored. */
static void dispatch_stored(struct maker *m, bool keep)
{
    if (!keep)
        jit_forget_calls(&m->b);
    fpu_save(m);
    load_self(&m->b, H_RDI);
    call_c(&m->b, (uintptr_t)jit_c_dispatch);
    if (keep)
        drop_if_told(&m->b);
    go_on(m);
}

/* RSI: the address that EAX is the offset of. */
static void load_arg(struct maker *m)
{
    asm_mov_imm(&m->b, H_RSI, (uintptr_t)m->j->data);
    asm_alu(&m->b, ALU_ADD, H_RSI, OP_REG(H_RAX), 8);
}

/* The offset is kept from fpu_save() in RCX, which has been stored. */
static void prepare(struct maker *m)
{
    move_gprs(&m->b, true);
    asm_mov_rr(&m->b, H_RCX, H_RAX);
    fpu_save(m);
    asm_mov_rr(&m->b, H_RAX, H_RCX);
    load_arg(m);
    load_self(&m->b, H_RDI);
}

static void interp(struct maker *m, const uint8_t *stored)
{
    struct asm_buf *b = &m->b;
    prepare(m);
    asm_alu_imm(b, ALU_SUB, OP_REG(H_RSP), 8, 8);
    call_c(b, (uintptr_t)jit_c_interp);
    asm_alu_imm(b, ALU_ADD, OP_REG(H_RSP), 8, 8);
    asm_alu_imm(b, ALU_CMP, OP_REG(H_RAX), 0, 1);
    uint8_t *out = asm_jcc(b, CC_Z, NULL);
    move_gprs(b, false);
    asm_u8(b, 0xc3);
    asm_patch(out, b->p);
    asm_jmp(b, stored);
}

static void interp_end(struct maker *m, uintptr_t fn)
{
    jit_forget_calls(&m->b);
    prepare(m);
    call_c(&m->b, fn);
    go_on(m);
}

static void link_ef(struct maker *m)
{
    asm_mov_rr(&m->b, H_R11, H_RAX);
    asm_flags_save(&m->b, G_OFF(fl));
    asm_mov_rr(&m->b, H_RAX, H_R11);
}

static void link_fl(struct maker *m)
{
    prepare(m);
    call_c(&m->b, (uintptr_t)jit_c_link);
    drop_if_told(&m->b);
    go_on(m);
}

/* ---- returns ---- */

/* Jumps if the jump cache has the RIP in RAX under this key; the entry's offset is in R11. */
static void try_jump(struct asm_buf *b, int32_t key)
{
    uint8_t *miss = jit_jump_match(b, key);
    asm_jmp_opnd(b, jit_jump_host());
    asm_patch(miss, b->p);
    asm_alu(b, ALU_XOR, H_RAX, OP_GS(key), 8);
}

/* If nothing is known of the target, the instruction is executed anew by its function, which knows
 * where a return can lead. */
static void ret(struct maker *m)
{
    struct asm_buf *b = &m->b;
    jit_forget_calls(b);
    asm_alu_imm(b, ALU_CMP, OP_GS(G_OFF(pending)), 0, 4);
    uint8_t *pending = asm_jcc(b, CC_NZ, NULL);
    asm_store(b, OP_GS(G_OFF(jit_tmp)), H_R11, 8);
    jit_jump_place(b);
    try_jump(b, G_OFF(jit_key));
    try_jump(b, G_OFF(jit_key_global));
    asm_load(b, H_R11, OP_GS(G_OFF(jit_tmp)), 8);
    asm_patch(pending, b->p);
    asm_mov_imm(b, H_RAX, (uintptr_t)m->j->data + offsetof(struct jit_insn, undo));
    asm_load(b, H_RAX, OP_SIB(H_RAX, H_R11, 0, 0), 4);
    asm_alu(b, ALU_SUB, H_R15, OP_REG(H_RAX), 8);
    asm_mov_rr(b, H_RAX, H_R11);
    asm_jmp(b, jit_rw(m->j, m->j->thunk.interp_end));
}

/* ---- jumps and calls to other pages, out of translations made for size ---- */

static void load_rel(struct asm_buf *b)
{
    asm_insn(b, (struct opcode){.op = 0x63, .w = true}, H_RAX, OP_REG(H_RAX)); /* MOVSXD */
    asm_alu(b, ALU_ADD, H_RAX, OP_GS(G_OFF(jit_page)), 8);
}

/* To RAX. */
static void jump(struct maker *m, bool global)
{
    struct asm_buf *b = &m->b;
    asm_alu_imm(b, ALU_CMP, OP_GS(G_OFF(pending)), 0, 4);
    uint8_t *pending = asm_jcc(b, CC_NZ, NULL);
    jit_jump_place(b);
    try_jump(b, global ? G_OFF(jit_key_global) : G_OFF(jit_key));
    asm_patch(pending, b->p);
    asm_store(b, OP_GS(G_OFF(s.rip)), H_RAX, 8);
    asm_jmp(b, jit_rw(m->j, m->j->thunk.dispatch_keep));
}

static void jump_any(struct maker *m)
{
    struct asm_buf *b = &m->b;
    asm_alu_imm(b, ALU_CMP, OP_GS(G_OFF(pending)), 0, 4);
    uint8_t *pending = asm_jcc(b, CC_NZ, NULL);
    jit_jump_place(b);
    try_jump(b, G_OFF(jit_key));
    try_jump(b, G_OFF(jit_key_global));
    asm_patch(pending, b->p);
    asm_store(b, OP_GS(G_OFF(s.rip)), H_RAX, 8);
    asm_jmp(b, jit_rw(m->j, m->j->thunk.dispatch_keep));
}

/* On the host's stack: where the host's call returns to, and where the guest's does. */
static void check_calls(struct asm_buf *b)
{
    asm_alu(b, ALU_CMP, H_RSP, OP_GS(G_OFF(jit_rsp_end)), 8);
    uint8_t *room = asm_jcc(b, CC_NB, NULL);
    asm_load(b, H_R11, OP_MEM(H_RSP, 0), 8);
    asm_store(b, OP_GS(G_OFF(jit_tmp)), H_R11, 8);
    asm_load(b, H_R11, OP_MEM(H_RSP, 8), 8);
    jit_forget_calls(b);
    asm_lea(b, H_RSP, OP_MEM(H_RSP, -16), 8);
    asm_store(b, OP_MEM(H_RSP, 8), H_R11, 8);
    asm_load(b, H_R11, OP_GS(G_OFF(jit_tmp)), 8);
    asm_store(b, OP_MEM(H_RSP, 0), H_R11, 8);
    asm_patch(room, b->p);
}

/* ---- the TLB's other ways, and a refill ---- */

/* Those guest registers that a C function may change. */
static void move_volatile(struct asm_buf *b, bool store)
{
    static const uint8_t guest[] = {X86_RAX, X86_RCX, X86_RDX, X86_RSI, X86_RDI, 8, 9};
    for (unsigned n = 0; n < ARRAY_LEN(guest); n++) {
        if (store)
            asm_store(b, OP_GS(G_GPR(guest[n])), jit_host_reg[guest[n]], 8);
        else
            asm_load(b, jit_host_reg[guest[n]], OP_GS(G_GPR(guest[n])), 8);
    }
}

/* A C function that leaves vector registers alone; what sanitizers add to it does not. */
static void call_light(struct maker *m, uintptr_t fn)
{
    struct asm_buf *b = &m->b;
    uint8_t *plain = NULL, *done = NULL;
    if (SOSIA_SANITIZED) {
        asm_alu_imm(b, ALU_CMP, OP_GS(G_OFF(jit_fpu_live)), 0, 1);
        plain = asm_jcc(b, CC_Z, NULL);
        fpu_save(m);
        call_c(b, fn);
        asm_call(b, jit_rw(m->j, m->j->thunk.fpu_load));
        done = asm_jmp(b, NULL);
        asm_patch(plain, b->p);
    }
    call_c(b, fn);
    if (SOSIA_SANITIZED)
        asm_patch(done, b->p);
}

/* Flags must be in cpu->fl. */
static void refill(struct maker *m, bool write, unsigned mmu)
{
    struct asm_buf *b = &m->b;
    move_volatile(b, true);
    asm_store(b, OP_GS(G_OFF(jit_set)), H_R11, 8);
    asm_mov_rr(b, H_RSI, H_RAX);
    /* Does the last byte lie in the page that the set was chosen for? */
    jit_tlb_offset(b, m->j->bmi2, H_RCX, H_RAX);
    asm_alu(b, ALU_CMP, H_RCX, OP_REG(H_R11), 4);
    uint8_t *crossing = asm_jcc(b, CC_NZ, NULL);
    asm_alu_imm(b, ALU_AND, OP_REG(H_RSI), -(int32_t)PAGE_SIZE, 8);
    load_self(b, H_RDI);
    asm_mov_imm(b, H_RDX, write);
    asm_mov_imm(b, H_RCX, mmu);
    asm_alu_imm(b, ALU_SUB, OP_REG(H_RSP), 8, 8);
    call_light(m, (uintptr_t)x86_tlb_refill);
    asm_alu_imm(b, ALU_ADD, OP_REG(H_RSP), 8, 8);
    asm_load(b, H_R11, OP_GS(G_OFF(jit_set)), 8);
    asm_load(b, H_R11, OP_GSR(H_R11, JIT_TLB_OFF(mmu, 0, addend)), 8);
    asm_alu_imm(b, ALU_CMP, OP_REG(H_RAX), 1, 1);
    asm_patch(crossing, b->p);
    move_volatile(b, false);
    asm_u8(b, 0xc3);
}

static void ways(struct maker *m, bool write, unsigned mmu)
{
    struct asm_buf *b = &m->b;
    uint8_t *hit[X86_TLB_WAYS];
    for (unsigned w = 1; w < X86_TLB_WAYS; w++) {
        int32_t tag = write ? JIT_TLB_OFF(mmu, w, wtag) : JIT_TLB_OFF(mmu, w, rtag);
        asm_alu(b, ALU_CMP, H_RAX, OP_GSR(H_R11, tag), 8);
        hit[w] = asm_jcc(b, CC_Z, NULL);
    }
    refill(m, write, mmu);
    for (unsigned w = 1; w < X86_TLB_WAYS; w++) {
        asm_patch(hit[w], b->p);
        asm_load(b, H_R11, OP_GSR(H_R11, JIT_TLB_OFF(mmu, w, addend)), 8);
        asm_u8(b, 0xc3);
    }
}

/* ---- checks for translations made for size: site.c ---- */

/* Behind the `ways`. */
static void slow_if_none(struct maker *m)
{
    asm_jcc(&m->b, CC_NZ, jit_rw(m->j, m->j->thunk.slow));
}

/* H_HELD is in use: RAX is saved. */
static void check_held(struct maker *m, bool write, enum x86_mmu mmu, unsigned size)
{
    struct asm_buf *b = &m->b;
    asm_u8(b, 0x50); /* PUSH RAX */
    jit_tlb_offset(b, m->j->bmi2, H_R11, H_RAX);
    if (size > 1)
        asm_lea(b, H_RAX, OP_MEM(H_RAX, (int32_t)size - 1), 8);
    jit_tlb_compare(b, mmu, write, H_RAX, H_R11);
    uint8_t *miss = asm_jcc(b, CC_NZ, NULL);
    asm_load(b, H_R11, OP_GSR(H_R11, JIT_TLB_OFF(mmu, 0, addend)), 8);
    asm_u8(b, 0x58); /* POP RAX */
    asm_lea(b, H_R11, OP_SIB(H_R11, H_RAX, 0, 0), 8);
    asm_u8(b, 0xc3);
    asm_patch(miss, b->p);
    asm_call(b, jit_rw(m->j, m->j->thunk.ways[write][mmu]));
    asm_u8(b, 0x58);
    slow_if_none(m);
    asm_lea(b, H_R11, OP_SIB(H_R11, H_RAX, 0, 0), 8);
    asm_u8(b, 0xc3);
}

/* Calls the `ways` with the stack as they want it. RAX: tag; R11 as for them. */
static void try_ways(struct maker *m, bool write, enum x86_mmu mmu)
{
    asm_lea(&m->b, H_RSP, OP_MEM(H_RSP, -8), 8);
    asm_call(&m->b, jit_rw(m->j, m->j->thunk.ways[write][mmu]));
    asm_lea(&m->b, H_RSP, OP_MEM(H_RSP, 8), 8);
    slow_if_none(m);
}

static void check(struct maker *m, bool write, enum x86_mmu mmu, unsigned size)
{
    struct asm_buf *b = &m->b;
    jit_tlb_offset(b, m->j->bmi2, H_R11, H_RAX);
    asm_lea(b, H_HELD, OP_MEM(H_RAX, (int32_t)size - 1), 8);
    jit_tlb_compare(b, mmu, write, H_HELD, H_R11);
    uint8_t *miss = asm_jcc(b, CC_NZ, NULL);
    asm_alu(b, ALU_ADD, H_RAX, OP_GSR(H_R11, JIT_TLB_OFF(mmu, 0, addend)), 8);
    asm_mov_rr(b, H_R11, H_RAX);
    asm_u8(b, 0xc3);
    asm_patch(miss, b->p);
    asm_insn(b, (struct opcode){.op = 0x87, .w = true}, H_RAX, OP_REG(H_HELD)); /* XCHG */
    try_ways(m, write, mmu);
    asm_lea(b, H_R11, OP_SIB(H_R11, H_HELD, 0, 0), 8);
    asm_u8(b, 0xc3);
}

static void check_range(struct maker *m, bool write, enum x86_mmu mmu)
{
    struct asm_buf *b = &m->b;
    jit_tlb_offset(b, m->j->bmi2, H_RAX, H_RAX);
    jit_tlb_compare(b, mmu, write, H_R11, H_RAX);
    uint8_t *miss = asm_jcc(b, CC_NZ, NULL);
    asm_load(b, H_HELD, OP_GSR(H_RAX, JIT_TLB_OFF(mmu, 0, addend)), 8);
    asm_u8(b, 0xc3);
    asm_patch(miss, b->p);
    asm_insn(b, (struct opcode){.op = 0x87, .w = true}, H_RAX, OP_REG(H_R11)); /* XCHG */
    try_ways(m, write, mmu);
    asm_mov_rr(b, H_HELD, H_R11);
    asm_u8(b, 0xc3);
}

static uint8_t *unless_resume(struct asm_buf *b, unsigned bit)
{
    asm_insn(b, (struct opcode){.op = 0xf6, .byte_rm = true}, 0, OP_GS(G_OFF(jit_resume)));
    asm_u8(b, (uint8_t)bit); /* TEST m8, imm8 */
    return asm_jcc(b, CC_Z, NULL);
}

/* At a site's return address: calls a function with it, and goes on where that says. */
static void site(struct maker *m, uintptr_t fn)
{
    struct asm_buf *b = &m->b;
    move_gprs(b, true);
    fpu_save(m);
    asm_load(b, H_RSI, OP_MEM(H_RSP, 0), 8);
    load_self(b, H_RDI);
    asm_lea(b, H_RSP, OP_MEM(H_RSP, -8), 8);
    call_c(b, fn);
    asm_lea(b, H_RSP, OP_MEM(H_RSP, 16), 8);
    asm_store(b, OP_GS(G_OFF(jit_tmp)), H_RAX, 8);
    drop_if_told(b);
    uint8_t *stayed = unless_resume(b, JIT_SITE_LEFT);
    jit_forget_calls(b);
    asm_patch(stayed, b->p);
    uint8_t *no_fpu = unless_resume(b, JIT_SITE_FPU);
    asm_call(b, jit_rw(m->j, m->j->thunk.fpu_load));
    asm_patch(no_fpu, b->p);
    uint8_t *no_x87 = unless_resume(b, JIT_SITE_X87);
    asm_call(b, jit_rw(m->j, m->j->thunk.x87_load));
    asm_patch(no_x87, b->p);
    move_gprs(b, false);
    uint8_t *no_ef = unless_resume(b, JIT_SITE_EF);
    asm_flags_load(b, G_OFF(fl));
    asm_patch(no_ef, b->p);
    asm_jmp_opnd(b, OP_GS(G_OFF(jit_tmp)));
}

static const uint8_t *at(struct maker *m)
{
    while ((m->b.p - m->b.start) % 16)
        asm_u8(&m->b, 0xcc);
    return jit_rx(m->j, m->b.p);
}

static void make_checks(struct maker *m)
{
    struct jit_thunks *t = &m->j->thunk;
    t->slow = at(m);
    site(m, (uintptr_t)jit_c_slow);
    t->hot = at(m);
    site(m, (uintptr_t)jit_c_hot);
    for (unsigned mmu = X86_MMU_KERNEL; mmu <= X86_MMU_USER; mmu++)
        for (unsigned write = 0; write < 2; write++) {
            t->check_range[write][mmu] = at(m);
            check_range(m, write, mmu);
            for (unsigned log = 0; log < ARRAY_LEN(t->check[0][0]); log++) {
                t->check[write][mmu][log] = at(m);
                check(m, write, mmu, 1u << log);
                t->check_held[write][mmu][log] = at(m);
                check_held(m, write, mmu, 1u << log);
            }
        }
}

static void make_jumps(struct maker *m)
{
    struct jit_thunks *t = &m->j->thunk;
    for (unsigned global = 0; global < 2; global++) {
        t->jump_rel[global] = at(m);
        load_rel(&m->b);
        t->jump_abs[global] = jit_rx(m->j, m->b.p); /* it goes on there */
        jump(m, global);
        t->call_rel[global] = at(m);
        load_rel(&m->b);
        t->call_abs[global] = jit_rx(m->j, m->b.p); /* likewise */
        check_calls(&m->b);
        jump(m, global);
    }
}

/* A store whose translation another vCPU may have withdrawn meanwhile. */
static void raced(struct maker *m)
{
    struct asm_buf *b = &m->b;
    move_gprs(b, true);
    asm_mov_rr(b, H_RCX, H_RAX);
    fpu_save(m);
    asm_mov_rr(b, H_RSI, H_RCX);
    asm_mov_rr(b, H_RDX, H_R11);
    load_self(b, H_RDI);
    asm_alu_imm(b, ALU_SUB, OP_REG(H_RSP), 8, 8);
    call_c(b, (uintptr_t)jit_c_raced);
    asm_alu_imm(b, ALU_ADD, OP_REG(H_RSP), 8, 8);
    move_gprs(b, false);
    asm_u8(b, 0xc3);
}

/* For paging.c: if the C function has not done it, the semantic function does. */
static void light_end(struct maker *m, uintptr_t fn, bool keep)
{
    struct asm_buf *b = &m->b;
    struct asm_jumps other = {0};
    asm_store(b, OP_GS(G_OFF(jit_tmp)), H_R11, 8);
    jit_cmp_code_seen(b);
    asm_jcc_to(b, CC_NZ, &other);
    move_volatile(b, true);
    asm_mov_rr(b, H_RSI, H_RAX);
    load_self(b, H_RDI);
    call_light(m, fn);
    asm_alu_imm(b, ALU_CMP, OP_REG(H_RAX), 0, 1);
    move_volatile(b, false);
    asm_jcc_to(b, CC_Z, &other);
    if (!keep)
        jit_forget_calls(b);
    asm_mov_rr(b, H_RAX, H_HELD);
    asm_jmp(b, jit_rw(m->j, m->j->thunk.jump_any));
    asm_jumps_here(b, &other);
    asm_load(b, H_RAX, OP_GS(G_OFF(jit_tmp)), 4);
    asm_jmp(b, jit_rw(m->j, m->j->thunk.interp_end));
}

bool jit_thunks_make(struct x86_cpu *c)
{
    struct jit *j = c->jit;
    struct maker m = {j, {j->rw, j->rw, j->rw + j->size, false}};
    struct jit_thunks *t = &j->thunk;
    t->leave = at(&m);
    leave(&m);
    t->stop = at(&m);
    move_gprs(&m.b, true);
    fpu_save(&m);
    leave(&m);
    t->dispatch = at(&m);
    move_gprs(&m.b, true);
    const uint8_t *stored = m.b.p;
    dispatch_stored(&m, false);
    t->dispatch_rel = at(&m);
    load_rel(&m.b);
    asm_store(&m.b, OP_GS(G_OFF(s.rip)), H_RAX, 8);
    t->dispatch_keep = jit_rx(j, m.b.p); /* it goes on there */
    move_gprs(&m.b, true);
    dispatch_stored(&m, true);
    t->interp = at(&m);
    interp(&m, stored);
    t->interp_end = at(&m);
    interp_end(&m, (uintptr_t)jit_c_interp_end);
    t->iret_slow = at(&m);
    interp_end(&m, (uintptr_t)jit_c_iret);
    t->ret = at(&m);
    ret(&m);
    t->enter = (void (*)(const uint8_t *))(uintptr_t)at(&m);
    enter(&m);
    t->link_ef = at(&m);
    link_ef(&m);
    t->link_fl = jit_rx(j, m.b.p); /* link_ef falls through */
    link_fl(&m);
    t->fpu_load = at(&m);
    fpu_load(&m);
    t->x87_load = at(&m);
    x87_load(&m);
    t->x87_save = (void (*)(void))(uintptr_t)at(&m);
    x87_save(&m);
    for (unsigned mmu = X86_MMU_KERNEL; mmu <= X86_MMU_USER; mmu++)
        for (unsigned write = 0; write < 2; write++) {
            t->ways[write][mmu] = at(&m);
            ways(&m, write, mmu);
        }
    make_checks(&m);
    make_jumps(&m);
    t->jump_any = at(&m);
    jump_any(&m);
    t->syscall = at(&m);
    jit_syscall_thunk(j, &m.b);
    t->sysret = at(&m);
    jit_sysret_thunk(j, &m.b);
    t->iret = at(&m);
    jit_iret_thunk(j, &m.b);
    t->mov_cr3 = at(&m);
    light_end(&m, (uintptr_t)jit_c_mov_cr3, false);
    t->invlpg = at(&m);
    light_end(&m, (uintptr_t)jit_c_invlpg, true);
    t->rdmsr = at(&m);
    jit_rdmsr_thunk(&m.b);
    t->wrmsr = at(&m);
    jit_wrmsr_thunk(&m.b);
    t->tsc = at(&m);
    jit_tsc_thunk(&m.b);
    t->dead = at(&m);
    asm_store(&m.b, OP_GS(G_OFF(s.rip)), H_RAX, 8);
    asm_jmp(&m.b, jit_rw(j, t->dispatch));
    t->raced = at(&m);
    raced(&m);
    at(&m);
    j->used = j->thunk_end = (uint64_t)(m.b.p - j->rw);
    return !m.b.full;
}
