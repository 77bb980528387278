/*
 * pc_irq.c - the board's interrupt wiring.
 *
 * An ISA interrupt line is driven by an ISA device, by PCI interrupts that the PIIX3 routes to it,
 * and for IRQ0 and IRQ8 by the HPET in its legacy mode. It reaches the i8259 pair and the I/O APIC
 * pin of the same number, but for IRQ0, which is on pin 2 (the MADT says so).
 */
#include "machine/pc_board.h"

static void line_update(struct pc_line *l)
{
    struct pc *p = l->pc;
    unsigned irq = (unsigned)(l - p->line);
    bool cut_off = p->hpet_legacy && (irq == 0 || irq == 8);
    bool level = (l->isa && !cut_off) || l->pci || l->hpet;
    i8259_set_irq(&p->pic, irq, level);
    ioapic_set(&p->ioapic, irq == 0 ? 2 : irq, level);
}

static void isa_set(void *ctx, unsigned irq, bool level)
{
    struct pc *p = ctx;
    p->line[irq].isa = level;
    line_update(&p->line[irq]);
}

struct pin pc_isa_pin(struct pc *p, unsigned irq)
{
    return (struct pin){.set = isa_set, .ctx = p, .line = irq};
}

void pc_pci_irq(void *ctx, unsigned irq, bool level)
{
    struct pc *p = ctx;
    p->line[irq & 15].pci = level;
    line_update(&p->line[irq & 15]);
}

static void hpet_legacy_set(void *ctx, unsigned irq, bool level)
{
    struct pc *p = ctx;
    p->line[irq].hpet = level;
    line_update(&p->line[irq]);
}

static void hpet_legacy_on(void *ctx, unsigned line, bool level)
{
    struct pc *p = ctx;
    (void)line;
    p->hpet_legacy = level;
    line_update(&p->line[0]);
    line_update(&p->line[8]);
}

struct hpet_wiring pc_hpet_wiring(struct pc *p)
{
    return (struct hpet_wiring){
        .irq = {.set = ioapic_set, .ctx = &p->ioapic},
        .legacy_irq0 = {.set = hpet_legacy_set, .ctx = p, .line = 0},
        .legacy_irq8 = {.set = hpet_legacy_set, .ctx = p, .line = 8},
        .legacy_on = {.set = hpet_legacy_on, .ctx = p},
    };
}

static int pic_ack(void *ctx)
{
    return i8259_ack(ctx);
}

void pc_irq_init(struct pc *p)
{
    for (unsigned n = 0; n < 16; n++)
        p->line[n].pc = p;
    apic_bus_init(&p->apic_bus);
    p->apic_bus.pic_ack = pic_ack;
    p->apic_bus.pic_ctx = &p->pic;
    ioapic_init(&p->ioapic, &p->apic_bus);
    i8259_init(&p->pic, (struct pin){.set = apic_bus_set_extint, .ctx = &p->apic_bus});
}

static void lapic_event(void *ctx, enum lapic_event ev, unsigned arg)
{
    struct pc_lapic *l = ctx;
    const struct pc_host *h = &l->pc->host;
    switch (ev) {
    case LAPIC_INTR:
        if (arg) /* when it goes away the vCPU finds nothing to acknowledge */
            h->post(h->ctx, l->index, X86_PEND_INTR);
        break;
    case LAPIC_NMI:
        h->post(h->ctx, l->index, X86_PEND_NMI);
        break;
    case LAPIC_INIT:
        h->post(h->ctx, l->index, X86_PEND_INIT);
        break;
    case LAPIC_SIPI:
        h->sipi(h->ctx, l->index, (uint8_t)arg);
        break;
    }
}

static ns_t tsc_to_ns(void *ctx, uint64_t tsc)
{
    struct pc_lapic *l = ctx;
    uint64_t machine = tsc - l->pc->kvm_pv.cpu[l->index].tsc_offset;
    if (machine > INT64_MAX / 4) /* in the past, wrapped around; or centuries away */
        return machine > (uint64_t)INT64_MAX ? 0 : INT64_MAX / 4;
    return (ns_t)muldiv_u64(machine + PC_TSC_HZ / NS_PER_SEC - 1, NS_PER_SEC, PC_TSC_HZ);
}

static void pv_flush(void *ctx, unsigned cpu)
{
    const struct pc_host *h = ctx;
    h->post(h->ctx, cpu, X86_PEND_TLB);
}

static void pv_unhalt(void *ctx, unsigned cpu)
{
    const struct pc_host *h = ctx;
    h->unhalt(h->ctx, cpu);
}

int pc_lapics_init(struct pc *p, struct error *e)
{
    for (unsigned n = 0; n < p->spec->cpus; n++) {
        struct pc_lapic *l = &p->lapic[n];
        l->pc = p;
        l->index = n;
        const struct lapic_host host = {.event = lapic_event, .tsc_to_ns = tsc_to_ns, .ctx = l};
        int rc = lapic_init(&l->lapic, &p->apic_bus, p->tq, n == 0, X86_PHYS_BITS, &host, e);
        if (rc)
            return rc;
    }
    const struct kvm_pv_host pv = {.flush = pv_flush, .unhalt = pv_unhalt, .ctx = &p->host};
    kvm_pv_init(&p->kvm_pv, &p->mem, &p->apic_bus, p->tq->clock, PC_TSC_HZ, &pv);
    return 0;
}
