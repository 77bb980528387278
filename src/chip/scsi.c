/* scsi.c - the way of a command through a logical unit, sense data, and the commands that every
 * unit has. Clauses are SPC-4's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "chip/scsi_core.h"

/* ---- sense data ---- */

/* 4.5.3: fixed format. */
static void put_sense(uint8_t *p, int sense)
{
    memset(p, 0, SCSI_SENSE_LEN);
    p[0] = 0x70;
    p[2] = (uint8_t)(sense >> 16);
    p[7] = SCSI_SENSE_LEN - 8;
    p[12] = (uint8_t)(sense >> 8);
    p[13] = (uint8_t)sense;
}

int scsi_take_attention(struct scsi_unit *u)
{
    static const struct {
        unsigned bit;
        int sense;
    } order[] = {{SCSI_UA_RESET, SENSE_RESET},
                 {SCSI_UA_MEDIUM, SENSE_NEW_MEDIUM},
                 {SCSI_UA_CAPACITY, SENSE_NEW_CAPACITY},
                 {SCSI_UA_MODE, SENSE_MODE_CHANGED}};
    for (unsigned i = 0; i < ARRAY_LEN(order); i++) {
        if (u->attention & order[i].bit) {
            u->attention &= ~order[i].bit;
            return order[i].sense;
        }
    }
    return 0;
}

int scsi_io_sense(enum blk_op op, int result)
{
    switch (result) {
    case 0:
        return 0;
    case -ENOSPC:
    case -EDQUOT:
        return SENSE_NO_SPACE;
    case -EROFS:
        return SENSE_PROTECTED;
    default:
        return op == BLK_READ ? SENSE_READ_ERROR : SENSE_WRITE_ERROR;
    }
}

void scsi_finish(struct scsi_req *r, int sense)
{
    free(r->buf);
    r->buf = NULL;
    r->status = sense ? SCSI_CHECK_CONDITION : SCSI_GOOD;
    if (sense)
        put_sense(r->sense, sense);
    r->done(r);
}

/* ---- data ---- */

int scsi_reply(struct scsi_req *r, const void *buf, uint32_t len, uint32_t alloc)
{
    const uint8_t *p = buf;
    uint64_t want = min_u64(len, alloc), room = r->to_target ? 0 : r->len;
    r->overrun = want > room;
    r->moved = want = min_u64(want, room);
    for (unsigned i = 0; i < r->niov && want; i++) {
        uint64_t n = min_u64(want, r->iov[i].iov_len);
        memcpy(r->iov[i].iov_base, p, n);
        dma_wrote(r->unit->mem, r->iov[i].iov_base, n);
        p += n;
        want -= n;
    }
    return 0;
}

bool scsi_take(struct scsi_req *r, void *buf, uint64_t len)
{
    uint8_t *p = buf;
    r->overrun = !r->to_target || len > r->len;
    if (r->overrun)
        return false;
    r->moved = len;
    for (unsigned i = 0; i < r->niov && len; i++) {
        uint64_t n = min_u64(len, r->iov[i].iov_len);
        memcpy(p, r->iov[i].iov_base, n);
        p += n;
        len -= n;
    }
    return true;
}

/* ---- requests ---- */

static void io_done(struct blk_req *io, int result)
{
    struct scsi_req *r = io->arg;
    if (io->op == BLK_READ)
        for (int i = 0; i < io->niov; i++)
            dma_wrote(r->unit->mem, io->iov[i].iov_base, io->iov[i].iov_len);
    scsi_finish(r, scsi_io_sense(io->op, result));
}

int scsi_submit(struct scsi_req *r, enum blk_op op, uint64_t offset, uint64_t len)
{
    r->io = (struct blk_req){.op = op, .offset = offset, .len = len, .done = io_done, .arg = r};
    if (op == BLK_WRITE_ZEROES) { /* WRITE SAME; its bit UNMAP */
        r->io.fua = !r->unit->write_cache;
        r->io.no_unmap = !(r->cdb[1] & 8);
    }
    blk_submit(r->unit->drive.blk, &r->io);
    return SCSI_WAIT;
}

/* The first pieces, `len` bytes. */
static unsigned cut(struct iovec *iov, unsigned niov, uint64_t len)
{
    unsigned i = 0;
    for (; i < niov && len; i++) {
        if (iov[i].iov_len > len)
            iov[i].iov_len = len;
        len -= iov[i].iov_len;
    }
    return i;
}

/* The end of the last sector of a CD may stick out of its file, and reads as zeroes. */
static uint64_t fill_tail(struct scsi_req *r, uint64_t offset, uint64_t len)
{
    uint64_t size = r->unit->drive.blk->size, off = 0;
    if (offset + len <= size)
        return len;
    uint64_t have = size - offset;
    for (unsigned i = 0; i < r->niov; i++) {
        uint64_t n = r->iov[i].iov_len, skip = off < have ? min_u64(have - off, n) : 0;
        uint8_t *p = (uint8_t *)r->iov[i].iov_base + skip;
        memset(p, 0, n - skip);
        dma_wrote(r->unit->mem, p, n - skip);
        off += n;
    }
    return have;
}

int scsi_transfer(struct scsi_req *r, bool write, uint64_t offset, uint64_t len, bool fua)
{
    if (!len)
        return 0;
    if (r->to_target != write || len > r->len) {
        r->overrun = true;
        return 0;
    }
    r->moved = len;
    r->niov = cut(r->iov, r->niov, len);
    if (!write) {
        len = fill_tail(r, offset, len);
        r->niov = cut(r->iov, r->niov, len);
    }
    r->io = (struct blk_req){.op = write ? BLK_WRITE : BLK_READ,
                             .offset = offset,
                             .len = len,
                             .iov = r->iov,
                             .niov = (int)r->niov,
                             .fua = write && (fua || !r->unit->write_cache),
                             .done = io_done,
                             .arg = r};
    blk_submit(r->unit->drive.blk, &r->io);
    return SCSI_WAIT;
}

/* ---- commands of every unit ---- */

static int succeed(struct scsi_req *r)
{
    return 0;
}

/* 6.39: sense data goes with the status, so what is left to tell is an attention. */
static int request_sense(struct scsi_req *r)
{
    uint8_t p[SCSI_SENSE_LEN];
    if (r->cdb[1] & 1) /* descriptor format */
        return SENSE_CDB_FIELD;
    put_sense(p, r->absent ? SENSE_NO_UNIT : scsi_take_attention(r->unit));
    return scsi_reply(r, p, sizeof p, r->cdb[4]);
}

/* 6.33: one logical unit, number 0. */
static int report_luns(struct scsi_req *r)
{
    uint8_t p[16] = {0};
    if (r->cdb[2] > 2)
        return SENSE_CDB_FIELD;
    bool well_known = r->cdb[2] == 1; /* only those, and there are none */
    store_be32(p, well_known ? 0 : 8);
    return scsi_reply(r, p, well_known ? 8 : 16, load_be32(r->cdb + 6));
}

/* ---- dispatch ---- */

enum { DISK = SCSI_F_DISK, CD = SCSI_F_CD, ANY = DISK | CD, MEDIUM = SCSI_F_MEDIUM };
enum { EVER = SCSI_F_ATTENTION | SCSI_F_ABSENT, WRITES = SCSI_F_DISK | SCSI_F_WRITE };

/* A code may stand for one command on disks and another one on CD-ROM drives. */
static const struct scsi_op ops[256] = {
    [0x00] = {succeed, ANY | MEDIUM}, /* TEST UNIT READY */
    [0x03] = {request_sense, ANY | EVER},
    [0x08] = {scsi_read_write, DISK},
    [0x0a] = {scsi_read_write, WRITES},
    [0x12] = {scsi_inquiry, ANY | EVER},
    [0x15] = {scsi_mode_select, DISK},
    [0x16] = {succeed, DISK}, /* RESERVE, RELEASE (6): there is one initiator */
    [0x17] = {succeed, DISK},
    [0x1a] = {scsi_mode_sense, ANY},
    [0x1b] = {scsi_cd_packet, ANY}, /* START STOP UNIT */
    [0x1e] = {scsi_cd_packet, ANY}, /* PREVENT ALLOW MEDIUM REMOVAL */
    [0x25] = {scsi_read_capacity10, ANY | MEDIUM},
    [0x28] = {scsi_read_write, ANY | MEDIUM},
    [0x2a] = {scsi_read_write, WRITES},
    [0x2b] = {scsi_cd_packet, CD | MEDIUM},
    [0x2f] = {scsi_verify, DISK},
    [0x35] = {scsi_synchronize, DISK},
    [0x41] = {scsi_write_same, WRITES},
    [0x42] = {scsi_unmap, WRITES},
    [0x43] = {scsi_cd_packet, CD | MEDIUM},
    [0x46] = {scsi_cd_packet, CD | SCSI_F_ATTENTION},
    [0x4a] = {scsi_cd_packet, CD | SCSI_F_ATTENTION},
    [0x51] = {scsi_cd_packet, CD | MEDIUM},
    [0x55] = {scsi_mode_select, DISK},
    [0x5a] = {scsi_mode_sense, ANY},
    [0x88] = {scsi_read_write, DISK},
    [0x8a] = {scsi_read_write, WRITES},
    [0x8f] = {scsi_verify, DISK},
    [0x91] = {scsi_synchronize, DISK},
    [0x93] = {scsi_write_same, WRITES},
    [0x9e] = {scsi_service_action_in, DISK},
    [0xa0] = {report_luns, ANY | EVER},
    [0xa8] = {scsi_read_write, ANY | MEDIUM},
    [0xaa] = {scsi_read_write, WRITES},
    [0xaf] = {scsi_verify, DISK},
    [0xbb] = {succeed, CD}, /* SET CD SPEED */
    [0xbd] = {scsi_cd_packet, CD},
    [0xbe] = {scsi_cd_packet, CD | MEDIUM},
};

static int execute(struct scsi_req *r)
{
    struct scsi_unit *u = r->unit;
    const struct scsi_op *op = &ops[r->cdb[0]];
    bool cd = u->drive.kind == IDE_CDROM;
    if (!op->run || !(op->flags & (cd ? SCSI_F_CD : SCSI_F_DISK)))
        return SENSE_OPCODE;
    if (r->absent && !(op->flags & SCSI_F_ABSENT))
        return SENSE_NO_UNIT;
    if (u->attention && !(op->flags & SCSI_F_ATTENTION))
        return scsi_take_attention(u);
    if (cd && (op->flags & SCSI_F_MEDIUM) && (!u->drive.blk || u->drive.cd.tray_open))
        return SENSE_NOT_READY;
    if ((op->flags & SCSI_F_WRITE) && u->drive.blk->readonly)
        return SENSE_PROTECTED;
    return op->run(r);
}

void scsi_run(struct scsi_req *r)
{
    r->moved = 0;
    r->overrun = false;
    r->buf = NULL;
    int sense = execute(r);
    if (sense != SCSI_WAIT)
        scsi_finish(r, sense);
}

/* ---- set-up ---- */

static void init(struct scsi_unit *u, struct space *mem, enum ide_kind kind, struct blk *blk,
                 const char *model, const char *serial, uint32_t block_size)
{
    *u = (struct scsi_unit){.mem = mem, .block_size = block_size};
    u->drive.kind = kind;
    u->drive.blk = blk;
    snprintf(u->drive.model, sizeof u->drive.model, "%s", model);
    snprintf(u->drive.serial, sizeof u->drive.serial, "%s", serial);
    scsi_reset(u);
}

/* The guest reads the new size when it has been told of it. */
static void resized(void *ctx)
{
    struct scsi_unit *u = ctx;
    u->attention |= SCSI_UA_CAPACITY;
    if (u->changed)
        u->changed(u->ctx);
}

void scsi_init_disk(struct scsi_unit *u, struct space *mem, struct blk *blk, const char *model,
                    const char *serial, uint32_t block_size)
{
    init(u, mem, IDE_DISK, blk, model, serial, block_size);
    blk->resized = resized;
    blk->ctx = u;
}

void scsi_init_cdrom(struct scsi_unit *u, struct space *mem, struct blk *blk, const char *model,
                     const char *serial)
{
    init(u, mem, IDE_CDROM, blk, model, serial, IDE_CD_SECTOR);
}

void scsi_reset(struct scsi_unit *u)
{
    u->attention = SCSI_UA_RESET;
    u->write_cache = true;
    u->drive.cd.locked = false;
}

static const struct field fields[] = {
    FIELD_STRUCT(struct scsi_unit, drive, ide_drive_fields),
    FIELD_NONE(struct scsi_unit, mem),
    FIELD(struct scsi_unit, block_size, .same = true),
    FIELD(struct scsi_unit, write_cache),
    FIELD(struct scsi_unit, attention, .max = 15),
    FIELD_NONE(struct scsi_unit, changed),
    FIELD_NONE(struct scsi_unit, ctx),
};
const struct field_table scsi_unit_fields = FIELD_TABLE(struct scsi_unit, "scsi_unit", fields);
