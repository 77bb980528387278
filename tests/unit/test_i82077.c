/*
 * test_i82077.c - floppy controller: reset and sense, seeks, reads and writes by DMA and by hand,
 * errors, format, configuration, media. The medium is an array; requests complete when told to.
 */
#include "chip_probe.h"

#include <errno.h>

#include "chip/i82077.h"

#define MAX_IMAGE (2880 * 1024)
#define BUFFER    0x10000u

static struct ram ram;
static struct space mem;
static struct i8237 dma;
static struct i82077 f;
static struct probe irq;
static uint8_t image[MAX_IMAGE];
static struct blk_req *queued;
static unsigned writes, flushes, requests;
static int fail_with;

static void submit(struct blk *b, struct blk_req *req)
{
    assert_null(queued);
    assert_true(req->op == BLK_FLUSH || req->offset + req->len <= b->size);
    queued = req;
}

/* The I/O thread's part. */
static void complete_one(void)
{
    struct blk_req *req = queued;
    queued = NULL;
    requests++;
    if (req->op == BLK_READ && !fail_with)
        memcpy(req->iov[0].iov_base, image + req->offset, req->len);
    if (req->op == BLK_WRITE && !fail_with)
        memcpy(image + req->offset, req->iov[0].iov_base, req->len);
    writes += req->op == BLK_WRITE;
    flushes += req->op == BLK_FLUSH;
    req->done(req, fail_with);
}

static void complete(void)
{
    while (queued)
        complete_one();
}

static const struct blk_driver driver = {.name = "array", .submit = submit};
static struct blk disk;

static void out(uint64_t port, uint8_t val)
{
    out8(&i82077_desc, &f, port, val);
}

static uint8_t in(uint64_t port)
{
    return in8(&i82077_desc, &f, port);
}

static void command(const uint8_t *bytes, unsigned len)
{
    for (unsigned i = 0; i < len; i++) {
        assert_int_equal(in(0x3f4) & 0xc0, 0x80);
        out(0x3f5, bytes[i]);
    }
}

#define COMMAND(...) command((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void result(const uint8_t *bytes, unsigned len)
{
    for (unsigned i = 0; i < len; i++) {
        assert_int_equal(in(0x3f4) & 0xd0, 0xd0);
        assert_int_equal(in(0x3f5), bytes[i]);
    }
    assert_int_equal(in(0x3f4) & 0xd0, 0x80);
}

#define RESULT(...) result((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void out_dma(uint64_t port, uint8_t val)
{
    out8(&i8237_desc, &dma, port, val);
}

static void program_dma(bool to_memory, uint16_t len)
{
    out_dma(0x0a, 0x06);
    out_dma(0x0c, 0);
    out_dma(0x0b, to_memory ? 0x46 : 0x4a);
    out_dma(0x04, 0);
    out_dma(0x04, 0);
    out_dma(0x05, (len - 1) & 0xff);
    out_dma(0x05, (uint16_t)(len - 1) >> 8);
    out_dma(0x81, BUFFER >> 16);
    out_dma(0x0a, 0x02);
}

static int group_setup(void **state)
{
    unsigned id;
    assert_int_equal(ram_init(&ram, 1 * MIB, NULL), 0);
    assert_int_equal(space_init(&mem, 1ull << 32, &ram, NULL), 0);
    return space_add_ram(&mem, 0, 1 * MIB, 0, 0, &id, NULL);
}

static int group_teardown(void **state)
{
    space_fini(&mem);
    ram_fini(&ram);
    return 0;
}

/* Out of reset, motor A on, DMA mode, the reset's four statuses read, 500 kb/s. */
static int setup(void **state)
{
    memset(ram.host, 0, 1 * MIB);
    for (size_t i = 0; i < sizeof image; i++)
        image[i] = (uint8_t)(i / 512 * 3 + i);
    disk = (struct blk){.drv = &driver, .size = 1440 * 1024};
    queued = NULL;
    writes = flushes = requests = 0;
    fail_with = 0;
    i8237_init(&dma, &mem);
    assert_int_equal(i82077_init(&f, &dma, &disk, probe_pin(&irq), NULL), 0);
    assert_int_equal(in(0x3f4), 0);
    out(0x3f2, 0x1c);
    assert_true(irq.level);
    for (uint8_t i = 0; i < 4; i++) {
        COMMAND(0x08);
        RESULT(0xc0 | i, 0);
    }
    assert_false(irq.level);
    COMMAND(0x08);
    RESULT(0x80);
    COMMAND(0x03, 0xaf, 0x02);
    out(0x3f7, 0);
    return 0;
}

static void seek(uint8_t track)
{
    COMMAND(0x0f, 0x00, track);
    assert_true(irq.level);
    assert_int_equal(in(0x3f4), 0x81);
    COMMAND(0x08);
    RESULT(0x20, track);
    assert_false(irq.level);
}

static void identifies_itself(void **state)
{
    COMMAND(0x10);
    RESULT(0x90);
    COMMAND(0x18); /* PARTID is the 82078's */
    RESULT(0x80);
    COMMAND(0x94);
    RESULT(0x10);
    COMMAND(0x13, 0x00, 0x57, 0x33);
    COMMAND(0x12, 0x84);
    COMMAND(0x0e);
    RESULT(0, 0, 0, 0, 0xaf, 0x02, 0, 0x84, 0x57, 0x33);
    out(0x3f4, 0x80); /* reset through DSR; LOCK keeps the configuration */
    COMMAND(0x0e);
    RESULT(0, 0, 0, 0, 0xaf, 0x02, 0, 0x84, 0x57, 0x33);
    COMMAND(0x08);
    RESULT(0x80); /* polling is off: no ready statuses */
    COMMAND(0x14);
    RESULT(0x00);
    out(0x3f2, 0x18);
    assert_int_equal(in(0x3f4), 0);
    out(0x3f2, 0x1c);
    assert_true(irq.level);
    COMMAND(0x0e);
    RESULT(0, 0, 0, 0, 0xaf, 0x02, 0, 0x04, 0x20, 0x00);
}

static void seeks(void **state)
{
    seek(40);
    COMMAND(0x04, 0x04);
    RESULT(0x2c);
    COMMAND(0x8f, 0x00, 10); /* relative, outwards */
    COMMAND(0x08);
    RESULT(0x20, 30);
    COMMAND(0xcf, 0x00, 5);
    COMMAND(0x08);
    RESULT(0x20, 35);
    COMMAND(0x07, 0x00);
    assert_true(irq.level);
    COMMAND(0x08);
    RESULT(0x20, 0);
    COMMAND(0x04, 0x00);
    RESULT(0x38);
    COMMAND(0x07, 0x01); /* no drive B: no track 0 */
    COMMAND(0x08);
    RESULT(0x71, 0);
    seek(200); /* the heads stop, the counter does not */
    COMMAND(0x07, 0x00);
    COMMAND(0x08);
    RESULT(0x70, 0);
    COMMAND(0x07, 0x00);
    COMMAND(0x08);
    RESULT(0x20, 0);
}

static uint64_t lba(unsigned c, unsigned h, unsigned r)
{
    return ((c * 2 + h) * 18 + r - 1) * 512ull;
}

static void reads(void **state)
{
    seek(2);
    program_dma(true, 3 * 512);
    COMMAND(0xe6, 0x04, 2, 1, 5, 2, 18, 0x1b, 0xff);
    assert_int_equal(in(0x3f4), 0x10);
    complete_one();
    assert_false(irq.level);
    complete();
    assert_true(irq.level);
    RESULT(0x04, 0, 0, 2, 1, 8, 2);
    assert_false(irq.level);
    assert_memory_equal(ram.host + BUFFER, image + lba(2, 1, 5), 3 * 512);
}

static void reads_multi_track(void **state)
{
    program_dma(true, 36 * 512);
    COMMAND(0xe6, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff);
    complete();
    RESULT(0x04, 0, 0, 1, 0, 1, 2);
    assert_memory_equal(ram.host + BUFFER, image, 36 * 512);
    program_dma(true, 512); /* one side only: C + 1 after the last sector */
    COMMAND(0x46, 0x04, 0, 1, 18, 2, 18, 0x1b, 0xff);
    complete();
    RESULT(0x04, 0, 0, 1, 1, 1, 2);
    program_dma(true, 4096); /* no terminal count by the end of the cylinder */
    COMMAND(0x46, 0x00, 0, 0, 17, 2, 18, 0x1b, 0xff);
    complete();
    RESULT(0x40, 0x80, 0, 0, 0, 18, 2);
    program_dma(true, 100); /* less than a sector */
    COMMAND(0x46, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff);
    complete();
    RESULT(0x00, 0, 0, 0, 0, 2, 2);
}

static void writes_are_durable(void **state)
{
    program_dma(false, 2 * 512);
    memset(ram.host + BUFFER, 0xa7, 1024);
    COMMAND(0xc5, 0x00, 0, 0, 3, 2, 18, 0x1b, 0xff);
    complete_one();
    complete_one();
    assert_int_equal(writes, 2);
    assert_false(irq.level); /* not before the flush */
    complete();
    assert_int_equal(flushes, 1);
    assert_true(irq.level);
    RESULT(0x00, 0, 0, 0, 0, 5, 2);
    for (unsigned i = 0; i < 1024; i++)
        assert_int_equal(image[1024 + i], 0xa7);
    assert_int_equal(image[2048], (uint8_t)(4 * 3 + 2048));
}

static void errors(void **state)
{
    program_dma(true, 512);
    COMMAND(0xe6, 0x00, 1, 0, 1, 2, 18, 0x1b, 0xff); /* the heads are on cylinder 0 */
    RESULT(0x40, 0x04, 0x10, 1, 0, 1, 2);
    COMMAND(0xe6, 0x00, 0, 0, 19, 2, 18, 0x1b, 0xff);
    RESULT(0x40, 0x04, 0, 0, 0, 19, 2);
    COMMAND(0xe6, 0x00, 0, 0, 0, 2, 18, 0x1b, 0xff);
    RESULT(0x40, 0x04, 0, 0, 0, 0, 2);
    COMMAND(0xe6, 0x00, 0, 1, 1, 2, 18, 0x1b, 0xff); /* the ID names the other side */
    RESULT(0x40, 0x04, 0, 0, 1, 1, 2);
    COMMAND(0xe6, 0x00, 0, 0, 1, 3, 18, 0x1b, 0xff); /* 1024-byte sectors */
    RESULT(0x40, 0x04, 0, 0, 0, 1, 3);
    COMMAND(0xa6, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff); /* FM */
    RESULT(0x40, 0x01, 0, 0, 0, 1, 2);
    COMMAND(0xe6, 0x01, 0, 0, 1, 2, 18, 0x1b, 0xff); /* no drive B */
    RESULT(0x41, 0x01, 0, 0, 0, 1, 2);
    out(0x3f7, 2); /* 250 kb/s on a 1.44 MB disk */
    COMMAND(0x4a, 0x00);
    RESULT(0x40, 0x01, 0, 0, 0, 0, 2);
    out(0x3f7, 0);
    fail_with = -EIO;
    COMMAND(0xe6, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff);
    complete();
    RESULT(0x40, 0x20, 0x20, 0, 0, 1, 2);
    fail_with = 0;
    out_dma(0x0a, 0x06); /* nobody serves the request */
    COMMAND(0xe6, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff);
    complete();
    RESULT(0x40, 0x10, 0, 0, 0, 1, 2);
    disk.readonly = true;
    COMMAND(0xc5, 0x00, 0, 0, 3, 2, 18, 0x1b, 0xff);
    RESULT(0x40, 0x02, 0, 0, 0, 3, 2);
    COMMAND(0x04, 0x00);
    RESULT(0x78);
    assert_int_equal(writes, 0);
}

static void read_id_and_deleted(void **state)
{
    seek(7);
    COMMAND(0x4a, 0x04);
    RESULT(0x04, 0, 0, 7, 1, 1, 2);
    program_dma(true, 4096);
    COMMAND(0x4c, 0x00, 7, 0, 1, 2, 18, 0x1b, 0xff); /* one ordinary sector ends READ DELETED */
    complete();
    RESULT(0x00, 0, 0x40, 7, 0, 2, 2);
    assert_int_equal(requests, 1);
    COMMAND(0x6c, 0x00, 7, 0, 1, 2, 18, 0x1b, 0xff);
    RESULT(0x40, 0x04, 0x40, 7, 0, 1, 2);
    program_dma(true, 9 * 512);
    COMMAND(0x42, 0x00, 7, 0, 3, 2, 9, 0x1b, 0xff); /* READ TRACK starts at the first sector */
    complete();
    assert_memory_equal(ram.host + BUFFER, image + lba(7, 0, 1), 9 * 512);
}

static void verify(void **state)
{
    COMMAND(0x56, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff);
    complete();
    RESULT(0x00, 0, 0, 1, 0, 1, 2);
    assert_int_equal(requests, 18);
    COMMAND(0xd6, 0x80, 0, 0, 1, 2, 18, 0x1b, 20); /* 20 sectors, over to side 1 */
    complete();
    RESULT(0x04, 0, 0, 0, 1, 3, 2);
    assert_int_equal(requests, 38);
}

static void format(void **state)
{
    seek(3);
    for (unsigned i = 0; i < 18; i++)
        memcpy(ram.host + BUFFER + 4 * i, (const uint8_t[]){3, 0, (uint8_t)(i + 1), 2}, 4);
    program_dma(false, 72);
    COMMAND(0x4d, 0x00, 2, 18, 0x54, 0xf6);
    complete();
    assert_int_equal(writes, 18);
    assert_int_equal(flushes, 1);
    assert_int_equal(in(0x3f5), 0x00);
    for (unsigned i = 0; i < 6; i++)
        in(0x3f5);
    for (unsigned i = 0; i < 18 * 512; i++)
        assert_int_equal(image[lba(3, 0, 1) + i], 0xf6);
    assert_int_equal(image[lba(3, 1, 1)], (uint8_t)(lba(3, 1, 1) / 512 * 3 + lba(3, 1, 1)));
    COMMAND(0x4d, 0x00, 2, 21, 0x54, 0xf6); /* not this image's layout */
    RESULT(0x40, 0x01, 0, 0, 0, 0, 2);
}

static void by_hand(void **state)
{
    COMMAND(0x03, 0xaf, 0x03); /* non-DMA */
    COMMAND(0x46, 0x00, 0, 0, 17, 2, 18, 0x1b, 0xff);
    for (unsigned s = 0; s < 2; s++) {
        complete();
        assert_true(irq.level);
        for (unsigned i = 0; i < 512; i++) {
            assert_int_equal(in(0x3f4), 0xf0);
            assert_int_equal(in(0x3f5), image[lba(0, 0, 17) + s * 512 + i]);
        }
    }
    assert_true(irq.level);
    RESULT(0x40, 0x80, 0, 0, 0, 18, 2);
    COMMAND(0x45, 0x00, 0, 0, 18, 2, 18, 0x1b, 0xff);
    for (unsigned i = 0; i < 512; i++) {
        assert_int_equal(in(0x3f4), 0xb0);
        out(0x3f5, 0x3c);
    }
    complete();
    RESULT(0x40, 0x80, 0, 0, 0, 18, 2);
    assert_int_equal(image[lba(0, 0, 18) + 511], 0x3c);
}

static void reset_during_io(void **state)
{
    program_dma(true, 512);
    COMMAND(0xe6, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff);
    struct blk_req *old = queued;
    queued = NULL;
    out(0x3f2, 0x18);
    out(0x3f2, 0x1c);
    COMMAND(0x08);
    RESULT(0xc0, 0);
    COMMAND(0xe6, 0x00, 0, 0, 2, 2, 18, 0x1b, 0xff);
    assert_null(queued); /* waits for the old request */
    assert_int_equal(in(0x3f4), 0x10);
    old->done(old, 0);
    assert_non_null(queued);
    complete();
    RESULT(0x00, 0, 0, 0, 0, 3, 2);
    assert_memory_equal(ram.host + BUFFER, image + 512, 512);
}

static void interrupt_gate(void **state)
{
    out(0x3f2, 0x14);
    COMMAND(0x0f, 0x00, 1);
    assert_false(irq.level);
    out(0x3f2, 0x1c);
    assert_true(irq.level);
}

static void media(void **state)
{
    assert_int_equal(in(0x3f7), 0x80); /* since power-on */
    seek(0);
    assert_int_equal(in(0x3f7), 0x80); /* no step, no change */
    seek(1);
    assert_int_equal(in(0x3f7), 0x00);
    out(0x3f2, 0x0c); /* motor off */
    out(0x3f2, 0x1c);
    assert_int_equal(i82077_insert(&f, NULL, NULL), 0);
    assert_int_equal(in(0x3f7), 0x80);
    seek(5);
    assert_int_equal(in(0x3f7), 0x80);
    COMMAND(0x4a, 0x00);
    RESULT(0x40, 0x01, 0, 0, 0, 0, 2);
    static const struct {
        uint32_t kib;
        uint8_t rate, sectors, type;
    } kinds[] = {
        {360, 2, 9, 1}, {720, 2, 9, 3}, {1200, 0, 15, 2}, {1440, 0, 18, 4}, {2880, 3, 36, 5}};
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        disk.size = kinds[i].kib * 1024;
        assert_int_equal(i82077_insert(&f, &disk, NULL), 0);
        assert_int_equal(i82077_cmos_type(&f), kinds[i].type);
        out(0x3f7, kinds[i].rate);
        seek(4);
        program_dma(true, 512);
        COMMAND(0x46, 0x04, 4, 1, kinds[i].sectors, 2, kinds[i].sectors, 0x1b, 0xff);
        complete();
        assert_int_equal(in(0x3f5), 0x04);
        for (unsigned n = 0; n < 6; n++)
            in(0x3f5);
        assert_memory_equal(ram.host + BUFFER, image + (10u * kinds[i].sectors - 1) * 512, 512);
    }
    struct error e;
    disk.size = 1000 * 1024;
    assert_int_equal(i82077_insert(&f, &disk, &e), ERR_FORMAT);
    assert_int_equal(i82077_cmos_type(&f), 5);
    disk.size = 2880 * 1024;
}

static void implied_seek(void **state)
{
    COMMAND(0x13, 0x00, 0x60, 0x00);
    program_dma(true, 512);
    COMMAND(0x46, 0x00, 9, 0, 1, 2, 18, 0x1b, 0xff);
    complete();
    RESULT(0x00, 0, 0, 9, 0, 2, 2);
    assert_memory_equal(ram.host + BUFFER, image + lba(9, 0, 1), 512);
}

static void storm(void **state)
{
    for (unsigned i = 0; i < 3000; i++) {
        out(0x3f2, 0x1c);
        program_dma(i & 1, (uint16_t)(1 + i));
        probe_storm(&i82077_desc, &f, 1 + i % 23);
        out(0x3f5, (uint8_t)(i * 37));
        if (queued && i % 3)
            complete_one();
    }
    complete();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(identifies_itself, setup),
        cmocka_unit_test_setup(seeks, setup),
        cmocka_unit_test_setup(reads, setup),
        cmocka_unit_test_setup(reads_multi_track, setup),
        cmocka_unit_test_setup(writes_are_durable, setup),
        cmocka_unit_test_setup(errors, setup),
        cmocka_unit_test_setup(read_id_and_deleted, setup),
        cmocka_unit_test_setup(verify, setup),
        cmocka_unit_test_setup(format, setup),
        cmocka_unit_test_setup(by_hand, setup),
        cmocka_unit_test_setup(reset_during_io, setup),
        cmocka_unit_test_setup(interrupt_gate, setup),
        cmocka_unit_test_setup(media, setup),
        cmocka_unit_test_setup(implied_seek, setup),
        cmocka_unit_test_setup(storm, setup),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
