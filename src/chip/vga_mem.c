/*
 * vga_mem.c - the memory window at 0xA0000: four planes, three ways to address them, four ways to
 * write and two to read; and the linear frame buffer.
 *
 * Every byte goes the same way: the window gives a planar address and the set of planes, and the
 * graphics controller combines the byte with the latches. A 32-bit value holds one byte of each
 * plane.
 */
#include "base/endian.h"
#include "chip/vga.h"

enum { SEQ_MAP_MASK = 2, SEQ_MEMORY = 4 };
enum {
    GFX_SET_RESET,
    GFX_ENABLE_SET_RESET,
    GFX_COMPARE,
    GFX_ROTATE,
    GFX_READ_MAP,
    GFX_MODE,
    GFX_MISC,
    GFX_DONT_CARE,
    GFX_BIT_MASK,
};

#define SEQ_PLANAR    0x04u /* clear: odd and even addresses in different planes */
#define SEQ_CHAIN4    0x08u
#define MODE_ODD_EVEN 0x10u
#define MODE_READ_CMP 0x08u

struct place {
    uint32_t word; /* planar address, < VGA_VRAM_SIZE / 4 */
    unsigned low;  /* the address bits that chose a plane */
};

/* All bits of plane p are bit p of v. */
static uint32_t spread(unsigned v)
{
    uint32_t r = 0;
    for (unsigned p = 0; p < 4; p++) {
        if (v >> p & 1)
            r |= 0xffu << (8 * p);
    }
    return r;
}

static uint32_t replicate(uint8_t v)
{
    return v * 0x01010101u;
}

/* What part of the window the miscellaneous register maps, and the VBE bank. False: nothing here.
 */
static bool window(const struct vga *v, uint32_t off, uint32_t *addr)
{
    uint32_t bank = vga_vbe_enabled(v) ? (uint32_t)v->vbe[VBE_BANK] << 16 : 0;
    switch (v->gfx[GFX_MISC] >> 2 & 3) {
    case 0:
        *addr = off;
        return true;
    case 1:
        *addr = bank + off;
        return off < 0x10000;
    case 2:
        *addr = off - 0x10000;
        return off >= 0x10000 && off < 0x18000;
    default:
        *addr = off - 0x18000;
        return off >= 0x18000;
    }
}

static bool locate(const struct vga *v, uint64_t off, unsigned shift, struct place *p)
{
    uint32_t addr;
    if (off >= 0x20000 || !window(v, (uint32_t)off, &addr))
        return false;
    p->word = addr >> shift;
    p->low = addr & ((1u << shift) - 1);
    return p->word < VGA_VRAM_SIZE / 4;
}

static uint8_t *word_at(const struct vga *v, uint32_t word)
{
    return v->vram + 4 * (size_t)word;
}

/* ---- reading ---- */

/* Read mode 1: a bit is set where all planes that are cared for equal the compare colour. */
static uint8_t compare(const struct vga *v)
{
    uint32_t diff = (v->latch ^ spread(v->gfx[GFX_COMPARE])) & spread(v->gfx[GFX_DONT_CARE]);
    diff |= diff >> 16;
    diff |= diff >> 8;
    return (uint8_t)~diff;
}

static uint64_t window_read(void *dev, uint64_t off, unsigned size)
{
    struct vga *v = dev;
    struct place p;
    bool chain4 = v->seq[SEQ_MEMORY] & SEQ_CHAIN4;
    bool odd_even = !chain4 && v->gfx[GFX_MODE] & MODE_ODD_EVEN;
    if (!locate(v, off, chain4 ? 2 : odd_even, &p))
        return 0xff;
    v->latch = load_le32(word_at(v, p.word));
    if (v->gfx[GFX_MODE] & MODE_READ_CMP)
        return compare(v);
    unsigned plane = v->gfx[GFX_READ_MAP];
    if (chain4)
        plane = p.low;
    else if (odd_even)
        plane = (plane & 2) | p.low;
    return (uint8_t)(v->latch >> (8 * plane));
}

/* ---- writing ---- */

static uint8_t rotate(const struct vga *v, uint8_t val)
{
    unsigned n = v->gfx[GFX_ROTATE] & 7;
    return (uint8_t)(val >> n | val << (8 - n));
}

static uint32_t combine(const struct vga *v, uint32_t val)
{
    switch (v->gfx[GFX_ROTATE] >> 3 & 3) {
    case 1:
        return val & v->latch;
    case 2:
        return val | v->latch;
    case 3:
        return val ^ v->latch;
    default:
        return val;
    }
}

/* What the graphics controller makes of a byte from the processor. */
static uint32_t transform(const struct vga *v, uint8_t val)
{
    uint32_t set = spread(v->gfx[GFX_SET_RESET]), enable = spread(v->gfx[GFX_ENABLE_SET_RESET]);
    uint32_t mask = replicate(v->gfx[GFX_BIT_MASK]), data;
    switch (v->gfx[GFX_MODE] & 3) {
    case 0:
        data = (replicate(rotate(v, val)) & ~enable) | (set & enable);
        break;
    case 1:
        return v->latch;
    case 2:
        data = spread(val & 15);
        break;
    default:
        mask &= replicate(rotate(v, val));
        data = set;
        break;
    }
    return (combine(v, data) & mask) | (v->latch & ~mask);
}

static void window_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct vga *v = dev;
    struct place p;
    bool chain4 = v->seq[SEQ_MEMORY] & SEQ_CHAIN4;
    bool odd_even = !chain4 && !(v->seq[SEQ_MEMORY] & SEQ_PLANAR);
    if (!locate(v, off, chain4 ? 2 : odd_even, &p))
        return;
    unsigned planes = v->seq[SEQ_MAP_MASK];
    if (chain4)
        planes &= 1u << p.low;
    else if (odd_even)
        planes &= 5u << p.low;
    uint32_t mask = spread(planes), old = load_le32(word_at(v, p.word));
    if (mask)
        store_le32(word_at(v, p.word), (old & ~mask) | (transform(v, (uint8_t)val) & mask));
}

const struct io_ops vga_window_ops = {"vga memory", 1, window_read, window_write};

/* ---- linear frame buffer ---- */

static uint64_t lfb_read(void *dev, uint64_t off, unsigned size)
{
    const struct vga *v = dev;
    uint64_t val = 0;
    if (off <= VGA_VRAM_SIZE - size)
        memcpy(&val, v->vram + off, size);
    return le64toh(val);
}

static void lfb_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct vga *v = dev;
    val = htole64(val);
    if (off <= VGA_VRAM_SIZE - size)
        memcpy(v->vram + off, &val, size);
}

const struct io_ops vga_lfb_ops = {"vga frame buffer", 1 | 2 | 4 | 8, lfb_read, lfb_write};
