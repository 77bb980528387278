/* atapi_reply.h - what a CD-ROM drive answers to packets, whatever they come through (ATAPI, SCSI).
 * Each builder writes at most IDE_REPLY_SIZE bytes and returns how many, or 0 if the packet asks
 * for what does not exist. */
#ifndef SOSIA_CHIP_ATAPI_REPLY_H
#define SOSIA_CHIP_ATAPI_REPLY_H

#include "chip/ide.h"

static inline bool atapi_medium(const struct ide_drive *d)
{
    return d->blk && !d->cd.tray_open;
}

/* Sectors of 2 KiB of the medium. */
uint32_t atapi_sectors(const struct ide_drive *d);

/* The sense code of a refusal: key << 16 | asc << 8 | ascq; 0: none. */
int atapi_start_stop(struct ide_drive *d, const uint8_t *cdb);
int atapi_decode_read_cd(const uint8_t *cdb, uint32_t *lba, uint32_t *count);

typedef uint32_t atapi_builder(struct ide_drive *d, const uint8_t *cdb, uint8_t *buf);
atapi_builder atapi_inquiry, atapi_request_sense, atapi_read_capacity, atapi_read_toc,
    atapi_mode_sense6, atapi_mode_sense10, atapi_event_status, atapi_get_configuration,
    atapi_disc_information, atapi_mechanism_status;

#endif
