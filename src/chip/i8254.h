/*
 * i8254.h - the 8254 programmable interval timer.
 *
 * Source: Intel 82C54 data sheet (231244-006). Nothing ticks: a channel remembers at which tick of
 * the VM clock it was loaded, and everything visible is computed from that. The only timer is for
 * the rising edges of OUT 0, which is IRQ 0.
 */
#ifndef SOSIA_CHIP_I8254_H
#define SOSIA_CHIP_I8254_H

#include "base/clock.h"
#include "chip/chip.h"
#include "chip/pin.h"

#define I8254_HZ 1193182

struct i8254_channel {
    uint8_t mode;   /* 0..5 */
    uint8_t access; /* RW1 RW0: 1 LSB, 2 MSB, 3 LSB then MSB */
    bool bcd, gate;
    bool write_msb, read_msb; /* access 3: the other half is next */
    uint8_t write_lsb;
    uint32_t reload;     /* count register, 1..65536 */
    bool loaded;         /* the counting element has a count */
    bool pending;        /* `reload` is not in the counting element yet */
    uint64_t pending_at; /* tick at which it gets there; UINT64_MAX: at the gate's rising edge */
    uint32_t count;      /* N of the counting element, 1..65536 */
    uint64_t start;      /* tick at which it held N; valid if !held */
    bool held;           /* counting is stopped by the gate or a half-written count */
    uint64_t held_ticks; /* ticks counted until then */
    bool count_latched, status_latched;
    uint16_t latch;
    uint8_t status;
};

struct i8254 {
    struct i8254_channel channel[3];
    struct timerq *timerq;
    struct timer timer;
    uint64_t next_edge; /* tick of OUT 0's next rising edge; UINT64_MAX: none */
    struct pin irq;
};

extern const struct chip_desc i8254_desc;

/* `irq` is OUT of channel 0. 0 or ERR_NOMEM. */
int i8254_init(struct i8254 *p, struct timerq *q, struct pin irq, struct error *e);

/* GATE and OUT of a channel, 0..2. */
void i8254_set_gate(struct i8254 *p, unsigned channel, bool level);
bool i8254_gate(const struct i8254 *p, unsigned channel);
bool i8254_out(struct i8254 *p, unsigned channel);

#endif
