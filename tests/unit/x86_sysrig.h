/*
 * x86_sysrig.h - a vCPU with descriptor tables, for tests of what only system software sees.
 *
 * Code is fetched from guest RAM and executed by the interpreter until HLT or shutdown. The handler
 * of each vector is a HLT of its own, so RIP tells afterwards which one was reached, and the stack
 * shows its frame.
 */
#ifndef SOSIA_TESTS_UNIT_X86_SYSRIG_H
#define SOSIA_TESTS_UNIT_X86_SYSRIG_H

#include "engine/engine.h"
#include "isa/x86/op_priv.h"
#include "x86_harness.h"

#define GDT       0x1000u
#define IDT       0x2000u
#define TSS_A     0x3000u
#define TSS_B     0x3400u
#define LDT       0x3800u
#define HANDLER   0x5000u /* 16 bytes for each vector */
#define STACK     0x8000u /* of the code under test */
#define STACK3    0x9000u
#define STACK0    0xa000u /* ESP0, RSP0 */
#define STACK_IST 0xb000u
#define CODE      RIG_CODE

enum {
    SEL_CODE0 = 0x08,
    SEL_DATA0 = 0x10,
    SEL_CODE3 = 0x18 | 3,
    SEL_DATA3 = 0x20 | 3,
    SEL_TSS_A = 0x28,
    SEL_CODE64 = 0x38,
    SEL_CONFORMING = 0x48,
    SEL_TSS_B = 0x50,
    SEL_GATE = 0x60,
    SEL_ABSENT = 0x70,
    SEL_LDT = 0x78,
    SEL_CODE16 = 0x88,
    SEL_DATA16 = 0x90,
    SEL_DOWN = 0x98,
    SEL_TASK_GATE = 0xa0,
    SEL_CODE64_3 = 0xa8 | 3,
    GDT_LIMIT = 0xff,
};

struct sysrig {
    struct rig *r;
    struct x86_cpu *c;
    struct x86_model model;
    uint64_t tsc, tpr;
    uint16_t out_port;
    uint64_t out_val;
    unsigned in_count, out_count;
    int vector; /* for intr_ack */
};

static inline uint64_t sr_in(void *ctx, uint16_t port, unsigned size)
{
    struct sysrig *s = ctx;
    return 0x11223300u + s->in_count++;
}
static inline void sr_out(void *ctx, uint16_t port, uint64_t val, unsigned size)
{
    struct sysrig *s = ctx;
    s->out_port = port;
    s->out_val = val;
    s->out_count++;
}
static inline uint64_t sr_mem_read(void *ctx, gpa_t addr, unsigned size)
{
    return ~0ull;
}
static inline void sr_mem_write(void *ctx, gpa_t addr, uint64_t val, unsigned size)
{
}
static inline int sr_ack(void *ctx)
{
    return ((struct sysrig *)ctx)->vector;
}
static inline uint64_t sr_tsc(void *ctx)
{
    return ((struct sysrig *)ctx)->tsc;
}
static inline uint64_t sr_get_tpr(void *ctx)
{
    return ((struct sysrig *)ctx)->tpr;
}
static inline void sr_set_tpr(void *ctx, uint64_t v)
{
    ((struct sysrig *)ctx)->tpr = v;
}
static inline bool sr_apic(void *ctx, uint32_t msr, bool write, uint64_t *v)
{
    if (!write)
        *v = 0xfee00900;
    return msr == 0x1b;
}

/* ---- tables ---- */

static inline void sr_put(struct sysrig *s, gpa_t a, const void *p, unsigned len)
{
    memcpy(rig_mem(s->r, a), p, len);
}
static inline uint64_t sr_q(struct sysrig *s, gpa_t a)
{
    uint64_t v;
    memcpy(&v, rig_mem(s->r, a), 8);
    return v;
}
static inline uint32_t sr_d(struct sysrig *s, gpa_t a)
{
    return (uint32_t)sr_q(s, a);
}
static inline uint16_t sr_w(struct sysrig *s, gpa_t a)
{
    return (uint16_t)sr_q(s, a);
}
static inline void sr_set_q(struct sysrig *s, gpa_t a, uint64_t v)
{
    sr_put(s, a, &v, 8);
}
static inline void sr_set_d(struct sysrig *s, gpa_t a, uint32_t v)
{
    sr_put(s, a, &v, 4);
}

/* access: P DPL S TYPE; flags: G DB L AVL */
static inline uint64_t sr_desc(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 |
           (uint64_t)(base >> 24) << 56;
}
static inline void sr_gdt(struct sysrig *s, unsigned sel, uint64_t d)
{
    sr_set_q(s, GDT + (sel & ~7u), d);
}
static inline uint64_t sr_gate(uint16_t sel, uint32_t off, unsigned access, unsigned params)
{
    return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)params << 32 | (uint64_t)access << 40 |
           (uint64_t)(off >> 16) << 48;
}
/* access 0x8e: interrupt gate, DPL 0. */
static inline void sr_idt32(struct sysrig *s, unsigned v, uint16_t sel, unsigned access)
{
    sr_set_q(s, IDT + v * 8, sr_gate(sel, HANDLER + v * 16, access, 0));
}
static inline void sr_idt64(struct sysrig *s, unsigned v, unsigned access, unsigned ist)
{
    sr_set_q(s, IDT + v * 16, sr_gate(SEL_CODE64, HANDLER + v * 16, access, ist));
    sr_set_q(s, IDT + v * 16 + 8, 0);
}

static inline void sr_tables(struct sysrig *s, unsigned bits)
{
    sr_gdt(s, SEL_CODE0, sr_desc(0, 0xfffff, 0x9b, 0xc));
    sr_gdt(s, SEL_DATA0, sr_desc(0, 0xfffff, 0x93, 0xc));
    sr_gdt(s, SEL_CODE3, sr_desc(0, 0xfffff, 0xfb, 0xc));
    sr_gdt(s, SEL_DATA3, sr_desc(0, 0xfffff, 0xf3, 0xc));
    sr_gdt(s, SEL_TSS_A, sr_desc(TSS_A, 0xff, 0x8b, 0));
    sr_gdt(s, SEL_CODE64, sr_desc(0, 0xfffff, 0x9b, 0xa));
    sr_gdt(s, SEL_CONFORMING, sr_desc(0, 0xfffff, 0x9e, 0xc));
    sr_gdt(s, SEL_TSS_B, sr_desc(TSS_B, 0x67, 0x89, 0));
    sr_gdt(s, SEL_ABSENT, sr_desc(0, 0xfffff, 0x13, 0xc));
    sr_gdt(s, SEL_LDT, sr_desc(LDT, 0xff, 0x82, 0));
    sr_gdt(s, SEL_CODE16, sr_desc(0, 0xffff, 0x9b, 0));
    sr_gdt(s, SEL_DATA16, sr_desc(0, 0xffff, 0x93, 0));
    sr_gdt(s, SEL_DOWN, sr_desc(0, 0x0fff, 0x96, 0x4));
    sr_gdt(s, SEL_CODE64_3, sr_desc(0, 0xfffff, 0xfb, 0xa));
    sr_gdt(s, SEL_TASK_GATE, sr_gate(SEL_TSS_B, 0, 0x85, 0));
    s->c->s.gdtr = (struct x86_dtr){GDT, GDT_LIMIT};
    s->c->s.idtr = (struct x86_dtr){IDT, bits == 64 ? 0xfff : 0x7ff};
    for (unsigned v = 0; v < 256; v++) {
        ((uint8_t *)rig_mem(s->r, HANDLER))[v * 16] = 0xf4;
        if (bits == 32)
            sr_idt32(s, v, SEL_CODE0, 0x8e);
        else if (bits == 64)
            sr_idt64(s, v, 0x8e, 0);
        else
            sr_set_d(s, v * 4, HANDLER + v * 16);
    }
    if (bits == 16)
        s->c->s.idtr = (struct x86_dtr){0, 0x3ff};
    if (bits == 64) {
        sr_set_q(s, TSS_A + 4, STACK0);
        sr_set_q(s, TSS_A + 36, STACK_IST);
    } else {
        sr_set_d(s, TSS_A + 4, STACK0);
        sr_set_d(s, TSS_A + 8, SEL_DATA0);
    }
    sr_set_d(s, TSS_A + 100, 104u << 16); /* I/O map */
    s->c->s.tr = (struct x86_seg){.base = TSS_A, .limit = 0xff, .sel = SEL_TSS_A, .attr = 0x8b};
    s->c->s.ldtr = (struct x86_seg){.attr = X86_ATTR_UNUSABLE};
}

/* The present mode's segments at privilege level `cpl`, from the GDT. */
static inline void sr_level(struct sysrig *s, unsigned bits, unsigned cpl)
{
    struct x86_cpu *c = s->c;
    uint16_t cs = bits == 64 ? (cpl ? SEL_CODE64_3 : SEL_CODE64) : cpl ? SEL_CODE3 : SEL_CODE0;
    uint16_t ds = cpl ? SEL_DATA3 : SEL_DATA0;
    for (unsigned n = 0; n < X86_NSEG; n++) {
        uint16_t sel = n == X86_CS ? cs : ds;
        c->s.seg[n] = x86_desc_seg(sr_q(s, GDT + (sel & ~7u)), sel);
    }
    c->s.gpr[X86_RSP] = cpl ? STACK3 : STACK;
    x86_update_mode(c);
}

static inline void sr_enter(struct sysrig *s, unsigned bits, unsigned cpl)
{
    rig_mode(s->r, bits);
    sr_tables(s, bits);
    if (bits == 16) {
        s->c->s.seg[X86_CS].base = 0; /* offsets are linear addresses */
        s->c->s.seg[X86_CS].sel = 0;
        x86_update_mode(s->c);
    } else {
        sr_level(s, bits, cpl);
    }
}

static inline struct sysrig *sr_create(unsigned bits, unsigned cpl)
{
    struct sysrig *s = calloc(1, sizeof *s);
    s->r = rig_create(bits);
    s->c = s->r->c;
    if (x86_model_init(&s->model, 2700000000ull, NULL) || engine_interp.vcpu_create(s->c, NULL))
        abort();
    s->c->model = &s->model;
    s->c->bus = (struct x86_bus){.io_read = sr_in,
                                 .io_write = sr_out,
                                 .mem_read = sr_mem_read,
                                 .mem_write = sr_mem_write,
                                 .intr_ack = sr_ack,
                                 .tsc = sr_tsc,
                                 .get_tpr = sr_get_tpr,
                                 .set_tpr = sr_set_tpr,
                                 .apic_msr = sr_apic,
                                 .unwrite_others = rig_unwrite,
                                 .ctx = s};
    sr_enter(s, bits, cpl);
    return s;
}

static inline void sr_destroy(struct sysrig *s)
{
    engine_interp.vcpu_destroy(s->c);
    rig_destroy(s->r);
    free(s);
}

/* Code lies at 0x4000 in real mode, else at CODE. */
static inline uint64_t sr_code(const struct sysrig *s)
{
    return s->c->s.cr0 & X86_CR0_PE && !x86_vm86(s->c) ? CODE : 0x4000;
}

/* Executes `code` from its first byte until HLT or shutdown; a HLT is put behind it. */
static inline enum engine_exit sr_run(struct sysrig *s, const void *code, unsigned len)
{
    uint64_t at = sr_code(s);
    uint8_t *p = rig_mem(s->r, at);
    memcpy(p, code, len);
    p[len] = 0xf4;
    ram_note_write(&s->r->ram, at, len + 1);
    s->c->s.rip = at;
    s->c->s.activity = X86_RUNNING;
    enum engine_exit x = engine_interp.run(s->c);
    s->c->s.activity = X86_RUNNING;
    return x;
}
#define RUN(s, ...) \
    sr_run(s, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* The vector whose handler was reached, -1 if none: the code ran to its end. */
static inline int sr_vector(const struct sysrig *s)
{
    uint64_t off = s->c->s.rip - HANDLER;
    return off < 0x1000 && off % 16 == 1 ? (int)(off / 16) : -1;
}

#endif
