/* test_virtio_console.c - the console and entropy devices, driven without a transport. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>

#include "vdriver.h"
#include "virtio/virtio_console.h"
#include "virtio/virtio_rng.h"

#define BUF 0x20000u

static struct virtio_console con;
static struct virtio_rng rng;
static struct drv rx, tx;
static char out[8192];
static size_t nout, limit;
static unsigned irqs[2], readies;
static struct char_in in;

static size_t sink(void *ctx, const uint8_t *buf, size_t len)
{
    size_t n = min_u64(len, limit);
    assert_true(nout + n <= sizeof out);
    memcpy(out + nout, buf, n);
    nout += n;
    limit -= n;
    return n;
}

static void on_ready(void *ctx)
{
    readies++;
}

static void on_interrupt(void *transport, int q)
{
    if (q >= 0)
        irqs[q]++;
}

static struct drv start_queue(struct virtio_dev *v, unsigned q, uint16_t size)
{
    struct drv d = drv_at(q, size);
    struct vring *r = &v->queue[q].ring;
    memset(ram.host + d.desc, 0, RING_STRIDE);
    r->size = size;
    r->desc = d.desc;
    r->avail = d.avail;
    r->used = d.used;
    virtio_queue_enable(v, q);
    assert_true(r->enabled);
    return d;
}

static void negotiate(struct virtio_dev *v)
{
    v->interrupt = on_interrupt;
    v->dma = true;
    virtio_set_status(v, 3);
    virtio_accept(v, 1, 1);
    virtio_set_status(v, 11);
}

static void start_console(void)
{
    negotiate(&con.v);
    rx = start_queue(&con.v, 0, 64);
    tx = start_queue(&con.v, 1, 64);
    virtio_set_status(&con.v, 15);
    readies = 0;
}

static int setup(void **state)
{
    nout = 0;
    limit = sizeof out;
    irqs[0] = irqs[1] = readies = 0;
    if (guest_init())
        return -1;
    virtio_console_init(&con, &space, (struct char_out){sink, NULL},
                        (struct char_ready){on_ready, NULL});
    virtio_rng_init(&rng, &space);
    in = virtio_console_input(&con);
    return 0;
}

static int teardown(void **state)
{
    guest_fini();
    return 0;
}

static void send(uint16_t d, gpa_t at, const char *text)
{
    memcpy(ram.host + at, text, strlen(text));
    put_desc(tx.desc, d, at, (uint32_t)strlen(text), 0, 0);
    drv_add(&tx, d);
}

static void output(void **state)
{
    start_console();
    send(0, BUF, "hello ");
    send(1, BUF + 100, "world");
    virtio_kick(&con.v, 1);
    assert_int_equal(nout, 11);
    assert_memory_equal(out, "hello world", 11);
    assert_int_equal(drv_used_idx(&tx), 2);
    assert_int_equal(irqs[1], 1);
}

static void output_waits_for_the_back_end(void **state)
{
    start_console();
    limit = 3;
    send(0, BUF, "hello ");
    send(1, BUF + 100, "world");
    virtio_kick(&con.v, 1);
    assert_int_equal(nout, 3);
    assert_int_equal(drv_used_idx(&tx), 0);
    virtio_kick(&con.v, 1);
    assert_int_equal(nout, 3);
    limit = 5;
    in.drained(in.dev);
    assert_int_equal(nout, 8);
    assert_int_equal(drv_used_idx(&tx), 1);
    limit = 100;
    in.drained(in.dev);
    assert_memory_equal(out, "hello world", 11);
    assert_int_equal(drv_used_idx(&tx), 2);
    in.drained(in.dev);
    assert_int_equal(nout, 11);
}

static void reset_drops_held_output(void **state)
{
    start_console();
    limit = 1;
    send(0, BUF, "abc");
    virtio_kick(&con.v, 1);
    virtio_set_status(&con.v, 0);
    assert_int_equal(virtio_status(&con.v), 0); /* nothing to wait for */
    limit = 100;
    in.drained(in.dev);
    assert_int_equal(nout, 1);
    start_console();
    send(0, BUF, "xyz");
    virtio_kick(&con.v, 1);
    assert_memory_equal(out, "axyz", 4);
}

static void input(void **state)
{
    uint32_t head, len;
    assert_int_equal(in.room(in.dev), 0); /* no driver yet */
    start_console();
    assert_true(in.room(in.dev) >= 16);
    put_desc(rx.desc, 0, BUF, 4, WRITE, 0);
    put_desc(rx.desc, 1, BUF + 16, 16, WRITE, 0);
    drv_add(&rx, 0);
    drv_add(&rx, 1);
    virtio_kick(&con.v, 0);
    assert_int_equal(irqs[0], 0);
    assert_int_equal(readies, 1);
    in.push(in.dev, (const uint8_t *)"abcdefg", 7);
    assert_memory_equal(ram.host + BUF, "abcd", 4);
    assert_memory_equal(ram.host + BUF + 16, "efg", 3);
    assert_true(drv_take(&rx, &head, &len));
    assert_int_equal(len, 4);
    assert_true(drv_take(&rx, &head, &len));
    assert_int_equal(head, 1);
    assert_int_equal(len, 3);
    assert_int_equal(irqs[0], 1);
}

static void input_waits_for_buffers(void **state)
{
    start_console();
    uint8_t byte = 0;
    size_t total = 0;
    for (size_t room = in.room(in.dev); room; room = in.room(in.dev), byte++, total++)
        in.push(in.dev, &byte, 1);
    in.push(in.dev, &byte, 1); /* more than room: refused, not stored beyond */
    assert_int_equal(total, VCON_FIFO);
    put_desc(rx.desc, 0, BUF, 1000, WRITE, 0);
    drv_add(&rx, 0);
    virtio_kick(&con.v, 0);
    assert_int_equal(readies, 1);
    assert_int_equal(in.room(in.dev), 1000);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(ram.host[BUF + i], (uint8_t)i);
    uint8_t more[500];
    memset(more, 0xcc, sizeof more);
    in.push(in.dev, more, sizeof more); /* wraps around in the FIFO */
    drv_add(&rx, 0);
    virtio_kick(&con.v, 0);
    for (unsigned i = 0; i < 24; i++)
        assert_int_equal(ram.host[BUF + i], (uint8_t)(1000 + i));
    assert_int_equal(ram.host[BUF + 24], 0xcc);
    assert_int_equal(ram.host[BUF + 523], 0xcc);
}

static void wrong_way_buffers_are_harmless(void **state)
{
    uint32_t head, len;
    start_console();
    put_desc(tx.desc, 0, BUF, 16, WRITE, 0); /* nothing to read in it */
    drv_add(&tx, 0);
    virtio_kick(&con.v, 1);
    assert_int_equal(nout, 0);
    assert_true(drv_take(&tx, &head, &len));
    put_desc(rx.desc, 0, BUF, 16, 0, 0); /* nothing to write */
    drv_add(&rx, 0);
    in.push(in.dev, (const uint8_t *)"a", 1);
    assert_true(drv_take(&rx, &head, &len));
    assert_int_equal(len, 0);
    assert_int_equal(ram.host[BUF], 0);
}

static void endless_output_is_bounded(void **state)
{
    start_console();
    con.out = (struct char_out){0};
    for (uint16_t i = 0; i < 63; i++)
        put_desc(tx.desc, i, 0, GUEST_RAM, NEXT, (uint16_t)(i + 1));
    put_desc(tx.desc, 63, 0, GUEST_RAM, 0, 0);
    drv_add(&tx, 0);
    virtio_kick(&con.v, 1);
    assert_true(con.sending);
    assert_int_equal(con.sent, MIB);
    for (unsigned i = 1; i < 64; i++)
        virtio_kick(&con.v, 1);
    assert_int_equal(drv_used_idx(&tx), 1);
}

static void emergency_write(void **state)
{
    uint8_t c[12], x[4] = {'!', 0, 0, 0};
    con.v.ops->config_read(&con.v, 0, c, sizeof c);
    assert_int_equal(load_le32(c + 4), 1);
    con.v.ops->config_write(&con.v, 8, x, 4);
    con.v.ops->config_write(&con.v, 0, x, 4);
    assert_int_equal(nout, 1);
    assert_int_equal(out[0], '!');
}

/* ---- entropy ---- */

static void entropy(void **state)
{
    uint32_t head, len;
    negotiate(&rng.v);
    struct drv d = start_queue(&rng.v, 0, 16);
    virtio_set_status(&rng.v, 15);
    put_desc(d.desc, 0, BUF, 64, NEXT | WRITE, 1);
    put_desc(d.desc, 1, BUF + 64, 8, WRITE, 0);
    put_desc(d.desc, 2, BUF + 0x1000, 0x10000, WRITE, 0);
    drv_add(&d, 0);
    drv_add(&d, 2);
    virtio_kick(&rng.v, 0);
    assert_true(drv_take(&d, &head, &len));
    assert_int_equal(len, 72);
    unsigned sum = 0;
    for (unsigned i = 0; i < 72; i++)
        sum += ram.host[BUF + i];
    assert_true(sum > 1000); /* 72 random bytes below 14 on average: never */
    assert_int_equal(ram.host[BUF + 72], 0);
    assert_true(drv_take(&d, &head, &len));
    assert_int_equal(len, 4096); /* no more in one chain */
    assert_int_equal(ram.host[BUF + 0x2000], 0);
    assert_int_equal(irqs[0], 1);
}

static void entropy_needs_writable_buffers(void **state)
{
    negotiate(&rng.v);
    struct drv d = start_queue(&rng.v, 0, 16);
    virtio_set_status(&rng.v, 15);
    put_desc(d.desc, 0, BUF, 64, 0, 0);
    drv_add(&d, 0);
    virtio_kick(&rng.v, 0);
    assert_true(virtio_status(&rng.v) & VIRTIO_NEEDS_RESET);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(output),
        T(output_waits_for_the_back_end),
        T(reset_drops_held_output),
        T(input),
        T(input_waits_for_buffers),
        T(wrong_way_buffers_are_harmless),
        T(endless_output_is_bounded),
        T(emergency_write),
        T(entropy),
        T(entropy_needs_writable_buffers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
