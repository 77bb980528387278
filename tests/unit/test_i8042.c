/* test_i8042.c - keyboard controller: commands, loop test, translation, interrupts, A20 and reset.
 */
#include "chip_probe.h"

#include <linux/input-event-codes.h>

#include "chip/debugport.h"
#include "chip/i8042.h"
#include "chip/port92.h"

static struct i8042 c;
static struct probe irq1, irq12, a20, reset;

static void cmd(uint8_t v)
{
    out8(&i8042_desc, &c, 0x64, v);
}

static void data(uint8_t v)
{
    out8(&i8042_desc, &c, 0x60, v);
}

static uint8_t status(void)
{
    return in8(&i8042_desc, &c, 0x64);
}

/* The next byte, which must be there, from the keyboard side or the auxiliary one. */
static uint8_t get(bool aux)
{
    assert_int_equal(status() & 0x21, aux ? 0x21 : 0x01);
    return in8(&i8042_desc, &c, 0x60);
}

static void nothing(void)
{
    assert_int_equal(status() & 0x01, 0);
}

static void mode(uint8_t v)
{
    cmd(0x60);
    data(v);
}

static int setup(void **state)
{
    struct i8042_pins pins = {probe_pin(&irq1), probe_pin(&irq12), probe_pin(&a20),
                              probe_pin(&reset)};
    i8042_init(&c, &pins);
    return 0;
}

static void self_tests(void **state)
{
    cmd(0xaa);
    assert_int_equal(get(false), 0x55);
    assert_int_equal(status() & 0x04, 0x04);
    cmd(0xab);
    assert_int_equal(get(false), 0x00);
    cmd(0xa9);
    assert_int_equal(get(false), 0x00);
    cmd(0xa4);
    assert_int_equal(get(false), 0xf1);
    cmd(0xc0);
    assert_int_equal(get(false), 0x80);
    cmd(0xe0);
    assert_int_equal(get(false), 0x00);
    nothing();
    assert_int_equal(status() & 0x18, 0x18);
    data(0xee);
    assert_int_equal(status() & 0x08, 0);
    assert_int_equal(get(false), 0xee);
}

static void command_byte(void **state)
{
    cmd(0x20);
    assert_int_equal(get(false), 0x43);
    mode(0x74);
    cmd(0x20);
    assert_int_equal(get(false), 0x74);
    cmd(0xae);
    cmd(0x20);
    assert_int_equal(get(false), 0x64);
    cmd(0xa8);
    cmd(0x20);
    assert_int_equal(get(false), 0x44);
    cmd(0xa7);
    cmd(0xad);
    cmd(0x20);
    assert_int_equal(get(false), 0x74);
    cmd(0x65);
    data(0x99);
    cmd(0x25);
    assert_int_equal(get(false), 0x99);
}

/* Linux: check_aux(), its interrupt test, and the probe for a multiplexer. */
static void aux_loop(void **state)
{
    mode(0x74);
    cmd(0xd3);
    data(0x5a);
    assert_int_equal(get(true), 0x5a);
    mode(0x76);
    cmd(0xd3);
    data(0xa5);
    assert_true(irq12.level);
    assert_int_equal(get(true), 0xa5);
    assert_false(irq12.level);
    static const uint8_t mux[] = {0xf0, 0x56, 0xa4};
    for (unsigned i = 0; i < 3; i++) {
        cmd(0xd3);
        data(mux[i]);
        assert_int_equal(get(true), mux[i]);
    }
    mode(0x75);
    cmd(0xd2);
    data(0x1e);
    assert_true(irq1.level);
    assert_int_equal(get(false), 0x1e);
}

static void output_port(void **state)
{
    assert_true(a20.level);
    cmd(0xd0);
    assert_int_equal(get(false), 0xcf);
    cmd(0xd1);
    data(0xdd);
    assert_false(a20.level);
    cmd(0xdf);
    assert_true(a20.level);
    cmd(0xdd);
    assert_false(a20.level);
    assert_int_equal(reset.rises, 0);
    cmd(0xff);
    assert_int_equal(reset.rises, 0);
    cmd(0xfe);
    assert_int_equal(reset.rises, 1);
    cmd(0xd1);
    data(0xde);
    assert_int_equal(reset.rises, 2);
    assert_false(reset.level);
    i8042_desc.reset(&c);
    assert_true(a20.level);
    data(0xee);
    cmd(0xd0); /* the echo is still in the output buffer: its interrupt line shows */
    assert_int_equal(get(false), 0xee);
    assert_int_equal(get(false), 0xdf);
}

static void keys_translated(void **state)
{
    ps2kbd_key(&c.kbd, KEY_A, true);
    assert_true(irq1.level);
    assert_int_equal(get(false), 0x1e);
    assert_false(irq1.level);
    ps2kbd_key(&c.kbd, KEY_A, true); /* repeats */
    assert_int_equal(get(false), 0x1e);
    ps2kbd_key(&c.kbd, KEY_A, false);
    assert_int_equal(get(false), 0x9e);
    ps2kbd_key(&c.kbd, KEY_A, false); /* not down */
    nothing();
    ps2kbd_key(&c.kbd, KEY_UP, true);
    ps2kbd_key(&c.kbd, KEY_UP, false);
    static const uint8_t up[] = {0xe0, 0x48, 0xe0, 0xc8};
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(get(false), up[i]);
    assert_int_equal(irq1.rises, 7); /* one edge for each byte */
    ps2kbd_key(&c.kbd, KEY_F7, true);
    ps2kbd_key(&c.kbd, KEY_F7, false);
    assert_int_equal(get(false), 0x41);
    assert_int_equal(get(false), 0xc1);
    ps2kbd_key(&c.kbd, KEY_PAUSE, true);
    ps2kbd_key(&c.kbd, KEY_PAUSE, false);
    static const uint8_t pause[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(get(false), pause[i]);
    nothing();
    ps2kbd_key(&c.kbd, 5000, true);
    ps2kbd_key(&c.kbd, KEY_F24, true);
    nothing();
}

/* The table of the 8042: one to one, and what it must say for some keys. */
static void translation_table(void **state)
{
    bool seen[128] = {false};
    for (unsigned i = 1; i < 0x80; i++) {
        uint8_t v = ps2kbd_translate((uint8_t)i);
        assert_in_range(v, 1, 0x7f);
        assert_false(seen[v]);
        seen[v] = true;
    }
    assert_int_equal(ps2kbd_translate(0x00), 0xff);
    assert_int_equal(ps2kbd_translate(0x76), 0x01);
    assert_int_equal(ps2kbd_translate(0x5a), 0x1c);
    assert_int_equal(ps2kbd_translate(0x07), 0x58);
}

static void keyboard_disabled(void **state)
{
    cmd(0xad);
    ps2kbd_key(&c.kbd, KEY_B, true);
    nothing();
    cmd(0xae);
    assert_int_equal(get(false), 0x30);
    mode(0x34); /* no interrupts, no translation, both off */
    ps2kbd_key(&c.kbd, KEY_B, false);
    data(0xf4); /* a command opens the interface; enabling drops what was typed */
    assert_int_equal(get(false), 0xfa);
    nothing();
    assert_int_equal(irq1.level, false);
}

static void keyboard_commands(void **state)
{
    mode(0x03); /* no translation */
    data(0xff);
    assert_int_equal(get(false), 0xfa);
    assert_int_equal(get(false), 0xaa);
    data(0xf2);
    assert_int_equal(get(false), 0xfa);
    assert_int_equal(get(false), 0xab);
    assert_int_equal(get(false), 0x83);
    data(0xfe);
    assert_int_equal(get(false), 0x83);
    data(0xed);
    assert_int_equal(get(false), 0xfa);
    data(0x05);
    assert_int_equal(get(false), 0xfa);
    assert_int_equal(c.kbd.leds, 5);
    data(0xf3);
    assert_int_equal(get(false), 0xfa);
    data(0x20);
    assert_int_equal(get(false), 0xfa);
    assert_int_equal(c.kbd.typematic, 0x20);
    data(0xed); /* a command instead of the parameter */
    assert_int_equal(get(false), 0xfa);
    data(0xee);
    assert_int_equal(get(false), 0xee);
    data(0x01);
    assert_int_equal(get(false), 0xfe);
    data(0xf5);
    assert_int_equal(get(false), 0xfa);
    ps2kbd_key(&c.kbd, KEY_Q, true);
    nothing();
    mode(0x43);
    data(0xf2); /* the ID as seen through the translation */
    assert_int_equal(get(false), 0xfa);
    assert_int_equal(get(false), 0xab);
    assert_int_equal(get(false), 0x41);
}

static void expect_key(unsigned key, bool pressed, const char *bytes, size_t len)
{
    ps2kbd_key(&c.kbd, key, pressed);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(get(false), (uint8_t)bytes[i]);
    nothing();
}

static void select_set(uint8_t set)
{
    data(0xf0);
    get(false);
    data(set);
    assert_int_equal(get(false), 0xfa);
}

static void scan_code_sets(void **state)
{
    mode(0x03);
    expect_key(KEY_A, true, "\x1c", 1);
    expect_key(KEY_A, false, "\xf0\x1c", 2);
    expect_key(KEY_DELETE, true, "\xe0\x71", 2);
    expect_key(KEY_DELETE, false, "\xe0\xf0\x71", 3);
    expect_key(KEY_SYSRQ, true, "\xe0\x12\xe0\x7c", 4);
    expect_key(KEY_SYSRQ, false, "\xe0\xf0\x7c\xe0\xf0\x12", 6);
    expect_key(KEY_LEFTALT, true, "\x11", 1);
    expect_key(KEY_SYSRQ, true, "\x84", 1);
    expect_key(KEY_SYSRQ, false, "\xf0\x84", 2);
    expect_key(KEY_LEFTALT, false, "\xf0\x11", 2);
    expect_key(KEY_PAUSE, true, "\xe1\x14\x77\xe1\xf0\x14\xf0\x77", 8);
    expect_key(KEY_PAUSE, false, "", 0);
    select_set(1);
    expect_key(KEY_A, true, "\x1e", 1);
    expect_key(KEY_A, false, "\x9e", 1);
    expect_key(KEY_RIGHTCTRL, true, "\xe0\x1d", 2);
    expect_key(KEY_RIGHTCTRL, false, "\xe0\x9d", 2);
    select_set(3);
    data(0xf0);
    get(false);
    data(0);
    assert_int_equal(get(false), 0xfa);
    assert_int_equal(get(false), 3);
    expect_key(KEY_A, true, "\x1c", 1);
    expect_key(KEY_A, false, "", 0); /* make only */
    expect_key(KEY_LEFTSHIFT, true, "\x12", 1);
    expect_key(KEY_LEFTSHIFT, true, "", 0);
    expect_key(KEY_LEFTSHIFT, false, "\xf0\x12", 2);
    data(0xf8); /* all make/break */
    assert_int_equal(get(false), 0xfa);
    expect_key(KEY_UP, true, "\x63", 1);
    expect_key(KEY_UP, false, "\xf0\x63", 2);
    data(0xfd); /* A: make only */
    get(false);
    data(0x1c);
    assert_int_equal(get(false), 0xfa);
    data(0xf4);
    assert_int_equal(get(false), 0xfa);
    expect_key(KEY_A, true, "\x1c", 1);
    expect_key(KEY_A, false, "", 0);
    select_set(4 - 2);
    expect_key(KEY_A, true, "\x1c", 1);
}

static void keyboard_overrun(void **state)
{
    mode(0x03);
    cmd(0xad);
    for (unsigned i = 0; i < 20; i++)
        ps2kbd_key(&c.kbd, KEY_1 + i % 10, true);
    cmd(0xae);
    for (unsigned i = 0; i < 15; i++)
        assert_true(get(false) != 0);
    assert_int_equal(get(false), 0x00);
    nothing();
}

static void to_mouse(uint8_t v)
{
    cmd(0xd4);
    data(v);
}

static void set_rate(uint8_t rate)
{
    to_mouse(0xf3);
    assert_int_equal(get(true), 0xfa);
    to_mouse(rate);
    assert_int_equal(get(true), 0xfa);
}

static uint8_t mouse_id(void)
{
    to_mouse(0xf2);
    assert_int_equal(get(true), 0xfa);
    return get(true);
}

static void mouse_commands(void **state)
{
    to_mouse(0xff);
    assert_int_equal(get(true), 0xfa);
    assert_int_equal(get(true), 0xaa);
    assert_int_equal(get(true), 0x00);
    assert_int_equal(irq12.rises, 3);
    assert_int_equal(mouse_id(), 0);
    to_mouse(0xe8);
    get(true);
    to_mouse(3);
    assert_int_equal(get(true), 0xfa);
    to_mouse(0xe8);
    get(true);
    to_mouse(4);
    assert_int_equal(get(true), 0xfe);
    to_mouse(0xe7);
    get(true);
    to_mouse(0xf4);
    get(true);
    ps2mouse_event(&c.mouse, 0, 0, 0, PS2MOUSE_RIGHT);
    for (unsigned i = 0; i < 3; i++)
        get(true);
    to_mouse(0xe9);
    assert_int_equal(get(true), 0xfa);
    assert_int_equal(get(true), 0x31);
    assert_int_equal(get(true), 3);
    assert_int_equal(get(true), 100);
    to_mouse(0xee); /* wrap */
    get(true);
    to_mouse(0xe9);
    assert_int_equal(get(true), 0xe9);
    to_mouse(0xec);
    assert_int_equal(get(true), 0xfa);
    to_mouse(0x12);
    assert_int_equal(get(true), 0xfe);
}

static void mouse_packet(const uint8_t *expect, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        assert_int_equal(get(true), expect[i]);
    nothing();
}

static void mouse_stream(void **state)
{
    ps2mouse_event(&c.mouse, 5, 5, 0, 0);
    nothing(); /* reporting is off */
    to_mouse(0xf4);
    get(true);
    ps2mouse_event(&c.mouse, 10, 20, 3, PS2MOUSE_LEFT);
    mouse_packet((const uint8_t[]){0x29, 10, 0xec}, 3); /* down is negative */
    ps2mouse_event(&c.mouse, -300, 0, 0, PS2MOUSE_LEFT);
    mouse_packet((const uint8_t[]){0x19, 0x01, 0, 0x19, 0xd3, 0}, 6); /* -255, then -45 */
    set_rate(200);
    set_rate(100);
    set_rate(80);
    assert_int_equal(mouse_id(), 3);
    ps2mouse_event(&c.mouse, 1, -1, 1, 0);
    mouse_packet((const uint8_t[]){0x08, 1, 1, 0xff}, 4);
    set_rate(200);
    set_rate(200);
    set_rate(80);
    assert_int_equal(mouse_id(), 4);
    ps2mouse_event(&c.mouse, 0, 0, -1, PS2MOUSE_SIDE | PS2MOUSE_EXTRA);
    mouse_packet((const uint8_t[]){0x08, 0, 0, 0x31}, 4);
    to_mouse(0xf0); /* remote */
    get(true);
    ps2mouse_event(&c.mouse, 7, 0, 0, 0);
    nothing();
    to_mouse(0xeb);
    assert_int_equal(get(true), 0xfa);
    mouse_packet((const uint8_t[]){0x08, 7, 0, 0x00}, 4);
}

static void mouse_bounded(void **state)
{
    to_mouse(0xf4);
    get(true);
    cmd(0xa7);
    for (unsigned i = 0; i < 1000; i++)
        ps2mouse_event(&c.mouse, INT32_MAX, INT32_MIN, INT32_MIN, i & 7);
    cmd(0xa8);
    unsigned bytes = 0;
    while (status() & 1) {
        get(true);
        assert_true(++bytes < 1000);
    }
    assert_int_equal(bytes % 3, 0);
}

static void ports(void **state)
{
    static struct port92 p92;
    static struct post_latch post;
    static struct debugport dbg;
    port92_init(&p92, probe_pin(&a20), probe_pin(&reset));
    assert_int_equal(in8(&port92_desc, &p92, 0x92), 0x02);
    out8(&port92_desc, &p92, 0x92, 0x00);
    assert_false(a20.level);
    out8(&port92_desc, &p92, 0x92, 0xfe);
    assert_true(a20.level);
    assert_int_equal(in8(&port92_desc, &p92, 0x92), 0x02);
    out8(&port92_desc, &p92, 0x92, 0x03);
    out8(&port92_desc, &p92, 0x92, 0x03);
    assert_int_equal(reset.rises, 1);
    post_latch_init(&post);
    out8(&post_latch_desc, &post, 0x80, 0x55);
    assert_int_equal(in8(&post_latch_desc, &post, 0x80), 0x55);
    debugport_init(&dbg, (struct char_out){0});
    assert_int_equal(in8(&debugport_desc, &dbg, 0x402), 0xe9);
    out8(&debugport_desc, &dbg, 0x402, 'x');
}

static void storm(void **state)
{
    for (unsigned i = 0; i < 400; i++) {
        probe_storm(&i8042_desc, &c, 3 + i);
        ps2kbd_key(&c.kbd, i, i & 2);
        ps2mouse_event(&c.mouse, (int)i, -(int)i, 1, i);
    }
    i8042_desc.reset(&c);
    nothing();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(self_tests, setup),
        cmocka_unit_test_setup(command_byte, setup),
        cmocka_unit_test_setup(aux_loop, setup),
        cmocka_unit_test_setup(output_port, setup),
        cmocka_unit_test_setup(keys_translated, setup),
        cmocka_unit_test_setup(translation_table, setup),
        cmocka_unit_test_setup(keyboard_disabled, setup),
        cmocka_unit_test_setup(keyboard_commands, setup),
        cmocka_unit_test_setup(scan_code_sets, setup),
        cmocka_unit_test_setup(keyboard_overrun, setup),
        cmocka_unit_test_setup(mouse_commands, setup),
        cmocka_unit_test_setup(mouse_stream, setup),
        cmocka_unit_test_setup(mouse_bounded, setup),
        cmocka_unit_test_setup(ports, setup),
        cmocka_unit_test_setup(storm, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
