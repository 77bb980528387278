/*
 * scsi.h - SCSI logical units behind a transport: disks and CD-ROM drives. Pure core. Sources:
 * SPC-4 (commands of all units), SBC-3 (disks), MMC-3 (CD-ROM drives, whose answers are ATAPI's).
 *
 * The transport fills a `struct scsi_req` and hands it over with scsi_run(); `done` is called
 * exactly once, maybe before scsi_run() returns. Data is the initiator's memory, as pieces that the
 * transport has checked; they are changed. A unit has one initiator and reports sense data with the
 * status.
 */
#ifndef SOSIA_CHIP_SCSI_H
#define SOSIA_CHIP_SCSI_H

#include "chip/ide.h"

#define SCSI_SENSE_LEN 18u
#define SCSI_CDB_LEN   16u /* of what is understood */

enum { SCSI_GOOD = 0x00, SCSI_CHECK_CONDITION = 0x02 };

/* Unit attention conditions that are due, in the order in which they are reported. */
enum { SCSI_UA_RESET = 1, SCSI_UA_MEDIUM = 2, SCSI_UA_CAPACITY = 4, SCSI_UA_MODE = 8 };

struct scsi_unit {
    struct ide_drive drive; /* kind, back end, names, and what a CD-ROM drive remembers */
    struct space *mem;
    uint32_t block_size;
    bool write_cache;
    unsigned attention; /* SCSI_UA_* */
    /* The capacity changed: SCSI_UA_CAPACITY is due. May be NULL. */
    void (*changed)(void *ctx);
    void *ctx;
};

struct scsi_req {
    struct scsi_unit *unit;
    bool absent; /* for a logical unit beside `unit` that does not exist */
    uint8_t cdb[SCSI_CDB_LEN];
    struct iovec *iov; /* the data: of one direction only */
    unsigned niov;
    uint64_t len; /* bytes in them */
    bool to_target;
    void (*done)(struct scsi_req *r);
    void *arg;

    /* The end. */
    uint8_t status;
    uint8_t sense[SCSI_SENSE_LEN]; /* with CHECK CONDITION */
    uint64_t moved;                /* bytes of data */
    bool overrun;                  /* the command has more data than there are pieces */

    /* The unit's. */
    struct blk_req io;
    uint8_t *buf; /* of the heap; scsi.c frees it */
    uint32_t next, end;
    struct iovec one;
};

extern const struct field_table scsi_unit_fields;

void scsi_init_disk(struct scsi_unit *u, struct space *mem, struct blk *blk, const char *model,
                    const char *serial, uint32_t block_size);
void scsi_init_cdrom(struct scsi_unit *u, struct space *mem, struct blk *blk, const char *model,
                     const char *serial);
/* A reset by the transport; commands in progress are its affair. */
void scsi_reset(struct scsi_unit *u);

void scsi_run(struct scsi_req *r);

#endif
