/* test_ns16550.c - UART: FIFOs, interrupt priorities, loopback, held-back output, Linux's probes.
 */
#include "chip_probe.h"

#include "chip/ns16550.h"

static struct ns16550 u;
static struct probe irq;
static uint8_t sent[64];
static size_t nsent, accept;
static unsigned ready_calls;
static struct char_in line;

static size_t backend_write(void *ctx, const uint8_t *buf, size_t len)
{
    size_t n = len < accept ? len : accept;
    assert_true(nsent + n <= sizeof sent);
    memcpy(sent + nsent, buf, n);
    nsent += n;
    accept -= n;
    return n;
}

static void backend_ready(void *ctx)
{
    ready_calls++;
}

static void out(unsigned reg, uint8_t val)
{
    out8(&ns16550_com1_desc, &u, 0x3f8 + reg, val);
}

static uint8_t in(unsigned reg)
{
    return in8(&ns16550_com1_desc, &u, 0x3f8 + reg);
}

static int setup(void **state)
{
    nsent = 0;
    accept = sizeof sent;
    ns16550_init(&u, (struct char_out){backend_write, NULL},
                 (struct char_ready){backend_ready, NULL}, probe_pin(&irq));
    line = ns16550_char_in(&u);
    ready_calls = 0;
    return 0;
}

static void push(const char *s)
{
    assert_true(strlen(s) <= line.room(line.dev));
    line.push(line.dev, (const uint8_t *)s, strlen(s));
}

static void reset_state(void **state)
{
    assert_int_equal(in(1), 0);
    assert_int_equal(in(2), 0x01);
    assert_int_equal(in(5), 0x60);
    assert_int_equal(in(6), 0xb0);
    assert_false(irq.level);
    out(7, 0x5a);
    assert_int_equal(in(7), 0x5a);
    out(3, 0x83);
    out(0, 0x01);
    out(1, 0xc2);
    assert_int_equal(in(0), 0x01);
    assert_int_equal(in(1), 0xc2);
    out(3, 0x03);
    assert_int_equal(in(1), 0);
    assert_int_equal(ns16550_com2_desc.ranges[0].base, 0x2f8);
}

/* What Linux's autoconfig() and startup look for. */
static void linux_probes(void **state)
{
    out(1, 0x0f);
    assert_int_equal(in(1), 0x0f);
    out(1, 0);
    out(4, 0x1a); /* loop, OUT2, RTS */
    assert_int_equal(in(6) & 0xf0, 0x90);
    out(4, 0);
    out(2, 0x01);
    assert_int_equal(in(2) >> 6, 3);
    out(2, 0x21); /* not a 16750 */
    assert_int_equal(in(2) & 0x20, 0);
    for (unsigned i = 0; i < 2; i++) { /* THRI raises again each time it is switched on */
        out(1, 0x02);
        assert_true(irq.level);
        assert_int_equal(in(2) & 0x0f, 0x02);
        assert_int_equal(in(2) & 0x0f, 0x01);
        out(1, 0);
    }
    out(1, 0x02);
    assert_int_equal(in(5) & 0x40, 0x40);
    assert_int_equal(in(2) & 1, 0);
}

static void transmit(void **state)
{
    out(1, 0x02);
    in(2);
    assert_false(irq.level);
    out(0, 'x');
    assert_true(irq.level);
    assert_int_equal(in(5) & 0x60, 0x60);
    assert_int_equal(nsent, 1);
    assert_int_equal(sent[0], 'x');
}

static void transmit_held_back(void **state)
{
    out(2, 0x01);
    out(1, 0x02);
    in(2);
    accept = 0;
    for (unsigned i = 0; i < 20; i++) /* four too many */
        out(0, (uint8_t)('a' + i));
    assert_int_equal(in(5) & 0x60, 0);
    assert_false(irq.level);
    accept = 3;
    line.drained(line.dev);
    assert_int_equal(in(5) & 0x60, 0);
    accept = 60;
    line.drained(line.dev);
    assert_int_equal(in(5) & 0x60, 0x60);
    assert_true(irq.level);
    assert_int_equal(nsent, 16);
    assert_memory_equal(sent, "abcdefghijklmnop", 16);
    accept = 0;
    out(0, 'q');
    out(2, 0x05); /* clear the transmitter's FIFO */
    assert_int_equal(in(5) & 0x60, 0x60);
}

static void receive_without_fifo(void **state)
{
    out(1, 0x05);
    assert_int_equal(line.room(line.dev), 1);
    push("A");
    assert_int_equal(line.room(line.dev), 0);
    assert_int_equal(in(2), 0x04);
    assert_int_equal(in(5), 0x61);
    assert_int_equal(in(0), 'A');
    assert_int_equal(ready_calls, 1);
    assert_false(irq.level);
    assert_int_equal(in(0), 'A'); /* RBR stays */
}

static void receive_triggers(void **state)
{
    out(2, 0x81); /* trigger at 8 */
    out(1, 0x01);
    push("1234567");
    assert_int_equal(in(2), 0xcc); /* time-out */
    push("8");
    assert_int_equal(in(2), 0xc4);
    for (unsigned i = 0; i < 8; i++) {
        assert_true(irq.level);
        assert_int_equal(in(0), '1' + i);
    }
    assert_false(irq.level);
    assert_int_equal(ready_calls > 0, true);
    push("0123456789abcdef");
    assert_int_equal(line.room(line.dev), 0);
    out(2, 0x83); /* clear */
    assert_int_equal(in(5), 0x60);
    assert_int_equal(line.room(line.dev), 16);
}

static void priorities(void **state)
{
    out(2, 0x01);
    out(4, 0x10);
    in(6);
    out(1, 0x0f);
    out(4, 0x11); /* DTR: DSR changes */
    for (unsigned i = 0; i < 17; i++)
        out(0, (uint8_t)i); /* overruns */
    assert_int_equal(in(2), 0xc6);
    assert_int_equal(in(5) & 0x02, 0x02);
    assert_int_equal(in(2), 0xc4);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(in(0), i);
    assert_int_equal(in(2), 0xc2);
    assert_int_equal(in(2), 0xc0);
    assert_int_equal(in(6), 0x22);
    assert_int_equal(in(2), 0xc1);
    assert_false(irq.level);
}

static void loopback(void **state)
{
    out(4, 0x1f);
    assert_int_equal(in(6) & 0xf0, 0xf0);
    out(4, 0x10);
    assert_int_equal(in(6), 0x0f); /* all changed; RI fell */
    assert_int_equal(line.room(line.dev), 0);
    out(0, 0x77);
    assert_int_equal(nsent, 0);
    assert_int_equal(in(0), 0x77);
    out(0, 1);
    out(0, 2); /* without FIFO the newer byte overwrites */
    assert_int_equal(in(5) & 0x03, 0x03);
    assert_int_equal(in(0), 2);
    out(3, 0x43); /* break */
    assert_int_equal(in(5) & 0x19, 0x19);
    out(3, 0x03);
    in(0);
    unsigned calls = ready_calls;
    out(4, 0x00);
    assert_int_equal(ready_calls, calls + 1);
}

static void breaks(void **state)
{
    out(2, 0x01);
    out(1, 0x04);
    push("a");
    ns16550_break(&u);
    assert_int_equal(in(5), 0xe1); /* in the FIFO, not at its top */
    assert_false(irq.level);
    in(0);
    assert_true(irq.level);
    assert_int_equal(in(2), 0xc6);
    assert_int_equal(in(5), 0xf9);
    assert_int_equal(in(5), 0x61);
    assert_int_equal(in(0), 0);
    out(3, 0x43); /* sending a break: bytes do not get through */
    out(0, 'x');
    assert_int_equal(nsent, 0);
}

static void storm(void **state)
{
    accept = 0;
    for (unsigned i = 0; i < 3000; i++) {
        probe_storm(&ns16550_com1_desc, &u, 1 + i % 17);
        size_t room = line.room(line.dev);
        assert_true(room <= 16);
        line.push(line.dev, (const uint8_t *)"0123456789abcdef", room);
        ns16550_break(&u);
        line.drained(line.dev);
    }
    ns16550_com1_desc.reset(&u);
    assert_int_equal(in(5), 0x60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(reset_state, setup),
        cmocka_unit_test_setup(linux_probes, setup),
        cmocka_unit_test_setup(transmit, setup),
        cmocka_unit_test_setup(transmit_held_back, setup),
        cmocka_unit_test_setup(receive_without_fifo, setup),
        cmocka_unit_test_setup(receive_triggers, setup),
        cmocka_unit_test_setup(priorities, setup),
        cmocka_unit_test_setup(loopback, setup),
        cmocka_unit_test_setup(breaks, setup),
        cmocka_unit_test_setup(storm, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
