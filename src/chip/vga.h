/*
 * vga.h - a VGA with the Bochs VBE extension, as QEMU's "stdvga" presents it to guests.
 * Sources: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (registers, memory
 * organisation); the Bochs VBE interface ("dispi"), version 0xB0C5.
 *
 * Video memory: byte p of the 32-bit word n is plane p of planar address n. A linear frame buffer
 * and chain-4 use the same bytes in order. It is host memory of its own and costs nothing until it
 * is touched.
 */
#ifndef SOSIA_CHIP_VGA_H
#define SOSIA_CHIP_VGA_H

#include "chip/chip.h"

#define VGA_VRAM_SIZE (16u * 1024 * 1024)
#define VGA_MMIO_SIZE 4096u

#define VGA_VBE_MAX_X 1920u
#define VGA_VBE_MAX_Y 1200u

enum vga_vbe_reg {
    VBE_ID,
    VBE_XRES,
    VBE_YRES,
    VBE_BPP,
    VBE_ENABLE,
    VBE_BANK,
    VBE_VIRT_WIDTH,
    VBE_VIRT_HEIGHT,
    VBE_X_OFFSET,
    VBE_Y_OFFSET,
    VBE_MEMORY_64K,
    VBE_NREGS,
};

struct vga {
    uint8_t *vram;
    uint8_t misc, feature;
    bool retrace; /* what input status 1 says next */
    uint8_t seq_index, seq[8];
    uint8_t gfx_index, gfx[16];
    uint8_t crtc_index, crtc[32];
    uint8_t attr_index, attr[32];
    bool attr_data; /* the next write to 0x3C0 is data */
    uint8_t dac_mask, dac_index, dac_component, dac_latch[3];
    bool dac_reading;
    uint8_t palette[256][3];
    uint32_t latch; /* the four planes of the last byte read */
    uint16_t vbe_index;
    uint16_t vbe[VBE_NREGS];
};

/* Ranges: ports 0x3B0-0x3DF and 0x1CE-0x1D0, memory 0xA0000-0xBFFFF. */
extern const struct chip_desc vga_desc;
extern const struct io_ops vga_lfb_ops;  /* VGA_VRAM_SIZE bytes */
extern const struct io_ops vga_mmio_ops; /* VGA_MMIO_SIZE bytes: the registers once more */

/* ERR_NOMEM. */
int vga_init(struct vga *v, struct error *e);
void vga_fini(struct vga *v);

/* The text screen, one line of text for each row with trailing blanks cut, NUL-terminated; bytes
 * that are not printable ASCII become '?'. Returns its length; 0 if a graphics mode is set. */
size_t vga_text(const struct vga *v, char *buf, size_t size);

/* ---- between the files of the chip ---- */

void vga_vbe_reset(struct vga *v);
int vga_vbe_check(const struct vga *v, struct error *e); /* of a loaded state */
uint16_t vga_vbe_read(const struct vga *v, unsigned reg);
void vga_vbe_write(struct vga *v, unsigned reg, uint16_t val);
static inline bool vga_vbe_enabled(const struct vga *v)
{
    return v->vbe[VBE_ENABLE] & 1;
}
extern const struct io_ops vga_window_ops;   /* 0xA0000 */
extern const struct io_ops vga_vbe_port_ops; /* 0x1CE */

/* One of the ports 0x3B0 + off. */
uint8_t vga_port_read(struct vga *v, unsigned off);
void vga_port_write(struct vga *v, unsigned off, uint8_t val);

#endif
