/* test_piix3_ide.c - the IDE function as a guest sees it: ports, and hostile scatter-gather lists.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/endian.h"
#include "fake_blk.h"
#include "pci/piix3_ide.h"

enum { ACTIVE = 1, ERROR = 2, INTERRUPT = 4 };
#define BM      0xc000u
#define TABLE   0x8000u
#define PRD_END 0x80000000u

static struct ram ram;
static struct space mem, port;
static struct pci_bus bus;
static struct piix3_ide ide;
static struct fake_blk disk;
static bool irq[16];

static void on_irq(void *ctx, unsigned line, bool level)
{
    irq[line] = level;
}

static void cfg_write(unsigned off, uint32_t val, unsigned size)
{
    space_write(&port, 0xcf8, 0x80000000u | PCI_DEVFN(1, 1) << 8 | (off & 0xfc), 4);
    space_write(&port, 0xcfc + (off & 3), val, size);
}

static uint32_t cfg_read(unsigned off)
{
    space_write(&port, 0xcf8, 0x80000000u | PCI_DEVFN(1, 1) << 8 | (off & 0xfc), 4);
    return (uint32_t)space_read(&port, 0xcfc, 4);
}

static int setup(void **state)
{
    const struct pin irq14 = {on_irq, NULL, 14}, irq15 = {on_irq, NULL, 15};
    memset(irq, 0, sizeof irq);
    fake_init(&disk);
    if (ram_init(&ram, 2 * MIB, NULL) || space_init(&mem, 1ull << 40, &ram, NULL) ||
        space_init(&port, 0x10000, NULL, NULL) || pci_bus_init(&bus, &mem, &port, NULL) ||
        space_add_ram(&mem, 0, 1 * MIB, 0, 0, NULL, NULL) ||
        space_add_ram(&mem, 4 * GIB, 1 * MIB, 1 * MIB, 0, NULL, NULL) ||
        piix3_ide_init(&ide, &bus, PCI_DEVFN(1, 1), irq14, irq15, NULL))
        return -1;
    ide_attach_disk(&ide.channel[0].ide, 0, &disk.blk, "disk", "1");
    cfg_write(0x20, BM | 1, 4);
    cfg_write(4, 5, 2); /* I/O, bus master */
    return 0;
}

static int teardown(void **state)
{
    piix3_ide_fini(&ide);
    space_fini(&mem);
    space_fini(&port);
    ram_fini(&ram);
    return 0;
}

static void prd(unsigned n, uint32_t addr, uint32_t word)
{
    store_le32(ram.host + TABLE + 8 * n, addr);
    store_le32(ram.host + TABLE + 8 * n + 4, word);
}

static void ata(uint8_t cmd, uint32_t lba, uint8_t count)
{
    space_write(&port, 0x1f6, 0xe0, 1);
    space_write(&port, 0x1f2, count, 1);
    space_write(&port, 0x1f3, lba, 1);
    space_write(&port, 0x1f4, lba >> 8, 1);
    space_write(&port, 0x1f5, lba >> 16, 1);
    space_write(&port, 0x1f7, cmd, 1);
}

static void bm_start(uint8_t command)
{
    space_write(&port, BM + 4, TABLE, 4);
    space_write(&port, BM, command, 1);
    space_write(&port, BM, command | 1u, 1);
}

static uint8_t bm_status(void)
{
    return (uint8_t)space_read(&port, BM + 2, 1);
}

static void identifies_itself(void **state)
{
    assert_int_equal(cfg_read(0), 0x70108086);
    assert_int_equal(cfg_read(8), 0x01018000);
    assert_int_equal(cfg_read(0x40), 0x80008000);
    cfg_write(0x20, 0xffffffff, 4);
    assert_int_equal(cfg_read(0x20), 0xfffffff1);
}

static void channels_have_their_ports_and_interrupts(void **state)
{
    assert_int_equal(space_read(&port, 0x1f7, 1), 0x50);
    assert_int_equal(space_read(&port, 0x3f6, 1), 0x50);
    assert_int_equal(space_read(&port, 0x177, 1), 0xff);
    assert_int_equal(space_read(&port, 0x3f7, 1), 0xff); /* the floppy's */
    ata(0xec, 0, 0);
    assert_true(irq[14]);
    assert_false(irq[15]);
    assert_int_equal(space_read(&port, 0x1f7, 1), 0x58);
    assert_false(irq[14]);
    ide_attach_cdrom(&ide.channel[1].ide, 0, NULL, "cd", "2");
    assert_int_equal(space_read(&port, 0x175, 1), 0xeb);
}

static void decode_can_be_switched_off(void **state)
{
    cfg_write(0x40, 0, 2);
    assert_int_equal(space_read(&port, 0x1f7, 1), 0xff);
    cfg_write(0x41, 0x80, 1);
    assert_int_equal(space_read(&port, 0x1f7, 1), 0x50);
}

static void scatter_gather_reads(void **state)
{
    prd(0, 0x1000, 512);
    prd(1, 0x5000, 1024);
    prd(2, 0x3000, 512 | PRD_END);
    bm_start(8);
    assert_int_equal(bm_status(), ACTIVE);
    ata(0xc8, 10, 4);
    assert_true(irq[14]);
    assert_int_equal(bm_status(), INTERRUPT);
    assert_memory_equal(ram.host + 0x1000, disk.data + 5120, 512);
    assert_memory_equal(ram.host + 0x5000, disk.data + 5632, 1024);
    assert_memory_equal(ram.host + 0x3000, disk.data + 6656, 512);
    space_write(&port, BM + 2, INTERRUPT, 1);
    assert_int_equal(bm_status(), 0);
}

static void scatter_gather_writes(void **state)
{
    memset(ram.host + 0x1000, 0x11, 700);
    memset(ram.host + 0x7000, 0x22, 324);
    prd(0, 0x1000, 700);
    prd(1, 0x7001, 325 | PRD_END); /* odd: the low bits do not count */
    ata(0xca, 0, 2);
    bm_start(0);
    assert_int_equal(bm_status(), INTERRUPT);
    assert_int_equal(disk.data[699], 0x11);
    assert_int_equal(disk.data[700], 0x22);
    assert_int_equal(disk.data[1023], 0x22);
}

static void a_longer_list_stays_active(void **state)
{
    prd(0, 0x1000, 0); /* 64 KiB */
    prd(1, 0x1000, 0 | PRD_END);
    bm_start(8);
    ata(0xc8, 0, 1);
    assert_int_equal(bm_status(), ACTIVE | INTERRUPT);
    space_write(&port, BM, 8, 1);
    assert_int_equal(bm_status(), INTERRUPT);
}

static void a_shorter_list_never_interrupts(void **state)
{
    prd(0, 0x1000, 256 | PRD_END);
    bm_start(8);
    ata(0xc8, 0, 1);
    assert_int_equal(bm_status(), 0);
    assert_false(irq[14]);
    assert_int_equal(space_read(&port, 0x3f6, 1), 0x80);
    space_write(&port, 0x3f6, 4, 1);
    space_write(&port, 0x3f6, 0, 1);
    assert_int_equal(space_read(&port, 0x3f6, 1), 0x50);
}

static void a_list_without_end_is_left_behind(void **state)
{
    for (unsigned i = 0; i < 0x2000; i++)
        prd(i, 0x20000, 2);
    bm_start(8);
    ata(0xc8, 0, 16);
    assert_int_equal(bm_status(), ACTIVE | INTERRUPT);
    assert_memory_equal(ram.host + 0x20000, disk.data + 8190, 2);
}

static void a_list_outside_memory_is_an_error(void **state)
{
    space_write(&port, BM + 4, 0xfffffffc, 4);
    space_write(&port, BM, 9, 1);
    ata(0xc8, 0, 1);
    assert_true(bm_status() & ERROR);
    pci_bus_reset(&bus);
    cfg_write(0x20, BM | 1, 4);
    cfg_write(4, 5, 2);
    prd(0, 0x80000000, 512 | PRD_END);
    bm_start(8);
    ata(0xc8, 0, 1);
    assert_int_equal(bm_status(), ERROR | INTERRUPT);
}

static void addresses_wrap_at_4g(void **state)
{
    memset(ram.host, 0, 0x1000);
    prd(0, 0xfffffe00, 1024 | PRD_END);
    bm_start(8);
    ata(0xc8, 0, 2);
    assert_int_equal(bm_status(), ERROR | INTERRUPT);
    assert_memory_equal(ram.host, disk.data + 512, 512);
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(ram.host[1 * MIB + i], 0);
}

static void the_direction_must_agree(void **state)
{
    prd(0, 0x1000, 512 | PRD_END);
    bm_start(0);
    ata(0xc8, 0, 1);
    assert_int_equal(bm_status(), ERROR);
    assert_int_equal(ram.host[0x1001], 0);
}

static void without_bus_mastering_nothing_moves(void **state)
{
    cfg_write(4, 1, 2);
    prd(0, 0x1000, 512 | PRD_END);
    bm_start(8);
    ata(0xc8, 0, 1);
    assert_int_equal(bm_status(), ERROR);
    assert_int_equal(ram.host[0x1001], 0);
}

static void cached_code_is_told(void **state)
{
    bool first;
    ram_code_mark(&ram, 0x1010, 1, &first);
    prd(0, 0x1000, 512 | PRD_END);
    bm_start(8);
    ata(0xc8, 0, 1);
    assert_false(ram_has_code(&ram, 0x1000));
}

static void the_interrupt_bit_follows_edges(void **state)
{
    ata(0xec, 0, 0);
    assert_int_equal(bm_status(), INTERRUPT);
    space_write(&port, BM + 2, INTERRUPT | 0x60, 1);
    assert_int_equal(bm_status(), 0x60);
    space_write(&port, 0x3f6, 0, 1); /* the level is still high: no new edge */
    assert_int_equal(bm_status(), 0x60);
}

static void reset_with_a_request_in_flight(void **state)
{
    disk.late = true;
    prd(0, 0x1000, 512 | PRD_END);
    bm_start(8);
    ata(0xc8, 0, 1);
    pci_bus_reset(&bus);
    assert_true(fake_complete(&disk));
    assert_int_equal(ram.host[0x1001], 0);
    assert_false(irq[14]);
    assert_int_equal(space_read(&port, 0x1f7, 1), 0x50);
}

static void wide_register_accesses_work(void **state)
{
    space_write(&port, BM + 4, 0x12345677, 4);
    assert_int_equal(space_read(&port, BM + 4, 4), 0x12345674);
    assert_int_equal(space_read(&port, BM + 12, 4), 0);
    assert_int_equal(space_read(&port, BM, 4), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(identifies_itself),
        TEST(channels_have_their_ports_and_interrupts),
        TEST(decode_can_be_switched_off),
        TEST(scatter_gather_reads),
        TEST(scatter_gather_writes),
        TEST(a_longer_list_stays_active),
        TEST(a_shorter_list_never_interrupts),
        TEST(a_list_without_end_is_left_behind),
        TEST(a_list_outside_memory_is_an_error),
        TEST(addresses_wrap_at_4g),
        TEST(the_direction_must_agree),
        TEST(without_bus_mastering_nothing_moves),
        TEST(cached_code_is_told),
        TEST(the_interrupt_bit_follows_edges),
        TEST(reset_with_a_request_in_flight),
        TEST(wide_register_accesses_work),
    };
    return cmocka_run_group_tests_name("piix3_ide", tests, NULL, NULL);
}
