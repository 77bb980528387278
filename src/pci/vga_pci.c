/* vga_pci.c - the VGA's PCI function. */
#include "pci/vga_pci.h"

static void reset(struct pci_dev *d)
{
    vga_desc.reset(CONTAINER_OF(d, struct vga_pci, pci)->vga);
}

static int add_resources(struct vga_pci *p, uint64_t rom_roff, uint64_t rom_size, struct error *e)
{
    struct pci_dev *d = &p->pci;
    int rc = pci_bar_add(d, 0, false, false, true, VGA_VRAM_SIZE, &vga_lfb_ops, p->vga, e);
    if (!rc)
        rc = pci_bar_add(d, 2, false, false, false, VGA_MMIO_SIZE, &vga_mmio_ops, p->vga, e);
    if (!rc && rom_size)
        rc = pci_rom_add(d, rom_roff, rom_size, e);
    return rc;
}

int vga_pci_init(struct vga_pci *p, struct pci_bus *b, unsigned devfn, struct vga *vga,
                 uint64_t rom_roff, uint64_t rom_size, struct error *e)
{
    static const struct pci_ids ids = {
        .vendor = 0x1234,
        .device = 0x1111,
        .subvendor = 0x1af4,
        .subdevice = 0x1100,
        .class_rev =
            0x03000002, /* VGA-compatible controller; revision 2: BAR 2 has VBE registers */
    };
    p->vga = vga;
    int rc = pci_dev_init(b, &p->pci, "vga", devfn, &ids, e);
    if (rc)
        return rc;
    rc = add_resources(p, rom_roff, rom_size, e);
    if (rc) {
        pci_dev_fini(&p->pci);
        return rc;
    }
    p->pci.reset = reset;
    return 0;
}

static const struct field fields[] = {
    FIELD_STRUCT(struct vga_pci, pci, pci_dev_fields),
    FIELD_NONE(struct vga_pci, vga), /* a chip of the board */
};
const struct field_table vga_pci_fields = FIELD_TABLE(struct vga_pci, "vga_pci", fields);
