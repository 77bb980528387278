/* fuzz_vga.c - the display adapter: registers, planar and linear video memory, text. */
#include <stdlib.h>

#include "fuzz.h"
#include "pci/vga_pci.h"

#define LFB   0xe0000000u
#define MMIO  0xe2000000u
#define DEVFN PCI_DEVFN(2, 0)

static struct {
    struct fuzz f;
    struct pci_bus bus;
    struct vga vga;
    struct vga_pci pci;
} m;

static void reset(struct fuzz *f)
{
    pci_bus_reset(&m.bus);
}

static void extra(struct fuzz *f, uint8_t what)
{
    size_t size = what * 16u + 1; /* the buffer may be too small for the screen */
    char *text = malloc(size);
    FUZZ_REQUIRE(!text || vga_text(&m.vga, text, size) < size);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t rom;
    fuzz_begin(&m.f, data, size);
    m.f.extra = extra;
    m.f.reset = reset;
    fuzz_bus(&m.f, &m.bus);
    FUZZ_REQUIRE(!vga_init(&m.vga, NULL));
    FUZZ_REQUIRE(!ram_rom_alloc(&m.f.ram, 32 * KIB, &rom, NULL));
    FUZZ_REQUIRE(!vga_pci_init(&m.pci, &m.bus, DEVFN, &m.vga, rom, 32 * KIB, NULL));
    fuzz_cfg_write(&m.f, DEVFN, 0x10, LFB);
    fuzz_cfg_write(&m.f, DEVFN, 0x18, MMIO);
    fuzz_cfg_write(&m.f, DEVFN, 4, 3);
    fuzz_map(&m.f, &vga_desc, &m.vga);
    fuzz_window(&m.f, &m.f.mem, LFB, VGA_VRAM_SIZE);
    fuzz_window(&m.f, &m.f.mem, MMIO, VGA_MMIO_SIZE);
    fuzz_window(&m.f, &m.f.port, 0xcf8, 8);
    fuzz_run(&m.f);
    pci_dev_fini(&m.pci.pci);
    vga_fini(&m.vga);
    fuzz_end(&m.f);
    return 0;
}
