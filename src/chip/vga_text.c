/* vga_text.c - the text screen as text, for those who have only a terminal. */
#include "chip/vga.h"

enum {
    CRTC_H_DISPLAY_END = 0x01,
    CRTC_OVERFLOW = 0x07,
    CRTC_CELL_HEIGHT = 0x09,
    CRTC_START_HIGH = 0x0c,
    CRTC_START_LOW = 0x0d,
    CRTC_V_DISPLAY_END = 0x12,
    CRTC_OFFSET = 0x13,
};
#define GFX_MISC      6
#define MISC_GRAPHICS 1u

#define MAX_COLUMNS 132u
#define MAX_ROWS    60u
#define CELLS       0x8000u /* characters in the 64 KiB that text modes use of each plane */

static unsigned rows(const struct vga *v)
{
    unsigned overflow = v->crtc[CRTC_OVERFLOW];
    unsigned lines = v->crtc[CRTC_V_DISPLAY_END] | (overflow & 2) << 7 | (overflow & 0x40) << 3;
    unsigned height = (v->crtc[CRTC_CELL_HEIGHT] & 31) + 1u;
    return (unsigned)min_u64((lines + 1) / height, MAX_ROWS);
}

static char printable(uint8_t c)
{
    if (c == 0 || c == 0xff)
        return ' ';
    return c >= 0x20 && c < 0x7f ? (char)c : '?';
}

size_t vga_text(const struct vga *v, char *buf, size_t size)
{
    unsigned columns = (unsigned)min_u64(v->crtc[CRTC_H_DISPLAY_END] + 1u, MAX_COLUMNS);
    unsigned start = (unsigned)v->crtc[CRTC_START_HIGH] << 8 | v->crtc[CRTC_START_LOW];
    unsigned pitch = v->crtc[CRTC_OFFSET] * 2u;
    size_t n = 0;
    if (!size)
        return 0;
    bool graphics = v->gfx[GFX_MISC] & MISC_GRAPHICS || vga_vbe_enabled(v);
    for (unsigned y = 0; !graphics && y < rows(v) && n + 1 < size; y++) {
        size_t last = n; /* end of the line without trailing blanks */
        for (unsigned x = 0; x < columns && n + 2 < size; x++) {
            unsigned cell = (start + y * pitch + x) % CELLS;
            buf[n++] = printable(v->vram[4 * (size_t)cell]); /* plane 0: character codes */
            if (buf[n - 1] != ' ')
                last = n;
        }
        n = last;
        buf[n++] = '\n';
    }
    buf[n] = 0;
    return n;
}
