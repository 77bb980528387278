/* test_atapi.c - a CD-ROM drive: packet phases, sense data, replies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/endian.h"
#include "chip/ide.h"
#include "fake_blk.h"

enum { BSY = 0x80, READY = 0x50, DRQ = 0x08, ERR = 0x01 };
#define CD_SECTORS (FAKE_SIZE / 2048)

static struct ide_channel ch;
static struct fake_blk disc;
static bool irq;
static uint8_t dma_mem[FAKE_SIZE];
static size_t dma_pos;

static void on_irq(void *ctx, unsigned line, bool level)
{
    irq = level;
}

static size_t dma_move(void *ctx, uint8_t *buf, size_t n, bool to_guest)
{
    assert_true(to_guest && dma_pos + n <= sizeof dma_mem);
    memcpy(dma_mem + dma_pos, buf, n);
    dma_pos += n;
    return n;
}

static int setup(void **state)
{
    dma_pos = 0;
    irq = false;
    fake_init(&disc);
    disc.blk.readonly = true;
    if (ide_init(&ch, (struct pin){on_irq, NULL, 0}, NULL))
        return -1;
    ch.dma.move = dma_move;
    ide_attach_cdrom(&ch, 0, &disc.blk, "CD-ROM", "SN1");
    return 0;
}

static int teardown(void **state)
{
    ide_fini(&ch);
    return 0;
}

static uint8_t in(unsigned reg)
{
    return (uint8_t)ide_command_ops.read(&ch, reg, 1);
}

static void out(unsigned reg, uint8_t val)
{
    ide_command_ops.write(&ch, reg, val, 1);
}

/* Sends a packet up to its data or status phase. */
static void packet(const uint8_t cdb[12], uint8_t feature, uint16_t limit)
{
    out(IDE_FEATURE, feature);
    out(IDE_LBA1, (uint8_t)limit);
    out(IDE_LBA2, (uint8_t)(limit >> 8));
    out(IDE_STATUS, 0xa0);
    assert_false(irq);
    assert_int_equal(in(IDE_STATUS), READY | DRQ);
    assert_int_equal(in(IDE_COUNT), 1);
    for (unsigned i = 0; i < 12; i += 2)
        ide_command_ops.write(&ch, 0, load_le16(cdb + i), 2);
}

/* Receives all blocks; returns the bytes and sets *blocks (may be NULL). */
static unsigned receive(uint8_t *buf, unsigned *blocks)
{
    unsigned total = 0, n = 0;
    while (in(IDE_STATUS)&DRQ) {
        assert_int_equal(in(IDE_COUNT), 2);
        unsigned len = in(IDE_LBA1) | (unsigned)in(IDE_LBA2) << 8;
        assert_true(len);
        for (unsigned i = 0; i < len; i += 2) {
            uint16_t w = (uint16_t)ide_command_ops.read(&ch, 0, 2);
            buf[total + i] = (uint8_t)w;
            if (i + 1 < len)
                buf[total + i + 1] = (uint8_t)(w >> 8);
        }
        total += len;
        n++;
    }
    assert_int_equal(in(IDE_COUNT), 3);
    if (blocks)
        *blocks = n;
    return total;
}

static unsigned simple(const uint8_t cdb[12], uint8_t *buf)
{
    packet(cdb, 0, 0xfffe);
    return receive(buf, NULL);
}

#define CDB(...) ((const uint8_t[12]){__VA_ARGS__})

/* The sense key and codes of the last command, as key << 16 | ASC << 8 | ASCQ. */
static unsigned sense(void)
{
    uint8_t s[18];
    assert_int_equal(simple(CDB(0x03, 0, 0, 0, 18), s), 18);
    return (unsigned)s[2] << 16 | (unsigned)s[12] << 8 | s[13];
}

static unsigned failed(const uint8_t cdb[12])
{
    packet(cdb, 0, 0xfffe);
    assert_true(irq);
    assert_int_equal(in(IDE_STATUS), READY | ERR);
    assert_int_equal(in(IDE_COUNT), 3);
    uint8_t key = in(IDE_FEATURE) >> 4;
    unsigned s = sense();
    assert_int_equal(s >> 16, key);
    return s;
}

static void signature_tells_a_packet_device(void **state)
{
    assert_int_equal(in(IDE_STATUS), 0);
    assert_int_equal(in(IDE_LBA1), 0x14);
    assert_int_equal(in(IDE_LBA2), 0xeb);
    out(IDE_LBA1, 0);
    out(IDE_STATUS, 0xec);
    assert_int_equal(in(IDE_STATUS), READY | ERR);
    assert_int_equal(in(IDE_LBA1), 0x14);
    out(IDE_LBA1, 0);
    out(IDE_STATUS, 0x20);
    assert_int_equal(in(IDE_LBA2), 0xeb);
}

static void identify_packet_works(void **state)
{
    uint8_t id[512];
    out(IDE_STATUS, 0xa1);
    assert_int_equal(in(IDE_STATUS), READY | DRQ);
    for (unsigned i = 0; i < 512; i += 2)
        store_le16(id + i, (uint16_t)ide_command_ops.read(&ch, 0, 2));
    assert_int_equal(load_le16(id), 0x85c0);
    assert_int_equal(in(IDE_STATUS), READY);
}

static void device_reset_ends_a_command(void **state)
{
    disc.late = true;
    packet(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0, 2048);
    assert_int_equal(in(IDE_STATUS), BSY);
    out(IDE_STATUS, 0x08);
    signature_tells_a_packet_device(state);
    assert_true(fake_complete(&disc));
    packet(CDB(0x00), 0, 0);
    assert_int_equal(in(IDE_STATUS), READY);
}

static void inquiry_is_cut_to_the_allocation(void **state)
{
    uint8_t buf[64];
    assert_int_equal(simple(CDB(0x12, 0, 0, 0, 96), buf), 36);
    assert_int_equal(buf[0], 5);
    assert_memory_equal(buf + 8, "SOSIA   CD-ROM          1.0 ", 28);
    assert_int_equal(simple(CDB(0x12, 0, 0, 0, 5), buf), 5);
    assert_int_equal(simple(CDB(0x12, 0, 0, 0, 0), buf), 0);
    assert_int_equal(failed(CDB(0x12, 1, 0x83, 0, 36)), 0x052400);
}

static void capacity_names_the_last_block(void **state)
{
    uint8_t buf[8];
    assert_int_equal(simple(CDB(0x25), buf), 8);
    assert_int_equal(load_be32(buf), CD_SECTORS - 1);
    assert_int_equal(load_be32(buf + 4), 2048);
}

static void read_honours_the_byte_count_limit(void **state)
{
    static uint8_t buf[16384];
    unsigned blocks;
    packet(CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 4), 0, 2048);
    assert_true(irq);
    assert_int_equal(receive(buf, &blocks), 8192);
    assert_int_equal(blocks, 4);
    assert_memory_equal(buf, disc.data + 3 * 2048, 8192);
    packet(CDB(0xa8, 0, 0, 0, 0, 1, 0, 0, 0, 2), 0, 1001); /* odd: blocks of 1000 */
    assert_int_equal(receive(buf, &blocks), 4096);
    assert_int_equal(blocks, 5);
    assert_memory_equal(buf, disc.data + 2048, 4096);
    packet(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0, 1);
    assert_int_equal(receive(buf, &blocks), 2048);
    assert_int_equal(blocks, 1024);
}

static void dma_reads_all(void **state)
{
    ide_dma_start(&ch);
    packet(CDB(0x28, 0, 0, 0, 0, 0, 0, 1, 0), 1, 0);
    assert_true(irq);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(in(IDE_COUNT), 3);
    assert_int_equal(dma_pos, 256 * 2048);
    assert_memory_equal(dma_mem, disc.data, dma_pos);
}

static void read_cd_gives_user_data_only(void **state)
{
    uint8_t buf[2048];
    assert_int_equal(simple(CDB(0xbe, 0, 0, 0, 0, 7, 0, 0, 1, 0x10), buf), 2048);
    assert_memory_equal(buf, disc.data + 7 * 2048, 2048);
    assert_int_equal(simple(CDB(0xbe, 0, 0, 0, 0, 7, 0, 0, 1, 0), buf), 0);
    assert_int_equal(failed(CDB(0xbe, 0, 0, 0, 0, 7, 0, 0, 1, 0xf8)), 0x052400);
    assert_int_equal(failed(CDB(0xbe, 4, 0, 0, 0, 7, 0, 0, 1, 0x10)), 0x056400);
}

static void ranges_are_checked(void **state)
{
    assert_int_equal(failed(CDB(0x28, 0, 0, 0, CD_SECTORS >> 8, CD_SECTORS & 255, 0, 0, 1)),
                     0x052100);
    assert_int_equal(failed(CDB(0xa8, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)),
                     0x052100);
    assert_int_equal(failed(CDB(0x2b, 0, 0xff)), 0x052100);
    packet(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 0), 0, 2048);
    assert_int_equal(in(IDE_STATUS), READY);
}

static void a_ragged_tail_reads_as_zeroes(void **state)
{
    uint8_t buf[2048];
    disc.blk.size = 5 * 2048 + 512;
    assert_int_equal(simple(CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 1), buf), 2048);
    assert_memory_equal(buf, disc.data + 5 * 2048, 512);
    for (unsigned i = 512; i < 2048; i++)
        assert_int_equal(buf[i], 0);
}

static void a_bad_sector_is_a_medium_error(void **state)
{
    disc.fail = -EIO;
    assert_int_equal(failed(CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 1)), 0x031100);
}

static void unknown_packets_are_refused(void **state)
{
    assert_int_equal(failed(CDB(0x2a)), 0x052000);
    assert_int_equal(sense(), 0); /* reading it consumed it */
}

static void toc_has_one_track(void **state)
{
    uint8_t buf[64];
    assert_int_equal(simple(CDB(0x43, 0, 0, 0, 0, 0, 0, 0, 64), buf), 20);
    assert_int_equal(load_be16(buf), 18);
    assert_int_equal(buf[6], 1);
    assert_int_equal(buf[14], 0xaa);
    assert_int_equal(load_be32(buf + 16), CD_SECTORS);
    assert_int_equal(simple(CDB(0x43, 2, 0, 0, 0, 0, 0xaa, 0, 64), buf), 12);
    unsigned frames = CD_SECTORS + 150;
    assert_int_equal(buf[9], 0);
    assert_int_equal(buf[10], frames / 75);
    assert_int_equal(buf[11], frames % 75);
    assert_int_equal(simple(CDB(0x43, 0, 1, 0, 0, 0, 0, 0, 64), buf), 12);
    assert_int_equal(simple(CDB(0x43, 0, 2, 0, 0, 0, 0, 0, 64), buf), 48);
    assert_int_equal(simple(CDB(0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0x40), buf), 12);
    assert_int_equal(failed(CDB(0x43, 0, 0, 0, 0, 0, 2, 0, 64)), 0x052400);
    assert_int_equal(failed(CDB(0x43, 0, 5, 0, 0, 0, 0, 0, 64)), 0x052400);
}

static void mode_pages_can_be_read(void **state)
{
    uint8_t buf[64];
    assert_int_equal(simple(CDB(0x1a, 0, 0x2a, 0, 64), buf), 24);
    assert_int_equal(buf[0], 23);
    assert_int_equal(buf[4], 0x2a);
    assert_int_equal(simple(CDB(0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 64), buf), 40);
    assert_int_equal(load_be16(buf), 38);
    assert_int_equal(buf[8], 0x01);
    assert_int_equal(buf[20], 0x2a);
    assert_int_equal(failed(CDB(0x5a, 0, 0x05, 0, 0, 0, 0, 0, 64)), 0x052400);
}

static void other_replies_have_their_sizes(void **state)
{
    uint8_t buf[64];
    assert_int_equal(simple(CDB(0x46, 0, 0, 0, 0, 0, 0, 0, 64), buf), 8 + 12 + 8 + 8 + 8);
    assert_int_equal(load_be32(buf), 40);
    assert_int_equal(load_be16(buf + 6), 8);
    assert_int_equal(simple(CDB(0x46, 2, 0, 3, 0, 0, 0, 0, 64), buf), 16);
    assert_int_equal(load_be16(buf + 8), 3);
    assert_int_equal(simple(CDB(0x46, 0, 0xff, 0xff, 0, 0, 0, 0, 64), buf), 8);
    assert_int_equal(simple(CDB(0x51, 0, 0, 0, 0, 0, 0, 0, 64), buf), 34);
    assert_int_equal(simple(CDB(0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8), buf), 8);
}

static void an_empty_drive_is_not_ready(void **state)
{
    uint8_t buf[8];
    ide_cdrom_change(&ch, 0, NULL);
    assert_int_equal(failed(CDB(0x00)), 0x023a01);
    assert_int_equal(failed(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1)), 0x023a01);
    assert_int_equal(simple(CDB(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), buf), 8);
    assert_int_equal(buf[4], 3);
    assert_int_equal(buf[5], 0);
}

static void a_new_medium_gets_attention_once(void **state)
{
    uint8_t buf[64];
    ide_cdrom_change(&ch, 0, &disc.blk);
    assert_int_equal(simple(CDB(0x12, 0, 0, 0, 36), buf), 36);
    assert_int_equal(failed(CDB(0x00)), 0x062800);
    packet(CDB(0x00), 0, 0);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(simple(CDB(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), buf), 8);
    assert_int_equal(buf[4], 2);
    assert_int_equal(buf[5], 2);
    assert_int_equal(simple(CDB(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), buf), 8);
    assert_int_equal(buf[4], 0);
    assert_int_equal(simple(CDB(0x4a, 1, 0, 0, 0x02, 0, 0, 0, 8), buf), 4);
    assert_int_equal(buf[2], 0x80);
    assert_int_equal(failed(CDB(0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8)), 0x052400);
}

static void the_tray_opens_unless_locked(void **state)
{
    packet(CDB(0x1e, 0, 0, 0, 1), 0, 0);
    assert_int_equal(failed(CDB(0x1b, 0, 0, 0, 2)), 0x055302);
    packet(CDB(0x1e, 0, 0, 0, 0), 0, 0);
    packet(CDB(0x1b, 0, 0, 0, 2), 0, 0);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(failed(CDB(0x00)), 0x023a02);
    packet(CDB(0x1b, 0, 0, 0, 3), 0, 0);
    assert_int_equal(failed(CDB(0x00)), 0x062800);
    packet(CDB(0x00), 0, 0);
    assert_int_equal(in(IDE_STATUS), READY);
}

static void taking_the_medium_ends_a_read(void **state)
{
    disc.late = true;
    packet(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 0, 2048);
    ide_cdrom_change(&ch, 0, NULL);
    assert_int_equal(in(IDE_STATUS), READY | ERR);
    assert_true(fake_complete(&disc));
    assert_int_equal(in(IDE_STATUS), READY | ERR);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(signature_tells_a_packet_device),
        TEST(identify_packet_works),
        TEST(device_reset_ends_a_command),
        TEST(inquiry_is_cut_to_the_allocation),
        TEST(capacity_names_the_last_block),
        TEST(read_honours_the_byte_count_limit),
        TEST(dma_reads_all),
        TEST(read_cd_gives_user_data_only),
        TEST(ranges_are_checked),
        TEST(a_ragged_tail_reads_as_zeroes),
        TEST(a_bad_sector_is_a_medium_error),
        TEST(unknown_packets_are_refused),
        TEST(toc_has_one_track),
        TEST(mode_pages_can_be_read),
        TEST(other_replies_have_their_sizes),
        TEST(an_empty_drive_is_not_ready),
        TEST(a_new_medium_gets_attention_once),
        TEST(the_tray_opens_unless_locked),
        TEST(taking_the_medium_ends_a_read),
    };
    return cmocka_run_group_tests_name("atapi", tests, NULL, NULL);
}
