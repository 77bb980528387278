/*
 * ps2mouse.h - a PS/2 mouse: standard, IntelliMouse (wheel) and IntelliMouse Explorer (5 buttons).
 *
 * Source: IBM PS/2 Hardware Interface Technical Reference, Mouse; Microsoft's wheel extensions.
 */
#ifndef SOSIA_CHIP_PS2MOUSE_H
#define SOSIA_CHIP_PS2MOUSE_H

#include "chip/ps2.h"

enum ps2mouse_button {
    PS2MOUSE_LEFT = 1,
    PS2MOUSE_RIGHT = 2,
    PS2MOUSE_MIDDLE = 4,
    PS2MOUSE_SIDE = 8,
    PS2MOUSE_EXTRA = 16,
};

struct ps2mouse {
    struct ps2_port port;
    uint8_t pending;  /* a command that waits for its parameter; 0: none */
    uint8_t id;       /* 0 standard, 3 wheel, 4 five buttons */
    uint8_t rates[3]; /* the last sample rates that were set: the knock that unlocks id 3 and 4 */
    uint8_t rate, resolution;
    bool reporting, remote, scaling, wrap;
    int dx, dy, dz;            /* movement not reported yet: right, up, towards the user */
    uint8_t buttons, reported; /* enum ps2mouse_button: now, and in the last packet */
};

extern const struct field_table ps2mouse_fields;

void ps2mouse_init(struct ps2mouse *m);
void ps2mouse_reset(struct ps2mouse *m); /* power-on state */

/* A byte from the controller. */
void ps2mouse_command(struct ps2mouse *m, uint8_t byte);

/* Movement since the last call: dx right, dy down, wheel away from the user; the buttons as they
 * are now. */
void ps2mouse_event(struct ps2mouse *m, int dx, int dy, int wheel, unsigned buttons);

/* The controller took a byte: more movement may follow. */
void ps2mouse_taken(struct ps2mouse *m);

#endif
