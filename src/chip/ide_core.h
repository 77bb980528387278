/* ide_core.h - what the parts of the IDE core share: ide.c (registers), ide_xfer.c (data), ata.c
 * and atapi.c (commands), and the AHCI ports, which run the same commands. */
#ifndef SOSIA_CHIP_IDE_CORE_H
#define SOSIA_CHIP_IDE_CORE_H

#include "chip/ide.h"

/* Status register, ATA/ATAPI-7 vol. 2, 5.14. */
#define ST_BSY  0x80u
#define ST_DRDY 0x40u
#define ST_DSC  0x10u
#define ST_DRQ  0x08u
#define ST_ERR  0x01u

/* Error register, 5.9. */
#define ER_UNC  0x40u
#define ER_IDNF 0x10u
#define ER_ABRT 0x04u

/* Device register. */
#define DEV_LBA 0x40u
#define DEV_SEL 0x10u

/* Device control register, 5.8. */
#define CTL_HOB  0x80u
#define CTL_SRST 0x04u
#define CTL_NIEN 0x02u

/* Interrupt reason (the count register of packet commands). */
#define IR_CD 0x01u
#define IR_IO 0x02u

/* ---- ide.c ---- */

void ide_raise(struct ide_channel *ch);
/* Tells whoever waits that the drive is ready: by INTRQ, or the link. */
void ide_tell(struct ide_channel *ch);
/* Runs command `cmd` with the registers as they are, if the drive takes one now. */
void ide_command(struct ide_channel *ch, uint8_t cmd);
/* The command in progress is over. Each sets status and error; `finish` and `fail` interrupt. */
void ide_finish_quiet(struct ide_channel *ch);
void ide_finish(struct ide_channel *ch);
void ide_fail(struct ide_channel *ch, uint8_t error);
/* The drive's signature, by which software tells disks from CD-ROMs (9.12). */
void ide_signature(struct ide_drive *d);
/* Drops the command in progress. */
void ide_cancel(struct ide_channel *ch);
/* Puts the drive into the state after a reset. */
void ide_drive_reset(struct ide_drive *d);

/* ---- ide_xfer.c ---- */

/* Runs `step` now, or once the stale request is back. */
void ide_when_idle(struct ide_channel *ch, ide_step *step);
/* Starts the data phase that ch->xfer describes (dir, dma, packet, block, done, ...). */
void ide_xfer_reply(struct ide_channel *ch, uint32_t len); /* `len` bytes of ch->reply */
void ide_xfer_disk(struct ide_channel *ch, uint64_t offset, uint64_t len);
/* `len` bytes from the guest to ch->buf; then xfer.done. */
void ide_xfer_take(struct ide_channel *ch, uint32_t len);
/* A request of the active drive on ch->buf, if it has data. Only while none is in flight. */
void ide_io(struct ide_channel *ch, enum blk_op op, uint64_t offset, uint64_t len,
            void (*next)(struct ide_channel *ch, int result));
/* Submits a flush; then ide_finish(). */
void ide_flush(struct ide_channel *ch);
uint32_t ide_data_read(struct ide_channel *ch, unsigned size);
void ide_data_write(struct ide_channel *ch, uint32_t val, unsigned size);

/* ---- ata.c ---- */

/* Runs command `cmd` of ch->active, which is busy. */
void ata_command(struct ide_channel *ch, uint8_t cmd);
/* READ or WRITE FPDMA QUEUED (60h, 61h) as the registers name it, checked against the disk.
 * Returns 0 or the error register's value. */
struct ata_queued {
    unsigned tag;
    bool write, fua;
    uint64_t offset, len; /* bytes */
};
uint8_t ata_decode_queued(const struct ide_drive *d, uint8_t cmd, struct ata_queued *q);
/* The queued command in the registers failed: what the log will say, and status and error. */
void ata_queued_failed(struct ide_drive *d, const struct ata_queued *q, uint8_t error);
/* A disk request failed; ch->xfer tells where. */
void ata_io_error(struct ide_channel *ch);

/* ---- ata_trim.c ---- */

/* DATA SET MANAGEMENT, TRIM, of `blocks` blocks of ranges. */
#define ATA_TRIM_BLOCKS 8u
void ata_trim(struct ide_channel *ch, uint32_t blocks);
ide_step ata_trim_ranges; /* all ranges are in the buffer */

/* ---- ata_identify.c ---- */

void ata_identify_disk(const struct ide_drive *d, uint8_t *buf); /* 512 bytes each */
void ata_identify_packet(const struct ide_drive *d, uint8_t *buf);
void ata_smart_table(uint8_t *buf, bool thresholds);
/* A page of the general purpose logs; false: there is no such log. */
bool ata_log_page(const struct ide_drive *d, uint8_t log, uint8_t *buf);

/* ---- atapi.c ---- */

void atapi_packet(struct ide_channel *ch); /* command A0h */
void atapi_io_error(struct ide_channel *ch);
ide_step atapi_run_packet;  /* the command packet is in the reply buffer */
ide_step atapi_packet_done; /* success */

#endif
