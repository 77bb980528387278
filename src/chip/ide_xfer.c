/*
 * ide_xfer.c - data phases: between the guest (data port or bus master) and a buffer, and between
 * the buffer and the disk.
 *
 * A transfer alternates between two turns, until the command's bytes are used up:
 *
 *           IN: fill `data` from the disk              OUT: empty `data` to the disk
 *   disk's turn ------------------------> host's turn ------------------------> disk's turn
 *                     (busy)            PIO: block by block, DRQ and INTRQ for each
 *                                       DMA: as far as the bus master's list reaches
 *
 * Over a link (ide.h) all data goes the way of DMA. Commands without a disk behind them (IDENTIFY,
 * most packets) have one host's turn on ch->reply. Every function here that hands over a turn does
 * so last: a back end may complete at once.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "chip/ide_core.h"

/* ---- disk requests ---- */

static void io_done(struct blk_req *req, int result)
{
    struct ide_channel *ch = req->arg;
    ch->io_busy = false;
    if (!ch->io_stale) {
        ch->io_next(ch, result);
        return;
    }
    ch->io_stale = false;
    ide_step *step = ch->deferred;
    ch->deferred = NULL;
    if (step)
        step(ch);
}

/* Only while no request is in flight: see ide_when_idle(). */
void ide_io(struct ide_channel *ch, enum blk_op op, uint64_t offset, uint64_t len,
            void (*next)(struct ide_channel *ch, int result))
{
    ch->iov = (struct iovec){.iov_base = ch->buf, .iov_len = len};
    ch->req = (struct blk_req){
        .op = op,
        .offset = offset,
        .len = len,
        .done = io_done,
        .arg = ch,
    };
    if (op == BLK_READ || op == BLK_WRITE) {
        ch->req.iov = &ch->iov;
        ch->req.niov = 1;
    }
    ch->io_next = next;
    ch->io_busy = true;
    blk_submit(ch->active->blk, &ch->req);
}

void ide_when_idle(struct ide_channel *ch, ide_step *step)
{
    if (ch->io_busy)
        ch->deferred = step;
    else
        step(ch);
}

static void io_error(struct ide_channel *ch)
{
    if (ch->active->kind == IDE_CDROM)
        atapi_io_error(ch);
    else
        ata_io_error(ch);
}

/* ---- the host's turn ---- */

static void host_turn(struct ide_channel *ch);
static void disk_turn(struct ide_channel *ch);

/* Shows the guest the next block at the data port. */
static void pio_block(struct ide_channel *ch)
{
    struct ide_xfer *x = &ch->xfer;
    struct ide_drive *d = ch->active;
    uint32_t n = (uint32_t)min_u64(x->block, x->len - x->pos);
    x->block_end = x->pos + n;
    if (x->packet) {
        d->reg[IDE_COUNT][0] = x->dir == IDE_IN ? IR_IO : 0;
        d->reg[IDE_LBA1][0] = (uint8_t)n;
        d->reg[IDE_LBA2][0] = (uint8_t)(n >> 8);
    }
    d->status = ST_DRDY | ST_DSC | ST_DRQ;
    bool quiet = x->quiet;
    x->quiet = false;
    if (!quiet)
        ide_raise(ch);
}

static void data_over(struct ide_channel *ch)
{
    struct ide_xfer *x = &ch->xfer;
    x->host_turn = false;
    ch->active->status = ST_BSY;
    if (x->left)
        disk_turn(ch);
    else
        x->done(ch);
}

static void dma_run(struct ide_channel *ch)
{
    struct ide_xfer *x = &ch->xfer;
    if (!ch->dma_ready || !ch->dma.move)
        return;
    uint32_t n = x->len - x->pos;
    size_t moved = ch->dma.move(ch->dma.ctx, x->data + x->pos, n, x->dir == IDE_IN);
    x->pos += (uint32_t)min_u64(moved, n);
    if (x->pos == x->len) {
        data_over(ch);
        return;
    }
    ch->dma_ready = false;
    if (ch->link.ended) /* there will be no further list */
        ide_fail(ch, ER_ABRT);
}

static void host_turn(struct ide_channel *ch)
{
    struct ide_xfer *x = &ch->xfer;
    x->host_turn = true;
    x->pos = 0;
    if (x->dma || ch->link.ended)
        dma_run(ch);
    else
        pio_block(ch);
}

void ide_dma_start(struct ide_channel *ch)
{
    ch->dma_ready = true;
    if (ch->active && ch->xfer.dir != IDE_IDLE && ch->xfer.dma && ch->xfer.host_turn)
        dma_run(ch);
}

void ide_dma_stop(struct ide_channel *ch)
{
    ch->dma_ready = false;
}

/* ---- the disk's turn ---- */

static uint32_t chunk(const struct ide_xfer *x)
{
    return (uint32_t)min_u64(x->left, IDE_BUF_SIZE);
}

static void filled(struct ide_channel *ch, int result)
{
    struct ide_xfer *x = &ch->xfer;
    if (result < 0) {
        io_error(ch);
        return;
    }
    x->len = chunk(x);
    x->offset += x->len;
    x->left -= x->len;
    host_turn(ch);
}

/* The last sector of a CD may stick out of a file that is a multiple of 512 bytes only. */
static void fill(struct ide_channel *ch)
{
    struct ide_xfer *x = &ch->xfer;
    const struct blk *blk = ch->active->blk;
    if (!blk || x->offset >= blk->size) {
        io_error(ch);
        return;
    }
    uint64_t n = min_u64(chunk(x), blk->size - x->offset);
    memset(ch->buf + n, 0, chunk(x) - n);
    ide_io(ch, BLK_READ, x->offset, n, filled);
}

static void flushed(struct ide_channel *ch, int result)
{
    if (result < 0)
        io_error(ch);
    else
        ide_finish(ch);
}

static void flush_now(struct ide_channel *ch)
{
    ide_io(ch, BLK_FLUSH, 0, 0, flushed);
}

void ide_flush(struct ide_channel *ch)
{
    ide_when_idle(ch, flush_now);
}

static void emptied(struct ide_channel *ch, int result)
{
    struct ide_xfer *x = &ch->xfer;
    if (result < 0) {
        io_error(ch);
        return;
    }
    x->offset += x->len;
    x->left -= x->len;
    if (x->left) {
        x->len = chunk(x);
        host_turn(ch);
    } else if (x->flush) {
        flush_now(ch);
    } else {
        x->done(ch);
    }
}

static void disk_turn(struct ide_channel *ch)
{
    const struct ide_xfer *x = &ch->xfer;
    if (x->dir == IDE_IN)
        fill(ch);
    else if (range_within(x->offset, x->len, ch->active->blk->size))
        ide_io(ch, BLK_WRITE, x->offset, x->len, emptied);
    else
        io_error(ch); /* the disk has become smaller */
}

/* ---- starting ---- */

static void begin(struct ide_channel *ch)
{
    struct ide_xfer *x = &ch->xfer;
    if (x->dir == IDE_IN) {
        fill(ch);
    } else {
        x->len = chunk(x);
        host_turn(ch);
    }
}

void ide_xfer_disk(struct ide_channel *ch, uint64_t offset, uint64_t len)
{
    struct ide_xfer *x = &ch->xfer;
    x->data = ch->buf;
    x->offset = offset;
    x->left = len;
    ide_when_idle(ch, begin);
}

void ide_xfer_take(struct ide_channel *ch, uint32_t len)
{
    struct ide_xfer *x = &ch->xfer;
    x->dir = IDE_OUT;
    x->data = ch->buf;
    x->left = 0;
    x->len = len;
    ide_when_idle(ch, host_turn);
}

void ide_xfer_reply(struct ide_channel *ch, uint32_t len)
{
    struct ide_xfer *x = &ch->xfer;
    x->data = ch->reply;
    x->left = 0;
    x->len = len;
    host_turn(ch);
}

/* ---- the data port ---- */

static bool port_open(const struct ide_channel *ch, enum ide_dir dir)
{
    const struct ide_xfer *x = &ch->xfer;
    return ch->active == &ch->drive[ch->sel] && x->dir == dir && !x->dma && x->host_turn;
}

static void port_advance(struct ide_channel *ch)
{
    struct ide_xfer *x = &ch->xfer;
    if (x->pos < x->block_end)
        return;
    if (x->pos < x->len)
        pio_block(ch);
    else
        data_over(ch);
}

/* A block of an odd length ends within a word; the rest of the word is padding. */
uint32_t ide_data_read(struct ide_channel *ch, unsigned size)
{
    struct ide_xfer *x = &ch->xfer;
    uint32_t val = 0;
    if (!port_open(ch, IDE_IN))
        return 0;
    for (unsigned i = 0; i < size && x->pos < x->block_end; i++)
        val |= (uint32_t)x->data[x->pos++] << (8 * i);
    port_advance(ch);
    return val;
}

void ide_data_write(struct ide_channel *ch, uint32_t val, unsigned size)
{
    struct ide_xfer *x = &ch->xfer;
    if (!port_open(ch, IDE_OUT))
        return;
    for (unsigned i = 0; i < size && x->pos < x->block_end; i++)
        x->data[x->pos++] = (uint8_t)(val >> (8 * i));
    port_advance(ch);
}
