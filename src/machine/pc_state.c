/*
 * pc_state.c - what of the board is state, and under which names it is saved.
 *
 * The order is that of loading: what others look at when they are loaded comes first (the spaces'
 * maps, KVM's MSRs before the APICs).
 */
#include "machine/pc_board.h"

#include <string.h>

static const struct field line_fields[] = {
    FIELD_NONE(struct pc_line, pc),
    FIELD(struct pc_line, isa),
    FIELD(struct pc_line, pci),
    FIELD(struct pc_line, hpet),
};
static const struct field_table line_table = FIELD_TABLE(struct pc_line, "pc_line", line_fields);

/* All but the wiring between them are parts of their own, or follow from the spec. */
static const struct field board_fields[] = {
    FIELD_NONE(struct pc, cfg),
    FIELD_NONE(struct pc, spec),
    FIELD_NONE(struct pc, ram),
    FIELD_NONE(struct pc, tq),
    FIELD_NONE(struct pc, host),
    FIELD(struct pc, low_top, .same = true),
    FIELD(struct pc, high_top, .same = true),
    FIELD(struct pc, direct, .same = true),
    FIELD_NONE(struct pc, mem),
    FIELD_NONE(struct pc, port),
    FIELD_NONE(struct pc, apic_bus),
    FIELD_NONE(struct pc, lapic),
    FIELD_NONE(struct pc, kvm_pv),
    FIELD_NONE(struct pc, ioapic),
    FIELD_NONE(struct pc, pic),
    FIELD_NONE(struct pc, pit),
    FIELD_NONE(struct pc, port61),
    FIELD_NONE(struct pc, hpet),
    FIELD_NONE(struct pc, rtc),
    FIELD_NONE(struct pc, kbc),
    FIELD_NONE(struct pc, port92),
    FIELD_NONE(struct pc, post),
    FIELD_NONE(struct pc, debug),
    FIELD_NONE(struct pc, uart),
    FIELD_NONE(struct pc, dma),
    FIELD_NONE(struct pc, fdc),
    FIELD_NONE(struct pc, fw_cfg),
    FIELD_NONE(struct pc, testdev),
    FIELD_STRUCTS(struct pc, line, line_table),
    FIELD(struct pc, hpet_legacy),
    FIELD_NONE(struct pc, pci),
    FIELD_NONE(struct pc, host_bridge),
    FIELD_NONE(struct pc, isa_bridge),
    FIELD_NONE(struct pc, ide),
    FIELD_NONE(struct pc, pm),
    FIELD_NONE(struct pc, pm_pci),
    FIELD_NONE(struct pc, vga),
    FIELD_NONE(struct pc, vga_pci),
    FIELD_NONE(struct pc, rng),
    FIELD_NONE(struct pc, console),
    FIELD_NONE(struct pc, rng_fn),
    FIELD_NONE(struct pc, console_fn),
    FIELD_NONE(struct pc, vdisk),
    FIELD_NONE(struct pc, scsi),
    FIELD_NONE(struct pc, scsi_fn),
    FIELD_NONE(struct pc, nvme),
    FIELD_NONE(struct pc, ahci),
    FIELD_NONE(struct pc, place),
    FIELD_NONE(struct pc, cd_place),
    FIELD_NONE(struct pc, acpi),
    FIELD_NONE(struct pc, smbios),
};
static const struct field_table pc_table = FIELD_TABLE(struct pc, "pc", board_fields);

/* ---- the list ---- */

static void add_chips(struct pc *p, struct state_list *l)
{
    struct pc_part t[PC_MAX_PARTS];
    unsigned n = pc_parts_of(p, t);
    for (unsigned k = 0; k < n; k++) {
        unsigned same = 0; /* others of this name */
        for (unsigned i = 0; i < k; i++)
            same += !strcmp(t[i].desc->name, t[k].desc->name);
        if (t[k].desc->fields)
            state_add_part(l, t[k].desc->fields, t[k].dev, "%s %u", t[k].desc->name, same);
    }
    for (unsigned k = 0; k < p->spec->cpus; k++)
        state_add_part(l, &lapic_fields, &p->lapic[k].lapic, "lapic %u", k);
    state_add_part(l, vga_desc.fields, &p->vga, "vga");
}

/* A PCI function that embeds `struct pci_dev`. */
static void add_function(struct state_list *l, const struct field_table *t, void *dev,
                         const struct pci_dev *d)
{
    state_add_part(l, t, dev, "pci %02x.%u %s", d->devfn >> 3, d->devfn & 7, t->name);
}

/* The device behind a virtio function, then the function. */
static void add_virtio(struct state_list *l, const struct field_table *t, void *dev,
                       struct virtio_pci *fn)
{
    state_add_part(l, t, dev, "%s %02x.%u", t->name, fn->pci.devfn >> 3, fn->pci.devfn & 7);
    add_function(l, &virtio_pci_fields, fn, &fn->pci);
}

static void add_disks(struct pc *p, struct state_list *l)
{
    for (unsigned n = 0; n < SPEC_MAX_DISKS; n++) {
        if (p->vdisk[n].present)
            add_virtio(l, &virtio_blk_fields, &p->vdisk[n].dev, &p->vdisk[n].fn);
        if (p->nvme[n].pci.bus)
            add_function(l, &nvme_pci_fields, &p->nvme[n], &p->nvme[n].pci);
    }
    if (p->ahci.pci.bus)
        add_function(l, &ahci_pci_fields, &p->ahci, &p->ahci.pci);
    if (p->scsi.pool)
        add_virtio(l, &virtio_scsi_fields, &p->scsi, &p->scsi_fn);
}

void pc_state_list(struct pc *p, struct state_list *l)
{
    state_add_part(l, &pc_table, p, "pc");
    state_add_part(l, &apic_bus_fields, &p->apic_bus, "apic bus");
    state_add_part(l, &kvm_pv_fields, &p->kvm_pv, "kvm");
    state_add_part(l, &pci_bus_fields, &p->pci, "pci");
    add_chips(p, l);
    add_function(l, &i440fx_fields, &p->host_bridge, &p->host_bridge.pci);
    add_function(l, &piix3_fields, &p->isa_bridge, &p->isa_bridge.pci);
    add_function(l, &piix3_ide_fields, &p->ide, &p->ide.pci);
    add_function(l, &piix4pm_pci_fields, &p->pm_pci, &p->pm_pci.pci);
    add_function(l, &vga_pci_fields, &p->vga_pci, &p->vga_pci.pci);
    add_virtio(l, &virtio_console_fields, &p->console, &p->console_fn);
    add_virtio(l, &virtio_rng_fields, &p->rng, &p->rng_fn);
    add_disks(p, l);
    state_add_memory(l, (struct state_memory){.name = "ram",
                                              .host = p->ram->host,
                                              .len = p->ram->total,
                                              .fd = p->ram->fd,
                                              .mapped = p->ram->mapped});
    state_add_memory(l, (struct state_memory){
                            .name = "video", .host = p->vga.vram, .len = VGA_VRAM_SIZE, .fd = -1});
}

void pc_state_begin(struct pc *p)
{
    timerq_run(p->tq);
    timerq_idle(p->tq);
}
