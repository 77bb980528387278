/*
 * fuzz_pci.c - the PCI bus: configuration cycles, BARs that move about, shadow RAM, interrupt
 * routing, MSI-X.
 */
#include "fuzz.h"
#include "pci/i440fx.h"
#include "pci/piix3.h"

#define BIOS_LEN (64 * KIB)
#define MEM_BAR  0xe0000000u
#define MSIX_BAR 0xe1000000u
#define DEVFN    PCI_DEVFN(3, 0)

static struct {
    struct fuzz f;
    struct pci_bus bus;
    struct i440fx host;
    struct piix3 bridge;
    struct pci_dev dev;
    uint8_t reg[16];
} m;

static uint64_t reg_read(void *dev, uint64_t off, unsigned size)
{
    return m.reg[off % sizeof m.reg];
}

/* A register that makes the device interrupt, in every way it can. */
static void reg_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    m.reg[off % sizeof m.reg] = (uint8_t)val;
    if (off & 1)
        pci_msix_notify(&m.dev, (unsigned)val & 7);
    else
        pci_intx_set(&m.dev, val & 1);
}

static const struct io_ops regs = {"fuzz", 1 | 2 | 4, reg_read, reg_write};

static void intx(void *ctx, unsigned devfn, unsigned pin, bool level)
{
    piix3_intx(&m.bridge, devfn, pin, level);
}

static void msi(void *ctx, uint64_t addr, uint32_t data)
{
}

static void set_irq(void *ctx, unsigned irq, bool level)
{
    FUZZ_REQUIRE(irq < 16);
}

static void reset_request(void *ctx)
{
}

static void reset(struct fuzz *f)
{
    pci_bus_reset(&m.bus);
}

static void init_device(void)
{
    static const struct pci_ids ids = {0x1af4, 0x1000, 0x1af4, 1, 0xff000000u, 1, 0};
    FUZZ_REQUIRE(!pci_dev_init(&m.bus, &m.dev, "fuzz", DEVFN, &ids, NULL));
    FUZZ_REQUIRE(!pci_bar_add(&m.dev, 0, false, false, false, 0x1000, &regs, NULL, NULL));
    FUZZ_REQUIRE(!pci_msix_add(&m.dev, 1, 8, NULL));
    FUZZ_REQUIRE(!pci_bar_add(&m.dev, 2, true, false, false, 16, &regs, NULL, NULL));
    FUZZ_REQUIRE(!pci_bar_add(&m.dev, 4, false, true, true, MIB, &regs, NULL, NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned id;
    uint64_t rom;
    fuzz_begin_ram(&m.f, data, size, FUZZ_RAM);
    FUZZ_REQUIRE(!space_init(&m.f.mem, 1ull << 40, &m.f.ram, NULL));
    FUZZ_REQUIRE(!space_init(&m.f.port, 65536, &m.f.ram, NULL));
    FUZZ_REQUIRE(!space_add_ram(&m.f.mem, 0, 0xa0000, 0, 10, &id, NULL));
    FUZZ_REQUIRE(!ram_rom_alloc(&m.f.ram, BIOS_LEN, &rom, NULL));
    m.f.reset = reset;
    FUZZ_REQUIRE(!pci_bus_init(&m.bus, &m.f.mem, &m.f.port, NULL));
    m.bus.intx = intx;
    m.bus.msi = msi;
    FUZZ_REQUIRE(!i440fx_init(&m.host, &m.bus, &m.f.ram, rom, BIOS_LEN, NULL));
    FUZZ_REQUIRE(!piix3_init(&m.bridge, &m.bus, PCI_DEVFN(1, 0), NULL));
    m.bridge.set_irq = set_irq;
    m.bridge.reset_request = reset_request;
    init_device();
    fuzz_cfg_write(&m.f, DEVFN, 0x10, MEM_BAR);
    fuzz_cfg_write(&m.f, DEVFN, 0x14, MSIX_BAR);
    fuzz_cfg_write(&m.f, DEVFN, 4, 7);
    fuzz_window(&m.f, &m.f.port, 0xcf8, 8);
    fuzz_window(&m.f, &m.f.mem, MEM_BAR, 16);
    fuzz_window(&m.f, &m.f.mem, MSIX_BAR, 0x1000);
    fuzz_window(&m.f, &m.f.mem, 0x9f000, 0x61000); /* low RAM's end, the hole, shadow RAM */
    fuzz_run(&m.f);
    pci_dev_fini(&m.dev);
    pci_dev_fini(&m.bridge.pci);
    pci_dev_fini(&m.host.pci);
    fuzz_end(&m.f);
    return 0;
}
