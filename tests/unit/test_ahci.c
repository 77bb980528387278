/* test_ahci.c - the AHCI controller through its registers: commands, queued commands, errors,
 * resets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "chip/ahci.h"
#include "late_blk.h"
#include "vdriver.h"

enum { CAP = 0, GHC = 4, IS = 8, PI = 12, VS = 16 };
enum {
    CLB = 0x00,
    FB = 0x08,
    PIS = 0x10,
    PIE = 0x14,
    CMD = 0x18,
    TFD = 0x20,
    SIG = 0x24,
    SSTS = 0x28,
    SCTL = 0x2c,
    SERR = 0x30,
    SACT = 0x34,
    CI = 0x38,
};
#define LIST    0x1000u
#define FRAMES  0x2000u
#define TABLE   0x4000u /* slot n's is 0x400 n further */
#define DATA    0x20000u
#define RUNNING 0x11u /* ST, FRE */
#define CR      0x8000u
#define TFES    0x40000000u
#define HBFS    0x20000000u
#define OFS     0x01000000u

static struct ahci ahci;
static struct late_blk disk, cd;
static bool irq;

static void on_irq(void *ctx, unsigned line, bool level)
{
    irq = level;
}

static uint32_t rd(unsigned off)
{
    return (uint32_t)ahci_ops.read(&ahci, off, 4);
}

static void wr(unsigned off, uint32_t val)
{
    ahci_ops.write(&ahci, off, val, 4);
}

static uint32_t prd(unsigned reg) /* port 0 */
{
    return rd(0x100 + reg);
}

static void pwr(unsigned reg, uint32_t val)
{
    wr(0x100 + reg, val);
}

static void start_port(unsigned n)
{
    unsigned base = 0x100 + 0x80 * n;
    wr(base + CLB, LIST);
    wr(base + FB, FRAMES);
    wr(base + SERR, 0xffffffff);
    wr(base + PIE, 0xffffffff);
    wr(base + CMD, RUNNING);
    wr(GHC, 2);
}

static int setup(void **state)
{
    irq = false;
    late_init(&disk);
    late_init(&cd);
    cd.blk.readonly = true;
    if (guest_init() || ahci_init(&ahci, &space, (struct pin){on_irq, NULL, 0}, NULL) ||
        ahci_attach_disk(&ahci, 0, &disk.blk, "DISK", "S1", NULL))
        return -1;
    ahci_attach_cdrom(&ahci, 1, &cd.blk, "CD", "S2");
    ahci_set_dma(&ahci, true);
    start_port(0);
    return 0;
}

static int teardown(void **state)
{
    late_all(&disk, -EIO);
    late_all(&cd, -EIO);
    ahci_fini(&ahci);
    guest_fini();
    return 0;
}

/* ---- commands ---- */

static uint8_t *fis_of(unsigned slot)
{
    return ram.host + TABLE + 0x400 * slot;
}

static void put_prd(unsigned slot, unsigned i, gpa_t addr, uint32_t len)
{
    uint8_t *p = fis_of(slot) + 0x80 + 16 * i;
    store_le64(p, addr);
    store_le32(p + 8, 0);
    store_le32(p + 12, len - 1);
}

/* A command of one piece of memory; `len` 0: none. */
static void command(unsigned slot, uint8_t cmd, uint64_t lba, uint16_t count, gpa_t addr,
                    uint32_t len)
{
    uint8_t *h = ram.host + LIST + 32 * slot, *f = fis_of(slot);
    memset(h, 0, 32);
    memset(f, 0, 0x80);
    store_le32(h, 5 | (len ? 1u << 16 : 0));
    store_le64(h + 8, TABLE + 0x400 * slot);
    f[0] = 0x27;
    f[1] = 0x80;
    f[2] = cmd;
    f[7] = 0x40;
    for (unsigned i = 0; i < 3; i++) {
        f[4 + i] = (uint8_t)(lba >> (8 * i));
        f[8 + i] = (uint8_t)(lba >> (24 + 8 * i));
    }
    f[12] = (uint8_t)count;
    f[13] = (uint8_t)(count >> 8);
    if (len)
        put_prd(slot, 0, addr, len);
}

static void queued(unsigned slot, bool write, uint64_t lba, uint16_t count, gpa_t addr,
                   uint32_t len)
{
    command(slot, write ? 0x61 : 0x60, lba, 0, addr, len);
    uint8_t *f = fis_of(slot);
    f[3] = (uint8_t)count;
    f[11] = (uint8_t)(count >> 8);
    f[12] = (uint8_t)(slot << 3);
}

static void issue(unsigned slot)
{
    pwr(CI, 1u << slot);
}

static void issue_queued(uint32_t slots)
{
    pwr(SACT, slots);
    pwr(CI, slots);
}

static uint32_t count_of(unsigned slot)
{
    return load_le32(ram.host + LIST + 32 * slot + 4);
}

/* ---- tests ---- */

static void what_it_says_about_itself(void **state)
{
    assert_int_equal(rd(CAP) & 0x1f, AHCI_PORTS - 1);
    assert_int_equal(rd(CAP) >> 8 & 0x1f, 31);
    assert_int_equal(rd(PI), 0x3f);
    assert_int_equal(rd(VS), 0x10301);
    assert_int_equal(rd(GHC) >> 31, 1);
    assert_int_equal(prd(SIG), 0x101);
    assert_int_equal(rd(0x180 + SIG), 0xeb140101);
    assert_int_equal(rd(0x200 + SIG), 0xffffffff);
    assert_int_equal(prd(SSTS), 0x133);
    assert_int_equal(rd(0x200 + SSTS), 0);
    assert_int_equal(prd(TFD), 0x150);
    assert_int_equal(rd(0x200 + TFD), 0x7f);
    assert_int_equal(rd(0x400), 0); /* no seventh port */
    wr(0xffc, 1);
}

static void identify_is_pio(void **state)
{
    command(3, 0xec, 0, 0, DATA, 512);
    issue(3);
    assert_int_equal(prd(CI), 0);
    assert_int_equal(prd(PIS) & 3, 2); /* PIO setup, no register frame */
    assert_true(irq);
    assert_int_equal(rd(IS), 1);
    assert_int_equal(count_of(3), 512);
    assert_int_equal(ram.host[FRAMES + 0x20], 0x5f);
    assert_int_equal(ram.host[FRAMES + 0x20 + 15], 0x50);
    const uint8_t *id = ram.host + DATA;
    assert_int_equal(load_le16(id + 2 * 76) & 0x100, 0x100);
    assert_int_equal(load_le16(id + 2 * 169), 1);
    pwr(PIS, 0xffffffff);
    assert_true(irq); /* the controller's own bit is still set */
    wr(IS, 1);
    assert_false(irq);
}

static void dma_through_several_pieces(void **state)
{
    command(0, 0x25, 5, 4, DATA, 600);
    store_le32(ram.host + LIST, 5 | 3u << 16);
    put_prd(0, 1, DATA + 0x1000, 2);
    put_prd(0, 2, DATA + 0x2000, 4096);
    issue(0);
    assert_int_equal(prd(CI), 1);
    assert_int_equal(prd(TFD) & 0x80, 0x80);
    late_one(&disk, 0, 0);
    assert_int_equal(prd(CI), 0);
    assert_int_equal(prd(PIS) & 3, 1);
    assert_int_equal(ram.host[FRAMES + 0x40], 0x34);
    assert_memory_equal(ram.host + DATA, disk.data + 5 * 512, 600);
    assert_memory_equal(ram.host + DATA + 0x1000, disk.data + 5 * 512 + 600, 2);
    assert_memory_equal(ram.host + DATA + 0x2000, disk.data + 5 * 512 + 602, 2048 - 602);
    assert_int_equal(count_of(0), 2048);
}

static void a_list_that_is_too_short(void **state)
{
    command(0, 0x25, 5, 4, DATA, 600);
    issue(0);
    late_one(&disk, 0, 0);
    assert_int_equal(prd(PIS) & (OFS | TFES), OFS | TFES);
    assert_int_equal(prd(CI), 1); /* the command that failed keeps its bit */
    assert_int_equal(prd(TFD), 0x0451);
    command(1, 0xe7, 0, 0, 0, 0);
    issue(1); /* and nothing goes on */
    assert_int_equal(disk.n, 0);
    pwr(CMD, 0x10);
    assert_int_equal(prd(CI), 0);
    pwr(CMD, RUNNING);
    issue(1);
    assert_int_equal(disk.n, 1);
}

static void memory_that_is_none(void **state)
{
    command(0, 0x25, 5, 4, GUEST_RAM, 2048);
    issue(0);
    late_one(&disk, 0, 0);
    assert_true(prd(PIS) & HBFS);
    pwr(CMD, 0x10);
    pwr(PIS, 0xffffffff);
    pwr(CLB, GUEST_RAM);
    pwr(CMD, RUNNING);
    issue(0);
    assert_true(prd(PIS) & HBFS);
    pwr(CMD, 0x10);
    pwr(CLB, LIST);
    pwr(PIS, 0xffffffff);
    pwr(CMD, RUNNING);
    ram.host[TABLE] = 0x41; /* a frame of another type */
    issue(0);
    assert_true(prd(PIS) & 0x08000000);
}

static void queued_commands_overtake(void **state)
{
    for (unsigned i = 0; i < 32; i++)
        queued(i, false, i, 1, DATA + 512 * i, 512);
    issue_queued(0xffffffff);
    assert_int_equal(prd(CI), 0); /* accepted */
    assert_int_equal(prd(SACT), 0xffffffff);
    assert_int_equal(disk.n, 32);
    late_one(&disk, 31, 0);
    late_one(&disk, 3, 0);
    assert_int_equal(prd(SACT), 0x7ffffff7);
    assert_int_equal(prd(PIS) & 8, 8);
    assert_int_equal(ram.host[FRAMES + 0x58], 0xa1);
    assert_int_equal(load_le32(ram.host + FRAMES + 0x5c), 8);
    late_all(&disk, 0);
    assert_int_equal(prd(SACT), 0);
    for (unsigned i = 0; i < 32; i++)
        assert_memory_equal(ram.host + DATA + 512 * i, disk.data + 512 * i, 512);
}

static void queued_writes(void **state)
{
    memset(ram.host + DATA, 0x5a, 1024);
    queued(7, true, 9, 2, DATA, 1024);
    fis_of(7)[7] |= 0x80; /* FUA */
    issue_queued(1 << 7);
    assert_true(disk.req[0]->fua);
    late_one(&disk, 0, 0);
    assert_int_equal(disk.data[9 * 512], 0x5a);
    assert_int_equal(disk.data[11 * 512 - 1], 0x5a);
    queued(7, true, 9, 2, DATA, 1024);
    issue_queued(1 << 7);
    assert_false(disk.req[0]->fua);
    disk.blk.readonly = true;
    queued(8, true, 9, 2, DATA, 1024);
    issue_queued(1 << 8);
    assert_true(prd(PIS) & TFES);
    disk.blk.readonly = false;
}

/* 300 pieces of 512 bytes, the first a byte pair short: more than one request, on sectors. */
static void long_lists_take_several_requests(void **state)
{
    queued(0, false, 100, 300, DATA, 510);
    store_le32(ram.host + LIST, 5 | 301u << 16);
    for (unsigned i = 1; i <= 299; i++)
        put_prd(0, i, DATA + 510 + 512 * (i - 1), 512);
    put_prd(0, 300, DATA + 510 + 512 * 299, 2);
    issue_queued(1);
    assert_int_equal(disk.n, 1);
    assert_int_equal(disk.req[0]->len, 255 * 512);
    late_one(&disk, 0, 0);
    assert_int_equal(prd(SACT), 1);
    assert_int_equal(disk.req[0]->offset, (100 + 255) * 512);
    late_one(&disk, 0, 0);
    assert_int_equal(prd(SACT), 0);
    assert_int_equal(count_of(0), 300 * 512);
    assert_memory_equal(ram.host + DATA, disk.data + 100 * 512, 300 * 512);
}

static void a_queued_error_stops_all(void **state)
{
    for (unsigned i = 0; i < 3; i++)
        queued(i, false, 40 + i, 1, DATA + 512 * i, 512);
    issue_queued(7);
    late_one(&disk, 1, -EIO);
    assert_true(prd(PIS) & TFES);
    assert_int_equal(prd(SACT), 7);
    assert_int_equal(prd(TFD), 0x4041);
    pwr(CMD, 0x10);
    assert_int_equal(prd(SACT), 0);
    assert_true(prd(CMD) & CR); /* two are still writing memory */
    late_all(&disk, 0);
    assert_false(prd(CMD) & CR);
    assert_int_equal(prd(SACT), 0);
    pwr(PIS, 0xffffffff);
    pwr(CMD, RUNNING);
    command(0, 0x2f, 0x10, 1, DATA, 512); /* READ LOG EXT */
    issue(0);
    assert_int_equal(prd(CI), 0);
    assert_int_equal(ram.host[DATA], 1);
    assert_int_equal(ram.host[DATA + 3], 0x40);
    assert_int_equal(ram.host[DATA + 4], 41);
}

static void bad_queued_commands(void **state)
{
    uint64_t last = disk.blk.size / 512;
    queued(0, false, last, 1, DATA, 512);
    issue_queued(1);
    assert_true(prd(PIS) & TFES);
    assert_int_equal(prd(TFD), 0x1041);
    pwr(CMD, 0x10);
    pwr(PIS, 0xffffffff);
    pwr(CMD, RUNNING);
    queued(0, false, 0, 0, DATA, 512); /* 65536 sectors are more than the disk has */
    issue_queued(1);
    assert_true(prd(PIS) & TFES);
    pwr(CMD, 0x10);
    pwr(PIS, 0xffffffff);
    pwr(CMD, RUNNING);
    queued(0, false, 0, 1, DATA, 512);
    fis_of(0)[12] = 5 << 3; /* another slot's tag */
    issue_queued(1);
    assert_true(prd(PIS) & TFES);
    pwr(CMD, 0x10);
    pwr(PIS, 0xffffffff);
    pwr(CMD, RUNNING);
    queued(0, false, 0, 2, DATA, 1024 - 2);
    issue_queued(1);
    late_all(&disk, 0);
    assert_int_equal(prd(PIS) & (OFS | TFES), OFS | TFES);
    assert_int_equal(disk.n, 0);
}

static void trim(void **state)
{
    memset(ram.host + DATA, 0, 512);
    store_le64(ram.host + DATA, 8ull | 16ull << 48);
    store_le64(ram.host + DATA + 16, 100ull | 1ull << 48);
    command(0, 0x06, 0, 1, DATA, 512);
    fis_of(0)[3] = 1;
    issue(0);
    assert_int_equal(disk.req[0]->op, BLK_DISCARD);
    assert_int_equal(disk.req[0]->offset, 8 * 512);
    assert_int_equal(disk.req[0]->len, 16 * 512);
    late_one(&disk, 0, 0);
    assert_int_equal(disk.req[0]->offset, 100 * 512);
    late_one(&disk, 0, 0);
    assert_int_equal(prd(CI), 0);
    assert_int_equal(prd(TFD), 0x50);
    store_le64(ram.host + DATA + 504, 0xffffffffffffull | 1ull << 48);
    issue(0);
    assert_int_equal(disk.n, 0); /* not even the good ranges */
    assert_true(prd(PIS) & TFES);
}

static void flush_and_non_data(void **state)
{
    command(0, 0xea, 0, 0, 0, 0);
    command(1, 0xe5, 0, 0, 0, 0);
    pwr(CI, 3); /* one after the other */
    assert_int_equal(disk.req[0]->op, BLK_FLUSH);
    assert_int_equal(prd(CI), 3);
    late_one(&disk, 0, 0);
    assert_int_equal(prd(CI), 0);
    assert_int_equal(ram.host[FRAMES + 0x40 + 12], 0xff);
    command(2, 0x90, 0, 0, 0, 0); /* EXECUTE DEVICE DIAGNOSTIC */
    issue(2);
    assert_int_equal(prd(CI), 0);
    assert_int_equal(prd(TFD), 0x150);
}

static void packets(void **state)
{
    wr(0x180 + CLB, LIST);
    start_port(1);
    command(0, 0xa0, 0, 0, DATA, 2048);
    uint8_t *f = fis_of(0);
    store_le32(ram.host + LIST, 5 | 0x20 | 1u << 16);
    f[3] = 1; /* DMA */
    static const uint8_t test_unit_ready[12] = {0}, read10[12] = {0x28, 0, 0, 0, 0, 3, 0, 0, 1};
    memcpy(f + 0x40, read10, 12);
    wr(0x180 + CI, 1);
    late_one(&cd, 0, 0);
    assert_int_equal(rd(0x180 + CI), 0);
    assert_memory_equal(ram.host + DATA, cd.data + 3 * 2048, 2048);
    memcpy(f + 0x40, test_unit_ready, 12);
    f[3] = 0;
    wr(0x180 + CI, 1);
    assert_int_equal(rd(0x180 + CI), 0);
    f[0x40] = 0xff;
    wr(0x180 + CI, 1);
    assert_true(rd(0x180 + PIS) & TFES); /* check condition */
    assert_int_equal(rd(0x180 + TFD) >> 12, 5);
}

static void software_reset(void **state)
{
    command(0, 0x25, 5, 4, DATA, 2048);
    issue(0);
    pwr(CMD, 0x10);
    assert_true(prd(TFD) & 0x80);
    pwr(CMD, 0x18); /* command list override */
    assert_int_equal(prd(TFD) & 0x88, 0);
    assert_int_equal(prd(CMD) & 8, 0);
    pwr(CMD, RUNNING);
    command(0, 0, 0, 0, 0, 0);
    fis_of(0)[1] = 0;
    fis_of(0)[15] = 4;
    issue(0);
    assert_int_equal(prd(CI), 0);
    memset(ram.host + FRAMES, 0, 256);
    fis_of(0)[15] = 0;
    issue(0);
    assert_int_equal(prd(CI), 0);
    assert_int_equal(prd(TFD), 0x150);
    assert_int_equal(ram.host[FRAMES + 0x40], 0x34);
    memset(ram.host + DATA, 0, 2048);
    late_one(&disk, 0, 0); /* the request of before goes nowhere */
    assert_int_equal(ram.host[DATA], 0);
    assert_int_equal(prd(CI), 0);
    command(0, 0x25, 5, 1, DATA, 512);
    issue(0);
    late_one(&disk, 0, 0);
    assert_memory_equal(ram.host + DATA, disk.data + 5 * 512, 512);
}

static void link_reset_waits_for_requests(void **state)
{
    queued(0, false, 0, 1, DATA, 512);
    issue_queued(1);
    pwr(CMD, 0x10);
    pwr(SCTL, 0x301);
    assert_int_equal(prd(SSTS), 0);
    pwr(SCTL, 0x300);
    assert_int_equal(prd(TFD), 0x80); /* not yet */
    late_one(&disk, 0, 0);
    assert_int_equal(prd(TFD), 0x150);
    assert_int_equal(prd(SSTS), 0x133);
    assert_int_equal(prd(SERR), 1u << 26);
    assert_true(prd(PIS) & 0x40);
    pwr(SERR, 0xffffffff);
    assert_false(prd(PIS) & 0x40);
    pwr(SCTL, 4);
    assert_int_equal(prd(SSTS), 4);
}

static void controller_reset_waits_for_requests(void **state)
{
    queued(0, false, 0, 1, DATA, 512);
    issue_queued(1);
    wr(GHC, 1);
    assert_int_equal(rd(GHC) & 1, 1);
    assert_false(irq);
    late_one(&disk, 0, 0);
    assert_int_equal(rd(GHC), 0x80000000);
    assert_int_equal(prd(CMD) & 0xf019, 0);
    assert_int_equal(prd(TFD), 0x150);
    assert_int_equal(prd(CLB), 0);
    start_port(0);
    queued(0, false, 0, 1, DATA, 512);
    issue_queued(1);
    late_one(&disk, 0, 0);
    assert_int_equal(prd(SACT), 0);
}

/* A slot whose old request is in flight is not used anew until that is back. */
static void a_busy_slot_waits(void **state)
{
    queued(0, false, 0, 1, DATA, 512);
    issue_queued(1);
    pwr(CMD, 0x10);
    pwr(CMD, RUNNING); /* a driver has to wait for CR; this one does not */
    queued(0, false, 7, 1, DATA + 512, 512);
    issue_queued(1);
    assert_int_equal(disk.n, 1);
    late_one(&disk, 0, 0);
    assert_int_equal(disk.n, 1);
    late_one(&disk, 0, 0);
    assert_memory_equal(ram.host + DATA + 512, disk.data + 7 * 512, 512);
    assert_int_equal(prd(SACT), 0);
}

static void nothing_without_bus_mastering(void **state)
{
    ahci_set_dma(&ahci, false);
    command(0, 0xec, 0, 0, DATA, 512);
    issue(0);
    assert_int_equal(prd(CI), 1);
    assert_int_equal(ram.host[DATA], 0);
    ahci_set_dma(&ahci, true);
    assert_int_equal(prd(CI), 0);
}

static void a_disk_that_shrank(void **state)
{
    uint64_t size = disk.blk.size;
    disk.blk.size = size / 2;
    queued(0, false, size / 1024, 1, DATA, 512);
    issue_queued(1);
    assert_true(prd(PIS) & TFES);
    pwr(CMD, 0x10);
    pwr(CMD, RUNNING);
    command(0, 0x35, size / 1024, 1, DATA, 512);
    issue(0);
    assert_int_equal(disk.n, 0);
    assert_int_equal(prd(TFD) & 1, 1);
    disk.blk.size = size;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_it_says_about_itself),
        T(identify_is_pio),
        T(dma_through_several_pieces),
        T(a_list_that_is_too_short),
        T(memory_that_is_none),
        T(queued_commands_overtake),
        T(queued_writes),
        T(long_lists_take_several_requests),
        T(a_queued_error_stops_all),
        T(bad_queued_commands),
        T(trim),
        T(flush_and_non_data),
        T(packets),
        T(software_reset),
        T(link_reset_waits_for_requests),
        T(controller_reset_waits_for_requests),
        T(a_busy_slot_waits),
        T(nothing_without_bus_mastering),
        T(a_disk_that_shrank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
