/* test_virtio_pci.c - the PCI transport, driven through ports 0xCF8/0xCFC and BAR 0 like a driver.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "vdriver.h"
#include "virtio/virtio_pci.h"

#define BAR  0xfe000000u
#define MSIX 0xfe010000u
#define DEV  PCI_DEVFN(5, 0)

static struct space port;
static struct pci_bus bus;
static struct virtio_pci vp;
static struct virtio_dev dev;
static bool intx_level;
static unsigned kicks[2], msis, resets;
static uint32_t msi_data;
static uint8_t config[6] = {1, 2, 3, 4, 5, 6};

static uint64_t features(struct virtio_dev *v)
{
    return VIRTIO_F_EVENT_IDX | 0x21;
}

static void config_read(struct virtio_dev *v, unsigned off, uint8_t *buf, unsigned len)
{
    assert_true(off + len <= sizeof config);
    memcpy(buf, config + off, len);
}

static void config_write(struct virtio_dev *v, unsigned off, const uint8_t *buf, unsigned len)
{
    assert_true(off + len <= sizeof config);
    memcpy(config + off, buf, len);
}

static void kick(struct virtio_dev *v, unsigned q)
{
    kicks[q]++;
}

static void reset(struct virtio_dev *v)
{
    resets++;
}

static const struct virtio_ops ops = {.name = "virtio-test",
                                      .id = 42,
                                      .class_rev = 0x00ff0001,
                                      .nqueue = 2,
                                      .queue_max = 64,
                                      .config_len = sizeof config,
                                      .features = features,
                                      .config_read = config_read,
                                      .config_write = config_write,
                                      .kick = kick,
                                      .reset = reset};

static void on_intx(void *ctx, unsigned devfn, unsigned pin, bool level)
{
    intx_level = level;
}

static void on_msi(void *ctx, uint64_t addr, uint32_t data)
{
    msis++;
    msi_data = data;
}

static uint32_t cfg_read(unsigned off, unsigned size)
{
    space_write(&port, 0xcf8, 0x80000000u | DEV << 8 | (off & 0xfc), 4);
    return (uint32_t)space_read(&port, 0xcfc + (off & 3), size);
}

static void cfg_write(unsigned off, uint32_t val, unsigned size)
{
    space_write(&port, 0xcf8, 0x80000000u | DEV << 8 | (off & 0xfc), 4);
    space_write(&port, 0xcfc + (off & 3), val, size);
}

static uint64_t rd(unsigned off, unsigned size)
{
    return space_read(&space, BAR + off, size);
}

static void wr(unsigned off, uint64_t val, unsigned size)
{
    space_write(&space, BAR + off, val, size);
}

static int setup(void **state)
{
    intx_level = false;
    kicks[0] = kicks[1] = msis = resets = 0;
    if (guest_init() || space_init(&port, 65536, NULL, NULL) ||
        pci_bus_init(&bus, &space, &port, NULL))
        return -1;
    bus.intx = on_intx;
    bus.msi = on_msi;
    virtio_init(&dev, &ops, &space);
    if (virtio_pci_init(&vp, &bus, DEV, &dev, NULL))
        return -1;
    cfg_write(0x10, BAR, 4);
    cfg_write(0x14, MSIX, 4);
    cfg_write(4, 6, 2); /* memory, bus master */
    return 0;
}

static int teardown(void **state)
{
    virtio_pci_fini(&vp);
    virtio_pci_fini(&vp); /* harmless twice */
    space_fini(&port);
    guest_fini();
    return 0;
}

static void negotiate(void)
{
    wr(0x14, 1, 1);
    wr(0x14, 3, 1);
    wr(0x08, 1, 4);
    wr(0x0c, 0x101, 4); /* VERSION_1, RING_RESET */
    wr(0x14, 11, 1);
    assert_int_equal(rd(0x14, 1), 11);
}

static void set_up_queue(unsigned q)
{
    struct drv d = drv_at(q, 16);
    wr(0x16, q, 2);
    wr(0x18, 16, 2);
    wr(0x20, d.desc, 4);
    wr(0x24, 0, 4);
    wr(0x28, d.avail, 8); /* as two halves */
    wr(0x30, d.used, 4);
    wr(0x34, 0, 4);
    wr(0x1c, 1, 2);
    assert_int_equal(rd(0x1c, 2), 1);
}

/* The capability of this type: its offset in configuration space, or 0. */
static unsigned find_cap(unsigned type)
{
    unsigned at = cfg_read(0x34, 1);
    for (unsigned n = 0; at && n < 48; n++, at = cfg_read(at + 1, 1))
        if (cfg_read(at, 1) == 9 && cfg_read(at + 3, 1) == type)
            return at;
    return 0;
}

static void identity_and_capabilities(void **state)
{
    assert_int_equal(cfg_read(0, 4), 0x106a1af4);
    assert_int_equal(cfg_read(0x3d, 1), 1);
    assert_true(cfg_read(8, 1) >= 1); /* 4.1.2.1: revision of a modern device */
    static const unsigned where[] = {0, 0x0000, 0x3000, 0x1000, 0x2000};
    static const unsigned len[] = {0, 0x3c, 8, 1, 6};
    for (unsigned type = 1; type <= 4; type++) {
        unsigned at = find_cap(type);
        assert_true(at >= 0x40);
        assert_int_equal(cfg_read(at + 4, 1), 0);
        assert_int_equal(cfg_read(at + 8, 4), where[type]);
        assert_int_equal(cfg_read(at + 12, 4), len[type]);
        cfg_write(at + 8, 0xffffffff, 4); /* not for the guest to change */
        assert_int_equal(cfg_read(at + 8, 4), where[type]);
    }
    assert_int_equal(cfg_read(find_cap(2) + 16, 4), 4);
    assert_true(find_cap(5) >= 0x40);
}

static void features_in_halves(void **state)
{
    assert_int_equal(rd(0x04, 4), 0x30000021);
    wr(0x00, 1, 4);
    assert_int_equal(rd(0x04, 4), 0x101);
    wr(0x00, 2, 4);
    assert_int_equal(rd(0x04, 4), 0);
    wr(0x00, 0xffffffff, 4);
    assert_int_equal(rd(0x04, 4), 0);
    wr(0x08, 0xffffffff, 4);
    wr(0x0c, 0xffffffff, 4);
    assert_int_equal(rd(0x0c, 4), 0);
    negotiate();
    assert_int_equal(rd(0x0c, 4), 0x101);
}

static void queues(void **state)
{
    assert_int_equal(rd(0x12, 2), 2);
    negotiate();
    wr(0x16, 1, 2);
    assert_int_equal(rd(0x18, 2), 64);
    assert_int_equal(rd(0x1e, 2), 1);
    wr(0x16, 2, 2); /* no such queue */
    assert_int_equal(rd(0x18, 2), 0);
    wr(0x18, 8, 2);
    wr(0x1a, 0, 2);
    wr(0x1c, 1, 2);
    wr(0x20, 1, 4);
    wr(0x3a, 1, 2);
    wr(0x16, 0xffff, 2);
    assert_int_equal(rd(0x1c, 2), 0);
    set_up_queue(1);
    wr(0x18, 32, 2); /* enabled: nothing changes */
    wr(0x20, 0xdead0, 4);
    assert_int_equal(rd(0x18, 2), 16);
    assert_int_equal(rd(0x20, 8), 0x5000);
    assert_int_equal(rd(0x28, 8), 0x7000);
    wr(0x1c, 0, 2); /* nor can it be disabled like this */
    assert_int_equal(rd(0x1c, 2), 1);
    wr(0x14, 15, 1);
    kicks[1] = 0;
    wr(0x3004, 1, 2);
    assert_int_equal(kicks[1], 1);
    wr(0x3000, 0, 2); /* not enabled */
    wr(0x3008, 2, 2); /* not there */
    wr(0x3006, 1, 2);
    assert_int_equal(kicks[0] + kicks[1], 1);
    wr(0x3a, 1, 2); /* reset of the queue */
    assert_int_equal(rd(0x1c, 2), 0);
    assert_int_equal(rd(0x3a, 2), 0);
    assert_int_equal(rd(0x18, 2), 64);
    assert_int_equal(rd(0x20, 8), 0);
    set_up_queue(1);
}

static void intx_and_isr(void **state)
{
    negotiate();
    set_up_queue(0);
    wr(0x14, 15, 1);
    dev.interrupt(dev.transport, 0);
    assert_true(intx_level);
    dev.interrupt(dev.transport, -1);
    assert_int_equal(rd(0x1000, 1), 3);
    assert_false(intx_level);
    assert_int_equal(rd(0x1000, 1), 0);
    dev.interrupt(dev.transport, 0);
    wr(0x14, 0, 1);
    assert_false(intx_level);
    assert_int_equal(rd(0x1000, 1), 0);
    assert_int_equal(resets, 1);
}

static void msix(void **state)
{
    unsigned at = cfg_read(0x34, 1);
    while (cfg_read(at, 1) != 0x11)
        at = cfg_read(at + 1, 1);
    assert_int_equal(cfg_read(at + 2, 2) & 0x7ff, 2); /* three vectors */
    dev.interrupt(dev.transport, 0);
    assert_true(intx_level);
    cfg_write(at + 2, 0x8000, 2);
    assert_false(intx_level);
    for (unsigned n = 0; n < 3; n++) {
        space_write(&space, MSIX + 16 * n, 0xfee00000, 4);
        space_write(&space, MSIX + 16 * n + 8, 0x40 + n, 4);
        space_write(&space, MSIX + 16 * n + 12, 0, 4);
    }
    dev.interrupt(dev.transport, 0); /* no vector yet */
    assert_int_equal(msis, 0);
    wr(0x10, 2, 2);
    assert_int_equal(rd(0x10, 2), 2);
    wr(0x16, 1, 2);
    wr(0x1a, 1, 2);
    assert_int_equal(rd(0x1a, 2), 1);
    dev.interrupt(dev.transport, 1);
    assert_int_equal(msi_data, 0x41);
    dev.interrupt(dev.transport, -1);
    assert_int_equal(msi_data, 0x42);
    assert_int_equal(msis, 2);
    wr(0x1a, 3, 2); /* there is no vector 3 */
    assert_int_equal(rd(0x1a, 2), 0xffff);
    wr(0x10, 0x1234, 2);
    assert_int_equal(rd(0x10, 2), 0xffff);
    assert_false(intx_level);
    assert_int_equal(rd(0x1000, 1), 0);
}

static void device_configuration(void **state)
{
    assert_int_equal(rd(0x2000, 4), 0x04030201);
    assert_int_equal(rd(0x2004, 2), 0x0605);
    assert_int_equal(rd(0x2005, 1), 6);
    assert_int_equal(rd(0x2004, 4), 0); /* beyond the end */
    assert_int_equal(rd(0x2ffc, 4), 0);
    wr(0x2001, 0x77, 1);
    assert_int_equal(config[1], 0x77);
    wr(0x2004, 0xffffffff, 4);
    assert_int_equal(config[5], 6);
    config[1] = 2;
}

static void changed_configuration(void **state)
{
    uint8_t generation = (uint8_t)rd(0x15, 1);
    virtio_config_changed(&dev);
    assert_int_not_equal(rd(0x15, 1), generation);
    assert_false(intx_level); /* no driver yet */
    negotiate();
    wr(0x14, 15, 1);
    virtio_config_changed(&dev);
    assert_int_equal(rd(0x1000, 1), 2);
}

static void window(void **state)
{
    unsigned cap = find_cap(5);
    cfg_write(4, 0, 2); /* works without memory decoding */
    cfg_write(cap + 4, 0, 1);
    cfg_write(cap + 8, 0x12, 4);
    cfg_write(cap + 12, 2, 4);
    assert_int_equal(cfg_read(cap + 16, 2), 2); /* num_queues */
    cfg_write(cap + 8, 0x14, 4);
    cfg_write(cap + 12, 1, 4);
    cfg_write(cap + 16, 0xffffff01, 4);
    assert_int_equal(dev.status, 1);
    assert_int_equal(cfg_read(cap + 16, 1), 1);
    cfg_write(cap + 8, 0x1000, 4);
    dev.interrupt(dev.transport, 0);
    assert_int_equal(cfg_read(cap + 16, 4) & 0xff, 1);
    assert_int_equal(dev.status, 1);
}

static void hostile_window(void **state)
{
    static const struct {
        uint8_t bar;
        uint32_t off, len;
    } bad[] = {{1, 0x14, 1},         {0, 0x14, 0},       {0, 0x14, 3},       {0, 0x14, 8},
               {0, 0x14, 1u << 31},  {0, 0x15, 2},       {0, 0x16, 4},       {0, 0x4000, 1},
               {0, 0x3ffe, 4},       {0, 0xfffffffc, 4}, {0, 0xffffffff, 1}, {255, 0, 4},
               {0, 0x14, 0xffffffff}};
    unsigned cap = find_cap(5);
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        cfg_write(cap + 4, bad[i].bar, 1);
        cfg_write(cap + 8, bad[i].off, 4);
        cfg_write(cap + 12, bad[i].len, 4);
        cfg_write(cap + 16, 1, 4);
        cfg_read(cap + 16, 4);
        assert_int_equal(dev.status, 0);
    }
}

static void odd_accesses(void **state)
{
    srand(2);
    for (unsigned i = 0; i < 20000; i++) {
        unsigned size = 1u << rand() % 4;
        unsigned off = (unsigned)rand() % 0x4000;
        if (rand() % 2)
            off &= 0x303f;
        wr(off, (uint64_t)rand() << (rand() % 33), size);
        rd((unsigned)rand() % 0x4000, size);
    }
    bus.address = 0;
    pci_bus_reset(&bus);
    cfg_write(0x10, BAR, 4);
    cfg_write(4, 6, 2);
    assert_int_equal(rd(0x14, 1), 0);
    assert_int_equal(rd(0x10, 2), 0xffff);
    memcpy(config, "\1\2\3\4\5\6", 6);
}

static void bus_mastering_gates(void **state)
{
    negotiate();
    set_up_queue(0);
    wr(0x14, 15, 1);
    kicks[0] = 0;
    cfg_write(4, 2, 2);
    wr(0x3000, 0, 2);
    assert_int_equal(kicks[0], 0);
    cfg_write(4, 6, 2);
    wr(0x3000, 0, 2);
    assert_int_equal(kicks[0], 1);
    pci_bus_reset(&bus);
    assert_false(dev.dma);
    assert_int_equal(dev.status, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(identity_and_capabilities),
        T(features_in_halves),
        T(queues),
        T(intx_and_isr),
        T(msix),
        T(device_configuration),
        T(changed_configuration),
        T(window),
        T(hostile_window),
        T(odd_accesses),
        T(bus_mastering_gates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
