/* boundary.c - see boundary.h. */
#include "engine/boundary.h"

#include "isa/x86/access.h"
#include "isa/x86/code.h"
#include "isa/x86/seg.h"

#define DR6_BS 0x4000u

/* SDM 17.3.1.1: instruction breakpoints are faults, taken before the instruction. */
static void check_breakpoints(struct x86_cpu *c)
{
    gva_t lin = (c->s.rip + c->segc[X86_CS].base) & c->lin_mask;
    uint64_t hit = 0;
    for (unsigned n = 0; n < 4; n++) {
        bool enabled = (c->s.dr[7] >> (2 * n)) & 3, exec = !((c->s.dr[7] >> (16 + 4 * n)) & 3);
        if (enabled && exec && c->s.dr[n] == lin)
            hit |= 1ull << n;
    }
    if (hit && !(c->s.rflags & X86_FL_RF))
        x86_raise_db(c, hit, false);
}

void boundary_report_traps(struct x86_cpu *c, uint64_t dr6)
{
    dr6 |= c->db_hit;
    if (!dr6 || c->s.movss_shadow)
        return;
    c->db_hit = 0;
    c->slow &= ~X86_SLOW_DB;
    x86_raise_db(c, dr6, true);
}

static void run_one(struct x86_cpu *c, const struct x86_insn *i)
{
    uint64_t base = c->s.rip;
    c->s.gpr[X86_REG_RIP] = base;
    c->s.rip = (base + i->len) & c->ip_mask;
    c->block_end = i + 1;
    c->icount++;
    c->cur = i;
    i->fn(c, i);
    c->cur = NULL;
}

void boundary_step(struct x86_cpu *c)
{
    uint32_t slow = c->slow;
    bool inhibited = c->s.movss_shadow; /* SDM 6.8.3: instruction breakpoints, too */
    if (slow & X86_SLOW_SHADOW) {
        c->s.sti_shadow = c->s.movss_shadow = 0;
        c->slow &= ~X86_SLOW_SHADOW;
    }
    if ((slow & X86_SLOW_BP) && !inhibited)
        check_breakpoints(c);
    const struct x86_block *b = x86_code_find(c, NULL);
    uint64_t rf = c->s.rflags & X86_FL_RF, start = c->s.rip;
    c->s.rflags &= ~(uint64_t)X86_FL_RF;
    c->cur = NULL;
    if (rf)
        c->s.rflags |= X86_FL_RF; /* a fault of this instruction must save it again */
    run_one(c, b->insn);
    if (rf && b->insn[0].mnemonic != ZYDIS_MNEMONIC_IRET &&
        b->insn[0].mnemonic != ZYDIS_MNEMONIC_IRETD && b->insn[0].mnemonic != ZYDIS_MNEMONIC_IRETQ)
        c->s.rflags &= ~(uint64_t)X86_FL_RF;
    bool repeats = b->insn[0].flags & (X86_IF_REP | X86_IF_REPNE) && c->s.rip == start;
    if (repeats && (rf || slow & X86_SLOW_TF))
        c->s.rflags |= X86_FL_RF; /* between two iterations (SDM 17.3.1.1) */
    boundary_report_traps(c, slow & X86_SLOW_TF ? DR6_BS : 0);
}

static bool take(struct x86_cpu *c, uint32_t bit)
{
    if (!(atomic_load_explicit(&c->pending, memory_order_acquire) & bit))
        return false;
    atomic_fetch_and(&c->pending, ~bit);
    return true;
}

static void deliver_pending(struct x86_cpu *c)
{
    bool shadow = c->s.sti_shadow || c->s.movss_shadow;
    if (!shadow && !c->s.nmi_blocked && c->s.activity != X86_WAIT_SIPI && take(c, X86_PEND_NMI)) {
        c->s.activity = X86_RUNNING;
        x86_deliver_nmi(c);
        return;
    }
    if (shadow || !(c->s.rflags & X86_FL_IF) || c->s.activity == X86_WAIT_SIPI)
        return;
    if (!take(c, X86_PEND_INTR))
        return;
    int vector = c->bus.intr_ack(c->bus.ctx);
    if (vector < 0)
        return;
    c->s.activity = X86_RUNNING;
    x86_deliver_interrupt(c, (uint8_t)vector);
}

bool boundary_look(struct x86_cpu *c, enum engine_exit *why)
{
    uint32_t p = atomic_load_explicit(&c->pending, memory_order_acquire);
    if (p & X86_PEND_KICK) {
        take(c, X86_PEND_KICK);
        *why = ENGINE_EXIT_KICK;
        return false;
    }
    /* Not before the kick: a guest may arrange for one such exception to follow the other for ever.
     */
    if (c->slow & X86_SLOW_DB)
        boundary_report_traps(c, 0);
    if (p & X86_PEND_CODE)
        take(c, X86_PEND_CODE); /* before the engine looks at ram->code_epoch, as it always does */
    if (p & X86_PEND_TLB) {
        take(c, X86_PEND_TLB);
        x86_tlb_flush_all(c);
    }
    if (c->s.activity == X86_SHUTDOWN) {
        *why = ENGINE_EXIT_SHUTDOWN;
        return false;
    }
    if (take(c, X86_PEND_INIT))
        x86_reset(c, true);
    if (take(c, X86_PEND_SIPI) && c->s.activity == X86_WAIT_SIPI)
        x86_sipi(c, atomic_load(&c->sipi_vector));
    if (p & (X86_PEND_NMI | X86_PEND_INTR))
        deliver_pending(c);
    if (c->s.activity == X86_SHUTDOWN) {
        *why = ENGINE_EXIT_SHUTDOWN;
        return false;
    }
    if (c->s.activity != X86_RUNNING) {
        c->s.sti_shadow = c->s.movss_shadow = 0;
        c->slow &= ~X86_SLOW_SHADOW;
        /* Something that arrived after the first look is found by the caller's own. */
        *why = ENGINE_EXIT_HALT;
        return false;
    }
    return true;
}

void boundary_deliver(struct x86_cpu *c)
{
    /* A fault restarts its instruction; a trap or software interrupt continues behind it, where
     * s.rip points already. */
    if (c->cur && !c->exc.trap && !c->exc.soft) {
        c->s.rip = x86_insn_rip(c);
        c->db_hit = 0; /* what it met before its fault will be met again */
        c->slow &= ~X86_SLOW_DB;
    }
    c->cur = NULL;
    x86_deliver_exception(c);
}
