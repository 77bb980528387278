/*
 * i8042.h - the PC's 8042 keyboard controller with its auxiliary port, and keyboard and mouse on
 * it.
 *
 * Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
 * Controller".
 */
#ifndef SOSIA_CHIP_I8042_H
#define SOSIA_CHIP_I8042_H

#include "chip/chip.h"
#include "chip/pin.h"
#include "chip/ps2kbd.h"
#include "chip/ps2mouse.h"

struct i8042_pins {
    struct pin irq_kbd; /* IRQ 1 */
    struct pin irq_aux; /* IRQ 12 */
    struct pin a20; /* high: address line 20 passes. Driven when the guest changes it, and at reset
                       (high) */
    struct pin reset; /* a pulse high resets the CPU (the machine: as the board is wired) */
};

struct i8042 {
    struct ps2kbd kbd;
    struct ps2mouse mouse;
    uint8_t ram[32];       /* [0]: the command byte */
    uint8_t status;        /* OBF, SYS, CMD, AUX; the rest is computed */
    uint8_t output;        /* the output buffer, valid or read last */
    uint8_t outport;       /* as last written */
    uint8_t command;       /* waits for its data byte on port 0x60; 0: none */
    bool break_prefix;     /* translation: F0 was seen */
    bool reply, reply_aux; /* a reply of the controller waits for the output buffer */
    uint8_t reply_byte;
    struct i8042_pins pins;
};

extern const struct chip_desc i8042_desc;

/* Input is given to i8042.kbd and i8042.mouse by ps2kbd_key() and ps2mouse_event(). */
void i8042_init(struct i8042 *c, const struct i8042_pins *pins);

#endif
