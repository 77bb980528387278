/*
 * piix4pm_pci.c - function 3 of the PIIX4: where the ACPI and SMBus ports lie.
 */
#include "pci/piix4pm_pci.h"

#include "base/endian.h"
#include "pci/config.h"

#define PMBA      0x40
#define DEVACTB   0x58
#define PMREGMISC 0x80
#define SMBBA     0x90
#define SMBHSTCFG 0xd2

#define PMBA_MASK  0xffc0u
#define SMBBA_MASK 0xfff0u
#define BASE_IO    1u /* hardwired: I/O space */

/* APMC_EN, SMI on writes to the APM control port. Set from the start: it tells firmware that SMM
 * was set up before, so that it does not try to install a handler on a machine without SMM. */
#define DEVACTB_APMC_EN (1u << 25)

static void remap(struct piix4pm_pci *p)
{
    const uint8_t *cfg = p->pci.cfg;
    struct space *port = p->pci.bus->port;
    uint32_t pm = load_le32(&cfg[PMBA]) & PMBA_MASK, smb = load_le32(&cfg[SMBBA]) & SMBBA_MASK;
    space_begin(port);
    space_move(port, p->pm_region, pm, pm && (cfg[PMREGMISC] & 1));
    space_move(port, p->smb_region, smb, smb && (cfg[SMBHSTCFG] & 1));
    space_commit(port);
}

static void written(struct pci_dev *d, unsigned off, unsigned len)
{
    remap(CONTAINER_OF(d, struct piix4pm_pci, pci));
}

static void reset(struct pci_dev *d)
{
    struct piix4pm_pci *p = CONTAINER_OF(d, struct piix4pm_pci, pci);
    store_le32(&d->cfg[PMBA], BASE_IO);
    store_le32(&d->cfg[DEVACTB], DEVACTB_APMC_EN);
    d->cfg[PMREGMISC] = 0;
    store_le32(&d->cfg[SMBBA], BASE_IO);
    d->cfg[SMBHSTCFG] = 0;
    piix4pm_reset(p->pm);
    piix4smb_reset(&p->smb);
    remap(p);
}

static int add_ports(struct piix4pm_pci *p, struct error *e)
{
    struct space *port = p->pci.bus->port;
    int rc =
        space_add_io(port, 0, PIIX4PM_SIZE, &piix4pm_ops, p->pm, PCI_BAR_PRIO, &p->pm_region, e);
    if (rc)
        return rc;
    space_move(port, p->pm_region, 0, false);
    rc = space_add_io(port, 0, PIIX4SMB_SIZE, &piix4smb_ops, &p->smb, PCI_BAR_PRIO, &p->smb_region,
                      e);
    if (!rc)
        space_move(port, p->smb_region, 0, false);
    return rc;
}

int piix4pm_pci_init(struct piix4pm_pci *p, struct pci_bus *b, unsigned devfn, struct piix4pm *pm,
                     struct error *e)
{
    static const struct pci_ids ids = {
        .vendor = 0x8086,
        .device = 0x7113,
        .class_rev = 0x06800003, /* other bridge; revision 3 */
        .intx_pin = 1,           /* in name only: the SCI is wired to interrupt 9 */
    };
    *p = (struct piix4pm_pci){.pm = pm};
    int rc = pci_dev_init(b, &p->pci, "piix4pm", devfn, &ids, e);
    if (rc)
        return rc;
    rc = add_ports(p, e);
    if (rc)
        return error_prefix(e, "piix4pm");
    store_le16(&p->pci.cfg[PCI_STATUS], 0x0280); /* medium DEVSEL, fast back-to-back */
    store_le32(&p->pci.wmask[PMBA], PMBA_MASK);
    store_le32(&p->pci.wmask[DEVACTB], 0xffffffff);
    p->pci.wmask[PMREGMISC] = 1;
    store_le32(&p->pci.wmask[SMBBA], SMBBA_MASK);
    p->pci.wmask[SMBHSTCFG] = 0x0f;
    p->pci.written = written;
    p->pci.reset = reset;
    reset(&p->pci);
    return 0;
}

void piix4pm_pci_program(struct piix4pm_pci *p, uint16_t pm_base)
{
    uint8_t *cfg = p->pci.cfg;
    store_le32(&cfg[PMBA], (pm_base & PMBA_MASK) | BASE_IO);
    cfg[PMREGMISC] = 1;
    store_le32(&cfg[SMBBA], ((pm_base + 0x100u) & SMBBA_MASK) | BASE_IO);
    cfg[SMBHSTCFG] = 0x09;
    cfg[PCI_INT_LINE] = 9;
    remap(p);
}

/* ---- state ---- */

static int post_load(void *dev, struct error *e)
{
    remap(dev);
    return 0;
}

static const struct field fields[] = {
    FIELD_STRUCT(struct piix4pm_pci, pci, pci_dev_fields),
    FIELD_NONE(struct piix4pm_pci, pm), /* a chip of the board */
    FIELD_STRUCT(struct piix4pm_pci, smb, piix4smb_fields),
    FIELD_NONE(struct piix4pm_pci, pm_region),
    FIELD_NONE(struct piix4pm_pci, smb_region),
};
const struct field_table piix4pm_pci_fields =
    FIELD_TABLE(struct piix4pm_pci, "piix4pm_pci", fields, .post_load = post_load);
