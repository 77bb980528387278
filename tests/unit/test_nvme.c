/* test_nvme.c - the NVMe controller, driven through its registers and queues like a driver does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "chip/nvme.h"
#include "late_blk.h"
#include "vdriver.h"

enum { INTMS = 0x0c, INTMC = 0x10, CC = 0x14, CSTS = 0x1c, AQA = 0x24, ASQ = 0x28, ACQ = 0x30 };
enum { ENABLE = 0x460001, RDY = 1, CFS = 2 };
enum {
    DELETE_SQ,
    CREATE_SQ,
    GET_LOG,
    DELETE_CQ = 4,
    CREATE_CQ,
    IDENTIFY,
    ABORT = 8,
    SET,
    GET,
    AER = 12
};
enum { FLUSH, WRITE_CMD, READ_CMD, ZEROES = 8, DATASET };

#define SQ(q) (0x1000u + 0x2000u * (q))
#define CQ(q) (0x2000u + 0x2000u * (q))
#define SIZE  16u
#define PAGE  0x20000u
#define LIST  0x30000u
#define DATA  0x40000u
#define DNR   0x4000u

static struct nvme nvme;
static struct late_blk disk;
static bool line, messages;
static unsigned sent[4];
static struct {
    uint16_t tail, head, cid;
    bool phase;
} q[3];
static uint32_t result;

static void on_irq(void *ctx, unsigned n, bool level)
{
    line = level;
}

static bool on_message(void *ctx, unsigned vector)
{
    if (messages)
        sent[vector]++;
    return messages;
}

static uint32_t rd(unsigned off)
{
    return (uint32_t)nvme_ops.read(&nvme, off, 4);
}

static void wr(unsigned off, uint32_t val)
{
    nvme_ops.write(&nvme, off, val, 4);
}

static void enable(void)
{
    memset(q, 0, sizeof q);
    memset(ram.host + 0x1000, 0, 0x8000);
    for (unsigned i = 0; i < 3; i++)
        q[i].phase = true;
    wr(AQA, (SIZE - 1) | (SIZE - 1) << 16);
    wr(ASQ, SQ(0));
    wr(ASQ + 4, 0);
    wr(ACQ, CQ(0));
    wr(ACQ + 4, 0);
    wr(CC, ENABLE);
}

static int setup(void **state)
{
    memset(sent, 0, sizeof sent);
    line = messages = false;
    late_init(&disk);
    const struct nvme_config cfg = {.blk = &disk.blk,
                                    .serial = "S1",
                                    .queues = 2,
                                    .block_size = 512,
                                    .irq = {on_irq, NULL, 0},
                                    .message = on_message};
    if (guest_init() || nvme_init(&nvme, &space, &cfg, NULL))
        return -1;
    nvme_set_dma(&nvme, true);
    enable();
    return rd(CSTS) == RDY ? 0 : -1;
}

static int teardown(void **state)
{
    late_all(&disk, -EIO);
    nvme_fini(&nvme);
    guest_fini();
    return 0;
}

/* ---- the driver ---- */

static uint8_t *put(unsigned n, uint8_t opcode, uint32_t nsid, uint64_t prp1, uint64_t prp2)
{
    uint8_t *c = ram.host + SQ(n) + 64 * q[n].tail;
    memset(c, 0, 64);
    c[0] = opcode;
    store_le16(c + 2, ++q[n].cid);
    store_le32(c + 4, nsid);
    store_le64(c + 24, prp1);
    store_le64(c + 32, prp2);
    q[n].tail = (q[n].tail + 1) % SIZE;
    return c;
}

static void ring(unsigned n)
{
    wr(0x1000 + 8 * n, q[n].tail);
}

/* The next entry of completion queue n: its status, or -1 if there is none. */
static int take(unsigned n)
{
    const uint8_t *e = ram.host + CQ(n) + 16 * q[n].head;
    uint16_t status = load_le16(e + 14);
    if ((status & 1) != q[n].phase)
        return -1;
    result = load_le32(e);
    q[n].head = (q[n].head + 1) % SIZE;
    if (!q[n].head)
        q[n].phase = !q[n].phase;
    wr(0x1004 + 8 * n, q[n].head);
    return status >> 1;
}

static int admin(uint8_t opcode, uint32_t nsid, uint64_t prp1, uint32_t dw10, uint32_t dw11)
{
    uint8_t *c = put(0, opcode, nsid, prp1, 0);
    store_le32(c + 40, dw10);
    store_le32(c + 44, dw11);
    ring(0);
    return take(0);
}

static void create(unsigned n)
{
    assert_int_equal(admin(CREATE_CQ, 0, CQ(n), n | (SIZE - 1) << 16, 3 | n << 16), 0);
    assert_int_equal(admin(CREATE_SQ, 0, SQ(n), n | (SIZE - 1) << 16, 1 | n << 16), 0);
}

static uint8_t *io(unsigned n, uint8_t opcode, uint64_t lba, uint32_t blocks, uint64_t prp1,
                   uint64_t prp2)
{
    uint8_t *c = put(n, opcode, 1, prp1, prp2);
    store_le64(c + 40, lba);
    store_le32(c + 48, blocks - 1);
    return c;
}

static int io_now(uint8_t opcode, uint64_t lba, uint32_t blocks, uint64_t prp1, uint64_t prp2)
{
    io(1, opcode, lba, blocks, prp1, prp2);
    ring(1);
    late_all(&disk, 0);
    return take(1);
}

/* ---- tests ---- */

static void enabling(void **state)
{
    assert_int_equal(rd(0) & 0xffff, 1023);
    assert_int_equal(rd(8), 0x10400);
    wr(CC, 0);
    assert_int_equal(rd(CSTS), 0);
    wr(CC, ENABLE | 1 << 7); /* pages of 8 KiB */
    assert_int_equal(rd(CSTS), CFS);
    wr(CC, 0);
    wr(AQA, 0);
    wr(CC, ENABLE);
    assert_int_equal(rd(CSTS), CFS);
    wr(CC, 0);
    enable();
    assert_int_equal(rd(CSTS), RDY);
    wr(CC, 0);
    wr(ASQ + 4, 1);
    wr(CC, ENABLE);
    put(0, IDENTIFY, 0, PAGE, 0);
    ring(0); /* the queue is no memory */
    assert_int_equal(rd(CSTS), RDY | CFS);
}

static void identify(void **state)
{
    const uint8_t *p = ram.host + PAGE;
    assert_int_equal(admin(IDENTIFY, 0, PAGE, 1, 0), 0);
    assert_memory_equal(p + 4, "S1                  ", 20);
    assert_int_equal(p[77], NVME_MDTS);
    assert_int_equal(p[525], 1);
    assert_int_equal(load_le32(p + 516), 1);
    assert_int_equal(admin(IDENTIFY, 1, PAGE, 0, 0), 0);
    assert_int_equal(load_le64(p), LATE_SIZE / 512);
    assert_int_equal(p[130], 9);
    assert_int_equal(admin(IDENTIFY, 0, PAGE, 2, 0), 0);
    assert_int_equal(load_le32(p), 1);
    assert_int_equal(admin(IDENTIFY, 1, PAGE, 2, 0), 0);
    assert_int_equal(load_le32(p), 0);
    assert_int_equal(admin(IDENTIFY, 1, PAGE, 3, 0), 0);
    assert_int_equal(p[0], 3);
    assert_int_equal(p[1], 16);
    assert_int_equal(admin(IDENTIFY, 2, PAGE, 0, 0), DNR | 0x0b);
    assert_int_equal(admin(IDENTIFY, 0, PAGE, 9, 0), DNR | 0x02);
    assert_int_equal(admin(IDENTIFY, 0, PAGE + 1, 1, 0), DNR | 0x13);
    assert_int_equal(admin(IDENTIFY, 0, GUEST_RAM, 1, 0), 0x04);
    assert_int_equal(admin(0x7f, 0, 0, 0, 0), DNR | 0x01);
}

static void queues_are_checked(void **state)
{
    assert_int_equal(admin(CREATE_CQ, 0, CQ(1), 3 | 15 << 16, 3), DNR | 0x101);
    assert_int_equal(admin(CREATE_CQ, 0, CQ(1), 0 | 15 << 16, 3), DNR | 0x101);
    assert_int_equal(admin(CREATE_CQ, 0, CQ(1), 1, 3), DNR | 0x102);
    assert_int_equal(admin(CREATE_CQ, 0, CQ(1), 1 | 1024u << 16, 3), DNR | 0x102);
    assert_int_equal(admin(CREATE_CQ, 0, CQ(1), 1 | 15 << 16, 3 | 3 << 16), DNR | 0x108);
    assert_int_equal(admin(CREATE_CQ, 0, CQ(1), 1 | 15 << 16, 2), DNR | 0x02);
    assert_int_equal(admin(CREATE_CQ, 0, CQ(1) + 16, 1 | 15 << 16, 3), DNR | 0x13);
    assert_int_equal(admin(CREATE_SQ, 0, SQ(1), 1 | 15 << 16, 1 | 1 << 16), DNR | 0x100);
    create(1);
    assert_int_equal(admin(CREATE_CQ, 0, CQ(1), 1 | 15 << 16, 3), DNR | 0x101);
    assert_int_equal(admin(DELETE_CQ, 0, 0, 1, 0), DNR | 0x10c);
    assert_int_equal(admin(DELETE_SQ, 0, 0, 2, 0), DNR | 0x101);
    assert_int_equal(admin(DELETE_SQ, 0, 0, 1, 0), 0);
    assert_int_equal(admin(DELETE_CQ, 0, 0, 1, 0), 0);
    assert_int_equal(admin(DELETE_CQ, 0, 0, 1, 0), DNR | 0x101);
}

static void reads_and_writes(void **state)
{
    create(1);
    assert_int_equal(io_now(READ_CMD, 3, 2, DATA + 0x100, 0), 0);
    assert_memory_equal(ram.host + DATA + 0x100, disk.data + 3 * 512, 1024);
    memset(ram.host + DATA, 0x77, 4096);
    assert_int_equal(io_now(WRITE_CMD, 8, 8, DATA + 0xc00, DATA + 0x1000), 0);
    assert_int_equal(disk.data[8 * 512 + 1023], 0x77);
    assert_int_equal(disk.data[8 * 512 + 1024], ram.host[DATA + 0x1000]);
    assert_int_equal(io_now(FLUSH, 0, 1, 0, 0), 0);
    store_le32(io(1, ZEROES, 8, 8, 0, 0) + 48, 7 | 1u << 25);
    io(1, ZEROES, 8, 8, 0, 0);
    ring(1);
    assert_false(disk.req[0]->no_unmap);
    assert_true(disk.req[1]->no_unmap);
    late_all(&disk, 0);
    assert_int_equal(take(1) | take(1), 0);
    assert_int_equal(disk.data[8 * 512 + 1023], 0);
    assert_int_equal(io_now(READ_CMD, LATE_SIZE / 512, 1, DATA, 0), DNR | 0x80);
    assert_int_equal(io_now(READ_CMD, UINT64_MAX, 1, DATA, 0), DNR | 0x80);
    assert_int_equal(io_now(READ_CMD, 0, 1025, DATA, LIST), DNR | 0x02);
    assert_int_equal(io_now(READ_CMD, 0, 1, GUEST_RAM, 0), 0x04);
    assert_int_equal(io_now(0x55, 0, 1, DATA, 0), DNR | 0x01);
    disk.blk.readonly = true;
    assert_int_equal(io_now(WRITE_CMD, 0, 1, DATA, 0), DNR | 0x20);
    assert_int_equal(io_now(ZEROES, 0, 1, DATA, 0), DNR | 0x20);
    io(1, READ_CMD, 0, 1, DATA, 0);
    ring(1);
    late_one(&disk, 0, -EIO);
    assert_int_equal(take(1), 0x281);
}

static void lists_of_pages(void **state)
{
    create(1);
    for (unsigned i = 0; i < 16; i++) /* backwards, so that pieces do not join */
        store_le64(ram.host + LIST + 8 * i, DATA + 0x10000 - 0x1000 * i);
    assert_int_equal(io_now(READ_CMD, 0, 128, DATA + 0x20000, LIST), 0);
    assert_memory_equal(ram.host + DATA + 0x20000, disk.data, 4096);
    for (unsigned i = 0; i < 15; i++)
        assert_memory_equal(ram.host + DATA + 0x10000 - 0x1000 * i, disk.data + 4096 * (i + 1),
                            4096);
    /* two entries at the end of a page, the second of which leads on */
    store_le64(ram.host + LIST + 0xff0, DATA);
    store_le64(ram.host + LIST + 0xff8, LIST + 0x2000);
    store_le64(ram.host + LIST + 0x2000, DATA + 0x5000);
    store_le64(ram.host + LIST + 0x2008, DATA + 0x7000);
    assert_int_equal(io_now(READ_CMD, 64, 32, DATA + 0x20000, LIST + 0xff0), 0);
    assert_memory_equal(ram.host + DATA + 0x5000, disk.data + 64 * 512 + 0x2000, 4096);
    assert_memory_equal(ram.host + DATA + 0x7000, disk.data + 64 * 512 + 0x3000, 4096);
    store_le64(ram.host + LIST + 0xff8, DATA + 0x9000); /* the last one is a page */
    assert_int_equal(io_now(READ_CMD, 64, 24, DATA + 0x20000, LIST + 0xff0), 0);
    assert_memory_equal(ram.host + DATA + 0x9000, disk.data + 64 * 512 + 0x2000, 4096);
    store_le64(ram.host + LIST, DATA + 8);
    assert_int_equal(io_now(READ_CMD, 0, 128, DATA, LIST), DNR | 0x13);
    assert_int_equal(io_now(READ_CMD, 0, 128, DATA, LIST + 4), DNR | 0x13);
    assert_int_equal(io_now(READ_CMD, 0, 16, DATA, DATA + 512), DNR | 0x13);
    assert_int_equal(io_now(READ_CMD, 0, 128, DATA, GUEST_RAM), 0x04);
    put(1, READ_CMD, 1, DATA, 0)[1] = 0x40; /* a scatter list */
    ring(1);
    assert_int_equal(take(1), DNR | 0x02);
}

static void write_cache_and_fua(void **state)
{
    create(1);
    io(1, WRITE_CMD, 0, 1, DATA, 0);
    store_le32(io(1, WRITE_CMD, 1, 1, DATA, 0) + 48, 1u << 30);
    ring(1);
    assert_false(disk.req[0]->fua);
    assert_true(disk.req[1]->fua);
    late_all(&disk, 0);
    assert_int_equal(admin(GET, 0, 0, 6, 0), 0);
    assert_int_equal(result, 1);
    assert_int_equal(admin(SET, 0, 0, 6, 0), -1);
    assert_int_equal(disk.req[0]->op, BLK_FLUSH);
    late_all(&disk, 0);
    assert_int_equal(take(0), 0);
    io(1, WRITE_CMD, 0, 1, DATA, 0);
    ring(1);
    assert_true(disk.req[0]->fua);
}

static void dataset(void **state)
{
    create(1);
    uint8_t *r = ram.host + DATA;
    memset(r, 0, 64);
    store_le32(r + 4, 8);
    store_le64(r + 8, 16);
    store_le32(r + 36, 1);
    store_le64(r + 40, 100);
    uint8_t *c = put(1, DATASET, 1, DATA, 0);
    store_le32(c + 40, 2);
    store_le32(c + 44, 4);
    ring(1);
    assert_int_equal(disk.req[0]->op, BLK_DISCARD);
    assert_int_equal(disk.req[0]->offset, 16 * 512);
    assert_int_equal(disk.req[0]->len, 8 * 512);
    late_one(&disk, 0, 0);
    assert_int_equal(disk.req[0]->offset, 100 * 512);
    late_one(&disk, 0, 0);
    assert_int_equal(take(1), 0);
    store_le64(r + 40, LATE_SIZE / 512);
    c = put(1, DATASET, 1, DATA, 0);
    store_le32(c + 40, 2);
    store_le32(c + 44, 4);
    ring(1);
    assert_int_equal(disk.n, 0);
    assert_int_equal(take(1), DNR | 0x80);
}

/* 15 ends are on their way or unread: the 16th command waits. */
static void completion_queues_never_overflow(void **state)
{
    create(1);
    assert_int_equal(admin(CREATE_SQ, 0, SQ(2), 2 | 15 << 16, 1 | 1 << 16), 0);
    for (unsigned i = 0; i < 10; i++) {
        io(1, READ_CMD, i, 1, DATA + 512 * i, 0);
        io(2, READ_CMD, i, 1, DATA + 512 * i, 0);
    }
    ring(1);
    ring(2);
    assert_int_equal(disk.n, 15);
    late_all(&disk, 0);
    assert_int_equal(disk.n, 0);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(take(1), 0);
    assert_int_equal(disk.n, 5);
    late_all(&disk, 0);
    for (unsigned i = 0; i < 15; i++)
        assert_int_equal(take(1), 0);
    assert_int_equal(take(1), -1);
}

static void doorbells_are_checked(void **state)
{
    assert_int_equal(admin(SET, 0, 0, 0x0b, 0x100), 0);
    put(0, AER, 0, 0, 0);
    ring(0);
    assert_int_equal(take(0), -1);
    wr(0x1004 + 8 * 0, q[0].head + 1u); /* over an entry that is not there */
    assert_int_equal(take(0), 0);
    assert_int_equal(result, 0x010100); /* error information: an invalid value */
    wr(0x1000, SIZE);
    wr(0x1008, 1); /* no such queue */
    wr(0x1000 + 8 * 200, 1);
    put(0, AER, 0, 0, 0);
    ring(0);
    assert_int_equal(take(0), -1); /* held back until the log has been read */
    assert_int_equal(admin(GET_LOG, NVME_MAX_QUEUES, PAGE, 1 | 15 << 16, 0), 0);
    assert_int_equal(result, 0x010000);
    assert_int_equal(take(0), 0);
    wr(0x3ffc, 1);
}

static void a_new_size_is_an_event(void **state)
{
    put(0, AER, 0, 0, 0);
    ring(0);
    disk.blk.size /= 2;
    disk.blk.resized(disk.blk.ctx);
    assert_int_equal(take(0), -1); /* not asked for */
    assert_int_equal(admin(SET, 0, 0, 0x0b, 0x100), 0);
    assert_int_equal(result, 4 << 16 | 2);
    assert_int_equal(take(0), 0);
    put(0, AER, 0, 0, 0);
    ring(0);
    disk.blk.resized(disk.blk.ctx); /* once until the log is read */
    assert_int_equal(take(0), -1);
    assert_int_equal(admin(GET_LOG, 1, PAGE, 4 | 1023u << 16, 0), 0);
    assert_int_equal(load_le32(ram.host + PAGE), 1);
    take(0);
    assert_int_equal(admin(IDENTIFY, 1, PAGE, 0, 0), 0);
    assert_int_equal(load_le64(ram.host + PAGE), LATE_SIZE / 1024);
    for (unsigned i = 0; i < 6; i++)
        put(0, AER, 0, 0, 0);
    ring(0);
    assert_int_equal(take(0), 0x105); /* more than may wait */
}

static void logs(void **state)
{
    create(1);
    assert_int_equal(io_now(READ_CMD, 0, 8, DATA, 0), 0);
    assert_int_equal(io_now(READ_CMD, LATE_SIZE, 1, DATA, 0), DNR | 0x80);
    assert_int_equal(admin(GET_LOG, 1, PAGE, 2 | 127 << 16, 0), 0);
    assert_int_equal(load_le64(ram.host + PAGE + 64), 1);
    assert_int_equal(load_le64(ram.host + PAGE + 32), 1);
    assert_int_equal(load_le64(ram.host + PAGE + 176), 1);
    assert_int_equal(admin(GET_LOG, 1, PAGE, 1 | 15 << 16, 0), 0);
    assert_int_equal(load_le64(ram.host + PAGE), 1);
    assert_int_equal(load_le16(ram.host + PAGE + 8), 1);
    assert_int_equal(load_le64(ram.host + PAGE + 16), LATE_SIZE);
    assert_int_equal(admin(GET_LOG, 1, PAGE, 3 | 127 << 16, 0), 0);
    assert_int_equal(ram.host[PAGE], 1);
    assert_int_equal(admin(GET_LOG, 1, PAGE, 0x77 | 127 << 16, 0), DNR | 0x109);
    uint8_t *c = put(0, GET_LOG, 1, PAGE, 0);
    store_le32(c + 40, 2);
    store_le32(c + 48, 512); /* behind its end */
    ring(0);
    assert_int_equal(take(0), DNR | 0x02);
    assert_int_equal(admin(GET_LOG, 1, PAGE, 2 | 0xffffu << 16, 0xffff), DNR | 0x02);
}

static void features(void **state)
{
    assert_int_equal(admin(SET, 0, 0, 7, 0x00400040), 0);
    assert_int_equal(result, 0x00010001);
    assert_int_equal(admin(GET, 0, 0, 7, 0), 0);
    assert_int_equal(result, 0x00010001);
    assert_int_equal(admin(SET, 0, 0, 4, 300), 0);
    assert_int_equal(admin(GET, 0, 0, 4, 0), 0);
    assert_int_equal(result, 300);
    assert_int_equal(admin(SET, 0, 0, 4 | 1u << 31, 300), DNR | 0x10d);
    assert_int_equal(admin(SET, 0, 0, 2, 1), DNR | 0x02);
    assert_int_equal(admin(GET, 0, 0, 0x7f, 0), DNR | 0x02);
    assert_int_equal(admin(ABORT, 0, 0, 1, 0), 0);
    assert_int_equal(result, 1);
    create(1);
    assert_int_equal(admin(SET, 0, 0, 7, 0), DNR | 0x0c);
}

static void interrupts(void **state)
{
    create(1);
    assert_false(line);
    io(1, READ_CMD, 0, 1, DATA, 0);
    ring(1);
    late_all(&disk, 0);
    assert_true(line);
    wr(INTMS, 2);
    assert_false(line);
    wr(INTMC, 2);
    assert_true(line);
    assert_int_equal(take(1), 0);
    assert_false(line);
    messages = true;
    assert_int_equal(io_now(READ_CMD, 0, 1, DATA, 0), 0);
    assert_int_equal(sent[1], 1);
    assert_int_equal(sent[0], 0);
}

static void deleting_a_queue_waits(void **state)
{
    create(1);
    io(1, READ_CMD, 0, 1, DATA, 0);
    ring(1);
    assert_int_equal(admin(DELETE_SQ, 0, 0, 1, 0), -1);
    io(1, READ_CMD, 0, 1, DATA, 0);
    ring(1); /* not taken any more */
    assert_int_equal(disk.n, 1);
    late_one(&disk, 0, 0);
    assert_int_equal(take(0), 0);
    assert_int_equal(take(1), 0);
    assert_int_equal(admin(DELETE_CQ, 0, 0, 1, 0), 0);
}

static void disabling_waits(void **state)
{
    create(1);
    put(0, AER, 0, 0, 0);
    ring(0);
    io(1, READ_CMD, 0, 1, DATA, 0);
    ring(1);
    assert_int_equal(admin(DELETE_SQ, 0, 0, 1, 0), -1);
    wr(CC, 0);
    assert_int_equal(rd(CSTS), RDY);
    wr(0x1000, 1);
    late_one(&disk, 0, 0);
    assert_int_equal(rd(CSTS), 0);
    assert_int_equal(nvme.inflight, 0);
    enable();
    create(1);
    assert_int_equal(io_now(READ_CMD, 0, 1, DATA, 0), 0);
    assert_int_equal(take(0), -1);
}

static void shutdown_flushes(void **state)
{
    wr(CC, ENABLE | 1 << 14);
    assert_int_equal(rd(CSTS), RDY | 4);
    assert_int_equal(disk.req[0]->op, BLK_FLUSH);
    late_one(&disk, 0, 0);
    assert_int_equal(rd(CSTS), RDY | 8);
    wr(CC, 0);
    assert_int_equal(rd(CSTS), 0);
}

static void nothing_without_bus_mastering(void **state)
{
    nvme_set_dma(&nvme, false);
    put(0, IDENTIFY, 0, PAGE, 0);
    store_le32(ram.host + SQ(0) + 40, 1);
    ring(0);
    assert_int_equal(take(0), -1);
    nvme_set_dma(&nvme, true);
    assert_int_equal(take(0), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(enabling),
        T(identify),
        T(queues_are_checked),
        T(reads_and_writes),
        T(lists_of_pages),
        T(write_cache_and_fua),
        T(dataset),
        T(completion_queues_never_overflow),
        T(doorbells_are_checked),
        T(a_new_size_is_an_event),
        T(logs),
        T(features),
        T(interrupts),
        T(deleting_a_queue_waits),
        T(disabling_waits),
        T(shutdown_flushes),
        T(nothing_without_bus_mastering),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
