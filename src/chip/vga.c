/*
 * vga.c - the VGA's registers.
 *
 * Retrace. Input status 1 changes with every read: a program that waits for the vertical retrace
 * sees it begin and end at once. Nothing is drawn here that could tear.
 */
#include "chip/vga.h"

#include <string.h>
#include <sys/mman.h>

/* Offsets from port 0x3B0. */
enum {
    P_MONO_CRTC_INDEX = 0x04,
    P_MONO_CRTC_DATA = 0x05,
    P_MONO_STATUS = 0x0a,
    P_ATTR = 0x10, /* index and data in turn */
    P_ATTR_READ = 0x11,
    P_MISC = 0x12, /* written; read: input status 0 */
    P_SEQ_INDEX = 0x14,
    P_SEQ_DATA = 0x15,
    P_DAC_MASK = 0x16,
    P_DAC_READ = 0x17, /* written: index to read from; read: state */
    P_DAC_WRITE = 0x18,
    P_DAC_DATA = 0x19,
    P_FEATURE_READ = 0x1a,
    P_MISC_READ = 0x1c,
    P_GFX_INDEX = 0x1e,
    P_GFX_DATA = 0x1f,
    P_CRTC_INDEX = 0x24,
    P_CRTC_DATA = 0x25,
    P_STATUS = 0x2a,
};

#define MISC_COLOR       0x01u
#define STATUS_BLANK     0x01u
#define STATUS_VRETRACE  0x08u
#define CRTC_PROTECT_REG 0x11u
#define CRTC_PROTECT     0x80u /* registers 0-7 are read-only */
#define CRTC_OVERFLOW    0x07u
#define CRTC_LINE_CMP8   0x10u /* of the overflow register: never protected */

/* Bits that exist; registers beyond these read as 0. */
static const uint8_t seq_valid[8] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e};
static const uint8_t gfx_valid[16] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};
static const uint8_t attr_valid[32] = {
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0xef, 0xff, 0x3f, 0x0f, 0x0f,
};
#define CRTC_LAST 0x18u

/* The CRTC and status ports are at 0x3Bx or 0x3Dx, by the miscellaneous output register. Maps both
 * to the latter; the inactive ones to no port. */
static unsigned active_port(const struct vga *v, unsigned off)
{
    bool mono = off < P_ATTR, color = off >= 0x20;
    if ((mono && v->misc & MISC_COLOR) || (color && !(v->misc & MISC_COLOR)))
        return ~0u;
    return mono ? off + 0x20 : off;
}

/* ---- DAC: three components of 6 bits, or 8 if the VBE says so ---- */

static uint8_t dac_mask(const struct vga *v)
{
    return v->vbe[VBE_ENABLE] & 0x20 ? 0xff : 0x3f;
}

static uint8_t dac_read(struct vga *v)
{
    uint8_t val = v->palette[v->dac_index][v->dac_component];
    if (++v->dac_component == 3) {
        v->dac_component = 0;
        v->dac_index++;
    }
    return val;
}

static void dac_write(struct vga *v, uint8_t val)
{
    v->dac_latch[v->dac_component] = val & dac_mask(v);
    if (++v->dac_component == 3) { /* the three take effect together */
        memcpy(v->palette[v->dac_index], v->dac_latch, 3);
        v->dac_component = 0;
        v->dac_index++;
    }
}

static void dac_start(struct vga *v, uint8_t index, bool reading)
{
    v->dac_index = index;
    v->dac_component = 0;
    v->dac_reading = reading;
}

/* ---- ports ---- */

static uint8_t status1(struct vga *v)
{
    v->attr_data = false;
    v->retrace = !v->retrace;
    return v->retrace ? STATUS_VRETRACE | STATUS_BLANK : 0;
}

uint8_t vga_port_read(struct vga *v, unsigned off)
{
    switch (active_port(v, off)) {
    case P_ATTR:
        return v->attr_index;
    case P_ATTR_READ:
        return v->attr[v->attr_index & 31];
    case P_MISC:
        return 0; /* no sense switch, no interrupt */
    case P_SEQ_INDEX:
        return v->seq_index;
    case P_SEQ_DATA:
        return v->seq[v->seq_index & 7];
    case P_DAC_MASK:
        return v->dac_mask;
    case P_DAC_READ:
        return v->dac_reading ? 3 : 0;
    case P_DAC_WRITE:
        return v->dac_index;
    case P_DAC_DATA:
        return dac_read(v);
    case P_FEATURE_READ:
        return v->feature;
    case P_MISC_READ:
        return v->misc;
    case P_GFX_INDEX:
        return v->gfx_index;
    case P_GFX_DATA:
        return v->gfx[v->gfx_index & 15];
    case P_CRTC_INDEX:
        return v->crtc_index;
    case P_CRTC_DATA:
        return v->crtc[v->crtc_index & 31];
    case P_STATUS:
        return status1(v);
    default:
        return 0xff;
    }
}

static void attr_write(struct vga *v, uint8_t val)
{
    if (v->attr_data) {
        unsigned n = v->attr_index & 31;
        v->attr[n] = val & attr_valid[n];
    } else {
        v->attr_index = val & 0x3f; /* bit 5: the palette drives the screen */
    }
    v->attr_data = !v->attr_data;
}

static void crtc_write(struct vga *v, uint8_t val)
{
    unsigned n = v->crtc_index & 31;
    if (n > CRTC_LAST)
        return;
    if (n <= CRTC_OVERFLOW && v->crtc[CRTC_PROTECT_REG] & CRTC_PROTECT) {
        if (n == CRTC_OVERFLOW)
            v->crtc[n] = (uint8_t)((v->crtc[n] & ~CRTC_LINE_CMP8) | (val & CRTC_LINE_CMP8));
        return;
    }
    v->crtc[n] = val;
}

void vga_port_write(struct vga *v, unsigned off, uint8_t val)
{
    switch (active_port(v, off)) {
    case P_ATTR:
        attr_write(v, val);
        break;
    case P_MISC:
        v->misc = val & 0xef;
        break;
    case P_SEQ_INDEX:
        v->seq_index = val & 7;
        break;
    case P_SEQ_DATA:
        v->seq[v->seq_index & 7] = val & seq_valid[v->seq_index & 7];
        break;
    case P_DAC_MASK:
        v->dac_mask = val;
        break;
    case P_DAC_READ:
        dac_start(v, val, true);
        break;
    case P_DAC_WRITE:
        dac_start(v, val, false);
        break;
    case P_DAC_DATA:
        dac_write(v, val);
        break;
    case P_GFX_INDEX:
        v->gfx_index = val & 15;
        break;
    case P_GFX_DATA:
        v->gfx[v->gfx_index & 15] = val & gfx_valid[v->gfx_index & 15];
        break;
    case P_CRTC_INDEX:
        v->crtc_index = val & 31;
        break;
    case P_CRTC_DATA:
        crtc_write(v, val);
        break;
    case P_STATUS:
        v->feature = val & 0x10;
        break;
    default:
        break;
    }
}

static uint64_t port_read(void *dev, uint64_t off, unsigned size)
{
    return vga_port_read(dev, (unsigned)off);
}

static void port_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    vga_port_write(dev, (unsigned)off, (uint8_t)val);
}

/* ---- life ---- */

static void reset(void *dev)
{
    struct vga *v = dev;
    uint8_t *vram = v->vram;
    memset(v, 0, sizeof *v);
    v->vram = vram;
    v->misc = MISC_COLOR;
    v->dac_mask = 0xff;
    vga_vbe_reset(v);
    madvise(vram, VGA_VRAM_SIZE, MADV_DONTNEED); /* back to zeroes, and to the host */
}

int vga_init(struct vga *v, struct error *e)
{
    void *p = mmap(NULL, VGA_VRAM_SIZE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return error_set(e, ERR_NOMEM, "vga: no address space for video memory");
    v->vram = p;
    reset(v);
    return 0;
}

void vga_fini(struct vga *v)
{
    if (v->vram)
        munmap(v->vram, VGA_VRAM_SIZE);
    v->vram = NULL;
}

static const struct io_ops port_ops = {"vga", 1, port_read, port_write};

static int post_load(void *dev, struct error *e)
{
    return vga_vbe_check(dev, e);
}

static const struct field fields[] = {
    FIELD_NONE(struct vga, vram), /* a memory of its own in the stream: pc_state.c */
    FIELD(struct vga, misc),
    FIELD(struct vga, feature),
    FIELD(struct vga, retrace),
    FIELD(struct vga, seq_index),
    FIELD_ARRAY(struct vga, seq),
    FIELD(struct vga, gfx_index),
    FIELD_ARRAY(struct vga, gfx),
    FIELD(struct vga, crtc_index),
    FIELD_ARRAY(struct vga, crtc),
    FIELD(struct vga, attr_index),
    FIELD_ARRAY(struct vga, attr),
    FIELD(struct vga, attr_data),
    FIELD(struct vga, dac_mask),
    FIELD(struct vga, dac_index),
    FIELD(struct vga, dac_component, .max = 2),
    FIELD_ARRAY(struct vga, dac_latch),
    FIELD(struct vga, dac_reading),
    FIELD_ARRAY2(struct vga, palette),
    FIELD(struct vga, latch),
    FIELD(struct vga, vbe_index),
    FIELD_ARRAY(struct vga, vbe),
};
static const struct field_table table =
    FIELD_TABLE(struct vga, "vga", fields, .post_load = post_load);

const struct chip_desc vga_desc = {
    .fields = &table,
    .name = "vga",
    .reset = reset,
    .ranges =
        (const struct chip_range[]){
            {true, 0x3b0, 0x30, &port_ops},
            {true, 0x1ce, 3, &vga_vbe_port_ops},
            {false, 0xa0000, 0x20000, &vga_window_ops},
            {.len = 0},
        },
};
