/* test_virtio_blk.c - the block device, and with it the life of queues, over a back end by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "vdriver.h"
#include "virtio/virtio_blk.h"

#define DISK    (64 * KIB)
#define HDR     0x20000u
#define DATA    0x21000u
#define STATUS  0x20800u
#define F_FLUSH (1ull << 9)
#define F_WCE   (1ull << 11)
#define F_MQ    (1ull << 12)
#define BASE    (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_RING_RESET)

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_ZERO = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

/* ---- a back end that completes when the test says so ---- */

static struct blk_req *pending[256];
static unsigned npending, submitted;
static uint8_t disk[DISK];

static void fake_submit(struct blk *b, struct blk_req *req)
{
    assert_true(npending < ARRAY_LEN(pending));
    if (req->op != BLK_FLUSH)
        assert_true(req->offset + req->len <= b->size && req->offset + req->len >= req->len);
    if (req->op == BLK_READ || req->op == BLK_WRITE) {
        uint64_t sum = 0;
        for (int i = 0; i < req->niov; i++) {
            const uint8_t *p = req->iov[i].iov_base;
            assert_true(p >= ram.host && p + req->iov[i].iov_len <= ram.host + GUEST_RAM);
            sum += req->iov[i].iov_len;
        }
        assert_int_equal(sum, req->len);
    }
    pending[npending++] = req;
    submitted++;
}

static void fake_close(struct blk *b)
{
}

static void fake_batch(struct blk *b, enum blk_batch what);

static const struct blk_driver fake_driver = {
    .name = "fake", .submit = fake_submit, .close = fake_close, .batch = fake_batch};
static bool at_once; /* requests end in blk_end() */
static unsigned ends, lazy_ends, unplugs;
static struct blk fake = {.drv = &fake_driver, .size = DISK};

/* Carries out and completes the request that waits at position i. */
static void complete(unsigned i, int result)
{
    assert_true(i < npending);
    struct blk_req *req = pending[i];
    memmove(&pending[i], &pending[i + 1], (npending - i - 1) * sizeof *pending);
    npending--;
    uint64_t off = req->offset;
    for (int n = 0; result == 0 && n < req->niov && req->op <= BLK_WRITE; n++) {
        void *p = req->iov[n].iov_base;
        if (req->op == BLK_READ)
            memcpy(p, disk + off, req->iov[n].iov_len);
        else
            memcpy(disk + off, p, req->iov[n].iov_len);
        off += req->iov[n].iov_len;
    }
    req->done(req, result);
}

static void fake_batch(struct blk *b, enum blk_batch what)
{
    ends += what == BLK_END;
    lazy_ends += what == BLK_END_LAZY;
    unplugs += what == BLK_UNPLUG;
    while ((what == BLK_END || what == BLK_END_LAZY) && at_once && npending)
        complete(0, 0);
}

/* ---- the driver ---- */

static struct virtio_blk dev;
static struct vclock host_clock;
static struct timerq timers;
static struct drv drv;
static unsigned irqs, irqs1, config_irqs;

static void on_interrupt(void *transport, int q)
{
    irqs += q == 0;
    irqs1 += q == 1;
    config_irqs += q < 0;
}

static void start_queue_n(unsigned q)
{
    struct vring *r = &dev.v.queue[q].ring;
    drv = drv_at(q, 256);
    memset(ram.host + drv.avail, 0, 0x1000);
    memset(ram.host + drv.used, 0, 0x1000);
    r->desc = drv.desc;
    r->avail = drv.avail;
    r->used = drv.used;
    virtio_queue_enable(&dev.v, q);
    assert_true(r->enabled);
}

static void start_queue(void)
{
    start_queue_n(0);
}

static void start_driver(uint64_t features)
{
    virtio_set_status(&dev.v, VIRTIO_ACKNOWLEDGE);
    virtio_set_status(&dev.v, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    virtio_accept(&dev.v, 0, (uint32_t)features);
    virtio_accept(&dev.v, 1, (uint32_t)(features >> 32));
    virtio_set_status(&dev.v, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    assert_true(virtio_status(&dev.v) & VIRTIO_FEATURES_OK);
    start_queue();
    virtio_set_status(&dev.v, 15);
}

static int setup(void **state)
{
    npending = submitted = irqs = irqs1 = config_irqs = 0;
    fake.readonly = false;
    fake.size = DISK;
    at_once = false;
    vclock_init_manual(&host_clock);
    timerq_init(&timers, &host_clock);
    const struct virtio_blk_config cfg = {.blk = &fake,
                                          .serial = "SERIAL-0123456789-too-long",
                                          .queues = 2,
                                          .block_size = 512,
                                          .timers = &timers};
    for (unsigned i = 0; i < DISK; i++)
        disk[i] = (uint8_t)(i / 512 + 1);
    if (guest_init() || virtio_blk_init(&dev, &space, &cfg, NULL))
        return -1;
    dev.v.interrupt = on_interrupt;
    dev.v.dma = true;
    return 0;
}

static int teardown(void **state)
{
    while (npending)
        complete(0, -EIO);
    virtio_blk_fini(&dev);
    assert_int_equal(timerq_next(&timers), INT64_MAX);
    timerq_fini(&timers);
    guest_fini();
    return 0;
}

static void put_header(gpa_t at, uint32_t type, uint64_t sector)
{
    store_le32(ram.host + at, type);
    store_le32(ram.host + at + 4, 0);
    store_le64(ram.host + at + 8, sector);
}

/* A request of three descriptors at 3 * slot. */
static void add(unsigned slot, uint32_t type, uint64_t sector, gpa_t data, uint32_t len, bool in)
{
    uint16_t d = (uint16_t)(3 * slot);
    gpa_t hdr = HDR + 16 * slot;
    put_header(hdr, type, sector);
    ram.host[STATUS + slot] = 0xee;
    put_desc(drv.desc, d, hdr, 16, NEXT, (uint16_t)(len ? d + 1 : d + 2));
    put_desc(drv.desc, d + 1u, data, len, NEXT | (in ? WRITE : 0), (uint16_t)(d + 2));
    put_desc(drv.desc, d + 2u, STATUS + slot, 1, WRITE, 0);
    drv_add(&drv, d);
}

/* One request from start to end; returns its status. */
static uint8_t request(uint32_t type, uint64_t sector, gpa_t data, uint32_t len, bool in)
{
    uint32_t head, used;
    add(0, type, sector, data, len, in);
    virtio_kick(&dev.v, 0);
    while (npending)
        complete(0, 0);
    assert_true(drv_take(&drv, &head, &used));
    assert_int_equal(head, 0);
    assert_int_equal(used, in ? len + 1 : 1);
    return ram.host[STATUS];
}

/* ---- tests ---- */

static void configuration(void **state)
{
    uint8_t c[60];
    dev.v.ops->config_read(&dev.v, 0, c, sizeof c);
    assert_int_equal(load_le64(c), DISK / 512);
    assert_int_equal(load_le32(c + 12), 254);
    assert_int_equal(load_le32(c + 20), 512);
    assert_int_equal(load_le32(c + 40), 1);
    assert_int_equal(c[24], 3); /* 8 blocks of 512 are a page */
    assert_int_equal(load_le16(c + 26), 8);
    assert_int_equal(load_le32(c + 28), 128);
    assert_int_equal(c[32], 1);
    assert_int_equal(load_le16(c + 34), 2);
    uint8_t b;
    dev.v.ops->config_read(&dev.v, 59, &b, 1);
    assert_true(virtio_offered(&dev.v) & (1u << 13));
    fake.readonly = true;
    assert_false(virtio_offered(&dev.v) & (1u << 13));
    assert_true(virtio_offered(&dev.v) & (1u << 5));
}

static void reads_and_writes(void **state)
{
    start_driver(BASE | F_FLUSH);
    assert_int_equal(request(T_IN, 3, DATA, 1024, true), S_OK);
    assert_memory_equal(ram.host + DATA, disk + 3 * 512, 1024);
    memset(ram.host + DATA, 0x42, 512);
    assert_int_equal(request(T_OUT, 127, DATA, 512, false), S_OK);
    assert_int_equal(disk[DISK - 1], 0x42);
    assert_int_equal(request(T_FLUSH, 0, 0, 0, false), S_OK);
    assert_int_equal(irqs, 3);
    assert_int_equal(submitted, 3);
}

static void without_flush_a_write_is_durable(void **state)
{
    start_driver(BASE);
    add(0, T_OUT, 0, DATA, 512, false);
    virtio_kick(&dev.v, 0);
    assert_true(pending[0]->fua);
    complete(0, 0);
    assert_int_equal(drv_used_idx(&drv), 1);
    assert_int_equal(ram.host[STATUS], S_OK);
}

static uint8_t writeback(void)
{
    uint8_t b;
    dev.v.ops->config_read(&dev.v, 32, &b, 1);
    return b;
}

static void set_writeback(uint8_t b)
{
    dev.v.ops->config_write(&dev.v, 32, &b, 1);
}

static bool next_write_is_fua(void)
{
    add(0, T_OUT, 0, DATA, 512, false);
    virtio_kick(&dev.v, 0);
    bool fua = pending[0]->fua;
    complete(0, 0);
    return fua;
}

static void the_write_cache_can_be_switched_off(void **state)
{
    start_driver(BASE | F_FLUSH | F_WCE);
    assert_int_equal(writeback(), 1);
    assert_false(next_write_is_fua());
    set_writeback(0);
    assert_int_equal(writeback(), 0);
    assert_int_equal(npending, 1); /* what was in the cache */
    assert_int_equal(pending[0]->op, BLK_FLUSH);
    set_writeback(1);
    set_writeback(0);
    assert_int_equal(npending, 1); /* one at a time */
    complete(0, 0);
    assert_true(next_write_is_fua());
    put_header(HDR, T_ZERO, 0);
    set_writeback(1);
    assert_false(next_write_is_fua());
    set_writeback(0);
    complete(0, 0);
    virtio_set_status(&dev.v, 0);
    start_driver(BASE | F_FLUSH | F_WCE); /* a reset switches it on */
    assert_int_equal(writeback(), 1);
    virtio_set_status(&dev.v, 0);
    start_driver(BASE | F_WCE);
    assert_int_equal(writeback(), 0);
    virtio_set_status(&dev.v, 0);
    start_driver(BASE | F_FLUSH);
    set_writeback(0); /* not negotiated */
    assert_false(next_write_is_fua());
}

static void each_queue_has_its_own_requests(void **state)
{
    start_driver(BASE | F_FLUSH | F_MQ);
    struct drv drv0 = drv;
    start_queue_n(1);
    struct drv drv1 = drv;
    drv = drv0;
    add(0, T_IN, 0, DATA, 512, true);
    for (unsigned i = 0; i < 99; i++)
        drv_add(&drv, 0);
    virtio_kick(&dev.v, 0);
    assert_int_equal(npending, 64);
    drv = drv1;
    add(1, T_IN, 5, DATA + 512, 512, true);
    virtio_kick(&dev.v, 1);
    assert_int_equal(npending, 65); /* although queue 0 has used up what it may */
    complete(64, 0);
    assert_int_equal(drv_used_idx(&drv1), 1);
    assert_int_equal(drv_used_idx(&drv0), 0);
    assert_int_equal(ram.host[DATA + 512], 6);
    assert_int_equal(irqs, 0);
    assert_int_equal(irqs1, 1);
    virtio_queue_reset(&dev.v, 0); /* leaves the other alone */
    add(1, T_IN, 6, DATA + 512, 512, true);
    virtio_kick(&dev.v, 1);
    complete(64, 0);
    assert_int_equal(drv_used_idx(&drv1), 2);
    assert_true(dev.v.queue[0].draining);
}

static void a_new_size_is_told(void **state)
{
    fake.resized(fake.ctx); /* nobody listens yet */
    assert_int_equal(config_irqs, 0);
    start_driver(BASE | F_FLUSH);
    uint8_t generation = dev.v.generation, c[8];
    fake.size = DISK / 2;
    fake.resized(fake.ctx);
    assert_int_equal(config_irqs, 1);
    assert_int_not_equal(dev.v.generation, generation);
    dev.v.ops->config_read(&dev.v, 0, c, sizeof c);
    assert_int_equal(load_le64(c), DISK / 2 / 512);
    assert_int_equal(request(T_IN, DISK / 1024, DATA, 512, true), S_IOERR);
    assert_int_equal(request(T_IN, DISK / 1024 - 1, DATA, 512, true), S_OK);
}

static void out_of_order(void **state)
{
    start_driver(BASE | F_FLUSH);
    for (unsigned i = 0; i < 3; i++)
        add(i, T_IN, i, DATA + 512 * i, 512, true);
    virtio_kick(&dev.v, 0);
    assert_int_equal(npending, 3);
    complete(2, 0);
    complete(0, -EIO);
    complete(0, 0);
    uint32_t head, len;
    static const uint32_t order[] = {6, 0, 3};
    for (unsigned i = 0; i < 3; i++) {
        assert_true(drv_take(&drv, &head, &len));
        assert_int_equal(head, order[i]);
    }
    assert_int_equal(ram.host[STATUS], S_IOERR);
    assert_int_equal(ram.host[STATUS + 1], S_OK);
    assert_int_equal(ram.host[STATUS + 2], S_OK);
    assert_int_equal(ram.host[DATA + 1024], 3);
}

static void any_framing(void **state)
{
    start_driver(BASE | F_FLUSH);
    put_header(HDR, T_OUT, 5); /* header in three pieces, data shares the last one */
    memset(ram.host + HDR + 16, 0x33, 512);
    put_desc(drv.desc, 0, HDR, 7, NEXT, 1);
    put_desc(drv.desc, 1, HDR + 7, 5, NEXT, 2);
    put_desc(drv.desc, 2, HDR + 12, 4 + 512, NEXT, 3);
    put_desc(drv.desc, 3, STATUS, 1, WRITE, 0);
    drv_add(&drv, 0);
    virtio_kick(&dev.v, 0);
    complete(0, 0);
    assert_int_equal(ram.host[STATUS], S_OK);
    assert_int_equal(disk[5 * 512], 0x33);
    assert_int_equal(disk[6 * 512 - 1], 0x33);

    put_header(HDR, T_IN, 7); /* the status is the last byte of the data buffer */
    put_desc(drv.desc, 0, HDR, 16, NEXT, 1);
    put_desc(drv.desc, 1, DATA, 100, NEXT | WRITE, 2);
    put_desc(drv.desc, 2, DATA + 100, 413, WRITE, 0);
    ram.host[DATA + 512] = 0xee;
    drv_add(&drv, 0);
    virtio_kick(&dev.v, 0);
    complete(0, 0);
    assert_int_equal(ram.host[DATA + 512], S_OK);
    assert_int_equal(ram.host[DATA + 511], 8);
}

static void id_is_cut_to_20(void **state)
{
    start_driver(BASE);
    assert_int_equal(request(T_GET_ID, 0, DATA, 20, true), S_OK);
    assert_memory_equal(ram.host + DATA, "SERIAL-0123456789-to", 20);
    assert_int_equal(request(T_GET_ID, 0, DATA, 19, true), S_IOERR);
    assert_int_equal(request(T_GET_ID, 0, DATA, 0, false), S_IOERR);
}

static void put_range(uint64_t sector, uint32_t count, uint32_t flags)
{
    store_le64(ram.host + DATA, sector);
    store_le32(ram.host + DATA + 8, count);
    store_le32(ram.host + DATA + 12, flags);
}

static void discard_and_zero(void **state)
{
    start_driver(BASE);
    put_range(2, 4, 0);
    add(0, T_DISCARD, 0, DATA, 16, false);
    virtio_kick(&dev.v, 0);
    assert_int_equal(pending[0]->op, BLK_DISCARD);
    assert_int_equal(pending[0]->offset, 1024);
    assert_int_equal(pending[0]->len, 2048);
    complete(0, 0);
    assert_int_equal(ram.host[STATUS], S_OK);
    put_range(0, 128, 1);
    add(0, T_ZERO, 0, DATA, 16, false);
    virtio_kick(&dev.v, 0);
    assert_int_equal(pending[0]->op, BLK_WRITE_ZEROES);
    assert_false(pending[0]->no_unmap);
    complete(0, -ENOTSUP);
    assert_int_equal(ram.host[STATUS], S_UNSUPP);
    drv.seen = 2;

    put_range(0, 1, 1);
    assert_int_equal(request(T_DISCARD, 0, DATA, 16, false), S_UNSUPP);
    put_range(0, 1, 2);
    assert_int_equal(request(T_ZERO, 0, DATA, 16, false), S_UNSUPP);
    put_range(0, 129, 0);
    assert_int_equal(request(T_ZERO, 0, DATA, 16, false), S_IOERR);
    put_range(UINT64_MAX, UINT32_MAX, 0);
    assert_int_equal(request(T_DISCARD, 0, DATA, 16, false), S_IOERR);
    put_range(1ull << 55, 1, 0);
    assert_int_equal(request(T_DISCARD, 0, DATA, 16, false), S_IOERR);
    put_range(5, 0, 0);
    assert_int_equal(request(T_ZERO, 0, DATA, 16, false), S_OK);
    assert_int_equal(request(T_ZERO, 0, DATA, 32, false), S_IOERR);
    assert_int_equal(request(T_ZERO, 0, DATA, 15, false), S_IOERR);
    assert_int_equal(submitted, 2);
}

static void bad_requests_get_a_status(void **state)
{
    start_driver(BASE);
    assert_int_equal(request(T_IN, DISK / 512, DATA, 512, true), S_IOERR);
    assert_int_equal(request(T_IN, DISK / 512 - 1, DATA, 1024, true), S_IOERR);
    assert_int_equal(request(T_IN, UINT64_MAX, DATA, 512, true), S_IOERR);
    assert_int_equal(request(T_IN, 1ull << 55, DATA, 512, true), S_IOERR);
    assert_int_equal(request(T_IN, 0, DATA, 511, true), S_IOERR);
    assert_int_equal(request(T_OUT, 0, DATA, 513, false), S_IOERR);
    assert_int_equal(request(T_OUT, 0, DATA, 512, true), S_IOERR); /* data the wrong way */
    assert_int_equal(request(T_IN, 0, DATA, 512, false), S_IOERR);
    assert_int_equal(request(T_IN, 0, 0, 0, false), S_OK);
    assert_int_equal(request(2, 0, DATA, 512, true), S_UNSUPP);
    assert_int_equal(request(UINT32_MAX, 0, DATA, 512, false), S_UNSUPP);
    assert_int_equal(submitted, 0);
    assert_int_equal(virtio_status(&dev.v), 15);
}

static void readonly_disk(void **state)
{
    fake.readonly = true;
    start_driver(BASE);
    put_range(0, 1, 0);
    assert_int_equal(request(T_OUT, 0, DATA, 512, false), S_IOERR);
    assert_int_equal(request(T_DISCARD, 0, DATA, 16, false), S_IOERR);
    assert_int_equal(request(T_ZERO, 0, DATA, 16, false), S_IOERR);
    assert_int_equal(submitted, 0);
    assert_int_equal(request(T_IN, 0, DATA, 512, true), S_OK);
}

static void no_place_for_a_status_needs_reset(void **state)
{
    start_driver(BASE);
    put_desc(drv.desc, 0, HDR, 16, 0, 0); /* nothing writable */
    drv_add(&drv, 0);
    virtio_kick(&dev.v, 0);
    assert_true(virtio_status(&dev.v) & VIRTIO_NEEDS_RESET);
    assert_int_equal(config_irqs, 1);
    add(1, T_IN, 0, DATA, 512, true); /* and the device has stopped */
    virtio_kick(&dev.v, 0);
    assert_int_equal(npending, 0);
    virtio_set_status(&dev.v, 0);
    assert_int_equal(virtio_status(&dev.v), 0);
    start_driver(BASE);
    put_desc(drv.desc, 0, HDR, 15, NEXT, 1); /* header too short */
    put_desc(drv.desc, 1, STATUS, 1, WRITE, 0);
    drv_add(&drv, 0);
    virtio_kick(&dev.v, 0);
    assert_true(virtio_status(&dev.v) & VIRTIO_NEEDS_RESET);
    assert_int_equal(dev.v.queue[0].inflight, 0);
}

static void broken_ring_needs_reset(void **state)
{
    start_driver(BASE);
    drv_add(&drv, 999);
    virtio_kick(&dev.v, 0);
    assert_true(virtio_status(&dev.v) & VIRTIO_NEEDS_RESET);
    assert_int_equal(config_irqs, 1);
}

static void same_chain_many_times(void **state)
{
    start_driver(BASE | F_FLUSH);
    add(0, T_IN, 0, DATA, 512, true);
    for (unsigned i = 0; i < 255; i++)
        drv_add(&drv, 0);
    virtio_kick(&dev.v, 0);
    assert_int_equal(npending, 64); /* no more than the pool */
    virtio_kick(&dev.v, 0);
    assert_int_equal(npending, 64);
    complete(5, 0); /* each completion takes one more */
    assert_int_equal(npending, 64);
    while (npending)
        complete(0, 0);
    assert_int_equal(submitted, 256);
    assert_int_equal(drv_used_idx(&drv), 256);
    assert_int_equal(dev.v.queue[0].inflight, 0);
}

static void event_index_resumes(void **state)
{
    start_driver(BASE | F_FLUSH | VIRTIO_F_EVENT_IDX);
    drv_used_event(&drv, 69); /* interrupt when the 70th is done */
    add(0, T_IN, 0, DATA, 512, true);
    for (unsigned i = 0; i < 69; i++)
        drv_add(&drv, 0);
    virtio_kick(&dev.v, 0);
    assert_int_equal(drv_avail_event(&drv), 0); /* starved: not asking for more */
    while (npending > 1)
        complete(0, 0);
    assert_int_equal(irqs, 0);
    assert_int_equal(drv_avail_event(&drv), 70);
    complete(0, 0);
    assert_int_equal(irqs, 1);
}

static void reset_waits_for_io(void **state)
{
    start_driver(BASE | F_FLUSH);
    add(0, T_IN, 0, DATA, 512, true);
    add(1, T_IN, 1, DATA + 512, 512, true);
    virtio_kick(&dev.v, 0);
    virtio_set_status(&dev.v, 0);
    assert_int_not_equal(virtio_status(&dev.v), 0);
    virtio_set_status(&dev.v, VIRTIO_ACKNOWLEDGE); /* not yet */
    complete(0, 0);
    assert_int_not_equal(virtio_status(&dev.v), 0);
    complete(0, 0);
    assert_int_equal(virtio_status(&dev.v), 0);
    assert_int_equal(ram.host[STATUS], 0xee); /* nothing reported */
    assert_int_equal(drv_used_idx(&drv), 0);
    assert_int_equal(irqs, 0);
    start_driver(BASE | F_FLUSH);
    assert_int_equal(request(T_IN, 0, DATA, 512, true), S_OK);
}

static void power_on_does_not_wait_and_old_io_goes_nowhere(void **state)
{
    start_driver(BASE | F_FLUSH);
    add(0, T_OUT, 0, DATA, 512, false);
    virtio_kick(&dev.v, 0);
    virtio_power_on(&dev.v);
    assert_int_equal(virtio_status(&dev.v), 0);
    dev.v.dma = true;
    start_driver(BASE);
    ram.host[STATUS] = 0xee;
    complete(0, 0);
    assert_int_equal(ram.host[STATUS], 0xee);
    assert_int_equal(drv_used_idx(&drv), 0);
    assert_int_equal(npending, 0);
    assert_int_equal(request(T_IN, 0, DATA, 512, true), S_OK);
}

static void queue_reset_waits_too(void **state)
{
    start_driver(BASE | F_FLUSH);
    add(0, T_IN, 0, DATA, 512, true);
    virtio_kick(&dev.v, 0);
    virtio_queue_reset(&dev.v, 0);
    assert_true(dev.v.queue[0].draining);
    assert_false(dev.v.queue[0].ring.enabled);
    virtio_queue_enable(&dev.v, 0); /* not yet */
    assert_false(dev.v.queue[0].ring.enabled);
    complete(0, 0);
    assert_false(dev.v.queue[0].draining);
    assert_int_equal(virtio_status(&dev.v), 15);
    start_queue();
    assert_int_equal(request(T_IN, 0, DATA, 512, true), S_OK);
}

static void negotiation(void **state)
{
    virtio_set_status(&dev.v, 3);
    virtio_accept(&dev.v, 0, 0xffffffff); /* more than offered */
    virtio_accept(&dev.v, 1, 1);
    virtio_set_status(&dev.v, 11);
    assert_int_equal(virtio_status(&dev.v), 3);
    virtio_accept(&dev.v, 0, 0);
    virtio_accept(&dev.v, 1, 0); /* no VERSION_1 */
    virtio_set_status(&dev.v, 11);
    assert_int_equal(virtio_status(&dev.v), 3);
    virtio_set_status(&dev.v, 7); /* DRIVER_OK without FEATURES_OK */
    assert_int_equal(virtio_status(&dev.v), 3);
    virtio_queue_enable(&dev.v, 0);
    assert_false(dev.v.queue[0].ring.enabled);
    virtio_accept(&dev.v, 1, 1);
    virtio_accept(&dev.v, 2, 0xffffffff); /* no such half */
    virtio_set_status(&dev.v, 11);
    assert_int_equal(virtio_status(&dev.v), 11);
    virtio_accept(&dev.v, 0, 1u << 9); /* too late */
    assert_int_equal(dev.v.features, VIRTIO_F_VERSION_1);
    virtio_set_status(&dev.v, 1); /* bits do not go away */
    assert_int_equal(virtio_status(&dev.v), 11);
    virtio_set_status(&dev.v, 64); /* the device's own */
    assert_int_equal(virtio_status(&dev.v), 11);
    virtio_queue_enable(&dev.v, 0); /* all addresses 0: descriptor table over the rings, but RAM */
    virtio_queue_enable(&dev.v, 7);
    virtio_queue_reset(&dev.v, 7);
    virtio_kick(&dev.v, 7);
}

static void bad_ring_setup_needs_reset(void **state)
{
    virtio_set_status(&dev.v, 3);
    virtio_accept(&dev.v, 1, 1);
    virtio_set_status(&dev.v, 11);
    dev.v.queue[0].ring.desc = GUEST_RAM;
    virtio_queue_enable(&dev.v, 0);
    assert_true(virtio_status(&dev.v) & VIRTIO_NEEDS_RESET);
    assert_int_equal(config_irqs, 0); /* not before DRIVER_OK */
}

static void no_dma_without_bus_mastering(void **state)
{
    start_driver(BASE | F_FLUSH);
    add(0, T_IN, 0, DATA, 512, true);
    add(1, T_IN, 0, DATA, 512, true);
    dev.v.dma = false;
    virtio_kick(&dev.v, 0);
    assert_int_equal(npending, 0);
    dev.v.dma = true;
    virtio_kick(&dev.v, 0);
    assert_int_equal(npending, 2);
    dev.v.dma = false;
    complete(0, 0);
    assert_int_equal(drv_used_idx(&drv), 0);
    assert_int_equal(ram.host[STATUS], 0xee);
}

static void chains_before_driver_ok_are_served(void **state)
{
    start_driver(BASE | F_FLUSH);
    virtio_set_status(&dev.v, 0);
    virtio_set_status(&dev.v, 3);
    virtio_accept(&dev.v, 1, 1);
    virtio_set_status(&dev.v, 11);
    start_queue();
    add(0, T_IN, 0, DATA, 512, true);
    virtio_kick(&dev.v, 0);
    assert_int_equal(npending, 0);
    virtio_set_status(&dev.v, 15);
    assert_int_equal(npending, 1);
}

/* `n` reads, each of which is done before the next begins: how many interrupts they are. */
static unsigned interrupts_of(unsigned n)
{
    uint32_t head, used;
    unsigned before = irqs;
    for (unsigned i = 0; i < n; i++) {
        add(0, T_IN, i % 8, DATA, 512, true);
        virtio_kick(&dev.v, 0);
        assert_true(drv_take(&drv, &head, &used)); /* always there for a driver that looks */
    }
    return irqs - before;
}

static void interrupts_of_what_is_done_at_once(void **state)
{
    start_driver(BASE);
    at_once = true;
    assert_int_equal(interrupts_of(32), 32);
    /* A try: nothing follows, and the vCPU has nothing else to do. */
    assert_int_equal(interrupts_of(1), 0);
    assert_true(timerq_has_lazy(&timers));
    timerq_idle(&timers);
    assert_int_equal(irqs, 33);
    assert_int_equal(interrupts_of(64), 64);
    /* Another: more follow, so it goes on. */
    assert_int_equal(interrupts_of(7), 0);
    assert_int_equal(interrupts_of(1), 1);
    assert_int_equal(interrupts_of(24), 3);
    /* A guest that is busy with something else. */
    unsigned before = irqs;
    assert_int_equal(interrupts_of(5), 0);
    vclock_set(&host_clock, timerq_next(&timers));
    timerq_run(&timers);
    assert_int_equal(irqs, before + 1);
    assert_int_equal(interrupts_of(64), 64);
    assert_int_equal(interrupts_of(8), 1);
    /* What was not done at once tells all. */
    assert_int_equal(interrupts_of(1), 0);
    at_once = false;
    before = irqs;
    request(T_IN, 0, DATA, 512, true);
    assert_int_equal(irqs, before + 1);
    at_once = true;
    timerq_idle(&timers);
    assert_int_equal(interrupts_of(64), 64);
    assert_int_equal(interrupts_of(1), 0);
    virtio_set_status(&dev.v, 0); /* the queue ends */
    assert_false(timerq_has_lazy(&timers));
}

/* Writes that the disk's thread has to be woken for. */
static void begin_writes(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        add(i, T_OUT, i, DATA, 512, false);
        virtio_kick(&dev.v, 0);
    }
}

static void end_writes(void)
{
    uint32_t head, used;
    while (npending)
        complete(0, 0);
    while (drv_take(&drv, &head, &used))
        continue;
}

static void wake_ups_for_what_is_not(void **state)
{
    start_driver(BASE | F_FLUSH);
    for (unsigned i = 0; i < 4; i++) {
        begin_writes(8);
        end_writes();
    }
    ends = lazy_ends = unplugs = 0;
    begin_writes(7);
    assert_int_equal(lazy_ends, 7);
    assert_int_equal(unplugs, 0);
    begin_writes(1);
    assert_int_equal(unplugs, 1);
    end_writes();
    begin_writes(5); /* and then the vCPU has nothing else to do */
    timerq_idle(&timers);
    assert_int_equal(unplugs, 2);
    end_writes();
    begin_writes(6);
    assert_int_equal(ends, 0);
    add(6, T_FLUSH, 0, 0, 0, false); /* the driver waits for it */
    virtio_kick(&dev.v, 0);
    assert_int_equal(ends, 1);
    assert_int_equal(unplugs, 3);
    end_writes();
    begin_writes(2);
    virtio_set_status(&dev.v, 0); /* what is put off is in flight: the reset waits for it */
    assert_int_equal(unplugs, 4);
    end_writes();
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(interrupts_of_what_is_done_at_once),
        T(wake_ups_for_what_is_not),
        T(configuration),
        T(reads_and_writes),
        T(without_flush_a_write_is_durable),
        T(the_write_cache_can_be_switched_off),
        T(each_queue_has_its_own_requests),
        T(a_new_size_is_told),
        T(out_of_order),
        T(any_framing),
        T(id_is_cut_to_20),
        T(discard_and_zero),
        T(bad_requests_get_a_status),
        T(readonly_disk),
        T(no_place_for_a_status_needs_reset),
        T(broken_ring_needs_reset),
        T(same_chain_many_times),
        T(event_index_resumes),
        T(reset_waits_for_io),
        T(power_on_does_not_wait_and_old_io_goes_nowhere),
        T(queue_reset_waits_too),
        T(negotiation),
        T(bad_ring_setup_needs_reset),
        T(no_dma_without_bus_mastering),
        T(chains_before_driver_ok_are_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
