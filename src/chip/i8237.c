/* i8237.c - see i8237.h. */
#include "chip/i8237.h"

#include <string.h>

#define COMMAND_DISABLE 0x04
#define MODE_VERIFY     0x00
#define MODE_TO_MEMORY  0x04
#define MODE_TO_DEVICE  0x08
#define MODE_TYPE       0x0c
#define MODE_AUTOINIT   0x10
#define MODE_DECREMENT  0x20

/* Page register of each channel, as an offset from port 0x80. */
static const uint8_t page_of[8] = {0x7, 0x3, 0x1, 0x2, 0xf, 0xb, 0x9, 0xa};

/* One piece of a transfer that does not wrap within the page. */
static void move(struct i8237 *d, gpa_t addr, uint8_t *buf, size_t len, uint8_t type)
{
    if (type == MODE_TO_MEMORY)
        dma_write(d->mem, addr, buf, len);
    else if (type == MODE_TO_DEVICE)
        dma_read(d->mem, addr, buf, len);
}

size_t i8237_transfer(struct i8237 *d, unsigned channel, void *buf, size_t len, bool to_memory,
                      bool *tc)
{
    *tc = false;
    if (channel > 7 || channel == 4)
        return 0;
    struct i8237_one *one = &d->one[channel >> 2];
    struct i8237_channel *c = &one->channel[channel & 3];
    uint8_t bit = 1u << (channel & 3), type = c->mode & MODE_TYPE, *p = buf;
    bool verify = type == MODE_VERIFY;
    if ((one->mask & bit) || (one->command & COMMAND_DISABLE) || type == MODE_TYPE ||
        (!verify && to_memory != (type == MODE_TO_MEMORY)))
        return 0;
    unsigned shift = channel >> 2; /* 16-bit channels count words */
    gpa_t page = shift ? (gpa_t)(d->page[page_of[channel]] & 0xfe) << 16
                       : (gpa_t)d->page[page_of[channel]] << 16;
    size_t left = min_u64(len >> shift, c->count + 1ull), done = left;
    if (verify && !to_memory) /* a verify cycle drives no data */
        memset(buf, 0, len);
    while (left) {
        bool down = c->mode & MODE_DECREMENT;
        size_t n = down ? 1 : min_u64(left, 0x10000u - c->addr);
        move(d, page + ((gpa_t)c->addr << shift), p, n << shift, type);
        c->addr = (uint16_t)(down ? c->addr - n : c->addr + n);
        p += n << shift;
        left -= n;
    }
    *tc = done == c->count + 1ull;
    c->count = (uint16_t)(c->count - done);
    if (*tc) {
        one->terminal |= bit;
        if (c->mode & MODE_AUTOINIT) {
            c->addr = c->base_addr;
            c->count = c->base_count;
        } else {
            one->mask |= bit;
        }
    }
    return done << shift;
}

static void clear_one(struct i8237_one *one)
{
    one->command = one->request = one->terminal = 0;
    one->mask = 0x0f;
    one->high_byte = false;
}

static uint8_t read_reg(struct i8237_one *one, unsigned reg)
{
    if (reg == 8) { /* status; reading clears the terminal count bits */
        uint8_t val = one->terminal | one->request << 4;
        one->terminal = 0;
        return val;
    }
    if (reg > 7)
        return reg == 15 ? one->mask | 0xf0 : 0xff;
    const struct i8237_channel *c = &one->channel[reg >> 1];
    uint16_t val = reg & 1 ? c->count : c->addr;
    bool high = one->high_byte;
    one->high_byte = !high;
    return high ? val >> 8 : val & 0xff;
}

static uint16_t put_byte(uint16_t old, bool high, uint8_t val)
{
    return high ? (uint16_t)((old & 0x00ff) | val << 8) : (uint16_t)((old & 0xff00) | val);
}

/* Writing base loads current too. */
static void write_channel(struct i8237_one *one, unsigned reg, uint8_t val)
{
    struct i8237_channel *c = &one->channel[reg >> 1];
    if (reg & 1)
        c->count = c->base_count = put_byte(c->base_count, one->high_byte, val);
    else
        c->addr = c->base_addr = put_byte(c->base_addr, one->high_byte, val);
    one->high_byte = !one->high_byte;
}

static void write_reg(struct i8237_one *one, unsigned reg, uint8_t val)
{
    uint8_t bit = 1u << (val & 3);
    switch (reg) {
    case 8:
        one->command = val;
        break;
    case 9:
        one->request = val & 4 ? one->request | bit : one->request & ~bit;
        break;
    case 10:
        one->mask = val & 4 ? one->mask | bit : one->mask & ~bit;
        break;
    case 11:
        one->channel[val & 3].mode = val;
        break;
    case 12:
        one->high_byte = false;
        break;
    case 13:
        clear_one(one);
        break;
    case 14:
        one->mask = 0;
        break;
    case 15:
        one->mask = val & 0x0f;
        break;
    default:
        write_channel(one, reg, val);
    }
}

static uint64_t low_read(void *dev, uint64_t off, unsigned size)
{
    struct i8237 *d = dev;
    return read_reg(&d->one[0], off & 15);
}

static void low_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct i8237 *d = dev;
    write_reg(&d->one[0], off & 15, (uint8_t)val);
}

/* The second controller's registers are two ports apart. */
static uint64_t high_read(void *dev, uint64_t off, unsigned size)
{
    struct i8237 *d = dev;
    return read_reg(&d->one[1], off >> 1 & 15);
}

static void high_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct i8237 *d = dev;
    write_reg(&d->one[1], off >> 1 & 15, (uint8_t)val);
}

static uint64_t page_read(void *dev, uint64_t off, unsigned size)
{
    const struct i8237 *d = dev;
    return d->page[(off + 1) & 15];
}

static void page_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct i8237 *d = dev;
    d->page[(off + 1) & 15] = (uint8_t)val;
}

static void i8237_reset(void *dev)
{
    struct i8237 *d = dev;
    *d = (struct i8237){.mem = d->mem};
    clear_one(&d->one[0]);
    clear_one(&d->one[1]);
}

void i8237_init(struct i8237 *d, struct space *mem)
{
    d->mem = mem;
    i8237_reset(d);
}

static const struct io_ops low_ops = {"i8237-low", 1, low_read, low_write};
static const struct io_ops high_ops = {"i8237-high", 1, high_read, high_write};
static const struct io_ops page_ops = {"i8237-page", 1, page_read, page_write};

static const struct chip_range ranges[] = {
    {true, 0x00, 16, &low_ops},
    {true, 0xc0, 32, &high_ops},
    {true, 0x81, 15, &page_ops},
    {0},
};

static const struct field channel_fields[] = {
    FIELD(struct i8237_channel, base_addr), FIELD(struct i8237_channel, base_count),
    FIELD(struct i8237_channel, addr),      FIELD(struct i8237_channel, count),
    FIELD(struct i8237_channel, mode),
};
static const struct field_table channel_table =
    FIELD_TABLE(struct i8237_channel, "i8237_channel", channel_fields);

static const struct field one_fields[] = {
    FIELD_STRUCTS(struct i8237_one, channel, channel_table),
    FIELD(struct i8237_one, command),
    FIELD(struct i8237_one, mask, .max = 15),
    FIELD(struct i8237_one, request, .max = 15),
    FIELD(struct i8237_one, terminal, .max = 15),
    FIELD(struct i8237_one, high_byte),
};
static const struct field_table one_table = FIELD_TABLE(struct i8237_one, "i8237_one", one_fields);

static const struct field fields[] = {
    FIELD_STRUCTS(struct i8237, one, one_table),
    FIELD_ARRAY(struct i8237, page),
    FIELD_NONE(struct i8237, mem),
};
static const struct field_table table = FIELD_TABLE(struct i8237, "i8237", fields);

const struct chip_desc i8237_desc = {"i8237", i8237_reset, ranges, &table};
