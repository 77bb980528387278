/* ns16550.c - see ns16550.h. Section numbers are those of the PC16550D data sheet. */
#include "chip/ns16550.h"

#define IER_RDA  0x01
#define IER_THRE 0x02
#define IER_RLS  0x04
#define IER_MS   0x08

#define IIR_NONE    0x01
#define IIR_MS      0x00
#define IIR_THRE    0x02
#define IIR_RDA     0x04
#define IIR_RLS     0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFOS   0xc0

#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define FCR_CLEAR_TX 0x04

#define LCR_BREAK 0x40
#define LCR_DLAB  0x80

#define MCR_DTR  0x01
#define MCR_RTS  0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10

#define LSR_DR     0x01
#define LSR_OE     0x02
#define LSR_PE     0x04
#define LSR_FE     0x08
#define LSR_BI     0x10
#define LSR_THRE   0x20
#define LSR_TEMT   0x40
#define LSR_FIFOE  0x80
#define LSR_ERRORS (LSR_OE | LSR_PE | LSR_FE | LSR_BI)

#define MSR_DCTS 0x01
#define MSR_DDSR 0x02
#define MSR_TERI 0x04
#define MSR_DDCD 0x08
#define MSR_CTS  0x10
#define MSR_DSR  0x20
#define MSR_RI   0x40
#define MSR_DCD  0x80

static bool fifos_on(const struct ns16550 *u)
{
    return u->fcr & FCR_ENABLE;
}

static bool looped(const struct ns16550 *u)
{
    return u->mcr & MCR_LOOP;
}

static unsigned capacity(const struct ns16550 *u)
{
    return fifos_on(u) ? NS16550_FIFO : 1;
}

static unsigned trigger(const struct ns16550 *u)
{
    static const uint8_t level[4] = {1, 4, 8, 14};
    return fifos_on(u) ? level[u->fcr >> 6] : 1;
}

/* The caller has checked that there is room. */
static void fifo_put(struct ns16550_fifo *f, uint8_t byte, uint8_t error)
{
    unsigned i = (f->head + f->count++) % NS16550_FIFO;
    f->byte[i] = byte;
    f->error[i] = error;
}

static void fifo_drop(struct ns16550_fifo *f)
{
    f->head = (f->head + 1) % NS16550_FIFO;
    f->count--;
}

/* Table 8-4: interrupt identification in order of priority. */
static uint8_t identify(const struct ns16550 *u)
{
    if ((u->ier & IER_RLS) && (u->lsr & LSR_ERRORS))
        return IIR_RLS;
    if ((u->ier & IER_RDA) && u->rx.count)
        return u->rx.count >= trigger(u) ? IIR_RDA : IIR_TIMEOUT;
    if ((u->ier & IER_THRE) && u->thre_pending)
        return IIR_THRE;
    if ((u->ier & IER_MS) && (u->msr & (MSR_DCTS | MSR_DDSR | MSR_TERI | MSR_DDCD)))
        return IIR_MS;
    return IIR_NONE;
}

/* Recomputes what follows from the FIFOs, and drives INTR. */
static void update(struct ns16550 *u)
{
    u->lsr &= ~(LSR_DR | LSR_FIFOE | LSR_THRE | LSR_TEMT);
    if (u->rx.count) {
        u->lsr |= LSR_DR;
        /* A byte's errors show when it gets to the top of the FIFO (8.4). */
        u->lsr |= u->rx.error[u->rx.head];
        u->rx.error[u->rx.head] = 0;
    }
    if (fifos_on(u)) {
        uint8_t errors = u->lsr & (LSR_PE | LSR_FE | LSR_BI);
        for (unsigned i = 0; i < u->rx.count; i++)
            errors |= u->rx.error[(u->rx.head + i) % NS16550_FIFO];
        u->lsr |= errors ? LSR_FIFOE : 0;
    }
    if (!u->tx.count)
        u->lsr |= LSR_THRE | LSR_TEMT;
    bool level = identify(u) != IIR_NONE;
    if (level != u->irq_level) { /* most accesses change nothing: spare the wiring */
        u->irq_level = level;
        pin_set(&u->irq, level);
    }
}

static void tell_ready(const struct ns16550 *u)
{
    if (u->ready.fn)
        u->ready.fn(u->ready.ctx);
}

static void receive(struct ns16550 *u, uint8_t byte, uint8_t error)
{
    if (u->rx.count >= capacity(u)) { /* 8.4, OE: a full FIFO stays, a full RBR is overwritten */
        u->lsr |= LSR_OE;
        if (fifos_on(u))
            return;
        fifo_drop(&u->rx);
    }
    fifo_put(&u->rx, byte, error);
}

/* Offers held-back bytes to the back end, in order. */
static void flush_tx(struct ns16550 *u)
{
    while (u->tx.count) {
        unsigned run = (unsigned)min_u64(u->tx.count, NS16550_FIFO - u->tx.head);
        size_t n = char_write(&u->out, u->tx.byte + u->tx.head, run);
        n = min_u64(n, run);
        u->tx.head = (u->tx.head + n) % NS16550_FIFO;
        u->tx.count -= n;
        if (n < run)
            return;
    }
    u->thre_pending = true;
}

static void write_thr(struct ns16550 *u, uint8_t byte)
{
    u->thre_pending = false;
    if (looped(u)) {
        receive(u, byte, 0);
        u->thre_pending = true;
        return;
    }
    if (u->lcr & LCR_BREAK) { /* the line is held at break: the byte is not seen */
        u->thre_pending = true;
        return;
    }
    if (u->tx.count >= capacity(u)) /* the guest did not wait for THRE */
        return;
    fifo_put(&u->tx, byte, 0);
    if (u->tx.count == 1) /* else the back end said that it will call drained() */
        flush_tx(u);
}

static uint8_t read_rbr(struct ns16550 *u)
{
    if (u->rx.count) {
        u->rbr = u->rx.byte[u->rx.head];
        fifo_drop(&u->rx);
        update(u);
        if (!u->rx.count && !looped(u))
            tell_ready(u);
    }
    return u->rbr;
}

static uint8_t read_iir(struct ns16550 *u)
{
    uint8_t id = identify(u);
    if (id == IIR_THRE) { /* seeing it is enough to clear it */
        u->thre_pending = false;
        update(u);
    }
    return id | (fifos_on(u) ? IIR_FIFOS : 0);
}

static uint8_t read_lsr(struct ns16550 *u)
{
    uint8_t val = u->lsr;
    u->lsr &= ~LSR_ERRORS;
    update(u);
    return val;
}

static uint8_t read_msr(struct ns16550 *u)
{
    uint8_t val = u->msr;
    u->msr &= 0xf0;
    update(u);
    return val;
}

/* 8.6: in loop mode the modem outputs are the modem inputs; else a modem is there and ready. */
static void update_modem(struct ns16550 *u)
{
    uint8_t in = MSR_CTS | MSR_DSR | MSR_DCD;
    if (looped(u))
        in = (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
             (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
    uint8_t changed = in ^ u->msr;
    uint8_t delta = (changed & (MSR_CTS | MSR_DSR | MSR_DCD)) >> 4;
    if ((changed & MSR_RI) && !(in & MSR_RI)) /* only RI's trailing edge counts */
        delta |= MSR_TERI;
    u->msr = in | (u->msr & 0x0f) | delta;
}

static void write_ier(struct ns16550 *u, uint8_t val)
{
    /* Enabling the interrupt while THR is empty raises it, though it was seen before. */
    if ((val & ~u->ier & IER_THRE) && (u->lsr & LSR_THRE))
        u->thre_pending = true;
    u->ier = val & 0x0f;
}

static void write_fcr(struct ns16550 *u, uint8_t val)
{
    /* 8.5: switching the FIFOs on or off clears both; without bit 0 nothing else is programmed. */
    bool toggled = (val ^ u->fcr) & FCR_ENABLE;
    u->fcr = val & FCR_ENABLE ? val & 0xc9 : 0;
    if (toggled || (fifos_on(u) && (val & FCR_CLEAR_RX)))
        u->rx = (struct ns16550_fifo){0};
    if ((toggled || (fifos_on(u) && (val & FCR_CLEAR_TX))) && u->tx.count) {
        u->tx = (struct ns16550_fifo){0};
        u->thre_pending = true;
    }
    update(u);
    if (!u->rx.count && !looped(u))
        tell_ready(u);
}

static void write_lcr(struct ns16550 *u, uint8_t val)
{
    bool breaks = val & ~u->lcr & LCR_BREAK;
    u->lcr = val;
    if (breaks && looped(u))
        receive(u, 0, LSR_BI | LSR_FE);
}

static void write_mcr(struct ns16550 *u, uint8_t val)
{
    bool was = looped(u);
    u->mcr = val & 0x1f;
    update_modem(u);
    update(u);
    if (was && !looped(u))
        tell_ready(u);
}

static uint64_t ns16550_read(void *dev, uint64_t off, unsigned size)
{
    struct ns16550 *u = dev;
    bool dlab = u->lcr & LCR_DLAB;
    switch (off & 7) {
    case 0:
        return dlab ? u->divisor & 0xff : read_rbr(u);
    case 1:
        return dlab ? u->divisor >> 8 : u->ier;
    case 2:
        return read_iir(u);
    case 3:
        return u->lcr;
    case 4:
        return u->mcr;
    case 5:
        return read_lsr(u);
    case 6:
        return read_msr(u);
    default:
        return u->scr;
    }
}

static void ns16550_write(void *dev, uint64_t off, uint64_t val64, unsigned size)
{
    struct ns16550 *u = dev;
    uint8_t val = (uint8_t)val64;
    bool dlab = u->lcr & LCR_DLAB;
    switch (off & 7) {
    case 0:
        if (dlab)
            u->divisor = (u->divisor & 0xff00) | val;
        else
            write_thr(u, val);
        break;
    case 1:
        if (dlab)
            u->divisor = (uint16_t)((u->divisor & 0xff) | val << 8);
        else
            write_ier(u, val);
        break;
    case 2:
        write_fcr(u, val);
        break;
    case 3:
        write_lcr(u, val);
        break;
    case 4:
        write_mcr(u, val);
        break;
    case 5: /* factory test: LSR is read-only here */
    case 6:
        break;
    default:
        u->scr = val;
    }
    update(u);
}

static size_t in_room(void *dev)
{
    const struct ns16550 *u = dev;
    return looped(u) ? 0 : capacity(u) - min_u64(u->rx.count, capacity(u));
}

static void in_push(void *dev, const uint8_t *buf, size_t len)
{
    struct ns16550 *u = dev;
    for (size_t i = 0; i < len; i++)
        receive(u, buf[i], 0);
    update(u);
}

static void in_drained(void *dev)
{
    struct ns16550 *u = dev;
    if (u->tx.count)
        flush_tx(u);
    update(u);
}

struct char_in ns16550_char_in(struct ns16550 *u)
{
    return (struct char_in){in_room, in_push, in_drained, u};
}

void ns16550_break(struct ns16550 *u)
{
    if (looped(u))
        return;
    receive(u, 0, LSR_BI | LSR_FE);
    update(u);
}

/* Table 8-1; the divisor and scratch register are undefined after a reset, here zero. */
static void ns16550_reset(void *dev)
{
    struct ns16550 *u = dev;
    *u = (struct ns16550){.out = u->out, .ready = u->ready, .irq = u->irq};
    update_modem(u);
    u->msr &= 0xf0;
    pin_set(&u->irq, false);
    update(u);
}

void ns16550_init(struct ns16550 *u, struct char_out out, struct char_ready ready, struct pin irq)
{
    *u = (struct ns16550){.out = out, .ready = ready, .irq = irq};
    ns16550_reset(u);
}

static const struct io_ops ops = {"ns16550", 1, ns16550_read, ns16550_write};

static int post_load(void *dev, struct error *e)
{
    const struct ns16550 *u = dev;
    if (u->rx.count > capacity(u) || u->tx.count > capacity(u))
        return error_set(e, ERR_FORMAT, "rx, tx: hold more than there is room for");
    return 0;
}

static const struct field fifo_fields[] = {
    FIELD_ARRAY(struct ns16550_fifo, byte),
    FIELD_ARRAY(struct ns16550_fifo, error),
    FIELD(struct ns16550_fifo, head, .max = NS16550_FIFO - 1),
    FIELD(struct ns16550_fifo, count, .max = NS16550_FIFO),
};
static const struct field_table fifo_table =
    FIELD_TABLE(struct ns16550_fifo, "ns16550_fifo", fifo_fields);

static const struct field fields[] = {
    FIELD(struct ns16550, ier),
    FIELD(struct ns16550, fcr),
    FIELD(struct ns16550, lcr),
    FIELD(struct ns16550, mcr),
    FIELD(struct ns16550, lsr),
    FIELD(struct ns16550, msr),
    FIELD(struct ns16550, scr),
    FIELD(struct ns16550, divisor),
    FIELD(struct ns16550, rbr),
    FIELD(struct ns16550, thre_pending),
    FIELD_STRUCT(struct ns16550, rx, fifo_table),
    FIELD_STRUCT(struct ns16550, tx, fifo_table),
    FIELD_NONE(struct ns16550, out),
    FIELD_NONE(struct ns16550, ready),
    FIELD(struct ns16550, irq_level),
    FIELD_NONE(struct ns16550, irq),
};
static const struct field_table table =
    FIELD_TABLE(struct ns16550, "ns16550", fields, .post_load = post_load);

#define COM(n, port)                                                        \
    static const struct chip_range com##n[] = {{true, port, 8, &ops}, {0}}; \
    const struct chip_desc ns16550_com##n##_desc = {"ns16550", ns16550_reset, com##n, &table};
COM(1, 0x3f8)
COM(2, 0x2f8)
COM(3, 0x3e8)
COM(4, 0x2e8)
