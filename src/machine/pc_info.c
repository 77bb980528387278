/* pc_info.c - the state of interrupt controllers and address maps, for people. */
#include <inttypes.h>

#include "machine/pc_board.h"

void pc_print_pic(const struct pc *p, FILE *out)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct i8259_one *o = &p->pic.one[i];
        fprintf(out, "pic%u: irr=%02x imr=%02x isr=%02x line=%02x elcr=%02x vector=%02x%s\n", i,
                o->irr, o->imr, o->isr, o->line, o->elcr, o->vector, o->aeoi ? " aeoi" : "");
    }
    fprintf(out, "ioapic: id=%02x select=%02x level=%06" PRIx32 "\n", p->ioapic.id,
            p->ioapic.select, p->ioapic.level);
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        uint64_t r = p->ioapic.redir[i];
        fprintf(out, "  pin %2u 0x%016" PRIx64 " vec=%3u dest=%02x%s%s%s%s%s\n", i, r,
                (unsigned)(r & 0xff), (unsigned)(r >> 56), r & 1 << 11 ? " logical" : "",
                r & 1 << 13 ? " active-low" : "", r & 1 << 15 ? " level" : " edge",
                r & 1 << 16 ? " masked" : "", r & 1 << 14 ? " remote-irr" : "");
    }
}

static void print_bits(FILE *out, const char *name, const uint32_t bits[8])
{
    fprintf(out, "%s:", name);
    bool any = false;
    for (unsigned v = 0; v < 256; v++)
        if (bits[v / 32] >> v % 32 & 1) {
            fprintf(out, " %u", v);
            any = true;
        }
    fputs(any ? "\n" : " none\n", out);
}

void pc_print_lapic(const struct pc *p, unsigned cpu, FILE *out)
{
    static const char *const names[LVT_COUNT] = {
        [LVT_TIMER] = "timer", [LVT_THERMAL] = "thermal", [LVT_PERF] = "perf",
        [LVT_LINT0] = "lint0", [LVT_LINT1] = "lint1",     [LVT_ERROR] = "error"};
    const struct lapic *l = &p->lapic[cpu].lapic;
    fprintf(out, "lapic %u: id=%02x base=%" PRIx64 " tpr=%02x svr=%08" PRIx32 " ldr=%08" PRIx32,
            cpu, l->id, l->base, l->tpr, l->svr, l->ldr);
    fprintf(out, " dfr=%08" PRIx32 " esr=%02" PRIx32 "\n", l->dfr, l->esr);
    fprintf(out, "icr: %08" PRIx32 " %08" PRIx32 "\n", l->icr[1], l->icr[0]);
    for (unsigned n = 0; n < LVT_COUNT; n++)
        fprintf(out, "lvt %-7s %08" PRIx32 "%s\n", names[n], l->lvt[n],
                l->lvt[n] & 1 << 16 ? " masked" : "");
    fprintf(out, "timer: divide=%" PRIx32 " initial=%" PRIu32 " count=%" PRIu32 "\n", l->t.divide,
            l->t.initial, lapic_timer_count(l));
    print_bits(out, "isr", l->isr);
    print_bits(out, "irr", l->irr);
}

static void print_space(const char *name, const struct space *s, FILE *out)
{
    static const char *const kinds[] = {
        [REGION_RAM] = "ram", [REGION_ROM] = "rom", [REGION_IO] = "i/o"};
    fprintf(out, "%s:\n", name);
    for (unsigned i = 0; i < s->nflat; i++) {
        const struct flat *f = &s->flat[i];
        const struct region *r = &s->region[f->region];
        fprintf(out, "  %016" PRIx64 "-%016" PRIx64 " (prio %d, %s): %s", f->base, f->end - 1,
                r->prio, kinds[r->kind], r->io && r->io->name ? r->io->name : kinds[r->kind]);
        if (f->delta)
            fprintf(out, " @%016" PRIx64, f->delta);
        fputc('\n', out);
    }
}

void pc_print_map(const struct pc *p, FILE *out)
{
    print_space("memory", &p->mem, out);
    print_space("I/O", &p->port, out);
}
