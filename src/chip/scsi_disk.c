/* scsi_disk.c - commands on blocks. Clauses are SBC-3's. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "chip/atapi_reply.h"
#include "chip/scsi_core.h"

#define SAME_BUF (64 * KIB) /* a pattern, repeated, for WRITE SAME */

uint64_t scsi_blocks(const struct scsi_unit *u)
{
    return u->drive.kind == IDE_CDROM ? atapi_sectors(&u->drive)
                                      : u->drive.blk->size / u->block_size;
}

/* The length of a command follows from its code (SPC-4, 4.2.5.1). */
static void decode_cdb(const uint8_t *c, uint64_t *lba, uint32_t *count)
{
    switch (c[0] >> 5) {
    case 0: /* 6 bytes; 0 blocks are 256 */
        *lba = load_be32(c) & 0x1fffff;
        *count = c[4] ? c[4] : 256;
        break;
    case 4: /* 16 */
        *lba = load_be64(c + 2);
        *count = load_be32(c + 10);
        break;
    case 5: /* 12 */
        *lba = load_be32(c + 2);
        *count = load_be32(c + 6);
        break;
    default: /* 10 */
        *lba = load_be32(c + 2);
        *count = load_be16(c + 7);
        break;
    }
}

/* The range in bytes. 0, or a sense code. */
static int decode_range(const struct scsi_req *r, uint64_t *offset, uint64_t *len)
{
    uint64_t lba;
    uint32_t count;
    decode_cdb(r->cdb, &lba, &count);
    if (!range_within(lba, count, scsi_blocks(r->unit)))
        return SENSE_LBA_RANGE;
    *offset = lba * r->unit->block_size;
    *len = (uint64_t)count * r->unit->block_size;
    return 0;
}

static bool is_write(uint8_t opcode)
{
    return (opcode & 0x1f) == 0x0a;
}

int scsi_read_write(struct scsi_req *r)
{
    uint64_t offset, len;
    bool six = r->cdb[0] < 0x20;
    if (!six && (r->cdb[1] & 0xe0)) /* protection information */
        return SENSE_CDB_FIELD;
    int rc = decode_range(r, &offset, &len);
    if (rc)
        return rc;
    return scsi_transfer(r, is_write(r->cdb[0]), offset, len, !six && (r->cdb[1] & 8));
}

/* 5.22: all is made durable, not only the range. */
int scsi_synchronize(struct scsi_req *r)
{
    uint64_t offset, len;
    int rc = decode_range(r, &offset, &len);
    if (rc)
        return rc;
    return r->unit->drive.blk->readonly ? 0 : scsi_submit(r, BLK_FLUSH, 0, 0);
}

/* 5.30, without a comparison: that the file can be read turns out when it is. */
int scsi_verify(struct scsi_req *r)
{
    uint64_t offset, len;
    if (r->cdb[1] & 0xe6)
        return SENSE_CDB_FIELD;
    return decode_range(r, &offset, &len);
}

/* ---- capacity ---- */

int scsi_read_capacity10(struct scsi_req *r)
{
    uint8_t p[8];
    uint64_t n = scsi_blocks(r->unit);
    store_be32(p, (uint32_t)min_u64(n ? n - 1 : 0, UINT32_MAX));
    store_be32(p + 4, r->unit->block_size);
    return scsi_reply(r, p, sizeof p, sizeof p);
}

static int read_capacity16(struct scsi_req *r)
{
    uint8_t p[32] = {0};
    const struct scsi_unit *u = r->unit;
    uint64_t n = scsi_blocks(u);
    store_be64(p, n ? n - 1 : 0);
    store_be32(p + 8, u->block_size);
    p[13] = u->block_size == 512 ? 3 : 0;      /* blocks in a physical one: 2^this */
    p[14] = u->drive.blk->readonly ? 0 : 0x80; /* thin */
    return scsi_reply(r, p, sizeof p, load_be32(r->cdb + 10));
}

int scsi_service_action_in(struct scsi_req *r)
{
    return (r->cdb[1] & 0x1f) == 0x10 ? read_capacity16(r) : SENSE_CDB_FIELD;
}

/* ---- UNMAP, 5.28 ---- */

#define UNMAP_HEAD  8u
#define UNMAP_RANGE 16u

/* Range i of the list, in bytes. False: it lies beyond the disk. */
static bool range_at(const struct scsi_req *r, uint32_t i, uint64_t *offset, uint64_t *len)
{
    const uint8_t *p = r->buf + UNMAP_HEAD + (size_t)i * UNMAP_RANGE;
    uint64_t lba = load_be64(p);
    uint32_t count = load_be32(p + 8);
    *offset = lba * r->unit->block_size;
    *len = (uint64_t)count * r->unit->block_size;
    return range_within(lba, count, scsi_blocks(r->unit));
}

static int unmap_next(struct scsi_req *r);

static void unmapped(struct blk_req *io, int result)
{
    struct scsi_req *r = io->arg;
    int sense = result ? scsi_io_sense(io->op, result) : unmap_next(r);
    if (sense != SCSI_WAIT)
        scsi_finish(r, sense);
}

/* What the disk has lost since the ranges were checked needs no unmapping. */
static int unmap_next(struct scsi_req *r)
{
    uint64_t offset, len;
    while (r->next < r->end) {
        if (!range_at(r, r->next++, &offset, &len) || !len)
            continue;
        r->io = (struct blk_req){
            .op = BLK_DISCARD, .offset = offset, .len = len, .done = unmapped, .arg = r};
        blk_submit(r->unit->drive.blk, &r->io);
        return SCSI_WAIT;
    }
    return 0;
}

int scsi_unmap(struct scsi_req *r)
{
    uint32_t len = load_be16(r->cdb + 7);
    uint64_t offset, bytes, blocks = 0;
    if (r->cdb[1] & 1) /* anchored blocks */
        return SENSE_CDB_FIELD;
    if (!len)
        return 0;
    if (len < UNMAP_HEAD)
        return SENSE_PARAMETER_LENGTH;
    r->buf = malloc(len);
    if (!r->buf)
        return SENSE_NO_MEMORY;
    if (!scsi_take(r, r->buf, len))
        return 0;
    r->next = 0;
    r->end = (uint32_t)min_u64(load_be16(r->buf + 2), len - UNMAP_HEAD) / UNMAP_RANGE;
    if (r->end > SCSI_MAX_UNMAP_RANGE)
        return SENSE_PARAMETER_FIELD;
    for (uint32_t i = 0; i < r->end; i++) {
        if (!range_at(r, i, &offset, &bytes))
            return SENSE_LBA_RANGE;
        blocks += bytes / r->unit->block_size;
    }
    if (blocks > SCSI_MAX_UNMAP)
        return SENSE_PARAMETER_FIELD;
    return unmap_next(r);
}

/* ---- WRITE SAME, 5.39 and 5.41 ---- */

static bool all_zero(const uint8_t *p, size_t n)
{
    return !p[0] && !memcmp(p, p + 1, n - 1);
}

static int write_pattern(struct scsi_req *r);

static void pattern_written(struct blk_req *io, int result)
{
    struct scsi_req *r = io->arg;
    r->io.offset += r->io.len;
    r->next -= (uint32_t)r->io.len / r->unit->block_size;
    int sense = result ? scsi_io_sense(io->op, result) : write_pattern(r);
    if (sense != SCSI_WAIT)
        scsi_finish(r, sense);
}

/* The next piece of `next` blocks that are left, at io.offset. */
static int write_pattern(struct scsi_req *r)
{
    if (!r->next)
        return 0;
    uint64_t len = min_u64((uint64_t)r->next * r->unit->block_size, SAME_BUF);
    r->one = (struct iovec){r->buf, len};
    r->io = (struct blk_req){.op = BLK_WRITE,
                             .offset = r->io.offset,
                             .len = len,
                             .iov = &r->one,
                             .niov = 1,
                             .fua = !r->unit->write_cache,
                             .done = pattern_written,
                             .arg = r};
    blk_submit(r->unit->drive.blk, &r->io);
    return SCSI_WAIT;
}

int scsi_write_same(struct scsi_req *r)
{
    uint32_t size = r->unit->block_size;
    bool no_data = r->cdb[0] == 0x93 && (r->cdb[1] & 1);
    uint64_t offset, len;
    if (r->cdb[1] & 0xf6) /* protection, anchors, counting blocks */
        return SENSE_CDB_FIELD;
    int rc = decode_range(r, &offset, &len);
    if (rc)
        return rc;
    if (!len || len / size > SCSI_MAX_SAME)
        return SENSE_CDB_FIELD;
    if (no_data)
        return scsi_submit(r, BLK_WRITE_ZEROES, offset, len);
    r->buf = malloc(SAME_BUF);
    if (!r->buf)
        return SENSE_NO_MEMORY;
    if (!scsi_take(r, r->buf, size))
        return 0;
    if (all_zero(r->buf, size))
        return scsi_submit(r, BLK_WRITE_ZEROES, offset, len);
    for (uint32_t at = size; at < SAME_BUF; at += size)
        memcpy(r->buf + at, r->buf, size);
    r->next = (uint32_t)(len / size);
    r->io.offset = offset;
    return write_pattern(r);
}
