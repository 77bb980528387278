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

/* ---- state ---- */

/* What follows when all data went over: the functions that there are, by number. */
static ide_step *const done_steps[] = {
    NULL, ide_finish, ide_finish_quiet, ata_trim_ranges, atapi_packet_done, atapi_run_packet};

static uint64_t get_done(const void *dev)
{
    const struct ide_xfer *x = dev;
    uint64_t n = 0;
    while (n + 1 < ARRAY_LEN(done_steps) && done_steps[n] != x->done)
        n++;
    return n;
}

static bool set_done(void *dev, uint64_t v)
{
    struct ide_xfer *x = dev;
    if (v < ARRAY_LEN(done_steps))
        x->done = done_steps[v];
    return v < ARRAY_LEN(done_steps);
}

/* 0: no command is in progress; else the drive's number and one. */
static uint64_t get_active(const void *dev)
{
    const struct ide_channel *ch = dev;
    return ch->active ? (uint64_t)(ch->active - ch->drive) + 1 : 0;
}

static bool set_active(void *dev, uint64_t v)
{
    struct ide_channel *ch = dev;
    ch->active = v ? &ch->drive[v - 1] : NULL;
    return true;
}

/* Is the transfer in `reply`? It is in `buf` otherwise. */
static uint64_t get_data(const void *dev)
{
    const struct ide_xfer *x = dev;
    const uint8_t *reply = (const uint8_t *)x - offsetof(struct ide_channel, xfer) +
                           offsetof(struct ide_channel, reply);
    return x->data == reply;
}

static bool set_data(void *dev, uint64_t v)
{
    struct ide_channel *ch = CONTAINER_OF(dev, struct ide_channel, xfer);
    ch->xfer.data = v ? ch->reply : ch->buf;
    return true;
}

/* Bytes of `buf` that mean something. */
static void pre_save(void *dev)
{
    struct ide_channel *ch = dev;
    bool used = ch->active && ch->xfer.data == ch->buf;
    ch->saved = used ? ch->xfer.len : 0;
}

static bool disk_step(ide_step *s)
{
    return s == ide_finish || s == ide_finish_quiet || s == ata_trim_ranges;
}

static bool packet_step(ide_step *s)
{
    return s == ide_finish || s == ide_finish_quiet || s == atapi_packet_done ||
           s == atapi_run_packet;
}

/* A command in progress waits for the guest, as no request is in flight. */
static bool xfer_valid(const struct ide_channel *ch)
{
    const struct ide_xfer *x = &ch->xfer;
    const struct ide_drive *d = ch->active;
    uint32_t room = x->data == ch->reply ? IDE_REPLY_SIZE : IDE_BUF_SIZE;
    if (!d)
        return x->dir == IDE_IDLE;
    if (x->dir == IDE_IDLE || !x->host_turn || ch->link.ended || x->len > room)
        return false;
    if (x->pos >= x->len || x->block_end > x->len ||
        (!x->dma && (!x->block || x->pos >= x->block_end)))
        return false;
    if (x->left && (x->data == ch->reply || (x->dir == IDE_OUT && x->len > x->left)))
        return false;
    if (d->kind == IDE_CDROM)
        return packet_step(x->done) && !(x->dir == IDE_OUT && x->left);
    return d->kind == IDE_DISK && disk_step(x->done);
}

static int post_load(void *dev, struct error *e)
{
    struct ide_channel *ch = dev;
    uint32_t ranges = IDE_BUF_SIZE / 8;
    for (unsigned i = 0; i < 2; i++) { /* numbers of sectors are divided by these */
        const struct ide_drive *d = &ch->drive[i];
        if (d->kind == IDE_DISK && (!d->current.heads || !d->current.sectors))
            return error_set(e, ERR_FORMAT, "drive[%u]: current: is no geometry", i);
    }
    if (!xfer_valid(ch) || ch->trim_next > ch->trim_end || ch->trim_end > ranges)
        return error_set(e, ERR_FORMAT, "xfer: is no transfer that the drive could be in");
    return 0;
}

static const struct field geometry_fields[] = {
    FIELD(struct ide_geometry, cyls),
    FIELD(struct ide_geometry, heads),
    FIELD(struct ide_geometry, sectors),
};
static const struct field_table geometry_table =
    FIELD_TABLE(struct ide_geometry, "ide_geometry", geometry_fields);

static const struct field cd_fields[] = {
    FIELD(struct ide_cd, key),       FIELD(struct ide_cd, asc),    FIELD(struct ide_cd, ascq),
    FIELD(struct ide_cd, attention), FIELD(struct ide_cd, locked), FIELD(struct ide_cd, tray_open),
    FIELD(struct ide_cd, event),
};
static const struct field_table cd_table = FIELD_TABLE(struct ide_cd, "ide_cd", cd_fields);

static const struct field ncq_error_fields[] = {
    FIELD(struct ata_ncq_error, tag),   FIELD(struct ata_ncq_error, status),
    FIELD(struct ata_ncq_error, error), FIELD(struct ata_ncq_error, device),
    FIELD(struct ata_ncq_error, lba),   FIELD(struct ata_ncq_error, count),
};
static const struct field_table ncq_error_table =
    FIELD_TABLE(struct ata_ncq_error, "ata_ncq_error", ncq_error_fields);

static const struct field drive_fields[] = {
    FIELD(struct ide_drive, kind, .same = true),
    FIELD_NONE(struct ide_drive, sata),
    FIELD_STRUCT(struct ide_drive, ncq_error, ncq_error_table),
    FIELD_NONE(struct ide_drive, unit),
    FIELD_NONE(struct ide_drive, blk),
    FIELD_NONE(struct ide_drive, model),
    FIELD_NONE(struct ide_drive, serial),
    FIELD_ARRAY2(struct ide_drive, reg),
    FIELD(struct ide_drive, status),
    FIELD(struct ide_drive, error),
    FIELD(struct ide_drive, sectors),
    FIELD_NONE(struct ide_drive, native), /* of the disk's size when it was attached */
    FIELD_STRUCT(struct ide_drive, current, geometry_table),
    FIELD(struct ide_drive, multiple),
    FIELD(struct ide_drive, mode),
    FIELD(struct ide_drive, write_cache),
    FIELD(struct ide_drive, look_ahead),
    FIELD(struct ide_drive, smart),
    FIELD(struct ide_drive, standby),
    FIELD_STRUCT(struct ide_drive, cd, cd_table),
};
const struct field_table ide_drive_fields =
    FIELD_TABLE(struct ide_drive, "ide_drive", drive_fields);

static const struct field xfer_fields[] = {
    FIELD(struct ide_xfer, dir, .max = IDE_OUT),
    FIELD(struct ide_xfer, dma),
    FIELD(struct ide_xfer, packet),
    FIELD(struct ide_xfer, quiet),
    FIELD(struct ide_xfer, flush),
    FIELD(struct ide_xfer, host_turn),
    FIELD(struct ide_xfer, offset),
    FIELD(struct ide_xfer, left),
    FIELD_VALUE(struct ide_xfer, data, get_data, set_data, .max = 1),
    FIELD(struct ide_xfer, len, .max = IDE_BUF_SIZE),
    FIELD(struct ide_xfer, pos, .max = IDE_BUF_SIZE),
    FIELD(struct ide_xfer, block),
    FIELD(struct ide_xfer, block_end, .max = IDE_BUF_SIZE),
    FIELD_VALUE(struct ide_xfer, done, get_done, set_done),
};
static const struct field_table xfer_table = FIELD_TABLE(struct ide_xfer, "ide_xfer", xfer_fields);

static const struct field channel_fields_fields[] = {
    FIELD_STRUCTS(struct ide_channel, drive, ide_drive_fields),
    FIELD_NONE(struct ide_channel, irq),
    FIELD_NONE(struct ide_channel, dma),
    FIELD_NONE(struct ide_channel, link),
    FIELD(struct ide_channel, dma_ready),
    FIELD(struct ide_channel, sel, .max = 1),
    FIELD(struct ide_channel, control),
    FIELD(struct ide_channel, irq_pending),
    FIELD_VALUE(struct ide_channel, active, get_active, set_active, .max = 2),
    FIELD_STRUCT(struct ide_channel, xfer, xfer_table),
    FIELD_ARRAY(struct ide_channel, reply),
    FIELD(struct ide_channel, saved, .max = IDE_BUF_SIZE),
    FIELD_BUFFER(struct ide_channel, buf, saved, IDE_BUF_SIZE),
    FIELD_NONE(struct ide_channel, req), /* the disks are drained before the state is saved */
    FIELD_NONE(struct ide_channel, iov),
    FIELD_NONE(struct ide_channel, io_busy),
    FIELD_NONE(struct ide_channel, io_stale),
    FIELD_NONE(struct ide_channel, io_next),
    FIELD_NONE(struct ide_channel, deferred),
    FIELD(struct ide_channel, trim_next),
    FIELD(struct ide_channel, trim_end),
};
const struct field_table ide_fields =
    FIELD_TABLE(struct ide_channel, "ide_channel", channel_fields_fields, .pre_save = pre_save,
                .post_load = post_load);
