/* fuzz_ide.c - the IDE function: disks, CD-ROM drive and the bus master with its PRD lists. */
#include "fuzz.h"
#include "pci/piix3_ide.h"

#define BM_PORT 0xc000u
#define DEVFN   PCI_DEVFN(1, 1)

static struct {
    struct fuzz f;
    struct pci_bus bus;
    struct piix3_ide ide;
    struct blk *cd;
} m;

static void reset(struct fuzz *f)
{
    pci_bus_reset(&m.bus);
}

static void extra(struct fuzz *f, uint8_t what)
{
    ide_cdrom_change(&m.ide.channel[1].ide, 0, what & 1 ? m.cd : NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin(&m.f, data, size);
    m.f.extra = extra;
    m.f.reset = reset;
    fuzz_bus(&m.f, &m.bus);
    FUZZ_REQUIRE(!piix3_ide_init(&m.ide, &m.bus, DEVFN, fuzz_pin(), fuzz_pin(), NULL));
    struct ide_channel *ch[2] = {&m.ide.channel[0].ide, &m.ide.channel[1].ide};
    ide_attach_disk(ch[0], 0, fuzz_disk(&m.f, false), "FUZZ", "1");
    ide_attach_disk(ch[0], 1, fuzz_disk(&m.f, true), "FUZZ", "2");
    m.cd = fuzz_disk(&m.f, true);
    ide_attach_cdrom(ch[1], 0, m.cd, "FUZZ", "3");
    fuzz_cfg_write(&m.f, DEVFN, 0x20, BM_PORT);
    fuzz_cfg_write(&m.f, DEVFN, 4, 5); /* ports, bus master */
    fuzz_window(&m.f, &m.f.port, 0x1f0, 8);
    fuzz_window(&m.f, &m.f.port, 0x170, 8);
    fuzz_window(&m.f, &m.f.port, 0x3f6, 1);
    fuzz_window(&m.f, &m.f.port, 0x376, 1);
    fuzz_window(&m.f, &m.f.port, BM_PORT, 16);
    fuzz_window(&m.f, &m.f.port, 0xcf8, 8);
    fuzz_run(&m.f);
    piix3_ide_fini(&m.ide);
    fuzz_end(&m.f);
    return 0;
}
