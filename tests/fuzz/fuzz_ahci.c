/* fuzz_ahci.c - the AHCI controller: registers, command lists, frames and scatter lists, with two
 * disks and a CD-ROM drive. */
#include "base/endian.h"
#include "fuzz.h"
#include "pci/ahci_pci.h"

#define BAR      0xe0000000u
#define DEVFN    PCI_DEVFN(6, 0)
#define LIST     0x1000u /* port n's is 0x400 n further */
#define FRAMES   0x4000u
#define TABLES   0x10000u /* of all ports: eight */
#define TABLELEN 0x200u
#define BUFFERS  0x40000u
#define NPORT    3u

static struct {
    struct fuzz f;
    struct pci_bus bus;
    struct ahci_pci ahci;
    struct blk *cd;
} m;

static void reset(struct fuzz *f)
{
    pci_bus_reset(&m.bus);
    fuzz_cfg_write(f, DEVFN, 0x24, BAR);
    fuzz_cfg_write(f, DEVFN, 4, 6);
}

static void port_write(struct fuzz *f, unsigned port, unsigned reg, uint32_t val)
{
    space_write(&f->mem, BAR + 0x100 + 0x80 * port + reg, val, 4);
}

/* What a driver does before it uses the ports. */
static void start(struct fuzz *f)
{
    space_write(&f->mem, BAR + 4, 2, 4);
    for (unsigned n = 0; n < NPORT; n++) {
        port_write(f, n, 0x00, LIST + 0x400 * n);
        port_write(f, n, 0x08, FRAMES + 0x100 * n);
        port_write(f, n, 0x14, 0xffffffff);
        port_write(f, n, 0x18, 0x11);
    }
}

/* A command: header, frame, packet and scatter list, in the main as a driver would write them. */
static void command(struct fuzz *f, uint8_t what)
{
    unsigned port = (what >> 3) % NPORT, slot = fuzz_u8(&f->in) % 32u;
    uint32_t table = TABLES + TABLELEN * (fuzz_u8(&f->in) % 8u);
    uint8_t *h = f->ram.host + LIST + 0x400 * port + 32 * slot, *t = f->ram.host + table;
    unsigned entries = fuzz_u8(&f->in) % 16u;
    store_le32(h, 5 | (fuzz_u8(&f->in) & 0xe0u) | entries << 16);
    store_le64(h + 8, table);
    const uint8_t *p;
    size_t n = fuzz_take(&f->in, &p, 16);
    memset(t, 0, TABLELEN);
    memcpy(t, p, n);
    if (what & 0x20) {
        t[0] = 0x27;
        t[1] = 0x80;
        t[12] = (uint8_t)(slot << 3);
    }
    n = fuzz_take(&f->in, &p, 12);
    memcpy(t + 0x40, p, n);
    for (unsigned i = 0; i < entries; i++) {
        uint64_t addr = BUFFERS + 2ull * fuzz_u16(&f->in);
        uint32_t len = fuzz_u16(&f->in);
        store_le64(t + 0x80 + 16 * i, len & 1 ? addr : addr | fuzz_uint(&f->in, 3) << 16);
        store_le32(t + 0x80 + 16 * i + 12, len);
    }
    if (what & 0x40)
        port_write(f, port, 0x34, 1u << slot);
    if (what & 0x80)
        port_write(f, port, 0x38, 1u << slot);
}

static void extra(struct fuzz *f, uint8_t what)
{
    switch (what & 7) {
    case 0:
        start(f);
        break;
    case 1:
        ide_cdrom_change(&m.ahci.ahci.port[1].ide, 0, what & 8 ? m.cd : NULL);
        break;
    case 2:
        fuzz_resize(f);
        break;
    default:
        command(f, what);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin(&m.f, data, size);
    m.f.extra = extra;
    m.f.reset = reset;
    fuzz_bus(&m.f, &m.bus);
    FUZZ_REQUIRE(!ahci_pci_init(&m.ahci, &m.bus, DEVFN, NULL));
    struct ahci *h = &m.ahci.ahci;
    FUZZ_REQUIRE(!ahci_attach_disk(h, 0, fuzz_disk(&m.f, false), "FUZZ", "1", NULL));
    FUZZ_REQUIRE(!ahci_attach_disk(h, 2, fuzz_disk(&m.f, true), "FUZZ", "2", NULL));
    m.cd = fuzz_disk(&m.f, true);
    ahci_attach_cdrom(h, 1, m.cd, "FUZZ", "3");
    reset(&m.f);
    fuzz_window(&m.f, &m.f.mem, BAR, 0x40);
    for (unsigned n = 0; n < NPORT; n++)
        fuzz_window(&m.f, &m.f.mem, BAR + 0x100 + 0x80 * n, 0x80);
    fuzz_window(&m.f, &m.f.port, 0xcf8, 8);
    if (fuzz_u8(&m.f.in) & 1)
        start(&m.f);
    fuzz_run(&m.f);
    ahci_pci_fini(&m.ahci);
    fuzz_end(&m.f);
    return 0;
}
