/*
 * ioapic.c - the I/O APIC.
 *
 * A pin's level means "asserted". Polarity (bit 13) is kept for the guest but not applied: the
 * board's pins are driven with meaning, not with voltage, so a guest that was told of another
 * polarity, or programs none at all, gets its interrupts as well.
 */
#include "chip/ioapic.h"

#include <string.h>

#define VERSION          0x20u
#define REDIR_LOGICAL    0x800ull
#define REDIR_REMOTE_IRR 0x4000ull
#define REDIR_LEVEL      0x8000ull
#define REDIR_MASKED     0x10000ull
/* Writable: vector, mode, destination mode, polarity, trigger, mask, destination. */
#define REDIR_VALID 0xff0000000001afffull

enum { REG_ID = 0, REG_VERSION = 1, REG_ARB = 2, REG_REDIR = 0x10 };
enum { MMIO_SELECT = 0x00, MMIO_WINDOW = 0x10, MMIO_EOI = 0x40 };

/* Delivers what pin n has to deliver. A message that nobody accepts stays pending and is tried
 * again with the next event of the pin. */
static void service(struct ioapic *io, unsigned n)
{
    uint64_t *r = &io->redir[n];
    bool level = *r & REDIR_LEVEL;
    if (*r & REDIR_MASKED)
        return;
    if (level ? !(io->level >> n & 1) || *r & REDIR_REMOTE_IRR : !(io->edge >> n & 1))
        return;
    struct apic_msg m = {
        .dest = (uint8_t)(*r >> 56),
        .logical = *r & REDIR_LOGICAL,
        .mode = (*r >> 8) & 7,
        .vector = (uint8_t)*r,
        /* Only fixed and lowest priority can be level-triggered (datasheet 3.2.4, delivery mode).
         */
        .level = level && ((*r >> 8) & 7) <= APIC_LOWEST,
    };
    if (!apic_bus_send(io->bus, &m))
        return;
    if (m.level)
        *r |= REDIR_REMOTE_IRR;
    io->edge &= ~(1u << n);
}

void ioapic_set(void *ctx, unsigned line, bool level)
{
    struct ioapic *io = ctx;
    if (line >= IOAPIC_PINS)
        return;
    uint32_t bit = 1u << line;
    bool rose = level && !(io->level & bit);
    io->level = level ? io->level | bit : io->level & ~bit;
    /* Datasheet 3.2.4: an edge on a masked pin is ignored, neither delivered nor held pending. */
    if (rose && !(io->redir[line] & (REDIR_MASKED | REDIR_LEVEL)))
        io->edge |= bit;
    if (level)
        service(io, line);
}

/* EOI for a vector: pins that sent it by level may send again, and do if they are still asserted.
 */
static void on_eoi(void *ctx, uint8_t vector)
{
    struct ioapic *io = ctx;
    for (unsigned n = 0; n < IOAPIC_PINS; n++) {
        uint64_t *r = &io->redir[n];
        if ((uint8_t)*r != vector || !(*r & REDIR_LEVEL))
            continue;
        *r &= ~REDIR_REMOTE_IRR;
        service(io, n);
    }
}

static uint32_t reg_read(const struct ioapic *io)
{
    unsigned n = (io->select - REG_REDIR) / 2u;
    switch (io->select) {
    case REG_ID:
    case REG_ARB: /* the arbitration ID is loaded from the ID */
        return (uint32_t)io->id << 24;
    case REG_VERSION:
        return VERSION | (IOAPIC_PINS - 1) << 16;
    default:
        if (io->select < REG_REDIR || n >= IOAPIC_PINS)
            return 0;
        return (uint32_t)(io->redir[n] >> (io->select & 1 ? 32 : 0));
    }
}

static void reg_write(struct ioapic *io, uint32_t v)
{
    if (io->select == REG_ID)
        io->id = (v >> 24) & 15;
    if (io->select < REG_REDIR || io->select >= REG_REDIR + 2 * IOAPIC_PINS)
        return;
    unsigned n = (io->select - REG_REDIR) / 2u;
    uint64_t *r = &io->redir[n], old = *r;
    uint64_t half = io->select & 1 ? 0xffffffff00000000ull : 0xffffffffull;
    uint64_t set = io->select & 1 ? (uint64_t)v << 32 : v;
    *r = (old & ~half) | (set & half & REDIR_VALID) | (old & REDIR_REMOTE_IRR);
    if (!(*r & REDIR_LEVEL))
        *r &= ~REDIR_REMOTE_IRR; /* has no meaning for an edge; guests clear it this way */
    if (*r & (REDIR_LEVEL | REDIR_MASKED))
        io->edge &= ~(1u << n);
    service(io, n);
}

static uint64_t ioapic_read(void *dev, uint64_t off, unsigned size)
{
    const struct ioapic *io = dev;
    switch (off) {
    case MMIO_SELECT:
        return io->select;
    case MMIO_WINDOW:
        return reg_read(io);
    default:
        return 0;
    }
}

static void ioapic_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct ioapic *io = dev;
    switch (off) {
    case MMIO_SELECT:
        io->select = (uint8_t)val;
        break;
    case MMIO_WINDOW:
        reg_write(io, (uint32_t)val);
        break;
    case MMIO_EOI:
        on_eoi(io, (uint8_t)val);
        break;
    default:
        break;
    }
}

static void ioapic_reset(void *dev)
{
    struct ioapic *io = dev;
    io->id = io->select = 0;
    io->edge = 0; /* the level of the pins is the drivers' */
    for (unsigned n = 0; n < IOAPIC_PINS; n++)
        io->redir[n] = REDIR_MASKED;
}

void ioapic_init(struct ioapic *io, struct apic_bus *bus)
{
    memset(io, 0, sizeof *io);
    io->bus = bus;
    bus->eoi = on_eoi;
    bus->eoi_ctx = io;
    ioapic_reset(io);
}

static const struct io_ops ioapic_ops = {"ioapic", 4, ioapic_read, ioapic_write};

static const struct field fields[] = {
    FIELD_NONE(struct ioapic, bus),
    FIELD(struct ioapic, id, .max = 15),
    FIELD(struct ioapic, select),
    FIELD(struct ioapic, level, .max = (1u << IOAPIC_PINS) - 1),
    FIELD(struct ioapic, edge, .max = (1u << IOAPIC_PINS) - 1),
    FIELD_ARRAY(struct ioapic, redir),
};
static const struct field_table table = FIELD_TABLE(struct ioapic, "ioapic", fields);

const struct chip_desc ioapic_desc = {
    .fields = &table,
    .name = "ioapic",
    .reset = ioapic_reset,
    .ranges =
        (const struct chip_range[]){{false, IOAPIC_BASE, IOAPIC_SIZE, &ioapic_ops}, {.len = 0}},
};
