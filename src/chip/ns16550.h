/*
 * ns16550.h - NS16550A UART.
 *
 * Source: National Semiconductor PC16550D data sheet (TL/C/8652). The line is infinitely fast: a
 * byte leaves when it is written, if the back end takes it, and four character times (the receive
 * time-out) are over at once.
 */
#ifndef SOSIA_CHIP_NS16550_H
#define SOSIA_CHIP_NS16550_H

#include "char/char.h"
#include "chip/chip.h"
#include "chip/pin.h"

#define NS16550_FIFO 16

struct ns16550_fifo {
    uint8_t byte[NS16550_FIFO];
    uint8_t error[NS16550_FIFO]; /* LSR error bits that came with the byte */
    unsigned head, count;
};

struct ns16550 {
    uint8_t ier, fcr, lcr, mcr, lsr, msr, scr;
    uint16_t divisor;
    uint8_t rbr;                /* what RBR last showed */
    bool thre_pending;          /* the transmitter-empty interrupt was not yet seen */
    struct ns16550_fifo rx, tx; /* tx: what the back end did not take yet */
    struct char_out out;
    struct char_ready ready;
    bool irq_level;
    struct pin irq; /* INTR; OUT2 does not gate it: guests that forget OUT2 still get interrupts */
};

/* The four standard places: 0x3f8, 0x2f8, 0x3e8, 0x2e8. The chip is the same. */
extern const struct chip_desc ns16550_com1_desc, ns16550_com2_desc, ns16550_com3_desc,
    ns16550_com4_desc;

void ns16550_init(struct ns16550 *u, struct char_out out, struct char_ready ready, struct pin irq);

/* The receiving side, for the back end. */
struct char_in ns16550_char_in(struct ns16550 *u);

/* A break condition arrives on the line. */
void ns16550_break(struct ns16550 *u);

#endif
