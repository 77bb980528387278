/* ps2mouse.c - see ps2mouse.h. */
#include "chip/ps2mouse.h"

enum command {
    CMD_SCALE_1_1 = 0xe6,
    CMD_SCALE_2_1 = 0xe7,
    CMD_RESOLUTION = 0xe8,
    CMD_STATUS = 0xe9,
    CMD_STREAM = 0xea,
    CMD_READ = 0xeb,
    CMD_WRAP_END = 0xec,
    CMD_WRAP = 0xee,
    CMD_REMOTE = 0xf0,
    CMD_ID = 0xf2,
    CMD_RATE = 0xf3,
    CMD_ENABLE = 0xf4,
    CMD_DISABLE = 0xf5,
    CMD_DEFAULTS = 0xf6,
    CMD_RESEND = 0xfe,
    CMD_RESET = 0xff,
};

#define MOVE_MAX 32767

static void defaults(struct ps2mouse *m)
{
    m->rate = 100;
    m->resolution = 2; /* 4 counts per mm */
    m->reporting = m->remote = m->scaling = m->wrap = false;
    m->pending = 0;
    m->dx = m->dy = m->dz = 0;
    ps2_clear_reports(&m->port);
}

void ps2mouse_reset(struct ps2mouse *m)
{
    defaults(m);
    ps2_clear_answers(&m->port);
    m->id = 0;
    m->rates[0] = m->rates[1] = m->rates[2] = 0;
}

void ps2mouse_init(struct ps2mouse *m)
{
    *m = (struct ps2mouse){0};
    ps2mouse_reset(m);
}

/* Takes what fits into [min, max] off an accumulator. */
static int take(int *acc, int min, int max)
{
    int v = *acc < min ? min : *acc > max ? max : *acc;
    *acc -= v;
    return v;
}

/* 2:1 scaling of small counts is a table (IBM, "Set Scaling 2:1"). */
static int scaled(const struct ps2mouse *m, int v)
{
    static const uint8_t small[6] = {0, 1, 1, 3, 6, 9};
    if (!m->scaling || m->remote)
        return v;
    int a = v < 0 ? -v : v;
    int s = a < 6 ? small[a] : 2 * a;
    s = s > 255 ? 255 : s;
    return v < 0 ? -s : s;
}

/* Builds a packet of 3 or 4 bytes from what has accumulated. */
static unsigned build_packet(struct ps2mouse *m, uint8_t *p)
{
    int x = scaled(m, take(&m->dx, -255, 255)), y = scaled(m, take(&m->dy, -255, 255));
    p[0] = (uint8_t)((m->buttons & 7) | 0x08 | (x < 0) << 4 | (y < 0) << 5);
    p[1] = (uint8_t)x;
    p[2] = (uint8_t)y;
    m->reported = m->buttons;
    switch (m->id) {
    case 3:
        p[3] = (uint8_t)take(&m->dz, -127, 127);
        return 4;
    case 4:
        p[3] = (uint8_t)((take(&m->dz, -8, 7) & 0x0f) | (m->buttons & 0x18) << 1);
        return 4;
    default:
        m->dz = 0;
        return 3;
    }
}

/* In stream mode movement waits until the last packet is gone, so that it is fresh; a change of
 * the buttons is put in line at once, so that no click is lost. */
static void stream(struct ps2mouse *m)
{
    uint8_t packet[4];
    bool clicked = m->buttons != m->reported, moved = m->dx || m->dy || m->dz;
    if (!m->reporting || m->remote || m->wrap || !(clicked || (moved && !m->port.reports)))
        return;
    if (ps2_report_room(&m->port) < sizeof packet)
        return;
    unsigned len = build_packet(m, packet);
    for (unsigned i = 0; i < len; i++)
        ps2_report(&m->port, packet[i]);
}

static int clamp_add(int a, int b)
{
    int64_t v = (int64_t)a + b;
    return (int)(v > MOVE_MAX ? MOVE_MAX : v < -MOVE_MAX ? -MOVE_MAX : v);
}

void ps2mouse_event(struct ps2mouse *m, int dx, int dy, int wheel, unsigned buttons)
{
    m->buttons = buttons & 0x1f;
    if (!m->reporting && !m->remote)
        return;
    m->dx = clamp_add(m->dx, dx);
    m->dy = clamp_add(m->dy, dy < -MOVE_MAX ? MOVE_MAX : -dy);
    m->dz = clamp_add(m->dz, wheel < -MOVE_MAX ? MOVE_MAX : -wheel);
    stream(m);
    ps2_notify(&m->port);
}

void ps2mouse_taken(struct ps2mouse *m)
{
    stream(m);
}

static void answer_status(struct ps2mouse *m)
{
    uint8_t b = m->buttons;
    ps2_answer(&m->port, (uint8_t)(m->remote << 6 | m->reporting << 5 | m->scaling << 4 |
                                   !!(b & PS2MOUSE_LEFT) << 2 | !!(b & PS2MOUSE_MIDDLE) << 1 |
                                   !!(b & PS2MOUSE_RIGHT)));
    ps2_answer(&m->port, m->resolution);
    ps2_answer(&m->port, m->rate);
}

/* 200, 100, 80 unlocks the wheel; after that 200, 200, 80 unlocks five buttons. */
static void set_rate(struct ps2mouse *m, uint8_t rate)
{
    m->rate = rate;
    m->rates[0] = m->rates[1];
    m->rates[1] = m->rates[2];
    m->rates[2] = rate;
    if (m->rates[0] != 200 || m->rates[2] != 80)
        return;
    if (m->rates[1] == 100 && m->id == 0)
        m->id = 3;
    else if (m->rates[1] == 200 && m->id == 3)
        m->id = 4;
}

static void parameter(struct ps2mouse *m, uint8_t byte)
{
    uint8_t command = m->pending;
    m->pending = 0;
    if (command == CMD_RESOLUTION ? byte > 3 : byte < 10 || byte > 200) {
        ps2_answer(&m->port, PS2_RESEND);
        return;
    }
    if (command == CMD_RESOLUTION)
        m->resolution = byte;
    else
        set_rate(m, byte);
    ps2_answer(&m->port, PS2_ACK);
}

/* Commands that only change a mode; false: not one of them. */
static bool mode_command(struct ps2mouse *m, uint8_t byte)
{
    switch (byte) {
    case CMD_SCALE_1_1:
    case CMD_SCALE_2_1:
        m->scaling = byte == CMD_SCALE_2_1;
        return true;
    case CMD_RESOLUTION:
    case CMD_RATE:
        m->pending = byte;
        return true;
    case CMD_STREAM:
    case CMD_REMOTE:
        m->remote = byte == CMD_REMOTE;
        ps2_clear_reports(&m->port);
        return true;
    case CMD_WRAP:
        m->wrap = true;
        return true;
    case CMD_WRAP_END:
        m->wrap = false;
        return true;
    case CMD_ENABLE:
    case CMD_DISABLE:
        m->reporting = byte == CMD_ENABLE;
        m->dx = m->dy = m->dz = 0;
        m->reported = m->buttons;
        ps2_clear_reports(&m->port);
        return true;
    case CMD_DEFAULTS:
        defaults(m);
        return true;
    default:
        return false;
    }
}

static void command(struct ps2mouse *m, uint8_t byte)
{
    uint8_t packet[4];
    if (byte == CMD_RESEND) {
        ps2_answer(&m->port, m->port.last);
        return;
    }
    if (byte == CMD_RESET)
        ps2mouse_reset(m);
    bool done = mode_command(m, byte);
    bool query = byte == CMD_RESET || byte == CMD_ID || byte == CMD_STATUS || byte == CMD_READ;
    ps2_answer(&m->port, done || query ? PS2_ACK : PS2_RESEND);
    switch (byte) {
    case CMD_RESET:
        ps2_answer(&m->port, PS2_BAT_OK);
        ps2_answer(&m->port, m->id);
        break;
    case CMD_ID:
        ps2_answer(&m->port, m->id);
        break;
    case CMD_STATUS:
        answer_status(m);
        break;
    case CMD_READ:
        for (unsigned i = 0, len = build_packet(m, packet); i < len; i++)
            ps2_answer(&m->port, packet[i]);
        break;
    default:
        break;
    }
}

void ps2mouse_command(struct ps2mouse *m, uint8_t byte)
{
    ps2_clear_answers(&m->port);
    if (m->wrap && byte != CMD_WRAP_END && byte != CMD_RESET)
        ps2_answer(&m->port, byte);
    else if (m->pending)
        parameter(m, byte);
    else
        command(m, byte);
    ps2_notify(&m->port);
}

/* ---- state ---- */

/* Movement is summed up, and reported in pieces. */
#define FAR (1 << 28)

static int post_load(void *dev, struct error *e)
{
    const struct ps2mouse *m = dev;
    if (m->dx < -FAR || m->dx > FAR || m->dy < -FAR || m->dy > FAR || m->dz < -FAR || m->dz > FAR)
        return error_set(e, ERR_FORMAT, "dx, dy, dz: are out of range");
    return 0;
}

static const struct field fields[] = {
    FIELD_STRUCT(struct ps2mouse, port, ps2_port_fields),
    FIELD(struct ps2mouse, pending),
    FIELD(struct ps2mouse, id, .max = 4),
    FIELD_ARRAY(struct ps2mouse, rates),
    FIELD(struct ps2mouse, rate),
    FIELD(struct ps2mouse, resolution),
    FIELD(struct ps2mouse, reporting),
    FIELD(struct ps2mouse, remote),
    FIELD(struct ps2mouse, scaling),
    FIELD(struct ps2mouse, wrap),
    FIELD(struct ps2mouse, dx),
    FIELD(struct ps2mouse, dy),
    FIELD(struct ps2mouse, dz),
    FIELD(struct ps2mouse, buttons, .max = 31),
    FIELD(struct ps2mouse, reported, .max = 31),
};
const struct field_table ps2mouse_fields =
    FIELD_TABLE(struct ps2mouse, "ps2mouse", fields, .post_load = post_load);
