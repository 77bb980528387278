/*
 * atapi.c - PACKET commands: phases, sense data, and the packets that do something. What just
 * answers is in atapi_reply.c. Sources: ATA/ATAPI-7 volume 2, chapter 9 (phases); SPC-2 and MMC-3
 * (packets).
 */
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "chip/atapi_reply.h"
#include "chip/ide_core.h"

#define PACKET_SIZE 12u
#define FEATURE_DMA 0x01u
#define FEATURE_OVL 0x02u

enum {
    KEY_NOT_READY = 0x02,
    KEY_MEDIUM_ERROR = 0x03,
    KEY_ILLEGAL_REQUEST = 0x05,
    KEY_UNIT_ATTENTION = 0x06,
};

enum {
    F_MEDIUM = 1,    /* needs a medium */
    F_ATTENTION = 2, /* runs before a UNIT ATTENTION is reported */
    F_KEEP = 4,      /* leaves the sense data of the command before */
};

struct packet_op {
    void (*run)(struct ide_channel *ch, const uint8_t *cdb);
    atapi_builder *build; /* a reply, instead of `run` */
    uint8_t alloc;        /* where the packet has its allocation length */
    uint8_t alloc_bytes;  /* 1, 2; 0: the reply has a fixed size */
    uint8_t flags;
};

/* ---- the end of a packet ---- */

void atapi_packet_done(struct ide_channel *ch)
{
    ch->active->reg[IDE_COUNT][0] = IR_CD | IR_IO;
    ide_finish(ch);
}

static void check_condition(struct ide_channel *ch, uint8_t key, uint8_t asc, uint8_t ascq)
{
    struct ide_drive *d = ch->active;
    d->cd.key = key;
    d->cd.asc = asc;
    d->cd.ascq = ascq;
    d->reg[IDE_COUNT][0] = IR_CD | IR_IO;
    ide_fail(ch, (uint8_t)(key << 4));
}

static void refuse(struct ide_channel *ch, int sense)
{
    check_condition(ch, (uint8_t)(sense >> 16), (uint8_t)(sense >> 8), (uint8_t)sense);
}

static void illegal_field(struct ide_channel *ch)
{
    check_condition(ch, KEY_ILLEGAL_REQUEST, 0x24, 0x00);
}

static void not_ready(struct ide_channel *ch)
{
    check_condition(ch, KEY_NOT_READY, 0x3a, ch->active->cd.tray_open ? 0x02 : 0x01);
}

void atapi_io_error(struct ide_channel *ch)
{
    check_condition(ch, KEY_MEDIUM_ERROR, 0x11, 0x00);
}

/* ---- data in ---- */

/* The host limits a PIO block; all but the last have an even length (9.8). */
static uint32_t block_limit(const struct ide_drive *d, uint64_t total)
{
    uint32_t limit = d->reg[IDE_LBA1][0] | (uint32_t)d->reg[IDE_LBA2][0] << 8;
    if (limit == 0 || limit == 0xffff)
        limit = 0xfffe;
    if (total <= limit)
        return limit;
    return limit < 2 ? 2 : limit & ~1u;
}

static void data_in(struct ide_channel *ch, uint64_t total)
{
    ch->xfer.dir = IDE_IN;
    ch->xfer.block = block_limit(ch->active, total);
    ch->xfer.done = atapi_packet_done;
}

static void reply(struct ide_channel *ch, uint32_t len)
{
    if (!len) {
        atapi_packet_done(ch);
        return;
    }
    data_in(ch, len);
    ide_xfer_reply(ch, len);
}

static void read_sectors(struct ide_channel *ch, uint32_t lba, uint32_t count)
{
    uint64_t len = (uint64_t)count * IDE_CD_SECTOR;
    if (!range_within(lba, count, atapi_sectors(ch->active))) {
        check_condition(ch, KEY_ILLEGAL_REQUEST, 0x21, 0x00);
        return;
    }
    if (!count) {
        atapi_packet_done(ch);
        return;
    }
    data_in(ch, len);
    ide_xfer_disk(ch, (uint64_t)lba * IDE_CD_SECTOR, len);
}

static void read10(struct ide_channel *ch, const uint8_t *cdb)
{
    read_sectors(ch, load_be32(cdb + 2), load_be16(cdb + 7));
}

static void read12(struct ide_channel *ch, const uint8_t *cdb)
{
    read_sectors(ch, load_be32(cdb + 2), load_be32(cdb + 6));
}

static void read_cd(struct ide_channel *ch, const uint8_t *cdb)
{
    uint32_t lba, count;
    int sense = atapi_decode_read_cd(cdb, &lba, &count);
    if (sense)
        refuse(ch, sense);
    else
        read_sectors(ch, lba, count);
}

/* ---- no data ---- */

static void succeed(struct ide_channel *ch, const uint8_t *cdb)
{
    atapi_packet_done(ch);
}

static void seek(struct ide_channel *ch, const uint8_t *cdb)
{
    if (load_be32(cdb + 2) < atapi_sectors(ch->active))
        atapi_packet_done(ch);
    else
        check_condition(ch, KEY_ILLEGAL_REQUEST, 0x21, 0x00);
}

static void prevent_allow(struct ide_channel *ch, const uint8_t *cdb)
{
    ch->active->cd.locked = cdb[4] & 1;
    atapi_packet_done(ch);
}

static void start_stop(struct ide_channel *ch, const uint8_t *cdb)
{
    int sense = atapi_start_stop(ch->active, cdb);
    if (sense)
        refuse(ch, sense);
    else
        atapi_packet_done(ch);
}

/* ---- dispatch ---- */

static const struct packet_op ops[256] = {
    [0x00] = {.run = succeed, .flags = F_MEDIUM}, /* TEST UNIT READY */
    [0x03] = {.build = atapi_request_sense,
              .alloc = 4,
              .alloc_bytes = 1,
              .flags = F_ATTENTION | F_KEEP},
    [0x12] = {.build = atapi_inquiry, .alloc = 4, .alloc_bytes = 1, .flags = F_ATTENTION},
    [0x1a] = {.build = atapi_mode_sense6, .alloc = 4, .alloc_bytes = 1},
    [0x1b] = {.run = start_stop},
    [0x1e] = {.run = prevent_allow},
    [0x25] = {.build = atapi_read_capacity, .flags = F_MEDIUM},
    [0x28] = {.run = read10, .flags = F_MEDIUM},
    [0x2b] = {.run = seek, .flags = F_MEDIUM},
    [0x43] = {.build = atapi_read_toc, .alloc = 7, .alloc_bytes = 2, .flags = F_MEDIUM},
    [0x46] = {.build = atapi_get_configuration, .alloc = 7, .alloc_bytes = 2, .flags = F_ATTENTION},
    [0x4a] = {.build = atapi_event_status, .alloc = 7, .alloc_bytes = 2, .flags = F_ATTENTION},
    [0x51] = {.build = atapi_disc_information, .alloc = 7, .alloc_bytes = 2, .flags = F_MEDIUM},
    [0x5a] = {.build = atapi_mode_sense10, .alloc = 7, .alloc_bytes = 2},
    [0xa8] = {.run = read12, .flags = F_MEDIUM},
    [0xbb] = {.run = succeed}, /* SET CD SPEED */
    [0xbd] = {.build = atapi_mechanism_status, .alloc = 8, .alloc_bytes = 2},
    [0xbe] = {.run = read_cd, .flags = F_MEDIUM},
};

static void build_reply(struct ide_channel *ch, const struct packet_op *op, const uint8_t *cdb)
{
    memset(ch->reply, 0, sizeof ch->reply);
    uint32_t len = op->build(ch->active, cdb, ch->reply);
    if (!len) {
        illegal_field(ch);
        return;
    }
    if (op->alloc_bytes == 1)
        len = (uint32_t)min_u64(len, cdb[op->alloc]);
    else if (op->alloc_bytes == 2)
        len = (uint32_t)min_u64(len, load_be16(cdb + op->alloc));
    reply(ch, len);
}

void atapi_run_packet(struct ide_channel *ch)
{
    struct ide_drive *d = ch->active;
    uint8_t cdb[PACKET_SIZE];
    memcpy(cdb, ch->reply, sizeof cdb);
    const struct packet_op *op = &ops[cdb[0]];
    ch->xfer = (struct ide_xfer){.packet = true, .dma = d->reg[IDE_FEATURE][0] & FEATURE_DMA};

    if (!(op->flags & F_KEEP))
        d->cd.key = d->cd.asc = d->cd.ascq = 0;
    if (!op->run && !op->build) {
        check_condition(ch, KEY_ILLEGAL_REQUEST, 0x20, 0x00);
    } else if (d->cd.attention && !(op->flags & F_ATTENTION)) {
        d->cd.attention = false;
        check_condition(ch, KEY_UNIT_ATTENTION, 0x28, 0x00);
    } else if ((op->flags & F_MEDIUM) && !atapi_medium(d)) {
        not_ready(ch);
    } else if (op->run) {
        op->run(ch, cdb);
    } else {
        build_reply(ch, op, cdb);
    }
}

/* The command packet comes through the data port in one block, asked for without an interrupt. */
void atapi_packet(struct ide_channel *ch)
{
    struct ide_drive *d = ch->active;
    if (d->reg[IDE_FEATURE][0] & FEATURE_OVL) {
        ide_fail(ch, ER_ABRT);
        return;
    }
    ch->xfer = (struct ide_xfer){
        .dir = IDE_OUT,
        .quiet = true,
        .block = PACKET_SIZE,
        .done = atapi_run_packet,
    };
    d->reg[IDE_COUNT][0] = IR_CD;
    ide_xfer_reply(ch, PACKET_SIZE);
}
