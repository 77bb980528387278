/*
 * ide.c - the registers of an IDE channel: selection, status, interrupts, resets. The commands are
 * in ata.c and atapi.c, the data phases in ide_xfer.c.
 */
#include "chip/ide.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chip/ide_core.h"

#define CMD_DEVICE_RESET 0x08

static struct ide_drive *selected(struct ide_channel *ch)
{
    return &ch->drive[ch->sel];
}

/* ---- interrupts and the end of commands ---- */

static void update_irq(struct ide_channel *ch)
{
    pin_set(&ch->irq, ch->irq_pending && !(ch->control & CTL_NIEN));
}

void ide_raise(struct ide_channel *ch)
{
    ch->irq_pending = true;
    update_irq(ch);
}

static void lower(struct ide_channel *ch)
{
    ch->irq_pending = false;
    update_irq(ch);
}

void ide_tell(struct ide_channel *ch)
{
    if (ch->link.ended)
        ch->link.ended(ch->link.ctx, true);
    else
        ide_raise(ch);
}

static void end(struct ide_channel *ch, uint8_t error)
{
    struct ide_drive *d = ch->active;
    ch->active = NULL;
    ch->xfer.dir = IDE_IDLE;
    d->status = ST_DRDY | ST_DSC | (error ? ST_ERR : 0);
    d->error = error;
}

void ide_finish_quiet(struct ide_channel *ch)
{
    end(ch, 0);
    if (ch->link.ended)
        ch->link.ended(ch->link.ctx, false);
}

void ide_finish(struct ide_channel *ch)
{
    end(ch, 0);
    ide_tell(ch);
}

void ide_fail(struct ide_channel *ch, uint8_t error)
{
    end(ch, error);
    ide_tell(ch);
}

/* ---- resets ---- */

void ide_cancel(struct ide_channel *ch)
{
    ch->active = NULL;
    ch->deferred = NULL;
    ch->xfer.dir = IDE_IDLE;
    ch->io_stale = ch->io_busy;
}

void ide_signature(struct ide_drive *d)
{
    bool cd = d->kind == IDE_CDROM;
    d->reg[IDE_COUNT][0] = 1;
    d->reg[IDE_LBA0][0] = 1;
    d->reg[IDE_LBA1][0] = cd ? 0x14 : 0;
    d->reg[IDE_LBA2][0] = cd ? 0xeb : 0;
}

/* A packet device leaves DRDY clear after a reset, until its first command (9.11). */
void ide_drive_reset(struct ide_drive *d)
{
    memset(d->reg, 0, sizeof d->reg);
    d->status = 0;
    d->error = 0;
    if (d->kind == IDE_NONE)
        return;
    ide_signature(d);
    d->status = d->kind == IDE_CDROM ? 0 : ST_DRDY | ST_DSC;
    d->error = 1; /* diagnostics passed */
    d->multiple = 0;
    d->standby = false;
}

static void reset_both(struct ide_channel *ch)
{
    ide_cancel(ch);
    for (unsigned i = 0; i < 2; i++)
        ide_drive_reset(&ch->drive[i]);
    ch->sel = 0;
    lower(ch);
}

void ide_reset(struct ide_channel *ch)
{
    ch->control = 0;
    ch->dma_ready = false;
    for (unsigned i = 0; i < 2; i++) {
        struct ide_drive *d = &ch->drive[i];
        d->current = d->native;
        d->mode = 0x0c; /* PIO mode 4 */
        d->write_cache = true;
        d->look_ahead = true;
        d->smart = true;
        d->cd.locked = false;
        d->cd.key = d->cd.asc = d->cd.ascq = 0;
    }
    reset_both(ch);
}

static void control_write(struct ide_channel *ch, uint8_t val)
{
    uint8_t was = ch->control;
    ch->control = val & (CTL_HOB | CTL_SRST | CTL_NIEN);
    if (val & ~was & CTL_SRST) {
        reset_both(ch);
        for (unsigned i = 0; i < 2; i++)
            if (ch->drive[i].kind != IDE_NONE)
                ch->drive[i].status = ST_BSY;
    } else if (was & ~val & CTL_SRST) {
        reset_both(ch);
    }
    update_irq(ch);
}

/* ---- registers ---- */

static bool empty(const struct ide_channel *ch)
{
    return ch->drive[0].kind == IDE_NONE && ch->drive[1].kind == IDE_NONE;
}

/* Nobody drives an empty cable; a missing drive beside a present one reads as zero, but for the
 * device register, which the other answers (7.16.3 device 0 only configurations). */
static uint8_t reg_read(struct ide_channel *ch, unsigned reg)
{
    struct ide_drive *d = selected(ch);
    if (empty(ch))
        return 0xff;
    if (d->kind == IDE_NONE)
        return reg == IDE_DEVICE ? d->reg[IDE_DEVICE][0] : 0;
    if (d->status & ST_BSY && reg != IDE_DEVICE)
        return d->status; /* BSY hides the others (5.14.4) */
    switch (reg) {
    case IDE_FEATURE:
        return d->error;
    case IDE_STATUS:
        return d->status;
    case IDE_DEVICE:
        return d->reg[IDE_DEVICE][0];
    default:
        return d->reg[reg][ch->control & CTL_HOB ? 1 : 0];
    }
}

void ide_command(struct ide_channel *ch, uint8_t cmd)
{
    struct ide_drive *d = selected(ch);
    if (d->kind == IDE_NONE || (ch->control & CTL_SRST))
        return;
    if (cmd == CMD_DEVICE_RESET && d->kind == IDE_CDROM) {
        uint8_t device = d->reg[IDE_DEVICE][0];
        if (ch->active == d)
            ide_cancel(ch);
        ide_drive_reset(d);
        d->reg[IDE_DEVICE][0] = device & DEV_SEL;
        lower(ch);
        if (ch->link.ended)
            ide_tell(ch); /* on a cable the host looks by itself (6.13) */
        return;
    }
    if (ch->active || (d->status & (ST_BSY | ST_DRQ)))
        return;
    lower(ch);
    d->status = ST_BSY;
    d->error = 0;
    ch->active = d;
    ch->xfer = (struct ide_xfer){.dir = IDE_IDLE};
    ata_command(ch, cmd);
}

/* Both drives hear what is written (7.1); only the selected one runs commands. */
static void reg_write(struct ide_channel *ch, unsigned reg, uint8_t val)
{
    ch->control &= (uint8_t)~CTL_HOB;
    if (reg == IDE_STATUS) {
        ide_command(ch, val);
        return;
    }
    if (ch->active || (ch->control & CTL_SRST))
        return;
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *r = ch->drive[i].reg[reg];
        r[1] = r[0];
        r[0] = val;
    }
    if (reg == IDE_DEVICE)
        ch->sel = val & DEV_SEL ? 1 : 0;
}

static uint64_t command_read(void *dev, uint64_t off, unsigned size)
{
    struct ide_channel *ch = dev;
    uint64_t val = 0;
    if (off == IDE_DATA)
        return empty(ch) ? ~0ull : ide_data_read(ch, size);
    for (unsigned i = 0; i < size && off + i < IDE_REGS; i++) {
        val |= (uint64_t)reg_read(ch, (unsigned)off + i) << (8 * i);
        if (off + i == IDE_STATUS)
            lower(ch);
    }
    return val;
}

static void command_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct ide_channel *ch = dev;
    if (off == IDE_DATA) {
        ide_data_write(ch, (uint32_t)val, size);
        return;
    }
    for (unsigned i = 0; i < size && off + i < IDE_REGS; i++)
        reg_write(ch, (unsigned)off + i, (uint8_t)(val >> (8 * i)));
}

static uint64_t control_port_read(void *dev, uint64_t off, unsigned size)
{
    return reg_read(dev, IDE_STATUS); /* alternate status: leaves the interrupt pending */
}

static void control_port_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    control_write(dev, (uint8_t)val);
}

const struct io_ops ide_command_ops = {"ide", 1 | 2 | 4, command_read, command_write};
const struct io_ops ide_control_ops = {"ide control", 1, control_port_read, control_port_write};

/* ---- set-up ---- */

int ide_init(struct ide_channel *ch, struct pin irq, struct error *e)
{
    *ch = (struct ide_channel){.irq = irq};
    ch->drive[1].unit = 1;
    ch->buf = calloc(1, IDE_BUF_SIZE);
    if (!ch->buf)
        return error_set(e, ERR_NOMEM, "out of memory");
    ide_reset(ch);
    return 0;
}

void ide_fini(struct ide_channel *ch)
{
    free(ch->buf);
    ch->buf = NULL;
}

static void attach(struct ide_channel *ch, unsigned unit, enum ide_kind kind, struct blk *blk,
                   const char *model, const char *serial)
{
    struct ide_drive *d = &ch->drive[unit];
    d->kind = kind;
    d->blk = blk;
    snprintf(d->model, sizeof d->model, "%s", model);
    snprintf(d->serial, sizeof d->serial, "%s", serial);
}

void ide_attach_disk(struct ide_channel *ch, unsigned unit, struct blk *blk, const char *model,
                     const char *serial)
{
    struct ide_drive *d = &ch->drive[unit];
    attach(ch, unit, IDE_DISK, blk, model, serial);
    d->sectors = min_u64(blk->size / IDE_SECTOR, 1ull << 48);
    uint64_t cyls = min_u64(d->sectors / (16 * 63), 16383);
    d->native = (struct ide_geometry){(uint16_t)max_u64(cyls, 1), 16, 63};
    ide_reset(ch);
}

void ide_attach_cdrom(struct ide_channel *ch, unsigned unit, struct blk *blk, const char *model,
                      const char *serial)
{
    attach(ch, unit, IDE_CDROM, blk, model, serial);
    ide_reset(ch);
}

void ide_cdrom_change(struct ide_channel *ch, unsigned unit, struct blk *blk)
{
    struct ide_drive *d = &ch->drive[unit];
    bool had = d->blk;
    if (ch->active == d) { /* in the middle of a command: what it wanted is gone */
        ide_cancel(ch);
        ch->active = d;
        atapi_io_error(ch);
    }
    d->blk = blk;
    d->cd.tray_open = false;
    d->cd.attention = blk;
    d->cd.event = blk ? 2 : had ? 3 : 0;
}
