/*
 * i8042.c - see i8042.h.
 *
 * Bytes wait in the devices until the output buffer is free; the controller's own replies go first.
 * A byte is in the buffer from the moment it is loaded until port 0x60 is read, and its interrupt
 * line is high for just as long.
 */
#include "chip/i8042.h"

#define STATUS_OBF    0x01
#define STATUS_SYS    0x04
#define STATUS_CMD    0x08
#define STATUS_UNLOCK 0x10
#define STATUS_AUX    0x20

#define MODE_KBD_INT 0x01
#define MODE_AUX_INT 0x02
#define MODE_SYS     0x04
#define MODE_KBD_OFF 0x10
#define MODE_AUX_OFF 0x20
#define MODE_XLATE   0x40

#define OUT_RUN         0x01 /* low: the CPU is held in reset */
#define OUT_A20         0x02
#define OUT_KBD         0x10 /* the interrupt lines */
#define OUT_AUX         0x20
#define OUT_RESET_VALUE 0xcf

enum command {
    CMD_READ_RAM = 0x20,
    CMD_WRITE_RAM = 0x60,
    CMD_TEST_PASSWORD = 0xa4,
    CMD_AUX_OFF = 0xa7,
    CMD_AUX_ON = 0xa8,
    CMD_TEST_AUX = 0xa9,
    CMD_SELF_TEST = 0xaa,
    CMD_TEST_KBD = 0xab,
    CMD_KBD_OFF = 0xad,
    CMD_KBD_ON = 0xae,
    CMD_READ_INPORT = 0xc0,
    CMD_READ_OUTPORT = 0xd0,
    CMD_WRITE_OUTPORT = 0xd1,
    CMD_WRITE_KBD_BUFFER = 0xd2,
    CMD_WRITE_AUX_BUFFER = 0xd3,
    CMD_WRITE_AUX = 0xd4,
    CMD_A20_OFF = 0xdd,
    CMD_A20_ON = 0xdf,
    CMD_READ_TEST = 0xe0,
    CMD_PULSE = 0xf0,
};

static uint8_t mode(const struct i8042 *c)
{
    return c->ram[0];
}

static void update_irq(struct i8042 *c)
{
    bool full = c->status & STATUS_OBF, aux = c->status & STATUS_AUX;
    pin_set(&c->pins.irq_kbd, full && !aux && (mode(c) & MODE_KBD_INT));
    pin_set(&c->pins.irq_aux, full && aux && (mode(c) & MODE_AUX_INT));
}

static void load(struct i8042 *c, uint8_t byte, bool aux)
{
    c->output = byte;
    c->status |= STATUS_OBF;
    c->status = aux ? c->status | STATUS_AUX : c->status & ~STATUS_AUX;
}

/* Set 2 to set 1: F0 becomes the top bit of the code that follows. False: nothing to show yet. */
static bool translate(struct i8042 *c, uint8_t *byte)
{
    if (!(mode(c) & MODE_XLATE))
        return true;
    if (*byte == 0xf0) {
        c->break_prefix = true;
        return false;
    }
    uint8_t release = c->break_prefix ? 0x80 : 0;
    c->break_prefix = false;
    if (*byte == 0x83)
        *byte = 0x41;
    else if (*byte == 0x84)
        *byte = 0x54;
    else if (*byte < 0x80)
        *byte = ps2kbd_translate(*byte);
    *byte |= release;
    return true;
}

/* Loads the output buffer if it is free and something waits. */
static void feed(struct i8042 *c)
{
    if (!(c->status & STATUS_OBF) && c->reply) {
        c->reply = false;
        load(c, c->reply_byte, c->reply_aux);
    }
    while (!(c->status & STATUS_OBF) && !(mode(c) & MODE_KBD_OFF) && !ps2_empty(&c->kbd.port)) {
        uint8_t byte = ps2_take(&c->kbd.port);
        if (translate(c, &byte))
            load(c, byte, false);
    }
    if (!(c->status & STATUS_OBF) && !(mode(c) & MODE_AUX_OFF) && !ps2_empty(&c->mouse.port)) {
        load(c, ps2_take(&c->mouse.port), true);
        ps2mouse_taken(&c->mouse);
    }
    update_irq(c);
}

static void on_device_ready(void *ctx)
{
    feed(ctx);
}

static void reply(struct i8042 *c, uint8_t byte, bool aux)
{
    c->reply = true;
    c->reply_aux = aux;
    c->reply_byte = byte;
}

static void write_outport(struct i8042 *c, uint8_t val)
{
    uint8_t changed = val ^ c->outport;
    c->outport = val;
    if (changed & OUT_A20)
        pin_set(&c->pins.a20, val & OUT_A20);
    if (!(val & OUT_RUN)) {
        pin_set(&c->pins.reset, true);
        pin_set(&c->pins.reset, false);
    }
}

static uint8_t read_outport(const struct i8042 *c)
{
    uint8_t val = c->outport & ~(OUT_KBD | OUT_AUX);
    if (c->status & STATUS_OBF)
        val |= c->status & STATUS_AUX ? OUT_AUX : OUT_KBD;
    return val;
}

static void set_mode(struct i8042 *c, uint8_t val)
{
    c->ram[0] = val;
    c->status = (c->status & ~STATUS_SYS) | (val & MODE_SYS ? STATUS_SYS : 0);
}

/* Commands that answer with one byte; false: not one of them. */
static bool query(struct i8042 *c, uint8_t cmd)
{
    switch (cmd) {
    case CMD_TEST_PASSWORD:
        reply(c, 0xf1, false); /* none is set */
        return true;
    case CMD_TEST_AUX:
    case CMD_TEST_KBD:
        reply(c, 0x00, false);
        return true;
    case CMD_SELF_TEST:
        c->status |= STATUS_SYS;
        reply(c, 0x55, false);
        return true;
    case CMD_READ_INPORT:
        reply(c, 0x80, false); /* the keyboard is not locked */
        return true;
    case CMD_READ_OUTPORT:
        reply(c, read_outport(c), false);
        return true;
    case CMD_READ_TEST:
        reply(c, 0x00, false);
        return true;
    default:
        return false;
    }
}

static void write_command(struct i8042 *c, uint8_t cmd)
{
    c->command = 0;
    c->status |= STATUS_CMD;
    if (cmd >= CMD_READ_RAM && cmd < CMD_READ_RAM + 32) {
        reply(c, c->ram[cmd & 31], false);
    } else if (cmd >= CMD_WRITE_RAM && cmd < CMD_WRITE_RAM + 32) {
        c->command = cmd;
    } else if (cmd >= CMD_PULSE) { /* bits 3-0 low: those lines of the output port pulse low */
        if (!(cmd & OUT_RUN)) {
            pin_set(&c->pins.reset, true);
            pin_set(&c->pins.reset, false);
            return;
        }
    } else if (!query(c, cmd)) {
        switch (cmd) {
        case CMD_AUX_OFF:
            c->ram[0] |= MODE_AUX_OFF;
            break;
        case CMD_AUX_ON:
            c->ram[0] &= ~MODE_AUX_OFF;
            break;
        case CMD_KBD_OFF:
            c->ram[0] |= MODE_KBD_OFF;
            break;
        case CMD_KBD_ON:
            c->ram[0] &= ~MODE_KBD_OFF;
            break;
        case CMD_WRITE_OUTPORT:
        case CMD_WRITE_KBD_BUFFER:
        case CMD_WRITE_AUX_BUFFER:
        case CMD_WRITE_AUX:
            c->command = cmd;
            break;
        case CMD_A20_OFF:
            write_outport(c, c->outport & ~OUT_A20);
            break;
        case CMD_A20_ON:
            write_outport(c, c->outport | OUT_A20);
            break;
        default: /* unknown: ignored, as the part does */
            break;
        }
    }
    feed(c);
}

static void write_data(struct i8042 *c, uint8_t val)
{
    uint8_t cmd = c->command;
    c->command = 0;
    c->status &= ~STATUS_CMD;
    switch (cmd) {
    case 0: /* sending to a device enables its interface */
        c->ram[0] &= ~MODE_KBD_OFF;
        ps2kbd_command(&c->kbd, val);
        break;
    case CMD_WRITE_AUX:
        c->ram[0] &= ~MODE_AUX_OFF;
        ps2mouse_command(&c->mouse, val);
        break;
    case CMD_WRITE_OUTPORT:
        write_outport(c, val);
        if (!(val & OUT_RUN)) /* a reset may have run */
            return;
        break;
    case CMD_WRITE_KBD_BUFFER:
    case CMD_WRITE_AUX_BUFFER:
        reply(c, val, cmd == CMD_WRITE_AUX_BUFFER);
        break;
    case CMD_WRITE_RAM:
        set_mode(c, val);
        break;
    default:
        c->ram[cmd & 31] = val;
    }
    feed(c);
}

static uint64_t data_read(void *dev, uint64_t off, unsigned size)
{
    struct i8042 *c = dev;
    uint8_t val = c->output;
    c->status &= ~(STATUS_OBF | STATUS_AUX);
    update_irq(c); /* low before the next byte raises it: the interrupt inputs want an edge */
    feed(c);
    return val;
}

static uint64_t status_read(void *dev, uint64_t off, unsigned size)
{
    const struct i8042 *c = dev;
    return c->status | STATUS_UNLOCK;
}

static void data_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    write_data(dev, (uint8_t)val);
}

static void command_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    write_command(dev, (uint8_t)val);
}

static void i8042_reset(void *dev)
{
    struct i8042 *c = dev;
    ps2kbd_reset(&c->kbd);
    ps2mouse_reset(&c->mouse);
    for (unsigned i = 0; i < sizeof c->ram; i++)
        c->ram[i] = 0;
    c->status = 0;
    c->output = c->command = 0;
    c->reply = c->break_prefix = false;
    set_mode(c, MODE_KBD_INT | MODE_AUX_INT | MODE_XLATE);
    c->outport = OUT_RESET_VALUE;
    pin_set(&c->pins.a20, true);
    update_irq(c);
}

void i8042_init(struct i8042 *c, const struct i8042_pins *pins)
{
    *c = (struct i8042){.pins = *pins};
    ps2kbd_init(&c->kbd);
    ps2mouse_init(&c->mouse);
    c->kbd.port.ready = c->mouse.port.ready = on_device_ready;
    c->kbd.port.ctx = c->mouse.port.ctx = c;
    i8042_reset(c);
}

static const struct io_ops data_ops = {"i8042-data", 1, data_read, data_write};
static const struct io_ops command_ops = {"i8042-command", 1, status_read, command_write};

static const struct chip_range ranges[] = {
    {true, 0x60, 1, &data_ops},
    {true, 0x64, 1, &command_ops},
    {0},
};

static const struct field fields[] = {
    FIELD_STRUCT(struct i8042, kbd, ps2kbd_fields),
    FIELD_STRUCT(struct i8042, mouse, ps2mouse_fields),
    FIELD_ARRAY(struct i8042, ram),
    FIELD(struct i8042, status),
    FIELD(struct i8042, output),
    FIELD(struct i8042, outport),
    FIELD(struct i8042, command),
    FIELD(struct i8042, break_prefix),
    FIELD(struct i8042, reply),
    FIELD(struct i8042, reply_aux),
    FIELD(struct i8042, reply_byte),
    FIELD_NONE(struct i8042, pins),
};
static const struct field_table table = FIELD_TABLE(struct i8042, "i8042", fields);

const struct chip_desc i8042_desc = {"i8042", i8042_reset, ranges, &table};
