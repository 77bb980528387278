/*
 * pci.c - the bus: configuration mechanism #1, headers, BARs, capabilities and INTx.
 * Source: PCI Local Bus Specification 3.0, 3.2.2.3.2 (mechanism #1) and chapter 6.
 */
#include "pci/pci.h"

#include <string.h>

#include "base/endian.h"
#include "pci/config.h"
#include "pci/msix.h"

static bool overlaps(unsigned off, unsigned len, unsigned first, unsigned end)
{
    return off < end && off + len > first;
}

static uint16_t command(const struct pci_dev *d)
{
    return load_le16(&d->cfg[PCI_COMMAND]);
}

/* ---- BARs ---- */

/* Where the guest put BAR n. Zero is how firmware says "not assigned" (6.2.5.1). */
static uint64_t bar_address(const struct pci_dev *d, unsigned n)
{
    const struct pci_bar *bar = &d->bar[n];
    uint64_t addr = load_le32(&d->cfg[PCI_BAR0 + 4 * n]);
    if (bar->wide)
        addr |= (uint64_t)load_le32(&d->cfg[PCI_BAR0 + 4 * n + 4]) << 32;
    return addr & ~(bar->size - 1);
}

/* Makes the address maps agree with the BARs and the command register. */
static void remap(struct pci_dev *d)
{
    struct pci_bus *b = d->bus;
    uint16_t cmd = command(d);
    space_begin(b->mem);
    space_begin(b->port);
    for (unsigned n = 0; n < PCI_NUM_BARS; n++) {
        const struct pci_bar *bar = &d->bar[n];
        if (!bar->size)
            continue;
        uint64_t addr = bar_address(d, n);
        bool on = addr && (cmd & (bar->port ? PCI_CMD_IO : PCI_CMD_MEM));
        space_move(bar->port ? b->port : b->mem, bar->region, addr, on);
    }
    if (d->rom.size) {
        uint32_t reg = load_le32(&d->cfg[PCI_ROM]);
        uint64_t addr = reg & ~(d->rom.size - 1);
        bool on = addr && (reg & PCI_ROM_ENABLE) && (cmd & PCI_CMD_MEM);
        space_move(b->mem, d->rom.region, addr, on);
    }
    space_commit(b->port);
    space_commit(b->mem);
}

static bool power_of_two(uint64_t v)
{
    return v && !(v & (v - 1));
}

static int bar_check(const struct pci_dev *d, unsigned n, bool port, bool wide, uint64_t size,
                     struct error *e)
{
    unsigned slots = wide ? 2 : 1;
    if (n + slots > PCI_NUM_BARS || (port && wide))
        return error_set(e, ERR_LIMIT, "%s: there is no BAR %u of this type", d->name, n);
    for (unsigned i = n; i < n + slots; i++)
        if (load_le32(&d->wmask[PCI_BAR0 + 4 * i]))
            return error_set(e, ERR_BUSY, "%s: BAR %u is taken", d->name, i);
    if (!power_of_two(size) || size < (port ? 4 : 16) || (!wide && size > 2 * GIB))
        return error_set(e, ERR_LIMIT, "%s: BAR %u cannot have 0x%llx bytes", d->name, n,
                         (unsigned long long)size);
    return 0;
}

int pci_bar_add(struct pci_dev *d, unsigned n, bool port, bool wide, bool prefetch, uint64_t size,
                const struct io_ops *ops, void *dev, struct error *e)
{
    int rc = bar_check(d, n, port, wide, size, e);
    if (rc)
        return rc;
    struct pci_bar *bar = &d->bar[n];
    struct space *s = port ? d->bus->port : d->bus->mem;
    space_begin(s);
    rc = space_add_io(s, 0, size, ops, dev, PCI_BAR_PRIO, &bar->region, e);
    if (!rc)
        space_move(s, bar->region, 0, false);
    space_commit(s);
    if (rc)
        return error_prefix(e, "%s: BAR %u", d->name, n);

    bar->size = size;
    bar->port = port;
    bar->wide = wide;
    bar->prefetch = prefetch;
    unsigned off = PCI_BAR0 + 4 * n;
    store_le32(&d->cfg[off], (port ? PCI_BAR_PORT : 0u) | (wide ? PCI_BAR_64 : 0u) |
                                 (prefetch ? PCI_BAR_PREFETCH : 0u));
    store_le32(&d->wmask[off], (uint32_t) ~(size - 1));
    if (wide)
        store_le32(&d->wmask[off + 4], (uint32_t)(~(size - 1) >> 32));
    return 0;
}

int pci_rom_add(struct pci_dev *d, uint64_t roff, uint64_t size, struct error *e)
{
    if (!power_of_two(size) || size < 2 * KIB || size > 16 * MIB || d->rom.size)
        return error_set(e, ERR_LIMIT, "%s: cannot have an expansion ROM of 0x%llx bytes", d->name,
                         (unsigned long long)size);
    struct space *s = d->bus->mem;
    space_begin(s);
    int rc = space_add_rom(s, 0, size, roff, PCI_BAR_PRIO, &d->rom.region, e);
    if (!rc)
        space_move(s, d->rom.region, 0, false);
    space_commit(s);
    if (rc)
        return error_prefix(e, "%s: expansion ROM", d->name);
    d->rom.size = size;
    d->rom_roff = roff;
    store_le32(&d->wmask[PCI_ROM], (uint32_t) ~(size - 1) | PCI_ROM_ENABLE);
    return 0;
}

/* ---- INTx ---- */

static void drive_intx(const struct pci_dev *d, bool level)
{
    const struct pci_bus *b = d->bus;
    unsigned pin = d->cfg[PCI_INT_PIN];
    if (pin && b->intx)
        b->intx(b->ctx, d->devfn, pin - 1, level);
}

void pci_intx_set(struct pci_dev *d, bool level)
{
    if (level == d->intx_level)
        return;
    d->intx_level = level;
    if (level)
        d->cfg[PCI_STATUS] |= PCI_ST_INTX;
    else
        d->cfg[PCI_STATUS] &= (uint8_t)~PCI_ST_INTX;
    if (!(command(d) & PCI_CMD_INTX_OFF))
        drive_intx(d, level);
}

/* ---- configuration space ---- */

static void command_changed(struct pci_dev *d, uint16_t old)
{
    uint16_t diff = old ^ command(d);
    if ((diff & PCI_CMD_INTX_OFF) && d->intx_level)
        drive_intx(d, !(command(d) & PCI_CMD_INTX_OFF));
}

/* off is a multiple of size, off + size <= 256. */
static void config_write(struct pci_dev *d, unsigned off, uint32_t val, unsigned size)
{
    uint16_t old = command(d);
    for (unsigned i = 0; i < size; i++) {
        uint8_t v = (uint8_t)(val >> (8 * i)), *reg = &d->cfg[off + i], w = d->wmask[off + i];
        *reg = (uint8_t)((*reg & ~w) | (v & w));
        *reg &= (uint8_t) ~(v & d->w1c[off + i]);
    }
    if (overlaps(off, size, PCI_COMMAND, PCI_COMMAND + 2) ||
        overlaps(off, size, PCI_BAR0, PCI_BAR0 + 4 * PCI_NUM_BARS) ||
        overlaps(off, size, PCI_ROM, PCI_ROM + 4))
        remap(d);
    command_changed(d, old);
    if (d->msix)
        msix_update(d->msix);
    if (d->written)
        d->written(d, off, size);
}

static uint32_t config_read(struct pci_dev *d, unsigned off, unsigned size)
{
    uint32_t val;
    if (d->cfg_read_hook && d->cfg_read_hook(d, off, size, &val))
        return val;
    val = 0;
    for (unsigned i = 0; i < size; i++)
        val |= (uint32_t)d->cfg[off + i] << (8 * i);
    return val;
}

/* ---- configuration mechanism #1 ---- */

#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_BITS   0x80fffffcu /* enable, bus, device, function, register */

/* The function that CONFIG_ADDRESS names, or NULL. */
static struct pci_dev *addressed(const struct pci_bus *b)
{
    if (!(b->address & ADDRESS_ENABLE) || ((b->address >> 16) & 0xff))
        return NULL;
    return b->dev[(b->address >> 8) & 0xff];
}

static uint64_t address_read(void *dev, uint64_t off, unsigned size)
{
    const struct pci_bus *b = dev;
    if (size == 4)
        return b->address;
    if (size == 1 && off == 1 && b->cf9)
        return b->cf9->read(b->cf9_dev, 0, 1);
    return ~0ull;
}

static void address_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct pci_bus *b = dev;
    if (size == 4)
        b->address = (uint32_t)val & ADDRESS_BITS;
    else if (size == 1 && off == 1 && b->cf9)
        b->cf9->write(b->cf9_dev, 0, val, 1);
}

static uint64_t data_read(void *dev, uint64_t off, unsigned size)
{
    const struct pci_bus *b = dev;
    struct pci_dev *d = addressed(b);
    return d ? config_read(d, (b->address & 0xfc) | (unsigned)off, size) : ~0ull;
}

static void data_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    const struct pci_bus *b = dev;
    struct pci_dev *d = addressed(b);
    if (d)
        config_write(d, (b->address & 0xfc) | (unsigned)off, (uint32_t)val, size);
}

static const struct io_ops address_ops = {"pci address", 1 | 2 | 4, address_read, address_write};
static const struct io_ops data_ops = {"pci data", 1 | 2 | 4, data_read, data_write};

int pci_bus_init(struct pci_bus *b, struct space *mem, struct space *port, struct error *e)
{
    *b = (struct pci_bus){.mem = mem, .port = port};
    int rc = space_add_io(port, 0xcf8, 4, &address_ops, b, 0, NULL, e);
    return rc ? rc : space_add_io(port, 0xcfc, 4, &data_ops, b, 0, NULL, e);
}

/* 3.0, 2.2.1 (RST#): configuration registers go to their initial state. */
static void dev_reset(struct pci_dev *d)
{
    pci_intx_set(d, false);
    for (unsigned i = PCI_COMMAND; i < PCI_HEADER_END; i++)
        d->cfg[i] &= (uint8_t)~d->wmask[i];
    if (d->msix)
        msix_reset(d->msix);
    if (d->reset)
        d->reset(d);
    remap(d);
}

void pci_bus_reset(struct pci_bus *b)
{
    b->address = 0;
    space_begin(b->mem);
    space_begin(b->port);
    for (unsigned i = 0; i < ARRAY_LEN(b->dev); i++)
        if (b->dev[i])
            dev_reset(b->dev[i]);
    space_commit(b->port);
    space_commit(b->mem);
}

/* ---- functions ---- */

int pci_dev_init(struct pci_bus *b, struct pci_dev *d, const char *name, unsigned devfn,
                 const struct pci_ids *ids, struct error *e)
{
    *d = (struct pci_dev){.name = name, .cap_free = PCI_HEADER_END};
    if (devfn >= ARRAY_LEN(b->dev) || b->dev[devfn])
        return error_set(e, ERR_BUSY, "%s: PCI address %02x.%u is taken", name, devfn >> 3,
                         devfn & 7);
    d->bus = b;
    d->devfn = (uint8_t)devfn;
    store_le16(&d->cfg[PCI_VENDOR], ids->vendor);
    store_le16(&d->cfg[PCI_DEVICE], ids->device);
    store_le32(&d->cfg[PCI_CLASS_REV], ids->class_rev);
    d->cfg[PCI_HEADER_TYPE] = ids->header_type;
    store_le16(&d->cfg[PCI_SUBVENDOR], ids->subvendor);
    store_le16(&d->cfg[PCI_SUBDEVICE], ids->subdevice);
    d->cfg[PCI_INT_PIN] = ids->intx_pin;

    store_le16(&d->wmask[PCI_COMMAND], PCI_CMD_IO | PCI_CMD_MEM | PCI_CMD_MASTER | PCI_CMD_PARITY |
                                           PCI_CMD_SERR | PCI_CMD_INTX_OFF);
    d->wmask[PCI_CACHE_LINE] = 0xff;
    d->wmask[PCI_LATENCY] = 0xff;
    d->wmask[PCI_INT_LINE] = 0xff;
    b->dev[devfn] = d;
    return 0;
}

int pci_cap_add(struct pci_dev *d, uint8_t id, unsigned len, struct error *e)
{
    unsigned off = d->cap_free, room = off ? (unsigned)sizeof d->cfg - off : 0; /* 0: wrapped */
    unsigned need = (len + 3) & ~3u;
    if (len < 2 || len > sizeof d->cfg || need > room)
        return error_set(e, ERR_LIMIT, "%s: no room for a capability of %u bytes", d->name, len);
    if (d->cap_last)
        d->cfg[d->cap_last + 1] = (uint8_t)off;
    else
        d->cfg[PCI_CAP_PTR] = (uint8_t)off;
    d->cfg[off] = id;
    d->cfg[PCI_STATUS] |= PCI_ST_CAPS;
    d->cap_last = (uint8_t)off;
    d->cap_free = (uint8_t)(off + need);
    return (int)off;
}

void pci_dev_fini(struct pci_dev *d)
{
    if (!d->bus)
        return;
    store_le16(&d->cfg[PCI_COMMAND], 0);
    remap(d);
    d->bus->dev[d->devfn] = NULL;
    d->bus = NULL;
    msix_free(d->msix);
    d->msix = NULL;
}

/* ---- state ---- */

static void dev_save(void *dev)
{
    struct pci_dev *d = dev;
    memcpy(d->saved, d->cfg, sizeof d->saved);
}

/* What the guest cannot write is as the function was built; but for the interrupt's status. */
static int dev_load(void *dev, struct error *e)
{
    struct pci_dev *d = dev;
    for (unsigned i = 0; i < sizeof d->cfg; i++) {
        uint8_t own = (uint8_t) ~(d->wmask[i] | d->w1c[i]);
        if (i == PCI_STATUS)
            own &= (uint8_t)~PCI_ST_INTX;
        if ((d->cfg[i] ^ d->saved[i]) & own)
            return error_set(e, ERR_STATE,
                             "register %#x is %#x here and %#x in the saved state: the machines "
                             "differ",
                             i, d->cfg[i], d->saved[i]);
    }
    memcpy(d->cfg, d->saved, sizeof d->cfg);
    remap(d);
    return 0;
}

static const struct field dev_fields[] = {
    FIELD_NONE(struct pci_dev, name),
    FIELD_NONE(struct pci_dev, bus),
    FIELD(struct pci_dev, devfn, .same = true),
    FIELD_NONE(struct pci_dev, cfg),
    FIELD_NONE(struct pci_dev, wmask),
    FIELD_ARRAY(struct pci_dev, saved),
    FIELD_NONE(struct pci_dev, w1c),
    FIELD_NONE(struct pci_dev, bar),
    FIELD_NONE(struct pci_dev, rom),
    FIELD_NONE(struct pci_dev, rom_roff),
    FIELD_NONE(struct pci_dev, cap_last),
    FIELD_NONE(struct pci_dev, cap_free),
    FIELD(struct pci_dev, intx_level),
    FIELD_POINTER(struct pci_dev, msix, msix_fields),
    FIELD_NONE(struct pci_dev, written),
    FIELD_NONE(struct pci_dev, reset),
    FIELD_NONE(struct pci_dev, cfg_read_hook),
};
const struct field_table pci_dev_fields =
    FIELD_TABLE(struct pci_dev, "pci_dev", dev_fields, .pre_save = dev_save, .post_load = dev_load);

static const struct field bus_fields[] = {
    FIELD_NONE(struct pci_bus, mem),     FIELD_NONE(struct pci_bus, port),
    FIELD_NONE(struct pci_bus, dev),     FIELD(struct pci_bus, address),
    FIELD_NONE(struct pci_bus, intx),    FIELD_NONE(struct pci_bus, msi),
    FIELD_NONE(struct pci_bus, ctx),     FIELD_NONE(struct pci_bus, cf9),
    FIELD_NONE(struct pci_bus, cf9_dev),
};
const struct field_table pci_bus_fields = FIELD_TABLE(struct pci_bus, "pci_bus", bus_fields);
