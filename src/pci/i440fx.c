/*
 * i440fx.c - the host bridge. Its one effect is the programmable attribute map (PAM): each segment
 * of the BIOS area sends reads to RAM or to the bus (the ROM), and writes to RAM or to the bus.
 *
 *   RE WE   `ram` region            `below` region
 *    0  0   off                     BIOS: on, drops writes; others: off (the PCI bus answers)
 *    0  1   off                     on, hands writes to RAM (how a BIOS copies itself)
 *    1  0   on as ROM               covered
 *    1  1   on as RAM               covered
 */
#include "pci/i440fx.h"

#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "pci/config.h"

#define PAM_FIRST 0x59
#define PAM_END   0x60
#define PAM_RE    1u
#define PAM_WE    2u

#define SMRAM        0x72
#define SMRAM_RESET  0x02 /* C_BASE_SEG: 0xA0000, read-only */
#define SMRAM_D_OPEN 0x40
#define SMRAM_D_CLS  0x20
#define SMRAM_D_LCK  0x10
#define SMRAM_ENABLE 0x08

#define AREA_BASE   0xc0000u
#define AREA_END    0x100000u
#define BIOS_WINDOW (128 * KIB)

static uint64_t below_read(void *dev, uint64_t off, unsigned size)
{
    return ~0ull;
}

/* off < seg->len: the map has checked it. */
static void below_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    const struct pam_segment *seg = dev;
    struct ram *ram = seg->host->ram;
    if (!seg->we || !range_within(off, size, seg->len))
        return;
    uint64_t le = htole64(val), roff = seg->base + off;
    memcpy(ram->host + roff, &le, size);
    ram_note_write(ram, roff, size);
}

static const struct io_ops below_ops = {"pam", 1 | 2 | 4 | 8, below_read, below_write};

/* Segment 0 is the low half of PAM1 (0x5A), the last one the high half of PAM0 (0x59). */
static unsigned attributes(const struct i440fx *h, unsigned n)
{
    if (n == I440FX_SEGMENTS - 1)
        return (h->pci.cfg[PAM_FIRST] >> 4) & 3;
    return (h->pci.cfg[PAM_FIRST + 1 + n / 2] >> (n % 2 ? 4 : 0)) & 3;
}

static void update_segments(struct i440fx *h)
{
    struct space *mem = h->pci.bus->mem;
    space_begin(mem);
    for (unsigned i = 0; i < I440FX_SEGMENTS; i++) {
        struct pam_segment *seg = &h->seg[i];
        unsigned attr = attributes(h, i);
        seg->we = attr & PAM_WE;
        space_set_kind(mem, seg->ram, seg->we ? REGION_RAM : REGION_ROM);
        space_move(mem, seg->ram, seg->base, attr & PAM_RE);
        if (!seg->bios)
            space_move(mem, seg->below, seg->base, attr == PAM_WE);
    }
    space_commit(mem);
}

/* There is no SMM, so that D_OPEN never shows anything but the VGA window at 0xA0000; D_LCK closes
 * it and makes the register, but for D_CLS, read-only until reset (3.2.19). */
static void update_smram(struct i440fx *h)
{
    if (!(h->pci.cfg[SMRAM] & SMRAM_D_LCK))
        return;
    h->pci.cfg[SMRAM] &= (uint8_t)~SMRAM_D_OPEN;
    h->pci.wmask[SMRAM] = SMRAM_D_CLS;
}

static void written(struct pci_dev *d, unsigned off, unsigned len)
{
    struct i440fx *h = CONTAINER_OF(d, struct i440fx, pci);
    if (off < PAM_END && off + len > PAM_FIRST)
        update_segments(h);
    if (off <= SMRAM && off + len > SMRAM)
        update_smram(h);
}

static void reset(struct pci_dev *d)
{
    struct i440fx *h = CONTAINER_OF(d, struct i440fx, pci);
    memset(&d->cfg[PAM_FIRST], 0, PAM_END - PAM_FIRST);
    d->cfg[SMRAM] = SMRAM_RESET;
    d->wmask[SMRAM] = SMRAM_D_OPEN | SMRAM_D_CLS | SMRAM_D_LCK | SMRAM_ENABLE;
    update_segments(h);
}

static int add_segment(struct i440fx *h, unsigned n, uint64_t bios_roff, uint64_t bios_len,
                       struct error *e)
{
    struct space *mem = h->pci.bus->mem;
    struct pam_segment *seg = &h->seg[n];
    seg->host = h;
    seg->base = AREA_BASE + n * 16 * KIB;
    seg->len = n == I440FX_SEGMENTS - 1 ? 64 * KIB : 16 * KIB;
    seg->bios = AREA_END - seg->base <= min_u64(bios_len, BIOS_WINDOW);
    int rc;
    if (seg->bios) {
        uint64_t roff = bios_roff + bios_len - (AREA_END - seg->base);
        rc = space_add_rom(mem, seg->base, seg->len, roff, 0, &seg->below, e);
        if (!rc)
            space_rom_writes(mem, seg->below, &below_ops, seg);
    } else {
        rc = space_add_io(mem, seg->base, seg->len, &below_ops, seg, 0, &seg->below, e);
    }
    return rc ? rc : space_add_ram(mem, seg->base, seg->len, seg->base, 1, &seg->ram, e);
}

int i440fx_init(struct i440fx *h, struct pci_bus *b, struct ram *ram, uint64_t bios_roff,
                uint64_t bios_len, struct error *e)
{
    static const struct pci_ids ids = {
        .vendor = 0x8086, .device = 0x1237, .class_rev = 0x06000002, /* host bridge, rev. 2 */
    };
    *h = (struct i440fx){.ram = ram};
    if (ram->ram_size < AREA_END)
        return error_set(e, ERR_LIMIT, "a PC needs at least 1 MiB of memory");
    if (!bios_len || bios_len % (64 * KIB))
        return error_set(e, ERR_FORMAT, "a BIOS of %llu bytes is not a multiple of 64 KiB",
                         (unsigned long long)bios_len);
    int rc = pci_dev_init(b, &h->pci, "i440fx", PCI_DEVFN(0, 0), &ids, e);
    if (rc)
        return rc;
    /* Memory decoding and mastering are hardwired on; medium DEVSEL, fast back-to-back. */
    store_le16(&h->pci.cfg[PCI_COMMAND], PCI_CMD_MEM | PCI_CMD_MASTER);
    store_le16(&h->pci.wmask[PCI_COMMAND], PCI_CMD_PARITY | PCI_CMD_SERR);
    store_le16(&h->pci.cfg[PCI_STATUS], 0x0280);
    h->pci.wmask[PAM_FIRST] = 0x30;
    memset(&h->pci.wmask[PAM_FIRST + 1], 0x33, PAM_END - PAM_FIRST - 1);
    h->pci.written = written;
    h->pci.reset = reset;

    space_begin(b->mem);
    for (unsigned i = 0; i < I440FX_SEGMENTS && !rc; i++)
        rc = add_segment(h, i, bios_roff, bios_len, e);
    if (!rc)
        reset(&h->pci);
    space_commit(b->mem);
    return rc;
}

/* ---- state ---- */

static int post_load(void *dev, struct error *e)
{
    struct i440fx *h = dev;
    update_segments(h);
    update_smram(h);
    return 0;
}

static const struct field fields[] = {
    FIELD_STRUCT(struct i440fx, pci, pci_dev_fields), FIELD_NONE(struct i440fx, ram),
    FIELD_NONE(struct i440fx, seg), /* of the registers */
};
const struct field_table i440fx_fields =
    FIELD_TABLE(struct i440fx, "i440fx", fields, .post_load = post_load);
