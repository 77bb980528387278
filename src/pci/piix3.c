/* piix3.c - the ISA bridge: PIRQ routing (2.2.6, PIRQRC[A:D]) and reset control (2.5.6.2, RC). */
#include "pci/piix3.h"

#include <string.h>

#include "base/endian.h"
#include "pci/config.h"

#define PIRQRC         0x60
#define PIRQRC_DISABLE 0x80
#define PIRQRC_IRQ     0x0f
#define ROUTABLE       0xdef8u /* IRQ 3-7, 9-12, 14, 15; the others are reserved */

#define RC_HARD  0x02
#define RC_RESET 0x04

/* The ISA interrupts that should be high now. */
static uint16_t wanted(const struct piix3 *p)
{
    uint16_t lines = 0;
    for (unsigned i = 0; i < PIIX3_PIRQS; i++) {
        uint8_t route = p->pci.cfg[PIRQRC + i];
        if (p->count[i] && !(route & PIRQRC_DISABLE))
            lines |= (uint16_t)(1u << (route & PIRQRC_IRQ));
    }
    return lines & ROUTABLE;
}

static void drive(struct piix3 *p)
{
    uint16_t lines = wanted(p), diff = lines ^ p->driven;
    p->driven = lines;
    for (unsigned irq = 0; irq < 16; irq++)
        if (((diff >> irq) & 1) && p->set_irq)
            p->set_irq(p->ctx, irq, (lines >> irq) & 1);
}

void piix3_intx(struct piix3 *p, unsigned devfn, unsigned pin, bool level)
{
    uint8_t *asserted = &p->asserted[devfn & 0xff], bit = (uint8_t)(1u << (pin & 3));
    if (!!(*asserted & bit) == level)
        return;
    *asserted ^= bit;
    unsigned *count = &p->count[piix3_pirq(devfn, pin)];
    *count += level ? 1u : -1u;
    drive(p);
}

static void written(struct pci_dev *d, unsigned off, unsigned len)
{
    if (off < PIRQRC + PIIX3_PIRQS && off + len > PIRQRC)
        drive(CONTAINER_OF(d, struct piix3, pci));
}

static void reset(struct pci_dev *d)
{
    struct piix3 *p = CONTAINER_OF(d, struct piix3, pci);
    memset(&d->cfg[PIRQRC], PIRQRC_DISABLE, PIIX3_PIRQS);
    d->cfg[0x4c] = 0x4d; /* IORT: ISA I/O recovery timer */
    d->cfg[0x4e] = 0x03; /* XBCS: RTC and keyboard controller are on the X-bus */
    d->cfg[0x69] = 0x02; /* TOM: top of memory for ISA masters */
    p->reset_control = 0;
    drive(p);
}

static uint64_t rc_read(void *dev, uint64_t off, unsigned size)
{
    const struct piix3 *p = dev;
    return p->reset_control;
}

/* A reset starts when RCPU goes from 0 to 1. Hard and soft resets are the same here: both reset
 * all. */
static void rc_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct piix3 *p = dev;
    bool rises = (val & RC_RESET) && !(p->reset_control & RC_RESET);
    p->reset_control = val & (RC_HARD | RC_RESET);
    if (rises && p->reset_request)
        p->reset_request(p->ctx);
}

static const struct io_ops rc_ops = {"piix3 reset control", 1, rc_read, rc_write};

int piix3_init(struct piix3 *p, struct pci_bus *b, unsigned devfn, struct error *e)
{
    static const struct pci_ids ids = {
        .vendor = 0x8086,
        .device = 0x7000,
        .class_rev = 0x06010000, /* ISA bridge */
        .header_type = 0x80,     /* more functions follow */
    };
    *p = (struct piix3){.driven = 0};
    int rc = pci_dev_init(b, &p->pci, "piix3", devfn, &ids, e);
    if (rc)
        return rc;
    /* I/O, memory and mastering are hardwired on; medium DEVSEL. */
    store_le16(&p->pci.cfg[PCI_COMMAND], PCI_CMD_IO | PCI_CMD_MEM | PCI_CMD_MASTER);
    store_le16(&p->pci.wmask[PCI_COMMAND], PCI_CMD_SERR);
    store_le16(&p->pci.cfg[PCI_STATUS], 0x0200);
    memset(&p->pci.wmask[PIRQRC], PIRQRC_DISABLE | PIRQRC_IRQ, PIIX3_PIRQS);
    p->pci.wmask[0x4c] = 0x7f;
    p->pci.wmask[0x4e] = 0xff;
    p->pci.wmask[0x4f] = 0x01;
    p->pci.wmask[0x69] = 0xfe;
    p->pci.written = written;
    p->pci.reset = reset;
    b->cf9 = &rc_ops;
    b->cf9_dev = p;
    reset(&p->pci);
    return 0;
}

/* ---- state ---- */

static int post_load(void *dev, struct error *e)
{
    struct piix3 *p = dev;
    for (unsigned i = 0; i < PIIX3_PIRQS; i++)
        p->count[i] = 0;
    for (unsigned devfn = 0; devfn < ARRAY_LEN(p->asserted); devfn++)
        for (unsigned pin = 0; pin < 4; pin++)
            p->count[piix3_pirq(devfn, pin)] += p->asserted[devfn] >> pin & 1;
    return 0;
}

static const struct field fields[] = {
    FIELD_STRUCT(struct piix3, pci, pci_dev_fields),
    FIELD(struct piix3, reset_control, .max = RC_HARD | RC_RESET),
    FIELD_ARRAY(struct piix3, asserted, .max = 15),
    FIELD_NONE(struct piix3, count), /* of what is asserted */
    FIELD(struct piix3, driven),
    FIELD_NONE(struct piix3, set_irq),
    FIELD_NONE(struct piix3, reset_request),
    FIELD_NONE(struct piix3, ctx),
};
const struct field_table piix3_fields =
    FIELD_TABLE(struct piix3, "piix3", fields, .post_load = post_load);
