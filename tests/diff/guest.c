/*
 * guest.c - the engine's side: a vCPU at CPL 3 of a small system in long mode, whose page tables,
 * GDT and LDT show the instruction what it finds in the throw-away process.
 *
 * Every gate of the IDT leads to a HLT of its own at CPL 0, so that run() returns with the vector
 * in RIP and the interrupted state on the stack.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "diff.h"
#include "engine/engine.h"
#include "isa/x86/access.h"
#include "isa/x86/cpuid.h"
#include "isa/x86/native.h"

#define RAM_SIZE  (4 * MIB)
#define KERNEL    0xffff800000000000ull /* physical memory, for the supervisor */
#define PML4      0x1000u
#define PDPT_LOW  0x2000u
#define PD_LOW    0x3000u
#define PT_CODE   0x4000u
#define PT_DATA   0x5000u
#define PDPT_HIGH 0x6000u
#define PD_HIGH   0x7000u
#define GDT       0x10000u
#define LDT       0x10800u
#define IDT       0x11000u
#define TSS       0x12000u
#define STUBS     0x13000u
#define STACK     0x15000u /* top */
#define CODE_PHYS 0x20000u
#define DATA_PHYS 0x30000u

#define GDT_LIMIT 127u /* Linux' */
#define SEL_KCS   0x10u
#define SEL_TSS   0x40u
#define SEL_LDTR  0x50u

#define PTE_P  0x1ull
#define PTE_W  0x2ull
#define PTE_U  0x4ull
#define PTE_AD 0x60ull
#define PTE_PS 0x80ull
#define PTE_NX (1ull << 63)

#define TIMEOUT_S      5
#define INTERRUPTS_MAX 20u /* a block that takes so many never ends */

struct guest {
    const struct engine *engine;
    const struct pool *pool;
    struct x86_cpu *c;
    struct ram ram;
    struct space space;
    struct x86_model model;
    struct x86_state home[NMODES];
    unsigned interrupts;
};

static void *phys(struct guest *g, uint32_t at)
{
    return g->ram.host + at;
}

static void put64(struct guest *g, uint32_t at, uint64_t v)
{
    memcpy(phys(g, at), &v, 8);
}

/* ---- memory ---- */

static void page_tables(struct guest *g)
{
    const uint64_t table = PTE_P | PTE_W | PTE_U | PTE_AD;
    put64(g, PML4, PDPT_LOW | table);
    put64(g, PDPT_LOW, PD_LOW | table);
    put64(g, PD_LOW + (CODE_AT >> 21) * 8, PT_CODE | table);
    put64(g, PD_LOW + (DATA_AT >> 21) * 8, PT_DATA | table);
    for (unsigned n = 0; n < CODE_PAGES; n++)
        put64(g, PT_CODE + n * 8, (CODE_PHYS + n * 4096) | PTE_P | PTE_U | PTE_AD);
    for (unsigned n = 0; n < DATA_PAGES; n++)
        put64(g, PT_DATA + n * 8,
              (DATA_PHYS + n * 4096) | PTE_P | PTE_U | PTE_AD | PTE_NX | (n < DATA_RW ? PTE_W : 0));
    put64(g, PML4 + 256 * 8, PDPT_HIGH | PTE_P | PTE_W | PTE_AD);
    put64(g, PDPT_HIGH, PD_HIGH | PTE_P | PTE_W | PTE_AD);
    put64(g, PD_HIGH, PTE_P | PTE_W | PTE_AD | PTE_PS);
}

/* ---- descriptors ---- */

static struct x86_seg make_seg(uint16_t sel, uint32_t base, uint32_t limit, uint32_t attr)
{
    if (attr & X86_ATTR_G)
        limit = limit << 12 | 0xfff;
    return (struct x86_seg){.base = base, .limit = limit, .sel = sel, .attr = attr};
}

static uint64_t descriptor(uint64_t base, uint32_t limit, uint32_t attr)
{
    return (limit & 0xffffull) | (base & 0xffffff) << 16 | (uint64_t)(attr & 0xf0ff) << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (base >> 24 & 0xff) << 56;
}

/* As the kernel's fill_ldt() makes them: DPL 3, accessed. */
static uint32_t ldt_attr(const struct ldt_entry *e)
{
    return X86_ATTR_S | 3u << X86_ATTR_DPL_SH | X86_TYPE_A | (e->absent ? 0 : X86_ATTR_P) |
           (e->read_exec_only ? 0 : X86_TYPE_RW) | (uint32_t)e->contents << 2 |
           (e->big ? X86_ATTR_DB : 0) | (e->pages ? X86_ATTR_G : 0);
}

static struct x86_seg ldt_seg(unsigned n)
{
    const struct ldt_entry *e = &diff_ldt[n];
    return make_seg((uint16_t)SEL_LDT(n), e->base, e->limit, ldt_attr(e));
}

/* Linux' GDT: 32-bit kernel code, kernel code, kernel data, 32-bit user code, user data, user code.
 */
static const uint32_t gdt_attr[] = {0, 0xc09b, 0xa09b, 0xc093, 0xc0fb, 0xc0f3, 0xa0fb};

static struct x86_seg gdt_seg(uint16_t sel)
{
    return make_seg(sel, 0, 0xfffff, gdt_attr[sel / 8]);
}

static void tables(struct guest *g)
{
    for (unsigned n = 1; n < ARRAY_LEN(gdt_attr); n++)
        put64(g, GDT + n * 8, descriptor(0, 0xfffff, gdt_attr[n]));
    put64(g, GDT + SEL_TSS, descriptor(KERNEL + TSS, 0x67, 0x8b));
    put64(g, GDT + SEL_TSS + 8, (KERNEL + TSS) >> 32);
    put64(g, GDT + SEL_LDTR, descriptor(KERNEL + LDT, LDT_COUNT * 8 - 1, 0x82));
    put64(g, GDT + SEL_LDTR + 8, (KERNEL + LDT) >> 32);
    for (unsigned n = 0; n < LDT_COUNT; n++)
        put64(g, LDT + n * 8,
              descriptor(diff_ldt[n].base, diff_ldt[n].limit, ldt_attr(&diff_ldt[n])));
    for (unsigned n = 0; n < 256; n++) {
        uint64_t to = KERNEL + STUBS + n * 16;
        uint64_t dpl = n == X86_BP || n == X86_OF ? 3 : 0;
        put64(g, IDT + n * 16,
              (to & 0xffff) | SEL_KCS << 16 | (0x8e00 | dpl << 13) << 32 |
                  (to >> 16 & 0xffff) << 48);
        put64(g, IDT + n * 16 + 8, to >> 32);
        memset(phys(g, STUBS + n * 16), 0xf4, 16); /* HLT */
    }
    memcpy(phys(g, STUBS + GUEST_VECTOR * 16), "\x48\xcf", 2); /* IRETQ */
    put64(g, TSS + 4, KERNEL + STACK);                         /* RSP0 */
    put64(g, TSS + 0x64, 0x68ull << 16);                       /* no I/O permission map */
}

static void mode_state(struct guest *g, enum diff_mode m, struct x86_state *s)
{
    *s = g->c->s;
    s->seg[X86_CS] = m == MODE_16 ? ldt_seg(0) : gdt_seg(m == MODE_64 ? SEL_CS64 : SEL_CS32);
    for (unsigned n = 0; n < X86_NSEG; n++) {
        if (n == X86_CS)
            continue;
        bool null = m == MODE_64 && n != X86_SS, based = m == MODE_16 ? n != X86_FS : n == X86_GS;
        s->seg[n] = null                    ? (struct x86_seg){.attr = X86_ATTR_UNUSABLE}
                    : based && m != MODE_64 ? ldt_seg(1)
                                            : gdt_seg(SEL_DS);
    }
    if (m == MODE_64) {
        s->seg[X86_FS].base = FS_BASE;
        s->seg[X86_GS].base = GS_BASE;
    }
    s->ldtr = make_seg(SEL_LDTR, 0, LDT_COUNT * 8 - 1, 0x82);
    s->ldtr.base = KERNEL + LDT;
    s->tr = make_seg(SEL_TSS, 0, 0x67, 0x8b);
    s->tr.base = KERNEL + TSS;
    s->gdtr = (struct x86_dtr){KERNEL + GDT, GDT_LIMIT};
    s->idtr = (struct x86_dtr){KERNEL + IDT, 256 * 16 - 1};
    s->cr0 =
        X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_PG;
    s->cr3 = PML4;
    s->cr4 = X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT |
             X86_CR4_UMIP | X86_CR4_FSGSBASE | X86_CR4_OSXSAVE | X86_CR4_SMEP | X86_CR4_SMAP;
    s->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    s->xcr0 = X86_XCR0_X87 | X86_XCR0_SSE | (g->model.xcr0_mask & X86_XCR0_AVX);
}

/* ---- life cycle ---- */

static uint64_t bus_read(void *ctx, gpa_t a, unsigned size)
{
    return ~0ull;
}

static void bus_write(void *ctx, gpa_t a, uint64_t v, unsigned size)
{
}

static uint64_t port_read(void *ctx, uint16_t port, unsigned size)
{
    return ~0ull;
}

static void port_write(void *ctx, uint16_t port, uint64_t v, unsigned size)
{
}

/* Somebody has set X86_PEND_INTR (torture.c): one that changes nothing. */
static int intr_ack(void *ctx)
{
    struct guest *g = ctx;
    if (++g->interrupts % INTERRUPTS_MAX == 0)
        atomic_fetch_or(&g->c->pending, X86_PEND_KICK);
    return GUEST_VECTOR;
}

static uint64_t no_time(void *ctx)
{
    return 0;
}

static void set_tpr(void *ctx, uint64_t v)
{
}

static bool apic_msr(void *ctx, uint32_t msr, bool write, uint64_t *v)
{
    return false;
}

static void unwrite_others(void *ctx, uint64_t roff, uint64_t places)
{
}

static _Atomic(struct x86_cpu *) watched;

static void on_alarm(int sig)
{
    struct x86_cpu *c = atomic_load(&watched);
    (void)sig;
    if (c)
        atomic_fetch_or(&c->pending, X86_PEND_KICK);
}

struct guest *guest_create(const struct engine *e, const struct pool *pool)
{
    struct guest *g = calloc(1, sizeof *g);
    unsigned id;
    if (!g)
        return NULL;
    size_t size = (sizeof *g->c + 63) & ~(size_t)63;
    g->c = aligned_alloc(64, size);
    if (!g->c)
        abort();
    memset(g->c, 0, size);
    g->engine = e;
    g->pool = pool;
    if (ram_init(&g->ram, RAM_SIZE, NULL) || space_init(&g->space, 1ull << 40, &g->ram, NULL) ||
        space_add_ram(&g->space, 0, RAM_SIZE, 0, 0, &id, NULL) ||
        x86_model_init(&g->model, 1000000000, NULL))
        abort();
    g->c->ram = &g->ram;
    g->c->mem = &g->space;
    g->c->model = &g->model;
    g->c->ncpus = 1;
    atomic_store(&g->c->a20_mask, ~0ull);
    g->c->bus = (struct x86_bus){.io_read = port_read,
                                 .io_write = port_write,
                                 .mem_read = bus_read,
                                 .mem_write = bus_write,
                                 .intr_ack = intr_ack,
                                 .tsc = no_time,
                                 .get_tpr = no_time,
                                 .set_tpr = set_tpr,
                                 .apic_msr = apic_msr,
                                 .unwrite_others = unwrite_others,
                                 .ctx = g};
    x86_reset(g->c, false);
    if (e->vcpu_create(g->c, NULL))
        abort();
    page_tables(g);
    tables(g);
    memset(phys(g, CODE_PHYS), 0xcc, CODE_SIZE);
    for (unsigned m = 0; m < NMODES; m++)
        mode_state(g, (enum diff_mode)m, &g->home[m]);
    atomic_store(&watched, g->c);
    signal(SIGALRM, on_alarm);
    return g;
}

void guest_destroy(struct guest *g)
{
    atomic_store(&watched, NULL);
    g->engine->vcpu_destroy(g->c);
    space_fini(&g->space);
    ram_fini(&g->ram);
    free(g->c);
    free(g);
}

/* ---- a case ---- */

/* NULL: clears it. */
static void write_code(struct guest *g, unsigned off, const uint8_t *code, unsigned len)
{
    uint64_t n = min_u64(len, CODE_SIZE - off);
    if (code)
        memcpy(phys(g, CODE_PHYS + off), code, n);
    else
        memset(phys(g, CODE_PHYS + off), 0xcc, n);
    ram_note_write(&g->ram, CODE_PHYS + off, n);
}

static void load_case(struct guest *g, enum diff_mode m, const struct input *in)
{
    struct x86_state *s = &g->c->s;
    *s = g->home[m];
    memcpy(s->gpr, in->r.gpr, sizeof in->r.gpr);
    s->rip = in->r.rip;
    s->rflags = in->r.rflags;
    uint32_t mask = s->fpu.mxcsr_mask;
    s->fpu = in->r.fpu;
    s->fpu.mxcsr_mask = mask;
    memcpy(phys(g, DATA_PHYS), g->pool->data[in->pool], DATA_SIZE);
    memcpy(phys(g, DATA_PHYS + in->patch_off), in->patch, in->npatch);
}

/* The frame that the processor pushed at CPL 0. */
static void save_case(struct guest *g, struct output *o)
{
    const struct x86_state *s = &g->c->s;
    uint64_t frame[6] = {0}, rsp = s->gpr[X86_RSP] - KERNEL;
    o->vector = (uint8_t)((s->rip - 1 - KERNEL - STUBS) / 16);
    o->lost = rsp < STACK - 48 || rsp > STACK - 40;
    if (o->lost)
        return;
    bool has_error = rsp == STACK - 48;
    memcpy(frame, phys(g, (uint32_t)rsp), STACK - rsp);
    const uint64_t *f = frame + has_error;
    o->error = has_error ? (uint32_t)frame[0] : 0;
    o->cr2 = s->cr2;
    memcpy(o->r.gpr, s->gpr, sizeof o->r.gpr);
    o->r.rip = f[0];
    o->r.rflags = f[2];
    o->r.gpr[X86_RSP] = f[3];
    for (unsigned n = 0; n < X86_NSEG; n++)
        o->r.seg[n] = s->seg[n].sel;
    o->r.seg[X86_CS] = (uint16_t)f[1];
    o->r.seg[X86_SS] = (uint16_t)f[4];
    o->r.fs_base = s->seg[X86_FS].base;
    o->r.gs_base = s->seg[X86_GS].base;
    o->r.fpu = s->fpu;
    memcpy(o->data, phys(g, DATA_PHYS), DATA_SIZE);
}

void guest_run(struct guest *g, enum diff_mode m, const struct input *in, struct output *out)
{
    load_case(g, m, in);
    write_code(g, in->code_off, in->code, in->len);
    alarm(TIMEOUT_S);
    enum engine_exit why = g->engine->run(g->c);
    alarm(0);
    save_case(g, out);
    out->lost |= why != ENGINE_EXIT_HALT;
    write_code(g, in->code_off, NULL, in->len);
}

enum engine_exit guest_run_block(struct guest *g, enum diff_mode m, const struct input *in,
                                 const uint8_t *code, unsigned len)
{
    load_case(g, m, in);
    write_code(g, in->code_off, code, len);
    g->interrupts = 0;
    enum engine_exit why = g->engine->run(g->c);
    write_code(g, in->code_off, NULL, len);
    return why;
}

struct x86_cpu *guest_cpu(struct guest *g)
{
    return g->c;
}

bool guest_offers(const struct guest *g, const struct form *f)
{
    uint8_t code[INSN_MAX];
    struct insn i;
    form_plain_code(f, code);
    if (!insn_decode(f->mode, code, 15, &i))
        return false;
    if (f->cls == CLASS_X87 || f->cls == CLASS_SSE || f->cls == CLASS_AVX)
        return x86_model_has_isa(&g->model, i.zi.meta.isa_ext, i.zi.meta.isa_set);
    return true;
}
