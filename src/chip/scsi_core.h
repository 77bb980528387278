/* scsi_core.h - what the parts of the SCSI core share: scsi.c (the way of a command, what every
 * unit has), scsi_mode.c (INQUIRY, mode pages), scsi_disk.c and scsi_cd.c. */
#ifndef SOSIA_CHIP_SCSI_CORE_H
#define SOSIA_CHIP_SCSI_CORE_H

#include "chip/scsi.h"

/* What a command returns: 0, a sense code, or WAIT: it ends by itself. */
#define SCSI_WAIT              (-1)
#define SENSE(key, asc, ascq)  ((key) << 16 | (asc) << 8 | (ascq))
#define SENSE_NOT_READY        SENSE(0x2, 0x3a, 0x01)
#define SENSE_READ_ERROR       SENSE(0x3, 0x11, 0x00)
#define SENSE_WRITE_ERROR      SENSE(0x3, 0x0c, 0x00)
#define SENSE_NO_SPACE         SENSE(0x7, 0x27, 0x07)
#define SENSE_PARAMETER_LENGTH SENSE(0x5, 0x1a, 0x00)
#define SENSE_OPCODE           SENSE(0x5, 0x20, 0x00)
#define SENSE_LBA_RANGE        SENSE(0x5, 0x21, 0x00)
#define SENSE_CDB_FIELD        SENSE(0x5, 0x24, 0x00)
#define SENSE_NO_UNIT          SENSE(0x5, 0x25, 0x00)
#define SENSE_PARAMETER_FIELD  SENSE(0x5, 0x26, 0x00)
#define SENSE_SAVING           SENSE(0x5, 0x39, 0x00)
#define SENSE_RESET            SENSE(0x6, 0x29, 0x00)
#define SENSE_NEW_MEDIUM       SENSE(0x6, 0x28, 0x00)
#define SENSE_MODE_CHANGED     SENSE(0x6, 0x2a, 0x01)
#define SENSE_NEW_CAPACITY     SENSE(0x6, 0x2a, 0x09)
#define SENSE_PROTECTED        SENSE(0x7, 0x27, 0x00)
#define SENSE_NO_MEMORY        SENSE(0x4, 0x44, 0x00)

enum { /* flags of commands */
       SCSI_F_DISK = 1,
       SCSI_F_CD = 2,
       SCSI_F_ATTENTION = 4, /* runs before a unit attention is reported (SPC-4, 5.14) */
       SCSI_F_ABSENT = 8,    /* answered for units that do not exist, too */
       SCSI_F_MEDIUM = 16,
       SCSI_F_WRITE = 32, /* changes the medium */
};

struct scsi_op {
    int (*run)(struct scsi_req *r);
    unsigned flags;
};

/* ---- scsi.c ---- */

/* Answers with a reply of which the initiator wants at most `alloc` bytes. */
int scsi_reply(struct scsi_req *r, const void *buf, uint32_t len, uint32_t alloc);
/* `len` bytes of parameters. False (the command ends with an overrun): there are not so many. */
bool scsi_take(struct scsi_req *r, void *buf, uint64_t len);
/* Submits a request without data; its end is the command's. */
int scsi_submit(struct scsi_req *r, enum blk_op op, uint64_t offset, uint64_t len);
/* Reads or writes `len` bytes of the command's data. */
int scsi_transfer(struct scsi_req *r, bool write, uint64_t offset, uint64_t len, bool fua);
void scsi_finish(struct scsi_req *r, int sense);
int scsi_io_sense(enum blk_op op, int result);
/* The sense code of the attention that is due first, which is then reported; 0: none. */
int scsi_take_attention(struct scsi_unit *u);

/* ---- scsi_mode.c ---- */

int scsi_inquiry(struct scsi_req *r);
int scsi_mode_sense(struct scsi_req *r);
int scsi_mode_select(struct scsi_req *r);

/* ---- scsi_disk.c ---- */

uint64_t scsi_blocks(const struct scsi_unit *u);
int scsi_read_write(struct scsi_req *r);
int scsi_synchronize(struct scsi_req *r);
int scsi_verify(struct scsi_req *r);
int scsi_unmap(struct scsi_req *r);
int scsi_write_same(struct scsi_req *r);
int scsi_read_capacity10(struct scsi_req *r);
int scsi_service_action_in(struct scsi_req *r);
/* Largest amounts of UNMAP and WRITE SAME, as the block limits page tells them. */
#define SCSI_MAX_UNMAP       (1u << 22)
#define SCSI_MAX_UNMAP_RANGE 256u
#define SCSI_MAX_SAME        (1u << 18)

/* ---- scsi_cd.c ---- */

int scsi_cd_packet(struct scsi_req *r); /* a command that ATAPI's builders answer, or a read */

#endif
