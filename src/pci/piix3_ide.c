/*
 * piix3_ide.c - the IDE function: decoding of the legacy ports, and bus mastering.
 *
 * A list of physical region descriptors is guest data. Each entry is read once and carries at least
 * two bytes, so that a transfer of n bytes reads n/2 entries at most, whatever the list says; one
 * that never ends is left behind when the drive has no more data.
 */
#include "pci/piix3_ide.h"

#include <string.h>

#include "base/endian.h"
#include "pci/config.h"

#define IDETIM        0x40 /* one word for each channel */
#define IDETIM_DECODE 0x80 /* in its upper byte: the ports are decoded */

#define BM_START    0x01u
#define BM_TO_GUEST 0x08u /* RWCON: the bus master writes memory */

#define BM_ACTIVE    0x01u
#define BM_ERROR     0x02u
#define BM_INTERRUPT 0x04u
#define BM_DRIVE_DMA 0x60u /* free for software: drive n is set up for DMA */

#define PRD_END 0x80000000u
#define PRD_MAX 0x10000u

/* ---- scatter-gather ---- */

static void stop_with_error(struct bmide *bm)
{
    bm->status |= BM_ERROR;
    bm->status &= (uint8_t)~BM_ACTIVE;
}

/* Address and count are even, a count of zero means 64 KiB (rev. 1.0, 1.2). */
static void load_entry(struct bmide *bm)
{
    uint8_t raw[8];
    dma_read(bm->owner->pci.bus->mem, bm->next, raw, sizeof raw);
    uint32_t word = load_le32(raw + 4);
    bm->next += sizeof raw;
    bm->addr = load_le32(raw) & ~1u;
    bm->count = word & 0xfffe;
    if (!bm->count)
        bm->count = PRD_MAX;
    bm->last = word & PRD_END;
}

/* Carries up to n bytes at the cursor, not across 4 GiB; returns how many. */
static uint32_t carry(struct bmide *bm, uint8_t *buf, size_t n, bool to_guest)
{
    struct space *mem = bm->owner->pci.bus->mem;
    uint64_t len = min_u64(min_u64(n, bm->count), 4 * GIB - bm->addr);
    bool ok = to_guest ? dma_write(mem, bm->addr, buf, len) : dma_read(mem, bm->addr, buf, len);
    if (!ok)
        bm->status |= BM_ERROR; /* not memory: the transfer goes on, the guest is told */
    bm->addr += (uint32_t)len;
    bm->count -= (uint32_t)len;
    return (uint32_t)len;
}

static size_t move(void *ctx, uint8_t *buf, size_t n, bool to_guest)
{
    struct bmide *bm = ctx;
    size_t done = 0;
    if (!pci_bus_master(&bm->owner->pci) || !!(bm->command & BM_TO_GUEST) != to_guest) {
        stop_with_error(bm);
        return 0;
    }
    while (done < n && (bm->status & BM_ACTIVE)) {
        if (!bm->count)
            load_entry(bm);
        done += carry(bm, buf + done, n - done, to_guest);
        if (!bm->count && bm->last)
            bm->status &= (uint8_t)~BM_ACTIVE;
    }
    return done;
}

/* INTRQ of a channel. The status bit follows its rising edge only, until software clears it. */
static void on_intrq(void *ctx, unsigned line, bool level)
{
    struct piix3_ide *p = ctx;
    struct bmide *bm = &p->channel[line];
    if (level && !bm->intrq)
        bm->status |= BM_INTERRUPT;
    bm->intrq = level;
    pin_set(&bm->irq, level);
}

/* ---- bus master registers: 8 for each channel ---- */

static void command_write(struct bmide *bm, uint8_t val)
{
    uint8_t was = bm->command;
    bm->command = val & (BM_START | BM_TO_GUEST);
    if (val & ~was & BM_START) {
        bm->status |= BM_ACTIVE;
        bm->next = bm->table;
        bm->count = 0;
        bm->last = false;
        ide_dma_start(&bm->ide);
    } else if (was & ~val & BM_START) {
        bm->status &= (uint8_t)~BM_ACTIVE;
        ide_dma_stop(&bm->ide);
    }
}

static void status_write(struct bmide *bm, uint8_t val)
{
    bm->status &= (uint8_t) ~(val & (BM_ERROR | BM_INTERRUPT));
    bm->status = (uint8_t)((bm->status & ~BM_DRIVE_DMA) | (val & BM_DRIVE_DMA));
}

static uint8_t reg_read(const struct bmide *bm, unsigned reg)
{
    switch (reg) {
    case 0:
        return bm->command;
    case 2:
        return bm->status;
    case 4:
    case 5:
    case 6:
    case 7:
        return (uint8_t)(bm->table >> (8 * (reg - 4)));
    default:
        return 0;
    }
}

static void reg_write(struct bmide *bm, unsigned reg, uint8_t val)
{
    switch (reg) {
    case 0:
        command_write(bm, val);
        break;
    case 2:
        status_write(bm, val);
        break;
    case 4:
    case 5:
    case 6:
    case 7: {
        unsigned shift = 8 * (reg - 4);
        bm->table = ((bm->table & ~(0xffu << shift)) | (uint32_t)val << shift) & ~3u;
        break;
    }
    default:
        break;
    }
}

static uint64_t bar_read(void *dev, uint64_t off, unsigned size)
{
    const struct piix3_ide *p = dev;
    return reg_read(&p->channel[(off >> 3) & 1], off & 7);
}

static void bar_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct piix3_ide *p = dev;
    reg_write(&p->channel[(off >> 3) & 1], off & 7, (uint8_t)val);
}

/* Bytes: the registers have side effects byte by byte, and wider accesses are rare. */
static const struct io_ops bm_ops = {"bus master ide", 1, bar_read, bar_write};

/* ---- configuration ---- */

static const struct {
    uint16_t command, control;
} legacy[2] = {{0x1f0, 0x3f6}, {0x170, 0x376}};

static void update_decode(struct piix3_ide *p)
{
    struct space *port = p->pci.bus->port;
    space_begin(port);
    for (unsigned i = 0; i < 2; i++) {
        bool on = p->pci.cfg[IDETIM + 2 * i + 1] & IDETIM_DECODE;
        space_move(port, p->channel[i].command_region, legacy[i].command, on);
        space_move(port, p->channel[i].control_region, legacy[i].control, on);
    }
    space_commit(port);
}

static void written(struct pci_dev *d, unsigned off, unsigned len)
{
    if (off < IDETIM + 4 && off + len > IDETIM)
        update_decode(CONTAINER_OF(d, struct piix3_ide, pci));
}

/* The decode bits are clear after reset on the real part; here both channels answer, because a
 * kernel that is started without firmware finds nobody who sets them. */
static void reset(struct pci_dev *d)
{
    struct piix3_ide *p = CONTAINER_OF(d, struct piix3_ide, pci);
    memset(&d->cfg[IDETIM], 0, 5);
    for (unsigned i = 0; i < 2; i++) {
        struct bmide *bm = &p->channel[i];
        d->cfg[IDETIM + 2 * i + 1] = IDETIM_DECODE;
        ide_reset(&bm->ide);
        bm->command = bm->status = 0;
        bm->table = bm->next = bm->addr = bm->count = 0;
        bm->last = false;
    }
    update_decode(p);
}

static int init_channel(struct piix3_ide *p, unsigned i, struct pin irq, struct error *e)
{
    struct bmide *bm = &p->channel[i];
    struct space *port = p->pci.bus->port;
    bm->owner = p;
    bm->irq = irq;
    int rc = ide_init(&bm->ide, (struct pin){on_intrq, p, i}, e);
    if (!rc)
        rc = space_add_io(port, legacy[i].command, 8, &ide_command_ops, &bm->ide, 0,
                          &bm->command_region, e);
    if (!rc)
        rc = space_add_io(port, legacy[i].control, 1, &ide_control_ops, &bm->ide, 0,
                          &bm->control_region, e);
    bm->ide.dma = (struct ide_dma){move, bm};
    return rc;
}

int piix3_ide_init(struct piix3_ide *p, struct pci_bus *b, unsigned devfn, struct pin irq14,
                   struct pin irq15, struct error *e)
{
    static const struct pci_ids ids = {
        .vendor = 0x8086, .device = 0x7010, .class_rev = 0x01018000, /* IDE, legacy, bus master */
    };
    *p = (struct piix3_ide){.pci = {.bus = NULL}};
    int rc = pci_dev_init(b, &p->pci, "piix3-ide", devfn, &ids, e);
    if (rc)
        return rc;
    store_le16(&p->pci.wmask[PCI_COMMAND], PCI_CMD_IO | PCI_CMD_MASTER);
    store_le16(&p->pci.cfg[PCI_STATUS], 0x0280); /* medium DEVSEL, fast back-to-back */
    memset(&p->pci.wmask[IDETIM], 0xff, 5);      /* IDETIM, SIDETIM */
    rc = pci_bar_add(&p->pci, 4, true, false, false, 16, &bm_ops, p, e);
    if (!rc)
        rc = init_channel(p, 0, irq14, e);
    if (!rc)
        rc = init_channel(p, 1, irq15, e);
    if (rc) {
        piix3_ide_fini(p);
        return rc;
    }
    p->pci.written = written;
    p->pci.reset = reset;
    reset(&p->pci);
    return 0;
}

void piix3_ide_fini(struct piix3_ide *p)
{
    for (unsigned i = 0; i < 2; i++)
        ide_fini(&p->channel[i].ide);
    pci_dev_fini(&p->pci);
}

/* ---- state ---- */

static int post_load(void *dev, struct error *e)
{
    update_decode(dev);
    return 0;
}

static const struct field channel_fields[] = {
    FIELD_STRUCT(struct bmide, ide, ide_fields),
    FIELD_NONE(struct bmide, owner),
    FIELD_NONE(struct bmide, irq),
    FIELD_NONE(struct bmide, command_region),
    FIELD_NONE(struct bmide, control_region),
    FIELD(struct bmide, intrq),
    FIELD(struct bmide, command, .max = BM_START | BM_TO_GUEST),
    FIELD(struct bmide, status),
    FIELD(struct bmide, table),
    FIELD(struct bmide, next),
    FIELD(struct bmide, addr),
    FIELD(struct bmide, count, .max = PRD_MAX),
    FIELD(struct bmide, last),
};
static const struct field_table channel_table = FIELD_TABLE(struct bmide, "bmide", channel_fields);

static const struct field fields[] = {
    FIELD_STRUCT(struct piix3_ide, pci, pci_dev_fields),
    FIELD_STRUCTS(struct piix3_ide, channel, channel_table),
};
const struct field_table piix3_ide_fields =
    FIELD_TABLE(struct piix3_ide, "piix3_ide", fields, .post_load = post_load);
