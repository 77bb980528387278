/* test_vga.c - VGA registers, memory modes, VBE, text screen, PCI function. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/endian.h"
#include "pci/vga_pci.h"

static struct space mem, port;
static struct pci_bus bus;
static struct vga v;

static int setup(void **state)
{
    unsigned id;
    if (vga_init(&v, NULL) || space_init(&mem, 1ull << 32, NULL, NULL) ||
        space_init(&port, 0x10000, NULL, NULL) || pci_bus_init(&bus, &mem, &port, NULL))
        return -1;
    for (const struct chip_range *r = vga_desc.ranges; r->len; r++)
        if (space_add_io(r->port ? &port : &mem, r->base, r->len, r->ops, &v, 0, &id, NULL))
            return -1;
    return 0;
}

static int teardown(void **state)
{
    vga_fini(&v);
    space_fini(&mem);
    space_fini(&port);
    return 0;
}

static uint8_t in(unsigned p)
{
    return (uint8_t)space_read(&port, p, 1);
}

static void out(unsigned p, uint8_t val)
{
    space_write(&port, p, val, 1);
}

/* Index and data at once, as programs do. */
static void seq(uint8_t n, uint8_t val)
{
    space_write(&port, 0x3c4, n | val << 8, 2);
}

static void gfx(uint8_t n, uint8_t val)
{
    space_write(&port, 0x3ce, n | val << 8, 2);
}

static void crtc(uint8_t n, uint8_t val)
{
    space_write(&port, 0x3d4, n | val << 8, 2);
}

static uint8_t peek(unsigned a)
{
    return (uint8_t)space_read(&mem, a, 1);
}

static void poke(unsigned a, uint8_t val)
{
    space_write(&mem, a, val, 1);
}

static uint16_t vbe_in(unsigned reg)
{
    space_write(&port, 0x1ce, reg, 2);
    return (uint16_t)space_read(&port, 0x1cf, 2);
}

static void vbe_out(unsigned reg, uint16_t val)
{
    space_write(&port, 0x1ce, reg, 2);
    space_write(&port, 0x1cf, val, 2);
}

static uint32_t word(unsigned n)
{
    return load_le32(v.vram + 4 * (size_t)n);
}

static void test_registers(void **state)
{
    in(0x3da); /* the attribute flip-flop to index */
    out(0x3c0, 0x10);
    out(0x3c0, 0xff);
    out(0x3c0, 0x30);
    assert_int_equal(in(0x3c1), 0xef);
    assert_int_equal(in(0x3c0), 0x30);
    in(0x3da);
    out(0x3c0, 0x31);
    assert_int_equal(in(0x3c0), 0x31);
    crtc(0x00, 0x5f);
    crtc(0x11, 0x80);
    crtc(0x00, 0x11); /* protected */
    crtc(0x07, 0xff); /* but for line compare bit 8 */
    out(0x3d4, 0);
    assert_int_equal(in(0x3d5), 0x5f);
    out(0x3d4, 7);
    assert_int_equal(in(0x3d5), 0x10);
    assert_int_equal(in(0x3b5), 0xff); /* the monochrome ports are off */
    out(0x3c2, 0x66);
    assert_int_equal(in(0x3cc), 0x66);
    assert_int_equal(in(0x3d5), 0xff);
    assert_int_equal(in(0x3b5), 0x10);
    out(0x3c2, 0x67);
    assert_true((in(0x3da) ^ in(0x3da)) & 8);
    for (unsigned p = 0x3b0; p < 0x3e0; p++) {
        for (unsigned i = 0; i < 256; i++)
            out(p, (uint8_t)i);
        in(p);
    }
}

static void test_dac(void **state)
{
    out(0x3c8, 255);
    for (unsigned i = 0; i < 6; i++)
        out(0x3c9, (uint8_t)(0xc0 + i));
    out(0x3c7, 255);
    assert_int_equal(in(0x3c7), 3);
    for (unsigned i = 0; i < 6; i++) /* wraps from 255 to 0; 6 bits */
        assert_int_equal(in(0x3c9), i);
    assert_int_equal(in(0x3c8), 1);
}

static void test_text(void **state)
{
    char buf[81 * 26];
    seq(2, 3), seq(4, 2), gfx(5, 0x10), gfx(6, 0x0e), gfx(8, 0xff);
    crtc(1, 79), crtc(9, 15), crtc(0x12, 0x8f), crtc(7, 2), crtc(0x13, 40);
    for (unsigned i = 0; i < 5; i++) {
        poke(0xb8000 + 2 * i, (uint8_t) "Sosia"[i]);
        poke(0xb8001 + 2 * i, 0x07);
    }
    poke(0xb8000 + 160 * 24 + 158, '!');
    poke(0xb8000 + 160, 0xdb);
    assert_int_equal(peek(0xb8002), 'o');
    assert_int_equal(peek(0xb8003), 7);
    assert_int_equal(peek(0xa0000), 0xff); /* only B8000-BFFFF is mapped */
    size_t n = vga_text(&v, buf, sizeof buf);
    assert_memory_equal(buf, "Sosia\n?\n\n", 9);
    assert_int_equal(buf[n - 2], '!');
    assert_int_equal(n, 6 + 2 + 22 + 81);
    crtc(0x0d, 80); /* scrolled by one line */
    vga_text(&v, buf, sizeof buf);
    assert_memory_equal(buf, "?\n", 2);
    assert_true(vga_text(&v, buf, 10) < 10);
    assert_int_equal(vga_text(&v, buf, 1), 0);
    crtc(1, 0xff), crtc(9, 0), crtc(0x12, 0xff), crtc(0x13, 0xff), crtc(0x0c, 0xff);
    vga_text(&v, buf, sizeof buf);
    gfx(6, 0x05);
    assert_int_equal(vga_text(&v, buf, sizeof buf), 0);
}

static void test_planar(void **state)
{
    seq(2, 0xf), seq(4, 6), gfx(5, 0), gfx(6, 5), gfx(8, 0xff);
    poke(0xa0010, 0x5a);
    assert_int_equal(word(0x10), 0x5a5a5a5a);
    seq(2, 5); /* planes 0 and 2 */
    poke(0xa0010, 0x11);
    assert_int_equal(word(0x10), 0x5a115a11);
    gfx(4, 1);
    assert_int_equal(peek(0xa0010), 0x5a);
    gfx(4, 2);
    assert_int_equal(peek(0xa0010), 0x11);
    seq(2, 0xf);
    gfx(0, 0x9), gfx(1, 0x3); /* set/reset planes 0 (1) and 1 (0) */
    poke(0xa0020, 0x77);
    assert_int_equal(word(0x20), 0x777700ff);
    gfx(1, 0), gfx(3, 0x04); /* rotate by 4 */
    poke(0xa0021, 0x12);
    assert_int_equal(word(0x21), 0x21212121);
    gfx(3, 0x18); /* xor with the latches */
    peek(0xa0021);
    poke(0xa0021, 0xff);
    assert_int_equal(word(0x21), 0xdededede);
    gfx(3, 0), gfx(8, 0x0f); /* only the low bits */
    peek(0xa0021);
    poke(0xa0021, 0x00);
    assert_int_equal(word(0x21), 0xd0d0d0d0);
    assert_int_equal(peek(0xb0000), 0xff); /* beyond the 64 KiB window */
}

static void test_write_modes(void **state)
{
    seq(2, 0xf), seq(4, 6), gfx(6, 5), gfx(8, 0xff);
    gfx(5, 0);
    poke(0xa0000, 0x81);
    gfx(5, 1); /* latches to another place */
    peek(0xa0000);
    poke(0xa0001, 0);
    assert_int_equal(word(1), 0x81818181);
    gfx(5, 2); /* the byte is a colour */
    poke(0xa0002, 0x0a);
    assert_int_equal(word(2), 0xff00ff00);
    gfx(5, 3), gfx(0, 0x6); /* the byte is a mask for the set/reset colour */
    peek(0xa0002);
    poke(0xa0002, 0xf0);
    assert_int_equal(word(2), 0x0ff0ff00);
    gfx(5, 8), gfx(2, 0x6), gfx(7, 0xf); /* read mode 1 */
    assert_int_equal(peek(0xa0002), 0xf0);
    gfx(7, 0);
    assert_int_equal(peek(0xa0002), 0xff);
}

static void test_chain4(void **state)
{
    seq(2, 0xf), seq(4, 0xe), gfx(5, 0x40), gfx(6, 5), gfx(8, 0xff);
    for (unsigned i = 0; i < 8; i++)
        poke(0xa0000 + i, (uint8_t)(0x10 + i));
    assert_int_equal(word(1), 0x17161514);
    assert_int_equal(peek(0xa0005), 0x15);
    seq(2, 1);
    poke(0xa0001, 0); /* plane 1 is masked */
    assert_int_equal(peek(0xa0001), 0x11);
}

static void test_vbe(void **state)
{
    assert_int_equal(vbe_in(VBE_ID), 0xb0c5);
    assert_int_equal(vbe_in(VBE_MEMORY_64K), 256);
    vbe_out(VBE_ENABLE, 2);
    assert_int_equal(vbe_in(VBE_XRES), 1920);
    assert_int_equal(vbe_in(VBE_BPP), 32);
    vbe_out(VBE_ENABLE, 1); /* no resolution yet: refused */
    assert_int_equal(vbe_in(VBE_ENABLE), 0);
    vbe_out(VBE_XRES, 1921), vbe_out(VBE_XRES, 1001);
    assert_int_equal(vbe_in(VBE_XRES), 0);
    vbe_out(VBE_XRES, 1920), vbe_out(VBE_YRES, 1200), vbe_out(VBE_BPP, 32);
    vga_lfb_ops.write(&v, 4, 0x12345678, 4);
    vbe_out(VBE_ENABLE, 0xc1);
    assert_int_equal(vbe_in(VBE_ENABLE), 0xc1);
    assert_int_equal(vga_lfb_ops.read(&v, 4, 4), 0x12345678); /* kept */
    assert_int_equal(vbe_in(VBE_VIRT_WIDTH), 1920);
    assert_int_equal(vbe_in(VBE_VIRT_HEIGHT), 16 * 1024 * 1024 / 7680);
    vbe_out(VBE_XRES, 640); /* not while enabled */
    assert_int_equal(vbe_in(VBE_XRES), 1920);
    vbe_out(VBE_Y_OFFSET, 984), vbe_out(VBE_Y_OFFSET, 985);
    assert_int_equal(vbe_in(VBE_Y_OFFSET), 984);
    vbe_out(VBE_VIRT_WIDTH, 0xffff);
    assert_int_equal(vbe_in(VBE_VIRT_WIDTH), 1920);
    vbe_out(VBE_BANK, 255);
    poke(0xaffff, 0x42); /* the last byte of video memory through the window */
    assert_int_equal(v.vram[VGA_VRAM_SIZE - 1], 0x42);
    vbe_out(VBE_BANK, 256);
    assert_int_equal(vbe_in(VBE_BANK), 255);
    seq(4, 6); /* planar with a bank beyond the planes: nothing there */
    assert_int_equal(peek(0xaffff), 0xff);
    poke(0xaffff, 1);
    vbe_out(VBE_ENABLE, 0), vbe_out(VBE_ENABLE, 0x41);
    assert_int_equal(vga_lfb_ops.read(&v, 4, 4), 0); /* cleared */
    for (unsigned r = 0; r < 32; r++)
        vbe_out(r, 0xffff), vbe_in(r);
    vbe_out(0xffff, 1), vbe_in(0xffff);
}

static void test_lfb(void **state)
{
    vga_lfb_ops.write(&v, VGA_VRAM_SIZE - 8, 0x1122334455667788, 8);
    assert_int_equal(vga_lfb_ops.read(&v, VGA_VRAM_SIZE - 4, 4), 0x11223344);
    vga_lfb_ops.write(&v, VGA_VRAM_SIZE - 1, 1, 2); /* out of bounds: nothing */
    assert_int_equal(vga_lfb_ops.read(&v, VGA_VRAM_SIZE, 1), 0);
    vga_desc.reset(&v);
    assert_int_equal(vga_lfb_ops.read(&v, VGA_VRAM_SIZE - 8, 8), 0);
}

static void test_pci(void **state)
{
    static struct vga_pci p;
    assert_int_equal(vga_pci_init(&p, &bus, PCI_DEVFN(2, 0), &v, 0, 0, NULL), 0);
    assert_int_equal(load_le32(p.pci.cfg), 0x11111234);
    uint32_t cf8 = 0x80000000u | PCI_DEVFN(2, 0) << 8;
    space_write(&port, 0xcf8, cf8 | 0x10, 4);
    space_write(&port, 0xcfc, 0xffffffff, 4);
    assert_int_equal(space_read(&port, 0xcfc, 4), 0xff000008);
    space_write(&port, 0xcfc, 0xfd000000, 4);
    space_write(&port, 0xcf8, cf8 | 0x18, 4);
    space_write(&port, 0xcfc, 0xfebf0000, 4);
    space_write(&port, 0xcf8, cf8 | 0x04, 4);
    space_write(&port, 0xcfc, 3, 2);
    space_write(&mem, 0xfd000010, 0xcafe, 2);
    assert_int_equal(v.vram[0x11], 0xca);
    assert_int_equal(space_read(&mem, 0xfebf0500, 2), 0xb0c5);
    assert_int_equal(space_read(&mem, 0xfebf0514, 2), 256);
    assert_int_equal(space_read(&mem, 0xfebf0600, 4), 8);
    assert_int_equal(space_read(&mem, 0xfebf0604, 4), 0x1e1e1e1e);
    space_write(&mem, 0xfebf0404, 0x0f02, 2); /* sequencer index and data */
    assert_int_equal(v.seq[2], 0x0f);
    assert_int_equal(space_read(&mem, 0xfebf0405, 1), 0x0f);
    for (unsigned off = 0; off < VGA_MMIO_SIZE; off++) {
        space_read(&mem, 0xfebf0000 + off, 4);
        space_write(&mem, 0xfebf0000 + off, 0xffffffff, 4);
    }
    pci_dev_fini(&p.pci);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_registers), T(test_dac), T(test_text), T(test_planar), T(test_write_modes),
        T(test_chain4),    T(test_vbe), T(test_lfb),  T(test_pci),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
