/* test_virtio_scsi.c - the SCSI host: commands through the rings, task management, events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "late_blk.h"
#include "vdriver.h"
#include "virtio/virtio_scsi.h"

#define HDR      0x20000u /* of slot n: 0x100 n further */
#define RESP     0x28000u
#define DATA     0x30000u
#define BASE     (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_RING_RESET)
#define F_CHANGE 4u
#define HEAD     51u  /* header with a CDB of 32 bytes */
#define TAIL     108u /* response with 96 bytes of sense data */
enum { CONTROL, EVENT, REQUEST };
enum { S_OK, S_OVERRUN, S_ABORTED, S_BAD_TARGET, S_RESET, S_FAILURE = 9, S_SUCCEEDED, S_REJECTED };

static struct virtio_scsi dev;
static struct late_blk disk, cd;
static struct drv drv[3];
static unsigned irqs[3];

static void on_interrupt(void *transport, int q)
{
    if (q >= 0)
        irqs[q]++;
}

static void start_driver(void)
{
    uint64_t features = BASE | F_CHANGE;
    virtio_set_status(&dev.v, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    virtio_accept(&dev.v, 0, (uint32_t)features);
    virtio_accept(&dev.v, 1, (uint32_t)(features >> 32));
    virtio_set_status(&dev.v, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    for (unsigned q = 0; q < 3; q++) {
        struct vring *r = &dev.v.queue[q].ring;
        drv[q] = drv_at(q, 256);
        memset(ram.host + drv[q].avail, 0, 0x1000);
        memset(ram.host + drv[q].used, 0, 0x1000);
        r->desc = drv[q].desc;
        r->avail = drv[q].avail;
        r->used = drv[q].used;
        virtio_queue_enable(&dev.v, q);
        assert_true(r->enabled);
    }
    virtio_set_status(&dev.v, 15);
    for (unsigned i = 0; i < VSCSI_TARGETS; i++)
        dev.target[i].unit.attention = 0;
}

static int setup(void **state)
{
    memset(irqs, 0, sizeof irqs);
    late_init(&disk);
    late_init(&cd);
    cd.blk.readonly = true;
    if (guest_init() || virtio_scsi_init(&dev, &space, 1, NULL))
        return -1;
    virtio_scsi_add_disk(&dev, 0, &disk.blk, "DISK", "S1", 512);
    virtio_scsi_add_cdrom(&dev, 3, &cd.blk, "CD", "S2");
    dev.v.interrupt = on_interrupt;
    dev.v.dma = true;
    start_driver();
    return 0;
}

static int teardown(void **state)
{
    late_all(&disk, -EIO);
    late_all(&cd, -EIO);
    virtio_scsi_fini(&dev);
    guest_fini();
    return 0;
}

/* ---- the driver ---- */

static uint8_t *put_lun(uint8_t *p, unsigned target, unsigned lun)
{
    memset(p, 0, 8);
    p[0] = 1;
    p[1] = (uint8_t)target;
    p[2] = 0x40;
    p[3] = (uint8_t)lun;
    return p;
}

/* A command of four descriptors at 4 * slot: header, data to the target, response, data from it. */
static void add(unsigned slot, unsigned target, const uint8_t *cdb, uint32_t len, bool in)
{
    uint16_t d = (uint16_t)(4 * slot);
    gpa_t hdr = HDR + 0x100 * slot, resp = RESP + 0x100 * slot;
    uint8_t *h = put_lun(ram.host + hdr, target, 0);
    memset(h + 8, 0, 43);
    store_le64(h + 8, 1000 + slot);
    memcpy(h + 19, cdb, 16);
    memset(ram.host + resp, 0xee, TAIL);
    bool out = len && !in;
    put_desc(drv[REQUEST].desc, d, hdr, HEAD, NEXT, (uint16_t)(out ? d + 1 : d + 2));
    put_desc(drv[REQUEST].desc, d + 1u, DATA, len, NEXT, (uint16_t)(d + 2));
    put_desc(drv[REQUEST].desc, d + 2u, resp, TAIL, WRITE | (len && in ? NEXT : 0),
             (uint16_t)(d + 3));
    put_desc(drv[REQUEST].desc, d + 3u, DATA + 0x1000 * slot, len, WRITE, 0);
    drv_add(&drv[REQUEST], d);
    virtio_kick(&dev.v, REQUEST);
}

static const uint8_t *response(unsigned slot)
{
    return ram.host + RESP + 0x100 * slot;
}

static bool taken(unsigned q, uint32_t *head, uint32_t *len)
{
    return drv_take(&drv[q], head, len);
}

/* A function through the control queue; its response is at DATA + 0x8000. */
static void manage(uint32_t subtype, unsigned target, uint64_t tag)
{
    uint8_t *p = ram.host + HDR + 0x4000;
    memset(p, 0, 24);
    store_le32(p + 4, subtype);
    put_lun(p + 8, target, 0);
    store_le64(p + 16, tag);
    ram.host[DATA + 0x8000] = 0xee;
    put_desc(drv[CONTROL].desc, 0, HDR + 0x4000, 24, NEXT, 1);
    put_desc(drv[CONTROL].desc, 1, DATA + 0x8000, 1, WRITE, 0);
    drv_add(&drv[CONTROL], 0);
    virtio_kick(&dev.v, CONTROL);
}

static uint8_t managed(void)
{
    return ram.host[DATA + 0x8000];
}

#define CDB(...) ((const uint8_t[16]){__VA_ARGS__})
#define READ1    CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 1)

/* ---- tests ---- */

static void configuration(void **state)
{
    uint8_t c[36];
    dev.v.ops->config_read(&dev.v, 0, c, sizeof c);
    assert_int_equal(load_le32(c), 1);
    assert_int_equal(load_le32(c + 20), 96);
    assert_int_equal(load_le32(c + 24), 32);
    assert_int_equal(load_le16(c + 30), VSCSI_TARGETS - 1);
    store_le32(c, 16);
    dev.v.ops->config_write(&dev.v, 24, c, 4);
    assert_int_equal(dev.cdb_size, 16);
    store_le32(c, 256);
    dev.v.ops->config_write(&dev.v, 20, c, 4);
    dev.v.ops->config_write(&dev.v, 20, c, 1);
    dev.v.ops->config_write(&dev.v, 0, c, 4);
    assert_int_equal(dev.sense_size, 96);
}

static void commands(void **state)
{
    uint32_t head, len;
    add(0, 0, READ1, 512, true);
    late_one(&disk, 0, 0);
    assert_true(taken(REQUEST, &head, &len));
    assert_int_equal(head, 0);
    assert_int_equal(len, TAIL + 512);
    assert_int_equal(load_le32(response(0)), 0);
    assert_int_equal(load_le32(response(0) + 4), 0);
    assert_int_equal(response(0)[10], 0);
    assert_int_equal(response(0)[11], S_OK);
    assert_memory_equal(ram.host + DATA, disk.data + 3 * 512, 512);
    assert_int_equal(irqs[REQUEST], 1);

    memset(ram.host + DATA, 0x42, 512);
    add(0, 0, CDB(0x2a, 0, 0, 0, 0, 9, 0, 0, 1), 512, false);
    late_one(&disk, 0, 0);
    assert_true(taken(REQUEST, &head, &len));
    assert_int_equal(len, TAIL);
    assert_int_equal(disk.data[9 * 512 + 511], 0x42);

    add(0, 0, CDB(0xff), 0, false); /* unknown: sense data */
    assert_true(taken(REQUEST, &head, &len));
    assert_int_equal(load_le32(response(0)), SCSI_SENSE_LEN);
    assert_int_equal(response(0)[10], 2);
    assert_int_equal(response(0)[12 + 2], 5);

    add(0, 0, CDB(0x12, 0, 0, 0, 36), 255, true);
    assert_true(taken(REQUEST, &head, &len));
    assert_int_equal(load_le32(response(0) + 4), 255 - 36); /* residual */
    add(0, 0, CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 2), 512, true);
    assert_int_equal(response(0)[11], S_OVERRUN);
    add(0, 3, CDB(0x28, 0, 0, 0, 0, 1, 0, 0, 1), 2048, true);
    late_one(&cd, 0, 0);
    assert_memory_equal(ram.host + DATA, cd.data + 2048, 2048);
}

static void addresses(void **state)
{
    add(0, 1, READ1, 512, true);
    assert_int_equal(response(0)[11], S_BAD_TARGET);
    add(0, 200, READ1, 512, true);
    assert_int_equal(response(0)[11], S_BAD_TARGET);
    put_lun(ram.host + HDR, 0, 5);
    drv_add(&drv[REQUEST], 0);
    ram.host[HDR + 1] = 0;
    virtio_kick(&dev.v, REQUEST);
    assert_int_equal(response(0)[11], S_OK);
    assert_int_equal(response(0)[12 + 12], 0x25); /* no such logical unit */
    ram.host[HDR] = 0;
    drv_add(&drv[REQUEST], 0);
    virtio_kick(&dev.v, REQUEST);
    assert_int_equal(response(0)[11], S_BAD_TARGET);
    assert_int_equal(disk.n, 0);
}

static void no_header_or_response_needs_reset(void **state)
{
    put_desc(drv[REQUEST].desc, 0, HDR, HEAD, NEXT, 1);
    put_desc(drv[REQUEST].desc, 1, RESP, TAIL - 1, WRITE, 0);
    drv_add(&drv[REQUEST], 0);
    virtio_kick(&dev.v, REQUEST);
    assert_true(virtio_status(&dev.v) & VIRTIO_NEEDS_RESET);
    assert_int_equal(dev.v.queue[REQUEST].inflight, 0);
    virtio_set_status(&dev.v, 0);
    start_driver();
    put_desc(drv[CONTROL].desc, 0, HDR, 24, 0, 0);
    drv_add(&drv[CONTROL], 0);
    virtio_kick(&dev.v, CONTROL);
    assert_true(virtio_status(&dev.v) & VIRTIO_NEEDS_RESET);
}

static void data_both_ways_is_refused(void **state)
{
    put_lun(ram.host + HDR, 0, 0);
    put_desc(drv[REQUEST].desc, 0, HDR, HEAD + 1, NEXT, 1);
    put_desc(drv[REQUEST].desc, 1, RESP, TAIL + 1, WRITE, 0);
    drv_add(&drv[REQUEST], 0);
    virtio_kick(&dev.v, REQUEST);
    assert_int_equal(response(0)[11], S_FAILURE);
}

static void abort_waits_for_the_command(void **state)
{
    add(0, 0, READ1, 512, true);
    add(1, 0, READ1, 512, true);
    manage(6, 0, 1001); /* QUERY TASK */
    assert_int_equal(managed(), S_SUCCEEDED);
    manage(6, 0, 7);
    assert_int_equal(managed(), S_OK);
    manage(0, 0, 1001);
    assert_int_equal(managed(), 0xee);
    late_one(&disk, 0, 0);
    assert_int_equal(managed(), 0xee);
    assert_int_equal(response(0)[11], S_OK);
    late_one(&disk, 0, 0);
    assert_int_equal(response(1)[11], S_ABORTED);
    assert_int_equal(managed(), S_OK);
    manage(0, 0, 1001); /* nothing to abort */
    assert_int_equal(managed(), S_OK);
    manage(5, 9, 0);
    assert_int_equal(managed(), S_BAD_TARGET);
    manage(77, 0, 0);
    assert_int_equal(managed(), S_REJECTED);
}

static void reset_of_a_unit(void **state)
{
    add(0, 0, READ1, 512, true);
    add(1, 3, CDB(0x28, 0, 0, 0, 0, 1, 0, 0, 1), 2048, true);
    manage(5, 0, 0);
    add(2, 0, CDB(0x00), 0, false); /* comes too late to be reset, and is told */
    assert_int_equal(managed(), 0xee);
    late_one(&disk, 0, 0);
    assert_int_equal(managed(), S_OK);
    assert_int_equal(response(0)[11], S_RESET);
    assert_int_equal(response(1)[11], 0xee); /* the other target goes on */
    add(2, 0, CDB(0x00), 0, false);
    assert_int_equal(response(2)[10], 2);
    assert_int_equal(response(2)[12 + 12], 0x29);
}

static void functions_wait_for_each_other(void **state)
{
    uint32_t head, len;
    add(0, 0, READ1, 512, true);
    manage(0, 0, 1000);
    manage(0, 0, 1000);
    assert_false(taken(CONTROL, &head, &len));
    late_one(&disk, 0, 0);
    assert_true(taken(CONTROL, &head, &len));
    assert_true(taken(CONTROL, &head, &len));
}

static void device_reset_drains(void **state)
{
    add(0, 0, READ1, 512, true);
    manage(0, 0, 1000);
    virtio_set_status(&dev.v, 0);
    assert_int_not_equal(virtio_status(&dev.v), 0);
    late_one(&disk, 0, 0);
    assert_int_equal(virtio_status(&dev.v), 0);
    assert_int_equal(managed(), 0xee);
    assert_int_equal(response(0)[11], 0xee);
    start_driver();
    add(0, 0, READ1, 512, true);
    late_one(&disk, 0, 0);
    assert_int_equal(response(0)[11], S_OK);
}

static void asynchronous_notifications(void **state)
{
    uint8_t *p = ram.host + HDR + 0x4000;
    memset(p, 0, 24);
    store_le32(p, 1);
    put_desc(drv[CONTROL].desc, 0, HDR + 0x4000, 16, NEXT, 1);
    put_desc(drv[CONTROL].desc, 1, DATA, 5, WRITE, 0);
    memset(ram.host + DATA, 0xee, 5);
    drv_add(&drv[CONTROL], 0);
    virtio_kick(&dev.v, CONTROL);
    assert_int_equal(load_le32(ram.host + DATA), 0);
    assert_int_equal(ram.host[DATA + 4], S_OK);
}

static void a_new_size_is_an_event(void **state)
{
    uint32_t head, len;
    disk.blk.size /= 2;
    disk.blk.resized(disk.blk.ctx); /* no buffer yet */
    put_desc(drv[EVENT].desc, 0, DATA, 16, WRITE, 0);
    drv_add(&drv[EVENT], 0);
    virtio_kick(&dev.v, EVENT);
    assert_true(taken(EVENT, &head, &len));
    assert_int_equal(len, 16);
    assert_int_equal(load_le32(ram.host + DATA), 3);
    assert_int_equal(ram.host[DATA + 5], 0);
    assert_int_equal(load_le32(ram.host + DATA + 12), 0x092a);
    assert_int_equal(irqs[EVENT], 1);
    drv_add(&drv[EVENT], 0);
    virtio_kick(&dev.v, EVENT);
    assert_false(taken(EVENT, &head, &len)); /* told once */
    add(0, 0, READ1, 512, true);
    assert_int_equal(response(0)[12 + 12], 0x2a);
}

static void no_more_commands_than_the_pool(void **state)
{
    add(0, 0, READ1, 512, true);
    for (unsigned i = 0; i < 99; i++)
        drv_add(&drv[REQUEST], 0);
    virtio_kick(&dev.v, REQUEST);
    assert_int_equal(disk.n, 64);
    while (disk.n)
        late_one(&disk, 0, 0);
    assert_int_equal(drv_used_idx(&drv[REQUEST]), 100);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(configuration),
        T(commands),
        T(addresses),
        T(no_header_or_response_needs_reset),
        T(data_both_ways_is_refused),
        T(abort_waits_for_the_command),
        T(reset_of_a_unit),
        T(functions_wait_for_each_other),
        T(device_reset_drains),
        T(asynchronous_notifications),
        T(a_new_size_is_an_event),
        T(no_more_commands_than_the_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
