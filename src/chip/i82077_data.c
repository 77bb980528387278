/*
 * i82077_data.c - the 82077AA's data transfer commands.
 *
 * One sector at a time: begin_sector() checks where it is and gets a write's data, the back end
 * moves it, sector_done() hands over a read's data, next_sector() goes on or ends the command. In
 * non-DMA mode the guest's accesses to the data register sit between those steps.
 */
#include "chip/i82077_data.h"

#include "base/checked.h"

#include <string.h>

#define ST1_EN 0x80 /* beyond the last sector without terminal count */
#define ST1_DE 0x20 /* data error */
#define ST1_OR 0x10 /* overrun: nobody served the DMA request */
#define ST1_ND 0x04 /* no such sector */
#define ST1_NW 0x02 /* write-protected */
#define ST1_MA 0x01 /* nothing readable on this track */
#define ST2_CM 0x40 /* the other kind of data mark */
#define ST2_DD 0x20 /* data error in the data field */
#define ST2_WC 0x10 /* the ID's cylinder is another one */

#define OPCODE_MT    0x80
#define OPCODE_MFM   0x40
#define OPCODE_SK    0x20
#define OPCODE       0x1f
#define READ_TRACK   0x02
#define READ_DELETED 0x0c
#define VERIFY_EC    0x80 /* in the byte of the drive: DTL is a sector count */
#define DMA_CHANNEL  2
#define CODE_512     2 /* N: 128 << N bytes */

static void begin_sector(struct i82077 *f);

/* Every command of this group ends with these seven bytes. */
static void report(struct i82077 *f)
{
    const struct i82077_transfer *x = &f->x;
    const uint8_t r[7] = {
        (uint8_t)(x->st0 | x->head << 2 | x->drive), x->st1, x->st2, x->c, x->h, x->r, x->n};
    memcpy(f->result, r, sizeof r);
    i82077_finish(f, sizeof r, true);
}

static void submit(struct i82077 *f, enum blk_op op, uint64_t offset)
{
    struct blk *b = f->drive[f->x.drive].blk;
    f->iov = (struct iovec){f->buf, sizeof f->buf};
    f->req.op = op;
    f->req.offset = offset;
    f->req.len = op == BLK_FLUSH ? 0 : sizeof f->buf;
    f->req.iov = &f->iov;
    f->req.niov = op == BLK_FLUSH ? 0 : 1;
    f->inflight = true;
    blk_submit(b, &f->req);
}

/* The command is over. What it wrote is made durable before the guest hears of it. */
static void end(struct i82077 *f, uint8_t st1, uint8_t st2)
{
    struct i82077_transfer *x = &f->x;
    x->st1 |= st1;
    x->st2 |= st2;
    if (st1)
        x->st0 |= ST0_ABNORMAL;
    if (x->wrote && f->drive[x->drive].blk) {
        x->wrote = false;
        submit(f, BLK_FLUSH, 0);
        return;
    }
    report(f);
}

/* The medium under the heads, if it can be read at all; else NULL. */
static const struct i82077_geometry *readable(const struct i82077 *f)
{
    const struct i82077_drive *d = f->x.drive < 2 ? &f->drive[f->x.drive] : &f->drive[1];
    const struct i82077_geometry *g = d->geometry;
    bool mfm = f->command[0] & OPCODE_MFM;
    if (!d->present || !d->blk || !mfm || !(g->rates & 1u << f->rate) || f->x.head >= g->heads ||
        d->track >= g->tracks)
        return NULL;
    return g;
}

/* Finds sector c/h/r/n on the current track: its byte offset, or -1 after ending the command. */
static int64_t find_sector(struct i82077 *f)
{
    const struct i82077_transfer *x = &f->x;
    const struct i82077_geometry *g = readable(f);
    if (!g) {
        end(f, ST1_MA, 0);
        return -1;
    }
    const struct i82077_drive *d = &f->drive[x->drive];
    if (x->c != d->track) {
        end(f, ST1_ND, ST2_WC);
        return -1;
    }
    if (x->h != x->head || x->n != CODE_512 || !x->r || x->r > g->sectors) {
        end(f, ST1_ND, 0);
        return -1;
    }
    uint64_t lba = ((uint64_t)d->track * g->heads + x->head) * g->sectors + x->r - 1;
    uint64_t offset = lba * I82077_SECTOR;
    if (!range_within(offset, I82077_SECTOR, d->blk->size)) {
        end(f, ST1_ND, 0);
        return -1;
    }
    return (int64_t)offset;
}

static bool non_dma(const struct i82077 *f)
{
    return f->hlt_nd & SPECIFY_ND;
}

/* Moves `len` bytes of buf by DMA. False: the command was ended by an overrun. */
static bool dma(struct i82077 *f, size_t len, bool to_memory)
{
    size_t n = 0;
    if (f->dor & DOR_DMAGATE)
        n = i8237_transfer(f->dma, DMA_CHANNEL, f->buf, len, to_memory, &f->x.tc);
    if (n < len && !f->x.tc) {
        end(f, ST1_OR, 0);
        return false;
    }
    if (!to_memory)
        memset(f->buf + n, 0, sizeof f->buf - n);
    return true;
}

static void start_pio(struct i82077 *f, unsigned len, bool to_guest)
{
    f->pio_pos = 0;
    f->pio_len = len;
    f->pio_out = to_guest;
    i82077_raise(f, true);
}

/* The data for the sector to be written is in buf. */
static void write_sector(struct i82077 *f)
{
    if (f->x.op == I82077_FORMAT) {
        f->x.c = f->buf[0];
        f->x.h = f->buf[1];
        f->x.r = f->buf[2];
        f->x.n = f->buf[3];
        memset(f->buf, f->x.filler, sizeof f->buf);
    }
    int64_t offset = find_sector(f);
    if (offset < 0)
        return;
    f->x.wrote = true;
    submit(f, BLK_WRITE, (uint64_t)offset);
}

static void begin_write(struct i82077 *f)
{
    bool format = f->x.op == I82077_FORMAT;
    unsigned len = format ? 4 : I82077_SECTOR;
    if (!format && find_sector(f) < 0)
        return;
    if (non_dma(f))
        start_pio(f, len, false);
    else if (dma(f, len, false))
        write_sector(f);
}

static void begin_sector(struct i82077 *f)
{
    if (f->inflight) { /* the old command's request still uses the buffer */
        f->deferred = true;
        return;
    }
    if (f->x.op == I82077_WRITE || f->x.op == I82077_FORMAT) {
        begin_write(f);
        return;
    }
    int64_t offset = find_sector(f);
    if (offset >= 0)
        submit(f, BLK_READ, (uint64_t)offset);
}

/* Steps C, H, R to the sector that follows. True: there is none in this command. */
static bool advance(struct i82077_transfer *x)
{
    if (x->r != x->eot) {
        x->r++;
        return false;
    }
    x->r = 1;
    if (x->multi_track) {
        x->head ^= 1;
        x->h ^= 1;
        if (x->head)
            return false;
    }
    x->c++;
    return true;
}

static void next_sector(struct i82077 *f)
{
    struct i82077_transfer *x = &f->x;
    bool counted_out = x->counted && --x->left == 0;
    if (x->op == I82077_FORMAT) { /* the guest supplies each ID */
        if (counted_out || x->tc)
            end(f, 0, 0);
        else
            begin_sector(f);
        return;
    }
    struct i82077_transfer before = *x;
    bool last = advance(x), verify_all = x->op == I82077_VERIFY && !x->counted;
    if (x->tc || counted_out || x->deleted || (last && verify_all)) {
        x->head = before.head; /* ST0 names the side that was read last */
        end(f, 0, x->deleted ? ST2_CM : 0);
    } else if (last) { /* the IDs stay at the last sector */
        *x = before;
        end(f, ST1_EN, 0);
    } else {
        begin_sector(f);
    }
}

static void sector_done(struct i82077 *f)
{
    if (f->x.op == I82077_READ && non_dma(f))
        start_pio(f, I82077_SECTOR, true);
    else if (f->x.op != I82077_READ || dma(f, I82077_SECTOR, true))
        next_sector(f);
}

void i82077_pio_done(struct i82077 *f)
{
    bool out = f->pio_out;
    f->pio_len = 0;
    if (out)
        next_sector(f);
    else
        write_sector(f);
}

static void on_done(struct blk_req *req, int result)
{
    struct i82077 *f = req->arg;
    f->inflight = false;
    if (f->stale) {
        bool deferred = f->deferred;
        f->stale = f->deferred = false;
        if (deferred)
            begin_sector(f);
        return;
    }
    if (result < 0) {
        f->x.wrote = false; /* there is nothing more to promise */
        end(f, ST1_DE, ST2_DD);
    } else if (req->op == BLK_FLUSH) {
        report(f);
    } else {
        sector_done(f);
    }
}

void i82077_data_loaded(struct i82077 *f)
{
    f->req.done = on_done;
    f->req.arg = f;
}

/* Common to READ, WRITE and VERIFY: the nine command bytes. */
static void decode(struct i82077 *f, enum i82077_op op)
{
    const uint8_t *c = f->command;
    i82077_data_loaded(f);
    f->phase = I82077_EXECUTE;
    f->x = (struct i82077_transfer){
        .op = op,
        .drive = c[1] & 3,
        .head = c[1] >> 2 & 1,
        .c = c[2],
        .h = c[3],
        .r = c[4],
        .n = c[5],
        .eot = c[6],
        .multi_track = c[0] & OPCODE_MT,
    };
    if (f->config & CONFIG_EIS)
        i82077_step_to(f, f->x.drive, f->x.c);
}

void i82077_start_read(struct i82077 *f)
{
    uint8_t opcode = f->command[0] & OPCODE;
    decode(f, I82077_READ);
    if (opcode == READ_TRACK) { /* every sector from the index hole on, EOT of them */
        f->x.multi_track = false;
        f->x.r = 1;
        f->x.counted = true;
        f->x.left = f->x.eot ? f->x.eot : 256;
    }
    /* An image has no deleted sectors: with SK all are skipped, else the first one ends it. */
    f->x.deleted = opcode == READ_DELETED;
    if (f->x.deleted && (f->command[0] & OPCODE_SK))
        end(f, ST1_ND, ST2_CM);
    else
        begin_sector(f);
}

static bool write_protected(struct i82077 *f)
{
    const struct i82077_drive *d = &f->drive[f->x.drive & 1];
    if (f->x.drive > 1 || !d->blk || !d->blk->readonly)
        return false;
    end(f, ST1_NW, 0);
    return true;
}

/* WRITE DELETED DATA too: an image cannot keep the mark. */
void i82077_start_write(struct i82077 *f)
{
    decode(f, I82077_WRITE);
    if (!write_protected(f))
        begin_sector(f);
}

void i82077_start_verify(struct i82077 *f)
{
    decode(f, I82077_VERIFY);
    f->x.counted = f->command[1] & VERIFY_EC;
    f->x.left = f->command[8] ? f->command[8] : 256;
    begin_sector(f);
}

void i82077_start_format(struct i82077 *f)
{
    const uint8_t *c = f->command;
    decode(f, I82077_FORMAT);
    f->x.c = f->x.h = f->x.r = 0; /* meaningless in the result, but for N */
    f->x.n = c[2];
    f->x.eot = 0;
    f->x.multi_track = false;
    f->x.counted = true;
    f->x.left = c[3];
    f->x.filler = c[5];
    const struct i82077_geometry *g = readable(f);
    /* The image has the layout it has: another one cannot be formatted. */
    if (!g || f->x.n != CODE_512 || c[3] == 0 || c[3] > g->sectors)
        end(f, ST1_MA, 0);
    else if (!write_protected(f))
        begin_sector(f);
}

/* Reports the next ID under the head: the first one of the track will do. */
void i82077_start_read_id(struct i82077 *f)
{
    f->phase = I82077_EXECUTE;
    f->x = (struct i82077_transfer){
        .drive = f->command[1] & 3,
        .head = f->command[1] >> 2 & 1,
        .n = CODE_512,
    };
    if (!readable(f)) {
        end(f, ST1_MA, 0);
        return;
    }
    f->x.c = f->drive[f->x.drive].track;
    f->x.h = f->x.head;
    f->x.r = 1;
    end(f, 0, 0);
}
