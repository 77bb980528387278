/* fuzz_piix4pm.c - power management and the SMBus controller, in configuration space and ports. */
#include "fuzz.h"
#include "pci/piix4pm_pci.h"

#define PM_PORT 0x600u
#define DEVFN   PCI_DEVFN(1, 3)

static struct {
    struct fuzz f;
    struct pci_bus bus;
    struct piix4pm pm;
    struct piix4pm_pci pci;
} m;

static void power_off(void *ctx)
{
}

static void reset(struct fuzz *f)
{
    pci_bus_reset(&m.bus);
    piix4pm_pci_program(&m.pci, PM_PORT);
}

static void extra(struct fuzz *f, uint8_t what)
{
    if (what & 1)
        piix4pm_power_button(&m.pm);
    else
        piix4pm_acpi_enable(&m.pm, what & 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct pin sci = fuzz_pin();
    fuzz_begin(&m.f, data, size);
    m.f.extra = extra;
    m.f.reset = reset;
    fuzz_bus(&m.f, &m.bus);
    FUZZ_REQUIRE(!piix4pm_init(&m.pm, &m.f.timers, &sci, power_off, NULL, NULL));
    FUZZ_REQUIRE(!piix4pm_pci_init(&m.pci, &m.bus, DEVFN, &m.pm, NULL));
    piix4pm_pci_program(&m.pci, PM_PORT);
    fuzz_map(&m.f, &piix4pm_desc, &m.pm);
    fuzz_window(&m.f, &m.f.port, PM_PORT, PIIX4PM_SIZE);
    fuzz_window(&m.f, &m.f.port, PM_PORT + 0x100, PIIX4SMB_SIZE);
    fuzz_window(&m.f, &m.f.port, 0xcf8, 8);
    fuzz_run(&m.f);
    piix4pm_fini(&m.pm);
    pci_dev_fini(&m.pci.pci);
    fuzz_end(&m.f);
    return 0;
}
