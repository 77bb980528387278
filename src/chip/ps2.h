/*
 * ps2.h - what PS/2 keyboard and mouse share: the bytes on their way to the controller.
 *
 * Answers to a command go before reports, and a new command drops the answers to the last one.
 * Reports are bounded as in the real devices: 16 bytes.
 */
#ifndef SOSIA_CHIP_PS2_H
#define SOSIA_CHIP_PS2_H

#include "base/field.h"

#define PS2_REPORT_MAX 16
#define PS2_ANSWER_MAX 8

#define PS2_ACK    0xfa
#define PS2_BAT_OK 0xaa
#define PS2_RESEND 0xfe

struct ps2_port {
    uint8_t answer[PS2_ANSWER_MAX];
    unsigned answer_head, answers; /* [answer_head, answers) is to be sent */
    uint8_t report[PS2_REPORT_MAX];
    unsigned report_head, reports;
    uint8_t last; /* the byte sent last, for "resend" */
    /* The controller's: there is something to send. */
    void (*ready)(void *ctx);
    void *ctx;
};

extern const struct field_table ps2_port_fields;

static inline bool ps2_empty(const struct ps2_port *p)
{
    return p->answer_head == p->answers && !p->reports;
}

static inline unsigned ps2_report_room(const struct ps2_port *p)
{
    return PS2_REPORT_MAX - p->reports;
}

static inline void ps2_clear_answers(struct ps2_port *p)
{
    p->answer_head = p->answers = 0;
}

static inline void ps2_clear_reports(struct ps2_port *p)
{
    p->report_head = p->reports = 0;
}

/* Beyond the bound the byte is dropped. */
static inline void ps2_answer(struct ps2_port *p, uint8_t byte)
{
    if (p->answers < PS2_ANSWER_MAX)
        p->answer[p->answers++] = byte;
}

static inline void ps2_report(struct ps2_port *p, uint8_t byte)
{
    if (p->reports < PS2_REPORT_MAX)
        p->report[(p->report_head + p->reports++) % PS2_REPORT_MAX] = byte;
}

/* The next byte on the wire; 0 if there is none. */
static inline uint8_t ps2_take(struct ps2_port *p)
{
    if (p->answer_head < p->answers) {
        p->last = p->answer[p->answer_head++];
    } else if (p->reports) {
        p->last = p->report[p->report_head];
        p->report_head = (p->report_head + 1) % PS2_REPORT_MAX;
        p->reports--;
    } else {
        return 0;
    }
    return p->last;
}

static inline void ps2_notify(const struct ps2_port *p)
{
    if (p->ready && !ps2_empty(p))
        p->ready(p->ctx);
}

#endif
