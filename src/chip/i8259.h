/*
 * i8259.h - the PC's pair of 8259A interrupt controllers, cascaded on IR2.
 *
 * Sources: Intel 8259A data sheet (231468-003); Intel 82371SB (PIIX3), section 2.5.6, for ELCR.
 */
#ifndef SOSIA_CHIP_I8259_H
#define SOSIA_CHIP_I8259_H

#include "chip/chip.h"
#include "chip/pin.h"

struct i8259_one {
    uint8_t line; /* levels of the IR inputs */
    uint8_t irr, isr, imr;
    uint8_t elcr;   /* 1: level-triggered */
    uint8_t vector; /* ICW2, low three bits clear */
    uint8_t lowest; /* the input that has the lowest priority, 0..7 */
    uint8_t icw;    /* which ICW the next write to A0=1 is: 2, 3, 4; 0: OCW1 */
    bool icw_single, icw_need4;
    bool aeoi, aeoi_rotate, special_mask, nested; /* nested: special fully nested mode */
    bool read_isr, poll;
};

struct i8259 {
    struct i8259_one one[2]; /* master, slave */
    bool slave_int;          /* level of the slave's INT, wired to IR2 of the master */
    struct pin intr;
    bool intr_level;
};

extern const struct chip_desc i8259_desc;

void i8259_init(struct i8259 *p, struct pin intr);

/* Drives an input. 2 is taken by the cascade: it and numbers above 15 are ignored. */
void i8259_set_irq(struct i8259 *p, unsigned irq, bool level);

/* The level of INTR. */
bool i8259_pending(const struct i8259 *p);

/* The CPU's interrupt acknowledge cycle: returns the vector, 0..255. With nothing pending it is
 * the spurious vector, IR7's. */
int i8259_ack(struct i8259 *p);

#endif
