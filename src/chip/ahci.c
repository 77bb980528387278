/* ahci.c - the AHCI controller's own registers, its interrupt, its reset. Clauses are AHCI 1.3.1's.
 */
#include "chip/ahci.h"

#include <stdlib.h>
#include <string.h>

#include "chip/ahci_core.h"
#include "chip/ide_core.h"

/* Registers, 3.1. */
enum { H_CAP = 0x00, H_GHC = 0x04, H_IS = 0x08, H_PI = 0x0c, H_VS = 0x10 };
#define PORT_BASE 0x100u
#define PORT_LEN  0x80u

#define CAP_NCS   ((AHCI_SLOTS - 1u) << 8)
#define CAP_PMD   (1u << 15)
#define CAP_SAM   (1u << 18) /* there is no other interface */
#define CAP_GEN3  (3u << 20)
#define CAP_SCLO  (1u << 24)
#define CAP_SNCQ  (1u << 30)
#define CAP_S64A  (1u << 31)
#define VERSION   0x00010301u
#define ALL_PORTS ((1u << AHCI_PORTS) - 1)

#define GHC_HR 0x01u
#define GHC_IE 0x02u
#define GHC_AE 0x80000000u

/* 10.7.2: a bit of IS is set while its port has an enabled event. */
void ahci_update_irq(struct ahci *h)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct ahci_port *p = &h->port[i];
        if (ahci_port_read(p, 0x10) & p->ie)
            h->is |= 1u << i;
    }
    pin_set(&h->irq, h->is && (h->ghc & GHC_IE));
}

/* ---- resets ---- */

static unsigned inflight(const struct ahci *h)
{
    unsigned n = 0;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        n += h->port[i].inflight;
    return n;
}

static void ready(struct ahci *h)
{
    h->resetting = false;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        ahci_port_ready(&h->port[i]);
}

static void reset(struct ahci *h)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        ahci_port_reset(&h->port[i]);
    h->ghc = h->is = 0;
    h->resetting = inflight(h) != 0;
    if (!h->resetting)
        ready(h);
    ahci_update_irq(h);
}

void ahci_drained(struct ahci *h)
{
    if (h->resetting) {
        if (!inflight(h))
            ready(h);
        return;
    }
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        if (!h->port[i].inflight)
            ahci_port_ready(&h->port[i]);
}

void ahci_power_on(struct ahci *h)
{
    h->dma = false;
    reset(h);
}

void ahci_set_dma(struct ahci *h, bool on)
{
    h->dma = on;
    for (unsigned i = 0; on && i < AHCI_PORTS; i++)
        ahci_port_run(&h->port[i]);
}

/* ---- registers ---- */

static uint32_t host_read(const struct ahci *h, unsigned reg)
{
    switch (reg) {
    case H_CAP:
        return (AHCI_PORTS - 1) | CAP_NCS | CAP_PMD | CAP_SAM | CAP_GEN3 | CAP_SCLO | CAP_SNCQ |
               CAP_S64A;
    case H_GHC:
        return GHC_AE | h->ghc | (h->resetting ? GHC_HR : 0);
    case H_IS:
        return h->is;
    case H_PI:
        return ALL_PORTS;
    case H_VS:
        return VERSION;
    default:
        return 0;
    }
}

static void host_write(struct ahci *h, unsigned reg, uint32_t val)
{
    if (reg == H_GHC && (val & GHC_HR))
        reset(h);
    else if (reg == H_GHC)
        h->ghc = val & GHC_IE;
    else if (reg == H_IS)
        h->is &= ~val;
    ahci_update_irq(h);
}

static uint64_t bar_read(void *dev, uint64_t off, unsigned size)
{
    struct ahci *h = dev;
    if (off < PORT_BASE)
        return host_read(h, (unsigned)off);
    uint64_t n = (off - PORT_BASE) / PORT_LEN;
    return n < AHCI_PORTS ? ahci_port_read(&h->port[n], (unsigned)(off % PORT_LEN)) : 0;
}

static void bar_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct ahci *h = dev;
    uint64_t n = (off - PORT_BASE) / PORT_LEN;
    if (off < PORT_BASE)
        host_write(h, (unsigned)off, (uint32_t)val);
    else if (n < AHCI_PORTS)
        ahci_port_write(&h->port[n], (unsigned)(off % PORT_LEN), (uint32_t)val);
}

const struct io_ops ahci_ops = {"ahci", 4, bar_read, bar_write};

/* ---- set-up ---- */

int ahci_init(struct ahci *h, struct space *mem, struct pin irq, struct error *e)
{
    *h = (struct ahci){.mem = mem, .irq = irq};
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct ahci_port *p = &h->port[i];
        int rc = ide_init(&p->ide, (struct pin){0}, e);
        if (rc) {
            ahci_fini(h);
            return rc;
        }
        ahci_port_init(p, h, i);
    }
    reset(h);
    return 0;
}

void ahci_fini(struct ahci *h)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        ide_fini(&h->port[i].ide);
        free(h->port[i].ncq);
        h->port[i].ncq = NULL;
    }
}

int ahci_attach_disk(struct ahci *h, unsigned port, struct blk *blk, const char *model,
                     const char *serial, struct error *e)
{
    struct ahci_port *p = &h->port[port];
    p->ncq = calloc(AHCI_SLOTS, sizeof *p->ncq);
    if (!p->ncq)
        return error_set(e, ERR_NOMEM, "out of memory");
    for (unsigned i = 0; i < AHCI_SLOTS; i++) {
        p->ncq[i].port = p;
        p->ncq[i].slot = i;
    }
    p->ide.drive[0].sata = true;
    ide_attach_disk(&p->ide, 0, blk, model, serial);
    ahci_port_reset(p);
    ahci_port_ready(p);
    return 0;
}

void ahci_attach_cdrom(struct ahci *h, unsigned port, struct blk *blk, const char *model,
                       const char *serial)
{
    struct ahci_port *p = &h->port[port];
    p->ide.drive[0].sata = true;
    ide_attach_cdrom(&p->ide, 0, blk, model, serial);
    ahci_port_reset(p);
    ahci_port_ready(p);
}

static const struct field fields[] = {
    FIELD_NONE(struct ahci, mem),           FIELD_NONE(struct ahci, irq),
    FIELD(struct ahci, ghc, .max = GHC_IE), FIELD(struct ahci, is),
    FIELD_NONE(struct ahci, dma), /* of the bus: ahci_pci.c */
    FIELD_NONE(struct ahci, resetting),     FIELD_STRUCTS(struct ahci, port, ahci_port_fields),
};
const struct field_table ahci_fields = FIELD_TABLE(struct ahci, "ahci", fields);
