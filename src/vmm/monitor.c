/*
 * monitor.c - `info ...` for people and debuggers, while all vCPUs are parked.
 *
 * Page tables are the guest's: what is walked and printed is bounded, and tables are read like DMA.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "base/suggest.h"
#include "isa/x86/mmu.h"
#include "vmm/control_int.h"

#define MAX_LINES  4000u
#define MAX_TABLES 20000u

struct printer {
    struct vm *vm;
    const struct x86_cpu *cpu;
    FILE *out;
    unsigned lines, tables;
    /* info mem: the stretch that is being collected */
    uint64_t from, to, rights;
};

/* ---- registers ---- */

static void print_seg(FILE *out, const char *name, const struct x86_seg *s)
{
    fprintf(out, "%-3s=%04x %016" PRIx64 " %08" PRIx32 " %08" PRIx32 "\n", name, s->sel, s->base,
            s->limit, s->attr);
}

static void info_registers(struct printer *p)
{
    static const char *const gpr[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                      "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
    static const char *const seg[] = {"ES", "CS", "SS", "DS", "FS", "GS"};
    for (unsigned n = 0; n < p->vm->nvcpu; n++) {
        const struct x86_cpu *c = p->vm->vcpu[n].cpu;
        const struct x86_state *s = &c->s;
        fprintf(p->out, "\nCPU#%u\n", n);
        for (unsigned i = 0; i < 16; i++)
            fprintf(p->out, "%-3s=%016" PRIx64 "%c", gpr[i], s->gpr[i], i % 4 == 3 ? '\n' : ' ');
        fprintf(p->out, "RIP=%016" PRIx64 " RFL=%08" PRIx64 " CPL=%u HLT=%d\n", s->rip, s->rflags,
                c->cpl, s->activity == X86_HALTED);
        for (unsigned i = 0; i < X86_NSEG; i++)
            print_seg(p->out, seg[i], &s->seg[i]);
        print_seg(p->out, "LDT", &s->ldtr);
        print_seg(p->out, "TR", &s->tr);
        fprintf(p->out, "GDT=     %016" PRIx64 " %08x\nIDT=     %016" PRIx64 " %08x\n",
                s->gdtr.base, s->gdtr.limit, s->idtr.base, s->idtr.limit);
        fprintf(p->out,
                "CR0=%08" PRIx64 " CR2=%016" PRIx64 " CR3=%016" PRIx64 " CR4=%08" PRIx64 "\n",
                s->cr0, s->cr2, s->cr3, s->cr4);
        fprintf(p->out, "EFER=%016" PRIx64 " XCR0=%" PRIx64 "\n", s->efer, s->xcr0);
        fprintf(p->out, "FCW=%04x FSW=%04x FTW=%02x MXCSR=%08" PRIx32 "\n", s->fpu.fcw, s->fpu.fsw,
                s->fpu.ftw, s->fpu.mxcsr);
        for (unsigned i = 0; i < 16; i++)
            fprintf(p->out, "XMM%02u=%016" PRIx64 "%016" PRIx64 "%c", i,
                    load_le64(s->fpu.xmm[i] + 8), load_le64(s->fpu.xmm[i]), i % 2 ? '\n' : ' ');
    }
}

/* ---- page tables (SDM 4.3 to 4.5) ---- */

#define PTE_PHYS 0x000ffffffffff000ull

typedef void leaf_fn(struct printer *p, gva_t lin, uint64_t size, uint64_t pte, uint64_t rights);

struct paging {
    unsigned levels, bits; /* bits of the address that one level looks at */
    unsigned entry;        /* bytes */
};

static struct paging paging_of(const struct x86_cpu *c)
{
    if (c->s.efer & X86_EFER_LMA)
        return (struct paging){4, 9, 8};
    if (c->s.cr4 & X86_CR4_PAE)
        return (struct paging){3, 9, 8};
    return (struct paging){2, 10, 4};
}

static uint64_t read_entry(struct printer *p, gpa_t at, unsigned size)
{
    uint8_t b[8] = {0};
    if (!dma_read(pc_mem(p->vm->pc), at, b, size))
        return 0;
    return size == 8 ? load_le64(b) : load_le32(b);
}

/* One table; four levels deep at most. */
static void walk(struct printer *p, const struct paging *g, unsigned level, gpa_t table, gva_t lin,
                 uint64_t rights, leaf_fn *leaf)
{
    unsigned shift = 12 + (level - 1) * g->bits;
    unsigned count = g->levels == 3 && level == 3 ? 4 : 1u << g->bits;
    if (++p->tables > MAX_TABLES)
        return;
    for (unsigned i = 0; i < count && p->lines < MAX_LINES; i++) {
        uint64_t pte = read_entry(p, table + (uint64_t)i * g->entry, g->entry);
        gva_t at = lin | (uint64_t)i << shift;
        bool pdpte = g->levels == 3 && level == 3; /* has no rights of its own */
        uint64_t now = rights & (pdpte ? ~0ull : pte | ~(PTE_W | PTE_U));
        if (!(pte & PTE_P))
            continue;
        if (g->levels == 4 && level == 4 && i & 0x100)
            at |= 0xffff000000000000ull;
        if (level == 1 || (pte & PTE_PS && level < 4 && !pdpte))
            leaf(p, at, 1ull << shift, pte, now);
        else
            walk(p, g, level - 1, pte & (g->entry == 8 ? PTE_PHYS : 0xfffff000ull), at, now, leaf);
    }
}

static void walk_all(struct printer *p, leaf_fn *leaf)
{
    const struct x86_cpu *c = p->cpu;
    struct paging g = paging_of(c);
    if (!(c->s.cr0 & X86_CR0_PG)) {
        fprintf(p->out, "paging is off\n");
        return;
    }
    gpa_t root = c->s.cr3 & (g.levels == 4   ? PTE_PHYS
                             : g.levels == 3 ? 0xffffffe0ull
                                             : 0xfffff000ull);
    walk(p, &g, g.levels, root, 0, PTE_W | PTE_U, leaf);
    if (p->lines >= MAX_LINES || p->tables > MAX_TABLES)
        fprintf(p->out, "... and more\n");
}

static void tlb_leaf(struct printer *p, gva_t lin, uint64_t size, uint64_t pte, uint64_t rights)
{
    uint64_t phys = pte & PTE_PHYS & ~(size - 1);
    p->lines++;
    fprintf(p->out, "%016" PRIx64 ": %016" PRIx64 " %c%c%c%c%c%c%c\n", lin, phys,
            pte & PTE_NX ? 'X' : '-', pte & PTE_G ? 'G' : '-', size > 4096 ? 'P' : '-',
            pte & PTE_D ? 'D' : '-', pte & PTE_A ? 'A' : '-', rights & PTE_U ? 'U' : '-',
            rights & PTE_W ? 'W' : '-');
}

static void info_tlb(struct printer *p)
{
    walk_all(p, tlb_leaf);
}

static void end_stretch(struct printer *p)
{
    if (p->to == p->from)
        return;
    p->lines++;
    fprintf(p->out, "%016" PRIx64 "-%016" PRIx64 " %016" PRIx64 " %cr%c\n", p->from, p->to,
            p->to - p->from, p->rights & PTE_U ? 'u' : '-', p->rights & PTE_W ? 'w' : '-');
}

static void mem_leaf(struct printer *p, gva_t lin, uint64_t size, uint64_t pte, uint64_t rights)
{
    uint64_t mine = rights & (PTE_U | PTE_W);
    if (lin != p->to || mine != p->rights) {
        end_stretch(p);
        p->from = lin;
        p->rights = mine;
    }
    p->to = lin + size;
}

static void info_mem(struct printer *p)
{
    walk_all(p, mem_leaf);
    end_stretch(p);
}

/* ---- the board ---- */

static void info_pic(struct printer *p)
{
    pc_print_pic(p->vm->pc, p->out);
}

static void info_lapic(struct printer *p)
{
    for (unsigned n = 0; n < p->vm->nvcpu; n++)
        pc_print_lapic(p->vm->pc, n, p->out);
}

static void info_mtree(struct printer *p)
{
    pc_print_map(p->vm->pc, p->out);
}

static void info_status(struct printer *p)
{
    fprintf(p->out, "VM status: %s\n", p->vm->paused ? "paused" : "running");
}

static const struct topic {
    const char *name;
    void (*print)(struct printer *p);
} topics[] = {
    {"registers", info_registers},
    {"mem", info_mem},
    {"tlb", info_tlb},
    {"pic", info_pic},
    {"lapic", info_lapic},
    {"mtree", info_mtree},
    {"status", info_status},
    {NULL, NULL},
};

static const char *nth_topic(const void *list, size_t i)
{
    return ((const struct topic *)list)[i].name;
}

int monitor_info(struct vm *vm, const char *line, char **out, struct error *e)
{
    size_t len;
    const struct topic *t = topics;
    if (strncmp(line, "info ", 5) != 0)
        return error_set(e, ERR_USAGE, "\"%.40s\": only `info` is known here", line);
    line += 5 + strspn(line + 5, " ");
    while (t->name && strcmp(t->name, line) != 0)
        t++;
    if (!t->name) {
        const char *near = suggest(line, nth_topic, topics);
        return error_set(e, ERR_USAGE,
                         "info \"%.40s\" is not known%s%s; there are: registers, mem, "
                         "tlb, pic, lapic, mtree, status",
                         line, near ? "; did you mean " : "", near ? near : "");
    }
    struct printer p = {.vm = vm, .cpu = vm->vcpu[0].cpu, .out = open_memstream(out, &len)};
    if (!p.out)
        return error_set(e, ERR_NOMEM, "out of memory");
    pthread_mutex_lock(&vm->lock);
    t->print(&p);
    pthread_mutex_unlock(&vm->lock);
    return fclose(p.out) ? error_set(e, ERR_NOMEM, "out of memory") : 0;
}
