/* scsi_cd.c - what only CD-ROM drives do: the packets of MMC-3, answered by the builders that ATAPI
 * drives use. Disks share what moves no medium. */
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "chip/atapi_reply.h"
#include "chip/scsi_core.h"

static const struct {
    uint8_t opcode;
    atapi_builder *build;
    uint8_t alloc; /* where the packet has its allocation length, of two bytes */
} replies[] = {{0x43, atapi_read_toc, 7},
               {0x46, atapi_get_configuration, 7},
               {0x4a, atapi_event_status, 7},
               {0x51, atapi_disc_information, 7},
               {0xbd, atapi_mechanism_status, 8}};

/* READ CD, of which only the user data can be had. */
static int read_cd(struct scsi_req *r)
{
    uint32_t lba, count;
    int sense = atapi_decode_read_cd(r->cdb, &lba, &count);
    if (sense)
        return sense;
    if (!range_within(lba, count, scsi_blocks(r->unit)))
        return SENSE_LBA_RANGE;
    return scsi_transfer(r, false, (uint64_t)lba * IDE_CD_SECTOR, (uint64_t)count * IDE_CD_SECTOR,
                         false);
}

/* A tray that closed has a new medium for all that the guest knows. */
static int start_stop(struct scsi_req *r)
{
    struct ide_drive *d = &r->unit->drive;
    int sense = atapi_start_stop(d, r->cdb);
    if (d->cd.attention)
        r->unit->attention |= SCSI_UA_MEDIUM;
    d->cd.attention = false;
    return sense;
}

int scsi_cd_packet(struct scsi_req *r)
{
    struct ide_drive *d = &r->unit->drive;
    uint8_t reply[IDE_REPLY_SIZE] = {0};
    switch (r->cdb[0]) {
    case 0x1b:
        return d->kind == IDE_DISK ? 0 : start_stop(r);
    case 0x1e:
        d->cd.locked = r->cdb[4] & 1;
        return 0;
    case 0x2b:
        return load_be32(r->cdb + 2) < scsi_blocks(r->unit) ? 0 : SENSE_LBA_RANGE;
    case 0xbe:
        return read_cd(r);
    default:
        break;
    }
    for (unsigned i = 0; i < ARRAY_LEN(replies); i++) {
        if (replies[i].opcode != r->cdb[0])
            continue;
        uint32_t n = replies[i].build(d, r->cdb, reply);
        return n ? scsi_reply(r, reply, n, load_be16(r->cdb + replies[i].alloc)) : SENSE_CDB_FIELD;
    }
    return SENSE_OPCODE;
}
