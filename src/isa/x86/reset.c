/*
 * reset.c - the processor after power-up, INIT and SIPI (SDM 10.1.1, table 10-1).
 */
#include "isa/x86/cpuid.h"
#include "isa/x86/kvm_pv.h"
#include "isa/x86/priv.h"

#define ATTR_DATA16 (X86_ATTR_P | X86_ATTR_S | X86_TYPE_RW | X86_TYPE_A)
#define PAT_RESET   0x0007040600070406ull

static void reset_segments(struct x86_state *s)
{
    for (unsigned n = 0; n < X86_NSEG; n++)
        s->seg[n] = (struct x86_seg){.limit = 0xffff, .attr = ATTR_DATA16};
    s->seg[X86_CS].sel = 0xf000;
    s->seg[X86_CS].base = 0xffff0000;
    s->ldtr = (struct x86_seg){.limit = 0xffff, .attr = X86_ATTR_P | X86_SYS_LDT};
    s->tr = (struct x86_seg){.limit = 0xffff, .attr = X86_ATTR_P | X86_SYS_TSS32 | X86_SYS_BUSY};
    s->gdtr = (struct x86_dtr){.limit = 0xffff};
    s->idtr = (struct x86_dtr){.limit = 0xffff};
}

/* What INIT leaves alone and power-up does not. */
static void power_on(struct x86_state *s)
{
    memset(s, 0, sizeof *s);
    s->cr0 = X86_CR0_CD | X86_CR0_NW;
    s->xcr0 = X86_XCR0_X87;
    s->pat = PAT_RESET;
    s->misc_enable = X86_MISC_ENABLE_RESET;
    s->feature_control = 1; /* locked, nothing enabled */
    s->fpu.fcw = 0x40;
    s->fpu.ftw = 0xff; /* 5555H: eight registers that hold +0 */
    s->fpu.mxcsr = 0x1f80;
    s->fpu.mxcsr_mask = 0xffff;
    s->fpu.xstate_bv = X86_XCR0_X87 | X86_XCR0_SSE;
}

/* INIT takes away what belongs to one vCPU of KVM's interface, as KVM does: nothing of the host may
 * write where the memory is no longer meant for it. At power-up the board does that. */
static void forget_pv(struct x86_cpu *c)
{
    static const uint32_t msr[] = {KVM_PV_MSR_SYSTEM_TIME, KVM_PV_MSR_STEAL_TIME, KVM_PV_MSR_EOI};
    uint64_t off = 0;
    for (unsigned n = 0; n < ARRAY_LEN(msr) && c->bus.pv_msr; n++)
        c->bus.pv_msr(c->bus.ctx, msr[n], true, &off);
}

void x86_reset(struct x86_cpu *c, bool init)
{
    struct x86_state *s = &c->s;
    if (init)
        forget_pv(c);
    else
        power_on(s);
    memset(s->gpr, 0, sizeof s->gpr);
    s->gpr[X86_RDX] = c->model ? c->model->signature : 0;
    s->rip = 0xfff0;
    s->cr0 = (s->cr0 & (X86_CR0_CD | X86_CR0_NW)) | X86_CR0_ET;
    s->cr2 = s->cr3 = s->cr4 = s->efer = 0;
    memset(s->dr, 0, sizeof s->dr);
    s->dr[6] = X86_DR6_FIXED;
    s->dr[7] = X86_DR7_FIXED;
    memset(s->pdpte, 0, sizeof s->pdpte);
    reset_segments(s);
    s->activity = c->index ? X86_WAIT_SIPI : X86_RUNNING;
    s->sti_shadow = s->movss_shadow = s->nmi_blocked = 0;
    c->slow &= ~(X86_SLOW_SHADOW | X86_SLOW_DB);
    c->db_hit = 0;
    atomic_store(&c->unhalted, false);
    x86_set_rflags(c, X86_FL_R1);
    x86_update_mode(c);
    x86_tlb_flush_all(c);
}

void x86_sipi(struct x86_cpu *c, uint8_t vector)
{
    if (c->s.activity != X86_WAIT_SIPI)
        return;
    c->s.seg[X86_CS].sel = (uint16_t)(vector << 8);
    c->s.seg[X86_CS].base = (uint64_t)vector << 12;
    c->s.rip = 0;
    c->s.activity = X86_RUNNING;
    x86_update_mode(c);
}
