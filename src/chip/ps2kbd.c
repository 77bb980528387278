/* ps2kbd.c - see ps2kbd.h. */
#include "chip/ps2kbd.h"

#include <linux/input-event-codes.h>
#include <string.h>

#define EXTENDED 0x80 /* in key_to_set1: the code has an E0 prefix */

#define SYSRQ_SET2 0x84

enum command {
    CMD_LEDS = 0xed,
    CMD_ECHO = 0xee,
    CMD_SCAN_SET = 0xf0,
    CMD_ID = 0xf2,
    CMD_TYPEMATIC = 0xf3,
    CMD_ENABLE = 0xf4,
    CMD_DISABLE = 0xf5,
    CMD_DEFAULTS = 0xf6,
    CMD_ALL_REPEAT = 0xf7,
    CMD_ALL_BREAK = 0xf8,
    CMD_ALL_MAKE = 0xf9,
    CMD_ALL = 0xfa,
    CMD_KEY_REPEAT = 0xfb,
    CMD_KEY_BREAK = 0xfc,
    CMD_KEY_MAKE = 0xfd,
    CMD_RESEND = 0xfe,
    CMD_RESET = 0xff,
};

/* Set 2 make codes by set 1 make code (0: no such key). Extended keys use the same pairs after E0.
 */
static const uint8_t set1_to_set2[128] = {
    [0x01] = 0x76, [0x02] = 0x16, [0x03] = 0x1e, [0x04] = 0x26, [0x05] = 0x25, [0x06] = 0x2e,
    [0x07] = 0x36, [0x08] = 0x3d, [0x09] = 0x3e, [0x0a] = 0x46, [0x0b] = 0x45, [0x0c] = 0x4e,
    [0x0d] = 0x55, [0x0e] = 0x66, [0x0f] = 0x0d, [0x10] = 0x15, [0x11] = 0x1d, [0x12] = 0x24,
    [0x13] = 0x2d, [0x14] = 0x2c, [0x15] = 0x35, [0x16] = 0x3c, [0x17] = 0x43, [0x18] = 0x44,
    [0x19] = 0x4d, [0x1a] = 0x54, [0x1b] = 0x5b, [0x1c] = 0x5a, [0x1d] = 0x14, [0x1e] = 0x1c,
    [0x1f] = 0x1b, [0x20] = 0x23, [0x21] = 0x2b, [0x22] = 0x34, [0x23] = 0x33, [0x24] = 0x3b,
    [0x25] = 0x42, [0x26] = 0x4b, [0x27] = 0x4c, [0x28] = 0x52, [0x29] = 0x0e, [0x2a] = 0x12,
    [0x2b] = 0x5d, [0x2c] = 0x1a, [0x2d] = 0x22, [0x2e] = 0x21, [0x2f] = 0x2a, [0x30] = 0x32,
    [0x31] = 0x31, [0x32] = 0x3a, [0x33] = 0x41, [0x34] = 0x49, [0x35] = 0x4a, [0x36] = 0x59,
    [0x37] = 0x7c, [0x38] = 0x11, [0x39] = 0x29, [0x3a] = 0x58, [0x3b] = 0x05, [0x3c] = 0x06,
    [0x3d] = 0x04, [0x3e] = 0x0c, [0x3f] = 0x03, [0x40] = 0x0b, [0x41] = 0x83, [0x42] = 0x0a,
    [0x43] = 0x01, [0x44] = 0x09, [0x45] = 0x77, [0x46] = 0x7e, [0x47] = 0x6c, [0x48] = 0x75,
    [0x49] = 0x7d, [0x4a] = 0x7b, [0x4b] = 0x6b, [0x4c] = 0x73, [0x4d] = 0x74, [0x4e] = 0x79,
    [0x4f] = 0x69, [0x50] = 0x72, [0x51] = 0x7a, [0x52] = 0x70, [0x53] = 0x71, [0x54] = 0x7f,
    [0x55] = 0x60, [0x56] = 0x61, [0x57] = 0x78, [0x58] = 0x07, [0x59] = 0x0f, [0x5a] = 0x17,
    [0x5b] = 0x1f, [0x5c] = 0x27, [0x5d] = 0x2f, [0x5e] = 0x37, [0x5f] = 0x3f, [0x60] = 0x47,
    [0x61] = 0x4f, [0x62] = 0x56, [0x63] = 0x5e, [0x64] = 0x08, [0x65] = 0x10, [0x66] = 0x18,
    [0x67] = 0x20, [0x68] = 0x28, [0x69] = 0x30, [0x6a] = 0x38, [0x6b] = 0x40, [0x6c] = 0x48,
    [0x6d] = 0x50, [0x6e] = 0x57, [0x6f] = 0x6f, [0x70] = 0x13, [0x71] = 0x19, [0x72] = 0x39,
    [0x73] = 0x51, [0x74] = 0x53, [0x75] = 0x5c, [0x76] = 0x5f, [0x77] = 0x62, [0x78] = 0x63,
    [0x79] = 0x64, [0x7a] = 0x65, [0x7b] = 0x67, [0x7c] = 0x68, [0x7d] = 0x6a, [0x7e] = 0x6d,
    [0x7f] = 0x6e,
};

/* Set 1 codes of the keys whose event code is not their set 1 code already (KEY_ESC..KEY_F12 is).
 */
static const uint8_t key_to_set1[PS2KBD_KEYS] = {
    [KEY_RO] = 0x73,
    [KEY_HENKAN] = 0x79,
    [KEY_KATAKANAHIRAGANA] = 0x70,
    [KEY_MUHENKAN] = 0x7b,
    [KEY_KPENTER] = EXTENDED | 0x1c,
    [KEY_RIGHTCTRL] = EXTENDED | 0x1d,
    [KEY_KPSLASH] = EXTENDED | 0x35,
    [KEY_RIGHTALT] = EXTENDED | 0x38,
    [KEY_HOME] = EXTENDED | 0x47,
    [KEY_UP] = EXTENDED | 0x48,
    [KEY_PAGEUP] = EXTENDED | 0x49,
    [KEY_LEFT] = EXTENDED | 0x4b,
    [KEY_RIGHT] = EXTENDED | 0x4d,
    [KEY_END] = EXTENDED | 0x4f,
    [KEY_DOWN] = EXTENDED | 0x50,
    [KEY_PAGEDOWN] = EXTENDED | 0x51,
    [KEY_INSERT] = EXTENDED | 0x52,
    [KEY_DELETE] = EXTENDED | 0x53,
    [KEY_MUTE] = EXTENDED | 0x20,
    [KEY_VOLUMEDOWN] = EXTENDED | 0x2e,
    [KEY_VOLUMEUP] = EXTENDED | 0x30,
    [KEY_POWER] = EXTENDED | 0x5e,
    [KEY_KPEQUAL] = 0x59,
    [KEY_KPCOMMA] = 0x7e,
    [KEY_YEN] = 0x7d,
    [KEY_LEFTMETA] = EXTENDED | 0x5b,
    [KEY_RIGHTMETA] = EXTENDED | 0x5c,
    [KEY_COMPOSE] = EXTENDED | 0x5d,
    [KEY_CALC] = EXTENDED | 0x21,
    [KEY_SLEEP] = EXTENDED | 0x5f,
    [KEY_WAKEUP] = EXTENDED | 0x63,
    [KEY_MAIL] = EXTENDED | 0x6c,
    [KEY_NEXTSONG] = EXTENDED | 0x19,
    [KEY_PLAYPAUSE] = EXTENDED | 0x22,
    [KEY_PREVIOUSSONG] = EXTENDED | 0x10,
    [KEY_STOPCD] = EXTENDED | 0x24,
    [KEY_HOMEPAGE] = EXTENDED | 0x32,
};

/* Set 3 make codes by set 1 make code, keys without E0. */
static const uint8_t set1_to_set3[128] = {
    [0x01] = 0x08, [0x02] = 0x16, [0x03] = 0x1e, [0x04] = 0x26, [0x05] = 0x25, [0x06] = 0x2e,
    [0x07] = 0x36, [0x08] = 0x3d, [0x09] = 0x3e, [0x0a] = 0x46, [0x0b] = 0x45, [0x0c] = 0x4e,
    [0x0d] = 0x55, [0x0e] = 0x66, [0x0f] = 0x0d, [0x10] = 0x15, [0x11] = 0x1d, [0x12] = 0x24,
    [0x13] = 0x2d, [0x14] = 0x2c, [0x15] = 0x35, [0x16] = 0x3c, [0x17] = 0x43, [0x18] = 0x44,
    [0x19] = 0x4d, [0x1a] = 0x54, [0x1b] = 0x5b, [0x1c] = 0x5a, [0x1d] = 0x11, [0x1e] = 0x1c,
    [0x1f] = 0x1b, [0x20] = 0x23, [0x21] = 0x2b, [0x22] = 0x34, [0x23] = 0x33, [0x24] = 0x3b,
    [0x25] = 0x42, [0x26] = 0x4b, [0x27] = 0x4c, [0x28] = 0x52, [0x29] = 0x0e, [0x2a] = 0x12,
    [0x2b] = 0x5c, [0x2c] = 0x1a, [0x2d] = 0x22, [0x2e] = 0x21, [0x2f] = 0x2a, [0x30] = 0x32,
    [0x31] = 0x31, [0x32] = 0x3a, [0x33] = 0x41, [0x34] = 0x49, [0x35] = 0x4a, [0x36] = 0x59,
    [0x37] = 0x7e, [0x38] = 0x19, [0x39] = 0x29, [0x3a] = 0x14, [0x3b] = 0x07, [0x3c] = 0x0f,
    [0x3d] = 0x17, [0x3e] = 0x1f, [0x3f] = 0x27, [0x40] = 0x2f, [0x41] = 0x37, [0x42] = 0x3f,
    [0x43] = 0x47, [0x44] = 0x4f, [0x45] = 0x76, [0x46] = 0x5f, [0x47] = 0x6c, [0x48] = 0x75,
    [0x49] = 0x7d, [0x4a] = 0x84, [0x4b] = 0x6b, [0x4c] = 0x73, [0x4d] = 0x74, [0x4e] = 0x7c,
    [0x4f] = 0x69, [0x50] = 0x72, [0x51] = 0x7a, [0x52] = 0x70, [0x53] = 0x71, [0x56] = 0x13,
    [0x57] = 0x56, [0x58] = 0x5e, [0x70] = 0x87, [0x73] = 0x51, [0x79] = 0x86, [0x7b] = 0x85,
    [0x7d] = 0x5d,
};

/* The same for keys with E0, by the code after it. */
static const uint8_t set1_e0_to_set3[128] = {
    [0x1c] = 0x79, [0x1d] = 0x58, [0x35] = 0x77, [0x38] = 0x39, [0x47] = 0x6e, [0x48] = 0x63,
    [0x49] = 0x6f, [0x4b] = 0x61, [0x4d] = 0x6a, [0x4f] = 0x65, [0x50] = 0x60, [0x51] = 0x6d,
    [0x52] = 0x67, [0x53] = 0x64, [0x5b] = 0x8b, [0x5c] = 0x8c, [0x5d] = 0x8d,
};

#define SET3_PAUSE 0x62
#define SET3_PRINT 0x57

static bool bit_test(const uint8_t *map, unsigned i)
{
    return map[i / 8] >> (i % 8) & 1;
}

static void bit_put(uint8_t *map, unsigned i, bool on)
{
    map[i / 8] = on ? map[i / 8] | 1u << (i % 8) : map[i / 8] & ~(1u << (i % 8));
}

uint8_t ps2kbd_translate(uint8_t set2)
{
    if (set2 == 0x00) /* overrun */
        return 0xff;
    if (set2 == 0x02) /* F7's place in the table besides 83h */
        return 0x41;
    for (unsigned i = 1; i < ARRAY_LEN(set1_to_set2); i++)
        if (set1_to_set2[i] == set2)
            return (uint8_t)i;
    return 0;
}

/* Set 3 after power-on: the shift keys send break codes, all the others repeat. */
static void set3_defaults(struct ps2kbd *k)
{
    static const uint8_t shifts[] = {0x11, 0x12, 0x14, 0x19, 0x39, 0x58, 0x59};
    memset(k->no_break, 0xff, sizeof k->no_break);
    memset(k->no_repeat, 0, sizeof k->no_repeat);
    for (size_t i = 0; i < ARRAY_LEN(shifts); i++) {
        bit_put(k->no_break, shifts[i], false);
        bit_put(k->no_repeat, shifts[i], true);
    }
}

static void defaults(struct ps2kbd *k)
{
    k->set = 2;
    k->typematic = 0x2b; /* 500 ms, 10.9 characters per second */
    k->leds = 0;
    k->pending = 0;
    ps2_clear_reports(&k->port);
    memset(k->down, 0, sizeof k->down);
    set3_defaults(k);
}

void ps2kbd_reset(struct ps2kbd *k)
{
    defaults(k);
    ps2_clear_answers(&k->port);
    k->scanning = true;
}

void ps2kbd_init(struct ps2kbd *k)
{
    *k = (struct ps2kbd){0};
    ps2kbd_reset(k);
}

struct sequence {
    uint8_t byte[8];
    unsigned len;
};

static void add(struct sequence *s, uint8_t byte)
{
    s->byte[s->len++] = byte;
}

static void add_bytes(struct sequence *s, const uint8_t *bytes, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        add(s, bytes[i]);
}

/* Pause has no break code in sets 1 and 2: its make code contains it. */
static void encode_pause(const struct ps2kbd *k, struct sequence *s)
{
    static const uint8_t set1[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    static const uint8_t set2[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};
    if (k->set == 1)
        add_bytes(s, set1, sizeof set1);
    else
        add_bytes(s, set2, sizeof set2);
}

/* Print Screen comes with a shift of its own, unless a real one is held; with Alt it is SysRq. */
static void encode_print(const struct ps2kbd *k, bool pressed, struct sequence *s)
{
    static const uint8_t make1[] = {0xe0, 0x2a, 0xe0, 0x37}, make2[] = {0xe0, 0x12, 0xe0, 0x7c};
    static const uint8_t break1[] = {0xe0, 0xb7, 0xe0, 0xaa};
    static const uint8_t break2[] = {0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12};
    bool alt = bit_test(k->down, KEY_LEFTALT) || bit_test(k->down, KEY_RIGHTALT);
    bool shift = bit_test(k->down, KEY_LEFTSHIFT) || bit_test(k->down, KEY_RIGHTSHIFT) ||
                 bit_test(k->down, KEY_LEFTCTRL) || bit_test(k->down, KEY_RIGHTCTRL);
    if (alt && k->set == 1) {
        add(s, pressed ? 0x54 : 0xd4);
    } else if (alt) {
        if (!pressed)
            add(s, 0xf0);
        add(s, SYSRQ_SET2);
    } else if (k->set == 1) {
        unsigned skip = shift && pressed ? 2 : 0;
        if (pressed)
            add_bytes(s, make1 + skip, sizeof make1 - skip);
        else
            add_bytes(s, break1, shift ? 2 : sizeof break1);
    } else {
        unsigned skip = shift && pressed ? 2 : 0;
        if (pressed)
            add_bytes(s, make2 + skip, sizeof make2 - skip);
        else
            add_bytes(s, break2, shift ? 3 : sizeof break2);
    }
}

static uint8_t set3_code(unsigned key, uint8_t set1)
{
    if (key == KEY_PAUSE)
        return SET3_PAUSE;
    if (key == KEY_SYSRQ)
        return SET3_PRINT;
    return set1 & EXTENDED ? set1_e0_to_set3[set1 & 0x7f] : set1_to_set3[set1];
}

static void encode_set3(const struct ps2kbd *k, unsigned key, uint8_t set1, bool pressed,
                        struct sequence *s)
{
    uint8_t code = set3_code(key, set1);
    if (!code)
        return;
    if (pressed) {
        if (!bit_test(k->down, key) || !bit_test(k->no_repeat, code))
            add(s, code);
    } else if (!bit_test(k->no_break, code)) {
        add(s, 0xf0);
        add(s, code);
    }
}

/* The bytes for an event; none if the keyboard has no such key. */
static void encode_key(const struct ps2kbd *k, unsigned key, bool pressed, struct sequence *s)
{
    uint8_t set1 = key_to_set1[key];
    if (!set1 && key >= KEY_ESC && key <= KEY_F12 && key != KEY_ZENKAKUHANKAKU && key != 84)
        set1 = (uint8_t)key;
    if (k->set == 3) {
        encode_set3(k, key, set1, pressed, s);
    } else if (key == KEY_PAUSE) {
        if (pressed && !bit_test(k->down, key))
            encode_pause(k, s);
    } else if (key == KEY_SYSRQ) {
        encode_print(k, pressed, s);
    } else if (set1) {
        if (set1 & EXTENDED)
            add(s, 0xe0);
        if (!pressed && k->set == 2)
            add(s, 0xf0);
        if (k->set == 1)
            add(s, (set1 & 0x7f) | (pressed ? 0 : 0x80));
        else
            add(s, set1_to_set2[set1 & 0x7f]);
    }
}

void ps2kbd_key(struct ps2kbd *k, unsigned key, bool pressed)
{
    struct sequence s = {.len = 0};
    if (key >= PS2KBD_KEYS || !k->scanning || (!pressed && !bit_test(k->down, key)))
        return;
    encode_key(k, key, pressed, &s);
    /* One place is left for the overrun code. */
    if (s.len >= ps2_report_room(&k->port)) {
        if (ps2_report_room(&k->port))
            ps2_report(&k->port, k->set == 1 ? 0xff : 0x00);
        if (!pressed)
            bit_put(k->down, key, false);
        return;
    }
    bit_put(k->down, key, pressed);
    for (unsigned i = 0; i < s.len; i++)
        ps2_report(&k->port, s.byte[i]);
    ps2_notify(&k->port);
}

static void set_scan_set(struct ps2kbd *k, uint8_t set)
{
    if (set > 3) {
        ps2_answer(&k->port, PS2_RESEND);
        return;
    }
    ps2_answer(&k->port, PS2_ACK);
    if (!set) {
        ps2_answer(&k->port, k->set);
        return;
    }
    k->set = set;
    ps2_clear_reports(&k->port);
}

/* Changes how one key of set 3 behaves. */
static void set_key_mode(struct ps2kbd *k, uint8_t command, uint8_t code)
{
    bit_put(k->no_break, code, command != CMD_KEY_BREAK);
    bit_put(k->no_repeat, code, command != CMD_KEY_REPEAT);
    ps2_answer(&k->port, PS2_ACK);
}

static void set_all_modes(struct ps2kbd *k, uint8_t command)
{
    bool breaks = command == CMD_ALL_BREAK || command == CMD_ALL;
    bool repeats = command == CMD_ALL_REPEAT || command == CMD_ALL;
    memset(k->no_break, breaks ? 0 : 0xff, sizeof k->no_break);
    memset(k->no_repeat, repeats ? 0 : 0xff, sizeof k->no_repeat);
    ps2_answer(&k->port, PS2_ACK);
}

/* The byte after a command that takes one. Returns false if it is a new command instead. */
static bool parameter(struct ps2kbd *k, uint8_t byte)
{
    uint8_t command = k->pending;
    k->pending = 0;
    if (byte > 0x90) /* beyond every code and parameter */
        return false;
    switch (command) {
    case CMD_LEDS:
        k->leds = byte & 7;
        ps2_answer(&k->port, PS2_ACK);
        break;
    case CMD_TYPEMATIC:
        k->typematic = byte & 0x7f;
        ps2_answer(&k->port, PS2_ACK);
        break;
    case CMD_SCAN_SET:
        set_scan_set(k, byte);
        break;
    default:
        set_key_mode(k, command, byte);
        k->pending = command; /* a list of keys, until the next command */
    }
    return true;
}

static void command(struct ps2kbd *k, uint8_t byte)
{
    switch (byte) {
    case CMD_ECHO:
        ps2_answer(&k->port, CMD_ECHO);
        return;
    case CMD_RESEND:
        ps2_answer(&k->port, k->port.last);
        return;
    case CMD_LEDS:
    case CMD_SCAN_SET:
    case CMD_TYPEMATIC:
    case CMD_KEY_REPEAT:
    case CMD_KEY_BREAK:
    case CMD_KEY_MAKE:
        k->pending = byte;
        break;
    case CMD_ID:
        ps2_answer(&k->port, PS2_ACK);
        ps2_answer(&k->port, 0xab);
        ps2_answer(&k->port, 0x83);
        return;
    case CMD_ENABLE:
        ps2_clear_reports(&k->port);
        k->scanning = true;
        break;
    case CMD_DISABLE:
        defaults(k);
        k->scanning = false;
        break;
    case CMD_DEFAULTS:
        defaults(k);
        break;
    case CMD_ALL_REPEAT:
    case CMD_ALL_BREAK:
    case CMD_ALL_MAKE:
    case CMD_ALL:
        set_all_modes(k, byte);
        return;
    case CMD_RESET:
        ps2kbd_reset(k);
        ps2_answer(&k->port, PS2_ACK);
        ps2_answer(&k->port, PS2_BAT_OK);
        return;
    default:
        ps2_answer(&k->port, PS2_RESEND);
        return;
    }
    ps2_answer(&k->port, PS2_ACK);
}

void ps2kbd_command(struct ps2kbd *k, uint8_t byte)
{
    ps2_clear_answers(&k->port);
    if (!k->pending || !parameter(k, byte))
        command(k, byte);
    ps2_notify(&k->port);
}

static int port_loaded(void *dev, struct error *e)
{
    const struct ps2_port *p = dev;
    return p->answer_head <= p->answers
               ? 0
               : error_set(e, ERR_FORMAT, "answer_head: is beyond the end");
}

static const struct field port_fields[] = {
    FIELD_ARRAY(struct ps2_port, answer),
    FIELD(struct ps2_port, answer_head, .max = PS2_ANSWER_MAX),
    FIELD(struct ps2_port, answers, .max = PS2_ANSWER_MAX),
    FIELD_ARRAY(struct ps2_port, report),
    FIELD(struct ps2_port, report_head, .max = PS2_REPORT_MAX - 1),
    FIELD(struct ps2_port, reports, .max = PS2_REPORT_MAX),
    FIELD(struct ps2_port, last),
    FIELD_NONE(struct ps2_port, ready),
    FIELD_NONE(struct ps2_port, ctx),
};
const struct field_table ps2_port_fields =
    FIELD_TABLE(struct ps2_port, "ps2_port", port_fields, .post_load = port_loaded);

static int kbd_loaded(void *dev, struct error *e)
{
    const struct ps2kbd *k = dev;
    return k->set ? 0 : error_set(e, ERR_FORMAT, "set: there is no scan code set 0");
}

static const struct field kbd_fields[] = {
    FIELD_STRUCT(struct ps2kbd, port, ps2_port_fields),
    FIELD(struct ps2kbd, pending),
    FIELD(struct ps2kbd, set, .max = 3),
    FIELD(struct ps2kbd, scanning),
    FIELD(struct ps2kbd, leds),
    FIELD(struct ps2kbd, typematic),
    FIELD_ARRAY(struct ps2kbd, down),
    FIELD_ARRAY(struct ps2kbd, no_break),
    FIELD_ARRAY(struct ps2kbd, no_repeat),
};
const struct field_table ps2kbd_fields =
    FIELD_TABLE(struct ps2kbd, "ps2kbd", kbd_fields, .post_load = kbd_loaded);
