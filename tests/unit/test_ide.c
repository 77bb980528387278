/* test_ide.c - an ATA disk through its registers: protocols, addresses, errors, resets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/endian.h"
#include "chip/ide.h"
#include "fake_blk.h"

enum { BSY = 0x80, DRDY = 0x40, DSC = 0x10, DRQ = 0x08, ERR = 0x01 };
#define READY (DRDY | DSC)

static struct ide_channel ch;
static struct fake_blk disk;
static bool irq;
static uint8_t dma_mem[FAKE_SIZE];
static size_t dma_pos, dma_room;

static void on_irq(void *ctx, unsigned line, bool level)
{
    irq = level;
}

static size_t dma_move(void *ctx, uint8_t *buf, size_t n, bool to_guest)
{
    n = n < dma_room ? n : dma_room;
    if (to_guest)
        memcpy(dma_mem + dma_pos, buf, n);
    else
        memcpy(buf, dma_mem + dma_pos, n);
    dma_pos += n;
    dma_room -= n;
    return n;
}

static int setup(void **state)
{
    irq = false;
    dma_pos = 0;
    dma_room = FAKE_SIZE;
    fake_init(&disk);
    if (ide_init(&ch, (struct pin){on_irq, NULL, 0}, NULL))
        return -1;
    ch.dma.move = dma_move;
    ide_attach_disk(&ch, 0, &disk.blk, "Sosia Disk", "SN42");
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

static uint8_t alt(void)
{
    return (uint8_t)ide_control_ops.read(&ch, 0, 1);
}

static void control(uint8_t val)
{
    ide_control_ops.write(&ch, 0, val, 1);
}

static void lba28(uint32_t lba, uint8_t count, uint8_t cmd)
{
    out(IDE_DEVICE, (uint8_t)(0xe0 | lba >> 24));
    out(IDE_COUNT, count);
    out(IDE_LBA0, (uint8_t)lba);
    out(IDE_LBA1, (uint8_t)(lba >> 8));
    out(IDE_LBA2, (uint8_t)(lba >> 16));
    out(IDE_STATUS, cmd);
}

static void lba48(uint64_t lba, uint16_t count, uint8_t cmd)
{
    out(IDE_DEVICE, 0x40);
    for (int half = 1; half >= 0; half--) {
        out(IDE_COUNT, (uint8_t)(count >> (8 * half)));
        out(IDE_LBA0, (uint8_t)(lba >> (24 * half)));
        out(IDE_LBA1, (uint8_t)(lba >> (24 * half + 8)));
        out(IDE_LBA2, (uint8_t)(lba >> (24 * half + 16)));
    }
    out(IDE_STATUS, cmd);
}

static void read_block(uint8_t *buf, unsigned len)
{
    for (unsigned i = 0; i < len; i += 2)
        store_le16(buf + i, (uint16_t)ide_command_ops.read(&ch, 0, 2));
}

static void write_block(const uint8_t *buf, unsigned len)
{
    for (unsigned i = 0; i < len; i += 2)
        ide_command_ops.write(&ch, 0, load_le16(buf + i), 2);
}

/* ---- presence ---- */

static void signature_after_reset(void **state)
{
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(in(IDE_FEATURE), 1);
    assert_int_equal(in(IDE_COUNT), 1);
    assert_int_equal(in(IDE_LBA0), 1);
    assert_int_equal(in(IDE_LBA1) | in(IDE_LBA2), 0);
    assert_false(irq);
}

static void registers_read_back(void **state)
{
    out(IDE_DEVICE, 0xa0);
    out(IDE_COUNT, 0x55);
    out(IDE_LBA0, 0xaa);
    assert_int_equal(in(IDE_DEVICE), 0xa0);
    assert_int_equal(in(IDE_COUNT), 0x55);
    assert_int_equal(in(IDE_LBA0), 0xaa);
}

static void a_missing_slave_is_silent(void **state)
{
    out(IDE_DEVICE, 0xb0);
    out(IDE_COUNT, 0x55);
    out(IDE_LBA0, 0xaa);
    assert_int_equal(in(IDE_STATUS), 0);
    assert_int_equal(in(IDE_COUNT) | in(IDE_LBA0), 0);
    out(IDE_STATUS, 0xec);
    assert_int_equal(in(IDE_STATUS), 0);
    assert_false(irq);
}

static void an_empty_cable_floats(void **state)
{
    struct ide_channel none;
    assert_int_equal(ide_init(&none, (struct pin){0}, NULL), 0);
    assert_int_equal(ide_command_ops.read(&none, IDE_STATUS, 1), 0xff);
    assert_int_equal(ide_control_ops.read(&none, 0, 1), 0xff);
    ide_command_ops.write(&none, IDE_STATUS, 0xec, 1);
    ide_fini(&none);
}

/* ---- identification ---- */

static void identify_describes_the_disk(void **state)
{
    uint8_t id[512], sum = 0;
    out(IDE_STATUS, 0xec);
    assert_true(irq);
    assert_int_equal(alt(), READY | DRQ);
    assert_true(irq);
    assert_int_equal(in(IDE_STATUS), READY | DRQ);
    assert_false(irq);
    read_block(id, sizeof id);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_memory_equal(id + 54, "oSis aiDks", 10); /* bytes of each word swapped */
    assert_memory_equal(id + 20, "NS24", 4);
    assert_int_equal(load_le32(id + 120), FAKE_SIZE / 512);
    assert_true(load_le64(id + 200) == FAKE_SIZE / 512);
    assert_int_equal(load_le16(id + 166) & 0x0400, 0x0400);
    for (unsigned i = 0; i < 512; i++)
        sum = (uint8_t)(sum + id[i]);
    assert_int_equal(sum, 0);
}

static void unknown_commands_are_aborted(void **state)
{
    static const uint8_t cmds[] = {0x00, 0x08, 0xa0, 0xa1, 0xff, 0xf9};
    for (unsigned i = 0; i < sizeof cmds; i++) {
        out(IDE_STATUS, cmds[i]);
        assert_true(irq);
        assert_int_equal(in(IDE_STATUS), READY | ERR);
        assert_int_equal(in(IDE_FEATURE), 4);
    }
}

static void diagnostic_selects_the_master(void **state)
{
    out(IDE_DEVICE, 0xa0);
    out(IDE_STATUS, 0x90);
    assert_true(irq);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(in(IDE_FEATURE), 1);
    assert_int_equal(in(IDE_LBA0), 1);
}

/* ---- PIO ---- */

static void pio_read_interrupts_for_each_sector(void **state)
{
    uint8_t buf[512];
    lba28(5, 3, 0x20);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(irq);
        assert_int_equal(in(IDE_STATUS), READY | DRQ);
        read_block(buf, 512);
        assert_memory_equal(buf, disk.data + (5 + i) * 512, 512);
    }
    assert_false(irq);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(ide_command_ops.read(&ch, 0, 2), 0);
}

static void a_count_of_zero_is_256(void **state)
{
    static uint8_t buf[256 * 512];
    lba28(1, 0, 0x20);
    read_block(buf, sizeof buf);
    assert_memory_equal(buf, disk.data + 512, sizeof buf);
    assert_int_equal(in(IDE_STATUS), READY);
}

static void pio_write_interrupts_between_and_after(void **state)
{
    uint8_t buf[1024];
    memset(buf, 0xa5, sizeof buf);
    lba28(7, 2, 0x30);
    assert_false(irq);
    assert_int_equal(in(IDE_STATUS), READY | DRQ);
    write_block(buf, 512);
    assert_true(irq);
    assert_int_equal(in(IDE_STATUS), READY | DRQ);
    write_block(buf + 512, 512);
    assert_true(irq);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_memory_equal(disk.data + 7 * 512, buf, sizeof buf);
    assert_int_not_equal(disk.data[9 * 512], 0xa5);
    assert_int_equal(disk.flushes, 0);
}

static void multiple_moves_larger_blocks(void **state)
{
    uint8_t buf[4096];
    lba28(0, 5, 0xc4);
    assert_int_equal(in(IDE_STATUS), READY | ERR); /* not enabled */
    out(IDE_COUNT, 3);
    out(IDE_STATUS, 0xc6);
    assert_int_equal(in(IDE_STATUS), READY | ERR);
    out(IDE_COUNT, 4);
    out(IDE_STATUS, 0xc6);
    assert_int_equal(in(IDE_STATUS), READY);
    lba28(0, 5, 0xc4);
    assert_true(irq);
    in(IDE_STATUS);
    read_block(buf, 4 * 512);
    assert_true(irq);
    assert_int_equal(in(IDE_STATUS), READY | DRQ);
    read_block(buf, 512);
    assert_memory_equal(buf, disk.data + 4 * 512, 512);
    assert_int_equal(in(IDE_STATUS), READY);
}

static void data_moves_as_dwords_too(void **state)
{
    lba28(3, 1, 0x20);
    for (unsigned i = 0; i < 512; i += 4)
        assert_int_equal(ide_command_ops.read(&ch, 0, 4), load_le32(disk.data + 3 * 512 + i));
    assert_int_equal(in(IDE_STATUS), READY);
}

static void chs_uses_the_current_geometry(void **state)
{
    uint8_t buf[512];
    out(IDE_DEVICE, 0xa3); /* 4 heads */
    out(IDE_COUNT, 10);
    out(IDE_STATUS, 0x91);
    assert_int_equal(in(IDE_STATUS), READY);
    out(IDE_DEVICE, 0xa2);
    out(IDE_COUNT, 1);
    out(IDE_LBA0, 7);
    out(IDE_LBA1, 3);
    out(IDE_LBA2, 0);
    out(IDE_STATUS, 0x20);
    read_block(buf, 512);
    assert_memory_equal(buf, disk.data + ((3 * 4 + 2) * 10 + 6) * 512, 512);
    out(IDE_LBA0, 11);
    out(IDE_STATUS, 0x20);
    assert_int_equal(in(IDE_STATUS), READY | ERR);
    assert_int_equal(in(IDE_FEATURE), 0x10);
    out(IDE_LBA0, 0);
    out(IDE_STATUS, 0x20);
    assert_int_equal(in(IDE_FEATURE), 0x10);
}

static void ranges_beyond_the_disk_are_not_found(void **state)
{
    lba28(FAKE_SIZE / 512 - 1, 2, 0x20);
    assert_int_equal(in(IDE_STATUS), READY | ERR);
    assert_int_equal(in(IDE_FEATURE), 0x10);
    lba48(0xffffffffffff, 0, 0x25);
    assert_int_equal(in(IDE_FEATURE), 0x10);
    lba48(0, 0, 0x24); /* 65536 sectors */
    assert_int_equal(in(IDE_FEATURE), 0x10);
    lba28(FAKE_SIZE / 512 - 1, 1, 0x40);
    assert_int_equal(in(IDE_STATUS), READY);
    lba48(FAKE_SIZE / 512, 1, 0x42);
    assert_int_equal(in(IDE_FEATURE), 0x10);
}

static void lba48_registers_have_two_levels(void **state)
{
    uint8_t buf[512];
    lba48(0x0102, 1, 0x24);
    read_block(buf, 512);
    assert_memory_equal(buf, disk.data + 0x102 * 512, 512);
    out(IDE_COUNT, 0x12);
    out(IDE_COUNT, 0x34);
    assert_int_equal(in(IDE_COUNT), 0x34);
    control(0x80);
    assert_int_equal(in(IDE_COUNT), 0x12);
    out(IDE_LBA0, 0);
    assert_int_equal(in(IDE_COUNT), 0x34);
}

static void native_max_is_the_last_sector(void **state)
{
    uint32_t last = FAKE_SIZE / 512 - 1;
    out(IDE_DEVICE, 0x40);
    out(IDE_STATUS, 0xf8);
    assert_int_equal(in(IDE_LBA0) | in(IDE_LBA1) << 8 | in(IDE_LBA2) << 16, last);
    out(IDE_STATUS, 0x27);
    assert_int_equal(in(IDE_LBA0) | in(IDE_LBA1) << 8 | in(IDE_LBA2) << 16, last);
    control(0x80);
    assert_int_equal(in(IDE_LBA0) | in(IDE_LBA1) | in(IDE_LBA2), 0);
}

/* ---- DMA ---- */

static void dma_read_waits_for_the_bus_master(void **state)
{
    lba28(2, 4, 0xc8);
    assert_int_equal(alt(), BSY);
    assert_false(irq);
    ide_dma_start(&ch);
    assert_true(irq);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_memory_equal(dma_mem, disk.data + 1024, 2048);
}

static void a_long_dma_goes_in_pieces(void **state)
{
    ide_dma_start(&ch);
    lba48(0, FAKE_SIZE / 512, 0x25);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(disk.reads, FAKE_SIZE / IDE_BUF_SIZE);
    assert_memory_equal(dma_mem, disk.data, FAKE_SIZE);
    memset(dma_mem, 0x3c, sizeof dma_mem);
    dma_pos = 0;
    dma_room = FAKE_SIZE;
    lba48(0, FAKE_SIZE / 512, 0x35);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_memory_equal(dma_mem, disk.data, FAKE_SIZE);
}

static void a_short_list_pauses_the_transfer(void **state)
{
    dma_room = 700;
    ide_dma_start(&ch);
    lba28(0, 2, 0xca);
    assert_int_equal(alt(), BSY);
    assert_int_equal(disk.writes, 0);
    dma_room = 324;
    ide_dma_start(&ch);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(disk.writes, 1);
    assert_memory_equal(disk.data, dma_mem, 1024);
}

static void a_stopped_bus_master_moves_nothing(void **state)
{
    disk.late = true;
    ide_dma_start(&ch);
    lba28(0, 1, 0xc8);
    ide_dma_stop(&ch);
    fake_complete(&disk);
    assert_int_equal(alt(), BSY);
    assert_int_equal(dma_pos, 0);
    ide_dma_start(&ch);
    assert_int_equal(in(IDE_STATUS), READY);
}

/* ---- durability ---- */

static void flush_waits_for_the_disk(void **state)
{
    disk.late = true;
    out(IDE_STATUS, 0xe7);
    assert_int_equal(alt(), BSY);
    assert_true(fake_complete(&disk));
    assert_true(irq);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(disk.flushes, 1);
}

static void without_write_cache_writes_are_durable(void **state)
{
    ide_dma_start(&ch);
    lba48(0, 1, 0x3d); /* FUA */
    assert_int_equal(disk.flushes, 1);
    out(IDE_FEATURE, 0x82);
    out(IDE_STATUS, 0xef);
    assert_int_equal(disk.flushes, 2);
    lba28(0, 1, 0xca);
    assert_int_equal(disk.flushes, 3);
    assert_int_equal(in(IDE_STATUS), READY);
}

static void a_readonly_disk_refuses_writes(void **state)
{
    disk.blk.readonly = true;
    lba28(0, 1, 0x30);
    assert_int_equal(in(IDE_STATUS), READY | ERR);
    assert_int_equal(in(IDE_FEATURE), 4);
    out(IDE_STATUS, 0xe7);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(disk.writes + disk.flushes, 0);
}

static void io_errors_name_the_sector(void **state)
{
    disk.fail = -EIO;
    lba28(0x123, 1, 0x20);
    assert_true(irq);
    assert_int_equal(in(IDE_STATUS), READY | ERR);
    assert_int_equal(in(IDE_FEATURE), 0x40);
    assert_int_equal(in(IDE_LBA0) | in(IDE_LBA1) << 8, 0x123);
    ide_dma_start(&ch);
    lba28(0, 1, 0xca);
    assert_int_equal(in(IDE_FEATURE), 4);
    out(IDE_STATUS, 0xea);
    assert_int_equal(in(IDE_STATUS), READY | ERR);
}

/* ---- busy, interrupts, resets ---- */

static void a_busy_drive_ignores_writes(void **state)
{
    disk.late = true;
    lba28(9, 1, 0x20);
    assert_int_equal(alt(), BSY);
    out(IDE_LBA0, 77);
    out(IDE_DEVICE, 0xb0);
    out(IDE_STATUS, 0xec);
    assert_int_equal(alt(), BSY);
    fake_complete(&disk);
    assert_int_equal(in(IDE_STATUS), READY | DRQ);
    assert_int_equal(in(IDE_LBA0), 9);
    out(IDE_STATUS, 0xec); /* nor does one that waits for data */
    assert_int_equal(ide_command_ops.read(&ch, 0, 2), load_le16(disk.data + 9 * 512));
}

static void nien_holds_the_interrupt_back(void **state)
{
    control(2);
    out(IDE_STATUS, 0xec);
    assert_false(irq);
    control(0);
    assert_true(irq);
    control(2);
    assert_false(irq);
}

static void soft_reset_is_busy_until_released(void **state)
{
    lba28(0, 2, 0x20);
    control(4);
    assert_int_equal(alt(), BSY);
    assert_false(irq);
    out(IDE_STATUS, 0xec);
    control(0);
    signature_after_reset(state);
    assert_int_equal(ide_command_ops.read(&ch, 0, 2), 0);
}

static void a_reset_outlives_the_request(void **state)
{
    uint8_t buf[512];
    disk.late = true;
    lba28(4, 1, 0x20);
    control(4);
    control(0);
    lba28(8, 1, 0x20); /* must not use the buffer yet */
    assert_int_equal(alt(), BSY);
    assert_true(fake_complete(&disk)); /* the old request: its data goes nowhere */
    assert_int_equal(alt(), BSY);
    assert_true(fake_complete(&disk));
    assert_int_equal(in(IDE_STATUS), READY | DRQ);
    read_block(buf, 512);
    assert_memory_equal(buf, disk.data + 8 * 512, 512);
}

static void a_write_waits_for_a_stale_write(void **state)
{
    uint8_t a[512], b[512];
    memset(a, 0xaa, sizeof a);
    memset(b, 0xbb, sizeof b);
    disk.late = true;
    lba28(1, 1, 0x30);
    write_block(a, 512);
    ide_reset(&ch);
    lba28(2, 1, 0x30);
    assert_int_equal(alt(), BSY);
    write_block(b, 512); /* ignored: no DRQ */
    fake_complete(&disk);
    assert_int_equal(alt(), READY | DRQ);
    write_block(b, 512);
    fake_complete(&disk);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_memory_equal(disk.data + 512, a, 512);
    assert_memory_equal(disk.data + 1024, b, 512);
}

static void a_reset_forgets_what_was_deferred(void **state)
{
    disk.late = true;
    lba28(4, 1, 0x20);
    ide_reset(&ch);
    lba28(5, 1, 0x20);
    ide_reset(&ch);
    assert_true(fake_complete(&disk));
    assert_false(fake_complete(&disk));
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(disk.reads, 1);
    assert_false(irq);
}

/* ---- features ---- */

static void transfer_modes_are_checked(void **state)
{
    static const uint8_t good[] = {0x00, 0x0c, 0x22, 0x45}, bad[] = {0x0d, 0x23, 0x46, 0x80};
    uint8_t id[512];
    out(IDE_FEATURE, 3);
    for (unsigned i = 0; i < 4; i++) {
        out(IDE_COUNT, bad[i]);
        out(IDE_STATUS, 0xef);
        assert_int_equal(in(IDE_STATUS), READY | ERR);
        out(IDE_COUNT, good[i]);
        out(IDE_STATUS, 0xef);
        assert_int_equal(in(IDE_STATUS), READY);
    }
    out(IDE_STATUS, 0xec);
    read_block(id, 512);
    assert_int_equal(load_le16(id + 176), 0x203f);
    assert_int_equal(load_le16(id + 126), 0x0007);
}

static void power_mode_is_reported(void **state)
{
    out(IDE_STATUS, 0xe0);
    out(IDE_STATUS, 0xe5);
    assert_int_equal(in(IDE_COUNT), 0);
    out(IDE_STATUS, 0xe1);
    out(IDE_STATUS, 0xe5);
    assert_int_equal(in(IDE_COUNT), 0xff);
}

static void smart_wants_its_key(void **state)
{
    uint8_t buf[512];
    out(IDE_FEATURE, 0xda);
    out(IDE_STATUS, 0xb0);
    assert_int_equal(in(IDE_STATUS), READY | ERR);
    out(IDE_LBA1, 0x4f);
    out(IDE_LBA2, 0xc2);
    out(IDE_STATUS, 0xb0);
    assert_int_equal(in(IDE_STATUS), READY);
    assert_int_equal(in(IDE_LBA1), 0x4f);
    out(IDE_FEATURE, 0xd0);
    out(IDE_STATUS, 0xb0);
    read_block(buf, 512);
    assert_int_equal(in(IDE_STATUS), READY);
    out(IDE_FEATURE, 0xd9);
    out(IDE_STATUS, 0xb0);
    out(IDE_FEATURE, 0xda);
    out(IDE_STATUS, 0xb0);
    assert_int_equal(in(IDE_STATUS), READY | ERR);
}

static void random_register_writes_do_no_harm(void **state)
{
    uint32_t seed = 1;
    ide_attach_cdrom(&ch, 1, &disk.blk, "Sosia CD-ROM", "SN43");
    for (unsigned i = 0; i < 200000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned reg = (seed >> 28) & 7, size = 1u << ((seed >> 26) & 1);
        uint8_t val = (uint8_t)(seed >> 16);
        disk.late = seed & 0x8000;
        if ((seed & 0x7f00) == 0)
            control(val);
        else if ((seed & 0x7f00) == 0x100)
            ide_dma_start(&ch);
        else if ((seed & 0x7f00) == 0x200)
            ide_cdrom_change(&ch, 1, val & 1 ? &disk.blk : NULL);
        else if (seed & 0x80)
            ide_command_ops.write(&ch, reg, val, size);
        else
            ide_command_ops.read(&ch, reg, size);
        dma_pos = 0;
        dma_room = val * 64u;
        if (!(seed & 0x1800))
            fake_complete(&disk);
    }
    fake_complete(&disk);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(signature_after_reset),
        TEST(registers_read_back),
        TEST(a_missing_slave_is_silent),
        TEST(an_empty_cable_floats),
        TEST(identify_describes_the_disk),
        TEST(unknown_commands_are_aborted),
        TEST(diagnostic_selects_the_master),
        TEST(pio_read_interrupts_for_each_sector),
        TEST(a_count_of_zero_is_256),
        TEST(pio_write_interrupts_between_and_after),
        TEST(multiple_moves_larger_blocks),
        TEST(data_moves_as_dwords_too),
        TEST(chs_uses_the_current_geometry),
        TEST(ranges_beyond_the_disk_are_not_found),
        TEST(lba48_registers_have_two_levels),
        TEST(native_max_is_the_last_sector),
        TEST(dma_read_waits_for_the_bus_master),
        TEST(a_long_dma_goes_in_pieces),
        TEST(a_short_list_pauses_the_transfer),
        TEST(a_stopped_bus_master_moves_nothing),
        TEST(flush_waits_for_the_disk),
        TEST(without_write_cache_writes_are_durable),
        TEST(a_readonly_disk_refuses_writes),
        TEST(io_errors_name_the_sector),
        TEST(a_busy_drive_ignores_writes),
        TEST(nien_holds_the_interrupt_back),
        TEST(soft_reset_is_busy_until_released),
        TEST(a_reset_outlives_the_request),
        TEST(a_write_waits_for_a_stale_write),
        TEST(a_reset_forgets_what_was_deferred),
        TEST(transfer_modes_are_checked),
        TEST(power_mode_is_reported),
        TEST(smart_wants_its_key),
        TEST(random_register_writes_do_no_harm),
    };
    return cmocka_run_group_tests_name("ide", tests, NULL, NULL);
}
