/*
 * vga_vbe.c - the Bochs VBE registers: index and data port, and as memory-mapped registers.
 *
 * Invariant: while a mode is enabled, every byte it shows lies in video memory:
 * (y offset + height) lines of the virtual width, plus the x offset, end before VGA_VRAM_SIZE.
 */
#include <string.h>

#include "chip/vga.h"

#define ID_FIRST 0xb0c0u
#define ID_LAST  0xb0c5u

#define ENABLE_ON    0x01u
#define ENABLE_CAPS  0x02u /* resolution registers read as the maximum */
#define ENABLE_8BIT  0x20u /* DAC */
#define ENABLE_LFB   0x40u
#define ENABLE_KEEP  0x80u /* do not clear video memory */
#define ENABLE_VALID 0xe3u

/* Bits that a pixel takes in memory; 0: no such depth. */
static unsigned pixel_bits(unsigned bpp)
{
    switch (bpp) {
    case 15:
        return 16;
    case 4:
    case 8:
    case 16:
    case 24:
    case 32:
        return bpp;
    default:
        return 0;
    }
}

/* Bytes of video memory for `pixels`. At 4 bits a pixel is spread over the planes, whose bytes lie
 * side by side, so it is half a byte there too. */
static uint64_t bytes(const struct vga *v, uint64_t pixels)
{
    return pixels * pixel_bits(v->vbe[VBE_BPP]) / 8;
}

static bool fits(const struct vga *v, uint64_t width, uint64_t x, uint64_t y)
{
    return bytes(v, width * (y + v->vbe[VBE_YRES]) + x) <= VGA_VRAM_SIZE;
}

/* The legacy window must show the mode's memory: 64 KiB at 0xA0000, linear unless 4 bits deep. */
static void set_vga_registers(struct vga *v)
{
    v->gfx[6] = 0x05;
    v->gfx[5] &= (uint8_t)~0x7b;
    v->gfx[3] = v->gfx[1] = 0;
    v->gfx[8] = 0xff;
    v->seq[2] = 0x0f;
    v->seq[4] = v->vbe[VBE_BPP] == 4 ? 0x06 : 0x0e;
}

static void enable(struct vga *v, uint16_t val)
{
    uint16_t *r = v->vbe;
    bool was = vga_vbe_enabled(v);
    r[VBE_ENABLE] = val & ENABLE_VALID;
    r[VBE_BANK] = 0;
    if (!(val & ENABLE_ON))
        return;
    if (!r[VBE_XRES] || !r[VBE_YRES] || !pixel_bits(r[VBE_BPP]) || !fits(v, r[VBE_XRES], 0, 0)) {
        r[VBE_ENABLE] &= (uint16_t)~ENABLE_ON;
        return;
    }
    if (was)
        return;
    uint64_t line = bytes(v, r[VBE_XRES]);
    r[VBE_VIRT_WIDTH] = r[VBE_XRES];
    r[VBE_VIRT_HEIGHT] = (uint16_t)min_u64(VGA_VRAM_SIZE / line, 0xffff);
    r[VBE_X_OFFSET] = r[VBE_Y_OFFSET] = 0;
    set_vga_registers(v);
    if (!(val & ENABLE_KEEP))
        memset(v->vram, 0, line * r[VBE_YRES]);
}

static void set_virtual_width(struct vga *v, uint16_t val)
{
    uint16_t *r = v->vbe;
    if (!vga_vbe_enabled(v) || val < r[VBE_XRES] || !fits(v, val, 0, 0))
        return;
    r[VBE_VIRT_WIDTH] = val;
    r[VBE_VIRT_HEIGHT] = (uint16_t)min_u64(VGA_VRAM_SIZE / bytes(v, val), 0xffff);
    r[VBE_X_OFFSET] = r[VBE_Y_OFFSET] = 0;
}

uint16_t vga_vbe_read(const struct vga *v, unsigned reg)
{
    static const uint16_t maximum[] = {
        [VBE_XRES] = VGA_VBE_MAX_X, [VBE_YRES] = VGA_VBE_MAX_Y, [VBE_BPP] = 32};
    if (reg >= VBE_NREGS)
        return 0;
    if (reg >= VBE_XRES && reg <= VBE_BPP && v->vbe[VBE_ENABLE] & ENABLE_CAPS)
        return maximum[reg];
    return v->vbe[reg];
}

/* Geometry can be set only while no mode is enabled, which keeps the invariant. */
static void set_geometry(struct vga *v, unsigned reg, uint16_t val)
{
    if (vga_vbe_enabled(v))
        return;
    if (reg == VBE_XRES && (val > VGA_VBE_MAX_X || val % 8))
        return;
    if (reg == VBE_YRES && val > VGA_VBE_MAX_Y)
        return;
    if (reg == VBE_BPP && !pixel_bits(val))
        val = 8;
    v->vbe[reg] = val;
}

void vga_vbe_write(struct vga *v, unsigned reg, uint16_t val)
{
    uint16_t *r = v->vbe;
    switch (reg) {
    case VBE_ID: /* the guest asks for an older interface by writing its number */
        if (val >= ID_FIRST && val <= ID_LAST)
            r[VBE_ID] = val;
        break;
    case VBE_XRES:
    case VBE_YRES:
    case VBE_BPP:
        set_geometry(v, reg, val);
        break;
    case VBE_ENABLE:
        enable(v, val);
        break;
    case VBE_BANK:
        if (val < VGA_VRAM_SIZE >> 16)
            r[VBE_BANK] = val;
        break;
    case VBE_VIRT_WIDTH:
        set_virtual_width(v, val);
        break;
    case VBE_X_OFFSET:
        if (vga_vbe_enabled(v) && fits(v, r[VBE_VIRT_WIDTH], val, r[VBE_Y_OFFSET]))
            r[VBE_X_OFFSET] = val;
        break;
    case VBE_Y_OFFSET:
        if (vga_vbe_enabled(v) && fits(v, r[VBE_VIRT_WIDTH], r[VBE_X_OFFSET], val))
            r[VBE_Y_OFFSET] = val;
        break;
    default:
        break;
    }
}

void vga_vbe_reset(struct vga *v)
{
    memset(v->vbe, 0, sizeof v->vbe);
    v->vbe_index = 0;
    v->vbe[VBE_ID] = ID_LAST;
    v->vbe[VBE_BPP] = 8;
    v->vbe[VBE_MEMORY_64K] = VGA_VRAM_SIZE >> 16;
}

/* ---- ports: index at 0x1CE, data at 0x1CF and 0x1D0, both 16 bits wide ---- */

static uint64_t port_read(void *dev, uint64_t off, unsigned size)
{
    const struct vga *v = dev;
    return off ? vga_vbe_read(v, v->vbe_index) : v->vbe_index;
}

static void port_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct vga *v = dev;
    if (off)
        vga_vbe_write(v, v->vbe_index, (uint16_t)val);
    else
        v->vbe_index = (uint16_t)val;
}

const struct io_ops vga_vbe_port_ops = {"vbe", 2 | IO_UNALIGNED, port_read, port_write};

/* ---- memory-mapped registers, laid out as QEMU's stdvga has them ---- */

enum {
    MMIO_PORTS = 0x400, /* 0x3C0-0x3DF */
    MMIO_PORTS_END = 0x420,
    MMIO_VBE = 0x500,
    MMIO_VBE_END = MMIO_VBE + 2 * VBE_NREGS,
    MMIO_EXT_SIZE = 0x600,  /* bytes of the extended registers */
    MMIO_EXT_ORDER = 0x604, /* byte order of the frame buffer */
};
#define ORDER_LITTLE 0x1e1eu /* each half of the register */

static uint64_t mmio_read(void *dev, uint64_t off, unsigned size)
{
    struct vga *v = dev;
    unsigned shift = 8 * (off & 1);
    if (off >= MMIO_PORTS && off < MMIO_PORTS_END) {
        unsigned port = (unsigned)off - MMIO_PORTS + 0x10;
        uint64_t val = vga_port_read(v, port);
        return size == 2 ? val | (uint64_t)vga_port_read(v, port + 1) << 8 : val;
    }
    if (off >= MMIO_VBE && off < MMIO_VBE_END)
        return (uint64_t)vga_vbe_read(v, (unsigned)(off - MMIO_VBE) / 2) >> shift;
    if (off == MMIO_EXT_SIZE)
        return 8;
    if (off >= MMIO_EXT_ORDER && off < MMIO_EXT_ORDER + 4)
        return ORDER_LITTLE >> shift;
    return 0; /* EDID: none */
}

static void mmio_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct vga *v = dev;
    if (off >= MMIO_PORTS && off < MMIO_PORTS_END) {
        unsigned port = (unsigned)off - MMIO_PORTS + 0x10;
        vga_port_write(v, port, (uint8_t)val);
        if (size == 2)
            vga_port_write(v, port + 1, (uint8_t)(val >> 8));
    } else if (off >= MMIO_VBE && off < MMIO_VBE_END && size == 2) {
        vga_vbe_write(v, (unsigned)(off - MMIO_VBE) / 2, (uint16_t)val);
    }
}

const struct io_ops vga_mmio_ops = {"vga registers", 1 | 2, mmio_read, mmio_write};

int vga_vbe_check(const struct vga *v, struct error *e)
{
    const uint16_t *r = v->vbe;
    bool ok = r[VBE_ID] >= ID_FIRST && r[VBE_ID] <= ID_LAST && r[VBE_XRES] <= VGA_VBE_MAX_X &&
              r[VBE_XRES] % 8 == 0 && r[VBE_YRES] <= VGA_VBE_MAX_Y && pixel_bits(r[VBE_BPP]) &&
              r[VBE_BANK] < VGA_VRAM_SIZE >> 16 && r[VBE_MEMORY_64K] == VGA_VRAM_SIZE >> 16;
    if (ok && vga_vbe_enabled(v))
        ok = r[VBE_XRES] && r[VBE_YRES] && r[VBE_VIRT_WIDTH] >= r[VBE_XRES] &&
             fits(v, r[VBE_VIRT_WIDTH], r[VBE_X_OFFSET], r[VBE_Y_OFFSET]);
    return ok ? 0 : error_set(e, ERR_FORMAT, "vbe: is no mode that can be set");
}
