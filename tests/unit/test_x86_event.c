/*
 * test_x86_event.c - exceptions, interrupts, gates, far transfers, tasks and virtual-8086 mode (SDM
 * volume 3, chapters 5, 6, 7, 21).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "x86_sysrig.h"

#define W(x)  (x) & 0xff, (x) >> 8 & 0xff
#define DW(x) W(x), W((x) >> 16)

/* ---- real-address mode ---- */

static void real_mode_interrupt(void **state)
{
    struct sysrig *s = sr_create(16, 0);
    x86_set_rflags(s->c, X86_FL_R1 | X86_FL_IF | X86_FL_CF);
    RUN(s, 0xcd, 0x21); /* int 0x21 */
    assert_int_equal(sr_vector(s), 0x21);
    assert_int_equal(s->c->s.gpr[X86_RSP], STACK - 6);
    assert_int_equal(sr_w(s, STACK - 6), 0x4002);
    assert_int_equal(sr_w(s, STACK - 4), 0);
    assert_int_equal(sr_w(s, STACK - 2), X86_FL_R1 | X86_FL_IF | X86_FL_CF);
    assert_false(s->c->s.rflags & X86_FL_IF);
    /* back again */
    *(uint8_t *)rig_mem(s->r, HANDLER + 0x22 * 16) = 0xcf;
    s->c->s.gpr[X86_RSP] = STACK;
    RUN(s, 0xf9, 0xfb, 0xcd, 0x22, 0x90); /* stc; sti; int; nop */
    assert_int_equal(s->c->s.rip, 0x4006);
    assert_int_equal(s->c->s.gpr[X86_RSP], STACK);
    assert_true(s->c->s.rflags & X86_FL_IF);
    assert_true(s->c->s.rflags & X86_FL_CF);
    sr_destroy(s);
}

static void real_mode_far_call(void **state)
{
    struct sysrig *s = sr_create(16, 0);
    const uint8_t ret[] = {0xb8, 0x34, 0x12, 0xca, 0x02, 0x00}; /* mov ax,0x1234; retf 2 */
    sr_put(s, 0x12340, ret, sizeof ret);
    RUN(s, 0x6a, 0x07, 0x9a, W(0x0040), W(0x1230)); /* push 7; call 0x1230:0x40 */
    assert_int_equal(s->c->s.rip, 0x4008);
    assert_int_equal(s->c->s.gpr[X86_RAX] & 0xffff, 0x1234);
    assert_int_equal(s->c->s.gpr[X86_RSP], STACK);
    sr_destroy(s);
}

static void shutdown_on_third_fault(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    s->c->s.idtr.limit = 0;
    assert_int_equal(RUN(s, 0x0f, 0x0b), ENGINE_EXIT_SHUTDOWN); /* ud2 */
    sr_destroy(s);
}

/* ---- protected mode ---- */

static void fault_same_level(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    x86_set_rflags(s->c, X86_FL_R1 | X86_FL_IF | X86_FL_NT);
    RUN(s, 0x90, 0x0f, 0x0b);
    assert_int_equal(sr_vector(s), X86_UD);
    assert_int_equal(s->c->s.gpr[X86_RSP], STACK - 12);
    assert_int_equal(sr_d(s, STACK - 12), CODE + 1);
    assert_int_equal(sr_d(s, STACK - 8), SEL_CODE0);
    assert_int_equal(sr_d(s, STACK - 4), X86_FL_R1 | X86_FL_IF | X86_FL_NT | X86_FL_RF);
    assert_int_equal(s->c->s.rflags & (X86_FL_IF | X86_FL_NT | X86_FL_RF), 0);
    /* a trap gate leaves IF alone */
    sr_level(s, 32, 0);
    sr_idt32(s, X86_UD, SEL_CODE0, 0x8f);
    x86_set_rflags(s->c, X86_FL_R1 | X86_FL_IF);
    RUN(s, 0x0f, 0x0b);
    assert_true(s->c->s.rflags & X86_FL_IF);
    sr_destroy(s);
}

static void gate16(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    sr_idt32(s, X86_UD, SEL_CODE0, 0x86);
    RUN(s, 0x0f, 0x0b);
    assert_int_equal(sr_vector(s), X86_UD);
    assert_int_equal(s->c->s.gpr[X86_RSP], STACK - 6);
    assert_int_equal(sr_w(s, STACK - 6), CODE & 0xffff);
    sr_destroy(s);
}

static void fault_from_user(void **state)
{
    struct sysrig *s = sr_create(32, 3);
    RUN(s, 0xf4); /* hlt */
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(s->c->cpl, 0);
    assert_int_equal(s->c->s.gpr[X86_RSP], STACK0 - 24);
    assert_int_equal(s->c->s.seg[X86_SS].sel, SEL_DATA0);
    assert_int_equal(sr_d(s, STACK0 - 24), 0); /* error code */
    assert_int_equal(sr_d(s, STACK0 - 20), CODE);
    assert_int_equal(sr_d(s, STACK0 - 16), SEL_CODE3);
    assert_int_equal(sr_d(s, STACK0 - 8), STACK3);
    assert_int_equal(sr_d(s, STACK0 - 4), SEL_DATA3);
    sr_destroy(s);
}

static void soft_int_needs_dpl(void **state)
{
    struct sysrig *s = sr_create(32, 3);
    RUN(s, 0x90, 0xcd, 0x30);
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(sr_d(s, STACK0 - 24), 0x30 * 8 + 2);
    assert_int_equal(sr_d(s, STACK0 - 20), CODE + 1); /* the INT itself */
    sr_level(s, 32, 3);
    sr_idt32(s, 0x30, SEL_CODE0, 0xee);
    RUN(s, 0xcd, 0x30);
    assert_int_equal(sr_vector(s), 0x30);
    assert_int_equal(sr_d(s, STACK0 - 20), CODE + 2);
    sr_destroy(s);
}

static void absent_gate_and_ext_bit(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    sr_idt32(s, 0x40, SEL_CODE0, 0x0e);
    s->vector = 0x40;
    s->c->pending = X86_PEND_INTR;
    x86_set_rflags(s->c, X86_FL_R1 | X86_FL_IF);
    RUN(s, 0x90);
    assert_int_equal(sr_vector(s), X86_NP);
    assert_int_equal(sr_d(s, STACK - 16), 0x40 * 8 + 3);
    sr_level(s, 32, 0);
    RUN(s, 0xcd, 0x40);
    assert_int_equal(sr_d(s, STACK - 16), 0x40 * 8 + 2);
    sr_destroy(s);
}

static void double_fault(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    sr_idt32(s, X86_GP, SEL_CODE0, 0x0e); /* #NP while delivering #GP */
    RUN(s, 0xb8, DW(0x200), 0x8e, 0xd8);  /* mov eax, 0x200; mov ds, ax */
    assert_int_equal(sr_vector(s), X86_DF);
    assert_int_equal(sr_d(s, STACK - 16), 0);
    assert_int_equal(sr_d(s, STACK - 12), CODE + 5);
    /* #UD is benign: its #NP is delivered */
    sr_level(s, 32, 0);
    sr_idt32(s, X86_UD, SEL_CODE0, 0x0e);
    RUN(s, 0x0f, 0x0b);
    assert_int_equal(sr_vector(s), X86_NP);
    assert_int_equal(sr_d(s, STACK - 16), X86_UD * 8 + 3);
    sr_destroy(s);
}

static void segment_loads(void **state)
{
    static const struct {
        uint8_t modrm; /* of MOV Sreg, AX */
        uint16_t sel;
        unsigned cpl;
        int vector;
        unsigned error;
    } t[] = {
        {0xd8, SEL_DATA0, 0, -1, 0},
        {0xd8, 0, 0, -1, 0},
        {0xd8, SEL_ABSENT, 0, X86_NP, SEL_ABSENT},
        {0xd8, 0x100, 0, X86_GP, 0x100},             /* beyond the limit */
        {0xd8, SEL_DATA0, 3, X86_GP, SEL_DATA0},     /* DPL < CPL */
        {0xd8, SEL_DATA0 | 3, 0, X86_GP, SEL_DATA0}, /* DPL < RPL */
        {0xd8, SEL_CONFORMING | 3, 3, -1, 0},        /* readable, conforming */
        {0xd8, SEL_TSS_A, 0, X86_GP, SEL_TSS_A},
        {0xd8, 0x0c, 0, X86_GP, 0x0c},                /* no LDT */
        {0xd0, 0, 0, X86_GP, 0},                      /* SS: null */
        {0xd0, SEL_CODE0, 0, X86_GP, SEL_CODE0},      /* SS: not writable */
        {0xd0, SEL_DATA3, 0, X86_GP, SEL_DATA3 & ~3}, /* SS: RPL != CPL */
        {0xd0, SEL_ABSENT, 0, X86_SSF, SEL_ABSENT},
    };
    for (unsigned n = 0; n < ARRAY_LEN(t); n++) {
        struct sysrig *s = sr_create(32, t[n].cpl);
        sr_idt32(s, X86_BP, SEL_CODE0, 0xee);
        gva_t top = t[n].cpl ? STACK0 - 8 : STACK;
        RUN(s, 0x66, 0xb8, W(t[n].sel), 0x8e, t[n].modrm, 0xcc);
        assert_int_equal(sr_vector(s), t[n].vector < 0 ? X86_BP : t[n].vector);
        if (t[n].vector >= 0)
            assert_int_equal(sr_d(s, top - 16), t[n].error);
        sr_destroy(s);
    }
}

static void accessed_bit_and_expand_down(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    /* mov ax, SEL_DOWN; mov ds, ax; mov al, [0x1000]; mov al, [0xfff] */
    RUN(s, 0x66, 0xb8, W(SEL_DOWN), 0x8e, 0xd8, 0xa0, DW(0x1000), 0xa0, DW(0xfff));
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(sr_d(s, STACK - 12), CODE + 11);
    assert_int_equal(sr_q(s, GDT + SEL_DOWN) >> 40 & 0xff, 0x97);
    sr_destroy(s);
}

/* ---- gates, far calls and returns ---- */

static void call_gate_switches_stack(void **state)
{
    struct sysrig *s = sr_create(32, 3);
    sr_gdt(s, SEL_GATE, sr_gate(SEL_CODE0, 0x6f00, 0xec, 2));
    const uint8_t body[] = {0x8b, 0x44, 0x24, 0x08, 0xca, 0x08, 0x00}; /* mov eax,[esp+8]; retf 8 */
    sr_put(s, 0x6f00, body, sizeof body);
    sr_idt32(s, X86_BP, SEL_CODE0, 0xee);
    /* push 5; push 6; call SEL_GATE; int3 */
    RUN(s, 0x6a, 5, 0x6a, 6, 0x9a, DW(0), W(SEL_GATE | 3), 0xcc);
    assert_int_equal(sr_vector(s), X86_BP);
    assert_int_equal(s->c->s.gpr[X86_RAX], 6);
    assert_int_equal(sr_d(s, STACK0 - 20), CODE + 12); /* INT3's frame: came back to CPL 3 */
    assert_int_equal(sr_d(s, STACK0 - 8), STACK3);
    /* what CALL had pushed on the inner stack lay where INT3's frame is now, but for the parameters
     */
    assert_int_equal(sr_d(s, STACK0 - 24), CODE + 11);
    sr_destroy(s);
}

static void conforming_code_keeps_cpl(void **state)
{
    struct sysrig *s = sr_create(32, 3);
    *(uint8_t *)rig_mem(s->r, 0x6f00) = 0xf4;
    RUN(s, 0xea, DW(0x6f00), W(SEL_CONFORMING)); /* HLT there: #GP */
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(sr_d(s, STACK0 - 20), 0x6f00);
    assert_int_equal(sr_d(s, STACK0 - 16), SEL_CONFORMING | 3);
    sr_level(s, 32, 3);
    RUN(s, 0xea, DW(0x6f00), W(SEL_CODE0)); /* DPL 0 */
    assert_int_equal(sr_d(s, STACK0 - 24), SEL_CODE0);
    sr_destroy(s);
}

static void iret_to_user_drops_segments(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    sr_idt32(s, X86_BP, SEL_CODE0, 0xee);
    *(uint8_t *)rig_mem(s->r, 0x6f00) = 0xcc;
    RUN(s, 0x6a, SEL_DATA3, 0x68, DW(STACK3), 0x68, DW(0x3202), 0x6a, SEL_CODE3, 0x68, DW(0x6f00),
        0xcf);
    assert_int_equal(sr_vector(s), X86_BP);
    assert_int_equal(s->c->s.seg[X86_DS].sel, 0);
    assert_true(s->c->s.seg[X86_DS].attr & X86_ATTR_UNUSABLE);
    assert_int_equal(sr_d(s, STACK0 - 12), 0x3202);
    /* to an inner level: refused */
    sr_level(s, 32, 3);
    RUN(s, 0x6a, 2, 0x6a, SEL_CODE0, 0x68, DW(0x6f00), 0xcf);
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(sr_d(s, STACK0 - 24), SEL_CODE0);
    sr_destroy(s);
}

static void single_step_and_nmi(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    RUN(s, 0x9c, 0x81, 0x0c, 0x24, DW(0x100), 0x9d, 0x90, 0x90); /* pushf; or [esp],TF; popf; nop */
    assert_int_equal(sr_vector(s), X86_DB);
    assert_int_equal(sr_d(s, STACK - 12), CODE + 10);
    assert_true(s->c->s.dr[6] & X86_DR6_BS);
    assert_false(s->c->s.rflags & X86_FL_TF);

    sr_level(s, 32, 0);
    *(uint8_t *)rig_mem(s->r, HANDLER + 2 * 16) = 0xcf; /* iret */
    s->c->pending = X86_PEND_NMI;
    RUN(s, 0x90);
    assert_false(s->c->s.nmi_blocked);
    assert_int_equal(s->c->s.rip, CODE + 2);
    sr_destroy(s);
}

/* ---- tasks ---- */

static void make_task_b(struct sysrig *s)
{
    uint32_t t[26] = {0};
    t[8] = 0x6e00; /* EIP */
    t[9] = X86_FL_R1;
    t[10] = 0xaaaa;                    /* EAX */
    t[14] = 0x7800;                    /* ESP */
    t[18] = t[20] = t[21] = SEL_DATA0; /* ES SS DS */
    t[19] = SEL_CODE0;
    t[25] = 104u << 16;
    sr_put(s, TSS_B, t, sizeof t);
    *(uint8_t *)rig_mem(s->r, 0x6e00) = 0xf4;
}

static unsigned tss_access(struct sysrig *s, unsigned sel)
{
    return sr_q(s, GDT + sel) >> 40 & 0xff;
}

static void task_jump(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    make_task_b(s);
    RUN(s, 0xbb, DW(0x1234), 0xea, DW(0), W(SEL_TSS_B));
    assert_int_equal(s->c->s.rip, 0x6e01);
    assert_int_equal(s->c->s.gpr[X86_RAX], 0xaaaa);
    assert_int_equal(s->c->s.tr.sel, SEL_TSS_B);
    assert_int_equal(tss_access(s, SEL_TSS_A), 0x89);
    assert_int_equal(tss_access(s, SEL_TSS_B), 0x8b);
    assert_true(s->c->s.cr0 & X86_CR0_TS);
    assert_int_equal(sr_d(s, TSS_A + 32), CODE + 12); /* EIP, EBX saved */
    assert_int_equal(sr_d(s, TSS_A + 52), 0x1234);
    /* a busy one cannot be entered */
    RUN(s, 0xea, DW(0), W(SEL_TSS_B));
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(sr_d(s, 0x7800 - 16), SEL_TSS_B);
    sr_destroy(s);
}

static void task_call_and_return(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    make_task_b(s);
    *(uint8_t *)rig_mem(s->r, 0x6e00) = 0xcf;
    RUN(s, 0xbb, DW(0x1234), 0x9a, DW(0), W(SEL_TASK_GATE));
    assert_int_equal(s->c->s.rip, CODE + 13);
    assert_int_equal(s->c->s.tr.sel, SEL_TSS_A);
    assert_int_equal(s->c->s.gpr[X86_RBX], 0x1234);
    assert_int_equal(sr_w(s, TSS_B), SEL_TSS_A); /* back link */
    assert_int_equal(tss_access(s, SEL_TSS_B), 0x89);
    assert_int_equal(tss_access(s, SEL_TSS_A), 0x8b);
    assert_false(s->c->s.rflags & X86_FL_NT);
    sr_destroy(s);
}

static void task_gate_for_double_fault(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    make_task_b(s);
    sr_set_q(s, IDT + 8 * X86_DF, sr_gate(SEL_TSS_B, 0, 0x85, 0));
    s->c->s.gpr[X86_RSP] = 0x8000;
    s->c->s.seg[X86_SS].limit = 0x10; /* no exception frame fits */
    x86_update_mode(s->c);
    RUN(s, 0x50); /* push eax: #SS, then #SS again */
    assert_int_equal(s->c->s.rip, 0x6e01);
    assert_int_equal(s->c->s.gpr[X86_RSP], 0x7800 - 4);
    assert_int_equal(sr_d(s, 0x7800 - 4), 0);
    assert_true(s->c->s.rflags & X86_FL_NT);
    sr_destroy(s);
}

static void task_with_bad_segment(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    make_task_b(s);
    sr_set_d(s, TSS_B + 84, 0x200); /* DS */
    RUN(s, 0xea, DW(0), W(SEL_TSS_B));
    assert_int_equal(sr_vector(s), X86_TS);
    assert_int_equal(sr_d(s, 0x7800 - 16), 0x200);
    assert_int_equal(sr_d(s, 0x7800 - 12), 0x6e00); /* in the new task */
    sr_destroy(s);
}

/* ---- virtual-8086 mode ---- */

static void enter_vm86(struct sysrig *s, uint32_t flags)
{
    x86_set_rflags(s->c, X86_FL_R1 | X86_FL_VM | flags);
    for (unsigned n = 0; n < X86_NSEG; n++)
        s->c->s.seg[n] = x86_seg_vm86(n == X86_SS ? 0x900 : n == X86_CS ? 0 : 0x100 + n);
    s->c->s.gpr[X86_RSP] = 0x200;
    x86_update_mode(s->c);
}

static void vm86_fault_frame(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    enter_vm86(s, 0);
    RUN(s, 0xfa); /* cli with IOPL 0 */
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(s->c->s.gpr[X86_RSP], STACK0 - 40);
    assert_int_equal(sr_d(s, STACK0 - 4), 0x100 + X86_GS);
    assert_int_equal(sr_d(s, STACK0 - 16), 0x100 + X86_ES);
    assert_int_equal(sr_d(s, STACK0 - 20), 0x900);
    assert_true(sr_d(s, STACK0 - 28) & X86_FL_VM);
    assert_int_equal(sr_d(s, STACK0 - 36), 0x4000);
    assert_false(s->c->s.rflags & X86_FL_VM);
    assert_true(s->c->s.seg[X86_DS].attr & X86_ATTR_UNUSABLE);
    /* INT n is refused with IOPL 0, goes through the IDT with IOPL 3 */
    enter_vm86(s, 0);
    RUN(s, 0xcd, 0x21);
    assert_int_equal(sr_vector(s), X86_GP);
    enter_vm86(s, X86_FL_IOPL);
    sr_idt32(s, 0x21, SEL_CODE0, 0xee);
    RUN(s, 0xcd, 0x21);
    assert_int_equal(sr_vector(s), 0x21);
    assert_int_equal(sr_d(s, STACK0 - 36), 0x4002);
    sr_destroy(s);
}

static void vm86_extensions(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    s->c->s.cr4 = X86_CR4_VME;
    sr_set_d(s, TSS_A + 100, 160u << 16);     /* redirection map at 128: all zero */
    sr_set_d(s, 0x21 * 4, 0x01000050);        /* IVT: 0100:0050 */
    *(uint8_t *)rig_mem(s->r, 0x1050) = 0xfa; /* cli; sti; hlt -> #GP */
    *(uint8_t *)rig_mem(s->r, 0x1051) = 0xfb;
    *(uint8_t *)rig_mem(s->r, 0x1052) = 0xf4;
    enter_vm86(s, X86_FL_VIF);
    RUN(s, 0xcd, 0x21);
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(sr_w(s, 0x9000 + 0x1fa), 0x4002);
    assert_int_equal(sr_w(s, 0x9000 + 0x1fe), X86_FL_R1 | X86_FL_IF | X86_FL_IOPL);
    assert_int_equal(sr_d(s, STACK0 - 36), 0x52);
    assert_true(sr_d(s, STACK0 - 28) & X86_FL_VIF);
    sr_destroy(s);
}

static void iret_to_vm86(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    *(uint8_t *)rig_mem(s->r, 0x4f00) = 0xf4;
    /* push gs fs ds es ss esp eflags cs eip; iret */
    RUN(s, 0x6a, 4, 0x6a, 3, 0x6a, 2, 0x6a, 1, 0x68, DW(0x900), 0x68, DW(0x100), 0x68, DW(0x20002),
        0x68, DW(0x400), 0x68, DW(0xf00), 0xcf);
    assert_int_equal(sr_vector(s), X86_GP); /* HLT in virtual-8086 mode */
    assert_int_equal(sr_d(s, STACK0 - 36), 0xf00);
    assert_int_equal(sr_d(s, STACK0 - 32), 0x400);
    assert_int_equal(sr_d(s, STACK0 - 4), 4);
    sr_destroy(s);
}

/* ---- IA-32e mode ---- */

static void long_mode_frame(void **state)
{
    struct sysrig *s = sr_create(64, 0);
    s->c->s.gpr[X86_RSP] = STACK - 3;
    RUN(s, 0x0f, 0x0b);
    assert_int_equal(sr_vector(s), X86_UD);
    uint64_t top = (STACK - 3) & ~15u;
    assert_int_equal(s->c->s.gpr[X86_RSP], top - 40);
    assert_int_equal(sr_q(s, top - 40), CODE);
    assert_int_equal(sr_q(s, top - 16), STACK - 3);
    assert_int_equal(sr_q(s, top - 8), SEL_DATA0);
    sr_idt64(s, X86_UD, 0x8e, 1);
    sr_level(s, 64, 0);
    RUN(s, 0x0f, 0x0b);
    assert_int_equal(s->c->s.gpr[X86_RSP], STACK_IST - 40);
    assert_int_equal(s->c->s.seg[X86_SS].sel, SEL_DATA0);
    sr_level(s, 64, 3);
    RUN(s, 0xf4);
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(s->c->s.gpr[X86_RSP], STACK0 - 48);
    assert_int_equal(s->c->s.seg[X86_SS].sel, 0);
    assert_int_equal(s->c->cpl, 0);
    sr_destroy(s);
}

static void page_fault(void **state)
{
    struct sysrig *s = sr_create(64, 3);
    RUN(s, 0xa2, DW(0x40000123), DW(0)); /* mov [0x40000123], al: beyond the page tables */
    assert_int_equal(sr_vector(s), X86_PF);
    assert_int_equal(s->c->s.cr2, 0x40000123);
    assert_int_equal(sr_q(s, STACK0 - 48), X86_PF_W | X86_PF_U);
    sr_destroy(s);
}

static void iretq_checks(void **state)
{
    struct sysrig *s = sr_create(64, 0);
    sr_idt64(s, X86_BP, 0xee, 0);
    *(uint8_t *)rig_mem(s->r, 0x6f00) = 0xcc;
    RUN(s, 0x6a, SEL_DATA3, 0x68, DW(STACK3), 0x6a, 2, 0x68, DW(SEL_CODE64_3), 0x68, DW(0x6f00),
        0x48, 0xcf);
    assert_int_equal(sr_vector(s), X86_BP);
    assert_int_equal(sr_q(s, STACK0 - 40), 0x6f01);
    assert_int_equal(sr_q(s, STACK0 - 32), SEL_CODE64_3);
    /* to a non-canonical address: #GP in the kernel, the frame still there */
    sr_level(s, 64, 0);
    RUN(s, 0x6a, SEL_DATA3, 0x68, DW(STACK3), 0x6a, 2, 0x68, DW(SEL_CODE64_3), 0x48, 0xb8, DW(0),
        DW(0x800000), 0x50, 0x48, 0xcf);
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(s->c->s.seg[X86_CS].sel, SEL_CODE64);
    assert_int_equal(sr_q(s, STACK - 40 - 40), SEL_CODE64);
    /* NT: no tasks here */
    sr_level(s, 64, 0);
    x86_set_rflags(s->c, X86_FL_R1 | X86_FL_NT);
    RUN(s, 0x48, 0xcf);
    assert_int_equal(sr_vector(s), X86_GP);
    sr_destroy(s);
}

static void syscall_and_sysret(void **state)
{
    struct sysrig *s = sr_create(64, 3);
    s->c->s.efer |= X86_EFER_SCE;
    s->c->s.star = (uint64_t)SEL_CODE64 << 32 | (uint64_t)0x98 << 48; /* user: 0x98+16 = CODE64_3 */
    s->c->s.lstar = 0x6f00;
    s->c->s.fmask = X86_FL_IF;
    x86_set_rflags(s->c, X86_FL_R1 | X86_FL_IF | X86_FL_CF);
    sr_idt64(s, X86_BP, 0xee, 0);
    const uint8_t ret[] = {0x48, 0x0f, 0x07};
    sr_put(s, 0x6f00, ret, sizeof ret);
    RUN(s, 0x0f, 0x05, 0xcc);
    assert_int_equal(sr_vector(s), X86_BP);
    assert_int_equal(s->c->s.gpr[X86_RCX], CODE + 2);
    assert_int_equal(s->c->s.gpr[11], X86_FL_R1 | X86_FL_IF | X86_FL_CF);
    assert_int_equal(sr_q(s, STACK0 - 32), SEL_CODE64_3);
    assert_int_equal(sr_q(s, STACK0 - 24), X86_FL_R1 | X86_FL_IF | X86_FL_CF);
    sr_destroy(s);
}

static void sysenter_and_sysexit(void **state)
{
    struct sysrig *s = sr_create(32, 3);
    s->c->s.sysenter_cs = SEL_CODE0;
    s->c->s.sysenter_eip = 0x6f00;
    s->c->s.sysenter_esp = STACK0;
    sr_idt32(s, X86_BP, SEL_CODE0, 0xee);
    const uint8_t ret[] = {0xba, DW(CODE + 2), 0xb9, DW(STACK3), 0x0f, 0x35};
    sr_put(s, 0x6f00, ret, sizeof ret);
    RUN(s, 0x0f, 0x34, 0xcc);
    assert_int_equal(sr_vector(s), X86_BP);
    assert_int_equal(sr_d(s, STACK0 - 16), SEL_CODE3);
    assert_int_equal(sr_d(s, STACK0 - 4), SEL_DATA3);
    s->c->s.sysenter_cs = 0;
    sr_level(s, 32, 3);
    RUN(s, 0x0f, 0x34);
    assert_int_equal(sr_vector(s), X86_GP);
    sr_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_mode_interrupt),
        cmocka_unit_test(real_mode_far_call),
        cmocka_unit_test(shutdown_on_third_fault),
        cmocka_unit_test(fault_same_level),
        cmocka_unit_test(gate16),
        cmocka_unit_test(fault_from_user),
        cmocka_unit_test(soft_int_needs_dpl),
        cmocka_unit_test(absent_gate_and_ext_bit),
        cmocka_unit_test(double_fault),
        cmocka_unit_test(segment_loads),
        cmocka_unit_test(accessed_bit_and_expand_down),
        cmocka_unit_test(call_gate_switches_stack),
        cmocka_unit_test(conforming_code_keeps_cpl),
        cmocka_unit_test(iret_to_user_drops_segments),
        cmocka_unit_test(single_step_and_nmi),
        cmocka_unit_test(task_jump),
        cmocka_unit_test(task_call_and_return),
        cmocka_unit_test(task_gate_for_double_fault),
        cmocka_unit_test(task_with_bad_segment),
        cmocka_unit_test(vm86_fault_frame),
        cmocka_unit_test(vm86_extensions),
        cmocka_unit_test(iret_to_vm86),
        cmocka_unit_test(long_mode_frame),
        cmocka_unit_test(page_fault),
        cmocka_unit_test(iretq_checks),
        cmocka_unit_test(syscall_and_sysret),
        cmocka_unit_test(sysenter_and_sysexit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
