/* test_scsi.c - SCSI logical units: disks and CD-ROM drives, through their commands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "base/endian.h"
#include "chip/scsi.h"
#include "late_blk.h"
#include "vdriver.h"

#define BLOCKS    (LATE_SIZE / 512)
#define ATTENTION 0x06

static struct scsi_unit unit;
static struct late_blk disk;
static struct scsi_req req;
static struct iovec iov[4];
static unsigned ends, changes;

static uint8_t *buffer(void)
{
    return ram.host + 0x10000;
}

static void on_done(struct scsi_req *r)
{
    ends++;
}

static void on_change(void *ctx)
{
    changes++;
}

static int setup(void **state)
{
    late_init(&disk);
    ends = changes = 0;
    if (guest_init())
        return -1;
    scsi_init_disk(&unit, &space, &disk.blk, "SOSIA HARDDISK", "SERIAL1", 512);
    unit.attention = 0;
    unit.changed = on_change;
    return 0;
}

static int setup_cd(void **state)
{
    int rc = setup(state);
    disk.blk.readonly = true;
    scsi_init_cdrom(&unit, &space, &disk.blk, "SOSIA CD-ROM", "SERIAL2");
    unit.attention = 0;
    return rc;
}

static int teardown(void **state)
{
    late_all(&disk, -EIO);
    guest_fini();
    return 0;
}

/* Starts a command with `len` bytes of data at buffer(), in two pieces. */
static void start(const uint8_t *cdb, uint64_t len, bool to_target)
{
    req = (struct scsi_req){
        .unit = &unit, .iov = iov, .len = len, .to_target = to_target, .done = on_done};
    memcpy(req.cdb, cdb, SCSI_CDB_LEN);
    uint64_t first = len > 8 ? 8 : len;
    iov[0] = (struct iovec){buffer(), first};
    iov[1] = (struct iovec){buffer() + first, len - first};
    req.niov = len > 8 ? 2 : len ? 1 : 0;
    ends = 0;
    scsi_run(&req);
}

/* The whole command; returns the sense key, asc and ascq, or 0. */
static uint32_t run(const uint8_t *cdb, uint64_t len, bool to_target)
{
    start(cdb, len, to_target);
    late_all(&disk, 0);
    assert_int_equal(ends, 1);
    if (req.status == SCSI_GOOD)
        return 0;
    assert_int_equal(req.status, SCSI_CHECK_CONDITION);
    assert_int_equal(req.sense[0], 0x70);
    return (uint32_t)req.sense[2] << 16 | (uint32_t)req.sense[12] << 8 | req.sense[13];
}

#define CDB(...) ((const uint8_t[SCSI_CDB_LEN]){__VA_ARGS__})

/* ---- tests ---- */

static void inquiry(void **state)
{
    assert_int_equal(run(CDB(0x12, 0, 0, 0, 96), 96, false), 0);
    assert_int_equal(req.moved, 36);
    assert_int_equal(buffer()[0], 0);
    assert_memory_equal(buffer() + 8, "SOSIA   SOSIA HARDDISK  1.0 ", 28);
    assert_int_equal(run(CDB(0x12, 1, 0, 0, 96), 96, false), 0);
    static const uint8_t pages[] = {0, 0, 0, 6, 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2};
    assert_memory_equal(buffer(), pages, sizeof pages);
    for (unsigned i = 5; i < sizeof pages; i++) {
        assert_int_equal(run(CDB(0x12, 1, pages[i], 0, 255), 255, false), 0);
        assert_int_equal(buffer()[1], pages[i]);
        assert_int_equal(req.moved, load_be16(buffer() + 2) + 4);
    }
    assert_int_equal(run(CDB(0x12, 1, 0x80, 0, 255), 255, false), 0);
    assert_memory_equal(buffer() + 4, "SERIAL1", 7);
    assert_int_equal(run(CDB(0x12, 1, 0xb0, 0, 255), 255, false), 0);
    assert_int_equal(load_be32(buffer() + 20), 1u << 22);
    assert_int_equal(run(CDB(0x12, 1, 0x77, 0, 255), 255, false), 0x052400);
    assert_int_equal(run(CDB(0x12, 0, 0x80, 0, 255), 255, false), 0x052400);
    assert_int_equal(run(CDB(0x12, 0, 0, 0, 5), 96, false), 0);
    assert_int_equal(req.moved, 5);
    assert_int_equal(run(CDB(0x12, 0, 0, 0, 36), 20, false), 0);
    assert_true(req.overrun);
    assert_int_equal(req.moved, 20);
}

static void reads_and_writes_of_all_lengths(void **state)
{
    const uint8_t *reads[] = {CDB(0x08, 0, 0, 3, 2), CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 2),
                              CDB(0xa8, 0, 0, 0, 0, 3, 0, 0, 0, 2),
                              CDB(0x88, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2)};
    for (unsigned i = 0; i < ARRAY_LEN(reads); i++) {
        memset(buffer(), 0, 2048);
        assert_int_equal(run(reads[i], 2048, false), 0);
        assert_memory_equal(buffer(), disk.data + 3 * 512, 1024);
        assert_int_equal(buffer()[1024], 0);
        assert_int_equal(req.moved, 1024);
    }
    const uint8_t *writes[] = {CDB(0x0a, 0, 0, 4, 1), CDB(0x2a, 0, 0, 0, 0, 5, 0, 0, 1),
                               CDB(0xaa, 0, 0, 0, 0, 6, 0, 0, 0, 1),
                               CDB(0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1)};
    for (unsigned i = 0; i < ARRAY_LEN(writes); i++) {
        memset(buffer(), 0x30 + (int)i, 512);
        assert_int_equal(run(writes[i], 512, true), 0);
        assert_int_equal(disk.data[(4 + i) * 512], 0x30 + i);
        assert_int_equal(disk.data[(5 + i) * 512 - 1], 0x30 + i);
    }
    assert_int_equal(run(CDB(0x28), 0, false), 0); /* no blocks are no error */
}

static void what_is_wrong_with_reads_and_writes(void **state)
{
    assert_int_equal(run(CDB(0x28, 0, 0, 0, BLOCKS >> 8, BLOCKS & 255, 0, 0, 1), 512, false),
                     0x052100);
    assert_int_equal(
        run(CDB(0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 2), 512, false),
        0x052100);
    assert_int_equal(run(CDB(0x28, 0x20, 0, 0, 0, 0, 0, 0, 1), 512, false), 0x052400);
    assert_int_equal(run(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 2), 1000, false), 0);
    assert_true(req.overrun); /* too little room */
    assert_int_equal(run(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 512, true), 0);
    assert_true(req.overrun); /* the wrong way */
    assert_int_equal(run(CDB(0xff), 0, false), 0x052000);
    start(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 512, false);
    late_one(&disk, 0, -EIO);
    assert_int_equal(req.sense[2], 3);
    start(CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), 512, true);
    late_one(&disk, 0, -ENOSPC);
    assert_int_equal(req.sense[2], 7);
    disk.blk.readonly = true;
    assert_int_equal(run(CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), 512, true), 0x072700);
    assert_int_equal(run(CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24), 24, true), 0x072700);
}

static void capacity(void **state)
{
    assert_int_equal(run(CDB(0x25), 8, false), 0);
    assert_int_equal(load_be32(buffer()), BLOCKS - 1);
    assert_int_equal(load_be32(buffer() + 4), 512);
    assert_int_equal(run(CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), 32, false), 0);
    assert_int_equal(load_be64(buffer()), BLOCKS - 1);
    assert_int_equal(buffer()[13], 3);
    assert_int_equal(buffer()[14], 0x80);
    assert_int_equal(run(CDB(0x9e, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), 32, false),
                     0x052400);
}

static void write_cache(void **state)
{
    assert_int_equal(run(CDB(0x1a, 0, 8, 0, 64), 64, false), 0);
    assert_int_equal(buffer()[0], req.moved - 1);
    assert_int_equal(buffer()[12], 8);
    assert_int_equal(buffer()[14] & 4, 4);
    start(CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), 512, true);
    assert_false(disk.req[0]->fua);
    late_all(&disk, 0);
    start(CDB(0x2a, 8, 0, 0, 0, 0, 0, 0, 1), 512, true);
    assert_true(disk.req[0]->fua);
    late_all(&disk, 0);
    memset(buffer(), 0, 24);
    buffer()[4] = 8; /* MODE SELECT (6): header, the page with its bit off */
    buffer()[5] = 18;
    start(CDB(0x15, 0x10, 0, 0, 24), 24, true);
    assert_int_equal(disk.req[0]->op, BLK_FLUSH);
    late_all(&disk, 0);
    assert_int_equal(req.status, SCSI_GOOD);
    start(CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), 512, true);
    assert_true(disk.req[0]->fua);
    late_all(&disk, 0);
    assert_int_equal(run(CDB(0x5a, 8, 8, 0, 0, 0, 0, 0, 64), 64, false), 0);
    assert_int_equal(buffer()[10] & 4, 0);
    assert_int_equal(run(CDB(0x15, 0x10, 0, 0, 23), 23, true), 0x052600);
    buffer()[3] = 255; /* block descriptors beyond the end */
    assert_int_equal(run(CDB(0x15, 0x10, 0, 0, 24), 24, true), 0x052600);
    assert_int_equal(run(CDB(0x55, 0x10, 0, 0, 0, 0, 0, 1, 0), 256, true), 0x051a00);
    assert_int_equal(run(CDB(0x1a, 0, 0xc8, 0, 64), 64, false), 0x053900);
    assert_int_equal(run(CDB(0x1a, 0, 0x05, 0, 64), 64, false), 0x052400);
    assert_int_equal(run(CDB(0x35), 0, false), 0);
}

static void put_range(unsigned i, uint64_t lba, uint32_t count)
{
    store_be64(buffer() + 8 + 16 * i, lba);
    store_be32(buffer() + 16 + 16 * i, count);
}

static void unmap(void **state)
{
    memset(buffer(), 0, 64);
    store_be16(buffer() + 2, 48);
    put_range(0, 8, 16);
    put_range(1, 0, 0);
    put_range(2, 100, 1);
    start(CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 56), 56, true);
    assert_int_equal(disk.req[0]->op, BLK_DISCARD);
    assert_int_equal(disk.req[0]->offset, 8 * 512);
    assert_int_equal(disk.req[0]->len, 16 * 512);
    late_one(&disk, 0, 0);
    assert_int_equal(disk.req[0]->offset, 100 * 512);
    late_one(&disk, 0, 0);
    assert_int_equal(ends, 1);
    assert_int_equal(req.status, SCSI_GOOD);
    put_range(2, BLOCKS, 1);
    assert_int_equal(run(CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 56), 56, true), 0x052100);
    store_be16(buffer() + 2, 0xffff); /* more than there is: what there is counts */
    put_range(2, 100, 1);
    assert_int_equal(run(CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 56), 56, true), 0);
    assert_int_equal(run(CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 7), 7, true), 0x051a00);
    assert_int_equal(run(CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 56), 40, true), 0);
    assert_true(req.overrun);
    assert_int_equal(run(CDB(0x42), 0, true), 0);
}

static void write_same(void **state)
{
    memset(buffer(), 0, 512);
    start(CDB(0x41, 0, 0, 0, 0, 8, 0, 0, 16), 512, true);
    assert_int_equal(disk.req[0]->op, BLK_WRITE_ZEROES);
    assert_int_equal(disk.req[0]->len, 16 * 512);
    assert_true(disk.req[0]->no_unmap);
    late_all(&disk, 0);
    start(CDB(0x41, 8, 0, 0, 0, 8, 0, 0, 16), 512, true);
    assert_false(disk.req[0]->no_unmap);
    late_all(&disk, 0);
    start(CDB(0x93, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 16), 0, true); /* no data */
    assert_int_equal(disk.req[0]->op, BLK_WRITE_ZEROES);
    late_all(&disk, 0);
    memset(buffer(), 0x5c, 511);
    start(CDB(0x93, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 200), 512, true);
    assert_int_equal(disk.req[0]->op, BLK_WRITE);
    assert_int_equal(disk.req[0]->len, 65536);
    late_one(&disk, 0, 0);
    assert_int_equal(disk.req[0]->len, 72 * 512);
    late_one(&disk, 0, 0);
    assert_int_equal(ends, 1);
    assert_int_equal(disk.data[207 * 512], 0x5c);
    assert_int_equal(disk.data[208 * 512 - 1], 0);
    assert_int_not_equal(disk.data[208 * 512], 0x5c);
    assert_int_equal(run(CDB(0x41, 0, 0, 0, 0, 8, 0, 0, 0), 512, true), 0x052400);
    assert_int_equal(run(CDB(0x41, 0, 0, 0, 0, 8, 0, 0, 1), 511, true), 0);
    assert_true(req.overrun);
}

static void attention(void **state)
{
    scsi_reset(&unit);
    assert_int_equal(run(CDB(0x12, 0, 0, 0, 36), 36, false), 0); /* leaves it */
    assert_int_equal(run(CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16), 16, false), 0);
    assert_int_equal(run(CDB(0x00), 0, false), 0x062900);
    assert_int_equal(run(CDB(0x00), 0, false), 0);
    disk.blk.size /= 2;
    disk.blk.resized(disk.blk.ctx);
    assert_int_equal(changes, 1);
    assert_int_equal(run(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 512, false), 0x062a09);
    assert_int_equal(run(CDB(0x25), 8, false), 0);
    assert_int_equal(load_be32(buffer()), BLOCKS / 2 - 1);
    disk.blk.resized(disk.blk.ctx);
    assert_int_equal(run(CDB(0x03, 0, 0, 0, 18), 18, false), 0);
    assert_int_equal(buffer()[2], ATTENTION);
    assert_int_equal(buffer()[12], 0x2a);
    assert_int_equal(run(CDB(0x00), 0, false), 0);
}

static void units_that_do_not_exist(void **state)
{
    struct iovec v = {buffer(), 64};
    req = (struct scsi_req){
        .unit = &unit, .absent = true, .iov = &v, .niov = 1, .len = 64, .done = on_done};
    memcpy(req.cdb, CDB(0x12, 0, 0, 0, 36), 16);
    scsi_run(&req);
    assert_int_equal(req.status, SCSI_GOOD);
    assert_int_equal(buffer()[0], 0x7f);
    memcpy(req.cdb, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 16);
    scsi_run(&req);
    assert_int_equal(req.status, SCSI_CHECK_CONDITION);
    assert_int_equal(req.sense[12], 0x25);
}

static void cdrom(void **state)
{
    assert_int_equal(run(CDB(0x12, 0, 0, 0, 36), 36, false), 0);
    assert_int_equal(buffer()[0], 5);
    assert_int_equal(buffer()[1], 0x80);
    assert_int_equal(run(CDB(0x25), 8, false), 0);
    assert_int_equal(load_be32(buffer()), LATE_SIZE / 2048 - 1);
    assert_int_equal(run(CDB(0x28, 0, 0, 0, 0, 2, 0, 0, 1), 2048, false), 0);
    assert_memory_equal(buffer(), disk.data + 2 * 2048, 2048);
    disk.blk.size = LATE_SIZE - 512; /* the last sector sticks out */
    memset(buffer(), 0xee, 2048);
    uint32_t last = LATE_SIZE / 2048 - 1;
    assert_int_equal(
        run(CDB(0x28, 0, 0, 0, (uint8_t)(last >> 8), (uint8_t)last, 0, 0, 1), 2048, false), 0);
    assert_memory_equal(buffer(), disk.data + last * 2048, 1536);
    assert_int_equal(buffer()[1536], 0);
    assert_int_equal(buffer()[2047], 0);
    assert_int_equal(run(CDB(0x43, 0, 0, 0, 0, 0, 0, 0, 64), 64, false), 0); /* READ TOC */
    assert_int_equal(run(CDB(0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 64), 64, false), 0);
    assert_int_equal(run(CDB(0xbe, 4, 0, 0, 0, 1, 0, 0, 1, 0x10), 2048, false), 0x056400);
    assert_int_equal(run(CDB(0xbe, 0, 0, 0, 0, 1, 0, 0, 1, 0x10), 2048, false), 0);
    assert_int_equal(run(CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), 2048, true), 0x052000);
    assert_int_equal(run(CDB(0x1e, 0, 0, 0, 1), 0, false), 0);
    assert_int_equal(run(CDB(0x1b, 0, 0, 0, 2), 0, false), 0x055302); /* locked */
    assert_int_equal(run(CDB(0x1e), 0, false), 0);
    assert_int_equal(run(CDB(0x1b, 0, 0, 0, 2), 0, false), 0);
    assert_int_equal(run(CDB(0x00), 0, false), 0x023a01);
    assert_int_equal(run(CDB(0x1b, 0, 0, 0, 3), 0, false), 0);
    assert_int_equal(run(CDB(0x00), 0, false), 0x062800);
    assert_int_equal(run(CDB(0x00), 0, false), 0);
}

int main(void)
{
#define T(f)  cmocka_unit_test_setup_teardown(f, setup, teardown)
#define CD(f) cmocka_unit_test_setup_teardown(f, setup_cd, teardown)
    const struct CMUnitTest tests[] = {
        T(inquiry),
        T(reads_and_writes_of_all_lengths),
        T(what_is_wrong_with_reads_and_writes),
        T(capacity),
        T(write_cache),
        T(unmap),
        T(write_same),
        T(attention),
        T(units_that_do_not_exist),
        CD(cdrom),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
