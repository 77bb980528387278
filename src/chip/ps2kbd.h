/*
 * ps2kbd.h - a PS/2 keyboard (MF-II): scan code sets 1 to 3 and the command set.
 *
 * Sources: IBM PS/2 Hardware Interface Technical Reference, Keyboards (101/102-key); Microsoft
 * Keyboard Scan Code Specification, revision 1.3a.
 */
#ifndef SOSIA_CHIP_PS2KBD_H
#define SOSIA_CHIP_PS2KBD_H

#include "chip/ps2.h"

#define PS2KBD_KEYS 256

struct ps2kbd {
    struct ps2_port port;
    uint8_t pending; /* a command that waits for its parameter; 0: none */
    uint8_t set;     /* scan code set, 1..3 */
    bool scanning;
    uint8_t leds;      /* bit 0 Scroll Lock, 1 Num Lock, 2 Caps Lock */
    uint8_t typematic; /* delay and rate as programmed; the host's keyboard does the repeating */
    uint8_t down[PS2KBD_KEYS / 8];      /* keys whose make code was sent, by key number */
    uint8_t no_break[PS2KBD_KEYS / 8];  /* set 3: make codes without break code */
    uint8_t no_repeat[PS2KBD_KEYS / 8]; /* set 3: make codes that do not repeat */
};

extern const struct field_table ps2kbd_fields;

void ps2kbd_init(struct ps2kbd *k);
void ps2kbd_reset(struct ps2kbd *k); /* power-on state */

/* A byte from the controller. */
void ps2kbd_command(struct ps2kbd *k, uint8_t byte);

/* A key was pressed, repeated (pressed again while down) or released. `key` is a Linux input event
 * code (KEY_A = 30, ...); keys that such a keyboard has not are ignored. */
void ps2kbd_key(struct ps2kbd *k, unsigned key, bool pressed);

/* Set 1 make code of a set 2 make code, both 0..0x7f, as the 8042 translates; the overrun
 * code 0 becomes 0xff. */
uint8_t ps2kbd_translate(uint8_t set2);

#endif
