/*
 * i8259.c - see i8259.h.
 *
 * An edge-triggered request is latched by the rising edge and stays latched until it is
 * acknowledged or the chip is initialised. (The data sheet lets it lapse when the input falls
 * earlier, and answers with IR7; a virtual CPU may be away for longer than a pulse lasts, so it
 * must not be lost.) A level-triggered request follows its input.
 */
#include "chip/i8259.h"

#define CASCADE 2u

#define ICW1_IC4  0x01
#define ICW1_SNGL 0x02
#define ICW1      0x10
#define ICW4_AEOI 0x02
#define ICW4_SFNM 0x10
#define OCW3      0x08
#define OCW3_RIS  0x01
#define OCW3_RR   0x02
#define OCW3_POLL 0x04
#define OCW3_SMM  0x20
#define OCW3_ESMM 0x40

/* OCW2, bits 7-5: R, SL, EOI. */
enum ocw2 {
    OCW2_ROTATE_AEOI_CLEAR = 0,
    OCW2_EOI = 1,
    OCW2_NOP = 2,
    OCW2_EOI_SPECIFIC = 3,
    OCW2_ROTATE_AEOI_SET = 4,
    OCW2_EOI_ROTATE = 5,
    OCW2_SET_PRIORITY = 6,
    OCW2_EOI_SPECIFIC_ROTATE = 7,
};

/* ELCR bits that exist: the timer, keyboard, cascade, RTC and FPU inputs are edge-triggered. */
static const uint8_t elcr_mask[2] = {0xf8, 0xde};

/* 0: highest priority ... 7; 8: `set` is empty. */
static unsigned rank_of(const struct i8259_one *c, uint8_t set)
{
    unsigned rank = 0;
    while (rank < 8 && !(set & (1u << ((c->lowest + 1u + rank) & 7))))
        rank++;
    return rank;
}

static unsigned irq_of(const struct i8259_one *c, unsigned rank)
{
    return (c->lowest + 1u + rank) & 7;
}

/* The input this chip would interrupt for, or -1. */
static int request_of(const struct i8259_one *c, bool master)
{
    unsigned rank = rank_of(c, c->irr & ~c->imr);
    if (rank == 8)
        return -1;
    uint8_t serving = c->isr;
    if (c->special_mask)
        serving &= ~c->imr;
    /* Special fully nested: a slave in service may still interrupt for its higher inputs. */
    if (c->nested && master)
        serving &= ~(1u << CASCADE);
    return rank < rank_of(c, serving) ? (int)irq_of(c, rank) : -1;
}

static void set_line(struct i8259_one *c, unsigned irq, bool level)
{
    uint8_t bit = 1u << irq;
    if (c->elcr & bit)
        c->irr = level ? c->irr | bit : c->irr & ~bit;
    else if (level && !(c->line & bit))
        c->irr |= bit;
    c->line = level ? c->line | bit : c->line & ~bit;
}

static void update(struct i8259 *p)
{
    bool slave_int = request_of(&p->one[1], false) >= 0;
    if (slave_int != p->slave_int) {
        p->slave_int = slave_int;
        set_line(&p->one[0], CASCADE, slave_int);
    }
    bool level = i8259_pending(p);
    if (level != p->intr_level) {
        p->intr_level = level;
        pin_set(&p->intr, level);
    }
}

bool i8259_pending(const struct i8259 *p)
{
    return request_of(&p->one[0], true) >= 0;
}

void i8259_set_irq(struct i8259 *p, unsigned irq, bool level)
{
    if (irq > 15 || irq == CASCADE)
        return;
    set_line(&p->one[irq >> 3], irq & 7, level);
    update(p);
}

/* One chip's part of an acknowledge cycle; returns the input, or -1 if the request is gone. */
static int ack_one(struct i8259 *p, unsigned n)
{
    struct i8259_one *c = &p->one[n];
    int irq = request_of(c, n == 0);
    if (irq < 0)
        return -1;
    uint8_t bit = 1u << irq;
    if (!(c->elcr & bit))
        c->irr &= ~bit;
    if (!c->aeoi)
        c->isr |= bit;
    else if (c->aeoi_rotate)
        c->lowest = irq;
    if (n == 1) { /* INT drops during the cycle, so that the master sees a new edge */
        p->slave_int = false;
        set_line(&p->one[0], CASCADE, false);
    }
    return irq;
}

int i8259_ack(struct i8259 *p)
{
    unsigned n = 0;
    int irq = ack_one(p, 0);
    if (irq == (int)CASCADE) {
        n = 1;
        irq = ack_one(p, 1);
    }
    update(p);
    return p->one[n].vector | (irq < 0 ? 7 : irq);
}

static void write_icw1(struct i8259_one *c, uint8_t val)
{
    /* Edge detection restarts; level requests are still there. LTIM is superseded by ELCR. */
    c->irr = c->line & c->elcr;
    c->isr = 0;
    c->imr = 0;
    c->lowest = 7;
    c->aeoi = c->aeoi_rotate = c->special_mask = c->nested = false;
    c->read_isr = c->poll = false;
    c->icw_single = val & ICW1_SNGL;
    c->icw_need4 = val & ICW1_IC4;
    c->icw = 2;
}

static void write_icw(struct i8259_one *c, uint8_t val)
{
    switch (c->icw) {
    case 2:
        c->vector = val & 0xf8;
        c->icw = !c->icw_single ? 3 : c->icw_need4 ? 4 : 0;
        break;
    case 3: /* the cascade is wired to IR2 */
        c->icw = c->icw_need4 ? 4 : 0;
        break;
    default:
        c->aeoi = val & ICW4_AEOI;
        c->nested = val & ICW4_SFNM;
        c->icw = 0;
    }
}

/* Ends the service of the input with the highest priority; in special mask mode masked inputs do
 * not count. */
static void eoi(struct i8259_one *c, bool rotate)
{
    unsigned rank = rank_of(c, c->special_mask ? c->isr & ~c->imr : c->isr);
    if (rank == 8)
        return;
    unsigned irq = irq_of(c, rank);
    c->isr &= ~(1u << irq);
    if (rotate)
        c->lowest = irq;
}

static void write_ocw2(struct i8259_one *c, uint8_t val)
{
    unsigned irq = val & 7;
    switch ((enum ocw2)(val >> 5)) {
    case OCW2_ROTATE_AEOI_CLEAR:
        c->aeoi_rotate = false;
        break;
    case OCW2_ROTATE_AEOI_SET:
        c->aeoi_rotate = true;
        break;
    case OCW2_EOI:
        eoi(c, false);
        break;
    case OCW2_EOI_ROTATE:
        eoi(c, true);
        break;
    case OCW2_EOI_SPECIFIC:
        c->isr &= ~(1u << irq);
        break;
    case OCW2_EOI_SPECIFIC_ROTATE:
        c->isr &= ~(1u << irq);
        c->lowest = irq;
        break;
    case OCW2_SET_PRIORITY:
        c->lowest = irq;
        break;
    case OCW2_NOP:
        break;
    }
}

static void write_ocw3(struct i8259_one *c, uint8_t val)
{
    if (val & OCW3_ESMM)
        c->special_mask = val & OCW3_SMM;
    c->poll = val & OCW3_POLL;
    if (val & OCW3_RR)
        c->read_isr = val & OCW3_RIS;
}

static void write_one(struct i8259 *p, unsigned n, uint64_t off, uint8_t val)
{
    struct i8259_one *c = &p->one[n];
    if (off & 1) {
        if (c->icw)
            write_icw(c, val);
        else
            c->imr = val;
    } else if (val & ICW1) {
        write_icw1(c, val);
    } else if (val & OCW3) {
        write_ocw3(c, val);
    } else {
        write_ocw2(c, val);
    }
    update(p);
}

static uint8_t read_one(struct i8259 *p, unsigned n, uint64_t off)
{
    struct i8259_one *c = &p->one[n];
    if (c->poll) { /* the read takes the place of an acknowledge cycle */
        c->poll = false;
        int irq = ack_one(p, n);
        update(p);
        return irq < 0 ? 0 : 0x80 | irq;
    }
    if (off & 1)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static uint64_t master_read(void *dev, uint64_t off, unsigned size)
{
    return read_one(dev, 0, off);
}

static void master_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    write_one(dev, 0, off, val);
}

static uint64_t slave_read(void *dev, uint64_t off, unsigned size)
{
    return read_one(dev, 1, off);
}

static void slave_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    write_one(dev, 1, off, val);
}

static uint64_t elcr_read(void *dev, uint64_t off, unsigned size)
{
    struct i8259 *p = dev;
    return p->one[off & 1].elcr;
}

static void elcr_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct i8259 *p = dev;
    struct i8259_one *c = &p->one[off & 1];
    c->elcr = val & elcr_mask[off & 1];
    c->irr = (c->irr & ~c->elcr) | (c->line & c->elcr);
    update(p);
}

static void i8259_reset(void *dev)
{
    struct i8259 *p = dev;
    for (unsigned n = 0; n < 2; n++) /* the inputs belong to others and keep their levels */
        p->one[n] = (struct i8259_one){.line = p->one[n].line, .lowest = 7};
    p->one[0].line &= ~(1u << CASCADE);
    p->slave_int = p->intr_level = false;
    pin_set(&p->intr, false);
}

void i8259_init(struct i8259 *p, struct pin intr)
{
    *p = (struct i8259){.intr = intr};
    i8259_reset(p);
}

static const struct io_ops master_ops = {"i8259-master", 1, master_read, master_write};
static const struct io_ops slave_ops = {"i8259-slave", 1, slave_read, slave_write};
static const struct io_ops elcr_ops = {"i8259-elcr", 1, elcr_read, elcr_write};

static const struct chip_range ranges[] = {
    {true, 0x20, 2, &master_ops},
    {true, 0xa0, 2, &slave_ops},
    {true, 0x4d0, 2, &elcr_ops},
    {0},
};

static const struct field one_fields[] = {
    FIELD(struct i8259_one, line),
    FIELD(struct i8259_one, irr),
    FIELD(struct i8259_one, isr),
    FIELD(struct i8259_one, imr),
    FIELD(struct i8259_one, elcr),
    FIELD(struct i8259_one, vector),
    FIELD(struct i8259_one, lowest, .max = 7),
    FIELD(struct i8259_one, icw, .max = 4),
    FIELD(struct i8259_one, icw_single),
    FIELD(struct i8259_one, icw_need4),
    FIELD(struct i8259_one, aeoi),
    FIELD(struct i8259_one, aeoi_rotate),
    FIELD(struct i8259_one, special_mask),
    FIELD(struct i8259_one, nested),
    FIELD(struct i8259_one, read_isr),
    FIELD(struct i8259_one, poll),
};
static const struct field_table one_table = FIELD_TABLE(struct i8259_one, "i8259_one", one_fields);

static const struct field fields[] = {
    FIELD_STRUCTS(struct i8259, one, one_table),
    FIELD(struct i8259, slave_int),
    FIELD_NONE(struct i8259, intr),
    FIELD(struct i8259, intr_level),
};
static const struct field_table table = FIELD_TABLE(struct i8259, "i8259", fields);

const struct chip_desc i8259_desc = {"i8259", i8259_reset, ranges, &table};
